/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks for other nodes.
 *
 * A block that is asked for is held by the host until its bytes have been sent, from where they
 * lie.  Sums are taken at that moment, part by part: what was damaged in memory before is the
 * scrubber's to find, what is damaged behind is the other side's, by these sums.
 */
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "fabric/inner.h"
#include "sys/memory.h"

struct wf_serve {
    struct wf_net_message message; /* first */
    struct wf_serve *next;
    struct wf_fabric *fabric;
    uint32_t number; /* of the node that asked */
    struct wf_fabric_held held;
    uint32_t lent; /* or what is held of what is lent; WF_LENT_NONE */
    struct iovec piece;
    union {
        struct wf_fabric_data data;
        uint64_t words[sizeof(struct wf_fabric_data) / 8 + WF_FABRIC_PARTS_MAX];
    } header;
};

enum weft_status wf_serves_create(struct wf_fabric *f)
{
    f->serves = wf_calloc(WF_SERVES_MAX, sizeof *f->serves, "blocks for other nodes");
    if (!f->serves)
        return WEFT_E_NO_MEMORY;
    return WEFT_OK;
}

/* One that was not used yet costs no memory, so those that were go first. */
static struct wf_serve *serve_take(struct wf_fabric *f)
{
    struct wf_serve *serve = f->serves_free;
    if (serve)
        f->serves_free = serve->next;
    else if (f->serves_used < WF_SERVES_MAX)
        serve = &f->serves[f->serves_used++];
    return serve;
}

static void serve_give(struct wf_fabric *f, struct wf_serve *serve)
{
    serve->next = f->serves_free;
    f->serves_free = serve;
}

void wf_serves_destroy(struct wf_fabric *f)
{
    free(f->serves);
    f->serves = f->serves_free = NULL;
}

static void sent(struct wf_net_message *message, enum weft_status status)
{
    struct wf_serve *serve = (struct wf_serve *)message;
    struct wf_fabric *f = serve->fabric;
    if (status == WEFT_OK) {
        f->figures.serves++;
        f->figures.served_bytes += serve->piece.iov_len;
        f->peers[serve->number].serves++;
        f->peers[serve->number].served_bytes += serve->piece.iov_len;
    }
    if (serve->lent != WF_LENT_NONE)
        wf_lent_let_go(f->lent, serve->lent);
    else
        f->options.host.let_go(f->options.host.context, &serve->held);
    serve_give(f, serve);
}

static bool refuse(struct wf_link *link, const struct wf_fabric_get *get, enum weft_status status)
{
    struct wf_fabric_data data = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_DATA},
                                  .request = get->request,
                                  .status = status};
    link->fabric->figures.serve_misses += status == WEFT_MISS;
    (void)wf_link_say(link, &data, sizeof data); /* who hears nothing asks elsewhere */
    return true;
}

/* Is the range one of a block of so many bytes? */
static bool range_right(const struct wf_fabric_get *get)
{
    if (get->part_bytes == 0 || get->bytes == 0 || get->bytes > WF_NET_PAYLOAD_MAX)
        return false;
    uint64_t parts = (get->bytes + get->part_bytes - 1) / get->part_bytes;
    return parts <= WF_FABRIC_PARTS_MAX && get->part_count >= 1 && get->first_part < parts &&
           get->part_count <= parts - get->first_part;
}

static void sums_take(struct wf_serve *serve, const struct wf_fabric_get *get)
{
    const uint8_t *data = serve->piece.iov_base;
    uint64_t left = serve->piece.iov_len;
    for (uint32_t i = 0; i < get->part_count; i++) {
        uint64_t now = left < get->part_bytes ? left : get->part_bytes;
        serve->header.data.sums[i] = wf_sum64(data, now);
        data += now;
        left -= now;
    }
}

/* In memory that is lent it has its sums already, if its parts are those that are asked for. */
static enum weft_status hold(struct wf_link *link, const struct wf_fabric_get *get,
                             struct wf_serve *serve, const uint64_t **out_sums)
{
    struct wf_fabric *f = link->fabric;
    uint32_t domain = link->ours_of[get->domain];
    struct wf_lent_block lent;
    serve->lent = f->lent ? wf_lent_hold(f->lent, domain, get->key, &lent) : WF_LENT_NONE;
    if (serve->lent == WF_LENT_NONE)
        return f->options.host.hold(f->options.host.context, domain, get->key, get->bytes,
                                    &serve->held);
    if (lent.bytes != get->bytes || lent.part_bytes != get->part_bytes) {
        wf_lent_let_go(f->lent, serve->lent);
        return WEFT_MISS;
    }
    serve->held = (struct wf_fabric_held){.data = lent.data, .bytes = lent.bytes};
    *out_sums = lent.sums;
    return WEFT_OK;
}

bool wf_serve_get(struct wf_link *link, const void *header, uint32_t bytes)
{
    struct wf_fabric *f = link->fabric;
    const struct wf_fabric_get *get = header;
    if (bytes != sizeof *get || link->state != WF_LINK_JOINED || !range_right(get) ||
        get->domain >= WF_FABRIC_DOMAINS_MAX || link->ours_of[get->domain] == UINT32_MAX)
        return false;
    struct wf_serve *serve = serve_take(f);
    if (!serve)
        return refuse(link, get, WEFT_E_BUSY);
    const uint64_t *sums = NULL;
    enum weft_status status = hold(link, get, serve, &sums);
    if (status != WEFT_OK) {
        serve_give(f, serve);
        return refuse(link, get, status == WEFT_MISS ? WEFT_MISS : WEFT_E_BUSY);
    }
    uint64_t from = (uint64_t)get->first_part * get->part_bytes;
    uint64_t to = from + (uint64_t)get->part_count * get->part_bytes;
    to = to < get->bytes ? to : get->bytes;
    serve->fabric = f;
    serve->number = link->peer->number;
    serve->piece = (struct iovec){.iov_base = (uint8_t *)(uintptr_t)serve->held.data + from,
                                  .iov_len = to - from};
    serve->header.data = (struct wf_fabric_data){.head = {.magic = WF_FABRIC_MAGIC,
                                                          .kind = WF_FABRIC_DATA},
                                                 .request = get->request,
                                                 .status = WEFT_OK,
                                                 .part_count = get->part_count};
    if (sums)
        memcpy(serve->header.data.sums, sums + get->first_part, get->part_count * 8ull);
    else
        sums_take(serve, get);
    serve->message = (struct wf_net_message){.header = &serve->header,
                                             .header_bytes = (uint32_t)(sizeof serve->header.data +
                                                                        get->part_count * 8),
                                             .pieces = &serve->piece,
                                             .piece_count = 1,
                                             .sent = sent};
    if (f->net_ops->send(link->net, &serve->message) != WEFT_OK) {
        sent(&serve->message, WEFT_E_BUSY);
        return refuse(link, get, WEFT_E_BUSY);
    }
    return true;
}
