/* SPDX-License-Identifier: Apache-2.0
 *
 * Every number of the small types is a float and comes back; every float goes to the nearest, by a
 * search that knows nothing of bits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>

#include "codec/convert.h"

/* What the format's definition says `value` is: a sign, an exponent, a mantissa. */
static double defined(uint32_t value, int exponent, int mantissa)
{
    int power = (int)(value >> mantissa & ((1u << exponent) - 1));
    double part = (double)(value & ((1u << mantissa) - 1)) / (double)(1 << mantissa);
    int bias = (1 << (exponent - 1)) - 1;
    double size = power ? ldexp(1 + part, power - bias) : ldexp(part, 1 - bias);
    return value >> (exponent + mantissa) & 1 ? -size : size;
}

struct type {
    const char *name;
    enum weft_dtype dtype;
    int exponent, mantissa;
    uint32_t largest; /* number; the one after it is infinity, or there is none */
    bool infinite;
};

static const struct type types[] = {
    {"f16", WEFT_F16, 5, 10, 0x7bff, true},
    {"bf16", WEFT_BF16, 8, 7, 0x7f7f, true},
    {"e4m3", WEFT_FP8_E4M3, 4, 3, 0x7e, false},
    {"e5m2", WEFT_FP8_E5M2, 5, 2, 0x7b, true},
};
#define TYPES (sizeof(types) / sizeof(*types))

static float to_float(const struct type *type, uint32_t value)
{
    uint16_t half = (uint16_t)value;
    uint8_t byte = (uint8_t)value;
    float out;
    bool wide = type->exponent + type->mantissa > 8;
    wf_floats_of(type->dtype, wide ? (const void *)&half : &byte, 1, &out);
    return out;
}

static uint32_t of_float(const struct type *type, float value)
{
    uint16_t half = 0;
    uint8_t byte = 0;
    bool wide = type->exponent + type->mantissa > 8;
    wf_floats_to(type->dtype, &value, 1, wide ? (void *)&half : &byte);
    return wide ? half : byte;
}

static uint32_t sign_of(const struct type *type)
{
    return 1u << (type->exponent + type->mantissa);
}

static void every_number_is_what_it_is_defined_as(void **state)
{
    (void)state;
    for (size_t i = 0; i < TYPES; i++)
        for (uint32_t value = 0; value <= types[i].largest; value++)
            for (uint32_t sign = 0; sign < 2; sign++) {
                uint32_t bits = value | sign * sign_of(&types[i]);
                float got = to_float(&types[i], bits);
                if ((double)got != defined(bits, types[i].exponent, types[i].mantissa) ||
                    !!signbit(got) != sign || of_float(&types[i], got) != bits)
                    fail_msg("%s %#x is %g and comes back as %#x", types[i].name, bits, (double)got,
                             of_float(&types[i], got));
            }
}

static void what_is_no_number_stays_none(void **state)
{
    (void)state;
    static const uint32_t nans[] = {0x7fc00000, 0x7f800001, 0x7fffffff, 0x7f80ffff};
    for (size_t i = 0; i < TYPES; i++) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            for (size_t n = 0; n < sizeof(nans) / sizeof(*nans); n++) {
                float nan_of_sign = wf_bits_float(nans[n] | sign << 31);
                float back = to_float(&types[i], of_float(&types[i], nan_of_sign));
                assert_true(isnan(back) && !!signbit(back) == sign);
            }
            float infinity = sign ? -INFINITY : INFINITY;
            float back = to_float(&types[i], of_float(&types[i], infinity));
            assert_true(types[i].infinite ? back == infinity : fabsf(back) == 448.0f);
            assert_true(!!signbit(back) == sign);
        }
        for (uint32_t value = types[i].largest + 1; value < sign_of(&types[i]); value++) {
            float got = to_float(&types[i], value);
            bool infinite = types[i].infinite && value == types[i].largest + 1;
            assert_true(infinite ? isinf(got) : isnan(got));
        }
    }
}

/* The nearest of all non-negative numbers of the type, the even one of two. */
static uint32_t nearest(const struct type *type, double size)
{
    uint32_t low = 0, high = type->largest + (type->infinite ? 1 : 0);
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (defined(middle, type->exponent, type->mantissa) <= size)
            low = middle;
        else
            high = middle;
    }
    /* Infinity stands where the next number would be. */
    double below = size - defined(low, type->exponent, type->mantissa);
    double above = defined(high, type->exponent, type->mantissa) - size;
    return below < above || (below == above && low % 2 == 0) ? low : high;
}

static void every_float_goes_to_the_nearest(void **state)
{
    (void)state;
    uint64_t random = 1;
    for (size_t i = 0; i < TYPES; i++)
        for (uint32_t n = 0; n < 400000; n++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint32_t bits = (uint32_t)(random >> 33);
            /* Every other one is a tie or next to one, about the numbers themselves. */
            if (n % 2) {
                float between = to_float(&types[i], bits % types[i].largest);
                float next = to_float(&types[i], bits % types[i].largest + 1);
                bits = wf_float_bits(0.5f * between + 0.5f * next) + (n / 2 % 3) - 1;
            }
            float value = wf_bits_float(bits & 0x7fffffff);
            if (isnan(value) || isinf(value))
                continue;
            uint32_t expected = nearest(&types[i], (double)value);
            if (of_float(&types[i], value) != expected ||
                of_float(&types[i], -value) != (expected | sign_of(&types[i])))
                fail_msg("%s of %.9g is %#x, and %#x is nearest", types[i].name, (double)value,
                         of_float(&types[i], value), expected);
        }
}

static void int8_is_held_within_its_range(void **state)
{
    (void)state;
    static const struct {
        float value;
        int8_t expected;
    } cases[] = {{0, 0},       {0.5f, 0},    {1.5f, 2},       {-2.5f, -2},      {126.6f, 127},
                 {1e30f, 127}, {-127, -127}, {-128, -127},    {-1e30f, -127},   {-126.5f, -126},
                 {NAN, 0},     {-0.0f, 0},   {INFINITY, 127}, {-INFINITY, -127}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        int8_t got;
        float back;
        wf_floats_to(WEFT_INT8, &cases[i].value, 1, &got);
        assert_int_equal(got, cases[i].expected);
        wf_floats_of(WEFT_INT8, &got, 1, &back);
        assert_true(back == (float)got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_is_what_it_is_defined_as),
        cmocka_unit_test(what_is_no_number_stays_none),
        cmocka_unit_test(every_float_goes_to_the_nearest),
        cmocka_unit_test(int8_is_held_within_its_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
