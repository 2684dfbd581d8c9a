/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains that go from one node to another, what all nodes are to remove, and that this one drains.
 *
 * Other threads leave an order, and the fabric's thread carries it out.  A chain is handed over by
 * its blocks' events, parents first, on the link that tells of blocks anyway, and the word which of
 * them is its end: the other side knows where they are then, before its own stream would have said
 * so, and fetches them like any others.  So a chain that is being computed is handed over as it
 * grows, block by block, each fetched while the next is made.
 *
 * A node that takes nothing now holds up what it is to be told itself, in its order, and nobody
 * else.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define ORDERS_MAX 1024u
#define OFFER_EVENTS 400u /* in a message */
#define FORGET_TURN 1024u /* blocks of what is lent */
#define STUCK_MAX 16u     /* nodes that take nothing now; behind more of them all orders wait */
#define LOST_SAY_NS 1000000000u

enum order_kind { OFFER, FORGET, FORGET_LENT, FORGET_LENT_HERE, LOOK };

struct wf_order {
    struct wf_order *next;
    enum order_kind kind;
    char name[WF_MEMBER_NAME_MAX + 1];
    /* Events, and how many the other was told; FORGET: 1, and nothing; FORGET_LENT: all were. */
    uint32_t count, said;
    uint64_t told[WF_FABRIC_PEERS_MAX / 64]; /* of what is to be forgotten: a bit each of `peers` */
    struct wf_fabric_event events[];
};

/* ---------------------------------------------------------------------------------- any thread */

bool wf_fabric_is_known(struct wf_fabric *f, const char *name)
{
    bool known = false;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->shown_count && !known; i++)
        known = strcmp(f->shown[i].name, name) == 0;
    pthread_mutex_unlock(&f->lock);
    return known;
}

static enum weft_status leave(struct wf_fabric *f, enum order_kind kind, const char *name,
                              const struct wf_fabric_event *events, uint32_t count)
{
    if (name[0] && strcmp(name, f->name) == 0)
        return wf_fail(WEFT_E_INVALID,
                       "%.63s is this node; name another, as weft fabric lists them", name);
    if (name[0] && !wf_fabric_is_known(f, name))
        return wf_fail(WEFT_E_NOT_FOUND, "no node is called '%.63s'; weft fabric lists them", name);
    struct wf_order *order = wf_calloc(1, sizeof *order + count * sizeof *events, "an order");
    if (!order)
        return WEFT_E_NO_MEMORY;
    order->kind = kind;
    order->count = count;
    memcpy(order->name, name, strnlen(name, WF_MEMBER_NAME_MAX));
    memcpy(order->events, events, count * sizeof *events);
    pthread_mutex_lock(&f->lock);
    bool room = f->order_count < ORDERS_MAX;
    if (room) {
        *f->orders_end = order;
        f->orders_end = &order->next;
        f->order_count++;
    }
    pthread_mutex_unlock(&f->lock);
    if (!room) {
        free(order);
        return wf_fail(WEFT_E_BUSY, "%u chains are on their way to other nodes; try again",
                       ORDERS_MAX);
    }
    wf_fabric_wake(f);
    return WEFT_OK;
}

enum weft_status wf_fabric_offer(struct wf_fabric *f, const char *name,
                                 const struct wf_fabric_event *blocks, uint32_t count)
{
    if (count == 0 || count > WF_FABRIC_OFFER_MAX)
        return wf_fail(WEFT_E_INVALID, "a chain of %u blocks cannot be handed over; 1 to %u can",
                       count, WF_FABRIC_OFFER_MAX);
    return leave(f, OFFER, name, blocks, count);
}

enum weft_status wf_fabric_forget(struct wf_fabric *f, uint32_t domain, const uint8_t key[32])
{
    struct wf_fabric_event block = {.kind = WF_FABRIC_GONE, .domain = (uint8_t)domain};
    memcpy(block.key, key, 32);
    return leave(f, FORGET, "", &block, 1);
}

enum weft_status wf_fabric_forget_lent(struct wf_fabric *f, uint32_t domain,
                                       const uint8_t (*keys)[32], uint32_t count, bool everywhere)
{
    struct wf_fabric_event *blocks = wf_calloc(count, sizeof *blocks, "an order");
    if (!blocks)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        blocks[i].kind = WF_FABRIC_GONE;
        blocks[i].domain = (uint8_t)domain;
        memcpy(blocks[i].key, keys[i], 32);
    }
    enum weft_status status = leave(f, everywhere ? FORGET_LENT : FORGET_LENT_HERE, "", blocks,
                                    count);
    free(blocks);
    return status;
}

enum weft_status wf_fabric_look(struct wf_fabric *f, const struct wf_fabric_event *blocks,
                                uint32_t count)
{
    if (count == 0 || !wf_fabric_in_parts(f))
        return WEFT_OK;
    if (count > WF_FABRIC_OFFER_MAX)
        return wf_fail(WEFT_E_INVALID, "%u blocks cannot be looked for at once; %u can", count,
                       WF_FABRIC_OFFER_MAX);
    return leave(f, LOOK, "", blocks, count);
}

bool wf_fabric_in_parts(const struct wf_fabric *f)
{
    return atomic_load_explicit(&f->in_parts, memory_order_relaxed);
}

void wf_fabric_drain(struct wf_fabric *f, bool on)
{
    pthread_mutex_lock(&f->lock);
    atomic_store_explicit(&f->draining, on, memory_order_relaxed);
    f->put_since = true; /* perhaps, between two orders of which the thread saw neither */
    f->shown_figures.drained = false;
    pthread_mutex_unlock(&f->lock);
    wf_figures_change(f);
    wf_fabric_wake(f);
}

/* --------------------------------------------------------------------------------- carried out */

/* That is one event a second at most; figures count them all. */
static void offer_lost(struct wf_fabric *f, const struct wf_order *order, const char *why)
{
    uint64_t now_ns = wf_fabric_now(f);
    f->figures.offers_lost++;
    if (now_ns < f->offers_lost_ns)
        return;
    f->offers_lost_ns = now_ns + LOST_SAY_NS;
    wf_fabric_say(
        f,
        "a chain of %u block%s is not handed over to %s: %s; it is fetched from here when "
        "somebody there asks for it",
        order->count, order->count == 1 ? "" : "s", order->name, why);
}

/* True: nothing is left to be done. */
static bool offer(struct wf_fabric *f, struct wf_order *order)
{
    static _Thread_local union {
        struct wf_fabric_offer offer;
        uint8_t
            bytes[sizeof(struct wf_fabric_offer) + OFFER_EVENTS * sizeof(struct wf_fabric_event)];
    } m;
    const struct wf_peer_node *peer = wf_peer_find(f, order->name);
    if (peer && peer->draining) {
        offer_lost(f, order, "it drains");
        return true;
    }
    while (peer && peer->link && order->said < order->count) {
        struct wf_link *link = peer->link;
        uint32_t count = order->count - order->said;
        if (!wf_link_can_say(link))
            return false;
        count = count < OFFER_EVENTS ? count : OFFER_EVENTS;
        m.offer =
            (struct wf_fabric_offer){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_OFFER},
                                     .count = count,
                                     .flags = order->said + count == order->count ? WF_FABRIC_LAST
                                                                                  : 0};
        memcpy(m.offer.events, order->events + order->said, count * sizeof order->events[0]);
        uint32_t bytes = (uint32_t)(sizeof m.offer + count * sizeof order->events[0]);
        if (link->theirs_of[order->events[0].domain] == WF_DOMAIN_NONE) {
            offer_lost(f, order, "it does not have that domain");
            return true;
        }
        if (!wf_link_say(link, &m, bytes))
            return false;
        order->said += count;
        f->figures.offers += m.offer.flags != 0;
    }
    if (order->said < order->count)
        offer_lost(f, order, "there is no link to it now");
    return true;
}

/* Who is to lend no more has what was there, until that has gone elsewhere. */
static bool has_lent(const struct wf_peer_node *peer)
{
    return peer->said.lent_bytes || peer->said.lends_used_bytes;
}

static bool forget(struct wf_fabric *f, struct wf_order *order, const struct wf_fabric_event *block,
                   uint32_t flags)
{
    struct wf_fabric_forget say = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_FORGET},
                                   .domain = block->domain,
                                   .flags = flags};
    bool all = true;
    memcpy(say.key, block->key, 32);
    if (f->lent) /* what others have put here is not in the host's pool */
        (void)wf_lent_forget(f->lent, block->domain, say.key);
    for (uint32_t i = 0; order->kind != FORGET_LENT_HERE && i < f->peer_count; i++) {
        struct wf_link *link = f->peers[i].link;
        if (wf_bit(order->told, i) || !link || link->theirs_of[block->domain] == WF_DOMAIN_NONE)
            continue;
        if (order->kind == FORGET_LENT && !has_lent(&f->peers[i]))
            continue;
        if (wf_link_can_say(link) && wf_link_say(link, &say, sizeof say))
            wf_bit_set(order->told, i);
        else
            all = false;
    }
    return all;
}

/* One after the other; a node that takes no word now holds them up, and others have their turn. */
static bool forget_lent(struct wf_fabric *f, struct wf_order *order)
{
    for (uint32_t n = 0; order->said < order->count; order->said++, n++) {
        if (n == FORGET_TURN)
            return false;
        if (!forget(f, order, &order->events[order->said], WF_FABRIC_FORGET_LENT))
            return false;
        memset(order->told, 0, sizeof order->told);
    }
    return true;
}

static bool carry_out(struct wf_fabric *f, struct wf_order *order)
{
    switch (order->kind) {
    case OFFER: return offer(f, order);
    case FORGET: return forget(f, order, &order->events[0], 0);
    case FORGET_LENT:
    case FORGET_LENT_HERE: return forget_lent(f, order);
    case LOOK: break;
    }
    return true;
}

/* Those who are told nothing by this order are told nothing by those of its kind behind it. */
struct stuck {
    const struct wf_order *orders[STUCK_MAX];
    uint32_t count;
};

/* True: it waits, and the next ones are to be looked at. */
static bool waits(struct wf_fabric *f, struct wf_order *order, struct stuck *stuck)
{
    if (order->kind == LOOK)
        return false;
    for (uint32_t i = 0; i < stuck->count; i++)
        if (stuck->orders[i]->kind == order->kind &&
            strcmp(stuck->orders[i]->name, order->name) == 0)
            return true;
    if (carry_out(f, order))
        return false;
    stuck->orders[stuck->count++] = order;
    return true;
}

void wf_orders_run(struct wf_fabric *f)
{
    struct stuck stuck = {.count = 0};
    struct wf_order **at = &f->orders;
    while (stuck.count < STUCK_MAX) {
        pthread_mutex_lock(&f->lock);
        struct wf_order *order = *at;
        pthread_mutex_unlock(&f->lock);
        if (!order)
            return;
        if (waits(f, order, &stuck)) {
            at = &order->next;
            continue;
        }
        pthread_mutex_lock(&f->lock);
        *at = order->next;
        if (f->orders_end == &order->next)
            f->orders_end = at;
        f->order_count--;
        pthread_mutex_unlock(&f->lock);
        /* A walk that takes it frees it, perhaps at once. */
        if (order->kind == LOOK && wf_walk_begin(f, order, order->events, order->count))
            continue;
        free(order);
    }
}

void wf_orders_end(struct wf_fabric *f)
{
    while (f->orders) {
        struct wf_order *order = f->orders;
        f->orders = order->next;
        free(order);
    }
}

bool wf_offer_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_offer *told = header;
    if (link->state != WF_LINK_JOINED || bytes < sizeof *told || told->count == 0 ||
        told->count > WF_FABRIC_EVENTS_MAX ||
        bytes != sizeof *told + told->count * sizeof told->events[0])
        return false;
    if (!wf_peer_believed(f, link->peer))
        return true;
    for (uint32_t i = 0; i < told->count; i++)
        if (told->events[i].kind != WF_FABRIC_HERE || !wf_stream_offered(link, &told->events[i]))
            return false;
    const struct wf_fabric_event *last = &told->events[told->count - 1];
    bool drains = atomic_load_explicit(&f->draining, memory_order_relaxed);
    if (!(told->flags & WF_FABRIC_LAST) || drains || !f->options.host.offered)
        return true; /* who drains takes nothing, whatever had not been heard there */
    f->figures.offered++;
    f->options.host.offered(f->options.host.context, link->peer->name, link->ours_of[last->domain],
                            last->key);
    return true;
}

bool wf_forget_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_forget *say = header;
    if (link->state != WF_LINK_JOINED || bytes != sizeof *say ||
        say->domain >= WF_FABRIC_DOMAINS_MAX)
        return false;
    uint32_t domain = link->ours_of[say->domain];
    if (domain == WF_DOMAIN_NONE || !wf_peer_believed(f, link->peer))
        return true;
    if (f->lent)
        (void)wf_lent_forget(f->lent, domain, say->key);
    if (f->options.host.forget && !(say->flags & WF_FABRIC_FORGET_LENT))
        f->options.host.forget(f->options.host.context, link->peer->name, domain, say->key);
    return true;
}
