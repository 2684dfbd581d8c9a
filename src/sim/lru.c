/* SPDX-License-Identifier: Apache-2.0
 *
 * Least recently used: the yardstick.  One queue; what is touched becomes its newest, the oldest
 * goes.  (P. J. Denning, "The working set model for program behavior", CACM 11(5), 1968, and
 * everybody since.)
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

enum place { NOWHERE, HELD };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_queues queues; /* by enum place */
    uint32_t capacity;
};

static void lru_destroy(struct wf_sim_cache *cache)
{
    wf_sim_queues_fini(&cache->queues);
    free(cache);
}

static struct wf_sim_cache *lru_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    if (wf_sim_queues_init(&cache->queues, world->trace->block_count))
        return cache;
    lru_destroy(cache);
    return NULL;
}

static bool lru_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->queues.place[block] == HELD;
}

static uint32_t lru_count(const struct wf_sim_cache *cache)
{
    return cache->queues.in[HELD].count;
}

static void lru_touch(struct wf_sim_cache *cache, uint32_t block)
{
    const struct wf_sim_list *held = &cache->queues.in[HELD];
    if (!lru_holds(cache, block) && held->count == cache->capacity) {
        uint32_t oldest = held->oldest;
        wf_sim_queues_move(&cache->queues, oldest, NOWHERE);
        wf_sim_gone(cache->world, oldest);
    }
    wf_sim_queues_move(&cache->queues, block, HELD);
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
