/* SPDX-License-Identifier: Apache-2.0
 *
 * See kernel.h for the one rule: the order of operations is part of the result.  This file is
 * compiled with -ffp-contract=off, and must never see -ffast-math.
 */
#include "llama/kernel.h"

#include <math.h>
#include <string.h>

#ifdef __FAST_MATH__
#error "a Llama's answers must not depend on the compiler's mood: build it without -ffast-math"
#endif

/* Only as aligned as a float is: rows start where the model's shape puts them. */
typedef float vector_4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef float vector_8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef float vector_16 __attribute__((vector_size(64), aligned(4), may_alias));

/* The tree's last steps for four dot products: lane i takes lane i + 2, then i + 1. */
static inline __attribute__((always_inline)) vector_4 fold_four(vector_4 a, vector_4 b, vector_4 c,
                                                                vector_4 d)
{
    vector_4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) +
                  __builtin_shufflevector(a, b, 2, 6, 3, 7);
    vector_4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) +
                  __builtin_shufflevector(c, d, 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) +
           __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

#define WIDTH 4
#define ROWS 2
#define TILE 2
#define ALONE 4
#define TARGET
#include "llama/kernel_loops.h"

#if defined(__x86_64__)
#define WIDTH 8
#define ROWS 1
#define TILE 4
#define ALONE 4
#define TARGET __attribute__((target("avx2")))
#include "llama/kernel_loops.h"

#define WIDTH 16
#define ROWS 4
#define TILE 4
#define ALONE 8
#define TARGET __attribute__((target("avx512f")))
#include "llama/kernel_loops.h"

/* Wide vectors pay for long rows only; since all widths agree, short rows may go the other way. */
#define LONG_COLUMNS 64

static void multiply_long(float *const *out, const float *x, size_t x_stride, size_t count,
                          const struct wf_kernel_rows *rows, size_t first, size_t end)
{
    wf_kernel_multiply_fn *fn = rows->columns > LONG_COLUMNS ? multiply_16 : multiply_8;
    fn(out, x, x_stride, count, rows, first, end);
}

static void weigh_long(float *out, const float *weights, const struct wf_kernel_rows *rows,
                       size_t count)
{
    wf_kernel_weigh_fn *fn = rows->columns >= LONG_COLUMNS ? weigh_16 : weigh_8;
    fn(out, weights, rows, count);
}
#endif

const struct wf_kernel *wf_kernel_of_width(unsigned width)
{
    static const struct wf_kernel four = {4, multiply_4, weigh_4};
    if (width == 4)
        return &four;
#if defined(__x86_64__)
    static const struct wf_kernel eight = {8, multiply_8, weigh_8};
    static const struct wf_kernel sixteen = {16, multiply_long, weigh_long};
    if (width == 8 && __builtin_cpu_supports("avx2"))
        return &eight;
    if (width == 16 && __builtin_cpu_supports("avx512f"))
        return &sixteen;
#endif
    return NULL;
}

const struct wf_kernel *wf_kernel_widest(void)
{
    const struct wf_kernel *found = NULL;
    for (unsigned width = 16; !found; width /= 2)
        found = wf_kernel_of_width(width);
    return found;
}

void wf_kernel_rmsnorm(const struct wf_kernel *kernel, float *out, const float *x,
                       const float *gain, size_t count)
{
    float square, *where = &square;
    kernel->multiply(&where, x, count, 1, &(struct wf_kernel_rows){x, count, count}, 0, 1);
    float scale = 1.0f / sqrtf(square / (float)count + 1e-5f);
    for (size_t i = 0; i < count; i++)
        out[i] = gain[i] * (scale * x[i]);
}

void wf_kernel_softmax(float *scores, float scale, size_t count)
{
    float highest = scores[0];
    for (size_t i = 1; i < count; i++)
        highest = scores[i] > highest ? scores[i] : highest;
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++) {
        scores[i] = expf(scale * (scores[i] - highest));
        sum += scores[i];
    }
    for (size_t i = 0; i < count; i++)
        scores[i] /= sum;
}

void wf_kernel_swiglu(float *gate, const float *up, size_t count)
{
    for (size_t i = 0; i < count; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void wf_kernel_rope(float *heads, size_t head_count, size_t head_dim, const float *cosine,
                    const float *sine)
{
    for (size_t h = 0; h < head_count; h++) {
        float *head = heads + h * head_dim;
        for (size_t i = 0; i < head_dim / 2; i++) {
            float real = head[2 * i], imaginary = head[2 * i + 1];
            head[2 * i] = real * cosine[i] - imaginary * sine[i];
            head[2 * i + 1] = real * sine[i] + imaginary * cosine[i];
        }
    }
}

void wf_kernel_add(float *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] += x[i];
}
