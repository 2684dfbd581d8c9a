/* SPDX-License-Identifier: Apache-2.0
 *
 * One connection: read, take commands apart, run them, send.
 *
 * Bytes are read into the lane's buffer, and commands run from there.  What is left of one that is
 * not all there, or that goes on, is kept in `head`, and what is read next is put behind it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/resp_inner.h"
#include "sys/memory.h"

#define HEAD_KEPT ((size_t)16 << 10)
#define SNIFF_BYTES ((size_t)1024)      /* of a client whose next command begins with little, too */
#define TURN_BYTES ((int64_t)1 << 20)   /* that one connection has of a turn */
#define LATE_BYTES ((int64_t)256 << 10) /* that are read before answers go out at the latest */

/* -------------------------------------------------------------------------------- begin and end */

static void peer_write(struct wf_resp_conn *conn)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } from = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof from;
    char text[INET6_ADDRSTRLEN] = "?";
    if (getpeername(conn->fd, &from.any, &length) != 0)
        from.any.sa_family = AF_UNSPEC;
    bool v6 = from.any.sa_family == AF_INET6;
    inet_ntop(v6 ? AF_INET6 : AF_INET,
              v6 ? (const void *)&from.v6.sin6_addr : (const void *)&from.v4.sin_addr, text,
              sizeof text);
    snprintf(conn->peer, sizeof conn->peer, v6 ? "[%s]:%u" : "%s:%u", text,
             ntohs(v6 ? from.v6.sin6_port : from.v4.sin_port));
}

struct wf_resp_conn *wf_resp_conn_create(struct wf_resp_lane *lane, int fd)
{
    struct wf_resp *resp = lane->resp;
    struct wf_resp_conn *conn = wf_calloc(1, sizeof *conn, "a RESP connection");
    if (!conn)
        return NULL;
    conn->lane = lane;
    conn->fd = fd;
    conn->protocol = 2;
    conn->id = atomic_fetch_add_explicit(&resp->ids, 1, memory_order_relaxed) + 1;
    conn->born_ms = conn->active_ms = lane->now_ms;
    wf_resp_parser_init(&conn->parser, WF_RESP_SMALL_MAX);
    peer_write(conn);
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    if (resp->password[0])
        conn->parser.unauthenticated = true;
    else
        conn->store = wf_resp_store_of(resp, resp->place_default);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    conn->events = EPOLLIN;
    if (epoll_ctl(lane->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        wf_resp_parser_fini(&conn->parser);
        free(conn);
        return NULL;
    }
    conn->next = lane->conns;
    if (lane->conns)
        lane->conns->previous = conn;
    lane->conns = conn;
    wf_resp_count(&resp->tally.clients, 1);
    wf_resp_count(&resp->tally.connections, 1);
    return conn;
}

void wf_resp_conn_close(struct wf_resp_conn *conn)
{
    struct wf_resp_lane *lane = conn->lane;
    if (conn->late)
        lane->late[conn->late - 1] = NULL;
    wf_resp_aways_drop(conn);
    wf_resp_load_forget(conn);
    wf_resp_list_forget(conn);
    wf_resp_out_fini(&conn->out);
    wf_resp_parser_fini(&conn->parser);
    close(conn->fd);
    *(conn->previous ? &conn->previous->next : &lane->conns) = conn->next;
    if (conn->next)
        conn->next->previous = conn->previous;
    free(conn->head);
    free(conn);
    atomic_fetch_sub_explicit(&lane->resp->tally.clients, 1, memory_order_relaxed);
}

/* ----------------------------------------------------------------------------------- the head */

bool wf_resp_head_add(struct wf_resp_conn *conn, const uint8_t *bytes, size_t length)
{
    if (!length) /* and perhaps no head, either */
        return true;
    if (conn->head_room - conn->head_bytes < length) {
        size_t room = conn->head_room ? conn->head_room : 512;
        while (room - conn->head_bytes < length)
            room *= 2;
        void *more = wf_realloc(conn->head, room, "a command");
        if (!more)
            return false;
        conn->head = more;
        conn->head_room = room;
    }
    memcpy(conn->head + conn->head_bytes, bytes, length);
    conn->head_bytes += length;
    return true;
}

/* What is left begins at `at`, in the head itself or elsewhere. */
static bool head_keep(struct wf_resp_conn *conn, uint8_t *bytes, size_t at, size_t length)
{
    if (bytes == conn->head) {
        memmove(conn->head, conn->head + at, length - at);
        conn->head_bytes = length - at;
        if (!conn->head_bytes && conn->head_room > HEAD_KEPT) {
            free(conn->head);
            conn->head = NULL;
            conn->head_room = 0;
        }
        return true;
    }
    conn->head_bytes = 0;
    return wf_resp_head_add(conn, bytes + at, length - at);
}

/* ------------------------------------------------------------------------------------- commands */

/* A sentence for who does not speak the protocol, and the end. */
static void broken(struct wf_resp_conn *conn, const char *error)
{
    wf_resp_count(&conn->lane->resp->tally.protocol_errors, 1);
    wf_resp_error(conn, "%s", error);
    conn->closing = true;
}

/* A long value begins in the bytes of a command from *at on.  When all of it is there, the head of
 * the command is moved up to what lies behind it.  False: what is behind it is still to be read. */
static bool long_take(struct wf_resp_conn *conn, uint8_t *bytes, size_t *at, size_t length)
{
    size_t head = conn->parser.at;
    uint8_t *command = bytes + *at;
    bool ends_wrong;
    if (!wf_resp_stream_begin(conn, command)) {
        wf_resp_long_inline(&conn->parser);
        return true;
    }
    size_t taken = wf_resp_stream_take(conn, command + head, length - *at - head, &ends_wrong);
    if (ends_wrong) {
        broken(conn, "ERR Protocol error: expected CRLF behind a bulk string");
        return true;
    }
    memmove(command + taken, command, head);
    *at += taken;
    if (conn->stream.end < 2)
        return false;
    wf_resp_stream_end(conn);
    return true;
}

/* Run the command at `bytes`, which is whole. */
static enum wf_resp_done run(struct wf_resp_conn *conn, const uint8_t *bytes)
{
    enum wf_resp_done done = conn->parser.count ? wf_resp_execute(conn, bytes) : WF_RESP_DONE;
    if (done == WF_RESP_AGAIN || done == WF_RESP_WAIT) {
        conn->whole = true;
        conn->waiting = done == WF_RESP_WAIT;
        return done;
    }
    conn->whole = conn->waiting = false;
    conn->progress = 0;
    conn->closing |= done == WF_RESP_CLOSE;
    if (conn->away_count)
        wf_resp_aways_drop(conn);
    return WF_RESP_DONE;
}

/* Everything that can be done with `bytes`.  The rest is kept.  False: the connection ends now. */
static bool consume(struct wf_resp_conn *conn, uint8_t *bytes, size_t length)
{
    size_t at = 0;
    while (!conn->closing && (at < length || conn->whole)) {
        enum wf_resp_parsed parsed = conn->whole
                                         ? WF_RESP_COMMAND
                                         : wf_resp_parse(&conn->parser, bytes + at, length - at);
        if (parsed == WF_RESP_BROKEN) {
            broken(conn, conn->parser.error);
            break;
        }
        if (parsed == WF_RESP_LONG) {
            if (long_take(conn, bytes, &at, length))
                continue;
            break;
        }
        if (parsed == WF_RESP_MORE) {
            if (length - at > WF_RESP_COMMAND_BYTES_MAX)
                broken(conn, "ERR Protocol error: a command of more than 8 MB besides its values");
            break;
        }
        enum wf_resp_done done = run(conn, bytes + at);
        if (done == WF_RESP_DONE) {
            at += conn->parser.at;
            wf_resp_parser_next(&conn->parser);
        }
        if (done == WF_RESP_WAIT)
            break;
        /* What has been answered is read before more is. */
        if (done == WF_RESP_AGAIN || wf_resp_out_full(&conn->out)) {
            int sent = wf_resp_out_flush(conn);
            if (sent < 0)
                return false;
            conn->held_up = sent == 0;
            if (sent == 0)
                break;
        }
    }
    return head_keep(conn, bytes, conn->closing ? length : at, length);
}

/* --------------------------------------------------------------------------------- read and run */

/* `rest` bytes that were read behind the value of a stream are at `bytes`; the command's own head,
 * of `head` bytes, is right before them, or kept (0).  False: the connection ends now. */
static bool behind_value(struct wf_resp_conn *conn, uint8_t *bytes, size_t head, size_t rest)
{
    bool ends_wrong;
    size_t taken = wf_resp_stream_take(conn, bytes, rest, &ends_wrong);
    if (ends_wrong) {
        broken(conn, "ERR Protocol error: expected CRLF behind a bulk string");
        return true;
    }
    if (conn->stream.end < 2)
        return !head || wf_resp_head_add(conn, bytes - head, head);
    wf_resp_stream_end(conn);
    if (head) {
        memmove(bytes + taken - head, bytes - head, head);
        return consume(conn, bytes + taken - head, head + rest - taken);
    }
    return wf_resp_head_add(conn, bytes + taken, rest - taken) &&
           consume(conn, conn->head, conn->head_bytes);
}

/* Bytes from the socket, through the commands in them.  As recv(): 0 the end, < 0 errno. */
static int64_t take_in(struct wf_resp_conn *conn)
{
    struct wf_resp_lane *lane = conn->lane;
    int64_t got;
    size_t rest = 0;
    if (conn->stream.on) {
        got = wf_resp_stream_read(conn, lane->buffer, WF_RESP_READ_BYTES, &rest);
        return got > 0 && !behind_value(conn, lane->buffer, 0, rest) ? 0 : got;
    }
    if (wf_resp_guess_is_good(conn)) {
        size_t head = conn->guess.head;
        got = wf_resp_guess_read(conn, &rest);
        bool alive = got <= 0          ? true
                     : conn->stream.on ? behind_value(conn, lane->buffer + head, head, rest)
                                       : consume(conn, conn->head, conn->head_bytes);
        return alive ? got : 0;
    }
    size_t room = conn->long_last ? SNIFF_BYTES : WF_RESP_READ_BYTES;
    conn->long_last = false;
    got = recv(conn->fd, lane->buffer, room, MSG_DONTWAIT);
    if (got <= 0)
        return got;
    if (!conn->head_bytes)
        return consume(conn, lane->buffer, (size_t)got) ? got : 0;
    if (!wf_resp_head_add(conn, lane->buffer, (size_t)got))
        return 0;
    return consume(conn, conn->head, conn->head_bytes) ? got : 0;
}

static void watch(struct wf_resp_conn *conn, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = conn};
    if (conn->events == events)
        return;
    conn->events = events;
    epoll_ctl(conn->lane->epoll, EPOLL_CTL_MOD, conn->fd, &event);
}

/* Go on with what was read before.  False: it is over. */
static bool go_on(struct wf_resp_conn *conn)
{
    conn->held_up = false;
    if (conn->waiting || conn->closing || (!conn->whole && !conn->head_bytes) || conn->stream.on)
        return true;
    return consume(conn, conn->head, conn->head_bytes);
}

/* Send, and go on with what waited for that; false: the connection is over. */
static bool settle(struct wf_resp_conn *conn)
{
    int sent = wf_resp_out_flush(conn);
    while (sent > 0 && conn->held_up) {
        if (!go_on(conn))
            return false;
        sent = wf_resp_out_flush(conn);
    }
    if (sent < 0 || (sent > 0 && conn->closing))
        return false;
    /* Nothing is read while an answer waits to be, or blocks are on their way. */
    watch(conn, sent == 0 ? EPOLLOUT : conn->waiting ? 0 : EPOLLIN);
    return true;
}

/* Nothing but a short answer is left to be done for it. */
static bool answers_late(const struct wf_resp_conn *conn)
{
    return !wf_resp_out_empty(&conn->out) && !conn->out.segment_count && !conn->held_up &&
           !conn->closing && !conn->waiting && !conn->late && conn->events == EPOLLIN;
}

void wf_resp_conn_run(struct wf_resp_conn *conn, uint32_t events)
{
    bool alive = !(conn->waiting && (events & (EPOLLHUP | EPOLLERR)));
    if (alive && !wf_resp_out_empty(&conn->out))
        alive = settle(conn);
    int64_t left = TURN_BYTES;
    while (alive && left > 0 && !conn->closing && !conn->waiting && wf_resp_out_empty(&conn->out)) {
        bool streamed = conn->stream.on;
        int64_t got = take_in(conn);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (got <= 0) {
            alive = false;
            break;
        }
        left -= got;
        conn->active_ms = conn->lane->now_ms;
        wf_resp_count(&conn->lane->resp->tally.bytes_in, (uint64_t)got);
        if (!streamed && !conn->stream.on)
            break; /* it said what it had to */
    }
    struct wf_resp_lane *lane = conn->lane;
    lane->late_bytes += TURN_BYTES - left;
    if (alive && answers_late(conn)) {
        lane->late[lane->late_count++] = conn;
        conn->late = lane->late_count;
    } else if (!alive || !settle(conn)) {
        wf_resp_conn_close(conn);
    }
    if (lane->late_count == WF_RESP_LATE_MAX || lane->late_bytes >= LATE_BYTES)
        wf_resp_lane_answer(lane);
}

void wf_resp_lane_answer(struct wf_resp_lane *lane)
{
    for (uint32_t i = 0; i < lane->late_count; i++) {
        struct wf_resp_conn *conn = lane->late[i];
        if (!conn)
            continue;
        conn->late = 0;
        if (!settle(conn))
            wf_resp_conn_close(conn);
    }
    lane->late_count = 0;
    lane->late_bytes = 0;
}

void wf_resp_conn_loaded(struct wf_resp_conn *conn)
{
    conn->waiting = false;
    if (!go_on(conn) || !settle(conn))
        wf_resp_conn_close(conn);
}
