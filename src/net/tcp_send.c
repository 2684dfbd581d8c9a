/* SPDX-License-Identifier: Apache-2.0
 *
 * What is to be sent: messages become frames, frames and pieces of payload become batches.
 *
 * A job is done when all of it is assigned to chunks and nothing holds a part of it: neither a
 * batch, whose memory the engine reads, nor a stream that has begun a chunk and not batched all of
 * it.  Then, once, the user has its memory back.
 */
#include "net/tcp_inner.h"

#include <assert.h>
#include <string.h>

static struct tcp_job *message_job(struct wf_net_message *message)
{
    return (struct tcp_job *)message->private;
}

static struct wf_net_message *job_message(const struct tcp_job *job)
{
    return (struct wf_net_message *)((char *)job - offsetof(struct wf_net_message, private));
}

bool wf_tcp_pieces_total(const struct iovec *pieces, uint32_t count, uint64_t *out)
{
    uint64_t total = 0;
    if (count > WF_NET_PIECES_MAX)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].iov_len > WF_NET_PAYLOAD_MAX - total)
            return false;
        total += pieces[i].iov_len;
    }
    *out = total;
    return true;
}

enum weft_status wf_tcp_send(struct tcp_link *link, struct wf_net_message *message)
{
    struct tcp_job *job = message_job(message);
    uint64_t total;
    if (message->header_bytes == 0 || message->header_bytes > WF_NET_HEADER_MAX || !message->sent ||
        !wf_tcp_pieces_total(message->pieces, message->piece_count, &total))
        return wf_fail(WEFT_E_INVALID,
                       "a message with a header of %u bytes and %u pieces of payload; 1 to %u, up "
                       "to %u of 4 GiB together, and `sent`, may be",
                       message->header_bytes, message->piece_count, WF_NET_HEADER_MAX,
                       WF_NET_PIECES_MAX);
    if (link->state != TCP_LINK_UP)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    if (link->message_count >= link->net->options.queue_max)
        return WEFT_PENDING;
    message->payload_bytes = total;
    message->next = NULL;
    *job = (struct tcp_job){.kind = TCP_JOB_MESSAGE, .total = total};
    if (link->last_message)
        link->last_message->next = message;
    else
        link->messages = message;
    link->last_message = message;
    if (!link->fresh)
        link->fresh = message;
    link->message_count++;
    wf_tcp_link_mark(link, true);
    return WEFT_OK;
}

/* ---------------------------------------------------------------------------------------- jobs */

const struct iovec *wf_tcp_job_pieces(struct tcp_link *link, const struct tcp_job *job,
                                      uint32_t *out_count)
{
    const struct wf_net_access *access;
    switch (job->kind) {
    case TCP_JOB_MESSAGE:
        *out_count = job_message(job)->piece_count;
        return job_message(job)->pieces;
    case TCP_JOB_WRITE:
        access = link->asked[job->id].access;
        *out_count = access->piece_count;
        return access->pieces;
    default: *out_count = 1; return &link->serves[job->id].piece;
    }
}

void wf_tcp_job_add(struct tcp_link *link, struct tcp_job *job)
{
    job->next = NULL;
    if (link->last_job)
        link->last_job->next = job;
    else
        link->jobs = job;
    link->last_job = job;
    link->striped += job->kind == TCP_JOB_MESSAGE;
    if (link->stream_count > 1)
        wf_tcp_link_mark(link, true); /* the other streams may have nothing to do */
}

/* The first, all of which is assigned; or one that is given up. */
void wf_tcp_job_remove(struct tcp_link *link, struct tcp_job *job)
{
    struct tcp_job *before = NULL;
    for (struct tcp_job *at = link->jobs; at != job; at = at->next)
        before = at;
    *(before ? &before->next : &link->jobs) = job->next;
    if (link->last_job == job)
        link->last_job = before;
    link->striped -= job->kind == TCP_JOB_MESSAGE;
}

static void message_completed(struct tcp_link *link, struct tcp_job *job)
{
    struct wf_net_message *message = job_message(job), *before = NULL;
    for (struct wf_net_message *at = link->messages; at != message; at = at->next)
        before = at;
    *(before ? &before->next : &link->messages) = message->next;
    if (link->last_message == message)
        link->last_message = before;
    link->message_count--;
    link->net->stats.sent++;
    link->net->stats.sent_bytes += message->header_bytes + message->payload_bytes;
    message->sent(message, WEFT_OK);
}

/* Some of it is held no more. */
void wf_tcp_job_settle(struct tcp_link *link, struct tcp_job *job)
{
    if (--job->parts || job->assigned < job->total || job->done)
        return;
    job->done = 1;
    if (job->kind == TCP_JOB_MESSAGE)
        message_completed(link, job);
    else
        wf_tcp_access_job_done(link, job);
}

void wf_tcp_send_fail_all(struct tcp_link *link)
{
    link->fresh = NULL;
    link->jobs = link->last_job = NULL;
    while (link->messages) {
        struct wf_net_message *message = link->messages;
        link->messages = message->next;
        message->sent(message, WEFT_E_NODE);
    }
    link->last_message = NULL;
}

/* ------------------------------------------------------------------------------------- batches */

static bool batch_room(const struct tcp_batch *batch)
{
    return batch->count + 3 <= TCP_BATCH_PIECES && batch->part_count + 1 <= TCP_BATCH_PARTS &&
           batch->bytes < TCP_BATCH_BYTES &&
           batch->copied + TCP_FRAME_BYTES + TCP_HEADER_COPY <= TCP_BATCH_COPY;
}

static void batch_piece(struct tcp_batch *batch, const void *base, size_t bytes, uint16_t serve)
{
    struct iovec *last = batch->count ? &batch->pieces[batch->count - 1] : NULL;
    batch->bytes += (uint32_t)bytes;
    if (last && batch->serves[batch->count - 1] == serve &&
        (const char *)last->iov_base + last->iov_len == base) {
        last->iov_len += bytes;
        return;
    }
    batch->serves[batch->count] = serve;
    batch->pieces[batch->count++] = (struct iovec){(void *)base, bytes};
}

static void batch_copy(struct tcp_batch *batch, const void *from, size_t bytes)
{
    memcpy(batch->copy + batch->copied, from, bytes);
    batch_piece(batch, batch->copy + batch->copied, bytes, 0);
    batch->copied += (uint32_t)bytes;
}

static void batch_part(struct tcp_batch *batch, struct tcp_job *job)
{
    if (batch->part_count && batch->parts[batch->part_count - 1] == job)
        return;
    batch->parts[batch->part_count++] = job;
    job->parts++;
}

void wf_tcp_batch_frame(struct tcp_stream *stream, struct tcp_batch *batch, struct tcp_frame *frame,
                        const void *header)
{
    frame->sequence = stream->out_sequence++;
    wf_tcp_frame_seal(frame, header, stream->link->seed);
    batch_copy(batch, frame, sizeof *frame);
    if (frame->header_bytes > TCP_HEADER_COPY)
        batch_piece(batch, header, frame->header_bytes, 0);
    else if (frame->header_bytes)
        batch_copy(batch, header, frame->header_bytes);
}

/* A chunk of a job is this stream's: its frame has been put, and its body follows. */
static void chunk_begin(struct tcp_stream *stream, struct tcp_job *job, uint32_t bytes)
{
    uint32_t count;
    const struct iovec *pieces = wf_tcp_job_pieces(stream->link, job, &count);
    stream->out_job = job;
    stream->out_left = bytes;
    stream->out_piece = job->piece;
    stream->out_piece_at = job->piece_at;
    job->parts++;
    job->assigned += bytes;
    struct tcp_cursor cursor = {pieces, count, job->piece, job->piece_at};
    wf_tcp_cursor_skip(&cursor, bytes);
    job->piece = cursor.piece;
    job->piece_at = cursor.at;
}

/* What was withdrawn is not read, and zeros stand for the rest of the chunk that was promised. */
static void chunk_fill_zeros(struct tcp_stream *stream, struct tcp_batch *batch)
{
    batch_part(batch, stream->out_job);
    batch_piece(batch, stream->net->zeros, stream->out_left, 0);
    stream->out_job->parts--;
    stream->out_job = NULL;
    stream->out_left = 0;
}

static void chunk_fill(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_job *job = stream->out_job;
    uint32_t count;
    if (job->kind == TCP_JOB_SERVE && stream->link->serves[job->id].missed) {
        chunk_fill_zeros(stream, batch);
        return;
    }
    const struct iovec *pieces = wf_tcp_job_pieces(stream->link, job, &count);
    uint16_t serve = job->kind == TCP_JOB_SERVE ? (uint16_t)(job->id + 1) : 0;
    batch_part(batch, job);
    while (stream->out_left && batch->count + 1 <= TCP_BATCH_PIECES &&
           batch->bytes < TCP_BATCH_BYTES) {
        const struct iovec *piece = &pieces[stream->out_piece];
        uint64_t bytes = piece->iov_len - stream->out_piece_at;
        if (bytes > stream->out_left)
            bytes = stream->out_left;
        if (bytes > TCP_BATCH_BYTES - batch->bytes)
            bytes = TCP_BATCH_BYTES - batch->bytes;
        if (bytes)
            batch_piece(batch, (char *)piece->iov_base + stream->out_piece_at, bytes, serve);
        stream->out_left -= (uint32_t)bytes;
        stream->out_piece_at += bytes;
        if (stream->out_piece_at == piece->iov_len) {
            stream->out_piece++;
            stream->out_piece_at = 0;
        }
    }
    if (!stream->out_left) {
        stream->out_job = NULL;
        job->parts--; /* the batch holds it */
    }
}

static uint32_t chunk_bytes(const struct tcp_link *link, uint64_t left)
{
    uint32_t most = link->stream_count > 1 ? TCP_STRIPE_BYTES : TCP_BODY_MAX;
    return left < most ? (uint32_t)left : most;
}

static void message_begin(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    struct wf_net_message *message = link->fresh;
    struct tcp_job *job = message_job(message);
    struct tcp_frame frame = {.kind = TCP_MESSAGE,
                              .header_bytes = message->header_bytes,
                              .first = link->out_number,
                              .second = message->payload_bytes};
    if (link->stream_count == 1 || message->payload_bytes <= TCP_INLINE_BYTES)
        frame.body_bytes = chunk_bytes(link, message->payload_bytes);
    job->number = link->out_number++;
    link->fresh = message->next;
    batch_part(batch, job);
    wf_tcp_batch_frame(stream, batch, &frame, message->header);
    if (frame.body_bytes)
        chunk_begin(stream, job, frame.body_bytes);
    if (job->assigned < job->total)
        wf_tcp_job_add(link, job);
}

static void job_continue(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    struct tcp_job *job = link->jobs;
    struct tcp_frame frame = {.id = job->id,
                              .body_bytes = chunk_bytes(link, job->total - job->assigned)};
    struct tcp_range range;
    if (job->kind == TCP_JOB_MESSAGE) {
        frame.kind = TCP_CHUNK;
        frame.first = job->number;
        frame.second = job->assigned;
    } else {
        frame.kind = job->kind == TCP_JOB_WRITE ? TCP_WRITE : TCP_DATA;
        frame.first = job->assigned;
    }
    if (job->kind == TCP_JOB_WRITE) {
        const struct wf_net_access *access = link->asked[job->id].access;
        range = (struct tcp_range){access->handle.number, access->handle.generation, access->offset,
                                   job->total};
        frame.header_bytes = sizeof range;
    }
    wf_tcp_batch_frame(stream, batch, &frame, &range);
    if (frame.body_bytes)
        chunk_begin(stream, job, frame.body_bytes);
    else
        batch_part(batch, job); /* a range of no bytes */
    if (job->assigned == job->total)
        wf_tcp_job_remove(link, job);
}

/* Whether the next message may begin: not between the chunks of another on a single stream.  With
 * several, the receiver reads no further on stream 0 than to a message that it has no slot for, or
 * that has no payload and so waits for those before it: whatever those still need of stream 0 has
 * to come first. */
static bool message_may_begin(const struct tcp_link *link)
{
    const struct tcp_job *job = link->jobs;
    if (!link->fresh || !link->striped)
        return link->fresh;
    if (link->stream_count == 1 || link->fresh->payload_bytes == 0 ||
        link->striped >= TCP_INCOMING_MAX / 4)
        return false;
    while (job->kind != TCP_JOB_MESSAGE)
        job = job->next;
    return link->out_number - job->number < TCP_INCOMING_MAX - 1;
}

static bool batch_add(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    if (stream->out_job) {
        chunk_fill(stream, batch);
    } else if (stream->word_due) {
        struct tcp_frame frame = {.kind = TCP_WORD};
        wf_tcp_batch_frame(stream, batch, &frame, NULL);
        stream->word_due = false;
    } else if (stream->index == 0 && wf_tcp_access_fill(stream, batch)) {
        return true;
    } else if (stream->index == 0 && message_may_begin(link) && !(link->jobs && stream->job_turn)) {
        message_begin(stream, batch);
        stream->job_turn = true;
    } else if (link->jobs) {
        job_continue(stream, batch);
        stream->job_turn = false;
    } else {
        return false;
    }
    return true;
}

static struct tcp_batch *batch_free(struct tcp_stream *stream)
{
    for (uint32_t i = 0; i < TCP_BATCHES; i++) {
        struct tcp_batch *batch = &stream->batches[i];
        if (batch->count == 0 && !batch->waits)
            return batch;
    }
    return NULL;
}

void wf_tcp_send_fill(struct tcp_stream *stream)
{
    if (stream->current)
        return;
    struct tcp_batch *batch = batch_free(stream);
    if (!batch)
        return;
    while (batch_room(batch) && batch_add(stream, batch))
        ;
    if (!batch->count)
        return;
    stream->current = batch;
    batch->zero_copy = stream->link->zero_copy && !stream->tls &&
                       batch->bytes - batch->copied >= TCP_ZERO_COPY_BYTES;
    for (uint32_t i = 0; batch->zero_copy && i < batch->count; i++)
        if (batch->serves[i]) /* what is withdrawn does not wait for the other side */
            batch->zero_copy = false;
}

void wf_tcp_send_advance(struct tcp_batch *batch, size_t bytes)
{
    while (bytes) {
        struct iovec *piece = &batch->pieces[batch->head];
        assert(batch->head < batch->count);
        size_t taken = bytes < piece->iov_len ? bytes : piece->iov_len;
        piece->iov_base = (char *)piece->iov_base + taken;
        piece->iov_len -= taken;
        bytes -= taken;
        if (piece->iov_len == 0)
            batch->head++;
    }
}

/* All of it has been sent. */
void wf_tcp_batch_finish(struct tcp_batch *batch)
{
    struct tcp_stream *stream = batch->stream;
    struct tcp_job *parts[TCP_BATCH_PARTS];
    uint32_t count = batch->part_count;
    if (stream->current == batch)
        stream->current = NULL;
    if (batch->waits)
        return;
    if (batch->zero_copy && !batch->copied_anyway)
        stream->net->stats.zero_copy += count;
    memcpy(parts, batch->parts, count * sizeof parts[0]);
    batch->head = batch->count = batch->part_count = batch->copied = batch->bytes = 0;
    batch->zero_copy = batch->copied_anyway = false;
    for (uint32_t i = 0; i < count; i++)
        wf_tcp_job_settle(stream->link, parts[i]);
}
