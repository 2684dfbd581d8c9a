/* SPDX-License-Identifier: Apache-2.0
 *
 * What a tier knows in memory of its blocks: from a key to a place.
 *
 * A place is a group (an extent of CXL memory, a pack in a bucket) and an offset in it, in units of
 * the tier's.  Blocks of a group form a list, which goes when the group does, or is walked when it
 * is compacted.  An item takes 120 bytes and 4 of the hash table; checksums of parts are not here
 * but where the payload is.
 *
 * Memory is reserved for all that the medium can hold and touched as it is used.  One thread.
 */
#ifndef WF_TIER_INDEX_H
#define WF_TIER_INDEX_H

#include <assert.h>

#include "base/table.h"
#include "tier/tier.h"

#define WF_TIER_NONE WF_TABLE_NONE
#define WF_TIER_FORMATS_MAX 65536u

struct wf_tier_item {
    uint8_t key[32];
    uint8_t parent[32];
    uint64_t bytes; /* 0: a spare one */
    uint64_t sequence;
    uint32_t format : 24; /* number of its digest */
    uint32_t plain_quality : 8;
    uint32_t depth;
    uint32_t part_bytes;
    uint32_t group;
    uint32_t offset;    /* in it, where the block begins */
    uint32_t hash_next; /* the table's; of a spare one, the next of these */
    uint32_t list_next, list_previous;
    uint32_t plain_bytes, plain_part_bytes;
};
static_assert(sizeof(struct wf_tier_item) == 120, "metadata budget");

struct wf_tier_index {
    struct wf_tier_item *items; /* NULL: not made */
    uint32_t *heads;            /* of each group's list */
    uint8_t (*formats)[32];     /* digests, in the order in which they came */
    struct wf_table table;      /* from keys to items */
    uint32_t items_max, items_used, spare;
    uint32_t groups, formats_count;
};

/* WEFT_E_NO_MEMORY. */
enum weft_status wf_tier_index_init(struct wf_tier_index *index, uint64_t items_max,
                                    uint32_t groups);
void wf_tier_index_fini(struct wf_tier_index *index);

/* WF_TIER_NONE when it is not there. */
uint32_t wf_tier_index_find(const struct wf_tier_index *index, const uint8_t key[32]);

/* Of a key that is there already, find() has either.  WF_TIER_NONE: no room (for an item, or for a
 * new format). */
uint32_t wf_tier_index_insert(struct wf_tier_index *index, const struct wf_tier_block *block,
                              uint64_t sequence, uint32_t group, uint32_t offset);
void wf_tier_index_remove(struct wf_tier_index *index, uint32_t item);
void wf_tier_index_move(struct wf_tier_index *index, uint32_t item, uint32_t group,
                        uint32_t offset);
void wf_tier_index_block(const struct wf_tier_index *index, uint32_t item,
                         struct wf_tier_block *out);

/* Every block, a parent before its children. */
void wf_tier_index_each(const struct wf_tier_index *index,
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context);

#endif
