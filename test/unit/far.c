/* SPDX-License-Identifier: Apache-2.0
 *
 * The far table: against a set, at its edges, and read by threads while it changes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../support/random.h"
#include "shm/far.h"

#define BLOCKS 4096
#define PROBE_ROOM (64 * WF_BUCKET_ENTRIES) /* entries that one home has room for */

static int setup(void **state)
{
    struct wf_far *far = calloc(1, sizeof *far);
    assert_non_null(far);
    uint64_t bytes = wf_far_bytes(BLOCKS, &far->bucket_count);
    far->buckets = aligned_alloc(64, bytes);
    assert_non_null(far->buckets);
    memset(far->buckets, 0, bytes);
    *state = far;
    return 0;
}

static int teardown(void **state)
{
    struct wf_far *far = *state;
    free(far->buckets);
    free(far);
    return 0;
}

static bool is_empty(const struct wf_far *far)
{
    for (uint64_t b = 0; b < far->bucket_count; b++) {
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++)
            if (far->buckets[b].entry[i])
                return false;
        if (far->buckets[b].passed)
            return false;
    }
    return true;
}

static void test_size(void **state)
{
    (void)state;
    uint64_t buckets;
    assert_int_equal(wf_far_bytes(0, &buckets), 0);
    assert_int_equal(buckets, 0);
    static const uint32_t sizes[] = {1, 7, 1000, 1000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        uint64_t bytes = wf_far_bytes(sizes[i], &buckets);
        assert_int_equal(bytes, buckets * sizeof(struct wf_bucket));
        assert_true((buckets - 64) * WF_BUCKET_ENTRIES * 4 >= (uint64_t)sizes[i] * 5 - 4);
        assert_true(bytes <= (uint64_t)sizes[i] * 12 + 65 * sizeof(struct wf_bucket));
    }
}

static void test_no_table(void **state)
{
    (void)state;
    struct wf_far far = {0};
    uint8_t key[32];
    random_key(1, key);
    assert_int_equal(wf_far_find(&far, key), -1);
    assert_false(wf_far_set(&far, key, 0, WEFT_LOSSLESS));
    wf_far_clear(&far, key);
}

/* Twice as many keys as fit come and go; at most BLOCKS are there at a time, at times all. */
static void test_random(void **state)
{
    struct wf_far *far = *state;
    struct random_source r = random_seeded("far");
    static int tier[2 * BLOCKS];
    uint32_t there = 0;
    uint8_t key[32];
    for (uint32_t i = 0; i < 2 * BLOCKS; i++)
        tier[i] = -1;
    for (uint32_t i = 0; i < 300000; i++) {
        uint32_t k = random_below(&r, 2 * BLOCKS), fill = i / 30000 % 2 ? 90 : 30;
        random_key(k, key);
        assert_int_equal(wf_far_find(far, key), tier[k]);
        if (random_below(&r, 100) >= fill) {
            wf_far_clear(far, key);
            there -= tier[k] >= 0;
            tier[k] = -1;
        } else if (tier[k] >= 0 || there < BLOCKS) {
            there += tier[k] < 0;
            tier[k] = random_below(&r, 50) ? (int)random_below(&r, 8) : (int)WF_FAR_TIER_MAX;
            assert_true(wf_far_set(far, key, (unsigned)tier[k], WEFT_LOSSLESS));
        }
        assert_int_equal(wf_far_find(far, key), tier[k]);
    }
    for (uint32_t k = 0; k < 2 * BLOCKS; k++) {
        random_key(k, key);
        assert_int_equal(wf_far_find(far, key), tier[k]);
        wf_far_clear(far, key);
    }
    assert_true(is_empty(far));
}

/* Keys of one home: they spill into the next buckets, are found there, and leave no trace. */
static void key_at_home(uint32_t number, uint8_t key[32])
{
    random_key(number, key);
    memset(key, 0x5a, 8);
}

static void test_one_home(void **state)
{
    struct wf_far *far = *state;
    uint8_t key[32];
    for (uint32_t i = 0; i <= PROBE_ROOM; i++) {
        key_at_home(i, key);
        assert_int_equal(wf_far_set(far, key, i % 8, WEFT_LOSSLESS), i < PROBE_ROOM);
    }
    assert_int_equal(wf_far_find(far, key), -1); /* the one too many */
    key_at_home(3, key);
    enum weft_quality quality;
    assert_true(wf_far_set(far, key, 7, WEFT_ECONOMY));
    assert_int_equal(wf_far_look(far, key, &quality), 7);
    assert_int_equal(quality, WEFT_ECONOMY);
    assert_true(wf_far_set(far, key, 7, WEFT_LOSSLESS)); /* no room is needed for another tier */
    assert_int_equal(wf_far_look(far, key, &quality), 7);
    assert_int_equal(quality, WEFT_LOSSLESS);
    assert_true(wf_far_set(far, key, 3, WEFT_LOSSLESS));
    for (uint32_t i = 0; i < PROBE_ROOM; i += 2) {
        key_at_home(i, key);
        wf_far_clear(far, key);
    }
    for (uint32_t i = 0; i < PROBE_ROOM; i++) {
        key_at_home(i, key);
        assert_int_equal(wf_far_find(far, key), i % 2 ? (int)(i % 8) : -1);
        wf_far_clear(far, key);
    }
    assert_true(is_empty(far));
}

/* A tag of zeros is a tag. */
static void test_tag_of_zeros(void **state)
{
    struct wf_far *far = *state;
    uint8_t key[32] = {0};
    assert_int_equal(wf_far_find(far, key), -1);
    assert_true(wf_far_set(far, key, 0, WEFT_LOSSLESS));
    assert_int_equal(wf_far_find(far, key), 0);
    wf_far_clear(far, key);
    assert_true(is_empty(far));
}

/* Any bytes give an answer within bounds; the addresses are ASan's to watch. */
static void test_nonsense(void **state)
{
    struct wf_far *far = *state;
    struct random_source r = random_seeded("far nonsense");
    uint8_t key[32];
    for (uint64_t b = 0; b < far->bucket_count; b++) {
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++)
            far->buckets[b].entry[i] = random_next(&r);
        far->buckets[b].passed = random_next(&r);
    }
    memset(&far->buckets[far->bucket_count / 2], 0xff, 64);
    for (uint32_t i = 0; i < 20000; i++) {
        random_key(i, key);
        if (i % 2)
            memset(key, 0xff, 8); /* the last home */
        int tier = wf_far_find(far, key);
        assert_true(tier >= -1 && tier <= (int)WF_FAR_TIER_MAX);
    }
}

/* ---------------------------------------------------------------------------------- threads */

#define READERS 3
#define STAY 40  /* keys that are there all the time, in few homes */
#define ROAM 120 /* keys that come and go among them */

struct shared {
    struct wf_far *far;
    _Atomic bool stop;
    _Atomic uint64_t looks, lost, garbage;
};

static void key_among_few_homes(uint32_t number, uint8_t key[32])
{
    random_key(number, key);
    memset(key, 0, 8);
    key[3] = (uint8_t)(number % 2); /* neighbours: homes are 32 bits scaled to the buckets */
}

/* Keys that stay are on tier 1 or 2, those that roam on 3 or 4. */
static void *look_along(void *context)
{
    struct shared *s = context;
    uint64_t looks = 0, lost = 0, garbage = 0;
    uint8_t key[STAY + ROAM][32];
    for (uint32_t k = 0; k < STAY + ROAM; k++)
        key_among_few_homes(k, key[k]);
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        for (uint32_t k = 0; k < STAY; k++, looks++) {
            int tier = wf_far_find(s->far, key[k]);
            lost += tier == -1;
            garbage += tier != -1 && tier != 1 && tier != 2;
        }
        for (uint32_t k = STAY; k < STAY + ROAM; k++, looks++) {
            int tier = wf_far_find(s->far, key[k]);
            garbage += tier != -1 && tier != 3 && tier != 4;
        }
    }
    atomic_fetch_add(&s->looks, looks);
    atomic_fetch_add(&s->lost, lost);
    atomic_fetch_add(&s->garbage, garbage);
    return NULL;
}

static void test_readers_and_an_owner(void **state)
{
    struct shared s = {.far = *state};
    struct random_source r = random_seeded("far threads");
    pthread_t threads[READERS];
    struct timespec now, end;
    uint64_t changes = 0;
    uint8_t key[32];
    /* Some roamers first, so that those that stay lie behind gaps that open and close. */
    for (uint32_t k = STAY; k < STAY + ROAM / 2; k++) {
        key_among_few_homes(k, key);
        assert_true(wf_far_set(s.far, key, 3, WEFT_LOSSLESS));
    }
    for (uint32_t k = 0; k < STAY; k++) {
        key_among_few_homes(k, key);
        assert_true(wf_far_set(s.far, key, 1, WEFT_LOSSLESS));
    }
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_along, &s), 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += 1;
    do {
        for (int i = 0; i < 1000; i++, changes++) {
            uint32_t k = random_below(&r, STAY + ROAM);
            key_among_few_homes(k, key);
            if (k < STAY)
                assert_true(wf_far_set(s.far, key, 1 + random_below(&r, 2), WEFT_LOSSLESS));
            else if (random_below(&r, 2))
                assert_true(wf_far_set(s.far, key, 3 + random_below(&r, 2), WEFT_LOSSLESS));
            else
                wf_far_clear(s.far, key);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    atomic_store(&s.stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("# %llu looks, %llu changes\n", (unsigned long long)s.looks,
                  (unsigned long long)changes);
    assert_int_equal(s.lost, 0);
    assert_int_equal(s.garbage, 0);
    assert_true(s.looks > 1000 && changes > 1000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_no_table),
        TEST(test_random),
        TEST(test_one_home),
        TEST(test_tag_of_zeros),
        TEST(test_nonsense),
        TEST(test_readers_and_an_owner),
    };
    return cmocka_run_group_tests_name("far table", tests, NULL, NULL);
}
