/* SPDX-License-Identifier: Apache-2.0
 *
 * vLLM's block hashes, as its --prefix-caching-hash-algo sha256_cbor makes them, so that what an
 * engine calls a block is known from tokens alone.
 *
 * Pure functions: no allocation, no state, no I/O; any thread may call.
 */
#ifndef WF_CORE_VLLM_HASH_H
#define WF_CORE_VLLM_HASH_H

#include "base/status.h"

/* The hash that stands before a first block's: of the text `seed`. */
void wf_vllm_root(const char *seed, uint8_t out[32]);

/* WEFT_E_INVALID leaves a sentence that names the extra. */
enum weft_status wf_vllm_extras_check(const struct weft_vllm_extra *extras, size_t count,
                                      size_t blocks);

/* Hashes of `blocks` blocks after `parent`; the extras have been checked. */
void wf_vllm_chain(const uint8_t parent[32], const uint32_t *tokens, size_t blocks,
                   uint32_t block_tokens, const struct weft_vllm_extra *extras, size_t extra_count,
                   uint8_t *out);

#endif
