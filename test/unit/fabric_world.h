/* SPDX-License-Identifier: Apache-2.0
 *
 * A few nodes of the fabric in virtual time, over a network that a test may harm (net/sim.h): what
 * the tests of the fabric begin and end with.  A test has its nodes in an array of structures of
 * its own, each of which begins with the node's fabric, NULL while it has none.
 *
 *     world_begin(nodes, sizeof nodes[0], NODES, &(struct wf_net_sim_options){.seed = 7});
 *     struct wf_fabric_options options = world_options(names, NODES, i);
 *     options.host = …;
 *     world_node(i, &options);
 *     pass(2500);
 *     world_end();
 */
#ifndef WF_TEST_FABRIC_WORLD_H
#define WF_TEST_FABRIC_WORLD_H

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

#define MS 1000000ull

static struct wf_vtime *vtime;
static struct wf_net_sim_world *world;
static struct {
    char *first;
    size_t each;
    int count;
    void (*after_ms)(void); /* what a test does after each; NULL */
} world_nodes;

static inline struct wf_fabric **world_fabric(int i)
{
    return (struct wf_fabric **)(void *)(world_nodes.first + (size_t)i * world_nodes.each);
}

static inline void world_begin(void *nodes, size_t each, int count,
                               const struct wf_net_sim_options *net)
{
    struct wf_net_sim_options with = *net;
    assert_int_equal(wf_vtime_create(&vtime), WEFT_OK);
    with.time = vtime;
    assert_int_equal(wf_net_sim_world_create(&with, &world), WEFT_OK);
    memset(nodes, 0, each * (size_t)count);
    world_nodes.first = nodes;
    world_nodes.each = each;
    world_nodes.count = count;
    world_nodes.after_ms = NULL;
}

static inline void world_node_end(int i)
{
    wf_fabric_destroy(*world_fabric(i), 0);
    *world_fabric(i) = NULL;
}

static inline void world_end(void)
{
    for (int i = 0; i < world_nodes.count; i++)
        world_node_end(i);
    wf_net_sim_world_destroy(world);
    wf_vtime_destroy(vtime);
}

static inline bool world_news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    (void)context, (void)from, (void)block;
    return true;
}

static inline bool world_each(void *context, uint32_t domain, uint64_t *cursor,
                              void (*found)(void *to, const struct wf_fabric_event *block),
                              void *to)
{
    (void)context, (void)domain, (void)cursor, (void)found, (void)to;
    return false;
}

/* Of node i of those that listen at `names`, as "sim:a", each of which has the others in a list and
 * shares one domain with them; its host has nothing, and takes all that it is told.  What it points
 * to is good until the next call. */
static inline struct wf_fabric_options world_options(const char *const *names, int count, int i)
{
    static const struct wf_fabric_domain domain = {.secret = "one for all", .secret_bytes = 32};
    static char registry[1024];
    size_t length = 0;
    registry[0] = 0;
    for (int k = 0; k < count; k++)
        if (k != i)
            length += (size_t)snprintf(registry + length, sizeof registry - length, "%s%s",
                                       length ? "," : "", names[k]);
    assert_true(length < sizeof registry);
    return (struct wf_fabric_options){
        .name = names[i] + 4, /* NOLINT: of those that there are */
        .listen = names[i],
        .registry = registry,
        .net = &wf_net_sim,
        .member = &wf_member_static,
        .net_world = world,
        .host = {.context = world_nodes.first + (size_t)i * world_nodes.each,
                 .each = world_each,
                 .news = world_news},
        .domains = &domain,
        .domain_count = 1,
        .replica_copies = 16384,
        .now_ns = wf_vtime_now,
        .now_context = vtime,
    };
}

static inline void world_node(int i, const struct wf_fabric_options *options)
{
    if (wf_fabric_create(options, world_fabric(i)) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static inline void poll_all(void)
{
    for (int i = 0; i < world_nodes.count; i++)
        if (*world_fabric(i))
            assert_int_equal(wf_fabric_poll(*world_fabric(i), 0), WEFT_OK);
}

/* Time passes: so many milliseconds. */
static inline void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime); at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            poll_all();
        poll_all();
        if (world_nodes.after_ms)
            world_nodes.after_ms();
    }
}

/* How a fetch, a store or the like ended that a test waits for alone. */
static enum weft_status outcome;
static bool ended;

static inline void over(enum weft_status status)
{
    assert_false(ended);
    ended = true;
    outcome = status;
}

static inline void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    (void)fetch;
    over(status);
}

/* Until it has ended, for so long at most. */
static inline enum weft_status until_over(uint64_t ms, uint64_t each_ms)
{
    for (uint64_t at = 0; at < ms && !ended; at += each_ms)
        pass(each_ms);
    assert_true(ended);
    return outcome;
}

/* Figures are made when they are asked for, and known a moment later. */
static inline struct wf_fabric_figures figures_of(int i)
{
    static struct wf_fabric_figures figures;
    wf_fabric_figures(*world_fabric(i), &figures);
    pass(120);
    wf_fabric_figures(*world_fabric(i), &figures);
    return figures;
}

static inline struct wf_fabric_peer peer_of(int i, const char *name)
{
    static struct wf_fabric_peer peers[WF_FABRIC_PEERS_MAX];
    (void)wf_fabric_peers(*world_fabric(i), peers, WF_FABRIC_PEERS_MAX);
    pass(120);
    uint32_t count = wf_fabric_peers(*world_fabric(i), peers, WF_FABRIC_PEERS_MAX);
    for (uint32_t k = 0; k < count; k++)
        if (strcmp(peers[k].name, name) == 0)
            return peers[k];
    fail_msg("node %d knows no %s", i, name);
    return peers[0];
}

#endif
