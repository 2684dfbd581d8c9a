/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that describe themselves: every byte follows from the key, so that whoever reads one can
 * tell a wrong byte, a torn write or another block's content without asking anybody.
 */
#ifndef TEST_SUPPORT_PAYLOAD_H
#define TEST_SUPPORT_PAYLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "random.h"

/* Before including, for who reads and writes blocks in one process while the order between the two
 * is made by another, the node, where ThreadSanitizer does not see it. */
#ifdef PAYLOAD_ORDERED_ELSEWHERE
#define PAYLOAD_ACCESS __attribute__((no_sanitize("thread"), noinline))
#else
#define PAYLOAD_ACCESS inline
#endif

static inline uint64_t payload_seed(const uint8_t key[32])
{
    uint64_t parts[4];
    memcpy(parts, key, 32);
    return parts[0] ^ parts[1] * 3 ^ parts[2] * 5 ^ parts[3] * 7;
}

/* Four numbers as f16, random but for their exponent, which is one of two: as little as KV's says.
 * So what is below lies there encoded, unless a test says otherwise. */
static PAYLOAD_ACCESS uint64_t payload_word(struct random_source *r)
{
    return (random_next(r) & UINT64_C(0x87ff87ff87ff87ff)) | UINT64_C(0x3000300030003000);
}

/* `bytes` is a multiple of 8. */
static PAYLOAD_ACCESS void payload_fill(void *data, size_t bytes, const uint8_t key[32])
{
    struct random_source r = {payload_seed(key)};
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word = payload_word(&r);
        memcpy((char *)data + at, &word, 8);
    }
}

/* A part of a block's payload, from byte `from` on; both are multiples of 8. */
static PAYLOAD_ACCESS bool payload_right_from(const void *part, size_t from, size_t bytes,
                                              const uint8_t key[32])
{
    struct random_source r = {payload_seed(key) + from / 8 * RANDOM_STEP};
    for (size_t at = 0; at < bytes; at += 8) {
        uint64_t word, expected = payload_word(&r);
        memcpy(&word, (const char *)part + at, 8);
        if (word != expected)
            return false;
    }
    return true;
}

static inline bool payload_right(const void *data, size_t bytes, const uint8_t key[32])
{
    return payload_right_from(data, 0, bytes, key);
}

#endif
