/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/engine.h"

#include <stdlib.h>
#include <string.h>

/* NVIDIA H100 SXM5, data sheet: dense BF16, HBM3, PCIe 5.0 x16. */
#define GPU_FLOPS 989.4e12
#define GPU_MEMORY_BYTES_S 3.35e12
#define GPU_LINK_BYTES_S 64e9
/* What of that programs get.  FLOPs: 38 to 43 % in "The Llama 3 herd of models" (arXiv 2407.21783),
 * table 4; of the link, what copies of many megabytes commonly reach; of memory, what decoding at
 * large batches commonly reaches. */
#define FLOPS_USED 0.40
#define LINK_USED 0.85
#define MEMORY_USED 0.60
#define DECODE_BATCH 32
#define BYTES_A_VALUE 2 /* BF16 */

const struct wf_sim_model wf_sim_models[] = {
    {"llama-3-8b", "arXiv 2407.21783, table 3", 8.03e9, 32, 32, 8, 128, 1},
    {"llama-3-70b", "arXiv 2407.21783, table 3", 70.6e9, 80, 64, 8, 128, 8},
    {"llama-3-405b", "arXiv 2407.21783, table 3", 405.9e9, 126, 128, 8, 128, 16},
    {"qwen2.5-7b", "arXiv 2412.15115, table 1", 7.62e9, 28, 28, 4, 128, 1},
    {"qwen2.5-72b", "arXiv 2412.15115, table 1", 72.7e9, 80, 64, 8, 128, 8},
    {NULL},
};

const struct wf_sim_model *wf_sim_model_find(const char *name)
{
    for (const struct wf_sim_model *model = wf_sim_models; model->name; model++)
        if (strcmp(model->name, name) == 0)
            return model;
    return NULL;
}

uint64_t wf_sim_model_kv_bytes(const struct wf_sim_model *model)
{
    return (uint64_t)2 * BYTES_A_VALUE * model->layers * model->kv_heads * model->head_dim;
}

/* Q·K and its product with V, a multiplication and an addition each. */
static double attention_flops(const struct wf_sim_model *model, double tokens)
{
    return 4.0 * model->layers * model->heads * model->head_dim * tokens;
}

double wf_sim_model_attention(const struct wf_sim_model *model, uint64_t tokens)
{
    return attention_flops(model, (double)tokens) / (2 * model->parameters);
}

enum weft_status wf_sim_engine_init(struct wf_sim_engine *engine, const struct wf_sim_model *model,
                                    uint32_t replicas)
{
    *engine = (struct wf_sim_engine){.model = model, .replicas = replicas};
    engine->free_s = calloc(replicas, sizeof *engine->free_s);
    if (!engine->free_s)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for %u replicas", replicas);
    return WEFT_OK;
}

void wf_sim_engine_fini(struct wf_sim_engine *engine)
{
    free(engine->free_s);
    engine->free_s = NULL;
}

/* The first server is busy until then. */
static void busy_until(struct wf_sim_engine *engine, double until_s)
{
    uint32_t at = 0;
    for (;;) {
        uint32_t below = 2 * at + 1;
        if (below >= engine->replicas)
            break;
        if (below + 1 < engine->replicas && engine->free_s[below + 1] < engine->free_s[below])
            below++;
        if (engine->free_s[below] >= until_s)
            break;
        engine->free_s[at] = engine->free_s[below];
        at = below;
    }
    engine->free_s[at] = until_s;
}

struct wf_sim_served wf_sim_engine_serve(struct wf_sim_engine *engine, double at_s,
                                         uint64_t input_tokens, uint64_t hit_tokens,
                                         uint32_t output_tokens)
{
    const struct wf_sim_model *model = engine->model;
    double input = (double)input_tokens, hit = (double)hit_tokens, missed = input - hit;
    double kv_bytes = (double)wf_sim_model_kv_bytes(model), gpus = model->gpus;
    /* Token i attends to i others: the sum from the first that was missed to the last. */
    double attended = (input * input - hit * hit) / 2;
    double flops = 2 * model->parameters * missed + attention_flops(model, attended);
    double batch_bytes = BYTES_A_VALUE * model->parameters +
                         DECODE_BATCH * kv_bytes * (input + (double)output_tokens / 2);
    struct wf_sim_served served = {
        .queue_s = engine->free_s[0] > at_s ? engine->free_s[0] - at_s : 0,
        .load_s = hit * kv_bytes / (gpus * GPU_LINK_BYTES_S * LINK_USED),
        .prefill_s = flops / (gpus * GPU_FLOPS * FLOPS_USED),
        .decode_s = output_tokens * batch_bytes / (gpus * GPU_MEMORY_BYTES_S * MEMORY_USED),
    };
    busy_until(engine, at_s + served.queue_s + served.load_s + served.prefill_s);
    return served;
}
