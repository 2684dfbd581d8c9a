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

/* Keys and values of so many heads of 128. */
#define GQA(heads) (2 * (heads)*128), 128, 128
#define BF16(parameters) (parameters), (2 * (parameters))

/* DeepSeek-V3 (section 4.2): of 671 billion parameters, in FP8, 37 are activated; the cache holds a
 * latent of 512 and a rotary key of 64; keys have 128 + 64, values 128; 32 GPUs are its smallest
 * unit for prefill (section 3.4.1). */
const struct wf_sim_model wf_sim_models[] = {
    {"llama-3-8b", "arXiv 2407.21783, table 3", BF16(8.03e9), 32, 32, GQA(8), 1},
    {"llama-3-70b", "arXiv 2407.21783, table 3", BF16(70.6e9), 80, 64, GQA(8), 8},
    {"llama-3-405b", "arXiv 2407.21783, table 3", BF16(405.9e9), 126, 128, GQA(8), 16},
    {"qwen2.5-7b", "arXiv 2412.15115, table 1", BF16(7.62e9), 28, 28, GQA(4), 1},
    {"qwen2.5-32b", "arXiv 2412.15115, table 1", BF16(32.5e9), 64, 40, GQA(8), 4},
    {"qwen2.5-72b", "arXiv 2412.15115, table 1", BF16(72.7e9), 80, 64, GQA(8), 8},
    {"deepseek-v3", "arXiv 2412.19437, section 4.2", 37e9, 671e9, 61, 128, 576, 192, 128, 32},
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
    return (uint64_t)BYTES_A_VALUE * model->layers * model->kv_values;
}

/* Q·K and its product with V, a multiplication and an addition each. */
static double attention_flops(const struct wf_sim_model *model, double tokens)
{
    return 2.0 * model->layers * model->heads * (model->qk_dim + model->v_dim) * tokens;
}

double wf_sim_model_attention(const struct wf_sim_model *model, uint64_t tokens)
{
    return attention_flops(model, (double)tokens) / (2 * model->parameters);
}

struct wf_prefill wf_sim_model_prefill(const struct wf_sim_model *model)
{
    double flops_s = model->gpus * GPU_FLOPS * FLOPS_USED;
    return (struct wf_prefill){2 * model->parameters / flops_s,
                               attention_flops(model, 1) / flops_s};
}

double wf_sim_model_link(const struct wf_sim_model *model)
{
    return model->gpus * GPU_LINK_BYTES_S * LINK_USED;
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

double wf_sim_engine_queue(const struct wf_sim_engine *engine, double at_s)
{
    return engine->free_s[0] > at_s ? engine->free_s[0] - at_s : 0;
}

struct wf_sim_served wf_sim_engine_serve(struct wf_sim_engine *engine,
                                         const struct wf_sim_work *work)
{
    const struct wf_sim_model *model = engine->model;
    double input = (double)work->input_tokens, hit = (double)work->hit_tokens;
    double batch_bytes = model->weight_bytes + DECODE_BATCH * (double)wf_sim_model_kv_bytes(model) *
                                                   (input + (double)work->output_tokens / 2);
    struct wf_sim_served served = {
        .queue_s = wf_sim_engine_queue(engine, work->at_s),
        .prefill_s = wf_prefill_s(wf_sim_model_prefill(model), hit, input - hit),
        .decode_s = work->output_tokens * batch_bytes /
                    (model->gpus * GPU_MEMORY_BYTES_S * MEMORY_USED),
    };
    served.done_s = served.prefill_s;
    if (work->hit_tokens)
        served.done_s = wf_overlap_s(work->latency_s - served.queue_s, work->data_s,
                                     served.prefill_s, model->layers);
    busy_until(engine, work->at_s + served.queue_s + served.done_s);
    return served;
}
