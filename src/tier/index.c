/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/reserve.h"
#include "sys/memory.h"
#include "tier/walk.h"

#define ITEMS_MIN 1024u

static void *reserve_memory(uint64_t bytes, const char *what)
{
    return wf_reserve(bytes, what, "give the tier a smaller capacity");
}

static uint64_t items_bytes(const struct wf_tier_index *index)
{
    return (uint64_t)index->items_max * sizeof *index->items;
}

enum weft_status wf_tier_index_init(struct wf_tier_index *index, uint64_t items_max,
                                    uint32_t groups)
{
    memset(index, 0, sizeof *index);
    index->items_max = items_max < UINT32_MAX / 2 ? (uint32_t)items_max : UINT32_MAX / 2;
    if (index->items_max < ITEMS_MIN)
        index->items_max = ITEMS_MIN;
    index->groups = groups;
    index->spare = WF_TIER_NONE;
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    index->items = reserve_memory(items_bytes(index), "the index");
    index->formats = reserve_memory((uint64_t)WF_TIER_FORMATS_MAX * 32, "formats");
    index->heads = wf_calloc(groups, sizeof *index->heads, "a tier's lists of blocks");
    struct wf_table_items items = {
        .first = index->items,
        .max = index->items_max,
        .bytes = sizeof *index->items,
        .key_offset = offsetof(struct wf_tier_item, key),
        .next_offset = offsetof(struct wf_tier_item, hash_next),
    };
    if (!index->items || !index->formats || !index->heads ||
        wf_table_init(&index->table, &items, seed) != WEFT_OK) {
        wf_tier_index_fini(index);
        return WEFT_E_NO_MEMORY;
    }
    memset(index->heads, 0xff, groups * sizeof *index->heads);
    return WEFT_OK;
}

void wf_tier_index_fini(struct wf_tier_index *index)
{
    wf_table_fini(&index->table);
    wf_unreserve(index->items, items_bytes(index));
    wf_unreserve(index->formats, (uint64_t)WF_TIER_FORMATS_MAX * 32);
    free(index->heads);
    memset(index, 0, sizeof *index);
}

uint32_t wf_tier_index_find(const struct wf_tier_index *index, const uint8_t key[32])
{
    return wf_table_find(&index->table, key);
}

static uint32_t format_number(struct wf_tier_index *index, const uint8_t format[32])
{
    for (uint32_t i = index->formats_count; i-- > 0;)
        if (!memcmp(index->formats[i], format, 32))
            return i;
    if (index->formats_count == WF_TIER_FORMATS_MAX)
        return WF_TIER_NONE;
    memcpy(index->formats[index->formats_count], format, 32);
    return index->formats_count++;
}

static void list_add(struct wf_tier_index *index, uint32_t at, uint32_t group)
{
    struct wf_tier_item *item = &index->items[at];
    item->group = group;
    item->list_previous = WF_TIER_NONE;
    item->list_next = index->heads[group];
    if (item->list_next != WF_TIER_NONE)
        index->items[item->list_next].list_previous = at;
    index->heads[group] = at;
}

static void list_remove(struct wf_tier_index *index, uint32_t at)
{
    const struct wf_tier_item *item = &index->items[at];
    if (item->list_previous != WF_TIER_NONE)
        index->items[item->list_previous].list_next = item->list_next;
    else
        index->heads[item->group] = item->list_next;
    if (item->list_next != WF_TIER_NONE)
        index->items[item->list_next].list_previous = item->list_previous;
}

uint32_t wf_tier_index_insert(struct wf_tier_index *index, const struct wf_tier_block *block,
                              uint64_t sequence, uint32_t group, uint32_t offset)
{
    uint32_t format = format_number(index, block->format);
    uint32_t at = index->spare;
    if (format == WF_TIER_NONE || (at == WF_TIER_NONE && index->items_used == index->items_max))
        return WF_TIER_NONE;
    if (at == WF_TIER_NONE)
        at = index->items_used++;
    else
        index->spare = index->items[at].hash_next;
    struct wf_tier_item *item = &index->items[at];
    memcpy(item->key, block->key, 32);
    memcpy(item->parent, block->parent, 32);
    item->bytes = block->bytes;
    item->sequence = sequence;
    item->format = format & 0xffffff;
    item->depth = block->depth;
    item->part_bytes = block->part_bytes;
    item->plain_bytes = (uint32_t)block->plain_bytes;
    item->plain_part_bytes = block->plain_part_bytes;
    item->plain_quality = block->plain_quality & UINT8_MAX;
    item->offset = offset;
    list_add(index, at, group);
    wf_table_insert(&index->table, at);
    return at;
}

void wf_tier_index_remove(struct wf_tier_index *index, uint32_t at)
{
    wf_table_remove(&index->table, at);
    list_remove(index, at);
    index->items[at].bytes = 0; /* an item without payload is a spare one */
    index->items[at].hash_next = index->spare;
    index->spare = at;
}

void wf_tier_index_move(struct wf_tier_index *index, uint32_t at, uint32_t group, uint32_t offset)
{
    list_remove(index, at);
    list_add(index, at, group);
    index->items[at].offset = offset;
}

void wf_tier_index_block(const struct wf_tier_index *index, uint32_t at, struct wf_tier_block *out)
{
    const struct wf_tier_item *item = &index->items[at];
    memcpy(out->key, item->key, 32);
    memcpy(out->parent, item->parent, 32);
    memcpy(out->format, index->formats[item->format], 32);
    out->depth = item->depth;
    out->part_bytes = item->part_bytes;
    out->bytes = item->bytes;
    out->plain_bytes = item->plain_bytes;
    out->plain_part_bytes = item->plain_part_bytes;
    out->plain_quality = item->plain_quality;
    out->stored_bytes = 0;
}

/* Who hears of them. */
struct listener {
    void (*found)(void *context, const struct wf_tier_block *block);
    void *context;
};

static bool is_block(const void *index, uint32_t at)
{
    return ((const struct wf_tier_index *)index)->items[at].bytes != 0;
}

static uint32_t parent_of(const void *index, uint32_t at)
{
    static const uint8_t none[32];
    const uint8_t *parent = ((const struct wf_tier_index *)index)->items[at].parent;
    return memcmp(parent, none, 32) != 0 ? wf_tier_index_find(index, parent) : WF_TIER_NONE;
}

static void tell(const void *index, uint32_t at, void *context)
{
    const struct listener *listener = context;
    struct wf_tier_block block;
    wf_tier_index_block(index, at, &block);
    listener->found(listener->context, &block);
}

void wf_tier_index_each(const struct wf_tier_index *index,
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context)
{
    struct listener listener = {.found = found, .context = context};
    const struct wf_tier_walk walk = {.items = index->items_used,
                                      .is_block = is_block,
                                      .parent = parent_of,
                                      .found = tell};
    wf_tier_walk(&walk, index, &listener);
}
