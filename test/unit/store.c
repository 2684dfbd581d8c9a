/* SPDX-License-Identifier: Apache-2.0
 *
 * The store on plain memory, with a budget, pins and listeners of the test's own.
 *
 * First each rule by itself, then thousands of random operations against a model that follows the
 * same rules with lists and loops (store_model.c).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store_world.h"

enum { ALICE = 1, BOB = 2 };

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    world_open(w, 64, 64 * WF_GRANULE, 64 * WF_GRANULE, 64);
    w->reservations[ALICE].head = w->reservations[BOB].head = WF_SLOT_NONE;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    free(*state);
    return 0;
}

static const struct wf_parent none = {.slot = WF_SLOT_NONE};

static enum weft_status reserve(struct world *w, uint32_t client, uint64_t key, uint32_t granules,
                                uint32_t parent, uint32_t *out)
{
    uint8_t bytes[32];
    struct wf_parent p = {.slot = parent};
    random_key(key, bytes);
    return wf_store_reserve(&w->store, client, &w->reservations[client], bytes,
                            granules * WF_GRANULE, &p, WF_POLICY_ANY, out);
}

static enum weft_status commit(struct world *w, uint32_t client, uint32_t *slot)
{
    return wf_store_commit(&w->store, &w->reservations[client], slot);
}

/* Reserve and commit one granule. */
static uint32_t put(struct world *w, uint64_t key, uint32_t parent)
{
    uint32_t slot;
    assert_int_equal(reserve(w, ALICE, key, 1, parent, &slot), WEFT_OK);
    assert_int_equal(commit(w, ALICE, &slot), WEFT_OK);
    return slot;
}

static uint32_t find(struct world *w, uint64_t key)
{
    uint8_t bytes[32];
    random_key(key, bytes);
    return wf_store_find(&w->store, bytes);
}

/* ---------------------------------------------------------------------------------- one by one */

static void test_reserve_hides_and_commit_shows(void **state)
{
    struct world *w = *state;
    uint32_t slot, other;
    assert_int_equal(reserve(w, ALICE, 1, 3, WF_SLOT_NONE, &slot), WEFT_OK);
    assert_int_equal(find(w, 1), WF_SLOT_NONE);
    assert_int_equal(w->store.reserved_blocks, 1);
    assert_int_equal(w->store.used_bytes, 3 * WF_GRANULE);
    assert_int_equal(commit(w, ALICE, &slot), WEFT_OK);
    assert_int_equal(find(w, 1), slot);
    assert_int_equal(w->store.reserved_blocks, 0);
    assert_int_equal(reserve(w, BOB, 1, 3, WF_SLOT_NONE, &other), WEFT_EXISTS);
    assert_int_equal(other, slot);
    assert_int_equal(w->store.used_bytes, 3 * WF_GRANULE);
    wf_store_verify(&w->store);
}

static void test_only_the_owner_commits(void **state)
{
    struct world *w = *state;
    uint32_t slot;
    assert_int_equal(reserve(w, ALICE, 1, 1, WF_SLOT_NONE, &slot), WEFT_OK);
    uint32_t generation = wf_store_generation(&w->store, slot);
    assert_true(wf_store_is_reserved(&w->store, ALICE, slot, generation));
    assert_false(wf_store_is_reserved(&w->store, BOB, slot, generation));
    assert_false(wf_store_is_reserved(&w->store, ALICE, slot, generation + 1));
    assert_false(wf_store_is_reserved(&w->store, ALICE, slot + 1, generation));
    assert_false(wf_store_is_reserved(&w->store, ALICE, WF_SLOT_NONE, 0));
    wf_store_abort(&w->store, &w->reservations[ALICE], slot);
    assert_false(wf_store_is_reserved(&w->store, ALICE, slot, generation));
    assert_int_equal(w->store.used_bytes, 0);
}

/* Whoever commits first wins; both chains go on, whichever end the race has. */
static void duplicate_race(struct world *w, uint32_t first, uint32_t second)
{
    uint32_t parent[3], child[3];
    assert_int_equal(reserve(w, ALICE, 1, 1, WF_SLOT_NONE, &parent[ALICE]), WEFT_OK);
    assert_int_equal(reserve(w, ALICE, 2, 1, parent[ALICE], &child[ALICE]), WEFT_OK);
    assert_int_equal(reserve(w, BOB, 1, 1, WF_SLOT_NONE, &parent[BOB]), WEFT_OK);
    assert_int_equal(reserve(w, BOB, 3, 1, parent[BOB], &child[BOB]), WEFT_OK);
    uint32_t winner = parent[first];
    assert_int_equal(commit(w, first, &parent[first]), WEFT_OK);
    assert_int_equal(commit(w, second, &parent[second]), WEFT_EXISTS);
    assert_int_equal(parent[second], winner);
    wf_store_verify(&w->store);
    /* The loser's child extends the winner's block. */
    assert_int_equal(commit(w, second, &child[second]), WEFT_OK);
    assert_int_equal(commit(w, first, &child[first]), WEFT_OK);
    wf_store_verify(&w->store);
    assert_int_equal(w->store.blocks, 3);
    assert_int_equal(w->store.used_bytes, 3 * WF_GRANULE);
    assert_int_equal(w->store.slots[winner].holds, 0);
}

static void test_duplicate_first_wins(void **state)
{
    duplicate_race(*state, ALICE, BOB);
}

static void test_duplicate_second_wins(void **state)
{
    duplicate_race(*state, BOB, ALICE);
}

/* A DUPLICATE parent whose child is aborted, or whose client dies, leaves nothing behind. */
static void test_duplicate_parent_lets_go(void **state)
{
    struct world *w = *state;
    for (int dies = 0; dies < 2; dies++) {
        uint64_t key = 100 + 10 * (uint64_t)dies;
        uint32_t parent, child, grandchild, theirs;
        assert_int_equal(reserve(w, ALICE, key, 1, WF_SLOT_NONE, &parent), WEFT_OK);
        assert_int_equal(reserve(w, ALICE, key + 1, 1, parent, &child), WEFT_OK);
        assert_int_equal(reserve(w, ALICE, key + 2, 1, child, &grandchild), WEFT_OK);
        assert_int_equal(reserve(w, BOB, key, 1, WF_SLOT_NONE, &theirs), WEFT_OK);
        assert_int_equal(commit(w, BOB, &theirs), WEFT_OK);
        assert_int_equal(commit(w, ALICE, &parent), WEFT_EXISTS);
        assert_int_equal(w->store.slots[theirs].holds, 1);
        if (dies) {
            wf_store_abort_all(&w->store, &w->reservations[ALICE]);
        } else {
            wf_store_abort(&w->store, &w->reservations[ALICE], child);
            wf_store_verify(&w->store);
            wf_store_abort(&w->store, &w->reservations[ALICE], grandchild);
        }
        wf_store_verify(&w->store);
        assert_int_equal(w->store.reserved_blocks, 0);
        assert_int_equal(w->store.slots[theirs].holds, 0);
        assert_int_equal(w->store.used_bytes, ((uint64_t)dies + 1) * WF_GRANULE);
    }
}

static void test_commit_out_of_order(void **state)
{
    struct world *w = *state;
    uint32_t parent, child;
    assert_int_equal(reserve(w, ALICE, 1, 1, WF_SLOT_NONE, &parent), WEFT_OK);
    assert_int_equal(reserve(w, ALICE, 2, 1, parent, &child), WEFT_OK);
    assert_int_equal(commit(w, ALICE, &child), WEFT_E_PARENT);
    assert_string_not_equal(weft_last_error(), "");
    assert_int_equal(commit(w, ALICE, &parent), WEFT_OK);
    assert_int_equal(find(w, 2), WF_SLOT_NONE);
    assert_int_equal(w->store.used_bytes, WF_GRANULE);
    wf_store_verify(&w->store);
}

/* Parent first, child first, and by death: three ways to abort a chain, one end. */
static void test_abort_orders(void **state)
{
    struct world *w = *state;
    for (int way = 0; way < 3; way++) {
        uint32_t slot[4], parent = WF_SLOT_NONE;
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(reserve(w, ALICE, i, 2, parent, &slot[i]), WEFT_OK);
            parent = slot[i];
        }
        for (uint32_t i = 0; i < 4 && way < 2; i++) {
            wf_store_abort(&w->store, &w->reservations[ALICE], slot[way ? 3 - i : i]);
            wf_store_verify(&w->store);
        }
        if (way == 2)
            wf_store_abort_all(&w->store, &w->reservations[ALICE]);
        wf_store_bury(&w->store);
        wf_store_verify(&w->store);
        assert_int_equal(w->store.used_bytes, 0);
        assert_int_equal(w->store.reserved_blocks, 0);
        assert_int_equal(w->reservations[ALICE].count, 0);
    }
}

static void test_parents(void **state)
{
    struct world *w = *state;
    uint8_t key[32];
    struct wf_parent parent;
    random_key(1, key);
    assert_int_equal(wf_store_parent_by_key(&w->store, key, &parent), WEFT_E_PARENT);
    uint32_t a = put(w, 1, WF_SLOT_NONE), b;
    assert_int_equal(wf_store_parent_by_key(&w->store, key, &parent), WEFT_OK);
    assert_int_equal(parent.slot, a);
    assert_int_equal(wf_store_reserve(&w->store, ALICE, &w->reservations[ALICE],
                                      (const uint8_t[32]){9}, WF_GRANULE, &parent, WF_POLICY_ANY,
                                      &b),
                     WEFT_OK);
    uint32_t generation = wf_store_generation(&w->store, b);
    assert_int_equal(wf_store_parent_by_slot(&w->store, BOB, b, generation, &parent),
                     WEFT_E_PARENT);
    assert_int_equal(wf_store_parent_by_slot(&w->store, ALICE, b, generation, &parent), WEFT_OK);
    assert_int_equal(parent.depth, 1);
    /* Committed, it is nobody's reservation any more. */
    assert_int_equal(wf_store_parent_by_slot(&w->store, ALICE, a, 0, &parent), WEFT_E_PARENT);
}

/* ------------------------------------------------------------------------------------ eviction */

static void fill(struct world *w, uint64_t from)
{
    uint32_t slot;
    while (w->store.used_bytes < w->store.quota_bytes)
        assert_int_equal(reserve(w, ALICE, from++, 1, WF_SLOT_NONE, &slot), WEFT_OK);
}

static void test_pinned_and_held_stay(void **state)
{
    struct world *w = *state;
    uint32_t pinned = put(w, 1, WF_SLOT_NONE), held = put(w, 2, WF_SLOT_NONE), slot;
    uint32_t free_one = put(w, 3, WF_SLOT_NONE);
    w->pins[pinned] = 1;
    wf_store_hold(&w->store, held);
    fill(w, 1000);
    assert_int_equal(reserve(w, ALICE, 10, 1, WF_SLOT_NONE, &slot), WEFT_OK); /* takes free_one's */
    assert_int_equal(w->gone_count, 1);
    assert_string_equal(w->gone.why.rule, "lru_leaf"); /* and why it was its turn */
    assert_false(w->gone.why.knows);
    assert_int_equal(w->gone.candidates, 2); /* the pinned one is an end as well */
    assert_int_equal(find(w, 3), WF_SLOT_NONE);
    (void)free_one;
    assert_int_equal(reserve(w, ALICE, 11, 1, WF_SLOT_NONE, &slot), WEFT_FULL);
    assert_int_equal(find(w, 1), pinned);
    assert_int_equal(find(w, 2), held);
    wf_store_verify(&w->store);
    w->pins[pinned] = 0;
    assert_int_equal(reserve(w, ALICE, 11, 1, WF_SLOT_NONE, &slot), WEFT_OK);
    assert_int_equal(find(w, 1), WF_SLOT_NONE);
    assert_int_equal(reserve(w, ALICE, 12, 1, WF_SLOT_NONE, &slot), WEFT_FULL);
    wf_store_unhold(&w->store, held);
    assert_int_equal(reserve(w, ALICE, 12, 1, WF_SLOT_NONE, &slot), WEFT_OK);
    wf_store_verify(&w->store);
}

/* Whoever holds the end of a chain holds all of it; the ends of others go first to last. */
static void test_leaves_first(void **state)
{
    struct world *w = *state;
    uint32_t chain[8], parent = WF_SLOT_NONE, slot;
    for (uint32_t i = 0; i < 8; i++)
        parent = chain[i] = put(w, i, parent);
    fill(w, 1000);
    for (uint32_t gone = 0; gone < 8; gone++) {
        assert_int_equal(reserve(w, ALICE, 100 + gone, 1, WF_SLOT_NONE, &slot), WEFT_OK);
        for (uint32_t i = 0; i < 8; i++)
            assert_int_equal(find(w, i) != WF_SLOT_NONE, i < 7 - gone);
        wf_store_verify(&w->store);
    }
}

/* One pinned end keeps its chain, and must not keep the search from others that may go. */
/* What hint() was told, by slot. */
static float weights[WORLD_SLOTS];

static void weight_note(struct wf_policy *policy, const struct wf_policy_hint *hint)
{
    (void)policy;
    assert_int_equal(hint->kind, WF_POLICY_WEIGHS);
    weights[hint->slot] = hint->weight;
}

/* A weight is of what no other chain shares, and of no more than was asked for. */
static void test_what_is_shared_is_not_weighed(void **state)
{
    struct world *w = *state;
    struct wf_policy_ops spy = wf_policy_lru;
    uint32_t slots[6], parent = WF_SLOT_NONE;
    spy.hint = weight_note;
    for (uint32_t i = 0; i < 6; i++)
        parent = slots[i] = put(w, i, parent);
    put(w, 50, slots[2]); /* another chain goes on from the third */
    w->store.policy_ops = &spy;
    memset(weights, 0, sizeof weights);
    wf_store_weigh(&w->store, slots[5], 1, 2);
    assert_true(weights[slots[5]] == 2 && weights[slots[4]] == 0);
    wf_store_weigh(&w->store, slots[5], UINT32_MAX, 4);
    for (uint32_t i = 0; i < 6; i++)
        assert_true(weights[slots[i]] == (i > 2 ? 4 : 0));
    wf_store_weigh(&w->store, slots[2], UINT32_MAX, 8); /* others have it behind */
    for (uint32_t i = 0; i < 6; i++)
        assert_true(weights[slots[i]] == (i > 2 ? 4 : 0));
    w->store.policy_ops = &wf_policy_lru;
}

/* What the node brings up for nobody is no use, and does not go next; who goes names its parent. */
static void test_what_is_brought_up_is_not_used(void **state)
{
    struct world *w = *state;
    struct wf_reservations arriving = {.head = WF_SLOT_NONE};
    uint8_t key[32], parent[32];
    uint32_t slot, first = put(w, 1, WF_SLOT_NONE), second = put(w, 2, first);
    uint64_t uses = w->store.policy_ops->uses(w->store.policy);
    random_key(3, key);
    assert_int_equal(wf_store_reserve(&w->store, WF_STORE_NODE, &arriving, key, WF_GRANULE, &none,
                                      WF_POLICY_ANY, &slot),
                     WEFT_OK);
    assert_int_equal(wf_store_arrived(&w->store, &arriving, slot, WF_STORE_NODE), WEFT_OK);
    wf_store_keep(&w->store, second);
    assert_true(w->store.policy_ops->uses(w->store.policy) == uses);
    assert_true(w->store.policy_ops->age(w->store.policy, slot) == 0);
    wf_store_cool(&w->store, second);
    assert_true(wf_store_evict(&w->store, second, WF_EVICT_ROOM));
    random_key(1, parent);
    assert_memory_equal(w->gone.parent, parent, sizeof w->gone.parent);
    assert_true(wf_store_evict(&w->store, first, WF_EVICT_ROOM));
    assert_true(w->gone.parent[0] == 0 && memcmp(w->gone.parent, w->gone.parent + 1, 7) == 0);
    wf_store_verify(&w->store);
}

static void test_a_pinned_chain_hides_no_victim(void **state)
{
    struct world *w = *state;
    uint32_t parent = WF_SLOT_NONE, slot;
    for (uint32_t i = 0; i < 6; i++)
        parent = put(w, i, parent);
    w->pins[parent] = 1;
    for (uint32_t i = 0; i < 3; i++) /* younger than the chain */
        put(w, 50 + i, WF_SLOT_NONE);
    fill(w, 1000);
    assert_int_equal(reserve(w, ALICE, 200, 3, WF_SLOT_NONE, &slot), WEFT_OK);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_not_equal(find(w, i), WF_SLOT_NONE);
    wf_store_verify(&w->store);
}

static void test_full_and_quota(void **state)
{
    struct world *w = *state;
    uint32_t slot;
    assert_int_equal(reserve(w, ALICE, 1, 65, WF_SLOT_NONE, &slot), WEFT_E_QUOTA);
    assert_string_not_equal(weft_last_error(), "");
    assert_int_equal(reserve(w, ALICE, 1, 64, WF_SLOT_NONE, &slot), WEFT_OK);
    assert_int_equal(reserve(w, ALICE, 2, 1, WF_SLOT_NONE, &slot), WEFT_FULL);
    assert_int_equal(w->store.used_bytes, 64 * WF_GRANULE);
    wf_store_abort_all(&w->store, &w->reservations[ALICE]);
    w->store.other_bytes = 60 * WF_GRANULE; /* regions count */
    assert_int_equal(reserve(w, ALICE, 2, 5, WF_SLOT_NONE, &slot), WEFT_FULL);
    assert_int_equal(reserve(w, ALICE, 2, 4, WF_SLOT_NONE, &slot), WEFT_OK);
    w->store.other_bytes = 0;
    wf_store_verify(&w->store);
}

/* Sizes at the end of 32 bits must not wrap around into nothing. */
static void test_huge_blocks_are_refused(void **state)
{
    struct world *w = *state;
    uint8_t key[32];
    uint32_t slot;
    random_key(1, key);
    for (uint32_t below = 0; below < 2 * WF_GRANULE; below += 511)
        assert_int_equal(wf_store_reserve(&w->store, ALICE, &w->reservations[ALICE], key,
                                          UINT32_MAX - below, &none, WF_POLICY_ANY, &slot),
                         WEFT_E_QUOTA);
    assert_int_equal(w->store.used_bytes, 0);
    wf_store_verify(&w->store);
}

/* When slots run out before memory does, a small block does not take what is left in one piece. */
static void test_out_of_slots(void **state)
{
    struct world *w = *state;
    uint32_t slot;
    world_close(w);
    world_open(w, 64, 64 * WF_GRANULE, 64 * WF_GRANULE, 16);
    uint32_t got = 0;
    while (reserve(w, ALICE, got, 1, WF_SLOT_NONE, &slot) == WEFT_OK && got < 64)
        got++;
    assert_in_range(got, 14, 16);
    assert_int_equal(w->store.used_bytes, got * WF_GRANULE);
    wf_store_abort_all(&w->store, &w->reservations[ALICE]);
    for (uint64_t key = 0; key < 200; key++) { /* committed ones make way */
        assert_int_equal(reserve(w, ALICE, key, 1 + (uint32_t)key % 3, WF_SLOT_NONE, &slot),
                         WEFT_OK);
        assert_int_equal(commit(w, ALICE, &slot), WEFT_OK);
        wf_store_verify(&w->store);
    }
    wf_store_verify(&w->store);
}

static void test_order_is_lru(void **state)
{
    struct world *w = *state;
    uint32_t slot[16], order[16], other;
    struct random_source r = random_seeded("order_is_lru");
    for (uint32_t i = 0; i < 16; i++) {
        slot[i] = put(w, i, WF_SLOT_NONE);
        order[i] = i;
    }
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t at = random_below(&r, 16), used = order[at];
        wf_store_used(&w->store, slot[used], 0);
        memmove(order + at, order + at + 1, (15 - at) * sizeof order[0]);
        order[15] = used;
    }
    fill(w, 1000);
    for (uint32_t i = 0; i < 16; i++) {
        uint8_t key[32];
        assert_int_equal(reserve(w, ALICE, 100 + i, 1, WF_SLOT_NONE, &other), WEFT_OK);
        assert_int_equal(w->gone_count, i + 1);
        random_key(order[i], key);
        assert_memory_equal(w->gone_key, key, 32);
    }
}

/* Of blocks that were last used at about the same time, those that another node has go first; one
 * that is used more than the next few are is no victim for that. */
static uint64_t elsewhere_from, elsewhere_to, asked;

static float lose_part(void *context, uint32_t slot)
{
    const struct world *w = context;
    uint8_t key[32], other[32];
    asked++;
    wf_desc_key_read(&w->store.index.desc[slot], key);
    for (uint64_t i = elsewhere_from; i < elsewhere_to; i++) {
        random_key(i, other);
        if (memcmp(key, other, 32) == 0)
            return 0.2f;
    }
    return 1;
}

static void test_what_another_node_has_goes_first(void **state)
{
    struct world *w = *state;
    uint32_t slot, count = (uint32_t)(w->store.quota_bytes / WF_GRANULE);
    assert_in_range(count, 16, 64);
    w->store.env.lose_part = lose_part;
    for (uint32_t i = 0; i < count; i++)
        (void)put(w, i, WF_SLOT_NONE);
    elsewhere_from = 4;
    elsewhere_to = 8;
    static const uint64_t goes[] = {4, 5, 6, 7, 0, 1};
    for (uint32_t i = 0; i < sizeof goes / sizeof goes[0]; i++) {
        uint8_t key[32];
        assert_int_equal(reserve(w, ALICE, 100 + i, 1, WF_SLOT_NONE, &slot), WEFT_OK);
        random_key(goes[i], key);
        assert_memory_equal(w->gone_key, key, 32);
        assert_int_equal(w->gone.why.elsewhere, i < 4);
        wf_store_verify(&w->store);
    }
    assert_int_equal(w->store.elsewhere, 4);
    elsewhere_from = elsewhere_to = 0;
}

/* The look for one costs about as many victims as go. */
static void test_the_look_for_another_nodes_is_bounded(void **state)
{
    struct world *w = *state;
    uint32_t slot, count = (uint32_t)(w->store.quota_bytes / WF_GRANULE);
    w->store.env.lose_part = lose_part;
    for (uint32_t i = 0; i < count; i++)
        (void)put(w, i, WF_SLOT_NONE);
    asked = 0;
    for (uint32_t i = 0; i + 8 < count; i++) { /* nobody has any: the order is as it was */
        uint8_t key[32];
        assert_int_equal(reserve(w, ALICE, 100 + i, 1, WF_SLOT_NONE, &slot), WEFT_OK);
        random_key(i, key);
        assert_memory_equal(w->gone_key, key, 32);
        assert_false(w->gone.why.elsewhere);
    }
    assert_in_range(asked, count - 8, 32 * count);
    wf_store_verify(&w->store);
}

/* ----------------------------------------------------------------------------- remove, condemn */

static void test_remove(void **state)
{
    struct world *w = *state;
    uint32_t a = put(w, 1, WF_SLOT_NONE), b = put(w, 2, a), c = put(w, 3, b);
    uint64_t removed = 0;
    w->pins[c] = 1;
    assert_int_equal(wf_store_remove(&w->store, a, false, &removed), WEFT_E_BUSY);
    wf_store_verify(&w->store);
    assert_int_equal(find(w, 1), a);
    assert_int_equal(find(w, 3), c);
    w->pins[c] = 0;
    wf_store_hold(&w->store, b);
    assert_int_equal(wf_store_remove(&w->store, a, false, &removed), WEFT_E_BUSY);
    wf_store_unhold(&w->store, b);
    wf_store_verify(&w->store);
    assert_int_equal(wf_store_remove(&w->store, b, false, &removed), WEFT_OK);
    assert_int_equal(removed, 2);
    assert_int_equal(find(w, 1), a);
    assert_int_equal(find(w, 2), WF_SLOT_NONE);
    assert_int_equal(w->store.used_bytes, WF_GRANULE);
    wf_store_verify(&w->store);
}

/* Condemned blocks are found no more at once; memory that someone still reads stays theirs. */
static void test_condemn_with_pins(void **state)
{
    struct world *w = *state;
    uint32_t a = put(w, 1, WF_SLOT_NONE), b = put(w, 2, a), c = put(w, 3, b), d;
    uint64_t removed = 0;
    w->pins[b] = 1;
    wf_store_hold(&w->store, c);
    assert_int_equal(reserve(w, ALICE, 4, 1, c, &d), WEFT_OK);
    assert_int_equal(wf_store_remove(&w->store, a, true, &removed), WEFT_OK);
    assert_int_equal(removed, 3);
    for (uint64_t key = 1; key <= 3; key++)
        assert_int_equal(find(w, key), WF_SLOT_NONE);
    wf_store_verify(&w->store);
    assert_int_equal(w->store.used_bytes, 3 * WF_GRANULE); /* b, c, and the reserved d */
    assert_int_equal(commit(w, ALICE, &d), WEFT_E_PARENT);
    wf_store_unhold(&w->store, c);
    wf_store_bury(&w->store);
    assert_int_equal(w->store.used_bytes, WF_GRANULE);
    w->pins[b] = 0;
    wf_store_bury(&w->store);
    assert_int_equal(w->store.used_bytes, 0);
    wf_store_verify(&w->store);
}

/* A DUPLICATE whose winner is condemned before its child commits. */
static void test_condemn_under_a_duplicate(void **state)
{
    struct world *w = *state;
    uint32_t mine, child, theirs;
    uint64_t removed;
    assert_int_equal(reserve(w, ALICE, 1, 1, WF_SLOT_NONE, &mine), WEFT_OK);
    assert_int_equal(reserve(w, ALICE, 2, 1, mine, &child), WEFT_OK);
    theirs = WF_SLOT_NONE;
    assert_int_equal(reserve(w, BOB, 1, 1, WF_SLOT_NONE, &theirs), WEFT_OK);
    assert_int_equal(commit(w, BOB, &theirs), WEFT_OK);
    assert_int_equal(commit(w, ALICE, &mine), WEFT_EXISTS);
    assert_int_equal(wf_store_remove(&w->store, theirs, true, &removed), WEFT_OK);
    assert_int_equal(commit(w, ALICE, &child), WEFT_E_PARENT);
    wf_store_bury(&w->store);
    wf_store_verify(&w->store);
    assert_int_equal(w->store.used_bytes, 0);
}

static void test_make_free_gives_back(void **state)
{
    struct world *w = *state;
    for (uint64_t key = 0; key < 64; key++)
        put(w, key, WF_SLOT_NONE);
    assert_int_equal(wf_store_make_free(&w->store, 10 * WF_GRANULE, WF_EVICT_RECLAIM),
                     10 * WF_GRANULE);
    assert_int_equal(w->store.blocks, 54);
    assert_int_equal(w->gone_reason, WF_EVICT_RECLAIM);
    assert_int_equal(wf_store_make_free(&w->store, 1000 * WF_GRANULE, WF_EVICT_RECLAIM),
                     64 * WF_GRANULE);
    assert_int_equal(w->store.blocks, 0);
    wf_store_verify(&w->store);
}

/* Chains come and go in random order until the pool is full of small holes; then a block as large
 * as sixty small ones is asked for.  It must not cost the whole pool. */
static void test_a_large_block_among_small_ones(void **state)
{
    (void)state;
    static struct world world;
    struct world *w = &world;
    world_open(w, 512, UINT64_MAX / 2, 512 * WF_GRANULE, WORLD_SLOTS);
    struct random_source random = {7};
    uint64_t key = 0;
    for (int round = 0; round < 2000; round++) {
        uint32_t parent = WF_SLOT_NONE;
        for (uint32_t n = 1 + random_below(&random, 6); n > 0; n--)
            parent = put(w, key++, parent);
        wf_store_used(&w->store, random_below(&random, WORLD_SLOTS), 0);
    }
    uint64_t before = w->gone_count;
    uint32_t slot;
    assert_int_equal(reserve(w, BOB, key, 60, WF_SLOT_NONE, &slot), WEFT_OK);
    assert_in_range(w->gone_count - before, 60 - 1, 4 * 60);
    wf_store_verify(&w->store);
    world_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_reserve_hides_and_commit_shows),
        TEST(test_only_the_owner_commits),
        TEST(test_duplicate_first_wins),
        TEST(test_duplicate_second_wins),
        TEST(test_duplicate_parent_lets_go),
        TEST(test_commit_out_of_order),
        TEST(test_abort_orders),
        TEST(test_parents),
        TEST(test_pinned_and_held_stay),
        TEST(test_leaves_first),
        TEST(test_what_is_shared_is_not_weighed),
        TEST(test_what_is_brought_up_is_not_used),
        TEST(test_a_pinned_chain_hides_no_victim),
        TEST(test_full_and_quota),
        TEST(test_huge_blocks_are_refused),
        TEST(test_out_of_slots),
        TEST(test_order_is_lru),
        TEST(test_what_another_node_has_goes_first),
        TEST(test_the_look_for_another_nodes_is_bounded),
        TEST(test_remove),
        TEST(test_condemn_with_pins),
        TEST(test_condemn_under_a_duplicate),
        TEST(test_make_free_gives_back),
        cmocka_unit_test(test_a_large_block_among_small_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
