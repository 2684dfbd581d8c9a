/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/session_file.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#define VERSION 1u
#define SUMMED_FROM 24u

static const char begin_magic[8] = "WEFTSESS", end_magic[8] = "WEFTSEND";

struct head {
    char magic[8];
    uint32_t version, header_bytes;
    uint64_t checksum;
    uint32_t blocks, name_bytes;
    uint64_t block_bytes;
    uint8_t root[32], tip[32];
    uint64_t created_ms;
    uint32_t layers, kv_heads, head_dim, dtype, block_tokens, tp_rank, tp_size;
    uint32_t model_bytes, scaling_bytes, adapter_bytes, salt_bytes;
    uint32_t quality;
    double rope_theta;
    uint64_t format_block_bytes;
};
static_assert(sizeof(struct head) == SESSION_HEAD_BYTES, "file format");
static_assert(offsetof(struct head, created_ms) == 104, "file format");
static_assert(offsetof(struct head, rope_theta) == 160, "file format");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "read and written as it lies in memory");

static uint8_t *put(uint8_t *to, const void *bytes, size_t length)
{
    if (length)
        memcpy(to, bytes, length);
    return to + length;
}

size_t wf_session_head_write(const struct session_head *h, uint8_t out[SESSION_HEAD_BYTES_MAX])
{
    const struct weft_format_spec *spec = &h->spec;
    const char *scaling = spec->rope_scaling ? spec->rope_scaling : "";
    struct head head = {
        .version = VERSION,
        .blocks = h->blocks,
        .name_bytes = (uint32_t)strlen(h->name),
        .block_bytes = h->block_bytes,
        .created_ms = h->created_ms,
        .layers = spec->layers,
        .kv_heads = spec->kv_heads,
        .head_dim = spec->head_dim,
        .dtype = (uint32_t)spec->dtype,
        .block_tokens = spec->block_tokens,
        .tp_rank = spec->tp_rank,
        .tp_size = spec->tp_size,
        .model_bytes = (uint32_t)strlen(spec->model),
        .scaling_bytes = (uint32_t)strlen(scaling),
        .adapter_bytes = (uint32_t)spec->adapter_bytes,
        .salt_bytes = (uint32_t)spec->salt_bytes,
        .quality = (uint32_t)spec->quality,
        .rope_theta = spec->rope_theta,
        .format_block_bytes = spec->block_bytes,
    };
    memcpy(head.magic, begin_magic, sizeof head.magic);
    memcpy(head.root, h->root.bytes, sizeof head.root);
    memcpy(head.tip, h->tip.bytes, sizeof head.tip);
    head.header_bytes = (uint32_t)sizeof head + head.name_bytes + head.model_bytes +
                        head.scaling_bytes + head.adapter_bytes + head.salt_bytes;
    assert(head.header_bytes <= SESSION_HEAD_BYTES_MAX);
    uint8_t *at = put(out, &head, sizeof head);
    at = put(at, h->name, head.name_bytes);
    at = put(at, spec->model, head.model_bytes);
    at = put(at, scaling, head.scaling_bytes);
    at = put(at, spec->adapter, head.adapter_bytes);
    put(at, spec->salt, head.salt_bytes);
    head.checksum = XXH3_64bits(out + SUMMED_FROM, head.header_bytes - SUMMED_FROM);
    memcpy(out + offsetof(struct head, checksum), &head.checksum, sizeof head.checksum);
    return head.header_bytes;
}

static size_t refuse(const char **why, const char *sentence)
{
    *why = sentence;
    return 0;
}

size_t wf_session_head_length(const uint8_t *bytes, const char **why)
{
    struct head head;
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.magic, begin_magic, sizeof begin_magic) != 0)
        return refuse(why, "it is no exported session");
    if (head.version != VERSION)
        return refuse(why, "it is of another version; use the weft that wrote it, or a newer one");
    if (head.header_bytes < sizeof head || head.header_bytes > SESSION_HEAD_BYTES_MAX)
        return refuse(why, "its header is damaged");
    return head.header_bytes;
}

static const uint8_t *take(const uint8_t *from, void *to, size_t length)
{
    memcpy(to, from, length);
    return from + length;
}

bool wf_session_head_read(const uint8_t *bytes, size_t length, struct session_head *out,
                          const char **why)
{
    struct head head;
    if (length < sizeof head)
        return refuse(why, "it is shorter than a header");
    if (wf_session_head_length(bytes, why) == 0)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.name_bytes < 1 || head.name_bytes >= sizeof out->name || head.model_bytes < 1 ||
        head.model_bytes >= sizeof out->model || head.scaling_bytes >= sizeof out->scaling ||
        head.adapter_bytes > sizeof out->adapter || head.salt_bytes > sizeof out->salt ||
        head.header_bytes != length ||
        length != sizeof head + head.name_bytes + head.model_bytes + head.scaling_bytes +
                      head.adapter_bytes + head.salt_bytes ||
        head.checksum != XXH3_64bits(bytes + SUMMED_FROM, length - SUMMED_FROM))
        return refuse(why, "its header is damaged");
    if (head.blocks < 1 || head.blocks > SESSION_BLOCKS_MAX || head.block_bytes < 1 ||
        head.block_bytes > UINT32_MAX)
        return refuse(why, "it says to have more blocks, or larger ones, than a session can have");
    memset(out, 0, sizeof *out);
    out->blocks = head.blocks;
    out->block_bytes = head.block_bytes;
    out->created_ms = head.created_ms;
    memcpy(out->root.bytes, head.root, sizeof head.root);
    memcpy(out->tip.bytes, head.tip, sizeof head.tip);
    const uint8_t *at = take(bytes + sizeof head, out->name, head.name_bytes);
    at = take(at, out->model, head.model_bytes);
    at = take(at, out->scaling, head.scaling_bytes);
    at = take(at, out->adapter, head.adapter_bytes);
    take(at, out->salt, head.salt_bytes);
    if (strlen(out->name) != head.name_bytes || strlen(out->model) != head.model_bytes ||
        strlen(out->scaling) != head.scaling_bytes)
        return refuse(why, "its header has texts that end too early");
    out->spec = (struct weft_format_spec){
        .model = out->model,
        .layers = head.layers,
        .kv_heads = head.kv_heads,
        .head_dim = head.head_dim,
        .dtype = (enum weft_dtype)head.dtype,
        .block_tokens = head.block_tokens,
        .tp_rank = head.tp_rank,
        .tp_size = head.tp_size,
        .rope_theta = head.rope_theta,
        .rope_scaling = head.scaling_bytes ? out->scaling : NULL,
        .adapter = head.adapter_bytes ? out->adapter : NULL,
        .adapter_bytes = head.adapter_bytes,
        .salt = head.salt_bytes ? out->salt : NULL,
        .salt_bytes = head.salt_bytes,
        .block_bytes = head.format_block_bytes,
        .quality = (enum weft_quality)head.quality,
    };
    return true;
}

uint64_t wf_session_file_bytes(const struct session_head *head, size_t head_bytes)
{
    return head_bytes + head->blocks * (SESSION_BLOCK_BYTES + head->block_bytes) +
           SESSION_FOOT_BYTES;
}

void wf_session_block_write(const struct session_block *block, uint8_t out[SESSION_BLOCK_BYTES])
{
    memcpy(out, block->key.bytes, 32);
    uint32_t bytes = (uint32_t)block->bytes;
    uint32_t quality = block->quality > WEFT_LOSSLESS ? (uint32_t)block->quality : 0;
    memcpy(out + 32, &bytes, 4);
    memcpy(out + 36, &quality, 4);
    memcpy(out + 40, &block->checksum, 8);
}

void wf_session_block_read(const uint8_t bytes[SESSION_BLOCK_BYTES], struct session_block *out)
{
    memcpy(out->key.bytes, bytes, 32);
    uint32_t length, quality;
    memcpy(&length, bytes + 32, 4);
    memcpy(&quality, bytes + 36, 4);
    bool known = quality == 0 || (quality > WEFT_LOSSLESS && quality <= WEFT_ECONOMY);
    out->bytes = known ? length : 0; /* no block has that */
    out->quality = known && quality ? (enum weft_quality)quality : WEFT_LOSSLESS;
    memcpy(&out->checksum, bytes + 40, 8);
}

void wf_session_foot_write(uint64_t blocks, uint64_t checksum, uint8_t out[SESSION_FOOT_BYTES])
{
    memcpy(out, end_magic, 8);
    memcpy(out + 8, &blocks, 8);
    memcpy(out + 16, &checksum, 8);
}

bool wf_session_foot_right(const uint8_t bytes[SESSION_FOOT_BYTES], uint64_t blocks,
                           uint64_t checksum)
{
    uint8_t expected[SESSION_FOOT_BYTES];
    wf_session_foot_write(blocks, checksum, expected);
    return memcmp(bytes, expected, sizeof expected) == 0;
}
