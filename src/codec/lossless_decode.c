/* SPDX-License-Identifier: Apache-2.0
 *
 * Planes out of the format that lossless.h draws.
 *
 * What is read is untrusted: every size is held against what is there before it is used, and what
 * does not come out even is damaged, not guessed at.
 */
#include <string.h>

#include "base/status.h"
#include "codec/lossless_plane.h"

static const uint8_t zeros[2 * WF_GROUP];
static const struct wf_tile no_bases = {.base = zeros, .channels = WF_GROUP};

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
