/* SPDX-License-Identifier: Apache-2.0
 *
 * What a block is called: roots, keys, and the digest of a layout.  docs/IDENTITY.md draws the
 * bytes that are hashed, and docs/vectors/identity.json is what any other implementation has to
 * reproduce.
 *
 * Pure functions: no allocation, no state, no I/O; any thread may call.  None of them can fail,
 * because what could is checked before: wf_identity_spec_check() for layouts, the public calls for
 * lengths.
 */
#ifndef WF_CORE_IDENTITY_H
#define WF_CORE_IDENTITY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/sha_lanes.h"

#define WF_KEY_BYTES 32

#define WF_MODEL_BYTES_MAX 512
#define WF_ROPE_SCALING_BYTES_MAX 4096
#define WF_ADAPTER_BYTES_MAX 256
#define WF_SALT_BYTES_MAX 256
#define WF_OPAQUE_BLOCK_BYTES_MAX (UINT64_C(1) << 40)

/* The root of all chains of this layout in the domain that `secret` belongs to.  `session_salt`
 * restricts sharing further and may be NULL with 0 bytes.  `spec` has passed
 * wf_identity_spec_check(), and wf_identity_quality(). */
void wf_identity_root(const uint8_t *secret, size_t secret_bytes,
                      const struct weft_format_spec *spec, const void *session_salt,
                      size_t session_salt_bytes, uint8_t out[WF_KEY_BYTES]);

/* Names the domain that `secret` belongs to, and says nothing of the secret: what lies below DRAM
 * carries it, so that a node knows after a restart whose it is. */
void wf_domain_tag(const uint8_t *secret, size_t secret_bytes, uint8_t out[WF_KEY_BYTES]);

/* Names the layout itself, without secret and salts: for display, and to register a layout once. */
void wf_identity_format_digest(const struct weft_format_spec *spec, uint8_t out[WF_KEY_BYTES]);

/* Keys of `blocks` consecutive blocks after `parent`, which is a block's key or, for a chain's
 * first block, a root.  `tokens` holds blocks × block_tokens ids.  `extra` is NULL or 32 bytes a
 * block; zeros mean none. `out_keys` takes blocks × 32 bytes and may not overlap the inputs. */
void wf_identity_chain(const uint8_t parent[WF_KEY_BYTES], const uint32_t *tokens, size_t blocks,
                       uint32_t block_tokens, const uint8_t *extra, uint8_t *out_keys);

/* The same by a given, usable instruction set: for tests and benchmarks. */
void wf_identity_chain_by(enum wf_sha_isa isa, const uint8_t parent[WF_KEY_BYTES],
                          const uint32_t *tokens, size_t blocks, uint32_t block_tokens,
                          const uint8_t *extra, uint8_t *out_keys);

/* The key for an identity that an engine derived by itself; `length` is at most UINT32_MAX. */
void wf_identity_bytes(const uint8_t root[WF_KEY_BYTES], const void *bytes, size_t length,
                       uint8_t out[WF_KEY_BYTES]);

/* Whether every field is in the range that weft.h states.  WEFT_E_INVALID leaves a sentence naming
 * the field. */
enum weft_status wf_identity_spec_check(const struct weft_format_spec *spec);

/* What the layout's blocks are stored at in a domain that has `domain`, which is no default: what
 * it asks for when that is better, and else the domain's.  spec->quality says afterwards what is
 * part of its keys: the former, or WEFT_QUALITY_DEFAULT, which is no part of any. */
enum weft_quality wf_identity_quality(struct weft_format_spec *spec, enum weft_quality domain);

/* Payload bytes of one block, and of one layer's K (or V) inside it; the latter is 0 for an opaque
 * payload. `spec` has passed wf_identity_spec_check(), so nothing here overflows. */
uint64_t wf_identity_block_bytes(const struct weft_format_spec *spec);
uint64_t wf_identity_layer_bytes(const struct weft_format_spec *spec);

#endif
