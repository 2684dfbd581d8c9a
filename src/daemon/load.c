/* SPDX-License-Identifier: Apache-2.0
 *
 * Up: blocks are read from below straight into the pool.
 *
 * A load is a slot reserved by the node (WF_STORE_NODE) and the reads that fill it.  A block is
 * read in ranges of parts, whose checksums the tier verifies; what has arrived from the start
 * without a gap is published (wf_store_progress), so that a reader may use the first layers while
 * the others are on their way.  Ranges go to the tier with deadlines in the order in which they are
 * wanted: for WEFT_LAYER_ORDER the first range of every block, then the second of every block.
 *
 * One block has one load: who asks for it meanwhile joins.  A load that fails on one tier goes on
 * to the next that has the block, from the range that is missing.  One whose parent fails fails
 * too, for it could not be matched.
 *
 * Nothing is cancelled when nobody waits any more: what was asked for is likely to be asked again.
 * But a tier that stalls keeps nobody waiting for longer than its timeout: the load is a miss then,
 * and its slot is kept until the device has let go of the memory.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "daemon/described.h"
#include "daemon/fabric.h"
#include "daemon/load.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define RANGE_PARTS 4u /* parts in a range, for layer order */
#define RANGE_BYTES_MAX (4u << 20)
#define RANGES_MAX 256u
#define BUCKETS (2 * WF_LOADS_MAX)
#define PREFETCH_READS 32u                    /* with the movers at a time */
#define PREFETCHES_MAX (WF_LOADS_MAX / 4 * 3) /* the rest is for those that someone waits for */
#define MIXED UINT64_MAX                      /* of several profiles: it goes by none again */
#define DOMAIN_MAX (WF_LOADS_MAX / 4 * 3)     /* one domain's, when there are others */

struct read;

struct load {
    struct load *next;  /* in its hash bucket, or free */
    struct load *queue; /* of those whose ranges are not all submitted */
    struct wf_below *below;
    struct wf_domain *domain;
    struct load *parent; /* on its way as well */
    struct load *children, *sibling;
    uint8_t key[32];
    uint8_t *data;
    uint64_t bytes;
    uint32_t slot;
    uint32_t reader; /* for whose request; WF_STORE_NODE: nobody's yet */
    unsigned tier;
    unsigned tried;   /* tiers that failed */
    uint64_t profile; /* by which what came was stored with loss; 0: none */
    enum wf_tier_class class;
    uint64_t deadline_us, step_us; /* of range 0, and from one range to the next */
    uint32_t part_bytes, lead_parts, range_parts, ranges; /* lead: the first range */
    bool whole;
    uint32_t next_range, in_flight, arrived;
    uint64_t there[RANGES_MAX / 64];
    bool queued, failed, complete;
    bool orphan; /* no other tier is to be tried */
    bool late;   /* nobody waits any more: it was too slow, or its block was removed */
    bool slow;   /* and which of these */
    const char *why;
    enum weft_status failure;      /* of the last read that failed */
    uint64_t started_ns, first_ns; /* asked for; the first range of it was readable */
};

struct read {
    struct wf_mover_job job; /* first member */
    struct load *load;
    uint32_t range;
    bool prefetch; /* it counts as such */
    struct read *next;
};

/* Loads whose reads are not all submitted, first come first. */
struct queue {
    struct load *first, **end;
};

struct wf_loads {
    struct load *all, *free, *buckets[BUCKETS];
    struct read *reads, *free_reads;
    struct queue waited, prefetch;
    uint32_t prefetching; /* reads of prefetches with the movers */
    uint32_t busy;
};

enum weft_status wf_loads_create(struct wf_below *below)
{
    struct wf_loads *loads = wf_calloc(1, sizeof *loads, "the table of loads");
    if (!loads)
        return WEFT_E_NO_MEMORY;
    below->loads = loads;
    loads->waited.end = &loads->waited.first;
    loads->prefetch.end = &loads->prefetch.first;
    loads->all = wf_calloc(WF_LOADS_MAX, sizeof *loads->all, "the table of loads");
    loads->reads = wf_calloc(WF_READS_MAX, sizeof *loads->reads, "the table of reads");
    if (!loads->all || !loads->reads)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_LOADS_MAX; i++) {
        loads->all[i].next = loads->free;
        loads->free = &loads->all[i];
    }
    for (uint32_t i = 0; i < WF_READS_MAX; i++) {
        loads->reads[i].next = loads->free_reads;
        loads->free_reads = &loads->reads[i];
    }
    return WEFT_OK;
}

void wf_loads_destroy(struct wf_below *below)
{
    if (below->loads) {
        free(below->loads->all);
        free(below->loads->reads);
    }
    free(below->loads);
    below->loads = NULL;
}

uint32_t wf_loads_busy(const struct wf_below *below)
{
    return below->loads->busy;
}

/* Keys are SHA-256 output: their own bits are the hash. */
static struct load **bucket_of(struct wf_loads *loads, const uint8_t key[32])
{
    uint32_t bits;
    memcpy(&bits, key + 8, sizeof bits);
    return &loads->buckets[bits % BUCKETS];
}

static struct load *load_find(const struct wf_below *below, const struct wf_domain *domain,
                              const uint8_t key[32])
{
    struct load *load = *bucket_of(below->loads, key);
    while (load && (load->domain != domain || memcmp(load->key, key, 32) != 0))
        load = load->next;
    return load;
}

uint32_t wf_load_slot(const struct wf_below *below, const struct wf_domain *domain,
                      const uint8_t key[32])
{
    const struct load *load = load_find(below, domain, key);
    return load && !load->failed ? load->slot : WF_SLOT_NONE;
}

/* ------------------------------------------------------------------------------------- its end */

static void finish(struct load *load);
/* What waited for this one, as its parent, goes on or is lost with it. */
static void children_tell(struct load *load, bool lost)
{
    struct load *child = load->children;
    load->children = NULL;
    while (child) {
        struct load *sibling = child->sibling;
        child->parent = NULL;
        child->orphan = lost;
        child->failed |= lost;
        if (child->in_flight == 0 && (child->complete || lost))
            finish(child);
        child = sibling;
    }
}

static struct queue *queue_of(struct load *load)
{
    struct wf_loads *loads = load->below->loads;
    return load->class == WF_TIER_WAITED ? &loads->waited : &loads->prefetch;
}

static void enqueue(struct load *load)
{
    struct queue *queue = queue_of(load);
    if (load->queued)
        return;
    load->queued = true;
    load->queue = NULL;
    *queue->end = load;
    queue->end = &load->queue;
}

static void dequeue(struct load *load)
{
    struct queue *queue = queue_of(load);
    struct load **at = &queue->first;
    if (!load->queued)
        return;
    load->queued = false;
    while (*at != load)
        at = &(*at)->queue;
    *at = load->queue;
    if (!*at)
        queue->end = at;
}

static void load_free(struct load *load)
{
    struct wf_loads *loads = load->below->loads;
    struct load **link = bucket_of(loads, load->key);
    while (*link != load)
        link = &(*link)->next;
    *link = load->next;
    dequeue(load);
    load->next = loads->free;
    loads->free = load;
    loads->busy--;
}

/* Out of its parent's list, when the parent is still on its way. */
static void leave_parent(struct load *load)
{
    if (!load->parent)
        return;
    struct load **link = &load->parent->children;
    while (*link != load)
        link = &(*link)->sibling;
    *link = load->sibling;
    load->parent = NULL;
}

static const char *failure_name(const struct load *load)
{
    if (load->late) /* given up: its block was removed, or it was too slow */
        return load->slow ? "timeout" : "removed";
    if (load->orphan)
        return "parent";
    switch (load->failure) {
    case WEFT_E_CORRUPT: return "corrupt";
    case WEFT_MISS: return "missing";
    case WEFT_E_TIMEOUT: return "timeout";
    case WEFT_E_NODE: return "node";         /* that had it went meanwhile */
    case WEFT_E_BUSY: return "busy";         /* the node that has it has no turn for this one */
    case WEFT_E_LIMIT: return "limit";       /* or not before anybody waits, by a bound on it */
    case WEFT_E_NOT_FOUND: return "profile"; /* that it was stored by */
    default: return "device";
    }
}

/* No read is in flight, and either everything has arrived, and so has the parent, or it failed. */
static void finish(struct load *load)
{
    struct wf_below *below = load->below;
    struct wf_domain *domain = load->domain;
    struct wf_lower *lower = &below->tiers[load->tier];
    enum weft_status status = WEFT_MISS;
    leave_parent(load);
    if (load->failed) {
        wf_store_lost(&domain->store, &domain->arriving, load->slot);
        domain->loads_lost++;
        struct wf_block_move move = {.what = "load_failed",
                                     .reason = failure_name(load),
                                     .tier = lower->config->name,
                                     .bytes = load->bytes};
        wf_telemetry_moved(domain, load->key, &move);
        if (load->failure == WEFT_E_NOT_FOUND)
            wf_below_unread(domain, load->key);
    } else {
        WF_CRASH("load.before_arrival");
        domain->profile_of[load->slot] = load->profile;
        status = wf_store_arrived(&domain->store, &domain->arriving, load->slot, load->reader);
        WF_CRASH("load.arrived");
    }
    if (status == WEFT_OK) {
        lower->promoted++;
        wf_lower_passed(lower, false, wf_store_quality(&domain->store, load->slot), load->bytes);
        domain->promoted++;
        domain->promoted_bytes += load->bytes;
        uint64_t now_ns = wf_now_ns();
        domain->load_us += (now_ns - load->started_ns) / 1000;
        wf_telemetry_load(lower,
                          load->class == WF_TIER_PREFETCH ? WF_LOAD_PREFETCHED : WF_LOAD_WAITED,
                          load->first_ns - load->started_ns, now_ns - load->started_ns);
        struct wf_block_move move = {.what = "promote",
                                     .reason = load->why,
                                     .tier = lower->config->name,
                                     .bytes = load->bytes,
                                     .took_us = (now_ns - load->started_ns) / 1000,
                                     .quality = wf_store_quality(&domain->store, load->slot)};
        wf_telemetry_moved(domain, load->key, &move);
        wf_below_entered(domain, load->key, true);
        wf_described_changed(domain, load->key);
        wf_node_fabric_here(domain, load->slot);
    }
    children_tell(load, status != WEFT_OK && status != WEFT_EXISTS);
    load_free(load);
}

/* A tier that has the block and was not tried. */
static bool choose(struct load *load)
{
    struct wf_below *below = load->below;
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(load->domain, load->key);
    if (load->orphan || entry == WF_DIRECTORY_NONE)
        return false;
    wf_directory_read(below->directory, entry, &block);
    for (uint32_t i = 0; i < below->count; i++) {
        unsigned tier = below->order[i];
        if ((block.fit & ~load->tried) >> tier & 1 && wf_lower_usable(&below->tiers[tier])) {
            load->tier = tier;
            return true;
        }
    }
    return false;
}

/* ---------------------------------------------------------------------------------- its ranges */

static uint32_t first_part(const struct load *load, uint32_t range)
{
    return range ? load->lead_parts + (range - 1) * load->range_parts : 0;
}

static void progress(struct load *load)
{
    uint32_t from = load->arrived;
    while (load->arrived < load->ranges &&
           load->there[load->arrived / 64] >> (load->arrived % 64) & 1)
        load->arrived++;
    if (load->arrived > 0 && load->first_ns == 0)
        load->first_ns = wf_now_ns();
    if (load->arrived == from || load->arrived == load->ranges)
        return; /* all of it is said by finish() */
    uint64_t bytes = (uint64_t)first_part(load, load->arrived) * load->part_bytes;
    wf_store_progress(&load->domain->store, load->slot, (uint32_t)(bytes / WF_GRANULE));
    WF_CRASH("load.progress");
}

/* All that was begun has ended. */
static void settle(struct load *load)
{
    struct wf_below *below = load->below;
    load->tried |= (unsigned)load->failed << load->tier;
    if (load->failed && choose(load)) {
        load->failed = false;
        load->next_range = 0;
        enqueue(load);
        return;
    }
    load->complete = load->arrived == load->ranges;
    if (load->failed || (load->complete && !load->parent))
        finish(load);
    wf_clients_unpark(below->node);
}

/* How exact what came is, its tier says: the directory may not have been told yet that another copy
 * is there.  False: the domain asks for better. */
static bool is_good(struct load *load, const struct wf_tier_request *request)
{
    enum weft_quality quality = wf_quality_told(request->lost);
    if (quality > wf_domain_quality(load->domain->config))
        return false;
    wf_store_worsen(&load->domain->store, load->slot, quality);
    if (quality > WEFT_LOSSLESS)
        load->profile = !load->profile || load->profile == request->profile ? request->profile
                                                                            : MIXED;
    return true;
}

static void read_done(struct wf_mover_job *job)
{
    struct read *read = (struct read *)job;
    struct load *load = read->load;
    struct wf_below *below = load->below;
    enum weft_status status = job->job.request.status;
    read->load = NULL;
    if (status == WEFT_OK && !load->late && !is_good(load, &job->job.request))
        status = WEFT_MISS;
    if (load->late) {
        /* What came is of no use to anyone. */
    } else if (status == WEFT_OK) {
        load->there[read->range / 64] |= 1ull << (read->range % 64);
        progress(load);
    } else {
        load->failed = true;
        load->failure = status;
        if (status == WEFT_E_CORRUPT || status == WEFT_MISS)
            wf_lower_lost(&below->tiers[load->tier], load->domain, load->key, status);
    }
    load->in_flight--;
    below->loads->prefetching -= read->prefetch;
    read->next = below->loads->free_reads;
    below->loads->free_reads = read;
    bool all = load->failed || (load->next_range == load->ranges && !load->queued);
    if (load->in_flight == 0 && all)
        settle(load);
    wf_loads_pump(below);
}

/* Submit one range.  False: not now. */
static bool submit(struct load *load)
{
    struct wf_below *below = load->below;
    struct read *read = below->loads->free_reads;
    bool prefetch = load->class == WF_TIER_PREFETCH;
    if (!read || (prefetch && below->loads->prefetching == PREFETCH_READS))
        return false;
    uint32_t range = load->next_range;
    uint32_t parts = (uint32_t)((load->bytes + load->part_bytes - 1) / load->part_bytes);
    uint32_t first = first_part(load, range), end = first_part(load, range + 1);
    struct wf_tier_request *request = &read->job.job.request;
    struct read *rest = read->next;
    memset(read, 0, sizeof *read);
    read->load = load;
    read->range = range;
    read->job.kind = WF_MOVE_READ;
    read->job.done = read_done;
    read->job.job.class = load->class;
    read->job.job.deadline_us = load->deadline_us + range * load->step_us;
    request->op = WF_TIER_READ;
    memcpy(request->block.key, load->key, 32);
    memcpy(request->block.format, load->domain->tag, 32);
    request->block.bytes = load->bytes;
    request->block.part_bytes = load->part_bytes;
    request->data = load->data + (uint64_t)first * load->part_bytes;
    request->first_part = first;
    request->part_count = (end < parts ? end : parts) - first;
    if (load->ranges == 1)
        request->first_part = request->part_count = 0;
    if (wf_mover_submit(below->tiers[load->tier].mover, &read->job) != WEFT_OK) {
        read->next = rest;
        return false;
    }
    below->loads->free_reads = rest;
    below->loads->prefetching += prefetch;
    read->prefetch = prefetch;
    load->in_flight++;
    load->next_range++;
    return true;
}

/* Submit what waits in one queue, as far as there is room for it. */
static void pump_queue(struct queue *queue)
{
    while (queue->first && !queue->first->below->stopping) {
        struct load *load = queue->first;
        while (load->next_range < load->ranges &&
               load->there[load->next_range / 64] >> (load->next_range % 64) & 1)
            load->next_range++; /* from a tier before this one */
        bool more = !load->failed && load->next_range < load->ranges;
        if (more && !submit(load))
            return;
        if (more && load->whole)
            continue;
        /* In layer order the first range of every block goes before the second of any: a device
         * begins with what it is given first. */
        dequeue(load);
        if (!load->failed && load->next_range < load->ranges)
            enqueue(load);
        else if (load->in_flight == 0)
            settle(load);
    }
}

/* For who waits it is a miss from now on. */
static void give_up(struct load *load)
{
    load->failed = load->late = load->orphan = true;
    wf_store_give_up(&load->domain->store, load->slot);
}

void wf_load_forget(struct wf_below *below, const struct wf_domain *domain, const uint8_t key[32])
{
    struct load *load = load_find(below, domain, key);
    if (load && !load->failed)
        give_up(load);
}

/* Those of a tier that stalls which took longer than it may. */
static void look_for_late(struct wf_lower *lower)
{
    struct wf_loads *loads = lower->below->loads;
    uint64_t now_ns = wf_now_ns(), patience_ns = lower->config->timeout_ms * 1000000ull;
    uint32_t late = 0;
    for (uint32_t b = 0; b < BUCKETS; b++)
        for (struct load *load = loads->buckets[b]; load; load = load->next)
            if (load->tier == lower->number && !load->failed &&
                now_ns - load->started_ns > patience_ns) {
                load->slow = true;
                give_up(load);
                late++;
            }
    for (uint32_t i = 0; i < WF_READS_MAX; i++) {
        struct read *read = &loads->reads[i];
        if (read->load && read->load->late && read->load->tier == lower->number)
            wf_mover_cancel(lower->mover, &read->job);
    }
    if (late)
        wf_telemetry_event(lower->below->node, NULL, "late",
                           "%u blocks did not come from tier %s within its timeout of %u ms; they "
                           "count as misses",
                           late, lower->config->name, lower->config->timeout_ms);
}

void wf_loads_run(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count && below->loads->busy; i++)
        if (below->tiers[i].stats.state == WF_MOVER_STALLED)
            look_for_late(&below->tiers[i]);
    wf_loads_pump(below);
    wf_rests_run(below);
}

/* Prefetches are handed to the movers a few at a time, so that one that someone comes to wait for
 * meanwhile has most of its reads still here, where they can be made urgent. */
void wf_loads_pump(struct wf_below *below)
{
    pump_queue(&below->loads->waited);
    pump_queue(&below->loads->prefetch);
}

/* Those of its reads that the mover has already. */
static void hurry_reads(struct load *load)
{
    struct wf_loads *loads = load->below->loads;
    uint32_t left = load->in_flight;
    for (uint32_t i = 0; left && i < WF_READS_MAX; i++) {
        struct read *read = &loads->reads[i];
        if (read->load != load)
            continue;
        left--;
        loads->prefetching -= read->prefetch;
        read->prefetch = false;
        wf_mover_hurry(load->below->tiers[load->tier].mover, &read->job,
                       load->deadline_us + read->range * load->step_us);
    }
}

/* Someone waits now for what was a prefetch. */
static void hurry(struct load *load, const struct wf_wanted *wanted)
{
    for (; load && load->class == WF_TIER_PREFETCH && wanted->class == WF_TIER_WAITED;
         load = load->parent) { /* without its parent it is of no use */
        bool queued = load->queued;
        dequeue(load);
        load->class = WF_TIER_WAITED;
        load->reader = wanted->reader;
        load->deadline_us = wanted->deadline_us;
        hurry_reads(load);
        if (queued)
            enqueue(load);
    }
}

/* ----------------------------------------------------------------------------------- its begin */

/* How a block is cut into ranges.  For layer order the first is short, so that the first layers of
 * many blocks are there soon. */
static void cut(struct load *load, bool whole)
{
    uint32_t parts = (uint32_t)((load->bytes + load->part_bytes - 1) / load->part_bytes);
    uint32_t range = whole ? RANGE_BYTES_MAX / load->part_bytes : RANGE_PARTS;
    uint32_t least = (parts + RANGES_MAX - 2) / (RANGES_MAX - 1);
    load->whole = whole;
    load->range_parts = range > least ? range : least;
    load->lead_parts = whole ? load->range_parts : 1;
    uint32_t rest = parts > load->lead_parts ? parts - load->lead_parts : 0;
    load->ranges = 1 + (rest + load->range_parts - 1) / load->range_parts;
}

/* Where the parent of an entry is in DRAM, or arriving.  False: neither. */
static bool parent_of(struct wf_domain *domain, const struct wf_directory_block *block,
                      struct wf_parent *out, struct load **out_load)
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block parent;
    *out = (struct wf_parent){.slot = WF_SLOT_NONE};
    *out_load = NULL;
    if (block->parent == WF_DIRECTORY_NONE)
        return true;
    wf_directory_read(below->directory, block->parent, &parent);
    out->depth = parent.depth;
    out->slot = wf_store_find(&domain->store, parent.key);
    if (out->slot != WF_SLOT_NONE)
        return true;
    *out_load = load_find(below, domain, parent.key);
    if (!*out_load || (*out_load)->failed)
        return false;
    out->slot = (*out_load)->slot;
    return true;
}

/* WEFT_OK: a load was begun.  WEFT_MISS: it cannot be; WEFT_FULL: there is no room for it now. */
static enum weft_status begin(struct wf_domain *domain, uint32_t entry,
                              const struct wf_wanted *wanted)
{
    struct wf_below *below = domain->node->below;
    struct wf_loads *loads = below->loads;
    struct wf_directory_block block;
    struct wf_parent parent;
    struct load *load = loads->free, *above;
    uint32_t slot;
    bool crowded = domain->node->domain_count > 1 && domain->arriving.count >= DOMAIN_MAX;
    bool prefetch = wanted->class == WF_TIER_PREFETCH && loads->busy >= PREFETCHES_MAX;
    if (!load || crowded || prefetch)
        return WEFT_FULL;
    wf_directory_read(below->directory, entry, &block);
    if (!parent_of(domain, &block, &parent, &above))
        return WEFT_MISS;
    struct load *rest = load->next;
    memset(load, 0, sizeof *load);
    load->below = below;
    load->domain = domain;
    memcpy(load->key, block.key, 32);
    load->next = rest;
    if (!choose(load))
        return WEFT_MISS;
    /* Making room may let go of what is cold below. */
    wf_directory_hold(below->directory, entry);
    enum weft_status status = wf_store_reserve(&domain->store, WF_STORE_NODE, &domain->arriving,
                                               block.key, block.bytes, &parent, WF_POLICY_ANY,
                                               &slot);
    wf_directory_unhold(below->directory, entry);
    if (status != WEFT_OK)
        return status == WEFT_FULL ? WEFT_FULL : WEFT_MISS;
    loads->free = rest;
    loads->busy++;
    domain->key_taken[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
    domain->format_of[slot] = wanted->format;
    load->slot = slot;
    load->bytes = block.bytes;
    load->data = (uint8_t *)domain->pool.memory +
                 atomic_load_explicit(&domain->store.index.desc[slot].offset, memory_order_relaxed);
    load->part_bytes = wf_below_part_bytes(block.bytes);
    load->class = wanted->class;
    load->why = wanted->why;
    load->reader = wanted->reader;
    load->started_ns = wf_now_ns();
    cut(load, wanted->whole);
    /* In microseconds that are places in a queue: layer order puts a block's next range behind the
     * same range of all others. */
    load->deadline_us = wanted->deadline_us +
                        (wanted->whole ? wanted->place * RANGES_MAX : wanted->place);
    load->step_us = wanted->whole ? 1 : wanted->of;
    load->parent = above;
    if (above) {
        load->sibling = above->children;
        above->children = load;
    }
    struct load **bucket = bucket_of(loads, load->key);
    load->next = *bucket;
    *bucket = load;
    wf_directory_touch(below->directory, entry);
    enqueue(load);
    return WEFT_OK;
}

enum weft_status wf_load_one(struct wf_domain *domain, const uint8_t key[32],
                             const struct wf_wanted *wanted, uint32_t *out_slot)
{
    struct wf_below *below = domain->node->below;
    *out_slot = wf_store_find(&domain->store, key);
    if (*out_slot != WF_SLOT_NONE) {
        wf_store_used(&domain->store, *out_slot, wanted->reader);
        return WEFT_OK;
    }
    struct load *load = load_find(below, domain, key);
    if (load && !load->failed) {
        hurry(load, wanted);
        *out_slot = load->slot;
        return WEFT_PENDING;
    }
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return WEFT_MISS;
    enum weft_status status = begin(domain, entry, wanted);
    if (status != WEFT_OK)
        return status;
    *out_slot = wf_load_slot(below, domain, key);
    return WEFT_PENDING;
}
