/* SPDX-License-Identifier: Apache-2.0
 *
 * A node whose tiers go by worth: with room and writes to spare it keeps all; where the drive may
 * be written no more it refuses, and says why, and what was promised is kept all the same.  What is
 * said of a chain that lies there is known of it when it is up.  And DRAM, where what counts is
 * what it takes to have a block again.
 */
#include <math.h>

#include "corners_world.h"

#define CHAINS 24u /* three times what DRAM holds */

static const char *const by_worth[] = {"pool.size=8MB",
                                       "pool.size_max=8MB",
                                       "log.level=info",
                                       "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0",
                                       "tier.nvme0.size=64MB",
                                       "tier.nvme0.scrub=0",
                                       NULL};

/* The figures of the last refusal by that rule (NULL: any) among the events, to be let go of; NULL:
 * there is none. */
static json_t *refusal(const struct world *w, const char *rule)
{
    char *text;
    size_t i;
    json_t *event, *found = NULL;
    assert_int_equal(weft_query(w->w, "events", 0, &text), WEFT_OK);
    json_t *all = json_loads(text, 0, NULL);
    weft_text_free(text);
    json_array_foreach (json_object_get(all, "events"), i, event) {
        json_t *said = json_object_get(event, "refusal");
        const char *is = json_string_value(json_object_get(said, "rule"));
        if (!is || (rule && strcmp(is, rule) != 0))
            continue;
        json_decref(found);
        found = json_incref(said);
    }
    json_decref(all);
    return found;
}

static void test_with_room_all_is_kept(void **state)
{
    (void)state;
    struct world w;
    begin(&w, by_worth);
    start(&w, NULL);
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(get_all(&w, 0, CHAINS), CHAINS * DEPTH);
    json_t *said = refusal(&w, NULL);
    assert_null(said);
    end(&w);
}

static void test_a_drive_that_may_not_be_written(void **state)
{
    (void)state;
    struct world w;
    begin(&w, by_worth);
    set(&w, "tier.nvme0.dwpd=0.001");
    start(&w, NULL);
    assert_int_equal(put(&w, 1000), DEPTH);
    assert_int_equal(archive(&w, 'a', 1000, DEPTH), WEFT_OK); /* a promise, which is owed */
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(tier_number(&w, "nvme0", "blocks"), DEPTH);
    assert_true(get_all(&w, 0, CHAINS) < CHAINS * DEPTH);
    assert_int_equal(get_all(&w, 1000, 1), DEPTH);
    json_t *said = refusal(&w, "wear");
    assert_non_null(said);
    double chance = json_number_value(json_object_get(said, "chance"));
    assert_true(chance > 0 && chance <= 1);
    assert_true(json_number_value(json_object_get(said, "rate")) > 0);
    assert_true(json_number_value(json_object_get(said, "hits")) > 0);
    assert_true(json_number_value(json_object_get(said, "saved_s")) > 0);
    assert_true(json_is_null(json_object_get(said, "wear_s"))); /* there is no price */
    json_decref(said);
    end(&w);
}

/* Blocks of 256 tokens in 16 KiB, among those of 4 in 128: for its room one is five hundred times
 * as dear to compute as the other, so that no age makes up for it. */
static const char *const by_cost[] = {"pool.size=8MB",
                                      "pool.size_max=8MB",
                                      "log.level=info",
                                      "pool.objective=ttft",
                                      "pool.prefill_tokens_per_second=1000",
                                      NULL};

static struct weft_format *dear_format(const struct world *w)
{
    struct weft_format *f;
    struct weft_format_spec spec = {.model = "dear",
                                    .layers = 2,
                                    .kv_heads = 2,
                                    .head_dim = 8,
                                    .dtype = WEFT_F16,
                                    .block_tokens = 256,
                                    .block_bytes = 16u << 10};
    assert_int_equal(weft_format_open(w->w, &spec, &f), WEFT_OK);
    return f;
}

static uint32_t dear_stored(struct weft_format *f, const struct weft_key keys[DEPTH])
{
    struct weft_slot slots[DEPTH];
    uint32_t stored = 0;
    assert_int_equal(weft_reserve_keys(f, NULL, keys, DEPTH, WEFT_CHAINED, slots), WEFT_OK);
    for (uint32_t i = 0; i < DEPTH; i++) {
        assert_int_equal(slots[i].status, WEFT_OK);
        payload_fill(slots[i].data, 16u << 10, keys[i].bytes);
    }
    assert_int_equal(weft_commit_slots(f, slots, DEPTH), WEFT_OK);
    for (uint32_t i = 0; i < DEPTH; i++)
        stored += slots[i].status == WEFT_OK;
    return stored;
}

static void test_what_is_dear_to_compute_stays(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    struct weft_pins pins;
    begin(&w, by_cost);
    start(&w, NULL);
    struct weft_format *dear = dear_format(&w);
    for (uint64_t i = 0; i < DEPTH; i++)
        assert_int_equal(weft_key_from_bytes(dear, &i, sizeof i, &keys[i]), WEFT_OK);
    assert_int_equal(dear_stored(dear, keys), DEPTH);
    for (uint64_t chain = 0; chain < CHAINS; chain++)
        assert_int_equal(put(&w, chain), DEPTH);
    assert_int_equal(weft_get_keys(dear, keys, DEPTH, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, DEPTH);
    for (uint32_t i = 0; i < DEPTH; i++)
        assert_true(payload_right(pins.data[i], 16u << 10, keys[i].bytes));
    weft_pins_release(&pins);
    weft_format_close(dear);
    end(&w);
}

/* What the policy knows of the session's chain: a hint, or "-" for none, and about what it weighs.
 */
static bool thinks(const struct world *w, const struct weft_session *s, const char *hint,
                   double weight)
{
    char *text, query[64];
    snprintf(query, sizeof query, "session %llu", (unsigned long long)weft_session_id(s));
    assert_int_equal(weft_query(w->w, query, 0, &text), WEFT_OK);
    json_t *said = json_loads(text, 0, NULL), *policy = json_object_get(said, "policy");
    const char *is = json_string_value(json_object_get(policy, "hint"));
    bool right = strcmp(is ? is : "-", hint) == 0 &&
                 fabs(json_number_value(json_object_get(policy, "weight")) / weight - 1) < 0.1;
    weft_text_free(text);
    json_decref(said);
    return right;
}

static void test_what_is_said_of_a_chain_below_is_known_when_it_is_up(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    const struct {
        enum weft_session_state state;
        const char *known;
    } words[] = {{WEFT_WAITING, "wanted"}, {WEFT_DONE, "done"}, {WEFT_IDLE, "-"}};
    begin(&w, by_worth);
    start(&w, NULL);
    opened(&w);
    for (uint64_t chain = 0; chain < 3; chain++) {
        struct weft_session *s;
        assert_int_equal(put(&w, chain), DEPTH);
        chain_keys(&w, chain, keys);
        struct weft_hint hint = {.tip = &keys[DEPTH - 1]};
        assert_int_equal(weft_session_open(w.f, &(struct weft_session_spec){.priority = 7}, &s),
                         WEFT_OK);
        assert_int_equal(weft_session_hint(s, WEFT_PREFILL, &hint), WEFT_OK);
        /* A session that goes on from here says nothing of its priority before it is idle. */
        struct weft_session *other;
        assert_int_equal(weft_session_open(w.f, NULL, &other), WEFT_OK);
        assert_int_equal(weft_session_hint(s, WEFT_IDLE, NULL), WEFT_OK);
        assert_int_equal(weft_session_hint(other, WEFT_IDLE, &hint), WEFT_OK);
        assert_true(thinks(&w, other, "-", 1));
        assert_int_equal(weft_demote(other), WEFT_OK);
        weft_session_close(other);
        assert_int_equal(weft_session_hint(s, words[chain].state, NULL), WEFT_OK);
        assert_false(thinks(&w, s, words[chain].known, 4)); /* it is not up */
        assert_int_equal(weft_prefetch_keys(w.f, keys, DEPTH, 0, NULL), WEFT_OK);
        bool known = false;
        for (int waited = 0; waited < 10000 && !known; waited += 10) {
            known = thinks(&w, s, words[chain].known, 4);
            if (!known)
                weftd_sleep_ms(10);
        }
        assert_true(known);
        weft_session_close(s);
    }
    end(&w);
}

/* Who uses a chain after its session said that it is over knows better. */
static void test_what_is_over_for_one_is_not_for_another(void **state)
{
    (void)state;
    struct world w;
    struct weft_key keys[DEPTH];
    struct weft_session *s;
    begin(&w, by_worth);
    start(&w, NULL);
    opened(&w);
    assert_int_equal(put(&w, 0), DEPTH);
    chain_keys(&w, 0, keys);
    assert_int_equal(weft_session_open(w.f, NULL, &s), WEFT_OK);
    assert_int_equal(weft_session_hint(s, WEFT_IDLE, &(struct weft_hint){.tip = &keys[DEPTH - 1]}),
                     WEFT_OK);
    assert_int_equal(weft_demote(s), WEFT_OK);
    assert_int_equal(weft_session_hint(s, WEFT_DONE, NULL), WEFT_OK);
    weftd_sleep_ms(1500);
    assert_int_equal(get(&w, 0), DEPTH);
    for (int waited = 0; waited < 500; waited += 50) {
        weftd_sleep_ms(50);
        assert_false(thinks(&w, s, "done", 1));
    }
    weft_session_close(s);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_room_all_is_kept),
        cmocka_unit_test(test_a_drive_that_may_not_be_written),
        cmocka_unit_test(test_what_is_said_of_a_chain_below_is_known_when_it_is_up),
        cmocka_unit_test(test_what_is_over_for_one_is_not_for_another),
        cmocka_unit_test(test_what_is_dear_to_compute_stays),
    };
    return cmocka_run_group_tests_name("worth", tests, NULL, NULL);
}
