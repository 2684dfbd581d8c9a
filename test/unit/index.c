/* SPDX-License-Identifier: Apache-2.0
 *
 * The index: find, insert, remove, match, and what a reader makes of a segment that lies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "../support/random.h"
#include "shm/index.h"
#include "sys/clock.h"

#define SLOTS 4096

struct segment {
    void *memory;
    uint64_t bytes;
    struct wf_index index;
};

static int setup(void **state)
{
    struct segment *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->bytes = wf_index_bytes(SLOTS, 0);
    s->memory = aligned_alloc(WF_PAGE, s->bytes);
    assert_non_null(s->memory);
    memset(s->memory, 0, s->bytes);
    assert_int_equal(wf_index_format(s->memory, s->bytes,
                                     &(struct wf_index_shape){.slots_max = SLOTS,
                                                              .pool_bytes = (uint64_t)1 << 30,
                                                              .epoch = 7},
                                     &s->index),
                     WEFT_OK);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct segment *s = *state;
    wf_index_retire(&s->index);
    free(s->memory);
    free(s);
    return 0;
}

static void publish(struct segment *s, uint32_t slot, const uint8_t key[32])
{
    struct wf_desc *desc = &s->index.desc[slot];
    wf_desc_key_write(desc, key);
    uint32_t generation = wf_word_generation(
        atomic_load_explicit(&desc->word, memory_order_relaxed));
    atomic_store_explicit(&desc->word, wf_word(generation, 0, WF_SLOT_COMMITTED),
                          memory_order_release);
    assert_true(wf_index_insert(&s->index, slot));
}

static void withdraw(struct segment *s, uint32_t slot)
{
    struct wf_desc *desc = &s->index.desc[slot];
    uint32_t generation = wf_word_generation(
        atomic_load_explicit(&desc->word, memory_order_relaxed));
    wf_index_remove(&s->index, slot);
    atomic_store_explicit(&desc->word, wf_word(generation + 1, 0, WF_SLOT_FREE),
                          memory_order_release);
}

static uint32_t find(const struct segment *s, const uint8_t key[32])
{
    struct wf_found found;
    return wf_index_find(&s->index, key, &found) ? found.slot : WF_SLOT_NONE;
}

static bool is_empty(const struct segment *s)
{
    for (uint64_t b = 0; b < s->index.bucket_count; b++) {
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++)
            if (s->index.buckets[b].entry[i])
                return false;
        if (s->index.buckets[b].passed)
            return false;
    }
    return true;
}

/* Full, half and empty in turns; a slot never answers for a key that is not its own. */
static void test_random(void **state)
{
    struct segment *s = *state;
    struct random_source r = random_seeded("index");
    static uint64_t number[SLOTS]; /* key of each slot; 0: none */
    uint64_t serial = 0;
    uint8_t key[32];
    memset(number, 0, sizeof number);
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t slot = random_below(&r, SLOTS), want = i / 20000 % 3 ? 90 : 40;
        if (number[slot]) {
            random_key(number[slot], key);
            assert_int_equal(find(s, key), slot);
            if (random_below(&r, 100) >= want) {
                withdraw(s, slot);
                assert_int_equal(find(s, key), WF_SLOT_NONE);
                number[slot] = 0;
            }
        } else if (random_below(&r, 100) < want) {
            number[slot] = ++serial;
            random_key(number[slot], key);
            publish(s, slot, key);
            assert_int_equal(find(s, key), slot);
        }
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        random_key(number[slot] ? number[slot] : serial + 1 + slot, key);
        assert_int_equal(find(s, key), number[slot] ? slot : WF_SLOT_NONE);
        if (number[slot])
            withdraw(s, slot);
    }
    assert_true(is_empty(s));
}

static void test_every_slot(void **state)
{
    struct segment *s = *state;
    uint8_t key[32];
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        random_key(slot + 1, key);
        publish(s, slot, key);
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        random_key(slot + 1, key);
        assert_int_equal(find(s, key), slot);
    }
}

/* Keys that agree in their first n bytes, hence in bucket and, from 16 on, in tag: only the whole
 * comparison tells them apart. */
static void test_keys_that_begin_alike(void **state)
{
    struct segment *s = *state;
    for (uint32_t equal = 8; equal < 32; equal++) {
        uint8_t a[32], b[32];
        random_key(equal, a);
        random_key(1000 + equal, b);
        memcpy(b, a, equal);
        b[equal] = (uint8_t)~a[equal];
        publish(s, 2 * equal, a);
        assert_int_equal(find(s, b), WF_SLOT_NONE);
        publish(s, 2 * equal + 1, b);
        assert_int_equal(find(s, a), 2 * equal);
        assert_int_equal(find(s, b), 2 * equal + 1);
        withdraw(s, 2 * equal);
        assert_int_equal(find(s, a), WF_SLOT_NONE);
        assert_int_equal(find(s, b), 2 * equal + 1);
    }
}

/* Every single bit of a key counts. */
static void test_every_bit_counts(void **state)
{
    struct segment *s = *state;
    uint8_t key[32];
    random_key(5, key);
    publish(s, 17, key);
    for (int bit = 0; bit < 256; bit++) {
        key[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_equal(find(s, key), WF_SLOT_NONE);
        key[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_int_equal(find(s, key), 17);
}

/* All keys in one bucket: they spill into the next ones, are found there, and leave no trace. */
static void test_overflow(void **state)
{
    struct segment *s = *state;
    const uint32_t room = 64 * WF_BUCKET_ENTRIES;
    uint8_t key[32], home[32];
    random_key(1, home);
    for (uint32_t slot = 0; slot <= room; slot++) {
        random_key(100 + slot, key);
        memcpy(key, home, 8);
        if (slot < room) {
            publish(s, slot, key);
            continue;
        }
        wf_desc_key_write(&s->index.desc[slot],
                          key); /* the neighbourhood is full: said, not lost */
        assert_false(wf_index_insert(&s->index, slot));
    }
    for (uint32_t step = 0; step < 2; step++) /* all, then those left when every other has gone */
        for (uint32_t slot = 0; slot < room; slot++) {
            random_key(100 + slot, key);
            memcpy(key, home, 8);
            assert_int_equal(find(s, key), step && slot % 2 ? WF_SLOT_NONE : slot);
            if (!step && slot % 2)
                continue;
            if (step == 0 && slot + 1 < room) {
                random_key(100 + slot + 1, key);
                memcpy(key, home, 8);
                assert_int_equal(find(s, key), slot + 1);
                withdraw(s, slot + 1);
                assert_int_equal(find(s, key), WF_SLOT_NONE);
                publish(s, slot + 1, key);
                withdraw(s, slot + 1);
                slot++;
            }
        }
    for (uint32_t slot = 0; slot < room; slot += 2)
        withdraw(s, slot);
    assert_true(is_empty(s));
}

/* Binary search and a walk from the front agree for every length of the present prefix. */
static void test_match(void **state)
{
    struct segment *s = *state;
    uint8_t keys[70][32];
    for (uint32_t i = 0; i < 70; i++)
        random_key(500 + i, keys[i]);
    for (uint32_t present = 0; present <= 70; present++) {
        for (uint32_t count = 0; count <= 70; count++)
            assert_int_equal(wf_index_match(&s->index, keys[0], count),
                             count < present ? count : present);
        if (present < 70)
            publish(s, present, keys[present]);
    }
}

/* What is being asked about counts while the asking takes no longer than a moment, then it is a
 * miss: never a hang. */
static void test_evicting_is_a_miss_in_the_end(void **state)
{
    struct segment *s = *state;
    uint8_t key[32];
    random_key(1, key);
    publish(s, 3, key);
    atomic_store_explicit(&s->index.desc[3].word, wf_word(0, 0, WF_SLOT_EVICTING),
                          memory_order_seq_cst);
    assert_int_equal(find(s, key), WF_SLOT_NONE);
    atomic_store_explicit(&s->index.desc[3].word, wf_word(0, 0, WF_SLOT_COMMITTED),
                          memory_order_seq_cst);
    assert_int_equal(find(s, key), 3);
    static const enum wf_slot_state others[] = {WF_SLOT_FREE, WF_SLOT_RESERVED, WF_SLOT_DUPLICATE,
                                                WF_SLOT_DEAD};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        atomic_store_explicit(&s->index.desc[3].word, wf_word(0, 0, others[i]),
                              memory_order_seq_cst);
        assert_int_equal(find(s, key), WF_SLOT_NONE);
    }
}

static void test_alive(void **state)
{
    struct segment *s = *state;
    struct wf_index reader;
    assert_int_equal(wf_index_attach(s->memory, s->bytes, &reader), WEFT_OK);
    assert_true(wf_index_alive(&reader));
    wf_index_retire(&s->index);
    assert_false(wf_index_alive(&reader));
    assert_int_equal(wf_index_format(s->memory, s->bytes,
                                     &(struct wf_index_shape){.slots_max = SLOTS,
                                                              .pool_bytes = (uint64_t)1 << 30,
                                                              .epoch = 8},
                                     &s->index),
                     WEFT_OK);
    assert_true(wf_index_alive(&reader));
}

/* ------------------------------------------------------------------------- a segment that lies */

static void reseal(struct wf_index_header *header)
{
    header->checksum = XXH3_64bits(header, offsetof(struct wf_index_header, checksum));
}

#define LIE(field, value)                                                                          \
    do {                                                                                           \
        struct wf_index_header kept = *header;                                                     \
        header->field = (value);                                                                   \
        assert_int_equal(wf_index_attach(s->memory, s->bytes, &reader), WEFT_E_PROTOCOL);          \
        if (offsetof(struct wf_index_header, field) != offsetof(struct wf_index_header, checksum)) \
            reseal(header);                                                                        \
        assert_int_equal(wf_index_attach(s->memory, s->bytes, &reader), WEFT_E_PROTOCOL);          \
        assert_string_not_equal(weft_last_error(), "");                                            \
        *header = kept;                                                                            \
    } while (0)

static void test_attach_refuses(void **state)
{
    struct segment *s = *state;
    struct wf_index_header *header = s->memory;
    struct wf_index reader;
    LIE(magic, header->magic + 1);
    LIE(version, header->version + 1);
    LIE(slots_max, 0);
    LIE(slots_max, header->slots_max + 1);
    LIE(slots_max, header->slots_max - 1);
    LIE(slots_max, UINT32_MAX);
    LIE(slots_max, UINT32_MAX - 1);
    LIE(bytes, header->bytes + WF_PAGE);
    LIE(bytes, header->bytes - 1);
    LIE(bytes, 0);
    LIE(desc_offset, 0);
    LIE(desc_offset, header->desc_offset + 64);
    LIE(bucket_offset, header->bucket_offset - 64);
    LIE(bucket_offset, header->bucket_offset + 64);
    LIE(bucket_offset, UINT64_MAX - 63);
    LIE(bucket_count, 0);
    LIE(bucket_count, header->bucket_count - 1);
    LIE(bucket_count, header->bucket_count + 1);
    LIE(bucket_count, UINT64_MAX);
    LIE(granule_bytes, 2 * WF_GRANULE);
    LIE(checksum, header->checksum + 1);
    for (uint64_t bytes = 0; bytes < s->bytes; bytes += bytes < WF_PAGE ? 97 : WF_PAGE)
        assert_int_equal(wf_index_attach(s->memory, bytes, &reader), WEFT_E_PROTOCOL);
    assert_int_equal(wf_index_attach(s->memory, s->bytes, &reader), WEFT_OK);
}

/* A header that is whole, and everything behind it noise: no look leaves the segment (ASan says).
 */
static void test_noise_is_harmless(void **state)
{
    struct segment *s = *state;
    struct random_source r = random_seeded("index, noise");
    struct wf_index reader;
    uint8_t keys[16][32];
    assert_int_equal(wf_index_attach(s->memory, s->bytes, &reader), WEFT_OK);
    for (int round = 0; round < 20; round++) {
        for (uint64_t at = WF_PAGE; at < s->bytes; at += 8) {
            uint64_t noise = random_next(&r);
            if (round % 2) /* slots in range more often, and counts that let the search go on */
                noise &= 0xffffffff00001fffu;
            memcpy((char *)s->memory + at, &noise, 8);
        }
        for (int i = 0; i < 500; i++) {
            for (int k = 0; k < 16; k++)
                random_key(random_next(&r), keys[k]);
            memset(keys[15], i % 2 ? 0xff : 0, 32); /* the last and the first bucket */
            assert_in_range(wf_index_match(&reader, keys[0], 16), 0, 16);
            struct wf_found found;
            if (wf_index_find(&reader, keys[15], &found))
                assert_true(found.slot < SLOTS);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

/* What a block on its way from below goes through, again and again, until its checksum lies where
 * its progress was: that is no progress, and says neither "lost" nor anything else. */
#define GENERATIONS 1000000u
static _Atomic bool arriving;

static void *arrive(void *context)
{
    struct segment *s = context;
    struct wf_desc *desc = &s->index.desc[0];
    _Atomic uint32_t *progress = wf_progress_word(desc);
    for (uint32_t generation = 1; generation < GENERATIONS; generation++) {
        atomic_store_explicit(&desc->checksum, 0, memory_order_relaxed);
        atomic_store_explicit(&desc->word, wf_word(generation, 0, WF_SLOT_RESERVED),
                              memory_order_release);
        atomic_store_explicit(progress, 3, memory_order_release);
        atomic_store_explicit(progress, WF_PROGRESS_ALL, memory_order_release);
        atomic_store_explicit(&desc->checksum, 0, memory_order_relaxed);
        atomic_store_explicit(&desc->word, wf_word(generation, 0, WF_SLOT_COMMITTED),
                              memory_order_release);
        atomic_store_explicit(&desc->checksum, UINT64_MAX, memory_order_release);
        for (int i = 0; i < 20; i++)
            wf_cpu_relax();
    }
    atomic_store(&arriving, false);
    return NULL;
}

static void test_a_checksum_is_no_progress(void **state)
{
    struct segment *s = *state;
    uint64_t wrong = 0;
    uint32_t progress = 0;
    pthread_t thread;
    atomic_store(&arriving, true);
    assert_int_equal(pthread_create(&thread, NULL, arrive, s), 0);
    while (atomic_load(&arriving)) {
        uint64_t word = atomic_load_explicit(&s->index.desc[0].word, memory_order_acquire);
        uint32_t generation = wf_word_generation(word);
        if (wf_word_state(word) == WF_SLOT_FREE)
            continue;
        enum weft_status status = wf_index_arrived(&s->index, 0, generation, 5, &progress);
        word = atomic_load_explicit(&s->index.desc[0].word, memory_order_acquire);
        wrong += status == WEFT_MISS && wf_word_generation(word) == generation;
    }
    pthread_join(thread, NULL);
    assert_int_equal(wf_index_arrived(&s->index, 0, GENERATIONS - 1, 5, &progress), WEFT_OK);
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_random),
        TEST(test_every_slot),
        TEST(test_keys_that_begin_alike),
        TEST(test_every_bit_counts),
        TEST(test_overflow),
        TEST(test_match),
        TEST(test_evicting_is_a_miss_in_the_end),
        TEST(test_a_checksum_is_no_progress),
        TEST(test_alive),
        TEST(test_attach_refuses),
        TEST(test_noise_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
