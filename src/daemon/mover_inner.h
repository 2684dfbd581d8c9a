/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the mover share: mover.c (the owner's side, and the queues between), and on the
 * mover's thread mover_thread.c (its life), mover_jobs.c (a job's way), mover_meter.c (what goes to
 * the tier, timed) and mover_news.c (what others do to the medium).
 *
 * Two threads meet in `lock` only, which is held for list operations and copies, never across a
 * call of the tier or of the owner's.  All that goes to the owner is in one list, in the order in
 * which it happened: jobs that are done, and notices (found, opened, changed) that are made like
 * jobs.
 */
#ifndef WF_DAEMON_MOVER_INNER_H
#define WF_DAEMON_MOVER_INNER_H

#include <pthread.h>

#include "base/sum.h"
#include "daemon/mover.h"

#define WF_MOVER_BATCHES 2u
#define WF_MOVER_NOTICES 8u /* besides batches */
#define WF_MOVER_LEFTOVERS_MAX 64u
/* When checksums of as much were taken, it is looked first whether a read came that is waited for.
 */
#define WF_MOVER_SUM_BYTES (4u << 20)

/* wf_mover_job.place, under the lock */
enum { WF_PLACE_INBOX = 1, WF_PLACE_TAKEN, WF_PLACE_DONE };

/* wf_mover_job.step, the thread's: where a job is that was taken up */
enum {
    WF_STEP_HELD = 1,  /* another goes first */
    WF_STEP_READY,     /* may go on */
    WF_STEP_VERIFY,    /* in the line of those to be verified, or the one that is */
    WF_STEP_SCHEDULED, /* the scheduler has it, or the tier */
};

struct wf_mover_list {
    struct wf_mover_job *first, *last; /* by next and prev */
};

/* Nothing goes to the tier any more: because it failed, or the mover stops. */
enum wf_mover_ending { WF_ENDING_NOT = 0, WF_ENDING_FAILED, WF_ENDING_STOPPED };

/* By step_next. */
struct wf_mover_line {
    struct wf_mover_job *first, *last;
};

enum wf_mover_what { WF_NOTICE_FOUND = 1, WF_NOTICE_GONE, WF_NOTICE_OPENED, WF_NOTICE_CHANGED };

struct wf_mover_notice {
    struct wf_mover_job job; /* first; its kind is 0 and its `done` delivers */
    struct wf_mover *mover;
    bool busy; /* under the lock */
    enum wf_mover_what what;
    enum weft_status status;   /* OPENED */
    enum wf_mover_state state; /* CHANGED */
    char sentence[256];
    struct wf_tier_block *blocks; /* FOUND, GONE */
    uint32_t count;
};

/* Bytes of large requests and the time for which the tier was busy with them.  The past is both
 * sums, fading alike, so that a burst of ends counts for what it is. */
struct wf_mover_rate {
    uint64_t flying_bytes;
    double bytes, busy_ns; /* since it was last added to the past */
    double past_bytes, past_ns;
    double mbps;
};

struct wf_mover {
    /* Unchanged once it is made. */
    struct wf_mover_options options;
    char *name, *path;
    const struct wf_tier_ops *ops;
    pthread_t thread;
    int event, inbox_event;
    struct wf_tier_scheduler *scheduler;
    uint8_t *buffer; /* for what is verified, and the probe */
    uint32_t buffer_bytes;
    uint64_t probe_as_is, probe_as_is_bytes; /* the probe's own part of the tier's figures */
    struct wf_mover_job **buckets;           /* taken jobs by key, youngest first */
    uint32_t buckets_mask;

    /* The owner thread's. */
    uint32_t jobs; /* submitted, their `done` not called */

    /* Under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t room;  /* a notice is free, or `stopping` */
    pthread_cond_t ended; /* `exited` */
    struct wf_mover_list inbox, done;
    struct wf_mover_job *asked; /* by asked_next */
    bool inbox_told, done_told; /* the eventfd is, or is about to be, readable */
    bool stopping, exited;
    bool abandoned; /* the owner is gone; the thread frees everything */
    uint32_t flush_ms;
    uint32_t unfinished;
    struct wf_mover_stats stats;
    struct wf_mover_notice notices[WF_MOVER_NOTICES + WF_MOVER_BATCHES];
    struct wf_tier_host hosts[WF_TIER_HOSTS_MAX];
    uint32_t host_count;

    /* The thread's. */
    struct wf_tier *tier; /* NULL: not open */
    struct wf_mover_list taken;
    struct wf_mover_line ready, verify, flushes;
    struct wf_mover_job part; /* the read of the first in `verify`, on its way */
    bool part_flying;
    struct wf_tier_block verified; /* the first in `verify`, as it was when that began */
    uint32_t verified_parts;
    uint64_t verified_here; /* bytes of it */
    uint64_t next_number;
    uint32_t writes;    /* taken and not done */
    uint32_t scheduled; /* with the scheduler, or through it with the tier */
    enum wf_mover_ending ending;
    bool tried;    /* to open it, once at least */
    uint64_t held; /* the tier's claim when it was open last; 0: it was not, or has none */
    bool served;   /* a request was WEFT_OK since it was opened */
    uint32_t errors_in_row;
    char last_error[256];
    uint64_t warned_ns;

    bool rung;                   /* the tier's event was readable in this round */
    uint64_t news_ms, hosts_ms;  /* when to look again */
    struct wf_tier_block sample; /* one of what was told as news, to measure with; bytes 0: none */

    /* The thread's, the meter. */
    struct wf_mover_job *oldest, *youngest; /* with the tier */
    uint32_t in_flight;
    uint64_t metered_ns;
    struct wf_mover_rate reads, writing;
    double read_latency_us;
    uint64_t verified_bytes;
    uint64_t summed_bytes; /* in this round; see WF_MOVER_SUM_BYTES */
    XXH3_state_t *sum;
    const struct wf_mover_job *sums_of; /* whose are in `sums`; NULL: nobody's */
    uint64_t sums[WF_TIER_PARTS_MAX];   /* of the parts of what is written next */
};

/* --- mover.c: between the threads; called on the mover's thread */

/* It is done: on to the owner. */
void wf_mover_tell(struct wf_mover *m, struct wf_mover_job *job, enum weft_status status,
                   uint64_t bytes);
/* With the lock: the thread's own figures, for wf_mover_stats(). */
void wf_mover_publish(struct wf_mover *m);
/* What the owner submitted, to `taken`; what it cancelled or hurried, one at a time (NULL: no
 * more), and the new deadline of what is hurried (0: cancelled). */
struct wf_mover_job *wf_mover_take(struct wf_mover *m);
struct wf_mover_job *wf_mover_take_asked(struct wf_mover *m, uint64_t *out_hurry_us);
/* A free one to fill in and send, once there is; NULL: it is stopping, and nobody listens. */
struct wf_mover_notice *wf_mover_notice(struct wf_mover *m, enum wf_mover_what what);
void wf_mover_send(struct wf_mover *m, struct wf_mover_notice *notice);
/* FAILED also ends what was submitted and not taken up yet. */
void wf_mover_state_set(struct wf_mover *m, enum wf_mover_state state, const char *sentence);
bool wf_mover_stopping(struct wf_mover *m);
/* The last that the thread does with it. */
void wf_mover_exit(struct wf_mover *m);

void wf_mover_list_remove(struct wf_mover_list *list, struct wf_mover_job *job);
void wf_mover_list_add(struct wf_mover_list *list, struct wf_mover_job *job);

/* --- mover_thread.c */
void *wf_mover_run(void *mover);

/* --- mover_jobs.c: a job's way from the inbox to the owner */

/* One round: what is new, what is cancelled, what is ready, what the tier has done.  Waits up to
 * wait_ms for the last. */
void wf_mover_round(struct wf_mover *m, uint32_t wait_ms);
/* Cancel all that was taken up and, unless `begun` too, is not with the tier. */
void wf_mover_cancel_all(struct wf_mover *m, bool begun);
bool wf_mover_idle(const struct wf_mover *m);

/* --- mover_news.c: a medium that others write to */

/* Tell the owner what came and went there, when it is time to look. */
void wf_mover_news(struct wf_mover *m);
/* All of it, before the tier counts as open. */
void wf_mover_news_first(struct wf_mover *m);
/* How long the thread may sleep until it must look, in ms; -1: for as long as it likes. */
int wf_mover_news_wait(const struct wf_mover *m);
enum weft_status wf_mover_fence(struct wf_mover *m, const struct wf_mover_job *job);

/* --- mover_meter.c: the tier, timed */

/* For the scheduler, with the mover for a tier. */
extern const struct wf_tier_ops wf_mover_metered;
/* Write, read and remove a block of its own, nothing else being there.  `known` has something to
 * read when nothing can be written; may be NULL. */
void wf_mover_probe(struct wf_mover *m, const struct wf_tier_block *known);
/* Run requests to their end, nothing else being there, cancelled when they take longer. */
void wf_mover_run_alone(struct wf_mover *m, struct wf_tier_request *requests, uint32_t count,
                        uint32_t timeout_ms);

#endif
