/* SPDX-License-Identifier: Apache-2.0
 *
 * Long values: from the socket straight into the blocks that were reserved for them.
 *
 * What came along with the head of the command was read into the lane's buffer and is copied; all
 * the rest the kernel writes where it stays.  The last read of a value asks for what lies behind
 * it, too, so that a value costs no call more than its bytes do.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gateway/resp_inner.h"

#define VECTORS_MAX 8

/* False: this argument is no value, and is read like a short one. */
bool wf_resp_stream_begin(struct wf_resp_conn *conn, const uint8_t *command)
{
    struct wf_resp_parser *parser = &conn->parser;
    if (!conn->store || !wf_resp_takes_long(conn, command, parser->count))
        return false;
    conn->long_last = true;
    conn->stream = (struct wf_resp_stream){.on = true, .bytes = parser->long_bytes};
    if (conn->away_count < WF_RESP_AWAYS_MAX) {
        pthread_mutex_lock(&conn->store->lock);
        conn->stream.blob = wf_resp_blob_begin(conn->store->pool, parser->long_bytes);
        pthread_mutex_unlock(&conn->store->lock);
    }
    return true;
}

size_t wf_resp_stream_take(struct wf_resp_conn *conn, const uint8_t *bytes, size_t length,
                           bool *out_broken)
{
    struct wf_resp_stream *stream = &conn->stream;
    size_t taken = 0;
    while (taken < length && stream->offset < stream->bytes) {
        uint64_t n = stream->bytes - stream->offset, room;
        n = n < length - taken ? n : length - taken;
        if (stream->blob) {
            uint8_t *to = wf_resp_blob_at(conn->store->pool, stream->blob, stream->offset, &room);
            n = n < room ? n : room;
            memcpy(to, bytes + taken, n);
        }
        stream->offset += n;
        taken += n;
    }
    *out_broken = false;
    while (taken < length && stream->offset == stream->bytes && stream->end < 2) {
        *out_broken |= bytes[taken++] != "\r\n"[stream->end];
        stream->end++;
    }
    return taken;
}

int64_t wf_resp_stream_read(struct wf_resp_conn *conn, uint8_t *rest, size_t room, size_t *out_rest)
{
    struct wf_resp_stream *stream = &conn->stream;
    struct iovec vectors[VECTORS_MAX];
    int count = 0;
    uint64_t offset = stream->offset;
    if (stream->blob)
        for (; count < VECTORS_MAX - 1 && offset < stream->bytes; count++) {
            uint64_t piece;
            vectors[count].iov_base = wf_resp_blob_at(conn->store->pool, stream->blob, offset,
                                                      &piece);
            vectors[count].iov_len = piece;
            offset += piece;
        }
    if (offset == stream->bytes || !stream->blob)
        vectors[count++] = (struct iovec){rest, room};
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = (size_t)count};
    ssize_t got = recvmsg(conn->fd, &message, MSG_DONTWAIT);
    if (got <= 0)
        return got;
    uint64_t into = stream->blob ? offset - stream->offset : 0;
    into = into < (uint64_t)got ? into : (uint64_t)got;
    stream->offset += into;
    *out_rest = (size_t)got - into;
    return got;
}

/* Its bytes and end are all there: it is an argument of the command. */
void wf_resp_stream_end(struct wf_resp_conn *conn)
{
    if (conn->away_count < WF_RESP_AWAYS_MAX)
        conn->aways[conn->away_count++] = conn->stream.blob;
    conn->stream = (struct wf_resp_stream){.on = false};
    wf_resp_long_away(&conn->parser);
}

/* Values that no command took, and one that was not all sent. */
void wf_resp_aways_drop(struct wf_resp_conn *conn)
{
    bool any = conn->stream.blob != NULL;
    for (uint32_t i = 0; i < conn->away_count; i++)
        any |= conn->aways[i] != NULL;
    if (any) {
        pthread_mutex_lock(&conn->store->lock);
        for (uint32_t i = 0; i < conn->away_count; i++)
            if (conn->aways[i])
                wf_resp_blob_drop(conn->store->pool, conn->aways[i]);
        if (conn->stream.blob)
            wf_resp_blob_drop(conn->store->pool, conn->stream.blob);
        pthread_mutex_unlock(&conn->store->lock);
    }
    conn->away_count = 0;
    conn->stream = (struct wf_resp_stream){.on = false};
}
