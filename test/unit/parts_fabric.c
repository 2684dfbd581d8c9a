/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory in parts: who is told of what, who is asked for a block, what becomes of wrong
 * answers and of none, and when all is kept instead.
 */
#include "parts_world.h"

static void owners_follow_the_members(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    watches = true;
    for (uint32_t b = 0; b < 1000; b++)
        have((int)(b % 5), b, true);
    pass(300);
    only_owners_know(1000);
    assert_int_equal(strays, 0);
    uint64_t told = 0;
    for (int i = 0; i < 5; i++)
        told += nodes[i].fabric->figures.told;
    assert_true(told > 1000 && told <= OWNERS * 1000); /* not to itself */

    /* Another one: it takes over its share, and nothing else moves. */
    watches = false;
    uint64_t moved = nodes[0].fabric->figures.shards_moved;
    node_begin(5);
    map_of_those_that_are_there();
    pass(4000);
    only_owners_know(1000);
    moved = nodes[0].fabric->figures.shards_moved - moved;
    assert_true(moved > 0 && moved < OWNERS * WF_SHARDS / 5);

    node_end(5, false);
    map_of_those_that_are_there();
    pass(1000);
    only_owners_know(1000);

    /* One dies: what the others have is known by who owns its shards now, when its lease is over.
     */
    node_end(4, true);
    map_of_those_that_are_there();
    pass(12000);
    only_owners_know(1000);
    watches = true;
    for (uint32_t b = 1000; b < 2000; b++)
        have((int)(b % 4), b, true);
    for (uint32_t b = 0; b < 500; b++)
        if (nodes[b % 5].fabric)
            have((int)(b % 5), b, false);
    pass(300);
    only_owners_know(2000);
    assert_int_equal(strays, 0);
    end();
}

static void what_an_owner_knows_is_found(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, true);
    pass(300);
    for (uint32_t b = 0; b < 100; b++)
        assert_int_equal(fetch(1, b, 200), WEFT_OK);
    assert_int_equal(fetch(1, 100, 300), WEFT_MISS);

    /* The host hears of all that it asks for, its own shards' among them, and of their end. */
    look(2, 0, 110);
    pass(100);
    for (uint32_t b = 0; b < 110; b++)
        if (nodes[2].known[b] != (b < 100))
            fail_msg("block %u, whose shard it %s, is %s to be there", b,
                     owns(2, b) ? "owns" : "does not own", nodes[2].known[b] ? "said" : "not said");
    pass(2000);
    look(2, 50, 50); /* said again, it is believed from then on */
    pass(4000);
    for (uint32_t b = 0; b < 100; b++)
        assert_true(nodes[2].known[b] == (b >= 50));
    pass(4000);
    for (uint32_t b = 0; b < 100; b++) {
        assert_false(nodes[2].known[b]);
        assert_true(knows(2, b) == owns(2, b));
    }
    end();
}

/* So that who hands over without end leaves room for others (peers.h). */
static void what_is_handed_over_is_its_word_who_does(void **state)
{
    (void)state;
    static struct wf_fabric_peer peers[WF_FABRIC_PEERS_MAX];
    const struct wf_fabric_event event = event_of(1);
    begin(3, WF_FABRIC_DIRECTORY_PARTS, 65536);
    (void)wf_fabric_peers(nodes[0].fabric, peers, WF_FABRIC_PEERS_MAX);
    pass(200);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    pass(100);
    assert_true(nodes[1].known[1]);
    assert_int_equal(nodes[1].from, wf_peer_find(nodes[1].fabric, "a")->number);
    end();
}

/* Who owns a block's shard knows at once that nobody has it any more, and so does its host; others
 * when what they were told is over. */
static void a_last_copy_that_went_is_no_copy(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, true);
    have(3, 0, true);
    pass(300);
    look(2, 0, 100);
    pass(100);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, false);
    pass(400);
    for (uint32_t b = 1; b < 100; b++)
        assert_true(nodes[2].known[b] == !owns(2, b));
    assert_true(nodes[2].known[0]);
    pass(WF_FOUND_NS / MS + 500);
    for (uint32_t b = 0; b < 100; b++)
        assert_false(nodes[2].known[b]);
    end();
}

static void a_stale_answer_is_a_miss(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    have(0, 1, true);
    have(0, 2, true);
    have(3, 2, true);
    pass(300);
    nodes[0].silent[1] = nodes[0].silent[2] = true;
    assert_int_equal(fetch(4, 1, 500), WEFT_MISS);
    assert_int_equal(fetch(4, 2, 500), WEFT_OK); /* the other one has it */
    end();
}

static void an_owner_that_is_dead_is_not_waited_for(void **state)
{
    (void)state;
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    /* A block whose owners are neither 0, who has it, nor 1, who asks. */
    uint32_t b = 0;
    int owner[OWNERS];
    while (owns(0, b) || owns(1, b))
        b++;
    owners_of(b, owner);
    have(0, b, true);
    pass(300);
    wf_net_sim_mute(world, names[owner[0]] + 4, true, true);
    assert_int_equal(fetch(1, b, 150), WEFT_OK); /* the other owner knows */
    wf_net_sim_mute(world, names[owner[1]] + 4, true, true);
    pass(2 * WF_FOUND_NS / MS);
    for (int i = 0; i < 2; i++)
        assert_true(fetch(1, b, 400) != WEFT_OK);
    /* When they are members no more, others own the shard, and know. */
    node_end(owner[0], true);
    node_end(owner[1], true);
    map_of_those_that_are_there();
    pass(12000);
    only_owners_know(b + 1);
    assert_int_equal(fetch(1, b, 400), WEFT_OK);
    end();
}

static void what_is_asked_is_bounded(void **state)
{
    (void)state;
    begin(4, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < BLOCKS; b++)
        have(0, b, true);
    pass(2000);
    only_owners_know(BLOCKS);
    uint64_t own = copies_known(1);
    assert_true(own > BLOCKS * OWNERS / 4 * 8 / 10 && own < BLOCKS * OWNERS / 4 * 12 / 10);
    /* Nobody answers: all of it ends, and is not kept. */
    for (int i = 2; i < 4; i++)
        wf_net_sim_mute(world, names[i] + 4, true, false);
    wf_net_sim_mute(world, names[0] + 4, true, false);
    for (int round = 0; round < 4; round++)
        look(1, 0, BLOCKS);
    pass(400);
    assert_int_equal(copies_known(1), own);
    for (int i = 0; i < 4; i++)
        wf_net_sim_mute(world, names[i] + 4, false, false);
    /* They do: what was found lapses. */
    pass(500);
    for (int round = 0; round < 4; round++) {
        look(1, 0, BLOCKS);
        pass(60);
    }
    assert_true(copies_known(1) > own);
    pass(WF_FOUND_NS / MS + 1000);
    assert_int_equal(copies_known(1), own);
    end();
}

/* ------------------------------------------------------------------------------- all, or a part */

static int in_parts(void)
{
    int count = 0;
    for (int i = 0; i < NODES; i++)
        count += nodes[i].fabric && wf_fabric_in_parts(nodes[i].fabric);
    return count;
}

static void all_is_kept_or_a_part_by_what_it_costs(void **state)
{
    enum { COUNT = 5, MANY = 4000, FEW = 900, LATE = 100 };
    (void)state;
    begin(COUNT, WF_FABRIC_DIRECTORY_AUTO, 4096);
    /* Each block is on two nodes. */
    for (uint32_t b = 0; b < FEW; b++) {
        have((int)(b % COUNT), b, true);
        have((int)((b + 1) % COUNT), b, true);
    }
    pass(5000);
    assert_int_equal(in_parts(), 0);
    for (uint32_t b = 0; b < FEW; b++)
        for (int i = 0; i < COUNT; i++)
            assert_true(knows(i, b) && nodes[i].known[b]);

    /* Nine tenths of what a node has room for: each keeps its part. */
    for (uint32_t b = FEW; b < MANY; b++)
        have((int)(b % COUNT), b, true);
    pass(8000);
    assert_int_equal(in_parts(), COUNT);
    only_owners_know(MANY);
    for (uint32_t b = 0; b < MANY; b += 97)
        for (int i = 0; i < COUNT; i++)
            if (!nodes[i].here[b])
                assert_int_equal(fetch(i, b, 400), WEFT_OK);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(nodes[i].fabric->figures.refused_news, 0);

    /* Of these the hosts hear only when all is kept again. */
    for (uint32_t b = MANY; b < MANY + LATE; b++) {
        have((int)(b % COUNT), b, true);
        have((int)((b + 1) % COUNT), b, true);
    }
    /* It stays so for a minute, and longer while there is as much. */
    pass(70000);
    assert_int_equal(in_parts(), COUNT);
    for (uint32_t b = FEW; b < MANY; b++)
        have((int)(b % COUNT), b, false);
    pass(8000);
    assert_int_equal(in_parts(), 0);
    for (uint32_t b = 0; b < MANY + LATE; b++)
        for (int i = 0; i < COUNT; i++)
            if (knows(i, b) != (b < FEW || b >= MANY) || nodes[i].known[b] != knows(i, b))
                fail_msg("block %u: %s %s, its host %s", b, names[i],
                         knows(i, b) ? "knows" : "knows not",
                         nodes[i].known[b] ? "too" : "does not");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_follow_the_members),
        cmocka_unit_test(what_an_owner_knows_is_found),
        cmocka_unit_test(what_is_handed_over_is_its_word_who_does),
        cmocka_unit_test(a_last_copy_that_went_is_no_copy),
        cmocka_unit_test(a_stale_answer_is_a_miss),
        cmocka_unit_test(an_owner_that_is_dead_is_not_waited_for),
        cmocka_unit_test(what_is_asked_is_bounded),
        cmocka_unit_test(all_is_kept_or_a_part_by_what_it_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
