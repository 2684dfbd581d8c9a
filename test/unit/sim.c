/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulator around its caches: how a trace is numbered, hints from the future, the model of the
 * engines, and that a run is its seed's.
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
#include <zlib.h>

#include "base/random.h"
#include "sim/hints.h"
#include "sim/run.h"

static char path[] = "/tmp/weft-sim-XXXXXX";

static void add(struct wf_sim_trace *trace, double at_s, size_t count, const uint64_t *ids)
{
    struct trace_request request = {.timestamp_s = at_s,
                                    .input_length = 512 * count,
                                    .output_length = 10,
                                    .hash_ids = (uint64_t *)(uintptr_t)ids,
                                    .hash_count = count};
    assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
}

/* Talks that grow, some of which come back, over a prompt that all share. */
static void talks(struct wf_sim_trace *trace, int requests)
{
    struct {
        uint64_t number, blocks;
    } talk[100] = {0};
    uint64_t random = 3, ids[64] = {0};
    assert_int_equal(wf_sim_trace_init(trace, 512), WEFT_OK);
    for (int i = 0; i < requests; i++) {
        uint64_t at = wf_random(&random) % 100;
        if (talk[at].blocks > 40 || wf_random(&random) % 8 == 0)
            talk[at].blocks = 0;
        if (!talk[at].blocks)
            talk[at].number = (uint64_t)i + 1;
        talk[at].blocks += 2 + wf_random(&random) % 4;
        for (uint64_t k = 1; k < talk[at].blocks; k++)
            ids[k] = talk[at].number * 100 + k;
        add(trace, 0.3 * i, talk[at].blocks, ids);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

static void a_block_is_its_chain(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    assert_int_equal(wf_sim_trace_init(&trace, 512), WEFT_OK);
    add(&trace, 0, 3, (const uint64_t[]){7, 8, 9});
    add(&trace, 1, 2, (const uint64_t[]){7, 9}); /* this 9 stands behind 7 */
    add(&trace, 2, 2, (const uint64_t[]){7, 8});
    add(&trace, 1.5, 3, (const uint64_t[]){9, 9, 9}); /* earlier than the one before */
    assert_int_equal(wf_sim_trace_finish(&trace), WEFT_OK);
    static const uint32_t blocks[] = {0, 1, 2, 0, 3, 0, 1, 4, 5, 6};
    static const uint32_t next[] = {1, 2, WF_SIM_NONE, 2, WF_SIM_NONE};
    assert_int_equal(trace.reference_count, 10);
    assert_memory_equal(trace.blocks, blocks, sizeof blocks);
    assert_memory_equal(trace.next, next, sizeof next);
    assert_int_equal(trace.block_count, 7);
    assert_int_equal(trace.parent[3], 0);
    assert_int_equal(trace.parent[4], WF_SIM_NONE);
    assert_int_equal(trace.depth[6], 2);
    assert_int_equal(trace.chain_max, 3);
    assert_int_equal(trace.lines_early, 1);
    assert_int_equal(trace.requests[3].at_us, 2000000);
    wf_sim_trace_fini(&trace);
}

static void file_write(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

#define LINE \
    "{\"timestamp\": 2, \"input_length\": 30, \"output_length\": 1, \"hash_ids\": [5, 6]}\n"

static void a_file_is_loaded(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    file_write(LINE "nonsense\n\n" LINE);
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, false, UINT64_MAX, NULL, &trace), WEFT_OK);
    assert_int_equal(trace.request_count, 2);
    assert_int_equal(trace.block_count, 2);
    assert_int_equal(trace.block_tokens, 16);
    assert_int_equal(trace.requests[0].at_us, 2000000);
    assert_int_equal(trace.lines_malformed, 1);
    assert_non_null(strstr(trace.first_error, ":2: "));
    wf_sim_trace_fini(&trace);
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, true, UINT64_MAX, NULL, &trace),
                     WEFT_E_INVALID);
    assert_non_null(strstr(wf_sim_error(), ":2: "));
    file_write("nonsense\n");
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, false, UINT64_MAX, NULL, &trace),
                     WEFT_E_INVALID);
    assert_non_null(strstr(wf_sim_error(), "no request"));
    assert_int_equal(wf_sim_trace_load("/nowhere", TRACE_QWEN, false, UINT64_MAX, NULL, &trace),
                     WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_sim_error(), "/nowhere"));
}

static void a_line_may_say_more(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
#define MORE(rest)                                                                              \
    "{\"timestamp\": 2, \"input_length\": 9, \"output_length\": 1, \"hash_ids\": [5, 6], " rest \
    "}\n"
    file_write(LINE MORE("\"domain\": \"a\", \"priority\": 3, \"returns_in\": 1.5")
                   MORE("\"domain\": \"a\", \"priority\": -1, \"returns_in\": -2")
                       MORE("\"domain\": 7, \"priority\": \"high\", \"returns_in\": \"soon\""));
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, true, UINT64_MAX, NULL, &trace), WEFT_OK);
    /* Domains share no block: 5 and 6 of the one are others than those of the other. */
    assert_int_equal(trace.block_count, 4);
    assert_int_equal(trace.domain_count, 2);
    assert_string_equal(trace.domains[0].name, "default");
    assert_string_equal(trace.domains[1].name, "a");
    assert_int_equal(trace.domains[1].priority, 3);
    assert_int_equal(trace.requests[1].domain, 1);
    assert_int_equal(trace.requests[1].returns_in_us, 1500000);
    assert_int_equal(trace.requests[2].returns_in_us, 0);
    assert_int_equal(trace.requests[3].domain, 0);
    wf_sim_trace_fini(&trace);
}

static void a_compressed_file_is_the_same(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++)
        assert_true(gzputs(file, LINE) > 0);
    assert_int_equal(gzclose(file), Z_OK);
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, false, UINT64_MAX, NULL, &trace), WEFT_OK);
    assert_int_equal(trace.request_count, 1000);
    wf_sim_trace_fini(&trace);
    /* Cut off, it is no shorter trace but an error; and so is one with a wrong byte. */
    FILE *raw = fopen(path, "r+");
    assert_non_null(raw);
    assert_int_equal(fseek(raw, -6, SEEK_END), 0);
    assert_int_not_equal(fputc('?', raw), EOF);
    assert_int_equal(fclose(raw), 0);
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, false, UINT64_MAX, NULL, &trace),
                     WEFT_E_SYSTEM);
    assert_int_equal(truncate(path, 40), 0);
    assert_int_equal(wf_sim_trace_load(path, TRACE_QWEN, false, UINT64_MAX, NULL, &trace),
                     WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_sim_error(), "ends before its data do"));
}

static void hints_are_as_good_as_asked(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    talks(&trace, 20000);
    static const struct wf_sim_hints all[] = {{1, 1}, {0.8, 0.8}, {0.5, 0.9}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        uint8_t *wanted, *again, *other;
        struct wf_sim_hints_made made;
        assert_int_equal(wf_sim_hints_make(&trace, 300, &all[i], 1, &wanted, &made), WEFT_OK);
        assert_int_equal(wf_sim_hints_make(&trace, 300, &all[i], 1, &again, NULL), WEFT_OK);
        assert_int_equal(wf_sim_hints_make(&trace, 300, &all[i], 2, &other, NULL), WEFT_OK);
        assert_true(made.requests_true > 1000 && made.requests_true < 10000);
        assert_false(made.precision_missed);
        double right = (double)made.wanted_true;
        assert_true(fabs(right / (double)made.wanted - all[i].precision) < 0.03);
        assert_true(fabs(right / (double)made.requests_true - all[i].recall) < 0.03);
        assert_memory_equal(wanted, again, trace.request_count);
        bool same = memcmp(wanted, other, trace.request_count) == 0;
        assert_true(same == (all[i].recall == 1));
        free(wanted);
        free(again);
        free(other);
    }
    wf_sim_trace_fini(&trace);
}

static void hints_say_what_the_bound_keeps(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    assert_int_equal(wf_sim_trace_init(&trace, 512), WEFT_OK);
    add(&trace, 0, 3, (const uint64_t[]){0, 1, 2});    /* comes back soon */
    add(&trace, 1, 4, (const uint64_t[]){0, 3, 4, 5}); /* comes back, but there is no room */
    add(&trace, 2, 3, (const uint64_t[]){0, 1, 2});
    add(&trace, 3, 2, (const uint64_t[]){0, 6}); /* only what everybody shares comes back */
    add(&trace, 4, 4, (const uint64_t[]){0, 3, 4, 5});
    assert_int_equal(wf_sim_trace_finish(&trace), WEFT_OK);
    uint8_t *wanted;
    struct wf_sim_hints hints = {1, 1};
    enum { YES = TRACE_HINT_WANTED, NO = TRACE_HINT_DONE };
    static const uint8_t narrow[] = {YES, NO, NO, NO, NO}, wide[] = {YES, YES, NO, NO, NO};
    assert_int_equal(wf_sim_hints_make(&trace, 3, &hints, 1, &wanted, NULL), WEFT_OK);
    assert_memory_equal(wanted, narrow, sizeof narrow);
    free(wanted);
    assert_int_equal(wf_sim_hints_make(&trace, 6, &hints, 1, &wanted, NULL), WEFT_OK);
    assert_memory_equal(wanted, wide, sizeof wide);
    free(wanted);
    wf_sim_trace_fini(&trace);
}

static void near(double got, double want)
{
    assert_true(fabs(got - want) <= 1e-4 * want);
}

static void time_is_by_shape(void **state)
{
    (void)state;
    const struct wf_sim_model *model = wf_sim_model_find("llama-3-8b");
    assert_non_null(model);
    assert_int_equal(wf_sim_model_kv_bytes(model), 131072);
    struct wf_sim_engine engine;
    assert_int_equal(wf_sim_engine_init(&engine, model, 2), WEFT_OK);
    /* 2 × 8.03e9 × 1000 and 4 × 32 × 4096 × 1000² ÷ 2, at 0.4 × 989.4e12 a second. */
    struct wf_sim_work work = {.at_s = 10, .input_tokens = 1000, .output_tokens = 100};
    struct wf_sim_served first = wf_sim_engine_serve(&engine, &work);
    near(first.prefill_s, (1.606e13 + 2.62144e11) / 3.9576e14);
    assert_true(first.queue_s == 0 && first.done_s == first.prefill_s);
    /* Weights and 32 × 1,050 tokens of KV for each of 100 tokens, at 0.6 × 3.35e12 bytes a second.
     */
    near(first.decode_s, 100 * (1.606e10 + 32 * 131072.0 * 1050) / 2.01e12);
    /* The half that was hit is attended to, and loaded: one layer of 32 before prefill begins. */
    near(wf_sim_model_link(model), 54.4e9);
    work.hit_tokens = 500;
    work.data_s = 500 * 131072.0 / 54.4e9;
    struct wf_sim_served second = wf_sim_engine_serve(&engine, &work);
    near(second.prefill_s, (8.03e12 + 524288 * (5e5 - 1.25e5)) / 3.9576e14);
    near(second.done_s, second.prefill_s + work.data_s / 32);
    assert_true(second.queue_s == 0);
    /* Both are busy: the third waits for the one that is done first, and loads meanwhile. */
    work.at_s = 10.001;
    struct wf_sim_served third = wf_sim_engine_serve(&engine, &work);
    near(third.queue_s, second.done_s - 0.001);
    near(third.done_s, third.prefill_s);
    work.at_s = 20;
    work.latency_s = 1;
    struct wf_sim_served late = wf_sim_engine_serve(&engine, &work);
    assert_true(late.queue_s == 0);
    near(late.done_s, 1 + late.prefill_s + work.data_s / 32);
    near((double)wf_sim_model_kv_bytes(wf_sim_model_find("deepseek-v3")), 70272);
    wf_sim_engine_fini(&engine);
}

static void a_run_is_its_seeds(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    talks(&trace, 3000);
    for (size_t i = 0; wf_sim_caches[i]; i++) {
        struct wf_sim_result results[2];
        struct wf_sim_plan plan = {
            .ops = wf_sim_caches[i],
            .world = {.trace = &trace, .capacity = 300, .seed = 9, .speed = 1, .attention = 0.01},
            .model = &wf_sim_models[0],
            .replicas = 4,
            .warmup = 1000,
        };
        for (int k = 0; k < 2; k++) {
            assert_int_equal(wf_sim_run(&plan, NULL, &results[k]), WEFT_OK);
            assert_true(results[k].blocks_per_second > 0);
            results[k].blocks_per_second = 0;
        }
        assert_memory_equal(&results[0], &results[1], sizeof results[0]);
        assert_int_equal(results[0].requests, 2000);
        assert_true(results[0].blocks_hit > 0 &&
                    results[0].blocks_hit < results[0].blocks_requested);
        assert_true(results[0].ttft_ms_p50 <= results[0].ttft_ms_p95 &&
                    results[0].ttft_ms_p95 <= results[0].ttft_ms_p99);
        uint64_t saved = results[0].prefill_tokens_saved;
        assert_true(saved <= 512 * results[0].blocks_hit);
        assert_int_equal(saved + results[0].prefill_tokens, 512 * results[0].blocks_requested);
        assert_int_equal(results[0].bytes_loaded, saved * 131072);
    }
    wf_sim_trace_fini(&trace);
}

static void what_does_not_fit_is_said(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    talks(&trace, 10);
    struct wf_sim_plan plan = {
        .ops = wf_sim_cache_find("lru"),
        .world = {.trace = &trace, .capacity = 1, .seed = 1, .speed = 1},
        .model = wf_sim_model_find("llama-3-70b"),
        .replicas = 1,
    };
    struct wf_sim_result result;
    assert_int_equal(wf_sim_run(&plan, NULL, &result), WEFT_OK);
    assert_null(wf_sim_cache_find("clairvoyance"));
    assert_null(wf_sim_model_find("gpt-0"));
    wf_sim_trace_fini(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_its_chain),
        cmocka_unit_test(a_file_is_loaded),
        cmocka_unit_test(a_line_may_say_more),
        cmocka_unit_test(a_compressed_file_is_the_same),
        cmocka_unit_test(hints_are_as_good_as_asked),
        cmocka_unit_test(hints_say_what_the_bound_keeps),
        cmocka_unit_test(time_is_by_shape),
        cmocka_unit_test(a_run_is_its_seeds),
        cmocka_unit_test(what_does_not_fit_is_said),
    };
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
