/* SPDX-License-Identifier: Apache-2.0
 *
 * What the store's two files share, and nobody else: slots, their words and their chains.
 *
 *   store.c         reserve, commit, arrive, remove
 *   store_evict.c   who goes when room is needed, and where the room comes from
 */
#ifndef WF_DAEMON_STORE_INNER_H
#define WF_DAEMON_STORE_INNER_H

#include <string.h>

#include "daemon/store.h"

#define OWNER_NONE WF_SLOT_NONE

static inline uint64_t word_of(const struct wf_store *store, uint32_t slot)
{
    return atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed);
}

static inline enum wf_slot_state state_of(const struct wf_store *store, uint32_t slot)
{
    return wf_word_state(word_of(store, slot));
}

static inline void state_set(struct wf_store *store, uint32_t slot, enum wf_slot_state state,
                             memory_order order)
{
    uint64_t word = (word_of(store, slot) & ~WF_WORD_STATE) | (uint64_t)state;
    atomic_store_explicit(&store->index.desc[slot].word, word, order);
}

static inline uint32_t parent_of(const struct wf_store *store, uint32_t slot)
{
    return atomic_load_explicit(&store->index.desc[slot].parent, memory_order_relaxed);
}

static inline uint64_t granules_for(uint64_t bytes)
{
    return bytes / WF_GRANULE + (bytes % WF_GRANULE != 0);
}

static inline uint64_t range_bytes(const struct wf_store *store, uint32_t slot)
{
    return (uint64_t)store->slots[slot].count * WF_GRANULE;
}

/* --------------------------------------------------------------------------- chains and policy */

static inline bool evictable(const struct wf_store *store, uint32_t slot)
{
    return state_of(store, slot) == WF_SLOT_COMMITTED && store->slots[slot].child == WF_SLOT_NONE &&
           store->slots[slot].holds == 0;
}

/* Tell the policy what the facts are. */
static inline void offer(struct wf_store *store, uint32_t slot)
{
    if (evictable(store, slot))
        store->policy_ops->enter(store->policy, slot);
    else
        store->policy_ops->leave(store->policy, slot);
}

static inline uint64_t clock_of(const struct wf_store *store)
{
    return store->env.now_us ? store->env.now_us(store->env.context) : 0;
}

/* What the policy calls a block by: a quarter of its key's bits. */
static inline uint64_t name_from(const uint8_t key[32])
{
    uint64_t name;
    memcpy(&name, key, sizeof name);
    return name;
}

static inline uint64_t name_of(const struct wf_store *store, uint32_t slot)
{
    uint8_t key[32];
    wf_desc_key_read(&store->index.desc[slot], key);
    return name_from(key);
}

/* What the node brings up for itself is no use. */
static inline void policy_used(struct wf_store *store, uint32_t slot, uint32_t reader)
{
    const struct wf_policy_use use = {
        .slot = slot,
        .parent = parent_of(store, slot),
        .reader = reader,
        .key = name_of(store, slot),
        .now_us = clock_of(store),
        .cost_s_gib = store->env.cost_s_gib ? store->env.cost_s_gib(store->env.context, slot) : 0,
    };
    if (reader == WF_STORE_NODE)
        store->policy_ops->brought(store->policy, &use);
    else
        store->policy_ops->used(store->policy, &use);
}

static inline void child_link(struct wf_store *store, uint32_t parent, uint32_t slot)
{
    struct wf_slot *s = &store->slots[slot];
    s->previous = WF_SLOT_NONE;
    s->next = WF_SLOT_NONE;
    if (parent == WF_SLOT_NONE)
        return;
    s->next = store->slots[parent].child;
    if (s->next != WF_SLOT_NONE)
        store->slots[s->next].previous = slot;
    store->slots[parent].child = slot;
    offer(store, parent);
}

static inline void child_unlink(struct wf_store *store, uint32_t parent, uint32_t slot)
{
    struct wf_slot *s = &store->slots[slot];
    if (parent == WF_SLOT_NONE)
        return;
    if (s->previous != WF_SLOT_NONE)
        store->slots[s->previous].next = s->next;
    else
        store->slots[parent].child = s->next;
    if (s->next != WF_SLOT_NONE)
        store->slots[s->next].previous = s->previous;
    s->previous = s->next = WF_SLOT_NONE;
    offer(store, parent);
}

/* The slot's range goes back; whoever still has its number finds another generation. */
static inline void release(struct wf_store *store, uint32_t slot)
{
    struct wf_desc *desc = &store->index.desc[slot];
    uint32_t generation = wf_store_generation(store, slot);
    store->used_bytes -= range_bytes(store, slot);
    store->slots[slot].owner = OWNER_NONE;
    /* Release: pairs with the acquire in look(); a reader that saw the old word compares again. */
    atomic_store_explicit(&desc->word, wf_word(generation + 1, 0, WF_SLOT_FREE),
                          memory_order_release);
    store->freed_last = wf_arena_free(&store->arena, slot);
}

/* store_evict.c */

/* A committed block leaves for good.  It is a leaf, unlinked from its parent, and nobody holds it.
 */
enum wf_choice {
    WF_CHOICE_NAMED = 0, /* it was to be this one */
    WF_CHOICE_POLICY,
    WF_CHOICE_ELSEWHERE, /* the policy's, among its next ones, since another node has it, too */
    WF_CHOICE_BESIDE,
};
void wf_store_drop(struct wf_store *store, uint32_t slot, enum wf_evict_reason reason,
                   enum wf_choice choice);

/* What is to be told of it, while the policy knows it. */
struct wf_gone wf_store_gone(const struct wf_store *store, uint32_t slot,
                             enum wf_evict_reason reason, enum wf_choice choice);

/* A slot with a range of `granules`.  Room is made in this order: free space, more memory from the
 * node, eviction.  WEFT_FULL when everything that is left is in use. */
enum weft_status wf_store_make_room(struct wf_store *store, uint32_t granules, float bar,
                                    uint32_t *out_slot);

#endif
