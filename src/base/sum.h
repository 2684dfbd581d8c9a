/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksum of payloads: XXH3-64 (Y. Collet, xxHash 0.8).
 *
 * Every byte that goes below DRAM or comes back passes through it, so it is the processor's share
 * of the data path.  The library's plain entry points are built for the least processor that there
 * is; those that choose by what the processor has give the same sums at twice the speed, which is
 * that of memory.  Including this makes them the ones that XXH3_64bits() and XXH3_64bits_update()
 * name.
 */
#ifndef WF_BASE_SUM_H
#define WF_BASE_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>
#if WF_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

static inline uint64_t wf_sum64(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

/* Of two pieces: `seed` is the sum of the first. */
static inline uint64_t wf_sum64_seeded(const void *data, size_t bytes, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, bytes, seed);
}

#endif
