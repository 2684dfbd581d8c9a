/* SPDX-License-Identifier: Apache-2.0
 *
 * Timers against an array that is searched from end to end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../support/random.h"
#include "core/timers.h"

#define NUMBERS 64u
#define UNSET UINT64_MAX

static uint32_t soonest(const uint64_t *due)
{
    uint32_t best = WF_TIMERS_NONE;
    for (uint32_t i = 0; i < NUMBERS; i++)
        if (due[i] != UNSET && (best == WF_TIMERS_NONE || due[i] < due[best]))
            best = i;
    return best;
}

static void test_model(void **state)
{
    (void)state;
    struct wf_timers timers;
    struct random_source random = random_seeded("timers");
    uint64_t due[NUMBERS], popped = 0;
    for (uint32_t i = 0; i < NUMBERS; i++)
        due[i] = UNSET;
    assert_int_equal(wf_timers_init(&timers, NUMBERS), WEFT_OK);
    for (uint64_t now = 0; now < 100000; now++) {
        uint32_t number = random_below(&random, NUMBERS);
        switch (random_below(&random, 4)) {
        case 0:
            due[number] = now + random_below(&random, 500);
            wf_timers_set(&timers, number, due[number]);
            break;
        case 1:
            due[number] = UNSET;
            wf_timers_cancel(&timers, number);
            break;
        default: {
            uint32_t next = soonest(due);
            assert_true(wf_timers_next(&timers) == (next == WF_TIMERS_NONE ? UNSET : due[next]));
            uint32_t got = wf_timers_pop(&timers, now);
            if (next == WF_TIMERS_NONE || due[next] > now) {
                assert_int_equal(got, WF_TIMERS_NONE);
                break;
            }
            assert_true(due[got] == due[next]); /* any of those due at the same time */
            due[got] = UNSET;
            popped++;
            break;
        }
        }
    }
    assert_true(popped > 1000);
    wf_timers_fini(&timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
