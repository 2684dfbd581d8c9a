/* SPDX-License-Identifier: Apache-2.0
 *
 * A trace on several nodes: each has a cache of its own by the value policy (weft_cache.c), an
 * engine, and an even part of the capacity.
 *
 *   one       one node that has all of the capacity, and all engines
 *   rounds    isolated nodes, one request each in turn; what another has is computed again
 *   affinity  isolated nodes, the one that has most of it, of equals the idlest
 *   fabric    by core/route.h over core/places.h: what another has is fetched where that is sooner
 *             done.  Of what was fetched the source keeps what others use, too; the rest, which its
 *             session took along, goes first there
 *
 * A block is there from the arrival of the request that computes or fetches it, and is known of at
 * once, as in sim/run.h; queues are known as of up to REPORT_S ago.  Deterministic but for
 * route_us, which is measured; one thread.
 */
#ifndef WF_SIM_CLUSTER_H
#define WF_SIM_CLUSTER_H

#include "sim/cache.h"
#include "sim/engine.h"

#define WF_SIM_NODES_MAX 256u

enum wf_sim_cluster_how {
    WF_SIM_ONE = 0,
    WF_SIM_ROUNDS,
    WF_SIM_AFFINITY,
    WF_SIM_FABRIC,
    WF_SIM_HOWS,
};
const char *wf_sim_cluster_name(enum wf_sim_cluster_how how);

struct wf_sim_cluster_plan {
    const struct wf_sim_trace *trace;
    const struct wf_sim_model *model;
    enum wf_sim_cluster_how how;
    uint32_t nodes;    /* 1 … WF_SIM_NODES_MAX; one engine each */
    uint32_t capacity; /* blocks, of all together; at least one a node */
    uint32_t warmup;   /* requests that are served and not counted */
    uint64_t seed;
    double speed;                        /* as in the world */
    double link_bytes_s, link_latency_s; /* of each node's way to the others, in and out */
};

struct wf_sim_cluster_result {
    uint64_t requests, blocks_requested;
    uint64_t blocks_hit;     /* not computed: they were on the node, or fetched */
    uint64_t blocks_fetched; /* of these, from another */
    uint64_t fetches;        /* requests that fetched */
    double copies_mean;      /* of a block that is held, as requests found it */
    double busiest;          /* requests of the node that served most, in parts of the mean */
    double ttft_ms_mean, ttft_ms_p50, ttft_ms_p99;
    double route_us_p50; /* of a decision, measured; 0 where there is none */
};

/* WEFT_E_NO_MEMORY, WEFT_E_INVALID. */
enum weft_status wf_sim_cluster_run(const struct wf_sim_cluster_plan *plan,
                                    const struct wf_sim_progress *progress,
                                    struct wf_sim_cluster_result *out);

#endif
