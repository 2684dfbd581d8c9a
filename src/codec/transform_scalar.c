/* SPDX-License-Identifier: Apache-2.0
 *
 * The transform codec's kernels of plain C: what the others must answer.  Without the instruction,
 * fmaf() is a call: slow, and right.
 */
#include <math.h>

#define TARGET
#define INLINE static inline __attribute__((always_inline))

#include "codec/transform_lanes.h"

INLINE uint32_t lanes_nonzero(const int32_t *v)
{
    uint32_t mask = 0;
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        mask |= (uint32_t)(v[l] != 0) << l;
    return mask;
}

INLINE uint32_t lanes_with_bit(const uint32_t *v, unsigned bit)
{
    uint32_t mask = 0;
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        mask |= (v[l] >> bit & 1) << l;
    return mask;
}

INLINE uint32_t lanes_equal(const uint8_t *bytes, uint8_t value)
{
    uint32_t mask = 0;
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        mask |= (uint32_t)(bytes[l] == value) << l;
    return mask;
}

INLINE uint32_t lanes_gather(uint32_t bits, uint32_t mask)
{
    uint32_t out = 0;
    for (unsigned n = 0; mask; mask &= mask - 1, n++)
        out |= (bits >> __builtin_ctz(mask) & 1) << n;
    return out;
}

INLINE uint32_t lanes_spread(uint32_t bits, uint32_t mask)
{
    uint32_t out = 0;
    for (; mask; mask &= mask - 1, bits >>= 1)
        out |= (bits & 1) << __builtin_ctz(mask);
    return out;
}

INLINE uint32_t lanes_symbols(const uint32_t *magnitudes, unsigned shift, uint32_t last,
                              uint8_t *out)
{
    for (unsigned l = 0; l < WF_CODER_LANES; l++) {
        uint32_t high = magnitudes[l] >> shift;
        out[l] = (uint8_t)(high < last ? high : last);
    }
    return lanes_equal(out, (uint8_t)last);
}

INLINE void lanes_values(const uint32_t *magnitudes, uint32_t signs, float toward, float step,
                         float *out)
{
    for (unsigned l = 0; l < WF_CODER_LANES; l++) {
        float value = ((float)magnitudes[l] - toward) * step;
        out[l] = magnitudes[l] == 0 ? 0 : signs >> l & 1 ? -value : value;
    }
}

INLINE void lanes_values_of_bytes(const uint8_t *bytes, uint32_t signs, float toward, float step,
                                  float *out)
{
    uint32_t magnitudes[WF_CODER_LANES];
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        magnitudes[l] = bytes[l];
    lanes_values(magnitudes, signs, toward, step, out);
}

#include "codec/transform_loops.h"

static void load(enum weft_dtype dtype, const void *plain, size_t stride, unsigned lanes,
                 uint32_t count, float *out)
{
    load_few(dtype, plain, stride, lanes, 0, count, out);
}

static void store(enum weft_dtype dtype, const float *in, size_t stride, unsigned lanes,
                  uint32_t count, void *plain)
{
    store_few(dtype, in, stride, lanes, 0, count, plain);
}

static void product(float *out, const float *start, const float *matrix, uint32_t dims,
                    const uint16_t *rows, uint32_t count, const float *in)
{
    for (uint32_t j = 0; j < wf_profile_padded(dims); j++) {
        float sum[WF_CODER_LANES];
        for (unsigned l = 0; l < WF_CODER_LANES; l++)
            sum[l] = start ? start[j] : 0;
        for (uint32_t k = 0; k < count; k++) {
            float factor = wf_profile_entry(matrix, dims, rows[k], j);
            for (unsigned l = 0; l < WF_CODER_LANES; l++)
                sum[l] = fmaf(factor, ROW(in, k)[l], sum[l]);
        }
        memcpy(ROW(out, j), sum, sizeof sum);
    }
}

const struct wf_lanes_kernels wf_lanes_scalar = {
    .load = load,
    .store = store,
    .turn = turn,
    .center = center,
    .product = product,
    .quantise = quantise,
    .zero = zero,
    .pack = pack,
    .unpack = unpack,
    .encode = wf_coder_encode,
    .decode = wf_coder_decode,
};

const struct wf_lanes_kernels *wf_lanes_kernels_of(enum wf_codec_isa isa)
{
#if defined(__x86_64__)
    if (isa == WF_CODEC_AVX512)
        return &wf_lanes_avx512;
    if (isa == WF_CODEC_AVX2)
        return &wf_lanes_avx2;
#endif
    (void)isa;
    return &wf_lanes_scalar;
}
