/* SPDX-License-Identifier: Apache-2.0
 *
 * The space of a domain's pool: which range belongs to which slot.
 *
 * Two-level segregated fit (M. Masmano et al., "TLSF: a new dynamic memory allocator for real-time
 * systems", ECRTS 2004), in O(1) a call, with its bookkeeping outside the managed memory: pool
 * memory is shared and is never trusted to hold pointers.  Ranges are counted in granules of 4 KiB
 * and form one list in address order, so that neighbours coalesce.
 *
 * A free range is *backed* (its memory counts against the node's budget and may hold pages) or
 * *unbacked* (it holds none).  The two never coalesce; wf_arena_back() turns one into the other,
 * wf_arena_trim() back.
 *
 * Node side, owner thread only.  Nothing here survives a crash, and nothing needs to.
 */
#ifndef WF_SHM_ARENA_H
#define WF_SHM_ARENA_H

#include "base/status.h"
#include "shm/layout.h"

/* What the node knows of a slot besides its descriptor.  Together with the descriptor (64), its
 * share of a bucket (12) and the policy's entry (16 for LRU) this makes at most 128 bytes a block.
 */
struct wf_slot {
    uint32_t first, count; /* range in granules; count 0: the slot has no range */
    uint32_t address_previous, address_next;
    uint32_t previous,
        next;       /* free: list of its size; reserved: its client's; committed: siblings */
    uint32_t child; /* committed: first child */
    uint32_t holds; /* sessions at this block and reserved children: what forbids eviction */
    uint32_t owner; /* reserved: the client */
};
static_assert(sizeof(struct wf_slot) == 36, "metadata budget");

#define WF_ARENA_FL 32
#define WF_ARENA_SL 16

struct wf_arena_bins {
    uint32_t fl_map;
    uint16_t sl_map[WF_ARENA_FL];
    uint32_t head[WF_ARENA_FL][WF_ARENA_SL];
    uint64_t granules;
};

struct wf_arena {
    struct wf_slot *slots;
    uint32_t slots_max;
    _Atomic uint32_t slots_used; /* slots from here on have never been used; it only grows */
    uint32_t spare;              /* head of the list of slots without a range */
    uint32_t first;              /* slot with the lowest range: the address list starts here */
    uint64_t granules;
    struct wf_arena_bins backed, unbacked;
    uint8_t *kind; /* bit set: this slot's free range is backed; one bit a slot */
};

/* One unbacked range of all `granules`.  `slots` must be zeroed and is borrowed. */
enum weft_status wf_arena_init(struct wf_arena *arena, struct wf_slot *slots, uint32_t slots_max,
                               uint64_t granules);
void wf_arena_fini(struct wf_arena *arena);

/* Any thread: who was told of a slot, by the thread that uses the arena, finds it below that. */
static inline uint32_t wf_arena_slots_used(const struct wf_arena *arena)
{
    return atomic_load_explicit(&arena->slots_used, memory_order_relaxed);
}

/* Is there a slot to name one more range with? */
static inline bool wf_arena_has_slot(const struct wf_arena *arena)
{
    return arena->spare != WF_SLOT_NONE || wf_arena_slots_used(arena) < arena->slots_max;
}

/* A slot with a range of `granules`, from backed memory; WF_SLOT_NONE when none fits.  When no slot
 * is left to name what remains of a larger range, up to as much again may come along. */
uint32_t wf_arena_alloc(struct wf_arena *arena, uint32_t granules);

/* Give a slot's range back (as backed), joined with its free neighbours; returns the slot that has
 * the free range then.  The slot itself may become spare. */
uint32_t wf_arena_free(struct wf_arena *arena, uint32_t slot);

/* Where a free range is now that frees since may have joined to its neighbours. */
uint32_t wf_arena_joined(const struct wf_arena *arena, uint32_t slot);

/* Turn up to `wanted` unbacked granules in one piece, at least `least`, into backed free space.
 * Returns how many, from granule *first on; 0 when there is no such piece, or no slot to cut it
 * with. */
uint32_t wf_arena_back(struct wf_arena *arena, uint32_t least, uint32_t wanted, uint32_t *first);

/* Turn backed free space into unbacked until `granules` are done or none is left, calling `punch`
 * for each piece.  Returns how many. */
uint64_t wf_arena_trim(struct wf_arena *arena, uint64_t granules,
                       void (*punch)(void *context, uint64_t first, uint64_t count), void *context);

/* The largest backed free range, as a lower bound that is exact to 1/16. */
uint64_t wf_arena_largest(const struct wf_arena *arena);

/* Every invariant of the structure; asserts.  For tests and debug builds. */
void wf_arena_verify(const struct wf_arena *arena, bool (*is_free)(void *context, uint32_t slot),
                     void *context);

#endif
