/* SPDX-License-Identifier: Apache-2.0
 *
 * The shared-memory segments of a domain.
 *
 * Three kinds of segment pass between the node and a client, each a sealed memfd:
 *
 *   index   the node writes, clients map it read-only: who is where
 *   pool    the blocks' payload; clients write only into blocks that they reserved (`writes:
 * direct`), or map it read-only (`writes: copied`) pins    one a client, private to that client and
 * the node: what it holds, touched and counted
 *
 * Index segment:
 *
 *     0        +------------------------------------------------------------+
 *              | struct wf_index_header            (constant after start)   |
 *     2048     | owner: a robust mutex held by the node's owner thread      |
 *     3072     | struct wf_tier_speed [WF_FAR_TIERS]: what is below, how far|
 *     3584     | u32: 1 once a block was there that is not as it was put,   |
 *              | or is not to be found though others are that extend it     |
 *     4096     +------------------------------------------------------------+
 *              | struct wf_desc [slots_max]        64 bytes a block         |
 *              +------------------------------------------------------------+
 *              | struct wf_bucket [bucket_count]   64 bytes, 7 entries each |
 *              +------------------------------------------------------------+
 *              | struct wf_bucket [far_bucket_count]   what is below (far.h)|
 *              +------------------------------------------------------------+
 *
 * A slot is one contiguous range of the pool.  `desc.word` is the only field that a reader may
 * trust to be current, and everything else in the descriptor belongs to the generation that the
 * word names:
 *
 *     63            32 31                    8 7  6 5     4 3   0
 *    +----------------+-----------------------+----+---------+------+
 *    |   generation   |  depth (in the chain) | 0  | quality | state|
 *    +----------------+-----------------------+----+---------+------+
 *
 * `quality` is 0 for what is as it was put, and else the enum weft_quality that it was stored at
 * when it came from below.
 *
 * A bucket entry leads from a key to a slot:   tag (32 bits of the key) << 32 | (slot + 1);   0 is
 * empty. Keys are SHA-256 output, so their own bits are the hash; the tag only saves descriptor
 * reads, the comparison that counts is of all 32 bytes.
 *
 * Readers of any segment treat it as untrusted: every index is checked against the sizes that the
 * client itself got from the descriptor's file, never against what the segment says about itself.
 *
 * The node is single-writer.  After a crash the segments die with their last mapping; nothing here
 * is ever adopted by another node.  A client knows of the crash without asking: the kernel marks
 * the robust mutex.
 */
#ifndef WF_SHM_LAYOUT_H
#define WF_SHM_LAYOUT_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "weft/weft.h"

#define WF_INDEX_MAGIC 0x3158444954464557u /* "WEFTIDX1", little-endian */
#define WF_PINS_MAGIC 0x31534e4950544657u  /* "WFTPINS1" */
#define WF_LAYOUT_VERSION 3u

#define WF_PAGE 4096u
#define WF_GRANULE 4096u /* pool space is dealt out in these */
#define WF_SLOT_NONE UINT32_MAX
#define WF_DEPTH_MAX ((1u << 24) - 1)

enum wf_slot_state {
    WF_SLOT_FREE = 0,      /* free range of the pool, or no range at all */
    WF_SLOT_RESERVED = 1,  /* a client is filling it */
    WF_SLOT_COMMITTED = 2, /* the only state that a reader accepts */
    WF_SLOT_EVICTING =
        3, /* the node asks whether anyone holds it; goes back to COMMITTED or to FREE */
    WF_SLOT_DUPLICATE =
        4,            /* lost the race to commit this key; waits for its own reserved children */
    WF_SLOT_DEAD = 5, /* given back or condemned; waits for holders to let go */
};

struct wf_index_header {
    uint64_t magic;
    uint32_t version;
    uint32_t slots_max;
    uint64_t epoch; /* random at every start of the node */
    uint64_t bytes; /* of this segment */
    uint64_t desc_offset;
    uint64_t bucket_offset;
    uint64_t bucket_count;
    uint64_t pool_bytes;
    uint32_t granule_bytes;
    uint32_t domain;
    uint64_t far_offset, far_bucket_count; /* 0, 0: the node has no tiers below DRAM */
    uint64_t checksum;                     /* XXH3-64 of the fields above */
};

#define WF_OWNER_OFFSET 2048u
#define WF_SPEEDS_OFFSET 3072u
#define WF_LOSSY_OFFSET 3584u
#define WF_FAR_TIERS 8u

/* How a tier is reached, as measured; for the model of what a load will take. */
struct wf_tier_speed {
    _Atomic uint32_t kind; /* enum weft_tier; 0 (DRAM): no such tier */
    _Atomic uint32_t latency_us;
    _Atomic uint32_t mbps; /* 10^6 bytes a second; 0: not known */
    uint32_t reserved;
};
static_assert(WF_SPEEDS_OFFSET + WF_FAR_TIERS * sizeof(struct wf_tier_speed) <= WF_LOSSY_OFFSET,
              "");

struct wf_desc {
    _Atomic uint64_t word;
    _Atomic uint64_t key[4]; /* the 32 bytes as they are, in memory order */
    _Atomic uint64_t offset; /* in the pool */
    _Atomic uint32_t bytes;  /* payload; the range is this rounded up to granules */
    _Atomic uint32_t parent; /* slot, or WF_SLOT_NONE */
    /* COMMITTED: XXH3-64 of the payload; 0: not taken yet.  RESERVED by the node, because the block
     * is on its way from a tier below, or DEAD after that: how far it is, see wf_progress. */
    _Atomic uint64_t checksum;
};
static_assert(sizeof(struct wf_desc) == 64, "a descriptor is one cache line");

#define WF_BUCKET_ENTRIES 7
struct wf_bucket {
    _Atomic uint64_t entry[WF_BUCKET_ENTRIES];
    _Atomic uint64_t passed; /* entries that wanted to be here and lie in a later bucket */
};
static_assert(sizeof(struct wf_bucket) == 64, "a bucket is one cache line");

static inline uint64_t wf_word(uint32_t generation, uint32_t depth, enum wf_slot_state state)
{
    return (uint64_t)generation << 32 | (uint64_t)(depth & WF_DEPTH_MAX) << 8 | (uint64_t)state;
}
static inline uint32_t wf_word_generation(uint64_t word)
{
    return (uint32_t)(word >> 32);
}
static inline uint32_t wf_word_depth(uint64_t word)
{
    return (uint32_t)(word >> 8) & WF_DEPTH_MAX;
}
#define WF_WORD_STATE UINT64_C(0xf)
static inline enum wf_slot_state wf_word_state(uint64_t word)
{
    return (enum wf_slot_state)(word & WF_WORD_STATE);
}
/* Never WEFT_QUALITY_DEFAULT. */
static inline enum weft_quality wf_word_quality(uint64_t word)
{
    unsigned quality = (unsigned)(word >> 4) & 3u;
    return quality > WEFT_LOSSLESS ? (enum weft_quality)quality : WEFT_LOSSLESS;
}
static inline uint64_t wf_word_with_quality(uint64_t word, enum weft_quality quality)
{
    uint64_t bits = quality > WEFT_LOSSLESS ? (uint64_t)quality & 3u : 0;
    return (word & ~UINT64_C(0x30)) | bits << 4;
}

/* Progress of a block that is on its way: how many granules from its start have arrived and are
 * verified, in the low half of `desc.checksum`, which readers may sleep on (futex).  All of them,
 * or none any more, when the load has ended. */
#define WF_PROGRESS_ALL 0x7fffffffu
#define WF_PROGRESS_LOST 0x80000000u

static inline _Atomic uint32_t *wf_progress_word(struct wf_desc *desc)
{
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the low half comes first");
    return (_Atomic uint32_t *)(void *)&desc->checksum;
}

/* Pins segment:
 *
 *     0        +---------------------------------------------------------+
 *              | struct wf_pins_header: high water, counters             |
 *              | touched [WF_TOUCH_RING]: slots that were pinned lately  |
 *     entries  +---------------------------------------------------------+
 *              | entry [entries_max]: 0, or generation << 32 | slot + 1  |
 *              +---------------------------------------------------------+
 *
 * Entries below `node_first` are the client's to take; those from there on are placed by the node,
 * for blocks that it answered as EXISTS.  Clearing an entry, by storing 0, is the client's in both
 * parts.  A client can write nonsense here and harm its own pins alone. */
#define WF_TOUCH_RING 16384u

struct wf_pins_header {
    uint64_t magic;
    uint32_t version;
    uint32_t entries_max;
    uint32_t node_first;
    uint32_t reserved;
    uint64_t entries_offset;
    _Atomic uint32_t closed; /* the node no longer looks here: nothing new may be pinned */
    _Alignas(64) _Atomic uint32_t
        high_water; /* entries below node_first ever used: what a scan must look at */
    _Alignas(64) _Atomic uint64_t pins;         /* taken so far; also the head of the ring below */
    _Alignas(64) _Atomic uint64_t bytes_pinned; /* exact unless threads pin in the same instant */
    _Atomic uint64_t misses, matches;
    /* Blocks in all matches; those of them that were there; and those of these that were not in
     * DRAM, or behind one that was not. */
    _Atomic uint64_t asked, matched, matched_far;
    _Alignas(64) _Atomic uint32_t touched[WF_TOUCH_RING];
};

static inline uint64_t wf_pins_bytes(uint32_t entries_max)
{
    uint64_t header = (sizeof(struct wf_pins_header) + WF_PAGE - 1) / WF_PAGE * WF_PAGE;
    return header + ((uint64_t)entries_max * 8 + WF_PAGE - 1) / WF_PAGE * WF_PAGE;
}

static inline uint64_t wf_pin_entry(uint32_t slot, uint32_t generation)
{
    return (uint64_t)generation << 32 | (slot + 1);
}

#endif
