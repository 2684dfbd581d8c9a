/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner loops of the transform codec, which work on 16 tokens at once, a token a lane: so the
 * 16 have one distribution for each coefficient, one angle for each pair of channels, and no sum
 * goes across lanes.  All kernels answer the same to the bit: what is added is added in the order
 * that is told here, products and sums are fused where it says so and nowhere else.
 *
 * An array of lanes is float [count][16].
 */
#ifndef WF_CODEC_TRANSFORM_LANES_H
#define WF_CODEC_TRANSFORM_LANES_H

#include "codec/codec.h"
#include "codec/coder.h"
#include "codec/isa.h"
#include "codec/rope.h"

/* Some of the coefficients of a group of heads, `count` in turn, as they are coded. */
struct wf_lanes_run {
    const struct wf_laplace *laplace;
    const uint8_t *class, *shift; /* [count] */
    unsigned count, lanes;
    float step;
};

struct wf_lanes_kernels {
    /* `count` channels of up to 16 tokens, which are `stride` elements apart; lanes from `lanes` on
     * become 0.  Back, as near to it as the type has one, and never an infinity. */
    void (*load)(enum weft_dtype dtype, const void *plain, size_t stride, unsigned lanes,
                 uint32_t count, float *out);
    void (*store)(enum weft_dtype dtype, const float *in, size_t stride, unsigned lanes,
                  uint32_t count, void *plain);
    /* Turn heads in place, by the sines and cosines of [dims / 2][16]. */
    void (*turn)(const struct wf_rope *rope, const float *cosine, const float *sine, float *rows,
                 uint32_t heads, uint32_t head_dim);
    /* Take mean[i] from row i. */
    void (*center)(float *rows, const float *mean, uint32_t count);
    /* out[j] = start[j] + Σ matrix[rows[k]][j] × in[k], k = 0 … count − 1 in this order, each a
     * fused multiplication and addition; start NULL: 0.  Matrix, start and out have whole tiles,
     * and the next group's matrix is fetched meanwhile (profile.h). */
    void (*product)(float *out, const float *start, const float *matrix, uint32_t dims,
                    const uint16_t *rows, uint32_t count, const float *in);
    /* To whole steps; lanes from `lanes` on become 0.  False: one is beyond what is coded, or no
     * number. */
    bool (*quantise)(const float *in, float per_step, uint32_t count, unsigned lanes, int32_t *out);
    /* Is all of them zero? */
    bool (*zero)(const int32_t *quantised, uint32_t count);
    /* Whole steps to symbols [count][16] and what goes beside them as bits. */
    void (*pack)(const struct wf_lanes_run *run, const int32_t *quantised, uint8_t *symbols,
                 struct wf_bit_writer *bits);
    /* And to coefficients, but for those that are zero for all tokens; `first` is the number of the
     * run's first, and `numbers` has room for all.  Returns how many there are. */
    unsigned (*unpack)(const struct wf_lanes_run *run, const uint8_t *symbols,
                       struct wf_bit_reader *bits, uint32_t first, float *out, uint16_t *numbers);
    /* As wf_coder_encode() and wf_coder_decode(). */
    uint8_t *(*encode)(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                       unsigned lanes, const uint8_t *symbols, unsigned states, uint32_t *state,
                       uint8_t *word, const uint8_t *least);
    const uint8_t *(*decode)(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                             unsigned lanes, uint8_t *symbols, unsigned states, uint32_t *state,
                             const uint8_t *word, const uint8_t *end);
};

/* `isa` must be usable. */
const struct wf_lanes_kernels *wf_lanes_kernels_of(enum wf_codec_isa isa);

extern const struct wf_lanes_kernels wf_lanes_scalar;
#if defined(__x86_64__)
extern const struct wf_lanes_kernels wf_lanes_avx2, wf_lanes_avx512;
#endif

#endif
