/* SPDX-License-Identifier: Apache-2.0
 *
 * SHA-256 compressions of many independent messages at once, one message a vector lane.
 *
 * A single SHA-256 is one long dependency chain and leaves most of a core idle.  Blocks of one
 * chain differ in their tokens, and their keys hash the tokens before the parent
 * (docs/IDENTITY.md), so the token parts of many blocks can be hashed side by side.  Source of the
 * algorithm: FIPS 180-4; of the arrangement: Gueron and Krasnov, "Simultaneous hashing of multiple
 * messages" (2012).
 *
 * Every path gives the same bytes.  Which is used is a matter of speed alone.
 */
#ifndef WF_CORE_SHA_LANES_H
#define WF_CORE_SHA_LANES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WF_SHA_LANES_MAX 16

enum wf_sha_isa {
    WF_SHA_SCALAR =
        0, /* OpenSSL's compression, one message at a time; uses SHA-NI where there is any */
    WF_SHA_AVX2 = 1,   /* 8 lanes */
    WF_SHA_AVX512 = 2, /* 16 lanes */
    WF_SHA_ISA_COUNT
};

const char *wf_sha_isa_name(enum wf_sha_isa isa);

/* Whether this build and this CPU have it. */
bool wf_sha_isa_usable(enum wf_sha_isa isa);

/* The fastest usable one: AVX-512, else SHA-NI (by way of OpenSSL), else AVX2; docs/IDENTITY.md
 * says what of this was measured. */
enum wf_sha_isa wf_sha_isa_best(void);

/* Messages that it takes in one call: WF_SHA_SCALAR 1, WF_SHA_AVX2 8, WF_SHA_AVX512 16. */
size_t wf_sha_isa_lanes(enum wf_sha_isa isa);

/* SHA-256's initial value. */
extern const uint32_t wf_sha_initial[8];

/* One compression. */
void wf_sha_compress(uint32_t state[8], const uint8_t block[64]);

/* For each of `count` messages (1 … lanes): the state after the 64 bytes at first[i] and then
 * `more` × 64 bytes at rest[i], starting from the initial value.  Pointers need no alignment. `isa`
 * is usable and not scalar. */
void wf_sha_lanes(enum wf_sha_isa isa, size_t count, const uint8_t *const first[],
                  const uint8_t *const rest[], size_t more, uint32_t states[][8]);

#endif
