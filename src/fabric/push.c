/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that are being written here, on their way to one other node layer by layer (wire.h).
 *
 * A push belongs to the host, whose thread says how many layers are written and how it ends; this
 * thread sends them from where they lie, each with the sum that it had then.  Its memory is read
 * until the last `sent` of it: whatever happens, `done` is not called before.
 *
 * A link that goes while there is another one to the same node, or one is being made, takes no push
 * with it: of two that both nodes began one goes, and a better way takes a link's place.  What was
 * sent is dropped there then, and all of it is sent anew, AGAIN_MAX times; the other node may be
 * busy with what came before, for a while.  A push that is asked for between two links waits too.
 *
 * What else goes wrong, here or there, ends the push and nothing else: blocks that were committed
 * are told of like any others, and the other node fetches what it has not.
 *
 * Layers take their turn with whatever else leaves this node for the other (sends.c), as what
 * somebody waits for, and in their order.  The word that a push ends goes past what is in line, so
 * it is said when all is sent; and what is in line of one that fails is not sent any more.
 *
 * Where that is sooner (frames.c) layers are encoded first, one after the other of each message, by
 * a worker, in memory that is set aside for frames; a message for which there is none goes as it
 * is. Messages go in their order all the same: one that is ready waits for those before it.
 *
 * At a time so many pushes (WF_FABRIC_PUSHES_MAX), so many messages of all (MESSAGES_MAX) and so
 * many bytes of each (FLIGHT_BYTES) are under way; each gets its turn.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/sum.h"
#include "fabric/inner.h"
#include "sys/memory.h"

/* Of memory for frames, what one of so many bytes takes. */
#define FRAME_STRIDE(bytes) (((uint64_t)(bytes) + sizeof(struct wf_frame_head) + 63) / 64 * 64)
#define MESSAGES_MAX 64u
#define MESSAGE_BYTES (4u << 20) /* or one layer of one block */
#define FLIGHT_BYTES ((uint64_t)32 << 20)
#define ROOM_NS 5000000000u    /* until the other node has said what room it has */
#define PUSHED_NS 15000000000u /* and what became of it, after the last that was sent */
#define AGAIN_MAX 3u
#define RELINK_NS 1000000000u /* until the other link is joined */
#define AGAIN_NS 50000000u    /* until the other has ended what came over the one before */

enum push_state {
    ASKED = 0, /* the other node is to be told */
    WAITS,     /* for its ROOM */
    SENDS,
    ENDS,   /* waits for its PUSHED */
    CUT,    /* its link could not send: that it is gone is to be heard in a moment */
    AGAIN,  /* it is gone: waits for what was being sent there, and for another link */
    FAILED, /* waits for what is being sent */
};
enum push_end { GOES_ON = 0, COMMITTED, GIVEN_UP };

struct message {
    struct wf_sending out; /* first */
    struct message *next;
    struct wf_fabric *fabric;
    struct wf_fabric_push *push; /* NULL: it is free */
    uint64_t bytes;              /* of its layers, as they are */
    bool encoding;
    uint32_t piece;           /* that a worker has, */
    struct wf_coder_job job;  /* so */
    struct wf_coder_job room; /* which has the memory for all its frames */
    struct iovec pieces[WF_FABRIC_PUSH_BLOCKS_MAX];
    union {
        struct wf_fabric_layer layer;
        uint64_t words[sizeof(struct wf_fabric_layer) / 8 + 2 * WF_FABRIC_PUSH_BLOCKS_MAX];
    } header;
};
static_assert(sizeof(struct wf_fabric_layer_piece) == 16, "two words");

struct wf_pushes {
    struct wf_fabric_push *active[WF_FABRIC_PUSHES_MAX]; /* by the low half of their request */
    uint32_t generations[WF_FABRIC_PUSHES_MAX];
    uint32_t turn;
    struct message messages[MESSAGES_MAX], *free; /* free: used before; what never was takes no
                                                     memory */
    uint32_t used;
    /* Under the fabric's lock: */
    struct wf_fabric_push *asked, **asked_end;
};

/* ---------------------------------------------------------------------------------- any thread */

enum weft_status wf_fabric_push(struct wf_fabric *f, struct wf_fabric_push *push)
{
    uint64_t bytes = push->blocks[0].bytes;
    if (push->count == 0 || push->count > WF_FABRIC_PUSH_BLOCKS_MAX || push->layers == 0 ||
        push->layers > WF_FABRIC_PUSH_LAYERS_MAX || bytes == 0 || bytes % push->layers != 0)
        return wf_fail(WEFT_E_INVALID,
                       "%u blocks of %llu bytes in %u layers cannot be pushed; 1 to %u blocks can, "
                       "whose layers divide them evenly",
                       push->count, (unsigned long long)bytes, push->layers,
                       WF_FABRIC_PUSH_BLOCKS_MAX);
    if (strcmp(push->to, f->name) == 0)
        return wf_fail(WEFT_E_INVALID,
                       "%.63s is this node; name another, as weft fabric lists them", push->to);
    if (!wf_fabric_is_known(f, push->to))
        return wf_fail(WEFT_E_NOT_FOUND, "no node is called '%.63s'; weft fabric lists them",
                       push->to);
    push->next = NULL;
    push->link = NULL;
    push->state = ASKED;
    push->line = push->line_last = NULL;
    push->layer = push->block = push->flight = push->agains = 0;
    push->handle = push->flight_bytes = push->sent_bytes = push->published = 0;
    push->lost_ns = push->next_ns = 0;
    push->status = WEFT_PENDING;
    atomic_store_explicit(&push->written, 0, memory_order_relaxed);
    atomic_store_explicit(&push->end, GOES_ON, memory_order_relaxed);
    pthread_mutex_lock(&f->lock);
    *f->pushes->asked_end = push;
    f->pushes->asked_end = &push->next;
    pthread_mutex_unlock(&f->lock);
    wf_fabric_wake(f);
    return WEFT_OK;
}

void wf_fabric_push_written(struct wf_fabric *f, struct wf_fabric_push *push, uint32_t layers)
{
    /* Release: pairs with the acquire in send_some(); the layers' bytes were written before. */
    atomic_store_explicit(&push->written, layers, memory_order_release);
    wf_fabric_wake(f);
}

void wf_fabric_push_end(struct wf_fabric *f, struct wf_fabric_push *push, bool committed)
{
    /* Release: as above, and for `keep`. */
    atomic_store_explicit(&push->end, committed ? COMMITTED : GIVEN_UP, memory_order_release);
    wf_fabric_wake(f);
}

bool wf_fabric_has(struct wf_fabric *f, const char *name, const uint8_t key[32])
{
    bool has = false;
    pthread_mutex_lock(&f->lock);
    for (uint32_t i = 0; i < f->shown_count && !has; i++) {
        uint32_t place = f->place_of[f->shown[i].number];
        has = strcmp(f->shown[i].name, name) == 0 && place != WF_PLACE_NONE &&
              wf_places_holds(f->places, key, (uint16_t)place) &&
              !wf_places_holds(f->below, key, (uint16_t)place);
    }
    pthread_mutex_unlock(&f->lock);
    return has;
}

/* ------------------------------------------------------------------------------------- its end */

static void finish(struct wf_fabric *f, struct wf_fabric_push *push, enum weft_status status)
{
    f->pushes->active[push->number] = NULL;
    f->pushes->generations[push->number]++;
    f->figures.pushed += push->published;
    f->figures.pushed_bytes += push->sent_bytes;
    f->figures.push_fails += status != WEFT_OK;
    push->done(push, status);
}

/* Have the other node forget a push of which it gave that handle; best effort, for it has patience
 * with none for ever. */
static void drop(struct wf_link *link, uint64_t handle)
{
    struct wf_fabric_push_end end = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUSH_END},
                                     .handle = handle};
    (void)wf_link_say(link, &end, sizeof end);
}

/* What is in line of it is not sent any more; what is with the net, is. */
static void withdraw(struct wf_pushes *pushes, const struct wf_fabric_push *push)
{
    for (uint32_t i = 0; i < pushes->used; i++)
        if (pushes->messages[i].push == push)
            pushes->messages[i].out.until_ns = 0;
}

static void fail(struct wf_fabric *f, struct wf_fabric_push *push, enum weft_status status)
{
    if (push->state == FAILED)
        return;
    if (push->state == SENDS && push->link && push->handle)
        drop(push->link, push->handle);
    push->state = FAILED;
    push->status = status;
    if (push->flight == 0)
        finish(f, push, status);
    else
        withdraw(f->pushes, push);
}

static struct wf_fabric_push *find(struct wf_link *link, uint64_t request)
{
    struct wf_pushes *pushes = link->fabric->pushes;
    uint32_t number = (uint32_t)request;
    if (number >= WF_FABRIC_PUSHES_MAX || pushes->generations[number] != request >> 32)
        return NULL;
    struct wf_fabric_push *push = pushes->active[number];
    return push && push->link == link ? push : NULL;
}

/* Is there a link to that node but this one, or one that may become it? */
static bool is_linked(const struct wf_fabric *f, const struct wf_peer_node *peer,
                      const struct wf_link *but)
{
    bool other = peer->dialled && peer->dialled != but;
    for (const struct wf_link *l = f->links; l && !other; l = l->next)
        other = l != but && l->peer == peer && !l->closing && l->state >= WF_LINK_KNOWN &&
                l->state != WF_LINK_TRIED;
    return other;
}

static void again(struct wf_fabric_push *push, uint64_t now_ns, uint64_t after_ns)
{
    push->state = AGAIN;
    push->since_ns = now_ns;
    push->next_ns = now_ns + after_ns;
    push->handle = 0;
    push->layer = push->block = 0;
    memset(push->wanted, 0, sizeof push->wanted);
}

void wf_pushes_lost(struct wf_link *link)
{
    struct wf_fabric *f = link->fabric;
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++) {
        struct wf_fabric_push *push = f->pushes->active[i];
        if (!push || push->link != link)
            continue;
        bool anew = push->state != FAILED && push->agains < AGAIN_MAX &&
                    is_linked(f, link->peer, link);
        push->link = NULL;
        if (anew) {
            push->agains++;
            push->lost_ns = wf_fabric_now(f);
            again(push, push->lost_ns, 0);
        } else {
            fail(f, push, WEFT_E_NODE);
        }
    }
}

/* ------------------------------------------------------------------------------------- sending */

/* NULL: all are under way. */
static struct message *message_take(struct wf_fabric *f)
{
    struct wf_pushes *pushes = f->pushes;
    struct message *message = pushes->free;
    if (message)
        pushes->free = message->next;
    else if (pushes->used < MESSAGES_MAX)
        message = &pushes->messages[pushes->used++];
    if (message)
        message->fabric = f;
    return message;
}

static void message_free(struct wf_pushes *pushes, struct message *message)
{
    if (message->room.frame)
        wf_coder_memory_give(message->fabric->coder, &message->room);
    message->push = NULL;
    message->next = pushes->free;
    pushes->free = message;
}

/* What of it went encoded. */
static void count_frames(struct wf_fabric *f, const struct wf_fabric_push *push,
                         const struct message *message)
{
    uint64_t each = push->blocks[0].bytes / push->layers;
    for (uint32_t i = 0; i < message->header.layer.count; i++) {
        uint64_t bytes = message->header.layer.pieces[i].bytes;
        f->figures.frames_out += bytes < each;
        f->figures.frames_out_plain += bytes < each ? each : 0;
        f->figures.frames_out_bytes += bytes < each ? bytes : 0;
    }
}

static void sent(struct wf_net_message *net, enum weft_status status)
{
    struct message *message = (struct message *)net;
    struct wf_fabric *f = message->fabric;
    struct wf_fabric_push *push = message->push;
    if (status == WEFT_OK)
        count_frames(f, push, message);
    push->flight--;
    push->flight_bytes -= message->bytes;
    push->since_ns = wf_fabric_now(f);
    if (status == WEFT_OK)
        push->sent_bytes += message->bytes;
    message_free(f->pushes, message);
    if (push->state == FAILED) {
        if (push->flight == 0)
            finish(f, push, push->status);
    } else if (status == WEFT_E_NODE && push->link) {
        push->state = CUT;
    } else if (status != WEFT_OK && push->link) {
        fail(f, push, WEFT_E_NODE);
    }
}

/* Fill a message with that layer of blocks from push->block on; false: none of them is wanted. */
static bool layer_take(struct wf_fabric_push *push, struct message *message)
{
    uint64_t bytes = push->blocks[0].bytes / push->layers;
    struct wf_fabric_layer *header = &message->header.layer;
    *header = (struct wf_fabric_layer){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_LAYER},
                                       .handle = push->handle,
                                       .layer = push->layer};
    message->bytes = 0;
    for (; push->block < push->count; push->block++) {
        if (!wf_bit(push->wanted, push->block))
            continue;
        if (message->bytes && message->bytes + bytes > MESSAGE_BYTES)
            break;
        const uint8_t *data = push->data[push->block] + push->layer * bytes;
        message->pieces[header->count] = (struct iovec){.iov_base = (void *)(uintptr_t)data,
                                                        .iov_len = bytes};
        header->pieces[header->count++] = (struct wf_fabric_layer_piece){.block = push->block,
                                                                         .bytes = (uint32_t)bytes};
        message->bytes += bytes;
    }
    return header->count > 0;
}

static void message_send(struct message *message)
{
    struct wf_fabric_push *push = message->push;
    struct wf_fabric_layer *header = &message->header.layer;
    if (push->state != SENDS) { /* it failed meanwhile, or begins anew */
        sent(&message->out.message, WEFT_E_NODE);
        return;
    }
    message->out.message = (struct wf_net_message){
        .header = &message->header,
        .header_bytes = (uint32_t)(sizeof *header + header->count * sizeof header->pieces[0]),
        .pieces = message->pieces,
        .piece_count = header->count};
    message->out.done = sent;
    wf_link_send(push->link, &message->out, push->blocks[0].domain, WF_SEND_DEMAND, UINT64_MAX);
}

/* Those at the front that are ready.  The push may be over after the last. */
static void line_go_on(struct wf_fabric_push *push)
{
    struct message *message;
    while ((message = push->line) && !message->encoding) {
        bool last = !message->next;
        push->line = message->next;
        message_send(message);
        if (last)
            return;
    }
}

static void line_add(struct wf_fabric_push *push, struct message *message)
{
    message->next = NULL;
    if (push->line)
        ((struct message *)push->line_last)->next = message;
    else
        push->line = message;
    push->line_last = message;
}

static void encoded(struct wf_coder_job *job);

static void piece_encode(struct message *message)
{
    uint32_t i = message->piece;
    struct wf_coder_job *room = &message->room;
    uint64_t each = message->pieces[i].iov_len;
    message->job = (struct wf_coder_job){.encode = true,
                                         .plain = message->pieces[i].iov_base,
                                         .plain_bytes = each,
                                         .part_bytes = (uint32_t)each,
                                         .part_count = 1,
                                         .sums = &message->header.layer.pieces[i].sum,
                                         .layout = message->job.layout,
                                         .frame = room->frame + i * FRAME_STRIDE(each),
                                         .done = encoded,
                                         .done_for = message};
    wf_coder_submit(message->fabric->coder, &message->job);
}

static void encoded(struct wf_coder_job *job)
{
    struct message *message = job->done_for;
    struct wf_fabric_push *push = message->push;
    uint32_t i = message->piece++;
    struct wf_peer_node *peer = push->link ? push->link->peer : NULL;
    bool smaller = job->result == WEFT_OK;
    if (peer)
        wf_choice_seen(&peer->choice_out, job->plain_bytes,
                       smaller ? job->frame_bytes : job->plain_bytes);
    if (smaller) {
        message->pieces[i] = (struct iovec){.iov_base = job->frame, .iov_len = job->frame_bytes};
        message->header.layer.pieces[i].bytes = (uint32_t)job->frame_bytes;
    }
    if (message->piece < message->header.layer.count && push->state == SENDS) {
        piece_encode(message);
        return;
    }
    message->encoding = false;
    line_go_on(push);
}

/* Begin to encode it, if that is sooner and there is memory for it; else its sums are taken. */
static void message_make(struct wf_fabric *f, struct wf_fabric_push *push, struct message *message)
{
    struct wf_fabric_layer *header = &message->header.layer;
    uint64_t each = push->blocks[0].bytes / push->layers;
    message->room = (struct wf_coder_job){.frame = NULL};
    message->room.layout.bytes = header->count * FRAME_STRIDE(each);
    message->piece = 0;
    message->encoding = wf_frames_push(f, push->link->peer, each, push->flight + 1) &&
                        wf_frames_layout(f, push->blocks[0].domain, push->blocks[0].bytes,
                                         header->layer * each, each, &message->job.layout) &&
                        wf_coder_memory_take(f->coder, &message->room);
    if (message->encoding)
        piece_encode(message);
    for (uint32_t i = 0; !message->encoding && i < header->count; i++)
        header->pieces[i].sum = wf_sum64(message->pieces[i].iov_base, each);
}

/* One message of it.  False: there is nothing to send now.  The push may be over after it. */
static bool send_one(struct wf_fabric *f, struct wf_fabric_push *push, uint32_t written)
{
    struct wf_pushes *pushes = f->pushes;
    if (push->state != SENDS || push->layer >= written || push->flight_bytes >= FLIGHT_BYTES ||
        push->link->closing)
        return false;
    struct message *message = message_take(f);
    if (!message)
        return false;
    bool any = layer_take(push, message);
    if (push->block == push->count) {
        push->block = 0;
        push->layer++;
    }
    if (!any) {
        message_free(pushes, message);
        return true;
    }
    message->push = push;
    push->flight++;
    push->flight_bytes += message->bytes;
    message_make(f, push, message);
    line_add(push, message);
    line_go_on(push);
    return true;
}

static bool send_some(struct wf_fabric *f, struct wf_fabric_push *push)
{
    /* Acquire: pair with the releases in wf_fabric_push_written() and _end(). */
    bool committed = atomic_load_explicit(&push->end, memory_order_acquire) == COMMITTED;
    uint32_t written = atomic_load_explicit(&push->written, memory_order_acquire);
    return send_one(f, push, committed || written > push->layers ? push->layers : written);
}

/* ------------------------------------------------------------------------------------- its way */

static void tell(struct wf_fabric *f, struct wf_fabric_push *push, uint64_t now_ns)
{
    static _Thread_local union {
        struct wf_fabric_push_said said;
        uint8_t bytes[sizeof(struct wf_fabric_push_said) +
                      WF_FABRIC_PUSH_BLOCKS_MAX * sizeof(struct wf_fabric_event)];
    } m;
    const struct wf_peer_node *peer = wf_peer_find(f, push->to);
    struct wf_link *link = peer ? wf_peer_link(f, peer->number, push->blocks[0].domain) : NULL;
    if (!link && (now_ns > push->since_ns + RELINK_NS ||
                  (push->state == ASKED && !(peer && is_linked(f, peer, NULL)))))
        finish(f, push, WEFT_E_NODE);
    if (!link)
        return;
    m.said = (struct wf_fabric_push_said){
        .head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUSH},
        .request = (uint64_t)f->pushes->generations[push->number] << 32 | push->number,
        .count = push->count,
        .layers = push->layers,
        .profile = push->profile};
    memcpy(m.said.blocks, push->blocks, push->count * sizeof push->blocks[0]);
    if (!wf_link_can_say(link) ||
        !wf_link_say(link, &m, (uint32_t)(sizeof m.said + push->count * sizeof m.said.blocks[0])))
        return; /* another time */
    push->link = link;
    push->state = WAITS;
    push->since_ns = now_ns;
}

/* All is sent: what is to be kept? */
static void end(struct wf_fabric_push *push, uint64_t now_ns)
{
    struct wf_fabric_push_end end = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PUSH_END},
                                     .handle = push->handle};
    memcpy(end.keep, push->keep, sizeof end.keep);
    if (!wf_link_say(push->link, &end, sizeof end))
        return;
    push->state = ENDS;
    push->since_ns = now_ns;
}

static void go_on(struct wf_fabric *f, struct wf_fabric_push *push, uint64_t now_ns)
{
    uint32_t how = atomic_load_explicit(&push->end, memory_order_acquire);
    if (how == GIVEN_UP && push->state != ENDS) {
        fail(f, push, WEFT_MISS);
        return;
    }
    switch ((enum push_state)push->state) {
    case ASKED: tell(f, push, now_ns); return;
    case AGAIN:
        if (push->flight == 0 && now_ns >= push->next_ns)
            tell(f, push, now_ns);
        return;
    case CUT:
    case WAITS:
        if (now_ns > push->since_ns + ROOM_NS)
            fail(f, push, WEFT_E_TIMEOUT);
        return;
    case SENDS:
        if (how == COMMITTED && push->layer == push->layers && push->flight == 0 &&
            !push->link->closing)
            end(push, now_ns);
        return;
    case ENDS:
        if (push->flight == 0 && now_ns > push->since_ns + PUSHED_NS)
            fail(f, push, WEFT_E_TIMEOUT);
        return;
    case FAILED: return;
    }
}

static void take_asked(struct wf_fabric *f)
{
    struct wf_pushes *pushes = f->pushes;
    pthread_mutex_lock(&f->lock);
    struct wf_fabric_push *push = pushes->asked;
    pushes->asked = NULL;
    pushes->asked_end = &pushes->asked;
    pthread_mutex_unlock(&f->lock);
    while (push) {
        struct wf_fabric_push *next = push->next;
        uint32_t number = 0;
        while (number < WF_FABRIC_PUSHES_MAX && pushes->active[number])
            number++;
        if (number < WF_FABRIC_PUSHES_MAX) {
            push->number = number;
            push->since_ns = wf_fabric_now(f);
            pushes->active[number] = push;
        } else {
            f->figures.push_fails++;
            push->done(push, WEFT_E_BUSY);
        }
        push = next;
    }
}

void wf_pushes_run(struct wf_fabric *f, uint64_t now_ns)
{
    struct wf_pushes *pushes = f->pushes;
    take_asked(f);
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++) {
            struct wf_fabric_push *push = pushes->active[(pushes->turn + i) % WF_FABRIC_PUSHES_MAX];
            more |= push && send_some(f, push);
        }
        pushes->turn++;
    }
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++)
        if (pushes->active[i])
            go_on(f, pushes->active[i], now_ns);
}

/* ------------------------------------------------------------------------------------- answers */

bool wf_push_room(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_room *room = header;
    if (bytes != sizeof *room || link->state != WF_LINK_JOINED ||
        (room->status == WEFT_OK) != (room->handle != 0))
        return false;
    struct wf_fabric_push *push = find(link, room->request);
    if (!push || push->state != WAITS) { /* nobody waits for it any more */
        if (room->handle)
            drop(link, room->handle);
        return true;
    }
    uint64_t now_ns = wf_fabric_now(f);
    if (room->status == WEFT_E_BUSY && push->agains > 0 && now_ns < push->lost_ns + ROOM_NS) {
        push->link = NULL;
        again(push, now_ns, AGAIN_NS);
        return true;
    }
    if (room->status != WEFT_OK) {
        /* There already: nothing is to be sent, and nothing to be fetched after a commit. */
        fail(f, push,
             room->status == WEFT_EXISTS ? WEFT_OK
             : room->status == WEFT_FULL ? WEFT_FULL
                                         : WEFT_E_BUSY);
        return true;
    }
    if (room->arrives_mbps)
        link->peer->arrives_mbps = room->arrives_mbps;
    push->handle = room->handle;
    memcpy(push->wanted, room->wanted, sizeof push->wanted);
    push->state = SENDS;
    push->since_ns = now_ns;
    return true;
}

bool wf_push_pushed(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_pushed_said *said = header;
    if (bytes != sizeof *said || link->state != WF_LINK_JOINED)
        return false;
    struct wf_fabric_push *push = find(link, said->request);
    if (!push || (push->state != SENDS && push->state != ENDS))
        return true;
    bool whole = push->state == ENDS && said->status == WEFT_OK;
    push->handle = 0; /* it knows no more of it */
    push->published = push->state == ENDS && said->published <= push->count ? said->published : 0;
    fail(f, push, whole ? WEFT_OK : WEFT_MISS);
    return true;
}

/* ------------------------------------------------------------------------------- begin and end */

enum weft_status wf_pushes_create(struct wf_fabric *f)
{
    struct wf_pushes *pushes = wf_calloc(1, sizeof *pushes, "blocks that go to one node");
    if (!pushes)
        return WEFT_E_NO_MEMORY;
    f->pushes = pushes;
    pushes->asked_end = &pushes->asked;
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++)
        pushes->generations[i] = 1;
    return WEFT_OK;
}

void wf_pushes_end(struct wf_fabric *f)
{
    struct wf_pushes *pushes = f->pushes;
    if (!pushes)
        return;
    take_asked(f);
    for (uint32_t i = 0; i < WF_FABRIC_PUSHES_MAX; i++)
        if (pushes->active[i])
            finish(f, pushes->active[i], WEFT_E_NODE);
    free(pushes);
    f->pushes = NULL;
}
