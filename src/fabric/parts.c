/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory in parts: who is told of which block, and who is asked (core/shard.h).
 *
 * Each node decides for itself whether it keeps all of the directory or its part of it, by what it
 * may cost here, and says so to each other node with WANT; from then on it is told only of the keys
 * whose shards it owns.  So nobody has to agree on a mode: an owner is told of all of its shards by
 * everybody, whatever everybody keeps, and who keeps a part asks an owner for the rest.  The owners
 * follow from the list of members; where two lists differ for a moment a block is not found, which
 * is a miss.  When members come or go, those whose shards changed are told their part anew.
 *
 *     A (keeps a part)                          O (owns the key's shard)
 *     LOOKUP key                ───────────────►
 *                               ◄───────────────  FOUND members
 *     GET from one of these
 *
 * What was found is believed for WF_FOUND_NS, unless who has it says so itself meanwhile, and that
 * nobody was for MISSED_NS.  An owner that
 * does not answer in time, or knows nobody, leads to the next one: so a lookup ends after as many
 * waits as a shard has owners.  A lookup is asked for by a fetch, which waits for it; about chains,
 * of which nobody waits here, walks.c asks.
 *
 * The host is told of no block but those that it asks for, as it makes no use of single blocks of
 * chains: of these it hears that they are elsewhere, whether an owner said so or this node owns the
 * shard and knew, and after WF_FOUND_NS that this is over; of its own shards' at once, if they go.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "core/shard.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define LOOKS_MAX 4096u
#define FOUND_MAX 65536u  /* a ring: the oldest lapses early */
#define MISSED_MAX 16384u /* by hash: the newer one stays; a power of two */
#define NEWEST_MAX                                                                  \
    131072u /* of FOUND_MAX; likewise, but of a few places the oldest goes: what is \
               not there lapses early */
#define NEWEST_WAYS 8u
#define MISSED_NS 100000000u
#define PATIENCE_NS 50000000u
#define OWNERS 2u
#define MAP_NS 200000000u /* between two changes of the map */
#define DECIDE_NS 1000000000u
#define STAYS_NS 60000000000u /* what was decided, at least */
#define HOLDERS_MAX 64u
#define NONE UINT32_MAX

static_assert(LOOKS_MAX <= WF_FABRIC_WALKS, "numbers of requests");

struct look {
    struct wf_fabric_event event;
    struct wf_fabric_fetch *fetches; /* that wait for it */
    uint64_t asked_ns;
    uint32_t generation, next; /* of the same hash; of the free ones */
    uint32_t owner;            /* which of the shard's is asked */
    uint32_t peer;             /* its number; NONE: nobody is asked now */
    bool used;
};

/* A copy that is believed to be there; or, of no peer, a block that the host was told of. */
struct found {
    struct wf_fabric_event event;
    uint64_t at_ns;
    uint32_t peer, place; /* peer NONE: the host */
};

struct wf_parts {
    bool on; /* this node keeps a part */
    struct wf_shards *map, *before;
    bool has_map;
    uint64_t member, changed_ns, mapped_ns, decided_ns, switched_ns, heard;
    uint64_t maps; /* how often it was cut anew */
    struct look looks[LOOKS_MAX];
    uint32_t by_key[LOOKS_MAX], free, used;
    struct found *found;
    uint64_t found_first, found_end;
    struct missed {
        uint64_t hash, until_ns;
    } * missed;
    struct newest { /* of the same copy: when it was said last, and whether by who has it */
        uint64_t hash, at_ns;
        bool told;
    } * newest;
    uint64_t ids[WF_SHARD_MEMBERS_MAX];
};

/* ------------------------------------------------------------------------------------- the map */

static void map_make(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    uint32_t count = 0;
    p->ids[count++] = p->member;
    for (uint32_t i = 0; i < f->peer_count && count < WF_SHARD_MEMBERS_MAX; i++)
        if (f->peers[i].used && f->peers[i].registered)
            p->ids[count++] = f->peers[i].member;
    struct wf_shards *last = p->before;
    p->before = p->map;
    p->map = last;
    p->mapped_ns = now_ns;
    p->changed_ns = 0;
    p->maps++;
    if (wf_shards_set(p->map, p->ids, count) == WEFT_OK) {
        p->has_map = true;
        return;
    }
    wf_warn("fabric", "the directory stays cut as it was: %s", wf_last_error());
    p->map = p->before;
    p->before = last;
}

/* Whose shards are others than before is told its part anew. */
static void map_change(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    struct wf_shards_moved moved;
    bool had = p->has_map;
    map_make(f, now_ns);
    if (!had)
        return;
    wf_shards_moved(p->before, p->map, p->member, &moved);
    f->figures.shards_moved += moved.gained_count + moved.lost_count;
    for (uint32_t shard = 0; shard < WF_SHARDS; shard++) {
        uint64_t was[WF_SHARD_OWNERS_MAX] = {0}, is[WF_SHARD_OWNERS_MAX] = {0};
        (void)wf_shards_owners(p->before, shard, was);
        (void)wf_shards_owners(p->map, shard, is);
        for (uint32_t i = 0; i < OWNERS; i++) {
            struct wf_peer_node *gained = wf_shards_owns(p->before, shard, is[i])
                                              ? NULL
                                              : wf_peer_member(f, is[i]);
            struct wf_peer_node *lost = wf_shards_owns(p->map, shard, was[i])
                                            ? NULL
                                            : wf_peer_member(f, was[i]);
            if (gained && gained->link)
                gained->link->retell = true;
            if (lost && lost->link)
                lost->link->retell = true;
        }
    }
    for (struct wf_link *link = f->links; link; link = link->next) {
        if (link->retell && link->parts && link->state == WF_LINK_JOINED) {
            wf_stream_begin(link);
            f->figures.told_anew++;
        }
        link->retell = false;
    }
}

void wf_parts_members(struct wf_fabric *f)
{
    f->parts->changed_ns = wf_fabric_now(f);
}

static bool owns(const struct wf_fabric *f, uint64_t member, const uint8_t key[32])
{
    return f->parts->has_map && wf_shards_owns(f->parts->map, wf_shard_of(key), member);
}

bool wf_parts_tells(const struct wf_link *link, const uint8_t key[32])
{
    return !link->parts || owns(link->fabric, link->peer->member, key);
}

bool wf_parts_owns(const struct wf_fabric *f, const uint8_t key[32])
{
    return owns(f, f->parts->member, key);
}

uint32_t wf_parts_owners(const struct wf_fabric *f, const uint8_t key[32], uint64_t *out)
{
    return wf_shards_owners(f->parts->map, wf_shard_of(key), out);
}

bool wf_parts_on(const struct wf_fabric *f)
{
    return f->parts->on;
}

uint64_t wf_parts_maps(const struct wf_fabric *f)
{
    return f->parts->maps;
}

bool wf_parts_settled(const struct wf_fabric *f, uint64_t for_ns)
{
    const struct wf_parts *p = f->parts;
    return !p->on || (p->has_map && !p->changed_ns && wf_fabric_now(f) - p->mapped_ns >= for_ns);
}

uint64_t wf_parts_self(const struct wf_fabric *f)
{
    return f->parts->member;
}

/* ------------------------------------------------------------------------ what is wanted */

static bool want_say(struct wf_link *link)
{
    struct wf_fabric_want want = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_WANT},
                                  .parts = link->fabric->parts->on};
    return wf_link_say(link, &want, sizeof want);
}

void wf_parts_wanted(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    if (!f->parts->has_map)
        map_make(f, wf_fabric_now(f));
    link->parts = true;
}

bool wf_want_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    const struct wf_fabric_want *want = header;
    struct wf_fabric *f = link->fabric;
    if (bytes != sizeof *want || link->state != WF_LINK_JOINED || want->parts > 1)
        return false;
    if (want->parts == link->parts)
        return true;
    if (!f->parts->has_map)
        map_make(f, wf_fabric_now(f));
    link->parts = want->parts;
    wf_stream_begin(link);
    return true;
}

static void turn(struct wf_fabric *f, bool on, uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    if (p->on == on)
        return;
    if (!p->has_map)
        map_make(f, now_ns);
    p->on = on;
    p->switched_ns = now_ns;
    /* The host is told of all from now on: of nothing it counts as heard before. */
    for (uint32_t i = 0; !on && i < f->peer_count; i++)
        if (f->peers[i].used)
            wf_stream_forget(f, &f->peers[i]);
    f->figures.in_parts = on;
    atomic_store_explicit(&f->in_parts, on, memory_order_relaxed);
    for (struct wf_link *link = f->links; link; link = link->next)
        if (link->state == WF_LINK_JOINED && !link->closing && !want_say(link))
            wf_link_close(link, "there is no room to say what this node wants to be told");
}

/* By what all of it would cost on this node; not back and forth. */
static void decide(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    const struct wf_fabric_options *o = &f->options;
    struct wf_places_stats places;
    struct wf_shard_size size;
    char why[256];
    if (o->directory != WF_FABRIC_DIRECTORY_AUTO || !f->strict ||
        now_ns < p->decided_ns + DECIDE_NS)
        return;
    double seconds = p->decided_ns ? (double)(now_ns - p->decided_ns) * 1e-9 : 0;
    double changes = (double)(f->figures.heard - p->heard);
    p->heard = f->figures.heard;
    p->decided_ns = now_ns;
    if (seconds <= 0)
        return;
    pthread_mutex_lock(&f->lock);
    wf_places_stats(f->places, &places);
    uint64_t own = wf_stream_own_count(f); /* what it lends counts here either way */
    places.copies -= own;
    places.copies_max -= own;
    pthread_mutex_unlock(&f->lock);
    uint32_t members = f->joined_count + 1;
    double part = p->on && members > OWNERS ? (double)members / OWNERS : 1;
    struct wf_shard_need need = {.copies = (uint64_t)((double)places.copies * part),
                                 .changes_s = changes / seconds * part,
                                 .members = members,
                                 .owners = OWNERS,
                                 .budget_bytes = wf_places_bytes(places.copies_max * 9 / 10),
                                 .budget_bytes_s = (double)o->directory_bytes_s};
    if (p->on) { /* back when there is room to spare */
        need.budget_bytes = need.budget_bytes * 6 / 10;
        need.budget_bytes_s *= .6;
    }
    wf_shard_decide(&need, &size);
    if ((size.rule != WF_SHARD_FULL) == p->on ||
        (p->switched_ns && now_ns < p->switched_ns + STAYS_NS))
        return;
    (void)wf_shard_say(&need, &size, why, sizeof why);
    wf_info("fabric", "%s", why);
    turn(f, !p->on, now_ns);
}

static uint64_t hash_of(const uint8_t key[32])
{
    uint64_t hash;
    memcpy(&hash, key + 8, sizeof hash);
    return hash;
}

/* ----------------------------------------------------------------------------------- believed */

static uint64_t copy_hash(const uint8_t key[32], uint32_t peer)
{
    return hash_of(key) ^ (peer + 1) * 0x9e3779b97f4aull;
}

/* The place that has this copy, or else the oldest of those that it may have. */
static struct newest *newest_of(struct wf_parts *p, const uint8_t key[32], uint32_t peer)
{
    uint64_t hash = copy_hash(key, peer);
    struct newest *oldest = NULL;
    for (uint32_t i = 0; i < NEWEST_WAYS; i++) {
        struct newest *n = &p->newest[(hash + i) % NEWEST_MAX];
        if (n->hash == hash)
            return n;
        if (!oldest || n->at_ns < oldest->at_ns)
            oldest = n;
    }
    return oldest;
}

static void found_add(struct wf_fabric *f, const struct wf_fabric_event *event, uint32_t peer,
                      uint32_t place)
{
    struct wf_parts *p = f->parts;
    struct newest *newest = newest_of(p, event->key, peer);
    uint64_t now_ns = wf_fabric_now(f);
    if (p->found_end - p->found_first == FOUND_MAX)
        wf_parts_lapse(f, UINT64_MAX);
    p->found[p->found_end++ % FOUND_MAX] =
        (struct found){.event = *event, .at_ns = now_ns, .peer = peer, .place = place};
    *newest = (struct newest){.hash = copy_hash(event->key, peer), .at_ns = now_ns};
}

void wf_parts_miss(struct wf_fabric *f, const uint8_t key[32])
{
    uint64_t hash = hash_of(key);
    pthread_mutex_lock(&f->lock);
    f->parts->missed[hash % MISSED_MAX] = (struct missed){hash, wf_fabric_now(f) + MISSED_NS};
    pthread_mutex_unlock(&f->lock);
}

bool wf_parts_missed(const struct wf_fabric *f, const uint8_t key[32])
{
    const struct missed *missed = &f->parts->missed[hash_of(key) % MISSED_MAX];
    return missed->hash == hash_of(key) && missed->until_ns > wf_fabric_now(f);
}

void wf_parts_host_tell(struct wf_fabric *f, uint32_t from, const struct wf_fabric_event *event)
{
    struct wf_fabric_event said = *event;
    said.quality = wf_quality_class(wf_fabric_best(f, event->key));
    if (f->options.host.news(f->options.host.context, from, &said))
        found_add(f, event, NONE, 0);
    else
        f->figures.refused_news++;
}

static bool had_by(struct wf_fabric *f, const struct wf_peer_node *peer, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    bool has = peer->place != WF_PLACE_NONE &&
               wf_places_holds(f->places, key, (uint16_t)peer->place);
    pthread_mutex_unlock(&f->lock);
    return has;
}

void wf_parts_told(struct wf_fabric *f, const struct wf_peer_node *peer, const uint8_t key[32])
{
    struct newest *newest = newest_of(f->parts, key, peer->number);
    if (newest->hash != copy_hash(key, peer->number))
        return; /* nobody else said so, lately */
    newest->at_ns = wf_fabric_now(f);
    newest->told = true;
}

void wf_parts_note(struct wf_fabric *f, struct wf_peer_node *peer,
                   const struct wf_fabric_event *event, bool tell)
{
    const struct newest *newest = newest_of(f->parts, event->key, peer->number);
    bool found = newest->hash == copy_hash(event->key, peer->number) && !newest->told;
    /* From who has it this node hears better: what was said of a chain is of its worst block. */
    bool told = !found && had_by(f, peer, event->key);
    if (!told && wf_stream_found(f, peer, event))
        found_add(f, event, peer->number, peer->place);
    if (tell && wf_stream_fits(f, event))
        wf_parts_host_tell(f, peer->number, event);
}

static void lapse(struct wf_fabric *f, const struct found *found)
{
    struct wf_parts *p = f->parts;
    uint64_t hash = copy_hash(found->event.key, found->peer);
    const struct newest *newest = newest_of(p, found->event.key, found->peer);
    struct wf_fabric_event event = found->event;
    event.kind = WF_FABRIC_GONE;
    if (newest->hash == hash && (newest->told || newest->at_ns > found->at_ns))
        return; /* it was said again, or by who has it, whose word it is that it goes */
    if (found->peer != NONE) {
        struct wf_peer_node *peer = &f->peers[found->peer];
        if (peer->used && peer->place == found->place)
            wf_stream_lapsed(f, peer, &event);
    } else if (!wf_stream_is_own(f, event.key) && (p->on || !wf_stream_fits(f, &event))) {
        f->behind |= !f->options.host.news(f->options.host.context, WF_FABRIC_NOBODY, &event);
    }
}

/* The oldest of what was found, as far as it is older than that; one at least with UINT64_MAX. */
void wf_parts_lapse(struct wf_fabric *f, uint64_t before_ns)
{
    struct wf_parts *p = f->parts;
    while (p->found_first < p->found_end) {
        const struct found found = p->found[p->found_first % FOUND_MAX];
        if (found.at_ns >= before_ns)
            return;
        p->found_first++;
        lapse(f, &found);
        if (before_ns == UINT64_MAX)
            return;
    }
}

/* ------------------------------------------------------------------------------------- looking */

static struct look *look_find(struct wf_parts *p, const uint8_t key[32])
{
    for (uint32_t i = p->by_key[hash_of(key) % LOOKS_MAX]; i != NONE; i = p->looks[i].next)
        if (memcmp(p->looks[i].event.key, key, 32) == 0)
            return &p->looks[i];
    return NULL;
}

static struct look *look_new(struct wf_parts *p, const struct wf_fabric_event *event)
{
    uint32_t i = p->free;
    if (i != NONE)
        p->free = p->looks[i].next;
    else if (p->used < LOOKS_MAX)
        i = p->used++;
    else
        return NULL;
    struct look *look = &p->looks[i];
    uint32_t *at = &p->by_key[hash_of(event->key) % LOOKS_MAX];
    *look = (struct look){.event = *event,
                          .generation = look->generation + 1,
                          .next = *at,
                          .peer = NONE,
                          .used = true};
    *at = i;
    return look;
}

static void look_end(struct wf_fabric *f, struct look *look)
{
    struct wf_parts *p = f->parts;
    uint32_t number = (uint32_t)(look - p->looks);
    uint32_t *at = &p->by_key[hash_of(look->event.key) % LOOKS_MAX];
    while (*at != number)
        at = &p->looks[*at].next;
    *at = look->next;
    look->next = p->free;
    p->free = number;
    look->used = false;
    look->generation++;
    while (look->fetches) {
        struct wf_fabric_fetch *fetch = look->fetches;
        look->fetches = fetch->next;
        fetch->next = NULL;
        *f->waiting_end = fetch;
        f->waiting_end = &fetch->next;
    }
}

/* Ask the next owner that can be asked.  False: there is none left. */
static bool look_ask(struct wf_fabric *f, struct look *look, uint64_t now_ns)
{
    union {
        struct wf_fabric_lookup ask;
        uint8_t bytes[sizeof(struct wf_fabric_lookup) + 32];
    } m = {.ask = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_LOOKUP},
                   .request = (uint64_t)look->generation << 32 | (uint32_t)(look - f->parts->looks),
                   .bytes = look->event.bytes,
                   .domain = look->event.domain,
                   .count = 1,
                   .quality = wf_quality_class(f->domains[look->event.domain].quality)}};
    uint64_t owners[WF_SHARD_OWNERS_MAX];
    uint32_t count = wf_parts_owners(f, look->event.key, owners);
    memcpy(m.ask.keys[0], look->event.key, 32);
    look->peer = NONE;
    while (look->owner < count) {
        struct wf_peer_node *peer = wf_peer_member(f, owners[look->owner++]);
        struct wf_link *link = peer ? wf_peer_link(f, peer->number, look->event.domain) : NULL;
        if (!link || !wf_link_say(link, &m, sizeof m.bytes))
            continue;
        look->peer = peer->number;
        look->asked_ns = now_ns;
        f->figures.lookups++;
        return true;
    }
    return false;
}

static void look_next(struct wf_fabric *f, struct look *look, uint64_t now_ns)
{
    if (look_ask(f, look, now_ns))
        return;
    f->figures.lookup_misses++;
    wf_parts_miss(f, look->event.key);
    look_end(f, look);
}

/* NULL: there is nobody to ask, or no room to, or it was asked just now. */
static struct look *look_begin(struct wf_fabric *f, const struct wf_fabric_event *event,
                               uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    struct look *look = look_find(p, event->key);
    if (look)
        return look;
    if (wf_parts_owns(f, event->key) || wf_parts_missed(f, event->key))
        return NULL;
    look = look_new(p, event);
    if (look && !look_ask(f, look, now_ns)) {
        look_end(f, look);
        look = NULL;
    }
    return look;
}

bool wf_parts_look(struct wf_fabric *f, struct wf_fabric_fetch *fetch, uint64_t now_ns)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE,
                                    .domain = (uint8_t)fetch->domain,
                                    .bytes = fetch->bytes};
    if (!f->parts->on || fetch->looked)
        return false;
    memcpy(event.key, fetch->key, 32);
    fetch->looked = true;
    struct look *look = look_begin(f, &event, now_ns);
    if (!look)
        return false;
    fetch->next = look->fetches;
    look->fetches = fetch;
    return true;
}

/* ------------------------------------------------------------------------------------- answers */

/* The best that is here; what is not known of a copy is that it is as this node's domain has it, at
 * worst. */
unsigned wf_parts_has(struct wf_fabric *f, uint32_t domain, const uint8_t key[32], uint64_t bytes)
{
    const struct wf_fabric_host *host = &f->options.host;
    struct wf_fabric_held held;
    unsigned worst = wf_quality_class(f->domains[domain].quality), best = WF_PLACES_CLASS_MAX + 1;
    uint8_t is;
    if (f->lent && wf_lent_has(f->lent, domain, key, &is))
        best = is;
    if (best && host->below && host->below(host->context, domain, key, &is) &&
        wf_quality_class(is) < best)
        best = wf_quality_class(is);
    if (!best || !bytes)
        return best;
    enum weft_status status = host->hold(host->context, domain, key, bytes, &held);
    if (status == WEFT_OK) {
        host->let_go(host->context, &held);
        worst = wf_quality_class(held.quality);
    }
    return (status == WEFT_OK || status == WEFT_E_BUSY) && worst < best ? worst : best;
}

uint8_t wf_found_quality(const struct wf_fabric_found *found, uint32_t member)
{
    return wf_quality_class(found->qualities >> 2 * member & WF_PLACES_CLASS_MAX);
}

static void found_name(struct wf_fabric_found *found, uint64_t member, unsigned class)
{
    found->qualities |= class << 2 * found->count;
    found->members[found->count++] = member;
}

bool wf_lookup_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_lookup *ask = header;
    union {
        struct wf_fabric_found found;
        uint8_t bytes[sizeof(struct wf_fabric_found) + WF_FABRIC_FOUND_MAX * 8];
    } m = {.found = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_FOUND}}};
    uint16_t holders[HOLDERS_MAX];
    if (bytes < sizeof *ask || link->state != WF_LINK_JOINED || ask->count == 0 ||
        ask->count > WF_FABRIC_LOOKUP_MAX || bytes != sizeof *ask + ask->count * 32 ||
        ask->domain >= WF_FABRIC_DOMAINS_MAX || !wf_quality_sane(ask->quality))
        return false;
    uint32_t domain = link->ours_of[ask->domain], count = 0;
    unsigned classes[HOLDERS_MAX], worst = wf_quality_class(ask->quality);
    m.found.request = ask->request;
    f->figures.looked_up++;
    if (domain != WF_DOMAIN_NONE && wf_peer_believed(f, link->peer)) {
        pthread_mutex_lock(&f->lock);
        count = wf_places_holders(f->places, ask->keys[0], worst, holders, HOLDERS_MAX);
        for (uint32_t i = 0; i < count; i++)
            classes[i] = wf_places_class(f->places, ask->keys[0], holders[i]);
        pthread_mutex_unlock(&f->lock);
        unsigned own = 0, of_all = 0, first = 0;
        while (m.found.blocks < ask->count &&
               (own = wf_parts_has(f, domain, ask->keys[m.found.blocks], ask->bytes)) <= worst) {
            first = m.found.blocks ? first : own;
            of_all = own > of_all ? own : of_all;
            m.found.blocks++;
        }
        if (m.found.blocks)
            found_name(&m.found, f->parts->member, first);
        m.found.qualities |= of_all << 2 * WF_FABRIC_FOUND_MAX;
    }
    /* Of many, others to each who asks. */
    for (uint32_t i = 0; i < count && m.found.count < WF_FABRIC_FOUND_MAX; i++) {
        uint32_t at = (uint32_t)((i + f->figures.looked_up) % count);
        uint32_t number = f->peer_of[holders[at]];
        if (number < f->peer_count && &f->peers[number] != link->peer &&
            wf_peer_link(f, number, domain))
            found_name(&m.found, f->peers[number].member, classes[at]);
    }
    (void)wf_link_say(link, &m, (uint32_t)(sizeof m.found + m.found.count * 8));
    return true;
}

bool wf_found_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    struct wf_parts *p = f->parts;
    const struct wf_fabric_found *found = header;
    if (bytes < sizeof *found || link->state != WF_LINK_JOINED ||
        found->count > WF_FABRIC_FOUND_MAX || bytes != sizeof *found + found->count * 8)
        return false;
    uint32_t number = (uint32_t)found->request;
    if (number >= WF_FABRIC_WALKS) {
        wf_walk_found(link, found);
        return true;
    }
    struct look *look = number < p->used ? &p->looks[number] : NULL;
    if (!look || !look->used || look->generation != found->request >> 32 ||
        look->peer != link->peer->number)
        return true; /* nobody waits for it any more */
    uint32_t taken = 0;
    for (uint32_t i = 0; i < found->count && p->on; i++) {
        struct wf_peer_node *peer = wf_peer_member(f, found->members[i]);
        if (!peer || !wf_peer_link(f, peer->number, look->event.domain))
            continue;
        struct wf_fabric_event event = look->event;
        event.quality = wf_found_quality(found, i);
        wf_parts_note(f, peer, &event, false);
        taken++;
    }
    if (taken)
        look_end(f, look);
    else
        look_next(f, look, wf_fabric_now(f));
    return true;
}

/* --------------------------------------------------------------------------------- as time goes */

void wf_parts_lost(struct wf_fabric *f, const struct wf_peer_node *peer)
{
    struct wf_parts *p = f->parts;
    for (uint32_t i = 0; p->on && i < p->used; i++)
        if (p->looks[i].used && p->looks[i].peer == peer->number)
            look_next(f, &p->looks[i], wf_fabric_now(f));
    wf_walks_lost(f, peer);
    wf_copies_lost(f, peer);
}

void wf_parts_tick(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_parts *p = f->parts;
    if (p->changed_ns && p->has_map && now_ns >= p->mapped_ns + MAP_NS)
        map_change(f, now_ns);
    decide(f, now_ns);
    for (uint32_t i = 0; i < p->used; i++)
        if (p->looks[i].used && now_ns - p->looks[i].asked_ns > PATIENCE_NS)
            look_next(f, &p->looks[i], now_ns);
    wf_walks_tick(f, now_ns);
    wf_copies_tick(f, now_ns);
    wf_parts_lapse(f, now_ns > WF_FOUND_NS ? now_ns - WF_FOUND_NS : 0);
}

void wf_parts_end(struct wf_fabric *f)
{
    struct wf_parts *p = f->parts;
    for (uint32_t i = 0; p && i < p->used; i++)
        if (p->looks[i].used)
            look_end(f, &p->looks[i]);
}

/* ------------------------------------------------------------------------------ create, destroy */

enum weft_status wf_parts_create(struct wf_fabric *f)
{
    struct wf_parts *p = wf_calloc(1, sizeof *p, "the directory's parts");
    if (!p)
        return WEFT_E_NO_MEMORY;
    f->parts = p;
    p->member = wf_shard_member(f->name);
    p->free = NONE;
    memset(p->by_key, 0xff, sizeof p->by_key);
    p->found = wf_calloc(FOUND_MAX, sizeof *p->found, "what owners said");
    p->missed = wf_calloc(MISSED_MAX, sizeof *p->missed, "what owners said");
    p->newest = wf_calloc(NEWEST_MAX, sizeof *p->newest, "what owners said");
    if (!p->found || !p->missed || !p->newest)
        return WEFT_E_NO_MEMORY;
    enum weft_status status = wf_shards_create(OWNERS, &p->map);
    if (status == WEFT_OK)
        status = wf_shards_create(OWNERS, &p->before);
    if (status == WEFT_OK)
        status = wf_walks_create(f);
    return status == WEFT_OK ? wf_copies_create(f) : status;
}

/* When it is known whether the registry says who is a member. */
enum weft_status wf_parts_begin(struct wf_fabric *f)
{
    if (f->options.directory != WF_FABRIC_DIRECTORY_PARTS)
        return WEFT_OK;
    if (!f->strict)
        return wf_fail(WEFT_E_INVALID, "fabric.directory: parts needs a registry that says who is "
                                       "a member; set fabric.join to etcd://…");
    turn(f, true, wf_fabric_now(f));
    return WEFT_OK;
}

void wf_parts_destroy(struct wf_fabric *f)
{
    if (!f->parts)
        return;
    wf_walks_destroy(f);
    wf_copies_destroy(f);
    wf_shards_destroy(f->parts->map);
    wf_shards_destroy(f->parts->before);
    free(f->parts->found);
    free(f->parts->missed);
    free(f->parts->newest);
    free(f->parts);
}
