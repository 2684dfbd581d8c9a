/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench net: the ucx transport beside ucx_perftest, in turns, over the same devices, with the
 * same size of a block and as many at a time.
 *
 * ucx_perftest moves one buffer again and again, which the caches have, and looks at none of it.
 * So ours is measured twice: as a node uses it (blocks in memory of many times the caches' size,
 * each summed where it arrives) and hot, as ucx_perftest does.  Of ucx_perftest's tests the best is
 * the yardstick: over UCX's TCP, where a one-sided read is one only in name, tagged or active
 * messages are three times as fast as ucp_get.
 *
 * Over shared memory the yardstick's endpoints tell when a peer has died (-e), as ours have to:
 * without that UCX 1.13 has the receiver copy out of the sender (CMA), with it, it does not, and
 * every byte is copied twice.  ucp_get is told beside it: it reads memory that UCX itself made and
 * mapped on both sides, which a pool is not.
 *
 * Beside the best test is told what is like ours: active messages, between endpoints like ours and
 * with the settings that ours gives UCX (src/net/ucx.c): what UCX can do for somebody who has to
 * survive a peer.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench_net.h"

#define ANSWER_MAX 16384u

/* The last line has eight figures; the sixth is what was moved in all, in MiB/s. */
static double parse(char *text)
{
    double mib = NAN;
    for (char *line; (line = strsep(&text, "\n"));) {
        double figure[8];
        int count = 0;
        char *at = strncmp(line, "Final:", 6) ? line : line + 6, *end;
        while (count < 8 && (figure[count] = strtod(at, &end), end != at)) {
            at = end;
            count++;
        }
        if (count == 8)
            mib = figure[5];
    }
    return mib * 1048576 / 1e9;
}

static const struct {
    const char *test;
    bool one_sided;
} tests[] = {{"ucp_get", true}, {"tag_bw", false}, {"ucp_am_bw", false}};
#define TESTS (sizeof tests / sizeof tests[0])
#define LIKE "ucp_am_bw"

static const struct setting {
    const char *variable, *value;
    bool shm;
} settings[] = {
    {"UCX_TCP_PUT_ENABLE", "n", false},     {"UCX_ZCOPY_THRESH", "inf", false},
    {"UCX_TCP_TX_SEG_SIZE", "256k", false}, {"UCX_TCP_RX_SEG_SIZE", "256k", false},
    {"UCX_POSIX_SEG_SIZE", "32k", true},    {"UCX_SYSV_SEG_SIZE", "32k", true},
};
#define SETTINGS (sizeof settings / sizeof settings[0])

/* GB/s of one run of as many blocks as `gbps` would do in a quarter of a figure's time: some of the
 * tests take many times as long for them. */
static double perftest(const struct bench_net_bed *bed, const struct bench_net_job *job,
                       const char *program, const char *test, bool errors, double gbps)
{
    static char answer[ANSWER_MAX];
    static unsigned runs;
    char port[16], bytes[24], times[24], depth[16];
    double blocks = gbps * 1e9 * job->seconds / 4 / (double)job->block_bytes, found = NAN;
    snprintf(port, sizeof port, "%u", 20000 + ((unsigned)getpid() + runs++) % 20000);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)job->block_bytes);
    snprintf(times, sizeof times, "%.0f", blocks > 100 ? blocks : 100);
    snprintf(depth, sizeof depth, "%u", BENCH_NET_WINDOW);
    char *serve[] = {(char *)program, (char *)"-p", port, errors ? (char *)"-e" : NULL, NULL};
    char *ask[] = {(char *)program,
                   (char *)bed->addresses[1],
                   (char *)"-p",
                   port,
                   (char *)"-t",
                   (char *)test,
                   (char *)"-s",
                   bytes,
                   (char *)"-n",
                   times,
                   (char *)"-w",
                   (char *)"50",
                   (char *)"-O",
                   depth,
                   (char *)"-f",
                   errors ? (char *)"-e" : NULL,
                   NULL};
    pid_t server = wf_bench_net_begin(bed, 1, serve);
    for (int tries = 0; tries < 20 && isnan(found); tries++) {
        usleep(100000); /* until it listens */
        if (wf_bench_net_exec(bed, 0, ask, answer, sizeof answer) == 0)
            found = parse(answer);
    }
    wf_bench_net_end(server);
    return found;
}

struct series {
    struct bench_series get, hot, tests[TESTS], like;
};

/* As ours: with UCX set so, where the user's own variables do not say otherwise. */
static double perftest_like(const struct bench_net_bed *bed, const struct bench_net_job *job,
                            const char *program, bool shm, double gbps)
{
    bool set[SETTINGS];
    for (size_t i = 0; i < SETTINGS; i++) {
        set[i] = settings[i].shm == shm && !getenv(settings[i].variable);
        if (set[i])
            setenv(settings[i].variable, settings[i].value, 1);
    }
    double found = perftest(bed, job, program, LIKE, shm, gbps);
    for (size_t i = 0; i < SETTINGS; i++)
        if (set[i])
            unsetenv(settings[i].variable);
    return found;
}

static void like_name(bool shm, char *out, size_t bytes)
{
    size_t at = (size_t)snprintf(out, bytes, "%s%s", LIKE, shm ? " -e" : "");
    for (size_t i = 0; i < SETTINGS && at < bytes; i++) {
        const char *value = getenv(settings[i].variable);
        if (settings[i].shm == shm)
            at += (size_t)snprintf(out + at, bytes - at, " %s=%s", settings[i].variable,
                                   value ? value : settings[i].value);
    }
}

static void round_run(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      const char *program, bool errors, struct series *series,
                      struct bench_net_ucx *out)
{
    struct bench_net_job hot = *job;
    struct bench_net_figures cold_figures, hot_figures = {0};
    hot.bare = true;
    hot.blocks = 1;
    wf_bench_net_run(bed, job, &cold_figures);
    if (!cold_figures.why[0])
        wf_bench_net_run(bed, &hot, &hot_figures);
    const char *why = cold_figures.why[0] ? cold_figures.why : hot_figures.why;
    snprintf(out->why, sizeof out->why, "%.*s", (int)sizeof out->why - 1, why);
    if (out->why[0])
        return;
    wf_bench_add(&series->get, cold_figures.get_gbps);
    wf_bench_add(&series->hot, hot_figures.get_gbps);
    for (size_t i = 0; i < TESTS; i++) {
        double found = perftest(bed, job, program, tests[i].test, errors && !tests[i].one_sided,
                                hot_figures.get_gbps);
        if (isnan(found))
            snprintf(out->why, sizeof out->why, "ucx_perftest -t %s did not come to an end",
                     tests[i].test);
        else
            wf_bench_add(&series->tests[i], found);
    }
    double like = perftest_like(bed, job, program, errors, hot_figures.get_gbps);
    if (isnan(like))
        snprintf(out->why, sizeof out->why, "ucx_perftest -t %s did not come to an end", LIKE);
    else
        wf_bench_add(&series->like, like);
}

static void sum_up(struct series *series, bool one_sided_counts, struct bench_net_ucx *out)
{
    out->get_gbps = wf_bench_at(&series->get, 0.5);
    out->hot_gbps = wf_bench_at(&series->hot, 0.5);
    out->like_gbps = wf_bench_at(&series->like, 0.5);
    like_name(!one_sided_counts, out->like, sizeof out->like);
    out->perftest_gbps = 0;
    for (size_t i = 0; i < TESTS; i++) {
        double gbps = wf_bench_at(&series->tests[i], 0.5);
        if (tests[i].one_sided)
            out->perftest_get_gbps = gbps;
        if ((!tests[i].one_sided || one_sided_counts) && gbps > out->perftest_gbps) {
            out->perftest_gbps = gbps;
            out->perftest_test = tests[i].test;
        }
    }
}

void wf_bench_net_ucx(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      enum bench_net_ucx_kind kind, struct bench_net_ucx *out)
{
    static const struct bench_net_bed here = {.holders = {-1, -1},
                                              .spaces = {-1, -1},
                                              .addresses = {"127.0.0.1", "127.0.0.1"}};
    struct series series = {0};
    struct bench_net_job ours = *job;
    char program[256];
    bool shm = kind == BENCH_NET_UCX_SHM;
    *out = (struct bench_net_ucx){0};
    ours.ops = wf_net_by_address("ucx:");
    ours.scheme = "ucx";
    ours.get_alone = true;
    if (!ours.ops)
        snprintf(out->why, sizeof out->why, "this build has no ucx transport (Debian: libucx-dev)");
    else if (!wf_cli_program_find("ucx_perftest", program, sizeof program))
        snprintf(out->why, sizeof out->why, "ucx_perftest is not installed (Debian: ucx-utils)");
    if (shm) { /* which wakes its peer through a socket of the network namespace */
        bed = &here;
        setenv("UCX_TLS", "posix,sysv,cma,self", 1);
        setenv("UCX_POSIX_ERROR_HANDLING", "y", 1);
        setenv("UCX_SYSV_ERROR_HANDLING", "y", 1);
        unsetenv("UCX_NET_DEVICES");
    } else { /* devices that the user names are what is measured; else UCX's TCP, which is
                everywhere */
        setenv("UCX_TLS", "tcp", 0);
        setenv("UCX_NET_DEVICES", bed->emulated ? "wf0" : "lo", 0);
    }
    for (uint64_t i = 0; i < wf_bench_options.rounds && !out->why[0]; i++)
        round_run(bed, &ours, program, shm, &series, out);
    if (!out->why[0])
        sum_up(&series, !shm, out);
    wf_bench_forget(&series.get);
    wf_bench_forget(&series.hot);
    wf_bench_forget(&series.like);
    for (size_t i = 0; i < TESTS; i++)
        wf_bench_forget(&series.tests[i]);
}
