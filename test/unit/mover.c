/* SPDX-License-Identifier: Apache-2.0
 *
 * The mover: jobs come back exactly once whatever becomes of the tier, in the order that is
 * promised; what is found is told; failures, stalls and comebacks are; bits that flip are caught.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/wait.h>

#include "../support/medium.h"
#include "base/sum.h"
#include "mover_world.h"

#define CHAIN 5000u

/* --------------------------------------------------------------------------- what jobs come to */

static void each_kind(struct world *w)
{
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_MISS);
    assert_int_equal(world_run(w, WF_MOVE_REMOVE, 1), WEFT_MISS);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, 1), WEFT_MISS);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_EXISTS);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_FLUSH, 0), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_REMOVE, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_MISS);
}

static void test_each_kind(void **state)
{
    struct world *w = *state;
    world_open(w);
    each_kind(w);
}

static void open_nvme(struct world *w)
{
    if (!medium_has_ring()) {
        print_message("# io_uring is missing\n");
        skip();
    }
    assert_true(medium_name(w->path, sizeof w->path));
    w->options.ops = &wf_tier_nvme;
    w->options.tier.path = w->path;
    w->options.tier.capacity_bytes = (uint64_t)40 << 20;
    world_open(w);
}

static void test_each_kind_nvme(void **state)
{
    struct world *w = *state;
    open_nvme(w);
    each_kind(w);
}

static void test_payload_is_checked_first(void **state)
{
    struct world *w = *state;
    world_open(w);
    struct world_job *job = world_job(w, WF_MOVE_WRITE, 5);
    job->move.checksum = 12345;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
    w->busy++;
    WAIT_FOR(w, done, 1);
    assert_int_equal(job->move.job.request.status, WEFT_E_CORRUPT);
    assert_int_equal(world_run(w, WF_MOVE_READ, 5), WEFT_MISS);
    job = world_submit(w, WF_MOVE_WRITE, 5);
    WAIT_FOR(w, done, w->done + 1);
    uint64_t checksum = job->move.checksum;
    assert_int_equal(checksum, wf_sum64(memory_of(w, job), job->move.job.request.block.bytes));
    assert_true(job->move.job.request.block.bytes > job->move.job.request.block.part_bytes);
    assert_int_equal(world_run(w, WF_MOVE_REMOVE, 5), WEFT_OK);
    job = world_job(w, WF_MOVE_WRITE, 5);
    job->move.checksum = checksum;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
    w->busy++;
    WAIT_FOR(w, done, w->done + 1);
    assert_int_equal(job->move.job.request.status, WEFT_OK);
}

static void test_wrongly_put(void **state)
{
    struct world *w = *state;
    world_open(w);
    struct world_job *job = world_job(w, WF_MOVE_READ, 1);
    job->move.kind = 9;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_E_INVALID);
    job->move.kind = WF_MOVE_READ;
    job->move.job.request.data = memory_of(w, job) + 1;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_E_INVALID);
    job->move.kind = WF_MOVE_WRITE;
    job->move.job.request.data = memory_of(w, job);
    job->move.job.request.block.bytes = 0;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_E_INVALID);
    job->move.kind = WF_MOVE_FLUSH;
    job->move.job.class = WF_TIER_CLASSES;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_E_INVALID);
    job->busy = false;
}

static void random_load(struct world *w, uint32_t jobs, uint32_t blocks)
{
    for (uint32_t i = 0; i < jobs; i++) {
        if (w->busy == WORLD_JOBS || random_below(&w->random, 20) == 0)
            wf_mover_reap(w->mover);
        while (w->busy == WORLD_JOBS)
            WAIT_FOR(w, done, w->done + 1);
        uint32_t dice = random_below(&w->random, 100);
        enum wf_mover_kind kind = dice < 40   ? WF_MOVE_READ
                                  : dice < 70 ? WF_MOVE_WRITE
                                  : dice < 75 ? WF_MOVE_FLUSH
                                  : dice < 90 ? WF_MOVE_REMOVE
                                              : WF_MOVE_VERIFY;
        struct world_job *job = world_job(w, kind, random_below(&w->random, blocks));
        if (random_below(&w->random, 10) == 0)
            job->move.job.expires_us = wf_now_ns() / 1000 + random_below(&w->random, 2000);
        assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
        w->busy++;
        struct world_job *other = &w->jobs[random_below(&w->random, WORLD_JOBS)];
        if (other->busy && random_below(&w->random, 8) == 0)
            wf_mover_cancel(w->mover, &other->move);
        if (other->busy && random_below(&w->random, 8) == 0)
            wf_mover_hurry(w->mover, &other->move, 1 + random_below(&w->random, 1000));
    }
    WAIT_FOR(w, done, jobs);
    assert_int_equal(w->busy, 0);
    struct wf_mover_stats stats;
    wf_mover_stats(w->mover, &stats);
    assert_int_equal(stats.queued, 0);
}

static void test_random_load(void **state)
{
    struct world *w = *state;
    w->options.tier.capacity_bytes = 8 << 20;
    w->options.verify_bytes = WORLD_BYTES;
    world_open(w);
    gate_faults(&(struct wf_tier_sim_faults){.latency_us_max = 500,
                                             .bytes_per_us = 1000,
                                             .slow = 0.01,
                                             .slow_us = 3000,
                                             .read_error = 0.02,
                                             .write_error = 0.02,
                                             .rot = 0.01,
                                             .full = 0.02});
    random_load(w, 20000, 300);
    assert_true(w->ended[ENDED(WEFT_OK)] > 2000);
    assert_true(w->ended[ENDED(WEFT_E_TIMEOUT)] > 20);
    assert_true(w->ended[ENDED(WEFT_E_CORRUPT)] > 5);
    assert_true(w->ended[ENDED(WEFT_FULL)] > 5);
}

static void test_random_load_nvme(void **state)
{
    struct world *w = *state;
    open_nvme(w);
    random_load(w, 5000, 200);
    assert_true(w->ended[ENDED(WEFT_OK)] > 500);
}

/* -------------------------------------------------------------------------------------- order */

static void test_flush_waits_for_writes_before_it(void **state)
{
    struct world *w = *state;
    world_open(w);
    gate.journal_count = 0;
    atomic_store(&gate_shut, true);
    for (uint64_t i = 0; i < 5; i++)
        world_submit(w, WF_MOVE_WRITE, i);
    world_submit(w, WF_MOVE_FLUSH, 0);
    usleep(20000);
    for (uint64_t i = 5; i < 8; i++)
        world_submit(w, WF_MOVE_WRITE, i);
    usleep(20000);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, 9);
    uint32_t reaped = 0, flush_at = 0;
    for (uint32_t i = 0; i < gate.journal_count; i++) {
        if (gate.journal[i].op == WF_TIER_FLUSH && !gate.journal[i].reaped)
            flush_at = reaped + 1;
        reaped += gate.journal[i].op == WF_TIER_WRITE && gate.journal[i].reaped;
    }
    assert_int_equal(reaped, 8);
    assert_true(flush_at > 5);
    assert_int_equal(w->ended[ENDED(WEFT_OK)], 9);
}

static void test_remove_waits_and_is_waited_for(void **state)
{
    struct world *w = *state;
    world_open(w);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 3), WEFT_OK);
    atomic_store(&gate_shut, true);
    const struct world_job *jobs[] = {
        world_submit(w, WF_MOVE_READ, 3),   world_submit(w, WF_MOVE_VERIFY, 3),
        world_submit(w, WF_MOVE_REMOVE, 3), world_submit(w, WF_MOVE_READ, 3),
        world_submit(w, WF_MOVE_REMOVE, 3), world_submit(w, WF_MOVE_WRITE, 3),
        world_submit(w, WF_MOVE_REMOVE, 3), world_submit(w, WF_MOVE_WRITE, 3),
    };
    static const enum weft_status expected[] = {WEFT_OK,   WEFT_OK, WEFT_OK, WEFT_MISS,
                                                WEFT_MISS, WEFT_OK, WEFT_OK, WEFT_OK};
    usleep(20000);
    wf_mover_reap(w->mover);
    assert_int_equal(w->busy, 8);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, 9);
    for (int i = 0; i < 8; i++)
        assert_int_equal(jobs[i]->move.job.request.status, expected[i]);
}

static void test_the_queue_has_an_end(void **state)
{
    struct world *w = *state;
    w->options.jobs_max = 4;
    world_open(w);
    atomic_store(&gate_shut, true);
    for (uint64_t i = 0; i < 4; i++)
        world_submit(w, WF_MOVE_WRITE, i);
    struct world_job *job = world_job(w, WF_MOVE_FLUSH, 0);
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_PENDING);
    job->busy = false;
    world_in_flight(w, 4);
    struct wf_mover_stats stats;
    wf_mover_stats(w->mover, &stats);
    assert_int_equal(stats.queued, 0);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, 4);
    assert_int_equal(world_run(w, WF_MOVE_FLUSH, 0), WEFT_OK);
}

/* --------------------------------------------------------------------------------------- cancel */

static void test_cancel_before_it_is_open(void **state)
{
    struct world *w = *state;
    gate.open_shut = true;
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    struct world_job *waits = world_submit(w, WF_MOVE_READ, 1);
    struct world_job *goes = world_submit(w, WF_MOVE_READ, 2);
    wf_mover_cancel(w->mover, &goes->move);
    WAIT_FOR(w, done, 1);
    assert_int_equal(goes->move.job.request.status, WEFT_E_TIMEOUT);
    pthread_mutex_lock(&gate.lock);
    gate.open_shut = false;
    pthread_mutex_unlock(&gate.lock);
    WAIT_FOR(w, done, 2);
    assert_int_equal(waits->move.job.request.status, WEFT_MISS);
}

/* With the gate shut: one with the tier, one in the scheduler, one held, one to be verified. */
static void test_cancel_wherever_it_is(void **state)
{
    struct world *w = *state;
    w->options.tier.queue_depth = 1;
    w->options.background_depth = 1;
    world_open(w);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 2), WEFT_OK);
    atomic_store(&gate_shut, true);
    struct world_job *flying = world_submit(w, WF_MOVE_READ, 1);
    world_in_flight(w, 1);
    struct world_job *queued[] = {world_submit(w, WF_MOVE_READ, 2),
                                  world_submit(w, WF_MOVE_REMOVE, 1),
                                  world_submit(w, WF_MOVE_VERIFY, 2),
                                  world_submit(w, WF_MOVE_VERIFY, 3),
                                  world_submit(w, WF_MOVE_WRITE, 4),
                                  world_submit(w, WF_MOVE_FLUSH, 0)};
    usleep(10000);
    for (int i = 0; i < 6; i++) {
        if (i != 4)
            wf_mover_cancel(w->mover, &queued[i]->move);
        wf_mover_cancel(w->mover, &queued[i]->move);
    }
    WAIT_FOR(w, done, w->done + 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(queued[i]->move.job.request.status, WEFT_E_TIMEOUT);
    assert_true(flying->busy);
    wf_mover_cancel(w->mover, &flying->move);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, w->done + 1);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_READ, 4), WEFT_MISS);
}

/* Those that someone waits for go before those that came first, wherever they are: not taken up
 * yet, with the scheduler, or done meanwhile. */
static void test_who_is_hurried_goes_first(void **state)
{
    struct world *w = *state;
    w->options.tier.queue_depth = 1;
    w->options.background_depth = 1;
    world_open(w);
    for (uint64_t n = 1; n <= 6; n++)
        assert_int_equal(world_run(w, WF_MOVE_WRITE, n), WEFT_OK);
    atomic_store(&gate_shut, true);
    struct world_job *jobs[6];
    for (uint32_t i = 0; i < 6; i++) {
        jobs[i] = world_job(w, WF_MOVE_READ, i + 1);
        jobs[i]->move.job.class = WF_TIER_PREFETCH;
        jobs[i]->move.job.deadline_us = 1000 + i;
        assert_int_equal(wf_mover_submit(w->mover, &jobs[i]->move), WEFT_OK);
        w->busy++;
        if (i == 0)
            world_in_flight(w, 1);
        if (i == 4)
            usleep(20000); /* but for the last they are with the scheduler */
    }
    wf_mover_hurry(w->mover, &jobs[5]->move, 7); /* perhaps before it is taken up */
    wf_mover_hurry(w->mover, &jobs[3]->move, 5);
    wf_mover_hurry(w->mover, &jobs[2]->move, 6);
    wf_mover_hurry(w->mover, &jobs[2]->move, 4);
    wf_mover_hurry(w->mover, &jobs[4]->move, 8);
    wf_mover_cancel(w->mover, &jobs[4]->move);
    wf_mover_hurry(w->mover, &jobs[4]->move, 9);
    usleep(20000);
    uint64_t before = w->done;
    atomic_store(&gate_delay_us, 1000);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, before + 5);
    assert_int_equal(jobs[4]->move.job.request.status, WEFT_E_TIMEOUT);
    static const uint32_t order[] = {0, 2, 3, 5, 1};
    WAIT_FOR(w, done, before + 6);
    for (uint32_t i = 0; i + 1 < 5; i++)
        assert_true(jobs[order[i]]->move.done_ns < jobs[order[i + 1]]->move.done_ns);
}

static void test_what_expires_is_dropped(void **state)
{
    struct world *w = *state;
    w->options.tier.queue_depth = 1;
    w->options.background_depth = 1;
    world_open(w);
    atomic_store(&gate_shut, true);
    world_submit(w, WF_MOVE_WRITE, 1);
    world_in_flight(w, 1);
    struct world_job *late = world_job(w, WF_MOVE_READ, 2);
    late->move.job.expires_us = wf_now_ns() / 1000 + 5000;
    assert_int_equal(wf_mover_submit(w->mover, &late->move), WEFT_OK);
    w->busy++;
    WAIT_FOR(w, done, 1);
    assert_int_equal(late->move.job.request.status, WEFT_E_TIMEOUT);
    atomic_store(&gate_shut, false);
    WAIT_FOR(w, done, 2);
}

/* ------------------------------------------------------------------------------- what is found */

static struct {
    uint8_t last[32];
    uint32_t count;
} chain;

static void in_order(struct world *w, const struct wf_tier_block *block)
{
    (void)w;
    assert_memory_equal(block->parent, chain.last, 32); /* the one told before */
    memcpy(chain.last, block->key, 32);
    chain.count++;
}

static void write_through(struct wf_tier *tier, const struct wf_tier_block *block, void *data)
{
    struct wf_tier_request *out, r = {.op = WF_TIER_WRITE, .block = *block, .data = data};
    assert_int_equal(wf_tier_sim.submit(tier, &r), WEFT_OK);
    while (wf_tier_sim.reap(tier, &out, 1, 1000) == 0)
        ;
    assert_int_equal(r.status, WEFT_OK);
}

static void fill_chain(struct world *w)
{
    struct wf_tier *tier;
    struct wf_tier_block block = {.bytes = 512, .part_bytes = 512};
    assert_int_equal(wf_tier_sim.open(&w->options.tier, &tier), WEFT_OK);
    for (uint64_t i = 0; i < CHAIN; i++) {
        memcpy(block.parent, block.key, 32);
        if (i == 0)
            memset(block.parent, 0, 32);
        random_key(i, block.key);
        payload_fill(w->memory, block.bytes, block.key);
        write_through(tier, &block, w->memory);
    }
    memset(block.parent, 0, 32);
    random_key(CHAIN, block.key);
    memcpy(block.format, WF_MOVER_PROBE, 32);
    write_through(tier, &block, w->memory);
    struct wf_tier_request *out, r = {.op = WF_TIER_FLUSH};
    assert_int_equal(wf_tier_sim.submit(tier, &r), WEFT_OK);
    while (wf_tier_sim.reap(tier, &out, 1, 1000) == 0)
        ;
    wf_tier_sim.close(tier);
}

static void test_what_is_found_is_told(void **state)
{
    struct world *w = *state;
    memset(&chain, 0, sizeof chain);
    fill_chain(w);
    w->on_found = in_order;
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    struct pollfd told = {.fd = wf_mover_fd(w->mover), .events = POLLIN};
    assert_int_equal(poll(&told, 1, 20000), 1);
    usleep(50000); /* and it fills what it may */
    wf_mover_reap(w->mover);
    assert_in_range(w->found, 1, 2 * WF_MOVER_BATCH);
    assert_int_equal(w->opened, 0);
    world_state(w, WF_MOVER_OK);
    assert_int_equal(w->found, CHAIN);
    assert_int_equal(chain.count, CHAIN);
    assert_int_equal(w->batches, (CHAIN + WF_MOVER_BATCH - 1) / WF_MOVER_BATCH);
    assert_int_equal(w->opened, 1);
    assert_int_equal(w->opened_status, WEFT_OK);
    /* Neither the block that an earlier probe left is there, nor this one's. */
    struct wf_mover_stats stats;
    wf_mover_stats(w->mover, &stats);
    assert_int_equal(stats.tier.blocks, CHAIN);
}

static void test_stopped_while_it_tells(void **state)
{
    struct world *w = *state;
    fill_chain(w);
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    world_submit(w, WF_MOVE_READ, 1);
    usleep(20000);
    assert_true(wf_mover_destroy(w->mover, 0));
    w->mover = NULL;
    assert_int_equal(w->done, 1);
    assert_int_equal(w->ended[ENDED(WEFT_E_TIMEOUT)], 1);
}

/* ---------------------------------------------------------------------------------- measuring */

static void test_a_tier_is_measured(void **state)
{
    struct world *w = *state;
    struct wf_mover_stats stats;
    open_nvme(w);
    wf_mover_stats(w->mover, &stats);
    print_message("# %.1f us, read %.0f MB/s, write %.0f MB/s\n", stats.read_latency_us,
                  stats.read_mbps, stats.write_mbps);
    assert_true(stats.read_latency_us > 0);
    assert_true(stats.read_mbps > 0);
    assert_true(stats.write_mbps > 0);
    assert_int_equal(stats.tier.blocks, 0);
}

/* A tier may gather writes in memory; what it reads from there says nothing of its medium. */
static void test_what_was_flushed_is_measured(void **state)
{
    struct world *w = *state;
    uint32_t before = 0, after = 0;
    bool flushed = false;
    world_open(w);
    pthread_mutex_lock(&gate.lock);
    for (uint32_t i = 0; i < gate.journal_count; i++) {
        flushed |= gate.journal[i].op == WF_TIER_FLUSH && gate.journal[i].reaped;
        if (gate.journal[i].op == WF_TIER_READ)
            *(flushed ? &after : &before) += 1;
    }
    pthread_mutex_unlock(&gate.lock);
    assert_int_equal(before, 0);
    assert_true(after > 0);
}

static void test_a_full_tier_is_measured_by_reading(void **state)
{
    struct world *w = *state;
    struct wf_mover_stats stats;
    w->options.tier.capacity_bytes = 120 << 10;
    w->options.verify_bytes = 128 << 10;
    world_open(w);
    for (uint64_t i = 0; world_run(w, WF_MOVE_WRITE, i) != WEFT_FULL; i++)
        ;
    assert_true(wf_mover_destroy(w->mover, 5000));
    w->options.verify_bytes = WORLD_BYTES;
    w->options.tier.capacity_bytes = 1; /* smaller than what it has */
    w->changes = 0;
    world_open(w);
    assert_true(w->found > 0);
    wf_mover_stats(w->mover, &stats);
    assert_true(stats.read_latency_us > 0);
    assert_true(stats.read_mbps > 0);
    assert_true(stats.write_mbps == 0);
}

/* Each request takes 1 ms: reads alone show it, and large ones 524 MB/s at most. */
static void test_what_is_moved_is_measured(void **state)
{
    struct world *w = *state;
    struct wf_mover_stats stats;
    struct wf_tier_block big = {.bytes = 512 << 10, .part_bytes = 512 << 10};
    random_key(999, big.key);
    world_open(w);
    atomic_store(&gate_delay_us, 1000);
    for (int i = 0; i < 400; i++) {
        struct world_job *job = world_job(w, i ? WF_MOVE_READ : WF_MOVE_WRITE, 0);
        job->move.job.request.block = big;
        job->move.job.request.data = w->memory + ((size_t)2 << 20);
        job->raw = true;
        assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
        w->busy++;
        WAIT_FOR(w, done, w->done + 1);
        assert_int_equal(job->move.job.request.status, WEFT_OK);
    }
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    for (int i = 0; i < 200; i++)
        assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_OK);
    wf_mover_stats(w->mover, &stats);
    print_message("# %.0f us, %.0f MB/s\n", stats.read_latency_us, stats.read_mbps);
    assert_true(stats.read_latency_us > 900);
    assert_true(stats.read_mbps > 50 && stats.read_mbps < 700);
}

/* ------------------------------------------------------------------------------------- faults */

static void test_gone_and_back(void **state)
{
    struct world *w = *state;
    world_open(w);
    for (uint64_t i = 0; i < 10; i++)
        assert_int_equal(world_run(w, WF_MOVE_WRITE, i), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_FLUSH, 0), WEFT_OK);
    wf_tier_sim_plug(WORLD_PATH, false);
    for (uint64_t i = 0; i < 10; i++) {
        world_submit(w, WF_MOVE_READ, i);
        world_submit(w, WF_MOVE_REMOVE, i);
        world_submit(w, WF_MOVE_VERIFY, i);
        world_submit(w, WF_MOVE_FLUSH, i);
    }
    w->ended[ENDED(WEFT_E_SYSTEM)] = 0;
    WAIT_FOR(w, done, 11 + 40);
    world_state(w, WF_MOVER_FAILED);
    assert_true(w->ended[ENDED(WEFT_E_SYSTEM)] >= 30);
    assert_true(strlen(w->sentence) > 10);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_E_SYSTEM);
    struct wf_mover_stats stats;
    do { /* it tries, and fails, a few times; nobody is told */
        usleep(1000);
        wf_mover_stats(w->mover, &stats);
    } while (!strstr(stats.reason, "plug it in"));
    wf_mover_reap(w->mover);
    assert_int_equal(w->opened, 1);
    assert_int_equal(stats.state, WF_MOVER_FAILED);
    w->found = 0;
    wf_tier_sim_plug(WORLD_PATH, true);
    world_state(w, WF_MOVER_OK);
    assert_int_equal(w->opened, 2);
    assert_in_range(w->found, 1, 10); /* removals were not durable */
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 50), WEFT_OK);
}

static void test_errors_in_a_row(void **state)
{
    struct world *w = *state;
    world_open(w);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    assert_int_equal(world_run(w, WF_MOVE_FLUSH, 0), WEFT_OK);
    gate_faults(&(struct wf_tier_sim_faults){.read_error = 1, .write_error = 1});
    for (int i = 0; i < 7; i++)
        assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_E_SYSTEM);
    struct wf_mover_stats stats;
    wf_mover_stats(w->mover, &stats);
    assert_int_equal(stats.state, WF_MOVER_OK);
    assert_int_equal(world_run(w, WF_MOVE_READ, 1), WEFT_E_SYSTEM);
    world_state(w, WF_MOVER_FAILED);
    assert_non_null(strstr(w->sentence, "failed on the medium"));
}

static void test_never_opened(void **state)
{
    struct world *w = *state;
    struct wf_tier *other;
    assert_int_equal(wf_tier_sim.open(&w->options.tier, &other), WEFT_OK); /* open already */
    gate.open_shut = true;
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    world_submit(w, WF_MOVE_READ, 1);
    pthread_mutex_lock(&gate.lock);
    gate.open_shut = false;
    pthread_mutex_unlock(&gate.lock);
    world_state(w, WF_MOVER_FAILED);
    WAIT_FOR(w, done, 1);
    assert_int_equal(w->opened, 1);
    assert_int_equal(w->opened_status, WEFT_E_BUSY);
    assert_int_equal(w->ended[ENDED(WEFT_E_SYSTEM)], 1);
    wf_tier_sim.close(other);
    world_state(w, WF_MOVER_OK);
    assert_int_equal(w->opened, 2);
}

static void test_a_stall_is_told(void **state)
{
    struct world *w = *state;
    w->options.timeout_ms = 50;
    world_open(w);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    uint32_t changes = w->changes;
    atomic_store(&gate_shut, true);
    struct world_job *first = world_submit(w, WF_MOVE_READ, 1);
    world_state(w, WF_MOVER_STALLED);
    world_submit(w, WF_MOVE_READ, 2);
    usleep(100000);
    wf_mover_reap(w->mover);
    assert_int_equal(w->changes, changes + 1);
    assert_non_null(strstr(w->sentence, "look at the device"));
    atomic_store(&gate_shut, false);
    world_state(w, WF_MOVER_OK);
    WAIT_FOR(w, done, 3);
    assert_int_equal(first->move.job.request.status, WEFT_OK);
}

/* The first that hangs is the mover's own: the block that it measures with. */
static void test_a_stall_while_it_opens_is_told(void **state)
{
    struct world *w = *state;
    w->options.timeout_ms = 50;
    atomic_store(&gate_shut, true);
    assert_int_equal(wf_mover_create(&w->options, &w->mover), WEFT_OK);
    world_submit(w, WF_MOVE_READ, 2);
    world_state(w, WF_MOVER_STALLED);
    assert_int_equal(w->opened, 0);
    atomic_store(&gate_shut, false);
    world_state(w, WF_MOVER_OK);
    WAIT_FOR(w, done, 1);
    assert_int_equal(w->opened, 1);
    assert_int_equal(w->ended[ENDED(WEFT_MISS)], 1);
}

static void test_verify_finds_a_flipped_bit(void **state)
{
    struct world *w = *state;
    struct wf_mover_stats stats;
    uint64_t n = 1;
    while (world_block(n).bytes <= 3 * 4096)
        n++;
    w->options.verify_bytes = 4096;
    world_open(w);
    struct world_job *job = world_job(w, WF_MOVE_WRITE, n);
    struct wf_tier_block *block = &job->move.job.request.block;
    block->part_bytes = 4096;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
    w->busy++;
    WAIT_FOR(w, done, 1);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, n), WEFT_OK);
    wf_mover_stats(w->mover, &stats);
    assert_int_equal(stats.verified_bytes, world_block(n).bytes);
    pthread_mutex_lock(&gate.lock);
    assert_true(wf_tier_sim_flip(gate.sim, world_block(n).key, world_block(n).bytes - 1));
    pthread_mutex_unlock(&gate.lock);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, n), WEFT_E_CORRUPT);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, n), WEFT_MISS);
    job = world_job(w, WF_MOVE_WRITE, n + 1);
    job->move.job.request.block.bytes = job->move.job.request.block.part_bytes = 5000;
    assert_int_equal(wf_mover_submit(w->mover, &job->move), WEFT_OK);
    w->busy++;
    WAIT_FOR(w, done, w->done + 1);
    assert_int_equal(world_run(w, WF_MOVE_VERIFY, n + 1), WEFT_E_LIMIT);
}

/* ------------------------------------------------------------------------------------- the end */

static void test_destroy_ends_what_is_there(void **state)
{
    struct world *w = *state;
    w->options.tier.queue_depth = 2;
    w->options.background_depth = 1;
    world_open(w);
    gate_faults(&(struct wf_tier_sim_faults){.lost = 1});
    for (uint64_t i = 0; i < 4; i++)
        assert_int_equal(world_run(w, WF_MOVE_WRITE, i), WEFT_OK);
    w->done = 0;
    for (uint64_t i = 0; i < 100; i++)
        world_submit(w, i % 3 ? WF_MOVE_READ : WF_MOVE_VERIFY, i % 7);
    assert_true(wf_mover_destroy(w->mover, 5000));
    assert_int_equal(w->done, 100);
    assert_int_equal(w->busy, 0);
    w->changes = 0;
    world_open(w);
    assert_int_equal(w->found, 4); /* flushed, though everything unflushed is lost */
    gate_faults(&(struct wf_tier_sim_faults){.lost = 1});
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 9), WEFT_OK);
    assert_true(wf_mover_destroy(w->mover, 0));
    w->found = w->changes = 0;
    world_open(w);
    assert_int_equal(w->found, 4);
}

static void test_destroy_does_not_wait_for_ever(void **state)
{
    struct world *w = *state;
    w->options.timeout_ms = 50;
    world_open(w);
    assert_int_equal(world_run(w, WF_MOVE_WRITE, 1), WEFT_OK);
    atomic_store(&gate_shut, true);
    struct world_job *with_tier = world_submit(w, WF_MOVE_READ, 1);
    world_in_flight(w, 1);
    world_submit(w, WF_MOVE_FLUSH, 0);
    uint64_t before = wf_now_ms();
    assert_false(wf_mover_destroy(w->mover, 10));
    w->mover = NULL;
    assert_in_range(wf_now_ms() - before, 1000, 5000);
    assert_true(with_tier->busy);
    atomic_store(&gate_shut, false);
    /* The thread that was left behind closes the tier now, and frees what it had. */
    for (int i = 0; i < 2000 && !wf_tier_sim_forget(WORLD_PATH); i++)
        usleep(1000);
    usleep(20000);
}

/* ------------------------------------------------------------------- what cannot be had at all */

static int create_once(void)
{
    struct world *w;
    if (world_setup((void **)&w) != 0)
        return 2;
    enum weft_status status = wf_mover_create(&w->options, &w->mover);
    if (status != WEFT_OK && !wf_last_error()[0])
        return 3;
    world_teardown((void **)&w);
    return status == WEFT_OK ? 0 : 1;
}

/* The Nth of them fails, for every N: create says so, and leaves nothing behind. */
static void test_the_nth_thing_fails(void **state)
{
    (void)state;
    int result = 1, n = 1;
    for (; n < 50 && result == 1; n++) {
        char at[32];
        snprintf(at, sizeof at, "WEFT_FAIL_AT=%d", n);
        char *environment[] = {at, "MOVER_CREATE=1", "WEFT_TEST_SEED=1", NULL};
        char *arguments[] = {"mover", NULL};
        pid_t child = fork();
        if (child == 0) {
            execve("/proc/self/exe", arguments, environment);
            _exit(9);
        }
        int ended;
        assert_int_equal(waitpid(child, &ended, 0), child);
        assert_true(WIFEXITED(ended));
        result = WEXITSTATUS(ended);
    }
    assert_int_equal(result, 0);
    assert_in_range(n, 8, 30);
}

#define MOVER_TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    if (getenv("MOVER_CREATE"))
        return create_once();
    const struct CMUnitTest tests[] = {
        MOVER_TEST(test_each_kind),
        MOVER_TEST(test_each_kind_nvme),
        MOVER_TEST(test_payload_is_checked_first),
        MOVER_TEST(test_wrongly_put),
        MOVER_TEST(test_random_load),
        MOVER_TEST(test_random_load_nvme),
        MOVER_TEST(test_flush_waits_for_writes_before_it),
        MOVER_TEST(test_remove_waits_and_is_waited_for),
        MOVER_TEST(test_the_queue_has_an_end),
        MOVER_TEST(test_cancel_before_it_is_open),
        MOVER_TEST(test_cancel_wherever_it_is),
        MOVER_TEST(test_who_is_hurried_goes_first),
        MOVER_TEST(test_what_expires_is_dropped),
        MOVER_TEST(test_what_is_found_is_told),
        MOVER_TEST(test_stopped_while_it_tells),
        MOVER_TEST(test_a_tier_is_measured),
        MOVER_TEST(test_what_was_flushed_is_measured),
        MOVER_TEST(test_a_full_tier_is_measured_by_reading),
        MOVER_TEST(test_what_is_moved_is_measured),
        MOVER_TEST(test_gone_and_back),
        MOVER_TEST(test_errors_in_a_row),
        MOVER_TEST(test_never_opened),
        MOVER_TEST(test_a_stall_is_told),
        MOVER_TEST(test_a_stall_while_it_opens_is_told),
        MOVER_TEST(test_verify_finds_a_flipped_bit),
        MOVER_TEST(test_destroy_ends_what_is_there),
        MOVER_TEST(test_destroy_does_not_wait_for_ever),
        cmocka_unit_test(test_the_nth_thing_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
