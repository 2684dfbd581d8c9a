/* SPDX-License-Identifier: Apache-2.0
 *
 * From a 32-byte key to the number of an item in an array of the caller's.
 *
 * A hash table that grows a bucket at a time (W. Litwin, "Linear hashing", VLDB 1980), so that no
 * insert ever waits for all to be rehashed.  Items of a bucket are chained through a field of their
 * own; a bucket takes 4 bytes, and there is at most one for each item.  The hash is seeded, so that
 * nobody can aim keys at one bucket.  One thread.
 */
#ifndef WF_BASE_TABLE_H
#define WF_BASE_TABLE_H

#include <stddef.h>

#include "base/status.h"

#define WF_TABLE_NONE UINT32_MAX

/* Where the table finds what it needs in the caller's array. */
struct wf_table_items {
    void *first; /* borrowed; must not move */
    uint32_t max;
    size_t bytes;       /* of an item */
    size_t key_offset;  /* uint8_t [32] */
    size_t next_offset; /* uint32_t: the table's while the item is in, the caller's otherwise */
};

struct wf_table {
    struct wf_table_items items;
    uint32_t *buckets;
    uint64_t seed;
    uint64_t bucket_bytes; /* reserved */
    uint32_t count;
    uint32_t bucket_count, bucket_low; /* in use; largest power of two below or equal to that */
};

/* WEFT_E_NO_MEMORY. */
enum weft_status wf_table_init(struct wf_table *table, const struct wf_table_items *items,
                               uint64_t seed);
void wf_table_fini(struct wf_table *table);

/* Have buckets for so many items at once; nothing may be in it yet. */
void wf_table_expect(struct wf_table *table, uint64_t items);

/* Touch what a find or insert of the key will want, ahead of time. */
void wf_table_prefetch(const struct wf_table *table, const uint8_t key[32]);

/* WF_TABLE_NONE when it is not there. */
uint32_t wf_table_find(const struct wf_table *table, const uint8_t key[32]);

/* The item's key is written.  Of items with one key find() has any. */
void wf_table_insert(struct wf_table *table, uint32_t item);

/* The item is in. */
void wf_table_remove(struct wf_table *table, uint32_t item);

#endif
