/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast keys are derived, by every instruction set that this CPU has, beside plain SHA-256 of a
 * long message in the same run.
 *
 *     bench_keys [--json]
 *
 * The scalar rows are what any derivation costs that hashes one message after the other.  The best
 * of several rounds counts: on a shared machine the others measure the neighbours.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/identity.h"
#include "sys/clock.h"

#define TOKENS (1u << 17)
#define ROUNDS 40

static uint32_t tokens[TOKENS];
static uint8_t keys[TOKENS / 16 * WF_KEY_BYTES];

static double mtokens_per_s(enum wf_sha_isa isa, uint32_t block_tokens)
{
    static const uint8_t root[WF_KEY_BYTES] = {1};
    uint64_t best_ns = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = wf_now_ns();
        wf_identity_chain_by(isa, root, tokens, TOKENS / block_tokens, block_tokens, NULL, keys);
        uint64_t took = wf_now_ns() - start;
        best_ns = took < best_ns ? took : best_ns;
    }
    return TOKENS * 1e3 / (double)best_ns;
}

static double sha256_mb_per_s(void)
{
    uint64_t best_ns = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = wf_now_ns();
        if (!EVP_Digest(tokens, sizeof tokens, keys, NULL, EVP_sha256(), NULL))
            return 0;
        uint64_t took = wf_now_ns() - start;
        best_ns = took < best_ns ? took : best_ns;
    }
    return sizeof tokens * 1e3 / (double)best_ns;
}

int main(int argc, char **argv)
{
    static const uint32_t sizes[] = {16, 32, 64, 256};
    bool json = argc == 2 && !strcmp(argv[1], "--json");
    if (argc > 1 && !json) {
        fprintf(stderr, "usage: %s [--json]\n", argv[0]);
        return 2;
    }
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint32_t)i * 2654435761u;
    enum wf_sha_isa best = wf_sha_isa_best();
    if (json) {
        printf(
            "{\"isa\": \"%s\", \"keys_mtokens_per_s_16\": %.1f, \"keys_mtokens_per_s_256\": %.1f, "
            "\"scalar_mtokens_per_s_16\": %.1f, \"scalar_mtokens_per_s_256\": %.1f, "
            "\"sha256_mb_per_s\": %.0f}\n",
            wf_sha_isa_name(best), mtokens_per_s(best, 16), mtokens_per_s(best, 256),
            mtokens_per_s(WF_SHA_SCALAR, 16), mtokens_per_s(WF_SHA_SCALAR, 256), sha256_mb_per_s());
        return 0;
    }
    printf("%-8s %12s %10s %10s\n", "", "tokens/block", "Mtokens/s", "ns/block");
    for (int isa = 0; isa < WF_SHA_ISA_COUNT; isa++) {
        for (size_t i = 0; i < 4 && wf_sha_isa_usable((enum wf_sha_isa)isa); i++) {
            double rate = mtokens_per_s((enum wf_sha_isa)isa, sizes[i]);
            printf("%-8s %12u %10.1f %10.0f\n", wf_sha_isa_name((enum wf_sha_isa)isa), sizes[i],
                   rate, sizes[i] * 1e3 / rate);
        }
    }
    printf("in use: %s; SHA-256 of one long message: %.0f MB/s\n", wf_sha_isa_name(best),
           sha256_mb_per_s());
    return 0;
}
