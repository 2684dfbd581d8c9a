/* SPDX-License-Identifier: Apache-2.0
 *
 * See quant_cell.h.  Everything here is float arithmetic in a fixed order, comparisons and
 * tables: no function whose last digit a library may choose.
 */
#include "codec/quant_cell.h"

#include <math.h>
#include <string.h>

#define LEVELS 1024u
#define UNIT_SHIFT 16
#define UNIT_MAX 40
#define CANDIDATES                                                                \
    8 /* steps that are tried: down to a quarter of the one that cuts nothing off \
       */

/* 2^(−k / 32) */
static const float fractions[32] = {1.0f,         0.978572071f, 0.957603276f, 0.93708384f,
                                    0.917004049f, 0.897354543f, 0.878126085f, 0.859309673f,
                                    0.840896428f, 0.822877765f, 0.805245161f, 0.787990451f,
                                    0.771105409f, 0.754582226f, 0.738413095f, 0.722590387f,
                                    0.707106769f, 0.69195497f,  0.677127779f, 0.662618339f,
                                    0.648419797f, 0.634525478f, 0.620928884f, 0.607623696f,
                                    0.594603539f, 0.58186245f,  0.56939429f,  0.557193398f,
                                    0.545253873f, 0.53357023f,  0.522136867f, 0.510948598f};
/* 2^(n / 4), but for the last three, which are for lanes so wide that no more bits would do: 2^4,
 * 2^5.5, 2^7. */
static const float notches[WF_NOTCHES] = {1.0f, 1.18920708f, 1.41421354f, 1.68179286f,
                                          2.0f, 2.37841415f, 2.82842708f, 3.36358571f,
                                          4.0f, 4.75682831f, 5.65685415f, 6.72717142f,
                                          8.0f, 16.0f,       45.2548332f, 128.0f};

/* The squared error of the best uniform quantiser of so many bits for a Gaussian of variance 1
 * (J. Max, "Quantizing for minimum distortion", 1960). */
static const float gaussian_error[WF_CELL_WIDTH_MAX + 1] = {1.0f,      0.3634f,    0.1188f,
                                                            0.03744f,  0.01154f,   0.003495f,
                                                            0.001041f, 0.0003035f, 0.00008714f};

static size_t padded(uint32_t lanes)
{
    return (lanes + 63) & ~(size_t)63;
}

static float finest_of(unsigned level)
{
    return ldexpf(fractions[level % 32], 6 - (int)(level / 32));
}

/* ------------------------------------------------------------------------------------ allotting */

/* The widths of lanes at a level: the lower of two levels is the one of fewer bits.  Each bit has
 * to bring as much as bits cost at the level; what they cost is such that the best steps of lanes
 * lie within the level's notches. */
static uint32_t widths_at(const struct wf_quant_kernel *kernel, const struct wf_cell *cell,
                          size_t lanes, unsigned level, uint8_t *widths)
{
    float finest = finest_of(level), thresholds[WF_CELL_WIDTH_MAX];
    for (unsigned k = 0; k < WF_CELL_WIDTH_MAX; k++)
        thresholds[k] = finest * finest * 0.707106769f /
                        (gaussian_error[k] - gaussian_error[k + 1]);
    return kernel->count_reached(cell->stats.variance, lanes, thresholds, widths);
}

static float range_of(const struct wf_cell *cell, uint32_t lane, bool centred)
{
    float low = cell->stats.low[lane], high = cell->stats.high[lane];
    if (centred)
        return high - low;
    return 2 * (high > -low ? high : -low);
}

/* The finest level at which the coarsest step of the widest lane still spans its range. */
static unsigned level_limit(const struct wf_cell *cell, const struct wf_cell_shape *shape)
{
    float widest = 0;
    for (uint32_t l = 0; l < shape->lanes; l++) {
        float range = range_of(cell, l, shape->centred);
        widest = range > widest ? range : widest;
    }
    unsigned low = 0, high = LEVELS - 2;
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (finest_of(middle) * notches[WF_NOTCHES - 1] * 255.0f >= widest)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Widths for rows of at most `row_bits`; returns the level. */
static unsigned allot(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, uint32_t row_bits)
{
    unsigned low = 0, high = level_limit(cell, shape);
    size_t lanes = padded(shape->lanes);
    memset(cell->width, 0, sizeof cell->width);
    while (low < high) { /* the highest level whose widths fit */
        unsigned middle = (low + high + 1) / 2;
        if (widths_at(kernel, cell, lanes, middle, cell->width) <= row_bits)
            low = middle;
        else
            high = middle - 1;
    }
    uint32_t sum = widths_at(kernel, cell, lanes, low, cell->width);
    for (uint32_t l = shape->lanes; sum > row_bits && l-- > 0;) { /* only at level 0 */
        sum -= cell->width[l];
        cell->width[l] = 0;
    }
    uint32_t next = widths_at(kernel, cell, lanes, low + 1, cell->next);
    for (uint32_t l = 0; next > sum && sum < row_bits && l < shape->lanes; l++)
        if (cell->next[l] > cell->width[l]) {
            cell->width[l]++;
            sum++;
        }
    return low;
}

static uint32_t row_bits_of(const struct wf_cell_shape *shape, unsigned zero_bytes)
{
    uint32_t beside = 8 * ((uint32_t)sizeof(struct wf_cell_head) + shape->lanes * (1 + zero_bytes));
    return shape->budget > beside ? (shape->budget - beside) / shape->samples : 0;
}

/* The unit of zeros that reaches the farthest of them, in `most` units; not finer than pays. */
static unsigned unit_for(const struct wf_cell *cell, uint32_t lanes, float finest, float most)
{
    float farthest = 0;
    for (uint32_t l = 0; l < lanes; l++) {
        float zero = cell->fit.zero[l] < 0 ? -cell->fit.zero[l] : cell->fit.zero[l];
        farthest = zero > farthest ? zero : farthest;
    }
    unsigned unit = UNIT_SHIFT - 2;
    for (float reach = finest * 0.25f * most; unit < UNIT_MAX && reach < farthest; reach *= 2)
        unit++;
    return unit;
}

/* Level, widths, and how zeros are kept. */
static struct wf_cell_head plan(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                                const struct wf_cell_shape *shape)
{
    struct wf_cell_head head = {0};
    if (!shape->centred) {
        head.level = (uint16_t)allot(kernel, cell, shape, row_bits_of(shape, 0));
        return head;
    }
    for (uint32_t l = 0; l < shape->lanes; l++)
        cell->fit.zero[l] = 0.5f * (cell->stats.low[l] + cell->stats.high[l]);
    head.zero_bytes = 1;
    head.level = (uint16_t)allot(kernel, cell, shape, row_bits_of(shape, 1));
    head.unit = (uint8_t)unit_for(cell, shape->lanes, finest_of(head.level), 127);
    if (head.unit > UNIT_SHIFT + 1) { /* too coarse beside the steps */
        head.zero_bytes = 2;
        head.level = (uint16_t)allot(kernel, cell, shape, row_bits_of(shape, 2));
        head.unit = (uint8_t)unit_for(cell, shape->lanes, finest_of(head.level), 32767);
    }
    return head;
}

double wf_cell_expect(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape)
{
    kernel->measure(cell->tile, shape->samples, padded(shape->lanes), shape->centred, &cell->stats);
    plan(kernel, cell, shape);
    double error = 0;
    for (uint32_t l = 0; l < shape->lanes; l++)
        error += (double)(cell->stats.variance[l] * gaussian_error[cell->width[l]]);
    return error * shape->samples;
}

/* -------------------------------------------------------------------------------------- fitting */

static float nearest_zero(float zero, float unit, float most)
{
    float count = rintf(zero / unit);
    count = count < most ? count : most;
    return (count > -most ? count : -most) * unit;
}

/* The step of each lane that makes the least error. */
static void fit_steps(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, float finest)
{
    size_t lanes = padded(shape->lanes);
    cell->fit.finest = finest;
    cell->fit.notches = notches;
    for (uint32_t l = 0; l < lanes; l++) {
        cell->steps.most[l] = (float)((1u << cell->width[l]) - 1);
        cell->fit.range[l] = range_of(cell, l, shape->centred);
    }
    kernel->fit_steps(cell->tile, shape->samples, lanes, &cell->fit, &cell->steps);
}

/* Zeros moved by the mean of the error, where that helps. */
static void fit_zeros(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, float unit, float most)
{
    size_t lanes = padded(shape->lanes);
    float before[WF_CELL_LANES], square[WF_CELL_LANES], sum[WF_CELL_LANES];
    float *zero = cell->fit.zero, each = 1.0f / (float)shape->samples;
    memcpy(before, zero, sizeof before);
    for (size_t l = 0; l < lanes; l++)
        zero[l] = nearest_zero(before[l] + cell->fit.sum[l] * each, unit, most);
    kernel->set_steps(&cell->fit, lanes, &cell->steps);
    kernel->try_steps(cell->tile, shape->samples, lanes, &cell->steps, square, sum);
    for (size_t l = 0; l < lanes; l++)
        zero[l] = square[l] < cell->fit.square[l] ? zero[l] : before[l];
    kernel->set_steps(&cell->fit, lanes, &cell->steps);
}

/* ------------------------------------------------------------------------------- cells to bytes */

int wf_cell_normalise(struct wf_cell *cell, uint32_t samples, uint32_t lanes, float highest)
{
    int exponent;
    frexpf(highest, &exponent);
    exponent--;
    /* In two steps, since 2^149 is no float. */
    float half = ldexpf(1.0f, -exponent / 2), rest = ldexpf(1.0f, -exponent - -exponent / 2);
    for (uint32_t s = 0; s < samples; s++)
        for (size_t l = 0; l < padded(lanes); l++)
            cell->tile[s * WF_TILE_STRIDE + l] = cell->tile[s * WF_TILE_STRIDE + l] * half * rest;
    return exponent;
}

size_t wf_cell_encode(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, int exponent, uint8_t *out)
{
    size_t lanes = padded(shape->lanes);
    memset(cell->fit.zero, 0, sizeof cell->fit.zero);
    kernel->measure(cell->tile, shape->samples, lanes, shape->centred, &cell->stats);
    struct wf_cell_head head = plan(kernel, cell, shape);
    head.exponent = (int16_t)exponent;
    float finest = finest_of(head.level), most = head.zero_bytes == 2 ? 32767 : 127;
    float unit = ldexpf(finest, head.unit - UNIT_SHIFT);
    for (size_t l = 0; shape->centred && l < lanes; l++)
        cell->fit.zero[l] = nearest_zero(cell->fit.zero[l], unit, most);
    fit_steps(kernel, cell, shape, finest);
    if (shape->centred)
        fit_zeros(kernel, cell, shape, unit, most);
    kernel->quantise(cell->tile, shape->samples, lanes, &cell->steps, cell->codes);

    uint8_t *at = out;
    memcpy(at, &head, sizeof head);
    at += sizeof head;
    for (uint32_t l = 0; l < shape->lanes; l++)
        *at++ = (uint8_t)(cell->width[l] << 4 | cell->fit.notch[l]);
    for (uint32_t l = 0; l < shape->lanes && head.zero_bytes; l++) {
        int16_t count = (int16_t)rintf(cell->fit.zero[l] / unit);
        memcpy(at, &count, head.zero_bytes);
        at += head.zero_bytes;
    }
    wf_cell_bits_of(cell->width, lanes, &cell->bits);
    kernel->pack(cell->codes, shape->samples, &cell->bits, at);
    at += wf_cell_bits_bytes(&cell->bits, shape->samples);
    return (size_t)(at - out);
}

/* What is beside the codes, checked, to widths and steps. */
static bool read_lanes(struct wf_cell *cell, const struct wf_cell_head *head, uint32_t lanes,
                       float gain, const uint8_t *in)
{
    static const float most[16] = {0, 1, 3, 7, 15, 31, 63, 127, 255};
    const uint8_t *zeros = in + lanes;
    float *zero = cell->fit.zero, *step = cell->steps.step, *base = cell->steps.base;
    memset(zero, 0, sizeof cell->fit.zero);
    memset(cell->width, 0, sizeof cell->width);
    memset(step, 0, sizeof cell->steps.step);
    memset(base, 0, sizeof cell->steps.base);
    for (uint32_t l = 0; head->zero_bytes == 1 && l < lanes; l++)
        zero[l] = (float)(zeros[l] < 128 ? zeros[l] : zeros[l] - 256);
    for (uint32_t l = 0; head->zero_bytes == 2 && l < lanes; l++) {
        int16_t count;
        memcpy(&count, zeros + 2 * l, 2);
        zero[l] = count;
    }
    bool wide = false;
    for (uint32_t l = 0; l < lanes; l++) {
        cell->width[l] = in[l] >> 4;
        wide = wide || in[l] >> 4 > (int)WF_CELL_WIDTH_MAX;
    }
    if (wide)
        return false;
    float finest = finest_of(head->level), unit = ldexpf(finest, head->unit - UNIT_SHIFT);
    for (uint32_t l = 0; l < lanes; l++) {
        float own = finest * notches[in[l] & 15];
        step[l] = own * gain;
        base[l] = (zero[l] * unit - 0.5f * most[in[l] >> 4] * own) * gain;
    }
    return true;
}

size_t wf_cell_decode(const struct wf_quant_kernel *kernel, struct wf_cell *cell,
                      const struct wf_cell_shape *shape, const uint8_t *in, size_t bytes,
                      float *scale)
{
    struct wf_cell_head head;
    if (bytes < sizeof head)
        return 0;
    memcpy(&head, in, sizeof head);
    size_t at = sizeof head + (size_t)shape->lanes * (1u + head.zero_bytes);
    if (head.level >= LEVELS || head.zero_bytes > 2 || head.unit > UNIT_MAX ||
        head.exponent < -149 || head.exponent > 127 || bytes < at ||
        !read_lanes(cell, &head, shape->lanes, shape->gain, in + sizeof head))
        return 0;
    size_t lanes = padded(shape->lanes);
    wf_cell_bits_of(cell->width, lanes, &cell->bits);
    size_t codes = wf_cell_bits_bytes(&cell->bits, shape->samples);
    if (bytes - at < codes)
        return 0;
    kernel->unpack(in + at, shape->samples, lanes, &cell->bits, cell->codes);
    *scale = ldexpf(1.0f, head.exponent);
    return at + codes;
}
