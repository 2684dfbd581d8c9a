/* SPDX-License-Identifier: Apache-2.0
 *
 * tinyllm by itself: the arithmetic's order is fixed, models and tokenizers are read with
 * suspicion, and the trained model says what it is known to say.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "llama/engine.h"
#include "llama/say.h"
#include "llama/team.h"
#include "llama/tokenizer.h"

/* Pins never come into this program, so the library is not linked. */
enum weft_status weft_wait_layer(const struct weft_pins *pins, uint32_t layer)
{
    (void)pins, (void)layer;
    return WEFT_E_INVALID;
}

/* The bits, not the numbers: -0 is not 0 here, and a NaN is itself. */
static bool same_bits(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

static uint64_t random_state = 1;

static float random_float(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(random_state >> 40) * 0x1p-23f - 1.0f;
}

/* ---------------------------------------------------------------------------------- arithmetic */

static void every_width_gives_the_same_bits(void **state)
{
    (void)state;
    static const size_t columns[] = {1, 6, 8, 15, 16, 17, 33, 64, 172, 512};
    static float x[9 * 512], rows[11 * 520], reference[9][11], got[9][11];
    float *reference_rows[9], *got_rows[9];
    for (size_t i = 0; i < sizeof(x) / sizeof(*x); i++)
        x[i] = random_float();
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        rows[i] = random_float();
    for (size_t t = 0; t < 9; t++) {
        reference_rows[t] = reference[t];
        got_rows[t] = got[t];
    }
    for (size_t c = 0; c < sizeof(columns) / sizeof(*columns); c++) {
        struct wf_kernel_rows matrix = {rows, columns[c] + c % 3, columns[c]};
        for (size_t t = 0; t < 9; t++)
            wf_kernel_of_width(4)->multiply(&reference_rows[t], x + t * columns[c], columns[c], 1,
                                            &matrix, 0, 11);
        for (size_t t = 0; t < 9; t++)
            for (size_t r = 0; r < 11; r++) {
                double exact = 0, size = 0;
                for (size_t i = 0; i < columns[c]; i++) {
                    double product = (double)x[t * columns[c] + i] *
                                     (double)rows[r * matrix.stride + i];
                    exact += product;
                    size += fabs(product);
                }
                assert_true(fabs(exact - (double)reference[t][r]) <= size * 1e-6);
            }
        for (unsigned width = 4; width <= 16; width *= 2)
            for (size_t count = 1; count <= 9 && wf_kernel_of_width(width); count++) {
                memset(got, 0xff, sizeof(got));
                wf_kernel_of_width(width)->multiply(got_rows, x, columns[c], count, &matrix, 0, 5);
                wf_kernel_of_width(width)->multiply(got_rows, x, columns[c], count, &matrix, 5, 11);
                assert_memory_equal(got, reference, count * sizeof(got[0]));
            }
    }
}

static void weighing_is_the_same_at_every_width(void **state)
{
    (void)state;
    static float rows[13 * 70], weights[13], reference[67], got[67];
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        rows[i] = random_float();
    for (size_t i = 0; i < 13; i++)
        weights[i] = random_float();
    for (size_t columns = 1; columns <= 67; columns++) {
        struct wf_kernel_rows matrix = {rows, 70, columns};
        memset(reference, 0, sizeof(reference));
        for (size_t r = 0; r < 13; r++)
            for (size_t c = 0; c < columns; c++) {
                volatile float product = weights[r] * rows[r * 70 + c]; /* never fused */
                reference[c] += product;
            }
        for (unsigned width = 4; width <= 16; width *= 2) {
            if (!wf_kernel_of_width(width))
                continue;
            memset(got, 0, sizeof(got));
            wf_kernel_of_width(width)->weigh(got, weights, &matrix, 6);
            matrix.data = rows + 6 * 70;
            wf_kernel_of_width(width)->weigh(got, weights + 6, &matrix, 7);
            matrix.data = rows;
            assert_memory_equal(got, reference, columns * sizeof(float));
        }
    }
}

static void mark_part(void *context, unsigned member, size_t first, size_t end)
{
    unsigned char *seen = context;
    assert_true(member < 3);
    for (size_t i = first; i < end; i++)
        seen[i]++;
}

static void a_team_does_everything_once(void **state)
{
    (void)state;
    unsigned char seen[100];
    struct wf_team *team = wf_team_create(3);
    assert_non_null(team);
    for (size_t count = 0; count <= 100; count++)
        for (size_t grain = 1; grain <= 40; grain += 13) {
            memset(seen, 0, sizeof(seen));
            wf_team_run(team, count, grain, mark_part, seen);
            for (size_t i = 0; i < 100; i++)
                assert_int_equal(seen[i], i < count);
        }
    wf_team_destroy(team);
}

/* -------------------------------------------------------------------------------------- engine */

#define TOKENS 45

static const struct wf_model_shape odd_shape = {
    .dim = 60, /* head size 10: neither a vector nor half of one */
    .hidden_dim = 70,
    .layers = 3,
    .heads = 6,
    .kv_heads = 2,
    .vocab = 300,
    .context = 64,
};

static void compute(struct wf_engine *engine, struct wf_kv *kv, const uint32_t *tokens,
                    uint32_t split, float *logits)
{
    wf_kv_reset(kv);
    assert_true(wf_kv_use_private(kv, 0, kv->blocks_max, false));
    if (split > 0)
        assert_int_equal(wf_engine_forward(engine, kv, NULL, tokens, 0, split, NULL), WEFT_OK);
    assert_int_equal(wf_engine_forward(engine, kv, NULL, tokens, split, TOKENS, logits), WEFT_OK);
}

static void prefill_may_be_split_anywhere(void **state)
{
    (void)state;
    struct wf_model model;
    struct wf_kv kv;
    float expected[300], got[300];
    uint32_t tokens[TOKENS];
    assert_true(wf_model_random(&odd_shape, 3, &model));
    assert_true(wf_kv_init(&kv, &model, 16));
    struct wf_engine *engine = wf_engine_create(&model, 1), *pair = wf_engine_create(&model, 3);
    assert_true(engine && pair);
    for (uint32_t i = 0; i < TOKENS; i++)
        tokens[i] = i * 37 % 300;

    compute(engine, &kv, tokens, 0, expected);
    for (uint32_t i = 1; i < 300; i++)
        assert_true(isfinite(expected[i]) && expected[i] != expected[0]);
    for (uint32_t split = 0; split < TOKENS; split++) {
        compute(engine, &kv, tokens, split, got);
        if (!same_bits(got, expected, sizeof(got)))
            fail_msg("split after %u tokens: the logits differ", split);
    }
    for (uint32_t batch = 1; batch <= WF_ENGINE_BATCH; batch += 5)
        for (unsigned width = 4; width <= 16; width *= 2) {
            if (!wf_kernel_of_width(width))
                continue;
            wf_engine_tune(engine, batch, wf_kernel_of_width(width));
            compute(engine, &kv, tokens, 0, got);
            assert_memory_equal(got, expected, sizeof(got));
        }
    compute(pair, &kv, tokens, 7, got);
    assert_memory_equal(got, expected, sizeof(got));

    struct wf_kv other; /* blocks of another size hold the same numbers elsewhere */
    assert_true(wf_kv_init(&other, &model, 5));
    compute(engine, &other, tokens, 11, got);
    assert_memory_equal(got, expected, sizeof(got));

    tokens[2]++; /* and yet every token counts */
    compute(engine, &kv, tokens, 0, got);
    assert_memory_not_equal(got, expected, sizeof(got));
    wf_kv_fini(&other);
    wf_kv_fini(&kv);
    wf_engine_destroy(engine);
    wf_engine_destroy(pair);
    wf_model_free(&model);
}

/* --------------------------------------------------------------------------------------- files */

static void write_file(char *path, const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    memcpy(path, "/tmp/tinyllm-test.XXXXXX", sizeof("/tmp/tinyllm-test.XXXXXX"));
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, a, a_bytes), a_bytes);
    assert_int_equal(write(fd, b, b_bytes), b_bytes);
    close(fd);
}

static void a_checkpoint_is_read_as_written(void **state)
{
    (void)state;
    struct wf_model made, read, other;
    char path[64];
    assert_true(wf_model_random(&odd_shape, 3, &made));
    int32_t header[7];
    memcpy(header, &made.shape, sizeof(header)); /* the file's order is the struct's */
    write_file(path, header, sizeof(header), made.memory, made.memory_bytes);
    assert_true(wf_model_load(path, &read));
    assert_string_equal(read.digest, made.digest);
    assert_memory_equal(&read.shape, &made.shape, sizeof(read.shape));
    assert_memory_equal(read.w3, made.w3, sizeof(float) * 3 * 60 * 70);
    assert_memory_equal(read.classifier, made.classifier, sizeof(float) * 60 * 300);
    unlink(path);

    assert_true(wf_model_random(&odd_shape, 4, &other));
    assert_string_not_equal(other.digest, made.digest);
    wf_model_free(&other);
    wf_model_free(&read);
    wf_model_free(&made);
}

static void a_broken_checkpoint_is_refused(void **state)
{
    (void)state;
    static const struct {
        int32_t header[7];
        const char *word; /* that its sentence must have */
    } bad[] = {
        {{60, 70, 3, 6, 2, 300, 64}, "bytes"}, /* fine, but the weights are missing */
        {{0, 70, 3, 6, 2, 300, 64}, "dim"},
        {{-60, 70, 3, 6, 2, 300, 64}, "dim"},
        {{60, 70, 3, 7, 2, 300, 64}, "heads"},
        {{60, 70, 3, 20, 2, 300, 64}, "heads"}, /* an odd head size cannot be rotated */
        {{60, 70, 3, 6, 4, 300, 64}, "KV heads"},
        {{60, 70, 3, 6, 0, 300, 64}, "kv_heads"},
        {{60, 70, 3, 6, 2, 0, 64}, "vocabulary"},
        {{60, 70, 3, 6, 2, INT32_MIN, 64}, "vocabulary"},
        {{60, 70, 3, 6, 2, 300, INT32_MAX}, "context"},
        {{60, INT32_MAX, 3, 6, 2, 300, 64}, "hidden_dim"},
        {{60, 70, INT32_MAX, 6, 2, 300, 64}, "layers"},
        {{0x616b3432, 1, 60, 70, 3, 6, 2}, "--version 0"},
    };
    struct wf_model model;
    char path[64];
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        write_file(path, bad[i].header, sizeof(bad[i].header), "weights?", 8);
        assert_false(wf_model_load(path, &model));
        if (!strstr(wf_say_last(), bad[i].word) || !strstr(wf_say_last(), path))
            fail_msg("the sentence '%s' names neither %s nor the file", wf_say_last(), bad[i].word);
        unlink(path);
    }
    write_file(path, "short", 5, "", 0);
    assert_false(wf_model_load(path, &model));
    unlink(path);
    assert_false(wf_model_load(path, &model)); /* it is gone */
    assert_false(wf_model_load("/", &model));
}

/* A tokenizer file: the special tokens with names, then `words`. */
static size_t tokenizer_file(char *data, const char *const *words, size_t count)
{
    size_t at = 4;
    memset(data, 0, 4);
    for (size_t token = 0; token < WF_TOKEN_SPECIAL + count; token++) {
        const char *text = token < 3                  ? "<s>"
                           : token < WF_TOKEN_SPECIAL ? "<0x00>"
                                                      : words[token - WF_TOKEN_SPECIAL];
        float score = (float)token;
        int32_t length = (int32_t)strlen(text);
        memcpy(data + at, &score, 4);
        memcpy(data + at + 4, &length, 4);
        memcpy(data + at + 8, text, (size_t)length);
        at += 8 + (size_t)length;
    }
    return at;
}

static void check_round_trip(const struct wf_tokenizer *t, const char *text, size_t expected_count)
{
    uint32_t tokens[128];
    char back[256] = "";
    size_t count = wf_tokenizer_encode(t, text, true, tokens, 128), at = 0;
    assert_int_equal(tokens[0], WF_TOKEN_BEGIN);
    if (expected_count)
        assert_int_equal(count, expected_count);
    for (size_t i = 1; i < count; i++) {
        size_t length;
        const char *bytes = wf_tokenizer_decode(t, tokens[i - 1], tokens[i], &length);
        assert_true(tokens[i] >= WF_TOKEN_BYTES && at + length < sizeof(back));
        memcpy(back + at, bytes, length);
        at += length;
    }
    back[at] = '\0';
    assert_string_equal(back, text);
}

static void text_becomes_tokens_and_text_again(void **state)
{
    (void)state;
    static const char *const words[] = {" ", "a", "b", "ab", "abab", " ab", "s", "é", "<", ">"};
    static char data[8192];
    struct wf_tokenizer t;
    char path[64];
    size_t bytes = tokenizer_file(data, words, 10);
    write_file(path, data, bytes, "", 0);
    assert_true(wf_tokenizer_load(path, WF_TOKEN_SPECIAL + 10, &t));
    check_round_trip(&t, "", 1);
    check_round_trip(&t, "ab", 2);           /* begin, " ab" */
    check_round_trip(&t, "abab", 3);         /* " ab" scores above "abab" and is taken first */
    check_round_trip(&t, "é and é", 0);      /* a character that is known, and bytes */
    check_round_trip(&t, "<s>", 5);          /* the mark's name is only text */
    check_round_trip(&t, "\xff\x80\xc3", 0); /* not UTF-8 at all */
    uint32_t few[2];
    assert_int_equal(wf_tokenizer_encode(&t, "bbbbbb", false, few, 2), 2);
    wf_tokenizer_free(&t);
    unlink(path);

    assert_true(wf_tokenizer_bytes(300, &t));
    check_round_trip(&t, "one token a byte", 1 + 1 + 16);
    size_t length;
    wf_tokenizer_decode(&t, 5, 299, &length);
    assert_int_equal(length, 0);
    wf_tokenizer_decode(&t, 5, 4000000000u, &length);
    assert_int_equal(length, 0);
    wf_tokenizer_free(&t);
    assert_false(wf_tokenizer_bytes(258, &t));
}

/* The rule as it is stated: the best-scoring pair, the first of equals, until none is a token. */
static size_t merge_slowly(const struct wf_tokenizer *t, uint32_t *tokens, size_t count)
{
    for (;;) {
        uint32_t best = 0;
        size_t at = count;
        for (size_t i = 0; i + 1 < count; i++)
            for (uint32_t token = WF_TOKEN_SPECIAL; token < t->vocab; token++) {
                const struct wf_token_text *a = &t->tokens[tokens[i]];
                const struct wf_token_text *b = &t->tokens[tokens[i + 1]];
                const struct wf_token_text *both = &t->tokens[token];
                if (both->length == a->length + b->length &&
                    memcmp(both->bytes, a->bytes, a->length) == 0 &&
                    memcmp(both->bytes + a->length, b->bytes, b->length) == 0 &&
                    (at == count || both->score > t->tokens[best].score)) {
                    best = token;
                    at = i;
                }
            }
        if (at == count)
            return count;
        tokens[at] = best;
        memmove(tokens + at + 1, tokens + at + 2, (count - at - 2) * sizeof(*tokens));
        count--;
    }
}

static void merging_keeps_to_the_rule(void **state)
{
    (void)state;
    static const char *const words[] = {"aa", "ab",  "ba",   "bb",   "aab", "aba",  "bab",
                                        "bc", "abc", "abab", "aaaa", "cc",  "aabb", "cba"};
    const uint32_t count = sizeof(words) / sizeof(*words);
    static char data[8192];
    struct wf_tokenizer t;
    char path[64], text[61];
    size_t bytes = tokenizer_file(data, words, count);
    write_file(path, data, bytes, "", 0);
    assert_true(wf_tokenizer_load(path, WF_TOKEN_SPECIAL + count, &t));
    unlink(path);
    for (int round = 0; round < 2000; round++) {
        uint32_t expected[61], got[61];
        size_t length = (size_t)round % 60 + 1;
        for (uint32_t i = 0; i < count; i++) /* of few scores, so that many are equal */
            t.tokens[WF_TOKEN_SPECIAL + i].score = (float)(int)(random_float() * 3);
        for (size_t i = 0; i < length; i++) {
            text[i] = (char)('a' + (int)(random_float() * 1.5f + 1.5f));
            expected[i] = WF_TOKEN_BYTES + (unsigned char)text[i];
        }
        text[length] = '\0';
        size_t merged = merge_slowly(&t, expected, length);
        assert_int_equal(wf_tokenizer_encode(&t, text, false, got, 61), merged);
        assert_memory_equal(got, expected, merged * sizeof(*got));
    }
    wf_tokenizer_free(&t);
}

static void a_broken_tokenizer_is_refused(void **state)
{
    (void)state;
    static const char *const words[] = {"a", "b"};
    static char data[8192];
    struct wf_tokenizer t;
    char path[64];
    size_t bytes = tokenizer_file(data, words, 2);
    for (size_t cut = 0; cut < bytes; cut += 11) { /* every kind of too short */
        write_file(path, data, cut, "", 0);
        assert_false(wf_tokenizer_load(path, WF_TOKEN_SPECIAL + 2, &t));
        unlink(path);
    }
    write_file(path, data, bytes, "more", 4);
    assert_false(wf_tokenizer_load(path, WF_TOKEN_SPECIAL + 2, &t));
    assert_non_null(strstr(wf_say_last(), "another model"));
    unlink(path);
    for (int32_t length = -1; length <= 5000; length += 5001) {
        memcpy(data + 8, &length, 4);
        write_file(path, data, bytes, "", 0);
        assert_false(wf_tokenizer_load(path, WF_TOKEN_SPECIAL + 2, &t));
        unlink(path);
    }
}

/* -------------------------------------------------------------------------------- what it says */

static const char golden[] =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n"
    "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She "
    "said, \"I want to play with your ball, but I can't find it.\"\n"
    "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to "
    "do.\"\n"
    "Lily didn't want to help her mom, so she";

static void the_trained_model_tells_its_story(void **state)
{
    (void)state;
    struct wf_model model;
    struct wf_tokenizer t;
    struct wf_kv kv;
    char path[512], tokenizer_path[512];
    const char *data = getenv("WEFT_TEST_DATA");
    data = data ? data : TEST_DATA;
    snprintf(path, sizeof(path), "%s/stories260K.bin", data);
    snprintf(tokenizer_path, sizeof(tokenizer_path), "%s/tok512.bin", data);
    if (access(path, R_OK) != 0) {
        print_message("# no %s: the trained model's text is not checked\n", path);
        skip();
    }
    assert_true(wf_model_load(path, &model));
    assert_true(wf_tokenizer_load(tokenizer_path, model.shape.vocab, &t));
    assert_true(wf_kv_init(&kv, &model, 16) && wf_kv_use_private(&kv, 0, kv.blocks_max, false));
    struct wf_engine *engine = wf_engine_create(&model, 2);
    uint32_t tokens[201] = {WF_TOKEN_BEGIN};
    float logits[512];
    char text[2048];
    size_t at = 0, length;
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(wf_engine_forward(engine, &kv, NULL, tokens, i, i + 1, logits), WEFT_OK);
        tokens[i + 1] = 0;
        for (uint32_t token = 1; token < 512; token++)
            if (logits[token] > logits[tokens[i + 1]])
                tokens[i + 1] = token;
        const char *bytes = wf_tokenizer_decode(&t, tokens[i], tokens[i + 1], &length);
        memcpy(text + at, bytes, length);
        at += length;
    }
    text[at] = '\0';
    assert_string_equal(text, golden);
    wf_engine_destroy(engine);
    wf_kv_fini(&kv);
    wf_tokenizer_free(&t);
    wf_model_free(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_gives_the_same_bits),
        cmocka_unit_test(weighing_is_the_same_at_every_width),
        cmocka_unit_test(a_team_does_everything_once),
        cmocka_unit_test(prefill_may_be_split_anywhere),
        cmocka_unit_test(a_checkpoint_is_read_as_written),
        cmocka_unit_test(a_broken_checkpoint_is_refused),
        cmocka_unit_test(text_becomes_tokens_and_text_again),
        cmocka_unit_test(merging_keeps_to_the_rule),
        cmocka_unit_test(a_broken_tokenizer_is_refused),
        cmocka_unit_test(the_trained_model_tells_its_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
