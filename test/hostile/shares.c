/* SPDX-License-Identifier: Apache-2.0
 *
 * Domains that want more than there is: floors, priorities, ceilings, and no byte left idle.
 *
 * All blocks have one size, so who keeps what is counted in blocks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>

#include <cmocka.h>

#include "../support/random.h"
#include "../support/weftd.h"

#define BLOCK_BYTES 65536
#define POOL_BLOCKS 128 /* 8 MiB */
#define DOMAINS 3

static const char *const names[DOMAINS] = {"a", "b", "c"};

struct stage {
    struct weftd node;
    struct weft *w[DOMAINS];
    struct weft_format *f[DOMAINS];
    uint64_t number; /* of the last block that was put */
};

static struct stage stage;

static void open_stage(const char *const *settings)
{
    const char *all[24] = {"pool.size=8MB", "pool.size_max=8MB", "pool.huge=off", "domains=a,b,c"};
    int count = 4;
    memset(&stage, 0, sizeof stage);
    while (*settings)
        all[count++] = *settings++;
    weftd_run(&stage.node, all);
    for (int i = 0; i < DOMAINS; i++) {
        stage.w[i] = weftd_connect(&stage.node, names[i]);
        assert_non_null(stage.w[i]);
        stage.f[i] = weftd_format(stage.w[i], "shares", BLOCK_BYTES);
        assert_non_null(stage.f[i]);
    }
}

static void close_stage(void)
{
    for (int i = 0; i < DOMAINS; i++) {
        weft_format_close(stage.f[i]);
        weft_close(stage.w[i]);
    }
    bool ended = weftd_stop(&stage.node);
    if (!ended)
        weftd_show_log(&stage.node);
    weftd_clean(&stage.node);
    assert_true(ended);
}

/* So many new blocks of domain `i`, none of which extends another; each must find room. */
static void put(int i, int blocks)
{
    for (int k = 0; k < blocks; k++) {
        struct weft_key key;
        struct weft_slot slot;
        random_key(++stage.number, key.bytes);
        assert_int_equal(weft_reserve_keys(stage.f[i], NULL, &key, 1, 0, &slot), WEFT_OK);
        assert_int_equal(slot.status, WEFT_OK);
        memset(slot.data, i, BLOCK_BYTES);
        assert_int_equal(weft_commit_slots(stage.f[i], &slot, 1), WEFT_OK);
        assert_int_equal(slot.status, WEFT_OK);
    }
}

static int64_t says(int i, const char *name)
{
    return weftd_number(stage.w[i], names[i], name);
}

static void holds(int64_t a, int64_t b, int64_t c)
{
    assert_int_equal(says(0, "blocks"), a);
    assert_int_equal(says(1, "blocks"), b);
    assert_int_equal(says(2, "blocks"), c);
}

/* 65 blocks and a floor in the middle of the last: none of them goes, however much the others are
 * due by their weights.  Before they are there, others have it all. */
static void test_floor(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.floor=4128KB", "domain.a.share=1",
                                           "domain.b.share=1000000", "domain.c.share=1000000",
                                           NULL};
    open_stage(settings);
    put(1, 300);
    holds(0, POOL_BLOCKS, 0);
    put(0, 65);
    holds(65, 63, 0);
    assert_int_equal(says(0, "floor_bytes"), 4128 << 10);
    assert_int_equal(says(0, "due_bytes") >> 10, 4128);
    put(1, 300);
    put(2, 300);
    assert_int_equal(says(0, "blocks"), 65);
    assert_int_equal(says(1, "blocks") + says(2, "blocks"), 63);
    assert_in_range(says(1, "blocks"), 31, 32);
    put(0, 10); /* beyond its floor it has only its own to give */
    assert_int_equal(says(0, "blocks"), 65);
    uint64_t got;
    assert_int_equal(weft_reclaim(stage.w[0], "8MB", 200, &got), WEFT_PENDING);
    holds(65, 0, 0); /* nor does the host get it */
    assert_int_equal(got, (POOL_BLOCKS - 65) * (uint64_t)BLOCK_BYTES);
    close_stage();
}

/* c is due half.  a and b have all of it on loan; a has more of it, but b's goes first. */
static void test_priority(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.share=1",      "domain.b.share=1",
                                           "domain.c.share=2",      "domain.a.priority=high",
                                           "domain.b.priority=low", NULL};
    open_stage(settings);
    put(0, 80);
    put(1, 48);
    holds(80, 48, 0);
    assert_int_equal(says(0, "lent_bytes"), 48 * BLOCK_BYTES);
    put(2, 16);
    holds(80, 32, 16);
    put(2, 16);
    holds(64, 32, 32);
    put(2, 32);
    holds(32, 32, 64);
    put(2, 100); /* nobody has anything of another's: everybody lives on his own */
    put(1, 100);
    put(0, 100);
    holds(32, 32, 64);
    close_stage();
}

/* Without priorities, but for whom somebody works against a deadline, what is lent is lent longer.
 */
static void test_deadline(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.share=1", "domain.b.share=1",
                                           "domain.c.share=2", NULL};
    struct weft_session *s;
    struct weft_hint hint = {.deadline_ms = 3600000};
    open_stage(settings);
    put(0, 80);
    put(1, 48);
    assert_int_equal(weft_session_open(stage.f[0], NULL, &s), WEFT_OK);
    assert_int_equal(weft_session_hint(s, WEFT_IDLE, &hint), WEFT_OK); /* in an hour */
    assert_int_equal(says(0, "hurried"), 0);
    assert_int_equal(weft_session_hint(s, WEFT_PREFILL, &hint), WEFT_OK);
    assert_int_equal(says(0, "hurried"), 1);
    put(2, 16);
    holds(80, 32, 16);
    assert_int_equal(weft_session_hint(s, WEFT_DECODING, &hint), WEFT_OK); /* the token is there */
    assert_int_equal(says(0, "hurried"), 0);
    put(2, 16);
    holds(64, 32, 32);
    hint.deadline_ms = 1;
    assert_int_equal(weft_session_hint(s, WEFT_PREFILL, &hint), WEFT_OK);
    for (int wait = 0; wait < 2000 && says(0, "hurried"); wait++) /* it is over soon */
        weftd_sleep_ms(5);
    assert_int_equal(says(0, "hurried"), 0);
    hint.deadline_ms = 400;
    assert_int_equal(weft_session_hint(s, WEFT_IDLE, &hint), WEFT_OK);
    hint.deadline_ms = 3600000;
    assert_int_equal(weft_session_hint(s, WEFT_PREFILL, &hint), WEFT_OK);
    assert_int_equal(says(0, "hurried"), 1);
    weft_session_close(s);
    assert_int_equal(says(0, "hurried"), 0);
    close_stage();
}

/* The same without priorities: who has borrowed most gives. */
static void test_most_first(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.share=1", "domain.b.share=1",
                                           "domain.c.share=2", NULL};
    open_stage(settings);
    put(0, 80);
    put(1, 48);
    put(2, 16);
    holds(64, 48, 16);
    put(2, 48);
    holds(32, 32, 64);
    close_stage();
}

/* A quota is a ceiling, whatever the weight and however much is free; what one cannot have for it
 * is due to the others. */
static void test_ceiling(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.share=1000",    "domain.a.quota=2MB",
                                           "domain.a.priority=high", "domain.b.share=1",
                                           "domain.c.share=1",       NULL};
    open_stage(settings);
    put(0, 300);
    holds(32, 0, 0);
    assert_int_equal(says(0, "due_bytes"), 2 << 20);
    assert_int_equal(says(1, "due_bytes"), 3 << 20);
    put(1, 300);
    holds(32, 96, 0);
    put(2, 300);
    holds(32, 48, 48);
    close_stage();
}

/* Without any of it: by the quotas, as far as they go. */
static void test_quotas_weigh(void **state)
{
    (void)state;
    static const char *const settings[] = {"domain.a.quota=2MB", "domain.b.quota=6MB",
                                           "domain.c.quota=8MB", NULL};
    open_stage(settings);
    put(2, 300);
    put(1, 300);
    put(0, 300);
    holds(16, 48, 64);
    close_stage();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floor),        cmocka_unit_test(test_priority),
        cmocka_unit_test(test_most_first),   cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_quotas_weigh), cmocka_unit_test(test_deadline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
