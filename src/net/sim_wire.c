/* SPDX-License-Identifier: Apache-2.0
 *
 * Cards, and what is on its way.
 *
 * A host's card takes a piece at a time from each of its links in turn.  When one arrives is known
 * when it leaves: after it went through this card, over the distance, and in through the other
 * card, but never before what left on the same lane earlier.  So a message of one piece costs one
 * event.  While a lane is blocked nothing of it arrives; when it is free again, that which waited
 * comes as a sender would have sent it again.
 */
#include <stdlib.h>
#include <string.h>

#include "net/sim_inner.h"

struct wf_sim_parcel *wf_sim_parcel_new(enum wf_sim_kind kind, struct wf_net_link *from,
                                        const void *header, uint32_t header_bytes)
{
    struct wf_sim_parcel *parcel = wf_calloc(1, sizeof *parcel + header_bytes,
                                             "a message in simulation");
    if (!parcel)
        return NULL;
    parcel->refs = 1;
    parcel->kind = (uint8_t)kind;
    parcel->from = from;
    parcel->header_bytes = header_bytes;
    if (header_bytes)
        memcpy(parcel->header, header, header_bytes);
    return parcel;
}

void wf_sim_parcel_put(struct wf_sim_parcel *parcel)
{
    if (--parcel->refs)
        return;
    if (parcel->request)
        wf_sim_parcel_put(parcel->request);
    free(parcel->payload);
    free(parcel);
}

static struct wf_sim_piece *piece_new(struct wf_sim_parcel *parcel)
{
    struct wf_sim_piece *piece = &parcel->only;
    if (parcel->only_taken) {
        piece = wf_calloc(1, sizeof *piece, "a piece of a message in simulation");
        if (!piece)
            return NULL;
    }
    parcel->only_taken = true;
    parcel->refs++;
    piece->parcel = parcel;
    return piece;
}

void wf_sim_piece_free(struct wf_sim_piece *piece)
{
    struct wf_sim_parcel *parcel = piece->parcel;
    if (piece != &parcel->only)
        free(piece);
    wf_sim_parcel_put(parcel);
}

uint64_t wf_sim_bytes_of(const struct iovec *pieces, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].iov_len > UINT64_MAX - bytes)
            return UINT64_MAX; /* more than any payload, and not what it wraps to */
        bytes += pieces[i].iov_len;
    }
    return bytes;
}

uint64_t wf_sim_move(struct wf_sim_cursor *to, struct wf_sim_cursor *from, uint64_t bytes)
{
    uint64_t moved = 0;
    while (moved < bytes) {
        const struct iovec *out = &to->pieces[to->index], *in = &from->pieces[from->index];
        size_t room = out->iov_len - to->offset, there = in->iov_len - from->offset;
        size_t step = room < there ? room : there;
        if (step > bytes - moved)
            step = (size_t)(bytes - moved);
        if (step)
            memcpy((uint8_t *)out->iov_base + to->offset,
                   (const uint8_t *)in->iov_base + from->offset, step);
        moved += step;
        to->offset += step;
        from->offset += step;
        if (to->offset == out->iov_len)
            *to = (struct wf_sim_cursor){to->pieces, to->index + 1, 0};
        if (from->offset == in->iov_len)
            *from = (struct wf_sim_cursor){from->pieces, from->index + 1, 0};
    }
    return moved;
}

/* ------------------------------------------------------------------------------------- lanes */

static bool hears(const struct wf_net_sim_world *world, const struct wf_sim_host *from,
                  const struct wf_sim_host *to)
{
    if (from->group != to->group || from->mute_out || to->mute_in)
        return false;
    for (uint32_t i = 0; i < world->blocked_count; i++)
        if (world->blocked[i].from == from->number && world->blocked[i].to == to->number)
            return false;
    return true;
}

void wf_sim_lane_look(struct wf_sim_wire *wire, uint32_t side)
{
    struct wf_net_sim_world *world = wire->host[0]->world;
    struct wf_sim_lane *lane = &wire->lane[side];
    bool blocked = !hears(world, wire->host[side], wire->host[!side]);
    if (blocked == lane->blocked)
        return;
    uint64_t now = wf_sim_now(world);
    lane->blocked = blocked;
    if (blocked) {
        lane->blocked_ns = now;
        return;
    }
    if (lane->held) {
        /* Senders try again after twice the time each, so up to as long as they have waited. */
        uint64_t waited = now - lane->blocked_ns;
        if (waited > 4 * WF_SIM_RESEND_NS)
            waited = 4 * WF_SIM_RESEND_NS;
        lane->held = false;
        wf_vtime_at(world->time, &lane->arrives, now + wf_random_below(&world->random, waited + 1));
    }
}

static void arrives(struct wf_vtime_event *event)
{
    struct wf_sim_lane *lane = WF_SIM_OF(struct wf_sim_lane, arrives, event);
    uint32_t side = lane->side;
    struct wf_sim_wire *wire = WF_SIM_OF(struct wf_sim_wire, lane, lane - side);
    struct wf_net_sim_world *world = wire->host[0]->world;
    if (lane->blocked) {
        lane->held = true;
        world->stats.held++;
        return;
    }
    uint64_t now = wf_sim_now(world);
    while (lane->first && lane->first->at_ns <= now) {
        struct wf_sim_piece *piece = lane->first;
        lane->first = piece->next;
        if (!lane->first)
            lane->last = &lane->first;
        piece->next = NULL;
        wf_sim_note(world, piece->parcel->kind, wire->number * 2 + side, piece->bytes);
        wf_sim_took(wire, side, piece);
    }
    if (lane->first)
        wf_vtime_at(world->time, &lane->arrives, lane->first->at_ns);
}

/* It arrives at `at_ns`, or when what left before it has. */
static void onto_lane(struct wf_sim_wire *wire, uint32_t side, struct wf_sim_piece *piece,
                      uint64_t at_ns)
{
    struct wf_sim_lane *lane = &wire->lane[side];
    piece->at_ns = at_ns > lane->last_ns ? at_ns : lane->last_ns;
    lane->last_ns = piece->at_ns;
    bool alone = !lane->first;
    *lane->last = piece;
    lane->last = &piece->next;
    if (alone)
        wf_vtime_at(wire->host[0]->world->time, &lane->arrives, piece->at_ns);
}

/* How long it takes from card to card, as it is now. */
static uint64_t distance(struct wf_sim_wire *wire, uint32_t side)
{
    struct wf_net_sim_world *world = wire->host[0]->world;
    const struct wf_sim_host *from = wire->host[side], *to = wire->host[!side];
    uint64_t ns = world->options.latency_ns + from->delay_ns + to->delay_ns;
    ns += wf_random_below(&world->random, world->options.jitter_ns + 1);
    if (wf_sim_chance(world, from->loss_ppm) || wf_sim_chance(world, to->loss_ppm)) {
        /* Most losses are seen by what comes after; some only by the sender's patience. */
        world->stats.lost++;
        ns += wf_random_below(&world->random, 4) ? 3 * ns : WF_SIM_RESEND_NS;
    }
    return ns;
}

void wf_sim_say(struct wf_sim_wire *wire, uint32_t side, struct wf_sim_parcel *parcel,
                uint64_t late_ns)
{
    if (!parcel)
        return; /* no memory for it: it falls silent instead */
    struct wf_sim_piece *piece = piece_new(parcel);
    wf_sim_parcel_put(parcel);
    piece->first = piece->last = true;
    onto_lane(wire, side, piece, wf_sim_now(wire->host[0]->world) + distance(wire, side) + late_ns);
}

void wf_sim_reset(struct wf_sim_wire *wire, uint32_t side, enum weft_status status, const char *why,
                  uint64_t late_ns)
{
    struct wf_sim_parcel *parcel = wf_sim_parcel_new(WF_SIM_RESET, NULL, NULL, 0);
    if (parcel) {
        parcel->status = status;
        parcel->why = why;
    }
    wf_sim_say(wire, side, parcel, late_ns);
}

/* ------------------------------------------------------------------------------------- cards */

/* How much of it goes now: most of what a card takes, and by chance any other part. */
static uint64_t piece_bytes(struct wf_net_sim_world *world, const struct wf_sim_parcel *parcel)
{
    uint64_t bytes = parcel->left_bytes, most = world->options.piece_bytes;
    if (bytes > most)
        bytes = most;
    if (bytes && wf_random_below(&world->random, 8) == 0)
        bytes = wf_random_below(&world->random, bytes + 1);
    return bytes;
}

/* The caller of a message or an access is to be told. */
void wf_sim_over(struct wf_sim_parcel *parcel, enum weft_status status)
{
    struct wf_net_link *end = parcel->from;
    *parcel->own_back = parcel->own_next;
    if (parcel->own_next)
        parcel->own_next->own_back = parcel->own_back;
    parcel->status = status;
    parcel->from = NULL;
    parcel->own_next = NULL;
    *end->over_last = parcel;
    end->over_last = &parcel->own_next;
    wf_sim_ready(end);
}

/* The bytes as they are when they leave. */
static bool copy_payload(struct wf_sim_parcel *parcel)
{
    if (!parcel->copied || parcel->payload || !parcel->payload_bytes)
        return true;
    parcel->payload = wf_calloc(1, parcel->payload_bytes, "a payload in simulation");
    if (!parcel->payload)
        return false;
    struct iovec whole = {parcel->payload, parcel->payload_bytes};
    struct wf_sim_cursor to = {.pieces = &whole}, from = {.pieces = parcel->message->pieces};
    (void)wf_sim_move(&to, &from, parcel->payload_bytes);
    parcel->read = parcel->payload;
    return true;
}

static void queue_pop(struct wf_net_link *end)
{
    struct wf_sim_parcel *parcel = end->queue_first;
    end->queue_first = parcel->queue_next;
    if (!end->queue_first)
        end->queue_last = &end->queue_first;
    parcel->queue_next = NULL;
    if (parcel->kind == WF_SIM_RESPONSE)
        wf_sim_parcel_put(parcel); /* nobody here is told of it */
    else if (parcel->copied)
        wf_sim_over(parcel, WEFT_OK);
}

/* Both cards carry it; when it is there. */
static uint64_t carry(struct wf_sim_wire *wire, uint32_t side, uint64_t bytes)
{
    struct wf_net_sim_world *world = wire->host[0]->world;
    struct wf_sim_host *from = wire->host[side], *to = wire->host[!side];
    uint64_t now = wf_sim_now(world), takes_ns = bytes * 1000000000u / to->bandwidth;
    if (from->out_free_ns < now)
        from->out_free_ns = now;
    from->out_free_ns += bytes * 1000000000u / from->bandwidth;
    uint64_t at = from->out_free_ns + distance(wire, side);
    if (to->in_free_ns + takes_ns > at)
        at = to->in_free_ns + takes_ns;
    to->in_free_ns = at;
    world->stats.pieces++;
    world->stats.bytes += bytes;
    return at;
}

/* A piece of what waits first at this end leaves.  False: the end has nothing more for now. */
static bool leave(struct wf_net_link *end)
{
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_sim_lane *lane = &wire->lane[end->side];
    struct wf_net_sim_world *world = wire->host[0]->world;
    struct wf_sim_parcel *parcel = end->queue_first;
    if (!parcel)
        return false;
    bool first = !parcel->only_taken;
    uint64_t bytes = piece_bytes(world, parcel);
    uint64_t all = bytes + (first ? parcel->header_bytes + WF_SIM_FRAME_BYTES : 0);
    if (lane->unread && lane->unread + all > world->options.window_bytes) {
        lane->starved = true;
        return false;
    }
    struct wf_sim_piece *piece = copy_payload(parcel) ? piece_new(parcel) : NULL;
    if (!piece) {
        wf_sim_end(end, WEFT_E_NO_MEMORY, "there is no memory for what is to be sent");
        return false;
    }
    parcel->left_bytes -= bytes;
    piece->bytes = bytes;
    piece->first = first;
    piece->last = !parcel->left_bytes;
    piece->counted = (uint32_t)all;
    const struct wf_sim_host *from = wire->host[end->side], *to = wire->host[!end->side];
    piece->corrupt = bytes && (wf_sim_chance(world, to->corrupt_ppm) ||
                               wf_sim_chance(world, from->corrupt_ppm));
    lane->unread += all;
    uint64_t at = carry(wire, end->side, all);
    if (piece->last)
        queue_pop(end);
    onto_lane(wire, end->side, piece, at);
    return end->queue_first != NULL;
}

/* What the card has room for leaves; the rest waits until it has sent that. */
static void pump(struct wf_sim_host *host)
{
    struct wf_net_sim_world *world = host->world;
    uint64_t now = wf_sim_now(world);
    while (host->card_first && !host->card.place) {
        if (host->out_free_ns > now + WF_SIM_AHEAD_NS) {
            wf_vtime_at(world->time, &host->card, host->out_free_ns);
            return;
        }
        struct wf_net_link *end = host->card_first;
        host->card_first = end->card_next;
        if (!host->card_first)
            host->card_last = &host->card_first;
        end->card_next = NULL;
        end->queued = false;
        if (leave(end)) {
            end->queued = true;
            *host->card_last = end;
            host->card_last = &end->card_next;
        }
    }
}

void wf_sim_card_happens(struct wf_vtime_event *event)
{
    pump(WF_SIM_OF(struct wf_sim_host, card, event));
}

static void want_card(struct wf_net_link *end)
{
    struct wf_sim_host *host = wf_sim_host_of(end);
    if (end->queued || !end->queue_first || wf_sim_wire_of(end)->lane[end->side].starved)
        return;
    end->queued = true;
    end->card_next = NULL;
    *host->card_last = end;
    host->card_last = &end->card_next;
    pump(host);
}

void wf_sim_queue(struct wf_net_link *end, struct wf_sim_parcel *parcel)
{
    *end->queue_last = parcel;
    end->queue_last = &parcel->queue_next;
    if (parcel->kind != WF_SIM_RESPONSE) {
        parcel->own_back = &end->own;
        parcel->own_next = end->own;
        if (end->own)
            end->own->own_back = &parcel->own_next;
        end->own = parcel;
        end->waiting++;
    }
    want_card(end);
}

void wf_sim_queue_drop(struct wf_net_link *end)
{
    struct wf_sim_host *host = wf_sim_host_of(end);
    while (end->queue_first) {
        struct wf_sim_parcel *parcel = end->queue_first;
        end->queue_first = parcel->queue_next;
        parcel->queue_next = NULL;
        if (parcel->kind == WF_SIM_RESPONSE)
            wf_sim_parcel_put(parcel);
    }
    end->queue_last = &end->queue_first;
    if (!end->queued)
        return;
    struct wf_net_link **at = &host->card_first;
    while (*at != end)
        at = &(*at)->card_next;
    *at = end->card_next;
    if (!*at)
        host->card_last = at;
    end->queued = false;
}

void wf_sim_was_read(struct wf_sim_wire *wire, uint32_t side, uint64_t bytes)
{
    struct wf_sim_lane *lane = &wire->lane[side];
    lane->unread -= bytes;
    if (!lane->starved || lane->unread > wire->host[0]->world->options.window_bytes / 2)
        return;
    lane->starved = false;
    if (wire->end[side].state == WF_SIM_UP)
        want_card(&wire->end[side]);
}

/* ------------------------------------------------------------------------------------- wires */

void wf_sim_wire_init(struct wf_sim_wire *wire, struct wf_sim_host *from, struct wf_sim_host *to)
{
    wire->number = from->world->wires++;
    from->world->stats.wires++;
    wire->host[0] = from;
    wire->host[1] = to;
    for (uint32_t side = 0; side < 2; side++) {
        struct wf_net_link *end = &wire->end[side];
        end->side = (uint8_t)side;
        end->queue_last = &end->queue_first;
        end->over_last = &end->over_first;
        end->inbox_last = &end->inbox_first;
        struct wf_sim_lane *lane = &wire->lane[side];
        lane->side = (uint8_t)side;
        lane->last = &lane->first;
        lane->arrives.happens = arrives;
        end->host_next = wire->host[side]->ends;
        end->host_back = &wire->host[side]->ends;
        if (end->host_next)
            end->host_next->host_back = &end->host_next;
        wire->host[side]->ends = end;
        wf_sim_lane_look(wire, side);
    }
}

void wf_sim_wire_settle(struct wf_sim_wire *wire)
{
    if (wire->end[0].state != WF_SIM_GONE || wire->end[1].state != WF_SIM_GONE)
        return;
    struct wf_net_sim_world *world = wire->host[0]->world;
    for (uint32_t side = 0; side < 2; side++) {
        struct wf_sim_lane *lane = &wire->lane[side];
        wf_vtime_clear(world->time, &lane->arrives);
        while (lane->first) {
            struct wf_sim_piece *piece = lane->first;
            lane->first = piece->next;
            wf_sim_piece_free(piece);
        }
        struct wf_net_link *end = &wire->end[side];
        *end->host_back = end->host_next;
        if (end->host_next)
            end->host_next->host_back = end->host_back;
    }
    wf_vtime_clear(world->time, &wire->timer);
    world->stats.wires--;
    free(wire);
}
