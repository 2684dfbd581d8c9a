/* SPDX-License-Identifier: Apache-2.0
 *
 * A small world for eviction policies, with a virtual clock.  Chains are numbers; a chain's block i
 * has slot and key by the table below, as a store would have it.
 */
#ifndef TEST_VALUE_WORLD_H
#define TEST_VALUE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/policy.h"

#define CHAINS 16384u
#define LENGTH 8u
#define SLOTS 1024u
#define SECOND 1000000u

struct world {
    const struct wf_policy_ops *ops;
    struct wf_policy *policy;
    uint32_t slot_of[CHAINS][LENGTH]; /* slot + 1 */
    uint32_t held[CHAINS];            /* blocks of it that are there */
    uint32_t chain_of[SLOTS], spare[SLOTS], spares, capacity;
    uint64_t now_us, asked, hits;
    float cost_s_gib, cost_of_block[LENGTH]; /* that is told; of a block, where it is set */
};

static inline struct world *world_open(const struct wf_policy_ops *ops, uint32_t capacity)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->ops = ops;
    w->capacity = capacity;
    w->now_us = SECOND;
    assert_int_equal(ops->create(SLOTS, &w->policy), WEFT_OK);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        w->spare[w->spares++] = slot;
    return w;
}

static inline void world_close(struct world *w)
{
    w->ops->destroy(w->policy);
    free(w);
}

static inline uint64_t key_of(uint32_t chain, uint32_t block)
{
    return ((uint64_t)chain * LENGTH + block + 1) * 0x9e3779b97f4a7c15u;
}

/* That victim goes. */
static inline void gone(struct world *w, uint32_t slot)
{
    uint32_t chain = w->chain_of[slot];
    assert_int_equal(w->slot_of[chain][w->held[chain] - 1], slot + 1); /* the end of a chain */
    w->ops->gone(w->policy, slot, key_of(chain, --w->held[chain]));
    w->spare[w->spares++] = slot;
    if (w->held[chain])
        w->ops->enter(w->policy, w->slot_of[chain][w->held[chain] - 1] - 1);
}

static inline void one_goes(struct world *w)
{
    uint32_t slot = w->ops->victim(w->policy, w->now_us, WF_POLICY_ANY);
    assert_int_not_equal(slot, WF_POLICY_NONE);
    gone(w, slot);
}

/* The next of the chain.  That before it may not go any more. */
static inline void block_new(struct world *w, uint32_t chain)
{
    uint32_t i = w->held[chain]++;
    if (i)
        w->ops->leave(w->policy, w->slot_of[chain][i - 1] - 1);
    uint32_t slot = w->spare[--w->spares];
    w->chain_of[slot] = chain;
    w->slot_of[chain][i] = slot + 1;
}

static inline void block_used(struct world *w, uint32_t chain, uint32_t i)
{
    const struct wf_policy_use use = {.slot = w->slot_of[chain][i] - 1,
                                      .parent = i ? w->slot_of[chain][i - 1] - 1 : WF_POLICY_NONE,
                                      .key = key_of(chain, i),
                                      .now_us = w->now_us,
                                      .cost_s_gib = w->cost_of_block[i] > 0 ? w->cost_of_block[i]
                                                                            : w->cost_s_gib};
    w->ops->used(w->policy, &use);
}

static inline void request(struct world *w, uint32_t chain, uint32_t length)
{
    w->asked += length;
    w->hits += w->held[chain] < length ? w->held[chain] : length;
    for (uint32_t i = 0; i < length; i++) {
        if (i == w->held[chain])
            block_new(w, chain);
        block_used(w, chain, i);
    }
    w->ops->enter(w->policy, w->slot_of[chain][w->held[chain] - 1] - 1);
    while (SLOTS - w->spares > w->capacity)
        one_goes(w);
}

/* What is missing of the chain's first blocks comes up, asked for by nobody. */
static inline void bring(struct world *w, uint32_t chain, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++) {
        if (i == w->held[chain])
            block_new(w, chain);
        const struct wf_policy_use use = {.slot = w->slot_of[chain][i] - 1,
                                          .parent = i ? w->slot_of[chain][i - 1] - 1
                                                      : WF_POLICY_NONE,
                                          .reader = WF_POLICY_NONE,
                                          .key = key_of(chain, i),
                                          .now_us = w->now_us};
        w->ops->brought(w->policy, &use);
    }
    w->ops->enter(w->policy, w->slot_of[chain][w->held[chain] - 1] - 1);
}

static inline struct wf_policy_reason reason_of(const struct world *w, uint32_t chain)
{
    struct wf_policy_reason reason;
    w->ops->explain(w->policy, w->slot_of[chain][0] - 1, &reason);
    return reason;
}

static inline void say(struct world *w, uint32_t chain, enum wf_policy_hint_kind kind)
{
    for (uint32_t i = w->held[chain]; i-- > 0;)
        w->ops->hint(w->policy, &(struct wf_policy_hint){kind, w->slot_of[chain][i] - 1, 0});
}

#endif
