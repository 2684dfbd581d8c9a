/* SPDX-License-Identifier: Apache-2.0
 *
 * See isa.h.
 */
#include "codec/isa.h"

#include <stdatomic.h>

const char *wf_codec_isa_name(enum wf_codec_isa isa)
{
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    return isa < WF_CODEC_ISA_COUNT ? names[isa] : "unknown";
}

bool wf_codec_isa_usable(enum wf_codec_isa isa)
{
    if (isa == WF_CODEC_SCALAR)
        return true;
#if defined(__x86_64__)
    if (isa == WF_CODEC_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") &&
               __builtin_cpu_supports("fma");
    if (isa == WF_CODEC_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
#endif
    return false;
}

enum wf_codec_isa wf_codec_isa_best(void)
{
    /* CPUID traps in a virtual machine.  Relaxed: whoever races finds the same answer. */
    static _Atomic int chosen = -1;
    int isa = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (isa < 0) {
        isa = WF_CODEC_ISA_COUNT - 1;
        while (!wf_codec_isa_usable((enum wf_codec_isa)isa))
            isa--;
        atomic_store_explicit(&chosen, isa, memory_order_relaxed);
    }
    return (enum wf_codec_isa)isa;
}
