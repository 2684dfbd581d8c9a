/* SPDX-License-Identifier: Apache-2.0
 *
 * A small model's KV, a profile of it, and what comes back of a block that is stored by that
 * profile: to the bit, since codecs give the same bytes everywhere.
 */
#ifndef TEST_SUPPORT_PROFILE_H
#define TEST_SUPPORT_PROFILE_H

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibrate.h"
#include "codec/convert.h"
#include "codec/frame.h"

#ifndef PROFILE_LAYERS /* a test may have larger blocks */
#define PROFILE_LAYERS 2u
#endif
#define PROFILE_HEADS 4u
#define PROFILE_DIM 16u
#define PROFILE_TOKENS 64u /* of a block */
#define PROFILE_ROW (PROFILE_HEADS * PROFILE_DIM)
#define PROFILE_BLOCK_BYTES (2u * PROFILE_LAYERS * PROFILE_TOKENS * PROFILE_ROW * 2u)

static inline float profile_gaussian(uint32_t *seed)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *seed = *seed * 1664525 + 1013904223; /* Numerical Recipes */
        sum += (float)(*seed >> 8 & 0xffff) / 65536.0f;
    }
    return sum - 6.0f;
}

/* Channels that hang together. */
static inline void profile_rows(uint32_t *seed, float *rows)
{
    for (uint32_t t = 0; t < PROFILE_TOKENS; t++) {
        float common = profile_gaussian(seed);
        for (uint32_t i = 0; i < PROFILE_ROW; i++)
            rows[t * PROFILE_ROW + i] = 0.1f * (float)(i % 5) + common * (float)(i % 3) +
                                        0.2f * profile_gaussian(seed);
    }
}

/* Block number `number` of everything that the model may make, in bf16; `out` is aligned for it. */
static inline void profile_block(uint32_t number, uint8_t *out)
{
    float rows[PROFILE_TOKENS * PROFILE_ROW];
    uint32_t seed = number * 2654435761u + 17;
    for (uint32_t plane = 0; plane < 2 * PROFILE_LAYERS; plane++) {
        profile_rows(&seed, rows);
        wf_floats_to(WEFT_BF16, rows, PROFILE_TOKENS * PROFILE_ROW,
                     out + (size_t)plane * sizeof rows / 2);
    }
}

/* A profile's file for `model`; with other `finer` the steps are others, and so is its id. */
static inline void profile_make(const char *model, uint16_t finer, const char *path)
{
    float keys[PROFILE_TOKENS * PROFILE_ROW], values[PROFILE_TOKENS * PROFILE_ROW];
    float queries[PROFILE_TOKENS * PROFILE_ROW];
    uint32_t seed = 5;
    struct wf_calibration *c;
    struct wf_calibration_shape shape = {.layers = PROFILE_LAYERS,
                                         .query_heads = PROFILE_HEADS,
                                         .heads = PROFILE_HEADS,
                                         .head_dim = PROFILE_DIM,
                                         .sinks = 4,
                                         .dtype = WEFT_BF16,
                                         .rope_pairing = WF_PROFILE_NO_ROPE,
                                         .model = model};
    struct wf_profile_point points[WF_PROFILE_POINTS] = {
        [WEFT_TRANSPARENT] = {.parameter = (uint16_t)(1000 - finer), .ratio = 3},
        [WEFT_ECONOMY] = {.parameter = (uint16_t)(1040 - finer), .ratio = 6}};
    void *file;
    size_t bytes;
    assert(wf_calibration_create(&shape, &c) == WEFT_OK);
    for (uint32_t layer = 0; layer < PROFILE_LAYERS; layer++)
        for (int round = 0; round < 4; round++) {
            profile_rows(&seed, keys);
            profile_rows(&seed, values);
            profile_rows(&seed, queries);
            enum weft_status added = wf_calibration_add(c, layer, PROFILE_TOKENS, keys, values,
                                                        queries);
            assert(added == WEFT_OK);
        }
    assert(wf_calibration_design(c) == WEFT_OK);
    for (uint32_t plane = 0; plane < 2 * PROFILE_LAYERS; plane++) {
        profile_rows(&seed, keys);
        wf_calibration_observe(c, plane / 2, plane % 2, 0, PROFILE_TOKENS, keys);
        wf_calibration_sensitivity(c, plane / 2, plane % 2, 1);
    }
    wf_calibration_steps(c, 0.5);
    assert(wf_calibration_file(c, points, &file, &bytes) == WEFT_OK);
    wf_calibration_destroy(c);
    FILE *to = fopen(path, "wbe");
    assert(to);
    assert(fwrite(file, 1, bytes, to) == bytes);
    assert(fclose(to) == 0);
    free(file);
}

static inline struct wf_profile *profile_read(const char *path)
{
    struct wf_profile *profile;
    static uint8_t bytes[1 << 20];
    FILE *from = fopen(path, "rbe");
    assert(from);
    size_t count = fread(bytes, 1, sizeof bytes, from);
    assert(fclose(from) == 0 && count < sizeof bytes);
    assert(wf_profile_parse(bytes, count, &profile) == WEFT_OK);
    return profile;
}

/* What a block at `depth` of its chain comes back as. */
static inline void profile_back(const struct wf_profile *profile, enum weft_quality quality,
                                uint32_t depth, const uint8_t *block, uint8_t *out)
{
    struct wf_layout layout;
    struct wf_frame frame;
    uint64_t bytes;
    assert(wf_layout_of(WEFT_BF16, PROFILE_LAYERS, PROFILE_TOKENS, PROFILE_HEADS, PROFILE_DIM,
                        &layout));
    assert(layout.bytes == PROFILE_BLOCK_BYTES);
    struct wf_frame_plan plan = {.all = {.codec = &wf_codec_transform,
                                         .parameter = profile->head.points[quality].parameter},
                                 .otherwise = wf_codec_by_name("lossless"),
                                 .profile = profile,
                                 .quality = (uint8_t)quality};
    uint8_t *encoded = malloc(wf_frame_bound(&layout));
    void *scratch = aligned_alloc(64, (wf_frame_scratch(&layout) + 63) / 64 * 64);
    assert(encoded && scratch);
    assert(wf_frame_encode(&layout, &plan, (uint64_t)depth * PROFILE_TOKENS, block, encoded, &bytes,
                           scratch) == WEFT_OK);
    assert(wf_frame_open(encoded, bytes, &frame) == WEFT_OK);
    assert(frame.head.flags & WF_FRAME_LOSSY);
    assert(wf_frame_decode(&frame, encoded, 0, layout.planes, profile, out, scratch) == WEFT_OK);
    free(encoded);
    free(scratch);
}

#endif
