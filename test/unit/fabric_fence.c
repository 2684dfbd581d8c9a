/* SPDX-License-Identifier: Apache-2.0
 *
 * Who may be given what another node pushes, between two nodes under leases in virtual time: nobody
 * whose own lease is over, though the other has not heard so; nor from one that speaks under
 * another epoch than the registry told.
 */
#include "fabric/inner.h"
#include "fabric_world.h"
#include "member/sim.h"

#define LAYERS 4u
#define BYTES 16384u
#define BLOCKS 3u
#define ALL ((1ull << BLOCKS) - 1)
#define LEASE_MS 1000u
#define NEVER (600 * 1000 * MS)

enum { A, B }; /* a pushes, b is given */

static struct wf_fabric *fabrics[2];
static const char *const names[2] = {"sim:a", "sim:b"};
static struct wf_member_sim_world *registry;

static struct {
    uint8_t memory[BLOCKS][BYTES];
    uint32_t rooms, ends, published;
} host;

static struct wf_fabric_push push;
static uint8_t sources[BLOCKS][BYTES];

static void push_room(void *context, struct wf_fabric_pushed *pushed)
{
    (void)context;
    host.rooms++;
    pushed->status = WEFT_OK;
    for (uint32_t i = 0; i < pushed->count; i++)
        pushed->data[i] = host.memory[i];
    wf_fabric_pushed_answer(fabrics[B], pushed);
}

static void push_end(void *context, struct wf_fabric_pushed *pushed)
{
    (void)context;
    host.ends++;
    for (uint32_t i = 0; i < pushed->count; i++) {
        bool kept = wf_bit(pushed->keep, i);
        pushed->published += kept;
        pushed->missing += !kept && wf_bit(pushed->committed, i);
    }
    host.published += pushed->published;
    wf_fabric_pushed_answer(fabrics[B], pushed);
}

static int begin(void **state)
{
    (void)state;
    memset(&host, 0, sizeof host);
    ended = false;
    for (uint32_t i = 0; i < sizeof sources; i++)
        sources[i / BYTES][i % BYTES] = (uint8_t)(i % 251);
    world_begin(fabrics, sizeof fabrics[0], 2, &(struct wf_net_sim_options){.seed = 5});
    struct wf_member_sim_options members = {.time = vtime, .seed = 3};
    assert_int_equal(wf_member_sim_world_create(&members, &registry), WEFT_OK);
    for (int i = A; i <= B; i++) {
        struct wf_fabric_options options = world_options(names, 2, i);
        options.registry = "sim:cluster";
        options.member = &wf_member_sim;
        options.member_world = registry;
        options.lease_ms = LEASE_MS;
        options.show_ms = 50;
        options.host.push_room = push_room;
        options.host.push_end = push_end;
        world_node(i, &options);
    }
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    for (int i = A; i <= B; i++)
        world_node_end(i);
    wf_member_sim_world_destroy(registry);
    world_end();
    return 0;
}

static void done(struct wf_fabric_push *of, enum weft_status status)
{
    assert_ptr_equal(of, &push);
    over(status);
}

static void push_it(void)
{
    memset(&push, 0, sizeof push);
    memcpy(push.to, "b", 2);
    push.count = BLOCKS;
    push.layers = LAYERS;
    push.done = done;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        push.blocks[i] = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                                  .depth = i,
                                                  .bytes = BYTES,
                                                  .key = {(uint8_t)(i + 1)}};
        push.data[i] = sources[i];
    }
    assert_int_equal(wf_fabric_push(fabrics[A], &push), WEFT_OK);
    wf_fabric_push_written(fabrics[A], &push, LAYERS);
    pass(50);
}

static void commit(void)
{
    push.keep[0] = ALL;
    wf_fabric_push_end(fabrics[A], &push, true);
    pass(50);
    assert_true(ended);
}

static bool believes(int of, const char *name)
{
    const struct wf_peer_node *peer = wf_peer_find(fabrics[of], name);
    return peer && wf_peer_believed(fabrics[of], peer);
}

/* Its lease is over by its own clock; a is not told that it left, and b not that a joins anew. */
static void lease_ends(const char *name)
{
    wf_member_sim_delay(registry, NEVER);
    wf_member_sim_cut(registry, name, true);
    pass(2 * LEASE_MS);
}

/* --------------------------------------------------------------------------------------- tests */

static void members_push_to_each_other(void **state)
{
    (void)state;
    push_it();
    commit();
    assert_int_equal(outcome, WEFT_OK);
    assert_int_equal(host.published, BLOCKS);
    assert_memory_equal(host.memory, sources, sizeof sources);
}

static void who_is_no_member_gives_no_room(void **state)
{
    (void)state;
    lease_ends("b");
    assert_true(fabrics[B]->standing.state != WF_STANDING_MEMBER);
    assert_true(believes(A, "b") && believes(B, "a"));
    push_it();
    assert_true(ended);
    assert_int_equal(outcome, WEFT_E_BUSY);
    assert_int_equal(host.rooms, 0);
    assert_int_equal(push.sent_bytes, 0);
}

static void a_lease_that_ends_meanwhile_keeps_nothing(void **state)
{
    (void)state;
    push_it();
    assert_int_equal(host.rooms, 1);
    assert_int_equal(push.sent_bytes, BLOCKS * BYTES);
    lease_ends("b");
    assert_true(believes(A, "b") && believes(B, "a"));
    commit();
    assert_int_equal(outcome, WEFT_MISS);
    assert_int_equal(host.ends, 1);
    assert_int_equal(host.published, 0);
}

/* The sender's lease was over, and it has joined anew, of which b has not heard. */
static void who_speaks_under_another_epoch_is_given_nothing(void **state)
{
    (void)state;
    lease_ends("a");
    wf_member_sim_cut(registry, "a", false);
    pass(2 * LEASE_MS);
    assert_int_equal(fabrics[A]->standing.state, WF_STANDING_MEMBER);
    assert_int_equal(fabrics[B]->standing.state, WF_STANDING_MEMBER);
    assert_true(believes(A, "b") && !believes(B, "a"));
    push_it();
    assert_true(ended);
    assert_int_equal(outcome, WEFT_E_BUSY);
    assert_int_equal(host.rooms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_push_to_each_other, begin, end),
        cmocka_unit_test_setup_teardown(who_is_no_member_gives_no_room, begin, end),
        cmocka_unit_test_setup_teardown(a_lease_that_ends_meanwhile_keeps_nothing, begin, end),
        cmocka_unit_test_setup_teardown(who_speaks_under_another_epoch_is_given_nothing, begin,
                                        end),
    };
    return cmocka_run_group_tests_name("fabric_fence", tests, NULL, NULL);
}
