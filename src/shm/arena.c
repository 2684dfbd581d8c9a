/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/arena.h"

#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

/* Size classes: below 16 granules each size has its own; above, sixteen equal steps a power of two.
 */
static void class_of(uint32_t granules, uint32_t *fl, uint32_t *sl)
{
    if (granules < WF_ARENA_SL) {
        *fl = 0;
        *sl = granules;
        return;
    }
    uint32_t top = 31 - (uint32_t)__builtin_clz(granules);
    *fl = top - 3;
    *sl = (granules >> (top - 4)) & (WF_ARENA_SL - 1);
}

static bool is_backed(const struct wf_arena *arena, uint32_t slot)
{
    return arena->kind[slot / 8] >> (slot % 8) & 1;
}

static void set_backed(struct wf_arena *arena, uint32_t slot, bool backed)
{
    uint8_t bit = (uint8_t)(1u << (slot % 8));
    arena->kind[slot / 8] = (uint8_t)(backed ? arena->kind[slot / 8] | bit
                                             : arena->kind[slot / 8] & ~bit);
}

/* `owner` of a slot says what its range is, for coalescing: free ranges carry this. */
#define OWNER_FREE 0xfffffffeu

static struct wf_arena_bins *bins_of(struct wf_arena *arena, uint32_t slot)
{
    return is_backed(arena, slot) ? &arena->backed : &arena->unbacked;
}

static void bin_insert(struct wf_arena *arena, uint32_t slot)
{
    struct wf_arena_bins *bins = bins_of(arena, slot);
    struct wf_slot *s = &arena->slots[slot];
    uint32_t fl, sl;
    class_of(s->count, &fl, &sl);
    s->owner = OWNER_FREE;
    s->previous = WF_SLOT_NONE;
    s->next = bins->head[fl][sl];
    if (s->next != WF_SLOT_NONE)
        arena->slots[s->next].previous = slot;
    bins->head[fl][sl] = slot;
    bins->fl_map |= 1u << fl;
    bins->sl_map[fl] |= (uint16_t)(1u << sl);
    bins->granules += s->count;
}

static void bin_remove(struct wf_arena *arena, uint32_t slot)
{
    struct wf_arena_bins *bins = bins_of(arena, slot);
    struct wf_slot *s = &arena->slots[slot];
    uint32_t fl, sl;
    class_of(s->count, &fl, &sl);
    if (s->previous != WF_SLOT_NONE)
        arena->slots[s->previous].next = s->next;
    else
        bins->head[fl][sl] = s->next;
    if (s->next != WF_SLOT_NONE)
        arena->slots[s->next].previous = s->previous;
    if (bins->head[fl][sl] == WF_SLOT_NONE) {
        bins->sl_map[fl] &= (uint16_t) ~(1u << sl);
        if (!bins->sl_map[fl])
            bins->fl_map &= ~(1u << fl);
    }
    bins->granules -= s->count;
    s->owner = WF_SLOT_NONE;
}

/* A free range of at least `granules`: the first of a class whose every member fits, else a look
 * through the class that `granules` itself falls into, bounded. */
static uint32_t bin_find(const struct wf_arena *arena, const struct wf_arena_bins *bins,
                         uint32_t granules)
{
    uint32_t fl, sl;
    class_of(granules, &fl, &sl);
    uint32_t tries = 32;
    for (uint32_t s = bins->head[fl][sl]; s != WF_SLOT_NONE && tries--; s = arena->slots[s].next)
        if (arena->slots[s].count >= granules)
            return s;
    uint32_t map = sl + 1 < WF_ARENA_SL ? bins->sl_map[fl] & (0xffffu << (sl + 1)) : 0;
    if (!map) {
        uint32_t above = fl + 1 < WF_ARENA_FL ? bins->fl_map & (0xffffffffu << (fl + 1)) : 0;
        if (!above)
            return WF_SLOT_NONE;
        fl = (uint32_t)__builtin_ctz(above);
        map = bins->sl_map[fl];
    }
    return bins->head[fl][__builtin_ctz(map)];
}

static uint32_t spare_take(struct wf_arena *arena)
{
    uint32_t slot = arena->spare;
    if (slot != WF_SLOT_NONE)
        arena->spare = arena->slots[slot].next;
    else if (wf_arena_slots_used(arena) < arena->slots_max)
        slot = atomic_fetch_add_explicit(&arena->slots_used, 1, memory_order_relaxed);
    else
        return WF_SLOT_NONE;
    arena->slots[slot] = (struct wf_slot){
        .address_previous = WF_SLOT_NONE,
        .address_next = WF_SLOT_NONE,
        .previous = WF_SLOT_NONE,
        .next = WF_SLOT_NONE,
        .child = WF_SLOT_NONE,
        .owner = WF_SLOT_NONE,
    };
    return slot;
}

static void spare_give(struct wf_arena *arena, uint32_t slot)
{
    arena->slots[slot].count = 0;
    arena->slots[slot].owner = WF_SLOT_NONE;
    arena->slots[slot].next = arena->spare;
    arena->spare = slot;
}

enum weft_status wf_arena_init(struct wf_arena *arena, struct wf_slot *slots, uint32_t slots_max,
                               uint64_t granules)
{
    memset(arena, 0, sizeof *arena);
    if (granules == 0 || granules >= UINT32_MAX)
        return wf_fail(WEFT_E_INVALID, "a pool of %llu granules is outside 1 to 2^32 - 2",
                       (unsigned long long)granules);
    memset(arena->backed.head, 0xff, sizeof arena->backed.head);
    memset(arena->unbacked.head, 0xff, sizeof arena->unbacked.head);
    arena->kind = wf_calloc((size_t)slots_max / 8 + 1, 1, "the pool's bookkeeping");
    if (!arena->kind)
        return WEFT_E_NO_MEMORY;
    arena->slots = slots;
    arena->slots_max = slots_max;
    arena->spare = WF_SLOT_NONE;
    arena->granules = granules;
    arena->first = spare_take(arena);
    slots[arena->first].count = (uint32_t)granules;
    bin_insert(arena, arena->first);
    return WEFT_OK;
}

void wf_arena_fini(struct wf_arena *arena)
{
    free(arena->kind);
    arena->kind = NULL;
}

/* Is there a slot for what is left of `slot` when `count` granules are cut from it?  If not, the
 * range may still serve as a whole, as long as that wastes no more than it serves. */
static bool can_cut(const struct wf_arena *arena, uint32_t slot, uint32_t count)
{
    return wf_arena_has_slot(arena) || arena->slots[slot].count / 2 <= count;
}

/* Cut `slot` down to `count` granules; the rest becomes a free range of the same kind.  Without a
 * spare slot the range stays whole. */
static void split(struct wf_arena *arena, uint32_t slot, uint32_t count)
{
    struct wf_slot *s = &arena->slots[slot];
    if (s->count == count)
        return;
    uint32_t rest = spare_take(arena);
    if (rest == WF_SLOT_NONE)
        return;
    struct wf_slot *r = &arena->slots[rest];
    r->first = s->first + count;
    r->count = s->count - count;
    s->count = count;
    r->address_previous = slot;
    r->address_next = s->address_next;
    if (r->address_next != WF_SLOT_NONE)
        arena->slots[r->address_next].address_previous = rest;
    s->address_next = rest;
    set_backed(arena, rest, is_backed(arena, slot));
    bin_insert(arena, rest);
}

/* Join `slot`, which is in no bin, with free neighbours of its kind; returns the slot that has it
 * all. */
static uint32_t coalesce(struct wf_arena *arena, uint32_t slot)
{
    struct wf_slot *s = &arena->slots[slot];
    uint32_t next = s->address_next;
    if (next != WF_SLOT_NONE && arena->slots[next].owner == OWNER_FREE &&
        is_backed(arena, next) == is_backed(arena, slot)) {
        struct wf_slot *n = &arena->slots[next];
        bin_remove(arena, next);
        s->count += n->count;
        s->address_next = n->address_next;
        if (s->address_next != WF_SLOT_NONE)
            arena->slots[s->address_next].address_previous = slot;
        spare_give(arena, next);
    }
    uint32_t previous = s->address_previous;
    if (previous != WF_SLOT_NONE && arena->slots[previous].owner == OWNER_FREE &&
        is_backed(arena, previous) == is_backed(arena, slot)) {
        struct wf_slot *p = &arena->slots[previous];
        bin_remove(arena, previous);
        p->count += s->count;
        p->address_next = s->address_next;
        if (p->address_next != WF_SLOT_NONE)
            arena->slots[p->address_next].address_previous = previous;
        spare_give(arena, slot);
        slot = previous;
    }
    return slot;
}

uint32_t wf_arena_alloc(struct wf_arena *arena, uint32_t granules)
{
    uint32_t slot = bin_find(arena, &arena->backed, granules);
    if (slot == WF_SLOT_NONE || !can_cut(arena, slot, granules))
        return WF_SLOT_NONE;
    bin_remove(arena, slot);
    split(arena, slot, granules);
    arena->slots[slot].child = WF_SLOT_NONE;
    arena->slots[slot].holds = 0;
    return slot;
}

uint32_t wf_arena_free(struct wf_arena *arena, uint32_t slot)
{
    set_backed(arena, slot, true);
    slot = coalesce(arena, slot);
    bin_insert(arena, slot);
    return slot;
}

uint32_t wf_arena_joined(const struct wf_arena *arena, uint32_t slot)
{
    /* A slot that was joined to the one before it keeps that neighbour's number until it is used
     * again, and only an allocation uses one. */
    while (arena->slots[slot].count == 0)
        slot = arena->slots[slot].address_previous;
    return slot;
}

uint32_t wf_arena_back(struct wf_arena *arena, uint32_t least, uint32_t wanted, uint32_t *first)
{
    uint32_t slot = bin_find(arena, &arena->unbacked, wanted);
    if (slot == WF_SLOT_NONE)
        slot = bin_find(arena, &arena->unbacked, least);
    if (slot == WF_SLOT_NONE || (arena->slots[slot].count > wanted && !wf_arena_has_slot(arena)))
        return 0;
    bin_remove(arena, slot);
    if (arena->slots[slot].count > wanted)
        split(arena, slot, wanted);
    uint32_t got = arena->slots[slot].count;
    *first = arena->slots[slot].first;
    set_backed(arena, slot, true);
    bin_insert(arena, coalesce(arena, slot));
    return got;
}

uint64_t wf_arena_trim(struct wf_arena *arena, uint64_t granules,
                       void (*punch)(void *context, uint64_t first, uint64_t count), void *context)
{
    uint64_t done = 0;
    while (done < granules && arena->backed.fl_map) {
        /* The largest class first: few, large pieces. */
        uint32_t fl = 31 - (uint32_t)__builtin_clz(arena->backed.fl_map);
        uint32_t sl = 31 - (uint32_t)__builtin_clz(arena->backed.sl_map[fl]);
        uint32_t slot = arena->backed.head[fl][sl];
        bin_remove(arena, slot);
        if (arena->slots[slot].count > granules - done)
            split(arena, slot, (uint32_t)(granules - done));
        done += arena->slots[slot].count;
        punch(context, arena->slots[slot].first, arena->slots[slot].count);
        set_backed(arena, slot, false);
        bin_insert(arena, coalesce(arena, slot));
    }
    return done;
}

uint64_t wf_arena_largest(const struct wf_arena *arena)
{
    if (!arena->backed.fl_map)
        return 0;
    uint32_t fl = 31 - (uint32_t)__builtin_clz(arena->backed.fl_map);
    uint32_t sl = 31 - (uint32_t)__builtin_clz(arena->backed.sl_map[fl]);
    return arena->slots[arena->backed.head[fl][sl]].count;
}

void wf_arena_verify(const struct wf_arena *arena, bool (*is_free)(void *context, uint32_t slot),
                     void *context)
{
    uint64_t at = 0, backed = 0, unbacked = 0;
    uint32_t previous = WF_SLOT_NONE;
    for (uint32_t slot = arena->first; slot != WF_SLOT_NONE;
         slot = arena->slots[slot].address_next) {
        const struct wf_slot *s = &arena->slots[slot];
        assert(slot < arena->slots_max && s->count > 0);
        assert(s->first == at && s->address_previous == previous);
        bool free_range = s->owner == OWNER_FREE;
        if (is_free)
            assert(is_free(context, slot) == free_range);
        if (free_range) {
            *(is_backed(arena, slot) ? &backed : &unbacked) += s->count;
            /* no two free neighbours of a kind */
            if (previous != WF_SLOT_NONE && arena->slots[previous].owner == OWNER_FREE)
                assert(is_backed(arena, previous) != is_backed(arena, slot));
        }
        at += s->count;
        previous = slot;
    }
    assert(at == arena->granules);
    assert(backed == arena->backed.granules && unbacked == arena->unbacked.granules);
}
