/* SPDX-License-Identifier: Apache-2.0
 *
 * Watched records: what a reader sees is whole, in one process and in several, whatever the writer
 * does or wherever it dies.
 *
 * A record here describes itself: the first word is its sequence number, its length follows from
 * that, and so does every byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shm/watch.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define RECORD_BYTES 1000
#define REGION_BYTES 16384

static uint8_t *map_region(int *out_fd)
{
    void *memory;
    assert_int_equal(wf_memfd_create("watch-test", REGION_BYTES, WF_PAGES_NORMAL, out_fd), WEFT_OK);
    assert_int_equal(wf_map(*out_fd, REGION_BYTES, true, &memory), WEFT_OK);
    return memory;
}

static void unmap_region(uint8_t *memory, int fd)
{
    wf_unmap(memory, REGION_BYTES);
    close(fd);
}

static const uint8_t *map_readonly(int fd)
{
    int readonly;
    void *memory;
    if (wf_memfd_reopen_readonly(fd, &readonly) || wf_map(readonly, REGION_BYTES, false, &memory))
        return NULL;
    close(readonly);
    return memory;
}

static size_t record_length(uint64_t sequence)
{
    return 8 + (size_t)(sequence * 2654435761u % (RECORD_BYTES - 8));
}

static void record_fill(uint8_t *record, uint64_t sequence)
{
    memcpy(record, &sequence, 8);
    for (size_t i = 8; i < record_length(sequence); i++)
        record[i] = (uint8_t)(sequence * 31 + i);
}

static bool record_whole(const uint8_t *record, size_t bytes, uint64_t sequence)
{
    uint8_t expected[RECORD_BYTES];
    record_fill(expected, sequence);
    return bytes == record_length(sequence) && memcmp(record, expected, bytes) == 0;
}

static enum weft_status publish_next(struct wf_watch *watch)
{
    uint8_t record[RECORD_BYTES];
    record_fill(record, watch->last + 1);
    return wf_watch_publish(watch, record, record_length(watch->last + 1));
}

/* --------------------------------------------------------------------------------- one process */

static void test_publish_and_next(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd), record[RECORD_BYTES];
    struct wf_watch writer, reader;
    uint64_t sequence = 0;
    size_t bytes = 77;
    assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &reader), WEFT_PENDING);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &writer), WEFT_OK);
    assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &reader), WEFT_OK);
    assert_int_equal(wf_watch_next(&reader, &sequence, record, RECORD_BYTES, &bytes, 0, 0),
                     WEFT_PENDING);
    assert_int_equal(bytes, 77);
    for (uint64_t n = 1; n <= 100; n++) {
        assert_int_equal(publish_next(&writer), WEFT_OK);
        if (n % 3 == 0)
            continue; /* a reader that skips gets the newest */
        assert_int_equal(wf_watch_next(&reader, &sequence, record, RECORD_BYTES, &bytes, 0, 0),
                         WEFT_OK);
        assert_int_equal(sequence, n);
        assert_true(record_whole(record, bytes, n));
        assert_int_equal(wf_watch_next(&reader, &sequence, record, RECORD_BYTES, &bytes, 0, 0),
                         WEFT_PENDING);
    }
    assert_int_equal(wf_watch_publish(&writer, NULL, 0), WEFT_OK);
    assert_int_equal(wf_watch_next(&reader, &sequence, NULL, 0, &bytes, 0, 0), WEFT_OK);
    assert_int_equal(bytes, 0);
    unmap_region(memory, fd);
}

static void test_lengths_are_checked(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd), record[RECORD_BYTES + 1] = {0};
    struct wf_watch writer, reader;
    uint64_t sequence = 0;
    size_t bytes;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, 0, &writer), WEFT_E_INVALID);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, REGION_BYTES, &writer), WEFT_E_INVALID);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, SIZE_MAX, &writer), WEFT_E_INVALID);
    assert_int_equal(wf_watch_format(memory, 0, 1, &writer), WEFT_E_INVALID);
    assert_int_equal(wf_watch_attach(memory + 8, REGION_BYTES - 8, &reader), WEFT_E_INVALID);
    assert_int_equal(wf_watch_attach(memory, 100, &reader), WEFT_E_INVALID);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &writer), WEFT_OK);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES - 1, &writer),
                     WEFT_E_INVALID);
    assert_int_equal(wf_watch_publish(&writer, record, RECORD_BYTES + 1), WEFT_E_INVALID);

    assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &reader), WEFT_OK);
    assert_int_equal(publish_next(&writer), WEFT_OK);
    size_t length = record_length(1);
    record[length - 1] = 0xee;
    assert_int_equal(wf_watch_next(&reader, &sequence, record, length - 1, &bytes, 0, 0),
                     WEFT_E_INVALID);
    assert_int_equal(sequence, 0);
    assert_int_equal(record[length - 1], 0xee);
    assert_int_equal(wf_watch_next(&reader, &sequence, record, length, &bytes, 0, 0), WEFT_OK);
    assert_true(record_whole(record, bytes, 1));
    unmap_region(memory, fd);
}

static void test_second_writer_is_noticed(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd);
    struct wf_watch one, two;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &one), WEFT_OK);
    assert_int_equal(publish_next(&one), WEFT_OK);
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &two), WEFT_OK);
    assert_int_equal(two.last, 1);
    assert_int_equal(publish_next(&two), WEFT_OK);
    assert_int_equal(publish_next(&one), WEFT_E_BUSY);
    assert_int_equal(publish_next(&two), WEFT_OK);
    unmap_region(memory, fd);
}

/* The region is whatever somebody wrote: a reader neither leaves it (ASan and the guard page see
 * that) nor hangs.  Its last byte lies before a page that cannot be touched. */
static void test_garbage_is_harmless(void **state)
{
    (void)state;
    uint8_t *guarded = mmap(NULL, REGION_BYTES + 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(guarded, MAP_FAILED);
    assert_int_equal(mprotect(guarded + REGION_BYTES, 4096, PROT_NONE), 0);
    static const uint64_t lies[] = {0,         1, 7, 8, 64, 1000, 1001, 1u << 20, UINT64_MAX - 1,
                                    UINT64_MAX};
    uint8_t record[RECORD_BYTES + 1];
    record[RECORD_BYTES] = 0xa5;
    unsigned seed = 1;
    unsigned attached = 0, refused = 0;
    for (int round = 0; round < 20000; round++) {
        struct wf_watch writer, reader;
        memset(guarded, 0, 128);
        assert_int_equal(wf_watch_format(guarded, REGION_BYTES, RECORD_BYTES, &writer), WEFT_OK);
        for (int i = 0; i < 12; i++)
            assert_int_equal(publish_next(&writer), WEFT_OK);
        uint64_t lie = lies[(unsigned)rand_r(&seed) % 10];
        size_t at = round % 2 ? (unsigned)rand_r(&seed) % 16
                              : (unsigned)rand_r(&seed) % (REGION_BYTES / 8);
        memcpy(guarded + 8 * at, &lie, 8);
        if (round % 3 == 0) { /* the newest record's number agrees with its slot, its length lies */
            uint64_t newest = writer.last;
            memcpy(writer.slots + newest % WF_WATCH_SLOTS * writer.slot_bytes + 8, &lie, 8);
        }
        enum weft_status status = wf_watch_attach(guarded, REGION_BYTES, &reader);
        if (status != WEFT_OK) {
            refused++;
            continue;
        }
        attached++;
        uint64_t sequence = 0;
        size_t bytes = 0;
        status = wf_watch_next(&reader, &sequence, record, RECORD_BYTES, &bytes, 0, 0);
        assert_true(status == WEFT_OK || status == WEFT_PENDING || status == WEFT_E_PROTOCOL ||
                    status == WEFT_E_INVALID);
        assert_true(bytes <= RECORD_BYTES);
        assert_int_equal(record[RECORD_BYTES], 0xa5);
    }
    assert_true(attached > 1000 && refused > 1000);
    munmap(guarded, REGION_BYTES + 4096);
}

static void test_waiting_takes_as_long_as_asked(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd), record[RECORD_BYTES];
    struct wf_watch writer;
    uint64_t sequence = 0, start = wf_now_ns();
    size_t bytes;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &writer), WEFT_OK);
    assert_int_equal(wf_watch_next(&writer, &sequence, record, RECORD_BYTES, &bytes, 1000, 30),
                     WEFT_PENDING);
    assert_true(wf_now_ns() - start >= 30000000);
    start = wf_now_ns();
    assert_int_equal(wf_watch_next(&writer, &sequence, record, RECORD_BYTES, &bytes, 2000, 0),
                     WEFT_PENDING);
    assert_true(wf_now_ns() - start >= 2000000);
    unmap_region(memory, fd);
}

/* ------------------------------------------------------------------------------------- threads */

struct reader_thread {
    struct wf_watch watch;
    _Atomic bool *stop;
    uint32_t spin_us;
    uint64_t seen, torn;
};

static void *read_until_stopped(void *argument)
{
    struct reader_thread *reader = argument;
    uint8_t record[RECORD_BYTES];
    uint64_t sequence = 0, before = 0;
    size_t bytes;
    while (!atomic_load(reader->stop)) {
        if (wf_watch_next(&reader->watch, &sequence, record, sizeof record, &bytes, reader->spin_us,
                          20) != WEFT_OK)
            continue;
        reader->seen++;
        if (sequence <= before || !record_whole(record, bytes, sequence))
            reader->torn++;
        before = sequence;
    }
    return NULL;
}

/* For ThreadSanitizer: the same memory, in threads. */
static void test_threads(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd);
    struct wf_watch writer;
    _Atomic bool stop = false;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &writer), WEFT_OK);
    struct reader_thread readers[2] = {{.stop = &stop, .spin_us = 50}, {.stop = &stop}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &readers[i].watch), WEFT_OK);
        assert_int_equal(pthread_create(&threads[i], NULL, read_until_stopped, &readers[i]), 0);
    }
    for (int i = 0; i < 20000; i++)
        assert_int_equal(publish_next(&writer), WEFT_OK);
    usleep(50000);
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(readers[i].seen > 0);
        assert_int_equal(readers[i].torn, 0);
    }
    unmap_region(memory, fd);
}

/* ----------------------------------------------------------------------------------- processes */

/* A process that only has a read-only mapping: reads until record `last`, exits 0 when all that it
 * saw was whole, 1 when not, 2 when it waited for ten seconds in vain. */
static pid_t start_reader(int fd, uint64_t last, uint32_t spin_us)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    uint8_t record[RECORD_BYTES];
    struct wf_watch watch;
    uint64_t sequence = 0, before = 0;
    size_t bytes;
    const uint8_t *memory = map_readonly(fd);
    if (!memory || wf_watch_attach(memory, REGION_BYTES, &watch) != WEFT_OK)
        _exit(3);
    while (sequence < last) {
        enum weft_status status = wf_watch_next(&watch, &sequence, record, sizeof record, &bytes,
                                                spin_us, 10000);
        if (status != WEFT_OK)
            _exit(2);
        if (sequence <= before || !record_whole(record, bytes, sequence))
            _exit(1);
        before = sequence;
    }
    _exit(0);
}

static pid_t start_writer(int fd, uint64_t until)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    void *memory;
    struct wf_watch watch;
    if (wf_map(fd, REGION_BYTES, true, &memory) ||
        wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &watch))
        _exit(3);
    while (watch.last < until) {
        if (publish_next(&watch) != WEFT_OK)
            _exit(1);
    }
    _exit(0);
}

static void assert_exits(pid_t pid, int code)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

static void test_writers_die(void **state)
{
    (void)state;
    enum { DEATHS = 150 };
    const uint64_t last = UINT64_C(1) << 40;
    int fd;
    uint8_t *memory = map_region(&fd), record[RECORD_BYTES];
    struct wf_watch watch;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &watch), WEFT_OK);
    pid_t readers[2] = {start_reader(fd, last, 100), start_reader(fd, last, 0)};
    unsigned seed = 7;
    uint64_t before = 0;
    unsigned torn = 0;
    for (int death = 0; death < DEATHS; death++) {
        pid_t writer = start_writer(fd, last);
        usleep(500 + (unsigned)rand_r(&seed) % 3000);
        assert_int_equal(kill(writer, SIGKILL), 0);
        assert_int_equal(waitpid(writer, NULL, 0), writer);
        uint64_t sequence = 0;
        size_t bytes;
        enum weft_status status = wf_watch_next(&watch, &sequence, record, sizeof record, &bytes, 0,
                                                0);
        assert_true(status == WEFT_OK || (status == WEFT_PENDING && before == 0));
        assert_true(sequence >= before);
        if (status == WEFT_OK)
            assert_true(record_whole(record, bytes, sequence));
        before = sequence;
        const uint8_t *next = watch.slots + (sequence + 1) % WF_WATCH_SLOTS * watch.slot_bytes;
        torn += atomic_load((const _Atomic uint64_t *)(const void *)next) == WF_WATCH_TORN;
    }
    print_message("%u of %d writers died inside a record, %llu records\n", torn, DEATHS,
                  (unsigned long long)before);
    assert_true(before > 0);
    /* One more writer, with a record that lets the readers go home. */
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &watch), WEFT_OK);
    atomic_store(&watch.line->newest, last);
    watch.last = last;
    assert_int_equal(publish_next(&watch), WEFT_OK);
    assert_exits(readers[0], 0);
    assert_exits(readers[1], 0);
    unmap_region(memory, fd);
}

/* Death exactly inside a record: the crash points of the code itself, when they are built in. */
static void test_writer_dies_at_each_point(void **state)
{
    (void)state;
#if WF_TEST_HOOKS
    static const struct {
        const char *point;
        uint64_t newest; /* what readers find, of 20 published and one begun */
    } cases[] = {
        {"watch.format.before_magic", 0},
        {"watch.publish.torn:21", 20},
        {"watch.publish.before_newest:21", 20},
        {"watch.publish.before_wake:21", 21},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd, status;
        uint8_t *memory = map_region(&fd), record[RECORD_BYTES];
        struct wf_watch watch;
        uint64_t sequence = 0;
        size_t bytes;
        pid_t pid = fork();
        if (pid == 0) {
            char number[16];
            snprintf(number, sizeof number, "%d", fd);
            fcntl(fd, F_SETFD, 0);
            setenv("WEFT_CRASH_AT", cases[i].point, 1);
            execl("/proc/self/exe", "watch", "--write", number, (char *)NULL);
            _exit(4);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (cases[i].newest == 0) {
            assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &watch), WEFT_PENDING);
        } else {
            assert_int_equal(wf_watch_attach(memory, REGION_BYTES, &watch), WEFT_OK);
            assert_int_equal(wf_watch_next(&watch, &sequence, record, sizeof record, &bytes, 0, 0),
                             WEFT_OK);
            assert_true(record_whole(record, bytes, sequence));
        }
        assert_int_equal(sequence, cases[i].newest);
        pid_t writer = start_writer(fd, 40);
        assert_exits(writer, 0);
        assert_exits(start_reader(fd, 40, 0), 0);
        unmap_region(memory, fd);
    }
#else
    print_message("built without test hooks\n");
    skip();
#endif
}

/* Sleepers in processes with a read-only mapping are woken, not only timed out. */
static void test_sleepers_wake(void **state)
{
    (void)state;
    int fd;
    uint8_t *memory = map_region(&fd);
    struct wf_watch watch;
    assert_int_equal(wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &watch), WEFT_OK);
    pid_t readers[3];
    for (int i = 0; i < 3; i++)
        readers[i] = start_reader(fd, 5, 0);
    uint64_t start = wf_now_ns();
    for (int i = 0; i < 5; i++) {
        usleep(20000);
        assert_int_equal(publish_next(&watch), WEFT_OK);
    }
    for (int i = 0; i < 3; i++)
        assert_exits(readers[i], 0);
    assert_true(wf_now_ns() - start < 5000000000u);
    unmap_region(memory, fd);
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "--write")) {
        void *memory;
        struct wf_watch watch;
        if (wf_map((int)strtol(argv[2], NULL, 10), REGION_BYTES, true, &memory) ||
            wf_watch_format(memory, REGION_BYTES, RECORD_BYTES, &watch))
            return 3;
        while (watch.last < 40) {
            if (publish_next(&watch))
                return 1;
        }
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_publish_and_next),
        cmocka_unit_test(test_lengths_are_checked),
        cmocka_unit_test(test_second_writer_is_noticed),
        cmocka_unit_test(test_garbage_is_harmless),
        cmocka_unit_test(test_waiting_takes_as_long_as_asked),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_writers_die),
        cmocka_unit_test(test_writer_dies_at_each_point),
        cmocka_unit_test(test_sleepers_wake),
    };
    return cmocka_run_group_tests_name("watch", tests, NULL, NULL);
}
