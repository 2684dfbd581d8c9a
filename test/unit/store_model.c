/* SPDX-License-Identifier: Apache-2.0
 *
 * Random operations on a store, against a model that obeys the same rules with an array and loops.
 *
 * The keys form a tree, fixed beforehand: a key says what precedes it, as real keys do.  The model
 * predicts every answer but one: for room, the store may say FULL only when the model has nothing
 * that may go, and whatever goes must be the least recently used of what may (except for room in
 * one piece, which neighbours make).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store_world.h"

#define KEYS 300
#define NODES 1024
#define NOBODY (-1)

enum kind { UNUSED = 0, RESERVED, DUPLICATE, DEAD, BLOCK };

/* What the model knows of a slot in use. */
struct node {
    enum kind kind;
    int key, parent; /* parent: node, or NOBODY */
    uint32_t client, slot, holds, children, sessions;
    uint64_t last;
    bool charged;
};

struct model {
    struct world world;
    struct node nodes[NODES];
    int parent_key[KEYS];
    uint32_t granules[KEYS];
    int block[KEYS]; /* node of the committed block, or NOBODY */
    uint64_t clock, operations, counts[WF_EVICT_REASONS];
    bool listening; /* evictions are checked against LRU order */
    struct random_source random;
};

static struct model *the_model; /* for world.on_gone */

static uint32_t pins_of(const struct model *m, const struct node *n)
{
    return m->world.pins[n->slot];
}

static bool may_go(const struct model *m, const struct node *n)
{
    return n->kind == BLOCK && n->children == 0 && n->holds == 0 && pins_of(m, n) == 0;
}

static void used(struct model *m, int at)
{
    m->nodes[at].last = ++m->clock;
}

static void unhold(struct model *m, int at);

static void forget(struct model *m, int at)
{
    struct node *n = &m->nodes[at];
    int serves = n->kind == DUPLICATE ? n->parent : NOBODY;
    n->kind = UNUSED;
    if (serves != NOBODY)
        unhold(m, serves);
}

static void unhold(struct model *m, int at)
{
    struct node *n = &m->nodes[at];
    assert_true(n->holds > 0);
    if (--n->holds == 0 && (n->kind == DUPLICATE || (n->kind == DEAD && pins_of(m, n) == 0)))
        forget(m, at);
}

static void discard(struct model *m, int at)
{
    struct node *n = &m->nodes[at];
    int parent = n->parent;
    n->kind = n->holds ? DEAD : UNUSED;
    if (parent != NOBODY)
        unhold(m, parent);
}

/* The block with this key has gone: was it its turn? */
static void gone(struct world *w, const uint8_t key[32], enum wf_evict_reason reason)
{
    struct model *m = the_model;
    uint8_t bytes[32];
    int at = NOBODY;
    bool held = false; /* condemned, and dead in the model already */
    (void)w;
    for (int i = 0; i < NODES && at == NOBODY; i++) {
        random_key((uint64_t)m->nodes[i].key, bytes);
        if (m->nodes[i].kind == BLOCK && memcmp(bytes, key, 32) == 0)
            at = i;
        held |= m->nodes[i].kind == DEAD && memcmp(bytes, key, 32) == 0;
    }
    if (at == NOBODY && held) {
        assert_int_equal(reason, WF_EVICT_CORRUPT);
        return;
    }
    assert_int_not_equal(at, NOBODY);
    struct node *n = &m->nodes[at];
    assert_true(may_go(m, n));
    if (reason == WF_EVICT_QUOTA || reason == WF_EVICT_RECLAIM)
        for (int i = 0; i < NODES; i++)
            assert_false(may_go(m, &m->nodes[i]) && m->nodes[i].last < n->last);
    m->counts[reason]++;
    m->block[n->key] = NOBODY;
    n->kind = UNUSED;
    if (n->parent != NOBODY)
        m->nodes[n->parent].children--;
}

static int node_take(struct model *m)
{
    for (int i = 0; i < NODES; i++)
        if (m->nodes[i].kind == UNUSED) {
            m->nodes[i] = (struct node){.parent = NOBODY};
            return i;
        }
    fail_msg("the model has too few nodes");
    return NOBODY;
}

/* A random node for which `fits` holds; NOBODY when a few tries find none. */
static int pick(struct model *m, bool (*fits)(const struct model *m, const struct node *n))
{
    int from = (int)random_below(&m->random, NODES);
    for (int i = 0; i < NODES; i++)
        if (fits(m, &m->nodes[(from + i) % NODES]))
            return (from + i) % NODES;
    return NOBODY;
}

static bool is_block(const struct model *m, const struct node *n)
{
    (void)m;
    return n->kind == BLOCK;
}

static bool is_reserved(const struct model *m, const struct node *n)
{
    (void)m;
    return n->kind == RESERVED;
}

static bool is_held(const struct model *m, const struct node *n)
{
    (void)m;
    return n->sessions > 0 && n->kind != UNUSED;
}

static bool is_pinned(const struct model *m, const struct node *n)
{
    return (n->kind == BLOCK || n->kind == DEAD) && pins_of(m, n) > 0;
}

/* ---------------------------------------------------------------------------------- operations */

static int reserve_one(struct model *m, uint32_t client, int key, int parent)
{
    struct wf_store *store = &m->world.store;
    struct wf_parent p = {.slot = parent == NOBODY ? WF_SLOT_NONE : m->nodes[parent].slot};
    uint8_t bytes[32];
    uint32_t slot;
    random_key((uint64_t)key, bytes);
    bool exists = m->block[key] != NOBODY;
    if (parent != NOBODY)
        m->nodes[parent].holds++; /* while room is looked for */
    enum weft_status status = wf_store_reserve(store, client, &m->world.reservations[client], bytes,
                                               m->granules[key] * WF_GRANULE, &p, WF_POLICY_ANY,
                                               &slot);
    assert_int_equal(status == WEFT_EXISTS, exists);
    if (status == WEFT_OK) {
        int at = node_take(m);
        struct node *n = &m->nodes[at];
        *n = (struct node){
            .kind = RESERVED, .key = key, .parent = parent, .client = client, .slot = slot};
        return at;
    }
    if (parent != NOBODY)
        m->nodes[parent].holds--;
    if (exists) {
        assert_int_equal(slot, m->nodes[m->block[key]].slot);
        used(m, m->block[key]);
        return m->block[key];
    }
    assert_int_equal(status, WEFT_FULL);
    if (parent != NOBODY)
        m->nodes[parent].holds++;
    for (int i = 0; i < NODES; i++)
        assert_false(may_go(m, &m->nodes[i]));
    if (parent != NOBODY)
        m->nodes[parent].holds--;
    return NOBODY;
}

/* A chain for one client, from the first block on: what an engine does. */
static void reserve_chain(struct model *m)
{
    int chain[KEYS], length = 0, parent = NOBODY;
    uint32_t client = 1 + random_below(&m->random, WORLD_CLIENTS - 1);
    for (int key = (int)random_below(&m->random, KEYS); key != NOBODY; key = m->parent_key[key])
        chain[length++] = key;
    while (length-- > 0) {
        parent = reserve_one(m, client, chain[length], parent);
        if (parent == NOBODY)
            return;
    }
}

static void commit_one(struct model *m, int at)
{
    struct node *n = &m->nodes[at];
    uint32_t slot = n->slot;
    enum weft_status status = wf_store_commit(&m->world.store, &m->world.reservations[n->client],
                                              &slot);
    int serves = m->block[n->key], reserved_on = n->parent, parent = reserved_on;
    if (serves != NOBODY) {
        assert_int_equal(status, WEFT_EXISTS);
        assert_int_equal(slot, m->nodes[serves].slot);
        if (n->holds == 0) {
            discard(m, at);
            return;
        }
        n->kind = DUPLICATE;
        n->parent = serves;
        m->nodes[serves].holds++;
        if (reserved_on != NOBODY)
            unhold(m, reserved_on);
        return;
    }
    if (parent != NOBODY && m->nodes[parent].kind == DUPLICATE)
        parent = m->nodes[parent].parent;
    else if (parent != NOBODY && m->nodes[parent].kind == DEAD &&
             m->block[m->nodes[parent].key] != NOBODY)
        parent = m->block[m->nodes[parent].key]; /* put again since: that one serves */
    if (parent != NOBODY && m->nodes[parent].kind != BLOCK) {
        assert_int_equal(status, WEFT_E_PARENT);
        discard(m, at);
        return;
    }
    assert_int_equal(status, WEFT_OK);
    n->kind = BLOCK;
    n->parent = parent;
    m->block[n->key] = at;
    used(m, at);
    if (parent != NOBODY)
        m->nodes[parent].children++;
    if (reserved_on != NOBODY)
        unhold(m, reserved_on);
}

/* Commit what a client has, oldest first, or one at random. */
static void commit_some(struct model *m)
{
    int at = pick(m, is_reserved);
    if (at == NOBODY)
        return;
    if (random_below(&m->random, 4) == 0) {
        commit_one(m, at);
        return;
    }
    uint32_t client = m->nodes[at].client, slots[NODES], count = 0;
    for (uint32_t slot = m->world.reservations[client].head; slot != WF_SLOT_NONE;
         slot = m->world.store.slots[slot].next)
        slots[count++] = slot;
    while (count-- > 0)
        for (int i = 0; i < NODES; i++)
            if (m->nodes[i].kind == RESERVED && m->nodes[i].slot == slots[count]) {
                commit_one(m, i);
                break;
            }
}

static void client_dies(struct model *m)
{
    uint32_t client = 1 + random_below(&m->random, WORLD_CLIENTS - 1);
    struct wf_reservations *list = &m->world.reservations[client];
    while (list->head != WF_SLOT_NONE) { /* the model follows the store's order, newest first */
        int at = NOBODY;
        for (int i = 0; i < NODES && at == NOBODY; i++)
            if (m->nodes[i].kind == RESERVED && m->nodes[i].slot == list->head)
                at = i;
        assert_int_not_equal(at, NOBODY);
        uint32_t slot = list->head;
        wf_store_abort(&m->world.store, list, slot);
        discard(m, at);
    }
    wf_store_abort_all(&m->world.store, list);
    assert_int_equal(list->count, 0);
}

static void use_chain(struct model *m, int at)
{
    for (; at != NOBODY; at = m->nodes[at].parent) {
        wf_store_used(&m->world.store, m->nodes[at].slot, 0);
        used(m, at);
    }
}

/* A pinned block is passed over, and then it and those before it count as just used.  So that the
 * model need not know how often that happened, letting go of a pin counts as a use of the chain. */
static void unpin(struct model *m, int at)
{
    m->world.pins[m->nodes[at].slot]--;
    if (m->nodes[at].kind == DEAD) {
        wf_store_bury(&m->world.store);
        if (pins_of(m, &m->nodes[at]) == 0 && m->nodes[at].holds == 0)
            forget(m, at);
        return;
    }
    use_chain(m, at);
}

static void session_ends(struct model *m)
{
    int at = pick(m, is_held);
    if (at == NOBODY)
        return;
    m->nodes[at].sessions--;
    wf_store_unhold(&m->world.store, m->nodes[at].slot);
    wf_store_bury(&m->world.store);
    unhold(m, at);
}

static bool in_tree(const struct model *m, int at, int root)
{
    while (at != NOBODY && at != root)
        at = m->nodes[at].parent;
    return at == root;
}

static void remove_tree(struct model *m, bool condemn)
{
    int root = pick(m, is_block);
    if (root == NOBODY)
        return;
    int before = m->nodes[root].parent;
    uint64_t removed = 0, expected = 0;
    bool busy = false, tree[NODES];
    for (int i = 0; i < NODES; i++) {
        tree[i] = m->nodes[i].kind == BLOCK && in_tree(m, i, root);
        expected += tree[i];
        busy |= tree[i] && (m->nodes[i].holds || pins_of(m, &m->nodes[i]));
    }
    /* Held ones become DEAD in the model before the others are heard to go. */
    if (condemn)
        for (int i = 0; i < NODES; i++)
            if (tree[i] && (m->nodes[i].holds || pins_of(m, &m->nodes[i]))) {
                m->nodes[i].kind = DEAD;
                m->block[m->nodes[i].key] = NOBODY;
                if (m->nodes[i].parent != NOBODY)
                    m->nodes[m->nodes[i].parent].children--;
            }
    enum weft_status status = wf_store_remove(&m->world.store, m->nodes[root].slot, condemn,
                                              &removed);
    assert_int_equal(status, busy && !condemn ? WEFT_E_BUSY : WEFT_OK);
    assert_int_equal(removed, status == WEFT_OK ? expected : 0);
    if (condemn)
        use_chain(m, before);
}

static void make_free(struct model *m)
{
    uint64_t wanted = random_below(&m->random, 64) * (uint64_t)WF_GRANULE;
    uint64_t got = wf_store_make_free(&m->world.store, wanted, WF_EVICT_RECLAIM);
    if (got < wanted)
        for (int i = 0; i < NODES; i++)
            assert_false(may_go(m, &m->nodes[i]));
}

static void punched(void *context, uint64_t first, uint64_t count)
{
    (void)context, (void)first, (void)count;
}

static void trim(struct model *m)
{
    struct wf_store *store = &m->world.store;
    uint64_t done = wf_arena_trim(&store->arena, random_below(&m->random, 32), punched, NULL);
    store->backed_bytes -= done * WF_GRANULE;
    m->world.budget += done * WF_GRANULE;
}

static void operate(struct model *m)
{
    uint32_t what = random_below(&m->random, 100);
    int at;
    if (what < 30) {
        reserve_chain(m);
    } else if (what < 50) {
        commit_some(m);
    } else if (what < 56 && (at = pick(m, is_reserved)) != NOBODY) {
        wf_store_abort(&m->world.store, &m->world.reservations[m->nodes[at].client],
                       m->nodes[at].slot);
        wf_store_bury(&m->world.store);
        discard(m, at);
    } else if (what < 58) {
        client_dies(m);
    } else if (what < 66 && (at = pick(m, is_block)) != NOBODY) {
        m->world.pins[m->nodes[at].slot]++;
    } else if (what < 75 && (at = pick(m, is_pinned)) != NOBODY) {
        unpin(m, at);
    } else if (what < 79 && (at = pick(m, is_block)) != NOBODY) {
        wf_store_hold(&m->world.store, m->nodes[at].slot);
        m->nodes[at].holds++;
        m->nodes[at].sessions++;
    } else if (what < 84) {
        session_ends(m);
    } else if (what < 92 && (at = pick(m, is_block)) != NOBODY) {
        wf_store_used(&m->world.store, m->nodes[at].slot, 0);
        used(m, at);
    } else if (what < 94) {
        remove_tree(m, false);
    } else if (what < 95) {
        remove_tree(m, true);
    } else if (what < 97) {
        make_free(m);
    } else if (what < 99) {
        trim(m);
    } else {
        m->world.store.other_bytes = random_below(&m->random, 40) * (uint64_t)WF_GRANULE;
    }
}

static void compare(struct model *m)
{
    const struct wf_store *store = &m->world.store;
    uint64_t blocks = 0, reserved = 0, bytes = 0;
    for (int i = 0; i < NODES; i++) {
        const struct node *n = &m->nodes[i];
        uint8_t key[32];
        if (n->kind == UNUSED)
            continue;
        bytes += m->granules[n->key] * (uint64_t)WF_GRANULE;
        reserved += n->kind == RESERVED;
        assert_int_equal(store->slots[n->slot].holds, n->holds);
        if (n->kind != BLOCK)
            continue;
        blocks++;
        random_key((uint64_t)n->key, key);
        assert_int_equal(wf_store_find(store, key), n->slot);
    }
    assert_int_equal(store->blocks, blocks);
    assert_int_equal(store->reserved_blocks, reserved);
    assert_int_equal(store->used_bytes, bytes);
}

static void run(uint64_t operations)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    the_model = m;
    m->random = random_seeded("store_model");
    /* Quota above the budget, budget below the pool: each of the three is the limit at times. */
    world_open(&m->world, 256, 200 * WF_GRANULE, 180 * WF_GRANULE, WORLD_SLOTS);
    m->world.on_gone = gone;
    for (int key = 0; key < KEYS; key++) {
        m->parent_key[key] = key < 10 ? NOBODY : (int)random_below(&m->random, (uint32_t)key);
        m->granules[key] = 1 + random_below(&m->random, 6);
        m->block[key] = NOBODY;
    }
    for (uint64_t i = 0; i < operations; i++) {
        operate(m);
        wf_store_bury(&m->world.store); /* as the node's clock does */
        compare(m);
        if (i % 64 == 0)
            wf_store_verify(&m->world.store);
    }
    for (int i = 0; i < WF_EVICT_REASONS; i++)
        print_message("# %s: %llu\n", wf_evict_reason_name((enum wf_evict_reason)i),
                      (unsigned long long)m->counts[i]);
    assert_true(m->counts[WF_EVICT_ROOM] && m->counts[WF_EVICT_QUOTA]);
    wf_store_verify(&m->world.store);
    world_close(&m->world);
    free(m);
}

static void test_random_operations(void **state)
{
    const char *given = getenv("WEFT_TEST_OPERATIONS");
    (void)state;
    run(given ? (uint64_t)strtoull(given, NULL, 0) : 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_operations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
