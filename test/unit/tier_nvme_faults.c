/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier on a device that fails, and after power failures while it reclaims.
 */
#include "../support/nvme_world.h"

#include <errno.h>

#include "../support/torn.h"
#include "tier/nvme_log.h"

#if WF_TEST_HOOKS

/* What goes wrong: calls of one kind, from the `after`th on, `times` of them. */
struct fault {
    struct wf_nvme_hooks hooks;
    int what, kind; /* kind 0: any */
    uint32_t skip, times, seen;
    int result; /* < 0: -errno; 0 … 1000000: cut to that; larger: held back for the rest in us */
    bool flips; /* instead: a bit in the last part of what was read */
};

static bool fault_hits(struct fault *f, const struct wf_nvme_call *call)
{
    if ((int)call->what != f->what || (f->kind && call->kind != f->kind))
        return false;
    uint32_t at = f->seen++;
    return at >= f->skip && at - f->skip < f->times;
}

static int fault_before(void *context, const struct wf_nvme_call *call)
{
    struct fault *f = context;
    if (f->result >= 0 && f->result <= 1000000)
        return 0;
    return fault_hits(f, call) ? (f->result < 0 ? f->result : f->result - 1000000) : 0;
}

static int fault_after(void *context, const struct wf_nvme_call *call, int result)
{
    struct fault *f = context;
    if (f->result < 0 || f->result > 1000000 || !fault_hits(f, call))
        return result;
    if (f->flips) {
        const struct iovec *last = &call->vector[call->vectors - 1];
        ((uint8_t *)last->iov_base)[0] ^= 4;
        return result;
    }
    return result < f->result ? result : f->result;
}

static void begin(struct fault *f, int what, int kind, int result, uint32_t times)
{
    *f = (struct fault){.hooks = {f, fault_before, fault_after},
                        .what = what,
                        .kind = kind,
                        .times = times,
                        .result = result};
    wf_nvme_hooks = &f->hooks;
}

static int teardown_hooks(void **state)
{
    wf_nvme_hooks = NULL;
    return teardown(state);
}

static void put_some(struct world *w, uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++)
        assert_int_equal(put(w, n), WEFT_OK);
}

static void get_all(struct world *w, uint64_t first, uint64_t last)
{
    for (uint64_t n = first; n <= last; n++)
        assert_int_equal(get(w, n), WEFT_OK);
}

static void a_failed_read_is_an_error_and_the_block_stays(void **state)
{
    struct world *w = *state;
    static const int results[] = {-EIO, 512, 0};
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    for (int i = 0; i < 3; i++) {
        begin(&f, WF_NVME_CALL_READ, WF_NVME_IO_READ, results[i], 1);
        assert_int_equal(get(w, 7), WEFT_E_SYSTEM);
        assert_int_equal(stats(w).errors, i + 1);
        get_all(w, 1, 20);
    }
    assert_int_equal(stats(w).corrupt, 0);
    assert_false(stats(w).failed);
}

/* A bit that flips on the way: what is on the medium counts, and is read again. */
static void what_comes_wrong_once_is_read_again(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    for (int cached = 0; cached < 2;
         cached++) { /* checksums: from the write, and from the header */
        begin(&f, WF_NVME_CALL_READ, WF_NVME_IO_READ, 0, 1);
        f.flips = true;
        assert_int_equal(get(w, 7), WEFT_OK);
        assert_int_equal(f.seen, 2);
        assert_int_equal(flush(w), WEFT_OK);
        close_it(w);
        open_at(w, w->path, CAPACITY);
    }
    assert_int_equal(stats(w).corrupt, 0);
    begin(&f, WF_NVME_CALL_READ, WF_NVME_IO_READ, 0, 2);
    f.flips = true;
    assert_int_equal(get(w, 7), WEFT_E_CORRUPT);
    assert_int_equal(get(w, 7), WEFT_MISS);
    assert_int_equal(stats(w).corrupt, 1);
}

static void a_failed_write_is_an_error_and_nothing_else_suffers(void **state)
{
    struct world *w = *state;
    static const int results[] = {-EIO, 4096, -ENOSPC, -EDQUOT};
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    for (uint32_t i = 0; i < 4; i++) {
        begin(&f, WF_NVME_CALL_WRITE, WF_NVME_IO_WRITE, results[i], 1);
        uint64_t n = 100 + i;
        assert_int_equal(put(w, n), i < 2 ? WEFT_E_SYSTEM : WEFT_FULL);
        assert_int_equal(get(w, n), WEFT_MISS);
        assert_int_equal(put(w, n), WEFT_OK);
        assert_int_equal(stats(w).errors, i < 2 ? i + 1 : 2);
    }
    assert_int_equal(flush(w), WEFT_OK);
    copy_file(w->path, w->copy);
    close_it(w);
    open_at(w, w->copy, CAPACITY);
    get_all(w, 1, 20);
    get_all(w, 100, 103);
    assert_int_equal(stats(w).blocks, 24);
}

/* Full for good: every write says so, and room is not used up by that. */
static void a_full_file_system_is_full(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    begin(&f, WF_NVME_CALL_WRITE, 0, -ENOSPC, UINT32_MAX);
    for (uint64_t n = 100; n < 300; n++)
        assert_int_equal(put(w, n), WEFT_FULL);
    get_all(w, 1, 20);
    assert_false(stats(w).failed);
    wf_nvme_hooks = NULL;
    put_some(w, 100, 200);
    assert_int_equal(flush(w), WEFT_OK);
    get_all(w, 100, 200);
}

static void several_writes_fail_at_once(void **state)
{
    struct world *w = *state;
    struct fault f;
    struct wf_tier_request requests[8], *done;
    uint8_t *room = aligned_alloc(WF_TIER_ALIGN, 8 * 102400);
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    begin(&f, WF_NVME_CALL_WRITE, WF_NVME_IO_WRITE, -EIO, 3);
    f.skip = 2;
    unsigned bad = 0;
    for (uint32_t i = 0; i < 8; i++) {
        requests[i] = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                               .block = block_of(100 + i),
                                               .data = room + (size_t)i * 102400};
        fill(100 + i, requests[i].block.bytes, requests[i].data);
        assert_int_equal(ops->submit(w->tier, &requests[i]), WEFT_OK);
    }
    for (uint32_t left = 8; left; left--) {
        assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
        bad += done->status == WEFT_E_SYSTEM;
        assert_true(done->status == WEFT_E_SYSTEM || done->status == WEFT_OK);
    }
    free(room);
    assert_int_equal(bad, 3);
    assert_int_equal(flush(w), WEFT_OK);
    copy_file(w->path, w->copy);
    close_it(w);
    open_at(w, w->copy, CAPACITY);
    get_all(w, 1, 20);
    for (uint64_t n = 100; n < 108; n++)
        assert_int_equal(get(w, n), n >= 102 && n < 105 ? WEFT_MISS : WEFT_OK);
}

/* What a sync that failed was to make durable may be gone; no later one is believed. */
static void a_failed_sync_is_not_tried_again(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    begin(&f, WF_NVME_CALL_SYNC, 0, -EIO, 1);
    assert_int_equal(flush(w), WEFT_E_SYSTEM);
    assert_true(stats(w).failed);
    assert_int_equal(flush(w), WEFT_E_SYSTEM);
    assert_int_equal(put(w, 100), WEFT_E_SYSTEM);
    assert_int_equal(get(w, 1), WEFT_E_SYSTEM);
    assert_int_equal(f.seen, 1);
    close_it(w);
    assert_int_equal(f.seen, 1);
    open_at(w, w->path, CAPACITY);
    assert_false(stats(w).failed);
    for (uint64_t n = 1; n <= 20; n++)
        assert_true(get(w, n) == WEFT_OK || get(w, n) == WEFT_MISS);
}

static void a_device_that_is_gone_is_marked(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 20);
    assert_int_equal(flush(w), WEFT_OK);
    begin(&f, WF_NVME_CALL_READ, 0, -ENODEV, UINT32_MAX);
    assert_int_equal(get(w, 1), WEFT_E_SYSTEM);
    assert_true(stats(w).failed);
    close_it(w);
    wf_nvme_hooks = NULL;
    open_at(w, w->path, CAPACITY);
    get_all(w, 1, 20);
    /* Or it answers errors to everything, which is found out after some. */
    begin(&f, WF_NVME_CALL_READ, 0, -EIO, UINT32_MAX);
    for (int i = 0; i < 100 && !stats(w).failed; i++)
        assert_int_equal(get(w, 1), WEFT_E_SYSTEM);
    assert_true(stats(w).failed);
    assert_true(stats(w).errors > 10);
}

/* A tier with something to reclaim: full, and every second block removed. */
static uint64_t make_holes(struct world *w)
{
    uint64_t n = 1;
    open_at(w, w->path, CAPACITY);
    while (put(w, n) == WEFT_OK)
        n++;
    for (uint64_t i = 1; i < n; i += 2)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    return n;
}

static void what_comes_wrong_to_a_reclaim_is_read_again(void **state)
{
    struct world *w = *state;
    struct fault f;
    uint64_t n = make_holes(w), gone = (n - 2) / 2 * 2;
    begin(&f, WF_NVME_CALL_READ, WF_NVME_IO_MOVE_READ, 0, UINT32_MAX);
    f.flips = true;
    for (uint64_t more = n; more < n + 40; more++)
        assert_int_equal(put(w, more), WEFT_OK);
    assert_true(f.seen > 5);
    for (uint64_t k = 2; k < gone; k += 2)
        assert_int_equal(get(w, k), WEFT_OK);
    assert_int_equal(stats(w).corrupt, 0);
}

/* Each I/O of a reclaim fails in its turn: what lives is found, there and after a crash. */
static void a_failed_reclaim_loses_nothing(void **state)
{
    struct world *w = *state;
    static const int kinds[] = {WF_NVME_IO_LIST,  WF_NVME_IO_MOVE_READ, WF_NVME_IO_MOVE_WRITE,
                                WF_NVME_IO_FREE,  WF_NVME_IO_FOOTER,    WF_NVME_IO_MAP,
                                WF_NVME_IO_HEADER};
    static const int results[] = {-EIO, -ENOSPC};
    for (uint32_t i = 0; i < 14; i++) {
        struct fault f;
        uint64_t n = make_holes(w), more = n;
        int kind = kinds[i / 2];
        bool reads = kind == WF_NVME_IO_LIST || kind == WF_NVME_IO_MOVE_READ;
        begin(&f, reads ? WF_NVME_CALL_READ : WF_NVME_CALL_WRITE, kind, results[i % 2], 1);
        f.skip = kind == WF_NVME_IO_MOVE_READ || kind == WF_NVME_IO_MOVE_WRITE ? 5 : 0;
        bool written[40];
        uint64_t gone = (n - 2) / 2 * 2;
        if (kind == WF_NVME_IO_MAP) { /* it may come back after the crash */
            assert_int_equal(ops->remove(w->tier, block_of(gone).key), WEFT_OK);
            assert_int_equal(flush(w), WEFT_OK);
        }
        for (; more < n + 40; more++) {
            enum weft_status status = put(w, more);
            written[more - n] = status == WEFT_OK;
            /* A segment that cannot be begun may be one for what moves, or for what is new. */
            assert_true(status == WEFT_OK || status == WEFT_FULL ||
                        (kind == WF_NVME_IO_HEADER && status == WEFT_E_SYSTEM));
            if (more % 10 == 0)
                assert_int_equal(flush(w), WEFT_OK);
        }
        if (f.seen <= f.skip)
            fail_msg("kind %d was not asked for", kind);
        assert_false(stats(w).failed);
        for (uint64_t k = 1; k < gone; k++)
            assert_int_equal(get(w, k), k % 2 ? WEFT_MISS : WEFT_OK);
        assert_int_equal(flush(w), WEFT_OK);
        copy_file(w->path, w->copy);
        close_it(w);
        wf_nvme_hooks = NULL;
        open_at(w, w->copy, CAPACITY);
        for (uint64_t k = 2; k < gone; k += 2)
            assert_int_equal(get(w, k), WEFT_OK);
        for (uint64_t k = n; k < more; k++)
            if (written[k - n])
                assert_int_equal(get(w, k), WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
        close_it(w);
        assert_int_equal(truncate(w->path, 0), 0);
    }
}

static void a_segment_that_cannot_be_read_costs_only_itself(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 150);
    close_it(w);
    for (uint32_t skip = 0; skip < 6; skip += 3) {
        begin(&f, WF_NVME_CALL_READ, WF_NVME_IO_READ, -EIO, 1);
        f.skip = skip;
        copy_file(w->path, w->copy);
        open_at(w, w->copy, CAPACITY);
        wf_nvme_hooks = NULL;
        assert_int_equal(stats(w).errors, 1);
        unsigned there = 0;
        for (uint64_t n = 1; n <= 150; n++)
            there += get(w, n) == WEFT_OK;
        assert_int_equal(there, stats(w).blocks);
        assert_int_equal(put(w, 1000 + skip), WEFT_OK);
        close_it(w);
        open_at(w, w->copy, CAPACITY);
        get_all(w, 1, 150);
        close_it(w);
    }
}

static void a_slow_device_is_waited_for(void **state)
{
    struct world *w = *state;
    struct fault f;
    open_at(w, w->path, CAPACITY);
    put_some(w, 1, 3);
    begin(&f, WF_NVME_CALL_READ, 0, 1000000 + 30000, 1);
    struct wf_tier_request request = {.op = WF_TIER_READ, .block = block_of(1), .data = w->data};
    struct wf_tier_request *done;
    assert_int_equal(ops->submit(w->tier, &request), WEFT_OK);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5), 0);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_int_equal(request.status, WEFT_OK);
    begin(&f, WF_NVME_CALL_READ, 0, 1000000 + 9000000, 1);
    assert_int_equal(ops->submit(w->tier, &request), WEFT_OK);
    ops->cancel(w->tier, &request);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_int_equal(request.status, WEFT_E_TIMEOUT);
}

/* What is known of a block across power failures. */
enum fate { UNKNOWN, WRITTEN, DURABLE, REMOVED };

static void check_after_crash(struct world *w, uint8_t *fate, uint64_t end)
{
    for (uint64_t n = 1; n < end; n++) {
        if (fate[n] == UNKNOWN)
            continue;
        enum weft_status status = get(w, n);
        if (status != WEFT_OK && (status != WEFT_MISS || fate[n] == DURABLE))
            fail_msg("block %u, fate %u: %d", (unsigned)n, fate[n], (int)status);
        fate[n] = status == WEFT_OK ? DURABLE : UNKNOWN;
    }
}

static void remove_some(struct world *w, uint8_t *fate, uint64_t end, uint64_t kept)
{
    for (int tries = 0; stats(w).used_bytes > kept && tries < 10000; tries++) {
        uint64_t n = 1 + random_next(&w->random) % (end - 1);
        if (ops->remove(w->tier, block_of(n).key) == WEFT_OK)
            fate[n] = REMOVED;
    }
}

#define POWER_BLOCKS 1500u

/* Power fails at any point of a log that is always reclaiming. */
static void power_fails(struct world *w, uint64_t capacity, uint64_t kept)
{
    static uint8_t fate[BLOCKS_MAX];
    static struct torn torn;
    static uint8_t *room;
    struct wf_tier_request requests[8];
    uint64_t n = 1, moved = 0;
    memset(fate, UNKNOWN, sizeof fate);
    room = aligned_alloc(WF_TIER_ALIGN, 8 * 102400);
    if (w->path[0]) {
        torn_begin(&torn, w->path, random_next(&w->random));
        wf_nvme_hooks = &torn.hooks;
    }
    open_at(w, w->path, capacity);
    while (n < POWER_BLOCKS) {
        for (uint32_t step = 20 + random_below(&w->random, 200); step; step--, n++) {
            assert_int_equal(put(w, n), WEFT_OK);
            fate[n] = WRITTEN;
            remove_some(w, fate, n + 1, kept);
            if (random_below(&w->random, 25) == 0) {
                assert_int_equal(flush(w), WEFT_OK);
                for (uint64_t i = 1; i <= n; i++)
                    fate[i] = fate[i] == WRITTEN ? DURABLE : fate[i];
            }
        }
        for (uint32_t i = 0; i < 8; i++, n++) {
            requests[i] = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                                   .block = block_of(n),
                                                   .data = room + (size_t)i * 102400};
            fill(n, requests[i].block.bytes, requests[i].data);
            assert_int_equal(ops->submit(w->tier, &requests[i]), WEFT_OK);
            fate[n] = WRITTEN;
        }
        moved += stats(w).moved_bytes;
        torn.dead = true;
        close_it(w);
        torn_lose(&torn);
        open_at(w, w->path, capacity);
        check_after_crash(w, fate, n);
        remove_some(w, fate, n, kept); /* what had been removed may be there again */
        assert_int_equal(stats(w).corrupt, 0);
    }
    assert_true(moved > 0 && torn.restored > 0);
    wf_nvme_hooks = NULL;
    torn_end(&torn);
    free(room);
}

static void power_fails_while_it_reclaims(void **state)
{
    power_fails(*state, CAPACITY, CAPACITY / 2);
}

/* Two segments are open then. */
static void power_fails_while_what_moves_is_kept_apart(void **state)
{
    struct world *w = *state;
    if (w->path[0])
        power_fails(w, format(w->path, WF_NVME_APART_LEAST, 256 << 10), 9 << 20);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_hooks)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_failed_read_is_an_error_and_the_block_stays),
        TEST(what_comes_wrong_once_is_read_again),
        TEST(what_comes_wrong_to_a_reclaim_is_read_again),
        TEST(a_failed_write_is_an_error_and_nothing_else_suffers),
        TEST(a_full_file_system_is_full),
        TEST(several_writes_fail_at_once),
        TEST(a_failed_sync_is_not_tried_again),
        TEST(a_device_that_is_gone_is_marked),
        TEST(a_failed_reclaim_loses_nothing),
        TEST(a_segment_that_cannot_be_read_costs_only_itself),
        TEST(a_slow_device_is_waited_for),
        TEST(power_fails_while_it_reclaims),
        TEST(power_fails_while_what_moves_is_kept_apart),
    };
    return cmocka_run_group_tests_name("tier_nvme_faults", tests, NULL, NULL);
}

#else

int main(void)
{
    puts("TAP version 13\n1..1\nok 1 # SKIP built without test hooks: no faults of the device");
    return 0;
}

#endif
