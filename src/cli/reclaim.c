/* SPDX-License-Identifier: Apache-2.0
 *
 * weft reclaim: take memory back from the node's pool, in bounded time.
 */
#include "cli/commands.h"

static uint64_t within_ms = 1000;

static const struct cli_option options[] = {
    {"within-ms", CLI_NUMBER, "MS", &within_ms, "answer after so long with what was got (1000)"},
    {NULL},
};

static const char *const examples[] = {
    "the memory is needed again, and soon",
    "weft reclaim 4GB --within-ms 250",
    NULL,
};

/* What floors keep of the pool, when so much more cannot be had without it; 0: it can.  Whether
 * anything is left that no floor keeps. */
static uint64_t floors_ask(struct cli *cli, uint64_t missing, bool *out_more)
{
    json_t *status = NULL, *domain;
    size_t index;
    uint64_t kept = 0;
    if (wf_cli_query(cli, "status", 0, 0, &status) != CLI_OK)
        return 0;
    json_int_t pool = json_integer_value(json_object_get(json_object_get(status, "pool"), "bytes"));
    json_array_foreach (json_object_get(status, "domains"), index, domain) {
        json_int_t used = json_integer_value(json_object_get(domain, "used_bytes"));
        json_int_t floor = json_integer_value(json_object_get(domain, "floor_bytes"));
        kept += (uint64_t)(used < floor ? used : floor);
    }
    json_decref(status);
    *out_more = (uint64_t)pool > kept;
    return kept + missing > (uint64_t)pool ? kept : 0;
}

static int run(struct cli *cli)
{
    if (cli->word_count != 1)
        return wf_cli_fail(cli, CLI_USAGE, "say how much: weft reclaim 4GB");
    if (within_ms > 3600000)
        return wf_cli_fail(cli, CLI_USAGE, "--within-ms is %llu; an hour, 3600000, is the most",
                           (unsigned long long)within_ms);
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    uint64_t reclaimed = 0;
    enum weft_status status = weft_reclaim(cli->weft, cli->words[0], (uint32_t)within_ms,
                                           &reclaimed);
    if (status != WEFT_OK && status != WEFT_PENDING)
        return wf_cli_fail_status(cli, status, "the node gives nothing back");
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "reclaimed_bytes", json_integer((json_int_t)reclaimed));
        wf_cli_json_set(answer, "all", json_boolean(status == WEFT_OK));
        wf_cli_json_print(answer);
    } else {
        char size[32];
        uint64_t wanted = 0, kept = 0;
        bool more = false;
        printf("%s came back", wf_cli_size(reclaimed, size, sizeof size));
        if (status != WEFT_OK && weft_size_parse(cli->words[0], &wanted) == WEFT_OK)
            kept = floors_ask(cli, wanted - reclaimed, &more);
        if (kept)
            printf("; domains' floors keep %s (domains[].floor)%s",
                   wf_cli_size(kept, size, sizeof size),
                   more ? ", and what else is left is pinned or in use" : "");
        else if (status != WEFT_OK)
            printf("; the rest is pinned or in use");
        putchar('\n');
    }
    return status == WEFT_OK ? CLI_OK : CLI_MISS;
}

const struct cli_command wf_cmd_reclaim = {
    .name = "reclaim",
    .summary = "take memory back from the node's pool",
    .synopsis = "SIZE",
    .about = "Shrinks the node's DRAM pool by SIZE.  The node evicts what it must and answers in "
             "the given time with what it got; blocks that are pinned or in use stay, and so "
             "does what domains' floors keep.  For the node's own user and root only.\n\n"
             "Exits with 1 when only a part came back.",
    .options = options,
    .examples = examples,
    .run = run,
};
