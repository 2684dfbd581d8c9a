/* SPDX-License-Identifier: Apache-2.0
 *
 * int8 and fp8: a byte an element, for speed.
 *
 * int8 is symmetric, with a step of its own for each channel of a chunk of keys, since it is
 * channels that differ there, or for 64 channels of a token.  Which of the two, keys and values
 * decide, and whether there are tokens enough to share a channel's step.  Steps are a byte each:
 * step = coarsest × 2^(−n / 8).  fp8 is OCP's e4m3 with one power of two for up to 64 tokens of
 * up to 256 channels, which brings the greatest number there to between half its range and all
 * of it.
 *
 *     0   +--------------------------------------------------------------+
 *         | the sinks as they are                                        |
 *         +--------------------------------------------------------------+
 *         | cells: per chunk of up to 64 tokens, strip after strip:      |
 *         |   float: int8: the coarsest step; fp8: what 1 stands for     |
 *         |   int8: a byte a step                                        |
 *         |   a byte an element, token after token                       |
 *         +--------------------------------------------------------------+
 *
 * The parameter is that of quant_part.h alone.
 *
 * A plane with an infinity or a NaN, or with a cell of nothing but numbers too small to divide
 * by, is not taken: WEFT_MISS.  int8's error is at most half a step, and a step at most 1.1 / 127
 * of the greatest magnitude that shares it, unless that is 2^-31 of the cell's; fp8's is at most
 * 2^-4 of the number, or 2^-18 of the greatest of the cell.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "codec/codec.h"
#include "codec/convert.h"
#include "codec/quant_kernel.h"
#include "codec/quant_part.h"

#define GROUP 64u       /* channels of a token that share a step */
#define SHARED_MIN 16u  /* tokens from which a channel's step pays */
#define LEAST 0x1p-80f  /* magnitude that steps can be made of */
#define E4M3_TOP 0x1p8f /* the binade of the largest, 448 */

/* 2^(−k / 8) */
static const float eighths[8] = {1.0f,         0.917004049f, 0.840896428f, 0.771105409f,
                                 0.707106769f, 0.648419797f, 0.594603539f, 0.545253873f};

struct memory {
    float tile[WF_TILE];
    float row[WF_CELL_LANES], inverse[WF_CELL_LANES];
    struct wf_lane_stats stats;
};

/* A walk through a plane. */
struct walk {
    const struct wf_plane *plane;
    const struct wf_quant_kernel *kernel;
    struct memory *memory;
    uint32_t sinks;
    struct wf_part part;
};

static bool takes(const struct wf_plane *plane)
{
    /* A row of fewer elements is no row of a head, and may be an engine's own bytes. */
    return plane->dtype >= WEFT_F32 && plane->dtype <= WEFT_BF16 &&
           (size_t)plane->heads * plane->head_dim >= 8;
}

static size_t bound(const struct wf_plane *plane)
{
    size_t row = (size_t)plane->heads * plane->head_dim, chunks = wf_chunks_of(plane->tokens);
    size_t cells = chunks * ((row + WF_CELL_LANES - 1) / WF_CELL_LANES);
    return WF_SINKS_MAX * row * weft_dtype_bytes(plane->dtype) + wf_plane_elements(plane) +
           cells * (sizeof(float) + WF_CELL_SAMPLES * WF_CELL_LANES / GROUP) + chunks * row;
}

static size_t scratch_bytes(const struct wf_plane *plane)
{
    (void)plane;
    return sizeof(struct memory);
}

static struct walk start(const struct wf_plane *plane, uint32_t parameter, void *scratch)
{
    return (struct walk){.plane = plane,
                         .kernel = wf_quant_kernel_widest(),
                         .memory = scratch,
                         .sinks = wf_sinks_of(plane, parameter)};
}

static size_t kept_bytes(const struct walk *walk)
{
    return (size_t)walk->sinks * walk->plane->heads * walk->plane->head_dim *
           weft_dtype_bytes(walk->plane->dtype);
}

/* The current part into the tile; false: something is not finite. */
static bool load_part(struct walk *walk, const uint8_t *plain, float *highest)
{
    *highest = 0;
    for (uint32_t t = 0; t < walk->part.tokens; t++)
        walk->kernel->load(walk->plane->dtype, plain + wf_part_place(walk->plane, &walk->part, t),
                           walk->part.channels, walk->memory->tile + (size_t)t * WF_TILE_STRIDE,
                           highest);
    return *highest <= 0x1.fffffep127f && (*highest == 0 || *highest >= LEAST);
}

/* ----------------------------------------------------------------------------------------- int8 */

static bool by_channel(const struct walk *walk)
{
    return !walk->plane->value && walk->part.tokens >= SHARED_MIN;
}

static uint32_t groups_of(const struct walk *walk)
{
    return (walk->part.channels + GROUP - 1) / GROUP;
}

static size_t steps_of(const struct walk *walk)
{
    return by_channel(walk) ? walk->part.channels : (size_t)walk->part.tokens * groups_of(walk);
}

static float step_of(float coarsest, uint8_t n)
{
    return coarsest * eighths[n % 8] * wf_bits_float((127u - n / 8) << 23);
}

/* The finest step that reaches `most`. */
static uint8_t finest_for(float coarsest, float most)
{
    unsigned n = 255;
    if (most > 0) { /* from about an eighth above */
        int exponent = (int)(wf_float_bits(coarsest * 127) >> 23) -
                       (int)(wf_float_bits(most) >> 23);
        exponent = exponent + 1 < 31 ? exponent + 1 : 31;
        n = 8 * (unsigned)(exponent > 0 ? exponent : 0) + 7;
    }
    while (n > 0 && step_of(coarsest, (uint8_t)n) * 127 < most)
        n--;
    return (uint8_t)n;
}

static void fill_group(float *restrict row, float step)
{
    for (size_t i = 0; i < GROUP; i++)
        row[i] = step;
}

/* `row` becomes the steps of token `token`, by channel. */
static void spread_steps(const struct walk *walk, const uint8_t *steps, float coarsest,
                         uint32_t token)
{
    float *row = walk->memory->row;
    if (by_channel(walk)) {
        for (uint32_t c = 0; token == 0 && c < walk->part.channels; c++)
            row[c] = step_of(coarsest, steps[c]);
        return;
    }
    steps += (size_t)token * groups_of(walk);
    for (uint32_t g = 0; g < groups_of(walk); g++)
        fill_group(row + (size_t)g * GROUP, step_of(coarsest, steps[g]));
}

static void choose_steps(struct walk *walk, float coarsest, uint8_t *steps)
{
    struct memory *memory = walk->memory;
    uint32_t channels = walk->part.channels;
    if (by_channel(walk)) {
        struct wf_lane_stats *stats = &memory->stats;
        walk->kernel->measure(memory->tile, walk->part.tokens, WF_CELL_LANES, false, stats);
        for (uint32_t c = 0; c < channels; c++)
            steps[c] = finest_for(coarsest, stats->high[c] > -stats->low[c] ? stats->high[c]
                                                                            : -stats->low[c]);
        return;
    }
    for (uint32_t t = 0; t < walk->part.tokens; t++)
        for (uint32_t c = 0; c < channels; c += GROUP) {
            uint32_t some = channels - c < GROUP ? channels - c : GROUP;
            float most = 0;
            walk->kernel->load(WEFT_F32, memory->tile + (size_t)t * WF_TILE_STRIDE + c, some,
                               memory->row, &most);
            *steps++ = finest_for(coarsest, most);
        }
}

static size_t encode_int8_part(struct walk *walk, float highest, uint8_t *out)
{
    struct memory *memory = walk->memory;
    float coarsest = highest > 0 ? highest / 127 * 1.0001f : 1.0f;
    memcpy(out, &coarsest, sizeof coarsest);
    uint8_t *steps = out + sizeof coarsest, *codes = steps + steps_of(walk);
    choose_steps(walk, coarsest, steps);
    for (uint32_t t = 0; t < walk->part.tokens; t++) {
        spread_steps(walk, steps, coarsest, t);
        for (uint32_t c = 0; (t == 0 || !by_channel(walk)) && c < walk->part.channels; c++)
            memory->inverse[c] = 1.0f / memory->row[c];
        walk->kernel->round_signed(memory->tile + (size_t)t * WF_TILE_STRIDE, memory->inverse,
                                   walk->part.channels, (int8_t *)codes);
        codes += walk->part.channels;
    }
    return (size_t)(codes - out);
}

static size_t decode_int8_part(struct walk *walk, const uint8_t *in, size_t bytes, uint8_t *plain)
{
    float coarsest;
    size_t need = sizeof coarsest + steps_of(walk) +
                  (size_t)walk->part.tokens * walk->part.channels;
    if (bytes < need)
        return 0;
    memcpy(&coarsest, in, sizeof coarsest);
    if (!(coarsest >= 0 && coarsest <= 0x1.fffffep127f))
        return 0;
    const uint8_t *steps = in + sizeof coarsest, *codes = steps + steps_of(walk);
    for (uint32_t t = 0; t < walk->part.tokens; t++) {
        spread_steps(walk, steps, coarsest, t);
        walk->kernel->scale_signed((const int8_t *)codes, walk->memory->row, walk->part.channels,
                                   walk->memory->tile);
        walk->kernel->store(walk->plane->dtype, walk->memory->tile, walk->part.channels, 1,
                            plain + wf_part_place(walk->plane, &walk->part, t));
        codes += walk->part.channels;
    }
    return need;
}

/* ------------------------------------------------------------------------------------------ fp8 */

static size_t encode_fp8_part(struct walk *walk, float highest, uint8_t *out)
{
    /* The power of two that brings `highest` just below E4M3_TOP × 1.75, the largest. */
    float unit = wf_bits_float(wf_float_bits(highest > 0 ? highest : 1.0f) & 0x7f800000) / E4M3_TOP;
    if (highest / unit > 448.0f)
        unit *= 2;
    memcpy(out, &unit, sizeof unit);
    uint8_t *codes = out + sizeof unit;
    for (uint32_t t = 0; t < walk->part.tokens; t++) {
        walk->kernel->store(WEFT_FP8_E4M3, walk->memory->tile + (size_t)t * WF_TILE_STRIDE,
                            walk->part.channels, 1 / unit, codes);
        codes += walk->part.channels;
    }
    return (size_t)(codes - out);
}

static size_t decode_fp8_part(struct walk *walk, const uint8_t *in, size_t bytes, uint8_t *plain)
{
    float unit;
    size_t need = sizeof unit + (size_t)walk->part.tokens * walk->part.channels;
    if (bytes < need)
        return 0;
    memcpy(&unit, in, sizeof unit);
    if (!(unit >= 0 && unit <= 0x1.fffffep127f))
        return 0;
    const uint8_t *codes = in + sizeof unit;
    for (uint32_t t = 0; t < walk->part.tokens; t++) {
        float ignored = 0;
        walk->kernel->load(WEFT_FP8_E4M3, codes, walk->part.channels, walk->memory->tile, &ignored);
        walk->kernel->store(walk->plane->dtype, walk->memory->tile, walk->part.channels, unit,
                            plain + wf_part_place(walk->plane, &walk->part, t));
        codes += walk->part.channels;
    }
    return need;
}

/* --------------------------------------------------------------------------------------- planes */

static enum weft_status encode(const struct wf_plane *plane, uint32_t parameter, const void *plain,
                               void *out, size_t *out_bytes, void *scratch,
                               size_t (*encode_part)(struct walk *, float, uint8_t *))
{
    struct walk walk = start(plane, parameter, scratch);
    uint8_t *at = out;
    memset(walk.memory->tile, 0, sizeof walk.memory->tile);
    memcpy(at, plain, kept_bytes(&walk));
    at += kept_bytes(&walk);
    for (uint32_t chunk = 0; wf_part_chunk(plane, walk.sinks, chunk, &walk.part); chunk++)
        for (uint32_t strip = 0; wf_part_strip(plane, 1, WF_CELL_LANES, strip, &walk.part);
             strip++) {
            float highest;
            if (!load_part(&walk, plain, &highest))
                return WEFT_MISS;
            at += encode_part(&walk, highest, at);
        }
    size_t bytes = (size_t)(at - (uint8_t *)out);
    if (bytes >= wf_plane_bytes(plane))
        return WEFT_MISS;
    *out_bytes = bytes;
    return WEFT_OK;
}

static enum weft_status
decode(const struct wf_plane *plane, uint32_t parameter, const void *in, size_t bytes, void *plain,
       void *scratch, size_t (*decode_part)(struct walk *, const uint8_t *, size_t, uint8_t *))
{
    struct walk walk = start(plane, parameter, scratch);
    const uint8_t *at = in, *end = at + bytes;
    size_t kept = kept_bytes(&walk);
    size_t used = bytes < kept ? 0 : kept;
    if (bytes >= kept) {
        memcpy(plain, at, kept);
        at += kept;
        used = 1;
    }
    for (uint32_t chunk = 0; used && wf_part_chunk(plane, walk.sinks, chunk, &walk.part); chunk++)
        for (uint32_t strip = 0; used && wf_part_strip(plane, 1, WF_CELL_LANES, strip, &walk.part);
             strip++) {
            used = decode_part(&walk, at, (size_t)(end - at), plain);
            at += used;
        }
    if (!used || at != end)
        return wf_fail(WEFT_E_CORRUPT,
                       "a quantised plane of %zu bytes is damaged; the block has to be computed "
                       "anew",
                       bytes);
    return WEFT_OK;
}

static enum weft_status encode_int8(const struct wf_plane *plane, uint32_t parameter,
                                    const void *plain, void *out, size_t capacity,
                                    size_t *out_bytes, void *scratch)
{
    (void)capacity;
    return encode(plane, parameter, plain, out, out_bytes, scratch, encode_int8_part);
}

static enum weft_status decode_int8(const struct wf_plane *plane, uint32_t parameter,
                                    const void *in, size_t bytes, void *plain, void *scratch)
{
    return decode(plane, parameter, in, bytes, plain, scratch, decode_int8_part);
}

static enum weft_status encode_fp8(const struct wf_plane *plane, uint32_t parameter,
                                   const void *plain, void *out, size_t capacity, size_t *out_bytes,
                                   void *scratch)
{
    (void)capacity;
    return encode(plane, parameter, plain, out, out_bytes, scratch, encode_fp8_part);
}

static enum weft_status decode_fp8(const struct wf_plane *plane, uint32_t parameter, const void *in,
                                   size_t bytes, void *plain, void *scratch)
{
    return decode(plane, parameter, in, bytes, plain, scratch, decode_fp8_part);
}

const struct wf_codec wf_codec_int8 = {
    .name = "int8",
    .says = "8 bits an element, with a step for each channel of keys and each token of values",
    .id = WF_CODEC_INT8,
    .takes = takes,
    .bound = bound,
    .scratch = scratch_bytes,
    .encode = encode_int8,
    .decode = decode_int8,
};

const struct wf_codec wf_codec_fp8 = {
    .name = "fp8",
    .says = "e4m3 with a power of two for each 64 tokens",
    .id = WF_CODEC_FP8,
    .takes = takes,
    .bound = bound,
    .scratch = scratch_bytes,
    .encode = encode_fp8,
    .decode = decode_fp8,
};
