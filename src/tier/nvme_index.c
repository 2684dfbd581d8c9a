/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/nvme_index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/reserve.h"
#include "sys/memory.h"
#include "tier/walk.h"

#define ITEMS_MIN 1024u
#define FORMAT_SLOTS (2u * WF_NVME_FORMATS_MAX)

static void *reserve_memory(uint64_t bytes, const char *what)
{
    return wf_reserve(bytes, what, "give the tier a smaller capacity");
}

static uint64_t items_bytes(const struct wf_nvme_index *index)
{
    return (uint64_t)index->items_max * sizeof *index->items;
}

enum weft_status wf_nvme_index_init(struct wf_nvme_index *index, uint64_t items_max)
{
    memset(index, 0, sizeof *index);
    index->items_max = items_max < UINT32_MAX / 2 ? (uint32_t)items_max : UINT32_MAX / 2;
    if (index->items_max < ITEMS_MIN)
        index->items_max = ITEMS_MIN;
    index->spare = WF_NVME_NONE;
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    index->items = reserve_memory(items_bytes(index), "the index");
    index->parents = reserve_memory((uint64_t)index->items_max * 32, "the index");
    index->formats = reserve_memory(WF_NVME_FORMATS_MAX * sizeof(struct wf_nvme_kind), "formats");
    index->format_slots = reserve_memory(FORMAT_SLOTS * sizeof(uint32_t), "formats");
    struct wf_table_items items = {
        .first = index->items,
        .max = index->items_max,
        .bytes = sizeof *index->items,
        .key_offset = offsetof(struct wf_nvme_item, key),
        .next_offset = offsetof(struct wf_nvme_item, hash_next),
    };
    if (!index->items || !index->parents || !index->formats || !index->format_slots ||
        wf_table_init(&index->table, &items, seed) != WEFT_OK) {
        wf_nvme_index_fini(index);
        return WEFT_E_NO_MEMORY;
    }
    wf_advise_huge(index->items, items_bytes(index));
    wf_advise_huge(index->table.buckets, index->table.bucket_bytes);
    return WEFT_OK;
}

void wf_nvme_index_drop_parents(struct wf_nvme_index *index)
{
    wf_unreserve(index->parents, (uint64_t)index->items_max * 32);
    index->parents = NULL;
}

void wf_nvme_index_fini(struct wf_nvme_index *index)
{
    wf_table_fini(&index->table);
    wf_unreserve(index->items, items_bytes(index));
    wf_unreserve(index->formats, WF_NVME_FORMATS_MAX * sizeof(struct wf_nvme_kind));
    wf_unreserve(index->format_slots, FORMAT_SLOTS * sizeof(uint32_t));
    wf_nvme_index_drop_parents(index);
    memset(index, 0, sizeof *index);
}

void wf_nvme_index_expect(struct wf_nvme_index *index, uint64_t items)
{
    wf_table_expect(&index->table, items);
}

void wf_nvme_index_prefetch(const struct wf_nvme_index *index, const uint8_t key[32])
{
    wf_table_prefetch(&index->table, key);
}

uint32_t wf_nvme_index_find(const struct wf_nvme_index *index, const uint8_t key[32])
{
    return wf_table_find(&index->table, key);
}

uint32_t wf_nvme_index_find_at(const struct wf_nvme_index *index, const uint8_t key[32],
                               uint32_t segment, uint32_t page)
{
    uint32_t at = wf_nvme_index_find(index, key);
    if (at != WF_NVME_NONE &&
        (index->items[at].segment != segment || index->items[at].page != page))
        at = WF_NVME_NONE;
    return at;
}

static uint32_t format_number(struct wf_nvme_index *index, const struct wf_tier_block *block)
{
    struct wf_nvme_kind kind = {.plain_part_bytes = block->plain_part_bytes,
                                .plain_quality = block->plain_quality};
    memcpy(kind.format, block->format, sizeof kind.format);
    uint64_t slot = XXH3_64bits_withSeed(&kind, sizeof kind, index->table.seed) % FORMAT_SLOTS;
    for (; index->format_slots[slot]; slot = (slot + 1) % FORMAT_SLOTS)
        if (!memcmp(&index->formats[index->format_slots[slot] - 1], &kind, sizeof kind))
            return index->format_slots[slot] - 1;
    if (index->formats_count == WF_NVME_FORMATS_MAX)
        return WF_NVME_NONE;
    index->formats[index->formats_count] = kind;
    index->format_slots[slot] = index->formats_count + 1;
    return index->formats_count++;
}

uint32_t wf_nvme_index_insert(struct wf_nvme_index *index, const struct wf_tier_block *block,
                              uint32_t segment, uint32_t page)
{
    uint32_t format = format_number(index, block);
    uint32_t at = index->spare;
    if (format == WF_NVME_NONE || (at == WF_NVME_NONE && index->items_used == index->items_max))
        return WF_NVME_NONE;
    if (at == WF_NVME_NONE)
        at = index->items_used++;
    else
        index->spare = index->items[at].hash_next;
    struct wf_nvme_item *item = &index->items[at];
    memcpy(item->key, block->key, 32);
    if (index->parents)
        memcpy(index->parents[at], block->parent, 32);
    item->bytes = (uint32_t)block->bytes;
    item->format = (uint16_t)format;
    item->depth = block->depth;
    item->part_bytes = block->part_bytes;
    item->plain_bytes = (uint32_t)block->plain_bytes;
    item->segment = segment;
    item->page = (uint16_t)page;
    wf_table_insert(&index->table, at);
    return at;
}

void wf_nvme_index_remove(struct wf_nvme_index *index, uint32_t at)
{
    wf_table_remove(&index->table, at);
    index->items[at].bytes = 0;
    index->items[at].hash_next = index->spare;
    index->spare = at;
}

void wf_nvme_index_block(const struct wf_nvme_index *index, uint32_t at, struct wf_tier_block *out)
{
    const struct wf_nvme_item *item = &index->items[at];
    memcpy(out->key, item->key, 32);
    memset(out->parent, 0, 32);
    const struct wf_nvme_kind *kind = &index->formats[item->format];
    memcpy(out->format, kind->format, 32);
    out->depth = item->depth;
    out->part_bytes = item->part_bytes;
    out->bytes = item->bytes;
    out->plain_bytes = item->plain_bytes;
    out->plain_part_bytes = kind->plain_part_bytes;
    out->plain_quality = kind->plain_quality;
    out->stored_bytes = 0;
}

/* What is walked, and who hears of it. */
struct listing {
    const struct wf_nvme_index *index;
    const uint8_t (*parents)[32];
    void (*found)(void *context, const struct wf_tier_block *block);
};

static bool is_block(const void *listing, uint32_t at)
{
    return ((const struct listing *)listing)->index->items[at].bytes != 0;
}

static uint32_t parent_of(const void *listing, uint32_t at)
{
    static const uint8_t none[32];
    const struct listing *l = listing;
    return memcmp(l->parents[at], none, 32) != 0 ? wf_nvme_index_find(l->index, l->parents[at])
                                                 : WF_NVME_NONE;
}

static void tell(const void *listing, uint32_t at, void *context)
{
    const struct listing *l = listing;
    struct wf_tier_block block;
    wf_nvme_index_block(l->index, at, &block);
    memcpy(block.parent, l->parents[at], 32);
    l->found(context, &block);
}

void wf_nvme_index_each(const struct wf_nvme_index *index, const uint8_t (*parents)[32],
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context)
{
    const struct listing listing = {.index = index, .parents = parents, .found = found};
    const struct wf_tier_walk walk = {.items = index->items_used,
                                      .is_block = is_block,
                                      .parent = parent_of,
                                      .found = tell};
    wf_tier_walk(&walk, &listing, context);
}
