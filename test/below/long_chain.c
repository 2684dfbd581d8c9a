/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions of a chain that is too long to be looked at in one go: what is asked of them is answered
 * in parts, which add up, wherever the chain is; and many that go on from one chain cost no more
 * looks than one.
 */
#include <jansson.h>

#include "corners_world.h"

#define SMALL_BYTES 4096u
#define AT_ONCE 500u
#define LONG 9000u
#define KEYS 2048u /* of its end, that are named */
#define SESSIONS 600u

static const char *const settings[] = {"pool.size=256MB",          "pool.size_max=256MB",
                                       "pool.policy=lru",          "pool.ahead=0",
                                       "limits.sessions=1024",     "tiers=nvme0",
                                       "tier.nvme0.path=%d/nvme0", "tier.nvme0.size=256MB",
                                       "tier.nvme0.scrub=0",       NULL};

static struct weft_key keys[LONG];

static struct weft_format *long_chain(const struct world *w)
{
    struct weft_slot slots[AT_ONCE];
    struct weft_format *f = weftd_format(w->w, "long", SMALL_BYTES);
    assert_non_null(f);
    for (uint64_t i = 0; i < LONG; i++)
        assert_int_equal(weft_key_from_bytes(f, &i, sizeof i, &keys[i]), WEFT_OK);
    for (uint32_t first = 0; first + 1 < LONG; first += AT_ONCE - 1) { /* on the last before */
        uint32_t count = LONG - first < AT_ONCE ? LONG - first : AT_ONCE;
        assert_int_equal(weft_reserve_keys(f, NULL, &keys[first], count, WEFT_CHAINED, slots),
                         WEFT_OK);
        for (uint32_t i = 0; i < count; i++)
            if (slots[i].status == WEFT_OK)
                memset(slots[i].data, (int)(first + i) & 0xff, SMALL_BYTES);
        assert_int_equal(weft_commit_slots(f, slots, count), WEFT_OK);
    }
    return f;
}

static struct weft_session *session_on(struct weft_format *f, uint32_t blocks, const char *name)
{
    const struct weft_hint idle = {.tip = &keys[blocks - 1]};
    const struct weft_session_spec spec = {.name = name, .priority = 5};
    struct weft_session *s;
    assert_int_equal(weft_session_open(f, &spec, &s), WEFT_OK);
    assert_int_equal(weft_session_hint(s, WEFT_IDLE, &idle), WEFT_OK);
    return s;
}

static json_t *asked(const struct world *w, const char *what, uint64_t cursor)
{
    char *text;
    if (weft_query(w->w, what, cursor, &text) != WEFT_OK)
        fail_msg("%s: %s", what, weft_last_error());
    json_t *answer = json_loads(text, 0, NULL);
    weft_text_free(text);
    assert_non_null(answer);
    return answer;
}

static uint64_t member(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

/* All of the chain, in more than one part; so many blocks of it in DRAM, and below. */
static void assert_adds_up(const struct world *w, uint64_t in_dram, uint64_t below)
{
    uint64_t next = 0, found = 0, bytes = 0, dram = 0, on = 0, named = 0, parts = 0;
    do {
        json_t *answer = asked(w, "session first", next);
        const json_t *chain = json_object_get(answer, "chain");
        const json_t *tier = json_object_get(json_object_get(chain, "tiers"), "nvme0");
        assert_int_equal(member(chain, "blocks"), LONG);
        named += json_array_size(json_object_get(answer, "keys"));
        assert_true(!next == (json_object_get(answer, "policy") != NULL));
        found += member(chain, "found");
        bytes += member(chain, "bytes");
        dram += member(chain, "dram");
        on += (uint64_t)json_integer_value(tier);
        parts++;
        assert_true(member(answer, "next") == 0 || member(answer, "next") == found);
        next = member(answer, "next");
        json_decref(answer);
    } while (next && parts < 100);
    assert_in_range(parts, 2, 20);
    assert_int_equal(found, LONG);
    assert_int_equal(named, KEYS);
    assert_int_equal(bytes, (uint64_t)LONG * SMALL_BYTES);
    assert_int_equal(dram, in_dram);
    assert_int_equal(on, below);
    /* From where there is nothing, nothing is told; and nobody falls over it. */
    static const uint64_t odd[] = {LONG, LONG + 1, 65535, 65536, 1ull << 32, UINT64_MAX};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        json_t *answer = asked(w, "session first", odd[i]);
        assert_int_equal(member(json_object_get(answer, "chain"), "found"), 0);
        assert_int_equal(member(answer, "next"), 0);
        json_decref(answer);
    }
}

/* Every session of the list, with what of its chain is in DRAM.  How many answers that took. */
static uint32_t list(const struct world *w, uint64_t count, uint64_t in_dram)
{
    uint64_t next = 0, rows = 0;
    uint32_t pages = 0;
    do {
        const json_t *row;
        size_t index;
        json_t *answer = asked(w, "sessions", next);
        json_array_foreach (json_object_get(answer, "sessions"), index, row) {
            assert_in_range(member(row, "blocks"), LONG - SESSIONS, LONG);
            assert_int_equal(member(row, "in_dram"), in_dram);
            rows++;
        }
        next = member(answer, "next");
        json_decref(answer);
        pages++;
    } while (next && pages < 1000);
    assert_int_equal(rows, count);
    return pages;
}

static void test_a_long_chain_is_told_in_parts(void **state)
{
    (void)state;
    static struct weft_session *sessions[SESSIONS];
    struct world w;
    begin(&w, settings);
    start(&w, NULL);
    struct weft_format *f = long_chain(&w);
    sessions[0] = session_on(f, LONG, "first");
    assert_adds_up(&w, LONG, 0);
    enum weft_status status = WEFT_PENDING;
    for (int i = 0; i < 100 && status == WEFT_PENDING; i++) /* the node waits for 3 s each time */
        status = weft_demote(sessions[0]);
    assert_int_equal(status, WEFT_OK);
    assert_true(weftd_settles(w.w, "default", "blocks", 0));
    assert_adds_up(&w, 0, LONG);
    /* Each of them ends in another block of it. */
    for (uint32_t i = 1; i < SESSIONS; i++)
        sessions[i] = session_on(f, LONG - i, "another");
    assert_in_range(list(&w, SESSIONS, 0), 2, 3 * SESSIONS / 128);
    /* A beginning of it is in DRAM, and the rest below. */
    uint32_t coming;
    assert_int_equal(weft_prefetch_keys(f, keys, 100, 0, &coming), WEFT_OK);
    assert_true(weftd_settles(w.w, "default", "blocks", 100));
    assert_adds_up(&w, 100, LONG);
    (void)list(&w, SESSIONS, 100);
    for (uint32_t i = 0; i < SESSIONS; i++)
        weft_session_close(sessions[i]);
    weft_format_close(f);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_long_chain_is_told_in_parts),
    };
    return cmocka_run_group_tests_name("long_chain", tests, NULL, NULL);
}
