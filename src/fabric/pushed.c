/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that other nodes push to this one while they write them (wire.h).
 *
 * The host says whether it has room, and gives the memory; layers are placed there as they come,
 * and each is compared with its sum.  A block is whole when every layer of it came, in order, and
 * was right; those that are, and that their writer has committed, the host may publish.  Nothing
 * else of a push is ever seen by anybody: not when its writer gives it up, or dies, or is no member
 * any more, nor when this node is none.
 *
 * A push keeps its room until the host has been told what becomes of it, and the host is not told
 * before the net has placed all that was begun.  Who says nothing of one for IDLE_NS loses it.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sum.h"
#include "fabric/inner.h"
#include "sys/memory.h"

#define PLACINGS_MAX 256u
#define PEER_MAX (WF_FABRIC_PUSHES_MAX / 2) /* one node's, at a time */
#define IDLE_NS 30000000000ull

enum reception_state {
    FREE = 0,
    ROOMING, /* the host looks for room */
    OPEN,
    CLOSING, /* it ends when nothing of it is being placed */
    ENDING,  /* the host publishes */
};

/* A layer of some blocks that comes. */
struct placing {
    struct placing *next;
    struct wf_fabric *fabric;
    struct wf_fabric_pushed *pushed;
    uint32_t count, compared;
    uint64_t compared_bytes; /* of the payload */
    struct wf_coder_job job; /* of the piece that is decoded */
    uint32_t piece;          /* which is that */
    uint64_t bytes;          /* of a layer of one block */
    uint32_t layer;
    struct wf_fabric_layer_piece pieces[WF_FABRIC_PUSH_BLOCKS_MAX];
};

struct wf_receptions {
    struct wf_fabric_pushed all[WF_FABRIC_PUSHES_MAX]; /* what was never used takes no memory */
    struct placing placings[PLACINGS_MAX], *free;      /* free: used before */
    uint32_t pushed_used, used;
    /* Under the fabric's lock: */
    struct wf_fabric_pushed *answered, **answered_end;
};

/* ---------------------------------------------------------------------------------- any thread */

void wf_fabric_pushed_answer(struct wf_fabric *f, struct wf_fabric_pushed *pushed)
{
    pushed->next = NULL;
    pthread_mutex_lock(&f->lock);
    *f->receptions->answered_end = pushed;
    f->receptions->answered_end = &pushed->next;
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
}

/* ---------------------------------------------------------------------------------------- room */

static bool may_take(const struct wf_fabric *f, const struct wf_link *link)
{
    return f->standing.state == WF_STANDING_MEMBER && f->standing.until_ns > wf_fabric_now(f) &&
           wf_peer_believed(f, link->peer);
}

static uint64_t handle_of(const struct wf_fabric_pushed *pushed)
{
    return (uint64_t)pushed->generation << 32 | pushed->number;
}

static void room_say(struct wf_link *link, uint64_t request, enum weft_status status,
                     const struct wf_fabric_pushed *pushed)
{
    struct wf_fabric_room room = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_ROOM},
                                  .request = request,
                                  .status = status};
    for (uint32_t i = 0; pushed && i < pushed->count; i++)
        if (pushed->data[i])
            wf_bit_set(room.wanted, i);
    room.handle = pushed ? handle_of(pushed) : 0;
    room.arrives_mbps = (uint32_t)link->peer->line.mbps;
    (void)wf_link_say(link, &room, sizeof room); /* who hears nothing gives up */
}

static bool push_right(const struct wf_link *link, const struct wf_fabric_push_said *said,
                       uint32_t bytes)
{
    if (link->state != WF_LINK_JOINED || bytes < sizeof *said || said->count == 0 ||
        said->count > WF_FABRIC_PUSH_BLOCKS_MAX || said->layers == 0 ||
        said->layers > WF_FABRIC_PUSH_LAYERS_MAX ||
        bytes != sizeof *said + said->count * sizeof said->blocks[0])
        return false;
    const struct wf_fabric_event *first = &said->blocks[0];
    if (first->bytes == 0 || first->bytes > WF_NET_PAYLOAD_MAX ||
        first->bytes % said->layers != 0 || first->domain >= WF_FABRIC_DOMAINS_MAX ||
        link->ours_of[first->domain] == WF_DOMAIN_NONE)
        return false;
    for (uint32_t i = 0; i < said->count; i++)
        if (said->blocks[i].kind != WF_FABRIC_HERE || said->blocks[i].bytes != first->bytes ||
            said->blocks[i].domain != first->domain || !wf_quality_sane(said->blocks[i].quality))
            return false;
    return true;
}

/* Is all of it as exact as its domain asks here? */
static bool is_exact_enough(const struct wf_fabric *f, const struct wf_link *link,
                            const struct wf_fabric_push_said *said)
{
    uint8_t most = wf_quality_class(f->domains[link->ours_of[said->blocks[0].domain]].quality);
    for (uint32_t i = 0; i < said->count; i++)
        if (wf_quality_class(said->blocks[i].quality) > most)
            return false;
    return true;
}

static struct wf_fabric_pushed *take(struct wf_fabric *f, const struct wf_link *link)
{
    struct wf_receptions *receptions = f->receptions;
    struct wf_fabric_pushed *unused = NULL;
    uint32_t theirs = 0;
    for (uint32_t i = 0; i < receptions->pushed_used; i++) {
        struct wf_fabric_pushed *pushed = &receptions->all[i];
        theirs += pushed->state != FREE && pushed->link == link;
        unused = pushed->state == FREE && !unused ? pushed : unused;
    }
    if (theirs >= PEER_MAX)
        return NULL;
    if (!unused && receptions->pushed_used < WF_FABRIC_PUSHES_MAX) {
        unused = &receptions->all[receptions->pushed_used];
        unused->number = receptions->pushed_used++;
        unused->generation = 1;
    }
    return unused;
}

static void close_it(struct wf_fabric *f, struct wf_fabric_pushed *pushed);

/* Who pushes over another link has lost the one before, which may be heard here later, or was.
 * False: the host looks for room for a push that came over that, or a layer of it is still being
 * read, into memory that the same blocks may be in: they would be taken to be on their way. */
static bool older_end(struct wf_fabric *f, const struct wf_link *link)
{
    bool ended = true;
    for (uint32_t i = 0; i < f->receptions->pushed_used; i++) {
        struct wf_fabric_pushed *pushed = &f->receptions->all[i];
        if (pushed->state == FREE || pushed->link == link ||
            strcmp(pushed->from, link->peer->name) != 0)
            continue;
        close_it(f, pushed);
        ended &= pushed->state != CLOSING && pushed->state != ROOMING;
        if (pushed->state != CLOSING)
            pushed->link = NULL;
    }
    return ended;
}

bool wf_reception_push(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_push_said *said = header;
    if (!push_right(link, said, bytes))
        return false;
    struct wf_fabric_pushed *pushed = take(f, link);
    bool busy = !pushed || !older_end(f, link) || !f->options.host.push_room ||
                atomic_load_explicit(&f->draining, memory_order_relaxed);
    if (!may_take(f, link) || busy || !is_exact_enough(f, link, said)) {
        room_say(link, said->request, busy ? WEFT_E_BUSY : WEFT_E_DENIED, NULL);
        return true;
    }
    memcpy(pushed->from, link->peer->name, sizeof pushed->from);
    pushed->domain = link->ours_of[said->blocks[0].domain];
    pushed->count = said->count;
    pushed->layers = said->layers;
    pushed->bytes = said->blocks[0].bytes;
    memcpy(pushed->blocks, said->blocks, said->count * sizeof said->blocks[0]);
    pushed->profile = said->profile;
    for (uint32_t i = 0; i < said->count; i++) {
        pushed->blocks[i].domain = (uint8_t)pushed->domain;
        pushed->blocks[i].quality = wf_quality_class(said->blocks[i].quality);
    }
    pushed->status = WEFT_PENDING;
    memset(pushed->data, 0, sizeof pushed->data);
    memset(pushed->keep, 0, sizeof pushed->keep);
    memset(pushed->committed, 0, sizeof pushed->committed);
    memset(pushed->begun, 0, sizeof pushed->begun);
    memset(pushed->arrived, 0, sizeof pushed->arrived);
    memset(pushed->bad, 0, sizeof pushed->bad);
    pushed->published = pushed->existing = pushed->missing = pushed->placing = 0;
    pushed->wrong = false;
    pushed->link = link;
    pushed->request = said->request;
    pushed->since_ns = wf_fabric_now(f);
    pushed->state = ROOMING;
    f->options.host.push_room(f->options.host.context, pushed);
    return true;
}

/* ------------------------------------------------------------------------------------- its end */

static void let_go(struct wf_fabric_pushed *pushed)
{
    pushed->state = FREE;
    pushed->generation++;
    pushed->link = NULL;
}

/* No more of it is taken; what is to be kept of it was said, or nothing is. */
static void close_it(struct wf_fabric *f, struct wf_fabric_pushed *pushed)
{
    if (pushed->state == OPEN)
        pushed->state = CLOSING;
    if (pushed->state != CLOSING || pushed->placing > 0)
        return;
    bool may = pushed->link && may_take(f, pushed->link);
    for (uint32_t i = 0; i < pushed->count; i++)
        if (may && wf_bit(pushed->committed, i) && pushed->data[i] && !pushed->bad[i] &&
            pushed->arrived[i] == pushed->layers)
            wf_bit_set(pushed->keep, i);
    pushed->state = ENDING;
    f->options.host.push_end(f->options.host.context, pushed);
}

/* The host has done what it was asked for. */
static void answered(struct wf_fabric *f, struct wf_fabric_pushed *pushed)
{
    if (pushed->state == ROOMING && pushed->status != WEFT_OK) {
        if (pushed->link)
            room_say(pushed->link, pushed->request, pushed->status, NULL);
        let_go(pushed);
    } else if (pushed->state == ROOMING) {
        pushed->state = OPEN;
        pushed->since_ns = wf_fabric_now(f);
        if (pushed->link)
            room_say(pushed->link, pushed->request, WEFT_OK, pushed);
        else
            close_it(f, pushed);
    } else if (pushed->state == ENDING) {
        /* Its end may be on its way here when its time is over: then nothing is to be kept, and who
         * has committed all of it is not to believe that it is here. */
        bool some = pushed->published + pushed->existing > 0;
        struct wf_fabric_pushed_said said = {.head = {.magic = WF_FABRIC_MAGIC,
                                                      .kind = WF_FABRIC_PUSHED},
                                             .request = pushed->request,
                                             .status = pushed->missing == 0 && some ? WEFT_OK
                                                       : pushed->wrong              ? WEFT_E_CORRUPT
                                                                                    : WEFT_MISS,
                                             .published = pushed->published,
                                             .existing = pushed->existing,
                                             .missing = pushed->missing};
        f->figures.taken += pushed->published;
        f->figures.taken_bytes += pushed->published * pushed->bytes;
        f->figures.taken_lost += pushed->missing > 0 || !some;
        if (pushed->link)
            (void)wf_link_say(pushed->link, &said, sizeof said);
        let_go(pushed);
    }
}

void wf_receptions_run(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_receptions *receptions = f->receptions;
    pthread_mutex_lock(&f->lock);
    struct wf_fabric_pushed *pushed = receptions->answered;
    receptions->answered = NULL;
    receptions->answered_end = &receptions->answered;
    pthread_mutex_unlock(&f->lock);
    while (pushed) {
        struct wf_fabric_pushed *next = pushed->next;
        answered(f, pushed);
        pushed = next;
    }
    for (uint32_t i = 0; i < receptions->pushed_used; i++) {
        pushed = &receptions->all[i];
        if (pushed->state == OPEN && now_ns > pushed->since_ns + IDLE_NS)
            close_it(f, pushed);
    }
}

void wf_receptions_lost(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    for (uint32_t i = 0; i < f->receptions->pushed_used; i++) {
        struct wf_fabric_pushed *pushed = &f->receptions->all[i];
        if (pushed->state == FREE || pushed->link != link)
            continue;
        pushed->link = NULL;
        close_it(f, pushed);
    }
}

static struct wf_fabric_pushed *find(struct wf_link *link, uint64_t handle)
{
    uint32_t number = (uint32_t)handle;
    struct wf_receptions *receptions = link->fabric->receptions;
    struct wf_fabric_pushed *pushed = number < receptions->pushed_used ? &receptions->all[number]
                                                                       : NULL;
    return pushed && pushed->state == OPEN && pushed->link == link &&
                   pushed->generation == handle >> 32
               ? pushed
               : NULL;
}

bool wf_reception_end(struct wf_link *link, const void *header, uint32_t bytes)
{
    const struct wf_fabric_push_end *end = header;
    if (bytes != sizeof *end || link->state != WF_LINK_JOINED)
        return false;
    struct wf_fabric_pushed *pushed = find(link, end->handle);
    if (!pushed)
        return true; /* it was too late */
    for (uint32_t i = pushed->count; i < WF_FABRIC_PUSH_BLOCKS_MAX; i++)
        if (wf_bit(end->keep, i))
            return false;
    memcpy(pushed->committed, end->keep, sizeof pushed->committed);
    close_it(link->fabric, pushed);
    return true;
}

/* -------------------------------------------------------------------------------------- layers */

/* One that was not used yet costs no memory, so those that were go first.  NULL: there is none. */
static struct placing *placing_take(struct wf_receptions *receptions)
{
    struct placing *p = receptions->free;
    if (p)
        receptions->free = p->next;
    else if (receptions->used < PLACINGS_MAX)
        p = &receptions->placings[receptions->used++];
    return p;
}

/* Is that the next layer of each of these blocks, and do they have room here?  Of a block that is
 * lost already anything may come. */
static bool pieces_right(const struct wf_fabric *f, const struct wf_fabric_pushed *pushed,
                         const struct wf_fabric_layer *layer, uint64_t payload_bytes)
{
    uint64_t each = pushed->bytes / pushed->layers, bytes = 0;
    for (uint32_t i = 0; i < layer->count; i++) {
        uint32_t block = layer->pieces[i].block;
        uint32_t its = layer->pieces[i].bytes;
        if (its == 0 || its > each || (its < each && !f->coder))
            return false;
        bytes += its;
        if (block >= pushed->count || !pushed->data[block] ||
            (i > 0 && block <= layer->pieces[i - 1].block) ||
            (!pushed->bad[block] && pushed->begun[block] != layer->layer))
            return false;
    }
    return layer->layer < pushed->layers && bytes == payload_bytes;
}

uint32_t wf_reception_begun(struct wf_link *link, const void *header, uint32_t bytes,
                            uint64_t payload_bytes, struct iovec *out, void **token, bool *sane)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_layer *layer = header;
    *sane = link->state == WF_LINK_JOINED && bytes >= sizeof *layer && layer->count >= 1 &&
            layer->count <= WF_FABRIC_PUSH_BLOCKS_MAX &&
            bytes == sizeof *layer + layer->count * sizeof layer->pieces[0] && payload_bytes > 0;
    struct wf_fabric_pushed *pushed = *sane ? find(link, layer->handle) : NULL;
    if (!pushed)
        return 0; /* nobody waits for it any more */
    uint64_t each = pushed->bytes / pushed->layers;
    *sane = pieces_right(f, pushed, layer, payload_bytes);
    if (!*sane)
        return 0;
    pushed->since_ns = wf_fabric_now(f);
    struct placing *p = placing_take(f->receptions);
    for (uint32_t i = 0; i < layer->count; i++) {
        uint32_t block = layer->pieces[i].block;
        pushed->bad[block] |= !p;
        pushed->begun[block]++;
        /* A frame at the end of its place (coder.h). */
        uint64_t end = (layer->layer + 1) * each, bytes_of = layer->pieces[i].bytes;
        out[i] = (struct iovec){.iov_base = pushed->data[block] + (end - bytes_of),
                                .iov_len = bytes_of};
    }
    if (!p)
        return 0; /* these blocks will be fetched */
    wf_line_begun(&link->peer->line, wf_fabric_now(f));
    p->fabric = f;
    p->pushed = pushed;
    p->count = layer->count;
    p->compared = p->piece = 0;
    p->compared_bytes = 0;
    p->bytes = each;
    p->layer = layer->layer;
    memcpy(p->pieces, layer->pieces, layer->count * sizeof p->pieces[0]);
    pushed->placing++;
    *token = p;
    return layer->count;
}

bool wf_reception_is(const struct wf_fabric *f, const void *token)
{
    const struct placing *p = token;
    return p >= f->receptions->placings && p < f->receptions->placings + PLACINGS_MAX;
}

/* Sums are compared while the bytes are in the processor's cache still. */
void wf_reception_progress(void *token, uint64_t bytes)
{
    struct placing *p = token;
    struct wf_fabric_pushed *pushed = p->pushed;
    for (; p->compared < p->count; p->compared++) {
        const struct wf_fabric_layer_piece *piece = &p->pieces[p->compared];
        const uint8_t *data = pushed->data[piece->block] + p->layer * p->bytes;
        if (p->compared_bytes + piece->bytes > bytes)
            return;
        p->compared_bytes += piece->bytes;
        if (piece->bytes == p->bytes && wf_sum64(data, p->bytes) != piece->sum)
            pushed->bad[piece->block] = pushed->wrong = true;
    }
}

static void placed(struct placing *p, enum weft_status status)
{
    struct wf_fabric *f = p->fabric;
    struct wf_fabric_pushed *pushed = p->pushed;
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t block = p->pieces[i].block;
        pushed->arrived[block] = (uint16_t)(pushed->arrived[block] + 1);
        pushed->bad[block] |= status != WEFT_OK;
    }
    p->next = f->receptions->free;
    f->receptions->free = p;
    pushed->placing--;
    pushed->since_ns = wf_fabric_now(f);
    if (pushed->state == CLOSING)
        close_it(f, pushed);
}

static void decoded(struct wf_coder_job *job);

/* The next one that came as a frame, by a worker; when there is none, all of it is there. */
static void decode_next(struct placing *p)
{
    while (p->piece < p->count && p->pieces[p->piece].bytes == p->bytes)
        p->piece++;
    if (p->piece == p->count) {
        placed(p, WEFT_OK);
        return;
    }
    struct wf_fabric_layer_piece *piece = &p->pieces[p->piece];
    p->job = (struct wf_coder_job){.plain = p->pushed->data[piece->block] + p->layer * p->bytes,
                                   .plain_bytes = p->bytes,
                                   .part_bytes = (uint32_t)p->bytes,
                                   .part_count = 1,
                                   .sums = &piece->sum,
                                   .frame_bytes = piece->bytes,
                                   .done = decoded,
                                   .done_for = p};
    wf_coder_submit(p->fabric->coder, &p->job);
}

static void decoded(struct wf_coder_job *job)
{
    struct placing *p = job->done_for;
    struct wf_fabric_figures *figures = &p->fabric->figures;
    struct wf_fabric_pushed *pushed = p->pushed;
    if (job->result == WEFT_OK) {
        figures->frames_in++;
        figures->frames_in_plain += job->plain_bytes;
        figures->frames_in_bytes += job->frame_bytes;
    } else {
        pushed->bad[p->pieces[p->piece].block] = pushed->wrong = true;
    }
    p->piece++;
    decode_next(p);
}

void wf_reception_arrived(struct wf_fabric *f, void *token, enum weft_status status)
{
    struct placing *p = token;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < p->count; i++)
        bytes += p->pieces[i].bytes;
    if (status != WEFT_OK) {
        placed(p, status);
        return;
    }
    if (p->pushed->link)
        wf_line_arrived(&p->pushed->link->peer->line, wf_fabric_now(f), bytes, false);
    wf_reception_progress(p, bytes);
    decode_next(p);
}

/* ------------------------------------------------------------------------------- begin and end */

enum weft_status wf_receptions_create(struct wf_fabric *f)
{
    struct wf_receptions *receptions = wf_calloc(1, sizeof *receptions, "blocks that others push");
    if (!receptions)
        return WEFT_E_NO_MEMORY;
    f->receptions = receptions;
    receptions->answered_end = &receptions->answered;
    return WEFT_OK;
}

/* The host forgets what it holds for them by itself: nobody is left to tell it. */
void wf_receptions_destroy(struct wf_fabric *f)
{
    free(f->receptions);
    f->receptions = NULL;
}
