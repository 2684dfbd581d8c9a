/* SPDX-License-Identifier: Apache-2.0
 *
 * The guard over eviction by value: what is learned wrongly stands no longer than it takes to see.
 *
 * Nothing misleads a model that learns as well as hints that were right for long and are lies then.
 */
#include "value_world.h"

#define CALLS 4000u /* of each half: hints are right in the first, and wrong in the second */

struct outcome {
    double hit_rate;   /* in the later part of the second half */
    uint32_t lru, lfu; /* steps of the second half in which that order stood */
};

static bool stands(const struct world *w, uint32_t chain, const char *rule)
{
    return w->held[chain] && strcmp(reason_of(w, chain).rule, rule) == 0;
}

static void look(struct world *w, uint32_t chain, uint32_t step, struct outcome *out)
{
    if (step < CALLS)
        return;
    out->lru += stands(w, chain, "lru_leaf");
    out->lfu += stands(w, chain, "lfuda");
    if (step == CALLS + CALLS / 2)
        w->asked = w->hits = 0;
}

/* Every other chain comes back once, soon; the others never do.  What was used last is worth most,
 * whatever is said. */
static struct outcome soon(const struct wf_policy_ops *ops)
{
    struct world *w = world_open(ops, 160);
    struct outcome out = {0};
    for (uint32_t step = 0; step < 2 * CALLS; step++) {
        w->now_us += SECOND;
        request(w, step, 2);
        say(w, step, (step % 2 == 0) == (step < CALLS) ? WF_POLICY_WANTED : WF_POLICY_DONE);
        look(w, step, step, &out);
        if (step >= 40 && step % 2 == 0) {
            request(w, step - 40, 2);
            say(w, step - 40, step < CALLS ? WF_POLICY_DONE : WF_POLICY_WANTED);
        }
    }
    out.hit_rate = (double)w->hits / (double)w->asked;
    world_close(w);
    return out;
}

/* 300 chains, each asked for by chance, the first 40 ten times as often as the others: all have had
 * many requests, so that only who counts them all knows.  What is said is wrong from half time on.
 */
static struct outcome often(const struct wf_policy_ops *ops)
{
    struct world *w = world_open(ops, 110);
    struct outcome out = {0};
    struct random_source random = random_seeded("often");
    for (uint32_t step = 0; step < 2 * CALLS; step++) {
        w->now_us += SECOND;
        bool popular = random_below(&random, 10) < 6;
        uint32_t chain = popular ? random_below(&random, 40) : 40 + random_below(&random, 260);
        request(w, chain, 2);
        say(w, chain, popular == (step < CALLS) ? WF_POLICY_WANTED : WF_POLICY_DONE);
        look(w, chain, step, &out);
    }
    out.hit_rate = (double)w->hits / (double)w->asked;
    world_close(w);
    return out;
}

static void test_lru_takes_over(void **state)
{
    (void)state;
    struct outcome lru = soon(&wf_policy_lru), weft = soon(&wf_policy_value);
    assert_true(lru.hit_rate > 0.3); /* all that come back: a third */
    assert_true(weft.lru > 0);
    assert_true(weft.hit_rate > lru.hit_rate - 0.01);
}

static void test_lfu_takes_over(void **state)
{
    (void)state;
    struct outcome lru = often(&wf_policy_lru), weft = often(&wf_policy_value);
    assert_true(weft.lfu > 0);
    assert_true(weft.hit_rate > lru.hit_rate + 0.08); /* 0.15 is usual */
}

/* As a node does: what is there is used, room is made for all the rest, and that is used. */
static void request_reserved(struct world *w, uint32_t chain, uint32_t length)
{
    uint32_t there = w->held[chain];
    w->asked += length;
    w->hits += there;
    if (there)
        w->ops->leave(w->policy, w->slot_of[chain][there - 1] - 1);
    for (uint32_t i = 0; i < length; i++) {
        if (i == there)
            while (SLOTS - w->spares + length - there > w->capacity)
                one_goes(w);
        if (i >= there)
            block_new(w, chain);
        block_used(w, chain, i);
    }
    w->ops->enter(w->policy, w->slot_of[chain][length - 1] - 1);
}

/* Conversations that grow by two blocks a turn, one turn in three requests, among chains that never
 * come back: the order that tells them apart stays in charge, though a part of the pool stands
 * empty whenever room is made, and a conversation is used before what it adds is. */
static void test_room_that_is_reserved_is_not_lost(void **state)
{
    (void)state;
    struct world *w = world_open(&wf_policy_value, 150);
    struct random_source random = random_seeded("reserved");
    uint32_t others = 0, next = 0, chains[24] = {0}, lengths[24] = {0};
    for (uint32_t step = 0; step < CALLS; step++) {
        uint32_t which = random_below(&random, 24), chain = next;
        w->now_us += SECOND;
        if (step % 3) {
            request_reserved(w, next++, LENGTH);
        } else {
            if (lengths[which] == 0)
                chains[which] = next++;
            chain = chains[which];
            request_reserved(w, chain, lengths[which] + 2);
            lengths[which] = (lengths[which] + 2) % LENGTH;
        }
        if (step == CALLS / 2)
            w->asked = w->hits = 0;
        if (step >= CALLS / 2)
            others += !stands(w, chain, "weft");
    }
    assert_int_equal(others, 0);
    assert_true((double)w->hits / (double)w->asked > 0.13); /* 0.143 is all that there is */
    world_close(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room_that_is_reserved_is_not_lost),
        cmocka_unit_test(test_lru_takes_over),
        cmocka_unit_test(test_lfu_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
