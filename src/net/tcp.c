/* SPDX-License-Identifier: Apache-2.0
 *
 * The tcp transport: TCP and Unix sockets, through io_uring or, where that is not to be had, epoll.
 * tcp_inner.h says how its files hang together.
 *
 * One thread drives a net.  All memory is taken when a net or a link is made; nothing on the way of
 * a message allocates.  A process that dies leaves sockets, which the system closes, and at most a
 * Unix socket's name, which the next to listen there takes over.
 */
#include "net/tcp_inner.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define WARN_AGAIN_MS 3600000u

const struct tcp_engine *wf_tcp_engine_forced;

static struct tcp_net *net_of(const struct wf_net *net)
{
    return (struct tcp_net *)net;
}

static struct tcp_link *link_of(const struct wf_net_link *link)
{
    return (struct tcp_link *)link;
}

/* Once a second; and the same of the same host again, whatever port it comes from, once an hour. */
void wf_tcp_warn(struct tcp_net *net, const char *peer, const char *sentence)
{
    const char *port = strrchr(peer, ':');
    size_t host = port ? (size_t)(port - peer) : strlen(peer);
    bool again = strncmp(net->warned_of, peer, host) == 0 && !net->warned_of[host] &&
                 strncmp(net->warned_why, sentence, sizeof net->warned_why - 1) == 0;
    if (net->now_ms - net->warned_ms < (again ? WARN_AGAIN_MS : 1000) && net->warned_ms)
        return;
    net->warned_ms = net->now_ms;
    snprintf(net->warned_of, sizeof net->warned_of, "%.*s", (int)host, peer);
    snprintf(net->warned_why, sizeof net->warned_why, "%s", sentence);
    wf_warn("net", "refused %s: %s", peer, sentence);
}

/* --------------------------------------------------------------------------------- listening */

/* Whether anybody would see what an unproven listener at this address gives away. */
static bool address_open(const struct wf_net_address *address)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)&address->socket;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)&address->socket;
    if (address->socket.ss_family == AF_INET)
        return ntohl(four->sin_addr.s_addr) >> 24 != 127;
    return address->socket.ss_family == AF_INET6 && !IN6_IS_ADDR_LOOPBACK(&six->sin6_addr);
}

/* A name that a net left behind when it died: nobody answers there. */
static bool unix_abandoned(const struct wf_net_address *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat is;
    const char *path = ((const struct sockaddr_un *)&address->socket)->sun_path;
    bool refused = fd >= 0 && stat(path, &is) == 0 && S_ISSOCK(is.st_mode) &&
                   connect(fd, (const struct sockaddr *)&address->socket, address->length) != 0 &&
                   errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return refused;
}

static enum weft_status listen_open(struct tcp_net *net, int *out_fd)
{
    const struct wf_net_address *address = &net->listen;
    const struct sockaddr *name = (const struct sockaddr *)&address->socket;
    bool local = address->scheme == WF_NET_SCHEME_UNIX;
    const char *path = ((const struct sockaddr_un *)&address->socket)->sun_path;
    int fd = socket(address->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "no socket for %s: %s", net->options.listen, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    bool bound = bind(fd, name, address->length) == 0;
    if (!bound && errno == EADDRINUSE && local && unix_abandoned(address)) {
        unlink(path);
        bound = bind(fd, name, address->length) == 0;
    }
    /* Whoever may write to a Unix socket's name may connect. */
    if (!bound || (local && chmod(path, 0600) != 0) || listen(fd, 1024) != 0) {
        int error = errno;
        close(fd);
        return wf_fail(error == EADDRINUSE ? WEFT_E_BUSY : WEFT_E_SYSTEM,
                       "can not listen at %s: %s; listen at %s (of a node: fabric.listen)",
                       net->options.listen, strerror(error),
                       error == EADDRINUSE      ? "another port"
                       : error == EADDRNOTAVAIL ? "an address that this host has"
                                                : "another address");
    }
    *out_fd = fd;
    return WEFT_OK;
}

static enum weft_status net_listen(struct tcp_net *net)
{
    struct sockaddr_storage got = {0};
    socklen_t length = sizeof got;
    int fd;
    enum weft_status status = wf_net_address_parse(net->options.listen, &net->listen);
    if (status != WEFT_OK)
        return status;
    if (net->listen.scheme != WF_NET_SCHEME_TCP && net->listen.scheme != WF_NET_SCHEME_UNIX)
        return wf_fail(WEFT_E_INVALID, "'%s' is no address of the tcp transport",
                       net->options.listen);
    if (net->options.security.proof == WF_NET_PROOF_NONE && address_open(&net->listen))
        return wf_fail(WEFT_E_DENIED,
                       "%s can be reached from other hosts, and nobody would have to prove "
                       "anything; set a secret or TLS, or listen at 127.0.0.1",
                       net->options.listen);
    if ((status = listen_open(net, &fd)) != WEFT_OK)
        return status;
    status = wf_tcp_stream_create(net, NULL, 0, &net->listener);
    if (status != WEFT_OK) {
        close(fd);
        return status;
    }
    net->listener->fd = fd;
    net->listener->phase = TCP_LISTENS;
    getsockname(fd, (struct sockaddr *)&got, &length);
    wf_net_address_format(net->listen.scheme, &got, length, net->address);
    net->engine->adopt(net->listener);
    wf_tcp_stream_listen(net->listener);
    return WEFT_OK;
}

/* ---------------------------------------------------------------------------- create, destroy */

static void net_destroy(struct wf_net *of)
{
    struct tcp_net *net = net_of(of);
    if (!net)
        return;
    if (net->links)
        wf_tcp_links_destroy(net);
    if (net->engine)
        net->engine->stop(net);
    if (net->address[0] && net->listen.scheme == WF_NET_SCHEME_UNIX)
        unlink(((struct sockaddr_un *)&net->listen.socket)->sun_path);
    wf_tcp_tls_context_free(net->tls);
    if (net->wake_fd >= 0)
        close(net->wake_fd);
    if (net->zeros)
        munmap(net->zeros, TCP_BODY_MAX);
    free(net->scratch);
    free(net->exposed);
    free(net->exposed_links);
    free(net->links);
    explicit_bzero(net, sizeof *net);
    free(net);
}

static enum weft_status options_take(struct tcp_net *net, const struct wf_net_options *options)
{
    struct wf_net_options *mine = &net->options;
    *mine = *options;
    if (options->hello_bytes > WF_NET_HELLO_MAX || options->streams > WF_NET_STREAMS_MAX ||
        options->links_max > TCP_LINKS_MAX || !options->events.up || !options->events.down ||
        !options->events.begun || !options->events.arrived)
        return wf_fail(WEFT_E_INVALID,
                       "a net with a hello of %u bytes, %u streams and %u links; up to %u, %u and "
                       "%u may be, and up, down, begun and arrived must",
                       options->hello_bytes, options->streams, options->links_max, WF_NET_HELLO_MAX,
                       WF_NET_STREAMS_MAX, TCP_LINKS_MAX);
    mine->links_max = options->links_max ? options->links_max : TCP_LINKS_DEFAULT;
    mine->queue_max = options->queue_max ? options->queue_max : TCP_QUEUE_DEFAULT;
    mine->streams = options->streams ? options->streams : 1;
    mine->dead_ms = options->dead_ms ? options->dead_ms : TCP_DEAD_MS_DEFAULT;
    mine->connect_ms = options->connect_ms ? options->connect_ms : TCP_CONNECT_MS_DEFAULT;
    if (options->hello_bytes)
        memcpy(net->hello, options->hello, options->hello_bytes);
    net->self = (struct wf_net_hello_self){
        .proof = options->security.proof,
        .secret = mine->security.secret,
        .transport = {'t', 'c', 'p', 0},
        .streams = (uint8_t)mine->streams,
        .dead_ms = mine->dead_ms,
        .hello = net->hello,
        .hello_bytes = options->hello_bytes,
    };
    return WEFT_OK;
}

static enum weft_status memory_take(struct tcp_net *net)
{
    size_t words = (net->options.links_max + 63) / 64;
    net->links = wf_calloc(net->options.links_max, sizeof(struct tcp_link *), "a net's links");
    net->exposed = wf_calloc(TCP_HANDLES_MAX, sizeof *net->exposed, "a net's handles");
    net->exposed_links = wf_calloc(TCP_HANDLES_MAX * words, 8, "a net's handles");
    net->scratch = wf_calloc(1, TCP_SLICE_BYTES, "a net's scratch");
    if (!net->links || !net->exposed || !net->exposed_links || !net->scratch)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < TCP_HANDLES_MAX; i++)
        net->exposed[i].links = net->exposed_links + i * words;
    net->zeros = mmap(NULL, TCP_BODY_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (net->zeros == MAP_FAILED) {
        net->zeros = NULL;
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a net's zeros");
    }
    net->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (net->wake_fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "no eventfd for a net: %s", strerror(errno));
    return WEFT_OK;
}

static enum weft_status engine_start(struct tcp_net *net)
{
    const struct tcp_engine *engine = wf_tcp_engine_forced ? wf_tcp_engine_forced : &wf_tcp_ring;
    enum weft_status status = engine->start(net);
    if (status == WEFT_E_SYSTEM && !wf_tcp_engine_forced) {
        wf_info("net", "%s; using epoll", wf_last_error());
        engine = &wf_tcp_epoll;
        status = engine->start(net);
    }
    if (status == WEFT_OK)
        net->engine = engine;
    return status;
}

static enum weft_status net_create(const struct wf_net_options *options, struct wf_net **out)
{
    struct tcp_net *net = wf_calloc(1, sizeof *net, "a net");
    if (!net)
        return WEFT_E_NO_MEMORY;
    net->wake_fd = -1;
    net->now_ms = wf_now_ms();
    enum weft_status status = options_take(net, options);
    if (status == WEFT_OK)
        status = memory_take(net);
    if (status == WEFT_OK && options->security.proof >= WF_NET_PROOF_TLS_SECRET)
        status = wf_tcp_tls_context(&options->security, &net->tls);
    if (status == WEFT_OK)
        status = engine_start(net);
    if (status == WEFT_OK && options->listen)
        status = net_listen(net);
    if (status == WEFT_OK)
        *out = (struct wf_net *)net;
    else
        net_destroy((struct wf_net *)net);
    return status;
}

/* ----------------------------------------------------------------------------------- the calls */

static const char *net_address(const struct wf_net *net)
{
    return net_of(net)->address;
}

static enum weft_status net_connect(struct wf_net *of, const char *text, void *user,
                                    struct wf_net_link **out)
{
    struct tcp_net *net = net_of(of);
    struct wf_net_address address;
    struct tcp_link *link;
    enum weft_status status = wf_net_address_parse(text, &address);
    if (status != WEFT_OK)
        return status;
    if (address.scheme != WF_NET_SCHEME_TCP && address.scheme != WF_NET_SCHEME_UNIX)
        return wf_fail(WEFT_E_INVALID, "'%s' is no address of the tcp transport", text);
    net->now_ms = wf_now_ms();
    if ((status = wf_tcp_link_create(net, &link)) != WEFT_OK)
        return status;
    link->user = user;
    link->connector = link->named = true;
    link->address = address;
    snprintf(link->peer, sizeof link->peer, "%s", text);
    status = wf_tcp_link_connect(link);
    if (status != WEFT_OK)
        wf_tcp_link_end(link, status, NULL);
    *out = (struct wf_net_link *)link;
    wf_tcp_leave(net);
    return WEFT_OK;
}

static void link_close(struct wf_net_link *of)
{
    struct tcp_link *link = link_of(of);
    wf_tcp_link_end(link, WEFT_OK, "closed by this side");
    wf_tcp_leave(link->net);
}

static void link_set_user(struct wf_net_link *link, void *user)
{
    link_of(link)->user = user;
}

static void *link_user(const struct wf_net_link *link)
{
    return link_of(link)->user;
}

static const char *link_peer(const struct wf_net_link *link)
{
    return link_of(link)->peer;
}

static enum weft_status link_send(struct wf_net_link *of, struct wf_net_message *message)
{
    struct tcp_link *link = link_of(of);
    enum weft_status status = wf_tcp_send(link, message);
    if (status == WEFT_OK)
        wf_tcp_leave(link->net);
    return status;
}

static enum weft_status link_access(struct wf_net_link *of, struct wf_net_access *access)
{
    struct tcp_link *link = link_of(of);
    enum weft_status status = wf_tcp_access(link, access);
    if (status == WEFT_OK)
        wf_tcp_leave(link->net);
    return status;
}

/* The kernel reads and writes it where it lies. */
static void net_memory(struct wf_net *net, void *base, size_t bytes)
{
    (void)net, (void)base, (void)bytes;
}

static int net_event(const struct wf_net *of)
{
    struct tcp_net *net = net_of(of);
    return net->engine->event(net);
}

/* How long until wf_tcp_tick() has something to look at. */
static uint32_t tick_wait(const struct tcp_net *net, uint32_t timeout_ms)
{
    if (!net->link_count && !net->handshake_count && !(net->listener && !net->listener->watching))
        return timeout_ms;
    uint64_t wait = net->tick_ms > net->now_ms ? net->tick_ms - net->now_ms : 0;
    return wait < timeout_ms ? (uint32_t)wait : timeout_ms;
}

static enum weft_status net_poll(struct wf_net *of, uint32_t timeout_ms)
{
    struct tcp_net *net = net_of(of);
    if (net->failed)
        return wf_fail(WEFT_E_SYSTEM, "this net has failed before; make another");
    net->polling = true;
    net->now_ms = wf_now_ms();
    uint64_t until = net->now_ms + timeout_ms;
    enum weft_status status;
    net->completed = false;
    do {
        uint64_t asked = net->now_ms;
        wf_tcp_attend(net);
        uint32_t left = until > asked && !net->completed ? (uint32_t)(until - asked) : 0;
        status = net->engine->wait(net, tick_wait(net, left));
        wf_tcp_attend(net);
        /* What had come before it was asked for has been seen by now. */
        if (net->tick_ms <= asked) {
            wf_tcp_tick(net, asked);
            wf_tcp_attend(net);
        }
    } while (status == WEFT_OK && !net->completed && net->now_ms < until);
    net->engine->flush(net);
    net->polling = false;
    if (status != WEFT_OK)
        net->failed = true;
    return status;
}

void wf_tcp_wake(struct tcp_net *net)
{
    uint64_t one = 1;
    if (write(net->wake_fd, &one, sizeof one) < 0)
        return; /* it is full: nobody has looked since the last one */
}

static void net_wake(struct wf_net *net)
{
    wf_tcp_wake(net_of(net));
}

static void net_stats(const struct wf_net *of, struct wf_net_stats *out)
{
    *out = net_of(of)->stats;
}

const struct wf_net_ops wf_net_tcp = {
    .name = "tcp",
    .one_sided = false,
    .create = net_create,
    .destroy = net_destroy,
    .address = net_address,
    .connect = net_connect,
    .close = link_close,
    .set_user = link_set_user,
    .user = link_user,
    .peer = link_peer,
    .send = link_send,
    .memory = net_memory,
    .expose = wf_tcp_expose,
    .grant = wf_tcp_grant,
    .withdraw = wf_tcp_withdraw,
    .access = link_access,
    .event = net_event,
    .poll = net_poll,
    .wake = net_wake,
    .stats = net_stats,
};
