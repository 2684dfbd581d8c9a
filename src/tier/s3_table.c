/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/s3_table.h"

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

enum weft_status wf_s3_table_init(struct wf_s3_table *index, uint64_t items_max, uint32_t slots)
{
    memset(index, 0, sizeof *index);
    index->items_max = items_max < UINT32_MAX / 2 ? (uint32_t)items_max : UINT32_MAX / 2;
    if (index->items_max < BUCKETS_FIRST)
        index->items_max = BUCKETS_FIRST;
    index->slots = slots;
    index->spare = WF_S3_NONE;
    index->bucket_count = index->bucket_low = BUCKETS_FIRST;
    if (getrandom(&index->seed, sizeof index->seed, 0) != sizeof index->seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    index->items = reserve_memory((uint64_t)index->items_max * sizeof *index->items, "the index");
    index->buckets = reserve_memory((uint64_t)index->items_max * sizeof(uint32_t), "the index");
    index->formats = reserve_memory((uint64_t)WF_S3_FORMATS_MAX * 32, "formats");
    index->heads = wf_calloc(slots, sizeof *index->heads, "lists of slots");
    if (!index->items || !index->buckets || !index->formats || !index->heads) {
        wf_s3_table_fini(index);
        return WEFT_E_NO_MEMORY;
    }
    memset(index->heads, 0xff, slots * sizeof *index->heads);
    memset(index->buckets, 0xff, BUCKETS_FIRST * sizeof(uint32_t));
    return WEFT_OK;
}

void wf_s3_table_fini(struct wf_s3_table *index)
{
    if (index->items)
        munmap(index->items, (uint64_t)index->items_max * sizeof *index->items);
    if (index->buckets)
        munmap(index->buckets, (uint64_t)index->items_max * sizeof(uint32_t));
    if (index->formats)
        munmap(index->formats, (uint64_t)WF_S3_FORMATS_MAX * 32);
    free(index->heads);
    memset(index, 0, sizeof *index);
}

static uint32_t *bucket_of(const struct wf_s3_table *index, const uint8_t key[32])
{
    uint64_t hash = XXH3_64bits_withSeed(key, 32, index->seed);
    uint64_t at = hash & (2ull * index->bucket_low - 1);
    if (at >= index->bucket_count)
        at = hash & (index->bucket_low - 1);
    return &index->buckets[at];
}

uint32_t wf_s3_table_find(const struct wf_s3_table *index, const uint8_t key[32])
{
    uint32_t at = *bucket_of(index, key);
    while (at != WF_S3_NONE && memcmp(index->items[at].key, key, 32) != 0)
        at = index->items[at].hash_next;
    return at;
}

/* One more bucket, which takes its share of the one that it was part of. */
static void grow(struct wf_s3_table *index)
{
    if (index->bucket_count >= index->items_max)
        return;
    if (index->bucket_count == 2 * index->bucket_low)
        index->bucket_low *= 2;
    uint32_t from = index->bucket_count - index->bucket_low;
    uint32_t at = index->buckets[from];
    index->buckets[from] = WF_S3_NONE;
    index->buckets[index->bucket_count++] = WF_S3_NONE;
    while (at != WF_S3_NONE) {
        uint32_t next = index->items[at].hash_next;
        uint32_t *bucket = bucket_of(index, index->items[at].key);
        index->items[at].hash_next = *bucket;
        *bucket = at;
        at = next;
    }
}

static uint32_t format_number(struct wf_s3_table *index, const uint8_t format[32])
{
    for (uint32_t i = index->formats_count; i-- > 0;)
        if (!memcmp(index->formats[i], format, 32))
            return i;
    if (index->formats_count == WF_S3_FORMATS_MAX)
        return WF_S3_NONE;
    memcpy(index->formats[index->formats_count], format, 32);
    return index->formats_count++;
}

static void list_add(struct wf_s3_table *index, uint32_t at, uint32_t slot)
{
    struct wf_s3_item *item = &index->items[at];
    item->slot = slot;
    item->list_previous = WF_S3_NONE;
    item->list_next = index->heads[slot];
    if (item->list_next != WF_S3_NONE)
        index->items[item->list_next].list_previous = at;
    index->heads[slot] = at;
}

static void list_remove(struct wf_s3_table *index, uint32_t at)
{
    const struct wf_s3_item *item = &index->items[at];
    if (item->list_previous != WF_S3_NONE)
        index->items[item->list_previous].list_next = item->list_next;
    else
        index->heads[item->slot] = item->list_next;
    if (item->list_next != WF_S3_NONE)
        index->items[item->list_next].list_previous = item->list_previous;
}

uint32_t wf_s3_table_insert(struct wf_s3_table *index, const struct wf_tier_block *block,
                            uint64_t sequence, uint32_t slot, uint32_t offset)
{
    uint32_t format = format_number(index, block->format);
    uint32_t at = index->spare;
    if (format == WF_S3_NONE || (at == WF_S3_NONE && index->items_used == index->items_max))
        return WF_S3_NONE;
    if (at == WF_S3_NONE)
        at = index->items_used++;
    else
        index->spare = index->items[at].hash_next;
    struct wf_s3_item *item = &index->items[at];
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
    list_add(index, at, slot);
    uint32_t *bucket = bucket_of(index, block->key);
    item->hash_next = *bucket;
    *bucket = at;
    if (++index->count > index->bucket_count)
        grow(index);
    return at;
}

void wf_s3_table_remove(struct wf_s3_table *index, uint32_t at)
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

void wf_s3_table_move(struct wf_s3_table *index, uint32_t at, uint32_t slot, uint32_t offset)
{
    list_remove(index, at);
    list_add(index, at, slot);
    index->items[at].offset = offset;
}

void wf_s3_table_block(const struct wf_s3_table *index, uint32_t at, struct wf_tier_block *out)
{
    const struct wf_s3_item *item = &index->items[at];
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
void wf_s3_table_each(const struct wf_s3_table *index,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context)
{
    static const uint8_t none[32];
    if (!index->items_used)
        return;
    uint32_t *stack = wf_calloc(index->items_used, sizeof *stack, "the walk over a tier");
    uint8_t *told = wf_calloc(index->items_used, 1, "the walk over a tier");
    for (uint32_t i = 0; stack && told && i < index->items_used; i++) {
        uint32_t depth = 0, at = index->items[i].bytes ? i : WF_S3_NONE;
        while (at != WF_S3_NONE && !told[at]) {
            told[at] = 1;
            stack[depth++] = at;
            const uint8_t *parent = index->items[at].parent;
            at = memcmp(parent, none, 32) != 0 ? wf_s3_table_find(index, parent) : WF_S3_NONE;
        }
        while (depth > 0) {
            struct wf_tier_block block;
            wf_s3_table_block(index, stack[--depth], &block);
            found(context, &block);
        }
    }
    free(told);
    free(stack);
}
