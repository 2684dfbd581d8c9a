/* SPDX-License-Identifier: Apache-2.0
 *
 * The trace reader: what it takes, what it refuses, and that it goes on behind a bad line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/trace.h"

static char path[] = "/tmp/weft-trace-XXXXXX";

static void trace_write(const char *text, size_t bytes)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void trace_of(struct trace_reader *reader, const char *text)
{
    trace_write(text, strlen(text));
    assert_true(wf_trace_open(reader, path, TRACE_MOONCAKE));
}

#define GOOD                                                               \
    "{\"timestamp\": 1500, \"input_length\": 1030, \"output_length\": 7, " \
    "\"hash_ids\": [0, 46, 9]}\n"

static void a_request_is_read(void **state)
{
    (void)state;
    struct trace_reader reader;
    struct trace_request request;
    trace_of(&reader, GOOD);
    assert_int_equal(wf_trace_line(&reader), TRACE_OK);
    assert_int_equal(wf_trace_parse(&reader, &request), TRACE_OK);
    assert_true(request.timestamp_s == 1.5);
    assert_int_equal(request.input_length, 1030);
    assert_int_equal(request.output_length, 7);
    assert_int_equal(request.hash_count, 3);
    assert_int_equal(request.hash_ids[1], 46);
    assert_int_equal(wf_trace_line(&reader), TRACE_END);
    assert_int_equal(reader.offset, strlen(GOOD));
    wf_trace_close(&reader);
}

static void a_last_line_needs_no_newline(void **state)
{
    (void)state;
    struct trace_reader reader;
    struct trace_request request;
    trace_write(GOOD, strlen(GOOD) - 1);
    assert_true(wf_trace_open(&reader, path, TRACE_QWEN));
    assert_int_equal(wf_trace_line(&reader), TRACE_OK);
    assert_int_equal(wf_trace_parse(&reader, &request), TRACE_OK);
    assert_true(request.timestamp_s == 1500); /* seconds there */
    assert_int_equal(wf_trace_line(&reader), TRACE_END);
    wf_trace_close(&reader);
}

static void bad_lines_are_named_and_passed(void **state)
{
    (void)state;
    static const struct {
        const char *line, *says;
    } bad[] = {
        {"nonsense", "no JSON"},
        {"[1, 2]", "not an object"},
        {"{\"timestamp\": 1", "no JSON"},
        {"{\"input_length\": 1, \"output_length\": 1, \"hash_ids\": []}",
         "\"timestamp\" is missing"},
        {"{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": []}",
         "\"timestamp\" is -1"},
        {"{\"timestamp\": \"0\", \"input_length\": 1, \"output_length\": 1, \"hash_ids\": []}",
         "no number"},
        {"{\"timestamp\": 0, \"output_length\": 1, \"hash_ids\": []}",
         "\"input_length\" is missing"},
        {"{\"timestamp\": 0, \"input_length\": -5, \"output_length\": 1, \"hash_ids\": []}",
         "\"input_length\""},
        {"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1.5, \"hash_ids\": []}",
         "\"output_length\""},
        {"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1}",
         "\"hash_ids\" is missing"},
        {"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": 7}",
         "no list"},
        {"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1, \"2\"]}",
         "\"hash_ids\"[1]"},
        {"{\"timestamp\": 0, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": "
         "[99999999999999999999999]}",
         "no JSON"},
        {"\xff\xfe", "no JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct trace_reader reader;
        struct trace_request request;
        char text[1024];
        snprintf(text, sizeof text, "\n%s\n%s", bad[i].line, GOOD);
        trace_of(&reader, text);
        assert_int_equal(wf_trace_line(&reader), TRACE_OK);
        assert_int_equal(wf_trace_parse(&reader, &request), TRACE_BLANK);
        assert_int_equal(wf_trace_line(&reader), TRACE_OK);
        assert_int_equal(wf_trace_parse(&reader, &request), TRACE_BAD);
        assert_non_null(strstr(reader.error, bad[i].says));
        assert_non_null(strstr(reader.error, ":2: "));
        assert_int_equal(wf_trace_line(&reader), TRACE_OK);
        assert_int_equal(wf_trace_parse(&reader, &request), TRACE_OK);
        wf_trace_close(&reader);
    }
}

static void a_line_without_end_is_refused_and_passed(void **state)
{
    (void)state;
    size_t bytes = TRACE_LINE_MAX + 1000;
    char *text = malloc(bytes + strlen(GOOD) + 1);
    assert_non_null(text);
    memset(text, ' ', bytes);
    text[bytes - 1] = '\n';
    memcpy(text + bytes, GOOD, strlen(GOOD));
    trace_write(text, bytes + strlen(GOOD));
    free(text);
    struct trace_reader reader;
    struct trace_request request;
    assert_true(wf_trace_open(&reader, path, TRACE_MOONCAKE));
    assert_int_equal(wf_trace_line(&reader), TRACE_OK);
    assert_int_equal(wf_trace_parse(&reader, &request), TRACE_BAD);
    assert_non_null(strstr(reader.error, "the most"));
    assert_int_equal(wf_trace_line(&reader), TRACE_OK);
    assert_int_equal(wf_trace_parse(&reader, &request), TRACE_OK);
    assert_int_equal(reader.offset, bytes + strlen(GOOD));
    wf_trace_close(&reader);
}

static void too_many_ids_are_refused(void **state)
{
    (void)state;
    static const char head[] = "{\"timestamp\": 0, \"input_length\": 1, \"output_length\": 1, "
                               "\"hash_ids\": [1";
    size_t count = TRACE_HASH_IDS_MAX + 1, length = sizeof head - 1;
    char *text = malloc(length + 2 * count + 8);
    assert_non_null(text);
    memcpy(text, head, length);
    for (size_t i = 1; i < count; i++, length += 2)
        memcpy(text + length, ",1", 2);
    memcpy(text + length, "]}\n", 4);
    struct trace_reader reader;
    struct trace_request request;
    trace_of(&reader, text);
    assert_int_equal(wf_trace_line(&reader), TRACE_OK);
    assert_int_equal(wf_trace_parse(&reader, &request), TRACE_BAD);
    assert_non_null(strstr(reader.error, "65537 entries"));
    wf_trace_close(&reader);
    free(text);
}

static void a_file_that_is_not_there_has_a_sentence(void **state)
{
    (void)state;
    struct trace_reader reader;
    assert_false(wf_trace_open(&reader, "/nonexistent/trace.jsonl", TRACE_MOONCAKE));
    assert_non_null(strstr(reader.error, "/nonexistent/trace.jsonl"));
    wf_trace_close(&reader);
    enum trace_format format = TRACE_MOONCAKE;
    assert_true(wf_trace_format_of("qwen", &format));
    assert_int_equal(wf_trace_block_tokens(format), 16);
    assert_false(wf_trace_format_of("parquet", &format));
}

#define LINES(text) text text text

/* Ids for their tokens say which format it is; where they say nothing, what was said holds. */
static void the_format_is_known_by_its_lines(void **state)
{
    (void)state;
    static const char mooncake[] = LINES(GOOD);
    static const char qwen[] = LINES("{\"timestamp\": 1.5, \"input_length\": 33, "
                                     "\"output_length\": 7, \"hash_ids\": [0, 46, 9]}\n");
    static const char short_one[] = LINES("{\"timestamp\": 1, \"input_length\": 9, "
                                          "\"output_length\": 7, \"hash_ids\": [4]}\n");
    static const char neither[] = LINES("{\"timestamp\": 1, \"input_length\": 300, "
                                        "\"output_length\": 7, \"hash_ids\": [0, 46, 9]}\n");
    static const struct {
        const char *text;
        enum trace_format said, is;
        bool good;
    } all[] = {
        {mooncake, TRACE_UNSAID, TRACE_MOONCAKE, true},
        {mooncake, TRACE_MOONCAKE, TRACE_MOONCAKE, true},
        {mooncake, TRACE_QWEN, TRACE_QWEN, false},
        {qwen, TRACE_UNSAID, TRACE_QWEN, true},
        {qwen, TRACE_QWEN, TRACE_QWEN, true},
        {qwen, TRACE_MOONCAKE, TRACE_MOONCAKE, false},
        {LINES("no line\n" GOOD), TRACE_QWEN, TRACE_QWEN, false},
        {LINES(GOOD) "{\"timestamp\": 1, \"input_length\": 33, \"output_length\": 7, "
                     "\"hash_ids\": [0, 46, 9]}\n",
         TRACE_QWEN, TRACE_QWEN, true},
        {short_one, TRACE_UNSAID, TRACE_MOONCAKE, true},
        {short_one, TRACE_QWEN, TRACE_QWEN, true},
        {neither, TRACE_QWEN, TRACE_QWEN, true},
        {"", TRACE_UNSAID, TRACE_MOONCAKE, true},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct trace_reader reader;
        trace_write(all[i].text, strlen(all[i].text));
        assert_true(wf_trace_open(&reader, path, all[i].said));
        assert_int_equal(wf_trace_settle(&reader), all[i].good);
        assert_int_equal(reader.format, all[i].is);
        if (!all[i].good)
            assert_non_null(strstr(reader.error, all[i].text[0] == 'n'     ? "mooncake"
                                                 : all[i].is == TRACE_QWEN ? "--format mooncake"
                                                                           : "--format qwen"));
        assert_int_equal(reader.line_number, 0);
        assert_int_equal(wf_trace_line(&reader), *all[i].text ? TRACE_OK : TRACE_END);
        assert_int_equal(reader.line_number, *all[i].text ? 1 : 0);
        wf_trace_close(&reader);
    }
}

int main(void)
{
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_read),
        cmocka_unit_test(a_last_line_needs_no_newline),
        cmocka_unit_test(bad_lines_are_named_and_passed),
        cmocka_unit_test(a_line_without_end_is_refused_and_passed),
        cmocka_unit_test(too_many_ids_are_refused),
        cmocka_unit_test(the_format_is_known_by_its_lines),
        cmocka_unit_test(a_file_that_is_not_there_has_a_sentence),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
