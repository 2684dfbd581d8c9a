/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs: how the KV of a block is made smaller, and exactly how it comes back.
 *
 * A block is cut into *planes*: the K, or the V, of one layer (K of layer 0, V of layer 0, K of
 * layer 1 …), each [tokens][heads][head_dim] of one dtype, little-endian.  A codec encodes one
 * plane at a time and looks at nothing else, so that one layer decodes alone.  A *frame*
 * (frame.h) holds the encoded planes of a block, says of each which codec made it, and has a
 * checksum of each: of the plain bytes where the codec is lossless, of the encoded ones where it
 * is not.
 *
 * A codec never allocates, prints or waits, and may be called from any number of threads, each
 * with scratch of its own.  encode() trusts its input, decode() trusts nothing: any bytes give a
 * plane or WEFT_E_CORRUPT, and neither reads nor writes outside of what it was given.
 *
 * What a codec answers depends on its input alone: not on the machine's vector width, nor on what
 * was coded before.
 */
#ifndef WF_CODEC_CODEC_H
#define WF_CODEC_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "weft/weft.h"

#define WF_CODEC_PLANE_BYTES_MAX (1u << 28)

struct wf_profile; /* what was learned of a model (profile.h) */

/* What one plane is. */
struct wf_plane {
    enum weft_dtype dtype;
    uint32_t tokens, heads, head_dim; /* 1 or more each; WF_CODEC_PLANE_BYTES_MAX in all */
    uint32_t layer;
    bool value;                       /* V; else K */
    uint64_t position;                /* of its first token in the sequence */
    const struct wf_profile *profile; /* NULL: none is known of this format */
};

static inline size_t wf_plane_elements(const struct wf_plane *plane)
{
    return (size_t)plane->tokens * plane->heads * plane->head_dim;
}

static inline size_t wf_plane_bytes(const struct wf_plane *plane)
{
    return wf_plane_elements(plane) * weft_dtype_bytes(plane->dtype);
}

struct wf_codec {
    const char *name; /* "lossless", "int8" …: what users say */
    const char *says; /* one line of help */
    uint8_t id;       /* in frames; never used anew for something else */
    uint8_t revision; /* how often the format of its planes has changed; frames have one more */
    bool lossless;
    bool profiled; /* encodes and decodes only with a profile */

    /* Does it work on such planes?  What it does not take is stored as it is. */
    bool (*takes)(const struct wf_plane *plane);
    /* The most bytes that encode() may leave. */
    size_t (*bound)(const struct wf_plane *plane);
    /* Scratch memory for one call of encode() or decode(), 64-byte aligned; 0: none. */
    size_t (*scratch)(const struct wf_plane *plane);
    /* `parameter` is the codec's own: how fine it is.  0 is a sensible default everywhere.
     * `capacity` ≥ bound().  WEFT_MISS: it would not be smaller than the plane; store it as it
     * is. */
    enum weft_status (*encode)(const struct wf_plane *plane, uint32_t parameter, const void *plain,
                               void *out, size_t capacity, size_t *out_bytes, void *scratch);
    /* Exactly wf_plane_bytes() at `plain`, or WEFT_E_CORRUPT and a sentence. */
    enum weft_status (*decode)(const struct wf_plane *plane, uint32_t parameter, const void *in,
                               size_t bytes, void *plain, void *scratch);
};

/* By number in frames and by name; NULL: there is none. */
const struct wf_codec *wf_codec_by_id(uint8_t id);
const struct wf_codec *wf_codec_by_name(const char *name);
/* All of them, in the order in which people should see them; NULL after the last. */
const struct wf_codec *wf_codec_each(unsigned index);

/* Ids in frames. */
enum wf_codec_id {
    WF_CODEC_RAW = 0,      /* as it is */
    WF_CODEC_LOSSLESS = 1, /* chooses between the next two, and raw, by what is smaller */
    WF_CODEC_LOSSLESS_FIXED = 2,
    WF_CODEC_LOSSLESS_ENTROPY = 3,
    WF_CODEC_INT8 = 16,
    WF_CODEC_FP8 = 17,
    WF_CODEC_INT4 = 18,
    WF_CODEC_INT2 = 19,
    WF_CODEC_TRANSFORM = 32, /* calibrated */
};

extern const struct wf_codec wf_codec_raw, wf_codec_lossless, wf_codec_lossless_fixed,
    wf_codec_lossless_entropy, wf_codec_int8, wf_codec_fp8, wf_codec_int4, wf_codec_int2,
    wf_codec_transform;

#endif
