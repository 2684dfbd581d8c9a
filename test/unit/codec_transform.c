/* SPDX-License-Identifier: Apache-2.0
 *
 * The calibrated transform codec and what it stands on but its coder (codec_coder.c): eigenvectors,
 * calibration, kernels of all widths, profiles that lie, and encoded planes that were damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibrate.h"
#include "codec/convert.h"
#include "codec/eigen.h"
#include "codec/frame.h"
#include "codec/transform.h"

#define LAYERS 2u
#define HEADS 3u
#define QUERY_HEADS 6u
#define DIM 12u /* so that groups have eights that are not whole */
#define TOKENS 48u
#define TOKENS_MAX 200u /* of a plane: enough for 16 states */
#define ROW (HEADS * DIM)
#define COST 0.5 /* of a calibration's steps, in its own units */

static uint32_t seed;

static uint32_t next_random(void)
{
    seed = seed * 1664525 + 1013904223; /* Numerical Recipes */
    return seed >> 8;
}

static float next_gaussian(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)(next_random() & 0xffff) / 65536.0f;
    return sum - 6.0f;
}

/* --------------------------------------------------------------------------------- eigenvectors */

static void eigenvectors_give_the_matrix_back(void **state)
{
    (void)state;
    seed = 1;
    static const size_t sizes[] = {1, 2, 3, 8, 40, 128};
    for (size_t at = 0; at < sizeof sizes / sizeof sizes[0]; at++) {
        size_t n = sizes[at];
        double *matrix = malloc(n * n * sizeof *matrix), *v = malloc(n * n * sizeof *v);
        double values[128], spare[128], worst = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= i; j++)
                matrix[i * n + j] = matrix[j * n + i] = (double)next_gaussian();
        memcpy(v, matrix, n * n * sizeof *v);
        assert_true(wf_eigen(v, n, values, spare));
        for (size_t i = 0; i < n; i++) {
            assert_true(i == 0 || values[i] <= values[i - 1]);
            for (size_t j = 0; j < n; j++) {
                double there = 0, same = 0;
                for (size_t k = 0; k < n; k++) {
                    there += v[k * n + i] * values[k] * v[k * n + j];
                    same += v[i * n + k] * v[j * n + k];
                }
                worst = fmax(worst, fabs(there - matrix[i * n + j]));
                worst = fmax(worst, fabs(same - (i == j)));
            }
        }
        assert_true(worst < 1e-11);
        matrix[0] = NAN;
        assert_false(wf_eigen(matrix, n, values, spare));
        free(matrix);
        free(v);
    }
}

/* ------------------------------------------------------------------------------- small things */

static void factors_are_powers(void **state)
{
    (void)state;
    for (uint32_t p = 1; p <= WF_TRANSFORM_PARAMETER_MAX; p++) {
        double want = exp2(((double)p - WF_TRANSFORM_UNIT) / WF_TRANSFORM_PER_OCTAVE);
        assert_true(fabs((double)wf_transform_factor(p) / want - 1) < 1e-6);
    }
}

static const struct wf_lanes_kernels *kernels_of(int isa)
{
    return wf_codec_isa_usable((enum wf_codec_isa)isa) ? wf_lanes_kernels_of((enum wf_codec_isa)isa)
                                                       : NULL;
}

/* ---------------------------------------------------------------------------------- calibration */

/* Channels that hang together, a few that count for queries, and a key that is off at the start. */
static void draw(float *rows, uint32_t tokens, uint32_t channels, float first)
{
    for (uint32_t t = 0; t < tokens; t++) {
        float common = next_gaussian();
        for (uint32_t i = 0; i < channels; i++)
            rows[t * channels + i] = 0.1f * (float)(i % 5) + common * (float)(i % 3) +
                                     0.2f * next_gaussian() + (t == 0 ? first : 0);
    }
}

static struct wf_calibration *calibrated(uint8_t pairing, uint32_t dims_max)
{
    static float keys[TOKENS * ROW], values[TOKENS * ROW], queries[TOKENS * QUERY_HEADS * DIM];
    static float mixing[20 * QUERY_HEADS * DIM];
    struct wf_calibration *c;
    struct wf_calibration_shape shape = {
        .layers = LAYERS,
        .query_heads = QUERY_HEADS,
        .heads = HEADS,
        .head_dim = DIM,
        .dims_max = dims_max,
        .sinks = 2,
        .dtype = WEFT_BF16,
        .rope_pairing = pairing,
        .rope_dims = pairing == WF_PROFILE_NO_ROPE ? 0 : DIM,
        .rope_theta = 10000,
        .model = "test",
    };
    seed = 7;
    assert_int_equal(wf_calibration_create(&shape, &c), WEFT_OK);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (size_t i = 0; i < sizeof mixing / sizeof mixing[0]; i++)
            mixing[i] = next_gaussian();
        wf_calibration_mixing(c, layer, mixing, 20);
        for (int round = 0; round < 6; round++) {
            draw(keys, TOKENS, ROW, 30);
            draw(values, TOKENS, ROW, 0);
            draw(queries, TOKENS, QUERY_HEADS * DIM, 0);
            assert_int_equal(wf_calibration_add(c, layer, TOKENS, keys, values, queries), WEFT_OK);
        }
    }
    assert_int_equal(wf_calibration_design(c), WEFT_OK);
    for (uint32_t p = 0; p < 2 * LAYERS; p++) {
        draw(keys, TOKENS, ROW, 30);
        wf_calibration_observe(c, p / 2, p % 2, 0, TOKENS, keys);
        wf_calibration_sensitivity(c, p / 2, p % 2, p == 1 ? 0 : 1.0 + p);
    }
    wf_calibration_steps(c, COST);
    return c;
}

static struct wf_profile *profile_of(struct wf_calibration *c)
{
    static const struct wf_profile_point points[WF_PROFILE_POINTS];
    struct wf_profile *profile;
    void *file;
    size_t bytes;
    assert_int_equal(wf_calibration_file(c, points, &file, &bytes), WEFT_OK);
    assert_int_equal(wf_profile_parse(file, bytes, &profile), WEFT_OK);
    free(file);
    return profile;
}

static void steps_share_the_cost(void **state)
{
    (void)state;
    struct wf_calibration *c = calibrated(WF_ROPE_INTERLEAVED, 0);
    double kl, bits, finer_kl, finer_bits;
    wf_calibration_predict(c, WF_TRANSFORM_UNIT, &kl, &bits);
    assert_true(fabs(kl / COST - 1) < 1e-3);
    wf_calibration_predict(c, WF_TRANSFORM_UNIT - 2 * WF_TRANSFORM_PER_OCTAVE, &finer_kl,
                           &finer_bits);
    assert_true(finer_kl < kl && finer_kl > kl / 17); /* squared steps, where nothing is cut off */
    assert_true(finer_bits > bits && finer_bits < bits + 2.1);
    struct wf_profile *profile = profile_of(c);
    /* Planes 2 and 3 count three and four times as much: their squared steps are in that ratio. */
    double a = (double)wf_profile_group_of(profile, 1, false, 0)->step;
    double b = (double)wf_profile_group_of(profile, 1, true, 0)->step;
    assert_true(fabs(a * a * 3 / (b * b * 4) - 1) < 1e-3);
    assert_true(fabs(wf_calibration_error(c, 0, false, wf_calibration_step_of(c, 0, false, 0.1)) /
                         wf_calibration_error(c, 0, false, 1e9) -
                     0.1) < 1e-6);
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

/* A plane there and back. */
struct trip {
    struct wf_plane plane;
    float in[TOKENS_MAX * ROW], out[TOKENS_MAX * ROW];
    uint8_t plain[TOKENS_MAX * ROW * 4], code[TOKENS_MAX * ROW * 4], back[TOKENS_MAX * ROW * 4];
    size_t coded;
    void *scratch;
};

static enum weft_status there(struct trip *t, uint32_t parameter)
{
    const struct wf_codec *codec = &wf_codec_transform;
    wf_floats_to(t->plane.dtype, t->in, wf_plane_elements(&t->plane), t->plain);
    free(t->scratch);
    t->scratch = aligned_alloc(64, (codec->scratch(&t->plane) + 63) / 64 * 64);
    assert_true(codec->bound(&t->plane) <= sizeof t->code);
    return codec->encode(&t->plane, parameter, t->plain, t->code, codec->bound(&t->plane),
                         &t->coded, t->scratch);
}

static void and_back(struct trip *t, uint32_t parameter)
{
    assert_int_equal(wf_codec_transform.decode(&t->plane, parameter, t->code, t->coded, t->back,
                                               t->scratch),
                     WEFT_OK);
    wf_floats_of(t->plane.dtype, t->back, wf_plane_elements(&t->plane), t->out);
}

/* In the profile's basis nothing is off by more than half a step, a quarter for what is told as
 * nearer to zero than the middle, and what a number type and the rotation round off. */
static void check_error(const struct trip *t, uint32_t parameter, float slack)
{
    const struct wf_profile *p = t->plane.profile;
    float in[TOKENS_MAX * ROW], out[TOKENS_MAX * ROW];
    memcpy(in, t->in, sizeof in);
    memcpy(out, t->out, sizeof out);
    if (!t->plane.value) {
        wf_rope_undo(&p->rope, t->plane.position, in, t->plane.tokens, HEADS, DIM);
        wf_rope_undo(&p->rope, t->plane.position, out, t->plane.tokens, HEADS, DIM);
    }
    for (uint32_t token = 0; token < t->plane.tokens; token++) {
        uint32_t at = token * ROW;
        if (t->plane.position + token < p->head.sinks)
            continue;
        for (uint32_t g = 0; g < p->groups; g++) {
            const struct wf_profile_group *group = wf_profile_group_of(p, t->plane.layer,
                                                                       t->plane.value, g);
            uint32_t dims = wf_profile_dims(p, g);
            float step = group->step * wf_transform_factor(parameter);
            for (uint32_t i = 0; i < dims; i++) {
                double error = 0;
                for (uint32_t j = 0; j < dims; j++)
                    error += (double)(in[at + j] - out[at + j]) *
                             (double)wf_profile_entry(group->forward, dims, j, i);
                assert_true(fabs(error) < (double)(step * 0.7501f + slack));
            }
            at += dims;
        }
    }
}

static void errors_stay_within_a_step(void **state)
{
    (void)state;
    static const uint8_t pairings[] = {WF_ROPE_INTERLEAVED, WF_ROPE_HALVES, WF_PROFILE_NO_ROPE};
    static const uint32_t parameters[] = {WF_TRANSFORM_UNIT - 96, WF_TRANSFORM_UNIT,
                                          WF_TRANSFORM_UNIT + 64};
    struct trip *t = calloc(1, sizeof *t);
    for (size_t at = 0; at < 3; at++) {
        struct wf_calibration *c = calibrated(pairings[at], at == 1 ? DIM : 2 * DIM);
        struct wf_profile *profile = profile_of(c);
        assert_int_equal(profile->groups, at == 1 ? 3 : 2);
        for (uint32_t n = 0; n < 24; n++) {
            uint32_t parameter = parameters[n % 3];
            t->plane = (struct wf_plane){.dtype = WEFT_F32,
                                         .tokens = 1 + n * 2,
                                         .heads = HEADS,
                                         .head_dim = DIM,
                                         .layer = n % 2,
                                         .value = n % 4 < 2,
                                         .position = n % 5 * 1000,
                                         .profile = profile};
            seed = n / 3;
            draw(t->in, t->plane.tokens, ROW, 0);
            if (there(t, parameter) != WEFT_OK)
                continue; /* a token or two may be no smaller */
            and_back(t, parameter);
            check_error(t, parameter, 1e-3f);
            if (t->plane.position == 0)
                assert_memory_equal(t->plain, t->back,
                                    (t->plane.tokens < 2 ? 1 : 2) * ROW * sizeof(float));
        }
        wf_profile_destroy(profile);
        wf_calibration_destroy(c);
    }
    free(t->scratch);
    free(t);
}

static struct trip *usual_trip(struct wf_profile *profile, enum weft_dtype dtype)
{
    struct trip *t = calloc(1, sizeof *t);
    t->plane = (struct wf_plane){.dtype = dtype,
                                 .tokens = TOKENS,
                                 .heads = HEADS,
                                 .head_dim = DIM,
                                 .layer = 1,
                                 .position = 480,
                                 .profile = profile};
    seed = 3;
    draw(t->in, TOKENS, ROW, 0);
    return t;
}

static void coarser_is_smaller_in_every_type(void **state)
{
    (void)state;
    static const enum weft_dtype dtypes[] = {WEFT_F32, WEFT_F16, WEFT_BF16, WEFT_FP8_E4M3,
                                             WEFT_FP8_E5M2};
    struct wf_calibration *c = calibrated(WF_ROPE_INTERLEAVED, 0);
    struct wf_profile *profile = profile_of(c);
    for (size_t i = 0; i < 5; i++) {
        struct trip *t = usual_trip(profile, dtypes[i]);
        size_t before = SIZE_MAX;
        for (uint32_t p = WF_TRANSFORM_UNIT; p < WF_TRANSFORM_UNIT + 128; p += 32) {
            assert_int_equal(there(t, p), WEFT_OK);
            assert_true(t->coded < before && t->coded < wf_plane_bytes(&t->plane));
            before = t->coded;
            and_back(t, p);
        }
        free(t->scratch);
        free(t);
    }
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

/* Whatever the kernels: the same bytes there, and back. */
static void every_width_answers_the_same(void **state)
{
    (void)state;
    static const uint8_t pairings[] = {WF_ROPE_INTERLEAVED, WF_ROPE_HALVES, WF_PROFILE_NO_ROPE};
    struct trip *t = calloc(1, sizeof *t), *other = calloc(1, sizeof *other);
    uint8_t *scratch = NULL;
    for (unsigned n = 0; n < 72; n++) {
        struct wf_calibration *c = calibrated(pairings[n % 3], n % 2 ? DIM : 3 * DIM);
        struct wf_profile *profile = profile_of(c);
        enum weft_dtype dtype = (enum weft_dtype)(1 + n % 5);
        uint32_t parameter = WF_TRANSFORM_UNIT + n * 3 - 90;
        t->plane = (struct wf_plane){.dtype = dtype == WEFT_INT8 ? WEFT_F32 : dtype,
                                     .tokens = n % 4 == 3 ? TOKENS_MAX - n % 7 : 1 + n,
                                     .heads = HEADS,
                                     .head_dim = DIM,
                                     .layer = n % 2,
                                     .value = n % 8 < 4,
                                     .position = n % 5 * 100003,
                                     .profile = profile};
        seed = n;
        draw(t->in, t->plane.tokens, ROW, n % 6 == 0 ? 300 : 0);
        wf_floats_to(t->plane.dtype, t->in, wf_plane_elements(&t->plane), t->plain);
        free(scratch);
        scratch = aligned_alloc(64, (wf_codec_transform.scratch(&t->plane) + 63) / 64 * 64);
        enum weft_status first = WEFT_OK;
        for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
            const struct wf_lanes_kernels *k = kernels_of(isa);
            struct trip *to = isa ? other : t;
            size_t bound = wf_codec_transform.bound(&t->plane), size = wf_plane_bytes(&t->plane);
            if (!k) {
                print_message("%s: skipped, this machine has none\n",
                              wf_codec_isa_name((enum wf_codec_isa)isa));
                continue;
            }
            enum weft_status status = wf_transform_encode_by(k, &t->plane, parameter, t->plain,
                                                             to->code, bound, &to->coded, scratch);
            first = isa ? first : status;
            assert_int_equal(status, first);
            if (status != WEFT_OK)
                continue;
            assert_int_equal(to->coded, t->coded);
            assert_memory_equal(to->code, t->code, t->coded);
            assert_int_equal(wf_transform_decode_by(k, &t->plane, parameter, t->code, t->coded,
                                                    to->back, scratch),
                             WEFT_OK);
            assert_memory_equal(to->back, t->back, size);
        }
        wf_profile_destroy(profile);
        wf_calibration_destroy(c);
    }
    free(scratch);
    free(other);
    free(t);
}

/* What was damaged is damaged for all, and garbage is the same garbage. */
static void every_width_sees_the_same_damage(void **state)
{
    (void)state;
    struct wf_calibration *c = calibrated(WF_ROPE_HALVES, 0);
    struct wf_profile *profile = profile_of(c);
    struct trip *t = usual_trip(profile, WEFT_F16);
    uint8_t *one = malloc(sizeof t->back);
    unsigned seen = 0;
    for (unsigned i = 0; i < 600; i++) {
        if (i % 300 == 0) {
            t->plane.tokens = i ? TOKENS_MAX : 20;
            draw(t->in, t->plane.tokens, ROW, 0);
            assert_int_equal(there(t, WF_TRANSFORM_UNIT), WEFT_OK);
        }
        size_t at = next_random() % t->coded;
        uint8_t kept = t->code[at];
        t->code[at] = (uint8_t)(kept ^ 1u << next_random() % 8);
        enum weft_status first = WEFT_OK;
        for (int isa = 0; isa < WF_CODEC_ISA_COUNT; isa++) {
            const struct wf_lanes_kernels *k = kernels_of(isa);
            if (!k)
                continue;
            enum weft_status status = wf_transform_decode_by(k, &t->plane, WF_TRANSFORM_UNIT,
                                                             t->code, t->coded, isa ? t->back : one,
                                                             t->scratch);
            first = isa ? first : status;
            assert_int_equal(status, first);
            if (isa && status == WEFT_OK)
                assert_memory_equal(t->back, one, wf_plane_bytes(&t->plane));
        }
        seen += first != WEFT_OK;
        t->code[at] = kept;
    }
    assert_true(seen > 150 && seen < 590);
    free(one);
    free(t->scratch);
    free(t);
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

/* Where nothing but zeros are expected, and found, nothing is sent; and one outlier comes back. */
static void what_is_not_there_costs_nothing(void **state)
{
    (void)state;
    struct wf_calibration *c = calibrated(WF_PROFILE_NO_ROPE, 0);
    struct wf_profile *profile = profile_of(c);
    struct trip *t = usual_trip(profile, WEFT_F32);
    uint32_t parameter = WF_TRANSFORM_UNIT + 200;
    assert_int_equal(there(t, parameter), WEFT_OK);
    size_t quiet = t->coded;
    assert_true(quiet < 100);
    t->in[5 * ROW + 7] += 1e5f;
    assert_int_equal(there(t, parameter), WEFT_OK);
    assert_true(t->coded > quiet && t->coded < quiet + 200);
    and_back(t, parameter);
    check_error(t, parameter, 1);
    free(t->scratch);
    free(t);
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

static void hard_numbers_are_left_alone(void **state)
{
    (void)state;
    static const float hard[] = {NAN, INFINITY, -INFINITY, 3e38f};
    struct wf_calibration *c = calibrated(WF_ROPE_INTERLEAVED, 0);
    struct wf_profile *profile = profile_of(c);
    struct trip *t = usual_trip(profile, WEFT_F32);
    for (size_t i = 0; i < 4; i++) {
        float kept = t->in[100];
        t->in[100] = hard[i];
        assert_int_equal(there(t, WF_TRANSFORM_UNIT), WEFT_MISS);
        t->in[100] = kept;
    }
    /* An outlier costs bits, and comes back as near as any other. */
    t->in[200] = 20000;
    assert_int_equal(there(t, WF_TRANSFORM_UNIT), WEFT_OK);
    and_back(t, WF_TRANSFORM_UNIT);
    check_error(t, WF_TRANSFORM_UNIT, 1);
    memset(t->in, 0, sizeof t->in);
    assert_int_equal(there(t, WF_TRANSFORM_UNIT), WEFT_OK);
    and_back(t, WF_TRANSFORM_UNIT);
    check_error(t, WF_TRANSFORM_UNIT, 1e-3f);
    free(t->scratch);
    free(t);
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

static void what_is_finite_stays_so(void **state)
{
    (void)state;
    static const enum weft_dtype dtypes[] = {WEFT_F16, WEFT_FP8_E5M2};
    static const float most[] = {65504, 57344};
    struct wf_calibration *c = calibrated(WF_ROPE_INTERLEAVED, 0);
    struct wf_profile *profile = profile_of(c);
    for (size_t d = 0; d < 2; d++) {
        struct trip *t = usual_trip(profile, dtypes[d]);
        for (uint32_t i = 0; i < TOKENS * ROW; i++)
            t->in[i] = i % 7 < 3 ? most[d] : -most[d];
        for (uint32_t p = WF_TRANSFORM_UNIT; p < WF_TRANSFORM_UNIT + 400; p += 40) {
            if (there(t, p) != WEFT_OK)
                continue;
            and_back(t, p);
            for (uint32_t i = 0; i < TOKENS * ROW; i++)
                assert_true(fabsf(t->out[i]) <= most[d]);
        }
        assert_true(t->coded > 0);
        free(t->scratch);
        free(t);
    }
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

static void damage_is_seen_or_harmless(void **state)
{
    (void)state;
    struct wf_calibration *c = calibrated(WF_ROPE_HALVES, 0);
    struct wf_profile *profile = profile_of(c);
    struct trip *t = usual_trip(profile, WEFT_BF16);
    unsigned flips = 0, cuts = 0, rounds = 3000;
    assert_int_equal(there(t, WF_TRANSFORM_UNIT), WEFT_OK);
    assert_true(t->coded > 0);
    for (unsigned i = 0; i < rounds; i++) {
        bool cut = i % 2;
        size_t length = cut ? next_random() % t->coded : t->coded;
        /* Of just that size, so that a sanitizer sees what goes beyond. */
        uint8_t *tight = malloc(length ? length : 1);
        memcpy(tight, t->code, length);
        if (!cut && length)
            tight[next_random() % length] ^= (uint8_t)(1u << next_random() % 8);
        bool seen = wf_codec_transform.decode(&t->plane, WF_TRANSFORM_UNIT, tight, length, t->back,
                                              t->scratch) == WEFT_E_CORRUPT;
        *(cut ? &cuts : &flips) += seen;
        free(tight);
    }
    assert_true(cuts > rounds * 9 / 20);
    assert_true(flips > rounds / 8); /* a sign is only a sign; the frame's checksum sees all */
    t->plane.profile = NULL;
    assert_int_equal(wf_codec_transform.decode(&t->plane, WF_TRANSFORM_UNIT, t->code, t->coded,
                                               t->back, t->scratch),
                     WEFT_E_CORRUPT);
    assert_false(wf_codec_transform.takes(&t->plane));
    free(t->scratch);
    free(t);
    wf_profile_destroy(profile);
    wf_calibration_destroy(c);
}

/* ---------------------------------------------------------------------------- profiles that lie */

/* With a checksum that is right, so that what is refused is refused for what it says. */
static enum weft_status with(const uint8_t *file, size_t bytes, size_t at, const void *lie,
                             size_t count)
{
    struct wf_profile *profile;
    uint8_t *copy = malloc(bytes);
    memcpy(copy, file, bytes);
    memcpy(copy + at, lie, count);
    struct wf_profile_head head;
    memcpy(&head, copy, sizeof head);
    wf_profile_seal(copy, bytes);
    ((struct wf_profile_head *)(void *)copy)->magic = head.magic;
    enum weft_status status = wf_profile_parse(copy, bytes, &profile);
    if (status == WEFT_OK)
        wf_profile_destroy(profile);
    free(copy);
    return status;
}

static void profiles_that_lie_are_refused(void **state)
{
    (void)state;
    static const struct wf_profile_point points[WF_PROFILE_POINTS];
    struct wf_calibration *c = calibrated(WF_ROPE_INTERLEAVED, 0);
    struct wf_profile *profile;
    void *file;
    size_t bytes;
    assert_int_equal(wf_calibration_file(c, points, &file, &bytes), WEFT_OK);
    static const uint32_t lies[] = {0, 1, 5, 257, 70000, UINT32_MAX};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        size_t fields[] = {offsetof(struct wf_profile_head, layers),
                           offsetof(struct wf_profile_head, heads),
                           offsetof(struct wf_profile_head, head_dim),
                           offsetof(struct wf_profile_head, rope_dims)};
        for (size_t f = 0; f < 4; f++)
            assert_true(with(file, bytes, fields[f], &lies[i], 4) < 0);
    }
    uint64_t zero = 0;
    uint8_t many = 255;
    float nan = NAN, negative = -1, big = INFINITY;
    size_t group = wf_profile_group_offset(file, 1, true, 0);
    double fast = 2;
    assert_true(with(file, bytes, 0, &zero, 8) < 0);
    assert_true(with(file, bytes, offsetof(struct wf_profile_head, sinks), &many, 1) < 0);
    assert_true(with(file, bytes, offsetof(struct wf_profile_head, dtype), &many, 1) < 0);
    assert_true(with(file, bytes, sizeof(struct wf_profile_head), &fast, 8) < 0);
    assert_true(with(file, bytes, group, &nan, 4) < 0);
    assert_true(with(file, bytes, group, &negative, 4) < 0);
    assert_true(with(file, bytes, bytes - 4, &big, 4) < 0);
    /* A terminal shows it. */
    static const char *const names[] = {"a\x1b[31m", "a\nb", "\xff\xfe"};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(with(file, bytes, offsetof(struct wf_profile_head, model), names[i],
                              strlen(names[i]) + 1),
                         WEFT_E_INVALID);
    assert_int_equal(with(file, bytes, 24, (uint8_t *)file + 24, 4), WEFT_OK);
    seed = 9;
    for (int i = 0; i < 200; i++) {
        uint8_t *one = (uint8_t *)file + next_random() % bytes;
        *one ^= 4;
        assert_true(wf_profile_parse(file, bytes, &profile) < 0);
        *one ^= 4;
        assert_true(wf_profile_parse(file, next_random() % bytes, &profile) < 0);
    }
    free(file);
    wf_calibration_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eigenvectors_give_the_matrix_back),
        cmocka_unit_test(factors_are_powers),
        cmocka_unit_test(steps_share_the_cost),
        cmocka_unit_test(errors_stay_within_a_step),
        cmocka_unit_test(coarser_is_smaller_in_every_type),
        cmocka_unit_test(every_width_answers_the_same),
        cmocka_unit_test(every_width_sees_the_same_damage),
        cmocka_unit_test(what_is_not_there_costs_nothing),
        cmocka_unit_test(hard_numbers_are_left_alone),
        cmocka_unit_test(what_is_finite_stays_so),
        cmocka_unit_test(damage_is_seen_or_harmless),
        cmocka_unit_test(profiles_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
