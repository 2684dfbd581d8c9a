/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench watch: how long a record takes from the writer's publish to readers in other
 * processes.
 *
 * A record carries the writer's CLOCK_MONOTONIC, which all processes of a host share; a reader
 * subtracts it from its own when it has the record whole.  First the readers spin, then they sleep
 * on the futex.  The writer paces itself (20 us spinning, 200 us sleeping), because a reader sees
 * the newest record, not every one.  The yardstick is the same through a pipe, which wakes a
 * sleeping reader once a record.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/bench.h"

#define READERS_MAX 64
#define RECORDS_MAX 1000000
#define RECORD_BYTES 64
#define REGION_SIZE "1MB"
#define PACE_SPIN_NS 20000
#define PACE_SLEEP_NS 200000

enum phase { PHASE_SPIN, PHASE_SLEEP, PHASE_PIPE, PHASES };

/* Shared by writer and readers.  `ready` counts the readers that wait in a phase; a reader adds
 * with release what the writer reads with acquire. */
struct shared {
    _Atomic uint32_t ready;
    _Atomic uint32_t phase_open; /* phases begun, by the writer */
    _Atomic uint32_t failed;
    uint64_t count[PHASES][READERS_MAX];
    double latency_ns[]; /* [PHASES][readers][records] */
};

struct record {
    uint64_t sent_ns;
    uint64_t number; /* records in the phase are 1 … N; 0 ends it */
    uint8_t fill[RECORD_BYTES - 16];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double *samples(struct shared *shared, enum phase phase, uint64_t reader)
{
    return shared->latency_ns +
           ((uint64_t)phase * wf_bench_options.readers + reader) * wf_bench_options.records;
}

static void sample_add(struct shared *shared, enum phase phase, uint64_t reader,
                       const struct record *record)
{
    uint64_t *count = &shared->count[phase][reader];
    if (*count < wf_bench_options.records)
        samples(shared, phase, reader)[(*count)++] = (double)(now_ns() - record->sent_ns);
}

static bool phase_wait(struct shared *shared, enum phase phase)
{
    atomic_fetch_add_explicit(&shared->ready, 1, memory_order_release);
    while (atomic_load_explicit(&shared->phase_open, memory_order_acquire) <= (uint32_t)phase) {
        if (atomic_load_explicit(&shared->failed, memory_order_relaxed))
            return false;
        usleep(100);
    }
    return true;
}

/* A reader process.  Connects by itself: a handle does not survive fork(). */
static int reader_run(struct cli *cli, struct shared *shared, uint64_t reader, const char *name,
                      int pipe_fd)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    cli->weft = NULL;
    if (wf_cli_connect(cli) != CLI_OK)
        return CLI_NODE;
    struct weft_region *region;
    void *memory;
    struct weft_watch *watch;
    enum weft_status status = weft_region_open(cli->weft, name, &region, &memory, NULL);
    if (status == WEFT_OK)
        status = weft_watch_open(region, &watch);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "a reader cannot open the region");
    uint64_t sequence = 0;
    struct record record;
    for (enum phase phase = PHASE_SPIN; phase < PHASE_PIPE; phase++) {
        if (!phase_wait(shared, phase))
            return CLI_SYSTEM;
        for (;;) {
            size_t bytes = 0;
            status = weft_watch_next(watch, &sequence, &record, sizeof record, &bytes,
                                     phase == PHASE_SPIN ? 1000 : 0, 5000);
            if (status != WEFT_OK || bytes != sizeof record)
                return wf_cli_fail_status(cli, status, "a reader gets no record in five seconds");
            if (!record.number)
                break;
            sample_add(shared, phase, reader, &record);
        }
    }
    if (!phase_wait(shared, PHASE_PIPE))
        return CLI_SYSTEM;
    while (read(pipe_fd, &record, sizeof record) == sizeof record && record.number)
        sample_add(shared, PHASE_PIPE, reader, &record);
    weft_watch_close(watch);
    weft_release(region);
    weft_close(cli->weft);
    return CLI_OK;
}

/* Wait until all readers stand before `phase`, then let them in. */
static bool phase_begin(struct shared *shared, enum phase phase)
{
    double until = wf_cli_now_s() + 20;
    while (atomic_load_explicit(&shared->ready, memory_order_acquire) <
           ((uint32_t)phase + 1) * wf_bench_options.readers) {
        siginfo_t ended = {0};
        waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT);
        if (ended.si_pid || wf_cli_now_s() > until)
            return false; /* a reader gave up, and said why */
        usleep(100);
    }
    atomic_store_explicit(&shared->phase_open, (uint32_t)phase + 1, memory_order_release);
    usleep(20000);
    return true;
}

static void pace(enum phase phase)
{
    uint64_t until = now_ns() + PACE_SPIN_NS;
    if (phase != PHASE_SPIN)
        clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_nsec = PACE_SLEEP_NS}, NULL);
    while (phase == PHASE_SPIN && now_ns() < until)
        ;
}

static int phases_run(struct cli *cli, struct shared *shared, struct weft_watch *watch,
                      int pipes[][2], double *publish_ns)
{
    struct record record = {0};
    size_t published = 0;
    for (enum phase phase = PHASE_SPIN; phase < PHASES; phase++) {
        if (!phase_begin(shared, phase))
            return wf_cli_fail(cli, CLI_SYSTEM, "a reader did not come up");
        for (uint64_t number = 1; number <= wf_bench_options.records + 1; number++) {
            record.number = number <= wf_bench_options.records ? number : 0;
            record.sent_ns = now_ns();
            if (phase == PHASE_PIPE) {
                for (uint64_t i = 0; i < wf_bench_options.readers; i++)
                    if (write(pipes[i][1], &record, sizeof record) != sizeof record)
                        return wf_cli_fail(cli, CLI_SYSTEM, "a reader's pipe broke: %s",
                                           strerror(errno));
            } else {
                enum weft_status status = weft_watch_publish(watch, &record, sizeof record);
                if (status != WEFT_OK)
                    return wf_cli_fail_status(cli, status, "cannot publish");
                if (phase == PHASE_SPIN && record.number)
                    publish_ns[published++] = (double)(now_ns() - record.sent_ns);
            }
            pace(phase);
        }
    }
    return CLI_OK;
}

static int report(struct cli *cli, struct shared *shared, double *publish_ns)
{
    static const char *const names[PHASES] = {"spin", "sleep", "pipe"};
    uint64_t readers = wf_bench_options.readers, records = wf_bench_options.records;
    double *all = wf_cli_alloc(readers * records * sizeof *all);
    json_t *out = json_object();
    double publish = wf_cli_percentile(publish_ns, records, 0.5);
    wf_cli_json_set(out, "readers", json_integer((json_int_t)readers));
    wf_cli_json_set(out, "publish_ns_p50", wf_cli_json_real(publish, 1));
    if (!cli->json) {
        wf_cli_node_print(cli, stdout);
        printf("%llu reader%s, records of %d bytes; publish %.0f ns\n\n%-8s %10s %10s %10s %9s\n",
               (unsigned long long)readers, wf_cli_s(readers), RECORD_BYTES, publish, "reader",
               "p50 ns", "p99 ns", "max ns", "seen");
    }
    for (enum phase phase = PHASE_SPIN; phase < PHASES; phase++) {
        size_t count = 0;
        for (uint64_t i = 0; i < readers; i++) {
            memcpy(all + count, samples(shared, phase, i), shared->count[phase][i] * sizeof *all);
            count += shared->count[phase][i];
        }
        double p50 = wf_cli_percentile(all, count, 0.5), p99 = wf_cli_percentile(all, count, 0.99);
        double most = wf_cli_percentile(all, count, 1);
        char key[32];
        snprintf(key, sizeof key, "%s_ns_p50", names[phase]);
        wf_cli_json_set(out, key, wf_cli_json_real(p50, 1));
        snprintf(key, sizeof key, "%s_ns_p99", names[phase]);
        wf_cli_json_set(out, key, wf_cli_json_real(p99, 1));
        snprintf(key, sizeof key, "%s_seen", names[phase]);
        wf_cli_json_set(out, key, wf_cli_json_real((double)count / (double)(readers * records), 4));
        if (!cli->json)
            printf("%-8s %10.0f %10.0f %10.0f %7.1f %%\n", names[phase], p50, p99, most,
                   100.0 * (double)count / (double)(readers * records));
    }
    double seen = json_number_value(json_object_get(out, "spin_seen"));
    if (!cli->json && seen < 0.9)
        printf(
            "\nspinning readers missed %.0f %% of the records: other work had their processors\n",
            100 - 100 * seen);
    free(all);
    if (cli->json)
        wf_cli_json_print(out);
    else
        json_decref(out);
    return CLI_OK;
}

static int readers_run(struct cli *cli, struct shared *shared, const char *name,
                       struct weft_watch *watch)
{
    uint64_t readers = wf_bench_options.readers;
    int pipes[READERS_MAX][2];
    memset(pipes, -1, sizeof pipes);
    pid_t children[READERS_MAX] = {0};
    int code = CLI_OK;
    fflush(NULL);
    for (uint64_t i = 0; i < readers && code == CLI_OK; i++) {
        if (pipe(pipes[i]) != 0) {
            code = wf_cli_fail(cli, CLI_SYSTEM, "no pipe: %s", strerror(errno));
            break;
        }
        children[i] = fork();
        if (children[i] == 0)
            _exit(reader_run(cli, shared, i, name, pipes[i][0]));
        close(pipes[i][0]);
        if (children[i] < 0)
            code = wf_cli_fail(cli, CLI_SYSTEM, "no process for a reader: %s", strerror(errno));
    }
    double *publish_ns = wf_cli_alloc(wf_bench_options.records * sizeof *publish_ns);
    if (code == CLI_OK)
        code = phases_run(cli, shared, watch, pipes, publish_ns);
    if (code != CLI_OK)
        atomic_store_explicit(&shared->failed, 1, memory_order_relaxed);
    for (uint64_t i = 0; i < readers; i++) {
        if (pipes[i][1] >= 0)
            close(pipes[i][1]);
        int how = 0;
        if (children[i] > 0 && waitpid(children[i], &how, 0) == children[i] && how &&
            code == CLI_OK)
            code = WIFEXITED(how)
                       ? WEXITSTATUS(how)
                       : wf_cli_fail(cli, CLI_SYSTEM, "a reader died of signal %d", WTERMSIG(how));
    }
    if (code == CLI_OK)
        code = report(cli, shared, publish_ns);
    free(publish_ns);
    return code;
}

int wf_bench_watch(struct cli *cli)
{
    const struct bench_options *given = &wf_bench_options;
    if (!given->readers || given->readers > READERS_MAX || !given->records ||
        given->records > RECORDS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "there are 1 to %d readers and 1 to %d records",
                           READERS_MAX, RECORDS_MAX);
    struct cli_node node;
    uint64_t pool_bytes = given->pool_bytes ? given->pool_bytes : (uint64_t)64 << 20;
    int code = wf_cli_node_reach(cli, given->pool_bytes != 0,
                                 &(struct cli_node_plan){.pool_bytes = pool_bytes}, &node);
    if (code != CLI_OK)
        return code;
    size_t bytes = sizeof(struct shared) +
                   PHASES * given->readers * given->records * sizeof(double);
    struct shared *shared = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                                 -1, 0);
    char name[64];
    snprintf(name, sizeof name, "weft-bench-%d", getpid());
    struct weft_region *region = NULL;
    struct weft_watch *watch = NULL;
    void *memory;
    enum weft_status status = weft_allocate(cli->weft, REGION_SIZE, WEFT_LATENCY_LOW,
                                            WEFT_SHARE_READ, name, &region, &memory);
    if (status == WEFT_OK)
        status = weft_watch_create(region, RECORD_BYTES, &watch);
    if (status != WEFT_OK)
        code = wf_cli_fail_status(cli, status, "no region to watch");
    else if (shared == MAP_FAILED)
        code = wf_cli_fail(cli, CLI_SYSTEM, "no memory for %zu bytes of samples", bytes);
    else
        code = readers_run(cli, shared, name, watch);
    if (watch)
        weft_watch_close(watch);
    if (region)
        weft_release(region);
    weft_close(cli->weft);
    cli->weft = NULL;
    wf_cli_node_stop(&node);
    return code;
}
