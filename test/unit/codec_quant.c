/* SPDX-License-Identifier: Apache-2.0
 *
 * The quantising codecs: how far what comes back may be from what went in, for every dtype and
 * many shapes; what has to stay exact; numbers that are hard; bytes that nobody vouches for; and
 * kernels of every vector width against each other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/codec.h"
#include "codec/convert.h"
#include "codec/quant_kernel.h"

static const struct wf_codec *const codecs[] = {&wf_codec_int8, &wf_codec_fp8, &wf_codec_int4,
                                                &wf_codec_int2};
#define CODECS (sizeof codecs / sizeof codecs[0])

#define CHANNELS_VIEW (1u << 12)
#define TURNED_VIEW (2u << 12)
#define NO_SINKS (15u << 8)

static uint32_t seed;

static uint32_t next_random(void)
{
    seed = seed * 1664525 + 1013904223; /* Numerical Recipes */
    return seed >> 8;
}

/* About Gaussian, of variance 1. */
static float next_gaussian(void)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)(next_random() & 0xffff) / 65536.0f;
    return sum - 6.0f;
}

/* A plane, what comes of it, and what comes back. */
struct trip {
    struct wf_plane plane;
    size_t elements, bytes, coded;
    float *in, *out;
    uint8_t *plain, *code, *back;
    void *scratch;
};

static void begin(struct trip *trip, const struct wf_codec *codec, enum weft_dtype dtype,
                  uint32_t tokens, uint32_t heads, uint32_t head_dim)
{
    *trip = (struct trip){.plane = {.dtype = dtype,
                                    .tokens = tokens,
                                    .heads = heads,
                                    .head_dim = head_dim,
                                    .position = 64}};
    trip->elements = wf_plane_elements(&trip->plane);
    trip->bytes = wf_plane_bytes(&trip->plane);
    trip->in = calloc(trip->elements, sizeof(float));
    trip->out = calloc(trip->elements, sizeof(float));
    trip->plain = malloc(trip->bytes);
    trip->back = malloc(trip->bytes);
    trip->code = malloc(codec->bound(&trip->plane));
    size_t scratch = codec->scratch(&trip->plane);
    trip->scratch = aligned_alloc(64, (scratch + 63) & ~(size_t)63);
    assert_non_null(trip->scratch);
    memset(trip->scratch, 0xa5, scratch);
}

static void end(struct trip *trip)
{
    free(trip->in);
    free(trip->out);
    free(trip->plain);
    free(trip->back);
    free(trip->code);
    free(trip->scratch);
}

/* Channels of different spread and mean, as keys have. */
static void fill_like_keys(struct trip *trip)
{
    size_t row = (size_t)trip->plane.heads * trip->plane.head_dim;
    for (size_t i = 0; i < trip->elements; i++) {
        size_t c = i % row;
        trip->in[i] = next_gaussian() * (c % 13 == 5 ? 8.0f : 0.5f) + (float)(c % 5) - 2.0f;
    }
}

/* Into the plane's dtype, so that `in` is exactly what the plane holds. */
static void settle(struct trip *trip)
{
    wf_floats_to(trip->plane.dtype, trip->in, trip->elements, trip->plain);
    wf_floats_of(trip->plane.dtype, trip->plain, trip->elements, trip->in);
}

static enum weft_status encode(struct trip *trip, const struct wf_codec *codec, uint32_t parameter)
{
    settle(trip);
    size_t bound = codec->bound(&trip->plane);
    enum weft_status status = codec->encode(&trip->plane, parameter, trip->plain, trip->code, bound,
                                            &trip->coded, trip->scratch);
    if (status == WEFT_OK) {
        assert_true(trip->coded <= bound);
        assert_true(trip->coded < trip->bytes);
        /* Whatever was in the scratch before, the same comes out. */
        uint8_t *again = malloc(bound);
        size_t coded = 0;
        memset(trip->scratch, 0x33, codec->scratch(&trip->plane));
        assert_int_equal(codec->encode(&trip->plane, parameter, trip->plain, again, bound, &coded,
                                       trip->scratch),
                         WEFT_OK);
        assert_int_equal(coded, trip->coded);
        assert_memory_equal(again, trip->code, coded);
        free(again);
    }
    return status;
}

static enum weft_status decode(struct trip *trip, const struct wf_codec *codec, uint32_t parameter)
{
    /* A copy of just that size, so that a read beyond it is seen. */
    uint8_t *exact = malloc(trip->coded + !trip->coded);
    memcpy(exact, trip->code, trip->coded);
    memset(trip->back, 0xee, trip->bytes);
    memset(trip->scratch, 0x5a, codec->scratch(&trip->plane));
    enum weft_status status = codec->decode(&trip->plane, parameter, exact, trip->coded, trip->back,
                                            trip->scratch);
    free(exact);
    wf_floats_of(trip->plane.dtype, trip->back, trip->elements, trip->out);
    return status;
}

static float magnitude(const float *numbers, size_t count, size_t stride)
{
    float most = 0;
    for (size_t i = 0; i < count; i++)
        most = fabsf(numbers[i * stride]) > most ? fabsf(numbers[i * stride]) : most;
    return most;
}

/* What a dtype's own rounding adds at the most, of a number so great. */
static float rounding(enum weft_dtype dtype, float of)
{
    static const float parts[] = {[WEFT_F32] = 0x1p-22f,
                                  [WEFT_F16] = 0x1p-10f,
                                  [WEFT_BF16] = 0x1p-7f,
                                  [WEFT_FP8_E4M3] = 0x1p-3f,
                                  [WEFT_FP8_E5M2] = 0x1p-2f};
    return of * parts[dtype];
}

static void check_wide(const struct trip *trip, const struct wf_codec *codec)
{
    size_t row = (size_t)trip->plane.heads * trip->plane.head_dim;
    float most = magnitude(trip->in, trip->elements, 1);
    for (size_t i = 0; i < trip->elements; i++) {
        float error = fabsf(trip->out[i] - trip->in[i]);
        float allowed = fabsf(trip->in[i]) * 0x1p-4f + most * 0x1p-17f;
        if (codec == &wf_codec_int8) {
            bool own = !trip->plane.value && trip->plane.tokens >= 16;
            size_t token = i / row * row;
            float shared = own ? magnitude(trip->in + i % row, trip->plane.tokens, row)
                               : magnitude(trip->in + token, row, 1);
            allowed = 0.5f * 1.1f / 127 * shared;
        }
        assert_true(error <= allowed + rounding(trip->plane.dtype, fabsf(trip->in[i]) + allowed));
    }
}

static const uint32_t shapes[][3] = {{1, 1, 8},    {5, 1, 8},    {16, 4, 8},  {16, 2, 64},
                                     {17, 3, 20},  {64, 2, 128}, {65, 5, 80}, {100, 1, 96},
                                     {128, 7, 33}, {300, 2, 64}, {512, 1, 11}};
#define SHAPES (sizeof shapes / sizeof shapes[0])

static void bytes_come_back_close(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (size_t c = 0; c < 2; c++)
            for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++)
                for (int value = 0; value < 2; value++) {
                    struct trip trip;
                    begin(&trip, codecs[c], dtype, shapes[s][0], shapes[s][1], shapes[s][2]);
                    trip.plane.value = value;
                    fill_like_keys(&trip);
                    enum weft_status status = encode(&trip, codecs[c], 0);
                    if (status == WEFT_OK) {
                        assert_int_equal(decode(&trip, codecs[c], 0), WEFT_OK);
                        check_wide(&trip, codecs[c]);
                    } else {
                        assert_int_equal(status, WEFT_MISS);
                        assert_true(trip.elements < 64); /* not worth the steps */
                    }
                    end(&trip);
                }
}

/* The squared error of what came back, as a part of what was there about the channels' means. */
static double noise(const struct trip *trip)
{
    size_t row = (size_t)trip->plane.heads * trip->plane.head_dim;
    double square = 0, signal = 0;
    for (size_t c = 0; c < row; c++) {
        double mean = 0;
        for (size_t t = 0; t < trip->plane.tokens; t++)
            mean += (double)trip->in[t * row + c] / trip->plane.tokens;
        for (size_t t = 0; t < trip->plane.tokens; t++) {
            double error = (double)(trip->out[t * row + c] - trip->in[t * row + c]);
            double off = (double)trip->in[t * row + c] - mean;
            square += error * error;
            signal += off * off;
        }
    }
    return square / signal;
}

static void few_bits_come_back_as_close_as_they_can(void **state)
{
    (void)state;
    /* Of numbers of which a few channels make nearly all the noise. */
    static const struct {
        uint32_t sixteenths;
        double channels, turned;
    } allowed[] = {{40, 0.02, 0.25}, {68, 0.004, 0.03}, {104, 0.0003, 0.002}};
    static const uint32_t sizes[] = {16, 64, 150};
    for (size_t b = 0; b < 3; b++)
        for (size_t t = 0; t < 3; t++)
            for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++)
                for (uint32_t view = CHANNELS_VIEW; view <= TURNED_VIEW; view += CHANNELS_VIEW) {
                    struct trip trip;
                    begin(&trip, &wf_codec_int4, dtype, sizes[t], 3, 64);
                    fill_like_keys(&trip);
                    uint32_t parameter = allowed[b].sixteenths | view;
                    assert_int_equal(encode(&trip, &wf_codec_int4, parameter), WEFT_OK);
                    double bits = 8.0 * (double)trip.coded / (double)trip.elements;
                    assert_true(bits <= allowed[b].sixteenths / 16.0 + 0.02);
                    assert_true(bits >= allowed[b].sixteenths / 16.0 - 0.2);
                    assert_int_equal(decode(&trip, &wf_codec_int4, parameter), WEFT_OK);
                    double limit = view == TURNED_VIEW ? allowed[b].turned : allowed[b].channels;
                    limit *= sizes[t] == 16 ? 8 : 1; /* what is beside the codes costs more */
                    assert_true(noise(&trip) <= limit + (dtype == WEFT_BF16 ? 1e-5 : 0));
                    end(&trip);
                }
}

static void few_bits_stay_within_the_range(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++)
        for (size_t c = 2; c < CODECS; c++)
            for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_FP8_E5M2; dtype++) {
                struct trip trip;
                begin(&trip, codecs[c], dtype, shapes[s][0], shapes[s][1], shapes[s][2]);
                fill_like_keys(&trip);
                size_t row = (size_t)shapes[s][1] * shapes[s][2];
                enum weft_status status = encode(&trip, codecs[c], CHANNELS_VIEW);
                if (status == WEFT_OK) {
                    assert_int_equal(decode(&trip, codecs[c], CHANNELS_VIEW), WEFT_OK);
                    float most = magnitude(trip.in, trip.elements, 1);
                    for (size_t i = 0; i < trip.elements; i++) {
                        float low = FLT_MAX, high = -FLT_MAX;
                        for (size_t t = 0; t < trip.plane.tokens; t++) {
                            float x = trip.in[t * row + i % row];
                            low = x < low ? x : low;
                            high = x > high ? x : high;
                        }
                        float allowed = (high - low) + most / 8;
                        assert_true(fabsf(trip.out[i] - trip.in[i]) <=
                                    allowed + rounding(dtype, fabsf(trip.in[i]) + allowed));
                    }
                } else {
                    assert_int_equal(status, WEFT_MISS);
                    assert_true(trip.plane.tokens < 17);
                }
                end(&trip);
            }
}

/* -------------------------------------------------------------------------- what stays as it is */

static void first_tokens_stay_as_they_are(void **state)
{
    (void)state;
    static const struct {
        uint64_t position;
        uint32_t parameter, kept;
    } cases[] = {{0, 0, 4}, {3, 0, 1}, {4, 0, 0}, {0, 2u << 8, 2}, {0, 14u << 8, 14}};
    for (size_t c = 0; c < CODECS; c++)
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct trip trip;
            begin(&trip, codecs[c], WEFT_F32, 32, 2, 32);
            trip.plane.position = cases[i].position;
            fill_like_keys(&trip);
            for (size_t e = 0; e < 64; e++)
                trip.in[e] *= 50; /* the first token, like no other */
            assert_int_equal(encode(&trip, codecs[c], cases[i].parameter), WEFT_OK);
            assert_int_equal(decode(&trip, codecs[c], cases[i].parameter), WEFT_OK);
            size_t kept = cases[i].kept * 64 * sizeof(float);
            assert_memory_equal(trip.back, trip.plain, kept);
            assert_memory_not_equal(trip.back + kept, trip.plain + kept, 64 * sizeof(float));
            end(&trip);
        }
}

static void what_is_not_finite_is_stored(void **state)
{
    (void)state;
    static const float strange[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t c = 0; c < CODECS; c++)
        for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++)
            for (size_t i = 0; i < 4; i++) {
                struct trip trip;
                begin(&trip, codecs[c], dtype, 70, 3, 48);
                fill_like_keys(&trip);
                trip.in[trip.elements - 1 - 997 * i] = strange[i];
                assert_int_equal(encode(&trip, codecs[c], 0), WEFT_MISS);
                end(&trip);
            }
}

static void shapes_of_no_keys_are_refused(void **state)
{
    (void)state;
    for (size_t c = 0; c < CODECS; c++) {
        struct wf_plane plane = {.dtype = WEFT_BF16, .tokens = 1 << 20, .heads = 1, .head_dim = 1};
        assert_false(codecs[c]->takes(&plane)); /* an engine's own payload */
        plane = (struct wf_plane){.dtype = WEFT_INT8, .tokens = 16, .heads = 4, .head_dim = 64};
        assert_false(codecs[c]->takes(&plane));
        plane.dtype = WEFT_BF16;
        assert_true(codecs[c]->takes(&plane));
        plane.dtype = WEFT_FP8_E4M3;
        assert_int_equal(codecs[c]->takes(&plane), c >= 2);
    }
}

/* --------------------------------------------------------------------------------- hard numbers */

static void nothing_stays_nothing(void **state)
{
    (void)state;
    for (size_t c = 0; c < CODECS; c++)
        for (uint32_t view = 0; view <= TURNED_VIEW; view += CHANNELS_VIEW) {
            struct trip trip;
            begin(&trip, codecs[c], WEFT_F16, 40, 2, 64);
            assert_int_equal(encode(&trip, codecs[c], view), WEFT_OK);
            assert_int_equal(decode(&trip, codecs[c], view), WEFT_OK);
            for (size_t i = 0; i < trip.elements; i++)
                assert_true(trip.out[i] == 0);
            end(&trip);
        }
}

static void constants_stay(void **state)
{
    (void)state;
    static const float constants[] = {1.0f, -3.7f, 1e-4f, 60000.0f};
    for (size_t c = 0; c < CODECS; c++)
        for (size_t k = 0; k < 4; k++)
            for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++) {
                struct trip trip;
                begin(&trip, codecs[c], dtype, 48, 2, 64);
                for (size_t i = 0; i < trip.elements; i++)
                    trip.in[i] = constants[k];
                assert_int_equal(encode(&trip, codecs[c], 0), WEFT_OK);
                assert_int_equal(decode(&trip, codecs[c], 0), WEFT_OK);
                float most = fabsf(trip.in[0]) * (codecs[c] == &wf_codec_fp8 ? 0.0635f : 0.012f);
                for (size_t i = 0; i < trip.elements; i++)
                    assert_true(fabsf(trip.out[i] - trip.in[i]) <= most);
                end(&trip);
            }
}

/* Everything of the same size, from the smallest numbers to the greatest. */
static void any_magnitude_comes_back_finite(void **state)
{
    (void)state;
    for (size_t c = 0; c < CODECS; c++)
        for (int exponent = -148; exponent <= 127; exponent += 5)
            for (uint32_t view = 0; view <= TURNED_VIEW; view += CHANNELS_VIEW)
                for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++) {
                    struct trip trip;
                    begin(&trip, codecs[c], dtype, 32, 1, 64);
                    float top = dtype == WEFT_F16 ? 65504.0f : 0x1.fep127f;
                    int power = dtype == WEFT_F16 && exponent > 14 ? 14 : exponent;
                    for (size_t i = 0; i < trip.elements; i++) {
                        trip.in[i] = ldexpf(next_gaussian(), power);
                        trip.in[i] = fminf(fmaxf(trip.in[i], -top), top);
                    }
                    enum weft_status status = encode(&trip, codecs[c], view);
                    if (status == WEFT_MISS) {
                        /* Stored as it is: only what is too small to divide by. */
                        assert_true(c < 2 && exponent < -75);
                    } else {
                        assert_int_equal(decode(&trip, codecs[c], view), WEFT_OK);
                        float most = magnitude(trip.in, trip.elements, 1);
                        float least = dtype == WEFT_F32 ? 0x1p-149f : 0x1p-24f;
                        least = dtype == WEFT_BF16 ? 0x1p-133f : least;
                        for (size_t i = 0; i < trip.elements; i++) {
                            assert_true(isfinite(trip.out[i]));
                            assert_true(fabsf(trip.out[i] / 2 - trip.in[i] / 2) <=
                                        most * 0.6f + least);
                        }
                    }
                    end(&trip);
                }
}

/* One channel so great that the others are nothing beside it. */
static void a_great_range_does_no_harm(void **state)
{
    (void)state;
    for (size_t c = 2; c < CODECS; c++) {
        struct trip trip;
        begin(&trip, codecs[c], WEFT_F32, 64, 1, 64);
        for (size_t i = 0; i < trip.elements; i++)
            trip.in[i] = next_gaussian() * (i % 64 == 9 ? 300.0f : 1.0f);
        assert_int_equal(encode(&trip, codecs[c], 0), WEFT_OK);
        assert_int_equal(decode(&trip, codecs[c], 0), WEFT_OK);
        double square = 0;
        for (size_t i = 0; i < trip.elements; i++)
            square += i % 64 == 9 ? 0 : pow((double)(trip.out[i] - trip.in[i]), 2);
        assert_true(square / (double)trip.elements < (c == 2 ? 0.05 : 0.4));
        end(&trip);
    }
}

/* -------------------------------------------------------------------------------- hostile bytes */

static void no_bytes_do_harm(void **state)
{
    (void)state;
    for (size_t c = 0; c < CODECS; c++)
        for (uint32_t view = CHANNELS_VIEW; view <= TURNED_VIEW; view += CHANNELS_VIEW) {
            struct trip trip;
            begin(&trip, codecs[c], WEFT_BF16, 37, 3, 32);
            trip.plane.position = 2;
            fill_like_keys(&trip);
            assert_int_equal(encode(&trip, codecs[c], view), WEFT_OK);
            size_t whole = trip.coded;
            for (trip.coded = 0; trip.coded < whole; trip.coded++)
                assert_int_equal(decode(&trip, codecs[c], view), WEFT_E_CORRUPT);
            trip.coded = whole;
            assert_int_equal(decode(&trip, codecs[c], view), WEFT_OK);
            for (size_t round = 0; round < 3000; round++) {
                size_t some = round % 2 && whole > 600 ? whole : 600;
                size_t at = next_random() % some;
                uint8_t before = trip.code[at];
                trip.code[at] = (uint8_t)next_random();
                enum weft_status status = decode(&trip, codecs[c], view);
                assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
                trip.code[at] = round % 7 ? before : trip.code[at];
            }
            for (size_t i = 0; i < whole; i++)
                trip.code[i] = (uint8_t)next_random();
            enum weft_status status = decode(&trip, codecs[c], view);
            assert_true(status == WEFT_OK || status == WEFT_E_CORRUPT);
            end(&trip);
        }
}

/* -------------------------------------------------------------------------------------- kernels */

enum { TILE = WF_TILE };
static float tile[TILE], other[TILE], results[2][TILE];
static uint8_t bytes[2][4 * TILE];

static void same_results(void)
{
    assert_memory_equal(results[0], results[1], sizeof results[0]);
    assert_memory_equal(bytes[0], bytes[1], sizeof bytes[0]);
}

static const struct wf_quant_kernel *of_width(unsigned width)
{
    memset(results, 0, sizeof results);
    memset(bytes, 0, sizeof bytes);
    return wf_quant_kernel_of_width(width);
}

static void make_tile(void)
{
    for (size_t i = 0; i < TILE; i++) {
        tile[i] = next_gaussian();
        other[i] = (float)(next_random() % 4001) / 128.0f - 15.0f;
    }
}

/* Every kernel, as convert.h does it. */
static void converts_as_defined(unsigned width)
{
    const struct wf_quant_kernel *kernel = wf_quant_kernel_of_width(width);
    for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_FP8_E5M2; dtype++) {
        static uint8_t every[4 * TILE];
        static float out[TILE], expected[TILE];
        size_t size = weft_dtype_bytes(dtype);
        float highest = 0;
        for (size_t i = 0; i < sizeof every; i++)
            every[i] = (uint8_t)(size == 1 ? i : next_random() & 0xfb);
        kernel->load(dtype, every, TILE, out, &highest);
        wf_floats_of(dtype, every, TILE, expected);
        assert_memory_equal(out, expected, sizeof out);
        float most = dtype == WEFT_FP8_E4M3 ? 448.0f : 57344.0f;
        for (size_t i = 0; i < TILE; i++) /* of every magnitude */
            out[i] = ldexpf(tile[i], (int)(next_random() % 40) - 22);
        for (size_t i = 0; i < TILE; i++)
            expected[i] = fmaxf(fminf(out[i], most), -most);
        kernel->store(dtype, expected, TILE, 1, bytes[0]);
        wf_floats_to(dtype, expected, TILE, bytes[1]);
        assert_memory_equal(bytes[0], bytes[1], TILE * size);
    }
}

static void widths_convert_alike(unsigned width)
{
    const struct wf_quant_kernel *kernels[] = {wf_quant_kernel_of_width(1), of_width(width)};
    uint32_t patterns[TILE];
    for (size_t i = 0; i < TILE; i++)
        patterns[i] = next_random() << 8 ^ next_random();
    for (size_t i = 0; i < TILE; i++)
        patterns[i] &= 0xfbfffbff; /* no NaN of f16, whose payload is nobody's concern */
    for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_FP8_E5M2; dtype++) {
        float highest[2] = {0, 0};
        for (size_t k = 0; k < 2; k++)
            kernels[k]->load(dtype, patterns, TILE - 3, results[k], &highest[k]);
        same_results();
        assert_true(highest[0] == highest[1]);
        for (size_t k = 0; k < 2; k++)
            kernels[k]->store(dtype, other, TILE - 5, 0x1p3f, bytes[k]);
        same_results();
        for (size_t k = 0; k < 2; k++)
            kernels[k]->store(dtype, other, TILE - 5, 0x1p124f, bytes[k]);
        same_results();
    }
}

static void widths_cut_alike(unsigned width)
{
    const struct wf_quant_kernel *kernels[] = {wf_quant_kernel_of_width(1), of_width(width)};
    static struct wf_lane_stats stats[2];
    static struct wf_lane_steps steps;
    for (size_t k = 0; k < 2; k++)
        kernels[k]->measure(tile, 61, WF_CELL_LANES, true, &stats[k]);
    assert_memory_equal(&stats[0], &stats[1], sizeof stats[0]);
    for (size_t l = 0; l < WF_CELL_LANES; l++) {
        steps.most[l] = (float)((1u << l % 9) - 1);
        steps.step[l] = 0.1f + (float)l / 300.0f;
        steps.base[l] = -0.5f * steps.most[l] * steps.step[l];
    }
    for (size_t k = 0; k < 2; k++) {
        kernels[k]->try_steps(tile, 61, WF_CELL_LANES, &steps, results[k],
                              results[k] + WF_CELL_LANES);
        kernels[k]->quantise(tile, 61, WF_CELL_LANES, &steps, bytes[k]);
    }
    same_results();
    for (enum weft_dtype dtype = WEFT_F32; dtype <= WEFT_BF16; dtype++) {
        for (size_t k = 0; k < 2; k++)
            kernels[k]->emit(dtype, bytes[k] + WF_CELL_LANES, 251, &steps, 3.0f, results[k]);
        same_results();
    }
    for (size_t samples = 16; samples <= WF_CELL_SAMPLES; samples *= 2) {
        for (size_t k = 0; k < 2; k++)
            kernels[k]->turn_out(bytes[k], samples, &steps, 48, results[k]);
        same_results();
    }
    static struct wf_lane_fit fits[2];
    static struct wf_lane_steps fitted[2];
    float notches[WF_NOTCHES];
    for (size_t n = 0; n < WF_NOTCHES; n++)
        notches[n] = (float)(1 + n);
    for (size_t k = 0; k < 2; k++) {
        fits[k].finest = 0.07f;
        fits[k].notches = notches;
        fitted[k] = steps;
        for (size_t l = 0; l < WF_CELL_LANES; l++) {
            fits[k].zero[l] = stats[0].mean[l];
            fits[k].range[l] = stats[0].high[l] - stats[0].low[l];
        }
        kernels[k]->fit_steps(tile, 61, WF_CELL_LANES, &fits[k], &fitted[k]);
    }
    assert_memory_equal(&fits[0], &fits[1], sizeof fits[0]);
    assert_memory_equal(&fitted[0], &fitted[1], sizeof fitted[0]);
    static const float thresholds[WF_CELL_WIDTH_MAX] = {0.5f, 0.9f, 0.95f, 1, 1.1f, 1.2f, 1.3f, 2};
    static uint8_t counts[2][WF_CELL_LANES];
    assert_int_equal(kernels[0]->count_reached(stats[0].variance, WF_CELL_LANES, thresholds,
                                               counts[0]),
                     kernels[1]->count_reached(stats[0].variance, WF_CELL_LANES, thresholds,
                                               counts[1]));
    assert_memory_equal(counts[0], counts[1], sizeof counts[0]);
}

static void widths_pack_alike(unsigned width)
{
    const struct wf_quant_kernel *kernels[] = {wf_quant_kernel_of_width(1), of_width(width)};
    static uint8_t codes[TILE], packed[2][TILE + WF_PACK_SLACK];
    for (unsigned most = 0; most <= WF_CELL_WIDTH_MAX; most++)
        for (size_t lanes = 64; lanes <= WF_CELL_LANES; lanes += 64) {
            uint8_t widths[WF_CELL_LANES];
            for (size_t l = 0; l < WF_CELL_LANES; l++)
                widths[l] = (uint8_t)(l < lanes ? next_random() % (most + 1) : 0);
            struct wf_cell_bits bits;
            wf_cell_bits_of(widths, lanes, &bits);
            for (size_t i = 0; i < TILE; i++) {
                uint32_t code = next_random() & ((1u << widths[i % WF_CELL_LANES]) - 1);
                codes[i] = (uint8_t)code;
            }
            size_t samples = 1 + next_random() % WF_CELL_SAMPLES;
            size_t size = wf_cell_bits_bytes(&bits, samples);
            memset(packed, 0, sizeof packed);
            for (size_t k = 0; k < 2; k++) {
                kernels[k]->pack(codes, samples, &bits, packed[k]);
                uint8_t *exact = malloc(size + !size);
                memcpy(exact, packed[k], size);
                kernels[k]->unpack(exact, samples, lanes, &bits, bytes[k]);
                free(exact);
                for (size_t s = 0; s < samples; s++)
                    assert_memory_equal(bytes[k] + s * WF_CELL_LANES, codes + s * WF_CELL_LANES,
                                        lanes);
            }
            assert_memory_equal(packed[0], packed[1], size);
        }
}

static void widths_turn_alike(unsigned width)
{
    const struct wf_quant_kernel *kernels[] = {wf_quant_kernel_of_width(1), of_width(width)};
    for (size_t k = 0; k < 2; k++) {
        memcpy(results[k], tile, sizeof tile);
        kernels[k]->hadamard(results[k], 32, 192);
    }
    same_results();
    for (size_t k = 0; k < 2; k++)
        kernels[k]->transpose(tile, WF_CELL_LANES, 61, 251, results[k], 64);
    same_results();
    for (size_t r = 0; r < 61; r++)
        for (size_t c = 0; c < 251; c++)
            assert_true(results[0][c * 64 + r] == tile[r * WF_CELL_LANES + c]);
    for (size_t k = 0; k < 2; k++) {
        kernels[k]->round_signed(tile, other, TILE - 7, (int8_t *)bytes[k]);
        kernels[k]->scale_signed((const int8_t *)bytes[k], other, TILE - 7, results[k]);
    }
    same_results();
}

static void every_width_gives_the_same_bits(void **state)
{
    (void)state;
    unsigned tried = 0;
    make_tile();
    converts_as_defined(1);
    for (unsigned width = 8; width <= 16; width *= 2) {
        if (!wf_quant_kernel_of_width(width))
            continue;
        converts_as_defined(width);
        widths_convert_alike(width);
        widths_cut_alike(width);
        widths_pack_alike(width);
        widths_turn_alike(width);
        tried++;
    }
    assert_null(wf_quant_kernel_of_width(32));
    if (tried == 0)
        skip();
}

static int set_up(void **state)
{
    (void)state;
    seed = 20260101;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(bytes_come_back_close, set_up),
        cmocka_unit_test_setup(few_bits_come_back_as_close_as_they_can, set_up),
        cmocka_unit_test_setup(few_bits_stay_within_the_range, set_up),
        cmocka_unit_test_setup(first_tokens_stay_as_they_are, set_up),
        cmocka_unit_test_setup(what_is_not_finite_is_stored, set_up),
        cmocka_unit_test_setup(shapes_of_no_keys_are_refused, set_up),
        cmocka_unit_test_setup(nothing_stays_nothing, set_up),
        cmocka_unit_test_setup(constants_stay, set_up),
        cmocka_unit_test_setup(any_magnitude_comes_back_finite, set_up),
        cmocka_unit_test_setup(a_great_range_does_no_harm, set_up),
        cmocka_unit_test_setup(no_bytes_do_harm, set_up),
        cmocka_unit_test_setup(every_width_gives_the_same_bits, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
