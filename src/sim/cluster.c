/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cluster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/places.h"
#include "core/route.h"

#define REPORT_S 0.25
#define PROGRESS_EVERY 1024 /* requests */

/* What a cache is told of goes through here, so that it knows whose it is. */
struct node {
    struct cluster *cluster;
    uint16_t number;
    struct wf_sim_world world;
    struct wf_sim_cache *cache;
    struct wf_sim_engine engine;
    double reported_s;
    double in_free_s, out_free_s; /* its way to the others, in and out */
    uint64_t served;
};

struct cluster {
    const struct wf_sim_cluster_plan *plan;
    uint32_t count; /* of nodes */
    struct node *nodes;
    struct wf_places *places;
    struct wf_route *route;
    uint8_t (*keys)[32]; /* [chain_max] of the request that runs */
    struct wf_route_node *candidates;
    struct wf_route_term *terms;
    uint32_t held;   /* blocks that somebody holds */
    uint64_t copies; /* of all of them */
    double copies_sum;
    double *ttft_ms, *route_us;
    uint64_t routed, moved;
    struct wf_sim_cluster_result result;
};

const char *wf_sim_cluster_name(enum wf_sim_cluster_how how)
{
    static const char *const names[] = {"one", "rounds", "affinity", "fabric"};
    return names[how];
}

/* A block's key, as good as any. */
static void key_of(const struct cluster *c, uint32_t block, uint8_t key[32])
{
    uint64_t state = (block + 1) * 0x2545f4914f6cdd1du + c->plan->seed;
    for (int i = 0; i < 4; i++) {
        state += 0x9e3779b97f4a7c15u;
        uint64_t x = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
        x ^= x >> 31;
        memcpy(key + 8 * i, &x, 8);
    }
}

static void gone(void *context, uint32_t block, const struct wf_policy_reason *why)
{
    struct node *node = context;
    struct cluster *c = node->cluster;
    uint8_t key[32];
    (void)why;
    key_of(c, block, key);
    if (!wf_places_remove(c->places, key, node->number))
        return;
    c->copies--;
    c->held -= wf_places_count(c->places, key, 1) == 0;
}

/* What the node has now of the request that it served. */
static void know(struct cluster *c, const struct node *node, uint32_t r)
{
    const struct wf_sim_trace *trace = c->plan->trace;
    const struct wf_sim_request *asked = &trace->requests[r];
    for (uint32_t i = 0; i < asked->count; i++) {
        if (!wf_sim_weft.holds(node->cache, trace->blocks[asked->first + i]))
            break;
        if (wf_places_holds(c->places, c->keys[i], node->number))
            continue;
        bool new = wf_places_count(c->places, c->keys[i], 1) == 0;
        if (wf_places_add(c->places, c->keys[i], node->number)) {
            c->held += new;
            c->copies++;
        }
    }
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static struct wf_route_way way(void *context, uint32_t from, uint32_t to)
{
    const struct cluster *c = context;
    (void)from;
    (void)to;
    return (struct wf_route_way){c->plan->link_latency_s, c->plan->link_bytes_s, 0};
}

static void report(struct cluster *c, double now_s)
{
    for (uint32_t n = 0; n < c->count; n++) {
        struct node *node = &c->nodes[n];
        if (now_s - node->reported_s < REPORT_S)
            continue;
        double token_s = wf_sim_model_prefill(c->plan->model).token_s;
        const struct wf_route_load load = {.queued_tokens =
                                               wf_sim_engine_queue(&node->engine, now_s) / token_s,
                                           .tokens_s = 1 / token_s};
        wf_route_report(c->route, (uint16_t)n, &load, now_s);
        node->reported_s = now_s;
    }
}

/* Where the request goes, and what of it is there then. */
static void choose(struct cluster *c, uint32_t r, double now_s, struct wf_route_answer *out)
{
    const struct wf_sim_request *asked = &c->plan->trace->requests[r];
    double tokens = c->plan->trace->block_tokens;
    const struct wf_route_links links = {way, c};
    const struct wf_route_request request = {.id = r,
                                             .tokens = (double)asked->input_tokens,
                                             .block_tokens = tokens,
                                             .block_bytes = tokens * (double)wf_sim_model_kv_bytes(
                                                                         c->plan->model),
                                             .layers = c->plan->model->layers,
                                             .prefill = wf_sim_model_prefill(c->plan->model),
                                             .output_tokens = asked->output_tokens};
    report(c, now_s);
    double began_us = now_us();
    wf_route_look(c->route, c->places, NULL, (const uint8_t(*)[32])c->keys, asked->count,
                  c->candidates, c->count);
    wf_route_choose(c->route, &request, c->candidates, c->count, &links, now_s, c->terms, out);
    c->route_us[c->routed++] = now_us() - began_us;
    wf_route_sent(c->route, c->candidates, out, (const uint8_t(*)[32])c->keys, asked->count, now_s);
}

/* What it has, if that is at least half of it; so do routers that go by prefixes (SGLang), since
 * else all that begin alike would go to one node. */
static uint32_t half_of(const struct cluster *c, uint32_t n, uint32_t count)
{
    uint32_t has = c->candidates[n].held_blocks;
    return 2 * has >= count ? has : 0;
}

/* By the other rules: nothing is fetched, and all that is there is loaded. */
static void choose_simply(struct cluster *c, uint32_t r, double now_s, struct wf_route_answer *out)
{
    const struct wf_sim_request *asked = &c->plan->trace->requests[r];
    uint32_t best = c->plan->how == WF_SIM_ROUNDS ? r % c->count : 0;
    wf_route_look(c->route, c->places, NULL, (const uint8_t(*)[32])c->keys, asked->count,
                  c->candidates, c->count);
    for (uint32_t n = 1; n < c->count && c->plan->how == WF_SIM_AFFINITY; n++) {
        uint32_t has = half_of(c, n, asked->count), most = half_of(c, best, asked->count);
        if (has > most || (has == most && wf_sim_engine_queue(&c->nodes[n].engine, now_s) <
                                              wf_sim_engine_queue(&c->nodes[best].engine, now_s)))
            best = n;
    }
    *out = (struct wf_route_answer){.chosen = best,
                                    .term = {.source = WF_ROUTE_NONE,
                                             .load_blocks = c->candidates[best].held_blocks}};
}

/* The engine's part.  Returns the time to the first token. */
static double compute(struct cluster *c, uint32_t r, double now_s,
                      const struct wf_route_answer *answer)
{
    const struct wf_sim_trace *trace = c->plan->trace;
    const struct wf_sim_request *asked = &trace->requests[r];
    struct node *node = &c->nodes[answer->chosen];
    uint64_t most = asked->input_tokens ? asked->input_tokens - 1 : 0;
    uint64_t hit = (uint64_t)answer->term.load_blocks * trace->block_tokens;
    double kv_bytes = (double)wf_sim_model_kv_bytes(c->plan->model);
    struct wf_sim_work work = {.at_s = now_s,
                               .input_tokens = asked->input_tokens,
                               .hit_tokens = hit < most ? hit : most,
                               .output_tokens = asked->output_tokens};
    work.data_s = (double)work.hit_tokens * kv_bytes / wf_sim_model_link(c->plan->model);
    if (answer->term.fetch_blocks) {
        struct node *source = &c->nodes[answer->term.source];
        double fetch_s = answer->term.fetch_blocks * trace->block_tokens * kv_bytes /
                         c->plan->link_bytes_s;
        double begin_s = fmax(now_s, fmax(source->out_free_s, node->in_free_s));
        source->out_free_s = node->in_free_s = begin_s + fetch_s;
        work.latency_s = begin_s - now_s + c->plan->link_latency_s;
        work.data_s = fmax(work.data_s, fetch_s);
    }
    struct wf_sim_served served = wf_sim_engine_serve(&node->engine, &work);
    return served.queue_s + served.done_s;
}

static void serve(struct cluster *c, uint32_t r)
{
    const struct wf_sim_trace *trace = c->plan->trace;
    const struct wf_sim_request *asked = &trace->requests[r];
    double now_s = (double)asked->at_us * 1e-6;
    struct wf_route_answer answer;
    for (uint32_t i = 0; i < asked->count; i++)
        key_of(c, trace->blocks[asked->first + i], c->keys[i]);
    (c->plan->how == WF_SIM_FABRIC ? choose : choose_simply)(c, r, now_s, &answer);
    struct node *node = &c->nodes[answer.chosen];
    double ttft_s = compute(c, r, now_s, &answer);
    (void)wf_sim_cache_serve(&wf_sim_weft, node->cache, trace, r);
    know(c, node, r);
    if (answer.term.fetch_blocks) {
        const uint32_t *blocks = trace->blocks + asked->first;
        uint32_t last = answer.term.load_blocks, first = last - answer.term.fetch_blocks;
        while (last > first && !wf_sim_weft.holds(node->cache, blocks[last - 1]))
            last--;
        c->moved += wf_sim_weft_moved(c->nodes[answer.term.source].cache, blocks, first, last);
    }
    if (r < c->plan->warmup)
        return;
    node->served++;
    c->ttft_ms[c->result.requests++] = 1e3 * ttft_s;
    c->result.ttft_ms_mean += 1e3 * ttft_s; /* a sum as yet */
    c->result.blocks_requested += asked->count;
    c->result.blocks_hit += answer.term.load_blocks;
    c->result.blocks_fetched += answer.term.fetch_blocks;
    c->result.fetches += answer.term.fetch_blocks > 0;
    c->copies_sum += c->held ? (double)c->copies / c->held : 1;
}

static bool node_make(struct cluster *c, uint32_t number)
{
    struct node *node = &c->nodes[number];
    uint32_t first = (uint32_t)((uint64_t)c->plan->capacity * number / c->count);
    uint32_t last = (uint32_t)((uint64_t)c->plan->capacity * (number + 1) / c->count);
    node->cluster = c;
    node->number = (uint16_t)number;
    node->reported_s = -INFINITY;
    node->world = (struct wf_sim_world){.trace = c->plan->trace,
                                        .capacity = last - first,
                                        .seed = c->plan->seed,
                                        .speed = c->plan->speed,
                                        .gone = gone,
                                        .context = node};
    node->cache = wf_sim_weft.create(&node->world);
    return node->cache &&
           wf_sim_engine_init(&node->engine, c->plan->model, c->plan->nodes / c->count) == WEFT_OK;
}

static enum weft_status make(struct cluster *c)
{
    const struct wf_sim_cluster_plan *plan = c->plan;
    uint32_t requests = plan->trace->request_count, chain = plan->trace->chain_max;
    const struct wf_places_options places = {plan->capacity + 1u, c->count, plan->seed};
    const struct wf_route_options route = {.nodes_max = c->count,
                                           .seed = plan->seed,
                                           .work_price = -1,
                                           .tie_part = -1,
                                           .home_price = -1,
                                           .coming_s = -1};
    enum weft_status status = wf_places_create(&places, &c->places);
    if (status == WEFT_OK)
        status = wf_route_create(&route, &c->route);
    if (status != WEFT_OK)
        return status;
    c->nodes = calloc(c->count, sizeof *c->nodes);
    c->keys = calloc(chain + 1u, sizeof *c->keys);
    c->candidates = calloc(c->count, sizeof *c->candidates);
    c->terms = calloc(c->count, sizeof *c->terms);
    c->ttft_ms = calloc(requests, sizeof *c->ttft_ms);
    c->route_us = calloc(requests, sizeof *c->route_us);
    bool made = c->nodes && c->keys && c->candidates && c->terms && c->ttft_ms && c->route_us;
    for (uint32_t n = 0; n < c->count && made; n++) {
        made = node_make(c, n);
        c->candidates[n] = (struct wf_route_node){.node = (uint16_t)n,
                                                  .serves = true,
                                                  .host = {0, wf_sim_model_link(plan->model), 0}};
    }
    return made ? WEFT_OK
                : wf_fail(WEFT_E_NO_MEMORY, "no memory to simulate %u nodes with %u blocks",
                          plan->nodes, plan->capacity);
}

static void unmake(struct cluster *c)
{
    for (uint32_t n = 0; c->nodes && n < c->count; n++) {
        if (c->nodes[n].cache)
            wf_sim_weft.destroy(c->nodes[n].cache);
        wf_sim_engine_fini(&c->nodes[n].engine);
    }
    wf_places_destroy(c->places);
    wf_route_destroy(c->route);
    free(c->nodes);
    free(c->keys);
    free(c->candidates);
    free(c->terms);
    free(c->ttft_ms);
    free(c->route_us);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double *values, uint64_t count, double part)
{
    qsort(values, count, sizeof *values, compare);
    uint64_t at = (uint64_t)(part * (double)count);
    return count ? values[at < count ? at : count - 1] : 0;
}

static void sum_up(struct cluster *c)
{
    struct wf_sim_cluster_result *result = &c->result;
    double requests = result->requests ? (double)result->requests : 1;
    uint64_t most = 0;
    for (uint32_t n = 0; n < c->count; n++)
        most = c->nodes[n].served > most ? c->nodes[n].served : most;
    result->busiest = (double)most * c->count / requests;
    result->copies_mean = c->copies_sum / requests;
    result->ttft_ms_mean /= requests;
    result->ttft_ms_p50 = percentile(c->ttft_ms, result->requests, 0.5);
    result->ttft_ms_p99 = percentile(c->ttft_ms, result->requests, 0.99);
    result->route_us_p50 = percentile(c->route_us, c->routed, 0.5);
}

enum weft_status wf_sim_cluster_run(const struct wf_sim_cluster_plan *plan,
                                    const struct wf_sim_progress *progress,
                                    struct wf_sim_cluster_result *out)
{
    struct cluster c = {.plan = plan, .count = plan->how == WF_SIM_ONE ? 1 : plan->nodes};
    if (!plan->nodes || plan->nodes > WF_SIM_NODES_MAX || plan->capacity < plan->nodes)
        return wf_fail(WEFT_E_INVALID,
                       "%u nodes with %u blocks together; 1 to %u nodes, of a "
                       "block each at least",
                       plan->nodes, plan->capacity, WF_SIM_NODES_MAX);
    enum weft_status status = make(&c);
    for (uint32_t r = 0; r < plan->trace->request_count && status == WEFT_OK; r++) {
        serve(&c, r);
        if (progress && progress->step && r % PROGRESS_EVERY == 0)
            progress->step(progress->context, (double)r / plan->trace->request_count);
    }
    if (status == WEFT_OK) {
        sum_up(&c);
        *out = c.result;
    }
    unmake(&c);
    return status;
}
