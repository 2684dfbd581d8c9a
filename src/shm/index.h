/* SPDX-License-Identifier: Apache-2.0
 *
 * The index of a domain: from a 32-byte key to the block that has it.
 *
 * One thread, the node's owner, writes.  Readers in other processes look up and pin without a lock,
 * a system call or a message:
 *
 *     reader                                        owner, to evict slot s
 *     ------                                        ----------------------
 *     find s; w = load(s.word), w is COMMITTED      store(s.word, EVICTING)             [seq_cst]
 *     compare all 32 bytes of the key               for every client: load(high_water)  [seq_cst]
 *     cas(entry, 0 → w.generation, s)  [seq_cst]      for every entry: load(entry)      [seq_cst]
 *     load(s.word) == w ?              [seq_cst]    none names s: remove it, word = FREE,
 * generation + 1 yes: held.   no: entry = 0, miss            else: store(s.word, COMMITTED)
 *
 * The reader stores, then loads; the owner stores, then loads; all four are sequentially
 * consistent, so at least one of the two sees the other's store: either the owner finds the pin, or
 * the reader finds the word changed.  test/model/pin_model.c checks every interleaving of this,
 * docs/LOCKING.md tells it in full.
 *
 * The key comparison before the pin may race with the owner's reuse of the slot.  It does not
 * matter: reuse changes the generation, and the second load of the word compares that.
 */
#ifndef WF_SHM_INDEX_H
#define WF_SHM_INDEX_H

#include "base/status.h"
#include "shm/far.h"
#include "shm/layout.h"

/* A mapped index segment, from either side. */
struct wf_index {
    struct wf_index_header *header;
    struct wf_desc *desc;
    struct wf_bucket *buckets;
    uint32_t slots_max;
    uint64_t bucket_count;
    uint64_t pool_bytes;
    struct wf_far far;
    struct wf_tier_speed *speeds; /* [WF_FAR_TIERS] */
    _Atomic uint32_t *lossy;      /* layout.h */
};

/* Bytes of the segment for so many slots, and so many blocks below DRAM (0: none). */
uint64_t wf_index_bytes(uint32_t slots_max, uint32_t far_blocks_max);

/* Owner side: lay out a fresh, zeroed mapping, and take the owner mutex for the calling thread. */
struct wf_index_shape {
    uint32_t slots_max, far_blocks_max;
    uint64_t pool_bytes, epoch;
    uint32_t domain;
};
enum weft_status wf_index_format(void *memory, uint64_t bytes, const struct wf_index_shape *shape,
                                 struct wf_index *out);

/* Owner side, at a clean end: readers stop believing in it from here on. */
void wf_index_retire(struct wf_index *index);

/* Reader side: check a mapping of `bytes` that came from outside, and remember where things are. */
enum weft_status wf_index_attach(void *memory, uint64_t bytes, struct wf_index *out);

/* Does the node that owns this index still run?  One load; see layout.h about the robust mutex. */
static inline bool wf_index_alive(const struct wf_index *index)
{
    const pthread_mutex_t *owner =
        (const pthread_mutex_t *)(const void *)((const char *)index->header + WF_OWNER_OFFSET);
    /* FUTEX_TID_MASK, FUTEX_OWNER_DIED: the kernel's contract for robust futexes (futex(2)). */
    int word = __atomic_load_n(&owner->__data.__lock, __ATOMIC_SEQ_CST);
    return (word & 0x3fffffff) != 0 && (word & 0x40000000) == 0;
}

/* --------------------------------------------------------------------------------- reader side */

/* A block as a reader found it; only good together with a pin and a second look at the word. */
struct wf_found {
    uint32_t slot;
    uint64_t word;
};

/* Find a committed block by its whole key.  What the owner is just asking about most often stays:
 * it is looked at again, at first for a few microseconds, as long as an owner takes that runs, and
 * then with naps, up to some 200 ms, as one may take that the system has to run again. */
bool wf_index_find(const struct wf_index *index, const uint8_t key[32], struct wf_found *out);

/* Are the first `granules` of a block there that is held, and may be on its way from below?
 * WEFT_PENDING: not yet, but *out_progress of them.  WEFT_MISS: they will not come. */
enum weft_status wf_index_arrived(const struct wf_index *index, uint32_t slot, uint32_t generation,
                                  uint32_t granules, uint32_t *out_progress);

/* The longest prefix of a chain that is in DRAM, by binary search: presence is monotone along a
 * chain, because a parent outlives its children (invariant 2). */
size_t wf_index_match(const struct wf_index *index, const uint8_t *keys, size_t count);

/* The longest prefix that is in DRAM or below, when `near` of it are known to be in DRAM: monotone
 * for the same reason, in the tiers together. */
size_t wf_index_match_far(const struct wf_index *index, const uint8_t *keys, size_t count,
                          size_t near);

/* The same keys one by one, when not all blocks may be as they were put: how many of the first
 * `present` are there without a gap, and the worst quality among them. */
size_t wf_index_quality(const struct wf_index *index, const uint8_t *keys, size_t present,
                        enum weft_quality *out_worst);

/* ---------------------------------------------------------------------------------- owner side */

/* Find a committed block; what is being evicted is none.  It does not wait for itself. */
bool wf_index_find_own(const struct wf_index *index, const uint8_t key[32], struct wf_found *out);

/* From here on readers look at each block's quality. */
static inline void wf_index_lossy_set(struct wf_index *index)
{
    /* Release: before the block that makes it so is published. */
    atomic_store_explicit(index->lossy, 1, memory_order_release);
}

/* Publish `slot` under its key.  The descriptor is complete and its word is COMMITTED already.
 * False when the neighbourhood of its bucket is full, which a load of 4/5 makes as good as
 * impossible. */
bool wf_index_insert(struct wf_index *index, uint32_t slot);
void wf_index_remove(struct wf_index *index, uint32_t slot);

void wf_desc_key_write(struct wf_desc *desc, const uint8_t key[32]);
void wf_desc_key_read(const struct wf_desc *desc, uint8_t key[32]);

#endif
