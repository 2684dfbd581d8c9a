/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of this node in memory that others lend, and theirs in what this node lends (lent.h).
 *
 * A put takes its sums here, from the bytes that are sent, and is there when the other side has
 * compared them with what came and said so.  Which of the lenders gets a block: of the nearest with
 * room for it, the one with most that was not tried.  What was dropped, or evicted there, its
 * lender tells to all like any other change.
 *
 * A put may be encoded (frames.c); it lies there as it was before.  While a worker has it, here or
 * there, it is on its way as one that is being sent.
 *
 * Fencing: a node keeps nothing for one whose lease is over, or that speaks under an older one, and
 * nothing at all once its own is.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define DROPS_MAX 65536u
#define LENDERS_NS 200000u /* for each node, between two looks at what all of them lend */

/* One on its way there. */
struct wf_put {
    struct wf_sending out; /* first */
    struct wf_put *next;
    struct wf_fabric *fabric;
    struct wf_fabric_store *store; /* NULL: nobody waits for it any more */
    uint32_t generation;
    uint64_t asked_ns;
    bool sending;
    enum weft_status ended;  /* what the other side said while it was; WEFT_PENDING: nothing */
    struct wf_coder_job job; /* its frame, */
    uint32_t to;             /* and whose it is */
    struct iovec piece;
    union {
        struct wf_fabric_put put;
        uint64_t words[sizeof(struct wf_fabric_put) / 8 + WF_FABRIC_PARTS_MAX];
    } header;
};

/* One that comes. */
struct wf_placing {
    struct wf_placing *next;
    struct wf_coder_job job; /* it came encoded */
    struct wf_fabric *fabric;
    struct wf_link *link; /* NULL: gone, while it was decoded */
    uint32_t peer;
    uint64_t frame_bytes; /* 0: it comes as it is */
    uint64_t request;
    uint32_t entry, part_bytes, part_count, compared;
    uint64_t bytes;
    uint8_t *data;
    bool wrong;
    struct wf_fabric_event block;
    uint64_t sums[WF_FABRIC_PARTS_MAX];
};

struct wf_puts {
    struct wf_put puts[WF_PUTS_MAX], *free;                     /* free: used before */
    uint32_t out, used;                                         /* out: that are not free */
    struct wf_placing placings[WF_PLACINGS_MAX], *placing_free; /* free: used before */
    uint32_t placing_used;
    struct wf_fabric_store *waiting, **waiting_end;
    /* Under the fabric's lock: */
    struct wf_fabric_store *asked, **asked_end;
    bool cancels; /* some store was cancelled */
    uint8_t (*drops)[32];
    uint32_t drop_count;
};

/* ---------------------------------------------------------------------------------- any thread */

void wf_fabric_store(struct wf_fabric *f, struct wf_fabric_store *store)
{
    store->next = NULL;
    store->cancelled = false;
    store->tried_count = store->made = 0;
    store->worst = WEFT_FULL;
    store->wanted = store->copies = f->options.copies;
    store->sums = NULL;
    store->fill_max = 0;
    store->moves = false;
    memset(store->owner, 0, sizeof store->owner);
    pthread_mutex_lock(&f->lock);
    bool first = !f->puts->asked;
    *f->puts->asked_end = store;
    f->puts->asked_end = &store->next;
    pthread_mutex_unlock(&f->lock);
    if (first)
        wf_fabric_wake(f);
}

void wf_fabric_store_cancel(struct wf_fabric *f, struct wf_fabric_store *store)
{
    pthread_mutex_lock(&f->lock);
    store->cancelled = true;
    f->puts->cancels = true;
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
}

void wf_fabric_drop(struct wf_fabric *f, const uint8_t key[32])
{
    pthread_mutex_lock(&f->lock);
    if (f->puts->drop_count < DROPS_MAX)
        memcpy(f->puts->drops[f->puts->drop_count++], key, 32);
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
}

void wf_fabric_lent_here(struct wf_fabric *f, uint64_t *out_bytes, uint64_t *out_free_bytes)
{
    pthread_mutex_lock(&f->lock);
    *out_bytes = f->lenders_bytes;
    *out_free_bytes = f->lenders_free_bytes;
    pthread_mutex_unlock(&f->lock);
}

/* ---------------------------------------------------------------------------------------- put */

static void frame_give(struct wf_put *put)
{
    if (!put->job.frame)
        return;
    put->fabric->peers[put->to].put_frames--;
    wf_coder_memory_give(put->fabric->coder, &put->job);
}

/* For its turn, unless a bound makes that longer, and then for the answer. */
static uint64_t patience_ns(const struct wf_fabric *f)
{
    return 4 * (uint64_t)f->options.fetch_ms * 1000000;
}

static void put_free(struct wf_put *put)
{
    struct wf_puts *puts = put->fabric->puts;
    frame_give(put);
    put->next = puts->free;
    puts->free = put;
    puts->out--;
}

static void store_wait(struct wf_fabric *f, struct wf_fabric_store *store)
{
    store->next = NULL;
    *f->puts->waiting_end = store;
    f->puts->waiting_end = &store->next;
}

static void store_end(struct wf_fabric *f, struct wf_fabric_store *store, enum weft_status status)
{
    f->figures.stores += status == WEFT_OK;
    f->figures.store_fulls += status == WEFT_FULL;
    f->figures.stored_bytes += status == WEFT_OK ? store->block.bytes : 0;
    store->done(store, status);
}

/* Nobody is answered by it any more. */
static void put_over(struct wf_put *put)
{
    put->fabric->peers[put->store->to].putting--;
    put->store = NULL;
    put->generation++;
}

/* That lender does not take it: the next. */
static void refused(struct wf_put *put, enum weft_status status)
{
    struct wf_fabric_store *store = put->store;
    put_over(put);
    if (status != WEFT_FULL)
        store->worst = status;
    store_wait(put->fabric, store);
    put_free(put);
}

/* That lender has it; is another one wanted? */
static void done(struct wf_put *put, enum weft_status status)
{
    struct wf_fabric_store *store = put->store;
    put_over(put);
    put_free(put);
    if (++store->made < store->wanted)
        store_wait(put->fabric, store);
    else
        store_end(put->fabric, store, status);
}

void wf_put_move(struct wf_fabric *f, struct wf_fabric_store *store)
{
    store->moves = true;
    store_wait(f, store);
}

/* Its memory is the caller's again; the answer may have come before, or comes later. */
static void sent(struct wf_net_message *message, enum weft_status status)
{
    struct wf_put *put = (struct wf_put *)message;
    put->sending = false;
    frame_give(put);
    put->asked_ns = wf_fabric_now(put->fabric); /* the answer's time begins now */
    put->out.link->putting--;
    if (!put->store) {
        put_free(put);
    } else if (put->ended == WEFT_OK || put->ended == WEFT_EXISTS) {
        done(put, put->ended);
    } else if (put->ended != WEFT_PENDING || status != WEFT_OK || put->store->cancelled) {
        refused(put, put->ended != WEFT_PENDING ? put->ended : WEFT_E_TIMEOUT);
    }
}

/* One that has room is better than one that has not, then the nearer, then who has more. */
static bool lends_better(const struct wf_peer_node *one, const struct wf_peer_node *than,
                         uint64_t bytes)
{
    bool room = one->said.lent_free_bytes >= bytes, others = than->said.lent_free_bytes >= bytes;
    if (room != others)
        return room;
    if (room && one->distance != than->distance)
        return one->distance < than->distance;
    return one->said.lent_free_bytes > than->said.lent_free_bytes;
}

/* *busy: there is one more, whose link has as many on their way as are left for others. */
static struct wf_peer_node *lender_choose(struct wf_fabric *f, const struct wf_fabric_store *store,
                                          bool *busy)
{
    struct wf_peer_node *best = NULL;
    for (uint32_t i = 0; i < f->peer_count; i++) {
        struct wf_peer_node *peer = &f->peers[i];
        bool tried = store->tried_count == sizeof store->tried / sizeof store->tried[0];
        for (uint32_t t = 0; t < store->tried_count; t++)
            tried |= store->tried[t] == i;
        if (tried || !peer->said.lent_bytes || peer->draining ||
            (store->fill_max > 0 && wf_moves_fill(peer) >= store->fill_max) ||
            !wf_peer_link(f, i, store->block.domain))
            continue;
        if (peer->link->putting >= WF_PUTS_MAX - f->puts->out) {
            *busy = true;
            continue;
        }
        if (!best || lends_better(peer, best, store->block.bytes))
            best = peer;
    }
    return best;
}

bool wf_put_could(struct wf_fabric *f, const struct wf_fabric_store *store)
{
    bool busy = false;
    return lender_choose(f, store, &busy) || busy;
}

static uint32_t parts_of(const struct wf_fabric_store *store)
{
    return (uint32_t)((store->block.bytes + store->part_bytes - 1) / store->part_bytes);
}

static void header_make(struct wf_put *put, const struct wf_fabric_store *store, uint64_t request)
{
    struct wf_fabric_put *h = &put->header.put;
    *h = (struct wf_fabric_put){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUT},
                                .request = request,
                                .part_bytes = store->part_bytes,
                                .part_count = parts_of(store),
                                .block = store->block,
                                .copies = store->copies,
                                .profile = store->profile};
    h->block.quality = wf_quality_class(store->block.quality);
    memcpy(h->owner, store->owner, strnlen(store->owner, sizeof h->owner - 1));
}

static void sums_take(struct wf_put *put, const struct wf_fabric_store *store)
{
    struct wf_fabric_put *h = &put->header.put;
    if (store->sums) {
        memcpy(h->sums, store->sums, h->part_count * sizeof h->sums[0]);
        return;
    }
    const uint8_t *data = store->data;
    for (uint32_t i = 0; i < h->part_count; i++) {
        uint64_t from = (uint64_t)i * store->part_bytes, left = store->block.bytes - from;
        h->sums[i] = wf_sum64(data + from, left < store->part_bytes ? left : store->part_bytes);
    }
}

static void put_send(struct wf_put *put)
{
    struct wf_fabric *f = put->fabric;
    struct wf_fabric_store *store = put->store;
    struct wf_link *link = store->cancelled ? NULL
                                            : wf_peer_link(f, store->to, store->block.domain);
    put->out.message = (struct wf_net_message){
        .header = &put->header,
        .header_bytes = (uint32_t)(sizeof put->header.put + put->header.put.part_count * 8),
        .pieces = &put->piece,
        .piece_count = 1};
    put->out.done = sent;
    if (link) {
        uint64_t now_ns = wf_fabric_now(f);
        struct wf_send_due due = wf_link_due(link, store->block.domain, WF_SEND_BACKGROUND);
        put->sending = true;
        link->putting++;
        wf_link_send(link, &put->out, store->block.domain, WF_SEND_BACKGROUND,
                     wf_send_until(&due, now_ns, patience_ns(f)));
        wf_link_used(link, now_ns);
        return;
    }
    put->sending = false;
    put_over(put);
    put_free(put);
    store_wait(f, store);
}

static void encoded(struct wf_coder_job *job)
{
    struct wf_put *put = job->done_for;
    struct wf_fabric *f = put->fabric;
    struct wf_peer_node *peer = &f->peers[put->store->to];
    bool smaller = job->result == WEFT_OK;
    put->header.put.form = smaller ? WF_FABRIC_FRAME : WF_FABRIC_TRIED;
    wf_choice_seen(&peer->choice_out, job->plain_bytes,
                   smaller ? job->frame_bytes : job->plain_bytes);
    if (smaller) {
        put->piece = (struct iovec){.iov_base = job->frame, .iov_len = job->frame_bytes};
        f->figures.frames_out++;
        f->figures.frames_out_plain += job->plain_bytes;
        f->figures.frames_out_bytes += job->frame_bytes;
    } else {
        frame_give(put);
    }
    peer->works--;
    put_send(put);
    wf_peer_settle(f, peer);
}

/* WEFT_OK: a worker has it.  WEFT_MISS: it is to go as it is.  WEFT_PENDING: not now. */
static enum weft_status encode(struct wf_put *put, struct wf_peer_node *peer)
{
    struct wf_fabric *f = put->fabric;
    const struct wf_fabric_store *store = put->store;
    put->job = (struct wf_coder_job){.encode = true,
                                     .plain = (uint8_t *)(uintptr_t)store->data,
                                     .plain_bytes = store->block.bytes,
                                     .part_bytes = store->part_bytes,
                                     .part_count = put->header.put.part_count,
                                     .sums = put->header.put.sums,
                                     .done = encoded,
                                     .done_for = put};
    if (!wf_frames_layout(f, store->block.domain, store->block.bytes, 0, store->block.bytes,
                          &put->job.layout))
        return WEFT_MISS;
    bool room = wf_coder_memory_take(f->coder, &put->job);
    if (!room && peer->put_frames)
        return WEFT_PENDING; /* behind those it would wait anyway */
    if (!wf_frames_put(f, peer, store->block.bytes) || !room) {
        f->figures.frames_busy += !room;
        wf_coder_memory_give(f->coder, &put->job);
        return WEFT_MISS;
    }
    put->to = peer->number;
    put->sending = true;
    peer->works++;
    peer->put_frames++;
    wf_coder_submit(f->coder, &put->job);
    return WEFT_OK;
}

/* WEFT_OK: it is on its way, or waits again.  WEFT_PENDING: not now.  Else it is refused by all. */
static enum weft_status put_one(struct wf_fabric *f, struct wf_fabric_store *store, uint64_t now_ns)
{
    bool busy = false;
    struct wf_peer_node *peer = lender_choose(f, store, &busy);
    struct wf_put *put = f->puts->free;
    if (!put && f->puts->used < WF_PUTS_MAX)
        put = &f->puts->puts[f->puts->used];
    if (!peer)
        return busy ? WEFT_PENDING : store->worst;
    if (!put)
        return WEFT_PENDING;
    put->fabric = f;
    put->store = store;
    uint64_t request = (uint64_t)put->generation << 32 | (uint32_t)(put - f->puts->puts);
    header_make(put, store, request);
    put->piece = (struct iovec){.iov_base = (void *)(uintptr_t)store->data,
                                .iov_len = store->block.bytes}; /* unless a frame of it goes */
    store->to = peer->number;
    /* What was lent goes with the sums that it came with. */
    enum weft_status status = store->sums ? WEFT_MISS : encode(put, peer);
    if (status == WEFT_PENDING) {
        put->store = NULL;
        return status;
    }
    if (put == f->puts->free)
        f->puts->free = put->next;
    else
        f->puts->used++;
    f->puts->out++;
    put->ended = WEFT_PENDING;
    put->asked_ns = now_ns;
    peer->putting++;
    store->tried[store->tried_count++] = (uint16_t)peer->number;
    uint64_t guess = store->block.bytes;
    peer->said.lent_free_bytes -= guess < peer->said.lent_free_bytes
                                      ? guess
                                      : peer->said.lent_free_bytes; /* until it says anew */
    peer->said.lends_used_bytes += guess;
    if (status == WEFT_OK)
        return WEFT_OK;
    sums_take(put, store);
    put_send(put);
    return WEFT_OK;
}

bool wf_put_placed(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_placed *placed = header;
    if (bytes != sizeof *placed || link->state != WF_LINK_JOINED)
        return false;
    uint32_t number = (uint32_t)placed->request;
    struct wf_put *put = number < WF_PUTS_MAX ? &f->puts->puts[number] : NULL;
    if (!put || !put->store || put->generation != placed->request >> 32 ||
        put->store->to != link->peer->number ||
        link->theirs_of[put->store->block.domain] == WF_DOMAIN_NONE)
        return true; /* nobody waits for it any more, of this one */
    link->peer->arrives_mbps = placed->arrives_mbps;
    enum weft_status status = placed->status == WEFT_OK || placed->status == WEFT_EXISTS ||
                                      placed->status == WEFT_FULL
                                  ? (enum weft_status)placed->status
                                  : WEFT_E_BUSY;
    if (status == WEFT_OK)
        wf_stream_note(f, link->peer, &put->store->block, put->store->moves);
    if (put->sending) /* its bytes are read still */
        put->ended = status;
    else if (status == WEFT_OK || status == WEFT_EXISTS)
        done(put, status);
    else
        refused(put, status);
    return true;
}

void wf_puts_lost(struct wf_fabric *f, struct wf_peer_node *peer)
{
    for (uint32_t i = 0; i < WF_PUTS_MAX && f->puts->out; i++) {
        struct wf_put *put = &f->puts->puts[i];
        if (put->store && put->store->to == peer->number && !put->sending)
            refused(put, WEFT_E_TIMEOUT);
    }
}

/* ---------------------------------------------------------------------------------- for others */

static void answer(struct wf_link *link, uint64_t request, enum weft_status status)
{
    struct wf_fabric_placed placed = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PLACED},
                                      .request = request,
                                      .status = status,
                                      .arrives_mbps = (uint32_t)link->peer->line.mbps};
    (void)wf_link_say(link, &placed, sizeof placed);
}

/* It takes the sender's allotment, whoever it is for: of that one it may be no more than a claim.
 */
static enum weft_status room_take(struct wf_link *link, const struct wf_fabric_put *put,
                                  const struct wf_fabric_event *block, uint32_t *entry, void **data)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_peer_node *whose = put->owner[0] ? wf_peer_find(f, put->owner) : NULL;
    enum weft_status status = wf_lent_begin(f->lent, link->peer->number, block,
                                            block->quality ? put->profile : 0, put->part_bytes,
                                            put->copies, entry, data);
    if (status == WEFT_OK && whose)
        wf_lent_for(f->lent, *entry, whose->number);
    return status;
}

static bool put_right(const struct wf_link *link, const struct wf_fabric_put *put, uint32_t bytes,
                      uint64_t payload_bytes)
{
    if (bytes < sizeof *put || put->part_count > WF_FABRIC_PARTS_MAX || put->part_count == 0 ||
        bytes != sizeof *put + put->part_count * 8 || put->part_bytes == 0)
        return false;
    bool framed = put->form == WF_FABRIC_FRAME;
    if (framed ? payload_bytes == 0 || payload_bytes >= put->block.bytes || !link->fabric->coder
               : put->block.bytes != payload_bytes || put->form > WF_FABRIC_TRIED)
        return false;
    return put->copies >= 1 && wf_quality_sane(put->block.quality) &&
           memchr(put->owner, 0, sizeof put->owner) && put->block.bytes <= WF_NET_PAYLOAD_MAX &&
           (put->block.bytes + put->part_bytes - 1) / put->part_bytes == put->part_count &&
           put->block.domain < WF_FABRIC_DOMAINS_MAX &&
           link->ours_of[put->block.domain] != WF_DOMAIN_NONE && link->state == WF_LINK_JOINED;
}

static bool may_keep(const struct wf_fabric *f, const struct wf_link *link)
{
    return f->lent && !atomic_load_explicit(&f->draining, memory_order_relaxed) &&
           f->standing.state == WF_STANDING_MEMBER && f->standing.until_ns > wf_fabric_now(f) &&
           wf_peer_believed(f, link->peer);
}

/* One that was not used yet costs no memory, so those that were go first.  NULL: there is none. */
static struct wf_placing *placing_free(struct wf_puts *puts)
{
    if (puts->placing_free)
        return puts->placing_free;
    return puts->placing_used < WF_PLACINGS_MAX ? &puts->placings[puts->placing_used] : NULL;
}

static void placing_take(struct wf_puts *puts, struct wf_placing *p)
{
    if (p == puts->placing_free)
        puts->placing_free = p->next;
    else
        puts->placing_used++;
}

uint32_t wf_put_begun(struct wf_link *link, const void *header, uint32_t bytes,
                      uint64_t payload_bytes, struct iovec *out, void **token, bool *sane)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_put *put = header;
    struct wf_placing *p = placing_free(f->puts);
    void *data = NULL;
    uint32_t entry = 0;
    *sane = put_right(link, put, bytes, payload_bytes);
    if (!*sane)
        return 0;
    enum weft_status status = !may_keep(f, link) ? WEFT_E_DENIED : p ? WEFT_OK : WEFT_E_BUSY;
    struct wf_fabric_event block = put->block;
    block.domain = link->ours_of[put->block.domain];
    block.quality = wf_quality_class(put->block.quality);
    if (status == WEFT_OK)
        status = room_take(link, put, &block, &entry, &data);
    if (status != WEFT_OK) {
        answer(link, put->request, status);
        return 0;
    }
    placing_take(f->puts, p);
    *p = (struct wf_placing){.fabric = f,
                             .link = link,
                             .peer = link->peer->number,
                             .frame_bytes = put->form == WF_FABRIC_FRAME ? payload_bytes : 0,
                             .request = put->request,
                             .entry = entry,
                             .part_bytes = put->part_bytes,
                             .part_count = put->part_count,
                             .bytes = put->block.bytes,
                             .data = data,
                             .block = block};
    memcpy(p->sums, put->sums, put->part_count * sizeof p->sums[0]);
    wf_line_begun(&link->peer->line, wf_fabric_now(f));
    out[0] = (struct iovec){.iov_base = p->data + (p->bytes - payload_bytes), /* coder.h */
                            .iov_len = payload_bytes};
    *token = p;
    return 1;
}

bool wf_put_is(const struct wf_fabric *f, const void *token)
{
    const struct wf_placing *p = token;
    return p >= f->puts->placings && p < f->puts->placings + WF_PLACINGS_MAX;
}

void wf_put_progress(void *token, uint64_t bytes)
{
    struct wf_placing *p = token;
    while (!p->frame_bytes && p->compared < p->part_count) {
        uint64_t from = (uint64_t)p->compared * p->part_bytes, to = from + p->part_bytes;
        to = to < p->bytes ? to : p->bytes;
        if (to > bytes)
            return;
        p->wrong |= wf_sum64(p->data + from, to - from) != p->sums[p->compared];
        p->compared++;
    }
}

/* It is there and right; or it is not, or its memory is no use any more. */
static void placed(struct wf_placing *p, enum weft_status status)
{
    struct wf_fabric *f = p->fabric;
    bool keep = status == WEFT_OK && !p->wrong && p->link && may_keep(f, p->link);
    enum weft_status kept = wf_lent_end(f->lent, p->entry, keep ? p->sums : NULL);
    if (keep && kept == WEFT_OK) {
        struct wf_fabric_event event = p->block;
        event.kind = WF_FABRIC_HERE;
        event.where = WF_FABRIC_IN_LENT;
        wf_stream_log(f, &event);
        wf_stream_own(f, &event);
    }
    if (status == WEFT_OK && p->link)
        answer(p->link, p->request, keep ? kept : p->wrong ? WEFT_E_CORRUPT : WEFT_E_DENIED);
    p->link = NULL;
    p->next = f->puts->placing_free;
    f->puts->placing_free = p;
}

static void decoded(struct wf_coder_job *job)
{
    struct wf_placing *p = job->done_for;
    struct wf_fabric *f = p->fabric;
    struct wf_peer_node *peer = &f->peers[p->peer];
    p->wrong = job->result != WEFT_OK;
    if (p->wrong) {
        peer->read_corrupt++;
    } else {
        f->figures.frames_in++;
        f->figures.frames_in_plain += job->plain_bytes;
        f->figures.frames_in_bytes += job->frame_bytes;
    }
    peer->works--;
    placed(p, WEFT_OK);
    wf_peer_settle(f, peer);
}

void wf_put_arrived(struct wf_fabric *f, void *token, enum weft_status status)
{
    struct wf_placing *p = token;
    struct wf_peer_node *peer = &f->peers[p->peer];
    if (status == WEFT_OK) {
        wf_put_progress(p, p->bytes);
        wf_line_arrived(&peer->line, wf_fabric_now(f), p->frame_bytes ? p->frame_bytes : p->bytes,
                        false);
    }
    if (status != WEFT_OK || !p->frame_bytes) {
        placed(p, status);
        return;
    }
    p->job = (struct wf_coder_job){.plain = p->data,
                                   .plain_bytes = p->bytes,
                                   .part_bytes = p->part_bytes,
                                   .part_count = p->part_count,
                                   .sums = p->sums,
                                   .frame_bytes = p->frame_bytes,
                                   .done = decoded,
                                   .done_for = p};
    peer->works++;
    wf_coder_submit(f->coder, &p->job);
}

void wf_puts_cut(struct wf_fabric *f, const struct wf_link *link)
{
    for (uint32_t i = 0; i < f->puts->placing_used; i++)
        if (f->puts->placings[i].link == link)
            f->puts->placings[i].link = NULL;
}

bool wf_put_drop(struct wf_link *link, const void *header, uint32_t bytes)
{
    const struct wf_fabric_drop *drop = header;
    if (bytes != sizeof *drop || link->state != WF_LINK_JOINED)
        return false;
    if (link->fabric->lent && wf_peer_believed(link->fabric, link->peer))
        (void)wf_lent_drop(link->fabric->lent, link->peer->number, drop->key);
    return true;
}

/* --------------------------------------------------------------------------------- as time goes */

static void drops_say(struct wf_fabric *f)
{
    struct wf_fabric_drop drop = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_DROP}};
    for (uint32_t n = 0; n < 256; n++) {
        pthread_mutex_lock(&f->lock);
        bool some = f->puts->drop_count > 0;
        if (some)
            memcpy(drop.key, f->puts->drops[--f->puts->drop_count], 32);
        pthread_mutex_unlock(&f->lock);
        if (!some)
            return;
        uint16_t holders[16];
        uint32_t count = wf_peer_holders(f, drop.key, WF_PLACES_CLASS_MAX, holders, 16);
        for (uint32_t i = 0; i < count; i++) {
            const struct wf_peer_node *peer = &f->peers[holders[i]];
            if (peer->link && peer->said.lent_bytes)
                (void)wf_link_say(peer->link, &drop, sizeof drop);
        }
    }
}

static void impatience(struct wf_fabric *f, uint64_t now_ns)
{
    for (uint32_t i = 0; i < WF_PUTS_MAX && f->puts->out; i++) {
        struct wf_put *put = &f->puts->puts[i];
        if (put->store && !put->sending && now_ns - put->asked_ns > patience_ns(f))
            refused(put, WEFT_E_TIMEOUT);
    }
}

/* One that waits for its turn is out of the line with the next tick; one that is being sent has to
 * be sent, and nobody waits for its answer then. */
static void cancels(struct wf_fabric *f)
{
    for (uint32_t i = 0; i < WF_PUTS_MAX && f->puts->out; i++) {
        struct wf_put *put = &f->puts->puts[i];
        if (!put->store || !put->store->cancelled)
            continue;
        if (put->sending)
            put->out.until_ns = 0;
        else
            refused(put, WEFT_E_TIMEOUT);
    }
}

static void lenders_count(struct wf_fabric *f)
{
    uint64_t bytes = 0, unused = 0;
    for (uint32_t i = 0; i < f->peer_count; i++)
        if (f->peers[i].used && wf_peer_believed(f, &f->peers[i])) {
            bytes += f->peers[i].said.lent_bytes;
            unused += f->peers[i].said.lent_free_bytes;
        }
    pthread_mutex_lock(&f->lock);
    f->lenders_bytes = bytes;
    f->lenders_free_bytes = unused;
    pthread_mutex_unlock(&f->lock);
}

void wf_puts_tick(struct wf_fabric *f, uint64_t now_ns)
{
    impatience(f, now_ns);
    if (now_ns < f->lenders_ns)
        return;
    f->lenders_ns = now_ns + (uint64_t)f->peer_count * LENDERS_NS;
    lenders_count(f);
    for (uint32_t i = 0; f->lent && i < f->peer_count; i++) {
        if (f->peers[i].used)
            wf_allot_peer(f, &f->peers[i]);
        wf_lent_owner_here(f->lent, i, f->peers[i].used && wf_peer_believed(f, &f->peers[i]));
    }
}

void wf_puts_run(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_puts *puts = f->puts;
    pthread_mutex_lock(&f->lock);
    bool drops = puts->drop_count > 0, cancelled = puts->cancels;
    puts->cancels = false;
    *puts->waiting_end = puts->asked;
    while (*puts->waiting_end)
        puts->waiting_end = &(*puts->waiting_end)->next;
    puts->asked = NULL;
    puts->asked_end = &puts->asked;
    pthread_mutex_unlock(&f->lock);
    if (drops)
        drops_say(f);
    if (cancelled)
        cancels(f);
    struct wf_fabric_store *store = puts->waiting;
    puts->waiting = NULL;
    puts->waiting_end = &puts->waiting;
    while (store) {
        struct wf_fabric_store *next = store->next;
        enum weft_status status = store->cancelled ? WEFT_E_TIMEOUT : put_one(f, store, now_ns);
        if (status == WEFT_PENDING)
            store_wait(f, store);
        else if (status != WEFT_OK)
            store_end(f, store, store->made ? WEFT_OK : status);
        store = next;
    }
}

/* -------------------------------------------------------------------------------- begin and end */

static void went(void *context, const struct wf_fabric_event *block)
{
    wf_stream_log(context, block);
    wf_stream_own(context, block);
}

enum weft_status wf_puts_create(struct wf_fabric *f)
{
    struct wf_puts *puts = wf_calloc(1, sizeof *puts, "blocks in other nodes' memory");
    if (!puts)
        return WEFT_E_NO_MEMORY;
    f->puts = puts;
    puts->waiting_end = &puts->waiting;
    puts->asked_end = &puts->asked;
    puts->drops = wf_calloc(DROPS_MAX, sizeof *puts->drops, "blocks in other nodes' memory");
    if (!puts->drops)
        return WEFT_E_NO_MEMORY;
    const struct wf_lent_options options = {.bytes = f->options.lend_bytes,
                                            .seed = f->options.seed,
                                            .gone = went,
                                            .context = f};
    if (options.bytes)
        wf_stream_own_begin(f);
    return options.bytes ? wf_lent_create(&options, &f->lent) : WEFT_OK;
}

void wf_puts_end(struct wf_fabric *f)
{
    struct wf_puts *puts = f->puts;
    if (!puts)
        return;
    for (uint32_t i = 0; i < WF_PUTS_MAX; i++)
        if (puts->puts[i].store)
            store_end(f, puts->puts[i].store, WEFT_E_TIMEOUT);
    *puts->waiting_end = puts->asked;
    for (struct wf_fabric_store *store = puts->waiting, *next; store; store = next) {
        next = store->next;
        store_end(f, store, WEFT_E_TIMEOUT);
    }
    wf_lent_destroy(f->lent);
    free(puts->drops);
    free(puts);
    f->puts = NULL;
}
