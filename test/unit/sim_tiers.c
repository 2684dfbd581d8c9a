/* SPDX-License-Identifier: Apache-2.0
 *
 * Tiers below the simulated pool: what goes down, what comes up, what is fetched ahead, by hand;
 * and what adds up whatever the trace is.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "sim/run.h"

/* Requests are words, a second apart; a word's letters are the hash ids of its chain.  A number
 * before a word is how many seconds it is said to be away. */
static void trace_of(struct wf_sim_trace *trace, const char *words)
{
    assert_int_equal(wf_sim_trace_init(trace, 512), WEFT_OK);
    double at_s = 0;
    for (const char *p = words; *p; p += strspn(p, " ")) {
        uint64_t ids[64];
        struct trace_request request = {.timestamp_s = at_s++, .hash_ids = ids};
        for (; *p >= '0' && *p <= '9'; p++)
            request.returns_in_s = 10 * request.returns_in_s + (*p - '0');
        request.hint = request.returns_in_s > 0 ? TRACE_HINT_WANTED : TRACE_HINT_NONE;
        for (; *p && *p != ' '; p++)
            ids[request.hash_count++] = (uint64_t)*p;
        request.input_length = 512 * request.hash_count + 1;
        assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

/* 64 MiB a block; prefill takes 21 ms, reading 5. */
static const struct wf_sim_tier flash = {"flash", 100, 1e-4, 14e9, 6e9, 0};

struct told {
    struct wf_sim_event events[256];
    int count;
};

static void listen(void *context, const struct wf_sim_event *event)
{
    struct told *told = context;
    assert_true(told->count < 256);
    told->events[told->count++] = *event;
}

static struct wf_sim_result run(const char *words, uint32_t capacity,
                                const struct wf_sim_tier *tiers, int count, uint32_t stage,
                                struct told *told)
{
    struct wf_sim_trace trace;
    struct wf_sim_result result;
    struct wf_sim_log log = {listen, told};
    uint8_t hints[64];
    trace_of(&trace, words);
    assert_true(trace.request_count <= sizeof hints);
    for (uint32_t r = 0; r < trace.request_count; r++)
        hints[r] = (uint8_t)trace.requests[r].hint;
    struct wf_sim_plan plan = {
        .ops = &wf_sim_lru,
        .world = {.trace = &trace, .capacity = capacity, .seed = 1, .hints = hints, .speed = 1},
        .model = wf_sim_model_find("llama-3-8b"),
        .replicas = 1,
        .tiers = tiers,
        .tier_count = count,
        .stage = stage,
        .log = told ? &log : NULL,
    };
    assert_int_equal(wf_sim_run(&plan, NULL, &result), WEFT_OK);
    wf_sim_trace_fini(&trace);
    return result;
}

static void what_leaves_comes_back(void **state)
{
    (void)state;
    struct told told = {0};
    struct wf_sim_result result = run("ab cd ab ab", 2, &flash, 1, 0, &told);
    /* b and a go down for c and d, come up again, and are in the pool then. */
    assert_int_equal(result.below.tier[0].blocks_hit, 2);
    assert_int_equal(result.below.pool_hit, 2);
    assert_int_equal(result.blocks_hit, 4);
    assert_int_equal(result.below.tier[0].blocks_written, 4);
    assert_int_equal(result.below.tier[0].bytes_written, 4 * 67108864u);
    assert_int_equal(result.below.tier[0].bytes_read, 2 * 67108864u);
    assert_int_equal(result.below.clean, 0);
    assert_int_equal(result.prefill_tokens_saved, 4 * 512);
    assert_int_equal(told.events[0].kind, WF_SIM_EVICTED);
    assert_int_equal(told.events[0].block, 1);
    assert_int_equal(told.events[1].kind, WF_SIM_PLACED);
    assert_int_equal(told.events[1].admission.rule, WF_ADMITTED);
    assert_int_equal(told.events[3].block, 0);
    assert_int_equal(told.events[3].admission.rule, WF_ADMITTED_CHAIN);
    /* Without tiers it is all as it was. */
    result = run("ab cd ab ab", 2, NULL, 0, 0, NULL);
    assert_int_equal(result.blocks_hit, 2);
}

static void a_copy_stays_below(void **state)
{
    (void)state;
    struct wf_sim_result result = run("ab cd ab cd ab", 2, &flash, 1, 0, NULL);
    assert_int_equal(result.below.tier[0].blocks_written, 4); /* once each */
    assert_int_equal(result.below.tier[0].blocks_hit, 6);
    assert_int_equal(result.below.clean, 4);
}

static void a_full_tier_lets_the_oldest_go(void **state)
{
    (void)state;
    struct told told = {0};
    struct wf_sim_tier small = flash;
    small.capacity = 2;
    /* b and a are below; d and c, wanted oftener, push them out, the deeper first; ab is computed.
     */
    struct wf_sim_result result = run("ab ab cd cd cd ef ab", 2, &small, 1, 0, &told);
    assert_int_equal(result.blocks_hit, 6);
    uint32_t dropped[8] = {0}, count = 0;
    for (int i = 0; i < told.count && count < 8; i++)
        if (told.events[i].kind == WF_SIM_DROPPED)
            dropped[count++] = told.events[i].block;
    assert_true(count >= 2);
    assert_int_equal(dropped[0], 1);
    assert_int_equal(dropped[1], 0);
    /* With a second one behind it nothing has to go: d and c are placed there. */
    struct wf_sim_tier two[] = {small, flash};
    result = run("ab ab cd cd cd ef ab", 2, two, 2, 0, NULL);
    assert_int_equal(result.below.tier[0].blocks_hit, 2);
    assert_int_equal(result.below.tier[0].blocks_evicted, 0);
    assert_true(result.below.tier[1].blocks_written >= 2);
    assert_int_equal(result.blocks_hit, 8);
}

static void what_is_slower_is_computed(void **state)
{
    (void)state;
    struct wf_sim_tier slow = flash;
    slow.read_bytes_s = 1e9; /* 67 ms a block */
    struct wf_sim_result result = run("ab cd ab", 2, &slow, 1, 0, NULL);
    assert_int_equal(result.below.tier[0].blocks_written, 0);
    assert_int_equal(result.below.decided[WF_REFUSED_SLOWER], 4);
    /* A latency too long for one block is shared by a chain.  Of six blocks five are loaded: the
     * sixth is computed while they come. */
    slow = flash;
    slow.latency_s = 0.05;
    result = run("abcdef abcdef ghijkl abcdef", 6, &slow, 1, 0, NULL);
    assert_int_equal(result.below.tier[0].blocks_hit, 5);
    assert_int_equal(result.below.computed, 1);
    slow.latency_s = 0.2;
    result = run("abcdef abcdef ghijkl abcdef", 6, &slow, 1, 0, NULL);
    assert_int_equal(result.below.tier[0].blocks_hit, 0);
}

static void writes_are_earned(void **state)
{
    (void)state;
    struct wf_sim_tier worn = flash;
    worn.drive_writes = 86400.0 / 100; /* one block a second */
    struct wf_sim_result result = run("ab ab ab cd ef ab gh ab ij ab kl ab", 2, &worn, 1, 0, NULL);
    assert_true(result.below.decided[WF_REFUSED_WEAR] > 0);
    assert_true(result.below.tier[0].blocks_written > 0);
    assert_true(result.below.tier[0].blocks_written < 8);
    assert_true(fabs(result.below.tier[0].budget_a_day - 86400 * 67108864.0) < 1e6);
}

static void talks(struct wf_sim_trace *trace, uint32_t requests)
{
    struct {
        uint64_t number, blocks;
    } talk[100] = {0};
    uint64_t random = 3, ids[64] = {0};
    assert_int_equal(wf_sim_trace_init(trace, 512), WEFT_OK);
    for (uint32_t i = 0; i < requests; i++) {
        uint64_t at = wf_random(&random) % 100;
        if (talk[at].blocks > 40 || wf_random(&random) % 8 == 0)
            talk[at].blocks = 0;
        if (!talk[at].blocks)
            talk[at].number = (uint64_t)i + 1;
        talk[at].blocks += 2 + wf_random(&random) % 4;
        for (uint64_t k = 1; k < talk[at].blocks; k++)
            ids[k] = talk[at].number * 100 + k;
        struct trace_request request = {.timestamp_s = i,
                                        .input_length = 512 * talk[at].blocks,
                                        .output_length = 10,
                                        .hash_ids = ids,
                                        .hash_count = talk[at].blocks,
                                        .hint = TRACE_HINT_WANTED,
                                        .returns_in_s = 100};
        assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

static void admission_is_worth_its_name(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    struct wf_sim_result all, worth;
    talks(&trace, 2000);
    const struct wf_sim_tier worn = {"worn", 1000, 1e-4,
                                     14e9,   6e9,  43.2}; /* half a block a second */
    struct wf_sim_plan plan = {
        .ops = &wf_sim_weft,
        .world = {.trace = &trace, .capacity = 300, .seed = 1, .speed = 1},
        .model = wf_sim_model_find("llama-3-8b"),
        .replicas = 1,
        .tiers = &worn,
        .tier_count = 1,
        .admit_always = true,
    };
    assert_int_equal(wf_sim_run(&plan, NULL, &all), WEFT_OK);
    plan.admit_always = false;
    assert_int_equal(wf_sim_run(&plan, NULL, &worth), WEFT_OK);
    /* The device may be written as much by both: what is chosen saves more. */
    assert_true(all.below.tier[0].blocks_written <= 1001);
    assert_true(worth.below.tier[0].blocks_written <= 1001);
    assert_true(worth.ttft_ms_mean < all.ttft_ms_mean);
    wf_sim_trace_fini(&trace);
}

/* Chains are begun only where they can be ended: whatever is admitted, and by whom, a drive is
 * written what its budget had, and what may be owed. */
static void no_budget_is_overdrawn(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    const struct wf_sim_cache_ops *policies[] = {&wf_sim_weft, &wf_sim_lru_leaf};
    talks(&trace, 4000);
    for (int run = 0; run < 36; run++) {
        const double blocks_s[] = {0.005, 0.05, 0.5}; /* what may be written */
        double near_s = blocks_s[run % 3], far_s = 0.4 * near_s;
        bool worn = run / 6 % 3 < 2; /* the first; else it is memory, and the second is */
        const struct wf_sim_tier tiers[] = {{"near", worn ? 1000 : 200, 1e-4, 14e9, 6e9,
                                             worn ? near_s * 86.4 : 0},
                                            {"far", 2000, 1e-4, 7e9, 3e9, far_s * 43.2}};
        struct wf_sim_plan plan = {
            .ops = policies[run / 3 % 2],
            .world = {.trace = &trace, .capacity = 300, .seed = 1, .speed = 1},
            .model = wf_sim_model_find("llama-3-8b"),
            .replicas = 1,
            .tiers = tiers,
            .tier_count = run / 6 % 3 ? 2 : 1,
            .admit_always = run >= 18,
        };
        struct wf_sim_result result;
        assert_int_equal(wf_sim_run(&plan, NULL, &result), WEFT_OK);
        for (int i = worn ? 0 : 1; i < plan.tier_count; i++) {
            double most = 4000 * (i ? far_s : near_s) + 1;
            double written = (double)result.below.tier[i].blocks_written;
            /* What one tier with a budget lets go to the next may be owed there. */
            double owed = worn && i ? WF_WEAR_OWED * 3600 * far_s : 0.02 * most;
            assert_true(written <= most + owed);
            assert_true(written >= 0.3 * most - 10 || i > 0);
        }
    }
    wf_sim_trace_fini(&trace);
}

static void who_says_when_is_fetched_before(void **state)
{
    (void)state;
    /* ab says that it is back in five seconds, and is; the pool is full of others by then. */
    const char *words = "5ab cd ef gh ij ab";
    struct told told = {0};
    struct wf_sim_result result = run(words, 4, &flash, 1, 2, &told);
    assert_int_equal(result.below.staged, 2);
    assert_int_equal(result.below.staged_hit, 2);
    assert_int_equal(result.below.pool_hit, 2);
    assert_int_equal(result.below.tier[0].blocks_hit, 0);
    assert_int_equal(result.below.tier[0].bytes_read, 2 * 67108864u);
    bool found = false;
    for (int i = 0; i < told.count; i++) {
        if (told.events[i].kind != WF_SIM_FETCHED)
            continue;
        found = true;
        assert_int_equal(told.events[i].request, 0);
        assert_int_equal(told.events[i].blocks, 2);
        assert_int_equal(told.events[i].prefetch.rule, WF_PREFETCH_NOW);
        assert_true(told.events[i].now_s > 2 && told.events[i].now_s < 5);
    }
    assert_true(found);
    struct wf_sim_result without = run(words, 2, &flash, 1, 0, NULL);
    assert_int_equal(without.below.tier[0].blocks_hit, 2);
    assert_true(without.ttft_ms_mean > result.ttft_ms_mean);
}

static void all_adds_up(void **state)
{
    (void)state;
    struct wf_sim_trace trace;
    talks(&trace, 2000);
    uint8_t hints[2000];
    memset(hints, TRACE_HINT_WANTED, sizeof hints);
    const struct wf_sim_tier tiers[] = {{"near", 200, 1e-6, 26e9, 22e9, 0},
                                        {"far", 400, 1e-4, 14e9, 6e9, 50}};
    for (size_t i = 0; wf_sim_caches[i]; i++) {
        struct wf_sim_plan plan = {
            .ops = wf_sim_caches[i],
            .world = {.trace = &trace, .capacity = 200, .seed = 9, .hints = hints, .speed = 1},
            .model = wf_sim_model_find("llama-3-8b"),
            .replicas = 2,
        };
        struct wf_sim_result flat, results[3];
        assert_int_equal(wf_sim_run(&plan, NULL, &flat), WEFT_OK);
        plan.tiers = tiers;
        plan.tier_count = 2;
        for (int k = 0; k < 3; k++) {
            plan.stage = k == 2 ? 20 : 0;
            assert_int_equal(wf_sim_run(&plan, NULL, &results[k]), WEFT_OK);
            results[k].blocks_per_second = 0;
        }
        assert_memory_equal(&results[0], &results[1], sizeof results[0]);
        for (int k = 0; k < 3; k++) {
            const struct wf_sim_result *one = &results[k];
            const struct wf_sim_below_result *below = &one->below;
            assert_int_equal(one->blocks_hit, below->pool_hit + below->tier[0].blocks_hit +
                                                  below->tier[1].blocks_hit);
            assert_true(below->tier[0].blocks_hit > 0);
            assert_true(one->blocks_hit > flat.blocks_hit);
            uint64_t taken = below->decided[WF_ADMITTED] + below->decided[WF_ADMITTED_CHAIN];
            assert_int_equal(taken, below->tier[0].blocks_written + below->tier[1].blocks_written);
            for (int t = 0; t < 2; t++) {
                const struct wf_sim_tier_result *tier = &below->tier[t];
                assert_true(tier->blocks_written - tier->blocks_evicted <= tiers[t].capacity);
            }
            assert_true(one->ttft_ms_mean < flat.ttft_ms_mean);
        }
        assert_int_equal(results[0].below.staged, 0);
        assert_true(results[2].below.staged_hit <= results[2].below.staged);
    }
    wf_sim_trace_fini(&trace);
}

/* What a node takes prefill to cost when nobody says it is what the dearest published shape does.
 */
static void the_guess_is_of_the_published_shapes(void **state)
{
    (void)state;
    double most_s_byte = 0, most_attended = 0;
    for (const struct wf_sim_model *model = wf_sim_models; model->name; model++) {
        struct wf_prefill prefill = wf_sim_model_prefill(model);
        double s_byte = prefill.token_s / (double)wf_sim_model_kv_bytes(model);
        most_s_byte = fmax(most_s_byte, s_byte);
        most_attended = fmax(most_attended, prefill.attended_s / prefill.token_s);
    }
    assert_true(WF_PREFILL_S_BYTE >= most_s_byte && WF_PREFILL_S_BYTE < 1.05 * most_s_byte);
    assert_true(WF_PREFILL_ATTENDED >= most_attended && WF_PREFILL_ATTENDED < 1.05 * most_attended);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_leaves_comes_back),
        cmocka_unit_test(a_copy_stays_below),
        cmocka_unit_test(a_full_tier_lets_the_oldest_go),
        cmocka_unit_test(what_is_slower_is_computed),
        cmocka_unit_test(writes_are_earned),
        cmocka_unit_test(admission_is_worth_its_name),
        cmocka_unit_test(no_budget_is_overdrawn),
        cmocka_unit_test(who_says_when_is_fetched_before),
        cmocka_unit_test(all_adds_up),
        cmocka_unit_test(the_guess_is_of_the_published_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
