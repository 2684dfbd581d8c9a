/* SPDX-License-Identifier: Apache-2.0
 *
 * What the NVMe tier knows in memory of its blocks: from a key to a record.
 *
 * A block takes 60 bytes: an entry of 56 and a bucket of 4.  Parents are on the medium, in records
 * and footers, and in memory only from when the tier is opened until each() has told of them once;
 * checksums of parts are with the payload.
 *
 * Memory is reserved for all that the medium can hold and touched as it is used.
 */
#ifndef WF_TIER_NVME_INDEX_H
#define WF_TIER_NVME_INDEX_H

#include <assert.h>

#include "base/table.h"
#include "tier/nvme_format.h"
#include "tier/tier.h"

#define WF_NVME_NONE WF_TABLE_NONE
#define WF_NVME_FORMATS_MAX 65536u

struct wf_nvme_item {
    uint8_t key[32];
    uint32_t bytes; /* 0: a spare one */
    uint32_t part_bytes;
    uint32_t depth;
    uint32_t segment;
    uint32_t hash_next; /* the table's; of a spare one, the next of these */
    uint16_t page;      /* of the record in its segment */
    uint16_t format;    /* number of its wf_nvme_kind */
    uint32_t plain_bytes;
};
static_assert(sizeof(struct wf_nvme_item) == 60, "metadata budget");
static_assert(WF_NVME_SEGMENT_MAX / WF_NVME_PAGE <= UINT16_MAX, "a page's number fits an item");
static_assert(WF_NVME_FORMATS_MAX - 1 <= UINT16_MAX, "a format's number fits an item");
/* What a block takes in memory, all in. */
#define WF_NVME_ITEM_MEMORY (sizeof(struct wf_nvme_item) + sizeof(uint32_t))

/* What many blocks have in common. */
struct wf_nvme_kind {
    uint8_t format[32]; /* digest */
    uint32_t plain_part_bytes;
    uint32_t plain_quality;
};

struct wf_nvme_index {
    struct wf_nvme_item *items;
    uint8_t (*parents)[32];       /* of each item; NULL: they have been told of */
    struct wf_nvme_kind *formats; /* in the order in which they came */
    uint32_t *format_slots;       /* 1 + number, by their hash; 0: none */
    struct wf_table table;        /* from keys to items */
    uint32_t items_max, items_used, spare;
    uint32_t formats_count;
};

enum weft_status wf_nvme_index_init(struct wf_nvme_index *index, uint64_t items_max);
void wf_nvme_index_fini(struct wf_nvme_index *index);

/* Have buckets for so many at once; nothing may be in it yet. */
void wf_nvme_index_expect(struct wf_nvme_index *index, uint64_t items);

/* Touch what a find or insert of the key will want, ahead of time. */
void wf_nvme_index_prefetch(const struct wf_nvme_index *index, const uint8_t key[32]);

/* WF_NVME_NONE when it is not there. */
uint32_t wf_nvme_index_find(const struct wf_nvme_index *index, const uint8_t key[32]);

/* The same, of that record and no other. */
uint32_t wf_nvme_index_find_at(const struct wf_nvme_index *index, const uint8_t key[32],
                               uint32_t segment, uint32_t page);

/* The key must not be there.  WF_NVME_NONE: no room (for an item, or for a new format). */
uint32_t wf_nvme_index_insert(struct wf_nvme_index *index, const struct wf_tier_block *block,
                              uint32_t segment, uint32_t page);
void wf_nvme_index_remove(struct wf_nvme_index *index, uint32_t item);

/* All but the parent, which is zeros. */
void wf_nvme_index_block(const struct wf_nvme_index *index, uint32_t item,
                         struct wf_tier_block *out);

/* Every block, a parent before its children; parents[item] are theirs. */
void wf_nvme_index_each(const struct wf_nvme_index *index, const uint8_t (*parents)[32],
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context);
/* Nobody asks for them any more. */
void wf_nvme_index_drop_parents(struct wf_nvme_index *index);

#endif
