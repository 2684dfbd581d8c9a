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

/* A window saves a small plane about 20 bytes. */
#define OUTSIDE_MAX 8u

void wf_symbols_count(const uint16_t histogram[256], struct wf_counts *out)
{
    uint32_t peak = 1;
    for (uint32_t i = 2; i < 256; i++) /* 0 has a place of its own */
        peak = histogram[i] > histogram[peak] ? i : peak;
    out->window = (uint8_t)(peak - WF_WINDOW_BELOW);
    for (uint32_t i = 0; i < WF_WINDOW; i++)
        out->count[i] = histogram[(uint8_t)(out->window + i)];
    out->zeros = (uint8_t)-out->window < WF_WINDOW ? 0 : histogram[0];
    out->total = 0;
    for (uint32_t i = 0; i < 256; i++)
        out->total += histogram[i];
}

static void rank_one(uint32_t count, uint8_t value, struct wf_ranking *out)
{
    uint32_t at = out->found;
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

/* From the middle outwards the counts fall, so that little has to be sorted. */
void wf_symbols_rank(const struct wf_counts *counts, struct wf_ranking *out)
{
    uint32_t left = counts->total - counts->zeros;
    out->found = 0;
    out->total = counts->total;
    out->window = counts->window;
    for (uint32_t step = 0; step < WF_WINDOW && left > 0; step++) {
        uint32_t at = wf_window_at(step);
        rank_one(counts->count[at], (uint8_t)(counts->window + at), out);
        left -= counts->count[at];
    }
    rank_one(counts->zeros, 0, out);
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
    out->zero = (uint8_t)symbols;
    for (uint32_t i = 0; i < symbols; i++) {
        uint8_t value = ranking->value[i], at = (uint8_t)(value - ranking->window);
        out->value[i] = value;
        if (at < WF_WINDOW)
            out->rank[at] = (uint8_t)i;
        if (value == 0)
            out->zero = (uint8_t)i;
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

/* In each place the bits of its number, turned round. */
static const uint8_t turned[WF_CODE_ENTRIES] = {0,  32, 16, 48, 8,  40, 24, 56, 4,  36, 20, 52, 12,
                                                44, 28, 60, 2,  34, 18, 50, 10, 42, 26, 58, 6,  38,
                                                22, 54, 14, 46, 30, 62, 1,  33, 17, 49, 9,  41, 25,
                                                57, 5,  37, 21, 53, 13, 45, 29, 61, 3,  35, 19, 51,
                                                11, 43, 27, 59, 7,  39, 23, 55, 15, 47, 31, 63};

/* Counted in 6 bits from the front, each symbol's codes follow one another; read from the low end,
 * they are turned round.  Shorter ones come first, so that what is written too far is overwritten.
 */
static void fill_decode(struct wf_symbols *s, uint32_t n, const uint32_t *counts)
{
    uint8_t order[16], front[WF_CODE_ENTRIES + 32];
    uint32_t place[WF_CODE_BITS + 1], at = 0, used = 0;
    for (uint32_t length = 1; length <= WF_CODE_BITS; length++) {
        place[length] = at;
        at += counts[length];
    }
    for (uint32_t i = 0; i < n; i++)
        order[place[s->length[i]]++] = (uint8_t)i;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = s->length[order[i]];
        memset(front + used, (int)(length | (uint32_t)order[i] << 4), 32);
        used += WF_CODE_ENTRIES >> length;
    }
    for (uint32_t i = 0; i < WF_CODE_ENTRIES; i++)
        s->decode[i] = front[turned[i]];
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
    if (decode) {
        fill_decode(s, n, counts);
        return true;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t length = s->length[i];
        s->code[i] = turned[next[length]];
        next[length] += WF_CODE_ENTRIES >> length;
    }
    return true;
}

/* -log2 of the chance that two symbols are the same, which is at most the entropy (A. Rényi, 1961),
 * in 1/256 bit, rounded down. */
uint32_t wf_symbols_entropy_least(const struct wf_ranking *ranking)
{
    uint64_t squares = 0, total = ranking->total;
    uint32_t covered = 0;
    for (uint32_t i = 0; i < ranking->found; i++) {
        squares += (uint64_t)ranking->count[i] * ranking->count[i];
        covered += ranking->count[i];
    }
    /* All others as if they were one: more alike than they are. */
    squares += (total - covered) * (total - covered);
    if (squares == 0)
        return 0;
    uint32_t bits = 0;
    uint64_t x = (total * total << 16) / squares; /* 16 bits behind the point; 1 or more */
    for (; x >= 2u << 16; bits += 256)
        x >>= 1;
    for (uint32_t bit = 128; bit > 0; bit /= 2) {
        x = x * x >> 16;
        bits += x >= 2u << 16 ? bit : 0;
        x >>= x >= 2u << 16 ? 1 : 0;
    }
    return bits;
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
    uint32_t left[WF_SYMBOLS_MAX + 1]; /* without the first so many */
    left[0] = ranking->total;
    for (uint32_t i = 0; i < ranking->found; i++)
        left[i + 1] = left[i] - ranking->count[i];
    for (uint32_t width = 1; width <= 4; width++) {
        uint32_t direct = (1u << width) - 1, most = direct + WF_SECOND_RAW;
        direct = direct < ranking->found ? direct : ranking->found;
        most = most < ranking->found ? most : ranking->found;
        uint32_t bits = ranking->total * width + left[direct] * 4 + left[most] * 8;
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

/* From `first` on; those with a code of their own lie together, and the others are in order. */
void wf_symbols_of_window(uint32_t width, uint8_t first, uint32_t below, struct wf_symbols *out)
{
    uint8_t direct = (uint8_t)((1u << width) - 1), under = (uint8_t)below;
    uint8_t values[WF_WINDOW];
    for (uint8_t i = 0; i < WF_WINDOW; i++)
        values[i] = (uint8_t)(first + under + i);
    memcpy(out->value, values, sizeof out->value);
    for (uint8_t i = 0; i < 16; i++)
        values[i] = (uint8_t)(first + i + (i < under ? 0 : direct));
    memcpy(out->value + direct, values, WF_SECOND_RAW);
    memset(out->value + direct + WF_SECOND_RAW, 0, WF_WINDOW - WF_SECOND_RAW - direct);
    out->symbols = direct + WF_SECOND_RAW;
    out->width = width;
}

/* What encoding wants besides. */
static void rank_window(uint8_t first, uint32_t below, struct wf_symbols *s)
{
    uint8_t symbols = (uint8_t)s->symbols, direct = (uint8_t)(symbols - WF_SECOND_RAW);
    uint8_t under = (uint8_t)below, zero = (uint8_t)-first, rank[WF_WINDOW];
    for (uint8_t i = 0; i < WF_WINDOW; i++) {
        uint8_t inside = (uint8_t)(i - under);
        uint8_t second = i < under ? (uint8_t)(i + direct) : i;
        rank[i] = inside < direct ? inside : second < symbols ? second : symbols;
    }
    memcpy(s->rank, rank, sizeof s->rank);
    s->window = first;
    s->zero = zero < WF_WINDOW ? rank[zero] : symbols;
}

bool wf_symbols_window(const struct wf_ranking *ranking, uint32_t width, size_t elements,
                       struct wf_symbols *out, uint32_t *below)
{
    uint32_t direct = (1u << width) - 1, most = direct < ranking->found ? direct : ranking->found;
    uint32_t low = WF_WINDOW, high = 0, least = WF_WINDOW, covered = 0;
    for (uint32_t i = 0; i < ranking->found; i++) {
        uint8_t at = (uint8_t)(ranking->value[i] - ranking->window);
        if (at >= WF_WINDOW && i < most)
            return false;
        least = at < least ? at : least;
        low = i < most && at < low ? at : low;
        high = i < most && at > high ? at : high;
    }
    if (most == 0 || high - low >= direct)
        return false;
    uint32_t first = low - least > WF_SECOND_RAW ? low - WF_SECOND_RAW : least;
    for (uint32_t i = 0; i < ranking->found; i++) {
        uint8_t at = (uint8_t)(ranking->value[i] - ranking->window - first);
        covered += at < direct + WF_SECOND_RAW ? ranking->count[i] : 0;
    }
    if ((uint64_t)(ranking->total - covered) * elements > (uint64_t)OUTSIDE_MAX * ranking->total)
        return false;
    *below = low - first;
    wf_symbols_of_window(width, (uint8_t)(ranking->window + first), *below, out);
    rank_window((uint8_t)(ranking->window + first), *below, out);
    return true;
}
