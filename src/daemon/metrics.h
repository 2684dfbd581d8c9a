/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon counts: operations with their outcomes and durations, what happened to blocks,
 * and how full things are, as Prometheus text.
 *
 * Counters only grow and may be added to by any thread (relaxed atomics); the owner thread renders.
 * Gauges are not kept here: whoever knows them fills them in when asked.  All memory is taken at
 * creation: a histogram an operation and domain.
 */
#ifndef WF_DAEMON_METRICS_H
#define WF_DAEMON_METRICS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/hist.h"
#include "base/status.h"
#include "daemon/config.h"
#include "daemon/gateway_figures.h"
#include "fabric/fabric.h"
#include "gateway/resp.h"
#include "shm/control.h"

#define WF_POOLS_MAX 4
#define WF_NO_DOMAIN UINT32_MAX /* before hello, or the node's own: rendered as domain="" */

enum wf_metric {
    WF_M_BLOCKS_PUT, /* committed */
    WF_M_BYTES_PUT,
    WF_M_BLOCKS_DEDUPLICATED, /* answered EXISTS: bytes that nobody had to send or keep */
    WF_M_BYTES_DEDUPLICATED,
    WF_M_BLOCKS_EVICTED,
    WF_M_BYTES_EVICTED,
    WF_M_BLOCKS_REMOVED, /* asked for by a client */
    WF_M_BYTES_REMOVED,
    WF_M_BLOCKS_FULL, /* answered FULL */
    WF_M_BLOCKS_FULL_FOR_WORTH,
    WF_M_CHECKSUM_FAILURES,
    WF_M_BLOCKS_DROPPED, /* they, or what they extend, did not match their checksum */
    WF_M_BYTES_DROPPED,
    WF_M_PINS, /* as clients report in shared memory */
    WF_M_PIN_MISSES,
    WF_M_BYTES_PINNED,
    WF_M_MATCHES,
    WF_M_BLOCKS_ASKED,         /* in those matches */
    WF_M_BLOCKS_MATCHED,       /* and there */
    WF_M_BLOCKS_MATCHED_BELOW, /* and there on a tier below DRAM */
    WF_M_BLOCKS_LEFT_DRAM,     /* left DRAM and are below */
    WF_M_BLOCKS_PROMOTED,      /* read from below into DRAM */
    WF_M_BYTES_PROMOTED,
    WF_M_LOADS_LOST,      /* reads from below that were begun and gave no block */
    WF_M_BLOCKS_HIDDEN,   /* below, but where no match sees them: their place was full */
    WF_M_PROTOCOL_ERRORS, /* messages that no client of ours sends */
    WF_M_COUNT,
};

#define WF_SESSION_STATES 5 /* enum weft_session_state, from WEFT_PREFILL */

#define WF_REASONS_MAX 16 /* not to be written below */
struct wf_reason_gauge {
    const char *name; /* a literal; NULL: there is none */
    uint64_t count;
};

struct wf_domain_gauges {
    uint64_t clients, blocks, block_bytes, reserved_blocks, regions, region_bytes, quota_bytes,
        due_bytes, floor_bytes, lent_bytes, formats;
    uint64_t sessions[WF_SESSION_STATES]; /* [state - WEFT_PREFILL] */
    /* Archives: kept, of how many payload bytes, and how many of them are not whole now. */
    uint64_t archives, archive_bytes, archives_not_whole;
    struct wf_reason_gauge not_below[WF_REASONS_MAX]; /* blocks that left DRAM and are lost */
};

struct wf_pool_gauges {
    uint64_t total_bytes, used_bytes, free_bytes, largest_free_bytes, lent_bytes;
};

/* How a read from below is wanted, as far as its duration tells something. */
enum wf_load_why {
    WF_LOAD_WAITED = 0,     /* somebody waits for it */
    WF_LOAD_PREFETCHED = 1, /* somebody will */
    WF_LOAD_WHYS = 2,
};

/* A tier below DRAM, as it is when asked: gauges and counters that others keep. */
struct wf_tier_gauges {
    const char *name, *kind, *state; /* literals, or alive until the text is made */
    bool emulated, durable;
    double read_latency_us, read_mbps, write_mbps, write_amplification;
    double budget_bytes, budget_day_bytes; /* of writes; both 0: it has none */
    uint64_t capacity_bytes, used_bytes, blocks, archived_bytes, queued;
    uint64_t reads, read_bytes, writes, write_bytes, device_write_bytes, errors, corrupt;
    uint64_t demoted, promoted, moved, evicted, lost;
    uint64_t left_alone, foreign_bytes;
    uint64_t as_is_blocks;
    struct {
        const char *codec;                                 /* literal */
        uint64_t written, written_bytes, read, read_bytes; /* blocks, and their payload */
        uint64_t encoded, plain_bytes, stored_bytes;       /* that lie there encoded now */
        uint64_t encode_bytes, decode_bytes;
        double encode_seconds, decode_seconds;
    } quality[WEFT_ECONOMY + 1]; /* [WEFT_QUALITY_DEFAULT] is not used */
    /* Of one block, in ns: until its first range was readable, until all of it was. */
    const struct wf_hist *first_range[WF_LOAD_WHYS], *whole[WF_LOAD_WHYS];
};

struct wf_gauges {
    struct wf_tier_gauges tiers[WF_TIERS_MAX];
    uint32_t tier_count;
    struct wf_domain_gauges domains[WF_DOMAINS_MAX];
    struct wf_pool_gauges pools[WF_POOLS_MAX];
    uint64_t clients_unknown; /* connected and not attached to a domain yet */
    uint64_t draining;        /* 0 or 1 */
    uint64_t archives_lost;   /* times that one was found not to be whole, or not readable */
    uint64_t archives_made;   /* at this moment */
    bool has_fabric;
    struct wf_fabric_figures fabric;
    const struct wf_fabric_peer *fabric_peers;
    uint32_t fabric_peer_count;
    bool has_resp;
    struct wf_resp_figures resp;
    bool has_events;
    struct wf_gateway_events events;
    struct wf_engines_figures engines;
};

struct wf_metrics;

/* Names are copied.  Indices of domains and pools are those of the arrays.  WEFT_E_NO_MEMORY;
 * WEFT_E_LIMIT. */
enum weft_status wf_metrics_create(const char *const *domains, uint32_t domain_count,
                                   const char *const *pools, uint32_t pool_count,
                                   struct wf_metrics **out);
void wf_metrics_destroy(struct wf_metrics *metrics);

/* One operation came to its end with `status` after `ns`.  Op 0 is one that nobody knows. */
void wf_metrics_op(struct wf_metrics *metrics, uint32_t domain, enum wf_op op,
                   enum weft_status status, uint64_t ns);

/* `n` more of `metric`; the pool counts for what happens to blocks and is 0 for the rest. */
void wf_metrics_add_in(struct wf_metrics *metrics, uint32_t domain, uint32_t pool,
                       enum wf_metric metric, uint64_t n);

/* The same for a metric whose truth is kept elsewhere: it becomes `total`, or stays when that is
 * less, because clients write some of them and a counter must not go back. */
void wf_metrics_set(struct wf_metrics *metrics, uint32_t domain, enum wf_metric metric,
                    uint64_t total);

static inline void wf_metrics_add(struct wf_metrics *metrics, uint32_t domain,
                                  enum wf_metric metric, uint64_t n)
{
    wf_metrics_add_in(metrics, domain, 0, metric, n);
}

/* What was counted: of one domain, or of all and none with WF_NO_DOMAIN.  For /v1/status and tests.
 */
uint64_t wf_metrics_total(const struct wf_metrics *metrics, uint32_t domain, enum wf_metric metric);
uint64_t wf_metrics_op_total(const struct wf_metrics *metrics, uint32_t domain, enum wf_op op);
uint64_t wf_metrics_op_quantile_ns(const struct wf_metrics *metrics, uint32_t domain, enum wf_op op,
                                   double q);

/* "reserve" and the like; 0 is "unknown". */
const char *wf_op_name(enum wf_op op);

/* Prometheus text, exposition format 0.0.4; caller frees.  `fill` gets zeroed gauges.  NULL: no
 * memory. */
char *wf_metrics_render(const struct wf_metrics *metrics,
                        void (*fill)(void *context, struct wf_gauges *gauges), void *context);
/* The parts of it that metrics_tiers.c writes, and what they share. */
void wf_metrics_render_tiers(FILE *out, const struct wf_gauges *gauges);
void wf_metrics_head(FILE *out, const char *name, const char *type, const char *help);
/* `labels` without braces. */
void wf_metrics_duration(FILE *out, const char *name, const char *labels, const struct wf_hist *ns);
#define WF_METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
