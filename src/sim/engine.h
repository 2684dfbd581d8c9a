/* SPDX-License-Identifier: Apache-2.0
 *
 * What a hit is worth in time: a model of the engines that a cache serves.
 *
 * Prefill runs on `replicas` servers of its own, away from decoding (as in DistServe, OSDI 2024,
 * and Mooncake, FAST 2025), each one request at a time, first come, first served; a request goes to
 * the server that is free first.  They share the cache.
 *
 *   time to first token = queue + prefill, and what of loading prefill cannot hide
 *   load                = KV bytes of the tokens that were hit ÷ bandwidth of the link to the GPUs,
 *                         or of what lies below, if that is slower
 *   prefill             = FLOPs of the tokens that were missed ÷ (GPUs × FLOP/s × utilization)
 *   FLOPs               = 2 × parameters a token, and 2 × layers × heads × (size of a key + of a
 *                         value) for each token that it attends to, those that were hit included
 *   decoding            = output tokens × (weights + KV of the batch) ÷ (GPUs × memory bandwidth ×
 *                         utilization); it is told, and holds no prefill up
 *
 * Loading begins when the request arrives, queued or not, and layer i of it is all that layer i of
 * prefill waits for (core/placement.h has the formula): so Weft's clients do it, with
 * WEFT_LAYER_ORDER.  A block counts as there from the arrival of the request that computes it,
 * which flatters all policies alike.
 */
#ifndef WF_SIM_ENGINE_H
#define WF_SIM_ENGINE_H

#include "base/status.h"
#include "core/placement.h"

#include <stdbool.h>
#include <stdint.h>

#define WF_SIM_REPLICAS_MAX 4096

/* A model's published shape, and the GPUs that one replica of it runs on. */
struct wf_sim_model {
    const char *name, *source;
    double parameters;   /* that a token passes */
    double weight_bytes; /* of all, those that a batch reads for each token */
    uint32_t layers, heads;
    uint32_t kv_values;     /* cached for a token, a layer */
    uint32_t qk_dim, v_dim; /* a head */
    uint32_t gpus;
};
extern const struct wf_sim_model wf_sim_models[]; /* the entry after the last has no name */
const struct wf_sim_model *wf_sim_model_find(const char *name);

uint64_t wf_sim_model_kv_bytes(const struct wf_sim_model *model); /* a token's, all layers */
/* What a token's attention over `tokens` others costs, in parts of all else that it costs. */
double wf_sim_model_attention(const struct wf_sim_model *model, uint64_t tokens);
struct wf_prefill wf_sim_model_prefill(const struct wf_sim_model *model);
/* Bytes a second from the host's memory into its GPUs. */
double wf_sim_model_link(const struct wf_sim_model *model);

struct wf_sim_engine {
    const struct wf_sim_model *model;
    double *free_s; /* [replicas] a heap: when each server is free, the soonest first */
    uint32_t replicas;
};

/* A request: what of it is loaded, and how long that takes from its arrival on. */
struct wf_sim_work {
    double at_s;
    uint64_t input_tokens, hit_tokens;
    uint32_t output_tokens;
    double latency_s, data_s; /* until the first byte comes; then until the last */
};

struct wf_sim_served {
    double queue_s, prefill_s, decode_s;
    double done_s; /* from the end of the queue to the first token: prefill, and waits for loads */
};

enum weft_status wf_sim_engine_init(struct wf_sim_engine *engine, const struct wf_sim_model *model,
                                    uint32_t replicas);
void wf_sim_engine_fini(struct wf_sim_engine *engine);

double wf_sim_engine_queue(const struct wf_sim_engine *engine, double at_s); /* seconds */
/* Requests come in the order of time.  hit_tokens <= input_tokens. */
struct wf_sim_served wf_sim_engine_serve(struct wf_sim_engine *engine,
                                         const struct wf_sim_work *work);

#endif
