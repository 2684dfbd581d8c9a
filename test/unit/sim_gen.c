/* SPDX-License-Identifier: Apache-2.0
 *
 * Workloads that are made: the same for the same seed, readable, and distributed as is said.
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

#include "sim/gen.h"

#define REQUESTS 6000

static char path[] = "/tmp/weft-sim-gen-XXXXXX";

static void make_noisy(const char *workload, enum trace_format format, uint64_t seed,
                       struct wf_sim_hints hints, struct wf_sim_gen_made *made,
                       struct wf_sim_trace *trace)
{
    struct wf_sim_gen gen = {.workload = wf_sim_workload_find(workload),
                             .format = format,
                             .requests = REQUESTS,
                             .seed = seed,
                             .hinted = true,
                             .hints = hints};
    assert_non_null(gen.workload);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(wf_sim_gen_write(&gen, file, made), WEFT_OK);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(wf_sim_trace_load(path, format, true, UINT64_MAX, NULL, trace), WEFT_OK);
    assert_int_equal(trace->request_count, REQUESTS);
    assert_int_equal(trace->lines_early, 0);
}

static void make(const char *workload, enum trace_format format, uint64_t seed, double precision,
                 struct wf_sim_trace *trace)
{
    make_noisy(workload, format, seed, (struct wf_sim_hints){precision, precision}, NULL, trace);
    if (precision >= 1)
        assert_int_equal(trace->hints, REQUESTS);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void all_are_as_said(void **state)
{
    (void)state;
    for (const struct wf_sim_workload *work = wf_sim_workloads; work->name; work++) {
        struct wf_sim_trace trace;
        make(work->name, TRACE_MOONCAKE, 1, 1, &trace);
        uint32_t *outputs = calloc(REQUESTS, sizeof *outputs);
        assert_non_null(outputs);
        double wanted = 0;
        for (uint32_t r = 0; r < REQUESTS; r++) {
            const struct wf_sim_request *request = &trace.requests[r];
            assert_int_equal(request->count, (request->input_tokens + 511) / 512);
            outputs[r] = request->output_tokens;
            wanted += request->hint == TRACE_HINT_WANTED;
        }
        qsort(outputs, REQUESTS, sizeof *outputs, compare);
        uint32_t middle = REQUESTS / 2;
        double median = outputs[middle];
        assert_true(fabs(median / work->output_tokens.median - 1) < 0.08);
        /* A session that is too long ends earlier. */
        assert_true(wanted / REQUESTS <= work->goes_on + 0.03);
        assert_true(wanted / REQUESTS >= work->goes_on - 0.04);
        free(outputs);
        wf_sim_trace_fini(&trace);
    }
}

static void a_turn_goes_on_where_the_last_ended(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    make("chat", TRACE_QWEN, 3, 1, &trace);
    assert_int_equal(trace.block_tokens, 16);
    uint32_t wanted = 0, came = 0, done = 0, came_all_the_same = 0;
    /* Those that come late may have their next turn behind the end of the trace. */
    for (uint32_t r = 0; r < REQUESTS / 2; r++) {
        const struct wf_sim_request *request = &trace.requests[r];
        /* The last block may not have been full, and the one before it is nobody else's. */
        uint32_t own = request->count - 2;
        bool again = trace.next[request->first + own] != WF_SIM_NONE;
        *(request->hint == TRACE_HINT_WANTED ? &wanted : &done) += 1;
        *(request->hint == TRACE_HINT_WANTED ? &came : &came_all_the_same) += again;
    }
    assert_true(came > 0.85 * wanted);
    assert_true(came_all_the_same < 0.1 * done);
    wf_sim_trace_fini(&trace);
}

/* Of each kind: the part of what is said that is right, and of what is true that is said. */
static void hints_err_as_often_as_said(void **state)
{
    (void)state;
    static const struct {
        const char *workload;
        double precision, recall;
        bool wanted_missed, done_missed;
    } all[] = {
        {"chat", 0.8, 0.6, false, false},   {"chat", 0.5, 0.5, true, false},
        {"agentic", 0.9, 0.9, true, false}, {"agentic", 0.1, 0.9, true, true},
        {"rag", 0.8, 0.8, false, true},     {"batch", 0.9, 0.9, false, true},
    };
    static const enum trace_hint kinds[] = {TRACE_HINT_WANTED, TRACE_HINT_DONE};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct wf_sim_trace true_ones, noisy;
        struct wf_sim_gen_made made;
        make(all[i].workload, TRACE_MOONCAKE, 5, 1, &true_ones);
        make_noisy(all[i].workload, TRACE_MOONCAKE, 5,
                   (struct wf_sim_hints){all[i].precision, all[i].recall}, &made, &noisy);
        assert_int_equal(made.wanted.precision_missed, all[i].wanted_missed);
        assert_int_equal(made.done.precision_missed, all[i].done_missed);
        assert_true(noisy.hints == made.wanted.hints + made.done.hints && noisy.hints <= REQUESTS);
        for (size_t k = 0; k < 2; k++) {
            double truth = 0, said = 0, both = 0;
            for (uint32_t r = 0; r < REQUESTS; r++) {
                truth += true_ones.requests[r].hint == kinds[k];
                said += noisy.requests[r].hint == kinds[k];
                both += true_ones.requests[r].hint == kinds[k] &&
                        noisy.requests[r].hint == kinds[k];
            }
            const struct wf_sim_gen_said *counted = k ? &made.done : &made.wanted;
            assert_true((double)counted->hints == said && (double)counted->right == both);
            if (truth > 0)
                assert_true(fabs(both / truth - all[i].recall) < 0.04);
            if (said > 0 && !counted->precision_missed)
                assert_true(fabs(both / said - all[i].precision) < 0.04);
            if (said > 0 && counted->precision_missed)
                assert_true(both / said > all[i].precision);
        }
        wf_sim_trace_fini(&true_ones);
        wf_sim_trace_fini(&noisy);
    }
}

/* The block that most requests of these seconds begin with, of `what` alone if it is not
 * WF_SIM_NONE, and its part of them. */
static uint32_t hottest(const struct wf_sim_trace *trace, double from_s, double to_s, uint32_t what,
                        double *part)
{
    uint32_t *wanted = calloc(trace->block_count + 1, sizeof *wanted), best = 0;
    double all = 0;
    assert_non_null(wanted);
    for (uint32_t r = 0; r < REQUESTS; r++) {
        const struct wf_sim_request *request = &trace->requests[r];
        double at_s = (double)request->at_us * 1e-6;
        if (at_s < from_s || at_s >= to_s)
            continue;
        all++;
        wanted[trace->blocks[request->first]]++;
    }
    for (uint32_t block = 0; block < trace->block_count; block++)
        best = wanted[block] > wanted[best] ? block : best;
    best = what == WF_SIM_NONE ? best : what;
    *part = wanted[best] / all;
    free(wanted);
    return best;
}

static double requests_in(const struct wf_sim_trace *trace, double from_s, double to_s)
{
    double count = 0;
    for (uint32_t r = 0; r < REQUESTS; r++) {
        double at_s = (double)trace->requests[r].at_us * 1e-6;
        count += at_s >= from_s && at_s < to_s;
    }
    return count;
}

/* Of the calls of programs: many begin as nobody else's, and they swell, and what is hot cools. */
static void calls_come_and_go(void **state)
{
    (void)state;
    const struct wf_sim_workload *api = wf_sim_workload_find("api");
    struct wf_sim_trace trace;
    make("api", TRACE_QWEN, 4, 1, &trace);
    double swell = requests_in(&trace, 0, api->swing_s / 2);
    double ebb = requests_in(&trace, api->swing_s / 2, api->swing_s);
    assert_true(swell > 2.1 * ebb && swell < 3.2 * ebb); /* (1 + 1.4/π) ÷ (1 − 1.4/π) is 2.6 */
    double roots = 0, sessions = REQUESTS / (1 + api->goes_on);
    for (uint32_t block = 0; block < trace.block_count; block++)
        roots += trace.depth[block] == 0;
    assert_true(roots > 0.9 * api->prompt_own * sessions);
    assert_true(roots < 1.1 * api->prompt_own * sessions + api->prompts);
    double first, later, then;
    uint32_t hot = hottest(&trace, 0, api->drift_s, WF_SIM_NONE, &first);
    hottest(&trace, 3 * api->drift_s, 4 * api->drift_s, hot, &later);
    assert_true(later < 0.5 * first && later > 0.05 * first); /* of rank 4 it has 0.22 */
    assert_true(hottest(&trace, 3 * api->drift_s, 4 * api->drift_s, WF_SIM_NONE, &then) != hot);
    wf_sim_trace_fini(&trace);
}

static void a_seed_is_a_trace(void **state)
{
    (void)state;
    struct wf_sim_trace first, again, other;
    make("rag", TRACE_MOONCAKE, 8, 0.8, &first);
    make("rag", TRACE_MOONCAKE, 8, 0.8, &again);
    make("rag", TRACE_MOONCAKE, 9, 0.8, &other);
    assert_int_equal(first.reference_count, again.reference_count);
    assert_memory_equal(first.blocks, again.blocks, first.reference_count * sizeof *first.blocks);
    for (uint32_t r = 0; r < REQUESTS; r++) {
        assert_int_equal(first.requests[r].at_us, again.requests[r].at_us);
        assert_int_equal(first.requests[r].hint, again.requests[r].hint);
    }
    assert_true(first.reference_count != other.reference_count);
    wf_sim_trace_fini(&first);
    wf_sim_trace_fini(&again);
    wf_sim_trace_fini(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_as_said),
        cmocka_unit_test(a_turn_goes_on_where_the_last_ended),
        cmocka_unit_test(hints_err_as_often_as_said),
        cmocka_unit_test(calls_come_and_go),
        cmocka_unit_test(a_seed_is_a_trace),
    };
    int fd = mkstemp(path);
    if (fd < 0)
        return 1;
    close(fd);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
