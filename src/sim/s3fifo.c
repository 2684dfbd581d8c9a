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

enum place { NOWHERE, SMALL, MAIN, GHOST };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_queues queues; /* by enum place */
    uint8_t *uses;
    uint32_t capacity, small_max;
};

static void s3fifo_destroy(struct wf_sim_cache *cache)
{
    wf_sim_queues_fini(&cache->queues);
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
    bool good = wf_sim_queues_init(&cache->queues, world->trace->block_count);
    cache->uses = calloc(world->trace->block_count, sizeof *cache->uses);
    if (good && cache->uses)
        return cache;
    s3fifo_destroy(cache);
    return NULL;
}

static bool s3fifo_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->queues.place[block] == SMALL || cache->queues.place[block] == MAIN;
}

static uint32_t s3fifo_count(const struct wf_sim_cache *cache)
{
    return cache->queues.in[SMALL].count + cache->queues.in[MAIN].count;
}

static void move(struct wf_sim_cache *cache, uint32_t block, enum place to)
{
    bool held = s3fifo_holds(cache, block);
    wf_sim_queues_move(&cache->queues, block, (uint8_t)to);
    if (held && !s3fifo_holds(cache, block))
        wf_sim_gone(cache->world, block);
}

static void remember(struct wf_sim_cache *cache, uint32_t block)
{
    uint32_t most = cache->capacity - cache->small_max;
    while (cache->queues.in[GHOST].count && cache->queues.in[GHOST].count >= most)
        move(cache, cache->queues.in[GHOST].oldest, NOWHERE);
    move(cache, block, most ? GHOST : NOWHERE);
}

static void evict_main(struct wf_sim_cache *cache)
{
    for (;;) {
        uint32_t block = cache->queues.in[MAIN].oldest;
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
    while (cache->queues.in[SMALL].count) {
        uint32_t block = cache->queues.in[SMALL].oldest;
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
    bool again = cache->queues.place[block] == GHOST;
    if (again)
        move(cache, block, NOWHERE);
    if (s3fifo_count(cache) == cache->capacity) {
        bool small = cache->queues.in[SMALL].count >= cache->small_max ||
                     !cache->queues.in[MAIN].count;
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
