/* SPDX-License-Identifier: Apache-2.0
 *
 * The lossless kernels of AVX-512: 64 symbols in a register, 16 lanes in another.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "codec/lossless_inner.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* (mask & x) | (~mask & y) */
#define SELECT(mask, x, y) _mm512_ternarylogic_epi64((mask), (x), (y), 0xca)

/* A weight for each bit that is set. */
INLINE __m512i add_plane(__m512i bytes, uint64_t plane, uint32_t bit)
{
    return _mm512_mask_add_epi8(bytes, plane, bytes, _mm512_set1_epi8((char)(1u << bit)));
}

/* Low and high bytes of 64 elements of 16 bits. */
INLINE void interleave(__m512i low, __m512i high, uint8_t *out)
{
    /* So that what the interleaving of each 128 bits leaves is in order. */
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    low = _mm512_permutexvar_epi64(order, low);
    high = _mm512_permutexvar_epi64(order, high);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi8(low, high));
    _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi8(low, high));
}

/* Of 16 dwords those of each fourth place, and the way back. */
INLINE __m512i transposed(__m512i dwords)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, dwords);
}

/* The four bytes of 64 elements, from the lowest. */
INLINE void interleave_four(__m512i b0, __m512i b1, __m512i b2, __m512i b3, uint8_t *out)
{
    b0 = transposed(b0), b1 = transposed(b1), b2 = transposed(b2), b3 = transposed(b3);
    __m512i low = _mm512_unpacklo_epi8(b0, b1), high = _mm512_unpacklo_epi8(b2, b3);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi16(low, high));
    _mm512_storeu_si512(out + 64, _mm512_unpackhi_epi16(low, high));
    low = _mm512_unpackhi_epi8(b0, b1), high = _mm512_unpackhi_epi8(b2, b3);
    _mm512_storeu_si512(out + 128, _mm512_unpacklo_epi16(low, high));
    _mm512_storeu_si512(out + 192, _mm512_unpackhi_epi16(low, high));
}

/* Symbols, shifted to their `field` of each byte, and bit planes: the low bits, and above them the
 * sign where the field leaves room for it. */
INLINE __m512i merge_planes(__m512i shifted, int field, uint32_t lows, const uint8_t *planes)
{
    __m512i bytes = _mm512_and_si512(shifted, _mm512_set1_epi8((char)field));
    for (uint32_t bit = 0; bit < lows; bit++)
        bytes = add_plane(bytes, load_64(planes + 8 * bit), bit);
    return field & 0x80 ? bytes : add_plane(bytes, load_64(planes + 8 * lows), 7);
}

/* Symbols and the rest → the elements of a group. */
INLINE void merge(__m512i symbols, const struct wf_rest *rest, size_t group, uint8_t *out, int kind)
{
    const uint8_t *top = rest->part[0];
    const __m512i sign = _mm512_set1_epi8((char)0x80);
    __m512i odd = _mm512_slli_epi16(symbols, 7), upper = _mm512_srli_epi16(symbols, 1);
    switch (kind) {
    case WEFT_F32: {
        __m512i sm = _mm512_loadu_si512(top + group * WF_GROUP);
        interleave_four(_mm512_loadu_si512(rest->part[1] + group * WF_GROUP),
                        _mm512_loadu_si512(rest->part[2] + group * WF_GROUP), SELECT(sign, odd, sm),
                        SELECT(sign, sm, upper), out);
        break;
    }
    case WEFT_BF16: {
        __m512i sm = _mm512_loadu_si512(top + group * WF_GROUP);
        interleave(SELECT(sign, odd, sm), SELECT(sign, sm, upper), out);
        break;
    }
    case WEFT_F16:
        interleave(_mm512_loadu_si512(rest->part[1] + group * WF_GROUP),
                   merge_planes(_mm512_slli_epi16(symbols, 2), 0x7c, 2, top + group * 24), out);
        break;
    case WEFT_FP8_E4M3:
        _mm512_storeu_si512(out,
                            merge_planes(_mm512_slli_epi16(symbols, 3), 0x78, 3, top + group * 32));
        break;
    case WEFT_FP8_E5M2:
        _mm512_storeu_si512(out,
                            merge_planes(_mm512_slli_epi16(symbols, 2), 0x7c, 2, top + group * 24));
        break;
    case WEFT_INT8:
        _mm512_storeu_si512(out,
                            merge_planes(_mm512_slli_epi16(symbols, 4), 0xf0, 4, top + group * 32));
        break;
    default: _mm512_storeu_si512(out, symbols);
    }
}

/* Values of a group go out, by themselves or as elements; then what was escaped as bytes. */
INLINE void emit(struct wf_reader *r, __m512i values, uint64_t escaped, const uint8_t *base,
                 const struct wf_rest *rest, size_t group, uint8_t *out, int kind)
{
    merge(_mm512_add_epi8(values, _mm512_loadu_si512(base)), rest, group, out, kind);
    if (__builtin_expect(escaped != 0, 0))
        patch(r, escaped, base, kind, out);
}

INLINE __m512i table_of_16(const uint8_t *bytes)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)bytes));
}

/* What a state waits for is the length of its code alone, and five bits tell that: the two codes
 * that six bits tell apart are of one length.  Which symbol it was is looked up for 64 at once. */
struct decoder {
    __m512i state, length[2], rank[4];
    const uint8_t *words;
};

INLINE struct decoder decoder_of(const struct wf_reader *r)
{
    struct decoder d = {.state = _mm512_loadu_si512(r->state), .words = r->codes};
    const uint8_t *entries = r->symbols->decode;
    const __m512i four = _mm512_set1_epi8(15);
    __m512i lengths = _mm512_and_si512(_mm512_loadu_si512(entries), four);
    d.length[0] = _mm512_cvtepu8_epi32(_mm512_castsi512_si128(lengths));
    d.length[1] = _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(lengths, 1));
    __m512i ranks = _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(entries), 4), four);
    d.rank[0] = _mm512_shuffle_i32x4(ranks, ranks, 0x00);
    d.rank[1] = _mm512_shuffle_i32x4(ranks, ranks, 0x55);
    d.rank[2] = _mm512_shuffle_i32x4(ranks, ranks, 0xaa);
    d.rank[3] = _mm512_shuffle_i32x4(ranks, ranks, 0xff);
    return d;
}

/* Each lane's next code is taken off; what comes back has it in its low six bits. */
INLINE __m512i decode_step(struct decoder *d)
{
    __m512i state = d->state;
    d->state = _mm512_srlv_epi32(state,
                                 _mm512_permutex2var_epi32(d->length[0], state, d->length[1]));
    return state;
}

INLINE void refill(struct decoder *d)
{
    __mmask16 empty = _mm512_cmplt_epu32_mask(d->state, _mm512_set1_epi32((int)WF_STATE_LEAST));
    __m512i words = _mm512_cvtepu16_epi32(
        _mm256_loadu_si256((const __m256i *)(const void *)d->words));
    d->state = _mm512_mask_or_epi32(d->state, empty, _mm512_slli_epi32(d->state, 16),
                                    _mm512_maskz_expand_epi32(empty, words));
    d->words += 2 * (unsigned)__builtin_popcount(empty);
}

/* The codes of four steps → 64 ranks in order. */
INLINE __m512i ranks_of_codes(const struct decoder *d, __m512i e0, __m512i e1, __m512i e2,
                              __m512i e3)
{
    __m512i low = SELECT(_mm512_set1_epi32(0xff), e0, _mm512_slli_epi32(e1, 8));
    __m512i high = SELECT(_mm512_set1_epi32(0xff0000), _mm512_slli_epi32(e2, 16),
                          _mm512_slli_epi32(e3, 24));
    __m512i codes = SELECT(_mm512_set1_epi32(0xffff), low, high);
    codes = _mm512_and_si512(codes, _mm512_set1_epi8((char)(WF_CODE_ENTRIES - 1)));
    __mmask64 odd = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(16));
    __mmask64 upper = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(32));
    low = _mm512_shuffle_epi8(d->rank[0], codes);
    low = _mm512_mask_shuffle_epi8(low, odd, d->rank[1], codes);
    high = _mm512_shuffle_epi8(d->rank[2], codes);
    high = _mm512_mask_shuffle_epi8(high, odd, d->rank[3], codes);
    return _mm512_mask_mov_epi8(low, upper, high);
}

INLINE size_t entropy_loop(struct wf_reader *r, size_t groups, const struct wf_rest *given,
                           uint8_t *out, int kind)
{
    const struct wf_symbols *s = r->symbols;
    struct wf_rest rest = kind == SYMBOLS_ALONE ? (struct wf_rest){0} : *given;
    struct decoder d = decoder_of(r);
    __m512i values = table_of_16(s->value), escape = _mm512_set1_epi8((char)s->symbols);
    struct wf_tile tile = r->tile;
    const uint8_t *limit = r->limit;
    size_t group = 0;
    /* Two refills of a group read at most 64 bytes. */
    for (; group < groups && limit - d.words >= 64; group++) {
        __m512i e0 = decode_step(&d), e1 = decode_step(&d);
        refill(&d);
        __m512i e2 = decode_step(&d), e3 = decode_step(&d);
        refill(&d);
        __m512i ranks = ranks_of_codes(&d, e0, e1, e2, e3);
        emit(r, _mm512_shuffle_epi8(values, ranks), _mm512_cmpeq_epi8_mask(ranks, escape),
             wf_tile_next(&tile), &rest, group, out + group * kind_bytes(kind), kind);
    }
    _mm512_storeu_si512(r->state, d.state);
    r->codes = d.words;
    r->tile = tile;
    return group;
}

TARGET static size_t entropy_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                                    uint8_t *out)
{
    RETURN_BY_KIND(kind_of(rest), entropy_loop, r, groups, rest, out);
}

/* Second codes of what was escaped, from bit `at` on, to the places of `escaped`; *raw: what
 * follows as a byte. */
INLINE __m512i second_ranks(const uint8_t *bits, uint64_t at, uint64_t count, uint64_t escaped,
                            uint64_t *raw)
{
    __m512i ranks = _mm512_setzero_si512();
    *raw = escaped;
    for (uint32_t bit = 0; bit < 4; bit++, at += count) {
        uint64_t plane = _pdep_u64(load_64(bits + at / 8) >> at % 8, escaped);
        ranks = add_plane(ranks, plane, bit);
        *raw &= plane;
    }
    return ranks;
}

INLINE size_t fixed_loop(struct wf_reader *r, size_t groups, const struct wf_rest *given,
                         uint8_t *out, uint32_t width, int kind)
{
    const struct wf_symbols *s = r->symbols;
    struct wf_rest rest = kind == SYMBOLS_ALONE ? (struct wf_rest){0} : *given;
    uint8_t direct[16] = {0}, second[16] = {0};
    memcpy(direct, s->value, (1u << width) - 1);
    memcpy(second, s->value + (1u << width) - 1, WF_SECOND_RAW);
    __m512i values = table_of_16(direct), seconds = table_of_16(second);
    /* A load is done even where nothing was escaped. */
    static const uint8_t nothing[8];
    const uint8_t *codes = r->codes, *end = r->codes_end,
                  *bits = r->limit - r->seconds < 8 ? nothing : r->seconds;
    uint64_t at = r->second, last = last_second(r);
    struct wf_tile tile = r->tile;
    size_t group = 0;
    for (; group < groups && end - codes >= (ptrdiff_t)(8 * width); group++) {
        __m512i ranks = _mm512_setzero_si512();
        uint64_t escaped = ~0ull, raw = 0;
        for (uint32_t bit = 0; bit < width; bit++) {
            uint64_t plane = load_64(codes + 8 * bit);
            escaped &= plane;
            ranks = add_plane(ranks, plane, bit);
        }
        codes += 8 * width;
        uint64_t count = (uint64_t)__builtin_popcountll(escaped);
        bool near = count <= WF_SECONDS_NEAR && at + 4 * count <= last;
        const uint8_t *base = wf_tile_next(&tile);
        uint8_t *to = out + group * kind_bytes(kind);
        __m512i symbols = _mm512_shuffle_epi8(values, ranks);
        if (__builtin_expect(near, 1)) {
            ranks = second_ranks(bits, at, count, escaped, &raw);
            symbols = _mm512_mask_shuffle_epi8(symbols, escaped, seconds, ranks);
            at += 4 * count;
        }
        emit(r, symbols, raw, base, &rest, group, to, kind);
        if (__builtin_expect(!near, 0)) {
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

INLINE size_t fixed_by_kind(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                            uint8_t *out, uint32_t width)
{
    RETURN_BY_KIND(kind_of(rest), fixed_loop, r, groups, rest, out, width);
}

TARGET static size_t fixed_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                                  uint8_t *out)
{
    switch (r->symbols->width) {
    case 1: return fixed_by_kind(r, groups, rest, out, 1);
    case 2: return fixed_by_kind(r, groups, rest, out, 2);
    case 3: return fixed_by_kind(r, groups, rest, out, 3);
    default: return fixed_by_kind(r, groups, rest, out, 4);
    }
}

/* ------------------------------------------------------------------------------------- encoding */

/* Planes are too short for a processor to see that it goes on. */
INLINE void fetch_ahead(const struct wf_writer *w, size_t group)
{
    for (uint32_t line = 0; line < w->ahead_lines; line++)
        _mm_prefetch((const char *)w->ahead + 64 * (group * w->ahead_lines + line), _MM_HINT_T1);
}

/* What gives each value its rank: those of the window in two registers, and that of 0. */
struct ranks {
    __m512i window, table[2], none, of_zero;
};

INLINE struct ranks ranks_of(const struct wf_symbols *s)
{
    return (struct ranks){
        .window = _mm512_set1_epi8((char)s->window),
        .table = {table_of_16(s->rank), table_of_16(s->rank + 16)},
        .none = _mm512_set1_epi8((char)s->symbols),
        .of_zero = _mm512_set1_epi8((char)s->zero),
    };
}

INLINE __m512i rank(const struct ranks *t, __m512i symbols)
{
    __m512i d = _mm512_sub_epi8(symbols, t->window);
    __mmask64 upper = _mm512_test_epi8_mask(d, _mm512_set1_epi8(16));
    __mmask64 outside = _mm512_cmpge_epu8_mask(d, _mm512_set1_epi8((char)WF_WINDOW));
    __m512i ranks = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(t->table[0], d), upper,
                                             t->table[1], d);
    ranks = _mm512_mask_mov_epi8(ranks, outside, t->none);
    return _mm512_mask_mov_epi8(ranks, _mm512_testn_epi8_mask(symbols, symbols), t->of_zero);
}

/* 16 lanes, and by rank: the code, its length, and 2 to the power of that. */
struct encoder {
    __m512i state, code, length, power;
    uint8_t *words;
};

INLINE struct encoder encoder_of(const struct wf_writer *w)
{
    const struct wf_symbols *s = w->symbols;
    __m128i length = _mm_loadu_si128((const __m128i *)(const void *)s->length);
    const __m128i powers = _mm_setr_epi8(1, 2, 4, 8, 16, 32, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return (struct encoder){
        .state = _mm512_loadu_si512(w->state),
        .code = table_of_16(s->code),
        .length = _mm512_broadcast_i32x4(length),
        .power = _mm512_broadcast_i32x4(_mm_shuffle_epi8(powers, length)),
        .words = w->codes,
    };
}

/* Two symbols of each lane, together a code of at most 12 bits. */
INLINE void encode_two(struct encoder *e, __m512i code, __m512i length)
{
    __m512i over = _mm512_srlv_epi32(e->state, _mm512_sub_epi32(_mm512_set1_epi32(32), length));
    __mmask16 full = _mm512_test_epi32_mask(over, over);
    unsigned words = (unsigned)__builtin_popcount(full);
    e->words -= 2 * words;
    _mm256_mask_storeu_epi16(e->words, (__mmask16)((1u << words) - 1),
                             _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(full, e->state)));
    e->state = _mm512_mask_srli_epi32(e->state, full, e->state, 16);
    e->state = _mm512_or_si512(_mm512_sllv_epi32(e->state, length), code);
}

/* Four of each lane: of each two, the second's code goes above the first's. */
INLINE void encode_four(struct encoder *e, __m512i ranks)
{
    const __m512i one = _mm512_set1_epi16(1), low = _mm512_set1_epi32(0xffff);
    __m512i power = _mm512_shuffle_epi8(e->power, ranks);
    power = _mm512_or_si512(_mm512_slli_epi16(power, 8), one);
    __m512i code = _mm512_maddubs_epi16(_mm512_shuffle_epi8(e->code, ranks), power);
    __m512i length = _mm512_maddubs_epi16(_mm512_shuffle_epi8(e->length, ranks),
                                          _mm512_set1_epi8(1));
    encode_two(e, _mm512_srli_epi32(code, 16), _mm512_srli_epi32(length, 16));
    encode_two(e, _mm512_and_si512(code, low), _mm512_and_si512(length, low));
}

TARGET static void entropy_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    struct ranks table = ranks_of(w->symbols);
    struct encoder e = encoder_of(w);
    for (size_t group = groups; group-- > 0;) {
        const uint8_t *in = symbols + group * WF_GROUP;
        __m512i r = rank(&table, _mm512_loadu_si512(in));
        fetch_ahead(w, group);
        __mmask64 escaped = _mm512_cmpeq_epi8_mask(r, table.none);
        if (__builtin_expect(escaped != 0, 0))
            put_escapes(w, escaped, in);
        encode_four(&e, r);
    }
    _mm512_storeu_si512(w->state, e.state);
    w->codes = e.words;
}

/* Those of the planes of second codes that are kept together. */
INLINE uint64_t gather_bits(__m512i bytes, uint32_t bit, uint64_t which)
{
    return _pext_u64(_mm512_test_epi8_mask(bytes, _mm512_set1_epi8((char)(1u << bit))), which);
}

INLINE void fixed_loop_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols,
                              uint32_t width)
{
    const struct wf_symbols *s = w->symbols;
    struct ranks table = ranks_of(s);
    uint8_t *codes = w->codes;
    uint32_t last = (1u << width) - 1, direct = last < s->symbols ? last : s->symbols;
    for (size_t group = 0; group < groups; group++) {
        const uint8_t *in = symbols + group * WF_GROUP;
        __m512i r = rank(&table, _mm512_loadu_si512(in));
        fetch_ahead(w, group);
        __mmask64 escaped = _mm512_cmpge_epu8_mask(r, _mm512_set1_epi8((char)direct));
        __mmask64 raw = _mm512_cmpeq_epi8_mask(r, table.none);
        __m512i second = _mm512_sub_epi8(r, _mm512_set1_epi8((char)last));
        second = _mm512_mask_mov_epi8(second, raw, _mm512_set1_epi8(WF_SECOND_RAW));
        r = _mm512_mask_mov_epi8(r, escaped, _mm512_set1_epi8(15));
        for (uint32_t bit = 0; bit < width; bit++) {
            uint64_t plane = _mm512_test_epi8_mask(r, _mm512_set1_epi8((char)(1u << bit)));
            memcpy(codes, &plane, sizeof plane);
            codes += sizeof plane;
        }
        uint64_t planes[4], count = (uint64_t)__builtin_popcountll(escaped);
        for (uint32_t bit = 0; bit < 4; bit++)
            planes[bit] = gather_bits(second, bit, escaped);
        if (__builtin_expect(count <= 14, 1))
            put_bits(w,
                     planes[0] | planes[1] << count | planes[2] << 2 * count |
                         planes[3] << 3 * count,
                     4 * count);
        else
            put_seconds(w, planes, count);
        if (__builtin_expect(raw != 0, 0))
            put_bytes(w, raw, in);
    }
    w->codes = codes;
}

TARGET static void fixed_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    switch (w->symbols->width) {
    case 1: fixed_loop_encode(w, groups, symbols, 1); break;
    case 2: fixed_loop_encode(w, groups, symbols, 2); break;
    case 3: fixed_loop_encode(w, groups, symbols, 3); break;
    default: fixed_loop_encode(w, groups, symbols, 4);
    }
}

TARGET static void subtract(const struct wf_tile *given, size_t groups, uint8_t *symbols)
{
    struct wf_tile tile = *given;
    for (size_t group = 0; group < groups; group++, symbols += WF_GROUP)
        _mm512_storeu_si512(symbols, _mm512_sub_epi8(_mm512_loadu_si512(symbols),
                                                     _mm512_loadu_si512(wf_tile_next(&tile))));
}

TARGET static void means(const struct wf_plane *plane, const uint8_t *symbols, unsigned shift,
                         struct wf_means *out)
{
    uint32_t channels = plane->heads * plane->head_dim, whole = channels / 32 * 32;
    __m512i sum = _mm512_setzero_si512(), squares = sum, low = _mm512_set1_epi64(UINT32_MAX);
    __m256i least = _mm256_set1_epi8(-1), most = _mm256_setzero_si256();
    for (uint32_t c = 0; c < whole; c += 32) {
        __m512i sums = _mm512_setzero_si512();
        for (uint32_t i = 0; i < 1u << shift; i++) {
            const uint8_t *in = row_of(plane, symbols, i, shift) + c;
            __m256i some = _mm256_loadu_si256((const __m256i *)(const void *)in);
            sums = _mm512_add_epi16(sums, _mm512_cvtepu8_epi16(some));
        }
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(sums, _mm512_set1_epi16(1)));
        __m512i two = _mm512_madd_epi16(sums, sums);
        two = _mm512_add_epi64(_mm512_and_si512(two, low), _mm512_srli_epi64(two, 32));
        squares = _mm512_add_epi64(squares, two);
        sums = _mm512_add_epi16(sums, _mm512_set1_epi16((short)(1 << shift >> 1)));
        __m256i mean = _mm512_cvtepi16_epi8(_mm512_srl_epi16(sums, _mm_cvtsi32_si128((int)shift)));
        _mm256_storeu_si256((__m256i *)(void *)(out->mean + c), mean);
        least = _mm256_min_epu8(least, mean);
        most = _mm256_max_epu8(most, mean);
    }
    uint8_t lowest[32], highest[32];
    _mm256_storeu_si256((__m256i *)(void *)lowest, least);
    _mm256_storeu_si256((__m256i *)(void *)highest, most);
    for (unsigned i = 0; i < 32; i++) {
        out->least = lowest[i] < out->least ? lowest[i] : out->least;
        out->most = highest[i] > out->most ? highest[i] : out->most;
    }
    out->sum += (uint32_t)_mm512_reduce_add_epi32(sum);
    out->squares += (uint64_t)_mm512_reduce_add_epi64(squares);
    means_from(whole, plane, symbols, shift, out);
}

INLINE uint32_t count_of(const uint8_t *symbols, __m512i value)
{
    return (uint32_t)__builtin_popcountll(
        _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(symbols), value));
}

TARGET static uint32_t count(size_t groups, const uint32_t *places, const uint8_t *symbols,
                             uint8_t window, uint16_t counts[WF_WINDOW])
{
    uint32_t left = (uint32_t)(groups * WF_GROUP);
    memset(counts, 0, WF_WINDOW * sizeof *counts);
    for (uint32_t step = 0; step < WF_WINDOW && left > 0; step++) {
        uint32_t at = wf_window_at(step), seen = 0;
        __m512i value = _mm512_set1_epi8((char)(window + at));
        for (size_t i = 0; i < groups; i += WF_COUNT_GROUPS)
            seen += count_of(symbols + places[i], value) +
                    count_of(symbols + places[i + 1], value) +
                    count_of(symbols + places[i + 2], value) +
                    count_of(symbols + places[i + 3], value);
        counts[at] = (uint16_t)seen;
        left -= seen;
    }
    return (uint32_t)(groups * WF_GROUP) - left;
}

/* 16-bit elements, the upper byte of each 0 → 64 bytes in order. */
INLINE __m512i narrow(__m512i first, __m512i second)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packus_epi16(first, second));
}

/* The same of 32-bit elements below 256. */
INLINE __m512i narrow_four(const __m512i x[4])
{
    return transposed(
        _mm512_packus_epi16(_mm512_packus_epi32(x[0], x[1]), _mm512_packus_epi32(x[2], x[3])));
}

INLINE __m512i byte_of_four(const __m512i x[4], unsigned shift)
{
    __m512i bytes[4];
    for (unsigned i = 0; i < 4; i++)
        bytes[i] = _mm512_and_si512(_mm512_srli_epi32(x[i], shift), _mm512_set1_epi32(0xff));
    return narrow_four(bytes);
}

/* Of 16-bit elements the upper bytes, or the lower ones. */
INLINE __m512i upper_bytes(const uint8_t *plain)
{
    return narrow(_mm512_srli_epi16(_mm512_loadu_si512(plain), 8),
                  _mm512_srli_epi16(_mm512_loadu_si512(plain + 64), 8));
}

INLINE __m512i lower_bytes(__m512i first, __m512i second)
{
    const __m512i byte = _mm512_set1_epi16(0xff);
    return narrow(_mm512_and_si512(first, byte), _mm512_and_si512(second, byte));
}

INLINE void load_four(const uint8_t *plain, __m512i x[4])
{
    for (unsigned i = 0; i < 4; i++)
        x[i] = _mm512_loadu_si512(plain + 64 * i);
}

INLINE __m512i field_of(__m512i shifted, int mask)
{
    return _mm512_and_si512(shifted, _mm512_set1_epi8((char)mask));
}

INLINE __m512i symbols_of(const uint8_t *plain, int kind)
{
    __m512i x[4];
    switch (kind) {
    case WEFT_F32: load_four(plain, x); return byte_of_four(x, 23);
    case WEFT_F16: return field_of(_mm512_srli_epi16(upper_bytes(plain), 2), 31);
    case WEFT_BF16:
        return lower_bytes(_mm512_srli_epi16(_mm512_loadu_si512(plain), 7),
                           _mm512_srli_epi16(_mm512_loadu_si512(plain + 64), 7));
    case WEFT_FP8_E4M3: return field_of(_mm512_srli_epi16(_mm512_loadu_si512(plain), 3), 15);
    case WEFT_FP8_E5M2: return field_of(_mm512_srli_epi16(_mm512_loadu_si512(plain), 2), 31);
    default: return field_of(_mm512_srli_epi16(_mm512_loadu_si512(plain), 4), 15);
    }
}

INLINE void symbols_loop(size_t groups, const uint8_t *plain, uint8_t *out, int kind)
{
    for (size_t i = 0; i < groups; i++)
        _mm512_storeu_si512(out + WF_GROUP * i, symbols_of(plain + kind_bytes(kind) * i, kind));
}

TARGET static void split_symbols(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                                 uint8_t *out)
{
    RETURN_BY_KIND((int)dtype, symbols_loop, groups, plain, out);
}

/* Low bits and the sign, as bit planes. */
INLINE void put_planes(__m512i bytes, uint32_t lows, bool sign, uint8_t *out)
{
    for (uint32_t bit = 0; bit < lows + sign; bit++) {
        uint64_t plane = bit == lows
                             ? _mm512_movepi8_mask(bytes)
                             : _mm512_test_epi8_mask(bytes, _mm512_set1_epi8((char)(1u << bit)));
        memcpy(out + 8 * bit, &plane, sizeof plane);
    }
}

/* Bytes of sign and mantissa, from elements of 32 bits. */
INLINE __m512i top_of_four(const __m512i x[4])
{
    __m512i top[4];
    for (unsigned i = 0; i < 4; i++) {
        top[i] = SELECT(_mm512_set1_epi32(0x7f), _mm512_srli_epi32(x[i], 16),
                        _mm512_srli_epi32(x[i], 24));
        top[i] = _mm512_and_si512(top[i], _mm512_set1_epi32(0xff));
    }
    return narrow_four(top);
}

/* In each 16 bits, the sign beside the mantissa. */
INLINE __m512i sign_and_mantissa(__m512i x)
{
    __m512i both = SELECT(_mm512_set1_epi16(0x7f), x, _mm512_srli_epi16(x, 8));
    return _mm512_and_si512(both, _mm512_set1_epi16(0xff));
}

INLINE void rest_loop(size_t groups, const uint8_t *plain, uint8_t *const parts[WF_PARTS_MAX],
                      int kind)
{
    uint8_t *top = parts[0], *const *lows = parts + 1;
    for (size_t i = 0; i < groups; i++, plain += kind_bytes(kind)) {
        __m512i x[4];
        switch (kind) {
        case WEFT_F32:
            load_four(plain, x);
            _mm512_storeu_si512(top + WF_GROUP * i, top_of_four(x));
            _mm512_storeu_si512(lows[0] + WF_GROUP * i, byte_of_four(x, 0));
            _mm512_storeu_si512(lows[1] + WF_GROUP * i, byte_of_four(x, 8));
            break;
        case WEFT_F16:
            put_planes(upper_bytes(plain), 2, true, top + 24 * i);
            _mm512_storeu_si512(lows[0] + WF_GROUP * i,
                                lower_bytes(_mm512_loadu_si512(plain),
                                            _mm512_loadu_si512(plain + 64)));
            break;
        case WEFT_BF16:
            _mm512_storeu_si512(top + WF_GROUP * i,
                                narrow(sign_and_mantissa(_mm512_loadu_si512(plain)),
                                       sign_and_mantissa(_mm512_loadu_si512(plain + 64))));
            break;
        case WEFT_FP8_E4M3: put_planes(_mm512_loadu_si512(plain), 3, true, top + 32 * i); break;
        case WEFT_FP8_E5M2: put_planes(_mm512_loadu_si512(plain), 2, true, top + 24 * i); break;
        default: put_planes(_mm512_loadu_si512(plain), 4, false, top + 32 * i);
        }
    }
}

TARGET static void split_rest(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                              uint8_t *const parts[WF_PARTS_MAX])
{
    RETURN_BY_KIND((int)dtype, rest_loop, groups, plain, parts);
}

const struct wf_lossless_kernels wf_lossless_avx512 = {
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
