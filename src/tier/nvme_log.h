/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier's insides, shared by its files and by nobody else.
 *
 *   nvme.c          the interface: requests, reads, reaping
 *   nvme_medium.c   the file or device; I/O through the ring
 *   nvme_log.c      where records go, closing segments, removal, flush
 *   nvme_reclaim.c  live records moved out of a segment, and the segment freed
 *   nvme_discard.c  freed segments told to the device as unused
 *   nvme_open.c     what the medium has, found again
 *   nvme_each.c     all blocks told of, with their parents
 *   nvme_format.c   structures on the medium, made and verified
 *
 * One thread drives all of it.  Nothing here waits but open, close, reap and each.
 *
 * A segment's life:   FREE → OPEN → CLOSING → CLOSED → VICTIM → FREEING → FREE
 *
 *   - A record is not written before the header of its segment is: one that is quicker is held
 * back, and fails with the header.  A segment that cannot be begun costs nothing but itself.
 *   - CLOSING waits for its writes, then for a sync, then writes its footer: what a footer lists is
 * durable, so footers are believed at open without reading payload.
 *   - A flush waits for all writes before it, so that the scan of a segment without a footer, which
 * takes all that is whole, loses nothing that was flushed, wherever a bit of it has flipped since.
 *   - A VICTIM becomes FREEING when its records have moved, and their copies are synced before its
 * header says that it is free, and that header is synced before the segment is used again.
 *   - A sync that failed is never tried again: what it was to make durable may be gone, and a
 * second one would not say so (P. Rebello et al., "Can applications recover from fsync failures?",
 * USENIX ATC 2020).  The tier is out of use from then on.
 *   - What moves goes to a segment of its own, apart from what is new, where there are segments
 * enough for that (WF_NVME_APART_LEAST): the last free one is kept for it.  When no room can be won
 * otherwise, new records are put there too, as long as another is free; also when victim after
 * victim was emptied and none of it became a free segment, as where records of many sizes leave
 * gaps.  Then what a victim wins is used at once, so that no write waits for more than some.
 *   - While no segment is free, only what moves is written.  A crash then leaves no free segment,
 * and of those without a footer the youngest is the one that records moved to; the tier goes on in
 * it, behind what is whole in it, or there would never be a free one again.
 *   - A victim that cannot be emptied is CLOSED again, and its records that moved die in it once
 * their copies are synced.
 *   - A record that is removed while its copy's origin is still on the medium dies in both.
 */
#ifndef WF_TIER_NVME_LOG_H
#define WF_TIER_NVME_LOG_H

#include <liburing.h>
#include <sys/uio.h>

#include "tier/check.h"
#include "tier/nvme_format.h"
#include "tier/nvme_index.h"

#define WF_NVME_HEADER_MAX 12288u /* a record's header with WF_TIER_PARTS_MAX checksums */
static_assert(sizeof(struct wf_nvme_record) + WF_TIER_PARTS_MAX * 8 <= WF_NVME_HEADER_MAX, "");

#define WF_NVME_OPEN_MAX 4u /* segments that are open or closing at a time */
#define WF_NVME_APART_LEAST \
    64u                       /* segments: with fewer, a second open one costs more than it saves */
#define WF_NVME_BATCH_MAX 32u /* records moved at a time */
#define WF_NVME_INNER 96u     /* I/Os of the tier's own: moves, maps, headers, a sync */
#define WF_NVME_PIECES 32u    /* read at a time when a tier is opened, two I/Os each at most */
static_assert(2 * WF_NVME_PIECES <= WF_NVME_INNER, "");
#define WF_NVME_SUMS_LINE 64u /* checksums kept for a block in memory, see struct wf_nvme_sums */

enum wf_nvme_state {
    WF_NVME_SEGMENT_FREE = 0,
    WF_NVME_SEGMENT_OPEN,
    WF_NVME_SEGMENT_CLOSING,
    WF_NVME_SEGMENT_CLOSED,
    WF_NVME_SEGMENT_VICTIM,
    WF_NVME_SEGMENT_FREEING,
    WF_NVME_SEGMENT_BAD, /* could not be read, or given back: left alone until the next open */
};

struct wf_nvme_seg {
    uint64_t generation;
    uint64_t dead_serial;
    uint64_t live_bytes; /* of records that the index has here */
    uint64_t closed;     /* when, counted in segments that were closed; 0: before the tier's open */
    uint32_t readers;    /* reads under way: it is not used again before they end */
    uint32_t entries;    /* in its footer; 0: it has none that is known of */
    uint8_t state;       /* enum wf_nvme_state */
    bool stuck;          /* a record of it cannot be read, so it cannot be emptied */
    bool dirty;          /* bits of its dead map are not on the medium */
    bool freed;          /* FREE, which is durable, and the device was not told yet */
};

/* What an open segment takes. */
enum wf_nvme_stream {
    WF_NVME_NEW = 0, /* what is written, and what moves where it is not kept apart */
    WF_NVME_MOVED,
    WF_NVME_STREAMS,
};

/* What is needed of a segment while it is written. */
struct wf_nvme_writer {
    uint32_t segment; /* WF_NVME_NONE: not in use */
    uint64_t used;    /* bytes from its start */
    uint32_t count;   /* records that will be in its footer */
    uint32_t writes;  /* under way */
    uint32_t holes;   /* writes that failed, with others behind them: only a footer can tell */
    bool ready;       /* its header is on the medium */
    int broken;       /* or it could not be written: with that result, as all records in it */
    uint32_t held;    /* I/Os of records that were quicker than the header */
    uint64_t sync;    /* CLOSING: the sync that it waits for; 0: not yet */
    uint8_t step;
    uint8_t *footer; /* entries, from the start; the footer proper is put behind them at the end */
};

enum wf_nvme_io_kind {
    WF_NVME_IO_NONE = 0,
    WF_NVME_IO_READ,
    WF_NVME_IO_WRITE,
    WF_NVME_IO_HEADER, /* of a segment that is taken into use */
    WF_NVME_IO_FOOTER,
    WF_NVME_IO_MAP,
    WF_NVME_IO_SYNC,
    WF_NVME_IO_LIST,
    WF_NVME_IO_MOVE_READ,
    WF_NVME_IO_MOVE_WRITE,
    WF_NVME_IO_FREE, /* header of a segment that is given back */
};

struct wf_nvme_io {
    enum wf_nvme_io_kind kind;
    struct wf_tier_request *request;
    uint32_t next;    /* free ones */
    uint32_t segment; /* also: which record of a batch */
    uint32_t writer;
    uint32_t page;
    uint32_t entry; /* place in the footer */
    uint32_t header_bytes;
    uint64_t sequence;         /* WRITE */
    uint64_t generation;       /* READ: of the segment */
    uint64_t order;            /* among what was placed in the log: what a flush waits for */
    int result;                /* of one that is held, or landed */
    uint64_t at, length, skip; /* READ: payload range; bytes of it that come into `tail` */
    uint64_t offset, expected; /* of the I/O as submitted */
    uint32_t vectors;
    uint32_t tries;
    bool with_header, buffered;
    bool doubted; /* READ: it came wrong once, and is read again */
    bool held;    /* by a test: what is under way is a timeout */
    int refused;  /* by a test: with that result */
    struct __kernel_timespec hold;
    int buffer; /* registered one, -1: none */
    bool write;
    struct iovec vector[3];
    struct wf_tier_block block;
    uint8_t *header; /* WF_NVME_HEADER_MAX, aligned */
    uint8_t *tail;   /* WF_NVME_PAGE, aligned */
};

/* Checksums of blocks that were written or read lately.  With them a range of parts is one I/O of
 * nothing but payload, from registered memory; without them the record's header comes along. */
struct wf_nvme_sums {
    uint64_t generation; /* of the segment, 0: none */
    uint32_t segment, page;
    uint64_t sums[WF_NVME_SUMS_LINE];
};

struct wf_nvme_moving {
    uint32_t origin;
    uint64_t bytes; /* of the record */
    uint8_t *at;    /* in the buffer */
    uint32_t writer, entry;
    struct wf_tier_block block;
    bool good;
};

enum wf_nvme_reclaim_step {
    WF_NVME_IDLE = 0,
    WF_NVME_LISTING,
    WF_NVME_READING,
    WF_NVME_WRITING,
    WF_NVME_SYNCING,
    WF_NVME_HEADING,
    WF_NVME_RELEASING,
    WF_NVME_ABORTING,
};

/* A record of the victim that was live when it was listed. */
struct wf_nvme_origin {
    uint32_t item;
    uint16_t page, to_page;
    uint32_t to_segment;
    bool moved;
};

struct wf_nvme_reclaim {
    enum wf_nvme_reclaim_step step;
    uint32_t victim;
    uint32_t pending, count, next;
    uint64_t sync;
    bool aborted, listed_by_index;
    bool ahead;       /* of need: nothing waits for it, so it makes way for reads */
    bool look;        /* there may be a segment that is worth it, unlike at the last look */
    uint64_t next_ms; /* ahead: the next record may be read while reads are under way */
    uint64_t rest_ms; /* ahead: it could not be done, and is not tried before that */
    uint32_t in_vain; /* victims for what waits, since that last had a free segment */
    bool resting;     /* it could not be done: not tried again before all that wait are answered */
    uint8_t *buffer;
    uint64_t buffer_bytes;
    struct wf_nvme_moving batch[WF_NVME_BATCH_MAX];
    uint8_t *footer;                /* the victim's */
    struct wf_nvme_origin *origins; /* one a record that a segment can have */
    uint32_t origins_count, origins_next;
};

struct wf_nvme_discard {
    bool on;
    uint32_t count;   /* segments that are `freed` */
    uint32_t segment; /* the one that is being told of */
    uint64_t done;    /* bytes of it */
    uint64_t next_ms;
};

struct wf_nvme_queue {
    struct wf_tier_request *first, **last;
};

/* The file as it was when the tier was open: a restart must find the same one at the path. */
struct wf_nvme_file {
    bool known; /* it is a file, not a device */
    uint64_t device, number, bytes;
    uint64_t next_ms; /* when it is looked at again */
};

struct wf_nvme {
    char *path;
    int fd, fd_buffered; /* the same descriptor where O_DIRECT is refused */
    bool made;           /* the file was not there before */
    struct wf_nvme_file file;
    int event;
    bool failed, ring_ready, registered;
    bool leaving;  /* it is being closed */
    bool no_space; /* a segment could not be begun: what waits for one is told that it is full */
    uint64_t full_told_ms; /* that its file system is full was said last; 0: never */
    uint32_t errors_in_a_row;
    struct io_uring ring;
    uint32_t buffers_count;
    uint8_t *buffers;
    uint64_t buffers_bytes;

    uint64_t volume, epoch, next_sequence;
    uint64_t segment_bytes;
    uint32_t segments, free_count, free_hint;
    uint32_t readers; /* requests to read that are under way, of all segments */
    struct wf_nvme_seg *segment;
    uint64_t *dead; /* [segments][dead_words] */
    uint32_t dead_words;
    struct wf_nvme_index index;
    struct wf_nvme_sums *sums;
    uint32_t sums_count;

    struct wf_nvme_writer writer[WF_NVME_OPEN_MAX];
    uint32_t active[WF_NVME_STREAMS]; /* writer; WF_NVME_NONE: none */
    uint64_t closed_count;
    struct wf_nvme_reclaim reclaim;
    struct wf_nvme_discard discard;

    struct wf_nvme_io *ios;
    uint8_t *io_memory;
    uint64_t io_memory_bytes;
    uint32_t ios_count, ios_free, ios_busy, queue_depth;

    struct wf_nvme_queue waiting;  /* writes without room yet */
    struct wf_nvme_queue flushing; /* flushes of the cycle under way */
    struct wf_nvme_queue next_flush;
    struct wf_nvme_queue done;
    uint32_t landed, landed_last; /* reads to be verified, by io.next; WF_NVME_NONE: none */
    uint64_t next_order, flush_barrier, flush_sync;
    uint32_t flush_step, maps_pending, map_next, dirty_count;
    bool flush_failed;
    uint64_t sync_started, sync_done, sync_wanted;
    bool sync_running;

    struct wf_tier_stats stats;
};

/* Where records of a segment may lie, and where the segment starts. */
static inline uint64_t wf_nvme_segment_at(const struct wf_nvme *t, uint32_t segment)
{
    return WF_NVME_SEGMENTS_AT + (uint64_t)segment * t->segment_bytes;
}

static inline uint64_t wf_nvme_footer_bytes(uint64_t count)
{
    return WF_NVME_PAGE + wf_nvme_padded(count * sizeof(struct wf_nvme_entry));
}

static inline uint32_t wf_nvme_header_bytes(uint32_t parts)
{
    return (uint32_t)wf_nvme_padded(sizeof(struct wf_nvme_record) + (uint64_t)parts * 8);
}

static inline uint64_t wf_nvme_record_bytes(const struct wf_tier_block *block)
{
    return wf_nvme_header_bytes(wf_tier_parts(block)) + wf_nvme_padded(block->bytes);
}

/* What of a segment can be used by records, at most. */
static inline uint64_t wf_nvme_room(const struct wf_nvme *t)
{
    return t->segment_bytes - WF_NVME_RECORDS_AT - wf_nvme_footer_bytes(1);
}

/* Which of the open segments takes a record. */
static inline enum wf_nvme_stream wf_nvme_stream_of(const struct wf_nvme *t, bool moving)
{
    return moving && t->segments >= WF_NVME_APART_LEAST ? WF_NVME_MOVED : WF_NVME_NEW;
}

/* nvme_medium.c */
enum weft_status wf_nvme_medium_open(struct wf_nvme *t, const struct wf_tier_options *options,
                                     uint64_t *out_bytes);
enum weft_status wf_nvme_medium_extend(struct wf_nvme *t, uint64_t bytes);
/* It is as large as it is going to be. */
enum weft_status wf_nvme_medium_opened(struct wf_nvme *t);
/* Fail the tier if a restart would not find this file at its path, or not all of it. */
void wf_nvme_medium_look(struct wf_nvme *t);
enum weft_status wf_nvme_ring_open(struct wf_nvme *t, const struct wf_tier_options *options);
void wf_nvme_medium_close(struct wf_nvme *t);
enum weft_status wf_nvme_pread(struct wf_nvme *t, void *into, uint64_t bytes, uint64_t offset);
enum weft_status wf_nvme_pwrite(struct wf_nvme *t, void *from, uint64_t bytes, uint64_t offset);
enum weft_status wf_nvme_sync(struct wf_nvme *t);
/* Tell the device that nobody needs these bytes any more: 0, or -errno.  Waits. */
int wf_nvme_unused(struct wf_nvme *t, uint64_t offset, uint64_t bytes);
/* Page-aligned, zeroed memory; freed with munmap. */
void *wf_nvme_pages(uint64_t bytes, const char *what);
/* NULL when all are busy. */
struct wf_nvme_io *wf_nvme_io_get(struct wf_nvme *t, enum wf_nvme_io_kind kind);
void wf_nvme_io_put(struct wf_nvme *t, struct wf_nvme_io *io);
/* Hand io->vector to the ring, at io->offset; or a sync. */
void wf_nvme_io_start(struct wf_nvme *t, struct wf_nvme_io *io);
/* The ring is done with it; false: it was only held back, and begins now. */
bool wf_nvme_io_ended(struct wf_nvme *t, struct wf_nvme_io *io, int *result);
int wf_nvme_buffer_of(const struct wf_nvme *t, const void *data, uint64_t bytes);

/* nvme_log.c */
void wf_nvme_queue_init(struct wf_nvme_queue *queue);
void wf_nvme_queue_add(struct wf_nvme_queue *queue, struct wf_tier_request *request);
struct wf_tier_request *wf_nvme_queue_take(struct wf_nvme_queue *queue);
bool wf_nvme_queue_remove(struct wf_nvme_queue *queue, struct wf_tier_request *request);
void wf_nvme_finish(struct wf_nvme *t, struct wf_tier_request *request, enum weft_status status);
void wf_nvme_fail(struct wf_nvme *t, int error, const char *what);
void wf_nvme_fail_why(struct wf_nvme *t, const char *why);
/* An I/O failed, whatever it was for. */
void wf_nvme_trouble(struct wf_nvme *t, int result);
bool wf_nvme_no_space(int result);
void wf_nvme_sums_keep(struct wf_nvme *t, uint32_t segment, uint32_t page, uint64_t generation,
                       const uint64_t *sums, uint32_t parts);
bool wf_nvme_sums_find(const struct wf_nvme *t, uint32_t segment, uint32_t page,
                       uint64_t generation, uint64_t *out, uint32_t parts);
/* A place for a record; false: none now.  `moving`: the reserve may be used. */
bool wf_nvme_place(struct wf_nvme *t, uint64_t bytes, bool moving, uint32_t *out_writer);
/* A write to the open segment failed, and if all behind it fail too, its room is used again. */
bool wf_nvme_settling(const struct wf_nvme *t, enum wf_nvme_stream stream);
/* Enter a record into the writer's footer and take its room; returns its page. */
uint32_t wf_nvme_append(struct wf_nvme *t, uint32_t writer, const struct wf_tier_block *block,
                        uint64_t sequence, uint64_t bytes, uint32_t *out_entry);
void wf_nvme_append_failed(struct wf_nvme *t, uint32_t writer, uint32_t entry);
void wf_nvme_kill(struct wf_nvme *t, uint32_t segment, uint32_t page);
void wf_nvme_forget(struct wf_nvme *t, uint32_t item); /* out of index and off the medium */
uint64_t wf_nvme_sync_ticket(struct wf_nvme *t);       /* a sync that begins from now on */
enum weft_status wf_nvme_write_start(struct wf_nvme *t, struct wf_tier_request *request,
                                     const uint64_t *sums);
void wf_nvme_write_end(struct wf_nvme *t, struct wf_nvme_io *io, int result);
void wf_nvme_write_reaped(struct wf_nvme *t, struct wf_tier_request *request);
/* Was the I/O of a record quicker than its segment's header?  Then it is kept, to be ended later;
 * otherwise the result may be the header's. */
bool wf_nvme_hold(struct wf_nvme *t, struct wf_nvme_io *io, int *result);
void wf_nvme_log_end(struct wf_nvme *t, struct wf_nvme_io *io, int result);
void wf_nvme_log_step(struct wf_nvme *t);
void wf_nvme_close_active(struct wf_nvme *t, enum wf_nvme_stream stream);
bool wf_nvme_log_idle(const struct wf_nvme *t);

/* nvme_format.c */
void wf_nvme_sum(const struct wf_tier_block *block, const uint8_t *data, uint64_t *sums);
/* Entries and footer at their places in `buffer`; returns where to write it, and how much. */
uint64_t wf_nvme_footer_make(struct wf_nvme *t, uint8_t *buffer, uint32_t segment, uint32_t count,
                             uint64_t *out_bytes);
/* Is it that segment's, and may it have so many entries?  Then: are these its entries? */
bool wf_nvme_footer_right(const struct wf_nvme *t, const struct wf_nvme_footer *footer,
                          uint32_t segment);
bool wf_nvme_entries_right(const struct wf_nvme *t, const struct wf_nvme_footer *footer,
                           const uint8_t *entries);
void wf_nvme_entry_make(struct wf_nvme_entry *out, const struct wf_tier_block *block,
                        uint64_t sequence, uint32_t page);
/* false: no block may lie there like that. */
bool wf_nvme_entry_block(const struct wf_nvme *t, const struct wf_nvme_entry *entry,
                         struct wf_tier_block *out);
/* The header in `memory`, of which `room` bytes may be looked at, when it is whole and that of a
 * record at `at` in the segment; else NULL. */
const struct wf_nvme_record *wf_nvme_record_at(const struct wf_nvme *t, uint32_t segment,
                                               uint64_t at, const uint8_t *memory, uint64_t room,
                                               struct wf_tier_block *out);
bool wf_nvme_payload_right(const struct wf_tier_block *block, const uint64_t *sums,
                           const uint8_t *payload);

/* nvme_reclaim.c */
/* The closed segment that is emptied next, to make room for `bytes`; WF_NVME_NONE: there is none.
 */
uint32_t wf_nvme_reclaim_victim(const struct wf_nvme *t, uint64_t bytes);
/* Begin to make room for `bytes`; false: nothing can be reclaimed. */
bool wf_nvme_reclaim_start(struct wf_nvme *t, uint64_t bytes);
/* Nothing waits: is there a segment to be freed for what will? */
void wf_nvme_reclaim_ahead(struct wf_nvme *t);
/* The segment has fewer live bytes, or is closed by now. */
void wf_nvme_reclaim_look(struct wf_nvme *t, uint32_t segment);
void wf_nvme_reclaim_end(struct wf_nvme *t, struct wf_nvme_io *io, int result);
void wf_nvme_reclaim_step(struct wf_nvme *t);

/* nvme_discard.c */
/* It is durable that the segment is free. */
void wf_nvme_discard_mark(struct wf_nvme *t, uint32_t segment);
/* It is about to be used. */
void wf_nvme_discard_unmark(struct wf_nvme *t, uint32_t segment);
void wf_nvme_discard_step(struct wf_nvme *t);

/* nvme_each.c */
void wf_nvme_each(struct wf_nvme *t,
                  void (*found)(void *context, const struct wf_tier_block *block), void *context);

/* nvme_open.c */
enum weft_status wf_nvme_recover(struct wf_nvme *t, uint64_t bytes, uint64_t capacity);

#endif
