/* SPDX-License-Identifier: Apache-2.0
 *
 * The event rings: order, cursors, what is lost, and that one domain learns nothing of another.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/events.h"

enum { ALICE, BOB };
enum { PAGE_BYTES = 8192 };
static const char *const domains[] = {"alice", "bob"};
static struct wf_events *events;

static int create(void **state)
{
    (void)state;
    return wf_events_create(12, domains, 2, &events) == WEFT_OK ? 0 : -1; /* 4 a ring */
}

static int destroy(void **state)
{
    (void)state;
    wf_events_destroy(events);
    return 0;
}

static void evict(uint32_t domain, uint32_t for_domain, uint64_t bytes)
{
    wf_events_add(events, &(struct wf_event){.what = "evict",
                                             .domain = domain,
                                             .evicted = true,
                                             .for_domain = for_domain,
                                             .key = {0xab, 1},
                                             .bytes = bytes,
                                             .age_ms = 5,
                                             .reason = "room"});
}

static void tell(uint32_t domain, const char *what, const char *text)
{
    struct wf_event event = {.what = what, .domain = domain};
    snprintf(event.text, sizeof event.text, "%s", text);
    wf_events_add(events, &event);
}

static json_t *ask(uint32_t domain, uint64_t cursor)
{
    char *text = wf_events_json(events, domain, cursor, PAGE_BYTES);
    assert_non_null(text);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    return root;
}

static json_int_t number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

static const char *string(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

static json_t *event_at(const json_t *root, size_t index)
{
    json_t *event = json_array_get(json_object_get(root, "events"), index);
    assert_non_null(event);
    return event;
}

static size_t count_of(const json_t *root)
{
    return json_array_size(json_object_get(root, "events"));
}

static void an_eviction_says_why_it_and_no_other(void **state)
{
    struct wf_event event = {.what = "evict",
                             .domain = ALICE,
                             .evicted = true,
                             .for_domain = BOB,
                             .reason = "room",
                             .candidates = 12,
                             .why = {.rule = "lru_leaf", .hint = -1}};
    (void)state;
    wf_events_add(events, &event);
    event.why = (struct wf_policy_reason){.rule = "weft",
                                          .knows = true,
                                          .value = 0.25,
                                          .chance = 0.5,
                                          .age_s = 8,
                                          .turn = 2,
                                          .hint = WF_POLICY_DONE};
    wf_events_add(events, &event);
    event.why.value = 1.0 / 0.0; /* no number to JSON */
    wf_events_add(events, &event);
    event.why.rule = NULL;
    wf_events_add(events, &event);
    json_t *root = ask(ALICE, 0);
    assert_int_equal(count_of(root), 4);
    json_t *why = json_object_get(event_at(root, 0), "why");
    assert_string_equal(string(why, "rule"), "lru_leaf");
    assert_int_equal(number(why, "candidates"), 12);
    assert_null(json_object_get(why, "value"));
    why = json_object_get(event_at(root, 1), "why");
    assert_true(json_real_value(json_object_get(why, "value")) == 0.25);
    assert_true(json_real_value(json_object_get(why, "chance")) == 0.5);
    assert_true(json_real_value(json_object_get(why, "age_s")) == 8);
    assert_int_equal(number(why, "turn"), 3); /* two were before it */
    assert_string_equal(string(why, "hint"), "done");
    why = json_object_get(event_at(root, 2), "why");
    assert_true(json_is_null(json_object_get(why, "value")));
    assert_null(json_object_get(event_at(root, 3), "why"));
    json_decref(root);
}

static void an_eviction_names_what_it_extended(void **state)
{
    (void)state;
    struct wf_event event = {.what = "evict", .evicted = true, .reason = "room", .parent = {7, 1}};
    wf_events_add(events, &event);
    memset(event.parent, 0, sizeof event.parent);
    wf_events_add(events, &event);
    json_t *root = ask(ALICE, 0);
    assert_string_equal(string(event_at(root, 0), "parent"), "0701000000000000");
    assert_null(json_object_get(event_at(root, 1), "parent"));
    json_decref(root);
}

static void a_prefetch_says_its_reasons(void **state)
{
    (void)state;
    struct wf_event event = {.what = "prefetch",
                             .domain = BOB,
                             .fetched = true,
                             .key = {0xcd},
                             .bytes = 640,
                             .prefetch = {.rule = "not worth",
                                          .session = 77,
                                          .due_s = -0.5,
                                          .begin_s = 1.0 / 0.0,
                                          .ready_s = 1.0 / 0.0,
                                          .load_s = 0.25,
                                          .quantile = 0.125,
                                          .chance = 0.75,
                                          .spread_s = 2,
                                          .saved_s = 0.5,
                                          .room_s = 1.5,
                                          .pushed_bytes = 320,
                                          .blocks = 10}};
    wf_events_add(events, &event);
    json_t *root = ask(WF_EVENTS_NODE, 0), *said = event_at(root, 0);
    assert_string_equal(string(said, "what"), "prefetch");
    assert_string_equal(string(said, "reason"), "not worth");
    assert_string_equal(string(said, "key"), "cd00000000000000");
    static const struct {
        const char *name;
        double value;
    } figures[] = {{"session", 77},       {"bytes", 640},      {"due_in_ms", -500},
                   {"load_ms", 250},      {"quantile", 0.125}, {"chance", 0.75},
                   {"spread_ms", 2000},   {"saved_ms", 500},   {"room_ms", 1500},
                   {"pushed_bytes", 320}, {"blocks", 10},      {"begun", 0}};
    for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++)
        assert_true(json_number_value(json_object_get(said, figures[i].name)) == figures[i].value);
    assert_true(json_is_null(json_object_get(said, "begin_in_ms"))); /* never */
    assert_null(json_object_get(said, "text"));
    json_decref(root);
    /* What the host has free would tell of other domains. */
    root = ask(BOB, 0);
    said = event_at(root, 0);
    assert_true(json_number_value(json_object_get(said, "load_ms")) == 250);
    assert_null(json_object_get(said, "room_ms"));
    assert_null(json_object_get(said, "pushed_bytes"));
    json_decref(root);
}

static void an_event_says_what_who_and_why(void **state)
{
    (void)state;
    evict(ALICE, BOB, 4096);
    tell(WF_EVENTS_NODE, "lend", "seven bytes");
    tell(BOB, "client_gone", "pid 42 died");
    json_t *root = ask(WF_EVENTS_NODE, 0);
    assert_int_equal(count_of(root), 3);
    json_t *event = event_at(root, 0);
    assert_string_equal(string(event, "what"), "evict");
    assert_string_equal(string(event, "domain"), "alice");
    assert_string_equal(string(event, "for"), "bob");
    assert_string_equal(string(event, "key"), "ab01000000000000");
    assert_string_equal(string(event, "reason"), "room");
    assert_int_equal(number(event, "bytes"), 4096);
    assert_int_equal(number(event, "age_ms"), 5);
    assert_true(number(event, "time_ms") > 1600000000000);
    event = event_at(root, 1);
    assert_string_equal(string(event, "what"), "lend");
    assert_null(json_object_get(event, "domain"));
    assert_null(json_object_get(event, "key"));
    assert_null(json_object_get(event, "for"));
    event = event_at(root, 2);
    assert_string_equal(string(event, "what"), "client_gone");
    assert_string_equal(string(event, "text"), "pid 42 died");
    json_decref(root);
}

static void a_domain_sees_its_own_and_no_trace_of_others(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        evict(BOB, ALICE, 1);
    evict(ALICE, BOB, 111);
    for (int i = 0; i < 10; i++)
        evict(BOB, BOB, 1);
    evict(ALICE, ALICE, 222);
    tell(WF_EVENTS_NODE, "lend", "seven bytes");

    char *text = wf_events_json(events, ALICE, 0, PAGE_BYTES);
    assert_non_null(text);
    assert_null(strstr(text, "bob"));
    free(text);
    json_t *root = ask(ALICE, 0);
    assert_int_equal(count_of(root), 2);
    /* Numbers without gaps: how many others had between them cannot be counted. */
    assert_int_equal(number(event_at(root, 0), "sequence"), 1);
    assert_int_equal(number(event_at(root, 1), "sequence"), 2);
    assert_string_equal(string(event_at(root, 0), "for"), "another domain");
    assert_string_equal(string(event_at(root, 1), "for"), "alice");
    /* Bob's twenty have pushed none of alice's out. */
    assert_int_equal(number(root, "lost"), 0);
    json_decref(root);
    assert_int_equal(wf_events_total(events, ALICE), 2);
    assert_int_equal(wf_events_total(events, WF_EVENTS_NODE), 23);
}

static void a_follower_misses_nothing_and_is_told_what_it_missed(void **state)
{
    (void)state;
    evict(ALICE, ALICE, 1);
    evict(ALICE, ALICE, 2);
    json_t *root = ask(ALICE, 0);
    uint64_t last = (uint64_t)number(root, "last");
    assert_int_equal(last, 2);
    assert_int_equal(number(root, "next"), 0);
    json_decref(root);

    root = ask(ALICE, last);
    assert_int_equal(count_of(root), 0);
    assert_int_equal(number(root, "last"), 2);
    json_decref(root);

    for (uint64_t bytes = 3; bytes <= 9; bytes++)
        evict(ALICE, ALICE, bytes);
    root = ask(ALICE, last); /* 3, 4, 5 were overwritten: the ring holds 4 */
    assert_int_equal(number(root, "lost"), 3);
    assert_int_equal(count_of(root), 4);
    assert_int_equal(number(event_at(root, 0), "bytes"), 6);
    assert_int_equal(number(event_at(root, 3), "bytes"), 9);
    assert_int_equal(number(root, "last"), 9);
    json_decref(root);
}

static void all_rings_are_merged_in_order(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 12; i++) {
        if (i % 3 == 0)
            tell(WF_EVENTS_NODE, "reclaim", "");
        else
            evict(i % 3 == 1 ? ALICE : BOB, WF_EVENTS_NODE, i);
    }
    json_t *root = ask(WF_EVENTS_NODE, 0);
    assert_int_equal(count_of(root), 12);
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(number(event_at(root, i), "sequence"), i + 1);
        assert_string_equal(string(event_at(root, i), "what"), (i + 1) % 3 ? "evict" : "reclaim");
    }
    json_decref(root);
    root = ask(WF_EVENTS_NODE, 10);
    assert_int_equal(count_of(root), 2);
    json_decref(root);

    evict(ALICE, ALICE, 13); /* overwrites number 1 */
    root = ask(WF_EVENTS_NODE, 0);
    assert_int_equal(count_of(root), 12);
    assert_int_equal(number(root, "lost"), 1);
    assert_int_equal(number(event_at(root, 0), "sequence"), 2);
    assert_int_equal(number(event_at(root, 11), "sequence"), 13);
    json_decref(root);
}

static void what_is_refused_is_its_domain_s_alone(void **state)
{
    (void)state;
    struct wf_event event = {.what = "full",
                             .domain = ALICE,
                             .refused = true,
                             .key = {0xab, 1},
                             .last = {0xcd, 2},
                             .blocks = 32,
                             .bytes = 7,
                             .reason = "worth",
                             .text = "no room"};
    wf_events_add(events, &event);
    json_t *root = ask(ALICE, 0);
    assert_string_equal(string(event_at(root, 0), "key"), "ab01000000000000");
    assert_string_equal(string(event_at(root, 0), "last"), "cd02000000000000");
    assert_string_equal(string(event_at(root, 0), "reason"), "worth");
    assert_string_equal(string(event_at(root, 0), "text"), "no room");
    assert_int_equal(number(event_at(root, 0), "blocks"), 32);
    assert_int_equal(number(event_at(root, 0), "bytes"), 7);
    json_decref(root);
    root = ask(BOB, 0);
    assert_int_equal(count_of(root), 0);
    json_decref(root);
}

static void pages_are_bounded_and_go_on(void **state)
{
    (void)state;
    static const uint32_t readers[] = {ALICE, WF_EVENTS_NODE};
    enum { COUNT = 200 };
    struct wf_events *small = events;
    assert_int_equal(wf_events_create(3 * COUNT, domains, 2, &events), WEFT_OK);
    char longest[WF_EVENT_TEXT_MAX + 1];
    memset(longest, 1, sizeof longest - 1); /* JSON writes each of these as six */
    longest[sizeof longest - 1] = '\0';
    for (uint64_t i = 1; i <= COUNT; i++)
        tell(ALICE, "full", longest);
    for (size_t r = 0; r < 2; r++) {
        uint64_t cursor = 0, seen = 0, pages = 0;
        do {
            char *text = wf_events_json(events, readers[r], cursor, WF_EVENTS_JSON_MIN);
            assert_non_null(text);
            assert_true(strlen(text) <= WF_EVENTS_JSON_MIN);
            json_t *root = json_loads(text, 0, NULL);
            assert_non_null(root);
            assert_true(count_of(root) > 0);
            for (size_t i = 0; i < count_of(root); i++)
                assert_int_equal(number(event_at(root, i), "sequence"), ++seen);
            cursor = (uint64_t)number(root, "next");
            pages++;
            json_decref(root);
            free(text);
        } while (cursor);
        assert_int_equal(seen, COUNT);
        assert_true(pages > 1);
    }
    wf_events_destroy(events);
    events = small;
}

static void a_cursor_from_elsewhere_does_no_harm(void **state)
{
    (void)state;
    static const uint64_t cursors[] = {5, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};
    evict(ALICE, ALICE, 1);
    for (size_t i = 0; i < sizeof cursors / sizeof cursors[0]; i++) {
        static const uint32_t readers[] = {ALICE, BOB, WF_EVENTS_NODE};
        for (size_t r = 0; r < 3; r++) {
            json_t *root = ask(readers[r], cursors[i]);
            assert_int_equal(count_of(root), 0);
            assert_int_equal(number(root, "lost"), 0);
            assert_int_equal(number(root, "last"), readers[r] == BOB ? 0 : 1);
            json_decref(root);
        }
    }
}

static void the_smallest_ring_holds_one_each(void **state)
{
    (void)state;
    struct wf_events *four = events;
    assert_int_equal(wf_events_create(0, domains, 2, &events), WEFT_OK);
    evict(ALICE, ALICE, 1);
    evict(ALICE, ALICE, 2);
    evict(BOB, ALICE, 3);
    json_t *root = ask(WF_EVENTS_NODE, 0);
    assert_int_equal(count_of(root), 2);
    assert_int_equal(number(root, "lost"), 1);
    json_decref(root);
    wf_events_destroy(events);
    events = four;
    struct wf_events *none = NULL;
    assert_int_equal(wf_events_create(1, domains, 65, &none), WEFT_E_LIMIT);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_eviction_says_why_it_and_no_other, create, destroy),
        cmocka_unit_test_setup_teardown(an_event_says_what_who_and_why, create, destroy),
        cmocka_unit_test_setup_teardown(an_eviction_names_what_it_extended, create, destroy),
        cmocka_unit_test_setup_teardown(a_prefetch_says_its_reasons, create, destroy),
        cmocka_unit_test_setup_teardown(a_domain_sees_its_own_and_no_trace_of_others, create,
                                        destroy),
        cmocka_unit_test_setup_teardown(a_follower_misses_nothing_and_is_told_what_it_missed,
                                        create, destroy),
        cmocka_unit_test_setup_teardown(all_rings_are_merged_in_order, create, destroy),
        cmocka_unit_test_setup_teardown(what_is_refused_is_its_domain_s_alone, create, destroy),
        cmocka_unit_test_setup_teardown(pages_are_bounded_and_go_on, create, destroy),
        cmocka_unit_test_setup_teardown(a_cursor_from_elsewhere_does_no_harm, create, destroy),
        cmocka_unit_test_setup_teardown(the_smallest_ring_holds_one_each, create, destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
