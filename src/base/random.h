/* SPDX-License-Identifier: Apache-2.0
 *
 * A pseudo-random sequence by seed: splitmix64 (G. Steele, D. Lea, C. Flood, "Fast splittable
 * pseudorandom number generators", OOPSLA 2014).  For simulations; not for secrets.
 */
#ifndef WF_BASE_RANDOM_H
#define WF_BASE_RANDOM_H

#include <stdint.h>

static inline uint64_t wf_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* 0 … below - 1; 0 when `below` is 0. */
static inline uint64_t wf_random_below(uint64_t *state, uint64_t below)
{
    return (uint64_t)((unsigned __int128)wf_random(state) * below >> 64);
}

/* 0 or more, below 1. */
static inline double wf_random_part(uint64_t *state)
{
    return (double)(wf_random(state) >> 11) * 0x1p-53;
}

#endif
