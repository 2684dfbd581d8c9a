/* SPDX-License-Identifier: Apache-2.0
 *
 * Another workload comes: what was wanted again and again, and is no more, keeps long requests out
 * for a short while only.
 */
#include "core/value.h"
#include "value_world.h"

#define HELD 60u
#define OLD 20u     /* chains of 3: all that there is room for */
#define EVERY_S 5u  /* comes one of the new */
#define SOON_S 120u /* by then one of them is there as a whole */
#define TIMES 20u

/* The next request of a chain, as a node takes it: what is there is used, room is asked for the
 * rest. */
static void comes(struct world *w, uint32_t chain)
{
    uint32_t there = w->held[chain], missing = LENGTH - there, room = 0;
    uint32_t tip = there ? w->slot_of[chain][there - 1] - 1 : WF_POLICY_NONE;
    uint64_t keys[LENGTH];
    float bars[LENGTH];
    w->asked += LENGTH;
    w->hits += there;
    for (uint32_t i = 0; i < there; i++)
        block_used(w, chain, i);
    if (there)
        w->ops->leave(w->policy, tip);
    for (uint32_t i = 0; i < missing; i++)
        keys[i] = key_of(chain, there + i);
    const struct wf_policy_ask said = {.parent = tip,
                                       .count = missing,
                                       .keys = keys,
                                       .now_us = w->now_us};
    if (missing)
        w->ops->ask(w->policy, &said, bars);
    for (; room < missing; room++) {
        if (w->capacity - (SLOTS - w->spares) > room)
            continue;
        uint32_t slot = w->ops->victim(w->policy, w->now_us, bars[room]);
        if (slot == WF_POLICY_NONE)
            break;
        gone(w, slot);
    }
    if (room < missing)
        w->ops->refused(w->policy, &said, room);
    for (uint32_t i = 0; i < room; i++) {
        block_new(w, chain);
        block_used(w, chain, there + i);
    }
    if (w->held[chain])
        w->ops->enter(w->policy, w->slot_of[chain][w->held[chain] - 1] - 1);
}

/* Full of chains that came every ten seconds, so often, and whose waiting counts that much. */
static struct world *world_of(const struct wf_policy_ops *ops, uint32_t times, float weight)
{
    struct world *w = world_open(ops, HELD);
    for (uint32_t round = 0; round < times; round++)
        for (uint32_t chain = 0; chain < OLD; chain++) {
            w->now_us += 10 * (uint64_t)SECOND / OLD;
            request(w, chain, 3);
            for (uint32_t i = 0; i < 3; i++)
                w->ops->hint(w->policy, &(struct wf_policy_hint){.kind = WF_POLICY_WEIGHS,
                                                                 .slot = w->slot_of[chain][i] - 1,
                                                                 .weight = weight});
        }
    return w;
}

static uint32_t stored_after_s(uint32_t times, float weight, uint32_t new_chains)
{
    struct world *w = world_of(&wf_policy_value, times, weight);
    uint32_t after_s = 0;
    for (uint32_t i = 0; after_s <= SOON_S; i++) {
        uint32_t chain = 1000 + i % new_chains;
        after_s += EVERY_S;
        w->now_us += EVERY_S * (uint64_t)SECOND;
        comes(w, chain);
        if (w->held[chain] == LENGTH)
            break;
    }
    world_close(w);
    return after_s;
}

static void test_what_nobody_wants_any_more_makes_room(void **state)
{
    (void)state;
    for (uint32_t times = 1; times <= TIMES; times++) {
        uint32_t once_s = stored_after_s(times, 1, 1000), again_s = stored_after_s(times, 1, 4);
        uint32_t heavy_s = stored_after_s(times, 16, 1000);
        print_message("wanted %u times: a new one is there after %u s, %u s where they come again; "
                      "of the highest priority %u s\n",
                      times, once_s, again_s, heavy_s);
        assert_true(heavy_s <= SOON_S);
        assert_true(once_s <= SOON_S && again_s <= SOON_S);
    }
}

/* Of the requests of the first ten minutes after the change. */
static double hit_rate(const struct wf_policy_ops *ops, uint32_t times)
{
    struct world *w = world_of(ops, times, 1);
    w->asked = w->hits = 0;
    for (uint32_t i = 0; i < 600 / EVERY_S; i++) {
        w->now_us += EVERY_S * (uint64_t)SECOND;
        comes(w, 1000 + i % 6);
    }
    double rate = (double)w->hits / (double)w->asked;
    world_close(w);
    return rate;
}

static void test_a_change_costs_little(void **state)
{
    (void)state;
    for (uint32_t times = 1; times <= TIMES; times++) {
        double lru = hit_rate(&wf_policy_lru, times), value = hit_rate(&wf_policy_value, times);
        print_message("wanted %u times: hits %.3f, of lru %.3f\n", times, value, lru);
        assert_true(value > lru - 0.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nobody_wants_any_more_makes_room),
        cmocka_unit_test(test_a_change_costs_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
