/* SPDX-License-Identifier: Apache-2.0
 *
 * A mover: the one thread that drives a tier, and what the owner thread tells it.
 *
 * Opening a tier, submitting to it and reaping from it take time that the owner does not have, and
 * checksums more.  So each tier has a thread, with the tier's scheduler; jobs go to it through a
 * bounded queue, and come back, done, through another that wakes the owner.  A job belongs to the
 * mover from wf_mover_submit() until its `done` is called, on the owner thread, from
 * wf_mover_reap(); exactly once, whatever becomes of the tier.  What a device holds on to is done
 * when the device lets go of it, not before: it may yet write to the job's memory.
 *
 * Jobs run at once and end in any order, but for three rules: a FLUSH begins when the writes that
 * were submitted before it are done; a REMOVE when the jobs of its key that were submitted before
 * it are; and a job of a key with a REMOVE before it waits for that one.  A read does not wait for
 * a write.
 *
 * Every function here is the owner thread's.  None waits but wf_mover_destroy().
 */
#ifndef WF_DAEMON_MOVER_H
#define WF_DAEMON_MOVER_H

#include "tier/scheduler.h"

/* Found blocks are told in batches of this; two batches are on their way at most, and the tier
 * waits. */
#define WF_MOVER_BATCH 1024u
/* What VERIFY has to read into, when the options do not say. */
#define WF_MOVER_VERIFY_BYTES (8u << 20)
/* wf_tier_block.format of the block that the mover itself writes to measure a tier.  It is never
 * told as found, and what a crash left of it is removed when the tier is opened. */
#define WF_MOVER_PROBE "weft: a mover measures its tier" /* 31 bytes and a zero */

enum wf_mover_kind {
    /* job.request as for the tier; when it says the block's bytes, part_bytes and format, and the
     * tier has others, it is WEFT_MISS */
    WF_MOVE_READ = 1,
    WF_MOVE_WRITE = 2,  /* likewise; compares or takes `checksum` first */
    WF_MOVE_FLUSH = 3,  /* what is found now is durable */
    WF_MOVE_REMOVE = 4, /* job.request.block.key; WEFT_MISS: it was not there */
    WF_MOVE_VERIFY = 5, /* read all of job.request.block.key into the mover's own memory, and forget
                           it: WEFT_OK means that every byte is what its checksum says */
    WF_MOVE_FENCE = 6,  /* job.request.block.depth is the number of a host that is dead; what it had
                           is told as found before this is done */
};

struct wf_mover_job {
    /* Request, class and times, on the monotonic clock (wf_now_ns() / 1000); first member.  Its
     * status and bytes are the result. */
    struct wf_tier_job job;
    enum wf_mover_kind kind;
    /* WRITE: XXH3-64 of the payload.  0: it is taken and set; otherwise what does not match is
     * WEFT_E_CORRUPT and is not written. */
    uint64_t checksum;
    uint64_t submitted_ns, done_ns; /* set by the mover */
    /* wf_last_error() has a sentence in it when the status is negative. */
    void (*done)(struct wf_mover_job *job);
    void *owner; /* the caller's */
    /* The mover's: */
    struct wf_mover_job *next, *prev; /* submitted, then taken up, then done */
    struct wf_mover_job *step_next;   /* ready, to be verified, or a flush that waits */
    struct wf_mover_job *bucket_next; /* older ones whose keys hash alike */
    struct wf_mover_job *asked_next;  /* cancelled or hurried, and the thread has not heard yet */
    struct wf_mover_job *flight_next, *flight_prev; /* with the tier, oldest first */
    uint64_t number, begun_ns;
    uint32_t waits; /* FLUSH: writes before it that are not done */
    uint8_t place, step;
    bool asked, cancel_asked, cancelled, summed, alone;
    uint64_t hurry_us; /* its new deadline; 0: it is not hurried */
};

enum wf_mover_state {
    WF_MOVER_OPENING = 0, /* jobs wait until it is open */
    WF_MOVER_OK = 1,
    WF_MOVER_STALLED = 2, /* a request has been with the tier for longer than timeout_ms; jobs are
                             taken as before */
    WF_MOVER_FAILED = 3,  /* every job ends as WEFT_E_SYSTEM; it tries to open again now and then */
};
const char *wf_mover_state_name(enum wf_mover_state state);

struct wf_mover_options {
    const char *name; /* of the tier, for logs and sentences */
    const struct wf_tier_ops *ops;
    struct wf_tier_options tier; /* strings are copied */
    uint32_t jobs_max;           /* submitted and not done; 1 … WF_TIER_JOBS_MAX */
    uint32_t timeout_ms;         /* 1 or more */
    uint32_t background_depth;   /* see scheduler.h */
    uint32_t shares[WF_TIER_CLASSES];
    uint32_t verify_bytes; /* the largest part that VERIFY can read; 0: WF_MOVER_VERIFY_BYTES */
    uint32_t retry_ms;     /* how long a failed tier is left alone at first, and up to 60 times that
                              when it fails again and again; 0: 1000 */
    /* On the owner thread, from wf_mover_reap(): what the tier had when it was opened, parents
     * before their children, a batch at a time; then opened(), with WEFT_OK or why not.  When a
     * failed tier comes back, all of it comes again; attempts in between that fail are not told.
     * Where others write to the medium, too, what came there is told as found later on, in any
     * order and with no parent promised, and what went is told as gone. changed(): another state
     * than before; what comes after it belongs to that state.  Each may be NULL. */
    void (*found)(void *context, const struct wf_tier_block *blocks, uint32_t count);
    void (*gone)(void *context, const struct wf_tier_block *blocks, uint32_t count); /* keys */
    void (*opened)(void *context, enum weft_status status, const char *sentence);
    void (*changed)(void *context, enum wf_mover_state state, const char *sentence);
    void *context;
};

struct wf_mover_stats {
    enum wf_mover_state state;
    struct wf_tier_stats tier;
    /* Measured: by a probe when it was opened (a block written, read back and removed), and by what
     * was moved since.  0: not known. */
    double read_latency_us;       /* of reads of up to 256 KiB alone with the tier */
    double read_mbps, write_mbps; /* 10^6 bytes a second while busy, of requests from 256 KiB */
    uint32_t queued, in_flight;
    uint64_t verified_bytes;
    char reason[256]; /* why it is not WF_MOVER_OK; "" */
};

struct wf_mover;

enum weft_status wf_mover_create(const struct wf_mover_options *options, struct wf_mover **out);

/* Every job is done first: those not begun are cancelled, those with the tier are waited for.
 * `flush_ms` > 0: what was written is flushed, for that long at most.
 *
 * false: the tier did not come to an end within flush_ms + timeout_ms + 1 s.  The thread and what
 * it holds are left behind, to end when the tier does; jobs that it has are never done, and a
 * device may yet write to the memory that they name. */
bool wf_mover_destroy(struct wf_mover *mover, uint32_t flush_ms);

/* WEFT_OK, or WEFT_PENDING: jobs_max are there; or why it is wrongly put. */
enum weft_status wf_mover_submit(struct wf_mover *mover, struct wf_mover_job *job);

/* It is done soon, as WEFT_E_TIMEOUT or with its result.  The job must not be done yet. */
void wf_mover_cancel(struct wf_mover *mover, struct wf_mover_job *job);
/* Someone waits for it now: from here on it is WF_TIER_WAITED, with that deadline, which is not 0.
 * The class and the deadline in the job are the mover's until it is done, as ever.  The job must
 * not be done yet. */
void wf_mover_hurry(struct wf_mover *mover, struct wf_mover_job *job, uint64_t deadline_us);

/* Readable when there is something to reap. */
int wf_mover_fd(const struct wf_mover *mover);
/* Calls what is to be called; they may submit and cancel, but not destroy. */
void wf_mover_reap(struct wf_mover *mover);

/* As of the last job that is done; what the tier says of itself (`tier`) may follow a moment later.
 */
void wf_mover_stats(struct wf_mover *mover, struct wf_mover_stats *out);
/* Hosts that share the medium, as of a second ago; 0 where none do. */
uint32_t wf_mover_hosts(struct wf_mover *mover, struct wf_tier_host *out, uint32_t max);

#endif
