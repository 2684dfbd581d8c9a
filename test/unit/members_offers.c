/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains that are handed over wait to be fetched, and blocks that are to be removed everywhere wait
 * to be removed, so many of them: whoever has these without end leaves room for others.
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

static void who_removes_without_end_leaves_room(void **state)
{
    (void)state;
    struct wf_wanted_chains *wanted = wf_wanted_create();
    uint8_t key[32] = {0};
    uint32_t kept = 0;
    assert_non_null(wanted);
    for (uint32_t i = 0; i < 10000; i++) {
        key[0] = (uint8_t)i;
        key[1] = (uint8_t)(i >> 8);
        kept += wf_unwanted_add(wanted, "x", 0, key);
    }
    assert_true(kept >= 1024 && kept < 2048);
    key[2] = 1;
    for (uint32_t i = 0; i < 128; i++) {
        key[0] = (uint8_t)i;
        assert_true(wf_unwanted_add(wanted, "b", 0, key));
        assert_true(wf_unwanted_add(wanted, "x", 0, key)); /* that it is kept is enough */
    }
    wf_wanted_destroy(wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_hands_over_without_end_leaves_room),
        cmocka_unit_test(who_removes_without_end_leaves_room),
    };
    return cmocka_run_group_tests_name("what others want, of the node", tests, NULL, NULL);
}
