/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains that are handed over wait to be fetched, so many of them: whoever hands over without end
 * leaves room for others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fabric.h"

static void who_hands_over_without_end_leaves_room(void **state)
{
    (void)state;
    struct wf_wanted_chains *wanted = wf_wanted_create();
    uint8_t tip[32] = {0};
    uint32_t taken[3] = {0};
    static const char *const from[3] = {"x", "y", "b"};
    assert_non_null(wanted);
    for (int who = 0; who < 2; who++)
        for (uint32_t i = 0; i < 10000; i++) {
            tip[0] = (uint8_t)i;
            tip[1] = (uint8_t)(i >> 8);
            taken[who] += wf_wanted_add(wanted, from[who], 0, tip);
        }
    for (uint32_t i = 0; i < 8; i++)
        taken[2] += wf_wanted_add(wanted, from[2], 0, tip);
    assert_true(taken[0] >= 64 && taken[1] >= 32);
    assert_int_equal(taken[2], 8);
    wf_wanted_destroy(wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_hands_over_without_end_leaves_room)};
    return cmocka_run_group_tests_name("chains that are handed over", tests, NULL, NULL);
}
