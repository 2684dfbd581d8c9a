/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests taken apart: whole, torn at every byte, and wrong in every way that Redis has words for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gateway/resp_parse.h"

#define INLINE_BYTES 8

struct wanted {
    const char *sent;
    uint32_t count;
    const char *arguments[4];
};

static const struct wanted good[] = {
    {"*1\r\n$4\r\nPING\r\n", 1, {"PING"}},
    {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n", 3, {"SET", "k", ""}},
    {"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n", 2, {"GET", "a\r\nb"}},
    {"*0\r\n", 0, {NULL}},
    {"*-1\r\n", 0, {NULL}},
    {"\r\n", 0, {NULL}},
    {"PING\r\n", 1, {"PING"}},
    {"  SET  k\tv \n", 3, {"SET", "k", "v"}},
    {"SET k \"a b\\x41\\n\\\"\"\r\n", 3, {"SET", "k", "a bA\n\""}},
    {"SET k 'a \\'b'\r\n", 3, {"SET", "k", "a 'b"}},
};

static const struct {
    const char *sent, *error;
} bad[] = {
    {"*x\r\n", "ERR Protocol error: invalid multibulk length"},
    {"*65537\r\n", "ERR Protocol error: invalid multibulk length"},
    {"*99999999999999999999\r\n", "ERR Protocol error: invalid multibulk length"},
    {"*1\n", "ERR Protocol error: invalid multibulk length"},
    {"*1\r\nPING\r\n", "ERR Protocol error: expected '$', got 'P'"},
    {"*1\r\n\x01\r\n", "ERR Protocol error: expected '$', got '?'"},
    {"*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"},
    {"*1\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"},
    {"*1\r\n$x\r\n", "ERR Protocol error: invalid bulk length"},
    {"*1\r\n$01\r\n", "ERR Protocol error: invalid bulk length"},
    {"*1\r\n$4\r\nPINGxx", "ERR Protocol error: expected CRLF behind a bulk string"},
    {"SET k \"open\r\n", "ERR Protocol error: unbalanced quotes in request"},
    {"SET k \"a\"b\r\n", "ERR Protocol error: unbalanced quotes in request"},
};

static void check(const struct wf_resp_parser *parser, const uint8_t *bytes,
                  const struct wanted *wanted)
{
    assert_int_equal(parser->count, wanted->count);
    for (uint32_t i = 0; i < wanted->count; i++) {
        assert_int_equal(parser->arguments[i].length, strlen(wanted->arguments[i]));
        assert_memory_equal(bytes + parser->arguments[i].at, wanted->arguments[i],
                            strlen(wanted->arguments[i]));
    }
}

/* Each byte in memory of its own, so that a sanitizer sees a look beyond it. */
static enum wf_resp_parsed torn(struct wf_resp_parser *parser, const char *sent, size_t length,
                                uint8_t **out)
{
    enum wf_resp_parsed parsed = WF_RESP_MORE;
    uint8_t *bytes = NULL;
    for (size_t n = 0; n <= length && parsed == WF_RESP_MORE; n++) {
        uint8_t *more = malloc(n + 1);
        assert_non_null(more);
        memcpy(more, sent, n);
        free(bytes);
        bytes = more;
        parsed = wf_resp_parse(parser, bytes, n);
    }
    *out = bytes;
    return parsed;
}

static void whole_and_torn_commands_are_the_same(void **state)
{
    (void)state;
    struct wf_resp_parser parser;
    wf_resp_parser_init(&parser, 4096);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        size_t length = strlen(good[i].sent);
        uint8_t whole[64], *bytes;
        memcpy(whole, good[i].sent, length);
        wf_resp_parser_next(&parser);
        assert_int_equal(wf_resp_parse(&parser, whole, length), WF_RESP_COMMAND);
        assert_int_equal(parser.at, length);
        check(&parser, whole, &good[i]);
        wf_resp_parser_next(&parser);
        assert_int_equal(torn(&parser, good[i].sent, length, &bytes), WF_RESP_COMMAND);
        assert_int_equal(parser.at, length);
        check(&parser, bytes, &good[i]);
        free(bytes);
    }
    wf_resp_parser_fini(&parser);
}

static void what_is_wrong_has_rediss_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct wf_resp_parser parser;
        uint8_t *bytes;
        wf_resp_parser_init(&parser, 4096);
        if (torn(&parser, bad[i].sent, strlen(bad[i].sent), &bytes) != WF_RESP_BROKEN)
            fail_msg("'%s' was taken", bad[i].sent);
        assert_string_equal(parser.error, bad[i].error);
        free(bytes);
        wf_resp_parser_fini(&parser);
    }
}

static void who_is_unknown_may_say_little(void **state)
{
    (void)state;
    struct wf_resp_parser parser;
    uint8_t many[] = "*11\r\n", large[] = "*2\r\n$4\r\nAUTH\r\n$16385\r\n";
    wf_resp_parser_init(&parser, 1 << 20);
    parser.unauthenticated = true;
    assert_int_equal(wf_resp_parse(&parser, many, 5), WF_RESP_BROKEN);
    assert_string_equal(parser.error, "ERR Protocol error: unauthenticated multibulk length");
    wf_resp_parser_next(&parser);
    assert_int_equal(wf_resp_parse(&parser, large, sizeof large - 1), WF_RESP_BROKEN);
    assert_string_equal(parser.error, "ERR Protocol error: unauthenticated bulk length");
    wf_resp_parser_fini(&parser);
}

static void endless_lines_end(void **state)
{
    (void)state;
    struct wf_resp_parser parser;
    uint8_t *line = malloc(WF_RESP_LINE_MAX + 2);
    assert_non_null(line);
    wf_resp_parser_init(&parser, 4096);
    memset(line, 'a', WF_RESP_LINE_MAX + 2);
    assert_int_equal(wf_resp_parse(&parser, line, WF_RESP_LINE_MAX), WF_RESP_MORE);
    assert_int_equal(wf_resp_parse(&parser, line, WF_RESP_LINE_MAX + 1), WF_RESP_BROKEN);
    wf_resp_parser_next(&parser);
    line[0] = '*';
    assert_int_equal(wf_resp_parse(&parser, line, WF_RESP_LINE_MAX + 1), WF_RESP_BROKEN);
    assert_string_equal(parser.error, "ERR Protocol error: too big mbulk count string");
    wf_resp_parser_fini(&parser);
    free(line);
}

/* SET k <long> EX 10, where the value's bytes never come by here. */
static void long_values_are_the_callers(void **state)
{
    (void)state;
    struct wf_resp_parser parser;
    uint8_t head[64] = "*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\n";
    size_t begun = strlen((char *)head);
    wf_resp_parser_init(&parser, INLINE_BYTES);
    assert_int_equal(wf_resp_parse(&parser, head, begun), WF_RESP_LONG);
    assert_int_equal(parser.long_bytes, 1000);
    assert_int_equal(parser.at, begun);
    assert_int_equal(parser.count, 2);
    wf_resp_long_away(&parser);
    memcpy(head + begun, "$2\r\nEX\r\n$2\r\n10\r\n", 17);
    assert_int_equal(wf_resp_parse(&parser, head, begun + 16), WF_RESP_COMMAND);
    assert_int_equal(parser.count, 5);
    assert_true(parser.arguments[2].away);
    assert_int_equal(parser.arguments[2].at, 0);
    assert_memory_equal(head + parser.arguments[4].at, "10", 2);
    wf_resp_parser_fini(&parser);
}

static void a_long_word_can_be_had_inline(void **state)
{
    (void)state;
    struct wf_resp_parser parser;
    uint8_t command[] = "*2\r\n$4\r\nECHO\r\n$9\r\n123456789\r\n";
    wf_resp_parser_init(&parser, INLINE_BYTES);
    assert_int_equal(wf_resp_parse(&parser, command, sizeof command - 1), WF_RESP_LONG);
    wf_resp_long_inline(&parser);
    assert_int_equal(wf_resp_parse(&parser, command, sizeof command - 2), WF_RESP_MORE);
    assert_int_equal(wf_resp_parse(&parser, command, sizeof command - 1), WF_RESP_COMMAND);
    assert_int_equal(parser.arguments[1].length, 9);
    wf_resp_parser_fini(&parser);
}

static void numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {"-1", true, -1},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"-9223372036854775809", false, 0},
                 {"", false, 0},
                 {"-", false, 0},
                 {"+1", false, 0},
                 {"01", false, 0},
                 {"-0", false, 0},
                 {"1 ", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 0;
        assert_int_equal(wf_resp_number((const uint8_t *)cases[i].text, strlen(cases[i].text),
                                        &value),
                         cases[i].good);
        assert_int_equal(value, cases[i].value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_and_torn_commands_are_the_same),
        cmocka_unit_test(what_is_wrong_has_rediss_words),
        cmocka_unit_test(who_is_unknown_may_say_little),
        cmocka_unit_test(endless_lines_end),
        cmocka_unit_test(long_values_are_the_callers),
        cmocka_unit_test(a_long_word_can_be_had_inline),
        cmocka_unit_test(numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
