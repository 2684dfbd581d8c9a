/* SPDX-License-Identifier: Apache-2.0
 *
 * How many copies of a block there should be, and what is moved to get there: what losing a copy
 * costs, and in which order and at which rate a node that leaves is emptied and what a lost one
 * held is copied again.
 *
 * A copy that is not the last is cheap to lose, since it takes a transfer to have it again; the
 * last one takes a computation.  Who reads a block has a copy from then on, so that what many want
 * is where they are, without a decision.  What has no other copy moves first, by what it is worth a
 * byte, and no faster than a bucket of tokens fills.
 *
 * Decisions alone: events and time in, actions out.  A job names a block or a chain by a number of
 * the caller's; whoever moves chains gives the blocks before others a greater worth, or less depth,
 * so that no child arrives without its parent.  One thread; nothing allocates after create, and a
 * job is O(log jobs).
 */
#ifndef WF_CORE_KEEP_H
#define WF_CORE_KEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

/* ---------------------------------------------------------------------- what a copy is worth */

struct wf_keep_copy {
    uint32_t others;    /* copies elsewhere */
    double stays;       /* the chance that one of them is still there when it is wanted, each */
    double transfer_s;  /* to have it from there */
    double recompute_s; /* to have it when it is nowhere */
};

/* Seconds to have it again once this copy went: what eviction is to count. */
double wf_keep_cost_s(const struct wf_keep_copy *copy);

/* ---------------------------------------------------------------------- what is moved */

struct wf_keep;

enum wf_keep_rule {
    WF_KEEP_LAST = 0, /* there is no other copy */
    WF_KEEP_FEW,      /* there are fewer than asked for */
    WF_KEEP_SHARE,    /* there are enough, but there is too much where this one lies */
    WF_KEEP_ENOUGH,   /* nothing is to be done */
    WF_KEEP_RULES,
};

struct wf_keep_job {
    uint32_t number;
    uint32_t depth;          /* of what is worth the same, what stands first goes first */
    uint32_t copies, wanted; /* that stay: not counting one that is about to go */
    double bytes;
    double worth_s; /* seconds that having it saves, of all its uses that are expected */
    bool share;     /* it is to lie elsewhere */
};

struct wf_keep_options {
    uint32_t jobs_max;
    double bytes_s; /* at which is moved */
    double burst_s; /* the bucket holds what comes in so long; 0: 1 */
};

struct wf_keep_stats {
    uint32_t jobs;
    double bytes;      /* of these */
    double last_bytes; /* of these, what has no other copy */
    uint64_t moved;    /* jobs */
    double moved_bytes;
};

enum weft_status wf_keep_create(const struct wf_keep_options *options, double now_s,
                                struct wf_keep **out);
/* NULL: nothing. */
void wf_keep_destroy(struct wf_keep *keep);
void wf_keep_rate_set(struct wf_keep *keep, double bytes_s, double now_s);

enum wf_keep_rule wf_keep_judge(const struct wf_keep_job *job);
/* It is to be moved, unless there are enough.  False: there are jobs_max. */
bool wf_keep_add(struct wf_keep *keep, const struct wf_keep_job *job);
/* There is nothing to move any more. */
void wf_keep_clear(struct wf_keep *keep);
/* The most urgent one, now: WEFT_OK, and its bytes are spent.  WEFT_PENDING: at *out_at_s.
 * WEFT_MISS: there is nothing to move.  A job of more bytes than the bucket holds waits until it is
 * full, and is owed. */
enum weft_status wf_keep_next(struct wf_keep *keep, double now_s, struct wf_keep_job *out,
                              double *out_at_s);
/* What came of it was not moved. */
void wf_keep_unspent(struct wf_keep *keep, const struct wf_keep_job *job);
/* All of it, at this rate, takes so long. */
double wf_keep_left_s(const struct wf_keep *keep, double now_s);
void wf_keep_stats(const struct wf_keep *keep, struct wf_keep_stats *out);

#endif
