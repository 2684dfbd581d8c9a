/* SPDX-License-Identifier: Apache-2.0
 *
 * How many copies of a block there should be, and what is moved to get there: what losing a copy
 * costs, when one more pays, and in which order and at which rate a node that leaves is emptied and
 * what a lost one held is copied again.
 *
 * A copy that is not the last is cheap to lose, since it takes a transfer to have it again; the
 * last one takes a computation.  One more copy pays where what it saves in transfers is more than
 * what its room would save otherwise.  What has no other copy moves first, by what it is worth a
 * byte, and no faster than a bucket of tokens fills.
 *
 * Decisions alone: events and time in, actions out.  A job names a block or a chain by a number of
 * the caller's; whoever moves chains gives the blocks before others a greater worth, or less depth,
 * so that no child arrives without its parent.  One thread; nothing allocates after create, and a
 * job is O(log jobs), or O(jobs) when there is no room.
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

struct wf_keep_demand {
    double rate;       /* fetches a second, by one node, from others */
    double transfer_s; /* that each of them takes, and nobody computes meanwhile */
    double bytes;
    double
        room_s_byte_s; /* what that node's least valuable bytes save: seconds a byte and second */
    uint32_t copies, copies_max; /* now, and at most; copies_max 0: no limit */
};

/* Seconds a second that another copy there saves, less what its room costs.  Above 0: make it. */
double wf_keep_copy_gain(const struct wf_keep_demand *demand);

/* ---------------------------------------------------------------------- what is moved */

struct wf_keep;

enum wf_keep_rule {
    WF_KEEP_LAST = 0, /* there is no other copy */
    WF_KEEP_FEW,      /* there are fewer than asked for */
    WF_KEEP_MORE,     /* there are enough; one more pays */
    WF_KEEP_ENOUGH,   /* nothing is to be done */
};

struct wf_keep_job {
    uint32_t number;
    uint32_t depth;          /* of what is worth the same, what stands first goes first */
    uint32_t copies, wanted; /* that stay: not counting one that is about to go */
    double bytes;
    double worth_s; /* seconds that having it saves, of all its uses that are expected */
    bool more;      /* wf_keep_copy_gain() says so */
};

struct wf_keep_options {
    uint32_t jobs_max;
    double bytes_s; /* at which is moved */
    double burst_s; /* the bucket holds what comes in so long; 0: 1 */
};

struct wf_keep_stats {
    uint32_t jobs;
    double bytes;            /* of these */
    double last_bytes;       /* of these, what has no other copy */
    uint64_t moved, refused; /* jobs; refused: there was no room, and nothing less urgent */
    double moved_bytes;
};

enum weft_status wf_keep_create(const struct wf_keep_options *options, double now_s,
                                struct wf_keep **out);
/* NULL: nothing. */
void wf_keep_destroy(struct wf_keep *keep);
void wf_keep_rate_set(struct wf_keep *keep, double bytes_s, double now_s);

enum wf_keep_rule wf_keep_judge(const struct wf_keep_job *job);
/* It is to be moved, if it is worth it.  When there are jobs_max, the least urgent one goes:
 * *out_dropped is its number, or this one's.  False: something was dropped. */
bool wf_keep_add(struct wf_keep *keep, const struct wf_keep_job *job, uint32_t *out_dropped);
/* The most urgent one, now: WEFT_OK, and its bytes are spent.  WEFT_PENDING: at *out_at_s.
 * WEFT_MISS: there is nothing to move.  A job of more bytes than the bucket holds waits until it is
 * full, and is owed. */
enum weft_status wf_keep_next(struct wf_keep *keep, double now_s, struct wf_keep_job *out,
                              double *out_at_s);
/* All of it, at this rate, takes so long. */
double wf_keep_left_s(const struct wf_keep *keep, double now_s);
void wf_keep_stats(const struct wf_keep *keep, struct wf_keep_stats *out);

#endif
