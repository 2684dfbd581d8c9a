/* SPDX-License-Identifier: Apache-2.0
 *
 * See rope.h.  The loops are plain C that compilers make vector code of, compiled once for every
 * processor and once for those with AVX2.  Each element's arithmetic is the same in both, because
 * this file is compiled with -ffp-contract=off.
 */
#include "codec/rope.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/isa.h"

#ifdef __FAST_MATH__
#error "a rotation must come off as it was put on: build this without -ffast-math"
#endif

#define INLINE static inline __attribute__((always_inline))
#define PAIRS 64u /* angles at a time: what stays in the first-level cache */

/* Half π in three parts, the first two of 33 bits, so that their products with a count of
 * quadrants up to 2^20 are exact (W. J. Cody, W. Waite, 1980; the parts are fdlibm's). */
#define HALF_PI_1 0x1.921fb544p+0
#define HALF_PI_2 0x1.0b4611a6p-34
#define HALF_PI_3 0x1.3198a2e037073p-69
#define TWO_OVER_PI 0x1.45f306dc9c883p-1
#define ROUND 0x1.8p52 /* added and taken away, rounds to a whole number */

INLINE uint64_t bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double of_bits(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* fdlibm's polynomials on −π/4 … π/4, and the two chosen between by the quadrant. */
INLINE void sine_cosine(double angle, float *cosine, float *sine)
{
    double shifted = angle * TWO_OVER_PI + ROUND;
    double quadrants = shifted - ROUND;
    uint64_t quadrant = bits_of(shifted); /* its two lowest bits count */
    double r = ((angle - quadrants * HALF_PI_1) - quadrants * HALF_PI_2) - quadrants * HALF_PI_3;
    double z = r * r;
    double s = 1.58969099521155010221e-10;
    s = s * z + -2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z + -1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z + -1.66666666666666324348e-01;
    s = s * z * r + r;
    double c = -1.13596475577881948265e-11;
    c = c * z + 2.08757232129817482790e-09;
    c = c * z + -2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z + -1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = c * z * z + (1.0 - 0.5 * z);
    uint64_t odd = 0 - (quadrant & 1);
    uint64_t swapped = (bits_of(s) ^ bits_of(c)) & odd;
    *sine = (float)of_bits(bits_of(s) ^ swapped ^ (quadrant & 2) << 62);
    *cosine = (float)of_bits(bits_of(c) ^ swapped ^ ((quadrant + 1) & 2) << 62);
}

INLINE void angles(const double *frequencies, size_t count, uint64_t position, float *cosine,
                   float *sine)
{
    double at = (double)position;
    for (size_t i = 0; i < count; i++)
        sine_cosine(at * frequencies[i], &cosine[i], &sine[i]);
}

INLINE void angles_of_lanes(const struct wf_rope *rope, bool undo, uint64_t first,
                            float *restrict cosine, float *restrict sine)
{
    const float sign = undo ? -1 : 1;
    double at[WF_ROPE_LANES];
    for (size_t l = 0; l < WF_ROPE_LANES; l++)
        at[l] = (double)(first + l);
    for (size_t i = 0; i < rope->dims / 2; i++, cosine += WF_ROPE_LANES, sine += WF_ROPE_LANES) {
        const double frequency = rope->frequencies[i];
        float c[WF_ROPE_LANES], s[WF_ROPE_LANES];
        for (size_t l = 0; l < WF_ROPE_LANES; l++)
            sine_cosine(at[l] * frequency, &c[l], &s[l]);
        for (size_t l = 0; l < WF_ROPE_LANES; l++) {
            cosine[l] = c[l];
            sine[l] = s[l] * sign;
        }
    }
}

/* `pairs` pairs of one head; sine has the sign of the direction. */
INLINE void turn_interleaved(float *head, size_t pairs, const float *restrict cosine,
                             const float *restrict sine)
{
    for (size_t i = 0; i < pairs; i++) {
        float real = head[2 * i], imaginary = head[2 * i + 1];
        head[2 * i] = real * cosine[i] - imaginary * sine[i];
        head[2 * i + 1] = real * sine[i] + imaginary * cosine[i];
    }
}

INLINE void turn_halves(float *restrict low, float *restrict high, size_t pairs,
                        const float *restrict cosine, const float *restrict sine)
{
    for (size_t i = 0; i < pairs; i++) {
        float real = low[i], imaginary = high[i];
        low[i] = real * cosine[i] - imaginary * sine[i];
        high[i] = real * sine[i] + imaginary * cosine[i];
    }
}

INLINE void turn(const struct wf_rope *rope, bool undo, uint64_t first, float *rows,
                 uint32_t tokens, uint32_t heads, uint32_t head_dim)
{
    float cosine[PAIRS], sine[PAIRS];
    size_t half = rope->dims / 2;
    for (size_t t = 0; t < tokens; t++)
        for (size_t begin = 0; begin < half; begin += PAIRS) {
            size_t pairs = half - begin < PAIRS ? half - begin : PAIRS;
            angles(rope->frequencies + begin, pairs, first + t, cosine, sine);
            for (size_t i = 0; undo && i < pairs; i++)
                sine[i] = -sine[i];
            for (size_t h = 0; h < heads; h++) {
                float *head = rows + (t * heads + h) * head_dim;
                if (rope->pairing == WF_ROPE_INTERLEAVED)
                    turn_interleaved(head + 2 * begin, pairs, cosine, sine);
                else
                    turn_halves(head + begin, head + half + begin, pairs, cosine, sine);
            }
        }
}

static void turn_4(const struct wf_rope *rope, bool undo, uint64_t first, float *rows,
                   uint32_t tokens, uint32_t heads, uint32_t head_dim)
{
    turn(rope, undo, first, rows, tokens, heads, head_dim);
}

static void lanes_4(const struct wf_rope *rope, bool undo, uint64_t first, float *cosine,
                    float *sine)
{
    angles_of_lanes(rope, undo, first, cosine, sine);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void lanes_8(const struct wf_rope *rope, bool undo,
                                                    uint64_t first, float *cosine, float *sine)
{
    angles_of_lanes(rope, undo, first, cosine, sine);
}

__attribute__((target("avx512f,avx512dq,avx512vl" WF_CODEC_WIDE))) static void
lanes_16(const struct wf_rope *rope, bool undo, uint64_t first, float *cosine, float *sine)
{
    angles_of_lanes(rope, undo, first, cosine, sine);
}

__attribute__((target("avx2"))) static void turn_8(const struct wf_rope *rope, bool undo,
                                                   uint64_t first, float *rows, uint32_t tokens,
                                                   uint32_t heads, uint32_t head_dim)
{
    turn(rope, undo, first, rows, tokens, heads, head_dim);
}
#endif

bool wf_rope_turn_width(unsigned width, const struct wf_rope *rope, bool undo, uint64_t first,
                        float *rows, uint32_t tokens, uint32_t heads, uint32_t head_dim)
{
#if defined(__x86_64__)
    if (width == 8 && __builtin_cpu_supports("avx2")) {
        turn_8(rope, undo, first, rows, tokens, heads, head_dim);
        return true;
    }
#endif
    if (width != 4)
        return false;
    turn_4(rope, undo, first, rows, tokens, heads, head_dim);
    return true;
}

static void turn_widest(const struct wf_rope *rope, bool undo, uint64_t first, float *rows,
                        uint32_t tokens, uint32_t heads, uint32_t head_dim)
{
    if (!wf_rope_turn_width(8, rope, undo, first, rows, tokens, heads, head_dim))
        turn_4(rope, undo, first, rows, tokens, heads, head_dim);
}

void wf_rope_redo(const struct wf_rope *rope, uint64_t first, float *rows, uint32_t tokens,
                  uint32_t heads, uint32_t head_dim)
{
    turn_widest(rope, false, first, rows, tokens, heads, head_dim);
}

void wf_rope_undo(const struct wf_rope *rope, uint64_t first, float *rows, uint32_t tokens,
                  uint32_t heads, uint32_t head_dim)
{
    turn_widest(rope, true, first, rows, tokens, heads, head_dim);
}

void wf_rope_lanes(const struct wf_rope *rope, bool undo, uint64_t first, float *cosine,
                   float *sine)
{
#if defined(__x86_64__)
    enum wf_codec_isa isa = wf_codec_isa_best();
    if (isa == WF_CODEC_AVX512) {
        lanes_16(rope, undo, first, cosine, sine);
        return;
    }
    if (isa == WF_CODEC_AVX2) {
        lanes_8(rope, undo, first, cosine, sine);
        return;
    }
#endif
    lanes_4(rope, undo, first, cosine, sine);
}

void wf_rope_angles(const double *frequencies, size_t count, uint64_t position, float *cosine,
                    float *sine)
{
    angles(frequencies, count, position, cosine, sine);
}

void wf_rope_frequencies(double theta, uint32_t dims, double *frequencies)
{
    for (uint32_t i = 0; i < dims / 2; i++)
        frequencies[i] = (float)pow(theta, -2.0 * i / dims);
}
