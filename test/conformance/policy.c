/* SPDX-License-Identifier: Apache-2.0
 *
 * What every eviction policy must do, whatever it prefers.  A new policy is one more line in
 * `policies`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/policy.h"

#define SLOTS 257
#define STEPS 40000

static const struct wf_policy_ops *const policies[] = {&wf_policy_lru};

struct subject {
    const struct wf_policy_ops *ops;
    struct wf_policy *policy;
    bool in[SLOTS]; /* the model: which slots may go */
    uint32_t count;
};

static void enter(struct subject *s, uint32_t slot)
{
    s->ops->used(s->policy, slot);
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
    uint32_t slot = s->ops->victim(s->policy);
    if (s->count == 0) {
        assert_int_equal(slot, WF_POLICY_NONE);
        return;
    }
    assert_in_range(slot, 0, SLOTS - 1);
    assert_true(s->in[slot]); /* it was offered, and not taken back */
    s->in[slot] = false;
    s->count--;
}

static void agree(const struct subject *s)
{
    assert_int_equal(s->ops->candidates(s->policy), s->count);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        assert_int_equal(s->ops->holds(s->policy, slot), s->in[slot]);
}

/* Random calls: a policy names only what was offered, each once, and loses none. */
static void test_offers_are_kept(void **state)
{
    struct subject *s = *state;
    struct random_source random = random_seeded("offers_are_kept");
    for (int step = 0; step < STEPS; step++) {
        uint32_t slot = random_below(&random, SLOTS);
        switch (random_below(&random, 5)) {
        case 0:
        case 1: enter(s, slot); break;
        case 2: leave(s, slot); break;
        case 3: s->ops->used(s->policy, slot); break;
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
            s->ops->used(s->policy, slot);
    for (int gone = 0; gone < 50; gone++) {
        uint32_t slot = s->ops->victim(s->policy);
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
    s->ops->used(s->policy, 1);
    assert_int_equal(s->ops->age(s->policy, 1), 0);
}

static const struct wf_policy_ops *current;

static int setup(void **state)
{
    struct subject *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->ops = current;
    assert_int_equal(current->create(SLOTS, &s->policy), WEFT_OK);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_offers_are_kept),
        TEST(test_enter_and_leave_twice),
        TEST(test_what_is_used_stays),
        TEST(test_age_counts_others),
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        current = policies[i];
        failed += cmocka_run_group_tests_name(current->name, tests, NULL, NULL);
    }
    return failed;
}
