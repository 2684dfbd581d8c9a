/* SPDX-License-Identifier: Apache-2.0
 *
 * weft rm: drop a block and everything that extends it.
 */
#include <stdlib.h>

#include "cli/commands.h"

static const char *const examples[] = {
    "a chain, by the identity of its first block",
    "weft rm --key prompt-4f2a --block-bytes 2MiB",
    "a block that weft ls blocks showed",
    "weft rm --raw-key 3f0c…d1 --block-bytes 2MiB",
    "the same, wherever it was copied to",
    "weft rm --raw-key 3f0c…d1 --block-bytes 2MiB --everywhere",
    NULL,
};

#define EVERYWHERE_MS 5000

static bool everywhere;

static const struct cli_option options[] = {
    {"everywhere", CLI_FLAG, NULL, &everywhere,
     "on all nodes of the cluster that are there, waiting up to 5 s for that"},
    {NULL},
};

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many; name the block with --key",
                           cli->words[0]);
    struct cli_chain chain;
    size_t removed = 0;
    int code = wf_cli_chain_open(cli, 1, &chain);
    enum weft_status status = WEFT_OK;
    if (code == CLI_OK) {
        /* With tokens, the first block and so the whole chain. */
        status = everywhere
                     ? weft_remove_everywhere(chain.format, &chain.keys[0], EVERYWHERE_MS, &removed)
                     : weft_remove(chain.format, &chain.keys[0], &removed);
        if (status == WEFT_MISS)
            code = everywhere ? CLI_OK : CLI_MISS;
        else if (status != WEFT_OK)
            code = wf_cli_fail_status(cli, status, "cannot drop it");
    }
    if ((code == CLI_OK || code == CLI_MISS) && status >= 0 && chain.keys) {
        if (cli->json) {
            json_t *answer = json_object();
            wf_cli_json_set(answer, "removed", json_integer((json_int_t)removed));
            wf_cli_json_print(answer);
        } else if (code == CLI_MISS) {
            puts("no such block");
            wf_cli_failed_say(cli);
        } else {
            printf("%zu block%s dropped%s\n", removed, wf_cli_s(removed),
                   everywhere ? " here, and no other node that is there has it" : "");
        }
    }
    wf_cli_chain_close(&chain);
    return code;
}

const struct cli_command wf_cmd_rm = {
    .name = "rm",
    .summary = "drop a block and everything that extends it",
    .synopsis = "",
    .about =
        "Drops the block and all blocks that have it as parent, directly or not.  When one of "
        "them is pinned or in use, nothing is dropped and the exit code is 4.  With --tokens "
        "it is the first block that is dropped, and so the whole chain.  With --everywhere it goes "
        "from all nodes of the cluster that are there; one that is away keeps what it has.  What "
        "another host that is no node has of it on a tier that hosts share stays until that host "
        "drops it.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
