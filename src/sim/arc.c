/* SPDX-License-Identifier: Apache-2.0
 *
 * ARC: N. Megiddo and D. S. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003,
 * figure 4.
 *
 * T1 holds what was used once of late, T2 what was used more often; B1 and B2 remember what went
 * out of them.  A hit in a memory of what went moves the target size p of T1: towards the queue
 * that would have had it.
 */
#include <stdlib.h>

#include "sim/cache.h"
#include "sim/list.h"

enum place { NOWHERE, T1, T2, B1, B2 };

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct wf_sim_queues queues; /* by enum place */
    double p;
    uint32_t capacity;
};

static void arc_destroy(struct wf_sim_cache *cache)
{
    wf_sim_queues_fini(&cache->queues);
    free(cache);
}

static struct wf_sim_cache *arc_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    if (wf_sim_queues_init(&cache->queues, world->trace->block_count))
        return cache;
    arc_destroy(cache);
    return NULL;
}

static bool arc_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->queues.place[block] == T1 || cache->queues.place[block] == T2;
}

static uint32_t arc_count(const struct wf_sim_cache *cache)
{
    return cache->queues.in[T1].count + cache->queues.in[T2].count;
}

static void move(struct wf_sim_cache *cache, uint32_t block, enum place to)
{
    bool held = arc_holds(cache, block);
    wf_sim_queues_move(&cache->queues, block, (uint8_t)to);
    if (held && !arc_holds(cache, block))
        wf_sim_gone(cache->world, block);
}

/* The paper's REPLACE: one block out of T1 or T2 into the memory of what went. */
static void replace(struct wf_sim_cache *cache, bool in_b2)
{
    const struct wf_sim_list *t1 = &cache->queues.in[T1], *t2 = &cache->queues.in[T2];
    if (t1->count && (t1->count > cache->p || (in_b2 && t1->count == cache->p) || !t2->count))
        move(cache, t1->oldest, B1);
    else if (t2->count)
        move(cache, t2->oldest, B2);
}

/* Case IV: it is in neither cache nor memory. */
static void room_for_new(struct wf_sim_cache *cache)
{
    uint32_t t1 = cache->queues.in[T1].count, b1 = cache->queues.in[B1].count;
    uint32_t t2 = cache->queues.in[T2].count, b2 = cache->queues.in[B2].count;
    if (t1 + b1 == cache->capacity) {
        if (t1 < cache->capacity) {
            move(cache, cache->queues.in[B1].oldest, NOWHERE);
            replace(cache, false);
        } else {
            move(cache, cache->queues.in[T1].oldest, NOWHERE);
        }
    } else if (t1 + b1 + t2 + b2 >= cache->capacity) {
        if (t1 + b1 + t2 + b2 == 2 * cache->capacity)
            move(cache, cache->queues.in[B2].oldest, NOWHERE);
        replace(cache, false);
    }
}

static void arc_touch(struct wf_sim_cache *cache, uint32_t block)
{
    double b1 = cache->queues.in[B1].count, b2 = cache->queues.in[B2].count, c = cache->capacity;
    switch (cache->queues.place[block]) {
    case T1:
    case T2: move(cache, block, T2); break;
    case B1:
        cache->p += b2 > b1 ? b2 / b1 : 1;
        cache->p = cache->p < c ? cache->p : c;
        replace(cache, false);
        move(cache, block, T2);
        break;
    case B2:
        cache->p -= b1 > b2 ? b1 / b2 : 1;
        cache->p = cache->p > 0 ? cache->p : 0;
        replace(cache, true);
        move(cache, block, T2);
        break;
    default: room_for_new(cache); move(cache, block, T1);
    }
}

const struct wf_sim_cache_ops wf_sim_arc = {
    .name = "arc",
    .source = "adaptive replacement cache (Megiddo and Modha 2003)",
    .create = arc_create,
    .destroy = arc_destroy,
    .holds = arc_holds,
    .count = arc_count,
    .touch = arc_touch,
};
