/* SPDX-License-Identifier: Apache-2.0
 *
 * Which symbols get a code, and of what length.
 *
 * All of it in integers, so that every machine finds the same.
 */
#include <string.h>

#include "codec/lossless.h"

/* A code of 6 bits takes 1/64 of all codes, which costs the others 1/64 bit × log2 e; to have one
 * saves 8 bits for the symbol.  So it pays from one symbol in 355 on. */
#define WORTH_A_CODE 355u

struct ranked {
    uint32_t count;
    uint8_t value;
};

/* The symbols within a window about the most frequent one, and 0, from the most frequent. */
static uint32_t rank_symbols(const struct wf_histogram *h, uint32_t most, struct wf_symbols *out,
                             uint32_t counts[WF_SYMBOLS_MAX])
{
    struct ranked ranked[WF_SYMBOLS_MAX + 1];
    uint32_t peak = 1, found = 0;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 2; i < 256; i++) /* 0 has a place of its own */
        peak = h->count[i] > h->count[peak] ? i : peak;
    out->window = (uint8_t)(peak - WF_WINDOW / 2 - WF_WINDOW / 8);
    for (uint32_t i = 0; i <= WF_WINDOW; i++) {
        uint8_t value = i < WF_WINDOW ? (uint8_t)(out->window + i) : 0;
        uint32_t count = h->count[value];
        if (count == 0 || (i < WF_WINDOW && value == 0))
            continue;
        uint32_t at = found < most ? found++ : most;
        for (; at > 0 && ranked[at - 1].count < count; at--)
            ranked[at] = ranked[at - 1];
        if (at < most)
            ranked[at] = (struct ranked){.count = count, .value = value};
    }
    for (uint32_t i = 0; i < found; i++) {
        out->value[i] = ranked[i].value;
        counts[i] = ranked[i].count;
    }
    return found;
}

static void set_ranks(struct wf_symbols *s)
{
    memset(s->rank, (int)s->symbols, sizeof s->rank);
    for (uint32_t i = 0; i < s->symbols; i++)
        s->rank[s->value[i]] = (uint8_t)i;
    for (uint32_t i = s->symbols; i < sizeof s->value; i++)
        s->value[i] = 0;
}

/* Depths of the leaves in Huffman's tree of n ≥ 2 weights, the greatest first; by two queues, of
 * which the second fills up in the order in which it is emptied. */
static void huffman(const uint32_t *weights, uint32_t n, uint8_t *lengths)
{
    uint32_t weight[32], leaf = n, made = 0, next = 0;
    uint8_t parent[32] = {0}, depth[32] = {0}, leaf_parent[32] = {0};
    for (; made < n - 1; made++) {
        uint32_t sum = 0;
        for (unsigned two = 0; two < 2; two++) {
            if (leaf > 0 && (next >= made || weights[leaf - 1] <= weight[next])) {
                sum += weights[--leaf];
                leaf_parent[leaf] = (uint8_t)made;
            } else {
                sum += weight[next];
                parent[next++] = (uint8_t)made;
            }
        }
        weight[made] = sum;
    }
    for (uint32_t i = n - 2; i-- > 0;)
        depth[i] = (uint8_t)(depth[parent[i]] + 1);
    for (uint32_t i = 0; i < n; i++)
        lengths[i] = (uint8_t)(depth[leaf_parent[i]] + 1);
}

/* None longer than WF_CODE_BITS, and the code still full: what is too long is cut, the longest that
 * can grow pay for it, and what is left over then goes to the most frequent. */
static void limit_lengths(uint32_t n, uint8_t *lengths)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        lengths[i] = lengths[i] > WF_CODE_BITS ? WF_CODE_BITS : lengths[i];
        used += WF_CODE_ENTRIES >> lengths[i];
    }
    while (used > WF_CODE_ENTRIES) {
        uint32_t grow = n - 1;
        while (lengths[grow] >= WF_CODE_BITS)
            grow--;
        lengths[grow]++;
        used -= WF_CODE_ENTRIES >> lengths[grow];
    }
    for (uint32_t i = 0; i < n && used < WF_CODE_ENTRIES; i++) {
        while (lengths[i] > 1 && used + (WF_CODE_ENTRIES >> lengths[i]) <= WF_CODE_ENTRIES) {
            used += WF_CODE_ENTRIES >> lengths[i];
            lengths[i]--;
        }
    }
}

bool wf_symbols_codes(struct wf_symbols *s)
{
    uint32_t n = s->symbols + 1, used = 0, next = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s->length[i] < 1 || s->length[i] > WF_CODE_BITS)
            return false;
        used += WF_CODE_ENTRIES >> s->length[i];
    }
    if (used != WF_CODE_ENTRIES)
        return false;
    for (uint32_t length = 1; length <= WF_CODE_BITS; length++) {
        for (uint32_t i = 0; i < n; i++) {
            if (s->length[i] != length)
                continue;
            /* `next` counts in 6 bits from the front; codes are read from the low end. */
            uint32_t code = 0;
            for (uint32_t bit = 0; bit < length; bit++)
                code |= (next >> (WF_CODE_BITS - 1 - bit) & 1) << bit;
            s->code[i] = (uint8_t)code;
            for (uint32_t at = code; at < WF_CODE_ENTRIES; at += 1u << length)
                s->decode[at] = length | i << 8;
            next += WF_CODE_ENTRIES >> length;
        }
    }
    return true;
}

uint32_t wf_symbols_entropy(const struct wf_histogram *h, struct wf_symbols *out)
{
    uint32_t counts[WF_SYMBOLS_MAX], weights[16], covered = 0;
    uint8_t lengths[16];
    uint32_t found = rank_symbols(h, WF_ENTROPY_SYMBOLS_MAX, out, counts);
    while (found > 1 && counts[found - 1] * WORTH_A_CODE < h->total)
        found--;
    out->symbols = found;
    set_ranks(out);
    for (uint32_t i = 0; i < found; i++)
        covered += counts[i];
    /* The escape is there always: what was counted may be a part of what is. */
    uint32_t escaped = h->total - covered, at = found, bits = 0;
    uint32_t weight = escaped > 0 ? escaped : 1;
    while (at > 0 && counts[at - 1] < weight)
        at--;
    for (uint32_t i = 0; i <= found; i++)
        weights[i] = i < at ? counts[i] : i == at ? weight : counts[i - 1];
    huffman(weights, found + 1, lengths);
    limit_lengths(found + 1, lengths);
    for (uint32_t i = 0; i < found; i++) {
        out->length[i] = lengths[i < at ? i : i + 1];
        bits += counts[i] * out->length[i];
    }
    out->length[found] = lengths[at];
    bits += escaped * (lengths[at] + 8u);
    if (!wf_symbols_codes(out))
        return UINT32_MAX;
    return (uint32_t)((uint64_t)bits * 256 / (h->total ? h->total : 1));
}

uint32_t wf_symbols_fixed(const struct wf_histogram *h, struct wf_symbols *out)
{
    uint32_t counts[WF_SYMBOLS_MAX], best = UINT32_MAX;
    uint32_t found = rank_symbols(h, WF_SYMBOLS_MAX, out, counts), symbols = found;
    for (uint32_t width = 1; width <= 4; width++) {
        uint32_t direct = (1u << width) - 1, usable = direct + WF_SECOND_RAW, raw = h->total;
        usable = usable < found ? usable : found;
        uint32_t escaped = h->total;
        for (uint32_t i = 0; i < usable; i++) {
            escaped -= i < direct ? counts[i] : 0;
            raw -= counts[i];
        }
        uint32_t bits = h->total * width + escaped * 4 + raw * 8;
        if (bits < best) {
            best = bits;
            out->width = width;
            symbols = usable;
        }
    }
    out->symbols = symbols;
    set_ranks(out);
    return (uint32_t)((uint64_t)best * 256 / (h->total ? h->total : 1));
}
