/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies in the bucket of the object store tier, below its prefix.
 *
 *     owner                       who uses this prefix, and since when (text; see s3_open.c)
 *     p/NUMBER-TAG                a pack: some blocks, uploaded in one piece and never changed
 *     i/NUMBER-TAG                an index: the footers of many packs, gathered
 *
 * NUMBER and TAG are 16 hexadecimal digits each.  Numbers rise; of two packs that have one block,
 * the higher number counts.  A tag is random, so that no name is ever used twice, not even by two
 * nodes that share a prefix by mistake.
 *
 *     a pack
 *     0        +----------------------------------------------------------------------------+
 *              | struct wf_s3_pack                                                          |
 *     64       +----------------------------------------------------------------------------+
 *              | record | record | …                                                        |
 *              +----------------------------------------------------------------------------+
 *              | struct wf_s3_entry [count]: what is where                                  |
 *     end-64   +----------------------------------------------------------------------------+
 *              | struct wf_s3_footer                                                        |
 *     end      +----------------------------------------------------------------------------+
 *
 *     a record: a block
 *              +----------------------------+---------------------------+-------------------+
 *              | struct wf_s3_part, payload | struct wf_s3_part, payload | …                |
 *              +----------------------------+---------------------------+-------------------+
 *
 * Every part says itself what it is, whole key and all: any range of parts is one ranged GET that
 * needs nothing else to be verified, and no checksum has to be kept in memory.
 *
 *     an index
 *     0        +----------------------------------------------------------------------------+
 *              | struct wf_s3_index                                                         |
 *     64       +----------------------------------------------------------------------------+
 *              | struct wf_s3_footer, struct wf_s3_entry [count]: a pack's | … [packs]      |
 *              +----------------------------------------------------------------------------+
 *
 * An index has nothing that the packs do not have: one that is lost, stale or wrong costs the time
 * to read the packs' own footers, and no block.  Its entries may be fewer than the pack's: what was
 * removed meanwhile is left out.
 *
 * A pack is there when its upload has ended, and an upload either ends whole or not at all; so a
 * crash leaves no half of anything but multipart uploads, which are aborted at the next open.
 *
 * All numbers are little-endian.  A checksum is XXH3-64 over the structure without its checksum,
 * then over what follows, seeded with that.
 */
#ifndef WF_TIER_S3_FORMAT_H
#define WF_TIER_S3_FORMAT_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "tier/tier.h"

#define WF_S3_VERSION 2u
#define WF_S3_PACK_MAGIC 0x314b434150464557ull   /* "WEFPACK1" */
#define WF_S3_FOOTER_MAGIC 0x31544f4f46464557ull /* "WEFFOOT1" */
#define WF_S3_INDEX_MAGIC 0x3158444e49464557ull  /* "WEFINDX1" */
#define WF_S3_PART_MAGIC 0x54524150u             /* "PART" */
#define WF_S3_PACK_MAX (128u << 20)              /* records of one pack */
#define WF_S3_ENTRIES_MAX 65536u                 /* of one pack */
#define WF_S3_NAME_MAX 40u                       /* "p/", two numbers, a dash, the end */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "written as it lies in memory");

struct wf_s3_part {
    uint64_t checksum; /* over the rest of this, then the payload */
    uint32_t magic;
    uint32_t part;
    uint32_t bytes; /* of this part's payload */
    uint32_t part_bytes;
    uint64_t block_bytes;
    uint8_t key[32];
};
static_assert(sizeof(struct wf_s3_part) == 64, "object format");

struct wf_s3_pack {
    uint64_t checksum;
    uint64_t magic;
    uint32_t version;
    uint32_t reserved;
    uint64_t number;
    uint64_t tag;
    uint64_t padding[3];
};
static_assert(sizeof(struct wf_s3_pack) == 64, "object format");

struct wf_s3_entry {
    uint8_t key[32];
    uint8_t parent[32];
    uint8_t format[32];
    uint64_t bytes;
    uint64_t offset; /* of the record in the pack */
    uint32_t depth;
    uint32_t part_bytes;
    uint64_t plain_bytes; /* of a payload that is a frame: what it decodes to; else 0 */
    uint32_t plain_part_bytes;
    uint32_t plain_quality;
};
static_assert(sizeof(struct wf_s3_entry) == 136, "object format");

struct wf_s3_footer {
    uint64_t checksum; /* over the rest of this, then the entries */
    uint64_t magic;
    uint32_t version;
    uint32_t count;
    uint64_t number;
    uint64_t tag;
    uint64_t object_bytes;
    uint64_t records_bytes; /* with the pack's head: entries start there */
    uint64_t padding;
};
static_assert(sizeof(struct wf_s3_footer) == 64, "object format");

struct wf_s3_index {
    uint64_t checksum;
    uint64_t magic;
    uint32_t version;
    uint32_t packs;
    uint64_t object_bytes;
    uint64_t padding[4];
};
static_assert(sizeof(struct wf_s3_index) == 64, "object format");

/* Bytes of a valid block's record, and of `count` whole parts of it but the last. */
static inline uint64_t wf_s3_record_bytes(const struct wf_tier_block *block)
{
    uint64_t parts = (block->bytes + block->part_bytes - 1) / block->part_bytes;
    return block->bytes + parts * sizeof(struct wf_s3_part);
}

static inline uint64_t wf_s3_part_at(const struct wf_tier_block *block, uint32_t part)
{
    return (uint64_t)part * (block->part_bytes + sizeof(struct wf_s3_part));
}

void wf_s3_part_seal(struct wf_s3_part *part, const struct wf_tier_block *block, uint32_t number,
                     const void *payload);
/* Is this the head of part `number` of `block`?  It bounds the payload that may be looked at. */
bool wf_s3_part_heads(const struct wf_s3_part *part, const struct wf_tier_block *block,
                      uint32_t number);
/* And its payload the one that was sealed? */
bool wf_s3_part_right(const struct wf_s3_part *part, const void *payload);

/* The block as a record: parts with their heads.  `record` has wf_s3_record_bytes of room. */
void wf_s3_record_write(uint8_t *record, const struct wf_tier_block *block, const void *payload);

void wf_s3_pack_seal(struct wf_s3_pack *pack, uint64_t number, uint64_t tag);

void wf_s3_footer_seal(struct wf_s3_footer *footer, const void *entries);
/* Is this a footer of pack NUMBER-TAG of that many bytes?  It bounds the entries. */
bool wf_s3_footer_heads(const struct wf_s3_footer *footer, uint64_t number, uint64_t tag,
                        uint64_t object_bytes);
bool wf_s3_footer_right(const struct wf_s3_footer *footer, const void *entries);
/* Does this entry describe a valid block that lies among the pack's records? */
bool wf_s3_entry_right(const struct wf_s3_entry *entry, const struct wf_s3_footer *footer);

void wf_s3_entry_of(struct wf_s3_entry *entry, const struct wf_tier_block *block, uint64_t offset);
void wf_s3_entry_block(const struct wf_s3_entry *entry, struct wf_tier_block *out);

/* A walk over an index of `bytes`; every footer and entry that comes out of it was verified, but
 * not against a pack.  `entries` lie at no multiple of anything: copy each before use. */
struct wf_s3_walk {
    const uint8_t *data;
    uint64_t bytes, at;
    uint32_t left;
    struct wf_s3_footer footer;
    const uint8_t *entries;
};
void wf_s3_index_seal(struct wf_s3_index *index, uint32_t packs, uint64_t object_bytes);
bool wf_s3_walk_begin(struct wf_s3_walk *walk, const void *data, uint64_t bytes);
bool wf_s3_walk_next(struct wf_s3_walk *walk);

/* "p/…" or "i/…" into `name` of WF_S3_NAME_MAX; and back. */
void wf_s3_name_write(char *name, char kind, uint64_t number, uint64_t tag);
bool wf_s3_name_read(const char *name, char kind, uint64_t *number, uint64_t *tag);

#endif
