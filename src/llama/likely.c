/* SPDX-License-Identifier: Apache-2.0
 *
 * Log-likelihoods and KL of logits.  With vocabularies of tens of thousands the exponentials cost
 * as much as a layer, so they are a polynomial, over chunks, that compilers turn into vectors; sums
 * are doubles in eight lanes, so that every width of vector gives the same bits (as in kernel.h).
 *
 * What codecs do is small, and lost in the difference of two logarithms.  With d = b - a for each
 * token, m its mean under the first distribution p, and δ = d - m,
 *
 *   KL = log Σ p e^δ = log1p Σ p (e^δ - 1 - δ)        since Σ p δ = 0
 *   nll of b - nll of a = KL - δ of the target
 *
 * where no term of the sum is negative: so both keep their digits however small they are.
 */
#include <math.h>
#include <string.h>

#include "llama/eval.h"

#define LANES 8
#define CHUNK 512

/* Only as aligned as their elements. */
typedef double sums_of __attribute__((vector_size(64)));
typedef float floats_of __attribute__((vector_size(32), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* e^x to 2e-7 of it, for |x| ≤ 87; what is beyond is taken as that. */
INLINE float exp_of(float x)
{
    const float magic = 0x1.8p23f; /* adding it leaves the nearest whole number in the low bits */
    x = x < -87.0f ? -87.0f : x;
    x = x > 87.0f ? 87.0f : x;
    float shifted = x * 0x1.715476p0f + magic;
    float whole = shifted - magic;
    float rest = x - whole * 0x1.62e4p-1f;
    rest = rest - whole * 0x1.7f7d1cp-20f;
    float power = 1.0f / 720.0f;
    power = power * rest + 1.0f / 120.0f;
    power = power * rest + 1.0f / 24.0f;
    power = power * rest + 1.0f / 6.0f;
    power = power * rest + 0.5f;
    power = power * rest + 1.0f;
    power = power * rest + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (int32_t)(((uint32_t)bits + 127u) << 23);
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    return power * scale;
}

/* e^x - 1 - x, to 1e-6 of it, for |x| < EXCESS_NEAR.  Further out the exponential itself will do.
 */
#define EXCESS_NEAR 0.5f
INLINE float excess_near(float x)
{
    float series = 1.0f / 40320.0f;
    series = series * x + 1.0f / 5040.0f;
    series = series * x + 1.0f / 720.0f;
    series = series * x + 1.0f / 120.0f;
    series = series * x + 1.0f / 24.0f;
    series = series * x + 1.0f / 6.0f;
    series = series * x + 0.5f;
    return series * x * x;
}

INLINE float highest_of(const float *logits, uint32_t vocab)
{
    float lane[4 * LANES], highest = logits[0];
    uint32_t i = 0;
    for (uint32_t j = 0; j < 4 * LANES; j++)
        lane[j] = highest;
    for (; i + 4 * LANES <= vocab; i += 4 * LANES)
        for (uint32_t j = 0; j < 4 * LANES; j++)
            lane[j] = logits[i + j] > lane[j] ? logits[i + j] : lane[j];
    for (; i < vocab; i++)
        highest = logits[i] > highest ? logits[i] : highest;
    for (uint32_t j = 0; j < 4 * LANES; j++)
        highest = lane[j] > highest ? lane[j] : highest;
    return highest;
}

INLINE double total(const sums_of *sums)
{
    double sum = 0;
    for (uint32_t j = 0; j < LANES; j++)
        sum += (*sums)[j];
    return sum;
}

/* A macro, since a function cannot return what not every machine has registers for. */
#define doubles_at(values) __builtin_convertvector(*(const floats_of *)(values), sums_of)

/* A part of the vocabulary; the last one is filled up with what weighs nothing. */
struct chunk {
    float weight[CHUNK];
    float value[CHUNK];
};

/* b - a, and the weights. */
INLINE uint32_t chunk_take(struct chunk *chunk, const float *weights, const float *a,
                           const float *b, uint32_t vocab, uint32_t from)
{
    uint32_t count = vocab - from < CHUNK ? vocab - from : CHUNK;
    memcpy(chunk->weight, weights + from, count * sizeof(float));
    for (uint32_t i = 0; i < count; i++)
        chunk->value[i] = b[from + i] - a[from + i];
    for (; count % LANES; count++)
        chunk->weight[count] = chunk->value[count] = 0;
    return count;
}

INLINE void chunk_add(const struct chunk *chunk, uint32_t count, sums_of *sum)
{
    for (uint32_t i = 0; i < count; i += LANES)
        *sum += doubles_at(chunk->weight + i) * doubles_at(chunk->value + i);
}

/* Σ weight (b - a) */
INLINE double apart(struct chunk *chunk, const float *weights, const float *a, const float *b,
                    uint32_t vocab)
{
    sums_of sum = {0};
    for (uint32_t from = 0; from < vocab; from += CHUNK)
        chunk_add(chunk, chunk_take(chunk, weights, a, b, vocab, from), &sum);
    return total(&sum);
}

/* Values less `mean` become e^δ - 1 - δ. */
INLINE void chunk_exceed(struct chunk *chunk, uint32_t count, double mean)
{
    float delta[CHUNK], least = 0, most = 0;
    for (uint32_t i = 0; i < count; i++)
        delta[i] = (float)((double)chunk->value[i] - mean);
    for (uint32_t i = 0; i < count; i++) {
        least = delta[i] < least ? delta[i] : least;
        most = delta[i] > most ? delta[i] : most;
    }
    for (uint32_t i = 0; i < count; i++)
        chunk->value[i] = excess_near(delta[i]);
    if (least > -EXCESS_NEAR && most < EXCESS_NEAR)
        return;
    for (uint32_t i = 0; i < count; i++)
        chunk->value[i] = delta[i] > -EXCESS_NEAR && delta[i] < EXCESS_NEAR
                              ? chunk->value[i]
                              : exp_of(delta[i]) - 1.0f - delta[i];
}

/* Σ weight (e^δ - 1 - δ) */
INLINE double excess(struct chunk *chunk, const float *weights, const float *a, const float *b,
                     uint32_t vocab, double mean)
{
    sums_of sum = {0};
    for (uint32_t from = 0; from < vocab; from += CHUNK) {
        uint32_t count = chunk_take(chunk, weights, a, b, vocab, from);
        chunk_exceed(chunk, count, mean);
        chunk_add(chunk, count, &sum);
    }
    return total(&sum);
}

INLINE void weigh_body(const float *logits, uint32_t vocab, float *weights, struct wf_weighed *out)
{
    float highest = highest_of(logits, vocab);
    sums_of sum = {0};
    for (uint32_t i = 0; i < vocab; i++)
        weights[i] = exp_of(logits[i] - highest);
    uint32_t i = 0;
    for (; i + LANES <= vocab; i += LANES)
        sum += doubles_at(weights + i);
    for (; i < vocab; i++)
        sum[0] += (double)weights[i];
    *out = (struct wf_weighed){logits, weights, total(&sum), highest};
}

INLINE struct wf_likely likely_body(const struct wf_weighed *exact, const float *other,
                                    uint32_t vocab, uint32_t target)
{
    struct chunk chunk;
    const float *a = exact->logits, *weights = exact->weights;
    double mean = apart(&chunk, weights, a, other, vocab) / exact->sum;
    double kl = log1p(excess(&chunk, weights, a, other, vocab, mean) / exact->sum);
    return (struct wf_likely){.kl = kl, .apart = kl - ((double)(other[target] - a[target]) - mean)};
}

/* What a machine of some width runs; all give the same bits. */
struct likely_kernel {
    void (*weigh)(const float *logits, uint32_t vocab, float *weights, struct wf_weighed *out);
    void (*compare)(const struct wf_weighed *exact, const float *other, uint32_t vocab,
                    uint32_t target, struct wf_likely *out);
};

static void weigh_plain(const float *logits, uint32_t vocab, float *weights, struct wf_weighed *out)
{
    weigh_body(logits, vocab, weights, out);
}

static void compare_plain(const struct wf_weighed *exact, const float *other, uint32_t vocab,
                          uint32_t target, struct wf_likely *out)
{
    *out = likely_body(exact, other, vocab, target);
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) void weigh_avx2(const float *logits, uint32_t vocab,
                                                       float *weights, struct wf_weighed *out)
{
    weigh_body(logits, vocab, weights, out);
}

static __attribute__((target("avx2"))) void compare_avx2(const struct wf_weighed *exact,
                                                         const float *other, uint32_t vocab,
                                                         uint32_t target, struct wf_likely *out)
{
    *out = likely_body(exact, other, vocab, target);
}

static __attribute__((target("avx512f"))) void weigh_avx512(const float *logits, uint32_t vocab,
                                                            float *weights, struct wf_weighed *out)
{
    weigh_body(logits, vocab, weights, out);
}

static __attribute__((target("avx512f"))) void compare_avx512(const struct wf_weighed *exact,
                                                              const float *other, uint32_t vocab,
                                                              uint32_t target,
                                                              struct wf_likely *out)
{
    *out = likely_body(exact, other, vocab, target);
}

#endif

static struct likely_kernel kernel(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return (struct likely_kernel){weigh_avx512, compare_avx512};
    if (__builtin_cpu_supports("avx2"))
        return (struct likely_kernel){weigh_avx2, compare_avx2};
#endif
    return (struct likely_kernel){weigh_plain, compare_plain};
}

double wf_likely_weigh(const float *logits, uint32_t vocab, uint32_t target, float *weights,
                       struct wf_weighed *out)
{
    kernel().weigh(logits, vocab, weights, out);
    return (double)out->highest + log(out->sum) - (double)logits[target];
}

struct wf_likely wf_likely(const struct wf_weighed *exact, const float *other, uint32_t vocab,
                           uint32_t target)
{
    struct wf_likely out;
    kernel().compare(exact, other, vocab, target, &out);
    return out;
}
