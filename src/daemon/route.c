/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/route.h"

#include <stdlib.h>
#include <string.h>

#include "fabric/fabric.h"
#include "sys/clock.h"

#define LOOKS 512u /* below DRAM, in a chain */
#define NUMBER_MAX 1e12
#define STRIDE_MAX (1u << 20)

struct wf_node_routes {
    struct wf_routes *alone; /* of a node without a fabric */
    struct wf_routes_answer answer;
    struct wf_routes_candidate candidates[WF_ROUTES_CANDIDATES_MAX];
    uint8_t keys[WF_ROUTES_KEYS_MAX][32];
};

/* ------------------------------------------------------------------------------- what is here */

/* The tier of this node that the key lies on, or -1: other nodes are a tier, too. */
static int own_tier(const struct wf_index *index, const uint8_t key[32])
{
    int tier = wf_far_find(&index->far, key);
    if (tier < 0 || tier >= (int)WF_FAR_TIERS)
        return -1;
    uint32_t kind = atomic_load_explicit(&index->speeds[tier].kind, memory_order_relaxed);
    return kind == WEFT_TIER_REMOTE ? -1 : tier;
}

/* The longest prefix in DRAM, by halving: there a parent outlives its children. */
static uint32_t near_of(const struct wf_index *index, const uint8_t (*keys)[32], uint32_t count)
{
    struct wf_found found;
    uint32_t low = 0, high = count;
    if (count && wf_index_find_own(index, keys[count - 1], &found))
        return count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (wf_index_find_own(index, keys[middle], &found))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Behind it blocks of this node's tiers and of other nodes' may take turns, so that it is gone
 * through, in steps when it is long. */
void wf_node_own(struct wf_node *node, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                 struct wf_routes_own *out)
{
    *out = (struct wf_routes_own){.near_blocks = 0};
    if (domain >= node->domain_count)
        return;
    const struct wf_index *index = &node->domains[domain].store.index;
    uint32_t at = out->near_blocks = near_of(index, keys, count);
    uint32_t step = (count - at) / LOOKS + 1;
    int tier = -1, last = -1;
    while (at < count) {
        uint32_t next = at + step < count ? at + step : count;
        if ((tier = own_tier(index, keys[next - 1])) < 0 && step > 1) {
            step = 1;
            continue;
        }
        if (tier < 0)
            break;
        last = tier;
        at = next;
    }
    out->held_blocks = at;
    if (last < 0)
        return;
    const struct wf_tier_speed *speed = &index->speeds[last];
    uint32_t mbps = atomic_load_explicit(&speed->mbps, memory_order_relaxed);
    uint32_t latency_us = atomic_load_explicit(&speed->latency_us, memory_order_relaxed);
    out->below = (struct wf_route_way){.latency_s = latency_us * 1e-6,
                                       .bytes_s = mbps ? mbps * 1e6 : 1e9};
}

static void own(void *context, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                struct wf_routes_own *out)
{
    wf_node_own(context, domain, keys, count, out);
}

/* --------------------------------------------------------------------------------- a question */

static struct wf_node_routes *routes_of(struct wf_node *node)
{
    if (!node->routes)
        node->routes = wf_calloc(1, sizeof *node->routes, "where requests run");
    return node->routes;
}

struct wf_routes_answer *wf_node_route_answer(struct wf_node *node)
{
    return routes_of(node) ? &node->routes->answer : NULL;
}

struct wf_routes_candidate *wf_node_route_candidates(struct wf_node *node)
{
    return routes_of(node) ? node->routes->candidates : NULL;
}

uint8_t (*wf_node_route_keys(struct wf_node *node))[32]
{
    return routes_of(node) ? node->routes->keys : NULL;
}

void wf_node_routes_destroy(struct wf_node *node)
{
    if (node->routes)
        wf_routes_destroy(node->routes->alone);
    free(node->routes);
    node->routes = NULL;
}

void wf_node_route_request(const struct wf_format_entry *entry, double tokens, double output_tokens,
                           uint64_t id, struct wf_route_request *out)
{
    double token_bytes = entry ? (double)entry->block_bytes / entry->block_tokens : 0;
    *out = (struct wf_route_request){
        .id = id,
        .tokens = tokens,
        .block_tokens = entry ? entry->block_tokens : 1,
        .block_bytes = entry ? (double)entry->block_bytes : 0,
        .layers = entry ? entry->layers : 1,
        .prefill = {.token_s = token_bytes * WF_PREFILL_S_BYTE,
                    .attended_s = token_bytes * WF_PREFILL_S_BYTE * WF_PREFILL_ATTENDED},
        .output_tokens = output_tokens,
    };
}

enum weft_status wf_node_route(struct wf_node *node, struct wf_routes_question *question)
{
    struct wf_node_routes *routes = routes_of(node);
    enum weft_status status = routes ? WEFT_OK : WEFT_E_NO_MEMORY;
    question->closed = node->draining;
    if (status != WEFT_OK)
        return status;
    if (node->fabric)
        return wf_fabric_route(node->fabric, question, &routes->answer);
    const struct wf_routes_options options = {.name = node->config.fabric_name,
                                              .seed = node->epoch,
                                              .context = node,
                                              .own = own};
    if (!routes->alone)
        status = wf_routes_create(&options, &routes->alone);
    return status == WEFT_OK ? wf_routes_ask(routes->alone, wf_now_ns(), question, &routes->answer)
                             : status;
}

/* -------------------------------------------------------------------------------- of a client */

static bool is_number(double value)
{
    return value >= 0 && value <= NUMBER_MAX;
}

/* What a stranger says of a candidate. */
static enum weft_status candidate_read(const struct wf_routing_candidate *from,
                                       struct wf_routes_candidate *out)
{
    if (!memchr(from->node, 0, sizeof from->node))
        return wf_fail(WEFT_E_PROTOCOL, "ROUTE: a name without an end");
    if (!is_number(from->queued_tokens) || !is_number(from->tokens_s) ||
        !is_number(from->decode_s) || !is_number(from->age_s))
        return wf_fail(WEFT_E_INVALID,
                       "the load of candidate '%s' has a number that is none, or negative; give "
                       "0 for what is not known",
                       from->node);
    static_assert(sizeof out->name == sizeof from->node, "names are as long here as there");
    memcpy(out->name, from->node, sizeof out->name);
    out->loaded = (from->flags & WF_ROUTING_LOADED) != 0;
    out->load = (struct wf_route_load){.queued_tokens = from->queued_tokens,
                                       .tokens_s = from->tokens_s,
                                       .running = from->running,
                                       .batch_max = from->batch_max,
                                       .decode_s = from->decode_s,
                                       .closed = (from->flags & WF_ROUTING_CLOSED) != 0};
    out->age_s = from->age_s;
    return WEFT_OK;
}

static enum weft_status question_read(struct wf_client *client, const struct wf_routing *request,
                                      struct wf_routes_question *out)
{
    struct wf_node *node = client->node;
    uint64_t bytes = sizeof *request + (uint64_t)request->count * 32 +
                     (uint64_t)request->candidates * sizeof(struct wf_routing_candidate);
    if (request->count > WF_ROUTING_KEYS_MAX || request->candidates > WF_ROUTING_CANDIDATES_MAX ||
        bytes != request->message.bytes || request->stride == 0 || request->stride > STRIDE_MAX)
        return wf_fail(WEFT_E_PROTOCOL,
                       "ROUTE: %u keys, each %u-th, and %u candidates do not fit %u bytes",
                       request->count, request->stride, request->candidates,
                       request->message.bytes);
    if (request->format >= node->format_count ||
        node->formats[request->format].domain != client->domain->id)
        return wf_fail(WEFT_E_INVALID, "ROUTE: there is no format %u in this domain",
                       request->format);
    if (!is_number(request->tokens) || !is_number(request->output_tokens))
        return wf_fail(WEFT_E_INVALID, "a request of %g tokens, and %g of output: give numbers",
                       request->tokens, request->output_tokens);
    struct wf_routes_candidate *candidates = wf_node_route_candidates(node);
    if (!candidates)
        return WEFT_E_NO_MEMORY;
    const struct wf_routing_candidate *from =
        (const struct wf_routing_candidate *)(const void *)request->body;
    for (uint32_t i = 0; i < request->candidates; i++) {
        enum weft_status status = candidate_read(&from[i], &candidates[i]);
        if (status != WEFT_OK)
            return status;
    }
    *out = (struct wf_routes_question){
        .domain = client->domain->id,
        .keys = (const uint8_t(*)[32])(const void *)(from + request->candidates),
        .count = request->count,
        .stride = request->stride,
        .candidates = candidates,
        .candidate_count = request->candidates,
        .asks_only = (request->flags & WF_ROUTING_ASK) != 0,
    };
    wf_node_route_request(&node->formats[request->format], request->tokens, request->output_tokens,
                          request->id, &out->request);
    return WEFT_OK;
}

static void term_write(const struct wf_routes_term *from, struct wf_routing_term *out)
{
    const struct wf_route_term *t = &from->term;
    memset(out, 0, sizeof *out);
    memcpy(out->node, from->name, sizeof out->node);
    out->action = (uint32_t)t->action;
    out->source = t->source;
    out->load_blocks = t->load_blocks;
    out->fetch_blocks = t->fetch_blocks;
    out->near_blocks = from->near_blocks;
    out->held_blocks = from->held_blocks;
    out->hit_tokens = t->hit_tokens;
    out->queue_s = t->queue_s;
    out->slot_s = t->slot_s;
    out->latency_s = t->latency_s;
    out->data_s = t->data_s;
    out->fetch_s = t->fetch_s;
    out->prefill_s = t->prefill_s;
    out->done_s = t->done_s;
    out->ttft_s = t->ttft_s;
    out->score_s = t->score_s;
}

static_assert((int)WF_ROUTE_LOCAL == WEFT_ROUTE_LOCAL && (int)WF_ROUTE_FETCH == WEFT_ROUTE_FETCH &&
                  (int)WF_ROUTE_RECOMPUTE == WEFT_ROUTE_RECOMPUTE &&
                  (int)WF_ROUTE_CLOSED == WEFT_ROUTE_CLOSED,
              "the public numbers are these");

/* The chosen one's sentence first, so that it finds room. */
static size_t answer_write(const struct wf_routes_answer *from, bool every,
                           struct wf_routing_answer *out)
{
    uint32_t terms = from->count + from->others,
             first = from->chosen < from->count ? from->chosen : 0;
    char *text = (char *)&out->terms[terms];
    size_t used = 0, room = WF_MESSAGE_MAX - sizeof *out - terms * sizeof out->terms[0];
    out->candidates = from->count;
    out->others = from->others;
    out->chosen = from->chosen;
    out->took_ns = from->took_ns;
    for (uint32_t i = 0; i < terms; i++)
        term_write(&from->terms[i], &out->terms[i]);
    for (uint32_t k = 0; k < (every ? from->count : 1); k++) {
        char say[WEFT_ROUTE_WHY_MAX];
        uint32_t i = k == 0 ? first : k - 1 < first ? k - 1 : k;
        if (wf_routes_say(from, i, say, sizeof say) < 0 || strlen(say) > room - used)
            break;
        out->terms[i].text_at = (uint32_t)used;
        out->terms[i].text_bytes = (uint32_t)strlen(say);
        memcpy(text + used, say, strlen(say));
        used += strlen(say);
    }
    out->text_bytes = (uint32_t)used;
    return sizeof *out + terms * sizeof out->terms[0] + used;
}

void wf_handle_route(struct wf_client *client, const struct wf_routing *request)
{
    struct wf_routes_question question;
    struct wf_routing_answer *answer = (struct wf_routing_answer *)(void *)client->node->answer;
    static_assert(sizeof *answer + WF_ROUTES_NODES_MAX * sizeof answer->terms[0] <= WF_MESSAGE_MAX,
                  "all terms fit into one message");
    enum weft_status status = question_read(client, request, &question);
    if (status == WEFT_OK)
        status = wf_node_route(client->node, &question);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    size_t bytes = answer_write(wf_node_route_answer(client->node),
                                (request->flags & WF_ROUTING_WHY) != 0, answer);
    wf_answer(client, &request->message, WEFT_OK, bytes, NULL, 0);
}
