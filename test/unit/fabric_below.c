/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies on a node's tiers alone, between nodes in virtual time (net/sim.h): it is told,
 * counted, read when another asks, and neither a tier that hangs nor one that is damaged harms
 * anybody.
 */
#include "fabric_world.h"

#define NODES 3
#define BLOCKS_MAX 64
#define READS_MAX 64
#define PART 4096u
#define BYTES (10 * PART - 100)

struct block {
    struct wf_fabric_event event;
    uint8_t data[BYTES];
    bool near, below;
};

/* Its tier has room for `room` reads, and ends them when it is told to. */
struct node {
    struct wf_fabric *fabric;
    struct block blocks[BLOCKS_MAX];
    uint32_t count, held, room, buffers, begun, looks;
    struct wf_fabric_read *reads[READS_MAX];
    uint32_t read_count;
    uint32_t latency_us, mbps;
    bool hangs;
    enum weft_status ends; /* as that; WEFT_OK: with its bytes */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};

static struct block *find(struct node *n, const uint8_t key[32])
{
    for (uint32_t i = 0; i < n->count; i++)
        if (memcmp(n->blocks[i].event.key, key, 32) == 0)
            return &n->blocks[i];
    return NULL;
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    const struct block *b = find(n, key);
    (void)domain;
    if (!b || !b->near || bytes != BYTES)
        return WEFT_MISS;
    *out = (struct wf_fabric_held){.data = b->data, .bytes = bytes};
    n->held++;
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    assert_non_null(held->data);
    ((struct node *)context)->held--;
}

static enum weft_status begin_read(void *context, struct wf_fabric_read *read)
{
    struct node *n = context;
    const struct block *b = find(n, read->key);
    if (!b || !b->below || read->bytes != BYTES || read->part_bytes != PART)
        return WEFT_MISS;
    if (n->buffers == n->room)
        return WEFT_E_BUSY;
    n->buffers++;
    n->begun++;
    assert_true(n->read_count < READS_MAX);
    n->reads[n->read_count++] = read;
    return WEFT_PENDING;
}

static void free_read(void *context, struct wf_fabric_read *read)
{
    assert_non_null(read->data);
    ((struct node *)context)->buffers--;
}

static bool is_below(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality)
{
    const struct block *b = find(context, key);
    (void)domain;
    if (out_quality)
        *out_quality = 0;
    return b && b->below;
}

/* What is below has to be asked for: every other time there is nothing to be told yet. */
static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    (void)domain;
    if (n->looks++ % 2 == 0)
        return true;
    uint64_t end = *cursor + 3 < n->count ? *cursor + 3 : n->count;
    for (; *cursor < end; (*cursor)++) {
        const struct block *b = &n->blocks[*cursor];
        if (b->near || b->below)
            found(to, &b->event);
    }
    return *cursor < n->count;
}

static void say(void *context, struct wf_fabric_ping *out)
{
    const struct node *n = context;
    out->below_latency_us = n->latency_us;
    out->below_mbps = n->mbps;
}

/* The device has ended one. */
static void read_end(struct node *n, uint32_t at, enum weft_status status)
{
    struct wf_fabric_read *read = n->reads[at];
    n->reads[at] = n->reads[--n->read_count];
    if (status == WEFT_OK)
        read->data = find(n, read->key)->data + (uint64_t)read->first_part * PART;
    else
        n->buffers--;
    wf_fabric_read_done(n->fabric, read, status);
}

static void devices_work(void)
{
    for (int i = 0; i < NODES; i++)
        if (nodes[i].fabric && nodes[i].read_count && !nodes[i].hangs)
            read_end(&nodes[i], 0, nodes[i].ends);
}

static void node_begin(int i)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.read = begin_read;
    options.host.read_free = free_read;
    options.host.below = is_below;
    options.host.each = each;
    options.host.say = say;
    options.lend_bytes = i == 2 ? 1 << 20 : 0;
    world_node(i, &options);
}

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 7});
    world_nodes.after_ms = devices_work;
    for (int i = 0; i < NODES; i++) {
        nodes[i].room = 8;
        nodes[i].latency_us = 100;
        nodes[i].mbps = 2000;
        node_begin(i);
    }
    pass(2500); /* until all have asked all how they are */
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    for (int i = 0; i < NODES; i++) {
        assert_int_equal(nodes[i].held, 0);
        assert_int_equal(nodes[i].buffers, nodes[i].read_count); /* and those nobody waits for */
    }
    return 0;
}

static struct block *put(int node, uint32_t number)
{
    struct node *n = &nodes[node];
    struct block *b = &n->blocks[n->count++];
    b->event = (struct wf_fabric_event){.kind = WF_FABRIC_HERE, .depth = number, .bytes = BYTES};
    for (uint32_t i = 0; i < 32; i++)
        b->event.key[i] = (uint8_t)(number * 37 + i * 11);
    for (uint32_t i = 0; i < BYTES; i++)
        b->data[i] = (uint8_t)(number + i / 7 + i);
    return b;
}

static void is(int node, struct block *b, bool near, bool below)
{
    struct wf_fabric_event event = b->event;
    b->near = near;
    b->below = below;
    b->event.where = near ? WF_FABRIC_IN_POOL : WF_FABRIC_BELOW;
    event.where = b->event.where;
    event.kind = near || below ? WF_FABRIC_HERE : WF_FABRIC_GONE;
    wf_fabric_tell(nodes[node].fabric, &event);
}

static struct block *put_below(int node, uint32_t number)
{
    struct block *b = put(node, number);
    is(node, b, false, true);
    return b;
}

static struct wf_fabric_fetch fetch_of(const struct block *b, uint8_t *data)
{
    struct wf_fabric_fetch fetch = {.bytes = BYTES,
                                    .part_bytes = PART,
                                    .data = data,
                                    .done = fetched};
    memcpy(fetch.key, b->event.key, 32);
    return fetch;
}

/* From the outside: how it ended, and how many milliseconds it took at most. */
static enum weft_status fetch(int node, const struct block *b, uint32_t *out_ms)
{
    static uint8_t data[BYTES];
    struct wf_fabric_fetch f = fetch_of(b, data);
    uint32_t ms = 0;
    ended = false;
    memset(data, 0, sizeof data);
    wf_fabric_fetch(nodes[node].fabric, &f);
    for (; ms < 20000 && !ended; ms += 10)
        pass(10);
    assert_true(ended);
    if (outcome == WEFT_OK)
        assert_memory_equal(data, b->data, BYTES);
    if (out_ms)
        *out_ms = ms;
    return outcome;
}

/* --------------------------------------------------------------------------------------- tests */

static void what_is_below_is_read_for_others(void **state)
{
    (void)state;
    const struct block *b = put_below(0, 1);
    pass(100);
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, b->event.key));
    assert_int_equal(fetch(1, b, NULL), WEFT_OK);
    uint8_t data[2 * PART];
    struct wf_fabric_fetch f = fetch_of(b, data);
    f.first_part = 8; /* the last is short */
    f.part_count = 2;
    ended = false;
    wf_fabric_fetch(nodes[2].fabric, &f);
    pass(100);
    assert_true(ended && outcome == WEFT_OK);
    assert_memory_equal(data, b->data + 8 * PART, BYTES - 8 * PART);
    struct wf_fabric_figures figures = figures_of(0);
    assert_int_equal(figures.serves, 2);
    assert_int_equal(figures.serves_below, 2);
    assert_int_equal(figures.served_below_bytes, BYTES + BYTES - 8 * PART);
    assert_int_equal(nodes[0].buffers, 0);
}

static void where_a_block_is_follows_it(void **state)
{
    (void)state;
    struct block *b = put(0, 1);
    is(0, b, true, false);
    assert_int_equal(peer_of(1, "a").blocks, 1);
    assert_int_equal(peer_of(1, "a").below_blocks, 0);
    is(0, b, false, true);
    assert_int_equal(peer_of(1, "a").blocks, 1);
    assert_int_equal(peer_of(1, "a").below_blocks, 1);
    assert_int_equal(peer_of(1, "a").below_latency_us, 100);
    assert_int_equal(peer_of(1, "a").below_mbps, 2000);
    assert_int_equal(figures_of(1).replica_below, 1);
    is(0, b, true, true);
    assert_int_equal(peer_of(1, "a").blocks, 1);
    assert_int_equal(peer_of(1, "a").below_blocks, 0);
    is(0, b, false, false);
    assert_int_equal(peer_of(1, "a").blocks, 0);
    assert_false(wf_fabric_elsewhere(nodes[1].fabric, b->event.key));
}

/* A tier's walk takes its time, and ends all the same. */
static void who_comes_later_is_told_of_it(void **state)
{
    (void)state;
    wf_fabric_destroy(nodes[1].fabric, 0);
    nodes[1].fabric = NULL;
    for (uint32_t i = 0; i < 20; i++)
        put_below(0, i);
    pass(500);
    node_begin(1);
    pass(4000);
    assert_true(peer_of(1, "a").complete);
    assert_int_equal(peer_of(1, "a").below_blocks, 20);
    assert_int_equal(fetch(1, &nodes[0].blocks[19], NULL), WEFT_OK);
    wf_fabric_destroy(nodes[0].fabric, 0);
    nodes[0].fabric = NULL;
    pass(8000);
    assert_false(wf_fabric_elsewhere(nodes[1].fabric, nodes[0].blocks[19].event.key));
    assert_int_equal(figures_of(1).replica_below, 0); /* swept out, too */
}

static void memory_goes_before_a_tier(void **state)
{
    (void)state;
    nodes[0].latency_us = 20000;
    pass(1500);
    const struct block *b = put_below(0, 1);
    is(2, put(2, 1), true, false);
    pass(100);
    for (int i = 0; i < 4; i++)
        assert_int_equal(fetch(1, b, NULL), WEFT_OK);
    assert_int_equal(nodes[0].begun, 0);
    nodes[2].blocks[0].near = false; /* without a word */
    assert_int_equal(fetch(1, b, NULL), WEFT_OK);
    assert_int_equal(nodes[0].begun, 1);
}

/* The tier ends nothing: who asked is told in time, and its memory is free when it does. */
static void a_tier_that_hangs_is_busy(void **state)
{
    (void)state;
    const struct block *b = put_below(0, 1), *other = put(0, 2);
    is(0, &nodes[0].blocks[1], true, false);
    pass(100);
    uint32_t ms;
    nodes[0].hangs = true;
    assert_int_equal(fetch(1, b, &ms), WEFT_E_BUSY);
    assert_in_range(ms, 2900, 3500);
    assert_int_equal(fetch(1, other, &ms), WEFT_OK); /* what is in memory goes on */
    assert_in_range(ms, 0, 200);
    assert_int_equal(nodes[0].buffers, 1);
    assert_int_equal(figures_of(0).serves_busy, 1);
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, b->event.key));
    nodes[0].hangs = false;
    pass(100);
    assert_int_equal(nodes[0].buffers, 0);
    assert_int_equal(fetch(1, b, NULL), WEFT_OK);
}

static uint32_t all_ended;

static void one_of_many(struct wf_fabric_fetch *f, enum weft_status status)
{
    assert_int_equal(status, WEFT_OK);
    assert_memory_equal(f->data, f->user, BYTES);
    all_ended++;
}

/* More is asked for than there is room to read into: it waits in line, and all of it comes. */
static void who_finds_no_room_waits_in_line(void **state)
{
    (void)state;
    static uint8_t data[40][BYTES];
    static struct wf_fabric_fetch fetches[40];
    nodes[0].room = 2;
    for (uint32_t i = 0; i < 40; i++)
        put_below(0, i);
    pass(100);
    nodes[0].hangs = true;
    for (uint32_t i = 0; i < 40; i++) {
        fetches[i] = fetch_of(&nodes[0].blocks[i], data[i]);
        fetches[i].user = nodes[0].blocks[i].data;
        fetches[i].done = one_of_many;
        wf_fabric_fetch(nodes[1 + i % 2].fabric, &fetches[i]);
    }
    all_ended = 0;
    pass(500);
    assert_int_equal(nodes[0].begun, 2);
    ended = false;
    struct wf_fabric_fetch nothing = fetch_of(&nodes[0].blocks[0], data[0]);
    nodes[0].blocks[39].below = false; /* a plain miss does not wait behind them, */
    memcpy(nothing.key, nodes[0].blocks[39].event.key, 32);
    wf_fabric_fetch(nodes[1].fabric, &nothing);
    pass(100);
    assert_true(ended && outcome == WEFT_MISS);
    nodes[0].blocks[39].below = true;
    nodes[0].hangs = false;
    pass(1000);
    assert_int_equal(all_ended, 40);
    assert_int_equal(nodes[0].buffers, 0);
}

static void what_is_damaged_there_is_a_miss(void **state)
{
    (void)state;
    const struct block *b = put_below(0, 1);
    pass(100);
    nodes[0].ends = WEFT_E_CORRUPT;
    assert_int_equal(fetch(1, b, NULL), WEFT_MISS);
    assert_false(wf_fabric_elsewhere(nodes[1].fabric, b->event.key));
    assert_true(wf_fabric_elsewhere(nodes[2].fabric, b->event.key)); /* it has not asked */
    nodes[0].ends = WEFT_OK;
    wf_net_sim_corrupt(world, "c", 1000000);
    assert_int_equal(fetch(2, b, NULL), WEFT_E_CORRUPT);
}

static void what_came_up_meanwhile_is_given_from_memory(void **state)
{
    (void)state;
    struct block *b = put_below(0, 1);
    pass(100);
    nodes[0].hangs = true;
    struct wf_fabric_fetch f = fetch_of(b, calloc(1, BYTES));
    ended = false;
    wf_fabric_fetch(nodes[1].fabric, &f);
    pass(100);
    assert_false(ended);
    is(0, b, true, true);
    read_end(&nodes[0], 0, WEFT_EXISTS);
    pass(100);
    assert_true(ended && outcome == WEFT_OK);
    assert_memory_equal(f.data, b->data, BYTES);
    assert_int_equal(figures_of(0).serves_below, 0);
    free(f.data);
}

/* Who asked is gone when the tier answers, and when it does not any more. */
static void nobody_waits_for_it_any_more(void **state)
{
    (void)state;
    static uint8_t data[2][BYTES];
    struct wf_fabric_fetch f[2];
    const struct block *b = put_below(0, 1);
    pass(100);
    nodes[0].hangs = true;
    for (int i = 0; i < 2; i++) {
        f[i] = fetch_of(b, data[i]);
        ended = false;
        wf_fabric_fetch(nodes[1 + i].fabric, &f[i]);
        pass(50);
    }
    assert_int_equal(nodes[0].read_count, 2);
    wf_net_sim_kill(world, "b", true);
    wf_fabric_destroy(nodes[1].fabric, 0);
    nodes[1].fabric = NULL;
    assert_true(ended);
    ended = false;
    pass(7000);
    assert_true(ended);
    read_end(&nodes[0], 0, WEFT_OK);
    pass(100);
    assert_int_equal(nodes[0].buffers, 1);
    wf_fabric_destroy(nodes[0].fabric, 0); /* and this one is never told */
    nodes[0].fabric = NULL;
}

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    over(status);
}

/* What goes from memory that is lent, and is on a tier of its node as well, is to be had still. */
static void what_was_lent_may_be_below(void **state)
{
    (void)state;
    struct block *mine = put(0, 1), *theirs = put(2, 1);
    struct wf_fabric_store store = {.block = mine->event,
                                    .part_bytes = PART,
                                    .data = mine->data,
                                    .done = stored};
    is(2, theirs, false, true);
    pass(100);
    assert_int_equal(peer_of(1, "c").below_blocks, 1);
    ended = false;
    wf_fabric_store(nodes[0].fabric, &store);
    pass(200);
    assert_true(ended && outcome == WEFT_OK);
    assert_int_equal(peer_of(1, "c").below_blocks, 0);
    wf_fabric_drop(nodes[0].fabric, mine->event.key);
    pass(200);
    assert_true(wf_fabric_elsewhere(nodes[1].fabric, mine->event.key));
    assert_int_equal(fetch(1, theirs, NULL), WEFT_OK);
}

/* ------------------------------------------------------------------------------------- routing */

static struct wf_routes_answer answer;

static bool about(double a, double b)
{
    return a > b * .999 && a < b * 1.001;
}

static const struct wf_routes_term *asked_for(const char *name, uint32_t blocks, double token_s)
{
    static uint8_t keys[BLOCKS_MAX][32];
    for (uint32_t i = 0; i < blocks; i++)
        memcpy(keys[i], nodes[0].blocks[i].event.key, 32);
    struct wf_routes_question q = {.keys = keys, .count = blocks, .asks_only = true};
    static struct wf_routes_candidate candidates[1];
    snprintf(candidates[0].name, sizeof candidates[0].name, "%s", name);
    q.candidates = candidates;
    q.candidate_count = 1;
    q.request = (struct wf_route_request){.tokens = blocks * 16.0,
                                          .block_tokens = 16,
                                          .block_bytes = 1 << 20,
                                          .layers = 1,
                                          .prefill = {.token_s = token_s}};
    assert_int_equal(wf_fabric_route(nodes[1].fabric, &q, &answer), WEFT_OK);
    return &answer.terms[0];
}

static void a_load_from_its_tier_has_its_price(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 20; i++)
        is(0, put(0, i), i < 8, true);
    (void)peer_of(1, "a");
    const struct wf_routes_term *term = asked_for("a", 20, 1e-3);
    assert_int_equal(term->near_blocks, 8);
    assert_int_equal(term->held_blocks, 20);
    assert_int_equal(term->term.action, WF_ROUTE_LOCAL);
    double fast = term->term.latency_s + term->term.data_s;
    assert_true(about(term->term.latency_s, 100e-6));
    assert_true(about(term->term.data_s, 12 * 1048576 / 2000e6));
    nodes[0].mbps = 100;
    pass(1500);
    (void)peer_of(1, "a");
    term = asked_for("a", 20, 1e-3);
    assert_true(about(term->term.data_s, 12 * 1048576 / 100e6));
    assert_true(term->term.latency_s + term->term.data_s > fast);
    /* Where computing is cheaper than that tier only what is in memory is taken. */
    term = asked_for("a", 20, 1e-5);
    assert_int_equal(term->term.load_blocks, 8);
    is(0, &nodes[0].blocks[8], true, true);
    pass(100);
    assert_int_equal(asked_for("a", 20, 1e-3)->near_blocks, 9);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(what_is_below_is_read_for_others),   TEST(where_a_block_is_follows_it),
        TEST(who_comes_later_is_told_of_it),      TEST(memory_goes_before_a_tier),
        TEST(a_tier_that_hangs_is_busy),          TEST(who_finds_no_room_waits_in_line),
        TEST(what_is_damaged_there_is_a_miss),    TEST(what_came_up_meanwhile_is_given_from_memory),
        TEST(nobody_waits_for_it_any_more),       TEST(what_was_lent_may_be_below),
        TEST(a_load_from_its_tier_has_its_price),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
