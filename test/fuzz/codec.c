/* SPDX-License-Identifier: Apache-2.0
 *
 * Codecs: any bytes as a frame, with its checksums made right so that what lies behind them is
 * reached; any bytes as each codec's plane, the calibrated one's with a profile of our own; and any
 * bytes as KV, which a lossless codec gives back.
 *
 * The first four bytes are dtype, tokens, heads and head_dim.
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "codec/frame.h"
#include "codec/lossless.h"
#include "codec/profile.h"
#include "codec/transform.h"

#define BLOCK_BYTES_MAX (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *room(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    assert(memory);
    return memory;
}

/* Memory of exactly so many bytes. */
static uint8_t *exactly(const uint8_t *data, size_t bytes)
{
    uint8_t *memory = malloc(bytes ? bytes : 1);
    assert(memory);
    memcpy(memory, data, bytes);
    return memory;
}

static void mend_checksum(uint8_t *bytes, size_t size)
{
    struct wf_frame_head head;
    memcpy(&head, bytes, sizeof head);
    head.magic = WF_FRAME_MAGIC;
    head.version = WF_FRAME_VERSION;
    head.checksum = 0;
    size_t lead = wf_frame_lead(bytes, size), covered = lead - sizeof head;
    if (head.flags & WF_FRAME_STORED || lead > size)
        covered = size - sizeof head;
    head.checksum = wf_sum64_seeded(bytes + sizeof head, covered, wf_sum64(&head, sizeof head));
    memcpy(bytes, &head, sizeof head);
}

static void as_frame(const uint8_t *data, size_t size)
{
    struct wf_frame frame;
    uint8_t *bytes = exactly(data, size);
    if (size >= sizeof(struct wf_frame_head))
        mend_checksum(bytes, size);
    if (wf_frame_open(bytes, size, &frame) == WEFT_OK && frame.head.encoded <= size &&
        frame.layout.bytes <= BLOCK_BYTES_MAX) {
        uint8_t *block = malloc(frame.layout.bytes);
        void *scratch = room(wf_frame_scratch(&frame.layout));
        assert(block && wf_frame_planes_within(&frame, size) == frame.head.planes);
        (void)!wf_frame_decode(&frame, bytes, 0, frame.head.planes, NULL, block, scratch);
        free(block);
        free(scratch);
    }
    free(bytes);
}

static void as_planes(const struct wf_plane *plane, const uint8_t *data, size_t size)
{
    const struct wf_codec *codec;
    for (unsigned i = 0; (codec = wf_codec_each(i)); i++) {
        if (codec->profiled || !codec->takes(plane))
            continue;
        uint8_t *bytes = exactly(data, size), *plain = malloc(wf_plane_bytes(plane));
        void *scratch = room(codec->scratch(plane));
        assert(plain);
        (void)!codec->decode(plane, size ? data[0] % 4 : 0, bytes, size, plain, scratch);
        free(bytes);
        free(plain);
        free(scratch);
    }
}

/* All kernels that are usable here agree. */
static void as_kv(const struct wf_plane *plane, const uint8_t *data, size_t size)
{
    size_t plane_bytes = wf_plane_bytes(plane), bytes[WF_CODEC_ISA_COUNT] = {0};
    uint8_t *plain = calloc(1, plane_bytes), *back = malloc(plane_bytes);
    uint8_t *first = malloc(plane_bytes), *out = malloc(plane_bytes);
    void *scratch = room(wf_codec_lossless.scratch(plane));
    assert(plain && back && first && out);
    memcpy(plain, data, size < plane_bytes ? size : plane_bytes);
    for (int mode = 0; mode <= WF_LOSSLESS_ENTROPY; mode++) {
        for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
            if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
                continue;
            const struct wf_lossless_kernels *k = wf_lossless_kernels_of((enum wf_codec_isa)isa);
            if (wf_lossless_encode_by(k, plane, (enum wf_lossless_mode)mode, plain, out,
                                      &bytes[isa], scratch) != WEFT_OK)
                break; /* then no other does, either: the unit tests see to that */
            if (isa == WF_CODEC_SCALAR)
                memcpy(first, out, bytes[isa]);
            assert(bytes[isa] == bytes[0] && memcmp(first, out, bytes[isa]) == 0);
            assert(wf_lossless_decode_by(k, plane, out, bytes[isa], back, scratch) == WEFT_OK);
            assert(memcmp(back, plain, plane_bytes) == 0);
        }
    }
    free(plain);
    free(back);
    free(first);
    free(out);
    free(scratch);
}

/* ------------------------------------------------------------------------------- with a profile */

#define PROFILE_HEADS 3u
#define PROFILE_DIM 12u

/* A group of two heads and one of one; coefficients of all sizes, the channels themselves. */
static struct wf_profile *profile(void)
{
    static struct wf_profile *made;
    if (made)
        return made;
    struct wf_profile_head head = {.layers = 1,
                                   .heads = PROFILE_HEADS,
                                   .head_dim = PROFILE_DIM,
                                   .group_heads = 2,
                                   .rope_dims = PROFILE_DIM,
                                   .rope_pairing = WF_ROPE_HALVES,
                                   .dtype = WEFT_BF16,
                                   .sinks = 2};
    uint64_t bytes = wf_profile_file_bytes(&head);
    uint8_t *file = room(bytes);
    memset(file, 0, bytes);
    memcpy(file, &head, sizeof head);
    wf_rope_frequencies(10000, PROFILE_DIM, (double *)(void *)(file + sizeof head));
    for (unsigned i = 0; i < 4; i++) {
        float *at = (void *)(file + wf_profile_group_offset(&head, 0, i / 2, i % 2));
        size_t dims = i % 2 ? PROFILE_DIM : 2 * PROFILE_DIM;
        at[0] = 1;
        for (size_t d = 0; d < dims; d++) {
            at[4 + dims + d] = 20.0f / (float)(d * d + 1);
            at[4 + 2 * dims + d * dims + d] = at[4 + (2 + dims) * dims + d * dims + d] = 1;
        }
    }
    wf_profile_seal(file, bytes);
    enum weft_status status = wf_profile_parse(file, bytes, &made);
    assert(status == WEFT_OK);
    free(file);
    return made;
}

/* Any bytes as a plane, and any bytes as KV: all kernels that are usable here agree. */
static void as_calibrated(const struct wf_plane *like, const uint8_t *data, size_t size)
{
    struct wf_plane plane = *like;
    plane.heads = PROFILE_HEADS;
    plane.head_dim = PROFILE_DIM;
    plane.profile = profile();
    plane.position = like->heads % 4;
    if (!wf_codec_transform.takes(&plane))
        return;
    size_t plane_bytes = wf_plane_bytes(&plane), coded = 0;
    uint8_t *bytes = exactly(data, size), *plain = calloc(1, plane_bytes);
    uint8_t *out = malloc(plane_bytes), *first = malloc(plane_bytes), *code = malloc(plane_bytes);
    void *scratch = room(wf_codec_transform.scratch(&plane));
    enum weft_status decoded = WEFT_OK, encoded = WEFT_OK;
    assert(plain && out && first && code);
    memcpy(plain, data, size < plane_bytes ? size : plane_bytes);
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        const struct wf_lanes_kernels *k = wf_lanes_kernels_of((enum wf_codec_isa)isa);
        uint8_t *to = isa ? out : first;
        enum weft_status status = wf_transform_decode_by(k, &plane, WF_TRANSFORM_UNIT, bytes, size,
                                                         to, scratch);
        decoded = isa ? decoded : status;
        assert(status == decoded);
        assert(status != WEFT_OK || memcmp(to, first, plane_bytes) == 0);
    }
    for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
        if (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            continue;
        const struct wf_lanes_kernels *k = wf_lanes_kernels_of((enum wf_codec_isa)isa);
        uint8_t *to = isa ? out : code;
        size_t got = 0;
        enum weft_status status = wf_transform_encode_by(k, &plane, WF_TRANSFORM_UNIT, plain, to,
                                                         plane_bytes, &got, scratch);
        encoded = isa ? encoded : status;
        coded = isa ? coded : got;
        assert(status == encoded && got == coded && memcmp(to, code, coded) == 0);
        assert(status != WEFT_OK || wf_transform_decode_by(k, &plane, WF_TRANSFORM_UNIT, code,
                                                           coded, first, scratch) == WEFT_OK);
    }
    free(bytes);
    free(plain);
    free(out);
    free(first);
    free(code);
    free(scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return 0;
    struct wf_plane plane = {
        .dtype = (enum weft_dtype)(1 + data[0] % 6),
        .tokens = 1u + data[1],
        .heads = 1u + data[2] % 8,
        .head_dim = 1u + data[3] % 128,
        .value = data[0] >> 7,
    };
    as_frame(data + 4, size - 4);
    as_planes(&plane, data + 4, size - 4);
    as_kv(&plane, data + 4, size - 4);
    as_calibrated(&plane, data + 4, size - 4);
    return 0;
}
