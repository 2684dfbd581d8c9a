/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVMe tier on a block device: opened, found again, refused while it is mounted, and told of
 * what is not used any more, never before that is durable.
 */
#include "../support/nvme_world.h"

#include <errno.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "../support/loop.h"
#include "../support/torn.h"
#include "tier/nvme_log.h"

extern char **environ;

static struct loop loop;

static int device_setup(void **state)
{
    loop.fd = -1;
    return setup(state);
}

static int device_teardown(void **state)
{
#if WF_TEST_HOOKS
    wf_nvme_hooks = NULL;
#endif
    struct world *w = *state;
    if (w->tier)
        close_it(w);
    loop_detach(&loop);
    return teardown(state);
}

/* The file of this world as a device. */
static void make_device(struct world *w)
{
    const char *missing = w->path[0] ? loop_attach(&loop, w->path, CAPACITY)
                                     : "io_uring is missing";
    if (missing) {
        print_message("# no block device was tried: %s\n", missing);
        skip();
    }
}

static void open_device(struct world *w, bool discard)
{
    struct wf_tier_options options = {.path = loop.path, .queue_depth = DEPTH, .discard = discard};
    if (ops->open(&options, &w->tier) != WEFT_OK)
        fail_msg("open: %s", wf_last_error());
}

static void a_device_keeps_what_it_has(void **state)
{
    struct world *w = *state;
    make_device(w);
    open_device(w, true); /* its size is its own */
    assert_in_range(stats(w).capacity_bytes, CAPACITY / 2, CAPACITY);
    for (uint64_t n = 1; n <= 100; n++)
        assert_int_equal(put(w, n), WEFT_OK);
    for (uint64_t n = 1; n <= 100; n += 3)
        assert_int_equal(ops->remove(w->tier, block_of(n).key), WEFT_OK);
    for (int again = 0; again < 2; again++) {
        close_it(w);
        open_device(w, true);
        for (uint64_t n = 1; n <= 100; n++)
            assert_int_equal(get(w, n), n % 3 == 1 ? WEFT_MISS : WEFT_OK);
        assert_told(w);
    }
    struct wf_tier *second = NULL;
    struct wf_tier_options options = {.path = loop.path, .queue_depth = DEPTH};
    assert_int_equal(ops->open(&options, &second), WEFT_E_SYSTEM);
    assert_null(second);
}

static bool run_program(const char *const *words)
{
    pid_t child;
    int status = 1;
    if (posix_spawnp(&child, words[0], NULL, NULL, (char *const *)(uintptr_t)words, environ) != 0)
        return false;
    return waitpid(child, &status, 0) == child && status == 0;
}

static void a_mounted_device_is_refused(void **state)
{
    struct world *w = *state;
    struct wf_tier *tier = NULL;
    char place[] = "/tmp/weft-mounted-XXXXXX";
    struct wf_nvme_super super[2];
    make_device(w);
    const char *const make[] = {"mkfs.ext2", "-q", "-F", loop.path, NULL};
    if (!run_program(make) || !mkdtemp(place)) {
        print_message("# a mounted device was not tried: mkfs.ext2 is missing\n");
        skip();
    }
    if (mount(loop.path, place, "ext2", 0, NULL) != 0) {
        print_message("# a mounted device was not tried: mount: %s\n", strerror(errno));
        rmdir(place);
        skip();
    }
    struct wf_tier_options options = {.path = loop.path, .queue_depth = DEPTH, .discard = true};
    enum weft_status status = ops->open(&options, &tier);
    char sentence[256];
    snprintf(sentence, sizeof sentence, "%s", wf_last_error());
    assert_int_equal(umount(place), 0);
    rmdir(place);
    assert_int_equal(status, WEFT_E_SYSTEM);
    assert_null(tier);
    assert_non_null(strstr(sentence, "is mounted, or in use otherwise"));
    for (int i = 0; i < 2; i++) { /* the rest of it is the file system's to change */
        assert_int_equal(pread(loop.fd, &super[i], sizeof super[i], i * (off_t)WF_NVME_PAGE),
                         sizeof super[i]);
        assert_true(super[i].head.magic != WF_NVME_SUPER_MAGIC);
    }
    /* Not mounted it is someone's all the same. */
    assert_int_equal(ops->open(&options, &tier), WEFT_E_INVALID);
    assert_non_null(strstr(wf_last_error(), "holds something else"));
}

/* ----------------------------------------------------------------------- what is unused is told */

static uint64_t blocks_of(const struct world *w)
{
    struct stat there;
    assert_int_equal(stat(w->path, &there), 0);
    return (uint64_t)there.st_blocks * 512;
}

static void idle(struct world *w, uint32_t ms)
{
    struct wf_tier_request *none;
    for (uint32_t i = 0; i < ms; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        assert_int_equal(ops->reap(w->tier, &none, 1, 0), 0);
    }
}

/* Full, and nothing of it lives on; then some is written, so that the segments are freed. */
static void come_and_go(struct world *w)
{
    uint64_t n = 1;
    while (put(w, n) == WEFT_OK)
        n++;
    assert_int_equal(flush(w), WEFT_OK);
    for (uint64_t i = 1; i < n; i++)
        assert_int_equal(ops->remove(w->tier, block_of(i).key), WEFT_OK);
    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(put(w, n + i), WEFT_OK);
    assert_int_equal(flush(w), WEFT_OK);
    idle(w, 500);
    for (uint64_t i = 1; i <= 10; i++)
        assert_int_equal(get(w, n + i), WEFT_OK);
}

/* The file behind the device shrinks when it is told, and does not when it is not. */
static void a_device_is_told_of_what_is_unused(void **state)
{
    struct world *w = *state;
    make_device(w);
    open_device(w, false);
    come_and_go(w);
    close_it(w);
    uint64_t kept = blocks_of(w);
    assert_true(kept > CAPACITY / 2);
    open_device(w, true);
    idle(w, 300); /* what an earlier run left marked */
    assert_true(blocks_of(w) + (2 << 20) < kept);
    assert_int_equal(stats(w).blocks, 10);
    come_and_go(w);
    assert_true(blocks_of(w) + (2 << 20) < kept);
    close_it(w);
    open_device(w, true);
    assert_int_equal(stats(w).corrupt + stats(w).errors, 0);
}

/* A device that does not want to know, or a file, is not told, and nothing else changes. */
static void who_does_not_want_to_know_is_left_alone(void **state)
{
    struct world *w = *state;
    if (!w->path[0])
        skip();
    struct wf_tier_options options = {.path = w->path,
                                      .capacity_bytes = CAPACITY,
                                      .queue_depth = DEPTH,
                                      .discard = true};
    assert_int_equal(ops->open(&options, &w->tier), WEFT_OK);
    uint64_t aside = blocks_of(w);
    come_and_go(w);
    assert_true(blocks_of(w) >= aside);
    assert_int_equal(stats(w).errors, 0);
}

#if WF_TEST_HOOKS

/* Before a discard every write to the header of its segment must be covered by a sync: what a
 * medium could still forget of "free" would leave a segment that is in use, without its bytes. */
struct watch {
    struct wf_nvme_hooks hooks;
    struct torn torn;
    uint64_t segment_bytes;
    uint32_t discards;
};

static int watch_before(void *context, const struct wf_nvme_call *call)
{
    struct watch *v = context;
    if (call->what != WF_NVME_CALL_DISCARD)
        return torn_before(&v->torn, call);
    if (v->torn.dead)
        return -ENODEV;
    v->discards++;
    uint64_t segment = (call->offset - WF_NVME_SEGMENTS_AT) / v->segment_bytes;
    uint64_t at = WF_NVME_SEGMENTS_AT + segment * v->segment_bytes;
    assert_true(call->offset >= at + WF_NVME_RECORDS_AT);
    assert_true(call->offset + call->bytes <= at + v->segment_bytes);
    for (uint32_t i = 0; i < v->torn.count; i++)
        assert_true(v->torn.writes[i].offset + v->torn.writes[i].bytes <= at ||
                    v->torn.writes[i].offset >= at + v->segment_bytes);
    return 0;
}

static int watch_after(void *context, const struct wf_nvme_call *call, int result)
{
    struct watch *v = context;
    return call->what == WF_NVME_CALL_DISCARD ? result : torn_after(&v->torn, call, result);
}

/* A device that cannot take it (a file system without holes under a loop device, a disk without
 * TRIM): it is asked once, and the tier goes on. */
struct deaf {
    struct wf_nvme_hooks hooks;
    uint32_t asked;
};

static int deaf_before(void *context, const struct wf_nvme_call *call)
{
    struct deaf *deaf = context;
    if (call->what != WF_NVME_CALL_DISCARD)
        return 0;
    deaf->asked++;
    return -EOPNOTSUPP;
}

static int deaf_after(void *context, const struct wf_nvme_call *call, int result)
{
    (void)context;
    (void)call;
    return result;
}

static void a_device_without_discard_goes_on(void **state)
{
    struct world *w = *state;
    static struct deaf deaf;
    deaf = (struct deaf){.hooks = {&deaf, deaf_before, deaf_after}};
    make_device(w);
    wf_nvme_hooks = &deaf.hooks;
    for (uint32_t opened = 1; opened <= 2; opened++) {
        open_device(w, true);
        come_and_go(w);
        assert_int_equal(deaf.asked, opened);
        assert_int_equal(stats(w).errors + stats(w).corrupt, 0);
        assert_false(stats(w).failed);
        close_it(w);
    }
    wf_nvme_hooks = NULL;
    open_device(w, false);
    assert_told(w);
}

static uint64_t segment_bytes_of(void)
{
    struct wf_nvme_super super;
    assert_int_equal(pread(loop.fd, &super, sizeof super, 0), sizeof super);
    return super.segment_bytes;
}

/* Power fails again and again while segments are freed and told of: what was flushed is there. */
static void nothing_durable_is_discarded(void **state)
{
    struct world *w = *state;
    static struct watch watch;
    enum { KEPT = 8, ROUNDS = 12 };
    uint64_t n = 1;
    make_device(w);
    open_device(w, true);
    close_it(w);
    watch = (struct watch){.hooks = {&watch, watch_before, watch_after},
                           .segment_bytes = segment_bytes_of()};
    torn_begin(&watch.torn, loop.path, random_next(&w->random));
    wf_nvme_hooks = &watch.hooks;
    open_device(w, true);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t first = n, end = n + 100 + random_below(&w->random, 150);
        for (; n < end; n++) {
            assert_int_equal(put(w, n), WEFT_OK);
            if (n >= first + KEPT && n % 4)
                assert_int_equal(ops->remove(w->tier, block_of(n - KEPT).key), WEFT_OK);
            else if (n >= first + KEPT)
                (void)!ops->remove(w->tier, block_of(n - KEPT).key);
            if (n % 40 == 0)
                idle(w, 30);
        }
        assert_int_equal(flush(w), WEFT_OK);
        if (round % 2)
            idle(w, random_below(&w->random, 120));
        watch.torn.dead = true;
        close_it(w);
        torn_lose(&watch.torn);
        open_device(w, true);
        for (uint64_t i = n - KEPT; i < n; i++)
            assert_int_equal(get(w, i), WEFT_OK);
        assert_int_equal(stats(w).corrupt, 0);
    }
    assert_true(watch.discards > ROUNDS);
    close_it(w);
    wf_nvme_hooks = NULL;
    torn_end(&watch.torn);
}

#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, device_setup, device_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_device_keeps_what_it_has),
        TEST(a_mounted_device_is_refused),
        TEST(a_device_is_told_of_what_is_unused),
        TEST(who_does_not_want_to_know_is_left_alone),
#if WF_TEST_HOOKS
        TEST(a_device_without_discard_goes_on),
        TEST(nothing_durable_is_discarded),
#endif
    };
    return cmocka_run_group_tests_name("tier_nvme_device", tests, NULL, NULL);
}
