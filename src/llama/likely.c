/* SPDX-License-Identifier: Apache-2.0
 *
 * Log-likelihoods and KL of logits.  With vocabularies of tens of thousands the exponentials cost
 * as much as a layer, so they are a polynomial that compilers turn into vectors; sums are doubles
 * in sixteen lanes, so that every width of vector gives the same bits (as in kernel.h).
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

#define LANES 16
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

/* e^x - 1 - x, to 1e-6 of it. */
INLINE float excess_of(float x)
{
    float series = 1.0f / 40320.0f;
    series = series * x + 1.0f / 5040.0f;
    series = series * x + 1.0f / 720.0f;
    series = series * x + 1.0f / 120.0f;
    series = series * x + 1.0f / 24.0f;
    series = series * x + 1.0f / 6.0f;
    series = series * x + 0.5f;
    series = series * x * x;
    float direct = exp_of(x) - 1.0f - x;
    return x > -0.5f && x < 0.5f ? series : direct;
}

INLINE float highest_of(const float *logits, uint32_t vocab)
{
    float lane[LANES], highest = logits[0];
    uint32_t i = 0;
    for (uint32_t j = 0; j < LANES; j++)
        lane[j] = highest;
    for (; i + LANES <= vocab; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            lane[j] = logits[i + j] > lane[j] ? logits[i + j] : lane[j];
    for (; i < vocab; i++)
        lane[0] = logits[i] > lane[0] ? logits[i] : lane[0];
    for (uint32_t j = 0; j < LANES; j++)
        highest = lane[j] > highest ? lane[j] : highest;
    return highest;
}

INLINE double total(const double *lane)
{
    double sum = 0;
    for (uint32_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* Σ e^(a - highest), and Σ e^(a - highest) (b - a). */
INLINE double weigh(const float *a, const float *b, uint32_t vocab, float highest,
                    double *out_apart)
{
    double all[LANES] = {0}, apart[LANES] = {0};
    uint32_t i = 0;
    for (; i + LANES <= vocab; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) {
            double weight = (double)exp_of(a[i + j] - highest);
            all[j] += weight;
            apart[j] += weight * (double)(b[i + j] - a[i + j]);
        }
    for (; i < vocab; i++) {
        double weight = (double)exp_of(a[i] - highest);
        all[0] += weight;
        apart[0] += weight * (double)(b[i] - a[i]);
    }
    *out_apart = total(apart);
    return total(all);
}

/* Σ e^(a - highest) (e^δ - 1 - δ) */
INLINE double excess(const float *a, const float *b, uint32_t vocab, float highest, double mean)
{
    double sum[LANES] = {0};
    uint32_t i = 0;
    for (; i + LANES <= vocab; i += LANES)
        for (uint32_t j = 0; j < LANES; j++) {
            float delta = (float)((double)(b[i + j] - a[i + j]) - mean);
            sum[j] += (double)exp_of(a[i + j] - highest) * (double)excess_of(delta);
        }
    for (; i < vocab; i++) {
        float delta = (float)((double)(b[i] - a[i]) - mean);
        sum[0] += (double)exp_of(a[i] - highest) * (double)excess_of(delta);
    }
    return total(sum);
}

INLINE struct wf_likely likely_body(const float *exact, const float *other, uint32_t vocab,
                                    uint32_t target)
{
    double apart;
    float highest = highest_of(exact, vocab);
    double all = weigh(exact, other, vocab, highest, &apart), mean = apart / all;
    struct wf_likely out = {.nll = (double)highest + log(all) - (double)exact[target]};
    if (exact == other)
        return out;
    out.kl = log1p(excess(exact, other, vocab, highest, mean) / all);
    out.apart = out.kl - ((double)(other[target] - exact[target]) - mean);
    return out;
}

static struct wf_likely likely_plain(const float *exact, const float *other, uint32_t vocab,
                                     uint32_t target)
{
    return likely_body(exact, other, vocab, target);
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) struct wf_likely
likely_avx2(const float *exact, const float *other, uint32_t vocab, uint32_t target)
{
    return likely_body(exact, other, vocab, target);
}

static __attribute__((target("avx512f"))) struct wf_likely
likely_avx512(const float *exact, const float *other, uint32_t vocab, uint32_t target)
{
    return likely_body(exact, other, vocab, target);
}
#endif

struct wf_likely wf_likely(const float *exact, const float *other, uint32_t vocab, uint32_t target)
{
    other = other ? other : exact;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return likely_avx512(exact, other, vocab, target);
    if (__builtin_cpu_supports("avx2"))
        return likely_avx2(exact, other, vocab, target);
#endif
    return likely_plain(exact, other, vocab, target);
}
