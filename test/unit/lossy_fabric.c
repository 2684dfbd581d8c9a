/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that are less exact than they were put, between nodes whose domain asks for different
 * qualities, in virtual time (net/sim.h): they are told as what they are, counted only where they
 * are good enough, and never sent to who asked for better, whatever was told.
 *
 * Node a and d have what the test says, b asks for what is exact, c for economy; d lends memory.
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
#include "fabric/peers.h"
#include "fabric/remote.h"
#include "net/sim.h"

#define NODES 4
#define BLOCKS_MAX 8
#define PART 4096u
#define BYTES (10 * PART - 100)
#define MS 1000000ull
#define PROFILE 0x1234567890abcdefull

enum { A, B, C, D };

/* A copy in memory and one below, each as exact as it is; ABSENT: there is none. */
#define ABSENT 9u
struct block {
    struct wf_fabric_event event;
    uint8_t data[BYTES];
    uint8_t near, below;
};

/* What the host of a node was told of one block. */
struct known {
    uint8_t key[32];
    bool there;
    uint8_t quality;
    uint32_t news;
};

struct node {
    struct wf_fabric *fabric;
    struct block blocks[BLOCKS_MAX];
    uint32_t count, held, buffers;
    struct known known[BLOCKS_MAX];
    uint32_t known_count;
};

static struct wf_vtime *vtime;
static struct wf_net_sim_world *world;
static struct node nodes[NODES];
static const char *const names[NODES] = {"sim:a", "sim:b", "sim:c", "sim:d"};
static const uint8_t asks[NODES] = {WEFT_ECONOMY, WEFT_LOSSLESS, WEFT_ECONOMY, WEFT_ECONOMY};

static struct block *find(struct node *n, const uint8_t key[32])
{
    for (uint32_t i = 0; i < n->count; i++)
        if (memcmp(n->blocks[i].event.key, key, 32) == 0)
            return &n->blocks[i];
    return NULL;
}

static enum weft_status hold(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out)
{
    struct node *n = context;
    const struct block *b = find(n, key);
    (void)domain;
    if (!b || b->near == ABSENT || bytes != BYTES)
        return WEFT_MISS;
    *out = (struct wf_fabric_held){.data = b->data,
                                   .bytes = bytes,
                                   .quality = b->near,
                                   .profile = b->near ? PROFILE : 0};
    n->held++;
    return WEFT_OK;
}

static void let_go(void *context, struct wf_fabric_held *held)
{
    assert_non_null(held->data);
    ((struct node *)context)->held--;
}

/* As a host that does not look at what is asked for. */
static enum weft_status begin_read(void *context, struct wf_fabric_read *read)
{
    struct node *n = context;
    const struct block *b = find(n, read->key);
    if (!b || b->below == ABSENT || read->bytes != BYTES)
        return WEFT_MISS;
    n->buffers++;
    read->data = b->data + (uint64_t)read->first_part * PART;
    read->quality = b->below;
    read->profile = b->below ? PROFILE : 0;
    wf_fabric_read_done(n->fabric, read, WEFT_OK);
    return WEFT_PENDING;
}

static void free_read(void *context, struct wf_fabric_read *read)
{
    assert_non_null(read->data);
    ((struct node *)context)->buffers--;
}

static bool is_below(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality)
{
    const struct block *b = find(context, key);
    (void)domain;
    if (out_quality && b && b->below != ABSENT)
        *out_quality = b->below;
    return b && b->below != ABSENT;
}

static bool each(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    struct node *n = context;
    (void)domain;
    for (; *cursor < n->count; (*cursor)++)
        if (n->blocks[*cursor].near != ABSENT || n->blocks[*cursor].below != ABSENT)
            found(to, &n->blocks[*cursor].event);
    return false;
}

static bool news(void *context, uint32_t from, const struct wf_fabric_event *block)
{
    struct node *n = context;
    struct known *k = n->known;
    (void)from;
    while (k < n->known + n->known_count && memcmp(k->key, block->key, 32) != 0)
        k++;
    if (k == n->known + n->known_count) {
        assert_true(n->known_count++ < BLOCKS_MAX);
        memcpy(k->key, block->key, 32);
    }
    assert_true(block->kind == WF_FABRIC_GONE || block->bytes == BYTES ||
                (k->there && block->bytes == 0 && block->quality > k->quality));
    k->there = block->kind == WF_FABRIC_HERE;
    k->quality = block->quality;
    k->news++;
    return true;
}

static uint32_t part_bytes(uint64_t bytes)
{
    (void)bytes;
    return PART;
}

static void pass(uint64_t ms)
{
    uint64_t until = wf_vtime_now(vtime) + ms * MS;
    for (uint64_t at = wf_vtime_now(vtime); at <= until; at += MS) {
        while (wf_vtime_step(vtime, at))
            for (int i = 0; i < NODES; i++)
                assert_int_equal(wf_fabric_poll(nodes[i].fabric, 0), WEFT_OK);
        for (int i = 0; i < NODES; i++)
            assert_int_equal(wf_fabric_poll(nodes[i].fabric, 0), WEFT_OK);
    }
}

static void node_begin(int i)
{
    const struct wf_fabric_domain domain = {.secret = "of them all",
                                            .secret_bytes = 32,
                                            .quality = asks[i]};
    char registry[64] = "";
    for (int k = 0; k < NODES; k++)
        if (k != i)
            snprintf(registry + strlen(registry), sizeof registry - strlen(registry), "%s%s",
                     registry[0] ? "," : "", names[k]);
    const struct wf_fabric_options options = {
        .name = names[i] + 4,
        .listen = names[i],
        .registry = registry,
        .net = &wf_net_sim,
        .member = &wf_member_static,
        .net_world = world,
        .host = {.context = &nodes[i],
                 .hold = hold,
                 .let_go = let_go,
                 .read = begin_read,
                 .read_free = free_read,
                 .below = is_below,
                 .each = each,
                 .part_bytes = part_bytes,
                 .news = news},
        .domains = &domain,
        .domain_count = 1,
        .lend_bytes = i == D ? 1 << 20 : 0,
        .replica_copies = 16384,
        .now_ns = wf_vtime_now,
        .now_context = vtime,
    };
    if (wf_fabric_create(&options, &nodes[i].fabric) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static int begin(void **state)
{
    (void)state;
    assert_int_equal(wf_vtime_create(&vtime), WEFT_OK);
    const struct wf_net_sim_options options = {.seed = 7, .time = vtime};
    assert_int_equal(wf_net_sim_world_create(&options, &world), WEFT_OK);
    memset(nodes, 0, sizeof nodes);
    for (int i = 0; i < NODES; i++)
        node_begin(i);
    pass(2500); /* until all have asked all how they are */
    return 0;
}

static int end(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++) {
        wf_fabric_destroy(nodes[i].fabric, 0);
        assert_int_equal(nodes[i].held, 0);
        assert_int_equal(nodes[i].buffers, 0);
    }
    wf_net_sim_world_destroy(world);
    wf_vtime_destroy(vtime);
    return 0;
}

static void tell(int node, struct block *b)
{
    struct wf_fabric_event *event = &b->event;
    bool near = b->near <= b->below && b->near != ABSENT;
    event->where = near ? WF_FABRIC_IN_POOL : WF_FABRIC_BELOW;
    event->quality = near ? b->near : b->below != ABSENT ? b->below : 0;
    event->kind = near || b->below != ABSENT ? WF_FABRIC_HERE : WF_FABRIC_GONE;
    wf_fabric_tell(nodes[node].fabric, event);
}

static struct block *put(int node, uint32_t number, uint8_t near, uint8_t below)
{
    struct node *n = &nodes[node];
    struct block *b = &n->blocks[n->count++];
    b->event = (struct wf_fabric_event){.depth = number, .bytes = BYTES};
    for (uint32_t i = 0; i < 32; i++)
        b->event.key[i] = (uint8_t)(number * 37 + i * 11);
    /* A copy of another quality has other bytes. */
    uint8_t quality = near != ABSENT ? near : below;
    for (uint32_t i = 0; i < BYTES; i++)
        b->data[i] = (uint8_t)(number + i / 7 + i + quality * 3);
    b->near = near;
    b->below = below;
    tell(node, b);
    return b;
}

static void changes(int node, struct block *b, uint8_t near, uint8_t below)
{
    b->near = near;
    b->below = below;
    tell(node, b);
}

static const struct known *known_of(int node, const struct block *b)
{
    static const struct known nothing;
    for (uint32_t i = 0; i < nodes[node].known_count; i++)
        if (memcmp(nodes[node].known[i].key, b->event.key, 32) == 0)
            return &nodes[node].known[i];
    return &nothing;
}

static enum weft_status outcome;
static bool ended;

static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    (void)fetch;
    assert_false(ended);
    ended = true;
    outcome = status;
}

static struct wf_fabric_fetch got;

/* As its host would have it read; of what came, `got` says how exact it is. */
static enum weft_status fetch_as(int node, const struct block *b, uint8_t accept)
{
    static uint8_t data[BYTES];
    got = (struct wf_fabric_fetch){
        .bytes = BYTES, .part_bytes = PART, .data = data, .accept = accept, .done = fetched};
    memcpy(got.key, b->event.key, 32);
    ended = false;
    memset(data, 0, sizeof data);
    wf_fabric_fetch(nodes[node].fabric, &got);
    for (uint32_t ms = 0; ms < 20000 && !ended; ms += 10)
        pass(10);
    assert_true(ended);
    if (outcome == WEFT_OK) {
        assert_memory_equal(data, b->data, BYTES);
        assert_true(got.quality <= (accept > WEFT_LOSSLESS ? accept : 0));
        assert_true(got.profile == (got.quality ? PROFILE : 0));
    }
    return outcome;
}

static enum weft_status fetch(int node, const struct block *b)
{
    return fetch_as(node, b, asks[node]);
}

static struct wf_fabric_figures figures_of(int node)
{
    struct wf_fabric_figures figures;
    wf_fabric_figures(nodes[node].fabric, &figures);
    pass(200);
    wf_fabric_figures(nodes[node].fabric, &figures);
    return figures;
}

/* --------------------------------------------------------------------------------------- tests */

static void who_takes_it_has_it(void **state)
{
    (void)state;
    const struct block *b = put(A, 1, WEFT_TRANSPARENT, ABSENT);
    pass(400);
    assert_int_equal(known_of(B, b)->news, 0);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == WEFT_TRANSPARENT);
    assert_int_equal(wf_fabric_best(nodes[B].fabric, b->event.key), WEFT_TRANSPARENT);
    assert_int_equal(fetch(C, b), WEFT_OK);
    assert_int_equal(got.quality, WEFT_TRANSPARENT);
    assert_int_equal(fetch(B, b), WEFT_MISS);
    assert_int_equal(fetch_as(C, b, WEFT_LOSSLESS), WEFT_MISS);
    assert_int_equal(fetch_as(C, b, 0), WEFT_MISS);
    assert_int_equal(fetch_as(C, b, WEFT_TRANSPARENT), WEFT_OK);
    assert_int_equal(figures_of(A).serves_lossy, 2);
    assert_int_equal(figures_of(C).fetches_lossy, 2);
    const struct block *worse = put(A, 2, WEFT_ECONOMY, ABSENT);
    pass(100);
    assert_int_equal(fetch_as(C, worse, WEFT_TRANSPARENT), WEFT_MISS);
    assert_int_equal(fetch(C, worse), WEFT_OK);
    assert_int_equal(got.quality, WEFT_ECONOMY);
}

/* What was told is a hint: the copy that is there counts. */
static void the_owner_looks_at_what_it_has(void **state)
{
    (void)state;
    struct block *b = put(A, 1, 0, ABSENT);
    pass(100);
    assert_true(known_of(B, b)->there);
    b->near = WEFT_ECONOMY; /* and nobody says so */
    assert_int_equal(fetch(B, b), WEFT_MISS);
    assert_int_equal(figures_of(A).serve_misses, 1);
    assert_int_equal(figures_of(A).serves, 0);
    /* It was said what is there: whoever takes it has it, and who does not asks no more. */
    assert_false(known_of(B, b)->there);
    assert_int_equal(wf_fabric_best(nodes[B].fabric, b->event.key), WEFT_ECONOMY);
    assert_int_equal(fetch(B, b), WEFT_MISS);
    assert_int_equal(figures_of(A).serve_misses, 1);
    assert_int_equal(fetch_as(B, b, WEFT_ECONOMY), WEFT_OK);
    assert_int_equal(got.quality, WEFT_ECONOMY);
    assert_int_equal(fetch_as(C, b, WEFT_TRANSPARENT), WEFT_MISS);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == WEFT_ECONOMY);
    assert_int_equal(fetch(C, b), WEFT_OK);
    assert_int_equal(got.quality, WEFT_ECONOMY);
    struct block *below = put(A, 2, ABSENT, 0);
    pass(100);
    below->below = WEFT_TRANSPARENT;
    assert_int_equal(fetch(B, below), WEFT_MISS);
    assert_int_equal(fetch_as(B, below, WEFT_TRANSPARENT), WEFT_OK);
    assert_int_equal(fetch(C, below), WEFT_OK);
    changes(A, below, ABSENT, ABSENT);
    pass(400);
    assert_false(wf_fabric_elsewhere(nodes[B].fabric, below->event.key));
    /* Who had it once and has nothing of it now is forgotten. */
    struct block *gone = put(A, 3, WEFT_TRANSPARENT, ABSENT);
    pass(100);
    gone->near = ABSENT;
    assert_int_equal(fetch(C, gone), WEFT_MISS);
    assert_false(wf_fabric_elsewhere(nodes[C].fabric, gone->event.key));
}

static void the_best_copy_is_told_of(void **state)
{
    (void)state;
    struct block *b = put(A, 1, WEFT_ECONOMY, ABSENT), *better = put(D, 1, ABSENT, 0);
    memcpy(b->data, better->data, BYTES);
    pass(100);
    assert_true(known_of(B, b)->there && known_of(B, b)->quality == 0);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == 0);
    assert_int_equal(fetch(B, b), WEFT_OK);
    assert_int_equal(got.quality, 0);
    changes(D, better, ABSENT, ABSENT);
    pass(400);
    assert_false(known_of(B, b)->there);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == WEFT_ECONOMY);
    assert_int_equal(fetch(B, b), WEFT_MISS);
    assert_int_equal(fetch(C, b), WEFT_OK);
    changes(A, b, WEFT_TRANSPARENT, ABSENT);
    pass(100);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == WEFT_TRANSPARENT);
    changes(A, b, 0, ABSENT);
    pass(100);
    assert_true(known_of(B, b)->there && known_of(C, b)->quality == 0);
    changes(A, b, WEFT_TRANSPARENT, ABSENT);
    pass(400);
    assert_true(!known_of(B, b)->there && known_of(C, b)->quality == WEFT_TRANSPARENT);
    changes(A, b, ABSENT, ABSENT);
    pass(400);
    assert_false(known_of(C, b)->there);
    assert_false(wf_fabric_elsewhere(nodes[C].fabric, b->event.key));
}

/* A node has both: who asks for what is exact has it from below. */
static void what_is_below_may_be_better(void **state)
{
    (void)state;
    struct block *b = put(A, 1, WEFT_ECONOMY, 0);
    pass(100);
    assert_true(known_of(B, b)->there && known_of(B, b)->quality == 0);
    assert_int_equal(fetch(B, b), WEFT_OK);
    assert_int_equal(got.quality, 0);
    assert_int_equal(figures_of(A).serves_below, 1);
    assert_int_equal(fetch(C, b), WEFT_OK); /* it is sooner there */
    assert_int_equal(got.quality, WEFT_ECONOMY);
    assert_int_equal(figures_of(A).serves_below, 1);
}

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    (void)store;
    assert_false(ended);
    ended = true;
    outcome = status;
}

static enum weft_status store(int node, const struct block *b, uint8_t quality)
{
    struct wf_fabric_store s = {.block = b->event,
                                .part_bytes = PART,
                                .profile = quality ? PROFILE : 0,
                                .data = b->data,
                                .done = stored};
    s.block.kind = WF_FABRIC_HERE;
    s.block.quality = quality;
    ended = false;
    wf_fabric_store(nodes[node].fabric, &s);
    for (uint32_t ms = 0; ms < 20000 && !ended; ms += 10)
        pass(10);
    assert_true(ended);
    return outcome;
}

/* In memory that is lent a copy keeps what it is, and gives way to a better one only. */
static void what_is_lent_keeps_its_quality(void **state)
{
    (void)state;
    struct block *b = put(A, 1, ABSENT, ABSENT);
    pass(100);
    assert_int_equal(store(A, b, WEFT_TRANSPARENT), WEFT_OK);
    pass(100);
    assert_true(known_of(C, b)->there && known_of(C, b)->quality == WEFT_TRANSPARENT);
    assert_false(known_of(B, b)->there);
    assert_int_equal(fetch(C, b), WEFT_OK);
    assert_int_equal(got.quality, WEFT_TRANSPARENT);
    assert_int_equal(fetch(B, b), WEFT_MISS);
    assert_int_equal(store(C, b, WEFT_ECONOMY), WEFT_EXISTS);
    memset(b->data, 7, BYTES);
    assert_int_equal(store(C, b, 0), WEFT_OK);
    pass(400);
    assert_true(known_of(B, b)->there && known_of(C, b)->quality == 0);
    assert_int_equal(fetch(B, b), WEFT_OK);
    assert_int_equal(got.quality, 0);
    assert_int_equal(store(A, b, WEFT_TRANSPARENT), WEFT_EXISTS);
}

/* One that drains hands on what it has as it is, and a worse copy elsewhere is none. */
static void a_drain_keeps_the_quality(void **state)
{
    (void)state;
    struct block *lossy = put(A, 1, WEFT_ECONOMY, ABSENT), *exact = put(A, 2, 0, ABSENT);
    struct block *worse = put(C, 2, WEFT_TRANSPARENT, ABSENT);
    pass(100);
    wf_fabric_drain(nodes[A].fabric, true);
    for (uint32_t i = 0; i < 400 && !figures_of(A).drained; i++)
        pass(100);
    assert_true(figures_of(A).drained);
    assert_int_equal(figures_of(A).moved, 2);
    changes(A, lossy, ABSENT, ABSENT);
    changes(A, exact, ABSENT, ABSENT);
    changes(C, worse, ABSENT, ABSENT);
    pass(400);
    assert_int_equal(fetch(C, lossy), WEFT_OK);
    assert_int_equal(got.quality, WEFT_ECONOMY);
    assert_int_equal(fetch(B, lossy), WEFT_MISS);
    assert_int_equal(fetch(B, exact), WEFT_OK);
    assert_int_equal(got.quality, 0);
}

static struct wf_tier_request *reaped(const struct wf_tier_ops *ops, struct wf_tier *tier)
{
    struct wf_tier_request *done;
    for (uint32_t ms = 0; ms < 20000; ms += 10) {
        if (ops->reap(tier, &done, 1, 0))
            return done;
        pass(10);
    }
    fail_msg("it takes too long");
    return NULL;
}

/* Both tiers that other nodes are to a node say of what they give how exact it is. */
static void tiers_say_what_they_give(void **state)
{
    (void)state;
    static _Alignas(4096) uint8_t data[BYTES], given[BYTES];
    const uint8_t tags[1][32] = {"the domain"}, accept[1] = {WEFT_ECONOMY};
    struct block *b = put(C, 1, ABSENT, ABSENT), *there = put(A, 2, WEFT_TRANSPARENT, ABSENT);
    struct wf_peers *peers;
    struct wf_tier *remote, *tier;
    pass(100);
    assert_int_equal(wf_peers_create(tags, accept, 1, part_bytes, &peers), WEFT_OK);
    wf_peers_attach(peers, nodes[C].fabric);
    const struct wf_tier_options options = {.path = "them", .queue_depth = 1, .peers = peers};
    assert_int_equal(wf_tier_remote.open(&options, &remote), WEFT_OK);
    assert_int_equal(wf_tier_peers.open(&options, &tier), WEFT_OK);
    struct wf_tier_request r = {.op = WF_TIER_WRITE,
                                .block = {.bytes = BYTES, .part_bytes = PART, .depth = 1},
                                .data = memcpy(given, b->data, BYTES),
                                .lost = WEFT_ECONOMY,
                                .profile = PROFILE};
    memcpy(r.block.key, b->event.key, 32);
    memcpy(r.block.format, tags[0], 32);
    assert_int_equal(wf_tier_remote.submit(remote, &r), WEFT_OK);
    assert_int_equal(reaped(&wf_tier_remote, remote)->status, WEFT_OK);
    assert_int_equal(r.lost, WEFT_ECONOMY);
    pass(100);
    r.op = WF_TIER_READ;
    r.data = data;
    r.lost = 0;
    r.profile = 0;
    assert_int_equal(wf_tier_remote.submit(remote, &r), WEFT_OK);
    assert_int_equal(reaped(&wf_tier_remote, remote)->status, WEFT_OK);
    assert_true(r.lost == WEFT_ECONOMY && r.profile == PROFILE);
    assert_memory_equal(data, b->data, BYTES);
    memcpy(r.block.key, there->event.key, 32);
    assert_int_equal(wf_tier_peers.submit(tier, &r), WEFT_OK);
    assert_int_equal(reaped(&wf_tier_peers, tier)->status, WEFT_OK);
    assert_true(r.lost == WEFT_TRANSPARENT && r.profile == PROFILE);
    assert_memory_equal(data, there->data, BYTES);
    wf_tier_remote.close(remote);
    wf_tier_peers.close(tier);
    wf_peers_attach(peers, NULL);
    wf_peers_destroy(peers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_takes_it_has_it, begin, end),
        cmocka_unit_test_setup_teardown(the_owner_looks_at_what_it_has, begin, end),
        cmocka_unit_test_setup_teardown(the_best_copy_is_told_of, begin, end),
        cmocka_unit_test_setup_teardown(what_is_below_may_be_better, begin, end),
        cmocka_unit_test_setup_teardown(what_is_lent_keeps_its_quality, begin, end),
        cmocka_unit_test_setup_teardown(tiers_say_what_they_give, begin, end),
        cmocka_unit_test_setup_teardown(a_drain_keeps_the_quality, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
