/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers that KV is made of, to and from float.
 *
 * To float is exact.  From float is to the nearest, ties to even, as engines do it; what is beyond
 * the largest becomes infinity where the type has one (f16, bf16, e5m2) and the largest where it
 * has none (e4m3, as OCP's "FN" has it, saturating); a NaN stays a NaN of its sign.  Scalar, and
 * the same on every machine: what a vector kernel answers must be this.
 */
#ifndef WF_CODEC_CONVERT_H
#define WF_CODEC_CONVERT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "weft/weft.h"

static inline uint32_t wf_float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float wf_bits_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* `value` without its lowest `bits` (1 … 31), to the nearest, ties to even. */
static inline uint32_t wf_round_off(uint32_t value, unsigned bits)
{
    uint32_t half = 1u << (bits - 1), odd = value >> bits & 1;
    return (uint32_t)(((uint64_t)value + half - 1 + odd) >> bits);
}

static inline float wf_bf16_float(uint16_t value)
{
    return wf_bits_float((uint32_t)value << 16);
}

static inline uint16_t wf_float_bf16(float value)
{
    uint32_t bits = wf_float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(bits >> 16 | 0x40); /* quiet: its payload may be in the lower half */
    return (uint16_t)wf_round_off(bits, 16);
}

/* A float with a sign, `exponent` bits of exponent biased by half their range, and `mantissa`
 * bits.  What they hold is told apart by the callers where it is not a number. */
static inline float wf_small_float(uint32_t value, unsigned exponent, unsigned mantissa)
{
    uint32_t sign = value >> (exponent + mantissa) << 31;
    uint32_t rest = value & ((1u << (exponent + mantissa)) - 1);
    uint32_t bias = (1u << (exponent - 1)) - 1;
    if (rest >> mantissa == 0) { /* subnormal: rest × 2^(1 - bias - mantissa), exact in a float */
        float unit = wf_bits_float((128 - bias - mantissa) << 23);
        return wf_bits_float(wf_float_bits((float)rest * unit) | sign);
    }
    return wf_bits_float(((rest << (23 - mantissa)) + ((127 - bias) << 23)) | sign);
}

/* The other way, for a magnitude that is a number: bits without a sign, which may come out beyond
 * the largest. */
static inline uint32_t wf_float_small(uint32_t magnitude, unsigned exponent, unsigned mantissa)
{
    uint32_t bias = (1u << (exponent - 1)) - 1, least = 128 - bias; /* of what is not subnormal */
    uint32_t power = magnitude >> 23;
    if (power >= least)
        return wf_round_off(magnitude - ((127 - bias) << 23), 23 - mantissa);
    uint32_t shift = 23 - mantissa + least - power;
    if (shift > 25 || power == 0)
        return 0;
    return wf_round_off((magnitude & 0x7fffff) | 0x800000, shift);
}

static inline float wf_f16_float(uint16_t value)
{
    if ((value & 0x7c00) == 0x7c00)
        return wf_bits_float((uint32_t)(value & 0x8000) << 16 | 0x7f800000 |
                             (uint32_t)(value & 0x3ff) << 13);
    return wf_small_float(value, 5, 10);
}

static inline uint16_t wf_float_f16(float value)
{
    uint32_t bits = wf_float_bits(value), magnitude = bits & 0x7fffffff, sign = bits >> 16 & 0x8000;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    uint32_t rounded = magnitude < 0x47800000 ? wf_float_small(magnitude, 5, 10) : 0x7c00;
    return (uint16_t)(sign | rounded); /* 65520 and up round to 0x7c00, infinity */
}

static inline float wf_e4m3_float(uint8_t value)
{
    if ((value & 0x7f) == 0x7f)
        return wf_bits_float((uint32_t)(value & 0x80) << 24 | 0x7fc00000);
    return wf_small_float(value, 4, 3);
}

static inline uint8_t wf_float_e4m3(float value)
{
    uint32_t bits = wf_float_bits(value), magnitude = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
    if (magnitude > 0x7f800000)
        return (uint8_t)(sign | 0x7f);
    uint32_t rounded = magnitude < 0x44000000 ? wf_float_small(magnitude, 4, 3) : 0x7e;
    return (uint8_t)(sign | (rounded > 0x7e ? 0x7e : rounded));
}

static inline float wf_e5m2_float(uint8_t value)
{
    return wf_f16_float((uint16_t)(value << 8)); /* the upper half of one */
}

static inline uint8_t wf_float_e5m2(float value)
{
    uint32_t bits = wf_float_bits(value), magnitude = bits & 0x7fffffff, sign = bits >> 24 & 0x80;
    if (magnitude > 0x7f800000)
        return (uint8_t)(sign | 0x7e);
    uint32_t rounded = magnitude < 0x47800000 ? wf_float_small(magnitude, 5, 2) : 0x7c;
    return (uint8_t)(sign | rounded);
}

/* `count` elements of `dtype` to floats, and back.  An INT8 is its number, of which the nearest
 * from -127 to 127 is kept (a NaN is 0).  Neither array need be aligned to more than its elements.
 */
static inline void wf_floats_of(enum weft_dtype dtype, const void *from, size_t count, float *out)
{
    const uint16_t *halves = from;
    const uint8_t *bytes = from;
    switch (dtype) {
    case WEFT_F32: memcpy(out, from, count * sizeof(*out)); break;
    case WEFT_F16:
        for (size_t i = 0; i < count; i++)
            out[i] = wf_f16_float(halves[i]);
        break;
    case WEFT_BF16:
        for (size_t i = 0; i < count; i++)
            out[i] = wf_bf16_float(halves[i]);
        break;
    case WEFT_FP8_E4M3:
        for (size_t i = 0; i < count; i++)
            out[i] = wf_e4m3_float(bytes[i]);
        break;
    case WEFT_FP8_E5M2:
        for (size_t i = 0; i < count; i++)
            out[i] = wf_e5m2_float(bytes[i]);
        break;
    case WEFT_INT8:
        for (size_t i = 0; i < count; i++)
            out[i] = (float)(int8_t)bytes[i];
        break;
    }
}

static inline uint8_t wf_float_int8(float value)
{
    if (!(value > -127.0f)) /* a NaN too */
        return value <= -127.0f ? (uint8_t)-127 : 0;
    if (value >= 127.0f)
        return 127;
    return (uint8_t)(int8_t)__builtin_rintf(value);
}

static inline void wf_floats_to(enum weft_dtype dtype, const float *from, size_t count, void *out)
{
    uint16_t *halves = out;
    uint8_t *bytes = out;
    switch (dtype) {
    case WEFT_F32: memcpy(out, from, count * sizeof(*from)); break;
    case WEFT_F16:
        for (size_t i = 0; i < count; i++)
            halves[i] = wf_float_f16(from[i]);
        break;
    case WEFT_BF16:
        for (size_t i = 0; i < count; i++)
            halves[i] = wf_float_bf16(from[i]);
        break;
    case WEFT_FP8_E4M3:
        for (size_t i = 0; i < count; i++)
            bytes[i] = wf_float_e4m3(from[i]);
        break;
    case WEFT_FP8_E5M2:
        for (size_t i = 0; i < count; i++)
            bytes[i] = wf_float_e5m2(from[i]);
        break;
    case WEFT_INT8:
        for (size_t i = 0; i < count; i++)
            bytes[i] = wf_float_int8(from[i]);
        break;
    }
}

#endif
