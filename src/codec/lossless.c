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

#define SAMPLE_RUN 16u  /* elements */
#define SAMPLE_PART 8u  /* of all runs one in so many is looked at, within these bounds */
#define SAMPLE_SHIFT 5u /* runs */
#define SAMPLE_RUNS_LEAST 32u
#define SAMPLE_RUNS_MOST 128u
#define BASES_TOKENS_LEAST 16u
#define BASES_TOKENS_MANY 128u /* from here on 32 are looked at, else 16 */
/* How far apart channels are, as the variance of their means: up to here bases do not pay, and from
 * there on they do, without a look at both. */
#define BASES_VARIANCE_LEAST 0.3
#define BASES_VARIANCE_SURE 0.7
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
    uint8_t *symbols, *part, *more, *escapes, *words, *tile, *bases;
};

static size_t layout_workplace(const struct shape *s, uint8_t *scratch, struct workplace *out)
{
    size_t room = s->padded + SLACK, at = 0;
    uint8_t **const places[] = {&out->symbols, &out->part, &out->more, &out->escapes,
                                &out->words,   &out->tile, &out->bases};
    const size_t rooms[] = {
        room, room, room, room, room, WF_CHANNELS_MAX + 2 * SLACK, WF_CHANNELS_MAX + SLACK};
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

/* Numbers modulo the channels, without a division each. */
static uint32_t add_modulo(uint32_t a, uint32_t b, uint32_t modulo)
{
    return a + b >= modulo ? a + b - modulo : a + b;
}

/* Runs of symbols all over the plane; the shift keeps them from meeting the same channels. */
static size_t count_runs(const struct shape *s, const uint8_t *symbols, const struct wf_tile *tile,
                         uint16_t counts[4][256])
{
    size_t whole = s->elements / SAMPLE_RUN, runs = whole / SAMPLE_PART, total = 0;
    runs = runs < SAMPLE_RUNS_LEAST ? SAMPLE_RUNS_LEAST : runs;
    runs = runs > SAMPLE_RUNS_MOST ? SAMPLE_RUNS_MOST : runs;
    uint32_t stride = whole / runs ? (uint32_t)(whole / runs) : 1, phase = 0;
    uint32_t channels = tile->channels, step = stride * SAMPLE_RUN % channels, channel = 0;
    uint32_t shift = SAMPLE_SHIFT * SAMPLE_RUN % channels;
    for (size_t i = 0; i < runs && i * stride < whole; i++, total += SAMPLE_RUN) {
        const uint8_t *in = symbols + (i * stride + phase) * SAMPLE_RUN;
        const uint8_t *base = tile->base + channel;
        for (unsigned k = 0; k < SAMPLE_RUN; k += 4) {
            counts[0][(uint8_t)(in[k] - base[k])]++;
            counts[1][(uint8_t)(in[k + 1] - base[k + 1])]++;
            counts[2][(uint8_t)(in[k + 2] - base[k + 2])]++;
            counts[3][(uint8_t)(in[k + 3] - base[k + 3])]++;
        }
        channel = add_modulo(add_modulo(channel, step, channels), shift, channels);
        for (phase += SAMPLE_SHIFT; phase >= stride; phase -= stride)
            channel = add_modulo(channel, channels - step, channels);
    }
    return total;
}

static void sample(const struct shape *s, const uint8_t *symbols, const struct wf_tile *tile,
                   struct wf_ranking *out)
{
    uint16_t counts[4][256] = {0};
    struct wf_histogram h;
    size_t total = count_runs(s, symbols, tile, counts);
    for (size_t i = 0; i < s->elements && s->elements < SAMPLE_RUN; i++, total++)
        counts[0][(uint8_t)(symbols[i] - tile->base[i])]++;
    for (unsigned i = 0; i < 256; i++)
        h.count[i] = (uint16_t)(counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i]);
    h.total = (uint32_t)total;
    wf_symbols_rank(&h, out);
}

static void fill_tile(struct wf_tile *tile, uint8_t *room, uint32_t channels)
{
    for (uint32_t i = 0; i < WF_GROUP; i++)
        room[channels + i] = room[i]; /* which may be one of these */
    *tile = (struct wf_tile){.base = room, .channels = channels, .step = WF_GROUP % channels};
}

static const uint8_t zeros[2 * WF_GROUP];
static const struct wf_tile no_bases = {.base = zeros, .channels = WF_GROUP};

enum bases { BASES_NONE, BASES_MAYBE, BASES_SURE };

/* The mean of each channel over some tokens, and whether they are worth their bytes. */
static enum bases find_means(const struct wf_plane *plane, uint32_t channels,
                             const uint8_t *symbols, uint16_t *means)
{
    unsigned shift = plane->tokens < BASES_TOKENS_MANY ? 4 : 5;
    uint32_t tokens = 1u << shift, sum = 0, least = UINT16_MAX, most = 0;
    memset(means, 0, channels * sizeof *means);
    for (uint32_t i = 0; i < tokens; i++) {
        const uint8_t *row = symbols + (size_t)((uint64_t)i * plane->tokens >> shift) * channels;
        for (uint32_t c = 0; c < channels; c++)
            means[c] = (uint16_t)(means[c] + row[c]);
    }
    for (uint32_t c = 0; c < channels; c++)
        sum += means[c];
    int32_t middle = (int32_t)(sum / channels);
    uint64_t squares = 0;
    for (uint32_t c = 0; c < channels; c++) {
        int32_t apart = (int32_t)means[c] - middle;
        squares += (uint32_t)(apart * apart);
        uint32_t mean = (means[c] + tokens / 2u) >> shift;
        means[c] = (uint16_t)mean;
        least = mean < least ? mean : least;
        most = mean > most ? mean : most;
    }
    double variance = (double)squares / ((double)channels * tokens * tokens);
    if (variance < BASES_VARIANCE_LEAST)
        return BASES_NONE;
    return variance < BASES_VARIANCE_SURE || most > least + 15 ? BASES_MAYBE : BASES_SURE;
}

/* Means as they are stored: the least, then four bits a channel over it.  Returns their bytes. */
static size_t set_bases(uint32_t channels, const uint16_t *means, struct workplace *place)
{
    uint32_t least = 255, most = 0;
    for (uint32_t c = 0; c < channels; c++) {
        least = means[c] < least ? means[c] : least;
        most = means[c] > most ? means[c] : most;
    }
    least = most > least + 15 ? most - 15 : least;
    place->bases[0] = (uint8_t)least;
    for (uint32_t c = 0; c < channels; c++)
        place->tile[c] = (uint8_t)(means[c] > least ? means[c] : least);
    place->tile[channels] = (uint8_t)least; /* where there is no second of the last two */
    for (uint32_t c = 0; c < channels; c += 2)
        place->bases[1 + c / 2] = (uint8_t)((place->tile[c] - least) | (place->tile[c + 1] - least)
                                                                           << 4);
    return 1 + (channels + 1) / 2;
}

/* What was decided of a plane. */
struct decision {
    enum wf_lossless_mode mode;
    struct wf_symbols symbols;
    struct wf_tile tile;
    size_t bases_bytes;
    uint64_t bytes; /* that are expected of it */
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
    uint32_t width,
        bits = mode != WF_LOSSLESS_FIXED ? wf_symbols_entropy(ranking, &out->symbols) : UINT32_MAX;
    uint64_t entropy = rest + bytes_of(bits, s->padded) + STATES_BYTES;
    uint64_t fixed = rest + bytes_of(wf_symbols_fixed_bits(ranking, &width), s->padded);
    out->mode = WF_LOSSLESS_ENTROPY;
    out->bytes = entropy;
    if (bits == UINT32_MAX ||
        (mode != WF_LOSSLESS_ENTROPY && fixed - fixed / FIXED_MAY_BE_LARGER <= entropy)) {
        wf_symbols_fixed(ranking, &out->symbols);
        out->mode = WF_LOSSLESS_FIXED;
        out->bytes = fixed;
    }
}

static void decide_with_bases(const struct shape *s, enum wf_lossless_mode mode,
                              const uint16_t *means, struct workplace *place, struct decision *out)
{
    struct wf_ranking ranking;
    out->bases_bytes = set_bases(s->channels, means, place);
    fill_tile(&out->tile, place->tile, s->channels);
    sample(s, place->symbols, &out->tile, &ranking);
    decide_codes(s, mode, &ranking, out);
}

static void decide(const struct wf_plane *plane, const struct shape *s, enum wf_lossless_mode mode,
                   struct workplace *place, struct decision *out)
{
    struct wf_ranking ranking;
    enum bases bases = BASES_NONE;
    uint16_t *means = (uint16_t *)(void *)place->escapes; /* which are yet to come */
    if (may_have_bases(plane))
        bases = find_means(plane, s->channels, place->symbols, means);
    out->tile = no_bases;
    out->bases_bytes = 0;
    if (bases == BASES_SURE) {
        decide_with_bases(s, mode, means, place, out);
        return;
    }
    sample(s, place->symbols, &out->tile, &ranking);
    decide_codes(s, mode, &ranking, out);
    if (bases == BASES_NONE)
        return;
    struct decision based;
    decide_with_bases(s, mode, means, place, &based);
    if (based.bytes < out->bytes)
        *out = based;
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
    memcpy(out->at, bytes, count);
    out->at += count;
}

static bool all_same(const uint8_t *bytes, size_t count)
{
    return memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* A part of the rest, `bits` of each byte; true: it was one byte all over. */
static bool put_part(struct output *out, const struct shape *s, uint32_t bits, uint8_t *bytes)
{
    if (all_same(bytes, s->elements)) {
        put(out, bytes, 1);
        return true;
    }
    if (bits == 8) {
        put(out, bytes, s->elements);
        return false;
    }
    size_t packed = s->groups * bits * 8;
    memset(bytes + s->elements, 0, s->padded - s->elements);
    if (out->full || (size_t)(out->end - out->at) < packed) {
        out->full = true;
        return false;
    }
    wf_bits_pack(bits, s->groups, bytes, out->at);
    out->at += packed;
    return false;
}

/* A group that is not whole goes through one that is. */
static void of_bf16(const struct shape *s, void (*kernel)(size_t, const uint8_t *, uint8_t *),
                    const uint8_t *plain, uint8_t *out)
{
    size_t whole = s->elements / WF_GROUP, left = s->elements % WF_GROUP;
    uint8_t last[2 * WF_GROUP] = {0}, got[WF_GROUP];
    kernel(whole, plain, out);
    if (left) {
        memcpy(last, plain + whole * sizeof last, 2 * left);
        kernel(1, last, got);
        memcpy(out + whole * WF_GROUP, got, left);
    }
}

static uint8_t put_rest(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                        const struct shape *s, const uint8_t *plain, struct workplace *place,
                        struct output *out)
{
    uint8_t flags = 0;
    if (plane->dtype == WEFT_BF16) {
        /* Straight to its place: it is half of all bytes. */
        if (out->full || (size_t)(out->end - out->at) < s->elements) {
            out->full = true;
            return 0;
        }
        of_bf16(s, kernels->mantissas, plain, out->at);
        bool same = all_same(out->at, s->elements);
        out->at += same ? 1 : s->elements;
        return same ? WF_LOSSLESS_SAME : 0;
    }
    wf_split_top(plane->dtype, s->elements, plain, place->part);
    if (put_part(out, s, s->split.bits, place->part))
        flags |= WF_LOSSLESS_SAME;
    for (uint32_t low = 0; low < s->split.lows; low++) {
        wf_split_low(plane->dtype, low, s->elements, plain, place->part);
        if (put_part(out, s, 8, place->part))
            flags = (uint8_t)(flags | WF_LOSSLESS_SAME << (1 + low));
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
        .tile = d->tile,
        .codes = words_end,
        .escapes = escapes_end,
    };
    for (unsigned lane = 0; lane < WF_LANES; lane++)
        w.state[lane] = WF_STATE_LEAST;
    w.tile.at = (uint32_t)(s->padded % d->tile.channels);
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
        .tile = d->tile,
        .codes = out->at,
        .seconds = place->words,
        .escapes = place->escapes,
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

enum weft_status wf_lossless_encode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, enum wf_lossless_mode mode,
                                       const void *plain, void *bytes, size_t *out_bytes,
                                       void *scratch)
{
    struct shape s = shape_of(plane);
    struct workplace place = {0};
    struct decision d = {.tile = no_bases};
    layout_workplace(&s, scratch, &place);
    if (plane->dtype == WEFT_BF16)
        of_bf16(&s, kernels->exponents, plain, place.symbols);
    else
        wf_split_symbols(plane->dtype, s.elements, plain, place.symbols);
    decide(plane, &s, mode, &place, &d);
    for (size_t i = s.elements; i < s.padded; i++)
        place.symbols[i] = (uint8_t)(d.symbols.value[0] + d.tile.base[i % d.tile.channels]);

    struct wf_lossless_head head = {
        .mode = (uint8_t)d.mode,
        .flags = d.bases_bytes ? WF_LOSSLESS_BASES : 0,
        .symbols = (uint8_t)d.symbols.symbols,
        .width = d.mode == WF_LOSSLESS_FIXED ? (uint8_t)d.symbols.width : 0,
    };
    struct output out = {.at = bytes, .end = (uint8_t *)bytes + wf_plane_bytes(plane)};
    put(&out, &head, sizeof head);
    put(&out, d.symbols.value, d.symbols.symbols);
    if (d.mode == WF_LOSSLESS_ENTROPY)
        put_lengths(&d.symbols, &out);
    put(&out, place.bases, d.bases_bytes);
    if (d.mode == WF_LOSSLESS_ENTROPY)
        put_entropy(kernels, &s, &d, &place, &out, &head);
    else
        put_fixed(kernels, &s, &d, &place, &out, &head);
    head.flags = (uint8_t)(head.flags | put_rest(kernels, plane, &s, plain, &place, &out));
    if (out.full)
        return WEFT_MISS;
    memcpy(bytes, &head, sizeof head);
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
    memset(out, 0, sizeof *out);
    if (entropy ? head->symbols > WF_ENTROPY_SYMBOLS_MAX || head->width != 0
                : head->mode != WF_LOSSLESS_FIXED || head->width < 1 || head->width > 4 ||
                      head->symbols > (1u << head->width) - 1 + WF_SECOND_RAW)
        return false;
    const uint8_t *values = take(in, head->symbols);
    if (!values)
        return false;
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

/* A part of the rest as bytes, where it lies or made in `room`. */
static const uint8_t *read_part(struct input *in, const struct shape *s, uint32_t bits, bool same,
                                uint8_t *room)
{
    const uint8_t *bytes = take(in, same        ? 1
                                    : bits == 8 ? (uint64_t)s->elements
                                                : (uint64_t)s->groups * bits * 8);
    if (!bytes || (bits == 8 && !same))
        return bytes;
    if (same)
        memset(room, bytes[0], s->padded);
    else
        wf_bits_unpack(bits, s->groups, bytes, room);
    return room;
}

/* By vectors as far as these go, then one by one. */
static bool decode_groups(const struct wf_lossless_kernels *kernels, enum wf_lossless_mode mode,
                          struct wf_reader *r, size_t groups, const uint8_t *rest, uint8_t *out)
{
    const struct wf_lossless_kernels *const both[] = {kernels, &wf_lossless_scalar};
    for (unsigned i = 0; i < 2 && groups > 0; i++) {
        size_t done = mode == WF_LOSSLESS_ENTROPY ? both[i]->entropy_decode(r, groups, rest, out)
                                                  : both[i]->fixed_decode(r, groups, rest, out);
        groups -= done;
        rest = rest ? rest + done * WF_GROUP : NULL;
        out += done * WF_GROUP * (rest ? 2 : 1);
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

static bool decode_elements(const struct wf_lossless_kernels *kernels, const struct wf_plane *plane,
                            const struct shape *s, enum wf_lossless_mode mode, struct wf_reader *r,
                            const uint8_t *const parts[3], uint8_t *plain, struct workplace *place)
{
    /* Of bf16 whole groups go straight to where they belong. */
    size_t direct = plane->dtype == WEFT_BF16 ? s->elements / WF_GROUP : 0;
    size_t done = direct * WF_GROUP, left = s->elements - done;
    if (direct && !decode_groups(kernels, mode, r, direct, parts[0], plain))
        return false;
    if (left && !decode_groups(kernels, mode, r, s->groups - direct, NULL, place->symbols))
        return false;
    const uint8_t *const lows[2] = {parts[1], parts[2]};
    if (left)
        wf_merge(plane->dtype, left, place->symbols, parts[0] + done, lows, plain + 2 * done);
    return ended_well(r, mode);
}

enum weft_status wf_lossless_decode_by(const struct wf_lossless_kernels *kernels,
                                       const struct wf_plane *plane, const void *bytes,
                                       size_t count, void *plain, void *scratch)
{
    struct shape s = shape_of(plane);
    struct workplace place = {0};
    struct wf_lossless_head head;
    struct wf_symbols symbols;
    struct wf_reader r = {.symbols = &symbols};
    struct input in = {.at = bytes, .end = (const uint8_t *)bytes + count};
    layout_workplace(&s, scratch, &place);
    const uint8_t *start = take(&in, sizeof head);
    if (!start)
        return corrupt("it is shorter than its head");
    memcpy(&head, start, sizeof head);
    if (head.flags >= WF_LOSSLESS_SAME << (1 + s.split.lows) || !read_symbols(&in, &head, &symbols))
        return corrupt("its codes are none");
    if (!read_bases(&in, plane, &head, &s, &place, &r.tile) || !read_codes(&in, &head, &s, &r))
        return corrupt("it is shorter than its head says");
    uint8_t *const rooms[3] = {place.part, place.more, place.escapes};
    const uint8_t *parts[3] = {0};
    for (uint32_t i = 0; i < 3 && i <= s.split.lows; i++) {
        bool same = head.flags & WF_LOSSLESS_SAME << i;
        parts[i] = read_part(&in, &s, i == 0 ? s.split.bits : 8, same, rooms[i]);
        if (!parts[i])
            return corrupt("it is shorter than its head says");
    }
    if (in.at != in.end)
        return corrupt("it is longer than its head says");
    if (!decode_elements(kernels, plane, &s, head.mode, &r, parts, plain, &place))
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
