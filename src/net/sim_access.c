/* SPDX-License-Identifier: Apache-2.0
 *
 * One-sided access: the other host's card does it, and no poll of its net.
 *
 * All of one access is done in the moment in which its last piece is there: the handle is looked up
 * then, so that after withdraw() nothing touches the memory.  A write whose link breaks on the way
 * may have been done in part, as on a real card.
 */
#include <stdlib.h>
#include <string.h>

#include "net/sim_inner.h"

enum weft_status wf_sim_expose(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out)
{
    if (!base || !bytes || !rights || (unsigned)rights > (WF_NET_READ | WF_NET_WRITE))
        return wf_fail(WEFT_E_INVALID, "%zu bytes with rights %u can not be exposed", bytes,
                       (unsigned)rights);
    uint32_t number = 0;
    while (number < net->exposed_count && net->exposed[number].used)
        number++;
    if (number == net->exposed_count) {
        if (number == WF_SIM_EXPOSED_MAX)
            return wf_fail(WEFT_E_LIMIT, "%u ranges are exposed already; withdraw one", number);
        uint32_t count = number ? 2 * number : 8;
        struct wf_sim_exposed *more = wf_realloc(net->exposed, count * sizeof *more,
                                                 "what is exposed");
        if (!more)
            return WEFT_E_NO_MEMORY;
        memset(more + number, 0, (count - number) * sizeof *more);
        net->exposed = more;
        net->exposed_count = count;
    }
    struct wf_sim_exposed *e = &net->exposed[number];
    *e = (struct wf_sim_exposed){base, bytes, rights, e->generation + 1, true};
    *out = (struct wf_net_handle){number, e->generation};
    return WEFT_OK;
}

static struct wf_sim_exposed *exposed(struct wf_net *net, struct wf_net_handle handle)
{
    if (handle.number >= net->exposed_count)
        return NULL;
    struct wf_sim_exposed *e = &net->exposed[handle.number];
    return e->used && e->generation == handle.generation ? e : NULL;
}

static bool same(struct wf_net_handle a, struct wf_net_handle b)
{
    return a.number == b.number && a.generation == b.generation;
}

enum weft_status wf_sim_grant(struct wf_net_link *end, struct wf_net_handle handle)
{
    if (end->state != WF_SIM_UP)
        return wf_fail(WEFT_E_NODE, "the link is not up");
    if (!exposed(end->net, handle))
        return wf_fail(WEFT_E_INVALID, "handle %u is none, any more", handle.number);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < end->grant_count; i++)
        if (exposed(end->net, end->grants[i]) && !same(end->grants[i], handle))
            end->grants[kept++] = end->grants[i];
    end->grant_count = kept;
    if (kept == WF_SIM_GRANTS_MAX)
        return wf_fail(WEFT_E_LIMIT, "the link may use %u handles already", kept);
    struct wf_net_handle *more = wf_realloc(end->grants, (kept + 1) * sizeof *more,
                                            "what a link may use");
    if (!more)
        return WEFT_E_NO_MEMORY;
    more[kept] = handle;
    end->grants = more;
    end->grant_count = kept + 1;
    return WEFT_OK;
}

void wf_sim_withdraw(struct wf_net *net, struct wf_net_handle handle)
{
    struct wf_sim_exposed *e = exposed(net, handle);
    if (e)
        e->used = false;
}

enum weft_status wf_sim_access(struct wf_net_link *end, struct wf_net_access *access)
{
    if (end->state != WF_SIM_UP)
        return wf_fail(WEFT_E_NODE, "the link is not up");
    uint64_t bytes = access->piece_count <= WF_NET_PIECES_MAX
                         ? wf_sim_bytes_of(access->pieces, access->piece_count)
                         : 0;
    if (!bytes || bytes > WF_NET_PAYLOAD_MAX || !access->done)
        return wf_fail(WEFT_E_INVALID, "an access of %u pieces and %llu bytes is wrongly put",
                       access->piece_count, (unsigned long long)bytes);
    if (end->waiting >= end->net->queue_max)
        return WEFT_PENDING;
    struct wf_sim_parcel *parcel = wf_sim_parcel_new(WF_SIM_ACCESS, end, NULL, 0);
    if (!parcel)
        return WEFT_E_NO_MEMORY;
    parcel->access = access;
    parcel->payload_bytes = parcel->left_bytes = access->write ? bytes : 0;
    wf_sim_queue(end, parcel);
    return WEFT_OK;
}

/* Where it goes in the other side's memory; NULL: nowhere. */
static uint8_t *allowed(struct wf_net_link *at, const struct wf_net_access *access, uint64_t bytes)
{
    const struct wf_sim_exposed *e = exposed(at->net, access->handle);
    enum wf_net_rights right = access->write ? WF_NET_WRITE : WF_NET_READ;
    if (!e || !(e->rights & right) || access->offset > e->bytes ||
        bytes > e->bytes - access->offset)
        return NULL;
    for (uint32_t i = 0; i < at->grant_count; i++)
        if (same(at->grants[i], access->handle))
            return e->base + access->offset;
    return NULL;
}

static void carry_out(const struct wf_net_access *access, uint8_t *there, uint64_t bytes)
{
    struct iovec whole = {there, bytes};
    struct wf_sim_cursor far = {.pieces = &whole}, near = {.pieces = access->pieces};
    (void)wf_sim_move(access->write ? &far : &near, access->write ? &near : &far, bytes);
}

void wf_sim_requested(struct wf_net_link *at, struct wf_sim_parcel *request)
{
    if (request->severed || !request->from)
        return;
    const struct wf_net_access *access = request->access;
    uint64_t bytes = wf_sim_bytes_of(access->pieces, access->piece_count);
    uint8_t *there = allowed(at, access, bytes);
    if (there)
        carry_out(access, there, bytes);
    request->severed = true; /* done: no part of it comes any more */
    struct wf_sim_parcel *response = wf_sim_parcel_new(WF_SIM_RESPONSE, at, NULL, 0);
    if (!response) {
        wf_sim_end(at, WEFT_E_NO_MEMORY, "there is no memory for an answer");
        return;
    }
    response->status = there ? WEFT_OK : WEFT_MISS;
    response->request = request;
    request->refs++;
    if (there && !access->write)
        response->payload_bytes = response->left_bytes = bytes;
    wf_sim_queue(at, response);
}

void wf_sim_tear(struct wf_sim_parcel *request)
{
    struct wf_net_link *end = request->from;
    struct wf_sim_wire *wire = wf_sim_wire_of(end);
    struct wf_net_link *at = &wire->end[!end->side];
    struct wf_net_sim_world *world = wire->host[0]->world;
    uint64_t left = request->payload_bytes - request->left_bytes;
    if (!left || at->state != WF_SIM_UP || at->net->dead || wire->lane[end->side].blocked)
        return;
    uint64_t bytes = wf_sim_bytes_of(request->access->pieces, request->access->piece_count);
    uint8_t *there = allowed(at, request->access, bytes);
    uint64_t part = wf_random_below(&world->random, left + 1);
    if (!there || !part)
        return;
    carry_out(request->access, there, part);
    world->stats.torn++;
}
