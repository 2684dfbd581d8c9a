/* SPDX-License-Identifier: Apache-2.0
 *
 * Space of the NVMe tier's log won back: a closed segment is emptied, a batch of records at a time.
 *
 * What moves has outlived what was written with it and will live on, so it goes to a segment of its
 * own, and of the closed segments one is emptied that wins much for what it costs, the sooner the
 * longer nothing new came into it (M. Rosenblum, J. Ousterhout, "The design and implementation of a
 * log-structured file system", TOCS 1992).  Age counts with its square root here, as that does
 * better where the least recently used goes.  Age is counted in segments that were closed, and
 * those that were there when the tier was opened are all alike.
 *
 * With fewer than WF_NVME_APART_LEAST segments the part of the tier that a second open segment
 * takes costs more than it saves.  Then moved records go where new ones go, and the segment with
 * the least live bytes is emptied, which is called greedy.  Device writes a write, as
 * test/unit/tier_nvme_reclaim.c measures them with the tier's own choice on every run; greedy, and
 * kept apart with age:
 *
 *     live of the capacity                             75 %          85 %          92 %
 *     the least recently used goes (as the node does)  1.29  1.30    1.41  1.40    3.57  2.08
 *     nine of ten removals hit a tenth of the blocks   2.93  1.72    4.32  2.52    7.01  4.20
 *     any block goes, all alike                        2.15  2.18    3.37  3.47    5.91  6.23
 *
 * It is done when a write waits for room; and ahead of that when few segments are free, nothing
 * waits, and a segment is half dead or more, which at 85 % costs 3 % more device writes where it is
 * always so.  While reads are under way, what is done ahead moves one record every PACE_MS: a read
 * finds one I/O before it, not a batch.
 *
 * A crash at any instruction leaves each record at its old place, at its new one, or at both; of
 * two with one sequence either will do.
 */
#include "tier/nvme_log.h"

#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "sys/clock.h"

#define BUFFER_LEAST (8u << 20)
#define AHEAD_PART 32u         /* one of so many segments is kept free ahead of need, */
#define AHEAD_LEAST 2u         /* but at least these, of which one is the reserve, */
#define AHEAD_MOST 64u         /* and no more than so many */
#define AHEAD_BYTES (2u << 20) /* moved at a time then */
#define PACE_MS 20u
#define REST_MS 10000u /* after a reclaim that could not be done */

static void add_origin(struct wf_nvme *t, uint32_t item)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    if (r->origins_count < t->segment_bytes / WF_NVME_RECORD_MIN)
        r->origins[r->origins_count++] = (struct wf_nvme_origin){
            .item = item,
            .page = t->index.items[item].page,
        };
}

/* The long way, over all blocks: for a victim whose footer is missing or rotten. */
static void list_by_index(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    r->listed_by_index = true;
    for (uint32_t i = 0; i < t->index.items_used; i++)
        if (t->index.items[i].bytes && t->index.items[i].segment == r->victim)
            add_origin(t, i);
}

static void list_end(struct wf_nvme *t, bool good)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    const struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)r->footer;
    uint32_t count = t->segment[r->victim].entries;
    struct wf_nvme_footer footer;
    memcpy(&footer, r->footer + wf_nvme_footer_bytes(count) - WF_NVME_PAGE, sizeof footer);
    r->step = WF_NVME_READING;
    if (!good || !wf_nvme_footer_right(t, &footer, r->victim) || footer.count != count ||
        !wf_nvme_entries_right(t, &footer, r->footer)) {
        list_by_index(t);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t item = wf_nvme_index_find_at(&t->index, entries[i].key, r->victim,
                                              entries[i].page);
        if (item != WF_NVME_NONE)
            add_origin(t, item);
    }
}

static void list_start(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    uint32_t entries = t->segment[r->victim].entries;
    struct wf_nvme_io *io = entries ? wf_nvme_io_get(t, WF_NVME_IO_LIST) : NULL;
    if (!io) {
        list_by_index(t);
        return;
    }
    uint64_t bytes = wf_nvme_footer_bytes(entries);
    io->offset = wf_nvme_segment_at(t, r->victim) + t->segment_bytes - bytes;
    io->vector[0] = (struct iovec){r->footer, bytes};
    io->vectors = 1;
    r->pending = 1;
    r->step = WF_NVME_LISTING;
    wf_nvme_io_start(t, io);
}

static void begin(struct wf_nvme *t, uint32_t victim, bool ahead)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    r->victim = victim;
    r->ahead = ahead;
    r->step = WF_NVME_READING;
    r->pending = r->count = r->next = r->origins_count = r->origins_next = 0;
    r->aborted = r->listed_by_index = false;
    t->segment[victim].state = WF_NVME_SEGMENT_VICTIM;
    if (t->segment[victim].live_bytes)
        list_start(t);
}

/* Would there be room for so much behind what the segment has, moved to another one with a footer
 * for all of it?  Otherwise it would be moved for nothing, and again. */
static bool makes_room(const struct wf_nvme *t, uint32_t segment, uint64_t bytes)
{
    const struct wf_nvme_seg *s = &t->segment[segment];
    uint64_t entries = s->live_bytes / WF_NVME_RECORD_MIN; /* at most, */
    if (s->entries && s->entries < entries)
        entries = s->entries; /* and no more than there were */
    return WF_NVME_RECORDS_AT + s->live_bytes + bytes + wf_nvme_footer_bytes(entries + 1) <=
           t->segment_bytes;
}

/* The higher, the sooner.  Without a free segment only the least will surely fit into what is open,
 * and records that are not kept apart have no age. */
static double worth(const struct wf_nvme *t, const struct wf_nvme_seg *s)
{
    double room = (double)wf_nvme_room(t), live = (double)s->live_bytes;
    double won = (room - live) / (room + live);
    if (wf_nvme_stream_of(t, true) == WF_NVME_NEW || t->free_count == 0)
        return won;
    return won * won * (double)(t->closed_count - s->closed + 1);
}

static uint32_t choose(const struct wf_nvme *t, uint64_t bytes, uint64_t live_max)
{
    uint32_t victim = WF_NVME_NONE;
    double most = 0;
    for (uint32_t i = 0; i < t->segments; i++) {
        const struct wf_nvme_seg *s = &t->segment[i];
        if (s->state != WF_NVME_SEGMENT_CLOSED || s->stuck || s->live_bytes > live_max ||
            !makes_room(t, i, bytes))
            continue;
        double now = worth(t, s);
        if (victim != WF_NVME_NONE && now <= most)
            continue;
        victim = i;
        most = now;
    }
    return victim;
}

uint32_t wf_nvme_reclaim_victim(const struct wf_nvme *t, uint64_t bytes)
{
    return choose(t, bytes, t->segment_bytes);
}

bool wf_nvme_reclaim_start(struct wf_nvme *t, uint64_t bytes)
{
    uint32_t victim = t->reclaim.resting ? WF_NVME_NONE : wf_nvme_reclaim_victim(t, bytes);
    if (victim == WF_NVME_NONE)
        return false;
    begin(t, victim, false);
    t->reclaim.in_vain++;
    return true;
}

/* ------------------------------------------------------------------------------- ahead of need */

static uint64_t ahead_live_max(const struct wf_nvme *t)
{
    return wf_nvme_room(t) / 2;
}

void wf_nvme_reclaim_look(struct wf_nvme *t, uint32_t segment)
{
    const struct wf_nvme_seg *s = &t->segment[segment];
    t->reclaim.look |= s->state == WF_NVME_SEGMENT_CLOSED && !s->stuck &&
                       s->live_bytes <= ahead_live_max(t);
}

void wf_nvme_reclaim_ahead(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    uint32_t kept = t->segments / AHEAD_PART;
    kept = kept < AHEAD_LEAST ? AHEAD_LEAST : kept > AHEAD_MOST ? AHEAD_MOST : kept;
    if (r->step != WF_NVME_IDLE || !r->look || t->free_count >= kept || t->free_count == 0 ||
        t->waiting.first || t->leaving || (r->rest_ms && wf_now_ms() < r->rest_ms))
        return;
    uint32_t victim = choose(t, 0, ahead_live_max(t));
    r->look = victim != WF_NVME_NONE;
    if (r->look)
        begin(t, victim, true);
}

/* How many records may be read now; they make way for those that someone asked for. */
static uint32_t batch_max(struct wf_nvme_reclaim *r, uint32_t readers)
{
    if (!r->ahead || !readers)
        return WF_NVME_BATCH_MAX;
    uint64_t now_ms = wf_now_ms();
    if (now_ms < r->next_ms)
        return 0;
    r->next_ms = now_ms + PACE_MS;
    return 1;
}

/* ---------------------------------------------------------------------------------------- moves */

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

/* Is the block that was listed still there, at its old place? */
static bool still_there(const struct wf_nvme *t, const struct wf_nvme_origin *origin)
{
    const struct wf_nvme_item *item = &t->index.items[origin->item];
    return item->bytes && item->segment == t->reclaim.victim && item->page == origin->page;
}

static void read_batch(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    uint64_t used = 0, room;
    uint32_t most = batch_max(r, t->readers);
    r->count = r->next = 0;
    for (; r->origins_next < r->origins_count && r->count < most; r->origins_next++) {
        const struct wf_nvme_origin *origin = &r->origins[r->origins_next];
        struct wf_nvme_moving *m = &r->batch[r->count];
        if (!still_there(t, origin))
            continue;
        wf_nvme_index_block(&t->index, origin->item, &m->block);
        m->bytes = wf_nvme_record_bytes(&m->block);
        if (r->count == 0 && !buffer_for(r, m->bytes)) {
            r->aborted = r->resting = true;
            return;
        }
        room = r->ahead && r->count && r->buffer_bytes > AHEAD_BYTES ? AHEAD_BYTES
                                                                     : r->buffer_bytes;
        if (used > room || m->bytes > room - used)
            return;
        struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_MOVE_READ);
        if (!io)
            return;
        m->origin = r->origins_next;
        m->at = r->buffer + used;
        m->good = false;
        used += m->bytes;
        io->segment = r->count++;
        io->offset = wf_nvme_segment_at(t, r->victim) + (uint64_t)origin->page * WF_NVME_PAGE;
        io->vector[0] = (struct iovec){m->at, m->bytes};
        io->vectors = 1;
        r->pending++;
        wf_nvme_io_start(t, io);
    }
}

/* Every byte is verified before it is written anew: rot must not be sealed by a fresh checksum.
 * The block is the record's own word from here on, its parent too. */
static bool verified(const struct wf_nvme *t, struct wf_nvme_moving *m)
{
    const struct wf_nvme_reclaim *r = &t->reclaim;
    struct wf_tier_block block;
    uint64_t at = (uint64_t)r->origins[m->origin].page * WF_NVME_PAGE;
    const struct wf_nvme_record *record = wf_nvme_record_at(t, r->victim, at, m->at, m->bytes,
                                                            &block);
    if (!record || record->sequence >= t->next_sequence ||
        memcmp(block.key, m->block.key, 32) != 0 || block.bytes != m->block.bytes ||
        block.part_bytes != m->block.part_bytes)
        return false;
    m->block = block;
    return wf_nvme_payload_right(&block, record->sums,
                                 m->at + wf_nvme_header_bytes(wf_tier_parts(&block)));
}

static void move_read_end(struct wf_nvme *t, struct wf_nvme_moving *m, bool good)
{
    const struct wf_nvme_origin *origin = &t->reclaim.origins[m->origin];
    if (!good) {
        t->segment[t->reclaim.victim].stuck = true;
        t->reclaim.aborted = true;
        return;
    }
    if (!still_there(t, origin))
        return;
    /* What is not moved is lost with the segment, and may have gone wrong on its way here. */
    uint64_t at = wf_nvme_segment_at(t, t->reclaim.victim) + (uint64_t)origin->page * WF_NVME_PAGE;
    m->good = verified(t, m) ||
              (wf_nvme_pread(t, m->at, m->bytes, at) == WEFT_OK && verified(t, m));
    if (!m->good) {
        t->stats.corrupt++;
        wf_nvme_forget(t, origin->item);
    }
}

static void move_write_end(struct wf_nvme *t, struct wf_nvme_moving *m, bool good)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    struct wf_nvme_origin *origin = &r->origins[m->origin];
    t->writer[m->writer].writes--;
    if (!good) {
        wf_nvme_append_failed(t, m->writer, m->entry);
        r->aborted = r->resting = true;
        return;
    }
    t->stats.moved_bytes += m->bytes;
    if (!still_there(t, origin)) {
        wf_nvme_kill(t, origin->to_segment, origin->to_page);
        return;
    }
    origin->moved = true;
    t->segment[r->victim].live_bytes -= m->bytes;
    t->segment[origin->to_segment].live_bytes += m->bytes;
    t->index.items[origin->item].segment = origin->to_segment;
    t->index.items[origin->item].page = origin->to_page;
}

/* Its header may say either; what it had is elsewhere, and the same. */
static void not_given_back(struct wf_nvme *t)
{
    wf_warn("nvme", "%s: segment %u cannot be given back; it is not used any more", t->path,
            t->reclaim.victim);
    t->segment[t->reclaim.victim].state = WF_NVME_SEGMENT_BAD;
    t->reclaim.step = WF_NVME_IDLE;
}

void wf_nvme_reclaim_end(struct wf_nvme *t, struct wf_nvme_io *io, int result)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    bool good = result >= 0 && (uint64_t)result == io->expected;
    r->pending--;
    if (io->kind == WF_NVME_IO_LIST)
        list_end(t, good);
    else if (io->kind == WF_NVME_IO_MOVE_READ)
        move_read_end(t, &r->batch[io->segment], good);
    else if (io->kind == WF_NVME_IO_MOVE_WRITE)
        move_write_end(t, &r->batch[io->segment], good);
    else if (!good)
        not_given_back(t);
    wf_nvme_io_put(t, io);
}

/* Returns false when it must go on later. */
static bool write_batch(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    for (; r->next < r->count; r->next++) {
        struct wf_nvme_moving *m = &r->batch[r->next];
        struct wf_nvme_origin *origin = &r->origins[m->origin];
        if (!m->good || !still_there(t, origin))
            continue;
        if (!wf_nvme_place(t, m->bytes, true, &m->writer)) {
            /* The reserve is gone: no segment of it could be begun. */
            r->aborted = r->resting = t->free_count == 0 &&
                                      !wf_nvme_settling(t, wf_nvme_stream_of(t, true));
            return false;
        }
        struct wf_nvme_io *io = wf_nvme_io_get(t, WF_NVME_IO_MOVE_WRITE);
        if (!io)
            return false;
        struct wf_nvme_record *record = (struct wf_nvme_record *)(void *)m->at;
        origin->to_segment = t->writer[m->writer].segment;
        origin->to_page = (uint16_t)wf_nvme_append(t, m->writer, &m->block, record->sequence,
                                                   m->bytes, &m->entry);
        record->generation = t->segment[origin->to_segment].generation;
        record->offset = wf_nvme_segment_at(t, origin->to_segment) +
                         (uint64_t)origin->to_page * WF_NVME_PAGE;
        wf_nvme_seal(record, WF_NVME_RECORD_MAGIC, record->head.bytes, t->volume);
        io->write = true;
        io->writer = m->writer;
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
    wf_nvme_discard_mark(t, t->reclaim.victim);
    t->reclaim.step = WF_NVME_IDLE;
}

/* What has moved stays where it is now, and dies in the victim as soon as its copy is synced. */
static void abort_step(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    if (r->pending)
        return;
    if (r->step != WF_NVME_ABORTING) {
        wf_warn("nvme", "%s: a segment could not be emptied; it stays as it is", t->path);
        r->rest_ms = wf_now_ms() + REST_MS;
        r->sync = wf_nvme_sync_ticket(t);
        r->step = WF_NVME_ABORTING;
    }
    if (t->sync_done < r->sync)
        return;
    for (uint32_t i = 0; i < r->origins_count; i++)
        if (r->origins[i].moved)
            wf_nvme_kill(t, r->victim, r->origins[i].page);
    t->segment[r->victim].state = WF_NVME_SEGMENT_CLOSED;
    r->step = WF_NVME_IDLE;
}

/* Nothing more is listed to be moved. */
static void emptied(struct wf_nvme *t)
{
    struct wf_nvme_reclaim *r = &t->reclaim;
    struct wf_nvme_seg *victim = &t->segment[r->victim];
    if (victim->live_bytes == 0) {
        r->sync = wf_nvme_sync_ticket(t);
        r->step = WF_NVME_SYNCING;
    } else if (!r->listed_by_index) { /* its footer does not name all that was found in it */
        list_by_index(t);
    } else {
        victim->stuck = r->aborted = true;
    }
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
        } else if (r->origins_next < r->origins_count) {
            read_batch(t);
        } else {
            emptied(t);
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
