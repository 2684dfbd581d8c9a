/* SPDX-License-Identifier: Apache-2.0
 *
 * Payloads that say what they are: every wrong byte is counted, wherever it is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

static const size_t sizes[] = {1, 31, 47, 48, 49, 63, 112, 4096, 4097, 65536, 131072, 131071};
#define SIZES (sizeof sizes / sizeof sizes[0])

static struct weft_key key_of(uint8_t first)
{
    struct weft_key key = {{first, 2, 3}};
    return key;
}

static void what_was_filled_is_right(void **state)
{
    (void)state;
    struct weft_key key = key_of(1);
    for (size_t i = 0; i < SIZES; i++) {
        uint8_t *payload = malloc(sizes[i]);
        wf_cli_payload_fill(payload, sizes[i], &key, i);
        assert_int_equal(wf_cli_payload_wrong(payload, sizes[i], &key, i), 0);
        free(payload);
    }
}

static void one_wrong_byte_is_one_wrong_byte(void **state)
{
    (void)state;
    struct weft_key key = key_of(1);
    uint64_t random = 7;
    for (size_t i = 0; i < SIZES; i++) {
        uint8_t *payload = malloc(sizes[i]);
        wf_cli_payload_fill(payload, sizes[i], &key, 3);
        for (int tries = 0; tries < 200; tries++) {
            size_t at = tries == 0   ? 0
                        : tries == 1 ? sizes[i] - 1
                                     : wf_cli_random(&random) % sizes[i];
            payload[at] ^= 0x40;
            assert_int_equal(wf_cli_payload_wrong(payload, sizes[i], &key, 3), 1);
            payload[at] ^= 0x40;
        }
        free(payload);
    }
}

static void another_block_is_all_wrong(void **state)
{
    (void)state;
    struct weft_key key = key_of(1), other = key_of(9);
    uint8_t *payload = malloc(65536);
    wf_cli_payload_fill(payload, 65536, &key, 5);
    /* One byte in 256 is right by chance. */
    assert_true(wf_cli_payload_wrong(payload, 65536, &other, 5) > 65536 * 98 / 100);
    assert_true(wf_cli_payload_wrong(payload, 65536, &key, 6) > 65536 * 98 / 100);
    /* Half a block of one write and half of another. */
    uint8_t *second = malloc(65536);
    wf_cli_payload_fill(second, 65536, &other, 5);
    memcpy(payload + 32768, second + 32768, 32768);
    uint64_t wrong = wf_cli_payload_wrong(payload, 65536, &key, 5);
    assert_true(wrong > 32768 * 98 / 100 && wrong <= 32768);
    free(payload);
    free(second);
}

static void percentiles_are_of_the_sorted(void **state)
{
    (void)state;
    double values[101];
    for (int i = 0; i <= 100; i++)
        values[i] = (i * 37) % 101;
    assert_true(wf_cli_percentile(values, 101, 0.5) == 50);
    assert_true(wf_cli_percentile(values, 101, 0.99) == 99);
    assert_true(wf_cli_percentile(values, 101, 1) == 100);
    assert_true(wf_cli_percentile(values, 0, 0.5) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_filled_is_right),
        cmocka_unit_test(one_wrong_byte_is_one_wrong_byte),
        cmocka_unit_test(another_block_is_all_wrong),
        cmocka_unit_test(percentiles_are_of_the_sorted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
