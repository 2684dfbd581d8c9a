/* SPDX-License-Identifier: Apache-2.0
 *
 * What a codec's speed is measured on: as much smaller as KV is, by the codecs that KV is stored
 * by.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/rates.h"

/* docs/CODECS.md, "Measured": 1.43 to 1.48 times, with 16 tokens a block and with 64. */
static void it_is_as_much_smaller_as_kv(void **state)
{
    (void)state;
    struct wf_rates rates = wf_rates_measure(&wf_codec_lossless);
    assert_true(rates.ratio > 1.40 && rates.ratio < 1.52);
    assert_true(rates.encode_mbps > 0 && rates.decode_mbps > 0);
}

static void what_is_stored_as_it_is_is_measured_too(void **state)
{
    (void)state;
    struct wf_rates rates = wf_rates_measure(&wf_codec_raw);
    assert_true(rates.ratio > 0.99 && rates.ratio <= 1);
    assert_true(rates.encode_mbps > 0 && rates.decode_mbps > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_as_much_smaller_as_kv),
        cmocka_unit_test(what_is_stored_as_it_is_is_measured_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
