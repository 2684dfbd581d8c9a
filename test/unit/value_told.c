/* SPDX-License-Identifier: Apache-2.0
 *
 * Eviction by value: what it is told of blocks (hints, and what it takes to have them again), and
 * what it makes of that.
 */
#include <math.h>

#include "core/value.h"
#include "value_world.h"

#define COINS 1000u /* so many requests, and hints that mean nothing move next to nothing */

static struct wf_value_kind kind_of(const struct world *w, uint32_t chain)
{
    uint32_t end = w->slot_of[chain][w->held[chain] - 1] - 1;
    return wf_value_kind_of(&w->policy->segments[w->policy->seats[end].segment]);
}

static void tell(struct world *w, uint32_t chain, enum wf_policy_hint_kind kind, uint32_t tokens)
{
    uint32_t end = w->slot_of[chain][w->held[chain] - 1] - 1;
    w->ops->hint(w->policy, &(struct wf_policy_hint){kind, end, tokens});
}

/* --------------------------------------------------------------------------------------- hints */

static void test_hints_are_features(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    request(w, 1, 3);
    tell(w, 1, WF_POLICY_OUTPUT, 1000);
    assert_int_equal(kind_of(w, 1).bin[WF_VALUE_OUTPUT], wf_value_octave(1000));
    assert_int_equal(kind_of(w, 1).hint, 0); /* it says nothing of what is to come */
    tell(w, 1, WF_POLICY_WANTED, 0);
    assert_int_equal(kind_of(w, 1).hint, 1);
    assert_int_equal(kind_of(w, 1).bin[WF_VALUE_OUTPUT], wf_value_octave(1000));
    tell(w, 1, WF_POLICY_DONE, 0); /* the later word counts */
    assert_int_equal(kind_of(w, 1).hint, 2);
    w->now_us += SECOND;
    request(w, 1, 4); /* neither is said of the next turn */
    request(w, 2, 1);
    assert_int_equal(kind_of(w, 1).hint, 0);
    assert_int_equal(kind_of(w, 1).bin[WF_VALUE_OUTPUT], 0);
    world_close(w);
}

/* A word moves the odds of each age by e² at first, up or down. */
static void test_a_word_moves_the_odds(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    for (uint32_t chain = 0; chain < 3; chain++)
        request(w, chain, 2);
    tell(w, 0, WF_POLICY_WANTED, 0);
    tell(w, 1, WF_POLICY_DONE, 0);
    w->now_us += 64 * (uint64_t)SECOND;
    request(w, 3, 1);
    double wanted = reason_of(w, 0).value, done = reason_of(w, 1).value;
    double none = reason_of(w, 2).value;
    assert_true(wanted > 2 * none && wanted < 8 * none); /* more could not be used twice */
    assert_true(none > 4 * done && none < 16 * done);
    world_close(w);
}

struct coin {
    double hit_rate, wanted, done; /* of all; of two that are new at the end */
};

/* Each chain is new, and by chance one of two comes back once, 40 seconds later.  `right`: of so
 * many in a hundred what is said of it at first is what comes; 50: it is tossed for; -1: nothing is
 * said. */
static struct coin tossed(int right, uint32_t steps)
{
    struct world *w = world_open(&wf_policy_value, 50);
    struct random_source random = {(uint64_t)(right + 2)};
    bool back[CHAINS];
    for (uint32_t step = 0; step < steps; step++) {
        w->now_us += SECOND;
        back[step] = random_below(&random, 2) == 0;
        request(w, step, 2);
        bool truth = (int)random_below(&random, 100) < right;
        if (right >= 0)
            say(w, step, back[step] == truth ? WF_POLICY_WANTED : WF_POLICY_DONE);
        if (step >= 40 && back[step - 40])
            request(w, step - 40, 2);
    }
    struct coin out = {.hit_rate = (double)w->hits / (double)w->asked};
    w->capacity += 6; /* so that none of these goes */
    for (uint32_t chain = CHAINS - 3; chain < CHAINS; chain++)
        request(w, chain, 2);
    say(w, CHAINS - 3, WF_POLICY_WANTED);
    say(w, CHAINS - 2, WF_POLICY_DONE);
    out.wanted = reason_of(w, CHAINS - 3).value;
    out.done = reason_of(w, CHAINS - 2).value;
    world_close(w);
    return out;
}

static void test_a_coin_that_is_tossed_is_not_believed(void **state)
{
    (void)state;
    struct coin first = tossed(50, 1), few = tossed(50, COINS), many = tossed(50, 8 * COINS);
    double nothing = tossed(-1, 8 * COINS).hit_rate;
    assert_true(first.wanted > 10 * first.done);
    assert_true(few.wanted < 1.5 * few.done && few.done < 1.5 * few.wanted);
    assert_true(many.wanted < 1.2 * many.done && many.done < 1.2 * many.wanted);
    assert_true(many.hit_rate > nothing - 0.02);
    assert_true(tossed(90, 8 * COINS).hit_rate > nothing + 0.05); /* and one that is right helps */
}

/* Who lies as a rule is understood: what is said to be done is what comes back. */
static void test_a_liar_is_understood(void **state)
{
    (void)state;
    struct coin liar = tossed(5, 4 * COINS), honest = tossed(95, 4 * COINS);
    assert_true(liar.done > 5 * liar.wanted);
    assert_true(honest.wanted > 5 * honest.done);
}

/* How much was written says whether somebody comes back, where it does. */
static void test_the_output_is_learned(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 256);
    struct random_source random = random_seeded("output");
    for (uint32_t step = 0; step < 4000; step++) {
        w->now_us += SECOND;
        bool back = step % 2;
        uint32_t chain = back ? random_below(&random, 30) : 30 + step / 2;
        request(w, chain, 2);
        tell(w, chain, WF_POLICY_OUTPUT, back ? 30 : 3000);
    }
    for (uint32_t i = 0; i < 2; i++) {
        request(w, 4000 + i, 2);
        tell(w, 4000 + i, WF_POLICY_OUTPUT, i ? 30 : 3000);
    }
    assert_true(reason_of(w, 4001).value > 3 * reason_of(w, 4000).value);
    world_close(w);
}

/* --------------------------------------------------------------------------------------- costs */

static void test_costs_are_codes(void **state)
{
    (void)state;
    assert_int_equal(wf_value_cost_code(0), 0);
    assert_int_equal(wf_value_cost_code(-1), 0);
    assert_int_equal(wf_value_cost_code(NAN), 0);
    assert_int_equal(wf_value_cost_code(1e-30f), 1);
    assert_int_equal(wf_value_cost_code(INFINITY), COST_CODES - 1);
    assert_true(wf_value_cost(0) == 1); /* of blocks of which nobody said anything */
    float cost = 1e-4f;
    for (int i = 0; i < 65; i++, cost *= 1.3f) { /* to 2,000 and more */
        float told = wf_value_cost(wf_value_cost_code(cost));
        assert_true(told > cost * 0.93f && told < cost * 1.08f);
    }
}

static void request_at(struct world *w, uint32_t chain, uint32_t length, float cost)
{
    w->cost_s_gib = cost;
    request(w, chain, length);
}

/* Of what is as likely to come back, what costs least to have again goes first. */
static void test_the_cheap_goes_first(void **state)
{
    (void)state;
    const float costs[] = {4, 1, 0.1f, 2, 0.4f};
    const uint32_t order[] = {2, 4, 1, 3, 0};
    struct world *w = world_open(&wf_policy_value, 64);
    for (uint32_t chain = 0; chain < 5; chain++)
        request_at(w, chain, 2, costs[chain]);
    wf_value_judge(w->policy);
    for (uint32_t chain = 0; chain < 5; chain++) {
        double told = reason_of(w, chain).cost_s_gib, cost = (double)costs[chain];
        assert_true(told > cost * 0.93 && told < cost * 1.08);
        assert_true(reason_of(w, chain).value == reason_of(w, 0).value); /* it is hits alone */
    }
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(w->held[order[i]], 2);
        one_goes(w);
        one_goes(w);
        assert_int_equal(w->held[order[i]], 0);
    }
    world_close(w);
}

/* The ends of chains go first, whatever what stands before them costs; and a chain's worth follows
 * the block that would go. */
static void test_costs_follow_the_end(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    for (uint32_t chain = 0; chain < 2; chain++) {
        w->cost_of_block[0] = chain ? 2 : 0.5f;
        w->cost_of_block[1] = chain ? 1 : 4;
        request(w, chain, 2);
    }
    one_goes(w);
    assert_int_equal(w->held[1], 1); /* 1 of 4, 2, 1 and 0.5 */
    one_goes(w);
    assert_int_equal(w->held[1], 0); /* 2 of 4 and 2: the 0.5 stands before the 4 */
    one_goes(w);
    one_goes(w);
    assert_int_equal(w->held[0], 0);
    world_close(w);
}

/* What nobody said of a block is as it was of the one before; used again, it is what is said. */
static void test_costs_are_as_told_last(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 64);
    request_at(w, 0, 1, 3);
    request_at(w, 1, 1, 0);
    request_at(w, 2, 1, 1);
    assert_true(reason_of(w, 0).cost_s_gib == reason_of(w, 1).cost_s_gib);
    request_at(w, 1, 1, 0.5f);
    request_at(w, 3, 1, 2);
    assert_true(reason_of(w, 1).cost_s_gib < 0.55);
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hints_are_features),
        cmocka_unit_test(test_a_word_moves_the_odds),
        cmocka_unit_test(test_a_coin_that_is_tossed_is_not_believed),
        cmocka_unit_test(test_a_liar_is_understood),
        cmocka_unit_test(test_the_output_is_learned),
        cmocka_unit_test(test_costs_are_codes),
        cmocka_unit_test(test_the_cheap_goes_first),
        cmocka_unit_test(test_costs_follow_the_end),
        cmocka_unit_test(test_costs_are_as_told_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
