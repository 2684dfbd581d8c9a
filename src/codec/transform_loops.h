/* SPDX-License-Identifier: Apache-2.0
 *
 * What the kernels of all widths share: loops over 16 lanes, which compilers make vector code of,
 * and the bits beside the symbols.  Who includes this has defined TARGET, INLINE and
 *
 *     lanes_nonzero(v)           which of 16 int32_t are not 0, as bits
 *     lanes_with_bit(v, b)       which have bit b
 *     lanes_equal(bytes, value)  which of 16 bytes are that
 *     lanes_gather(bits, mask)   the bits of `bits` at those of `mask`, close together (pext)
 *     lanes_spread(bits, mask)   and back (pdep)
 *     lanes_symbols(magnitudes, shift, last, out)
 *                                bytes: the magnitudes without their `shift` low bits, and `last`
 *                                for what is more; returns which are that
 *     lanes_values(magnitudes, signs, toward, step, out), lanes_values_of_bytes(…)
 *                                0 where the magnitude is 0, elsewhere (magnitude − toward) × step
 *                                with the sign that the lane has in `signs`
 */
#include <string.h>

#include "codec/convert.h"
#include "codec/profile.h"
#include "codec/transform_lanes.h"

#ifdef __FAST_MATH__
#error "every width must give the same bits: build this without -ffast-math"
#endif

#define MAGNITUDE_MAX (1u << 23) /* larger ones are not coded: the plane is stored as it is */
/* What a decoder makes of more, since a stream may say so. */
#define MAGNITUDE_DECODED_MAX ((1u << 24) - 1)
#define ROW(rows, i) ((rows) + (size_t)(i)*WF_CODER_LANES)

/* A pointer of which the compiler knows nothing: it would keep all its sums with constants, and has
 * no registers for them. */
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

/* What is finite stays so: an error must not make an infinity of the largest there are. */
INLINE float most_of(enum weft_dtype dtype)
{
    return dtype == WEFT_F16        ? 65504.0f
           : dtype == WEFT_FP8_E5M2 ? 57344.0f
           : dtype == WEFT_BF16     ? 0x1.fep127f
                                    : 0x1.fffffep127f;
}

INLINE float kept_finite(float value, float most)
{
    value = value < most ? value : most;
    return value > -most ? value : -most;
}

/* Channels first … end − 1, element by element. */
INLINE void load_few(enum weft_dtype dtype, const void *plain, size_t stride, unsigned lanes,
                     uint32_t first, uint32_t end, float *out)
{
    size_t size = weft_dtype_bytes(dtype);
    float row[WF_CODER_LANES];
    for (uint32_t i = first; i < end; i += WF_CODER_LANES) {
        uint32_t count = end - i < WF_CODER_LANES ? end - i : WF_CODER_LANES;
        memset(ROW(out, i), 0, count * WF_CODER_LANES * sizeof(float));
        for (unsigned l = 0; l < lanes; l++) {
            wf_floats_of(dtype, (const uint8_t *)plain + (l * stride + i) * size, count, row);
            for (uint32_t c = 0; c < count; c++)
                ROW(out, i + c)[l] = row[c];
        }
    }
}

INLINE void store_few(enum weft_dtype dtype, const float *in, size_t stride, unsigned lanes,
                      uint32_t first, uint32_t end, void *plain)
{
    size_t size = weft_dtype_bytes(dtype);
    const float most = most_of(dtype);
    float row[WF_CODER_LANES];
    for (uint32_t i = first; i < end; i += WF_CODER_LANES) {
        uint32_t count = end - i < WF_CODER_LANES ? end - i : WF_CODER_LANES;
        for (unsigned l = 0; l < lanes; l++) {
            for (uint32_t c = 0; c < count; c++)
                row[c] = kept_finite(ROW(in, i + c)[l], most);
            wf_floats_to(dtype, row, count, (uint8_t *)plain + (l * stride + i) * size);
        }
    }
}

INLINE void turn_pair(float *restrict a, float *restrict b, const float *restrict cosine,
                      const float *restrict sine)
{
    for (unsigned l = 0; l < WF_CODER_LANES; l++) {
        float real = a[l], imaginary = b[l];
        a[l] = real * cosine[l] - imaginary * sine[l];
        b[l] = real * sine[l] + imaginary * cosine[l];
    }
}

TARGET static void turn(const struct wf_rope *rope, const float *cosine, const float *sine,
                        float *rows, uint32_t heads, uint32_t head_dim)
{
    uint32_t half = rope->dims / 2;
    bool halves = rope->pairing == WF_ROPE_HALVES;
    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t i = 0; i < half; i++) {
            uint32_t a = h * head_dim + (halves ? i : 2 * i);
            turn_pair(ROW(rows, a), ROW(rows, a + (halves ? half : 1)), ROW(cosine, i),
                      ROW(sine, i));
        }
}

TARGET static void center(float *rows, const float *mean, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (unsigned l = 0; l < WF_CODER_LANES; l++)
            ROW(rows, i)[l] -= mean[i];
}

/* Without branches, since signs are not to be foreseen. */
TARGET static bool quantise(const float *restrict in, float per_step, uint32_t count,
                            unsigned lanes, int32_t *restrict out)
{
    const uint32_t most = wf_float_bits((float)MAGNITUDE_MAX);
    uint32_t beyond[WF_CODER_LANES] = {0}, used[WF_CODER_LANES], any = 0;
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        used[l] = l < lanes ? UINT32_MAX : 0;
    for (uint32_t i = 0; i < count; i++)
        for (unsigned l = 0; l < WF_CODER_LANES; l++) {
            float steps = wf_bits_float(wf_float_bits(ROW(in, i)[l] * per_step) & used[l]);
            uint32_t bits = wf_float_bits(steps), sign = bits & 0x80000000u;
            uint32_t far = (bits & 0x7fffffffu) >= most ? UINT32_MAX : 0;
            beyond[l] |= far;
            steps += wf_bits_float(0x3f000000u | sign); /* half a step outwards */
            ROW(out, i)[l] = (int32_t)wf_bits_float(wf_float_bits(steps) & ~far);
        }
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        any |= beyond[l];
    return any == 0;
}

TARGET static bool zero(const int32_t *quantised, uint32_t count)
{
    int32_t any[WF_CODER_LANES] = {0};
    for (uint32_t i = 0; i < count; i++)
        for (unsigned l = 0; l < WF_CODER_LANES; l++)
            any[l] |= ROW(quantised, i)[l];
    return lanes_nonzero(any) == 0;
}

/* --------------------------------------------------------------------------- beside the symbols */

/* Exp-Golomb: as many zeros as `value` + 1 has bits besides the first, then those bits. */
INLINE void put_rest(struct wf_bit_writer *w, uint32_t value)
{
    unsigned bits = 31 - (unsigned)__builtin_clz(value + 1);
    wf_bits_put(w, 0, bits);
    wf_bits_put(w, value + 1, bits + 1);
}

INLINE uint32_t take_rest(struct wf_bit_reader *r)
{
    unsigned zeros = 0;
    while (zeros < 24 && wf_bits_take(r, 1) == 0)
        zeros++;
    return (1u << zeros | wf_bits_take(r, zeros)) - 1;
}

/* Of a coefficient, in this order: of each lane whose symbol is the last, how much more it is; the
 * low bits, the highest of all lanes first; the signs of what is not zero.  The bits of several
 * lanes go together, the first lane's lowest. */
INLINE void pack_one(const struct wf_laplace_table *t, unsigned shift, unsigned lanes,
                     const int32_t *restrict quantised, uint8_t *restrict symbols,
                     struct wf_bit_writer *w)
{
    const uint32_t last = t->last;
    uint32_t magnitude[WF_CODER_LANES];
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        magnitude[l] = (uint32_t)(quantised[l] < 0 ? -quantised[l] : quantised[l]);
    uint32_t more = lanes_symbols(magnitude, shift, last, symbols);
    for (; more; more &= more - 1)
        put_rest(w, (magnitude[__builtin_ctz(more)] >> shift) - last);
    for (unsigned b = shift; b-- > 0;)
        wf_bits_put(w, lanes_with_bit(magnitude, b), lanes);
    uint32_t nonzero = lanes_nonzero(quantised);
    wf_bits_put(w, lanes_gather(lanes_with_bit((const uint32_t *)quantised, 31), nonzero),
                (unsigned)__builtin_popcount(nonzero));
}

TARGET static void pack(const struct wf_lanes_run *run, const int32_t *quantised, uint8_t *symbols,
                        struct wf_bit_writer *bits)
{
    struct wf_bit_writer writer = *bits; /* in registers */
    for (unsigned i = 0; i < run->count; i++)
        pack_one(&run->laplace->table[run->class[i]], run->shift[i], run->lanes, ROW(quantised, i),
                 ROW(symbols, i), &writer);
    *bits = writer;
}

/* What may be read of magnitudes that are no symbols alone. */
INLINE void unpack_wide(const struct wf_laplace_table *t, unsigned shift, unsigned lanes,
                        const uint8_t *restrict symbols, struct wf_bit_reader *r,
                        uint32_t *restrict magnitude)
{
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        magnitude[l] = symbols[l];
    for (uint32_t more = lanes_equal(symbols, (uint8_t)t->last); more; more &= more - 1)
        magnitude[__builtin_ctz(more)] += take_rest(r);
    for (unsigned b = shift; b > 0; b--) {
        uint32_t bits = wf_bits_take(r, lanes);
        for (unsigned l = 0; l < WF_CODER_LANES; l++)
            magnitude[l] = magnitude[l] << 1 | (bits >> l & 1);
    }
    for (unsigned l = 0; l < WF_CODER_LANES; l++)
        magnitude[l] = magnitude[l] < MAGNITUDE_DECODED_MAX ? magnitude[l] : MAGNITUDE_DECODED_MAX;
}

INLINE uint32_t take_signs(struct wf_bit_reader *r, uint32_t nonzero)
{
    return lanes_spread(wf_bits_take(r, (unsigned)__builtin_popcount(nonzero)), nonzero);
}

/* Returns which lanes of a coefficient are not zero. */
INLINE uint32_t unpack_one(const struct wf_laplace_table *t, unsigned shift, float toward,
                           float step, unsigned lanes, const uint8_t *restrict symbols,
                           struct wf_bit_reader *r, float *restrict out)
{
    uint32_t nonzero = ~lanes_equal(symbols, 0) & 0xffff;
    if (shift == 0 && !lanes_equal(symbols, (uint8_t)t->last)) {
        lanes_values_of_bytes(symbols, take_signs(r, nonzero), toward, step, out);
        return nonzero;
    }
    uint32_t magnitude[WF_CODER_LANES];
    unpack_wide(t, shift, lanes, symbols, r, magnitude);
    nonzero = lanes_nonzero((const int32_t *)magnitude);
    lanes_values(magnitude, take_signs(r, nonzero), shift ? 0 : toward, step, out);
    return nonzero;
}

TARGET static unsigned unpack(const struct wf_lanes_run *run, const uint8_t *symbols,
                              struct wf_bit_reader *bits, uint32_t first, float *out,
                              uint16_t *numbers)
{
    const struct wf_laplace *laplace = run->laplace;
    struct wf_bit_reader reader = *bits; /* in registers */
    unsigned found = 0;
    for (unsigned i = 0; i < run->count; i++) {
        unsigned class = run->class[i];
        uint32_t nonzero = unpack_one(&laplace->table[class], run->shift[i],
                                      laplace->toward_zero[class], run->step, run->lanes,
                                      ROW(symbols, i), &reader, ROW(out, found));
        numbers[found] = (uint16_t)(first + i);
        found += nonzero != 0;
    }
    *bits = reader;
    return found;
}
