/* SPDX-License-Identifier: Apache-2.0
 *
 * The transform codec's kernels of AVX2 (with FMA and BMI2): the 16 lanes are two registers.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET __attribute__((target("avx2,bmi2,popcnt,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) TARGET

#include "codec/transform_lanes.h"

INLINE __m256i load_256(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE void store_256(void *at, __m256i value)
{
    _mm256_storeu_si256((__m256i *)at, value);
}

INLINE uint32_t tops_of(__m256i v)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v));
}

INLINE uint32_t lanes_nonzero(const int32_t *v)
{
    const __m256i none = _mm256_setzero_si256();
    return ~(tops_of(_mm256_cmpeq_epi32(load_256(v), none)) |
             tops_of(_mm256_cmpeq_epi32(load_256(v + 8), none)) << 8) &
           0xffff;
}

INLINE uint32_t lanes_with_bit(const uint32_t *v, unsigned bit)
{
    const __m128i up = _mm_cvtsi32_si128(31 - (int)bit);
    return tops_of(_mm256_sll_epi32(load_256(v), up)) |
           tops_of(_mm256_sll_epi32(load_256(v + 8), up)) << 8;
}

INLINE uint32_t lanes_equal(const uint8_t *bytes, uint8_t value)
{
    __m128i lanes = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(lanes, _mm_set1_epi8((char)value)));
}

INLINE uint32_t lanes_gather(uint32_t bits, uint32_t mask)
{
    return _pext_u32(bits, mask);
}

INLINE uint32_t lanes_spread(uint32_t bits, uint32_t mask)
{
    return _pdep_u32(bits, mask);
}

/* Two times eight numbers below 256 as bytes. */
INLINE void store_bytes(void *at, __m256i a, __m256i b)
{
    __m256i both = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
    _mm_storeu_si128((__m128i *)at, _mm_packus_epi16(_mm256_castsi256_si128(both),
                                                     _mm256_extracti128_si256(both, 1)));
}

INLINE uint32_t lanes_symbols(const uint32_t *magnitudes, unsigned shift, uint32_t last,
                              uint8_t *out)
{
    const __m256i most = _mm256_set1_epi32((int)last);
    const __m128i down = _mm_cvtsi32_si128((int)shift);
    __m256i a = _mm256_min_epu32(_mm256_srl_epi32(load_256(magnitudes), down), most);
    __m256i b = _mm256_min_epu32(_mm256_srl_epi32(load_256(magnitudes + 8), down), most);
    store_bytes(out, a, b);
    return tops_of(_mm256_cmpeq_epi32(a, most)) | tops_of(_mm256_cmpeq_epi32(b, most)) << 8;
}

INLINE void values(__m256i magnitude, uint32_t signs, float toward, float step, float *out)
{
    const __m256i up = _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24);
    __m256i sign = _mm256_sllv_epi32(_mm256_set1_epi32((int)signs), up);
    sign = _mm256_and_si256(sign, _mm256_set1_epi32((int)0x80000000u));
    __m256 value = _mm256_sub_ps(_mm256_cvtepi32_ps(magnitude), _mm256_set1_ps(toward));
    __m256i bits = _mm256_castps_si256(_mm256_mul_ps(value, _mm256_set1_ps(step)));
    __m256i none = _mm256_cmpeq_epi32(magnitude, _mm256_setzero_si256());
    store_256(out, _mm256_andnot_si256(none, _mm256_xor_si256(bits, sign)));
}

INLINE void lanes_values(const uint32_t *magnitudes, uint32_t signs, float toward, float step,
                         float *out)
{
    values(load_256(magnitudes), signs, toward, step, out);
    values(load_256(magnitudes + 8), signs >> 8, toward, step, out + 8);
}

INLINE void lanes_values_of_bytes(const uint8_t *bytes, uint32_t signs, float toward, float step,
                                  float *out)
{
    __m128i lanes = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    values(_mm256_cvtepu8_epi32(lanes), signs, toward, step, out);
    values(_mm256_cvtepu8_epi32(_mm_srli_si128(lanes, 8)), signs >> 8, toward, step, out + 8);
}

#include "codec/transform_loops.h"

/* ------------------------------------------------------------------------- there and back again */

#define FLOATS __m256
#define WIDE 8u

/* Rows to columns, of 8 × 8. */
INLINE void floats_transpose(FLOATS *r)
{
    __m256 t[8];
    for (unsigned i = 0; i < 8; i += 4) {
        __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
        __m256 d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (unsigned i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(t[i], t[4 + i], 0x31);
    }
}

INLINE FLOATS floats_of(enum weft_dtype dtype, const void *from)
{
    if (dtype == WEFT_F32)
        return _mm256_loadu_ps(from);
    __m128i halves = _mm_loadu_si128((const __m128i *)from);
    if (dtype == WEFT_F16)
        return _mm256_cvtph_ps(halves);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

INLINE void floats_to(enum weft_dtype dtype, FLOATS value, void *to)
{
    if (dtype == WEFT_F32) {
        _mm256_storeu_ps(to, value);
    } else if (dtype == WEFT_F16) {
        _mm_storeu_si128(to, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    } else {
        __m256i bits = _mm256_castps_si256(value);
        __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        bits = _mm256_srli_epi32(bits, 16);
        _mm_storeu_si128(to, _mm_packus_epi32(_mm256_castsi256_si128(bits),
                                              _mm256_extracti128_si256(bits, 1)));
    }
}

INLINE FLOATS floats_none(void)
{
    return _mm256_setzero_ps();
}

INLINE FLOATS floats_at(const float *at)
{
    return _mm256_loadu_ps(at);
}

INLINE void floats_put(float *at, FLOATS v)
{
    _mm256_storeu_ps(at, v);
}

INLINE FLOATS floats_within(FLOATS v, float most)
{
    return _mm256_max_ps(_mm256_min_ps(v, _mm256_set1_ps(most)), _mm256_set1_ps(-most));
}

/* ---------------------------------------------------------------------------------- the product */

#define FOUR 4u

/* Four sums of a tile, in eight registers; the next group's matrix is `next` floats away. */
INLINE void product_four(float *out, const float *start, const float *tile, const uint16_t *rows,
                         uint32_t count, const float *in, size_t next)
{
    __m256 a[FOUR], b[FOUR];
    for (unsigned j = 0; j < FOUR; j++)
        a[j] = b[j] = _mm256_set1_ps(start ? start[j] : 0);
    for (uint32_t k = 0; k < count; k++) {
        const float *row = tile + (size_t)rows[k] * WF_PROFILE_TILE;
        OPAQUE(row);
        _mm_prefetch((const char *)(row + next), _MM_HINT_T1);
        __m256 x = _mm256_loadu_ps(ROW(in, k)), y = _mm256_loadu_ps(ROW(in, k) + WIDE);
        for (unsigned j = 0; j < FOUR; j++) {
            __m256 factor = _mm256_broadcast_ss(row + j);
            a[j] = _mm256_fmadd_ps(factor, x, a[j]);
            b[j] = _mm256_fmadd_ps(factor, y, b[j]);
        }
    }
    for (unsigned j = 0; j < FOUR; j++) {
        _mm256_storeu_ps(ROW(out, j), a[j]);
        _mm256_storeu_ps(ROW(out, j) + WIDE, b[j]);
    }
}

TARGET static void product(float *out, const float *start, const float *matrix, uint32_t dims,
                           const uint16_t *rows, uint32_t count, const float *in)
{
    for (uint32_t j = 0; j < wf_profile_padded(dims); j += FOUR)
        product_four(ROW(out, j), start ? start + j : NULL,
                     matrix + (size_t)(j - j % WF_PROFILE_TILE) * dims + j % WF_PROFILE_TILE, rows,
                     count, in, wf_profile_group_floats(dims));
}

/* ------------------------------------------------------------------------------------ the coder */

/* All ones where a ≥ b, without signs. */
INLINE __m256i at_least(__m256i a, __m256i b)
{
    return _mm256_cmpeq_epi32(_mm256_max_epu32(a, b), a);
}

INLINE __m256i chosen(__m256i no, __m256i yes, __m256i mask)
{
    return _mm256_blendv_epi8(no, yes, mask);
}

/* Entries of 16 for eight symbols. */
INLINE __m256i looked_up(const uint32_t *table, __m256i symbol)
{
    __m256i low = _mm256_permutevar8x32_epi32(load_256(table), symbol);
    __m256i high = _mm256_permutevar8x32_epi32(load_256(table + 8), symbol);
    return chosen(low, high, _mm256_cmpgt_epi32(symbol, _mm256_set1_epi32(7)));
}

INLINE __m256i high_product(__m256i a, __m256i b)
{
    __m256i even = _mm256_mul_epu32(a, b);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

/* Eight bytes all ones where `mask` has a bit. */
INLINE uint64_t bytes_of(uint32_t mask)
{
    return _pdep_u64(mask, UINT64_C(0x0101010101010101)) * 0xff;
}

/* Which eight lanes are used. */
INLINE __m256i used_of(unsigned lanes, unsigned half)
{
    const __m256i number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)lanes - (int)half), number);
}

/* What eight lanes encode; their words, close together, to `out` (8 of them are written). */
INLINE __m256i encode_eight(const struct wf_laplace_table *t, const uint8_t *symbols, __m256i s,
                            __m256i used, uint16_t *out, unsigned *out_words)
{
    __m256i symbol = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)symbols));
    __m256i start = looked_up(t->start, symbol), f = looked_up(t->frequency, symbol);
    __m256i full = at_least(s, _mm256_slli_epi32(f, 32 - WF_LAPLACE_BITS));
    full = _mm256_and_si256(full, used);
    uint32_t mask = tops_of(full);
    __m256i order = _mm256_cvtepu8_epi32(
        _mm_cvtsi64_si128((long long)_pext_u64(UINT64_C(0x0706050403020100), bytes_of(mask))));
    __m256i low = _mm256_and_si256(_mm256_permutevar8x32_epi32(s, order),
                                   _mm256_set1_epi32(0xffff));
    _mm_storeu_si128((__m128i *)(void *)out, _mm_packus_epi32(_mm256_castsi256_si128(low),
                                                              _mm256_extracti128_si256(low, 1)));
    *out_words = (unsigned)__builtin_popcount(mask);
    __m256i x = chosen(s, _mm256_srli_epi32(s, 16), full);
    __m256i quotient = high_product(x, looked_up(t->reciprocal, symbol));
    __m256i rest = _mm256_sub_epi32(x, _mm256_mullo_epi32(quotient, f));
    __m256i more = at_least(rest, f);
    quotient = _mm256_sub_epi32(quotient, more);
    rest = _mm256_sub_epi32(rest, _mm256_and_si256(more, f));
    x = _mm256_add_epi32(_mm256_slli_epi32(quotient, WF_LAPLACE_BITS),
                         _mm256_add_epi32(rest, start));
    return chosen(s, x, used);
}

INLINE uint8_t *encode_16(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                          unsigned lanes, const uint8_t *symbols, uint32_t *state, uint8_t *word,
                          const uint8_t *least)
{
    const __m256i used_low = used_of(lanes, 0), used_high = used_of(lanes, WIDE);
    __m256i low = load_256(state), high = load_256(state + WIDE);
    for (size_t i = steps; i-- > 0;) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        uint16_t words[2 * WF_CODER_LANES];
        unsigned first, second;
        const uint8_t *from = ROW(symbols, i);
        low = encode_eight(t, from, low, used_low, words, &first);
        high = encode_eight(t, from + WIDE, high, used_high, words + first, &second);
        if ((size_t)(word - least) < 2 * (first + second))
            return NULL;
        word -= 2 * (first + second);
        memcpy(word, words, 2 * (first + second));
    }
    store_256(state, low);
    store_256(state + WIDE, high);
    return word;
}

INLINE __m256i symbols_at(const struct wf_laplace_table *t, __m256i slot)
{
    __m256i symbol = _mm256_setzero_si256();
    for (unsigned j = 1; j <= t->last; j++)
        symbol = _mm256_sub_epi32(symbol, _mm256_cmpgt_epi32(slot, _mm256_set1_epi32(
                                                                       (int)t->start[j] - 1)));
    return symbol;
}

/* The symbols of eight lanes, and their states before words came in. */
INLINE __m256i decode_eight(const struct wf_laplace_table *t, __m256i used, __m256i *s)
{
    __m256i slot = _mm256_and_si256(*s, _mm256_set1_epi32(WF_LAPLACE_TOTAL - 1));
    __m256i symbol = _mm256_and_si256(symbols_at(t, slot), used);
    __m256i x = _mm256_mullo_epi32(looked_up(t->frequency, symbol),
                                   _mm256_srli_epi32(*s, WF_LAPLACE_BITS));
    x = _mm256_add_epi32(x, _mm256_sub_epi32(slot, looked_up(t->start, symbol)));
    *s = chosen(*s, x, used);
    return symbol;
}

/* Words, 8 of which may be read, into the states that are below the least. */
INLINE __m256i renewed(__m256i s, const uint8_t *word, unsigned *out_words)
{
    __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(s, 16), _mm256_setzero_si256());
    uint32_t mask = tops_of(low);
    __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)word));
    __m256i order = _mm256_cvtepu8_epi32(
        _mm_cvtsi64_si128((long long)_pdep_u64(UINT64_C(0x0706050403020100), bytes_of(mask))));
    next = _mm256_permutevar8x32_epi32(next, order);
    *out_words = (unsigned)__builtin_popcount(mask);
    return chosen(s, _mm256_or_si256(_mm256_slli_epi32(s, 16), next), low);
}

INLINE const uint8_t *decode_16(const struct wf_laplace *laplace, const uint8_t *classes,
                                size_t steps, unsigned lanes, uint8_t *symbols, uint32_t *state,
                                const uint8_t *word, const uint8_t *end)
{
    const __m256i used_low = used_of(lanes, 0), used_high = used_of(lanes, WIDE);
    __m256i low = load_256(state), high = load_256(state + WIDE);
    uint8_t padded[2 * sizeof(uint16_t) * WF_CODER_LANES];
    for (size_t i = 0; i < steps; i++) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        __m256i a = decode_eight(t, used_low, &low), b = decode_eight(t, used_high, &high);
        store_bytes(ROW(symbols, i), a, b);
        size_t left = (size_t)(end - word);
        const uint8_t *from = word;
        if (__builtin_expect(left < 32, 0)) {
            memset(padded, 0, sizeof padded);
            memcpy(padded, word, left);
            from = padded;
        }
        unsigned first, second;
        low = renewed(low, from, &first);
        high = renewed(high, from + (size_t)2 * first, &second);
        if (left < 2 * (first + second))
            return NULL;
        word += 2 * (first + second);
    }
    store_256(state, low);
    store_256(state + WIDE, high);
    return word;
}

#include "codec/transform_wide.h"

const struct wf_lanes_kernels wf_lanes_avx2 = {
    .load = load,
    .store = store,
    .turn = turn,
    .center = center,
    .product = product,
    .quantise = quantise,
    .zero = zero,
    .pack = pack,
    .unpack = unpack,
    .encode = encode,
    .decode = decode,
};

#endif
