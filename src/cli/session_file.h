/* SPDX-License-Identifier: Apache-2.0
 *
 * A session in a file: what `weft session export` writes and `import` reads.
 *
 *      0           8        12             16         24       28           32
 *     +-----------+--------+--------------+----------+--------+------------+-------------+
 *     | "WEFTSESS" | version | header_bytes | checksum | blocks | name_bytes | block_bytes |
 *     +-----------+--------+--------------+----------+--------+------------+-------------+
 *  40 | root digest, 32 bytes              | key of the last block, 32 bytes             |
 * 104 | created_ms, 8 bytes                                                              |
 * 112 | layers, kv_heads, head_dim, dtype, block_tokens, tp_rank, tp_size: 4 bytes each  |
 * 140 | model_bytes, scaling_bytes, adapter_bytes, salt_bytes: 4 bytes each              |
 * 156 | quality, 4 bytes | rope_theta, 8 bytes | the format's block_bytes, 8 bytes       |
 * 176 | name, model, rope scaling, adapter, salt: one behind the other, without ends     |
 *     +----------------------------------------------------------------------------------+
 *     then `blocks` times, from the chain's first to its last:
 *     | key, 32 bytes | bytes, 4 bytes | quality, 4 bytes | XXH3-64 of the payload |     |
 *     | payload                                                                        |
 *     then
 *     | "WEFTSEND" | blocks, 8 bytes | XXH3-64 of the header and of all blocks' first 48 bytes |
 *
 * Little-endian.  The header's checksum is the XXH3-64 of all of it that follows the checksum.
 * Every block has `block_bytes` of payload, so that the file's size follows from its header.  The
 * root digest is a key of the format in the domain that it was exported from: another domain
 * secret, another digest.
 *
 * Pure functions; a file is a stranger's bytes until all of it has been checked.
 */
#ifndef WF_CLI_SESSION_FILE_H
#define WF_CLI_SESSION_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weft/weft.h"

#define SESSION_HEAD_BYTES 176u
#define SESSION_HEAD_BYTES_MAX (SESSION_HEAD_BYTES + 64u + 512u + 4096u + 256u + 256u)
#define SESSION_BLOCKS_MAX (1u << 18)
#define SESSION_BLOCK_BYTES 48u
#define SESSION_FOOT_BYTES 24u

/* The texts are the struct's own; `spec` points to them. */
struct session_head {
    uint32_t blocks;
    uint64_t block_bytes, created_ms;
    struct weft_key root, tip;
    struct weft_format_spec spec;
    char name[65], model[513], scaling[4097];
    uint8_t adapter[256], salt[256];
};

struct session_block {
    struct weft_key key;
    uint64_t bytes, checksum;
    enum weft_quality quality; /* no default; in the file 0 for what is exact */
};

/* Returns how many bytes. */
size_t wf_session_head_write(const struct session_head *head, uint8_t out[SESSION_HEAD_BYTES_MAX]);
/* How many bytes the header has, from its first SESSION_HEAD_BYTES; 0 and a sentence: it is none.
 */
size_t wf_session_head_length(const uint8_t *bytes, const char **why);
/* False and a sentence: it is damaged, or says what cannot be. */
bool wf_session_head_read(const uint8_t *bytes, size_t length, struct session_head *out,
                          const char **why);
/* Of a file with that header; never overflows. */
uint64_t wf_session_file_bytes(const struct session_head *head, size_t head_bytes);

void wf_session_block_write(const struct session_block *block, uint8_t out[SESSION_BLOCK_BYTES]);
void wf_session_block_read(const uint8_t bytes[SESSION_BLOCK_BYTES], struct session_block *out);
void wf_session_foot_write(uint64_t blocks, uint64_t checksum, uint8_t out[SESSION_FOOT_BYTES]);
bool wf_session_foot_right(const uint8_t bytes[SESSION_FOOT_BYTES], uint64_t blocks,
                           uint64_t checksum);

#endif
