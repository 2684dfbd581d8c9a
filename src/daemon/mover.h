/* SPDX-License-Identifier: Apache-2.0
 *
 * A mover: the one thread that drives a tier, and what the owner thread tells it.
 *
 * Opening a tier, submitting to it and reaping from it take time that the owner does not have, and
 * checksums more.  So each tier has a thread, with the tier's scheduler; jobs go to it through a
 * bounded queue, and come back, done, through another that wakes the owner.  A job belongs to the
 * mover from wf_mover_submit() until its `done` is called, on the owner thread, from
 * wf_mover_reap(); exactly once, whatever becomes of the tier.
 */
#ifndef WF_DAEMON_MOVER_H
#define WF_DAEMON_MOVER_H

#include "tier/scheduler.h"

enum wf_mover_kind {
    WF_MOVE_READ = 1,   /* job.request as for the tier */
    WF_MOVE_WRITE = 2,  /* likewise; compares or takes `checksum` first */
    WF_MOVE_FLUSH = 3,  /* what is found now is durable */
    WF_MOVE_REMOVE = 4, /* job.request.block.key */
    WF_MOVE_VERIFY = 5, /* read all of job.request.block.key into the mover's own memory, and forget
                           it: WEFT_OK means that every byte is what its checksum says */
};

struct wf_mover_job {
    struct wf_tier_job job; /* request, class, deadline; first member */
    enum wf_mover_kind kind;
    /* WRITE: XXH3-64 of the payload.  0: it is taken and set; otherwise what does not match is
     * WEFT_E_CORRUPT and is not written. */
    uint64_t checksum;
    uint64_t submitted_ns, done_ns;         /* set by the mover */
    void (*done)(struct wf_mover_job *job); /* job.request.status and .bytes are the result */
    void *owner;                            /* the caller's */
    struct wf_mover_job *next;              /* the mover's */
};

enum wf_mover_state {
    WF_MOVER_OPENING = 0, /* jobs wait until it is open */
    WF_MOVER_OK = 1,
    WF_MOVER_STALLED = 2, /* a request has been under way for longer than timeout_ms */
    WF_MOVER_FAILED = 3,  /* every job ends as WEFT_E_SYSTEM; it tries to open again now and then */
};
const char *wf_mover_state_name(enum wf_mover_state state);

struct wf_mover_options {
    const char *name; /* of the tier, for logs and sentences */
    const struct wf_tier_ops *ops;
    struct wf_tier_options tier; /* strings are copied */
    uint32_t jobs_max;           /* submitted and not done; 1 … WF_TIER_JOBS_MAX */
    uint32_t timeout_ms;
    uint32_t background_depth; /* see scheduler.h */
    uint32_t shares[WF_TIER_CLASSES];
    /* On the owner thread, from wf_mover_reap(): what the tier had when it was opened, parents
     * before their children, a batch at a time; then opened(), with WEFT_OK or why not.  When a
     * failed tier comes back, all of it comes again.  changed(): another state than before. */
    void (*found)(void *context, const struct wf_tier_block *blocks, uint32_t count);
    void (*opened)(void *context, enum weft_status status, const char *sentence);
    void (*changed)(void *context, enum wf_mover_state state, const char *sentence);
    void *context;
};

struct wf_mover_stats {
    enum wf_mover_state state;
    struct wf_tier_stats tier;
    /* Measured: by a probe when it was opened (a block written, read back and removed), and by what
     * was moved since. */
    double read_latency_us;       /* median of small reads alone in the queue */
    double read_mbps, write_mbps; /* 10^6 bytes a second while busy */
    uint32_t queued, in_flight;
    uint64_t verified_bytes;
    char reason[256]; /* why it is not WF_MOVER_OK */
};

struct wf_mover;

enum weft_status wf_mover_create(const struct wf_mover_options *options, struct wf_mover **out);

/* Every job is done first: those not begun are cancelled.  `flush_ms` > 0: what was written is
 * flushed, for that long at most. */
void wf_mover_destroy(struct wf_mover *mover, uint32_t flush_ms);

/* WEFT_OK, or WEFT_PENDING: jobs_max are there; or why it is wrongly put. */
enum weft_status wf_mover_submit(struct wf_mover *mover, struct wf_mover_job *job);

/* It is done soon, as WEFT_E_TIMEOUT or with its result. */
void wf_mover_cancel(struct wf_mover *mover, struct wf_mover_job *job);

/* Readable when there is something to reap. */
int wf_mover_fd(const struct wf_mover *mover);
void wf_mover_reap(struct wf_mover *mover);

void wf_mover_stats(struct wf_mover *mover, struct wf_mover_stats *out);

#endif
