/* SPDX-License-Identifier: Apache-2.0
 *
 * What people are told of nodes that have no link, where nobody but they themselves says what they
 * are called: of two with one name, of one that was there, and of one that never was.
 */
#include "fabric/inner.h"
#include "fabric_world.h"

#define NODES 4

struct node {
    struct wf_fabric *fabric;
    char said[8192]; /* for people, a line each */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};

static void told(void *context, const char *sentence)
{
    struct node *n = context;
    size_t length = strlen(n->said);
    snprintf(n->said + length, sizeof n->said - length, "%s\n", sentence);
}

static uint32_t times(int i, const char *words)
{
    uint32_t count = 0;
    for (const char *at = strstr(nodes[i].said, words); at; at = strstr(at + 1, words))
        count++;
    return count;
}

/* It listens at names[i], and calls who is listed. */
static void node_begin(int i, const char *name, const char *list)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.name = name;
    options.registry = list;
    options.host.told = told;
    world_node(i, &options);
}

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 5});
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    return 0;
}

/* As node i, which is refused in the name of the one at `taken`, has it and tells of it. */
static void b_is_refused(int i, const char *taken)
{
    char words[128];
    snprintf(words, sizeof words,
             "no link to a: the name 'b' is taken by a node at '%s'; give this one another "
             "fabric.name",
             taken);
    assert_int_equal(times(i, words), 1);
    assert_string_equal(peer_of(i, "a").why, words + strlen("no link to a: "));
    assert_false(peer_of(i, "a").up);
    uint32_t calls = wf_peer_find(nodes[i].fabric, "sim-a")->failures;
    assert_in_range(calls, 5, 40);
}

/* Who is called has the link already that it began itself: that one stays. */
static void a_name_that_is_taken_is_told_to_who_is_refused(void **state)
{
    (void)state;
    node_begin(0, "a", "sim:b");
    node_begin(1, "b", "");
    pass(1000);
    assert_int_equal(times(0, "b is there, at b;"), 1);
    node_begin(3, "b", "sim:a");
    pass(60000);
    b_is_refused(3, "b");
    assert_int_equal(times(3, "no link to a"), 1);
    assert_int_equal(times(3, "a is there"), 1);
    assert_int_equal(times(0, "two nodes call themselves b: the one at b has the name"), 1);
    assert_int_equal(times(0, "b is there"), 1);
    assert_int_equal(times(0, "no link to b"), 0);
    pass(120000);
    assert_int_equal(times(0, "two nodes call themselves b"), 1);
    assert_int_equal(times(3, "no link to a"), 1);
    world_node_end(1); /* and when that is gone, the other has it */
    pass(10000);
    assert_true(peer_of(3, "a").up);
    assert_int_equal(times(3, "a is there"), 2);
    assert_int_equal(times(0, "b is there"), 2);
}

/* Both called: the later one takes the older's place. */
static void the_older_of_two_that_call_is_told_as_well(void **state)
{
    (void)state;
    node_begin(0, "a", "");
    node_begin(1, "b", "sim:a");
    pass(1000);
    node_begin(3, "b", "sim:a");
    pass(1000);
    assert_int_equal(times(1, "no link to a: "), 2);
    pass(60000);
    b_is_refused(1, "d");
    assert_int_equal(times(1, "no link to a: "), 2);
    assert_int_equal(times(1, "a is there"), 2);
    assert_int_equal(times(0, "two nodes call themselves b"), 1);
    assert_true(peer_of(3, "a").up);
    assert_int_equal(times(3, "no link to a"), 0);
}

/* Nor is it another node that comes again before the end of its link was noticed. */
static void one_that_is_back_at_once_is_no_second_one(void **state)
{
    (void)state;
    node_begin(0, "a", "sim:b");
    node_begin(1, "b", "");
    pass(1000);
    wf_net_sim_kill(world, "b", true); /* its host, so that nobody is told */
    world_node_end(1);
    node_begin(1, "b", "sim:a");
    pass(10000);
    assert_true(peer_of(0, "b").up && peer_of(1, "a").up);
    assert_int_equal(times(0, "two nodes"), 0);
}

static void the_reason_is_what_happened_last(void **state)
{
    (void)state;
    node_begin(0, "a", "sim:c");
    node_begin(2, "c", "sim:a");
    pass(1000);
    world_node_end(2);
    pass(60000); /* until it is called every few seconds alone */
    struct wf_fabric_peer before = peer_of(0, "c");
    assert_true(!before.up && before.why[0]);
    node_begin(2, "c", "sim:a");
    pass(200);
    assert_true(peer_of(0, "c").up);
    wf_net_sim_kill(world, "c", true); /* its host, so that nobody is told */
    world_node_end(2);
    for (int i = 0; i < 100 && peer_of(0, "c").up; i++)
        pass(50);
    assert_int_equal(times(0, "no link to c: "), 2);
    const char *last = strrchr(nodes[0].said, ':') + 2;
    assert_memory_equal(last, peer_of(0, "c").why, strlen(last) - 1);
    assert_string_not_equal(before.why, peer_of(0, "c").why);
}

static void who_was_there_is_called_by_name(void **state)
{
    (void)state;
    node_begin(0, "a", "sim:b,sim:c");
    node_begin(2, "c", "");
    pass(10000);
    assert_int_equal(times(0, "no link to sim-b so far, at sim:b: "), 1);
    world_node_end(2);
    pass(10000);
    assert_int_equal(times(0, "no link to c: "), 1);
    assert_int_equal(times(0, "no link to c, at sim:c: "), 1);
    assert_int_equal(times(0, " so far"), 1);
    assert_int_equal(times(0, "sim-c"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_that_is_taken_is_told_to_who_is_refused, begin, end),
        cmocka_unit_test_setup_teardown(the_older_of_two_that_call_is_told_as_well, begin, end),
        cmocka_unit_test_setup_teardown(one_that_is_back_at_once_is_no_second_one, begin, end),
        cmocka_unit_test_setup_teardown(the_reason_is_what_happened_last, begin, end),
        cmocka_unit_test_setup_teardown(who_was_there_is_called_by_name, begin, end),
    };
    return cmocka_run_group_tests_name("fabric_names", tests, NULL, NULL);
}
