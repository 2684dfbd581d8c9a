/* SPDX-License-Identifier: Apache-2.0
 *
 * SIEVE: Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, "SIEVE is simpler than LRU", NSDI
 * 2024, algorithm 1.
 *
 * One queue in the order of arrival and a hand that goes from the oldest to the newest: what was
 * used since it passed is spared in place, the first that was not goes, and the hand stays there.
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_list list;
    struct wf_sim_link *links;
    bool *held, *visited;
    uint32_t hand; /* WF_SIM_NONE: at the oldest */
    uint32_t capacity;
};

static void sieve_destroy(struct wf_sim_cache *cache)
{
    free(cache->links);
    free(cache->held);
    free(cache->visited);
    free(cache);
}

static struct wf_sim_cache *sieve_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->list = WF_SIM_LIST_EMPTY;
    cache->hand = WF_SIM_NONE;
    cache->links = calloc(world->trace->block_count, sizeof *cache->links);
    cache->held = calloc(world->trace->block_count, sizeof *cache->held);
    cache->visited = calloc(world->trace->block_count, sizeof *cache->visited);
    if (cache->links && cache->held && cache->visited)
        return cache;
    sieve_destroy(cache);
    return NULL;
}

static bool sieve_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->held[block];
}

static uint32_t sieve_count(const struct wf_sim_cache *cache)
{
    return cache->list.count;
}

static void evict(struct wf_sim_cache *cache)
{
    uint32_t block = cache->hand != WF_SIM_NONE ? cache->hand : cache->list.oldest;
    while (cache->visited[block]) {
        cache->visited[block] = false;
        block = cache->links[block].newer;
        if (block == WF_SIM_NONE)
            block = cache->list.oldest;
    }
    cache->hand = cache->links[block].newer;
    wf_sim_list_remove(&cache->list, cache->links, block);
    cache->held[block] = false;
    wf_sim_gone(cache->world, block);
}

static void sieve_touch(struct wf_sim_cache *cache, uint32_t block)
{
    if (cache->held[block]) {
        cache->visited[block] = true;
        return;
    }
    if (cache->list.count == cache->capacity)
        evict(cache);
    wf_sim_list_push(&cache->list, cache->links, block);
    cache->held[block] = true;
    cache->visited[block] = false;
}

const struct wf_sim_cache_ops wf_sim_sieve = {
    .name = "sieve",
    .source = "SIEVE (Zhang 2024)",
    .create = sieve_create,
    .destroy = sieve_destroy,
    .holds = sieve_holds,
    .count = sieve_count,
    .touch = sieve_touch,
};
