/* SPDX-License-Identifier: Apache-2.0
 *
 * More blocks than may be on their way at a time: a node that is told to stop writes them all, and
 * a chain that a session is due back for comes up from its beginning.
 */
#include "corners_world.h"

#define SMALL_BYTES (16u << 10)
#define AT_ONCE 500u
#define APART 14000u /* more than a few times what may be written at a time */
#define LONG 4500u   /* more than may be read at a time */
#define BACK_IN_MS 3000u

static const char *const settings[] = {"pool.size=256MB",
                                       "pool.size_max=256MB",
                                       "pool.policy=lru",
                                       "pool.ahead=0",
                                       "drain=60s",
                                       "log.level=info",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=512MB",
                                       "tier.nvme0.scrub=0",
                                       NULL};

static struct weft_key keys[APART];

static struct weft_format *small(const struct world *w)
{
    struct weft_format *f = weftd_format(w->w, "many", SMALL_BYTES);
    assert_non_null(f);
    for (uint64_t i = 0; i < APART; i++)
        assert_int_equal(weft_key_from_bytes(f, &i, sizeof i, &keys[i]), WEFT_OK);
    return f;
}

/* From keys[first] on; what is there already begins the chain. */
static void store(struct weft_format *f, uint32_t first, uint32_t count)
{
    struct weft_slot slots[AT_ONCE];
    assert_int_equal(weft_reserve_keys(f, NULL, &keys[first], count, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK)
            memset(slots[i].data, (int)(first + i) & 0xff, SMALL_BYTES);
    assert_int_equal(weft_commit_slots(f, slots, count), WEFT_OK);
    for (uint32_t i = 0; i < count; i++)
        assert_true(slots[i].status == WEFT_OK || slots[i].status == WEFT_EXISTS);
}

static void test_a_stop_writes_them_all(void **state)
{
    (void)state;
    struct world w;
    begin(&w, settings);
    start(&w, NULL);
    struct weft_format *f = small(&w);
    for (uint32_t i = 0; i < APART; i++)
        store(f, i, 1);
    weft_format_close(f);
    stop(&w);
    start(&w, NULL);
    assert_int_equal(tier_number(&w, "nvme0", "blocks"), APART);
    end(&w);
}

static void test_a_long_chain_is_up_in_time(void **state)
{
    (void)state;
    struct world w;
    struct weft_session *s;
    begin(&w, settings);
    start(&w, NULL);
    struct weft_format *f = small(&w);
    for (uint32_t i = 0; i + 1 < LONG; i += AT_ONCE - 1)
        store(f, i, LONG - i < AT_ONCE ? LONG - i : AT_ONCE);
    const struct weft_hint idle = {.tip = &keys[LONG - 1]};
    const struct weft_hint away = {.returns_in_ms = BACK_IN_MS, .tip = &keys[LONG - 1]};
    assert_int_equal(weft_session_open(f, NULL, &s), WEFT_OK);
    assert_int_equal(weft_session_hint(s, WEFT_IDLE, &idle), WEFT_OK);
    assert_int_equal(weft_demote(s), WEFT_OK);
    assert_true(weftd_settles(w.w, "default", "blocks", 0));
    assert_int_equal(weft_session_hint(s, WEFT_WAITING, &away), WEFT_OK);
    assert_true(weftd_settles(w.w, "default", "blocks", LONG));
    weft_session_close(s);
    weft_format_close(f);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stop_writes_them_all),
        cmocka_unit_test(test_a_long_chain_is_up_in_time),
    };
    return cmocka_run_group_tests_name("many", tests, NULL, NULL);
}
