/* SPDX-License-Identifier: Apache-2.0
 *
 * Which request a tier gets next, one scheduler a device.
 *
 * Reads that someone waits for go first, earliest deadline first (C. L. Liu and J. W. Layland,
 * 1973).  What remains of the queue, and never more than background_depth of it, is shared by the
 * classes behind, each in proportion to its share of the bytes, and earliest deadline first within
 * a class.  A deadline is an order and drops nothing; what is of no use after some time says so
 * with expires_us.
 *
 * A read of parts that another job reads already waits for that one's bytes and makes it as urgent
 * as itself, in the queue and in flight: what someone waits for does not take up room that is meant
 * for what nobody waits for.  Who reads what lies there as it is (as_stored) reads for himself: to
 * others it is not the block.
 *
 * Submitting, choosing, cancelling and expiring take O(log jobs), and O(followers) more when who
 * reads for others leaves the queue.  One thread drives it together with its tier; time is passed
 * in.  Nothing is allocated after create.
 */
#ifndef WF_TIER_SCHEDULER_H
#define WF_TIER_SCHEDULER_H

#include "tier/tier.h"

#define WF_TIER_JOBS_MAX 4096u

enum wf_tier_class {
    WF_TIER_WAITED,
    WF_TIER_PREFETCH,
    WF_TIER_DEMOTE,
    WF_TIER_SCRUB,
    WF_TIER_CLASSES,
};

struct wf_tier_job {
    /* The caller's, unchanged until the job is done but by wf_tier_scheduler_hurry(); the request
     * as for submit.  Its status and bytes are the job's result: the tier's, or WEFT_E_TIMEOUT when
     * it was cancelled or had not begun when it expired. */
    struct wf_tier_request request;
    enum wf_tier_class class;
    uint64_t deadline_us; /* earliest first, and those of one deadline as they came; 0: last */
    uint64_t expires_us;  /* not begun by then, it is dropped; 0: never */
    /* The scheduler's: */
    struct wf_tier_job *next, *previous; /* done, or followers of one leader */
    struct wf_tier_job *followers;       /* jobs that wait for this one's bytes */
    struct wf_tier_job *leader;          /* whose bytes it waits for */
    struct wf_tier_job *same_hash;       /* reads that others can join */
    uint64_t urgent_us;                  /* the earliest deadline of it and its followers */
    uint64_t order;                      /* in which it came */
    uint64_t cost_bytes;
    uint32_t place[2];         /* in its class's heap, in that of expiry */
    enum wf_tier_class urgent; /* the first class of it and its followers */
    uint8_t state;
    bool given_up;  /* cancelled, and read on for its followers */
    bool cancelled; /* at the tier: nobody can join it any more */
    bool background;
};

struct wf_tier_schedule {
    const struct wf_tier_ops *ops; /* and the tier, borrowed; nobody else may submit to it */
    struct wf_tier *tier;
    uint32_t queue_depth;      /* no more than the tier's */
    uint32_t background_depth; /* 1 … queue_depth: what is not WAITED has no more in flight */
    uint32_t jobs_max;         /* 1 … WF_TIER_JOBS_MAX: accepted and not yet reaped */
    uint32_t shares[WF_TIER_CLASSES]; /* of the bytes, 1 … 1000; WAITED's is not looked at */
};

struct wf_tier_scheduler;

enum weft_status wf_tier_scheduler_create(const struct wf_tier_schedule *schedule,
                                          struct wf_tier_scheduler **out);
/* No job may be left. */
void wf_tier_scheduler_destroy(struct wf_tier_scheduler *scheduler);

/* WEFT_OK: it will be reaped, once.  WEFT_PENDING: jobs_max are there, reap first. */
enum weft_status wf_tier_scheduler_submit(struct wf_tier_scheduler *scheduler,
                                          struct wf_tier_job *job);
/* From now on the job has that class and deadline. */
void wf_tier_scheduler_hurry(struct wf_tier_scheduler *scheduler, struct wf_tier_job *job,
                             enum wf_tier_class class, uint64_t deadline_us);
/* It is reaped soon, as WEFT_E_TIMEOUT or with its result; who waits for the same bytes gets
 * them. */
void wf_tier_scheduler_cancel(struct wf_tier_scheduler *scheduler, struct wf_tier_job *job);
/* Give the tier what it has room for, and take up to `max` jobs that are done, waiting as the
 * tier's reap does. */
uint32_t wf_tier_scheduler_reap(struct wf_tier_scheduler *scheduler, uint64_t now_us,
                                struct wf_tier_job **out, uint32_t max, uint32_t timeout_ms);

#endif
