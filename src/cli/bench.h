/* SPDX-License-Identifier: Apache-2.0
 *
 * What the benchmarks share: a cheap clock, samples, and the yardsticks Redis and fio.
 */
#ifndef WF_CLI_BENCH_H
#define WF_CLI_BENCH_H

#include "cli/cli.h"

#define BENCH_UNSAID UINT64_MAX

struct bench_options { /* BENCH_UNSAID: what suits the benchmark */
    uint64_t block_bytes, blocks, rounds, pool_bytes, readers, records, tier_bytes, depth, nodes,
        requests, seconds, layers, layer_ms, mbit;
    const char *dir, *model, *shape, *trace, *policy;
};
extern struct bench_options wf_bench_options;

int wf_bench_local(struct cli *cli);
int wf_bench_watch(struct cli *cli);
int wf_bench_nvme(struct cli *cli);
int wf_bench_restart(struct cli *cli);
int wf_bench_overlap(struct cli *cli);
int wf_bench_resp(struct cli *cli);
int wf_bench_cluster(struct cli *cli);
int wf_bench_net(struct cli *cli);
int wf_bench_hand_over(struct cli *cli);

void wf_bench_default(uint64_t *option, uint64_t value);

/* Samples of one figure. */
struct bench_series {
    double *values;
    size_t count, capacity;
};
void wf_bench_add(struct bench_series *series, double value);
double wf_bench_at(struct bench_series *series, double part); /* sorts them; 0 for none */
void wf_bench_forget(struct bench_series *series);

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
/* Starts it; fd stays -1 when no redis-server is installed or it does not start.  `port`: of
 * 127.0.0.1, too; 0: none. */
void wf_bench_redis_start(struct bench_redis *redis, uint64_t memory_bytes, uint16_t port);
bool wf_bench_redis_set(struct bench_redis *redis, uint64_t key, const void *value, size_t bytes);
/* Read exactly `bytes` into `value`; false when the answer is anything else. */
bool wf_bench_redis_get(struct bench_redis *redis, uint64_t key, void *value, size_t bytes);
void wf_bench_redis_stop(struct bench_redis *redis);

/* One run of a RESP client: one thread, connections that each send `depth` commands and wait for
 * all their answers.  Keys are 0 … keys - 1, in an order that jumps about; what a GET brings is
 * checked by its length and by the key that is in it. */
struct bench_load {
    uint16_t port;
    bool get; /* else SET */
    size_t value_bytes;
    uint64_t keys, commands;
    uint32_t connections, depth;
};
/* Seconds that it took; < 0: it failed, with a sentence in `why`. */
double wf_bench_load(const struct bench_load *load, char *why, size_t why_bytes);

/* A server that answers wf_bench_load() and keeps nothing, in a process of its own: how fast that
 * client can be served at all.  Values of one length, in memory of as many bytes as it is given.
 * Port 0: it could not be started. */
struct bench_limit {
    pid_t pid;
    uint16_t port;
};
void wf_bench_limit_start(struct bench_limit *limit, size_t value_bytes, uint64_t memory_bytes);
void wf_bench_limit_stop(struct bench_limit *limit);

/* One run of fio, with io_uring and O_DIRECT.  A write ends with an fsync. */
struct bench_fio_job {
    const char *path;
    uint64_t file_bytes, bytes, block_bytes; /* bytes: that are moved */
    uint32_t depth;
    uint32_t run; /* reads: blocks one behind the other before the next random place */
    bool write;
};
struct bench_fio {
    double gbps, us_p50, us_p99;
};
/* False: fio is not installed, or did not move all the bytes. */
bool wf_bench_fio(const struct bench_fio_job *job, struct bench_fio *out);

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
