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
#define TILE 64u /* elements whose sums stay in registers */

INLINE void combine_some(float *restrict out, const float *restrict start,
                         const float *restrict weights, const uint16_t *restrict rows,
                         uint32_t count, const float *restrict matrix, uint32_t dims,
                         uint32_t width)
{
    float sum[TILE];
    for (uint32_t i = 0; i < width; i++)
        sum[i] = start[i];
    for (uint32_t k = 0; k < count; k++) {
        const float *row = matrix + (size_t)rows[k] * dims;
        float weight = weights[k];
        for (uint32_t i = 0; i < width; i++)
            sum[i] += weight * row[i];
    }
    for (uint32_t i = 0; i < width; i++)
        out[i] = sum[i];
}

INLINE void combine(float *out, const float *start, const float *weights, const uint16_t *rows,
                    uint32_t count, const float *matrix, uint32_t dims)
{
    uint32_t at = 0;
    for (; at + TILE <= dims; at += TILE)
        combine_some(out + at, start + at, weights, rows, count, matrix + at, dims, TILE);
    for (; at + 16 <= dims; at += 16)
        combine_some(out + at, start + at, weights, rows, count, matrix + at, dims, 16);
    if (at < dims)
        combine_some(out + at, start + at, weights, rows, count, matrix + at, dims, dims - at);
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
