/* SPDX-License-Identifier: Apache-2.0
 *
 * Nodes with several addresses, in virtual time: the link goes over the best one, leaves one that
 * dies at once, and trials are bounded, whoever asks for them.
 */
#include "member/sim.h"

#include "fabric_stranger.h"

#define NODES 3
#define BLOCK 100000u
#define PART 4096u

struct node {
    struct wf_fabric *fabric;
    bool has; /* the block */
};

static struct wf_member_sim_world *registry;
static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};
static uint8_t block[BLOCK];
static const struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = BLOCK, .key = {7}};

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    const struct node *n = context;
    if (!n->has || domain || memcmp(key, event.key, 32) != 0 || bytes != BLOCK)
        return WEFT_MISS;
    *out = (struct wf_fabric_held){.data = block, .bytes = BLOCK};
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)context, (void)held;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    const struct node *n = context;
    if (n->has && !domain && !*cursor)
        found(to, &event);
    *cursor = 1;
    return false;
}

static void node_begin(int i, const char *listen, const char *advertise)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.listen = listen;
    options.advertise = advertise;
    options.registry = "sim:cluster";
    options.member = &wf_member_sim;
    options.member_world = registry;
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.host.each = each;
    options.replica_copies = 1024;
    options.dead_ms = 400;
    world_node(i, &options);
}

static int ways_begin(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BLOCK; i++)
        block[i] = (uint8_t)(i * 31 + (i >> 8));
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 5});
    const struct wf_member_sim_options member = {.time = vtime, .seed = 6};
    assert_int_equal(wf_member_sim_world_create(&member, &registry), WEFT_OK);
    return 0;
}

static int ways_end(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        world_node_end(i);
    wf_member_sim_world_destroy(registry);
    world_end();
    return 0;
}

static void fetch_right(int i)
{
    static uint8_t data[BLOCK];
    struct wf_fabric_fetch fetch = {.bytes = BLOCK,
                                    .part_bytes = PART,
                                    .data = data,
                                    .done = fetched};
    memcpy(fetch.key, event.key, 32);
    memset(data, 0, sizeof data);
    ended = false;
    wf_fabric_fetch(nodes[i].fabric, &fetch);
    assert_int_equal(until_over(5000, 100), WEFT_OK);
    assert_memory_equal(data, block, BLOCK);
}

static void the_better_way_is_taken(void **state)
{
    (void)state;
    wf_net_sim_delay(world, "b1", 3 * MS);
    nodes[1].has = true;
    node_begin(0, "sim:a1,sim:a2", NULL);
    node_begin(1, "sim:b1,sim:b2", NULL);
    pass(400);
    struct wf_fabric_peer b = peer_of(0, "b");
    assert_true(b.up);
    assert_string_equal(b.ways[b.way].address, "sim:b1"); /* the first that answered */
    assert_false(b.way_measured);
    pass(2000);
    b = peer_of(0, "b");
    assert_true(b.up && b.believed && b.complete);
    assert_int_equal(b.way_count, 2);
    assert_string_equal(b.ways[b.way].address, "sim:b2");
    assert_true(b.way_measured);
    assert_true(b.ways[0].ping_us >= 6000 && b.ways[0].ping_us < 8000);
    assert_true(b.ways[1].ping_us >= 20 && b.ways[1].ping_us < 1100);
    assert_true(b.ways[1].gbps > b.ways[0].gbps && b.ways[0].gbps > 0);
    fetch_right(0);
    /* Who was linked to sees the link, and measures nothing. */
    struct wf_fabric_peer a = peer_of(1, "a");
    assert_true(a.up && a.believed);
    assert_false(a.way_measured);
    assert_int_equal(a.way, WF_FABRIC_WAYS_MAX);
}

static void it_is_bandwidth_that_counts_for_blocks(void **state)
{
    (void)state;
    wf_net_sim_bandwidth(world, "b1", 100000000); /* near, and thin */
    wf_net_sim_delay(world, "b2", MS);            /* farther */
    node_begin(0, "sim:a1", NULL);
    node_begin(1, "sim:b1,sim:b2", NULL);
    pass(3000);
    struct wf_fabric_peer b = peer_of(0, "b");
    assert_string_equal(b.ways[b.way].address, "sim:b2");
    assert_true(b.ways[0].ping_us < b.ways[1].ping_us);
}

static void a_little_better_is_not_worth_it(void **state)
{
    (void)state;
    wf_net_sim_delay(world, "b1", 5000);
    node_begin(0, "sim:a1", NULL);
    node_begin(1, "sim:b1,sim:b2", NULL);
    pass(400);
    uint64_t before = figures_of(0).told_anew;
    pass(3000);
    struct wf_fabric_peer b = peer_of(0, "b");
    assert_true(b.way_measured);
    assert_string_equal(b.ways[b.way].address, "sim:b1");
    assert_true(b.ways[1].gbps > 0);
    assert_int_equal(figures_of(0).told_anew, before);
}

static void a_way_that_dies_is_left_at_once(void **state)
{
    (void)state;
    wf_net_sim_delay(world, "b1", 3 * MS);
    nodes[1].has = true;
    node_begin(0, "sim:a1", NULL);
    node_begin(1, "sim:b1,sim:b2", NULL);
    pass(3000);
    struct wf_fabric_peer b = peer_of(0, "b");
    assert_string_equal(b.ways[b.way].address, "sim:b2");
    wf_net_sim_mute(world, "b2", true, true);
    pass(400 + 100); /* dead_ms, and a tick or two */
    b = peer_of(0, "b");
    assert_true(b.up);
    assert_string_equal(b.ways[b.way].address, "sim:b1");
    fetch_right(0);
    pass(3000);
    b = peer_of(0, "b"); /* measured again: nothing answers there */
    assert_string_equal(b.ways[b.way].address, "sim:b1");
    assert_true(b.way_measured);
    assert_true(b.ways[1].gbps == 0 && b.ways[1].why[0]);
    fetch_right(0);
}

static void who_answers_under_another_name_is_not_taken(void **state)
{
    (void)state;
    wf_net_sim_delay(world, "c1", 3 * MS);
    node_begin(0, "sim:a1", NULL);
    node_begin(1, "sim:b1", NULL);
    node_begin(2, "sim:c1", "sim:b1,sim:c1"); /* the first is b's */
    pass(4000);
    struct wf_fabric_peer c = peer_of(0, "c");
    assert_true(c.up);
    assert_string_equal(c.ways[c.way].address, "sim:c1");
    assert_string_equal(c.ways[0].why, "b answers there");
    assert_true(peer_of(0, "b").up);
}

/* ------------------------------------------------------------------------ who asks for too much */

static void trial_begin(struct stranger *s)
{
    struct wf_fabric_ident ident = stranger_ident("stranger");
    ident.flags = WF_FABRIC_TRIAL;
    stranger_begin(s, NULL, "sim:b1");
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 20);
    assert_false(s->down);
}

static void trials_are_bounded(void **state)
{
    (void)state;
    const struct wf_fabric_probe probe = {
        .head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PROBE}};
    struct stranger s;
    node_begin(1, "sim:b1", NULL);
    pass(100);
    trial_begin(&s);
    for (uint32_t i = 0; i < WF_FABRIC_PROBES_MAX; i++)
        stranger_says(&s, &probe, sizeof probe);
    stranger_waits(&s, 50);
    assert_int_equal(s.probed, WF_FABRIC_PROBES_MAX);
    assert_false(s.down);
    stranger_says(&s, &probe, sizeof probe); /* one too many */
    stranger_waits(&s, 50);
    assert_true(s.down);
    stranger_end(&s);

    trial_begin(&s); /* a trial is no way in */
    stranger_joins(&s, NULL, 0);
    stranger_waits(&s, 50);
    assert_true(s.down);
    stranger_end(&s);

    struct wf_fabric_probe large = probe;
    large.bytes = 1u << 30;
    trial_begin(&s);
    stranger_says(&s, &large, sizeof large);
    stranger_waits(&s, 50);
    assert_true(s.down);
    assert_int_equal(s.probed, 0);
    stranger_end(&s);

    trial_begin(&s); /* nor a place to stay */
    stranger_waits(&s, 4000);
    assert_false(s.down);
    stranger_waits(&s, 2000);
    assert_true(s.down);
    stranger_end(&s);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, ways_begin, ways_end)
    const struct CMUnitTest tests[] = {
        TEST(the_better_way_is_taken),
        TEST(it_is_bandwidth_that_counts_for_blocks),
        TEST(a_little_better_is_not_worth_it),
        TEST(a_way_that_dies_is_left_at_once),
        TEST(who_answers_under_another_name_is_not_taken),
        TEST(trials_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
