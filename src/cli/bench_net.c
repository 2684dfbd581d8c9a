/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench net: blocks between two hosts, with iperf3 on the same path beside it.
 *
 * The hosts are network namespaces with a veth pair between them, which go away with the processes
 * that hold them.  Who may not make some has both on loopback, and is told so.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/bench_net.h"

#define ANSWER_MAX ((size_t)256 << 10)
#define CPUS_FEW 8
#define WORKING_SET ((uint64_t)256 << 20)
#define LINES 8u /* of progress, for the rounds over TCP */

/* --------------------------------------------------------------------------------- processes */

/* Half of the CPUs to each host, where there are few.  There the scheduler has at times both ends
 * on one, for as long as they live, and that end to end is a quarter slower: theirs and ours alike.
 */
static void cpus_take(int host)
{
    cpu_set_t all, half;
    if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) < 2 ||
        CPU_COUNT(&all) > CPUS_FEW)
        return;
    CPU_ZERO(&half);
    size_t cpus = (size_t)CPU_COUNT(&all);
    for (size_t cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && seen++ * 2 / cpus == (size_t)host)
            CPU_SET(cpu, &half);
    (void)!sched_setaffinity(0, sizeof half, &half);
}

void wf_bench_net_enter(const struct bench_net_bed *bed, int host)
{
    cpus_take(host);
    if (bed->spaces[host] < 0)
        return;
    if (setns(bed->spaces[host], CLONE_NEWNET) != 0)
        _exit(126);
    /* /sys shows the interfaces of whoever mounted it, and UCX looks there for its devices. */
    if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
        (void)!mount("weft", "/sys", "sysfs", 0, NULL);
}

static pid_t begin(const struct bench_net_bed *bed, int host, char *const *arguments, int out)
{
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(out < 0 ? null : out, 1) < 0 ||
        dup2(null, 2) < 0)
        _exit(126);
    wf_bench_net_enter(bed, host);
    execvp(arguments[0], arguments);
    _exit(127);
}

pid_t wf_bench_net_begin(const struct bench_net_bed *bed, int host, char *const *arguments)
{
    return begin(bed, host, arguments, -1);
}

void wf_bench_net_end(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

int wf_bench_net_exec(const struct bench_net_bed *bed, int host, char *const *arguments, char *out,
                      size_t out_bytes)
{
    int ends[2], status = -1;
    size_t used = 0;
    ssize_t got = 1;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    pid_t pid = begin(bed, host, arguments, ends[1]);
    close(ends[1]);
    while (pid > 0 && out && used + 1 < out_bytes && (got > 0 || errno == EINTR)) {
        got = read(ends[0], out + used, out_bytes - 1 - used);
        used += got > 0 ? (size_t)got : 0;
        if (got == 0)
            break;
    }
    if (out)
        out[used] = 0;
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---------------------------------------------------------------------------------------- bed */

static void holder(int out)
{
    char done = unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
    if (write(out, &done, 1) != 1 || done == 'n')
        _exit(1);
    for (;;)
        pause();
}

static bool holder_begin(struct bench_net_bed *bed, int number)
{
    int ends[2];
    char done = 'n', path[64];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fflush(NULL);
    bed->holders[number] = fork();
    if (bed->holders[number] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        holder(ends[1]);
    }
    close(ends[1]);
    bool right = read(ends[0], &done, 1) == 1 && done == 'y';
    close(ends[0]);
    snprintf(path, sizeof path, "/proc/%d/ns/net", bed->holders[number]);
    if (right)
        bed->spaces[number] = open(path, O_RDONLY | O_CLOEXEC);
    return right && bed->spaces[number] >= 0;
}

static bool ip(const struct bench_net_bed *bed, int host, const char *words)
{
    char line[160], *arguments[16] = {(char *)"ip"}, *rest = line, *word;
    int count = 1;
    snprintf(line, sizeof line, "%s", words);
    while ((word = strsep(&rest, " ")) && count < 15)
        arguments[count++] = word;
    return wf_bench_net_exec(bed, host, arguments, NULL, 0) == 0;
}

void wf_bench_net_bed_end(struct bench_net_bed *bed)
{
    for (int i = 0; i < 2; i++) {
        if (bed->spaces[i] >= 0)
            close(bed->spaces[i]);
        wf_bench_net_end(bed->holders[i]);
        bed->spaces[i] = -1;
        bed->holders[i] = -1;
    }
}

void wf_bench_net_bed_make(struct bench_net_bed *bed)
{
    char words[160], path[256];
    *bed = (struct bench_net_bed){.holders = {-1, -1}, .spaces = {-1, -1}};
    if (!wf_cli_program_find("ip", path, sizeof path)) {
        snprintf(bed->why, sizeof bed->why, "ip is not installed (Debian: iproute2)");
    } else if (!holder_begin(bed, 0) || !holder_begin(bed, 1)) {
        snprintf(bed->why, sizeof bed->why, "this user may not make network namespaces; be root");
    } else {
        snprintf(words, sizeof words,
                 "link add wf0 mtu 9000 type veth peer name wf0 mtu 9000 netns %d",
                 bed->holders[1]);
        bed->emulated = ip(bed, 0, words);
        for (int i = 0; i < 2 && bed->emulated; i++) {
            snprintf(bed->addresses[i], sizeof bed->addresses[i], "10.213.77.%d", i + 1);
            snprintf(words, sizeof words, "addr add %s/24 dev wf0", bed->addresses[i]);
            bed->emulated = ip(bed, i, words) && ip(bed, i, "link set wf0 up") &&
                            ip(bed, i, "link set lo up");
        }
        if (!bed->emulated)
            snprintf(bed->why, sizeof bed->why, "ip could not make a veth pair");
    }
    if (bed->emulated)
        return;
    wf_bench_net_bed_end(bed);
    for (int i = 0; i < 2; i++)
        snprintf(bed->addresses[i], sizeof bed->addresses[i], "127.0.0.1");
}

/* ------------------------------------------------------------------------------------- iperf3 */

/* GB/s as the receiver counted them; NaN when there are none. */
static double iperf(const struct bench_net_bed *bed, double seconds)
{
    static char answer[ANSWER_MAX];
    char port[16], time[16], path[256];
    const char *to = bed->addresses[1];
    if (!wf_cli_program_find("iperf3", path, sizeof path))
        return NAN;
    snprintf(port, sizeof port, "%d", 20000 + getpid() % 20000);
    snprintf(time, sizeof time, "%.0f", seconds < 1 ? 1 : seconds);
    char *serve[] = {path,       (char *)"-s", (char *)"-1", (char *)"-B",
                     (char *)to, (char *)"-p", port,         NULL};
    char *ask[] = {path,         (char *)"-c", (char *)to,   (char *)"-p", port,
                   (char *)"-t", time,         (char *)"-J", NULL};
    pid_t server = wf_bench_net_begin(bed, 1, serve);
    double gbps = NAN;
    for (int tries = 0; tries < 50 && isnan(gbps); tries++) {
        usleep(100000); /* until it listens */
        if (wf_bench_net_exec(bed, 0, ask, answer, sizeof answer) != 0)
            continue;
        json_t *root = json_loads(answer, 0, NULL);
        const json_t *sum = json_object_get(json_object_get(root, "end"), "sum_received");
        double bits = json_number_value(json_object_get(sum, "bits_per_second"));
        json_decref(root);
        gbps = bits > 0 ? bits / 8e9 : NAN;
        if (isnan(gbps))
            break;
    }
    wf_bench_net_end(server);
    return gbps;
}

/* -------------------------------------------------------------------------------------- report */

enum figure { IPERF, GET, PUT, SMALL_P50, SMALL_P99, PING, GET_OF, PUT_OF, FIGURES };
static const struct {
    const char *key;
    int digits;
} figures[FIGURES] = {
    [IPERF] = {"iperf_gbps", 3},
    [GET] = {"get_gbps", 3},
    [PUT] = {"put_gbps", 3},
    [SMALL_P50] = {"get_64k_us_p50", 1},
    [SMALL_P99] = {"get_64k_us_p99", 1},
    [PING] = {"ping_us_p50", 1},
    [GET_OF] = {"get_of_iperf", 3},
    [PUT_OF] = {"put_of_iperf", 3},
};

struct bench {
    struct cli *cli;
    struct bench_net_bed bed;
    struct bench_net_job job;
    struct bench_series series[FIGURES];
    struct bench_net_ucx ucx[BENCH_NET_UCX_KINDS];
};

static void note(struct bench *bench, enum figure figure, double value)
{
    if (!isnan(value))
        wf_bench_add(&bench->series[figure], value);
}

static int round_run(struct bench *bench)
{
    struct bench_net_figures got;
    double yardstick = iperf(&bench->bed, bench->job.seconds);
    wf_bench_net_run(&bench->bed, &bench->job, &got);
    if (got.why[0])
        return wf_cli_fail(bench->cli, CLI_SYSTEM, "bench net: %s", got.why);
    note(bench, IPERF, yardstick);
    note(bench, GET, got.get_gbps);
    note(bench, PUT, got.put_gbps);
    note(bench, SMALL_P50, got.get_64k_us_p50);
    note(bench, SMALL_P99, got.get_64k_us_p99);
    note(bench, PING, got.ping_us_p50);
    note(bench, GET_OF, got.get_gbps / yardstick);
    note(bench, PUT_OF, got.put_gbps / yardstick);
    return CLI_OK;
}

/* "ucx_get_gbps", "ucx_shm_get_gbps" and the like. */
static void report_ucx_json(json_t *out, const char *name, const struct bench_net_ucx *ucx)
{
    const struct {
        const char *key;
        double value;
    } rows[] = {{"get_gbps", ucx->get_gbps},
                {"hot_gbps", ucx->hot_gbps},
                {"perftest_gbps", ucx->perftest_gbps},
                {"perftest_get_gbps", ucx->perftest_get_gbps},
                {"of_perftest", ucx->hot_gbps / ucx->perftest_gbps},
                {"perftest_like_gbps", ucx->like_gbps},
                {"of_perftest_like", ucx->hot_gbps / ucx->like_gbps}};
    char key[64];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        snprintf(key, sizeof key, "%s_%s", name, rows[i].key);
        wf_cli_json_set(out, key, ucx->why[0] ? json_null() : wf_cli_json_real(rows[i].value, 3));
    }
    snprintf(key, sizeof key, "%s_%s", name, ucx->why[0] ? "missing" : "perftest_test");
    wf_cli_json_set(out, key, json_string(ucx->why[0] ? ucx->why : ucx->perftest_test));
    snprintf(key, sizeof key, "%s_perftest_like_test", name);
    wf_cli_json_set(out, key, ucx->why[0] ? json_null() : json_string(ucx->like));
}

static void report_json(struct bench *bench)
{
    json_t *out = json_object();
    for (int i = 0; i < FIGURES; i++)
        wf_cli_json_set(out, figures[i].key,
                        bench->series[i].count
                            ? wf_cli_json_real(wf_bench_at(&bench->series[i], 0.5),
                                               figures[i].digits)
                            : json_null());
    report_ucx_json(out, "ucx", &bench->ucx[BENCH_NET_UCX_NAMED]);
    report_ucx_json(out, "ucx_shm", &bench->ucx[BENCH_NET_UCX_SHM]);
    wf_cli_json_set(out, "network", json_string(bench->bed.emulated ? "veth" : "loopback"));
    wf_cli_json_set(out, "block_bytes", json_integer((json_int_t)bench->job.block_bytes));
    wf_cli_json_print(out);
}

static void report_ucx(const char *name, const struct bench_net_ucx *ucx)
{
    if (ucx->why[0])
        printf("%-12s %s\n", name, ucx->why);
    else
        printf("%-12s %9.3f GB/s; hot %.3f GB/s, %.1f%% of ucx_perftest %s, %.3f GB/s\n", name,
               ucx->get_gbps, ucx->hot_gbps, 100 * ucx->hot_gbps / ucx->perftest_gbps,
               ucx->perftest_test, ucx->perftest_gbps);
    if (!ucx->why[0])
        printf("%-12s hot %.1f%% of what is like it, %.3f GB/s: %s\n", "",
               100 * ucx->hot_gbps / ucx->like_gbps, ucx->like_gbps, ucx->like);
}

static void line(struct bench *bench, const char *name, enum figure figure, enum figure of)
{
    if (!bench->series[figure].count)
        return;
    printf("%-12s %9.3f GB/s", name, wf_bench_at(&bench->series[figure], 0.5));
    if (of != FIGURES && bench->series[of].count)
        printf("  %5.1f%% of iperf3", 100 * wf_bench_at(&bench->series[of], 0.5));
    printf("\n");
}

static void report(struct bench *bench)
{
    line(bench, "iperf3", IPERF, FIGURES);
    line(bench, "get", GET, GET_OF);
    line(bench, "put", PUT, PUT_OF);
    printf("get 64 KiB   %9.1f us p50, %.1f us p99\n", wf_bench_at(&bench->series[SMALL_P50], 0.5),
           wf_bench_at(&bench->series[SMALL_P99], 0.5));
    printf("ping         %9.1f us p50\n", wf_bench_at(&bench->series[PING], 0.5));
    report_ucx("ucx get", &bench->ucx[BENCH_NET_UCX_NAMED]);
    report_ucx("ucx shm get", &bench->ucx[BENCH_NET_UCX_SHM]);
    if (!bench->series[IPERF].count)
        printf("\nno iperf3 is installed; install it (Debian: apt-get install iperf3) to have its "
               "figure beside these\n");
    printf("\n%s\n", bench->bed.emulated
                         ? "two network namespaces of this host, with a veth pair between them"
                         : "loopback: both ends are this host");
}

/* First over TCP, as many rounds as are wanted, then each kind of UCX, which takes about as long.
 */
static int parts_run(struct bench *bench)
{
    static const char *const kinds[BENCH_NET_UCX_KINDS] = {
        [BENCH_NET_UCX_NAMED] = "UCX over the same path",
        [BENCH_NET_UCX_SHM] = "UCX over shared memory",
    };
    const double parts = 1 + BENCH_NET_UCX_KINDS;
    uint64_t rounds = wf_bench_options.rounds;
    struct cli_progress progress;
    int code = CLI_OK;
    wf_cli_progress_init(&progress, "bench net");
    for (uint64_t i = 0; i < rounds && code == CLI_OK; i++) {
        wf_cli_progress_step(&progress, (double)i / (double)rounds / parts, "");
        if (i == 0 || i * LINES / rounds != (i - 1) * LINES / rounds)
            wf_cli_progress_line(&progress, "TCP, round %llu of %llu", (unsigned long long)i + 1,
                                 (unsigned long long)rounds);
        code = round_run(bench);
    }
    for (int i = 0; i < BENCH_NET_UCX_KINDS && code == CLI_OK; i++) {
        wf_cli_progress_step(&progress, (1 + i) / parts, kinds[i]);
        wf_cli_progress_line(&progress, "%s, all rounds", kinds[i]);
        wf_bench_net_ucx(&bench->bed, &bench->job, (enum bench_net_ucx_kind)i, &bench->ucx[i]);
    }
    wf_cli_progress_fini(&progress);
    return code;
}

int wf_bench_net(struct cli *cli)
{
    static struct bench bench;
    bench = (struct bench){.cli = cli};
    if (cli->socket)
        return wf_cli_fail(cli, CLI_USAGE, "bench net needs no node; leave --socket out");
    wf_bench_default(&wf_bench_options.nodes, 2);
    wf_bench_default(&wf_bench_options.block_bytes, 1 << 20);
    wf_bench_default(&wf_bench_options.seconds, 2);
    if (!wf_bench_options.seconds || wf_bench_options.seconds > 3600)
        return wf_cli_fail(cli, CLI_USAGE, "--seconds %llu; 1 to 3600 can be",
                           (unsigned long long)wf_bench_options.seconds);
    if (wf_bench_options.nodes != 2)
        return wf_cli_fail(cli, CLI_USAGE, "bench net is between 2 nodes, not %llu",
                           (unsigned long long)wf_bench_options.nodes);
    if (wf_bench_options.block_bytes < 65536 || wf_bench_options.block_bytes > WORKING_SET / 4)
        return wf_cli_fail(cli, CLI_USAGE, "--block-bytes %llu; 64KiB to %llu can be",
                           (unsigned long long)wf_bench_options.block_bytes,
                           (unsigned long long)WORKING_SET / 4);
    bench.job = (struct bench_net_job){
        .ops = wf_net_by_address("tcp:"),
        .scheme = "tcp",
        .block_bytes = wf_bench_options.block_bytes,
        .blocks = WORKING_SET / wf_bench_options.block_bytes,
        .seconds = (double)wf_bench_options.seconds,
        .streams = 1,
    };
    wf_bench_net_bed_make(&bench.bed);
    if (!bench.bed.emulated)
        fprintf(stderr, "bench net: %s; both ends are on loopback\n", bench.bed.why);
    int code = parts_run(&bench);
    if (code == CLI_OK && cli->json)
        report_json(&bench);
    else if (code == CLI_OK)
        report(&bench);
    for (int i = 0; i < FIGURES; i++)
        wf_bench_forget(&bench.series[i]);
    wf_bench_net_bed_end(&bench.bed);
    return code;
}
