/* SPDX-License-Identifier: Apache-2.0
 *
 * Sizes as people write them, levels, and how a failure leaves its sentence.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <xxhash.h>

#include "base/log.h"
#include "base/size.h"
#include "base/status.h"
#include "base/text.h"

/* As the library's own entry point has it, before sum.h names another. */
static uint64_t plain_sum(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

#include "base/sum.h"

static void sizes_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"4096", 4096},
        {"10GB", 10ULL << 30},
        {"1.5 GiB", 3ULL << 29},
        {" 512m ", 512ULL << 20},
        {"1k", 1024},
        {"2TiB", 2ULL << 40},
        {"7b", 7},
        {".5K", 512},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint64_t bytes = UINT64_MAX;
        assert_int_equal(weft_size_parse(good[i].text, &bytes), WEFT_OK);
        assert_int_equal(bytes, good[i].bytes);
    }
}

static void what_is_no_size_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",         "GB",   "-1",   "ten",  "10GBs", "10 GB 2",
                                      "1e999",    "0x10", "nan",  "inf",  "1iB",   "10G i",
                                      "9999999T", "1..5", "1,5G", "10GBB"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t bytes = 42;
        if (wf_size_parse(bad[i], &bytes) != WEFT_E_INVALID)
            fail_msg("'%s' was read as %llu bytes", bad[i], (unsigned long long)bytes);
        assert_int_equal(bytes, 42); /* outputs are set only on success */
        assert_true(strlen(wf_last_error()) > 0);
    }
    uint64_t bytes;
    assert_int_equal(wf_size_parse(NULL, &bytes), WEFT_E_INVALID);
}

static void sizes_are_written(void **state)
{
    (void)state;
    char text[16];
    assert_string_equal(wf_size_format(0, text, sizeof text), "0 B");
    assert_string_equal(wf_size_format(1536, text, sizeof text), "1.5 KiB");
    assert_string_equal(wf_size_format(10ULL << 30, text, sizeof text), "10 GiB");
    assert_string_equal(wf_size_format(3ULL << 50, text, sizeof text), "3072 TiB");
    assert_true(strlen(wf_size_format(UINT64_MAX, text, sizeof text)) < sizeof text);
}

static void *other_thread(void *seen)
{
    memcpy(seen, wf_last_error(), strlen(wf_last_error()) + 1);
    return NULL;
}

static void a_sentence_belongs_to_its_thread(void **state)
{
    (void)state;
    char seen[WF_ERROR_MAX] = "unset";
    errno = EPERM;
    assert_int_equal(wf_fail(WEFT_E_QUOTA, "domain '%s' is %d bytes over", "a", 7), WEFT_E_QUOTA);
    assert_int_equal(errno, EPERM);
    assert_string_equal(weft_last_error(), "domain 'a' is 7 bytes over");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(seen, "");
}

static void every_status_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(weft_status_name(WEFT_OK), "WEFT_OK");
    assert_string_equal(weft_status_name(WEFT_E_FORKED), "WEFT_E_FORKED");
    assert_string_equal(weft_status_name((enum weft_status) - 999), "unknown status");
}

static void levels_are_read(void **state)
{
    (void)state;
    assert_int_equal(wf_log_level_parse("off"), WF_LOG_OFF);
    assert_int_equal(wf_log_level_parse("debug"), WF_LOG_DEBUG);
    assert_int_equal(wf_log_level_parse("loud"), -1);
    assert_int_equal(wf_log_level_get(), WF_LOG_OFF); /* a library is silent until told */
}

static void test_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"line\n",
                                      "tab\t",
                                      "\x1b[31m",
                                      "\x7f",
                                      ("\xc2\x9b"
                                       "31m"),
                                      "\xe2\x80\xae",
                                      "\xe2\x81\xa6",
                                      "\xff",
                                      "\xe2\x82",
                                      "\xc0\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(wf_text_check("it", bad[i], 64, false), WEFT_E_INVALID);
    assert_int_equal(wf_text_check("it", "", 64, false), WEFT_OK);
    assert_int_equal(wf_text_check("it", "größe 大きさ 🙂", 64, false), WEFT_OK);
    assert_int_equal(wf_text_check("it", "two\n\tlines", 64, true), WEFT_OK);
    assert_int_equal(wf_text_check("it", "1234", 4, false), WEFT_OK);
    assert_int_equal(wf_text_check("it", "12345", 4, false), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "longer than 4"));
}

/* What one processor wrote another reads: the sum is the same whatever took it. */
static void sums_do_not_depend_on_the_processor(void **state)
{
    (void)state;
    static uint8_t data[70000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t bytes = 0; bytes < 2100; bytes++)
        assert_int_equal(wf_sum64(data + bytes % 7, bytes), plain_sum(data + bytes % 7, bytes));
    assert_int_equal(wf_sum64(data, 65536), plain_sum(data, 65536));
    assert_int_equal(wf_sum64(data + 3, 69997), plain_sum(data + 3, 69997));
    /* xxHash's own test: the empty input without a seed. */
    assert_int_equal(wf_sum64(data, 0), 0x2d06800538d394c2u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(sums_do_not_depend_on_the_processor),
        cmocka_unit_test(sizes_are_read),
        cmocka_unit_test(what_is_no_size_is_refused),
        cmocka_unit_test(sizes_are_written),
        cmocka_unit_test(a_sentence_belongs_to_its_thread),
        cmocka_unit_test(every_status_has_its_name),
        cmocka_unit_test(levels_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
