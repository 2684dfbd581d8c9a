/* SPDX-License-Identifier: Apache-2.0
 *
 * How the quantising codecs walk through a plane: the first tokens of a sequence stay as they are,
 * the rest is cut into chunks of up to WF_CELL_SAMPLES tokens, each of these into strips of
 * channels that fit into a cell.  Chunks and strips are as alike in size as can be, so that there
 * is no small one at the end that pays for scales of its own.
 *
 * The first tokens are those that attention sinks into (StreamingLLM, arXiv 2309.17453): their
 * numbers are like no others and much depends on them.  The newest tokens need nothing here: a
 * block is only given to a codec when it is full, so that what is being written is exact by the
 * store's nature.
 *
 * Of every quantising codec's parameter, bits 8 … 11 say how many tokens those first are: 0 means
 * 4, and 15 none.
 */
#ifndef WF_CODEC_QUANT_PART_H
#define WF_CODEC_QUANT_PART_H

#include "codec/codec.h"
#include "codec/quant_kernel.h"

#define WF_SINKS_MAX 14u

struct wf_part {
    uint32_t first, tokens; /* counted from the plane's first */
    uint32_t channel, channels;
};

static inline uint32_t wf_sinks_of(const struct wf_plane *plane, uint32_t parameter)
{
    uint32_t sinks = parameter >> 8 & 15;
    sinks = sinks == 0 ? 4 : sinks > WF_SINKS_MAX ? 0 : sinks;
    uint64_t left = plane->position < sinks ? sinks - plane->position : 0;
    return left < plane->tokens ? (uint32_t)left : plane->tokens;
}

static inline uint32_t wf_chunks_of(uint32_t tokens)
{
    return (tokens + WF_CELL_SAMPLES - 1) / WF_CELL_SAMPLES;
}

/* `whole` in `pieces`: where piece `index` begins. */
static inline uint32_t wf_piece_at(size_t whole, size_t pieces, size_t index)
{
    return (uint32_t)(whole * index / pieces);
}

/* Chunk `chunk` of the tokens after the sinks; false: there is none. */
static inline bool wf_part_chunk(const struct wf_plane *plane, uint32_t sinks, uint32_t chunk,
                                 struct wf_part *part)
{
    uint32_t tokens = plane->tokens - sinks, chunks = wf_chunks_of(tokens);
    if (chunk >= chunks)
        return false;
    part->first = sinks + wf_piece_at(tokens, chunks, chunk);
    part->tokens = sinks + wf_piece_at(tokens, chunks, chunk + 1) - part->first;
    return true;
}

/* Strip `strip` of up to `most` channels, and a multiple of `unit` of them, as `most` and a row
 * are; false: there is none. */
static inline bool wf_part_strip(const struct wf_plane *plane, uint32_t unit, uint32_t most,
                                 uint32_t strip, struct wf_part *part)
{
    size_t row = (size_t)plane->heads * plane->head_dim, strips = (row + most - 1) / most;
    if (strip >= strips)
        return false;
    part->channel = unit * wf_piece_at(row / unit, strips, strip);
    part->channels = unit * wf_piece_at(row / unit, strips, strip + 1) - part->channel;
    return true;
}

/* Where token `token` of a part begins in the plane's bytes. */
static inline size_t wf_part_place(const struct wf_plane *plane, const struct wf_part *part,
                                   uint32_t token)
{
    size_t row = (size_t)plane->heads * plane->head_dim;
    return ((part->first + token) * row + part->channel) * weft_dtype_bytes(plane->dtype);
}

#endif
