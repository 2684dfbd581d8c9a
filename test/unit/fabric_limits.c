/* SPDX-License-Identifier: Apache-2.0
 *
 * A bound on what a node sends makes its blocks late, and never lost: in virtual time, so that how
 * late is exact.
 */
#include "fabric_world.h"

#include "fabric/peers.h"
#include "fabric/remote.h"

#define BLOCKS 6u
#define BYTES 500000u
#define PART 65536u

static const char *const names[] = {"sim:a", "sim:b", "sim:c"};
#define NODES 3

static struct node {
    struct wf_fabric *fabric; /* first */
    uint32_t held;
    bool has;
} nodes[NODES];

static uint8_t payload[BYTES], got[BLOCKS][BYTES];
static struct wf_fabric_fetch fetches[BLOCKS];
static struct {
    enum weft_status status;
    bool ended;
    uint64_t at_ns;
} ends[BLOCKS];

static void key_of(uint32_t number, uint8_t out[32])
{
    memset(out, 0x5a, 32);
    out[0] = (uint8_t)(number + 1);
    out[9] = (uint8_t)(number * 37);
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    (void)domain, (void)key;
    if (!n->has)
        return WEFT_MISS;
    n->held++;
    *out = (struct wf_fabric_held){.data = payload, .bytes = bytes};
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)held;
    ((struct node *)context)->held--;
}

/* Those nodes of which a bit is set have all blocks. */
static void begin(uint32_t having)
{
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 11});
    for (int i = 0; i < NODES; i++) {
        struct wf_fabric_options options = world_options(names, NODES, i);
        options.host.hold = hold;
        options.host.let_go = let_go;
        nodes[i].has = having >> i & 1;
        world_node(i, &options);
    }
    pass(1500);
    for (uint32_t b = 0; b < BLOCKS; b++)
        for (int i = 0; i < NODES; i++) {
            struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = b, .bytes = BYTES};
            key_of(b, event.key);
            if (nodes[i].has)
                wf_fabric_tell(nodes[i].fabric, &event);
        }
    pass(200);
    for (uint32_t i = 0; i < BYTES; i++)
        payload[i] = (uint8_t)(i * 31 + i / 251);
    memset(got, 0, sizeof got);
}

static void end(void)
{
    world_end();
    for (int i = 0; i < NODES; i++)
        assert_int_equal(nodes[i].held, 0);
}

static void limit(int of, enum wf_fabric_limit what, const char *name, uint64_t value)
{
    assert_int_equal(wf_fabric_limit(nodes[of].fabric, what, name, 0, value), WEFT_OK);
    pass(20);
}

static void one_ended(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    uint32_t i = (uint32_t)(fetch - fetches);
    assert_false(ends[i].ended);
    ends[i].ended = true;
    ends[i].status = status;
    ends[i].at_ns = wf_vtime_now(vtime);
}

static void fetch_all(int by, uint32_t count)
{
    memset(ends, 0, sizeof ends);
    for (uint32_t i = 0; i < count; i++) {
        fetches[i] = (struct wf_fabric_fetch){.bytes = BYTES,
                                              .part_bytes = PART,
                                              .data = got[i],
                                              .done = one_ended};
        key_of(i, fetches[i].key);
        wf_fabric_fetch(nodes[by].fabric, &fetches[i]);
    }
}

static uint32_t came(uint32_t count)
{
    uint32_t right = 0;
    for (uint32_t i = 0; i < count; i++)
        right += ends[i].ended && ends[i].status == WEFT_OK && memcmp(got[i], payload, BYTES) == 0;
    return right;
}

static uint32_t over_count(uint32_t count)
{
    uint32_t all = 0;
    for (uint32_t i = 0; i < count; i++)
        all += ends[i].ended;
    return all;
}

/* 6 blocks of half a million bytes at a quarter of a million a second: the first overdraws, so
 * the last begins after ten seconds. */
static void it_takes_as_long_as_the_bound_says(enum wf_fabric_limit what, const char *name)
{
    begin(1);
    limit(0, what, name, BYTES / 2);
    uint64_t from_ns = wf_vtime_now(vtime);
    fetch_all(1, BLOCKS);
    pass(5000);
    assert_in_range(came(BLOCKS), 2, 4);
    assert_int_equal(over_count(BLOCKS), came(BLOCKS));
    assert_true(wf_fabric_patient(nodes[1].fabric));
    pass(20000);
    assert_int_equal(came(BLOCKS), BLOCKS);
    uint64_t last_ns = 0;
    for (uint32_t i = 0; i < BLOCKS; i++)
        last_ns = ends[i].at_ns > last_ns ? ends[i].at_ns : last_ns;
    assert_in_range(last_ns - from_ns, 8500 * MS, 11500 * MS);
    assert_false(wf_fabric_patient(nodes[1].fabric));
    assert_true(figures_of(0).serves_limited >= 3);
    assert_true(figures_of(1).fetches_patient >= 3);
    end();
}

static void a_bound_of_a_link_makes_slow_and_breaks_nothing(void **state)
{
    (void)state;
    it_takes_as_long_as_the_bound_says(WF_FABRIC_LIMIT_LINK, "b");
}

static void a_bound_of_a_domain_makes_slow_and_breaks_nothing(void **state)
{
    (void)state;
    it_takes_as_long_as_the_bound_says(WF_FABRIC_LIMIT_DOMAIN, "");
}

/* Who has it, too, and is not bounded, is asked before anybody is waited for. */
static void another_holder_is_better_than_to_wait(void **state)
{
    (void)state;
    begin(1 | 4);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", BYTES / 10);
    fetch_all(1, BLOCKS);
    pass(1500);
    assert_int_equal(came(BLOCKS), BLOCKS);
    assert_int_equal(figures_of(1).fetches_patient, 0);
    end();
}

/* What nobody would wait for is refused soon, and it is said by which bound. */
static void what_is_hopeless_is_named(void **state)
{
    (void)state;
    begin(1);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", 1000);
    fetch_all(1, 1); /* which overdraws: the next turn is in eight minutes */
    pass(500);
    assert_int_equal(came(1), 1);
    fetch_all(1, BLOCKS);
    pass(500);
    assert_int_equal(over_count(BLOCKS), BLOCKS);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(ends[i].status, WEFT_E_LIMIT);
        assert_int_equal(fetches[i].limit.by, WF_FABRIC_LIMITED_LINK);
        assert_int_equal(fetches[i].limit.bytes_s, 1000);
        assert_string_equal(fetches[i].limit.name, "a");
    }
    assert_int_equal(nodes[0].held, 0);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", 0);
    fetch_all(1, BLOCKS);
    pass(1000);
    assert_int_equal(came(BLOCKS), BLOCKS);
    end();
}

/* One that is cancelled, or whose link goes, waits for nothing. */
static void who_waits_can_be_told_not_to(void **state)
{
    (void)state;
    begin(1);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", BYTES / 5);
    fetch_all(1, BLOCKS);
    pass(1500);
    assert_in_range(over_count(BLOCKS), 1, 2);
    wf_fabric_cancel(nodes[1].fabric, &fetches[BLOCKS - 1]);
    pass(100);
    assert_true(ends[BLOCKS - 1].ended);
    assert_int_equal(ends[BLOCKS - 1].status, WEFT_E_TIMEOUT);
    world_node_end(0);
    pass(8000);
    assert_int_equal(over_count(BLOCKS), BLOCKS);
    assert_false(wf_fabric_patient(nodes[1].fabric));
    end();
}

static uint32_t parts(uint64_t block_bytes)
{
    (void)block_bytes;
    return PART;
}

/* The tier says that it waits, so that its mover calls nothing late, and the limit in a sentence.
 */
static void the_tier_says_why(void **state)
{
    (void)state;
    static _Alignas(4096) uint8_t data[2][BYTES / PART * PART];
    const uint8_t tags[1][32] = {"the domain"};
    struct wf_peers *peers;
    struct wf_tier *tier;
    struct wf_tier_request reads[2], *done;
    struct wf_tier_stats stats;
    begin(1);
    assert_int_equal(wf_peers_create(tags, NULL, 1, parts, &peers), WEFT_OK);
    wf_peers_attach(peers, nodes[1].fabric);
    const struct wf_tier_options options = {.path = "peers", .queue_depth = 2, .peers = peers};
    assert_int_equal(wf_tier_peers.open(&options, &tier), WEFT_OK);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", BYTES / 4);
    for (uint32_t i = 0; i < 2; i++) {
        reads[i] = (struct wf_tier_request){.op = WF_TIER_READ,
                                            .block = {.bytes = sizeof data[i], .part_bytes = PART},
                                            .data = data[i]};
        key_of(i, reads[i].block.key);
        memcpy(reads[i].block.format, tags[0], 32);
        assert_int_equal(wf_tier_peers.submit(tier, &reads[i]), WEFT_OK);
    }
    pass(2000);
    assert_int_equal(wf_tier_peers.reap(tier, &done, 1, 0), 1);
    assert_int_equal(done->status, WEFT_OK);
    wf_tier_peers.stats(tier, &stats);
    assert_true(stats.waits);
    pass(4000);
    assert_int_equal(wf_tier_peers.reap(tier, &done, 1, 0), 1);
    assert_int_equal(done->status, WEFT_OK);
    wf_tier_peers.stats(tier, &stats);
    assert_false(stats.waits);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", 0);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", 1000);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(wf_tier_peers.submit(tier, &reads[i]), WEFT_OK);
        pass(500);
        assert_int_equal(wf_tier_peers.reap(tier, &done, 1, 0), 1);
    }
    assert_int_equal(done->status, WEFT_E_LIMIT);
    const char *said = wf_last_error();
    assert_true(strstr(said, "node a has the block") && strstr(said, "1000 bytes a second") &&
                strstr(said, "fabric.link_max") && strstr(said, "weft fabric limit link"));
    wf_tier_peers.close(tier);
    wf_peers_attach(peers, NULL);
    end();
    wf_peers_destroy(peers);
}

/* A lender is waited for as long as the bound takes, too. */
static uint32_t stored_right;
static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    stored_right += status == WEFT_OK;
}

static void memory_that_is_lent_is_filled_slowly(void **state)
{
    (void)state;
    static struct wf_fabric_store stores[BLOCKS];
    world_begin(nodes, sizeof nodes[0], 2, &(struct wf_net_sim_options){.seed = 12});
    for (int i = 0; i < 2; i++) {
        struct wf_fabric_options options = world_options(names, 2, i);
        options.lend_bytes = i ? 64u << 20 : 0;
        world_node(i, &options);
    }
    pass(2500);
    limit(0, WF_FABRIC_LIMIT_LINK, "b", BYTES / 2);
    stored_right = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        stores[i] = (struct wf_fabric_store){.block = {.kind = WF_FABRIC_HERE, .bytes = BYTES},
                                             .part_bytes = PART,
                                             .data = payload,
                                             .done = stored};
        key_of(i, stores[i].block.key);
        wf_fabric_store(nodes[0].fabric, &stores[i]);
    }
    pass(3000);
    assert_in_range(stored_right, 1, 3);
    pass(15000);
    assert_int_equal(stored_right, BLOCKS);
    end();
}

/* As of what others have: which bound it is, and where it is raised. */
static void the_tier_of_lent_memory_says_why(void **state)
{
    (void)state;
    static _Alignas(4096) uint8_t data[BYTES / PART * PART];
    const uint8_t tags[1][32] = {"the domain"};
    struct wf_peers *peers;
    struct wf_tier *tier;
    struct wf_tier_request request, *done;
    world_begin(nodes, sizeof nodes[0], 2, &(struct wf_net_sim_options){.seed = 12});
    for (int i = 0; i < 2; i++) {
        struct wf_fabric_options options = world_options(names, 2, i);
        options.lend_bytes = i ? 64u << 20 : 0;
        world_node(i, &options);
    }
    pass(2500);
    assert_int_equal(wf_peers_create(tags, NULL, 1, parts, &peers), WEFT_OK);
    wf_peers_attach(peers, nodes[0].fabric);
    const struct wf_tier_options options = {.path = "remote", .queue_depth = 2, .peers = peers};
    assert_int_equal(wf_tier_remote.open(&options, &tier), WEFT_OK);
    request = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                       .block = {.bytes = sizeof data, .part_bytes = PART},
                                       .data = data};
    key_of(0, request.block.key);
    memcpy(request.block.format, tags[0], 32);
    assert_int_equal(wf_tier_remote.submit(tier, &request), WEFT_OK);
    pass(500);
    assert_int_equal(wf_tier_remote.reap(tier, &done, 1, 0), 1);
    assert_int_equal(done->status, WEFT_OK);
    limit(1, WF_FABRIC_LIMIT_LINK, "a", 1000);
    request.op = WF_TIER_READ;
    for (int i = 0; i < 2; i++) { /* the first has its turn at once */
        assert_int_equal(wf_tier_remote.submit(tier, &request), WEFT_OK);
        pass(500);
        assert_int_equal(wf_tier_remote.reap(tier, &done, 1, 0), 1);
    }
    assert_int_equal(done->status, WEFT_E_LIMIT);
    const char *said = wf_last_error();
    assert_true(strstr(said, "tier remote: node b has the block") &&
                strstr(said, "1000 bytes a second") && strstr(said, "weft fabric limit link"));
    wf_tier_remote.close(tier);
    wf_peers_attach(peers, NULL);
    end();
    wf_peers_destroy(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bound_of_a_link_makes_slow_and_breaks_nothing),
        cmocka_unit_test(a_bound_of_a_domain_makes_slow_and_breaks_nothing),
        cmocka_unit_test(another_holder_is_better_than_to_wait),
        cmocka_unit_test(what_is_hopeless_is_named),
        cmocka_unit_test(who_waits_can_be_told_not_to),
        cmocka_unit_test(the_tier_says_why),
        cmocka_unit_test(memory_that_is_lent_is_filled_slowly),
        cmocka_unit_test(the_tier_of_lent_memory_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
