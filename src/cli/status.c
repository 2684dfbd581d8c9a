/* SPDX-License-Identifier: Apache-2.0
 *
 * weft status: what the node has, holds and did.
 */
#include <string.h>

#include "cli/commands.h"

static const char *const examples[] = {
    "how full the pool is, and how often a look-up hits",
    "weft status",
    "is a node up?  The exit code says it",
    "weft status --json > /dev/null",
    NULL,
};

static uint64_t number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void pool_print(const json_t *pool)
{
    char bar[4 * 40 + 1], used[32], all[32];
    uint64_t bytes = number(pool, "bytes"), used_bytes = number(pool, "used_bytes");
    wf_cli_bar(bytes ? (double)used_bytes / (double)bytes : 0, 40, bar);
    printf("%-8s %s  %s of %s, %s pages\n", json_string_value(json_object_get(pool, "name")), bar,
           wf_cli_size(used_bytes, used, sizeof used), wf_cli_size(bytes, all, sizeof all),
           json_string_value(json_object_get(pool, "pages")));
}

static void domain_print(const json_t *domain)
{
    char used[32], quota[32];
    uint64_t quota_bytes = number(domain, "quota_bytes");
    const char *quality = json_string_value(json_object_get(domain, "quality"));
    printf("%-16s %10s %10s %9llu %8llu %7.1f %% %9llu %9llu %8llu  %s\n",
           json_string_value(json_object_get(domain, "name")),
           wf_cli_size(number(domain, "used_bytes"), used, sizeof used),
           quota_bytes ? wf_cli_size(quota_bytes, quota, sizeof quota) : "-",
           (unsigned long long)number(domain, "blocks"),
           (unsigned long long)number(domain, "clients"),
           100 * json_number_value(json_object_get(domain, "hit_rate")),
           (unsigned long long)number(domain, "puts"),
           (unsigned long long)number(domain, "deduplicated"),
           (unsigned long long)number(domain, "full"), quality ? quality : "-");
}

/* What came from below DRAM; nothing for a node without tiers. */
static void below_print(const json_t *domain)
{
    const json_t *below = json_object_get(domain, "below");
    char bytes[32], promoted[32], archived[32];
    if (!json_is_object(below))
        return;
    printf("%-16s %10s below DRAM (archived: %s); %.1f %% of what was asked for hit there, the "
           "rest of the hits in DRAM\n%-16s %10llu left DRAM and stayed there; %llu came back, %s, "
           "in %.1f ms each; "
           "%llu were lost on the way\n",
           json_string_value(json_object_get(domain, "name")),
           wf_cli_size(number(below, "bytes"), bytes, sizeof bytes),
           wf_cli_size(number(below, "archived_bytes"), archived, sizeof archived),
           100 * json_number_value(json_object_get(below, "hit_rate")), "",
           (unsigned long long)number(below, "left_dram"),
           (unsigned long long)number(below, "promoted"),
           wf_cli_size(number(below, "promoted_bytes"), promoted, sizeof promoted),
           json_number_value(json_object_get(below, "load_us_mean")) / 1e3,
           (unsigned long long)number(below, "loads_lost"));
}

static void resp_print(const json_t *resp)
{
    char values[32];
    if (!json_is_object(resp))
        return;
    uint64_t gets = number(resp, "gets"), clients = number(resp, "clients");
    printf("resp: port %llu, %llu client%s, %llu keys, %s in the pool, %.0f%% of %llu gets hit, "
           "%llu of %llu sets dropped\n\n",
           (unsigned long long)number(resp, "port"), (unsigned long long)clients, wf_cli_s(clients),
           (unsigned long long)number(resp, "keys"),
           wf_cli_size(number(resp, "value_bytes"), values, sizeof values),
           gets ? 100.0 * (double)number(resp, "hits") / (double)gets : 0.0,
           (unsigned long long)gets, (unsigned long long)number(resp, "dropped"),
           (unsigned long long)number(resp, "sets"));
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    int code = wf_cli_connect(cli);
    json_t *status;
    if (code == CLI_OK)
        code = wf_cli_query(cli, "status", 0, 0, &status);
    if (code != CLI_OK)
        return code;
    char why[256];
    json_t *tiers = wf_cli_tiers_ask(cli->weft, why, sizeof why);
    if (cli->json) {
        wf_cli_json_set(status, "tiers", tiers ? tiers : json_null());
        wf_cli_json_print(status);
        return CLI_OK;
    }
    const char *version = json_string_value(json_object_get(status, "version"));
    const char *socket = json_string_value(json_object_get(status, "socket"));
    printf("weftd %s, pid %llu, up %.0f s, %s%s\n\n", version ? version : "?",
           (unsigned long long)number(status, "pid"),
           json_number_value(json_object_get(status, "uptime_s")), socket ? socket : "",
           json_is_true(json_object_get(status, "draining")) ? ", draining" : "");
    if (json_object_get(status, "pool"))
        pool_print(json_object_get(status, "pool"));
    uint64_t clients = number(status, "clients"), sessions = number(status, "sessions");
    printf("%llu client%s, %llu session%s\n\n", (unsigned long long)clients, wf_cli_s(clients),
           (unsigned long long)sessions, wf_cli_s(sessions));
    resp_print(json_object_get(status, "resp"));
    printf("%-16s %10s %10s %9s %8s %9s %9s %9s %8s  %s\n", "domain", "used", "quota", "blocks",
           "clients", "hit", "puts", "dedup", "full", "quality");
    size_t index;
    json_t *domain;
    json_array_foreach (json_object_get(status, "domains"), index, domain)
        domain_print(domain);
    bool tiers_below = false;
    json_array_foreach (json_object_get(status, "domains"), index, domain)
        tiers_below |= json_is_object(json_object_get(domain, "below"));
    if (tiers_below)
        printf("\n");
    json_array_foreach (json_object_get(status, "domains"), index, domain)
        below_print(domain);
    if (json_array_size(tiers)) {
        printf("\n");
        wf_cli_tiers_print(tiers, stdout);
    }
    json_decref(tiers);
    json_decref(status);
    return CLI_OK;
}

const struct cli_command wf_cmd_status = {
    .name = "status",
    .summary = "what the node has, holds and did",
    .synopsis = "",
    .about =
        "Shows the pool, the clients and every domain that the caller may see: the node's own user "
        "sees all and the tiers (others: null), others their own.  hit "
        "is the share of blocks that were there when an engine matched: what it did not have to "
        "compute; quality, what the domain's blocks may lose below DRAM, as the node has it now.  "
        "Of a tier where blocks lie with loss, a line says how many.  What a domain has below DRAM "
        "is told in bytes of its blocks as engines see them; what they take there, encoded, is "
        "the tier's used, of all domains together.\n\n"
        "Of the counters in JSON, evicted says how many blocks left DRAM, by reason (session: a "
        "session waits, or was told to go down; lent: a domain gave back, for another, what it had "
        "beyond its due), and below.left_dram how many of these a tier "
        "below had, so that they were not lost; weft_blocks_left_dram_total is the same.  What was "
        "written below is another number, because most is written ahead and leaves DRAM later, "
        "or never: `weft events --what demote` tells of it, and weft_tier_demoted_total counts it "
        "for each tier.  below.promoted is what was read from there into DRAM.",
    .examples = examples,
    .run = run,
};
