/* SPDX-License-Identifier: Apache-2.0
 *
 * An entropy coder for symbols of any distribution in turn: interleaved rANS (J. Duda, arXiv
 * 1311.2540; F. Giesen, "Interleaved entropy coders", arXiv 1402.3392), and beside it bits that are
 * sent as they are.
 *
 *     +-------------------------------+---------------------+-----------------------+
 *     | front: the caller's bits, and | words: u16, as many | bits, but for those   |
 *     | the states at the beginning   | as states ask for   | that are in states    |
 *     +-------------------------------+---------------------+-----------------------+
 *
 * Symbols come in steps: one for each of 16 lanes, all with the same distribution, so that a vector
 * takes a step at once.  Lane l's is coded by state l mod `states`.  States have 32 bits and are at
 * least 2^16; they are renewed 16 bits at a time, in the order of lanes.  All symbols are decoded
 * before the first of the bits is looked at.
 *
 * What states cost: each begins (for the decoder: ends) at 2^16 and the next 16 of the bits, so
 * that those are sent for nothing; and what is sent is as long as it is: n in 4 bits, then the
 * 16 + n bits below the highest.  That leaves 4 bits a state.  A decoder that does not end below
 * 2^17 everywhere, or whose bits do not end with the last byte, was given something else.
 */
#ifndef WF_CODEC_CODER_H
#define WF_CODEC_CODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "codec/laplace.h"

#define WF_CODER_LANES 16u
#define WF_CODER_STATES_MAX WF_CODER_LANES
#define WF_CODER_LOW (1u << 16)
#define WF_CODER_PAYLOAD_MAX (2 * WF_CODER_STATES_MAX) /* bytes of bits that are in states */

/* ----------------------------------------------------------------------------------------- bits */

/* From the highest of a byte on. */
struct wf_bit_writer {
    uint8_t *at, *end; /* it is full with fewer than 8 bytes between them */
    uint64_t held;
    unsigned have; /* bits of `held` that do not fill a byte yet; they are at `at` all the same */
    bool full;
};

static inline void wf_bits_put(struct wf_bit_writer *w, uint32_t value, unsigned count)
{
    w->held = w->held << count | value; /* count ≤ 32; no bits above are set */
    w->have += count;
    if (w->end - w->at < 8) {
        w->full = true;
    } else if (w->have > 0) {
        uint64_t bytes = __builtin_bswap64(w->held << (64 - w->have));
        memcpy(w->at, &bytes, 8);
        w->at += w->have / 8;
    }
    w->have %= 8;
}

/* What is held, to the end of a byte with zeros. */
void wf_bits_flush(struct wf_bit_writer *w);

/* Behind the bytes are 8 more that may be read. */
#define WF_BITS_SLACK 8u

struct wf_bit_reader {
    const uint8_t *bytes;
    size_t at, end; /* in bits */
    bool broken;    /* more was asked for than there is; what came of it is garbage */
};

/* `count` ≤ 32 */
static inline uint32_t wf_bits_take(struct wf_bit_reader *r, unsigned count)
{
    uint64_t next;
    if (r->end - r->at < count) {
        r->broken = true;
        return 0;
    }
    memcpy(&next, r->bytes + r->at / 8, 8);
    next = __builtin_bswap64(next) << (r->at % 8);
    r->at += count;
    return (uint32_t)(next >> 32 >> (32 - count));
}

/* -------------------------------------------------------------------------------------- symbols */

/* The frequency of a symbol is divided by: its reciprocal gives the quotient, or one less. */
static inline uint32_t wf_coder_push(uint32_t state, const struct wf_laplace_table *t,
                                     uint32_t symbol)
{
    uint32_t frequency = t->frequency[symbol];
    uint32_t quotient = (uint32_t)((uint64_t)state * t->reciprocal[symbol] >> 32);
    uint32_t rest = state - quotient * frequency;
    uint32_t more = rest >= frequency;
    return ((quotient + more) << WF_LAPLACE_BITS) + rest - (more ? frequency : 0) +
           t->start[symbol];
}

/* Steps with `lanes` symbols each, `symbols` [steps][16], of the distributions classes[step]; the
 * last is encoded first.  Words grow downwards from `word`, never below `least`; returns where
 * they begin, or NULL: there was no room. */
uint8_t *wf_coder_encode(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                         unsigned lanes, const uint8_t *symbols, unsigned states, uint32_t *state,
                         uint8_t *word, const uint8_t *least);
/* The other way; lanes from `lanes` on become 0.  Returns where words end, or NULL: beyond `end`.
 */
const uint8_t *wf_coder_decode(const struct wf_laplace *laplace, const uint8_t *classes,
                               size_t steps, unsigned lanes, uint8_t *symbols, unsigned states,
                               uint32_t *state, const uint8_t *word, const uint8_t *end);

/* States from the first of the bits, `bytes` of which there are, and these from states.  False: no
 * encoder leaves such. */
void wf_coder_begin(unsigned states, uint32_t *state, const uint8_t *bits, size_t bytes);
bool wf_coder_ended(unsigned states, const uint32_t *state, uint8_t *out_bits);
/* States into the front, and out of it; what is read is always a state. */
void wf_coder_put_states(struct wf_bit_writer *w, unsigned states, const uint32_t *state);
void wf_coder_take_states(struct wf_bit_reader *r, unsigned states, uint32_t *state);

#endif
