/* SPDX-License-Identifier: Apache-2.0
 *
 * How likely each quantised coefficient is: a Laplace distribution rounded to integers, in classes
 * of its width, as integer frequencies that are the same on every machine.
 *
 * A coefficient whose mean magnitude is ρ steps is of class floor(4 log2 ρ), made piecewise linear,
 * so that the class is bits of the float ρ itself.  Widths of 4 steps and more use the class of a
 * width between 2 and 4, for the magnitude without its low bits, which are sent as they are: within
 * 2^shift ≤ ρ / 2 the distribution is flat enough.
 *
 * Frequencies are out of 2^12.  Symbol k < last is magnitude k; symbol `last` is everything from
 * there on, told by an Exp-Golomb code.
 */
#ifndef WF_CODEC_LAPLACE_H
#define WF_CODEC_LAPLACE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define WF_LAPLACE_BITS 12u
#define WF_LAPLACE_TOTAL (1u << WF_LAPLACE_BITS)
#define WF_LAPLACE_SYMBOLS 16u
#define WF_LAPLACE_OCTAVES 6                        /* ρ from 1/16 to 4 */
#define WF_LAPLACE_CLASSES (WF_LAPLACE_OCTAVES * 4) /* one below takes all that is smaller */
#define WF_LAPLACE_SHIFT_MAX 24
/* What is real has more weight in its tails than the distribution. */
#define WF_LAPLACE_TOWARD_MAX 0.25

/* Of a magnitude.  What is beyond `last` begins at the total and is never met. */
struct wf_laplace_table {
    uint32_t start[WF_LAPLACE_SYMBOLS]; /* cumulative */
    uint32_t frequency[WF_LAPLACE_SYMBOLS];
    uint32_t reciprocal[WF_LAPLACE_SYMBOLS]; /* 2^32 / frequency, rounded down; of 1: 2^32 − 1 */
    uint32_t last;
    uint8_t symbol[WF_LAPLACE_TOTAL]; /* by the low bits of the coder's state */
};

struct wf_laplace {
    struct wf_laplace_table table[WF_LAPLACE_CLASSES];
    float toward_zero[WF_LAPLACE_CLASSES]; /* a magnitude stands for so much less, in steps */
};

/* Class and shift of a coefficient of mean magnitude `rho` steps; finite and ≥ 0, or what is taken
 * to be very much. */
static inline void wf_laplace_class(float rho, uint8_t *out_class, uint8_t *out_shift)
{
    uint32_t bits;
    memcpy(&bits, &rho, sizeof bits);
    /* Exponent and the two highest bits of the mantissa, counted from those of 2^-4. */
    int32_t at = (int32_t)(bits >> 21) - (127 - 4) * 4;
    int32_t over = (at - WF_LAPLACE_CLASSES + 4) / 4;
    int32_t shift = over < 0 ? 0 : over > WF_LAPLACE_SHIFT_MAX ? WF_LAPLACE_SHIFT_MAX : over;
    at = at < 0 ? 0 : at - 4 * shift;
    *out_class = (uint8_t)(at < WF_LAPLACE_CLASSES ? at : WF_LAPLACE_CLASSES - 1);
    *out_shift = (uint8_t)shift;
}

/* Fill the tables; the same bytes everywhere.  100 KB of them, and half a millisecond. */
void wf_laplace_init(struct wf_laplace *out);

#endif
