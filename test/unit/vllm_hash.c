/* SPDX-License-Identifier: Apache-2.0
 *
 * vLLM's block hashes against vectors that vLLM made (test/engines/vllm/vectors.py), and what must
 * differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "weft/weft.h"

#define TOKENS_MAX 1024
#define EXTRAS_MAX 64

static void from_hex(const char *text, uint8_t *out, size_t bytes)
{
    assert_int_equal(strlen(text), 2 * bytes);
    for (size_t i = 0; i < bytes; i++) {
        unsigned byte;
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
}

static const char *text_at(const json_t *list, size_t at)
{
    const char *text = json_string_value(json_array_get(list, at));
    assert_non_null(text);
    return text;
}

static void read_extra(const json_t *from, uint8_t digest[32], struct weft_vllm_extra *out)
{
    const char *kind = text_at(from, 1);
    *out = (struct weft_vllm_extra){.block = (uint32_t)json_integer_value(json_array_get(from, 0)),
                                    .text = text_at(from, 2),
                                    .bytes = json_string_length(json_array_get(from, 2))};
    if (!strcmp(kind, "lora")) {
        out->kind = WEFT_VLLM_LORA;
        out->path = text_at(from, 3);
        out->path_bytes = strlen(out->path);
    } else if (!strcmp(kind, "mm")) {
        out->kind = WEFT_VLLM_MM;
        out->offset = json_integer_value(json_array_get(from, 3));
    } else if (!strcmp(kind, "cache_salt")) {
        out->kind = WEFT_VLLM_SALT;
    } else {
        assert_string_equal(kind, "prompt_embeds");
        out->kind = WEFT_VLLM_EMBEDS;
        from_hex(out->text, digest, 32);
        out->text = (const char *)digest;
        out->bytes = 32;
    }
}

static void check_chain(const json_t *vector)
{
    static uint32_t tokens[TOKENS_MAX];
    static struct weft_key hashes[TOKENS_MAX];
    struct weft_vllm_extra extras[EXTRAS_MAX];
    uint8_t digests[EXTRAS_MAX][32], want[32];
    const json_t *list = json_object_get(vector, "tokens"),
                 *more = json_object_get(vector, "extras"),
                 *expected = json_object_get(vector, "hashes");
    size_t count = json_array_size(list), extra_count = json_array_size(more);
    uint32_t block_tokens = (uint32_t)json_integer_value(json_object_get(vector, "block_tokens"));
    assert_true(count && count <= TOKENS_MAX && extra_count <= EXTRAS_MAX && block_tokens);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)json_integer_value(json_array_get(list, i));
    for (size_t i = 0; i < extra_count; i++)
        read_extra(json_array_get(more, i), digests[i], &extras[i]);
    struct weft_key parent, *of_us = &parent;
    from_hex(json_string_value(json_object_get(vector, "parent")), parent.bytes, 32);
    struct weft_key root;
    weft_vllm_root(NULL, &root);
    if (!memcmp(&root, &parent, sizeof root))
        of_us = NULL; /* vLLM's own is what comes of itself */
    assert_int_equal(weft_vllm_hashes(of_us, tokens, count, block_tokens, extras, extra_count,
                                      hashes),
                     WEFT_OK);
    assert_int_equal(json_array_size(expected), count / block_tokens);
    for (size_t i = 0; i < count / block_tokens; i++) {
        from_hex(text_at(expected, i), want, 32);
        if (memcmp(hashes[i].bytes, want, 32) != 0)
            fail_msg("%s: block %zu", json_string_value(json_object_get(vector, "name")), i);
    }
}

static void what_vllm_made(void **state)
{
    (void)state;
    json_error_t error;
    json_t *file = json_load_file(WF_VLLM_VECTORS, 0, &error), *vector;
    size_t i;
    if (!file)
        fail_msg("%s: %s", WF_VLLM_VECTORS, error.text);
    assert_true(json_array_size(json_object_get(file, "roots")) >= 5);
    json_array_foreach (json_object_get(file, "roots"), i, vector) {
        struct weft_key want, got;
        from_hex(json_string_value(json_object_get(vector, "root")), want.bytes, 32);
        weft_vllm_root(json_string_value(json_object_get(vector, "seed")), &got);
        assert_memory_equal(&got, &want, sizeof got);
    }
    assert_true(json_array_size(json_object_get(file, "chains")) >= 15);
    json_array_foreach (json_object_get(file, "chains"), i, vector)
        check_chain(vector);
    json_decref(file);
}

static struct weft_key one(const struct weft_vllm_extra *extras, size_t count)
{
    static const uint32_t tokens[4] = {1, 2, 3, 4};
    struct weft_key out;
    assert_int_equal(weft_vllm_hashes(NULL, tokens, 4, 4, extras, count, &out), WEFT_OK);
    return out;
}

/* vllm#44701: an adapter's name and a salt must not share bytes; #44250, #37160: nor be left out.
 */
static void what_differs_differs(void **state)
{
    (void)state;
    const struct weft_vllm_extra cases[] = {
        {.kind = WEFT_VLLM_LORA, .text = "ab", .bytes = 2, .path = "c", .path_bytes = 1},
        {.kind = WEFT_VLLM_LORA, .text = "a", .bytes = 1, .path = "bc", .path_bytes = 2},
        {.kind = WEFT_VLLM_LORA, .text = "abc", .bytes = 3},
        {.kind = WEFT_VLLM_SALT, .text = "abc", .bytes = 3},
        {.kind = WEFT_VLLM_SALT},
        {.kind = WEFT_VLLM_MM, .text = "abc", .bytes = 3},
        {.kind = WEFT_VLLM_MM, .text = "abc", .bytes = 3, .offset = 1},
        {.kind = WEFT_VLLM_MM, .text = "abc", .bytes = 3, .offset = -1},
        {.kind = WEFT_VLLM_EMBEDS, .text = "abcdefghijklmnopqrstuvwxyz012345", .bytes = 32},
        {.kind = WEFT_VLLM_SALT, .text = "abcdefghijklmnopqrstuvwxyz012345", .bytes = 32},
    };
    enum { CASES = sizeof cases / sizeof cases[0] };
    struct weft_key made[CASES + 2];
    for (size_t i = 0; i < CASES; i++)
        made[i] = one(&cases[i], 1);
    made[CASES] = one(NULL, 0);
    made[CASES + 1] = one((struct weft_vllm_extra[]){cases[0], cases[3]}, 2);
    for (size_t i = 0; i < CASES + 2; i++)
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(&made[i], &made[k], sizeof made[i]);
}

static void refusals(void **state)
{
    (void)state;
    static const uint32_t tokens[8];
    struct weft_key out[2];
    const struct {
        struct weft_vllm_extra extras[2];
        size_t count;
        uint32_t block_tokens;
        const char *words;
    } cases[] = {
        {.block_tokens = 0, .words = "0 tokens"},
        {.block_tokens = 65537, .words = "65537 tokens"},
        {.block_tokens = 4, .count = 1, .words = "kind 0"},
        {.block_tokens = 4,
         .count = 1,
         .extras = {{.kind = (enum weft_vllm_extra_kind)5}},
         .words = "kind 5"},
        {.block_tokens = 4,
         .count = 1,
         .extras = {{.kind = WEFT_VLLM_SALT, .block = 2}},
         .words = "2 full"},
        {.block_tokens = 4,
         .count = 2,
         .extras = {{.kind = WEFT_VLLM_SALT, .block = 1}, {.kind = WEFT_VLLM_SALT}},
         .words = "order of their blocks"},
        {.block_tokens = 4,
         .count = 1,
         .extras = {{.kind = WEFT_VLLM_SALT, .bytes = 1}},
         .words = "without bytes"},
        {.block_tokens = 4,
         .count = 1,
         .extras = {{.kind = WEFT_VLLM_SALT, .text = "x", .bytes = (1u << 20) + 1}},
         .words = "1048577 bytes"},
        {.block_tokens = 4,
         .count = 1,
         .extras = {{.kind = WEFT_VLLM_EMBEDS, .text = "x", .bytes = 1}},
         .words = "it has 32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(weft_vllm_hashes(NULL, tokens, 8, cases[i].block_tokens, cases[i].extras,
                                          cases[i].count, out),
                         WEFT_E_INVALID);
        if (!strstr(weft_last_error(), cases[i].words))
            fail_msg("'%s' has no '%s'", weft_last_error(), cases[i].words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_vllm_made),
        cmocka_unit_test(what_differs_differs),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
