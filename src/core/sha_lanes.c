/* SPDX-License-Identifier: Apache-2.0
 *
 * See sha_lanes.h.  The vector kernels are in sha_lanes_kernel.h; here are the instructions they
 * are made of, the choice between them, and the scalar compression.
 *
 * The low-level SHA256_* calls of OpenSSL are used because a midstate has to go in and out, which
 * EVP does not offer, and because EVP's cost per call is more than that of the two compressions of
 * a usual key.
 */
#define OPENSSL_API_COMPAT 10101

#include "core/sha_lanes.h"

#include <openssl/sha.h>
#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

const uint32_t wf_sha_initial[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

void wf_sha_compress(uint32_t state[8], const uint8_t block[64])
{
    SHA256_CTX context;
    memcpy(context.h, state, sizeof context.h);
    SHA256_Transform(&context, block);
    memcpy(state, context.h, sizeof context.h);
}

#if defined(__x86_64__)

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

#define LOAD_16(pointer) _mm_loadu_si128((const __m128i *)(const void *)(pointer))

typedef uint32_t vec8 __attribute__((vector_size(32)));
typedef uint32_t vec16 __attribute__((vector_size(64)));

#define LANES 8
#define KERNEL(name) avx2_##name
#define TARGET __attribute__((target("avx2")))
#define VEC vec8
#define ROR(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define XOR3(x, y, z) ((x) ^ (y) ^ (z))
#define CH(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJ(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define BSWAP(x)                                                                                \
    ((VEC)_mm256_shuffle_epi8((__m256i)(x),                                                     \
                              _mm256_setr_epi32(0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f, \
                                                0x00010203, 0x04050607, 0x08090a0b, 0x0c0d0e0f)))
#define LOAD_QUARTER(in, lane, at)                                                      \
    ((VEC)_mm256_inserti128_si256(_mm256_castsi128_si256(LOAD_16((in)[(lane)] + (at))), \
                                  LOAD_16((in)[(lane) + 4] + (at)), 1))
#define LO32(x, y) ((VEC)_mm256_unpacklo_epi32((__m256i)(x), (__m256i)(y)))
#define HI32(x, y) ((VEC)_mm256_unpackhi_epi32((__m256i)(x), (__m256i)(y)))
#define LO64(x, y) ((VEC)_mm256_unpacklo_epi64((__m256i)(x), (__m256i)(y)))
#define HI64(x, y) ((VEC)_mm256_unpackhi_epi64((__m256i)(x), (__m256i)(y)))
#include "core/sha_lanes_kernel.h"
#undef LANES
#undef KERNEL
#undef TARGET
#undef VEC
#undef ROR
#undef XOR3
#undef CH
#undef MAJ
#undef BSWAP
#undef LOAD_QUARTER
#undef LO32
#undef HI32
#undef LO64
#undef HI64

/* AVX-512 rotates in one instruction and computes any function of three bits in another. */
#define LANES 16
#define KERNEL(name) avx512_##name
#define TARGET __attribute__((target("avx512f,avx512bw")))
#define VEC vec16
#define ROR(x, n) ((VEC)_mm512_ror_epi32((__m512i)(x), (n)))
#define TERNARY(x, y, z, table) \
    ((VEC)_mm512_ternarylogic_epi32((__m512i)(x), (__m512i)(y), (__m512i)(z), (table)))
#define XOR3(x, y, z) TERNARY(x, y, z, 0x96)
#define CH(x, y, z) TERNARY(x, y, z, 0xca)
#define MAJ(x, y, z) TERNARY(x, y, z, 0xe8)
#define BSWAP(x)                            \
    ((VEC)_mm512_shuffle_epi8((__m512i)(x), \
                              _mm512_set4_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203)))
#define INSERT_16(into, in, lane, at, where) \
    _mm512_inserti32x4((into), LOAD_16((in)[(lane)] + (at)), (where))
#define LOAD_QUARTER(in, lane, at)                                                                \
    ((VEC)INSERT_16(INSERT_16(INSERT_16(_mm512_castsi128_si512(LOAD_16((in)[(lane)] + (at))), in, \
                                        (lane) + 4, at, 1),                                       \
                              in, (lane) + 8, at, 2),                                             \
                    in, (lane) + 12, at, 3))
#define LO32(x, y) ((VEC)_mm512_unpacklo_epi32((__m512i)(x), (__m512i)(y)))
#define HI32(x, y) ((VEC)_mm512_unpackhi_epi32((__m512i)(x), (__m512i)(y)))
#define LO64(x, y) ((VEC)_mm512_unpacklo_epi64((__m512i)(x), (__m512i)(y)))
#define HI64(x, y) ((VEC)_mm512_unpackhi_epi64((__m512i)(x), (__m512i)(y)))
#include "core/sha_lanes_kernel.h"

/* __builtin_cpu_supports() of gcc 12 does not know "sha". */
static bool cpu_has_sha_extensions(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1);
}

#endif /* __x86_64__ */

const char *wf_sha_isa_name(enum wf_sha_isa isa)
{
    static const char *const names[] = {"scalar", "avx2", "avx512"};
    return isa < WF_SHA_ISA_COUNT ? names[isa] : "unknown";
}

size_t wf_sha_isa_lanes(enum wf_sha_isa isa)
{
    return isa == WF_SHA_AVX512 ? 16 : isa == WF_SHA_AVX2 ? 8 : 1;
}

bool wf_sha_isa_usable(enum wf_sha_isa isa)
{
    if (isa == WF_SHA_SCALAR)
        return true;
#if defined(__x86_64__)
    if (isa == WF_SHA_AVX2)
        return __builtin_cpu_supports("avx2");
    if (isa == WF_SHA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
#endif
    return false;
}

static enum wf_sha_isa choose(void)
{
    if (wf_sha_isa_usable(WF_SHA_AVX512))
        return WF_SHA_AVX512;
#if defined(__x86_64__)
    if (cpu_has_sha_extensions())
        return WF_SHA_SCALAR;
#endif
    return wf_sha_isa_usable(WF_SHA_AVX2) ? WF_SHA_AVX2 : WF_SHA_SCALAR;
}

enum wf_sha_isa wf_sha_isa_best(void)
{
    /* CPUID traps in a virtual machine, so it is asked once.  Relaxed: whoever races finds the same
     * answer. */
    static _Atomic int chosen = -1;
    int isa = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (isa < 0) {
        isa = (int)choose();
        atomic_store_explicit(&chosen, isa, memory_order_relaxed);
    }
    return (enum wf_sha_isa)isa;
}

#if defined(__x86_64__)

/* A short batch fills the idle lanes with its first message: reading it twice is harmless. */
void wf_sha_lanes(enum wf_sha_isa isa, size_t count, const uint8_t *const first[],
                  const uint8_t *const rest[], size_t more, uint32_t states[][8])
{
    const uint8_t *padded_first[WF_SHA_LANES_MAX], *padded_rest[WF_SHA_LANES_MAX];
    size_t lanes = wf_sha_isa_lanes(isa);
    if (count < lanes) {
        for (size_t i = 0; i < lanes; i++) {
            padded_first[i] = first[i < count ? i : 0];
            padded_rest[i] = rest[i < count ? i : 0];
        }
        first = padded_first;
        rest = padded_rest;
    }
    if (isa == WF_SHA_AVX512)
        avx512_run(first, rest, more, states, count);
    else
        avx2_run(first, rest, more, states, count);
}

#else

/* No vector path in this build: wf_sha_isa_usable() denies them all, so nobody calls. */
void wf_sha_lanes(enum wf_sha_isa isa, size_t count, const uint8_t *const first[],
                  const uint8_t *const rest[], size_t more, uint32_t states[][8])
{
    (void)isa, (void)count, (void)first, (void)rest, (void)more, (void)states;
}

#endif
