/* SPDX-License-Identifier: Apache-2.0
 *
 * What another node may say: in the handshake, and in frames once it has proved itself.
 *
 * The first byte chooses: a handshake as connector or acceptor; or frames as they are; or frames
 * that are given the sequence and the sums that they should have, so that what stands in them is
 * read.  Frames go into a link without sockets, that has memory exposed and a read under way.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/tcp_inner.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGION 4096u
#define BODY_MOST 65536u

struct token {
    struct iovec pieces[3];
    uint64_t bytes;
};

static uint32_t open_tokens;

static bool on_up(void *context, struct wf_net_link *link, const void *hello, uint32_t hello_bytes,
                  const char *name)
{
    (void)context, (void)link, (void)hello, (void)hello_bytes, (void)name;
    return true;
}

static void on_down(void *context, struct wf_net_link *link, enum weft_status status,
                    const char *sentence)
{
    (void)context, (void)link, (void)status, (void)sentence;
}

static uint32_t on_begun(void *context, struct wf_net_link *link, const void *header,
                         uint32_t header_bytes, uint64_t payload_bytes, struct iovec *out,
                         void **out_token)
{
    uint64_t third = payload_bytes / 3;
    (void)context, (void)link;
    uint8_t sum = 0;
    for (uint32_t i = 0; i < header_bytes; i++)
        sum ^= ((const uint8_t *)header)[i];
    if (payload_bytes == 0 || payload_bytes > BODY_MOST || sum == 7)
        return 0;
    struct token *token = calloc(1, sizeof *token);
    if (!token)
        return 0;
    token->bytes = payload_bytes;
    for (int i = 0; i < 3; i++) {
        size_t bytes = i < 2 ? third : payload_bytes - 2 * third;
        token->pieces[i] = out[i] = (struct iovec){malloc(bytes ? bytes : 1), bytes};
    }
    *out_token = token;
    open_tokens++;
    return 3;
}

static void on_progress(void *context, struct wf_net_link *link, void *token, uint64_t bytes)
{
    (void)context, (void)link;
    if (bytes > ((struct token *)token)->bytes)
        abort();
}

static void on_arrived(void *context, struct wf_net_link *link, void *of, enum weft_status status)
{
    struct token *token = of;
    (void)context, (void)link, (void)status;
    for (int i = 0; i < 3; i++)
        free(token->pieces[i].iov_base);
    free(token);
    open_tokens--;
}

static void on_done(struct wf_net_access *access, enum weft_status status)
{
    (void)status;
    if (access->user)
        abort(); /* twice */
    access->user = access;
}

/* An engine that carries nothing. */
static enum weft_status fake_start(struct tcp_net *net)
{
    (void)net;
    return WEFT_OK;
}
static void fake_net(struct tcp_net *net)
{
    (void)net;
}
static void fake_stream(struct tcp_stream *stream)
{
    (void)stream;
}
static void fake_send(struct tcp_stream *stream, struct tcp_batch *batch)
{
    (void)batch;
    stream->sending = false;
}
static enum weft_status fake_wait(struct tcp_net *net, uint32_t timeout_ms)
{
    (void)net, (void)timeout_ms;
    return WEFT_OK;
}
static const struct tcp_engine fake = {
    .name = "none",
    .start = fake_start,
    .stop = fake_net,
    .adopt = fake_stream,
    .forget = fake_stream,
    .receive = fake_stream,
    .send = fake_send,
    .cancel = fake_stream,
    .settle = fake_stream,
    .flush = fake_net,
    .wait = fake_wait,
};

static void handshake(const uint8_t *data, size_t size, bool acceptor)
{
    static const uint8_t secret[32] = "secret", id[WF_NET_LINK_ID_BYTES] = "id";
    struct wf_net_hello *hello = calloc(1, sizeof *hello);
    struct wf_net_hello_self self = {.role = acceptor ? WF_NET_ACCEPTOR : WF_NET_CONNECTOR,
                                     .proof = size % 2 ? WF_NET_PROOF_SECRET : WF_NET_PROOF_NONE,
                                     .secret = secret,
                                     .transport = {'t', 'c', 'p', 0},
                                     .streams = 4};
    size_t out;
    if (!hello || wf_net_hello_begin(hello, &self) != WEFT_OK)
        abort();
    while (size) {
        size_t wants = wf_net_hello_wants(hello), some = wants < size ? wants : size;
        if (!wants || wf_net_hello_take(hello, data, some) < 0)
            break;
        data += some;
        size -= some;
        if (hello->state == WF_NET_HELLO_DECIDE)
            wf_net_hello_admit(hello, id, 2);
        if (hello->state == WF_NET_HELLO_PROVEN)
            wf_net_hello_ready(hello);
        wf_net_hello_out(hello, &out);
        if (size % 3)
            wf_net_hello_sent(hello, out);
    }
    wf_net_hello_end(hello);
    free(hello);
}

/* Sequence and sums as they should be, of every frame that is whole. */
static void seal_all(uint8_t *bytes, size_t size, uint64_t seed)
{
    struct tcp_frame frame;
    uint64_t sequence = 0;
    for (size_t at = 0; size - at >= sizeof frame;) {
        memcpy(&frame, bytes + at, sizeof frame);
        frame.sequence = sequence++;
        frame.header_bytes %= 512;
        if (frame.header_bytes > size - at - sizeof frame)
            return;
        wf_tcp_frame_seal(&frame, bytes + at + sizeof frame, seed);
        memcpy(bytes + at, &frame, sizeof frame);
        at += sizeof frame + frame.header_bytes;
        if (frame.body_bytes > size - at)
            return;
        at += frame.body_bytes;
    }
}

static enum weft_status feed(struct tcp_stream *stream, const uint8_t *data, size_t size)
{
    enum weft_status status = WEFT_OK;
    while (size && status == WEFT_OK && !stream->paused && stream->link->state == TCP_LINK_UP) {
        bool all;
        uint32_t count = wf_tcp_receive_room(stream, &all);
        size_t given = 0;
        for (uint32_t i = 0; i < count && size; i++) {
            const struct iovec *piece = &stream->in_pieces[i];
            size_t some = piece->iov_len < size ? piece->iov_len : size;
            memcpy(piece->iov_base, data, some);
            data += some;
            size -= some;
            given += some;
        }
        status = wf_tcp_receive_consume(stream, given);
        /* What it has to say is said, and nobody hears it. */
        while (status == WEFT_OK) {
            wf_tcp_send_fill(stream);
            if (!stream->current)
                break;
            wf_tcp_batch_finish(stream->current);
        }
    }
    return status;
}

static void frames(const uint8_t *data, size_t size, bool sealed, bool two)
{
    static uint8_t region[REGION], into[REGION];
    struct wf_net_options options = {
        .events = {NULL, on_up, on_down, on_begun, on_progress, on_arrived}};
    struct wf_net *of;
    struct tcp_link *link;
    struct tcp_stream *streams[2];
    struct wf_net_handle handle;
    struct iovec piece = {into, sizeof into};
    struct wf_net_access access = {.piece_count = 1, .pieces = &piece, .done = on_done};
    uint8_t *bytes = malloc(size + 1);
    wf_tcp_engine_forced = &fake;
    if (!bytes || wf_net_tcp.create(&options, &of) != WEFT_OK)
        abort();
    struct tcp_net *net = (struct tcp_net *)of;
    net->polling = true;
    if (wf_tcp_link_create(net, &link) != WEFT_OK)
        abort();
    link->stream_count = 1 + two;
    for (uint32_t i = 0; i < link->stream_count; i++) {
        if (wf_tcp_stream_create(net, link, i, &streams[i]) != WEFT_OK)
            abort();
        streams[i]->phase = TCP_CARRIES;
    }
    link->state = TCP_LINK_UP;
    link->named = true;
    if (wf_tcp_expose(of, region, sizeof region, WF_NET_READ | WF_NET_WRITE, &handle) != WEFT_OK ||
        wf_tcp_grant((struct wf_net_link *)link, handle) != WEFT_OK ||
        wf_tcp_access(link, &access) != WEFT_OK)
        abort();
    wf_tcp_send_fill(streams[0]);
    wf_tcp_batch_finish(streams[0]->current);
    memcpy(bytes, data, size);
    size_t half = two ? size / 2 : size;
    if (sealed) {
        seal_all(bytes, half, 0);
        seal_all(bytes + half, size - half, 0);
    }
    enum weft_status status = feed(streams[0], bytes, half);
    if (status == WEFT_OK && two)
        status = feed(streams[1], bytes + half, size - half);
    if (size % 5 == 0)
        wf_tcp_withdraw(of, handle);
    if (status != WEFT_OK)
        wf_tcp_link_end(link, status, NULL);
    wf_net_tcp.destroy(of);
    if (open_tokens || !access.user)
        abort(); /* begun, and neither arrived nor given up; asked, and not answered */
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 1 << 20)
        return 0;
    uint8_t choice = data[0];
    if (choice % 4 < 2)
        handshake(data + 1, size - 1, choice % 2);
    else
        frames(data + 1, size - 1, choice % 4 == 3, choice & 4);
    return 0;
}
