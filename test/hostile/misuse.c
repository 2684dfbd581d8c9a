/* SPDX-License-Identifier: Apache-2.0
 *
 * What engines get wrong: things given back twice, names that are no text, calls out of order. Each
 * gets an answer that says so, and nothing is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

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
        TEST(test_a_fill_is_given_back_once), TEST(test_slots_are_given_back_once),
        TEST(test_pins_that_hold_nothing),    TEST(test_names_are_text),
        TEST(test_an_empty_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
