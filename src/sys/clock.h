/* SPDX-License-Identifier: Apache-2.0
 *
 * Time, as the rest of Weft reads it: monotonic nanoseconds; and the time of day, which somebody
 * may set, for people and for what outlives the process.
 */
#ifndef WF_SYS_CLOCK_H
#define WF_SYS_CLOCK_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

static inline uint64_t wf_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t wf_now_ms(void)
{
    return wf_now_ns() / 1000000u;
}

/* Since 1970. */
static inline int64_t wf_unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static inline void wf_nap(uint32_t ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* A hint to the core that this is a spin loop. */
static inline void wf_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
