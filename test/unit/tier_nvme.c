/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier beyond what every tier promises: crashes, torn tails, rot anywhere, reclaim.
 *
 * A crash is a copy of the file taken while the tier has it open: what the process had in memory is
 * not in it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "../support/medium.h"
#include "../support/nvme_world.h"
#include "../support/random.h"
#include "tier/nvme_index.h"
#include "tier/tier.h"

static void flushed_survives_a_crash(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= 150; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    for (uint64_t n = 1; n <= 150; n += 3)
        assert_int_equal(ops->remove(w->tier, block_of(n).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    for (uint64_t n = 151; n <= 170; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    copy_file(w->path, w->copy);
    close_it(w);
    for (int again = 0; again < 2; again++) { /* the second time by the footers alone */
        open_at(w, w->copy, CAPACITY);
        for (uint64_t n = 1; n <= 150; n++)
            assert_int_equal(get(w, n), n % 3 == 1 ? WEFT_MISS : WEFT_OK);
        for (uint64_t n = 151; n <= 170; n++)
            assert_true(get(w, n) != WEFT_E_CORRUPT);
        assert_int_equal(stats(w).corrupt, 0);
        close_it(w);
    }
}

/* In a child: blocks through a tier that is always reclaiming; after each flush it says up to which
 * block all of the last KEPT are durable. */
#define KEPT 60u
static void write_until_killed(struct world *w, int tell)
{
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1;; n++) {
        if (put(w, n) != WEFT_OK)
            _exit(1);
        if (n > 2 * KEPT && ops->remove(w->tier, block_of(n - 2 * KEPT).key) != WEFT_OK)
            _exit(2);
        if (n % 10 == 0 && (flush(w) != WEFT_OK || write(tell, &n, sizeof n) != sizeof n))
            _exit(3);
    }
}

static void a_killed_process_loses_nothing_flushed(void **state)
{
    struct world *w = *state;
    if (!w->path[0])
        skip();
    for (int turn = 0; turn < 5; turn++) {
        int pipes[2], status;
        assert_int_equal(truncate(w->path, 0), 0);
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        if (child == 0)
            write_until_killed(w, pipes[1]);
        close(pipes[1]);
        usleep(100000 + random_below(&w->random, 200000));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        uint64_t n, durable = 0;
        while (read(pipes[0], &n, sizeof n) == sizeof n)
            durable = n;
        close(pipes[0]);
        open_at(w, w->path, CAPACITY);
        /* Those older than 2 * KEPT may be gone, and ten more were perhaps begun. */
        for (n = durable > KEPT ? durable - KEPT : 1; n <= durable; n++)
            assert_int_equal(get(w, n), WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
        close_it(w);
    }
}

static void a_clean_end_loses_nothing(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= 100; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    close_it(w);
    open_at(w, w->path, 0);
    assert_int_equal(stats(w).blocks, 100);
    for (uint64_t n = 1; n <= 100; n++)
        assert_int_equal(get(w, n), WEFT_OK);
}

/* Bytes of the tail are cut off or overwritten; what is found then is whole, because records in a
 * segment without a footer are verified when it is opened. */
static void torn_tails_are_cut(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= 60; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    uint64_t used = stats(w).used_bytes;
    copy_file(w->path, w->copy);
    close_it(w);
    copy_file(w->copy, w->path);
    for (int turn = 0; turn < 12; turn++) {
        copy_file(w->path, w->copy);
        uint64_t at = WF_NVME_SEGMENTS_AT + WF_NVME_RECORDS_AT + random_next(&w->random) % used;
        int fd = open(w->copy, O_RDWR | O_CLOEXEC);
        if (turn % 2) {
            assert_int_equal(ftruncate(fd, (off_t)at), 0);
        } else {
            uint8_t noise[9000];
            fill(random_next(&w->random), sizeof noise, noise);
            assert_int_equal(pwrite(fd, noise, sizeof noise, (off_t)at), sizeof noise);
        }
        close(fd);
        open_at(w, w->copy, CAPACITY);
        unsigned there = 0;
        struct wf_tier_block block;
        for (uint64_t n = 1; n <= 60; n++) {
            block = block_of(n);
            if (!ops->find(w->tier, block.key, &block))
                continue;
            there++;
            enum weft_status status = get(w, n);
            if (status != WEFT_OK && status != WEFT_E_CORRUPT)
                fail_msg("block %u: %d", (unsigned)n, (int)status);
        }
        assert_true(there < 60 || turn % 2 == 0);
        assert_int_equal(put(w, 1000), WEFT_OK);
        assert_int_equal(get(w, 1000), WEFT_OK);
        close_it(w);
    }
}

static void a_flipped_bit_never_gives_wrong_bytes(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= 40; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    uint64_t used = stats(w).used_bytes;
    close_it(w);
    unsigned lost = 0;
    for (int turn = 0; turn < 25; turn++) {
        copy_file(w->path, w->copy);
        int fd = open(w->copy, O_RDWR | O_CLOEXEC);
        for (int flip = 0; flip < 20; flip++) {
            uint64_t at = WF_NVME_SEGMENTS_AT + random_next(&w->random) % (used + 65536);
            if (flip == 0) /* one of the two descriptions of the volume */
                at = random_next(&w->random) % 2 * 4096 + random_next(&w->random) % 64;
            uint8_t byte;
            assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
            byte ^= (uint8_t)(1u << random_below(&w->random, 8));
            assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
        }
        close(fd);
        open_at(w, w->copy, CAPACITY);
        for (uint64_t n = 1; n <= 40; n++)
            lost += get(w, n) != WEFT_OK;
        for (uint64_t n = 1; n <= 40; n++) /* what was corrupt is gone */
            assert_true(get(w, n) != WEFT_E_CORRUPT);
        close_it(w);
    }
    assert_true(lost > 0);
}

/* Five times the capacity goes through: what is not removed stays, whatever moved. */
static void reclaim_keeps_what_lives(void **state)
{
    struct world *w = *state;
    static bool lives[BLOCKS_MAX];
    memset(lives, 0, sizeof lives);
    open_at(w, w->path, CAPACITY);
    uint64_t n = 1, oldest = 1;
    while (stats(w).write_bytes < 5 * CAPACITY && n < BLOCKS_MAX) {
        assert_int_equal(put(w, n), WEFT_OK);
        lives[n++] = true;
        while (stats(w).used_bytes > CAPACITY / 2) {
            if (oldest % 4 == 0) /* some live for long, so that there is something to move */
                oldest++;
            uint64_t victim = lives[oldest] ? oldest
                                            : 4 * (1 + random_below(&w->random, (uint32_t)n / 4));
            if (lives[victim])
                assert_int_equal(ops->remove(w->tier, block_of(victim).key), WEFT_OK);
            lives[victim] = false;
            if (oldest + 1 < n)
                oldest++;
        }
        if (n % 50 == 0)
            assert_int_equal(flush(w), WEFT_OK);
    }
    assert_true(stats(w).moved_bytes > 0);
    assert_true(stats(w).device_write_bytes > stats(w).write_bytes);
    assert_int_equal(flush(w), WEFT_OK);
    copy_file(w->path, w->copy);
    for (int where = 0; where < 2; where++) {
        for (uint64_t i = 1; i < n; i++)
            assert_int_equal(get(w, i), lives[i] ? WEFT_OK : WEFT_MISS);
        assert_told(w);
        assert_told(w);
        close_it(w);
        open_at(w, w->copy, CAPACITY);
    }
}

/* Footers rot while the tier is open: what a victim holds is known without them, and who asks for
 * parents learns them from the records. */
static void footers_are_not_needed(void **state)
{
    struct world *w = *state;
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    assert_int_equal(flush(w), WEFT_OK);
    assert_told(w);
    uint8_t noise[WF_NVME_PAGE];
    fill(random_next(&w->random), sizeof noise, noise);
    struct wf_nvme_super super;
    struct wf_nvme_footer footer;
    int fd = open(w->path, O_RDWR | O_CLOEXEC), rotten = 0;
    assert_int_equal(pread(fd, &super, sizeof super, 0), sizeof super);
    for (uint64_t i = 1; i <= super.segments; i++) {
        off_t at = (off_t)(WF_NVME_SEGMENTS_AT + i * super.segment_bytes - sizeof noise);
        assert_int_equal(pread(fd, &footer, sizeof footer, at), sizeof footer);
        rotten += footer.head.magic == WF_NVME_FOOTER_MAGIC;
        assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
    }
    close(fd);
    assert_true(rotten >= 2);
    assert_told(w);
    for (uint64_t i = 1; i < n; i += 2)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    uint64_t moved = stats(w).moved_bytes, more = n;
    while (more < n + 40)
        assert_int_equal(put(w, more++), WEFT_OK);
    assert_true(stats(w).moved_bytes > moved);
    for (uint64_t i = 1; i < more; i++)
        assert_int_equal(get(w, i), i % 2 && i < n ? WEFT_MISS : WEFT_OK);
    assert_told(w);
    assert_int_equal(stats(w).corrupt, 0);
}

/* First pages rot while the tier is closed: the footers say what their segments are. */
static void first_pages_are_not_needed(void **state)
{
    struct world *w = *state;
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    for (uint64_t i = 3; i < n; i += 7)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    close_it(w);
    uint8_t noise[WF_NVME_PAGE];
    fill(random_next(&w->random), sizeof noise, noise);
    struct wf_nvme_super super;
    struct wf_nvme_footer footer;
    int fd = open(w->path, O_RDWR | O_CLOEXEC), rotten = 0;
    assert_int_equal(pread(fd, &super, sizeof super, 0), sizeof super);
    for (uint64_t i = 0; i < super.segments; i++) {
        off_t at = (off_t)(WF_NVME_SEGMENTS_AT + i * super.segment_bytes);
        off_t end = at + (off_t)super.segment_bytes - (off_t)sizeof noise;
        assert_int_equal(pread(fd, &footer, sizeof footer, end), sizeof footer);
        if (footer.head.magic != WF_NVME_FOOTER_MAGIC)
            continue; /* it goes on there: without both, nothing says what it is */
        assert_int_equal(pwrite(fd, noise, sizeof noise, at), sizeof noise);
        rotten++;
    }
    close(fd);
    assert_true(rotten >= 2);
    for (int turn = 0; turn < 2; turn++) {
        open_at(w, w->path, CAPACITY);
        for (uint64_t i = 1; i < n; i++)
            assert_int_equal(get(w, i), i % 7 == 3 ? WEFT_MISS : WEFT_OK);
        assert_told(w);
        close_it(w);
    }
    open_at(w, w->path, CAPACITY);
    for (uint64_t i = 1; i < n; i += 2) /* and they are used anew as any other */
        (void)ops->remove(w->tier, block_of(i).key);
    for (uint64_t more = n; more < n + 30; more++)
        assert_int_equal(put(w, more), WEFT_OK);
    for (uint64_t i = 2; i < n + 30; i += i < n ? 2 : 1)
        assert_int_equal(get(w, i), i < n && i % 7 == 3 ? WEFT_MISS : WEFT_OK);
}

/* The index alone: it keeps to its budget, and finds again what it holds and nothing else. */
static void the_index_is_small_and_right(void **state)
{
    (void)state;
    struct wf_nvme_index index;
    struct wf_tier_block block, found;
    enum { ITEMS = 50000, EXPECTED = 3000 };
    assert_true(WF_NVME_ITEM_MEMORY <= 64);
    assert_int_equal(wf_nvme_index_init(&index, ITEMS), WEFT_OK);
    wf_nvme_index_expect(&index, EXPECTED);
    for (uint32_t n = 0; n < ITEMS; n++) {
        block = block_of(n);
        random_key(n % 1000, block.format);
        assert_int_equal(wf_nvme_index_find(&index, block.key), WF_NVME_NONE);
        assert_int_not_equal(wf_nvme_index_insert(&index, &block, n / 9, n % 9), WF_NVME_NONE);
    }
    block = block_of(ITEMS);
    assert_int_equal(wf_nvme_index_insert(&index, &block, 0, 0), WF_NVME_NONE);
    for (uint32_t n = 0; n < ITEMS; n += 2)
        wf_nvme_index_remove(&index, wf_nvme_index_find(&index, block_of(n).key));
    for (uint32_t n = 0; n < ITEMS; n++) {
        block = block_of(n);
        uint32_t item = wf_nvme_index_find_at(&index, block.key, n / 9, n % 9);
        assert_int_equal(item == WF_NVME_NONE, n % 2 == 0);
        assert_int_equal(wf_nvme_index_find_at(&index, block.key, n / 9 + 1, n % 9), WF_NVME_NONE);
        if (n % 2 == 0)
            continue;
        random_key(n % 1000, block.format);
        memset(block.parent, 0, sizeof block.parent);
        wf_nvme_index_block(&index, item, &found);
        assert_memory_equal(&found, &block, sizeof found);
    }
    assert_int_equal(index.table.count, ITEMS / 2);
    wf_nvme_index_fini(&index);
}

static void full_says_so_and_a_removal_helps(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    uint64_t n = 1;
    enum weft_status status;
    while ((status = put(w, n)) == WEFT_OK && n < BLOCKS_MAX)
        n++;
    assert_int_equal(status, WEFT_FULL);
    assert_true(stats(w).used_bytes > stats(w).capacity_bytes * 8 / 10);
    for (uint64_t i = 1; i < n; i++)
        assert_int_equal(get(w, i), WEFT_OK);
    for (uint64_t i = 1; i < 12; i++)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(put(w, 5000), WEFT_OK);
    for (uint64_t i = 12; i < n; i++)
        assert_int_equal(get(w, i), WEFT_OK);
}

static void each_request_is_reaped_once(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= DEPTH; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    struct wf_tier_request requests[DEPTH], *done[DEPTH];
    uint8_t *room = aligned_alloc(WF_TIER_ALIGN, (size_t)DEPTH * 102400);
    for (uint32_t i = 0; i < DEPTH; i++) {
        requests[i] = (struct wf_tier_request){.op = WF_TIER_READ,
                                               .block = block_of(i + 1),
                                               .data = room + (size_t)i * 102400};
        assert_int_equal(ops->submit(w->tier, &requests[i]), WEFT_OK);
        ops->cancel(w->tier, &requests[i]);
    }
    struct wf_tier_request more = {.op = WF_TIER_FLUSH};
    assert_int_equal(ops->submit(w->tier, &more), WEFT_PENDING);
    unsigned seen[DEPTH] = {0};
    uint32_t count = 0, got;
    while (count < DEPTH && (got = ops->reap(w->tier, done, DEPTH, 5000)) > 0) {
        for (uint32_t i = 0; i < got; i++) {
            seen[done[i] - requests]++;
            assert_true(done[i]->status == WEFT_OK || done[i]->status == WEFT_E_TIMEOUT);
        }
        count += got;
    }
    for (uint32_t i = 0; i < DEPTH; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(ops->reap(w->tier, done, DEPTH, 0), 0);
    free(room);
}

/* Reads that have landed are verified a few at a time; what is left says so through the event, for
 * nothing else would bring the caller back when the device has no more to tell. */
static void the_event_tells_of_all_that_landed(void **state)
{
    struct world *w = *state;
    struct wf_tier_request requests[DEPTH], *done[DEPTH];
    uint8_t *room = aligned_alloc(WF_TIER_ALIGN, (size_t)DEPTH * 102400), *right = malloc(102400);
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= DEPTH; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < DEPTH; i++) {
        requests[i] = (struct wf_tier_request){.op = WF_TIER_READ,
                                               .block = block_of(i + 1),
                                               .data = room + (size_t)i * 102400};
        assert_int_equal(ops->submit(w->tier, &requests[i]), WEFT_OK);
        bytes += requests[i].block.bytes;
    }
    assert_true(bytes > 512u << 10); /* more than is verified in one reap */
    usleep(200000);
    struct pollfd event = {.fd = ops->event(w->tier), .events = POLLIN};
    uint32_t count = 0;
    while (count < DEPTH) {
        assert_int_equal(poll(&event, 1, 10000), 1);
        count += ops->reap(w->tier, done, DEPTH, 0);
    }
    for (uint32_t i = 0; i < DEPTH; i++) {
        assert_int_equal(requests[i].status, WEFT_OK);
        fill(i + 1, requests[i].block.bytes, right);
        assert_memory_equal(requests[i].data, right, requests[i].block.bytes);
    }
    free(right);
    free(room);
}

/* What landed and was never reaped keeps nobody from closing it. */
static void it_closes_over_what_landed(void **state)
{
    struct world *w = *state;
    struct wf_tier_request requests[DEPTH];
    uint8_t *room = aligned_alloc(WF_TIER_ALIGN, (size_t)DEPTH * 102400);
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= DEPTH; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    for (uint32_t i = 0; i < DEPTH; i++) {
        requests[i] = (struct wf_tier_request){.op = WF_TIER_READ,
                                               .block = block_of(i + 1),
                                               .data = room + (size_t)i * 102400};
        assert_int_equal(ops->submit(w->tier, &requests[i]), WEFT_OK);
    }
    usleep(100000);
    struct wf_tier_request *one;
    assert_int_equal(ops->reap(w->tier, &one, 1, 5000), 1);
    close_it(w);
    open_at(w, w->path, 0);
    assert_int_equal(stats(w).blocks, DEPTH);
    free(room);
}

static void what_is_not_ours_is_left_alone(void **state)
{
    struct world *w = *state;
    struct wf_tier *tier;
    if (!w->path[0])
        skip();
    int fd = open(w->path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "precious", 8, 4000), 8);
    close(fd);
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH};
    assert_int_equal(ops->open(&options, &tier), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "holds something else"));
}

static void one_at_a_time(void **state)
{
    struct world *w = *state;
    struct wf_tier *tier;
    open_at(w, w->path, CAPACITY);
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH};
    assert_int_equal(ops->open(&options, &tier), WEFT_E_SYSTEM);
}

static void it_can_grow(void **state)
{
    struct world *w = *state;
    open_at(w, w->path, CAPACITY);
    assert_int_equal(put(w, 1), WEFT_OK);
    close_it(w);
    open_at(w, w->path, 2 * CAPACITY);
    assert_true(stats(w).capacity_bytes > CAPACITY);
    assert_int_equal(get(w, 1), WEFT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(flushed_survives_a_crash, setup, teardown),
        cmocka_unit_test_setup_teardown(a_killed_process_loses_nothing_flushed, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clean_end_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(torn_tails_are_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flipped_bit_never_gives_wrong_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(reclaim_keeps_what_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(footers_are_not_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(first_pages_are_not_needed, setup, teardown),
        cmocka_unit_test(the_index_is_small_and_right),
        cmocka_unit_test_setup_teardown(full_says_so_and_a_removal_helps, setup, teardown),
        cmocka_unit_test_setup_teardown(each_request_is_reaped_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_event_tells_of_all_that_landed, setup, teardown),
        cmocka_unit_test_setup_teardown(it_closes_over_what_landed, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_ours_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(one_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(it_can_grow, setup, teardown),
    };
    return cmocka_run_group_tests_name("tier_nvme", tests, NULL, NULL);
}
