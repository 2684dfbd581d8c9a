/* SPDX-License-Identifier: Apache-2.0
 *
 * What `weft sim` was asked for, and what came of it.
 */
#ifndef WF_CLI_SIM_H
#define WF_CLI_SIM_H

#include "cli/cli.h"
#include "sim/gen.h"
#include "sim/hints.h"
#include "sim/run.h"

#define SIM_NUMBER_UNSAID (UINT64_MAX - 1) /* what no option is set to */
#define SIM_POLICIES_MAX 16
#define SIM_CAPACITIES_MAX 64
#define SIM_CAPACITY_MAX (1u << 28) /* blocks */

/* What --explain asks for; numbers from 1, 0: not that. */
struct sim_question {
    bool asked;
    uint32_t eviction, request, block;
};

/* --share: of a domain. */
struct sim_room {
    bool given, percent; /* percent: of the capacity; else blocks */
    double value;
};
struct sim_share {
    char name[TRACE_DOMAIN_MAX];
    struct sim_room floor, ceiling;
    double weight, deadline_s;
    uint32_t priority;
    bool prioritized; /* else it is the trace's */
};

struct sim_plan {
    const struct wf_sim_cache_ops *policies[SIM_POLICIES_MAX];
    uint32_t capacities[SIM_CAPACITIES_MAX]; /* ascending */
    int policy_count, capacity_count;
    struct wf_sim_hints hints;
    bool hinted;  /* made from the future */
    bool traced;  /* the hints are the trace's own */
    bool by_cost; /* weft is told what it takes to have a block again */
    double speed, warmup;
    const struct wf_sim_model *model;
    uint32_t replicas;
    struct wf_sim_tier tiers[WF_SIM_TIERS_MAX];
    int tier_count;
    uint32_t stage; /* blocks of the pool */
    bool admit_always;
    struct sim_question question;
    struct sim_share shares[WF_SIM_DOMAINS_MAX];
    int share_count;
    const char *trace_name; /* without folders */
};

struct sim_run {
    const struct wf_sim_cache_ops *ops;
    uint32_t capacity;
    struct wf_sim_result result;
    struct wf_sim_hints_made hints; /* when the plan is hinted */
};

struct sim_story;

/* All that ran: for each capacity all policies, in the order of the plan. */
struct sim_runs {
    const struct sim_plan *plan;
    const struct wf_sim_trace *trace;
    struct sim_run *runs;
    int count;
    struct sim_story *story; /* NULL: nobody asks why */
};

double wf_sim_hit_rate(const struct sim_run *run);
/* Which part of the way from LRU's hits to Belady's it goes, where both ran at its capacity and
 * differ. */
bool wf_sim_gap_closed(const struct sim_runs *runs, const struct sim_run *run, double *out);

/* sim_gen.c: `weft sim gen`.  An enum cli_exit. */
struct sim_gen_given {
    const char *workload, *format, *hints, *output;
    uint64_t requests, seed;
    const struct cli_list *tenants;
};
int wf_sim_gen_run(struct cli *cli, const struct sim_gen_given *given);
/* sim_cluster.c: `weft sim cluster`.  Enum cli_exit. */
struct sim_cluster_given {
    uint64_t nodes, seed;
    double link_gbps; /* Gbit/s of each node's way to the others */
};
int wf_sim_cluster_check(struct cli *cli, const struct sim_plan *plan,
                         const struct sim_cluster_given *given);
int wf_sim_cluster_print(struct cli *cli, const struct sim_plan *plan,
                         const struct wf_sim_trace *trace, const struct sim_cluster_given *given);
/* "precision=P,recall=R" into `out`: an enum cli_exit. */
int wf_sim_hints_read(struct cli *cli, const char *text, struct wf_sim_hints *out);

/* sim_tiers.c: --tier, and what tiers did. */
bool wf_sim_word_next(const char **list, char *word, size_t capacity); /* without its comma */
int wf_sim_tiers_read(struct cli *cli, const struct cli_list *list, struct sim_plan *plan);
json_t *wf_sim_tiers_json(const struct sim_plan *plan, const struct wf_sim_result *result);
void wf_sim_tiers_print(const struct sim_plan *plan, const struct sim_run *run);
void wf_sim_tiers_csv_head(const struct sim_plan *plan, FILE *file);
void wf_sim_tiers_csv(const struct sim_plan *plan, const struct wf_sim_result *result, FILE *file);

/* sim_shares.c: --share, --tenant, and what became of domains. */
int wf_sim_shares_read(struct cli *cli, const struct cli_list *list, struct sim_plan *plan);
int wf_sim_shares_check(struct cli *cli, const struct sim_plan *plan,
                        const struct wf_sim_trace *trace);
/* [domain_count] of each at that capacity; deadline_s 0: none. */
void wf_sim_shares_of(const struct sim_plan *plan, const struct wf_sim_trace *trace,
                      uint32_t capacity, struct wf_share *out, double *deadline_s);
int wf_sim_tenants_read(struct cli *cli, const struct cli_list *list, struct wf_sim_tenant *out,
                        int *count);
json_t *wf_sim_domains_json(const struct sim_runs *runs, const struct sim_run *run);
void wf_sim_domains_print(const struct sim_runs *runs, const struct sim_run *run);
void wf_sim_domains_csv_head(const struct wf_sim_trace *trace, FILE *file);
void wf_sim_domains_csv(const struct wf_sim_trace *trace, const struct sim_run *run, FILE *file);

/* sim_explain.c: --explain.  Enum cli_exit. */
#define SIM_STORY_MAX 1000
struct sim_story {
    struct sim_question question;
    const struct wf_sim_trace *trace;
    uint32_t block; /* the one that is asked about */
    struct wf_sim_event events[SIM_STORY_MAX];
    int count;
    uint64_t more; /* that found no room */
};
int wf_sim_explain_read(struct cli *cli, const char *text, struct sim_plan *plan);
int wf_sim_explain_begin(struct cli *cli, const struct wf_sim_trace *trace,
                         struct sim_story *story);
void wf_sim_explain_note(void *context, const struct wf_sim_event *event);
int wf_sim_explain_print(struct cli *cli, const struct sim_plan *plan,
                         const struct sim_story *story);

/* sim_report.c: for programs, for people, for spreadsheets, for eyes.  An enum cli_exit. */
void wf_sim_json_print(const struct sim_runs *runs);
void wf_sim_table_print(const struct sim_runs *runs);
int wf_sim_csv_write(struct cli *cli, const struct sim_runs *runs, const char *path);
int wf_sim_svg_write(struct cli *cli, const struct sim_runs *runs, const char *path);

#endif
