/* SPDX-License-Identifier: Apache-2.0
 *
 * The gateway's threads: listening, lanes, what they do between commands, start and end.
 *
 * Locks: a store's lock (resp_store.h) is the outermost; then the loader's; a lane's guards only
 * what is handed to it.  places_lock is held while a domain's store is opened, and no other with
 * it.
 */
#include "gateway/resp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "gateway/resp_inner.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define EVENTS_MAX 64
#define INBOX_MAX 1024u
#define TICK_MS 100
#define COMMIT_MS 1 /* what is pending is committed after no longer than that */
#define TRIM_MS 2000
#define SWEEP_PLACES 16384u

/* -------------------------------------------------------------------------------------- stores */

static enum weft_status place_open(struct wf_resp *resp, struct wf_resp_place *place)
{
    const struct wf_resp_pool_options options = {.socket = resp->socket,
                                                 .domain = place->name,
                                                 .token = place->token,
                                                 .pool_bytes = resp->options.pool_bytes};
    struct wf_resp_pool *pool = NULL;
    enum weft_status status = wf_resp_pool_create(&options, &pool);
    if (status == WEFT_OK)
        status = wf_resp_store_init(&place->store, pool, resp->options.keys_max,
                                    resp->options.small_bytes, &resp->tally.store);
    if (status != WEFT_OK) {
        wf_resp_pool_destroy(pool);
        return status;
    }
    /* Release: pairs with the acquire in store_of(). */
    __atomic_store_n(&place->pool, pool, __ATOMIC_RELEASE);
    return WEFT_OK;
}

static struct wf_resp_store *store_of(struct wf_resp_place *place)
{
    return __atomic_load_n(&place->pool, __ATOMIC_ACQUIRE) ? &place->store : NULL;
}

struct wf_resp_store *wf_resp_store_of(struct wf_resp *resp, uint32_t place)
{
    struct wf_resp_store *store = store_of(&resp->places[place]);
    if (store)
        return store;
    pthread_mutex_lock(&resp->places_lock);
    if (!store_of(&resp->places[place]) && place_open(resp, &resp->places[place]) != WEFT_OK)
        wf_warn("resp", "domain '%s': %s", resp->places[place].name, wf_last_error());
    store = store_of(&resp->places[place]);
    pthread_mutex_unlock(&resp->places_lock);
    return store;
}

/* --------------------------------------------------------------------------------------- lanes */

void wf_resp_lane_wake(struct wf_resp_lane *lane)
{
    uint64_t one = 1;
    ssize_t rc = write(lane->wake, &one, sizeof one);
    (void)rc;
}

static void refuse(int fd, const char *sentence)
{
    ssize_t rc = send(fd, sentence, strlen(sentence), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)rc;
    close(fd);
}

/* New connections go to the lanes in turn. */
static void accept_all(struct wf_resp_lane *lane)
{
    struct wf_resp *resp = lane->resp;
    for (;;) {
        int fd = accept4(resp->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        uint64_t clients = atomic_load_explicit(&resp->tally.clients, memory_order_relaxed);
        if (clients >= resp->options.clients_max || resp->draining) {
            wf_resp_count(&resp->tally.refused, 1);
            refuse(fd, "-ERR max number of clients reached\r\n");
            continue;
        }
        uint64_t n = atomic_load_explicit(&resp->tally.connections, memory_order_relaxed);
        struct wf_resp_lane *to = &resp->lanes[n % resp->lane_count];
        if (to == lane) {
            if (!wf_resp_conn_create(lane, fd))
                close(fd);
            continue;
        }
        pthread_mutex_lock(&to->lock);
        bool room = to->inbox_count < INBOX_MAX;
        if (room)
            to->inbox[to->inbox_count++] = fd;
        pthread_mutex_unlock(&to->lock);
        if (room)
            wf_resp_lane_wake(to);
        else
            close(fd);
    }
}

static void inbox_take(struct wf_resp_lane *lane)
{
    int fds[INBOX_MAX];
    pthread_mutex_lock(&lane->lock);
    uint32_t count = lane->inbox_count;
    memcpy(fds, lane->inbox, count * sizeof fds[0]);
    lane->inbox_count = 0;
    pthread_mutex_unlock(&lane->lock);
    for (uint32_t i = 0; i < count; i++)
        if (!wf_resp_conn_create(lane, fds[i]))
            close(fds[i]);
}

static bool in_command(const struct wf_resp_conn *conn)
{
    return conn->stream.on || conn->head_bytes || !wf_resp_out_empty(&conn->out);
}

static void timeouts(struct wf_resp_lane *lane)
{
    const struct wf_resp_options *options = &lane->resp->options;
    struct wf_resp_conn *next;
    for (struct wf_resp_conn *conn = lane->conns; conn; conn = next) {
        next = conn->next;
        uint64_t quiet_ms = lane->now_ms - conn->active_ms;
        uint32_t most_ms = in_command(conn) ? options->stall_ms : options->idle_ms;
        if (conn->waiting || !most_ms || quiet_ms <= most_ms)
            continue;
        if (in_command(conn))
            wf_resp_count(&lane->resp->tally.stalled, 1);
        wf_debug("resp", "client %s closed after %llu ms without a byte", conn->peer,
                 (unsigned long long)quiet_ms);
        wf_resp_conn_close(conn);
    }
}

/* What the stores want done by and by; the first lane does it. */
static void stores_tick(struct wf_resp_lane *lane, bool trim)
{
    struct wf_resp *resp = lane->resp;
    uint64_t keys = 0, memory = 0, values = 0;
    for (uint32_t i = 0; i < resp->place_count; i++) {
        struct wf_resp_store *store = store_of(&resp->places[i]);
        if (!store)
            continue;
        pthread_mutex_lock(&store->lock);
        keys += store->entries;
        memory += store->bytes;
        values += store->value_bytes;
        wf_resp_sweep(store, SWEEP_PLACES, lane->unix_ms);
        if (resp->draining)
            wf_resp_pool_close(store->pool);
        else if (trim)
            wf_resp_pool_trim(store->pool, false);
        pthread_mutex_unlock(&store->lock);
    }
    /* Told on, since the owner's thread must not wait for a lock that is held across its answers.
     */
    atomic_store_explicit(&resp->tally.keys, keys, memory_order_relaxed);
    atomic_store_explicit(&resp->tally.memory_bytes, memory, memory_order_relaxed);
    atomic_store_explicit(&resp->tally.value_bytes, values, memory_order_relaxed);
}

/* Does anything wait to be committed?  `commit` has it done. */
static bool stores_pending(struct wf_resp *resp, bool commit)
{
    bool pending = false;
    for (uint32_t i = 0; i < resp->place_count; i++) {
        struct wf_resp_store *store = store_of(&resp->places[i]);
        if (!store)
            continue;
        pthread_mutex_lock(&store->lock);
        if (commit)
            wf_resp_pool_flush(store->pool);
        pending |= wf_resp_pool_pending(store->pool) > 0;
        pthread_mutex_unlock(&store->lock);
    }
    return pending;
}

static void lane_turn(struct wf_resp_lane *lane, struct epoll_event *events, int count)
{
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr == lane->resp) {
            accept_all(lane);
        } else if (events[i].data.ptr == lane) {
            uint64_t woken;
            ssize_t rc = read(lane->wake, &woken, sizeof woken);
            (void)rc;
        } else {
            wf_resp_conn_run(events[i].data.ptr, events[i].events);
        }
    }
    wf_resp_lane_answer(lane);
    /* Only now, since these may end connections that an event was about. */
    inbox_take(lane);
    wf_resp_lane_loaded(lane);
    wf_resp_lane_listed(lane);
}

static void *lane_run(void *context)
{
    struct wf_resp_lane *lane = context;
    struct wf_resp *resp = lane->resp;
    struct epoll_event events[EVENTS_MAX];
    uint64_t ticked_ms = 0, trimmed_ms = 0;
    bool pending = false;
    while (!resp->stopping) {
        int count = epoll_wait(lane->epoll, events, EVENTS_MAX, pending ? COMMIT_MS : TICK_MS);
        lane->now_ms = wf_now_ms();
        lane->unix_ms = (uint64_t)wf_unix_ms();
        lane_turn(lane, events, count > 0 ? count : 0);
        /* Whoever sleeps has nothing pending: it is committed when nobody wants anything else. */
        pending = stores_pending(resp, count == 0);
        if (lane->now_ms - ticked_ms < TICK_MS && !resp->draining)
            continue;
        ticked_ms = lane->now_ms;
        timeouts(lane);
        if (lane->number == 0) {
            bool trim = lane->now_ms - trimmed_ms >= TRIM_MS;
            stores_tick(lane, trim);
            trimmed_ms = trim ? lane->now_ms : trimmed_ms;
        }
    }
    while (lane->conns)
        wf_resp_conn_close(lane->conns);
    return NULL;
}

/* ------------------------------------------------------------------------------ start and stop */

static enum weft_status listen_on(struct wf_resp *resp)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } at = {.any.sa_family = AF_INET};
    const struct wf_resp_options *options = &resp->options;
    if (inet_pton(AF_INET, options->address, &at.v4.sin_addr) == 1) {
        at.v4.sin_port = htons(options->port);
    } else if (inet_pton(AF_INET6, options->address, &at.v6.sin6_addr) == 1) {
        at.v6.sin6_family = AF_INET6;
        at.v6.sin6_port = htons(options->port);
    } else {
        return wf_fail(WEFT_E_INVALID,
                       "resp.listen: '%.64s' is not a numeric address; write it like 127.0.0.1",
                       options->address);
    }
    socklen_t length = at.any.sa_family == AF_INET6 ? sizeof at.v6 : sizeof at.v4;
    int on = 1;
    resp->listener = socket(at.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (resp->listener >= 0)
        setsockopt(resp->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (resp->listener < 0 || bind(resp->listener, &at.any, length) != 0 ||
        listen(resp->listener, 511) != 0 || getsockname(resp->listener, &at.any, &length) != 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot listen on %s port %u: %s; set resp.listen to a free port, or off",
                       options->address, options->port, strerror(errno));
    resp->port = ntohs(at.any.sa_family == AF_INET6 ? at.v6.sin6_port : at.v4.sin_port);
    return WEFT_OK;
}

static enum weft_status lane_init(struct wf_resp *resp, uint32_t number)
{
    struct wf_resp_lane *lane = &resp->lanes[number];
    *lane = (struct wf_resp_lane){.resp = resp, .number = number, .epoll = -1, .wake = -1};
    pthread_mutex_init(&lane->lock, NULL);
    resp->lane_count++;
    lane->now_ms = wf_now_ms();
    lane->unix_ms = (uint64_t)wf_unix_ms();
    lane->buffer = wf_calloc(1, WF_RESP_READ_BYTES, "the RESP gateway");
    lane->inbox = wf_calloc(INBOX_MAX, sizeof *lane->inbox, "the RESP gateway");
    lane->epoll = epoll_create1(EPOLL_CLOEXEC);
    lane->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!lane->buffer || !lane->inbox)
        return WEFT_E_NO_MEMORY;
    struct epoll_event wake = {.events = EPOLLIN, .data.ptr = lane};
    struct epoll_event knock = {.events = EPOLLIN, .data.ptr = resp};
    if (lane->epoll < 0 || lane->wake < 0 ||
        epoll_ctl(lane->epoll, EPOLL_CTL_ADD, lane->wake, &wake) != 0 ||
        (number == 0 && epoll_ctl(lane->epoll, EPOLL_CTL_ADD, resp->listener, &knock) != 0))
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot set up the RESP gateway: %s; raise the open-file limit",
                       strerror(errno));
    return WEFT_OK;
}

static void lane_fini(struct wf_resp_lane *lane)
{
    wf_resp_lists_drop(lane);
    for (uint32_t i = 0; i < lane->inbox_count; i++)
        close(lane->inbox[i]);
    if (lane->epoll >= 0)
        close(lane->epoll);
    if (lane->wake >= 0)
        close(lane->wake);
    free(lane->inbox);
    free(lane->buffer);
    pthread_mutex_destroy(&lane->lock);
}

static void options_take(struct wf_resp *resp, const struct wf_resp_options *options)
{
    resp->options = *options;
    snprintf(resp->address, sizeof resp->address, "%s", options->address);
    snprintf(resp->socket, sizeof resp->socket, "%s", options->socket);
    snprintf(resp->password, sizeof resp->password, "%s", options->password);
    resp->options.address = resp->address;
    resp->options.socket = resp->socket;
    resp->options.password = resp->password;
    for (size_t i = 0; i < options->domain_count && i < WF_RESP_DOMAINS_MAX; i++) {
        struct wf_resp_place *place = &resp->places[resp->place_count];
        snprintf(place->name, sizeof place->name, "%s", options->domains[i].name);
        snprintf(place->token, sizeof place->token, "%s", options->domains[i].token);
        if (strcmp(options->domain, place->name) == 0)
            resp->place_default = resp->place_count;
        resp->place_count++;
    }
    resp->options.domains = NULL;
    resp->options.domain = resp->places[resp->place_default].name;
    if (!resp->options.threads || resp->options.threads > WF_RESP_THREADS_MAX)
        resp->options.threads = 1;
}

enum weft_status wf_resp_start(const struct wf_resp_options *options, struct wf_resp **out)
{
    struct wf_resp *resp = wf_calloc(1, sizeof *resp, "the RESP gateway");
    if (!resp)
        return WEFT_E_NO_MEMORY;
    resp->listener = -1;
    resp->started_ms = wf_now_ms();
    pthread_mutex_init(&resp->places_lock, NULL);
    options_take(resp, options);
    signal(SIGPIPE, SIG_IGN);
    enum weft_status status = listen_on(resp);
    for (uint32_t i = 0; status == WEFT_OK && i < resp->options.threads; i++)
        status = lane_init(resp, i);
    if (status == WEFT_OK)
        status = wf_resp_loader_start(resp);
    for (uint32_t i = 0; status == WEFT_OK && i < resp->lane_count; i++) {
        struct wf_resp_lane *lane = &resp->lanes[i];
        lane->runs = pthread_create(&lane->thread, NULL, lane_run, lane) == 0;
        if (!lane->runs)
            status = wf_fail(WEFT_E_SYSTEM, "no thread can be started for the RESP gateway");
    }
    if (status != WEFT_OK) {
        wf_resp_stop(resp);
        return status;
    }
    *out = resp;
    return WEFT_OK;
}

void wf_resp_drain(struct wf_resp *resp)
{
    resp->draining = true;
    for (uint32_t i = 0; i < resp->lane_count; i++)
        wf_resp_lane_wake(&resp->lanes[i]);
}

void wf_resp_stop(struct wf_resp *resp)
{
    if (!resp)
        return;
    resp->stopping = true;
    for (uint32_t i = 0; i < resp->lane_count; i++) {
        if (resp->lanes[i].wake >= 0)
            wf_resp_lane_wake(&resp->lanes[i]);
        if (resp->lanes[i].runs)
            pthread_join(resp->lanes[i].thread, NULL);
    }
    wf_resp_loader_stop(resp);
    for (uint32_t i = 0; i < resp->lane_count; i++)
        lane_fini(&resp->lanes[i]);
    for (uint32_t i = 0; i < resp->place_count; i++) {
        if (!resp->places[i].pool)
            continue;
        /* First the pool, whose thread may be committing values of the store's still. */
        wf_resp_pool_destroy(resp->places[i].pool);
        wf_resp_store_fini(&resp->places[i].store);
    }
    if (resp->listener >= 0)
        close(resp->listener);
    pthread_mutex_destroy(&resp->places_lock);
    explicit_bzero(resp->password, sizeof resp->password);
    explicit_bzero(resp->places, sizeof resp->places);
    free(resp);
}

uint16_t wf_resp_port(const struct wf_resp *resp)
{
    return resp->port;
}

void wf_resp_figures(struct wf_resp *resp, struct wf_resp_figures *out)
{
    const struct wf_resp_tally *tally = &resp->tally;
#define READ(name) .name = atomic_load_explicit(&tally->name, memory_order_relaxed)
#define READ_STORE(name) .name = atomic_load_explicit(&tally->store.name, memory_order_relaxed)
    *out = (struct wf_resp_figures){READ(clients),       READ(connections), READ(refused),
                                    READ(commands),      READ(gets),        READ(hits),
                                    READ(sets),          READ(dropped),     READ_STORE(evicted),
                                    READ_STORE(expired), READ_STORE(lost),  READ(protocol_errors),
                                    READ(auth_failures), READ(stalled),     READ(bytes_in),
                                    READ(bytes_out),     READ(keys),        READ(memory_bytes),
                                    READ(value_bytes)};
#undef READ
#undef READ_STORE
}
