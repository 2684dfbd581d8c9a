/* SPDX-License-Identifier: Apache-2.0
 *
 * One policy at one capacity over one trace.
 */
#ifndef WF_SIM_RUN_H
#define WF_SIM_RUN_H

#include "sim/cache.h"
#include "sim/engine.h"
#include "sim/tiers.h"

struct wf_sim_plan {
    const struct wf_sim_cache_ops *ops;
    struct wf_sim_world world;
    const struct wf_sim_model *model;
    uint32_t replicas;
    uint32_t warmup;                 /* requests that are served and not counted */
    const struct wf_sim_tier *tiers; /* [tier_count] what lies below, nearest first */
    int tier_count;
    uint32_t stage;    /* blocks of the capacity kept for what is fetched ahead */
    bool admit_always; /* into tiers, instead of by worth */
    double deadline_s[WF_SIM_DOMAINS_MAX]; /* of a first token; 0: none */
    bool by_cost;                 /* policies are told what it takes to have a block again */
    const struct wf_sim_log *log; /* NULL: nobody asks why */
};

struct wf_sim_domain_result {
    uint64_t requests, blocks_requested, blocks_hit;
    double ttft_ms_mean, ttft_ms_p50, ttft_ms_p99;
    double held_mean; /* blocks, as its requests and the others' found it; 0 without shares */
    uint64_t gave;    /* blocks that went for another domain */
    uint64_t in_time; /* requests whose first token came within the deadline */
};

struct wf_sim_result {
    uint64_t requests, blocks_requested, blocks_hit;
    uint64_t blocks_refused; /* by the cache: they found no room and were not stored */
    double ttft_ms_mean, ttft_ms_p50, ttft_ms_p95, ttft_ms_p99;
    double decode_ms_mean;
    bool overloaded; /* the engines' queue grew all along: times are a matter of the trace's length
                      */
    uint64_t prefill_tokens, prefill_tokens_saved;
    uint64_t bytes_loaded, bytes_stored; /* KV read from the cache for hits, and written to it */
    double blocks_per_second;            /* served by the cache alone, of all requests, a core */
    struct wf_sim_below_result below;    /* where there are tiers */
    struct wf_sim_domain_result domain[WF_SIM_DOMAINS_MAX]; /* as the trace numbers them */
};

/* WEFT_E_NO_MEMORY. */
enum weft_status wf_sim_run(const struct wf_sim_plan *plan, const struct wf_sim_progress *progress,
                            struct wf_sim_result *out);

#endif
