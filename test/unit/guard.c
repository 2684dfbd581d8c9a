/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that goes away under a reader, and cache lines: what is streamed arrives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "sys/guard.h"
#include "sys/lines.h"

#define BYTES ((size_t)65536)

struct sum {
    const uint8_t *memory;
    size_t bytes, done;
    uint64_t sum;
};

static void add_up(void *context)
{
    struct sum *s = context;
    for (s->done = 0; s->done < s->bytes; s->done++)
        s->sum += ((const volatile uint8_t *)s->memory)[s->done];
}

/* A file that ends before its mapping does. */
static uint8_t *cut_mapping(size_t there)
{
    int fd = memfd_create("guard", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)BYTES), 0);
    uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(memory, MAP_FAILED);
    memset(memory, 1, BYTES);
    assert_int_equal(ftruncate(fd, (off_t)there), 0);
    close(fd);
    return memory;
}

static void test_a_fault_is_an_answer(void **state)
{
    (void)state;
    assert_int_equal(wf_guard_install(), WEFT_OK);
    uint8_t *memory = cut_mapping(8192);
    for (int round = 0; round < 1000; round++) { /* the signal is not left blocked */
        struct sum s = {memory, 8192, 0, 0};
        assert_int_equal(wf_guard_run(memory, BYTES, add_up, &s), WF_FAULT_NONE);
        assert_int_equal(s.sum, 8192);
        s = (struct sum){memory, BYTES, 0, 0};
        assert_int_equal(wf_guard_run(memory, BYTES, add_up, &s), WF_FAULT_GONE);
        assert_int_equal(s.done, 8192);
    }
    munmap(memory, BYTES);
}

struct nested {
    uint8_t *outer, *inner;
    enum wf_fault inside;
    bool after;
};

static void nest(void *context)
{
    struct nested *n = context;
    struct sum s = {n->inner, BYTES, 0, 0}, t = {n->outer, BYTES, 0, 0};
    n->inside = wf_guard_run(n->inner, BYTES, add_up, &s);
    add_up(&t);
    n->after = true;
}

static void test_guards_nest(void **state)
{
    (void)state;
    struct nested n = {.outer = cut_mapping(4096), .inner = cut_mapping(4096)};
    assert_int_equal(wf_guard_install(), WEFT_OK);
    assert_int_equal(wf_guard_run(n.outer, BYTES, nest, &n), WF_FAULT_GONE);
    assert_int_equal(n.inside, WF_FAULT_GONE);
    assert_false(n.after);
    munmap(n.outer, BYTES);
    munmap(n.inner, BYTES);
}

static void *fault_often(void *context)
{
    struct sum s = {context, BYTES, 0, 0};
    for (int i = 0; i < 500; i++)
        if (wf_guard_run(context, BYTES, add_up, &s) != WF_FAULT_GONE || s.done != 4096)
            return context;
    return NULL;
}

static void test_each_thread_has_its_own(void **state)
{
    (void)state;
    pthread_t threads[4];
    uint8_t *memory = cut_mapping(4096);
    assert_int_equal(wf_guard_install(), WEFT_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fault_often, memory), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    munmap(memory, BYTES);
}

/* Another's SIGBUS kills as it would have; so does ours outside of the guarded range. */
static void dies_of_it(bool guarded_elsewhere)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint8_t *memory = cut_mapping(4096), *other = cut_mapping(BYTES);
        struct sum s = {memory, BYTES, 0, 0};
        signal(SIGBUS, SIG_DFL);
        if (wf_guard_install() != WEFT_OK)
            _exit(1);
        if (guarded_elsewhere)
            (void)!wf_guard_run(other, BYTES, add_up, &s);
        else
            add_up(&s);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0); /* a sanitizer says it itself */
}

static void test_other_faults_are_not_swallowed(void **state)
{
    (void)state;
    dies_of_it(false);
    dies_of_it(true);
}

static void test_what_is_streamed_arrives(void **state)
{
    (void)state;
    print_message("%s\n", wf_lines_instruction());
    uint8_t *to = aligned_alloc(64, BYTES), from[1024];
    assert_non_null(to);
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t bytes = 0; bytes < 900; bytes++) {
        memset(to, 0x5a, 1024);
        wf_lines_stream(to, from + bytes % 17, bytes);
        wf_lines_fence();
        assert_memory_equal(to, from + bytes % 17, bytes);
        assert_int_equal(to[bytes], 0x5a);
        wf_lines_write_back(to + bytes % 5, bytes);
        wf_lines_invalidate(to + bytes % 5, bytes);
        assert_memory_equal(to, from + bytes % 17, bytes);
    }
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_faults_are_not_swallowed), /* before it is installed here */
        cmocka_unit_test(test_a_fault_is_an_answer),
        cmocka_unit_test(test_guards_nest),
        cmocka_unit_test(test_each_thread_has_its_own),
        cmocka_unit_test(test_what_is_streamed_arrives),
    };
    return cmocka_run_group_tests_name("guard", tests, NULL, NULL);
}
