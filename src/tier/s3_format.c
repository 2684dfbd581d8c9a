/* SPDX-License-Identifier: Apache-2.0
 *
 * Sealing and checking what lies in the bucket.  Pure: bytes in, judgement out; whatever the bytes
 * are, nothing outside of them is looked at.
 */
#include "tier/s3_format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/sum.h"
#include "tier/check.h"

/* Every structure begins with its checksum. */
static uint64_t checksum(const void *structure, size_t bytes, const void *rest, uint64_t rest_bytes)
{
    uint64_t head = XXH3_64bits((const uint8_t *)structure + 8, bytes - 8);
    return rest_bytes ? XXH3_64bits_withSeed(rest, rest_bytes, head) : head;
}

void wf_s3_part_seal(struct wf_s3_part *part, const struct wf_tier_block *block, uint32_t number,
                     const void *payload)
{
    *part = (struct wf_s3_part){
        .magic = WF_S3_PART_MAGIC,
        .part = number,
        .bytes = wf_tier_part_bytes(block, number),
        .part_bytes = block->part_bytes,
        .block_bytes = block->bytes,
    };
    memcpy(part->key, block->key, sizeof part->key);
    part->checksum = checksum(part, sizeof *part, payload, part->bytes);
}

bool wf_s3_part_heads(const struct wf_s3_part *part, const struct wf_tier_block *block,
                      uint32_t number)
{
    return part->magic == WF_S3_PART_MAGIC && part->part == number &&
           part->bytes == wf_tier_part_bytes(block, number) &&
           part->part_bytes == block->part_bytes && part->block_bytes == block->bytes &&
           memcmp(part->key, block->key, sizeof part->key) == 0;
}

bool wf_s3_part_right(const struct wf_s3_part *part, const void *payload)
{
    return part->checksum == checksum(part, sizeof *part, payload, part->bytes);
}

void wf_s3_record_write(uint8_t *record, const struct wf_tier_block *block, const void *payload)
{
    const uint8_t *from = payload;
    uint32_t parts = wf_tier_parts(block);
    for (uint32_t i = 0; i < parts; i++) {
        struct wf_s3_part part;
        wf_s3_part_seal(&part, block, i, from);
        memcpy(record, &part, sizeof part);
        memcpy(record + sizeof part, from, part.bytes);
        record += sizeof part + part.bytes;
        from += part.bytes;
    }
}

void wf_s3_pack_seal(struct wf_s3_pack *pack, uint64_t number, uint64_t tag)
{
    *pack = (struct wf_s3_pack){.magic = WF_S3_PACK_MAGIC,
                                .version = WF_S3_VERSION,
                                .number = number,
                                .tag = tag};
    pack->checksum = checksum(pack, sizeof *pack, NULL, 0);
}

void wf_s3_footer_seal(struct wf_s3_footer *footer, const void *entries)
{
    footer->magic = WF_S3_FOOTER_MAGIC;
    footer->version = WF_S3_VERSION;
    footer->checksum = checksum(footer, sizeof *footer, entries,
                                (uint64_t)footer->count * sizeof(struct wf_s3_entry));
}

static bool footer_sane(const struct wf_s3_footer *footer)
{
    return footer->magic == WF_S3_FOOTER_MAGIC && footer->version == WF_S3_VERSION &&
           footer->count <= WF_S3_ENTRIES_MAX &&
           footer->records_bytes >= sizeof(struct wf_s3_pack) &&
           footer->records_bytes <= WF_S3_PACK_MAX &&
           footer->object_bytes <=
               WF_S3_PACK_MAX + WF_S3_ENTRIES_MAX * sizeof(struct wf_s3_entry) + sizeof *footer &&
           footer->object_bytes >=
               footer->records_bytes + footer->count * sizeof(struct wf_s3_entry) + sizeof *footer;
}

bool wf_s3_footer_heads(const struct wf_s3_footer *footer, uint64_t number, uint64_t tag,
                        uint64_t object_bytes)
{
    return footer_sane(footer) && footer->number == number && footer->tag == tag &&
           footer->object_bytes == object_bytes;
}

bool wf_s3_footer_right(const struct wf_s3_footer *footer, const void *entries)
{
    return footer->checksum == checksum(footer, sizeof *footer, entries,
                                        (uint64_t)footer->count * sizeof(struct wf_s3_entry));
}

bool wf_s3_entry_right(const struct wf_s3_entry *entry, const struct wf_s3_footer *footer)
{
    struct wf_tier_block block;
    wf_s3_entry_block(entry, &block);
    if (block.bytes == 0 || block.bytes > WF_S3_PACK_MAX || block.part_bytes == 0 ||
        block.part_bytes > WF_TIER_PART_BYTES_MAX ||
        (block.bytes - 1) / block.part_bytes >= WF_TIER_PARTS_MAX || !wf_tier_plain_right(&block))
        return false;
    return entry->offset >= sizeof(struct wf_s3_pack) && entry->offset <= footer->records_bytes &&
           wf_s3_record_bytes(&block) <= footer->records_bytes - entry->offset;
}

void wf_s3_entry_of(struct wf_s3_entry *entry, const struct wf_tier_block *block, uint64_t offset)
{
    memcpy(entry->key, block->key, sizeof entry->key);
    memcpy(entry->parent, block->parent, sizeof entry->parent);
    memcpy(entry->format, block->format, sizeof entry->format);
    entry->bytes = block->bytes;
    entry->offset = offset;
    entry->depth = block->depth;
    entry->part_bytes = block->part_bytes;
    entry->plain_bytes = block->plain_bytes;
    entry->plain_part_bytes = block->plain_part_bytes;
    entry->plain_quality = block->plain_quality;
}

void wf_s3_entry_block(const struct wf_s3_entry *entry, struct wf_tier_block *out)
{
    memcpy(out->key, entry->key, sizeof out->key);
    memcpy(out->parent, entry->parent, sizeof out->parent);
    memcpy(out->format, entry->format, sizeof out->format);
    out->bytes = entry->bytes;
    out->depth = entry->depth;
    out->part_bytes = entry->part_bytes;
    out->plain_bytes = entry->plain_bytes;
    out->plain_part_bytes = entry->plain_part_bytes;
    out->plain_quality = entry->plain_quality;
    out->stored_bytes = 0;
}

void wf_s3_index_seal(struct wf_s3_index *index, uint32_t packs, uint64_t object_bytes)
{
    *index = (struct wf_s3_index){.magic = WF_S3_INDEX_MAGIC,
                                  .version = WF_S3_VERSION,
                                  .packs = packs,
                                  .object_bytes = object_bytes};
    index->checksum = checksum(index, sizeof *index, NULL, 0);
}

bool wf_s3_walk_begin(struct wf_s3_walk *walk, const void *data, uint64_t bytes)
{
    struct wf_s3_index index;
    memset(walk, 0, sizeof *walk);
    if (bytes < sizeof index)
        return false;
    memcpy(&index, data, sizeof index);
    if (index.magic != WF_S3_INDEX_MAGIC || index.version != WF_S3_VERSION ||
        index.object_bytes != bytes || index.checksum != checksum(&index, sizeof index, NULL, 0))
        return false;
    walk->data = data;
    walk->bytes = bytes;
    walk->at = sizeof index;
    walk->left = index.packs;
    return true;
}

bool wf_s3_walk_next(struct wf_s3_walk *walk)
{
    if (!walk->left || walk->bytes - walk->at < sizeof walk->footer)
        return false;
    memcpy(&walk->footer, walk->data + walk->at, sizeof walk->footer);
    walk->at += sizeof walk->footer;
    uint64_t entries_bytes = (uint64_t)walk->footer.count * sizeof(struct wf_s3_entry);
    if (!footer_sane(&walk->footer) || walk->bytes - walk->at < entries_bytes)
        return false;
    walk->entries = walk->data + walk->at;
    if (!wf_s3_footer_right(&walk->footer, walk->entries))
        return false;
    walk->at += entries_bytes;
    walk->left--;
    return true;
}

void wf_s3_name_write(char *name, char kind, uint64_t number, uint64_t tag)
{
    snprintf(name, WF_S3_NAME_MAX, "%c/%016" PRIx64 "-%016" PRIx64, kind, number, tag);
}

static bool hex(const char *digits, uint64_t *out)
{
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) {
        char c = digits[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return false;
    }
    *out = value;
    return true;
}

bool wf_s3_name_read(const char *name, char kind, uint64_t *number, uint64_t *tag)
{
    return strlen(name) == 35 && name[0] == kind && name[1] == '/' && hex(name + 2, number) &&
           name[18] == '-' && hex(name + 19, tag);
}
