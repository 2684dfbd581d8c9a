/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies below DRAM: which block is on which tiers, what extends what, and who goes next.
 *
 * The directory is the node's memory of its tiers.  It does no I/O: it is told what was written,
 * lost, read and dropped, and says through its callbacks what must follow.  One thread.
 *
 * A block has an *entry* when it is on a tier, or when it is in DRAM alone and something that
 * extends it is on a tier (a *bridge*).  Invariants (wf_directory_verify asserts them):
 *
 *   - Every entry is on a tier, or in DRAM; its parent, if it has one, has an entry.  So what can
 * be matched below has its whole chain (invariant 2 of the product).
 *   - An entry that loses both goes at once, and all that extends it, children first.
 *   - A block that is archived stays on the tiers that it is on until the archive goes, or its
 * tier.
 *
 * All calls but the dropping of subtrees are O(1).  Memory: 80 bytes an entry, and 4 to 8 of its
 * hash table; reserved for `blocks_max` and touched as it is used.
 */
#ifndef WF_CORE_DIRECTORY_H
#define WF_CORE_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_DIRECTORY_NONE UINT32_MAX
#define WF_DIRECTORY_TIERS_MAX 8u

struct wf_directory;

/* An entry as callers see it; a copy. */
struct wf_directory_block {
    uint8_t key[32];
    uint32_t parent; /* entry, or WF_DIRECTORY_NONE: first in its chain */
    uint32_t bytes;  /* payload */
    uint32_t depth;
    uint16_t domain;
    uint8_t tiers;     /* bit t: on tier t */
    bool in_dram;      /* as far as the directory was told */
    uint32_t archives; /* how many archives it belongs to */
};

struct wf_directory_env {
    void *context;
    /* The nearest tier (lowest number) that has the block is `tier` now; -1: it is on none any
     * more.  Called on every change, and for parents before their children when blocks appear, for
     * children before their parents when they go. */
    void (*shown)(void *context, uint16_t domain, const uint8_t key[32], int tier);
    /* The block must leave that tier: something that it extends is gone, or it was removed.  The
     * directory has forgotten it. */
    void (*dropped)(void *context, uint16_t domain, const uint8_t key[32], uint32_t bytes,
                    unsigned tier);
};

/* `seed` is of the hash, so that nobody can aim keys at one bucket. */
enum weft_status wf_directory_create(uint32_t blocks_max, uint64_t seed,
                                     const struct wf_directory_env *env, struct wf_directory **out);
void wf_directory_destroy(struct wf_directory *directory);

/* WF_DIRECTORY_NONE when there is none.  An entry's number is good until it is dropped. */
uint32_t wf_directory_find(const struct wf_directory *directory, const uint8_t key[32]);
void wf_directory_read(const struct wf_directory *directory, uint32_t entry,
                       struct wf_directory_block *out);

/* The block is on `tier` from now on.  `parent` NULL: first in its chain.  A parent without an
 * entry gets a bridge when `parent_in_dram` (then parent_bytes is its payload), and is
 * WEFT_E_PARENT otherwise.  `in_dram`: the block itself is in DRAM as well.  WEFT_E_LIMIT:
 * blocks_max. */
struct wf_directory_add {
    uint8_t key[32], parent[32];
    bool has_parent, in_dram, parent_in_dram;
    uint16_t domain;
    uint32_t bytes, parent_bytes, depth;
    unsigned tier;
};
enum weft_status wf_directory_add(struct wf_directory *directory,
                                  const struct wf_directory_add *add, uint32_t *out_entry);

/* The block is no longer on `tier` (evicted there, rotten, removed).  May drop the subtree. */
void wf_directory_lose(struct wf_directory *directory, uint32_t entry, unsigned tier);

/* The whole tier is gone: lose() for all that it had. */
void wf_directory_lose_tier(struct wf_directory *directory, unsigned tier);

/* The block came into DRAM (`promoted`: read from below, so that DRAM's copy is the fresher use),
 * or left it: then it becomes the most recently used of its tier, or goes when it is on none. */
void wf_directory_enter_dram(struct wf_directory *directory, uint32_t entry, bool promoted);
void wf_directory_leave_dram(struct wf_directory *directory, uint32_t entry);

/* Drop an entry and all that extends it, from all tiers.  DRAM is the caller's. */
void wf_directory_remove(struct wf_directory *directory, uint32_t entry);

/* A use from below. */
void wf_directory_touch(struct wf_directory *directory, uint32_t entry);

/* While held (being read, moved or written) an entry is no victim.  Counts. */
void wf_directory_hold(struct wf_directory *directory, uint32_t entry);
void wf_directory_unhold(struct wf_directory *directory, uint32_t entry);

/* Who leaves `tier` next, WF_DIRECTORY_NONE when nobody may.  First what was promoted and is in
 * DRAM still, the longest ago first (it costs nothing but a later write); then the least recently
 * used that nothing on this tier or further down extends.  Never what is archived or held.  `skip`
 * domains whose bit is... only entries of `domain` when it is not UINT16_MAX. */
uint32_t wf_directory_victim(const struct wf_directory *directory, unsigned tier, uint16_t domain);

/* `tip` and all that it extends belong to one archive more, or less. */
void wf_directory_archive(struct wf_directory *directory, uint32_t tip, bool add);

/* From tip to root: up to `max` entries, tip first; returns how many. */
uint32_t wf_directory_chain(const struct wf_directory *directory, uint32_t tip, uint32_t *out,
                            uint32_t max);

/* The next entry on `tier` at or after *cursor, which moves on; WF_DIRECTORY_NONE at the end, and
 * the cursor is 0 then. */
uint32_t wf_directory_next(const struct wf_directory *directory, unsigned tier, uint32_t *cursor);

struct wf_directory_sum {
    uint64_t blocks, bytes, archived_blocks, archived_bytes;
};
/* domain UINT16_MAX: all. */
void wf_directory_sum(const struct wf_directory *directory, unsigned tier, uint16_t domain,
                      struct wf_directory_sum *out);
uint32_t wf_directory_entries(const struct wf_directory *directory);

/* Every invariant; asserts.  For tests. */
void wf_directory_verify(const struct wf_directory *directory);

#endif
