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

enum place { NOWHERE, WINDOW, PROBATION, PROTECTED, PLACES };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_list lists[PLACES];
    struct wf_sim_link *links;
    uint8_t *place;
    uint8_t *sketch; /* [ROWS][sketch_mask + 1] */
    uint64_t sketch_mask, seed, uses;
    uint32_t capacity, window_max, protected_max;
};

static void wtinylfu_destroy(struct wf_sim_cache *cache)
{
    free(cache->links);
    free(cache->place);
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
    for (int i = 0; i < PLACES; i++)
        cache->lists[i] = WF_SIM_LIST_EMPTY;
    cache->links = calloc(world->trace->block_count, sizeof *cache->links);
    cache->place = calloc(world->trace->block_count, sizeof *cache->place);
    cache->sketch = calloc(width, ROWS);
    if (cache->links && cache->place && cache->sketch)
        return cache;
    wtinylfu_destroy(cache);
    return NULL;
}

static bool wtinylfu_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->place[block] != NOWHERE;
}

static uint32_t wtinylfu_count(const struct wf_sim_cache *cache)
{
    return cache->lists[WINDOW].count + cache->lists[PROBATION].count +
           cache->lists[PROTECTED].count;
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
    wf_sim_list_move(cache->lists, cache->links, cache->place, block, (uint8_t)to);
    if (to == NOWHERE)
        wf_sim_gone(cache->world, block);
}

/* The oldest of a full window asks to be let into the main part. */
static void window_leave(struct wf_sim_cache *cache)
{
    uint32_t candidate = cache->lists[WINDOW].oldest;
    uint32_t held = cache->lists[PROBATION].count + cache->lists[PROTECTED].count;
    if (held < cache->capacity - cache->window_max) {
        move(cache, candidate, PROBATION);
        return;
    }
    enum place from = cache->lists[PROBATION].count ? PROBATION : PROTECTED;
    uint32_t victim = cache->lists[from].oldest;
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
    switch (cache->place[block]) {
    case WINDOW: move(cache, block, WINDOW); break;
    case PROBATION:
    case PROTECTED:
        move(cache, block, PROTECTED);
        if (cache->lists[PROTECTED].count > cache->protected_max)
            move(cache, cache->lists[PROTECTED].oldest, PROBATION);
        break;
    default:
        if (cache->lists[WINDOW].count == cache->window_max)
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
