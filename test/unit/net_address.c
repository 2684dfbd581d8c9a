/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of nets: what is one, what is none and says so, and back to text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/address.h"

static void test_good(void **state)
{
    static const char *const good[] = {"tcp:127.0.0.1:7440", "tcp:[::1]:0", "ucx:10.0.0.1:65535",
                                       "unix:/run/weft/net"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct wf_net_address address;
        char text[WF_NET_ADDRESS_MAX];
        assert_int_equal(wf_net_address_parse(good[i], &address), WEFT_OK);
        wf_net_address_format(address.scheme, &address.socket, address.length, text);
        assert_string_equal(text, good[i]);
    }
    struct wf_net_address sim;
    assert_int_equal(wf_net_address_parse("sim:node 1", &sim), WEFT_OK);
    assert_int_equal(sim.scheme, WF_NET_SCHEME_SIM);
    assert_string_equal(sim.name, "node 1");
}

static void test_bad(void **state)
{
    static const char *const bad[] = {
        "",
        "tcp",
        "tcp:",
        "tcp:127.0.0.1",
        "tcp:127.0.0.1:",
        "tcp:1:2:3",
        "tcp:localhost:1",
        "tcp:::1:80",
        "tcp:[::1:80",
        "tcp:127.0.0.1:65536",
        "tcp:127.0.0.1:-1",
        "tcp:127.0.0.1:+1",
        "tcp:127.0.0.1: 1",
        "unix:",
        "sim:",
        "rdma:127.0.0.1:1",
        "TCP:127.0.0.1:1",
        ":127.0.0.1:1",
    };
    (void)state;
    struct wf_net_address address;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (wf_net_address_parse(bad[i], &address) != WEFT_E_INVALID)
            fail_msg("'%s' was taken for an address", bad[i]);
    char path[200] = "unix:/";
    memset(path + 6, 'x', 110);
    assert_int_equal(wf_net_address_parse(path, &address), WEFT_E_INVALID);
    char longest[400] = "sim:";
    memset(longest + 4, 'x', WF_NET_ADDRESS_MAX - 5);
    assert_int_equal(wf_net_address_parse(longest, &address), WEFT_OK);
    longest[WF_NET_ADDRESS_MAX - 1] = 'x';
    assert_int_equal(wf_net_address_parse(longest, &address), WEFT_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_good), cmocka_unit_test(test_bad)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
