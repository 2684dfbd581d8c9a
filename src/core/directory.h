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
 *   - Every entry is on a tier, or in DRAM; so is its parent, if it has one.  So what can be
 *     matched below has its whole chain (invariant 2 of the product).  A bridge's own parent is in
 *     DRAM as long as the bridge is, and linked when the bridge is written below.
 *   - An entry that loses both goes at once, and all that extends it, children first.  A bridge
 *     that nothing extends any more goes without a word.
 *   - No victim is archived.  An archive is there while its tip is: when that goes (removed, or
 *     lost with its tier), the rest of its chain belongs to one archive less.
 *
 * Each copy has a quality, and a domain asks for one: a copy that is worse is kept in mind as any
 * other, so that nothing is written over it unseen, but is not shown to those who look for blocks.
 *
 * Nearest means the lowest tier number.  All calls are O(1), but for those that say otherwise and
 * the dropping of subtrees.  Memory: 88 bytes an entry, and 4 of its hash table; reserved for
 * `blocks_max` and touched as it is used.
 */
#ifndef WF_CORE_DIRECTORY_H
#define WF_CORE_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_DIRECTORY_NONE UINT32_MAX
#define WF_DIRECTORY_TIERS_MAX 8u
#define WF_DIRECTORY_DOMAINS_MAX 64u
#define WF_DIRECTORY_DOMAINS_ALL UINT16_MAX
#define WF_DIRECTORY_DEPTH_MAX 0xffffffu
#define WF_DIRECTORY_HOLDS_MAX UINT16_MAX
#define WF_DIRECTORY_ARCHIVES_MAX UINT16_MAX /* that there may be */

struct wf_directory;

/* An entry as callers see it; a copy. */
struct wf_directory_block {
    uint8_t key[32];
    uint32_t parent; /* entry, or WF_DIRECTORY_NONE: first in its chain, or a bridge's, not known */
    uint32_t bytes;  /* payload */
    uint32_t depth;
    uint16_t domain;
    uint8_t tiers;      /* bit t: on tier t */
    uint8_t fit;        /* those of them whose copy is as exact as its domain asks */
    uint8_t good;       /* and of those the ones that can be read: wf_directory_unread() */
    uint16_t qualities; /* wf_directory_quality() */
    uint8_t leads;      /* the same of what extends it, of the youngest */
    bool in_dram;       /* as far as the directory was told */
    uint32_t archives;  /* how many archives it belongs to */
    uint32_t holds;
    float chance, rate; /* of another use, as it was when it was judged last; 0: nothing is known */
    float weight;       /* of waiting for it */
    uint32_t idle_ds;   /* since then, or since its last use here: tenths of a second */
};

/* A block that must leave a tier. */
struct wf_directory_dropped {
    const uint8_t *key, *parent; /* [32]; parent NULL: it begins a chain */
    uint16_t domain;
    uint32_t bytes, depth;
    unsigned tier;
    uint8_t tiers;             /* that have it, this one among them */
    enum weft_quality quality; /* of its copy there */
};

/* On which tiers a block is, and was, and how exact: as wf_directory_block has it. */
struct wf_directory_moved {
    const uint8_t *key, *parent; /* [32]; parent NULL: it begins a chain, or goes */
    uint16_t domain;
    uint32_t bytes, depth;
    uint8_t tiers, tiers_were;
    uint16_t qualities, qualities_were;
};

/* None may call the directory. */
struct wf_directory_env {
    void *context;
    /* The nearest tier that has the block as exact as its domain asks is `tier` now, and the worst
     * quality of such copies `quality`; -1: there is none any more.  Called on every change, and
     * for parents before their children when blocks appear, for children before their parents when
     * they go. */
    void (*shown)(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality);
    /* The block must leave that tier: something that it extends is gone, or it was removed.  The
     * directory has forgotten it.  After shown(-1) of the same block, nearest tier first. */
    void (*dropped)(void *context, const struct wf_directory_dropped *block);
    /* Behind shown(), of every block that came to a tier or left one, shown or not.  NULL: nobody
     * wants to know. */
    void (*moved)(void *context, const struct wf_directory_moved *block);
};

/* `seed` is of the hash, so that nobody can aim keys at one bucket.  WEFT_E_INVALID: blocks_max is
 * 0 or UINT32_MAX; WEFT_E_NO_MEMORY. */
enum weft_status wf_directory_create(uint32_t blocks_max, uint64_t seed,
                                     const struct wf_directory_env *env, struct wf_directory **out);
void wf_directory_destroy(struct wf_directory *directory);

/* How exact blocks of a domain are to be: worse copies are there, and are not shown.  Before
 * anything is added; WEFT_LOSSLESS until it is said. */
void wf_directory_demand(struct wf_directory *directory, uint16_t domain,
                         enum weft_quality quality);

/* How exact the copy on a tier is that the block is on; never WEFT_QUALITY_DEFAULT. */
static inline enum weft_quality wf_directory_quality(const struct wf_directory_block *block,
                                                     unsigned tier)
{
    unsigned quality = block->qualities >> (2 * tier) & 3u;
    return quality > WEFT_LOSSLESS ? (enum weft_quality)quality : WEFT_LOSSLESS;
}

/* WF_DIRECTORY_NONE when there is none.  An entry's number is good until the entry goes; while it
 * is held, until the last unhold(). */
uint32_t wf_directory_find(const struct wf_directory *directory, const uint8_t key[32]);
void wf_directory_read(const struct wf_directory *directory, uint32_t entry,
                       struct wf_directory_block *out);

/* The block is on `tier` from now on, and is its most recently used.  To say it twice does no harm.
 * A parent without an entry gets a bridge when `parent_in_dram` (then parent_bytes is its payload);
 * of one that has an entry, neither is looked at.  `in_dram`: the block itself is in DRAM as well;
 * false is no news of an entry that is.
 *
 * WEFT_E_PARENT: no entry of the parent, and it is not in DRAM.  WEFT_E_LIMIT: blocks_max.
 * WEFT_E_INVALID: out of bounds, or it contradicts what is known of the block or its parent
 * (domain, size, depth, parent): a medium that is not to be believed.  Nothing has changed then. */
struct wf_directory_add {
    uint8_t key[32], parent[32];
    bool has_parent, in_dram, parent_in_dram; /* without a parent: first in its chain */
    uint16_t domain;                          /* < WF_DIRECTORY_DOMAINS_MAX */
    uint32_t bytes, parent_bytes;
    uint32_t depth; /* the parent's and 1; at most WF_DIRECTORY_DEPTH_MAX */
    unsigned tier;
    enum weft_quality quality; /* of the copy there; WEFT_QUALITY_DEFAULT is WEFT_LOSSLESS */
    float chance, rate;        /* 0: nothing is known */
    float weight;              /* 0: 1 */
};
enum weft_status wf_directory_add(struct wf_directory *directory,
                                  const struct wf_directory_add *add, uint32_t *out_entry);
/* What add() would say.  So nothing is written that could not be entered. */
enum weft_status wf_directory_would_add(const struct wf_directory *directory,
                                        const struct wf_directory_add *add);

/* The block is no longer on `tier` (evicted there, rotten, removed).  dropped() is not called for
 * that one copy; it is for all that goes with it.  Not being on it does no harm. */
void wf_directory_lose(struct wf_directory *directory, uint32_t entry, unsigned tier);

/* The whole tier is gone, and dropped() is not called for anything on it.  O(entries). */
void wf_directory_lose_tier(struct wf_directory *directory, unsigned tier);

/* The block came into DRAM (`promoted`: read from below, so that DRAM's copy is the fresher use),
 * or left it: then it becomes the most recently used of its tier, or goes when it is on none.  What
 * left before does not leave again. */
void wf_directory_enter_dram(struct wf_directory *directory, uint32_t entry, bool promoted);
void wf_directory_leave_dram(struct wf_directory *directory, uint32_t entry);

/* Whether its lossy copies are of no use now, as what they were stored by is not there.  They are
 * shown as before: it may be back.  What is added since is readable. */
void wf_directory_unread(struct wf_directory *directory, uint32_t entry, bool unread);

/* Drop an entry and all that extends it, from all tiers.  DRAM is the caller's. */
void wf_directory_remove(struct wf_directory *directory, uint32_t entry);

/* A use from below. */
void wf_directory_touch(struct wf_directory *directory, uint32_t entry);

/* What is expected of it from now on; no less than 0, and coarse: one part in a hundred, and of the
 * weight, which is from 1/32 to 16 (0: 1), its power of two. */
void wf_directory_judge(struct wf_directory *directory, uint32_t entry, float chance, float rate,
                        float weight);

/* The time, in tenths of a second from anywhere; it may wrap.  Until it is told again, it stands.
 */
void wf_directory_clock(struct wf_directory *directory, uint32_t now_ds);

/* While held (being read, moved or written) an entry is no victim.  Counts, to
 * WF_DIRECTORY_HOLDS_MAX.  An entry may go all the same, when its tier does: then nobody finds it
 * any more, its number stays its own until the last unhold(), and all that may be done with that
 * number is unhold() and read(), which says that it is on no tier and not in DRAM. */
void wf_directory_hold(struct wf_directory *directory, uint32_t entry);
void wf_directory_unhold(struct wf_directory *directory, uint32_t entry);

/* Who leaves `tier` next; WF_DIRECTORY_NONE when nobody may.  Only entries of `domain`, unless that
 * is WF_DIRECTORY_DOMAINS_ALL.  In this order:
 *
 *   1. what was promoted and is in DRAM still (it costs nothing but a later write), the least
 *      recently used first;
 *   2. the least recently used of those whose nearest tier this is;
 *   3. what has a copy on a nearer tier, in no order: what is wanted there is not read here.
 *
 * Never what is archived or held, or would lose its last place while something extends it.
 *
 * Least recently used is exact for what was touched, and nearly so for what could not go for a
 * while (it had children, was held or archived) and comes back among many others.  The search in
 * 3. is bounded: it may end with WF_DIRECTORY_NONE, and the next one goes on from there. */
uint32_t wf_directory_victim(struct wf_directory *directory, unsigned tier, uint16_t domain);

/* `tip` and all that it extends belong to one archive more, or less.  O(depth). */
void wf_directory_archive(struct wf_directory *directory, uint32_t tip, bool add);

/* From tip to root: up to `max` entries, tip first; returns how many.  O(max). */
uint32_t wf_directory_chain(const struct wf_directory *directory, uint32_t tip, uint32_t *out,
                            uint32_t max);

/* The next entry on `tier` at or after *cursor, which moves on; WF_DIRECTORY_NONE at the end, and
 * the cursor is 0 then.  A whole round is O(entries). */
uint32_t wf_directory_next(const struct wf_directory *directory, unsigned tier, uint32_t *cursor);

/* The next entry at or after *cursor that is on any of `tiers` (bits), of that domain.  It looks at
 * `looks` entries at most: WF_DIRECTORY_NONE with a cursor that is not 0 means that it may go on.
 */
uint32_t wf_directory_scan(const struct wf_directory *directory, uint8_t tiers, uint16_t domain,
                           uint32_t looks, uint32_t *cursor);

struct wf_directory_sum {
    uint64_t blocks, bytes, archived_blocks, archived_bytes;
};
/* Of `domain`, or of all (WF_DIRECTORY_DOMAINS_ALL). */
void wf_directory_sum(const struct wf_directory *directory, unsigned tier, uint16_t domain,
                      struct wf_directory_sum *out);
uint32_t wf_directory_entries(const struct wf_directory *directory);

/* Bytes of memory that it has touched so far: entries do not give theirs back, others reuse it. */
uint64_t wf_directory_memory(const struct wf_directory *directory);

/* Every invariant; asserts.  O(entries).  For tests. */
void wf_directory_verify(const struct wf_directory *directory);

#endif
