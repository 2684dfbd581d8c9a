/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench net: the ucx transport beside ucx_perftest, in turns: the same devices, the same size
 * of a read, as many at a time.
 *
 * What ucx_perftest reads with (ucp_get) is one-sided; a block that is got over the ucx transport
 * is asked for, sent by rendezvous and summed.  Which is faster is the devices' affair: over UCX's
 * TCP, where a one-sided read is one only in name, it is the block.
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

/* GB/s of one run of as many reads as `gbps` would do in a quarter of a figure's time: over UCX's
 * TCP it takes many times as long for them. */
static double perftest(const struct bench_net_bed *bed, const struct bench_net_job *job,
                       const char *program, double gbps)
{
    static char answer[ANSWER_MAX];
    char port[16], bytes[24], times[24], depth[16];
    double reads = gbps * 1e9 * job->seconds / 4 / (double)job->block_bytes, found = NAN;
    snprintf(port, sizeof port, "%d", 20000 + getpid() % 20000);
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)job->block_bytes);
    snprintf(times, sizeof times, "%.0f", reads > 100 ? reads : 100);
    snprintf(depth, sizeof depth, "%u", BENCH_NET_WINDOW);
    char *serve[] = {(char *)program, (char *)"-p", port, NULL};
    char *ask[] = {(char *)program, (char *)bed->addresses[1],
                   (char *)"-p",    port,
                   (char *)"-t",    (char *)"ucp_get",
                   (char *)"-s",    bytes,
                   (char *)"-n",    times,
                   (char *)"-w",    (char *)"50",
                   (char *)"-O",    depth,
                   (char *)"-f",    NULL};
    pid_t server = wf_bench_net_begin(bed->spaces[1], serve);
    for (int tries = 0; tries < 50 && isnan(found); tries++) {
        usleep(100000); /* until it listens */
        if (wf_bench_net_exec(bed->spaces[0], ask, answer, sizeof answer) == 0)
            found = parse(answer);
    }
    wf_bench_net_end(server);
    return found;
}

bool wf_bench_net_ucx(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      double *out_get_gbps, double *out_perftest_gbps, char *why, size_t why_bytes)
{
    struct bench_series get = {0}, yardstick = {0};
    struct bench_net_job ours = *job;
    struct bench_net_figures figures;
    char program[256];
    bool has = wf_cli_program_find("ucx_perftest", program, sizeof program);
    ours.ops = wf_net_by_address("ucx:");
    ours.scheme = "ucx";
    why[0] = 0;
    if (!ours.ops)
        snprintf(why, why_bytes, "this build has no ucx transport (Debian: libucx-dev)");
    else if (!has)
        snprintf(why, why_bytes, "ucx_perftest is not installed (Debian: ucx-utils)");
    /* Devices that the user names are what is measured; else UCX's TCP, which is everywhere. */
    setenv("UCX_TLS", "tcp", 0);
    setenv("UCX_NET_DEVICES", bed->emulated ? "wf0" : "lo", 0);
    for (uint64_t i = 0; i < wf_bench_options.rounds && !why[0]; i++) {
        wf_bench_net_run(bed, &ours, &figures);
        if (figures.why[0]) {
            snprintf(why, why_bytes, "%s", figures.why);
            break;
        }
        wf_bench_add(&get, figures.get_gbps);
        double found = perftest(bed, job, program, figures.get_gbps);
        if (isnan(found))
            snprintf(why, why_bytes, "ucx_perftest did not come to an end");
        else
            wf_bench_add(&yardstick, found);
    }
    if (!why[0]) {
        *out_get_gbps = wf_bench_at(&get, 0.5);
        *out_perftest_gbps = wf_bench_at(&yardstick, 0.5);
    }
    wf_bench_forget(&get);
    wf_bench_forget(&yardstick);
    return !why[0];
}
