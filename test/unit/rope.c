/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotary positions against the definition in long double, at small and at great positions; on and
 * off again; and the same bits from every vector width.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "codec/rope.h"

enum { TOKENS = 5, HEADS = 3, DIM = 150, DIMS = 140, ELEMENTS = TOKENS * HEADS * DIM };

static double frequencies[DIMS / 2];
static float plain[ELEMENTS];

static int set_up(void **state)
{
    (void)state;
    wf_rope_frequencies(10000.0, DIMS, frequencies);
    uint32_t seed = 7;
    for (size_t i = 0; i < ELEMENTS; i++) {
        seed = seed * 1664525 + 1013904223; /* Numerical Recipes */
        plain[i] = (float)((int)(seed >> 20) - 2048) / 512.0f;
    }
    return 0;
}

static void angles_are_right_at_any_position(void **state)
{
    (void)state;
    static const uint64_t positions[] = {0,      1,          2,          511,
                                         131071, 1000000,    10000000,   UINT64_C(1) << 32,
                                         99,     1234567890, 4000000000, WF_ROPE_POSITION_MAX - 1};
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        float cosine[DIMS / 2], sine[DIMS / 2];
        wf_rope_angles(frequencies, DIMS / 2, positions[p], cosine, sine);
        /* The product in double is right to 2^-53 of the angle, and everything else to a float. */
        double bound = 0x1p-24 + (double)positions[p] * 0x1p-52;
        for (size_t i = 0; i < DIMS / 2; i++) {
            long double angle = (long double)positions[p] * (long double)frequencies[i];
            assert_true(fabsl((long double)cosine[i] - cosl(angle)) <= bound);
            assert_true(fabsl((long double)sine[i] - sinl(angle)) <= bound);
        }
    }
}

static void sixteen_positions_are_as_one_by_one(void **state)
{
    (void)state;
    static const uint64_t positions[] = {0, 5, 131070, UINT64_C(1) << 32};
    static float cosine[DIMS / 2 * WF_ROPE_LANES], sine[DIMS / 2 * WF_ROPE_LANES];
    struct wf_rope rope = {.dims = DIMS, .frequencies = frequencies};
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++)
        for (int undo = 0; undo < 2; undo++) {
            wf_rope_lanes(&rope, undo, positions[p], cosine, sine);
            for (size_t l = 0; l < WF_ROPE_LANES; l++) {
                float c[DIMS / 2], s[DIMS / 2];
                wf_rope_angles(frequencies, DIMS / 2, positions[p] + l, c, s);
                for (size_t i = 0; i < DIMS / 2; i++) {
                    float turned = undo ? -s[i] : s[i];
                    assert_memory_equal(&cosine[i * WF_ROPE_LANES + l], &c[i], sizeof(float));
                    assert_memory_equal(&sine[i * WF_ROPE_LANES + l], &turned, sizeof(float));
                }
            }
        }
}

static void frequencies_fall_from_one(void **state)
{
    (void)state;
    assert_true(frequencies[0] == 1.0);
    for (size_t i = 0; i < DIMS / 2; i++)
        assert_true(fabs(frequencies[i] / pow(10000.0, -2.0 * (double)i / DIMS) - 1) < 1e-7);
}

static void by_definition(enum wf_rope_pairing pairing, uint64_t first, const float *in, float *out)
{
    memcpy(out, in, sizeof plain);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t h = 0; h < HEADS; h++)
            for (size_t i = 0; i < DIMS / 2; i++) {
                size_t row = (t * HEADS + h) * DIM;
                size_t a = row + (pairing == WF_ROPE_INTERLEAVED ? 2 * i : i);
                size_t b = row + (pairing == WF_ROPE_INTERLEAVED ? 2 * i + 1 : i + DIMS / 2);
                double angle = (double)(first + t) * frequencies[i];
                out[a] = (float)(in[a] * cos(angle) - in[b] * sin(angle));
                out[b] = (float)(in[a] * sin(angle) + in[b] * cos(angle));
            }
}

static void turns_as_defined_and_back(void **state)
{
    (void)state;
    for (enum wf_rope_pairing pairing = WF_ROPE_INTERLEAVED; pairing <= WF_ROPE_HALVES; pairing++) {
        struct wf_rope rope = {pairing, DIMS, frequencies};
        static const uint64_t firsts[] = {0, 77, 1000000};
        for (size_t f = 0; f < 3; f++) {
            static float turned[ELEMENTS], expected[ELEMENTS];
            memcpy(turned, plain, sizeof turned);
            wf_rope_redo(&rope, firsts[f], turned, TOKENS, HEADS, DIM);
            by_definition(pairing, firsts[f], plain, expected);
            for (size_t i = 0; i < ELEMENTS; i++)
                assert_true(fabsf(turned[i] - expected[i]) < 2e-6f);
            wf_rope_undo(&rope, firsts[f], turned, TOKENS, HEADS, DIM);
            for (size_t i = 0; i < ELEMENTS; i++)
                assert_true(fabsf(turned[i] - plain[i]) < 2e-6f);
        }
    }
}

static void leaves_the_other_channels_alone(void **state)
{
    (void)state;
    struct wf_rope rope = {WF_ROPE_HALVES, 4, frequencies};
    float turned[ELEMENTS];
    memcpy(turned, plain, sizeof turned);
    wf_rope_redo(&rope, 9, turned, TOKENS, HEADS, DIM);
    for (size_t i = 0; i < ELEMENTS; i++)
        if (i % DIM >= 4)
            assert_true(turned[i] == plain[i]);
    assert_memory_not_equal(turned, plain, 4 * sizeof(float));

    struct wf_rope none = {WF_ROPE_HALVES, 0, NULL};
    wf_rope_undo(&none, 9, turned, TOKENS, HEADS, DIM);
}

static void every_width_gives_the_same_bits(void **state)
{
    (void)state;
    for (enum wf_rope_pairing pairing = WF_ROPE_INTERLEAVED; pairing <= WF_ROPE_HALVES; pairing++)
        for (int undo = 0; undo < 2; undo++) {
            struct wf_rope rope = {pairing, DIMS, frequencies};
            static float narrow[ELEMENTS], wide[ELEMENTS];
            memcpy(narrow, plain, sizeof narrow);
            memcpy(wide, plain, sizeof wide);
            assert_true(wf_rope_turn_width(4, &rope, undo, 123456, narrow, TOKENS, HEADS, DIM));
            if (!wf_rope_turn_width(8, &rope, undo, 123456, wide, TOKENS, HEADS, DIM))
                skip();
            assert_memory_equal(narrow, wide, sizeof narrow);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(angles_are_right_at_any_position),
        cmocka_unit_test(sixteen_positions_are_as_one_by_one),
        cmocka_unit_test(frequencies_fall_from_one),
        cmocka_unit_test(turns_as_defined_and_back),
        cmocka_unit_test(leaves_the_other_channels_alone),
        cmocka_unit_test(every_width_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
