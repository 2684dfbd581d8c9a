/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/ahead.h"

#include <math.h>
#include <stdlib.h>

#include "sim/tiers_state.h"

#define LOOK_LEAST_S 0.1

bool wf_sim_ahead_init(struct wf_sim_below *below)
{
    struct ahead *ahead = &below->ahead;
    const struct wf_sim_trace *trace = below->plan.trace;
    if (!below->plan.stage)
        return true;
    ahead->due_s = calloc((size_t)trace->request_count + 1, sizeof *ahead->due_s);
    ahead->said_s = calloc((size_t)trace->request_count + 1, sizeof *ahead->said_s);
    ahead->said_of = calloc((size_t)trace->request_count + 1, sizeof *ahead->said_of);
    ahead->ready_s = calloc((size_t)trace->block_count + 1, sizeof *ahead->ready_s);
    ahead->until_s = calloc((size_t)trace->block_count + 1, sizeof *ahead->until_s);
    ahead->queue = calloc(below->plan.stage, sizeof *ahead->queue);
    return wf_sim_heap_init(&ahead->due, trace->request_count, trace->request_count) &&
           ahead->due_s && ahead->said_s && ahead->said_of && ahead->ready_s && ahead->until_s &&
           ahead->queue;
}

void wf_sim_ahead_fini(struct wf_sim_below *below)
{
    if (below->plan.stage)
        wf_sim_heap_fini(&below->ahead.due);
    free(below->ahead.due_s);
    free(below->ahead.said_s);
    free(below->ahead.said_of);
    free(below->ahead.ready_s);
    free(below->ahead.until_s);
    free(below->ahead.queue);
}

void wf_sim_ahead_cheapest(struct wf_sim_below *below, uint32_t block)
{
    const struct wf_sim_tier *near_by = below->tiers[0].spec;
    double saved_s = fmin(wf_sim_below_recompute_s(below, block),
                          below->block_bytes / near_by->read_bytes_s);
    wf_ahead_went(&below->ahead.known, below->blocks[block].reuse.rate, saved_s,
                  below->block_bytes);
}

/* ---------------------------------------------------------------------------------------- stage */

bool wf_sim_ahead_ready(const struct wf_sim_below *below, uint32_t block)
{
    double ready_s = below->plan.stage ? below->ahead.ready_s[block] : 0;
    return ready_s > 0 && ready_s <= below->now_s;
}

void wf_sim_ahead_used(struct wf_sim_below *below, uint32_t block, bool loaded)
{
    if (!below->plan.stage || !(below->ahead.ready_s[block] > 0))
        return;
    bool in_time = loaded && wf_sim_ahead_ready(below, block);
    below->result.staged_hit += below->counted && in_time;
    below->ahead.ready_s[block] = 0;
}

/* Room for so many: what was used, and what nobody came for, leaves the stage. */
static bool room_make(struct wf_sim_below *below, uint32_t blocks)
{
    struct ahead *ahead = &below->ahead;
    for (uint32_t left = ahead->count; left > 0 && ahead->count + blocks > below->plan.stage;
         left--) {
        uint32_t oldest = ahead->queue[ahead->first];
        ahead->first = (ahead->first + 1) % below->plan.stage;
        ahead->count--;
        if (!(ahead->ready_s[oldest] > 0))
            continue;
        if (ahead->until_s[oldest] < below->now_s)
            ahead->ready_s[oldest] = 0;
        else /* it stays, behind the others */
            ahead->queue[(ahead->first + ahead->count++) % below->plan.stage] = oldest;
    }
    return ahead->count + blocks <= below->plan.stage;
}

static void stage(struct wf_sim_below *below, uint32_t block, double ready_s, double until_s)
{
    struct ahead *ahead = &below->ahead;
    ahead->queue[(ahead->first + ahead->count++) % below->plan.stage] = block;
    ahead->ready_s[block] = ready_s;
    ahead->until_s[block] = until_s;
    below->result.staged += below->counted;
}

/* ------------------------------------------------------------------------------------ decisions */

/* Blocks of the request that lie below alone, and how long it takes to bring them up. */
static uint32_t below_alone(struct wf_sim_below *below, uint32_t r, double *load_s, double *saved_s)
{
    const struct wf_sim_request *asked = &below->plan.trace->requests[r];
    double bytes[WF_SIM_TIERS_MAX] = {0};
    uint32_t count = 0;
    *load_s = *saved_s = 0;
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t block = below->plan.trace->blocks[asked->first + i];
        if (below->in_pool(below->pool, block) || below->ahead.ready_s[block] > 0)
            continue;
        int tier = wf_sim_below_where(below, block);
        if (tier < 0)
            break;
        bytes[tier] += below->block_bytes;
        *saved_s += wf_sim_below_recompute_s(below, block);
        count++;
    }
    for (int i = 0; i < below->plan.count; i++) {
        struct wf_place place;
        wf_sim_below_place(below, i, &place);
        if (bytes[i] > 0)
            *load_s = fmax(*load_s,
                           place.read_queue_s + place.latency_s + bytes[i] / place.read_bytes_s);
    }
    /* Without it somebody would load, or compute if that is sooner. */
    *saved_s = fmin(*load_s, *saved_s);
    return count;
}

static bool decide(struct wf_sim_below *below, uint32_t r, struct wf_prefetch *out,
                   uint32_t *blocks)
{
    struct wf_fetch fetch = {.room_s_byte_s = below->ahead.known.room};
    *blocks = below_alone(below, r, &fetch.load_s, &fetch.saved_s);
    fetch.bytes = *blocks * below->block_bytes;
    struct wf_return back = wf_ahead_return(&below->ahead.known, below->ahead.due_s[r],
                                            below->ahead.said_s[r]);
    wf_prefetch_decide(&back, &fetch, below->now_s, out);
    return *blocks && out->rule == WF_PREFETCH_NOW && room_make(below, *blocks);
}

static void fetch_now(struct wf_sim_below *below, uint32_t r)
{
    const struct wf_sim_request *asked = &below->plan.trace->requests[r];
    double said_s = below->ahead.said_s[r];
    double until_s = below->ahead.due_s[r] + wf_ahead_patience_s(&below->ahead.known, said_s);
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t block = below->plan.trace->blocks[asked->first + i];
        if (below->in_pool(below->pool, block) || below->ahead.ready_s[block] > 0)
            continue;
        int tier = wf_sim_below_where(below, block);
        if (tier < 0)
            break;
        stage(below, block, wf_sim_below_read_ahead(below, tier), until_s);
    }
}

/* The session of `r` is looked at: it may be back already, or wait a little longer. */
static void look(struct wf_sim_below *below, uint32_t r)
{
    struct wf_sim_event event = {.kind = WF_SIM_FETCHED,
                                 .block = WF_SIM_NONE,
                                 .from = -1,
                                 .place = -1};
    double left_s = below->ahead.due_s[r] - below->now_s;
    bool now = decide(below, r, &event.prefetch, &event.blocks);
    if (event.prefetch.rule == WF_PREFETCH_LATER) {
        wf_sim_heap_set(&below->ahead.due, r, fmax(event.prefetch.begin_s, below->now_s + 1e-3), r);
        return;
    }
    /* All of it is in the pool as yet. */
    if (!event.blocks && left_s > LOOK_LEAST_S) {
        wf_sim_heap_set(&below->ahead.due, r, below->now_s + left_s / 2, r);
        return;
    }
    if (event.prefetch.rule == WF_PREFETCH_NOW && !now)
        event.prefetch.rule = WF_PREFETCH_NOT_WORTH; /* the stage is full of others */
    below->result.fetches[event.prefetch.rule] += below->counted;
    if (now) {
        wf_ahead_said(&below->ahead.known);
        below->ahead.said_of[r] = AHEAD_FETCHED;
        fetch_now(below, r);
    }
    event.number = below->left;
    event.request = r;
    event.now_s = below->now_s;
    if (below->log.note)
        below->log.note(below->log.context, &event);
}

void wf_sim_ahead_run(struct wf_sim_below *below, double until_s)
{
    struct ahead *ahead = &below->ahead;
    while (below->plan.stage && ahead->due.count && ahead->due.items[0].value < until_s) {
        uint32_t r = ahead->due.items[0].block;
        below->now_s = fmax(below->now_s, ahead->due.items[0].value);
        wf_sim_heap_remove(&ahead->due, r);
        look(below, r);
    }
}

void wf_sim_ahead_plan(struct wf_sim_below *below, uint32_t r)
{
    const struct wf_sim_request *asked = &below->plan.trace->requests[r];
    struct ahead *ahead = &below->ahead;
    bool wanted = below->plan.hints && below->plan.hints[r] == TRACE_HINT_WANTED;
    if (!below->plan.stage || !wanted || !asked->returns_in_us || !asked->count)
        return;
    ahead->said_of[r] = AHEAD_SAID;
    ahead->said_s[r] = (double)asked->returns_in_us * 1e-6;
    ahead->due_s[r] = below->now_s + ahead->said_s[r];
    /* When to look is known when it is known where its blocks are: not while they are in the pool.
     * Halfway there it is looked at, and halfway again. */
    wf_sim_heap_set(&ahead->due, r, (below->now_s + ahead->due_s[r]) / 2, r);
}

void wf_sim_ahead_back(struct wf_sim_below *below, uint32_t block)
{
    struct ahead *ahead = &below->ahead;
    uint32_t r = below->blocks[block].last;
    const struct wf_sim_trace *trace = below->plan.trace;
    if (!below->plan.stage || !ahead->said_of[r])
        return;
    if (trace->depth[block] + 2 < trace->requests[r].count) /* others begin with it, too */
        return;
    if (ahead->said_of[r] == AHEAD_FETCHED)
        wf_ahead_came(&ahead->known);
    wf_ahead_off(&ahead->known, ahead->said_s[r], below->now_s - ahead->due_s[r]);
    ahead->said_of[r] = AHEAD_NOTHING;
    if (wf_sim_heap_has(&ahead->due, r))
        wf_sim_heap_remove(&ahead->due, r);
}
