/* SPDX-License-Identifier: Apache-2.0
 *
 * Symbols one at a time, for any number of states, and the two ends of a stream (coder.h).
 */
#include "codec/coder.h"

#include <assert.h>

#define INLINE static inline __attribute__((always_inline))

void wf_bits_flush(struct wf_bit_writer *w)
{
    w->at += w->have > 0 && !w->full;
    w->have = 0;
}

/* ---------------------------------------------------------------------------------------- steps */

INLINE uint8_t *encode(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                       unsigned lanes, const uint8_t *symbols, unsigned states, uint32_t *state,
                       uint8_t *word, const uint8_t *least)
{
    for (size_t i = steps; i-- > 0;) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        for (unsigned l = lanes; l-- > 0;) {
            uint32_t s = state[l % states], symbol = symbols[i * WF_CODER_LANES + l];
            if (s >> (32 - WF_LAPLACE_BITS) >= t->frequency[symbol]) {
                if (word - least < 2)
                    return NULL;
                uint16_t low = (uint16_t)s;
                word -= 2;
                memcpy(word, &low, 2);
                s >>= 16;
            }
            state[l % states] = wf_coder_push(s, t, symbol);
        }
    }
    return word;
}

INLINE const uint8_t *decode(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                             unsigned lanes, uint8_t *symbols, unsigned states, uint32_t *state,
                             const uint8_t *word, const uint8_t *end)
{
    for (size_t i = 0; i < steps; i++) {
        const struct wf_laplace_table *t = &laplace->table[classes[i]];
        uint8_t *out = symbols + i * WF_CODER_LANES;
        for (unsigned l = 0; l < lanes; l++) {
            uint32_t s = state[l % states], slot = s % WF_LAPLACE_TOTAL;
            uint32_t symbol = t->symbol[slot];
            s = t->frequency[symbol] * (s >> WF_LAPLACE_BITS) + slot - t->start[symbol];
            if (s < WF_CODER_LOW) {
                uint16_t low;
                if (end - word < 2)
                    return NULL;
                memcpy(&low, word, 2);
                word += 2;
                s = s << 16 | low;
            }
            state[l % states] = s;
            out[l] = (uint8_t)symbol;
        }
        for (unsigned l = lanes; l < WF_CODER_LANES; l++)
            out[l] = 0;
    }
    return word;
}

uint8_t *wf_coder_encode(const struct wf_laplace *laplace, const uint8_t *classes, size_t steps,
                         unsigned lanes, const uint8_t *symbols, unsigned states, uint32_t *state,
                         uint8_t *word, const uint8_t *least)
{
    if (states == 4)
        return encode(laplace, classes, steps, lanes, symbols, 4, state, word, least);
    assert(states == WF_CODER_STATES_MAX);
    return encode(laplace, classes, steps, lanes, symbols, WF_CODER_STATES_MAX, state, word, least);
}

const uint8_t *wf_coder_decode(const struct wf_laplace *laplace, const uint8_t *classes,
                               size_t steps, unsigned lanes, uint8_t *symbols, unsigned states,
                               uint32_t *state, const uint8_t *word, const uint8_t *end)
{
    if (states == 4)
        return decode(laplace, classes, steps, lanes, symbols, 4, state, word, end);
    assert(states == WF_CODER_STATES_MAX);
    return decode(laplace, classes, steps, lanes, symbols, WF_CODER_STATES_MAX, state, word, end);
}

/* ----------------------------------------------------------------------------------------- ends */

void wf_coder_begin(unsigned states, uint32_t *state, const uint8_t *bits, size_t bytes)
{
    for (unsigned i = 0; i < states; i++) {
        uint32_t high = 2 * i < bytes ? bits[2 * i] : 0;
        uint32_t low = 2 * i + 1 < bytes ? bits[2 * i + 1] : 0;
        state[i] = WF_CODER_LOW | high << 8 | low;
    }
}

bool wf_coder_ended(unsigned states, const uint32_t *state, uint8_t *out_bits)
{
    bool ended = true;
    for (unsigned i = 0; i < states; i++) {
        out_bits[2 * i] = (uint8_t)(state[i] >> 8);
        out_bits[2 * i + 1] = (uint8_t)state[i];
        ended &= state[i] >> 16 == 1;
    }
    return ended;
}

void wf_coder_put_states(struct wf_bit_writer *w, unsigned states, const uint32_t *state)
{
    for (unsigned i = 0; i < states; i++) {
        unsigned more = 15 - (unsigned)__builtin_clz(state[i]);
        wf_bits_put(w, more, 4);
        wf_bits_put(w, state[i] & ((WF_CODER_LOW << more) - 1), 16 + more);
    }
}

void wf_coder_take_states(struct wf_bit_reader *r, unsigned states, uint32_t *state)
{
    for (unsigned i = 0; i < states; i++) {
        unsigned more = wf_bits_take(r, 4);
        state[i] = WF_CODER_LOW << more | wf_bits_take(r, 16 + more);
    }
}
