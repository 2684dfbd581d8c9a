/* SPDX-License-Identifier: Apache-2.0
 *
 * A host that has no room for news: what it was not told comes once more, from who told it and from
 * nobody else, and no more often than once a second, whatever is told.  And whoever tells without
 * end leaves room for others.  In virtual time.
 */
#include "fabric/inner.h"
#include "fabric/peers.h"
#include "fabric_stranger.h"

#define NODES 3
#define BLOCKS 4000u
#define RING 1000u /* news that fit */
#define TAKEN 50u  /* by the host, each millisecond */

struct node {
    struct wf_fabric *fabric;
    bool deaf;
    uint32_t blocks; /* that it has, from number 0 on */
    uint32_t ring, refused;
    bool known[BLOCKS];
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};
static const char *const secrets[1] = {"one for all"};

/* A key as digests are, its number in its last bytes. */
static struct wf_fabric_event block(uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = 100};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t word = (4ull * number + i + 1) * 0x9e3779b97f4a7c15u;
        word ^= word >> 29;
        word *= 0xbf58476d1ce4e5b9u;
        memcpy(event.key + 8 * i, &word, 8);
    }
    memcpy(event.key + 24, &number, sizeof number);
    return event;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *event)
{
    struct node *node = context;
    (void)from;
    if (node->deaf || node->ring == RING) {
        node->refused++;
        return false;
    }
    uint32_t number;
    memcpy(&number, event->key + 24, sizeof number);
    node->ring++;
    if (number < BLOCKS)
        node->known[number] = event->kind == WF_FABRIC_HERE;
    return true;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    const struct node *node = context;
    (void)domain;
    for (uint32_t i = 0; i < 100 && *cursor < node->blocks; i++) {
        struct wf_fabric_event event = block((uint32_t)(*cursor)++);
        found(to, &event);
    }
    return *cursor < node->blocks;
}

/* The host of a takes some of what it was told. */
static void take(void)
{
    struct node *a = &nodes[0];
    a->ring -= a->ring < TAKEN ? a->ring : TAKEN;
    if (a->ring == 0 && a->refused && !a->deaf) {
        a->refused = 0;
        wf_fabric_room_again(a->fabric);
    }
}

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 11});
    world_nodes.after_ms = take;
    for (int i = 0; i < NODES; i++) {
        struct wf_fabric_options options = world_options(names, NODES, i);
        options.host.news = news;
        options.host.each = each;
        world_node(i, &options);
    }
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    return 0;
}

static void has(struct node *node, uint32_t count)
{
    for (uint32_t i = node->blocks; i < count; i++) {
        struct wf_fabric_event event = block(i);
        wf_fabric_tell(node->fabric, &event);
    }
    node->blocks = count;
}

static uint32_t known(const struct node *node)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < BLOCKS; i++)
        count += node->known[i];
    return count;
}

static void who_told_it_tells_it_again_and_nobody_else(void **state)
{
    (void)state;
    uint64_t forgotten = wf_fabric_forgotten(nodes[0].fabric);
    nodes[0].deaf = true;
    has(&nodes[1], 10);
    pass(100);
    assert_int_equal(known(&nodes[0]), 0);
    assert_false(wf_fabric_elsewhere(nodes[0].fabric, block(0).key));
    nodes[0].deaf = false;
    pass(500);
    assert_int_equal(known(&nodes[0]), 10);
    assert_int_equal(figures_of(1).told_anew, 1);
    assert_int_equal(figures_of(2).told_anew, 0);
    assert_int_equal(wf_fabric_forgotten(nodes[0].fabric), forgotten);
    assert_true(peer_of(0, "b").complete);
}

/* What has not heard that something went asks about all that it keeps. */
static void what_went_unheard_is_asked_about(void **state)
{
    (void)state;
    struct wf_fabric_event event = block(0);
    has(&nodes[1], 1);
    pass(100);
    uint64_t forgotten = wf_fabric_forgotten(nodes[0].fabric);
    nodes[0].deaf = true;
    event.kind = WF_FABRIC_GONE;
    wf_fabric_tell(nodes[1].fabric, &event);
    nodes[1].blocks = 0;
    pass(500);
    assert_int_equal(wf_fabric_forgotten(nodes[0].fabric), forgotten);
    nodes[0].deaf = false;
    pass(100);
    assert_true(wf_fabric_forgotten(nodes[0].fabric) > forgotten);
    assert_false(wf_fabric_elsewhere(nodes[0].fabric, event.key));
    assert_int_equal(figures_of(1).told_anew, 0);
}

/* All of it at once is more than the host takes: each time it is told more of it. */
static void who_has_much_is_known_at_last(void **state)
{
    (void)state;
    has(&nodes[1], BLOCKS);
    pass(100);
    assert_true(known(&nodes[0]) < BLOCKS);
    pass(8000);
    assert_int_equal(known(&nodes[0]), BLOCKS);
    assert_true(peer_of(0, "b").complete);
}

static void comes_in(struct stranger *s, const char *name)
{
    struct wf_fabric_ident ident = stranger_ident(name);
    ident.epoch = 1;
    stranger_begin(s, NULL, names[0]);
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 10);
    stranger_joins(s, secrets, 1);
    stranger_waits(s, 10);
}

/* What comes and goes at once, from that number on, and that this is all. */
static uint32_t says_much(struct stranger *s, uint32_t number)
{
    static union {
        struct wf_fabric_events said;
        uint8_t bytes[sizeof(struct wf_fabric_events) +
                      WF_FABRIC_EVENTS_MAX * sizeof(struct wf_fabric_event)];
    } m;
    m.said = (struct wf_fabric_events){.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_EVENTS},
                                       .count = WF_FABRIC_EVENTS_MAX,
                                       .flags = WF_FABRIC_COMPLETE};
    for (uint32_t i = 0; i < WF_FABRIC_EVENTS_MAX; i++) {
        m.said.events[i] = block(number + i / 2);
        m.said.events[i].kind = i % 2 ? WF_FABRIC_GONE : WF_FABRIC_HERE;
    }
    stranger_says(s, &m, sizeof m);
    return number + WF_FABRIC_EVENTS_MAX / 2;
}

static void who_floods_is_asked_seldom(void **state)
{
    (void)state;
    struct stranger x;
    uint32_t number = BLOCKS;
    comes_in(&x, "x");
    for (uint32_t ms = 0; ms < 5000; ms += 10) {
        for (uint32_t i = 0; i < 4; i++)
            number = says_much(&x, number);
        stranger_waits(&x, 10);
    }
    assert_false(x.down);
    assert_true(nodes[0].fabric->figures.refused_news > 10000);
    assert_true(x.agains >= 1 && x.agains <= 6);
    assert_int_equal(figures_of(1).told_anew + figures_of(2).told_anew, 0);
    stranger_end(&x);
}

static uint32_t part_bytes(uint64_t bytes)
{
    return (uint32_t)bytes;
}

static void seen(void *context, const struct wf_tier_block *block, bool there)
{
    (void)block, (void)there;
    ++*(uint32_t *)context;
}

/* How many of these find room. */
static uint32_t told_by(struct wf_peers *peers, uint32_t from, uint32_t count)
{
    const struct wf_fabric_event event = block(0);
    uint32_t told = 0;
    for (uint32_t i = 0; i < count; i++)
        told += wf_peers_news(peers, from, &event);
    return told;
}

static void who_floods_leaves_room_for_others(void **state)
{
    (void)state;
    static const uint8_t tags[1][32];
    struct wf_peers *peers;
    struct wf_tier *tier;
    uint32_t taken = 0;
    assert_int_equal(wf_peers_create(tags, NULL, 1, part_bytes, &peers), WEFT_OK);
    const struct wf_tier_options options = {.path = "peers", .peers = peers, .queue_depth = 1};
    assert_int_equal(wf_tier_peers.open(&options, &tier), WEFT_OK);
    uint32_t first = told_by(peers, 7, 100000), went = told_by(peers, WF_FABRIC_NOBODY, 100000);
    assert_true(first > 20000);
    assert_int_equal(told_by(peers, 7, 1), 0);
    for (uint32_t from = 0; from < 7; from++)
        assert_int_equal(told_by(peers, from, 16), 16);
    assert_true(told_by(peers, 8, 100) >= 16);
    while (wf_tier_peers.news(tier, seen, &taken) == WEFT_PENDING)
        ;
    assert_true(taken > first + went);
    assert_int_equal(told_by(peers, 7, 100000), first); /* all of it is there again */
    wf_tier_peers.close(tier);
    wf_peers_destroy(peers);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_told_it_tells_it_again_and_nobody_else),
        TEST(what_went_unheard_is_asked_about),
        TEST(who_has_much_is_known_at_last),
        TEST(who_floods_is_asked_seldom),
        cmocka_unit_test(who_floods_leaves_room_for_others),
    };
    return cmocka_run_group_tests_name("a host that has no room for news", tests, NULL, NULL);
}
