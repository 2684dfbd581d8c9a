/* SPDX-License-Identifier: Apache-2.0
 *
 * The structures on the NVMe tier's medium: made, and looked at before they are believed.
 */
#include "tier/nvme_log.h"

#include <string.h>

#include "base/sum.h"

/* Over the head, and with that as seed over the rest: the head is looked at apart from a structure
 * that may not be written to. */
static uint64_t checksum_of(const struct wf_nvme_head *head, const void *structure)
{
    uint64_t seed = XXH3_64bits_withSeed(head, sizeof *head, head->volume);
    return XXH3_64bits_withSeed((const uint8_t *)structure + sizeof *head,
                                head->bytes - sizeof *head, seed);
}

void wf_nvme_seal(void *structure, uint64_t magic, uint32_t bytes, uint64_t volume)
{
    struct wf_nvme_head *head = structure;
    *head = (struct wf_nvme_head){.magic = magic,
                                  .version = WF_NVME_VERSION,
                                  .bytes = bytes,
                                  .volume = volume};
    head->checksum = checksum_of(head, structure);
}

int wf_nvme_sealed(const void *structure, uint64_t magic, uint64_t room, uint64_t volume)
{
    struct wf_nvme_head head;
    memcpy(&head, structure, sizeof head);
    if (head.magic != magic || head.version != WF_NVME_VERSION || head.volume != volume ||
        head.bytes < sizeof head || head.bytes > room)
        return 0;
    uint64_t given = head.checksum;
    head.checksum = 0;
    return checksum_of(&head, structure) == given;
}

void wf_nvme_sum(const struct wf_tier_block *block, const uint8_t *data, uint64_t *sums)
{
    uint32_t parts = wf_tier_parts(block);
    for (uint32_t i = 0; i < parts; i++)
        sums[i] = wf_sum64(data + (uint64_t)i * block->part_bytes, wf_tier_part_bytes(block, i));
}

uint64_t wf_nvme_footer_make(struct wf_nvme *t, uint8_t *buffer, uint32_t segment, uint32_t count,
                             uint64_t *out_bytes)
{
    struct wf_nvme_entry *entries = (struct wf_nvme_entry *)(void *)buffer;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (entries[i].bytes)
            entries[kept++] = entries[i];
    uint64_t bytes = wf_nvme_footer_bytes(kept), used = kept * sizeof *entries;
    memset(buffer + used, 0, bytes - used);
    struct wf_nvme_footer footer = {
        .number = segment,
        .generation = t->segment[segment].generation,
        .count = kept,
        .entries_checksum = XXH3_64bits_withSeed(buffer, used, t->volume),
    };
    wf_nvme_seal(&footer, WF_NVME_FOOTER_MAGIC, sizeof footer, t->volume);
    memcpy(buffer + bytes - WF_NVME_PAGE, &footer, sizeof footer);
    t->segment[segment].entries = kept;
    *out_bytes = bytes;
    return wf_nvme_segment_at(t, segment) + t->segment_bytes - bytes;
}

bool wf_nvme_footer_right(const struct wf_nvme *t, const struct wf_nvme_footer *footer,
                          uint32_t segment)
{
    return wf_nvme_sealed(footer, WF_NVME_FOOTER_MAGIC, sizeof *footer, t->volume) &&
           footer->head.bytes == sizeof *footer && footer->number == segment &&
           footer->generation == t->segment[segment].generation &&
           footer->count <= t->segment_bytes / WF_NVME_RECORD_MIN &&
           WF_NVME_RECORDS_AT + wf_nvme_footer_bytes(footer->count) <= t->segment_bytes;
}

bool wf_nvme_entries_right(const struct wf_nvme *t, const struct wf_nvme_footer *footer,
                           const uint8_t *entries)
{
    return XXH3_64bits_withSeed(entries, footer->count * sizeof(struct wf_nvme_entry), t->volume) ==
           footer->entries_checksum;
}

void wf_nvme_entry_make(struct wf_nvme_entry *out, const struct wf_tier_block *block,
                        uint64_t sequence, uint32_t page)
{
    *out = (struct wf_nvme_entry){.sequence = sequence,
                                  .bytes = block->bytes,
                                  .depth = block->depth,
                                  .part_bytes = block->part_bytes,
                                  .page = page,
                                  .plain_part_bytes = block->plain_part_bytes,
                                  .plain_bytes = (uint32_t)block->plain_bytes,
                                  .plain_quality = block->plain_quality};
    memcpy(out->key, block->key, 32);
    memcpy(out->parent, block->parent, 32);
    memcpy(out->format, block->format, 32);
}

/* May a block of that shape lie at `page`?  Bounds before use. */
static bool shape_fits(const struct wf_nvme *t, const struct wf_tier_block *block, uint64_t page)
{
    if (block->bytes == 0 || block->bytes > t->segment_bytes || block->part_bytes == 0 ||
        block->part_bytes > WF_TIER_PART_BYTES_MAX ||
        (block->bytes - 1) / block->part_bytes >= WF_TIER_PARTS_MAX || !wf_tier_plain_right(block))
        return false;
    uint64_t at = page * WF_NVME_PAGE;
    return at >= WF_NVME_RECORDS_AT && at < t->segment_bytes &&
           wf_nvme_record_bytes(block) <= t->segment_bytes - at;
}

bool wf_nvme_entry_block(const struct wf_nvme *t, const struct wf_nvme_entry *entry,
                         struct wf_tier_block *out)
{
    *out = (struct wf_tier_block){.depth = entry->depth,
                                  .part_bytes = entry->part_bytes,
                                  .bytes = entry->bytes,
                                  .plain_bytes = entry->plain_bytes,
                                  .plain_part_bytes = entry->plain_part_bytes,
                                  .plain_quality = entry->plain_quality};
    memcpy(out->key, entry->key, 32);
    memcpy(out->parent, entry->parent, 32);
    memcpy(out->format, entry->format, 32);
    return shape_fits(t, out, entry->page);
}

const struct wf_nvme_record *wf_nvme_record_at(const struct wf_nvme *t, uint32_t segment,
                                               uint64_t at, const uint8_t *memory, uint64_t room,
                                               struct wf_tier_block *out)
{
    const struct wf_nvme_record *record = (const struct wf_nvme_record *)(const void *)memory;
    if (room > WF_NVME_HEADER_MAX)
        room = WF_NVME_HEADER_MAX;
    if (room < sizeof *record || !wf_nvme_sealed(record, WF_NVME_RECORD_MAGIC, room, t->volume) ||
        record->head.bytes < sizeof *record ||
        record->generation != t->segment[segment].generation ||
        record->offset != wf_nvme_segment_at(t, segment) + at)
        return NULL;
    *out = (struct wf_tier_block){.depth = record->depth,
                                  .part_bytes = record->part_bytes,
                                  .bytes = record->bytes,
                                  .plain_bytes = record->plain_bytes,
                                  .plain_part_bytes = record->plain_part_bytes,
                                  .plain_quality = record->plain_quality};
    memcpy(out->key, record->key, 32);
    memcpy(out->parent, record->parent, 32);
    memcpy(out->format, record->format, 32);
    bool right = shape_fits(t, out, at / WF_NVME_PAGE) &&
                 record->head.bytes == sizeof *record + wf_tier_parts(out) * 8ull;
    return right ? record : NULL;
}

bool wf_nvme_payload_right(const struct wf_tier_block *block, const uint64_t *sums,
                           const uint8_t *payload)
{
    for (uint32_t i = 0; i < wf_tier_parts(block); i++)
        if (wf_sum64(payload + (uint64_t)i * block->part_bytes, wf_tier_part_bytes(block, i)) !=
            sums[i])
            return false;
    return true;
}
