/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that go to other lenders, between a few nodes in virtual time: a lender that drains, one
 * that is lost, one that has more than its share; and what ends half-way.
 *
 * Node a computes and has a pool; b, c and d lend memory.  All of it twice: where each knows of all
 * copies, and where each keeps a part of the directory.
 */
#include "fabric_world.h"

#include "fabric/inner.h"
#include "member/sim.h"

#define NODES 4
#define PART 4096u
#define BYTES 65536u
#define POOL 64u
#define RATE 4000000u /* bytes a second at which blocks move: 61 blocks */

struct node {
    struct wf_fabric *fabric;
    uint32_t first, count; /* of what is in its pool */
    uint32_t held;
    uint32_t heard; /* blocks that others have, or what it lends, and that it did not know of */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};
enum { A, B, C, D };
static uint32_t copies, replica; /* replica 0: as it is by default */
static bool parts;
static struct wf_member_sim_world *registry;

static struct wf_fabric_event event_of(uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = number % 8, .bytes = BYTES};
    for (int i = 0; i < 32; i++)
        event.key[i] = (uint8_t)((number * 2654435761u) >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    return event;
}

static const uint8_t *content(uint32_t number)
{
    static uint8_t data[POOL * 4][BYTES];
    for (uint32_t i = 0; i < BYTES && !data[number][BYTES - 1]; i++)
        data[number][i] = (uint8_t)(1 + (number * 7 + i / 5) % 255);
    return data[number];
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    for (uint32_t i = n->first; i < n->first + n->count; i++) {
        struct wf_fabric_event event = event_of(i);
        if (memcmp(event.key, key, 32) != 0 || domain != 0)
            continue;
        *out = (struct wf_fabric_held){.data = content(i), .bytes = bytes};
        n->held++;
        return WEFT_OK;
    }
    return WEFT_MISS;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    assert_non_null(held->data);
    ((struct node *)context)->held--;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    (void)domain;
    for (uint32_t i = 0; i < 5 && *cursor < n->count; i++, (*cursor)++) {
        struct wf_fabric_event event = event_of(n->first + (uint32_t)*cursor);
        found(to, &event);
    }
    return *cursor < n->count;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    (void)from;
    ((struct node *)context)->heard += block->kind == WF_FABRIC_HERE && block->bytes > 0;
    return true;
}

static uint32_t part_bytes(uint64_t bytes)
{
    (void)bytes;
    return PART;
}

static char said[8192]; /* by all of them, for people */

static void told(void *context, const char *sentence)
{
    size_t length = strlen(said);
    (void)context;
    snprintf(said + length, sizeof said - length, "%s\n", sentence);
}

static void node_begin(int i, uint64_t lend)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.each = each;
    options.host.told = told;
    options.host.news = news;
    options.host.part_bytes = part_bytes;
    options.lend_bytes = lend;
    options.copies = copies;
    options.replica_copies = replica ? replica : options.replica_copies;
    options.move_bytes_s = RATE;
    options.show_ms = 10;
    if (parts) {
        options.registry = "sim:cluster";
        options.member = &wf_member_sim;
        options.member_world = registry;
        options.directory = WF_FABRIC_DIRECTORY_PARTS;
    }
    world_node(i, &options);
}

static void begin(const uint64_t lend[NODES], uint32_t copies_wanted)
{
    copies = copies_wanted;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 7});
    struct wf_member_sim_options members = {.time = vtime, .seed = 9};
    assert_int_equal(wf_member_sim_world_create(&members, &registry), WEFT_OK);
    for (int i = 0; i < NODES; i++)
        if (i < 3 || lend[i])
            node_begin(i, lend[i]);
    pass(2500);
}

static void node_end(int i)
{
    world_node_end(i);
    assert_int_equal(nodes[i].held, 0);
}

static void end(void)
{
    for (int i = 0; i < NODES; i++)
        node_end(i);
    wf_member_sim_world_destroy(registry);
    world_end();
}

/* -------------------------------------------------------------------------------- put and read */

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    over(status);
}

static void put(uint32_t number)
{
    struct wf_fabric_store s = {.block = event_of(number),
                                .part_bytes = PART,
                                .data = content(number),
                                .done = stored};
    ended = false;
    wf_fabric_store(nodes[A].fabric, &s);
    assert_int_equal(until_over(4000, 20), WEFT_OK);
}

static enum weft_status get(int node, uint32_t number)
{
    static uint8_t data[BYTES];
    struct wf_fabric_fetch f = {.bytes = BYTES, .part_bytes = PART, .data = data, .done = fetched};
    struct wf_fabric_event event = event_of(number);
    memcpy(f.key, event.key, 32);
    memset(data, 0, sizeof data);
    ended = false;
    wf_fabric_fetch(nodes[node].fabric, &f);
    if (until_over(8000, 20) == WEFT_OK)
        assert_memory_equal(data, content(number), BYTES);
    return outcome;
}

/* It has these in its pool, and tells. */
static void have(int node, uint32_t count)
{
    nodes[node].count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct wf_fabric_event event = event_of(i);
        wf_fabric_tell(nodes[node].fabric, &event);
    }
}

static uint32_t readable(int node, uint32_t first, uint32_t count)
{
    uint32_t found = 0;
    for (uint32_t i = first; i < first + count; i++)
        found += get(node, i) == WEFT_OK;
    return found;
}

/* --------------------------------------------------------------------------------------- tests */

static const uint64_t none[NODES] = {0, 0, 0, 0};
static const uint64_t one[NODES] = {0, 8 << 20, 0, 0};
static const uint64_t two[NODES] = {0, 8 << 20, 8 << 20, 0};
static const uint64_t three[NODES] = {0, 8 << 20, 8 << 20, 8 << 20};

static void a_lender_that_drains_is_empty_at_last(void **state)
{
    (void)state;
    begin(two, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    uint64_t had = figures_of(B).lent_blocks, moved = 0;
    assert_in_range(had, POOL / 4, POOL / 4 * 3);
    struct wf_fabric_figures f;
    wf_fabric_drain(nodes[B].fabric, true);
    for (int i = 0; i < 40 && moved == 0; i++) {
        f = figures_of(B);
        moved = f.moved;
        assert_true(f.moved_bytes <= RATE / 4 + (uint64_t)(i + 1) * RATE / 8);
    }
    assert_false(f.drained);
    assert_in_range(f.move_last_bytes, BYTES, had * BYTES);
    assert_in_range(f.move_left_ms, 1, 1100);
    pass(3000);
    f = figures_of(B);
    assert_true(f.drained);
    assert_int_equal(f.moved, had);
    assert_int_equal(f.move_last_bytes + f.move_few_bytes + f.move_share_bytes, 0);
    node_end(B);
    pass(6000);
    assert_int_equal(readable(A, 0, POOL), POOL);
    struct wf_fabric_peer peers[NODES];
    (void)figures_of(C);
    uint32_t count = wf_fabric_peers(nodes[C].fabric, peers, NODES);
    for (uint32_t i = 0; i < count; i++) /* what b had moved there took no room of a's */
        if (strcmp(peers[i].name, "a") == 0)
            assert_in_range(peers[i].held_bytes, (POOL - had) * BYTES, (POOL - had) * 2 * BYTES);
    end();
}

static void off_again_moves_no_more(void **state)
{
    (void)state;
    begin(two, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    wf_fabric_drain(nodes[B].fabric, true);
    pass(300);
    wf_fabric_drain(nodes[B].fabric, false);
    pass(300);
    uint64_t moved = figures_of(B).moved;
    assert_false(figures_of(B).drained);
    pass(5000);
    assert_int_equal(figures_of(B).moved, moved);
    assert_int_equal(figures_of(B).move_last_bytes, 0);
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

/* A router there counts on it as well, and on what only all of them together have: of a chain whose
 * first blocks are all that lies in B's memory. */
static void route_counts_what_is_lent(void)
{
    static struct wf_routes_answer answer;
    uint8_t chain[POOL][32];
    uint32_t own = 0, others = (uint32_t)figures_of(B).lent_blocks;
    for (uint32_t i = 0; i < POOL; i++) {
        struct wf_fabric_event event = event_of(i);
        bool is_own = wf_lent_has(nodes[B].fabric->lent, 0, event.key, NULL);
        memcpy(chain[is_own ? own++ : others++], event.key, 32);
    }
    assert_int_equal(others, POOL);
    struct wf_routes_candidate b = {.loaded = true, .load = {.tokens_s = 10000}};
    snprintf(b.name, sizeof b.name, "%s", nodes[B].fabric->name);
    const struct wf_routes_question question = {
        .keys = (const uint8_t(*)[32])chain,
        .count = POOL,
        .request = {.tokens = POOL * 16.0,
                    .block_tokens = 16,
                    .block_bytes = BYTES,
                    .prefill = {.token_s = 1e-4, .attended_s = 1e-9}},
        .candidates = &b,
        .candidate_count = 1,
        .asks_only = true,
    };
    /* In parts it asks, and knows a moment later. */
    assert_int_equal(wf_fabric_route(nodes[B].fabric, &question, &answer), WEFT_OK);
    pass(500);
    assert_int_equal(wf_fabric_route(nodes[B].fabric, &question, &answer), WEFT_OK);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(answer.terms[0].near_blocks, own);
    assert_int_equal(answer.terms[0].term.load_blocks, POOL);
    assert_int_equal(answer.terms[0].term.fetch_blocks, POOL - own);
}

/* What others put into a node's memory its own clients read there, and nothing that is not as it
 * came. */
static void who_lends_reads_what_is_lent(void **state)
{
    (void)state;
    begin(two, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    uint64_t from_others = figures_of(C).serves;
    assert_int_equal(readable(B, 0, POOL), POOL);
    assert_int_equal(figures_of(C).serves - from_others, figures_of(C).lent_blocks);
    route_counts_what_is_lent();
    struct wf_lent *lent = nodes[B].fabric->lent;
    struct wf_lent_block block;
    struct wf_fabric_event event;
    uint32_t entry = WF_LENT_NONE, number = 0;
    for (uint32_t i = 0; i < POOL && entry == WF_LENT_NONE; i++) {
        number = i;
        event = event_of(i);
        entry = wf_lent_hold(lent, 0, event.key, &block);
    }
    assert_int_not_equal(entry, WF_LENT_NONE);
    ((uint8_t *)(uintptr_t)block.data)[BYTES - 1] ^= 1;
    wf_lent_let_go(lent, entry);
    assert_int_not_equal(get(B, number), WEFT_OK);
    assert_false(wf_lent_has(lent, 0, event.key, NULL));
    assert_int_not_equal(get(B, number), WEFT_OK);
    pass(500);
    assert_int_not_equal(get(A, number), WEFT_OK); /* who put it there heard of that */
    assert_int_equal(readable(B, 0, POOL), POOL - 1);
    end();
}

/* What another has in its pool is known of already, which the host of a node that keeps a part of
 * the directory was not told: of what that one puts into its memory it is. */
static void who_lends_is_told_of_what_is_lent(void **state)
{
    (void)state;
    begin(one, 1);
    have(A, POOL / 2);
    pass(500);
    for (uint32_t i = 0; i < POOL / 2; i++)
        put(i);
    assert_int_equal(figures_of(B).lent_blocks, POOL / 2);
    assert_int_equal(nodes[B].heard, POOL / 2);
    end();
}

/* Of a chain whose first block goes the rest goes, too: here alone, or wherever it is lent. */
static void what_is_lent_is_forgotten(void **state)
{
    (void)state;
    uint8_t keys[POOL][32];
    begin(two, 1);
    for (uint32_t i = 0; i < POOL; i++) {
        struct wf_fabric_event event = event_of(i);
        memcpy(keys[i], event.key, 32);
        put(i);
    }
    uint64_t at_c = figures_of(C).lent_blocks;
    assert_in_range(at_c, 1, POOL - 1);
    struct wf_fabric *b = nodes[B].fabric;
    assert_int_equal(wf_fabric_forget_lent(b, 0, (const uint8_t(*)[32])keys, POOL, false), WEFT_OK);
    pass(500);
    assert_int_equal(figures_of(B).lent_blocks, 0);
    assert_int_equal(figures_of(C).lent_blocks, at_c);
    assert_int_equal(readable(A, 0, POOL), at_c);
    struct wf_fabric *a = nodes[A].fabric;
    assert_int_equal(wf_fabric_forget_lent(a, 0, (const uint8_t(*)[32])keys, POOL, true), WEFT_OK);
    pass(500);
    assert_int_equal(figures_of(C).lent_blocks, 0);
    assert_int_equal(readable(A, 0, POOL), 0);
    end();
}

/* No more than a quarter of what a replica holds is a lender's own: of the rest it knows when there
 * is room. */
static void what_finds_no_room_is_known_of_later(void **state)
{
    (void)state;
    replica = POOL;
    begin(one, 1);
    replica = 0;
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    assert_int_equal(figures_of(B).lent_blocks, POOL);
    assert_int_equal(nodes[B].heard, POOL / 4);
    assert_int_equal(figures_of(B).replica_copies_max, POOL - POOL / 4);
    for (uint32_t i = 0; i < POOL; i++) {
        struct wf_fabric_event event = event_of(i);
        if (wf_stream_is_own(nodes[B].fabric, event.key))
            (void)wf_lent_forget(nodes[B].fabric->lent, 0, event.key);
    }
    assert_int_equal(figures_of(B).lent_blocks, POOL - POOL / 4);
    assert_int_equal(figures_of(B).replica_copies_max, POOL);
    pass(11000);
    assert_int_equal(nodes[B].heard, 2 * (POOL / 4));
    assert_int_equal(readable(B, 0, POOL), POOL - POOL / 4);
    end();
}

/* Without a lender what several pools have is safe, however many copies there should be in memory
 * that is lent. */
static void what_another_pool_has_need_not_go(void **state)
{
    (void)state;
    begin(none, 2);
    for (int node = A; node <= B; node++) {
        have(node, POOL / 2);
    }
    pass(500);
    wf_fabric_drain(nodes[A].fabric, true);
    pass(5000);
    assert_true(figures_of(A).drained);
    end();
}

/* A node that only computes hands its pool to those that lend. */
static void a_pool_is_drained_too(void **state)
{
    (void)state;
    begin(two, 1);
    have(A, POOL - 1);
    pass(500);
    wf_fabric_drain(nodes[A].fabric, true);
    pass(4000);
    assert_true(figures_of(A).drained);
    /* Its own engine goes on: nobody else has that. */
    struct wf_fabric_event event = event_of(POOL - 1);
    struct wf_fabric_figures at_once;
    nodes[A].count = POOL;
    wf_fabric_tell(nodes[A].fabric, &event);
    wf_fabric_figures(nodes[A].fabric, &at_once);
    assert_false(at_once.drained);
    pass(4000);
    assert_true(figures_of(A).drained);
    node_end(A);
    pass(6000);
    uint32_t at_b = (uint32_t)figures_of(B).lent_blocks, at_c = (uint32_t)figures_of(C).lent_blocks;
    assert_int_equal(at_b + at_c, POOL);
    assert_in_range(at_b, POOL / 4, POOL / 4 * 3); /* to both */
    assert_int_equal(readable(B, 0, POOL), POOL);  /* its own memory is no stranger's */
    end();
}

/* Who drains sees to one copy, and who has that to the others that there should be. */
static void what_was_drained_has_all_its_copies(void **state)
{
    (void)state;
    begin(three, 2);
    have(A, POOL / 2);
    pass(500);
    wf_fabric_drain(nodes[A].fabric, true);
    pass(5000);
    assert_true(figures_of(A).drained);
    node_end(A);
    pass(20000);
    uint64_t lent = 0;
    for (int i = B; i <= D; i++)
        lent += figures_of(i).lent_blocks;
    assert_int_equal(lent, 2 * (POOL / 2));
    node_end(C);
    pass(6000);
    assert_int_equal(readable(B, 0, POOL / 2), POOL / 2);
    end();
}

/* What a node that leaves has and others have as well stays where it is. */
static void what_others_have_is_not_handed_on(void **state)
{
    (void)state;
    begin(three, 1);
    nodes[A].count = POOL;
    for (uint32_t i = 0; i < POOL; i++) {
        struct wf_fabric_event event = event_of(i);
        wf_fabric_tell(nodes[A].fabric, &event);
        if (i % 4)
            put(i);
    }
    pass(6000); /* what a put was answered with is no news any more */
    uint64_t before = 0, after = 0;
    for (int i = B; i <= D; i++)
        before += figures_of(i).lent_blocks;
    wf_fabric_drain(nodes[A].fabric, true);
    pass(5000);
    struct wf_fabric_figures f = figures_of(A);
    assert_true(f.drained);
    assert_int_equal(f.moved, POOL / 4);
    for (int i = B; i <= D; i++)
        after += figures_of(i).lent_blocks;
    assert_int_equal(before, POOL / 4 * 3);
    assert_int_equal(after, POOL);
    end();
}

/* A lender may have to let go of a block as soon as it has it.  Who drains in parts hears of that
 * from who owns the block's shard alone, and believes no longer what its put was answered with. */
static void what_went_from_a_lender_is_handed_on_again(void **state)
{
    (void)state;
    begin(two, 1);
    have(A, POOL);
    pass(500);
    wf_fabric_drain(nodes[A].fabric, true);
    for (int ms = 0; ms < 5000 && !figures_of(A).drained; ms += 20)
        pass(20);
    assert_true(figures_of(A).drained);
    uint32_t went = 0;
    for (uint32_t i = 0; i < POOL; i++) {
        struct wf_fabric_event event = event_of(i);
        for (int n = B; n <= C && !wf_parts_owns(nodes[A].fabric, event.key); n++)
            went += wf_lent_forget(nodes[n].fabric->lent, 0, event.key);
    }
    assert_in_range(went, POOL / 8, POOL);
    pass(2500); /* the next round, of which what was moved is 4 s old at most */
    uint64_t there = figures_of(B).lent_blocks + figures_of(C).lent_blocks;
    assert_true(there == POOL || !figures_of(A).drained);
    pass(3000);
    assert_true(figures_of(A).drained);
    assert_int_equal(figures_of(B).lent_blocks + figures_of(C).lent_blocks, POOL);
    end();
}

/* One lender after the other goes, and a new one comes for it: what was to be there twice is there
 * as long as there is time between them to copy it again. */
static void lenders_go_one_by_one(void **state)
{
    (void)state;
    begin(three, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    for (int round = 0; round < 4; round++) {
        int goes = B + round % 3;
        pass(2000);
        node_end(goes);
        node_begin(goes, 8 << 20);
        pass(13000);
        uint64_t blocks = 0;
        for (int i = B; i <= D; i++)
            blocks += figures_of(i).lent_blocks;
        assert_int_equal(blocks, 2 * POOL);
    }
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

static void without_room_it_says_so(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 8 << 20, 1 << 20, 0};
    begin(lend, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    wf_fabric_drain(nodes[B].fabric, true);
    pass(8000);
    struct wf_fabric_figures f = figures_of(B);
    assert_false(f.drained);
    assert_in_range(f.move_last_bytes, 30 * BYTES, POOL * BYTES);
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

static void what_a_lost_lender_had_is_copied_again(void **state)
{
    (void)state;
    begin(three, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    pass(500);
    uint64_t blocks = 0;
    for (int i = B; i <= D; i++)
        blocks += figures_of(i).lent_blocks;
    assert_int_equal(blocks, 2 * POOL); /* as many as were asked for */
    uint64_t lost = figures_of(D).lent_blocks;
    assert_in_range(lost, POOL / 3, POOL);
    node_end(D);
    uint64_t owed = 0;
    for (int i = 0; i < 100 && owed == 0; i++)
        owed = figures_of(B).move_few_bytes + figures_of(C).move_few_bytes;
    assert_in_range(owed, 1, lost * BYTES);
    pass(9000);
    assert_int_equal(figures_of(B).lent_blocks, POOL);
    assert_int_equal(figures_of(C).lent_blocks, POOL);
    assert_int_equal(figures_of(B).moved + figures_of(C).moved, lost); /* none of it twice */
    assert_int_equal(figures_of(B).move_few_bytes + figures_of(C).move_few_bytes, 0);
    node_end(C);
    pass(6000);
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

/* c can tell a, which owns shards, nothing: what it copies again is not held up by that. */
static void who_takes_no_question_holds_up_no_other(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 64 << 20, 64 << 20, 64 << 20};
    begin(lend, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    pass(500);
    struct wf_link *stuck = wf_peer_find(nodes[C].fabric, "a")->link;
    uint32_t notes = stuck->large_notes;
    stuck->large_notes = WF_LINK_EVENTS_MAX;
    node_end(D);
    pass(40000);
    assert_int_equal(figures_of(B).lent_blocks, POOL);
    assert_int_equal(figures_of(C).lent_blocks, POOL);
    assert_ptr_equal(wf_peer_find(nodes[C].fabric, "a")->link, stuck);
    stuck->large_notes = notes;
    end();
}

static uint64_t lent_blocks(void)
{
    uint64_t blocks = 0;
    for (int i = B; i <= D; i++)
        blocks += figures_of(i).lent_blocks;
    return blocks;
}

/* What it has was copied elsewhere meanwhile: all of it is there as often as was asked for. */
static void who_comes_back_leaves_no_copies_too_many(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 64 << 20, 64 << 20, 64 << 20};
    begin(lend, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    pass(500);
    wf_net_sim_group(world, "d", 1);
    pass(40000);
    assert_in_range(lent_blocks(), 2 * POOL + POOL / 3, 3 * POOL);
    wf_net_sim_group(world, "d", 0);
    pass(parts ? 120000 : 30000);
    assert_int_equal(lent_blocks(), 2 * POOL);
    for (int i = B; i <= D; i++)
        assert_int_equal(figures_of(i).lent_evicted, 0);
    assert_int_equal(readable(A, 0, POOL), POOL);
    node_end(D);
    pass(30000);
    assert_int_equal(figures_of(B).lent_blocks + figures_of(C).lent_blocks, 2 * POOL);
    end();
}

/* A lender that has blocks in its pool, too, keeps none of these for anybody else. */
static void what_a_pool_has_is_no_copy_too_many(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {64 << 20, 64 << 20, 64 << 20, 0};
    begin(lend, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    have(A, POOL);
    pass(parts ? 90000 : 20000);
    assert_int_equal(figures_of(B).lent_blocks, POOL);
    assert_int_equal(figures_of(C).lent_blocks, POOL);
    assert_int_equal(figures_of(B).lent_given + figures_of(C).lent_given, 0);
    end();
}

static uint32_t puts_of_c;

static void handed(void *context, const struct wf_net_sim_handed *m)
{
    struct wf_fabric_head head;
    (void)context;
    memcpy(&head, m->header, sizeof head);
    puts_of_c += head.kind == WF_FABRIC_PUT && strcmp(m->from, "c") == 0;
}

/* A node that others hear no more, and that is a member: c hears it, and copies nothing of what it
 * has, as long as owners of the shards may hear it again. */
static void who_is_not_heard_is_not_gone(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 64 << 20, 64 << 20, 64 << 20}; /* so that none is too full */
    begin(lend, 2);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    pass(500);
    puts_of_c = 0;
    wf_net_sim_tap(world, &(struct wf_net_sim_tap){NULL, handed});
    wf_net_sim_block(world, "d", "a", true);
    wf_net_sim_block(world, "d", "b", true);
    for (int i = 0; i < 100 && (peer_of(A, "d").up || peer_of(B, "d").up); i++)
        ;
    for (int i = 0; i < 2; i++) {
        wf_moves_soon(nodes[C].fabric);
        pass(2500);
        assert_int_equal(puts_of_c, 0);
    }
    pass(20000); /* that is for good */
    assert_true((puts_of_c > 0) == parts);
    end();
}

/* The lender that a draining one hands its blocks to dies in the middle, or the draining one does:
 * what was not lost with its only holder is there, and is right. */
static void what_ends_half_way_is_there_once_at_least(void **state)
{
    (void)state;
    for (int dies = B; dies <= C; dies++) {
        begin(three, 1);
        for (uint32_t i = 0; i < POOL; i++)
            put(i);
        uint64_t had[NODES];
        for (int i = B; i <= D; i++)
            had[i] = figures_of(i).lent_blocks;
        wf_fabric_drain(nodes[B].fabric, true);
        pass(100);
        node_end(dies);
        pass(9000);
        uint32_t found = readable(A, 0, POOL);
        if (dies == B) { /* it died with what it had not handed over */
            assert_in_range(found, had[C] + had[D], POOL);
        } else {
            assert_true(figures_of(B).drained);
            assert_in_range(found, had[B] + had[D], POOL);
        }
        end();
    }
}

static void who_joins_gets_its_share(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 8 << 20, 0, 0};
    begin(lend, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    node_end(C);
    node_begin(C, 8 << 20);
    pass(12000);
    uint64_t at_b = figures_of(B).lent_blocks, at_c = figures_of(C).lent_blocks;
    assert_int_equal(at_b + at_c, POOL); /* each in one place */
    assert_in_range(at_c, POOL / 2 - 8, POOL / 2 + 4);
    uint64_t moved = figures_of(B).moved + figures_of(C).moved;
    pass(10000);
    assert_int_equal(figures_of(B).moved + figures_of(C).moved, moved); /* and rests there */
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

static void who_lends_less_loses_nothing_that_finds_room(void **state)
{
    (void)state;
    begin(two, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    enum weft_status status = WEFT_PENDING;
    for (int i = 0; i < 100 && status == WEFT_PENDING; i++) {
        status = wf_fabric_lend(nodes[B].fabric, NULL, 1 << 20);
        pass(20);
    }
    assert_int_equal(status, WEFT_OK);
    pass(9000);
    struct wf_fabric_figures f = figures_of(B);
    assert_int_equal(f.lent_bytes, 1 << 20);
    assert_in_range(f.lent_used_bytes, 0, 1 << 20);
    assert_int_equal(f.lent_evicted, 0);
    assert_int_equal(f.lent_blocks + figures_of(C).lent_blocks, POOL);
    assert_int_equal(readable(A, 0, POOL), POOL);
    end();
}

/* It is told before they go that others are to have them, and then of how many nobody took. */
static void who_lends_less_says_what_found_no_room(void **state)
{
    (void)state;
    const uint64_t lend[NODES] = {0, 12 << 20, 1 << 20, 0};
    char words[80];
    begin(lend, 1);
    for (uint32_t i = 0; i < POOL; i++)
        put(i);
    said[0] = '\0';
    while (wf_fabric_lend(nodes[B].fabric, NULL, 1 << 20) == WEFT_PENDING)
        pass(20);
    for (int s = 0; s < 60 && figures_of(B).lent_used_bytes > 1 << 20; s++)
        pass(1000);
    struct wf_fabric_figures f = figures_of(B);
    assert_in_range(f.lent_used_bytes, 0, 1 << 20);
    assert_in_range(f.lent_evicted, 1, POOL);
    assert_non_null(strstr(said, "this node lends 1 MiB from now on; what is beyond goes to"));
    snprintf(words, sizeof words, "no other lender took all that is beyond; %u blocks, ",
             (uint32_t)f.lent_evicted);
    assert_non_null(strstr(said, words));
    end();
}

static int in_full(void **state)
{
    (void)state;
    parts = false;
    return 0;
}

static int in_parts(void **state)
{
    (void)state;
    parts = true;
    return 0;
}

#define BOTH(test)                                    \
    {#test, test, in_full, NULL, NULL},               \
    {                                                 \
#test " in parts", test, in_parts, NULL, NULL \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_lender_that_drains_is_empty_at_last),
        BOTH(off_again_moves_no_more),
        BOTH(who_lends_reads_what_is_lent),
        BOTH(who_lends_is_told_of_what_is_lent),
        BOTH(what_is_lent_is_forgotten),
        BOTH(what_finds_no_room_is_known_of_later),
        BOTH(what_another_pool_has_need_not_go),
        BOTH(a_pool_is_drained_too),
        BOTH(what_was_drained_has_all_its_copies),
        BOTH(what_others_have_is_not_handed_on),
        BOTH(what_went_from_a_lender_is_handed_on_again),
        BOTH(without_room_it_says_so),
        BOTH(what_a_lost_lender_had_is_copied_again),
        BOTH(who_takes_no_question_holds_up_no_other),
        BOTH(who_comes_back_leaves_no_copies_too_many),
        BOTH(what_a_pool_has_is_no_copy_too_many),
        BOTH(lenders_go_one_by_one),
        BOTH(who_is_not_heard_is_not_gone),
        BOTH(what_ends_half_way_is_there_once_at_least),
        BOTH(who_joins_gets_its_share),
        BOTH(who_lends_less_loses_nothing_that_finds_room),
        BOTH(who_lends_less_says_what_found_no_room),
    };
    return cmocka_run_group_tests_name("keep_moves", tests, NULL, NULL);
}
