/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier of memory that does by seed what media do by accident.
 *
 * A medium has a name (the path) and outlives the tier that opened it, as a disk outlives a
 * process; the registry of media is the only state shared between threads, and behind a mutex.
 * What is written, flushed or removed takes effect when its request is reaped, the last moment that
 * the interface allows, and a flush makes durable only what was found when it was submitted, the
 * least that it must: whoever relies on more is found out here.
 *
 * A crash goes through every change that is not durable.  A block may have arrived, in part or
 * whole, even when its write was never reaped; a removal may be undone.  Opening verifies the
 * blocks that no flush covered and drops the torn ones.
 */
#include "tier/sim.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "tier/check.h"

#define BUCKETS 4096u
#define CAPACITY_DEFAULT (1ULL << 30)
#define SECTOR 512u
#define PATH_BYTES_MAX 255
#define NEVER UINT64_MAX

struct stored {
    struct wf_tier_block block;
    struct stored *next;
    uint64_t id;         /* of the change that wrote it; grows */
    uint64_t removed_id; /* 0: it is found; otherwise kept only for a crash to undo the removal */
    bool durable;
    bool seen; /* by each() */
    uint64_t sums[WF_TIER_PARTS_MAX];
    uint8_t data[];
};

struct medium {
    char path[PATH_BYTES_MAX + 1];
    struct medium *next;
    struct wf_tier_sim_faults faults;
    bool open, unplugged;
    uint64_t last_id;
    struct stored *buckets[BUCKETS];
};

struct wf_tier {
    struct medium *medium;
    struct wf_tier_stats stats;
    uint64_t random;
    uint64_t now_us, busy_us; /* virtual time; when the medium's bandwidth is free again */
    struct wf_tier_request *flying[WF_TIER_QUEUE_MAX];
};

/* request->private */
enum { DUE_US, ID, CANCELLED, SLOW };

static pthread_mutex_t media_lock = PTHREAD_MUTEX_INITIALIZER;
static struct medium *media;

/* splitmix64 (G. Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014). */
static uint64_t next_random(struct wf_tier *t)
{
    uint64_t z = t->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 … below - 1; below ≥ 1 */
static uint64_t random_below(struct wf_tier *t, uint64_t below)
{
    return next_random(t) % below;
}

static bool chance(struct wf_tier *t, double probability)
{
    return probability > 0 && (double)(next_random(t) >> 11) * 0x1p-53 < probability;
}

/* ------------------------------------------------------------------------------------ medium */

static struct stored **bucket_of(struct medium *m, const uint8_t key[32])
{
    uint64_t hash;
    memcpy(&hash, key, sizeof hash);
    return &m->buckets[(hash ^ hash >> 32) % BUCKETS];
}

static struct stored *lookup(const struct medium *m, const uint8_t key[32])
{
    struct stored *s = *bucket_of((struct medium *)m, key);
    while (s && (s->removed_id || memcmp(s->block.key, key, 32) != 0))
        s = s->next;
    return s;
}

/* With its header, which takes a sector of its own so that data lies aligned. */
static uint64_t footprint(const struct wf_tier_block *block)
{
    uint64_t data = (block->bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    return WF_TIER_ALIGN + data;
}

static uint64_t sum_of(const struct stored *s, uint32_t part)
{
    return wf_sum64(s->data + (uint64_t)part * s->block.part_bytes,
                    wf_tier_part_bytes(&s->block, part));
}

static bool sums_right(const struct stored *s, uint32_t first, uint32_t count)
{
    for (uint32_t part = first; part < first + count; part++) {
        if (sum_of(s, part) != s->sums[part])
            return false;
    }
    return true;
}

/* Put a block on the medium; the caller has looked for room. */
static enum weft_status store(struct medium *m, const struct wf_tier_request *r,
                              struct stored **out)
{
    struct stored *s = malloc(sizeof *s + r->block.bytes);
    if (!s)
        return wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory for a block of %llu bytes", m->path,
                       (unsigned long long)r->block.bytes);
    s->block = r->block;
    s->id = ++m->last_id;
    s->removed_id = 0;
    s->durable = s->seen = false;
    memcpy(s->data, r->data, r->block.bytes);
    for (uint32_t part = 0; part < wf_tier_parts(&s->block); part++)
        s->sums[part] = sum_of(s, part);
    struct stored **bucket = bucket_of(m, s->block.key);
    s->next = *bucket;
    *bucket = s;
    *out = s;
    return WEFT_OK;
}

static void drop(struct medium *m, struct stored *s)
{
    struct stored **at = bucket_of(m, s->block.key);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    free(s);
}

/* Not found any more; gone for good with the next flush. */
static void forget(struct wf_tier *t, struct stored *s)
{
    t->stats.blocks--;
    t->stats.used_bytes -= footprint(&s->block);
    if (s->durable)
        s->removed_id = ++t->medium->last_id;
    else
        drop(t->medium, s);
}

static void make_durable(struct medium *m, uint64_t up_to_id)
{
    for (uint32_t i = 0; i < BUCKETS; i++) {
        struct stored *next;
        for (struct stored *s = m->buckets[i]; s; s = next) {
            next = s->next;
            if (s->removed_id && s->removed_id <= up_to_id)
                drop(m, s);
            else if (s->id <= up_to_id)
                s->durable = true;
        }
    }
}

/* Some sectors of it hold what was there before: zeros. */
static void tear(struct wf_tier *t, struct stored *s)
{
    uint64_t sectors = (s->block.bytes + SECTOR - 1) / SECTOR;
    uint64_t first = random_below(t, sectors), count = 1 + random_below(t, sectors - first);
    uint64_t end = (first + count) * SECTOR;
    if (end > s->block.bytes)
        end = s->block.bytes;
    memset(s->data + first * SECTOR, 0, end - first * SECTOR);
}

/* What the medium has after the power failed.  Where an undone removal meets a later write of the
 * same key, the later one is dropped: two of one key are never found. */
static void lose_power(struct wf_tier *t)
{
    struct medium *m = t->medium;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        struct stored *next;
        for (struct stored *s = m->buckets[i]; s; s = next) {
            next = s->next;
            if (s->removed_id) {
                if (chance(t, m->faults.lost) && !lookup(m, s->block.key))
                    s->removed_id = 0;
                else
                    drop(m, s);
            } else if (!s->durable) {
                if (chance(t, m->faults.lost))
                    drop(m, s);
                else if (chance(t, m->faults.torn))
                    tear(t, s);
            }
        }
    }
}

static void destroy_medium(struct medium *m)
{
    for (uint32_t i = 0; i < BUCKETS; i++) {
        while (m->buckets[i]) {
            struct stored *s = m->buckets[i];
            m->buckets[i] = s->next;
            free(s);
        }
    }
    free(m);
}

/* With media_lock held. */
static struct medium *medium_of(const char *path)
{
    struct medium *m = media;
    while (m && strcmp(m->path, path) != 0)
        m = m->next;
    return m;
}

static enum weft_status medium_take(const char *path, struct medium **out)
{
    enum weft_status status = WEFT_OK;
    pthread_mutex_lock(&media_lock);
    struct medium *m = medium_of(path);
    if (!m) {
        m = calloc(1, sizeof *m);
        if (!m) {
            status = wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory for its medium", path);
            goto unlock;
        }
        memcpy(m->path, path, strlen(path) + 1);
        m->faults = (struct wf_tier_sim_faults){.latency_us_max = 50, .lost = 0.3, .torn = 0.3};
        m->next = media;
        media = m;
    }
    if (m->open)
        status = wf_fail(WEFT_E_BUSY, "tier %s: it is open already; close it first", path);
    else if (m->unplugged)
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: the medium is not there; plug it in", path);
    else
        m->open = true;
unlock:
    pthread_mutex_unlock(&media_lock);
    *out = m;
    return status;
}

static void medium_give(struct medium *m)
{
    pthread_mutex_lock(&media_lock);
    m->open = false;
    pthread_mutex_unlock(&media_lock);
}

static bool plugged(const struct medium *m)
{
    pthread_mutex_lock(&media_lock);
    bool is = !m->unplugged;
    pthread_mutex_unlock(&media_lock);
    return is;
}

/* ------------------------------------------------------------------------------ open and close */

/* Take up what the medium has: torn blocks go, as no flush vouched for them. */
static void recover(struct wf_tier *t)
{
    struct medium *m = t->medium;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        struct stored *next;
        for (struct stored *s = m->buckets[i]; s; s = next) {
            next = s->next;
            if (!s->durable && !sums_right(s, 0, wf_tier_parts(&s->block))) {
                drop(m, s);
                continue;
            }
            s->durable = true;
            t->stats.blocks++;
            t->stats.used_bytes += footprint(&s->block);
        }
    }
}

static enum weft_status sim_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_tier_check_options(options);
    if (status != WEFT_OK)
        return status;
    if (strlen(options->path) > PATH_BYTES_MAX)
        return wf_fail(WEFT_E_INVALID, "a simulated tier's path has %zu bytes; %d are the most",
                       strlen(options->path), PATH_BYTES_MAX);
    struct wf_tier *t = calloc(1, sizeof *t);
    if (!t)
        return wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory to open it", options->path);
    status = medium_take(options->path, &t->medium);
    if (status != WEFT_OK) {
        free(t);
        return status;
    }
    t->random = options->seed;
    t->stats.capacity_bytes = options->capacity_bytes ? options->capacity_bytes : CAPACITY_DEFAULT;
    t->stats.queue_depth = options->queue_depth;
    recover(t);
    *out = t;
    return WEFT_OK;
}

void wf_tier_sim_crash(struct wf_tier *tier)
{
    struct stored *s;
    for (uint32_t i = 0; i < tier->stats.in_flight; i++) {
        const struct wf_tier_request *r = tier->flying[i];
        /* No room is asked for: the device had taken the bytes before anyone counted them. */
        if (r->op == WF_TIER_WRITE && !lookup(tier->medium, r->block.key))
            (void)!store(tier->medium, r, &s);
    }
    lose_power(tier);
    medium_give(tier->medium);
    free(tier);
}

/* A close flushes nothing, so it is a crash with nothing in flight. */
static void sim_close(struct wf_tier *t)
{
    t->stats.in_flight = 0;
    wf_tier_sim_crash(t);
}

/* ---------------------------------------------------------------------------------- requests */

/* See footprint(). */
static uint64_t block_bytes_max(const struct wf_tier *t)
{
    uint64_t pages = t->stats.capacity_bytes / WF_TIER_ALIGN;
    return pages > 1 ? (pages - 1) * WF_TIER_ALIGN : 1;
}

static enum weft_status sim_submit(struct wf_tier *t, struct wf_tier_request *r)
{
    const struct wf_tier_sim_faults *faults = &t->medium->faults;
    const struct stored *there = r->op == WF_TIER_READ ? lookup(t->medium, r->block.key) : NULL;
    enum weft_status status = wf_tier_check_request(r, there ? &there->block : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_WRITE && r->block.bytes > block_bytes_max(t))
        return wf_fail(WEFT_E_INVALID, "tier %s: a block of %llu bytes is larger than all of it",
                       t->medium->path, (unsigned long long)r->block.bytes);
    if (t->stats.in_flight == t->stats.queue_depth)
        return WEFT_PENDING;

    uint64_t bytes = r->op == WF_TIER_WRITE ? r->block.bytes : 0;
    if (there)
        bytes = r->part_count ? (uint64_t)r->part_count * there->block.part_bytes
                              : there->block.bytes;
    if (t->busy_us < t->now_us)
        t->busy_us = t->now_us;
    if (faults->bytes_per_us)
        t->busy_us += bytes / faults->bytes_per_us;
    r->private[DUE_US] = t->busy_us + random_below(t, (uint64_t)faults->latency_us_max + 1);
    r->private[SLOW] = chance(t, faults->slow);
    if (r->private[SLOW])
        r->private[DUE_US] += faults->slow_us;
    r->private[CANCELLED] = false;
    r->private[ID] = r->op == WF_TIER_FLUSH ? t->medium->last_id : there ? there->id : 0;
    if (chance(t, faults->gone))
        wf_tier_sim_plug(t->medium->path, false);
    t->flying[t->stats.in_flight++] = r;
    return WEFT_OK;
}

static enum weft_status io_error(struct wf_tier *t, const char *what)
{
    t->stats.errors++;
    return wf_fail(WEFT_E_SYSTEM, "tier %s: %s failed on the medium; try again, or replace it",
                   t->medium->path, what);
}

static enum weft_status finish_write(struct wf_tier *t, struct wf_tier_request *r)
{
    const struct wf_tier_sim_faults *faults = &t->medium->faults;
    uint64_t bytes = footprint(&r->block);
    struct stored *s;
    if (lookup(t->medium, r->block.key))
        return WEFT_EXISTS;
    if (t->stats.used_bytes + bytes > t->stats.capacity_bytes || chance(t, faults->full))
        return wf_fail(WEFT_FULL, "tier %s: %llu of %llu bytes are used; remove blocks",
                       t->medium->path, (unsigned long long)t->stats.used_bytes,
                       (unsigned long long)t->stats.capacity_bytes);
    if (chance(t, faults->write_error))
        return io_error(t, "a write");
    enum weft_status status = store(t->medium, r, &s);
    if (status != WEFT_OK)
        return status;
    t->stats.blocks++;
    t->stats.used_bytes += bytes;
    t->stats.writes++;
    t->stats.write_bytes += r->bytes = r->block.bytes;
    t->stats.device_write_bytes += bytes;
    return WEFT_OK;
}

static enum weft_status finish_read(struct wf_tier *t, struct wf_tier_request *r)
{
    const struct wf_tier_sim_faults *faults = &t->medium->faults;
    struct stored *s = lookup(t->medium, r->block.key);
    /* Another block under this key may be larger than the room that was made for the first. */
    if (!s || s->id != r->private[ID])
        return WEFT_MISS;
    uint32_t first = r->first_part, count = r->part_count;
    if (count == 0)
        count = wf_tier_parts(&s->block);
    uint64_t from = (uint64_t)first * s->block.part_bytes;
    uint64_t bytes = (uint64_t)(count - 1) * s->block.part_bytes +
                     wf_tier_part_bytes(&s->block, first + count - 1);
    if (chance(t, faults->rot))
        s->data[from + random_below(t, bytes)] ^= (uint8_t)(1u << random_below(t, 8));
    memcpy(r->data, s->data + from, bytes);
    if (chance(t, faults->read_error)) {
        memset(r->data, 0xa5, bytes); /* what a failed read leaves is nobody's block */
        return io_error(t, "a read");
    }
    if (!sums_right(s, first, count)) {
        forget(t, s);
        t->stats.corrupt++;
        return wf_fail(WEFT_E_CORRUPT,
                       "tier %s: a block of %llu bytes is not what its checksum "
                       "says; it was dropped",
                       t->medium->path, (unsigned long long)bytes);
    }
    t->stats.reads++;
    t->stats.read_bytes += r->bytes = bytes;
    return WEFT_OK;
}

static enum weft_status finish(struct wf_tier *t, struct wf_tier_request *r)
{
    if (r->private[CANCELLED])
        return WEFT_E_TIMEOUT;
    if (t->stats.failed || !plugged(t->medium)) {
        t->stats.failed = true;
        return io_error(t, "all");
    }
    switch (r->op) {
    case WF_TIER_WRITE: return finish_write(t, r);
    case WF_TIER_READ: return finish_read(t, r);
    case WF_TIER_FLUSH: break;
    }
    if (chance(t, t->medium->faults.flush_error))
        return io_error(t, "a flush");
    make_durable(t->medium, r->private[ID]);
    return WEFT_OK;
}

/* One of those that are due, any; NULL: none is.  *next_us: when the first will be. */
static struct wf_tier_request *take_due(struct wf_tier *t, uint64_t *next_us)
{
    uint32_t due = 0, chosen = 0;
    *next_us = NEVER;
    for (uint32_t i = 0; i < t->stats.in_flight; i++) {
        uint64_t at = t->flying[i]->private[DUE_US];
        if (at < *next_us)
            *next_us = at;
        if (at <= t->now_us && random_below(t, ++due) == 0)
            chosen = i;
    }
    if (!due)
        return NULL;
    struct wf_tier_request *r = t->flying[chosen];
    t->flying[chosen] = t->flying[--t->stats.in_flight];
    return r;
}

static uint32_t sim_reap(struct wf_tier *t, struct wf_tier_request **out, uint32_t max,
                         uint32_t timeout_ms)
{
    uint64_t until = t->now_us + 1000u * (uint64_t)timeout_ms, next_us;
    uint32_t count = 0;
    t->now_us++; /* looking takes time too, so that polling alone gets to the end */
    while (count < max) {
        struct wf_tier_request *r = take_due(t, &next_us);
        if (r) {
            r->bytes = 0;
            r->status = finish(t, r);
            out[count++] = r;
        } else if (count == 0 && next_us <= until) {
            t->now_us = next_us;
        } else {
            break;
        }
    }
    if (count == 0 && t->now_us < until)
        t->now_us = until;
    return count;
}

/* One in four is too late, except for those that hang: giving up on them is what it is for. */
static void sim_cancel(struct wf_tier *t, struct wf_tier_request *r)
{
    for (uint32_t i = 0; i < t->stats.in_flight; i++) {
        if (t->flying[i] == r && (r->private[SLOW] || random_below(t, 4) != 0)) {
            r->private[CANCELLED] = true;
            r->private[DUE_US] = t->now_us;
        }
    }
}

static int sim_event(const struct wf_tier *t)
{
    (void)t;
    return -1;
}

/* ------------------------------------------------------------------------------------- blocks */

static bool sim_find(const struct wf_tier *t, const uint8_t key[32], struct wf_tier_block *out)
{
    const struct stored *s = lookup(t->medium, key);
    if (s)
        *out = s->block;
    return s;
}

static enum weft_status sim_remove(struct wf_tier *t, const uint8_t key[32])
{
    struct stored *s = lookup(t->medium, key);
    if (!s)
        return WEFT_MISS;
    forget(t, s);
    return WEFT_OK;
}

/* Up from each block to the first ancestor that was told already, then down again.  The marks make
 * it linear, and end it even if someone wrote blocks whose parents go round in a circle. */
static void sim_each(const struct wf_tier *t,
                     void (*found)(void *context, const struct wf_tier_block *block), void *context)
{
    struct stored **path = calloc(t->stats.blocks + 1, sizeof(struct stored *));
    if (!path)
        return;
    for (uint32_t i = 0; i < BUCKETS; i++) {
        for (struct stored *s = t->medium->buckets[i]; s; s = s->next)
            s->seen = s->removed_id != 0;
    }
    for (uint32_t i = 0; i < BUCKETS; i++) {
        for (struct stored *s = t->medium->buckets[i]; s; s = s->next) {
            size_t depth = 0;
            for (struct stored *up = s; up && !up->seen; up = lookup(t->medium, up->block.parent)) {
                up->seen = true;
                path[depth++] = up;
            }
            while (depth)
                found(context, &path[--depth]->block);
        }
    }
    free(path);
}

static void sim_stats(const struct wf_tier *t, struct wf_tier_stats *out)
{
    *out = t->stats;
    out->block_bytes_max = block_bytes_max(t);
}

/* -------------------------------------------------------------------------------- for tests */

void wf_tier_sim_faults(struct wf_tier *tier, const struct wf_tier_sim_faults *faults)
{
    tier->medium->faults = *faults;
}

bool wf_tier_sim_plug(const char *path, bool is_plugged)
{
    pthread_mutex_lock(&media_lock);
    struct medium *m = medium_of(path);
    if (m)
        m->unplugged = !is_plugged;
    pthread_mutex_unlock(&media_lock);
    return m;
}

bool wf_tier_sim_flip(struct wf_tier *tier, const uint8_t key[32], uint64_t at)
{
    struct stored *s = lookup(tier->medium, key);
    if (!s || at >= s->block.bytes)
        return false;
    s->data[at] ^= (uint8_t)(1u << random_below(tier, 8));
    return true;
}

uint64_t wf_tier_sim_now_us(const struct wf_tier *tier)
{
    return tier->now_us;
}

void wf_tier_sim_advance(struct wf_tier *tier, uint64_t us)
{
    tier->now_us += us;
}

bool wf_tier_sim_forget(const char *path)
{
    pthread_mutex_lock(&media_lock);
    struct medium **at = &media;
    while (*at && strcmp((*at)->path, path) != 0)
        at = &(*at)->next;
    struct medium *m = *at;
    bool idle = m && !m->open;
    if (idle) {
        *at = m->next;
        destroy_medium(m);
    }
    pthread_mutex_unlock(&media_lock);
    return idle;
}

const struct wf_tier_ops wf_tier_sim = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .submit = sim_submit,
    .reap = sim_reap,
    .cancel = sim_cancel,
    .event = sim_event,
    .find = sim_find,
    .remove = sim_remove,
    .each = sim_each,
    .stats = sim_stats,
};
