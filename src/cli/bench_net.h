/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of weft bench net share.
 */
#ifndef WF_CLI_BENCH_NET_H
#define WF_CLI_BENCH_NET_H

#include <sys/types.h>

#include "cli/bench.h"
#include "net/net.h"

#define BENCH_NET_WINDOW 8u /* blocks asked for, or sent, at a time */

/* Two hosts and a cable: network namespaces of processes that hold them, and a veth pair; or, where
 * that is not allowed, this host twice. */
struct bench_net_bed {
    bool emulated; /* else loopback */
    char why[200]; /* … and why */
    pid_t holders[2];
    int spaces[2]; /* their namespaces; -1: this one */
    char addresses[2][64];
};

/* `emulated` says whether there are namespaces. */
void wf_bench_net_bed_make(struct bench_net_bed *bed);
void wf_bench_net_bed_end(struct bench_net_bed *bed);

/* What a run of requester and responder measured.  GB/s of payload; NaN where it was not. */
struct bench_net_figures {
    double get_gbps, put_gbps, get_64k_us_p50, get_64k_us_p99, ping_us_p50;
    uint64_t zero_copy;
    char why[256]; /* not empty: it failed */
};

struct bench_net_job {
    const struct wf_net_ops *ops;
    const char *scheme; /* "tcp", "ucx" */
    uint64_t block_bytes, blocks;
    double seconds; /* of each figure */
    uint32_t streams;
    bool get_alone; /* nothing else is measured */
    bool bare;      /* nothing is summed */
};

/* One run over the bed, in two processes. */
void wf_bench_net_run(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      struct bench_net_figures *out);

/* Run a program on host 0 or 1 of the bed; what it prints to `out` (NULL: nowhere), its exit status
 * or -1. */
int wf_bench_net_exec(const struct bench_net_bed *bed, int host, char *const *arguments, char *out,
                      size_t out_bytes);
/* The same without waiting; its process. */
pid_t wf_bench_net_begin(const struct bench_net_bed *bed, int host, char *const *arguments);
void wf_bench_net_end(pid_t pid);
/* This process is on that host from now on: its network, and its half of the CPUs. */
void wf_bench_net_enter(const struct bench_net_bed *bed, int host);

/* UCX beside ucx_perftest (bench_net_ucx.c): medians over the rounds, GB/s. */
struct bench_net_ucx {
    double get_gbps;           /* as over tcp: many blocks, each summed where it arrives */
    double hot_gbps;           /* as ucx_perftest does it */
    double perftest_gbps;      /* the best that it has between endpoints like ours, and */
    double perftest_get_gbps;  /* its one-sided read */
    const char *perftest_test; /* which was the best */
    double like_gbps;          /* its active messages, set as UCX is set for ours, which are that */
    char like[200];            /* what that is: test and variables */
    char why[200];             /* not empty: there is none, and why */
};
enum bench_net_ucx_kind { BENCH_NET_UCX_NAMED, BENCH_NET_UCX_SHM, BENCH_NET_UCX_KINDS };
void wf_bench_net_ucx(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      enum bench_net_ucx_kind kind, struct bench_net_ucx *out);

#endif
