/* SPDX-License-Identifier: Apache-2.0
 *
 * How many copies of a block there are, where this node keeps a part of the directory: asked of the
 * owners of its shard, many blocks a message, before blocks go to other lenders (moves.c).
 *
 *     A (keeps a part)                          O (owns the shards of these keys)
 *     COPIES key, key, key …    ───────────────►
 *                               ◄───────────────  COPIED members a key; WHOLE
 *
 * All owners of a shard are asked, and whoever one of them names counts: an owner that has just
 * become one has heard of little yet, the other one has been there before, and a copy too few that
 * is believed in is one that is made for nothing.  What they say is *sure* when one of them has
 * heard all: that is, the directory has been cut as it is for SETTLED_NS, so that all others have
 * noticed, and each member has told it all since.  What is not sure is for the asker to judge.
 *
 * Whether there are too many is another question: a copy that a lender has for itself, in its pool,
 * is none that stays.  It is put to the lenders that seem to have one, with LENT.
 *
 * An owner that does not answer within PATIENCE_NS, or takes no question, is waited for no longer.
 * There are QUESTIONS_MAX questions at a time, in ASKS_MAX messages, and no more than SAYS of these
 * begin a tick: about 20,000 blocks a second.  Nothing is kept of an answer but by who asked.
 *
 * The fabric's thread.  Nothing allocates after create.
 */
#include <stdlib.h>
#include <string.h>

#include "core/shard.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define QUESTIONS_MAX 1024u
#define ASKS_MAX 64u
#define SAYS 16u
#define PATIENCE_NS 250000000u
#define SETTLED_NS 2000000000u
#define WHOLE_NS 100000000u /* for so long the answer is the same */
#define HOLDERS_MAX 64u
#define ASKED_MAX 8u /* of one block */
#define NONE UINT32_MAX

static_assert(WF_SHARD_OWNERS_MAX <= ASKED_MAX, "owners are asked");
static_assert(ASKED_MAX <= 2 * WF_FABRIC_COPIED_NAMES, "each of them may name itself");

struct question {
    struct wf_fabric_event block;
    bool used, lent;            /* lent: lenders are asked, each about itself */
    uint32_t number;            /* of who asked */
    uint32_t owners[ASKED_MAX]; /* or lenders, that are to be asked; NONE */
    uint32_t waits;             /* for so many answers */
    uint64_t since_ns;
    struct wf_copies_known known;
};

/* A message about some of them. */
struct ask {
    bool used;
    uint32_t generation, peer, count;
    uint64_t asked_ns;
    uint16_t questions[WF_FABRIC_COPIES_MAX];
};

struct wf_copies {
    struct question questions[QUESTIONS_MAX];
    uint32_t open, from; /* that are used; where the next turn begins */
    struct ask asks[ASKS_MAX];
    bool whole;
    uint64_t whole_ns; /* when that was found out; 0: never */
};

/* --------------------------------------------------------------------------------------- asked */

uint32_t wf_copies_room(const struct wf_fabric *f)
{
    return QUESTIONS_MAX - f->copies->open;
}

/* Has this node heard all that there is of the shards that it owns? */
static bool is_whole(struct wf_fabric *f)
{
    struct wf_copies *c = f->copies;
    uint64_t now_ns = wf_fabric_now(f);
    if (c->whole_ns && now_ns - c->whole_ns < WHOLE_NS)
        return c->whole;
    c->whole_ns = now_ns;
    c->whole = wf_parts_settled(f, SETTLED_NS);
    for (uint32_t i = 0; i < f->peer_count && c->whole; i++) {
        const struct wf_peer_node *peer = &f->peers[i];
        c->whole = !peer->used || !peer->registered || (peer->link && peer->link->complete);
    }
    return c->whole;
}

/* NULL: there is no room. */
static struct question *question_take(struct wf_fabric *f, const struct wf_fabric_event *block,
                                      uint32_t number)
{
    struct wf_copies *c = f->copies;
    if (c->open == QUESTIONS_MAX)
        return NULL;
    struct question *q = c->questions;
    while (q->used)
        q++;
    *q = (struct question){.block = *block,
                           .used = true,
                           .number = number,
                           .since_ns = wf_fabric_now(f)};
    for (uint32_t i = 0; i < ASKED_MAX; i++)
        q->owners[i] = NONE;
    c->open++;
    return q;
}

bool wf_copies_ask(struct wf_fabric *f, const struct wf_fabric_event *block, uint32_t number)
{
    uint64_t owners[WF_SHARD_OWNERS_MAX];
    struct question *q = question_take(f, block, number);
    uint32_t count = q ? wf_parts_owners(f, block->key, owners) : 0;
    for (uint32_t i = 0; i < count; i++) {
        bool self = owners[i] == wf_parts_self(f);
        const struct wf_peer_node *peer = self ? NULL : wf_peer_member(f, owners[i]);
        q->owners[i] = peer ? peer->number : NONE;
        q->known.sure |= self && is_whole(f);
    }
    return q != NULL;
}

bool wf_copies_ask_lent(struct wf_fabric *f, const struct wf_fabric_event *block, uint32_t number,
                        const uint16_t *lenders, uint32_t count)
{
    struct question *q = question_take(f, block, number);
    for (uint32_t i = 0; q && i < count && i < ASKED_MAX; i++)
        q->owners[i] = lenders[i];
    if (q)
        q->lent = true;
    return q != NULL;
}

/* Which of its owners is this peer, if it is to be asked? */
static uint32_t owner_of(const struct question *q, uint32_t peer)
{
    uint32_t i = 0;
    while (i < ASKED_MAX && q->owners[i] != peer)
        i++;
    return i;
}

/* Up to a message's worth of what that one is to be asked about, as the first is and of its domain.
 */
static void gather(struct wf_fabric *f, uint32_t first, uint32_t peer, struct ask *ask,
                   struct wf_fabric_copies *out)
{
    struct wf_copies *c = f->copies;
    unsigned domain = c->questions[first].block.domain;
    bool lent = c->questions[first].lent;
    for (uint32_t i = 0; i < QUESTIONS_MAX && ask->count < WF_FABRIC_COPIES_MAX; i++) {
        uint32_t number = (first + i) % QUESTIONS_MAX;
        struct question *q = &c->questions[number];
        bool one = q->used && q->block.domain == domain && q->lent == lent;
        uint32_t owner = one ? owner_of(q, peer) : ASKED_MAX;
        if (owner == ASKED_MAX)
            continue;
        struct wf_fabric_copies_key *key = &out->keys[ask->count];
        *key = (struct wf_fabric_copies_key){.bytes = q->block.bytes,
                                             .quality = wf_quality_class(q->block.quality)};
        memcpy(key->key, q->block.key, 32);
        q->owners[owner] = NONE;
        q->waits++;
        ask->questions[ask->count++] = (uint16_t)number;
    }
    out->domain = (uint16_t)domain;
    out->count = (uint16_t)ask->count;
    out->flags = lent ? WF_FABRIC_LENT : 0;
}

static struct ask *ask_free(struct wf_copies *c)
{
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        if (!c->asks[i].used)
            return &c->asks[i];
    return NULL;
}

/* False: not now. */
static bool say(struct wf_fabric *f, uint32_t first, uint32_t peer, uint64_t now_ns)
{
    static _Thread_local union {
        struct wf_fabric_copies said;
        uint8_t bytes[sizeof(struct wf_fabric_copies) +
                      WF_FABRIC_COPIES_MAX * sizeof(struct wf_fabric_copies_key)];
    } m;
    struct wf_copies *c = f->copies;
    struct wf_link *link = wf_peer_link(f, peer, c->questions[first].block.domain);
    struct ask *ask = ask_free(c);
    if (!link || !(link->said.flags & WF_FABRIC_COUNTS)) { /* it does not answer */
        struct question *q = &c->questions[first];
        q->owners[owner_of(q, peer)] = NONE;
        return true;
    }
    if (!ask || !wf_link_can_say(link))
        return false;
    *ask = (struct ask){.used = true,
                        .generation = ask->generation + 1,
                        .peer = peer,
                        .asked_ns = now_ns};
    m.said = (struct wf_fabric_copies){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_COPIES},
                                       .request = (uint64_t)ask->generation << 32 |
                                                  (uint32_t)(ask - c->asks)};
    gather(f, first, peer, ask, &m.said);
    f->figures.lookups++;
    /* What could not be said after all is not answered. */
    return wf_link_say(link, &m, (uint32_t)(sizeof m.said + m.said.count * sizeof m.said.keys[0]));
}

static void ask_some(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_copies *c = f->copies;
    uint32_t says = 0;
    for (uint32_t i = 0; i < QUESTIONS_MAX; i++) {
        uint32_t number = (c->from + i) % QUESTIONS_MAX;
        struct question *q = &c->questions[number];
        for (uint32_t k = 0; q->used && k < ASKED_MAX; k++) {
            if (q->owners[k] == NONE)
                continue;
            if (says == SAYS || !ask_free(c)) {
                c->from = number;
                return;
            }
            if (say(f, number, q->owners[k], now_ns))
                says++;
            else if (now_ns - q->since_ns > PATIENCE_NS)
                q->owners[k] = NONE;
        }
    }
}

/* ------------------------------------------------------------------------------------- answers */

static void known_add(struct wf_fabric *f, struct wf_copies_known *known, uint64_t member)
{
    const struct wf_peer_node *peer = member == wf_parts_self(f) ? NULL : wf_peer_member(f, member);
    uint32_t i = 0;
    while (peer && i < known->count && known->holders[i] != peer->number)
        i++;
    if (peer && i == known->count && i < sizeof known->holders / sizeof known->holders[0])
        known->holders[known->count++] = (uint16_t)peer->number;
}

static void ask_end(struct wf_fabric *f, struct ask *ask)
{
    for (uint32_t i = 0; i < ask->count; i++)
        f->copies->questions[ask->questions[i]].waits--;
    ask->used = false;
}

bool wf_copied_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    struct wf_copies *c = f->copies;
    const struct wf_fabric_copied *copied = header;
    if (bytes < sizeof *copied || link->state != WF_LINK_JOINED ||
        copied->count > WF_FABRIC_COPIES_MAX ||
        bytes != sizeof *copied + copied->count * sizeof copied->keys[0])
        return false;
    uint32_t number = (uint32_t)copied->request;
    struct ask *ask = number < ASKS_MAX ? &c->asks[number] : NULL;
    if (!ask || !ask->used || ask->generation != copied->request >> 32 ||
        ask->peer != link->peer->number || ask->count != copied->count)
        return true; /* nobody waits for it any more */
    for (uint32_t i = 0; i < ask->count && wf_peer_believed(f, link->peer); i++) {
        struct question *q = &c->questions[ask->questions[i]];
        struct wf_copies_known *known = &q->known;
        for (uint32_t k = 0; k < WF_FABRIC_COPIED_NAMES && copied->keys[i].members[k]; k++)
            if (!q->lent || copied->keys[i].members[k] == link->peer->member)
                known_add(f, known, copied->keys[i].members[k]);
        known->sure |= copied->flags & WF_FABRIC_WHOLE;
    }
    ask_end(f, ask);
    return true;
}

void wf_copies_lost(struct wf_fabric *f, const struct wf_peer_node *peer)
{
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        if (f->copies->asks[i].used && f->copies->asks[i].peer == peer->number)
            ask_end(f, &f->copies->asks[i]);
}

static bool is_asked(const struct question *q)
{
    for (uint32_t i = 0; i < ASKED_MAX; i++)
        if (q->owners[i] != NONE)
            return false;
    return q->waits == 0;
}

void wf_copies_tick(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_copies *c = f->copies;
    if (!c->open)
        return;
    for (uint32_t i = 0; i < ASKS_MAX; i++)
        if (c->asks[i].used && now_ns - c->asks[i].asked_ns > PATIENCE_NS)
            ask_end(f, &c->asks[i]);
    ask_some(f, now_ns);
    for (uint32_t i = 0; i < QUESTIONS_MAX; i++) {
        struct question *q = &c->questions[i];
        if (!q->used || !is_asked(q))
            continue;
        struct wf_copies_known known = q->known;
        known.at_ns = now_ns;
        q->used = false;
        c->open--;
        wf_moves_known(f, q->number, &known);
    }
}

/* ----------------------------------------------------------------------------- asked by others */

/* Of these that have it, who lends memory, or who does not. */
static uint32_t name(struct wf_fabric *f, const struct wf_link *link, uint32_t domain,
                     const uint16_t *holders, uint32_t count, bool lenders, uint64_t *out,
                     uint32_t named)
{
    for (uint32_t i = 0; i < count && named < WF_FABRIC_COPIED_NAMES; i++) {
        const struct wf_peer_node *peer = &f->peers[holders[i]];
        if (peer != link->peer && !peer->draining && wf_peer_link(f, peer->number, domain) &&
            (peer->said.lends_bytes > 0) == lenders)
            out[named++] = peer->member;
    }
    return named;
}

/* All that this node knows to have it and stay, itself included: lenders first.  Or itself alone,
 * where it lends it. */
static void copies_name(struct wf_fabric *f, const struct wf_link *link, uint32_t domain,
                        const struct wf_fabric_copies_key *key, bool alone,
                        struct wf_fabric_copied_key *out)
{
    uint16_t holders[HOLDERS_MAX];
    uint8_t is;
    unsigned worst = wf_quality_class(key->quality);
    uint32_t named = 0, count = wf_peer_holders(f, key->key, worst, holders, HOLDERS_MAX);
    bool stays = !atomic_load_explicit(&f->draining, memory_order_relaxed);
    bool lent = stays && f->lent && wf_lent_has(f->lent, domain, key->key, &is) && is <= worst;
    if (lent)
        out->members[named++] = wf_parts_self(f);
    if (alone)
        return;
    named = name(f, link, domain, holders, count, true, out->members, named);
    if (stays && !lent && named < WF_FABRIC_COPIED_NAMES &&
        wf_parts_has(f, domain, key->key, key->bytes) <= worst)
        out->members[named++] = wf_parts_self(f);
    (void)name(f, link, domain, holders, count, false, out->members, named);
}

bool wf_copies_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    static _Thread_local union {
        struct wf_fabric_copied said;
        uint8_t bytes[sizeof(struct wf_fabric_copied) +
                      WF_FABRIC_COPIES_MAX * sizeof(struct wf_fabric_copied_key)];
    } m;
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_copies *asked = header;
    if (bytes < sizeof *asked || link->state != WF_LINK_JOINED || asked->count == 0 ||
        asked->count > WF_FABRIC_COPIES_MAX || asked->domain >= WF_FABRIC_DOMAINS_MAX ||
        bytes != sizeof *asked + asked->count * sizeof asked->keys[0])
        return false;
    for (uint32_t i = 0; i < asked->count; i++)
        if (!wf_quality_sane(asked->keys[i].quality))
            return false;
    uint32_t domain = link->ours_of[asked->domain];
    uint32_t answer_bytes = (uint32_t)(sizeof m.said + asked->count * sizeof m.said.keys[0]);
    memset(&m, 0, answer_bytes);
    m.said = (struct wf_fabric_copied){
        .head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_COPIED},
        .request = asked->request,
        .count = asked->count,
    };
    f->figures.looked_up++;
    if (domain != WF_DOMAIN_NONE && wf_peer_believed(f, link->peer)) {
        m.said.flags = is_whole(f) ? WF_FABRIC_WHOLE : 0;
        for (uint32_t i = 0; i < asked->count; i++)
            copies_name(f, link, domain, &asked->keys[i], asked->flags & WF_FABRIC_LENT,
                        &m.said.keys[i]);
    }
    (void)wf_link_say(link, &m, answer_bytes); /* or who asked waits no longer */
    return true;
}

/* ------------------------------------------------------------------------------ create, destroy */

enum weft_status wf_copies_create(struct wf_fabric *f)
{
    f->copies = wf_calloc(1, sizeof *f->copies, "questions about copies");
    return f->copies ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_copies_destroy(struct wf_fabric *f)
{
    free(f->copies);
    f->copies = NULL;
}
