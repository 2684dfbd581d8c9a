/* SPDX-License-Identifier: Apache-2.0
 *
 * What every eviction policy must do, whatever it prefers.  A new policy is one more line in
 * `policies`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/policy.h"

#define SLOTS 257
#define STEPS 40000

static const struct wf_policy_ops *const policies[] = {&wf_policy_lru, &wf_policy_value};

struct subject {
    const struct wf_policy_ops *ops;
    struct wf_policy *policy;
    bool in[SLOTS]; /* the model: which slots may go */
    uint32_t count;
    uint64_t now_us;
};

static void use_after(struct subject *s, uint32_t slot, uint32_t parent)
{
    const struct wf_policy_use use = {.slot = slot,
                                      .parent = parent,
                                      .reader = slot % 3,
                                      .key = slot * 0x9e3779b97f4a7c15u,
                                      .now_us = s->now_us};
    s->ops->used(s->policy, &use);
}

static void use(struct subject *s, uint32_t slot)
{
    use_after(s, slot, WF_POLICY_NONE);
}

static void bring(struct subject *s, uint32_t slot, uint32_t parent)
{
    const struct wf_policy_use use = {.slot = slot,
                                      .parent = parent,
                                      .reader = WF_POLICY_NONE,
                                      .key = slot * 0x9e3779b97f4a7c15u,
                                      .now_us = s->now_us};
    s->ops->brought(s->policy, &use);
}

static void enter(struct subject *s, uint32_t slot)
{
    use(s, slot);
    s->ops->enter(s->policy, slot);
    s->count += !s->in[slot];
    s->in[slot] = true;
}

static void leave(struct subject *s, uint32_t slot)
{
    s->ops->leave(s->policy, slot);
    s->count -= s->in[slot];
    s->in[slot] = false;
}

static void victim(struct subject *s)
{
    uint32_t slot = s->ops->victim(s->policy, s->now_us, WF_POLICY_ANY);
    if (s->count == 0) {
        assert_int_equal(slot, WF_POLICY_NONE);
        return;
    }
    assert_in_range(slot, 0, SLOTS - 1);
    assert_true(s->in[slot]); /* it was offered, and not taken back */
    s->in[slot] = false;
    s->count--;
}

/* A bar may keep all, and nothing else follows from it. */
static void ask(struct subject *s, uint32_t parent, struct random_source *random)
{
    uint64_t keys[16];
    float bars[16];
    for (uint32_t i = 0; i < 16; i++)
        keys[i] = random_below(random, SLOTS * 2) * 0x9e3779b97f4a7c15u;
    const struct wf_policy_ask said = {
        .parent = parent, .reader = parent % 3, .count = 16, .keys = keys, .now_us = s->now_us};
    s->ops->ask(s->policy, &said, bars);
    for (uint32_t i = 0; i < 16; i++)
        assert_true(bars[i] >= 0);
    if (random_below(random, 2))
        s->ops->refused(s->policy, &said, random_below(random, 16));
    uint32_t slot = s->ops->victim(s->policy, s->now_us, bars[0]);
    if (slot == WF_POLICY_NONE)
        return;
    assert_true(s->in[slot]);
    s->in[slot] = false;
    s->count--;
}

static void agree(const struct subject *s)
{
    assert_int_equal(s->ops->candidates(s->policy), s->count);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        assert_int_equal(s->ops->holds(s->policy, slot), s->in[slot]);
}

/* Random calls: a policy names only what was offered, each once, and loses none, whatever parents
 * are said to be, and however the clock goes. */
static void test_offers_are_kept(void **state)
{
    struct subject *s = *state;
    struct random_source random = random_seeded("offers_are_kept");
    for (int step = 0; step < STEPS; step++) {
        uint32_t slot = random_below(&random, SLOTS), other = random_below(&random, SLOTS + 1);
        s->now_us += random_below(&random, 100) ? random_below(&random, 100000)
                                                : (uint64_t)random_below(&random, 1u << 31) * 64;
        switch (random_below(&random, 13)) {
        case 0:
        case 1:
        case 2: enter(s, slot); break;
        case 3: leave(s, slot); break;
        case 4: use(s, slot); break;
        case 5: use_after(s, slot, other < SLOTS ? other : WF_POLICY_NONE); break;
        case 6:
            leave(s, slot);
            s->ops->gone(s->policy, slot, slot * 0x9e3779b97f4a7c15u);
            break;
        case 7:
            s->ops->hint(s->policy,
                         &(struct wf_policy_hint){random_below(&random, 4), slot, other, 0.5f});
            break;
        case 10: ask(s, other < SLOTS ? other : WF_POLICY_NONE, &random); break;
        case 9: bring(s, slot, other < SLOTS ? other : WF_POLICY_NONE); break;
        case 8: (random_below(&random, 2) ? s->ops->cool : s->ops->spared)(s->policy, slot); break;
        default: victim(s); break;
        }
        if (step % 500 == 0)
            agree(s);
    }
    while (s->count)
        victim(s);
    agree(s);
    victim(s);
}

/* A chain that comes and goes, in parts, with others: what is gone may come back, at another slot.
 */
static void test_chains_come_and_go(void **state)
{
    struct subject *s = *state;
    struct random_source random = random_seeded("chains_come_and_go");
    uint32_t slot_of[40][20], length[40] = {0}, spare[SLOTS], spares = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        spare[spares++] = slot;
    for (int step = 0; step < STEPS / 10; step++) {
        uint32_t chain = random_below(&random, 40), end = 1 + random_below(&random, 20);
        s->now_us += random_below(&random, 1000000);
        for (uint32_t i = 0; i < end; i++) {
            if (i >= length[chain]) {
                if (!spares)
                    break;
                if (i)
                    leave(s, slot_of[chain][i - 1]);
                slot_of[chain][length[chain]++] = spare[--spares];
            }
            const struct wf_policy_use use = {.slot = slot_of[chain][i],
                                              .parent = i ? slot_of[chain][i - 1] : WF_POLICY_NONE,
                                              .key = (chain * 20 + i + 1) * 0x9e3779b97f4a7c15u,
                                              .now_us = s->now_us};
            s->ops->used(s->policy, &use);
            if (i + 1 == length[chain] && !s->in[use.slot]) {
                s->ops->enter(s->policy, use.slot);
                s->in[use.slot] = true;
                s->count++;
            }
        }
        while (spares < 20) {
            uint32_t slot = s->ops->victim(s->policy, s->now_us, WF_POLICY_ANY);
            for (chain = 0; chain < 40; chain++)
                if (length[chain] && slot_of[chain][length[chain] - 1] == slot)
                    break;
            assert_in_range(chain, 0, 39); /* it was the end of one */
            s->in[slot] = false;
            s->count--;
            s->ops->gone(s->policy, slot, (chain * 20 + length[chain]) * 0x9e3779b97f4a7c15u);
            spare[spares++] = slot;
            if (--length[chain]) {
                s->ops->enter(s->policy, slot_of[chain][length[chain] - 1]);
                s->in[slot_of[chain][length[chain] - 1]] = true;
                s->count++;
            }
        }
        if (step % 100 == 0)
            agree(s);
    }
}

static void test_enter_and_leave_twice(void **state)
{
    struct subject *s = *state;
    enter(s, 3);
    enter(s, 3);
    agree(s);
    leave(s, 3);
    leave(s, 3);
    agree(s);
    victim(s);
}

/* What is used all the time outlives what is used once: whatever else a policy weighs, it must see
 * that. */
static void test_what_is_used_stays(void **state)
{
    struct subject *s = *state;
    for (uint32_t slot = 0; slot < 100; slot++)
        enter(s, slot);
    for (int round = 0; round < 50; round++)
        for (uint32_t slot = 0; slot < 10; slot++)
            use(s, slot);
    for (int gone = 0; gone < 50; gone++) {
        uint32_t slot = s->ops->victim(s->policy, s->now_us, WF_POLICY_ANY);
        assert_in_range(slot, 10, 99);
    }
}

static void test_age_counts_others(void **state)
{
    struct subject *s = *state;
    enter(s, 1);
    uint64_t before = s->ops->age(s->policy, 1);
    enter(s, 2);
    enter(s, 3);
    assert_int_equal(s->ops->age(s->policy, 1), before + 2);
    use(s, 1);
    assert_int_equal(s->ops->age(s->policy, 1), 0);
}

/* What is brought up is not the next to go, and what goes before it can be counted. */
static void test_what_is_brought_up_waits(void **state)
{
    struct subject *s = *state;
    for (uint32_t slot = 0; slot < 40; slot++)
        enter(s, slot);
    uint64_t uses = s->ops->uses(s->policy);
    bring(s, 50, WF_POLICY_NONE);
    s->ops->enter(s->policy, 50);
    assert_true(s->ops->uses(s->policy) == uses);
    assert_int_equal(s->ops->before(s->policy, 51), WF_POLICY_NONE);
    uint32_t before = s->ops->before(s->policy, 50);
    assert_in_range(before, 39, 40);
    s->ops->cool(s->policy, 7);
    assert_int_equal(s->ops->before(s->policy, 7), 0);
    bring(s, 7, WF_POLICY_NONE); /* it may stay after all */
    for (uint32_t gone = 0; gone < 38; gone++) {
        uint32_t slot = s->ops->victim(s->policy, s->now_us, WF_POLICY_ANY);
        assert_true(slot != 50 && slot != 7);
    }
}

static int setup(void **state)
{
    const struct wf_policy_ops *ops = *state;
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->ops = ops;
    assert_int_equal(ops->create(SLOTS, &s->policy), WEFT_OK);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct subject *s = *state;
    s->ops->destroy(s->policy);
    free(s);
    return 0;
}

static const struct {
    const char *name;
    CMUnitTestFunction run;
} checks[] = {
    {"offers are kept", test_offers_are_kept},
    {"chains come and go", test_chains_come_and_go},
    {"enter and leave twice", test_enter_and_leave_twice},
    {"what is used stays", test_what_is_used_stays},
    {"age counts others", test_age_counts_others},
    {"what is brought up waits", test_what_is_brought_up_waits},
};
#define POLICIES (sizeof policies / sizeof policies[0])
#define CHECKS (sizeof checks / sizeof checks[0])

int main(void)
{
    static char names[POLICIES * CHECKS][64];
    struct CMUnitTest tests[POLICIES * CHECKS];
    for (size_t i = 0; i < POLICIES * CHECKS; i++) {
        const struct wf_policy_ops *ops = policies[i / CHECKS];
        snprintf(names[i], sizeof names[i], "%s: %s", ops->name, checks[i % CHECKS].name);
        tests[i] = (struct CMUnitTest){names[i], checks[i % CHECKS].run, setup, teardown,
                                       (void *)(uintptr_t)ops};
    }
    return _cmocka_run_group_tests("policy", tests, POLICIES * CHECKS, NULL, NULL);
}
