/* SPDX-License-Identifier: Apache-2.0
 *
 * What a simulation says: JSON, a table, CSV, a plot.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "cli/sim.h"
#include "sim/plot.h"

double wf_sim_hit_rate(const struct sim_run *run)
{
    return run->result.blocks_requested
               ? (double)run->result.blocks_hit / (double)run->result.blocks_requested
               : 0;
}

static const struct sim_run *run_find(const struct sim_runs *runs, uint32_t capacity,
                                      const struct wf_sim_cache_ops *ops)
{
    for (int i = 0; i < runs->count; i++)
        if (runs->runs[i].ops == ops && runs->runs[i].capacity == capacity)
            return &runs->runs[i];
    return NULL;
}

bool wf_sim_gap_closed(const struct sim_runs *runs, const struct sim_run *run, double *out)
{
    const struct sim_run *low = run_find(runs, run->capacity, &wf_sim_lru);
    const struct sim_run *high = run_find(runs, run->capacity, &wf_sim_belady);
    if (!low || !high || low->result.blocks_hit == high->result.blocks_hit)
        return false;
    *out = (wf_sim_hit_rate(run) - wf_sim_hit_rate(low)) /
           (wf_sim_hit_rate(high) - wf_sim_hit_rate(low));
    return true;
}

/* ---------------------------------------------------------------------------------------- JSON */

static json_t *hints_json(const struct sim_runs *runs, const struct sim_run *run)
{
    const struct wf_sim_hints_made *made = &run->hints;
    json_t *out = json_object();
    double right = (double)made->wanted_true;
    wf_cli_json_set(out, "wanted", json_integer((json_int_t)made->wanted));
    wf_cli_json_set(out, "worth_keeping", json_integer((json_int_t)made->requests_true));
    wf_cli_json_set(out, "precision",
                    wf_cli_json_real(made->wanted ? right / (double)made->wanted : 0, 4));
    wf_cli_json_set(out, "recall",
                    wf_cli_json_real(made->requests_true ? right / (double)made->requests_true : 0,
                                     4));
    wf_cli_json_set(out, "of_requests", json_integer(runs->trace->request_count));
    return out;
}

static json_t *run_json(const struct sim_runs *runs, const struct sim_run *run)
{
    const struct wf_sim_result *result = &run->result;
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"requests", result->requests},
                   {"blocks_requested", result->blocks_requested},
                   {"blocks_hit", result->blocks_hit},
                   {"blocks_refused", result->blocks_refused}};
    json_t *out = json_object();
    wf_cli_json_set(out, "policy", json_string(run->ops->name));
    wf_cli_json_set(out, "capacity_blocks", json_integer(run->capacity));
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        wf_cli_json_set(out, numbers[i].name, json_integer((json_int_t)numbers[i].value));
    double gap;
    wf_cli_json_set(out, "hit_rate", wf_cli_json_real(wf_sim_hit_rate(run), 6));
    if (wf_sim_gap_closed(runs, run, &gap))
        wf_cli_json_set(out, "gap_closed", wf_cli_json_real(gap, 4));
    wf_cli_json_set(out, "ttft_ms_mean", wf_cli_json_real(result->ttft_ms_mean, 3));
    wf_cli_json_set(out, "ttft_ms_p50", wf_cli_json_real(result->ttft_ms_p50, 3));
    wf_cli_json_set(out, "ttft_ms_p95", wf_cli_json_real(result->ttft_ms_p95, 3));
    wf_cli_json_set(out, "ttft_ms_p99", wf_cli_json_real(result->ttft_ms_p99, 3));
    wf_cli_json_set(out, "decode_ms_mean", wf_cli_json_real(result->decode_ms_mean, 3));
    wf_cli_json_set(out, "prefill_tokens", json_integer((json_int_t)result->prefill_tokens));
    wf_cli_json_set(out, "prefill_tokens_saved",
                    json_integer((json_int_t)result->prefill_tokens_saved));
    json_t *moved = json_object();
    wf_cli_json_set(moved, "loaded", json_integer((json_int_t)result->bytes_loaded));
    wf_cli_json_set(moved, "stored", json_integer((json_int_t)result->bytes_stored));
    wf_cli_json_set(out, "bytes_moved", moved);
    if (runs->plan->tier_count)
        wf_cli_json_set(out, "below", wf_sim_tiers_json(runs->plan, result));
    if (runs->trace->domain_count > 1)
        wf_cli_json_set(out, "domains", wf_sim_domains_json(runs, run));
    if (runs->plan->hinted)
        wf_cli_json_set(out, "hints", hints_json(runs, run));
    wf_cli_json_set(out, "blocks_per_second", wf_cli_json_real(result->blocks_per_second, 0));
    return out;
}

void wf_sim_json_print(const struct sim_runs *runs)
{
    if (runs->count == 1) {
        wf_cli_json_print(run_json(runs, &runs->runs[0]));
        return;
    }
    json_t *list = json_array(), *out = json_object();
    for (int i = 0; i < runs->count; i++)
        json_array_append_new(list, run_json(runs, &runs->runs[i]));
    wf_cli_json_set(out, "runs", list);
    wf_cli_json_print(out);
}

/* -------------------------------------------------------------------------------------- people */

/* Whose times say more of the trace's length than of the policy. */
static void overload_print(const struct sim_run *first, int count)
{
    int named = 0;
    for (const struct sim_run *run = first; run < first + count; run++)
        if (run->result.overloaded)
            printf("%s%s", named++ ? ", " : "  overloaded, by ", run->ops->name);
    if (named)
        printf(": the queue grows from the first request to the last, and TTFT with it; give more "
               "--replicas\n");
}

static void capacity_print(const struct sim_runs *runs, const struct sim_run *first, int count)
{
    char size[32];
    uint64_t block = wf_sim_model_kv_bytes(runs->plan->model) * runs->trace->block_tokens;
    printf("\n%u blocks, %s\n", first->capacity,
           wf_cli_size(first->capacity * block, size, sizeof size));
    printf("  %-10s %8s  %-20s %10s %12s %10s %10s %11s\n", "policy", "hit rate", "", "gap closed",
           "TTFT mean ms", "p50", "p99", "blocks/s");
    for (const struct sim_run *run = first; run < first + count; run++) {
        char bar[4 * 20 + 1], closed[16] = "";
        double gap;
        wf_cli_bar(wf_sim_hit_rate(run), 20, bar);
        if (wf_sim_gap_closed(runs, run, &gap))
            snprintf(closed, sizeof closed, "%.1f %%", 100 * gap);
        printf("  %-10s %6.2f %%  %s %10s %12.0f %10.0f %10.0f %9.2f M\n", run->ops->name,
               100 * wf_sim_hit_rate(run), bar, closed, run->result.ttft_ms_mean,
               run->result.ttft_ms_p50, run->result.ttft_ms_p99,
               run->result.blocks_per_second / 1e6);
        if (run->result.blocks_refused)
            printf("  %-10s %8s  %llu block%s found no room and %s not stored\n", "", "",
                   (unsigned long long)run->result.blocks_refused,
                   wf_cli_s(run->result.blocks_refused),
                   run->result.blocks_refused == 1 ? "was" : "were");
        if (runs->plan->tier_count)
            wf_sim_tiers_print(runs->plan, run);
        if (runs->trace->domain_count > 1)
            wf_sim_domains_print(runs, run);
    }
    overload_print(first, count);
    if (runs->plan->hinted)
        printf("  hints: %llu of %u requests are said to be wanted, %llu of these rightly; %llu "
               "are worth their room\n",
               (unsigned long long)first->hints.wanted, runs->trace->request_count,
               (unsigned long long)first->hints.wanted_true,
               (unsigned long long)first->hints.requests_true);
}

void wf_sim_table_print(const struct sim_runs *runs)
{
    const struct sim_plan *plan = runs->plan;
    const struct wf_sim_result *any = &runs->runs[0].result;
    printf("%s: %llu request%s, %llu blocks of %u tokens wanted; %u different ones in all of it\n",
           plan->trace_name, (unsigned long long)any->requests, wf_cli_s(any->requests),
           (unsigned long long)any->blocks_requested, runs->trace->block_tokens,
           runs->trace->block_count);
    printf("%s on %u GPU%s, %u replica%s, modelled\n", plan->model->name, plan->model->gpus,
           wf_cli_s(plan->model->gpus), plan->replicas, wf_cli_s(plan->replicas));
    for (int i = 0; i < runs->count; i += plan->policy_count)
        capacity_print(runs, &runs->runs[i], plan->policy_count);
}

/* --------------------------------------------------------------------------------------- files */

int wf_sim_csv_write(struct cli *cli, const struct sim_runs *runs, const char *path)
{
    struct cli_file output = {.path = path, .in_place = true};
    FILE *file = wf_cli_file_open(cli, &output);
    if (!file)
        return CLI_SYSTEM;
    fputs("policy,capacity_blocks,requests,blocks_requested,blocks_hit,hit_rate,gap_closed,"
          "ttft_ms_mean,ttft_ms_p50,ttft_ms_p95,ttft_ms_p99,prefill_tokens_saved,bytes_loaded,"
          "bytes_stored,blocks_per_second,blocks_refused",
          file);
    wf_sim_tiers_csv_head(runs->plan, file);
    wf_sim_domains_csv_head(runs->trace, file);
    fputc('\n', file);
    for (int i = 0; i < runs->count; i++) {
        const struct sim_run *run = &runs->runs[i];
        const struct wf_sim_result *result = &run->result;
        double gap;
        fprintf(file, "%s,%u,%llu,%llu,%llu,%.6f,", run->ops->name, run->capacity,
                (unsigned long long)result->requests, (unsigned long long)result->blocks_requested,
                (unsigned long long)result->blocks_hit, wf_sim_hit_rate(run));
        if (wf_sim_gap_closed(runs, run, &gap))
            fprintf(file, "%.4f", gap);
        fprintf(file, ",%.3f,%.3f,%.3f,%.3f,%llu,%llu,%llu,%.0f,%llu", result->ttft_ms_mean,
                result->ttft_ms_p50, result->ttft_ms_p95, result->ttft_ms_p99,
                (unsigned long long)result->prefill_tokens_saved,
                (unsigned long long)result->bytes_loaded, (unsigned long long)result->bytes_stored,
                result->blocks_per_second, (unsigned long long)result->blocks_refused);
        wf_sim_tiers_csv(runs->plan, result, file);
        wf_sim_domains_csv(runs->trace, run, file);
        fputc('\n', file);
    }
    return wf_cli_file_close(cli, &output, file, true);
}

int wf_sim_svg_write(struct cli *cli, const struct sim_runs *runs, const char *path)
{
    const struct sim_plan *plan = runs->plan;
    struct wf_sim_plot_point points[SIM_POLICIES_MAX][SIM_CAPACITIES_MAX];
    struct wf_sim_plot_line lines[SIM_POLICIES_MAX];
    for (int p = 0; p < plan->policy_count; p++) {
        const struct wf_sim_cache_ops *ops = plan->policies[p];
        for (int c = 0; c < plan->capacity_count; c++)
            points[p][c] = (struct wf_sim_plot_point){plan->capacities[c],
                                                      wf_sim_hit_rate(
                                                          &runs->runs[c * plan->policy_count + p])};
        lines[p] = (struct wf_sim_plot_line){
            .name = ops->name,
            .points = points[p],
            .count = (size_t)plan->capacity_count,
            .kind = ops == &wf_sim_belady            ? WF_SIM_PLOT_BOUND
                    : strcmp(ops->name, "weft") == 0 ? WF_SIM_PLOT_STRONG
                                                     : WF_SIM_PLOT_PLAIN,
        };
    }
    struct cli_file output = {.path = path, .in_place = true};
    FILE *file = wf_cli_file_open(cli, &output);
    if (!file)
        return CLI_SYSTEM;
    char x_label[64];
    snprintf(x_label, sizeof x_label, "capacity, blocks of %u tokens", runs->trace->block_tokens);
    wf_sim_plot_write(&(struct wf_sim_plot){.title = plan->trace_name,
                                            .x_label = x_label,
                                            .y_label = plan->tier_count
                                                           ? "blocks hit, tiers included"
                                                           : "blocks hit, of those wanted",
                                            .lines = lines,
                                            .count = (size_t)plan->policy_count},
                      file);
    return wf_cli_file_close(cli, &output, file, true);
}
