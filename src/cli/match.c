/* SPDX-License-Identifier: Apache-2.0
 *
 * weft match: how much of a chain is there.  A count, not a hold.
 */
#include <stdlib.h>

#include "cli/commands.h"

static uint64_t blocks = 1;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {NULL},
};

static const char *const examples[] = {
    "how much of a prompt need not be computed",
    ("weft match --model llama-3-8b@7f3c --layers 32 --kv-heads 8 --head-dim 128 --dtype bf16 "
     "--tokens @prompt.tokens"),
    "how many of 40 blocks are there, for a script",
    "weft match --key prompt-4f2a --block-bytes 2MiB --blocks 40 --json",
    NULL,
};

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    if (!blocks || blocks > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to 4294967295",
                           (unsigned long long)blocks);
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    struct weft_format *format;
    code = wf_cli_format_open(cli, 0, &format);
    if (code != CLI_OK)
        return code;
    struct weft_key *keys = NULL;
    size_t count = 0, present = 0;
    code = wf_cli_keys(cli, format, blocks, &keys, &count);
    if (code == CLI_OK) {
        enum weft_status status = weft_match_keys(format, keys, count, &present);
        if (status != WEFT_OK && status != WEFT_MISS)
            code = wf_cli_fail_status(cli, status, "cannot match");
    }
    if (code == CLI_OK && cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)present));
        wf_cli_json_set(answer, "present_bytes",
                        json_integer((json_int_t)(present * weft_format_block_bytes(format))));
        wf_cli_json_print(answer);
    } else if (code == CLI_OK) {
        char bar[4 * 40 + 1], size[32];
        wf_cli_bar((double)present / (double)count, 40, bar);
        printf("%s  %zu of %zu block%s %s there, %s\n", bar, present, count, wf_cli_s(count),
               count == 1 ? "is" : "are",
               wf_cli_size(present * weft_format_block_bytes(format), size, sizeof size));
    }
    free(keys);
    weft_format_close(format);
    return code == CLI_OK && present < count ? CLI_MISS : code;
}

const struct cli_command wf_cmd_match = {
    .name = "match",
    .summary = "count how many blocks of a chain are there",
    .synopsis = "",
    .about = "Counts the blocks of a chain that are present, from the first.  It holds nothing: a "
             "moment later there may be fewer.\n\n"
             "Exits with 0 when all are there, with 1 when not.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
