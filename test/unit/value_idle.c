/* SPDX-License-Identifier: Apache-2.0
 *
 * After a pause all that a pool holds is older at once: that is no pause for who comes first then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/value.h"

#define SLOTS 40000u /* each of a chain of its own */
#define SECOND 1000000u
#define DAY (86400 * (uint64_t)SECOND)
#define OLD_BLOCKS (SLOTS / 2)

static const struct wf_policy_ops *const ops = &wf_policy_value;

static uint64_t key_of(uint32_t slot)
{
    return ((uint64_t)slot + 1) * 0x9e3779b97f4a7c15u;
}

static void used(struct wf_policy *p, uint32_t slot, uint64_t now_us)
{
    const struct wf_policy_use use = {.slot = slot,
                                      .parent = WF_POLICY_NONE,
                                      .key = key_of(slot),
                                      .now_us = now_us};
    ops->used(p, &use);
    ops->enter(p, slot);
}

static struct wf_policy *full(uint64_t *now_us)
{
    struct wf_policy *p;
    assert_int_equal(ops->create(SLOTS, &p), WEFT_OK);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        used(p, slot, *now_us += 10);
    return p;
}

/* A step is one bucket of one segment. */
static uint64_t steps_of(const struct wf_policy *p)
{
    uint64_t steps = 0;
    for (uint32_t i = 0; i < p->segments_used; i++)
        steps += p->segments[i].blocks ? p->segments[i].bucket : 0;
    return steps;
}

static bool has_its_age(const struct wf_policy *p, const struct segment *s)
{
    uint32_t age = p->now - s->ticks;
    return age >= p->edge[s->bucket] &&
           (s->bucket == WF_VALUE_BUCKETS || age < p->edge[s->bucket + 1]);
}

static uint32_t behind(const struct wf_policy *p)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->segments_used; i++)
        count += p->segments[i].blocks && !has_its_age(p, &p->segments[i]);
    return count;
}

static uint32_t goes(struct wf_policy *p, uint64_t now_us)
{
    uint32_t slot = ops->victim(p, now_us, WF_POLICY_ANY);
    assert_int_not_equal(slot, WF_POLICY_NONE);
    ops->gone(p, slot, key_of(slot));
    return slot;
}

static void test_a_call_takes_no_more_than_its_steps(void **state)
{
    (void)state;
    uint64_t now_us = SECOND;
    struct wf_policy *p = full(&now_us);
    now_us += DAY;
    uint32_t ticks = 0;
    for (uint64_t before = steps_of(p), after; behind(p) || ticks == 0; before = after, ticks++) {
        const struct wf_policy_ask ask = {.parent = WF_POLICY_NONE,
                                          .count = 1,
                                          .keys = (const uint64_t[]){key_of(SLOTS)},
                                          .now_us = now_us};
        float bar;
        ops->ask(p, &ask, &bar);
        after = steps_of(p);
        assert_true(after - before <= STEPS_A_TICK);
        assert_true(after > before);
        now_us += 1000000 / TICKS_PER_S;
    }
    assert_true(ticks > 1);
    assert_true(ticks <= SLOTS * WF_VALUE_BUCKETS / STEPS_A_TICK + 1);
    ops->destroy(p);
}

/* What came after the pause stays, once the rest has its age; and before that nobody waits. */
static void test_what_is_old_goes_before_what_is_new(void **state)
{
    (void)state;
    uint64_t now_us = SECOND;
    struct wf_policy *p = full(&now_us);
    now_us += DAY;
    for (uint32_t i = 0; i < SLOTS - OLD_BLOCKS; i++) {
        used(p, goes(p, now_us), now_us);
    }
    for (uint32_t ticks = 0; behind(p); ticks++) {
        assert_true(ticks <= 2 * SLOTS * WF_VALUE_BUCKETS / STEPS_A_TICK);
        now_us += 1000000 / TICKS_PER_S;
        used(p, goes(p, now_us), now_us);
    }
    wf_value_judge(p);
    uint32_t old = 0;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        old += p->now - p->segments[p->seats[slot].segment].ticks > DAY / SECOND * TICKS_PER_S / 2;
    assert_true(old > 0 && old < OLD_BLOCKS + 1);
    for (uint32_t i = 0; i < old; i++) {
        uint32_t slot = ops->victim(p, now_us, WF_POLICY_ANY);
        assert_int_not_equal(slot, WF_POLICY_NONE);
        const struct segment *s = &p->segments[p->seats[slot].segment];
        assert_true(p->now - s->ticks > DAY / SECOND * TICKS_PER_S / 2);
        ops->gone(p, slot, key_of(slot));
    }
    ops->destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_call_takes_no_more_than_its_steps),
        cmocka_unit_test(test_what_is_old_goes_before_what_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
