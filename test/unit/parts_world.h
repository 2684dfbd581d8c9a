/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory in parts, between a few nodes in virtual time, with a registry: nodes that begin, end
 * and die, have blocks and lose them, and a map of who is to know of which.
 */
#ifndef TEST_UNIT_PARTS_WORLD_H
#define TEST_UNIT_PARTS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/vtime.h"
#include "core/shard.h"
#include "fabric/inner.h"
#include "member/sim.h"
#include "net/sim.h"

#define NODES 6
#define BLOCKS 12000u
#define BYTES 4096u
#define MS UINT64_C(1000000)
#define OWNERS 2u
#define PROFILE 77u

struct node {
    struct wf_fabric *fabric;          /* NULL: it is not there */
    bool stands;                       /* still, for now */
    bool here[BLOCKS], silent[BLOCKS]; /* silent: it has none, and did not say so */
    bool known[BLOCKS];                /* as its fabric told it, */
    uint32_t from;                     /* … the last of it from there */
    uint8_t quality[BLOCKS];           /* of what it has */
    uint8_t said[BLOCKS];              /* … and of what it was told */
    uint64_t forgotten;
    uint32_t held;
};

static struct wf_vtime *vtime;
static struct wf_net_sim_world *world;
static struct wf_member_sim_world *registry;
static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d", "sim:e", "sim:f"};
static enum wf_fabric_directory directory;
static uint64_t replica_copies;
static struct wf_shards *shards; /* of the nodes that are there */
static uint64_t strays;          /* told to who does not own its shard */
static bool watches;
static uint8_t asks[NODES]; /* which quality its domain asks for */

/* --------------------------------------------------------------------------------------- blocks */

static inline struct wf_fabric_event event_of(uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = number, .bytes = BYTES};
    for (uint32_t i = 0; i < 28; i++)
        event.key[i] = (uint8_t)((number + 1) * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    memcpy(event.key + 28, &number, 4);
    return event;
}

static inline uint32_t number_of(const uint8_t key[32])
{
    uint32_t number;
    memcpy(&number, key + 28, 4);
    return number;
}

static inline void content(uint32_t number, uint8_t out[BYTES])
{
    for (uint32_t i = 0; i < BYTES; i++)
        out[i] = (uint8_t)(number * 31 + i / 7);
}

static uint8_t contents[BYTES];

static inline enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32],
                                    uint64_t bytes, struct wf_fabric_held *out)
{
    struct node *n = context;
    uint32_t number = number_of(key);
    (void)domain;
    if (number >= BLOCKS || !n->here[number] || n->silent[number] || bytes != BYTES)
        return WEFT_MISS;
    content(number, contents); /* sent from there at once: one at a time is asked for here */
    *out = (struct wf_fabric_held){.data = contents,
                                   .bytes = BYTES,
                                   .quality = n->quality[number],
                                   .profile = n->quality[number] ? PROFILE : 0};
    n->held++;
    return WEFT_OK;
}

static inline void let_go(void *context, struct wf_fabric_held *held)
{
    (void)held;
    ((struct node *)context)->held--;
}

static inline bool each(void *context, uint32_t domain, uint64_t *cursor,
                        void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    const struct node *n = context;
    uint64_t end = *cursor + 500 < BLOCKS ? *cursor + 500 : BLOCKS;
    (void)domain;
    for (; *cursor < end; (*cursor)++)
        if (n->here[*cursor]) {
            struct wf_fabric_event event = event_of((uint32_t)*cursor);
            event.quality = n->quality[*cursor];
            found(to, &event);
        }
    return end < BLOCKS;
}

static inline bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    struct node *n = context;
    n->from = from;
    assert_true(number_of(block->key) < BLOCKS);
    n->known[number_of(block->key)] = block->kind == WF_FABRIC_HERE;
    n->said[number_of(block->key)] = block->quality;
    return true;
}

static inline void have(int i, uint32_t number, bool here)
{
    struct wf_fabric_event event = event_of(number);
    nodes[i].here[number] = here;
    event.kind = here ? WF_FABRIC_HERE : WF_FABRIC_GONE;
    event.quality = nodes[i].quality[number];
    wf_fabric_tell(nodes[i].fabric, &event);
}

static inline void have_as(int i, uint32_t number, uint8_t quality)
{
    nodes[i].quality[number] = quality;
    have(i, number, true);
}

/* ---------------------------------------------------------------------------------------- nodes */

/* As every host does: what it was told and is not elsewhere any more was forgotten. */
static inline void sweep(struct node *n)
{
    uint64_t forgotten = wf_fabric_forgotten(n->fabric);
    if (n->forgotten == forgotten)
        return;
    n->forgotten = forgotten;
    for (uint32_t b = 0; b < BLOCKS; b++) {
        struct wf_fabric_event event = event_of(b);
        n->known[b] = n->known[b] && wf_fabric_elsewhere(n->fabric, event.key);
    }
}

static inline void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime) + MS; at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            ;
        for (int i = 0; i < 2 * NODES; i++) {
            struct node *n = &nodes[i % NODES];
            if (!n->fabric || n->stands)
                continue;
            assert_int_equal(wf_fabric_poll(n->fabric, 0), WEFT_OK);
            sweep(n);
        }
    }
}

static inline void map_of_those_that_are_there(void)
{
    uint64_t members[NODES];
    uint32_t count = 0;
    for (int i = 0; i < NODES; i++)
        if (nodes[i].fabric)
            members[count++] = wf_shard_member(names[i] + 4);
    assert_int_equal(wf_shards_set(shards, members, count), WEFT_OK);
}

static inline bool owns(int i, uint32_t number)
{
    struct wf_fabric_event event = event_of(number);
    return wf_shards_owns(shards, wf_shard_of(event.key), wf_shard_member(names[i] + 4));
}

/* A block's, as places in `nodes`; the one that is asked first before the other. */
static inline void owners_of(uint32_t number, int out[OWNERS])
{
    uint64_t owners[WF_SHARD_OWNERS_MAX];
    struct wf_fabric_event event = event_of(number);
    assert_int_equal(wf_shards_owners(shards, wf_shard_of(event.key), owners), OWNERS);
    for (uint32_t k = 0; k < OWNERS; k++)
        for (int i = 0; i < NODES; i++)
            if (wf_shard_member(names[i] + 4) == owners[k])
                out[k] = i;
}

static inline void node_begin(int i)
{
    struct wf_fabric_domain domain = {.secret = "everybody's domain has this one",
                                      .secret_bytes = 32,
                                      .quality = asks[i]};
    const struct wf_fabric_options options = {
        .name = names[i] + 4,
        .listen = names[i],
        .registry = "sim:cluster",
        .net = &wf_net_sim,
        .member = &wf_member_sim,
        .net_world = world,
        .member_world = registry,
        .host = {.context = &nodes[i], .hold = hold, .let_go = let_go, .each = each, .news = news},
        .domains = &domain,
        .domain_count = 1,
        .replica_copies = replica_copies,
        .directory = directory,
        .seed = 11 + (uint64_t)i,
        .now_ns = wf_vtime_now,
        .now_context = vtime,
    };
    if (wf_fabric_create(&options, &nodes[i].fabric) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static inline void node_end(int i, bool dies)
{
    struct wf_fabric *fabric = nodes[i].fabric;
    if (dies) {
        wf_net_sim_kill(world, names[i] + 4, true);
        wf_member_sim_kill(registry, names[i] + 4);
    }
    nodes[i].fabric = NULL;
    wf_fabric_destroy(fabric, dies ? 0 : 100);
    assert_int_equal(nodes[i].held, 0);
    memset(nodes[i].here, 0, sizeof nodes[i].here);
}

static inline int node_of(const char *name)
{
    for (int i = 0; i < NODES; i++)
        if (strcmp(names[i] + 4, name) == 0)
            return i;
    fail_msg("there is no %s", name);
    return 0;
}

/* Every word about a block, as it arrives. */
static inline void handed(void *context, const struct wf_net_sim_handed *m)
{
    static _Alignas(8) uint8_t header[WF_NET_HEADER_MAX];
    const struct wf_fabric_events *events = memcpy(header, m->header, m->header_bytes);
    (void)context;
    if (!watches || events->head.kind != WF_FABRIC_EVENTS)
        return;
    for (uint32_t i = 0; i < events->count; i++)
        strays += !owns(node_of(m->to), number_of(events->events[i].key));
}

static inline void begin(int count, enum wf_fabric_directory how, uint64_t copies)
{
    struct wf_net_sim_options net = {.seed = 7};
    struct wf_member_sim_options member = {.seed = 9};
    assert_int_equal(wf_vtime_create(&vtime), WEFT_OK);
    net.time = member.time = vtime;
    assert_int_equal(wf_net_sim_world_create(&net, &world), WEFT_OK);
    assert_int_equal(wf_member_sim_world_create(&member, &registry), WEFT_OK);
    assert_int_equal(wf_shards_create(OWNERS, &shards), WEFT_OK);
    wf_net_sim_tap(world, &(struct wf_net_sim_tap){NULL, handed});
    memset(nodes, 0, sizeof nodes);
    directory = how;
    replica_copies = copies;
    watches = false;
    strays = 0;
    for (int i = 0; i < count; i++)
        node_begin(i);
    map_of_those_that_are_there();
    pass(3000);
}

static inline void end(void)
{
    for (int i = 0; i < NODES; i++)
        if (nodes[i].fabric)
            node_end(i, false);
    wf_member_sim_world_destroy(registry);
    wf_net_sim_world_destroy(world);
    wf_vtime_destroy(vtime);
    wf_shards_destroy(shards);
    memset(asks, 0, sizeof asks);
}

static inline bool knows(int i, uint32_t number)
{
    struct wf_fabric_event event = event_of(number);
    return wf_fabric_elsewhere(nodes[i].fabric, event.key);
}

/* Who owns a block's shard knows of it, and nobody else does. */
static inline void only_owners_know(uint32_t blocks)
{
    for (uint32_t b = 0; b < blocks; b++)
        for (int i = 0; i < NODES; i++) {
            bool elsewhere = false;
            for (int k = 0; k < NODES; k++)
                elsewhere |= k != i && nodes[k].fabric && nodes[k].here[b];
            if (nodes[i].fabric && knows(i, b) != (elsewhere && owns(i, b)))
                fail_msg("%s %s block %u", names[i], knows(i, b) ? "knows of" : "does not know of",
                         b);
        }
}

static bool ended;
static enum weft_status outcome;

static inline void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    (void)fetch;
    assert_false(ended);
    ended = true;
    outcome = status;
}

/* It ends within so many milliseconds. */
static inline enum weft_status fetch(int i, uint32_t number, uint64_t within_ms)
{
    uint8_t accept = asks[i];
    static uint8_t data[BYTES], right[BYTES];
    struct wf_fabric_event event = event_of(number);
    struct wf_fabric_fetch fetch = {
        .bytes = BYTES, .part_bytes = BYTES, .data = data, .accept = accept, .done = fetched};
    memcpy(fetch.key, event.key, 32);
    memset(data, 0, sizeof data);
    ended = false;
    wf_fabric_fetch(nodes[i].fabric, &fetch);
    for (uint64_t ms = 0; ms < within_ms && !ended; ms++)
        pass(1);
    if (!ended)
        fail_msg("block %u is waited for after %llu ms", number, (unsigned long long)within_ms);
    content(number, right);
    assert_true(outcome != WEFT_OK || memcmp(data, right, BYTES) == 0);
    assert_true(outcome != WEFT_OK || fetch.quality <= (accept > WEFT_LOSSLESS ? accept : 0));
    return outcome;
}

static inline void look(int i, uint32_t first, uint32_t count)
{
    static struct wf_fabric_event events[WF_FABRIC_OFFER_MAX];
    for (uint32_t k = 0; k < count; k++)
        events[k] = event_of(first + k);
    assert_int_equal(wf_fabric_look(nodes[i].fabric, events, count), WEFT_OK);
}

static inline uint64_t copies_known(int i)
{
    struct wf_places_stats stats;
    wf_places_stats(nodes[i].fabric->places, &stats);
    return stats.copies - stats.leaving;
}

#endif
