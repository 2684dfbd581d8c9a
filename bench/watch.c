/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a watched record takes from one process to another: the writer puts the time into it,
 * the reader compares it with its own when it has the whole record.
 *
 *     bench_watch [--json] [--record-bytes N]
 *
 * Three ways, in the same run: a reader that spins, a reader that sleeps, and, as the yardstick for
 * the latter, a reader that sleeps in read(2) on a pipe.  Both processes read CLOCK_MONOTONIC,
 * whose own cost is in every figure and is printed.  Writer and reader are kept on two CPUs; with
 * one there is nothing to measure, and the program exits with 77.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/watch.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define SPIN_RECORDS 50000u
#define SLEEP_RECORDS 2000u
#define RECORD_BYTES_MAX 65536u

/* What both processes see, and the reader's results. */
struct shared {
    _Atomic uint32_t ready;
    uint32_t received; /* a reader that the scheduler held up skips records */
    uint64_t nanoseconds[SPIN_RECORDS];
    uint64_t publish[SPIN_RECORDS];
};

struct bench {
    struct shared *shared;
    void *region;
    size_t region_bytes;
    size_t record_bytes;
    int cpus[2];
};

static void stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        perror("sched_setaffinity");
}

/* The first two CPUs that this process may use. */
static bool choose_cpus(int cpus[2])
{
    cpu_set_t set;
    int found = 0;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return false;
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET((size_t)cpu, &set))
            cpus[found++] = cpu;
    }
    return found == 2;
}

static void wait_ns(uint64_t nanoseconds)
{
    uint64_t start = wf_now_ns();
    while (wf_now_ns() - start < nanoseconds)
        wf_cpu_relax();
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t percentile(uint64_t *values, size_t count, unsigned percent)
{
    qsort(values, count, sizeof *values, compare);
    return values[(count - 1) * percent / 100];
}

/* The reader's process: until record number `records`, or exit 1. */
static void read_records(const struct bench *bench, uint32_t records, bool spin)
{
    static uint8_t record[RECORD_BYTES_MAX];
    struct wf_watch watch;
    uint64_t sequence = 0;
    size_t bytes;
    stay_on(bench->cpus[1]);
    if (wf_watch_attach(bench->region, bench->region_bytes, &watch) != WEFT_OK)
        _exit(1);
    atomic_store(&bench->shared->ready, 1);
    uint32_t received = 0;
    while (sequence < records) {
        uint64_t sent;
        if (wf_watch_next(&watch, &sequence, record, sizeof record, &bytes, spin ? 5000000 : 0,
                          spin ? 0 : 5000) != WEFT_OK)
            _exit(1);
        uint64_t now = wf_now_ns();
        memcpy(&sent, record, sizeof sent);
        bench->shared->nanoseconds[received++] = now - sent;
    }
    bench->shared->received = received;
    _exit(0);
}

static bool wait_for_reader(pid_t reader)
{
    int status;
    return waitpid(reader, &status, 0) == reader && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A record every `pause_ns`, each after the reader has had time for the last. */
static bool run_watch(const struct bench *bench, uint32_t records, uint64_t pause_ns, bool spin)
{
    static uint8_t record[RECORD_BYTES_MAX];
    struct wf_watch watch;
    memset(bench->region, 0, bench->region_bytes);
    if (wf_watch_format(bench->region, bench->region_bytes, bench->record_bytes, &watch) != WEFT_OK)
        return false;
    atomic_store(&bench->shared->ready, 0);
    pid_t reader = fork();
    if (reader == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        read_records(bench, records, spin);
    }
    if (reader < 0)
        return false;
    while (!atomic_load(&bench->shared->ready) && waitpid(reader, NULL, WNOHANG) == 0)
        usleep(1000);
    usleep(10000);
    for (uint32_t i = 0; i < records; i++) {
        uint64_t now = wf_now_ns();
        memcpy(record, &now, sizeof now);
        if (wf_watch_publish(&watch, record, bench->record_bytes) != WEFT_OK)
            return false;
        bench->shared->publish[i] = wf_now_ns() - now;
        wait_ns(pause_ns);
    }
    return wait_for_reader(reader);
}

/* The yardstick: the same record through a pipe. */
static bool run_pipe(const struct bench *bench, uint32_t records, uint64_t pause_ns)
{
    static uint8_t record[RECORD_BYTES_MAX];
    int ends[2];
    if (pipe(ends) != 0)
        return false;
    pid_t reader = fork();
    if (reader == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        stay_on(bench->cpus[1]);
        for (uint32_t i = 0; i < records; i++) {
            uint64_t sent;
            for (size_t have = 0; have < bench->record_bytes;) {
                ssize_t got = read(ends[0], record + have, bench->record_bytes - have);
                if (got <= 0)
                    _exit(1);
                have += (size_t)got;
            }
            uint64_t now = wf_now_ns();
            memcpy(&sent, record, sizeof sent);
            bench->shared->nanoseconds[i] = now - sent;
        }
        _exit(0);
    }
    usleep(20000);
    bool sent_all = reader > 0;
    for (uint32_t i = 0; i < records && sent_all; i++) {
        uint64_t now = wf_now_ns();
        memcpy(record, &now, sizeof now);
        sent_all = write(ends[1], record, bench->record_bytes) == (ssize_t)bench->record_bytes;
        wait_ns(pause_ns);
    }
    close(ends[1]);
    close(ends[0]);
    return sent_all && wait_for_reader(reader);
}

static uint64_t clock_cost_ns(void)
{
    uint64_t start = wf_now_ns();
    for (int i = 0; i < 10000; i++)
        (void)wf_now_ns();
    return (wf_now_ns() - start) / 10000;
}

static bool parse(int argc, char **argv, bool *json, size_t *record_bytes)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--json")) {
            *json = true;
        } else if (!strcmp(argv[i], "--record-bytes") && i + 1 < argc) {
            *record_bytes = strtoul(argv[++i], NULL, 10);
        } else {
            return false;
        }
    }
    return *record_bytes >= 8 && *record_bytes <= RECORD_BYTES_MAX;
}

static int measure(struct bench *bench, bool json)
{
    uint64_t *nanoseconds = bench->shared->nanoseconds;
    if (!run_watch(bench, SPIN_RECORDS, 5000, true))
        goto failed;
    uint32_t received = bench->shared->received;
    uint64_t spin_p50 = percentile(nanoseconds, received, 50);
    uint64_t spin_p99 = percentile(nanoseconds, received, 99);
    uint64_t publish_p50 = percentile(bench->shared->publish, SPIN_RECORDS, 50);
    if (!run_watch(bench, SLEEP_RECORDS, 200000, false))
        goto failed;
    received = bench->shared->received;
    uint64_t wake_p50 = percentile(nanoseconds, received, 50);
    uint64_t wake_p99 = percentile(nanoseconds, received, 99);
    if (!run_pipe(bench, SLEEP_RECORDS, 200000))
        goto failed;
    uint64_t pipe_p50 = percentile(nanoseconds, SLEEP_RECORDS, 50);
    if (json)
        printf("{\"record_bytes\": %zu, \"spin_ns_p50\": %llu, \"spin_ns_p99\": %llu, "
               "\"publish_ns_p50\": %llu, \"wake_us_p50\": %.2f, \"wake_us_p99\": %.2f, "
               "\"pipe_wake_us_p50\": %.2f, \"clock_ns\": %llu}\n",
               bench->record_bytes, (unsigned long long)spin_p50, (unsigned long long)spin_p99,
               (unsigned long long)publish_p50, (double)wake_p50 / 1e3, (double)wake_p99 / 1e3,
               (double)pipe_p50 / 1e3, (unsigned long long)clock_cost_ns());
    else
        printf("a record of %zu bytes, from one process to another\n"
               "  reader spins     p50 %llu ns, p99 %llu ns\n"
               "  reader sleeps    p50 %.2f us, p99 %.2f us   (a pipe: p50 %.2f us)\n"
               "  publishing costs p50 %llu ns   (reading the clock: %llu ns)\n",
               bench->record_bytes, (unsigned long long)spin_p50, (unsigned long long)spin_p99,
               (double)wake_p50 / 1e3, (double)wake_p99 / 1e3, (double)pipe_p50 / 1e3,
               (unsigned long long)publish_p50, (unsigned long long)clock_cost_ns());
    return 0;
failed:
    fprintf(stderr, "bench_watch: a reader or writer failed: %s\n", wf_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    struct bench bench = {.record_bytes = 64};
    bool json = false;
    if (!parse(argc, argv, &json, &bench.record_bytes)) {
        fprintf(stderr, "usage: %s [--json] [--record-bytes 8..%u]\n", argv[0], RECORD_BYTES_MAX);
        return 2;
    }
    if (!choose_cpus(bench.cpus)) {
        fprintf(stderr, "bench_watch: needs two CPUs\n");
        return 77;
    }
    stay_on(bench.cpus[0]);
    int fd;
    bench.region_bytes = (size_t)wf_watch_bytes(bench.record_bytes);
    bench.shared = mmap(NULL, sizeof *bench.shared, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench.shared == MAP_FAILED ||
        wf_memfd_create("watch", bench.region_bytes, WF_PAGES_NORMAL, &fd) != WEFT_OK ||
        wf_map(fd, bench.region_bytes, true, &bench.region) != WEFT_OK) {
        fprintf(stderr, "bench_watch: no shared memory: %s\n", wf_last_error());
        return 1;
    }
    return measure(&bench, json);
}
