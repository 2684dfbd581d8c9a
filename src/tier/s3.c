/* SPDX-License-Identifier: Apache-2.0
 *
 * The object store tier: blocks packed into objects of a bucket, through S3's protocol.
 *
 * A read is one ranged GET whose bytes go straight into the request's memory; heads of parts, which
 * lie between the payloads, are taken out on the way and each part is verified as it ends.  What
 * comes wrong is fetched once more, since the way may be to blame; what comes wrong twice is
 * corrupt.  Reads of what is not uploaded yet are served from memory, through the same check.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"
#include "tier/s3_store.h"

#define CLOSE_MS 60000u /* how long closing waits for uploads */

static struct wf_s3 *of(const struct wf_tier *tier)
{
    return (struct wf_s3 *)(uintptr_t)tier;
}

/* ----------------------------------------------------------------------------- queues */

void wf_s3_queue_init(struct wf_s3_queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

void wf_s3_queue_add(struct wf_s3_queue *queue, struct wf_tier_request *request)
{
    request->next = NULL;
    *queue->last = request;
    queue->last = &request->next;
}

struct wf_tier_request *wf_s3_queue_take(struct wf_s3_queue *queue)
{
    struct wf_tier_request *request = queue->first;
    if (request && !(queue->first = request->next))
        queue->last = &queue->first;
    return request;
}

bool wf_s3_queue_remove(struct wf_s3_queue *queue, struct wf_tier_request *request)
{
    struct wf_tier_request **link = &queue->first;
    while (*link && *link != request)
        link = &(*link)->next;
    if (!*link)
        return false;
    if (!(*link = request->next))
        queue->last = link;
    return true;
}

/* ------------------------------------------------------------------ results and failure */

void wf_s3_finish(struct wf_s3 *t, struct wf_tier_request *request, enum weft_status status)
{
    request->status = status;
    request->private[0] = 0;
    if (status != WEFT_OK)
        request->bytes = 0;
    if (status == WEFT_E_SYSTEM)
        t->stats.errors++;
    wf_s3_queue_add(&t->done, request);
}

static void entry_removed(struct wf_s3 *t, const struct wf_s3_slot *slot, uint32_t offset)
{
    struct wf_s3_buffer *b = &t->buffers[slot->buffer];
    uint32_t low = 0, high = b->count;
    if (b->state != WF_S3_BUFFER_OPEN)
        return;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (b->entries[middle].offset < offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < b->count && b->entries[low].offset == offset)
        b->entries[low].bytes = 0;
}

void wf_s3_forget(struct wf_s3 *t, uint32_t item)
{
    struct wf_tier_block block;
    uint32_t at = t->index.items[item].group;
    struct wf_s3_slot *slot = &t->slots[at];
    wf_tier_index_block(&t->index, item, &block);
    uint32_t bytes = (uint32_t)wf_s3_record_bytes(&block);
    if (slot->state == WF_S3_SLOT_BUFFERED)
        entry_removed(t, slot, t->index.items[item].offset);
    wf_tier_index_remove(&t->index, item);
    slot->live -= bytes;
    slot->dead += bytes;
    slot->count--;
    t->live_bytes -= bytes;
    t->dead_bytes += bytes;
    if (slot->state == WF_S3_SLOT_STORED && !slot->count && !slot->unreaped)
        wf_s3_leave(t, at);
}

void wf_s3_fail(struct wf_s3 *t, const char *why)
{
    snprintf(t->why, sizeof t->why, "%s", why);
    if (t->failed)
        return;
    t->failed = true;
    t->probe_wait_ms = 500;
    t->probe_ms = wf_now_ms() + t->probe_wait_ms;
}

void wf_s3_trouble(struct wf_s3 *t, const struct wf_s3_call *call, const char *what)
{
    char why[256];
    t->stats.errors++;
    snprintf(t->why, sizeof t->why, "%s: %s", what, call->error);
    if (call->outcome == WF_S3_GONE) {
        snprintf(why, sizeof why,
                 "the bucket is gone or not open to these credentials (%s); look at both",
                 call->error);
        wf_s3_fail(t, why);
    } else if (call->outcome == WF_S3_BROKEN && call->status == 0) {
        snprintf(why, sizeof why, "the store cannot be reached (%s); look at the endpoint",
                 call->error);
        wf_s3_fail(t, why);
    }
}

/* ------------------------------------------------------------------------------- reads */

static void read_begin(struct wf_s3_read *r)
{
    r->part = r->first;
    r->head_filled = r->part_filled = 0;
    r->at = r->request->data;
    r->wrong = false;
}

/* Bytes of the record's range as they come, in pieces of any size. */
static bool read_take(struct wf_s3_read *r, const uint8_t *data, size_t bytes)
{
    while (bytes && r->part < r->end && !r->wrong) {
        if (r->head_filled < sizeof r->head) {
            size_t want = sizeof r->head - r->head_filled, take = bytes < want ? bytes : want;
            memcpy((uint8_t *)&r->head + r->head_filled, data, take);
            r->head_filled += (uint32_t)take;
            data += take;
            bytes -= take;
            if (r->head_filled == sizeof r->head && !wf_s3_part_heads(&r->head, &r->block, r->part))
                r->wrong = true;
            continue;
        }
        uint32_t want = r->head.bytes - r->part_filled;
        size_t take = bytes < want ? bytes : want;
        memcpy(r->at + r->part_filled, data, take);
        r->part_filled += (uint32_t)take;
        data += take;
        bytes -= take;
        if (r->part_filled < r->head.bytes)
            continue;
        if (!wf_s3_part_right(&r->head, r->at)) {
            r->wrong = true;
            break;
        }
        r->at += r->head.bytes;
        r->part++;
        r->head_filled = r->part_filled = 0;
    }
    return !r->wrong;
}

static void read_finish(struct wf_s3 *t, struct wf_s3_read *r, enum weft_status status)
{
    struct wf_tier_request *request = r->request;
    if (status == WEFT_OK) {
        request->bytes = (uint64_t)(r->at - (uint8_t *)request->data);
        t->stats.reads++;
        t->stats.read_bytes += request->bytes;
    } else if (status == WEFT_E_CORRUPT) {
        t->stats.corrupt++;
        (void)wf_fail(status, "tier %s: a block is not what its checksum says; it was dropped",
                      t->path);
        uint32_t item = wf_tier_index_find(&t->index, r->block.key);
        if (item != WF_TIER_NONE && t->index.items[item].sequence == r->sequence)
            wf_s3_forget(t, item);
    }
    wf_s3_finish(t, request, status);
    r->next = t->reads_free;
    t->reads_free = r;
}

static bool call_take(struct wf_s3_call *call, const uint8_t *data, size_t bytes)
{
    if (read_take(call->user, data, bytes))
        return true;
    /* The way may have been wrong, but not twice. */
    if (call->tries < WF_S3_TRIES - 2)
        call->tries = WF_S3_TRIES - 2;
    return false;
}

static void call_restart(struct wf_s3_call *call)
{
    read_begin(call->user);
}

/* An object that is not there any more: its blocks go, all of them. */
static void vanished(struct wf_s3 *t, uint32_t slot)
{
    uint32_t item;
    while ((item = t->index.heads[slot]) != WF_TIER_NONE)
        wf_s3_forget(t, item);
}

static void read_start(struct wf_s3 *t, struct wf_s3_read *r, uint32_t item,
                       struct wf_s3_call *call);

static void call_done(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_read *r = call->user;
    uint32_t item = wf_tier_index_find(&t->index, r->block.key);
    if (call->outcome == WF_S3_CANCELLED) {
        read_finish(t, r, wf_fail(WEFT_E_TIMEOUT, "a read from tier %s was cancelled", t->path));
    } else if (call->outcome == WF_S3_DONE && r->part == r->end) {
        read_finish(t, r, WEFT_OK);
    } else if (call->outcome == WF_S3_MISSING) {
        const struct wf_s3_slot *slot = &t->slots[r->slot];
        if (slot->number == r->number && slot->state == WF_S3_SLOT_STORED) {
            vanished(t, r->slot);
        } else if (item != WF_TIER_NONE && t->index.items[item].sequence == r->sequence) {
            read_start(t, r, item, call); /* it was moved meanwhile */
            return;
        }
        read_finish(t, r, WEFT_MISS);
    } else if (r->wrong || call->outcome == WF_S3_DONE || call->status == 416) {
        read_finish(t, r, WEFT_E_CORRUPT);
    } else {
        wf_s3_trouble(t, call, "a read failed");
        t->stats.errors--; /* the request's own end counts it */
        read_finish(t, r, wf_fail(WEFT_E_SYSTEM, "tier %s: %s", t->path, t->why));
    }
}

static void read_start(struct wf_s3 *t, struct wf_s3_read *r, uint32_t item,
                       struct wf_s3_call *call)
{
    const struct wf_tier_item *i = &t->index.items[item];
    const struct wf_s3_slot *slot = &t->slots[i->group];
    uint64_t from = i->offset + wf_s3_part_at(&r->block, r->first);
    uint64_t end = i->offset + (r->end == wf_tier_parts(&r->block)
                                    ? wf_s3_record_bytes(&r->block)
                                    : wf_s3_part_at(&r->block, r->end));
    r->sequence = i->sequence;
    r->slot = i->group;
    r->number = slot->number;
    read_begin(r);
    if (slot->state == WF_S3_SLOT_BUFFERED) {
        (void)read_take(r, t->buffers[slot->buffer].memory + from, end - from);
        read_finish(t, r, r->part == r->end ? WEFT_OK : WEFT_E_CORRUPT);
        return;
    }
    if (!call)
        call = wf_s3_http_take(&t->http);
    r->call = call;
    r->request->private[0] = (uintptr_t)r;
    wf_s3_name_write(call->name, 'p', slot->number, slot->tag);
    call->from = from;
    call->bytes = end - from;
    call->take = call_take;
    call->restart = call_restart;
    call->done = call_done;
    call->user = r;
    wf_s3_http_start(&t->http, call);
}

/* ------------------------------------------------------------------------ what goes on */

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return !a || (b && b < a) ? b : a;
}

static void step(struct wf_s3 *t)
{
    uint64_t now = wf_now_ms();
    wf_s3_fetch_step(t, now);
    wf_s3_owner_step(t, now);
    wf_s3_reclaim_step(t, now);
    wf_s3_pack_step(t, now);
    uint64_t at = sooner(wf_s3_pack_wake(t), wf_s3_owner_wake(t));
    wf_s3_http_wake_at(&t->http, t->done.first ? 1 : at); /* 1: long ago */
}

bool wf_s3_settle(struct wf_s3 *t, uint32_t calls_left, uint64_t until_ms)
{
    while (t->http.calls_used > calls_left) {
        if (wf_now_ms() >= until_ms)
            return false;
        wf_s3_http_run(&t->http, 50);
    }
    return true;
}

/* ------------------------------------------------------------------------ open and close */

static void *reserve(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void unmap(void *memory, uint64_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

static void destroy(struct wf_s3 *t)
{
    wf_s3_http_close(&t->http);
    wf_s3_reclaim_fini(t);
    for (uint32_t i = 0; t->buffers && i < WF_S3_BUFFERS; i++) {
        unmap(t->buffers[i].memory, WF_S3_OBJECT_MAX);
        unmap(t->buffers[i].entries, WF_S3_ENTRIES_MAX * sizeof(struct wf_s3_entry));
    }
    if (t->index.items)
        wf_tier_index_fini(&t->index);
    unmap(t->slots, WF_S3_PACKS_MAX * sizeof *t->slots);
    unmap(t->reclaim.memory, WF_S3_OBJECT_MAX);
    explicit_bzero(&t->fetch, sizeof t->fetch);
    free(t->reclaim.indexes);
    free(t->buffers);
    free(t->reads);
    free(t->path);
    free(t);
}

static enum weft_status make_memory(struct wf_s3 *t, const struct wf_tier_options *options)
{
    uint64_t items = options->capacity_bytes ? options->capacity_bytes / 1024 : WF_S3_ITEMS_MAX;
    t->queue_depth = options->queue_depth;
    t->held = options->held;
    t->path = wf_strdup(options->path, "a tier's path");
    t->slots = reserve(WF_S3_PACKS_MAX * sizeof *t->slots);
    t->reclaim.memory = reserve(WF_S3_OBJECT_MAX);
    t->reclaim.indexes = wf_calloc(WF_S3_INDEXES_MAX, sizeof *t->reclaim.indexes, "a tier");
    t->buffers = wf_calloc(WF_S3_BUFFERS, sizeof *t->buffers, "a tier's buffers");
    t->reads = wf_calloc(t->queue_depth, sizeof *t->reads, "a tier's reads");
    if (!t->path || !t->slots || !t->reclaim.memory || !t->reclaim.indexes || !t->buffers ||
        !t->reads)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++) {
        t->buffers[i].memory = reserve(WF_S3_OBJECT_MAX);
        t->buffers[i].entries = reserve(WF_S3_ENTRIES_MAX * sizeof(struct wf_s3_entry));
        if (!t->buffers[i].memory || !t->buffers[i].entries)
            return wf_fail(WEFT_E_NO_MEMORY, "no address space for the buffers of tier %s",
                           t->path);
    }
    for (uint32_t i = t->queue_depth; i-- > 0;) {
        t->reads[i].next = t->reads_free;
        t->reads_free = &t->reads[i];
    }
    if (items > WF_S3_ITEMS_MAX)
        items = WF_S3_ITEMS_MAX;
    return wf_tier_index_init(&t->index, items, WF_S3_PACKS_MAX);
}

static enum weft_status s3_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_tier_check_options(options);
    if (status != WEFT_OK)
        return status;
    struct wf_s3 *t = wf_calloc(1, sizeof *t, "a tier");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->http.epoll = t->http.timer = -1;
    t->http.stall_seconds = options->stall_seconds ? options->stall_seconds : 10;
    t->open_seconds = options->open_seconds ? options->open_seconds : 600;
    t->open = t->slots_free = WF_TIER_NONE;
    t->reclaim.drained = t->reclaim.leaving = t->reclaim.victim = WF_TIER_NONE;
    t->capacity_bytes = options->capacity_bytes ? options->capacity_bytes
                                                : (uint64_t)WF_S3_PACKS_MAX * WF_S3_PACK_BYTES / 2;
    wf_s3_queue_init(&t->waiting);
    wf_s3_queue_init(&t->flushing);
    wf_s3_queue_init(&t->done);
    status = wf_s3_target_read(options, &t->http.target);
    if (status == WEFT_OK)
        status = make_memory(t, options);
    if (status == WEFT_OK)
        status = wf_s3_http_open(&t->http, options->queue_depth + WF_S3_INNER, t);
    if (status == WEFT_OK)
        status = wf_s3_recover(t);
    if (status != WEFT_OK) {
        destroy(t);
        return status;
    }
    step(t);
    *out = (struct wf_tier *)t;
    return WEFT_OK;
}

void wf_s3_abandon(struct wf_tier *tier)
{
    destroy(of(tier));
}

static void s3_close(struct wf_tier *tier)
{
    struct wf_s3 *t = of(tier);
    if (!t)
        return;
    uint64_t until = wf_now_ms() + CLOSE_MS;
    t->closing = true;
    for (;;) {
        struct wf_tier_request *request;
        while ((request = wf_s3_queue_take(&t->done)))
            wf_s3_write_reaped(t, request);
        wf_s3_close_pack(t);
        step(t);
        bool idle = !t->waiting.first && wf_s3_stored_until(t, UINT64_MAX);
        if (idle || t->failed || wf_now_ms() >= until)
            break;
        wf_s3_http_run(&t->http, 50);
    }
    wf_s3_owner_release(t);
    destroy(t);
}

/* ---------------------------------------------------------------------------- requests */

/* What the record of one block may have. */
static uint64_t record_bytes_max(const struct wf_s3 *t)
{
    uint64_t pack = WF_S3_PACK_MAX - sizeof(struct wf_s3_pack);
    return t->capacity_bytes < pack ? t->capacity_bytes : pack;
}

static enum weft_status check(const struct wf_s3 *t, const struct wf_tier_request *request,
                              uint32_t item)
{
    struct wf_tier_block there;
    if (item != WF_TIER_NONE)
        wf_tier_index_block(&t->index, item, &there);
    enum weft_status status = wf_tier_check_request(request, item != WF_TIER_NONE ? &there : NULL);
    if (status != WEFT_OK || request->op != WF_TIER_WRITE)
        return status;
    if (request->block.bytes > WF_S3_PACK_MAX ||
        wf_s3_record_bytes(&request->block) > record_bytes_max(t))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a block of %llu bytes does not fit an object or the tier, which "
                       "take %llu; make blocks smaller",
                       t->path, (unsigned long long)request->block.bytes,
                       (unsigned long long)record_bytes_max(t));
    return WEFT_OK;
}

static void submit_read(struct wf_s3 *t, struct wf_tier_request *request, uint32_t item)
{
    bool buffered = t->slots[t->index.items[item].group].state == WF_S3_SLOT_BUFFERED;
    if (t->failed && !buffered) {
        wf_s3_finish(t, request, wf_fail(WEFT_E_SYSTEM, "tier %s: not read: %s", t->path, t->why));
        return;
    }
    struct wf_s3_read *r = t->reads_free; /* one for every request that may be in flight */
    t->reads_free = r->next;
    memset(r, 0, sizeof *r);
    r->request = request;
    wf_tier_index_block(&t->index, item, &r->block);
    r->first = request->first_part;
    r->end = request->part_count ? request->first_part + request->part_count
                                 : wf_tier_parts(&r->block);
    read_start(t, r, item, NULL);
}

static enum weft_status s3_submit(struct wf_tier *tier, struct wf_tier_request *request)
{
    struct wf_s3 *t = of(tier);
    if (t->stats.in_flight >= t->queue_depth)
        return WEFT_PENDING;
    uint32_t item = request->op == WF_TIER_FLUSH
                        ? WF_TIER_NONE
                        : wf_tier_index_find(&t->index, request->block.key);
    enum weft_status status = check(t, request, item);
    if (status != WEFT_OK)
        return status;
    t->stats.in_flight++;
    request->bytes = 0;
    request->private[0] = 0;
    if (request->op == WF_TIER_READ) {
        if (item == WF_TIER_NONE)
            wf_s3_finish(t, request, WEFT_MISS);
        else
            submit_read(t, request, item);
    } else if (t->failed) {
        wf_s3_finish(t, request, wf_fail(WEFT_E_SYSTEM, "tier %s: %s", t->path, t->why));
    } else if (request->op == WF_TIER_FLUSH) {
        wf_s3_close_pack(t);
        request->private[1] = t->next_number - 1;
        wf_s3_queue_add(&t->flushing, request);
    } else if (t->waiting.first || wf_s3_write(t, request) == WEFT_PENDING) {
        wf_s3_queue_add(&t->waiting, request);
    }
    step(t);
    return WEFT_OK;
}

static uint32_t s3_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                        uint32_t timeout_ms)
{
    struct wf_s3 *t = of(tier);
    uint64_t until = wf_now_ms() + timeout_ms, now;
    wf_s3_http_run(&t->http, 0);
    step(t);
    while (!t->done.first && t->stats.in_flight && (now = wf_now_ms()) < until) {
        wf_s3_http_run(&t->http, (uint32_t)(until - now));
        step(t);
    }
    uint32_t count = 0;
    while (count < max && t->done.first) {
        out[count] = wf_s3_queue_take(&t->done);
        wf_s3_write_reaped(t, out[count++]);
        t->stats.in_flight--;
    }
    if (count)
        step(t);
    return count;
}

/* A write that is in a buffer is let through: it has ended already. */
static void s3_cancel(struct wf_tier *tier, struct wf_tier_request *request)
{
    struct wf_s3 *t = of(tier);
    if (wf_s3_queue_remove(&t->waiting, request) || wf_s3_queue_remove(&t->flushing, request)) {
        wf_s3_finish(t, request,
                     wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled", t->path));
    } else if (request->op == WF_TIER_READ && request->private[0]) {
        struct wf_s3_read *r = (struct wf_s3_read *)(uintptr_t)request->private[0];
        wf_s3_http_cancel(&t->http, r->call);
    }
    step(t);
}

static int s3_event(const struct wf_tier *tier)
{
    return of(tier)->http.epoll;
}

static bool s3_find(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out)
{
    struct wf_s3 *t = of(tier);
    uint32_t item = wf_tier_index_find(&t->index, key);
    if (item == WF_TIER_NONE)
        return false;
    if (out)
        wf_tier_index_block(&t->index, item, out);
    return true;
}

static enum weft_status s3_remove(struct wf_tier *tier, const uint8_t key[32])
{
    struct wf_s3 *t = of(tier);
    uint32_t item = wf_tier_index_find(&t->index, key);
    if (item == WF_TIER_NONE)
        return WEFT_MISS;
    wf_s3_forget(t, item);
    return WEFT_OK;
}

static void s3_each(const struct wf_tier *tier,
                    void (*found)(void *context, const struct wf_tier_block *block), void *context)
{
    wf_tier_index_each(&of(tier)->index, found, context);
}

static void s3_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    const struct wf_s3 *t = of(tier);
    *out = t->stats;
    out->capacity_bytes = t->capacity_bytes;
    uint64_t heads = WF_TIER_PARTS_MAX * sizeof(struct wf_s3_part), most = record_bytes_max(t);
    out->block_bytes_max = most > heads ? most - heads : 1;
    out->used_bytes = t->live_bytes;
    out->blocks = t->index.table.count;
    out->queue_depth = t->queue_depth;
    out->failed = t->failed;
    out->claim = t->owner_id;
    if (t->failed)
        snprintf(out->why, sizeof out->why, "%s", t->why);
}

const struct wf_tier_ops wf_tier_s3 = {
    .name = "s3",
    .open = s3_open,
    .close = s3_close,
    .submit = s3_submit,
    .reap = s3_reap,
    .cancel = s3_cancel,
    .event = s3_event,
    .find = s3_find,
    .remove = s3_remove,
    .each = s3_each,
    .stats = s3_stats,
};
