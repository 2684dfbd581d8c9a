/* SPDX-License-Identifier: Apache-2.0
 *
 * What is exposed over UCX, and reading and writing it.
 *
 * The asker cuts an access into ranges of WF_UCX_ASK_BYTES_MAX and has up to WF_UCX_ASKS of a link
 * asked for at a time.  The owner compares each with its own table when it has arrived, the whole
 * access against the bounds and not the range alone, so that a miss is a miss before any byte has
 * moved; then UCX reads or writes the exposed memory by rendezvous, and the exposure counts that as
 * busy.  Only a withdrawal in the middle of an access makes a miss of one that has moved bytes;
 * what is in the asker's pieces is then of no worth.
 *
 * Withdrawing takes the exposure out of the table, so that no further range gets in, and drives UCX
 * until nothing is busy: at most WF_UCX_ASKS ranges a link, and the links that take longer for them
 * than WF_UCX_WITHDRAW_MS end.  UCX notes what happens meanwhile; nobody is called.
 *
 * The asker's pieces are written by UCX alone, between its answer and `done`.
 */
#include "net/ucx.h"

#include <stdlib.h>
#include <string.h>

#include "sys/clock.h"
#include "sys/memory.h"

/* ------------------------------------------------------------------------------------ exposing */

static struct wf_ucx_exposed *exposed_find(struct wf_net *net, uint32_t number, uint32_t generation)
{
    if (number >= WF_UCX_EXPOSED_MAX)
        return NULL;
    struct wf_ucx_exposed *exposed = &net->exposed[number];
    return exposed->base && exposed->generation == generation ? exposed : NULL;
}

static ucp_mem_h registered(struct wf_net *net, void *base, size_t bytes, unsigned flags)
{
    ucp_mem_h memory = NULL;
    ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS,
        .address = base,
        .length = bytes,
        .flags = flags,
    };
    /* Devices that can not take it are no loss: UCX then registers, or copies, as it sends. */
    if (net->lib->ucp_mem_map(net->context, &params, &memory) != UCS_OK)
        return NULL;
    return memory;
}

void wf_ucx_memory(struct wf_net *net, void *base, size_t bytes)
{
    if (net->memory_count < WF_UCX_MEMORY_MAX && bytes) {
        ucp_mem_h memory = registered(net, base, bytes, UCP_MEM_MAP_NONBLOCK);
        ucp_mem_attr_t attributes = {.field_mask = UCP_MEM_ATTR_FIELD_MEM_TYPE};
        if (!memory)
            return;
        net->memory[net->memory_count++] = memory;
        if (net->lib->ucp_mem_query(memory, &attributes) == UCS_OK &&
            attributes.mem_type != UCS_MEMORY_TYPE_HOST)
            net->device_memory = true;
    }
}

enum weft_status wf_ucx_expose(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out)
{
    uint32_t number = 0, words = (net->link_slots + 63) / 64;
    if (!base || !bytes || !(rights & (WF_NET_READ | WF_NET_WRITE)))
        return wf_fail(WEFT_E_INVALID, "what is exposed has bytes, and is to be read or written");
    while (number < WF_UCX_EXPOSED_MAX && net->exposed[number].base)
        number++;
    if (number == WF_UCX_EXPOSED_MAX)
        return wf_fail(WEFT_E_LIMIT, "a net exposes up to %u pieces of memory; withdraw one",
                       WF_UCX_EXPOSED_MAX);
    struct wf_ucx_exposed *exposed = &net->exposed[number];
    if (!exposed->grants)
        exposed->grants = wf_calloc(words, sizeof *exposed->grants, "who may use exposed memory");
    if (!exposed->grants)
        return WEFT_E_NO_MEMORY;
    memset(exposed->grants, 0, words * sizeof *exposed->grants);
    exposed->base = base;
    exposed->bytes = bytes;
    exposed->rights = rights;
    exposed->generation++;
    exposed->registered = registered(net, base, bytes, 0);
    *out = (struct wf_net_handle){number, exposed->generation};
    return WEFT_OK;
}

enum weft_status wf_ucx_grant(struct wf_net_link *link, struct wf_net_handle handle)
{
    struct wf_ucx_exposed *exposed = exposed_find(link->net, handle.number, handle.generation);
    if (!exposed)
        return wf_fail(WEFT_E_INVALID, "handle %u is not exposed", handle.number);
    if (link->state != WF_UCX_UP)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    exposed->grants[link->number / 64] |= (uint64_t)1 << link->number % 64;
    return WEFT_OK;
}

/* Let UCX finish what it has begun with an exposure, for so long. */
static void settle(struct wf_net *net, const struct wf_ucx_exposed *exposed, uint32_t ms)
{
    uint64_t until = wf_now_ms() + ms;
    while (exposed->busy && wf_now_ms() < until) {
        net->lib->ucp_worker_progress(net->worker);
        for (uint32_t i = 0; net->lingering && i < net->link_slots; i++)
            if (net->links[i] && net->links[i]->drain_from_ms)
                wf_ucx_link_let_go(net->links[i]);
    }
}

void wf_ucx_withdraw(struct wf_net *net, struct wf_net_handle handle)
{
    struct wf_ucx_exposed *exposed = exposed_find(net, handle.number, handle.generation);
    if (!exposed)
        return;
    exposed->generation++; /* nobody finds it; its place is not given away yet */
    settle(net, exposed, WF_UCX_WITHDRAW_MS);
    for (uint32_t i = 0; i < net->link_slots && exposed->busy; i++)
        for (uint32_t j = 0; net->links[i] && j < WF_UCX_SERVES; j++)
            if (net->links[i]->serves[j].waits &&
                net->links[i]->serves[j].exposed == handle.number) {
                wf_ucx_link_fail(net->links[i], WEFT_E_TIMEOUT,
                                 "%s was still at memory that was withdrawn after %u ms",
                                 net->links[i]->peer, WF_UCX_WITHDRAW_MS);
                wf_ucx_link_let_go(net->links[i]);
                break;
            }
    settle(net, exposed, net->options.dead_ms);
    if (exposed->busy)
        wf_error("ucx", "UCX holds on to memory that was withdrawn; handle %u stays unusable",
                 handle.number);
    if (exposed->registered)
        net->lib->ucp_mem_unmap(net->context, exposed->registered);
    exposed->registered = NULL;
    exposed->base = NULL;
}

void wf_ucx_access_fini(struct wf_net *net)
{
    for (uint32_t i = 0; i < WF_UCX_EXPOSED_MAX; i++) {
        if (net->exposed[i].registered)
            net->lib->ucp_mem_unmap(net->context, net->exposed[i].registered);
        free(net->exposed[i].grants);
    }
    while (net->memory_count)
        net->lib->ucp_mem_unmap(net->context, net->memory[--net->memory_count]);
}

/* ------------------------------------------------------------------------------------- serving */

bool wf_ucx_ask_arrived(struct wf_net_link *link, const void *ask, const struct wf_ucx_data *data)
{
    uint32_t i = 0;
    while (i < WF_UCX_SERVES && link->serves[i].used)
        i++;
    struct wf_ucx_serve *serve = &link->serves[i];
    if (i == WF_UCX_SERVES) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s asks for more than %u ranges at a time",
                         link->peer, WF_UCX_ASKS);
        return false;
    }
    serve->link = link;
    serve->used = true;
    serve->started = serve->waits = false;
    memcpy(&serve->ask, ask, sizeof serve->ask);
    serve->data = *data;
    wf_ucx_todo(link);
    return data->data;
}

static void serve_rests(struct wf_ucx_serve *serve)
{
    if (serve->waits)
        serve->link->net->exposed[serve->exposed].busy--;
    serve->waits = false;
}

static void serve_finished(struct wf_ucx_serve *serve)
{
    serve_rests(serve);
    serve->used = false;
}

static void answer_sent(void *request, ucs_status_t status, void *user)
{
    struct wf_ucx_serve *serve = user;
    (void)status;
    serve_finished(serve);
    wf_ucx_request_done(serve->link, request);
}

static void answer(struct wf_ucx_serve *serve, bool miss, uint8_t *from)
{
    struct iovec piece = {from, serve->ask.bytes};
    serve->out.answer = (struct wf_ucx_answer){serve->ask.id, miss};
    if (wf_ucx_put_out(serve->link, &serve->out, WF_UCX_ANSWER, sizeof serve->out.answer, &piece, 1,
                       from ? serve->ask.bytes : 0, answer_sent, serve) != UCS_INPROGRESS)
        serve_finished(serve);
}

static void written(struct wf_ucx_serve *serve, ucs_status_t status, size_t bytes)
{
    serve_rests(serve);
    if (status == UCS_OK && bytes == serve->ask.bytes)
        answer(serve, false, NULL);
    else
        wf_ucx_link_fail(serve->link, WEFT_E_NODE, "what %s wrote was cut off", serve->link->peer);
}

static void write_arrived(void *request, ucs_status_t status, size_t bytes, void *user)
{
    struct wf_ucx_serve *serve = user;
    wf_ucx_request_done(serve->link, request);
    written(serve, status, bytes);
}

static bool allowed(struct wf_net_link *link, const struct wf_ucx_ask *ask,
                    const struct wf_ucx_exposed *exposed)
{
    return exposed && exposed->grants[link->number / 64] >> link->number % 64 & 1 &&
           (exposed->rights & (ask->write ? WF_NET_WRITE : WF_NET_READ)) &&
           ask->whole_bytes <= exposed->bytes &&
           ask->whole_offset <= exposed->bytes - ask->whole_bytes;
}

static void serve_start(struct wf_ucx_serve *serve)
{
    struct wf_net_link *link = serve->link;
    const struct wf_ucx_ask *ask = &serve->ask;
    struct wf_ucx_exposed *exposed = exposed_find(link->net, ask->handle, ask->generation);
    serve->started = true;
    if (ask->write > 1 || !ask->bytes || ask->bytes > WF_UCX_ASK_BYTES_MAX ||
        ask->bytes > ask->whole_bytes || ask->offset < ask->whole_offset ||
        ask->offset - ask->whole_offset > ask->whole_bytes - ask->bytes ||
        serve->data.bytes != (ask->write ? ask->bytes : 0)) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s asks for a range that is none", link->peer);
        return;
    }
    if (!allowed(link, ask, exposed)) {
        wf_ucx_drop(link->net, &serve->data);
        answer(serve, true, NULL);
        return;
    }
    serve->exposed = ask->handle;
    serve->waits = true;
    exposed->busy++;
    if (ask->write) {
        struct iovec piece = {exposed->base + ask->offset, ask->bytes};
        ucs_status_t status = wf_ucx_take_in(link, &serve->data, &piece, 1, write_arrived, serve);
        if (status != UCS_INPROGRESS)
            written(serve, status, ask->bytes);
    } else {
        answer(serve, false, exposed->base + ask->offset);
    }
}

/* -------------------------------------------------------------------------------------- asking */

/* Of wf_net_access.private: */
enum { BYTES, ASKED, OUT, STATUS, PIECE, PIECE_OFFSET };
enum { MISSED = 1, FAILED = 2 }; /* its STATUS */

static void accesses_add(struct wf_ucx_accesses *list, struct wf_net_access *access)
{
    access->next = NULL;
    *list->tail = access;
    list->tail = &access->next;
}

static struct wf_net_access *accesses_take(struct wf_ucx_accesses *list)
{
    struct wf_net_access *access = list->head;
    if (access) {
        list->head = access->next;
        if (!list->head)
            list->tail = &list->head;
    }
    return access;
}

void wf_ucx_access_begin(struct wf_net_link *link)
{
    link->asking.tail = &link->asking.head;
    link->answered.tail = &link->answered.head;
}

static void access_fails(struct wf_net_access *access, struct wf_net_link *link, uint64_t why)
{
    /* Nothing more is asked for.  What has been asked for in part is the first of those that ask.
     */
    if (access->private[ASKED] < access -> private[BYTES])
        accesses_take(&link->asking);
    access->private[ASKED] = access->private[BYTES];
    if (access->private[STATUS] < why)
        access->private[STATUS] = why;
}

static void range_ends(struct wf_ucx_asked *asked)
{
    struct wf_net_link *link = asked->link;
    struct wf_net_access *access = asked->access;
    if (asked->sending || !asked->answered || asked->data.data || asked->receiving)
        return;
    asked->access = NULL;
    if (asked->failed || asked->miss)
        access_fails(access, link, asked->failed ? FAILED : MISSED);
    if (--access->private[OUT] == 0 && access->private[ASKED] == access->private[BYTES])
        accesses_add(&link->answered, access);
    wf_ucx_todo(link);
}

static void ask_sent(void *request, ucs_status_t status, void *user)
{
    struct wf_ucx_asked *asked = user;
    (void)status;
    asked->sending = false;
    range_ends(asked);
    wf_ucx_request_done(asked->link, request);
}

static void read_ended(struct wf_ucx_asked *asked, ucs_status_t status, size_t bytes)
{
    asked->receiving = false;
    asked->failed = status != UCS_OK || bytes != asked->bytes;
    range_ends(asked);
}

static void read_arrived(void *request, ucs_status_t status, size_t bytes, void *user)
{
    struct wf_ucx_asked *asked = user;
    wf_ucx_request_done(asked->link, request);
    read_ended(asked, status, bytes);
}

bool wf_ucx_answer_arrived(struct wf_net_link *link, const void *said,
                           const struct wf_ucx_data *data)
{
    struct wf_ucx_answer told;
    memcpy(&told, said, sizeof told);
    struct wf_ucx_asked *asked = &link->asked[told.id % WF_UCX_ASKS];
    if (!asked->access || asked->id != told.id || asked->answered || told.miss > 1 ||
        data->bytes != (told.miss || asked->access->write ? 0 : asked->bytes)) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s answers what it was not asked", link->peer);
        return false;
    }
    asked->answered = true;
    asked->miss = told.miss;
    asked->data = *data;
    range_ends(asked);
    wf_ucx_todo(link);
    return data->data;
}

/* Up to `bytes` of the access's pieces from where it is; pieces that touch become one. */
static void range_cut(struct wf_net_access *access, struct wf_ucx_asked *asked)
{
    uint64_t left = access->private[BYTES] - access->private[ASKED];
    if (left > WF_UCX_ASK_BYTES_MAX)
        left = WF_UCX_ASK_BYTES_MAX;
    asked->bytes = left;
    asked->piece_count = 0;
    while (left) {
        const struct iovec *piece = &access->pieces[access->private[PIECE]];
        uint64_t at = access->private[PIECE_OFFSET], take = piece->iov_len - at;
        uint8_t *from = (uint8_t *)piece->iov_base + at;
        struct iovec *last = &asked->pieces[asked->piece_count - 1];
        if (take > left)
            take = left;
        if (asked->piece_count && (uint8_t *)last->iov_base + last->iov_len == from)
            last->iov_len += take;
        else if (take)
            asked->pieces[asked->piece_count++] = (struct iovec){from, take};
        left -= take;
        access->private[PIECE_OFFSET] += take;
        if (access->private[PIECE_OFFSET] == piece->iov_len) {
            access->private[PIECE]++;
            access->private[PIECE_OFFSET] = 0;
        }
    }
}

static void range_ask(struct wf_net_link *link, struct wf_net_access *access,
                      struct wf_ucx_asked *asked)
{
    asked->link = link;
    asked->access = access;
    asked->id = link->asks_id++ * WF_UCX_ASKS + (uint32_t)(asked - link->asked);
    asked->answered = asked->receiving = asked->miss = asked->failed = false;
    asked->data.data = NULL;
    range_cut(access, asked);
    asked->out.ask = (struct wf_ucx_ask){
        .handle = access->handle.number,
        .generation = access->handle.generation,
        .whole_offset = access->offset,
        .whole_bytes = access->private[BYTES],
        .offset = access->offset + access->private[ASKED],
        .bytes = asked->bytes,
        .id = asked->id,
        .write = access->write,
    };
    access->private[ASKED] += asked->bytes;
    access->private[OUT]++;
    /* Of the list before UCX has it: what happens from here on finds it asked for. */
    if (access->private[ASKED] == access->private[BYTES])
        accesses_take(&link->asking);
    asked->sending = wf_ucx_put_out(link, &asked->out, WF_UCX_ASK, sizeof asked->out.ask,
                                    access->write ? asked->pieces : NULL,
                                    access->write ? asked->piece_count : 0,
                                    access->write ? asked->bytes : 0, ask_sent,
                                    asked) == UCS_INPROGRESS;
}

static void ask(struct wf_net_link *link)
{
    for (uint32_t i = 0; i < WF_UCX_ASKS && link->asking.head && link->state == WF_UCX_UP; i++)
        if (!link->asked[i].access)
            range_ask(link, link->asking.head, &link->asked[i]);
}

enum weft_status wf_ucx_access(struct wf_net_link *link, struct wf_net_access *access)
{
    uint64_t bytes = 0;
    if (!access->piece_count || access->piece_count > WF_NET_PIECES_MAX)
        return wf_fail(WEFT_E_INVALID, "an access has 1 to %u pieces, not %u", WF_NET_PIECES_MAX,
                       access->piece_count);
    for (uint32_t i = 0; i < access->piece_count; i++)
        bytes += access->pieces[i].iov_len > WF_NET_PAYLOAD_MAX ? WF_NET_PAYLOAD_MAX + 1
                                                                : access->pieces[i].iov_len;
    if (!bytes || bytes > WF_NET_PAYLOAD_MAX)
        return wf_fail(WEFT_E_INVALID, "an access is of 1 byte to 4 GiB; make several of it");
    if (link->state != WF_UCX_UP)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    if (link->accesses >= link->net->options.queue_max)
        return WEFT_PENDING;
    link->accesses++;
    memset(access->private, 0, sizeof access->private);
    access->private[BYTES] = bytes;
    accesses_add(&link->asking, access);
    ask(link);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------ the work */

static void accesses_done(struct wf_net_link *link, enum weft_status lost)
{
    struct wf_net_access *access = link->answered.head, *next;
    link->answered.head = NULL;
    link->answered.tail = &link->answered.head;
    for (; access; access = next) {
        next = access->next;
        link->accesses--;
        access->done(access, access->private[STATUS] == FAILED   ? lost
                             : access->private[STATUS] == MISSED ? WEFT_MISS
                                                                 : WEFT_OK);
    }
}

void wf_ucx_access_work(struct wf_net_link *link)
{
    for (uint32_t i = 0; i < WF_UCX_SERVES && link->state == WF_UCX_UP; i++)
        if (link->serves[i].used && !link->serves[i].started)
            serve_start(&link->serves[i]);
    for (uint32_t i = 0; i < WF_UCX_ASKS && link->state == WF_UCX_UP; i++) {
        struct wf_ucx_asked *asked = &link->asked[i];
        if (!asked->data.data)
            continue;
        asked->receiving = true;
        ucs_status_t status = wf_ucx_take_in(link, &asked->data, asked->pieces, asked->piece_count,
                                             read_arrived, asked);
        if (status != UCS_INPROGRESS)
            read_ended(asked, status, asked->bytes);
    }
    accesses_done(link, WEFT_E_NODE);
    ask(link);
}

void wf_ucx_access_end(struct wf_net_link *link, enum weft_status status)
{
    struct wf_net_access *access;
    for (uint32_t i = 0; i < WF_UCX_SERVES; i++)
        wf_ucx_drop(link->net, &link->serves[i].data);
    for (uint32_t i = 0; i < WF_UCX_ASKS; i++) {
        struct wf_ucx_asked *asked = &link->asked[i];
        wf_ucx_drop(link->net, &asked->data);
        if (!asked->access)
            continue;
        asked->answered = asked->failed = true;
        asked->sending = asked->receiving = false;
        range_ends(asked);
    }
    while ((access = accesses_take(&link->asking))) {
        access->private[STATUS] = FAILED;
        accesses_add(&link->answered, access);
    }
    while (link->answered.head)
        accesses_done(link, status);
    for (uint32_t i = 0; i < WF_UCX_EXPOSED_MAX; i++)
        if (link->net->exposed[i].grants)
            link->net->exposed[i].grants[link->number / 64] &= ~((uint64_t)1 << link->number % 64);
}
