/* SPDX-License-Identifier: Apache-2.0
 *
 * Who has a chain, where this node keeps a part of the directory: asked along the chain, and not
 * key by key.
 *
 * An owner of the shard of the first block that is not known names some who have that one, and up
 * to ASKS of these are asked how far they have the rest: nobody has a block without its parent.
 * From where the longest of them ends it begins anew, and it ends where an owner knows nobody.  So
 * it takes a few messages for each node that has a piece of the chain, however long that is, and
 * two at most for a chain that nobody has.
 *
 *     A (keeps a part)                          O (owns the shard of key 3)
 *     LOOKUP keys 3, 4, 5 …     ───────────────►
 *                               ◄───────────────  FOUND members h, g; blocks 0: itself has none
 *     LOOKUP keys 3, 4, 5 …     ───────────────►  h
 *                               ───────────────►  g
 *                               ◄───────────────  FOUND blocks 7: of these keys, from the first on
 *
 * What is found is believed and told as parts.c says.  Who does not answer within PATIENCE_NS is
 * waited for no longer, nor counted when he does, since its keys are others than those that are
 * asked about by then; and a chain is walked for WALK_NS at most: what is left then is asked about
 * the next time.  When there are WALKS_MAX, a further one does not begin, and is counted.
 *
 * The fabric's thread, but for wf_fabric_find.  A walk owns its order's memory.
 */
#include <stdlib.h>
#include <string.h>

#include "core/shard.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define WALKS_MAX 64u
#define ASKS 4u
#define OWNER_KEYS 8u /* so that the question is a small message */
#define PATIENCE_NS 50000000u
#define WALK_NS 250000000u
#define FINDS_MAX 256u         /* by hash: the newer one stays */
#define TAKEN_NS 20000000u     /* until the host has taken up what it was told */
#define ASKED_NS (2 * WALK_NS) /* a walk may have had no room */
#define NONE UINT32_MAX

struct ask {
    uint32_t peer, blocks; /* blocks: that it was asked about */
    bool waits;
};

struct walk {
    void *memory; /* NULL: it is free */
    const struct wf_fabric_event *events;
    uint32_t count, at;  /* at: the first that is not known to be somewhere */
    uint32_t generation; /* another one each time that somebody is asked */
    uint32_t owner, first;
    bool holders; /* these are asked, and not an owner */
    struct ask asks[ASKS];
    uint64_t began_ns, asked_ns;
};

struct wf_walks {
    struct walk walks[WALKS_MAX];
    struct find { /* under the fabric's lock: chains that are being looked for, by their beginning
                   */
        uint64_t hash, until_ns;
    } finds[FINDS_MAX];
};

/* ------------------------------------------------------------------------------------- its end */

static uint64_t hash_of(const uint8_t key[32])
{
    uint64_t hash;
    memcpy(&hash, key + 8, sizeof hash);
    return hash;
}

static void walk_end(struct wf_fabric *f, struct walk *w, uint64_t now_ns)
{
    uint64_t hash = hash_of(w->events[w->first].key);
    struct find *find = &f->walks->finds[hash % FINDS_MAX];
    pthread_mutex_lock(&f->lock);
    if (find->hash == hash)
        find->until_ns = w->at > w->first ? now_ns + TAKEN_NS : 0;
    pthread_mutex_unlock(&f->lock);
    free(w->memory);
    *w = (struct walk){.generation = w->generation + 1};
}

/* -------------------------------------------------------------------------------------- asking */

static bool lookup_say(struct wf_fabric *f, struct walk *w, uint32_t which, uint32_t number,
                       uint32_t max)
{
    static _Thread_local union {
        struct wf_fabric_lookup ask;
        uint8_t bytes[sizeof(struct wf_fabric_lookup) + WF_FABRIC_LOOKUP_MAX * 32];
    } m;
    const struct wf_fabric_event *events = w->events + w->at;
    uint32_t walk = (uint32_t)(w - f->walks->walks), count = w->count - w->at;
    struct wf_link *link = wf_peer_link(f, number, events->domain);
    count = count < max ? count : max;
    m.ask =
        (struct wf_fabric_lookup){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_LOOKUP},
                                  .request = (uint64_t)w->generation << 32 |
                                             (WF_FABRIC_WALKS + walk * ASKS + which),
                                  .bytes = events->bytes,
                                  .domain = events->domain,
                                  .count = (uint16_t)count,
                                  .quality = wf_quality_class(f->domains[events->domain].quality)};
    for (uint32_t i = 0; i < count; i++)
        memcpy(m.ask.keys[i], events[i].key, 32);
    if (!link || !wf_link_say(link, &m, (uint32_t)(sizeof m.ask + count * 32)))
        return false;
    w->asks[which] = (struct ask){.peer = number, .blocks = count, .waits = true};
    f->figures.lookups++;
    return true;
}

static void owner_ask(struct wf_fabric *f, struct walk *w, uint64_t now_ns)
{
    uint64_t owners[WF_SHARD_OWNERS_MAX];
    uint32_t count = wf_parts_owners(f, w->events[w->at].key, owners);
    w->holders = false;
    w->generation++;
    w->asked_ns = now_ns;
    while (w->owner < count) {
        struct wf_peer_node *peer = wf_peer_member(f, owners[w->owner++]);
        if (peer && lookup_say(f, w, 0, peer->number, OWNER_KEYS))
            return;
    }
    f->figures.lookup_misses++;
    wf_parts_miss(f, w->events[w->at].key);
    walk_end(f, w, now_ns);
}

/* On from what is known by now. */
static void step(struct wf_fabric *f, struct walk *w, uint64_t now_ns)
{
    uint32_t from = w->at;
    while (w->at < w->count && wf_stream_fits(f, &w->events[w->at])) {
        if (w->events[w->at].kind == WF_FABRIC_HERE)
            wf_parts_host_tell(f, WF_FABRIC_NOBODY, &w->events[w->at]);
        w->at++;
    }
    memset(w->asks, 0, sizeof w->asks);
    w->owner = 0;
    if (w->at == w->count || !wf_parts_on(f) || now_ns - w->began_ns > WALK_NS ||
        wf_parts_missed(f, w->events[w->at].key)) {
        walk_end(f, w, now_ns);
    } else if (w->holders && w->at == from) { /* it is had, and finds no room here */
        walk_end(f, w, now_ns);
    } else if (wf_parts_owns(f, w->events[w->at].key)) { /* it would know */
        wf_parts_miss(f, w->events[w->at].key);
        walk_end(f, w, now_ns);
    } else {
        owner_ask(f, w, now_ns);
    }
}

bool wf_walk_begin(struct wf_fabric *f, void *memory, const struct wf_fabric_event *events,
                   uint32_t count)
{
    uint64_t now_ns = wf_fabric_now(f);
    for (uint32_t i = 0; i < WALKS_MAX && wf_parts_on(f) && count; i++) {
        struct walk *w = &f->walks->walks[i];
        if (w->memory)
            continue;
        *w = (struct walk){.memory = memory,
                           .events = events,
                           .count = count,
                           .generation = w->generation,
                           .began_ns = now_ns};
        step(f, w, now_ns);
        return true;
    }
    f->figures.lookups_full += wf_parts_on(f) && count;
    return false;
}

/* ------------------------------------------------------------------------------------- answers */

static bool any_waits(const struct walk *w)
{
    for (uint32_t i = 0; i < ASKS; i++)
        if (w->asks[i].waits)
            return true;
    return false;
}

static void go_on(struct wf_fabric *f, struct walk *w, uint64_t now_ns)
{
    if (w->holders)
        step(f, w, now_ns);
    else
        owner_ask(f, w, now_ns);
}

/* An owner named them: they have the first one, and say how many of the rest. */
static void holders_ask(struct wf_fabric *f, struct walk *w, const uint32_t *peers, uint32_t count,
                        uint64_t now_ns)
{
    w->holders = true;
    w->generation++;
    w->asked_ns = now_ns;
    for (uint32_t i = 0; i < count && w->count - w->at > 1; i++)
        (void)lookup_say(f, w, i, peers[i], WF_FABRIC_LOOKUP_MAX);
    if (!any_waits(w))
        step(f, w, now_ns);
}

void wf_walk_found(struct wf_link *link, const struct wf_fabric_found *found)
{
    struct wf_fabric *f = link->fabric;
    uint32_t number = (uint32_t)found->request - WF_FABRIC_WALKS, holders[ASKS], count = 0;
    struct walk *w = number < WALKS_MAX * ASKS ? &f->walks->walks[number / ASKS] : NULL;
    struct ask *ask = w ? &w->asks[number % ASKS] : NULL;
    uint64_t now_ns = wf_fabric_now(f);
    if (!w || !w->memory || w->generation != found->request >> 32 || !ask->waits ||
        ask->peer != link->peer->number)
        return; /* nobody waits for it any more */
    ask->waits = false;
    for (uint32_t i = 0; i < found->blocks && i < ask->blocks && wf_parts_on(f); i++) {
        struct wf_fabric_event event = w->events[w->at + i];
        event.quality = wf_found_quality(found, WF_FABRIC_FOUND_MAX);
        wf_parts_note(f, link->peer, &event, false);
    }
    for (uint32_t i = 0; i < found->count && !w->holders && wf_parts_on(f); i++) {
        struct wf_peer_node *peer = wf_peer_member(f, found->members[i]);
        if (!peer || !wf_peer_link(f, peer->number, w->events[w->at].domain))
            continue;
        struct wf_fabric_event event = w->events[w->at];
        event.quality = wf_found_quality(found, i);
        wf_parts_note(f, peer, &event, false);
        if (count < ASKS)
            holders[count++] = peer->number;
    }
    if (count)
        holders_ask(f, w, holders, count, now_ns);
    else if (!any_waits(w))
        go_on(f, w, now_ns);
}

/* --------------------------------------------------------------------------------- as time goes */

void wf_walks_lost(struct wf_fabric *f, const struct wf_peer_node *peer)
{
    for (uint32_t i = 0; i < WALKS_MAX; i++) {
        struct walk *w = &f->walks->walks[i];
        bool any = false;
        for (uint32_t k = 0; w->memory && k < ASKS; k++) {
            bool lost = w->asks[k].waits && w->asks[k].peer == peer->number;
            w->asks[k].waits &= !lost;
            any |= lost;
        }
        if (any && !any_waits(w))
            go_on(f, w, wf_fabric_now(f));
    }
}

void wf_walks_tick(struct wf_fabric *f, uint64_t now_ns)
{
    for (uint32_t i = 0; i < WALKS_MAX; i++) {
        struct walk *w = &f->walks->walks[i];
        if (w->memory && now_ns - w->asked_ns > PATIENCE_NS)
            go_on(f, w, now_ns);
    }
}

/* ---------------------------------------------------------------------------------- any thread */

enum weft_status wf_fabric_find(struct wf_fabric *f, const struct wf_fabric_event *blocks,
                                uint32_t count)
{
    uint64_t now_ns = wf_fabric_now(f);
    if (count == 0 || !wf_fabric_in_parts(f))
        return WEFT_MISS;
    uint64_t hash = hash_of(blocks[0].key);
    struct find *find = &f->walks->finds[hash % FINDS_MAX];
    pthread_mutex_lock(&f->lock);
    bool missed = wf_parts_missed(f, blocks[0].key);
    bool begun = find->hash == hash && find->until_ns > now_ns;
    if (!missed && !begun)
        *find = (struct find){hash, now_ns + ASKED_NS};
    pthread_mutex_unlock(&f->lock);
    if (missed || begun)
        return missed ? WEFT_MISS : WEFT_PENDING;
    enum weft_status status = wf_fabric_look(f, blocks, count);
    return status == WEFT_OK ? WEFT_PENDING : status;
}

/* ------------------------------------------------------------------------------ create, destroy */

enum weft_status wf_walks_create(struct wf_fabric *f)
{
    f->walks = wf_calloc(1, sizeof *f->walks, "chains that are looked for");
    return f->walks ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_walks_destroy(struct wf_fabric *f)
{
    for (uint32_t i = 0; f->walks && i < WALKS_MAX; i++)
        free(f->walks->walks[i].memory);
    free(f->walks);
    f->walks = NULL;
}
