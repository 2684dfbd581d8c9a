/* SPDX-License-Identifier: Apache-2.0
 *
 * vLLM's names for blocks: weft.h's calls for core/vllm_hash.h.  They need no node.
 */
#include "core/vllm_hash.h"

/* vLLM's DEFAULT_NONE_HASH_SEED: what it takes when PYTHONHASHSEED is not set. */
#define DEFAULT_SEED "vllm-none-hash"

#define BLOCK_TOKENS_MAX 65536

void weft_vllm_root(const char *seed, struct weft_key *out)
{
    wf_vllm_root(seed ? seed : DEFAULT_SEED, out->bytes);
}

enum weft_status weft_vllm_hashes(const struct weft_key *parent, const uint32_t *tokens,
                                  size_t token_count, uint32_t block_tokens,
                                  const struct weft_vllm_extra *extras, size_t extra_count,
                                  struct weft_key *out)
{
    struct weft_key root;
    if (block_tokens == 0 || block_tokens > BLOCK_TOKENS_MAX)
        return wf_fail(WEFT_E_INVALID, "blocks of %u tokens; give 1 to %d", block_tokens,
                       BLOCK_TOKENS_MAX);
    size_t blocks = token_count / block_tokens;
    enum weft_status status = wf_vllm_extras_check(extras, extra_count, blocks);
    if (status != WEFT_OK)
        return status;
    if (!parent)
        weft_vllm_root(NULL, &root);
    wf_vllm_chain(parent ? parent->bytes : root.bytes, tokens, blocks, block_tokens, extras,
                  extra_count, out->bytes);
    return WEFT_OK;
}
