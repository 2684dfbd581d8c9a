/* SPDX-License-Identifier: Apache-2.0
 *
 * Least recently used: the yardstick.  One queue; what is touched becomes its newest, the oldest
 * goes.  (P. J. Denning, "The working set model for program behavior", CACM 11(5), 1968, and
 * everybody since.)
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_list list;
    struct wf_sim_link *links;
    bool *held;
    uint32_t capacity;
};

static void lru_destroy(struct wf_sim_cache *cache)
{
    free(cache->links);
    free(cache->held);
    free(cache);
}

static struct wf_sim_cache *lru_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->list = WF_SIM_LIST_EMPTY;
    cache->links = calloc(world->trace->block_count, sizeof *cache->links);
    cache->held = calloc(world->trace->block_count, sizeof *cache->held);
    if (cache->links && cache->held)
        return cache;
    lru_destroy(cache);
    return NULL;
}

static bool lru_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->held[block];
}

static uint32_t lru_count(const struct wf_sim_cache *cache)
{
    return cache->list.count;
}

static void lru_touch(struct wf_sim_cache *cache, uint32_t block)
{
    if (cache->held[block]) {
        wf_sim_list_remove(&cache->list, cache->links, block);
    } else if (cache->list.count == cache->capacity) {
        uint32_t oldest = wf_sim_list_pop(&cache->list, cache->links);
        cache->held[oldest] = false;
        wf_sim_gone(cache->world, oldest);
    }
    wf_sim_list_push(&cache->list, cache->links, block);
    cache->held[block] = true;
}

const struct wf_sim_cache_ops wf_sim_lru = {
    .name = "lru",
    .source = "least recently used (Denning 1968)",
    .create = lru_create,
    .destroy = lru_destroy,
    .holds = lru_holds,
    .count = lru_count,
    .touch = lru_touch,
};
