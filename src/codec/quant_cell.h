/* SPDX-License-Identifier: Apache-2.0
 *
 * Cells of few bits: how int4 and int2 keep a rectangle of numbers.
 *
 * A cell has up to WF_CELL_LANES lanes of up to WF_CELL_SAMPLES samples.  Every lane has a width
 * in bits, a step and (if the cell is centred) a zero of its own.  The widths are dealt out so
 * that the squared error of the cell as a whole is least for the bits that it may have (a bit goes
 * where it helps most: reverse water-filling): a channel with outliers gets more of them, a flat
 * one none at all.  The step is the one of the least squared error among those that cut off more
 * or less of the lane's ends.
 *
 *     0   +--------------------------------------------------------------+
 *         | struct wf_cell_head, 6 bytes                                 |
 *         +--------------------------------------------------------------+
 *         | a byte a lane: width << 4 | n; step = finest × notches[n]    |
 *         | zeros: 0, 1 or 2 bytes a lane, little-endian, in units       |
 *         +--------------------------------------------------------------+
 *         | samples × rows of bits (struct wf_cell_bits)                 |
 *         +--------------------------------------------------------------+
 *
 * with finest = 2^(6 − level / 32), notches[n] about 2^(n / 4), unit = finest × 2^(unit − 16), and
 * value = 2^exponent × (zero × unit + (code − (2^width − 1) / 2) × step).
 *
 * Pure; any thread, each with a struct wf_cell of its own.
 */
#ifndef WF_CODEC_QUANT_CELL_H
#define WF_CODEC_QUANT_CELL_H

#include <assert.h>

#include "codec/quant_kernel.h"

struct wf_cell_head {
    int16_t exponent;
    uint16_t level;
    uint8_t zero_bytes; /* 0, 1 or 2 */
    uint8_t unit;
};
static_assert(sizeof(struct wf_cell_head) == 6, "frame format");

/* The working memory of one cell. */
struct wf_cell {
    float tile[WF_TILE];
    float rows[WF_TILE]; /* the caller's */
    uint8_t codes[WF_CELL_SAMPLES * WF_CELL_LANES];
    struct wf_lane_stats stats;
    struct wf_lane_steps steps;
    struct wf_lane_fit fit;
    uint8_t width[WF_CELL_LANES], next[WF_CELL_LANES];
    struct wf_cell_bits bits;
};

/* The shape of a cell, and what it may cost. */
struct wf_cell_shape {
    uint32_t samples, lanes;
    bool centred;    /* lanes have zeros of their own */
    uint32_t budget; /* bits in all; encoding only */
    float gain;      /* power of two by which the decoded tile is multiplied; decoding only */
};

/* What is in the tile, at most `highest` (> 0) in magnitude before any transform, becomes
 * magnitudes of about 1. Returns the exponent for wf_cell_encode(). */
int wf_cell_normalise(struct wf_cell *cell, uint32_t samples, uint32_t lanes, float highest);

/* The squared error that wf_cell_encode() can be expected to make, summed over the tile. */
double wf_cell_expect(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape);

/* The tile to `out`; returns its bytes, beyond which up to WF_PACK_SLACK are written. */
size_t wf_cell_encode(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, int exponent, uint8_t *out);

/* A cell to its codes and steps, of which what comes out is to be multiplied with *scale.  Returns
 * its bytes; 0: it is no cell. */
size_t wf_cell_decode(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, const uint8_t *in, size_t bytes,
                      float *scale);

#endif
