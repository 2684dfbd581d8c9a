/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages over UCX: frames out, frames in, in order, and no more of them than the window.
 *
 * Out: a message waits until its frames (one, or two with a long header) fit into the window that
 * the other side has left and there are buffers for them, which there always are then.  UCX has the
 * frame and the payload until it says that it has done with them; then `sent` is due.
 *
 * In: UCX hands over active messages in about the order in which they were sent, and a rendezvous
 * only announces data.  So a frame is noted in a ring by its number, and delivered when all before
 * it were.  Payloads of consecutive messages may arrive side by side; `arrived` is called in order,
 * and a message without a payload, which has arrived when it begins, waits for those before it.
 */
#include "net/ucx.h"

#include <assert.h>
#include <string.h>

#include "base/sum.h"

_Static_assert(sizeof(struct iovec) == sizeof(ucp_dt_iov_t) &&
                   offsetof(struct iovec, iov_base) == offsetof(ucp_dt_iov_t, buffer) &&
                   offsetof(struct iovec, iov_len) == offsetof(ucp_dt_iov_t, length),
               "pieces are given to UCX as they are");

/* ------------------------------------------------------------------------------------- to UCX */

static uint64_t frame_sum(const struct wf_ucx_frame *frame, const void *body)
{
    uint64_t sum = wf_sum64(frame, offsetof(struct wf_ucx_frame, sum));
    return frame->body_bytes ? wf_sum64_seeded(body, frame->body_bytes, sum) : sum;
}

static ucs_status_t begun(struct wf_net_link *link, ucs_status_ptr_t request)
{
    if (UCS_PTR_IS_ERR(request)) {
        ucs_status_t status = UCS_PTR_STATUS(request);
        wf_ucx_link_fail(link, WEFT_E_NODE, "the fabric takes nothing for %s any more: %s",
                         link->peer, link->net->lib->ucs_status_string(status));
        return status;
    }
    if (!request)
        return UCS_OK;
    link->in_flight++;
    link->net->in_flight++;
    return UCS_INPROGRESS;
}

void wf_ucx_request_done(struct wf_net_link *link, void *request)
{
    link->in_flight--;
    link->net->in_flight--;
    link->net->lib->ucp_request_free(request);
    wf_ucx_todo(link);
}

static void describe(ucp_request_param_t *param, const struct iovec **pieces, uint32_t *count,
                     uint64_t bytes, const void **out_buffer, size_t *out_count)
{
    param->op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE | UCP_OP_ATTR_FIELD_CALLBACK |
                           UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
    if (*count > 1) {
        param->datatype = ucp_dt_make_iov();
        *out_buffer = *pieces;
        *out_count = *count;
    } else {
        param->datatype = ucp_dt_make_contig(1);
        *out_buffer = bytes ? (*pieces)[0].iov_base : NULL;
        *out_count = bytes;
    }
}

ucs_status_t wf_ucx_put_out(struct wf_net_link *link, struct wf_ucx_out *out, enum wf_ucx_kind kind,
                            uint32_t body_bytes, const struct iovec *pieces, uint32_t piece_count,
                            uint64_t bytes, ucp_send_nbx_callback_t done, void *user)
{
    bool eager = bytes <= link->eager_max || kind == WF_UCX_HEADER;
    ucp_request_param_t param = {
        .flags = bytes ? (eager ? UCP_AM_SEND_FLAG_EAGER : UCP_AM_SEND_FLAG_RNDV) : 0,
        .cb.send = done,
        .user_data = user,
    };
    const void *buffer;
    size_t count;
    if (link->state >= WF_UCX_ENDING || !link->endpoint)
        return UCS_ERR_NOT_CONNECTED;
    out->link = link;
    out->frame = (struct wf_ucx_frame){
        .token = link->token_out,
        .number = kind == WF_UCX_MESSAGE || kind == WF_UCX_HEADER ? ++link->number_out : 0,
        .taken = link->taken_in,
        .link = link->peer_number,
        .kind = (uint8_t)kind,
        .body_bytes = (uint16_t)body_bytes,
    };
    out->frame.sum = frame_sum(&out->frame, out->body);
    link->taken_said = link->taken_in;
    describe(&param, &pieces, &piece_count, bytes, &buffer, &count);
    return begun(link, link->net->lib->ucp_am_send_nbx(link->endpoint, 0, &out->frame,
                                                       sizeof out->frame + body_bytes, buffer,
                                                       count, &param));
}

void wf_ucx_drop(struct wf_net *net, struct wf_ucx_data *data)
{
    if (data->data)
        net->lib->ucp_am_data_release(net->worker, data->data);
    data->data = NULL;
}

ucs_status_t wf_ucx_take_in(struct wf_net_link *link, struct wf_ucx_data *data,
                            const struct iovec *pieces, uint32_t piece_count,
                            ucp_am_recv_data_nbx_callback_t done, void *user)
{
    ucp_request_param_t param = {.cb.recv_am = done, .user_data = user};
    const uint8_t *from = data->data;
    const void *buffer;
    size_t count;
    if (data->rendezvous) {
        data->data = NULL;
        describe(&param, &pieces, &piece_count, data->bytes, &buffer, &count);
        return begun(link, link->net->lib->ucp_am_recv_data_nbx(link->net->worker, (void *)from,
                                                                (void *)buffer, count, &param));
    }
    /* UCX 1.13 keeps the buffer of what it places outside of its callback, for ever. */
    for (uint32_t i = 0; i < piece_count; from += pieces[i++].iov_len)
        if (pieces[i].iov_len)
            memcpy(pieces[i].iov_base, from, pieces[i].iov_len);
    wf_ucx_drop(link->net, data);
    return UCS_OK;
}

/* ---------------------------------------------------------------------------------------- out */

/* Of wf_net_message.private: */
enum { FRAMES_LEFT, STATUS };

static void fifo_add(struct wf_ucx_fifo *fifo, struct wf_net_message *message)
{
    message->next = NULL;
    *fifo->tail = message;
    fifo->tail = &message->next;
}

static struct wf_net_message *fifo_take(struct wf_ucx_fifo *fifo)
{
    struct wf_net_message *message = fifo->head;
    if (message) {
        fifo->head = message->next;
        if (!fifo->head)
            fifo->tail = &fifo->head;
    }
    return message;
}

void wf_ucx_message_begin(struct wf_net_link *link)
{
    link->waiting.tail = &link->waiting.head;
    link->finished.tail = &link->finished.head;
    for (uint32_t i = WF_UCX_WINDOW; i-- > 0;) {
        link->outs[i].next = link->outs_free;
        link->outs_free = &link->outs[i];
    }
}

static void frame_finished(struct wf_ucx_out *out, ucs_status_t status)
{
    struct wf_net_link *link = out->link;
    struct wf_net_message *message = out->user;
    out->next = link->outs_free;
    link->outs_free = out;
    if (status != UCS_OK)
        message->private[STATUS] = 1;
    if (--message->private[FRAMES_LEFT] == 0)
        fifo_add(&link->finished, message);
    wf_ucx_todo(link);
}

static void frame_sent(void *request, ucs_status_t status, void *user)
{
    struct wf_ucx_out *out = user;
    wf_ucx_request_done(out->link, request);
    frame_finished(out, status);
}

static void frame_put(struct wf_net_link *link, struct wf_net_message *message,
                      enum wf_ucx_kind kind, const void *body, uint32_t body_bytes,
                      const struct iovec *pieces, uint32_t piece_count, uint64_t bytes)
{
    struct wf_ucx_out *out = link->outs_free;
    link->outs_free = out->next;
    out->link = link;
    out->user = message;
    memcpy(out->body, body, body_bytes);
    ucs_status_t status = wf_ucx_put_out(link, out, kind, body_bytes, pieces, piece_count, bytes,
                                         frame_sent, out);
    if (status != UCS_INPROGRESS)
        frame_finished(out, status);
}

/* Into UCX with what waits, as far as the window goes. */
static void push(struct wf_net_link *link)
{
    struct wf_net_message *message;
    while (link->state == WF_UCX_UP && (message = link->waiting.head)) {
        bool lengthy = message->header_bytes > WF_UCX_BODY_MAX;
        if (link->number_out - link->taken_out + lengthy >= WF_UCX_WINDOW || !link->outs_free ||
            (lengthy && !link->outs_free->next))
            return;
        fifo_take(&link->waiting);
        message->private[FRAMES_LEFT] = lengthy ? 2 : 1;
        message->private[STATUS] = 0;
        if (message->payload_bytes > link->eager_max)
            link->net->stats.zero_copy++;
        if (lengthy) {
            struct iovec header = {(void *)message->header, message->header_bytes};
            uint64_t sum = wf_sum64(message->header, message->header_bytes);
            frame_put(link, message, WF_UCX_HEADER, &sum, sizeof sum, &header, 1,
                      message->header_bytes);
        }
        frame_put(link, message, WF_UCX_MESSAGE, message->header,
                  lengthy ? 0 : message->header_bytes, message->pieces, message->piece_count,
                  message->payload_bytes);
    }
}

static uint64_t pieces_bytes(const struct iovec *pieces, uint32_t count)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += pieces[i].iov_len > WF_NET_PAYLOAD_MAX ? WF_NET_PAYLOAD_MAX + 1
                                                        : pieces[i].iov_len;
    return bytes;
}

enum weft_status wf_ucx_send(struct wf_net_link *link, struct wf_net_message *message)
{
    if (message->header_bytes == 0 || message->header_bytes > WF_NET_HEADER_MAX)
        return wf_fail(WEFT_E_INVALID, "a message's header has 1 to %u bytes, not %u",
                       WF_NET_HEADER_MAX, message->header_bytes);
    if (message->piece_count > WF_NET_PIECES_MAX)
        return wf_fail(WEFT_E_INVALID, "a payload has up to %u pieces, not %u", WF_NET_PIECES_MAX,
                       message->piece_count);
    message->payload_bytes = pieces_bytes(message->pieces, message->piece_count);
    if (message->payload_bytes > WF_NET_PAYLOAD_MAX)
        return wf_fail(WEFT_E_INVALID, "a payload has up to 4 GiB; send it as several messages");
    if (link->state != WF_UCX_UP)
        return wf_fail(WEFT_E_NODE, "the link to %s is not up", link->peer);
    if (link->queued >= link->net->options.queue_max)
        return WEFT_PENDING;
    link->queued++;
    fifo_add(&link->waiting, message);
    push(link);
    return WEFT_OK;
}

/* ----------------------------------------------------------------------------------------- in */

/* A frame with an order: note it.  True: the data is kept. */
static bool note(struct wf_net_link *link, const struct wf_ucx_frame *frame, const void *body,
                 const struct wf_ucx_data *data)
{
    struct wf_ucx_in *in = &link->ins[frame->number % WF_UCX_WINDOW];
    if (frame->number <= link->taken_in || frame->number > link->taken_in + WF_UCX_WINDOW ||
        in->here) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL,
                         "%s sent frame %llu, which is not one of the %u after %llu", link->peer,
                         (unsigned long long)frame->number, WF_UCX_WINDOW,
                         (unsigned long long)link->taken_in);
        return false;
    }
    if (data->bytes > (frame->kind == WF_UCX_HEADER ? WF_NET_HEADER_MAX : WF_NET_PAYLOAD_MAX)) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s sent %llu bytes at once; 4 GiB are the most",
                         link->peer, (unsigned long long)data->bytes);
        return false;
    }
    in->here = true;
    in->kind = frame->kind;
    in->body_bytes = frame->body_bytes;
    in->data = *data;
    memcpy(in->body, body, frame->body_bytes);
    wf_ucx_todo(link);
    return data->data;
}

/* The frame as it came, by value; NULL: it is nobody's, or no frame. */
static struct wf_net_link *frame_link(struct wf_net *net, const void *header, size_t header_bytes,
                                      struct wf_ucx_frame *out)
{
    if (header_bytes < sizeof *out || header_bytes > sizeof *out + WF_UCX_BODY_MAX)
        return NULL;
    memcpy(out, header, sizeof *out);
    struct wf_net_link *link = out->link < net->link_slots ? net->links[out->link] : NULL;
    if (!link || !link->token_known || link->token_in != out->token)
        return NULL;
    return link;
}

static bool frame_right(struct wf_net_link *link, const struct wf_ucx_frame *frame,
                        const void *body, size_t header_bytes, bool whole)
{
    if (frame->body_bytes != header_bytes - sizeof *frame || frame->sum != frame_sum(frame, body)) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "a header from %s is not what its checksum says",
                         link->peer);
        return false;
    }
    /* What UCX would not keep for us it has handed over whole, and there is no such thing. */
    if (!whole || frame->taken > link->number_out || frame->zero) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "a frame from %s has taken %llu of %llu frames",
                         link->peer, (unsigned long long)frame->taken,
                         (unsigned long long)link->number_out);
        return false;
    }
    return true;
}

ucs_status_t wf_ucx_arrived(void *user, const void *header, size_t header_bytes, void *data,
                            size_t data_bytes, const ucp_am_recv_param_t *param)
{
    struct wf_net *net = user;
    struct wf_ucx_frame frame;
    struct wf_net_link *link = frame_link(net, header, header_bytes, &frame);
    const uint8_t *body = (const uint8_t *)header + sizeof frame;
    struct wf_ucx_data came = {data_bytes ? data : NULL, data_bytes,
                               param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV};
    bool keeps = came.rendezvous || (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_DATA);
    bool kept = false;
    if (!link) {
        net->stats.refused++;
        return UCS_OK;
    }
    if (link->state == WF_UCX_ENDING ||
        !frame_right(link, &frame, body, header_bytes, !data_bytes || keeps))
        return UCS_OK;
    link->heard_ms = net->now_ms;
    if (frame.taken > link->taken_out) {
        link->taken_out = frame.taken;
        wf_ucx_todo(link);
    }
    if (frame.kind == WF_UCX_FIRST && !frame.body_bytes && !data_bytes)
        wf_ucx_link_first(link);
    else if (frame.kind == WF_UCX_MESSAGE)
        kept = note(link, &frame, body, &came);
    else if (frame.kind == WF_UCX_HEADER && frame.body_bytes == sizeof(uint64_t) &&
             !came.rendezvous)
        kept = note(link, &frame, body, &came);
    else if (frame.kind == WF_UCX_ASK && frame.body_bytes == sizeof(struct wf_ucx_ask))
        kept = wf_ucx_ask_arrived(link, body, &came);
    else if (frame.kind == WF_UCX_ANSWER && frame.body_bytes == sizeof(struct wf_ucx_answer))
        kept = wf_ucx_answer_arrived(link, body, &came);
    else if (frame.kind != WF_UCX_CREDIT || frame.body_bytes || data_bytes)
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "%s sent a frame of kind %u with %u bytes",
                         link->peer, frame.kind, frame.body_bytes);
    return kept ? UCS_INPROGRESS : UCS_OK;
}

static void payload_arrived(void *request, ucs_status_t status, size_t bytes, void *user)
{
    struct wf_ucx_receive *receive = user;
    wf_ucx_request_done(receive->link, request);
    receive->done = true;
    receive->status = status == UCS_OK && bytes != receive->bytes ? UCS_ERR_IO_ERROR : status;
}

/* Ask where a payload goes, and have it go there. */
static void payload_begin(struct wf_net_link *link, const void *header, uint32_t header_bytes,
                          struct wf_ucx_in *in)
{
    const struct wf_net_events *events = &link->net->options.events;
    uint32_t slot = (link->receive_head + link->receive_count) % WF_UCX_RECEIVES;
    struct wf_ucx_receive *receive = &link->receives[slot];
    void *token = NULL;
    uint32_t pieces = events->begun(events->context, link, header, header_bytes, in->data.bytes,
                                    receive->pieces, &token);
    if (!pieces)
        return;
    assert(pieces <= WF_NET_PIECES_MAX && pieces_bytes(receive->pieces, pieces) == in->data.bytes);
    receive->link = link;
    receive->token = token;
    receive->bytes = in->data.bytes;
    receive->done = false;
    link->receive_count++;
    /* The callback may have ended the link; then what it named is told so at the end. */
    if (link->state != WF_UCX_UP)
        return;
    receive->status = wf_ucx_take_in(link, &in->data, receive->pieces, pieces, payload_arrived,
                                     receive);
    receive->done = receive->status != UCS_INPROGRESS;
}

/* Payloads that are there, in order. */
static void payloads_end(struct wf_net_link *link)
{
    const struct wf_net_events *events = &link->net->options.events;
    while (link->state == WF_UCX_UP && link->receive_count &&
           link->receives[link->receive_head].done) {
        struct wf_ucx_receive *receive = &link->receives[link->receive_head];
        if (receive->status != UCS_OK) {
            wf_ucx_link_fail(link, WEFT_E_NODE, "a payload from %s was cut off: %s", link->peer,
                             link->net->lib->ucs_status_string(receive->status));
            return;
        }
        if (events->progress)
            events->progress(events->context, link, receive->token, receive->bytes);
        if (link->state != WF_UCX_UP)
            return;
        link->receive_head = (link->receive_head + 1) % WF_UCX_RECEIVES;
        link->receive_count--;
        events->arrived(events->context, link, receive->token, WEFT_OK);
    }
}

/* The next message, when all of it is here that is needed: its frames, its long header's frame
 * first.  False: it is not, or it waits for those before it, or it is nonsense. */
static bool deliver(struct wf_net_link *link)
{
    const struct wf_net_events *events = &link->net->options.events;
    struct wf_ucx_in *in = &link->ins[(link->taken_in + 1) % WF_UCX_WINDOW], *lengthy = NULL;
    if (in->here && in->kind == WF_UCX_HEADER) {
        lengthy = in;
        in = &link->ins[(link->taken_in + 2) % WF_UCX_WINDOW];
    }
    if (!in->here)
        return false;
    const void *header = lengthy ? lengthy->data.data : in->body;
    uint32_t bytes = lengthy ? (uint32_t)lengthy->data.bytes : in->body_bytes;
    if (in->kind != WF_UCX_MESSAGE || !bytes || (lengthy && in->body_bytes) ||
        (lengthy && memcmp(lengthy->body, &(uint64_t){wf_sum64(header, bytes)}, 8) != 0)) {
        wf_ucx_link_fail(link, WEFT_E_PROTOCOL, "a long header from %s is not what it should be",
                         link->peer);
        return false;
    }
    if (in->data.bytes ? link->receive_count == WF_UCX_RECEIVES : link->receive_count > 0)
        return false;
    link->net->stats.received++;
    link->net->stats.received_bytes += bytes + in->data.bytes;
    if (in->data.bytes)
        payload_begin(link, header, bytes, in);
    else
        events->begun(events->context, link, header, bytes, 0, NULL, NULL);
    wf_ucx_drop(link->net, &in->data);
    in->here = false;
    link->taken_in++;
    if (lengthy) {
        wf_ucx_drop(link->net, &lengthy->data);
        lengthy->here = false;
        link->taken_in++;
    }
    return true;
}

/* ------------------------------------------------------------------------------------ the work */

static void credit_sent(void *request, ucs_status_t status, void *user)
{
    struct wf_net_link *link = user;
    (void)status;
    link->credit_busy = false;
    wf_ucx_request_done(link, request);
}

/* Frames say what was taken; when there are none to say it, a word by itself does. */
static void credit(struct wf_net_link *link)
{
    if (link->state != WF_UCX_UP || link->credit_busy ||
        link->taken_in - link->taken_said < WF_UCX_WINDOW / 4)
        return;
    link->credit_busy = wf_ucx_put_out(link, &link->credit, WF_UCX_CREDIT, 0, NULL, 0, 0,
                                       credit_sent, link) == UCS_INPROGRESS;
}

static void sent(struct wf_net_link *link, enum weft_status status)
{
    /* What finishes because of a callback is for the next time: nobody is kept here for ever. */
    struct wf_net_message *message = link->finished.head, *next;
    link->finished.head = NULL;
    link->finished.tail = &link->finished.head;
    for (; message; message = next) {
        next = message->next;
        bool right = message->private[STATUS] == 0;
        link->queued--;
        if (right) {
            link->net->stats.sent++;
            link->net->stats.sent_bytes += message->header_bytes + message->payload_bytes;
        }
        message->sent(message, right ? WEFT_OK : status);
    }
}

void wf_ucx_message_work(struct wf_net_link *link)
{
    sent(link, WEFT_E_NODE);
    payloads_end(link);
    while (link->state == WF_UCX_UP && deliver(link))
        payloads_end(link);
    push(link);
    credit(link);
}

void wf_ucx_message_end(struct wf_net_link *link, enum weft_status status)
{
    const struct wf_net_events *events = &link->net->options.events;
    struct wf_net_message *message;
    for (uint32_t i = 0; i < WF_UCX_WINDOW; i++)
        wf_ucx_drop(link->net, &link->ins[i].data);
    while ((message = fifo_take(&link->waiting))) {
        message->private[STATUS] = 1;
        fifo_add(&link->finished, message);
    }
    sent(link, status);
    while (link->receive_count) {
        struct wf_ucx_receive *receive = &link->receives[link->receive_head];
        link->receive_head = (link->receive_head + 1) % WF_UCX_RECEIVES;
        link->receive_count--;
        events->arrived(events->context, link, receive->token, status);
    }
}
