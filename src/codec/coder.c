/* SPDX-License-Identifier: Apache-2.0
 *
 * The two ends of a stream; what is between is inline in coder.h.
 */
#include "codec/coder.h"

#include <assert.h>

size_t wf_encoder_finish(struct wf_encoder *e, unsigned states, uint8_t *out, size_t capacity)
{
    assert(states >= 1 && states <= WF_CODER_STATES_MAX);
    if (e->have > 0)
        wf_encoder_bits(e, 0, 8 - e->have);
    size_t head = states * sizeof(uint32_t);
    if (e->full || capacity < head + e->bit_bytes)
        return 0;

    /* Words grow downwards from the end of `out` first, for the last is written first. */
    uint8_t *word = out + capacity;
    const uint8_t *least = out + head + e->bit_bytes;
    uint32_t state[WF_CODER_STATES_MAX];
    for (unsigned i = 0; i < states; i++)
        state[i] = WF_CODER_LOW;
    for (size_t i = e->symbol_count; i-- > 0;) {
        uint32_t *s = &state[i % states];
        uint32_t frequency = e->symbols[i].frequency, start = e->symbols[i].start;
        if (*s >> (32 - WF_LAPLACE_BITS) >= frequency) {
            if (word - least < 2)
                return 0;
            word -= 2;
            uint16_t low = (uint16_t)*s;
            memcpy(word, &low, 2);
            *s >>= 16;
        }
        *s = (*s / frequency << WF_LAPLACE_BITS) + *s % frequency + start;
    }
    size_t words = (size_t)(out + capacity - word);
    memcpy(out, state, head);
    memmove(out + head, word, words);
    for (size_t i = 0; i < e->bit_bytes; i++)
        out[head + words + e->bit_bytes - 1 - i] = e->bits[i];
    return head + words + e->bit_bytes;
}

bool wf_decoder_init(struct wf_decoder *d, unsigned states, const uint8_t *in, size_t bytes)
{
    size_t head = states * sizeof(uint32_t);
    if (bytes < head)
        return false;
    *d = (struct wf_decoder){.begin = in + head,
                             .end = in + bytes,
                             .word = in + head,
                             .bit = in + bytes,
                             .states = states};
    memcpy(d->state, in, head);
    return true;
}

void wf_decoder_fill_slowly(struct wf_decoder *d)
{
    /* What is held below `have` is the beginning of the next byte, and said again. */
    while (d->have <= 56 && d->bit > d->begin) {
        d->held |= (uint64_t) * --d->bit << (56 - d->have);
        d->have += 8;
    }
    if (d->have < 32 && d->bit == d->begin) {
        d->broken |= d->spare != 0; /* of more than 32 zeros, some were taken */
        d->spare = 64 - d->have;
        d->have = 64;
    }
}

bool wf_decoder_ended(const struct wf_decoder *d)
{
    bool ended = !d->broken && d->have >= d->spare && d->word == d->bit + (d->have - d->spare) / 8;
    for (unsigned i = 0; i < d->states; i++)
        ended &= d->state[i] == WF_CODER_LOW;
    return ended;
}
