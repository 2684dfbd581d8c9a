/* SPDX-License-Identifier: Apache-2.0
 *
 * weft lend: give idle memory of this host to the node's pool.
 */
#include "cli/commands.h"

static const char *const examples[] = {
    "four more gibibytes of cache while the night batch sleeps",
    "weft lend 4GB",
    NULL,
};

static int run(struct cli *cli)
{
    if (cli->word_count != 1)
        return wf_cli_fail(cli, CLI_USAGE, "say how much: weft lend 4GB");
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    uint64_t pool_bytes = 0;
    enum weft_status status = weft_lend(cli->weft, cli->words[0], &pool_bytes);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "the node does not take it");
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "pool_bytes", json_integer((json_int_t)pool_bytes));
        wf_cli_json_print(answer);
    } else {
        char size[32];
        printf("the pool has %s now\n", wf_cli_size(pool_bytes, size, sizeof size));
    }
    return CLI_OK;
}

const struct cli_command wf_cmd_lend = {
    .name = "lend",
    .summary = "give idle memory to the node's pool",
    .synopsis = "SIZE",
    .about = "Grows the node's DRAM pool by SIZE, up to pool.size_max of its configuration.  weft "
             "reclaim takes it back.  For the node's own user and root only.",
    .examples = examples,
    .run = run,
};
