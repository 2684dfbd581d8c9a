/* SPDX-License-Identifier: Apache-2.0
 *
 * An entropy coder for symbols of any distribution in turn: interleaved rANS (J. Duda, arXiv
 * 1311.2540; F. Giesen, "Interleaved entropy coders", arXiv 1402.3392), and beside it bits that are
 * sent as they are.
 *
 *     +---------------+----------------------------->   <------------------------+
 *     | states: u32[] | words, u16, read forwards   |   | bits, read backwards   |
 *     +---------------+----------------------------->   <------------------------+
 *
 * States have 32 bits and are at least 2^16; they are renewed 16 bits at a time.  Symbol number i
 * is state i mod `states`'s.  The coder ends where it began, with all states at 2^16 and no byte
 * left between words and bits: so what was damaged is nearly always seen.
 */
#ifndef WF_CODEC_CODER_H
#define WF_CODEC_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "codec/laplace.h"

#define WF_CODER_STATES_MAX 4u
#define WF_CODER_LOW (1u << 16)

/* ------------------------------------------------------------------------------------- encoding */

struct wf_coder_symbol {
    uint16_t start, frequency;
};

/* Symbols are kept until the end, since rANS writes the last one first; bits are kept in the order
 * in which they will be read, from the highest of a byte on. */
struct wf_encoder {
    struct wf_coder_symbol *symbols;
    size_t symbol_count, symbols_max;
    uint8_t *bits;
    size_t bit_bytes, bit_bytes_max;
    uint64_t held;
    unsigned have;
    bool full;
};

static inline void wf_encoder_symbol(struct wf_encoder *e, uint32_t start, uint32_t frequency)
{
    if (e->symbol_count < e->symbols_max)
        e->symbols[e->symbol_count++] = (struct wf_coder_symbol){(uint16_t)start,
                                                                 (uint16_t)frequency};
    else
        e->full = true;
}

/* `count` ≤ 32 low bits of value, no others set. */
static inline void wf_encoder_bits(struct wf_encoder *e, uint32_t value, unsigned count)
{
    e->held = e->held << count | value;
    e->have += count;
    while (e->have >= 8) {
        e->have -= 8;
        if (e->bit_bytes < e->bit_bytes_max)
            e->bits[e->bit_bytes++] = (uint8_t)(e->held >> e->have);
        else
            e->full = true;
    }
}

/* Everything to `out`; the bytes it took, or 0 when they were more than `capacity`, or more was
 * encoded than there was room for. */
size_t wf_encoder_finish(struct wf_encoder *e, unsigned states, uint8_t *out, size_t capacity);

/* ------------------------------------------------------------------------------------- decoding */

struct wf_decoder {
    const uint8_t *begin, *end; /* of words and bits */
    const uint8_t *word, *bit;  /* words are read from here on up, bits from here on down */
    uint64_t held;              /* bits, from the highest on; what is below `have` may be next */
    unsigned have, spare;       /* bits held, and how many of them are not there but zeros */
    unsigned states, turn;
    uint32_t state[WF_CODER_STATES_MAX];
    bool broken; /* more was asked for than there is; what came of it is garbage */
};

/* False: it is too short. */
bool wf_decoder_init(struct wf_decoder *d, unsigned states, const uint8_t *in, size_t bytes);
/* Was everything read, and nothing wrong? */
bool wf_decoder_ended(const struct wf_decoder *d);
/* Near the end of the bits. */
void wf_decoder_fill_slowly(struct wf_decoder *d);

static inline uint32_t wf_decoder_peek(const struct wf_decoder *d)
{
    return d->state[d->turn] & (WF_LAPLACE_TOTAL - 1);
}

/* The symbol that wf_decoder_peek() showed begins at `start` and is `frequency` wide. */
static inline void wf_decoder_advance(struct wf_decoder *d, uint32_t start, uint32_t frequency)
{
    uint32_t state = d->state[d->turn];
    state = frequency * (state >> WF_LAPLACE_BITS) + (state & (WF_LAPLACE_TOTAL - 1)) - start;
    if (state < WF_CODER_LOW) {
        uint16_t word = 0;
        if (d->end - d->word >= 2) {
            memcpy(&word, d->word, 2);
            d->word += 2;
        } else {
            d->broken = true;
        }
        state = state << 16 | word;
    }
    d->state[d->turn] = state;
    d->turn = d->turn + 1 == d->states ? 0 : d->turn + 1;
}

/* `count` ≤ 32 */
static inline uint32_t wf_decoder_bits(struct wf_decoder *d, unsigned count)
{
    if (count == 0)
        return 0;
    if (d->have < count) {
        if (d->bit - d->begin >= 8) {
            uint64_t next;
            memcpy(&next, d->bit - 8, 8);
            d->held |= next >> d->have;
            unsigned bytes = (63 - d->have) >> 3;
            d->bit -= bytes;
            d->have += 8 * bytes;
        } else {
            wf_decoder_fill_slowly(d);
        }
    }
    uint32_t value = (uint32_t)(d->held >> (64 - count));
    d->held <<= count;
    d->have -= count;
    return value;
}

#endif
