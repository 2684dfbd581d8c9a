/* SPDX-License-Identifier: Apache-2.0
 *
 * Without tiers the cache serves the whole trace first, which is timed, and the engines are
 * modelled with the hits that came of it; with tiers all goes together.
 */
#include "sim/run.h"

#include <stdlib.h>
#include <string.h>
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

#define QUARTERS 4
#define QUEUE_MS_NOTABLE 1000

/* Of a quarter of the requests that count. */
struct waited {
    double requests, queue_ms;
};

struct run {
    const struct wf_sim_plan *plan;
    const struct wf_sim_progress *progress;
    struct wf_sim_world world;
    struct wf_sim_cache *cache;
    struct wf_sim_engine engine;
    struct wf_sim_below *below; /* NULL: neither tiers nor anybody who asks why */
    uint32_t *hits;
    double *ttft_ms, ttft_ms_sum, decode_ms;
    struct waited waited[QUARTERS];
    bool counting;
    double *scratch;   /* [requests] */
    uint32_t *counted; /* [requests] of those that count, which */
    struct wf_share shares[WF_SIM_DOMAINS_MAX];
    struct wf_sim_result result;
};

static void progress_step(const struct run *run, uint32_t r)
{
    if (run->progress && run->progress->step)
        run->progress->step(run->progress->context, (double)r / run->world.trace->request_count);
}

/* The last token is always computed: its output is what comes first. */
static uint64_t hit_tokens_of(const struct run *run, uint32_t r)
{
    const struct wf_sim_trace *trace = run->world.trace;
    uint64_t input = trace->requests[r].input_tokens, most = input ? input - 1 : 0;
    uint64_t hit = (uint64_t)run->hits[r] * trace->block_tokens;
    return hit < most ? hit : most;
}

/* The engines' part of a request of which so much is loaded. */
static void serve(struct run *run, uint32_t r, double latency_s, double data_s)
{
    const struct wf_sim_trace *trace = run->world.trace;
    const struct wf_sim_request *asked = &trace->requests[r];
    struct wf_sim_result *result = &run->result;
    uint64_t kv_bytes = wf_sim_model_kv_bytes(run->plan->model), hit = hit_tokens_of(run, r);
    struct wf_sim_work work = {.at_s = (double)asked->at_us * 1e-6,
                               .input_tokens = asked->input_tokens,
                               .hit_tokens = hit,
                               .output_tokens = asked->output_tokens,
                               .latency_s = latency_s,
                               .data_s = data_s};
    struct wf_sim_served served = wf_sim_engine_serve(&run->engine, &work);
    if (r < run->plan->warmup)
        return;
    double ms = 1e3 * (served.queue_s + served.done_s);
    struct wf_sim_domain_result *domain = &result->domain[asked->domain];
    double deadline_s = run->plan->deadline_s[asked->domain];
    domain->requests++;
    domain->blocks_requested += asked->count;
    domain->blocks_hit += run->hits[r];
    domain->ttft_ms_mean += ms; /* a sum as yet */
    domain->in_time += deadline_s > 0 && ms <= 1e3 * deadline_s;
    uint64_t counted = trace->request_count - run->plan->warmup;
    struct waited *waited = &run->waited[(r - run->plan->warmup) * (uint64_t)QUARTERS / counted];
    waited->requests++;
    waited->queue_ms += 1e3 * served.queue_s;
    run->counted[result->requests] = r;
    run->ttft_ms[result->requests++] = ms;
    run->ttft_ms_sum += ms;
    run->decode_ms += 1e3 * served.decode_s;
    result->blocks_requested += asked->count;
    result->blocks_hit += run->hits[r];
    result->prefill_tokens += asked->input_tokens - hit;
    result->prefill_tokens_saved += hit;
    result->bytes_loaded += hit * kv_bytes;
    result->bytes_stored += (asked->count - run->hits[r]) * trace->block_tokens * kv_bytes;
}

/* The cache alone; and then the engines, with the hits that came of it. */
static void flat_run(struct run *run)
{
    const struct wf_sim_trace *trace = run->world.trace;
    double spent_s = 0, token_s = (double)wf_sim_model_kv_bytes(run->plan->model) /
                                  wf_sim_model_link(run->plan->model);
    for (uint32_t r = 0; r < trace->request_count;) {
        uint32_t end = r + PROGRESS_EVERY;
        end = end < trace->request_count ? end : trace->request_count;
        double started_s = now_s();
        for (; r < end; r++) {
            run->counting = r >= run->plan->warmup;
            run->hits[r] = wf_sim_cache_serve(run->plan->ops, run->cache, trace, r);
        }
        spent_s += now_s() - started_s;
        progress_step(run, r);
    }
    run->result.blocks_per_second = (double)trace->reference_count /
                                    (spent_s > 1e-9 ? spent_s : 1e-9);
    for (uint32_t r = 0; r < trace->request_count; r++)
        serve(run, r, 0, (double)hit_tokens_of(run, r) * token_s);
}

/* A domain is in a hurry when what is queued leaves too little of its deadline for prefill of all
 * that its request has. */
static void hurry(struct run *run, uint32_t r)
{
    const struct wf_sim_request *asked = &run->world.trace->requests[r];
    double deadline_s = run->plan->deadline_s[asked->domain];
    double queue_s = wf_sim_engine_queue(&run->engine, (double)asked->at_us * 1e-6);
    double prefill_s = wf_prefill_s(wf_sim_model_prefill(run->plan->model), 0,
                                    (double)asked->input_tokens);
    run->shares[asked->domain].hurried = deadline_s > 0 && queue_s + prefill_s > deadline_s;
}

static void held_add(struct run *run)
{
    for (uint32_t i = 0; run->world.shares && run->counting && i < run->world.trace->domain_count;
         i++)
        run->result.domain[i].held_mean += run->plan->ops->held(run->cache, i);
}

/* What is loaded and what computed depends on how busy engines and tiers are: all in one. */
static void tiered_run(struct run *run)
{
    const struct wf_sim_trace *trace = run->world.trace;
    double started_s = now_s();
    for (uint32_t r = 0; r < trace->request_count; r++) {
        const struct wf_sim_request *asked = &trace->requests[r];
        uint32_t hits = 0;
        struct wf_cut cut;
        while (hits < asked->count &&
               run->plan->ops->holds(run->cache, trace->blocks[asked->first + hits]))
            hits++;
        run->counting = r >= run->plan->warmup;
        wf_sim_below_count(run->below, run->counting);
        hurry(run, r);
        wf_sim_below_request(run->below, r, hits,
                             wf_sim_engine_queue(&run->engine, (double)asked->at_us * 1e-6), &cut);
        wf_sim_cache_serve(run->plan->ops, run->cache, trace, r);
        wf_sim_below_served(run->below, r);
        held_add(run);
        run->hits[r] = cut.load_blocks;
        serve(run, r, cut.latency_s, cut.data_s);
        if (r % PROGRESS_EVERY == 0)
            progress_step(run, r);
    }
    double spent_s = now_s() - started_s;
    run->result.blocks_per_second = (double)trace->reference_count /
                                    (spent_s > 1e-9 ? spent_s : 1e-9);
    wf_sim_below_result(run->below, &run->result.below);
}

/* `scratch` has room for all that counted. */
static void domain_percentiles(struct run *run, uint32_t number, double *scratch)
{
    const struct wf_sim_trace *trace = run->world.trace;
    struct wf_sim_domain_result *domain = &run->result.domain[number];
    uint64_t count = 0;
    for (uint64_t i = 0; i < run->result.requests; i++)
        if (trace->requests[run->counted[i]].domain == number)
            scratch[count++] = run->ttft_ms[i];
    if (!count)
        return;
    qsort(scratch, count, sizeof *scratch, compare);
    domain->ttft_ms_mean /= (double)count;
    domain->ttft_ms_p50 = percentile(scratch, count, 0.50);
    domain->ttft_ms_p99 = percentile(scratch, count, 0.99);
    domain->held_mean /= (double)run->result.requests;
}

/* Where more comes than is served the queue is in each quarter longer than in the one before, and
 * by about as much: as 1, 3, 5 and 7. */
static bool is_overloaded(const struct run *run)
{
    double before = 0, means[QUARTERS];
    for (int i = 0; i < QUARTERS; i++) {
        means[i] = run->waited[i].requests > 0 ? run->waited[i].queue_ms / run->waited[i].requests
                                               : 0;
        if (means[i] <= before)
            return false;
        before = means[i];
    }
    return means[QUARTERS - 1] > 2 * means[1] && means[QUARTERS - 1] > QUEUE_MS_NOTABLE;
}

static void percentiles(struct run *run)
{
    struct wf_sim_result *result = &run->result;
    if (run->world.trace->domain_count > 1)
        for (uint32_t i = 0; i < run->world.trace->domain_count; i++)
            domain_percentiles(run, i, run->scratch);
    double requests = result->requests ? (double)result->requests : 1;
    qsort(run->ttft_ms, result->requests, sizeof *run->ttft_ms, compare);
    result->ttft_ms_mean = run->ttft_ms_sum / requests;
    result->ttft_ms_p50 = percentile(run->ttft_ms, result->requests, 0.50);
    result->ttft_ms_p95 = percentile(run->ttft_ms, result->requests, 0.95);
    result->ttft_ms_p99 = percentile(run->ttft_ms, result->requests, 0.99);
    result->overloaded = is_overloaded(run);
    result->decode_ms_mean = run->decode_ms / requests;
}

static void gone(void *context, uint32_t block, const struct wf_policy_reason *why)
{
    struct run *run = context;
    wf_sim_below_gone(run->below, block, why);
}

/* Where nothing lies below it is computed again. */
static float cost_s_gib(void *context, uint32_t block)
{
    const struct run *run = context;
    const struct wf_sim_trace *trace = run->world.trace;
    double tokens = trace->block_tokens;
    double gib = tokens * (double)wf_sim_model_kv_bytes(run->plan->model) / 0x1p30;
    double again_s = run->below ? wf_sim_below_again_s(run->below, block)
                                : wf_prefill_s(wf_sim_model_prefill(run->plan->model),
                                               tokens * trace->depth[block], tokens);
    return (float)(again_s / gib);
}

static void gave(void *context, uint32_t to, const struct wf_share_verdict *verdict)
{
    struct run *run = context;
    run->result.domain[verdict->who].gave += run->counting && verdict->who != to;
    wf_sim_below_gave(run->below, verdict);
}

static void full(void *context, uint32_t count, float bar)
{
    struct run *run = context;
    run->result.blocks_refused += run->counting ? count : 0;
    if (run->below)
        wf_sim_below_full(run->below, count, bar);
}

static bool make(struct run *run)
{
    const struct wf_sim_plan *plan = run->plan;
    run->world = plan->world;
    if (plan->tier_count || plan->log || plan->world.shares) {
        struct wf_sim_below_plan below = {.tiers = plan->tiers,
                                          .count = plan->tier_count,
                                          .stage = plan->tier_count ? plan->stage : 0,
                                          .always = plan->admit_always,
                                          .trace = plan->world.trace,
                                          .model = plan->model,
                                          .hints = plan->world.hints,
                                          .speed = plan->world.speed};
        run->below = wf_sim_below_create(&below, plan->log);
        if (!run->below)
            return false;
        run->world.capacity -= below.stage;
        run->world.gone = gone;
        run->world.gave = gave;
    }
    run->world.context = run;
    run->world.full = full;
    run->world.below = plan->tier_count > 0;
    run->world.cost_s_gib = plan->by_cost ? cost_s_gib : NULL;
    if (plan->world.shares) {
        memcpy(run->shares, plan->world.shares,
               plan->world.trace->domain_count * sizeof *run->shares);
        run->world.shares = run->shares;
    }
    run->hits = calloc(plan->world.trace->request_count, sizeof *run->hits);
    run->ttft_ms = calloc(plan->world.trace->request_count, sizeof *run->ttft_ms);
    run->scratch = calloc(plan->world.trace->request_count, sizeof *run->scratch);
    run->counted = calloc(plan->world.trace->request_count, sizeof *run->counted);
    run->cache = plan->ops->create(&run->world);
    if (run->below && run->cache)
        wf_sim_below_pool(run->below, run->cache, plan->ops->holds);
    return run->hits && run->ttft_ms && run->scratch && run->counted && run->cache;
}

enum weft_status wf_sim_run(const struct wf_sim_plan *plan, const struct wf_sim_progress *progress,
                            struct wf_sim_result *out)
{
    struct run run = {.plan = plan, .progress = progress};
    enum weft_status status = wf_sim_engine_init(&run.engine, plan->model, plan->replicas);
    if (status == WEFT_OK && !make(&run))
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory to simulate %s with %u blocks",
                         plan->ops->name, plan->world.capacity);
    if (status == WEFT_OK) {
        (run.below ? tiered_run : flat_run)(&run);
        percentiles(&run);
        /* What lies below may have been loaded without room for it; so it was never to be stored.
         */
        if (!plan->tier_count)
            run.result.bytes_stored -= run.result.blocks_refused * plan->world.trace->block_tokens *
                                       wf_sim_model_kv_bytes(plan->model);
        *out = run.result;
    }
    if (run.cache)
        plan->ops->destroy(run.cache);
    wf_sim_below_destroy(run.below);
    wf_sim_engine_fini(&run.engine);
    free(run.hits);
    free(run.ttft_ms);
    free(run.scratch);
    free(run.counted);
    return status;
}
