/* SPDX-License-Identifier: Apache-2.0
 *
 * A directory in parts, between a few nodes in virtual time, with a registry: who is told of what,
 * who is asked, what becomes of wrong answers and of none, and when all is kept instead.
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
    bool here[BLOCKS], silent[BLOCKS]; /* silent: it has none, and did not say so */
    bool known[BLOCKS];                /* as its fabric told it */
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

static struct wf_fabric_event event_of(uint32_t number)
{
    struct wf_fabric_event event = {.kind = WF_FABRIC_HERE, .depth = number, .bytes = BYTES};
    for (uint32_t i = 0; i < 28; i++)
        event.key[i] = (uint8_t)((number + 1) * 2654435761u >> (i % 4 * 8)) ^ (uint8_t)(i * 37);
    memcpy(event.key + 28, &number, 4);
    return event;
}

static uint32_t number_of(const uint8_t key[32])
{
    uint32_t number;
    memcpy(&number, key + 28, 4);
    return number;
}

static void content(uint32_t number, uint8_t out[BYTES])
{
    for (uint32_t i = 0; i < BYTES; i++)
        out[i] = (uint8_t)(number * 31 + i / 7);
}

static uint8_t contents[BYTES];

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
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

static void let_go(void *context, struct wf_fabric_held *held)
{
    (void)held;
    ((struct node *)context)->held--;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
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

static bool news(void *context, const struct wf_fabric_event *block)
{
    struct node *n = context;
    assert_true(number_of(block->key) < BLOCKS);
    n->known[number_of(block->key)] = block->kind == WF_FABRIC_HERE;
    n->said[number_of(block->key)] = block->quality;
    return true;
}

static void have(int i, uint32_t number, bool here)
{
    struct wf_fabric_event event = event_of(number);
    nodes[i].here[number] = here;
    event.kind = here ? WF_FABRIC_HERE : WF_FABRIC_GONE;
    event.quality = nodes[i].quality[number];
    wf_fabric_tell(nodes[i].fabric, &event);
}

static void have_as(int i, uint32_t number, uint8_t quality)
{
    nodes[i].quality[number] = quality;
    have(i, number, true);
}

/* ---------------------------------------------------------------------------------------- nodes */

/* As every host does: what it was told and is not elsewhere any more was forgotten. */
static void sweep(struct node *n)
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

static void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime) + MS; at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            ;
        for (int i = 0; i < 2 * NODES; i++) {
            struct node *n = &nodes[i % NODES];
            if (!n->fabric)
                continue;
            assert_int_equal(wf_fabric_poll(n->fabric, 0), WEFT_OK);
            sweep(n);
        }
    }
}

static void map_of_those_that_are_there(void)
{
    uint64_t members[NODES];
    uint32_t count = 0;
    for (int i = 0; i < NODES; i++)
        if (nodes[i].fabric)
            members[count++] = wf_shard_member(names[i] + 4);
    assert_int_equal(wf_shards_set(shards, members, count), WEFT_OK);
}

static bool owns(int i, uint32_t number)
{
    struct wf_fabric_event event = event_of(number);
    return wf_shards_owns(shards, wf_shard_of(event.key), wf_shard_member(names[i] + 4));
}

static void node_begin(int i)
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

static void node_end(int i, bool dies)
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

static int node_of(const char *name)
{
    for (int i = 0; i < NODES; i++)
        if (strcmp(names[i] + 4, name) == 0)
            return i;
    fail_msg("there is no %s", name);
    return 0;
}

/* Every word about a block, as it arrives. */
static void handed(void *context, const struct wf_net_sim_handed *m)
{
    static _Alignas(8) uint8_t header[WF_NET_HEADER_MAX];
    const struct wf_fabric_events *events = memcpy(header, m->header, m->header_bytes);
    (void)context;
    if (!watches || events->head.kind != WF_FABRIC_EVENTS)
        return;
    for (uint32_t i = 0; i < events->count; i++)
        strays += !owns(node_of(m->to), number_of(events->events[i].key));
}

static void begin(int count, enum wf_fabric_directory how, uint64_t copies)
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

static void end(void)
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

static bool knows(int i, uint32_t number)
{
    struct wf_fabric_event event = event_of(number);
    return wf_fabric_elsewhere(nodes[i].fabric, event.key);
}

/* Who owns a block's shard knows of it, and nobody else does. */
static void only_owners_know(uint32_t blocks)
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

static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    (void)fetch;
    assert_false(ended);
    ended = true;
    outcome = status;
}

/* It ends within so many milliseconds. */
static enum weft_status fetch(int i, uint32_t number, uint64_t within_ms)
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

static void look(int i, uint32_t first, uint32_t count)
{
    static struct wf_fabric_event events[WF_FABRIC_OFFER_MAX];
    for (uint32_t k = 0; k < count; k++)
        events[k] = event_of(first + k);
    assert_int_equal(wf_fabric_look(nodes[i].fabric, events, count), WEFT_OK);
}

static uint64_t copies_known(int i)
{
    struct wf_places_stats stats;
    wf_places_stats(nodes[i].fabric->places, &stats);
    return stats.copies - stats.leaving;
}

/* --------------------------------------------------------------------------------------- tests */

static void owners_follow_the_members(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    watches = true;
    for (uint32_t b = 0; b < 1000; b++)
        have((int)(b % 5), b, true);
    pass(300);
    only_owners_know(1000);
    assert_int_equal(strays, 0);
    uint64_t told = 0;
    for (int i = 0; i < 5; i++)
        told += nodes[i].fabric->figures.told;
    assert_true(told > 1000 && told <= OWNERS * 1000); /* not to itself */

    /* Another one: it takes over its share, and nothing else moves. */
    watches = false;
    uint64_t moved = nodes[0].fabric->figures.shards_moved;
    node_begin(5);
    map_of_those_that_are_there();
    pass(4000);
    only_owners_know(1000);
    moved = nodes[0].fabric->figures.shards_moved - moved;
    assert_true(moved > 0 && moved < OWNERS * WF_SHARDS / 5);

    node_end(5, false);
    map_of_those_that_are_there();
    pass(1000);
    only_owners_know(1000);

    /* One dies: what the others have is known by who owns its shards now, when its lease is over.
     */
    node_end(4, true);
    map_of_those_that_are_there();
    pass(12000);
    only_owners_know(1000);
    watches = true;
    for (uint32_t b = 1000; b < 2000; b++)
        have((int)(b % 4), b, true);
    for (uint32_t b = 0; b < 500; b++)
        if (nodes[b % 5].fabric)
            have((int)(b % 5), b, false);
    pass(300);
    only_owners_know(2000);
    assert_int_equal(strays, 0);
    end();
}

static void what_an_owner_knows_is_found(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, true);
    pass(300);
    for (uint32_t b = 0; b < 100; b++)
        assert_int_equal(fetch(1, b, 200), WEFT_OK);
    assert_int_equal(fetch(1, 100, 300), WEFT_MISS);

    /* The host hears of all that it asks for, its own shards' among them, and of their end. */
    look(2, 0, 110);
    pass(100);
    for (uint32_t b = 0; b < 110; b++)
        if (nodes[2].known[b] != (b < 100))
            fail_msg("block %u, whose shard it %s, is %s to be there", b,
                     owns(2, b) ? "owns" : "does not own", nodes[2].known[b] ? "said" : "not said");
    pass(2000);
    look(2, 50, 50); /* said again, it is believed from then on */
    pass(4000);
    for (uint32_t b = 0; b < 100; b++)
        assert_true(nodes[2].known[b] == (b >= 50));
    pass(4000);
    for (uint32_t b = 0; b < 100; b++) {
        assert_false(nodes[2].known[b]);
        assert_true(knows(2, b) == owns(2, b));
    }
    end();
}

/* Who owns a block's shard knows at once that nobody has it any more, and so does its host; others
 * when what they were told is over. */
static void a_last_copy_that_went_is_no_copy(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, true);
    have(3, 0, true);
    pass(300);
    look(2, 0, 100);
    pass(100);
    for (uint32_t b = 0; b < 100; b++)
        have(0, b, false);
    pass(400);
    for (uint32_t b = 1; b < 100; b++)
        assert_true(nodes[2].known[b] == !owns(2, b));
    assert_true(nodes[2].known[0]);
    pass(WF_FOUND_NS / MS + 500);
    for (uint32_t b = 0; b < 100; b++)
        assert_false(nodes[2].known[b]);
    end();
}

static void a_stale_answer_is_a_miss(void **state)
{
    (void)state;
    begin(5, WF_FABRIC_DIRECTORY_PARTS, 65536);
    have(0, 1, true);
    have(0, 2, true);
    have(3, 2, true);
    pass(300);
    nodes[0].silent[1] = nodes[0].silent[2] = true;
    assert_int_equal(fetch(4, 1, 500), WEFT_MISS);
    assert_int_equal(fetch(4, 2, 500), WEFT_OK); /* the other one has it */
    end();
}

static void an_owner_that_is_dead_is_not_waited_for(void **state)
{
    (void)state;
    begin(NODES, WF_FABRIC_DIRECTORY_PARTS, 65536);
    /* A block whose owners are neither 0, who has it, nor 1, who asks. */
    uint64_t owners[WF_SHARD_OWNERS_MAX];
    uint32_t b = 0;
    while (owns(0, b) || owns(1, b))
        b++;
    struct wf_fabric_event event = event_of(b);
    assert_int_equal(wf_shards_owners(shards, wf_shard_of(event.key), owners), OWNERS);
    int owner[OWNERS];
    for (uint32_t k = 0; k < OWNERS; k++)
        for (int i = 0; i < NODES; i++)
            if (wf_shard_member(names[i] + 4) == owners[k])
                owner[k] = i;
    have(0, b, true);
    pass(300);
    wf_net_sim_mute(world, names[owner[0]] + 4, true, true);
    assert_int_equal(fetch(1, b, 150), WEFT_OK); /* the other owner knows */
    wf_net_sim_mute(world, names[owner[1]] + 4, true, true);
    pass(2 * WF_FOUND_NS / MS);
    for (int i = 0; i < 2; i++)
        assert_true(fetch(1, b, 400) != WEFT_OK);
    /* When they are members no more, others own the shard, and know. */
    node_end(owner[0], true);
    node_end(owner[1], true);
    map_of_those_that_are_there();
    pass(12000);
    only_owners_know(b + 1);
    assert_int_equal(fetch(1, b, 400), WEFT_OK);
    end();
}

static void what_is_asked_is_bounded(void **state)
{
    (void)state;
    begin(4, WF_FABRIC_DIRECTORY_PARTS, 65536);
    for (uint32_t b = 0; b < BLOCKS; b++)
        have(0, b, true);
    pass(2000);
    only_owners_know(BLOCKS);
    uint64_t own = copies_known(1);
    assert_true(own > BLOCKS * OWNERS / 4 * 8 / 10 && own < BLOCKS * OWNERS / 4 * 12 / 10);
    /* Nobody answers: all of it ends, and is not kept. */
    for (int i = 2; i < 4; i++)
        wf_net_sim_mute(world, names[i] + 4, true, false);
    wf_net_sim_mute(world, names[0] + 4, true, false);
    for (int round = 0; round < 4; round++)
        look(1, 0, BLOCKS);
    pass(400);
    assert_int_equal(copies_known(1), own);
    for (int i = 0; i < 4; i++)
        wf_net_sim_mute(world, names[i] + 4, false, false);
    /* They do: what was found lapses. */
    pass(500);
    for (int round = 0; round < 4; round++) {
        look(1, 0, BLOCKS);
        pass(60);
    }
    assert_true(copies_known(1) > own);
    pass(WF_FOUND_NS / MS + 1000);
    assert_int_equal(copies_known(1), own);
    end();
}

/* ------------------------------------------------------------------------------------- a chain */

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

/* ------------------------------------------------------------------------------- all, or a part */

static int in_parts(void)
{
    int count = 0;
    for (int i = 0; i < NODES; i++)
        count += nodes[i].fabric && wf_fabric_in_parts(nodes[i].fabric);
    return count;
}

static void all_is_kept_or_a_part_by_what_it_costs(void **state)
{
    enum { COUNT = 5, MANY = 4000, FEW = 900, LATE = 100 };
    (void)state;
    begin(COUNT, WF_FABRIC_DIRECTORY_AUTO, 4096);
    /* Each block is on two nodes. */
    for (uint32_t b = 0; b < FEW; b++) {
        have((int)(b % COUNT), b, true);
        have((int)((b + 1) % COUNT), b, true);
    }
    pass(5000);
    assert_int_equal(in_parts(), 0);
    for (uint32_t b = 0; b < FEW; b++)
        for (int i = 0; i < COUNT; i++)
            assert_true(knows(i, b) && nodes[i].known[b]);

    /* Nine tenths of what a node has room for: each keeps its part. */
    for (uint32_t b = FEW; b < MANY; b++)
        have((int)(b % COUNT), b, true);
    pass(8000);
    assert_int_equal(in_parts(), COUNT);
    only_owners_know(MANY);
    for (uint32_t b = 0; b < MANY; b += 97)
        for (int i = 0; i < COUNT; i++)
            if (!nodes[i].here[b])
                assert_int_equal(fetch(i, b, 400), WEFT_OK);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(nodes[i].fabric->figures.refused_news, 0);

    /* Of these the hosts hear only when all is kept again. */
    for (uint32_t b = MANY; b < MANY + LATE; b++) {
        have((int)(b % COUNT), b, true);
        have((int)((b + 1) % COUNT), b, true);
    }
    /* It stays so for a minute, and longer while there is as much. */
    pass(70000);
    assert_int_equal(in_parts(), COUNT);
    for (uint32_t b = FEW; b < MANY; b++)
        have((int)(b % COUNT), b, false);
    pass(8000);
    assert_int_equal(in_parts(), 0);
    for (uint32_t b = 0; b < MANY + LATE; b++)
        for (int i = 0; i < COUNT; i++)
            if (knows(i, b) != (b < FEW || b >= MANY) || nodes[i].known[b] != knows(i, b))
                fail_msg("block %u: %s %s, its host %s", b, names[i],
                         knows(i, b) ? "knows" : "knows not",
                         nodes[i].known[b] ? "too" : "does not");
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owners_follow_the_members),
        cmocka_unit_test(what_an_owner_knows_is_found),
        cmocka_unit_test(a_last_copy_that_went_is_no_copy),
        cmocka_unit_test(a_stale_answer_is_a_miss),
        cmocka_unit_test(an_owner_that_is_dead_is_not_waited_for),
        cmocka_unit_test(what_is_asked_is_bounded),
        cmocka_unit_test(a_chain_takes_a_few_messages),
        cmocka_unit_test(it_is_said_how_a_question_stands),
        cmocka_unit_test(more_questions_than_can_be_asked_at_once_are_asked_later),
        cmocka_unit_test(what_lost_something_is_found_by_who_takes_it),
        cmocka_unit_test(what_an_owner_was_told_is_not_worse_for_a_chain),
        cmocka_unit_test(a_chain_that_finds_no_room_is_given_up),
        cmocka_unit_test(all_is_kept_or_a_part_by_what_it_costs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
