/* SPDX-License-Identifier: Apache-2.0
 *
 * What the benchmarks share: a cheap clock, and Redis as the yardstick.
 */
#ifndef WF_CLI_BENCH_H
#define WF_CLI_BENCH_H

#include "cli/cli.h"

struct bench_options {
    uint64_t block_bytes, blocks, rounds, pool_bytes, readers, records;
};
extern struct bench_options wf_bench_options;

int wf_bench_local(struct cli *cli);
int wf_bench_watch(struct cli *cli);

/* Ticks of the time-stamp counter where it runs at one rate, else nanoseconds of CLOCK_MONOTONIC.
 * The fences keep the timed work between two reads. */
static inline uint64_t wf_bench_ticks_begin(void);
static inline uint64_t wf_bench_ticks_end(void);

struct bench_clock {
    double ns_per_tick;
    double overhead_ns; /* median of two reads with nothing between */
};
void wf_bench_clock_init(struct bench_clock *clock);

/* A redis-server of the benchmark's own, on a Unix socket, that keeps nothing on disk. */
struct bench_redis {
    pid_t pid;
    int fd; /* -1: there is none */
    char folder[64];
};
/* Starts it; fd stays -1 when no redis-server is installed or it does not start. */
void wf_bench_redis_start(struct bench_redis *redis, uint64_t memory_bytes);
bool wf_bench_redis_set(struct bench_redis *redis, uint64_t key, const void *value, size_t bytes);
/* Read exactly `bytes` into `value`; false when the answer is anything else. */
bool wf_bench_redis_get(struct bench_redis *redis, uint64_t key, void *value, size_t bytes);
void wf_bench_redis_stop(struct bench_redis *redis);

/* -------------------------------------------------------------------------------------- inline */

#if defined(__x86_64__)
#include <x86intrin.h>

static inline uint64_t wf_bench_ticks_begin(void)
{
    _mm_lfence();
    uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
}

static inline uint64_t wf_bench_ticks_end(void)
{
    unsigned int cpu;
    uint64_t now = __rdtscp(&cpu); /* waits for what came before */
    _mm_lfence();
    return now;
}
#else
#include <time.h>

static inline uint64_t wf_bench_ticks_begin(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t wf_bench_ticks_end(void)
{
    return wf_bench_ticks_begin();
}
#endif

#endif
