/* SPDX-License-Identifier: Apache-2.0
 *
 * The lossless kernels as they are meant: one symbol after the other.  Every other set of kernels
 * answers as this one does, and leaves to it the groups at the end of what may be read.
 */
#include "codec/lossless_inner.h"

static void emit(struct wf_reader *r, uint64_t escaped, const uint8_t values[WF_GROUP],
                 const struct wf_rest *rest, size_t group, uint8_t *out)
{
    const uint8_t *base = wf_tile_next(&r->tile);
    uint8_t symbols[WF_GROUP];
    for (unsigned i = 0; i < WF_GROUP; i++)
        symbols[i] = (uint8_t)(values[i] + base[i]);
    if (r->seconds)
        patch_seconds(r, escaped, base, SYMBOLS_ALONE, symbols);
    else
        patch(r, escaped, base, SYMBOLS_ALONE, symbols);
    out += group * kind_bytes(kind_of(rest));
    if (!rest) {
        memcpy(out, symbols, WF_GROUP);
        return;
    }
    struct wf_rest here = wf_rest_from(rest, group);
    wf_merge(&here, WF_GROUP, symbols, out);
}

/* Those lanes whose state is too small shift in the next words. */
static bool refill(struct wf_reader *r)
{
    for (unsigned lane = 0; lane < WF_LANES; lane++) {
        if (r->state[lane] >= WF_STATE_LEAST)
            continue;
        uint16_t word;
        if (r->codes_end - r->codes < (ptrdiff_t)sizeof word)
            return false;
        memcpy(&word, r->codes, sizeof word);
        r->codes += sizeof word;
        r->state[lane] = r->state[lane] << 16 | word;
    }
    return true;
}

static size_t entropy_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                             uint8_t *out)
{
    const struct wf_symbols *s = r->symbols;
    for (size_t group = 0; group < groups; group++) {
        uint8_t values[WF_GROUP];
        uint64_t escaped = 0;
        for (unsigned step = 0; step < 4; step++) {
            for (unsigned lane = 0; lane < WF_LANES; lane++) {
                uint32_t entry = s->decode[r->state[lane] % WF_CODE_ENTRIES];
                uint32_t rank = entry >> 4;
                r->state[lane] >>= entry & 15;
                values[4 * lane + step] = s->value[rank];
                escaped |= (uint64_t)(rank == s->symbols) << (4 * lane + step);
            }
            if (step % 2 == 1 && !refill(r))
                return group;
        }
        emit(r, escaped, values, rest, group, out);
    }
    return groups;
}

static size_t fixed_decode(struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                           uint8_t *out)
{
    const struct wf_symbols *s = r->symbols;
    uint32_t last = (1u << s->width) - 1;
    for (size_t group = 0; group < groups; group++) {
        if (r->codes_end - r->codes < (ptrdiff_t)(8 * s->width))
            return group;
        uint8_t values[WF_GROUP], codes[WF_GROUP] = {0};
        uint64_t escaped = ~0ull;
        for (uint32_t bit = 0; bit < s->width; bit++) {
            uint64_t plane = load_64(r->codes);
            r->codes += 8;
            escaped &= plane;
            for (unsigned i = 0; i < WF_GROUP; i++)
                codes[i] = (uint8_t)(codes[i] | (plane >> i & 1) << bit);
        }
        for (unsigned i = 0; i < WF_GROUP; i++)
            values[i] = codes[i] == last ? 0 : s->value[codes[i]];
        emit(r, escaped, values, rest, group, out);
    }
    return groups;
}

static void encode_step(struct wf_writer *w, const uint8_t ranks[WF_GROUP], unsigned step)
{
    const struct wf_symbols *s = w->symbols;
    for (unsigned lane = WF_LANES; lane-- > 0;) {
        uint8_t first = ranks[4 * lane + step], second = ranks[4 * lane + step + 1];
        uint32_t bits = s->length[first] + s->length[second];
        uint32_t state = w->state[lane];
        if (state >> (32 - bits)) {
            uint16_t word = (uint16_t)state;
            w->codes -= sizeof word;
            memcpy(w->codes, &word, sizeof word);
            state >>= 16;
        }
        w->state[lane] = state << bits | (uint32_t)s->code[second] << s->length[first] |
                         s->code[first];
    }
}

static void entropy_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    const struct wf_symbols *s = w->symbols;
    for (size_t group = groups; group-- > 0;) {
        const uint8_t *in = symbols + group * WF_GROUP;
        uint8_t ranks[WF_GROUP];
        uint64_t escaped = 0;
        for (unsigned i = 0; i < WF_GROUP; i++) {
            ranks[i] = rank_of(s, in[i]);
            escaped |= (uint64_t)(ranks[i] == s->symbols) << i;
        }
        put_escapes(w, escaped, in);
        encode_step(w, ranks, 2);
        encode_step(w, ranks, 0);
    }
}

static void fixed_encode(struct wf_writer *w, size_t groups, const uint8_t *symbols)
{
    const struct wf_symbols *s = w->symbols;
    uint32_t last = (1u << s->width) - 1;
    for (size_t group = 0; group < groups; group++) {
        const uint8_t *in = symbols + group * WF_GROUP;
        uint64_t planes[4] = {0}, seconds[4] = {0}, raw = 0;
        uint32_t count = 0;
        for (unsigned i = 0; i < WF_GROUP; i++) {
            uint32_t rank = rank_of(s, in[i]);
            bool known = rank < s->symbols;
            uint32_t code = known && rank < last ? rank : last;
            for (uint32_t bit = 0; bit < s->width; bit++)
                planes[bit] |= (uint64_t)(code >> bit & 1) << i;
            if (code < last)
                continue;
            uint32_t second = known ? rank - last : WF_SECOND_RAW;
            for (uint32_t bit = 0; bit < 4; bit++)
                seconds[bit] |= (uint64_t)(second >> bit & 1) << count;
            count++;
            raw |= (uint64_t)!known << i;
        }
        memcpy(w->codes, planes, 8 * s->width);
        w->codes += 8 * s->width;
        put_seconds(w, seconds, count);
        put_bytes(w, raw, in);
    }
}

static void split_symbols(enum weft_dtype dtype, size_t groups, const uint8_t *plain, uint8_t *out)
{
    wf_split_symbols(dtype, groups * WF_GROUP, plain, out);
}

static void split_rest(enum weft_dtype dtype, size_t groups, const uint8_t *plain,
                       uint8_t *const parts[WF_PARTS_MAX])
{
    struct wf_split split = wf_split_of(dtype);
    size_t elements = groups * WF_GROUP, size = weft_dtype_bytes(dtype);
    if (split.bits == 8)
        wf_split_top(dtype, elements, plain, parts[0]);
    for (size_t group = 0; group < groups && split.bits < 8; group++) {
        uint8_t top[WF_GROUP];
        wf_split_top(dtype, WF_GROUP, plain + group * WF_GROUP * size, top);
        wf_bits_pack(split.bits, 1, top, parts[0] + wf_split_bytes(split, 0, group));
    }
    for (uint32_t low = 0; low < split.lows; low++)
        wf_split_low(dtype, low, elements, plain, parts[1 + low]);
}

static void subtract(const struct wf_tile *given, size_t groups, uint8_t *symbols)
{
    struct wf_tile tile = *given;
    for (size_t group = 0; group < groups; group++) {
        const uint8_t *base = wf_tile_next(&tile);
        for (unsigned i = 0; i < WF_GROUP; i++)
            symbols[group * WF_GROUP + i] = (uint8_t)(symbols[group * WF_GROUP + i] - base[i]);
    }
}

static void means(const struct wf_plane *plane, const uint8_t *symbols, unsigned shift,
                  struct wf_means *out)
{
    means_from(0, plane, symbols, shift, out);
}

static uint32_t count(size_t groups, const uint32_t *places, const uint8_t *symbols, uint8_t window,
                      uint16_t counts[WF_WINDOW])
{
    uint16_t all[256] = {0};
    uint32_t seen = 0;
    for (size_t group = 0; group < groups; group++) {
        for (unsigned i = 0; i < WF_GROUP; i++)
            all[symbols[places[group] + i]]++;
    }
    for (uint32_t i = 0; i < WF_WINDOW; i++) {
        counts[i] = all[(uint8_t)(window + i)];
        seen += counts[i];
    }
    return seen;
}

const struct wf_lossless_kernels wf_lossless_scalar = {
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
