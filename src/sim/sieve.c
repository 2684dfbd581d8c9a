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

enum place { NOWHERE, HELD };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_queues queues; /* by enum place */
    bool *visited;
    uint32_t hand; /* WF_SIM_NONE: at the oldest */
    uint32_t capacity;
};

static void sieve_destroy(struct wf_sim_cache *cache)
{
    wf_sim_queues_fini(&cache->queues);
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
    cache->hand = WF_SIM_NONE;
    bool good = wf_sim_queues_init(&cache->queues, world->trace->block_count);
    cache->visited = calloc(world->trace->block_count, sizeof *cache->visited);
    if (good && cache->visited)
        return cache;
    sieve_destroy(cache);
    return NULL;
}

static bool sieve_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->queues.place[block] == HELD;
}

static uint32_t sieve_count(const struct wf_sim_cache *cache)
{
    return cache->queues.in[HELD].count;
}

static void evict(struct wf_sim_cache *cache)
{
    uint32_t block = cache->hand != WF_SIM_NONE ? cache->hand : cache->queues.in[HELD].oldest;
    while (cache->visited[block]) {
        cache->visited[block] = false;
        block = cache->queues.links[block].newer;
        if (block == WF_SIM_NONE)
            block = cache->queues.in[HELD].oldest;
    }
    cache->hand = cache->queues.links[block].newer;
    wf_sim_queues_move(&cache->queues, block, NOWHERE);
    wf_sim_gone(cache->world, block);
}

static void sieve_touch(struct wf_sim_cache *cache, uint32_t block)
{
    if (sieve_holds(cache, block)) {
        cache->visited[block] = true;
        return;
    }
    if (cache->queues.in[HELD].count == cache->capacity)
        evict(cache);
    wf_sim_queues_move(&cache->queues, block, HELD);
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
