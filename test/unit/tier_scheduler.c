/* SPDX-License-Identifier: Apache-2.0
 *
 * The scheduler over a simulated tier that takes one request at a time, so that the order is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../support/payload.h"
#include "tier/scheduler.h"
#include "tier/sim.h"

#define BLOCKS 40u
#define BYTES 8192u

struct world {
    struct wf_tier *tier;
    struct wf_tier_scheduler *scheduler;
    struct wf_tier_schedule schedule;
    struct wf_tier_job jobs[BLOCKS];
    uint8_t *memory;
};

static uint8_t *memory_of(struct world *w, uint32_t i)
{
    return w->memory + (size_t)i * BYTES;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    w->memory = aligned_alloc(WF_TIER_ALIGN, (size_t)BLOCKS * BYTES);
    assert_non_null(w->memory);
    struct wf_tier_options options = {.path = "scheduled", .queue_depth = 16, .seed = 1};
    assert_int_equal(wf_tier_sim.open(&options, &w->tier), WEFT_OK);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.bytes_per_us = 1024});
    for (uint32_t i = 0; i < BLOCKS; i++) {
        struct wf_tier_request *out, r = {.op = WF_TIER_WRITE, .data = memory_of(w, 0)};
        r.block = (struct wf_tier_block){.bytes = BYTES, .part_bytes = BYTES};
        random_key(i, r.block.key);
        payload_fill(r.data, BYTES, r.block.key);
        assert_int_equal(wf_tier_sim.submit(w->tier, &r), WEFT_OK);
        assert_int_equal(wf_tier_sim.reap(w->tier, &out, 1, 1000), 1);
        assert_int_equal(r.status, WEFT_OK);
    }
    w->schedule = (struct wf_tier_schedule){
        .ops = &wf_tier_sim,
        .tier = w->tier,
        .queue_depth = 1,
        .background_depth = 1,
        .jobs_max = BLOCKS,
        .shares = {1, 30, 10, 1},
    };
    assert_int_equal(wf_tier_scheduler_create(&w->schedule, &w->scheduler), WEFT_OK);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    wf_tier_scheduler_destroy(w->scheduler);
    wf_tier_sim.close(w->tier);
    wf_tier_sim_forget("scheduled");
    free(w->memory);
    free(w);
    return 0;
}

/* A read of block `block` by job `i`. */
static void ask(struct world *w, uint32_t i, uint32_t block, enum wf_tier_class class,
                uint64_t deadline_us)
{
    w->jobs[i] = (struct wf_tier_job){.class = class, .deadline_us = deadline_us};
    w->jobs[i].request.op = WF_TIER_READ;
    w->jobs[i].request.data = memory_of(w, i);
    random_key(block, w->jobs[i].request.block.key);
    memset(memory_of(w, i), 0, BYTES);
    assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &w->jobs[i]), WEFT_OK);
}

static uint32_t next_done(struct world *w)
{
    struct wf_tier_job *job;
    for (int tries = 0; tries < 100; tries++) {
        if (wf_tier_scheduler_reap(w->scheduler, wf_tier_sim_now_us(w->tier), &job, 1, 100))
            return (uint32_t)(job - w->jobs);
    }
    fail_msg("no job ends");
    return 0;
}

static void done_well(struct world *w, uint32_t i)
{
    assert_int_equal(next_done(w), i);
    assert_int_equal(w->jobs[i].request.status, WEFT_OK);
    assert_true(payload_right(memory_of(w, i), BYTES, w->jobs[i].request.block.key));
}

static void test_who_waits_goes_first(void **state)
{
    struct world *w = *state;
    ask(w, 0, 0, WF_TIER_PREFETCH, 100000);
    ask(w, 1, 1, WF_TIER_WAITED, 900000);
    ask(w, 2, 2, WF_TIER_WAITED, 0);
    ask(w, 3, 3, WF_TIER_WAITED, 300000);
    ask(w, 4, 4, WF_TIER_PREFETCH, 50000);
    static const uint32_t order[] = {3, 1, 2, 4, 0};
    for (uint32_t i = 0; i < 5; i++)
        done_well(w, order[i]);
}

static void test_classes_get_their_shares(void **state)
{
    struct world *w = *state;
    uint32_t prefetched = 0;
    for (uint32_t i = 0; i < 40; i++)
        ask(w, i, i, i % 2 ? WF_TIER_PREFETCH : WF_TIER_DEMOTE, 0);
    for (uint32_t i = 0; i < 20; i++)
        prefetched += next_done(w) % 2;
    assert_in_range(prefetched, 14, 16); /* 30 : 10 */
    for (uint32_t i = 0; i < 20; i++)
        next_done(w);
}

static void test_room_is_kept_for_who_waits(void **state)
{
    struct world *w = *state;
    wf_tier_scheduler_destroy(w->scheduler);
    w->schedule.queue_depth = 8;
    w->schedule.background_depth = 2;
    assert_int_equal(wf_tier_scheduler_create(&w->schedule, &w->scheduler), WEFT_OK);
    struct wf_tier_job *none;
    struct wf_tier_stats stats;
    for (uint32_t i = 0; i < 20; i++)
        ask(w, i, i, WF_TIER_PREFETCH, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.in_flight, 2);
    for (uint32_t i = 20; i < 30; i++)
        ask(w, i, i, WF_TIER_WAITED, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.in_flight, 8);
    for (uint32_t i = 0; i < 30; i++)
        assert_int_equal(w->jobs[next_done(w)].request.status, WEFT_OK);
}

static void test_readers_of_one_block_share_one_read(void **state)
{
    struct world *w = *state;
    struct wf_tier_stats stats;
    ask(w, 0, 5, WF_TIER_PREFETCH, 0);
    ask(w, 1, 6, WF_TIER_PREFETCH, 10000);
    ask(w, 2, 5, WF_TIER_WAITED, 0); /* makes 0 as urgent as itself */
    ask(w, 3, 5, WF_TIER_SCRUB, 0);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t done = next_done(w);
        assert_int_not_equal(done, 1);
        assert_int_equal(w->jobs[done].request.status, WEFT_OK);
        assert_int_equal(w->jobs[done].request.bytes, BYTES);
        assert_true(payload_right(memory_of(w, done), BYTES, w->jobs[0].request.block.key));
    }
    done_well(w, 1);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.reads, 2);
}

static void test_who_is_cancelled_takes_nobody_along(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    ask(w, 0, 1, WF_TIER_WAITED, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0); /* 0 is in flight */
    ask(w, 1, 2, WF_TIER_WAITED, 0);
    ask(w, 2, 2, WF_TIER_WAITED, 0);
    ask(w, 3, 1, WF_TIER_WAITED, 0);
    ask(w, 4, 3, WF_TIER_WAITED, 0);
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[0]); /* 3 needs it */
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[1]); /* 2 takes its place */
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[4]); /* alone, and never begun */
    bool seen[5] = {false};
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t done = next_done(w);
        assert_false(seen[done]);
        seen[done] = true;
        bool given_up = done == 1 || done == 4;
        assert_int_equal(w->jobs[done].request.status, given_up ? WEFT_E_TIMEOUT : WEFT_OK);
        if (!given_up)
            assert_true(payload_right(memory_of(w, done), BYTES, w->jobs[done].request.block.key));
    }
}

static void test_what_is_too_late_is_not_begun(void **state)
{
    struct world *w = *state;
    struct wf_tier_stats stats;
    uint64_t now_us = wf_tier_sim_now_us(w->tier);
    ask(w, 0, 1, WF_TIER_PREFETCH, now_us - 1);
    assert_int_equal(next_done(w), 0);
    assert_int_equal(w->jobs[0].request.status, WEFT_E_TIMEOUT);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.reads, 0);
}

static void test_no_more_than_agreed_is_taken(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < BLOCKS; i++)
        ask(w, i, i, WF_TIER_WAITED, 0);
    struct wf_tier_job more = w->jobs[0];
    assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &more), WEFT_PENDING);
    for (uint32_t i = 0; i < BLOCKS; i++) /* without deadlines, as they came */
        done_well(w, i);
    more.class = WF_TIER_CLASSES;
    assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &more), WEFT_E_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_who_waits_goes_first),
        TEST(test_classes_get_their_shares),
        TEST(test_room_is_kept_for_who_waits),
        TEST(test_readers_of_one_block_share_one_read),
        TEST(test_who_is_cancelled_takes_nobody_along),
        TEST(test_what_is_too_late_is_not_begun),
        TEST(test_no_more_than_agreed_is_taken),
    };
    return cmocka_run_group_tests_name("tier scheduler", tests, NULL, NULL);
}
