/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/cxl_index.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <xxhash.h>

#include "sys/memory.h"

#define BUCKETS_FIRST 1024u

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

enum weft_status wf_cxl_index_init(struct wf_cxl_index *index, uint64_t items_max, uint32_t extents)
{
    memset(index, 0, sizeof *index);
    index->items_max = items_max < UINT32_MAX / 2 ? (uint32_t)items_max : UINT32_MAX / 2;
    if (index->items_max < BUCKETS_FIRST)
        index->items_max = BUCKETS_FIRST;
    index->extents = extents;
    index->spare = WF_CXL_NONE;
    index->bucket_count = index->bucket_low = BUCKETS_FIRST;
    if (getrandom(&index->seed, sizeof index->seed, 0) != sizeof index->seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    index->items = reserve_memory((uint64_t)index->items_max * sizeof *index->items, "the index");
    index->buckets = reserve_memory((uint64_t)index->items_max * sizeof(uint32_t), "the index");
    index->formats = reserve_memory((uint64_t)WF_CXL_FORMATS_MAX * 32, "formats");
    index->heads = wf_calloc(extents, sizeof *index->heads, "a tier's lists of extents");
    if (!index->items || !index->buckets || !index->formats || !index->heads) {
        wf_cxl_index_fini(index);
        return WEFT_E_NO_MEMORY;
    }
    memset(index->heads, 0xff, extents * sizeof *index->heads);
    memset(index->buckets, 0xff, BUCKETS_FIRST * sizeof(uint32_t));
    return WEFT_OK;
}

void wf_cxl_index_fini(struct wf_cxl_index *index)
{
    if (index->items)
        munmap(index->items, (uint64_t)index->items_max * sizeof *index->items);
    if (index->buckets)
        munmap(index->buckets, (uint64_t)index->items_max * sizeof(uint32_t));
    if (index->formats)
        munmap(index->formats, (uint64_t)WF_CXL_FORMATS_MAX * 32);
    free(index->heads);
    memset(index, 0, sizeof *index);
}

static uint32_t *bucket_of(const struct wf_cxl_index *index, const uint8_t key[32])
{
    uint64_t hash = XXH3_64bits_withSeed(key, 32, index->seed);
    uint64_t at = hash & (2ull * index->bucket_low - 1);
    if (at >= index->bucket_count)
        at = hash & (index->bucket_low - 1);
    return &index->buckets[at];
}

uint32_t wf_cxl_index_find(const struct wf_cxl_index *index, const uint8_t key[32])
{
    uint32_t at = *bucket_of(index, key);
    while (at != WF_CXL_NONE && memcmp(index->items[at].key, key, 32) != 0)
        at = index->items[at].hash_next;
    return at;
}

/* One more bucket, which takes its share of the one that it was part of. */
static void grow(struct wf_cxl_index *index)
{
    if (index->bucket_count >= index->items_max)
        return;
    if (index->bucket_count == 2 * index->bucket_low)
        index->bucket_low *= 2;
    uint32_t from = index->bucket_count - index->bucket_low;
    uint32_t at = index->buckets[from];
    index->buckets[from] = WF_CXL_NONE;
    index->buckets[index->bucket_count++] = WF_CXL_NONE;
    while (at != WF_CXL_NONE) {
        uint32_t next = index->items[at].hash_next;
        uint32_t *bucket = bucket_of(index, index->items[at].key);
        index->items[at].hash_next = *bucket;
        *bucket = at;
        at = next;
    }
}

static uint32_t format_number(struct wf_cxl_index *index, const uint8_t format[32])
{
    for (uint32_t i = index->formats_count; i-- > 0;)
        if (!memcmp(index->formats[i], format, 32))
            return i;
    if (index->formats_count == WF_CXL_FORMATS_MAX)
        return WF_CXL_NONE;
    memcpy(index->formats[index->formats_count], format, 32);
    return index->formats_count++;
}

static void list_add(struct wf_cxl_index *index, uint32_t at, uint32_t extent)
{
    struct wf_cxl_item *item = &index->items[at];
    item->extent = extent;
    item->list_previous = WF_CXL_NONE;
    item->list_next = index->heads[extent];
    if (item->list_next != WF_CXL_NONE)
        index->items[item->list_next].list_previous = at;
    index->heads[extent] = at;
}

static void list_remove(struct wf_cxl_index *index, uint32_t at)
{
    const struct wf_cxl_item *item = &index->items[at];
    if (item->list_previous != WF_CXL_NONE)
        index->items[item->list_previous].list_next = item->list_next;
    else
        index->heads[item->extent] = item->list_next;
    if (item->list_next != WF_CXL_NONE)
        index->items[item->list_next].list_previous = item->list_previous;
}

uint32_t wf_cxl_index_insert(struct wf_cxl_index *index, const struct wf_tier_block *block,
                             uint64_t sequence, uint32_t extent, uint32_t granule)
{
    uint32_t format = format_number(index, block->format);
    uint32_t at = index->spare;
    if (format == WF_CXL_NONE || (at == WF_CXL_NONE && index->items_used == index->items_max))
        return WF_CXL_NONE;
    if (at == WF_CXL_NONE)
        at = index->items_used++;
    else
        index->spare = index->items[at].hash_next;
    struct wf_cxl_item *item = &index->items[at];
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
    item->granule = granule;
    list_add(index, at, extent);
    uint32_t *bucket = bucket_of(index, block->key);
    item->hash_next = *bucket;
    *bucket = at;
    if (++index->count > index->bucket_count)
        grow(index);
    return at;
}

void wf_cxl_index_remove(struct wf_cxl_index *index, uint32_t at)
{
    uint32_t *link = bucket_of(index, index->items[at].key);
    while (*link != at)
        link = &index->items[*link].hash_next;
    *link = index->items[at].hash_next;
    list_remove(index, at);
    index->items[at].bytes = 0; /* an item without payload is a spare one */
    index->items[at].hash_next = index->spare;
    index->spare = at;
    index->count--;
}

void wf_cxl_index_block(const struct wf_cxl_index *index, uint32_t at, struct wf_tier_block *out)
{
    const struct wf_cxl_item *item = &index->items[at];
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

/* Ancestors that were not told of yet go onto a stack and come off it root first.  Each item is
 * marked when it is stacked, so that parents that form a ring end the walk too. */
void wf_cxl_index_each(const struct wf_cxl_index *index,
                       void (*found)(void *context, const struct wf_tier_block *block),
                       void *context)
{
    static const uint8_t none[32];
    if (!index->items_used)
        return;
    uint32_t *stack = wf_calloc(index->items_used, sizeof *stack, "the walk over a tier");
    uint8_t *told = wf_calloc(index->items_used, 1, "the walk over a tier");
    for (uint32_t i = 0; stack && told && i < index->items_used; i++) {
        uint32_t depth = 0, at = index->items[i].bytes ? i : WF_CXL_NONE;
        while (at != WF_CXL_NONE && !told[at]) {
            told[at] = 1;
            stack[depth++] = at;
            const uint8_t *parent = index->items[at].parent;
            at = memcmp(parent, none, 32) != 0 ? wf_cxl_index_find(index, parent) : WF_CXL_NONE;
        }
        while (depth > 0) {
            struct wf_tier_block block;
            wf_cxl_index_block(index, stack[--depth], &block);
            found(context, &block);
        }
    }
    free(told);
    free(stack);
}
