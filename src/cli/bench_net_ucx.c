/* SPDX-License-Identifier: Apache-2.0
 *
 * weft bench net: the ucx transport beside ucx_perftest.
 */
#include "cli/bench_net.h"

bool wf_bench_net_ucx(const struct bench_net_bed *bed, const struct bench_net_job *job,
                      double *out_get_gbps, double *out_perftest_gbps, char *why, size_t why_bytes)
{
    (void)bed, (void)job, (void)out_get_gbps, (void)out_perftest_gbps;
    snprintf(why, why_bytes, "this build has no ucx transport");
    return false;
}
