/* SPDX-License-Identifier: Apache-2.0
 *
 * A hot chain, which one node has and all want within a moment, with a directory in parts: who
 * reads it has a copy from then on, its owners name that one, too, and so what is read comes from
 * many.  With nodes that keep no copy it all comes from the first: what is measured here shows
 * the difference, and fails when there is none.
 *
 * With --measure N it prints what it is like among N nodes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/vtime.h"
#include "fabric/inner.h"
#include "member/sim.h"
#include "net/sim.h"

#define DEPTH 8u
#define BYTES 65536u
#define PART 16384u
#define READS 4u      /* of the chain, a node */
#define EACH_US 1000u /* between two reads, of all nodes together, in the mean */
#define MS UINT64_C(1000000)
#define NODES_MAX 1000

struct node {
    struct wf_fabric *fabric;
    struct wf_fabric_fetch fetches[DEPTH];
    uint8_t *data;
    char listen[16];
    uint32_t have, coming, held, reads; /* have: blocks of it */
    bool missed;
    uint64_t began_ns;
};

struct outcome {
    uint32_t copies, fetches, busiest, servers, misses;
    uint64_t took_ms, all_ms; /* the slowest read; until all have read */
};

static struct wf_vtime *vtime;
static struct node *nodes;
static uint32_t node_count;
static uint8_t *content;
static bool keeps;
static struct outcome outcome;

static struct wf_fabric_event event_of(uint32_t depth)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = depth, .bytes = BYTES};
    for (uint32_t i = 0; i < 31; i++)
        event.key[i] = (uint8_t)((depth + 3) * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    event.key[31] = (uint8_t)depth;
    return event;
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    (void)domain;
    if (key[31] >= n->have || bytes != BYTES)
        return WEFT_MISS;
    *out = (struct wf_fabric_held){.data = content, .bytes = BYTES};
    n->held++;
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)held;
    ((struct node *)context)->held--;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    const struct node *n = context;
    (void)domain;
    for (; *cursor < n->have; (*cursor)++) {
        struct wf_fabric_event event = event_of((uint32_t)*cursor);
        found(to, &event);
    }
    return false;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    (void)context, (void)from, (void)block;
    return true;
}

static void keep(struct node *n)
{
    for (; n->have < DEPTH; n->have++) {
        struct wf_fabric_event event = event_of(n->have);
        wf_fabric_tell(n->fabric, &event);
    }
}

static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct node *n = fetch->user;
    uint32_t depth = (uint32_t)(fetch - n->fetches);
    n->missed |= status != WEFT_OK;
    outcome.fetches++;
    if (status == WEFT_OK && memcmp(n->data + depth * BYTES, content, BYTES) != 0)
        fail_msg("wrong bytes");
    if (--n->coming)
        return;
    uint64_t ms = (wf_vtime_now(vtime) - n->began_ns) / MS;
    outcome.took_ms = ms > outcome.took_ms ? ms : outcome.took_ms;
    outcome.misses += n->missed;
    if (keeps && !n->missed)
        keep(n);
}

static void want(struct node *n)
{
    n->reads++;
    if (n->have == DEPTH || n->coming)
        return;
    n->began_ns = wf_vtime_now(vtime);
    n->coming = DEPTH;
    n->missed = false;
    memset(n->data, 0, DEPTH * BYTES);
    for (uint32_t d = 0; d < DEPTH; d++) {
        struct wf_fabric_event event = event_of(d);
        n->fetches[d] = (struct wf_fabric_fetch){.bytes = BYTES,
                                                 .part_bytes = PART,
                                                 .data = n->data + d * BYTES,
                                                 .done = fetched,
                                                 .user = n};
        memcpy(n->fetches[d].key, event.key, 32);
        wf_fabric_fetch(n->fabric, &n->fetches[d]);
    }
}

static void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime) + MS; at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            ;
        for (uint32_t i = 0; i < node_count; i++)
            assert_int_equal(wf_fabric_poll(nodes[i].fabric, 0), WEFT_OK);
    }
}

static void all_read(uint64_t seed)
{
    uint64_t random = seed, began_ns = wf_vtime_now(vtime), left = (uint64_t)node_count * READS;
    keep(&nodes[0]);
    pass(50);
    while (left) {
        for (uint32_t i = 0; i < 1000 / EACH_US && left; i++, left--) {
            struct node *n = &nodes[wf_random_below(&random, node_count)];
            while (n->reads == READS)
                n = n + 1 == nodes + node_count ? nodes : n + 1;
            want(n);
        }
        pass(1);
    }
    for (uint32_t i = 0; i < node_count; i++)
        for (uint32_t ms = 0; nodes[i].coming; ms++) {
            assert_true(ms < 20000);
            pass(1);
        }
    outcome.all_ms = (wf_vtime_now(vtime) - began_ns) / MS;
}

static struct outcome simulate(uint32_t count, bool with_copies, uint64_t seed)
{
    struct wf_net_sim_world *world;
    struct wf_member_sim_world *registry;
    struct wf_fabric_domain domain = {.secret = "everybody's domain has this one",
                                      .secret_bytes = 32};
    assert_int_equal(wf_vtime_create(&vtime), WEFT_OK);
    struct wf_net_sim_options net = {.time = vtime, .seed = seed};
    struct wf_member_sim_options member = {.time = vtime, .seed = seed + 1};
    assert_int_equal(wf_net_sim_world_create(&net, &world), WEFT_OK);
    assert_int_equal(wf_member_sim_world_create(&member, &registry), WEFT_OK);
    nodes = calloc(count, sizeof *nodes);
    content = malloc(BYTES);
    assert_true(nodes && content);
    for (uint32_t i = 0; i < BYTES; i++)
        content[i] = (uint8_t)(i * 7 + i / 251);
    node_count = count;
    keeps = with_copies;
    outcome = (struct outcome){.copies = 0};
    for (uint32_t i = 0; i < count; i++) {
        struct node *n = &nodes[i];
        n->data = malloc(DEPTH * BYTES);
        assert_non_null(n->data);
        snprintf(n->listen, sizeof n->listen, "sim:n%u", i);
        const struct wf_fabric_options options = {
            .name = n->listen + 4,
            .listen = n->listen,
            .registry = "sim:cluster",
            .net = &wf_net_sim,
            .member = &wf_member_sim,
            .net_world = world,
            .member_world = registry,
            .host = {.context = n, .hold = hold, .let_go = let_go, .each = each, .news = news},
            .domains = &domain,
            .domain_count = 1,
            .replica_copies = 16384,
            .directory = WF_FABRIC_DIRECTORY_PARTS,
            .seed = seed + i,
            .now_ns = wf_vtime_now,
            .now_context = vtime,
        };
        if (wf_fabric_create(&options, &n->fabric) != WEFT_OK)
            fail_msg("%s", wf_last_error());
    }
    pass(4000);
    all_read(seed + 2);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t serves = (uint32_t)nodes[i].fabric->figures.serves;
        outcome.copies += nodes[i].have == DEPTH;
        outcome.servers += serves > 0;
        outcome.busiest = serves > outcome.busiest ? serves : outcome.busiest;
    }
    for (uint32_t i = 0; i < count; i++) {
        wf_fabric_destroy(nodes[i].fabric, 0);
        assert_int_equal(nodes[i].held, 0);
        free(nodes[i].data);
    }
    wf_member_sim_world_destroy(registry);
    wf_net_sim_world_destroy(world);
    wf_vtime_destroy(vtime);
    free(content);
    free(nodes);
    return outcome;
}

static void what_all_read_comes_from_many(void **state)
{
    enum { COUNT = 24 };
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct outcome alone = simulate(COUNT, false, seed);
        print_message("seed %llu, %u nodes\n", (unsigned long long)seed, COUNT);
        assert_int_equal(alone.copies, 1);
        assert_int_equal(alone.servers, 1);
        struct outcome spread = simulate(COUNT, true, seed);
        assert_int_equal(spread.copies, COUNT);
        assert_int_equal(spread.misses, 0);
        assert_true(spread.servers >= COUNT / 3);
        assert_true(spread.busiest * 2 < spread.fetches); /* and no longer most of it from one */
        assert_true(spread.busiest * 4 < alone.busiest);
    }
}

static int measure(uint32_t count)
{
    for (int with = 0; with < 2; with++) {
        struct outcome o = simulate(count, with, 1);
        printf("{\"nodes\": %u, \"kept\": %s, \"copies\": %u, \"blocks_fetched\": %u, ", count,
               with ? "true" : "false", o.copies, o.fetches);
        printf("\"servers\": %u, \"busiest_share\": %.3f, \"misses\": %u, ", o.servers,
               (double)o.busiest / (double)(o.fetches ? o.fetches : 1), o.misses);
        printf("\"slowest_read_ms\": %llu, \"all_ms\": %llu}\n", (unsigned long long)o.took_ms,
               (unsigned long long)o.all_ms);
        (void)fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_all_read_comes_from_many),
    };
    if (argc == 3 && strcmp(argv[1], "--measure") == 0) {
        unsigned long count = strtoul(argv[2], NULL, 10);
        return count < 2 || count > NODES_MAX ? 2 : measure((uint32_t)count);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
