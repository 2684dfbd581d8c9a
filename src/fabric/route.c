/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fabric/inner.h"
#include "sys/clock.h"
#include "sys/memory.h"

/* Of a link on which nothing was measured yet: 10 Gbit/s, not far. */
#define LATENCY_S 200e-6
#define BYTES_S 1.25e9
#define BELOW_BYTES_S 1e9    /* of tiers of which nothing was said yet */
#define LEAST_BYTES_S 1000.0 /* a measured rate below is none */

#define SELF WF_FABRIC_PEERS_MAX /* the seat of this node; those of others are their numbers */
#define SEVERAL (SELF + 1)       /* of no node: of what several have between them */
#define SEATS (SELF + 2)
#define HOLDERS 8u   /* of a block: so many are thought of */
#define TABLE 16384u /* a power of two, and more than twice the seats */
#define NO_SEAT UINT16_MAX

/* A node that is, or was, known by that name. */
struct seat {
    char name[WF_MEMBER_NAME_MAX + 1];
    bool taken;
    enum wf_routes_why why;
    uint64_t domains;          /* a bit each, of those that it has, too */
    double latency_s, bytes_s; /* between it and this node; 0: not measured */
    struct wf_route_way below; /* its tiers, as it said; bytes_s 0: it did not */
};

struct wf_routes {
    char name[WF_MEMBER_NAME_MAX + 1];
    struct wf_routes_options options;
    struct seat *seats;                         /* [SEATS] */
    uint16_t table[TABLE];                      /* by name */
    uint16_t there[SEATS], there_count;         /* of seats that are taken, but for this node's */
    uint64_t serial;                            /* of the figures that this is from */
    struct wf_route *of[WF_FABRIC_DOMAINS_MAX]; /* a domain that asked */
    /* Of one answer: */
    struct wf_fabric *fabric; /* NULL: this node is alone */
    enum wf_routes_why own;   /* why this node does not serve, where it does not */
    uint32_t domain;
    const uint8_t (*keys)[32];
    uint32_t blocks[WF_PLACES_USED];
    uint16_t seat_of[WF_ROUTES_NODES_MAX];
    struct wf_route_node nodes[WF_ROUTES_NODES_MAX];
    struct wf_route_term terms[WF_ROUTES_NODES_MAX];
    struct wf_route_before before[WF_ROUTES_CANDIDATES_MAX];
};

/* ---------------------------------------------------------------------------------------- seats */

static uint32_t place_of_name(const char *name)
{
    return (uint32_t)(XXH3_64bits(name, strlen(name)) >> 32) & (TABLE - 1);
}

static void seat_index(struct wf_routes *r, uint16_t number)
{
    uint32_t at = place_of_name(r->seats[number].name);
    while (r->table[at] != NO_SEAT)
        at = (at + 1) & (TABLE - 1);
    r->table[at] = number;
}

static uint16_t seat_find(const struct wf_routes *r, const char *name)
{
    uint32_t at = place_of_name(name);
    for (; r->table[at] != NO_SEAT; at = (at + 1) & (TABLE - 1))
        if (strcmp(r->seats[r->table[at]].name, name) == 0)
            return r->table[at];
    return NO_SEAT;
}

/* Somebody else has this seat now: what was known of its load says nothing. */
static void seat_give(struct wf_routes *r, uint16_t number, const char *name)
{
    struct seat *seat = &r->seats[number];
    if (strcmp(seat->name, name) == 0)
        return;
    for (uint32_t d = 0; d < WF_FABRIC_DOMAINS_MAX; d++)
        if (r->of[d])
            wf_route_forget(r->of[d], number);
    snprintf(seat->name, sizeof seat->name, "%s", name);
}

/* The lock is held. */
static void seats_refresh(struct wf_routes *r, struct wf_fabric *f)
{
    f->figures_wanted = true;
    if (r->serial == f->shown_serial)
        return;
    r->serial = f->shown_serial;
    memset(r->table, 0xff, sizeof r->table);
    for (uint32_t i = 0; i < r->there_count; i++)
        r->seats[r->there[i]].taken = false;
    r->there_count = 0;
    seat_index(r, SELF);
    for (uint32_t i = 0; i < f->shown_count; i++) {
        const struct wf_fabric_peer *peer = &f->shown[i];
        struct seat *seat = &r->seats[peer->number];
        if (!peer->name[0] || seat->taken || strcmp(peer->name, r->name) == 0)
            continue;
        seat_give(r, (uint16_t)peer->number, peer->name);
        seat->taken = true;
        seat->why = !peer->up         ? WF_ROUTES_AWAY
                    : !peer->believed ? WF_ROUTES_NO_MEMBER
                    : peer->draining  ? WF_ROUTES_DRAINING
                                      : WF_ROUTES_SERVES;
        seat->domains = seat->why == WF_ROUTES_AWAY || seat->why == WF_ROUTES_NO_MEMBER
                            ? 0
                            : peer->domain_mask;
        seat->latency_s = (double)peer->rtt_us * 1e-6;
        double gbps = peer->assumed_gbps > 0 ? peer->assumed_gbps : peer->read_gbps;
        seat->bytes_s = gbps * 1e9 > LEAST_BYTES_S ? gbps * 1e9 : 0;
        seat->below = (struct wf_route_way){.latency_s = peer->below_latency_us * 1e-6,
                                            .bytes_s = peer->below_mbps * 1e6};
        r->there[r->there_count++] = (uint16_t)peer->number;
        seat_index(r, (uint16_t)peer->number);
    }
}

/* ---------------------------------------------------------------------------- create, destroy */

enum weft_status wf_routes_create(const struct wf_routes_options *options, struct wf_routes **out)
{
    struct wf_routes *r = wf_calloc(1, sizeof *r, "where requests run");
    if (!r)
        return WEFT_E_NO_MEMORY;
    r->seats = wf_calloc(SEATS, sizeof *r->seats, "where requests run");
    if (!r->seats) {
        free(r);
        return WEFT_E_NO_MEMORY;
    }
    r->options = *options;
    snprintf(r->name, sizeof r->name, "%s", options->name);
    snprintf(r->seats[SELF].name, sizeof r->seats[SELF].name, "%s", options->name);
    r->seats[SELF].taken = true;
    r->seats[SELF].domains = r->seats[SEVERAL].domains = UINT64_MAX;
    memset(r->table, 0xff, sizeof r->table);
    seat_index(r, SELF);
    *out = r;
    return WEFT_OK;
}

void wf_routes_destroy(struct wf_routes *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < WF_FABRIC_DOMAINS_MAX; i++)
        wf_route_destroy(r->of[i]);
    free(r->seats);
    free(r);
}

static enum weft_status route_of(struct wf_routes *r, uint32_t domain, struct wf_route **out)
{
    if (!r->of[domain]) {
        const struct wf_route_options options = {.nodes_max = SEATS,
                                                 .seed = r->options.seed,
                                                 .work_price = -1,
                                                 .home_price = -1,
                                                 .tie_part = -1,
                                                 .coming_s = -1};
        enum weft_status status = wf_route_create(&options, &r->of[domain]);
        if (status != WEFT_OK)
            return status;
    }
    *out = r->of[domain];
    return WEFT_OK;
}

/* ----------------------------------------------------------------------------------- a question */

static enum weft_status check(const struct wf_routes_question *q)
{
    if (q->domain >= WF_FABRIC_DOMAINS_MAX)
        return wf_fail(WEFT_E_INVALID, "a route in domain %u; there are %u", q->domain,
                       WF_FABRIC_DOMAINS_MAX);
    if (q->count > WF_ROUTES_KEYS_MAX)
        return wf_fail(WEFT_E_LIMIT,
                       "a route by %u keys; give %u at most, every so many-th of a longer chain",
                       q->count, WF_ROUTES_KEYS_MAX);
    if (q->candidate_count > WF_ROUTES_CANDIDATES_MAX)
        return wf_fail(WEFT_E_LIMIT, "a route among %u candidates; name %u at most",
                       q->candidate_count, WF_ROUTES_CANDIDATES_MAX);
    return WEFT_OK;
}

/* What others have of the chain goes to r->blocks, by their number in the replica. */
static uint32_t blocks_of(const struct wf_routes *r, uint16_t seat)
{
    uint32_t place = seat < SELF && r->fabric ? r->fabric->place_of[seat] : WF_PLACE_NONE;
    return place < WF_PLACES_USED && (r->seats[seat].domains >> r->domain & 1) ? r->blocks[place]
                                                                               : 0;
}

/* Of what it has, the part that is in its memory: as in DRAM anywhere, a parent outlives its
 * children there, so that what is below begins somewhere and goes on to the end. */
static uint32_t near_of(const struct wf_routes *r, uint16_t seat, uint32_t held)
{
    const struct wf_places *below = r->fabric->below;
    uint16_t place = (uint16_t)r->fabric->place_of[seat];
    uint32_t low = 0, high = wf_places_of(below, place) ? held : 0;
    if (!high)
        return held;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (wf_places_holds(below, r->keys[middle], place))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static struct wf_route_node *node_add(struct wf_routes *r, struct wf_routes_answer *a,
                                      uint16_t seat, const char *name, enum wf_routes_why why)
{
    uint32_t i = a->count + a->others;
    struct wf_routes_term *term = &a->terms[i];
    r->seat_of[i] = seat;
    memset(term, 0, sizeof *term);
    snprintf(term->name, sizeof term->name, "%s", name);
    term->why = why;
    /* Who is not known has a number that the router does not have, and so serves nothing. */
    r->nodes[i] = (struct wf_route_node){.node = seat, .serves = why == WF_ROUTES_SERVES};
    uint32_t held = seat == NO_SEAT ? 0 : blocks_of(r, seat);
    r->nodes[i].near_blocks = r->nodes[i].held_blocks = held;
    if (held) {
        r->nodes[i].near_blocks = near_of(r, seat, held);
        r->nodes[i].below = r->seats[seat].below;
        if (r->nodes[i].below.bytes_s <= 0)
            r->nodes[i].below.bytes_s = BELOW_BYTES_S;
    }
    return &r->nodes[i];
}

static void candidates_named(struct wf_routes *r, struct wf_route *route,
                             const struct wf_routes_question *q, double now_s,
                             struct wf_routes_answer *a)
{
    for (uint32_t i = 0; i < q->candidate_count; i++) {
        const struct wf_routes_candidate *c = &q->candidates[i];
        uint16_t seat = seat_find(r, c->name);
        enum wf_routes_why why = seat == NO_SEAT ? WF_ROUTES_UNKNOWN
                                 : seat == SELF  ? r->own
                                                 : r->seats[seat].why;
        for (uint32_t k = 0; k < i && seat != NO_SEAT; k++)
            if (r->seat_of[k] == seat)
                why = WF_ROUTES_NOT_ASKED; /* it was named before */
        if (why != WF_ROUTES_UNKNOWN && c->loaded && q->asks_only)
            wf_route_suppose(route, seat, &c->load, now_s - c->age_s, &r->before[i]);
        else if (why != WF_ROUTES_UNKNOWN && c->loaded)
            wf_route_report(route, seat, &c->load, now_s - c->age_s);
        if (why == WF_ROUTES_SERVES && c->loaded && c->load.closed)
            why = WF_ROUTES_CLOSED;
        (void)node_add(r, a, seat, c->name, why);
        a->count++;
    }
}

/* Who only asks says nothing of a candidate's load that is kept. */
static void candidates_forget(struct wf_routes *r, struct wf_route *route,
                              const struct wf_routes_question *q)
{
    for (uint32_t i = q->candidate_count; q->asks_only && i-- > 0;)
        if (q->candidates[i].loaded && r->seat_of[i] != NO_SEAT)
            wf_route_unreport(route, r->seat_of[i], &r->before[i]);
}

/* This node, then those that have something of it, then the others, beginning somewhere. */
static void candidates_all(struct wf_routes *r, const struct wf_routes_question *q,
                           struct wf_routes_answer *a)
{
    uint32_t n = r->there_count;
    (void)node_add(r, a, SELF, r->name, r->own);
    a->count++;
    for (int pass = 0; pass < 2; pass++) {
        uint32_t first = pass && n ? (uint32_t)(q->request.id * 0x9e3779b97f4a7c15u >> 33) % n : 0;
        for (uint32_t i = 0; i < n && a->count < WF_ROUTES_CANDIDATES_MAX; i++) {
            uint16_t seat = r->there[(first + i) % n];
            const struct seat *s = &r->seats[seat];
            if (s->why != WF_ROUTES_SERVES || (blocks_of(r, seat) == 0) != pass)
                continue;
            (void)node_add(r, a, seat, s->name, WF_ROUTES_SERVES);
            a->count++;
        }
    }
}

static bool is_among(const struct wf_routes *r, const struct wf_routes_answer *a, uint16_t seat)
{
    for (uint32_t i = 0; i < a->count + a->others; i++)
        if (r->seat_of[i] == seat)
            return true;
    return false;
}

/* Those that have most of it, of nodes that are no candidates; this one, if it is none, first. */
static void sources_add(struct wf_routes *r, struct wf_routes_answer *a)
{
    uint16_t best[WF_ROUTE_SOURCES];
    uint32_t found = 0;
    if (!is_among(r, a, SELF)) {
        (void)node_add(r, a, SELF, r->name, WF_ROUTES_NOT_ASKED);
        a->others++;
    }
    for (uint32_t i = 0; i < r->there_count; i++) {
        uint16_t seat = r->there[i];
        uint32_t has = blocks_of(r, seat);
        if (!has || (found == WF_ROUTE_SOURCES && blocks_of(r, best[found - 1]) >= has) ||
            is_among(r, a, seat))
            continue;
        uint32_t at = found < WF_ROUTE_SOURCES ? found++ : found - 1;
        for (; at > 0 && blocks_of(r, best[at - 1]) < has; at--)
            best[at] = best[at - 1];
        best[at] = seat;
    }
    for (uint32_t i = 0; i < found; i++) {
        (void)node_add(r, a, best[i], r->seats[best[i]].name, WF_ROUTES_NOT_ASKED);
        a->others++;
    }
}

/* What this node has in its pool and below, or in the memory that it lends. */
static void own_look(struct wf_routes *r, const struct wf_routes_question *q,
                     const struct wf_routes_answer *a)
{
    struct wf_routes_own own = {.near_blocks = 0};
    if (r->options.own && q->count)
        r->options.own(r->options.context, q->domain, q->keys, q->count, &own);
    const struct wf_fabric *f = r->fabric;
    uint32_t lent = f && f->lent ? r->blocks[f->own.place] : 0;
    own.near_blocks = lent > own.near_blocks ? lent : own.near_blocks;
    own.held_blocks = lent > own.held_blocks ? lent : own.held_blocks;
    for (uint32_t i = 0; i < a->count + a->others; i++) {
        if (r->seat_of[i] != SELF)
            continue;
        r->nodes[i].near_blocks = own.near_blocks;
        r->nodes[i].held_blocks = own.held_blocks;
        r->nodes[i].below = own.below;
    }
}

/* Where this node keeps a part of the directory: so many of a chain's keys are asked about, and
 * answered by. */
#define LOOKS 128u
#define LENT_STRIDE 7u
static uint32_t looks_stride(const struct wf_fabric *f, const struct wf_routes_question *q)
{
    return wf_fabric_in_parts(f) ? (q->count + LOOKS - 1) / LOOKS : 0;
}

/* Where nobody lends memory, nobody has a block without its parent, and the whole chain is halved.
 * A lender has those for which it had room: two that get them in turns are not to have all of those
 * that are looked at. */
static uint32_t halves_stride(const struct wf_fabric *f, const struct wf_routes_question *q)
{
    uint32_t parts = looks_stride(f, q);
    return parts ? parts : f->lent || f->lenders_bytes ? LENT_STRIDE : 0;
}

/* ------------------------------------------------------------------- what several have together */

static double rate_of(const struct seat *seat)
{
    return seat->bytes_s > 0 ? seat->bytes_s : BYTES_S;
}

/* The way from all of them is as the worst of theirs. */
static void several_way(struct wf_routes *r, uint16_t seat)
{
    const struct seat *its = &r->seats[seat];
    struct seat *all = &r->seats[SEVERAL];
    if (seat >= SELF)
        return;
    all->latency_s = its->latency_s > all->latency_s ? its->latency_s : all->latency_s;
    all->bytes_s = all->bytes_s <= 0 || rate_of(its) < all->bytes_s ? rate_of(its) : all->bytes_s;
}

/* Somebody has it from whom it can be fetched (the fastest will be), or it lies in what this node
 * lends. */
static bool anyone_has(struct wf_routes *r, const uint8_t key[32])
{
    const struct wf_fabric *f = r->fabric;
    uint16_t best = NO_SEAT;
    uint16_t holders[HOLDERS];
    uint32_t count = wf_places_holders(f->places, key,
                                       wf_quality_class(f->domains[r->domain].quality), holders,
                                       HOLDERS);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t peer = f->peer_of[holders[i]];
        if (peer == WF_PLACE_OWN)
            return true;
        if (peer >= SELF || !r->seats[peer].taken || !(r->seats[peer].domains >> r->domain & 1))
            continue;
        if (best == NO_SEAT || rate_of(&r->seats[peer]) > rate_of(&r->seats[best]))
            best = (uint16_t)peer;
    }
    if (best != NO_SEAT)
        several_way(r, best);
    return best != NO_SEAT;
}

/* So many blocks, without a hole, somebody or other has, where one node has `has` of them.  At most
 * LOOKS are looked at one after the other, and halved in between, as with the nodes' own: a hole
 * that is not seen is a miss later. */
static uint32_t anyone_has_of(struct wf_routes *r, const struct wf_routes_question *q, uint32_t has)
{
    uint32_t parts = looks_stride(r->fabric, q), low = has;
    uint32_t step = parts ? parts : (q->count + LOOKS - 1) / LOOKS | 1;
    uint32_t at = parts ? (has + parts - 1) / parts * parts : has;
    for (;; at += step) {
        at = at < q->count ? at : q->count - 1;
        if (!anyone_has(r, q->keys[at]))
            break;
        low = at + 1;
        if (low == q->count)
            break;
    }
    /* In parts nothing is known of what lies in between. */
    for (uint32_t high = at; !parts && low < high;) {
        uint32_t middle = low + (high - low) / 2;
        if (anyone_has(r, q->keys[middle]))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Lenders have a chain between them as they had room: one source more, where that is more than any
 * of them has alone. */
static void several_add(struct wf_routes *r, const struct wf_routes_question *q,
                        struct wf_routes_answer *a)
{
    const struct wf_route_node *most = &r->nodes[0];
    for (uint32_t i = 1; i < a->count + a->others; i++)
        if (r->nodes[i].held_blocks > most->held_blocks)
            most = &r->nodes[i];
    if (!r->fabric || most->held_blocks >= q->count)
        return;
    r->seats[SEVERAL].latency_s = r->seats[SEVERAL].bytes_s = 0;
    if (most->held_blocks)
        several_way(r, r->seat_of[most - r->nodes]);
    uint32_t all = anyone_has_of(r, q, most->held_blocks);
    if (all == most->held_blocks)
        return;
    struct wf_route_node *node = node_add(r, a, SEVERAL, "several nodes", WF_ROUTES_NOT_ASKED);
    a->others++;
    node->held_blocks = all;
    /* What that one has not lies in memory that is lent, as a rule; its tier counts where more
     * comes from there. */
    uint32_t below = most->held_blocks - most->near_blocks, others = all - most->held_blocks;
    node->near_blocks = below > others ? most->near_blocks : all;
    node->below = most->below;
    /* Of which most comes from one, that waits for what else that one sends. */
    node->several = most->held_blocks < others;
    node->node = node->several ? node->node : most->node;
}

/* ------------------------------------------------------------------------------------ the links */

/* Both ways the same, and between two others as between each of them and this node: that is all
 * that is measured here. */
static struct wf_route_way way(void *context, uint32_t from, uint32_t to)
{
    const struct wf_routes *r = context;
    struct wf_route_way out = {.latency_s = 0, .bytes_s = 0};
    if (r->seat_of[from] == NO_SEAT || r->seat_of[to] == NO_SEAT ||
        r->seat_of[from] == r->seat_of[to])
        return out;
    const struct seat *ends[2] = {&r->seats[r->seat_of[from]], &r->seats[r->seat_of[to]]};
    double bytes_s = 0;
    for (int i = 0; i < 2; i++) {
        if (!(ends[i]->domains >> r->domain & 1))
            return out;
        if (ends[i] == &r->seats[SELF])
            continue;
        double latency_s = ends[i]->latency_s > 0 ? ends[i]->latency_s : LATENCY_S;
        out.latency_s = latency_s > out.latency_s ? latency_s : out.latency_s;
        if (ends[i]->bytes_s > 0 && (bytes_s <= 0 || ends[i]->bytes_s < bytes_s))
            bytes_s = ends[i]->bytes_s;
    }
    out.bytes_s = bytes_s > 0 ? bytes_s : BYTES_S;
    return out;
}

/* ------------------------------------------------------------------------------------ an answer */

/* From groups of blocks to blocks. */
static void term_copy(const struct wf_routes *r, uint32_t i, uint32_t stride,
                      struct wf_routes_term *out)
{
    out->near_blocks = r->nodes[i].near_blocks * stride;
    out->held_blocks = r->nodes[i].held_blocks * stride;
    out->term = r->terms[i];
    out->term.load_blocks *= stride;
    out->term.fetch_blocks *= stride;
}

/* Owners are asked who has what of it: who asks again soon is answered by that. */
static void look(struct wf_fabric *f, const struct wf_routes_question *q)
{
    struct wf_fabric_event events[LOOKS + 1];
    uint32_t count = 0, stride = looks_stride(f, q);
    memset(events, 0, sizeof events);
    for (uint32_t at = 0; stride && count <= LOOKS; at += stride) {
        at = at < q->count ? at : q->count - 1;
        events[count].domain = (uint8_t)q->domain;
        events[count].bytes = (uint64_t)q->request.block_bytes;
        memcpy(events[count++].key, q->keys[at], 32);
        if (at == q->count - 1)
            break;
    }
    (void)wf_fabric_look(f, events, count); /* too many are on their way: it is known later */
}

/* With a fabric its lock is held. */
static enum weft_status ask(struct wf_routes *r, struct wf_fabric *f, uint64_t now_ns,
                            const struct wf_routes_question *q, struct wf_routes_answer *a)
{
    struct wf_route *route;
    enum weft_status status = check(q);
    if (status == WEFT_OK)
        status = route_of(r, q->domain, &route);
    if (status != WEFT_OK)
        return status;
    uint32_t stride = q->stride ? q->stride : 1;
    double now_s = (double)now_ns * 1e-9;
    bool drains = f && atomic_load_explicit(&f->draining, memory_order_relaxed);
    r->fabric = f;
    r->own = q->closed || drains ? WF_ROUTES_DRAINING : WF_ROUTES_SERVES;
    r->domain = q->domain;
    r->keys = q->keys;
    if (f) {
        seats_refresh(r, f);
        (void)wf_places_prefixes(f->places, q->keys, q->count, halves_stride(f, q),
                                 wf_quality_class(f->domains[q->domain].quality), NULL, r->blocks);
    }
    a->count = a->others = 0;
    if (q->candidate_count)
        candidates_named(r, route, q, now_s, a);
    else
        candidates_all(r, q, a);
    sources_add(r, a);
    own_look(r, q, a);
    several_add(r, q, a);
    uint32_t nodes = a->count + a->others;
    if (q->count)
        wf_route_coming(route, q->keys, q->count, r->nodes, nodes, now_s);
    struct wf_route_request request = q->request;
    request.block_tokens *= stride;
    request.block_bytes *= stride;
    const struct wf_route_links links = {.way = way, .context = r};
    struct wf_route_answer chosen;
    wf_route_choose(route, &request, r->nodes, nodes, &links, now_s, r->terms, &chosen);
    if (!q->asks_only)
        wf_route_sent(route, r->nodes, &chosen, q->count ? q->keys : NULL, q->count, now_s);
    candidates_forget(r, route, q);
    a->chosen = chosen.chosen;
    a->request = q->request;
    for (uint32_t i = 0; i < nodes; i++)
        term_copy(r, i, stride, &a->terms[i]);
    r->fabric = NULL;
    return WEFT_OK;
}

enum weft_status wf_routes_ask(struct wf_routes *r, uint64_t now_ns,
                               const struct wf_routes_question *question,
                               struct wf_routes_answer *out)
{
    uint64_t began_ns = wf_now_ns();
    enum weft_status status = ask(r, NULL, now_ns, question, out);
    out->took_ns = wf_now_ns() - began_ns;
    return status;
}

enum weft_status wf_fabric_route(struct wf_fabric *f, const struct wf_routes_question *question,
                                 struct wf_routes_answer *out)
{
    uint64_t began_ns = wf_now_ns();
    const struct wf_routes_options options = {.name = f->name,
                                              .seed = f->options.seed,
                                              .context = f->options.host.context,
                                              .own = f->options.host.own};
    if (wf_fabric_in_parts(f) && question->domain < f->domain_count &&
        question->count <= WF_ROUTES_KEYS_MAX)
        look(f, question);
    pthread_mutex_lock(&f->lock);
    enum weft_status status = f->routes ? WEFT_OK : wf_routes_create(&options, &f->routes);
    if (status == WEFT_OK)
        status = ask(f->routes, f, wf_fabric_now(f), question, out);
    pthread_mutex_unlock(&f->lock);
    out->took_ns = wf_now_ns() - began_ns;
    return status;
}

/* ------------------------------------------------------------------------------------- in words */

int wf_routes_say(const struct wf_routes_answer *answer, uint32_t index, char *out, size_t size)
{
    static const char *const why[] = {
        [WF_ROUTES_SERVES] = "it takes no requests",
        [WF_ROUTES_UNKNOWN] = "no node of that name is known here",
        [WF_ROUTES_AWAY] = "there is no link to it",
        [WF_ROUTES_NO_MEMBER] = "it is no member of the cluster",
        [WF_ROUTES_DRAINING] = "it drains",
        [WF_ROUTES_CLOSED] = "it takes no requests",
        [WF_ROUTES_NOT_ASKED] = "it was not named, or named before",
    };
    const struct wf_routes_term *t = &answer->terms[index];
    if (t->term.action == WF_ROUTE_CLOSED)
        return snprintf(out, size, "%s", why[t->why]);
    int used = wf_route_say(&t->term, &answer->request, out, size);
    if (used < 0 || (size_t)used >= size || t->term.source == WF_ROUTE_NONE)
        return used;
    int more = snprintf(out + used, size - (size_t)used, ": %s",
                        answer->terms[t->term.source].name);
    return more < 0 ? more : used + more;
}
