/* SPDX-License-Identifier: Apache-2.0
 *
 * Who of several nodes is asked and lent to, and who gets how much of a link: in virtual time
 * (net/sim.h), with a block of one byte value for every key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/vtime.h"
#include "fabric/fabric.h"
#include "net/sim.h"

#define NODES 4
#define DOMAINS 2
#define BLOCK (256u << 10)
#define PART 65536u
#define MS 1000000ull
#define FETCHES 512

struct node {
    struct wf_fabric *fabric;
    bool has; /* all blocks there are */
    uint32_t held, asked;
};

/* What a test says of one, or of all. */
struct spec {
    const char *locality;
    uint64_t lend;
};

static struct wf_vtime *vtime;
static struct wf_net_sim_world *world;
static struct node nodes[NODES];
static uint8_t bytes_of_all[BLOCK];
static struct wf_fabric_peer peers[WF_FABRIC_PEERS_MAX];
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

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    (void)context, (void)domain, (void)cursor, (void)found, (void)to;
    return false;
}

static bool news(void *context, const struct wf_fabric_event *block)
{
    (void)context, (void)block;
    return true;
}

static void poll_all(void)
{
    for (int i = 0; i < NODES; i++)
        if (nodes[i].fabric)
            assert_int_equal(wf_fabric_poll(nodes[i].fabric, 0), WEFT_OK);
}

static void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime); at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            poll_all();
        poll_all();
    }
}

static void node_begin(int i, const struct spec *spec)
{
    struct wf_fabric_domain domains[DOMAINS] = {{.secret_bytes = 32}, {.secret_bytes = 32}};
    char registry[64] = "";
    for (int d = 0; d < DOMAINS; d++)
        memset(domains[d].secret, 'a' + d, 32);
    for (int k = 0; k < NODES; k++)
        if (k != i)
            snprintf(registry + strlen(registry), sizeof registry - strlen(registry), "%s%s",
                     registry[0] ? "," : "", names[k]);
    const struct wf_fabric_options options = {
        .name = names[i] + 4,
        .locality = spec->locality,
        .listen = names[i],
        .registry = registry,
        .net = &wf_net_sim,
        .member = &wf_member_static,
        .net_world = world,
        .host = {.context = &nodes[i], .hold = hold, .let_go = let_go, .each = each, .news = news},
        .domains = domains,
        .domain_count = DOMAINS,
        .lend_bytes = spec->lend,
        .replica_copies = 16384,
        .now_ns = wf_vtime_now,
        .now_context = vtime,
    };
    if (wf_fabric_create(&options, &nodes[i].fabric) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static void begin(const struct spec specs[NODES], uint64_t bandwidth)
{
    assert_int_equal(wf_vtime_create(&vtime), WEFT_OK);
    const struct wf_net_sim_options with = {.seed = 11, .time = vtime, .bandwidth = bandwidth};
    assert_int_equal(wf_net_sim_world_create(&with, &world), WEFT_OK);
    memset(nodes, 0, sizeof nodes);
    memset(bytes_of_all, 'b', sizeof bytes_of_all);
    for (int i = 0; i < NODES; i++)
        node_begin(i, &specs[i]);
    pass(2500);
}

static void end(void)
{
    for (int i = 0; i < NODES; i++) {
        wf_fabric_destroy(nodes[i].fabric, 0);
        assert_int_equal(nodes[i].held, 0);
    }
    wf_net_sim_world_destroy(world);
    wf_vtime_destroy(vtime);
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
    bool stops;
    struct wf_fabric_fetch fetches[FETCHES];
};
static uint8_t sink[BLOCK]; /* what comes is the same in each */

static void stream_ask(struct stream *s, struct wf_fabric_fetch *fetch);

static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
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
                                      .done = fetched,
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
    for (int i = 0; i < 200 && s->depth; i++)
        pass(100);
    assert_int_equal(s->depth, 0);
}

static struct stream first, second;

static const struct wf_fabric_peer *peer_of(int node, const char *name)
{
    uint32_t count = wf_fabric_peers(nodes[node].fabric, peers, WF_FABRIC_PEERS_MAX);
    pass(100);
    count = wf_fabric_peers(nodes[node].fabric, peers, WF_FABRIC_PEERS_MAX);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(peers[i].name, name) == 0)
            return &peers[i];
    fail_msg("%s knows no %s", names[node], name);
    return NULL;
}

/* ---------------------------------------------------------------------------------------- near */

static const struct spec racks[NODES] = {{.locality = "rack1/a"},
                                         {.locality = "rack2/b"},
                                         {.locality = "rack1/c"},
                                         {.locality = ""}};

static void the_distance_is_known(void **state)
{
    (void)state;
    begin(racks, 0);
    assert_int_equal(peer_of(0, "b")->distance, 2);
    assert_string_equal(peer_of(0, "b")->locality, "rack2/b");
    assert_int_equal(peer_of(0, "c")->distance, 1);
    assert_int_equal(peer_of(0, "d")->distance, WF_LOCALITY_UNKNOWN);
    assert_int_equal(peer_of(3, "a")->distance, WF_LOCALITY_UNKNOWN);
    assert_true(peer_of(0, "c")->assumed_gbps > peer_of(0, "b")->assumed_gbps);
    assert_true(peer_of(0, "b")->assumed_gbps > 0);
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
    assert_true(peer_of(0, "c")->read_gbps < peer_of(0, "b")->read_gbps / 2);
    assert_true(peer_of(0, "c")->assumed_gbps == 0);
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

static enum weft_status stored_as;
static bool stored_ended;

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    stored_as = status;
    stored_ended = true;
}

static uint32_t lender_of(uint32_t number)
{
    static struct wf_fabric_store store;
    store = (struct wf_fabric_store){.block = event_of(0, number),
                                     .part_bytes = PART,
                                     .data = bytes_of_all,
                                     .done = stored};
    stored_ended = false;
    wf_fabric_store(nodes[0].fabric, &store);
    for (int i = 0; i < 50 && !stored_ended; i++)
        pass(20);
    assert_true(stored_ended);
    assert_int_equal(stored_as, WEFT_OK);
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
    uint32_t near = peer_of(0, "c")->number, far = peer_of(0, "b")->number, n = 0;
    while (n < 8)
        assert_int_equal(lender_of(n++), near);
    while (n < 64 && lender_of(n) == near)
        n++;
    assert_in_range(n, 10, 16); /* 4 MiB of blocks of 256 KiB with their sums */
    assert_int_equal(lender_of(n + 1), far);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_distance_is_known),
        cmocka_unit_test(the_nearer_of_equals_is_asked),
        cmocka_unit_test(what_was_measured_wins),
        cmocka_unit_test(a_nearer_lender_is_lent_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
