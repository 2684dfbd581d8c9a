/* SPDX-License-Identifier: Apache-2.0
 *
 * What is learned of sessions that say when they come back: cases that can be computed by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <math.h>

#include <cmocka.h>

#include "core/ahead.h"

static void near(double is, double wants)
{
    if (!(fabs(is - wants) <= 1e-9 * fmax(1, fabs(wants))))
        fail_msg("%.12g is not %.12g", is, wants);
}

static void at_first_a_word_is_believed_roughly(void **state)
{
    (void)state;
    struct wf_ahead none = {.off = 0};
    struct wf_return back = wf_ahead_return(&none, 108, 8);
    assert_true(back.known);
    near(back.due_s, 108);
    near(back.spread_s, 2);
    near(back.reuse.chance, 1);
    near(wf_ahead_patience_s(&none, 8), 6);
}

static void who_keeps_his_word_is_expected_to_the_second(void **state)
{
    (void)state;
    struct wf_ahead kept = {.off = 0}, broken = {.off = 0};
    for (int i = 0; i < 20; i++) {
        wf_ahead_off(&kept, 8, i % 2 ? 0.08 : -0.08);
        wf_ahead_off(&broken, 8, i % 2 ? 16 : -4);
    }
    near(wf_ahead_return(&kept, 0, 8).spread_s, 0.08 / (2 * M_LN2));
    near(wf_ahead_return(&kept, 0, 80).spread_s, 0.8 / (2 * M_LN2)); /* in parts of what is said */
    near(wf_ahead_return(&broken, 0, 8).spread_s, 10 / (2 * M_LN2));
    double before = broken.off;
    wf_ahead_off(&broken, 0, 5); /* said nothing */
    near(broken.off, before);
    wf_ahead_off(&broken, 1e-3, 1e6); /* one that comes a week late says no more than one that does
                                         not come */
    assert_true(broken.off < before + 4 / (2 * M_LN2) / 20);
}

static void who_does_not_come_is_not_waited_for(void **state)
{
    (void)state;
    struct wf_ahead ahead = {.off = 0};
    for (int i = 0; i < 9; i++) {
        wf_ahead_said(&ahead);
        if (i % 3 == 0)
            wf_ahead_came(&ahead);
    }
    near(wf_ahead_return(&ahead, 0, 1).reuse.chance, 0.4);
    for (int i = 0; i < 100; i++) /* never more than said so */
        wf_ahead_came(&ahead);
    near(wf_ahead_return(&ahead, 0, 1).reuse.chance, 1);
}

static void what_was_long_ago_fades(void **state)
{
    (void)state;
    struct wf_ahead ahead = {.off = 0};
    for (int i = 0; i < 100000; i++) {
        wf_ahead_said(&ahead);
        wf_ahead_off(&ahead, 1, 2);
    }
    assert_true(wf_ahead_return(&ahead, 0, 1).reuse.chance < 0.01);
    for (int i = 0; i < 5000; i++) {
        wf_ahead_said(&ahead);
        wf_ahead_came(&ahead);
        wf_ahead_off(&ahead, 1, 0.01);
    }
    assert_true(wf_ahead_return(&ahead, 0, 1).reuse.chance > 0.98);
    assert_true(wf_ahead_return(&ahead, 0, 1).spread_s < 0.03);
}

static void room_is_worth_what_went_last(void **state)
{
    (void)state;
    struct wf_ahead ahead = {.off = 0};
    near(ahead.room, 0);
    wf_ahead_went(&ahead, 0.5, 0.002, 1000);
    near(ahead.room, 1e-6);
    wf_ahead_went(&ahead, 0.5, 0.004, 1000);
    near(ahead.room, 1.5e-6);
    wf_ahead_went(&ahead, INFINITY, 1, 1000);
    wf_ahead_went(&ahead, 1, 1, 0);
    near(ahead.room, 1.5e-6);
    for (int i = 0; i < 2000; i++)
        wf_ahead_went(&ahead, 0, 1, 1000);
    assert_true(ahead.room < 1e-12);
}

/* The whole of it: with what was learned, a chain that takes long begins early, and one for whom
 * nobody came is not worth it. */
static void what_is_learned_decides(void **state)
{
    (void)state;
    struct wf_ahead ahead = {.off = 0};
    struct wf_fetch fetch = {.load_s = 2, .saved_s = 2, .bytes = 1000};
    struct wf_prefetch said;
    for (int i = 0; i < 50; i++) {
        wf_ahead_said(&ahead);
        wf_ahead_came(&ahead);
        wf_ahead_off(&ahead, 10, 0.5);
        wf_ahead_went(&ahead, 0.01, 0.1, 100);
    }
    fetch.room_s_byte_s = ahead.room;
    struct wf_return back = wf_ahead_return(&ahead, 100, 10);
    wf_prefetch_decide(&back, &fetch, 90, &said);
    assert_int_equal(said.rule, WF_PREFETCH_LATER);
    double spread_s = 0.5 / (2 * M_LN2), within = exp(-2 / spread_s);
    double odds = (1 - within) / 0.01 - within;
    near(said.begin_s, 100 - spread_s * log(odds) - 2);
    near(said.quantile, 1 / (1 + odds));
    for (int i = 0; i < 2000; i++)
        wf_ahead_said(&ahead);
    for (int i = 0; i < 2000; i++)
        wf_ahead_went(&ahead, 10, 0.1, 100);
    fetch.room_s_byte_s = ahead.room;
    back = wf_ahead_return(&ahead, 100, 10);
    wf_prefetch_decide(&back, &fetch, 90, &said);
    assert_int_equal(said.rule, WF_PREFETCH_NOT_WORTH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_a_word_is_believed_roughly),
        cmocka_unit_test(who_keeps_his_word_is_expected_to_the_second),
        cmocka_unit_test(who_does_not_come_is_not_waited_for),
        cmocka_unit_test(what_was_long_ago_fades),
        cmocka_unit_test(room_is_worth_what_went_last),
        cmocka_unit_test(what_is_learned_decides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
