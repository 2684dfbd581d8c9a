/* SPDX-License-Identifier: Apache-2.0
 *
 * A trace on several nodes: what must hold whatever the trace is, and that the fabric is near one
 * big node.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../support/random.h"
#include "sim/cluster.h"
#include "sim/run.h"

/* Talks that go on, which begin with one of a few prompts. */
static void trace_make(struct wf_sim_trace *trace, uint64_t seed, uint32_t requests)
{
    enum { TALKS = 200, LONG = 64 };
    static uint64_t talks[TALKS][LONG];
    static uint32_t length[TALKS];
    struct random_source r = {seed};
    uint64_t next = 1000;
    double now_s = 0;
    memset(length, 0, sizeof length);
    assert_int_equal(wf_sim_trace_init(trace, 512), WEFT_OK);
    for (uint32_t i = 0; i < requests; i++) {
        uint32_t t = random_below(&r, TALKS), more = 2 + random_below(&r, 6);
        if (!length[t] || length[t] + more > LONG || random_below(&r, 5) == 0) {
            uint32_t prompt = random_below(&r, 4);
            for (length[t] = 0; length[t] < 3; length[t]++)
                talks[t][length[t]] = 10 * prompt + length[t];
        }
        for (; more > 0; more--)
            talks[t][length[t]++] = next++;
        now_s += 0.1 + 0.02 * random_below(&r, 20);
        struct trace_request request = {.timestamp_s = now_s,
                                        .input_length = 512u * length[t] + 100,
                                        .output_length = 100,
                                        .hash_ids = talks[t],
                                        .hash_count = length[t]};
        assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

static struct wf_sim_cluster_result run(const struct wf_sim_trace *trace,
                                        enum wf_sim_cluster_how how, uint32_t nodes,
                                        uint32_t capacity, uint64_t seed)
{
    struct wf_sim_cluster_result result;
    const struct wf_sim_cluster_plan plan = {.trace = trace,
                                             .model = wf_sim_model_find("llama-3-8b"),
                                             .how = how,
                                             .nodes = nodes,
                                             .capacity = capacity,
                                             .seed = seed,
                                             .speed = 1,
                                             .link_bytes_s = 25e9,
                                             .link_latency_s = 2e-5};
    assert_int_equal(wf_sim_cluster_run(&plan, NULL, &result), WEFT_OK);
    return result;
}

static void one_node_is_the_plain_simulation(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    struct wf_sim_result plain;
    trace_make(&trace, 1, 2000);
    const struct wf_sim_plan plan = {
        .ops = &wf_sim_weft,
        .world = {.trace = &trace, .capacity = 1000, .seed = 1, .speed = 1},
        .model = wf_sim_model_find("llama-3-8b"),
        .replicas = 4};
    assert_int_equal(wf_sim_run(&plan, NULL, &plain), WEFT_OK);
    struct wf_sim_cluster_result one = run(&trace, WF_SIM_ONE, 4, 1000, 1);
    assert_int_equal(one.blocks_hit, plain.blocks_hit);
    assert_int_equal(one.blocks_requested, plain.blocks_requested);
    assert_true(fabs(one.ttft_ms_mean - plain.ttft_ms_mean) < 1e-6 * plain.ttft_ms_mean);
    assert_true(one.copies_mean == 1 && one.blocks_fetched == 0 && one.route_us_p50 == 0);
    wf_sim_trace_fini(&trace);
}

static void the_fabric_is_nearly_one_node(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct wf_sim_trace trace;
        double rate[WF_SIM_HOWS];
        trace_make(&trace, seed, 4000);
        for (int how = 0; how < WF_SIM_HOWS; how++) {
            struct wf_sim_cluster_result result = run(&trace, (enum wf_sim_cluster_how)how, 4, 2400,
                                                      seed);
            struct wf_sim_cluster_result again = run(&trace, (enum wf_sim_cluster_how)how, 4, 2400,
                                                     seed);
            assert_int_equal(result.requests, 4000);
            assert_true(result.blocks_hit == again.blocks_hit &&
                        result.blocks_fetched == again.blocks_fetched &&
                        result.ttft_ms_mean == again.ttft_ms_mean);
            assert_true(result.blocks_fetched <= result.blocks_hit);
            assert_true(result.blocks_fetched == 0 || how == WF_SIM_FABRIC);
            assert_true(result.copies_mean >= 1 && result.copies_mean < 4);
            assert_true(how != WF_SIM_FABRIC || result.busiest < 1.5);
            rate[how] = (double)result.blocks_hit / (double)result.blocks_requested;
        }
        print_message("# seed %d: one %.4f, in turns %.4f, affinity %.4f, fabric %.4f\n", (int)seed,
                      rate[WF_SIM_ONE], rate[WF_SIM_ROUNDS], rate[WF_SIM_AFFINITY],
                      rate[WF_SIM_FABRIC]);
        assert_true(rate[WF_SIM_FABRIC] > rate[WF_SIM_ROUNDS] + 0.1);
        assert_true(rate[WF_SIM_FABRIC] > rate[WF_SIM_ONE] - 0.05);
        assert_true(rate[WF_SIM_FABRIC] > rate[WF_SIM_AFFINITY] + 0.02);
        wf_sim_trace_fini(&trace);
    }
}

static void what_can_not_be_is_said(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    struct wf_sim_cluster_result result;
    trace_make(&trace, 1, 10);
    struct wf_sim_cluster_plan plan = {.trace = &trace,
                                       .model = wf_sim_model_find("llama-3-8b"),
                                       .how = WF_SIM_FABRIC,
                                       .nodes = 5,
                                       .capacity = 4,
                                       .speed = 1,
                                       .link_bytes_s = 1e9};
    assert_int_equal(wf_sim_cluster_run(&plan, NULL, &result), WEFT_E_INVALID);
    plan.nodes = WF_SIM_NODES_MAX + 1;
    plan.capacity = 100000;
    assert_int_equal(wf_sim_cluster_run(&plan, NULL, &result), WEFT_E_INVALID);
    wf_sim_trace_fini(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_is_the_plain_simulation),
        cmocka_unit_test(the_fabric_is_nearly_one_node),
        cmocka_unit_test(what_can_not_be_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
