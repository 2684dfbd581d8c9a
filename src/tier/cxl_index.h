/* SPDX-License-Identifier: Apache-2.0
 *
 * What the CXL tier knows in memory of its blocks: from a key to a place.
 *
 * An entry takes 112 bytes and its share of the hash table 4 to 8; checksums of parts are read
 * where they lie.  The table grows a bucket at a time (W. Litwin, "Linear hashing", VLDB 1980), so
 * that no insert ever waits for all to be rehashed.  Entries of an extent form a list, which goes
 * when the extent does.
 *
 * Memory is reserved for all that the medium can hold and touched as it is used.
 */
#ifndef WF_TIER_CXL_INDEX_H
#define WF_TIER_CXL_INDEX_H

#include <assert.h>

#include "tier/tier.h"

#define WF_CXL_NONE UINT32_MAX
#define WF_CXL_FORMATS_MAX 65536u

struct wf_cxl_item {
    uint8_t key[32];
    uint8_t parent[32];
    uint64_t bytes;
    uint64_t sequence;
    uint32_t format : 24; /* number of its digest */
    uint32_t plain_quality : 8;
    uint32_t depth;
    uint32_t part_bytes;
    uint32_t extent;
    uint32_t granule; /* in it, where the block begins */
    uint32_t hash_next;
    uint32_t list_next, list_previous;
    uint32_t plain_bytes, plain_part_bytes;
};
static_assert(sizeof(struct wf_cxl_item) == 120, "metadata budget");

struct wf_cxl_index {
    struct wf_cxl_item *items;
    uint32_t *buckets;
    uint32_t *heads;        /* of each extent's list */
    uint8_t (*formats)[32]; /* digests, in the order in which they came */
    uint64_t seed;          /* of the hash, so that nobody can aim keys at one bucket */
    uint32_t items_max, items_used, spare, count;
    uint32_t bucket_count, bucket_low; /* in use; largest power of two ≤ bucket_count */
    uint32_t extents, formats_count;
};

enum weft_status wf_cxl_index_init(struct wf_cxl_index *index, uint64_t items_max,
                                   uint32_t extents);
void wf_cxl_index_fini(struct wf_cxl_index *index);

/* WF_CXL_NONE when it is not there. */
uint32_t wf_cxl_index_find(const struct wf_cxl_index *index, const uint8_t key[32]);

/* Of a key that is there already, find() has either.  WF_CXL_NONE: no room (for an item, or for a
 * new format). */
uint32_t wf_cxl_index_insert(struct wf_cxl_index *index, const struct wf_tier_block *block,
                             uint64_t sequence, uint32_t extent, uint32_t granule);
void wf_cxl_index_remove(struct wf_cxl_index *index, uint32_t item);
void wf_cxl_index_block(const struct wf_cxl_index *index, uint32_t item, struct wf_tier_block *out);

/* Every block, a parent before its children. */
void wf_cxl_index_each(const struct wf_cxl_index *index,
                       void (*found)(void *context, const struct wf_tier_block *block),
                       void *context);

#endif
