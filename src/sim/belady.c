/* SPDX-License-Identifier: Apache-2.0
 *
 * The bound: what a cache that knows the future would do.
 *
 * L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
 * Journal 5(2), 1966: what is wanted again farthest ahead goes, with bypass: a new block that is
 * wanted again later than all others is not taken in, and one that never is, never.
 *
 * Which bound it is here.  All blocks are of one size, so MIN with bypass gives the most hits that
 * any policy could have, block by block.  A hit counts only as part of an unbroken prefix, though;
 * but whoever wants a block wants its parent first, so a parent's next use is never later than its
 * child's, and, of two with the same next request, the deeper goes first.  So what MIN holds is
 * closed under parents at every moment, each block that it holds is a hit when it is wanted, and
 * the bound is exact: no policy, prefix-closed or not, has more hits by prefix on this trace.
 */
#include <stdlib.h>

#include "sim/belady.h"
#include "sim/cache.h"
#include "sim/heap.h"

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_heap heap; /* the farthest first */
    const struct wf_sim_trace *trace;
    uint32_t capacity;
};

static void belady_destroy(struct wf_sim_cache *cache)
{
    wf_sim_heap_fini(&cache->heap);
    free(cache);
}

static struct wf_sim_cache *belady_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->trace = world->trace;
    if (wf_sim_heap_init(&cache->heap, world->capacity, world->trace->block_count))
        return cache;
    belady_destroy(cache);
    return NULL;
}

static bool belady_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return wf_sim_heap_has(&cache->heap, block);
}

static uint32_t belady_count(const struct wf_sim_cache *cache)
{
    return cache->heap.count;
}

static void let_go(struct wf_sim_cache *cache, uint32_t block)
{
    wf_sim_heap_remove(&cache->heap, block);
    wf_sim_gone(cache->world, block);
}

static void belady_request(struct wf_sim_cache *cache, uint32_t request, uint32_t hits)
{
    const struct wf_sim_trace *trace = cache->trace;
    const struct wf_sim_request *asked = &trace->requests[request];
    (void)hits;
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t block = trace->blocks[asked->first + i], next = trace->next[asked->first + i];
        if (next != WF_SIM_NONE)
            wf_sim_heap_set(&cache->heap, block, -(double)next, UINT64_MAX - i);
        else if (wf_sim_heap_has(&cache->heap, block))
            let_go(cache, block);
        if (cache->heap.count > cache->capacity)
            let_go(cache, cache->heap.items[0].block);
    }
}

enum weft_status wf_sim_belady_kept(const struct wf_sim_trace *trace, uint32_t capacity,
                                    uint8_t **out)
{
    struct wf_sim_world world = {.trace = trace, .capacity = capacity};
    struct wf_sim_cache *cache = belady_create(&world);
    uint64_t *last = calloc((size_t)trace->block_count + 1, sizeof *last); /* reference + 1 */
    uint8_t *kept = calloc(trace->reference_count + 1, 1);
    if (!cache || !last || !kept) {
        if (cache)
            belady_destroy(cache);
        free(last);
        free(kept);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory to look ahead over %u blocks",
                       trace->block_count);
    }
    for (uint32_t r = 0; r < trace->request_count; r++) {
        const struct wf_sim_request *asked = &trace->requests[r];
        uint32_t hits = 0;
        for (uint32_t i = 0; i < asked->count; i++)
            hits += belady_holds(cache, trace->blocks[asked->first + i]);
        for (uint32_t i = 0; i < asked->count; i++) {
            uint32_t block = trace->blocks[asked->first + i];
            if (i < hits)
                kept[last[block] - 1] = 1;
            last[block] = asked->first + i + 1;
        }
        belady_request(cache, r, hits);
    }
    belady_destroy(cache);
    free(last);
    *out = kept;
    return WEFT_OK;
}

const struct wf_sim_cache_ops wf_sim_belady = {
    .name = "belady",
    .source = "the bound: knows the future (Belady 1966)",
    .create = belady_create,
    .destroy = belady_destroy,
    .holds = belady_holds,
    .count = belady_count,
    .request = belady_request,
};
