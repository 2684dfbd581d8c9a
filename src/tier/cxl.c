/* SPDX-License-Identifier: Apache-2.0
 *
 * The CXL tier: blocks in memory beyond DRAM.
 *
 * There is no device to do the work, so requests are copies by the thread that drives the tier: in
 * a queue whose head is taken on in slices, at submit when all of it is one slice, else in reap,
 * which does not stay longer than a few of them beyond what it was told.  Checksums are taken from
 * the side in DRAM of each slice just copied, while the processor's caches have it: of what is
 * written before it goes, of what is read after it came.
 *
 * Written blocks are streamed past the cache, fenced, and committed when they are reaped, by one
 * word (cxl_format.h).  So nothing is found that was not reaped, and nothing that is found is torn.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/sum.h"
#include "sys/clock.h"
#include "sys/lines.h"
#include "sys/memory.h"
#include "tier/cxl_volume.h"
#include "tier/queue.h"

#define SLICE_BYTES (256u << 10)
#define SLICES_A_REAP 4u
#define NAP_NS 200000 /* between two looks at a lock that another host has */

/* The request that is being copied.  A READ goes from the block to the request, a WRITE back. */
struct active {
    struct wf_tier_request *request;
    uint64_t granule, granules; /* of the block */
    uint64_t sequence;          /* READ: of the block that was meant */
    uint64_t at, done, bytes;   /* payload from `at`: done of bytes */
    uint32_t part;              /* the one that `done` is in, and how much of it is hashed */
    uint64_t part_done;
    XXH3_state_t *hash;
    struct wf_cxl_header *header; /* READ: the block's; WRITE: what it will be */
    uint64_t slice;               /* how much to copy now */
};

struct tier {
    struct wf_cxl volume; /* first, so that a tier is one too */
    struct wf_tier_stats stats;
    uint32_t queue_depth;
    int event;
    struct wf_tier_queue work, claiming, done;
    struct active active;
    uint64_t header[(WF_CXL_HEADER_MAX + 7) / 8];
};

/* request->private: where a written block lies until it is reaped */
enum { FIRST_GRANULE, GRANULES, COMMIT_WORD, CLAIMED };

static struct tier *of(const struct wf_tier *tier)
{
    return (struct tier *)(uintptr_t)tier;
}

static void finish(struct tier *t, struct wf_tier_request *r, enum weft_status status)
{
    r->status = status;
    if (status != WEFT_OK)
        r->bytes = 0;
    t->stats.errors += status == WEFT_E_SYSTEM;
    wf_tier_queue_add(&t->done, r);
}

static enum weft_status out_of_use(const struct tier *t)
{
    return wf_fail(WEFT_E_SYSTEM, "tier %s: the medium is gone; open it again", t->volume.path);
}

/* ------------------------------------------------------------------------------------ one slice */

/* Hash `bytes` of payload at `memory`; each part that is complete gets its sum, or is compared with
 * it.  False: one is wrong. */
static bool hash_slice(struct active *a, const uint8_t *memory, uint64_t bytes, bool compare)
{
    struct wf_tier_block shape = {.part_bytes = a->header->part_bytes, .bytes = a->header->bytes};
    while (bytes > 0) {
        uint64_t left = wf_tier_part_bytes(&shape, a->part) - a->part_done;
        uint64_t now = bytes < left ? bytes : left;
        if (a->part_done == 0)
            XXH3_64bits_reset(a->hash);
        XXH3_64bits_update(a->hash, memory, now);
        a->part_done += now;
        memory += now;
        bytes -= now;
        if (now < left)
            continue;
        uint64_t sum = XXH3_64bits_digest(a->hash);
        if (compare && sum != a->header->sums[a->part])
            return false;
        a->header->sums[a->part++] = sum;
        a->part_done = 0;
    }
    return true;
}

/* Payload goes to the medium or comes from it.  Touches the medium. */
static void copy_slice(void *context)
{
    struct tier *t = context;
    struct active *a = &t->active;
    uint64_t payload = wf_cxl_header_granules(a->header->parts) * WF_CXL_GRANULE;
    uint8_t *there = wf_cxl_granule(&t->volume, a->granule) + payload + a->at + a->done;
    uint8_t *here = (uint8_t *)a->request->data + a->done;
    if (a->request->op == WF_TIER_WRITE)
        wf_lines_stream(there, here, a->slice);
    else
        memcpy(here, there, a->slice);
}

/* The header, and all that was streamed is in memory before anything after it. */
static void write_header(void *context)
{
    struct tier *t = context;
    const struct active *a = &t->active;
    wf_lines_stream(wf_cxl_granule(&t->volume, a->granule), a->header,
                    wf_cxl_header_bytes(a->header->parts));
    wf_lines_fence();
}

struct reading {
    struct tier *t;
    bool right;
};

static void read_header(void *context)
{
    struct reading *r = context;
    const struct active *a = &r->t->active;
    uint64_t word = __atomic_load_n(wf_cxl_word(&r->t->volume, a->granule), __ATOMIC_ACQUIRE);
    r->right = wf_cxl_header_read(&r->t->volume, a->granule, word, r->t->volume.host, a->header) &&
               a->header->sequence == a->sequence &&
               memcmp(a->header->key, a->request->block.key, 32) == 0;
}

/* ------------------------------------------------------------------------------- read and write */

static void drop_active(struct tier *t)
{
    if (t->active.request->op == WF_TIER_WRITE)
        wf_cxl_space_give(&t->volume, t->active.granule, t->active.granules);
    t->active.request = NULL;
}

static void finish_active(struct tier *t, enum weft_status status)
{
    struct wf_tier_request *r = t->active.request;
    if (r->op == WF_TIER_WRITE && status == WEFT_OK) {
        r->private[FIRST_GRANULE] = t->active.granule;
        r->private[GRANULES] = t->active.granules;
        r->private[COMMIT_WORD] = wf_cxl_commit_word(t->active.header);
        t->active.request = NULL;
    } else {
        drop_active(t);
    }
    r->bytes = t->active.bytes;
    finish(t, r, status);
}

/* A block that is not what its checksum says is gone; the medium goes on. */
static void corrupt(struct tier *t, struct wf_tier_request *r, uint64_t sequence)
{
    uint32_t item = wf_tier_index_find(&t->volume.index, r->block.key);
    t->stats.corrupt++;
    if (item != WF_TIER_NONE && t->volume.index.items[item].sequence == sequence)
        wf_cxl_forget(&t->volume, item);
    (void)wf_fail(WEFT_E_CORRUPT, "tier %s: a block is not what its checksum says; it was dropped",
                  t->volume.path);
}

/* After a fault in the middle of the active request. */
static void faulted(struct tier *t, enum wf_fault fault)
{
    struct wf_tier_request *r = t->active.request;
    if (fault == WF_FAULT_POISON && r->op == WF_TIER_READ) {
        uint64_t sequence = t->active.sequence;
        t->active.request = NULL;
        corrupt(t, r, sequence);
        finish(t, r, WEFT_E_CORRUPT);
        return;
    }
    /* The space of a write that met a lost line stays taken: nobody should be put there again. */
    t->active.request = NULL;
    finish(t, r,
           wf_fail(WEFT_E_SYSTEM, "tier %s: %s", t->volume.path,
                   fault == WF_FAULT_POISON ? "the medium has lost a line; try again"
                                            : "the medium is gone; open it again"));
}

/* WEFT_PENDING: there is no room, and some may be claimed. */
static enum weft_status begin_write(struct tier *t, struct wf_tier_request *r)
{
    struct active *a = &t->active;
    const struct wf_tier_block *b = &r->block;
    uint32_t parts = wf_tier_parts(b);
    uint64_t granules = wf_cxl_block_granules(parts, b->bytes), granule;
    if (wf_tier_index_find(&t->volume.index, b->key) != WF_TIER_NONE)
        return WEFT_EXISTS;
    if (!wf_cxl_space_take(&t->volume, granules, &granule)) {
        if (t->volume.shared && !r->private[CLAIMED])
            return WEFT_PENDING;
        return wf_fail(WEFT_FULL, "tier %s: no room for a block of %llu bytes; remove blocks",
                       t->volume.path, (unsigned long long)b->bytes);
    }
    struct wf_cxl_header *h = a->header;
    *h = (struct wf_cxl_header){.sequence = ++t->volume.sequence,
                                .granule = granule,
                                .bytes = b->bytes,
                                .part_bytes = b->part_bytes,
                                .plain_bytes = b->plain_bytes,
                                .plain_part_bytes = b->plain_part_bytes,
                                .plain_quality = b->plain_quality,
                                .parts = parts,
                                .depth = b->depth,
                                .host = t->volume.host};
    t->volume.sequence &= (UINT64_C(1) << WF_CXL_SEQUENCE_BITS) - 1;
    h->sequence = t->volume.sequence;
    memcpy(h->key, b->key, sizeof h->key);
    memcpy(h->parent, b->parent, sizeof h->parent);
    memcpy(h->format, b->format, sizeof h->format);
    a->request = r;
    a->granule = granule;
    a->granules = granules;
    a->at = a->done = a->part_done = 0;
    a->part = 0;
    a->bytes = b->bytes;
    return WEFT_OK;
}

/* The block that is read is the one that was there at submit: its shape is what the caller's room
 * was made for. */
static enum weft_status begin_read(struct tier *t, struct wf_tier_request *r)
{
    struct active *a = &t->active;
    uint32_t item = wf_tier_index_find(&t->volume.index, r->block.key);
    const struct wf_tier_item *i = &t->volume.index.items[item];
    if (item == WF_TIER_NONE || i->sequence != r->private[0])
        return WEFT_MISS;
    a->request = r;
    a->sequence = i->sequence;
    a->granule = (uint64_t)i->group * WF_CXL_EXTENT_GRANULES + i->offset;
    struct reading reading = {.t = t};
    enum wf_fault fault = wf_cxl_guarded(&t->volume, read_header, &reading);
    if (fault != WF_FAULT_NONE) {
        faulted(t, fault);
        return WEFT_OK;
    }
    if (!reading.right) {
        a->request = NULL;
        corrupt(t, r, a->sequence);
        return WEFT_E_CORRUPT;
    }
    uint32_t end = r->part_count ? r->first_part + r->part_count : a->header->parts;
    a->part = r->first_part;
    a->part_done = a->done = 0;
    a->at = (uint64_t)r->first_part * a->header->part_bytes;
    a->bytes = (end == a->header->parts ? a->header->bytes
                                        : (uint64_t)end * a->header->part_bytes) -
               a->at;
    return WEFT_OK;
}

/* One slice of the active request; sets *budget down by what was copied. */
static void advance(struct tier *t, uint64_t *budget)
{
    struct active *a = &t->active;
    struct wf_tier_request *r = a->request;
    bool write = r->op == WF_TIER_WRITE;
    if (!write) { /* removed meanwhile, and its space may be another's */
        uint32_t item = wf_tier_index_find(&t->volume.index, r->block.key);
        if (item == WF_TIER_NONE || t->volume.index.items[item].sequence != a->sequence) {
            finish_active(t, WEFT_MISS);
            return;
        }
    }
    a->slice = a->bytes - a->done < SLICE_BYTES ? a->bytes - a->done : SLICE_BYTES;
    *budget -= *budget < a->slice ? *budget : a->slice;
    const uint8_t *here = (const uint8_t *)r->data + a->done;
    if (write)
        (void)hash_slice(a, here, a->slice, false);
    enum wf_fault fault = wf_cxl_guarded(&t->volume, copy_slice, t);
    if (fault == WF_FAULT_NONE && !write && !hash_slice(a, here, a->slice, true)) {
        corrupt(t, r, a->sequence);
        finish_active(t, WEFT_E_CORRUPT);
        return;
    }
    a->done += a->slice;
    if (fault == WF_FAULT_NONE && a->done < a->bytes)
        return;
    if (fault == WF_FAULT_NONE && write) {
        wf_cxl_header_seal(&t->volume, a->header);
        fault = wf_cxl_guarded(&t->volume, write_header, t);
    }
    if (fault != WF_FAULT_NONE)
        faulted(t, fault);
    else
        finish_active(t, WEFT_OK);
}

static void begin(struct tier *t, struct wf_tier_request *r)
{
    enum weft_status status = WEFT_OK;
    if (r->op == WF_TIER_FLUSH)
        status = wf_cxl_medium_flush(&t->volume);
    else
        status = r->op == WF_TIER_WRITE ? begin_write(t, r) : begin_read(t, r);
    if (status == WEFT_PENDING)
        wf_tier_queue_add(&t->claiming, r);
    else if (status != WEFT_OK || r->op == WF_TIER_FLUSH)
        finish(t, r, status);
}

/* Writes that need an extent: when the lock is ours all of them are tried again, once. */
static void claim(struct tier *t)
{
    const struct wf_tier_block *b = &t->claiming.first->block;
    uint64_t granules = wf_cxl_block_granules(wf_tier_parts(b), b->bytes);
    enum weft_status status = wf_cxl_claim_step(&t->volume, granules);
    if (status == WEFT_PENDING)
        return;
    struct wf_tier_request *r = wf_tier_queue_take(&t->claiming);
    r->private[CLAIMED] = 1;
    if (status == WEFT_OK)
        wf_tier_queue_add(&t->work, r);
    else
        finish(t, r, status);
    /* Those behind may fit into what came; who does not gets a turn of its own. */
    while (status == WEFT_OK && (r = wf_tier_queue_take(&t->claiming)))
        wf_tier_queue_add(&t->work, r);
}

static void fail_all(struct tier *t)
{
    struct wf_tier_request *r;
    if (t->active.request) {
        r = t->active.request;
        t->active.request = NULL;
        finish(t, r, out_of_use(t));
    }
    while ((r = wf_tier_queue_take(&t->work)) || (r = wf_tier_queue_take(&t->claiming)))
        finish(t, r, out_of_use(t));
}

/* Work for at most `budget` bytes, or until something is done when `first` is asked for. */
static void progress(struct tier *t, uint64_t budget)
{
    wf_cxl_beat(&t->volume);
    if (t->claiming.first && !t->volume.failed)
        claim(t);
    while (budget > 0 && !t->volume.failed) {
        if (t->active.request)
            advance(t, &budget);
        else if (t->work.first)
            begin(t, wf_tier_queue_take(&t->work));
        else
            break;
    }
    if (t->volume.failed)
        fail_all(t);
}

/* -------------------------------------------------------------------------------- what was done */

struct commit {
    struct tier *t;
    uint64_t granule, word;
};

static void commit_word(void *context)
{
    struct commit *c = context;
    wf_cxl_publish(wf_cxl_word(&c->t->volume, c->granule), c->word);
    wf_cxl_changed(&c->t->volume, c->granule);
}

/* A written block is found from here on. */
static void commit(struct tier *t, struct wf_tier_request *r)
{
    struct commit c = {t, r->private[FIRST_GRANULE], r -> private[COMMIT_WORD]};
    uint64_t granules = r->private[GRANULES];
    if (wf_tier_index_find(&t->volume.index, r->block.key) != WF_TIER_NONE) {
        wf_cxl_space_give(&t->volume, c.granule, granules);
        r->status = WEFT_EXISTS;
        r->bytes = 0;
        return;
    }
    uint32_t item = wf_tier_index_insert(&t->volume.index, &r->block, c.word >> 16,
                                         (uint32_t)(c.granule / WF_CXL_EXTENT_GRANULES),
                                         (uint32_t)(c.granule % WF_CXL_EXTENT_GRANULES));
    if (item == WF_TIER_NONE) {
        wf_cxl_space_give(&t->volume, c.granule, granules);
        r->status = wf_fail(WEFT_FULL, "tier %s: its index has no room for another block or format",
                            t->volume.path);
        r->bytes = 0;
        return;
    }
    if (t->volume.failed || wf_cxl_guarded(&t->volume, commit_word, &c) != WF_FAULT_NONE) {
        wf_tier_index_remove(&t->volume.index, item);
        t->stats.errors++;
        r->status = out_of_use(t);
        r->bytes = 0;
        return;
    }
    t->stats.writes++;
    t->stats.write_bytes += r->bytes;
    t->stats.device_write_bytes += r->bytes + wf_cxl_header_bytes(wf_tier_parts(&r->block)) + 8;
}

static void signal_work(const struct tier *t)
{
    if (t->done.first || t->work.first || t->claiming.first || t->active.request)
        (void)eventfd_write(t->event, 1);
}

/* ------------------------------------------------------------------------------- open and close */

static void destroy(struct tier *t)
{
    wf_cxl_volume_close(&t->volume);
    wf_cxl_medium_close(&t->volume);
    if (t->active.hash)
        XXH3_freeState(t->active.hash);
    if (t->event >= 0)
        close(t->event);
    free(t);
}

static enum weft_status check_host(const struct wf_tier_options *options)
{
    if (options->shared && options->host == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: a shared device needs a host number from 1 to 255",
                       options->path);
    return WEFT_OK;
}

static enum weft_status cxl_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_tier_check_options(options);
    if (status == WEFT_OK)
        status = check_host(options);
    if (status == WEFT_OK)
        status = wf_guard_install();
    if (status != WEFT_OK)
        return status;
    struct tier *t = wf_calloc(1, sizeof *t, "a tier");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->volume.fd = -1;
    t->volume.shared = options->shared;
    t->volume.host = options->shared ? options->host : 1;
    t->queue_depth = options->queue_depth;
    t->active.header = (struct wf_cxl_header *)(void *)t->header;
    t->active.hash = XXH3_createState();
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->event < 0)
        status = wf_fail(WEFT_E_SYSTEM, "eventfd: %s; raise the open-file limit", strerror(errno));
    else if (!t->active.hash)
        status = wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory for a hash", options->path);
    else
        status = wf_cxl_medium_open(&t->volume, options);
    if (status == WEFT_OK)
        status = wf_cxl_volume_open(&t->volume, options);
    if (status != WEFT_OK) {
        destroy(t);
        return status;
    }
    *out = (struct wf_tier *)t;
    return WEFT_OK;
}

static void cxl_close(struct wf_tier *tier)
{
    if (!tier)
        return;
    wf_cxl_leave(&of(tier)->volume);
    destroy(of(tier));
}

void wf_tier_cxl_crash(struct wf_tier *tier)
{
    destroy(of(tier));
}

/* ------------------------------------------------------------------------------------- requests */

static enum weft_status check(const struct tier *t, const struct wf_tier_request *r, uint32_t item)
{
    struct wf_tier_block there;
    if (item != WF_TIER_NONE)
        wf_tier_index_block(&t->volume.index, item, &there);
    enum weft_status status = wf_tier_check_request(r, item != WF_TIER_NONE ? &there : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_FLUSH && t->volume.medium == WF_CXL_MEDIUM_NODE)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a node's memory does not outlive this program; flush a tier on a "
                       "device",
                       t->volume.path);
    if (r->op == WF_TIER_WRITE && wf_cxl_block_granules(wf_tier_parts(&r->block), r->block.bytes) >
                                      wf_cxl_granules(&t->volume))
        return wf_fail(WEFT_E_INVALID, "tier %s: a block of %llu bytes is larger than all of it",
                       t->volume.path, (unsigned long long)r->block.bytes);
    return WEFT_OK;
}

static enum weft_status cxl_submit(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    if (t->stats.in_flight >= t->queue_depth)
        return WEFT_PENDING;
    uint32_t item = r->op == WF_TIER_FLUSH ? WF_TIER_NONE
                                           : wf_tier_index_find(&t->volume.index, r->block.key);
    enum weft_status status = check(t, r, item);
    if (status != WEFT_OK)
        return status;
    t->stats.in_flight++;
    memset(r->private, 0, sizeof r->private);
    r->bytes = 0;
    if (t->volume.failed) {
        finish(t, r, out_of_use(t));
    } else if (r->op == WF_TIER_READ && item == WF_TIER_NONE) {
        finish(t, r, WEFT_MISS);
    } else {
        bool idle = !t->work.first && !t->active.request;
        uint64_t bytes = r->op == WF_TIER_WRITE ? r->block.bytes : 0;
        if (r->op == WF_TIER_READ) {
            r->private[0] = t->volume.index.items[item].sequence;
            bytes = r->part_count ? (uint64_t)r->part_count * t->volume.index.items[item].part_bytes
                                  : t->volume.index.items[item].bytes;
        }
        wf_tier_queue_add(&t->work, r);
        if (idle && r->op != WF_TIER_FLUSH && bytes <= SLICE_BYTES)
            progress(t, 1);
    }
    signal_work(t);
    return WEFT_OK;
}

static uint32_t cxl_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                         uint32_t timeout_ms)
{
    struct tier *t = of(tier);
    uint64_t until = wf_now_ms() + timeout_ms;
    eventfd_t ignored;
    (void)eventfd_read(t->event, &ignored);
    progress(t, SLICES_A_REAP * SLICE_BYTES);
    while (!t->done.first && t->stats.in_flight && wf_now_ms() < until) {
        if (!t->work.first && !t->active.request)
            nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
        progress(t, SLICES_A_REAP * SLICE_BYTES);
    }
    uint32_t count = 0;
    while (count < max && t->done.first) {
        struct wf_tier_request *r = wf_tier_queue_take(&t->done);
        out[count++] = r;
        t->stats.in_flight--;
        if (r->status == WEFT_OK && r->op == WF_TIER_WRITE)
            commit(t, r);
        if (r->status == WEFT_OK && r->op == WF_TIER_READ) {
            t->stats.reads++;
            t->stats.read_bytes += r->bytes;
        }
    }
    signal_work(t);
    return count;
}

static void cxl_cancel(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    bool is_active = t->active.request == r;
    if (is_active)
        drop_active(t);
    else if (!wf_tier_queue_remove(&t->work, r) && !wf_tier_queue_remove(&t->claiming, r))
        return;
    if (!t->claiming.first)
        wf_cxl_claim_abandon(&t->volume);
    finish(t, r, wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled", t->volume.path));
    signal_work(t);
}

static int cxl_event(const struct wf_tier *tier)
{
    return of(tier)->event;
}

static bool cxl_find(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out)
{
    const struct wf_tier_index *index = &of(tier)->volume.index;
    uint32_t item = wf_tier_index_find(index, key);
    if (item != WF_TIER_NONE && out)
        wf_tier_index_block(index, item, out);
    return item != WF_TIER_NONE;
}

static enum weft_status cxl_remove(struct wf_tier *tier, const uint8_t key[32])
{
    struct tier *t = of(tier);
    uint32_t item = wf_tier_index_find(&t->volume.index, key);
    if (item == WF_TIER_NONE)
        return WEFT_MISS;
    wf_cxl_forget(&t->volume, item);
    return WEFT_OK;
}

static void cxl_each(const struct wf_tier *tier,
                     void (*found)(void *context, const struct wf_tier_block *block), void *context)
{
    wf_tier_index_each(&of(tier)->volume.index, found, context);
}

static void cxl_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    const struct tier *t = of(tier);
    *out = t->stats;
    out->capacity_bytes = (t->volume.extents - t->volume.foreign) * WF_CXL_EXTENT;
    out->block_bytes_max =
        (wf_cxl_granules(&t->volume) - wf_cxl_header_granules(WF_TIER_PARTS_MAX)) * WF_CXL_GRANULE;
    out->used_bytes = t->volume.used_granules * WF_CXL_GRANULE;
    out->blocks = t->volume.index.table.count;
    out->queue_depth = t->queue_depth;
    out->failed = t->volume.failed;
    out->forgets = t->volume.medium == WF_CXL_MEDIUM_NODE;
}

const struct wf_tier_ops wf_tier_cxl = {
    .name = "cxl",
    .open = cxl_open,
    .close = cxl_close,
    .submit = cxl_submit,
    .reap = cxl_reap,
    .cancel = cxl_cancel,
    .event = cxl_event,
    .find = cxl_find,
    .remove = cxl_remove,
    .each = cxl_each,
    .stats = cxl_stats,
    .fence = wf_tier_cxl_fence,
};
