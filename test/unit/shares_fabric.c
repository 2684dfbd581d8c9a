/* SPDX-License-Identifier: Apache-2.0
 *
 * Who of several nodes is asked and lent to, and who gets how much of a link: in virtual time
 * (net/sim.h), with a block of one byte value for every key.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "member/sim.h"

#include "fabric_world.h"

#define NODES 4
#define DOMAINS 2
#define BLOCK (256u << 10)
#define PART 65536u
#define FETCHES 512

struct node {
    struct wf_fabric *fabric;
    bool has; /* all blocks there are */
    uint32_t held, asked;
};

/* What a test says of one, or of all. */
struct spec {
    const char *locality, *state_dir;
    uint64_t lend, max_to_c;
    uint32_t share[DOMAINS];
    uint64_t max[DOMAINS];
};

static struct wf_member_sim_world *cluster; /* NULL: they have a list of each other */
static struct node nodes[NODES];
static uint8_t bytes_of_all[BLOCK];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    (void)domain, (void)key;
    n->asked++;
    if (!n->has || bytes != BLOCK)
        return WEFT_MISS;
    *out = (struct wf_fabric_held){.data = bytes_of_all, .bytes = bytes};
    n->held++;
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    struct node *n = context;
    assert_ptr_equal(held->data, bytes_of_all);
    n->held--;
}

static void node_begin(int i, const struct spec *spec)
{
    struct wf_fabric_options options = world_options(names, NODES, i);
    struct wf_fabric_domain domains[DOMAINS] = {{.secret_bytes = 32}, {.secret_bytes = 32}};
    for (int d = 0; d < DOMAINS; d++) {
        memset(domains[d].secret, 'a' + d, 32);
        domains[d].share = spec->share[d];
        domains[d].max_bytes_s = spec->max[d];
    }
    options.state_dir = spec->state_dir;
    const struct wf_fabric_link_limit to_c = {.name = "c", .bytes_s = spec->max_to_c};
    if (cluster) {
        options.registry = "sim:cluster";
        options.member = &wf_member_sim;
        options.member_world = cluster;
    }
    options.locality = spec->locality;
    options.host.hold = hold;
    options.host.let_go = let_go;
    options.domains = domains;
    options.domain_count = DOMAINS;
    options.lend_bytes = spec->lend;
    options.links = &to_c;
    options.link_count = 1;
    world_node(i, &options);
}

static void begin(const struct spec specs[NODES], uint64_t bandwidth)
{
    const struct wf_net_sim_options net = {.seed = 11, .bandwidth = bandwidth};
    world_begin(nodes, sizeof nodes[0], NODES, &net);
    memset(bytes_of_all, 'b', sizeof bytes_of_all);
    for (int i = 0; i < NODES; i++)
        node_begin(i, &specs[i]);
    pass(2500);
}

static void end(void)
{
    world_end();
    for (int i = 0; i < NODES; i++)
        assert_int_equal(nodes[i].held, 0);
}

static struct wf_fabric_event event_of(uint32_t domain, uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE,
                                    .domain = (uint8_t)domain,
                                    .bytes = BLOCK};
    for (int i = 0; i < 32; i++)
        event.key[i] = (uint8_t)((number * 2654435761u + domain) >> (i % 4 * 8)) ^
                       (uint8_t)(i * 37);
    return event;
}

static void tell(int node, uint32_t domain, uint32_t number)
{
    struct wf_fabric_event event = event_of(domain, number);
    nodes[node].has = true;
    wf_fabric_tell(nodes[node].fabric, &event);
}

/* A stream of fetches of one domain by one node: as many are under way as `depth`. */
struct stream {
    int node;
    uint32_t domain, next, depth;
    uint64_t done, failed;
    bool stops, background;
    struct wf_fabric_fetch fetches[FETCHES];
};
static uint8_t sink[BLOCK]; /* what comes is the same in each */

static void stream_ask(struct stream *s, struct wf_fabric_fetch *fetch);

static void stream_over(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct stream *s = fetch->user;
    s->done += status == WEFT_OK;
    s->failed += status != WEFT_OK;
    if (!s->stops)
        stream_ask(s, fetch);
    else
        s->depth--;
}

static void stream_ask(struct stream *s, struct wf_fabric_fetch *fetch)
{
    struct wf_fabric_event event = event_of(s->domain, s->next++ % FETCHES);
    *fetch = (struct wf_fabric_fetch){.domain = s->domain,
                                      .bytes = BLOCK,
                                      .part_bytes = PART,
                                      .data = sink,
                                      .background = s->background,
                                      .done = stream_over,
                                      .user = s};
    memcpy(fetch->key, event.key, 32);
    wf_fabric_fetch(nodes[s->node].fabric, fetch);
}

static void stream_begin(struct stream *s, int node, uint32_t domain, uint32_t depth)
{
    memset(s, 0, sizeof *s);
    s->node = node;
    s->domain = domain;
    s->depth = depth;
    for (uint32_t i = 0; i < depth; i++)
        stream_ask(s, &s->fetches[i]);
}

static void stream_end(struct stream *s)
{
    s->stops = true;
    for (int i = 0; i < 700 && s->depth; i++) /* a bound makes them wait for a minute at most */
        pass(100);
    assert_int_equal(s->depth, 0);
}

static struct stream first, second;

/* ---------------------------------------------------------------------------------------- near */

static const struct spec racks[NODES] = {{.locality = "rack1/a"},
                                         {.locality = "rack2/b"},
                                         {.locality = "rack1/c"},
                                         {.locality = ""}};

static void the_distance_is_known(void **state)
{
    (void)state;
    begin(racks, 0);
    assert_int_equal(peer_of(0, "b").distance, 2);
    assert_string_equal(peer_of(0, "b").locality, "rack2/b");
    assert_int_equal(peer_of(0, "c").distance, 1);
    assert_int_equal(peer_of(0, "d").distance, WF_LOCALITY_UNKNOWN);
    assert_int_equal(peer_of(3, "a").distance, WF_LOCALITY_UNKNOWN);
    assert_true(peer_of(0, "c").assumed_gbps > peer_of(0, "b").assumed_gbps);
    assert_true(peer_of(0, "b").assumed_gbps > 0);
    end();
}

static void the_nearer_of_equals_is_asked(void **state)
{
    (void)state;
    begin(racks, 0);
    for (int i = 1; i < NODES; i++)
        for (uint32_t n = 0; n < FETCHES; n++)
            tell(i, 0, n);
    pass(400);
    stream_begin(&first, 0, 0, 1);
    pass(20);
    stream_end(&first);
    assert_true(first.done > 10);
    assert_int_equal(first.failed, 0);
    assert_true(nodes[2].asked == first.done);
    assert_int_equal(nodes[1].asked + nodes[3].asked, 0);
    end();
}

/* Once it was measured that the near one is slow, the far one is asked. */
static void what_was_measured_wins(void **state)
{
    (void)state;
    begin(racks, 0);
    wf_net_sim_bandwidth(world, "c", 20u << 20);
    for (uint32_t n = 0; n < FETCHES; n++) {
        tell(2, 0, n);
        tell(1, 1, n);
    }
    pass(200);
    stream_begin(&first, 0, 0, 4); /* from c alone, and then from b alone */
    stream_begin(&second, 0, 1, 4);
    pass(500);
    stream_end(&first);
    stream_end(&second);
    assert_true(peer_of(0, "c").read_gbps < peer_of(0, "b").read_gbps / 2);
    assert_true(peer_of(0, "c").assumed_gbps == 0);
    for (uint32_t n = 0; n < FETCHES; n++)
        tell(1, 0, n);
    pass(200);
    uint32_t near = nodes[2].asked, far = nodes[1].asked;
    stream_begin(&first, 0, 0, 1);
    pass(20);
    stream_end(&first);
    assert_true(nodes[1].asked - far > 10);
    assert_int_equal(nodes[2].asked, near);
    end();
}

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    over(status);
}

static uint32_t lender_of(uint32_t number)
{
    static struct wf_fabric_store store;
    store = (struct wf_fabric_store){.block = event_of(0, number),
                                     .part_bytes = PART,
                                     .data = bytes_of_all,
                                     .done = stored};
    ended = false;
    wf_fabric_store(nodes[0].fabric, &store);
    assert_int_equal(until_over(1000, 20), WEFT_OK);
    return store.to;
}

static void a_nearer_lender_is_lent_from(void **state)
{
    (void)state;
    struct spec specs[NODES];
    memcpy(specs, racks, sizeof specs);
    specs[1].lend = 64u << 20;
    specs[2].lend = 4u << 20; /* the nearer has less */
    begin(specs, 0);
    uint32_t near = peer_of(0, "c").number, far = peer_of(0, "b").number, n = 0;
    while (n < 8)
        assert_int_equal(lender_of(n++), near);
    while (n < 64 && lender_of(n) == near)
        n++;
    assert_in_range(n, 10, 16); /* 4 MiB of blocks of 256 KiB with their sums */
    assert_int_equal(lender_of(n + 1), far);
    end();
}

/* -------------------------------------------------------------------------------------- shares */

#define CARD (200u << 20) /* bytes a second */

static void blocks_at_a(void)
{
    for (uint32_t n = 0; n < FETCHES; n++)
        for (uint32_t d = 0; d < DOMAINS; d++)
            tell(0, d, n);
    pass(400);
}

/* What came of both in the next `ms`, in bytes a second. */
static void measure(uint64_t ms, double *of_first, double *of_second)
{
    uint64_t before = first.done, other = second.done;
    pass(ms);
    *of_first = (double)(first.done - before) * BLOCK * 1000 / (double)ms;
    *of_second = (double)(second.done - other) * BLOCK * 1000 / (double)ms;
}

static void assert_near(double is, double should, double tolerance)
{
    if (is < should * (1 - tolerance) || is > should * (1 + tolerance))
        fail_msg("%.1f MB/s are not %.1f", is / 1e6, should / 1e6);
}

static void two_domains_share_a_link(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {{.share = {3, 1}}};
    double three, one;
    begin(specs, CARD);
    blocks_at_a();
    stream_begin(&first, 1, 0, 96);
    stream_begin(&second, 1, 1, 96);
    pass(1500);
    measure(3000, &three, &one);
    assert_near(three + one, CARD, .1);
    assert_near(three, .75 * CARD, .1);
    assert_near(one, .25 * CARD, .1);
    struct wf_fabric_figures figures = figures_of(0);
    assert_int_equal(figures.sends[0].share, 3);
    assert_near((double)figures.sends[0].sent.bytes_s, three, .15);
    assert_near((double)figures.sends[1].sent.bytes_s, one, .15);
    assert_true(figures.sends[1].sent.waits > 100);
    assert_true(figures.sends[1].sent.wait_us / figures.sends[1].sent.waits >
                figures.sends[0].sent.wait_us / figures.sends[0].sent.waits);
    /* What the other leaves. */
    stream_end(&first);
    measure(1000, &three, &one);
    assert_near(one, CARD, .1);
    /* Who was idle has saved nothing up, and a share can be another from now on. */
    assert_int_equal(wf_fabric_limit(nodes[0].fabric, WF_FABRIC_LIMIT_SHARE, "", 1, 3), WEFT_OK);
    stream_begin(&first, 1, 0, 96);
    pass(1000);
    measure(2000, &three, &one);
    assert_near(three, .5 * CARD, .1);
    assert_near(one, .5 * CARD, .1);
    stream_end(&first);
    stream_end(&second);
    end();
}

static void a_bound_holds(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {{.max = {20u << 20, 0}}};
    double bounded, other;
    begin(specs, CARD);
    blocks_at_a();
    stream_begin(&first, 1, 0, 8);
    stream_begin(&second, 2, 1, 32);
    pass(1000);
    measure(4000, &bounded, &other);
    assert_near(bounded, 20u << 20, .05);
    assert_near(other, CARD - (20u << 20), .15);
    assert_int_equal(wf_fabric_limit(nodes[0].fabric, WF_FABRIC_LIMIT_DOMAIN, "", 0, 0), WEFT_OK);
    pass(500);
    measure(1000, &bounded, &other);
    assert_true(bounded > 40u << 20);
    /* A bound of one link: the other one is not held back. */
    assert_int_equal(wf_fabric_limit(nodes[0].fabric, WF_FABRIC_LIMIT_LINK, "b", 0, 10u << 20),
                     WEFT_OK);
    pass(1000);
    measure(3000, &bounded, &other);
    assert_near(bounded, 10u << 20, .05);
    assert_near(other, CARD - (10u << 20), .15);
    stream_end(&first);
    stream_end(&second);
    assert_int_equal(figures_of(0).sends[0].max_bytes_s, 0);
    assert_int_equal(peer_of(0, "b").max_bytes_s, 10u << 20);
    assert_int_equal(peer_of(0, "c").max_bytes_s, 0);
    end();
}

/* It has many blocks asked for, and takes them slowly: nobody else waits for that. */
static void a_slow_node_holds_nobody_back(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {{.max_to_c = 1u << 20}};
    double slow, other;
    begin(specs, CARD);
    blocks_at_a();
    stream_begin(&first, 2, 0, FETCHES);
    pass(200);
    stream_begin(&second, 1, 0, 32);
    pass(1000);
    measure(3000, &slow, &other);
    assert_near(other, CARD, .1);
    assert_near(slow, 1u << 20, .3);
    /* What cannot have its turn in time is told so at once, by which bound, and is no hang. */
    assert_true(first.failed > 100);
    assert_int_equal(second.failed, 0);
    assert_true(figures_of(0).serves_limited > 100);
    stream_end(&first);
    stream_end(&second);
    end();
}

/* Both want one link: what nobody waits for has a sixteenth of it. */
static void what_nobody_waits_for_goes_last(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {{0}};
    double demand, background;
    begin(specs, CARD);
    blocks_at_a();
    stream_begin(&first, 1, 0, 64);
    stream_begin(&second, 1, 1, 0);
    second.background = true;
    second.depth = 64;
    for (uint32_t i = 0; i < second.depth; i++)
        stream_ask(&second, &second.fetches[i]);
    pass(1000);
    measure(3000, &demand, &background);
    assert_near(demand, CARD * 15. / 16, .1);
    assert_near(background, CARD / 16., .3);
    stream_end(&first);
    measure(1000, &demand, &background);
    assert_near(background, CARD, .1);
    stream_end(&second);
    end();
}

/* A node that ends, or goes, while much waits for its turn: everything ends once. */
static void what_waits_ends_with_its_link(void **state)
{
    (void)state;
    const struct spec specs[NODES] = {{.max = {1u << 20, 1u << 20}}};
    begin(specs, CARD);
    blocks_at_a();
    stream_begin(&first, 1, 0, 128);
    stream_begin(&second, 2, 1, 128);
    pass(50);
    assert_true(wf_net_sim_break(world, "a", "b", 5 * MS) > 0);
    first.stops = second.stops = true;
    pass(100);
    assert_true(nodes[0].held > 0);
    wf_fabric_destroy(nodes[0].fabric, 0);
    nodes[0].fabric = NULL;
    assert_int_equal(nodes[0].held, 0);
    stream_end(&first);
    stream_end(&second);
    end();
}

/* ----------------------------------------------------------------------------------- allotments */

/* Say it until it is kept, or is not. */
static enum weft_status allot(int at, const char *lender, const char *node, uint64_t most,
                              uint64_t least)
{
    enum weft_status status = WEFT_PENDING;
    for (int i = 0; i < 100 && status == WEFT_PENDING; i++) {
        status = wf_fabric_allot(nodes[at].fabric, lender, node, most, least);
        pass(100);
    }
    return status;
}

static enum weft_status lend(int at, const char *lender, uint64_t bytes)
{
    enum weft_status status = WEFT_PENDING;
    for (int i = 0; i < 100 && status == WEFT_PENDING; i++) {
        status = wf_fabric_lend(nodes[at].fabric, lender, bytes);
        pass(100);
    }
    return status;
}

static const struct spec lenders[NODES] = {[2] = {.lend = 64u << 20}};

static void cluster_begin(void)
{
    world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 12});
    const struct wf_member_sim_options member = {.seed = 13, .time = vtime};
    assert_int_equal(wf_member_sim_world_create(&member, &cluster), WEFT_OK);
    for (int i = 0; i < NODES; i++)
        node_begin(i, &lenders[i]);
    pass(6000);
}

static void cluster_end(void)
{
    for (int i = 0; i < NODES; i++)
        world_node_end(i);
    wf_member_sim_world_destroy(cluster);
    cluster = NULL;
    world_end();
}

static void any_node_allots_and_the_lender_keeps_it(void **state)
{
    (void)state;
    cluster_begin();
    /* A node that lends nothing says what the lender gives to another. */
    assert_int_equal(allot(0, "c", "b", 20u << 20, 8u << 20), WEFT_OK);
    assert_int_equal(peer_of(2, "b").limit_bytes, 20u << 20);
    assert_int_equal(peer_of(2, "b").least_bytes, 8u << 20);
    /* 8 MiB, and a third of what is left, but no more than it may have. */
    assert_int_equal(peer_of(2, "b").due_bytes, 20u << 20);
    assert_int_equal(peer_of(2, "a").due_bytes, (56u << 20) / 3);
    assert_int_equal(lend(1, "c", 32u << 20), WEFT_OK);
    assert_int_equal(figures_of(2).lent_bytes, 32u << 20);

    assert_int_equal(allot(0, "c", "a", 0, 25u << 20), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "--min"));
    assert_int_equal(lend(0, "c", 4u << 20), WEFT_E_INVALID);
    assert_int_equal(lend(0, "c", 65u << 20), WEFT_E_INVALID);
    assert_int_equal(allot(0, "c", "b", 1u << 20, 2u << 20), WEFT_E_INVALID);
    assert_int_equal(allot(0, "b", "c", 1u << 20, 0), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "lends memory, as far as is known"));
    assert_int_equal(allot(0, "c", "nobody", 1u << 20, 0), WEFT_E_NOT_FOUND);
    assert_int_equal(peer_of(2, "a").least_bytes, 0);

    /* The lender is another process, and has it again. */
    wf_fabric_destroy(nodes[2].fabric, 100);
    nodes[2].fabric = NULL;
    pass(8000);
    node_begin(2, &lenders[2]);
    pass(8000);
    assert_int_equal(figures_of(2).lent_bytes, 32u << 20);
    assert_int_equal(peer_of(2, "b").limit_bytes, 20u << 20);
    assert_int_equal(peer_of(2, "b").least_bytes, 8u << 20);
    /* And nothing of it, when that is said. */
    assert_int_equal(allot(3, "c", "b", 0, 0), WEFT_OK);
    assert_int_equal(peer_of(2, "b").limit_bytes, 0);
    assert_int_equal(peer_of(2, "b").least_bytes, 0);
    cluster_end();
}

/* Of many who change the same lender's at once none is lost; and without a registry it is said. */
static void changes_at_once_are_all_made(void **state)
{
    (void)state;
    static const char *const who[] = {"a", "b", "d"};
    static const int at[] = {0, 1, 3};
    enum weft_status status[3] = {WEFT_PENDING, WEFT_PENDING, WEFT_PENDING};
    cluster_begin();
    for (int i = 0; i < 100; i++) {
        for (int k = 0; k < 3; k++)
            if (status[k] == WEFT_PENDING)
                status[k] = wf_fabric_allot(nodes[at[k]].fabric, "c", who[k], 9u << 20, 1u << 20);
        pass(100);
    }
    for (int k = 0; k < 3; k++) {
        assert_int_equal(status[k], WEFT_OK);
        assert_int_equal(peer_of(2, who[k]).least_bytes, 1u << 20);
    }
    wf_member_sim_away(cluster, true);
    assert_int_equal(allot(0, "c", "b", 7u << 20, 0), WEFT_E_NODE);
    wf_member_sim_away(cluster, false);
    pass(8000);
    assert_int_equal(peer_of(2, "b").limit_bytes, 9u << 20);
    cluster_end();
}

static void without_a_registry_a_lender_keeps_its_own(void **state)
{
    (void)state;
    begin(lenders, 0);
    assert_int_equal(allot(0, "c", "b", 1u << 20, 0), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "on c itself"));
    assert_int_equal(allot(2, NULL, "b", 20u << 20, 8u << 20), WEFT_OK);
    assert_int_equal(lend(2, "c", 32u << 20), WEFT_OK);
    assert_int_equal(peer_of(2, "b").limit_bytes, 20u << 20);
    assert_int_equal(figures_of(2).lent_bytes, 32u << 20);
    assert_int_equal(allot(0, NULL, "b", 20u << 20, 0), WEFT_E_INVALID);
    end();
}

/* No registry is blamed for a disk that is full, or away. */
static void what_cannot_be_kept_is_not_changed(void **state)
{
    (void)state;
    char folder[] = "/tmp/weft-shares-XXXXXX", path[64];
    struct spec specs[NODES];
    memcpy(specs, lenders, sizeof specs);
    assert_non_null(mkdtemp(folder));
    specs[2].state_dir = folder;
    begin(specs, 0);
    assert_int_equal(lend(2, NULL, 48u << 20), WEFT_OK);
    snprintf(path, sizeof path, "%s/c.settings.new", folder); /* where it is written beside */
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(lend(2, NULL, 32u << 20), WEFT_E_SYSTEM);
    assert_non_null(strstr(wf_last_error(), "cannot keep the node's settings"));
    assert_int_equal(figures_of(2).lent_bytes, 48u << 20);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(lend(2, NULL, 32u << 20), WEFT_OK);
    assert_int_equal(figures_of(2).lent_bytes, 32u << 20);
    end();
    static const char *const left[] = {"c.settings", "c.epoch", "c.epoch.lock"};
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, left[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_distance_is_known),
        cmocka_unit_test(the_nearer_of_equals_is_asked),
        cmocka_unit_test(what_was_measured_wins),
        cmocka_unit_test(a_nearer_lender_is_lent_from),
        cmocka_unit_test(two_domains_share_a_link),
        cmocka_unit_test(a_bound_holds),
        cmocka_unit_test(a_slow_node_holds_nobody_back),
        cmocka_unit_test(what_nobody_waits_for_goes_last),
        cmocka_unit_test(what_waits_ends_with_its_link),
        cmocka_unit_test(any_node_allots_and_the_lender_keeps_it),
        cmocka_unit_test(changes_at_once_are_all_made),
        cmocka_unit_test(without_a_registry_a_lender_keeps_its_own),
        cmocka_unit_test(what_cannot_be_kept_is_not_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
