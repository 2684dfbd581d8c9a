/* SPDX-License-Identifier: Apache-2.0
 *
 * Who behaves for a while, and then does not: links that are begun and never used, many of who
 * proves nothing, all told anew without end, a node that takes nothing.  Nodes in virtual time, and
 * strangers; what one of them does, the others do not notice.
 */
#include "fabric/inner.h"
#include "fabric_stranger.h"

#define NODES 4
#define DEAD_MS 5000u /* as the fabric has it by itself */
#define CROWD 80

struct node {
    struct wf_fabric *fabric;
    uint32_t offered;
    struct wf_fabric_event has; /* that it tells of when it tells all */
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};
static const char *const secrets[1] = {"one for all"};
static struct stranger x, y;

static void offered(void *context, const char *from, uint32_t domain, const uint8_t key[32])
{
    (void)from, (void)domain, (void)key;
    ((struct node *)context)->offered++;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    const struct node *node = context;
    (void)domain, (void)cursor;
    if (node->has.kind)
        found(to, &node->has);
    return false;
}

static void node_begin(int i)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    options.host.each = each;
    options.host.offered = offered;
    world_node(i, &options);
}

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 5});
    for (int i = 0; i < 3; i++)
        node_begin(i);
    pass(2500);
    return 0;
}

static int end(void **state)
{
    (void)state;
    world_end();
    return 0;
}

static const struct wf_peer_node *at_a(const char *name)
{
    return wf_peer_find(nodes[0].fabric, name);
}

static struct wf_fabric_event block(uint8_t number)
{
    return (struct wf_fabric_event){.kind = WF_FABRIC_HERE, .bytes = 100, .key = {number}};
}

static void comes_in(struct stranger *s, const char *name, const char *const *with, uint32_t count)
{
    struct wf_fabric_ident ident = stranger_ident(name);
    ident.epoch = 1;
    stranger_begin(s, NULL, names[0]);
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 10);
    if (!s->down)
        stranger_joins(s, with, count);
    stranger_waits(s, 10);
}

/* --------------------------------------------------------------------------- beginnings */

static void who_does_not_say_who_it_is_goes(void **state)
{
    (void)state;
    struct wf_fabric_ident ident = stranger_ident("x");
    stranger_begin(&x, NULL, names[0]);
    stranger_begin(&y, NULL, names[0]);
    stranger_says(&y, &ident, sizeof ident);
    stranger_waits(&y, 10);
    stranger_waits(&x, 10);
    assert_false(x.down || y.down);
    stranger_waits(&x, 2 * DEAD_MS + 100);
    assert_true(x.down);
    stranger_waits(&y, 100);
    assert_true(y.down);
    stranger_end(&x);
    stranger_end(&y);
}

/* A node that is up and mute where a list says that one is: it is called again. */
static void a_mute_node_is_called_again(void **state)
{
    (void)state;
    stranger_begin(&x, names[3], NULL);
    for (uint32_t ms = 0; ms < 10000 && !x.link; ms += 10) {
        pass(10);
        assert_int_equal(wf_net_sim.poll(x.net, 0), WEFT_OK);
    }
    assert_non_null(x.link);
    for (uint32_t ms = 0; ms < 4 * DEAD_MS && !x.down; ms += 10) {
        pass(10);
        assert_int_equal(wf_net_sim.poll(x.net, 0), WEFT_OK);
    }
    assert_true(x.down);
    stranger_end(&x);
    node_begin(3);
    pass(7000);
    assert_non_null(at_a("d"));
    assert_non_null(at_a("d")->link);
}

static void those_who_prove_nothing_are_few(void **state)
{
    (void)state;
    static struct stranger crowd[CROWD];
    uint32_t in = 0;
    for (int i = 0; i < CROWD; i++) {
        char name[16];
        snprintf(name, sizeof name, "n%d", i);
        comes_in(&crowd[i], name, NULL, 0);
        in += !crowd[i].down;
    }
    assert_int_equal(in, 64);
    comes_in(&x, "x", secrets, 1);
    assert_false(x.down);
    assert_true(wf_peer_believed(nodes[0].fabric, at_a("x")));
    stranger_end(&x);
    for (int i = 0; i < CROWD; i++)
        stranger_end(&crowd[i]);
}

/* --------------------------------------------------------------------------- anew */

static void tell_anew(struct stranger *s)
{
    struct {
        struct wf_fabric_events said;
        struct wf_fabric_event event;
    } m = {.said = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_EVENTS},
                    .count = 1,
                    .flags = WF_FABRIC_RESET | WF_FABRIC_COMPLETE},
           .event = block(77)};
    stranger_says(s, &m, sizeof m);
}

static void what_is_told_anew_again_and_again_ends(void **state)
{
    (void)state;
    comes_in(&x, "x", secrets, 1);
    for (int i = 0; i < 20; i++)
        tell_anew(&x);
    stranger_waits(&x, 100);
    assert_false(x.down);
    for (int i = 0; i < 5000 && !x.down; i++) {
        tell_anew(&x);
        stranger_waits(&x, i % 8 == 0);
    }
    assert_true(x.down);
    stranger_end(&x);

    comes_in(&y, "y", secrets, 1);
    for (uint64_t i = 2; i < 5000 && !y.down; i++) {
        struct wf_fabric_ident again = stranger_ident("y");
        again.epoch = i;
        stranger_says(&y, &again, sizeof again);
        stranger_waits(&y, i % 8 == 0);
    }
    assert_true(y.down);
    stranger_end(&y);
    struct wf_fabric_event event = block(1);
    wf_fabric_tell(nodes[1].fabric, &event);
    pass(100);
    assert_true(wf_fabric_elsewhere(nodes[0].fabric, event.key));
}

/* All numbers in the replica are being swept out: what is told just then is asked for again. */
static void what_finds_no_number_is_not_lost(void **state)
{
    (void)state;
    struct wf_fabric *a = nodes[0].fabric;
    struct wf_fabric_event event = block(2);
    assert_int_equal(at_a("b")->place, WF_PLACE_NONE);
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 0; i < WF_PLACES_USED; i++)
        if (a->peer_of[i] == WF_PLACE_FREE)
            a->peer_of[i] = WF_PLACE_LEAVING;
    pthread_mutex_unlock(&a->lock);
    nodes[1].has = event;
    wf_fabric_tell(nodes[1].fabric, &event);
    pass(100);
    assert_false(wf_fabric_elsewhere(a, event.key));
    a->places_leaving = true;
    pass(2000);
    assert_true(wf_fabric_elsewhere(a, event.key));
}

/* --------------------------------------------------------------------------- orders */

static void who_takes_nothing_holds_up_nobody_else(void **state)
{
    (void)state;
    struct wf_fabric_event event = block(3);
    struct wf_link *stuck = wf_peer_find(nodes[0].fabric, "b")->link;
    uint32_t notes = stuck->large_notes;
    (void)figures_of(0);
    event.where = WF_FABRIC_IN_POOL;
    wf_fabric_tell(nodes[0].fabric, &event);
    pass(50);
    stuck->large_notes = WF_LINK_EVENTS_MAX;
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    assert_int_equal(wf_fabric_forget(nodes[0].fabric, 0, block(9).key), WEFT_OK);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "b", &event, 1), WEFT_OK);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "c", &event, 1), WEFT_OK);
    pass(50);
    assert_int_equal(nodes[1].offered, 0);
    assert_int_equal(nodes[2].offered, 1);
    stuck->large_notes = notes;
    pass(50);
    assert_int_equal(nodes[1].offered, 2);
    assert_int_equal(nodes[2].offered, 1);
    assert_int_equal(nodes[0].fabric->order_count, 0);
    assert_int_equal(wf_fabric_offer(nodes[0].fabric, "c", &event, 1), WEFT_OK);
    pass(50);
    assert_int_equal(nodes[2].offered, 2);
}

/* -------------------------------------------------------------------------------------- riches */

static void says_riches(struct stranger *s)
{
    const struct wf_fabric_ping ping = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PING},
                                        .pool_bytes = UINT64_MAX,
                                        .free_bytes = UINT64_MAX,
                                        .lent_bytes = UINT64_MAX - 7,
                                        .lent_free_bytes = UINT64_MAX,
                                        .lends_bytes = UINT64_MAX,
                                        .lends_used_bytes = UINT64_MAX,
                                        .left_bytes = UINT64_MAX};
    stranger_says(s, &ping, sizeof ping);
    stranger_waits(s, 10);
}

static void what_cannot_be_is_not_added_up(void **state)
{
    (void)state;
    uint64_t bytes, unused;
    comes_in(&x, "x", secrets, 1);
    comes_in(&y, "y", secrets, 1);
    says_riches(&x);
    says_riches(&y);
    pass(100);
    wf_fabric_lent_here(nodes[0].fabric, &bytes, &unused);
    assert_true(bytes >= (uint64_t)1 << 50);
    assert_true(bytes <= (uint64_t)1 << 60);
    assert_true(unused <= bytes);
    const struct wf_fabric_peer shown = peer_of(0, "x");
    assert_true((int64_t)shown.lent_bytes > 0 && (int64_t)shown.pool_bytes > 0);
    assert_true(shown.lent_free_bytes <= shown.lent_bytes);
    assert_true(shown.free_bytes <= shown.pool_bytes);
    stranger_end(&x);
    stranger_end(&y);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_does_not_say_who_it_is_goes),  TEST(a_mute_node_is_called_again),
        TEST(those_who_prove_nothing_are_few),  TEST(what_is_told_anew_again_and_again_ends),
        TEST(what_finds_no_number_is_not_lost), TEST(who_takes_nothing_holds_up_nobody_else),
        TEST(what_cannot_be_is_not_added_up),
    };
    return cmocka_run_group_tests_name("links that are misused", tests, NULL, NULL);
}
