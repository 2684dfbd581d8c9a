/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier: blocks in a log on a file or block device, through io_uring.
 *
 * Checksums of parts lie in each record's header.  Those of blocks written or read lately are kept
 * in memory, in at most 35 MB, and then a range of parts is one I/O of payload alone.  Without them
 * the header comes along in the same I/O when the range starts with the first part, and before it
 * otherwise.  So memory does not grow with the number of parts, and the first range of a block that
 * is read in layers pays for the others.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/sum.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define TRIES_MAX 16u
#define VERIFY_BYTES (512u << 10) /* of landed reads in one reap, the last of them whole */

static struct wf_nvme *of(const struct wf_tier *tier)
{
    return (struct wf_nvme *)(uintptr_t)tier;
}

/* ---------------------------------------------------------------------------------------- read */

static void payload_vectors(struct wf_nvme *t, struct wf_nvme_io *io)
{
    uint64_t whole = io->length / WF_NVME_PAGE * WF_NVME_PAGE;
    uint8_t *data = io->request->data;
    io->buffered = io->at % WF_NVME_PAGE != 0;
    if (io->buffered) {
        io->skip = 0;
        io->vector[io->vectors++] = (struct iovec){data, io->length};
        return;
    }
    io->skip = io->length - whole;
    if (whole)
        io->vector[io->vectors++] = (struct iovec){data, whole};
    if (io->skip)
        io->vector[io->vectors++] = (struct iovec){io->tail, WF_NVME_PAGE};
    else if (io->vectors == 1)
        io->buffer = wf_nvme_buffer_of(t, data, whole);
}

static void read_payload(struct wf_nvme *t, struct wf_nvme_io *io)
{
    io->vectors = 0;
    io->with_header = false;
    io->offset = wf_nvme_segment_at(t, io->segment) + (uint64_t)io->page * WF_NVME_PAGE +
                 io->header_bytes + io->at;
    payload_vectors(t, io);
    wf_nvme_io_start(t, io);
}

/* The header, and the payload along with it when it is wanted from its beginning. */
static void read_record(struct wf_nvme *t, struct wf_nvme_io *io)
{
    io->vectors = 0;
    io->buffer = -1;
    io->buffered = false;
    io->with_header = true;
    io->vector[io->vectors++] = (struct iovec){io->header, io->header_bytes};
    io->offset = wf_nvme_segment_at(t, io->segment) + (uint64_t)io->page * WF_NVME_PAGE;
    if (io->at == 0)
        payload_vectors(t, io);
    wf_nvme_io_start(t, io);
}

static void read_start(struct wf_nvme *t, struct wf_nvme_io *io, uint32_t item)
{
    const struct wf_nvme_item *i = &t->index.items[item];
    const struct wf_tier_request *request = io->request;
    wf_nvme_index_block(&t->index, item, &io->block);
    uint32_t parts = wf_tier_parts(&io->block);
    uint32_t end = request->part_count ? request->first_part + request->part_count : parts;
    io->at = (uint64_t)request->first_part * io->block.part_bytes;
    io->length = end == parts ? io->block.bytes - io->at
                              : (uint64_t)end * io->block.part_bytes - io->at;
    io->segment = i->segment;
    io->page = i->page;
    io->generation = t->segment[io->segment].generation;
    io->header_bytes = wf_nvme_header_bytes(parts);
    t->segment[io->segment].readers++;
    t->readers++;
    struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)io->header;
    if (wf_nvme_sums_find(t, io->segment, io->page, io->generation, record->sums, parts)) {
        read_payload(t, io);
        return;
    }
    read_record(t, io);
}

/* The record's own word on what it is: the whole key, and the record that the index means. */
static bool header_right(struct wf_nvme *t, const struct wf_nvme_io *io)
{
    struct wf_tier_block block;
    const struct wf_nvme_record *record = wf_nvme_record_at(t, io->segment,
                                                            (uint64_t)io->page * WF_NVME_PAGE,
                                                            io->header, io->header_bytes, &block);
    if (!record || record->generation != io->generation || block.bytes != io->block.bytes ||
        block.part_bytes != io->block.part_bytes || memcmp(block.key, io->block.key, 32) != 0)
        return false;
    wf_nvme_sums_keep(t, io->segment, io->page, io->generation, record->sums,
                      wf_tier_parts(&block));
    return true;
}

static bool parts_right(const struct wf_nvme_io *io)
{
    const struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)io->header;
    uint8_t *data = io->request->data;
    if (io->skip)
        memcpy(data + io->length - io->skip, io->tail, io->skip);
    uint64_t done = 0;
    for (uint32_t part = io->request->first_part; done < io->length; part++) {
        uint32_t bytes = wf_tier_part_bytes(&io->block, part);
        if (wf_sum64(data + done, bytes) != record->sums[part])
            return false;
        done += bytes;
    }
    return true;
}

/* What was read twice is rotten.  The block goes, unless it is elsewhere or another by now: then
 * nothing is known of that one. */
static enum weft_status rotten(struct wf_nvme *t, const struct wf_nvme_io *io)
{
    uint32_t item = wf_nvme_index_find_at(&t->index, io->block.key, io->segment, io->page);
    t->stats.corrupt++;
    if (item == WF_NVME_NONE)
        return WEFT_MISS;
    wf_nvme_forget(t, item);
    return wf_fail(WEFT_E_CORRUPT, "tier %s: a block is not what its checksum says; it was dropped",
                   t->path);
}

static void read_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    enum weft_status status = WEFT_OK;
    struct wf_tier_request *request = io->request;
    if (result == -ECANCELED) {
        status = wf_fail(WEFT_E_TIMEOUT, "a read from tier %s was cancelled", t->path);
    } else if (result < 0 || (uint64_t)result != io->expected) {
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: a read failed: %s; look at the device", t->path,
                         result < 0 ? strerror(-result) : "the medium ends before it");
    } else if (io->with_header && !header_right(t, io)) {
        status = WEFT_E_CORRUPT;
    } else if (io->with_header && io->at != 0) {
        read_payload(t, io);
        return;
    } else if (!parts_right(io)) {
        status = WEFT_E_CORRUPT;
    }
    if (status == WEFT_E_CORRUPT && !io->doubted) {
        io->doubted = true; /* it may have gone wrong on its way */
        read_record(t, io);
        return;
    }
    t->segment[io->segment].readers--;
    t->readers--;
    if (status == WEFT_E_CORRUPT)
        status = rotten(t, io);
    request->bytes = io->length;
    wf_nvme_finish(t, request, status);
    wf_nvme_io_put(t, io);
}

/* ------------------------------------------------------------------------------------ the ring */

/* Payload has landed.  To verify it takes the processor a while, so it is left for the reaps to
 * come: what is to be read next goes to the device first. */
static void land(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    if (result < 0 || (io->with_header && io->at != 0)) {
        read_end(t, io, result);
        return;
    }
    io->result = result;
    io->next = WF_NVME_NONE;
    *(t->landed_last == WF_NVME_NONE ? &t->landed
                                     : &t->ios[t->landed_last].next) = (uint32_t)(io - t->ios);
    t->landed_last = (uint32_t)(io - t->ios);
}

static void verify_landed(struct wf_nvme *t, uint64_t bytes_max)
{
    uint64_t bytes = 0;
    while (t->landed != WF_NVME_NONE && bytes < bytes_max) {
        struct wf_nvme_io *io = &t->ios[t->landed];
        t->landed = io->next;
        if (t->landed == WF_NVME_NONE)
            t->landed_last = WF_NVME_NONE;
        bytes += io->length;
        read_end(t, io, io->result);
    }
}

static void end_kind(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    if (io->write && result > 0)
        t->stats.device_write_bytes += (uint64_t)result;
    switch (io->kind) {
    case WF_NVME_IO_READ: land(t, io, result); break;
    case WF_NVME_IO_WRITE: wf_nvme_write_end(t, io, result); break;
    case WF_NVME_IO_LIST:
    case WF_NVME_IO_MOVE_READ:
    case WF_NVME_IO_MOVE_WRITE:
    case WF_NVME_IO_FREE: wf_nvme_reclaim_end(t, io, result); break;
    default: wf_nvme_log_end(t, io, result); break;
    }
}

/* The header of a segment has ended, well or not, and with it the records that it held back. */
static void let_go(struct wf_nvme *t, struct wf_nvme_writer *w)
{
    while (w->held != WF_NVME_NONE) {
        struct wf_nvme_io *io = &t->ios[w->held];
        w->held = io->next;
        end_kind(t, io, w->broken ? w->broken : io->result);
    }
}

static void io_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    bool sync = io->kind == WF_NVME_IO_SYNC;
    if ((result == -EAGAIN || result == -EINTR) && !sync && io->tries++ < TRIES_MAX) {
        wf_nvme_io_start(t, io);
        return;
    }
    if (result >= 0 && (uint64_t)result == io->expected)
        t->errors_in_a_row = 0;
    else if (result != -ECANCELED)
        wf_nvme_trouble(t, result);
    if (wf_nvme_hold(t, io, &result))
        return;
    struct wf_nvme_writer *begun = io->kind == WF_NVME_IO_HEADER ? &t->writer[io->writer] : NULL;
    end_kind(t, io, result);
    if (begun)
        let_go(t, begun);
}

static void progress(struct wf_nvme *t)
{
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&t->ring, &cqe) == 0) {
        struct wf_nvme_io *io = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&t->ring, cqe);
        if (io && wf_nvme_io_ended(t, io, &result)) /* a cancellation's own answer has none */
            io_end(t, io, result);
    }
    /* A second time, for steps that the first made possible without any I/O between. */
    wf_nvme_log_step(t);
    wf_nvme_log_step(t);
}

static void wait_ring(struct wf_nvme *t, uint64_t ms)
{
    struct io_uring_cqe *cqe;
    struct __kernel_timespec time = {.tv_sec = (long long)(ms / 1000),
                                     .tv_nsec = (long long)(ms % 1000) * 1000000};
    (void)io_uring_wait_cqe_timeout(&t->ring, &cqe, &time);
}

static void signal_done(const struct wf_nvme *t)
{
    if (t->done.first || t->landed != WF_NVME_NONE)
        (void)eventfd_write(t->event, 1);
}

/* ------------------------------------------------------------------------------- open and close */

static void unmap(void *memory, uint64_t bytes)
{
    if (memory)
        munmap(memory, bytes);
}

static void destroy(struct wf_nvme *t)
{
    uint64_t records = t->segment_bytes / WF_NVME_RECORD_MIN;
    wf_nvme_medium_close(t);
    if (t->index.items)
        wf_nvme_index_fini(&t->index);
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++)
        unmap(t->writer[i].footer, wf_nvme_footer_bytes(records + 1));
    unmap(t->segment, (uint64_t)t->segments * sizeof *t->segment);
    unmap(t->dead, (uint64_t)t->segments * t->dead_words * 8);
    unmap(t->reclaim.origins, (records + 1) * sizeof *t->reclaim.origins);
    unmap(t->reclaim.footer, wf_nvme_footer_bytes(records + 1));
    unmap(t->reclaim.buffer, t->reclaim.buffer_bytes);
    unmap(t->sums, t->sums_count * sizeof *t->sums);
    unmap(t->io_memory, t->io_memory_bytes);
    free(t->ios);
    free(t);
}

static enum weft_status make_ios(struct wf_nvme *t, uint32_t queue_depth)
{
    uint64_t each = WF_NVME_HEADER_MAX + WF_NVME_PAGE;
    t->queue_depth = queue_depth;
    t->ios_count = queue_depth + WF_NVME_INNER;
    t->io_memory_bytes = t->ios_count * each;
    t->ios = wf_calloc(t->ios_count, sizeof *t->ios, "a tier's requests");
    t->io_memory = wf_nvme_pages(t->io_memory_bytes, "a tier's requests");
    if (!t->ios || !t->io_memory)
        return WEFT_E_NO_MEMORY;
    t->ios_free = WF_NVME_NONE;
    for (uint32_t i = t->ios_count; i-- > 0;) {
        t->ios[i].header = t->io_memory + i * each;
        t->ios[i].tail = t->ios[i].header + WF_NVME_HEADER_MAX;
        t->ios[i].next = t->ios_free;
        t->ios_free = i;
    }
    return WEFT_OK;
}

static enum weft_status nvme_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    uint64_t bytes = 0;
    enum weft_status status = wf_tier_check_options(options);
    if (status != WEFT_OK)
        return status;
    struct wf_nvme *t = wf_calloc(1, sizeof *t, "a tier");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->fd = t->fd_buffered = t->event = -1;
    t->active[WF_NVME_NEW] = t->active[WF_NVME_MOVED] = WF_NVME_NONE;
    t->landed = t->landed_last = WF_NVME_NONE;
    wf_nvme_queue_init(&t->waiting);
    wf_nvme_queue_init(&t->flushing);
    wf_nvme_queue_init(&t->next_flush);
    wf_nvme_queue_init(&t->done);
    status = make_ios(t, options->queue_depth);
    if (status == WEFT_OK)
        status = wf_nvme_medium_open(t, options, &bytes);
    if (status == WEFT_OK)
        status = wf_nvme_ring_open(t, options);
    if (status == WEFT_OK)
        status = wf_nvme_recover(t, bytes, options->capacity_bytes);
    if (status == WEFT_OK)
        status = wf_nvme_medium_opened(t);
    if (status != WEFT_OK) {
        if (t->made) /* nothing in it is of use */
            unlink(t->path);
        destroy(t);
        return status;
    }
    *out = (struct wf_tier *)t;
    return WEFT_OK;
}

static void drop_done(struct wf_nvme *t)
{
    struct wf_tier_request *request;
    while ((request = wf_nvme_queue_take(&t->done)))
        wf_nvme_write_reaped(t, request);
}

/* What moves needs an open segment to the end, and for the next time when none is free. */
static void close_last(struct wf_nvme *t)
{
    for (uint32_t s = 0;
         t->reclaim.step == WF_NVME_IDLE && t->free_count > 0 && s < WF_NVME_STREAMS; s++)
        wf_nvme_close_active(t, s);
}

/* A clean end: segments get their footers and removals are written, so that the next open is
 * quick. */
static void nvme_close(struct wf_tier *tier)
{
    struct wf_nvme *t = of(tier);
    struct wf_tier_request last = {.op = WF_TIER_FLUSH};
    if (!t)
        return;
    while (wf_nvme_queue_take(&t->waiting))
        ;
    t->leaving = true;
    drop_done(t);
    close_last(t);
    wf_nvme_queue_add(&t->next_flush, &last);
    progress(t);
    while (!wf_nvme_log_idle(t)) {
        if (t->landed == WF_NVME_NONE)
            wait_ring(t, 100);
        verify_landed(t, UINT64_MAX);
        drop_done(t);
        close_last(t);
        progress(t);
    }
    destroy(t);
}

/* ------------------------------------------------------------------------------------ requests */

static enum weft_status check(const struct wf_nvme *t, const struct wf_tier_request *request,
                              uint32_t item)
{
    struct wf_tier_block there;
    if (item != WF_NVME_NONE)
        wf_nvme_index_block(&t->index, item, &there);
    enum weft_status status = wf_tier_check_request(request, item != WF_NVME_NONE ? &there : NULL);
    if (status != WEFT_OK || request->op != WF_TIER_WRITE)
        return status;
    if (request->block.bytes > t->segment_bytes ||
        wf_nvme_record_bytes(&request->block) > wf_nvme_room(t))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a block of %llu bytes does not fit a segment of %llu; make blocks "
                       "smaller or the capacity larger",
                       t->path, (unsigned long long)request->block.bytes,
                       (unsigned long long)t->segment_bytes);
    return WEFT_OK;
}

static enum weft_status nvme_submit(struct wf_tier *tier, struct wf_tier_request *request)
{
    struct wf_nvme *t = of(tier);
    if (t->stats.in_flight >= t->queue_depth)
        return WEFT_PENDING;
    uint32_t item = request->op == WF_TIER_FLUSH
                        ? WF_NVME_NONE
                        : wf_nvme_index_find(&t->index, request->block.key);
    enum weft_status status = check(t, request, item);
    if (status != WEFT_OK)
        return status;
    t->stats.in_flight++;
    request->bytes = 0;
    request->private[0] = 0;
    if (t->failed) {
        wf_nvme_finish(t, request,
                       wf_fail(WEFT_E_SYSTEM, "tier %s: out of use since an error; open it again",
                               t->path));
    } else if (request->op == WF_TIER_FLUSH) {
        wf_nvme_queue_add(&t->next_flush, request);
    } else if (request->op == WF_TIER_WRITE) {
        if (item != WF_NVME_NONE)
            wf_nvme_finish(t, request, WEFT_EXISTS);
        else if (t->waiting.first || wf_nvme_write_start(t, request, request->sums) != WEFT_OK)
            wf_nvme_queue_add(&t->waiting, request);
    } else if (item == WF_NVME_NONE) {
        wf_nvme_finish(t, request, WEFT_MISS);
    } else {
        struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_READ);
        if (!io) {
            t->stats.in_flight--;
            return WEFT_PENDING;
        }
        io->request = request;
        request->private[0] = (uintptr_t)io;
        read_start(t, io, item);
    }
    wf_nvme_log_step(t);
    signal_done(t);
    return WEFT_OK;
}

static uint32_t nvme_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                          uint32_t timeout_ms)
{
    struct wf_nvme *t = of(tier);
    uint64_t until = wf_now_ms() + timeout_ms, now;
    eventfd_t ignored;
    (void)eventfd_read(t->event, &ignored);
    if (wf_now_ms() >= t->file.next_ms)
        wf_nvme_medium_look(t);
    progress(t);
    verify_landed(t, VERIFY_BYTES);
    while (!t->done.first && t->stats.in_flight && (now = wf_now_ms()) < until) {
        wait_ring(t, until - now);
        progress(t);
        verify_landed(t, VERIFY_BYTES);
    }
    uint32_t count = 0;
    while (count < max && t->done.first) {
        out[count] = wf_nvme_queue_take(&t->done);
        wf_nvme_write_reaped(t, out[count++]);
        t->stats.in_flight--;
    }
    if (count)
        wf_nvme_log_step(t);
    signal_done(t);
    return count;
}

/* A write that has its place in the log is let through: its hole would cost more than its end. */
static void nvme_cancel(struct wf_tier *tier, struct wf_tier_request *request)
{
    struct wf_nvme *t = of(tier);
    if (wf_nvme_queue_remove(&t->waiting, request) || wf_nvme_queue_remove(&t->flushing, request) ||
        wf_nvme_queue_remove(&t->next_flush, request)) {
        wf_nvme_finish(t, request,
                       wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled", t->path));
        signal_done(t);
        return;
    }
    struct wf_nvme_io *io = (struct wf_nvme_io *)(uintptr_t)request->private[0];
    struct io_uring_sqe *sqe = io ? io_uring_get_sqe(&t->ring) : NULL;
    if (!sqe)
        return;
    io_uring_prep_cancel(sqe, io, 0);
    io_uring_sqe_set_data(sqe, NULL);
    io_uring_submit(&t->ring);
}

static int nvme_event(const struct wf_tier *tier)
{
    return of(tier)->event;
}

static bool nvme_find(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out)
{
    struct wf_nvme *t = of(tier);
    uint32_t item = wf_nvme_index_find(&t->index, key);
    if (item == WF_NVME_NONE)
        return false;
    if (out)
        wf_nvme_index_block(&t->index, item, out);
    return true;
}

static enum weft_status nvme_remove(struct wf_tier *tier, const uint8_t key[32])
{
    struct wf_nvme *t = of(tier);
    uint32_t item = wf_nvme_index_find(&t->index, key);
    if (item == WF_NVME_NONE)
        return WEFT_MISS;
    wf_nvme_forget(t, item);
    return WEFT_OK;
}

static void nvme_each(const struct wf_tier *tier,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context)
{
    wf_nvme_each(of(tier), found, context);
}

static void nvme_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    const struct wf_nvme *t = of(tier);
    *out = t->stats;
    out->capacity_bytes = (uint64_t)(t->segments - 1) * wf_nvme_room(t);
    out->block_bytes_max = wf_nvme_room(t) - WF_NVME_HEADER_MAX;
    out->blocks = t->index.table.count;
    out->queue_depth = t->queue_depth;
    out->failed = t->failed;
    out->claim = t->volume;
}

const struct wf_tier_ops wf_tier_nvme = {
    .name = "nvme",
    .open = nvme_open,
    .close = nvme_close,
    .submit = nvme_submit,
    .reap = nvme_reap,
    .cancel = nvme_cancel,
    .event = nvme_event,
    .find = nvme_find,
    .remove = nvme_remove,
    .each = nvme_each,
    .stats = nvme_stats,
};
