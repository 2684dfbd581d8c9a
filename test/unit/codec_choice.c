/* SPDX-License-Identifier: Apache-2.0
 *
 * Which setting a quality is given: every part of the rule that choice.h states, on curves whose
 * answers are known.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "codec/choice.h"

#define TRIES 17u
#define FINEST 952u
#define BY 8u
/* Where KL is what is allowed, 1e-3, on the curves below: it doubles with every 8 on. */
#define AT_MOST 1016u

static const struct wf_wanted wanted = {.most = 1e-3, .least = 3.6, .enough = 4, .errors = 2};

/* KL almost without an error, likelihood that goes with it, and one ratio for all settings but the
 * finest. */
static void curve(double ratio, double growth, struct wf_tried tried[TRIES])
{
    for (uint32_t i = 0; i < TRIES; i++) {
        uint32_t p = FINEST + i * BY;
        double kl = 1e-3 * exp2(((double)p - AT_MOST) / BY);
        tried[i] = (struct wf_tried){.parameter = p,
                                     .kl = kl,
                                     .kl_error = kl * 1e-6,
                                     .loss = growth * kl,
                                     .loss_error = growth * kl * 1e-3,
                                     .ratio = ratio + 1e-4 * i};
    }
}

/* Where a part of what is allowed is reached: 8 on for each doubling. */
static uint32_t reached(double part)
{
    return (uint32_t)(AT_MOST + floor(BY * log2(part) - 1e-4));
}

static uint32_t chosen(const struct wf_tried tried[TRIES])
{
    struct wf_choice choice = wf_choice_of(tried, TRIES, &wanted);
    assert_true(choice.met);
    return choice.setting.parameter;
}

static void what_is_used_falls_with_what_is_had(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 0.5, tried); /* less than the least */
    assert_int_equal(chosen(tried), reached(1));
    assert_int_equal(chosen(tried), AT_MOST - 1);
    curve(3.7, 0.5, tried); /* less than enough */
    assert_int_equal(chosen(tried), reached(0.75));
    assert_int_equal(chosen(tried), 1012);
    curve(4.1, 0.5, tried); /* more */
    assert_int_equal(chosen(tried), reached(0.15 * sqrt(4 / 4.1)));
    assert_int_equal(chosen(tried), 993);
    curve(16, 0.5, tried);
    assert_int_equal(chosen(tried), reached(0.15 / 2));
    assert_int_equal(chosen(tried), 986);
    curve(64, 0.5, tried);
    assert_int_equal(chosen(tried), reached(0.15 / 4));
    assert_int_equal(chosen(tried), 978);
}

static void what_is_had_counts_where_it_is_had(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    /* 3.6 times at what costs 1/4, 4 times at what costs 1/2: all of the allowance is open until
     * the first, three quarters until the second, and then 15 %, which these settings passed. */
    curve(3, 0.5, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].ratio = 3.6 + 0.05 * ((double)tried[i].parameter - (AT_MOST - 2 * BY));
    struct wf_choice choice = wf_choice_of(tried, TRIES, &wanted);
    assert_true(choice.met && choice.setting.parameter == AT_MOST - BY);
    assert_true(fabs(choice.setting.ratio - 4) < 1e-9);
    assert_true(fabs(choice.setting.kl - 5e-4) < 1e-9);
}

static void errors_are_on_top(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 0.5, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].kl_error = tried[i].kl * 0.6;
    assert_int_equal(chosen(tried), reached(1 / 2.2)); /* two of them */
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].kl_error = 0; /* unknown: a quarter */
    assert_int_equal(chosen(tried), reached(1 / 1.5));
}

static void likelihood_that_surely_goes_counts_as_kl(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 4.5, tried);
    assert_int_equal(chosen(tried), reached(1 / 4.5));
    curve(64, 4.5, tried);
    assert_int_equal(chosen(tried), reached(0.15 / 4 / 4.5));
}

/* `growth` ± half of it, by all settings that tell of it together. */
static void doubtful_curve(double ratio, double growth, struct wf_tried tried[TRIES])
{
    curve(ratio, growth, tried);
    double told = 0;
    for (uint32_t i = 0; i < TRIES; i++)
        told += tried[i].kl >= 1e-3 / 8 && tried[i].kl <= 4e-3;
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].loss_error = tried[i].kl * growth / 2 * sqrt(told);
}

static void a_doubt_counts_where_ratio_is_had(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    /* 5 ± 2.5: surely no less than 0; 5 as expected; 10 at the worst. */
    doubtful_curve(2, 5, tried);
    struct wf_growth growth = wf_choice_growth(tried, TRIES, wanted.most);
    assert_true(fabs(growth.mean - 5) < 1e-9 && fabs(growth.error - 2.5) < 1e-9);
    assert_int_equal(chosen(tried), reached(1));
    doubtful_curve(3.7, 5, tried);
    assert_int_equal(chosen(tried), reached(0.75 / 5));
    doubtful_curve(4.1, 5, tried);
    assert_int_equal(chosen(tried), reached(0.75 / 10));
    /* One without a doubt on the same curve is 15 % of what is allowed. */
    doubtful_curve(4.1, 1, tried);
    assert_int_equal(chosen(tried), reached(0.15 * sqrt(4 / 4.1)));
}

static void only_settings_near_what_is_allowed_tell_of_likelihood(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 1, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        if (tried[i].kl < 1.249e-4 || tried[i].kl > 4.001e-3)
            tried[i].loss *= 100;
    struct wf_growth growth = wf_choice_growth(tried, TRIES, wanted.most);
    assert_true(fabs(growth.mean - 1) < 1e-9);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].loss_error = 0; /* none tells */
    growth = wf_choice_growth(tried, TRIES, wanted.most);
    assert_true(growth.mean == 1 && growth.error == 0);
}

static void a_setting_that_surely_lost_too_much_is_not_taken(void **state)
{
    struct wf_tried tried[TRIES];
    struct wf_wanted laxer = wanted;
    (void)state;
    curve(2, 0, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].loss_error = 5e-4;
    tried[4].loss = 1.9e-3; /* two errors below that is allowed */
    assert_int_equal(chosen(tried), reached(1));
    tried[4].loss = 2.1e-3; /* and here it is not */
    assert_in_range(chosen(tried), tried[3].parameter, tried[4].parameter - 1);
    laxer.errors = 3;
    assert_int_equal(wf_choice_of(tried, TRIES, &laxer).setting.parameter, reached(1));
}

static void none_is_the_finest_and_not_met(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 1, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i].kl += 1e-2;
    struct wf_choice choice = wf_choice_of(tried, TRIES, &wanted);
    assert_true(!choice.met && choice.setting.parameter == FINEST && choice.cost > 1e-2);
    curve(2, 1, tried);
    for (uint32_t i = 0; i < TRIES; i++)
        tried[i] = (struct wf_tried){.parameter = tried[i].parameter, .kl = 1e-6, .ratio = 2};
    choice = wf_choice_of(tried, TRIES, &wanted);
    assert_true(choice.met && choice.setting.parameter == FINEST + (TRIES - 1) * BY);
}

static void settings_between_lie_on_logarithms(void **state)
{
    struct wf_tried tried[TRIES];
    (void)state;
    curve(2, 0.5, tried);
    struct wf_tried t = wf_choice_between(tried, TRIES, AT_MOST + BY / 2);
    assert_true(fabs(t.kl / 1e-3 - sqrt(2)) < 1e-9);
    assert_true(t.parameter == AT_MOST + BY / 2 && t.ratio > tried[8].ratio &&
                t.ratio < tried[9].ratio);
    t = wf_choice_between(tried, TRIES, tried[TRIES - 1].parameter);
    assert_true(fabs(t.kl - tried[TRIES - 1].kl) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_used_falls_with_what_is_had),
        cmocka_unit_test(what_is_had_counts_where_it_is_had),
        cmocka_unit_test(errors_are_on_top),
        cmocka_unit_test(likelihood_that_surely_goes_counts_as_kl),
        cmocka_unit_test(a_doubt_counts_where_ratio_is_had),
        cmocka_unit_test(only_settings_near_what_is_allowed_tell_of_likelihood),
        cmocka_unit_test(a_setting_that_surely_lost_too_much_is_not_taken),
        cmocka_unit_test(none_is_the_finest_and_not_met),
        cmocka_unit_test(settings_between_lie_on_logarithms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
