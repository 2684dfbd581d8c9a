/* SPDX-License-Identifier: Apache-2.0
 *
 * What this node has is told to the others, and what they tell is kept.
 *
 * The host tells of changes (wf_fabric_tell) into a ring, from which they go to a log of the last
 * WF_LOG_MAX; each link has a place in it.  A new link is told all that there is, by a walk over
 * what the host has, and the changes meanwhile between its batches: a block that the walk saw and
 * that went later is told as here first and as gone behind it, since both go through this thread.
 * A link that falls behind the log begins anew with RESET, and so does every link when the ring was
 * full: nothing is ever lost silently, and the memory for it is bounded.
 *
 * What is heard goes into the replica (core/places.h), and, when a block is the first or the last
 * copy elsewhere, to the host.  What the host has no room for does not go into the replica either,
 * so that it is news when it is told once more: who told it, and nobody else, is asked for that
 * when there is room, when it has told all that it had begun to, and once a while at most.  Of what
 * went meanwhile the host asks itself (wf_fabric_forgotten()).
 */
#include <string.h>

#include "fabric/inner.h"

#define BATCHES 4u     /* to a link, in one turn */
#define WALK_STEPS 64u /* for one batch: of a walk little may be for this link */
#define LENT_LOOKS 256u
#define OWN_STEPS 8u /* a tick, of OWN_LOOKS each */
#define OWN_LOOKS 256u
#define OWN_PART 4u
#define OWN_AGAIN_NS 10000000000u /* what did not count is looked through again */
#define GRACE_NS 200000000u
#define MORE_NS 1000000000u /* between two times that the same is asked for what found no room */
#define SWEEP_BUCKETS 16384u

/* --------------------------------------------------------------------------------------- told */

void wf_fabric_tell(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    uint64_t now_ns = wf_fabric_now(f);
    pthread_mutex_lock(&f->lock);
    bool first = f->inbox_first == f->inbox_end;
    if (event->kind == WF_FABRIC_HERE && event->where == WF_FABRIC_IN_POOL &&
        atomic_load_explicit(&f->draining, memory_order_relaxed) &&
        wf_places_count(f->places, event->key, 1) == 0) {
        f->put_since = true;
        f->shown_figures.drained = false;
    }
    if (f->inbox_end - f->inbox_first == WF_INBOX_MAX)
        f->inbox_lost = true;
    else
        f->inbox[f->inbox_end++ % WF_INBOX_MAX] = (struct wf_logged){.event = *event,
                                                                     .at_ns = now_ns};
    pthread_mutex_unlock(&f->lock);
    if (first)
        wf_fabric_wake(f);
}

/* Of what is lent: would the host's copy be told of instead? */
static bool host_has(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    const struct wf_fabric_host *host = &f->options.host;
    struct wf_fabric_held held;
    enum weft_status status = host->hold(host->context, event->domain, event->key, event->bytes,
                                         &held);
    bool here = event->kind == WF_FABRIC_HERE;
    if (status == WEFT_OK) {
        host->let_go(host->context, &held);
        return !here || wf_quality_class(held.quality) <= event->quality;
    }
    return !here && (status != WEFT_MISS ||
                     (host->below && host->below(host->context, event->domain, event->key, NULL)));
}

/* A block may be here twice, the host's and lent: it is gone when neither is here, and below when
 * it is in no memory.  Of one that was lent and is below, no more exact, the word is kept back: it
 * is to be had as before, if later; and so it is of one that is lent and less exact than the
 * host's. */
static bool is_here_still(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    uint8_t lent;
    bool here = event->kind == WF_FABRIC_HERE;
    if (event->where == WF_FABRIC_IN_LENT)
        return (!here || event->quality) && host_has(f, event);
    if (here && event->where != WF_FABRIC_BELOW)
        return false;
    return f->lent && wf_lent_has(f->lent, event->domain, event->key, &lent) &&
           (!here || lent <= event->quality);
}

void wf_stream_log(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    if (is_here_still(f, event))
        return;
    f->log[f->log_end++ % WF_LOG_MAX] = (struct wf_logged){.event = *event,
                                                           .at_ns = wf_fabric_now(f)};
}

/* It is told all that there is, besides what changes. */
static void walk_begin(struct wf_link *link)
{
    link->telling = true;
    link->walk_lent = false;
    link->walk_domain = 0;
    link->walk = 0;
    link->fabric->all_told = false;
}

void wf_stream_begin(struct wf_link *link)
{
    walk_begin(link);
    link->reset = true;
    link->told_to = link->fabric->log_end;
}

struct batch {
    struct wf_link *link;
    union {
        struct wf_fabric_events events;
        uint8_t bytes[WF_NOTE_LARGE];
    } m;
};

static void batch_add(struct batch *batch, const struct wf_fabric_event *event)
{
    struct wf_fabric_event *out = &batch->m.events.events[batch->m.events.count++];
    *out = *event;
}

/* A walk tells a step's worth, of which there may be more than is left: what does not fit is told
 * again, since the cursor is where the step began then. */
struct walking {
    struct batch *batch;
    uint32_t domain;
    bool full;
};

static void walked(void *to, const struct wf_fabric_event *block)
{
    struct walking *w = to;
    if (w->batch->m.events.count == WF_FABRIC_EVENTS_MAX) {
        w->full = true;
        return;
    }
    struct wf_fabric_event event = *block;
    if (!wf_parts_tells(w->batch->link, block->key))
        return;
    event.kind = WF_FABRIC_HERE;
    event.domain = (uint8_t)w->domain;
    batch_add(w->batch, &event);
}

/* A step of what there is of a domain: what the host has, and then what is lent of it. */
static bool walk(struct wf_fabric *f, struct wf_link *link, struct walking *w)
{
    uint32_t domain = link->walk_domain;
    if (link->theirs_of[domain] == WF_DOMAIN_NONE)
        return false;
    if (!link->walk_lent) {
        if (f->options.host.each(f->options.host.context, domain, &link->walk, walked, w) ||
            w->full)
            return true;
        link->walk_lent = true;
        link->walk = 0;
        return f->lent != NULL;
    }
    return f->lent && wf_lent_each(f->lent, domain, &link->walk, LENT_LOOKS, walked, w);
}

static void fill_from_walk(struct wf_fabric *f, struct batch *batch)
{
    struct wf_link *link = batch->link;
    for (uint32_t steps = 0;
         link->telling && steps < WALK_STEPS && batch->m.events.count < WF_FABRIC_EVENTS_MAX;
         steps++) {
        if (link->walk_domain == f->domain_count) {
            link->telling = false;
            batch->m.events.flags |= WF_FABRIC_COMPLETE;
            return;
        }
        uint64_t before = link->walk;
        uint32_t count = batch->m.events.count;
        bool lent = link->walk_lent;
        struct walking w = {.batch = batch, .domain = link->walk_domain};
        bool more = walk(f, link, &w);
        if (w.full) { /* the step did not fit: it is the next batch's */
            batch->m.events.count = count;
            link->walk = before;
            link->walk_lent = lent;
            return;
        }
        if (more && link->walk == before && batch->m.events.count == count)
            return; /* the host is still looking */
        if (!more) {
            link->walk_domain++;
            link->walk = 0;
            link->walk_lent = false;
        }
    }
}

static void fill_from_log(struct wf_fabric *f, struct batch *batch, uint64_t now_ns)
{
    struct wf_link *link = batch->link;
    while (link->told_to < f->log_end && batch->m.events.count < WF_FABRIC_EVENTS_MAX) {
        const struct wf_logged *logged = &f->log[link->told_to++ % WF_LOG_MAX];
        if (!(link->domains >> logged->event.domain & 1) ||
            !wf_parts_tells(link, logged->event.key))
            continue;
        uint64_t age_us = now_ns > logged->at_ns ? (now_ns - logged->at_ns) / 1000 : 0;
        if (age_us > batch->m.events.age_us)
            batch->m.events.age_us = age_us;
        batch_add(batch, &logged->event);
    }
}

/* What the log has for this link, and, while it is told all, some of that; nothing: 0 bytes. */
static uint32_t batch_fill(struct batch *batch, uint64_t now_ns)
{
    struct wf_link *link = batch->link;
    struct wf_fabric_events *events = &batch->m.events;
    memset(events, 0, sizeof *events);
    events->head = (struct wf_fabric_head){.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_EVENTS};
    events->flags = link->reset ? WF_FABRIC_RESET : 0;
    events->from = link->said_to;
    fill_from_log(link->fabric, batch, now_ns);
    fill_from_walk(link->fabric, batch);
    events->to = link->told_to;
    if (events->count == 0 && events->flags == 0)
        return 0;
    return (uint32_t)(sizeof *events + events->count * sizeof events->events[0]);
}

/* What was made for one link is for all that have been told the same so far. */
#define SHARED 4u
struct shared {
    uint64_t domains, said_to, told_to, to;
    struct wf_note *body; /* NULL: there was nothing for those domains */
    uint32_t count;
    bool made;
};

struct telling {
    uint64_t now_ns;
    struct shared shared[SHARED];
    uint32_t next;
};

static const struct shared *shared_for(struct wf_link *link, struct telling *t)
{
    static _Thread_local struct batch batch;
    struct shared *s = t->shared;
    for (; s < t->shared + SHARED; s++)
        if (s->made && s->domains == link->domains && s->said_to == link->said_to &&
            s->told_to == link->told_to)
            return s;
    s = &t->shared[t->next++ % SHARED];
    if (s->body)
        wf_body_let_go(s->body);
    *s = (struct shared){.domains = link->domains,
                         .said_to = link->said_to,
                         .told_to = link->told_to};
    batch.link = link;
    uint32_t bytes = batch_fill(&batch, t->now_ns);
    s->to = link->told_to;
    link->told_to = s->told_to;
    s->count = batch.m.events.count;
    s->body = bytes ? wf_body_make(link->fabric, &batch.m, bytes) : NULL;
    s->made = s->body || !bytes;
    return s->made ? s : NULL;
}

static bool tell_log(struct wf_link *link, struct telling *t)
{
    const struct shared *s = shared_for(link, t);
    if (!s || (s->body && !wf_link_say_body(link, s->body)))
        return false;
    link->told_to = s->to;
    if (s->body)
        link->said_to = s->to;
    link->fabric->figures.told += s->count;
    return true;
}

/* False: there was nothing to say, or no way to say it now. */
static bool tell_some(struct wf_link *link, struct telling *t)
{
    static _Thread_local struct batch batch;
    struct wf_fabric *f = link->fabric;
    if (f->log_end - link->told_to > WF_LOG_MAX) {
        wf_stream_begin(link);
        f->figures.told_anew++;
    }
    if (!link->telling && link->told_to == f->log_end)
        return false;
    if (!link->telling && !link->reset && !link->parts)
        return tell_log(link, t);
    if (!wf_link_can_say(link))
        return false;
    struct wf_link before = *link;
    batch.link = link;
    uint32_t bytes = batch_fill(&batch, t->now_ns);
    if (bytes == 0)
        return false;
    if (!wf_link_say(link, &batch.m, bytes)) {
        link->telling = before.telling;
        link->walk = before.walk;
        link->walk_domain = before.walk_domain;
        link->walk_lent = before.walk_lent;
        link->told_to = before.told_to;
        return false;
    }
    link->reset = false;
    link->said_to = batch.m.events.to;
    f->figures.told += batch.m.events.count;
    return true;
}

static void take_inbox(struct wf_fabric *f)
{
    bool lost;
    pthread_mutex_lock(&f->lock);
    while (f->inbox_first < f->inbox_end) {
        const struct wf_logged *logged = &f->inbox[f->inbox_first++ % WF_INBOX_MAX];
        if (!is_here_still(f, &logged->event))
            f->log[f->log_end++ % WF_LOG_MAX] = *logged;
    }
    lost = f->inbox_lost;
    f->inbox_lost = false;
    pthread_mutex_unlock(&f->lock);
    for (struct wf_link *link = f->links; lost && link; link = link->next)
        if (link->state == WF_LINK_JOINED) {
            wf_stream_begin(link);
            f->figures.told_anew++;
        }
}

/* Only a node in good standing has anything to say. */
void wf_stream_run(struct wf_fabric *f)
{
    uint64_t now_ns = wf_fabric_now(f);
    take_inbox(f);
    if (f->standing.state == WF_STANDING_LOST || f->standing.until_ns <= now_ns)
        return;
    if (f->all_told && f->all_told_end == f->log_end)
        return; /* as is the rule: most polls are for something else */
    bool all = true;
    struct telling telling = {.now_ns = now_ns};
    for (struct wf_link *link = f->links; link; link = link->next) {
        for (uint32_t i = 0; i < BATCHES && link->state == WF_LINK_JOINED; i++)
            if (!tell_some(link, &telling))
                break;
        all &= link->state != WF_LINK_JOINED || (!link->telling && link->told_to == f->log_end);
    }
    for (uint32_t i = 0; i < SHARED; i++)
        if (telling.shared[i].body)
            wf_body_let_go(telling.shared[i].body);
    f->all_told = all;
    f->all_told_end = f->log_end;
}

/* -------------------------------------------------------------------------------------- heard */

uint32_t wf_peer_holders(struct wf_fabric *f, const uint8_t key[32], unsigned worst, uint16_t *out,
                         uint32_t max)
{
    uint32_t known = 0;
    pthread_mutex_lock(&f->lock);
    uint32_t count = wf_places_holders(f->places, key, worst, out, max);
    for (uint32_t i = 0; i < count; i++)
        if (f->peer_of[out[i]] < f->peer_count) /* it is not one that has left */
            out[known++] = (uint16_t)f->peer_of[out[i]];
    pthread_mutex_unlock(&f->lock);
    return known;
}

/* A number for it in the replica. */
static bool place_take(struct wf_fabric *f, struct wf_peer_node *peer)
{
    for (uint32_t i = 0; i < WF_PLACES_USED; i++) {
        uint32_t place = f->place_next++ % WF_PLACES_USED;
        if (f->peer_of[place] != WF_PLACE_FREE)
            continue;
        f->peer_of[place] = peer->number;
        peer->place = place;
        f->place_of[peer->number] = place;
        return true;
    }
    f->places_short = true;
    return false;
}

/* A node whose copies can be kept in mind: what it tells is not lost without a trace. */
static bool is_placed(struct wf_fabric *f, struct wf_peer_node *peer)
{
    pthread_mutex_lock(&f->lock);
    bool placed = peer->place != WF_PLACE_NONE || place_take(f, peer);
    pthread_mutex_unlock(&f->lock);
    return placed;
}

static bool go(struct wf_fabric *f);

/* A block that moves from one node to another is told of by both, in any order: between two words
 * nobody has it. */
static bool went(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    if (f->going_end - f->going_first == WF_GOING_MAX && !go(f))
        return false;
    f->going[f->going_end++ % WF_GOING_MAX] = (struct wf_logged){.event = *event,
                                                                 .at_ns = wf_fabric_now(f)};
    return true;
}

/* The best copy that others have has changed.  In the class `is` it counts here, by what its domain
 * asks for, or does not. */
static bool fits(const struct wf_fabric *f, const struct wf_fabric_event *event, unsigned is)
{
    return is <= wf_quality_class(f->domains[event->domain].quality);
}

static bool host_told(struct wf_fabric *f, uint32_t from, const struct wf_fabric_event *event)
{
    bool told = f->options.host.news(f->options.host.context, from, event);
    f->figures.refused_news += !told;
    return told;
}

/* The lock is held: it has no copy of this.  False: none was known of. */
static bool unplace(struct wf_fabric *f, const struct wf_peer_node *peer, const uint8_t key[32])
{
    (void)wf_places_remove(f->below, key, (uint16_t)peer->place);
    return wf_places_remove(f->places, key, (uint16_t)peer->place);
}

/* The host had no room for a copy that was not known before, and it is not known now. */
static void unheard(struct wf_fabric *f, const struct wf_peer_node *peer, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    (void)unplace(f, peer, key);
    pthread_mutex_unlock(&f->lock);
    f->own_untold |= peer == &f->own;
    if (peer->link) { /* else it tells all when there is one */
        peer->link->behind = true;
        peer->link->complete = false;
    }
}

/* False: what the host keeps of it is to be looked at again, as it could not be told. */
static bool here(struct wf_fabric *f, struct wf_peer_node *peer,
                 const struct wf_fabric_event *event, bool tell)
{
    pthread_mutex_lock(&f->lock);
    bool placed = peer->place != WF_PLACE_NONE || place_take(f, peer);
    bool had = placed && wf_places_holds(f->places, event->key, (uint16_t)peer->place);
    unsigned was = wf_places_best(f->places, event->key);
    bool added = placed &&
                 wf_places_add_as(f->places, event->key, (uint16_t)peer->place, event->quality);
    unsigned is = wf_places_best(f->places, event->key);
    if (added && event->where == WF_FABRIC_BELOW)
        (void)wf_places_add(f->below, event->key, (uint16_t)peer->place);
    else if (added)
        (void)wf_places_remove(f->below, event->key, (uint16_t)peer->place);
    pthread_mutex_unlock(&f->lock);
    if (!tell || !added || is == was)
        return true;
    if (!fits(f, event, is))
        return !fits(f, event, was) || went(f, event);
    struct wf_fabric_event said = *event;
    said.quality = (uint8_t)is;
    bool told = host_told(f, peer->number, &said);
    if (!told && !had)
        unheard(f, peer, event->key);
    return told || !had;
}

bool wf_stream_fits(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    enum weft_quality best = wf_fabric_best(f, event->key);
    return best != WEFT_QUALITY_DEFAULT && fits(f, event, wf_quality_class(best));
}

/* The oldest of the last copies that went: if nobody has it again by now, the host hears of it. */
static bool go(struct wf_fabric *f)
{
    struct wf_fabric_event *event = &f->going[f->going_first++ % WF_GOING_MAX].event;
    if (wf_stream_fits(f, event))
        return true;
    event->kind = WF_FABRIC_GONE;
    atomic_fetch_add_explicit(&f->last_went, 1, memory_order_release);
    return host_told(f, WF_FABRIC_NOBODY, event);
}

static bool gone(struct wf_fabric *f, struct wf_peer_node *peer,
                 const struct wf_fabric_event *event, bool tell)
{
    pthread_mutex_lock(&f->lock);
    unsigned was = wf_places_best(f->places, event->key);
    bool had = peer->place != WF_PLACE_NONE && unplace(f, peer, event->key);
    unsigned is = wf_places_best(f->places, event->key);
    pthread_mutex_unlock(&f->lock);
    if (!had || !tell || is == was || !fits(f, event, was))
        return true;
    if (!fits(f, event, is))
        return went(f, event);
    struct wf_fabric_event said = {.kind = WF_FABRIC_HERE,
                                   .quality = (uint8_t)is,
                                   .domain = event->domain};
    memcpy(said.key, event->key, 32);
    return host_told(f, WF_FABRIC_NOBODY, &said);
}

void wf_stream_own_begin(struct wf_fabric *f)
{
    f->own = (struct wf_peer_node){.number = WF_FABRIC_NOBODY, .place = 0};
    f->peer_of[f->own.place] = WF_PLACE_OWN;
    f->own_domain = f->domain_count;
}

/* The lock is held. */
uint64_t wf_stream_own_count(const struct wf_fabric *f)
{
    return f->lent ? wf_places_of(f->places, (uint16_t)f->own.place) : 0;
}

/* A lender of much memory knows of what others have nevertheless, and keeps its part of the
 * directory: of what it lends no more counts than a quarter of all copies that it can know of.  So
 * many more may. */
static uint64_t own_room(struct wf_fabric *f, uint64_t *out_most)
{
    struct wf_places_stats places;
    pthread_mutex_lock(&f->lock);
    wf_places_stats(f->places, &places);
    uint64_t count = wf_stream_own_count(f);
    pthread_mutex_unlock(&f->lock);
    *out_most = places.copies_max / OWN_PART;
    uint64_t room = *out_most - (count < *out_most ? count : *out_most);
    /* Of a replica that is full nothing is to be had. */
    uint64_t left = places.copies < places.copies_max ? places.copies_max - places.copies : 0;
    return room < left ? room : left;
}

/* In parts the host was not told of what others have of it: of this it is. */
static bool own_here(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    if (!wf_parts_on(f))
        return here(f, &f->own, event, true);
    bool was = wf_stream_is_own(f, event->key);
    (void)here(f, &f->own, event, false);
    if (was || !wf_stream_is_own(f, event->key) || !wf_stream_fits(f, event))
        return true;
    struct wf_fabric_event said = *event;
    said.quality = wf_quality_class(wf_fabric_best(f, event->key));
    if (!host_told(f, WF_FABRIC_NOBODY, &said))
        unheard(f, &f->own, event->key);
    return true;
}

/* In parts the word that others had it as well may have lapsed meanwhile: it was kept back. */
static bool own_gone(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    if (!wf_parts_on(f))
        return gone(f, &f->own, event, true);
    bool was = wf_stream_is_own(f, event->key);
    (void)gone(f, &f->own, event, false);
    if (was)
        atomic_fetch_add_explicit(&f->last_went, 1, memory_order_release);
    return !was || host_told(f, WF_FABRIC_NOBODY, event);
}

void wf_stream_own(struct wf_fabric *f, const struct wf_fabric_event *event)
{
    struct wf_fabric_event said = *event;
    uint64_t most;
    said.quality = wf_quality_class(event->quality);
    if (event->kind == WF_FABRIC_GONE) {
        f->behind |= !own_gone(f, &said);
        return;
    }
    if (own_room(f, &most))
        f->behind |= !own_here(f, &said);
    f->own_over |= !wf_stream_is_own(f, said.key);
}

bool wf_stream_is_own(struct wf_fabric *f, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    bool is = f->lent && wf_places_holds(f->places, key, (uint16_t)f->own.place);
    pthread_mutex_unlock(&f->lock);
    return is;
}

static void own_found(void *to, const struct wf_fabric_event *block)
{
    wf_stream_own(to, block);
}

static void own_look_again(struct wf_fabric *f)
{
    f->own_over = false;
    f->own_domain = 0;
    f->own_cursor = 0;
    f->own_ns = wf_fabric_now(f);
}

/* There is room for what did not count, or what the host could not hear of. */
static void own_tell(struct wf_fabric *f, uint64_t now_ns)
{
    uint64_t most;
    if (f->own_over && f->own_domain == f->domain_count && now_ns - f->own_ns >= OWN_AGAIN_NS &&
        own_room(f, &most) > most / 8)
        own_look_again(f);
    for (uint32_t looks = 0; f->lent && f->own_domain < f->domain_count && looks < OWN_STEPS;
         looks++)
        if (!wf_lent_each(f->lent, f->own_domain, &f->own_cursor, OWN_LOOKS, own_found, f)) {
            f->own_domain++;
            f->own_cursor = 0;
        }
}

void wf_stream_forget(struct wf_fabric *f, struct wf_peer_node *peer)
{
    if (peer->place != WF_PLACE_NONE) {
        pthread_mutex_lock(&f->lock);
        wf_places_leave(f->places, (uint16_t)peer->place);
        wf_places_leave(f->below, (uint16_t)peer->place);
        f->peer_of[peer->place] = WF_PLACE_LEAVING;
        f->place_of[peer->number] = WF_PLACE_NONE;
        f->places_leaving = true;
        pthread_mutex_unlock(&f->lock);
        peer->place = WF_PLACE_NONE;
        atomic_fetch_add_explicit(&f->forgotten, 1, memory_order_release);
    }
    if (peer->link)
        peer->link->complete = false;
}

uint64_t wf_fabric_forgotten(const struct wf_fabric *f)
{
    return atomic_load_explicit(&f->forgotten, memory_order_acquire) +
           atomic_load_explicit(&f->unheard, memory_order_acquire);
}

uint64_t wf_fabric_changed(const struct wf_fabric *f)
{
    return wf_fabric_forgotten(f) + atomic_load_explicit(&f->last_went, memory_order_acquire);
}

void wf_stream_tick(struct wf_fabric *f)
{
    uint64_t now_ns = wf_fabric_now(f);
    while (f->going_first < f->going_end &&
           now_ns - f->going[f->going_first % WF_GOING_MAX].at_ns >= GRACE_NS)
        f->behind |= !go(f);
    own_tell(f, now_ns);
    pthread_mutex_lock(&f->lock);
    bool swept = f->places_leaving && wf_places_sweep(f->places, SWEEP_BUCKETS);
    if (swept && wf_places_sweep(f->below, SWEEP_BUCKETS)) {
        f->places_leaving = f->places_short = false;
        for (uint32_t i = 0; i < WF_PLACES_USED; i++)
            if (f->peer_of[i] == WF_PLACE_LEAVING)
                f->peer_of[i] = WF_PLACE_FREE;
    }
    pthread_mutex_unlock(&f->lock);
}

static void lag(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t age_us)
{
    uint64_t us = age_us + peer->rtt_us / 2;
    wf_hist_record(&f->lag_us, us);
    peer->lag_us = peer->lag_us ? (7 * peer->lag_us + us) / 8 : us;
}

bool wf_stream_take(struct wf_link *link, const struct wf_fabric_event *told)
{
    struct wf_fabric *f = link->fabric;
    struct wf_fabric_event event = *told;
    if (event.domain >= WF_FABRIC_DOMAINS_MAX || link->ours_of[event.domain] == WF_DOMAIN_NONE ||
        (event.kind != WF_FABRIC_HERE && event.kind != WF_FABRIC_GONE) || event.bytes == 0 ||
        event.where > WF_FABRIC_BELOW || !wf_quality_sane(event.quality))
        return false;
    event.domain = link->ours_of[event.domain];
    event.quality = wf_quality_class(event.quality);
    /* Of single blocks of chains nobody makes use in parts; but which go, they are to know of. */
    bool tell = !wf_parts_on(f) || event.kind == WF_FABRIC_GONE;
    if (event.kind == WF_FABRIC_HERE && wf_parts_on(f))
        wf_parts_told(f, link->peer, event.key);
    bool taken = event.kind == WF_FABRIC_HERE ? here(f, link->peer, &event, tell)
                                              : gone(f, link->peer, &event, tell);
    f->figures.heard++;
    f->behind |= !taken;
    return true;
}

bool wf_stream_heard(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_events *events = header;
    if (link->state != WF_LINK_JOINED || bytes < sizeof *events ||
        events->count > WF_FABRIC_EVENTS_MAX ||
        bytes != sizeof *events + events->count * sizeof events->events[0])
        return false;
    if (events->flags & WF_FABRIC_RESET) {
        if (!link->asked_again && wf_link_anew(link))
            return true;
        wf_stream_forget(f, link->peer);
        link->asked_again = link->missed = link->complete = link->behind = link->more = false;
        link->walked = true;
    } else if (events->from != link->heard) {
        return false; /* of messages that come in order, each once */
    }
    link->heard = events->to;
    if (!wf_peer_believed(f, link->peer) || (events->count && !is_placed(f, link->peer))) {
        link->missed = f->some_missed = true;
        return true;
    }
    for (uint32_t i = 0; i < events->count; i++)
        if (!wf_stream_take(link, &events->events[i]))
            return false;
    if (events->age_us || events->count)
        lag(f, link->peer, events->age_us);
    if (events->flags & WF_FABRIC_COMPLETE) {
        link->walked = false;
        link->complete = !link->behind && !link->more;
    }
    return true;
}

bool wf_stream_found(struct wf_fabric *f, struct wf_peer_node *peer,
                     const struct wf_fabric_event *event)
{
    (void)here(f, peer, event, false);
    return peer->place != WF_PLACE_NONE;
}

void wf_stream_lapsed(struct wf_fabric *f, struct wf_peer_node *peer,
                      const struct wf_fabric_event *event)
{
    (void)gone(f, peer, event, false);
}

void wf_stream_missed(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t domain,
                      const uint8_t key[32])
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_GONE, .domain = (uint8_t)domain};
    memcpy(event.key, key, 32);
    f->behind |= !gone(f, peer, &event, true);
}

void wf_stream_worse(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t domain,
                     const uint8_t key[32], uint8_t quality)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE,
                                    .quality = quality,
                                    .domain = (uint8_t)domain};
    memcpy(event.key, key, 32);
    pthread_mutex_lock(&f->lock);
    bool known = peer->place != WF_PLACE_NONE &&
                 wf_places_holds(f->places, key, (uint16_t)peer->place);
    if (known && wf_places_holds(f->below, key, (uint16_t)peer->place))
        event.where = WF_FABRIC_BELOW;
    pthread_mutex_unlock(&f->lock);
    if (known) /* else it has said itself since what it has */
        f->behind |= !here(f, peer, &event, !wf_parts_on(f));
}

void wf_stream_note(struct wf_fabric *f, struct wf_peer_node *peer,
                    const struct wf_fabric_event *event, bool tell)
{
    if (wf_parts_on(f)) {
        wf_parts_note(f, peer, event, false);
        return;
    }
    struct wf_fabric_event said = *event;
    said.kind = WF_FABRIC_HERE;
    said.where = WF_FABRIC_IN_LENT;
    said.quality = wf_quality_class(event->quality);
    f->behind |= !here(f, peer, &said, tell);
}

bool wf_stream_offered(struct wf_link *link, const struct wf_fabric_event *told)
{
    struct wf_fabric_event event = *told;
    if (!wf_parts_on(link->fabric))
        return wf_stream_take(link, told);
    if (event.domain >= WF_FABRIC_DOMAINS_MAX || link->ours_of[event.domain] == WF_DOMAIN_NONE ||
        event.bytes == 0 || event.where > WF_FABRIC_BELOW || !wf_quality_sane(event.quality))
        return false;
    event.domain = link->ours_of[event.domain];
    event.quality = wf_quality_class(event.quality);
    wf_parts_note(link->fabric, link->peer, &event, true);
    return true;
}

bool wf_stream_again(struct wf_link *link, const void *header, uint32_t bytes)
{
    const struct wf_fabric_again *again = header;
    if (bytes != sizeof *again || link->state != WF_LINK_JOINED)
        return false;
    if (again->flags & WF_FABRIC_KEPT)
        walk_begin(link);
    else
        wf_stream_begin(link);
    link->fabric->figures.told_anew++;
    return true;
}

void wf_stream_ask(struct wf_link *link, uint64_t now_ns)
{
    struct wf_fabric_again again = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_AGAIN}};
    bool believed = !link->fabric->places_short && wf_peer_believed(link->fabric, link->peer);
    if (link->state != WF_LINK_JOINED || link->closing || link->asked_again || !believed)
        return;
    if (link->missed) {
        link->asked_again = wf_link_say(link, &again, sizeof again);
        link->missed = !link->asked_again;
        return;
    }
    again.flags = WF_FABRIC_KEPT;
    if (!link->more || link->walked || now_ns < link->more_ns ||
        !wf_link_say(link, &again, sizeof again))
        return;
    link->more = false;
    link->walked = true;
    link->more_ns = now_ns + MORE_NS;
}

void wf_stream_room(struct wf_fabric *f)
{
    if (f->behind)
        atomic_fetch_add_explicit(&f->unheard, 1, memory_order_release);
    f->behind = false;
    if (f->own_untold) {
        f->own_untold = false;
        own_look_again(f);
    }
    for (struct wf_link *link = f->links; link; link = link->next) {
        link->more |= link->behind;
        link->behind = false;
        f->some_missed |= link->more;
    }
}
