/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks from other nodes.
 *
 * A fetch asks one holder after the other, the one first that is expected to be soonest, until the
 * parts are there and each matches its sum.  A number that only this side knows, place and
 * generation, leads from an answer to its fetch; an answer that nobody waits for any more is read
 * and dropped.  Once an answer has begun to arrive, its memory is the net's until it has arrived or
 * the link is gone, whoever loses patience.
 *
 * Who has it may be bounded in what it sends (sends.c).  Then the others that have it are asked
 * first; when there is nobody else, it is asked again, and waited for as long as its bound takes.
 *
 * Sums are compared while the parts arrive, when they are in the processor's cache still.  What
 * comes encoded is decoded by a worker (coder.h), which compares them when it has, and the fetch's
 * memory is the worker's meanwhile.  A cut for which the profile is not here is asked for again, of
 * the same node, decoded.
 */
#include <stdio.h>
#include <string.h>

#include "base/sum.h"
#include "fabric/inner.h"

#define HOLDERS_MAX 16u
#define PATIENCE_BELOW 4u     /* times as much, with one that has the block on a tier */
#define OWN_BYTES (16u << 20) /* read of what is lent here before others have their turn */
#define FARTHER (1. / 64)     /* a level more is worth so much: of equals the nearer is asked */

/* --------------------------------------------------------------------------------- any thread */

void wf_fabric_fetch(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    fetch->next = NULL;
    fetch->looked = fetch->placing = fetch->framed = fetch->slow = false;
    fetch->cuts = fetch->cut = fetch->decoded = false;
    atomic_init(&fetch->cancelled, false);
    fetch->frame_bytes = 0;
    fetch->tried_count = 0;
    fetch->put_off = 0;
    fetch->patient = false;
    fetch->limit.by = 0;
    fetch->worst = WEFT_MISS;
    fetch->was_own = false;
    fetch->request = fetch->moved = fetch->profile = 0;
    fetch->quality = 0;
    pthread_mutex_lock(&f->lock);
    bool first = !f->asked;
    *f->asked_end = fetch;
    f->asked_end = &fetch->next;
    pthread_mutex_unlock(&f->lock);
    if (first)
        wf_fabric_wake(f);
}

void wf_fabric_cancel(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    pthread_mutex_lock(&f->lock);
    fetch->cancelled = true;
    f->cancels = true;
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
}

bool wf_fabric_patient(const struct wf_fabric *f)
{
    return atomic_load_explicit(&f->patient, memory_order_relaxed) > 0;
}

bool wf_fabric_elsewhere(struct wf_fabric *f, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    bool there = wf_places_count(f->places, key, 1) > 0;
    pthread_mutex_unlock(&f->lock);
    return there;
}

uint32_t wf_fabric_holders(struct wf_fabric *f, const uint8_t key[32],
                           char out[][WF_MEMBER_NAME_MAX + 1], uint32_t max)
{
    uint16_t holders[WF_FABRIC_HOLDERS_MAX];
    uint32_t named = 0;
    pthread_mutex_lock(&f->lock);
    uint32_t count = wf_places_holders(f->places, key, WF_PLACES_CLASS_MAX, holders,
                                       max < WF_FABRIC_HOLDERS_MAX ? max : WF_FABRIC_HOLDERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        if (f->peer_of[holders[i]] == WF_PLACE_OWN)
            snprintf(out[named++], sizeof out[0], "%s", f->name);
        for (uint32_t n = 0; n < f->shown_count; n++)
            if (f->shown[n].number == f->peer_of[holders[i]])
                memcpy(out[named++], f->shown[n].name, sizeof out[0]);
    }
    pthread_mutex_unlock(&f->lock);
    return named;
}

enum weft_quality wf_fabric_best(struct wf_fabric *f, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    unsigned best = wf_places_best(f->places, key);
    pthread_mutex_unlock(&f->lock);
    return best > WEFT_ECONOMY ? WEFT_QUALITY_DEFAULT
           : best              ? (enum weft_quality)best
                               : WEFT_LOSSLESS;
}

/* ------------------------------------------------------------------------------------ its range */

static uint32_t parts_of(const struct wf_fabric_fetch *fetch)
{
    uint32_t all = (uint32_t)((fetch->bytes + fetch->part_bytes - 1) / fetch->part_bytes);
    return fetch->part_count ? fetch->part_count : all - fetch->first_part;
}

static uint64_t range_bytes(const struct wf_fabric_fetch *fetch)
{
    uint64_t from = (uint64_t)fetch->first_part * fetch->part_bytes;
    uint64_t to = from + (uint64_t)parts_of(fetch) * fetch->part_bytes;
    return (to < fetch->bytes ? to : fetch->bytes) - from;
}

/* ----------------------------------------------------------------------------------- the places */

static uint32_t place_of(const struct wf_fabric_fetch *fetch)
{
    return (uint32_t)fetch->request;
}

static struct wf_fabric_fetch *find(struct wf_fabric *f, uint64_t request)
{
    uint32_t place = (uint32_t)request;
    if (place >= WF_FETCHES_MAX || f->generations[place] != request >> 32)
        return NULL;
    return f->fetches[place];
}

static void place_take(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    uint32_t place = f->fetch_free[--f->fetch_free_count];
    f->fetches[place] = fetch;
    fetch->request = (uint64_t)f->generations[place] << 32 | place;
}

static void place_give(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    uint32_t place = place_of(fetch);
    f->fetches[place] = NULL;
    f->generations[place]++;
    f->fetch_free[f->fetch_free_count++] = place;
}

static void asked_no_more(struct wf_fabric *f, const struct wf_fabric_fetch *fetch)
{
    struct wf_peer_node *peer = &f->peers[fetch->from];
    uint64_t bytes = range_bytes(fetch);
    peer->asked--;
    peer->asked_framed -= fetch->framed;
    peer->asked_bytes -= bytes < peer->asked_bytes ? bytes : peer->asked_bytes;
    if (peer->asked == 0)
        peer->read_ns += wf_fabric_now(f) - peer->busy_since_ns;
}

static void finish(struct wf_fabric *f, struct wf_fabric_fetch *fetch, enum weft_status status)
{
    f->figures.fetches += !fetch->was_own;
    f->figures.fetch_misses += status == WEFT_MISS;
    f->figures.fetch_corrupt += status == WEFT_E_CORRUPT;
    f->figures.fetch_timeouts += status == WEFT_E_TIMEOUT || status == WEFT_E_NODE;
    if (fetch->patient)
        atomic_fetch_sub_explicit(&f->patient, 1, memory_order_relaxed);
    fetch->moved = status == WEFT_OK ? range_bytes(fetch) : 0;
    f->figures.fetched_bytes += fetch->was_own ? 0 : fetch->moved;
    f->figures.fetches_lossy += status == WEFT_OK && !fetch->was_own && fetch->quality > 0;
    fetch->done(fetch, status);
}

/* -------------------------------------------------------------------------------------- asking */

static bool was_tried(const struct wf_fabric_fetch *fetch, uint32_t number)
{
    for (uint32_t i = 0; i < fetch->tried_count; i++)
        if (fetch->tried[i] == number)
            return true;
    return false;
}

/* What its tiers add, as it said. */
static double below_us(const struct wf_peer_node *peer, uint64_t bytes)
{
    double mbps = peer->said.below_mbps ? peer->said.below_mbps : 1000;
    return peer->said.below_latency_us + (double)bytes / mbps;
}

/* The holder that should be soonest; NULL: there is none that was not tried. */
static struct wf_peer_node *choose(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    uint16_t holders[HOLDERS_MAX];
    bool below[HOLDERS_MAX];
    struct wf_peer_node *best = NULL;
    double best_us = 0;
    if (fetch->tried_count == sizeof fetch->tried / sizeof fetch->tried[0])
        return NULL;
    pthread_mutex_lock(&f->lock);
    uint32_t count = wf_places_holders(f->places, fetch->key, wf_quality_class(fetch->accept),
                                       holders, HOLDERS_MAX);
    for (uint32_t i = 0; i < count; i++)
        below[i] = wf_places_holds(f->below, fetch->key, holders[i]);
    pthread_mutex_unlock(&f->lock);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t number = f->peer_of[holders[i]];
        if (was_tried(fetch, number) || !wf_peer_link(f, number, fetch->domain))
            continue;
        struct wf_peer_node *peer = &f->peers[number];
        double us = (double)peer->rtt_us +
                    (double)(peer->asked_bytes + range_bytes(fetch)) * 1e6 / wf_peer_rate(f, peer);
        if (below[i])
            us += below_us(peer, range_bytes(fetch));
        us *= 1 + FARTHER * (double)peer->distance;
        if (!best || us < best_us) {
            best = peer;
            best_us = us;
            fetch->slow = below[i];
        }
    }
    return best;
}

/* Nobody else has it: those that are bounded in what they send are asked again, and waited for.
 * False: there is none such, or they were. */
static bool patience_begin(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    uint32_t kept = 0;
    if (!fetch->put_off || fetch->patient)
        return false;
    for (uint32_t i = 0; i < fetch->tried_count; i++)
        if (!(fetch->put_off >> i & 1))
            fetch->tried[kept++] = fetch->tried[i];
    fetch->tried_count = kept;
    fetch->put_off = 0;
    fetch->patient = true;
    f->figures.fetches_patient++;
    atomic_fetch_add_explicit(&f->patient, 1, memory_order_relaxed);
    return true;
}

static uint16_t flags_of(const struct wf_fabric_fetch *fetch)
{
    return (uint16_t)((fetch->background ? WF_FABRIC_BACKGROUND : 0u) |
                      (fetch->patient ? WF_FABRIC_PATIENT : 0u));
}

static uint64_t profiles_of(const struct wf_fabric *f)
{
    const struct wf_fabric_host *host = &f->options.host;
    return host->profiles ? host->profiles(host->context) : 0;
}

/* WEFT_OK: it was asked for.  WEFT_PENDING: not now.  WEFT_MISS: there is nobody left to ask. */
static enum weft_status ask(struct wf_fabric *f, struct wf_fabric_fetch *fetch, uint64_t now_ns)
{
    struct wf_peer_node *peer;
    while ((peer = choose(f, fetch)) || patience_begin(f, fetch)) {
        if (!peer)
            continue;
        if (f->fetch_free_count == 0)
            return WEFT_PENDING;
        struct wf_link *link = peer->link;
        bool framed = wf_frames_ask(f, peer, range_bytes(fetch));
        fetch->cuts = !fetch->decoded && wf_frames_cuts(f, peer, range_bytes(fetch));
        place_take(f, fetch);
        struct wf_fabric_get get = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_GET},
                                    .request = fetch->request,
                                    .domain = (uint16_t)fetch->domain,
                                    .flags = flags_of(fetch),
                                    .first_part = fetch->first_part,
                                    .part_count = parts_of(fetch),
                                    .part_bytes = fetch->part_bytes,
                                    .bytes = fetch->bytes,
                                    .codecs = (framed ? WF_FABRIC_FRAMES : 0u) |
                                              (fetch->cuts ? WF_FABRIC_CUTS : 0u),
                                    .profiles = fetch->cuts ? profiles_of(f) : 0,
                                    .quality = wf_quality_class(fetch->accept)};
        memcpy(get.key, fetch->key, 32);
        if (!wf_link_say(link, &get, sizeof get)) {
            place_give(f, fetch);
            return WEFT_PENDING;
        }
        wf_link_used(link, now_ns);
        fetch->from = peer->number;
        fetch->tried[fetch->tried_count++] = (uint16_t)peer->number;
        fetch->asked_ns = now_ns;
        fetch->framed = framed;
        peer->asked_framed += framed;
        if (peer->asked++ == 0)
            peer->busy_since_ns = now_ns;
        peer->asked_bytes += range_bytes(fetch);
        return WEFT_OK;
    }
    return WEFT_MISS;
}

/* What others have put here is in this node's own memory.  WEFT_OK: these are the bytes, and each
 * part has its sum; WEFT_MISS: it is not here; WEFT_E_CORRUPT: it was, and is no more. */
static enum weft_status own_read(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    struct wf_lent_block lent;
    uint32_t entry = f->lent ? wf_lent_hold(f->lent, fetch->domain, fetch->key, &lent)
                             : WF_LENT_NONE;
    uint64_t from = (uint64_t)fetch->first_part * fetch->part_bytes, at = 0;
    if (entry == WF_LENT_NONE)
        return WEFT_MISS;
    bool fits = wf_quality_class(lent.quality) <= wf_quality_class(fetch->accept) &&
                lent.bytes == fetch->bytes && lent.part_bytes == fetch->part_bytes &&
                from < fetch->bytes && range_bytes(fetch) <= fetch->bytes - from;
    bool right = true;
    for (uint32_t part = fetch->first_part; fits && right && at < range_bytes(fetch); part++) {
        uint64_t bytes = range_bytes(fetch) - at;
        bytes = bytes < fetch->part_bytes ? bytes : fetch->part_bytes;
        memcpy((uint8_t *)fetch->data + at, lent.data + from + at, bytes);
        right = wf_sum64((uint8_t *)fetch->data + at, bytes) == lent.sums[part];
        at += bytes;
    }
    fetch->quality = fits ? wf_quality_class(lent.quality) : 0;
    fetch->profile = fetch->quality ? lent.profile : 0;
    wf_lent_let_go(f->lent, entry);
    f->figures.lent_reads += fits && right;
    f->figures.lent_read_bytes += fits && right ? at : 0;
    if (right)
        return fits ? WEFT_OK : WEFT_MISS;
    wf_fabric_say(f, "a block in the memory that this node lends is not what its checksum says: it "
                     "was dropped");
    (void)wf_lent_forget(f->lent, fetch->domain, fetch->key);
    return WEFT_E_CORRUPT;
}

static void wait_again(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    fetch->next = NULL;
    *f->waiting_end = fetch;
    f->waiting_end = &fetch->next;
}

/* The holder that was asked has no good answer: the next one. */
static void go_on(struct wf_fabric *f, struct wf_fabric_fetch *fetch, enum weft_status status)
{
    asked_no_more(f, fetch);
    place_give(f, fetch);
    if (status < 0 && fetch->worst != WEFT_E_CORRUPT)
        fetch->worst = status;
    wait_again(f, fetch);
}

/* Somebody said it has a block, and has not: it is no holder until it says so again.  What it has
 * may be less exact than was asked for: of that it is one. */
static void stale(struct wf_fabric *f, const struct wf_fabric_fetch *fetch, uint8_t worse)
{
    struct wf_peer_node *peer = &f->peers[fetch->from];
    if (worse > wf_quality_class(fetch->accept))
        wf_stream_worse(f, peer, fetch->domain, fetch->key, worse);
    else
        wf_stream_missed(f, peer, fetch->domain, fetch->key);
}

/* It has it, and says that a bound on what it sends makes it late. */
static void put_off(struct wf_fabric *f, struct wf_fabric_fetch *fetch,
                    const struct wf_fabric_data *data)
{
    const struct wf_peer_node *peer = &f->peers[fetch->from];
    fetch->put_off |= (uint8_t)(1u << (fetch->tried_count - 1));
    fetch->limit = (struct wf_fetch_limit){.by = data->form == WF_FABRIC_LIMITED_DOMAIN
                                                     ? WF_FABRIC_LIMITED_DOMAIN
                                                     : WF_FABRIC_LIMITED_LINK,
                                           .bytes_s = data->profile};
    memcpy(fetch->limit.name, peer->name, sizeof fetch->limit.name);
    go_on(f, fetch, WEFT_E_LIMIT);
}

void wf_fetches_lost(struct wf_fabric *f, struct wf_peer_node *peer)
{
    for (uint32_t i = 0; peer->asked && i < WF_FETCHES_MAX; i++) {
        struct wf_fabric_fetch *fetch = f->fetches[i];
        if (fetch && fetch->from == peer->number && !fetch->placing)
            go_on(f, fetch, WEFT_E_NODE);
    }
}

/* ------------------------------------------------------------------------------------- answers */

/* Is the payload as long as it has to be, of a form that was asked for, and are these its sums? */
static bool form_right(const struct wf_fabric_fetch *fetch, const struct wf_fabric_data *data,
                       uint64_t payload_bytes)
{
    uint64_t bytes = range_bytes(fetch);
    if (data->form == WF_FABRIC_CUT)
        return fetch->cuts && payload_bytes < bytes &&
               data->part_count == (payload_bytes + fetch->part_bytes - 1) / fetch->part_bytes;
    if (data->part_count != parts_of(fetch))
        return false;
    if (data->form == WF_FABRIC_FRAME)
        return fetch->framed && payload_bytes < bytes;
    return (data->form == WF_FABRIC_PLAIN || data->form == WF_FABRIC_TRIED) &&
           payload_bytes == bytes;
}

uint32_t wf_fetch_begun(struct wf_link *link, const void *header, uint32_t bytes,
                        uint64_t payload_bytes, struct iovec *out, void **token, bool *sane)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_data *data = header;
    *sane = link->state == WF_LINK_JOINED && bytes >= sizeof *data &&
            data->part_count <= WF_FABRIC_PARTS_MAX &&
            bytes == sizeof *data + data->part_count * sizeof data->sums[0] &&
            (data->status == WEFT_OK) == (payload_bytes > 0) && wf_quality_sane(data->quality);
    if (!*sane)
        return 0;
    struct wf_fabric_fetch *fetch = find(f, data->request);
    if (!fetch || fetch->placing || fetch->from != link->peer->number ||
        link->theirs_of[fetch->domain] == WF_DOMAIN_NONE)
        return 0; /* nobody waits for it any more, of this one */
    if (data->status == WEFT_E_LIMIT) {
        put_off(f, fetch, data);
        return 0;
    }
    if (data->status != WEFT_OK) {
        if (data->status == WEFT_MISS) {
            stale(f, fetch, wf_quality_class(data->quality));
            link->peer->read_misses++;
        }
        go_on(f, fetch, data->status == WEFT_MISS ? WEFT_MISS : WEFT_E_BUSY);
        return 0;
    }
    if (!form_right(fetch, data, payload_bytes) ||
        wf_quality_class(data->quality) > wf_quality_class(fetch->accept)) {
        *sane = false;
        return 0;
    }
    fetch->quality = wf_quality_class(data->quality);
    fetch->profile = fetch->quality ? data->profile : 0;
    memcpy(f->sums[place_of(fetch)], data->sums, data->part_count * sizeof data->sums[0]);
    fetch->placing = true;
    fetch->moved = 0; /* parts that were compared */
    fetch->cut = data->form == WF_FABRIC_CUT;
    fetch->frame_bytes = data->form == WF_FABRIC_FRAME || fetch->cut ? payload_bytes : 0;
    if (data->form == WF_FABRIC_TRIED)
        wf_choice_seen(&link->peer->choice_in, payload_bytes, payload_bytes);
    wf_line_begun(&link->peer->line, wf_fabric_now(f));
    uint8_t *at = (uint8_t *)fetch->data + (range_bytes(fetch) - payload_bytes); /* coder.h */
    out[0] = (struct iovec){.iov_base = at, .iov_len = payload_bytes};
    *token = fetch;
    return 1;
}

/* Compare what is there of it, whole parts.  False: one is wrong. */
static bool compare(struct wf_fabric *f, struct wf_fabric_fetch *fetch, uint64_t bytes)
{
    const uint64_t *sums = f->sums[place_of(fetch)];
    uint64_t all = range_bytes(fetch);
    for (;;) {
        uint64_t from = fetch->moved * fetch->part_bytes, to = from + fetch->part_bytes;
        to = to < all ? to : all;
        if (from >= all || to > bytes)
            return true;
        if (wf_sum64((const uint8_t *)fetch->data + from, to - from) != sums[fetch->moved])
            return false;
        fetch->moved++;
    }
}

void wf_fetch_progress(void *fabric, struct wf_net_link *net, void *token, uint64_t bytes)
{
    struct wf_fabric_fetch *fetch = token;
    (void)net;
    if (!fetch->frame_bytes && fetch->worst != WEFT_E_CORRUPT && !compare(fabric, fetch, bytes))
        fetch->worst = WEFT_E_CORRUPT;
}

/* All of it is there, and right or wrong; or it is not all there. */
static void answered(struct wf_fabric *f, struct wf_fabric_fetch *fetch, enum weft_status status,
                     bool right)
{
    struct wf_peer_node *peer = &f->peers[fetch->from];
    fetch->placing = false;
    if (right) {
        peer->reads++;
        peer->read_bytes += range_bytes(fetch);
        asked_no_more(f, fetch);
        place_give(f, fetch);
        finish(f, fetch, fetch->cancelled ? WEFT_E_TIMEOUT : WEFT_OK);
        return;
    }
    if (status == WEFT_OK) {
        /* It has the block still, for all that is known; the next fetch may come through. */
        peer->read_corrupt++;
        fetch->worst = WEFT_E_CORRUPT;
    }
    go_on(f, fetch,
          status == WEFT_OK       ? WEFT_E_CORRUPT
          : status == WEFT_E_NODE ? WEFT_E_NODE
                                  : WEFT_E_TIMEOUT);
}

/* The profile is not here: of whom it came the same is asked again, decoded. */
static void decoded_there(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    fetch->placing = false;
    fetch->decoded = true;
    fetch->tried_count--;
    f->figures.cuts_unread++;
    go_on(f, fetch, WEFT_OK);
}

static void unframed(struct wf_coder_job *job)
{
    struct wf_unframing *u = (struct wf_unframing *)job;
    struct wf_fabric *f = u->fabric;
    struct wf_peer_node *peer = &f->peers[u->fetch->from];
    bool right = job->result == WEFT_OK;
    if (job->result == WEFT_E_NOT_FOUND) {
        peer->works--;
        decoded_there(f, u->fetch);
        wf_peer_settle(f, peer);
        return;
    }
    if (right && u->fetch->cut) {
        f->figures.cuts_in++;
        f->figures.cuts_in_plain += job->plain_bytes;
        f->figures.cuts_in_bytes += job->frame_bytes;
    } else if (right) {
        wf_choice_seen(&peer->choice_in, job->plain_bytes, job->frame_bytes);
        f->figures.frames_in++;
        f->figures.frames_in_plain += job->plain_bytes;
        f->figures.frames_in_bytes += job->frame_bytes;
    }
    peer->works--;
    answered(f, u->fetch, WEFT_OK, right);
    wf_peer_settle(f, peer);
}

static void unframe(struct wf_fabric *f, struct wf_fabric_fetch *fetch)
{
    struct wf_unframing *u = &f->unframings[place_of(fetch)];
    bool cut = fetch->cut;
    *u = (struct wf_unframing){.job = {.plain = fetch->data,
                                       .plain_bytes = range_bytes(fetch),
                                       .part_bytes = fetch->part_bytes,
                                       .part_count = parts_of(fetch),
                                       .sums = f->sums[place_of(fetch)],
                                       .block_bytes = cut ? fetch->bytes : 0,
                                       .from = cut ? (uint64_t)fetch->first_part * fetch->part_bytes
                                                   : 0,
                                       .quality = cut ? fetch->quality : 0,
                                       .profile = cut ? fetch->profile : 0,
                                       .frame_bytes = fetch->frame_bytes,
                                       .done = unframed},
                               .fabric = f,
                               .fetch = fetch};
    f->peers[fetch->from].works++;
    wf_coder_submit(f->coder, &u->job);
}

void wf_fetch_arrived(void *fabric, struct wf_net_link *net, void *token, enum weft_status status)
{
    struct wf_fabric *f = fabric;
    struct wf_fabric_fetch *fetch = token;
    struct wf_peer_node *peer = &f->peers[fetch->from];
    uint64_t all = range_bytes(fetch), came = fetch->frame_bytes ? fetch->frame_bytes : all;
    (void)net;
    if (status == WEFT_OK)
        wf_line_arrived(&peer->line, wf_fabric_now(f), came,
                        peer->asked > 1 && peer->asked_framed == 0);
    if (status == WEFT_OK && fetch->frame_bytes) {
        unframe(f, fetch);
        return;
    }
    /* Another holder's may have been wrong, and this one's right: what counts is this answer. */
    bool right = status == WEFT_OK && compare(f, fetch, all) &&
                 fetch->moved * fetch->part_bytes >= all;
    answered(f, fetch, status, right);
}

/* --------------------------------------------------------------------------------- as time goes */

static void impatience(struct wf_fabric *f, uint64_t now_ns)
{
    uint64_t patience_ns = (uint64_t)f->options.fetch_ms * 1000000;
    pthread_mutex_lock(&f->lock);
    bool cancels = f->cancels;
    f->cancels = false;
    pthread_mutex_unlock(&f->lock);
    for (uint32_t i = 0; i < WF_FETCHES_MAX && f->fetch_free_count < WF_FETCHES_MAX; i++) {
        struct wf_fabric_fetch *fetch = f->fetches[i];
        if (!fetch || fetch->placing)
            continue;
        uint64_t most_ns = fetch->slow ? PATIENCE_BELOW * patience_ns : patience_ns;
        if (fetch->patient)
            most_ns += WF_SEND_WAIT_NS;
        if ((cancels && fetch->cancelled) || now_ns - fetch->asked_ns > most_ns)
            go_on(f, fetch, WEFT_E_TIMEOUT);
    }
}

void wf_fetches_run(struct wf_fabric *f, uint64_t now_ns)
{
    pthread_mutex_lock(&f->lock);
    struct wf_fabric_fetch *asked = f->asked;
    f->asked = NULL;
    f->asked_end = &f->asked;
    bool cancels = f->cancels;
    pthread_mutex_unlock(&f->lock);
    if (asked) {
        *f->waiting_end = asked;
        while (*f->waiting_end)
            f->waiting_end = &(*f->waiting_end)->next;
    }
    if (cancels || now_ns - f->impatient_ns > 20000000) {
        f->impatient_ns = now_ns;
        impatience(f, now_ns);
    }
    struct wf_fabric_fetch *fetch = f->waiting;
    uint64_t own_bytes = 0;
    f->waiting = NULL;
    f->waiting_end = &f->waiting;
    f->own_more = false;
    while (fetch) {
        struct wf_fabric_fetch *next = fetch->next;
        /* Others wait for this thread meanwhile. */
        bool later = own_bytes >= OWN_BYTES && !fetch->cancelled;
        enum weft_status own = fetch->cancelled || later ? WEFT_MISS : own_read(f, fetch);
        enum weft_status status = fetch->cancelled ? WEFT_E_TIMEOUT
                                  : later          ? WEFT_PENDING
                                  : own == WEFT_OK ? own
                                                   : ask(f, fetch, now_ns);
        f->own_more |= later;
        if (own == WEFT_E_CORRUPT)
            fetch->worst = own;
        if (own == WEFT_OK) {
            own_bytes += range_bytes(fetch);
            fetch->was_own = true;
            finish(f, fetch, own);
        } else if (status == WEFT_PENDING)
            wait_again(f, fetch);
        else if (status != WEFT_OK && !(status == WEFT_MISS && wf_parts_look(f, fetch, now_ns)))
            finish(f, fetch, status == WEFT_MISS ? fetch->worst : status);
        fetch = next;
    }
}

static void end_waiting(struct wf_fabric *f)
{
    pthread_mutex_lock(&f->lock);
    *f->waiting_end = f->asked;
    f->asked = NULL;
    f->asked_end = &f->asked;
    pthread_mutex_unlock(&f->lock);
    struct wf_fabric_fetch *fetch = f->waiting;
    f->waiting = NULL;
    f->waiting_end = &f->waiting;
    while (fetch) {
        struct wf_fabric_fetch *next = fetch->next;
        finish(f, fetch, WEFT_E_TIMEOUT);
        fetch = next;
    }
}

void wf_fetches_end(struct wf_fabric *f)
{
    wf_parts_end(f);
    for (uint32_t i = 0; i < WF_FETCHES_MAX; i++) {
        struct wf_fabric_fetch *fetch = f->fetches[i];
        if (!fetch)
            continue;
        place_give(f, fetch);
        finish(f, fetch, WEFT_E_TIMEOUT);
    }
    end_waiting(f);
}
