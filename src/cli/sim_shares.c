/* SPDX-License-Identifier: Apache-2.0
 *
 * What `weft sim` is told of domains: --share NAME:KEY=VALUE,... of the pool, and --tenant
 * NAME:PART[:PRIORITY] for the traces that it makes; and what became of each.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sim.h"

#define VALUE_MAX 1e9

static bool number_read(const char *text, const char *unit, double *out)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || strcmp(end, unit) != 0 || !(value >= 0) || value > VALUE_MAX)
        return false;
    *out = value;
    return true;
}

/* The name before a colon; false: there is none, or none that a trace could have. */
static bool name_read(const char *text, char *out, const char **rest)
{
    size_t length = strcspn(text, ":");
    for (size_t i = 0; i < length; i++)
        if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
            return false;
    if (!length || length >= TRACE_DOMAIN_MAX || !text[length])
        return false;
    snprintf(out, TRACE_DOMAIN_MAX, "%.*s", (int)length, text);
    *rest = text + length + 1;
    return true;
}

/* ------------------------------------------------------------------------------------- --share */

static bool room_read(const char *text, struct sim_room *out)
{
    out->given = true;
    out->percent = strchr(text, '%') != NULL;
    return number_read(text, out->percent ? "%" : "", &out->value) &&
           (!out->percent || out->value <= 100);
}

static bool key_set(const char *word, struct sim_share *share)
{
    double value;
    if (strncmp(word, "floor=", 6) == 0)
        return room_read(word + 6, &share->floor);
    if (strncmp(word, "ceiling=", 8) == 0)
        return room_read(word + 8, &share->ceiling);
    if (strncmp(word, "weight=", 7) == 0)
        return number_read(word + 7, "", &share->weight);
    if (strncmp(word, "deadline-ms=", 12) == 0 && number_read(word + 12, "", &value)) {
        share->deadline_s = 1e-3 * value;
        return true;
    }
    if (strncmp(word, "priority=", 9) == 0 && number_read(word + 9, "", &value)) {
        share->priority = (uint32_t)value;
        share->prioritized = true;
        return true;
    }
    return false;
}

int wf_sim_shares_read(struct cli *cli, const struct cli_list *list, struct sim_plan *plan)
{
    char word[128];
    if (list->count > WF_SIM_DOMAINS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--share is given more than %d times",
                           WF_SIM_DOMAINS_MAX);
    for (int i = 0; i < list->count; i++) {
        struct sim_share *share = &plan->shares[plan->share_count];
        const char *rest;
        *share = (struct sim_share){.weight = 1};
        if (!name_read(list->items[i], share->name, &rest))
            return wf_cli_fail(cli, CLI_USAGE,
                               "--share is '%s'; give DOMAIN:weight=1,floor=10%%, for example",
                               list->items[i]);
        while (wf_sim_word_next(&rest, word, sizeof word))
            if (!key_set(word, share))
                return wf_cli_fail(cli, CLI_USAGE,
                                   "--share has '%s'; it knows weight=, floor= and ceiling= "
                                   "(blocks, or up to 100%% of the pool with %%), priority=, "
                                   "deadline-ms=",
                                   word);
        for (int k = 0; k < plan->share_count; k++)
            if (strcmp(plan->shares[k].name, share->name) == 0)
                return wf_cli_fail(cli, CLI_USAGE, "--share names %s twice", share->name);
        plan->share_count++;
    }
    for (int i = 0; plan->share_count && i < plan->policy_count; i++)
        if (!plan->policies[i]->held)
            return wf_cli_fail(cli, CLI_USAGE,
                               "%s knows no domains; with --share, --policy is lru_leaf, weft or "
                               "both",
                               plan->policies[i]->name);
    return CLI_OK;
}

static uint64_t room_of(const struct sim_room *room, uint32_t capacity)
{
    return (uint64_t)(room->percent ? room->value / 100 * capacity : room->value);
}

int wf_sim_shares_check(struct cli *cli, const struct sim_plan *plan,
                        const struct wf_sim_trace *trace)
{
    for (int i = 0; i < plan->share_count; i++) {
        uint32_t k = 0;
        while (k < trace->domain_count && strcmp(trace->domains[k].name, plan->shares[i].name) != 0)
            k++;
        if (k == trace->domain_count)
            return wf_cli_fail(cli, CLI_USAGE,
                               "--share: no request of %s is of the domain '%s'; the first is of "
                               "'%s'",
                               plan->trace_name, plan->shares[i].name, trace->domains[0].name);
    }
    for (int c = 0; plan->share_count && c < plan->capacity_count; c++) {
        uint64_t promised = 0;
        for (int i = 0; i < plan->share_count; i++)
            promised += room_of(&plan->shares[i].floor, plan->capacities[c]);
        if (promised > plan->capacities[c])
            return wf_cli_fail(cli, CLI_USAGE,
                               "--share: the floors add up to %llu blocks, and the pool has %u; "
                               "lower them to 100 %% in all",
                               (unsigned long long)promised, plan->capacities[c]);
    }
    return CLI_OK;
}

void wf_sim_shares_of(const struct sim_plan *plan, const struct wf_sim_trace *trace,
                      uint32_t capacity, struct wf_share *out, double *deadline_s)
{
    for (uint32_t i = 0; i < trace->domain_count; i++) {
        out[i] = (struct wf_share){.weight = 1,
                                   .ceiling = UINT64_MAX,
                                   .class = trace->domains[i].priority};
        deadline_s[i] = 0;
        for (int k = 0; k < plan->share_count; k++) {
            const struct sim_share *share = &plan->shares[k];
            if (strcmp(share->name, trace->domains[i].name) != 0)
                continue;
            out[i].weight = share->weight;
            out[i].floor = room_of(&share->floor, capacity);
            if (share->ceiling.given)
                out[i].ceiling = room_of(&share->ceiling, capacity);
            if (share->prioritized)
                out[i].class = share->priority;
            deadline_s[i] = share->deadline_s;
        }
    }
}

/* ------------------------------------------------------------------------------------ --tenant */

int wf_sim_tenants_read(struct cli *cli, const struct cli_list *list, struct wf_sim_tenant *out,
                        int *count)
{
    *count = 0;
    if (list->count > WF_SIM_DOMAINS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--tenant is given more than %d times",
                           WF_SIM_DOMAINS_MAX);
    for (int i = 0; i < list->count; i++) {
        struct wf_sim_tenant *tenant = &out[*count];
        const char *rest, *colon;
        char part[32];
        double priority = 0;
        bool good = name_read(list->items[i], tenant->name, &rest);
        colon = good ? strchr(rest, ':') : NULL;
        if (good)
            snprintf(part, sizeof part, "%.*s", colon ? (int)(colon - rest) : (int)strlen(rest),
                     rest);
        good = good && number_read(part, "", &tenant->part) && tenant->part > 0 &&
               (!colon || number_read(colon + 1, "", &priority));
        if (!good)
            return wf_cli_fail(cli, CLI_USAGE,
                               "--tenant is '%s'; give NAME:PART or NAME:PART:PRIORITY, like "
                               "chat:0.7:2",
                               list->items[i]);
        tenant->priority = (uint32_t)priority;
        for (int k = 0; k < *count; k++)
            if (strcmp(out[k].name, tenant->name) == 0)
                return wf_cli_fail(cli, CLI_USAGE, "--tenant names %s twice", tenant->name);
        ++*count;
    }
    return CLI_OK;
}

/* -------------------------------------------------------------------------------------- report */

static double rate_of(const struct wf_sim_domain_result *domain)
{
    return domain->blocks_requested ? (double)domain->blocks_hit / (double)domain->blocks_requested
                                    : 0;
}

json_t *wf_sim_domains_json(const struct sim_runs *runs, const struct sim_run *run)
{
    json_t *list = json_array();
    struct wf_share shares[WF_SIM_DOMAINS_MAX];
    double deadline_s[WF_SIM_DOMAINS_MAX];
    wf_sim_shares_of(runs->plan, runs->trace, run->capacity, shares, deadline_s);
    for (uint32_t i = 0; i < runs->trace->domain_count; i++) {
        const struct wf_sim_domain_result *domain = &run->result.domain[i];
        json_t *out = json_object();
        wf_cli_json_set(out, "name", json_string(runs->trace->domains[i].name));
        wf_cli_json_set(out, "requests", json_integer((json_int_t)domain->requests));
        wf_cli_json_set(out, "blocks_requested",
                        json_integer((json_int_t)domain->blocks_requested));
        wf_cli_json_set(out, "blocks_hit", json_integer((json_int_t)domain->blocks_hit));
        wf_cli_json_set(out, "hit_rate", wf_cli_json_real(rate_of(domain), 6));
        wf_cli_json_set(out, "ttft_ms_mean", wf_cli_json_real(domain->ttft_ms_mean, 3));
        wf_cli_json_set(out, "ttft_ms_p50", wf_cli_json_real(domain->ttft_ms_p50, 3));
        wf_cli_json_set(out, "ttft_ms_p99", wf_cli_json_real(domain->ttft_ms_p99, 3));
        if (runs->plan->share_count) {
            wf_cli_json_set(out, "floor_blocks", json_integer((json_int_t)shares[i].floor));
            wf_cli_json_set(out, "priority", json_integer((json_int_t)shares[i].class));
            wf_cli_json_set(out, "blocks_held_mean", wf_cli_json_real(domain->held_mean, 1));
            wf_cli_json_set(out, "blocks_given", json_integer((json_int_t)domain->gave));
        }
        if (deadline_s[i] > 0)
            wf_cli_json_set(out, "in_time", json_integer((json_int_t)domain->in_time));
        json_array_append_new(list, out);
    }
    return list;
}

void wf_sim_domains_print(const struct sim_runs *runs, const struct sim_run *run)
{
    for (uint32_t i = 0; i < runs->trace->domain_count; i++) {
        const struct wf_sim_domain_result *domain = &run->result.domain[i];
        printf("  %-10s %6.2f %%  domain %s: TTFT mean %.0f ms, p50 %.0f, p99 %.0f", "",
               100 * rate_of(domain), runs->trace->domains[i].name, domain->ttft_ms_mean,
               domain->ttft_ms_p50, domain->ttft_ms_p99);
        if (runs->plan->share_count)
            printf("; %.0f blocks held, %llu given", domain->held_mean,
                   (unsigned long long)domain->gave);
        putchar('\n');
    }
}

void wf_sim_domains_csv_head(const struct wf_sim_trace *trace, FILE *file)
{
    for (uint32_t i = 0; trace->domain_count > 1 && i < trace->domain_count; i++) {
        const char *name = trace->domains[i].name;
        fprintf(file, ",%s_hit_rate,%s_ttft_ms_p99,%s_blocks_held_mean", name, name, name);
    }
}

void wf_sim_domains_csv(const struct wf_sim_trace *trace, const struct sim_run *run, FILE *file)
{
    for (uint32_t i = 0; trace->domain_count > 1 && i < trace->domain_count; i++) {
        const struct wf_sim_domain_result *domain = &run->result.domain[i];
        fprintf(file, ",%.6f,%.3f,%.1f", rate_of(domain), domain->ttft_ms_p99, domain->held_mean);
    }
}
