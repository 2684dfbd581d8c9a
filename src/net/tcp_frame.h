/* SPDX-License-Identifier: Apache-2.0
 *
 * What crosses a stream of a tcp link once both sides have proved themselves: frames.
 *
 *     ┌────────────────────┬──────────────────┬─────────────────────┐
 *     │ 48 bytes, as below │ header_bytes     │ body_bytes          │
 *     └────────────────────┴──────────────────┴─────────────────────┘
 *
 *      0 magic "wfn1"
 *      4 kind u8 | 5 flags u8 | 6 id u16: of an access
 *      8 header_bytes u32 | 12 body_bytes u32
 *     16 sequence u64: of this stream, from 0
 *     24 first u64 | 32 second u64
 *     40 sum u32: of the 40 bytes above | 44 header_sum u32: of the header; the lower halves of
 * XXH3-64, with a seed that both sides derived.  So no length is believed that is not as it was
 * sent.
 *
 *     kind        stream  first                second             header            body
 *     MESSAGE     0       number, from 0       payload_bytes      the message's     as much of the
 *                                                                                   payload as fits
 *     CHUNK       any     number               offset in payload  —                 some payload
 *     WORD        any     —                    —                  —                 —
 *     READ        0       —                    —                  struct tcp_range  —
 *     DATA        any     offset in the range  —                  —                 some of it
 *     WRITE       any     offset in the range  —                  struct tcp_range  some of it
 *     ANSWER      0       bytes sent as DATA   —                  —                 —
 *
 * An ANSWER ends each READ, when all of its DATA has been sent, and each WRITE, when all of it has
 * been placed; with flag MISS: not all of what was sent is what was asked for, or it was not
 * placed.
 *
 * A receiver has TCP_INCOMING_MAX messages that have begun and not arrived, and a message without
 * payload waits there for those before it.  So a sender begins neither the one after those, nor one
 * without payload, before all CHUNKs of those before it are in streams.
 *
 * The body has no checksum here: what it is for has its own.  The sum keeps a wire that flips bits
 * from naming other memory; against people there is TLS.
 */
#ifndef WF_NET_TCP_FRAME_H
#define WF_NET_TCP_FRAME_H

#include "net/net.h"

#define TCP_FRAME_BYTES 48u
#define TCP_BODY_MAX (4u << 20)

enum tcp_kind {
    TCP_MESSAGE = 1,
    TCP_CHUNK,
    TCP_WORD,
    TCP_READ,
    TCP_DATA,
    TCP_WRITE,
    TCP_ANSWER,
    TCP_KINDS,
};
#define TCP_MISS 1u /* flag */

struct tcp_frame {
    char magic[4];
    uint8_t kind, flags;
    uint16_t id;
    uint32_t header_bytes, body_bytes;
    uint64_t sequence;
    uint64_t first, second;
    uint32_t sum, header_sum;
};
_Static_assert(sizeof(struct tcp_frame) == TCP_FRAME_BYTES, "as drawn");
_Static_assert(offsetof(struct tcp_frame, first) == 24, "as drawn");
_Static_assert(offsetof(struct tcp_frame, sum) == 40, "as drawn");

/* What is read or written of what is exposed. */
struct tcp_range {
    uint32_t number, generation;
    uint64_t offset, bytes;
};
_Static_assert(sizeof(struct tcp_range) == 24, "as drawn");

/* Give a frame its magic and its sum. */
void wf_tcp_frame_seal(struct tcp_frame *frame, const void *header, uint64_t seed);

/* The 48 bytes alone: whether they are as they were sent, and the rest can be what they say.
 * WEFT_E_PROTOCOL with a sentence. */
enum weft_status wf_tcp_frame_check(const struct tcp_frame *frame, uint64_t seed, uint32_t stream,
                                    uint64_t sequence);

/* Its header: whether it is as it was sent. */
enum weft_status wf_tcp_frame_verify(const struct tcp_frame *frame, const void *header,
                                     uint64_t seed);

#endif
