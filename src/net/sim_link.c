/* SPDX-License-Identifier: Apache-2.0
 *
 * Links: they come up, hand over what arrives, fall silent and go down.
 *
 * The connector calls and the acceptor answers, each with its hello; whether both have proved what
 * is asked for is looked up, since both secrets are here.  What the acceptor says after its answer
 * comes after it, so that nobody hears of a link before `up`.  An end that is ENDING says nothing
 * any more; its next poll ends what it has under way, calls `down`, and it is gone.
 *
 * Nets say a word at each poll, and each has itself polled often enough for that.  So what an end
 * has heard last is known from when the other net was polled and since when the lane is blocked: no
 * word has to travel.
 */
#include <stdlib.h>
#include <string.h>

#include "net/sim_inner.h"

static struct wf_net_sim_world *world_of(const struct wf_sim_wire *wire)
{
    return wire->host[0]->world;
}

/* ---------------------------------------------------------------------------------- beginning */

static void too_late(struct wf_vtime_event *event)
{
    struct wf_sim_wire *wire = WF_SIM_OF(struct wf_sim_wire, timer, event);
    if (wire->end[0].state == WF_SIM_CALLING)
        wf_sim_end(&wire->end[0], WEFT_E_TIMEOUT, "nobody answered in time");
}

enum weft_status wf_sim_connect(struct wf_net *net, const char *address, void *user,
                                struct wf_net_link **out)
{
    if (!address || strncmp(address, "sim:", 4) != 0 || !address[4] ||
        strlen(address) >= WF_NET_ADDRESS_MAX)
        return wf_fail(WEFT_E_INVALID, "'%s' is no address in simulation; use sim:NAME",
                       address ? address : "");
    if (net->link_count >= net->links_max)
        return wf_fail(WEFT_E_LIMIT, "there are %u links already; raise links_max",
                       net->link_count);
    struct wf_sim_host *to;
    enum weft_status status = wf_sim_host_get(net->world, address + 4, &to);
    if (status != WEFT_OK)
        return status;
    struct wf_sim_wire *wire = wf_calloc(1, sizeof *wire, "a link in simulation");
    if (!wire)
        return WEFT_E_NO_MEMORY;
    wf_sim_wire_init(wire, net->host, to);
    wire->timer.happens = too_late;
    struct wf_net_link *end = &wire->end[0];
    end->state = WF_SIM_CALLING;
    end->called = end->told = true;
    end->net = net;
    end->user = user;
    net->link_count++;
    wf_vtime_at(net->world->time, &wire->timer,
                wf_sim_now(net->world) + net->connect_ms * UINT64_C(1000000));
    wf_sim_say(wire, 0, wf_sim_parcel_new(WF_SIM_CALL, NULL, net->hello, net->hello_bytes), 0);
    *out = end;
    return WEFT_OK;
}

static bool proved(const struct wf_net *a, const struct wf_net *b)
{
    if (a->security.proof != b->security.proof)
        return false;
    switch (a->security.proof) {
    case WF_NET_PROOF_SECRET:
    case WF_NET_PROOF_TLS_SECRET:
        return !memcmp(a->security.secret, b->security.secret, sizeof a->security.secret);
    case WF_NET_PROOF_TLS: return a->ca && b->ca && !strcmp(a->ca, b->ca);
    default: return true;
    }
}

/* The other side's net, when it is still there to prove anything. */
static struct wf_net *other_net(struct wf_net_link *end)
{
    return wf_sim_wire_of(end)->end[!end->side].net;
}

static bool call_up(struct wf_net_link *end, const struct wf_sim_parcel *parcel)
{
    struct wf_net *net = end->net, *other = other_net(end);
    const char *name = net->security.proof == WF_NET_PROOF_TLS && other ? other->name : "";
    uint64_t words_ns = (other && other->dead_ms < net->dead_ms ? other->dead_ms : net->dead_ms) *
                        UINT64_C(250000);
    end->state = WF_SIM_UP;
    end->told = true;
    end->heard_ns = wf_sim_now(net->world);
    if (words_ns < net->tick_ns || !net->tick.place) {
        net->tick_ns = words_ns < net->tick_ns ? words_ns : net->tick_ns;
        wf_vtime_at(net->world->time, &net->tick, wf_sim_now(net->world) + net->tick_ns);
    }
    net->stats.links++;
    wf_sim_note(net->world, 100, wf_sim_wire_of(end)->number, end->side);
    return net->events.up(net->events.context, end, parcel->header, parcel->header_bytes, name);
}

/* An end that was never told of goes as it came. */
static void refuse(struct wf_net_link *end, enum weft_status status, const char *why)
{
    wf_sim_reset(wf_sim_wire_of(end), end->side, status, why, 0);
    wf_sim_gone(end, false);
}

/* False: the end is gone. */
static bool called(struct wf_net_link *end, const struct wf_sim_parcel *call)
{
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_net *net = end->net, *other = other_net(end);
    if (!other || wire->end[0].state != WF_SIM_CALLING) {
        wf_sim_gone(end, false); /* it hung up before this was heard */
        return false;
    }
    if (!proved(net, other)) {
        net->stats.refused++;
        refuse(end, WEFT_E_DENIED, "the other side does not take what was proved to it");
        return false;
    }
    if (net->link_count > net->links_max) {
        refuse(end, WEFT_E_LIMIT, "the other side has as many links as it may have");
        return false;
    }
    wf_sim_say(wire, 1, wf_sim_parcel_new(WF_SIM_ANSWER, NULL, net->hello, net->hello_bytes), 0);
    if (!call_up(end, call))
        wf_sim_close(end);
    return true;
}

static void answered(struct wf_net_link *end, const struct wf_sim_parcel *answer)
{
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    wf_vtime_clear(world_of(wire)->time, &wire->timer);
    if (!call_up(end, answer))
        wf_sim_close(end);
}

/* ------------------------------------------------------------------------------------- ending */

void wf_sim_end(struct wf_net_link *end, enum weft_status status, const char *why)
{
    if (end->state == WF_SIM_GONE || end->state == WF_SIM_ENDING)
        return;
    end->state = WF_SIM_ENDING;
    end->status = status;
    end->why = why;
    wf_sim_queue_drop(end);
    wf_sim_ready(end);
}

void wf_sim_close(struct wf_net_link *end)
{
    if (end->state == WF_SIM_GONE || end->state == WF_SIM_ENDING)
        return;
    wf_sim_end(end, WEFT_OK, "it was closed");
    wf_sim_say(wf_sim_wire_of(end), end->side, wf_sim_parcel_new(WF_SIM_BYE, NULL, NULL, 0), 0);
}

static void tell(struct wf_net_link *end)
{
    struct wf_net *net = end->net;
    while (end->over_first) {
        struct wf_sim_parcel *parcel = end->over_first;
        end->over_first = parcel->own_next;
        if (!end->over_first)
            end->over_last = &end->over_first;
        end->waiting--;
        wf_sim_note(net->world, 101, wf_sim_wire_of(end)->number, (uint64_t)parcel->status);
        enum weft_status status = parcel->status;
        if (parcel->kind == WF_SIM_ACCESS) {
            struct wf_net_access *access = parcel->access;
            wf_sim_parcel_put(parcel);
            access->done(access, status);
        } else {
            struct wf_net_message *message = parcel->message;
            if (status == WEFT_OK) {
                net->stats.sent++;
                net->stats.sent_bytes += parcel->payload_bytes + parcel->header_bytes;
                net->stats.zero_copy += parcel->payload_bytes && !parcel->copied;
            }
            wf_sim_parcel_put(parcel);
            message->sent(message, status);
        }
    }
}

static void drop_inbox(struct wf_net_link *end)
{
    while (end->inbox_first) {
        struct wf_sim_piece *piece = end->inbox_first;
        end->inbox_first = piece->next;
        wf_sim_piece_free(piece);
    }
    end->inbox_last = &end->inbox_first;
}

static void unlist(struct wf_net_link *end)
{
    struct wf_net *net = end->net;
    if (!end->ready)
        return;
    struct wf_net_link **at = &net->ready_first;
    while (*at != end)
        at = &(*at)->ready_next;
    *at = end->ready_next;
    if (!*at)
        net->ready_last = at;
    end->ready = false;
}

void wf_sim_gone(struct wf_net_link *end, bool tell_down)
{
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_net *net = end->net;
    enum weft_status status = end->status == WEFT_OK ? WEFT_E_NODE : end->status;
    end->state = WF_SIM_ENDING;
    wf_sim_queue_drop(end);
    while (end->own) {
        struct wf_sim_parcel *parcel = end->own;
        if (parcel->kind == WF_SIM_ACCESS && !parcel->severed)
            wf_sim_tear(parcel);
        parcel->severed = true;
        wf_sim_over(parcel, status);
    }
    tell(end);
    if (end->receiving && !end->dropping) {
        end->receiving = false;
        net->events.arrived(net->events.context, end, end->token, status);
    }
    drop_inbox(end);
    unlist(end);
    wf_sim_note(net->world, 102, wire->number, end->side);
    if (tell_down)
        net->events.down(net->events.context, end, end->status, end->why);
    net->link_count--;
    free(end->into);
    free(end->grants);
    end->into = NULL;
    end->grants = NULL;
    end->grant_count = end->into_max = 0;
    end->receiving = false;
    end->net = NULL;
    end->state = WF_SIM_GONE;
    if (end->called)
        wf_vtime_clear(net->world->time, &wire->timer);
    wf_sim_wire_settle(wire);
}

void wf_sim_silence(struct wf_net_link *end)
{
    if (end->state != WF_SIM_UP)
        return;
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_net_sim_world *world = world_of(wire);
    struct wf_net_link *other = &wire->end[!end->side];
    const struct wf_sim_lane *lane = &wire->lane[!end->side];
    uint64_t heard = end->heard_ns, dead_ns = end->net->dead_ms * UINT64_C(1000000);
    if (other->net && !other->net->dead && other->state != WF_SIM_ENDING) {
        uint64_t word = other->net->polled_ns;
        if (lane->blocked && word > lane->blocked_ns)
            word = lane->blocked_ns;
        word += world->options.latency_ns;
        heard = heard > word ? heard : word;
    } else if (other->state == WF_SIM_GONE && !lane->blocked && !wire->lane[end->side].blocked &&
               !wire->host[!end->side]->dark && !lane->first) {
        wf_sim_reset(wire, !end->side, WEFT_E_NODE, "the other side knows nothing of it any more",
                     world->options.latency_ns);
        return;
    }
    if (heard + dead_ns >= wf_sim_now(world))
        return;
    world->stats.silent++;
    wf_sim_end(end, WEFT_E_NODE, "nothing was heard of the other side for too long");
    wf_sim_say(wire, end->side, wf_sim_parcel_new(WF_SIM_BYE, NULL, NULL, 0), 0);
}

/* ------------------------------------------------------------------------------------ arriving */

static void call_arrives(struct wf_sim_wire *wire, struct wf_sim_piece *piece)
{
    struct wf_sim_host *host = wire->host[1];
    struct wf_net_link *end = &wire->end[1];
    if (!host->net || host->net->dead || !host->net->listens) {
        wf_sim_piece_free(piece);
        if (!host->dark)
            wf_sim_reset(wire, 1, WEFT_E_NODE, "nobody listens there", 0);
        return;
    }
    end->net = host->net;
    end->state = WF_SIM_CALLED;
    host->net->link_count++;
    *end->inbox_last = piece;
    end->inbox_last = &piece->next;
    wf_sim_ready(end);
}

/* A piece that left on the lane of `side` is there. */
void wf_sim_took(struct wf_sim_wire *wire, uint32_t side, struct wf_sim_piece *piece)
{
    struct wf_net_link *end = &wire->end[!side];
    struct wf_sim_parcel *parcel = piece->parcel;
    if (parcel->kind == WF_SIM_CALL) {
        call_arrives(wire, piece);
        return;
    }
    if (end->state == WF_SIM_GONE || end->state == WF_SIM_ENDING || end->net->dead) {
        bool answer = parcel->kind != WF_SIM_RESET && parcel->kind != WF_SIM_BYE &&
                      end->state == WF_SIM_GONE && !wire->host[!side]->dark;
        wf_sim_piece_free(piece);
        if (answer && wire->end[side].state != WF_SIM_GONE)
            wf_sim_reset(wire, !side, WEFT_E_NODE, "the other side knows nothing of it any more",
                         0);
        return;
    }
    end->heard_ns = wf_sim_now(world_of(wire));
    switch (parcel->kind) {
    case WF_SIM_RESET: wf_sim_end(end, parcel->status, parcel->why); break;
    case WF_SIM_TAKEN:
        if (parcel->request->from)
            wf_sim_over(parcel->request, WEFT_OK);
        break;
    case WF_SIM_ACCESS:
    case WF_SIM_RESPONSE:
        wf_sim_was_read(wire, side, piece->counted);
        if (piece->last && parcel->kind == WF_SIM_ACCESS)
            wf_sim_requested(end, parcel);
        else if (piece->last && parcel->request->from)
            wf_sim_over(parcel->request, parcel->status);
        break;
    default:
        *end->inbox_last = piece;
        end->inbox_last = &piece->next;
        wf_sim_ready(end);
        return;
    }
    wf_sim_piece_free(piece);
}

/* Where it goes; false: the link ends, for who was asked said nonsense. */
static bool begin_message(struct wf_net_link *end, const struct wf_sim_parcel *parcel)
{
    struct wf_net *net = end->net;
    end->token = NULL;
    uint32_t count = net->events.begun(net->events.context, end, parcel->header,
                                       parcel->header_bytes, parcel->payload_bytes, net->out,
                                       &end->token);
    const struct wf_net_sim_tap *tap = &net->world->tap;
    if (tap->handed) {
        struct wf_sim_wire *wire = wf_sim_wire_of(end);
        tap->handed(tap->context,
                    &(struct wf_net_sim_handed){wire->host[!end->side]->name, net->host->name,
                                                wire->number * 2 + !end->side, parcel->header,
                                                parcel->header_bytes, count,
                                                parcel->payload_bytes});
    }
    if (!parcel->payload_bytes)
        return true;
    end->dropping = count == 0;
    end->receiving = true;
    end->placed = 0;
    if (end->dropping)
        return true;
    if (count > WF_NET_PIECES_MAX || wf_sim_bytes_of(net->out, count) != parcel->payload_bytes)
        return false;
    if (count > end->into_max) {
        struct iovec *more = wf_realloc(end->into, count * sizeof *more, "where a payload goes");
        if (!more)
            return false;
        end->into = more;
        end->into_max = count;
    }
    memcpy(end->into, net->out, count * sizeof *end->into);
    end->place = (struct wf_sim_cursor){.pieces = end->into};
    return true;
}

static void flip_a_bit(struct wf_net_link *end, struct wf_sim_cursor at, uint64_t bytes)
{
    struct wf_net_sim_world *world = end->net->world;
    uint64_t skip = wf_random_below(&world->random, bytes);
    while (skip >= at.pieces[at.index].iov_len - at.offset) {
        skip -= at.pieces[at.index].iov_len - at.offset;
        at = (struct wf_sim_cursor){at.pieces, at.index + 1, 0};
    }
    uint8_t *byte = (uint8_t *)at.pieces[at.index].iov_base + at.offset + skip;
    *byte ^= (uint8_t)(1u << wf_random_below(&world->random, 8));
    world->stats.corrupted++;
}

static void place(struct wf_net_link *end, struct wf_sim_parcel *parcel, uint64_t bytes,
                  bool corrupt)
{
    struct wf_sim_cursor began = end->place;
    struct iovec copy = {parcel->read, bytes};
    struct wf_sim_cursor from = {.pieces = &copy};
    if (end->dropping || !bytes)
        return;
    (void)wf_sim_move(&end->place, parcel->copied ? &from : &parcel->cursor, bytes);
    if (corrupt)
        flip_a_bit(end, began, bytes);
}

static void message_arrives(struct wf_net_link *end, const struct wf_sim_piece *piece)
{
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_sim_parcel *parcel = piece->parcel;
    struct wf_net *net = end->net;
    wf_sim_was_read(wire, !end->side, piece->counted);
    if (parcel->severed && !parcel->copied && piece->bytes) {
        wf_sim_end(end, WEFT_E_NODE, "the other side went away while it said something");
        return;
    }
    if (piece->first && !begin_message(end, parcel)) {
        net->stats.nonsense++;
        wf_sim_close(end);
        return;
    }
    if (end->state != WF_SIM_UP)
        return;
    place(end, parcel, piece->bytes, piece->corrupt);
    if (parcel->copied && piece->bytes)
        parcel->read += piece->bytes;
    end->placed += piece->bytes;
    if (!piece->last) {
        if (end->placed && !end->dropping && net->events.progress &&
            wf_random_below(&net->world->random, 2))
            net->events.progress(net->events.context, end, end->token, end->placed);
        return;
    }
    net->stats.received++;
    net->stats.received_bytes += parcel->payload_bytes + parcel->header_bytes;
    if (!parcel->copied && parcel->from) {
        struct wf_sim_parcel *taken = wf_sim_parcel_new(WF_SIM_TAKEN, NULL, NULL, 0);
        if (taken) {
            taken->request = parcel;
            parcel->refs++;
        }
        wf_sim_say(wire, end->side, taken, 0);
    }
    bool announced = end->receiving && !end->dropping;
    end->receiving = false;
    if (announced)
        net->events.arrived(net->events.context, end, end->token, WEFT_OK);
}

void wf_sim_work(struct wf_net_link *end)
{
    tell(end);
    while (end->inbox_first && end->state != WF_SIM_ENDING) {
        struct wf_sim_piece *piece = end->inbox_first;
        end->inbox_first = piece->next;
        if (!end->inbox_first)
            end->inbox_last = &end->inbox_first;
        bool there = true;
        switch (piece->parcel->kind) {
        case WF_SIM_CALL: there = called(end, piece->parcel); break;
        case WF_SIM_ANSWER: answered(end, piece->parcel); break;
        case WF_SIM_MESSAGE: message_arrives(end, piece); break;
        default: wf_sim_end(end, WEFT_E_NODE, "the other side closed it");
        }
        wf_sim_piece_free(piece);
        if (!there)
            return;
    }
    if (end->state == WF_SIM_ENDING)
        wf_sim_gone(end, end->told);
}
