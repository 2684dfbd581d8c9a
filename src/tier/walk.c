/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/walk.h"

#include <stdlib.h>

#include "sys/memory.h"

/* Ancestors that were not told of yet go onto a stack and come off it root first.  Each item is
 * marked when it is stacked, so that parents that form a ring end the walk too. */
void wf_tier_walk(const struct wf_tier_walk *walk, const void *index, void *context)
{
    if (!walk->items)
        return;
    uint32_t *stack = wf_calloc(walk->items, sizeof *stack, "the walk over a tier");
    uint8_t *told = wf_calloc(walk->items, 1, "the walk over a tier");
    for (uint32_t i = 0; stack && told && i < walk->items; i++) {
        uint32_t depth = 0, at = walk->is_block(index, i) ? i : UINT32_MAX;
        while (at != UINT32_MAX && !told[at]) {
            told[at] = 1;
            stack[depth++] = at;
            at = walk->parent(index, at);
        }
        while (depth > 0)
            walk->found(index, stack[--depth], context);
    }
    free(told);
    free(stack);
}
