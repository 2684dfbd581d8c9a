/* SPDX-License-Identifier: Apache-2.0
 *
 * weft sim: a request trace through simulated caches.
 *
 * No node is asked and nothing is stored: policies decide about the blocks of a trace, a model of
 * the engines says what their hits are worth in time.
 */
#include "cli/sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/commands.h"

static struct {
    const char *trace, *format, *capacities, *policies, *hints, *csv, *svg, *speed, *model;
    const char *workload, *output, *explain, *admit, *objective;
    struct cli_list tiers, shares, tenants;
    uint64_t seed, replicas, requests, stage, nodes;
    double warmup, link_gbps;
    bool strict;
} given = {.replicas = SIM_NUMBER_UNSAID,
           .nodes = SIM_NUMBER_UNSAID,
           .seed = 1,
           .requests = SIM_NUMBER_UNSAID};

static const struct cli_word words[] = {
    {"gen", "make a trace instead: write --requests of a --workload to --output, or to stdout"},
    {"cluster", "the trace on several --nodes, isolated and as one memory, by value and by route"},
    {NULL},
};

static const struct cli_option options[] = {
    {"trace", CLI_TEXT, "FILE", &given.trace, "the trace, JSON lines, plain or gzip; -: stdin"},
    {"format", CLI_TEXT, "mooncake|qwen", &given.format,
     "what its lines are (what they look like; gen: mooncake)"},
    {"capacity-blocks", CLI_TEXT, "N,...", &given.capacities,
     "how many blocks the cache holds: 6000, or 6k, or 2M (3000,6000,10000,20000,30000)"},
    {"policy", CLI_TEXT, "NAME,...", &given.policies,
     "which policies, or all (all; with --share lru_leaf,weft)"},
    {"hints", CLI_TEXT, "precision=P,recall=R", &given.hints,
     "give weft's policy hints made from the future, with this much noise; or trace: those that "
     "the trace has (none)"},
    {"seed", CLI_NUMBER, "N", &given.seed,
     "of all that is drawn by chance, the keys of blocks among it (1)"},
    {"warmup", CLI_REAL, "PART", &given.warmup,
     "count only what comes after this part of the requests (0)"},
    {"speed", CLI_TEXT, "FACTOR", &given.speed,
     "the clock that policies see is so much faster than the trace's: 60x (1x)"},
    {"model", CLI_TEXT, "NAME", &given.model, "whose times are modelled (llama-3-70b)"},
    {"replicas", CLI_NUMBER, "N", &given.replicas, "engines that share the cache (4)"},
    {"tier", CLI_LIST, "KIND:BLOCKS|KEY=VALUE,...", &given.tiers,
     "what lies below the pool, nearest first, one option each (none)"},
    {"admit", CLI_TEXT, "worth|always", &given.admit,
     "which blocks tiers take: what is worth it, or all while the device may be written (worth)"},
    {"stage-blocks", CLI_NUMBER, "N", &given.stage,
     "so many blocks of the pool are for what is fetched ahead (0)"},
    {"share", CLI_LIST, "DOMAIN:KEY=VALUE,...", &given.shares,
     "what a domain of the trace may have of the pool, one option each (all are one)"},
    {"explain", CLI_TEXT, "WHAT", &given.explain,
     "say why, instead: N: the Nth block that left the pool; request:N; request:N/M: its Mth"},
    {"objective", CLI_TEXT, "hits|ttft", &given.objective,
     "what weft keeps blocks for: hits alone, or each at what it costs to have it again (hits)"},
    {"csv", CLI_TEXT, "FILE", &given.csv, "write a line for each run there, too"},
    {"svg", CLI_TEXT, "FILE", &given.svg, "draw hit rates over capacities there, too"},
    {"workload", CLI_TEXT, "chat|agentic|rag|batch|api", &given.workload, "what gen makes"},
    {"tenant", CLI_LIST, "NAME:PART[:PRIORITY]", &given.tenants,
     "whose sessions gen makes, one option each (nobody's)"},
    {"requests", CLI_NUMBER, "N", &given.requests,
     "only the first N requests of the trace (all); gen: how many it makes (10000)"},
    {"nodes", CLI_NUMBER, "N", &given.nodes,
     "cluster: how many nodes, of an engine each, have the capacity together (4)"},
    {"link-gbps", CLI_REAL, "N", &given.link_gbps,
     "cluster: each node's way to the others, in Gbit/s (200)"},
    {"output", CLI_TEXT, "FILE", &given.output, "where gen writes them (stdout)"},
    {"strict", CLI_FLAG, NULL, &given.strict, "stop at the first malformed line"},
    {NULL},
};

static const char *const examples[] = {
    "every policy at the usual capacities, and a picture of it",
    "weft sim --trace mooncake_conversation.jsonl --svg hit-rates.svg",
    "one policy at one capacity, for a program",
    ("weft sim --trace mooncake_conversation.jsonl --format mooncake --capacity-blocks 6000 "
     "--policy lru --json"),
    "how much hints that are right four times of five are worth",
    ("weft sim --trace trace.jsonl.gz --policy lru,weft,belady --hints precision=0.8,recall=0.8 "
     "--warmup 0.33"),
    "a pool of 3,000 blocks over a flash drive, which may be written once a day",
    ("weft sim --trace trace.jsonl --capacity-blocks 3000 --policy lru,weft --tier "
     "nvme:60000,dwpd=1"),
    "why request 500's third block went where it did",
    ("weft sim --trace trace.jsonl --capacity-blocks 3000 --policy weft --tier nvme:60000 "
     "--explain request:500/3"),
    "two tenants, one of which paid for half of the pool",
    ("weft sim gen --workload chat --tenant gold:0.3:2 --tenant free:0.7 --output two.jsonl && "
     "weft sim --trace two.jsonl --policy weft --share gold:floor=50%"),
    "what four nodes hit as one memory that have a quarter of the blocks each",
    ("weft sim cluster --nodes 4 --trace mooncake_conversation.jsonl --capacity-blocks 10000 "
     "--json"),
    "agents, whose hints are right nine times of ten, and what a node makes of them",
    ("weft sim gen --workload agentic --requests 20000 --hints precision=0.9,recall=0.9 --output "
     "agents.jsonl && weft sim --trace agents.jsonl --hints trace"),
    NULL,
};

/* ------------------------------------------------------------------------------------- options */

static const char *policy_name_at(void *context, int index)
{
    (void)context;
    return wf_sim_caches[index] ? wf_sim_caches[index]->name : NULL;
}

static bool is_said(const struct cli_option *option)
{
    switch (option->kind) {
    case CLI_FLAG: return *(const bool *)option->to;
    case CLI_TEXT: return *(const char *const *)option->to != NULL;
    case CLI_LIST: return ((const struct cli_list *)option->to)->count > 0;
    case CLI_REAL: return *(const double *)option->to != 0;
    default:
        return *(const uint64_t *)option->to != 0 &&
               *(const uint64_t *)option->to != SIM_NUMBER_UNSAID;
    }
}

/* What is said to the other half of this command would do nothing, which nobody wants who says it.
 * Then what is not said has its default. */
static int options_settle(struct cli *cli, bool gen)
{
    static const char *const of_gen[] = {"workload", "tenant", "output"};
    static const char *const of_both[] = {"format", "hints", "seed", "requests"};
    for (const struct cli_option *option = options; option->name; option++) {
        bool both = false, makes = false;
        for (size_t i = 0; i < sizeof of_both / sizeof of_both[0]; i++)
            both |= strcmp(of_both[i], option->name) == 0;
        for (size_t i = 0; i < sizeof of_gen / sizeof of_gen[0]; i++)
            makes |= strcmp(of_gen[i], option->name) == 0;
        if (both || makes == gen || !is_said(option))
            continue;
        return gen ? wf_cli_fail(cli, CLI_USAGE,
                                 "gen makes a trace and has no use for --%s; leave it out",
                                 option->name)
                   : wf_cli_fail(cli, CLI_USAGE,
                                 "--%s is for gen, which makes a trace; leave it out, or say "
                                 "weft sim gen",
                                 option->name);
    }
    return CLI_OK;
}

/* Of a cluster, and not of it: the same. */
static int cluster_options_check(struct cli *cli, bool cluster)
{
    static const char *const alone[] = {"nodes", "link-gbps"};
    static const char *const others[] = {"policy", "hints", "replicas",  "tier",
                                         "admit",  "share", "explain",   "stage-blocks",
                                         "csv",    "svg",   "objective", NULL};
    for (const struct cli_option *option = options; option->name; option++) {
        bool is_alone = strcmp(alone[0], option->name) == 0 || strcmp(alone[1], option->name) == 0;
        bool is_other = false;
        for (int i = 0; others[i]; i++)
            is_other |= strcmp(others[i], option->name) == 0;
        if (!is_said(option) || (cluster ? !is_other : !is_alone))
            continue;
        return cluster ? wf_cli_fail(cli, CLI_USAGE,
                                     "cluster goes by value and has no use for --%s; leave it out",
                                     option->name)
                       : wf_cli_fail(cli, CLI_USAGE,
                                     "--%s is for cluster; leave it out, or say weft sim cluster",
                                     option->name);
    }
    return CLI_OK;
}

static void defaults_set(bool gen, bool cluster)
{
    if (cluster && !given.capacities)
        given.capacities = "10000";
    if (cluster)
        given.policies = "weft";
    if (given.nodes == SIM_NUMBER_UNSAID)
        given.nodes = 4;
    if (!(given.link_gbps > 0 || given.link_gbps < 0))
        given.link_gbps = 200;
    if (!given.policies)
        given.policies = given.shares.count ? "lru_leaf,weft" : "all";
    if (!given.capacities)
        given.capacities = "3000,6000,10000,20000,30000";
    if (!given.speed)
        given.speed = "1x";
    if (!given.model)
        given.model = "llama-3-70b";
    if (given.replicas == SIM_NUMBER_UNSAID)
        given.replicas = 4;
    if (given.requests == SIM_NUMBER_UNSAID)
        given.requests = gen ? 10000 : UINT64_MAX;
}

static int policies_read(struct cli *cli, struct sim_plan *plan)
{
    char word[64];
    if (strcmp(given.policies, "all") == 0) {
        while (wf_sim_caches[plan->policy_count]) {
            plan->policies[plan->policy_count] = wf_sim_caches[plan->policy_count];
            plan->policy_count++;
        }
        return CLI_OK;
    }
    for (const char *list = given.policies; wf_sim_word_next(&list, word, sizeof word);) {
        const struct wf_sim_cache_ops *ops = wf_sim_cache_find(word);
        const char *nearest = ops ? NULL : wf_cli_nearest(word, policy_name_at, NULL);
        if (nearest)
            return wf_cli_fail(cli, CLI_USAGE, "there is no policy '%s'; did you mean '%s'?", word,
                               nearest);
        if (!ops)
            return wf_cli_fail(cli, CLI_USAGE,
                               "there is no policy '%s'; `weft sim --help` lists them", word);
        for (int i = 0; i < plan->policy_count; i++)
            if (plan->policies[i] == ops)
                return wf_cli_fail(cli, CLI_USAGE, "--policy names %s twice", word);
        plan->policies[plan->policy_count++] = ops;
    }
    if (!plan->policy_count)
        return wf_cli_fail(cli, CLI_USAGE, "--policy is empty; name one, or all");
    return CLI_OK;
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* A number of blocks, in thousands or millions where it says so. */
static bool capacity_read(const char *word, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long long blocks = strtoull(word, &end, 10), unit = 1;
    if (*end == 'k' || *end == 'K')
        unit = 1000;
    else if (*end == 'm' || *end == 'M')
        unit = 1000000;
    end += unit > 1;
    if (errno || *end || word[0] < '0' || word[0] > '9' || !blocks ||
        blocks > SIM_CAPACITY_MAX / unit)
        return false;
    *out = (uint32_t)(blocks * unit);
    return true;
}

static int capacities_read(struct cli *cli, struct sim_plan *plan)
{
    char word[64];
    for (const char *list = given.capacities; wf_sim_word_next(&list, word, sizeof word);) {
        uint32_t blocks;
        if (!capacity_read(word, &blocks))
            return wf_cli_fail(cli, CLI_USAGE,
                               "--capacity-blocks has '%s'; give numbers from 1 to %u, like "
                               "3000,6k",
                               word, SIM_CAPACITY_MAX);
        if (plan->capacity_count == SIM_CAPACITIES_MAX)
            return wf_cli_fail(cli, CLI_USAGE, "--capacity-blocks has more than %d numbers",
                               SIM_CAPACITIES_MAX);
        for (int i = 0; i < plan->capacity_count; i++)
            if (plan->capacities[i] == blocks)
                return wf_cli_fail(cli, CLI_USAGE, "--capacity-blocks has %s twice", word);
        plan->capacities[plan->capacity_count++] = blocks;
    }
    if (!plan->capacity_count)
        return wf_cli_fail(cli, CLI_USAGE, "--capacity-blocks is empty; give 6000, or several");
    qsort(plan->capacities, (size_t)plan->capacity_count, sizeof plan->capacities[0], ascending);
    return CLI_OK;
}

int wf_sim_hints_read(struct cli *cli, const char *text, struct wf_sim_hints *out)
{
    char word[64];
    struct wf_sim_hints hints = {0};
    for (const char *list = text; wf_sim_word_next(&list, word, sizeof word);) {
        double *to = strncmp(word, "precision=", 10) == 0 ? &hints.precision
                     : strncmp(word, "recall=", 7) == 0   ? &hints.recall
                                                          : NULL;
        if (!to)
            return wf_cli_fail(cli, CLI_USAGE,
                               "--hints has '%s'; it is precision=P,recall=R, like "
                               "precision=0.8,recall=0.8, or trace for those of a trace",
                               word);
        const char *value = strchr(word, '=') + 1;
        char *end;
        *to = strtod(value, &end);
        if (end == value || *end || !(*to > 0) || *to > 1)
            return wf_cli_fail(cli, CLI_USAGE, "--hints has '%s'; give more than 0, and up to 1",
                               word);
    }
    if (!(hints.precision > 0) || !(hints.recall > 0))
        return wf_cli_fail(cli, CLI_USAGE, "--hints needs both, like precision=0.8,recall=0.8");
    *out = hints;
    return CLI_OK;
}

static int hints_read(struct cli *cli, struct sim_plan *plan)
{
    plan->traced = given.hints && strcmp(given.hints, "trace") == 0;
    plan->hinted = given.hints && !plan->traced;
    return plan->hinted ? wf_sim_hints_read(cli, given.hints, &plan->hints) : CLI_OK;
}

static int objective_read(struct cli *cli, struct sim_plan *plan)
{
    const char *objective = given.objective;
    plan->by_cost = objective && strcmp(objective, "ttft") == 0;
    if (objective && !plan->by_cost && strcmp(objective, "hits") != 0)
        return wf_cli_fail(cli, CLI_USAGE, "--objective is '%s'; give hits or ttft", objective);
    return CLI_OK;
}

static int engine_read(struct cli *cli, struct sim_plan *plan)
{
    plan->model = wf_sim_model_find(given.model);
    char names[256] = "";
    for (size_t i = 0, used = 0; wf_sim_models[i].name && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 wf_sim_models[i].name);
    if (!plan->model)
        return wf_cli_fail(cli, CLI_USAGE, "there is no model '%s' here; there are %s", given.model,
                           names);
    if (!given.replicas || given.replicas > WF_SIM_REPLICAS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--replicas is %llu; give 1 to %d",
                           (unsigned long long)given.replicas, WF_SIM_REPLICAS_MAX);
    plan->replicas = (uint32_t)given.replicas;
    return CLI_OK;
}

static int plan_read(struct cli *cli, struct sim_plan *plan)
{
    if (!given.trace)
        return wf_cli_fail(cli, CLI_USAGE, "name the trace with --trace FILE");
    if (!given.requests)
        return wf_cli_fail(cli, CLI_USAGE, "--requests is 0; give 1 or more");
    const char *slash = strrchr(given.trace, '/');
    plan->trace_name = strcmp(given.trace, "-") == 0 ? "stdin" : slash ? slash + 1 : given.trace;
    char *end;
    plan->speed = strtod(given.speed, &end);
    if (end == given.speed || (*end && strcmp(end, "x") != 0) || !(plan->speed >= 1e-6) ||
        plan->speed > 1e6)
        return wf_cli_fail(cli, CLI_USAGE, "--speed is '%s'; it is a factor like 60x", given.speed);
    plan->warmup = given.warmup;
    if (!(given.warmup >= 0) || given.warmup >= 1)
        return wf_cli_fail(cli, CLI_USAGE, "--warmup is %g; give 0 or more, and less than 1",
                           given.warmup);
    int code = policies_read(cli, plan);
    if (code == CLI_OK)
        code = capacities_read(cli, plan);
    if (code == CLI_OK)
        code = hints_read(cli, plan);
    if (code == CLI_OK)
        code = wf_sim_tiers_read(cli, &given.tiers, plan);
    if (code == CLI_OK)
        code = objective_read(cli, plan);
    if (code == CLI_OK && given.stage && !plan->tier_count)
        return wf_cli_fail(cli, CLI_USAGE, "--stage-blocks needs a --tier to fetch from");
    if (code == CLI_OK && given.stage >= plan->capacities[0])
        return wf_cli_fail(cli, CLI_USAGE, "--stage-blocks is %llu; a pool of %u has no more left",
                           (unsigned long long)given.stage, plan->capacities[0]);
    plan->stage = (uint32_t)given.stage;
    plan->admit_always = given.admit && strcmp(given.admit, "always") == 0;
    if (code == CLI_OK)
        code = wf_sim_shares_read(cli, &given.shares, plan);
    if (code == CLI_OK && given.explain)
        code = wf_sim_explain_read(cli, given.explain, plan);
    return code == CLI_OK ? engine_read(cli, plan) : code;
}

/* --------------------------------------------------------------------------------------- a run */

struct progress {
    struct cli_progress bar;
    double done, of; /* the trace's reading, and each run, are one each */
    char note[64];
};

static void progress_step(void *context, double part)
{
    struct progress *progress = context;
    wf_cli_progress_step(&progress->bar, (progress->done + part) / progress->of, progress->note);
}

/* Each policy at one capacity. */
static enum weft_status capacity_run(struct sim_runs *runs, uint32_t capacity,
                                     struct progress *progress)
{
    const struct sim_plan *plan = runs->plan;
    struct wf_sim_hints_made made = {0};
    uint8_t *hints = plan->traced ? wf_sim_hints_of(runs->trace) : NULL;
    enum weft_status status = plan->traced && !hints ? WEFT_E_NO_MEMORY : WEFT_OK;
    if (plan->hinted)
        status = wf_sim_hints_make(runs->trace, capacity, &plan->hints, given.seed, &hints, &made);
    struct wf_share shares[WF_SIM_DOMAINS_MAX];
    struct wf_sim_log log = {wf_sim_explain_note, runs->story};
    for (int i = 0; i < plan->policy_count && status == WEFT_OK; i++) {
        struct sim_run *run = &runs->runs[runs->count];
        *run = (struct sim_run){plan->policies[i], capacity, .hints = made};
        snprintf(progress->note, sizeof progress->note, "%s, %u blocks", run->ops->name, capacity);
        struct wf_sim_plan one = {
            .ops = run->ops,
            .world = {.trace = runs->trace,
                      .capacity = capacity,
                      .seed = given.seed,
                      .hints = hints,
                      .speed = plan->speed,
                      .shares = plan->share_count ? shares : NULL,
                      .attention = wf_sim_model_attention(plan->model, runs->trace->block_tokens)},
            .model = plan->model,
            .replicas = plan->replicas,
            .warmup = (uint32_t)(plan->warmup * runs->trace->request_count),
            .tiers = plan->tiers,
            .tier_count = plan->tier_count,
            .stage = plan->stage,
            .admit_always = plan->admit_always,
            .by_cost = plan->by_cost,
            .log = runs->story ? &log : NULL,
        };
        wf_sim_shares_of(plan, runs->trace, capacity, shares, one.deadline_s);
        status = wf_sim_run(&one, &(struct wf_sim_progress){progress_step, progress}, &run->result);
        runs->count += status == WEFT_OK;
        progress->done++;
    }
    free(hints);
    return status;
}

/* What the user should know besides the figures. */
static void remarks(const struct sim_runs *runs)
{
    const struct wf_sim_trace *trace = runs->trace;
    if (trace->lines_malformed)
        fprintf(stderr, "weft sim: %llu malformed line%s skipped; the first: %s\n",
                (unsigned long long)trace->lines_malformed,
                trace->lines_malformed == 1 ? " was" : "s were", trace->first_error);
    if (trace->lines_early)
        fprintf(stderr,
                "weft sim: %llu request%s earlier than the line before; taken to come with it\n",
                (unsigned long long)trace->lines_early, trace->lines_early == 1 ? " is" : "s are");
    bool goes_by_them = false;
    for (int i = 0; i < runs->plan->policy_count; i++)
        goes_by_them |= runs->plan->policies[i] == &wf_sim_weft;
    if (given.hints && !goes_by_them)
        fputs("weft sim: --hints changed nothing: of the policies only weft goes by them\n",
              stderr);
    if (runs->plan->by_cost && !goes_by_them)
        fputs("weft sim: --objective changed nothing: of the policies only weft goes by it\n",
              stderr);
    for (int i = 0; i < runs->count; i += runs->plan->policy_count)
        if (runs->runs[i].hints.precision_missed)
            fprintf(stderr,
                    "weft sim: at %u blocks too few requests are not worth their room for such a "
                    "precision; all of them are said to be wanted\n",
                    runs->runs[i].capacity);
}

static int report(struct cli *cli, const struct sim_runs *runs)
{
    int code = CLI_OK;
    if (given.csv)
        code = wf_sim_csv_write(cli, runs, given.csv);
    if (given.svg && code == CLI_OK)
        code = wf_sim_svg_write(cli, runs, given.svg);
    if (code != CLI_OK)
        return code;
    if (runs->story)
        return wf_sim_explain_print(cli, runs->plan, runs->story);
    (cli->json ? wf_sim_json_print : wf_sim_table_print)(runs);
    remarks(runs);
    return CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE,
                           "'%s' is one word too many; the trace goes after --trace",
                           cli->words[1]);
    const char *word = cli->word_count ? cli->words[0] : "gen";
    bool cluster = strcmp(word, "cluster") == 0, gen = cli->word_count && !cluster;
    if (strcmp(word, "gen") != 0 && !cluster && (strpbrk(word, "./") || access(word, F_OK) == 0))
        return wf_cli_fail(cli, CLI_USAGE,
                           "'%s' is no word of it; a trace is given with --trace %s", word, word);
    if (cli->word_count && wf_cli_choose(cli) < 0)
        return CLI_USAGE;
    int code = options_settle(cli, gen);
    if (code == CLI_OK)
        code = cluster_options_check(cli, cluster);
    if (code != CLI_OK)
        return code;
    defaults_set(gen, cluster);
    if (gen)
        return wf_sim_gen_run(cli,
                              &(struct sim_gen_given){given.workload, given.format, given.hints,
                                                      given.output, given.requests, given.seed,
                                                      &given.tenants});
    struct sim_plan plan = {0};
    const struct sim_cluster_given nodes = {given.nodes, given.seed, given.link_gbps};
    code = plan_read(cli, &plan);
    if (code == CLI_OK && cluster)
        code = wf_sim_cluster_check(cli, &plan, &nodes);
    if (code != CLI_OK)
        return code;
    enum trace_format format = TRACE_UNSAID;
    if (given.format)
        wf_trace_format_of(given.format, &format);
    struct progress progress = {.of = 1 + plan.policy_count * plan.capacity_count,
                                .note = "reading the trace"};
    wf_cli_progress_init(&progress.bar, "sim");
    struct wf_sim_trace trace = {0};
    enum weft_status status = wf_sim_trace_load(given.trace, format, given.strict, given.requests,
                                                &(struct wf_sim_progress){progress_step, &progress},
                                                &trace);
    progress.done++;
    struct sim_runs runs = {.plan = &plan, .trace = &trace};
    runs.runs = wf_cli_alloc((size_t)(plan.policy_count * plan.capacity_count) * sizeof *runs.runs);
    if (status == WEFT_OK && plan.traced && !trace.hints)
        code = wf_cli_fail(cli, CLI_USAGE,
                           "--hints trace: no line of %s has a hint; leave it out, or have hints "
                           "made: --hints precision=0.8,recall=0.8",
                           plan.trace_name);
    if (status == WEFT_OK && code == CLI_OK)
        code = wf_sim_shares_check(cli, &plan, &trace);
    if (plan.question.asked && code == CLI_OK) {
        runs.story = wf_cli_alloc(sizeof *runs.story);
        *runs.story = (struct sim_story){.question = plan.question};
        code = status == WEFT_OK ? wf_sim_explain_begin(cli, &trace, runs.story) : CLI_OK;
    }
    for (int i = 0; i < plan.capacity_count && status == WEFT_OK && code == CLI_OK && !cluster; i++)
        status = capacity_run(&runs, plan.capacities[i], &progress);
    wf_cli_progress_fini(&progress.bar);
    if (status == WEFT_OK)
        code = code != CLI_OK ? code
               : cluster      ? wf_sim_cluster_print(cli, &plan, &trace, &nodes)
                              : report(cli, &runs);
    else
        code = wf_cli_fail(cli, status == WEFT_E_INVALID ? CLI_USAGE : CLI_SYSTEM, "%s",
                           wf_sim_error());
    free(runs.runs);
    free(runs.story);
    wf_sim_trace_fini(&trace);
    return code;
}

const struct cli_command wf_cmd_sim = {
    .name = "sim",
    .summary = "simulate eviction policies over a request trace",
    .synopsis = "--trace FILE",
    .about =
        "Takes the requests of a trace through simulated caches, several policies at several "
        "capacities in one run, and says how many blocks are hits: of each request, those from the "
        "first on that are there, up to the first that is not.  No node is needed.\n\n"
        "The policies: lru; lru_leaf (least recently used among the ends of chains, as vLLM and "
        "SGLang do); lfuda, arc, s3fifo, sieve, wtinylfu, gdsf and lhd, each from its paper; weft "
        "(by value, learned as it goes: what weftd does); belady (the bound: it knows the future; "
        "since who wants a block wants its parent first, no policy has more hits on the trace).  "
        "gap_closed is the part of the way from lru's hits to belady's, where both ran; with "
        "tiers, belady is the bound of the pool alone.\n\n"
        "Hints are made from the future: a request is worth its room when belady at the same "
        "capacity keeps more than half of its blocks, beyond the first, which everybody shares, "
        "from that request until each is wanted next.  Those that are worth it are said to be "
        "wanted with the probability recall; of the others so many that a share of precision of "
        "all that are said to be wanted are worth it; the rest are said to be done.  A hint is "
        "about the whole request.\n\n"
        "Times are modelled, not measured: prefill on --replicas servers of one queue and one "
        "cache, by the published shape of --model (llama-3-8b and qwen2.5-7b on 1 GPU, qwen2.5-32b "
        "on 4, llama-3-70b and qwen2.5-72b on 8, llama-3-405b on 16, deepseek-v3 on 32), H100 with "
        "989.4 TFLOP/s of which 40 % are used; a token costs more, the more tokens stand before "
        "it.  Hits are loaded over 64 GB/s a GPU of which 85 % are used, from the arrival of the "
        "request on, layer by layer, while prefill runs.  TTFT is queue, prefill of what was "
        "missed, and what of the loading that does not hide; where the queue grows from quarter to "
        "quarter of the requests, the answer says that the engines are overloaded.  bytes_moved is "
        "the KV loaded for hits and stored for the rest, without those that found no room: "
        "blocks_refused, of the policies that decide about requests (lru_leaf, weft).  "
        "blocks_per_second is the speed of the policy itself, on one core; with tiers, of all of "
        "it.\n\n"
        "What weft keeps blocks for is the --objective: hits, or ttft, where a block counts by the "
        "seconds that it takes to have it again: to compute it where it stands, or, with --tier, "
        "to read it from below, where a copy lies or is likely to.  ttft gives a few hits of short "
        "prompts for those of long ones: the longest waits get shorter, and the others a little "
        "longer.\n\n"
        "--tier says what lies below the pool, nearest first: KIND:BLOCKS, and what differs from "
        "the kind behind it, with commas: name=, read-us=, read-gbps=, write-gbps=, dwpd=; or all "
        "of it so: kind=, capacity-blocks=, and these.  The kinds: cxl (1 us, 26 and 22 GB/s), "
        "nvme (90 us, 14 and 6 GB/s), qlc (110 us, 7 and 3.3 GB/s), s3 (150 ms, 3.1 GB/s).  dwpd= "
        "is a budget: so many drive writes a day, earned by the second, an hour's at the most.  "
        "Without, or with 0, writes are not limited, as in weftd without tiers[].dwpd; data sheets "
        "say 1 for most NVMe drives and about 0.5 for QLC.  When a budget refused blocks, the "
        "answer says so.  A block that leaves the pool goes to the tier where most is left of what "
        "it is expected to save, or nowhere; the answer counts why (decided): admitted, chain "
        "(what extends it is below), once (wanted once, and little likely to be wanted again), "
        "slower (computing it is sooner), write (what writing takes from reads), wear (the "
        "device's writes are better spent), room (what must go for it is worth more), closed "
        "(1,024 blocks are on their way down).  A copy stays below when it is read.  Of what a "
        "request finds below as much is loaded as makes it sooner done.  With --stage-blocks a "
        "part of the pool holds what is fetched ahead for sessions whose hint says when they come "
        "back (\"returns_in\", in the trace, --hints trace).  docs/POLICY.md has the rules.\n\n"
        "Requests may be of several domains (\"domain\" in the trace, a name, and \"priority\"); "
        "two domains share no block.  With --share each has its part of the pool, by lru_leaf or "
        "weft: weight= (1) by which what the floors leave is dealt, floor= and ceiling= in blocks "
        "or, with %, of the pool, priority= (the trace's), deadline-ms= of a first token.  What a "
        "domain has beyond its due is lent, and goes first when another wants its own: that of the "
        "lowest priority, then of who has borrowed most.  A domain whose queue leaves too little "
        "of its deadline counts one priority higher meanwhile.\n\n"
        "--explain runs one policy at one capacity and says why, in words and with the numbers: "
        "what the policy expected of the block that left the pool, why it was written below or "
        "refused, why a part of a request was not stored, or computed though it was there, when a "
        "session's blocks were fetched ahead; and when the block was really wanted again.  Exit "
        "status 1: nothing happened there.\n\n"
        "cluster takes the trace through --nodes nodes, each with an even part of the capacity, "
        "the policy weft and an engine, over links of --link-gbps: as one big node that has it "
        "all; isolated, a request each in turn, and by affinity (the node that has most of it, if "
        "that is half, else the idlest); and as one fabric, where the router of weftd "
        "(docs/CLUSTER.md) says which node a request goes to, and what of its blocks is fetched "
        "from another.  A fetched block is a hit; blocks are there, and known of, from the "
        "arrival of the request that brings them.  route_us_p50 is measured, all else is "
        "simulated.\n\n"
        "The same seed and trace give the same hits.\n\n"
        "gen makes traces.  Sessions arrive as a Poisson process; a turn's input is all of the "
        "turn before, its output, and what is new; up to 131,072 tokens.  Lengths (in tokens) and "
        "waits are log-normal, given here as median and deviation of the logarithm; which shared "
        "prompt or document it is, is drawn by Zipf's law.\n\n"
        "chat: 1 session a second; 20 system prompts (exponent 1) of 600, 0.8; first message 500, "
        "1.5, others 120, 1.2; output 280, 0.8; another turn with 0.72, after 60 s, 1.2, or with "
        "0.05 after 1800 s, 1.\n\n"
        "agentic: a session each 4 seconds; 8 prompts with tools (exponent 1) of 8000, 0.5; the "
        "task 800, 1.2; what a tool says 700, 1.3; output 150, 0.9; another step with 0.93, after "
        "5 s, 1.3, or with 0.06 after 180 s, 1.2.\n\n"
        "rag: 3 sessions a second; 4 prompts (exponent 0.8) of 700, 0.4; 3 of 20,000 documents "
        "(exponent 1) of 1800, 0.7; question 60, 0.7; output 220, 0.7; another question with 0.15, "
        "after 45 s, 1.\n\n"
        "batch: a job each 50 seconds, with a prompt of its own of 2500, 0.7 and 150, 0.8 items of "
        "1200, 0.9 that come 0.2 s, 0.5 apart; output 180, 0.8; nothing comes back.\n\n"
        "api: calls by programs, 4 a second, which swing by 0.7 of that up and down in 20 minutes; "
        "300 templates (exponent 1.1) of 1200, 0.9, of which each falls by a rank in 5 minutes, "
        "the last becoming the first; 0.35 of the calls have a text of that length of their own "
        "instead; then 250, 1.3; output 150, 1; another call with 0.08, 80, 1 more after "
        "15 s, 1.2.\n\n"
        "With --hints, gen writes what sessions will do into its lines: \"wanted\" when another "
        "turn comes, \"done\" when not, each with the probability recall; of what is left so many "
        "say the other that a share of precision of each kind is right; the rest say nothing.  "
        "Where too few are left for that, as where nearly every turn goes on, the answer says how "
        "many are right.  \"wanted\" has \"returns_in\", the seconds until then (where none comes: "
        "that would have been drawn), times a log-normal of median 1 and deviation 0.3.  With "
        "--tenant each session, or group of a batch, is of one of several domains, by chance in "
        "proportion to their parts.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
