/* SPDX-License-Identifier: Apache-2.0
 *
 * Payloads that say what they are, so that a reader can tell every wrong byte without keeping a
 * copy.
 *
 *   0        32         40         48 …                                        bytes
 *   +--------+----------+----------+-----------------------------------------------+
 *   | key    | position | length   | eight xorshift64 sequences, seeded by XXH3-64  |
 *   +--------+----------+----------+ of key and position, one word of each in turn  |
 *   +------------------------------+-----------------------------------------------+
 *
 * A block that was mixed up with another shows that block's key; one that was torn breaks the
 * sequence where it was torn.  Eight independent sequences of shifts and exclusive ors keep the
 * vector units busy, so that a check runs as fast as memory is read.  A payload shorter than the
 * head has its beginning.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cli/cli.h"

#define HEAD_BYTES 48

typedef uint64_t lanes __attribute__((vector_size(64), aligned(8), may_alias));

/* Vectors go by address: how wide ones are returned depends on the processor that is built for. */
static void lanes_seed(lanes *seed, const struct weft_key *key, uint64_t position)
{
    uint64_t state = XXH3_64bits_withSeed(key->bytes, sizeof key->bytes, position);
    for (int i = 0; i < 8; i++)
        (*seed)[i] = wf_cli_random(&state) |
                     1; /* zero is the one state that xorshift never leaves */
}

static inline void lanes_step(lanes *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
}

static void head_make(uint8_t head[HEAD_BYTES], size_t bytes, const struct weft_key *key,
                      uint64_t position)
{
    uint64_t length = bytes;
    memcpy(head, key->bytes, sizeof key->bytes);
    memcpy(head + 32, &position, sizeof position);
    memcpy(head + 40, &length, sizeof length);
}

void wf_cli_payload_fill(void *payload, size_t bytes, const struct weft_key *key, uint64_t position)
{
    uint8_t head[HEAD_BYTES];
    head_make(head, bytes, key, position);
    memcpy(payload, head, bytes < HEAD_BYTES ? bytes : HEAD_BYTES);
    if (bytes <= HEAD_BYTES)
        return;
    lanes state;
    lanes_seed(&state, key, position);
    uint8_t *p = (uint8_t *)payload + HEAD_BYTES, *end = (uint8_t *)payload + bytes;
    for (; (size_t)(end - p) >= sizeof state; p += sizeof state) {
        *(lanes *)p = state;
        lanes_step(&state);
    }
    memcpy(p, &state, (size_t)(end - p));
}

static uint64_t differ_count(const uint8_t *a, const uint8_t *b, size_t bytes)
{
    uint64_t wrong = 0;
    for (size_t i = 0; i < bytes; i++)
        wrong += a[i] != b[i];
    return wrong;
}

uint64_t wf_cli_payload_wrong(const void *payload, size_t bytes, const struct weft_key *key,
                              uint64_t position)
{
    uint8_t head[HEAD_BYTES];
    head_make(head, bytes, key, position);
    uint64_t wrong = differ_count(payload, head, bytes < HEAD_BYTES ? bytes : HEAD_BYTES);
    if (bytes <= HEAD_BYTES)
        return wrong;
    lanes state;
    lanes_seed(&state, key, position);
    const uint8_t *p = (const uint8_t *)payload + HEAD_BYTES;
    const uint8_t *end = (const uint8_t *)payload + bytes;
    /* Differences are gathered over a page and only looked at when there are any. */
    while ((size_t)(end - p) >= sizeof state) {
        lanes differences = {0}, page_state = state;
        const uint8_t *page = p;
        for (int i = 0; i < 64 && (size_t)(end - p) >= sizeof state; i++, p += sizeof state) {
            differences |= *(const lanes *)p ^ state;
            lanes_step(&state);
        }
        uint64_t any = 0;
        for (int i = 0; i < 8; i++)
            any |= differences[i];
        for (; any && page < p; page += sizeof state) {
            wrong += differ_count(page, (const uint8_t *)&page_state, sizeof page_state);
            lanes_step(&page_state);
        }
    }
    return wrong + differ_count(p, (const uint8_t *)&state, (size_t)(end - p));
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double wf_cli_percentile(double *values, size_t count, double part)
{
    if (!count)
        return 0;
    qsort(values, count, sizeof *values, compare_doubles);
    size_t index = (size_t)(part * (double)(count - 1) + 0.5);
    return values[index];
}

/* Sebastiano Vigna's splitmix64 (public domain). */
uint64_t wf_cli_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
