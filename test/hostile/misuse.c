/* SPDX-License-Identifier: Apache-2.0
 *
 * What engines get wrong: things given back twice, names that are no text, calls out of order. Each
 * gets an answer that says so, and nothing is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/weftd.h"

static const char *const settings[] = {"pool.size=8MB", "pool.size_max=8MB", NULL};

struct stage {
    struct weftd node;
    struct weft *w;
    struct weft_format *f;
    struct weft_session *s;
};

static int before(void **state)
{
    static struct stage s;
    const struct weft_format_spec spec = {.model = "misuse",
                                          .layers = 2,
                                          .kv_heads = 2,
                                          .head_dim = 16,
                                          .dtype = WEFT_F32,
                                          .block_tokens = 16};
    memset(&s, 0, sizeof s);
    weftd_run(&s.node, settings);
    s.w = weftd_connect(&s.node, "default");
    assert_non_null(s.w);
    assert_int_equal(weft_format_open(s.w, &spec, &s.f), WEFT_OK);
    assert_int_equal(weft_session_open(s.f, NULL, &s.s), WEFT_OK);
    *state = &s;
    return 0;
}

static int after(void **state)
{
    struct stage *s = *state;
    assert_int_equal(weftd_number(s->w, "default", "blocks_reserved"), 0);
    weft_session_close(s->s);
    weft_format_close(s->f);
    weft_close(s->w);
    assert_true(weftd_stop(&s->node));
    weftd_clean(&s->node);
    return 0;
}

static const uint32_t tokens[64] = {1, 2, 3};

static void test_a_fill_is_given_back_once(void **state)
{
    struct stage *s = *state;
    struct weft_fill fill = {0};
    assert_int_equal(weft_commit(&fill), WEFT_E_INVALID);
    assert_int_equal(weft_commit(NULL), WEFT_E_INVALID);
    weft_abort(&fill);
    weft_abort(NULL);
    assert_int_equal(weft_reserve(s->s, tokens, 0, 16, &fill), WEFT_OK);
    assert_int_equal(weft_commit(&fill), WEFT_OK);
    assert_int_equal(weft_commit(&fill), WEFT_E_INVALID);
    weft_abort(&fill);
    assert_int_equal(weft_reserve(s->s, tokens, 16, 48, &fill), WEFT_OK);
    weft_abort(&fill);
    weft_abort(&fill);
    assert_int_equal(weft_commit(&fill), WEFT_E_INVALID);
    /* the block before the first is not there */
    struct weft_fill none = {0};
    assert_int_equal(weft_reserve(s->s, tokens, 32, 64, &none), WEFT_E_PARENT);
    assert_int_equal(weft_commit(&none), WEFT_E_INVALID);
}

static void test_slots_are_given_back_once(void **state)
{
    struct stage *s = *state;
    struct weft_key key;
    struct weft_slot slot = {0};
    assert_int_equal(weft_commit_slots(s->f, &slot, 1), WEFT_E_INVALID);
    weft_abort_slots(s->f, &slot, 1);
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, tokens, 16, NULL, &key), WEFT_OK);
    assert_int_equal(weft_reserve_keys(s->f, NULL, &key, 1, 0, &slot), WEFT_OK);
    assert_int_equal(weft_commit_slots(s->f, &slot, 1), WEFT_OK);
    assert_int_equal(weft_commit_slots(s->f, &slot, 1), WEFT_E_INVALID);
    assert_non_null(strstr(weft_last_error(), "already"));
    struct weft_pin pin;
    assert_int_equal(weft_pin(s->f, &key, &pin), WEFT_OK); /* it is stored all the same */
    weft_unpin(&pin);
    weft_unpin(&pin);
    weft_unpin(NULL);
    assert_int_equal(weft_reserve_keys(s->f, NULL, &key, 1, 0xfffffffe, &slot), WEFT_E_INVALID);
}

/* The first of a batch was given back before: the node hears of the others all the same. */
static void test_slots_of_which_the_first_is_back(void **state)
{
    struct stage *s = *state;
    struct weft_key keys[3];
    struct weft_slot slots[3] = {{0}};
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, tokens, 48, NULL, keys), WEFT_OK);
    assert_int_equal(weft_reserve_keys(s->f, NULL, keys, 3, WEFT_CHAINED, slots), WEFT_OK);
    weft_abort_slots(s->f, slots, 1);
    assert_int_equal(weftd_number(s->w, "default", "blocks_reserved"), 2);
    weft_abort_slots(s->f, slots, 3);
    assert_int_equal(weftd_number(s->w, "default", "blocks_reserved"), 0);
}

static void put(struct stage *s, const uint32_t *of, size_t count, uint8_t mark)
{
    struct weft_fill fill;
    assert_int_equal(weft_reserve(s->s, of, 0, count, &fill), WEFT_OK);
    for (uint32_t i = 0; i < fill.blocks; i++)
        if (fill.slots[i].status == WEFT_OK)
            memset(fill.slots[i].data, mark, weft_format_block_bytes(s->f));
    assert_int_equal(weft_commit(&fill), WEFT_OK);
}

/* What was matched is not what other tokens' keys, which the session has by now, would get. */
static void test_a_match_of_other_tokens(void **state)
{
    struct stage *s = *state;
    static const uint32_t others[64] = {9, 8, 7};
    struct weft_match first, second;
    struct weft_pins pins;
    put(s, tokens, 64, 1);
    put(s, others, 64, 2);
    assert_int_equal(weft_match(s->s, tokens, 64, &first), WEFT_OK);
    assert_int_equal(first.blocks, 3);
    assert_int_equal(weft_match(s->s, others, 64, &second), WEFT_OK);
    assert_int_equal(second.blocks, 3);
    assert_int_equal(weft_get(s->s, &first, WEFT_BLOCK_ORDER, &pins), WEFT_E_INVALID);
    assert_non_null(strstr(weft_last_error(), "match again"));
    assert_int_equal(weft_get(s->s, &second, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.data[0][0], 2);
    weft_pins_release(&pins);
    /* of another session, as many blocks */
    struct weft_session *other;
    assert_int_equal(weft_session_open(s->f, NULL, &other), WEFT_OK);
    assert_int_equal(weft_match(other, tokens, 64, &first), WEFT_OK);
    assert_int_equal(weft_get(s->s, &first, WEFT_BLOCK_ORDER, &pins), WEFT_E_INVALID);
    weft_session_close(other);
    /* a shorter prefix of the same tokens leaves it as it is */
    assert_int_equal(weft_match(s->s, others, 20, &first), WEFT_OK);
    assert_int_equal(weft_get(s->s, &second, WEFT_BLOCK_ORDER, &pins), WEFT_OK);
    assert_int_equal(pins.blocks, 3);
    weft_pins_release(&pins);
}

/* The chain that a session has is the one that was committed, whatever it was asked in between. */
static void test_a_commit_after_other_tokens(void **state)
{
    struct stage *s = *state;
    static const uint32_t others[64] = {9, 8, 7};
    struct weft_key keys[4];
    struct weft_fill fill;
    struct weft_match match;
    assert_int_equal(weft_keys_from_tokens(s->f, NULL, tokens, 64, NULL, keys), WEFT_OK);
    assert_int_equal(weft_reserve(s->s, tokens, 0, 48, &fill), WEFT_OK);
    assert_int_equal(weft_match(s->s, others, 64, &match), WEFT_OK);
    assert_int_equal(weft_commit(&fill), WEFT_OK);
    char what[40], tip[65], *answer;
    snprintf(what, sizeof what, "session %llu", (unsigned long long)weft_session_id(s->s));
    assert_int_equal(weft_query(s->w, what, 0, &answer), WEFT_OK);
    for (size_t i = 0; i < 32; i++)
        snprintf(tip + 2 * i, 3, "%02x", keys[2].bytes[i]);
    assert_non_null(strstr(answer, tip));
    weft_text_free(answer);
}

static void test_many_keys_are_removed_each_by_itself(void **state)
{
    struct stage *s = *state;
    struct weft_key keys[4];
    struct weft_slot slots[3];
    struct weft_pin pin;
    enum weft_status statuses[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(weft_key_from_bytes(s->f, &i, sizeof i, &keys[i]), WEFT_OK);
    assert_int_equal(weft_reserve_keys(s->f, NULL, keys, 3, 0, slots), WEFT_OK);
    assert_int_equal(weft_commit_slots(s->f, slots, 3), WEFT_OK);
    assert_int_equal(weft_pin(s->f, &keys[1], &pin), WEFT_OK);
    assert_int_equal(weft_remove_keys(s->f, keys, 4, statuses), WEFT_OK);
    assert_int_equal(statuses[0], WEFT_OK);
    assert_int_equal(statuses[1], WEFT_E_BUSY);
    assert_int_equal(statuses[2], WEFT_OK);
    assert_int_equal(statuses[3], WEFT_MISS);
    weft_unpin(&pin);
    assert_int_equal(weft_remove_keys(s->f, &keys[1], 1, statuses), WEFT_OK);
    assert_int_equal(statuses[0], WEFT_OK);
    assert_int_equal(weft_remove_keys(s->f, keys, 0, statuses), WEFT_E_INVALID);
    assert_int_equal(weft_remove_keys(s->f, keys, WEFT_BATCH_MAX + 1, statuses), WEFT_E_INVALID);
    assert_int_equal(weftd_number(s->w, "default", "blocks"), 0);
}

static void test_pins_that_hold_nothing(void **state)
{
    (void)state;
    struct weft_pins pins = {0};
    assert_int_equal(weft_wait_layer(&pins, 0), WEFT_E_INVALID);
    assert_int_equal(weft_wait_layer(NULL, 0), WEFT_E_INVALID);
    weft_pins_release(&pins);
    weft_pins_release(NULL);
}

static const char *const bad_names[] = {
    "evil\n",
    "\x1b]0;title\x07",
    "del\x7f",
    ("\xc2\x9b"
     "31m"),
    ("\xe2\x80\xae"
     "abc"),
    "\xff\xfe",
    ("\xe2\x81\xa6"
     "x"),
    "half \xe2\x82",
};

static void test_names_are_text(void **state)
{
    struct stage *s = *state;
    for (size_t i = 0; i < sizeof bad_names / sizeof bad_names[0]; i++) {
        struct weft_region *region;
        void *memory;
        assert_int_equal(weft_allocate(s->w, "4096", WEFT_LATENCY_NORMAL, WEFT_SHARE_READ,
                                       bad_names[i], &region, &memory),
                         WEFT_E_INVALID);
        struct weft_session *session;
        const struct weft_session_spec spec = {.name = bad_names[i], .priority = 5};
        assert_int_equal(weft_session_open(s->f, &spec, &session), WEFT_E_INVALID);
    }
    struct weft_region *region;
    void *memory;
    assert_int_equal(weft_allocate(s->w, "4096", WEFT_LATENCY_NORMAL, WEFT_SHARE_READ,
                                   "größe 大きさ", &region, &memory),
                     WEFT_OK);
    weft_release(region);
}

static void test_an_empty_socket(void **state)
{
    (void)state;
    struct weft *w;
    const struct weft_connect_options options = {.socket = ""};
    assert_int_equal(weft_connect(&options, &w), WEFT_E_INVALID);
    assert_non_null(strstr(weft_last_error(), "empty"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, before, after)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_fill_is_given_back_once),
        TEST(test_slots_are_given_back_once),
        TEST(test_slots_of_which_the_first_is_back),
        TEST(test_a_match_of_other_tokens),
        TEST(test_a_commit_after_other_tokens),
        TEST(test_many_keys_are_removed_each_by_itself),
        TEST(test_pins_that_hold_nothing),
        TEST(test_names_are_text),
        TEST(test_an_empty_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
