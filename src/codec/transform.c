/* SPDX-License-Identifier: Apache-2.0
 *
 * See transform.h for what is done and for the bytes that come of it.
 */
#include "codec/transform.h"

#include <math.h>
#include <string.h>

#include "codec/profile.h"

#define EIGHT 8u
#define MANY_ELEMENTS 6144u /* from here on 16 states pay */
#define FEW_STATES 4u
/* An eight may be left out when it is zero for all 16 tokens with more than this chance. */
#define SPARSE (WF_LAPLACE_TOTAL / 8)

/* How a group of the plane is coded, at its parameter. */
struct group {
    const struct wf_profile_group *profile;
    uint32_t dims, heads;
    uint32_t channel, eight; /* the first one's number in the plane */
    float step;
};

/* Scratch of a call, cut out of the caller's. */
struct work {
    const struct wf_lanes_kernels *k;
    float *rows, *coefficients; /* [WF_PROFILE_DIMS_MAX][16] */
    int32_t *quantised;         /* [WF_PROFILE_DIMS_MAX][16] */
    float *cosine, *sine;       /* [WF_PROFILE_DIMS_MAX / 2][16] */
    uint16_t *number;           /* [WF_PROFILE_DIMS_MAX]: of rows of a matrix */
    uint8_t *class, *shift;     /* [channels] */
    uint8_t *sparse;            /* [eights]: it may be left out */
    uint8_t *coded;             /* [times][eights]: it was not */
    uint8_t *classes;           /* [times × channels]: of the coder's steps */
    uint8_t *symbols;           /* [times × channels][16] */
    uint8_t *front;             /* decode */
    uint8_t *bits;
    uint8_t *words; /* encode */
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

/* Eights of all groups, or more: no group is smaller than a head. */
static size_t eights_max(const struct wf_plane *plane)
{
    return channels_of(plane) / EIGHT + plane->heads;
}

/* How many times 16 tokens there are, or more. */
static size_t times_max(const struct wf_plane *plane)
{
    return (plane->tokens + WF_CODER_LANES - 1) / WF_CODER_LANES;
}

static size_t front_max(const struct wf_plane *plane)
{
    return (times_max(plane) * eights_max(plane) + WF_CODER_STATES_MAX * 35) / 8 + 1;
}

/* Memory that is handed out from its front; NULL: only counted. */
struct cutting {
    uint8_t *memory;
    size_t used;
};

static void *cut(struct cutting *c, size_t bytes)
{
    void *out = c->memory ? c->memory + c->used : NULL;
    c->used += round_up(bytes);
    return out;
}

/* Where everything lies in `memory`; returns how much that is. */
static size_t lay_out(const struct wf_plane *plane, uint8_t *memory, struct work *work)
{
    struct cutting at = {.memory = memory};
    size_t channels = channels_of(plane), times = times_max(plane);
    size_t most = WF_PROFILE_DIMS_MAX * WF_CODER_LANES;
    work->rows = cut(&at, most * sizeof(float));
    work->coefficients = cut(&at, most * sizeof(float));
    work->quantised = cut(&at, most * sizeof(int32_t));
    work->cosine = cut(&at, most / 2 * sizeof(float));
    work->sine = cut(&at, most / 2 * sizeof(float));
    work->number = cut(&at, WF_PROFILE_DIMS_MAX * sizeof(uint16_t));
    work->class = cut(&at, channels);
    work->shift = cut(&at, channels);
    work->sparse = cut(&at, eights_max(plane));
    work->coded = cut(&at, times * eights_max(plane));
    work->classes = cut(&at, times * channels);
    work->symbols = cut(&at, times * channels * WF_CODER_LANES);
    work->front = cut(&at, front_max(plane) + WF_BITS_SLACK);
    work->bits = cut(&at, wf_plane_bytes(plane) + WF_CODER_PAYLOAD_MAX + WF_BITS_SLACK);
    work->words = cut(&at, wf_plane_bytes(plane));
    return at.used;
}

static size_t transform_scratch(const struct wf_plane *plane)
{
    struct work work;
    return lay_out(plane, NULL, &work);
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

static unsigned states_of(const struct wf_plane *plane)
{
    size_t elements = (size_t)(plane->tokens - sinks_of(plane)) * channels_of(plane);
    return elements >= MANY_ELEMENTS ? WF_CODER_STATES_MAX : FEW_STATES;
}

/* Tokens from `token` on that go together. */
static unsigned lanes_at(const struct wf_plane *plane, uint32_t token)
{
    uint32_t left = plane->tokens - token;
    return left < WF_CODER_LANES ? left : WF_CODER_LANES;
}

/* And how many go the last time, if not 16. */
static unsigned rest_of(const struct wf_plane *plane)
{
    return (plane->tokens - sinks_of(plane)) % WF_CODER_LANES;
}

static uint32_t eights_of(uint32_t dims)
{
    return (dims + EIGHT - 1) / EIGHT;
}

/* All groups but the last are alike. */
static struct group group_of(const struct wf_plane *plane, uint32_t parameter, uint32_t index)
{
    const struct wf_profile *p = plane->profile;
    struct group group = {
        .profile = wf_profile_group_of(p, plane->layer, plane->value, index),
        .dims = wf_profile_dims(p, index),
        .channel = index * p->head.group_heads * plane->head_dim,
        .eight = index * eights_of(p->head.group_heads * plane->head_dim),
    };
    group.heads = group.dims / plane->head_dim;
    group.step = group.profile->step * wf_transform_factor(parameter);
    return group;
}

static uint32_t eights_in(const struct wf_plane *plane)
{
    const struct wf_profile *p = plane->profile;
    return (p->groups - 1) * eights_of(p->head.group_heads * plane->head_dim) +
           eights_of(wf_profile_dims(p, p->groups - 1));
}

/* May all of an eight be zero, for 16 tokens? */
static bool is_sparse(const struct wf_laplace *laplace, const uint8_t *class, uint32_t count)
{
    uint32_t none = WF_LAPLACE_TOTAL;
    for (uint32_t i = 0; i < count; i++)
        none = none * laplace->table[class[i]].frequency[0] / WF_LAPLACE_TOTAL;
    for (uint32_t tokens = 1; tokens < WF_CODER_LANES; tokens *= 2)
        none = none * none / WF_LAPLACE_TOTAL;
    return none > SPARSE;
}

static struct work prepare(const struct wf_lanes_kernels *k, const struct wf_plane *plane,
                           uint32_t parameter, void *scratch)
{
    const struct wf_profile *p = plane->profile;
    struct work work = {.k = k};
    lay_out(plane, scratch, &work);
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        uint8_t *class = work.class + group.channel, *shift = work.shift + group.channel;
        for (uint32_t i = 0; i < group.dims; i++) {
            float rho = group.profile->scale[i] / group.step;
            wf_laplace_class(rho < 1e30f ? rho : 1e30f, &class[i], &shift[i]);
        }
        for (uint32_t i = 0; i < group.dims; i += EIGHT)
            work.sparse[group.eight + i / EIGHT] =
                is_sparse(p->laplace, class + i, group.dims - i < EIGHT ? group.dims - i : EIGHT);
    }
    return work;
}

static uint32_t parameter_of(const struct wf_plane *plane, uint32_t parameter)
{
    if (parameter == 0)
        parameter = plane->profile->head.points[2].parameter;
    return parameter ? parameter : WF_TRANSFORM_UNIT;
}

/* Some coefficients of a group, from number `first` on. */
static struct wf_lanes_run run_of(const struct wf_plane *plane, const struct work *work,
                                  const struct group *group, uint32_t first, uint32_t count,
                                  unsigned lanes)
{
    return (struct wf_lanes_run){.laplace = plane->profile->laplace,
                                 .class = work->class + group->channel + first,
                                 .shift = work->shift + group->channel + first,
                                 .count = count,
                                 .lanes = lanes,
                                 .step = group->step};
}

/* Eights that are coded, and are not parted by one that is not: from number *at on, which becomes
 * their first; how many there are, 0 at the end. */
static uint32_t next_run(const uint8_t *coded, uint32_t eights, uint32_t *at)
{
    while (*at < eights && !coded[*at])
        (*at)++;
    uint32_t end = *at;
    while (end < eights && coded[end])
        end++;
    return end - *at;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many tokens go together from `token` on, whose angles are there then. */
static unsigned begin_tokens(const struct wf_plane *plane, const struct work *work, bool undo,
                             uint32_t token)
{
    if (turned(plane))
        wf_rope_lanes(&plane->profile->rope, undo, plane->position + token, work->cosine,
                      work->sine);
    return lanes_at(plane, token);
}

/* A group's rows, by these angles. */
static void turn(const struct wf_plane *plane, const struct work *work, const struct group *group)
{
    if (turned(plane))
        work->k->turn(&plane->profile->rope, work->cosine, work->sine, work->rows, group->heads,
                      plane->head_dim);
}

/* Where the group's channels of a token lie in the plane. */
static size_t place_of(const struct wf_plane *plane, const struct group *group, uint32_t token)
{
    size_t elements = (size_t)token * channels_of(plane) + group->channel;
    return elements * weft_dtype_bytes(plane->dtype);
}

/* ------------------------------------------------------------------------------------- encoding */

/* What grows while a plane is encoded. */
struct encoding {
    struct wf_bit_writer front, bits;
    size_t steps;      /* of the coder */
    size_t full_steps; /* of them, with 16 tokens */
};

/* Steps of a group whose coefficients are known. */
static void encode_group(const struct wf_plane *plane, const struct work *work,
                         const struct group *group, unsigned lanes, struct encoding *e)
{
    uint8_t coded[WF_PROFILE_DIMS_MAX / EIGHT];
    uint32_t eights = eights_of(group->dims), count;
    for (uint32_t i = 0; i < eights; i++) {
        uint32_t first = i * EIGHT;
        coded[i] = 1;
        if (!work->sparse[group->eight + i])
            continue;
        coded[i] = !work->k->zero(work->quantised + (size_t)first * WF_CODER_LANES,
                                  least(group->dims - first, EIGHT));
        wf_bits_put(&e->front, coded[i], 1);
    }
    for (uint32_t at = 0; (count = next_run(coded, eights, &at)) > 0; at += count) {
        uint32_t first = at * EIGHT, n = least(group->dims - first, count * EIGHT);
        struct wf_lanes_run run = run_of(plane, work, group, first, n, lanes);
        work->k->pack(&run, work->quantised + (size_t)first * WF_CODER_LANES,
                      work->symbols + e->steps * WF_CODER_LANES, &e->bits);
        memcpy(work->classes + e->steps, run.class, n);
        e->steps += n;
    }
}

/* False: there is a number that cannot be coded. */
static bool encode_tokens(const struct wf_plane *plane, uint32_t parameter, const struct work *work,
                          const uint8_t *plain, uint32_t token, struct encoding *e)
{
    const struct wf_profile *p = plane->profile;
    const struct wf_lanes_kernels *k = work->k;
    unsigned lanes = begin_tokens(plane, work, true, token);
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        k->load(plane->dtype, plain + place_of(plane, &group, token), channels_of(plane), lanes,
                group.dims, work->rows);
        turn(plane, work, &group);
        k->center(work->rows, group.profile->mean, group.dims);
        k->product(work->coefficients, NULL, group.profile->forward, group.dims, work->number,
                   group.dims, work->rows);
        if (!k->quantise(work->coefficients, 1 / group.step, group.dims, lanes, work->quantised))
            return false;
        encode_group(plane, work, &group, lanes, e);
    }
    if (lanes == WF_CODER_LANES)
        e->full_steps = e->steps;
    return true;
}

/* The stream's three parts to `out`; the bytes they took, or 0: more than `capacity`. */
static size_t encode_stream(const struct wf_plane *plane, const struct work *work,
                            struct encoding *e, uint8_t *out, size_t capacity)
{
    const struct wf_laplace *laplace = plane->profile->laplace;
    unsigned states = states_of(plane);
    uint32_t state[WF_CODER_STATES_MAX];
    wf_bits_flush(&e->bits);
    size_t bits = (size_t)(e->bits.at - work->bits), payload = 2 * states;
    wf_coder_begin(states, state, work->bits, bits);
    payload = bits < payload ? bits : payload;

    /* The last is encoded first; of fewer than 16 tokens are only the last. */
    uint8_t *end = work->words + wf_plane_bytes(plane);
    unsigned rest = rest_of(plane);
    uint8_t *word = work->k->encode(laplace, work->classes + e->full_steps,
                                    e->steps - e->full_steps, rest,
                                    work->symbols + e->full_steps * WF_CODER_LANES, states, state,
                                    end, work->words);
    if (word)
        word = work->k->encode(laplace, work->classes, e->full_steps, WF_CODER_LANES, work->symbols,
                               states, state, word, work->words);
    wf_coder_put_states(&e->front, states, state);
    wf_bits_flush(&e->front);
    if (!word || e->bits.full || e->front.full)
        return 0;
    size_t front = (size_t)(e->front.at - out), words = (size_t)(end - word);
    if (front + words + bits - payload > capacity)
        return 0;
    memcpy(out + front, word, words);
    memcpy(out + front + words, work->bits + payload, bits - payload);
    return front + words + bits - payload;
}

static bool transform_takes(const struct wf_plane *plane)
{
    return plane->profile && wf_profile_fits(plane->profile, plane) &&
           weft_dtype_bytes(plane->dtype) > 0 && plane->dtype != WEFT_INT8;
}

static size_t transform_bound(const struct wf_plane *plane)
{
    return wf_plane_bytes(plane);
}

enum weft_status wf_transform_encode_by(const struct wf_lanes_kernels *k,
                                        const struct wf_plane *plane, uint32_t parameter,
                                        const void *plain, void *out, size_t capacity,
                                        size_t *out_bytes, void *scratch)
{
    if (!transform_takes(plane))
        return WEFT_MISS;
    parameter = parameter_of(plane, parameter);
    if (parameter > WF_TRANSFORM_PARAMETER_MAX)
        return WEFT_MISS;
    uint32_t sinks = sinks_of(plane);
    size_t exact = sinks * channels_of(plane) * weft_dtype_bytes(plane->dtype);
    size_t plane_bytes = wf_plane_bytes(plane);
    uint8_t *at = out;
    if (capacity > plane_bytes)
        capacity = plane_bytes;
    if (capacity < 1 + exact)
        return WEFT_MISS;
    *at++ = (uint8_t)sinks;
    memcpy(at, plain, exact);
    at += exact;
    capacity -= 1 + exact;

    struct work work = prepare(k, plane, parameter, scratch);
    struct encoding e = {.front = {.at = at, .end = at + capacity},
                         .bits = {.at = work.bits, .end = work.bits + plane_bytes}};
    for (uint32_t i = 0; i < WF_PROFILE_DIMS_MAX; i++)
        work.number[i] = (uint16_t)i;
    for (uint32_t t = sinks; t < plane->tokens; t += WF_CODER_LANES) {
        if (!encode_tokens(plane, parameter, &work, plain, t, &e))
            return WEFT_MISS;
    }
    size_t coded = encode_stream(plane, &work, &e, at, capacity);
    if (!coded)
        return WEFT_MISS;
    *out_bytes = 1 + exact + coded;
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------- decoding */

/* What the front says: which eights are coded, and states.  Returns where words begin, or NULL. */
static const uint8_t *decode_front(const struct wf_plane *plane, const struct work *work,
                                   const uint8_t *in, size_t bytes, uint32_t *state,
                                   struct encoding *e)
{
    const struct wf_profile *p = plane->profile;
    size_t held = bytes < front_max(plane) ? bytes : front_max(plane);
    struct wf_bit_reader front = {.bytes = work->front, .end = 8 * held};
    uint8_t *coded = work->coded;
    memcpy(work->front, in, held);
    memset(work->front + held, 0, WF_BITS_SLACK);
    for (uint32_t t = sinks_of(plane); t < plane->tokens; t += WF_CODER_LANES) {
        for (uint32_t g = 0; g < p->groups; g++) {
            struct group group = group_of(plane, WF_TRANSFORM_UNIT, g);
            uint32_t eights = eights_of(group.dims);
            for (uint32_t i = 0; i < eights; i++, coded++) {
                *coded = !work->sparse[group.eight + i] || wf_bits_take(&front, 1);
                uint32_t n = *coded ? least(group.dims - i * EIGHT, EIGHT) : 0;
                memcpy(work->classes + e->steps, work->class + group.channel + i * EIGHT, n);
                e->steps += n;
            }
        }
        if (lanes_at(plane, t) == WF_CODER_LANES)
            e->full_steps = e->steps;
    }
    wf_coder_take_states(&front, states_of(plane), state);
    return front.broken ? NULL : in + (front.at + 7) / 8;
}

/* All symbols, and a reader of the bits beside them.  False: there is something wrong. */
static bool decode_stream(const struct wf_plane *plane, const struct work *work, const uint8_t *in,
                          size_t bytes, struct wf_bit_reader *out_bits)
{
    const struct wf_laplace *laplace = plane->profile->laplace;
    unsigned states = states_of(plane);
    uint32_t state[WF_CODER_STATES_MAX];
    const uint8_t *end = in + bytes;
    struct encoding e = {0};
    const uint8_t *word = decode_front(plane, work, in, bytes, state, &e);
    unsigned rest = rest_of(plane);
    if (word)
        word = work->k->decode(laplace, work->classes, e.full_steps, WF_CODER_LANES, work->symbols,
                               states, state, word, end);
    if (word)
        word = work->k->decode(laplace, work->classes + e.full_steps, e.steps - e.full_steps, rest,
                               work->symbols + e.full_steps * WF_CODER_LANES, states, state, word,
                               end);
    size_t left = word ? (size_t)(end - word) : 0;
    if (!word || !wf_coder_ended(states, state, work->bits) || left > wf_plane_bytes(plane))
        return false;
    memcpy(work->bits + 2 * states, word, left);
    memset(work->bits + 2 * states + left, 0, WF_BITS_SLACK);
    *out_bits = (struct wf_bit_reader){.bytes = work->bits, .end = 8 * (2 * states + left)};
    return true;
}

/* Coefficients of a group, those that are not zero for all; how many. */
static uint32_t decode_group(const struct wf_plane *plane, const struct work *work,
                             const struct group *group, const uint8_t *coded, unsigned lanes,
                             const uint8_t **symbols, struct wf_bit_reader *bits)
{
    uint32_t eights = eights_of(group->dims), found = 0, count;
    for (uint32_t at = 0; (count = next_run(coded, eights, &at)) > 0; at += count) {
        uint32_t first = at * EIGHT, n = least(group->dims - first, count * EIGHT);
        struct wf_lanes_run run = run_of(plane, work, group, first, n, lanes);
        found += work->k->unpack(&run, *symbols, bits, first,
                                 work->coefficients + (size_t)found * WF_CODER_LANES,
                                 work->number + found);
        *symbols += (size_t)n * WF_CODER_LANES;
    }
    return found;
}

static void decode_tokens(const struct wf_plane *plane, uint32_t parameter, const struct work *work,
                          uint32_t token, const uint8_t *coded, const uint8_t **symbols,
                          struct wf_bit_reader *bits, uint8_t *plain)
{
    const struct wf_profile *p = plane->profile;
    const struct wf_lanes_kernels *k = work->k;
    unsigned lanes = begin_tokens(plane, work, false, token);
    for (uint32_t g = 0; g < p->groups; g++) {
        struct group group = group_of(plane, parameter, g);
        uint32_t found = decode_group(plane, work, &group, coded + group.eight, lanes, symbols,
                                      bits);
        k->product(work->rows, group.profile->mean, group.profile->inverse, group.dims,
                   work->number, found, work->coefficients);
        turn(plane, work, &group);
        k->store(plane->dtype, work->rows, channels_of(plane), lanes, group.dims,
                 plain + place_of(plane, &group, token));
    }
}

enum weft_status wf_transform_decode_by(const struct wf_lanes_kernels *k,
                                        const struct wf_plane *plane, uint32_t parameter,
                                        const void *in, size_t bytes, void *plain, void *scratch)
{
    if (!transform_takes(plane))
        return wf_fail(WEFT_E_CORRUPT, "a plane of layer %u needs a profile that is not here",
                       plane->layer);
    parameter = parameter_of(plane, parameter);
    uint32_t sinks = sinks_of(plane);
    size_t exact = sinks * channels_of(plane) * weft_dtype_bytes(plane->dtype);
    const uint8_t *at = in;
    if (parameter > WF_TRANSFORM_PARAMETER_MAX || bytes < 1 + exact || at[0] != sinks)
        return wf_fail(WEFT_E_CORRUPT, "an encoded plane of layer %u is cut off, or another's",
                       plane->layer);
    struct work work = prepare(k, plane, parameter, scratch);
    struct wf_bit_reader bits;
    if (!decode_stream(plane, &work, at + 1 + exact, bytes - 1 - exact, &bits))
        return wf_fail(WEFT_E_CORRUPT, "an encoded plane of layer %u is no stream of symbols",
                       plane->layer);
    const uint8_t *symbols = work.symbols, *coded = work.coded;
    for (uint32_t t = sinks; t < plane->tokens; t += WF_CODER_LANES, coded += eights_in(plane))
        decode_tokens(plane, parameter, &work, t, coded, &symbols, &bits, plain);
    bool in_states = bits.end == 16 * states_of(plane);
    if (bits.broken || (!in_states && bits.end - bits.at >= 8))
        return wf_fail(WEFT_E_CORRUPT, "an encoded plane of layer %u does not end where it should",
                       plane->layer);
    memcpy(plain, at + 1, exact);
    return WEFT_OK;
}

static enum weft_status transform_encode(const struct wf_plane *plane, uint32_t parameter,
                                         const void *plain, void *out, size_t capacity,
                                         size_t *out_bytes, void *scratch)
{
    return wf_transform_encode_by(wf_lanes_kernels_of(wf_codec_isa_best()), plane, parameter, plain,
                                  out, capacity, out_bytes, scratch);
}

static enum weft_status transform_decode(const struct wf_plane *plane, uint32_t parameter,
                                         const void *in, size_t bytes, void *plain, void *scratch)
{
    return wf_transform_decode_by(wf_lanes_kernels_of(wf_codec_isa_best()), plane, parameter, in,
                                  bytes, plain, scratch);
}

const struct wf_codec wf_codec_transform = {
    .name = "transform",
    .says = "a basis and a step for each group of heads, from a profile; entropy-coded",
    .id = WF_CODEC_TRANSFORM,
    .revision = 1,
    .lossless = false,
    .profiled = true,
    .takes = transform_takes,
    .bound = transform_bound,
    .scratch = transform_scratch,
    .encode = transform_encode,
    .decode = transform_decode,
};
