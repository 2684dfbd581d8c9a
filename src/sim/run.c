/* SPDX-License-Identifier: Apache-2.0
 *
 * First the cache serves the whole trace, which is timed; then the engines are modelled with the
 * hits that came of it.
 */
#include "sim/run.h"

#include <stdlib.h>
#include <time.h>

#define PROGRESS_EVERY 1024 /* requests */

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The least value that `part` of 1 of them do not exceed. */
static double percentile(const double *sorted, uint64_t count, double part)
{
    uint64_t at = (uint64_t)(part * (double)count);
    return count ? sorted[at < count ? at : count - 1] : 0;
}

static void cache_run(const struct wf_sim_plan *plan, struct wf_sim_cache *cache,
                      const struct wf_sim_progress *progress, uint32_t *hits,
                      struct wf_sim_result *result)
{
    const struct wf_sim_trace *trace = plan->world.trace;
    double spent_s = 0;
    for (uint32_t r = 0; r < trace->request_count;) {
        uint32_t end = r + PROGRESS_EVERY;
        end = end < trace->request_count ? end : trace->request_count;
        double started_s = now_s();
        for (; r < end; r++)
            hits[r] = wf_sim_cache_serve(plan->ops, cache, trace, r);
        spent_s += now_s() - started_s;
        if (progress && progress->step)
            progress->step(progress->context, (double)r / trace->request_count);
    }
    result->blocks_per_second = (double)trace->reference_count / (spent_s > 1e-9 ? spent_s : 1e-9);
}

static void engines_run(const struct wf_sim_plan *plan, struct wf_sim_engine *engine,
                        const uint32_t *hits, double *ttft_ms, struct wf_sim_result *result)
{
    const struct wf_sim_trace *trace = plan->world.trace;
    uint64_t kv_bytes = wf_sim_model_kv_bytes(plan->model);
    double decode_ms = 0, ttft_ms_sum = 0;
    for (uint32_t r = 0; r < trace->request_count; r++) {
        const struct wf_sim_request *asked = &trace->requests[r];
        /* The last token is always computed: its output is what comes first. */
        uint64_t most = asked->input_tokens ? asked->input_tokens - 1 : 0;
        uint64_t hit_tokens = (uint64_t)hits[r] * trace->block_tokens;
        hit_tokens = hit_tokens < most ? hit_tokens : most;
        struct wf_sim_served served = wf_sim_engine_serve(engine, (double)asked->at_us * 1e-6,
                                                          asked->input_tokens, hit_tokens,
                                                          asked->output_tokens);
        if (r < plan->warmup)
            continue;
        double ms = 1e3 * (served.queue_s + served.load_s + served.prefill_s);
        ttft_ms[result->requests++] = ms;
        ttft_ms_sum += ms;
        decode_ms += 1e3 * served.decode_s;
        result->blocks_requested += asked->count;
        result->blocks_hit += hits[r];
        result->prefill_tokens += asked->input_tokens - hit_tokens;
        result->prefill_tokens_saved += hit_tokens;
        result->bytes_loaded += hit_tokens * kv_bytes;
        result->bytes_stored += (asked->count - hits[r]) * trace->block_tokens * kv_bytes;
    }
    double requests = result->requests ? (double)result->requests : 1;
    qsort(ttft_ms, result->requests, sizeof *ttft_ms, compare);
    result->ttft_ms_mean = ttft_ms_sum / requests;
    result->ttft_ms_p50 = percentile(ttft_ms, result->requests, 0.50);
    result->ttft_ms_p95 = percentile(ttft_ms, result->requests, 0.95);
    result->ttft_ms_p99 = percentile(ttft_ms, result->requests, 0.99);
    result->decode_ms_mean = decode_ms / requests;
}

enum weft_status wf_sim_run(const struct wf_sim_plan *plan, const struct wf_sim_progress *progress,
                            struct wf_sim_result *out)
{
    const struct wf_sim_trace *trace = plan->world.trace;
    struct wf_sim_result result = {0};
    struct wf_sim_engine engine = {0};
    enum weft_status status = wf_sim_engine_init(&engine, plan->model, plan->replicas);
    uint32_t *hits = calloc(trace->request_count, sizeof *hits);
    double *ttft_ms = calloc(trace->request_count, sizeof *ttft_ms);
    struct wf_sim_cache *cache = plan->ops->create(&plan->world);
    if (status == WEFT_OK && (!hits || !ttft_ms || !cache))
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory to simulate %s with %u blocks",
                         plan->ops->name, plan->world.capacity);
    if (status == WEFT_OK) {
        cache_run(plan, cache, progress, hits, &result);
        engines_run(plan, &engine, hits, ttft_ms, &result);
        *out = result;
    }
    if (cache)
        plan->ops->destroy(cache);
    wf_sim_engine_fini(&engine);
    free(hits);
    free(ttft_ms);
    return status;
}
