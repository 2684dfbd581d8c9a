/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: sealed and checked.  Every bound that does not need a link's state is checked here.
 */
#include "net/tcp_frame.h"

#include <string.h>

#include "base/sum.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "frames are little-endian");

static const char magic[4] = {'w', 'f', 'n', '1'};

static const struct {
    const char *name;
    bool any_stream, body;
    uint32_t header_min, header_max;
} kinds[TCP_KINDS] = {
    [TCP_MESSAGE] = {"message", false, true, 1, WF_NET_HEADER_MAX},
    [TCP_CHUNK] = {"chunk", true, true, 0, 0},
    [TCP_WORD] = {"word", true, false, 0, 0},
    [TCP_READ] = {"read", false, false, sizeof(struct tcp_range), sizeof(struct tcp_range)},
    [TCP_DATA] = {"data", true, true, 0, 0},
    [TCP_WRITE] = {"write", true, true, sizeof(struct tcp_range), sizeof(struct tcp_range)},
    [TCP_ANSWER] = {"answer", false, false, 0, 0},
};

static uint32_t frame_sum(const struct tcp_frame *frame, uint64_t seed)
{
    return (uint32_t)wf_sum64_seeded(frame, offsetof(struct tcp_frame, sum), seed);
}

static uint32_t header_sum(const struct tcp_frame *frame, const void *header, uint64_t seed)
{
    return frame->header_bytes
               ? (uint32_t)wf_sum64_seeded(header, frame->header_bytes, seed + frame->sequence)
               : 0;
}

void wf_tcp_frame_seal(struct tcp_frame *frame, const void *header, uint64_t seed)
{
    memcpy(frame->magic, magic, sizeof magic);
    frame->sum = frame_sum(frame, seed);
    frame->header_sum = header_sum(frame, header, seed);
}

enum weft_status wf_tcp_frame_check(const struct tcp_frame *frame, uint64_t seed, uint32_t stream,
                                    uint64_t sequence)
{
    if (memcmp(frame->magic, magic, sizeof magic) != 0)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent bytes that are no frame");
    if (frame->sum != frame_sum(frame, seed))
        return wf_fail(WEFT_E_PROTOCOL, "a frame arrived that is not as it was sent");
    if (frame->kind == 0 || frame->kind >= TCP_KINDS ||
        (frame->flags && (frame->flags != TCP_MISS || frame->kind != TCP_ANSWER)))
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent a frame of kind %u, flags %u",
                       frame->kind, frame->flags);
    const char *name = kinds[frame->kind].name;
    if (frame->sequence != sequence)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent a %s as frame %llu after %llu others",
                       name, (unsigned long long)frame->sequence, (unsigned long long)sequence);
    if (stream && !kinds[frame->kind].any_stream)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent a %s on stream %u", name, stream);
    if (frame->header_bytes < kinds[frame->kind].header_min ||
        frame->header_bytes > kinds[frame->kind].header_max)
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent a %s with a header of %u bytes", name,
                       frame->header_bytes);
    if (frame->body_bytes > (kinds[frame->kind].body ? TCP_BODY_MAX : 0))
        return wf_fail(WEFT_E_PROTOCOL, "the other side sent a %s with %u bytes", name,
                       frame->body_bytes);
    if (frame->kind == TCP_MESSAGE &&
        (frame->second > WF_NET_PAYLOAD_MAX || frame->body_bytes > frame->second))
        return wf_fail(WEFT_E_PROTOCOL,
                       "the other side sent a message with a payload of %llu bytes",
                       (unsigned long long)frame->second);
    return WEFT_OK;
}

enum weft_status wf_tcp_frame_verify(const struct tcp_frame *frame, const void *header,
                                     uint64_t seed)
{
    if (frame->header_sum != header_sum(frame, header, seed))
        return wf_fail(WEFT_E_PROTOCOL, "the header of a %s arrived that is not as it was sent",
                       kinds[frame->kind].name);
    return WEFT_OK;
}
