/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's own policies in the simulator: the same objects, called as the daemon's store does.
 *
 * Each block that is held has a slot; a request is the use of all its blocks, from the beginning
 * on.  Only leaves may go, and none of the request that runs: they are offered to the policy when
 * it is over, or when the last block that extends them has gone.  As in a node, whose clients
 * reserve before they compute, room is made for all that is new before any of it is used, a batch
 * at a time, since what the policy sees in between is not the same.  A block that finds no room,
 * since all that is left belongs to its own request, is not stored, and neither is what follows it.
 *
 *   lru_leaf   wf_policy_lru, least recently used among leaves: what vLLM's prefix cache and
 *              SGLang's radix tree do (L. Zheng et al., "SGLang: efficient execution of structured
 *              language model programs", NeurIPS 2024)
 *   weft       wf_policy_value
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy.h"
#include "sim/cache.h"

struct slot {
    uint32_t block, parent, children; /* parent: a slot, or WF_POLICY_NONE */
    uint32_t domain;
};

#define RESERVE_BATCH 512u /* WEFT_BATCH_MAX */

struct wf_sim_cache {
    const struct wf_policy_ops *ops;
    struct wf_policy *policies[WF_SIM_DOMAINS_MAX]; /* one a domain, as in weftd */
    const struct wf_sim_world *world;
    struct slot *slots;                        /* [capacity] */
    uint32_t *free;                            /* [capacity] slots; the last is taken first */
    uint32_t *slot_of;                         /* [blocks] slot + 1; 0: not held */
    uint32_t free_count, domain_count, domain; /* domain: whose request runs */
    struct wf_share shares[WF_SIM_DOMAINS_MAX];
    uint64_t due[WF_SIM_DOMAINS_MAX];
    uint64_t now_us;
    uint32_t reader;              /* of the request that runs: each is somebody's own */
    uint64_t keys[RESERVE_BATCH]; /* of the batch for which room is made, and how far for each */
    float bars[RESERVE_BATCH];
};

static void weft_destroy(struct wf_sim_cache *cache)
{
    for (uint32_t i = 0; i < cache->domain_count; i++)
        if (cache->policies[i])
            cache->ops->destroy(cache->policies[i]);
    free(cache->slots);
    free(cache->free);
    free(cache->slot_of);
    free(cache);
}

/* A node's slots are as many as its pool has of the smallest blocks that it expects; those of a
 * model are larger, so that there are several a block.  They are what a policy may remember by. */
#define SLOTS_A_BLOCK 4u

static struct wf_sim_cache *create(const struct wf_sim_world *world,
                                   const struct wf_policy_ops *ops)
{
    struct wf_sim_cache *cache = calloc(1, sizeof *cache);
    if (!cache)
        return NULL;
    cache->ops = ops;
    cache->world = world;
    cache->slots = calloc(world->capacity, sizeof *cache->slots);
    cache->free = calloc(world->capacity, sizeof *cache->free);
    cache->slot_of = calloc(world->trace->block_count, sizeof *cache->slot_of);
    cache->domain_count = world->shares ? world->trace->domain_count : 1;
    bool made = cache->slots && cache->free && cache->slot_of;
    for (uint32_t i = 0; i < cache->domain_count && made; i++)
        made = ops->create(world->capacity * SLOTS_A_BLOCK, &cache->policies[i]) == WEFT_OK;
    if (!made) {
        weft_destroy(cache);
        return NULL;
    }
    if (world->shares) {
        memcpy(cache->shares, world->shares, cache->domain_count * sizeof *cache->shares);
        wf_share_due(cache->shares, cache->domain_count, world->capacity, cache->due);
    }
    for (uint32_t slot = world->capacity; slot-- > 0;)
        cache->free[cache->free_count++] = slot;
    return cache;
}

static struct wf_sim_cache *lru_leaf_create(const struct wf_sim_world *world)
{
    return create(world, &wf_policy_lru);
}

static struct wf_sim_cache *weft_create(const struct wf_sim_world *world)
{
    return create(world, &wf_policy_value);
}

static bool weft_holds(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->slot_of[block] != 0;
}

static uint32_t weft_count(const struct wf_sim_cache *cache)
{
    return cache->world->capacity - cache->free_count;
}

static uint32_t weft_held(const struct wf_sim_cache *cache, uint32_t domain)
{
    return (uint32_t)cache->shares[domain].used;
}

static struct wf_policy *policy_of(const struct wf_sim_cache *cache, uint32_t slot)
{
    return cache->policies[cache->slots[slot].domain];
}

/* A part of a key, as far as anybody can tell.  What a policy samples and forgets goes by keys, so
 * that with another seed it is other blocks. */
static uint64_t key_of(const struct wf_sim_cache *cache, uint32_t block)
{
    uint64_t x = (block + (cache->world->seed << 32) + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Let the choice of a domain's policy go.  `tip`: the block on which the running request goes on,
 * so that it is not offered when it becomes a leaf. */
static bool evict(struct wf_sim_cache *cache, uint32_t domain, uint32_t tip, float bar)
{
    uint32_t slot = cache->ops->victim(cache->policies[domain], cache->now_us, bar);
    if (slot == WF_POLICY_NONE)
        return false;
    struct slot *gone = &cache->slots[slot];
    if (cache->world->gone) {
        struct wf_policy_reason why;
        cache->ops->explain(cache->policies[domain], slot, &why);
        cache->world->gone(cache->world->context, gone->block, &why);
    }
    cache->slot_of[gone->block] = 0;
    cache->ops->gone(cache->policies[domain], slot, key_of(cache, gone->block));
    cache->free[cache->free_count++] = slot;
    cache->shares[domain].used--;
    uint32_t parent = gone->parent;
    if (parent != WF_POLICY_NONE && --cache->slots[parent].children == 0 && parent != tip)
        cache->ops->enter(cache->policies[domain], parent);
    return true;
}

/* Room for one block more: what is free, or what the rule of core/share.h lets go for it. */
static bool room_make(struct wf_sim_cache *cache, uint32_t tip, float bar)
{
    if (!cache->world->shares)
        return cache->free_count || evict(cache, 0, tip, bar);
    for (;;) {
        struct wf_share_verdict verdict;
        for (uint32_t i = 0; i < cache->domain_count; i++) {
            cache->shares[i].gives = cache->ops->candidates(cache->policies[i]) > 0;
            cache->shares[i].hurried = cache->world->shares[i].hurried;
        }
        wf_share_decide(cache->shares, cache->due, cache->domain_count, cache->world->capacity,
                        cache->domain, 1, &verdict);
        if (verdict.rule == WF_SHARE_FREE)
            return true;
        if (verdict.rule == WF_SHARE_REFUSED)
            return false;
        if (cache->world->gave)
            cache->world->gave(cache->world->context, cache->domain, &verdict);
        if (!evict(cache, verdict.who, tip, verdict.who == cache->domain ? bar : WF_POLICY_ANY))
            return false;
    }
}

/* Room for what one reserve asks for, as far as it is to be had.  Among domains it is made block by
 * block, since whose turn it is changes with each. */
static void batch_make(struct wf_sim_cache *cache, uint32_t count, uint32_t tip)
{
    while (!cache->world->shares && cache->free_count < count &&
           evict(cache, 0, tip, cache->bars[cache->free_count]))
        continue;
}

static float cost_of(const struct wf_sim_cache *cache, uint32_t block)
{
    return cache->world->cost_s_gib ? cache->world->cost_s_gib(cache->world->context, block) : 0;
}

static void use(struct wf_sim_cache *cache, uint32_t slot)
{
    const struct wf_policy_use said = {
        .slot = slot,
        .parent = cache->slots[slot].parent,
        .reader = cache->reader,
        .key = key_of(cache, cache->slots[slot].block),
        .now_us = cache->now_us,
        .cost_s_gib = cost_of(cache, cache->slots[slot].block),
    };
    cache->ops->used(policy_of(cache, slot), &said);
}

static void hints_give(struct wf_sim_cache *cache, uint32_t request, uint32_t tip)
{
    const struct wf_sim_request *asked = &cache->world->trace->requests[request];
    struct wf_policy_hint hint = {.kind = WF_POLICY_OUTPUT,
                                  .slot = tip,
                                  .output_tokens = asked->output_tokens};
    cache->ops->hint(policy_of(cache, tip), &hint);
    uint8_t said = cache->world->hints ? cache->world->hints[request] : TRACE_HINT_NONE;
    if (said == TRACE_HINT_NONE)
        return;
    hint.kind = said == TRACE_HINT_WANTED ? WF_POLICY_WANTED : WF_POLICY_DONE;
    for (; hint.slot != WF_POLICY_NONE; hint.slot = cache->slots[hint.slot].parent)
        cache->ops->hint(policy_of(cache, tip), &hint);
}

static void put(struct wf_sim_cache *cache, uint32_t block, uint32_t *tip)
{
    uint32_t slot = cache->free[--cache->free_count];
    cache->slots[slot] = (struct slot){block, *tip, 0, cache->domain};
    cache->shares[cache->domain].used++;
    cache->slot_of[block] = slot + 1;
    if (*tip != WF_POLICY_NONE)
        cache->slots[*tip].children++;
    use(cache, slot);
    *tip = slot;
}

/* What follows `*tip`: how many of it are stored; the rest found no room. */
static uint32_t batch_put(struct wf_sim_cache *cache, const uint32_t *blocks, uint32_t count,
                          uint32_t *tip)
{
    struct wf_policy *policy = cache->policies[cache->domain];
    struct wf_policy_ask ask = {.parent = *tip,
                                .reader = cache->reader,
                                .count = count,
                                .keys = cache->keys,
                                .now_us = cache->now_us};
    for (uint32_t i = 0; i < count; i++) {
        cache->keys[i] = key_of(cache, blocks[i]);
        cache->bars[i] = WF_POLICY_ANY;
    }
    if (!cache->world->below)
        cache->ops->ask(policy, &ask, cache->bars);
    batch_make(cache, count, *tip);
    uint32_t room = 0;
    while (room < count && room_make(cache, *tip, cache->bars[room]))
        put(cache, blocks[room++], tip);
    if (room < count && !cache->world->below)
        cache->ops->refused(policy, &ask, room);
    return room;
}

static void weft_request(struct wf_sim_cache *cache, uint32_t request, uint32_t hits)
{
    const struct wf_sim_trace *trace = cache->world->trace;
    const struct wf_sim_request *asked = &trace->requests[request];
    const uint32_t *blocks = trace->blocks + asked->first;
    uint32_t tip = WF_POLICY_NONE;
    cache->domain = cache->world->shares ? asked->domain : 0;
    cache->reader = request;
    cache->now_us = (uint64_t)((double)asked->at_us / cache->world->speed);
    for (uint32_t i = 0; i < hits; i++) {
        tip = cache->slot_of[blocks[i]] - 1;
        if (i + 1 == hits)
            cache->ops->leave(policy_of(cache, tip), tip);
        use(cache, tip);
    }
    for (uint32_t i = hits; i < asked->count; i += RESERVE_BATCH) {
        uint32_t left = asked->count - i, count = left < RESERVE_BATCH ? left : RESERVE_BATCH;
        uint32_t stored = batch_put(cache, blocks + i, count, &tip);
        if (stored == count)
            continue;
        if (cache->world->full)
            cache->world->full(cache->world->context, left - stored,
                               cache->ops->candidates(cache->policies[cache->domain])
                                   ? cache->bars[stored]
                                   : WF_POLICY_ANY);
        break;
    }
    if (tip == WF_POLICY_NONE)
        return;
    hints_give(cache, request, tip);
    if (cache->slots[tip].children == 0)
        cache->ops->enter(policy_of(cache, tip), tip);
}

uint32_t wf_sim_weft_moved(struct wf_sim_cache *cache, const uint32_t *blocks, uint32_t first,
                           uint32_t count)
{
    uint32_t cooled = 0;
    for (uint32_t i = count; i-- > first; cooled++) {
        if (!cache->slot_of[blocks[i]])
            continue;
        uint32_t slot = cache->slot_of[blocks[i]] - 1;
        if (cache->slots[slot].children > (cooled > 0))
            break;
        cache->ops->cool(policy_of(cache, slot), slot);
    }
    return cooled;
}

const struct wf_sim_cache_ops wf_sim_lru_leaf = {
    .name = "lru_leaf",
    .source = "least recently used among leaves (vLLM, SGLang)",
    .create = lru_leaf_create,
    .destroy = weft_destroy,
    .holds = weft_holds,
    .count = weft_count,
    .held = weft_held,
    .request = weft_request,
};

const struct wf_sim_cache_ops wf_sim_weft = {
    .name = "weft",
    .source = "value, learned online (core/value.c): pool.policy weft",
    .create = weft_create,
    .destroy = weft_destroy,
    .holds = weft_holds,
    .count = weft_count,
    .held = weft_held,
    .request = weft_request,
};
