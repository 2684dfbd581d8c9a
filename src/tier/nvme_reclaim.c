/* SPDX-License-Identifier: Apache-2.0
 *
 * Space of the NVMe tier's log won back: of the closed segments the one with the least live bytes
 * is emptied (greedy; M. Rosenblum, J. Ousterhout, "The design and implementation of a
 * log-structured file system", TOCS 1992, discusses it), a batch of records at a time.
 *
 * A crash at any instruction leaves each record at its old place, at its new one, or at both; of
 * two with one sequence either will do.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

#define BUFFER_LEAST (8u << 20)

bool wf_nvme_reclaim_start(struct wf_nvme *t, uint64_t bytes)
{
    uint32_t victim = WF_NVME_NONE;
    for (uint32_t i = 0; i < t->segments; i++)
        if (t->segment[i].state == WF_NVME_SEGMENT_CLOSED &&
            (victim == WF_NVME_NONE || t->segment[i].live_bytes < t->segment[victim].live_bytes))
            victim = i;
    if (victim == WF_NVME_NONE || t->segment[victim].live_bytes + bytes > wf_nvme_room(t))
        return false;
    struct wf_nvme_reclaim *r = &t->reclaim;
    r->victim = victim;
    r->step = WF_NVME_READING;
    r->pending = r->count = r->next = r->moved_count = 0;
    r->aborted = false;
    t->segment[victim].state = WF_NVME_SEGMENT_VICTIM;
    return true;
}

static bool buffer_for(struct wf_nvme_reclaim *r, uint64_t bytes)
{
    if (bytes <= r->buffer_bytes)
        return true;
    if (r->buffer)
        munmap(r->buffer, r->buffer_bytes);
    r->buffer_bytes = bytes < BUFFER_LEAST ? BUFFER_LEAST : bytes;
    r->buffer = wf_nvme_pages(r->buffer_bytes, "moving records");
    if (!r->buffer)
        r->buffer_bytes = 0;
    return r->buffer != NULL;
}

static void read_batch(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    uint64_t used = 0;
    r->count = r->next = 0;
    for (uint32_t item = t->index.heads[r->victim];
         item != WF_NVME_NONE && r->count < WF_NVME_BATCH_MAX;
         item = t->index.items[item].list_next) {
        struct wf_nvme_moving *m = &r->batch[r->count];
        wf_nvme_index_block(&t->index, item, &m->block);
        m->bytes = wf_nvme_record_bytes(&m->block);
        if (r->count == 0 && !buffer_for(r, m->bytes)) {
            r->aborted = true;
            return;
        }
        if (m->bytes > r->buffer_bytes - used)
            break;
        struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_MOVE_READ);
        if (!io)
            break;
        m->page = t->index.items[item].page;
        m->sequence = t->index.items[item].sequence;
        m->at = r->buffer + used;
        m->good = false;
        used += m->bytes;
        io->segment = r->count++;
        io->offset = wf_nvme_segment_at(t, r->victim) + (uint64_t)m->page * WF_NVME_PAGE;
        io->vector[0] = (struct iovec){m->at, m->bytes};
        io->vectors = 1;
        r->pending++;
        wf_nvme_io_start(t, io);
    }
}

/* Is the block that was to move still there, at its old place? */
static uint32_t still_there(const struct wf_nvme *t, const struct wf_nvme_moving *m)
{
    uint32_t item = wf_nvme_index_find(&t->index, m->block.key);
    if (item != WF_NVME_NONE && (t->index.items[item].sequence != m->sequence ||
                                 t->index.items[item].segment != t->reclaim.victim))
        item = WF_NVME_NONE;
    return item;
}

/* Every byte is verified before it is written anew: rot must not be sealed by a fresh checksum. */
static bool verified(const struct wf_nvme *t, const struct wf_nvme_moving *m)
{
    const struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)m->at;
    uint32_t parts = wf_tier_parts(&m->block);
    const uint8_t *payload = m->at + wf_nvme_header_bytes(parts);
    if (!wf_nvme_sealed(record, WF_NVME_RECORD_MAGIC, wf_nvme_header_bytes(parts), t->volume) ||
        record->head.bytes != sizeof *record + parts * 8ull || record->sequence != m->sequence)
        return false;
    for (uint32_t i = 0; i < parts; i++)
        if (XXH3_64bits(payload + (uint64_t)i * m->block.part_bytes,
                        wf_tier_part_bytes(&m->block, i)) != record->sums[i])
            return false;
    return true;
}

static void move_read_end(struct wf_nvme *t, struct wf_nvme_moving *m, bool good)
{
    if (!good) {
        t->stats.errors++;
        t->reclaim.aborted = true;
        return;
    }
    m->good = verified(t, m);
    uint32_t item = still_there(t, m);
    if (!m->good && item != WF_NVME_NONE) {
        t->stats.corrupt++;
        wf_nvme_forget(t, item);
    }
}

static void move_write_end(struct wf_nvme *t, struct wf_nvme_moving *m, bool good)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    t->writer[m->writer].writes--;
    if (!good) {
        t->stats.errors++;
        wf_nvme_append_failed(t, m->writer, m->entry);
        r->aborted = true;
        return;
    }
    t->stats.moved_bytes += m->bytes;
    uint32_t item = still_there(t, m);
    if (item == WF_NVME_NONE) {
        wf_nvme_kill(t, m->to_segment, m->to_page);
        return;
    }
    r->moved[r->moved_count++] = (struct wf_nvme_origin){m->sequence, m->page};
    t->segment[r->victim].live_bytes -= m->bytes;
    t->segment[m->to_segment].live_bytes += m->bytes;
    wf_nvme_index_move(&t->index, item, m->to_segment, m->to_page);
}

void wf_nvme_reclaim_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    bool good = result >= 0 && (uint64_t)result == io->expected;
    r->pending--;
    if (io->kind == WF_NVME_IO_MOVE_READ)
        move_read_end(t, &r->batch[io->segment], good);
    else if (io->kind == WF_NVME_IO_MOVE_WRITE)
        move_write_end(t, &r->batch[io->segment], good);
    else if (!good)
        wf_nvme_fail(t, result < 0 ? -result : EIO, "a segment could not be given back");
    wf_nvme_io_put(t, io);
}

/* Returns false when it must go on later. */
static bool write_batch(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    for (; r->next < r->count; r->next++) {
        struct wf_nvme_moving *m = &r->batch[r->next];
        if (!m->good || still_there(t, m) == WF_NVME_NONE)
            continue;
        if (!wf_nvme_place(t, m->bytes, true, &m->writer))
            return false;
        struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_MOVE_WRITE);
        if (!io)
            return false;
        m->to_segment = t->writer[m->writer].segment;
        m->to_page = wf_nvme_append(t, m->writer, &m->block, m->sequence, m->bytes, &m->entry);
        struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)m->at;
        record->generation = t->segment[m->to_segment].generation;
        record->offset = wf_nvme_segment_at(t, m->to_segment) + (uint64_t)m->to_page * WF_NVME_PAGE;
        wf_nvme_seal(record, WF_NVME_RECORD_MAGIC, record->head.bytes, t->volume);
        io->write = true;
        io->order = t->next_order++;
        io->segment = r->next;
        io->offset = record->offset;
        io->vector[0] = (struct iovec){m->at, m->bytes};
        io->vectors = 1;
        r->pending++;
        wf_nvme_io_start(t, io);
    }
    return true;
}

static void free_header(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_FREE);
    if (!io)
        return;
    struct wf_nvme_segment header = {.number = r->victim,
                                     .generation = t->next_sequence++,
                                     .use = WF_NVME_FREE};
    wf_nvme_seal(&header, WF_NVME_SEGMENT_MAGIC, sizeof header, t->volume);
    memset(io->header, 0, WF_NVME_PAGE);
    memcpy(io->header, &header, sizeof header);
    t->segment[r->victim].state = WF_NVME_SEGMENT_FREEING;
    io->write = true;
    io->offset = wf_nvme_segment_at(t, r->victim);
    io->vector[0] = (struct iovec){io->header, WF_NVME_PAGE};
    io->vectors = 1;
    r->pending = 1;
    r->step = WF_NVME_HEADING;
    wf_nvme_io_start(t, io);
}

static void release(struct wf_nvme *t)
{
    struct wf_nvme_seg *s = &t->segment[t->reclaim.victim];
    if (s->readers || t->maps_pending)
        return;
    if (s->dirty) {
        s->dirty = false;
        t->dirty_count--;
    }
    s->state = WF_NVME_SEGMENT_FREE;
    t->free_count++;
    t->reclaim.step = WF_NVME_IDLE;
}

static void abort_step(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    if (r->pending)
        return;
    /* Copies and origins are both there; which of them outlives a crash is only settled by opening
     * the tier again. */
    wf_nvme_fail(t, EIO, "a segment could not be emptied");
    r->step = WF_NVME_IDLE;
}

/* The moves are in the log's order like any write: place, copy, sync; then the header, sync. */
void wf_nvme_reclaim_step(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    if (r->step != WF_NVME_IDLE && r->aborted) {
        abort_step(t);
        return;
    }
    if (r->step == WF_NVME_WRITING && write_batch(t) && !r->pending) {
        r->count = 0;
        r->step = WF_NVME_READING;
    }
    if (r->step == WF_NVME_READING && !r->pending) {
        if (r->count) {
            r->step = WF_NVME_WRITING;
            (void)write_batch(t);
        } else if (t->index.heads[r->victim] != WF_NVME_NONE) {
            read_batch(t);
        } else {
            r->sync = wf_nvme_sync_ticket(t);
            r->step = WF_NVME_SYNCING;
        }
    }
    if (r->step == WF_NVME_SYNCING && t->sync_done >= r->sync)
        free_header(t);
    else if (r->step == WF_NVME_HEADING && !r->pending) {
        r->sync = wf_nvme_sync_ticket(t);
        r->step = WF_NVME_RELEASING;
    } else if (r->step == WF_NVME_RELEASING && t->sync_done >= r->sync)
        release(t);
}
