/* SPDX-License-Identifier: Apache-2.0
 *
 * A chain that a node with a part of the directory asks others about: in how few messages, how it
 * is said how that stands, and what ends it.
 */
#include "parts_world.h"

static struct wf_fabric_event chain[BLOCKS];

static enum weft_status find(int i, uint32_t first, uint32_t count)
{
    for (uint32_t k = 0; k < count; k++)
        chain[k] = event_of(first + k);
    return wf_fabric_find(nodes[i].fabric, chain, count);
}

/* How long it takes until that is answered, in milliseconds; up to `most`. */
static uint64_t find_ends(int i, uint32_t first, uint32_t count, uint64_t most)
{
    uint64_t ms = 0;
    for (; find(i, first, count) == WEFT_PENDING; ms++) {
        if (ms == most)
            fail_msg("still asked about after %llu ms", (unsigned long long)ms);
        pass(1);
    }
    assert_int_equal(find(i, first, count), WEFT_MISS);
    return ms;
}

static void a_chain_takes_a_few_messages(void **state)
{
    enum { LONG = 300, SHORT = 100, PIECE = 2000 };
    (void)state;
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < LONG; b++)
        have(0, b, true);
    for (uint32_t b = 0; b < SHORT; b++)
        have(3, b, true);
    pass(300);
    const struct wf_fabric_figures *figures = &nodes[1].fabric->figures;
    uint64_t asked = figures->lookups;
    look(1, 0, LONG + 50);
    pass(60);
    for (uint32_t b = 0; b < LONG + 50; b++)
        if (nodes[1].known[b] != (b < LONG) || knows(1, b) != (b < LONG))
            fail_msg("block %u is %s", b, nodes[1].known[b] ? "said" : "not said");
    asked = figures->lookups - asked;
    assert_true(asked > 1 && asked < 16);
    struct wf_fabric_event event = event_of(0);
    assert_int_equal(wf_places_count(nodes[1].fabric->places, event.key, 9), 2);

    /* A node has one piece and another the next: it goes on there. */
    for (uint32_t b = PIECE; b < PIECE + 60; b++)
        have(b < PIECE + 30 ? 2 : 4, b, true);
    pass(300);
    look(1, PIECE, 100);
    pass(60);
    for (uint32_t b = PIECE; b < PIECE + 100; b++)
        assert_true(nodes[1].known[b] == (b < PIECE + 60));
    end();
}

/* An owner stands still: by the time that it answers who has the first block of a chain, the walk
 * has heard that of the other one, has gone on, and waits for the one that stood again, of a later
 * block that nobody has.  What it says of the first is not said of that one. */
static void an_answer_to_what_is_not_asked_any_more_does_not_count(void **state)
{
    enum { LONG = 3, ASKED = 4 }; /* both owners, who has it, and the first owner again */
    (void)state;
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    uint32_t b = 0;
    int first[OWNERS], then[OWNERS];
    for (;; b++) { /* node 0 has it, and 1 asks: neither owns what is asked about */
        assert_in_range(b, 0, BLOCKS - LONG - 2);
        owners_of(b, first);
        owners_of(b + LONG, then);
        if (first[0] == then[0] && !owns(0, b) && !owns(1, b) && !owns(1, b + LONG))
            break;
    }
    for (uint32_t k = 0; k < LONG; k++)
        have(0, b + k, true);
    pass(300);
    const struct wf_fabric_figures *figures = &nodes[1].fabric->figures;
    uint64_t asked = figures->lookups;
    nodes[first[0]].stands = true;
    look(1, b, LONG + 1);
    for (int ms = 0; ms < 200 && figures->lookups - asked < ASKED; ms++)
        pass(1);
    assert_int_equal(figures->lookups - asked, ASKED);
    nodes[first[0]].stands = false;
    pass(300);
    for (uint32_t k = 0; k <= LONG; k++)
        if (nodes[1].known[b + k] != (k < LONG))
            fail_msg("block %u of %u is %s", k, LONG, nodes[1].known[b + k] ? "said" : "not said");
    end();
}

static void it_is_said_how_a_question_stands(void **state)
{
    (void)state;
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < 40; b++)
        have(0, b, true);
    pass(300);
    uint64_t asked = nodes[1].fabric->figures.lookups;
    assert_true(find_ends(1, 5000, 40, 30) > 0); /* nobody has it */
    assert_true(nodes[1].fabric->figures.lookups - asked <= OWNERS);
    assert_int_equal(find(1, 0, 40), WEFT_PENDING);
    asked = nodes[1].fabric->figures.lookups;
    for (int i = 0; i < 15; i++) { /* it is asked once, however often somebody wants to know */
        (void)find(1, 0, 40);
        pass(1);
    }
    for (uint32_t b = 0; b < 40; b++)
        assert_true(nodes[1].known[b]);
    assert_true(nodes[1].fabric->figures.lookups - asked < 8);

    /* Owners that are dead: a miss, as soon as nobody is left to ask. */
    uint32_t b = 6000;
    while (owns(0, b) || owns(1, b))
        b++;
    for (int i = 2; i < NODES; i++)
        wf_net_sim_mute(world, names[i] + 4, true, true);
    uint64_t ms = find_ends(1, b, 20, 200);
    assert_true(ms >= 90 && ms <= 150);
    end();
}

static void more_questions_than_can_be_asked_at_once_are_asked_later(void **state)
{
    enum { CHAINS = 200, DEPTH = 20 };
    (void)state;
    begin(4, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < CHAINS * DEPTH; b++)
        have(0, b, true);
    pass(500);
    /* Two of the three that could be asked do not answer. */
    wf_net_sim_mute(world, "c", true, true);
    wf_net_sim_mute(world, "d", true, true);
    for (uint32_t k = 0; k < CHAINS; k++)
        look(1, k * DEPTH, DEPTH);
    pass(20);
    assert_in_range(nodes[1].fabric->figures.lookups_full, 1, CHAINS - 64);
    pass(280); /* as long as a walk may last, and no longer */
    uint64_t asked = nodes[1].fabric->figures.lookups;
    pass(100);
    assert_int_equal(nodes[1].fabric->figures.lookups, asked);
    wf_net_sim_mute(world, "c", false, false);
    wf_net_sim_mute(world, "d", false, false);
    pass(1500);
    for (uint32_t k = 0; k < CHAINS; k++) {
        look(1, k * DEPTH, DEPTH);
        pass(20);
    }
    for (uint32_t b = 0; b < CHAINS * DEPTH; b++)
        if (!nodes[1].known[b])
            fail_msg("block %u of chain %u is not said", b % DEPTH, b / DEPTH);
    end();
}

/* An owner names who has it good enough for who asks, and a holder counts what it has as good. */
static void what_lost_something_is_found_by_who_takes_it(void **state)
{
    enum { LONG = 40, SHORT = 25, REST = 100 };
    (void)state;
    memcpy(asks, (uint8_t[NODES]){3, 1, 2, 3, 3, 3}, sizeof asks);
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < LONG; b++) {
        have_as(0, b, b < SHORT ? WEFT_TRANSPARENT : WEFT_ECONOMY);
        have_as(3, REST + b, b < SHORT ? 0 : WEFT_TRANSPARENT);
    }
    pass(300);
    for (uint32_t first = 0; first <= REST; first += REST) {
        uint32_t exact = first ? SHORT : 0, transparent = first ? LONG : SHORT;
        for (int i = 1; i <= 4; i += i < 2 ? 1 : 2) { /* b, c and e */
            uint32_t most = asks[i] == 1 ? exact : asks[i] == 2 ? transparent : LONG;
            look(i, first, LONG);
            pass(100);
            for (uint32_t b = 0; b < LONG; b++)
                if (nodes[i].known[first + b] != (b < most) ||
                    (b < most && nodes[i].said[first + b] > (asks[i] > 1 ? asks[i] : 0)))
                    fail_msg("block %u is %s to %s, of quality %u", first + b,
                             nodes[i].known[first + b] ? "said" : "not said", names[i],
                             nodes[i].said[first + b]);
            pass(200);
            for (uint32_t b = 0; b < LONG; b += 3)
                assert_int_equal(fetch(i, first + b, 500), b < most ? WEFT_OK : WEFT_MISS);
        }
    }
    end();
}

/* Of a chain only the worst is said; of its own shards' blocks a node has heard how they are. */
static void what_an_owner_was_told_is_not_worse_for_a_chain(void **state)
{
    (void)state;
    memset(asks, WEFT_ECONOMY, sizeof asks);
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    uint32_t b = 0;
    while (owns(1, b) || !owns(1, b + 1))
        b++;
    have_as(0, b, WEFT_ECONOMY);
    have_as(0, b + 1, 0);
    pass(300);
    struct wf_fabric_event own = event_of(b + 1);
    assert_int_equal(wf_fabric_best(nodes[1].fabric, own.key), WEFT_LOSSLESS);
    look(1, b, 2);
    pass(100);
    assert_true(nodes[1].known[b] && nodes[1].known[b + 1]);
    assert_int_equal(wf_fabric_best(nodes[1].fabric, own.key), WEFT_LOSSLESS);
    end();
}

/* It is not asked over and over what there is no room to know. */
static void a_chain_that_finds_no_room_is_given_up(void **state)
{
    enum { DEPTH = 10, MANY = 4000 };
    (void)state;
    begin(4, WF_FABRIC_DIRECTORY_PARTS, 64);
    uint32_t b = 0;
    while (owns(0, b) || owns(1, b))
        b++;
    for (uint32_t k = 0; k < DEPTH; k++)
        have(0, b + k, true);
    pass(300);
    for (uint32_t k = b + DEPTH; k < MANY; k++)
        if (owns(1, k))
            have(0, k, true);
    pass(1000);
    uint64_t asked = nodes[1].fabric->figures.lookups;
    look(1, b, DEPTH);
    pass(400);
    asked = nodes[1].fabric->figures.lookups - asked;
    assert_true(asked > 0 && asked < 16);
    assert_false(nodes[1].known[b]);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_takes_a_few_messages),
        cmocka_unit_test(an_answer_to_what_is_not_asked_any_more_does_not_count),
        cmocka_unit_test(it_is_said_how_a_question_stands),
        cmocka_unit_test(more_questions_than_can_be_asked_at_once_are_asked_later),
        cmocka_unit_test(what_lost_something_is_found_by_who_takes_it),
        cmocka_unit_test(what_an_owner_was_told_is_not_worse_for_a_chain),
        cmocka_unit_test(a_chain_that_finds_no_room_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
