/* SPDX-License-Identifier: Apache-2.0
 *
 * Routing: cases by hand, against every cut there is, and how fast.  test/unit/route_herd.c has
 * whole clusters.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "../support/random.h"
#include "core/route.h"

#define NODES 64u

static struct wf_route *router(double work_price, uint32_t routers)
{
    struct wf_route *route;
    const struct wf_route_options options = {.nodes_max = NODES,
                                             .seed = 1,
                                             .work_price = work_price,
                                             .tie_part = -1,
                                             .coming_s = -1,
                                             .home_price = -1,
                                             .routers = routers};
    assert_int_equal(wf_route_create(&options, &route), WEFT_OK);
    return route;
}

/* 100 blocks of 100 tokens and 1 MB; a block takes 10 ms to compute, whatever stands before it. */
static const struct wf_route_request plain = {.id = 1,
                                              .tokens = 10000,
                                              .block_tokens = 100,
                                              .block_bytes = 1e6,
                                              .layers = 1,
                                              .prefill = {1e-4, 0}};

/* One way between all. */
static struct wf_route_way same(void *context, uint32_t from, uint32_t to)
{
    assert_int_not_equal(from, to);
    return *(const struct wf_route_way *)context;
}

static struct wf_route_answer ask(const struct wf_route *route,
                                  const struct wf_route_request *request,
                                  const struct wf_route_node *nodes, uint32_t count,
                                  struct wf_route_way way, double now_s)
{
    struct wf_route_term terms[NODES];
    struct wf_route_answer answer;
    const struct wf_route_links links = {same, &way};
    wf_route_choose(route, request, nodes, count, way.bytes_s > 0 ? &links : NULL, now_s, terms,
                    &answer);
    if (answer.chosen != WF_ROUTE_NONE)
        assert_memory_equal(&terms[answer.chosen], &answer.term, sizeof answer.term);
    return answer;
}

static void close_to(double is, double should)
{
    if (!(fabs(is - should) <= 1e-6 * fmax(1, fabs(should))))
        fail_msg("%g, and not %g", is, should);
}

static void tell(struct wf_route *route, uint16_t node, double queue_s, double taken_s)
{
    const struct wf_route_load load = {.queued_tokens = queue_s * 1e4, .tokens_s = 1e4};
    wf_route_report(route, node, &load, taken_s);
}

static const struct wf_route_way none, slow = {0.01, 20e6, 0}, fast = {0.01, 1e9, 0};

static void the_request_goes_to_its_kv(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    struct wf_route_node nodes[] = {
        {.node = 0, .serves = true},
        {.node = 7, .serves = true, .near_blocks = 90, .held_blocks = 90}};
    struct wf_route_answer answer = ask(route, &plain, nodes, 2, none, 0);
    assert_int_equal(answer.chosen, 1);
    assert_int_equal(answer.term.action, WF_ROUTE_LOCAL);
    assert_int_equal(answer.term.load_blocks, 90);
    assert_int_equal(answer.term.fetch_blocks, 0);
    close_to(answer.term.hit_tokens, 9000);
    close_to(answer.term.ttft_s, 0.1);
    /* It queues there for less time than another takes. */
    tell(route, 7, 0.8, 0);
    answer = ask(route, &plain, nodes, 2, none, 0);
    assert_int_equal(answer.chosen, 1);
    close_to(answer.term.ttft_s, 0.9);
    /* For longer: it is computed elsewhere. */
    tell(route, 7, 1.2, 0);
    answer = ask(route, &plain, nodes, 2, none, 0);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(answer.term.action, WF_ROUTE_RECOMPUTE);
    close_to(answer.term.ttft_s, 1);
    /* The queue gets shorter by itself. */
    assert_int_equal(ask(route, &plain, nodes, 2, none, 0.4).chosen, 1);
    /* All of it is there, and the last token is still to be computed. */
    nodes[1].near_blocks = nodes[1].held_blocks = 100;
    answer = ask(route, &plain, nodes, 2, none, 2);
    close_to(answer.term.hit_tokens, 9999);
    close_to(answer.term.ttft_s, 1e-4);
    wf_route_destroy(route);
    wf_route_destroy(NULL);
}

static void the_kv_goes_to_the_request(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    struct wf_route_node nodes[] = {
        {.node = 0, .serves = true, .near_blocks = 10, .held_blocks = 10},
        {.node = 1, .serves = true, .near_blocks = 90, .held_blocks = 90}};
    tell(route, 1, 0.5, 0);
    /* 80 blocks in 10 + 80 ms, then 10 blocks of prefill. */
    struct wf_route_answer answer = ask(route, &plain, nodes, 2, fast, 0);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(answer.term.action, WF_ROUTE_FETCH);
    assert_int_equal(answer.term.source, 1);
    assert_int_equal(answer.term.fetch_blocks, 80);
    assert_int_equal(answer.term.load_blocks, 90);
    close_to(answer.term.ttft_s, 0.19);
    /* By layers, what is loaded hides behind what is computed, but for a layer of it and the way.
     */
    struct wf_route_request layered = plain;
    layered.layers = 100;
    close_to(ask(route, &layered, nodes, 2, fast, 0).term.ttft_s, 0.01 + 0.08 / 100 + 0.1);
    /* A link that takes as long as computing does: the request queues. */
    answer = ask(route, &plain, nodes, 2, slow, 0);
    assert_int_equal(answer.chosen, 1);
    close_to(answer.term.ttft_s, 0.6);
    /* A node that serves nothing has memory all the same. */
    nodes[1].serves = false;
    answer = ask(route, &plain, nodes, 2, fast, 0);
    assert_int_equal(answer.term.action, WF_ROUTE_FETCH);
    assert_int_equal(answer.chosen, 0);
    /* The next fetch over the same link waits for this one. */
    wf_route_sent(route, nodes, &answer, NULL, 0, 0);
    close_to(ask(route, &plain, nodes, 2, fast, 0).term.latency_s, 0.1);
    close_to(ask(route, &plain, nodes, 2, fast, 0.05).term.latency_s, 0.05);
    wf_route_destroy(route);
}

/* As much is loaded as the computing of the rest hides. */
static void a_part_is_loaded_and_a_part_computed(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    struct wf_route_request layered = plain;
    layered.layers = 1000000; /* as if all were side by side */
    const struct wf_route_node nodes[] = {{.node = 0, .serves = true},
                                          {.node = 1, .near_blocks = 100, .held_blocks = 100}};
    /* 100 blocks a second over the link, and 100 computed: half of each. */
    const struct wf_route_way even = {0, 100e6, 0};
    struct wf_route_answer answer = ask(route, &layered, nodes, 2, even, 0);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(answer.term.fetch_blocks, 50);
    assert_true(fabs(answer.term.ttft_s - 0.5) < 0.011);
    wf_route_destroy(route);
}

static void what_is_below_takes_its_time(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    struct wf_route_node node = {.node = 3,
                                 .serves = true,
                                 .hbm_blocks = 20,
                                 .near_blocks = 40,
                                 .held_blocks = 90,
                                 .host = {0, 1e9, 0},
                                 .below = {0.001, 500e6, 0.002}};
    /* 50 blocks from below in 100 ms; 70 to HBM meanwhile. */
    struct wf_route_answer answer = ask(route, &plain, &node, 1, none, 0);
    close_to(answer.term.latency_s, 0.003);
    close_to(answer.term.data_s, 0.1);
    close_to(answer.term.ttft_s, 0.203);
    /* A tier that is slower than computing is left alone, but for what it reads while the rest is
     * on its way. */
    node.below.bytes_s = 50e6;
    answer = ask(route, &plain, &node, 1, none, 0);
    assert_int_equal(answer.term.load_blocks, 41);
    node.host.bytes_s = 0;
    assert_int_equal(ask(route, &plain, &node, 1, none, 0).term.load_blocks, 40);
    wf_route_destroy(route);
}

static void what_was_sent_counts_at_once(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    struct wf_route_node nodes[4] = {{.node = 0}, {.node = 1}, {.node = 2}, {.node = 3}};
    uint32_t got[4] = {0};
    for (int i = 0; i < 4; i++)
        nodes[i].serves = true;
    /* A burst between two reports goes to all of them. */
    for (uint64_t i = 0; i < 40; i++) {
        struct wf_route_request request = plain;
        request.id = i;
        struct wf_route_answer answer = ask(route, &request, nodes, 4, none, 0);
        got[answer.chosen]++;
        wf_route_sent(route, nodes, &answer, NULL, 0, 0);
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(got[i], 10);
    close_to(ask(route, &plain, nodes, 1, none, 0).term.queue_s, 10);
    close_to(ask(route, &plain, nodes, 1, none, 4).term.queue_s, 6);
    /* A report from before they were sent does not know of them; a later one does. */
    tell(route, 0, 2, -1);
    close_to(ask(route, &plain, nodes, 1, none, 0).term.queue_s, 11);
    tell(route, 0, 7, 3.5);
    close_to(ask(route, &plain, nodes, 1, none, 4).term.queue_s, 6.5);
    /* Reports that come late say nothing. */
    tell(route, 0, 100, 3);
    close_to(ask(route, &plain, nodes, 1, none, 4).term.queue_s, 6.5);
    wf_route_forget(route, 0);
    close_to(ask(route, &plain, nodes, 1, none, 4).term.queue_s, 0);
    wf_route_destroy(route);
    /* Of three routers each takes the others to do the same. */
    route = router(0, 3);
    struct wf_route_answer answer = ask(route, &plain, nodes, 1, none, 0);
    wf_route_sent(route, nodes, &answer, NULL, 0, 0);
    close_to(ask(route, &plain, nodes, 1, none, 0).term.queue_s, 3);
    wf_route_destroy(route);
}

/* Of a chain that is being computed somewhere, the next request knows. */
static void what_is_coming_is_known(void **state)
{
    (void)state;
    static uint8_t keys[100][32];
    struct wf_route *route = router(0, 1);
    struct wf_places *places;
    const struct wf_places_options options = {1000, NODES, 1};
    struct wf_route_node nodes[2] = {{.node = 4, .serves = true}, {.node = 9, .serves = true}};
    assert_int_equal(wf_places_create(&options, &places), WEFT_OK);
    for (uint64_t k = 0; k < 100; k++)
        random_key(k, keys[k]);
    for (int k = 0; k < 10; k++)
        assert_true(wf_places_add(places, keys[k], 4));
    tell(route, 9, 5, 0);
    wf_route_look(route, places, NULL, keys, 100, nodes, 2);
    struct wf_route_answer answer = ask(route, &plain, nodes, 2, none, 0);
    assert_int_equal(answer.chosen, 0);
    close_to(answer.term.prefill_s, 0.9);
    wf_route_sent(route, nodes, &answer, keys, 100, 0);
    /* It waits there until the blocks have been computed, and computes nothing again. */
    wf_route_look(route, places, NULL, keys, 60, nodes, 2);
    assert_true(nodes[0].held_blocks == 10 && nodes[0].coming_blocks == 60);
    assert_true(nodes[1].held_blocks == 0 && nodes[1].coming_blocks == 0);
    struct wf_route_request shorter = plain;
    shorter.tokens = 6500;
    answer = ask(route, &shorter, nodes, 2, fast, 0);
    assert_int_equal(answer.chosen, 0);
    assert_int_equal(answer.term.action, WF_ROUTE_LOCAL);
    close_to(answer.term.queue_s, 0.9);
    close_to(answer.term.prefill_s, 0.05);
    /* Nobody else can fetch it as yet. */
    tell(route, 4, 20, 0.1);
    answer = ask(route, &shorter, nodes, 2, fast, 0.1);
    assert_int_equal(answer.chosen, 1);
    assert_int_equal(answer.term.fetch_blocks, 10);
    /* By now it must have come. */
    wf_route_sent(route, nodes, &answer, keys, 60, 60);
    wf_route_look(route, places, NULL, keys, 60, nodes, 2);
    assert_int_equal(nodes[0].coming_blocks, 10);
    assert_int_equal(nodes[1].coming_blocks, 60);
    wf_places_destroy(places);
    wf_route_destroy(route);
}

/* There is a cap on what is remembered; the oldest is forgotten. */
static void what_is_coming_has_a_cap(void **state)
{
    (void)state;
    static uint8_t keys[128][32];
    struct wf_route *route;
    struct wf_places *places;
    const struct wf_route_options few = {.nodes_max = NODES, .coming_max = 128};
    const struct wf_places_options options = {1000, NODES, 1};
    struct wf_route_node node = {.node = 4, .serves = true};
    assert_int_equal(wf_places_create(&options, &places), WEFT_OK);
    assert_int_equal(wf_route_create(&few, &route), WEFT_OK);
    for (uint64_t round = 0; round < 3000; round++) {
        uint32_t count = 1 + (uint32_t)(round * 7 % 128);
        for (uint64_t k = 0; k < count; k++)
            random_key(round / 3 * 1000 + k, keys[k]);
        struct wf_route_answer answer = ask(route, &plain, &node, 1, none, 0);
        wf_route_look(route, places, NULL, keys, count, &node, 1);
        wf_route_sent(route, &node, &answer, keys, count, 0);
        wf_route_look(route, places, NULL, keys, count, &node, 1);
        assert_true(node.coming_blocks >= count);
        node = (struct wf_route_node){.node = 4, .serves = true};
    }
    wf_places_destroy(places);
    wf_route_destroy(route);
}

/* A chain that was evicted goes where it was last, unless all want it at once. */
static void a_chain_has_a_home(void **state)
{
    (void)state;
    static uint8_t keys[100][32];
    struct wf_route *route = router(0, 1);
    struct wf_places *places;
    const struct wf_places_options options = {1000, NODES, 1};
    struct wf_route_node nodes[4];
    struct wf_route_term terms[4];
    struct wf_route_answer answer;
    assert_int_equal(wf_places_create(&options, &places), WEFT_OK);
    for (uint16_t n = 0; n < 4; n++)
        nodes[n] = (struct wf_route_node){.node = n, .serves = true};
    for (uint64_t k = 0; k < 100; k++)
        random_key(k, keys[k]);
    wf_route_look(route, places, NULL, keys, 60, nodes, 4);
    wf_route_choose(route, &plain, nodes, 4, NULL, 0, terms, &answer);
    uint32_t home = answer.chosen;
    wf_route_sent(route, nodes, &answer, keys, 60, 0);
    /* Long after, nobody holds anything; it has grown. */
    struct wf_route_request request = plain;
    for (uint64_t id = 100; id < 120; id++) {
        request.id = id;
        wf_route_look(route, places, NULL, keys, 100, nodes, 4);
        wf_route_choose(route, &request, nodes, 4, NULL, 50, terms, &answer);
        assert_int_equal(answer.chosen, home);
        assert_int_equal(nodes[home].home_blocks, 60);
        assert_true(terms[home].away_s == 0 && terms[(home + 1) % 4].away_s > 1.1);
    }
    /* It waits there for so long, and no longer. */
    tell(route, (uint16_t)home, 1, 50);
    wf_route_choose(route, &request, nodes, 4, NULL, 50, terms, &answer);
    assert_int_equal(answer.chosen, home);
    tell(route, (uint16_t)home, 3, 50);
    wf_route_choose(route, &request, nodes, 4, NULL, 50, terms, &answer);
    assert_int_not_equal(answer.chosen, home);
    /* Twice within a moment: it is shared, and at home nowhere. */
    wf_route_sent(route, nodes, &answer, keys, 100, 50);
    wf_route_sent(route, nodes, &answer, keys, 100, 50.5);
    wf_route_look(route, places, NULL, keys, 100, nodes, 4);
    for (int n = 0; n < 4; n++)
        assert_int_equal(nodes[n].home_blocks, 0);
    wf_places_destroy(places);
    wf_route_destroy(route);
}

static void a_full_batch_is_waited_for(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    const struct wf_route_node nodes[] = {{.node = 0, .serves = true}, {.node = 1, .serves = true}};
    struct wf_route_load load = {.running = 10, .batch_max = 10, .decode_s = 5};
    wf_route_report(route, 0, &load, 0);
    struct wf_route_answer answer = ask(route, &plain, nodes, 1, none, 0);
    close_to(answer.term.slot_s, 0.5);
    close_to(answer.term.ttft_s, 1.5);
    assert_int_equal(ask(route, &plain, nodes, 2, none, 0).chosen, 1);
    load.running = 9;
    wf_route_report(route, 0, &load, 0.1);
    close_to(ask(route, &plain, nodes, 1, none, 0.1).term.slot_s, 0);
    load.closed = true;
    wf_route_report(route, 0, &load, 0.2);
    assert_int_equal(ask(route, &plain, nodes, 1, none, 0.2).chosen, WF_ROUTE_NONE);
    assert_int_equal(ask(route, &plain, nodes, 2, none, 0.2).chosen, 1);
    assert_int_equal(ask(route, &plain, nodes, 0, none, 0.2).chosen, WF_ROUTE_NONE);
    wf_route_destroy(route);
}

static void a_second_of_prefill_has_its_price(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1), *dear = router(0.5, 1);
    const struct wf_route_node nodes[] = {
        {.node = 0, .serves = true},
        {.node = 1, .serves = true, .near_blocks = 100, .held_blocks = 100}};
    tell(route, 1, 1.2, 0);
    tell(dear, 1, 1.2, 0);
    assert_int_equal(ask(route, &plain, nodes, 2, none, 0).chosen, 0);
    assert_int_equal(ask(dear, &plain, nodes, 2, none, 0).chosen, 1);
    wf_route_destroy(route);
    wf_route_destroy(dear);
}

/* Equals are chosen from evenly, and the same question has the same answer. */
static void ties_are_broken_by_lot(void **state)
{
    (void)state;
    struct wf_route *route = router(-1, 1);
    struct wf_route_node nodes[8];
    uint32_t got[8] = {0};
    for (uint16_t i = 0; i < 8; i++)
        nodes[i] = (struct wf_route_node){.node = i, .serves = true};
    for (uint64_t id = 0; id < 8000; id++) {
        struct wf_route_request request = plain;
        request.id = id;
        uint32_t chosen = ask(route, &request, nodes, 8, fast, 0).chosen;
        assert_int_equal(chosen, ask(route, &request, nodes, 8, fast, 0).chosen);
        got[chosen]++;
    }
    for (int i = 0; i < 8; i++)
        assert_in_range(got[i], 850, 1150);
    /* Nobody goes to a node that has less of it for a little less time. */
    nodes[5].near_blocks = nodes[5].held_blocks = 1;
    for (uint64_t id = 0; id < 100; id++) {
        struct wf_route_request request = plain;
        request.id = id;
        assert_int_equal(ask(route, &request, nodes, 8, fast, 0).chosen, 5);
    }
    wf_route_destroy(route);
}

/* ------------------------------------------------------------------- against every cut there is */

static double part(struct random_source *r)
{
    return (double)(random_next(r) >> 11) * 0x1p-53;
}

static struct wf_route_way any_way(struct random_source *r)
{
    return (struct wf_route_way){0.02 * part(r), 20e6 * exp(5 * part(r)), 0.1 * part(r)};
}

/* The least score, by looking at each number of blocks, from each source. */
static double least_score(const struct wf_route_request *request, const struct wf_route_node *nodes,
                          uint32_t count, struct wf_route_way way, double queue_s)
{
    double best_s = INFINITY;
    for (uint32_t from = 0; from < count; from++) {
        for (uint32_t m = 0; m <= nodes[from].held_blocks || m <= nodes[0].held_blocks; m++) {
            double own = fmin(m, nodes[0].held_blocks), near = fmin(m, nodes[0].near_blocks);
            double remote = m - own, theirs = fmax(0, nodes[from].near_blocks - own);
            if (remote > 0 && (from == 0 || m > nodes[from].held_blocks))
                break;
            double late_s = 0, data_s = 0, bytes = request->block_bytes;
            if (own > near) {
                late_s = nodes[0].below.latency_s + nodes[0].below.queue_s;
                data_s = (own - near) * bytes / nodes[0].below.bytes_s;
            }
            if (remote > 0) {
                late_s = fmax(late_s, way.latency_s + way.queue_s);
                data_s = fmax(data_s, remote * bytes / way.bytes_s);
            }
            if (remote > theirs) {
                late_s = fmax(late_s, nodes[from].below.latency_s + nodes[from].below.queue_s);
                data_s = fmax(data_s, (remote - theirs) * bytes / nodes[from].below.bytes_s);
            }
            data_s = fmax(data_s, m * bytes / nodes[0].host.bytes_s);
            double hit = fmin(m * request->block_tokens, request->tokens - 1);
            double prefill_s = wf_prefill_s(request->prefill, hit, request->tokens - hit);
            double done_s = m ? wf_overlap_s(late_s - queue_s, data_s, prefill_s, request->layers)
                              : prefill_s;
            best_s = fmin(best_s, queue_s + done_s + 0.5 * prefill_s);
        }
    }
    return best_s;
}

static void it_finds_the_best_cut(void **state)
{
    (void)state;
    struct random_source r = random_seeded("route");
    for (int round = 0; round < 3000; round++) {
        struct wf_route *route = router(0.5, 1);
        uint32_t count = 1 + random_below(&r, 6), blocks = 1 + random_below(&r, 200);
        struct wf_route_node nodes[6];
        struct wf_route_request request = plain;
        request.tokens = 100.0 * (blocks + 1);
        request.layers = 1 + random_below(&r, 80);
        request.prefill.attended_s = random_below(&r, 2) * 1e-8;
        for (uint16_t i = 0; i < count; i++) {
            uint32_t held = random_below(&r, blocks + 1);
            nodes[i] = (struct wf_route_node){.node = i,
                                              .serves = i == 0,
                                              .near_blocks = random_below(&r, held + 1),
                                              .held_blocks = held,
                                              .host = any_way(&r),
                                              .below = any_way(&r)};
            nodes[i].host.latency_s = nodes[i].host.queue_s = 0;
        }
        double queue_s = random_below(&r, 2) * part(&r);
        struct wf_route_way way = any_way(&r);
        tell(route, 0, queue_s, 0);
        double is_s = ask(route, &request, nodes, count, way, 0).term.score_s;
        double best_s = least_score(&request, nodes, count, way, queue_s);
        assert_true(is_s > best_s * (1 - 1e-9));
        if (is_s > best_s * (1 + 1e-9))
            fail_msg("round %d: %g, and %g is to be had", round, is_s, best_s);
        wf_route_destroy(route);
    }
}

static void it_says_why(void **state)
{
    (void)state;
    struct wf_route *route = router(0, 1);
    const struct wf_route_node nodes[] = {
        {.node = 0, .serves = true, .near_blocks = 10, .held_blocks = 10},
        {.node = 1, .near_blocks = 90, .held_blocks = 90}};
    char said[256], small[20];
    struct wf_route_answer answer = ask(route, &plain, nodes, 2, fast, 0);
    int length = wf_route_say(&answer.term, &plain, said, sizeof said);
    assert_string_equal(said, "0.19 s: 0 s behind others, 0.1 s of prefill for 1000 of 10000 "
                              "tokens, 0.09 s to load 90 blocks, 80 of them from elsewhere");
    assert_int_equal(length, strlen(said));
    wf_route_say(&answer.term, &plain, small, sizeof small);
    assert_int_equal(strlen(small), sizeof small - 1);
    assert_string_equal(wf_route_action_name(answer.term.action), "fetch");
    wf_route_destroy(route);
}

/* ----------------------------------------------------------------------------- how fast */

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* 16 candidates, chains of 512 blocks, of which each holds another beginning. */
static void how_fast_it_is(void **state)
{
    (void)state;
    enum { TIMES = 401, BLOCKS = 512, CANDIDATES = 16, CHAINS = 50 };
    static uint8_t keys[CHAINS][BLOCKS][32];
    static double took[TIMES], looked[TIMES];
    struct random_source r = {42};
    struct wf_route *route = router(-1, 1);
    struct wf_places *places;
    const struct wf_places_options options = {2000000, NODES, 1};
    assert_int_equal(wf_places_create(&options, &places), WEFT_OK);
    for (uint64_t c = 0; c < CHAINS; c++) {
        for (uint64_t k = 0; k < BLOCKS; k++)
            random_key(c * BLOCKS + k, keys[c][k]);
        for (uint16_t n = 0; n < CANDIDATES; n++) {
            uint32_t held = random_below(&r, 3) ? 40 : random_below(&r, BLOCKS);
            for (uint32_t k = 0; k < held; k++)
                (void)wf_places_add(places, keys[c][k], n);
        }
    }
    struct wf_route_node nodes[CANDIDATES];
    struct wf_route_request request = plain;
    request.tokens = 512 * 100 + 50;
    request.layers = 32;
    request.prefill = (struct wf_prefill){5e-5, 1e-10};
    for (uint16_t n = 0; n < CANDIDATES; n++) {
        nodes[n] = (struct wf_route_node){.node = n, .serves = true, .host = {0, 50e9, 0}};
        tell(route, n, part(&r), 0);
    }
    for (int t = 0; t < TIMES; t++) {
        struct wf_route_term terms[CANDIDATES];
        struct wf_route_answer answer;
        struct wf_route_way way = {1e-4, 3e9, 0};
        const struct wf_route_links links = {same, &way};
        request.id = (uint64_t)t;
        double began = now_us();
        wf_route_look(route, places, NULL, keys[t % CHAINS], BLOCKS, nodes, CANDIDATES);
        looked[t] = now_us() - began;
        wf_route_choose(route, &request, nodes, CANDIDATES, &links, t * 0.05, terms, &answer);
        took[t] = now_us() - began;
        wf_route_sent(route, nodes, &answer, keys[t % CHAINS], BLOCKS, t * 0.05);
    }
    qsort(took, TIMES, sizeof *took, by_value);
    qsort(looked, TIMES, sizeof *looked, by_value);
    print_message(
        "# 16 candidates, 512 blocks: p50 %.1f us, p99 %.1f us; who holds what: %.1f us\n",
        took[TIMES / 2], took[TIMES * 99 / 100], looked[TIMES / 2]);
    wf_places_destroy(places);
    wf_route_destroy(route);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_request_goes_to_its_kv),
        cmocka_unit_test(the_kv_goes_to_the_request),
        cmocka_unit_test(a_part_is_loaded_and_a_part_computed),
        cmocka_unit_test(what_is_below_takes_its_time),
        cmocka_unit_test(what_was_sent_counts_at_once),
        cmocka_unit_test(what_is_coming_is_known),
        cmocka_unit_test(what_is_coming_has_a_cap),
        cmocka_unit_test(a_chain_has_a_home),
        cmocka_unit_test(a_full_batch_is_waited_for),
        cmocka_unit_test(a_second_of_prefill_has_its_price),
        cmocka_unit_test(ties_are_broken_by_lot),
        cmocka_unit_test(it_finds_the_best_cut),
        cmocka_unit_test(it_says_why),
        cmocka_unit_test(how_fast_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
