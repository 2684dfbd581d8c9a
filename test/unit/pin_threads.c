/* SPDX-License-Identifier: Apache-2.0
 *
 * Pin versus evict in one process, so that ThreadSanitizer sees both sides.
 *
 * An owner thread runs a store on a mapping: it puts blocks that describe themselves, which evicts
 * others.  Reader threads, each with a pin table of its own, find, pin, read every byte and unpin,
 * as libweft does.  The payload is plain memory, so that any read of a block that is being
 * rewritten is a data race, and a wrong byte besides.
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

#include "../support/payload.h"
#include "daemon/store.h"
#include "shm/pins.h"

#define READERS 3
#define SLOTS 128
#define POOL_GRANULES 64
#define KEYS 160
#define BLOCK_BYTES (2 * WF_GRANULE)
#define PINS 256

struct shared {
    struct wf_store store;
    uint8_t *pool;
    uint64_t index_bytes;
    void *index_memory, *table[READERS];
    struct wf_pins pins[READERS]; /* the node's view */
    _Atomic bool stop;
    _Atomic uint64_t hits, misses, wrong, gone;
};

static uint64_t take(void *context, uint64_t least, uint64_t wanted)
{
    (void)context, (void)least;
    return wanted < POOL_GRANULES * WF_GRANULE ? wanted : POOL_GRANULES * WF_GRANULE;
}

static void give(void *context, uint64_t bytes)
{
    (void)context, (void)bytes;
}

static void scan(void *context, void (*seen)(void *context, uint32_t slot), void *seen_context)
{
    const struct shared *s = context;
    for (int i = 0; i < READERS; i++)
        wf_pins_scan(&s->pins[i], seen, seen_context);
}

static void gone(void *context, const uint8_t key[32], const struct wf_gone *gone)
{
    (void)key, (void)gone;
    atomic_fetch_add(&((struct shared *)context)->gone, 1);
}

static void *zeroed(uint64_t bytes)
{
    void *memory = aligned_alloc(WF_PAGE, bytes);
    assert_non_null(memory);
    memset(memory, 0, bytes);
    return memory;
}

static void shared_open(struct shared *s)
{
    memset(s, 0, sizeof *s);
    s->index_bytes = wf_index_bytes(SLOTS, 0);
    s->index_memory = zeroed(s->index_bytes);
    s->pool = zeroed(POOL_GRANULES * WF_GRANULE);
    for (int i = 0; i < READERS; i++) {
        s->table[i] = zeroed(wf_pins_bytes(PINS));
        wf_pins_format(s->table[i], PINS, 0, &s->pins[i]);
    }
    struct wf_store_options options = {
        .index_memory = s->index_memory,
        .index_bytes = s->index_bytes,
        .slots_max = SLOTS,
        .pool_bytes = POOL_GRANULES * WF_GRANULE,
        .quota_bytes = POOL_GRANULES * WF_GRANULE,
        .epoch = 1,
        .policy = &wf_policy_lru,
        .env = {.context = s,
                .budget_take = take,
                .budget_give = give,
                .scan_pins = scan,
                .gone = gone},
    };
    assert_int_equal(wf_store_init(&s->store, &options), WEFT_OK);
}

static void shared_close(struct shared *s)
{
    wf_store_fini(&s->store);
    for (int i = 0; i < READERS; i++)
        free(s->table[i]);
    free(s->index_memory);
    free(s->pool);
}

/* What a client does: find, take, look again (shm/index.h). */
static bool pin(const struct wf_index *index, struct wf_pins *pins, uint32_t *cursor,
                const uint8_t key[32], uint32_t *out_slot, uint32_t *out_entry)
{
    struct wf_found found;
    if (!wf_index_find(index, key, &found))
        return false;
    if (!wf_pins_take(pins, cursor, found.slot, wf_word_generation(found.word), out_entry))
        return false;
    *out_slot = found.slot;
    if (atomic_load_explicit(&index->desc[found.slot].word, memory_order_seq_cst) == found.word)
        return true;
    wf_pins_clear(pins, *out_entry);
    return false;
}

struct reader {
    struct shared *shared;
    int number;
};

#define HELD_MAX 8

static void *read_along(void *context)
{
    struct reader *reader = context;
    struct shared *s = reader->shared;
    struct random_source r = {(uint64_t)reader->number + 1};
    struct wf_index index;
    struct wf_pins pins;
    uint32_t entry[HELD_MAX], held = 0, cursor = 0;
    if (wf_index_attach(s->index_memory, s->index_bytes, &index) != WEFT_OK ||
        wf_pins_attach(s->table[reader->number], wf_pins_bytes(PINS), &pins) != WEFT_OK)
        return NULL;
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        uint8_t key[32];
        uint32_t slot;
        random_key(random_below(&r, KEYS), key);
        if (!pin(&index, &pins, &cursor, key, &slot, &entry[held])) {
            atomic_fetch_add_explicit(&s->misses, 1, memory_order_relaxed);
            continue;
        }
        uint64_t offset = atomic_load_explicit(&index.desc[slot].offset, memory_order_relaxed);
        if (!payload_right(s->pool + offset, BLOCK_BYTES, key))
            atomic_fetch_add_explicit(&s->wrong, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&s->hits, 1, memory_order_relaxed);
        wf_pins_touch(&pins, slot);
        if (++held == HELD_MAX || random_below(&r, 2)) /* several at a time, at times */
            while (held)
                wf_pins_clear(&pins, entry[--held]);
    }
    while (held)
        wf_pins_clear(&pins, entry[--held]);
    return NULL;
}

static void touched(void *context, uint32_t slot)
{
    wf_store_used(context, slot, 0);
}

static void put_along(struct shared *s, struct random_source *r, struct wf_reservations *list)
{
    uint8_t key[32];
    uint32_t slot;
    struct wf_parent none = {.slot = WF_SLOT_NONE};
    random_key(random_below(r, KEYS), key);
    if (wf_store_reserve(&s->store, 1, list, key, BLOCK_BYTES, &none, WF_POLICY_ANY, &slot) !=
        WEFT_OK)
        return;
    payload_fill(s->pool +
                     atomic_load_explicit(&s->store.index.desc[slot].offset, memory_order_relaxed),
                 BLOCK_BYTES, key);
    assert_int_equal(wf_store_commit(&s->store, list, &slot), WEFT_OK);
}

static void test_readers_and_an_owner(void **state)
{
    (void)state;
    static struct shared s;
    struct reader readers[READERS];
    pthread_t threads[READERS];
    uint64_t tails[READERS] = {0}, removed;
    struct wf_reservations list = {.head = WF_SLOT_NONE};
    struct random_source r = random_seeded("pin_threads");
    struct timespec now, end;
    shared_open(&s);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.shared = &s, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, read_along, &readers[i]), 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    const char *seconds = getenv("STRESS_SECONDS");
    end.tv_sec += seconds ? strtol(seconds, NULL, 10) : 2;
    do {
        for (int i = 0; i < 200; i++)
            put_along(&s, &r, &list);
        for (int i = 0; i < READERS; i++)
            wf_pins_drain(&s.pins[i], &tails[i], touched, &s.store);
        uint8_t key[32];
        random_key(random_below(&r, KEYS), key);
        uint32_t slot = wf_store_find(&s.store, key);
        if (slot != WF_SLOT_NONE) {
            enum weft_status status = wf_store_remove(&s.store, slot, random_below(&r, 4) == 0,
                                                      &removed);
            assert_true(status == WEFT_OK || status == WEFT_E_BUSY);
        }
        wf_store_bury(&s.store);
        wf_store_verify(&s.store);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
    atomic_store(&s.stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    print_message("# %llu hits, %llu misses, %llu evicted, %llu wrong\n",
                  (unsigned long long)s.hits, (unsigned long long)s.misses,
                  (unsigned long long)s.gone, (unsigned long long)s.wrong);
    assert_int_equal(s.wrong, 0);
    assert_true(s.hits > 1000 && s.gone > 1000);
    wf_store_bury(&s.store);
    wf_store_verify(&s.store);
    shared_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_readers_and_an_owner)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
