/* SPDX-License-Identifier: Apache-2.0 */
#include "base/table.h"

#include <string.h>
#include <xxhash.h>

#include "base/reserve.h"

#define BUCKETS_FIRST 1024u

enum weft_status wf_table_init(struct wf_table *table, const struct wf_table_items *items,
                               uint64_t seed)
{
    uint64_t buckets = items->max < BUCKETS_FIRST ? BUCKETS_FIRST : items->max;
    *table = (struct wf_table){
        .items = *items,
        .seed = seed,
        .bucket_bytes = buckets * sizeof(uint32_t),
        .bucket_count = BUCKETS_FIRST,
        .bucket_low = BUCKETS_FIRST,
    };
    table->buckets = wf_reserve(table->bucket_bytes, "a hash table", "ask for fewer blocks");
    if (!table->buckets)
        return WEFT_E_NO_MEMORY;
    memset(table->buckets, 0xff, BUCKETS_FIRST * sizeof(uint32_t));
    return WEFT_OK;
}

void wf_table_fini(struct wf_table *table)
{
    wf_unreserve(table->buckets, table->bucket_bytes);
    table->buckets = NULL;
}

static const uint8_t *key_of(const struct wf_table *table, uint32_t item)
{
    return (const uint8_t *)table->items.first + item * table->items.bytes +
           table->items.key_offset;
}

static uint32_t *next_of(const struct wf_table *table, uint32_t item)
{
    return (uint32_t *)(void *)((char *)table->items.first + item * table->items.bytes +
                                table->items.next_offset);
}

static uint32_t *bucket_of(const struct wf_table *table, const uint8_t key[32])
{
    uint64_t hash = XXH3_64bits_withSeed(key, 32, table->seed);
    uint64_t at = hash & (2ull * table->bucket_low - 1);
    if (at >= table->bucket_count)
        at = hash & (table->bucket_low - 1);
    return &table->buckets[at];
}

void wf_table_expect(struct wf_table *table, uint64_t items)
{
    uint32_t count = items < table->items.max ? (uint32_t)items : table->items.max;
    if (table->count || count <= table->bucket_count)
        return;
    table->bucket_count = count;
    while (2ull * table->bucket_low <= count)
        table->bucket_low *= 2;
    memset(table->buckets, 0xff, count * sizeof(uint32_t));
}

void wf_table_prefetch(const struct wf_table *table, const uint8_t key[32])
{
    __builtin_prefetch(bucket_of(table, key), 1);
}

uint32_t wf_table_find(const struct wf_table *table, const uint8_t key[32])
{
    uint32_t item = *bucket_of(table, key);
    while (item != WF_TABLE_NONE && memcmp(key_of(table, item), key, 32) != 0)
        item = *next_of(table, item);
    return item;
}

static void chain(struct wf_table *table, uint32_t item)
{
    uint32_t *bucket = bucket_of(table, key_of(table, item));
    *next_of(table, item) = *bucket;
    *bucket = item;
}

/* One more bucket, which takes its share of the one that it was part of. */
static void grow(struct wf_table *table)
{
    if (table->bucket_count >= table->items.max)
        return;
    if (table->bucket_count == 2 * table->bucket_low)
        table->bucket_low *= 2;
    uint32_t from = table->bucket_count - table->bucket_low;
    uint32_t item = table->buckets[from];
    table->buckets[from] = WF_TABLE_NONE;
    table->buckets[table->bucket_count++] = WF_TABLE_NONE;
    while (item != WF_TABLE_NONE) {
        uint32_t next = *next_of(table, item);
        chain(table, item);
        item = next;
    }
}

void wf_table_insert(struct wf_table *table, uint32_t item)
{
    chain(table, item);
    if (++table->count > table->bucket_count)
        grow(table);
}

void wf_table_remove(struct wf_table *table, uint32_t item)
{
    uint32_t *link = bucket_of(table, key_of(table, item));
    while (*link != item)
        link = next_of(table, *link);
    *link = *next_of(table, item);
    table->count--;
}
