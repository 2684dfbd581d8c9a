/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/heap.h"

#include <stdlib.h>

bool wf_sim_heap_init(struct wf_sim_heap *heap, uint32_t capacity, uint32_t blocks)
{
    *heap = (struct wf_sim_heap){
        .items = malloc(((size_t)capacity + 1) * sizeof *heap->items),
        .place = calloc((size_t)blocks + 1, sizeof *heap->place),
    };
    return heap->items && heap->place;
}

void wf_sim_heap_fini(struct wf_sim_heap *heap)
{
    free(heap->items);
    free(heap->place);
}

static bool before(const struct wf_sim_heap_item *a, const struct wf_sim_heap_item *b)
{
    return a->value < b->value || (a->value == b->value && a->tie < b->tie);
}

static void put(struct wf_sim_heap *heap, uint32_t at, struct wf_sim_heap_item item)
{
    heap->items[at] = item;
    heap->place[item.block] = at + 1;
}

/* Put `item` where it belongs, beginning at `at`, whose item is void. */
static void settle(struct wf_sim_heap *heap, uint32_t at, struct wf_sim_heap_item item)
{
    while (at > 0 && before(&item, &heap->items[(at - 1) / 2])) {
        put(heap, at, heap->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below >= heap->count)
            break;
        if (below + 1 < heap->count && before(&heap->items[below + 1], &heap->items[below]))
            below++;
        if (!before(&heap->items[below], &item))
            break;
        put(heap, at, heap->items[below]);
        at = below;
    }
    put(heap, at, item);
}

void wf_sim_heap_set(struct wf_sim_heap *heap, uint32_t block, double value, uint64_t tie)
{
    uint32_t at = heap->place[block] ? heap->place[block] - 1 : heap->count++;
    settle(heap, at, (struct wf_sim_heap_item){value, tie, block});
}

void wf_sim_heap_remove(struct wf_sim_heap *heap, uint32_t block)
{
    uint32_t at = heap->place[block] - 1;
    heap->place[block] = 0;
    heap->count--;
    if (at < heap->count)
        settle(heap, at, heap->items[heap->count]);
}
