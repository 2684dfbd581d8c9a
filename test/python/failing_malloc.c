/* SPDX-License-Identifier: Apache-2.0
 *
 * A malloc that fails when it is told to, for test_no_memory.py, which preloads it.  Only the
 * thread that asked is meant; glibc's own malloc does the work.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
#define EXPORT __attribute__((visibility("default")))
/* Where a preloaded library's are there without an allocation. */
#define OWN __attribute__((tls_model("initial-exec")))

EXPORT void fail_malloc(uint64_t after, uint64_t many, uint64_t from, uint64_t to);
EXPORT uint64_t fail_malloc_failed(void);

static __thread uint64_t left OWN, times OWN, failed OWN;
static __thread uint64_t code_from OWN, code_to OWN;

/* Of the allocations that code from address `from` to `to` asks for, those numbered `after` to
 * `after + many - 1` fail; after 0: none. */
void fail_malloc(uint64_t after, uint64_t many, uint64_t from, uint64_t to)
{
    left = after;
    times = many;
    code_from = from;
    code_to = to;
    failed = 0;
}

uint64_t fail_malloc_failed(void)
{
    return failed;
}

static int fails(const void *caller)
{
    if (left == 0 || (uintptr_t)caller < code_from || (uintptr_t)caller >= code_to || --left > 0)
        return 0;
    left = --times > 0;
    failed++;
    errno = ENOMEM;
    return 1;
}

#define FAILS() fails(__builtin_return_address(0))

EXPORT void *malloc(size_t bytes)
{
    return FAILS() ? NULL : __libc_malloc(bytes);
}

EXPORT void *calloc(size_t count, size_t bytes)
{
    return FAILS() ? NULL : __libc_calloc(count, bytes);
}

EXPORT void *realloc(void *old, size_t bytes)
{
    return FAILS() ? NULL : __libc_realloc(old, bytes);
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
    return FAILS() ? NULL : __libc_memalign(alignment, bytes);
}

EXPORT int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    if (FAILS())
        return ENOMEM;
    *out = __libc_memalign(alignment, bytes);
    return *out ? 0 : ENOMEM;
}
