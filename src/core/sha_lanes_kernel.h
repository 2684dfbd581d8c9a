/* SPDX-License-Identifier: Apache-2.0
 *
 * The kernel of sha_lanes.c, written once and included once per instruction set.  The includer
 * defines
 *
 *   LANES                  messages side by side, one 32-bit word of each in a vector
 *   KERNEL(name)           gives the names a suffix
 *   TARGET                 the target attribute, on every function so that all of them inline
 *   VEC                    the vector type: LANES × uint32_t
 *   ROR, CH, MAJ, XOR3     the four that an instruction set may have in one instruction
 *   BSWAP                  byte order of every word
 *   LOAD_QUARTER           16 bytes at an offset from every fourth message, side by side
 *   LO32, HI32, LO64, HI64 interleaves inside each 128 bits
 *
 * There is no include guard because it is meant to be included again.
 */

/* 64 bytes of every message → w[0 … 15], word j of all messages in w[j].  Each step takes four
 * words of all messages as 4 × 4 squares, one square in each 128 bits, and turns the squares over;
 * so the messages come out in their order. */
static inline __attribute__((always_inline)) TARGET void
KERNEL(load)(VEC w[16], const uint8_t *const in[], size_t offset)
{
    for (size_t quarter = 0; quarter < 4; quarter++) {
        size_t at = offset + 16 * quarter;
        VEC r0 = LOAD_QUARTER(in, 0, at);
        VEC r1 = LOAD_QUARTER(in, 1, at);
        VEC r2 = LOAD_QUARTER(in, 2, at);
        VEC r3 = LOAD_QUARTER(in, 3, at);
        VEC low01 = LO32(r0, r1), low23 = LO32(r2, r3);
        VEC high01 = HI32(r0, r1), high23 = HI32(r2, r3);
        w[4 * quarter + 0] = BSWAP(LO64(low01, low23));
        w[4 * quarter + 1] = BSWAP(HI64(low01, low23));
        w[4 * quarter + 2] = BSWAP(LO64(high01, high23));
        w[4 * quarter + 3] = BSWAP(HI64(high01, high23));
    }
}

#define ROUND(a, b, c, d, e, f, g, h, i)                                                        \
    do {                                                                                        \
        VEC t1 = (h) + XOR3(ROR(e, 6), ROR(e, 11), ROR(e, 25)) + CH(e, f, g) + (w[i] + (k)[i]); \
        (d) += t1;                                                                              \
        (h) = t1 + XOR3(ROR(a, 2), ROR(a, 13), ROR(a, 22)) + MAJ(a, b, c);                      \
    } while (0)

#define ROUNDS_8(i)                             \
    do {                                        \
        ROUND(a, b, c, d, e, f, g, h, (i) + 0); \
        ROUND(h, a, b, c, d, e, f, g, (i) + 1); \
        ROUND(g, h, a, b, c, d, e, f, (i) + 2); \
        ROUND(f, g, h, a, b, c, d, e, (i) + 3); \
        ROUND(e, f, g, h, a, b, c, d, (i) + 4); \
        ROUND(d, e, f, g, h, a, b, c, (i) + 5); \
        ROUND(c, d, e, f, g, h, a, b, (i) + 6); \
        ROUND(b, c, d, e, f, g, h, a, (i) + 7); \
    } while (0)

/* The next 16 schedule words, in place.  The indices are constants after unrolling, so w stays in
 * registers. */
static inline __attribute__((always_inline)) TARGET void KERNEL(schedule)(VEC w[16])
{
#pragma GCC unroll 16
    for (unsigned i = 0; i < 16; i++) {
        VEC w15 = w[(i + 1) & 15], w2 = w[(i + 14) & 15];
        VEC s0 = XOR3(ROR(w15, 7), ROR(w15, 18), w15 >> 3);
        VEC s1 = XOR3(ROR(w2, 17), ROR(w2, 19), w2 >> 10);
        w[i] = (w[i] + s0) + (w[(i + 9) & 15] + s1);
    }
}

static inline __attribute__((always_inline)) TARGET void KERNEL(compress)(VEC s[8], VEC w[16])
{
    VEC a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    const uint32_t *k = round_constants;
    ROUNDS_8(0);
    ROUNDS_8(8);
    for (unsigned sixteen = 1; sixteen < 4; sixteen++) {
        k += 16;
        KERNEL(schedule)(w);
        ROUNDS_8(0);
        ROUNDS_8(8);
    }
    s[0] += a;
    s[1] += b;
    s[2] += c;
    s[3] += d;
    s[4] += e;
    s[5] += f;
    s[6] += g;
    s[7] += h;
}

static TARGET void KERNEL(run)(const uint8_t *const first[], const uint8_t *const rest[],
                               size_t more, uint32_t states[][8], size_t count)
{
    VEC s[8], w[16];
    for (unsigned i = 0; i < 8; i++)
        s[i] = (VEC){0} + wf_sha_initial[i];
    KERNEL(load)(w, first, 0);
    KERNEL(compress)(s, w);
    for (size_t block = 0; block < more; block++) {
        KERNEL(load)(w, rest, 64 * block);
        KERNEL(compress)(s, w);
    }
    for (unsigned i = 0; i < 8; i++) {
        for (size_t lane = 0; lane < count; lane++)
            states[lane][i] = s[i][lane];
    }
}

#undef ROUND
#undef ROUNDS_8
