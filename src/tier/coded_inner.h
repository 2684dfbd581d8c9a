/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the tier that codes share: coded.c (the interface, a request's way),
 * coded_blocks.c (what lies behind, as it is told and counted), coded_open.c (made and taken
 * apart), coded_piece.c (what of a frame is read next, what a worker makes of it, and the leads
 * that are kept) and coded_work.c (workers, and the memory that frames lie in).
 *
 * An *op* is a request that is encoded or decoded; others go to the tier behind as they are.  It
 * belongs to the thread that drives the tier; while a worker has it, what is the worker's result,
 * what it reads and the planes that it is at are the worker's.  The two meet in `lock` only.
 */
#ifndef WF_TIER_CODED_INNER_H
#define WF_TIER_CODED_INNER_H

#include <pthread.h>

#include "tier/check.h"
#include "tier/coded.h"
#include "tier/queue.h"

#define WF_CODED_LEAD_MAX \
    (sizeof(struct wf_frame_head) + WF_CODED_PLANES_MAX * sizeof(struct wf_frame_plane))
#define WF_CODED_LEADS 256u             /* kept of frames that are being read */
#define WF_CODED_PIECE_BYTES (4u << 20) /* of a frame read at a time, but for a larger plane */

enum wf_coded_step {
    WF_CODED_FREE = 0,
    WF_CODED_ROOM,    /* waits for memory */
    WF_CODED_WORK,    /* waits for a worker, or one has it */
    WF_CODED_BLOCKED, /* the tier behind takes no more at the moment */
    WF_CODED_BEHIND,  /* the tier behind has it */
};

struct wf_coded_op {
    struct wf_tier_request behind; /* first member: what the tier behind is asked; at other times
                                      it links the op in the one queue that it is in */
    struct wf_tier_request *outer; /* for this */
    struct wf_coded_op *after;     /* whose memory lies behind its own, by address */
    enum wf_coded_step step;
    bool cancelled;
    bool stale;      /* its block was removed meanwhile */
    bool from_cache; /* its lead was kept from another read, and may be of another time */
    uint8_t *memory; /* NULL: none */
    uint64_t memory_bytes;
    struct wf_tier_block there; /* READ: as the tier behind has it */
    enum weft_status result;    /* the worker's */
    uint64_t coded_bytes, ns;   /* payload, and the time that it took; the worker's */
    /* WRITE */
    struct wf_coded_plan plan;
    uint64_t frame_bytes;
    uint64_t *sums; /* of the frame's parts, in its memory */
    /* READ */
    uint8_t *lead; /* head and table, once lead_bytes is not 0 */
    uint64_t lead_bytes;
    uint64_t from, to;         /* of the payload */
    uint32_t plane, plane_end; /* those to be decoded still; plane_end 0: not known yet */
    uint64_t piece, piece_end; /* of the frame: what is, or is to be, in memory */
    uint64_t cut_bytes;        /* there is a cut, and it is given; 0: it is decoded */
};

/* The head and the table of a frame that was read not long ago. */
struct wf_coded_lead {
    uint8_t key[32];
    uint64_t bytes; /* 0: none */
    uint64_t plain_bytes, stored_bytes;
    uint8_t data[WF_CODED_LEAD_MAX];
};

struct wf_coded_worker {
    pthread_t thread;
    struct wf_tier *tier;
    uint8_t *scratch; /* for the codec; then a plane of which only a piece is wanted */
};

struct wf_tier {
    struct wf_coded_options options;
    const struct wf_tier_ops *ops; /* of the one behind */
    struct wf_tier *behind;
    char *path;
    int event, done_event; /* epoll of both; readable when a worker has done something */
    struct wf_coded_op *ops_all;
    uint32_t depth;
    struct wf_tier_queue free_ops, room_reads, room_writes, blocked; /* of ops */
    struct wf_tier_queue done;
    bool told;          /* done_event is readable for what is in `done`, or for nothing */
    uint32_t in_flight; /* submitted and not reaped */
    uint32_t with_behind, with_workers;
    uint32_t in_vain, untried; /* writes in a row that became no smaller; not tried since */
    uint8_t *memory;
    struct wf_coded_op *extents; /* those that have memory, by address */
    uint64_t writes_bytes;       /* of it that writes have */
    uint8_t *leads_memory;       /* each op's lead */
    struct wf_coded_lead *leads;
    struct wf_tier_stats stats; /* what is counted here */
    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct wf_tier_queue reads, writes, worked; /* of ops */
    bool stopping;
    /* Unchanged once it is open. */
    struct wf_coded_worker *workers; /* [options.workers or 1] */
    uint32_t threads;                /* that run */
};

/* NULL when there is none. */
static inline struct wf_coded_op *wf_coded_take(struct wf_tier_queue *queue)
{
    return (struct wf_coded_op *)wf_tier_queue_take(queue); /* its first member */
}

/* --- coded_open.c */

enum weft_status wf_coded_check(const struct wf_tier_options *options);
/* Path, options and the tier behind are there; on failure it may be dismantled. */
enum weft_status wf_coded_build(struct wf_tier *t);
/* The tier behind is closed, and nobody works any more. */
void wf_coded_dismantle(struct wf_tier *t);

/* --- coded_blocks.c */

/* A block as it lies behind, as it is given out. */
struct wf_tier_block wf_coded_outside(const struct wf_tier_block *there);
/* Of what is made for that quality; 0: exact. */
struct wf_coded_sum *wf_coded_sum_of(struct wf_tier *t, uint32_t quality);
/* It is counted from now on, as it lies behind. */
void wf_coded_hold(struct wf_tier *t, const struct wf_tier_block *there);
/* It is gone: nobody goes on with what was read of it. */
void wf_coded_forget(struct wf_tier *t, const struct wf_tier_block *there);
/* As wf_tier_ops has them. */
bool wf_coded_find(const struct wf_tier *t, const uint8_t key[32], struct wf_tier_block *out);
enum weft_status wf_coded_remove(struct wf_tier *t, const uint8_t key[32]);
void wf_coded_each(const struct wf_tier *tier,
                   void (*found)(void *context, const struct wf_tier_block *block), void *context);
void wf_coded_stats(const struct wf_tier *t, struct wf_tier_stats *out);
enum weft_status wf_coded_news(struct wf_tier *t,
                               void (*told)(void *context, const struct wf_tier_block *block,
                                            bool there),
                               void *context);

/* --- coded_work.c */

enum weft_status wf_coded_work_open(struct wf_tier *t);
/* After it no worker has anything. */
void wf_coded_work_stop(struct wf_tier *t);
void wf_coded_work_free(struct wf_tier *t);
/* Memory for `bytes`; false: not now. */
bool wf_coded_memory_take(struct wf_tier *t, struct wf_coded_op *op, uint64_t bytes);
void wf_coded_memory_give(struct wf_tier *t, struct wf_coded_op *op);
/* What a write may have of it. */
uint64_t wf_coded_memory_for_writes(const struct wf_tier *t);
/* To a worker. */
void wf_coded_work(struct wf_tier *t, struct wf_coded_op *op);
/* Out of its hands again, if it has not begun. */
bool wf_coded_work_back(struct wf_tier *t, struct wf_coded_op *op);
/* All that was done since. */
struct wf_tier_queue wf_coded_worked(struct wf_tier *t);

/* --- coded_piece.c */

/* WEFT_E_INVALID: nothing can be encoded by such a plan. */
enum weft_status wf_coded_check_plan(const struct wf_tier *t, const struct wf_coded_plan *plan);
/* Is it to be encoded?  It has a plan. */
bool wf_coded_wanted(const struct wf_tier *t, const struct wf_tier_request *r);
bool wf_coded_lossy(const struct wf_coded_plan *plan);
uint64_t wf_coded_write_memory(const struct wf_tier *t, const struct wf_layout *layout);
/* On a worker. */
void wf_coded_encode(const struct wf_tier *t, struct wf_coded_op *op, void *scratch);
void wf_coded_decode(const struct wf_tier *t, struct wf_coded_op *op, uint8_t *scratch);
/* Which part of the frame is to be read next: whole parts of the one behind. */
enum weft_status wf_coded_next_piece(const struct wf_tier *t, struct wf_coded_op *op);
/* Leads are kept for reads to come. */
void wf_coded_lead_keep(struct wf_tier *t, const struct wf_coded_op *op);
void wf_coded_lead_find(struct wf_tier *t, struct wf_coded_op *op);
void wf_coded_lead_drop(struct wf_tier *t, const uint8_t key[32]);

#endif
