/* SPDX-License-Identifier: Apache-2.0
 *
 * A wall clock that a test moves: preloaded (LD_PRELOAD) into one program, it adds the seconds that
 * the file $WEFT_TEST_CLOCK begins with, a little-endian int64, to what the kernel says.  The file
 * is mapped, so the clock jumps when the test writes.  Monotonic clocks stay as they are, as they
 * do when a host's clock is set.
 *
 * An emulation: the kernel's own waits until a wall time know nothing of it, so
 * pthread_cond_timedwait's time is taken back by as much.  Any thread may call; without the
 * variable, or the file, nothing is added.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset; /* in a mapped file: another process writes it */

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("WEFT_TEST_CLOCK");
    const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *map = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        offset = map;
    close(fd);
}

static int64_t added(void)
{
    return offset ? *offset : 0;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))(uintptr_t)dlsym(RTLD_NEXT, "clock_gettime");
    const int rc = real ? real(clock, out) : (int)syscall(SYS_clock_gettime, clock, out);
    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += (time_t)added();
    return rc;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until)
{
    /* Which clock a condition waits by is its attribute's secret: a time that is nearer to the
     * monotonic clock than to the wall's is the former's. */
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec taken = *until, monotonic;
    if (!real)
        real = (int (*)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *))(
            uintptr_t)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (!real)
        return ENOSYS;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &monotonic);
    if (until->tv_sec - monotonic.tv_sec > 365 * 86400)
        taken.tv_sec -= (time_t)added();
    return real(cond, mutex, &taken);
}
