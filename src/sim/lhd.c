/* SPDX-License-Identifier: Apache-2.0
 *
 * LHD: N. Beckmann, H. Chen, A. Cidon, "LHD: improving cache hit rate by maximizing hit density",
 * NSDI 2018.
 *
 * The hit density of a block is what it may expect in hits, divided by the room × time that it will
 * take until it is hit or goes.  It is learned from counts of hits and evictions by age, for 16
 * classes of blocks by the ages at which they were hit the last two times; the least dense of 32
 * blocks drawn by chance goes.  Ages are counted in uses, in steps that let 20,000 of them span a
 * hundred times the room or more, as the authors' program has it; now and then a block is kept
 * against its density, so that high ages are seen at all.  All blocks are of one size.
 *
 * Two things are otherwise than in the authors' program, since traces of requests are short: the
 * counts are evaluated every 16,384 uses, not a million, and 32 blocks are drawn from the start.
 */
#include <stdlib.h>

#include "base/random.h"
#include "sim/cache.h"

#define AGES 20000
#define CLASSES 16
#define SAMPLE 32
#define LEARNED 50 /* evaluations */
#define EVALUATE_EVERY 16384
#define DECAY 0.9
#define EXPLORE_ONE_IN 32

struct block {
    uint64_t used_at;
    uint32_t hit_age, hit_age_before;
    uint32_t place; /* in held + 1; 0: not in */
    uint8_t kind;   /* its class */
    bool explorer;
};

struct wf_sim_cache {
    const struct wf_sim_world *world;
    struct block *blocks;
    uint32_t *held;                     /* [capacity] */
    double *hits, *evictions, *density; /* [CLASSES][AGES] */
    uint64_t clock, random;
    uint32_t step_bits; /* an age is 1 << step_bits uses */
    uint32_t capacity, count, evaluations;
    int64_t explorers_left;
};

static void lhd_destroy(struct wf_sim_cache *cache)
{
    free(cache->blocks);
    free(cache->held);
    free(cache->hits);
    free(cache->evictions);
    free(cache->density);
    free(cache);
}

static struct wf_sim_cache *lhd_create(const struct wf_sim_world *world)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->world = world;
    cache->capacity = world->capacity;
    cache->random = world->seed;
    while (((uint64_t)AGES << cache->step_bits) < 100 * (uint64_t)world->capacity)
        cache->step_bits++;
    cache->explorers_left = world->capacity / 100;
    cache->blocks = calloc(world->trace->block_count, sizeof *cache->blocks);
    cache->held = calloc(world->capacity, sizeof *cache->held);
    cache->hits = calloc((size_t)CLASSES * AGES, sizeof *cache->hits);
    cache->evictions = calloc((size_t)CLASSES * AGES, sizeof *cache->evictions);
    cache->density = calloc((size_t)CLASSES * AGES, sizeof *cache->density);
    if (!cache->blocks || !cache->held || !cache->hits || !cache->evictions || !cache->density) {
        lhd_destroy(cache);
        return NULL;
    }
    /* Until something is known: the older, the less, and classes of soon hit blocks first. */
    for (uint32_t c = 0; c < CLASSES; c++)
        for (uint32_t age = 0; age < AGES; age++)
            cache->density[c * AGES + age] = (double)(c + 1) / (age + 1);
    return cache;
}

static bool lhd_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->blocks[block].place != 0;
}

static uint32_t lhd_count(const struct wf_sim_cache *cache)
{
    return cache->count;
}

static uint32_t age_of(const struct wf_sim_cache *cache, const struct block *block)
{
    uint64_t age = (cache->clock - block->used_at) >> cache->step_bits;
    return age < AGES ? (uint32_t)age : AGES - 1;
}

/* By the sum of the last two ages at a hit: a class for each doubling, the soonest last. */
static uint8_t class_of(const struct block *block)
{
    uint64_t age = (uint64_t)block->hit_age + block->hit_age_before;
    if (age == 0)
        return CLASSES - 1;
    uint8_t kind = 0;
    while (age < AGES && kind + 1 < CLASSES) {
        age *= 2;
        kind++;
    }
    return kind;
}

static void evaluate(struct wf_sim_cache *cache)
{
    cache->evaluations++;
    for (uint32_t kind = 0; kind < CLASSES; kind++) {
        double *hits = cache->hits + kind * AGES, *evictions = cache->evictions + kind * AGES;
        double *density = cache->density + kind * AGES;
        double hits_ahead = 0, events_ahead = 0, lifetime = 0;
        for (uint32_t age = AGES; age-- > 0;) {
            hits[age] *= DECAY;
            evictions[age] *= DECAY;
            hits_ahead += hits[age];
            events_ahead += hits[age] + evictions[age];
            lifetime += events_ahead;
            density[age] = events_ahead > 1e-5 ? hits_ahead / lifetime : 0;
        }
    }
}

static double density_of(const struct wf_sim_cache *cache, const struct block *block)
{
    uint32_t age = age_of(cache, block);
    if (age == AGES - 1)
        return -1;
    return cache->density[block->kind * AGES + age] + (block->explorer ? 1 : 0);
}

static void evict(struct wf_sim_cache *cache)
{
    uint32_t victim = 0;
    double least = 0;
    for (uint32_t i = 0; i < SAMPLE; i++) {
        uint32_t place = (uint32_t)(wf_random(&cache->random) % cache->count);
        double density = density_of(cache, &cache->blocks[cache->held[place]]);
        if (i == 0 || density < least) {
            least = density;
            victim = place;
        }
    }
    uint32_t number = cache->held[victim];
    struct block *block = &cache->blocks[number];
    cache->evictions[block->kind * AGES + age_of(cache, block)]++;
    cache->explorers_left += block->explorer;
    block->place = 0;
    uint32_t last = cache->held[--cache->count];
    if (victim != cache->count) {
        cache->held[victim] = last;
        cache->blocks[last].place = victim + 1;
    }
    wf_sim_gone(cache->world, number);
}

static void lhd_touch(struct wf_sim_cache *cache, uint32_t number)
{
    struct block *block = &cache->blocks[number];
    if (block->place) {
        uint32_t age = age_of(cache, block);
        cache->hits[block->kind * AGES + age]++;
        cache->explorers_left += block->explorer;
        block->hit_age_before = block->hit_age;
        block->hit_age = age;
    } else {
        if (cache->count == cache->capacity)
            evict(cache);
        *block = (struct block){.hit_age_before = AGES, .place = cache->count + 1};
        cache->held[cache->count++] = number;
    }
    block->kind = class_of(block);
    block->used_at = cache->clock++;
    block->explorer = false;
    if (cache->explorers_left > 0 && cache->evaluations < LEARNED &&
        wf_random(&cache->random) % EXPLORE_ONE_IN == 0) {
        block->explorer = true;
        cache->explorers_left--;
    }
    if (cache->clock % EVALUATE_EVERY == 0)
        evaluate(cache);
}

const struct wf_sim_cache_ops wf_sim_lhd = {
    .name = "lhd",
    .source = "least hit density (Beckmann 2018)",
    .create = lhd_create,
    .destroy = lhd_destroy,
    .holds = lhd_holds,
    .count = lhd_count,
    .touch = lhd_touch,
};
