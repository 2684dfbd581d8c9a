/* SPDX-License-Identifier: Apache-2.0
 *
 * The manifest of an archive: a small block that lies on the tier beside the chain that it names.
 *
 * Its key is SHA-256 over a label, the domain's tag, the archive's name and the chain's last key,
 * so two chains under one name are two manifests, and the newer counts.  On the tier,
 * wf_tier_block.format is wf_archive_tag() and wf_tier_block.parent the domain's tag; what is
 * believed is the payload alone.  Little-endian.
 *
 *        0         8      12      16         24           32              40       44
 *       +---------+------+-------+----------+------------+---------------+--------+--------+
 *       | "WFARCHIV"| version | bytes | checksum | created_ms | payload_bytes | blocks | name_… |
 *       +---------+------+-------+----------+------------+---------------+--------+--------+
 *     48 | domain's tag, 32 bytes                | key of the last block, 32 bytes           |
 *    112 | layers, kv_heads, head_dim, dtype, block_tokens, tp_rank, tp_size: 4 bytes each   |
 *    140 | model_bytes, scaling_bytes, adapter_bytes, salt_bytes: 4 bytes each               |
 *    156 | quality, 4 bytes | rope_theta, 8 bytes | block_bytes, 8 bytes                        |
 *    176 | name, model, rope scaling, adapter, salt: one behind the other, without ends      |
 *       +-----------------------------------------------------------------------------------+
 *
 * `bytes` is the whole manifest's size; `checksum` is the XXH3-64 of all that follows it.  The
 * layout is that of the format that the chain was archived with, so that an export can describe it;
 * its quality is that which is part of the keys, or 0.
 *
 * Pure functions.  A manifest is written whole or, by the tier's promise, not at all.
 */
#ifndef WF_DAEMON_ARCHIVE_FORMAT_H
#define WF_DAEMON_ARCHIVE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "shm/control.h"

#define WF_ARCHIVE_NAME_MAX 64
#define WF_ARCHIVE_HEAD_BYTES 176u
#define WF_ARCHIVE_BYTES_MAX (WF_ARCHIVE_HEAD_BYTES + 64u + 512u + 4096u + 256u + 256u)
/* The longest chain that can be one archive. */
#define WF_ARCHIVE_BLOCKS_MAX (1u << 18)

struct wf_manifest {
    uint64_t created_ms, payload_bytes;
    uint32_t blocks;
    char name[WF_ARCHIVE_NAME_MAX + 1];
    uint8_t domain[32], tip[32];
    struct wf_format_open format; /* its message header is not looked at */
};

/* Returns how many bytes. */
size_t wf_manifest_write(const struct wf_manifest *manifest, uint8_t out[WF_ARCHIVE_BYTES_MAX]);

/* WEFT_E_CORRUPT: it is none, or of another version, or damaged. */
enum weft_status wf_manifest_read(const void *bytes, size_t length, struct wf_manifest *out);

void wf_manifest_key(const uint8_t domain[32], const char *name, const uint8_t tip[32],
                     uint8_t out[32]);

/* wf_tier_block.format of every manifest. */
void wf_archive_tag(uint8_t out[32]);

#endif
