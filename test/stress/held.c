/* SPDX-License-Identifier: Apache-2.0
 *
 * A block that somebody holds is there for everybody, all the time.
 *
 * The pool is too small: writers make the node ask about its coldest blocks again and again, and
 * among these are blocks that one client holds from the first to the last.  Other clients look for
 * them by every call that finds: none may say that they are not there, not even in the middle of
 * the node's asking, for whoever hears that computes what is there.
 *
 *   HELD_SECONDS=3   each way
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../support/random.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 8192u
#define HELD 192u
#define READERS 3u
#define WRITERS 2u

static struct weftd node;
static _Atomic bool stop;
static _Atomic uint64_t looks, stored, misses[4];
static const char *const calls[4] = {"weft_pin", "weft_match_keys", "weft_get_keys",
                                     "weft_reserve_keys"};

struct client {
    pthread_t thread;
    uint32_t number;
    struct weft *w;
    struct weft_format *f;
};

static void connect_one(struct client *c, uint32_t number)
{
    c->number = number;
    c->w = weftd_connect(&node, "default");
    assert_non_null(c->w);
    c->f = weftd_format(c->w, "held", BLOCK_BYTES);
    assert_non_null(c->f);
}

static struct weft_key key_of(uint64_t number)
{
    struct weft_key key;
    random_key(number, key.bytes);
    return key;
}

/* WEFT_OK, or why not; a block that nobody reads has any bytes. */
static enum weft_status put(struct client *c, uint64_t number)
{
    struct weft_slot slot;
    struct weft_key key = key_of(number);
    enum weft_status status = weft_reserve_keys(c->f, NULL, &key, 1, 0, &slot);
    if (status == WEFT_OK && slot.status == WEFT_OK)
        memset(slot.data, (int)number, BLOCK_BYTES);
    if (status == WEFT_OK)
        status = weft_commit_slots(c->f, &slot, 1);
    return status == WEFT_OK ? slot.status : status;
}

static void *writer(void *context)
{
    struct client *c = context;
    for (uint64_t i = 0; !atomic_load(&stop); i++)
        if (put(c, (uint64_t)c->number << 40 | i) == WEFT_OK)
            atomic_fetch_add(&stored, 1);
    return NULL;
}

static bool finds(struct client *c, const struct weft_key *key, uint32_t call)
{
    struct weft_pin pin;
    struct weft_pins pins;
    struct weft_slot slot;
    size_t present = 0;
    enum weft_status status;
    if (call == 0) {
        status = weft_pin(c->f, key, &pin);
        if (status == WEFT_OK)
            weft_unpin(&pin);
    } else if (call == 1) {
        status = weft_match_keys(c->f, key, 1, &present);
        status = status == WEFT_OK && !present ? WEFT_MISS : status;
    } else if (call == 2) {
        status = weft_get_keys(c->f, key, 1, WEFT_BLOCK_ORDER, &pins);
        if (status == WEFT_OK && !pins.blocks)
            status = WEFT_MISS;
        else if (status == WEFT_OK)
            weft_pins_release(&pins);
    } else {
        status = weft_reserve_keys(c->f, NULL, key, 1, 0, &slot);
        if (status == WEFT_OK && slot.status == WEFT_OK)
            status = WEFT_MISS;
        else if (status == WEFT_OK && slot.status == WEFT_EXISTS)
            (void)!weft_commit_slots(c->f, &slot, 1);
    }
    return status == WEFT_OK;
}

static void *reader(void *context)
{
    struct client *c = context;
    struct random_source r = {c->number};
    while (!atomic_load(&stop)) {
        struct weft_key key = key_of(random_below(&r, HELD));
        uint32_t call = random_below(&r, 16);
        call = call < 3 ? call : call == 3 ? 3 : call % 3; /* few that ask the node */
        if (!finds(c, &key, call))
            atomic_fetch_add(&misses[call], 1);
        atomic_fetch_add(&looks, 1);
    }
    return NULL;
}

/* The end of `settings` is the first NULL: without a tier, before what is said of it. */
static void run(const char *policy, const char *tier)
{
    const char *seconds = getenv("HELD_SECONDS");
    char path[128];
    struct client holder, clients[READERS + WRITERS];
    struct weft_pin pins[HELD];
    weftd_prepare(&node);
    snprintf(path, sizeof path, "tier.nvme0.path=%s/tier", node.directory);
    const char *const settings[] = {"pool.size=4MB",
                                    "pool.size_max=4MB",
                                    "limits.pins=512",
                                    policy,
                                    tier,
                                    path,
                                    "tier.nvme0.size=128MB",
                                    NULL};
    assert_true(weftd_start(&node, settings, NULL));
    connect_one(&holder, 0);
    for (uint32_t i = 0; i < HELD; i++) {
        struct weft_key key = key_of(i);
        assert_int_equal(put(&holder, i), WEFT_OK);
        assert_int_equal(weft_pin(holder.f, &key, &pins[i]), WEFT_OK);
    }
    atomic_store(&stop, false);
    atomic_store(&stored, 0);
    for (uint32_t i = 0; i < READERS + WRITERS; i++) {
        connect_one(&clients[i], i + 1);
        assert_int_equal(pthread_create(&clients[i].thread, NULL, i < READERS ? reader : writer,
                                        &clients[i]),
                         0);
    }
    weftd_sleep_ms(1000 * (seconds ? (int)strtol(seconds, NULL, 10) : 3));
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < READERS + WRITERS; i++)
        pthread_join(clients[i].thread, NULL);
    uint64_t missed = 0;
    print_message("%llu looks, %llu blocks put\n", (unsigned long long)looks,
                  (unsigned long long)stored);
    for (uint32_t i = 0; i < 4; i++) {
        missed += misses[i];
        if (misses[i])
            print_message("%s: %llu blocks that were there were not found\n", calls[i],
                          (unsigned long long)misses[i]);
    }
    assert_true(stored > 200);
    for (uint32_t i = 0; i < HELD; i++)
        weft_unpin(&pins[i]);
    for (uint32_t i = 0; i < READERS + WRITERS; i++) {
        weft_format_close(clients[i].f);
        weft_close(clients[i].w);
    }
    weft_format_close(holder.f);
    weft_close(holder.w);
    assert_true(weftd_stop(&node));
    weftd_clean(&node);
    assert_int_equal(missed, 0);
}

static void test_held_in_a_full_pool(void **state)
{
    (void)state;
    run("pool.policy=lru", NULL);
    run("pool.policy=weft", NULL);
}

static void test_held_in_a_full_pool_with_a_tier(void **state)
{
    (void)state;
    run("pool.policy=lru", "tiers=nvme0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_held_in_a_full_pool),
        cmocka_unit_test(test_held_in_a_full_pool_with_a_tier),
    };
    return cmocka_run_group_tests_name("held", tests, NULL, NULL);
}
