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

static void rank_one(const struct wf_histogram *h, uint8_t value, struct wf_ranking *out)
{
    uint32_t count = h->count[value], at = out->found;
    if (count == 0 || (at == WF_SYMBOLS_MAX && out->count[at - 1] >= count))
        return;
    at = at == WF_SYMBOLS_MAX ? at - 1 : out->found++;
    for (; at > 0 && out->count[at - 1] < count; at--) {
        out->count[at] = out->count[at - 1];
        out->value[at] = out->value[at - 1];
    }
    out->count[at] = count;
    out->value[at] = value;
}

/* Only what lies in a window about the most frequent symbol, and 0.  From the peak outwards the
 * counts fall, so that little has to be sorted. */
void wf_symbols_rank(const struct wf_histogram *h, struct wf_ranking *out)
{
    uint16_t most = 1;
    for (uint32_t i = 1; i < 256; i++) /* 0 has a place of its own */
        most = h->count[i] > most ? h->count[i] : most;
    uint32_t peak = 1, left = h->total - h->count[0];
    while (peak < 255 && h->count[peak] != most)
        peak++;
    out->found = 0;
    out->total = h->total;
    out->window = (uint8_t)(peak - WF_WINDOW_BELOW);
    for (uint32_t i = 0; i <= WF_WINDOW_BELOW && left > 0; i++) {
        uint8_t below = (uint8_t)(peak - i), above = (uint8_t)(peak + i);
        if (below != 0) {
            rank_one(h, below, out);
            left -= h->count[below];
        }
        if (above != 0 && i > 0 && i < WF_WINDOW - WF_WINDOW_BELOW) {
            rank_one(h, above, out);
            left -= h->count[above];
        }
    }
    rank_one(h, 0, out);
}

static void take(const struct wf_ranking *ranking, uint32_t symbols, struct wf_symbols *out)
{
    memset(out->value, 0, sizeof out->value);
    memset(out->length, 0, sizeof out->length);
    memset(out->code, 0, sizeof out->code);
    memset(out->rank, (int)symbols, sizeof out->rank);
    out->width = 0;
    out->symbols = symbols;
    out->window = ranking->window;
    for (uint32_t i = 0; i < symbols; i++) {
        out->value[i] = ranking->value[i];
        out->rank[out->value[i]] = (uint8_t)i;
    }
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

static uint32_t reversed(uint32_t bits)
{
    return (bits & 1) << 5 | (bits & 2) << 3 | (bits & 4) << 1 | (bits & 8) >> 1 |
           (bits & 16) >> 3 | (bits & 32) >> 5;
}

bool wf_symbols_codes(struct wf_symbols *s, bool decode)
{
    uint32_t n = s->symbols + 1, counts[WF_CODE_BITS + 1] = {0}, next[WF_CODE_BITS + 1], used = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (s->length[i] < 1 || s->length[i] > WF_CODE_BITS)
            return false;
        counts[s->length[i]]++;
    }
    for (uint32_t length = 1; length <= WF_CODE_BITS; length++) {
        next[length] = used;
        used += counts[length] * (WF_CODE_ENTRIES >> length);
    }
    if (used != WF_CODE_ENTRIES)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        /* Counted in 6 bits from the front; read from the low end. */
        uint32_t length = s->length[i], code = reversed(next[length]);
        next[length] += WF_CODE_ENTRIES >> length;
        s->code[i] = (uint8_t)code;
        for (uint32_t at = code; decode && at < WF_CODE_ENTRIES; at += 1u << length)
            s->decode[at] = length | i << 8;
    }
    return true;
}

uint32_t wf_symbols_entropy(const struct wf_ranking *ranking, struct wf_symbols *out)
{
    const uint32_t *counts = ranking->count, total = ranking->total ? ranking->total : 1;
    uint32_t weights[16], covered = 0, bits = 0;
    uint8_t lengths[16];
    uint32_t found = ranking->found;
    found = found < WF_ENTROPY_SYMBOLS_MAX ? found : WF_ENTROPY_SYMBOLS_MAX;
    while (found > 1 && counts[found - 1] * WORTH_A_CODE < total)
        found--;
    take(ranking, found, out);
    for (uint32_t i = 0; i < found; i++)
        covered += counts[i];
    /* The escape is there always: what was counted may be a part of what is. */
    uint32_t escaped = ranking->total - covered, at = found;
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
    if (!wf_symbols_codes(out, false))
        return UINT32_MAX;
    return (uint32_t)((uint64_t)bits * 256 / total);
}

uint32_t wf_symbols_fixed_bits(const struct wf_ranking *ranking, uint32_t *out_width)
{
    uint32_t total = ranking->total ? ranking->total : 1, best = UINT32_MAX;
    for (uint32_t width = 1; width <= 4; width++) {
        uint32_t direct = (1u << width) - 1, most = direct + WF_SECOND_RAW;
        uint32_t escaped = ranking->total, raw = ranking->total;
        for (uint32_t i = 0; i < most && i < ranking->found; i++) {
            escaped -= i < direct ? ranking->count[i] : 0;
            raw -= ranking->count[i];
        }
        uint32_t bits = ranking->total * width + escaped * 4 + raw * 8;
        if (bits < best) {
            best = bits;
            *out_width = width;
        }
    }
    return (uint32_t)((uint64_t)best * 256 / total);
}

uint32_t wf_symbols_fixed(const struct wf_ranking *ranking, struct wf_symbols *out)
{
    uint32_t width = 1, bits = wf_symbols_fixed_bits(ranking, &width);
    uint32_t most = (1u << width) - 1 + WF_SECOND_RAW;
    take(ranking, most < ranking->found ? most : ranking->found, out);
    out->width = width;
    return bits;
}
