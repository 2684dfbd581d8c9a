/* SPDX-License-Identifier: Apache-2.0
 *
 * The time of a use, against the time that it was.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/ages.h"

#define TICK 100000000ULL

static struct wf_ages ages;

static int empty_it(void **state)
{
    (void)state;
    memset(&ages, 0, sizeof ages);
    return 0;
}

static void uses_are_known_to_a_tick_at_first(void **state)
{
    (void)state;
    for (uint64_t tick = 1; tick <= 200; tick++)
        wf_ages_note(&ages, tick * 10, tick * TICK);
    uint64_t now = 200 * TICK;
    for (uint64_t use = 1; use <= 2000; use++) {
        uint64_t real = now - use * TICK / 10, known = wf_ages_since(&ages, use, now);
        assert_true(known <= real && real - known < TICK);
    }
    assert_int_equal(wf_ages_since(&ages, 2001, now), 0);
}

static void uses_are_known_to_a_share_of_the_time_later(void **state)
{
    (void)state;
    for (uint64_t ticks = 300; ticks <= 3000000; ticks *= 10) {
        empty_it(NULL);
        for (uint64_t tick = 1; tick <= ticks; tick++)
            wf_ages_note(&ages, tick, tick * TICK);
        uint64_t now = ticks * TICK, allowed = now / 128 + TICK;
        for (uint64_t use = 1; use <= ticks; use += ticks / 100) {
            uint64_t real = now - use * TICK, known = wf_ages_since(&ages, use, now);
            if (known > real || real - known > allowed)
                fail_msg("of %llu ticks use %llu is known as %llu and was %llu",
                         (unsigned long long)ticks, (unsigned long long)use,
                         (unsigned long long)known, (unsigned long long)real);
        }
    }
}

static void idle_time_counts(void **state)
{
    (void)state;
    wf_ages_note(&ages, 5, TICK);
    for (uint64_t tick = 2; tick <= 1000; tick++)
        wf_ages_note(&ages, 5, tick * TICK);
    wf_ages_note(&ages, 6, 1001 * TICK);
    assert_int_equal(wf_ages_since(&ages, 5, 1001 * TICK), 1000 * TICK);
    assert_int_equal(wf_ages_since(&ages, 6, 1001 * TICK), 0);
    assert_int_equal(ages.count, 2);
}

static void an_empty_one_knows_nothing(void **state)
{
    (void)state;
    assert_int_equal(wf_ages_since(&ages, 1, TICK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(uses_are_known_to_a_tick_at_first, empty_it),
        cmocka_unit_test_setup(uses_are_known_to_a_share_of_the_time_later, empty_it),
        cmocka_unit_test_setup(idle_time_counts, empty_it),
        cmocka_unit_test_setup(an_empty_one_knows_nothing, empty_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
