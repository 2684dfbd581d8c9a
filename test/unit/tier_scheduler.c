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

static void prepare(struct world *w, uint32_t i, uint32_t block, enum wf_tier_class class)
{
    w->jobs[i] = (struct wf_tier_job){.class = class};
    w->jobs[i].request.op = WF_TIER_READ;
    w->jobs[i].request.data = memory_of(w, i);
    random_key(block, w->jobs[i].request.block.key);
    memset(memory_of(w, i), 0, BYTES);
}

/* A read of block `block` by job `i`. */
static void ask(struct world *w, uint32_t i, uint32_t block, enum wf_tier_class class,
                uint64_t deadline_us)
{
    prepare(w, i, block, class);
    w->jobs[i].deadline_us = deadline_us;
    assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &w->jobs[i]), WEFT_OK);
}

static void ask_until(struct world *w, uint32_t i, uint32_t block, enum wf_tier_class class,
                      uint64_t expires_us)
{
    prepare(w, i, block, class);
    w->jobs[i].expires_us = expires_us;
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

/* To who asked for the block, a frame would be wrong bytes; and who asks for what lies there is
 * told what that is, which another's read does not say. */
static void test_who_reads_it_as_it_lies_reads_alone(void **state)
{
    struct world *w = *state;
    struct wf_tier_stats stats;
    for (uint32_t i = 0; i < 5; i++) {
        prepare(w, i, 5, WF_TIER_DEMOTE);
        w->jobs[i].request.as_stored = i % 2 == 0;
        w->jobs[i].request.block.bytes = BYTES;
        assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &w->jobs[i]), WEFT_OK);
    }
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(w->jobs[next_done(w)].request.status, WEFT_OK);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.reads, 3 + 1); /* 1 and 3 share one */
}

static void test_who_is_hurried_goes_first(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    ask(w, 0, 0, WF_TIER_PREFETCH, 10);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0); /* 0 is in flight */
    ask(w, 1, 1, WF_TIER_PREFETCH, 20);
    ask(w, 2, 2, WF_TIER_PREFETCH, 30);
    ask(w, 3, 3, WF_TIER_WAITED, 500);
    ask(w, 4, 2, WF_TIER_SCRUB, 0); /* waits for the bytes of 2 */
    ask(w, 5, 4, WF_TIER_WAITED, 400);
    wf_tier_scheduler_hurry(w->scheduler, &w->jobs[4], WF_TIER_WAITED, 100);
    wf_tier_scheduler_hurry(w->scheduler, &w->jobs[3], WF_TIER_WAITED, 300);
    done_well(w, 0);
    uint32_t both = next_done(w) + next_done(w);
    assert_int_equal(both, 2 + 4);
    done_well(w, 3);
    done_well(w, 5);
    done_well(w, 1);
    wf_tier_scheduler_hurry(w->scheduler, &w->jobs[1], WF_TIER_WAITED, 1); /* nothing to hurry */
}

/* In flight, it takes up no room any more that is meant for what nobody waits for. */
static void test_who_is_hurried_in_flight_makes_room(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    struct wf_tier_stats stats;
    wf_tier_scheduler_destroy(w->scheduler);
    w->schedule.queue_depth = 8;
    w->schedule.background_depth = 2;
    assert_int_equal(wf_tier_scheduler_create(&w->schedule, &w->scheduler), WEFT_OK);
    for (uint32_t i = 0; i < 6; i++)
        ask(w, i, i, WF_TIER_PREFETCH, 10 + i);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    wf_tier_scheduler_hurry(w->scheduler, &w->jobs[1], WF_TIER_WAITED, 5);
    wf_tier_scheduler_hurry(w->scheduler, &w->jobs[1], WF_TIER_WAITED, 4);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    wf_tier_sim.stats(w->tier, &stats);
    assert_int_equal(stats.in_flight, 3);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(w->jobs[next_done(w)].request.status, WEFT_OK);
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

static uint32_t in_flight(const struct world *w)
{
    struct wf_tier_stats stats;
    wf_tier_sim.stats(w->tier, &stats);
    return stats.in_flight;
}

static uint64_t reads(const struct world *w)
{
    struct wf_tier_stats stats;
    wf_tier_sim.stats(w->tier, &stats);
    return stats.reads;
}

static void test_what_expired_is_not_begun(void **state)
{
    struct world *w = *state;
    uint64_t now_us = wf_tier_sim_now_us(w->tier);
    ask_until(w, 0, 1, WF_TIER_PREFETCH, now_us - 1);
    assert_int_equal(next_done(w), 0);
    assert_int_equal(w->jobs[0].request.status, WEFT_E_TIMEOUT);
    assert_int_equal(reads(w), 0);
    ask_until(w, 0, 1, WF_TIER_PREFETCH, now_us + 1000000);
    done_well(w, 0);
}

static void test_a_deadline_drops_nothing(void **state)
{
    struct world *w = *state;
    wf_tier_sim_advance(w->tier, 1000);
    ask(w, 0, 1, WF_TIER_WAITED, 0);
    ask(w, 1, 2, WF_TIER_WAITED, 2); /* as layers in their order: small numbers, long past */
    ask(w, 2, 3, WF_TIER_WAITED, 1);
    done_well(w, 2);
    done_well(w, 1);
    done_well(w, 0);
}

/* One follower expires, one takes the expired leader's place, and one had begun. */
static void test_followers_expire_for_themselves(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    uint64_t now_us = wf_tier_sim_now_us(w->tier);
    ask(w, 0, 1, WF_TIER_WAITED, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0); /* 0 is in flight */
    ask_until(w, 1, 1, WF_TIER_WAITED, now_us - 1);       /* and so is what 1 waits for */
    ask_until(w, 2, 2, WF_TIER_WAITED, now_us - 1);
    ask(w, 3, 2, WF_TIER_WAITED, 0);
    ask_until(w, 4, 2, WF_TIER_WAITED, now_us - 1);
    bool seen[5] = {false};
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t done = next_done(w);
        assert_false(seen[done]);
        seen[done] = true;
        bool late = done == 2 || done == 4;
        assert_int_equal(w->jobs[done].request.status, late ? WEFT_E_TIMEOUT : WEFT_OK);
        if (!late)
            assert_true(payload_right(memory_of(w, done), BYTES, w->jobs[done].request.block.key));
    }
    assert_int_equal(reads(w), 2);
}

static void make_wide(struct world *w, uint32_t queue_depth, uint32_t background_depth)
{
    wf_tier_scheduler_destroy(w->scheduler);
    w->schedule.queue_depth = queue_depth;
    w->schedule.background_depth = background_depth;
    assert_int_equal(wf_tier_scheduler_create(&w->schedule, &w->scheduler), WEFT_OK);
}

static void test_what_is_waited_for_is_not_behind(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    make_wide(w, 8, 1);
    for (uint32_t i = 0; i < 4; i++)
        ask(w, i, i, WF_TIER_PREFETCH, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    assert_int_equal(in_flight(w), 1);
    ask(w, 4, 0, WF_TIER_WAITED, 0); /* joins 0, which is in flight, and frees its room behind */
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    assert_int_equal(in_flight(w), 2);
    ask(w, 5, 3, WF_TIER_WAITED, 0); /* takes 3 out of the queue behind */
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    assert_int_equal(in_flight(w), 3);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_equal(w->jobs[next_done(w)].request.status, WEFT_OK);
    assert_int_equal(reads(w), 4);
}

static void test_a_hurry_goes_with_who_brought_it(void **state)
{
    struct world *w = *state;
    ask(w, 0, 0, WF_TIER_PREFETCH, 20);
    ask(w, 1, 1, WF_TIER_PREFETCH, 10);
    ask(w, 2, 0, WF_TIER_WAITED, 0);
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[2]);
    assert_int_equal(next_done(w), 2);
    assert_int_equal(w->jobs[2].request.status, WEFT_E_TIMEOUT);
    done_well(w, 1);
    done_well(w, 0);
}

/* Who leads is given up first and its follower after it: then nobody needs the read. */
static void test_the_last_to_go_stops_the_read(void **state)
{
    struct world *w = *state;
    struct wf_tier_job *none;
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.slow = 1, .slow_us = 3600000000});
    ask(w, 0, 1, WF_TIER_WAITED, 0);
    wf_tier_scheduler_reap(w->scheduler, 0, &none, 0, 0);
    ask(w, 1, 1, WF_TIER_WAITED, 0);
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[0]);
    ask(w, 2, 1, WF_TIER_WAITED, 0); /* still to be had */
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[1]);
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[2]);
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.bytes_per_us = 1024});
    ask(w, 3, 1, WF_TIER_WAITED, 0); /* a read of its own */
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t done = next_done(w);
        assert_int_equal(w->jobs[done].request.status, done == 3 ? WEFT_OK : WEFT_E_TIMEOUT);
    }
    assert_int_equal(reads(w), 1);
    wf_tier_scheduler_cancel(w->scheduler, &w->jobs[3]); /* nothing to cancel any more */
}

/* Whatever is asked, joined, cancelled and expired: each job ends once, and its bytes are right. */
static void test_random_jobs(void **state)
{
    struct world *w = *state;
    struct random_source random = random_seeded("tier_scheduler");
    bool asked[BLOCKS] = {false};
    uint32_t ended = 0, right = 0;
    wf_tier_sim_faults(w->tier, &(struct wf_tier_sim_faults){.latency_us_max = 40, .full = 0});
    make_wide(w, 6, 2);
    for (uint32_t step = 0; step < 60000; step++) {
        uint32_t i = random_below(&random, BLOCKS);
        if (!asked[i] && step < 59000) {
            prepare(w, i, random_below(&random, 12), random_below(&random, WF_TIER_CLASSES));
            w->jobs[i].deadline_us = random_below(&random, 100);
            if (random_below(&random, 3) == 0)
                w->jobs[i].expires_us = wf_tier_sim_now_us(w->tier) + random_below(&random, 200);
            assert_int_equal(wf_tier_scheduler_submit(w->scheduler, &w->jobs[i]), WEFT_OK);
            asked[i] = true;
        } else if (random_below(&random, 8) == 0) {
            wf_tier_scheduler_cancel(w->scheduler, &w->jobs[i]);
        }
        struct wf_tier_job *done[3];
        uint32_t count = wf_tier_scheduler_reap(w->scheduler, wf_tier_sim_now_us(w->tier), done,
                                                random_below(&random, 4), 0);
        assert_true(in_flight(w) <= 6);
        for (uint32_t k = 0; k < count; k++, ended++) {
            uint32_t at = (uint32_t)(done[k] - w->jobs);
            assert_true(asked[at]);
            asked[at] = false;
            if (done[k]->request.status == WEFT_OK) {
                assert_true(payload_right(memory_of(w, at), BYTES, done[k]->request.block.key));
                right++;
            } else {
                assert_int_equal(done[k]->request.status, WEFT_E_TIMEOUT);
            }
        }
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        assert_false(asked[i]);
    assert_int_equal(in_flight(w), 0);
    assert_true(ended > 3000 && right > ended / 4 && right < ended && reads(w) < right);
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
        TEST(test_who_reads_it_as_it_lies_reads_alone),
        TEST(test_who_is_hurried_goes_first),
        TEST(test_who_is_hurried_in_flight_makes_room),
        TEST(test_who_is_cancelled_takes_nobody_along),
        TEST(test_what_expired_is_not_begun),
        TEST(test_a_deadline_drops_nothing),
        TEST(test_followers_expire_for_themselves),
        TEST(test_what_is_waited_for_is_not_behind),
        TEST(test_a_hurry_goes_with_who_brought_it),
        TEST(test_the_last_to_go_stops_the_read),
        TEST(test_random_jobs),
        TEST(test_no_more_than_agreed_is_taken),
    };
    return cmocka_run_group_tests_name("tier scheduler", tests, NULL, NULL);
}
