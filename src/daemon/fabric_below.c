/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies on this node's tiers, for other nodes.
 *
 * The directory of what is below is the owner thread's, and so are the movers; the fabric's thread
 * asks, and goes on meanwhile.  Both meet in `lock`, which is held for list operations.
 *
 *   fabric's thread                              owner thread
 *   read():  a buffer, and into the line   ───►  the nearest tier that has it, exact enough: a read
 *                                                by its mover, behind what anybody here waits for
 *   sends it, read_free()                  ◄───  done: its bytes, or why not
 *   each():  a step of a walk is wanted    ───►  up to STEP blocks of the directory
 *   tells those that are there still       ◄───  and where the next step begins
 *
 * Nothing comes up into DRAM for others: what they want they have in their own then, and DRAM here
 * is for who works here.  The bytes are read into BUFFER_BYTES of memory that is touched as it is
 * used; who finds no room in it, or none of READS_MAX places, waits in the fabric's line.
 *
 * A walk's step is as old as the way from one thread to the other.  What went meanwhile was told as
 * gone before it, so each block is looked for again, in what clients see, before it is told; and no
 * step is used by another walk than the one that it was made for.
 *
 * What lies there encoded is read as it lies, where whoever asked decodes such.
 *
 * A tier verifies what it reads.  What is damaged or missing there is dropped as if a client had
 * asked, and the next tier is tried; a device that hangs keeps the buffer that it may yet write to.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/reserve.h"
#include "daemon/below.h"
#include "daemon/fabric.h"
#include "fabric/fabric.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define BUFFER_BYTES (64u << 20)
#define PIECE 65536u
#define PIECES (BUFFER_BYTES / PIECE)
#define READS_MAX 256u
#define DUE_US 1000000u    /* among what is prefetched here */
#define EXPIRES_US 3000000 /* nobody waits for it any more */

#define WALKS 8u    /* steps at a time */
#define STEP 256u   /* blocks */
#define LOOKS 4096u /* entries looked at for them */
#define STALE_NS 1000000000u
#define BELOW_BIT (1ull << 63) /* of a cursor: the rest is the walk's number and an entry */

struct read {
    struct wf_mover_job job; /* first */
    struct read *next;
    struct wf_served *served;
    struct wf_fabric_read *of; /* the fabric's, as long as there is one */
    struct wf_domain *domain;
    uint32_t entry; /* in the directory, held while a mover has the job */
    unsigned tier, tried;
    uint32_t piece, pieces; /* of the buffer */
};

enum walk_state { FREE, WANTED, MAKING, READY, TAKEN };

struct walk {
    enum walk_state state;
    uint32_t domain;
    uint64_t cursor, next; /* next 0: that was the end */
    uint64_t asked_ns;
    uint32_t count;
    struct wf_fabric_event events[STEP];
};

struct wf_served {
    struct wf_node *node;
    struct wf_fabric *fabric; /* the owner's; NULL: nobody is told any more */
    uint8_t own;              /* tiers of the node's own, a bit each */
    uint32_t own_count;
    uint32_t walks_begun; /* the fabric's thread's */
    int ring;             /* for the owner */
    uint8_t *buffer;
    pthread_mutex_t lock; /* of all that follows */
    struct read *all, *free;
    struct read *asked, **asked_end; /* that the owner has not begun */
    uint8_t taken[PIECES];
    struct walk walks[WALKS];
};

enum weft_status wf_served_create(struct wf_node *node, struct wf_served **out)
{
    struct wf_served *s = wf_calloc(1, sizeof *s, "blocks below, for other nodes");
    if (!s)
        return WEFT_E_NO_MEMORY;
    *out = s;
    s->node = node;
    s->own_count = node->config.tier_count;
    s->own = (uint8_t)((1u << s->own_count) - 1);
    s->asked_end = &s->asked;
    pthread_mutex_init(&s->lock, NULL);
    s->ring = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->ring < 0)
        return wf_fail(WEFT_E_SYSTEM, "no descriptor is left for the fabric; raise the open-file "
                                      "limit");
    s->all = wf_calloc(READS_MAX, sizeof *s->all, "blocks below, for other nodes");
    s->buffer = wf_reserve(BUFFER_BYTES, "blocks below, for other nodes", "free some memory");
    if (!s->all || !s->buffer)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < READS_MAX; i++) {
        s->all[i].next = s->free;
        s->free = &s->all[i];
    }
    return WEFT_OK;
}

void wf_served_destroy(struct wf_served *s)
{
    if (!s)
        return;
    if (s->ring >= 0)
        close(s->ring);
    if (s->node->device_lives_on)
        return; /* it may write to the buffer yet */
    pthread_mutex_destroy(&s->lock);
    wf_unreserve(s->buffer, BUFFER_BYTES);
    free(s->all);
    free(s);
}

int wf_served_fd(const struct wf_served *s)
{
    return s->ring;
}

/* ------------------------------------------------------------------------------- what is there */

#define NO_COPY (WEFT_ECONOMY + 1u) /* worse than any */

/* As in struct wf_fabric_event; NO_COPY: it is not there. */
static unsigned quality_on(const struct wf_directory_block *block, unsigned tier)
{
    if (!(block->tiers >> tier & 1))
        return NO_COPY;
    enum weft_quality quality = wf_directory_quality(block, tier);
    return quality > WEFT_LOSSLESS ? quality : 0;
}

/* Of its copies on tiers of the node's own the most exact, if its domain takes that. */
static unsigned best_below(const struct wf_served *s, const struct wf_domain *domain,
                           const struct wf_directory_block *block)
{
    unsigned best = NO_COPY;
    for (unsigned tier = 0; tier < s->own_count; tier++)
        best = quality_on(block, tier) < best ? quality_on(block, tier) : best;
    return best <= (unsigned)wf_domain_quality(domain->config) ? best : NO_COPY;
}

/* Likewise, as others are told of it. */
static unsigned in_dram(const struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_fabric_event event;
    uint32_t slot = wf_store_find(&domain->store, key);
    bool there = slot != WF_SLOT_NONE && wf_node_fabric_event(domain, slot, &event);
    return there ? event.quality : NO_COPY;
}

/* What clients see, on any thread. */
bool wf_served_below(const struct wf_served *s, uint32_t domain, const uint8_t key[32],
                     uint8_t *out_quality)
{
    enum weft_quality quality = WEFT_LOSSLESS;
    int tier = wf_far_look(&s->node->domains[domain].store.index.far, key, &quality);
    if (out_quality)
        *out_quality = (uint8_t)quality;
    return tier >= 0 && (unsigned)tier < s->own_count;
}

static void describe(const struct wf_served *s, const struct wf_directory_block *block,
                     unsigned quality, struct wf_fabric_event *out)
{
    *out = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                    .quality = (uint8_t)quality,
                                    .where = WF_FABRIC_BELOW,
                                    .domain = (uint8_t)block->domain,
                                    .depth = block->depth,
                                    .bytes = block->bytes};
    memcpy(out->key, block->key, 32);
    if (block->parent != WF_DIRECTORY_NONE) {
        struct wf_directory_block parent;
        wf_directory_read(s->node->below->directory, block->parent, &parent);
        memcpy(out->parent, parent.key, 32);
    }
}

static unsigned below_of(const struct wf_served *s, const struct wf_domain *domain,
                         const uint8_t key[32], struct wf_directory_block *out)
{
    uint32_t entry = s->node->below ? wf_below_find(domain, key) : WF_DIRECTORY_NONE;
    if (entry == WF_DIRECTORY_NONE)
        return NO_COPY;
    wf_directory_read(s->node->below->directory, entry, out);
    return best_below(s, domain, out);
}

bool wf_served_better(const struct wf_served *s, const struct wf_domain *domain,
                      const uint8_t key[32], uint8_t quality)
{
    struct wf_directory_block block;
    return quality > 0 && below_of(s, domain, key, &block) < quality;
}

bool wf_served_event(const struct wf_served *s, const struct wf_domain *domain,
                     const uint8_t key[32], struct wf_fabric_event *out)
{
    struct wf_directory_block block;
    unsigned quality = below_of(s, domain, key, &block);
    if (quality == NO_COPY)
        return false;
    describe(s, &block, quality, out);
    return true;
}

void wf_served_moved(const struct wf_served *s, const struct wf_directory_moved *moved)
{
    const struct wf_domain *domain = &s->node->domains[moved->domain];
    struct wf_directory_block was = {.tiers = moved->tiers_were,
                                     .qualities = moved->qualities_were},
                              is = {.tiers = moved->tiers, .qualities = moved->qualities};
    unsigned before = best_below(s, domain, &was), now = best_below(s, domain, &is);
    if (now == before || !s->node->fabric)
        return;
    unsigned dram = in_dram(domain, moved->key);
    if (dram <= before && dram <= now && dram != NO_COPY)
        return; /* that is told of; what leaves DRAM is when it does */
    bool near = dram <= now && dram != NO_COPY;
    struct wf_fabric_event event = {.kind = near || now != NO_COPY ? WF_FABRIC_HERE
                                                                   : WF_FABRIC_GONE,
                                    .quality = (uint8_t)(near             ? dram
                                                         : now != NO_COPY ? now
                                                                          : 0),
                                    .where = near ? WF_FABRIC_IN_POOL : WF_FABRIC_BELOW,
                                    .domain = (uint8_t)moved->domain,
                                    .depth = moved->depth,
                                    .bytes = moved->bytes};
    memcpy(event.key, moved->key, 32);
    if (moved->parent)
        memcpy(event.parent, moved->parent, 32);
    wf_fabric_tell(s->node->fabric, &event);
}

void wf_served_speed(const struct wf_served *s, uint32_t *out_latency_us, uint32_t *out_mbps)
{
    const struct wf_below *below = s->node->below;
    double blocks = 0, bytes = 0, latency = 0, us = 0;
    for (uint32_t i = 0; below && i < s->own_count; i++) {
        struct wf_directory_sum sum;
        const struct wf_mover_stats *stats = &below->tiers[i].stats;
        wf_directory_sum(below->directory, i, WF_DIRECTORY_DOMAINS_ALL, &sum);
        if (stats->read_mbps <= 0)
            continue;
        blocks += (double)sum.blocks;
        bytes += (double)sum.bytes;
        latency += (double)sum.blocks * stats->read_latency_us;
        us += (double)sum.bytes / stats->read_mbps;
    }
    *out_latency_us = blocks > 0 ? (uint32_t)(latency / blocks) : 0;
    *out_mbps = us > 0 ? (uint32_t)(bytes / us) : 0;
}

/* -------------------------------------------------------------------------------- the buffer */

/* Under the lock: so many pieces in a row.  UINT32_MAX: there are none. */
static uint32_t pieces_take(struct wf_served *s, uint32_t count)
{
    uint32_t row = 0;
    for (uint32_t i = 0; i < PIECES; i++) {
        row = s->taken[i] ? 0 : row + 1;
        if (row == count) {
            memset(s->taken + i + 1 - count, 1, count);
            return i + 1 - count;
        }
    }
    return UINT32_MAX;
}

static void read_give(struct read *read)
{
    struct wf_served *s = read->served;
    pthread_mutex_lock(&s->lock);
    memset(s->taken + read->piece, 0, read->pieces);
    read->next = s->free;
    s->free = read;
    pthread_mutex_unlock(&s->lock);
}

/* ----------------------------------------------------------------------- on the fabric's thread */

static void ring(const struct wf_served *s)
{
    (void)!eventfd_write(s->ring, 1);
}

enum weft_status wf_served_read(struct wf_served *s, struct wf_fabric_read *of)
{
    uint64_t from = (uint64_t)of->first_part * of->part_bytes;
    uint64_t bytes = (uint64_t)of->part_count * of->part_bytes;
    bytes = from + bytes < of->bytes ? bytes : of->bytes - from;
    if (bytes > BUFFER_BYTES || of->part_bytes != wf_below_part_bytes(of->bytes))
        return WEFT_MISS;
    uint32_t pieces = (uint32_t)((bytes + PIECE - 1) / PIECE);
    pthread_mutex_lock(&s->lock);
    struct read *read = s->free;
    uint32_t piece = read ? pieces_take(s, pieces) : UINT32_MAX;
    bool first = !s->asked;
    if (piece != UINT32_MAX) {
        s->free = read->next;
        memset(read, 0, sizeof *read);
        read->served = s;
        read->of = of;
        read->piece = piece;
        read->pieces = pieces;
        read->domain = &s->node->domains[of->domain];
        of->data = s->buffer + (uint64_t)piece * PIECE;
        of->user[0] = read;
        *s->asked_end = read;
        s->asked_end = &read->next;
    }
    pthread_mutex_unlock(&s->lock);
    if (piece == UINT32_MAX)
        return WEFT_E_BUSY;
    if (first)
        ring(s);
    return WEFT_PENDING;
}

void wf_served_read_free(struct wf_fabric_read *of)
{
    read_give(of->user[0]);
}

uint64_t wf_served_walk(struct wf_served *s)
{
    return s->own_count ? BELOW_BIT | (uint64_t)(s->walks_begun++ & 0x7fffffffu) << 32 : 0;
}

/* Under the lock: the step that was asked for; else one is asked for, if there is a place. */
static struct walk *walk_find(struct wf_served *s, uint32_t domain, uint64_t cursor)
{
    struct walk *place = NULL;
    uint64_t now_ns = wf_now_ns();
    for (uint32_t i = 0; i < WALKS; i++) {
        struct walk *w = &s->walks[i];
        if (w->state != FREE && w->domain == domain && w->cursor == cursor)
            return w->state == READY ? w : NULL;
        /* Whoever asked for one has gone. */
        bool stale = (w->state == READY || w->state == WANTED) && now_ns - w->asked_ns > STALE_NS;
        place = w->state == FREE || stale ? w : place;
    }
    if (place) {
        place->state = WANTED;
        place->domain = domain;
        place->cursor = cursor;
        place->asked_ns = now_ns;
        ring(s);
    }
    return NULL;
}

bool wf_served_each(struct wf_served *s, uint32_t domain, uint64_t *cursor,
                    void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    pthread_mutex_lock(&s->lock);
    struct walk *walk = walk_find(s, domain, *cursor);
    if (walk)
        walk->state = TAKEN;
    pthread_mutex_unlock(&s->lock);
    if (!walk)
        return true; /* the owner wakes this thread when it is there */
    for (uint32_t i = 0; i < walk->count; i++) {
        const struct wf_fabric_event *event = &walk->events[i];
        if (wf_served_below(s, domain, event->key, NULL) &&
            in_dram(&s->node->domains[domain], event->key) > event->quality)
            found(to, event);
    }
    bool more = walk->next != 0;
    *cursor = walk->next;
    pthread_mutex_lock(&s->lock);
    walk->state = FREE;
    pthread_mutex_unlock(&s->lock);
    return more;
}

/* -------------------------------------------------------------------------- on the owner thread */

static void read_done(struct wf_mover_job *job);

static void end(struct read *read, enum weft_status status)
{
    struct wf_served *s = read->served;
    struct wf_fabric_read *of = read->of;
    if (status != WEFT_OK || !s->fabric)
        read_give(read);
    if (s->fabric)
        wf_fabric_read_done(s->fabric, of, status);
}

static bool choose(struct read *read, const struct wf_directory_block *block, bool *out_later)
{
    const struct wf_below *below = read->served->node->below;
    *out_later = false;
    for (uint32_t i = 0; i < below->count; i++) {
        unsigned tier = below->order[i];
        if (tier >= read->served->own_count || read->tried >> tier & 1 ||
            quality_on(block, tier) > read->of->accept)
            continue;
        if (wf_lower_usable(&below->tiers[tier])) {
            read->tier = tier;
            return true;
        }
        *out_later = true;
    }
    return false;
}

/* From the nearest tier that was not tried. */
static void begin(struct read *read)
{
    struct wf_served *s = read->served;
    struct wf_below *below = s->node->below;
    const struct wf_fabric_read *of = read->of;
    struct wf_directory_block block;
    bool later = false;
    uint32_t entry = s->fabric && below && !below->stopping ? wf_below_find(read->domain, of->key)
                                                            : WF_DIRECTORY_NONE;
    if (s->fabric && in_dram(read->domain, of->key) <= of->accept) {
        end(read, WEFT_EXISTS);
        return;
    }
    if (entry == WF_DIRECTORY_NONE) {
        end(read, WEFT_MISS);
        return;
    }
    wf_directory_read(below->directory, entry, &block);
    if (block.bytes != of->bytes || !choose(read, &block, &later)) {
        unsigned best = best_below(s, read->domain, &block);
        if (block.bytes == of->bytes && best != NO_COPY)
            read->of->quality = (uint8_t)best;
        end(read, block.bytes == of->bytes && later ? WEFT_E_BUSY : WEFT_MISS);
        return;
    }
    memset(&read->job, 0, sizeof read->job);
    struct wf_tier_request *request = &read->job.job.request;
    uint64_t now_us = wf_now_ns() / 1000;
    read->job.kind = WF_MOVE_READ;
    read->job.done = read_done;
    read->job.job.class = WF_TIER_PREFETCH;
    read->job.job.deadline_us = now_us + DUE_US;
    read->job.job.expires_us = now_us + EXPIRES_US;
    request->op = WF_TIER_READ;
    memcpy(request->block.key, of->key, 32);
    memcpy(request->block.format, read->domain->tag, 32);
    request->block.bytes = of->bytes;
    request->block.part_bytes = of->part_bytes;
    request->data = s->buffer + (uint64_t)read->piece * PIECE;
    request->first_part = of->first_part;
    request->part_count = of->part_count;
    request->as_cut = of->cut;
    request->cut_profiles = of->profiles;
    if (wf_mover_submit(below->tiers[read->tier].mover, &read->job) != WEFT_OK) {
        end(read, WEFT_E_BUSY);
        return;
    }
    read->entry = entry;
    wf_directory_hold(below->directory, entry);
    wf_directory_touch(below->directory, entry);
}

static void read_done(struct wf_mover_job *job)
{
    struct read *read = (struct read *)job;
    struct wf_served *s = read->served;
    struct wf_below *below = s->node->below;
    enum weft_status status = job->job.request.status;
    enum weft_quality quality = wf_quality_told(job->job.request.lost);
    bool lossy = quality > WEFT_LOSSLESS;
    wf_directory_unhold(below->directory, read->entry);
    if (below->stopping || !s->fabric) {
        end(read, WEFT_E_BUSY);
        return;
    }
    if (status == WEFT_OK && (!lossy || quality <= (enum weft_quality)read->of->accept)) {
        read->of->quality = lossy ? (uint8_t)quality : 0;
        read->of->profile = lossy ? job->job.request.profile : 0;
        read->of->cut_bytes = job->job.request.cut_bytes;
        end(read, WEFT_OK);
        return;
    }
    if (status == WEFT_E_CORRUPT || status == WEFT_MISS)
        wf_lower_lost(&below->tiers[read->tier], read->domain, read->of->key, status);
    read->tried |= 1u << read->tier;
    if (status == WEFT_E_TIMEOUT)
        end(read, WEFT_E_BUSY);
    else
        begin(read); /* from the next, or it is a miss */
}

/* A step of a walk: its place is nobody else's meanwhile. */
static void walk_make(const struct wf_served *s, struct walk *walk)
{
    const struct wf_below *below = s->node->below;
    const struct wf_domain *domain = &s->node->domains[walk->domain];
    uint32_t at = (uint32_t)walk->cursor, looked = 0;
    walk->count = 0;
    while (below && walk->count < STEP && looked < LOOKS) {
        struct wf_directory_block block;
        uint32_t before = at;
        uint32_t entry = wf_directory_scan(below->directory, s->own, (uint16_t)walk->domain,
                                           LOOKS - looked, &at);
        if (entry == WF_DIRECTORY_NONE)
            break;
        looked += at - before;
        wf_directory_read(below->directory, entry, &block);
        unsigned quality = best_below(s, domain, &block);
        if (quality < in_dram(domain, block.key))
            describe(s, &block, quality, &walk->events[walk->count++]);
    }
    walk->next = at && below ? (walk->cursor & ~(uint64_t)UINT32_MAX) | at : 0;
}

void wf_served_run(struct wf_served *s)
{
    eventfd_t ignored;
    (void)!eventfd_read(s->ring, &ignored);
    pthread_mutex_lock(&s->lock);
    struct read *asked = s->asked;
    s->asked = NULL;
    s->asked_end = &s->asked;
    pthread_mutex_unlock(&s->lock);
    while (asked) {
        struct read *next = asked->next;
        begin(asked);
        asked = next;
    }
    bool made = false;
    for (uint32_t i = 0; i < WALKS; i++) {
        struct walk *walk = &s->walks[i];
        pthread_mutex_lock(&s->lock);
        bool wanted = walk->state == WANTED;
        walk->state = wanted ? MAKING : walk->state;
        pthread_mutex_unlock(&s->lock);
        if (!wanted)
            continue;
        walk_make(s, walk);
        pthread_mutex_lock(&s->lock);
        walk->state = READY;
        pthread_mutex_unlock(&s->lock);
        made = true;
    }
    if (made && s->fabric)
        wf_fabric_wake(s->fabric);
}

void wf_served_attach(struct wf_served *s, struct wf_fabric *fabric)
{
    s->fabric = fabric;
    if (!fabric)
        wf_served_run(s); /* what was asked for ends without a word */
}
