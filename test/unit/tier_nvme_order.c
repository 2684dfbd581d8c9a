/* SPDX-License-Identifier: Apache-2.0
 *
 * The order in which the NVMe tier makes things durable, at the one instant where it matters: the
 * power fails when a write of one kind has just ended, and of all that no sync covers that one
 * alone arrived.  Whatever must be durable before it must then be there.
 */
#include "../support/nvme_world.h"

#include <errno.h>
#include <time.h>

#include "tier/nvme_hooks.h"
#include "tier/nvme_log.h"

#if WF_TEST_HOOKS

#define WRITES_MAX 4096u
#define AT_OPEN 100 /* instead of a kind: a footer that is written while the tier is opened */

struct written {
    uint64_t offset, bytes;
    uint8_t *old;
    int kind;
    bool ended, covered;
};

struct medium {
    struct wf_nvme_hooks hooks;
    char path[200];
    int fatal;     /* when a write of this kind has ended the power fails; 0: never */
    uint32_t skip; /* but not for the first ones */
    int bad_moves; /* a kind of I/O of which one fails */
    uint32_t moves;
    bool dead, fell, held;
    int hold, hold_ms; /* a kind of write that takes so long */
    uint64_t segment_bytes;
    uint32_t takes[WF_NVME_APART_LEAST]; /* of each segment: kinds of records, 1 << kind */
    struct written writes[WRITES_MAX];
    uint32_t count;
};

static struct medium medium;

static int kind_of(const struct medium *m, const struct wf_nvme_call *call)
{
    uint64_t end = call->offset + call->bytes - WF_NVME_SEGMENTS_AT;
    return call->kind                                                          ? call->kind
           : call->offset > WF_NVME_SEGMENTS_AT && end % m->segment_bytes == 0 ? AT_OPEN
                                                                               : 0;
}

static int medium_before(void *context, const struct wf_nvme_call *call)
{
    struct medium *m = context;
    if (m->dead)
        return -ENODEV;
    for (uint32_t i = 0; call->what == WF_NVME_CALL_SYNC && i < m->count; i++)
        m->writes[i].covered = m->writes[i].ended;
    if (call->what != WF_NVME_CALL_WRITE)
        return 0;
    assert_true(m->count < WRITES_MAX);
    struct written *w = &m->writes[m->count++];
    *w = (struct written){.offset = call->offset, .bytes = call->bytes, .kind = kind_of(m, call)};
    uint64_t segment = (call->offset - WF_NVME_SEGMENTS_AT) / m->segment_bytes;
    if (call->kind == WF_NVME_IO_HEADER)
        m->takes[segment] = 0;
    else if (call->kind)
        m->takes[segment] |= 1u << call->kind;
    w->old = calloc(1, call->bytes);
    assert_true(w->old && pread(call->fd, w->old, call->bytes, (off_t)call->offset) >= 0);
    m->held |= m->hold && w->kind == m->hold;
    return m->hold && w->kind == m->hold ? m->hold_ms * 1000 : 0;
}

static int medium_after(void *context, const struct wf_nvme_call *call, int result)
{
    struct medium *m = context;
    uint32_t kept = 0;
    if (m->dead)
        return -ENODEV;
    if (call->what == WF_NVME_CALL_WRITE) {
        for (uint32_t i = 0; i < m->count; i++)
            m->writes[i].ended |= m->writes[i].offset == call->offset;
        m->fell = m->dead = m->fatal && kind_of(m, call) == m->fatal && m->skip-- == 0;
        return m->dead ? -ENODEV : result;
    }
    for (uint32_t i = 0; call->what == WF_NVME_CALL_SYNC && result == 0 && i < m->count; i++) {
        if (m->writes[i].covered)
            free(m->writes[i].old);
        else
            m->writes[kept++] = m->writes[i];
    }
    if (call->what == WF_NVME_CALL_SYNC && result == 0)
        m->count = kept;
    return result;
}

/* With few segments, or with so many that what moves is kept apart. */
enum size { FEW, MANY, SIZES };

static void begin_with(struct world *w, enum size size)
{
    struct wf_nvme_super super = {.segment_bytes = size == FEW ? 4 << 20 : 256 << 10};
    uint64_t bytes = CAPACITY;
    medium = (struct medium){.hooks = {&medium, medium_before, medium_after},
                             .segment_bytes = super.segment_bytes};
    snprintf(medium.path, sizeof medium.path, "%s", w->path);
    if (size == MANY && w->path[0])
        bytes = format(w->path, WF_NVME_APART_LEAST, super.segment_bytes);
    open_at(w, w->path, bytes);
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &super, sizeof super, 0), sizeof super);
    close(fd);
    assert_int_equal(super.segment_bytes, medium.segment_bytes);
    wf_nvme_hooks = &medium.hooks;
}

static void begin(struct world *w)
{
    begin_with(w, FEW);
}

/* The process ends; what it wrote is still in the device's cache. */
static void kill_it(struct world *w)
{
    medium.dead = true;
    close_it(w);
    medium.dead = false;
}

/* And the power fails: of what is in the cache the last write of `kept` alone arrives. */
static void lose(struct world *w, int kept)
{
    kill_it(w);
    uint32_t last = medium.count;
    for (uint32_t i = 0; i < medium.count; i++)
        if (medium.writes[i].kind == kept && medium.writes[i].ended)
            last = i;
    assert_true(last < medium.count);
    int fd = open(medium.path, O_RDWR | O_CLOEXEC);
    for (uint32_t i = medium.count; i-- > 0;) {
        const struct written *x = &medium.writes[i];
        if (i != last)
            assert_int_equal(pwrite(fd, x->old, x->bytes, (off_t)x->offset), x->bytes);
        free(x->old);
    }
    close(fd);
    medium.count = 0;
    medium.fatal = medium.hold = 0;
    medium.fell = false;
}

static void forget_writes(void)
{
    while (medium.count)
        free(medium.writes[--medium.count].old);
}

static int teardown_hooks(void **state)
{
    struct world *w = *state;
    medium.dead = true;
    if (w->tier)
        close_it(w);
    wf_nvme_hooks = NULL;
    forget_writes();
    return teardown(state);
}

/* Writes until the power fails, or the tier is full; returns the first that was not written. */
static uint64_t put_until_it_falls(struct world *w, uint64_t n)
{
    while (!medium.fell && put(w, n) == WEFT_OK)
        n++;
    return n;
}

static void idle(struct world *w, uint32_t ms)
{
    struct wf_tier_request *none;
    for (uint32_t i = 0; i < ms && !medium.fell; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_int_equal(ops->reap(w->tier, &none, 1, 0), 0);
    }
}

/* What a footer lists is durable before it, or it would list what is not there. */
static void a_footer_comes_after_its_records(void **state)
{
    struct world *w = *state;
    begin(w);
    for (uint64_t n = 1; n <= 20; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    medium.fatal = WF_NVME_IO_FOOTER;
    uint64_t end = put_until_it_falls(w, 21);
    idle(w, 1000);
    assert_true(medium.fell);
    lose(w, WF_NVME_IO_FOOTER);
    open_at(w, w->path, CAPACITY);
    for (uint64_t n = 1; n <= end; n++)
        assert_true(get(w, n) == WEFT_OK || n > 20);
    assert_int_equal(stats(w).corrupt, 0);
}

/* It waits for the last write into its segment, however long that takes. */
static void a_footer_waits_for_its_writes(void **state)
{
    struct world *w = *state;
    begin(w);
    assert_int_equal(put(w, 1), WEFT_OK);
    uint8_t *room = aligned_alloc(WF_TIER_ALIGN, 102400);
    struct wf_tier_request slow = {.op = WF_TIER_WRITE, .block = block_of(2), .data = room};
    struct wf_tier_request fast = {.op = WF_TIER_WRITE, .data = w->data}, *done = NULL;
    fill(2, slow.block.bytes, room);
    medium.hold = WF_NVME_IO_WRITE;
    medium.hold_ms = 1500;
    assert_int_equal(ops->submit(w->tier, &slow), WEFT_OK);
    medium.hold = 0;
    medium.fatal = WF_NVME_IO_FOOTER;
    for (uint64_t n = 3; n < 120 && done != &slow; n++) { /* a segment has room for 80 */
        fast.block = block_of(n);
        fill(n, fast.block.bytes, w->data);
        assert_int_equal(ops->submit(w->tier, &fast), WEFT_OK);
        for (done = NULL; done != &fast && done != &slow;)
            assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
        assert_true(done == &slow || !medium.fell);
    }
    if (done == &fast)
        assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    while (stats(w).in_flight)
        (void)ops->reap(w->tier, &done, 1, 5000);
    assert_true(stats(w).write_bytes > 4 << 20); /* the segment was full before that */
    idle(w, 1000);
    assert_true(medium.fell);
    free(room);
}

/* Also the one that is written when the tier is opened, of records that were found in a cache. */
static void a_footer_at_open_comes_after_its_records(void **state)
{
    struct world *w = *state;
    begin(w);
    for (uint64_t n = 1; n <= 20; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    kill_it(w);
    medium.fatal = AT_OPEN;
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH};
    assert_int_equal(ops->open(&options, &w->tier), WEFT_E_SYSTEM);
    assert_true(medium.fell);
    lose(w, AT_OPEN);
    open_at(w, w->path, CAPACITY);
    assert_int_equal(medium.count, 0); /* nothing that was found is left to a cache */
    for (uint64_t n = 1; n <= 20; n++)
        assert_int_equal(get(w, n), WEFT_OK);
}

static uint64_t full_of_holes(struct world *w)
{
    uint64_t n = put_until_it_falls(w, 1);
    for (uint64_t i = 1; i < n; i += 2)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    return n;
}

/* A segment is given back after what lived there is durable elsewhere. */
static void free_comes_after_the_copies(void **state)
{
    struct world *w = *state;
    for (uint32_t i = 0; i < 3 * SIZES; i++) {
        begin_with(w, i % SIZES);
        uint64_t n = full_of_holes(w);
        medium.fatal = WF_NVME_IO_FREE;
        medium.skip = i / SIZES;
        uint64_t more = put_until_it_falls(w, n);
        for (; !medium.fell && more < n + 2000; more++) {
            (void)!ops->remove(w->tier, block_of(more - 10).key);
            (void)!put(w, more);
        }
        assert_true(medium.fell);
        lose(w, WF_NVME_IO_FREE);
        open_at(w, w->path, 0);
        for (uint64_t there = 2; there < n - 10; there += 2)
            assert_int_equal(get(w, there), WEFT_OK);
        assert_int_equal(put(w, more + 1), WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
        kill_it(w);
        wf_nvme_hooks = NULL;
        forget_writes();
        assert_int_equal(truncate(w->path, 0), 0);
    }
}

/* A record that moved before its segment's reclaim was given up dies there after its copy is
 * durable. */
static int fail_one(void *context, const struct wf_nvme_call *call)
{
    int result = medium_before(context, call);
    return call->kind == medium.bad_moves && ++medium.moves == 40 ? -EIO : result;
}

static void dies_after_the_copy(struct world *w, enum size size)
{
    begin_with(w, size);
    uint64_t n = 1;
    while (put(w, n) == WEFT_OK)
        n++;
    assert_int_equal(flush(w), WEFT_OK);
    for (uint64_t i = 1; i < n; i += 6)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    medium.hooks.before = fail_one;
    medium.bad_moves = size == FEW ? WF_NVME_IO_MOVE_READ : WF_NVME_IO_MOVE_WRITE;
    for (uint64_t i = n; i < n + 200 && stats(w).errors == 0; i++)
        (void)!put(w, i);
    assert_true(stats(w).errors > 0);
    medium.fatal = WF_NVME_IO_MAP;
    (void)!flush(w);
    assert_true(medium.fell);
    lose(w, WF_NVME_IO_MAP);
    open_at(w, w->path, 0);
    for (uint64_t i = 1; i < n; i++)
        if (i % 6 != 1)
            assert_int_equal(get(w, i), WEFT_OK);
}

static void death_comes_after_the_copy(void **state)
{
    dies_after_the_copy(*state, FEW);
}

static void death_comes_after_the_copy_that_is_kept_apart(void **state)
{
    dies_after_the_copy(*state, MANY);
}

/* What is removed while its copy's origin is still on the medium is gone from both. */
static void dies_in_both_places(struct world *w, enum size size)
{
    begin_with(w, size);
    uint64_t n = put_until_it_falls(w, 1);
    medium.hold = WF_NVME_IO_FREE;
    medium.hold_ms = 1500;
    for (uint64_t i = 1; i < n; i++)
        if (i % 5)
            assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    for (uint32_t i = 0; i < 2000 && !medium.held; i++)
        idle(w, 1);
    assert_true(medium.held && stats(w).moved_bytes > 0);
    for (uint64_t i = 5; i < n; i += 5)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    copy_file(w->path, w->copy);
    wf_nvme_hooks = NULL;
    close_it(w);
    open_at(w, w->copy, 0);
    for (uint64_t i = 1; i < n; i++)
        assert_int_equal(get(w, i), WEFT_MISS);
}

static void what_moves_dies_in_both_places(void **state)
{
    dies_in_both_places(*state, FEW);
}

static void what_is_kept_apart_dies_in_both_places(void **state)
{
    dies_in_both_places(*state, MANY);
}

/* What was removed may be there again; it goes, so that half of the tier lives as before.  The last
 * write was cut off. */
static void found_again(struct world *w, const uint64_t *there, uint64_t count, uint64_t end)
{
    static bool wanted[BLOCKS_MAX];
    assert_true(end <= BLOCKS_MAX);
    memset(wanted, 0, sizeof wanted);
    for (uint64_t i = 0; i < count; i++)
        wanted[there[i]] = true;
    for (uint64_t i = 1; i < end; i++)
        if (!wanted[i])
            (void)!ops->remove(w->tier, block_of(i).key);
    enum weft_status status = put(w, end - 1);
    assert_true(status == WEFT_OK || status == WEFT_EXISTS);
    for (uint64_t i = 0; i < count; i++)
        assert_int_equal(get(w, there[i]), WEFT_OK);
}

/* One block goes, another comes. */
static void replace(struct world *w, uint64_t *there, uint64_t count, uint64_t next)
{
    uint64_t *one = &there[random_below(&w->random, (uint32_t)count)];
    assert_int_equal(ops->remove(w->tier, block_of(*one).key), WEFT_OK);
    *one = next;
}

/* New records and moved ones are never in one segment while room can be won otherwise, and a crash
 * with a segment open for each, also while none is free, leaves a tier that goes on. */
static void what_moves_has_a_segment_of_its_own(void **state)
{
    struct world *w = *state;
    static uint64_t there[WRITES_MAX];
    const uint32_t both = 1u << WF_NVME_IO_WRITE | 1u << WF_NVME_IO_MOVE_WRITE;
    begin_with(w, MANY);
    uint64_t n = full_of_holes(w), count = 0, moved = 0;
    for (uint64_t i = 2; i < n; i += 2)
        there[count++] = i;
    memset(medium.takes, 0, sizeof medium.takes);
    for (uint32_t crash = 0; crash < 8; crash++) {
        for (uint32_t i = 0; i < 100; i++) {
            replace(w, there, count, n);
            assert_int_equal(put(w, n++), WEFT_OK);
        }
        moved += stats(w).moved_bytes;
        for (uint32_t i = 0; crash == 0 && i < WF_NVME_APART_LEAST; i++)
            assert_true((medium.takes[i] & both) != both);
        medium.fatal = WF_NVME_IO_MOVE_WRITE;
        medium.skip = random_below(&w->random, 8);
        while (!medium.fell) {
            replace(w, there, count, n);
            (void)!put(w, n++);
        }
        kill_it(w);
        medium.fatal = 0;
        medium.fell = false;
        open_at(w, w->path, 0);
        found_again(w, there, count, n);
    }
    assert_true(moved > 0);
    assert_int_equal(stats(w).corrupt, 0);
}

/* The last free segment is in use for what moves when the process ends.  The tier goes on in it, or
 * it would be full for ever. */
static void a_crash_without_a_free_segment_is_got_over(void **state)
{
    struct world *w = *state;
    uint32_t without = 0;
    for (uint32_t skip = 0; skip < 4; skip++) {
        begin_with(w, MANY);
        uint64_t n = put_until_it_falls(w, 1);
        for (uint64_t i = 1; i < n; i += 4)
            assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
        assert_int_equal(flush(w), WEFT_OK);
        medium.fatal = WF_NVME_IO_MOVE_WRITE;
        medium.skip = skip;
        (void)put_until_it_falls(w, n);
        assert_true(medium.fell);
        kill_it(w);
        wf_nvme_hooks = NULL;
        forget_writes();
        open_at(w, w->path, 0);
        without += ((const struct wf_nvme *)(const void *)w->tier)->free_count == 0;
        for (uint64_t i = 1; i < n; i++)
            assert_int_equal(get(w, i), i % 4 == 1 ? WEFT_MISS : WEFT_OK);
        for (uint64_t i = 1; i < 20; i += 4)
            assert_int_equal(put(w, i), WEFT_OK);
        close_it(w);
    }
    assert_true(without > 0);
}

/* A write that was there before a flush ends before it, so that the flush stands for it too. */
static void a_flush_waits_for_what_was_before_it(void **state)
{
    struct world *w = *state;
    begin(w);
    assert_int_equal(put(w, 1), WEFT_OK);
    medium.hold = WF_NVME_IO_WRITE;
    medium.hold_ms = 200;
    struct wf_tier_request write = {.op = WF_TIER_WRITE, .block = block_of(2), .data = w->data};
    struct wf_tier_request last = {.op = WF_TIER_FLUSH}, *done = NULL;
    fill(2, write.block.bytes, w->data);
    assert_int_equal(ops->submit(w->tier, &write), WEFT_OK);
    assert_int_equal(ops->submit(w->tier, &last), WEFT_OK);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_ptr_equal(done, &write);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_ptr_equal(done, &last);
    assert_int_equal(last.status, WEFT_OK);
}

/* A record is written when its segment's header is, and not before. */
static void a_record_waits_for_its_header(void **state)
{
    struct world *w = *state;
    begin(w);
    medium.hold = WF_NVME_IO_HEADER;
    medium.hold_ms = 200;
    struct wf_tier_request write = {.op = WF_TIER_WRITE, .block = block_of(1), .data = w->data};
    struct wf_tier_request *done = NULL;
    fill(1, write.block.bytes, w->data);
    assert_int_equal(ops->submit(w->tier, &write), WEFT_OK);
    assert_true(medium.held);
    assert_int_equal(ops->reap(w->tier, &done, 1, 50), 0);
    assert_int_equal(ops->reap(w->tier, &done, 1, 5000), 1);
    assert_int_equal(write.status, WEFT_OK);
    assert_int_equal(get(w, 1), WEFT_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown_hooks)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_footer_comes_after_its_records),
        TEST(a_footer_waits_for_its_writes),
        TEST(a_footer_at_open_comes_after_its_records),
        TEST(free_comes_after_the_copies),
        TEST(death_comes_after_the_copy),
        TEST(death_comes_after_the_copy_that_is_kept_apart),
        TEST(what_moves_dies_in_both_places),
        TEST(what_is_kept_apart_dies_in_both_places),
        TEST(what_moves_has_a_segment_of_its_own),
        TEST(a_crash_without_a_free_segment_is_got_over),
        TEST(a_flush_waits_for_what_was_before_it),
        TEST(a_record_waits_for_its_header),
    };
    return cmocka_run_group_tests_name("tier_nvme_order", tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    puts("TAP version 13\n1..1\nok 1 # SKIP built without test hooks: no order of writes is seen");
    return 0;
}

#endif
