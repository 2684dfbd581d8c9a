/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast this host's memory is, so that the pool stands in the list of tiers with figures that
 * were measured as theirs are.
 */
#ifndef WF_DAEMON_DRAM_H
#define WF_DAEMON_DRAM_H

struct wf_dram_speed {
    double read_latency_us;       /* of a copy of 16 KiB that is in no cache, as movers
                                     measure it */
    double read_mbps, write_mbps; /* 10^6 bytes a second, one thread copying; 0: not measured */
};

/* Takes some milliseconds and 16 MiB, which it gives back; on `numa_node` when that is not
 * negative.  Without that memory everything is 0. */
void wf_dram_measure(int numa_node, struct wf_dram_speed *out);

#endif
