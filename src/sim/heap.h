/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks in the order of a value that changes: the least first; of equal values, the least `tie`.
 *
 * A binary heap that knows each block's place, so that a value can be changed where it stands.
 * O(log n) in the blocks that are in.
 */
#ifndef WF_SIM_HEAP_H
#define WF_SIM_HEAP_H

#include "sim/load.h"

struct wf_sim_heap_item {
    double value;
    uint64_t tie;
    uint32_t block;
};

struct wf_sim_heap {
    struct wf_sim_heap_item *items; /* [capacity + 1] */
    uint32_t *place;                /* [blocks] index in items + 1; 0: not in */
    uint32_t count;
};

/* Room for `capacity` at once, of block numbers below `blocks`.  False: no memory. */
bool wf_sim_heap_init(struct wf_sim_heap *heap, uint32_t capacity, uint32_t blocks);
void wf_sim_heap_fini(struct wf_sim_heap *heap);

/* Put it in, or give it another value. */
void wf_sim_heap_set(struct wf_sim_heap *heap, uint32_t block, double value, uint64_t tie);
void wf_sim_heap_remove(struct wf_sim_heap *heap, uint32_t block);

static inline bool wf_sim_heap_has(const struct wf_sim_heap *heap, uint32_t block)
{
    return heap->place[block] != 0;
}

#endif
