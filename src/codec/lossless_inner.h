/* SPDX-License-Identifier: Apache-2.0
 *
 * What the lossless kernels of all instruction sets share: what was escaped, one by
 * one, and ranks.
 */
#ifndef WF_CODEC_LOSSLESS_INNER_H
#define WF_CODEC_LOSSLESS_INNER_H

#include <string.h>

#include "codec/lossless.h"

static inline uint8_t rank_of(const struct wf_symbols *s, uint8_t value)
{
    uint8_t at = (uint8_t)(value - s->window);
    return value == 0 ? s->zero : at < WF_WINDOW ? s->rank[at] : (uint8_t)s->symbols;
}

static inline uint8_t next_byte(struct wf_reader *r)
{
    if (r->escapes_left == 0) {
        r->damaged = true;
        return 0;
    }
    r->escapes_left--;
    return *r->escapes++;
}

/* What a decoder writes: elements of a dtype, or symbols alone. */
#define SYMBOLS_ALONE 0

static inline int kind_of(const struct wf_rest *rest)
{
    return rest ? (int)rest->dtype : SYMBOLS_ALONE;
}

/* Calls a loop with the kind as a constant, which it has last. */
#define RETURN_BY_KIND(kind, loop, ...)                          \
    switch (kind) {                                              \
    case WEFT_F32: return loop(__VA_ARGS__, WEFT_F32);           \
    case WEFT_F16: return loop(__VA_ARGS__, WEFT_F16);           \
    case WEFT_BF16: return loop(__VA_ARGS__, WEFT_BF16);         \
    case WEFT_FP8_E4M3: return loop(__VA_ARGS__, WEFT_FP8_E4M3); \
    case WEFT_FP8_E5M2: return loop(__VA_ARGS__, WEFT_FP8_E5M2); \
    case WEFT_INT8: return loop(__VA_ARGS__, WEFT_INT8);         \
    default: return loop(__VA_ARGS__, SYMBOLS_ALONE);            \
    }

/* Bytes of a group. */
static inline size_t kind_bytes(int kind)
{
    return kind == WEFT_F32                        ? 4 * WF_GROUP
           : kind == WEFT_F16 || kind == WEFT_BF16 ? 2 * WF_GROUP
                                                   : WF_GROUP;
}

static inline uint8_t bits_of_byte(uint8_t byte, uint8_t mask, int others)
{
    return (uint8_t)((byte & ~mask) | (others & mask));
}

/* A symbol into an element that has the rest and any symbol. */
static inline void place(uint8_t symbol, unsigned i, int kind, uint8_t *out)
{
    switch (kind) {
    case WEFT_F32:
        out[4 * i + 2] = bits_of_byte(out[4 * i + 2], 0x80, symbol << 7);
        out[4 * i + 3] = bits_of_byte(out[4 * i + 3], 0x7f, symbol >> 1);
        break;
    case WEFT_F16: out[2 * i + 1] = bits_of_byte(out[2 * i + 1], 0x7c, symbol << 2); break;
    case WEFT_BF16:
        out[2 * i] = bits_of_byte(out[2 * i], 0x80, symbol << 7);
        out[2 * i + 1] = bits_of_byte(out[2 * i + 1], 0x7f, symbol >> 1);
        break;
    case WEFT_FP8_E4M3: out[i] = bits_of_byte(out[i], 0x78, symbol << 3); break;
    case WEFT_FP8_E5M2: out[i] = bits_of_byte(out[i], 0x7c, symbol << 2); break;
    case WEFT_INT8: out[i] = bits_of_byte(out[i], 0xf0, symbol << 4); break;
    default: out[i] = symbol;
    }
}

/* Put symbols that were escaped as bytes to their places in `out`: symbols, or elements that want
 * theirs. */
static inline void patch(struct wf_reader *r, uint64_t mask, const uint8_t *base, int kind,
                         uint8_t *out)
{
    for (; mask; mask &= mask - 1) {
        unsigned i = (unsigned)__builtin_ctzll(mask);
        place((uint8_t)(next_byte(r) + base[i]), i, kind, out);
    }
}

static inline uint32_t bit_at(const uint8_t *bits, uint64_t at)
{
    return bits[at / 8] >> at % 8 & 1;
}

/* The same for those of the fixed mode, which have second codes. */
static inline void patch_seconds(struct wf_reader *r, uint64_t mask, const uint8_t *base, int kind,
                                 uint8_t *out)
{
    uint64_t count = (uint64_t)__builtin_popcountll(mask), at = r->second;
    if (r->seconds_end - at < 4 * count) {
        r->damaged = true;
        return;
    }
    const uint8_t *value = r->symbols->value + (1u << r->symbols->width) - 1;
    r->second += 4 * count;
    for (; mask; mask &= mask - 1, at++) {
        unsigned i = (unsigned)__builtin_ctzll(mask);
        uint32_t code = bit_at(r->seconds, at) | bit_at(r->seconds, at + count) << 1 |
                        bit_at(r->seconds, at + 2 * count) << 2 |
                        bit_at(r->seconds, at + 3 * count) << 3;
        uint8_t symbol = code == WF_SECOND_RAW ? next_byte(r) : value[code];
        place((uint8_t)(symbol + base[i]), i, kind, out);
    }
}

static inline uint64_t load_64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* Of how many second codes a plane can be had with one load, wherever it begins. */
#define WF_SECONDS_NEAR 56u

/* Up to which bit second codes may be read by loads of 8 bytes. */
static inline uint64_t last_second(const struct wf_reader *r)
{
    uint64_t readable = (uint64_t)(r->limit - r->seconds);
    uint64_t last = readable < 8 ? 0 : 8 * (readable - 8);
    return last < r->seconds_end ? last : r->seconds_end;
}

/* Up to 56 bits behind those that are there; what is above them is 0. */
static inline void put_bits(struct wf_writer *w, uint64_t bits, uint64_t count)
{
    uint8_t *at = w->seconds + w->second / 8;
    bits = bits << w->second % 8 | *at;
    memcpy(at, &bits, sizeof bits);
    w->second += count;
}

/* Symbols of a group that go as bytes. */
static inline void put_bytes(struct wf_writer *w, uint64_t mask, const uint8_t *symbols)
{
    for (; mask; mask &= mask - 1) {
        unsigned i = (unsigned)__builtin_ctzll(mask);
        w->escapes[w->escaped++] = symbols[i];
    }
}

/* Four planes of `count` bits each; `count` up to 64. */
static inline void put_seconds(struct wf_writer *w, const uint64_t planes[4], uint64_t count)
{
    for (unsigned bit = 0; bit < 4; bit++) {
        uint64_t low = count < 32 ? count : 32;
        put_bits(w, planes[bit] & 0xffffffff, low);
        if (count > low)
            put_bits(w, planes[bit] >> 32, count - low);
    }
}

/* Escapes of a group that is encoded backwards. */
static inline void put_escapes(struct wf_writer *w, uint64_t mask, const uint8_t *symbols)
{
    while (mask) {
        unsigned i = 63 - (unsigned)__builtin_clzll(mask);
        *--w->escapes = symbols[i];
        w->escaped++;
        mask ^= 1ull << i;
    }
}

/* The token that is number i of 2^shift. */
static inline const uint8_t *row_of(const struct wf_plane *plane, const uint8_t *symbols,
                                    uint32_t i, unsigned shift)
{
    return symbols +
           (size_t)((uint64_t)i * plane->tokens >> shift) * plane->heads * plane->head_dim;
}

/* Of channels from `first` on. */
static inline void means_from(uint32_t first, const struct wf_plane *plane, const uint8_t *symbols,
                              unsigned shift, struct wf_means *out)
{
    uint32_t channels = plane->heads * plane->head_dim, tokens = 1u << shift;
    for (uint32_t c = first; c < channels; c++) {
        uint32_t sum = 0;
        for (uint32_t i = 0; i < tokens; i++)
            sum += row_of(plane, symbols, i, shift)[c];
        uint8_t mean = (uint8_t)((sum + tokens / 2) >> shift);
        out->mean[c] = mean;
        out->least = mean < out->least ? mean : out->least;
        out->most = mean > out->most ? mean : out->most;
        out->sum += sum;
        out->squares += (uint64_t)sum * sum;
    }
}

#endif
