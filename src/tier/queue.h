/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests in the order in which they came, linked through themselves: an empty queue is all zeros.
 * A request is in one queue at most.  The thread that drives the tier alone is in here, but for
 * queues that have a lock.
 */
#ifndef WF_TIER_QUEUE_H
#define WF_TIER_QUEUE_H

#include "tier/tier.h"

struct wf_tier_queue {
    struct wf_tier_request *first, *last;
};

static inline void wf_tier_queue_add(struct wf_tier_queue *queue, struct wf_tier_request *request)
{
    request->next = NULL;
    if (queue->first)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
}

/* NULL when there is none. */
static inline struct wf_tier_request *wf_tier_queue_take(struct wf_tier_queue *queue)
{
    struct wf_tier_request *request = queue->first;
    if (request)
        queue->first = request->next;
    return request;
}

/* false: it is not there. */
static inline bool wf_tier_queue_remove(struct wf_tier_queue *queue,
                                        const struct wf_tier_request *request)
{
    struct wf_tier_request *before = NULL, *at = queue->first;
    while (at && at != request) {
        before = at;
        at = at->next;
    }
    if (!at)
        return false;
    if (before)
        before->next = at->next;
    else
        queue->first = at->next;
    if (queue->last == at)
        queue->last = before;
    return true;
}

#endif
