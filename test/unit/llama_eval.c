/* SPDX-License-Identifier: Apache-2.0
 *
 * Evaluation of a model whose KV is changed: what must not change does not, to the last bit, what
 * must does, and the figures are what their definitions say.
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
#include "llama/eval.h"
#include "llama/say.h"

/* Pins never come into this program, so the library is not linked. */
enum weft_status weft_wait_layer(const struct weft_pins *pins, uint32_t layer)
{
    (void)pins, (void)layer;
    return WEFT_E_INVALID;
}

#define BLOCK 8u
#define LENGTH 30u

static const struct wf_model_shape shape = {
    .dim = 60,
    .hidden_dim = 70,
    .layers = 3,
    .heads = 6,
    .kv_heads = 2,
    .vocab = 300,
    .context = 64,
};

static struct wf_model model;
static struct wf_windows windows; /* seven of LENGTH, and one of 10 */

static int make_model(void **state)
{
    (void)state;
    uint32_t count = 7 * (LENGTH - 1) + 9, *tokens = malloc(count * sizeof(*tokens));
    assert_non_null(tokens);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i * i * 37 % 300;
    assert_true(wf_model_random(&shape, 3, &model));
    assert_true(wf_windows_of("it", tokens, count, LENGTH, &windows));
    assert_int_equal(windows.windows, 8);
    return 0;
}

static int free_model(void **state)
{
    (void)state;
    wf_windows_free(&windows);
    wf_model_free(&model);
    return 0;
}

static size_t block_floats(void)
{
    return (size_t)2 * shape.layers * BLOCK * model.kv_dim;
}

static struct wf_eval_plan plan_of(unsigned threads)
{
    return (struct wf_eval_plan){.model = &model, .block_tokens = BLOCK, .threads = threads};
}

/* ------------------------------------------------------------------------------------- variants */

static bool keep(void *context, float *block, uint32_t position)
{
    uint32_t *calls = context;
    assert_int_equal(position % BLOCK, 0);
    assert_true(isfinite(block[block_floats() - 1]));
    ++*calls;
    return true;
}

/* Every number a little off. */
static bool coarsen(void *context, float *block, uint32_t position)
{
    (void)position;
    float step = *(const float *)context;
    for (size_t i = 0; i < block_floats(); i++)
        block[i] = step * rintf(block[i] / step);
    return true;
}

/* One block is forgotten: its values are 0. */
static bool forget(void *context, float *block, uint32_t position)
{
    if (position == *(const uint32_t *)context)
        memset(block, 0, block_floats() * sizeof(*block));
    return true;
}

static bool refuse(void *context, float *block, uint32_t position)
{
    (void)context, (void)block;
    return position < BLOCK || wf_say_failed("no more of this");
}

/* ---------------------------------------------------------------------------------------- tests */

static void what_comes_back_as_it_was_changes_nothing(void **state)
{
    (void)state;
    uint32_t calls = 0;
    struct wf_eval_variant variants[] = {{&calls, keep}, {NULL, NULL}};
    struct wf_eval_result results[2];
    struct wf_eval_plan plan = plan_of(1);
    assert_true(wf_eval_run(&plan, &windows, 0, 8, variants, 2, results));
    assert_int_equal(calls, 7 * 3 + 1); /* of 29 and of 9 computed tokens, complete blocks of 8 */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(results[i].tokens, 7 * 29 + 9);
        assert_true(results[i].nll == results[i].nll_exact && results[i].nll > 1);
        assert_true(results[i].kl == 0 && results[i].kl_error == 0 && results[i].nll_error == 0);
    }
}

static void perplexity_is_what_it_is_defined_as(void **state)
{
    (void)state;
    struct wf_eval_variant variant = {0};
    struct wf_eval_result result;
    struct wf_eval_plan plan = plan_of(2);
    struct wf_engine *engine = wf_engine_create(&model, 1);
    struct wf_kv kv;
    uint32_t tokens[LENGTH];
    float logits[300];
    double sum = 0;
    uint64_t count = 0;
    assert_true(wf_kv_init(&kv, &model, 16) && wf_kv_use_private(&kv, 0, kv.blocks_max, false));
    for (uint32_t w = 5; w < 8; w++) {
        uint32_t length = wf_windows_get(&windows, w, tokens);
        assert_int_equal(length, w == 7 ? 10 : LENGTH);
        assert_int_equal(tokens[0], WF_TOKEN_BEGIN);
        assert_int_equal(tokens[1], windows.tokens[w * (LENGTH - 1)]);
        for (uint32_t i = 0; i + 1 < length; i++, count++) {
            assert_int_equal(wf_engine_forward(engine, &kv, NULL, tokens, i, i + 1, logits), 0);
            double all = 0;
            for (uint32_t t = 0; t < 300; t++)
                all += exp((double)logits[t]);
            sum -= (double)logits[tokens[i + 1]] - log(all);
        }
    }
    assert_true(wf_eval_run(&plan, &windows, 5, 8, &variant, 1, &result));
    assert_int_equal(result.tokens, count);
    assert_true(fabs(result.nll_exact - sum / (double)count) < 1e-6);
    wf_kv_fini(&kv);
    wf_engine_destroy(engine);
}

static void a_block_is_exact_to_its_own_tokens(void **state)
{
    (void)state;
    uint32_t none = 1000, second = BLOCK, last = 3 * BLOCK;
    struct wf_eval_variant variants[] = {{&none, forget}, {&second, forget}, {&last, forget}};
    struct wf_eval_result results[3];
    struct wf_eval_plan plan = plan_of(1);
    assert_true(wf_eval_run(&plan, &windows, 1, 3, variants, 3, results));
    assert_true(results[0].kl == 0);
    assert_true(results[1].kl > 1e-6 && results[1].nll != results[1].nll_exact);
    assert_true(results[2].kl == 0); /* it is never complete */

    /* A window that ends with the block, but for the token that is only predicted. */
    struct wf_windows ends;
    uint32_t *tokens = calloc(64, sizeof(*tokens));
    assert_true(wf_windows_of("it", tokens, 64, 2 * BLOCK + 1, &ends));
    assert_true(wf_eval_run(&plan, &ends, 0, 4, variants, 3, results));
    assert_true(results[1].kl == 0 && results[1].nll == results[1].nll_exact);
    wf_windows_free(&ends);
}

static void what_is_coarser_costs_more(void **state)
{
    (void)state;
    float steps[] = {0.02f, 0.2f, 1.0f};
    struct wf_eval_variant variants[3];
    struct wf_eval_result together[3], alone, again[3];
    for (int i = 0; i < 3; i++)
        variants[i] = (struct wf_eval_variant){&steps[i], coarsen};
    struct wf_eval_plan plan = plan_of(1), two = plan_of(2);
    assert_true(wf_eval_run(&plan, &windows, 0, 8, variants, 3, together));
    assert_true(together[0].kl > 0 && together[1].kl > together[0].kl);
    assert_true(together[2].kl > together[1].kl && together[2].kl_error > 0);
    assert_true(together[2].nll_error > together[0].nll_error && together[0].nll_error > 0);

    /* Neither the company nor the threads change a bit. */
    assert_true(wf_eval_run(&plan, &windows, 0, 8, &variants[1], 1, &alone));
    assert_memory_equal(&alone, &together[1], sizeof(alone));
    assert_true(wf_eval_run(&two, &windows, 0, 8, variants, 3, again));
    assert_memory_equal(again, together, sizeof(again));
    for (two.threads = 1; two.threads <= 5; two.threads++) {
        two.apart = true;
        assert_true(wf_eval_run(&two, &windows, 0, 8, variants, 3, again));
        assert_memory_equal(again, together, sizeof(again));
    }
}

static void errors_are_of_windows(void **state)
{
    (void)state;
    float step = 0.5f;
    struct wf_eval_variant variant = {&step, coarsen};
    struct wf_eval_result each[7], all;
    struct wf_eval_plan plan = plan_of(1);
    double mean = 0, spread = 0;
    for (uint32_t w = 0; w < 7; w++) {
        assert_true(wf_eval_run(&plan, &windows, w, w + 1, &variant, 1, &each[w]));
        assert_true(each[w].nll_error == 0); /* one is no sample */
        mean += (each[w].nll - each[w].nll_exact) / 7;
    }
    for (uint32_t w = 0; w < 7; w++)
        spread += pow(each[w].nll - each[w].nll_exact - mean, 2);
    assert_true(wf_eval_run(&plan, &windows, 0, 7, &variant, 1, &all));
    assert_true(fabs(all.nll - all.nll_exact - mean) < 1e-12);
    assert_true(fabs(all.nll_error - sqrt(spread / (7 * 6))) < 1e-9);
}

/* A window that is long enough is a sample by itself: of what lies together in it. */
static void one_long_window_has_an_error(void **state)
{
    (void)state;
    uint32_t count = 3 * 256 + 200, *tokens = malloc(count * sizeof(*tokens));
    struct wf_model_shape longer = shape;
    struct wf_model other;
    struct wf_windows few;
    float step = 0.5f;
    struct wf_eval_variant variant = {&step, coarsen};
    struct wf_eval_result one, all;
    longer.context = 257;
    assert_non_null(tokens);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = i * i * 37 % 300;
    assert_true(wf_model_random(&longer, 3, &other));
    assert_true(wf_windows_of("it", tokens, count, 257, &few));
    struct wf_eval_plan plan = plan_of(1);
    plan.model = &other;
    assert_true(wf_eval_run(&plan, &few, 0, 1, &variant, 1, &one));
    assert_true(one.kl_error > 0 && one.kl_error < one.kl && one.nll_error > 0);
    assert_true(wf_eval_run(&plan, &few, 0, 4, &variant, 1, &all));
    assert_true(all.kl_error > 0 && all.kl_error < all.kl);
    wf_windows_free(&few);
    wf_model_free(&other);
}

/* Windows that are all the same: by windows there is no error, by what lies together in them there
 * is.  Of five both count, of six the windows alone. */
static void stretches_count_where_windows_are_few(void **state)
{
    (void)state;
    enum { LONG = 193, MANY = 6 };
    uint32_t count = MANY * (LONG - 1), *tokens = malloc(count * sizeof(*tokens));
    struct wf_model_shape longer = shape;
    struct wf_model other;
    struct wf_windows same;
    float step = 0.5f;
    struct wf_eval_variant variant = {&step, coarsen};
    struct wf_eval_result five, six;
    longer.context = LONG;
    assert_non_null(tokens);
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (i % (LONG - 1)) * (i % (LONG - 1)) * 37 % 300;
    assert_true(wf_model_random(&longer, 3, &other));
    assert_true(wf_windows_of("it", tokens, count, LONG, &same));
    assert_int_equal(same.windows, MANY);
    struct wf_eval_plan plan = plan_of(1);
    plan.model = &other;
    assert_true(wf_eval_run(&plan, &same, 0, 5, &variant, 1, &five));
    assert_true(wf_eval_run(&plan, &same, 0, 6, &variant, 1, &six));
    assert_true(five.kl > 0 && fabs(five.kl - six.kl) < 1e-12);
    assert_true(five.kl_error > 1e-3 * five.kl && five.nll_error > 1e-3 * five.kl);
    assert_true(six.kl_error < 1e-6 * six.kl && six.nll_error < 1e-6 * six.kl);
    wf_windows_free(&same);
    wf_model_free(&other);
}

/* ---------------------------------------------------------------------------------------- hooks */

struct seen {
    uint64_t queries, blocks, rounded;
    double part;
    float step;
};

static void on_queries(void *context, uint32_t layer, uint32_t first, uint32_t count,
                       const float *queries)
{
    struct seen *seen = context;
    assert_true(layer < shape.layers && first + count < LENGTH);
    assert_true(isfinite(queries[(size_t)count * shape.dim - 1]));
    seen->queries += count;
}

static bool on_block(void *context, const float *block, uint32_t position)
{
    struct seen *seen = context;
    assert_int_equal(position % BLOCK, 0);
    for (size_t i = 0; i < block_floats(); i++) /* it is rounded already */
        assert_true(block[i] == seen->step * rintf(block[i] / seen->step));
    seen->blocks++;
    return true;
}

static void round_off(void *context, float *values, size_t count)
{
    struct seen *seen = context;
    for (size_t i = 0; i < count; i++)
        values[i] = seen->step * rintf(values[i] / seen->step);
    seen->rounded += count;
}

static bool on_progress(void *context, double part)
{
    struct seen *seen = context;
    assert_true(part > seen->part && part <= 1);
    seen->part = part;
    return true;
}

static bool stop(void *context, double part)
{
    (void)context;
    return part < 0.5;
}

static void whoever_looks_sees_it_all(void **state)
{
    (void)state;
    struct seen seen = {.step = 0.25f};
    struct wf_eval_plan plan = plan_of(1);
    struct wf_eval_variant variants[] = {{&seen.step, coarsen}, {0}};
    struct wf_eval_result plain, results[2];
    assert_true(wf_eval_run(&plan, &windows, 0, 2, &variants[1], 1, &plain));
    plan.round = round_off;
    plan.round_context = plan.context = &seen;
    plan.queries = on_queries;
    plan.block = on_block;
    plan.progress = on_progress;
    assert_true(wf_eval_run(&plan, &windows, 0, 2, NULL, 0, NULL));
    assert_int_equal(seen.queries, 2 * 29 * shape.layers);
    assert_int_equal(seen.rounded, (uint64_t)2 * 29 * shape.layers * 2 * model.kv_dim);
    assert_int_equal(seen.blocks, 2 * 3);
    assert_true(seen.part == 1);

    /* Rounding is part of the exact model, so what rounds no further is lossless. */
    seen.part = 0;
    assert_true(wf_eval_run(&plan, &windows, 0, 2, variants, 2, results));
    assert_true(results[0].kl == 0 && results[0].nll == results[1].nll_exact);
    assert_true(results[0].nll_exact != plain.nll_exact);
}

static void what_cannot_be_has_a_sentence(void **state)
{
    (void)state;
    struct wf_eval_result result;
    struct wf_eval_variant variant = {NULL, refuse};
    struct wf_eval_plan plan = plan_of(1);
    assert_false(wf_eval_run(&plan, &windows, 0, 8, &variant, 1, &result));
    assert_string_equal(wf_say_last(), "no more of this");
    plan.apart = true;
    plan.threads = 3;
    wf_say_keep("%s", "");
    assert_false(wf_eval_run(&plan, &windows, 0, 8, &variant, 1, &result));
    assert_string_equal(wf_say_last(), "no more of this");
    plan = plan_of(1);
    plan.progress = stop;
    assert_false(wf_eval_run(&plan, &windows, 0, 8, NULL, 0, NULL));
    assert_non_null(strstr(wf_say_last(), "3 of 8"));
    plan = plan_of(1);
    assert_false(wf_eval_run(&plan, &windows, 3, 9, NULL, 0, NULL));
    assert_false(wf_eval_run(&plan, &windows, 3, 3, NULL, 0, NULL));
    plan.block_tokens = 0;
    assert_false(wf_eval_run(&plan, &windows, 0, 8, NULL, 0, NULL));
    plan.block_tokens = 65;
    assert_false(wf_eval_run(&plan, &windows, 0, 8, NULL, 0, NULL));
    assert_non_null(strstr(wf_say_last(), "65"));
}

static void likelihoods_are_right(void **state)
{
    (void)state;
    static const float offs[] = {1e-4f, 1e-3f, 1e-2f, 0.1f, 1, 10};
    static float a[1003], b[1003], weights[1003];
    struct wf_weighed weighed;
    uint64_t random = 1;
    for (uint32_t vocab = 1; vocab <= 1003; vocab += 167)
        for (int scale = 1; scale <= 100; scale *= 10)
            for (size_t o = 0; o < sizeof(offs) / sizeof(*offs); o++) {
                float off = offs[o];
                long double all_a = 0, all_b = 0, kl = 0;
                for (uint32_t i = 0; i < vocab; i++) {
                    random = random * 6364136223846793005u + 1442695040888963407u;
                    a[i] = (float)scale * ((float)(random >> 40) * 0x1p-23f - 1.0f);
                    b[i] = a[i] + off * ((float)(random >> 20 & 1023) * 0x1p-10f + 0.1f);
                }
                for (uint32_t i = 0; i < vocab; i++) {
                    all_a += expl((long double)a[i]);
                    all_b += expl((long double)b[i]);
                }
                for (uint32_t i = 0; i < vocab; i++)
                    kl += expl((long double)a[i]) / all_a *
                          ((long double)a[i] - logl(all_a) - (long double)b[i] + logl(all_b));
                double got_nll = wf_likely_weigh(a, vocab, vocab / 2, weights, &weighed);
                struct wf_likely got = wf_likely(&weighed, b, vocab, vocab / 2);
                double nll = (double)logl(all_a) - (double)a[vocab / 2];
                double apart = (double)(logl(all_b) - logl(all_a)) -
                               ((double)b[vocab / 2] - (double)a[vocab / 2]);
                assert_true(fabs(got_nll - nll) < 1e-6 * (1 + fabs(nll)));
                if (!(fabs(got.kl - (double)kl) < 1e-15 + 1e-5 * (double)kl))
                    fail_msg("KL %.9g instead of %.9g: vocabulary %u, scale %d, off by %g", got.kl,
                             (double)kl, vocab, scale, (double)off);
                assert_true(fabs(got.apart - apart) < 1e-13 + 1e-5 * (double)off);
                got = wf_likely(&weighed, a, vocab, 0);
                assert_true(got.kl == 0 && got.apart == 0);
            }
}

/* ---------------------------------------------------------------------------------------- texts */

static void write_text(char *path, const char *bytes, size_t count)
{
    memcpy(path, "/tmp/llama-eval.XXXXXX", sizeof("/tmp/llama-eval.XXXXXX"));
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, bytes, count) == (ssize_t)count);
    close(fd);
}

static void a_text_becomes_windows(void **state)
{
    (void)state;
    static char text[200000];
    struct wf_tokenizer bytes;
    struct wf_windows w;
    char path[64];
    assert_true(wf_tokenizer_bytes(300, &bytes));
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = i % 7 == 6 ? ' ' : (char)('a' + i % 26);
    write_text(path, text, sizeof(text));
    assert_true(wf_windows_read(path, &bytes, 101, 101, WF_WINDOWS_TOKENS_MAX, &w));
    assert_int_equal(w.count, sizeof(text) + 1); /* a space goes before the first word */
    assert_int_equal(w.windows, 2001);
    assert_int_equal(w.calibration, 500);
    assert_false(w.cut);
    assert_int_equal(w.tokens[0], WF_TOKEN_BYTES + ' ');
    for (size_t i = 0; i < sizeof(text); i++) /* in one piece, however it was read */
        assert_int_equal(w.tokens[i + 1], WF_TOKEN_BYTES + (unsigned char)text[i]);
    uint32_t last[101];
    assert_int_equal(wf_windows_get(&w, 2000, last), 2);
    assert_int_equal(last[1], w.tokens[sizeof(text)]);
    wf_windows_free(&w);

    assert_true(wf_windows_read(path, &bytes, 101, 101, 70000, &w));
    assert_int_equal(w.count, 70000);
    assert_int_equal(w.windows, 700);
    assert_true(w.cut);
    wf_windows_free(&w);
    assert_true(wf_windows_read(path, &bytes, 101, 101, 301, &w)); /* three and one token more */
    assert_int_equal(w.windows, 4);
    assert_int_equal(w.calibration, 1);
    wf_windows_free(&w);
    assert_false(wf_windows_read(path, &bytes, 101, 101, 300, &w));
    assert_non_null(strstr(wf_say_last(), "300 tokens of"));
    assert_non_null(strstr(wf_say_last(), "ask for more"));
    /* Shorter ones, where that is allowed: the longest that are four. */
    assert_true(wf_windows_read(path, &bytes, 101, 33, 300, &w));
    assert_int_equal(w.length, 100);
    assert_int_equal(w.windows, 4);
    assert_int_equal(w.calibration, 1);
    wf_windows_free(&w);
    assert_true(wf_windows_read(path, &bytes, 101, 33, 301, &w));
    assert_int_equal(w.length, 101);
    wf_windows_free(&w);
    assert_true(wf_windows_read(path, &bytes, 101, 33, 97, &w));
    assert_int_equal(w.length, 33);
    assert_int_equal(w.windows, 4);
    wf_windows_free(&w);
    assert_false(wf_windows_read(path, &bytes, 101, 33, 96, &w));
    assert_false(wf_windows_read(path, &bytes, 1, 1, 300, &w));
    assert_false(wf_windows_read(path, &bytes, 101, 101, 0, &w));
    unlink(path);

    memset(text, 'x', sizeof(text)); /* a word that no piece holds */
    write_text(path, text, sizeof(text));
    assert_true(wf_windows_read(path, &bytes, 101, 101, WF_WINDOWS_TOKENS_MAX, &w));
    assert_int_equal(w.count, sizeof(text) + 1);
    wf_windows_free(&w);
    unlink(path);
    assert_false(wf_windows_read(path, &bytes, 101, 101, 300, &w));
    assert_non_null(strstr(wf_say_last(), path));
    write_text(path, "a\0b", 3);
    assert_false(wf_windows_read(path, &bytes, 101, 101, 300, &w));
    assert_non_null(strstr(wf_say_last(), "no text"));
    unlink(path);
    write_text(path, "", 0);
    assert_false(wf_windows_read(path, &bytes, 101, 101, 300, &w));
    unlink(path);
    assert_false(wf_windows_read("/", &bytes, 101, 101, 300, &w));
    wf_tokenizer_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_back_as_it_was_changes_nothing),
        cmocka_unit_test(perplexity_is_what_it_is_defined_as),
        cmocka_unit_test(a_block_is_exact_to_its_own_tokens),
        cmocka_unit_test(what_is_coarser_costs_more),
        cmocka_unit_test(errors_are_of_windows),
        cmocka_unit_test(one_long_window_has_an_error),
        cmocka_unit_test(stretches_count_where_windows_are_few),
        cmocka_unit_test(whoever_looks_sees_it_all),
        cmocka_unit_test(what_cannot_be_has_a_sentence),
        cmocka_unit_test(likelihoods_are_right),
        cmocka_unit_test(a_text_becomes_windows),
    };
    return cmocka_run_group_tests(tests, make_model, free_model);
}
