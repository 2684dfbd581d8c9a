/* SPDX-License-Identifier: Apache-2.0
 *
 * How elements are cut into a symbol, which is worth coding, and the rest, which is not.
 *
 *              symbol             top              lows
 *   f32        exponent, 8 bits   sign, 7 of 23    two bytes
 *   f16        exponent, 5 bits   sign, 2 of 10    a byte
 *   bf16       exponent, 8 bits   sign, 7 of 7
 *   fp8 e4m3   exponent, 4 bits   sign, 3 of 3
 *   fp8 e5m2   exponent, 5 bits   sign, 2 of 2
 *   int8       upper 4 bits       lower 4 bits
 */
#include <string.h>

#include "codec/lossless.h"

struct wf_split wf_split_of(enum weft_dtype dtype)
{
    switch (dtype) {
    case WEFT_F32: return (struct wf_split){.bits = 8, .lows = 2};
    case WEFT_F16: return (struct wf_split){.bits = 3, .lows = 1};
    case WEFT_BF16: return (struct wf_split){.bits = 8};
    case WEFT_FP8_E4M3: return (struct wf_split){.bits = 4};
    case WEFT_FP8_E5M2: return (struct wf_split){.bits = 3};
    case WEFT_INT8: break;
    }
    return (struct wf_split){.bits = 4};
}

static inline uint16_t load_u16(const uint8_t *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t load_u32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

#define EACH(expression)                  \
    for (size_t i = 0; i < elements; i++) \
    out[i] = (uint8_t)(expression)

void wf_split_symbols(enum weft_dtype dtype, size_t elements, const uint8_t *plain, uint8_t *out)
{
    switch (dtype) {
    case WEFT_F32: EACH(load_u32(plain + 4 * i) >> 23); break;
    case WEFT_F16: EACH(load_u16(plain + 2 * i) >> 10 & 31); break;
    case WEFT_BF16: EACH(load_u16(plain + 2 * i) >> 7); break;
    case WEFT_FP8_E4M3: EACH(plain[i] >> 3 & 15); break;
    case WEFT_FP8_E5M2: EACH(plain[i] >> 2 & 31); break;
    case WEFT_INT8: EACH(plain[i] >> 4); break;
    }
}

void wf_split_top(enum weft_dtype dtype, size_t elements, const uint8_t *plain, uint8_t *out)
{
    switch (dtype) {
    case WEFT_F32: EACH((plain[4 * i + 3] & 0x80) | (plain[4 * i + 2] & 0x7f)); break;
    case WEFT_F16: EACH((plain[2 * i + 1] >> 5 & 4) | (plain[2 * i + 1] & 3)); break;
    case WEFT_BF16: EACH((plain[2 * i + 1] & 0x80) | (plain[2 * i] & 0x7f)); break;
    case WEFT_FP8_E4M3: EACH((plain[i] >> 4 & 8) | (plain[i] & 7)); break;
    case WEFT_FP8_E5M2: EACH((plain[i] >> 5 & 4) | (plain[i] & 3)); break;
    case WEFT_INT8: EACH(plain[i] & 15); break;
    }
}

void wf_split_low(enum weft_dtype dtype, uint32_t low, size_t elements, const uint8_t *plain,
                  uint8_t *out)
{
    size_t size = weft_dtype_bytes(dtype);
    EACH(plain[size * i + low]);
}

static void merge_f32(size_t elements, const uint8_t *symbols, const uint8_t *top,
                      const uint8_t *low0, const uint8_t *low1, uint8_t *plain)
{
    for (size_t i = 0; i < elements; i++) {
        uint32_t element = (uint32_t)(top[i] & 0x80) << 24 | (uint32_t)symbols[i] << 23 |
                           (uint32_t)(top[i] & 0x7f) << 16 | (uint32_t)low1[i] << 8 | low0[i];
        memcpy(plain + 4 * i, &element, 4);
    }
}

void wf_merge(const struct wf_rest *rest, size_t elements, const uint8_t *symbols, uint8_t *plain)
{
    struct wf_split split = wf_split_of(rest->dtype);
    const uint8_t *top = rest->part[0], *const *lows = rest->part + 1;
    uint8_t *out = plain, unpacked[WF_GROUP];
    if (split.bits < 8) {
        wf_bits_unpack(split.bits, 1, top, unpacked);
        top = unpacked;
    }
    switch (rest->dtype) {
    case WEFT_F32: merge_f32(elements, symbols, top, lows[0], lows[1], plain); break;
    case WEFT_F16:
        for (size_t i = 0; i < elements; i++) {
            uint16_t element = (uint16_t)((top[i] & 4) << 13 | (symbols[i] & 31) << 10 |
                                          (top[i] & 3) << 8 | lows[0][i]);
            memcpy(plain + 2 * i, &element, 2);
        }
        break;
    case WEFT_BF16:
        for (size_t i = 0; i < elements; i++) {
            uint16_t element = (uint16_t)((top[i] & 0x80) << 8 | symbols[i] << 7 | (top[i] & 0x7f));
            memcpy(plain + 2 * i, &element, 2);
        }
        break;
    case WEFT_FP8_E4M3: EACH((top[i] & 8) << 4 | (symbols[i] & 15) << 3 | (top[i] & 7)); break;
    case WEFT_FP8_E5M2: EACH((top[i] & 4) << 5 | (symbols[i] & 31) << 2 | (top[i] & 3)); break;
    case WEFT_INT8: EACH(symbols[i] << 4 | (top[i] & 15)); break;
    }
}

/* Bit b of eight bytes, gathered in a byte and the way back: the multiplication moves bit 0 of byte
 * k to bit 56 + k, and no two meet. */
void wf_bits_pack(uint32_t bits, size_t groups, const uint8_t *bytes, uint8_t *out)
{
    for (size_t group = 0; group < groups; group++) {
        for (uint32_t bit = 0; bit < bits; bit++) {
            for (unsigned eight = 0; eight < 8; eight++) {
                uint64_t in;
                memcpy(&in, bytes + group * WF_GROUP + 8 * eight, 8);
                in = in >> bit & 0x0101010101010101u;
                *out++ = (uint8_t)(in * 0x0102040810204080u >> 56);
            }
        }
    }
}

void wf_bits_unpack(uint32_t bits, size_t groups, const uint8_t *in, uint8_t *bytes)
{
    for (size_t group = 0; group < groups; group++) {
        for (unsigned eight = 0; eight < 8; eight++) {
            uint64_t value = 0;
            for (uint32_t bit = 0; bit < bits; bit++) {
                uint64_t spread = in[(group * bits + bit) * 8 + eight] * 0x0101010101010101u;
                spread &= 0x8040201008040201u;
                spread = (spread + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
                value |= spread << bit;
            }
            memcpy(bytes + group * WF_GROUP + 8 * eight, &value, 8);
        }
    }
}
