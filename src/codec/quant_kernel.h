/* SPDX-License-Identifier: Apache-2.0
 *
 * The inner loops of the quantising codecs, each compiled for several vector widths.
 *
 * They work on *cells*: up to WF_CELL_SAMPLES samples of up to WF_CELL_LANES lanes that have
 * nothing to do with each other, sample s of lane l at [s * WF_TILE_STRIDE + l] of floats and
 * [s * WF_CELL_LANES + l] of codes.  All arithmetic is along the lanes, element by element and in
 * the order of the samples, so that the width of a vector changes nothing: every kernel gives the
 * same bits.
 *
 * `lanes` is a multiple of 64 everywhere here; lanes that a cell does not need hold zeros.
 */
#ifndef WF_CODEC_QUANT_KERNEL_H
#define WF_CODEC_QUANT_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weft/weft.h"

#define WF_CELL_LANES 256u
#define WF_TILE_STRIDE \
    (WF_CELL_LANES + 16) /* so that rows do not compete for the same cache sets */
#define WF_CELL_SAMPLES 64u
#define WF_TURN_LANES 16u
#define WF_CELL_WORDS (WF_CELL_LANES / 64)
#define WF_CELL_WIDTH_MAX 8u /* bits of a code */
#define WF_NOTCHES 16u
#define WF_TILE (WF_CELL_SAMPLES * WF_TILE_STRIDE)

#define WF_PACK_SLACK 8u

/* What is measured of each lane. */
struct wf_lane_stats {
    float low[WF_CELL_LANES], high[WF_CELL_LANES];
    float mean[WF_CELL_LANES];
    float variance[WF_CELL_LANES];
};

/* How each lane is cut into steps: code q stands for base + q × step. */
struct wf_lane_steps {
    float base[WF_CELL_LANES];
    float step[WF_CELL_LANES];
    float most[WF_CELL_LANES]; /* the highest code, 2^width − 1 */
};

/* How steps are looked for. */
struct wf_lane_fit {
    float finest;
    const float *notches; /* [WF_NOTCHES]: the steps that there are, in units of the finest */
    float zero[WF_CELL_LANES];
    float range[WF_CELL_LANES];   /* from the least to the greatest sample about zero */
    int32_t notch[WF_CELL_LANES]; /* which steps */
    float square[WF_CELL_LANES], sum[WF_CELL_LANES]; /* of the error with these */
};

/* Where the bits of a row of codes are.  Bit p of the codes of 64 lanes is one run of bits, of
 * those lanes whose codes have it; the runs of the first 64 lanes come first, and of these the
 * lowest bits. */
struct wf_cell_bits {
    uint64_t mask[WF_CELL_WORDS][WF_CELL_WIDTH_MAX]; /* which lanes have bit p */
    uint32_t at[WF_CELL_WORDS][WF_CELL_WIDTH_MAX];   /* where its run begins in the row */
    uint8_t planes[WF_CELL_WORDS];                   /* the greatest width */
    uint32_t row;                                    /* bits of a row; rows join without a gap */
};

/* Bytes of the codes of so many samples. */
static inline size_t wf_cell_bits_bytes(const struct wf_cell_bits *bits, size_t samples)
{
    return (samples * bits->row + 7) / 8;
}

struct wf_quant_kernel {
    unsigned width; /* floats in a vector: 1 (none), 8 or 16 */
    /* Elements of a dtype to floats; *highest becomes the greatest magnitude if it was less, or
     * infinity where there is something that is not finite. */
    void (*load)(enum weft_dtype dtype, const void *from, size_t count, float *out, float *highest);
    /* The floats times `scale`, to the nearest number of the dtype and never beyond its largest. */
    void (*store)(enum weft_dtype dtype, const float *from, size_t count, float scale, void *out);
    /* How many of `thresholds`, WF_CELL_WIDTH_MAX of them in order, each variance reaches; returns
     * the sum. */
    uint32_t (*count_reached)(const float *variance, size_t lanes, const float *thresholds,
                              uint8_t *counts);
    void (*measure)(const float *tile, size_t samples, size_t lanes, bool centred,
                    struct wf_lane_stats *stats);
    /* The sum over the samples of the squared error, and of the error. */
    void (*try_steps)(const float *tile, size_t samples, size_t lanes,
                      const struct wf_lane_steps *steps, float *square, float *sum);
    /* Steps and bases of the notches in the fit, for the codes that steps->most allows. */
    void (*set_steps)(const struct wf_lane_fit *fit, size_t lanes, struct wf_lane_steps *steps);
    /* The notches of the least squared error among those that cut off more or less of the range,
     * and all that depends on them. */
    void (*fit_steps)(const float *tile, size_t samples, size_t lanes, struct wf_lane_fit *fit,
                      struct wf_lane_steps *steps);
    void (*quantise)(const float *tile, size_t samples, size_t lanes,
                     const struct wf_lane_steps *steps, uint8_t *codes);
    /* One sample of each of `count` lanes, restored, times `scale`: as store(). */
    void (*emit)(enum weft_dtype dtype, const uint8_t *codes, size_t count,
                 const struct wf_lane_steps *steps, float scale, void *out);
    /* Hadamard's transform along the samples, a power of two of them, not scaled. */
    void (*hadamard)(float *tile, size_t samples, size_t lanes);
    /* WF_TURN_LANES lanes from `lane` on, restored and transformed; lane after lane, each
     * WF_CELL_SAMPLES floats after the one before. */
    void (*turn_out)(const uint8_t *codes, size_t samples, const struct wf_lane_steps *steps,
                     size_t lane, float *out);
    /* to[c * to_stride + r] = from[r * from_stride + c] */
    void (*transpose)(const float *from, size_t from_stride, size_t rows, size_t columns, float *to,
                      size_t to_stride);
    /* Writes up to WF_PACK_SLACK bytes beyond wf_cell_bits_bytes(). */
    void (*pack)(const uint8_t *codes, size_t samples, const struct wf_cell_bits *bits,
                 uint8_t *out);
    /* wf_cell_bits_bytes() are read. */
    void (*unpack)(const uint8_t *in, size_t samples, size_t lanes, const struct wf_cell_bits *bits,
                   uint8_t *codes);
    /* codes are signed here: out = code × step */
    void (*scale_signed)(const int8_t *codes, const float *steps, size_t count, float *out);
    void (*round_signed)(const float *from, const float *inverse, size_t count, int8_t *codes);
};

/* Where the runs are, for lanes of these widths, 0 … WF_CELL_WIDTH_MAX. */
void wf_cell_bits_of(const uint8_t *widths, size_t lanes, struct wf_cell_bits *out);

/* NULL: this processor has none of that width. */
const struct wf_quant_kernel *wf_quant_kernel_of_width(unsigned width);
const struct wf_quant_kernel *wf_quant_kernel_widest(void);

#endif
