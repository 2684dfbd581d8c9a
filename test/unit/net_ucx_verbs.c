/* SPDX-License-Identifier: Apache-2.0
 *
 * Which UCX is trusted with RDMA, and what is said of one that is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/ucx_verbs.h"

#define CRASHES "ends this process when a peer dies while an RDMA link to it is made"

static char said[512];

static bool trusted(unsigned major, unsigned minor, bool cards, const char *named)
{
    const struct wf_ucx_version version = {major, minor, 1};
    memset(said, 'x', sizeof said);
    bool is = wf_ucx_verbs_trusted(&version, cards, named, said, sizeof said);
    assert_non_null(memchr(said, 0, sizeof said));
    return is;
}

static void an_older_one_is_refused_unless_it_is_named(void **state)
{
    (void)state;
    assert_false(trusted(1, 13, true, NULL));
    assert_non_null(strstr(said, "UCX 1.13.1 " CRASHES ", so RDMA is not used"));
    assert_non_null(strstr(said, "UCX_TLS=rc,ud,self"));
    assert_false(trusted(1, 12, true, NULL));
    assert_false(trusted(0, 99, true, NULL));
    assert_non_null(strstr(said, "UCX 0.99.1 "));
}

static void who_names_it_is_warned(void **state)
{
    static const char *const lists[] = {"rc,ud,self", "self,rc_verbs", "tcp,ud_verbs", "ib",
                                        "all",        "sm,dc_mlx5",    "^tcp"};
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        assert_false(trusted(1, 13, true, lists[i]));
        assert_non_null(strstr(said, CRASHES "; UCX_TLS="));
        assert_non_null(strstr(said, lists[i]));
    }
}

static void who_names_others_is_left_alone(void **state)
{
    static const char *const lists[] = {"tcp,self", "posix,sysv,cma,self", "", "sm", "self,,tcp"};
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        assert_false(trusted(1, 13, true, lists[i]));
        assert_string_equal(said, "");
    }
}

static void nothing_is_said_without_need(void **state)
{
    (void)state;
    assert_true(trusted(1, 14, true, NULL));
    assert_string_equal(said, "");
    assert_true(trusted(2, 0, true, "rc"));
    assert_string_equal(said, "");
    assert_true(trusted(1, 13, false, NULL)); /* there is none */
    assert_string_equal(said, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_older_one_is_refused_unless_it_is_named),
        cmocka_unit_test(who_names_it_is_warned),
        cmocka_unit_test(who_names_others_is_left_alone),
        cmocka_unit_test(nothing_is_said_without_need),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
