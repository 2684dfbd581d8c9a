/* SPDX-License-Identifier: Apache-2.0
 *
 * S3-FIFO: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache
 * eviction", SOSP 2023, algorithm 1.
 *
 * New blocks pass through a small queue of a tenth of the room; what was used twice there, or comes
 * back while the ghost queue remembers it, goes to the main queue, which gives what was used
 * another round.  The ghost queue remembers as many as the main queue may hold.  "Used twice" is
 * the paper's freq > 1, uses after the one that brought it in; with one use instead, which some
 * programs have, it is up to half a point better on the Mooncake conversation trace up to 10,000
 * blocks and two points worse at 30,000.
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

#define USES_MAX 3

enum place { NOWHERE, SMALL, MAIN, GHOST, PLACES };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_list lists[PLACES];
    struct wf_sim_link *links;
    uint8_t *place, *uses;
    uint32_t capacity, small_max;
};

static void s3fifo_destroy(struct wf_sim_cache *cache)
{
    free(cache->links);
    free(cache->place);
    free(cache->uses);
    free(cache);
}

static struct wf_sim_cache *s3fifo_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->small_max = world->capacity / 10 ? world->capacity / 10 : 1;
    for (int i = 0; i < PLACES; i++)
        cache->lists[i] = WF_SIM_LIST_EMPTY;
    cache->links = calloc(world->trace->block_count, sizeof *cache->links);
    cache->place = calloc(world->trace->block_count, sizeof *cache->place);
    cache->uses = calloc(world->trace->block_count, sizeof *cache->uses);
    if (cache->links && cache->place && cache->uses)
        return cache;
    s3fifo_destroy(cache);
    return NULL;
}

static bool s3fifo_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->place[block] == SMALL || cache->place[block] == MAIN;
}

static uint32_t s3fifo_count(const struct wf_sim_cache *cache)
{
    return cache->lists[SMALL].count + cache->lists[MAIN].count;
}

static void move(struct wf_sim_cache *cache, uint32_t block, enum place to)
{
    bool held = s3fifo_holds(cache, block);
    wf_sim_list_move(cache->lists, cache->links, cache->place, block, (uint8_t)to);
    if (held && !s3fifo_holds(cache, block))
        wf_sim_gone(cache->world, block);
}

static void remember(struct wf_sim_cache *cache, uint32_t block)
{
    uint32_t most = cache->capacity - cache->small_max;
    while (cache->lists[GHOST].count && cache->lists[GHOST].count >= most)
        move(cache, cache->lists[GHOST].oldest, NOWHERE);
    move(cache, block, most ? GHOST : NOWHERE);
}

static void evict_main(struct wf_sim_cache *cache)
{
    for (;;) {
        uint32_t block = cache->lists[MAIN].oldest;
        if (cache->uses[block] == 0) {
            move(cache, block, NOWHERE);
            return;
        }
        cache->uses[block]--;
        move(cache, block, MAIN);
    }
}

/* False: all of the small queue went to the main one, and nothing is free yet. */
static bool evict_small(struct wf_sim_cache *cache)
{
    while (cache->lists[SMALL].count) {
        uint32_t block = cache->lists[SMALL].oldest;
        if (cache->uses[block] <= 1) {
            remember(cache, block);
            return true;
        }
        cache->uses[block] = 0;
        move(cache, block, MAIN);
    }
    return false;
}

static void s3fifo_touch(struct wf_sim_cache *cache, uint32_t block)
{
    if (s3fifo_holds(cache, block)) {
        if (cache->uses[block] < USES_MAX)
            cache->uses[block]++;
        return;
    }
    bool again = cache->place[block] == GHOST;
    if (again)
        move(cache, block, NOWHERE);
    if (s3fifo_count(cache) == cache->capacity) {
        bool small = cache->lists[SMALL].count >= cache->small_max || !cache->lists[MAIN].count;
        if (!small || !evict_small(cache))
            evict_main(cache);
    }
    cache->uses[block] = 0;
    move(cache, block, again ? MAIN : SMALL);
}

const struct wf_sim_cache_ops wf_sim_s3fifo = {
    .name = "s3fifo",
    .source = "three static FIFO queues (Yang 2023)",
    .create = s3fifo_create,
    .destroy = s3fifo_destroy,
    .holds = s3fifo_holds,
    .count = s3fifo_count,
    .touch = s3fifo_touch,
};
