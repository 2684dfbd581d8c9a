/* SPDX-License-Identifier: Apache-2.0
 *
 * Bytes that came become messages.
 *
 * What is known to be payload is received where it belongs; frames and headers, and what of a
 * payload came with them, are received into the stream's stage and taken from there.  The stage
 * holds one frame with the longest header and some bytes ahead, so there is always room for what is
 * missing of a frame.
 *
 * Everything in a frame is somebody else's word: numbers are compared with what this side knows,
 * and what does not fit ends the link.
 */
#include "net/tcp_inner.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"

void wf_tcp_cursor_skip(struct tcp_cursor *cursor, uint64_t bytes)
{
    if (!cursor->pieces)
        return;
    while (cursor->piece < cursor->count) {
        uint64_t left = cursor->pieces[cursor->piece].iov_len - cursor->at;
        if (bytes < left) {
            cursor->at += bytes;
            return;
        }
        bytes -= left;
        cursor->piece++;
        cursor->at = 0;
    }
    assert(bytes == 0);
}

static struct tcp_incoming *incoming_of(struct tcp_link *link, uint32_t number)
{
    return &link->incoming[number % TCP_INCOMING_MAX];
}

/* Whether the message of that number has begun and not arrived. */
static bool incoming_open(const struct tcp_link *link, uint32_t number)
{
    return number - link->in_first < link->in_next - link->in_first;
}

/* ------------------------------------------------------------------------------------- room */

/* Pieces of the body, up to `most` bytes of it. */
static uint32_t body_room(struct tcp_stream *stream, uint64_t most, uint64_t *out_bytes)
{
    struct tcp_cursor *cursor = &stream->cursor;
    uint32_t count = 0;
    uint64_t bytes = 0;
    if (!cursor->pieces) {
        bytes = most < TCP_SLICE_BYTES ? most : TCP_SLICE_BYTES;
        stream->in_pieces[count++] = (struct iovec){stream->net->scratch, bytes};
        *out_bytes = bytes;
        return count;
    }
    uint32_t piece = cursor->piece;
    uint64_t at = cursor->at;
    while (bytes < most && count < TCP_RECEIVE_PIECES && piece < cursor->count) {
        uint64_t left = cursor->pieces[piece].iov_len - at;
        if (left > most - bytes)
            left = most - bytes;
        if (left)
            stream->in_pieces[count++] = (struct iovec){(char *)cursor->pieces[piece].iov_base + at,
                                                        left};
        bytes += left;
        piece++;
        at = 0;
    }
    *out_bytes = bytes;
    return count;
}

uint32_t wf_tcp_receive_room(struct tcp_stream *stream, bool *out_all)
{
    uint32_t count = 0;
    uint64_t bytes = 0, most = stream->body_left;
    /* Of several, each its own at once: a link that is slow still has to hear something of each. */
    uint32_t slice = stream->link->stream_count > 1 ? TCP_SLICE_BYTES / 2 : TCP_SLICE_BYTES;
    if (stream->body == TCP_BODY_WRITE)
        wf_tcp_access_body_check(stream);
    if (most) {
        assert(stream->stage_at == stream->stage_end);
        count = body_room(stream, most < slice ? most : slice, &bytes);
    }
    stream->receive_least = (uint32_t)bytes;
    *out_all = bytes < most;
    if (*out_all)
        return count;
    /* With the last of a body, or without one: what comes next, a little of it. */
    if (stream->stage_at == stream->stage_end) {
        stream->stage_at = stream->stage_end = 0;
    } else if (stream->stage_at) {
        memmove(stream->stage, stream->stage + stream->stage_at,
                stream->stage_end - stream->stage_at);
        stream->stage_end -= stream->stage_at;
        stream->stage_at = 0;
    }
    uint32_t wants = stream->read_ahead;
    if (stream->stage_end >= TCP_FRAME_BYTES)
        wants += ((const struct tcp_frame *)stream->stage)->header_bytes;
    if (wants > TCP_STAGE_BYTES - stream->stage_end)
        wants = TCP_STAGE_BYTES - stream->stage_end;
    stream->in_pieces[count++] = (struct iovec){stream->stage + stream->stage_end, wants};
    return count;
}

/* ------------------------------------------------------------------------------------ messages */

/* Messages arrive in order, so what is whole waits for those before it. */
static void arrive(struct tcp_link *link)
{
    struct tcp_net *net = link->net;
    while (link->in_first != link->in_next) {
        struct tcp_incoming *incoming = incoming_of(link, link->in_first);
        if (incoming->done < incoming->total)
            return;
        link->in_first++;
        net->stats.received++;
        if (!incoming->dropped)
            net->options.events.arrived(net->options.events.context, (struct wf_net_link *)link,
                                        incoming->token, WEFT_OK);
        wf_tcp_link_mark(link, true);
        if (link->state != TCP_LINK_UP)
            return;
    }
}

/* The first bytes that are all there; chunks may come in any order. */
static void told_grow(struct tcp_incoming *incoming, uint64_t from, uint64_t to)
{
    if (from > incoming->told) {
        uint32_t i = 0;
        while (i < incoming->range_count && incoming->ranges[i].to != from)
            i++;
        if (i == incoming->range_count && i < TCP_RANGES_MAX)
            incoming->ranges[incoming->range_count++].from = from;
        if (i < incoming->range_count)
            incoming->ranges[i].to = to;
        return; /* one too many: less is told, until it has arrived */
    }
    incoming->told = to;
    for (uint32_t i = 0; i < incoming->range_count; i++)
        if (incoming->ranges[i].from == incoming->told) {
            incoming->told = incoming->ranges[i].to;
            incoming->ranges[i] = incoming->ranges[--incoming->range_count];
            i = UINT32_MAX;
        }
}

static void message_body(struct tcp_stream *stream, uint32_t bytes)
{
    struct tcp_link *link = stream->link;
    struct tcp_net *net = link->net;
    struct tcp_incoming *incoming = incoming_of(link, stream->body_id);
    uint64_t told = incoming->told, from = stream->body_offset - stream->body_left - bytes;
    incoming->done += bytes;
    link->slow_bytes += bytes;
    net->stats.received_bytes += bytes;
    told_grow(incoming, from, from + bytes);
    if (net->options.events.progress && !incoming->dropped && incoming->told > told)
        net->options.events.progress(net->options.events.context, (struct wf_net_link *)link,
                                     incoming->token, incoming->told);
    if (link->state == TCP_LINK_UP && incoming->done == incoming->total)
        arrive(link);
}

/* So many bytes of the stream's body are where they belong. */
static enum weft_status body_placed(struct tcp_stream *stream, uint32_t bytes)
{
    enum weft_status status = WEFT_OK;
    wf_tcp_cursor_skip(&stream->cursor, bytes);
    stream->body_left -= bytes;
    if (stream->body == TCP_BODY_MESSAGE)
        message_body(stream, bytes);
    else
        status = wf_tcp_access_body(stream, bytes, stream->body_left == 0);
    if (!stream->body_left)
        stream->body = TCP_BODY_NONE;
    return status;
}

static void body_begin(struct tcp_stream *stream, struct tcp_incoming *incoming,
                       const struct tcp_frame *frame, uint64_t offset)
{
    incoming->claimed += frame->body_bytes;
    stream->body = TCP_BODY_MESSAGE;
    stream->body_id = incoming->number;
    stream->body_left = frame->body_bytes;
    stream->body_offset = offset + frame->body_bytes;
    stream->cursor = (struct tcp_cursor){.pieces = incoming->dropped ? NULL : incoming->pieces,
                                         .count = incoming->piece_count};
    wf_tcp_cursor_skip(&stream->cursor, offset);
}

/* What the user said of where a payload is to go. */
static void incoming_place(struct tcp_link *link, struct tcp_incoming *incoming, uint32_t count)
{
    uint64_t total;
    incoming->piece_count = count;
    incoming->dropped = count == 0;
    if (count &&
        (!wf_tcp_pieces_total(incoming->pieces, count, &total) || total != incoming->total)) {
        wf_error("net", "pieces that are not of %llu bytes were named for a payload from %s",
                 (unsigned long long)incoming->total, link->peer);
        assert(!"the pieces of a payload have as many bytes as it");
        incoming->dropped = true;
    }
}

static enum weft_status message_frame(struct tcp_stream *stream, const struct tcp_frame *frame,
                                      const void *header)
{
    struct tcp_link *link = stream->link;
    struct tcp_net *net = link->net;
    struct tcp_incoming *incoming = incoming_of(link, link->in_next);
    if (frame->first != link->in_next)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent message %llu after %u others",
                       (unsigned long long)frame->first, link->in_next);
    if (link->in_next - link->in_first >= (frame->second ? TCP_INCOMING_MAX : 1))
        return WEFT_PENDING; /* no slot, or a message without payload behind one with */
    incoming->number = link->in_next;
    incoming->total = frame->second;
    incoming->claimed = incoming->done = incoming->told = 0;
    incoming->range_count = 0;
    incoming->dropped = true;
    incoming->token = NULL;
    net->stats.received_bytes += frame->header_bytes;
    uint32_t count = net->options.events.begun(net->options.events.context,
                                               (struct wf_net_link *)link, header,
                                               frame->header_bytes, frame->second, incoming->pieces,
                                               &incoming->token);
    link->in_next++;
    if (frame->second)
        incoming_place(link, incoming, count);
    else
        arrive(link);
    /* Streams that are ahead may have waited for it. */
    if (frame->body_bytes < frame->second)
        wf_tcp_link_mark(link, true);
    if (frame->body_bytes)
        body_begin(stream, incoming, frame, 0);
    return WEFT_OK;
}

static enum weft_status chunk_frame(struct tcp_stream *stream, const struct tcp_frame *frame)
{
    struct tcp_link *link = stream->link;
    uint32_t number = (uint32_t)frame->first;
    if (frame->first > UINT32_MAX || number - link->in_first > INT32_MAX)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent more of a message that has arrived");
    if (!incoming_open(link, number))
        return stream->index
                   ? WEFT_PENDING
                   : wf_fail(WEFT_E_PROTOCOL, "the other side sent a payload before its message");
    struct tcp_incoming *incoming = incoming_of(link, number);
    if (frame->body_bytes == 0 || frame->second > incoming->total ||
        frame->body_bytes > incoming->total - frame->second ||
        frame->body_bytes > incoming->total - incoming->claimed)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side sent %u bytes at %llu of a payload of %llu, of which it had "
                       "sent %llu",
                       frame->body_bytes, (unsigned long long)frame->second,
                       (unsigned long long)incoming->total, (unsigned long long)incoming->claimed);
    body_begin(stream, incoming, frame, frame->second);
    return WEFT_OK;
}

/* --------------------------------------------------------------------------------------- parse */

/* A frame that is whole, but for its body.  WEFT_PENDING: it has to wait. */
static enum weft_status frame_take(struct tcp_stream *stream, const struct tcp_frame *frame,
                                   const void *header)
{
    switch (frame->kind) {
    case TCP_MESSAGE: return message_frame(stream, frame, header);
    case TCP_CHUNK: return chunk_frame(stream, frame);
    case TCP_WORD: return WEFT_OK;
    default: return wf_tcp_access_frame(stream, frame, header);
    }
}

/* How far to read ahead: what comes with frames and is payload is copied once more, and small
 * messages are best read many at a time. */
static void ahead_adapt(struct tcp_stream *stream, const struct tcp_frame *frame)
{
    if (frame->body_bytes > TCP_READ_AHEAD_MIN)
        stream->read_ahead = TCP_READ_AHEAD_MIN;
    else if (stream->stage_end == stream->stage_at && stream->stage_end >= stream->read_ahead &&
             stream->read_ahead < TCP_READ_AHEAD_MAX)
        stream->read_ahead *= 2;
}

/* What of a body came with its frame. */
static enum weft_status body_from_stage(struct tcp_stream *stream)
{
    uint32_t there = stream->stage_end - stream->stage_at;
    uint32_t bytes = there < stream->body_left ? there : stream->body_left;
    const uint8_t *from = stream->stage + stream->stage_at;
    struct tcp_cursor cursor;
    if (stream->body == TCP_BODY_WRITE)
        wf_tcp_access_body_check(stream);
    cursor = stream->cursor;
    for (uint32_t left = bytes; cursor.pieces && left;) {
        const struct iovec *piece = &cursor.pieces[cursor.piece];
        uint64_t room = piece->iov_len - cursor.at;
        uint32_t some = left < room ? left : (uint32_t)room;
        memcpy((char *)piece->iov_base + cursor.at, from, some);
        wf_tcp_cursor_skip(&cursor, some);
        from += some;
        left -= some;
    }
    stream->stage_at += bytes;
    return body_placed(stream, bytes);
}

enum weft_status wf_tcp_receive_parse(struct tcp_stream *stream)
{
    struct tcp_link *link = stream->link;
    enum weft_status status = WEFT_OK;
    while (link->state == TCP_LINK_UP && status == WEFT_OK) {
        uint32_t there = stream->stage_end - stream->stage_at;
        struct tcp_frame frame;
        if (stream->body_left) {
            if (!there)
                break;
            status = body_from_stage(stream);
            continue;
        }
        if (there < TCP_FRAME_BYTES)
            break;
        memcpy(&frame, stream->stage + stream->stage_at, sizeof frame);
        status = wf_tcp_frame_check(&frame, link->seed, stream->index, stream->in_sequence);
        if (status != WEFT_OK || there < TCP_FRAME_BYTES + frame.header_bytes)
            break;
        const uint8_t *header = stream->stage + stream->stage_at + TCP_FRAME_BYTES;
        status = wf_tcp_frame_verify(&frame, header, link->seed);
        if (status == WEFT_OK)
            status = frame_take(stream, &frame, header);
        if (status != WEFT_OK)
            break;
        stream->in_sequence++;
        stream->stage_at += TCP_FRAME_BYTES + frame.header_bytes;
        ahead_adapt(stream, &frame);
    }
    if (status == WEFT_PENDING) {
        stream->paused = true;
        status = WEFT_OK;
    }
    return status;
}

enum weft_status wf_tcp_receive_consume(struct tcp_stream *stream, size_t bytes)
{
    enum weft_status status = WEFT_OK;
    if (stream->body_left) {
        uint32_t body = bytes < stream->body_left ? (uint32_t)bytes : stream->body_left;
        bytes -= body;
        stream->stage_end += (uint32_t)bytes;
        status = body_placed(stream, body);
    } else {
        stream->stage_end += (uint32_t)bytes;
    }
    return status == WEFT_OK ? wf_tcp_receive_parse(stream) : status;
}

/* The link has ended: what had begun has not arrived. */
void wf_tcp_receive_fail_all(struct tcp_link *link)
{
    struct tcp_net *net = link->net;
    while (link->in_first != link->in_next) {
        struct tcp_incoming *incoming = incoming_of(link, link->in_first++);
        if (!incoming->dropped && incoming->total)
            net->options.events.arrived(net->options.events.context, (struct wf_net_link *)link,
                                        incoming->token, WEFT_E_NODE);
    }
}
