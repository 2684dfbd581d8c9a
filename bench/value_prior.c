/* SPDX-License-Identifier: Apache-2.0
 *
 * Make src/core/value_prior.c: what the model of eviction by value knows before it has seen
 * anything.
 *
 *     value_prior TRACE PART >src/core/value_prior.c
 *
 * The first PART of a trace's requests (Mooncake's format) goes through the policy, which evicts
 * nothing, several times; the model is kept from one time to the next.  Its weights are then drawn
 * towards nothing, the more the less they saw, and rounded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/value.h"
#include "sim/load.h"

#define TIMES 5
#define DRAW 10.0f /* of gradients' squares: a weight that saw so much is halved */

static int rounded(float weight, float squares)
{
    float x = WF_VALUE_PRIOR_PARTS * weight * squares / (squares + DRAW);
    x = x > INT8_MAX ? INT8_MAX : x < -INT8_MAX ? -INT8_MAX : x;
    return (int)(x < 0 ? x - 0.5f : x + 0.5f);
}

static void request(struct wf_policy *policy, const struct wf_sim_trace *trace, uint32_t number)
{
    const struct wf_sim_request *asked = &trace->requests[number];
    const uint32_t *blocks = trace->blocks + asked->first;
    if (!asked->count)
        return;
    for (uint32_t i = 0; i < asked->count; i++) {
        const struct wf_policy_use use = {.slot = blocks[i],
                                          .parent = i ? blocks[i - 1] : WF_POLICY_NONE,
                                          .key = (blocks[i] + (uint64_t)1) * 0x9e3779b97f4a7c15u,
                                          .now_us = asked->at_us};
        wf_policy_value.used(policy, &use);
    }
    wf_policy_value.hint(policy, &(struct wf_policy_hint){.kind = WF_POLICY_OUTPUT,
                                                          .slot = blocks[asked->count - 1],
                                                          .output_tokens = asked->output_tokens});
}

static bool learn(const struct wf_sim_trace *trace, uint32_t requests, struct wf_value_model *model)
{
    wf_value_model_init(model);
    for (int time = 0; time < TIMES; time++) {
        struct wf_policy *policy;
        if (wf_policy_value.create(trace->block_count, &policy) != WEFT_OK)
            return false;
        policy->model = *model;
        for (uint32_t r = 0; r < requests; r++)
            request(policy, trace, r);
        *model = policy->model;
        wf_policy_value.destroy(policy);
    }
    return true;
}

static void ages_print(const struct wf_value_model *m)
{
    puts("const int8_t wf_value_prior_age[5][WF_VALUE_BUCKETS] = {");
    for (unsigned k = 0; k < 5; k++) {
        fputs("    {", stdout);
        for (unsigned i = 0; i < WF_VALUE_BUCKETS; i++) {
            struct wf_value_weight w = k ? m->shared_age[k - 1][i] : m->age[i];
            printf("%d%s", rounded(w.weight - (k ? 0 : WF_VALUE_ODDS_AT_FIRST), w.squares),
                   i + 1 == WF_VALUE_BUCKETS ? "},\n" : ", ");
        }
    }
    puts("};\nconst uint8_t wf_value_prior_seen[4][WF_VALUE_BUCKETS] = {");
    for (unsigned k = 0; k < 4; k++) {
        fputs("    {", stdout);
        for (unsigned i = 0; i < WF_VALUE_BUCKETS; i++)
            printf("%d%s", (int)(m->seen[k][i] < 20 ? m->seen[k][i] : 20),
                   i + 1 == WF_VALUE_BUCKETS ? "},\n" : ", ");
    }
    puts("};");
}

static void features_print(const struct wf_value_model *m)
{
    puts("const int8_t wf_value_prior_feature[WF_VALUE_FEATURES][WF_VALUE_BINS]"
         "[WF_VALUE_PHASES + 1] = {");
    for (unsigned f = 0; f < WF_VALUE_FEATURES; f++) {
        puts("    {");
        for (unsigned b = 0; b < WF_VALUE_BINS; b++) {
            bool any = false;
            for (unsigned k = 0; k <= WF_VALUE_ALL_AGES; k++)
                any = any || m->feature[f][b].squares[k] > 0;
            if (!any)
                continue;
            printf("        [%u] = {", b);
            for (unsigned k = 0; k <= WF_VALUE_ALL_AGES; k++)
                printf("%d%s", rounded(m->feature[f][b].weight[k], m->feature[f][b].squares[k]),
                       k == WF_VALUE_ALL_AGES ? "},\n" : ", ");
        }
        puts("    },");
    }
    puts("};");
}

int main(int argc, char **argv)
{
    struct wf_sim_trace trace;
    double part = argc == 3 ? strtod(argv[2], NULL) : 0;
    if (!(part > 0) || part > 1) {
        fputs("usage: value_prior TRACE PART\n", stderr);
        return 2;
    }
    if (wf_sim_trace_load(argv[1], TRACE_MOONCAKE, true, UINT64_MAX, NULL, &trace) != WEFT_OK) {
        fprintf(stderr, "value_prior: %s\n", wf_sim_error());
        return 1;
    }
    struct wf_value_model *model = malloc(sizeof *model);
    bool done = model && learn(&trace, (uint32_t)(part * trace.request_count), model);
    if (done) {
        puts(
            "/* SPDX-License-Identifier: Apache-2.0\n"
            " *\n"
            " * What the model knows before it has seen anything: weights in parts of 16, made by\n"
            " * bench/value_prior.c of the first third of Mooncake's conversation trace\n"
            " * (docs/POLICY.md).  A row: a weight for each phase of age, and one for all ages.\n"
            " */\n"
            "#include \"core/value_model.h\"\n");
        ages_print(model);
        features_print(model);
    } else {
        fputs("value_prior: no memory\n", stderr);
    }
    free(model);
    wf_sim_trace_fini(&trace);
    return !done;
}
