/* SPDX-License-Identifier: Apache-2.0
 *
 * Huge pages for memory that comes into use: they are made, keep what is in them, and what was
 * punched stays away.  What the file holds is what fstat() says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../support/random.h"
#include "daemon/huge.h"
#include "daemon/workers.h"
#include "sys/memory.h"

#define PAGES 64u
#define BYTES (PAGES * WF_HUGE_BYTES)

struct world {
    int fd;
    char *segment;
    struct wf_workers *workers;
    struct wf_huge_pages *huge;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        return -1;
    *state = w;
    if (!wf_huge_make_works())
        return 0;
    void *memory = NULL;
    assert_int_equal(wf_memfd_create("test-huge", BYTES, WF_PAGES_NORMAL, &w->fd), WEFT_OK);
    assert_int_equal(wf_map(w->fd, BYTES, true, &memory), WEFT_OK);
    w->segment = memory;
    assert_int_equal(wf_workers_create(2, 16, &w->workers), WEFT_OK);
    assert_int_equal(wf_huge_create(w->workers, &w->huge), WEFT_OK);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    if (w->huge) {
        wf_huge_stop(w->huge);
        wf_workers_destroy(w->workers);
        wf_huge_destroy(w->huge);
        wf_unmap(w->segment, BYTES);
        close(w->fd);
    }
    free(w);
    return 0;
}

static void skip_without(const struct world *w)
{
    if (w->huge)
        return;
    print_message("skipped: this kernel makes no huge pages of shared memory on demand "
                  "(MADV_COLLAPSE, Linux 6.1), so that nothing of it was tested\n");
    skip();
}

static uint64_t held(const struct world *w)
{
    struct stat info;
    assert_int_equal(fstat(w->fd, &info), 0);
    return (uint64_t)info.st_blocks * 512;
}

/* Bytes of the segment that are mapped by huge pages. */
static uint64_t mapped_huge(const struct world *w)
{
    char line[256];
    unsigned long long at, end, start = 0, kib = 0, all = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%llx-%llx", &at, &end) == 2)
            start = at;
        bool ours = (uintptr_t)w->segment <= start && start < (uintptr_t)w->segment + BYTES;
        if (ours && sscanf(line, "ShmemPmdMapped: %llu", &kib) == 1)
            all += kib * 1024;
    }
    fclose(file);
    return all;
}

/* Every step that was asked for has ended: what is tested is not how soon. */
static void settle(const struct world *w, uint64_t bytes)
{
    for (uint64_t made = 0, refused = 0; made + refused < bytes;) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        wf_workers_reap(w->workers);
        wf_huge_counts(w->huge, &made, &refused);
    }
    wf_workers_reap(w->workers);
}

static void test_whole_pages_of_a_range_are_made(void **state)
{
    struct world *w = *state;
    skip_without(w);
    assert_int_equal((uintptr_t)w->segment % WF_HUGE_BYTES, 0);
    static const char before_it[] = "what was there before";
    memcpy(w->segment + 5 * WF_HUGE_BYTES, before_it, sizeof before_it);
    uint64_t before = held(w);
    assert_true(before < WF_HUGE_BYTES);
    /* from within page 1 to within page 20: pages 2 to 19 */
    wf_huge_backed(w->huge, w->segment, WF_HUGE_BYTES + 4096, 19 * WF_HUGE_BYTES);
    settle(w, 18 * WF_HUGE_BYTES);
    uint64_t made, refused;
    wf_huge_counts(w->huge, &made, &refused);
    assert_int_equal(made + refused, 18 * WF_HUGE_BYTES);
    assert_in_range(held(w), made, made + refused + 4096);
    for (uint32_t page = 2; page < 20; page++) /* a mapping has them from its next touch on */
        assert_int_equal(((volatile char *)w->segment)[page * WF_HUGE_BYTES], page == 5 ? 'w' : 0);
    assert_int_equal(mapped_huge(w), made);
    assert_string_equal(w->segment + 5 * WF_HUGE_BYTES, before_it);
    /* Parts of a page only: nothing to do. */
    wf_huge_backed(w->huge, w->segment, 30 * WF_HUGE_BYTES + 4096, WF_HUGE_BYTES);
    wf_huge_counts(w->huge, &made, &refused);
    assert_int_equal(made + refused, 18 * WF_HUGE_BYTES);
}

/* Memory that was given back while its pages were being made, or waited to be, does not come back.
 */
static void test_what_is_punched_stays_away(void **state)
{
    struct world *w = *state;
    skip_without(w);
    struct random_source r = random_seeded("huge pages, punched");
    for (uint32_t round = 0; round < 200; round++) {
        uint64_t at = random_below(&r, PAGES - 1) * WF_HUGE_BYTES + random_below(&r, 3) * 4096ull;
        uint64_t bytes = (1 + random_below(&r, 16)) * WF_HUGE_BYTES;
        bytes = bytes < BYTES - at ? bytes : BYTES - at;
        wf_huge_backed(w->huge, w->segment, at, bytes);
        if (random_below(&r, 4) == 0)
            wf_workers_reap(w->workers);
        if (random_below(&r, 2))
            nanosleep(&(struct timespec){.tv_nsec = random_below(&r, 2000000)}, NULL);
        uint64_t hole = random_below(&r, PAGES) * WF_HUGE_BYTES;
        uint64_t length = (1 + random_below(&r, 8)) * WF_HUGE_BYTES;
        length = length < BYTES - hole ? length : BYTES - hole;
        wf_huge_punching(w->huge, w->segment, hole, length);
        assert_int_equal(wf_punch(w->fd, hole, length), WEFT_OK);
    }
    wf_huge_punching(w->huge, w->segment, 0, BYTES);
    assert_int_equal(wf_punch(w->fd, 0, BYTES), WEFT_OK);
    for (uint32_t i = 0; i < 20; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        wf_workers_reap(w->workers);
    }
    assert_int_equal(held(w), 0);
}

/* More ranges than the list holds: those that find no place stay in small pages. */
static void test_more_ranges_than_places(void **state)
{
    struct world *w = *state;
    skip_without(w);
    for (uint32_t i = 0; i < 2000; i++)
        wf_huge_backed(w->huge, w->segment, i % PAGES * WF_HUGE_BYTES, WF_HUGE_BYTES);
    settle(w, 256 * WF_HUGE_BYTES);
    uint64_t made, refused;
    wf_huge_counts(w->huge, &made, &refused);
    assert_in_range(made + refused, 256 * WF_HUGE_BYTES, 300 * WF_HUGE_BYTES);
}

/* Where the address space is bounded, what fits in it is mapped, aligned or not. */
static void test_address_space_that_is_just_enough(void **state)
{
    (void)state;
    enum { MORE = WF_HUGE_BYTES / 2 };
    struct rlimit before, tight;
    unsigned long pages = 0;
    void *memory = NULL;
    int fd;
    assert_int_equal(wf_memfd_create("test-room", WF_HUGE_BYTES, WF_PAGES_NORMAL, &fd), WEFT_OK);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    tight = before;
    tight.rlim_cur = pages * 4096 + WF_HUGE_BYTES + MORE;
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    enum weft_status status = wf_map(fd, WF_HUGE_BYTES, true, &memory);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    if (status != WEFT_OK)
        fail_msg("%s", wf_last_error());
    memset(memory, 1, WF_HUGE_BYTES);
    wf_unmap(memory, WF_HUGE_BYTES);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_pages_of_a_range_are_made, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_punched_stays_away, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_ranges_than_places, setup, teardown),
        cmocka_unit_test(test_address_space_that_is_just_enough),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
