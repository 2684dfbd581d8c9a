/* SPDX-License-Identifier: Apache-2.0
 *
 * Which order stands: the guard over eviction by value.
 *
 * An order that learns can be worse than one that does not.  So a sample of all blocks (those whose
 * keys fall below a threshold) is also kept in three small caches, each as large as the sample's
 * share of what is held, that go by value, by last use (LRU) and by count of uses with dynamic
 * aging (LFU-DA: M. Arlitt et al., "Evaluating content management techniques for web proxy caches",
 * SIGMETRICS PER 27(4), 2000).  The one that had the most hits over a window that fades stands; to
 * take over wants a margin.  (Miniature simulation: C. Waldspurger et al., "Cache modeling and
 * optimization using miniature simulations", USENIX ATC 2017; the threshold that falls as the
 * sample fills: C. Waldspurger et al., "SHARDS", FAST 2015.)
 *
 * In each small cache a chain is closed as in the real one: only leaves of the sample go, none of
 * the request that runs, and what lies behind a hole is no hit.
 *
 * No I/O, no clock.  One thread.  O(log WF_GUARD_SAMPLES) a sampled block.
 */
#ifndef WF_CORE_VALUE_GUARD_H
#define WF_CORE_VALUE_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define WF_GUARD_SAMPLES 1024u

enum wf_guard_order {
    WF_GUARD_VALUE = 0,
    WF_GUARD_RECENT, /* LRU */
    WF_GUARD_COUNT,  /* LFU-DA */
    WF_GUARD_ORDERS,
};

struct wf_policy;
struct wf_guard;

/* Where a request ended, for one that goes on there. */
struct wf_guard_end {
    uint32_t key;     /* of its last sampled block; 0: it has none */
    uint32_t request; /* its number */
};

/* NULL: no memory. */
struct wf_guard *wf_guard_create(uint32_t slots_max);
void wf_guard_destroy(struct wf_guard *guard);

enum wf_guard_order wf_guard_stands(const struct wf_guard *guard);

/* The open request, its blocks in their new segments; it is weighed when it is sure not to go on.
 * `from`: what it goes on from, or NULL. */
void wf_guard_add(struct wf_guard *guard, struct wf_policy *p, const struct wf_guard_end *from,
                  struct wf_guard_end *out);
/* Of the request that is being put together a block found no room; it is of this segment, a ghost.
 */
void wf_guard_refused(struct wf_guard *guard, const struct wf_policy *p, uint64_t key,
                      uint32_t segment);
/* What was added is over, unless what comes goes on from it.  True: another order stands now. */
bool wf_guard_flush_but(struct wf_guard *guard, struct wf_policy *p,
                        const struct wf_guard_end *from);
bool wf_guard_flush(struct wf_guard *guard, struct wf_policy *p);
/* The clock moved on. */
void wf_guard_advance(struct wf_guard *guard, struct wf_policy *p);
/* Room is wanted while so many blocks are held. */
void wf_guard_full(struct wf_guard *guard, uint32_t held);

/* The aging of LFU-DA at the time, in ticks: what a use then was worth before its count. */
float wf_guard_inflation(const struct wf_guard *guard, uint32_t ticks);

/* For tests: the hits of an order in the window, in parts of the blocks that it saw. */
double wf_guard_hit_rate(const struct wf_guard *guard, enum wf_guard_order order);

#endif
