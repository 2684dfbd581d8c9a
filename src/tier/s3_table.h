/* SPDX-License-Identifier: Apache-2.0
 *
 * What the object store tier knows in memory of its blocks: from a key to a record in a pack.
 *
 * An entry takes 112 bytes and its share of the hash table 4 to 8; checksums of parts are not here
 * but with the payload in the bucket.  The table grows a bucket at a time (W. Litwin, "Linear
 * hashing", VLDB 1980), so that no insert ever waits for all to be rehashed.  Entries of a pack's
 * slot form a list, which is what compacting it walks.
 *
 * Memory is reserved for all that the tier may hold and touched as it is used.
 */
#ifndef WF_TIER_S3_TABLE_H
#define WF_TIER_S3_TABLE_H

#include <assert.h>

#include "tier/tier.h"

#define WF_S3_NONE UINT32_MAX
#define WF_S3_FORMATS_MAX 65536u

struct wf_s3_item {
    uint8_t key[32];
    uint8_t parent[32];
    uint64_t bytes;
    uint64_t sequence;
    uint32_t format : 24; /* number of its digest */
    uint32_t plain_quality : 8;
    uint32_t depth;
    uint32_t part_bytes;
    uint32_t slot;   /* its pack's */
    uint32_t offset; /* of the record in the pack */
    uint32_t hash_next;
    uint32_t list_next, list_previous;
    uint32_t plain_bytes, plain_part_bytes;
};
static_assert(sizeof(struct wf_s3_item) == 120, "metadata budget");

struct wf_s3_table {
    struct wf_s3_item *items;
    uint32_t *buckets;
    uint32_t *heads;        /* of each slot's list */
    uint8_t (*formats)[32]; /* digests, in the order in which they came */
    uint64_t seed;          /* of the hash, so that nobody can aim keys at one bucket */
    uint32_t items_max, items_used, spare, count;
    uint32_t bucket_count, bucket_low; /* in use; largest power of two ≤ bucket_count */
    uint32_t slots, formats_count;
};

enum weft_status wf_s3_table_init(struct wf_s3_table *index, uint64_t items_max, uint32_t slots);
void wf_s3_table_fini(struct wf_s3_table *index);

/* WF_S3_NONE when it is not there. */
uint32_t wf_s3_table_find(const struct wf_s3_table *index, const uint8_t key[32]);

/* The key must not be there.  WF_S3_NONE: no room (for an item, or for a new format). */
uint32_t wf_s3_table_insert(struct wf_s3_table *index, const struct wf_tier_block *block,
                            uint64_t sequence, uint32_t slot, uint32_t offset);
void wf_s3_table_remove(struct wf_s3_table *index, uint32_t item);
void wf_s3_table_move(struct wf_s3_table *index, uint32_t item, uint32_t slot, uint32_t offset);
void wf_s3_table_block(const struct wf_s3_table *index, uint32_t item, struct wf_tier_block *out);

/* Every block, a parent before its children. */
void wf_s3_table_each(const struct wf_s3_table *index,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context);

#endif
