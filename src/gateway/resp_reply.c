/* SPDX-License-Identifier: Apache-2.0
 *
 * Answers: bytes of ours, and pinned blocks between them, sent with as few calls as it takes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gateway/resp_inner.h"
#include "sys/memory.h"

#define VECTORS_MAX 64
#define BYTES_KEPT ((size_t)16 << 10) /* of an empty buffer */

static void segments_let_go(struct wf_resp_out *out)
{
    for (uint32_t i = out->segments_sent; i < out->segment_count; i++)
        weft_unpin(&out->segments[i].pin);
    out->segment_count = out->segments_sent = 0;
    out->segment_sent = 0;
}

void wf_resp_out_fini(struct wf_resp_out *out)
{
    segments_let_go(out);
    free(out->segments);
    free(out->bytes);
    memset(out, 0, sizeof *out);
}

bool wf_resp_out_full(const struct wf_resp_out *out)
{
    return out->used >= WF_RESP_OUT_BYTES || out->segment_count >= WF_RESP_OUT_PINS;
}

bool wf_resp_out_empty(const struct wf_resp_out *out)
{
    return out->bytes_sent == out->used && out->segments_sent == out->segment_count;
}

/* ----------------------------------------------------------------------------------------- send */

static size_t vectors_fill(const struct wf_resp_out *out, struct iovec *vectors)
{
    size_t count = 0, at = out->bytes_sent;
    uint64_t skip = out->segment_sent;
    for (uint32_t i = out->segments_sent; count + 2 <= VECTORS_MAX; i++) {
        size_t until = i < out->segment_count ? out->segments[i].at : out->used;
        if (until > at)
            vectors[count++] = (struct iovec){out->bytes + at, until - at};
        at = until;
        if (i >= out->segment_count)
            break;
        const struct wf_resp_segment *segment = &out->segments[i];
        if (segment->length > skip)
            vectors[count++] = (struct iovec){(void *)(uintptr_t)(segment->data + skip),
                                              segment->length - skip};
        skip = 0;
    }
    return count;
}

/* `sent` bytes went out: past them. */
static void sent_take(struct wf_resp_out *out, size_t sent)
{
    for (;;) {
        size_t until = out->segments_sent < out->segment_count
                           ? out->segments[out->segments_sent].at
                           : out->used;
        size_t bytes = until - out->bytes_sent < sent ? until - out->bytes_sent : sent;
        out->bytes_sent += bytes;
        sent -= bytes;
        if (out->bytes_sent < until || out->segments_sent == out->segment_count)
            return;
        struct wf_resp_segment *segment = &out->segments[out->segments_sent];
        uint64_t left = segment->length - out->segment_sent;
        if (sent < left) {
            out->segment_sent += sent;
            return;
        }
        sent -= left;
        weft_unpin(&segment->pin);
        out->segments_sent++;
        out->segment_sent = 0;
    }
}

static void reset(struct wf_resp_out *out)
{
    out->used = out->bytes_sent = 0;
    out->segment_count = out->segments_sent = 0;
    if (out->room > BYTES_KEPT) {
        free(out->bytes);
        out->bytes = NULL;
        out->room = 0;
    }
}

int wf_resp_out_flush(struct wf_resp_conn *conn)
{
    struct wf_resp_out *out = &conn->out;
    struct iovec vectors[VECTORS_MAX];
    if (out->failed)
        return -1;
    while (!wf_resp_out_empty(out)) {
        struct msghdr message = {.msg_iov = vectors, .msg_iovlen = vectors_fill(out, vectors)};
        ssize_t sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        sent_take(out, (size_t)sent);
        wf_resp_count(&conn->lane->resp->tally.bytes_out, (uint64_t)sent);
        conn->active_ms = conn->lane->now_ms;
    }
    reset(out);
    return 1;
}

/* ---------------------------------------------------------------------------------------- write */

static uint8_t *room_for(struct wf_resp_out *out, size_t length)
{
    if (out->room - out->used < length) {
        size_t room = out->room ? 2 * out->room : 1024;
        while (room - out->used < length)
            room *= 2;
        void *more = wf_realloc(out->bytes, room, "an answer");
        if (!more) {
            out->failed = true;
            return NULL;
        }
        out->bytes = more;
        out->room = room;
    }
    out->used += length;
    return out->bytes + out->used - length;
}

void wf_resp_raw(struct wf_resp_conn *conn, const void *bytes, size_t length)
{
    uint8_t *to = room_for(&conn->out, length);
    if (to && length)
        memcpy(to, bytes, length);
}

void wf_resp_text(struct wf_resp_conn *conn, const char *line)
{
    wf_resp_raw(conn, line, strlen(line));
    wf_resp_raw(conn, "\r\n", 2);
}

void wf_resp_format(struct wf_resp_conn *conn, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    wf_resp_raw(conn, text,
                length < 0                     ? 0
                : (size_t)length < sizeof text ? (size_t)length
                                               : sizeof text - 1);
}

/* A line of its own, whatever a client had us quote. */
void wf_resp_error(struct wf_resp_conn *conn, const char *format, ...)
{
    char text[512] = "-";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + 1, sizeof text - 1, format, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++)
        if (*at == '\r' || *at == '\n')
            *at = ' ';
    wf_resp_text(conn, text);
}

void wf_resp_ok(struct wf_resp_conn *conn)
{
    wf_resp_raw(conn, "+OK\r\n", 5);
}

void wf_resp_nil(struct wf_resp_conn *conn)
{
    wf_resp_text(conn, conn->protocol == 3 ? "_" : "$-1");
}

/* Type, number, end of line. */
static void header(struct wf_resp_conn *conn, char type, uint64_t number, bool negative)
{
    char text[24];
    size_t at = sizeof text;
    text[--at] = '\n';
    text[--at] = '\r';
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    if (negative)
        text[--at] = '-';
    text[--at] = type;
    wf_resp_raw(conn, text + at, sizeof text - at);
}

void wf_resp_integer(struct wf_resp_conn *conn, int64_t value)
{
    header(conn, ':', value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
}

void wf_resp_array(struct wf_resp_conn *conn, uint64_t count)
{
    header(conn, '*', count, false);
}

void wf_resp_map(struct wf_resp_conn *conn, uint64_t pairs)
{
    if (conn->protocol == 3)
        header(conn, '%', pairs, false);
    else
        header(conn, '*', 2 * pairs, false);
}

void wf_resp_bulk(struct wf_resp_conn *conn, const void *bytes, size_t length)
{
    header(conn, '$', length, false);
    wf_resp_raw(conn, bytes, length);
    wf_resp_raw(conn, "\r\n", 2);
}

void wf_resp_word(struct wf_resp_conn *conn, const char *word)
{
    wf_resp_bulk(conn, word, strlen(word));
}

static bool segment_room(struct wf_resp_out *out, uint32_t count)
{
    if (out->segment_room - out->segment_count >= count)
        return true;
    uint32_t room = out->segment_room ? out->segment_room : 4;
    while (room - out->segment_count < count)
        room *= 2;
    void *more = wf_realloc(out->segments, room * sizeof *out->segments, "an answer");
    if (!more)
        return false;
    out->segments = more;
    out->segment_room = room;
    return true;
}

void wf_resp_pinned(struct wf_resp_conn *conn, const struct wf_resp_blob *blob,
                    const struct wf_resp_pool *pool, const struct weft_pin *pins)
{
    struct wf_resp_out *out = &conn->out;
    if (!segment_room(out, blob->count)) {
        for (uint32_t i = 0; i < blob->count; i++) {
            struct weft_pin pin = pins[i];
            weft_unpin(&pin);
        }
        out->failed = true;
        return;
    }
    header(conn, '$', blob->bytes, false);
    for (uint32_t i = 0; i < blob->count; i++)
        out->segments[out->segment_count++] =
            (struct wf_resp_segment){.at = out->used,
                                     .data = pins[i].data,
                                     .length = wf_resp_piece_bytes(pool, blob, i),
                                     .pin = pins[i]};
    wf_resp_raw(conn, "\r\n", 2);
}
