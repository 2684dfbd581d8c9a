/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction by value under calls in any order that policy.h allows: blocks come and go, with and
 * without having been chosen, and days pass in between.  After each call every segment is alive, a
 * ghost or free, and only one of these.  The seeds are fixed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/value.h"

#define STEPS 40000u
#define DEEP 64u
#define THREE_DAYS_US (3 * 86400 * (uint64_t)1000000)

struct block {
    bool live, in;
    uint32_t parent, children;
    uint64_t key;
};

struct world {
    struct wf_policy *policy;
    struct block *blocks; /* [slots] */
    uint32_t slots, in;
    uint64_t now_us, key;
    struct random_source random;
};

static const struct wf_policy_ops *const ops = &wf_policy_value;

static void assert_whole(const struct wf_policy *p)
{
    uint32_t unused = 0, dead = 0, alive = 0;
    for (uint32_t at = p->free; at != NONE && unused <= p->slots_max; unused++) {
        assert_int_equal(p->segments[at].blocks, 0);
        assert_int_equal(p->segments[at].missing, 0);
        at = p->segments[at].free_next;
    }
    for (uint32_t at = p->dead.first; at != NONE && dead <= p->slots_max; dead++) {
        assert_int_equal(p->segments[at].blocks, 0);
        at = p->segments[at].newer;
    }
    for (uint32_t at = 0; at < p->segments_used; at++)
        alive += p->segments[at].blocks > 0;
    assert_int_equal(unused + dead + alive, p->segments_used);
}

static void enters(struct world *w, uint32_t slot)
{
    struct block *block = &w->blocks[slot];
    if (!block->live || block->in || block->children)
        return;
    ops->enter(w->policy, slot);
    block->in = true;
    w->in++;
}

static void leaves(struct world *w, uint32_t slot)
{
    ops->leave(w->policy, slot);
    w->in -= w->blocks[slot].in;
    w->blocks[slot].in = false;
}

static void goes(struct world *w, uint32_t slot)
{
    struct block *block = &w->blocks[slot];
    ops->gone(w->policy, slot, block->key);
    if (block->parent != WF_POLICY_NONE)
        w->blocks[block->parent].children--;
    *block = (struct block){.live = false};
}

/* A block that may be known, at the end of one that is there or by itself. */
static void made(struct world *w, uint32_t slot)
{
    struct block *block = &w->blocks[slot];
    uint32_t parent = random_below(&w->random, w->slots);
    bool follows = parent != slot && w->blocks[parent].live;
    *block = (struct block){.live = true, .parent = follows ? parent : WF_POLICY_NONE};
    bool known = random_below(&w->random, 3) == 0;
    block->key = known ? random_below(&w->random, 200) : w->key++;
    if (follows) {
        w->blocks[parent].children++;
        leaves(w, parent);
    }
}

static void brought(struct world *w, uint32_t slot)
{
    const struct block *block = &w->blocks[slot];
    if (!block->live)
        made(w, slot);
    const struct wf_policy_use use = {.slot = slot,
                                      .parent = block->parent,
                                      .reader = WF_POLICY_NONE,
                                      .key = block->key,
                                      .now_us = w->now_us};
    ops->brought(w->policy, &use);
}

/* A new block, or one that is there, by itself or at the end of its whole chain. */
static void used(struct world *w, uint32_t slot)
{
    struct block *block = &w->blocks[slot];
    uint32_t chain[DEEP] = {slot}, count = 1, reader = random_below(&w->random, 3);
    if (!block->live)
        made(w, slot);
    for (uint32_t at = block->parent; at != WF_POLICY_NONE && count < DEEP;
         at = w->blocks[at].parent)
        chain[count++] = at;
    if (random_below(&w->random, 2))
        count = 1;
    while (count-- > 0) {
        const struct block *one = &w->blocks[chain[count]];
        const struct wf_policy_use use = {.slot = chain[count],
                                          .parent = one->parent,
                                          .reader = reader,
                                          .key = one->key,
                                          .now_us = w->now_us};
        ops->used(w->policy, &use);
    }
}

/* Some that are known and some that are not, and room for the first of them. */
static float asked(struct world *w)
{
    uint64_t keys[DEEP];
    float bars[DEEP];
    uint32_t parent = random_below(&w->random, w->slots);
    struct wf_policy_ask ask = {.parent = w->blocks[parent].live ? parent : WF_POLICY_NONE,
                                .reader = random_below(&w->random, 3),
                                .count = 1 + random_below(&w->random, DEEP),
                                .keys = keys,
                                .now_us = w->now_us};
    for (uint32_t i = 0; i < ask.count; i++)
        keys[i] = random_below(&w->random, 2) ? random_below(&w->random, 200) : w->key++;
    ops->ask(w->policy, &ask, bars);
    for (uint32_t i = 0; i < ask.count; i++)
        assert_true(bars[i] > 0);
    if (random_below(&w->random, 2))
        ops->refused(w->policy, &ask, random_below(&w->random, ask.count));
    return bars[0];
}

static void victim(struct world *w)
{
    float bar = random_below(&w->random, 3) ? WF_POLICY_ANY : asked(w);
    uint32_t slot = ops->victim(w->policy, w->now_us, bar);
    assert_true(slot == WF_POLICY_NONE || w->in > 0);
    if (bar >= WF_POLICY_ANY)
        assert_true((slot == WF_POLICY_NONE) == (w->in == 0));
    if (slot == WF_POLICY_NONE)
        return;
    assert_true(slot < w->slots && w->blocks[slot].in);
    w->blocks[slot].in = false;
    w->in--;
    if (random_below(&w->random, 4) == 0) {
        ops->spared(w->policy, slot);
        enters(w, slot);
    } else {
        goes(w, slot);
    }
}

static void said(struct world *w, uint32_t slot)
{
    const struct wf_policy_hint hint = {(enum wf_policy_hint_kind)random_below(&w->random, 4), slot,
                                        random_below(&w->random, 10000),
                                        (float)(1 + random_below(&w->random, 1000)) / 100};
    struct wf_policy_reason why;
    if (random_below(&w->random, 3) == 0)
        ops->cool(w->policy, slot);
    else
        ops->hint(w->policy, &hint);
    ops->explain(w->policy, slot, &why);
    uint32_t before = ops->before(w->policy, slot);
    assert_true(before == WF_POLICY_NONE || before < w->in);
    assert_true(why.chance >= 0 && why.chance <= 1 && why.age_s >= 0);
}

static void step(struct world *w)
{
    uint32_t slot = random_below(&w->random, w->slots), what = random_below(&w->random, 100);
    w->now_us += random_below(&w->random, 5000);
    if (random_below(&w->random, 1000) == 0)
        w->now_us += THREE_DAYS_US;
    if (what < 6) {
        brought(w, slot);
    } else if (what < 30) {
        used(w, slot);
    } else if (what < 55) {
        enters(w, slot);
    } else if (what < 62) {
        leaves(w, slot);
    } else if (what < 85) {
        victim(w);
    } else if (what < 95) {
        if (w->blocks[slot].live)
            said(w, slot);
    } else if (w->blocks[slot].live && !w->blocks[slot].children) {
        leaves(w, slot);
        goes(w, slot); /* it was removed, and nobody asked for a victim */
    }
}

static void run(uint64_t seed, uint32_t slots)
{
    struct world w = {.slots = slots, .now_us = 1000000, .key = 1000, .random = {seed}};
    w.blocks = calloc(slots, sizeof *w.blocks);
    assert_non_null(w.blocks);
    assert_int_equal(ops->create(slots, &w.policy), WEFT_OK);
    for (uint32_t i = 0; i < STEPS; i++) {
        step(&w);
        assert_whole(w.policy);
        assert_int_equal(ops->candidates(w.policy), w.in);
    }
    ops->destroy(w.policy);
    free(w.blocks);
}

static void test_each_segment_is_in_one_place(void **state)
{
    (void)state;
    static const uint32_t slots[] = {1, 3, 8, 20, 64};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        for (uint64_t seed = 1; seed <= 4; seed++)
            run(seed * 100 + i, slots[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_segment_is_in_one_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
