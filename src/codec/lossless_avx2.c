/* SPDX-License-Identifier: Apache-2.0
 *
 * The lossless kernels of AVX2 (and BMI2): 32 symbols in a register, 8 lanes in another.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/lossless_inner.h"

#define TARGET __attribute__((target("avx2,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE __m256i load_32(const void *at)
{
    return _mm256_loadu_si256((const __m256i *)at);
}

INLINE void store_32(void *at, __m256i value)
{
    _mm256_storeu_si256((__m256i *)at, value);
}

INLINE __m256i table_of_16(const uint8_t *bytes)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)bytes));
}

/* Bits of `mask` from y, others from x. */
INLINE __m256i bits_of(__m256i x, __m256i y, __m256i mask)
{
    return _mm256_or_si256(_mm256_andnot_si256(mask, x), _mm256_and_si256(mask, y));
}

/* A byte of 255 for each bit that is set. */
INLINE __m256i bytes_of_bits(uint32_t bits)
{
    const __m256i byte = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                            0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i spread_out = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), byte);
    return _mm256_cmpeq_epi8(_mm256_and_si256(spread_out, bit), bit);
}

INLINE __m256i add_bits(__m256i bytes, uint32_t bits, uint32_t bit)
{
    __m256i weight = _mm256_set1_epi8((char)(1u << bit));
    return _mm256_or_si256(bytes, _mm256_and_si256(bytes_of_bits(bits), weight));
}

/* Low and high bytes of 32 elements of 16 bits. */
INLINE void interleave(__m256i low, __m256i high, uint8_t *out)
{
    low = _mm256_permute4x64_epi64(low, 0xd8);
    high = _mm256_permute4x64_epi64(high, 0xd8);
    store_32(out, _mm256_unpacklo_epi8(low, high));
    store_32(out + 32, _mm256_unpackhi_epi8(low, high));
}

/* The four bytes of 32 elements, from the lowest. */
INLINE void interleave_four(const __m256i bytes[4], uint8_t *out)
{
    const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    __m256i b[4];
    for (unsigned i = 0; i < 4; i++)
        b[i] = _mm256_permutevar8x32_epi32(bytes[i], order);
    __m256i low = _mm256_unpacklo_epi8(b[0], b[1]), high = _mm256_unpacklo_epi8(b[2], b[3]);
    store_32(out, _mm256_unpacklo_epi16(low, high));
    store_32(out + 32, _mm256_unpackhi_epi16(low, high));
    low = _mm256_unpackhi_epi8(b[0], b[1]), high = _mm256_unpackhi_epi8(b[2], b[3]);
    store_32(out + 64, _mm256_unpacklo_epi16(low, high));
    store_32(out + 96, _mm256_unpackhi_epi16(low, high));
}

/* Symbols to their place in bytes, and bit planes to theirs, the highest of them the sign; `field`:
 * the bits of a symbol. */
INLINE __m256i merge_planes(__m256i symbols, int shift, int field, const uint8_t *planes)
{
    __m256i bytes = _mm256_and_si256(_mm256_slli_epi16(symbols, shift),
                                     _mm256_set1_epi8((char)field));
    for (int bit = 0; bit <= shift; bit++) {
        uint32_t bits;
        if (bit == shift && field & 0x80)
            break;
        memcpy(&bits, planes + 8 * bit, sizeof bits);
        bytes = add_bits(bytes, bits, bit == shift ? 7 : (uint32_t)bit);
    }
    return bytes;
}

/* Where the `count` planes of 32 elements begin: they are of 64, of which these are one half or the
 * other.  Symbols without a rest have none. */
INLINE const uint8_t *planes_at(const uint8_t *top, size_t at, size_t count)
{
    return top + at / WF_GROUP * (8 * count) + at % WF_GROUP / 8;
}

/* 32 symbols and the rest → elements; `at`: the number of the first. */
INLINE void merge(__m256i symbols, const struct wf_rest *rest, size_t at, uint8_t *out, int kind)
{
    const __m256i sign = _mm256_set1_epi8((char)0x80);
    const uint8_t *top = rest->part[0];
    if (kind == WEFT_BF16 || kind == WEFT_F32) {
        __m256i sm = load_32(top + at);
        __m256i third = bits_of(sm, _mm256_slli_epi16(symbols, 7), sign);
        __m256i fourth = bits_of(_mm256_srli_epi16(symbols, 1), sm, sign);
        if (kind == WEFT_BF16) {
            interleave(third, fourth, out);
        } else {
            __m256i bytes[4] = {load_32(rest->part[1] + at), load_32(rest->part[2] + at), third,
                                fourth};
            interleave_four(bytes, out);
        }
        return;
    }
    switch (kind) {
    case WEFT_F16:
        interleave(load_32(rest->part[1] + at),
                   merge_planes(symbols, 2, 0x7c, planes_at(top, at, 3)), out);
        break;
    case WEFT_FP8_E4M3: store_32(out, merge_planes(symbols, 3, 0x78, planes_at(top, at, 4))); break;
    case WEFT_FP8_E5M2: store_32(out, merge_planes(symbols, 2, 0x7c, planes_at(top, at, 3))); break;
    case WEFT_INT8: store_32(out, merge_planes(symbols, 4, 0xf0, planes_at(top, at, 4))); break;
    default: store_32(out, symbols);
    }
}

INLINE void emit(struct wf_reader *r, const __m256i values[2], uint64_t escaped,
                 const uint8_t *base, const struct wf_rest *rest, size_t group, uint8_t *out,
                 int kind)
{
    for (unsigned half = 0; half < 2; half++) {
        __m256i symbols = _mm256_add_epi8(values[half], load_32(base + 32 * half));
        merge(symbols, rest, group * WF_GROUP + 32 * half, out + kind_bytes(kind) / 2 * half, kind);
    }
    if (__builtin_expect(escaped != 0, 0))
        patch(r, escaped, base, kind, out);
}

/* 16 lanes, and their codes as 64 bytes: length | rank << 4.  A gather would take a load a lane. */
struct decoder {
    __m256i state[2], table[4];
};

INLINE struct decoder decoder_of(const struct wf_reader *r)
{
    struct decoder d = {.state = {load_32(r->state), load_32(r->state + 8)}};
    for (unsigned i = 0; i < 4; i++)
        d.table[i] = table_of_16(r->symbols->decode + 16 * i);
    return d;
}

/* The next symbol of each lane: its rank in the lower 16 bits of each 32 for the lower eight lanes,
 * in the upper 16 for the others. */
INLINE __m256i decode_step(struct decoder *d)
{
    const __m256i length = _mm256_set1_epi32(15);
    __m256i at = _mm256_blend_epi16(d->state[0], _mm256_slli_epi32(d->state[1], 16), 0xaa);
    at = _mm256_and_si256(at, _mm256_set1_epi16((short)(WF_CODE_ENTRIES - 1)));
    __m256i odd = _mm256_slli_epi16(at, 3), upper = _mm256_slli_epi16(at, 2);
    __m256i low = _mm256_blendv_epi8(_mm256_shuffle_epi8(d->table[0], at),
                                     _mm256_shuffle_epi8(d->table[1], at), odd);
    __m256i high = _mm256_blendv_epi8(_mm256_shuffle_epi8(d->table[2], at),
                                      _mm256_shuffle_epi8(d->table[3], at), odd);
    __m256i entry = _mm256_blendv_epi8(low, high, upper);
    d->state[0] = _mm256_srlv_epi32(d->state[0], _mm256_and_si256(entry, length));
    d->state[1] = _mm256_srlv_epi32(d->state[1],
                                    _mm256_and_si256(_mm256_srli_epi32(entry, 16), length));
    return _mm256_and_si256(_mm256_srli_epi16(entry, 4), _mm256_set1_epi16(15));
}

/* A byte of 255 for each bit. */
INLINE uint64_t spread(unsigned mask)
{
    return _pdep_u64(mask, 0x0101010101010101u) * 255;
}

INLINE __m256i bytes_to_dwords(uint64_t bytes)
{
    return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)bytes));
}

INLINE const uint8_t *refill(__m256i *state, const uint8_t *words)
{
    /* Unsigned: below 2^16 is what has nothing in its upper half. */
    __m256i empty = _mm256_cmpeq_epi32(_mm256_srli_epi32(*state, 16), _mm256_setzero_si256());
    unsigned mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(empty));
    __m256i next = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)words));
    __m256i from = bytes_to_dwords(_pdep_u64(0x0706050403020100u, spread(mask)));
    __m256i full = _mm256_or_si256(_mm256_slli_epi32(*state, 16),
                                   _mm256_permutevar8x32_epi32(next, from));
    *state = _mm256_blendv_epi8(*state, full, empty);
    return words + 2 * (unsigned)__builtin_popcount(mask);
}

/* What four steps gave → 64 ranks in order. */
INLINE void gather_ranks(const __m256i steps[4], __m256i out[2])
{
    __m256i first = _mm256_or_si256(steps[0], _mm256_slli_epi16(steps[1], 8));
    __m256i second = _mm256_or_si256(steps[2], _mm256_slli_epi16(steps[3], 8));
    out[0] = _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
    out[1] = _mm256_blend_epi16(_mm256_srli_epi32(first, 16), second, 0xaa);
}

INLINE size_t entropy_loop(struct wf_reader *r, size_t groups, const struct wf_rest *given,
                           uint8_t *out, int kind)
{
    const struct wf_symbols *s = r->symbols;
    struct wf_rest rest = kind == SYMBOLS_ALONE ? (struct wf_rest){0} : *given;
    struct decoder d = decoder_of(r);
    __m256i table = table_of_16(s->value), escape = _mm256_set1_epi8((char)s->symbols);
    const uint8_t *words = r->codes, *limit = r->limit;
    struct wf_tile tile = r->tile;
    size_t group = 0;
    /* Two refills of a group read at most 64 bytes. */
    for (; group < groups && limit - words >= 64; group++) {
        __m256i steps[4], ranks[2];
        for (unsigned step = 0; step < 4; step++) {
            steps[step] = decode_step(&d);
            if (step % 2 == 1) {
                words = refill(&d.state[0], words);
                words = refill(&d.state[1], words);
            }
        }
        gather_ranks(steps, ranks);
        uint64_t escaped = 0;
        for (unsigned half = 0; half < 2; half++) {
            uint32_t mask = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(ranks[half], escape));
            escaped |= (uint64_t)mask << 32 * half;
            ranks[half] = _mm256_shuffle_epi8(table, ranks[half]);
        }
        emit(r, ranks, escaped, wf_tile_next(&tile), &rest, group, out + group * kind_bytes(kind),
             kind);
    }
    store_32(r->state, d.state[0]);
    store_32(r->state + 8, d.state[1]);
    r->codes = words;
    r->tile = tile;
    return group;
}

TARGET static size_t entropy_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                                    uint8_t *out)
{
    RETURN_BY_KIND(kind_of(rest), entropy_loop, r, groups, rest, out);
}

/* A weight for each bit that is set. */
INLINE void add_plane(__m256i ranks[2], uint64_t plane, uint32_t bit)
{
    ranks[0] = add_bits(ranks[0], (uint32_t)plane, bit);
    ranks[1] = add_bits(ranks[1], (uint32_t)(plane >> 32), bit);
}

/* Second codes of what was escaped, from bit `at` on: symbols to the places of `escaped`, and what
 * follows as a byte. */
INLINE uint64_t add_seconds(__m256i symbols[2], const uint8_t *bits, uint64_t at, uint64_t count,
                            uint64_t escaped, __m256i table)
{
    __m256i ranks[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    uint64_t raw = escaped;
    for (uint32_t bit = 0; bit < 4; bit++, at += count) {
        uint64_t plane = _pdep_u64(load_64(bits + at / 8) >> at % 8, escaped);
        add_plane(ranks, plane, bit);
        raw &= plane;
    }
    symbols[0] = _mm256_blendv_epi8(symbols[0], _mm256_shuffle_epi8(table, ranks[0]),
                                    bytes_of_bits((uint32_t)escaped));
    symbols[1] = _mm256_blendv_epi8(symbols[1], _mm256_shuffle_epi8(table, ranks[1]),
                                    bytes_of_bits((uint32_t)(escaped >> 32)));
    return raw;
}

INLINE size_t fixed_loop(struct wf_reader *r, size_t groups, const struct wf_rest *given,
                         uint8_t *out, int kind)
{
    const struct wf_symbols *s = r->symbols;
    struct wf_rest rest = kind == SYMBOLS_ALONE ? (struct wf_rest){0} : *given;
    uint32_t width = s->width;
    uint8_t direct[16] = {0}, second[16] = {0};
    memcpy(direct, s->value, (1u << width) - 1);
    memcpy(second, s->value + (1u << width) - 1, WF_SECOND_RAW);
    __m256i table = table_of_16(direct), seconds = table_of_16(second);
    const uint8_t *codes = r->codes, *end = r->codes_end, *bits = r->seconds;
    uint64_t at = r->second, last = last_second(r);
    struct wf_tile tile = r->tile;
    size_t group = 0;
    for (; group < groups && end - codes >= (ptrdiff_t)(8 * width); group++) {
        __m256i symbols[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        uint64_t escaped = ~0ull, raw = 0;
        for (uint32_t bit = 0; bit < width; bit++) {
            uint64_t plane = load_64(codes + 8 * bit);
            escaped &= plane;
            add_plane(symbols, plane, bit);
        }
        codes += 8 * width;
        uint64_t count = (uint64_t)__builtin_popcountll(escaped);
        bool near = count <= WF_SECONDS_NEAR && at + 4 * count <= last;
        const uint8_t *base = wf_tile_next(&tile);
        uint8_t *to = out + group * kind_bytes(kind);
        symbols[0] = _mm256_shuffle_epi8(table, symbols[0]);
        symbols[1] = _mm256_shuffle_epi8(table, symbols[1]);
        if (near && count > 0) {
            raw = add_seconds(symbols, bits, at, count, escaped, seconds);
            at += 4 * count;
        }
        emit(r, symbols, raw, base, &rest, group, to, kind);
        if (!near) {
            r->second = at;
            patch_seconds(r, escaped, base, kind, to);
            at = r->second;
        }
    }
    r->codes = codes;
    r->second = at;
    r->tile = tile;
    return group;
}

TARGET static size_t fixed_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                                  uint8_t *out)
{
    RETURN_BY_KIND(kind_of(rest), fixed_loop, r, groups, rest, out);
}

/* ------------------------------------------------------------------------------------- encoding */

/* Planes are too short for a processor to see that it goes on. */
INLINE void fetch_ahead(const struct wf_writer *w, size_t group)
{
    for (uint32_t line = 0; line < w->ahead_lines; line++)
        _mm_prefetch((const char *)w->ahead + 64 * (group * w->ahead_lines + line), _MM_HINT_T1);
}

/* What gives each value its rank: one more than it, so that 0 is none. */
struct ranks {
    __m256i window, table[2], none, of_zero;
};

INLINE struct ranks ranks_of(const struct wf_symbols *s)
{
    const __m256i one = _mm256_set1_epi8(1);
    return (struct ranks){
        .window = _mm256_set1_epi8((char)s->window),
        .table = {_mm256_add_epi8(table_of_16(s->rank), one),
                  _mm256_add_epi8(table_of_16(s->rank + 16), one)},
        .none = _mm256_set1_epi8((char)s->symbols),
        .of_zero = _mm256_set1_epi8((char)s->zero),
    };
}

INLINE __m256i rank(const struct ranks *t, __m256i symbols)
{
    __m256i d = _mm256_sub_epi8(symbols, t->window), ranks = _mm256_setzero_si256();
    for (unsigned i = 0; i < 2; i++) {
        /* What is not of these 16 gets the bit by which a shuffle answers 0. */
        __m256i at = _mm256_adds_epu8(_mm256_xor_si256(d, _mm256_set1_epi8((char)(16 * i))),
                                      _mm256_set1_epi8(0x70));
        ranks = _mm256_or_si256(ranks, _mm256_shuffle_epi8(t->table[i], at));
    }
    ranks = _mm256_min_epu8(_mm256_sub_epi8(ranks, _mm256_set1_epi8(1)), t->none);
    return _mm256_blendv_epi8(ranks, t->of_zero,
                              _mm256_cmpeq_epi8(symbols, _mm256_setzero_si256()));
}

/* 16 entries of a byte each, by the low four bits of each 32. */
INLINE __m256i look_up(__m256i table, __m256i at)
{
    return _mm256_and_si256(_mm256_shuffle_epi8(table, _mm256_and_si256(at, _mm256_set1_epi32(15))),
                            _mm256_set1_epi32(0xff));
}

/* Two symbols of eight lanes; ranks are in the low four bits of each 32. */
INLINE __m256i encode_two(__m256i state, __m256i codes, __m256i lengths, __m256i first,
                          __m256i second, uint8_t **words)
{
    __m256i length = look_up(lengths, first);
    __m256i code = _mm256_or_si256(_mm256_sllv_epi32(look_up(codes, second), length),
                                   look_up(codes, first));
    length = _mm256_add_epi32(length, look_up(lengths, second));
    __m256i over = _mm256_srlv_epi32(state, _mm256_sub_epi32(_mm256_set1_epi32(32), length));
    __m256i fits = _mm256_cmpeq_epi32(over, _mm256_setzero_si256());
    unsigned mask = 255u ^ (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(fits));
    unsigned count = (unsigned)__builtin_popcount(mask);
    /* Those who shift out a word, at the upper end of eight of which the others are written over.
     */
    uint64_t from = _pext_u64(0x0706050403020100u, spread(mask));
    from = count ? from << 8 * (8 - count) : 0;
    __m256i out = _mm256_permutevar8x32_epi32(state, bytes_to_dwords(from));
    out = _mm256_and_si256(out, _mm256_set1_epi32(0xffff));
    __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(out),
                                      _mm256_extracti128_si256(out, 1));
    _mm_storeu_si128((__m128i *)(void *)(*words - 16), narrow);
    *words -= 2 * count;
    state = _mm256_blendv_epi8(_mm256_srli_epi32(state, 16), state, fits);
    return _mm256_or_si256(_mm256_sllv_epi32(state, length), code);
}

TARGET static void entropy_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    const struct wf_symbols *s = w->symbols;
    struct ranks table = ranks_of(s);
    __m256i state[2] = {load_32(w->state), load_32(w->state + 8)};
    __m256i codes = table_of_16(s->code), lengths = table_of_16(s->length);
    uint8_t *words = w->codes;
    for (size_t group = groups; group-- > 0;) {
        const uint8_t *in = symbols + group * WF_GROUP;
        fetch_ahead(w, group);
        __m256i r[2];
        uint64_t escaped = 0;
        for (unsigned half = 0; half < 2; half++) {
            r[half] = rank(&table, load_32(in + 32 * half));
            uint32_t mask = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(r[half], table.none));
            escaped |= (uint64_t)mask << 32 * half;
        }
        if (__builtin_expect(escaped != 0, 0))
            put_escapes(w, escaped, in);
        for (unsigned half = 2; half-- > 0;)
            state[half] = encode_two(state[half], codes, lengths, _mm256_srli_epi32(r[half], 16),
                                     _mm256_srli_epi32(r[half], 24), &words);
        for (unsigned half = 2; half-- > 0;)
            state[half] = encode_two(state[half], codes, lengths, r[half],
                                     _mm256_srli_epi32(r[half], 8), &words);
    }
    store_32(w->state, state[0]);
    store_32(w->state + 8, state[1]);
    w->codes = words;
}

/* The bit of each byte. */
INLINE uint64_t plane_of(const __m256i bytes[2], uint32_t bit)
{
    __m128i shift = _mm_cvtsi32_si128(7 - (int)bit);
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(bytes[0], shift));
    uint32_t high = (uint32_t)_mm256_movemask_epi8(_mm256_sll_epi16(bytes[1], shift));
    return low | (uint64_t)high << 32;
}

TARGET static void fixed_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    const struct wf_symbols *s = w->symbols;
    struct ranks table = ranks_of(s);
    uint32_t last = (1u << s->width) - 1, direct = last < s->symbols ? last : s->symbols;
    for (size_t group = 0; group < groups; group++) {
        const uint8_t *in = symbols + group * WF_GROUP;
        fetch_ahead(w, group);
        __m256i code[2], second[2], over[2], none[2];
        for (unsigned half = 0; half < 2; half++) {
            __m256i r = rank(&table, load_32(in + 32 * half));
            over[half] = _mm256_cmpeq_epi8(_mm256_max_epu8(r, _mm256_set1_epi8((char)direct)), r);
            none[half] = _mm256_cmpeq_epi8(r, table.none);
            code[half] = _mm256_or_si256(r, over[half]);
            second[half] = _mm256_or_si256(_mm256_sub_epi8(r, _mm256_set1_epi8((char)last)),
                                           none[half]);
        }
        uint64_t planes[4] = {0}, escaped = plane_of(over, 7);
        uint64_t count = (uint64_t)__builtin_popcountll(escaped);
        for (uint32_t bit = 0; bit < s->width; bit++)
            planes[bit] = plane_of(code, bit);
        memcpy(w->codes, planes, 8 * s->width);
        w->codes += 8 * s->width;
        for (uint32_t bit = 0; bit < 4; bit++)
            planes[bit] = _pext_u64(plane_of(second, bit), escaped);
        put_seconds(w, planes, count);
        put_bytes(w, plane_of(none, 7), in);
    }
}

INLINE __m256i narrow(__m256i first, __m256i second)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xd8);
}

/* The bytes from bit `shift` on of 32 elements of 16 bits. */
INLINE __m256i byte_of_two(const uint8_t *plain, int shift)
{
    const __m256i byte = _mm256_set1_epi16(0xff);
    return narrow(_mm256_and_si256(_mm256_srli_epi16(load_32(plain), shift), byte),
                  _mm256_and_si256(_mm256_srli_epi16(load_32(plain + 32), shift), byte));
}

/* 32 elements of 32 bits below 256 → bytes in order. */
INLINE __m256i narrow_four(const __m256i x[4])
{
    __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(x[0], x[1]),
                                        _mm256_packus_epi32(x[2], x[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

INLINE __m256i byte_of_four(const uint8_t *plain, int shift)
{
    __m256i x[4];
    for (unsigned i = 0; i < 4; i++)
        x[i] = _mm256_and_si256(_mm256_srli_epi32(load_32(plain + 32 * i), shift),
                                _mm256_set1_epi32(0xff));
    return narrow_four(x);
}

INLINE __m256i field_of(__m256i bytes, int shift, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes, shift), _mm256_set1_epi8((char)mask));
}

INLINE void symbols_loop(size_t groups, const uint8_t *plain, uint8_t *out, int kind)
{
    size_t step = kind_bytes(kind) / 2;
    for (size_t i = 0; i < 2 * groups; i++, plain += step, out += 32) {
        switch (kind) {
        case WEFT_F32: store_32(out, byte_of_four(plain, 23)); break;
        case WEFT_F16: store_32(out, field_of(byte_of_two(plain, 8), 2, 31)); break;
        case WEFT_BF16: store_32(out, byte_of_two(plain, 7)); break;
        case WEFT_FP8_E4M3: store_32(out, field_of(load_32(plain), 3, 15)); break;
        case WEFT_FP8_E5M2: store_32(out, field_of(load_32(plain), 2, 31)); break;
        default: store_32(out, field_of(load_32(plain), 4, 15));
        }
    }
}

TARGET static void split_symbols(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                                 uint8_t *out)
{
    RETURN_BY_KIND((int)dtype, symbols_loop, groups, plain, out);
}

/* Low bits and the sign of a group, as bit planes. */
INLINE void put_planes(const __m256i bytes[2], uint32_t lows, bool sign, uint8_t *out)
{
    for (uint32_t bit = 0; bit < lows + sign; bit++) {
        uint64_t plane = plane_of(bytes, bit == lows ? 7 : bit);
        memcpy(out + 8 * bit, &plane, sizeof plane);
    }
}

/* In each 16 bits, the sign beside the mantissa. */
INLINE __m256i sign_and_mantissa(__m256i x)
{
    return _mm256_and_si256(bits_of(_mm256_srli_epi16(x, 8), x, _mm256_set1_epi16(0x7f)),
                            _mm256_set1_epi16(0xff));
}

INLINE __m256i tops_of_two(const uint8_t *plain)
{
    return narrow(sign_and_mantissa(load_32(plain)), sign_and_mantissa(load_32(plain + 32)));
}

INLINE __m256i tops_of_four(const uint8_t *plain)
{
    __m256i x[4];
    for (unsigned i = 0; i < 4; i++)
        x[i] = sign_and_mantissa(_mm256_srli_epi32(load_32(plain + 32 * i), 16));
    return narrow_four(x);
}

INLINE void rest_loop(size_t groups, const uint8_t *plain, uint8_t *const parts[WF_PARTS_MAX],
                      int kind)
{
    size_t step = kind_bytes(kind) / 2;
    for (size_t i = 0; i < groups; i++) {
        __m256i bytes[2];
        for (size_t half = 0; half < 2; half++, plain += step) {
            size_t at = WF_GROUP * i + 32 * half;
            switch (kind) {
            case WEFT_F32:
                store_32(parts[0] + at, tops_of_four(plain));
                store_32(parts[1] + at, byte_of_four(plain, 0));
                store_32(parts[2] + at, byte_of_four(plain, 8));
                break;
            case WEFT_F16:
                store_32(parts[1] + at, byte_of_two(plain, 0));
                bytes[half] = byte_of_two(plain, 8);
                break;
            case WEFT_BF16: store_32(parts[0] + at, tops_of_two(plain)); break;
            default: bytes[half] = load_32(plain);
            }
        }
        if (kind == WEFT_F16 || kind == WEFT_FP8_E5M2)
            put_planes(bytes, 2, true, parts[0] + 24 * i);
        else if (kind == WEFT_FP8_E4M3)
            put_planes(bytes, 3, true, parts[0] + 32 * i);
        else if (kind == WEFT_INT8)
            put_planes(bytes, 4, false, parts[0] + 32 * i);
    }
}

TARGET static void split_rest(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                              uint8_t *const parts[WF_PARTS_MAX])
{
    RETURN_BY_KIND((int)dtype, rest_loop, groups, plain, parts);
}

TARGET static void subtract(const struct wf_tile *given, size_t groups, uint8_t *symbols)
{
    struct wf_tile tile = *given;
    for (size_t group = 0; group < groups; group++, symbols += WF_GROUP) {
        const uint8_t *base = wf_tile_next(&tile);
        for (unsigned half = 0; half < WF_GROUP; half += 32)
            store_32(symbols + half,
                     _mm256_sub_epi8(load_32(symbols + half), load_32(base + half)));
    }
}

/* The four quarters of 64 bits, or the two halves. */
INLINE uint64_t sum_of(__m256i quads)
{
    __m128i both = _mm_add_epi64(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
    both = _mm_add_epi64(both, _mm_unpackhi_epi64(both, both));
    return (uint64_t)_mm_cvtsi128_si64(both);
}

INLINE __m256i quads_of(__m256i dwords)
{
    return _mm256_add_epi64(_mm256_and_si256(dwords, _mm256_set1_epi64x(UINT32_MAX)),
                            _mm256_srli_epi64(dwords, 32));
}

TARGET static void means(const struct wf_plane *plane, const uint8_t *symbols, unsigned shift,
                         struct wf_means *out)
{
    uint32_t channels = plane->heads * plane->head_dim, whole = channels / 16 * 16;
    __m256i sum = _mm256_setzero_si256(), squares = sum;
    __m128i least = _mm_set1_epi8(-1), most = _mm_setzero_si128();
    for (uint32_t c = 0; c < whole; c += 16) {
        __m256i sums = _mm256_setzero_si256();
        for (uint32_t i = 0; i < 1u << shift; i++) {
            const uint8_t *in = row_of(plane, symbols, i, shift) + c;
            __m128i some = _mm_loadu_si128((const __m128i *)(const void *)in);
            sums = _mm256_add_epi16(sums, _mm256_cvtepu8_epi16(some));
        }
        sum = _mm256_add_epi64(sum, quads_of(_mm256_madd_epi16(sums, _mm256_set1_epi16(1))));
        squares = _mm256_add_epi64(squares, quads_of(_mm256_madd_epi16(sums, sums)));
        sums = _mm256_add_epi16(sums, _mm256_set1_epi16((short)(1 << shift >> 1)));
        sums = _mm256_srl_epi16(sums, _mm_cvtsi32_si128((int)shift));
        __m128i mean = _mm_packus_epi16(_mm256_castsi256_si128(sums),
                                        _mm256_extracti128_si256(sums, 1));
        _mm_storeu_si128((__m128i *)(void *)(out->mean + c), mean);
        least = _mm_min_epu8(least, mean);
        most = _mm_max_epu8(most, mean);
    }
    uint8_t lowest[16], highest[16];
    _mm_storeu_si128((__m128i *)(void *)lowest, least);
    _mm_storeu_si128((__m128i *)(void *)highest, most);
    for (unsigned i = 0; i < 16; i++) {
        out->least = lowest[i] < out->least ? lowest[i] : out->least;
        out->most = highest[i] > out->most ? highest[i] : out->most;
    }
    out->sum += sum_of(sum);
    out->squares += sum_of(squares);
    means_from(whole, plane, symbols, shift, out);
}

TARGET static uint32_t count(size_t groups, const uint32_t *places, const uint8_t *symbols,
                             uint8_t window, uint16_t counts[WF_WINDOW])
{
    uint32_t left = (uint32_t)(groups * WF_GROUP);
    memset(counts, 0, WF_WINDOW * sizeof *counts);
    for (uint32_t step = 0; step < WF_WINDOW && left > 0; step++) {
        uint32_t at = wf_window_at(step);
        __m256i value = _mm256_set1_epi8((char)(window + at)), seen = _mm256_setzero_si256();
        for (size_t i = 0; i < groups; i++) { /* a byte counts to twice WF_SAMPLE_GROUPS */
            const uint8_t *in = symbols + places[i];
            seen = _mm256_sub_epi8(seen, _mm256_cmpeq_epi8(load_32(in), value));
            seen = _mm256_sub_epi8(seen, _mm256_cmpeq_epi8(load_32(in + 32), value));
        }
        counts[at] = (uint16_t)sum_of(_mm256_sad_epu8(seen, _mm256_setzero_si256()));
        left -= counts[at];
    }
    return (uint32_t)(groups * WF_GROUP) - left;
}

const struct wf_lossless_kernels wf_lossless_avx2 = {
    .entropy_decode = entropy_decode,
    .fixed_decode = fixed_decode,
    .entropy_encode = entropy_encode,
    .fixed_encode = fixed_encode,
    .symbols = split_symbols,
    .rest = split_rest,
    .subtract = subtract,
    .means = means,
    .count = count,
};

#endif
