/* SPDX-License-Identifier: Apache-2.0
 *
 * The lists of a question: what is taken out of its text, what is left there, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/route_lists.h"

#define KEY "00112233445566778899aAbBcCdDeEfFffeeddccbbaa99887766554433221100"

/* In memory that ends where the text does, for a sanitizer to see. */
static enum weft_status read_text(const char *text, size_t bytes, struct wf_route_lists *out)
{
    char *exact = malloc(bytes ? bytes : 1);
    assert_non_null(exact);
    memcpy(exact, text, bytes);
    enum weft_status status = wf_route_lists_read(exact, bytes, out);
    free(exact);
    return status;
}

static void leaves(const char *text, const char *rest)
{
    struct wf_route_lists lists;
    assert_int_equal(read_text(text, strlen(text), &lists), WEFT_OK);
    assert_int_equal(lists.rest_bytes, strlen(rest));
    assert_memory_equal(lists.rest, rest, strlen(rest));
    wf_route_lists_free(&lists);
}

static void refused(const char *text)
{
    struct wf_route_lists lists;
    assert_int_equal(read_text(text, strlen(text), &lists), WEFT_E_INVALID);
    wf_route_lists_free(&lists);
}

static void lists_are_taken_out(void **state)
{
    static const char text[] =
        "{\"model\": \"m\", \"tokens\" : [ 0,7 , 4294967295 ], \"ask\": true, "
        "\"keys\":[\"" KEY "\",\n\"" KEY "\"]}";
    struct wf_route_lists lists;
    (void)state;
    assert_int_equal(read_text(text, sizeof text - 1, &lists), WEFT_OK);
    assert_int_equal(lists.token_count, 3);
    assert_int_equal(lists.tokens[0], 0);
    assert_int_equal(lists.tokens[1], 7);
    assert_true(lists.tokens[2] == UINT32_MAX);
    assert_int_equal(lists.key_count, 2);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 16; j++) {
            assert_int_equal(lists.keys[i][j], 17 * j);
            assert_int_equal(lists.keys[i][16 + j], 17 * (15 - j));
        }
    wf_route_lists_free(&lists);
    leaves(text, "{\"model\": \"m\", \"tokens\" : [], \"ask\": true, \"keys\":[]}");
    leaves("{\"tokens\":[]}", "{\"tokens\":[]}");
}

static void others_of_the_name_are_left(void **state)
{
    static const char *const texts[] = {
        "",
        "{",
        "{\"tokens\"",
        "{\"tokens\":",
        "{\"tokens\":7}",
        "{\"tokens\":null,\"keys\":{}}",
        "[\"tokens\",[1]]",
        "{\"a\":{\"tokens\":[1]}}",
        "{\"a\":[{\"keys\":[1]},[]]}",
        "{\"a\":\"\\\"tokens\\\":[1]\"}",
        "{\"a\":\"tokens\"}",
        "{\"tok\\u0065ns\":[1]}",
        "]}]{\"a\\",
        "\"tokens\":[1]",
        "{\"a\":\"tokens\":[1]}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        leaves(texts[i], texts[i]);
    /* The parser sees, and refuses, the second. */
    leaves("{\"tokens\":[1],\"tokens\":[2]}", "{\"tokens\":[],\"tokens\":[2]}");
}

static void what_does_not_belong_is_refused(void **state)
{
    static const char *const lists[] = {"1.0",
                                        "-1",
                                        "4294967296",
                                        "01",
                                        "1,",
                                        ",1",
                                        "1 2",
                                        "\"1\"",
                                        "[1]",
                                        "1e3",
                                        "99999999999999999999999",
                                        "null"};
    static const char *const keys[] = {"7",     "\"\"",         "\"" KEY,       "\"" KEY "0\"",
                                       "'" KEY, "\"" KEY "\",", "\"" KEY "\"x", "[]"};
    char text[256];
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        snprintf(text, sizeof text, "{\"tokens\":[%s]}", lists[i]);
        refused(text);
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        snprintf(text, sizeof text, "{\"keys\":[%s]}", keys[i]);
        refused(text);
    }
    for (int at = 0; at < 64; at++) { /* one digit is none */
        snprintf(text, sizeof text, "{\"keys\":[\"" KEY "\"]}");
        text[10 + at] = "gG/:@`\x01\x80"[at % 8];
        refused(text);
    }
    refused("{\"tokens\":[");
    refused("{\"tokens\":[1");
    refused("{\"tokens\":[1,");
    refused("{\"keys\":[\"" KEY "\"");
}

static void each_has_its_limit(void **state)
{
    struct wf_route_lists lists;
    static char text[2 * WF_ROUTE_TOKENS_MAX + 64];
    size_t bytes = (size_t)snprintf(text, sizeof text, "{\"tokens\":[1");
    (void)state;
    for (uint32_t i = 1; i < WF_ROUTE_TOKENS_MAX; i++) {
        text[bytes++] = ',';
        text[bytes++] = '1';
    }
    memcpy(text + bytes, "]}", 2);
    assert_int_equal(read_text(text, bytes + 2, &lists), WEFT_OK);
    assert_int_equal(lists.token_count, WF_ROUTE_TOKENS_MAX);
    wf_route_lists_free(&lists);
    memcpy(text + bytes, ",1]}", 4);
    assert_int_equal(read_text(text, bytes + 4, &lists), WEFT_E_INVALID);
    wf_route_lists_free(&lists);
    memset(text, ' ', sizeof text);
    assert_int_equal(read_text(text, WF_ROUTE_REST_MAX, &lists), WEFT_OK);
    wf_route_lists_free(&lists);
    assert_int_equal(read_text(text, WF_ROUTE_REST_MAX + 1, &lists), WEFT_E_INVALID);
    wf_route_lists_free(&lists);
    memcpy(text + WF_ROUTE_REST_MAX, "\"tokens\":[1]", 12); /* of no object: it is left, too */
    assert_int_equal(read_text(text, WF_ROUTE_REST_MAX + 12, &lists), WEFT_E_INVALID);
    wf_route_lists_free(&lists);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_taken_out),
        cmocka_unit_test(others_of_the_name_are_left),
        cmocka_unit_test(what_does_not_belong_is_refused),
        cmocka_unit_test(each_has_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
