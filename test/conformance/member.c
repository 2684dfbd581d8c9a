/* SPDX-License-Identifier: Apache-2.0
 *
 * What src/member/member.h promises, of every registry: see member_world.h for what is checked all
 * the while besides.
 */
#include "member_world.h"

static void test_a_node_alone(void **state)
{
    struct world *w = *state;
    struct wf_member list[KNOWN_MAX];
    struct node *a = node_open(w, 0, "alpha");
    assert_int_equal(a->heard_count, 0); /* nothing but from poll */
    WAIT(w, PATIENCE, all_know_all(w));
    struct wf_standing standing = standing_of(a);
    assert_int_equal(standing.state, WF_STANDING_MEMBER);
    assert_true(standing.epoch >= 1);
    assert_true(standing.until_ns > world_now(w));
    assert_string_equal(standing.why, "");
    assert_string_equal(known(a, "alpha")->addresses, "tcp:127.0.0.1:1");
    assert_string_equal(known(a, "alpha")->details, "{\"what\":\"\\\"test\\\"\"}");
    uint32_t count = w->ops->list(a->members, list, KNOWN_MAX);
    assert_int_equal(count, a->known_count);
    for (uint32_t i = 1; i < count; i++)
        assert_true(strcmp(list[i - 1].name, list[i].name) < 0);
    assert_true(w->ops->event(a->members) >= 0);
    if (w->backend->leases) { /* and it goes on being one */
        world_pass(w, 2 * w->lease_ms);
        assert_int_equal(standing_of(a).epoch, standing.epoch);
        assert_true(standing_of(a).until_ns > standing.until_ns);
        assert_true(standing_of(a).until_ns <= world_now(w) + (uint64_t)w->lease_ms * 1000000u);
    }
}

static void test_nodes_know_each_other(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    node_open(w, 2, "gamma");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(a->known_count, 3);
    assert_int_equal(heard_count(a, HEARD_LEFT, "beta"), 0);
    /* One that comes later is told, and told of all. */
    node_open(w, 3, "delta");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(b->known_count, 4);
}

static void test_what_a_node_says_changes(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = a;
    if (w->backend->leases)
        b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    assert_int_equal(w->ops->publish(a->members, "tcp:127.0.0.1:2 unix:/x", "{}"), WEFT_OK);
    WAIT(w, PATIENCE, strcmp(known(b, "alpha")->addresses, "tcp:127.0.0.1:2 unix:/x") == 0);
    assert_string_equal(known(b, "alpha")->details, "{}");
    assert_int_equal(known(b, "alpha")->epoch, epoch);
    assert_int_equal(heard_count(b, HEARD_LEFT, "alpha"), 0);
    /* As much as there may be, and no more. */
    char addresses[WF_MEMBER_ADDRESSES_MAX + 1], details[WF_MEMBER_DETAILS_MAX + 1];
    memset(addresses, 'a', sizeof addresses);
    memset(details, '"', sizeof details);
    addresses[sizeof addresses - 1] = details[sizeof details - 1] = '\0';
    assert_int_equal(w->ops->publish(a->members, addresses, "{}"), WEFT_E_INVALID);
    assert_int_equal(w->ops->publish(a->members, "", details), WEFT_E_INVALID);
    addresses[sizeof addresses - 2] = details[sizeof details - 2] = '\0';
    assert_int_equal(w->ops->publish(a->members, addresses, details), WEFT_OK);
    WAIT(w, PATIENCE, strcmp(known(b, "alpha")->details, details) == 0);
    assert_string_equal(known(b, "alpha")->addresses, addresses);
}

static void test_who_leaves_is_told_at_once(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t until = standing_of(b).until_ns;
    node_close(b, PATIENCE);
    WAIT(w, PATIENCE, !known(a, "beta"));
    assert_true(world_now(w) < until);
}

static void test_who_dies_is_told_when_its_lease_is_over(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t until = standing_of(b).until_ns;
    node_close(b, 0);
    WAIT(w, PATIENCE, !known(a, "beta"));
    assert_true(world_now(w) >= until);
    assert_int_equal(heard_count(a, HEARD_LEFT, "beta"), 1);
}

static void test_epochs_grow(void **state)
{
    struct world *w = *state;
    uint64_t last = 0;
    for (int i = 0; i < 4; i++) {
        struct node *a = node_open(w, 0, "alpha");
        WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_MEMBER);
        assert_true(standing_of(a).epoch > last);
        last = standing_of(a).epoch;
        node_close(a, i < 3 ? PATIENCE : 0);
    }
    struct node *a = node_open(w, 0, "alpha"); /* the one before has not said that it leaves */
    WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_MEMBER);
    assert_true(standing_of(a).epoch > last);
}

static void test_two_of_one_name(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, is_in(a));
    uint64_t epoch = standing_of(a).epoch;
    if (!w->backend->leases) {
        struct wf_members *second;
        assert_int_equal(w->ops->open(&a->options, &second), WEFT_E_BUSY);
        assert_non_null(strstr(wf_last_error(), "'alpha'"));
        return;
    }
    struct node *b = node_open(w, 1, "alpha");
    WAIT(w, PATIENCE, standing_of(b).state == WF_STANDING_REFUSED);
    assert_non_null(strstr(standing_of(b).why, "'alpha'"));
    world_pass(w, w->lease_ms * 3 / 2);
    assert_int_equal(standing_of(b).state, WF_STANDING_REFUSED);
    assert_int_equal(standing_of(b).until_ns, 0);
    assert_int_equal(standing_of(a).epoch, epoch);
    /* The first one dies, and the second has waited for that. */
    uint64_t until = standing_of(a).until_ns;
    node_close(a, 0);
    WAIT(w, PATIENCE, is_in(b));
    assert_true(world_now(w) >= until);
    assert_true(standing_of(b).epoch > epoch);
    WAIT(w, PATIENCE, known(b, "alpha") && known(b, "alpha")->epoch == standing_of(b).epoch);
}

static void test_two_that_race_for_a_name(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 5; i++) {
        node_open(w, 0, "alpha");
        node_open(w, 1, "alpha");
        node_open(w, 2, "alpha");
        WAIT(w, PATIENCE,
             (is_in(&w->nodes[0]) || is_in(&w->nodes[1]) || is_in(&w->nodes[2])) &&
                 (standing_of(&w->nodes[0]).state == WF_STANDING_REFUSED) +
                         (standing_of(&w->nodes[1]).state == WF_STANDING_REFUSED) +
                         (standing_of(&w->nodes[2]).state == WF_STANDING_REFUSED) ==
                     2);
        for (uint32_t j = 0; j < 3; j++) /* the others first, or one of them is next */
            if (!is_in(&w->nodes[j]))
                node_close(&w->nodes[j], 0);
        for (uint32_t j = 0; j < 3; j++)
            if (w->nodes[j].members)
                node_close(&w->nodes[j], PATIENCE);
    }
}

static void test_settings(void **state)
{
    struct world *w = *state;
    uint64_t first = 0, second = 0;
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    if (!w->backend->settings) { /* each node's own */
        assert_int_equal(set(a, "limits", "{}", 0), WEFT_OK);
        assert_string_equal(setting_of(a, "limits", &first), "{}");
        assert_int_equal(set(a, "limits", "[]", first + 1), WEFT_E_BUSY);
        assert_int_equal(set(a, "limits", "[]", 0), WEFT_E_BUSY);
        assert_string_equal(setting_of(node_open(w, 1, "beta"), "limits", &second), "");
        assert_int_equal(set(a, "limits", NULL, first), WEFT_OK);
        assert_string_equal(setting_of(a, "limits", &first), "");
        return;
    }
    struct node *b = node_open(w, 1, "beta");
    assert_int_equal(set(a, "limits", "{\"gbps\": 10}", 0), WEFT_OK);
    WAIT(w, PATIENCE, strcmp(setting_of(b, "limits", &first), "{\"gbps\": 10}") == 0);
    assert_true(first > 0);
    /* Only who knows the revision may change it. */
    assert_int_equal(set(b, "limits", "{}", 0), WEFT_E_BUSY);
    assert_int_equal(set(b, "limits", "{}", first + 1), WEFT_E_BUSY);
    assert_int_equal(set(b, "limits", NULL, first + 1), WEFT_E_BUSY);
    assert_int_equal(set(b, "limits", "{}", first), WEFT_OK);
    assert_int_equal(set(a, "limits", "{\"late\": 1}", first), WEFT_E_BUSY);
    WAIT(w, PATIENCE, strcmp(setting_of(a, "limits", &second), "{}") == 0);
    assert_true(second > first);
    assert_int_equal(set(a, "none", NULL, 7), WEFT_E_BUSY);
    /* Gone, and told as gone, and to be made anew. */
    assert_int_equal(set(a, "limits", NULL, second), WEFT_OK);
    WAIT(w, PATIENCE, !setting_of(b, "limits", &first)[0]);
    assert_int_equal(set(b, "limits", "[]", 0), WEFT_OK);
    WAIT(w, PATIENCE, strcmp(setting_of(a, "limits", &first), "[]") == 0);
    assert_true(heard_count(a, HEARD_SETTING, "limits") >= 2);
    /* One who comes later knows it, too. */
    struct node *c = node_open(w, 2, "gamma");
    WAIT(w, PATIENCE, strcmp(setting_of(c, "limits", &second), "[]") == 0);
    assert_int_equal(first, second);
}

static void test_settings_of_all_sizes(void **state)
{
    struct world *w = *state;
    uint64_t revision;
    char *value = malloc(WF_SETTING_MAX + 2), name[WF_SETTING_NAME_MAX + 2];
    assert_non_null(value);
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    memset(value, '\\', WF_SETTING_MAX + 1);
    memset(name, 'n', sizeof name);
    value[WF_SETTING_MAX + 1] = name[WF_SETTING_NAME_MAX + 1] = '\0';
    assert_int_equal(set(a, "big", value, 0), WEFT_E_INVALID);
    assert_int_equal(set(a, name, "{}", 0), WEFT_E_INVALID);
    assert_int_equal(set(a, "Big", "{}", 0), WEFT_E_INVALID);
    assert_int_equal(set(a, "../nodes/alpha", "{}", 0), WEFT_E_INVALID);
    value[WF_SETTING_MAX] = name[WF_SETTING_NAME_MAX] = '\0';
    assert_int_equal(set(a, name, value, 0), WEFT_OK);
    WAIT(w, PATIENCE, strcmp(setting_of(b, name, &revision), value) == 0);
    char small[8];
    assert_int_equal(w->ops->setting(b->members, name, small, sizeof small, &revision),
                     WEFT_E_LIMIT);
    assert_int_equal(set(a, "empty", "", 0), WEFT_OK);
    WAIT(w, PATIENCE, heard_count(b, HEARD_SETTING, "empty") == 1);
    free(value);
}

static uint32_t heard_state(const struct node *node, enum wf_standing_state state, uint64_t epoch)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < node->heard_count; i++)
        count += node->heard[i].kind == HEARD_STANDING && node->heard[i].state == state &&
                 node->heard[i].epoch == epoch;
    return count;
}

static void test_a_registry_that_is_away_for_longer_than_a_lease(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    uint64_t revision;
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(set(a, "kept", "{}", 0), WEFT_OK);
    WAIT(w, PATIENCE, setting_of(b, "kept", &revision)[0]);
    uint64_t epoch = standing_of(a).epoch;
    w->backend->away(w, true);
    WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_DOUBTFUL);
    uint64_t until = standing_of(a).until_ns;
    assert_true(world_now(w) < until);
    WAIT(w, PATIENCE, standing_of(a).state == WF_STANDING_LOST);
    assert_true(world_now(w) >= until);
    world_pass(w, w->lease_ms / 2);
    assert_int_equal(standing_of(a).state, WF_STANDING_LOST);
    assert_int_equal(standing_of(b).state, WF_STANDING_LOST);
    /* Nobody knows of the others, so nobody has left. */
    assert_int_equal(heard_count(a, HEARD_LEFT, "beta") + heard_count(b, HEARD_LEFT, "alpha"), 0);
    assert_non_null(known(a, "beta"));
    assert_string_equal(setting_of(b, "kept", &revision), "{}");
    assert_int_equal(set(a, "kept", "[]", revision), WEFT_E_NODE);

    w->backend->away(w, false);
    WAIT(w, PATIENCE, all_know_all(w));
    assert_true(standing_of(a).epoch > epoch);
    assert_int_equal(heard_count(a, HEARD_LEFT, "beta"), 1);
    assert_int_equal(heard_count(b, HEARD_LEFT, "alpha"), 1);
    assert_int_equal(heard_state(a, WF_STANDING_LOST, epoch) > 0, 1);
    assert_int_equal(heard_state(a, WF_STANDING_DOUBTFUL, epoch) > 0, 1);
    assert_string_equal(setting_of(b, "kept", &revision)[0] ? "kept" : "", "kept");
}

static void test_a_registry_that_is_away_for_a_moment(void **state)
{
    struct world *w = *state;
    struct node *a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    uint64_t epoch = standing_of(a).epoch;
    w->backend->away(w, true);
    world_pass(w, w->lease_ms / 4);
    w->backend->away(w, false);
    world_pass(w, w->lease_ms);
    assert_int_equal(standing_of(a).epoch, epoch);
    assert_int_equal(standing_of(a).state, WF_STANDING_MEMBER);
    assert_int_equal(heard_count(a, HEARD_LEFT, "alpha"), 0);
    node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
}

static void test_a_registry_that_dies_and_is_back(void **state)
{
    struct world *w = *state;
    uint64_t revision;
    struct node *a = node_open(w, 0, "alpha"), *b = node_open(w, 1, "beta");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(set(a, "kept", "{}", 0), WEFT_OK);
    uint64_t epoch = standing_of(a).epoch;
    w->backend->restart(w);
    WAIT(w, PATIENCE, setting_of(b, "kept", &revision)[0]);
    WAIT(w, PATIENCE, all_know_all(w));
    assert_true(standing_of(a).epoch >= epoch);
    /* What changes from now on is told. */
    node_open(w, 2, "gamma");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_int_equal(set(a, "new", "{}", 0), WEFT_OK);
    WAIT(w, PATIENCE, setting_of(b, "new", &revision)[0]);
    uint64_t last = standing_of(a).epoch;
    node_close(a, PATIENCE);
    WAIT(w, PATIENCE, !known(b, "alpha"));
    a = node_open(w, 0, "alpha");
    WAIT(w, PATIENCE, all_know_all(w));
    assert_true(standing_of(a).epoch > last);
}

static void test_a_node_that_comes_before_the_registry(void **state)
{
    struct world *w = *state;
    w->backend->away(w, true);
    struct node *a = node_open(w, 0, "alpha");
    world_pass(w, w->lease_ms / 2);
    assert_int_equal(standing_of(a).state, WF_STANDING_JOINING);
    assert_int_equal(standing_of(a).epoch, 0);
    assert_int_equal(standing_of(a).until_ns, 0);
    assert_int_equal(w->ops->list(a->members, NULL, 0), 0);
    w->backend->away(w, false);
    WAIT(w, PATIENCE, all_know_all(w));
}

/* What a registry has to have for a test to make sense of it. */
static bool any(const struct backend *backend)
{
    (void)backend;
    return true;
}

static bool leases(const struct backend *backend)
{
    return backend->leases;
}

static bool settings(const struct backend *backend)
{
    return backend->settings;
}

static bool away(const struct backend *backend)
{
    return backend->away;
}

static bool restart(const struct backend *backend)
{
    return backend->restart;
}

static const struct {
    struct CMUnitTest test;
    bool (*needs)(const struct backend *backend);
} tests[] = {
    {TEST(test_a_node_alone), any},
    {TEST(test_nodes_know_each_other), leases},
    {TEST(test_what_a_node_says_changes), any},
    {TEST(test_who_leaves_is_told_at_once), leases},
    {TEST(test_who_dies_is_told_when_its_lease_is_over), leases},
    {TEST(test_epochs_grow), any},
    {TEST(test_two_of_one_name), any},
    {TEST(test_two_that_race_for_a_name), leases},
    {TEST(test_settings), any},
    {TEST(test_settings_of_all_sizes), settings},
    {TEST(test_a_registry_that_is_away_for_longer_than_a_lease), away},
    {TEST(test_a_registry_that_is_away_for_a_moment), away},
    {TEST(test_a_registry_that_dies_and_is_back), restart},
    {TEST(test_a_node_that_comes_before_the_registry), away},
};
#define TESTS (sizeof tests / sizeof tests[0])
#define NAME_MAX_BYTES 120

struct list {
    struct CMUnitTest *tests;
    char (*names)[NAME_MAX_BYTES];
    size_t count;
};

static void add(struct list *list, const struct CMUnitTest *test, const struct backend *backend)
{
    char *name = list->names[list->count];
    struct CMUnitTest *added = &list->tests[list->count++];
    *added = *test;
    snprintf(name, NAME_MAX_BYTES, "%s: %s", backend->name, test->name);
    added->name = name;
    added->initial_state = (void *)(uintptr_t)backend;
}

/* member: what all registries promise.  member etcd: what only etcd's can come across, so that both
 * may run at once.  With one more word, the tests whose names are like that pattern. */
int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--stopped") == 0)
        return stopped_node(argv[2]);
    const bool own = argc > 1 && strcmp(argv[1], "etcd") == 0;
    size_t most = backend_count * TESTS + etcd_test_count;
    struct list list = {calloc(most, sizeof *list.tests), calloc(most, sizeof *list.names), 0};
    if (!list.tests || !list.names)
        abort();
    for (size_t i = 0; !own && i < backend_count; i++)
        for (size_t j = 0; j < TESTS; j++)
            if (tests[j].needs(&backends[i]))
                add(&list, &tests[j].test, &backends[i]);
    for (size_t i = 0; own && i < etcd_test_count; i++)
        add(&list, &etcd_tests[i], backend_of("etcd"));
    if (argc > 1 + own)
        cmocka_set_test_filter(argv[1 + own]);
    int failed = _cmocka_run_group_tests("member", list.tests, list.count, NULL, NULL);
    free(list.names);
    free(list.tests);
    return failed;
}
