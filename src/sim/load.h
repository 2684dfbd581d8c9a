/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole trace in memory, as the simulator wants it.
 *
 * Blocks are numbered densely in the order in which they first appear, so that whoever keeps
 * something of each has an array.  A block is what its hash id stands for behind its parent: two
 * requests share one only when they share all that comes before it, as weft's keys do.  So a
 * parent's number is below its children's, a block has one place in its chain, and a request never
 * has one twice.  Immutable once loaded.
 */
#ifndef WF_SIM_LOAD_H
#define WF_SIM_LOAD_H

#include "base/status.h"
#include "sim/trace.h"

#define WF_SIM_NONE UINT32_MAX
#define WF_SIM_REQUESTS_MAX (1u << 28)
#define WF_SIM_BLOCKS_MAX (1u << 31) /* references, and so blocks */

struct wf_sim_request {
    uint64_t at_us;
    uint64_t first; /* its first reference */
    uint64_t input_tokens;
    uint64_t returns_in_us; /* it is said to come back after so long; 0: nothing is said */
    uint32_t count, output_tokens;
    enum trace_hint hint;
    uint32_t domain;
};

/* Whose requests they are.  Two domains share no block, as in weftd. */
#define WF_SIM_DOMAINS_MAX 16
struct wf_sim_domain {
    char name[TRACE_DOMAIN_MAX];
    uint32_t priority; /* the highest that a line said */
};

struct wf_sim_trace {
    struct wf_sim_request *requests;
    uint32_t *blocks; /* [reference_count] of all requests, one after the other */
    uint32_t *parent; /* [block_count] WF_SIM_NONE: begins a chain */
    uint32_t *depth;  /* [block_count] 0: begins a chain */
    uint32_t *next;   /* [reference_count] the request that wants this block next, or WF_SIM_NONE */
    uint64_t reference_count;
    uint32_t request_count, block_count, chain_max; /* chain_max: blocks of the longest request */
    uint32_t block_tokens;
    struct wf_sim_domain domains[WF_SIM_DOMAINS_MAX]; /* in the order of their first request */
    uint32_t domain_count;
    uint64_t hints;                    /* requests that have one */
    uint64_t lines_malformed;          /* passed over */
    uint64_t lines_early;              /* with an earlier time than the one before */
    char first_error[TRACE_ERROR_MAX]; /* of the first malformed line */

    /* While it grows. */
    uint64_t request_room, reference_room, block_room;
    uint32_t *table; /* open addressing: block + 1 by (parent, hash id); a power of two of them */
    uint64_t *hash_ids;
    uint64_t table_size;
};

/* Called now and then with how much of the file is read; may be NULL. */
struct wf_sim_progress {
    void (*step)(void *context, double part);
    void *context;
};

/* Malformed lines are passed over and counted; `strict`: the first one fails.  WEFT_E_SYSTEM,
 * WEFT_E_INVALID, WEFT_E_NO_MEMORY, WEFT_E_LIMIT.  Reading ends after `requests_max`.  On success
 * the caller owns it. */
enum weft_status wf_sim_trace_load(const char *path, enum trace_format format, bool strict,
                                   uint64_t requests_max, const struct wf_sim_progress *progress,
                                   struct wf_sim_trace *out);
void wf_sim_trace_fini(struct wf_sim_trace *trace);

/* Build one by hand: init, add requests in the order of time, finish. */
enum weft_status wf_sim_trace_init(struct wf_sim_trace *trace, uint32_t block_tokens);
enum weft_status wf_sim_trace_add(struct wf_sim_trace *trace, const struct trace_request *request);
enum weft_status wf_sim_trace_finish(struct wf_sim_trace *trace);

/* The sentence of what failed last in this thread. */
const char *wf_sim_error(void);

#endif
