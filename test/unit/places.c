/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds what: by hand, and against a plain set over long runs of changes by chance.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "../support/random.h"
#include "core/places.h"

#define NODES 100u

static struct wf_places *places_of(uint64_t copies_max, uint32_t nodes_max, uint64_t seed)
{
    struct wf_places *p;
    const struct wf_places_options options = {copies_max, nodes_max, seed};
    assert_int_equal(wf_places_create(&options, &p), WEFT_OK);
    return p;
}

static struct wf_places_stats stats_of(const struct wf_places *p)
{
    struct wf_places_stats stats;
    wf_places_stats(p, &stats);
    return stats;
}

static void sound(const struct wf_places *p)
{
    if (wf_places_verify(p) != WEFT_OK)
        fail_msg("%s", wf_last_error());
}

static void a_copy_is_known_until_it_goes(void **state)
{
    (void)state;
    uint8_t one[32], two[32];
    uint16_t who[4];
    random_key(1, one);
    random_key(2, two);
    struct wf_places *p = places_of(100, 0, 1);
    assert_int_equal(wf_places_holders(p, one, WF_PLACES_CLASS_MAX, who, 4), 0);
    assert_true(wf_places_add(p, one, 0));
    assert_true(wf_places_add(p, one, 65534));
    assert_true(wf_places_add(p, one, 0));
    assert_int_equal(wf_places_holders(p, one, WF_PLACES_CLASS_MAX, who, 4), 2);
    assert_int_equal(who[0] + who[1], 65534);
    assert_int_equal(wf_places_holders(p, one, WF_PLACES_CLASS_MAX, who, 1), 1);
    assert_int_equal(wf_places_count(p, one, UINT32_MAX), 2);
    assert_int_equal(wf_places_count(p, two, UINT32_MAX), 0);
    assert_true(wf_places_holds(p, one, 65534) && !wf_places_holds(p, one, 1));
    assert_int_equal(stats_of(p).copies, 2);
    assert_false(wf_places_remove(p, two, 0));
    assert_false(wf_places_remove(p, one, 7));
    assert_true(wf_places_remove(p, one, 0));
    assert_false(wf_places_remove(p, one, 0));
    assert_int_equal(wf_places_count(p, one, 2), 1);
    assert_false(wf_places_add(p, one, 65535)); /* no node */
    assert_int_equal(stats_of(p).refused, 1);
    sound(p);
    wf_places_clear(p);
    assert_int_equal(wf_places_count(p, one, 2), 0);
    assert_int_equal(stats_of(p).copies, 0);
    wf_places_destroy(p);
    wf_places_destroy(NULL);
}

static void what_can_not_be_is_said(void **state)
{
    (void)state;
    struct wf_places *p;
    const struct wf_places_options none = {0, 0, 0}, many = {10, 65536, 0};
    assert_int_equal(wf_places_create(&none, &p), WEFT_E_INVALID);
    assert_int_equal(wf_places_create(&many, &p), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "65536 nodes"));
}

/* Far more holders than two buckets have room for. */
static void a_key_may_be_held_by_all(void **state)
{
    (void)state;
    enum { ALL = 3000 };
    static uint16_t who[ALL];
    static bool seen[ALL];
    uint8_t key[32];
    random_key(9, key);
    struct wf_places *p = places_of(2 * ALL, ALL, 2);
    for (uint16_t n = 0; n < ALL; n++)
        assert_true(wf_places_add(p, key, n));
    assert_int_equal(wf_places_holders(p, key, WF_PLACES_CLASS_MAX, who, ALL), ALL);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < ALL; i++) {
        assert_false(seen[who[i]]);
        seen[who[i]] = true;
    }
    sound(p);
    /* Out of the middle, so that what is behind must close up. */
    for (uint16_t n = 0; n < ALL; n += 2)
        assert_true(wf_places_remove(p, key, n));
    assert_int_equal(wf_places_count(p, key, UINT32_MAX), ALL / 2);
    for (uint16_t n = 1; n < ALL; n += 4)
        wf_places_leave(p, n);
    assert_int_equal(wf_places_count(p, key, UINT32_MAX), ALL / 4);
    while (!wf_places_sweep(p, 10))
        sound(p);
    assert_int_equal(wf_places_count(p, key, UINT32_MAX), ALL / 4);
    assert_int_equal(stats_of(p).copies, ALL / 4);
    for (uint16_t n = 3; n < ALL; n += 4)
        assert_true(wf_places_holds(p, key, n) && wf_places_remove(p, key, n));
    assert_int_equal(stats_of(p).copies, 0);
    sound(p);
    wf_places_destroy(p);
}

/* A table as full as it gets, and all that is in it leaves: as much finds room before any sweep. */
static void what_leaves_makes_room(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    uint8_t key[32];
    struct wf_places *p = places_of(MANY, 8, 3);
    for (uint64_t k = 0; k < MANY; k++) {
        random_key(k, key);
        assert_true(wf_places_add(p, key, (uint16_t)(k % 4)));
    }
    for (uint16_t n = 0; n < 4; n++)
        wf_places_leave(p, n);
    for (uint64_t k = 0; k < MANY; k++) {
        random_key(MANY / 2 + k, key); /* half of them are the same keys */
        assert_true(wf_places_add(p, key, (uint16_t)(4 + k % 4)));
    }
    sound(p);
    assert_int_equal(stats_of(p).refused, 0);
    while (!wf_places_sweep(p, 10))
        ;
    sound(p);
    assert_int_equal(stats_of(p).copies, MANY);
    for (uint64_t k = 0; k < MANY; k++) {
        random_key(MANY / 2 + k, key);
        assert_int_equal(wf_places_count(p, key, 2), 1);
        assert_true(wf_places_holds(p, key, (uint16_t)(4 + k % 4)));
    }
    wf_places_destroy(p);
}

/* ------------------------------------------------------------------ against a plain set */

#define KEYS 3000u

struct model {
    struct wf_places *places;
    bool holds[KEYS][NODES], leaving[NODES];
    uint64_t copies;
};

static void compare(const struct model *m)
{
    uint64_t copies = 0;
    for (uint32_t k = 0; k < KEYS; k++) {
        uint8_t key[32];
        uint16_t who[NODES];
        bool said[NODES] = {false};
        random_key(k, key);
        uint32_t count = wf_places_holders(m->places, key, WF_PLACES_CLASS_MAX, who, NODES);
        for (uint32_t i = 0; i < count; i++) {
            assert_true(who[i] < NODES && !said[who[i]]);
            said[who[i]] = true;
        }
        for (uint16_t n = 0; n < NODES; n++) {
            assert_int_equal(said[n], m->holds[k][n]);
            copies += said[n];
        }
        assert_int_equal(wf_places_count(m->places, key, UINT32_MAX), count);
        assert_int_equal(wf_places_count(m->places, key, 2), count < 2 ? count : 2);
    }
    struct wf_places_stats stats = stats_of(m->places);
    assert_int_equal(stats.copies - stats.leaving, copies);
    sound(m->places);
}

static void change(struct model *m, struct random_source *r)
{
    uint8_t key[32];
    uint32_t dice = random_below(r, 1000), k = random_below(r, KEYS);
    uint16_t node = (uint16_t)random_below(r, NODES);
    if (random_below(r, 4) == 0)
        k = random_below(r, 20); /* which all want */
    random_key(k, key);
    if (dice == 0) {
        wf_places_leave(m->places, node);
        m->leaving[node] = true;
        for (uint32_t i = 0; i < KEYS; i++)
            m->holds[i][node] = false;
    } else if (dice < 10) {
        if (wf_places_sweep(m->places, random_below(r, 200)))
            memset(m->leaving, 0, sizeof m->leaving);
    } else if (dice < 600) {
        bool added = wf_places_add(m->places, key, node);
        /* A node that left with nothing is not swept. */
        assert_true(!added || !m->leaving[node] || wf_places_of(m->places, node) == 1 ||
                    m->holds[k][node]);
        if (added)
            m->leaving[node] = false;
        assert_false(!added && m->holds[k][node]);
        m->holds[k][node] |= added;
    } else {
        assert_int_equal(wf_places_remove(m->places, key, node), m->holds[k][node]);
        m->holds[k][node] = false;
    }
}

static void it_is_a_set(void **state)
{
    (void)state;
    struct random_source r = random_seeded("places");
    static struct model m;
    /* Roomy, and so tight that much is refused. */
    static const uint64_t sizes[] = {200000, 30000, 5000, 200};
    for (unsigned s = 0; s < 4; s++) {
        memset(&m, 0, sizeof m);
        m.places = places_of(sizes[s], NODES, random_next(&r));
        for (int step = 0; step < 60000; step++) {
            change(&m, &r);
            if (step % 15000 == 14999)
                compare(&m);
        }
        wf_places_destroy(m.places);
    }
}

/* As many copies as it was made for find room, whoever holds how many. */
static void it_holds_what_it_was_made_for(void **state)
{
    (void)state;
    enum { COPIES = 200000 };
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct random_source r = {seed};
        struct wf_places *p = places_of(COPIES, NODES, seed);
        uint8_t key[32];
        for (uint64_t k = 0; stats_of(p).copies < COPIES; k++) {
            /* seed 1: one holder each; 2 … 5: that many; 6: mostly one, some all. */
            uint32_t holders = seed < 6 ? (uint32_t)seed : 1;
            if (seed == 6)
                holders = random_below(&r, 10) ? 1 + random_below(&r, 3) : 1 + random_below(&r, 99);
            random_key(k, key);
            for (uint32_t i = 0; i < holders && stats_of(p).copies < COPIES; i++)
                (void)wf_places_add(p, key, (uint16_t)random_below(&r, NODES));
            if (stats_of(p).refused > COPIES / 10)
                break;
        }
        struct wf_places_stats stats = stats_of(p);
        print_message("# seed %d: load %.3f, %.2f bytes a copy, %.2f moves a copy, refused %llu\n",
                      (int)seed, stats.load, (double)stats.bytes / (double)stats.copies,
                      (double)stats.moves / (double)stats.copies,
                      (unsigned long long)stats.refused);
        assert_int_equal(stats.copies, COPIES);
        assert_true(stats.load > 0.899 && stats.bytes < 9 * stats.copies);
        /* Full pages are harder to place. */
        assert_true(stats.refused <= (seed < 4 ? 0 : COPIES / 50));
        sound(p);
        wf_places_destroy(p);
    }
}

/* Full means refused, and what was there is still there. */
static void full_loses_nothing(void **state)
{
    (void)state;
    enum { COPIES = 10000 };
    static bool in[2 * COPIES];
    struct wf_places *p = places_of(COPIES, NODES, 5);
    uint8_t key[32];
    uint64_t refused = 0;
    for (uint64_t k = 0; k < 2 * COPIES; k++) {
        random_key(k, key);
        in[k] = wf_places_add(p, key, (uint16_t)(k % NODES));
        refused += !in[k];
    }
    assert_true(refused > 0 && refused == stats_of(p).refused);
    for (uint64_t k = 0; k < 2 * COPIES; k++) {
        random_key(k, key);
        assert_int_equal(wf_places_holds(p, key, (uint16_t)(k % NODES)), in[k]);
    }
    print_message("# full at %.3f of all words\n", stats_of(p).load);
    sound(p);
    wf_places_destroy(p);
}

/* ------------------------------------------------------------------------- prefixes */

#define CHAIN 1000u

static void prefixes_by_hand(void **state)
{
    (void)state;
    static uint8_t keys[CHAIN][32];
    uint32_t blocks[8];
    struct wf_places *p = places_of(10000, 8, 3);
    for (uint32_t k = 0; k < CHAIN; k++)
        random_key(1000 + k, keys[k]);
    assert_int_equal(wf_places_prefixes(p, keys, CHAIN, 1, WF_PLACES_CLASS_MAX, NULL, blocks), 0);
    for (uint32_t k = 0; k < CHAIN; k++) {
        (void)wf_places_add(p, keys[k], 0); /* all of it */
        if (k < 10)
            (void)wf_places_add(p, keys[k], 1);
        if (k != 5)
            (void)wf_places_add(p, keys[k], 2); /* a hole */
        if (k > 0)
            (void)wf_places_add(p, keys[k], 3); /* not even the first */
        if (k < 77)
            (void)wf_places_add(p, keys[k], 4);
    }
    assert_int_equal(wf_places_prefixes(p, keys, CHAIN, 1, WF_PLACES_CLASS_MAX, NULL, blocks),
                     CHAIN);
    assert_true(blocks[0] == CHAIN && blocks[1] == 10 && blocks[2] == 5 && blocks[3] == 0 &&
                blocks[4] == 77 && blocks[5] == 0);
    assert_int_equal(wf_places_prefixes(p, keys, 7, 1, WF_PLACES_CLASS_MAX, NULL, blocks), 7);
    assert_true(blocks[0] == 7 && blocks[1] == 7 && blocks[2] == 5);
    assert_int_equal(wf_places_prefixes(p, keys, 0, 1, WF_PLACES_CLASS_MAX, NULL, blocks), 0);
    assert_int_equal(blocks[0], 0);
    const uint64_t among = 1u << 1 | 1u << 4;
    assert_int_equal(wf_places_prefixes(p, keys, CHAIN, 1, WF_PLACES_CLASS_MAX, &among, blocks),
                     77);
    assert_true(blocks[0] == 0 && blocks[1] == 10 && blocks[4] == 77);
    wf_places_leave(p, 4);
    assert_int_equal(wf_places_prefixes(p, keys, CHAIN, 1, WF_PLACES_CLASS_MAX, &among, blocks),
                     10);
    assert_int_equal(blocks[4], 0);
    wf_places_destroy(p);
}

/* By chance, every stride; nodes hold no block without its parent, but with stride 1 they may. */
static void prefixes_are_those_of_a_plain_set(void **state)
{
    (void)state;
    struct random_source r = random_seeded("places: prefixes");
    static uint8_t keys[CHAIN][32];
    static uint32_t blocks[NODES], length[NODES];
    for (int round = 0; round < 60; round++) {
        uint32_t count = 1 + random_below(&r, CHAIN), longest = 0;
        uint32_t nodes = 1 + random_below(&r, NODES), hole = random_below(&r, count);
        uint32_t stride = round % 3 == 0 ? 1 : random_below(&r, 50);
        struct wf_places *p = places_of(300000, NODES, random_next(&r));
        for (uint32_t k = 0; k < count; k++)
            random_key(random_next(&r), keys[k]);
        for (uint32_t n = 0; n < NODES; n++) {
            length[n] = n < nodes ? random_below(&r, count + 1) : 0;
            if (random_below(&r, 4) == 0)
                length[n] = count;
            for (uint32_t k = 0; k < length[n]; k++) {
                if (stride != 1 || k != hole)
                    assert_true(wf_places_add(p, keys[k], (uint16_t)n));
            }
            if (stride == 1 && length[n] > hole)
                length[n] = hole;
            longest = length[n] > longest ? length[n] : longest;
        }
        assert_int_equal(wf_places_prefixes(p, keys, count, stride, WF_PLACES_CLASS_MAX, NULL,
                                            blocks),
                         longest);
        for (uint32_t n = 0; n < NODES; n++)
            assert_int_equal(blocks[n], length[n]);
        wf_places_destroy(p);
    }
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

static double prefixes_us(const struct wf_places *p, uint64_t first, uint32_t count,
                          uint32_t stride, uint32_t chains)
{
    enum { TIMES = 101 };
    static uint8_t keys[8192][32];
    static uint32_t blocks[16];
    double took[TIMES];
    for (uint32_t t = 0; t < TIMES; t++) {
        for (uint32_t k = 0; k < count; k++)
            random_key(first + t % chains * 8192 + k, keys[k]);
        double began = now_us();
        uint32_t longest = wf_places_prefixes(p, keys, count, stride, WF_PLACES_CLASS_MAX, NULL,
                                              blocks);
        took[t] = now_us() - began;
        assert_int_equal(longest, count);
    }
    qsort(took, TIMES, sizeof *took, by_value);
    return took[TIMES / 2];
}

static void how_fast_it_is(void **state)
{
    (void)state;
    enum { COPIES = 2000000, CHAINS = 8 };
    struct wf_places *p = places_of(COPIES, 16, 7);
    uint8_t key[32];
    /* Chains of 8,192 blocks: the first quarter on all of 16 nodes, half on four, all on one. */
    for (uint64_t k = 0; k < CHAINS * 8192; k++) {
        random_key(k, key);
        for (uint16_t n = 0; n < 16; n++) {
            if (n == 0 || (n < 4 && k % 8192 < 4096) || k % 8192 < 2048)
                (void)wf_places_add(p, key, n);
        }
    }
    uint64_t next = CHAINS * 8192;
    while (stats_of(p).copies < COPIES * 8 / 10) {
        random_key(next++, key);
        (void)wf_places_add(p, key, (uint16_t)(next % 16));
    }
    double began = now_us(), copies = (double)stats_of(p).copies;
    while (stats_of(p).copies < COPIES) {
        random_key(next++, key);
        (void)wf_places_add(p, key, (uint16_t)(next % 16));
    }
    double took = now_us() - began;
    print_message("# add, from 72 to 90 %% full: %.0f ns\n", took * 1e3 / (COPIES - copies));
    static const uint32_t counts[] = {64, 512, 2048, 8192};
    for (int i = 0; i < 4; i++) {
        print_message("# prefixes of %u keys on 16 nodes: p50 %.1f us; by halves: %.1f us\n",
                      counts[i], prefixes_us(p, 0, counts[i], 1, CHAINS),
                      prefixes_us(p, 0, counts[i], 0, CHAINS));
    }
    wf_places_destroy(p);
}

/* A copy's class changes in place, and who asks for a good one sees no worse. */
static void classes(void **state)
{
    (void)state;
    struct wf_places *p = places_of(1000, 100, 5);
    uint8_t key[32], keys[4][32];
    uint16_t who[8];
    uint32_t blocks[100];
    random_key(1, key);
    assert_true(wf_places_best(p, key) > WF_PLACES_CLASS_MAX);
    for (uint16_t n = 0; n < 6; n++) /* two pages */
        assert_true(wf_places_add_as(p, key, n, n % 3 + 1));
    assert_int_equal(wf_places_best(p, key), 1);
    assert_int_equal(wf_places_holders(p, key, 0, who, 8), 0);
    assert_int_equal(wf_places_holders(p, key, 2, who, 8), 4);
    assert_int_equal(wf_places_holders(p, key, 3, who, 8), 6);
    assert_true(wf_places_add_as(p, key, 5, 0));
    assert_int_equal(wf_places_best(p, key), 0);
    assert_int_equal(wf_places_class(p, key, 5), 0);
    assert_int_equal(wf_places_class(p, key, 4), 2);
    assert_true(wf_places_class(p, key, 6) > WF_PLACES_CLASS_MAX);
    assert_int_equal(wf_places_count(p, key, UINT32_MAX), 6);
    assert_int_equal(wf_places_of(p, 5), 1);
    /* What fills a hole has the class that it had. */
    assert_true(wf_places_remove(p, key, 0));
    for (uint16_t n = 1; n < 6; n++)
        assert_int_equal(wf_places_class(p, key, n), n == 5 ? 0 : n % 3 + 1);
    for (uint32_t i = 0; i < 4; i++) {
        random_key(100 + i, keys[i]);
        assert_true(wf_places_add_as(p, keys[i], 7, i == 2 ? 3 : 0));
    }
    assert_int_equal(wf_places_prefixes(p, keys, 4, 1, 3, NULL, blocks), 4);
    assert_int_equal(wf_places_prefixes(p, keys, 4, 1, 2, NULL, blocks), 2);
    assert_int_equal(blocks[7], 2);
    sound(p);
    wf_places_leave(p, 5);
    assert_int_equal(wf_places_best(p, key), 1);
    wf_places_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_is_known_until_it_goes),
        cmocka_unit_test(what_can_not_be_is_said),
        cmocka_unit_test(a_key_may_be_held_by_all),
        cmocka_unit_test(what_leaves_makes_room),
        cmocka_unit_test(classes),
        cmocka_unit_test(it_is_a_set),
        cmocka_unit_test(it_holds_what_it_was_made_for),
        cmocka_unit_test(full_loses_nothing),
        cmocka_unit_test(prefixes_by_hand),
        cmocka_unit_test(prefixes_are_those_of_a_plain_set),
        cmocka_unit_test(how_fast_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
