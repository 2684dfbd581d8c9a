/* SPDX-License-Identifier: Apache-2.0
 *
 * Worlds, their hosts and nets.
 */
#include "net/sim.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/sum.h"
#include "net/sim_inner.h"

/* -------------------------------------------------------------------------------------- worlds */

enum weft_status wf_net_sim_world_create(const struct wf_net_sim_options *options,
                                         struct wf_net_sim_world **out)
{
    struct wf_net_sim_world *world = wf_calloc(1, sizeof *world, "a simulated network");
    if (!world)
        return WEFT_E_NO_MEMORY;
    struct wf_net_sim_options *o = &world->options;
    *o = *options;
    o->latency_ns = o->latency_ns ? o->latency_ns : 10000;
    o->jitter_ns = o->jitter_ns ? o->jitter_ns : o->latency_ns / 5;
    o->bandwidth = o->bandwidth ? o->bandwidth : UINT64_C(12500000000);
    o->piece_bytes = o->piece_bytes ? o->piece_bytes : 256u << 10;
    o->window_bytes = o->window_bytes ? o->window_bytes : 1u << 20;
    world->time = o->time;
    world->random = o->seed;
    world->ready_last = &world->ready_first;
    *out = world;
    return WEFT_OK;
}

void wf_net_sim_world_destroy(struct wf_net_sim_world *world)
{
    if (!world)
        return;
    for (uint32_t i = 0; i < world->host_count; i++) {
        assert(!world->hosts[i]->net && !world->hosts[i]->ends && "a net is still there");
        wf_vtime_clear(world->time, &world->hosts[i]->card);
        free(world->hosts[i]);
    }
    free(world->hosts);
    free(world->by_name);
    free(world->blocked);
    free(world);
}

uint64_t wf_net_sim_digest(const struct wf_net_sim_world *world)
{
    return world->digest;
}

void wf_net_sim_tap(struct wf_net_sim_world *world, const struct wf_net_sim_tap *tap)
{
    world->tap = tap ? *tap : (struct wf_net_sim_tap){NULL, NULL};
}

void wf_net_sim_world_stats(const struct wf_net_sim_world *world, struct wf_net_sim_stats *out)
{
    *out = world->stats;
    out->hosts = world->host_count;
}

/* --------------------------------------------------------------------------------------- hosts */

static uint32_t *name_place(const struct wf_net_sim_world *world, const char *name)
{
    uint32_t mask = world->by_name_count - 1, at = (uint32_t)wf_sum64(name, strlen(name)) & mask;
    while (world->by_name[at] && strcmp(world->hosts[world->by_name[at] - 1]->name, name) != 0)
        at = (at + 1) & mask;
    return &world->by_name[at];
}

/* Room for one more host, in both tables. */
static enum weft_status grow(struct wf_net_sim_world *world)
{
    if (world->host_count < world->host_max)
        return WEFT_OK;
    if (world->host_count >= WF_NET_SIM_HOSTS_MAX)
        return wf_fail(WEFT_E_LIMIT, "a simulated network has %u hosts at most",
                       WF_NET_SIM_HOSTS_MAX);
    uint32_t max = world->host_max ? 2 * world->host_max : 64;
    struct wf_sim_host **hosts = wf_realloc(world->hosts, max * sizeof *hosts, "hosts");
    if (!hosts)
        return WEFT_E_NO_MEMORY;
    world->hosts = hosts;
    uint32_t *by_name = wf_calloc(4 * max, sizeof *by_name, "hosts by name");
    if (!by_name)
        return WEFT_E_NO_MEMORY;
    free(world->by_name);
    world->by_name = by_name;
    world->by_name_count = 4 * max;
    world->host_max = max;
    for (uint32_t i = 0; i < world->host_count; i++)
        *name_place(world, hosts[i]->name) = i + 1;
    return WEFT_OK;
}

enum weft_status wf_sim_host_get(struct wf_net_sim_world *world, const char *name,
                                 struct wf_sim_host **out)
{
    enum weft_status status = grow(world);
    if (status != WEFT_OK)
        return status;
    uint32_t *place = name_place(world, name);
    if (*place) {
        *out = world->hosts[*place - 1];
        return WEFT_OK;
    }
    struct wf_sim_host *host = wf_calloc(1, sizeof *host, "a simulated host");
    if (!host)
        return WEFT_E_NO_MEMORY;
    host->world = world;
    host->number = world->host_count;
    host->bandwidth = world->options.bandwidth;
    host->card_last = &host->card_first;
    host->card.happens = wf_sim_card_happens;
    memcpy(host->name, name, strlen(name) + 1);
    world->hosts[world->host_count++] = host;
    *place = world->host_count;
    *out = host;
    return WEFT_OK;
}

/* ----------------------------------------------------------------------- who wants to be polled */

static void list(struct wf_net *net)
{
    struct wf_net_sim_world *world = net->world;
    if (net->ready)
        return;
    net->ready = true;
    net->ready_next = NULL;
    net->ready_back = world->ready_last;
    *world->ready_last = net;
    world->ready_last = &net->ready_next;
    if (net->event >= 0)
        (void)eventfd_write(net->event, 1);
}

bool wf_sim_has_work(const struct wf_net *net)
{
    return net->ready_first || net->tick_due;
}

void wf_sim_wake(struct wf_net *net)
{
    const struct wf_sim_host *host = net->host;
    if (net->dead || host->paused || net->ready || net->late.place)
        return;
    if (host->slow_ns)
        wf_vtime_at(net->world->time, &net->late,
                    wf_sim_now(net->world) +
                        wf_random_below(&net->world->random, 2 * host->slow_ns));
    else
        list(net);
}

static void turn_comes(struct wf_vtime_event *event)
{
    struct wf_net *net = WF_SIM_OF(struct wf_net, late, event);
    if (!net->dead && !net->host->paused && wf_sim_has_work(net))
        list(net);
}

void wf_sim_ready(struct wf_net_link *end)
{
    struct wf_net *net = end->net;
    if (!end->ready) {
        end->ready = true;
        end->ready_next = NULL;
        *net->ready_last = end;
        net->ready_last = &end->ready_next;
    }
    wf_sim_wake(net);
}

void wf_sim_unlist_net(struct wf_net *net)
{
    struct wf_net_sim_world *world = net->world;
    if (!net->ready)
        return;
    *net->ready_back = net->ready_next;
    if (net->ready_next)
        net->ready_next->ready_back = net->ready_back;
    else
        world->ready_last = net->ready_back;
    net->ready = false;
    uint64_t count;
    if (net->event >= 0)
        (void)eventfd_read(net->event, &count);
}

struct wf_net *wf_net_sim_next(struct wf_net_sim_world *world, void **out_context)
{
    struct wf_net *net = world->ready_first;
    if (!net)
        return NULL;
    wf_sim_unlist_net(net);
    *out_context = net->events.context;
    return net;
}

static void tick(struct wf_vtime_event *event)
{
    struct wf_net *net = WF_SIM_OF(struct wf_net, tick, event);
    net->tick_due = true;
    wf_sim_wake(net);
}

/* ---------------------------------------------------------------------------------------- nets */

static enum weft_status check(const struct wf_net_options *o)
{
    if (!o->world)
        return wf_fail(WEFT_E_INVALID, "a simulated net needs a world to be in");
    if (o->listen && (strncmp(o->listen, "sim:", 4) != 0 || !o->listen[4] ||
                      strlen(o->listen) >= WF_NET_ADDRESS_MAX))
        return wf_fail(WEFT_E_INVALID, "'%s' is no address in simulation; use sim:NAME", o->listen);
    if (o->hello_bytes > WF_NET_HELLO_MAX)
        return wf_fail(WEFT_E_INVALID, "a hello of %u bytes is too long; up to %u may be said",
                       o->hello_bytes, WF_NET_HELLO_MAX);
    if (!o->events.up || !o->events.down || !o->events.begun || !o->events.arrived)
        return wf_fail(WEFT_E_INVALID, "a net needs somebody to tell of its links");
    return WEFT_OK;
}

/* Who it is, in a certificate: the file's name, which is as good as what is in it. */
static void name_of(struct wf_net *net, const struct wf_net_security *security)
{
    if (security->proof != WF_NET_PROOF_TLS || !security->certificate)
        return;
    const char *slash = strrchr(security->certificate, '/');
    const char *name = slash ? slash + 1 : security->certificate;
    size_t length = strcspn(name, ".");
    length = length < sizeof net->name ? length : sizeof net->name - 1;
    memcpy(net->name, name, length);
}

static enum weft_status net_new(const struct wf_net_options *o, struct wf_sim_host *host,
                                struct wf_net **out)
{
    struct wf_net *net = wf_calloc(1, sizeof *net, "a simulated net");
    if (!net)
        return WEFT_E_NO_MEMORY;
    net->ca = wf_strdup(o->security.ca ? o->security.ca : "", "the name of an authority");
    if (!net->ca) {
        free(net);
        return WEFT_E_NO_MEMORY;
    }
    net->host = host;
    net->world = o->world;
    net->events = o->events;
    net->security = o->security;
    net->listens = o->listen != NULL;
    memcpy(net->address, o->listen ? o->listen : "", o->listen ? strlen(o->listen) + 1 : 1);
    name_of(net, &o->security);
    net->links_max = o->links_max ? o->links_max : 1024;
    net->queue_max = o->queue_max ? o->queue_max : 1024;
    net->dead_ms = o->dead_ms ? o->dead_ms : 5000;
    net->connect_ms = o->connect_ms ? o->connect_ms : 5000;
    net->tick_ns = net->dead_ms * UINT64_C(250000);
    net->hello_bytes = o->hello_bytes;
    if (o->hello_bytes)
        memcpy(net->hello, o->hello, o->hello_bytes);
    net->ready_last = &net->ready_first;
    net->tick.happens = tick;
    net->late.happens = turn_comes;
    net->polled_ns = wf_sim_now(o->world);
    net->event = -1;
    *out = net;
    return WEFT_OK;
}

static enum weft_status sim_create(const struct wf_net_options *options, struct wf_net **out)
{
    enum weft_status status = check(options);
    if (status != WEFT_OK)
        return status;
    char name[WF_NET_ADDRESS_MAX];
    if (options->listen)
        memcpy(name, options->listen + 4, strlen(options->listen + 4) + 1);
    else
        (void)snprintf(name, sizeof name, "~%u", options->world->host_count);
    struct wf_sim_host *host;
    status = wf_sim_host_get(options->world, name, &host);
    if (status != WEFT_OK)
        return status;
    if (host->net)
        return wf_fail(WEFT_E_BUSY, "somebody listens at sim:%s already", name);
    struct wf_net *net;
    status = net_new(options, host, &net);
    if (status != WEFT_OK)
        return status;
    host->net = net;
    host->dark = false;
    host->paused = false;
    *out = net;
    return WEFT_OK;
}

static void sim_destroy(struct wf_net *net)
{
    if (!net)
        return;
    struct wf_sim_host *host = net->host;
    assert(!net->polling && "a net is not destroyed from its own callbacks");
    for (struct wf_net_link *end = host->ends, *next; end; end = next) {
        /* What it is linked to itself by goes with it, and may be next. */
        next = end->host_next;
        if (end->net != net)
            continue;
        if (!net->dead && end->state != WF_SIM_ENDING)
            wf_sim_say(wf_sim_wire_of(end), end->side, wf_sim_parcel_new(WF_SIM_BYE, NULL, NULL, 0),
                       0);
        bool both = wf_sim_wire_of(end)->host[0] == wf_sim_wire_of(end)->host[1];
        wf_sim_gone(end, false);
        if (both)
            next = host->ends;
    }
    wf_sim_unlist_net(net);
    wf_vtime_clear(net->world->time, &net->tick);
    wf_vtime_clear(net->world->time, &net->late);
    host->net = NULL;
    if (net->event >= 0)
        close(net->event);
    free(net->exposed);
    free(net->ca);
    free(net);
}

static const char *sim_address(const struct wf_net *net)
{
    return net->address;
}

static void sim_set_user(struct wf_net_link *link, void *user)
{
    link->user = user;
}

static void *sim_user(const struct wf_net_link *link)
{
    return link->user;
}

static const char *sim_peer(const struct wf_net_link *link)
{
    const struct wf_sim_wire *wire = WF_SIM_OF(const struct wf_sim_wire, end, link - link->side);
    return wire->host[!link->side]->name;
}

static enum weft_status sim_send(struct wf_net_link *link, struct wf_net_message *message)
{
    if (link->state != WF_SIM_UP)
        return wf_fail(WEFT_E_NODE, "the link is not up");
    uint64_t bytes = message->piece_count <= WF_NET_PIECES_MAX
                         ? wf_sim_bytes_of(message->pieces, message->piece_count)
                         : UINT64_MAX;
    if (!message->header_bytes || message->header_bytes > WF_NET_HEADER_MAX || !message->header ||
        bytes > WF_NET_PAYLOAD_MAX || !message->sent)
        return wf_fail(WEFT_E_INVALID, "a message of %u bytes and %u pieces is wrongly put",
                       message->header_bytes, message->piece_count);
    if (link->waiting >= link->net->queue_max)
        return WEFT_PENDING;
    struct wf_sim_parcel *parcel = wf_sim_parcel_new(WF_SIM_MESSAGE, link, message->header,
                                                     message->header_bytes);
    if (!parcel)
        return WEFT_E_NO_MEMORY;
    struct wf_net_sim_world *world = link->net->world;
    message->payload_bytes = bytes;
    parcel->message = message;
    parcel->payload_bytes = parcel->left_bytes = bytes;
    parcel->copied = bytes <= world->options.window_bytes && wf_random_below(&world->random, 2);
    parcel->cursor = (struct wf_sim_cursor){.pieces = message->pieces};
    if (!bytes)
        parcel->copied = true;
    wf_sim_queue(link, parcel);
    return WEFT_OK;
}

static void sim_memory(struct wf_net *net, void *base, size_t bytes)
{
    (void)net, (void)base, (void)bytes;
}

static int sim_event(const struct wf_net *net)
{
    if (net->event < 0 && net->world->options.descriptors) {
        struct wf_net *mine = (struct wf_net *)(uintptr_t)net;
        mine->event = eventfd(net->ready || wf_sim_has_work(net), EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return net->event;
}

/* ---------------------------------------------------------------------------------------- poll */

static void look_for_silence(struct wf_net *net)
{
    net->tick_due = false;
    for (struct wf_net_link *end = net->host->ends; end; end = end->host_next)
        if (end->net == net)
            wf_sim_silence(end);
    wf_vtime_at(net->world->time, &net->tick, wf_sim_now(net->world) + net->tick_ns);
}

static void work(struct wf_net *net)
{
    wf_sim_unlist_net(net);
    net->polled_ns = wf_sim_now(net->world);
    net->polling = true;
    if (net->tick_due)
        look_for_silence(net);
    /* Those that become ready meanwhile have their turn at the next poll. */
    struct wf_net_link *last = NULL, *end;
    if (net->ready_first)
        last = WF_SIM_OF(struct wf_net_link, ready_next, net->ready_last);
    while ((end = net->ready_first)) {
        bool was_last = end == last;
        net->ready_first = end->ready_next;
        if (!net->ready_first)
            net->ready_last = &net->ready_first;
        end->ready = false;
        wf_sim_work(end);
        if (was_last)
            break;
    }
    net->polling = false;
    if (wf_sim_has_work(net))
        wf_sim_wake(net);
}

static enum weft_status sim_poll(struct wf_net *net, uint32_t timeout_ms)
{
    assert(!net->polling && "poll is not called from callbacks");
    struct wf_net_sim_world *world = net->world;
    uint64_t until = wf_sim_now(world) + timeout_ms * UINT64_C(1000000);
    while (!net->dead && timeout_ms && (!net->ready || net->host->paused)) {
        if (atomic_exchange_explicit(&net->woken, false, memory_order_acquire))
            return WEFT_OK;
        if (!wf_vtime_step(world->time, until))
            break;
    }
    if (!net->dead && !net->host->paused)
        work(net);
    return WEFT_OK;
}

static void sim_wake(struct wf_net *net)
{
    /* Paired with the exchange in poll, which then sees what was done before. */
    atomic_store_explicit(&net->woken, true, memory_order_release);
}

static void sim_stats(const struct wf_net *net, struct wf_net_stats *out)
{
    *out = net->stats;
}

const struct wf_net_ops wf_net_sim = {
    .name = "sim",
    .one_sided = true,
    .create = sim_create,
    .destroy = sim_destroy,
    .address = sim_address,
    .connect = wf_sim_connect,
    .close = wf_sim_close,
    .set_user = sim_set_user,
    .user = sim_user,
    .peer = sim_peer,
    .send = sim_send,
    .memory = sim_memory,
    .expose = wf_sim_expose,
    .grant = wf_sim_grant,
    .withdraw = wf_sim_withdraw,
    .access = wf_sim_access,
    .event = sim_event,
    .poll = sim_poll,
    .wake = sim_wake,
    .stats = sim_stats,
};
