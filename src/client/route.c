/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a request should run: one exchange.
 */
#include <string.h>

#include "client/client.h"

const char *weft_route_action_name(enum weft_route_action action)
{
    static const char *const names[] = {"local", "fetch", "recompute", "closed"};
    return (unsigned)action < sizeof names / sizeof names[0] ? names[action] : "unknown";
}

static enum weft_status check(const struct weft_route_question *q)
{
    if (q->candidate_count > WEFT_ROUTE_CANDIDATES_MAX)
        return wf_fail(WEFT_E_LIMIT, "%zu candidates; name %d at most", q->candidate_count,
                       WEFT_ROUTE_CANDIDATES_MAX);
    for (size_t i = 0; i < q->candidate_count; i++) {
        size_t length = q->candidates[i].node ? strlen(q->candidates[i].node) : 0;
        if (!length || length > WEFT_NODE_NAME_MAX)
            return wf_fail(WEFT_E_INVALID,
                           "candidate %zu has a name of %zu bytes; give that of a node, 1 to %d", i,
                           length, WEFT_NODE_NAME_MAX);
    }
    if (q->count && q->count - 1 > UINT32_MAX / 2)
        return wf_fail(WEFT_E_LIMIT, "a chain of %zu blocks; give 2^31 at most", q->count);
    return WEFT_OK;
}

/* A power of two, so that longer and shorter chains are asked for by the same keys. */
static uint32_t stride_of(size_t count)
{
    uint32_t stride = 1;
    while (count / stride > WF_ROUTING_KEYS_MAX)
        stride *= 2;
    return stride;
}

static size_t request_write(const struct weft_format *f, const struct weft_route_question *q,
                            uint32_t stride, struct wf_routing *out)
{
    static_assert(WEFT_NODE_NAME_MAX + 1 == WF_NAME_BYTES, "a name fits");
    static_assert(WEFT_ROUTE_CANDIDATES_MAX == WF_ROUTING_CANDIDATES_MAX, "so do all candidates");
    struct wf_routing_candidate *to = (struct wf_routing_candidate *)(void *)out->body;
    size_t count = q->count / stride;
    memset(out, 0, sizeof *out + q->candidate_count * sizeof *to);
    out->count = (uint32_t)count;
    out->stride = stride;
    out->candidates = (uint32_t)q->candidate_count;
    out->flags = (q->flags & WEFT_ROUTE_ASK ? WF_ROUTING_ASK : 0) |
                 (q->flags & WEFT_ROUTE_WHY ? WF_ROUTING_WHY : 0);
    out->id = q->id;
    out->tokens = q->tokens > 0 ? q->tokens : (double)q->count * f->request.block_tokens;
    out->output_tokens = q->output_tokens;
    for (size_t i = 0; i < q->candidate_count; i++) {
        const struct weft_candidate *c = &q->candidates[i];
        memcpy(to[i].node, c->node, strlen(c->node));
        to[i].queued_tokens = c->queued_tokens;
        to[i].tokens_s = c->tokens_s;
        to[i].decode_s = c->decode_s;
        to[i].age_s = c->age_s;
        to[i].running = c->running;
        to[i].batch_max = c->batch_max;
        to[i].flags = (c->loaded ? WF_ROUTING_LOADED : 0) | (c->closed ? WF_ROUTING_CLOSED : 0);
    }
    uint8_t *keys = (uint8_t *)(to + q->candidate_count);
    for (size_t i = 0; i < count; i++)
        memcpy(keys + 32 * i, q->keys[(i + 1) * stride - 1].bytes, 32);
    return sizeof *out + q->candidate_count * sizeof *to + count * 32;
}

/* The node is not trusted with more than its answer has. */
static enum weft_status answer_check(const struct wf_routing_answer *a)
{
    uint64_t terms = (uint64_t)a->candidates + a->others;
    if (sizeof *a + terms * sizeof a->terms[0] + a->text_bytes != a->message.bytes ||
        (a->chosen != UINT32_MAX && a->chosen >= a->candidates))
        return wf_fail(WEFT_E_PROTOCOL, "the node's answer of %llu terms does not fit %u bytes",
                       (unsigned long long)terms, a->message.bytes);
    return WEFT_OK;
}

static void term_read(const struct wf_routing_answer *a, uint32_t i, struct weft_route_term *out)
{
    const struct wf_routing_term *t = &a->terms[i];
    uint32_t terms = a->candidates + a->others;
    *out = (struct weft_route_term){
        .action = t->action <= WEFT_ROUTE_CLOSED ? (enum weft_route_action)t->action
                                                 : WEFT_ROUTE_CLOSED,
        .held_blocks = t->held_blocks,
        .load_blocks = t->load_blocks,
        .fetch_blocks = t->fetch_blocks,
        .hit_tokens = t->hit_tokens,
        .queue_s = t->queue_s + t->slot_s,
        .transfer_s = t->latency_s + t->data_s,
        .compute_s = t->prefill_s,
        .ttft_s = t->ttft_s,
        .score_s = t->score_s,
    };
    memcpy(out->node, t->node, WEFT_NODE_NAME_MAX);
    if (out->action == WEFT_ROUTE_FETCH && t->source < terms)
        memcpy(out->source, a->terms[t->source].node, WEFT_NODE_NAME_MAX);
    const char *text = (const char *)&a->terms[terms];
    if (t->text_at <= a->text_bytes && t->text_bytes <= a->text_bytes - t->text_at &&
        t->text_bytes < sizeof out->why)
        memcpy(out->why, text + t->text_at, t->text_bytes);
}

enum weft_status weft_route(struct weft_format *f, const struct weft_route_question *question,
                            struct weft_routed *out, struct weft_route_term *out_terms,
                            size_t terms_max)
{
    struct weft *w = f->weft;
    enum weft_status status = check(question);
    if (status != WEFT_OK)
        return status;
    struct attachment *a = wf_client_attach(w, &status);
    const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
    if (!binding)
        return status;
    uint32_t stride = stride_of(question->count);
    pthread_mutex_lock(&w->lock);
    struct wf_routing *request = (struct wf_routing *)(void *)w->request;
    const struct wf_routing_answer *answer =
        (const struct wf_routing_answer *)(const void *)w->answer;
    size_t bytes = request_write(f, question, stride, request);
    request->format = (uint32_t)binding->id;
    status = wf_client_exchange(w, a, WF_OP_ROUTE, bytes, sizeof *answer, NULL, NULL);
    if (status == WEFT_OK)
        status = answer_check(answer);
    if (status == WEFT_OK) {
        bool serves = answer->chosen != UINT32_MAX;
        *out = (struct weft_routed){.candidates = answer->candidates,
                                    .chosen = serves ? answer->chosen : SIZE_MAX,
                                    .stride = stride,
                                    .took_us = (uint32_t)((answer->took_ns + 500) / 1000)};
        if (serves)
            term_read(answer, answer->chosen, &out->term);
        for (uint32_t i = 0; out_terms && i < answer->candidates && i < terms_max; i++)
            term_read(answer, i, &out_terms[i]);
        status = serves ? WEFT_OK : WEFT_MISS;
    }
    pthread_mutex_unlock(&w->lock);
    return status;
}
