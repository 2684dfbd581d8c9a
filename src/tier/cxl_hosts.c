/* SPDX-License-Identifier: Apache-2.0
 *
 * Hosts that share a CXL device: who is there, who owns which extent, and who is dead.
 *
 * Atomic operations of one host are not atomic to another on this memory, so the lock is Lamport's
 * bakery: a host draws a number higher than all it sees, and waits for those before it.  Each word
 * has one writer; a writer writes its line back and fences, a reader drops its copy first.  The
 * order that the proof needs, a host's own `choosing` and `number` in memory before it reads the
 * others', is the fence in wf_cxl_publish() and the invalidation in wf_cxl_look().
 *
 * A host that dies with the lock holds everybody up who needs an extent, and nobody else.  An
 * operator fences it; until then writes that need one are WEFT_FULL after a while.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "sys/clock.h"
#include "sys/lines.h"
#include "sys/memory.h"
#include "tier/cxl_volume.h"

#define BEAT_MS 1000u
#define LOCK_PATIENCE_MS 2000u
#define NUMBER_MAX (UINT64_C(1) << 62)

/* Extents that a host claims at once, so that the lock is not taken for each, and that it keeps
 * when they are empty: up to 8, and no more of a small device than others can spare. */
static uint64_t at_once(const struct wf_cxl *t)
{
    return t->extents < 64 ? 1 : t->extents < 512 ? t->extents / 64 : 8;
}

/* Has anyone declared session `session` of `host` dead?  Touches the medium. */
static bool is_fenced(const struct wf_cxl *t, uint32_t host, uint64_t session)
{
    for (uint32_t h = 1; h < WF_CXL_HOSTS; h++) {
        const struct wf_cxl_row *row = &t->rows[h];
        if (wf_cxl_look(t, &row->magic) == WF_CXL_ROW_MAGIC &&
            wf_cxl_look(t, &row->fenced[host]) >= session)
            return true;
    }
    return false;
}

void wf_cxl_join(struct wf_cxl *t)
{
    struct wf_cxl_row *row = &t->rows[t->host];
    bool known = wf_cxl_look(t, &row->magic) == WF_CXL_ROW_MAGIC;
    t->session = known ? wf_cxl_look(t, &row->session) + 1 : 1;
    /* A host that was fenced comes back as a later session than any that was declared dead. */
    for (uint32_t tries = 0; t->shared && tries < WF_CXL_HOSTS && is_fenced(t, t->host, t->session);
         tries++)
        t->session++;
    t->sequence = (t->session << WF_CXL_SESSION_SHIFT) &
                  ((UINT64_C(1) << WF_CXL_SEQUENCE_BITS) - 1);
    wf_cxl_publish(&row->number, 0);
    wf_cxl_publish(&row->choosing, 0);
    wf_cxl_publish(&row->session, t->session);
    wf_cxl_publish(&row->magic, WF_CXL_ROW_MAGIC);
    t->beat_ms = wf_now_ms();
}

static void leave(void *context)
{
    struct wf_cxl *t = context;
    struct wf_cxl_row *row = &t->rows[t->host];
    if (t->lock != WF_CXL_LOCK_NONE) {
        wf_cxl_publish(&row->number, 0);
        wf_cxl_publish(&row->choosing, 0);
    }
    wf_cxl_publish(&row->left, t->session);
}

void wf_cxl_leave(struct wf_cxl *t)
{
    if (!t->failed)
        (void)wf_cxl_guarded(t, leave, t);
}

struct beating {
    struct wf_cxl *t;
    bool fenced;
};

static void beat(void *context)
{
    struct beating *b = context;
    struct wf_cxl_row *row = &b->t->rows[b->t->host];
    wf_cxl_publish(&row->heartbeat, row->heartbeat + 1);
    b->fenced = is_fenced(b->t, b->t->host, b->t->session);
}

void wf_cxl_beat(struct wf_cxl *t)
{
    uint64_t now = wf_now_ms();
    if (!t->shared || t->failed || now - t->beat_ms < BEAT_MS)
        return;
    struct beating b = {.t = t};
    t->beat_ms = now;
    if (wf_cxl_guarded(t, beat, &b) == WF_FAULT_NONE && b.fenced) {
        t->failed = true;
        wf_error("tier", "%s: host %u was declared dead by another; open it again", t->path,
                 t->host);
    }
}

/* ------------------------------------------------------------------------------------- the lock */

/* WEFT_OK: it is ours.  WEFT_PENDING: another's.  Touches the medium. */
static enum weft_status lock_step(struct wf_cxl *t)
{
    struct wf_cxl_row *row = &t->rows[t->host];
    if (t->lock == WF_CXL_LOCK_HELD)
        return WEFT_OK;
    if (t->lock == WF_CXL_LOCK_NONE) {
        uint64_t highest = 0;
        t->lock_since_ms = wf_now_ms();
        t->lock_next = 1;
        t->lock = WF_CXL_LOCK_WAITING;
        wf_cxl_publish(&row->choosing, 1);
        for (uint32_t h = 1; h < WF_CXL_HOSTS; h++) {
            uint64_t number = h == t->host ? 0 : wf_cxl_look(t, &t->rows[h].number);
            if (number > highest && number < NUMBER_MAX)
                highest = number;
        }
        wf_cxl_publish(&row->number, highest + 1);
        wf_cxl_publish(&row->choosing, 0);
    }
    for (; t->lock_next < WF_CXL_HOSTS; t->lock_next++) {
        uint32_t h = t->lock_next;
        if (h == t->host)
            continue;
        uint64_t choosing = wf_cxl_look(t, &t->rows[h].choosing);
        uint64_t number = wf_cxl_look(t, &t->rows[h].number);
        bool before = number != 0 &&
                      (number < row->number || (number == row->number && h < t->host));
        if ((choosing || before) && !is_fenced(t, h, wf_cxl_look(t, &t->rows[h].session)))
            return WEFT_PENDING;
    }
    t->lock = WF_CXL_LOCK_HELD;
    return WEFT_OK;
}

/* Touches the medium. */
static void unlock(struct wf_cxl *t)
{
    struct wf_cxl_row *row = &t->rows[t->host];
    wf_cxl_publish(&row->number, 0);
    wf_cxl_publish(&row->choosing, 0);
    t->lock = WF_CXL_LOCK_NONE;
}

/* -------------------------------------------------------------------------------------- extents */

struct claim {
    struct wf_cxl *t;
    uint64_t wanted; /* extents in a row */
    enum weft_status status;
    bool fenced;
};

/* Nobody's and with nothing in it: its next generation is ours.  Words of blocks that its owner
 * could not take back any more are of an older generation, and go here. */
static void claim_one(struct wf_cxl *t, uint64_t extent, uint64_t free_word)
{
    struct wf_cxl_directory *directory = &t->directories[extent];
    wf_lines_invalidate(directory, sizeof *directory);
    for (uint32_t i = 0; i < WF_CXL_EXTENT_GRANULES; i++)
        if (directory->words[i])
            wf_cxl_publish(&directory->words[i], 0);
    uint64_t word = wf_cxl_extent_word_make(t, extent, wf_cxl_generation(free_word) + 1, t->host);
    /* What readers remember of it is of another owner; the number goes on from there. */
    wf_cxl_publish(&t->table[extent].changes, wf_cxl_look(t, &t->table[extent].changes) + 1);
    wf_cxl_publish(&t->table[extent].word, word);
    wf_cxl_extent_take(t, extent, word);
}

static bool is_free(const struct wf_cxl *t, uint64_t extent, uint64_t *out_word)
{
    *out_word = wf_cxl_extent_word(t, extent);
    return *out_word != 0 && wf_cxl_owner(*out_word) == 0;
}

/* `wanted` free ones in a row, and what follows them up to what is claimed at once. */
static void claim_run(struct claim *c)
{
    struct wf_cxl *t = c->t;
    uint64_t run = 0, word, foreign = 0;
    c->status = WEFT_FULL;
    for (uint64_t i = 0; i < t->extents; i++) {
        uint64_t e = (t->claim_hint + i) % t->extents;
        bool is = t->words[e] == 0 && is_free(t, e, &word);
        run = is ? (e == 0 ? 1 : run + 1) : 0;
        foreign += t->words[e] == 0 && !is;
        if (run < c->wanted)
            continue;
        uint64_t first = e + 1 - run, end = first + run;
        while (end < t->extents && end - first < at_once(t) && t->words[end] == 0 &&
               is_free(t, end, &word))
            end++;
        for (e = first; e < end; e++)
            if (is_free(t, e, &word))
                claim_one(t, e, word);
        t->claim_hint = end % t->extents;
        c->status = WEFT_OK;
        return;
    }
    t->foreign = foreign;
}

static void claim_step(void *context)
{
    struct claim *c = context;
    struct wf_cxl *t = c->t;
    c->status = lock_step(t);
    if (c->status == WEFT_PENDING) {
        if (wf_now_ms() - t->lock_since_ms < LOCK_PATIENCE_MS)
            return;
        unlock(t); /* drawn back */
        c->status = WEFT_E_TIMEOUT;
        return;
    }
    /* Whoever was declared dead while it waited must not claim what is another's by now. */
    c->fenced = is_fenced(t, t->host, t->session);
    if (!c->fenced)
        claim_run(c);
    unlock(t);
}

enum weft_status wf_cxl_claim_step(struct wf_cxl *t, uint64_t granules)
{
    struct claim c = {.t = t,
                      .wanted = (granules + WF_CXL_EXTENT_GRANULES - 1) / WF_CXL_EXTENT_GRANULES};
    uint32_t holder = t->lock_next;
    enum wf_fault fault = wf_cxl_guarded(t, claim_step, &c);
    if (c.fenced) {
        t->failed = true;
        wf_error("tier", "%s: host %u was declared dead by another; open it again", t->path,
                 t->host);
    }
    if (fault != WF_FAULT_NONE || c.fenced)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: out of use since an error; open it again", t->path);
    if (c.status == WEFT_E_TIMEOUT)
        return wf_fail(
            WEFT_FULL,
            "tier %s: host %u holds the lock of the device and does not go on; fence it if it "
            "is dead",
            t->path, holder);
    if (c.status == WEFT_FULL)
        return wf_fail(WEFT_FULL, "tier %s: no %llu extents in a row are free; remove blocks",
                       t->path, (unsigned long long)c.wanted);
    return c.status;
}

static void draw_back(void *context)
{
    unlock(context);
}

void wf_cxl_claim_abandon(struct wf_cxl *t)
{
    if (t->lock != WF_CXL_LOCK_NONE && !t->failed)
        (void)wf_cxl_guarded(t, draw_back, t);
}

struct release {
    struct wf_cxl *t;
    uint64_t extent;
};

/* Its directory is empty, and that is in memory: anybody may have it. */
static void release_one(void *context)
{
    struct release *r = context;
    struct wf_cxl *t = r->t;
    wf_cxl_publish(&t->table[r->extent].word,
                   wf_cxl_extent_word_make(t, r->extent, wf_cxl_generation(t->words[r->extent]),
                                           0));
}

void wf_cxl_extents_release(struct wf_cxl *t, uint64_t first, uint64_t granules)
{
    uint64_t last = (first + granules - 1) / WF_CXL_EXTENT_GRANULES;
    for (uint64_t e = first / WF_CXL_EXTENT_GRANULES; e <= last && t->empty > at_once(t); e++) {
        struct release r = {t, e};
        if (!t->words[e] || t->vacant_count[e] != WF_CXL_EXTENT_GRANULES)
            continue;
        if (wf_cxl_guarded(t, release_one, &r) != WF_FAULT_NONE)
            return;
        wf_cxl_extent_drop(t, e);
    }
}

/* ------------------------------------------------------------------------------ for an operator */

uint32_t wf_cxl_census(const struct wf_cxl *t, const uint64_t extents[WF_CXL_HOSTS],
                       struct wf_tier_host *out, uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t h = 1; h < WF_CXL_HOSTS && count < max; h++) {
        const struct wf_cxl_row *row = &t->rows[h];
        if (wf_cxl_look(t, &row->magic) != WF_CXL_ROW_MAGIC)
            continue;
        struct wf_tier_host *host = &out[count++];
        *host = (struct wf_tier_host){.host = (uint8_t)h};
        host->session = wf_cxl_look(t, &row->session);
        host->here = wf_cxl_look(t, &row->left) != host->session;
        host->fenced = is_fenced(t, h, host->session);
        host->heartbeat = wf_cxl_look(t, &row->heartbeat);
        host->extents = extents[h];
    }
    return count;
}

struct census {
    struct wf_cxl *t;
    struct wf_tier_host *out;
    uint32_t max, count;
    uint64_t extents[WF_CXL_HOSTS];
};

static void take_census(void *context)
{
    struct census *c = context;
    const struct wf_cxl *t = c->t;
    for (uint64_t e = 0; e < t->extents; e++) {
        uint64_t word = wf_cxl_extent_word(t, e);
        c->extents[word ? wf_cxl_owner(word) : 0]++;
    }
    c->count = wf_cxl_census(t, c->extents, c->out, c->max);
}

uint32_t wf_tier_cxl_hosts(struct wf_tier *tier, struct wf_tier_host *out, uint32_t max)
{
    struct census c = {.t = (struct wf_cxl *)(uintptr_t)tier, .out = out, .max = max};
    if (c.t->failed || wf_cxl_guarded(c.t, take_census, &c) != WF_FAULT_NONE)
        return 0;
    return c.count;
}

struct fencing {
    struct wf_cxl *t;
    uint8_t host;
    bool known;
    enum weft_status status;
    uint64_t taken;
    uint8_t *is_taken; /* of each extent */
};

static void declare_dead(void *context)
{
    struct fencing *f = context;
    struct wf_cxl *t = f->t;
    const struct wf_cxl_row *row = &t->rows[f->host];
    f->known = wf_cxl_look(t, &row->magic) == WF_CXL_ROW_MAGIC;
    if (f->known)
        wf_cxl_publish(&t->rows[t->host].fenced[f->host], wf_cxl_look(t, &row->session));
}

static void try_lock(void *context)
{
    struct fencing *f = context;
    f->status = lock_step(f->t);
}

/* Owner changes, generation stays: its blocks are blocks of ours.  All of them change hands before
 * any is read, because a block may span several. */
static void take_over(void *context)
{
    struct fencing *f = context;
    struct wf_cxl *t = f->t;
    for (uint64_t e = 0; e < t->extents; e++) {
        uint64_t word = wf_cxl_extent_word(t, e);
        if (word == 0 || wf_cxl_owner(word) != f->host)
            continue;
        word = wf_cxl_extent_word_make(t, e, wf_cxl_generation(word), t->host);
        wf_cxl_publish(&t->table[e].word, word);
        wf_cxl_extent_take(t, e, word);
        f->is_taken[e] = 1;
        f->taken++;
    }
    unlock(t);
    for (uint64_t e = 0; e < t->extents; e++)
        if (f->is_taken[e])
            wf_cxl_extent_scan(t, e);
}

static enum weft_status out_of_use(const struct wf_cxl *t)
{
    return wf_fail(WEFT_E_SYSTEM, "tier %s: out of use since an error; open it again", t->path);
}

static enum weft_status fence_host(struct fencing *f, uint32_t timeout_ms)
{
    struct wf_cxl *t = f->t;
    uint64_t until = wf_now_ms() + timeout_ms;
    if (t->failed || wf_cxl_guarded(t, declare_dead, f) != WF_FAULT_NONE)
        return out_of_use(t);
    if (!f->known)
        return wf_fail(WEFT_E_NOT_FOUND, "tier %s: host %u was never there", t->path, f->host);
    enum wf_fault fault;
    while ((fault = wf_cxl_guarded(t, try_lock, f)) == WF_FAULT_NONE && f->status == WEFT_PENDING &&
           wf_now_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    if (fault == WF_FAULT_NONE && f->status == WEFT_PENDING)
        return wf_fail(WEFT_E_TIMEOUT,
                       "tier %s: host %u holds the lock; fence it too if it is dead, or try again",
                       t->path, t->lock_next);
    if (fault != WF_FAULT_NONE || wf_cxl_guarded(t, take_over, f) != WF_FAULT_NONE)
        return out_of_use(t);
    wf_info("tier", "%s: host %u was declared dead; %llu extents of it are host %u's now", t->path,
            f->host, (unsigned long long)f->taken, t->host);
    return WEFT_OK;
}

enum weft_status wf_tier_cxl_fence(struct wf_tier *tier, uint8_t host, uint32_t timeout_ms)
{
    struct wf_cxl *t = (struct wf_cxl *)(uintptr_t)tier;
    struct fencing f = {.t = t, .host = host};
    if (!t->shared || host == 0 || host == t->host)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: host %u cannot be fenced from host %u; name another", t->path,
                       host, t->host);
    f.is_taken = wf_calloc(t->extents, 1, "extents taken over");
    if (!f.is_taken)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = fence_host(&f, timeout_ms);
    free(f.is_taken);
    return status;
}
