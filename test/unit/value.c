/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction by value: what the model learns, and what the policy makes of it.
 */
#include "core/value.h"
#include "value_world.h"

/* ------------------------------------------------------------------------------------ the model */

static void test_octaves(void **state)
{
    (void)state;
    const double x[] = {-1, 0, 0.99, 1, 1.99, 2, 3.9, 4, 1e30};
    const uint8_t bin[] = {0, 0, 0, 1, 1, 2, 2, 3, WF_VALUE_BINS - 1};
    for (size_t i = 0; i < sizeof bin; i++)
        assert_int_equal(wf_value_octave(x[i]), bin[i]);
}

static void test_kinds_are_told_apart(void **state)
{
    (void)state;
    struct wf_value_model *m = malloc(sizeof *m);
    assert_non_null(m);
    wf_value_model_init(m);
    struct wf_value_kind comes_back = {.bin = {[WF_VALUE_TURN] = 3}};
    struct wf_value_kind never = {.bin = {[WF_VALUE_TURN] = 0}};
    assert_true(wf_value_chance(m, &comes_back, 0) <= 1 && wf_value_chance(m, &never, 0) >= 0);
    for (int round = 0; round < 300; round++)
        for (unsigned bucket = 0; bucket <= 16; bucket++) {
            if (bucket <= 10)
                wf_value_learn(m, &comes_back, bucket, bucket == 10);
            wf_value_learn(m, &never, bucket, false);
        }
    assert_true(wf_value_of(m, &comes_back, 5, m->edge[5]) >
                20 * wf_value_of(m, &never, 5, m->edge[5]));
    assert_true(wf_value_chance(m, &comes_back, 0) > 0.9f);
    assert_true(wf_value_chance(m, &never, 0) < 0.3f);
    /* The nearer the use, the less room it costs to wait for it. */
    for (unsigned bucket = 1; bucket <= 10; bucket++)
        assert_true(wf_value_of(m, &comes_back, bucket, m->edge[bucket]) >=
                    wf_value_of(m, &comes_back, bucket - 1, m->edge[bucket - 1]));
    free(m);
}

static void test_with_nothing_known_the_youngest_is_worth_most(void **state)
{
    (void)state;
    struct wf_value_model *m = malloc(sizeof *m);
    assert_non_null(m);
    wf_value_model_init(m);
    const struct wf_value_kind kind = {.hint = 0};
    /* From the second bucket on: it is shorter than the first. */
    for (unsigned bucket = 2; bucket < WF_VALUE_BUCKETS; bucket++)
        assert_true(wf_value_of(m, &kind, bucket, m->edge[bucket]) <=
                    wf_value_of(m, &kind, bucket - 1, m->edge[bucket - 1]));
    free(m);
}

/* ----------------------------------------------------------------------------------- the policy */

/* Chains of 3 blocks that come back and chains of 6 that never do: who tells them apart keeps the
 * former. */
static double hit_rate(const struct wf_policy_ops *ops)
{
    struct world *w = world_open(ops, 100);
    struct random_source random = random_seeded("hit_rate");
    for (uint32_t step = 0; step < 3000; step++) {
        w->now_us += SECOND;
        if (step % 3 == 0)
            request(w, random_below(&random, 20), 3); /* each about once a minute */
        else
            request(w, 20 + step, 6);
    }
    double rate = (double)w->hits / (double)w->asked;
    world_close(w);
    return rate;
}

static void test_what_never_comes_back_goes_first(void **state)
{
    (void)state;
    double lru = hit_rate(&wf_policy_lru), value = hit_rate(&wf_policy_value);
    assert_true(lru < 0.12);   /* 100 blocks pass in 20 seconds */
    assert_true(value > 0.17); /* 0.2 is all that there is */
}

/* A chain that went as a whole is known when it is back: its turn goes on. */
static void test_what_went_is_remembered(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    request(w, 7, 4);
    w->now_us += SECOND;
    while (w->held[7])
        one_goes(w);
    w->now_us += 10 * (uint64_t)SECOND;
    request(w, 7, 5);
    request(w, 8, 1); /* the request before is over */
    assert_int_equal(reason_of(w, 7).turn, 1);
    w->now_us += 5 * (uint64_t)SECOND;
    request(w, 7, 6);
    request(w, 9, 1);
    assert_int_equal(reason_of(w, 7).turn, 2);
    request(w, 10, 1);
    assert_int_equal(reason_of(w, 9).turn, 0);
    world_close(w);
}

/* All of the chain goes, because somebody says so. */
static void chain_goes(struct world *w, uint32_t chain)
{
    while (w->held[chain]) {
        uint32_t slot = w->slot_of[chain][--w->held[chain]] - 1;
        w->ops->leave(w->policy, slot);
        w->ops->gone(w->policy, slot, key_of(chain, w->held[chain]));
        w->spare[w->spares++] = slot;
    }
}

/* The same requests to two pools; one of them has brought the chain up before.  Chains of `many`
 * come back late or never; with `vain`, some are brought up for nobody, and go again. */
static bool brought_alike(uint32_t many, bool vain)
{
    enum { FEW = 60, STEPS = 4000 };
    struct world *w[2];
    struct random_source random = {many};
    bool forgotten = false;
    for (int i = 0; i < 2; i++)
        w[i] = world_open(&wf_policy_value, SLOTS);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t few = random_below(&random, FEW), late = FEW + random_below(&random, many);
        uint32_t chain = step % 2 ? late : few, length = 1 + random_below(&random, LENGTH);
        uint32_t leaves = step % 2 ? late : random_below(&random, FEW);
        uint32_t wait_us = 1 + random_below(&random, 4 * SECOND);
        bool up = random_below(&random, 4) < 3;
        for (int i = 0; i < 2; i++) {
            w[i]->now_us += wait_us;
            if (i && vain && !w[i]->held[leaves]) {
                bring(w[i], leaves, length);
                chain_goes(w[i], leaves);
            }
            if (i && up)
                bring(w[i], chain, length);
            request(w[i], chain, length);
            wf_value_judge(w[i]->policy);
        }
        struct wf_policy_reason why[2] = {reason_of(w[0], chain), reason_of(w[1], chain)};
        assert_int_equal(why[0].turn, why[1].turn);
        assert_true(why[0].value == why[1].value && why[0].chance == why[1].chance);
        forgotten |= step > STEPS / 2 && step % 2 && why[0].turn == 0;
        assert_memory_equal(&w[0]->policy->model, &w[1]->policy->model, sizeof w[0]->policy->model);
        assert_true(w[0]->ops->uses(w[0]->policy) == w[1]->ops->uses(w[1]->policy));
        for (int i = 0; i < 2; i++)
            chain_goes(w[i], leaves);
    }
    for (int i = 0; i < 2; i++)
        world_close(w[i]);
    return forgotten;
}

static void test_bringing_up_is_no_request(void **state)
{
    (void)state;
    assert_false(brought_alike(30, true));
    assert_true(brought_alike(2000, false)); /* of some that come back nothing is known any more */
}

/* What was evicted for being worth least is not the next to go when it is up again; unless it is
 * cooled, or nobody comes for long. */
static void test_what_is_brought_up_stays_a_while(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 40);
    uint64_t minute_us = 60 * (uint64_t)SECOND;
    request(w, 0, 4);
    w->now_us += minute_us;
    chain_goes(w, 0);
    for (uint32_t chain = 1; chain < 10; chain++)
        request(w, chain, 4);
    wf_value_judge(w->policy); /* the last is over, too */
    bring(w, 0, 4);
    assert_int_equal(reason_of(w, 0).aside, 1);
    assert_true(reason_of(w, 0).age_s >= 60); /* it was not used */
    assert_int_equal(w->ops->before(w->policy, w->slot_of[0][3] - 1), 9);
    for (uint32_t chain = 10; chain < 20; chain++)
        request(w, chain, 4);
    assert_int_equal(w->held[0], 4);
    w->now_us += 2 * minute_us; /* an octave older */
    for (uint32_t chain = 20; chain < 30; chain++)
        request(w, chain, 4);
    assert_int_equal(w->held[0], 0);
    bring(w, 0, 4);
    w->ops->cool(w->policy, w->slot_of[0][3] - 1);
    assert_int_equal(reason_of(w, 0).aside, -1);
    assert_int_equal(w->ops->before(w->policy, w->slot_of[0][3] - 1), 0);
    bring(w, 0, 4); /* it was there, and may stay */
    assert_int_equal(reason_of(w, 0).aside, 1);
    world_close(w);
}

/* Of two that are alike, what counts for less goes first, also after uses that say nothing. */
static void test_what_counts_for_more_stays(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 12);
    for (uint32_t chain = 0; chain < 3; chain++)
        request(w, chain, 4);
    for (uint32_t i = 0; i < 4; i++) {
        w->ops->hint(w->policy, &(struct wf_policy_hint){.kind = WF_POLICY_WEIGHS,
                                                         .slot = w->slot_of[0][i] - 1,
                                                         .weight = 16});
        w->ops->hint(w->policy, &(struct wf_policy_hint){.kind = WF_POLICY_WEIGHS,
                                                         .slot = w->slot_of[2][i] - 1,
                                                         .weight = 0.25f});
    }
    assert_true(reason_of(w, 0).weight > 14 && reason_of(w, 0).weight < 18);
    assert_true(reason_of(w, 1).weight == 1 && reason_of(w, 1).cost_s_gib == 0);
    assert_true(reason_of(w, 2).weight > 0.2 && reason_of(w, 2).weight < 0.3);
    for (uint32_t chain = 0; chain < 3; chain++)
        request(w, chain, 4);
    wf_value_judge(w->policy);
    assert_true(reason_of(w, 0).weight > 14);
    assert_true(reason_of(w, 0).value == reason_of(w, 1).value); /* hits are hits */
    request(w, 3, 4);
    assert_int_equal(w->held[2], 0);
    request(w, 4, 4);
    assert_int_equal(w->held[1], 0);
    assert_int_equal(w->held[0], 4);
    w->ops->hint(w->policy, &(struct wf_policy_hint){.kind = WF_POLICY_WEIGHS,
                                                     .slot = w->slot_of[0][3] - 1,
                                                     .weight = 1});
    assert_int_equal(w->policy->seats[w->slot_of[0][3] - 1].cost, 0);
    world_close(w);
}

static void test_hints_and_cooling(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    for (uint32_t chain = 0; chain < 3; chain++)
        request(w, chain, 2);
    w->ops->hint(w->policy, &(struct wf_policy_hint){WF_POLICY_DONE, w->slot_of[0][1] - 1, 0});
    w->ops->hint(w->policy, &(struct wf_policy_hint){WF_POLICY_WANTED, w->slot_of[1][1] - 1, 0});
    assert_int_equal(reason_of(w, 0).hint, WF_POLICY_DONE);
    assert_int_equal(reason_of(w, 1).hint, WF_POLICY_WANTED);
    assert_true(reason_of(w, 0).value < reason_of(w, 2).value);
    assert_true(reason_of(w, 2).value < reason_of(w, 1).value);
    w->ops->cool(w->policy, w->slot_of[1][1] - 1);
    assert_int_equal(w->ops->victim(w->policy, w->now_us, WF_POLICY_ANY), w->slot_of[1][1] - 1);
    world_close(w);
}

/* Hints that are worth nothing cost nothing; hints that are right are believed. */
static void test_hints_are_believed_as_far_as_they_were_right(void **state)
{
    (void)state;
    for (int honest = 0; honest < 2; honest++) {
        struct world *w = world_open(&wf_policy_value, 256);
        struct random_source random = random_seeded("hints");
        for (uint32_t step = 0; step < 7000; step++) {
            w->now_us += SECOND;
            bool comes_back = step % 2;
            uint32_t chain = comes_back ? random_below(&random, 30) : 30 + step / 2;
            request(w, chain, 2);
            bool says = honest ? comes_back : random_below(&random, 2);
            w->ops->hint(w->policy,
                         &(struct wf_policy_hint){says ? WF_POLICY_WANTED : WF_POLICY_DONE,
                                                  w->slot_of[chain][1] - 1, 0});
        }
        for (uint32_t i = 0; i < 2; i++) {
            request(w, 4000 + i, 2);
            w->ops->hint(w->policy, &(struct wf_policy_hint){i ? WF_POLICY_WANTED : WF_POLICY_DONE,
                                                             w->slot_of[4000 + i][1] - 1, 0});
        }
        double times = reason_of(w, 4001).value / reason_of(w, 4000).value;
        if (honest)
            assert_true(times > 10);
        else
            assert_true(times < 6); /* at first it is more than 50 */
        world_close(w);
    }
}

/* What the policy asks for goes through here (the linker wraps it). */
static size_t asked_bytes;
void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes)
{
    asked_bytes += count * bytes;
    return __real_calloc(count, bytes);
}

static size_t bytes_for(uint32_t slots)
{
    struct wf_policy *policy;
    asked_bytes = 0;
    assert_int_equal(wf_policy_value.create(slots, &policy), WEFT_OK);
    wf_policy_value.destroy(policy);
    return asked_bytes;
}

static void test_64_bytes_a_slot(void **state)
{
    (void)state;
    size_t some = bytes_for(100000), more = bytes_for(300000);
    assert_true(some > 0);
    assert_true(more - some <= (size_t)64 * 200000);
    assert_true(some <= (size_t)64 * 100000 + (1u << 20)); /* and what all have in common */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_octaves),
        cmocka_unit_test(test_kinds_are_told_apart),
        cmocka_unit_test(test_with_nothing_known_the_youngest_is_worth_most),
        cmocka_unit_test(test_what_never_comes_back_goes_first),
        cmocka_unit_test(test_what_went_is_remembered),
        cmocka_unit_test(test_bringing_up_is_no_request),
        cmocka_unit_test(test_what_is_brought_up_stays_a_while),
        cmocka_unit_test(test_what_counts_for_more_stays),
        cmocka_unit_test(test_hints_and_cooling),
        cmocka_unit_test(test_hints_are_believed_as_far_as_they_were_right),
        cmocka_unit_test(test_64_bytes_a_slot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
