/* SPDX-License-Identifier: Apache-2.0
 *
 * Planes into the format that lossless.h draws, and the codecs that do it.
 *
 * It looks at a sample of the plane's symbols, of fixed places, and decides by it: whether
 * channels get bases, which symbols get codes, and, where it may choose, the mode.  What the sample
 * did not show costs bytes, never correctness; a plane that did not become smaller is refused.
 *
 * The rule between the modes: entropy, unless fixed is expected to be no more than 1 part in 128
 * larger than it, states and code lengths counted.  Fixed then decodes as fast with vectors and
 * faster without.
 */
#include <string.h>

#include "codec/lossless_plane.h"

#define SAMPLE_PART 3u  /* of all groups one in so many is looked at, within bounds */
#define SAMPLE_SHIFT 5u /* groups */
#define SAMPLE_GROUPS_LEAST 8u
#define BASES_TOKENS_MANY 128u /* from here on 32 are looked at, else 16 */
/* Bases pay where the variance of the channels' means is 1 divided by so much, or more. */
#define BASES_VARIANCE_TIMES 2u
#define GROUP_BYTES_MAX (WF_GROUP * 4)
#define FIXED_MAY_BE_LARGER 128u /* than entropy, by one part in so many */

static bool takes(const struct wf_plane *plane)
{
    return weft_dtype_bytes(plane->dtype) != 0;
}

static size_t scratch_bytes(const struct wf_plane *plane)
{
    struct shape s = shape_of(plane);
    struct workplace unused;
    return layout_workplace(&s, NULL, &unused);
}

/* -------------------------------------------------------------------------------------- measure */

/* Groups from all over the plane; the shift keeps them from meeting the same channels.  Returns how
 * many. */
static size_t choose_groups(const struct shape *s, uint32_t places[WF_SAMPLE_GROUPS])
{
    uint32_t whole = (uint32_t)(s->elements / WF_GROUP), groups = whole / SAMPLE_PART, phase = 0;
    groups = groups < SAMPLE_GROUPS_LEAST ? SAMPLE_GROUPS_LEAST : groups;
    groups = groups > WF_SAMPLE_GROUPS ? WF_SAMPLE_GROUPS : groups;
    groups = (groups > whole ? whole : groups) / WF_COUNT_GROUPS * WF_COUNT_GROUPS;
    uint32_t stride = groups ? whole / groups : 1;
    for (uint32_t i = 0; i < groups; i++) {
        places[i] = (i * stride + phase) * WF_GROUP;
        for (phase += SAMPLE_SHIFT; phase >= stride;)
            phase -= stride;
    }
    return groups;
}

/* What is about `middle`; or, when that is not where most are, about the most frequent. */
static void measure(const struct wf_lossless_kernels *kernels, const struct shape *s,
                    const uint8_t *symbols, uint8_t middle, struct wf_ranking *out)
{
    struct wf_counts counts;
    uint32_t places[WF_SAMPLE_GROUPS];
    size_t groups = choose_groups(s, places);
    counts.window = (uint8_t)(middle - WF_WINDOW_BELOW);
    counts.total = (uint32_t)(groups * WF_GROUP);
    counts.zeros = 0;
    uint32_t seen = kernels->count(groups, places, symbols, counts.window, counts.count);
    if (seen < counts.total - counts.total / 16 || groups == 0) {
        uint16_t histogram[256] = {0};
        for (size_t i = 0; i < groups; i++) {
            for (unsigned k = 0; k < WF_GROUP; k++)
                histogram[symbols[places[i] + k]]++;
        }
        for (size_t i = 0; groups == 0 && i < s->elements; i++)
            histogram[symbols[i]]++;
        wf_symbols_count(histogram, &counts);
    }
    wf_symbols_rank(&counts, out);
}

/* Whether the means of the channels are worth their bytes, by how far apart they are; *middle: the
 * mean of all. */
static bool find_means(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                       uint32_t channels, const uint8_t *symbols, struct wf_means *out,
                       uint8_t *middle)
{
    unsigned shift = plane->tokens < BASES_TOKENS_MANY ? 4 : 5;
    out->sum = out->squares = 0;
    out->least = UINT8_MAX;
    out->most = 0;
    kernels->means(plane, symbols, shift, out);
    uint32_t mean = (uint32_t)(out->sum / channels);
    *middle = (uint8_t)((mean + (1u << shift) / 2) >> shift);
    uint64_t variance = (out->squares * channels - out->sum * out->sum) >> 2 * shift;
    return BASES_VARIANCE_TIMES * variance >= (uint64_t)channels * channels;
}

/* Means as they are stored: the least, then four bits a channel over it.  Returns their bytes. */
static size_t set_bases(uint32_t channels, const struct wf_means *means, struct workplace *place,
                        uint32_t *bits)
{
    uint8_t least = means->most > means->least + 15 ? (uint8_t)(means->most - 15) : means->least;
    place->bases[0] = least;
    *bits = means->most - least < 8 ? 3 : 4;
    for (uint32_t c = 0; c < channels; c++)
        place->tile[c] = means->mean[c] > least ? means->mean[c] : least;
    memset(place->tile + channels, least, sizeof(uint64_t)); /* where there is no second of two */
    for (uint32_t c = 0; c < channels; c += sizeof(uint64_t)) {
        uint64_t eight;
        memcpy(&eight, place->tile + c, sizeof eight);
        eight -= least * 0x0101010101010101u;
        eight = (eight | eight >> 4) & 0x00ff00ff00ff00ffu;
        eight = (eight | eight >> 8) & 0x0000ffff0000ffffu;
        uint32_t packed = (uint32_t)(eight | eight >> 16);
        memcpy(place->bases + 1 + c / 2, &packed, sizeof packed);
    }
    return 1 + (channels + 1) / 2;
}

/* What was decided of a plane. */
struct decision {
    enum wf_lossless_mode mode;
    struct wf_symbols symbols;
    size_t bases_bytes;
    uint32_t bases_bits; /* that would do */
    bool is_small;
    struct wf_small small;
};

/* Bytes that n symbols take by what a sample's did, in 1/256 bit. */
static uint64_t bytes_of(uint32_t bits, size_t n)
{
    return (uint64_t)bits * n / 2048;
}

static void decide_codes(const struct shape *s, enum wf_lossless_mode mode,
                         const struct wf_ranking *ranking, struct decision *out)
{
    uint64_t rest = s->elements * (s->split.bits + 8 * s->split.lows) / 8 + out->bases_bytes;
    uint64_t entropy = rest + STATES_BYTES, fixed = 0;
    uint32_t width = 0, bits;
    if (mode == 0) { /* most small planes are decided without making codes */
        fixed = rest + bytes_of(wf_symbols_fixed_bits(ranking, &width), s->padded);
        fixed -= fixed / FIXED_MAY_BE_LARGER;
        if (fixed <= entropy + bytes_of(wf_symbols_entropy_least(ranking), s->padded))
            mode = WF_LOSSLESS_FIXED;
    }
    if (mode != WF_LOSSLESS_FIXED) {
        out->mode = WF_LOSSLESS_ENTROPY;
        bits = wf_symbols_entropy(ranking, &out->symbols);
        if (bits != UINT32_MAX &&
            (mode == WF_LOSSLESS_ENTROPY || fixed > entropy + bytes_of(bits, s->padded)))
            return;
    }
    out->mode = WF_LOSSLESS_FIXED;
    if (width == 0)
        wf_symbols_fixed_bits(ranking, &width);
    out->is_small = s->elements <= WF_SMALL_ELEMENTS_MAX &&
                    wf_symbols_window(ranking, width, s->elements, &out->symbols,
                                      &out->small.below);
    if (!out->is_small)
        wf_symbols_fixed(ranking, &out->symbols);
}

static void decide(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                   const struct shape *s, enum wf_lossless_mode mode, struct workplace *place,
                   struct decision *out)
{
    struct wf_ranking ranking;
    struct wf_means means = {.mean = place->escapes}; /* which are yet to come */
    uint8_t middle = 0;
    out->bases_bytes = out->bases_bits = 0;
    out->is_small = false;
    if (may_have_bases(plane) &&
        find_means(kernels, plane, s->channels, place->symbols, &means, &middle)) {
        struct wf_tile tile;
        out->bases_bytes = set_bases(s->channels, &means, place, &out->bases_bits);
        fill_tile(&tile, place->tile, s->channels);
        tile.at = 0;
        kernels->subtract(&tile, s->groups, place->symbols);
        middle = 0;
    }
    measure(kernels, s, place->symbols, middle, &ranking);
    decide_codes(s, mode, &ranking, out);
}

/* ------------------------------------------------------------------------------------- encoding */

struct output {
    uint8_t *at, *end;
    bool full;
};

static void put(struct output *out, const void *bytes, size_t count)
{
    if (out->full || (size_t)(out->end - out->at) < count) {
        out->full = true;
        return;
    }
    if (out->at != bytes)
        memmove(out->at, bytes, count);
    out->at += count;
}

static bool all_same(const uint8_t *bytes, size_t count)
{
    return memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* Whether each of the planes is the same bit all over, and so each element's part is *top. */
static bool same_bits(const struct shape *s, const uint8_t *planes, uint8_t *top)
{
    uint32_t bits = s->split.bits, first = 0;
    for (uint32_t bit = 0; bit < bits; bit++)
        first |= (planes[8 * bit] & 1u) << bit;
    for (size_t group = 0; group < s->groups; group++) {
        size_t left = s->elements - group * WF_GROUP;
        uint64_t there = left < WF_GROUP ? (1ull << left) - 1 : UINT64_MAX;
        for (uint32_t bit = 0; bit < bits; bit++, planes += sizeof there) {
            uint64_t plane;
            memcpy(&plane, planes, sizeof plane);
            if (plane != (first >> bit & 1 ? there : 0))
                return false;
        }
    }
    *top = (uint8_t)first;
    return true;
}

/* Symbols or the rest of all elements; a group that is not whole goes through one that is. */
static void split_symbols(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                          const struct shape *s, const uint8_t *plain, uint8_t *out)
{
    size_t size = weft_dtype_bytes(plane->dtype), whole = s->elements / WF_GROUP;
    size_t left = s->elements % WF_GROUP;
    kernels->symbols(plane->dtype, whole, plain, out);
    if (left) {
        uint8_t last[GROUP_BYTES_MAX] = {0};
        memcpy(last, plain + whole * WF_GROUP * size, left * size);
        kernels->symbols(plane->dtype, 1, last, out + whole * WF_GROUP);
    }
}

static void split_rest(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                       const struct shape *s, const uint8_t *plain,
                       uint8_t *const out[WF_PARTS_MAX])
{
    size_t size = weft_dtype_bytes(plane->dtype), whole = s->elements / WF_GROUP;
    size_t left = s->elements % WF_GROUP;
    kernels->rest(plane->dtype, whole, plain, out);
    if (left) {
        uint8_t last[GROUP_BYTES_MAX] = {0}, got[WF_PARTS_MAX][WF_GROUP];
        uint8_t *const parts[WF_PARTS_MAX] = {got[0], got[1], got[2]};
        memcpy(last, plain + whole * WF_GROUP * size, left * size);
        kernels->rest(plane->dtype, 1, last, parts);
        for (uint32_t i = 0; i <= s->split.lows; i++) {
            size_t before = wf_split_bytes(s->split, i, whole);
            memcpy(out[i] + before, got[i], part_bytes(s, i) - before);
        }
    }
}

/* Parts go straight to where they belong, as it is when none of them is one byte all over; else
 * through memory of their own. */
static uint8_t put_rest(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                        const struct shape *s, const uint8_t *plain, struct workplace *place,
                        struct output *out)
{
    uint8_t *parts[WF_PARTS_MAX] = {0}, *at = out->at, flags = 0;
    size_t all = 0;
    for (uint32_t i = 0; i <= s->split.lows; i++)
        all += part_bytes(s, i);
    bool direct = (size_t)(out->end - out->at) >= all;
    for (uint32_t i = 0; i <= s->split.lows; at += part_bytes(s, i), i++)
        parts[i] = direct ? at : place->part[i];
    if (out->full)
        return 0;
    split_rest(kernels, plane, s, plain, parts);
    for (uint32_t i = 0; i <= s->split.lows; i++) {
        uint8_t one = parts[i][0];
        bool same = i == 0 && s->split.bits < 8 ? same_bits(s, parts[i], &one)
                                                : all_same(parts[i], s->elements);
        put(out, same ? &one : parts[i], same ? 1 : part_bytes(s, i));
        if (same)
            flags = (uint8_t)(flags | WF_LOSSLESS_SAME << i);
    }
    return flags;
}

static void put_entropy(const struct wf_lossless_kernels *kernels, const struct shape *s,
                        const struct decision *d, struct workplace *place, struct output *out,
                        struct wf_lossless_head *head)
{
    uint8_t *words_end = place->words + s->padded + SLACK,
            *escapes_end = place->escapes + s->padded;
    struct wf_writer w = {
        .symbols = &d->symbols,
        .codes = words_end,
        .escapes = escapes_end,
        .ahead = place->ahead,
        .ahead_lines = place->ahead_lines,
    };
    for (unsigned lane = 0; lane < WF_LANES; lane++)
        w.state[lane] = WF_STATE_LEAST;
    kernels->entropy_encode(&w, s->groups, place->symbols);
    head->words = (uint32_t)((size_t)(words_end - w.codes) / 2);
    head->escapes = w.escaped;
    put(out, w.state, sizeof w.state);
    put(out, w.codes, (size_t)(words_end - w.codes));
    put(out, w.escapes, w.escaped);
}

static void put_fixed(const struct wf_lossless_kernels *kernels, const struct shape *s,
                      const struct decision *d, struct workplace *place, struct output *out,
                      struct wf_lossless_head *head)
{
    size_t planes = s->groups * d->symbols.width * 8;
    if (out->full || (size_t)(out->end - out->at) < planes) {
        out->full = true;
        return;
    }
    struct wf_writer w = {
        .symbols = &d->symbols,
        .codes = out->at,
        .seconds = place->words,
        .escapes = place->escapes,
        .ahead = place->ahead,
        .ahead_lines = place->ahead_lines,
    };
    w.seconds[0] = 0;
    kernels->fixed_encode(&w, s->groups, place->symbols);
    out->at += planes;
    head->words = (uint32_t)(w.second / 4);
    head->escapes = w.escaped;
    put(out, w.seconds, (w.second + 7) / 8);
    put(out, w.escapes, w.escaped);
}

static void put_lengths(const struct wf_symbols *s, struct output *out)
{
    uint8_t packed[8] = {0};
    for (uint32_t i = 0; i <= s->symbols; i++)
        packed[i / 2] |= (uint8_t)(s->length[i] << i % 2 * 4);
    put(out, packed, s->symbols / 2 + 1);
}

/* With a head of its own, and tables. */
static void put_whole(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                      const struct shape *s, const uint8_t *plain, const struct decision *d,
                      struct workplace *place, struct output *out)
{
    uint8_t *first = out->at;
    struct wf_lossless_head head = {
        .mode = (uint8_t)d->mode,
        .flags = d->bases_bytes ? WF_LOSSLESS_BASES : 0,
        .symbols = (uint8_t)d->symbols.symbols,
        .width = d->mode == WF_LOSSLESS_FIXED ? (uint8_t)d->symbols.width : 0,
    };
    put(out, &head, sizeof head);
    put(out, d->symbols.value, d->symbols.symbols);
    if (d->mode == WF_LOSSLESS_ENTROPY)
        put_lengths(&d->symbols, out);
    put(out, place->bases, d->bases_bytes);
    if (d->mode == WF_LOSSLESS_ENTROPY)
        put_entropy(kernels, s, d, place, out, &head);
    else
        put_fixed(kernels, s, d, place, out, &head);
    head.flags = (uint8_t)(head.flags | put_rest(kernels, plane, s, plain, place, out));
    if (!out->full)
        memcpy(first, &head, sizeof head);
}

/* By a window, with three bytes for all that. */
static void put_small(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                      const struct shape *s, const uint8_t *plain, const struct decision *d,
                      struct workplace *place, struct output *out)
{
    uint8_t *first = out->at, bytes[WF_SMALL_BYTES] = {0};
    struct wf_small small = {
        .width = d->symbols.width,
        .first = (uint8_t)(d->symbols.value[0] - d->small.below),
        .below = d->small.below,
        .bases_bits = d->bases_bits,
    };
    struct wf_lossless_head head = {0};
    put(out, bytes, sizeof bytes);
    if (d->bases_bits) {
        small.first = (uint8_t)(small.first + place->bases[0]);
        if (d->bases_bits == 3)
            wf_small_bases_pack(s->channels, place->bases + 1);
        put(out, place->bases + 1, wf_small_bases_bytes(s->channels, d->bases_bits));
    }
    put_fixed(kernels, s, d, place, out, &head);
    for (uint32_t i = 0; d->bases_bits && !out->full && i < head.escapes; i++)
        out->at[-1 - (ptrdiff_t)i] = (uint8_t)(out->at[-1 - (ptrdiff_t)i] + place->bases[0]);
    small.same = put_rest(kernels, plane, s, plain, place, out) / WF_LOSSLESS_SAME;
    small.odd = head.words % 2;
    small.escaped = head.escapes != 0;
    uint8_t escapes[2] = {(uint8_t)head.escapes, (uint8_t)(head.escapes >> 8)};
    if (small.escaped)
        put(out, escapes, sizeof escapes);
    if (!out->full)
        wf_small_put(&small, first);
}

enum weft_status wf_lossless_encode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, enum wf_lossless_mode mode,
                                       const void *plain, void *bytes, size_t *out_bytes,
                                       void *scratch)
{
    struct shape s = shape_of(plane);
    struct workplace place;
    struct decision d;
    layout_workplace(&s, scratch, &place);
    split_symbols(kernels, plane, &s, plain, place.symbols);
    place.ahead = (const uint8_t *)plain + wf_plane_bytes(plane);
    place.ahead_lines = (uint32_t)weft_dtype_bytes(plane->dtype);
    decide(kernels, plane, &s, mode, &place, &d);
    for (size_t i = s.elements; i < s.padded; i++)
        place.symbols[i] = d.symbols.value[0];

    struct output out = {.at = bytes, .end = (uint8_t *)bytes + wf_plane_bytes(plane)};
    if (d.is_small)
        put_small(kernels, plane, &s, plain, &d, &place, &out);
    else
        put_whole(kernels, plane, &s, plain, &d, &place, &out);
    if (out.full)
        return WEFT_MISS;
    *out_bytes = (size_t)(out.at - (uint8_t *)bytes);
    return WEFT_OK;
}

/* --------------------------------------------------------------------------------------- codecs */

const struct wf_lossless_kernels *wf_lossless_kernels_of(enum wf_codec_isa isa)
{
#if defined(__x86_64__)
    if (isa == WF_CODEC_AVX512)
        return &wf_lossless_avx512;
    if (isa == WF_CODEC_AVX2)
        return &wf_lossless_avx2;
#endif
    (void)isa;
    return &wf_lossless_scalar;
}

static const struct wf_lossless_kernels *best(void)
{
    return wf_lossless_kernels_of(wf_codec_isa_best());
}

static enum weft_status decode(const struct wf_plane *plane, uint32_t parameter, const void *in,
                               size_t bytes, void *plain, void *scratch)
{
    (void)parameter;
    return wf_lossless_decode_by(best(), plane, in, bytes, plain, scratch);
}

static enum weft_status encode_any(const struct wf_plane *plane, uint32_t parameter,
                                   const void *plain, void *out, size_t capacity, size_t *out_bytes,
                                   void *scratch)
{
    (void)parameter, (void)capacity;
    return wf_lossless_encode_by(best(), plane, 0, plain, out, out_bytes, scratch);
}

static enum weft_status encode_fixed(const struct wf_plane *plane, uint32_t parameter,
                                     const void *plain, void *out, size_t capacity,
                                     size_t *out_bytes, void *scratch)
{
    (void)parameter, (void)capacity;
    return wf_lossless_encode_by(best(), plane, WF_LOSSLESS_FIXED, plain, out, out_bytes, scratch);
}

static enum weft_status encode_entropy(const struct wf_plane *plane, uint32_t parameter,
                                       const void *plain, void *out, size_t capacity,
                                       size_t *out_bytes, void *scratch)
{
    (void)parameter, (void)capacity;
    return wf_lossless_encode_by(best(), plane, WF_LOSSLESS_ENTROPY, plain, out, out_bytes,
                                 scratch);
}

#define LOSSLESS(name_, id_, says_, encode_)                                                     \
    {                                                                                            \
        .name = (name_), .says = (says_), .id = (id_), .lossless = true, .takes = takes,         \
        .bound = wf_plane_bytes, .scratch = scratch_bytes, .encode = (encode_), .decode = decode \
    }

const struct wf_codec wf_codec_lossless =
    LOSSLESS("lossless", WF_CODEC_LOSSLESS,
             "exponents coded, sign and mantissa as they are; chooses the mode for each plane",
             encode_any);
const struct wf_codec wf_codec_lossless_fixed =
    LOSSLESS("lossless-fixed", WF_CODEC_LOSSLESS_FIXED,
             "exponents in codes of one width, with escapes", encode_fixed);
const struct wf_codec wf_codec_lossless_entropy =
    LOSSLESS("lossless-entropy", WF_CODEC_LOSSLESS_ENTROPY,
             "exponents in prefix codes of 1 to 6 bits, 16 lanes at once", encode_entropy);
