/* SPDX-License-Identifier: Apache-2.0
 *
 * What a hit is worth in time: a model of the engines that a cache serves.
 *
 * Prefill runs on `replicas` servers of its own, away from decoding (as in DistServe, OSDI 2024,
 * and Mooncake, FAST 2025), each one request at a time, first come, first served; a request goes to
 * the server that is free first.  They share the cache.
 *
 *   time to first token = queue + load + prefill
 *   load                = KV bytes of the tokens that were hit ÷ bandwidth of the link to the GPUs
 *   prefill             = FLOPs of the tokens that were missed ÷ (GPUs × FLOP/s × utilization)
 *   FLOPs               = 2 × parameters a token, and 4 × layers × heads × head size for each
 *                         token that it attends to, those that were hit included
 *   decoding            = output tokens × (weights + KV of the batch) ÷ (GPUs × memory bandwidth ×
 *                         utilization); it is told, and holds no prefill up
 *
 * A block counts as there from the arrival of the request that computes it, and loading does not
 * overlap with prefill: the one flatters all policies alike, the other is hard on hits.
 */
#ifndef WF_SIM_ENGINE_H
#define WF_SIM_ENGINE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define WF_SIM_REPLICAS_MAX 4096

/* A model's published shape, and the GPUs that one replica of it runs on. */
struct wf_sim_model {
    const char *name, *source;
    double parameters;
    uint32_t layers, heads, kv_heads, head_dim, gpus;
};
extern const struct wf_sim_model wf_sim_models[]; /* the entry after the last has no name */
const struct wf_sim_model *wf_sim_model_find(const char *name);

uint64_t wf_sim_model_kv_bytes(const struct wf_sim_model *model); /* a token's, all layers */
/* What a token's attention over `tokens` others costs, in parts of all else that it costs. */
double wf_sim_model_attention(const struct wf_sim_model *model, uint64_t tokens);

struct wf_sim_engine {
    const struct wf_sim_model *model;
    double *free_s; /* [replicas] a heap: when each server is free, the soonest first */
    uint32_t replicas;
};

struct wf_sim_served {
    double queue_s, load_s, prefill_s, decode_s;
};

enum weft_status wf_sim_engine_init(struct wf_sim_engine *engine, const struct wf_sim_model *model,
                                    uint32_t replicas);
void wf_sim_engine_fini(struct wf_sim_engine *engine);

/* Requests come in the order of time.  hit_tokens <= input_tokens. */
struct wf_sim_served wf_sim_engine_serve(struct wf_sim_engine *engine, double at_s,
                                         uint64_t input_tokens, uint64_t hit_tokens,
                                         uint32_t output_tokens);

#endif
