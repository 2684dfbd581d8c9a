/* SPDX-License-Identifier: Apache-2.0
 *
 * One-sided access, done by the net at the other side.
 *
 * What is exposed is a row of a table: base, size, rights, generation, and a bit for each link that
 * may use it.  A request names row, generation and range, and is looked up; nothing that it says is
 * an address.  It is looked up again whenever bytes are about to move, so that what was withdrawn
 * meanwhile is not touched: the rest of a read is answered with MISS, the rest of a write dropped.
 *
 * The asking side numbers what is under way, 0 … TCP_ACCESS_MAX - 1, and uses a number again when
 * it has the answer; so the serving side has a slot for each and needs no queue that could grow.
 */
#include "net/tcp_inner.h"

#include <string.h>

/* --------------------------------------------------------------------------------- the table */

static struct tcp_exposed *handle_find(struct tcp_net *net, struct wf_net_handle handle)
{
    struct tcp_exposed *exposed;
    if (handle.number >= TCP_HANDLES_MAX)
        return NULL;
    exposed = &net->exposed[handle.number];
    return exposed->used && exposed->generation == handle.generation ? exposed : NULL;
}

static uint64_t link_bit(const struct tcp_link *link)
{
    return (uint64_t)1 << link->index % 64;
}

/* The memory of that range, if this link may use it so; NULL: it may not. */
static uint8_t *range_find(struct tcp_link *link, const struct tcp_range *range, bool write)
{
    const struct tcp_exposed *exposed =
        handle_find(link->net, (struct wf_net_handle){range->number, range->generation});
    if (!exposed || !(exposed->rights & (write ? WF_NET_WRITE : WF_NET_READ)) ||
        !(exposed->links[link->index / 64] & link_bit(link)) || range->bytes > WF_NET_PAYLOAD_MAX ||
        range->offset > exposed->bytes || range->bytes > exposed->bytes - range->offset)
        return NULL;
    return exposed->base + range->offset;
}

enum weft_status wf_tcp_expose(struct wf_net *of, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out)
{
    struct tcp_net *net = (struct tcp_net *)of;
    if (!base || !bytes || !rights || rights > (WF_NET_READ | WF_NET_WRITE))
        return wf_fail(WEFT_E_INVALID, "to expose %zu bytes with rights %u means nothing", bytes,
                       rights);
    for (uint32_t i = 0; i < TCP_HANDLES_MAX; i++) {
        uint32_t number = (net->exposed_next + i) % TCP_HANDLES_MAX;
        struct tcp_exposed *exposed = &net->exposed[number];
        if (exposed->used)
            continue;
        exposed->used = true;
        exposed->generation += exposed->generation == UINT32_MAX ? 2 : 1;
        exposed->rights = rights;
        exposed->base = base;
        exposed->bytes = bytes;
        memset(exposed->links, 0, (net->options.links_max + 63) / 64 * 8);
        net->exposed_next = number + 1;
        *out = (struct wf_net_handle){number, exposed->generation};
        return WEFT_OK;
    }
    return wf_fail(WEFT_E_LIMIT, "this net has exposed %u pieces of memory, as many as it may",
                   TCP_HANDLES_MAX);
}

enum weft_status wf_tcp_grant(struct wf_net_link *of, struct wf_net_handle handle)
{
    struct tcp_link *link = (struct tcp_link *)of;
    struct tcp_exposed *exposed = handle_find(link->net, handle);
    if (!exposed)
        return wf_fail(WEFT_E_INVALID, "handle %u of generation %u is none", handle.number,
                       handle.generation);
    if (link->state == TCP_LINK_ENDS)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    exposed->links[link->index / 64] |= link_bit(link);
    return WEFT_OK;
}

void wf_tcp_access_link_gone(struct tcp_link *link)
{
    for (uint32_t i = 0; i < TCP_HANDLES_MAX; i++)
        link->net->exposed[i].links[link->index / 64] &= ~link_bit(link);
}

/* ------------------------------------------------------------------------------------ withdraw */

static void answer_add(struct tcp_link *link, struct tcp_serve *serve)
{
    serve->state = TCP_SERVE_ANSWER;
    serve->next = NULL;
    *(link->last_answer ? &link->last_answer->next : &link->answers) = serve;
    link->last_answer = serve;
    wf_tcp_link_mark(link, true);
}

static bool serve_is_of(const struct tcp_serve *serve, struct wf_net_handle handle)
{
    return serve->range.number == handle.number && serve->range.generation == handle.generation;
}

/* The engine moves bytes of what is withdrawn over this stream: until it does not. */
static void stream_settle(struct tcp_stream *stream)
{
    stream->net->engine->cancel(stream);
    stream->net->engine->settle(stream);
}

static void stream_withdraw(struct tcp_stream *stream, struct wf_net_handle handle)
{
    struct tcp_link *link = stream->link;
    bool settled = false;
    if (stream->body == TCP_BODY_WRITE && serve_is_of(&link->serves[stream->body_id], handle)) {
        if (stream->receiving && stream->cursor.pieces && !stream->tls) {
            stream_settle(stream);
            settled = true;
        }
        stream->cursor.pieces = NULL;
        link->serves[stream->body_id].missed = true;
    }
    struct tcp_batch *batch = stream->current;
    for (uint32_t i = batch ? batch->head : 0; batch && i < batch->count; i++) {
        if (!batch->serves[i] || !serve_is_of(&link->serves[batch->serves[i] - 1], handle))
            continue;
        if (stream->sending && !settled && !stream->tls) {
            stream_settle(stream);
            settled = true;
        }
        batch->pieces[i].iov_base = stream->net->zeros;
    }
}

/* A read ends here: no more of it becomes chunks, and what its last one lacks is zeros. */
static void serve_withdraw(struct tcp_link *link, struct tcp_serve *serve)
{
    serve->missed = true;
    if (serve->job.assigned == serve->job.total)
        return;
    wf_tcp_job_remove(link, &serve->job);
    serve->job.total = serve->job.assigned;
    if (!serve->job.parts)
        answer_add(link, serve);
}

void wf_tcp_withdraw(struct wf_net *of, struct wf_net_handle handle)
{
    struct tcp_net *net = (struct tcp_net *)of;
    struct tcp_exposed *exposed = handle_find(net, handle);
    if (!exposed)
        return;
    exposed->used = false;
    for (uint32_t i = 0, seen = 0; i < net->options.links_max && seen < net->link_count; i++) {
        struct tcp_link *link = net->links[i];
        if (!link)
            continue;
        seen++;
        for (uint32_t k = 0; link->state != TCP_LINK_ENDS && k < TCP_ACCESS_MAX; k++)
            if (link->serves[k].state == TCP_SERVE_READ && serve_is_of(&link->serves[k], handle))
                serve_withdraw(link, &link->serves[k]);
        for (uint32_t k = 0; k < WF_NET_STREAMS_MAX; k++)
            if (link->streams[k])
                stream_withdraw(link->streams[k], handle);
    }
    wf_tcp_leave(net);
}

/* -------------------------------------------------------------------------------- being asked */

static enum weft_status slot_nonsense(uint32_t id)
{
    return wf_fail(WEFT_E_PROTOCOL, "the other side asks with number %u, which is in use", id);
}

static enum weft_status read_frame(struct tcp_link *link, const struct tcp_frame *frame,
                                   const struct tcp_range *range)
{
    struct tcp_serve *serve = &link->serves[frame->id];
    if (serve->state != TCP_SERVE_FREE)
        return slot_nonsense(frame->id);
    uint8_t *base = range_find(link, range, false);
    *serve = (struct tcp_serve){.state = TCP_SERVE_READ,
                                .range = *range,
                                .missed = !base,
                                .piece = {base, range->bytes},
                                .job = {.kind = TCP_JOB_SERVE, .id = frame->id}};
    if (!base || !range->bytes) {
        answer_add(link, serve);
        return WEFT_OK;
    }
    serve->job.total = range->bytes;
    wf_tcp_job_add(link, &serve->job);
    wf_tcp_link_mark(link, true);
    return WEFT_OK;
}

static void write_answer(struct tcp_link *link, struct tcp_serve *serve)
{
    if (serve->placed == serve->range.bytes)
        answer_add(link, serve);
}

static enum weft_status write_frame(struct tcp_stream *stream, const struct tcp_frame *frame,
                                    const struct tcp_range *range)
{
    struct tcp_link *link = stream->link;
    struct tcp_serve *serve = &link->serves[frame->id];
    if (serve->state == TCP_SERVE_FREE)
        *serve = (struct tcp_serve){.state = TCP_SERVE_WRITE,
                                    .write = true,
                                    .range = *range,
                                    .missed = !range_find(link, range, true)};
    else if (serve->state != TCP_SERVE_WRITE || memcmp(&serve->range, range, sizeof *range) != 0)
        return slot_nonsense(frame->id);
    if (frame->first > range->bytes || frame->body_bytes > range->bytes - frame->first ||
        frame->body_bytes > range->bytes - serve->claimed ||
        (frame->body_bytes == 0) != (range->bytes == 0))
        return wf_fail(WEFT_E_PROTOCOL, "the other side writes %u bytes at %llu of a range of %llu",
                       frame->body_bytes, (unsigned long long)frame->first,
                       (unsigned long long)range->bytes);
    serve->claimed += frame->body_bytes;
    if (!frame->body_bytes) {
        write_answer(link, serve);
        return WEFT_OK;
    }
    stream->body = TCP_BODY_WRITE;
    stream->body_id = frame->id;
    stream->body_left = frame->body_bytes;
    stream->cursor = (struct tcp_cursor){0};
    if (!serve->missed) {
        uint8_t *base = range_find(link, range, true);
        stream->cursor_piece = (struct iovec){base ? base + frame->first : NULL, frame->body_bytes};
        stream->cursor = (struct tcp_cursor){.pieces = base ? &stream->cursor_piece : NULL,
                                             .count = 1};
    }
    return WEFT_OK;
}

void wf_tcp_access_body_check(struct tcp_stream *stream)
{
    struct tcp_serve *serve = &stream->link->serves[stream->body_id];
    if (serve->missed || range_find(stream->link, &serve->range, true))
        return;
    serve->missed = true;
    stream->cursor.pieces = NULL;
}

/* ------------------------------------------------------------------------------------- asking */

static struct tcp_job *access_job(struct wf_net_access *access)
{
    return (struct tcp_job *)access->private;
}

enum weft_status wf_tcp_access(struct tcp_link *link, struct wf_net_access *access)
{
    uint64_t total;
    if (!access->done || !wf_tcp_pieces_total(access->pieces, access->piece_count, &total) ||
        !total)
        return wf_fail(WEFT_E_INVALID,
                       "an access with %u pieces; 1 to %u of up to 4 GiB together, and "
                       "`done`, may be",
                       access->piece_count, WF_NET_PIECES_MAX);
    if (link->state != TCP_LINK_UP)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    if (link->access_count >= link->net->options.queue_max)
        return WEFT_PENDING;
    *access_job(access) = (struct tcp_job){.kind = TCP_JOB_WRITE, .total = total};
    access->next = NULL;
    if (link->last_access)
        link->last_access->next = access;
    else
        link->accesses = access;
    link->last_access = access;
    if (!link->fresh_access)
        link->fresh_access = access;
    link->access_count++;
    wf_tcp_link_mark(link, true);
    return WEFT_OK;
}

static void asked_settle(struct tcp_link *link, struct tcp_asked *asked)
{
    struct wf_net_access *access = asked->access, *before = NULL;
    if (access->write ? !asked->answered || !access_job(access)->done
                      : !asked->answered || asked->arrived < asked->expected)
        return;
    for (struct wf_net_access *at = link->accesses; at != access; at = at->next)
        before = at;
    *(before ? &before->next : &link->accesses) = access->next;
    if (link->last_access == access)
        link->last_access = before;
    link->access_count--;
    link->asked_count--;
    asked->access = NULL;
    wf_tcp_link_mark(link, true);
    access->done(access, asked->missed ? WEFT_MISS : WEFT_OK);
}

static void ask(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    struct wf_net_access *access = link->fresh_access;
    struct tcp_job *job = access_job(access);
    uint16_t id = 0;
    while (link->asked[id].access)
        id++;
    link->fresh_access = access->next;
    link->asked_count++;
    link->asked[id] = (struct tcp_asked){.access = access, .expected = job->total};
    job->id = id;
    if (access->write) {
        wf_tcp_job_add(link, job);
        return;
    }
    struct tcp_range range = {access->handle.number, access->handle.generation, access->offset,
                              job->total};
    struct tcp_frame frame = {.kind = TCP_READ, .id = id, .header_bytes = sizeof range};
    wf_tcp_batch_frame(stream, batch, &frame, &range);
}

static void answer(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    struct tcp_serve *serve = link->answers;
    struct tcp_frame frame = {.kind = TCP_ANSWER,
                              .flags = serve->missed ? TCP_MISS : 0,
                              .id = (uint16_t)(serve - link->serves),
                              .first = serve->write ? 0 : serve->job.assigned};
    link->answers = serve->next;
    if (!link->answers)
        link->last_answer = NULL;
    serve->state = TCP_SERVE_FREE;
    wf_tcp_batch_frame(stream, batch, &frame, NULL);
}

bool wf_tcp_access_fill(struct tcp_stream *stream, struct tcp_batch *batch)
{
    struct tcp_link *link = stream->link;
    if (link->answers)
        answer(stream, batch);
    else if (link->fresh_access && link->asked_count < TCP_ACCESS_MAX)
        ask(stream, batch);
    else
        return false;
    return true;
}

/* All of a job's bytes have gone. */
void wf_tcp_access_job_done(struct tcp_link *link, struct tcp_job *job)
{
    if (job->kind == TCP_JOB_WRITE) {
        asked_settle(link, &link->asked[job->id]);
        return;
    }
    answer_add(link, &link->serves[job->id]);
}

static enum weft_status data_frame(struct tcp_stream *stream, const struct tcp_frame *frame,
                                   struct tcp_asked *asked)
{
    struct wf_net_access *access = asked->access;
    uint64_t total = access_job(access)->total;
    if (frame->first > total || frame->body_bytes > total - frame->first ||
        frame->body_bytes > asked->expected - asked->claimed || !frame->body_bytes)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side answers a read of %llu bytes with %u at %llu",
                       (unsigned long long)total, frame->body_bytes,
                       (unsigned long long)frame->first);
    asked->claimed += frame->body_bytes;
    stream->body = TCP_BODY_DATA;
    stream->body_id = frame->id;
    stream->body_left = frame->body_bytes;
    stream->cursor = (struct tcp_cursor){.pieces = access->pieces, .count = access->piece_count};
    wf_tcp_cursor_skip(&stream->cursor, frame->first);
    return WEFT_OK;
}

static enum weft_status answer_frame(struct tcp_link *link, const struct tcp_frame *frame,
                                     struct tcp_asked *asked)
{
    bool missed = frame->flags == TCP_MISS;
    if (!asked->access->write && (frame->first < asked->claimed || frame->first > asked->expected ||
                                  (!missed && frame->first < asked->expected)))
        return wf_fail(WEFT_E_PROTOCOL, "the other side says that it has sent %llu bytes of %llu",
                       (unsigned long long)frame->first, (unsigned long long)asked->expected);
    asked->expected = frame->first;
    asked->answered = true;
    asked->missed = missed;
    asked_settle(link, asked);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------- frames */

enum weft_status wf_tcp_access_frame(struct tcp_stream *stream, const struct tcp_frame *frame,
                                     const void *header)
{
    struct tcp_link *link = stream->link;
    struct tcp_asked *asked;
    struct tcp_range range;
    if (frame->id >= TCP_ACCESS_MAX)
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side asks or answers with number %u; up to %u may be", frame->id,
                       TCP_ACCESS_MAX - 1);
    if (frame->kind == TCP_READ || frame->kind == TCP_WRITE) {
        memcpy(&range, header, sizeof range);
        return frame->kind == TCP_READ ? read_frame(link, frame, &range)
                                       : write_frame(stream, frame, &range);
    }
    asked = &link->asked[frame->id];
    if (!asked->access || (frame->kind == TCP_DATA ? asked->access->write : asked->answered))
        return wf_fail(WEFT_E_PROTOCOL, "the other side answers what it was not asked");
    return frame->kind == TCP_DATA ? data_frame(stream, frame, asked)
                                   : answer_frame(link, frame, asked);
}

enum weft_status wf_tcp_access_body(struct tcp_stream *stream, uint32_t bytes, bool end)
{
    struct tcp_link *link = stream->link;
    link->net->stats.received_bytes += bytes;
    (void)end;
    if (stream->body == TCP_BODY_WRITE) {
        link->serves[stream->body_id].placed += bytes;
        write_answer(link, &link->serves[stream->body_id]);
    } else {
        link->asked[stream->body_id].arrived += bytes;
        asked_settle(link, &link->asked[stream->body_id]);
    }
    return WEFT_OK;
}

void wf_tcp_access_fail_all(struct tcp_link *link)
{
    link->fresh_access = NULL;
    link->answers = link->last_answer = NULL;
    while (link->accesses) {
        struct wf_net_access *access = link->accesses;
        link->accesses = access->next;
        access->done(access, WEFT_E_NODE);
    }
    link->last_access = NULL;
}
