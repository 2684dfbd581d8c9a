/* SPDX-License-Identifier: Apache-2.0
 *
 * A UCX link's life: how it is met, how it shows that it lives, how it ends.
 *
 * The TCP connection carries the meeting (hello.h); each greeting has the worker's address, which
 * is used once the other side has proved itself and not before, and the number of the link on its
 * side.  The connector makes an endpoint and sends FIRST over it, upon which the acceptor does the
 * same: a link is up when the other side's has arrived, so that a fabric that does not carry is
 * found out before anybody relies on it.
 *
 * From then on the connection carries words of 8 bytes, "wfux" and a number: 1, it lives; 2, it is
 * closed on purpose.  They do not go over the endpoint because UCX may queue hours of payload
 * before them.  What the connection can not see, a fabric that broke and a host that is well, UCX
 * tells.
 *
 * An end has three steps: wf_ucx_link_fail() notes why, from wherever; wf_ucx_link_let_go(),
 * outside of UCX's callbacks, closes the endpoint by force, upon which UCX ends what it has begun;
 * when it has, wf_ucx_link_end() gives everything back to the caller and says `down`.
 *
 * Who hears that the other side closed waits LINGER_MS before it closes its own endpoint.  UCX's
 * TCP (1.13) goes on sending what it has in its buffer after an endpoint was closed by force, and
 * when the other side's end comes in before all of that has gone, it uses a connection that it has
 * just freed.
 */
#include "net/ucx.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"

struct word {
    char magic[4];
    uint32_t number;
};
_Static_assert(sizeof(struct word) == 8, "as said above");
enum { LIVES = 1, CLOSED = 2 };

#define LINGER_MS 30u

static const char word_magic[4] = {'w', 'f', 'u', 'x'};

/* ------------------------------------------------------------------------------------- sockets */

enum weft_status wf_ucx_listen(struct wf_net *net)
{
    struct wf_net_address address;
    socklen_t length = sizeof address.socket;
    enum weft_status status = wf_net_address_parse(net->options.listen, &address);
    if (status != WEFT_OK)
        return status;
    if (address.scheme != WF_NET_SCHEME_UCX)
        return wf_fail(WEFT_E_INVALID, "'%s' is no address of UCX; write ucx:ADDRESS:PORT",
                       net->options.listen);
    net->listener = socket(address.socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (net->listener < 0 || WF_FAILS("socket"))
        return wf_fail(WEFT_E_SYSTEM, "there is no socket for %s: %s", net->options.listen,
                       strerror(errno));
    setsockopt(net->listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(net->listener, (struct sockaddr *)&address.socket, address.length) != 0 ||
        listen(net->listener, 128) != 0 ||
        getsockname(net->listener, (struct sockaddr *)&address.socket, &length) != 0)
        return wf_fail(WEFT_E_SYSTEM, "nothing can listen on %s: %s", net->options.listen,
                       strerror(errno));
    wf_net_address_format(WF_NET_SCHEME_UCX, &address.socket, length, net->address);
    return WEFT_OK;
}

static uint64_t epoll_tag(const struct wf_net_link *link)
{
    return (uint64_t)link->generation << 32 | link->number;
}

static bool watch(struct wf_net_link *link, uint32_t events, int how)
{
    struct epoll_event event = {.events = events, .data.u64 = epoll_tag(link)};
    if (how == EPOLL_CTL_MOD && events == link->fd_events)
        return true;
    link->fd_events = events;
    return epoll_ctl(link->net->epoll, how, link->fd, &event) == 0;
}

/* ----------------------------------------------------------------------------------- beginning */

static struct wf_net_link *link_new(struct wf_net *net, int fd, bool connector)
{
    uint32_t number = 0;
    while (number < net->link_slots && net->links[number])
        number++;
    if (number == net->link_slots)
        return NULL;
    struct wf_net_link *link = wf_calloc(1, sizeof *link, "a UCX link");
    if (!link)
        return NULL;
    link->net = net;
    link->number = number;
    link->generation = ++net->generations;
    link->fd = fd;
    link->connector = connector;
    link->began_ms = link->heard_ms = link->beat_ms = net->now_ms;
    wf_ucx_message_begin(link);
    wf_ucx_access_begin(link);
    net->links[number] = link;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return link;
}

static enum weft_status meet(struct wf_net_link *link)
{
    const struct wf_net *net = link->net;
    struct wf_net_hello_self self = {
        .role = link->connector ? WF_NET_CONNECTOR : WF_NET_ACCEPTOR,
        .proof = net->options.security.proof,
        .secret = net->options.security.secret,
        .transport = "ucx",
        .streams = 1,
        .dead_ms = net->options.dead_ms,
        .numbers = {link->number, net->device_memory ? 0 : WF_UCX_EAGER_MAX},
        .hello = net->hello,
        .hello_bytes = net->options.hello_bytes,
        .bytes = net->worker_address,
        .byte_count = (uint32_t)net->worker_address_bytes,
    };
    link->state = WF_UCX_MEETING;
    link->hello = wf_calloc(1, sizeof *link->hello, "a meeting");
    return link->hello ? wf_net_hello_begin(link->hello, &self) : WEFT_E_NO_MEMORY;
}

enum weft_status wf_ucx_connect(struct wf_net *net, const char *text, void *user,
                                struct wf_net_link **out)
{
    struct wf_net_address address;
    enum weft_status status = wf_net_address_parse(text, &address);
    if (status != WEFT_OK)
        return status;
    if (address.scheme != WF_NET_SCHEME_UCX)
        return wf_fail(WEFT_E_INVALID, "'%s' is no address of UCX; write ucx:ADDRESS:PORT", text);
    if (net->link_count >= net->options.links_max)
        return wf_fail(WEFT_E_LIMIT, "there are %u links, as many as there may be",
                       net->link_count);
    int fd = socket(address.socket.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "there is no socket for %s: %s", text, strerror(errno));
    net->now_ms = wf_now_ms(); /* the last poll may be long ago, and connect_ms begins now */
    struct wf_net_link *link = link_new(net, fd, true);
    if (!link) {
        close(fd);
        return wf_fail(WEFT_E_NO_MEMORY, "there is no room for a link to %s", text);
    }
    net->link_count++;
    link->user = user;
    snprintf(link->peer, sizeof link->peer, "%s", text);
    if (connect(fd, (struct sockaddr *)&address.socket, address.length) != 0 &&
        errno != EINPROGRESS)
        wf_ucx_link_fail(link, WEFT_E_NODE, "%s can not be reached: %s", text, strerror(errno));
    else if (!watch(link, EPOLLOUT, EPOLL_CTL_ADD))
        wf_ucx_link_fail(link, WEFT_E_SYSTEM, "%s can not be waited for: %s", text,
                         strerror(errno));
    *out = link;
    return WEFT_OK;
}

void wf_ucx_accept(struct wf_net *net)
{
    struct sockaddr_storage from;
    socklen_t length = sizeof from;
    for (int i = 0; i < 64; i++, length = sizeof from) {
        int fd = accept4(net->listener, (struct sockaddr *)&from, &length,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct wf_net_link *link = net->strangers < WF_UCX_STRANGERS_MAX ? link_new(net, fd, false)
                                                                         : NULL;
        if (!link) {
            net->stats.refused++;
            close(fd);
            continue;
        }
        net->strangers++;
        wf_net_address_format(WF_NET_SCHEME_UCX, &from, length, link->peer);
        enum weft_status status = meet(link);
        if (status != WEFT_OK || !watch(link, EPOLLIN, EPOLL_CTL_ADD))
            wf_ucx_link_fail(link, status ? status : WEFT_E_SYSTEM, "%s can not be met",
                             link->peer);
    }
}

/* ------------------------------------------------------------------------------------- meeting */

static void endpoint_failed(void *user, ucp_ep_h endpoint, ucs_status_t status)
{
    struct wf_net_link *link = user;
    (void)endpoint;
    wf_ucx_link_fail(link, WEFT_E_NODE, "the fabric lost %s: %s", link->peer,
                     link->net->lib->ucs_status_string(status));
}

static void first_sent(void *request, ucs_status_t status, void *user)
{
    struct wf_net_link *link = user;
    (void)status;
    wf_ucx_request_done(link, request);
}

/* The other side has proved itself: its worker's address may be used. */
static void wire(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    const struct wf_net_hello_self *peer = &link->hello->peer;
    ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = peer->bytes,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = endpoint_failed, .arg = link},
    };
    ucs_status_t status = peer->byte_count
                              ? net->lib->ucp_ep_create(net->worker, &params, &link->endpoint)
                              : UCS_ERR_INVALID_ADDR;
    if (status != UCS_OK) {
        link->endpoint = NULL;
        wf_ucx_link_fail(link, WEFT_E_NODE,
                         "no device of UCX reaches %s (%s); without RDMA let UCX_TLS name tcp",
                         link->peer, net->lib->ucs_status_string(status));
        return;
    }
    wf_ucx_put_out(link, &link->first, WF_UCX_FIRST, 0, NULL, 0, 0, first_sent, link);
}

static void hello_end(struct wf_net_link *link)
{
    if (link->hello) {
        wf_net_hello_end(link->hello);
        free(link->hello);
    }
    link->hello = NULL;
}

/* UCX pairs the endpoints of two workers in the order in which either side made them.  Would both
 * sides begin with the link that they asked for, each of these links had an end of the other, and
 * none outlived it.  So of two nets one makes all their endpoints first, one at a time, and the
 * other one its own when it hears of it. */
static bool same_peer(const struct wf_net_hello_self *a, const struct wf_net_hello_self *b)
{
    return a->byte_count == b->byte_count && !memcmp(a->bytes, b->bytes, a->byte_count);
}

static bool leads(const struct wf_net_link *link)
{
    const struct wf_net *net = link->net;
    const struct wf_net_hello_self *peer = &link->hello->peer;
    size_t bytes = peer->byte_count < net->worker_address_bytes ? peer->byte_count
                                                                : net->worker_address_bytes;
    int order = bytes ? memcmp(net->worker_address, peer->bytes, bytes) : 0;
    return order ? order > 0 : link->connector;
}

static bool turn(const struct wf_net_link *link)
{
    const struct wf_net *net = link->net;
    for (uint32_t i = 0; i < net->link_slots; i++) {
        const struct wf_net_link *other = net->links[i];
        if (other && other != link && other->state < WF_UCX_ENDING && other->endpoint &&
            !other->first_heard && same_peer(&other->hello->peer, &link->hello->peer))
            return false;
    }
    return true;
}

static void wire_in_turn(struct wf_net_link *link)
{
    if (!link->endpoint && (leads(link) ? turn(link) : link->first_heard))
        wire(link);
}

bool wf_ucx_link_wired(struct wf_net_link *link)
{
    wire_in_turn(link);
    if (!link->endpoint || !link->first_heard)
        return false;
    hello_end(link);
    return link->state == WF_UCX_WIRING;
}

/* Both know who the other is, as far as it is to be proved. */
static void known(struct wf_net_link *link)
{
    const struct wf_net_hello_self *peer = &link->hello->peer;
    uint64_t tokens[4];
    wf_net_hello_key(link->hello, (uint8_t *)tokens);
    link->token_in = tokens[link->connector ? 0 : 1];
    link->token_out = tokens[link->connector ? 1 : 0];
    link->token_known = true;
    link->peer_number = peer->numbers[0];
    link->eager_max = peer->numbers[1] < WF_UCX_EAGER_MAX ? peer->numbers[1] : WF_UCX_EAGER_MAX;
    link->peer_hello_bytes = peer->hello_bytes;
    memcpy(link->peer_hello, peer->hello, peer->hello_bytes);
    uint32_t dead_ms = link->net->options.dead_ms;
    if (peer->dead_ms && peer->dead_ms < dead_ms)
        dead_ms = peer->dead_ms;
    link->beat_every_ms = dead_ms / 4 ? dead_ms / 4 : 1;
}

static void decide(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    uint8_t id[WF_NET_LINK_ID_BYTES];
    if (net->link_count >= net->options.links_max || wf_net_hello_link_id(id) != WEFT_OK) {
        wf_net_hello_refuse(link->hello, WF_NET_REFUSED_LINKS);
        wf_ucx_link_fail(link, WEFT_E_LIMIT, "there are %u links, as many as there may be",
                         net->link_count);
        return;
    }
    known(link);
    wf_net_hello_admit(link->hello, id, 1);
}

static void hello_flush(struct wf_net_link *link)
{
    size_t bytes;
    const void *out = wf_net_hello_out(link->hello, &bytes);
    ssize_t sent = bytes ? send(link->fd, out, bytes, MSG_NOSIGNAL) : 0;
    if (sent > 0)
        wf_net_hello_sent(link->hello, (size_t)sent);
    else if (sent < 0 && errno != EAGAIN && errno != EINTR && link->state == WF_UCX_MEETING)
        wf_ucx_link_fail(link, WEFT_E_NODE, "%s can not be told anything: %s", link->peer,
                         strerror(errno));
}

static void hello_step(struct wf_net_link *link)
{
    if (link->hello->state == WF_NET_HELLO_DECIDE) {
        decide(link);
    } else if (link->hello->state == WF_NET_HELLO_PROVEN) {
        known(link);
        wf_net_hello_ready(link->hello);
        wire_in_turn(link);
    }
}

static void met(struct wf_net_link *link)
{
    uint8_t bytes[1024];
    size_t wants;
    while (link->state == WF_UCX_MEETING && (wants = wf_net_hello_wants(link->hello))) {
        ssize_t got = recv(link->fd, bytes, wants < sizeof bytes ? wants : sizeof bytes, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (got <= 0) {
            wf_ucx_link_fail(link, WEFT_E_NODE, "%s hung up before it was known: %s", link->peer,
                             got ? strerror(errno) : "it closed the connection");
            return;
        }
        link->heard_ms = link->net->now_ms;
        enum weft_status status = wf_net_hello_take(link->hello, bytes, (size_t)got);
        if (status == WEFT_OK)
            hello_step(link);
        else if (status != WEFT_PENDING)
            wf_ucx_link_fail(link, status, "%s", wf_last_error());
    }
    hello_flush(link);
    if (link->state != WF_UCX_MEETING)
        return;
    size_t left;
    wf_net_hello_out(link->hello, &left);
    watch(link, left ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    if (link->hello->state == WF_NET_HELLO_DONE && !left) {
        link->state = WF_UCX_WIRING;
        if (!link->connector) {
            link->net->strangers--;
            link->net->link_count++;
        }
        wf_ucx_todo(link);
    }
}

void wf_ucx_link_first(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    link->first_heard = true;
    wf_ucx_todo(link);
    for (uint32_t i = 0; i < net->link_slots; i++) /* it may be another's turn now */
        if (net->links[i] && net->links[i]->state == WF_UCX_WIRING && !net->links[i]->endpoint)
            wf_ucx_todo(net->links[i]);
}

/* -------------------------------------------------------------------------------------- living */

static void say(struct wf_net_link *link, uint32_t number)
{
    struct word word = {.number = number};
    memcpy(word.magic, word_magic, sizeof word.magic);
    /* A connection that takes no 8 bytes is full of them, unread; then this one says nothing new. A
     * part of a word can not be: that few bytes go whole or not at all. */
    ssize_t sent = send(link->fd, &word, sizeof word, MSG_NOSIGNAL);
    if (sent > 0 && sent < (ssize_t)sizeof word)
        wf_ucx_link_fail(link, WEFT_E_SYSTEM, "half a word went to %s", link->peer);
}

static void hear(struct wf_net_link *link)
{
    struct word word;
    for (int i = 0; i < 64; i++) {
        ssize_t got = recv(link->fd, link->said + link->said_bytes,
                           sizeof link->said - link->said_bytes, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got <= 0) {
            wf_ucx_link_fail(link, WEFT_E_NODE, "%s is gone: %s", link->peer,
                             got ? strerror(errno) : "it closed the connection");
            return;
        }
        link->heard_ms = link->net->now_ms;
        link->said_bytes += (uint32_t)got;
        if (link->said_bytes < sizeof word)
            continue;
        memcpy(&word, link->said, sizeof word);
        link->said_bytes = 0;
        if (memcmp(word.magic, word_magic, sizeof word_magic) != 0 ||
            (word.number != LIVES && word.number != CLOSED))
            wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s says what is no word of this transport",
                             link->peer);
        else if (word.number == CLOSED) {
            wf_ucx_link_fail(link, WEFT_E_NODE, "%s closed the link", link->peer);
            link->linger_until_ms = link->net->now_ms + LINGER_MS;
            link->net->lingering++;
            if (link->net->tick_ms > link->linger_until_ms)
                link->net->tick_ms = link->linger_until_ms;
        }
        if (link->state == WF_UCX_ENDING)
            return;
    }
}

void wf_ucx_link_ready(struct wf_net_link *link, uint32_t events)
{
    int error = 0;
    socklen_t length = sizeof error;
    switch (link->state) {
    case WF_UCX_CONNECTING:
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return;
        getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) {
            wf_ucx_link_fail(link, WEFT_E_NODE, "%s can not be reached: %s", link->peer,
                             strerror(error));
            return;
        }
        if (meet(link) != WEFT_OK) {
            wf_ucx_link_fail(link, WEFT_E_SYSTEM, "%s", wf_last_error());
            return;
        }
        met(link);
        return;
    case WF_UCX_MEETING: met(link); return;
    case WF_UCX_WIRING:
    case WF_UCX_UP: hear(link); return;
    case WF_UCX_ENDING: return;
    }
}

void wf_ucx_link_tick(struct wf_net_link *link)
{
    const struct wf_net *net = link->net;
    if (link->state == WF_UCX_ENDING) {
        if (link->linger_until_ms || link->drain_from_ms)
            wf_ucx_todo(link);
        return;
    }
    if (link->state == WF_UCX_WIRING && !link->endpoint)
        wf_ucx_todo(link); /* whoever had its turn may have failed */
    if (link->state != WF_UCX_UP && net->now_ms - link->began_ms > net->options.connect_ms)
        wf_ucx_link_fail(link, WEFT_E_NODE,
                         link->state == WF_UCX_WIRING
                             ? "%s answers, but nothing of it came over UCX in %u ms; do its "
                               "devices (UCX_TLS, UCX_NET_DEVICES) reach each other?"
                             : "%s did not answer in %u ms",
                         link->peer, net->options.connect_ms);
    else if (link->state == WF_UCX_UP && net->now_ms - link->heard_ms > net->options.dead_ms)
        wf_ucx_link_fail(link, WEFT_E_NODE, "nothing was heard of %s for %u ms", link->peer,
                         net->options.dead_ms);
    else if (link->state >= WF_UCX_WIRING && net->now_ms - link->beat_ms >= link->beat_every_ms) {
        link->beat_ms = net->now_ms;
        say(link, LIVES);
    }
}

/* ----------------------------------------------------------------------------------------- end */

void wf_ucx_close(struct wf_net_link *link)
{
    wf_ucx_link_fail(link, WEFT_E_NODE, "the link to %s was closed on this side", link->peer);
}

void wf_ucx_link_fail(struct wf_net_link *link, enum weft_status status, const char *format, ...)
{
    va_list arguments;
    if (link->state == WF_UCX_ENDING)
        return;
    if (link->state == WF_UCX_MEETING && (status == WEFT_E_DENIED || status == WEFT_E_PROTOCOL))
        link->net->stats.refused++;
    else if (status == WEFT_E_PROTOCOL)
        link->net->stats.nonsense++;
    if (link->state == WF_UCX_UP)
        link->net->stats.links--;
    if (link->connector || link->state >= WF_UCX_WIRING)
        link->net->link_count--;
    else
        link->net->strangers--;
    va_start(arguments, format);
    vsnprintf(link->sentence, sizeof link->sentence, format, arguments);
    va_end(arguments);
    link->why = status;
    link->state = WF_UCX_ENDING;
    wf_ucx_todo(link);
}

static void endpoint_closed(void *request, ucs_status_t status, void *user)
{
    (void)status;
    wf_ucx_request_done(user, request);
}

void wf_ucx_link_let_go(struct wf_net_link *link)
{
    const struct wf_ucx_lib *lib = link->net->lib;
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_CALLBACK |
                        UCP_OP_ATTR_FIELD_USER_DATA,
        .flags = UCP_EP_CLOSE_FLAG_FORCE,
        .cb.send = endpoint_closed,
        .user_data = link,
    };
    if (link->fd >= 0 && link->token_known && !link->linger_until_ms)
        say(link, CLOSED);
    else if (link->fd >= 0 && link->hello)
        hello_flush(link); /* a refusal */
    hello_end(link);
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    if (!link->endpoint || !wf_ucx_drained(link))
        return;
    ucp_ep_h endpoint = link->endpoint;
    link->endpoint = NULL;
    if (UCS_PTR_IS_PTR(lib->ucp_ep_close_nbx(endpoint, &param))) {
        link->in_flight++;
        link->net->in_flight++;
    }
}

bool wf_ucx_link_end(struct wf_net_link *link)
{
    struct wf_net *net = link->net;
    if (net->now_ms < link->linger_until_ms && !net->destroying)
        return false;
    wf_ucx_link_let_go(link);
    if (link->in_flight || link->endpoint)
        return false;
    wf_ucx_message_end(link, link->why);
    wf_ucx_access_end(link, link->why);
    if ((link->connector || link->announced) && !net->destroying)
        net->options.events.down(net->options.events.context, link, link->why, link->sentence);
    net->links[link->number] = NULL;
    net->lingering -= link->linger_until_ms > 0;
    net->lingering -= link->drain_from_ms > 0;
    free(link);
    return true;
}
