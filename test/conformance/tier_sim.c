/* SPDX-License-Identifier: Apache-2.0
 *
 * The faults of the simulated tier, which whoever is tested with it relies on.
 */
#include "tier_world.h"

#include "tier/sim.h"

static void test_errors_are_errors(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 30000, 3000), next = block_of(2, 1, 30000, 3000);
    assert_int_equal(write_block(w, &block), WEFT_OK);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.read_error = 1,
                                                             .write_error = 1,
                                                             .flush_error = 1,
                                                             .lost = 1});
    assert_int_equal(outcome(w, read_request(w, 0, &block, 0, 0)), WEFT_E_SYSTEM);
    assert_int_equal(write_block(w, &next), WEFT_E_SYSTEM);
    assert_int_equal(flush(w), WEFT_E_SYSTEM);
    assert_int_equal(stats_of(w).errors, 3);
    assert_int_equal(stats_of(w).blocks, 1);
    assert_false(stats_of(w).failed);
    world_crash(w);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){0});
    assert_absent(w, &block); /* no flush was said to have worked */
    assert_absent(w, &next);
}

static void test_a_medium_that_vanishes(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 30000, 3000);
    assert_int_equal(write_block(w, &block), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    assert_int_equal(w->ops->submit(w->tier, read_request(w, 1, &block, 0, 0)), WEFT_OK);
    assert_true(wf_tier_sim_plug(w->path, false));
    assert_int_equal(reap_one(w)->status, WEFT_E_SYSTEM);
    assert_true(stats_of(w).failed);
    assert_true(wf_tier_sim_plug(w->path, true)); /* too late: it stays so until it is opened */
    assert_int_equal(outcome(w, read_request(w, 0, &block, 0, 0)), WEFT_E_SYSTEM);
    assert_int_equal(flush(w), WEFT_E_SYSTEM);
    assert_true(wf_tier_sim_plug(w->path, false));
    w->ops->close(w->tier);
    w->tier = NULL;
    assert_int_equal(w->ops->open(&w->options, &w->tier), WEFT_E_SYSTEM);
    assert_null(w->tier);
    assert_true(wf_tier_sim_plug(w->path, true));
    world_reopen(w);
    assert_false(stats_of(w).failed);
    assert_whole(w, &block);
}

static void test_a_stalled_medium_can_be_given_up(void **state)
{
    struct world *w = *state;
    struct wf_tier_block block = block_of(1, 0, 30000, 3000);
    assert_int_equal(write_block(w, &block), WEFT_OK);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.slow = 1, .slow_us = 3600000000});
    struct wf_tier_request *r = read_request(w, 0, &block, 0, 0), *out;
    assert_int_equal(w->ops->submit(w->tier, r), WEFT_OK);
    assert_int_equal(w->ops->reap(w->tier, &out, 1, 1000), 0);
    w->ops->cancel(w->tier, r);
    assert_int_equal(w->ops->reap(w->tier, &out, 1, 0), 1);
    assert_ptr_equal(out, r);
    assert_int_equal(r->status, WEFT_E_TIMEOUT);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.bytes_per_us = 1000});
    uint64_t from = wf_tier_sim_now_us(w->tier);
    assert_whole(w, &block);
    assert_in_range(wf_tier_sim_now_us(w->tier) - from, 30, 35);
}

/* The order in which requests end is the seed's, and all that a test needs to see it again. */
static void order_of(struct world *w, uint64_t seed, uint32_t order[16])
{
    struct wf_tier_block block = block_of(1, 0, 3000, 300);
    w->ops->close(w->tier);
    w->tier = NULL;
    w->options.seed = seed;
    assert_int_equal(w->ops->open(&w->options, &w->tier), WEFT_OK);
    for (uint32_t i = 0; i < 16; i++)
        assert_int_equal(w->ops->submit(w->tier, read_request(w, i, &block, 0, 0)), WEFT_OK);
    for (uint32_t i = 0; i < 16; i++)
        order[i] = (uint32_t)(reap_one(w) - w->requests);
}

static void test_a_seed_repeats_itself(void **state)
{
    struct world *w = *state;
    uint32_t one[16], two[16], three[16];
    order_of(w, 7, one);
    order_of(w, 7, two);
    order_of(w, 8, three);
    assert_memory_equal(one, two, sizeof one);
    assert_memory_not_equal(one, three, sizeof one);
}

const struct CMUnitTest sim_tests[] = {
    TEST(test_errors_are_errors),
    TEST(test_a_medium_that_vanishes),
    TEST(test_a_stalled_medium_can_be_given_up),
    TEST(test_a_seed_repeats_itself),
    TEST(test_random_operations_with_faults),
};
const size_t sim_test_count = sizeof sim_tests / sizeof sim_tests[0];
