/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames: the planes of a block, encoded, in one piece of bytes that says what it is.
 *
 *     0   +--------------------------------------------------------------+
 *         | struct wf_frame_head, 64 bytes                               |
 *     64  +--------------------------------------------------------------+
 *         | struct wf_frame_plane [planes], 16 bytes each                |
 *         +--------------------------------------------------------------+
 *         | plane 0 | plane 1 | …      encoded, one after the other      |
 *         +--------------------------------------------------------------+
 *
 * A frame whose flags say WF_FRAME_STORED has no table: the block follows as it is, and
 * head.checksum covers head and block.  So a block that does not compress grows by 64 bytes.
 *
 * Whoever has the first wf_frame_lead() bytes can check the head and the table; whoever has the
 * bytes up to the end of a plane can decode that plane.  So a block that arrives from its front is
 * usable layer by layer.
 */
#ifndef WF_CODEC_FRAME_H
#define WF_CODEC_FRAME_H

#include <assert.h>

#include "codec/codec.h"

#define WF_FRAME_MAGIC 0x524b4657u /* "WFKR" */
#define WF_FRAME_VERSION 1u
#define WF_FRAME_PLANES_MAX 4096u

/* How a block is cut into planes.  An engine's own opaque payload has planes of up to 1 MiB with
 * heads and head_dim 1 (wf_layout_opaque). */
struct wf_layout {
    enum weft_dtype dtype;
    uint32_t planes; /* 2 × layers; of an opaque payload, how many pieces */
    uint32_t tokens, heads, head_dim;
    uint64_t bytes; /* of the block; planes × plane bytes, but for a shorter last one of an opaque
                       payload */
    bool opaque;
};

enum wf_frame_flags {
    WF_FRAME_STORED = 1,
    WF_FRAME_OPAQUE = 2,
    WF_FRAME_LOSSY = 4, /* some plane is */
};

struct wf_frame_head {
    uint32_t magic;
    uint8_t version;
    uint8_t flags;   /* enum wf_frame_flags */
    uint8_t dtype;   /* enum weft_dtype */
    uint8_t quality; /* enum weft_quality that it was made for; 0: every plane is exact */
    uint32_t planes;
    uint32_t tokens;
    uint32_t heads;
    uint32_t head_dim;
    uint64_t position; /* of the first token in the sequence */
    uint64_t bytes;    /* of the block */
    uint64_t encoded;  /* bytes of the frame, all of it */
    uint64_t profile;  /* which one it needs; 0: none */
    uint64_t checksum; /* XXH3-64 of the table, or of the block if stored; its seed is that of the
                          head (with this field 0) */
};
static_assert(sizeof(struct wf_frame_head) == 64, "frame format");

struct wf_frame_plane {
    uint32_t bytes; /* encoded */
    uint8_t codec;  /* enum wf_codec_id */
    uint8_t version;
    uint16_t parameter;
    uint64_t checksum; /* XXH3-64 of the plain bytes if the codec is lossless, else of the encoded
                          ones */
};
static_assert(sizeof(struct wf_frame_plane) == 16, "frame format");

/* Which codec each plane is to be given to.  What the codec does not take, or makes no smaller, is
 * given to `otherwise`, and stored as it is when that does no better. */
struct wf_frame_choice {
    const struct wf_codec *codec;
    uint32_t parameter; /* ≤ 65535 */
};

struct wf_frame_plan {
    const struct wf_frame_choice *planes; /* [layout.planes]; NULL: `all` for each */
    struct wf_frame_choice all;
    const struct wf_codec *otherwise; /* a lossless one; NULL: none */
    const struct wf_profile *profile; /* NULL: none */
    uint8_t quality;                  /* for the head of a frame in which some plane is lossy */
};

/* False: no such block. */
bool wf_layout_of(enum weft_dtype dtype, uint32_t layers, uint32_t tokens, uint32_t heads,
                  uint32_t head_dim, struct wf_layout *out);
bool wf_layout_opaque(enum weft_dtype dtype, uint64_t bytes, struct wf_layout *out);

/* The plane number `index` of a block; where it begins in the block is index × plane bytes. */
void wf_layout_plane(const struct wf_layout *layout, uint32_t index, uint64_t position,
                     const struct wf_profile *profile, struct wf_plane *out);

/* The most bytes that a frame of such a block takes, with any codec: the block and 64 bytes, since
 * what does not become smaller is stored. */
uint64_t wf_frame_bound(const struct wf_layout *layout);
/* Scratch for encoding or decoding such blocks with any codec of the plan, 64-byte aligned. */
size_t wf_frame_scratch(const struct wf_layout *layout);

/* Encode a block.  `out` has wf_frame_bound() bytes.  Never fails but for a plan that makes no
 * sense (WEFT_E_INVALID). */
enum weft_status wf_frame_encode(const struct wf_layout *layout, const struct wf_frame_plan *plan,
                                 uint64_t position, const void *block, void *out,
                                 uint64_t *out_bytes, void *scratch);

/* A frame that was checked as far as its head and table. */
struct wf_frame {
    struct wf_frame_head head;
    struct wf_layout layout;
    const struct wf_frame_plane *table; /* in the caller's bytes; NULL if stored */
};

/* What open() and decode() answer for is that no byte outside of the frame is read and none outside
 * of the block written.  Whether head.bytes is what the caller has room for, is his to see. */

/* How many bytes of a frame wf_frame_open() wants, of which `bytes` are at hand: at least 64. */
uint64_t wf_frame_lead(const void *frame, size_t bytes);
/* WEFT_E_CORRUPT, or the frame's head.  WEFT_PENDING: wf_frame_lead() are not there yet.  What is
 * stored as a whole can only be checked as a whole, by wf_frame_decode(). */
enum weft_status wf_frame_open(const void *frame, size_t bytes, struct wf_frame *out);
/* How many planes, from the first, lie within the first `bytes` of the frame. */
uint32_t wf_frame_planes_within(const struct wf_frame *frame, uint64_t bytes);
/* Decode planes first … end − 1 into their places in the block, and verify them.  A frame that is
 * stored has only all of them.  `profile` must be the one that the head names, if it names one.
 * WEFT_E_CORRUPT: what is at their places in the block is worth nothing. */
enum weft_status wf_frame_decode(const struct wf_frame *frame, const void *bytes, uint32_t first,
                                 uint32_t end, const struct wf_profile *profile, void *block,
                                 void *scratch);

/* The checksum that frames take, for what is measured beside them. */
uint64_t wf_frame_checksum(const void *bytes, size_t count);

#endif
