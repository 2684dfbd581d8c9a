/* SPDX-License-Identifier: Apache-2.0
 *
 * Tell of all blocks of an index, a parent before its children.
 *
 * Whoever hears of them builds chains and can place a block only below one that it knows.
 */
#ifndef WF_TIER_WALK_H
#define WF_TIER_WALK_H

#include <stdbool.h>
#include <stdint.h>

struct wf_tier_walk {
    uint32_t items; /* numbers below it may be blocks */
    bool (*is_block)(const void *index, uint32_t item);
    uint32_t (*parent)(const void *index, uint32_t item); /* UINT32_MAX: none here */
    void (*found)(const void *index, uint32_t item, void *context);
};

/* Nothing is told when there is no memory for the walk: what is not told is a miss. */
void wf_tier_walk(const struct wf_tier_walk *walk, const void *index, void *context);

#endif
