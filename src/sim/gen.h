/* SPDX-License-Identifier: Apache-2.0
 *
 * Workloads by stated distributions, written as traces that the reader reads.
 *
 * Sessions arrive by chance (a Poisson process), some in groups that share a prompt of their own.
 * A session begins with a shared prompt, perhaps documents, and its first message; each turn's
 * input is all of the turn before, its output and what is new.  Lengths and waits are log-normal: a
 * median and the deviation of the logarithm.  Which prompt, which document: Zipf.
 *
 * With hints, a request says what its session will do: "wanted" when another turn comes, "done"
 * when not, each with the probability `recall`; of what is left so many say the other as make a
 * share of `precision` of each kind true, as far as they are enough; the rest says nothing.  Where
 * it says "wanted", it says after how long: the gap that was drawn (of those that do not come back,
 * too), times a log-normal of median 1.
 */
#ifndef WF_SIM_GEN_H
#define WF_SIM_GEN_H

#include <stdio.h>

#include "sim/hints.h"

#define WF_SIM_GEN_REQUESTS_MAX 1000000u

struct wf_sim_spread {
    double median, sigma;
};

struct wf_sim_workload {
    const char *name;
    double sessions_per_s; /* arrivals; a group counts as one */
    double swing,
        swing_s; /* they come as sessions_per_s · (1 + swing · sin(2π · time ÷ swing_s)) */
    uint32_t prompts; /* shared ones; 0: each group has one of its own */
    double prompt_zipf;
    double prompt_own; /* the chance that a session has one that nobody shares */
    double drift_s;    /* so often each prompt's rank is one lower, and the last one's the first */
    struct wf_sim_spread prompt_tokens;
    uint32_t documents, documents_each; /* behind the prompt, in the order drawn */
    double document_zipf;
    struct wf_sim_spread document_tokens;
    struct wf_sim_spread group, group_gap_s; /* sessions that come together; median 0: one */
    struct wf_sim_spread first_tokens, more_tokens, output_tokens;
    double goes_on; /* the chance of another turn */
    struct wf_sim_spread gap_s;
    double pauses; /* the chance that a gap is a pause instead */
    struct wf_sim_spread pause_s;
};
extern const struct wf_sim_workload wf_sim_workloads[]; /* the entry after the last has no name */
const struct wf_sim_workload *wf_sim_workload_find(const char *name);

/* Whose sessions they are: each is one tenant's by chance, `part` of the sum of all parts; those of
 * a group are one tenant's together. */
struct wf_sim_tenant {
    char name[TRACE_DOMAIN_MAX];
    double part;
    uint32_t priority;
};

struct wf_sim_gen {
    const struct wf_sim_workload *workload;
    enum trace_format format;
    uint32_t requests;
    uint64_t seed;
    bool hinted;
    struct wf_sim_hints hints;
    const struct wf_sim_tenant *tenants;
    int tenant_count; /* 0: nobody's */
};

/* What came of the hints, of each kind. */
struct wf_sim_gen_said {
    uint64_t hints, right;
    bool precision_missed; /* too few of the other kind are left to be mistaken about */
};
struct wf_sim_gen_made {
    struct wf_sim_gen_said wanted, done;
};

/* Errors of writing are left to ferror().  `made` may be NULL.  WEFT_E_NO_MEMORY. */
enum weft_status wf_sim_gen_write(const struct wf_sim_gen *gen, FILE *to,
                                  struct wf_sim_gen_made *made);

#endif
