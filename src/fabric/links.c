/* SPDX-License-Identifier: Apache-2.0
 *
 * A link to each other node: made, proved, and made anew.
 *
 * Of two nodes the one whose name comes first begins the link; the other waits for a while before
 * it tries, for where only one way is open.  When both did, that of the first name stays.  Who says
 * the name that a joined link has already, over a link begun by the same side, is the same node
 * after a restart, and the older link goes; but it does not for who proves less than what the older
 * link proved, nor for who speaks under an older epoch: of two nodes of one name the one that began
 * later has it, or they would take turns for ever.  Who proves more than the older link did takes
 * its place in any case: what was said there without that proof keeps nobody out.
 *
 * What a node says of itself in IDENT is kept with the link, and is the node's own word with JOIN,
 * if that proves anything (wf_link_proven): before that anybody may have said it, in any name.
 *
 * In a cluster with a registry nobody is believed whom it does not have, under the epoch that it
 * has (wf_peer_believed): the link may be there before the registry's word is, or after.
 */
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "core/locality.h"
#include "core/shard.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define PROOF_TAG "weft fabric domain 1"
#define AGAIN_NS_FIRST 100000000u
#define AGAIN_NS_MAX 5000000000u
#define SAY_AFTER 3                /* attempts over each way that came to nothing */
#define OTHER_WAITS_NS 3000000000u /* the node whose name comes later, before it begins a link */
#define ANSWER_NS 60000000000u     /* so long it is believed who is at an address, without proof */
#define PING_NS 1000000000u
/* Bytes a second, of a node that was not read from: beside this one, and less a level. */
#define RATE_DEFAULT 1e9
#define RATE_LEVEL .75
#define RATES_NS 200000u /* for each node, between two looks at what was measured */
#define PINGS_S 128u     /* where there are more links, each is asked less often */
/* ---------------------------------------------------------------------------------------- nodes */

static uint32_t *named(const struct wf_fabric *f, uint64_t member)
{
    return &f->by_name[member % WF_NAMES];
}

struct wf_peer_node *wf_peer_member(struct wf_fabric *f, uint64_t member)
{
    for (uint32_t i = *named(f, member); i; i = f->peers[i - 1].name_next)
        if (f->peers[i - 1].member == member)
            return &f->peers[i - 1];
    return NULL;
}

struct wf_peer_node *wf_peer_find(struct wf_fabric *f, const char *name)
{
    for (uint32_t i = *named(f, wf_shard_member(name)); i; i = f->peers[i - 1].name_next)
        if (strcmp(f->peers[i - 1].name, name) == 0)
            return &f->peers[i - 1];
    return NULL;
}

static bool has_left_blocks(const struct wf_fabric *f, uint32_t place)
{
    struct wf_lent_owner left = {.blocks = 0};
    if (f->lent)
        wf_lent_owner(f->lent, place, &left);
    return left.blocks > 0;
}

/* A place that is nobody's: the one that this name had.  Not where another's blocks are in what is
 * lent here, as long as there is one without: they would be this one's. */
static uint32_t place_for(struct wf_fabric *f, const char *name)
{
    uint32_t any = WF_FABRIC_PEERS_MAX, clean = WF_FABRIC_PEERS_MAX;
    for (uint32_t i = f->peer_low; i < f->peer_count; i++) {
        if (f->peers[i].used)
            continue;
        any = any < i ? any : i;
        if (strcmp(f->peers[i].name, name) == 0)
            clean = i;
        else if (clean == WF_FABRIC_PEERS_MAX && !has_left_blocks(f, i))
            clean = i;
    }
    f->peer_low = any < f->peer_count ? any : f->peer_count;
    if (clean == WF_FABRIC_PEERS_MAX)
        clean = f->peer_count < WF_FABRIC_PEERS_MAX ? f->peer_count : any;
    f->peer_count += clean == f->peer_count;
    return clean;
}

static struct wf_peer_node *peer_make(struct wf_fabric *f, const char *name)
{
    struct wf_peer_node *peer = wf_peer_find(f, name);
    if (peer)
        return peer;
    uint32_t i = place_for(f, name);
    if (i == WF_FABRIC_PEERS_MAX)
        return NULL;
    peer = &f->peers[i];
    memset(peer, 0, sizeof *peer);
    snprintf(peer->name, sizeof peer->name, "%s", name);
    peer->used = true;
    peer->number = i;
    peer->place = WF_PLACE_NONE;
    peer->answered = -1;
    peer->distance = WF_LOCALITY_UNKNOWN;
    peer->member = wf_shard_member(name);
    peer->name_next = *named(f, peer->member);
    *named(f, peer->member) = i + 1;
    return peer;
}

void wf_peer_settle(struct wf_fabric *f, struct wf_peer_node *peer)
{
    if (!peer->used || peer->registered || peer->link || peer->dialled || peer->works)
        return;
    /* Of two that both sides began one goes when it is known who is there; the other is to come. */
    for (const struct wf_link *link = f->links; link; link = link->next)
        if (link->peer == peer)
            return;
    wf_stream_forget(f, peer);
    wf_fetches_lost(f, peer);
    wf_ways_forget(f, peer);
    uint32_t *at = named(f, peer->member);
    while (*at != peer->number + 1)
        at = &f->peers[*at - 1].name_next;
    *at = peer->name_next;
    peer->used = false;
    f->peer_low = peer->number < f->peer_low ? peer->number : f->peer_low;
}

bool wf_peer_believed(const struct wf_fabric *f, const struct wf_peer_node *peer)
{
    if (!peer->link || peer->link->closing)
        return false;
    return !f->strict || (peer->registered && peer->epoch == peer->link->epoch);
}

struct wf_link *wf_peer_link(struct wf_fabric *f, uint32_t number, uint32_t domain)
{
    struct wf_peer_node *peer = number < f->peer_count ? &f->peers[number] : NULL;
    if (!peer || !peer->used || !wf_peer_believed(f, peer))
        return NULL;
    return peer->link->theirs_of[domain] != WF_DOMAIN_NONE ? peer->link : NULL;
}

/* ---------------------------------------------------------------------------------- how far */

bool wf_peer_measured(const struct wf_peer_node *peer)
{
    return peer->read_ns > 1000000 && peer->read_bytes > (1u << 20);
}

static double measured_rate(const struct wf_peer_node *peer)
{
    return (double)peer->read_bytes * 1e9 / (double)peer->read_ns;
}

double wf_peer_rate(const struct wf_fabric *f, const struct wf_peer_node *peer)
{
    return wf_peer_measured(peer) ? measured_rate(peer) : f->assumed_rate[peer->distance];
}

/* A node that nothing was read from yet is taken to be as fast as the fastest that is as far or
 * farther, and no faster than what is nearer. */
static void rates_assume(struct wf_fabric *f)
{
    double measured[WF_LOCALITY_UNKNOWN + 1] = {0}, beyond = 0, rate = RATE_DEFAULT;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        const struct wf_peer_node *peer = &f->peers[i];
        if (peer->used && wf_peer_measured(peer) && measured_rate(peer) > measured[peer->distance])
            measured[peer->distance] = measured_rate(peer);
    }
    for (uint32_t d = WF_LOCALITY_UNKNOWN + 1; d-- > 0;) {
        beyond = measured[d] > beyond ? measured[d] : beyond;
        f->assumed_rate[d] = beyond;
    }
    for (uint32_t d = 0; d <= WF_LOCALITY_UNKNOWN; d++, rate *= RATE_LEVEL) {
        if (f->assumed_rate[d] > 0)
            rate = f->assumed_rate[d];
        f->assumed_rate[d] = rate;
    }
}

void wf_peer_joined(void *fabric, const struct wf_member *member)
{
    struct wf_fabric *f = fabric;
    if (strcmp(member->name, f->name) == 0)
        return;
    struct wf_peer_node *peer = peer_make(f, member->name);
    if (!peer) {
        wf_warn("fabric", "%s is left alone: there are %u other nodes already", member->name,
                WF_FABRIC_PEERS_MAX);
        return;
    }
    bool fresh = !peer->registered || peer->epoch != member->epoch;
    if (!peer->registered)
        wf_parts_members(f);
    peer->registered = true;
    if (f->strict)
        peer->epoch = member->epoch;
    wf_ways_take(f, peer, member->addresses);
    if (!peer->way_count)
        snprintf(peer->why, sizeof peer->why,
                 "it listens at no address that this node can use: %.100s",
                 member->addresses[0] ? member->addresses : "none");
    f->dial_ns = 0;
    if (fresh) {
        peer->since_ns = wf_fabric_now(f);
        peer->again_ns = 0;
        peer->failures = 0;
    }
    if (peer->link && !wf_peer_believed(f, peer))
        wf_stream_forget(f, peer);
}

void wf_peer_left(void *fabric, const struct wf_member *member)
{
    struct wf_fabric *f = fabric;
    struct wf_peer_node *peer = wf_peer_find(f, member->name);
    if (!peer)
        return;
    peer->registered = false;
    wf_parts_members(f);
    wf_stream_forget(f, peer);
    if (peer->link)
        wf_link_close(peer->link, "%s is no member any more", peer->name);
    else if (peer->met)
        wf_fabric_say(f, "%s is no member any more", peer->name);
    wf_peer_settle(f, peer);
}

/* ---------------------------------------------------------------------------------------- links */

static size_t link_bytes(const struct wf_fabric *f)
{
    return sizeof(struct wf_link) + WF_SEND_CLASSES * f->domain_count * sizeof(struct wf_send_line);
}

static struct wf_link *link_make(struct wf_fabric *f, const struct wf_net_ops *ops,
                                 struct wf_net_link *net)
{
    struct wf_link *link = f->link_count < WF_LINKS_MAX ? wf_calloc(1, link_bytes(f), "a link")
                                                        : NULL;
    if (!link)
        return NULL;
    link->fabric = f;
    link->ops = ops;
    link->net = net;
    link->since_ns = wf_fabric_now(f);
    for (uint32_t i = 0; i < WF_SEND_CLASSES; i++)
        link->sends.lines[i] = (struct wf_send_line *)(link + 1) + i * f->domain_count;
    for (uint32_t i = 0; i < WF_FABRIC_DOMAINS_MAX; i++)
        link->theirs_of[i] = link->ours_of[i] = WF_DOMAIN_NONE;
    if (RAND_bytes(link->nonce, sizeof link->nonce) != 1) {
        free(link);
        return NULL;
    }
    link->next = f->links;
    link->back = &f->links;
    if (link->next)
        link->next->back = &link->next;
    f->links = link;
    f->link_count++;
    return link;
}

/* It is the one that was asked last, from now on. */
static void ping_list(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    link->ping_next = NULL;
    link->ping_back = f->ping_last;
    *f->ping_last = link;
    f->ping_last = &link->ping_next;
    f->joined_count++;
}

static void ping_unlist(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    if (!link->ping_back)
        return;
    *link->ping_back = link->ping_next;
    if (link->ping_next)
        link->ping_next->ping_back = link->ping_back;
    else
        f->ping_last = link->ping_back;
    link->ping_back = NULL;
    f->joined_count--;
}

static void link_free(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    ping_unlist(link);
    *link->back = link->next;
    if (link->next)
        link->next->back = link->back;
    f->link_count--;
    f->dial_ns = 0; /* whom it led to may be wanted */
    free(link);
}

void wf_link_close(struct wf_link *link, const char *format, ...)
{
    va_list arguments;
    if (link->closing)
        return;
    va_start(arguments, format);
    vsnprintf(link->why, sizeof link->why, format, arguments);
    va_end(arguments);
    wf_debug("fabric", "link to %s ends: %s", link->peer ? link->peer->name : "a stranger",
             link->why);
    link->closing = true;
    link->ops->close(link->net);
}

static bool say_ident(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    struct wf_fabric_ident ident = {
        .head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_IDENT},
        .version = WF_FABRIC_VERSION,
        .flags = (uint16_t)((link->trial ? WF_FABRIC_TRIAL : 0) |
                            (wf_parts_on(f) ? WF_FABRIC_PARTS : 0) | WF_FABRIC_COUNTS),
        .port = wf_way_port(link),
        .epoch = f->standing.epoch,
    };
    memcpy(ident.nonce, link->nonce, sizeof ident.nonce);
    memcpy(ident.name, f->name, strlen(f->name));
    memcpy(ident.locality, f->locality, strlen(f->locality));
    wf_frames_say(f, &ident);
    return wf_link_say(link, &ident, sizeof ident);
}

bool wf_link_up(void *of, struct wf_net_link *net, const void *hello, uint32_t bytes,
                const char *name)
{
    const struct wf_fabric_net *over = of;
    struct wf_link *link = over->ops->user(net);
    (void)hello, (void)bytes;
    if (!link) {
        link = link_make(over->fabric, over->ops, net);
        if (!link)
            return false;
        over->ops->set_user(net, link);
    }
    snprintf(link->certified, sizeof link->certified, "%s", name ? name : "");
    link->state = WF_LINK_UP;
    link->since_ns = wf_fabric_now(link->fabric);
    wf_link_begun(link);
    if (!say_ident(link))
        wf_link_close(link, "there is no room to say who this is");
    return true;
}

/* Once, until a link comes up, and not of the first attempt: nodes are started one after another.
 */
static void in_vain_say(struct wf_fabric *f, const struct wf_peer_node *peer, uint32_t way,
                        const char *why)
{
    if (peer->failures == SAY_AFTER * peer->way_count && !peer->link)
        wf_fabric_say(f, "no link to %s%s, at %s: %s; it is tried on",
                      peer->was[0] ? peer->was : peer->name, peer->met ? "" : " so far",
                      peer->ways[way].address, why);
}

/* What happened last, for people: of the node, and of addresses in a list that were its. */
static void why_tell(struct wf_fabric *f, struct wf_peer_node *peer, const char *why)
{
    for (uint32_t i = 0; i < f->peer_count && !f->strict; i++)
        if (f->peers[i].used && strcmp(f->peers[i].was, peer->name) == 0)
            snprintf(f->peers[i].why, sizeof f->peers[i].why, "%s", why);
    snprintf(peer->why, sizeof peer->why, "%s", why);
}

/* One that this side began: when its way is tried again.  True: that it ended was told of. */
static bool dialled_down(struct wf_link *link, const char *why)
{
    struct wf_fabric *f = link->fabric;
    struct wf_peer_node *by = link->dialled_by;
    bool joined = link->state == WF_LINK_JOINED, told = link->quiet && strcmp(by->why, why) == 0;
    bool at_once = wf_ways_turn(by, link);
    uint32_t turns = by->failures / (by->way_count ? by->way_count : 1);
    uint64_t wait_ns = (uint64_t)AGAIN_NS_FIRST << (turns < 6 ? turns : 6);
    by->dialled = NULL;
    by->failures++;
    by->again_ns = wf_fabric_now(f) + (at_once                  ? 0
                                       : wait_ns < AGAIN_NS_MAX ? wait_ns
                                                                : AGAIN_NS_MAX);
    snprintf(by->why, sizeof by->why, "%s", why);
    if (joined)
        by->fleeting = !link->alive;
    else if (!link->peer || !link->peer->link)
        in_vain_say(f, by, link->way, why);
    return told;
}

void wf_link_down(void *of, struct wf_net_link *net, enum weft_status status, const char *sentence)
{
    const struct wf_fabric_net *over = of;
    struct wf_fabric *f = over->fabric;
    struct wf_link *link = over->ops->user(net);
    (void)status;
    if (!link)
        return;
    struct wf_peer_node *peer = link->peer, *by = link->dialled_by;
    over->ops->set_user(net, NULL);
    wf_pushes_lost(link);
    wf_receptions_lost(link);
    const char *why = link->closing ? link->why : sentence;
    if (link->trial || link->state == WF_LINK_TRIED)
        wf_way_down(link, sentence);
    bool told = by && by->dialled == link && dialled_down(link, why);
    if (peer && !peer->link)
        snprintf(peer->why, sizeof peer->why, "%s", why);
    if (peer && peer->link == link) {
        peer->link = NULL;
        f->figures.nodes_lost++;
        wf_figures_change(f); /* before the host hears of it */
        why_tell(f, peer, why);
        if (!told)
            wf_fabric_say(f, "no link to %s: %s", peer->name, why);
        wf_stream_forget(f, peer);
        wf_fetches_lost(f, peer);
        wf_puts_lost(f, peer);
        wf_line_cut(&peer->line);
        wf_parts_lost(f, peer);
    }
    wf_sends_lost(link);
    wf_serves_lost(f, link);
    wf_puts_cut(f, link);
    link_free(link);
    if (by)
        wf_peer_settle(f, by);
    if (peer && peer != by)
        wf_peer_settle(f, peer);
}

void wf_links_say_again(struct wf_fabric *f)
{
    for (struct wf_link *link = f->links; link; link = link->next) {
        if (link->state == WF_LINK_CONNECTING || link->closing || link->trial ||
            link->state == WF_LINK_TRIED)
            continue;
        if (!say_ident(link))
            wf_link_close(link, "there is no room to say who this is");
        else if (link->state == WF_LINK_JOINED)
            wf_stream_begin(link);
    }
}

/* -------------------------------------------------------------------------------------- asking */

static void ping(struct wf_link *link, uint64_t now_ns)
{
    struct wf_fabric_ping ping = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PING},
                                  .sent_ns = now_ns};
    wf_link_self(link, &ping);
    link->ping_ns = now_ns;
    ping_unlist(link);
    ping_list(link);
    (void)wf_link_say(link, &ping, sizeof ping);
}

void wf_link_used(struct wf_link *link, uint64_t now_ns)
{
    if (now_ns - link->ping_ns >= PING_NS && link->state == WF_LINK_JOINED)
        ping(link, now_ns);
}

/* Those that were asked longest ago, so many a second that it is no work; all of them when there is
 * something that nobody may hear late. */
static void pings(struct wf_fabric *f, uint64_t now_ns)
{
    uint64_t every_ns = f->joined_count > PINGS_S ? (uint64_t)PING_NS / PINGS_S * f->joined_count
                                                  : PING_NS;
    bool draining = atomic_load_explicit(&f->draining, memory_order_relaxed);
    for (struct wf_link *link = f->links; link && draining != f->drain_said; link = link->next)
        if (link->state == WF_LINK_JOINED && !link->closing)
            ping(link, now_ns);
    f->drain_said = draining;
    while (f->ping_first && now_ns - f->ping_first->ping_ns >= every_ns)
        ping(f->ping_first, now_ns);
}

/* --------------------------------------------------------------------- who is on the other side */

static void proof_make(const struct wf_fabric_domain *domain, const uint8_t from[32],
                       const uint8_t to[32], uint8_t out[32])
{
    uint8_t text[sizeof PROOF_TAG - 1 + 64];
    unsigned bytes = 32;
    memcpy(text, PROOF_TAG, sizeof PROOF_TAG - 1);
    memcpy(text + sizeof PROOF_TAG - 1, from, 32);
    memcpy(text + sizeof PROOF_TAG - 1 + 32, to, 32);
    HMAC(EVP_sha256(), domain->secret, (int)domain->secret_bytes, text, sizeof text, out, &bytes);
}

static bool say_join(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    union {
        struct wf_fabric_join join;
        uint8_t bytes[sizeof(struct wf_fabric_join) + WF_FABRIC_DOMAINS_MAX * 32];
    } m = {.join = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_JOIN},
                    .count = f->domain_count}};
    for (uint32_t i = 0; i < f->domain_count; i++)
        proof_make(&f->domains[i], link->nonce, link->their_nonce, m.join.proof[i]);
    return wf_link_say(link, &m, (uint32_t)sizeof m.join + f->domain_count * 32);
}

/* Both began a link, or it is here again before its end was noticed. */
static bool is_better(const struct wf_link *link, const struct wf_link *than)
{
    const struct wf_fabric *f = link->fabric;
    if (link->ours == than->ours)
        return true;
    return link->ours == (strcmp(f->name, link->peer->name) < 0);
}

/* What is no path says nothing: it is shown to people, too. */
static void locality_take(const struct wf_fabric *f, struct wf_peer_node *peer,
                          const struct wf_fabric_ident *ident)
{
    bool ends = memchr(ident->locality, 0, sizeof ident->locality) != NULL;
    bool right = ends && wf_locality_check(ident->locality) == WEFT_OK;
    snprintf(peer->locality, sizeof peer->locality, "%s", right ? ident->locality : "");
    peer->distance = wf_locality_distance(f->locality, peer->locality);
}

/* Two addresses of a list may be one node's, which needs no second link. */
static void answered(const struct wf_link *link, bool proved)
{
    struct wf_peer_node *there = link->dialled_by;
    if (!there)
        return;
    there->answered = (int32_t)link->peer->number;
    if (proved)
        memcpy(there->was, link->peer->name, sizeof there->was);
    there->met |= proved;
    there->answered_ns = proved ? UINT64_MAX : wf_fabric_now(link->fabric);
}

bool wf_link_ident(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_ident *ident = header;
    if (bytes < offsetof(struct wf_fabric_ident, locality) || bytes > sizeof *ident ||
        link->state == WF_LINK_CONNECTING || memchr(ident->name, 0, sizeof ident->name) == NULL ||
        !ident->name[0])
        return false; /* so long were those of older versions, too */
    if (ident->version != WF_FABRIC_VERSION) {
        wf_link_close(link, "%s speaks version %u of the fabric, this node %u; run one release",
                      ident->name, ident->version, WF_FABRIC_VERSION);
        return true;
    }
    if (bytes != sizeof *ident)
        return false;
    if (link->certified[0] && strcmp(link->certified, ident->name) != 0) {
        wf_link_close(link, "who calls itself %s has the certificate of %s", ident->name,
                      link->certified);
        return true;
    }
    if (link->state == WF_LINK_TRIED)
        return false;
    if (link->trial ||
        (!link->ours && link->state == WF_LINK_UP && (ident->flags & WF_FABRIC_TRIAL))) {
        wf_way_known(link, ident);
        return true;
    }
    if (link->state != WF_LINK_UP) { /* once more: another epoch */
        if (strcmp(ident->name, link->peer->name) != 0 ||
            memcmp(ident->nonce, link->their_nonce, 32) != 0)
            return false;
        bool its = link->peer->link == link;
        if (ident->epoch != link->epoch && wf_link_anew(link))
            return true;
        if (ident->epoch != link->epoch && its)
            wf_stream_forget(f, link->peer);
        link->epoch = ident->epoch;
        link->complete = false;
        if (!f->strict && its)
            link->peer->epoch = ident->epoch;
        return true;
    }
    if (strcmp(ident->name, f->name) == 0) {
        wf_link_close(link,
                      "the node there is called %s, as this one is; if it is another, give it "
                      "a fabric.name of its own",
                      ident->name);
        return true;
    }
    if (f->strict && link->dialled_by && strcmp(link->dialled_by->name, ident->name) != 0) {
        wf_link_close(link, "%s answers at an address of %s", ident->name, link->dialled_by->name);
        return true;
    }
    link->peer = peer_make(f, ident->name);
    if (!link->peer) {
        wf_link_close(link, "there are %u other nodes already", WF_FABRIC_PEERS_MAX);
        return true;
    }
    answered(link, false);
    link->epoch = ident->epoch;
    link->said = *ident;
    wf_way_said(link, ident->port);
    memcpy(link->their_nonce, ident->nonce, 32);
    link->state = WF_LINK_KNOWN;
    if (ident->flags & WF_FABRIC_PARTS)
        wf_parts_wanted(link);
    if (!say_join(link))
        wf_link_close(link, "there is no room to say what this node has");
    return true;
}

static void proofs_take(struct wf_link *link, const struct wf_fabric_join *join)
{
    struct wf_fabric *f = link->fabric;
    uint8_t proof[32];
    for (uint32_t d = 0; d < f->domain_count; d++) {
        proof_make(&f->domains[d], link->their_nonce, link->nonce, proof);
        for (uint32_t i = 0; i < join->count; i++)
            if (link->ours_of[i] == WF_DOMAIN_NONE &&
                CRYPTO_memcmp(proof, join->proof[i], 32) == 0) {
                link->theirs_of[d] = (uint8_t)i;
                link->ours_of[i] = (uint8_t)d;
                link->domains |= (uint64_t)1 << d;
                link->shared++;
                break;
            }
    }
}

bool wf_link_proven(const struct wf_link *link)
{
    return link->shared || link->fabric->options.security.proof != WF_NET_PROOF_NONE;
}

/* It is the node's link from now on; what was proved of the node before stays. */
static void believe(struct wf_link *link)
{
    if (!wf_link_proven(link))
        return;
    locality_take(link->fabric, link->peer, &link->said);
    wf_frames_heard(link->peer, &link->said);
}

static void there_say(const struct wf_link *link)
{
    wf_fabric_say(link->fabric, "%s is there, at %s; %u domain%s in common", link->peer->name,
                  wf_way_shown(link->fabric, link->peer, link), link->shared,
                  link->shared == 1 ? "" : "s");
}

/* Not before it has answered is it known that the other side wants the link, too. */
void wf_link_alive(struct wf_link *link)
{
    struct wf_peer_node *by = link->dialled_by;
    if (link->alive || link->peer->link != link)
        return;
    link->alive = true;
    link->peer->failures = 0;
    if (by) {
        by->failures = 0;
        by->fleeting = false;
    }
    if (link->quiet)
        there_say(link);
    link->quiet = false;
}

bool wf_link_join(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_join *join = header;
    if (bytes < sizeof *join || link->state != WF_LINK_KNOWN ||
        join->count > WF_FABRIC_DOMAINS_MAX || bytes != sizeof *join + join->count * 32)
        return false;
    struct wf_peer_node *peer = link->peer;
    proofs_take(link, join);
    if (wf_link_proven(link))
        answered(link, true);
    else if (wf_link_one_too_many(link))
        return true;
    if (peer->link && peer->link->domains & ~link->domains) {
        wf_link_in_the_way(link, "a link that proved more domains than this");
        return true;
    }
    bool more = !peer->link || link->domains & ~peer->link->domains;
    if (!more && (link->epoch < peer->link->epoch || !is_better(link, peer->link))) {
        wf_link_in_the_way(link, "another link");
        return true;
    }
    believe(link);
    struct wf_link *older = peer->link;
    peer->link = link;
    link->state = WF_LINK_JOINED;
    ping(link, wf_fabric_now(f));
    if (!f->strict)
        peer->epoch = link->epoch;
    peer->met = true;
    if (link->dialled_by)
        link->dialled_by->met = true;
    link->quiet = !older && link->dialled_by && link->dialled_by->fleeting;
    if (older) {
        wf_stream_forget(f, peer);
        wf_fetches_lost(f, peer);
        wf_puts_lost(f, peer);
        wf_parts_lost(f, peer);
        wf_link_close(older, "there is a newer link to %s", peer->name);
    }
    if (older)
        wf_info("fabric", "%s has a newer link, at %s", peer->name, wf_way_shown(f, peer, link));
    else if (!link->quiet)
        there_say(link);
    if (link->ours)
        wf_ways_joined(f, peer);
    wf_sends_begin(link);
    wf_stream_begin(link);
    return true;
}

/* --------------------------------------------------------------------------------- as time goes */

struct wf_link *wf_link_begin(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t way,
                              bool trial)
{
    const char *address = peer->ways[way].address;
    const struct wf_fabric_net *over = wf_nets_for(f, address);
    struct wf_link *link = over ? link_make(f, over->ops, NULL) : NULL;
    if (!link)
        return NULL;
    link->ours = true;
    link->trial = trial;
    link->way = way;
    if (over->ops->connect(over->net, address, link, &link->net) == WEFT_OK)
        return link;
    link_free(link);
    return NULL;
}

void wf_peer_dial(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t now_ns)
{
    struct wf_link *link = wf_link_begin(f, peer, peer->way, false);
    if (!link) {
        snprintf(peer->why, sizeof peer->why, "%s", wf_last_error());
        peer->again_ns = now_ns + AGAIN_NS_MAX;
        peer->failures++;
        in_vain_say(f, peer, peer->way, peer->why);
        peer->way = (peer->way + 1) % peer->way_count;
        return;
    }
    link->dialled_by = peer;
    peer->dialled = link;
}

/* When a link to it is to be begun; never, as it is. */
static uint64_t wanted_ns(const struct wf_fabric *f, const struct wf_peer_node *peer)
{
    if (!peer->used || !peer->registered || !peer->way_count || peer->link || peer->dialled)
        return UINT64_MAX;
    /* Who was never a member, as whose name is taken, would be taken for the one that has it. */
    if (f->strict && !f->standing.epoch)
        return UINT64_MAX;
    if (!f->strict) {
        bool there = peer->answered >= 0 && f->peers[peer->answered].link;
        if (there && peer->answered_ns == UINT64_MAX)
            return UINT64_MAX;
        uint64_t then_ns = there ? peer->answered_ns + ANSWER_NS : 0;
        return then_ns > peer->again_ns ? then_ns : peer->again_ns;
    }
    uint64_t first_ns = strcmp(f->name, peer->name) < 0 ? 0 : peer->since_ns + OTHER_WAITS_NS + 1;
    return first_ns > peer->again_ns ? first_ns : peer->again_ns;
}

static void dials(struct wf_fabric *f, uint64_t now_ns)
{
    uint64_t next_ns = UINT64_MAX;
    if (now_ns < f->dial_ns)
        return;
    f->dial_ns = UINT64_MAX;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        uint64_t at_ns = wanted_ns(f, &f->peers[i]);
        if (at_ns <= now_ns) {
            wf_peer_dial(f, &f->peers[i], now_ns);
            at_ns = wanted_ns(f, &f->peers[i]);
        }
        next_ns = at_ns < next_ns ? at_ns : next_ns;
    }
    /* What came to be wanted meanwhile has set it to 0. */
    f->dial_ns = next_ns < f->dial_ns ? next_ns : f->dial_ns;
}

/* Who told something that could not be believed, or kept, is asked for it again, once that it can
 * be. */
static void ask_again(struct wf_fabric *f, uint64_t now_ns)
{
    bool some = false;
    for (struct wf_link *link = f->links; link && f->some_missed; link = link->next) {
        if (link->missed || link->more)
            wf_stream_ask(link, now_ns);
        some |= link->missed || link->more;
    }
    f->some_missed = some;
}

void wf_links_tick(struct wf_fabric *f, uint64_t now_ns)
{
    if (now_ns >= f->rates_ns) {
        f->rates_ns = now_ns + (uint64_t)f->peer_count * RATES_NS;
        rates_assume(f);
    }
    wf_links_young(f, now_ns);
    dials(f, now_ns);
    pings(f, now_ns);
    ask_again(f, now_ns);
}
