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
#define GUESS_HEAD_MAX ((size_t)1024)
#define GUESS_TIMES 2u /* alike, before the next one is guessed */

static struct wf_resp_blob *room_for(struct wf_resp_conn *conn, uint64_t bytes)
{
    pthread_mutex_lock(&conn->store->lock);
    struct wf_resp_blob *blob = wf_resp_blob_begin(conn->store->pool, bytes);
    pthread_mutex_unlock(&conn->store->lock);
    return blob;
}

static void room_back(struct wf_resp_conn *conn, struct wf_resp_blob *blob)
{
    pthread_mutex_lock(&conn->store->lock);
    wf_resp_blob_drop(conn->store->pool, blob);
    pthread_mutex_unlock(&conn->store->lock);
}

static void guess_learn(struct wf_resp_conn *conn)
{
    struct wf_resp_guess *guess = &conn->guess;
    const struct wf_resp_parser *parser = &conn->parser;
    if (parser->aways) /* one value a command is what is guessed */
        return;
    bool alike = guess->head == parser->at && guess->bytes == parser->long_bytes;
    *guess = (struct wf_resp_guess){.head = parser->at,
                                    .bytes = parser->long_bytes,
                                    .times = alike ? guess->times + (guess->times < GUESS_TIMES)
                                                   : 0};
}

/* False: this argument is no value, and is read like a short one. */
bool wf_resp_stream_begin(struct wf_resp_conn *conn, const uint8_t *command)
{
    struct wf_resp_parser *parser = &conn->parser;
    if (!conn->store || !wf_resp_takes_long(conn, command, parser->count))
        return false;
    conn->long_last = true;
    guess_learn(conn);
    conn->stream = (struct wf_resp_stream){.on = true, .bytes = parser->long_bytes};
    if (conn->away_count < WF_RESP_AWAYS_MAX)
        conn->stream.blob = room_for(conn, parser->long_bytes);
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
    static const char end[] = "\r\n";
    *out_broken = false;
    while (taken < length && stream->offset == stream->bytes && stream->end < 2) {
        *out_broken |= bytes[taken++] != (uint8_t)end[stream->end];
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

bool wf_resp_guess_is_good(const struct wf_resp_conn *conn)
{
    const struct wf_resp_guess *guess = &conn->guess;
    return guess->times >= GUESS_TIMES && conn->store && !conn->head_bytes &&
           guess->head <= GUESS_HEAD_MAX && guess->bytes <= wf_resp_pool_chunk(conn->store->pool);
}

/* Does a command begin at `head` whose value is as long as was guessed, right behind it?  What is
 * no array is not looked at: the parser rewrites it. */
static bool guess_is_true(struct wf_resp_conn *conn, uint8_t *head)
{
    struct wf_resp_parser *parser = &conn->parser;
    bool is = head[0] == '*' && wf_resp_parse(parser, head, conn->guess.head) == WF_RESP_LONG &&
              parser->at == conn->guess.head && parser->long_bytes == conn->guess.bytes &&
              wf_resp_takes_long(conn, head, parser->count);
    if (!is)
        wf_resp_parser_next(parser);
    return is;
}

int64_t wf_resp_guess_read(struct wf_resp_conn *conn, size_t *out_rest)
{
    size_t head = conn->guess.head;
    uint64_t bytes = conn->guess.bytes, room;
    uint8_t *buffer = conn->lane->buffer;
    struct wf_resp_blob *blob = room_for(conn, bytes);
    *out_rest = 0;
    struct iovec vectors[] = {
        {buffer, head},
        {blob ? wf_resp_blob_at(conn->store->pool, blob, 0, &room) : NULL, blob ? bytes : 0},
        {buffer + head, WF_RESP_READ_BYTES - head},
    };
    struct msghdr message = {.msg_iov = vectors, .msg_iovlen = blob ? 3 : 1};
    ssize_t got = recvmsg(conn->fd, &message, MSG_DONTWAIT);
    size_t value = got > (ssize_t)head ? (size_t)got - head : 0;
    value = value < bytes ? value : bytes;
    if (value && guess_is_true(conn, buffer)) {
        conn->long_last = true;
        conn->stream =
            (struct wf_resp_stream){.on = true, .blob = blob, .bytes = bytes, .offset = value};
        *out_rest = (size_t)got - head - value;
        return got;
    }
    conn->guess.times = 0;
    if (got > 0) {
        size_t rest = (size_t)got > head + value ? (size_t)got - head - value : 0;
        bool kept = wf_resp_head_add(conn, buffer, (size_t)got < head ? (size_t)got : head) &&
                    (!value || wf_resp_head_add(conn, vectors[1].iov_base, value)) &&
                    wf_resp_head_add(conn, buffer + head, rest);
        got = kept ? got : 0;
    }
    if (blob)
        room_back(conn, blob);
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
