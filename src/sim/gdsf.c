/* SPDX-License-Identifier: Apache-2.0
 *
 * Greedy-dual with frequency: one priority queue, two policies.
 *
 *   GDSF    L. Cherkasova, "Improving WWW proxies performance with greedy-dual-size-frequency
 *           caching policy", HP Laboratories HPL-98-69R1, 1998:  K = L + F × C ÷ S
 *   LFU-DA  M. Arlitt, L. Cherkasova, J. Dilley, R. Friedrich, T. Jin, "Evaluating content
 *           management techniques for web proxy caches", ACM SIGMETRICS PER 27(4), 2000:
 *           K = L + F, which is GDSF where all cost the same
 *
 * F counts a block's uses since it came, L is the K of what went last: what has not been used since
 * L was lower ages that way.  All blocks are of one size here, so S is 1; C is what it costs to
 * compute the block again: its tokens' share that is the same everywhere, and their attention over
 * what stands before them.  Of equal K, the one that was used longer ago goes.  That C grows along
 * a chain makes GDSF give up the beginnings of chains before their ends, without which those are no
 * hits: what it loses against LFU-DA on prefixes is the price of seeing single objects.
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/heap.h"

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_heap heap;
    uint32_t *uses;
    const uint32_t *depth;
    double attention; /* of LFU-DA: 0 */
    double inflation; /* L */
    uint64_t clock;
    uint32_t capacity;
};

static void gdsf_destroy(struct wf_sim_cache *cache)
{
    wf_sim_heap_fini(&cache->heap);
    free(cache->uses);
    free(cache);
}

static struct wf_sim_cache *gdsf_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->depth = world->trace->depth;
    cache->attention = world->attention;
    cache->uses = calloc(world->trace->block_count, sizeof *cache->uses);
    if (wf_sim_heap_init(&cache->heap, world->capacity, world->trace->block_count) && cache->uses)
        return cache;
    gdsf_destroy(cache);
    return NULL;
}

static struct wf_sim_cache *lfuda_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = gdsf_create(world);
    if (cache)
        cache->attention = 0;
    return cache;
}

static bool gdsf_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return wf_sim_heap_has(&cache->heap, block);
}

static uint32_t gdsf_count(const struct wf_sim_cache *cache)
{
    return cache->heap.count;
}

static void gdsf_touch(struct wf_sim_cache *cache, uint32_t block)
{
    if (!wf_sim_heap_has(&cache->heap, block)) {
        if (cache->heap.count == cache->capacity) {
            cache->inflation = cache->heap.items[0].value;
            uint32_t least = cache->heap.items[0].block;
            wf_sim_heap_remove(&cache->heap, least);
            wf_sim_gone(cache->world, least);
        }
        cache->uses[block] = 0;
    }
    double cost = 1 + cache->attention * cache->depth[block];
    double value = cache->inflation + ++cache->uses[block] * cost;
    wf_sim_heap_set(&cache->heap, block, value, ++cache->clock);
}

const struct wf_sim_cache_ops wf_sim_gdsf = {
    .name = "gdsf",
    .source = "greedy-dual-size-frequency (Cherkasova 1998)",
    .create = gdsf_create,
    .destroy = gdsf_destroy,
    .holds = gdsf_holds,
    .count = gdsf_count,
    .touch = gdsf_touch,
};

const struct wf_sim_cache_ops wf_sim_lfuda = {
    .name = "lfuda",
    .source = "least frequently used with dynamic aging (Arlitt 2000)",
    .create = lfuda_create,
    .destroy = gdsf_destroy,
    .holds = gdsf_holds,
    .count = gdsf_count,
    .touch = gdsf_touch,
};
