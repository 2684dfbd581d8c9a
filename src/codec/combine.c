/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of rows of a matrix, in an order that does not depend on the width of vectors: each element
 * is one running sum, and nothing is fused (-ffp-contract=off).
 */
#include "codec/transform.h"

#ifdef __FAST_MATH__
#error "sums must not depend on the machine: build this without -ffast-math"
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16u
#define TILE (4 * LANES) /* elements whose sums stay in registers */

/* Only as aligned as a float is: rows of a matrix are.  Where registers are shorter, a compiler
 * takes several. */
typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

INLINE void combine_tile(float *out, const float *start, const float *weights, const uint16_t *rows,
                         uint32_t count, const float *matrix, uint32_t dims)
{
    const lanes *from = (const lanes *)(const void *)start;
    lanes a = from[0], b = from[1], c = from[2], d = from[3];
    for (uint32_t k = 0; k < count; k++) {
        const lanes *row = (const lanes *)(const void *)(matrix + (size_t)rows[k] * dims);
        a += weights[k] * row[0];
        b += weights[k] * row[1];
        c += weights[k] * row[2];
        d += weights[k] * row[3];
    }
    lanes *to = (lanes *)(void *)out;
    to[0] = a;
    to[1] = b;
    to[2] = c;
    to[3] = d;
}

INLINE void combine_lanes(float *out, const float *start, const float *weights,
                          const uint16_t *rows, uint32_t count, const float *matrix, uint32_t dims)
{
    lanes sum = *(const lanes *)(const void *)start;
    for (uint32_t k = 0; k < count; k++)
        sum += weights[k] * *(const lanes *)(const void *)(matrix + (size_t)rows[k] * dims);
    *(lanes *)(void *)out = sum;
}

INLINE void combine_few(float *out, const float *start, const float *weights, const uint16_t *rows,
                        uint32_t count, const float *matrix, uint32_t dims, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        float sum = start[i];
        for (uint32_t k = 0; k < count; k++)
            sum += weights[k] * matrix[(size_t)rows[k] * dims + i];
        out[i] = sum;
    }
}

INLINE void combine(float *out, const float *start, const float *weights, const uint16_t *rows,
                    uint32_t count, const float *matrix, uint32_t dims)
{
    uint32_t at = 0;
    for (; at + TILE <= dims; at += TILE)
        combine_tile(out + at, start + at, weights, rows, count, matrix + at, dims);
    for (; at + LANES <= dims; at += LANES)
        combine_lanes(out + at, start + at, weights, rows, count, matrix + at, dims);
    combine_few(out + at, start + at, weights, rows, count, matrix + at, dims, dims - at);
}

typedef void combine_fn(float *out, const float *start, const float *weights, const uint16_t *rows,
                        uint32_t count, const float *matrix, uint32_t dims);

static void combine_4(float *out, const float *start, const float *weights, const uint16_t *rows,
                      uint32_t count, const float *matrix, uint32_t dims)
{
    combine(out, start, weights, rows, count, matrix, dims);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void combine_8(float *out, const float *start,
                                                      const float *weights, const uint16_t *rows,
                                                      uint32_t count, const float *matrix,
                                                      uint32_t dims)
{
    combine(out, start, weights, rows, count, matrix, dims);
}

__attribute__((target("avx512f,prefer-vector-width=512"))) static void
combine_16(float *out, const float *start, const float *weights, const uint16_t *rows,
           uint32_t count, const float *matrix, uint32_t dims)
{
    combine(out, start, weights, rows, count, matrix, dims);
}
#endif

static combine_fn *of_width(unsigned width)
{
#if defined(__x86_64__)
    if (width == 16)
        return __builtin_cpu_supports("avx512f") ? combine_16 : NULL;
    if (width == 8)
        return __builtin_cpu_supports("avx2") ? combine_8 : NULL;
#endif
    return width == 4 ? combine_4 : NULL;
}

bool wf_transform_combine_width(unsigned width, float *out, const float *start,
                                const float *weights, const uint16_t *rows, uint32_t count,
                                const float *matrix, uint32_t dims)
{
    combine_fn *fn = of_width(width);
    if (fn)
        fn(out, start, weights, rows, count, matrix, dims);
    return fn != NULL;
}

void wf_transform_combine(float *out, const float *start, const float *weights,
                          const uint16_t *rows, uint32_t count, const float *matrix, uint32_t dims)
{
    combine_fn *fn = of_width(16);
    if (!fn)
        fn = of_width(8);
    (fn ? fn : combine_4)(out, start, weights, rows, count, matrix, dims);
}
