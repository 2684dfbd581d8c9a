/* SPDX-License-Identifier: Apache-2.0
 *
 * The checksum of payloads: XXH3-64 (Y. Collet, xxHash 0.8).
 *
 * Every byte that goes below DRAM or comes back passes through it, so it is the processor's share
 * of the data path.  The library's plain entry points are built for the least processor that there
 * is; those that choose by what the processor has give the same sums at twice the speed, which is
 * that of memory.  Including this makes them the ones that XXH3_64bits() and XXH3_64bits_update()
 * name.
 *
 * Those leave the upper halves of vector registers as they are (xxHash 0.8.1), and each
 * 128-bit instruction that is not of AVX then waits for the register of which it writes a part:
 * small planes took twice as long to encode.  So they are cleared here.
 */
#ifndef WF_BASE_SUM_H
#define WF_BASE_SUM_H

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>
#if WF_XXH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

static inline void wf_sum_clear(void)
{
#if WF_XXH_DISPATCH && defined(__x86_64__)
    if (__builtin_cpu_supports("avx"))
        __asm__ volatile("vzeroupper" ::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                               "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                               "xmm15");
#endif
}

static inline uint64_t wf_sum64(const void *data, size_t bytes)
{
    uint64_t sum = XXH3_64bits(data, bytes);
    wf_sum_clear();
    return sum;
}

/* Of two pieces: `seed` is the sum of the first. */
static inline uint64_t wf_sum64_seeded(const void *data, size_t bytes, uint64_t seed)
{
    uint64_t sum = XXH3_64bits_withSeed(data, bytes, seed);
    wf_sum_clear();
    return sum;
}

#endif
