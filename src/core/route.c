/* SPDX-License-Identifier: Apache-2.0 */
#include "core/route.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"

#define WORK_PRICE 2.0
#define TIE_PART 0.02
#define TOKENS_S 10000.0
#define HOME_PRICE 3.0
#define HOMES_MAX 65536u
#define HOME_WAYS 4u /* marks that a place in the table has */
#define COMING_MAX 16384u
#define COMING_S 2.0
#define COMING_GROUPS 1024u
#define FLOWS 5u     /* that run beside one another, and none */
#define EQUAL_S 1e-6 /* times that differ by less are the same */

/* What is known of a node, and what was sent there. */
struct peer {
    struct wf_route_load load;
    double taken_s;               /* of the report; -INFINITY: there was none */
    double work_s, at_s;          /* prefill that was before it then */
    double out_free_s, in_free_s; /* when its transfers that this router chose are over */
    uint32_t fresh;               /* requests sent since the report */
    uint32_t sent, next;          /* the ring: how many there are, and where the next goes */
    struct {
        double at_s, work_s;
    } ring[WF_ROUTE_SENT];
};

/* The blocks of one request that are on their way: the next `count` of the ring of keys. */
struct group {
    double until_s;
    uint32_t count;
    uint16_t node;
};

/* The end of a chain, and where it was sent last. */
struct mark {
    uint32_t key; /* a part of its last block's; 0: none */
    uint16_t node;
    uint16_t shared;
    double sent_s;
};

struct wf_route {
    struct wf_route_options options;
    struct mark (*homes)[HOME_WAYS]; /* [home_lines] the newest first */
    uint32_t home_lines;
    struct wf_places *coming; /* who is about to have what */
    uint8_t (*keys)[32];      /* [coming_max] a ring, the oldest at key_first */
    uint32_t key_first, key_count;
    struct group groups[COMING_GROUPS]; /* a ring, too */
    uint32_t group_first, group_count;
    struct peer *peers; /* [nodes_max] */
    uint32_t *blocks;   /* [nodes_max] scratch of look() */
};

static void *get(size_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

enum weft_status wf_route_create(const struct wf_route_options *options, struct wf_route **out)
{
    if (!options->nodes_max || options->nodes_max > WF_PLACES_NODES_MAX)
        return wf_fail(WEFT_E_INVALID, "a router of %u nodes; it takes 1 to %u", options->nodes_max,
                       WF_PLACES_NODES_MAX);
    struct wf_route *route = get(1, sizeof *route);
    if (!route)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a router");
    route->options = *options;
    if (options->work_price < 0)
        route->options.work_price = WORK_PRICE;
    if (options->tie_part < 0)
        route->options.tie_part = TIE_PART;
    if (!(options->tokens_s > 0))
        route->options.tokens_s = TOKENS_S;
    if (!options->routers)
        route->options.routers = 1;
    if (options->home_price < 0)
        route->options.home_price = HOME_PRICE;
    if (!options->homes_max)
        route->options.homes_max = HOMES_MAX;
    /* A chain has several marks, and as many ways. */
    route->home_lines = route->options.homes_max * WF_ROUTE_MARKS / HOME_WAYS;
    route->homes = get(route->home_lines, sizeof *route->homes);
    if (!options->coming_max)
        route->options.coming_max = COMING_MAX;
    if (options->coming_s < 0)
        route->options.coming_s = COMING_S;
    const struct wf_places_options coming = {route->options.coming_max, options->nodes_max,
                                             options->seed};
    enum weft_status status = wf_places_create(&coming, &route->coming);
    if (status != WEFT_OK) {
        wf_route_destroy(route);
        return status;
    }
    route->keys = get(route->options.coming_max, sizeof *route->keys);
    route->peers = get(options->nodes_max, sizeof *route->peers);
    route->blocks = get(options->nodes_max, sizeof *route->blocks);
    if (!route->peers || !route->blocks || !route->keys || !route->homes) {
        wf_route_destroy(route);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a router of %u nodes; ask for fewer",
                       options->nodes_max);
    }
    for (uint32_t node = 0; node < options->nodes_max; node++)
        wf_route_forget(route, (uint16_t)node);
    *out = route;
    return WEFT_OK;
}

void wf_route_destroy(struct wf_route *route)
{
    if (!route)
        return;
    wf_places_destroy(route->coming);
    free(route->keys);
    free(route->homes);
    free(route->peers);
    free(route->blocks);
    free(route);
}

/* --------------------------------------------------------------------------- what is known */

/* What it has itself, or is about to. */
static uint32_t own_blocks(const struct wf_route_node *node)
{
    return node->coming_blocks > node->held_blocks ? node->coming_blocks : node->held_blocks;
}

static double left_s(double work_s, double passed_s)
{
    return passed_s < work_s ? work_s - fmax(0, passed_s) : 0;
}

void wf_route_forget(struct wf_route *route, uint16_t node)
{
    if (node < route->options.nodes_max)
        route->peers[node] = (struct peer){.taken_s = -INFINITY, .at_s = -INFINITY};
}

/* The report says what was there; what was sent later came on top. */
void wf_route_report(struct wf_route *route, uint16_t node, const struct wf_route_load *load,
                     double taken_s)
{
    if (node >= route->options.nodes_max || taken_s < route->peers[node].taken_s)
        return;
    struct peer *peer = &route->peers[node];
    double tokens_s = load->tokens_s > 0 ? load->tokens_s : route->options.tokens_s;
    peer->load = *load;
    peer->taken_s = peer->at_s = taken_s;
    peer->work_s = fmax(0, load->queued_tokens) / tokens_s;
    peer->fresh = 0;
    for (uint32_t i = 0; i < peer->sent; i++) {
        uint32_t at = (peer->next + WF_ROUTE_SENT - peer->sent + i) % WF_ROUTE_SENT;
        if (peer->ring[at].at_s < taken_s)
            continue;
        peer->work_s = left_s(peer->work_s, peer->ring[at].at_s - peer->at_s) +
                       peer->ring[at].work_s;
        peer->at_s = peer->ring[at].at_s;
        peer->fresh++;
    }
    peer->sent = peer->fresh;
}

/* A report leaves the ring itself as it is. */
void wf_route_suppose(struct wf_route *route, uint16_t node, const struct wf_route_load *load,
                      double taken_s, struct wf_route_before *out)
{
    if (node >= route->options.nodes_max)
        return;
    struct peer *peer = &route->peers[node];
    *out = (struct wf_route_before){.load = peer->load,
                                    .taken_s = peer->taken_s,
                                    .work_s = peer->work_s,
                                    .at_s = peer->at_s,
                                    .fresh = peer->fresh,
                                    .sent = peer->sent};
    wf_route_report(route, node, load, taken_s);
}

void wf_route_unreport(struct wf_route *route, uint16_t node, const struct wf_route_before *before)
{
    if (node >= route->options.nodes_max)
        return;
    struct peer *peer = &route->peers[node];
    peer->load = before->load;
    peer->taken_s = before->taken_s;
    peer->work_s = before->work_s;
    peer->at_s = before->at_s;
    peer->fresh = before->fresh;
    peer->sent = before->sent;
}

/* --------------------------------------------------------------------------- what is coming */

static void group_forget(struct wf_route *route)
{
    struct group *oldest = &route->groups[route->group_first];
    for (; oldest->count > 0; oldest->count--) {
        (void)wf_places_remove(route->coming, route->keys[route->key_first], oldest->node);
        route->key_first = (route->key_first + 1) % route->options.coming_max;
        route->key_count--;
    }
    route->group_first = (route->group_first + 1) % COMING_GROUPS;
    route->group_count--;
}

/* What must have come by now, in the order in which it was sent: the events have it, or it never
 * comes. */
static void coming_age(struct wf_route *route, double now_s)
{
    while (route->group_count && route->groups[route->group_first].until_s <= now_s)
        group_forget(route);
}

/* A block that two requests bring is remembered with the first alone, and so may be forgotten while
 * the second is on its way: it is there then, as a rule. */
static void coming_add(struct wf_route *route, uint16_t node, const uint8_t (*keys)[32],
                       uint32_t count, double until_s)
{
    uint32_t room = route->options.coming_max;
    count = count < room ? count : room;
    while (route->group_count == COMING_GROUPS || room - route->key_count < count)
        group_forget(route);
    struct group *group =
        &route->groups[(route->group_first + route->group_count++) % COMING_GROUPS];
    *group = (struct group){.until_s = until_s, .node = node};
    for (uint32_t i = 0; i < count; i++) {
        if (wf_places_holds(route->coming, keys[i], node) ||
            !wf_places_add(route->coming, keys[i], node))
            continue;
        memcpy(route->keys[(route->key_first + route->key_count++) % room], keys[i], 32);
        group->count++;
    }
}

/* From `first` on, which it has: how far it goes with what is coming. */
static uint32_t coming_of(const struct wf_route *route, uint16_t node, const uint8_t (*keys)[32],
                          uint32_t first, uint32_t count)
{
    if (first >= count || !wf_places_of(route->coming, node) ||
        !wf_places_holds(route->coming, keys[first], node))
        return first;
    if (wf_places_holds(route->coming, keys[count - 1], node)) /* the same again, as a rule */
        return count;
    uint32_t low = first, high = count - 1;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (wf_places_holds(route->coming, keys[middle], node))
            low = middle;
        else
            high = middle;
    }
    return low + 1;
}

/* ----------------------------------------------------------------------- where it is at home */

static uint64_t mixed(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static struct mark *line_of(const struct wf_route *route, const uint8_t key[32], uint32_t *out_key)
{
    uint64_t part;
    memcpy(&part, key, sizeof part);
    part = mixed(part ^ route->options.seed);
    *out_key = (uint32_t)part ? (uint32_t)part : 1;
    return route->homes[(part >> 32) * route->home_lines >> 32];
}

static void home_set(struct wf_route *route, const uint8_t key[32], uint16_t node, double now_s)
{
    uint32_t its, at = 0;
    struct mark *line = line_of(route, key, &its);
    while (at < HOME_WAYS - 1 && line[at].key != its)
        at++;
    struct mark mark = {.key = its, .node = node, .sent_s = now_s};
    if (line[at].key == its)
        mark.shared = line[at].shared || now_s - line[at].sent_s < WF_ROUTE_SHARED_S;
    memmove(line + 1, line, at * sizeof *line);
    line[0] = mark;
}

/* The deepest block by which it is known, and by whom. */
static uint32_t home_of(const struct wf_route *route, const uint8_t (*keys)[32], uint32_t count,
                        uint16_t *out_node)
{
    for (uint32_t i = count; i-- > 0;) {
        uint32_t its;
        const struct mark *line = line_of(route, keys[i], &its);
        for (unsigned at = 0; at < HOME_WAYS; at++) {
            if (line[at].key == its) {
                *out_node = line[at].node;
                return line[at].shared ? 0 : i + 1;
            }
        }
    }
    return 0;
}

void wf_route_sent(struct wf_route *route, const struct wf_route_node *nodes,
                   const struct wf_route_answer *answer, const uint8_t (*keys)[32], uint32_t count,
                   double now_s)
{
    if (answer->chosen == WF_ROUTE_NONE)
        return;
    const struct wf_route_term *term = &answer->term;
    const struct wf_route_node *to = &nodes[answer->chosen];
    struct peer *peer = &route->peers[to->node];
    double work_s = term->prefill_s * route->options.routers;
    peer->work_s = left_s(peer->work_s, now_s - peer->at_s) + work_s;
    peer->at_s = now_s;
    peer->fresh++;
    peer->ring[peer->next].at_s = now_s;
    peer->ring[peer->next].work_s = work_s;
    peer->next = (peer->next + 1) % WF_ROUTE_SENT;
    peer->sent += peer->sent < WF_ROUTE_SENT;
    if (term->action == WF_ROUTE_FETCH) {
        const struct wf_route_node *from = &nodes[term->source];
        double free_s = now_s + term->fetch_s, *source_s = &route->peers[from->node].out_free_s;
        peer->in_free_s = fmax(peer->in_free_s, free_s);
        *source_s = from->several ? *source_s : fmax(*source_s, free_s);
    }
    uint32_t has = own_blocks(to);
    coming_age(route, now_s);
    for (uint32_t i = count < WF_ROUTE_MARKS ? 0 : count - WF_ROUTE_MARKS; keys && i < count; i++)
        home_set(route, keys[i], to->node, now_s);
    if (keys && count > has)
        coming_add(route, to->node, keys + has, count - has,
                   now_s + term->ttft_s + route->options.coming_s);
}

static uint32_t in_scratch(const struct wf_route *route, uint16_t node)
{
    return node < route->options.nodes_max ? route->blocks[node] : 0;
}

static void look_coming(const struct wf_route *route, const uint8_t (*keys)[32], uint32_t count,
                        struct wf_route_node *nodes, uint32_t node_count)
{
    uint16_t at_home = 0;
    uint32_t home = home_of(route, keys, count, &at_home);
    for (uint32_t i = 0; i < node_count; i++) {
        nodes[i].home_blocks = nodes[i].node == at_home ? home : 0;
        nodes[i].coming_blocks = coming_of(route, nodes[i].node, keys, nodes[i].held_blocks, count);
    }
}

void wf_route_look(struct wf_route *route, const struct wf_places *near,
                   const struct wf_places *below, const uint8_t (*keys)[32], uint32_t count,
                   struct wf_route_node *nodes, uint32_t node_count)
{
    wf_places_prefixes(near, keys, count, 0, WF_PLACES_CLASS_MAX, NULL, route->blocks);
    for (uint32_t i = 0; i < node_count; i++)
        nodes[i].near_blocks = nodes[i].held_blocks = in_scratch(route, nodes[i].node);
    if (below)
        wf_places_prefixes(below, keys, count, 0, WF_PLACES_CLASS_MAX, NULL, route->blocks);
    for (uint32_t i = 0; i < node_count; i++) {
        struct wf_route_node *node = &nodes[i];
        if (below && in_scratch(route, node->node) > node->held_blocks)
            node->held_blocks = in_scratch(route, node->node);
    }
    look_coming(route, keys, count, nodes, node_count);
}

void wf_route_coming(struct wf_route *route, const uint8_t (*keys)[32], uint32_t count,
                     struct wf_route_node *nodes, uint32_t node_count, double now_s)
{
    coming_age(route, now_s);
    look_coming(route, keys, count, nodes, node_count);
}

/* --------------------------------------------------------------------------- the model */

/* One candidate, and the node from which it may fetch. */
struct question {
    const struct wf_route *route;
    const struct wf_route_request *request;
    const struct wf_route_node *to, *from; /* from NULL: nowhere */
    struct wf_route_way link;
    uint32_t source;
    double queue_s, slot_s;
    double slower; /* than the request's prefill says */
};

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* One more flow that runs beside the others: the `which`th. */
static void flow(struct wf_route_term *term, const struct wf_route_way *way, double bytes,
                 uint8_t which)
{
    if (bytes <= 0)
        return;
    double data_s = way->bytes_s > 0 ? bytes / way->bytes_s : INFINITY;
    term->latency_s = fmax(term->latency_s, way->latency_s + way->queue_s);
    if (data_s > term->data_s) {
        term->data_s = data_s;
        term->piece = which;
    }
}

/* Of which of its parts wf_overlap_s() is the largest. */
static uint8_t waits_for(const struct wf_route_term *term, double wait_s, double layers)
{
    if (term->data_s > term->prefill_s)
        return term->latency_s - wait_s + term->data_s + term->prefill_s / layers > term->prefill_s
                   ? 2 * FLOWS
                   : 0;
    return term->latency_s - wait_s + term->data_s / layers > 0 ? FLOWS : 0;
}

/* The first `blocks` are loaded. */
static struct wf_route_term model(const struct question *q, uint32_t blocks)
{
    const struct wf_route_request *r = q->request;
    struct wf_route_term term = {.source = WF_ROUTE_NONE,
                                 .load_blocks = blocks,
                                 .queue_s = q->queue_s,
                                 .slot_s = q->slot_s};
    uint32_t own = least(blocks, own_blocks(q->to)), held = least(own, q->to->held_blocks);
    uint32_t near = least(held, q->to->near_blocks), hbm = least(near, q->to->hbm_blocks);
    flow(&term, &q->to->below, (held - near) * r->block_bytes, 1);
    if (blocks > own) {
        uint32_t theirs = q->from->near_blocks > own /* NOLINT: it has more, so there is one */
                              ? q->from->near_blocks - own
                              : 0;
        term.fetch_blocks = blocks - own;
        term.source = q->source;
        double bytes = term.fetch_blocks * r->block_bytes;
        flow(&term, &q->link, bytes, 2);
        flow(&term, &q->from->below,
             (term.fetch_blocks - least(theirs, term.fetch_blocks)) * r->block_bytes, 3);
        term.fetch_s = q->link.queue_s + q->link.latency_s + bytes / q->link.bytes_s;
    }
    if (q->to->host.bytes_s > 0)
        flow(&term, &q->to->host, (blocks - hbm) * r->block_bytes, 4);
    /* The last token is computed in any case: its output comes first. */
    term.hit_tokens = fmin(blocks * r->block_tokens, fmax(0, r->tokens - 1));
    term.prefill_s = q->slower *
                     wf_prefill_s(r->prefill, term.hit_tokens, r->tokens - term.hit_tokens);
    double wait_s = q->queue_s + q->slot_s, layers = r->layers ? r->layers : 1;
    term.done_s = wf_overlap_s(term.latency_s - wait_s, term.data_s, term.prefill_s, layers);
    term.piece = (uint8_t)(term.piece + waits_for(&term, wait_s, layers));
    if (blocks == hbm)
        term.done_s = term.prefill_s;
    term.ttft_s = wait_s + term.done_s;
    term.score_s = term.ttft_s + q->route->options.work_price * term.prefill_s;
    term.action = term.fetch_blocks ? WF_ROUTE_FETCH : blocks ? WF_ROUTE_LOCAL : WF_ROUTE_RECOMPUTE;
    return term;
}

static void keep_better(struct wf_route_term *best, const struct wf_route_term *other)
{
    if (other->score_s < best->score_s ||
        (other->score_s <= best->score_s && other->load_blocks > best->load_blocks))
        *best = *other;
}

/* Between two numbers of blocks in one piece the score has no dip: what is loaded costs the same
 * for each block, and what is computed gets cheaper by ever more. So only the pieces' ends are
 * looked at, and a piece never comes back once another has begun. */
static void pieces(const struct question *q, const struct wf_route_term *low,
                   const struct wf_route_term *high, struct wf_route_term *best)
{
    uint32_t between = high->load_blocks - low->load_blocks;
    if (between < 2 || low->piece == high->piece)
        return;
    struct wf_route_term middle = model(q, low->load_blocks + between / 2);
    keep_better(best, &middle);
    pieces(q, low, &middle, best);
    pieces(q, &middle, high, best);
}

/* The best number of blocks after `first`, up to `last`, all of which come from one place. The last
 * stands alone: of it a token may have to be computed in any case. */
static void stretch(const struct question *q, uint32_t first, uint32_t last,
                    struct wf_route_term *best)
{
    if (first >= last)
        return;
    struct wf_route_term all = model(q, last);
    keep_better(best, &all);
    if (last - first < 2)
        return;
    struct wf_route_term low = model(q, first + 1), high = model(q, last - 1);
    keep_better(best, &low);
    keep_better(best, &high);
    pieces(q, &low, &high, best);
}

/* The least score that so many blocks could have, were they there at once. */
static double bound_s(const struct question *q, uint32_t blocks)
{
    const struct wf_route_request *r = q->request;
    double hit = fmin(blocks * r->block_tokens, fmax(0, r->tokens - 1));
    double prefill_s = q->slower * wf_prefill_s(r->prefill, hit, r->tokens - hit);
    return q->queue_s + q->slot_s + prefill_s * (1 + q->route->options.work_price);
}

/* How much of what it has itself to load. */
static struct wf_route_term cut_own(const struct question *q)
{
    struct wf_route_term best = model(q, 0);
    stretch(q, 0, q->to->hbm_blocks, &best);
    stretch(q, q->to->hbm_blocks, q->to->near_blocks, &best);
    stretch(q, q->to->near_blocks, q->to->held_blocks, &best);
    stretch(q, q->to->held_blocks, own_blocks(q->to), &best);
    return best;
}

/* How much of another's besides. */
static void cut_other(const struct question *q, struct wf_route_term *best)
{
    uint32_t own = own_blocks(q->to), near = q->from->near_blocks;
    stretch(q, own, near, best);
    stretch(q, near > own ? near : own, q->from->held_blocks, best);
}

/* The nodes that have most of it, at most WF_ROUTE_SOURCES; those with most first. */
static uint32_t sources_of(const struct wf_route *route, const struct wf_route_node *nodes,
                           uint32_t count, uint32_t out[WF_ROUTE_SOURCES])
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!nodes[i].held_blocks || nodes[i].node >= route->options.nodes_max)
            continue;
        uint32_t at = found < WF_ROUTE_SOURCES ? found++ : WF_ROUTE_SOURCES;
        for (; at > 0 && nodes[out[at - 1]].held_blocks < nodes[i].held_blocks; at--) {
            if (at < WF_ROUTE_SOURCES)
                out[at] = out[at - 1];
        }
        if (at < WF_ROUTE_SOURCES)
            out[at] = i;
    }
    return found;
}

/* The link as it is for this fetch: behind what this router has on it. */
static struct wf_route_way link_of(const struct wf_route *route, const struct wf_route_node *nodes,
                                   uint32_t from, uint32_t to, const struct wf_route_links *links,
                                   double now_s)
{
    struct wf_route_way way = links->way(links->context, from, to);
    double free_s = route->peers[nodes[to].node].in_free_s;
    if (nodes[from].node != nodes[to].node)
        free_s = fmax(free_s, route->peers[nodes[from].node].out_free_s);
    way.queue_s = fmax(way.queue_s, free_s - now_s);
    return way;
}

static struct question ask(const struct wf_route *route, const struct wf_route_request *request,
                           const struct wf_route_node *node, double now_s)
{
    const struct peer *peer = &route->peers[node->node];
    struct question q = {.route = route,
                         .request = request,
                         .to = node,
                         .source = WF_ROUTE_NONE,
                         .slower = 1,
                         .queue_s = left_s(peer->work_s, now_s - peer->at_s)};
    if (peer->load.tokens_s > 0 && request->prefill.token_s > 0)
        q.slower = 1 / (peer->load.tokens_s * request->prefill.token_s);
    double batch = peer->load.batch_max;
    double over = (double)peer->load.running + (double)peer->fresh * route->options.routers - batch;
    if (batch > 0 && over >= 0)
        q.slot_s = fmax(0, (over + 1) / batch * peer->load.decode_s - q.queue_s);
    return q;
}

static struct wf_route_term best_of(const struct wf_route *route, struct question *q,
                                    const struct wf_route_node *nodes, uint32_t to,
                                    const uint32_t *sources, uint32_t source_count,
                                    const struct wf_route_links *links, double now_s)
{
    struct wf_route_term best = cut_own(q);
    for (uint32_t i = 0; links && i < source_count; i++) {
        uint32_t most = nodes[sources[i]].held_blocks;
        if (most <= own_blocks(&nodes[to]) || bound_s(q, most) >= best.score_s)
            break;
        q->from = &nodes[sources[i]];
        q->source = sources[i];
        q->link = link_of(route, nodes, sources[i], to, links, now_s);
        if (!(q->link.bytes_s > 0))
            continue;
        cut_other(q, &best);
    }
    return best;
}

/* Among those that are about as good as the best, and have no less of it themselves. */
static uint32_t among_equals(const struct wf_route *route, const struct wf_route_request *request,
                             const struct wf_route_node *nodes, const struct wf_route_term *terms,
                             uint32_t count, uint32_t best)
{
    double most_s = terms[best].score_s * (1 + route->options.tie_part) + EQUAL_S;
    uint32_t own = terms[best].load_blocks - terms[best].fetch_blocks, chosen = best;
    uint64_t highest = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (!(terms[i].score_s <= most_s) || terms[i].load_blocks - terms[i].fetch_blocks < own)
            continue;
        uint64_t lot = mixed(mixed(route->options.seed + request->id) + nodes[i].node + 1);
        if (lot >= highest) {
            highest = lot;
            chosen = i;
        }
    }
    return chosen;
}

void wf_route_choose(const struct wf_route *route, const struct wf_route_request *request,
                     const struct wf_route_node *nodes, uint32_t count,
                     const struct wf_route_links *links, double now_s,
                     struct wf_route_term *out_terms, struct wf_route_answer *out)
{
    uint32_t sources[WF_ROUTE_SOURCES], source_count = sources_of(route, nodes, count, sources);
    uint32_t best = WF_ROUTE_NONE, home = 0;
    for (uint32_t i = 0; i < count; i++)
        home = nodes[i].home_blocks > home ? nodes[i].home_blocks : home;
    for (uint32_t i = 0; i < count; i++) {
        out_terms[i] = (struct wf_route_term){.action = WF_ROUTE_CLOSED,
                                              .source = WF_ROUTE_NONE,
                                              .ttft_s = INFINITY,
                                              .score_s = INFINITY};
        if (!nodes[i].serves || nodes[i].node >= route->options.nodes_max ||
            route->peers[nodes[i].node].load.closed)
            continue;
        struct question q = ask(route, request, &nodes[i], now_s);
        out_terms[i] = best_of(route, &q, nodes, i, sources, source_count, links, now_s);
        out_terms[i].away_s = route->options.home_price * q.slower *
                              wf_prefill_s(request->prefill, 0,
                                           (home - nodes[i].home_blocks) * request->block_tokens);
        out_terms[i].score_s += out_terms[i].away_s;
        if (best == WF_ROUTE_NONE || out_terms[i].score_s < out_terms[best].score_s)
            best = i;
    }
    *out = (struct wf_route_answer){.chosen = best};
    if (best == WF_ROUTE_NONE)
        return;
    out->chosen = among_equals(route, request, nodes, out_terms, count, best);
    out->term = out_terms[out->chosen];
}

/* --------------------------------------------------------------------------- in words */

const char *wf_route_action_name(enum wf_route_action action)
{
    static const char *const names[] = {"local", "fetch", "recompute", "closed"};
    return names[action];
}

/* Without exponents. */
static const char *seconds_say(double s, char out[16])
{
    if (s > 0 && s < 0.9995e-3)
        snprintf(out, 16, s < 0.5e-9 ? "0 us" : "%.3g us", s * 1e6 < 1e-3 ? 0.001 : s * 1e6);
    else if (s < 999.5)
        snprintf(out, 16, "%.3g s", s);
    else
        snprintf(out, 16, s < 1e9 ? "%.0f s" : "for ever", s);
    return out;
}

int wf_route_say(const struct wf_route_term *term, const struct wf_route_request *request,
                 char *out, size_t size)
{
    char before[96] = "", ttft[16], queue[16], slot[16], prefill[16], load[16];
    if (term->action == WF_ROUTE_CLOSED)
        return snprintf(out, size, "it takes no requests");
    if (term->slot_s > 0)
        snprintf(before, sizeof before, ", and %s for a place in the batch",
                 seconds_say(term->slot_s, slot));
    int used = snprintf(out, size, "%s: %s behind others%s, %s of prefill for %.0f of %.0f tokens",
                        seconds_say(term->ttft_s, ttft), seconds_say(term->queue_s, queue), before,
                        seconds_say(term->prefill_s, prefill), request->tokens - term->hit_tokens,
                        request->tokens);
    if (used < 0 || (size_t)used >= size || !term->load_blocks)
        return used;
    int more = snprintf(out + used, size - (size_t)used,
                        term->fetch_blocks ? ", %s to load %u blocks, %u of them from elsewhere"
                                           : ", %s to load %u blocks",
                        seconds_say(term->latency_s + term->data_s, load), term->load_blocks,
                        term->fetch_blocks);
    return more < 0 ? more : used + more;
}
