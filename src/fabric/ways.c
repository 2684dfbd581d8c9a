/* SPDX-License-Identifier: Apache-2.0
 *
 * Over which of a node's addresses the link to it goes: chosen by measurement.
 *
 * A node is reached at once over the first of its addresses that answers.  When a link is up, and
 * its node has more than one address that this one can use, whoever began the link measures them
 * all: one after the other a link is begun that is on trial (IDENT says so, and no JOIN follows),
 * PINGS short answers and BLOCKS with payload are asked for over it, and it is closed.  What counts
 * is the time that a block of 1 MiB would take.  When another way takes less than BETTER of what
 * the link's own does, a link is begun over it, which takes the place of the older as any newer one
 * does: what the other node has is told anew, so this is not done for little.
 *
 * Only one node is measured at a time, GAP_NS after the one before, when no block is being fetched;
 * each FIRST_NS after its link came up and every AGAIN_NS then.  A trial that takes TRIAL_NS is
 * over.  The other side answers WF_FABRIC_PROBES_MAX probes a link, to GUESTS_MAX links at a time.
 *
 * A way that dies is left at once for the next one; only when all have failed is there a pause
 * (links.c).  The fabric's thread.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fabric/inner.h"

#define PINGS 8u
#define BLOCKS 16u
#define AHEAD 4u
#define FIRST_NS 500000000u
#define AGAIN_NS 600000000000u
#define LATER_NS 60000000000u /* … when nothing could be found out */
#define GAP_NS 50000000u
#define TRIAL_NS 1000000000u
#define LOOKED_AT 16u /* nodes a tick */
#define GUEST_NS 5000000000u
#define GUESTS_MAX 16u
#define BETTER 0.8

static_assert(PINGS + BLOCKS <= WF_FABRIC_PROBES_MAX, "all of a trial is answered");

/* ----------------------------------------------------------------------------------- for people */

/* How much of two addresses is the same: nothing, the transport, or the host too. */
static uint32_t likeness(const char *one, const char *other)
{
    size_t kind = strcspn(one, ":"),
           host = strrchr(one, ':') ? (size_t)(strrchr(one, ':') - one) : 0;
    if (strncmp(one, other, kind + 1) != 0)
        return 0;
    return host > kind && strncmp(one, other, host + 1) == 0 ? 2 : 1;
}

/* A list has the address as a node of its own, at which this one answered. */
static const struct wf_peer_node *listed(const struct wf_fabric *f, const struct wf_peer_node *peer)
{
    for (uint32_t i = 0; i < f->peer_count && !f->strict; i++)
        if (f->peers[i].used && f->peers[i].way_count &&
            f->peers[i].answered == (int32_t)peer->number)
            return &f->peers[i];
    return peer;
}

const char *wf_way_shown(const struct wf_fabric *f, const struct wf_peer_node *peer,
                         const struct wf_link *link)
{
    const char *there = link->ops->peer(link->net), *best = there;
    const struct wf_peer_node *of = listed(f, peer);
    uint32_t most = 0;
    /* Who began the link came from a port that nobody can call. */
    for (uint32_t i = 0; i < of->way_count && !link->ours; i++) {
        uint32_t like = likeness(of->ways[i].address, there);
        best = like > most ? of->ways[i].address : best;
        most = like > most ? like : most;
    }
    /* What is registered is what others are to call; of a list it may be another's. */
    return link->at[0] && (most == 0 || !f->strict) ? link->at : best;
}

/* Of "tcp:host:port"; 0: it has none. */
static uint16_t port_of(const char *address, size_t length)
{
    const char *at = memrchr(address, ':', length);
    char *end;
    if (!at || strncmp(address, "unix:", 5) == 0)
        return 0;
    unsigned long port = strtoul(at + 1, &end, 10);
    return end == address + length && port <= UINT16_MAX ? (uint16_t)port : 0;
}

uint16_t wf_way_port(const struct wf_link *link)
{
    const char *there = link->ops->peer(link->net);
    size_t kind = strcspn(there, ":") + 1;
    for (const char *at = link->fabric->addresses; *at;) {
        size_t length = strcspn(at, " ");
        if (strncmp(at, there, kind) == 0)
            return port_of(at, length);
        at += length + strspn(at + length, " ");
    }
    return 0;
}

void wf_way_said(struct wf_link *link, uint16_t port)
{
    const char *there = link->ops->peer(link->net), *end = strrchr(there, ':');
    if (!link->ours && port && end && port_of(there, strlen(there)))
        snprintf(link->at, sizeof link->at, "%.*s:%u", (int)(end - there), there, port);
}

/* ---------------------------------------------------------------------------------- the choice */

/* Microseconds for a block of 1 MiB; a way that could not be measured takes for ever. */
static double cost_us(const struct wf_fabric_way *way)
{
    return way->gbps > 0 ? (double)way->ping_us + 1048.576 / way->gbps : 1e18;
}

void wf_ways_take(struct wf_fabric *f, struct wf_peer_node *peer, const char *addresses)
{
    struct wf_fabric_way before[WF_FABRIC_WAYS_MAX];
    uint32_t count = peer->way_count;
    char used[WF_NET_ADDRESS_MAX];
    assert(count <= WF_FABRIC_WAYS_MAX);
    memcpy(before, peer->ways, sizeof before);
    memcpy(used, peer->ways[peer->way].address, sizeof used);
    peer->way_count = peer->way = 0;
    while (*addresses && peer->way_count < WF_FABRIC_WAYS_MAX) {
        struct wf_fabric_way *way = &peer->ways[peer->way_count];
        size_t length = strcspn(addresses, " ,");
        *way = (struct wf_fabric_way){0};
        if (length < sizeof way->address)
            memcpy(way->address, addresses, length);
        addresses += length + (addresses[length] != 0);
        if (!way->address[0] || !wf_nets_for(f, way->address))
            continue;
        for (uint32_t i = 0; i < count; i++)
            if (strcmp(before[i].address, way->address) == 0)
                *way = before[i];
        if (strcmp(way->address, used) == 0)
            peer->way = peer->way_count;
        peer->way_count++;
    }
    bool same = peer->way_count == count;
    for (uint32_t i = 0; same && i < count; i++)
        same = strcmp(before[i].address, peer->ways[i].address) == 0;
    if (!same) {
        wf_ways_forget(f, peer);
        peer->way_measured = false;
        peer->trial_ns = wf_fabric_now(f) + FIRST_NS;
        if (peer->link && peer->link->ours)
            peer->link->way = peer->way;
    }
}

bool wf_ways_turn(struct wf_peer_node *peer, const struct wf_link *link)
{
    if (peer->way_count < 2)
        return false;
    if (peer->way == link->way) {
        peer->way = (peer->way + 1) % peer->way_count;
        peer->way_measured = false;
    }
    return (peer->failures + 1) % peer->way_count != 0;
}

void wf_ways_joined(struct wf_fabric *f, struct wf_peer_node *peer)
{
    uint64_t soon_ns = wf_fabric_now(f) + FIRST_NS;
    if (!peer->way_measured)
        peer->trial_ns = soon_ns;
}

static void choose(struct wf_fabric *f, struct wf_peer_node *peer)
{
    struct wf_link *link = peer->link;
    uint32_t best = 0;
    uint64_t now_ns = wf_fabric_now(f);
    memcpy(peer->ways, f->trial.found, sizeof peer->ways);
    for (uint32_t i = 1; i < peer->way_count; i++)
        if (cost_us(&peer->ways[i]) < cost_us(&peer->ways[best]))
            best = i;
    bool found = peer->ways[best].gbps > 0;
    peer->trial_ns = now_ns + (found ? AGAIN_NS : LATER_NS);
    if (!found || !link || link->closing || !link->ours || peer->dialled != link)
        return;
    peer->way_measured = true;
    if (best == link->way || cost_us(&peer->ways[best]) > BETTER * cost_us(&peer->ways[link->way]))
        return;
    wf_info("fabric", "%s is reached better over %s (%llu us, %.2f GB/s) than over %s", peer->name,
            peer->ways[best].address, (unsigned long long)peer->ways[best].ping_us,
            peer->ways[best].gbps, peer->ways[link->way].address);
    peer->way = best;
    wf_peer_dial(f, peer, now_ns);
}

/* ---------------------------------------------------------------------------------- one's own */

static void way_begin(struct wf_fabric *f);

static void way_over(struct wf_fabric *f, const char *why)
{
    struct wf_trial *t = &f->trial;
    struct wf_link *link = t->link;
    if (why)
        snprintf(t->found[t->way].why, sizeof t->found[t->way].why, "%s", why);
    t->link = NULL;
    if (link)
        wf_link_close(link, "it was measured");
    if (++t->way < t->peer->way_count) {
        way_begin(f);
        return;
    }
    struct wf_peer_node *peer = t->peer;
    t->peer = NULL;
    t->after_ns = wf_fabric_now(f) + GAP_NS;
    choose(f, peer);
}

static void way_begin(struct wf_fabric *f)
{
    struct wf_trial *t = &f->trial;
    struct wf_fabric_way *found = &t->found[t->way];
    *found = t->peer->ways[t->way];
    found->ping_us = 0;
    found->gbps = 0;
    found->why[0] = 0;
    t->pings = t->asked = t->got = 0;
    t->began_ns = wf_fabric_now(f);
    t->link = wf_link_begin(f, t->peer, t->way, true);
    if (!t->link) /* it is over with the next tick: this may be the last of many */
        snprintf(found->why, sizeof found->why, "%s", wf_last_error());
}

static void ask(struct wf_fabric *f, uint32_t bytes)
{
    struct wf_trial *t = &f->trial;
    struct wf_fabric_probe probe = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PROBE},
                                    .number = t->asked++,
                                    .bytes = bytes};
    t->asked_ns = wf_fabric_now(f);
    (void)wf_link_say(t->link, &probe, sizeof probe); /* what is not said is not answered in time */
}

static void pinged(struct wf_fabric *f)
{
    struct wf_trial *t = &f->trial;
    struct wf_fabric_way *found = &t->found[t->way];
    uint64_t us = (wf_fabric_now(f) - t->asked_ns) / 1000 + 1;
    if (!found->ping_us || us < found->ping_us)
        found->ping_us = us;
    if (++t->pings < PINGS) {
        ask(f, 0);
        return;
    }
    t->first_ns = wf_fabric_now(f);
    for (uint32_t i = 0; i < AHEAD; i++)
        ask(f, WF_FABRIC_PROBE_BYTES);
}

void wf_way_known(struct wf_link *link, const struct wf_fabric_ident *ident)
{
    struct wf_fabric *f = link->fabric;
    struct wf_trial *t = &f->trial;
    link->state = WF_LINK_TRIED;
    if (!link->trial && ++t->guests > GUESTS_MAX)
        wf_link_close(link, "%u links are on trial here already", GUESTS_MAX);
    if (!link->trial || link != t->link)
        return;
    if (strcmp(ident->name, t->peer->name) == 0) {
        ask(f, 0);
        return;
    }
    char why[128];
    snprintf(why, sizeof why, "%s answers there", ident->name);
    way_over(f, why);
}

uint32_t wf_way_probed(struct wf_link *link, const void *header, uint32_t bytes,
                       uint64_t payload_bytes, struct iovec *out, void **token, bool *sane)
{
    struct wf_trial *t = &link->fabric->trial;
    const struct wf_fabric_probe *probed = header;
    *sane = bytes == sizeof *probed && link->trial && link->state == WF_LINK_TRIED &&
            probed->bytes == payload_bytes &&
            (payload_bytes == 0 || payload_bytes == WF_FABRIC_PROBE_BYTES);
    if (!*sane || link != t->link)
        return 0;
    *sane = (payload_bytes == 0) == (t->pings < PINGS) && probed->number < t->asked;
    if (!*sane)
        return 0;
    if (!payload_bytes) {
        pinged(link->fabric);
        return 0;
    }
    out[0] = (struct iovec){t->in, WF_FABRIC_PROBE_BYTES};
    *token = t;
    return 1;
}

void wf_way_arrived(struct wf_link *link, enum weft_status status)
{
    struct wf_fabric *f = link ? link->fabric : NULL;
    struct wf_trial *t = f ? &f->trial : NULL;
    if (!t || link != t->link || status != WEFT_OK)
        return;
    if (t->asked < PINGS + BLOCKS)
        ask(f, WF_FABRIC_PROBE_BYTES);
    if (++t->got < BLOCKS)
        return;
    uint64_t took_ns = wf_fabric_now(f) - t->first_ns;
    t->found[t->way].gbps = (double)BLOCKS * WF_FABRIC_PROBE_BYTES /
                            (double)(took_ns ? took_ns : 1);
    way_over(f, NULL);
}

/* --------------------------------------------------------------------------------- for others */

bool wf_way_probe(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_trial *t = &link->fabric->trial;
    const struct wf_fabric_probe *asked = header;
    if (bytes != sizeof *asked || link->trial || link->state != WF_LINK_TRIED ||
        link->probes++ >= WF_FABRIC_PROBES_MAX ||
        (asked->bytes && asked->bytes != WF_FABRIC_PROBE_BYTES))
        return false;
    struct wf_fabric_probe probed = *asked;
    probed.head = (struct wf_fabric_head){.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PROBED};
    t->piece = (struct iovec){t->out, WF_FABRIC_PROBE_BYTES};
    (void)wf_link_say_with(link, &probed, sizeof probed, probed.bytes ? &t->piece : NULL);
    return true;
}

void wf_way_down(struct wf_link *link, const char *sentence)
{
    struct wf_fabric *f = link->fabric;
    if (!link->trial)
        f->trial.guests--;
    if (!link->trial || link != f->trial.link)
        return;
    f->trial.link = NULL;
    snprintf(f->trial.found[f->trial.way].why, sizeof f->trial.found[0].why, "%s", sentence);
}

/* --------------------------------------------------------------------------------- as time goes */

static bool is_due(const struct wf_fabric *f, const struct wf_peer_node *peer, uint64_t now_ns)
{
    const struct wf_link *link = peer->link;
    return peer->used && link && link->ours && !link->closing && peer->dialled == link &&
           peer->way_count > 1 && now_ns >= peer->trial_ns && !peer->asked && !link->telling &&
           wf_peer_believed(f, peer);
}

void wf_ways_forget(struct wf_fabric *f, struct wf_peer_node *peer)
{
    struct wf_link *link = f->trial.link;
    if (f->trial.peer != peer)
        return;
    f->trial.peer = NULL;
    f->trial.link = NULL;
    if (link)
        wf_link_close(link, "its node's addresses are others now");
}

void wf_ways_tick(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_trial *t = &f->trial;
    for (struct wf_link *link = f->links; t->guests && link; link = link->next)
        if (link->state == WF_LINK_TRIED && !link->trial && now_ns - link->since_ns > GUEST_NS)
            wf_link_close(link, "it was on trial for too long");
    if (t->peer && !t->link)
        way_over(f, NULL);
    else if (t->peer && now_ns - t->began_ns > TRIAL_NS)
        way_over(f, "it did not answer in time");
    if (t->peer || now_ns < t->after_ns || f->fetch_free_count != WF_FETCHES_MAX)
        return;
    for (uint32_t i = 0; i < f->peer_count && i < LOOKED_AT && !t->peer; i++) {
        struct wf_peer_node *peer = &f->peers[t->next++ % f->peer_count];
        if (!is_due(f, peer, now_ns))
            continue;
        t->peer = peer;
        t->way = 0;
        memset(t->found, 0, sizeof t->found);
        way_begin(f);
    }
}
