/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/store_inner.h"

#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "sys/futex.h"
#include "sys/memory.h"

/* Of a chain that wf_store_said() goes up: a million tokens in blocks of 16. */
#define SAID_BLOCKS_MAX 65536u

const char *wf_evict_reason_name(enum wf_evict_reason reason)
{
    static const char *const names[WF_EVICT_REASONS] = {"room",    "quota",   "reclaim", "removed",
                                                        "corrupt", "session", "lent"};
    return (unsigned)reason < WF_EVICT_REASONS ? names[reason] : "unknown";
}

enum weft_status wf_store_init(struct wf_store *store, const struct wf_store_options *options)
{
    memset(store, 0, sizeof *store);
    store->env = options->env;
    store->quota_bytes = options->quota_bytes;
    store->policy_ops = options->policy;
    store->dead = store->goes_on.slot = WF_SLOT_NONE;
    store->freed_last = WF_SLOT_NONE;
    struct wf_index_shape shape = {.slots_max = options->slots_max,
                                   .far_blocks_max = options->far_blocks_max,
                                   .pool_bytes = options->pool_bytes,
                                   .epoch = options->epoch,
                                   .domain = options->domain};
    enum weft_status status = wf_index_format(options->index_memory, options->index_bytes, &shape,
                                              &store->index);
    if (status != WEFT_OK)
        return status;
    store->slots = wf_calloc(options->slots_max, sizeof *store->slots, "the table of blocks");
    if (!store->slots) {
        wf_store_fini(store); /* the owner mutex must not outlive the mapping that it lies in */
        return WEFT_E_NO_MEMORY;
    }
    status = wf_arena_init(&store->arena, store->slots, options->slots_max,
                           options->pool_bytes / WF_GRANULE);
    if (status == WEFT_OK)
        status = store->policy_ops->create(options->slots_max, &store->policy);
    if (status != WEFT_OK)
        wf_store_fini(store);
    return status;
}

void wf_store_fini(struct wf_store *store)
{
    if (store->index.header)
        wf_index_retire(&store->index);
    if (store->policy)
        store->policy_ops->destroy(store->policy);
    wf_arena_fini(&store->arena);
    free(store->slots);
    memset(store, 0, sizeof *store);
}

uint32_t wf_store_find(const struct wf_store *store, const uint8_t key[32])
{
    struct wf_found found;
    return wf_index_find_own(&store->index, key, &found) ? found.slot : WF_SLOT_NONE;
}

enum weft_status wf_store_parent_by_key(const struct wf_store *store, const uint8_t key[32],
                                        struct wf_parent *out)
{
    uint32_t slot = wf_store_find(store, key);
    if (slot == WF_SLOT_NONE)
        return wf_fail(WEFT_E_PARENT,
                       "the parent block %02x%02x%02x%02x… is not present (never put, or "
                       "evicted since); put the chain from its start",
                       key[0], key[1], key[2], key[3]);
    *out = (struct wf_parent){.slot = slot, .depth = wf_word_depth(word_of(store, slot))};
    return WEFT_OK;
}

bool wf_store_is_reserved(const struct wf_store *store, uint32_t client, uint32_t slot,
                          uint32_t generation)
{
    return slot < wf_arena_slots_used(&store->arena) && state_of(store, slot) == WF_SLOT_RESERVED &&
           wf_store_generation(store, slot) == generation && store->slots[slot].owner == client;
}

enum weft_status wf_store_parent_by_slot(const struct wf_store *store, uint32_t client,
                                         uint32_t slot, uint32_t generation, struct wf_parent *out)
{
    if (!wf_store_is_reserved(store, client, slot, generation))
        return wf_fail(WEFT_E_PARENT, "the parent slot %u is not reserved by this client", slot);
    *out = (struct wf_parent){.slot = slot, .depth = wf_word_depth(word_of(store, slot))};
    return WEFT_OK;
}

/* -------------------------------------------------------------------------------- held and used */

void wf_store_hold(struct wf_store *store, uint32_t slot)
{
    store->slots[slot].holds++;
    store->policy_ops->leave(store->policy, slot);
}

void wf_store_unhold(struct wf_store *store, uint32_t slot)
{
    assert(store->slots[slot].holds > 0);
    store->slots[slot].holds--;
    enum wf_slot_state state = state_of(store, slot);
    if (state == WF_SLOT_COMMITTED)
        offer(store, slot);
    else if (state == WF_SLOT_DUPLICATE && store->slots[slot].holds == 0) {
        uint32_t serves = parent_of(store, slot); /* the one that won, held on our behalf */
        release(store, slot);
        wf_store_unhold(store, serves);
    }
}

void wf_store_used(struct wf_store *store, uint32_t slot, uint32_t reader)
{
    if (slot < wf_arena_slots_used(&store->arena) && state_of(store, slot) == WF_SLOT_COMMITTED)
        policy_used(store, slot, reader);
}

void wf_store_cool(struct wf_store *store, uint32_t slot)
{
    store->policy_ops->cool(store->policy, slot);
}

void wf_store_made(struct wf_store *store, uint32_t tip, uint32_t tokens)
{
    const struct wf_policy_hint hint = {.kind = WF_POLICY_OUTPUT,
                                        .slot = tip,
                                        .output_tokens = tokens};
    store->policy_ops->hint(store->policy, &hint);
}

void wf_store_said(struct wf_store *store, uint32_t tip, bool wanted)
{
    struct wf_policy_hint hint = {.kind = wanted ? WF_POLICY_WANTED : WF_POLICY_DONE, .slot = tip};
    for (uint32_t i = 0; i < SAID_BLOCKS_MAX && hint.slot != WF_SLOT_NONE; i++) {
        store->policy_ops->hint(store->policy, &hint);
        hint.slot = parent_of(store, hint.slot);
    }
}

void wf_store_weigh(struct wf_store *store, uint32_t tip, uint32_t blocks, float weight)
{
    struct wf_policy_hint hint = {.kind = WF_POLICY_WEIGHS, .slot = tip, .weight = weight};
    uint32_t most = blocks < SAID_BLOCKS_MAX ? blocks : SAID_BLOCKS_MAX;
    for (uint32_t i = 0; i < most && hint.slot != WF_SLOT_NONE; i++) {
        uint32_t child = store->slots[hint.slot].child;
        if (child != WF_SLOT_NONE && (i == 0 || store->slots[child].next != WF_SLOT_NONE))
            return;
        store->policy_ops->hint(store->policy, &hint);
        hint.slot = parent_of(store, hint.slot);
    }
}

void wf_store_keep(struct wf_store *store, uint32_t tip)
{
    uint32_t slot = tip;
    for (uint32_t i = 0; i < SAID_BLOCKS_MAX && slot != WF_SLOT_NONE; i++) {
        policy_used(store, slot, WF_STORE_NODE);
        slot = parent_of(store, slot);
    }
}

/* ----------------------------------------------------------------------------- reserve, commit */

static void list_remove(struct wf_store *store, struct wf_reservations *list, uint32_t slot)
{
    struct wf_slot *s = &store->slots[slot];
    if (s->previous != WF_SLOT_NONE)
        store->slots[s->previous].next = s->next;
    else
        list->head = s->next;
    if (s->next != WF_SLOT_NONE)
        store->slots[s->next].previous = s->previous;
    s->previous = s->next = WF_SLOT_NONE;
    list->count--;
    store->reserved_blocks--;
}

void wf_store_ask(struct wf_store *store, uint32_t client, const uint8_t (*keys)[32],
                  uint32_t count, uint32_t parent, struct wf_store_ask *out)
{
    for (uint32_t i = 0; i < count; i++)
        out->names[i] = name_from(keys[i]);
    out->ask = (struct wf_policy_ask){.parent = parent,
                                      .reader = client,
                                      .count = count,
                                      .keys = out->names,
                                      .now_us = clock_of(store)};
    store->policy_ops->ask(store->policy, &out->ask, out->bars);
}

void wf_store_refused(struct wf_store *store, const struct wf_store_ask *ask, uint32_t first)
{
    store->policy_ops->refused(store->policy, &ask->ask, first);
}

enum weft_status wf_store_reserve(struct wf_store *store, uint32_t client,
                                  struct wf_reservations *list, const uint8_t key[32],
                                  uint32_t bytes, const struct wf_parent *parent, float bar,
                                  uint32_t *out_slot)
{
    uint32_t slot = wf_store_find(store, key);
    if (slot != WF_SLOT_NONE) {
        policy_used(store, slot, client);
        *out_slot = slot;
        return WEFT_EXISTS;
    }
    /* The parent must outlive the search for room. */
    if (parent->slot != WF_SLOT_NONE)
        wf_store_hold(store, parent->slot);
    enum weft_status status = wf_store_make_room(store, (uint32_t)granules_for(bytes), bar, &slot);
    if (status != WEFT_OK) {
        if (parent->slot != WF_SLOT_NONE)
            wf_store_unhold(store, parent->slot);
        return status;
    }
    struct wf_slot *s = &store->slots[slot];
    struct wf_desc *desc = &store->index.desc[slot];
    store->used_bytes += range_bytes(store, slot);
    store->reserved_blocks++;
    s->owner = client;
    s->previous = WF_SLOT_NONE;
    s->next = list->head;
    if (s->next != WF_SLOT_NONE)
        store->slots[s->next].previous = slot;
    list->head = slot;
    list->count++;
    wf_desc_key_write(desc, key);
    atomic_store_explicit(&desc->offset, (uint64_t)s->first * WF_GRANULE, memory_order_relaxed);
    atomic_store_explicit(&desc->bytes, bytes, memory_order_relaxed);
    atomic_store_explicit(&desc->parent, parent->slot, memory_order_relaxed);
    atomic_store_explicit(&desc->checksum, 0, memory_order_relaxed);
    uint32_t depth = parent->slot == WF_SLOT_NONE ? 0 : parent->depth + 1;
    atomic_store_explicit(&desc->word,
                          wf_word(wf_store_generation(store, slot),
                                  depth < WF_DEPTH_MAX ? depth : WF_DEPTH_MAX, WF_SLOT_RESERVED),
                          memory_order_release);
    *out_slot = slot;
    return WEFT_OK;
}

/* Nobody finds it any more; its memory waits until nobody holds it. */
static void dead_add(struct wf_store *store, uint32_t slot)
{
    state_set(store, slot, WF_SLOT_DEAD, memory_order_release);
    store->slots[slot].owner = OWNER_NONE;
    store->slots[slot].next = store->dead;
    store->dead = slot;
}

/* Let go of the parent that a reservation held. */
static void parent_unhold(struct wf_store *store, uint32_t parent)
{
    if (parent == WF_SLOT_NONE)
        return;
    if (state_of(store, parent) == WF_SLOT_DEAD) {
        store->slots[parent].holds--;
        wf_store_bury(store);
        return;
    }
    wf_store_unhold(store, parent);
}

/* A reservation ends without a block.  Its own reserved children may still point to it. */
static void discard(struct wf_store *store, struct wf_reservations *list, uint32_t slot)
{
    uint32_t parent = parent_of(store, slot);
    list_remove(store, list, slot);
    if (store->slots[slot].holds == 0) {
        release(store, slot);
    } else {
        dead_add(store, slot);
    }
    parent_unhold(store, parent);
}

void wf_store_abort(struct wf_store *store, struct wf_reservations *list, uint32_t slot)
{
    discard(store, list, slot);
}

void wf_store_abort_all(struct wf_store *store, struct wf_reservations *list)
{
    while (list->head != WF_SLOT_NONE)
        discard(store, list, list->head);
    wf_store_bury(store);
}

/* Someone committed the same key first.  Ours goes, but children that were reserved on it go on
 * with theirs. */
static void yield_to(struct wf_store *store, struct wf_reservations *list, uint32_t slot,
                     uint32_t serves)
{
    uint32_t parent = parent_of(store, slot);
    if (store->slots[slot].holds == 0) {
        discard(store, list, slot);
        return;
    }
    list_remove(store, list, slot);
    store->slots[slot].owner = OWNER_NONE;
    atomic_store_explicit(&store->index.desc[slot].parent, serves, memory_order_relaxed);
    state_set(store, slot, WF_SLOT_DUPLICATE, memory_order_release);
    wf_store_hold(store, serves);
    parent_unhold(store, parent);
}

/* The committed block with the key of this slot, or the slot itself. */
static uint32_t same_key(const struct wf_store *store, uint32_t slot)
{
    uint8_t key[32];
    wf_desc_key_read(&store->index.desc[slot], key);
    uint32_t serves = wf_store_find(store, key);
    return serves == WF_SLOT_NONE ? slot : serves;
}

/* Make a reserved slot, which is complete, the block that its key names; `reader` used it. */
static enum weft_status publish(struct wf_store *store, struct wf_reservations *list, uint32_t slot,
                                uint32_t reader)
{
    struct wf_desc *desc = &store->index.desc[slot];
    uint32_t reserved_on = parent_of(store, slot), parent = reserved_on;
    if (parent != WF_SLOT_NONE && state_of(store, parent) == WF_SLOT_DUPLICATE)
        parent = parent_of(store, parent);
    else if (parent != WF_SLOT_NONE && state_of(store, parent) == WF_SLOT_DEAD)
        parent = same_key(store, parent); /* arrived when someone had put it: theirs serves */
    if (parent != WF_SLOT_NONE && state_of(store, parent) != WF_SLOT_COMMITTED)
        return wf_fail(WEFT_E_PARENT,
                       "the block's parent was not committed; commit a chain in its order");
    list_remove(store, list, slot);
    store->slots[slot].owner = OWNER_NONE;
    store->slots[slot].child = WF_SLOT_NONE;
    atomic_store_explicit(&desc->parent, parent, memory_order_relaxed);
    WF_CRASH("store.commit.before_publish");
    /* Release: whoever sees COMMITTED sees the descriptor, and the payload that the client wrote
     * before it asked to commit (the socket orders the two). */
    state_set(store, slot, WF_SLOT_COMMITTED, memory_order_release);
    if (!wf_index_insert(&store->index, slot)) {
        dead_add(store, slot);
        parent_unhold(store, reserved_on);
        wf_store_bury(store);
        return WEFT_FULL;
    }
    WF_CRASH("store.commit.published");
    store->blocks++;
    policy_used(store, slot, reader);
    child_link(store, parent, slot);
    parent_unhold(store, reserved_on);
    offer(store, slot);
    return WEFT_OK;
}

enum weft_status wf_store_commit(struct wf_store *store, struct wf_reservations *list,
                                 uint32_t *slot_io)
{
    uint32_t slot = *slot_io;
    struct wf_desc *desc = &store->index.desc[slot];
    uint8_t key[32];
    wf_desc_key_read(desc, key);
    uint32_t serves = wf_store_find(store, key);
    if (serves != WF_SLOT_NONE) {
        *slot_io = serves;
        yield_to(store, list, slot, serves);
        return WEFT_EXISTS;
    }
    enum weft_status status = publish(store, list, slot, store->slots[slot].owner);
    if (status == WEFT_E_PARENT)
        discard(store, list, slot);
    return status;
}

/* ------------------------------------------------------------------------------------- arrivals */

static void progress_set(struct wf_store *store, uint32_t slot, uint32_t progress)
{
    _Atomic uint32_t *word = wf_progress_word(&store->index.desc[slot]);
    /* Release: pairs with the acquire in libweft's wait; the bytes were written before. */
    atomic_store_explicit(word, progress, memory_order_release);
    wf_futex_wake_all(word);
}

void wf_store_progress(struct wf_store *store, uint32_t slot, uint32_t granules)
{
    assert(state_of(store, slot) == WF_SLOT_RESERVED && granules < WF_PROGRESS_ALL);
    progress_set(store, slot, granules);
}

/* No block after all, but it may be held in pin tables. */
static void reserved_bury(struct wf_store *store, struct wf_reservations *list, uint32_t slot)
{
    uint32_t parent = parent_of(store, slot);
    list_remove(store, list, slot);
    dead_add(store, slot);
    parent_unhold(store, parent);
}

enum weft_status wf_store_arrived(struct wf_store *store, struct wf_reservations *list,
                                  uint32_t slot, uint32_t reader)
{
    struct wf_desc *desc = &store->index.desc[slot];
    uint8_t key[32];
    wf_desc_key_read(desc, key);
    progress_set(store, slot, WF_PROGRESS_ALL);
    if (wf_store_find(store, key) != WF_SLOT_NONE) {
        reserved_bury(store, list, slot);
        return WEFT_EXISTS;
    }
    /* A committed block has its checksum there.  Who waits looks at the state as well. */
    atomic_store_explicit(&desc->checksum, 0, memory_order_relaxed);
    enum weft_status status = publish(store, list, slot, reader);
    if (status == WEFT_E_PARENT)
        wf_store_lost(store, list, slot);
    else
        wf_futex_wake_all(wf_progress_word(desc));
    return status;
}

void wf_store_worsen(struct wf_store *store, uint32_t slot, enum weft_quality quality)
{
    uint64_t word = word_of(store, slot);
    assert(wf_word_state(word) == WF_SLOT_RESERVED);
    if (quality <= wf_word_quality(word))
        return;
    wf_index_lossy_set(&store->index);
    /* Relaxed: who sees it committed sees this. */
    atomic_store_explicit(&store->index.desc[slot].word, wf_word_with_quality(word, quality),
                          memory_order_relaxed);
}

void wf_store_give_up(struct wf_store *store, uint32_t slot)
{
    assert(state_of(store, slot) == WF_SLOT_RESERVED);
    progress_set(store, slot, WF_PROGRESS_LOST);
}

void wf_store_lost(struct wf_store *store, struct wf_reservations *list, uint32_t slot)
{
    progress_set(store, slot, WF_PROGRESS_LOST);
    reserved_bury(store, list, slot);
}

/* -------------------------------------------------------------------------------------- remove */

struct subtree {
    uint32_t *slot;
    uint64_t count, capacity;
    const struct wf_store *store;
    uint8_t *pinned; /* one bit a slot of the store; NULL: there is the root alone */
    uint32_t one;
    bool root_pinned;
};

static void subtree_seen(void *context, uint32_t slot)
{
    struct subtree *tree = context;
    if (!tree->pinned)
        tree->root_pinned |= slot == tree->slot[0];
    else if (slot < tree->store->arena.slots_max)
        tree->pinned[slot / 8] |= (uint8_t)(1u << (slot % 8));
}

/* Parents before children. */
static bool subtree_collect(struct wf_store *store, uint32_t root, struct subtree *tree)
{
    tree->store = store;
    tree->one = root;
    if (store->slots[root].child == WF_SLOT_NONE) { /* the usual case where nothing is chained */
        tree->slot = &tree->one;
        tree->count = 1;
        return true;
    }
    tree->capacity = store->blocks;
    tree->slot = wf_calloc(tree->capacity ? tree->capacity : 1, sizeof *tree->slot,
                           "a list of blocks");
    tree->pinned = wf_calloc(store->arena.slots_max / 8 + 1, 1, "a map of held blocks");
    if (!tree->slot || !tree->pinned)
        return false;
    tree->slot[tree->count++] = root;
    for (uint64_t at = 0; at < tree->count; at++)
        for (uint32_t child = store->slots[tree->slot[at]].child; child != WF_SLOT_NONE;
             child = store->slots[child].next)
            tree->slot[tree->count++] = child;
    return true;
}

static bool subtree_held(const struct wf_store *store, const struct subtree *tree, uint32_t slot)
{
    bool pinned = tree->pinned ? tree->pinned[slot / 8] >> (slot % 8) & 1 : tree->root_pinned;
    return pinned || store->slots[slot].holds > 0;
}

/* A held block disappears from the index at once; its memory waits in the list of the dead. */
static void condemn_one(struct wf_store *store, uint32_t slot, enum wf_evict_reason reason)
{
    uint8_t key[32];
    wf_desc_key_read(&store->index.desc[slot], key);
    wf_index_remove(&store->index, slot);
    store->blocks--;
    store->policy_ops->leave(store->policy, slot);
    const struct wf_gone gone = wf_store_gone(store, slot, reason, WF_CHOICE_NAMED);
    store->policy_ops->gone(store->policy, slot, name_of(store, slot));
    dead_add(store, slot);
    store->env.gone(store->env.context, key, &gone);
}

enum weft_status wf_store_remove(struct wf_store *store, uint32_t root, bool condemn,
                                 uint64_t *out_removed)
{
    struct subtree tree = {.count = 0};
    enum weft_status status = WEFT_OK;
    if (!subtree_collect(store, root, &tree)) {
        status = WEFT_E_NO_MEMORY;
        goto done;
    }
    for (uint64_t i = 0; i < tree.count; i++) {
        state_set(store, tree.slot[i], WF_SLOT_EVICTING, memory_order_seq_cst);
        store->policy_ops->leave(store->policy, tree.slot[i]);
    }
    WF_CRASH("store.remove.marked");
    store->env.scan_pins(store->env.context, subtree_seen, &tree);
    bool held = false;
    for (uint64_t i = 0; i < tree.count; i++)
        held |= subtree_held(store, &tree, tree.slot[i]);
    if (held && !condemn) {
        for (uint64_t i = 0; i < tree.count; i++)
            state_set(store, tree.slot[i], WF_SLOT_COMMITTED, memory_order_seq_cst);
        for (uint64_t i = 0; i < tree.count; i++)
            offer(store, tree.slot[i]);
        status = wf_fail(WEFT_E_BUSY,
                         "the block, or one that extends it, is pinned or in use by a session; "
                         "try again when they are done");
        goto done;
    }
    /* Children before parents, so that a match never meets a hole. */
    for (uint64_t i = tree.count; i-- > 0;) {
        uint32_t slot = tree.slot[i];
        bool keep = subtree_held(store, &tree, slot);
        child_unlink(store, parent_of(store, slot), slot);
        if (keep)
            condemn_one(store, slot, WF_EVICT_CORRUPT);
        else
            wf_store_drop(store, slot, condemn ? WF_EVICT_CORRUPT : WF_EVICT_REMOVED,
                          WF_CHOICE_NAMED);
    }
    *out_removed = tree.count;
    wf_store_bury(store);
done:
    if (tree.slot != &tree.one)
        free(tree.slot);
    free(tree.pinned);
    return status;
}

void wf_store_bury(struct wf_store *store)
{
    if (store->dead == WF_SLOT_NONE)
        return;
    struct subtree tree = {.store = store};
    tree.pinned = wf_calloc(store->arena.slots_max / 8 + 1, 1, "a map of held blocks");
    if (!tree.pinned)
        return; /* later */
    store->env.scan_pins(store->env.context, subtree_seen, &tree);
    uint32_t *link = &store->dead;
    while (*link != WF_SLOT_NONE) {
        uint32_t slot = *link;
        if (subtree_held(store, &tree, slot)) {
            link = &store->slots[slot].next;
            continue;
        }
        *link = store->slots[slot].next;
        release(store, slot);
    }
    free(tree.pinned);
}

/* -------------------------------------------------------------------------------------- verify */

static bool verify_free(void *context, uint32_t slot)
{
    return state_of(context, slot) == WF_SLOT_FREE;
}

void wf_store_verify(const struct wf_store *store)
{
    uint64_t blocks = 0, used = 0;
    wf_arena_verify(&store->arena, verify_free, (void *)(uintptr_t)store);
    for (uint32_t slot = 0; slot < wf_arena_slots_used(&store->arena); slot++) {
        enum wf_slot_state state = state_of(store, slot);
        if (state != WF_SLOT_FREE)
            used += range_bytes(store, slot);
        if (state != WF_SLOT_COMMITTED) {
            assert(!store->policy_ops->holds(store->policy, slot));
            continue;
        }
        blocks++;
        uint8_t key[32];
        wf_desc_key_read(&store->index.desc[slot], key);
        assert(wf_store_find(store, key) == slot);
        uint32_t parent = parent_of(store, slot);
        assert(parent == WF_SLOT_NONE || state_of(store, parent) == WF_SLOT_COMMITTED);
        assert(store->policy_ops->holds(store->policy, slot) == evictable(store, slot));
    }
    assert(blocks == store->blocks && used == store->used_bytes);
    assert(store->used_bytes + store->arena.backed.granules * WF_GRANULE == store->backed_bytes);
}
