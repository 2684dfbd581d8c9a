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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru_takes_over),
        cmocka_unit_test(test_lfu_takes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
