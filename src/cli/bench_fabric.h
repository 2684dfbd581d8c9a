/* SPDX-License-Identifier: Apache-2.0
 *
 * What benchmarks over nodes of one cluster share: a folder with their secret and sockets, and the
 * wait until they see each other.
 */
#ifndef WF_CLI_BENCH_FABRIC_H
#define WF_CLI_BENCH_FABRIC_H

#include "cli/cli.h"

#define BENCH_FABRIC_NODES_MAX 16u

struct bench_fabric {
    char folder[80]; /* "": none.  In it "secret", and "n0", "n1" and so on for sockets */
};

int wf_bench_fabric_make(struct cli *cli, struct bench_fabric *fabric);
void wf_bench_fabric_remove(struct bench_fabric *fabric);

/* Until each of `count` nodes sees all others as "ok". */
int wf_bench_fabric_join(struct cli *cli, struct cli *const *nodes, uint32_t count, double limit_s);

#endif
