/* SPDX-License-Identifier: Apache-2.0
 *
 * See quant_kernel.h.  Compiled with -ffp-contract=off; what differs between the widths is here:
 * f16, and the bits of codes.  Runs of bits are gathered and spread with BMI2's pext and pdep
 * where the processor has them.
 */
#include "codec/quant_kernel.h"

#include <string.h>

#include "codec/convert.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef __FAST_MATH__
#error "every width must give the same bits: build this without -ffast-math"
#endif

#define BF16_MOST 0x1.fep127f
#define WHOLE 0x1.8p23f /* added and taken away, rounds to a whole number, ties to even */

#define CANDIDATES 6

/* Which steps are tried: so many notches below the one that cuts nothing off.  Of two values only
 * (one bit) the best may lie at half the range, of more it is not far below the whole. */
static const uint8_t tried[3][CANDIDATES] = {
    {0, 2, 3, 4, 5, 6}, /* one bit, or none */
    {0, 1, 2, 3, 4, 5}, /* two or three */
    {0, 1, 2, 3, 3, 3}, /* more */
};

/* --------------------------------------------------------------------------------- runs of bits */

static unsigned popcount(uint64_t bits)
{
    return (unsigned)__builtin_popcountll(bits);
}

/* Which of eight widths, a byte each, are greater than p. */
static uint64_t wider_than(const uint8_t *widths, unsigned p)
{
    uint64_t eight;
    memcpy(&eight, widths, sizeof eight);
    eight += UINT64_C(0x0101010101010101) * (0x7f - p); /* the top bit of those that are */
    return (eight >> 7 & UINT64_C(0x0101010101010101)) * UINT64_C(0x0102040810204080) >> 56;
}

void wf_cell_bits_of(const uint8_t *widths, size_t lanes, struct wf_cell_bits *out)
{
    memset(out, 0, sizeof *out);
    uint32_t at = 0;
    for (size_t w = 0; w < lanes / 64; w++)
        for (unsigned p = 0; p < WF_CELL_WIDTH_MAX; p++) {
            uint64_t mask = 0;
            for (unsigned l = 0; l < 64; l += 8)
                mask |= wider_than(widths + 64 * w + l, p) << l;
            if (!mask)
                break;
            out->mask[w][p] = mask;
            out->at[w][p] = at;
            at += popcount(mask);
            out->planes[w]++;
        }
    out->row = at;
}

/* What is not yet a whole byte. */
struct bit_writer {
    uint8_t *out;
    uint64_t bits;
    unsigned count; /* 0 … 7 between calls */
};

/* `bits` has no more than its lowest `count` set.  Eight bytes are written, of which the next call
 * overwrites what was not yet whole. */
static inline __attribute__((always_inline)) void put_bits(struct bit_writer *writer, uint64_t bits,
                                                           unsigned count)
{
    uint64_t all = writer->bits | bits << writer->count;
    uint64_t over = bits >> 1 >> (63 - writer->count);
    unsigned total = writer->count + count;
    memcpy(writer->out, &all, 8);
    writer->out += total / 8;
    writer->bits = total < 64 ? all >> (total & ~7u) : over;
    writer->count = total % 8;
}

static void put_rest(struct bit_writer *writer)
{
    if (writer->count)
        *writer->out = (uint8_t)writer->bits;
}

/* The 64 bits from bit `at` on, of which the first `count` matter. */
static inline __attribute__((always_inline)) uint64_t bits_at(const uint8_t *row, size_t at,
                                                              unsigned count)
{
    uint64_t bits;
    memcpy(&bits, row + at / 8, 8);
    bits >>= at % 8;
    if (count > 57) /* rows are alike, so this is foreseen */
        bits |= (uint64_t)row[at / 8 + 8] << 1 << (63 - at % 8);
    return bits;
}

/* The bits of `plane` where `mask` has ones, moved together; and the other way. */
static uint64_t gather_1(uint64_t plane, uint64_t mask)
{
    if (mask == UINT64_MAX)
        return plane;
    uint64_t run = 0;
    for (unsigned i = 0; mask; i++, mask &= mask - 1)
        run |= (uint64_t)((plane & mask & -mask) != 0) << i;
    return run;
}

static uint64_t spread_1(uint64_t run, uint64_t mask)
{
    if (mask == UINT64_MAX)
        return run;
    uint64_t plane = 0;
    for (; mask; run >>= 1, mask &= mask - 1)
        plane |= run & 1 ? mask & -mask : 0;
    return plane;
}

/* Bit p of 64 codes. */
static uint64_t plane_of_1(const uint8_t *codes, unsigned p)
{
    uint64_t plane = 0;
    for (unsigned l = 0; l < 64; l++)
        plane |= (uint64_t)(codes[l] >> p & 1) << l;
    return plane;
}

static void codes_of_1(const uint8_t *row, size_t begin, const uint32_t *at, const uint64_t *mask,
                       unsigned planes, uint8_t *codes)
{
    memset(codes, 0, 64);
    for (unsigned p = 0; p < planes; p++) {
        uint64_t plane = spread_1(bits_at(row, begin + at[p], popcount(mask[p])), mask[p]);
        for (unsigned l = 0; l < 64; l++)
            codes[l] = (uint8_t)(codes[l] | (plane >> l & 1) << p);
    }
}

static void from_f16_1(const uint16_t *halves, size_t count, float *out)
{
    wf_floats_of(WEFT_F16, halves, count, out);
}

static void to_f16_1(const float *from, size_t count, uint16_t *halves)
{
    wf_floats_to(WEFT_F16, from, count, halves);
}

static void to_bf16_1(const float *from, size_t count, float scale, uint16_t *halves)
{
    for (size_t i = 0; i < count; i++) {
        float value = from[i] * scale;
        value = value < BF16_MOST ? value : BF16_MOST;
        halves[i] = wf_float_bf16(value > -BF16_MOST ? value : -BF16_MOST);
    }
}

/* A multiple of 16 lanes of codes to floats. */
static void restore_1(const uint8_t *codes, size_t count, const float *base, const float *step,
                      float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = base[i] + (float)codes[i] * step[i];
}

/* 16 rows of 16 floats. */
static void transpose_16_1(const float *from, size_t from_stride, float *to, size_t to_stride)
{
    for (size_t r = 0; r < 16; r++)
        for (size_t c = 0; c < 16; c++)
            to[c * to_stride + r] = from[r * from_stride + c];
}

#define WIDTH 1
#define TARGET
#include "codec/quant_loops.h"

#if defined(__x86_64__)

/* ----------------------------------------------------------------------------------------- AVX2 */

#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt,f16c")))
#define AVX2_INLINE \
    static inline __attribute__((always_inline, target("avx2,bmi,bmi2,popcnt,f16c")))

AVX2_INLINE uint64_t gather_8(uint64_t plane, uint64_t mask)
{
    return _pext_u64(plane, mask);
}

AVX2_INLINE uint64_t plane_of_8(const uint8_t *codes, unsigned p)
{
    __m128i shift = _mm_cvtsi32_si128((int)(7 - p));
    __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)codes);
    __m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(codes + 32));
    uint32_t a = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(low, shift));
    uint32_t b = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(high, shift));
    return a | (uint64_t)b << 32;
}

/* 32 bits to 32 bytes, each `one` or 0. */
AVX2_INLINE __m256i bytes_of(uint32_t bits, __m256i one)
{
    const __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                             0x0303030303030303);
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i spread = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), which);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, each), each), one);
}

AVX2_INLINE void codes_of_8(const uint8_t *row, size_t begin, const uint32_t *at,
                            const uint64_t *mask, unsigned planes, uint8_t *codes)
{
    __m256i low = _mm256_setzero_si256(), high = low;
    for (unsigned p = 0; p < planes; p++) {
        uint64_t plane = _pdep_u64(bits_at(row, begin + at[p], popcount(mask[p])), mask[p]);
        __m256i one = _mm256_set1_epi8((char)(1u << p));
        low = _mm256_or_si256(low, bytes_of((uint32_t)plane, one));
        high = _mm256_or_si256(high, bytes_of((uint32_t)(plane >> 32), one));
    }
    _mm256_storeu_si256((__m256i *)(void *)codes, low);
    _mm256_storeu_si256((__m256i *)(void *)(codes + 32), high);
}

AVX2_INLINE void from_f16_8(const uint16_t *halves, size_t count, float *out)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(
                                      (const __m128i *)(const void *)(halves + i))));
    wf_floats_of(WEFT_F16, halves + i, count - i, out + i);
}

AVX2_INLINE void to_f16_8(const float *from, size_t count, uint16_t *halves)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(halves + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    wf_floats_to(WEFT_F16, from + i, count - i, halves + i);
}

AVX2_INLINE __m256i halves_of_8(const float *from, __m256 scale)
{
    const __m256 most = _mm256_set1_ps(BF16_MOST), least = _mm256_set1_ps(-BF16_MOST);
    __m256 value = _mm256_mul_ps(_mm256_loadu_ps(from), scale);
    __m256i bits = _mm256_castps_si256(_mm256_max_ps(_mm256_min_ps(value, most), least));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    return _mm256_srli_epi32(bits, 16);
}

AVX2_INLINE void to_bf16_8(const float *from, size_t count, float scale, uint16_t *halves)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m256i low = halves_of_8(from + i, _mm256_set1_ps(scale));
        __m256i high = halves_of_8(from + i + 8, _mm256_set1_ps(scale));
        __m256i mixed = _mm256_packus_epi32(low, high);
        _mm256_storeu_si256((__m256i *)(void *)(halves + i), _mm256_permute4x64_epi64(mixed, 0xd8));
    }
    to_bf16_1(from + i, count - i, scale, halves + i);
}

AVX2_INLINE void restore_8(const uint8_t *codes, size_t count, const float *base, const float *step,
                           float *out)
{
    for (size_t i = 0; i < count; i += 8) {
        __m256i whole = _mm256_cvtepu8_epi32(
            _mm_loadl_epi64((const __m128i *)(const void *)(codes + i)));
        __m256 off = _mm256_mul_ps(_mm256_cvtepi32_ps(whole), _mm256_loadu_ps(step + i));
        _mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_loadu_ps(base + i), off));
    }
}

/* Four by four at a time. */
AVX2_INLINE void transpose_16_8(const float *from, size_t from_stride, float *to, size_t to_stride)
{
    for (size_t r = 0; r < 16; r += 4)
        for (size_t c = 0; c < 16; c += 4) {
            __m128 rows[4];
            for (size_t i = 0; i < 4; i++)
                rows[i] = _mm_loadu_ps(from + (r + i) * from_stride + c);
            _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]);
            for (size_t i = 0; i < 4; i++)
                _mm_storeu_ps(to + (c + i) * to_stride + r, rows[i]);
        }
}

#define WIDTH 8
#define TARGET AVX2
#include "codec/quant_loops.h"

/* -------------------------------------------------------------------------------------- AVX-512 */

#define AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi,bmi2,popcnt,f16c")))
#define AVX512_INLINE static inline __attribute__((always_inline)) AVX512

AVX512_INLINE uint64_t gather_16(uint64_t plane, uint64_t mask)
{
    return _pext_u64(plane, mask);
}

AVX512_INLINE uint64_t plane_of_16(const uint8_t *codes, unsigned p)
{
    return _mm512_test_epi8_mask(_mm512_loadu_si512(codes), _mm512_set1_epi8((char)(1u << p)));
}

/* Adds bit p, a constant wherever this is inlined, to those codes that have it. */
AVX512_INLINE __m512i with_plane(__m512i codes, const uint8_t *row, size_t begin,
                                 const uint32_t *at, const uint64_t *mask, const unsigned p)
{
    __mmask64 plane = _pdep_u64(bits_at(row, begin + at[p], popcount(mask[p])), mask[p]);
    return _mm512_mask_add_epi8(codes, plane, codes, _mm512_set1_epi8((char)(1u << p)));
}

AVX512_INLINE void codes_of_16(const uint8_t *row, size_t begin, const uint32_t *at,
                               const uint64_t *mask, unsigned planes, uint8_t *codes)
{
    __m512i all = _mm512_setzero_si512();
    switch (planes) {
    case 8: all = with_plane(all, row, begin, at, mask, 7); /* fall through */
    case 7: all = with_plane(all, row, begin, at, mask, 6); /* fall through */
    case 6: all = with_plane(all, row, begin, at, mask, 5); /* fall through */
    case 5: all = with_plane(all, row, begin, at, mask, 4); /* fall through */
    case 4: all = with_plane(all, row, begin, at, mask, 3); /* fall through */
    case 3: all = with_plane(all, row, begin, at, mask, 2); /* fall through */
    case 2: all = with_plane(all, row, begin, at, mask, 1); /* fall through */
    case 1: all = with_plane(all, row, begin, at, mask, 0);
    }
    _mm512_storeu_si512(codes, all);
}

AVX512_INLINE void from_f16_16(const uint16_t *halves, size_t count, float *out)
{
    from_f16_8(halves, count, out);
}

AVX512_INLINE void to_f16_16(const float *from, size_t count, uint16_t *halves)
{
    to_f16_8(from, count, halves);
}

AVX512_INLINE void to_bf16_16(const float *from, size_t count, float scale, uint16_t *halves)
{
    const __m512 most = _mm512_set1_ps(BF16_MOST), least = _mm512_set1_ps(-BF16_MOST);
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __m512 value = _mm512_mul_ps(_mm512_loadu_ps(from + i), _mm512_set1_ps(scale));
        __m512i bits = _mm512_castps_si512(_mm512_max_ps(_mm512_min_ps(value, most), least));
        __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        _mm256_storeu_si256((__m256i *)(void *)(halves + i),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
    }
    to_bf16_1(from + i, count - i, scale, halves + i);
}

AVX512_INLINE void restore_16(const uint8_t *codes, size_t count, const float *base,
                              const float *step, float *out)
{
    for (size_t i = 0; i < count; i += 16) {
        __m512i whole = _mm512_cvtepu8_epi32(
            _mm_loadu_si128((const __m128i *)(const void *)(codes + i)));
        __m512 off = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(step + i));
        _mm512_storeu_ps(out + i, _mm512_add_ps(_mm512_loadu_ps(base + i), off));
    }
}

AVX512_INLINE void transpose_16_16(const float *from, size_t from_stride, float *to,
                                   size_t to_stride)
{
    __m512 a[16], b[16];
    for (size_t r = 0; r < 16; r++)
        a[r] = _mm512_loadu_ps(from + r * from_stride);
    for (size_t r = 0; r < 16; r += 4) { /* four by four within the quarters of a vector */
        __m512 low = _mm512_unpacklo_ps(a[r], a[r + 1]), high = _mm512_unpackhi_ps(a[r], a[r + 1]);
        __m512 low2 = _mm512_unpacklo_ps(a[r + 2], a[r + 3]);
        __m512 high2 = _mm512_unpackhi_ps(a[r + 2], a[r + 3]);
        b[r] = _mm512_shuffle_ps(low, low2, 0x44);
        b[r + 1] = _mm512_shuffle_ps(low, low2, 0xee);
        b[r + 2] = _mm512_shuffle_ps(high, high2, 0x44);
        b[r + 3] = _mm512_shuffle_ps(high, high2, 0xee);
    }
    for (size_t c = 0; c < 4; c++) { /* and the quarters */
        __m512 low = _mm512_shuffle_f32x4(b[c], b[c + 4], 0x88);
        __m512 high = _mm512_shuffle_f32x4(b[c], b[c + 4], 0xdd);
        __m512 low2 = _mm512_shuffle_f32x4(b[c + 8], b[c + 12], 0x88);
        __m512 high2 = _mm512_shuffle_f32x4(b[c + 8], b[c + 12], 0xdd);
        _mm512_storeu_ps(to + c * to_stride, _mm512_shuffle_f32x4(low, low2, 0x88));
        _mm512_storeu_ps(to + (c + 4) * to_stride, _mm512_shuffle_f32x4(high, high2, 0x88));
        _mm512_storeu_ps(to + (c + 8) * to_stride, _mm512_shuffle_f32x4(low, low2, 0xdd));
        _mm512_storeu_ps(to + (c + 12) * to_stride, _mm512_shuffle_f32x4(high, high2, 0xdd));
    }
}

#define WIDTH 16
#define TARGET AVX512
#include "codec/quant_loops.h"

#endif

/* --------------------------------------------------------------------------------------- choice */

const struct wf_quant_kernel *wf_quant_kernel_of_width(unsigned width)
{
#if defined(__x86_64__)
    if (width == 8 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"))
        return &kernel_8;
    if (width == 16 && wf_quant_kernel_of_width(8) && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &kernel_16;
#endif
    return width == 1 ? &kernel_1 : NULL;
}

const struct wf_quant_kernel *wf_quant_kernel_widest(void)
{
    const struct wf_quant_kernel *kernel = wf_quant_kernel_of_width(16);
    if (!kernel)
        kernel = wf_quant_kernel_of_width(8);
    return kernel ? kernel : &kernel_1;
}
