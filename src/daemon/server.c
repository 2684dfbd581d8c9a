/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner thread's loop: accept, read one message, answer it, housekeeping.
 *
 * Sockets never block it.  A client that does not take its answer (it has at most one outstanding,
 * and every answer fits a socket buffer) is cut off; one that sends nonsense gets a sentence and is
 * cut off.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/size.h"
#include "daemon/below.h"
#include "daemon/described.h"
#include "daemon/engines.h"
#include "daemon/fabric.h"
#include "daemon/gateway.h"
#include "daemon/node.h"
#include "daemon/profiles.h"
#include "daemon/push.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define TICK_MS 100
#define RECLAIM_RETRY_MS 5
#define STRANGER_NS 10000000000u /* a connection that says no HELLO is closed after 10 s */

/* What an epoll event is about: small numbers for our own descriptors, clients from FIRST_CLIENT.
 */
enum source {
    LISTENER,
    SIGNALS,
    TIMER,
    WORKERS,
    HTTP,
    FABRIC,
    PUSHES,
    TIER,
    FIRST_CLIENT = TIER + WF_TIERS_MAX
};

static enum weft_status watch(struct wf_node *node, int fd, uint64_t source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = source};
    if (WF_FAILS("epoll_ctl") ? (errno = ENOSPC, true)
                              : epoll_ctl(node->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        return wf_fail(WEFT_E_SYSTEM, "epoll_ctl: %s", strerror(errno));
    return WEFT_OK;
}

enum weft_status wf_server_start(struct wf_node *node, int listener, int lock)
{
    enum weft_status status = WEFT_OK;
    node->listener = listener;
    node->lock = lock;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    node->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    node->epoll = WF_FAILS("epoll_create1") ? (errno = EMFILE, -1) : epoll_create1(EPOLL_CLOEXEC);
    node->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    node->timer = WF_FAILS("timerfd_create")
                      ? (errno = EMFILE, -1)
                      : timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct itimerspec tick = {.it_interval.tv_nsec = TICK_MS * 1000000,
                              .it_value.tv_nsec = TICK_MS * 1000000};
    if (node->epoll < 0 || node->signals < 0 || node->timer < 0 ||
        timerfd_settime(node->timer, 0, &tick, NULL) != 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot set up the owner's loop: %s; raise the open-file limit",
                       strerror(errno));
    status = watch(node, node->listener, LISTENER);
    if (status == WEFT_OK)
        status = watch(node, node->signals, SIGNALS);
    if (status == WEFT_OK)
        status = watch(node, node->timer, TIMER);
    if (status == WEFT_OK)
        status = watch(node, wf_workers_fd(node->workers), WORKERS);
    if (status == WEFT_OK && wf_telemetry_fd(node) >= 0)
        status = watch(node, wf_telemetry_fd(node), HTTP);
    if (status == WEFT_OK && wf_node_fabric_fd(node) >= 0)
        status = watch(node, wf_node_fabric_fd(node), FABRIC);
    if (status == WEFT_OK && wf_node_pushes_fd(node) >= 0)
        status = watch(node, wf_node_pushes_fd(node), PUSHES);
    for (uint32_t i = 0; status == WEFT_OK && i < node->config.lower_count; i++)
        status = watch(node, wf_below_fd(node->below, i), TIER + i);
    return status;
}

/* ------------------------------------------------------------------------------------- clients */

void wf_client_close(struct wf_client *client, const char *why)
{
    struct wf_node *node = client->node;
    if (client->fd < 0)
        return;
    assert(!client->paused);
    wf_debug("server", "client %u (pid %u) closed: %s", client->id, client->peer.pid, why);
    struct wf_domain *domain = client->domain;
    if (node->reclaim.client == client->id)
        node->reclaim.client = 0;
    if (domain) {
        wf_node_touches_drain(node, domain);
        wf_use_add(&domain->use, client);
        if (client->reserved.count)
            wf_telemetry_event(node, domain, "client_gone",
                               "pid %u left with %u reserved blocks, which were given back",
                               client->peer.pid, client->reserved.count);
        wf_sessions_drop(client);
        wf_push_client_gone(client);
        wf_regions_drop(client);
    }
    /* seq_cst: a client that is alive after all, but was cut off, sees this after it took a pin,
     * and drops the pin; see weft_pin(). */
    if (domain)
        atomic_store_explicit(&client->pins.header->closed, 1, memory_order_seq_cst);
    close(client->fd);
    client->fd = -1; /* from here on its pins count no more */
    WF_CRASH("server.client_gone");
    if (domain) {
        wf_store_abort_all(&domain->store, &client->reserved);
        wf_store_bury(&domain->store);
        domain->clients--;
    }
    free(client->parked);
    client->parked = NULL;
    wf_segment_destroy(&client->pins_segment);
    if (domain && client->staging.bytes) { /* without a domain there is none */
        domain->staging_bytes -= client->staging.bytes;
        wf_node_budget_give(node, client->staging.bytes);
    }
    wf_segment_destroy(&client->staging);
    client->domain = NULL;
    node->client_count--;
    wf_clients_unpark(node);
}

void wf_client_pause(struct wf_client *client)
{
    client->paused = true;
    epoll_ctl(client->node->epoll, EPOLL_CTL_DEL, client->fd, NULL);
}

void wf_client_resume(struct wf_client *client)
{
    client->paused = false;
    if (client->fd >= 0 &&
        watch(client->node, client->fd, FIRST_CLIENT + client->id - 1) != WEFT_OK)
        wf_client_close(client, wf_last_error());
}

bool wf_client_park(struct wf_client *client, const struct wf_message *message, uint64_t wait_ns)
{
    uint64_t now_ns = wf_now_ns();
    if (client->parked_until_ns && now_ns >= client->parked_until_ns)
        return false;
    assert(!client->parked && !client->paused);
    client->parked = wf_calloc(1, message->bytes, "a request that waits");
    if (!client->parked)
        return false;
    memcpy(client->parked, message, message->bytes);
    if (!client->parked_until_ns)
        client->parked_until_ns = now_ns + wait_ns;
    wf_client_pause(client);
    return true;
}

void wf_clients_unpark(struct wf_node *node)
{
    node->unpark = true; /* by the loop, when nothing else is being handled */
}

/* Handle again what waited, when something came free or its time is over. */
static void unpark(struct wf_node *node)
{
    uint64_t now_ns = wf_now_ns();
    bool all = node->unpark;
    node->unpark = false;
    for (uint32_t i = 0; i < node->config.clients_max; i++) {
        struct wf_client *client = &node->clients[i];
        struct wf_message *message = client->parked;
        if (client->fd < 0 || !message || (!all && now_ns < client->parked_until_ns))
            continue;
        client->parked = NULL;
        wf_client_resume(client);
        if (client->fd >= 0)
            wf_request(client, message);
        if (!client->parked)
            client->parked_until_ns = 0;
        free(message);
    }
    if (all && node->below) /* who waits comes first */
        wf_rests_run(node->below);
}

void wf_answer(struct wf_client *client, const struct wf_message *to, enum weft_status status,
               size_t bytes, const int *fds, size_t fd_count)
{
    struct wf_message *message = (struct wf_message *)(void *)client->node->answer;
    *message = (struct wf_message){
        .magic = WF_CONTROL_MAGIC,
        .op = to->op,
        .version = WF_CONTROL_VERSION,
        .bytes = (uint32_t)bytes,
        .status = status,
        .sequence = to->sequence,
    };
    if (client->fd >= 0 && wf_socket_send(client->fd, message, bytes, fds, fd_count) != WEFT_OK)
        shutdown(client->fd, SHUT_RDWR); /* its end is read, and dealt with, in the loop */
}

void wf_answer_failure(struct wf_client *client, const struct wf_message *to,
                       enum weft_status status)
{
    struct wf_text_answer *answer = (struct wf_text_answer *)(void *)client->node->answer;
    size_t length = strnlen(wf_last_error(), WF_ERROR_MAX);
    memcpy(answer->text, wf_last_error(), length);
    wf_answer(client, to, status, sizeof *answer + length, NULL, 0);
}

static void refuse(struct wf_node *node, int fd, enum weft_status status)
{
    struct wf_client stranger = {.node = node, .fd = fd};
    struct wf_message to = {.op = WF_OP_HELLO};
    wf_answer_failure(&stranger, &to, status);
    close(fd);
}

/* No descriptor is left to accept with, and as long as someone knocks the loop would find no rest:
 * the spare one lets us take the call and end it. */
static void turn_away(struct wf_node *node)
{
    if (node->spare >= 0)
        close(node->spare);
    int fd = accept4(node->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        refuse(node, fd,
               wf_fail(WEFT_E_LIMIT, "the node has no file descriptor left; close some clients or "
                                     "regions, or raise its open-file limit"));
    node->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_client(struct wf_node *node)
{
    int fd = WF_FAILS("accept4")
                 ? (errno = EMFILE, -1)
                 : accept4(node->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE)
            turn_away(node);
        return;
    }
    uint32_t place = 0;
    while (place < node->config.clients_max && node->clients[place].fd >= 0)
        place++;
    if (node->draining || place == node->config.clients_max) {
        refuse(node, fd,
               node->draining
                   ? wf_fail(WEFT_E_NODE, "the node is stopping; try again when it is back")
                   : wf_fail(WEFT_E_LIMIT,
                             "%u clients are connected, which is all that limits.clients "
                             "allows; close some or raise it",
                             node->client_count));
        return;
    }
    struct wf_client *client = &node->clients[place];
    *client = (struct wf_client){
        .node = node,
        .fd = fd,
        .id = place + 1,
        .pins_segment.fd = -1,
        .staging.fd = -1,
        .reserved.head = WF_SLOT_NONE,
        .connected_ns = wf_now_ns(),
    };
    node->client_count++;
    if (wf_socket_peer(fd, &client->peer) != WEFT_OK ||
        watch(node, fd, FIRST_CLIENT + place) != WEFT_OK)
        wf_client_close(client, wf_last_error());
}

static void read_client(struct wf_node *node, struct wf_client *client)
{
    size_t bytes = 0;
    if (client->fd < 0 || client->paused)
        return;
    enum weft_status status = wf_socket_receive(client->fd, node->message, sizeof node->message,
                                                &bytes, NULL, NULL);
    if (status == WEFT_PENDING)
        return;
    const struct wf_message *message = (const struct wf_message *)(const void *)node->message;
    if (status == WEFT_OK) {
        if (bytes < sizeof *message || message->magic != WF_CONTROL_MAGIC ||
            message->bytes != bytes)
            status = wf_fail(WEFT_E_PROTOCOL, "a message of %zu bytes without a valid header",
                             bytes);
        else if (message->version != WF_CONTROL_VERSION)
            status = wf_fail(WEFT_E_PROTOCOL,
                             "the client speaks protocol version %u, this node %u; use the "
                             "libweft that came with weftd",
                             message->version, WF_CONTROL_VERSION);
        if (status == WEFT_OK) {
            wf_request(client, message);
            return;
        }
    }
    if (status == WEFT_E_PROTOCOL) {
        wf_telemetry_op(node, client->domain, 0, status, 0);
        wf_warn("server", "client %u (pid %u): %s", client->id, client->peer.pid, wf_last_error());
        struct wf_message to = {.op = 0};
        wf_answer_failure(client, &to, status);
    }
    wf_client_close(client, wf_last_error());
}

/* ---------------------------------------------------------------------------------------- loop */

static void take_signal(struct wf_node *node)
{
    struct signalfd_siginfo info;
    if (read(node->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    if (node->draining) {
        node->stopping = node->hurried = true; /* asked twice: now */
        return;
    }
    wf_info("server", "signal %u: draining for up to %u ms", info.ssi_signo, node->config.drain_ms);
    node->draining = true;
    wf_gateway_drain(node);
    node->drain_until_ns = wf_now_ns() + (uint64_t)node->config.drain_ms * 1000000u;
}

/* Drained when nobody is in the middle of a put, and what is only in DRAM is below, so that the
 * next start finds it.  The one does not wait for the other: a client that is stuck costs nobody
 * else what was put. */
static bool drained(struct wf_node *node)
{
    if (wf_now_ns() >= node->drain_until_ns)
        return true;
    bool settled = !node->below || wf_below_settled(node->below);
    for (uint32_t i = 0; i < node->config.clients_max; i++)
        if (node->clients[i].fd >= 0 &&
            (node->clients[i].paused || node->clients[i].reserved.count))
            return false;
    return settled;
}

static void tick(struct wf_node *node)
{
    uint64_t expired;
    ssize_t rc = read(node->timer, &expired, sizeof expired);
    (void)rc;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        wf_node_touches_drain(node, &node->domains[i]);
        wf_store_bury(&node->domains[i].store);
    }
    for (uint32_t i = 0; i < node->config.clients_max; i++) {
        struct wf_client *client = &node->clients[i];
        if (client->fd >= 0 && !client->domain && !client->paused &&
            wf_now_ns() - client->connected_ns > STRANGER_NS)
            wf_client_close(client, "it said no HELLO");
    }
    if (node->below)
        wf_below_tick(node->below);
    wf_profiles_tick(node->profiles);
    wf_node_fabric_tick(node);
    wf_gateway_tick(node);
    wf_described_tick(node->described);
    wf_engines_tick(node);
    wf_sessions_tell(node);
    node->unpark = true; /* nobody says when a pin is dropped */
    unpark(node);
    wf_telemetry_run(node);
    wf_scrub_step(node);
}

static void dispatch(struct wf_node *node, uint64_t source)
{
    switch (source) {
    case LISTENER: accept_client(node); break;
    case SIGNALS: take_signal(node); break;
    case TIMER: tick(node); break;
    case WORKERS: wf_workers_reap(node->workers); break;
    case HTTP: wf_telemetry_run(node); break;
    case FABRIC: wf_node_fabric_run(node); break;
    case PUSHES: wf_node_pushes_run(node); break;
    default:
        if (source < FIRST_CLIENT)
            wf_below_run(node->below, (uint32_t)(source - TIER));
        else
            read_client(node, &node->clients[source - FIRST_CLIENT]);
        break;
    }
}

/* How long may be waited: no longer than until a session is to be looked at. */
static int until_wake(const struct wf_node *node, int wait_ms)
{
    uint64_t next_ns = wf_timers_next(&node->wakes), now_ns = wf_now_ns();
    uint64_t hurry_ns = wf_timers_next(&node->deadlines);
    next_ns = hurry_ns < next_ns ? hurry_ns : next_ns;
    if (next_ns == UINT64_MAX || wait_ms == 0)
        return wait_ms;
    uint64_t ms = next_ns > now_ns ? (next_ns - now_ns) / 1000000 + 1 : 0;
    return ms < (uint64_t)wait_ms ? (int)ms : wait_ms;
}

/* What was not written below when the node stops, and why. */
static void say_unwritten(const struct wf_node *node)
{
    uint64_t bytes, blocks = node->below ? wf_demote_unwritten(node->below, &bytes) : 0;
    char size[16], why[96] = "no tier had room for them, or worked";
    if (!blocks)
        return;
    if (wf_now_ns() >= node->drain_until_ns)
        snprintf(why, sizeof why, "the %u ms of `drain` were over; raise it to have them next time",
                 node->config.drain_ms);
    else if (node->hurried)
        snprintf(why, sizeof why, "a second signal asked for an end at once");
    wf_warn("server", "stopped with %llu block%s (%s) not written below: %s",
            (unsigned long long)blocks, blocks == 1 ? "" : "s",
            wf_size_format(bytes, size, sizeof size), why);
}

enum weft_status wf_server_run(struct wf_node *node)
{
    while (!node->stopping) {
        struct epoll_event events[64];
        int wait_ms = wf_telemetry_wait_ms(node, 1000);
        if (node->reclaim.client)
            wait_ms = node->reclaim.stalled ? RECLAIM_RETRY_MS : 0;
        wait_ms = until_wake(node, wait_ms);
        int count = epoll_wait(node->epoll, events, 64, wait_ms);
        if (count < 0 && errno != EINTR)
            return wf_fail(WEFT_E_SYSTEM, "epoll_wait: %s", strerror(errno));
        for (int i = 0; i < count; i++)
            dispatch(node, events[i].data.u64);
        if (wf_telemetry_wait_ms(node, 1) == 0)
            wf_telemetry_run(node); /* what no event tells of */
        wf_node_reclaim_step(node);
        wf_sessions_wake(node);
        wf_sessions_hurry(node);
        if (node->unpark)
            unpark(node);
        if (node->draining && drained(node))
            node->stopping = true;
    }
    say_unwritten(node);
    return WEFT_OK;
}

void wf_server_stop(struct wf_node *node)
{
    /* Copies that run are finished and answered first: their clients are paused until then. */
    wf_workers_destroy(node->workers);
    node->workers = NULL;
    /* While the memory is there that it reads and writes. */
    node->device_lives_on = !wf_below_destroy(node->below);
    node->below = NULL;
    for (uint32_t i = 0; node->clients && i < node->config.clients_max; i++)
        node->clients[i].paused &= !node->clients[i].parked;
    for (uint32_t i = 0; node->clients && i < node->config.clients_max; i++)
        if (node->clients[i].fd >= 0)
            wf_client_close(&node->clients[i], "the node stops");
    int *all[] = {&node->listener, &node->epoll, &node->signals,
                  &node->timer,    &node->lock,  &node->spare};
    if (node->listener >= 0)
        unlink(node->config.socket);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}
