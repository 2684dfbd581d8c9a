/* SPDX-License-Identifier: Apache-2.0
 *
 * What encoding and decoding of a lossless plane share: its sizes, where its scratch memory goes,
 * and the bases of its channels as the kernels want them.
 */
#ifndef WF_CODEC_LOSSLESS_PLANE_H
#define WF_CODEC_LOSSLESS_PLANE_H

#include <string.h>

#include "codec/lossless.h"

#define BASES_TOKENS_LEAST 16u
#define STATES_BYTES (WF_LANES * sizeof(uint32_t))
#define SLACK 64u

/* Sizes of a plane, as the codec sees it. */
struct shape {
    size_t elements, groups, padded;
    uint32_t channels;
    struct wf_split split;
};

static inline struct shape shape_of(const struct wf_plane *plane)
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
static inline size_t part_bytes(const struct shape *s, uint32_t part)
{
    return part == 0 && s->split.bits < 8 ? wf_split_bytes(s->split, 0, s->groups) : s->elements;
}

static inline bool may_have_bases(const struct wf_plane *plane)
{
    uint64_t channels = (uint64_t)plane->heads * plane->head_dim;
    return plane->tokens >= BASES_TOKENS_LEAST && channels > 1 && channels <= WF_CHANNELS_MAX;
}

/* Where scratch memory goes. */
struct workplace {
    uint8_t *symbols, *part[WF_PARTS_MAX], *escapes, *words, *tile, *bases;
    const uint8_t *ahead; /* where the next plane is likely to be */
    uint32_t ahead_lines;
};

static inline size_t layout_workplace(const struct shape *s, uint8_t *scratch,
                                      struct workplace *out)
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

/* The bases of a group's elements, wherever it begins: `room` has those of the channels. */
static inline void fill_tile(struct wf_tile *tile, uint8_t *room, uint32_t channels)
{
    /* What is copied may be a copy. */
    for (uint32_t have = channels, some; have < channels + WF_GROUP; have += some) {
        some = channels + WF_GROUP - have;
        some = some < have ? some : have;
        memcpy(room + have, room, some);
    }
    *tile = (struct wf_tile){.base = room, .channels = channels, .step = WF_GROUP % channels};
}

#endif
