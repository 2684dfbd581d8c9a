/* SPDX-License-Identifier: Apache-2.0
 *
 * Where records go in the log of the NVMe tier; closing segments, removal, flush.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "sys/clock.h"

#define MAPS_AT_A_TIME 16u
#define VICTIMS_MOST 16u /* emptied for a free segment, before what they won is used as it is */
#define FULL_TELL_MS 60000u
#define ERRORS_MAX 32u /* with no success between them, and the device is taken for gone */

enum closing_step { CLOSE_WRITES = 0, CLOSE_SYNC, CLOSE_FOOTER };
enum flush_step { FLUSH_IDLE = 0, FLUSH_WRITES, FLUSH_MAPS, FLUSH_SYNC };

void wf_nvme_queue_init(struct wf_nvme_queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

void wf_nvme_queue_add(struct wf_nvme_queue *queue, struct wf_tier_request *request)
{
    request->next = NULL;
    *queue->last = request;
    queue->last = &request->next;
}

struct wf_tier_request *wf_nvme_queue_take(struct wf_nvme_queue *queue)
{
    struct wf_tier_request *request = queue->first;
    if (!request)
        return NULL;
    queue->first = request->next;
    if (!queue->first)
        queue->last = &queue->first;
    return request;
}

bool wf_nvme_queue_remove(struct wf_nvme_queue *queue, struct wf_tier_request *request)
{
    for (struct wf_tier_request **link = &queue->first; *link; link = &(*link)->next) {
        if (*link != request)
            continue;
        *link = request->next;
        if (!*link)
            queue->last = link;
        return true;
    }
    return false;
}

void wf_nvme_finish(struct wf_nvme *t, struct wf_tier_request *request, enum weft_status status)
{
    request->status = status;
    request->private[0] = request->private[2] = 0;
    if (status == WEFT_OK && request->op == WF_TIER_READ) {
        t->stats.reads++;
        t->stats.read_bytes += request->bytes;
    } else {
        request->bytes = 0;
    }
    wf_nvme_queue_add(&t->done, request);
}

/* After a sync that failed nobody knows what is on the medium, so nothing more is promised. */
void wf_nvme_fail(struct wf_nvme *t, int error, const char *what)
{
    if (!t->failed)
        wf_error("nvme", "%s: %s: %s; the tier is out of use until it is opened again", t->path,
                 what, strerror(error));
    t->failed = true;
}

/* `why` is a sentence, and what the tier's state says from then on. */
void wf_nvme_fail_why(struct wf_nvme *t, const char *why)
{
    if (t->failed)
        return;
    wf_error("nvme", "%s: %s", t->path, why);
    snprintf(t->stats.why, sizeof t->stats.why, "%s", why);
    t->failed = true;
}

bool wf_nvme_no_space(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

/* The room of a file was set aside, but not every file system keeps to that. */
static void full_say(struct wf_nvme *t)
{
    uint64_t now_ms = wf_now_ms();
    if (t->full_told_ms && now_ms - t->full_told_ms < FULL_TELL_MS)
        return;
    t->full_told_ms = now_ms;
    wf_warn("nvme",
            "%s: a write found no room, because the file system is full; nothing is lost for that, "
            "but what is new goes elsewhere or nowhere until somebody makes room there",
            t->path);
}

void wf_nvme_trouble(struct wf_nvme *t, int result)
{
    if (wf_nvme_no_space(result)) {
        full_say(t);
        return;
    }
    t->stats.errors++;
    if (result == -ENODEV || result == -ENXIO)
        wf_nvme_fail(t, -result, "the device is gone");
    else if (++t->errors_in_a_row == ERRORS_MAX)
        wf_nvme_fail(t, result < 0 ? -result : EIO, "it answers nothing but errors");
}

static struct wf_nvme_sums *sums_line(const struct wf_nvme *t, uint32_t segment, uint32_t page)
{
    return &t->sums[(((uint64_t)segment << 14) + page) * 0x9e3779b97f4a7c15u % t->sums_count];
}

void wf_nvme_sums_keep(struct wf_nvme *t, uint32_t segment, uint32_t page, uint64_t generation,
                       const uint64_t *sums, uint32_t parts)
{
    if (parts > WF_NVME_SUMS_LINE)
        return;
    struct wf_nvme_sums *line = sums_line(t, segment, page);
    line->generation = generation;
    line->segment = segment;
    line->page = page;
    memcpy(line->sums, sums, parts * sizeof *sums);
}

bool wf_nvme_sums_find(const struct wf_nvme *t, uint32_t segment, uint32_t page,
                       uint64_t generation, uint64_t *out, uint32_t parts)
{
    const struct wf_nvme_sums *line = sums_line(t, segment, page);
    if (parts > WF_NVME_SUMS_LINE || line->generation != generation || line->segment != segment ||
        line->page != page)
        return false;
    memcpy(out, line->sums, parts * sizeof *out);
    return true;
}

uint64_t wf_nvme_sync_ticket(struct wf_nvme *t)
{
    t->sync_wanted = t->sync_started + 1;
    return t->sync_wanted;
}

/* --------------------------------------------------------------------------------------- place */

static bool activate(struct wf_nvme *t, enum wf_nvme_stream stream)
{
    uint32_t w = 0;
    while (w < WF_NVME_OPEN_MAX && t->writer[w].segment != WF_NVME_NONE)
        w++;
    if (w == WF_NVME_OPEN_MAX)
        return false;
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_HEADER);
    if (!io)
        return false;
    uint32_t segment = t->free_hint;
    while (t->segment[segment].state != WF_NVME_SEGMENT_FREE || t->segment[segment].readers)
        segment = (segment + 1) % t->segments;
    t->free_hint = (segment + 1) % t->segments;
    t->free_count--;
    wf_nvme_discard_unmark(t, segment);
    struct wf_nvme_seg *s = &t->segment[segment];
    *s = (struct wf_nvme_seg){.generation = t->next_sequence++,
                              .dead_serial = s->dead_serial,
                              .state = WF_NVME_SEGMENT_OPEN};
    memset(t->dead + (uint64_t)segment * t->dead_words, 0, t->dead_words * 8);
    uint8_t *footer = t->writer[w].footer;
    t->writer[w] = (struct wf_nvme_writer){.segment = segment,
                                           .used = WF_NVME_RECORDS_AT,
                                           .held = WF_NVME_NONE,
                                           .footer = footer};
    t->active[stream] = w;
    if (stream == WF_NVME_NEW)
        t->reclaim.in_vain = 0;

    struct wf_nvme_segment header = {.number = segment,
                                     .generation = s->generation,
                                     .use = WF_NVME_USED};
    wf_nvme_seal(&header, WF_NVME_SEGMENT_MAGIC, sizeof header, t->volume);
    memset(io->header, 0, WF_NVME_PAGE);
    memcpy(io->header, &header, sizeof header);
    io->write = true;
    io->writer = w;
    io->offset = wf_nvme_segment_at(t, segment);
    io->vector[0] = (struct iovec){io->header, WF_NVME_PAGE};
    io->vectors = 1;
    wf_nvme_io_start(t, io);
    return true;
}

void wf_nvme_close_active(struct wf_nvme *t, enum wf_nvme_stream stream)
{
    if (t->active[stream] == WF_NVME_NONE)
        return;
    t->segment[t->writer[t->active[stream]].segment].state = WF_NVME_SEGMENT_CLOSING;
    t->active[stream] = WF_NVME_NONE;
}

static bool fits(const struct wf_nvme *t, enum wf_nvme_stream stream, uint64_t bytes)
{
    if (t->active[stream] == WF_NVME_NONE)
        return false;
    const struct wf_nvme_writer *w = &t->writer[t->active[stream]];
    return !w->holes && w->used + bytes + wf_nvme_footer_bytes(w->count + 1) <= t->segment_bytes;
}

bool wf_nvme_settling(const struct wf_nvme *t, enum wf_nvme_stream stream)
{
    if (t->active[stream] == WF_NVME_NONE)
        return false;
    const struct wf_nvme_writer *w = &t->writer[t->active[stream]];
    return w->holes && w->writes;
}

/* The last free segment is the reserve that moves go to, and until another is free, it is theirs
 * alone: a victim's records always fit into one empty segment, also when a crash came between. */
bool wf_nvme_place(struct wf_nvme *t, uint64_t bytes, bool moving, uint32_t *out_writer)
{
    enum wf_nvme_stream stream = wf_nvme_stream_of(t, moving);
    if (wf_nvme_settling(t, stream) || (!moving && t->free_count == 0))
        return false;
    if (!fits(t, stream, bytes)) {
        if (t->free_count <= (moving ? 0u : 1u))
            return false;
        uint32_t before = t->active[stream];
        wf_nvme_close_active(t, stream);
        if (!activate(t, stream)) {
            t->active[stream] = before;
            if (before != WF_NVME_NONE)
                t->segment[t->writer[before].segment].state = WF_NVME_SEGMENT_OPEN;
            return false;
        }
    }
    *out_writer = t->active[stream];
    return true;
}

uint32_t wf_nvme_append(struct wf_nvme *t, uint32_t writer, const struct wf_tier_block *block,
                        uint64_t sequence, uint64_t bytes, uint32_t *out_entry)
{
    struct wf_nvme_writer *w = &t->writer[writer];
    struct wf_nvme_entry entry;
    wf_nvme_entry_make(&entry, block, sequence, (uint32_t)(w->used / WF_NVME_PAGE));
    memcpy(w->footer + w->count * sizeof entry, &entry, sizeof entry);
    *out_entry = w->count++;
    w->used += bytes;
    w->writes++;
    return entry.page;
}

void wf_nvme_append_failed(struct wf_nvme *t, uint32_t writer, uint32_t entry)
{
    struct wf_nvme_writer *w = &t->writer[writer];
    struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)w->footer;
    entries[entry].bytes = 0;
    w->holes++;
    while (w->count && entries[w->count - 1].bytes == 0) {
        w->used = (uint64_t)entries[--w->count].page * WF_NVME_PAGE;
        w->holes--;
    }
}

/* -------------------------------------------------------------------------------------- remove */

void wf_nvme_kill(struct wf_nvme *t, uint32_t segment, uint32_t page)
{
    uint64_t *map = t->dead + (uint64_t)segment * t->dead_words;
    uint32_t bit = page / (WF_NVME_RECORD_MIN / WF_NVME_PAGE);
    map[bit / 64] |= 1ull << bit % 64;
    if (!t->segment[segment].dirty) {
        t->segment[segment].dirty = true;
        t->dirty_count++;
    }
}

void wf_nvme_forget(struct wf_nvme *t, uint32_t item)
{
    const struct wf_nvme_item *i = &t->index.items[item];
    struct wf_tier_block block;
    wf_nvme_index_block(&t->index, item, &block);
    wf_nvme_kill(t, i->segment, i->page);
    t->segment[i->segment].live_bytes -= wf_nvme_record_bytes(&block);
    wf_nvme_reclaim_look(t, i->segment);
    t->stats.used_bytes -= wf_nvme_record_bytes(&block);
    const struct wf_nvme_reclaim *r = &t->reclaim;
    for (uint32_t o = 0; r->step != WF_NVME_IDLE && o < r->origins_count; o++)
        if (r->origins[o].moved && r->origins[o].to_segment == i->segment &&
            r->origins[o].to_page == i->page)
            wf_nvme_kill(t, r->victim, r->origins[o].page);
    wf_nvme_index_remove(&t->index, item);
}

/* --------------------------------------------------------------------------------------- write */

static void write_header(struct wf_nvme *t, struct wf_nvme_io *io, const uint64_t *sums)
{
    const struct wf_tier_block *block = &io->block;
    struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)io->header;
    uint32_t parts = wf_tier_parts(block);
    memset(io->header, 0, io->header_bytes);
    record->generation = t->segment[io->segment].generation;
    record->offset = wf_nvme_segment_at(t, io->segment) + (uint64_t)io->page * WF_NVME_PAGE;
    record->sequence = io->sequence;
    record->bytes = block->bytes;
    memcpy(record->key, block->key, 32);
    memcpy(record->parent, block->parent, 32);
    memcpy(record->format, block->format, 32);
    record->depth = block->depth;
    record->part_bytes = block->part_bytes;
    record->plain_bytes = block->plain_bytes;
    record->plain_part_bytes = block->plain_part_bytes;
    record->plain_quality = block->plain_quality;
    if (sums)
        memcpy(record->sums, sums, parts * sizeof *sums);
    else
        wf_nvme_sum(block, io->request->data, record->sums);
    wf_nvme_seal(record, WF_NVME_RECORD_MAGIC, (uint32_t)(sizeof *record + parts * 8ull),
                 t->volume);
    io->offset = record->offset;
}

/* WEFT_PENDING: no place now. */
enum weft_status wf_nvme_write_start(struct wf_nvme *t, struct wf_tier_request *request,
                                     const uint64_t *sums)
{
    uint64_t bytes = wf_nvme_record_bytes(&request->block);
    uint32_t writer;
    if (!wf_nvme_place(t, bytes, false, &writer))
        return WEFT_PENDING;
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_WRITE);
    if (!io)
        return WEFT_PENDING;
    io->request = request;
    io->block = request->block;
    io->sequence = t->next_sequence++;
    io->order = t->next_order++;
    io->writer = writer;
    io->segment = t->writer[writer].segment;
    io->header_bytes = wf_nvme_header_bytes(wf_tier_parts(&io->block));
    io->page = wf_nvme_append(t, writer, &io->block, io->sequence, bytes, &io->entry);
    write_header(t, io, sums);
    uint64_t whole = io->block.bytes / WF_NVME_PAGE * WF_NVME_PAGE, rest = io->block.bytes - whole;
    io->write = true;
    io->vector[io->vectors++] = (struct iovec){io->header, io->header_bytes};
    if (whole)
        io->vector[io->vectors++] = (struct iovec){request->data, whole};
    if (rest) {
        /* What lies behind the payload in the caller's page is not ours to write. */
        memcpy(io->tail, (const uint8_t *)request->data + whole, rest);
        memset(io->tail + rest, 0, WF_NVME_PAGE - rest);
        io->vector[io->vectors++] = (struct iovec){io->tail, WF_NVME_PAGE};
    }
    wf_nvme_io_start(t, io);
    return WEFT_OK;
}

static enum weft_status write_failed(const struct wf_nvme *t, int result)
{
    if (wf_nvme_no_space(result))
        return wf_fail(WEFT_FULL, "tier %s: its file system is full; make room there", t->path);
    return wf_fail(WEFT_E_SYSTEM, "tier %s: a write failed: %s; look at the device", t->path,
                   result < 0 ? strerror(-result) : "it was cut short");
}

/* A record is in the index when its request is reaped, and its segment counts it as under way until
 * then, so that it is not emptied of what nobody can see yet. */
void wf_nvme_write_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    struct wf_tier_request *request = io->request;
    if (result < 0 || (uint64_t)result != io->expected) {
        t->writer[io->writer].writes--;
        wf_nvme_append_failed(t, io->writer, io->entry);
        wf_nvme_finish(t, request, write_failed(t, result));
    } else {
        const struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)io->header;
        wf_nvme_sums_keep(t, io->segment, io->page, record->generation, record->sums,
                          wf_tier_parts(&io->block));
        wf_nvme_finish(t, request, WEFT_OK);
        request->private[2] = (uint64_t)io->segment << 32 | io->page;
        request->private[3] = io->writer;
    }
    wf_nvme_io_put(t, io);
}

void wf_nvme_write_reaped(struct wf_nvme *t, struct wf_tier_request *request)
{
    const struct wf_tier_block *block = &request->block;
    uint32_t segment = (uint32_t)(request->private[2] >> 32);
    uint32_t page = (uint32_t)request->private[2];
    if (request->op != WF_TIER_WRITE || !request->private[2])
        return;
    t->writer[request->private[3]].writes--;
    if (wf_nvme_index_find(&t->index, block->key) != WF_NVME_NONE) {
        wf_nvme_kill(t, segment, page); /* another write of it was quicker */
        request->status = WEFT_EXISTS;
    } else if (wf_nvme_index_insert(&t->index, block, segment, page) == WF_NVME_NONE) {
        wf_nvme_kill(t, segment, page);
        request->status = wf_fail(WEFT_FULL, "tier %s: its index is full at %u blocks; remove some",
                                  t->path, t->index.table.count);
    } else {
        uint64_t bytes = wf_nvme_record_bytes(block);
        t->segment[segment].live_bytes += bytes;
        t->stats.used_bytes += bytes;
        request->bytes = block->bytes;
        t->stats.writes++;
        t->stats.write_bytes += block->bytes;
    }
}

/* ------------------------------------------------------------------------- closing, flush, sync */

bool wf_nvme_hold(struct wf_nvme *t, struct wf_nvme_io *io, int *result)
{
    if (io->kind != WF_NVME_IO_WRITE && io->kind != WF_NVME_IO_MOVE_WRITE)
        return false;
    struct wf_nvme_writer *w = &t->writer[io->writer];
    if (w->broken)
        *result = w->broken;
    if (w->ready || w->broken)
        return false;
    io->result = *result;
    io->next = w->held;
    w->held = (uint32_t)(io - t->ios);
    return true;
}

/* Its header could not be written, and no record is in it any more. */
static void not_begun(struct wf_nvme *t, struct wf_nvme_writer *w)
{
    bool full = wf_nvme_no_space(w->broken);
    if (!full)
        wf_warn("nvme", "%s: segment %u cannot be written; it is not used any more", t->path,
                w->segment);
    t->segment[w->segment].state = full ? WF_NVME_SEGMENT_FREE : WF_NVME_SEGMENT_BAD;
    t->free_count += full;
    t->no_space |= full;
    w->segment = WF_NVME_NONE;
}

/* Without its footer a segment is found again by its records, up to the first that is not whole. */
static void footer_end(struct wf_nvme *t, struct wf_nvme_writer *w, int result, bool bad)
{
    struct wf_nvme_seg *s = &t->segment[w->segment];
    if (bad && w->holes)
        wf_nvme_fail(t, result < 0 ? -result : EIO,
                     "the footer of a segment that needs one could not be written");
    if (bad)
        s->entries = 0;
    s->state = WF_NVME_SEGMENT_CLOSED;
    s->closed = ++t->closed_count;
    wf_nvme_reclaim_look(t, w->segment);
    w->segment = WF_NVME_NONE;
}

void wf_nvme_log_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    bool bad = result < 0 || (uint64_t)result != io->expected;
    struct wf_nvme_writer *w = &t->writer[io->writer];
    switch (io->kind) {
    case WF_NVME_IO_HEADER:
        w->ready = !bad;
        for (uint32_t s = 0; bad && s < WF_NVME_STREAMS; s++)
            if (t->active[s] == io->writer)
                t->active[s] = WF_NVME_NONE;
        w->broken = !bad ? 0 : result < 0 ? result : -EIO;
        break;
    case WF_NVME_IO_FOOTER: footer_end(t, w, bad ? result : 0, bad); break;
    case WF_NVME_IO_MAP:
        /* A removal need not outlive a crash; the next flush tries again. */
        t->maps_pending--;
        if (bad && !t->segment[io->segment].dirty) {
            t->segment[io->segment].dirty = true;
            t->dirty_count++;
        }
        break;
    default:
        t->sync_running = false;
        /* Durable is what a restart finds. */
        wf_nvme_medium_look(t);
        if (bad)
            wf_nvme_fail(t, result < 0 ? -result : EIO, "fdatasync failed");
        else if (!t->failed)
            t->sync_done = t->sync_started;
        break;
    }
    wf_nvme_io_put(t, io);
}

static void close_step(struct wf_nvme *t, uint32_t writer)
{
    struct wf_nvme_writer *w = &t->writer[writer];
    if (w->segment != WF_NVME_NONE && w->broken && w->writes == 0)
        not_begun(t, w);
    if (w->segment == WF_NVME_NONE || t->segment[w->segment].state != WF_NVME_SEGMENT_CLOSING)
        return;
    if (w->step == CLOSE_WRITES && w->writes == 0 && w->ready) {
        w->sync = wf_nvme_sync_ticket(t);
        w->step = CLOSE_SYNC;
    }
    if (w->step != CLOSE_SYNC || t->sync_done < w->sync)
        return;
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_FOOTER);
    if (!io)
        return;
    uint64_t bytes;
    io->offset = wf_nvme_footer_make(t, w->footer, w->segment, w->count, &bytes);
    io->write = true;
    io->writer = writer;
    io->vector[0] = (struct iovec){w->footer, bytes};
    io->vectors = 1;
    w->step = CLOSE_FOOTER;
    wf_nvme_io_start(t, io);
}

static bool writes_before(const struct wf_nvme *t, uint64_t barrier)
{
    for (uint32_t i = 0; i < t->ios_count; i++) {
        enum wf_nvme_io_kind kind = t->ios[i].kind;
        if ((kind == WF_NVME_IO_WRITE || kind == WF_NVME_IO_MOVE_WRITE) &&
            t->ios[i].order < barrier)
            return true;
    }
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++)
        if (t->writer[i].segment != WF_NVME_NONE && t->writer[i].holes)
            return true;
    return false;
}

static void map_write(struct wf_nvme *t, struct wf_nvme_io *io, uint32_t segment)
{
    struct wf_nvme_seg *s = &t->segment[segment];
    struct wf_nvme_dead dead = {.number = segment,
                                .generation = s->generation,
                                .serial = ++s->dead_serial};
    memcpy(dead.bits, t->dead + (uint64_t)segment * t->dead_words, t->dead_words * 8);
    wf_nvme_seal(&dead, WF_NVME_DEAD_MAGIC, sizeof dead, t->volume);
    memset(io->header, 0, WF_NVME_PAGE);
    memcpy(io->header, &dead, sizeof dead);
    s->dirty = false;
    t->dirty_count--;
    t->maps_pending++;
    io->write = true;
    io->segment = segment;
    io->offset = wf_nvme_segment_at(t, segment) + WF_NVME_PAGE * (1 + (s->dead_serial & 1));
    io->vector[0] = (struct iovec){io->header, WF_NVME_PAGE};
    io->vectors = 1;
    wf_nvme_io_start(t, io);
}

/* Returns true when every dead map that was dirty is written. */
static bool maps_step(struct wf_nvme *t)
{
    while (t->dirty_count && t->map_next < t->segments) {
        if (t->segment[t->map_next].dirty) {
            struct wf_nvme_io *io = t->maps_pending < MAPS_AT_A_TIME
                                        ? wf_nvme_io_get(t, WF_NVME_IO_MAP)
                                        : NULL;
            if (!io)
                return false;
            map_write(t, io, t->map_next);
        }
        t->map_next++;
    }
    return t->maps_pending == 0;
}

static void flush_step(struct wf_nvme *t)
{
    if (t->flush_step == FLUSH_IDLE && t->next_flush.first) {
        t->flushing.first = t->next_flush.first;
        t->flushing.last = t->next_flush.last;
        wf_nvme_queue_init(&t->next_flush);
        t->flush_barrier = t->next_order;
        t->flush_step = FLUSH_WRITES;
    }
    if (t->flush_step == FLUSH_WRITES && !writes_before(t, t->flush_barrier)) {
        t->map_next = 0;
        t->flush_step = FLUSH_MAPS;
    }
    if (t->flush_step == FLUSH_MAPS && maps_step(t)) {
        t->flush_sync = wf_nvme_sync_ticket(t);
        t->flush_step = FLUSH_SYNC;
    }
    if (t->flush_step == FLUSH_SYNC && t->sync_done >= t->flush_sync) {
        struct wf_tier_request *request;
        while ((request = wf_nvme_queue_take(&t->flushing)))
            wf_nvme_finish(t, request, WEFT_OK);
        t->flush_step = FLUSH_IDLE;
    }
}

static void sync_step(struct wf_nvme *t)
{
    if (t->sync_running || t->sync_wanted <= t->sync_started)
        return;
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_SYNC);
    if (!io)
        return;
    t->sync_running = true;
    t->sync_started++;
    wf_nvme_io_start(t, io);
}

static bool closing(const struct wf_nvme *t)
{
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++)
        if (t->writer[i].segment != WF_NVME_NONE && i != t->active[WF_NVME_NEW] &&
            i != t->active[WF_NVME_MOVED])
            return true;
    return false;
}

/* What moved last does not fill its segment, and nothing else has room: new records go there. */
static bool share(struct wf_nvme *t, uint64_t bytes)
{
    if (!fits(t, WF_NVME_MOVED, bytes))
        return false;
    wf_nvme_close_active(t, WF_NVME_NEW);
    t->active[WF_NVME_NEW] = t->active[WF_NVME_MOVED];
    t->active[WF_NVME_MOVED] = WF_NVME_NONE;
    return true;
}

/* Is enough of an open segment dead, or will be known to be, to make it the next victim? */
static bool give_up_open(struct wf_nvme *t, enum wf_nvme_stream stream, uint64_t bytes)
{
    if (t->active[stream] == WF_NVME_NONE)
        return false;
    const struct wf_nvme_writer *w = &t->writer[t->active[stream]];
    if (t->segment[w->segment].live_bytes + bytes > wf_nvme_room(t) || w->writes)
        return w->writes != 0;
    wf_nvme_close_active(t, stream);
    return true;
}

/* Is there room to come for the first that waits? */
static bool make_room(struct wf_nvme *t, uint64_t bytes)
{
    if (wf_nvme_settling(t, WF_NVME_NEW))
        return true;
    if (t->no_space)
        return false;
    t->reclaim.ahead = false;
    if (t->reclaim.step != WF_NVME_IDLE)
        return true;
    /* After so many more it is tried again whether they become a free segment. */
    if (t->reclaim.in_vain / VICTIMS_MOST % 2 && t->free_count && share(t, bytes))
        return true;
    if (wf_nvme_reclaim_start(t, bytes) || closing(t))
        return true;
    if (t->free_count == 0)
        return false;
    return share(t, bytes) || give_up_open(t, WF_NVME_NEW, bytes) ||
           give_up_open(t, WF_NVME_MOVED, bytes);
}

static void waiting_step(struct wf_nvme *t)
{
    while (t->waiting.first) {
        struct wf_tier_request *request = t->waiting.first;
        if (wf_nvme_write_start(t, request, NULL) == WEFT_PENDING) {
            if (make_room(t, wf_nvme_record_bytes(&request->block)))
                return;
            (void)wf_nvme_queue_take(&t->waiting);
            wf_nvme_finish(t, request,
                           wf_fail(WEFT_FULL,
                                   "tier %s: full, and nothing can be reclaimed; remove "
                                   "blocks",
                                   t->path));
            continue;
        }
        /* It is the ring's now; finishing links it anew. */
        (void)wf_nvme_queue_take(&t->waiting);
    }
    t->reclaim.resting = t->no_space = false;
}

void wf_nvme_log_step(struct wf_nvme *t)
{
    if (t->failed) {
        struct wf_nvme_queue *queues[] = {&t->waiting, &t->flushing, &t->next_flush};
        for (uint32_t i = 0; i < 3; i++) {
            struct wf_tier_request *request;
            while ((request = wf_nvme_queue_take(queues[i])))
                wf_nvme_finish(t, request, WEFT_E_SYSTEM);
        }
        return;
    }
    for (uint32_t s = 0; s < WF_NVME_STREAMS; s++)
        if (t->active[s] != WF_NVME_NONE && t->writer[t->active[s]].holes &&
            !t->writer[t->active[s]].writes)
            wf_nvme_close_active(t, s);
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++)
        close_step(t, i);
    wf_nvme_reclaim_step(t);
    waiting_step(t);
    wf_nvme_reclaim_ahead(t);
    flush_step(t);
    sync_step(t);
    wf_nvme_discard_step(t);
}

bool wf_nvme_log_idle(const struct wf_nvme *t)
{
    if (t->ios_busy)
        return false;
    return t->failed || (!closing(t) && t->flush_step == FLUSH_IDLE && !t->next_flush.first &&
                         !t->waiting.first && t->reclaim.step == WF_NVME_IDLE);
}
