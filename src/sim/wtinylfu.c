/* SPDX-License-Identifier: Apache-2.0
 *
 * W-TinyLFU: G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission
 * policy", ACM Transactions on Storage 13(4), 2017.
 *
 * A window of 1 % of the room takes what is new, least recently used first; what leaves it must
 * have been used more often than what would go for it from the main part, which is segmented: 80 %
 * protected, for what was used there again, and probation.  How often is what a count-min sketch of
 * 4 rows with conservative update says, counters of up to 15, all halved after ten times as many
 * uses as there is room.  The paper's doorkeeper, which saves memory in the sketch, is left out.
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

#define ROWS 4
#define COUNTER_MAX 15

enum place { NOWHERE, WINDOW, PROBATION, PROTECTED };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_queues queues; /* by enum place */
    uint8_t *sketch;             /* [ROWS][sketch_mask + 1] */
    uint64_t sketch_mask, seed, uses;
    uint32_t capacity, window_max, protected_max;
};

static void wtinylfu_destroy(struct wf_sim_cache *cache)
{
    wf_sim_queues_fini(&cache->queues);
    free(cache->sketch);
    free(cache);
}

static struct wf_sim_cache *wtinylfu_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->window_max = world->capacity / 100 ? world->capacity / 100 : 1;
    cache->protected_max = (uint32_t)((uint64_t)(world->capacity - cache->window_max) * 4 / 5);
    cache->seed = world->seed;
    uint64_t width = 16;
    while (width < 4 * (uint64_t)world->capacity)
        width *= 2;
    cache->sketch_mask = width - 1;
    bool good = wf_sim_queues_init(&cache->queues, world->trace->block_count);
    cache->sketch = calloc(width, ROWS);
    if (good && cache->sketch)
        return cache;
    wtinylfu_destroy(cache);
    return NULL;
}

static bool wtinylfu_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->queues.place[block] != NOWHERE;
}

static uint32_t wtinylfu_count(const struct wf_sim_cache *cache)
{
    return cache->queues.in[WINDOW].count + cache->queues.in[PROBATION].count +
           cache->queues.in[PROTECTED].count;
}

static void counters_of(struct wf_sim_cache *cache, uint32_t block, uint8_t *out[ROWS])
{
    uint64_t x = (block + cache->seed + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u;
    uint64_t step = (x >> 32) | 1;
    for (uint64_t row = 0; row < ROWS; row++) {
        uint64_t at = (x + row * step) ^ ((x + row * step) >> 17);
        out[row] = cache->sketch + row * (cache->sketch_mask + 1) + (at & cache->sketch_mask);
    }
}

static uint8_t frequency(struct wf_sim_cache *cache, uint32_t block)
{
    uint8_t *counters[ROWS], least = COUNTER_MAX;
    counters_of(cache, block, counters);
    for (int row = 0; row < ROWS; row++)
        least = *counters[row] < least ? *counters[row] : least;
    return least;
}

static void count_use(struct wf_sim_cache *cache, uint32_t block)
{
    uint8_t *counters[ROWS], least = frequency(cache, block);
    counters_of(cache, block, counters);
    for (int row = 0; row < ROWS; row++)
        if (*counters[row] == least && least < COUNTER_MAX)
            ++*counters[row];
    if (++cache->uses < 10 * (uint64_t)cache->capacity)
        return;
    cache->uses = 0;
    for (uint64_t i = 0; i < ROWS * (cache->sketch_mask + 1); i++)
        cache->sketch[i] /= 2;
}

static void move(struct wf_sim_cache *cache, uint32_t block, enum place to)
{
    wf_sim_queues_move(&cache->queues, block, (uint8_t)to);
    if (to == NOWHERE)
        wf_sim_gone(cache->world, block);
}

/* The oldest of a full window asks to be let into the main part. */
static void window_leave(struct wf_sim_cache *cache)
{
    uint32_t candidate = cache->queues.in[WINDOW].oldest;
    uint32_t held = cache->queues.in[PROBATION].count + cache->queues.in[PROTECTED].count;
    if (held < cache->capacity - cache->window_max) {
        move(cache, candidate, PROBATION);
        return;
    }
    enum place from = cache->queues.in[PROBATION].count ? PROBATION : PROTECTED;
    uint32_t victim = cache->queues.in[from].oldest;
    if (held == 0 || frequency(cache, candidate) <= frequency(cache, victim)) {
        move(cache, candidate, NOWHERE);
        return;
    }
    move(cache, victim, NOWHERE);
    move(cache, candidate, PROBATION);
}

static void wtinylfu_touch(struct wf_sim_cache *cache, uint32_t block)
{
    count_use(cache, block);
    switch (cache->queues.place[block]) {
    case WINDOW: move(cache, block, WINDOW); break;
    case PROBATION:
    case PROTECTED:
        move(cache, block, PROTECTED);
        if (cache->queues.in[PROTECTED].count > cache->protected_max)
            move(cache, cache->queues.in[PROTECTED].oldest, PROBATION);
        break;
    default:
        if (cache->queues.in[WINDOW].count == cache->window_max)
            window_leave(cache);
        move(cache, block, WINDOW);
    }
}

const struct wf_sim_cache_ops wf_sim_wtinylfu = {
    .name = "wtinylfu",
    .source = "windowed TinyLFU (Einziger 2017)",
    .create = wtinylfu_create,
    .destroy = wtinylfu_destroy,
    .holds = wtinylfu_holds,
    .count = wtinylfu_count,
    .touch = wtinylfu_touch,
};
