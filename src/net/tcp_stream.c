/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: it is connected or accepted, TLS shakes hands where it is asked for, then the
 * nets do, and then it carries frames.
 *
 * Until the other side has proved itself no more is read of a connection than the handshake waits
 * for, and an accepted one that belongs to no link yet counts against TCP_HANDSHAKES_MAX.
 *
 * What is begun with the engine names memory of the stream, so a stream is freed only when its
 * `operations` are 0; wf_tcp_stream_end() is called until it is.
 */
#include "net/tcp_inner.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "sys/memory.h"

#define ACCEPTS_AT_ONCE 16

static void shake_pump(struct tcp_stream *stream);

enum weft_status wf_tcp_stream_create(struct tcp_net *net, struct tcp_link *link, uint32_t index,
                                      struct tcp_stream **out)
{
    struct tcp_stream *stream = wf_calloc(1, sizeof *stream, "a stream");
    if (!stream)
        return WEFT_E_NO_MEMORY;
    stream->net = net;
    stream->link = link;
    stream->index = index;
    stream->fd = -1;
    stream->phase = TCP_CONNECTS;
    stream->read_ahead = TCP_READ_AHEAD_MIN;
    stream->hello = wf_calloc(1, sizeof *stream->hello, "a handshake");
    stream->stage = wf_calloc(1, TCP_STAGE_BYTES, "a stream's bytes");
    stream->batches = wf_calloc(TCP_BATCHES, sizeof *stream->batches, "a stream's batches");
    if (!stream->hello || !stream->stage || !stream->batches) {
        free(stream->hello);
        free(stream->stage);
        free(stream->batches);
        free(stream);
        return WEFT_E_NO_MEMORY;
    }
    for (uint32_t i = 0; i < TCP_BATCHES; i++)
        stream->batches[i].stream = stream;
    if (link)
        link->streams[index] = stream;
    *out = stream;
    return WEFT_OK;
}

static void hello_free(struct tcp_stream *stream)
{
    if (stream->hello)
        wf_net_hello_end(stream->hello);
    free(stream->hello);
    stream->hello = NULL;
}

/* ---------------------------------------------------------------------- connect, listen, accept */

static void handshake_add(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    stream->previous = net->last_handshake;
    *(net->last_handshake ? &net->last_handshake->next : &net->handshakes) = stream;
    net->last_handshake = stream;
    net->handshake_count++;
}

/* Of those that were accepted; one that became a link's is the link's. */
static void handshake_remove(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    if (!stream->previous && net->handshakes != stream)
        return;
    *(stream->previous ? &stream->previous->next : &net->handshakes) = stream->next;
    *(stream->next ? &stream->next->previous : &net->last_handshake) = stream->previous;
    stream->next = stream->previous = NULL;
    net->handshake_count--;
}

/* The two can talk now. */
static enum weft_status shake_begin(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    struct wf_net_hello_self self = net->self;
    enum weft_status status = WEFT_OK;
    bool tcp = setsockopt(stream->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0;
    stream->low_water = tcp ? 1 : 0;
    self.role = stream->accepted ? WF_NET_ACCEPTOR : WF_NET_CONNECTOR;
    if (stream->index > 0) {
        self.stream = (uint8_t)stream->index;
        self.streams = (uint8_t)stream->link->stream_count; /* NOLINT: never NULL */
        memcpy(self.link, stream->link->id, sizeof self.link);
    }
    stream->phase = TCP_SHAKES;
    stream->heard_ms = stream->said_ms = net->now_ms;
    if (net->tls)
        status = wf_tcp_tls_open(net->tls, !stream->accepted, &stream->tls);
    if (status == WEFT_OK)
        status = wf_net_hello_begin(stream->hello, &self);
    return status;
}

enum weft_status wf_tcp_stream_connect(struct tcp_stream *stream)
{
    const struct wf_net_address *to = &stream->link->address;
    stream->fd = socket(to->socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "no socket for %s: %s", stream->link->peer, strerror(errno));
    int result = connect(stream->fd, (const struct sockaddr *)&to->socket, to->length);
    if (result != 0 && errno != EINPROGRESS)
        return wf_fail(WEFT_E_NODE, "can not connect to %s: %s", stream->link->peer,
                       strerror(errno));
    stream->net->engine->adopt(stream);
    if (result != 0) {
        stream->net->engine->watch(stream, POLLOUT);
        return WEFT_OK;
    }
    enum weft_status status = shake_begin(stream);
    if (status == WEFT_OK)
        shake_pump(stream);
    return status;
}

void wf_tcp_stream_listen(struct tcp_stream *stream)
{
    stream->net->engine->watch(stream, POLLIN);
}

static void accepted(struct tcp_net *net, int fd, const struct sockaddr_storage *from,
                     socklen_t length)
{
    struct tcp_stream *stream;
    if (net->handshake_count >= TCP_HANDSHAKES_MAX && net->handshakes->phase != TCP_ENDS)
        wf_tcp_stream_fail(net->handshakes, WEFT_E_LIMIT,
                           "too many others have not proved themselves yet");
    if (net->handshake_count >= 2 * TCP_HANDSHAKES_MAX ||
        wf_tcp_stream_create(net, NULL, 0, &stream) != WEFT_OK) {
        close(fd);
        return;
    }
    stream->fd = fd;
    stream->accepted = true;
    stream->deadline_ms = net->now_ms + net->options.connect_ms;
    wf_net_address_format(net->listen.scheme, from, length, stream->peer);
    handshake_add(stream);
    net->engine->adopt(stream);
    enum weft_status status = shake_begin(stream);
    if (status == WEFT_OK)
        shake_pump(stream);
    else
        wf_tcp_stream_fail(stream, status, NULL);
}

static void listener_ready(struct tcp_stream *stream)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct sockaddr_storage from = {0};
        socklen_t length = sizeof from;
        int fd = accept4(stream->fd, (struct sockaddr *)&from, &length,
                         SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0 && errno == EAGAIN)
            stream->readable = false;
        else if (fd < 0 && errno != ECONNABORTED && errno != EINTR)
            return; /* no descriptors are left: the next tick tries again */
        if (fd < 0)
            break;
        accepted(stream->net, fd, &from, length);
    }
    wf_tcp_stream_listen(stream);
}

void wf_tcp_watched(struct tcp_stream *stream, int result)
{
    int error = 0;
    socklen_t length = sizeof error;
    stream->watching = false;
    if (stream->link && stream->link->state == TCP_LINK_ENDS) {
        wf_tcp_link_mark(stream->link, false);
        return;
    }
    if (stream->cancelled || result == -ECANCELED)
        return;
    if (stream->phase == TCP_LISTENS) {
        listener_ready(stream);
        return;
    }
    getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    enum weft_status status = error ? wf_fail(WEFT_E_NODE, "can not connect to %s: %s",
                                              stream->link->peer, strerror(error))
                                    : shake_begin(stream);
    if (status == WEFT_OK)
        shake_pump(stream);
    else
        wf_tcp_stream_fail(stream, status, NULL);
}

/* ----------------------------------------------------------------------------------- handshake */

static void send_bytes(struct tcp_stream *stream, const void *bytes, size_t count)
{
    stream->out_bytes = (struct iovec){(void *)bytes, count};
    stream->out = (struct msghdr){.msg_iov = &stream->out_bytes, .msg_iovlen = 1};
    stream->sending = true;
    stream->net->engine->send(stream, NULL);
}

static void receive_bytes(struct tcp_stream *stream, void *room, size_t bytes)
{
    stream->in_pieces[0] = (struct iovec){room, bytes};
    stream->in = (struct msghdr){.msg_iov = stream->in_pieces, .msg_iovlen = 1};
    stream->receive_all = false;
    stream->receive_least = 0;
    stream->receiving = true;
    stream->net->engine->receive(stream);
}

/* The handshake's bytes; true: there is some of it in flight, or no room for it. */
static enum weft_status hello_send(struct tcp_stream *stream)
{
    size_t count, taken;
    const void *out = wf_net_hello_out(stream->hello, &count);
    enum weft_status status = WEFT_OK;
    if (stream->tls) {
        while (count && status == WEFT_OK) {
            status = wf_tcp_tls_write(stream->tls, out, count, &taken);
            if (status == WEFT_OK)
                wf_net_hello_sent(stream->hello, taken);
            out = wf_net_hello_out(stream->hello, &count);
        }
    } else if (count && !stream->sending) {
        stream->sending_hello = true;
        send_bytes(stream, out, count);
    }
    return status < 0 ? status : WEFT_OK;
}

static void tls_send(struct tcp_stream *stream)
{
    size_t count;
    const void *out = wf_tcp_tls_out(stream->tls, &count);
    if (count && !stream->sending)
        send_bytes(stream, out, count);
}

static enum weft_status hello_take(struct tcp_stream *stream, const void *bytes, size_t count)
{
    struct wf_net_hello *hello = stream->hello;
    enum weft_status status = wf_net_hello_take(hello, bytes, count);
    if (status != WEFT_OK)
        return status == WEFT_PENDING ? WEFT_OK : status;
    if (hello->state == WF_NET_HELLO_PROVEN) {
        if (stream->index > 0)
            stream->phase = TCP_CARRIES;
        return wf_tcp_link_proven(stream);
    }
    if (hello->state == WF_NET_HELLO_DECIDE) {
        status = wf_tcp_link_decide(stream);
        if (stream->link)
            handshake_remove(stream);
        return status;
    }
    stream->phase = TCP_CARRIES;
    wf_tcp_link_whole(stream);
    return WEFT_OK;
}

/* TLS: whatever of the handshake has come. */
static enum weft_status tls_shake(struct tcp_stream *stream)
{
    enum weft_status status = WEFT_OK;
    if (!stream->tls_done) {
        status = wf_tcp_tls_shake(stream->tls, stream->name);
        if (status != WEFT_OK)
            return status == WEFT_PENDING ? WEFT_OK : status;
        stream->tls_done = true;
        if (stream->link && stream->index == 0)
            memcpy(stream->link->name, stream->name, sizeof stream->name);
    }
    while (stream->phase == TCP_SHAKES && status == WEFT_OK) {
        size_t wants = wf_net_hello_wants(stream->hello), got;
        if (wants > sizeof stream->shake_in)
            wants = sizeof stream->shake_in;
        if (!wants)
            break;
        status = wf_tcp_tls_read(stream->tls, stream->shake_in, wants, &got);
        if (status == WEFT_PENDING)
            return WEFT_OK;
        if (status == WEFT_OK)
            status = hello_take(stream, stream->shake_in, got);
    }
    return status;
}

static void shake_receive(struct tcp_stream *stream)
{
    size_t room;
    if (stream->receiving || stream->phase != TCP_SHAKES)
        return;
    if (stream->tls) {
        void *to = wf_tcp_tls_room(stream->tls, &room);
        if (room)
            receive_bytes(stream, to, room);
        return;
    }
    room = wf_net_hello_wants(stream->hello);
    if (room)
        receive_bytes(stream, stream->shake_in,
                      room < sizeof stream->shake_in ? room : sizeof stream->shake_in);
}

static void shake_pump(struct tcp_stream *stream)
{
    enum weft_status status = WEFT_OK;
    if (stream->tls)
        status = tls_shake(stream);
    if (status == WEFT_OK && (!stream->tls || stream->tls_done))
        status = hello_send(stream);
    if (stream->tls)
        tls_send(stream);
    if (status == WEFT_OK)
        shake_receive(stream);
    else
        wf_tcp_stream_fail(stream, status, NULL);
}

/* ------------------------------------------------------------------------------------- carrying */

static enum weft_status tls_fill(struct tcp_stream *stream)
{
    struct tcp_batch *batch = stream->current;
    enum weft_status status = WEFT_OK;
    while (batch && batch->head < batch->count && status == WEFT_OK) {
        const struct iovec *piece = &batch->pieces[batch->head];
        size_t taken = 0;
        status = wf_tcp_tls_write(stream->tls, piece->iov_base, piece->iov_len, &taken);
        if (status == WEFT_OK)
            wf_tcp_send_advance(batch, taken);
        if (batch->head == batch->count) {
            wf_tcp_batch_finish(batch);
            wf_tcp_send_fill(stream);
            batch = stream->current;
        }
    }
    return status < 0 ? status : WEFT_OK;
}

/* The rest of the handshake, before the link is up. */
static void carry_hello(struct tcp_stream *stream)
{
    enum weft_status status = hello_send(stream);
    if (stream->tls)
        tls_send(stream);
    if (status != WEFT_OK)
        wf_tcp_stream_fail(stream, status, NULL);
}

enum weft_status wf_tcp_stream_pump_out(struct tcp_stream *stream)
{
    enum weft_status status = WEFT_OK;
    size_t count;
    if (stream->sending)
        return WEFT_OK;
    if (stream->hello) {
        wf_net_hello_out(stream->hello, &count);
        if (count) {
            status = hello_send(stream);
        } else {
            hello_free(stream);
        }
        if (stream->sending || status != WEFT_OK)
            return status;
    }
    wf_tcp_send_fill(stream);
    if (stream->tls) {
        status = tls_fill(stream);
        tls_send(stream);
        return status;
    }
    struct tcp_batch *batch = stream->current;
    if (!batch)
        return WEFT_OK;
    stream->out = (struct msghdr){.msg_iov = batch->pieces + batch->head,
                                  .msg_iovlen = batch->count - batch->head};
    stream->sending = true;
    stream->net->engine->send(stream, batch->zero_copy ? batch : NULL);
    return WEFT_OK;
}

/* TLS: whatever has come, to where it belongs. */
static enum weft_status tls_consume(struct tcp_stream *stream)
{
    enum weft_status status = wf_tcp_receive_parse(stream);
    while (status == WEFT_OK && stream->link->state == TCP_LINK_UP && !stream->paused) {
        bool all;
        size_t got;
        uint32_t count = wf_tcp_receive_room(stream, &all);
        assert(count > 0);
        status = wf_tcp_tls_read(stream->tls, stream->in_pieces[0].iov_base,
                                 stream->in_pieces[0].iov_len, &got);
        if (status == WEFT_OK)
            status = wf_tcp_receive_consume(stream, got);
    }
    return status == WEFT_PENDING ? WEFT_OK : status;
}

static enum weft_status carry_receive(struct tcp_stream *stream)
{
    enum weft_status status;
    size_t room;
    if (stream->receiving)
        return WEFT_OK;
    if (stream->paused)
        stream->heard_ms = stream->net->now_ms;
    stream->paused = false;
    status = stream->tls ? tls_consume(stream) : wf_tcp_receive_parse(stream);
    if (status != WEFT_OK || stream->paused || stream->link->state != TCP_LINK_UP)
        return status;
    if (stream->tls) {
        void *to = wf_tcp_tls_room(stream->tls, &room);
        receive_bytes(stream, to, room);
        return WEFT_OK;
    }
    uint32_t count = wf_tcp_receive_room(stream, &stream->receive_all);
    stream->in = (struct msghdr){.msg_iov = stream->in_pieces, .msg_iovlen = count};
    stream->receiving = true;
    stream->net->engine->receive(stream);
    return WEFT_OK;
}

void wf_tcp_stream_pump(struct tcp_stream *stream)
{
    enum weft_status status = wf_tcp_stream_pump_out(stream);
    if (status == WEFT_OK)
        status = carry_receive(stream);
    if (status != WEFT_OK)
        wf_tcp_stream_fail(stream, status, NULL);
}

/* ---------------------------------------------------------------------------------- completions */

/* After a completion. */
static void go_on(struct tcp_stream *stream)
{
    if (stream->phase == TCP_ENDS || (stream->link && stream->link->state == TCP_LINK_ENDS))
        return;
    if (stream->phase == TCP_SHAKES)
        shake_pump(stream);
    else if (stream->link->state == TCP_LINK_UP) /* NOLINT: never NULL */
        wf_tcp_stream_pump(stream);
    else
        carry_hello(stream);
}

/* Whether anybody still wants to know of a completion. */
static bool completion_wanted(struct tcp_stream *stream)
{
    stream->net->completed = true;
    if (stream->link && stream->link->state == TCP_LINK_ENDS)
        wf_tcp_link_mark(stream->link, false);
    if (stream->phase == TCP_ENDS)
        stream->net->reap = true;
    return stream->phase != TCP_ENDS && !(stream->link && stream->link->state == TCP_LINK_ENDS);
}

/* A system call that was cancelled for a reason of ours is begun again. */
static bool again(ssize_t result)
{
    return result == -ECANCELED || result == -EINTR || result == -EAGAIN;
}

static enum weft_status shake_received(struct tcp_stream *stream, size_t bytes)
{
    if (!stream->tls)
        return hello_take(stream, stream->shake_in, bytes);
    wf_tcp_tls_came(stream->tls, bytes);
    return WEFT_OK; /* shake_pump looks at it */
}

void wf_tcp_received(struct tcp_stream *stream, ssize_t result)
{
    enum weft_status status = WEFT_OK;
    stream->receiving = false;
    if (!completion_wanted(stream))
        return;
    if (result > 0) {
        stream->heard_ms = stream->net->now_ms;
        if (stream->phase == TCP_SHAKES)
            status = shake_received(stream, (size_t)result);
        else if (stream->tls)
            wf_tcp_tls_came(stream->tls, (size_t)result);
        else
            status = wf_tcp_receive_consume(stream, (size_t)result);
    } else if (result == 0) {
        status = wf_fail(WEFT_E_NODE, "the other side closed the connection%s",
                         stream->phase == TCP_SHAKES
                             ? " before both had proved who they are; its log says why, as when "
                               "fabric.encrypt is not the same on both"
                             : "");
    } else if (!again(result)) {
        status = wf_fail(WEFT_E_NODE, "the connection broke: %s", strerror((int)-result));
    }
    if (status != WEFT_OK)
        wf_tcp_stream_fail(stream, status, NULL);
    else
        go_on(stream);
}

void wf_tcp_sent(struct tcp_stream *stream, ssize_t result)
{
    struct tcp_batch *batch = stream->current;
    bool hello = stream->sending_hello;
    stream->sending = stream->sending_hello = false;
    if (!completion_wanted(stream))
        return;
    if (result > 0) {
        stream->said_ms = stream->net->now_ms;
        if (stream->tls)
            wf_tcp_tls_went(stream->tls, (size_t)result);
        else if (hello)
            wf_net_hello_sent(stream->hello, (size_t)result);
        else
            wf_tcp_send_advance(batch, (size_t)result);
        if (batch && !stream->tls && !hello && batch->head == batch->count)
            wf_tcp_batch_finish(batch);
    } else if (!again(result)) {
        wf_fail_keep("the connection broke: %s", strerror((int)-result));
        wf_tcp_stream_fail(stream, WEFT_E_NODE, NULL);
        return;
    }
    go_on(stream);
}

/* Zero-copy: the kernel reads the batch's memory no more. */
void wf_tcp_released(struct tcp_batch *batch, bool copied)
{
    struct tcp_stream *stream = batch->stream;
    struct tcp_link *link = stream->link;
    completion_wanted(stream);
    link->zero_copy_sent++;
    link->zero_copy_copied += copied;
    if (link->zero_copy_sent >= 8 && link->zero_copy_copied * 2 > link->zero_copy_sent)
        link->zero_copy = false;
    batch->copied_anyway |= copied;
    if (--batch->waits == 0 && batch != stream->current)
        wf_tcp_batch_finish(batch);
    wf_tcp_link_mark(link, true);
}

/* --------------------------------------------------------------------------------------- ending */

/* Last words of a handshake, so that the other side can say why; as much as goes at once. */
static void last_words(struct tcp_stream *stream)
{
    size_t count;
    const void *out;
    if (!stream->hello || stream->sending || stream->fd < 0)
        return;
    if (stream->tls_done && hello_send(stream) != WEFT_OK)
        return;
    if (stream->tls)
        out = wf_tcp_tls_out(stream->tls, &count);
    else
        out = wf_net_hello_out(stream->hello, &count);
    if (count && send(stream->fd, out, count, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        shutdown(stream->fd, SHUT_WR);
    /* What is unread when a socket is closed would have the system take the words back. */
    while (!stream->receiving &&
           recv(stream->fd, stream->stage, TCP_STAGE_BYTES, MSG_DONTWAIT) == TCP_STAGE_BYTES)
        ;
}

void wf_tcp_stream_fail(struct tcp_stream *stream, enum weft_status status, const char *sentence)
{
    char why[WF_ERROR_MAX];
    snprintf(why, sizeof why, "%s", sentence ? sentence : wf_last_error());
    if (stream->phase == TCP_SHAKES)
        last_words(stream);
    if (stream->link) {
        wf_tcp_link_end(stream->link, status, why);
        return;
    }
    if (stream->phase == TCP_ENDS)
        return;
    stream->phase = TCP_ENDS;
    stream->net->stats.refused++;
    stream->net->reap = true;
    wf_tcp_warn(stream->net, stream->peer, why);
}

static uint32_t zero_copy_waits(const struct tcp_stream *stream)
{
    uint32_t waits = 0;
    for (uint32_t i = 0; i < TCP_BATCHES; i++)
        waits += stream->batches[i].waits;
    return waits;
}

bool wf_tcp_stream_end(struct tcp_stream *stream)
{
    struct tcp_net *net = stream->net;
    uint32_t waits = zero_copy_waits(stream);
    stream->phase = TCP_ENDS;
    if (!stream->cancelled && stream->operations > waits) {
        stream->cancelled = true;
        net->engine->cancel(stream);
    }
    if (stream->operations > waits)
        return false;
    if (stream->fd >= 0) {
        /* What waits for the other side's word that it has the bytes would wait long. */
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        if (waits)
            setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        net->engine->forget(stream);
        close(stream->fd);
        stream->fd = -1;
    }
    if (stream->operations)
        return false;
    handshake_remove(stream);
    hello_free(stream);
    wf_tcp_tls_close(stream->tls);
    free(stream->stage);
    free(stream->batches);
    free(stream);
    return true;
}

/* Accepted connections that are no link's: those that took too long, and those that have ended. */
void wf_tcp_handshakes_tick(struct tcp_net *net, uint64_t asked_ms)
{
    if (net->listener && !net->listener->watching)
        wf_tcp_stream_listen(net->listener);
    for (struct tcp_stream *stream = net->handshakes, *next; stream; stream = next) {
        next = stream->next;
        if (stream->phase != TCP_ENDS && asked_ms > stream->deadline_ms)
            wf_tcp_stream_fail(stream, WEFT_E_TIMEOUT, "it did not prove itself in time");
    }
}

void wf_tcp_handshakes_reap(struct tcp_net *net)
{
    net->reap = false;
    for (struct tcp_stream *stream = net->handshakes, *next; stream; stream = next) {
        next = stream->next;
        if (stream->phase == TCP_ENDS)
            wf_tcp_stream_end(stream);
    }
}
