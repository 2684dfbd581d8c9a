/* SPDX-License-Identifier: Apache-2.0
 *
 * A seeded generator for tests: the same seed, the same run, on every machine.
 */
#ifndef TEST_SUPPORT_RANDOM_H
#define TEST_SUPPORT_RANDOM_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* splitmix64 (G. Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014). */
#define RANDOM_STEP 0x9e3779b97f4a7c15u /* from one state to the next */

struct random_source {
    uint64_t state;
};

static inline uint64_t random_next(struct random_source *r)
{
    uint64_t z = r->state += RANDOM_STEP;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 … below - 1 */
static inline uint32_t random_below(struct random_source *r, uint32_t below)
{
    return (uint32_t)((random_next(r) >> 32) * below >> 32);
}

/* $WEFT_TEST_SEED, or one of its own; said aloud, so that a failure can be run again. */
static inline struct random_source random_seeded(const char *test)
{
    const char *given = getenv("WEFT_TEST_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seed = given ? (uint64_t)strtoull(given, NULL, 0)
                          : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec ^ (uint64_t)getpid();
    fprintf(stderr, "# %s: WEFT_TEST_SEED=0x%llx\n", test, (unsigned long long)seed);
    return (struct random_source){seed};
}

static inline void random_key(uint64_t number, uint8_t key[32])
{
    struct random_source r = {number * 0x2545f4914f6cdd1du + 1};
    for (int i = 0; i < 4; i++) {
        uint64_t part = random_next(&r);
        memcpy(key + 8 * i, &part, 8);
    }
}

#endif
