/* SPDX-License-Identifier: Apache-2.0
 *
 * The simulator's caches, on sequences so short that a person can follow the papers through them:
 * each is worked out by hand, and most tell the policy from LRU.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/random.h"
#include "sim/cache.h"

/* Requests are words; a word's letters are the hash ids of its chain. */
static void trace_of(struct wf_sim_trace *trace, const char *words)
{
    assert_int_equal(wf_sim_trace_init(trace, 512), WEFT_OK);
    double at_s = 0;
    for (const char *p = words; *p; p += strspn(p, " ")) {
        uint64_t ids[64];
        struct trace_request request = {.timestamp_s = at_s++, .hash_ids = ids};
        for (; *p && *p != ' '; p++)
            ids[request.hash_count++] = (uint64_t)*p;
        request.input_length = 512 * request.hash_count;
        assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

/* How many blocks of each request are hits, a digit each; and that no cache outgrows its room. */
static const char *hits(const struct wf_sim_cache_ops *ops, uint32_t capacity, const char *words)
{
    static char out[128];
    struct wf_sim_trace trace;
    trace_of(&trace, words);
    struct wf_sim_world world = {
        .trace = &trace, .capacity = capacity, .seed = 1, .speed = 1, .attention = 1};
    struct wf_sim_cache *cache = ops->create(&world);
    assert_non_null(cache);
    for (uint32_t r = 0; r < trace.request_count; r++) {
        out[r] = (char)('0' + wf_sim_cache_serve(ops, cache, &trace, r));
        assert_true(ops->count(cache) <= capacity);
        uint32_t held = 0;
        for (uint32_t block = 0; block < trace.block_count; block++)
            held += ops->holds(cache, block);
        assert_int_equal(held, ops->count(cache));
    }
    out[trace.request_count] = '\0';
    ops->destroy(cache);
    wf_sim_trace_fini(&trace);
    return out;
}

static void lru_lets_the_oldest_go(void **state)
{
    (void)state;
    /* c finds a newer than b; b comes back, and c has gone. */
    assert_string_equal(hits(&wf_sim_lru, 2, "a b a c a b"), "001010");
    /* Of one request the end is the oldest. */
    assert_string_equal(hits(&wf_sim_lru, 3, "abc d abc"), "002");
    /* What is longer than the room keeps its beginning. */
    assert_string_equal(hits(&wf_sim_lru, 3, "abcde abcde"), "03");
}

static void lfuda_counts_and_ages(void **state)
{
    (void)state;
    /* a has K = 2, b has 1 and goes for c. */
    assert_string_equal(hits(&wf_sim_lfuda, 2, "a a b c a"), "01001");
    assert_string_equal(hits(&wf_sim_lru, 2, "a a b c a"), "01000");
    /* c comes with K = L + 1 = 2, as much as a, which is older: b takes a's place. */
    assert_string_equal(hits(&wf_sim_lfuda, 2, "a a b c b a"), "010000");
}

static void gdsf_keeps_what_costs_more(void **state)
{
    (void)state;
    /* With attention 1, q costs 2 and p 1: p goes for x, then x (K = 2) for p. */
    assert_string_equal(hits(&wf_sim_gdsf, 2, "pq x pq pq"), "0002");
    /* Where all cost the same, q is older. */
    assert_string_equal(hits(&wf_sim_lfuda, 2, "pq x pq"), "001");
}

static void arc_keeps_what_was_used_twice(void **state)
{
    (void)state;
    /* a is in T2 when b, c, d pass through T1. */
    assert_string_equal(hits(&wf_sim_arc, 3, "a a b c d a"), "010001");
    assert_string_equal(hits(&wf_sim_lru, 3, "a a b c d a"), "010000");
}

static void arc_learns_from_what_it_let_go(void **state)
{
    (void)state;
    /* b comes back out of B1: p grows to 1, so that a, then b go out of T2, and c stays in T1. */
    assert_string_equal(hits(&wf_sim_arc, 2, "a b a c b d c"), "0010001");
    assert_string_equal(hits(&wf_sim_lru, 2, "a b a c b d c"), "0010000");
}

static void s3fifo_admits_what_comes_back(void **state)
{
    (void)state;
    /* a comes back out of the ghost queue into the main one; d and e pass by. */
    assert_string_equal(hits(&wf_sim_s3fifo, 2, "a b c a d e a"), "0000001");
    assert_string_equal(hits(&wf_sim_lru, 2, "a b c a d e a"), "0000000");
}

static void s3fifo_wants_two_uses(void **state)
{
    (void)state;
    assert_string_equal(hits(&wf_sim_s3fifo, 2, "a a a b c a"), "011001");
    assert_string_equal(hits(&wf_sim_s3fifo, 2, "a a b c a"), "01000");
}

static void sieve_spares_in_place(void **state)
{
    (void)state;
    assert_string_equal(hits(&wf_sim_sieve, 2, "a b a c a b a"), "0010101");
    /* The hand stays behind a, whose mark it took: c goes for e and d for f, and not a. */
    assert_string_equal(hits(&wf_sim_sieve, 3, "a b c a d e f a"), "00010001");
    assert_string_equal(hits(&wf_sim_lru, 3, "a b c a d e f a"), "00010000");
}

static void wtinylfu_admits_by_frequency(void **state)
{
    (void)state;
    /* Room of one in the window, one behind it.  a is behind it; b and c are no more frequent. */
    assert_string_equal(hits(&wf_sim_wtinylfu, 2, "a b c a d a"), "000101");
    /* b was used four times: it takes a's place. */
    assert_string_equal(hits(&wf_sim_wtinylfu, 2, "a b c b b b d a b"), "000011001");
}

static void leaves_go_first(void **state)
{
    (void)state;
    /* b is the oldest end of a chain; a has children, and then is the newest. */
    assert_string_equal(hits(&wf_sim_lru_leaf, 3, "ab c a d a ab"), "001011");
    /* The parent of what went is the next end: a goes after b, before d. */
    assert_string_equal(hits(&wf_sim_lru_leaf, 3, "ab c d e de a"), "000010");
    /* A request does not push its own blocks out. */
    assert_string_equal(hits(&wf_sim_lru_leaf, 2, "x abc abc x"), "0020");
    assert_string_equal(hits(&wf_sim_lru_leaf, 3, "abcde abcde"), "03");
}

static void the_bound_knows_the_future(void **state)
{
    (void)state;
    /* c is not taken in: it never comes back. */
    assert_string_equal(hits(&wf_sim_belady, 2, "a b c a b"), "00011");
    /* One of the two has to go: b is wanted later, and c sooner. */
    assert_string_equal(hits(&wf_sim_belady, 2, "a b c a c b"), "000110");
    /* Of a chain that is too long it keeps the beginning. */
    assert_string_equal(hits(&wf_sim_belady, 2, "abcd x abcd"), "002");
}

/* A set that is used again and again among blocks that never are. */
static uint32_t hits_with_noise(const struct wf_sim_cache_ops *ops, uint64_t seed)
{
    struct wf_sim_trace trace;
    assert_int_equal(wf_sim_trace_init(&trace, 512), WEFT_OK);
    uint64_t random = 5, id = 1000;
    for (int i = 0; i < 60000; i++) {
        uint64_t block = i % 2 ? wf_random(&random) % 50 : id++;
        struct trace_request request = {.timestamp_s = i,
                                        .input_length = 512,
                                        .hash_ids = &block,
                                        .hash_count = 1};
        assert_int_equal(wf_sim_trace_add(&trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(&trace), WEFT_OK);
    struct wf_sim_world world = {.trace = &trace, .capacity = 60, .seed = seed, .speed = 1};
    struct wf_sim_cache *cache = ops->create(&world);
    assert_non_null(cache);
    uint32_t sum = 0;
    for (uint32_t r = 0; r < trace.request_count; r++)
        sum += wf_sim_cache_serve(ops, cache, &trace, r);
    ops->destroy(cache);
    wf_sim_trace_fini(&trace);
    return sum;
}

static void lhd_learns_what_is_dense(void **state)
{
    (void)state;
    /* LRU has the noise in half of its room; LHD learns that what was never hit is not dense. */
    uint32_t lru = hits_with_noise(&wf_sim_lru, 1), lhd = hits_with_noise(&wf_sim_lhd, 1);
    assert_in_range(lru, 12000, 16000);
    assert_in_range(lhd, 20000, 30000);
    assert_true(hits_with_noise(&wf_sim_lhd, 1) == lhd);
    assert_true(hits_with_noise(&wf_sim_lhd, 2) != lhd);
}

/* --------------------------------------------------------------------- the bound is the bound */

#define BLOCKS_MAX 8

/* The most hits that anybody could have: all that could be held after each request, whatever was
 * held before, closed under parents or not. */
static uint32_t best(const struct wf_sim_trace *trace, uint32_t capacity)
{
    int most[1 << BLOCKS_MAX], next[1 << BLOCKS_MAX];
    uint32_t sets = 1u << trace->block_count;
    memset(most, 0xff, sizeof most);
    most[0] = 0;
    for (uint32_t r = 0; r < trace->request_count; r++) {
        const struct wf_sim_request *asked = &trace->requests[r];
        memset(next, 0xff, sizeof next);
        for (uint32_t held = 0; held < sets; held++) {
            if (most[held] < 0)
                continue;
            uint32_t all = held, hit = 0;
            while (hit < asked->count && held & 1u << trace->blocks[asked->first + hit])
                hit++;
            for (uint32_t i = 0; i < asked->count; i++)
                all |= 1u << trace->blocks[asked->first + i];
            for (uint32_t keep = all;; keep = (keep - 1) & all) {
                if ((uint32_t)__builtin_popcount(keep) <= capacity &&
                    next[keep] < most[held] + (int)hit)
                    next[keep] = most[held] + (int)hit;
                if (!keep)
                    break;
            }
        }
        memcpy(most, next, sizeof most);
    }
    int out = 0;
    for (uint32_t held = 0; held < sets; held++)
        out = most[held] > out ? most[held] : out;
    return (uint32_t)out;
}

/* A request: some block's chain, of a tree that is drawn first. */
static void tree_trace(struct wf_sim_trace *trace, uint64_t *random)
{
    uint32_t parents[BLOCKS_MAX];
    uint32_t blocks = 3 + (uint32_t)(wf_random(random) % (BLOCKS_MAX - 2));
    for (uint32_t i = 0; i < blocks; i++)
        parents[i] = (uint32_t)(wf_random(random) % (i + 1)); /* itself: begins a chain */
    assert_int_equal(wf_sim_trace_init(trace, 16), WEFT_OK);
    for (int r = 0; r < 12; r++) {
        uint64_t chain[BLOCKS_MAX], reversed[BLOCKS_MAX];
        size_t count = 0;
        uint32_t at = (uint32_t)(wf_random(random) % blocks);
        for (;; at = parents[at]) {
            reversed[count++] = at;
            if (parents[at] == at)
                break;
        }
        for (size_t i = 0; i < count; i++)
            chain[i] = reversed[count - 1 - i];
        struct trace_request request = {.timestamp_s = r,
                                        .input_length = 16 * count,
                                        .hash_ids = chain,
                                        .hash_count = count};
        assert_int_equal(wf_sim_trace_add(trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(trace), WEFT_OK);
}

static void nobody_beats_the_bound_and_it_is_reached(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (int round = 0; round < 60; round++) {
        struct wf_sim_trace trace;
        tree_trace(&trace, &random);
        for (uint32_t capacity = 1; capacity <= 4; capacity++) {
            struct wf_sim_world world = {
                .trace = &trace, .capacity = capacity, .seed = 1, .speed = 1, .attention = 0.01};
            uint32_t most = best(&trace, capacity);
            for (size_t i = 0; wf_sim_caches[i]; i++) {
                const struct wf_sim_cache_ops *ops = wf_sim_caches[i];
                struct wf_sim_cache *cache = ops->create(&world);
                assert_non_null(cache);
                uint32_t sum = 0;
                for (uint32_t r = 0; r < trace.request_count; r++) {
                    sum += wf_sim_cache_serve(ops, cache, &trace, r);
                    assert_true(ops->count(cache) <= capacity);
                }
                ops->destroy(cache);
                assert_true(sum <= most);
                if (ops == &wf_sim_belady)
                    assert_int_equal(sum, most);
            }
        }
        wf_sim_trace_fini(&trace);
    }
}

/* --------------------------------------------------------------------------------------- shares */

/* Domains take what they want, by chance; the rule is core/share.h's, and the cache keeps to it. */
static void domains_have_their_part(void **state)
{
    (void)state;
    enum { CAPACITY = 100, REQUESTS = 4000 };
    static const char *const names[] = {"a", "b", "c"};
    const struct wf_share shares[] = {{.weight = 1, .floor = 40, .ceiling = UINT64_MAX},
                                      {.weight = 1, .ceiling = 30},
                                      {.weight = 1, .ceiling = UINT64_MAX, .class = 1}};
    struct wf_sim_trace trace;
    uint64_t random = 5, ids[8];
    assert_int_equal(wf_sim_trace_init(&trace, 512), WEFT_OK);
    for (int r = 0; r < REQUESTS; r++) {
        struct trace_request request = {.timestamp_s = r, .hash_ids = ids, .hash_count = 8};
        int domain = r < 3 ? r : (int)(wf_random(&random) % 3);
        for (size_t i = 0; i < 8; i++)
            ids[i] = wf_random(&random) % 12; /* the same ones for all: they share none */
        snprintf(request.domain, sizeof request.domain, "%s", names[domain]);
        assert_int_equal(wf_sim_trace_add(&trace, &request), WEFT_OK);
    }
    assert_int_equal(wf_sim_trace_finish(&trace), WEFT_OK);
    assert_int_equal(trace.domain_count, 3);
    const struct wf_sim_cache_ops *both[] = {&wf_sim_lru_leaf, &wf_sim_weft};
    for (int k = 0; k < 2; k++) {
        const struct wf_sim_cache_ops *ops = both[k];
        struct wf_sim_world world = {
            .trace = &trace, .capacity = CAPACITY, .seed = 1, .speed = 1, .shares = shares};
        struct wf_sim_cache *cache = ops->create(&world);
        assert_non_null(cache);
        bool full = false;
        for (uint32_t r = 0; r < REQUESTS; r++) {
            uint32_t before = ops->held(cache, 0), other = trace.requests[r].domain;
            wf_sim_cache_serve(ops, cache, &trace, r);
            uint32_t sum = ops->held(cache, 0) + ops->held(cache, 1) + ops->held(cache, 2);
            assert_int_equal(sum, ops->count(cache));
            assert_true(ops->held(cache, 1) <= 30);
            /* Nothing is free once there is no room: others use what one does not. */
            full |= sum == CAPACITY;
            assert_true(!full || sum == CAPACITY || other == 1);
            /* Nobody takes from a what is below its floor; nor from what it is due, which is more.
             */
            if (other != 0 && before <= 40 + 20)
                assert_true(ops->held(cache, 0) >= before);
        }
        assert_true(full && ops->held(cache, 0) >= 40);
        ops->destroy(cache);
    }
    wf_sim_trace_fini(&trace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(domains_have_their_part),
        cmocka_unit_test(lru_lets_the_oldest_go),
        cmocka_unit_test(lfuda_counts_and_ages),
        cmocka_unit_test(gdsf_keeps_what_costs_more),
        cmocka_unit_test(arc_keeps_what_was_used_twice),
        cmocka_unit_test(arc_learns_from_what_it_let_go),
        cmocka_unit_test(s3fifo_admits_what_comes_back),
        cmocka_unit_test(s3fifo_wants_two_uses),
        cmocka_unit_test(sieve_spares_in_place),
        cmocka_unit_test(wtinylfu_admits_by_frequency),
        cmocka_unit_test(leaves_go_first),
        cmocka_unit_test(the_bound_knows_the_future),
        cmocka_unit_test(lhd_learns_what_is_dense),
        cmocka_unit_test(nobody_beats_the_bound_and_it_is_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
