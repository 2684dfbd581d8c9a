/* SPDX-License-Identifier: Apache-2.0
 *
 * The transform codec's kernels of AVX-512: the 16 lanes are a register.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#define TARGET \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt,fma" WF_CODEC_WIDE)))
#define INLINE static inline __attribute__((always_inline)) TARGET

#include "codec/transform_lanes.h"

INLINE uint32_t lanes_nonzero(const int32_t *v)
{
    __m512i lanes = _mm512_loadu_si512(v);
    return _mm512_test_epi32_mask(lanes, lanes);
}

INLINE uint32_t lanes_with_bit(const uint32_t *v, unsigned bit)
{
    return _mm512_test_epi32_mask(_mm512_loadu_si512(v), _mm512_set1_epi32((int)(1u << bit)));
}

INLINE uint32_t lanes_equal(const uint8_t *bytes, uint8_t value)
{
    __m128i lanes = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    return _mm_cmpeq_epi8_mask(lanes, _mm_set1_epi8((char)value));
}

INLINE uint32_t lanes_gather(uint32_t bits, uint32_t mask)
{
    return _pext_u32(bits, mask);
}

INLINE uint32_t lanes_spread(uint32_t bits, uint32_t mask)
{
    return _pdep_u32(bits, mask);
}

INLINE uint32_t lanes_symbols(const uint32_t *magnitudes, unsigned shift, uint32_t last,
                              uint8_t *out)
{
    const __m512i most = _mm512_set1_epi32((int)last);
    __m512i high = _mm512_srl_epi32(_mm512_loadu_si512(magnitudes), _mm_cvtsi32_si128((int)shift));
    high = _mm512_min_epu32(high, most);
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(high));
    return _mm512_cmpeq_epi32_mask(high, most);
}

INLINE void values(__m512i magnitude, uint32_t signs, float toward, float step, float *out)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u);
    __mmask16 nonzero = _mm512_test_epi32_mask(magnitude, magnitude);
    __m512 value = _mm512_sub_ps(_mm512_cvtepi32_ps(magnitude), _mm512_set1_ps(toward));
    value = _mm512_maskz_mul_ps(nonzero, value, _mm512_set1_ps(step));
    __m512i bits = _mm512_castps_si512(value);
    _mm512_storeu_si512(out, _mm512_mask_xor_epi32(bits, (__mmask16)signs, bits, sign));
}

INLINE void lanes_values(const uint32_t *magnitudes, uint32_t signs, float toward, float step,
                         float *out)
{
    values(_mm512_loadu_si512(magnitudes), signs, toward, step, out);
}

INLINE void lanes_values_of_bytes(const uint8_t *bytes, uint32_t signs, float toward, float step,
                                  float *out)
{
    __m128i lanes = _mm_loadu_si128((const __m128i *)(const void *)bytes);
    values(_mm512_cvtepu8_epi32(lanes), signs, toward, step, out);
}

#include "codec/transform_loops.h"

/* ------------------------------------------------------------------------- there and back again */

#define FLOATS __m512
#define WIDE 16u

/* Rows to columns: by four within 128 bits, then the 128 bits of four. */
INLINE void floats_transpose(FLOATS *r)
{
    __m512 t[16];
    for (unsigned i = 0; i < 16; i += 4) {
        __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]);
        __m512 d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    }
    for (unsigned i = 0; i < 4; i++) {
        __m512 a = _mm512_shuffle_f32x4(t[i], t[4 + i], 0x88);
        __m512 b = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0x88);
        __m512 c = _mm512_shuffle_f32x4(t[i], t[4 + i], 0xdd);
        __m512 d = _mm512_shuffle_f32x4(t[8 + i], t[12 + i], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, b, 0x88);
        r[4 + i] = _mm512_shuffle_f32x4(c, d, 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(a, b, 0xdd);
        r[12 + i] = _mm512_shuffle_f32x4(c, d, 0xdd);
    }
}

INLINE __m256i load_256(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE FLOATS floats_of(enum weft_dtype dtype, const void *from)
{
    if (dtype == WEFT_BF16)
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(from)), 16));
    if (dtype == WEFT_F16)
        return _mm512_cvtph_ps(load_256(from));
    return _mm512_loadu_ps(from);
}

INLINE void floats_to(enum weft_dtype dtype, FLOATS value, void *to)
{
    if (dtype == WEFT_BF16) {
        __m512i bits = _mm512_castps_si512(value);
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        _mm256_storeu_si256(to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    } else if (dtype == WEFT_F16) {
        _mm256_storeu_si256(to, _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    } else {
        _mm512_storeu_ps(to, value);
    }
}

INLINE FLOATS floats_none(void)
{
    return _mm512_setzero_ps();
}

INLINE FLOATS floats_at(const float *at)
{
    return _mm512_loadu_ps(at);
}

INLINE void floats_put(float *at, FLOATS v)
{
    _mm512_storeu_ps(at, v);
}

INLINE FLOATS floats_within(FLOATS v, float most)
{
    return _mm512_max_ps(_mm512_min_ps(v, _mm512_set1_ps(most)), _mm512_set1_ps(-most));
}

/* ---------------------------------------------------------------------------------- the product */

/* So many rows before they are needed: what has no place in a cache is fetched. */
#define AHEAD 24u

/* The 16 sums of a tile stay in registers: for each row two loads of a cycle feed two additions. */
INLINE void product_tile(float *out, const float *start, const float *tile, const uint16_t *rows,
                         uint32_t count, const float *in, size_t next)
{
    __m512 sum[WF_PROFILE_TILE];
    for (unsigned j = 0; j < WF_PROFILE_TILE; j++)
        sum[j] = _mm512_set1_ps(start ? start[j] : 0);
    for (uint32_t k = 0; k < count; k++) {
        const float *row = tile + (size_t)rows[k] * WF_PROFILE_TILE;
        OPAQUE(row);
        _mm_prefetch((const char *)(row + AHEAD * WF_PROFILE_TILE), _MM_HINT_T0);
        _mm_prefetch((const char *)(row + next), _MM_HINT_T1);
        __m512 x = _mm512_loadu_ps(ROW(in, k));
        for (unsigned j = 0; j < WF_PROFILE_TILE; j++)
            sum[j] = _mm512_fmadd_ps(_mm512_set1_ps(row[j]), x, sum[j]);
    }
    for (unsigned j = 0; j < WF_PROFILE_TILE; j++)
        _mm512_storeu_ps(ROW(out, j), sum[j]);
}

TARGET static void product(float *out, const float *start, const float *matrix, uint32_t dims,
                           const uint16_t *rows, uint32_t count, const float *in)
{
    for (uint32_t j = 0; j < dims; j += WF_PROFILE_TILE)
        product_tile(ROW(out, j), start ? start + j : NULL, matrix + (size_t)j * dims, rows, count,
                     in, wf_profile_group_floats(dims));
}

/* ------------------------------------------------------------------------------------ the coder */

/* The upper halves of products of 32 bits. */
INLINE __m512i high_product(__m512i a, __m512i b)
{
    __m512i even = _mm512_mul_epu32(a, b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), _mm512_srli_epi64(b, 32));
    return _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
}

INLINE uint8_t *encode_16(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                          unsigned lanes, const uint8_t *symbols, uint32_t *state, uint8_t *word,
                          const uint8_t *least)
{
    const __mmask16 used = (__mmask16)((1u << lanes) - 1);
    __m512i s = _mm512_loadu_si512(state);
    for (size_t i = steps; i-- > 0;) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        __m512i symbol = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)ROW(symbols, i)));
        __m512i start = _mm512_permutexvar_epi32(symbol, _mm512_loadu_si512(t->start));
        __m512i f = _mm512_permutexvar_epi32(symbol, _mm512_loadu_si512(t->frequency));
        __m512i r = _mm512_permutexvar_epi32(symbol, _mm512_loadu_si512(t->reciprocal));
        __mmask16 full = _mm512_mask_cmpge_epu32_mask(used, s,
                                                      _mm512_slli_epi32(f, 32 - WF_LAPLACE_BITS));
        unsigned words = (unsigned)__builtin_popcount(full);
        if ((size_t)(word - least) < 2 * words)
            return NULL;
        word -= 2 * words;
        _mm256_mask_storeu_epi16(word, (__mmask16)((1u << words) - 1),
                                 _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, s)));
        __m512i x = _mm512_mask_srli_epi32(s, full, s, 16);
        __m512i quotient = high_product(x, r);
        __m512i rest = _mm512_sub_epi32(x, _mm512_mullo_epi32(quotient, f));
        __mmask16 more = _mm512_cmpge_epu32_mask(rest, f);
        quotient = _mm512_mask_add_epi32(quotient, more, quotient, _mm512_set1_epi32(1));
        rest = _mm512_mask_sub_epi32(rest, more, rest, f);
        x = _mm512_add_epi32(_mm512_slli_epi32(quotient, WF_LAPLACE_BITS),
                             _mm512_add_epi32(rest, start));
        s = _mm512_mask_mov_epi32(s, used, x);
    }
    _mm512_storeu_si512(state, s);
    return word;
}

/* How many symbols begin at the slot or before it, without the first: its symbol. */
INLINE __m512i symbols_at(const struct wf_laplace_table *t, __m512i slot)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512i a = _mm512_setzero_si512(), b = a;
    for (unsigned j = 0; j <= t->last; j += 4) {
        /* The first of all is always there. */
        if (j)
            a = _mm512_mask_add_epi32(
                a, _mm512_cmpge_epu32_mask(slot, _mm512_set1_epi32((int)t->start[j])), a, one);
        b = _mm512_mask_add_epi32(
            b, _mm512_cmpge_epu32_mask(slot, _mm512_set1_epi32((int)t->start[j + 1])), b, one);
        a = _mm512_mask_add_epi32(
            a, _mm512_cmpge_epu32_mask(slot, _mm512_set1_epi32((int)t->start[j + 2])), a, one);
        b = _mm512_mask_add_epi32(
            b, _mm512_cmpge_epu32_mask(slot, _mm512_set1_epi32((int)t->start[j + 3])), b, one);
    }
    return _mm512_add_epi32(a, b);
}

INLINE const uint8_t *decode_16(const struct wf_laplace *laplace, const uint8_t *classes,
                                size_t steps, unsigned lanes, uint8_t *symbols, uint32_t *state,
                                const uint8_t *word, const uint8_t *end)
{
    const __mmask16 used = (__mmask16)((1u << lanes) - 1);
    __m512i s = _mm512_loadu_si512(state);
    for (size_t i = 0; i < steps; i++) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        __m512i slot = _mm512_and_si512(s, _mm512_set1_epi32(WF_LAPLACE_TOTAL - 1));
        __m512i symbol = _mm512_maskz_mov_epi32(used, symbols_at(t, slot));
        __m512i start = _mm512_permutexvar_epi32(symbol, _mm512_loadu_si512(t->start));
        __m512i f = _mm512_permutexvar_epi32(symbol, _mm512_loadu_si512(t->frequency));
        __m512i x = _mm512_mullo_epi32(f, _mm512_srli_epi32(s, WF_LAPLACE_BITS));
        x = _mm512_add_epi32(x, _mm512_sub_epi32(slot, start));
        __mmask16 low = _mm512_mask_cmplt_epu32_mask(used, x, _mm512_set1_epi32(WF_CODER_LOW));
        _mm_storeu_si128((__m128i *)(void *)ROW(symbols, i), _mm512_cvtepi32_epi8(symbol));
        unsigned words = (unsigned)__builtin_popcount(low);
        size_t left = (size_t)(end - word);
        __m256i next;
        if (__builtin_expect(left >= 32, 1)) {
            next = load_256(word);
        } else {
            if (left < 2 * words)
                return NULL;
            next = _mm256_maskz_loadu_epi16((__mmask16)((1u << words) - 1), word);
        }
        word += 2 * words;
        __m512i more = _mm512_maskz_expand_epi32(low, _mm512_cvtepu16_epi32(next));
        x = _mm512_or_si512(_mm512_mask_slli_epi32(x, low, x, 16), more);
        s = _mm512_mask_mov_epi32(s, used, x);
    }
    _mm512_storeu_si512(state, s);
    return word;
}

#include "codec/transform_wide.h"

const struct wf_lanes_kernels wf_lanes_avx512 = {
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
