/* SPDX-License-Identifier: Apache-2.0
 *
 * Who is believed what, between nodes in virtual time and somebody who says that he is one of them:
 * what is not proved changes nothing, and no link takes the place of one that proved more.
 */
#include "fabric/inner.h"
#include "fabric_stranger.h"

#define NODES 3
#define PART 4096u

struct node {
    struct wf_fabric *fabric;
};

static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c"};
static const char *const secrets[2] = {"one", "two"};
static struct stranger x, y;

static void node_begin(int i)
{
    struct wf_fabric_domain domains[2] = {{.secret_bytes = 32}, {.secret_bytes = 32}};
    struct wf_fabric_options options = world_options(names, NODES, i);
    char locality[16];
    for (int d = 0; d < 2; d++)
        memcpy(domains[d].secret, secrets[d], strlen(secrets[d]));
    snprintf(locality, sizeof locality, "rack1/%s", options.name);
    options.locality = locality;
    options.domains = domains;
    options.domain_count = 2;
    options.codec = WF_FABRIC_CODEC_AUTO;
    options.codec_speed = (struct wf_codec_speed){.encode_mbps = 100, .decode_mbps = 200};
    world_node(i, &options);
}

static int begin(void **state)
{
    (void)state;
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 3});
    node_begin(0);
    node_begin(1);
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

static struct wf_fabric_ident ident_of(const char *name)
{
    struct wf_fabric_ident ident = stranger_ident(name);
    snprintf(ident.locality, sizeof ident.locality, "rack9/%s", name);
    ident.epoch = 1;
    ident.codecs = WF_FABRIC_FRAMES;
    ident.encode_mbps = ident.decode_mbps = 7;
    return ident;
}

/* A link to a that has said who it is, and has heard who that is. */
static void known_under(struct stranger *s, const char *name, uint64_t epoch)
{
    struct wf_fabric_ident ident = ident_of(name);
    ident.epoch = epoch;
    stranger_begin(s, NULL, names[0]);
    stranger_says(s, &ident, sizeof ident);
    stranger_waits(s, 10);
    assert_false(s->down);
}

static void known(struct stranger *s, const char *name)
{
    known_under(s, name, 1);
}

static void says_of_itself(struct stranger *s)
{
    struct wf_fabric_ping ping = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_PING},
                                  .lent_bytes = 1 << 30,
                                  .lent_free_bytes = 1 << 30,
                                  .lends_bytes = 1 << 30,
                                  .flags = WF_FABRIC_DRAINING};
    stranger_says(s, &ping, sizeof ping);
    stranger_waits(s, 10);
}

static void b_is_as_it_said(const struct wf_link *link, uint64_t epoch)
{
    const struct wf_peer_node *b = at_a("b");
    assert_non_null(b);
    assert_ptr_equal(b->link, link);
    assert_true(wf_peer_believed(nodes[0].fabric, b));
    assert_string_equal(b->locality, "rack1/b");
    assert_int_equal(b->distance, 1);
    assert_int_equal(b->codecs, WF_FABRIC_FRAMES);
    assert_true(b->codec.encode_mbps == 101 && b->codec.decode_mbps == 201);
    assert_int_equal(b->epoch, epoch);
    assert_int_equal(b->said.lends_bytes, 0);
    assert_false(b->draining);
}

static void a_name_alone_changes_nothing(void **state)
{
    (void)state;
    const struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .bytes = 100, .key = {9}};
    wf_fabric_tell(nodes[1].fabric, &event);
    pass(100);
    const struct wf_link *link = at_a("b")->link;
    uint64_t epoch = at_a("b")->epoch;
    b_is_as_it_said(link, epoch);
    known(&x, "b");
    b_is_as_it_said(link, epoch);
    struct wf_fabric_ident again = ident_of("b");
    again.epoch = 77;
    stranger_says(&x, &again, sizeof again);
    stranger_waits(&x, 10);
    assert_false(x.down);
    b_is_as_it_said(link, epoch);
    stranger_joins(&x, NULL, 0);
    stranger_waits(&x, 10);
    assert_true(x.down);
    b_is_as_it_said(link, epoch);
    assert_true(wf_fabric_elsewhere(nodes[0].fabric, event.key));
    stranger_end(&x);
}

/* Nor of a node that there is no link to. */
static void who_proves_nothing_is_there_and_no_more(void **state)
{
    (void)state;
    known(&x, "z");
    assert_string_equal(at_a("z")->locality, "");
    assert_int_equal(at_a("z")->codecs, 0);
    stranger_joins(&x, NULL, 0);
    stranger_waits(&x, 10);
    says_of_itself(&x);
    assert_false(x.down);
    assert_non_null(at_a("z")->link);
    assert_string_equal(at_a("z")->locality, "");
    assert_int_equal(at_a("z")->distance, WF_LOCALITY_UNKNOWN);
    assert_int_equal(at_a("z")->codecs, 0);
    assert_int_equal(at_a("z")->said.lends_bytes, 0);
    assert_false(at_a("z")->draining);
    pass(1500);
    assert_int_equal(nodes[0].fabric->lenders_bytes, 0);

    /* Who is proved takes its place, and is believed. */
    known(&y, "z");
    assert_int_equal(at_a("z")->codecs, 0);
    stranger_joins(&y, secrets, 1);
    stranger_waits(&y, 10);
    says_of_itself(&y);
    assert_string_equal(at_a("z")->locality, "rack9/z");
    assert_int_equal(at_a("z")->distance, 2);
    assert_int_equal(at_a("z")->codecs, WF_FABRIC_FRAMES);
    assert_int_equal(at_a("z")->said.lends_bytes, 1 << 30);
    stranger_waits(&x, 10);
    assert_true(x.down);
    stranger_end(&x);
    stranger_end(&y);
}

static void who_proves_less_does_not_take_the_place(void **state)
{
    (void)state;
    known(&x, "z");
    stranger_joins(&x, secrets, 2);
    stranger_waits(&x, 10);
    const struct wf_link *both = at_a("z")->link;
    assert_non_null(both);
    known(&y, "z");
    stranger_joins(&y, secrets + 1, 1);
    stranger_waits(&y, 10);
    assert_true(y.down);
    assert_ptr_equal(at_a("z")->link, both);
    stranger_end(&y);
    known(&y, "z"); /* it is here again, before its end was noticed */
    stranger_joins(&y, secrets, 2);
    stranger_waits(&y, 10);
    stranger_waits(&x, 10);
    assert_false(y.down);
    assert_true(x.down);
    assert_non_null(at_a("z")->link);
    stranger_end(&x);
    stranger_end(&y);
}

/* Whenever it says that it began. */
static void who_proves_nothing_keeps_nobody_out(void **state)
{
    (void)state;
    known_under(&x, "z", UINT64_MAX);
    stranger_joins(&x, NULL, 0);
    stranger_waits(&x, 10);
    const struct wf_link *nothing = at_a("z")->link;
    assert_non_null(nothing);
    known(&y, "z");
    stranger_joins(&y, secrets, 1);
    stranger_waits(&y, 10);
    stranger_waits(&x, 10);
    assert_true(x.down && !y.down);
    const struct wf_link *one = at_a("z")->link;
    assert_true(one && one != nothing);
    stranger_end(&x);
    known_under(&x, "z", 0); /* nor one domain who proves both */
    stranger_joins(&x, secrets, 2);
    stranger_waits(&x, 10);
    stranger_waits(&y, 10);
    assert_true(y.down && !x.down);
    assert_ptr_not_equal(at_a("z")->link, one);
    stranger_end(&y);
    known_under(&y, "z", 0);
    stranger_joins(&y, secrets, 2);
    stranger_waits(&y, 10);
    stranger_end(&x);
    known_under(&x, "z", UINT64_MAX); /* of those that prove the same, the later one has it */
    stranger_joins(&x, secrets, 2);
    stranger_waits(&x, 10);
    stranger_end(&y);
    known(&y, "z");
    stranger_joins(&y, secrets, 2);
    stranger_waits(&y, 10);
    assert_true(y.down && !x.down);
    assert_int_equal(y.refused, 1);
    stranger_end(&x);
    stranger_end(&y);
}

/* What is shown to people is text; and who is refused is heard no more, whether he goes or not. */
static void a_refusal_is_text_and_an_end(void **state)
{
    (void)state;
    struct wf_fabric_refused said = {.head = {.magic = WF_FABRIC_MAGIC, .kind = WF_FABRIC_REFUSED},
                                     .reason = WF_FABRIC_NAME_TAKEN};
    uint64_t nonsense = nodes[0].fabric->nonsense;
    for (int i = 0; i < 3; i++) {
        static const char *const addresses[] = {"tcp:192.0.2.1:7420", "\x1b[2J", ""};
        snprintf(said.address, sizeof said.address, "%s", addresses[i]);
        known(&x, "z");
        stranger_joins(&x, secrets, 2);
        stranger_says(&x, &said, i < 2 ? sizeof said : sizeof said - 1);
        stranger_waits(&x, 10);
        assert_true(x.down);
        assert_int_equal(nodes[0].fabric->nonsense, nonsense + (uint64_t)i);
        stranger_end(&x);
    }
    known_under(&x, "z", 9);
    stranger_joins(&x, secrets, 2);
    stranger_waits(&x, 10);
    known_under(&y, "z", 8);
    y.stays = true;
    stranger_joins(&y, secrets, 2);
    stranger_waits(&y, 100);
    assert_true(y.refused == 1 && !y.down && !x.down);
    stranger_says(&y, "nothing that anybody knows", 26);
    for (int i = 0; i < 15 && !y.down; i++)
        stranger_waits(&y, 1000);
    assert_true(y.down);
    assert_int_equal(nodes[0].fabric->nonsense, nonsense + 2);
    stranger_end(&x);
    stranger_end(&y);
}

/* Two links that both know a node, of which one goes before either is joined. */
static void a_node_is_kept_until_the_last_link_to_it_has_gone(void **state)
{
    (void)state;
    known(&x, "z");
    known(&y, "z");
    stranger_end(&x);
    pass(50);
    assert_non_null(at_a("z"));
    stranger_joins(&y, secrets, 2);
    stranger_waits(&y, 10);
    assert_false(y.down);
    assert_non_null(at_a("z")->link);
    assert_true(peer_of(0, "z").up);
    stranger_end(&y);
    pass(50);
    assert_null(at_a("z"));
    assert_true(peer_of(0, "b").up);
}

/* Whose name is said at an address of the list is not what the address is, for long. */
static void an_address_is_tried_again_that_proved_nothing(void **state)
{
    (void)state;
    const struct wf_fabric_ident ident = ident_of("b");
    stranger_begin(&x, names[2], NULL);
    for (int i = 0; i < 60 && !x.link; i++)
        stranger_waits(&x, 100);
    assert_non_null(x.link);
    stranger_says(&x, &ident, sizeof ident);
    stranger_waits(&x, 1000);
    stranger_end(&x);
    struct wf_fabric_options alone = world_options(names, NODES, 2);
    alone.registry = "sim:nobody"; /* c calls nobody, and is called */
    world_node(2, &alone);
    pass(20000);
    assert_null(at_a("c"));
    pass(45000);
    assert_non_null(at_a("c"));
    assert_non_null(at_a("c")->link);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_name_alone_changes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(who_proves_nothing_is_there_and_no_more, begin, end),
        cmocka_unit_test_setup_teardown(who_proves_less_does_not_take_the_place, begin, end),
        cmocka_unit_test_setup_teardown(who_proves_nothing_keeps_nobody_out, begin, end),
        cmocka_unit_test_setup_teardown(a_refusal_is_text_and_an_end, begin, end),
        cmocka_unit_test_setup_teardown(a_node_is_kept_until_the_last_link_to_it_has_gone, begin,
                                        end),
        cmocka_unit_test_setup_teardown(an_address_is_tried_again_that_proved_nothing, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
