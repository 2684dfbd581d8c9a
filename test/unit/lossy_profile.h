/* SPDX-License-Identifier: Apache-2.0
 *
 * A profile of a small model, for tests, and numbers that it fits.
 */
#ifndef TEST_LOSSY_PROFILE_H
#define TEST_LOSSY_PROFILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "../support/random.h"
#include "codec/calibrate.h"
#include "codec/profile.h"

#define LAYERS 4u
#define HEADS 2u
#define DIM 16u
#define ROW (HEADS * DIM)
#define TOKENS 64u
#define PLANE (TOKENS * ROW * 2)
#define BLOCK (2 * LAYERS * PLANE)
#define SINKS 2u
static inline float gaussian(struct random_source *r)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)random_below(r, 65536) / 65536.0f;
    return sum - 6.0f;
}

/* Channels that hang together. */
static inline void draw(struct random_source *r, float *rows, uint32_t tokens, uint32_t channels)
{
    for (uint32_t t = 0; t < tokens; t++) {
        float common = gaussian(r);
        for (uint32_t i = 0; i < channels; i++)
            rows[t * channels + i] = 0.1f * (float)(i % 5) + common * (float)(i % 3 + 1) +
                                     0.2f * gaussian(r);
    }
}

static inline struct wf_profile *calibrated(uint32_t layers)
{
    static const struct wf_profile_point points[WF_PROFILE_POINTS];
    static float keys[TOKENS * ROW], values[TOKENS * ROW], queries[TOKENS * ROW];
    struct random_source r = {layers};
    struct wf_calibration *c;
    struct wf_profile *out;
    void *file;
    size_t bytes;
    struct wf_calibration_shape shape = {
        .layers = layers,
        .query_heads = HEADS,
        .heads = HEADS,
        .head_dim = DIM,
        .sinks = SINKS,
        .dtype = WEFT_BF16,
        .rope_pairing = WF_ROPE_HALVES,
        .rope_dims = DIM,
        .rope_theta = 10000,
        .model = "test",
    };
    assert_int_equal(wf_calibration_create(&shape, &c), WEFT_OK);
    for (uint32_t layer = 0; layer < layers; layer++) {
        draw(&r, keys, TOKENS, ROW);
        draw(&r, values, TOKENS, ROW);
        draw(&r, queries, TOKENS, ROW);
        assert_int_equal(wf_calibration_add(c, layer, TOKENS, keys, values, queries), WEFT_OK);
    }
    assert_int_equal(wf_calibration_design(c), WEFT_OK);
    for (uint32_t p = 0; p < 2 * layers; p++) {
        draw(&r, keys, TOKENS, ROW);
        wf_calibration_observe(c, p / 2, p % 2, 0, TOKENS, keys);
        wf_calibration_sensitivity(c, p / 2, p % 2, 1);
    }
    wf_calibration_steps(c, 0.5);
    assert_int_equal(wf_calibration_file(c, points, &file, &bytes), WEFT_OK);
    assert_int_equal(wf_profile_parse(file, bytes, &out), WEFT_OK);
    free(file);
    wf_calibration_destroy(c);
    return out;
}

#endif
