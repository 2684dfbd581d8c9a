/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/nvme_index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <xxhash.h>

#include "sys/memory.h"

#define BUCKETS_FIRST 1024u
#define FORMAT_SLOTS (2u * WF_NVME_FORMATS_MAX)

static void *reserve_memory(uint64_t bytes, const char *what)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        (void)wf_fail(WEFT_E_NO_MEMORY,
                      "no address space of %llu bytes for %s; give the tier a smaller capacity",
                      (unsigned long long)bytes, what);
        return NULL;
    }
    return memory;
}

static uint64_t items_bytes(const struct wf_nvme_index *index)
{
    return (uint64_t)index->items_max * sizeof *index->items;
}

enum weft_status wf_nvme_index_init(struct wf_nvme_index *index, uint64_t items_max)
{
    memset(index, 0, sizeof *index);
    index->items_max = items_max < UINT32_MAX / 2 ? (uint32_t)items_max : UINT32_MAX / 2;
    if (index->items_max < BUCKETS_FIRST)
        index->items_max = BUCKETS_FIRST;
    index->spare = WF_NVME_NONE;
    index->bucket_count = index->bucket_low = BUCKETS_FIRST;
    if (getrandom(&index->seed, sizeof index->seed, 0) != sizeof index->seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    index->items = reserve_memory(items_bytes(index), "the index");
    index->parents = reserve_memory((uint64_t)index->items_max * 32, "the index");
    index->buckets = reserve_memory((uint64_t)index->items_max * sizeof(uint32_t), "the index");
    index->formats = reserve_memory((uint64_t)WF_NVME_FORMATS_MAX * 32, "formats");
    index->format_slots = reserve_memory(FORMAT_SLOTS * sizeof(uint32_t), "formats");
    if (!index->items || !index->parents || !index->buckets || !index->formats ||
        !index->format_slots) {
        wf_nvme_index_fini(index);
        return WEFT_E_NO_MEMORY;
    }
    wf_advise_huge(index->items, items_bytes(index));
    wf_advise_huge(index->buckets, (uint64_t)index->items_max * sizeof(uint32_t));
    memset(index->buckets, 0xff, BUCKETS_FIRST * sizeof(uint32_t));
    return WEFT_OK;
}

void wf_nvme_index_drop_parents(struct wf_nvme_index *index)
{
    if (index->parents)
        munmap(index->parents, (uint64_t)index->items_max * 32);
    index->parents = NULL;
}

void wf_nvme_index_fini(struct wf_nvme_index *index)
{
    if (index->items)
        munmap(index->items, items_bytes(index));
    if (index->buckets)
        munmap(index->buckets, (uint64_t)index->items_max * sizeof(uint32_t));
    if (index->formats)
        munmap(index->formats, (uint64_t)WF_NVME_FORMATS_MAX * 32);
    if (index->format_slots)
        munmap(index->format_slots, FORMAT_SLOTS * sizeof(uint32_t));
    wf_nvme_index_drop_parents(index);
    memset(index, 0, sizeof *index);
}

void wf_nvme_index_expect(struct wf_nvme_index *index, uint64_t items)
{
    uint32_t count = items < index->items_max ? (uint32_t)items : index->items_max;
    if (index->count || count <= index->bucket_count)
        return;
    index->bucket_count = count;
    while (2ull * index->bucket_low <= count)
        index->bucket_low *= 2;
    memset(index->buckets, 0xff, count * sizeof(uint32_t));
}

static uint32_t *bucket_of(const struct wf_nvme_index *index, const uint8_t key[32])
{
    uint64_t hash = XXH3_64bits_withSeed(key, 32, index->seed);
    uint64_t at = hash & (2ull * index->bucket_low - 1);
    if (at >= index->bucket_count)
        at = hash & (index->bucket_low - 1);
    return &index->buckets[at];
}

uint32_t wf_nvme_index_find(const struct wf_nvme_index *index, const uint8_t key[32])
{
    uint32_t at = *bucket_of(index, key);
    while (at != WF_NVME_NONE && memcmp(index->items[at].key, key, 32) != 0)
        at = index->items[at].hash_next;
    return at;
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

void wf_nvme_index_prefetch(const struct wf_nvme_index *index, const uint8_t key[32])
{
    __builtin_prefetch(bucket_of(index, key), 1);
}

/* One more bucket, which takes its share of the one that it was part of. */
static void grow(struct wf_nvme_index *index)
{
    if (index->bucket_count >= index->items_max)
        return;
    if (index->bucket_count == 2 * index->bucket_low)
        index->bucket_low *= 2;
    uint32_t from = index->bucket_count - index->bucket_low;
    uint32_t at = index->buckets[from];
    index->buckets[from] = WF_NVME_NONE;
    index->buckets[index->bucket_count++] = WF_NVME_NONE;
    while (at != WF_NVME_NONE) {
        uint32_t next = index->items[at].hash_next;
        uint32_t *bucket = bucket_of(index, index->items[at].key);
        index->items[at].hash_next = *bucket;
        *bucket = at;
        at = next;
    }
}

static uint32_t format_number(struct wf_nvme_index *index, const uint8_t format[32])
{
    uint64_t slot = XXH3_64bits_withSeed(format, 32, index->seed) % FORMAT_SLOTS;
    for (; index->format_slots[slot]; slot = (slot + 1) % FORMAT_SLOTS)
        if (!memcmp(index->formats[index->format_slots[slot] - 1], format, 32))
            return index->format_slots[slot] - 1;
    if (index->formats_count == WF_NVME_FORMATS_MAX)
        return WF_NVME_NONE;
    memcpy(index->formats[index->formats_count], format, 32);
    index->format_slots[slot] = index->formats_count + 1;
    return index->formats_count++;
}

uint32_t wf_nvme_index_insert(struct wf_nvme_index *index, const struct wf_tier_block *block,
                              uint32_t segment, uint32_t page)
{
    uint32_t format = format_number(index, block->format);
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
    item->segment = segment;
    item->page = (uint16_t)page;
    uint32_t *bucket = bucket_of(index, block->key);
    item->hash_next = *bucket;
    *bucket = at;
    if (++index->count > index->bucket_count)
        grow(index);
    return at;
}

void wf_nvme_index_remove(struct wf_nvme_index *index, uint32_t at)
{
    uint32_t *link = bucket_of(index, index->items[at].key);
    while (*link != at)
        link = &index->items[*link].hash_next;
    *link = index->items[at].hash_next;
    index->items[at].bytes = 0;
    index->items[at].hash_next = index->spare;
    index->spare = at;
    index->count--;
}

void wf_nvme_index_block(const struct wf_nvme_index *index, uint32_t at, struct wf_tier_block *out)
{
    const struct wf_nvme_item *item = &index->items[at];
    memcpy(out->key, item->key, 32);
    memset(out->parent, 0, 32);
    memcpy(out->format, index->formats[item->format], 32);
    out->depth = item->depth;
    out->part_bytes = item->part_bytes;
    out->bytes = item->bytes;
}

/* Ancestors that were not told of yet go onto a stack and come off it root first.  Each item is
 * marked when it is stacked, so that parents that form a ring end the walk too. */
void wf_nvme_index_each(const struct wf_nvme_index *index, const uint8_t (*parents)[32],
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context)
{
    static const uint8_t none[32];
    if (!index->items_used)
        return;
    uint32_t *stack = wf_calloc(index->items_used, sizeof *stack, "the walk over a tier");
    uint8_t *told = wf_calloc(index->items_used, 1, "the walk over a tier");
    for (uint32_t i = 0; stack && told && i < index->items_used; i++) {
        uint32_t depth = 0, at = index->items[i].bytes ? i : WF_NVME_NONE;
        while (at != WF_NVME_NONE && !told[at]) {
            told[at] = 1;
            stack[depth++] = at;
            at = memcmp(parents[at], none, 32) != 0 ? wf_nvme_index_find(index, parents[at])
                                                    : WF_NVME_NONE;
        }
        while (depth > 0) {
            struct wf_tier_block block;
            wf_nvme_index_block(index, stack[--depth], &block);
            memcpy(block.parent, parents[stack[depth]], 32);
            found(context, &block);
        }
    }
    free(told);
    free(stack);
}
