/* SPDX-License-Identifier: Apache-2.0
 *
 * Down: blocks are written below before they leave DRAM, and from one tier to the next.
 *
 * Eviction asks wf_demote_leave() about every victim.  A clean one may go; one that is not admitted
 * may go too, and is lost; any other is held, written, and goes the next time round.  So that
 * nobody has to wait for that, what is coldest is written ahead of need (pool.ahead).
 *
 * The mover takes the block's checksum from the bytes that it writes, or compares it with the one
 * that is known: what is below has the checksum that DRAM's copy has from then on.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/log.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/coding.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define FULL_NS \
    500000000u /* a tier that is full with nothing to let go is left alone for so long */
#define TRIES 3u
#define SWEEP_SLOTS 65536u /* looked at in one step of a sweep */
#define SWEEP_ROUNDS 4u
#define REFUSED_NS                                                                          \
    1000000000u           /* what was refused ahead of need is asked about again after that \
                           */
#define AHEAD_NS 1000000u /* between two looks at what is coldest */
#define MOVES_MAX 16u     /* between tiers at a time; each has a buffer of a block's size */

struct write {
    struct wf_mover_job job; /* first member */
    struct wf_below *below;
    struct wf_domain *domain;
    struct wf_lower *to, *from; /* from: a move between tiers */
    uint32_t slot;              /* in DRAM, held; WF_SLOT_NONE for a move */
    uint32_t generation;
    uint32_t entry; /* of a move, held */
    uint32_t tries;
    const char *why;           /* a literal, for the event */
    bool asked;                /* somebody asked for it */
    struct wf_reuse reuse;     /* as expected when the write began; zeros: not known */
    void *buffer;              /* of a move */
    struct wf_coded_plan plan; /* of what is to be encoded */
    enum weft_quality quality; /* that it has there */
    bool keep;                 /* a move that leaves the block where it was */
    struct wf_ended ended;
    struct write *next;
};

struct wf_demotes {
    struct write *all, *free;
    uint32_t busy, moves;
    uint64_t ahead_ns;
    uint32_t sweep_domain, sweep_slot; /* how far wf_demote_sweep() is */
    bool sweep_begun;                  /* in this round it began to write something */
    uint32_t sweep_rounds;
};

enum weft_status wf_demotes_create(struct wf_below *below)
{
    struct wf_demotes *writes = wf_calloc(1, sizeof *writes, "the table of writes");
    if (!writes)
        return WEFT_E_NO_MEMORY;
    below->demotes = writes;
    writes->all = wf_calloc(WF_WRITES_MAX, sizeof *writes->all, "the table of writes");
    if (!writes->all)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_WRITES_MAX; i++) {
        writes->all[i].next = writes->free;
        writes->free = &writes->all[i];
    }
    return WEFT_OK;
}

void wf_demotes_destroy(struct wf_below *below)
{
    if (below->demotes)
        free(below->demotes->all);
    free(below->demotes);
    below->demotes = NULL;
}

uint32_t wf_demotes_busy(const struct wf_below *below)
{
    return below->demotes->busy;
}

bool wf_demote_writes(const struct wf_lower *to, const uint8_t key[32])
{
    const struct wf_demotes *writes = to->below->demotes;
    for (uint32_t i = 0; writes->busy && i < WF_WRITES_MAX; i++)
        if (writes->all[i].to == to &&
            memcmp(writes->all[i].job.job.request.block.key, key, 32) == 0)
            return true;
    return false;
}

static struct write *write_get(struct wf_below *below)
{
    struct wf_demotes *writes = below->demotes;
    struct write *write = writes->free;
    if (!write)
        return NULL;
    writes->free = write->next;
    writes->busy++;
    memset(write, 0, sizeof *write);
    write->below = below;
    write->slot = WF_SLOT_NONE;
    return write;
}

static void write_put(struct write *write)
{
    struct wf_demotes *writes = write->below->demotes;
    free(write->buffer);
    write->to = NULL;
    write->next = writes->free;
    writes->free = write;
    writes->busy--;
}

/* ------------------------------------------------------------------------------- what and where */

/* So much more, or, modulo 2^64, less is on its way. */
static void writing(struct wf_lower *to, const struct wf_domain *domain, uint64_t bytes)
{
    to->writing_bytes += bytes;
    to->writing_of[domain->id] += bytes;
}

/* The block as a tier wants it described. */
static void describe(struct wf_domain *domain, uint32_t slot, struct wf_tier_block *out)
{
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    uint32_t parent = atomic_load_explicit(&desc->parent, memory_order_relaxed);
    memset(out, 0, sizeof *out);
    wf_desc_key_read(desc, out->key);
    if (parent != WF_SLOT_NONE)
        wf_desc_key_read(&domain->store.index.desc[parent], out->parent);
    memcpy(out->format, domain->tag, sizeof out->format);
    out->depth = wf_word_depth(atomic_load_explicit(&desc->word, memory_order_relaxed));
    out->bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    out->part_bytes = wf_below_part_bytes(out->bytes);
}

/* The block as the directory wants it told; `slot`: where it is in DRAM, if it comes from there. */
static struct wf_directory_add addition(const struct wf_domain *domain, uint32_t slot,
                                        const struct wf_tier_block *block, unsigned tier)
{
    static const uint8_t none[32];
    uint32_t parent = WF_SLOT_NONE;
    if (slot != WF_SLOT_NONE)
        parent = atomic_load_explicit(&domain->store.index.desc[slot].parent, memory_order_relaxed);
    struct wf_directory_add add = {
        .has_parent = memcmp(block->parent, none, 32) != 0,
        .in_dram = wf_store_find(&domain->store, block->key) != WF_SLOT_NONE,
        .parent_in_dram = parent != WF_SLOT_NONE,
        .domain = (uint16_t)domain->id,
        .bytes = (uint32_t)block->bytes,
        .depth = block->depth,
        .tier = tier,
    };
    memcpy(add.key, block->key, 32);
    memcpy(add.parent, block->parent, 32);
    if (parent != WF_SLOT_NONE)
        add.parent_bytes = atomic_load_explicit(&domain->store.index.desc[parent].bytes,
                                                memory_order_relaxed);
    return add;
}

/* Was there a block under that key already that is less exact than is asked, unknown to all? */
static bool is_strange(const struct write *write, const uint8_t key[32])
{
    struct wf_directory_block block = {.tiers = 0};
    uint32_t entry = wf_below_find(write->domain, key);
    if (entry != WF_DIRECTORY_NONE)
        wf_directory_read(write->below->directory, entry, &block);
    return !(block.tiers >> write->to->number & 1) &&
           write->quality > wf_domain_quality(write->domain->config);
}

/* It is below now; say so.  What is not to be said is not below, and goes again. */
static enum weft_status enter(struct write *write, enum weft_status written)
{
    const struct wf_tier_block *block = &write->job.job.request.block;
    write->quality = wf_quality_told(write->job.job.request.lost); /* whatever was meant to be */
    if (written == WEFT_EXISTS && is_strange(write, block->key)) {
        wf_lower_remove(write->to, block->key);
        return WEFT_PENDING; /* the next time there is none */
    }
    struct wf_directory_add add = addition(write->domain, write->slot, block, write->to->number);
    uint32_t entry;
    add.chance = (float)write->reuse.chance;
    add.rate = (float)write->reuse.rate;
    add.weight = (float)write->reuse.weight;
    add.quality = write->quality;
    enum weft_status status = wf_directory_add(write->below->directory, &add, &entry);
    if (status == WEFT_E_LIMIT)
        write->to->full_until_ns = wf_now_ns() + FULL_NS;
    if (status != WEFT_OK && written == WEFT_OK)
        wf_lower_remove(write->to, block->key);
    if (status == WEFT_OK && written == WEFT_OK)
        wf_lower_passed(write->to, true, write->quality, block->bytes);
    return status;
}

/* ----------------------------------------------------------------------------------- from DRAM */

/* What makes no room for a block that somebody asked to go down is said by below->asked. */
static void asked_is(struct wf_below *below, const struct wf_domain *domain, uint32_t slot)
{
    below->asked_of = domain;
    below->asked = slot;
}

/* Memory that is lent has the room that was made already.  So first as it is: a block may come to
 * its lender before the word that others are to go.  Then with one less there, as the room is in
 * pieces, or others'. */
static bool resubmit(struct write *write)
{
    struct wf_lower *to = write->to;
    bool remote = to->config->remote;
    uint64_t bytes = write->job.job.request.block.bytes;
    asked_is(write->below, write->asked ? write->domain : NULL, write->slot);
    if (remote && write->tries == 1)
        wf_lower_make_room(to, write->domain, bytes);
    bool again = ++write->tries < TRIES && !write->below->stopping && wf_lower_usable(to) &&
                 (remote || wf_lower_room(to, write->domain, 4 * bytes)) &&
                 wf_mover_submit(to->mover, &write->job) == WEFT_OK;
    asked_is(write->below, NULL, WF_SLOT_NONE);
    return again;
}

/* The block that was written, or not, is let go. */
static void demote_end(struct write *write, enum weft_status status)
{
    struct wf_store *store = &write->domain->store;
    struct wf_node *node = write->below->node;
    struct wf_ended ended = write->ended;
    assert(wf_store_generation(store, write->slot) == write->generation);
    writing(write->to, write->domain, 0 - write->job.job.request.block.bytes);
    wf_store_left(store, write->slot);
    write_put(write);
    wf_clients_unpark(node);
    if (ended.call)
        ended.call(ended.context, status);
}

static void demote_done(struct wf_mover_job *job)
{
    struct write *write = (struct write *)job;
    struct wf_domain *domain = write->domain;
    struct wf_desc *desc = &domain->store.index.desc[write->slot];
    enum weft_status status = job->job.request.status;
    uint64_t word = atomic_load_explicit(&desc->word, memory_order_relaxed);
    bool there = wf_word_state(word) == WF_SLOT_COMMITTED;
    if (status == WEFT_FULL) {
        if (resubmit(write))
            return;
        write->to->full_until_ns = wf_now_ns() + FULL_NS;
    }
    WF_CRASH("demote.written");
    if ((status == WEFT_OK || status == WEFT_EXISTS) && there) {
        enum weft_status entered = enter(write, status);
        if (entered == WEFT_OK) {
            WF_CRASH("demote.entered");
            write->to->demoted++;
            if (status == WEFT_OK && job->job.request.plan && write->plan.quality > WEFT_LOSSLESS &&
                write->quality == WEFT_LOSSLESS)
                wf_coding_declined(domain, write->slot, &write->plan);
            struct wf_block_move move = {.what = "demote",
                                         .reason = write->why,
                                         .tier = write->to->config->name,
                                         .bytes = job->job.request.block.bytes,
                                         .quality = write->quality};
            wf_telemetry_moved(domain, job->job.request.block.key, &move);
            if (status == WEFT_OK &&
                atomic_load_explicit(&desc->checksum, memory_order_relaxed) == 0)
                atomic_store_explicit(&desc->checksum, job->checksum, memory_order_release);
        } else {
            status = entered;
        }
    } else if (status == WEFT_OK) {
        wf_lower_remove(write->to, job->job.request.block.key);   /* it was dropped meanwhile */
    } else if (status == WEFT_MISS || status == WEFT_E_INVALID) { /* and would be each time */
        domain->key_taken[write->slot / 8] |= (uint8_t)(1u << (write->slot % 8));
    } else if (status == WEFT_E_CORRUPT && there) {
        wf_scrub_soon(domain, write->slot, wf_word_generation(word));
    }
    demote_end(write, status);
}

/* Is it on its way from one tier to another? */
static bool is_moving(const struct wf_demotes *writes, const uint8_t key[32])
{
    for (uint32_t i = 0; writes->moves && i < WF_WRITES_MAX; i++)
        if (writes->all[i].to && writes->all[i].from &&
            memcmp(writes->all[i].job.job.request.block.key, key, 32) == 0)
            return true;
    return false;
}

/* What an archive has of the block, and nobody can read, goes in the moment in which the block is
 * written, and no sooner. */
static bool make_way(struct wf_domain *domain, struct wf_lower *to, const uint8_t key[32])
{
    return !is_moving(to->below->demotes, key) && wf_below_make_way(domain, key) &&
           wf_lower_quiet(to);
}

bool wf_demote_to(struct wf_domain *domain, uint32_t slot, struct wf_lower *to,
                  const struct wf_ended *ended)
{
    struct write *write = wf_lower_quiet(to) ? write_get(to->below) : NULL;
    if (!write)
        return false;
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    struct wf_tier_request *request = &write->job.job.request;
    enum wf_coding_how how = wf_coding_plan_slot(to, domain, slot, &write->plan);
    describe(domain, slot, &request->block);
    if (how == WF_CODING_NOT || !make_way(domain, to, request->block.key)) {
        write_put(write);
        return false;
    }
    write->domain = domain;
    write->to = to;
    write->slot = slot;
    write->why = to->below->writing;
    write->asked = to->below->asked_of;
    write->generation = wf_store_generation(&domain->store, slot);
    (void)wf_below_estimate(domain, slot, &write->reuse);
    request->op = WF_TIER_WRITE;
    request->data = (uint8_t *)domain->pool.memory +
                    atomic_load_explicit(&desc->offset, memory_order_relaxed);
    request->plan = how == WF_CODING_ENCODED ? &write->plan : NULL;
    enum weft_quality quality = wf_store_quality(&domain->store, slot);
    if (to->config->remote && quality > WEFT_LOSSLESS) {
        request->lost = (uint32_t)quality;
        request->profile = domain->profile_of[slot];
    }
    write->quality = how == WF_CODING_ENCODED ? wf_quality_told(write->plan.quality)
                                              : wf_quality_told(request->lost);
    write->job.kind = WF_MOVE_WRITE;
    write->job.job.class = WF_TIER_DEMOTE;
    write->job.checksum = atomic_load_explicit(&desc->checksum, memory_order_relaxed);
    write->job.done = demote_done;
    write->ended = *ended;
    if (wf_mover_submit(to->mover, &write->job) != WEFT_OK) {
        write_put(write);
        return false;
    }
    writing(to, domain, request->block.bytes);
    wf_lower_written(to, request->block.bytes);
    wf_store_leaving(&domain->store, slot);
    return true;
}

/* Begin to write a committed block; it is held until that has ended. */
static bool demote(struct wf_domain *domain, uint32_t slot, struct wf_lower *to)
{
    return wf_demote_to(domain, slot, to, &(struct wf_ended){.call = NULL});
}

/* One that the directory would not take, since it contradicts what is below under its key or its
 * parent's, is not written: it would be in vain, each time that it is the next to go.  Only a
 * client that makes up keys has such blocks. */
static bool may_be_below(struct wf_domain *domain, uint32_t slot)
{
    struct wf_tier_block block;
    if (domain->key_taken[slot / 8] >> (slot % 8) & 1)
        return false;
    describe(domain, slot, &block);
    struct wf_directory_add add = addition(domain, slot, &block, 0);
    return wf_directory_would_add(domain->node->below->directory, &add) != WEFT_E_INVALID;
}

/* Why not.  A tier that was asked has refused what could not be written as what it lost. */
static enum wf_not_below why_never(const struct wf_domain *domain, uint32_t slot)
{
    bool asked = domain->key_taken[slot / 8] >> (slot % 8) & 1;
    bool lossy = wf_store_quality(&domain->store, slot) > WEFT_LOSSLESS;
    return asked && lossy ? WF_NOT_EXACT : WF_NOT_KEY;
}

/* Was it refused not long ago, and not used since?  Ahead of need that is answer enough. */
static bool was_refused(struct wf_domain *domain, uint32_t slot)
{
    uint64_t now_ns = wf_now_ns();
    if (now_ns - domain->refused_ns > REFUSED_NS) {
        memset(domain->refused, 0, wf_arena_slots_used(&domain->store.arena) / 8 + 1);
        domain->refused_ns = now_ns;
    }
    return domain->refused[slot / 8] >> (slot % 8) & 1;
}

/* For what a block is to go.  But for room, no other choice is as good as letting it go. */
enum cause {
    FOR_ROOM,
    HINTED,
    HINTED_ON, /* the same, and what extends it is on its way */
    ASKED,
};

static enum wf_leave consider(struct wf_domain *domain, uint32_t slot, enum cause cause)
{
    struct wf_below *below = domain->node->below;
    uint8_t key[32];
    struct wf_directory_block block = {.tiers = 0};
    enum wf_leave otherwise = cause != FOR_ROOM ? WF_LEAVE_NOT : WF_LEAVE_NOW;
    if (!below)
        return otherwise;
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    wf_desc_key_read(desc, key);
    uint32_t entry = wf_below_find(domain, key);
    if (entry != WF_DIRECTORY_NONE)
        wf_directory_read(below->directory, entry, &block);
    /* What other nodes have may go with them, and what this one has below of its chain would go
     * along: it does not count then. */
    uint8_t ours = (uint8_t)~wf_below_peers(below);
    if (block.good & ours || (block.good && !(block.leads & ours)))
        return WF_LEAVE_NOW;
    bool way = block.archives && wf_below_makes_way(&block);
    if (!block.good && block.tiers && !way && !wf_below_replace(domain, key))
        return otherwise;
    if (!may_be_below(domain, slot)) {
        wf_below_refused(below, key, &(struct wf_refusal){.why = why_never(domain, slot)});
        return otherwise;
    }
    struct wf_refusal refusal;
    struct wf_below_ask ask = {
        .slot = slot,
        .depth = wf_word_depth(atomic_load_explicit(&desc->word, memory_order_relaxed)),
        .bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed),
        .must = cause == ASKED || block.archives > 0,
        /* A bridge leads to what is below. */
        .extended = entry != WF_DIRECTORY_NONE || cause == HINTED_ON,
        .leads = block.leads,
        .hinted = cause == HINTED || cause == HINTED_ON,
        .ahead = below->ahead,
    };
    if (ask.ahead && !ask.must && !ask.extended && was_refused(domain, slot))
        return otherwise;
    if (!ask.must)
        ask.way_bytes = wf_below_way_bytes(domain, slot);
    struct wf_lower *to = wf_below_choose(domain, &ask, &refusal);
    domain->refused[slot / 8] &= (uint8_t) ~(1u << (slot % 8)); /* what is answered now counts */
    if (!to && !refusal.by_tier && wf_below_opening(below))
        return WF_LEAVE_NOT;
    struct wf_coded_plan plan;
    if (to && wf_coding_plan_slot(to, domain, slot, &plan) == WF_CODING_NOT) {
        refusal = (struct wf_refusal){.why = WF_NOT_EXACT};
        to = NULL;
    }
    if (to && way && !(wf_archive_tiers(below) >> to->number & 1))
        return otherwise; /* what the archive has stays what it has */
    if (!to) {
        if (refusal.by_worth)
            domain->refused[slot / 8] |= (uint8_t)(1u << (slot % 8));
        wf_below_refused(below, key, &refusal);
        return otherwise;
    }
    if (!demote(domain, slot, to))
        return WF_LEAVE_NOT;
    wf_lower_begun(to, &ask);
    return WF_LEAVE_LATER;
}

enum wf_leave wf_demote_leave(void *context, uint32_t slot)
{
    return consider(context, slot, FOR_ROOM);
}

static enum wf_leave wanted_below(struct wf_domain *domain, uint32_t slot, enum cause cause)
{
    struct wf_below *below = domain->node->below;
    below->writing = "session";
    asked_is(below, cause == ASKED ? domain : NULL, slot);
    enum wf_leave leave = consider(domain, slot, cause);
    asked_is(below, NULL, WF_SLOT_NONE);
    below->writing = "room";
    return leave;
}

enum wf_leave wf_demote_asked(struct wf_domain *domain, uint32_t slot)
{
    return wanted_below(domain, slot, ASKED);
}

enum wf_leave wf_demote_hinted(struct wf_domain *domain, uint32_t slot, bool on)
{
    return wanted_below(domain, slot, on ? HINTED_ON : HINTED);
}

static uint64_t ahead_bytes(const struct wf_domain *domain)
{
    return wf_node_quota(domain) / 100 * domain->node->config.ahead_percent;
}

/* Is less of the domain's pool free than is to be kept ready? */
static bool short_of_room(const struct wf_domain *domain)
{
    uint64_t quota = wf_node_quota(domain);
    uint64_t taken = domain->store.used_bytes + domain->store.other_bytes;
    uint64_t left = quota > taken ? quota - taken : 0;
    uint64_t backed = domain->store.arena.backed.granules * WF_GRANULE + domain->node->budget_free;
    return (left < backed ? left : backed) < ahead_bytes(domain);
}

void wf_demote_ahead(struct wf_below *below)
{
    struct wf_node *node = below->node;
    uint64_t now_ns = wf_now_ns();
    /* A node that stops needs no room: ends of chains that are written for that would push out
     * their beginnings, which the sweep writes, and these those, each time that it goes round. */
    if (node->draining || now_ns - below->demotes->ahead_ns < AHEAD_NS)
        return;
    below->demotes->ahead_ns = now_ns;
    below->writing = "ahead";
    below->ahead = true;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        struct wf_domain *domain = &node->domains[i];
        if (short_of_room(domain))
            wf_store_look_ahead(&domain->store, ahead_bytes(domain));
    }
    below->ahead = false;
    below->writing = "room";
}

/* The next block that is only in DRAM begins to be written.  False: not now. */
static bool sweep_slot(struct wf_domain *domain, uint32_t slot, bool *begun)
{
    uint64_t word = atomic_load_explicit(&domain->store.index.desc[slot].word,
                                         memory_order_relaxed);
    if (wf_word_state(word) != WF_SLOT_COMMITTED)
        return true;
    enum wf_leave leave = wf_demote_leave(domain, slot);
    *begun |= leave == WF_LEAVE_LATER;
    return leave != WF_LEAVE_NOT;
}

bool wf_demote_sweep(struct wf_below *below)
{
    struct wf_demotes *demotes = below->demotes;
    below->writing = "stop"; /* nothing else is written any more */
    for (uint32_t looked = 0; looked < SWEEP_SLOTS; looked++) {
        if (demotes->sweep_domain == below->node->domain_count) {
            /* Room that was made on a tier may have cost a block that was passed; on a full one
             * each costs another, however often it is done. */
            bool again = demotes->sweep_begun && demotes->sweep_rounds + 1 < SWEEP_ROUNDS;
            if (demotes->busy)
                return false;
            demotes->sweep_domain = 0;
            demotes->sweep_begun = false;
            demotes->sweep_rounds++;
            return !again;
        }
        struct wf_domain *domain = &below->node->domains[demotes->sweep_domain];
        if (demotes->sweep_slot >= wf_arena_slots_used(&domain->store.arena)) {
            demotes->sweep_domain++;
            demotes->sweep_slot = 0;
        } else if (sweep_slot(domain, demotes->sweep_slot, &demotes->sweep_begun)) {
            demotes->sweep_slot++;
        } else {
            return false;
        }
    }
    return false;
}

bool wf_demote_swept(const struct wf_below *below)
{
    return below->demotes->sweep_rounds > 0;
}

/* Would a tier take it, were there time, and did the tier work?  The bit is what was answered when
 * it was asked last, by the sweep of the stop or, when that had no time to ask, before it.  Here it
 * may be as old as it likes: no block stays unwritten for it, as the sweep does not look at it, and
 * was_refused(), which does, forgets all of them after REFUSED_NS. */
static bool is_wanted(struct wf_domain *domain, uint32_t slot, uint64_t bytes)
{
    const struct wf_below *below = domain->node->below;
    if (domain->refused[slot / 8] >> (slot % 8) & 1)
        return false;
    bool reused = domain->used_again[slot / 8] >> (slot % 8) & 1;
    for (uint32_t i = 0; i < below->count; i++) {
        const struct wf_lower *lower = &below->tiers[i];
        enum wf_tier_admit admit = lower->config->admit;
        if (admit != WF_ADMIT_NEVER && (admit != WF_ADMIT_REUSED || reused) &&
            wf_lower_fits(lower, bytes))
            return may_be_below(domain, slot);
    }
    return false;
}

uint64_t wf_demote_unwritten(const struct wf_below *below, uint64_t *out_bytes)
{
    uint64_t blocks = 0;
    *out_bytes = 0;
    for (uint32_t d = 0; d < below->node->domain_count; d++) {
        struct wf_domain *domain = &below->node->domains[d];
        for (uint32_t slot = 0; slot < wf_arena_slots_used(&domain->store.arena); slot++) {
            const struct wf_desc *desc = &domain->store.index.desc[slot];
            uint64_t word = atomic_load_explicit(&desc->word, memory_order_relaxed);
            uint64_t bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
            struct wf_directory_block block = {.tiers = 0};
            uint8_t key[32];
            if (wf_word_state(word) != WF_SLOT_COMMITTED)
                continue;
            wf_desc_key_read(desc, key);
            uint32_t entry = wf_below_find(domain, key);
            if (entry != WF_DIRECTORY_NONE)
                wf_directory_read(below->directory, entry, &block);
            if (block.good || !is_wanted(domain, slot, bytes))
                continue;
            blocks++;
            *out_bytes += bytes;
        }
    }
    return blocks;
}

/* ---------------------------------------------------------------------------- from tier to tier */

/* The request is about the block again, and not about how it lies somewhere. */
static void block_again(struct write *write)
{
    struct wf_tier_request *request = &write->job.job.request;
    struct wf_tier_block *block = &request->block;
    if (request->as_stored && block->plain_bytes) {
        block->bytes = block->plain_bytes;
        block->part_bytes = block->plain_part_bytes;
    }
    block->plain_bytes = 0;
    block->plain_part_bytes = block->plain_quality = 0;
    request->as_stored = false;
}

static void move_end(struct write *write, enum weft_status status)
{
    struct wf_ended ended = write->ended;
    struct wf_node *node = write->below->node;
    block_again(write);
    wf_directory_unhold(write->below->directory, write->entry);
    writing(write->to, write->domain, 0 - write->job.job.request.block.bytes);
    write->from->leaving_bytes -= write->job.job.request.block.bytes;
    write->below->demotes->moves--;
    write_put(write);
    wf_clients_unpark(node);
    if (ended.call)
        ended.call(ended.context, status);
}

/* May the tier that it comes from let it go?  Not what became part of an archive meanwhile, or is
 * about to: that was flushed there, and where it went it was not. */
static bool may_leave(const struct write *write, uint32_t entry)
{
    struct wf_directory_block block;
    if (wf_archives_waiting(write->below))
        return false;
    wf_directory_read(write->below->directory, entry, &block);
    return block.archives == 0 && block.holds <= (entry == write->entry);
}

/* Both tiers have it: the nearer one may let it go. */
static void move_written(struct wf_mover_job *job)
{
    struct write *write = (struct write *)job;
    struct wf_directory *directory = write->below->directory;
    const uint8_t *key = job->job.request.block.key;
    enum weft_status status = job->job.request.status;
    uint32_t entry = wf_below_find(write->domain, key);
    block_again(write);
    if ((status == WEFT_OK || status == WEFT_EXISTS) && entry != WF_DIRECTORY_NONE) {
        enum weft_status entered = enter(write, status);
        if (entered != WEFT_OK) {
            status = entered;
        } else if (!write->keep && may_leave(write, entry)) {
            write->to->moved++;
            struct wf_block_move move = {.what = "move",
                                         .reason = "cold",
                                         .tier = write->to->config->name,
                                         .from = write->from->config->name,
                                         .bytes = job->job.request.block.bytes,
                                         .quality = write->quality};
            wf_telemetry_moved(write->domain, key, &move);
            wf_directory_lose(directory, entry, write->from->number);
            wf_lower_remove(write->from, key);
        }
    } else if (status == WEFT_OK) {
        wf_lower_remove(write->to, key);
    } else if (status == WEFT_MISS && entry != WF_DIRECTORY_NONE && !write->keep &&
               may_leave(write, entry)) {
        /* Another domain's block is there under its key: the way down ends here. */
        wf_lower_remove(write->from, key);
        wf_directory_lose(directory, entry, write->from->number);
    } else if (status == WEFT_FULL) {
        write->to->full_until_ns = wf_now_ns() + FULL_NS;
    }
    move_end(write, status);
}

/* What was read goes on as it is, if it is a frame; else it is encoded as the other tier has it. */
static void plan_move(struct write *write)
{
    struct wf_tier_request *request = &write->job.job.request;
    if (request->as_stored && request->block.plain_bytes) {
        write->quality = wf_quality_told(request->block.plain_quality);
        return;
    }
    const struct wf_coding_ask ask = {.bytes = request->block.bytes,
                                      .depth = request->block.depth,
                                      .quality = WEFT_LOSSLESS};
    bool encoded = wf_coding_plan(write->to, write->domain, &ask, &write->plan) ==
                   WF_CODING_ENCODED;
    request->as_stored = false;
    request->block.part_bytes = wf_below_part_bytes(request->block.bytes);
    request->plan = encoded ? &write->plan : NULL;
    write->quality = wf_quality_told(request->lost);
}

/* It lost something, and was decoded: whoever shares the tier replaced it a moment ago, unknown to
 * the directory.  Only the frame says so further down, but for memory that others lend. */
static bool is_decoded(const struct write *write)
{
    const struct wf_tier_request *request = &write->job.job.request;
    return !request->as_stored && !write->to->config->remote &&
           wf_quality_told(request->lost) > WEFT_LOSSLESS;
}

static void move_read(struct wf_mover_job *job)
{
    struct write *write = (struct write *)job;
    enum weft_status status = job->job.request.status;
    struct wf_tier_request *request = &job->job.request;
    if (status == WEFT_OK && is_decoded(write)) {
        request->as_stored = true;
        if (!write->below->stopping && wf_mover_submit(write->from->mover, job) == WEFT_OK)
            return;
        status = WEFT_PENDING;
    } else if (status == WEFT_OK) {
        request->op = WF_TIER_WRITE;
        plan_move(write);
        job->kind = WF_MOVE_WRITE;
        job->checksum = 0;
        job->done = move_written;
        if (!write->below->stopping && wf_mover_submit(write->to->mover, job) == WEFT_OK)
            return;
        status = WEFT_PENDING;
    } else if (status == WEFT_E_CORRUPT || status == WEFT_MISS) {
        wf_lower_lost(write->from, write->domain, request->block.key, status);
    } else if (status == WEFT_E_NOT_FOUND) { /* its profile is not here: it does not go there */
        wf_below_unread(write->domain, request->block.key);
    }
    move_end(write, status);
}

static bool move(struct wf_lower *from, struct wf_lower *to, uint32_t entry, bool keep,
                 const struct wf_ended *ended)
{
    struct wf_below *below = from->below;
    struct wf_directory_block block, parent = {.tiers = 0};
    if (below->demotes->moves == MOVES_MAX || !wf_lower_quiet(to))
        return false;
    wf_directory_read(below->directory, entry, &block);
    struct write *write = write_get(below);
    if (!write)
        return false;
    struct wf_tier_request *request = &write->job.job.request;
    write->domain = &below->node->domains[block.domain];
    write->from = from;
    write->to = to;
    write->entry = entry;
    write->keep = keep;
    write->quality = wf_directory_quality(&block, from->number);
    write->ended = *ended;
    write->buffer = aligned_alloc(WF_TIER_ALIGN, (block.bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN *
                                                     WF_TIER_ALIGN);
    if (block.parent != WF_DIRECTORY_NONE)
        wf_directory_read(below->directory, block.parent, &parent);
    request->op = WF_TIER_READ;
    memcpy(request->block.key, block.key, 32);
    memcpy(request->block.parent, parent.key, 32); /* zeros: none */
    memcpy(request->block.format, write->domain->tag, 32);
    request->block.depth = block.depth;
    request->block.bytes = block.bytes;
    request->block.part_bytes = wf_below_part_bytes(block.bytes);
    request->data = write->buffer;
    /* A frame need not be decoded where the other tier has frames; and one of what was lost says so
     * only as it is, but for memory that others lend, which has blocks decoded and what they are.
     */
    bool unaware = WF_FAILS("move.unaware"); /* of what another host has just replaced */
    request->as_stored = !to->config->remote &&
                         (to->coding.on || (write->quality > WEFT_LOSSLESS && !unaware));
    write->job.kind = WF_MOVE_READ;
    write->job.job.class = WF_TIER_DEMOTE;
    write->job.done = move_read;
    if (!write->buffer || wf_mover_submit(from->mover, &write->job) != WEFT_OK) {
        write_put(write);
        return false;
    }
    below->demotes->moves++;
    writing(to, write->domain, block.bytes);
    wf_lower_written(to, block.bytes);
    from->leaving_bytes += block.bytes;
    wf_directory_hold(below->directory, entry);
    return true;
}

bool wf_move_down(struct wf_lower *from, struct wf_lower *to, uint32_t entry)
{
    return move(from, to, entry, false, &(struct wf_ended){.call = NULL});
}

bool wf_copy_down(struct wf_lower *from, struct wf_lower *to, uint32_t entry,
                  const struct wf_ended *ended)
{
    return move(from, to, entry, true, ended);
}
