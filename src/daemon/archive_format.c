/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/archive_format.h"

#include <endian.h>
#include <openssl/sha.h>
#include <string.h>
#include <xxhash.h>

#include "base/text.h"
#include "daemon/node.h"

#define VERSION 1u
#define SUMMED_FROM 24u /* what the checksum covers starts here */

static const char magic[8] = "WFARCHIV";

/* The manifest's fixed part; every field lies at a multiple of its size. */
struct head {
    char magic[8];
    uint32_t version, bytes;
    uint64_t checksum;
    uint64_t created_ms, payload_bytes;
    uint32_t blocks, name_bytes;
    uint8_t domain[32], tip[32];
    uint32_t layers, kv_heads, head_dim, dtype, block_tokens, tp_rank, tp_size;
    uint32_t model_bytes, scaling_bytes, adapter_bytes, salt_bytes;
    uint32_t quality;
    double rope_theta;
    uint64_t block_bytes;
};
static_assert(sizeof(struct head) == WF_ARCHIVE_HEAD_BYTES, "disk format");
static_assert(offsetof(struct head, domain) == 48, "disk format");
static_assert(offsetof(struct head, layers) == 112, "disk format");
static_assert(offsetof(struct head, rope_theta) == 160, "disk format");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "read and written as it lies in memory");

void wf_archive_tag(uint8_t out[32])
{
    static const char label[] = "weft-archive-manifest";
    SHA256((const uint8_t *)label, sizeof label - 1, out);
}

/* Tagged and length-prefixed, so that no two lists of fields are the same bytes. */
static size_t put_field(uint8_t *to, char tag, const void *bytes, size_t length)
{
    to[0] = (uint8_t)tag;
    for (unsigned i = 0; i < 8; i++)
        to[1 + i] = (uint8_t)((uint64_t)length >> (8 * i));
    memcpy(to + 9, bytes, length);
    return 9 + length;
}

void wf_manifest_key(const uint8_t domain[32], const char *name, const uint8_t tip[32],
                     uint8_t out[32])
{
    uint8_t fields[4 * 9 + 12 + 32 + WF_ARCHIVE_NAME_MAX + 32];
    size_t length = put_field(fields, 'L', "weft-archive", 12);
    length += put_field(fields + length, 'D', domain, 32);
    length += put_field(fields + length, 'N', name, strnlen(name, WF_ARCHIVE_NAME_MAX));
    length += put_field(fields + length, 'T', tip, 32);
    SHA256(fields, length, out);
}

/* The parts behind the head, in their order; returns their sum. */
struct part {
    const void *bytes;
    uint32_t length;
};

static size_t parts_of(const struct wf_manifest *m, struct part out[5])
{
    const struct wf_format_open *f = &m->format;
    size_t sum = 0;
    out[0] = (struct part){m->name, (uint32_t)strlen(m->name)};
    out[1] = (struct part){f->model, f->model_bytes};
    out[2] = (struct part){f->scaling, f->scaling_bytes};
    out[3] = (struct part){f->adapter, f->adapter_bytes};
    out[4] = (struct part){f->salt, f->salt_bytes};
    for (unsigned i = 0; i < 5; i++)
        sum += out[i].length;
    return sum;
}

size_t wf_manifest_write(const struct wf_manifest *m, uint8_t out[WF_ARCHIVE_BYTES_MAX])
{
    const struct wf_format_open *f = &m->format;
    struct part parts[5];
    size_t at = sizeof(struct head), bytes = at + parts_of(m, parts);
    assert(bytes <= WF_ARCHIVE_BYTES_MAX);
    struct head head = {
        .version = VERSION,
        .bytes = (uint32_t)bytes,
        .created_ms = m->created_ms,
        .payload_bytes = m->payload_bytes,
        .blocks = m->blocks,
        .name_bytes = parts[0].length,
        .layers = f->layers,
        .kv_heads = f->kv_heads,
        .head_dim = f->head_dim,
        .dtype = f->dtype,
        .block_tokens = f->block_tokens,
        .tp_rank = f->tp_rank,
        .tp_size = f->tp_size,
        .model_bytes = f->model_bytes,
        .scaling_bytes = f->scaling_bytes,
        .adapter_bytes = f->adapter_bytes,
        .salt_bytes = f->salt_bytes,
        .quality = f->quality,
        .rope_theta = f->rope_theta,
        .block_bytes = f->block_bytes,
    };
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.domain, m->domain, sizeof head.domain);
    memcpy(head.tip, m->tip, sizeof head.tip);
    memcpy(out, &head, sizeof head);
    for (unsigned i = 0; i < 5; i++) {
        memcpy(out + at, parts[i].bytes, parts[i].length);
        at += parts[i].length;
    }
    head.checksum = XXH3_64bits(out + SUMMED_FROM, bytes - SUMMED_FROM);
    memcpy(out + offsetof(struct head, checksum), &head.checksum, sizeof head.checksum);
    return bytes;
}

static bool sizes_right(const struct head *head, size_t length)
{
    const struct wf_format_open *f = NULL;
    return head->name_bytes >= 1 && head->name_bytes <= WF_ARCHIVE_NAME_MAX &&
           head->model_bytes < sizeof f->model && head->scaling_bytes < sizeof f->scaling &&
           head->adapter_bytes <= sizeof f->adapter && head->salt_bytes <= sizeof f->salt &&
           head->bytes == length &&
           sizeof *head + head->name_bytes + head->model_bytes + head->scaling_bytes +
                   head->adapter_bytes + head->salt_bytes ==
               length;
}

static void take(const uint8_t **from, void *to, uint32_t length)
{
    memcpy(to, *from, length);
    *from += length;
}

enum weft_status wf_manifest_read(const void *bytes, size_t length, struct wf_manifest *out)
{
    struct head head;
    struct weft_format_spec spec;
    const uint8_t *at = (const uint8_t *)bytes + sizeof head;
    if (length < sizeof head || length > WF_ARCHIVE_BYTES_MAX)
        return wf_fail(WEFT_E_CORRUPT, "a manifest of %zu bytes is none", length);
    memcpy(&head, bytes, sizeof head);
    if (memcmp(head.magic, magic, sizeof magic) != 0)
        return wf_fail(WEFT_E_CORRUPT, "a manifest does not begin as one");
    if (head.version != VERSION)
        return wf_fail(WEFT_E_CORRUPT,
                       "a manifest is of version %u, this node reads %u; use the weftd that wrote "
                       "it, or a newer one",
                       head.version, VERSION);
    if (!sizes_right(&head, length) ||
        head.checksum != XXH3_64bits((const uint8_t *)bytes + SUMMED_FROM, length - SUMMED_FROM) ||
        head.blocks == 0 || head.blocks > WF_ARCHIVE_BLOCKS_MAX)
        return wf_fail(WEFT_E_CORRUPT, "a manifest is damaged");
    memset(out, 0, sizeof *out);
    out->created_ms = head.created_ms;
    out->payload_bytes = head.payload_bytes;
    out->blocks = head.blocks;
    memcpy(out->domain, head.domain, sizeof head.domain);
    memcpy(out->tip, head.tip, sizeof head.tip);
    out->format = (struct wf_format_open){
        .layers = head.layers,
        .kv_heads = head.kv_heads,
        .head_dim = head.head_dim,
        .dtype = head.dtype,
        .block_tokens = head.block_tokens,
        .tp_rank = head.tp_rank,
        .tp_size = head.tp_size,
        .model_bytes = head.model_bytes,
        .scaling_bytes = head.scaling_bytes,
        .adapter_bytes = head.adapter_bytes,
        .salt_bytes = head.salt_bytes,
        .quality = head.quality,
        .rope_theta = head.rope_theta,
        .block_bytes = head.block_bytes,
    };
    take(&at, out->name, head.name_bytes);
    take(&at, out->format.model, head.model_bytes);
    take(&at, out->format.scaling, head.scaling_bytes);
    take(&at, out->format.adapter, head.adapter_bytes);
    take(&at, out->format.salt, head.salt_bytes);
    if (strlen(out->name) != head.name_bytes ||
        wf_text_check("an archive's name", out->name, WF_ARCHIVE_NAME_MAX, false) != WEFT_OK ||
        wf_format_read(&out->format, &spec) != WEFT_OK)
        return wf_fail(WEFT_E_CORRUPT, "a manifest says what no format can be");
    return WEFT_OK;
}
