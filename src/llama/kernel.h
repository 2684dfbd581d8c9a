/* SPDX-License-Identifier: Apache-2.0
 *
 * The arithmetic of the transformer, in an order that never changes.
 *
 * Every dot product is 16 running sums, element i going to sum i mod 16, folded at the end in one
 * fixed tree. Nothing is contracted to a fused multiply-add.  So a result depends on its operands
 * alone: not on how many tokens are computed together, nor on the number of threads, nor on whether
 * the machine has SSE, AVX2 or AVX-512.  That is what lets KV computed by one process stand in for
 * another's, bit for bit.
 */
#ifndef WF_LLAMA_KERNEL_H
#define WF_LLAMA_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#define WF_KERNEL_LANES 16

/* Rows of a matrix, `stride` floats apart, each `columns` long. */
struct wf_kernel_rows {
    const float *data;
    size_t stride;
    size_t columns;
};

/* out[t][r] = rows[r] · x[t] for first ≤ r < end and t < count.  x has `x_stride` floats a vector.
 */
typedef void wf_kernel_multiply_fn(float *const *out, const float *x, size_t x_stride, size_t count,
                                   const struct wf_kernel_rows *rows, size_t first, size_t end);

/* out += weights[0] × rows[0] + … + weights[count - 1] × rows[count - 1], row after row. */
typedef void wf_kernel_weigh_fn(float *out, const float *weights, const struct wf_kernel_rows *rows,
                                size_t count);

struct wf_kernel {
    unsigned width; /* floats an instruction */
    wf_kernel_multiply_fn *multiply;
    wf_kernel_weigh_fn *weigh;
};

/* The one of 4, 8 or 16 floats an instruction; NULL when this machine cannot.  All give the same
 * bits. */
const struct wf_kernel *wf_kernel_of_width(unsigned width);

/* The widest that this machine runs. */
const struct wf_kernel *wf_kernel_widest(void);

/* out = x / rms(x) × gain */
void wf_kernel_rmsnorm(const struct wf_kernel *kernel, float *out, const float *x,
                       const float *gain, size_t count);

/* Scores, scaled, to weights that sum to 1, in place. */
void wf_kernel_softmax(float *scores, float scale, size_t count);

/* gate = silu(gate) × up */
void wf_kernel_swiglu(float *gate, const float *up, size_t count);

/* Turn the pairs (2i, 2i + 1) of each head by the angle whose cosine and sine are given, head_dim /
 * 2 each. */
void wf_kernel_rope(float *heads, size_t head_count, size_t head_dim, const float *cosine,
                    const float *sine);

/* out += x */
void wf_kernel_add(float *out, const float *x, size_t count);

#endif
