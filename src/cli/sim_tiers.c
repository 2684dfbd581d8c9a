/* SPDX-License-Identifier: Apache-2.0
 *
 * What `weft sim` is told of tiers: --tier KIND:BLOCKS[,KEY=VALUE]... with what differs from the
 * kind's, or KEY=VALUE,... alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sim.h"

#define VALUE_MAX 1e12

bool wf_sim_word_next(const char **list, char *word, size_t capacity)
{
    if (!**list)
        return false;
    size_t length = strcspn(*list, ",");
    snprintf(word, capacity, "%.*s", (int)length, *list);
    *list += length;
    *list += **list == ',';
    return true;
}

static bool number_read(const char *text, double least, double most, double *out)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (errno || end == text || *end || !(value >= least) || value > most)
        return false;
    *out = value;
    return true;
}

static int kind_set(struct cli *cli, const char *name, struct wf_sim_tier *tier)
{
    const struct wf_sim_tier *kind = wf_sim_tier_kind(name);
    char names[128] = "";
    for (size_t i = 0, used = 0; wf_sim_tier_kinds[i].name[0] && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 wf_sim_tier_kinds[i].name);
    if (!kind)
        return wf_cli_fail(cli, CLI_USAGE, "--tier: there is no kind '%s'; there are %s", name,
                           names);
    uint32_t capacity = tier->capacity;
    *tier = *kind;
    tier->capacity = capacity;
    return CLI_OK;
}

static int capacity_set(struct cli *cli, const char *text, struct wf_sim_tier *tier)
{
    double blocks;
    if (!number_read(text, 1, SIM_CAPACITY_MAX, &blocks))
        return wf_cli_fail(cli, CLI_USAGE, "--tier has '%s' blocks; give a number from 1 to %u",
                           text, SIM_CAPACITY_MAX);
    tier->capacity = (uint32_t)blocks;
    return CLI_OK;
}

static int key_set(struct cli *cli, const char *word, struct wf_sim_tier *tier)
{
    const struct {
        const char *key;
        double *to, unit, least;
    } numbers[] = {{"read-us=", &tier->latency_s, 1e-6, 0},
                   {"read-gbps=", &tier->read_bytes_s, 1e9, 1e-6},
                   {"write-gbps=", &tier->write_bytes_s, 1e9, 1e-6},
                   {"dwpd=", &tier->drive_writes, 1, 0}};
    if (strncmp(word, "capacity-blocks=", 16) == 0)
        return capacity_set(cli, word + 16, tier);
    if (strncmp(word, "name=", 5) == 0) {
        if (!word[5] || strlen(word + 5) >= sizeof tier->name)
            return wf_cli_fail(cli, CLI_USAGE, "--tier: a name has 1 to %zu letters, '%s' has not",
                               sizeof tier->name - 1, word + 5);
        snprintf(tier->name, sizeof tier->name, "%s", word + 5);
        return CLI_OK;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        size_t length = strlen(numbers[i].key);
        double value;
        if (strncmp(word, numbers[i].key, length) != 0)
            continue;
        if (!number_read(word + length, numbers[i].least, VALUE_MAX, &value))
            return wf_cli_fail(cli, CLI_USAGE, "--tier has '%s'; give a number of %g or more", word,
                               numbers[i].least);
        *numbers[i].to = value * numbers[i].unit;
        return CLI_OK;
    }
    return wf_cli_fail(cli, CLI_USAGE,
                       "--tier has '%s'; it is KIND:BLOCKS, or kind=, name=, capacity-blocks=, "
                       "read-us=, read-gbps=, write-gbps=, dwpd=, with commas between them",
                       word);
}

static int tier_read(struct cli *cli, const char *text, struct wf_sim_tier *tier)
{
    char word[128];
    *tier = (struct wf_sim_tier){0};
    int code = CLI_OK;
    const char *behind = text;
    if (text[strcspn(text, ":=,")] == ':' && wf_sim_word_next(&behind, word, sizeof word)) {
        char *colon = strchr(word, ':');
        *colon = '\0';
        code = kind_set(cli, word, tier);
        code = code == CLI_OK ? capacity_set(cli, colon + 1, tier) : code;
        text = behind;
    }
    /* The kind first, wherever it stands: what else is given goes above it. */
    for (const char *list = text; code == CLI_OK && wf_sim_word_next(&list, word, sizeof word);)
        if (strncmp(word, "kind=", 5) == 0)
            code = kind_set(cli, word + 5, tier);
    for (const char *list = text; code == CLI_OK && wf_sim_word_next(&list, word, sizeof word);)
        if (strncmp(word, "kind=", 5) != 0)
            code = key_set(cli, word, tier);
    if (code == CLI_OK && (!tier->capacity || !(tier->read_bytes_s > 0) ||
                           !(tier->write_bytes_s > 0) || !tier->name[0]))
        code = wf_cli_fail(cli, CLI_USAGE,
                           "--tier %s says too little; give a kind and capacity-blocks, or name, "
                           "capacity-blocks, read-gbps and write-gbps",
                           text);
    return code;
}

int wf_sim_tiers_read(struct cli *cli, const struct cli_list *list, struct sim_plan *plan)
{
    if (list->count > WF_SIM_TIERS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--tier is given more than %d times", WF_SIM_TIERS_MAX);
    for (int i = 0; i < list->count; i++) {
        int code = tier_read(cli, list->items[i], &plan->tiers[i]);
        if (code != CLI_OK)
            return code;
        for (int k = 0; k < i; k++)
            if (strcmp(plan->tiers[i].name, plan->tiers[k].name) == 0)
                return wf_cli_fail(cli, CLI_USAGE,
                                   "--tier names %s twice; give one name=", plan->tiers[i].name);
        plan->tier_count++;
    }
    return CLI_OK;
}

/* --------------------------------------------------------------------------------------- report */

static json_t *tier_json(const struct sim_plan *plan, const struct wf_sim_result *result, int i)
{
    const struct wf_sim_tier_result *tier = &result->below.tier[i];
    double requested = result->blocks_requested ? (double)result->blocks_requested : 1;
    json_t *out = json_object();
    wf_cli_json_set(out, "name", json_string(plan->tiers[i].name));
    wf_cli_json_set(out, "capacity_blocks", json_integer(plan->tiers[i].capacity));
    wf_cli_json_set(out, "blocks_hit", json_integer((json_int_t)tier->blocks_hit));
    wf_cli_json_set(out, "hit_rate", wf_cli_json_real((double)tier->blocks_hit / requested, 6));
    wf_cli_json_set(out, "blocks_written", json_integer((json_int_t)tier->blocks_written));
    wf_cli_json_set(out, "blocks_evicted", json_integer((json_int_t)tier->blocks_evicted));
    wf_cli_json_set(out, "bytes_read", json_integer((json_int_t)tier->bytes_read));
    wf_cli_json_set(out, "bytes_written", json_integer((json_int_t)tier->bytes_written));
    wf_cli_json_set(out, "written_a_day", wf_cli_json_real(tier->written_a_day, 0));
    if (tier->budget_a_day > 0) {
        wf_cli_json_set(out, "budget_a_day", wf_cli_json_real(tier->budget_a_day, 0));
        wf_cli_json_set(out, "budget_used",
                        wf_cli_json_real(tier->written_a_day / tier->budget_a_day, 4));
    }
    return out;
}

static json_t *decided_json(const struct wf_sim_below_result *below)
{
    json_t *out = json_object();
    for (int i = 0; i < WF_ADMIT_RULES; i++)
        wf_cli_json_set(out, wf_admit_rule_name((enum wf_admit_rule)i),
                        json_integer((json_int_t)below->decided[i]));
    return out;
}

json_t *wf_sim_tiers_json(const struct sim_plan *plan, const struct wf_sim_result *result)
{
    const struct wf_sim_below_result *below = &result->below;
    double requested = result->blocks_requested ? (double)result->blocks_requested : 1;
    json_t *out = json_object(), *tiers = json_array();
    wf_cli_json_set(out, "pool_blocks_hit", json_integer((json_int_t)below->pool_hit));
    wf_cli_json_set(out, "pool_hit_rate", wf_cli_json_real((double)below->pool_hit / requested, 6));
    for (int i = 0; i < plan->tier_count; i++)
        json_array_append_new(tiers, tier_json(plan, result, i));
    wf_cli_json_set(out, "tiers", tiers);
    wf_cli_json_set(out, "computed_sooner", json_integer((json_int_t)below->computed));
    wf_cli_json_set(out, "left_clean", json_integer((json_int_t)below->clean));
    wf_cli_json_set(out, "decided", decided_json(below));
    if (plan->stage) {
        json_t *ahead = json_object();
        wf_cli_json_set(ahead, "blocks", json_integer((json_int_t)below->staged));
        wf_cli_json_set(ahead, "blocks_hit", json_integer((json_int_t)below->staged_hit));
        for (int i = 0; i < 4; i++)
            if (i != WF_PREFETCH_LATER)
                wf_cli_json_set(ahead, wf_prefetch_rule_name((enum wf_prefetch_rule)i),
                                json_integer((json_int_t)below->fetches[i]));
        wf_cli_json_set(out, "ahead", ahead);
    }
    return out;
}

/* What no drive would have kept for its wear, which a node does not know of. */
static void budget_print(const struct sim_plan *plan, const struct wf_sim_below_result *below)
{
    char day[32];
    if (!below->decided[WF_REFUSED_WEAR])
        return;
    printf("  %-10s %8s  ", "", "");
    for (int i = 0, said = 0; i < plan->tier_count; i++)
        if (below->tier[i].budget_a_day > 0)
            printf("%s%s (%s a day)", said++ ? " and of " : "the write budget of ",
                   plan->tiers[i].name,
                   wf_cli_size((uint64_t)below->tier[i].budget_a_day, day, sizeof day));
    printf(" refused %llu block%s; dwpd=0 lifts it\n",
           (unsigned long long)below->decided[WF_REFUSED_WEAR],
           wf_cli_s(below->decided[WF_REFUSED_WEAR]));
}

void wf_sim_tiers_print(const struct sim_plan *plan, const struct sim_run *run)
{
    const struct wf_sim_result *result = &run->result;
    const struct wf_sim_below_result *below = &result->below;
    double requested = result->blocks_requested ? (double)result->blocks_requested : 1;
    char read[32], written[32], day[32], budget[32];
    printf("  %-10s %6.2f %%  pool\n", "", 100 * (double)below->pool_hit / requested);
    for (int i = 0; i < plan->tier_count; i++) {
        const struct wf_sim_tier_result *tier = &below->tier[i];
        printf("  %-10s %6.2f %%  %s: %s read, %s written, %s a day", "",
               100 * (double)tier->blocks_hit / requested, plan->tiers[i].name,
               wf_cli_size(tier->bytes_read, read, sizeof read),
               wf_cli_size(tier->bytes_written, written, sizeof written),
               wf_cli_size((uint64_t)tier->written_a_day, day, sizeof day));
        if (tier->budget_a_day > 0)
            printf(" of %s", wf_cli_size((uint64_t)tier->budget_a_day, budget, sizeof budget));
        putchar('\n');
    }
    printf("  %-10s %8s  left the pool: %llu with a copy below", "", "",
           (unsigned long long)below->clean);
    for (int i = 0; i < WF_ADMIT_RULES; i++)
        if (below->decided[i])
            printf(", %llu %s", (unsigned long long)below->decided[i],
                   wf_admit_rule_name((enum wf_admit_rule)i));
    printf("\n  %-10s %8s  %llu blocks computed though they were there\n", "", "",
           (unsigned long long)below->computed);
    budget_print(plan, below);
    if (plan->stage)
        printf("  %-10s %8s  fetched ahead: %llu blocks, %llu of them wanted in time\n", "", "",
               (unsigned long long)below->staged, (unsigned long long)below->staged_hit);
}

void wf_sim_tiers_csv_head(const struct sim_plan *plan, FILE *file)
{
    if (!plan->tier_count)
        return;
    fputs(",pool_blocks_hit", file);
    for (int i = 0; i < plan->tier_count; i++) {
        const char *name = plan->tiers[i].name;
        fprintf(file, ",%s_blocks_hit,%s_bytes_read,%s_bytes_written,%s_budget_used", name, name,
                name, name);
    }
    fputs(",computed_sooner,left_clean", file);
    for (int i = 0; i < WF_ADMIT_RULES; i++)
        fprintf(file, ",decided_%s", wf_admit_rule_name((enum wf_admit_rule)i));
}

void wf_sim_tiers_csv(const struct sim_plan *plan, const struct wf_sim_result *result, FILE *file)
{
    const struct wf_sim_below_result *below = &result->below;
    if (!plan->tier_count)
        return;
    fprintf(file, ",%llu", (unsigned long long)below->pool_hit);
    for (int i = 0; i < plan->tier_count; i++) {
        const struct wf_sim_tier_result *tier = &below->tier[i];
        fprintf(file, ",%llu,%llu,%llu,", (unsigned long long)tier->blocks_hit,
                (unsigned long long)tier->bytes_read, (unsigned long long)tier->bytes_written);
        if (tier->budget_a_day > 0)
            fprintf(file, "%.4f", tier->written_a_day / tier->budget_a_day);
    }
    fprintf(file, ",%llu,%llu", (unsigned long long)below->computed,
            (unsigned long long)below->clean);
    for (int i = 0; i < WF_ADMIT_RULES; i++)
        fprintf(file, ",%llu", (unsigned long long)below->decided[i]);
}
