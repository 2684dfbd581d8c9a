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
    bool dead, fell, held;
    int hold, hold_ms; /* a kind of write that takes so long */
    uint64_t segment_bytes;
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

static void begin(struct world *w)
{
    struct wf_nvme_super super = {.segment_bytes = 4 << 20};
    medium = (struct medium){.hooks = {&medium, medium_before, medium_after},
                             .segment_bytes = super.segment_bytes};
    snprintf(medium.path, sizeof medium.path, "%s", w->path);
    open_at(w, w->path, CAPACITY);
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, &super, sizeof super, 0), sizeof super);
    close(fd);
    assert_int_equal(super.segment_bytes, medium.segment_bytes);
    wf_nvme_hooks = &medium.hooks;
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

static int teardown_hooks(void **state)
{
    struct world *w = *state;
    medium.dead = true;
    if (w->tier)
        close_it(w);
    wf_nvme_hooks = NULL;
    while (medium.count)
        free(medium.writes[--medium.count].old);
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
    for (uint32_t skip = 0; skip < 3; skip++) {
        begin(w);
        medium.fatal = WF_NVME_IO_FREE;
        medium.skip = skip;
        uint64_t n = full_of_holes(w), more = put_until_it_falls(w, n);
        for (; !medium.fell && more < n + 2000; more++) {
            (void)!ops->remove(w->tier, block_of(more - 10).key);
            (void)!put(w, more);
        }
        assert_true(medium.fell);
        lose(w, WF_NVME_IO_FREE);
        open_at(w, w->path, CAPACITY);
        for (uint64_t i = 2; i < n - 10; i += 2)
            assert_int_equal(get(w, i), WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
        kill_it(w);
        wf_nvme_hooks = NULL;
        assert_int_equal(truncate(w->path, 0), 0);
    }
}

/* A record that moved before its segment's reclaim was given up dies there after its copy is
 * durable. */
static int fail_reads(void *context, const struct wf_nvme_call *call)
{
    static uint32_t seen;
    int result = medium_before(context, call);
    return call->kind == WF_NVME_IO_MOVE_READ && ++seen == 40 ? -EIO : result;
}

static void death_comes_after_the_copy(void **state)
{
    struct world *w = *state;
    begin(w);
    uint64_t n = 1;
    while (put(w, n) == WEFT_OK)
        n++;
    assert_int_equal(flush(w), WEFT_OK);
    for (uint64_t i = 1; i < n; i += 6)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    medium.hooks.before = fail_reads;
    for (uint64_t i = n; i < n + 20 && stats(w).errors == 0; i++)
        (void)!put(w, i);
    assert_true(stats(w).errors > 0);
    medium.fatal = WF_NVME_IO_MAP;
    (void)!flush(w);
    assert_true(medium.fell);
    lose(w, WF_NVME_IO_MAP);
    open_at(w, w->path, CAPACITY);
    for (uint64_t i = 1; i < n; i++)
        if (i % 6 != 1)
            assert_int_equal(get(w, i), WEFT_OK);
}

/* What is removed while its copy's origin is still on the medium is gone from both. */
static void what_moves_dies_in_both_places(void **state)
{
    struct world *w = *state;
    begin(w);
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
    open_at(w, w->copy, CAPACITY);
    for (uint64_t i = 1; i < n; i++)
        assert_int_equal(get(w, i), WEFT_MISS);
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
        TEST(what_moves_dies_in_both_places),
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
