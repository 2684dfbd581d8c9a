/* SPDX-License-Identifier: Apache-2.0
 *
 * See transform.h for what is done and for the bytes that come of it.
 */
#include "codec/transform.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "codec/coder.h"
#include "codec/convert.h"
#include "codec/profile.h"
#include "codec/rope.h"

#define EIGHT 8u
#define MAGNITUDE_MAX (1u << 23) /* larger ones are not coded: the plane is stored as it is */
#define MANY_ELEMENTS 8192u      /* from here on four states pay */
/* An eight is coded by its first that is not zero when more than so much of WF_LAPLACE_TOTAL says
 * that there is none. */
#define SPARSE (WF_LAPLACE_TOTAL * 3 / 10)

/* How an eight of coefficients is coded. */
struct eight {
    bool sparse;
    uint16_t start[EIGHT + 2]; /* cumulative: none, the first of them, the second … */
};

/* How a group of the plane is coded, at its parameter. */
struct group {
    const struct wf_profile_group *profile;
    uint32_t dims, channel; /* the first one's number in the plane */
    float step;
};

/* Scratch of a call, cut out of the caller's. */
struct work {
    float *rows;                     /* [tokens][channels] */
    uint8_t *class;                  /* [channels] */
    uint8_t *shift;                  /* [channels] */
    struct eight *eights;            /* [groups × (dims + 7) / 8] */
    struct wf_coder_symbol *symbols; /* encode: all of the plane's */
    uint8_t *bits;                   /* encode */
    uint16_t *all;                   /* [WF_PROFILE_DIMS_MAX]: 0, 1, 2 … */
};

float wf_transform_factor(uint32_t parameter)
{
    /* 2^(i / 16) as a table, since libraries' powers differ in their last bit. */
    static const float part[WF_TRANSFORM_PER_OCTAVE] = {
        0x1.000000p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f,
        0x1.306fe0p+0f, 0x1.3dea64p+0f, 0x1.4bfdaep+0f, 0x1.5ab07ep+0f,
        0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f,
        0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f};
    int32_t away = (int32_t)parameter - (int32_t)WF_TRANSFORM_UNIT;
    int32_t octave = (int32_t)(parameter / WF_TRANSFORM_PER_OCTAVE) -
                     (int32_t)(WF_TRANSFORM_UNIT / WF_TRANSFORM_PER_OCTAVE);
    return ldexpf(part[(uint32_t)away % WF_TRANSFORM_PER_OCTAVE], octave);
}

/* ---------------------------------------------------------------------------------- preparation */

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static uint32_t channels_of(const struct wf_plane *plane)
{
    return plane->heads * plane->head_dim;
}

/* Eights of all groups; no group is smaller than a head. */
static size_t eights_max(const struct wf_plane *plane)
{
    return channels_of(plane) / EIGHT + plane->heads;
}

/* Each coefficient is a symbol, and each eight may be one more. */
static size_t symbols_max(const struct wf_plane *plane)
{
    return wf_plane_elements(plane) + plane->tokens * eights_max(plane);
}

static size_t transform_scratch(const struct wf_plane *plane)
{
    size_t channels = channels_of(plane);
    return round_up(wf_plane_elements(plane) * sizeof(float)) + 2 * round_up(channels) +
           round_up(eights_max(plane) * sizeof(struct eight)) +
           round_up(symbols_max(plane) * sizeof(struct wf_coder_symbol)) +
           round_up(wf_plane_bytes(plane)) + round_up(WF_PROFILE_DIMS_MAX * sizeof(uint16_t));
}

static void *cut(uint8_t **at, size_t bytes)
{
    void *out = *at;
    *at += round_up(bytes);
    return out;
}

static struct work work_in(const struct wf_plane *plane, void *scratch)
{
    uint8_t *at = scratch;
    size_t channels = channels_of(plane);
    struct work work;
    work.rows = cut(&at, wf_plane_elements(plane) * sizeof(float));
    work.class = cut(&at, channels);
    work.shift = cut(&at, channels);
    work.eights = cut(&at, eights_max(plane) * sizeof(struct eight));
    work.symbols = cut(&at, symbols_max(plane) * sizeof(struct wf_coder_symbol));
    work.bits = cut(&at, wf_plane_bytes(plane));
    work.all = cut(&at, WF_PROFILE_DIMS_MAX * sizeof(uint16_t));
    for (uint32_t i = 0; i < WF_PROFILE_DIMS_MAX; i++)
        work.all[i] = (uint16_t)i;
    return work;
}

static unsigned states_of(const struct wf_plane *plane)
{
    return wf_plane_elements(plane) >= MANY_ELEMENTS ? WF_CODER_STATES_MAX : 1;
}

static struct group group_of(const struct wf_plane *plane, uint32_t parameter, uint32_t index)
{
    const struct wf_profile *p = plane->profile;
    struct group group = {
        .profile = wf_profile_group_of(p, plane->layer, plane->value, index),
        .dims = wf_profile_dims(p, index),
        .channel = index * p->head.group_heads * plane->head_dim,
    };
    group.step = group.profile->step * wf_transform_factor(parameter);
    return group;
}

/* How likely is it that all of an eight are zero, and which is the first that is not? */
static void prepare_eight(const struct wf_laplace *laplace, const uint8_t *class, uint32_t count,
                          struct eight *out)
{
    uint32_t left = WF_LAPLACE_TOTAL, frequency[EIGHT + 1] = {0}, sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t zero = laplace->any[class[i]].start[1];
        uint32_t none = left * zero / WF_LAPLACE_TOTAL;
        frequency[i + 1] = left - none ? left - none : 1;
        sum += frequency[i + 1];
        left = none;
    }
    out->sparse = left > SPARSE && sum < WF_LAPLACE_TOTAL;
    frequency[0] = WF_LAPLACE_TOTAL - sum;
    uint32_t at = 0;
    for (uint32_t i = 0; out->sparse && i < EIGHT + 2; i++) {
        out->start[i] = (uint16_t)at;
        if (i <= count)
            at += frequency[i];
    }
}

static void prepare(const struct wf_plane *plane, uint32_t parameter, struct work *work)
{
    const struct wf_profile *p = plane->profile;
    struct eight *eight = work->eights;
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        uint8_t *class = work->class + group.channel, *shift = work->shift + group.channel;
        for (uint32_t i = 0; i < group.dims; i++) {
            float rho = group.profile->scale[i] / group.step;
            wf_laplace_class(rho < 1e30f ? rho : 1e30f, &class[i], &shift[i]);
        }
        for (uint32_t i = 0; i < group.dims; i += EIGHT)
            prepare_eight(p->laplace, class + i, group.dims - i < EIGHT ? group.dims - i : EIGHT,
                          eight++);
    }
}

/* Tokens of the plane that are sinks. */
static uint32_t sinks_of(const struct wf_plane *plane)
{
    uint32_t sinks = plane->profile->head.sinks;
    if (plane->position >= sinks)
        return 0;
    sinks -= (uint32_t)plane->position;
    return sinks < plane->tokens ? sinks : plane->tokens;
}

static bool turned(const struct wf_plane *plane)
{
    return !plane->value && plane->profile->rope.dims > 0 &&
           plane->position < WF_ROPE_POSITION_MAX - plane->tokens;
}

/* ----------------------------------------------------------------------------------- one number */

/* Exp-Golomb: as many zeros as `value` + 1 has bits besides the first, then those bits. */
static void encode_rest(struct wf_encoder *e, uint32_t value)
{
    unsigned bits = 31 - (unsigned)__builtin_clz(value + 1);
    wf_encoder_bits(e, 0, bits);
    wf_encoder_bits(e, value + 1, bits + 1);
}

static uint32_t decode_rest(struct wf_decoder *d)
{
    unsigned zeros = 0;
    while (zeros < 24 && wf_decoder_bits(d, 1) == 0)
        zeros++;
    return (1u << zeros | wf_decoder_bits(d, zeros)) - 1;
}

static void encode_magnitude(struct wf_encoder *e, const struct wf_laplace_table *table,
                             uint32_t magnitude)
{
    uint32_t symbol = magnitude < table->last ? magnitude : table->last;
    wf_encoder_symbol(e, table->start[symbol],
                      (uint32_t)table->start[symbol + 1] - table->start[symbol]);
    if (symbol == table->last)
        encode_rest(e, magnitude - symbol);
}

static uint32_t decode_magnitude(struct wf_decoder *d, const struct wf_laplace_table *table)
{
    uint32_t symbol = table->symbol[wf_decoder_peek(d)];
    wf_decoder_advance(d, table->start[symbol],
                       (uint32_t)table->start[symbol + 1] - table->start[symbol]);
    return symbol == table->last ? symbol + decode_rest(d) : symbol;
}

static void encode_any(struct wf_encoder *e, const struct wf_laplace *laplace, uint8_t class,
                       uint8_t shift, int32_t value)
{
    uint32_t magnitude = (uint32_t)(value < 0 ? -value : value);
    encode_magnitude(e, &laplace->any[class], magnitude >> shift);
    if (shift)
        wf_encoder_bits(e, magnitude & ((1u << shift) - 1), shift);
    if (magnitude)
        wf_encoder_bits(e, value < 0, 1);
}

/* In steps. */
static float decode_any(struct wf_decoder *d, const struct wf_laplace *laplace, uint8_t class,
                        uint8_t shift)
{
    uint32_t magnitude = decode_magnitude(d, &laplace->any[class]);
    if (shift)
        magnitude = magnitude << shift | wf_decoder_bits(d, shift);
    if (magnitude == 0)
        return 0;
    float steps = (float)magnitude - (shift ? 0 : laplace->toward_zero[class]);
    return wf_decoder_bits(d, 1) ? -steps : steps;
}

/* -------------------------------------------------------------------------------------- a token */

static void encode_eight(struct wf_encoder *e, const struct wf_laplace *laplace,
                         const struct eight *eight, const uint8_t *class, const uint8_t *shift,
                         const int32_t *value, uint32_t count)
{
    uint32_t first = 0;
    if (eight->sparse) {
        while (first < count && value[first] == 0)
            first++;
        uint32_t symbol = first < count ? first + 1 : 0;
        wf_encoder_symbol(e, eight->start[symbol],
                          (uint32_t)eight->start[symbol + 1] - eight->start[symbol]);
        if (first == count)
            return;
        /* So wide a distribution that its magnitudes have a shift is never sparse. */
        uint32_t magnitude = (uint32_t)(value[first] < 0 ? -value[first] : value[first]);
        encode_magnitude(e, &laplace->nonzero[class[first]], magnitude - 1);
        wf_encoder_bits(e, value[first] < 0, 1);
        first++;
    }
    for (uint32_t i = first; i < count; i++)
        encode_any(e, laplace, class[i], shift[i], value[i]);
}

/* Appends what is not zero to `weight` and `row`; returns how many there are then. */
static uint32_t decode_eight(struct wf_decoder *d, const struct wf_laplace *laplace,
                             const struct eight *eight, const uint8_t *class, const uint8_t *shift,
                             uint32_t number, uint32_t count, float *weight, uint16_t *row,
                             uint32_t found)
{
    uint32_t i = 0;
    if (eight->sparse) {
        uint32_t at = wf_decoder_peek(d), symbol = 0;
        while (symbol < count && at >= eight->start[symbol + 1])
            symbol++;
        wf_decoder_advance(d, eight->start[symbol],
                           (uint32_t)eight->start[symbol + 1] - eight->start[symbol]);
        if (symbol == 0)
            return found;
        i = symbol - 1;
        float steps = 1 + (float)decode_magnitude(d, &laplace->nonzero[class[i]]) -
                      laplace->toward_zero[class[i]];
        weight[found] = wf_decoder_bits(d, 1) ? -steps : steps;
        row[found++] = (uint16_t)(number + i);
        i++;
    }
    for (; i < count; i++) {
        float steps = decode_any(d, laplace, class[i], shift[i]);
        weight[found] = steps;
        row[found] = (uint16_t)(number + i);
        found += steps != 0;
    }
    return found;
}

/* Coefficients to whole steps.  False: one is beyond what is coded, or no number.  Without
 * branches, since signs are not to be foreseen. */
static bool quantise(const float *restrict coefficient, float step, uint32_t dims,
                     int32_t *restrict out)
{
    const uint32_t most = wf_float_bits((float)MAGNITUDE_MAX);
    uint32_t beyond = 0;
    for (uint32_t i = 0; i < dims; i++) {
        float steps = coefficient[i] / step;
        uint32_t bits = wf_float_bits(steps), sign = bits & 0x80000000u;
        uint32_t far = (bits & 0x7fffffffu) >= most ? UINT32_MAX : 0;
        beyond |= far;
        steps += wf_bits_float(0x3f000000u | sign); /* half a step outwards */
        out[i] = (int32_t)wf_bits_float(wf_float_bits(steps) & ~far);
    }
    return beyond == 0;
}

static bool encode_token(const struct wf_plane *plane, uint32_t parameter, const struct work *work,
                         const float *row, struct wf_encoder *e)
{
    const struct wf_profile *p = plane->profile;
    const struct eight *eight = work->eights;
    float away[WF_PROFILE_DIMS_MAX], coefficient[WF_PROFILE_DIMS_MAX];
    static const float zeros[WF_PROFILE_DIMS_MAX];
    int32_t value[WF_PROFILE_DIMS_MAX];
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        const float *x = row + group.channel;
        for (uint32_t i = 0; i < group.dims; i++)
            away[i] = x[i] - group.profile->mean[i];
        wf_transform_combine(coefficient, zeros, away, work->all, group.dims,
                             group.profile->forward, group.dims);
        if (!quantise(coefficient, group.step, group.dims, value))
            return false;
        for (uint32_t i = 0; i < group.dims; i += EIGHT)
            encode_eight(e, p->laplace, eight++, work->class + group.channel + i,
                         work->shift + group.channel + i, value + i,
                         group.dims - i < EIGHT ? group.dims - i : EIGHT);
    }
    return true;
}

static void decode_token(const struct wf_plane *plane, uint32_t parameter, const struct work *work,
                         struct wf_decoder *d, float *row)
{
    const struct wf_profile *p = plane->profile;
    const struct eight *eight = work->eights;
    float weight[WF_PROFILE_DIMS_MAX + 1];
    uint16_t number[WF_PROFILE_DIMS_MAX + 1];
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        uint32_t found = 0;
        for (uint32_t i = 0; i < group.dims; i += EIGHT)
            found = decode_eight(d, p->laplace, eight++, work->class + group.channel + i,
                                 work->shift + group.channel + i, i,
                                 group.dims - i < EIGHT ? group.dims - i : EIGHT, weight, number,
                                 found);
        for (uint32_t i = 0; i < found; i++)
            weight[i] *= group.step;
        wf_transform_combine(row + group.channel, group.profile->mean, weight, number, found,
                             group.profile->inverse, group.dims);
    }
}

/* -------------------------------------------------------------------------------------- a plane */

static bool transform_takes(const struct wf_plane *plane)
{
    return plane->profile && wf_profile_fits(plane->profile, plane) &&
           weft_dtype_bytes(plane->dtype) > 0 && plane->dtype != WEFT_INT8;
}

static size_t transform_bound(const struct wf_plane *plane)
{
    return wf_plane_bytes(plane);
}

/* What was coded was finite, and an error must not make an infinity of the largest there are. */
static void keep_finite(enum weft_dtype dtype, float *rows, size_t count)
{
    float most = dtype == WEFT_F16        ? 65504.0f
                 : dtype == WEFT_FP8_E5M2 ? 57344.0f
                 : dtype == WEFT_BF16     ? 0x1.fep127f
                                          : 0x1.fffffep127f;
    for (size_t i = 0; i < count; i++) {
        float value = rows[i] < most ? rows[i] : most;
        rows[i] = value > -most ? value : -most;
    }
}

static uint32_t parameter_of(const struct wf_plane *plane, uint32_t parameter)
{
    if (parameter == 0)
        parameter = plane->profile->head.points[2].parameter;
    return parameter ? parameter : WF_TRANSFORM_UNIT;
}

static enum weft_status transform_encode(const struct wf_plane *plane, uint32_t parameter,
                                         const void *plain, void *out, size_t capacity,
                                         size_t *out_bytes, void *scratch)
{
    parameter = parameter_of(plane, parameter);
    if (!transform_takes(plane) || parameter > WF_TRANSFORM_PARAMETER_MAX)
        return WEFT_MISS;
    struct work work = work_in(plane, scratch);
    uint32_t sinks = sinks_of(plane), channels = channels_of(plane);
    size_t exact = sinks * channels * weft_dtype_bytes(plane->dtype), plane_bytes;
    uint8_t *at = out;
    plane_bytes = wf_plane_bytes(plane);
    if (capacity > plane_bytes)
        capacity = plane_bytes;
    if (capacity < 1 + exact)
        return WEFT_MISS;
    *at++ = (uint8_t)sinks;
    memcpy(at, plain, exact);

    wf_floats_of(plane->dtype, plain, wf_plane_elements(plane), work.rows);
    if (turned(plane))
        wf_rope_undo(&plane->profile->rope, plane->position, work.rows, plane->tokens, plane->heads,
                     plane->head_dim);
    prepare(plane, parameter, &work);
    struct wf_encoder encoder = {.symbols = work.symbols,
                                 .symbols_max = symbols_max(plane),
                                 .bits = work.bits,
                                 .bit_bytes_max = plane_bytes};
    for (uint32_t t = sinks; t < plane->tokens; t++) {
        if (!encode_token(plane, parameter, &work, work.rows + (size_t)t * channels, &encoder))
            return WEFT_MISS;
    }
    size_t coded = wf_encoder_finish(&encoder, states_of(plane), at + exact, capacity - 1 - exact);
    if (!coded)
        return WEFT_MISS;
    *out_bytes = 1 + exact + coded;
    return WEFT_OK;
}

static enum weft_status transform_decode(const struct wf_plane *plane, uint32_t parameter,
                                         const void *in, size_t bytes, void *plain, void *scratch)
{
    const uint8_t *at = in;
    struct wf_decoder decoder;
    if (!plane->profile || !transform_takes(plane))
        return wf_fail(WEFT_E_CORRUPT, "a plane of layer %u needs a profile that is not here",
                       plane->layer);
    parameter = parameter_of(plane, parameter);
    uint32_t sinks = sinks_of(plane), channels = channels_of(plane);
    size_t exact = sinks * channels * weft_dtype_bytes(plane->dtype);
    if (parameter > WF_TRANSFORM_PARAMETER_MAX || bytes < 1 + exact || at[0] != sinks ||
        !wf_decoder_init(&decoder, states_of(plane), at + 1 + exact, bytes - 1 - exact))
        return wf_fail(WEFT_E_CORRUPT, "an encoded plane of layer %u is cut off, or another's",
                       plane->layer);
    struct work work = work_in(plane, scratch);
    prepare(plane, parameter, &work);
    memset(work.rows, 0, sinks * channels * sizeof(float));
    for (uint32_t t = sinks; t < plane->tokens && !decoder.broken; t++)
        decode_token(plane, parameter, &work, &decoder, work.rows + (size_t)t * channels);
    if (!wf_decoder_ended(&decoder))
        return wf_fail(WEFT_E_CORRUPT, "an encoded plane of layer %u does not end where it should",
                       plane->layer);
    if (turned(plane))
        wf_rope_redo(&plane->profile->rope, plane->position, work.rows, plane->tokens, plane->heads,
                     plane->head_dim);
    keep_finite(plane->dtype, work.rows, wf_plane_elements(plane));
    wf_floats_to(plane->dtype, work.rows, wf_plane_elements(plane), plain);
    memcpy(plain, at + 1, exact);
    return WEFT_OK;
}

const struct wf_codec wf_codec_transform = {
    .name = "transform",
    .says = "a basis and a step for each group of heads, from a profile; entropy-coded",
    .id = WF_CODEC_TRANSFORM,
    .lossless = false,
    .profiled = true,
    .takes = transform_takes,
    .bound = transform_bound,
    .scratch = transform_scratch,
    .encode = transform_encode,
    .decode = transform_decode,
};
