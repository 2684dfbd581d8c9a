/* SPDX-License-Identifier: Apache-2.0
 *
 * Planes in and out of the format that lossless.h draws.
 *
 * Encoding looks at a sample of the plane's symbols, of fixed places, and decides by it: whether
 * channels get bases, which symbols get codes, and, where it may choose, the mode.  What the sample
 * did not show costs bytes, never correctness; a plane that did not become smaller is refused.
 *
 * The rule between the modes: entropy, unless fixed is expected to be no more than 1 part in 128
 * larger than it, states and code lengths counted.  Fixed then decodes as fast with vectors and
 * faster without.
 */
#include "codec/lossless.h"

#include <string.h>

#include "base/status.h"

#define SAMPLE_PART 3u  /* of all groups one in so many is looked at, within bounds */
#define SAMPLE_SHIFT 5u /* groups */
#define SAMPLE_GROUPS_LEAST 8u
#define BASES_TOKENS_LEAST 16u
#define BASES_TOKENS_MANY 128u /* from here on 32 are looked at, else 16 */
/* Bases pay where the variance of the channels' means is 1 divided by so much, or more. */
#define BASES_VARIANCE_TIMES 2u
#define GROUP_BYTES_MAX (WF_GROUP * 4)
#define STATES_BYTES (WF_LANES * sizeof(uint32_t))
#define SLACK 64u
#define FIXED_MAY_BE_LARGER 128u /* than entropy, by one part in so many */

/* Sizes of a plane, as the codec sees it. */
struct shape {
    size_t elements, groups, padded;
    uint32_t channels;
    struct wf_split split;
};

static struct shape shape_of(const struct wf_plane *plane)
{
    struct shape s = {
        .elements = wf_plane_elements(plane),
        .channels = plane->heads * plane->head_dim,
        .split = wf_split_of(plane->dtype),
    };
    s.groups = (s.elements + WF_GROUP - 1) / WF_GROUP;
    s.padded = s.groups * WF_GROUP;
    return s;
}

/* Bytes of a part of the rest: bit planes are of whole groups. */
static size_t part_bytes(const struct shape *s, uint32_t part)
{
    return part == 0 && s->split.bits < 8 ? wf_split_bytes(s->split, 0, s->groups) : s->elements;
}

static bool may_have_bases(const struct wf_plane *plane)
{
    uint64_t channels = (uint64_t)plane->heads * plane->head_dim;
    return plane->tokens >= BASES_TOKENS_LEAST && channels > 1 && channels <= WF_CHANNELS_MAX;
}

static bool takes(const struct wf_plane *plane)
{
    return weft_dtype_bytes(plane->dtype) != 0;
}

/* Where scratch memory goes. */
struct workplace {
    uint8_t *symbols, *part[WF_PARTS_MAX], *escapes, *words, *tile, *bases;
    const uint8_t *ahead; /* where the next plane is likely to be */
    uint32_t ahead_lines;
};

static size_t layout_workplace(const struct shape *s, uint8_t *scratch, struct workplace *out)
{
    size_t room = s->padded + SLACK, at = 0;
    uint8_t **const places[] = {&out->symbols, &out->part[0], &out->part[1], &out->part[2],
                                &out->escapes, &out->words,   &out->tile,    &out->bases};
    const size_t rooms[] = {
        room, room, room, room, room, room, WF_CHANNELS_MAX + 2 * SLACK, WF_CHANNELS_MAX + SLACK};
    for (unsigned i = 0; i < sizeof rooms / sizeof rooms[0]; i++) {
        *places[i] = scratch ? scratch + at : NULL;
        at += (rooms[i] + 63) & ~(size_t)63;
    }
    return at;
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

static void fill_tile(struct wf_tile *tile, uint8_t *room, uint32_t channels)
{
    /* What is copied may be a copy. */
    for (uint32_t have = channels, some; have < channels + WF_GROUP; have += some) {
        some = channels + WF_GROUP - have;
        some = some < have ? some : have;
        memcpy(room + have, room, some);
    }
    *tile = (struct wf_tile){.base = room, .channels = channels, .step = WF_GROUP % channels};
}

static const uint8_t zeros[2 * WF_GROUP];
static const struct wf_tile no_bases = {.base = zeros, .channels = WF_GROUP};

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

/* ------------------------------------------------------------------------------------- decoding */

struct input {
    const uint8_t *at, *end;
};

/* The next `count` bytes; NULL: they are not there. */
static const uint8_t *take(struct input *in, uint64_t count)
{
    if ((uint64_t)(in->end - in->at) < count)
        return NULL;
    const uint8_t *at = in->at;
    in->at += count;
    return at;
}

static enum weft_status corrupt(const char *what)
{
    return wf_fail(WEFT_E_CORRUPT,
                   "a losslessly compressed plane is damaged: %s; it has to be computed anew",
                   what);
}

static bool read_symbols(struct input *in, const struct wf_lossless_head *head,
                         struct wf_symbols *out)
{
    bool entropy = head->mode == WF_LOSSLESS_ENTROPY;
    if (entropy ? head->symbols > WF_ENTROPY_SYMBOLS_MAX || head->width != 0
                : head->mode != WF_LOSSLESS_FIXED || head->width < 1 || head->width > 4 ||
                      head->symbols > (1u << head->width) - 1 + WF_SECOND_RAW)
        return false;
    const uint8_t *values = take(in, head->symbols);
    if (!values)
        return false;
    memset(out->value, 0, sizeof out->value);
    memcpy(out->value, values, head->symbols);
    out->symbols = head->symbols;
    out->width = head->width;
    if (!entropy)
        return true;
    const uint8_t *lengths = take(in, head->symbols / 2u + 1);
    if (!lengths)
        return false;
    for (uint32_t i = 0; i <= out->symbols; i++)
        out->length[i] = lengths[i / 2] >> i % 2 * 4 & 15;
    return wf_symbols_codes(out, true);
}

/* The first bytes of a small plane, and what follows from them and its length.  False: they are
 * none of this plane. */
static bool read_small(struct input *in, const struct wf_plane *plane, const struct shape *s,
                       struct wf_lossless_head *head, struct wf_symbols *symbols,
                       struct wf_tile *tile, struct workplace *place)
{
    struct wf_small small;
    const uint8_t *bytes = take(in, WF_SMALL_BYTES);
    if (!bytes || !wf_small_get(bytes, &small) || small.same >> (1 + s->split.lows) ||
        s->elements > WF_SMALL_ELEMENTS_MAX || (small.bases_bits && !may_have_bases(plane)))
        return false;
    *head = (struct wf_lossless_head){
        .mode = WF_LOSSLESS_FIXED,
        .flags = (uint8_t)(small.same * WF_LOSSLESS_SAME),
        .width = (uint8_t)small.width,
    };
    if (small.escaped) {
        if (in->end - in->at < 2)
            return false;
        in->end -= 2;
        head->escapes = (uint32_t)in->end[0] | (uint32_t)in->end[1] << 8;
    }
    wf_symbols_of_window(small.width, (uint8_t)small.first, small.below, symbols);
    *tile = no_bases;
    if (small.bases_bits) {
        const uint8_t *bases = take(in, wf_small_bases_bytes(s->channels, small.bases_bits));
        if (!bases)
            return false;
        wf_small_bases_unpack(s->channels, small.bases_bits, bases, place->tile);
        fill_tile(tile, place->tile, s->channels);
    }
    uint64_t others = (uint64_t)s->groups * small.width * 8 + head->escapes;
    for (uint32_t i = 0; i <= s->split.lows; i++)
        others += small.same >> i & 1 ? 1 : part_bytes(s, i);
    uint64_t left = (uint64_t)(in->end - in->at);
    if (left < others || left - others > s->padded || (small.odd && left == others))
        return false;
    head->words = (uint32_t)(2 * (left - others) - small.odd);
    return true;
}

static bool read_bases(struct input *in, const struct wf_plane *plane,
                       const struct wf_lossless_head *head, const struct shape *s,
                       struct workplace *place, struct wf_tile *out)
{
    if (!(head->flags & WF_LOSSLESS_BASES)) {
        *out = no_bases;
        return true;
    }
    const uint8_t *bases = may_have_bases(plane) ? take(in, 1 + (s->channels + 1u) / 2) : NULL;
    if (!bases)
        return false;
    for (uint32_t c = 0; c < s->channels; c += 2) {
        uint8_t both = bases[1 + c / 2];
        place->tile[c] = (uint8_t)(bases[0] + (both & 15));
        place->tile[c + 1] = (uint8_t)(bases[0] + (both >> 4));
    }
    fill_tile(out, place->tile, s->channels);
    return true;
}

static bool read_codes(struct input *in, const struct wf_lossless_head *head, const struct shape *s,
                       struct wf_reader *r)
{
    const uint8_t *states = NULL;
    if (head->mode == WF_LOSSLESS_ENTROPY) {
        states = take(in, STATES_BYTES);
        r->codes = states ? take(in, (uint64_t)head->words * 2) : NULL;
    } else {
        r->codes = take(in, (uint64_t)s->groups * head->width * 8);
        r->seconds_end = 4ull * head->words;
        if (r->codes)
            r->codes_end = in->at;
        r->seconds = take(in, ((uint64_t)head->words + 1) / 2);
    }
    if (!r->codes || (!states && !r->seconds))
        return false;
    if (states) {
        memcpy(r->state, states, STATES_BYTES);
        r->codes_end = in->at;
    }
    r->limit = in->end;
    r->escapes = take(in, head->escapes);
    r->escapes_left = head->escapes;
    return r->escapes != NULL;
}

/* A part of the rest, where it lies; or made in `room` of the one byte that is there. */
static const uint8_t *read_part(struct input *in, const struct shape *s, uint32_t part, bool same,
                                uint8_t *room)
{
    const uint8_t *bytes = take(in, same ? 1 : part_bytes(s, part));
    if (!bytes || !same)
        return bytes;
    if (part > 0 || s->split.bits == 8) {
        memset(room, bytes[0], s->padded);
        return room;
    }
    size_t period = wf_split_bytes(s->split, 0, 1);
    for (uint32_t bit = 0; bit < s->split.bits; bit++)
        memset(room + 8 * bit, bytes[0] >> bit & 1 ? 0xff : 0, 8);
    for (size_t group = 1; group < s->groups; group++)
        memcpy(room + group * period, room, period);
    return room;
}

/* By vectors as far as these go, then one by one. */
static bool decode_groups(const struct wf_lossless_kernels *kernels, enum wf_lossless_mode mode,
                          struct wf_reader *r, size_t groups, const struct wf_rest *rest,
                          uint8_t *out)
{
    const struct wf_lossless_kernels *const both[] = {kernels, &wf_lossless_scalar};
    size_t bytes = WF_GROUP * (rest ? weft_dtype_bytes(rest->dtype) : 1);
    struct wf_rest from;
    for (unsigned i = 0; i < 2 && groups > 0; i++) {
        size_t done = mode == WF_LOSSLESS_ENTROPY ? both[i]->entropy_decode(r, groups, rest, out)
                                                  : both[i]->fixed_decode(r, groups, rest, out);
        if (rest) {
            from = wf_rest_from(rest, done);
            rest = &from;
        }
        groups -= done;
        out += done * bytes;
    }
    return groups == 0;
}

/* Everything was used up, and nothing more was wanted. */
static bool ended_well(const struct wf_reader *r, enum wf_lossless_mode mode)
{
    if (r->damaged || r->escapes_left != 0 || r->second != r->seconds_end ||
        r->codes != r->codes_end)
        return false;
    for (unsigned lane = 0; mode == WF_LOSSLESS_ENTROPY && lane < WF_LANES; lane++) {
        if (r->state[lane] != WF_STATE_LEAST)
            return false;
    }
    return true;
}

/* Whole groups go straight to where they belong. */
static bool decode_elements(const struct wf_lossless_kernels *kernels, const struct shape *s,
                            enum wf_lossless_mode mode, struct wf_reader *r,
                            const struct wf_rest *rest, uint8_t *plain, struct workplace *place)
{
    size_t whole = s->elements / WF_GROUP, left = s->elements % WF_GROUP;
    if (whole && !decode_groups(kernels, mode, r, whole, rest, plain))
        return false;
    if (left) {
        struct wf_rest last = wf_rest_from(rest, whole);
        if (!decode_groups(kernels, mode, r, 1, NULL, place->symbols))
            return false;
        wf_merge(&last, left, place->symbols,
                 plain + whole * WF_GROUP * weft_dtype_bytes(rest->dtype));
    }
    return ended_well(r, mode);
}

enum weft_status wf_lossless_decode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, const void *bytes,
                                       size_t count, void *plain, void *scratch)
{
    struct shape s = shape_of(plane);
    struct workplace place;
    struct wf_lossless_head head;
    struct wf_symbols symbols;
    struct wf_reader r = {.symbols = &symbols};
    struct input in = {.at = bytes, .end = (const uint8_t *)bytes + count};
    layout_workplace(&s, scratch, &place);
    if (count && in.at[0] & WF_LOSSLESS_SMALL) {
        if (!read_small(&in, plane, &s, &head, &symbols, &r.tile, &place))
            return corrupt("its head is not that of such a plane");
    } else {
        const uint8_t *start = take(&in, sizeof head);
        if (!start)
            return corrupt("it is shorter than its head");
        memcpy(&head, start, sizeof head);
        if (head.flags >= WF_LOSSLESS_SAME << (1 + s.split.lows) ||
            !read_symbols(&in, &head, &symbols))
            return corrupt("its codes are none");
        if (!read_bases(&in, plane, &head, &s, &place, &r.tile))
            return corrupt("it is shorter than its head says");
    }
    if (!read_codes(&in, &head, &s, &r))
        return corrupt("it is shorter than its head says");
    struct wf_rest rest = {.dtype = plane->dtype};
    for (uint32_t i = 0; i <= s.split.lows; i++) {
        rest.part[i] = read_part(&in, &s, i, head.flags & WF_LOSSLESS_SAME << i, place.part[i]);
        if (!rest.part[i])
            return corrupt("it is shorter than its head says");
    }
    if (in.at != in.end)
        return corrupt("it is longer than its head says");
    if (!decode_elements(kernels, &s, head.mode, &r, &rest, plain, &place))
        return corrupt("its codes do not end where they should");
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
