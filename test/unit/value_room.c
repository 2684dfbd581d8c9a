/* SPDX-License-Identifier: Apache-2.0
 *
 * What may go for a request, and what is known of a block that found no room.
 */
#include "core/value.h"
#include "value_world.h"

#define HELD 60u
#define HOT 10u /* chains of 3 that are wanted again and again; the rest is wanted once */

/* Room, as a host makes it before any of the new blocks is there: for how many it is to be had. */
static uint32_t room_make(struct world *w, uint32_t count, const float bars[LENGTH])
{
    for (uint32_t room = 0; w->capacity - (SLOTS - w->spares) < count; room++) {
        uint32_t slot = w->ops->victim(w->policy, w->now_us, bars[room]);
        if (slot == WF_POLICY_NONE)
            return w->capacity - (SLOTS - w->spares);
        gone(w, slot);
    }
    return count;
}

static uint32_t ask(struct world *w, uint32_t chain, uint32_t count, float bars[LENGTH])
{
    uint64_t keys[LENGTH];
    for (uint32_t i = 0; i < count; i++)
        keys[i] = key_of(chain, i);
    const struct wf_policy_ask said = {.parent = WF_POLICY_NONE,
                                       .count = count,
                                       .keys = keys,
                                       .now_us = w->now_us};
    w->ops->ask(w->policy, &said, bars);
    uint32_t room = room_make(w, count, bars);
    if (room < count)
        w->ops->refused(w->policy, &said, room);
    return room;
}

static struct world *world_of(const struct wf_policy_ops *ops)
{
    struct world *w = world_open(ops, HELD);
    for (int round = 0; round < 5; round++)
        for (uint32_t chain = 0; chain < HOT; chain++) {
            w->now_us += SECOND;
            request(w, chain, 3);
        }
    for (uint32_t chain = HOT; SLOTS - w->spares < HELD; chain++) {
        w->now_us += SECOND / 10;
        request(w, chain, 3);
    }
    return w;
}

/* One after the other comes and finds no room but that of others like it. */
static void test_what_was_wanted_again_is_spared(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    for (uint32_t chain = 1000; chain < 1020; chain++) {
        float bars[LENGTH];
        w->now_us += SECOND / 10;
        uint32_t room = ask(w, chain, LENGTH, bars);
        for (uint32_t i = 0; i < LENGTH; i++)
            assert_true(bars[i] > 0 && bars[i] < WF_POLICY_ANY);
        if (room)
            request(w, chain, room);
        assert_int_equal(w->ops->candidates(w->policy) > 0, 1);
    }
    for (uint32_t chain = 0; chain < HOT; chain++)
        assert_int_equal(w->held[chain], 3);
    world_close(w);
}

static void test_a_small_request_may_have_any(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    float bars[LENGTH];
    uint32_t small = HELD / ASK_PART;
    assert_int_equal(ask(w, 2000, small, bars), small);
    for (uint32_t i = 0; i < small; i++)
        assert_true(bars[i] >= WF_POLICY_ANY);
    world_close(w);
}

/* They were pinned when room was wanted, and that was long ago. */
static void test_what_was_set_aside_is_no_wall(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    uint32_t slots[SLOTS], count = 0;
    w->now_us += 86400 * (uint64_t)SECOND;
    while (w->ops->candidates(w->policy)) {
        uint32_t slot = w->ops->victim(w->policy, w->now_us, WF_POLICY_ANY);
        w->ops->spared(w->policy, slots[count++] = slot);
    }
    while (count)
        w->ops->enter(w->policy, slots[--count]);
    float bars[LENGTH];
    assert_int_equal(ask(w, 2000, LENGTH, bars), LENGTH);
    assert_true(bars[0] < WF_POLICY_ANY);
    world_close(w);
}

static void test_lru_has_no_bar(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_lru);
    float bars[LENGTH];
    assert_int_equal(ask(w, 2000, LENGTH, bars), LENGTH);
    for (uint32_t i = 0; i < LENGTH; i++)
        assert_true(bars[i] >= WF_POLICY_ANY);
    world_close(w);
}

/* So that what begins many chains is let in when it is wanted for the second time. */
static void test_what_found_no_room_is_known(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    uint64_t keys[LENGTH];
    float bars[LENGTH];
    for (uint32_t i = 0; i < LENGTH; i++)
        keys[i] = key_of(3000, i);
    struct wf_policy_ask said = {.parent = WF_POLICY_NONE,
                                 .count = LENGTH,
                                 .keys = keys,
                                 .now_us = w->now_us};
    w->ops->ask(w->policy, &said, bars);
    w->ops->refused(w->policy, &said, 0);
    assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 0);
    said.now_us = w->now_us += 100 * (uint64_t)SECOND;
    w->ops->ask(w->policy, &said, bars);
    assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 1);
    assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_FRESH], 0);
    request(w, 3000, LENGTH);
    request(w, 3001, 1); /* the request before is over */
    assert_int_equal(reason_of(w, 3000).turn, 1);
    world_close(w);
}

/* Who goes on asking is as far as before, until it might be somebody else's request. */
static void test_to_ask_again_at_once_is_one_request(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    uint64_t keys[LENGTH];
    float bars[LENGTH], first;
    for (uint32_t i = 0; i < LENGTH; i++)
        keys[i] = key_of(4000, i);
    struct wf_policy_ask said = {
        .parent = WF_POLICY_NONE, .reader = 1, .count = LENGTH, .keys = keys, .now_us = w->now_us};
    w->ops->ask(w->policy, &said, bars);
    w->ops->refused(w->policy, &said, 1);
    first = bars[1];
    struct wf_policy_ask rest = said;
    rest.keys++, rest.count--;
    for (int i = 0; i < 3; i++) {
        rest.now_us += SECOND / 10;
        w->ops->ask(w->policy, &rest, bars);
        assert_float_equal(bars[0], first, first / 20); /* the model learns on */
        w->ops->refused(w->policy, &rest, 0);
        assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 0);
    }
    struct wf_policy_ask other = rest; /* that begins alike, and ends elsewhere */
    other.reader = 2;
    other.count--;
    w->ops->ask(w->policy, &other, bars);
    assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 1);
    assert_true(bars[0] > first);
    rest.now_us += 100 * (uint64_t)SECOND;
    w->ops->ask(w->policy, &rest, bars);
    assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 1);
    world_close(w);
}

/* One that found no room and asks again, and again, is wanted no more than at first. */
static void test_to_ask_again_is_no_use(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, HELD);
    float bars[LENGTH];
    for (uint32_t step = 0; step < 30 * HELD / 3; step++) {
        w->now_us += SECOND;
        request(w, step % (HELD / 3), 3);
    }
    for (uint32_t step = 0; step < HELD / 3; step++) {
        w->now_us += SECOND;
        request(w, step, 3);
        assert_int_equal(ask(w, 1000, LENGTH, bars), 0);
        assert_int_equal(w->policy->asked.kind.bin[WF_VALUE_TURN], 0);
    }
    for (uint32_t chain = 0; chain < HELD / 3; chain++)
        assert_int_equal(w->held[chain], 3);
    world_close(w);
}

/* Somebody asks for it every twenty seconds, and each time there is no room. */
static void test_what_many_ask_for_is_wanted_again(void **state)
{
    (void)state;
    struct world *w = world_of(&wf_policy_value);
    uint64_t keys[LENGTH];
    float bars[LENGTH];
    uint32_t most = 0;
    for (uint32_t i = 0; i < LENGTH; i++)
        keys[i] = key_of(5000, i);
    for (uint32_t reader = 1; reader <= 10; reader++) {
        const struct wf_policy_ask said = {.parent = WF_POLICY_NONE,
                                           .reader = reader,
                                           .count = LENGTH,
                                           .keys = keys,
                                           .now_us = w->now_us += 20 * (uint64_t)SECOND};
        w->ops->ask(w->policy, &said, bars);
        w->ops->refused(w->policy, &said, 0);
        uint32_t turn = w->policy->asked.kind.bin[WF_VALUE_TURN];
        most = turn > most ? turn : most;
    }
    assert_int_equal(most, 3); /* once a minute */
    world_close(w);
}

/* Eight chains that come back fill the room nearly, and long ones pass through that never do. */
static double hit_rate(bool asks)
{
    struct world *w = world_open(&wf_policy_value, 36);
    struct random_source random = random_seeded("spared");
    for (uint32_t step = 0; step < 6000; step++) {
        bool few = step % 3 == 0;
        uint32_t chain = few ? random_below(&random, 8) : 8 + step, length = few ? 4 : LENGTH;
        uint32_t room = length;
        float bars[LENGTH];
        w->now_us += 5 * (uint64_t)SECOND;
        for (uint32_t i = 0; i < LENGTH; i++)
            bars[i] = WF_POLICY_ANY;
        if (w->held[chain] == 0)
            room = asks ? ask(w, chain, length, bars) : room_make(w, length, bars);
        if (step == 1000)
            w->asked = w->hits = 0;
        if (room)
            request(w, chain, room);
        w->asked += length - room;
    }
    double rate = (double)w->hits / (double)w->asked;
    world_close(w);
    return rate;
}

static void test_sparing_is_worth_it(void **state)
{
    (void)state;
    double all = hit_rate(false), spared = hit_rate(true);
    print_message("hits: %.4f, and %.4f where a bar stands\n", all, spared);
    assert_true(spared > all + 0.01);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_wanted_again_is_spared),
        cmocka_unit_test(test_a_small_request_may_have_any),
        cmocka_unit_test(test_what_was_set_aside_is_no_wall),
        cmocka_unit_test(test_lru_has_no_bar),
        cmocka_unit_test(test_what_found_no_room_is_known),
        cmocka_unit_test(test_to_ask_again_at_once_is_one_request),
        cmocka_unit_test(test_to_ask_again_is_no_use),
        cmocka_unit_test(test_what_many_ask_for_is_wanted_again),
        cmocka_unit_test(test_sparing_is_worth_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
