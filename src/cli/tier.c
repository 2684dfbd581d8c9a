/* SPDX-License-Identifier: Apache-2.0
 *
 * weft tier: what an operator does to a tier.
 */
#include "cli/commands.h"

static uint64_t host;
static bool force;

static const struct cli_word words[] = {
    {"fence", "another host that shares the tier is dead: take over what it had there"},
    {NULL},
};

static const struct cli_option options[] = {
    {"host", CLI_NUMBER, "N", &host, "the number of the host that is dead"},
    {"force", CLI_FLAG, NULL, &force, "though it gave a sign of life just now"},
    {NULL},
};

static const char *const examples[] = {
    "who shares the device, and how much of it does each have?",
    "weft ls tiers",
    "host 2 will not come back",
    "weft tier fence cxl0 --host 2",
    NULL,
};

static int run(struct cli *cli)
{
    if (wf_cli_choose(cli) < 0)
        return CLI_USAGE;
    if (cli->word_count != 2)
        return wf_cli_fail(cli, CLI_USAGE, "say which tier: weft tier fence cxl0 --host 2");
    if (host < 1 || host > 255)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--host is a number from 1 to 255; weft ls tiers shows "
                           "which there are");
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    enum weft_status status = weft_fence(cli->weft, cli->words[1], (uint32_t)host, force);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, "the host is not fenced");
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "tier", json_string(cli->words[1]));
        wf_cli_json_set(answer, "fenced", json_integer((json_int_t)host));
        wf_cli_json_print(answer);
    } else {
        printf("host %llu is fenced; what it had on %s is this node's\n", (unsigned long long)host,
               cli->words[1]);
    }
    return CLI_OK;
}

const struct cli_command wf_cmd_tier = {
    .name = "tier",
    .summary = "take over what a dead host had on a tier that hosts share",
    .synopsis = "fence NAME",
    .about = "Several hosts may share a CXL device, and each writes to extents of its own.  What a "
             "host has there is read by the others also when it is dead, but its extents are not "
             "used again, and if it died with the device's lock, nobody gets new ones.  Fencing it "
             "makes its extents and the blocks in them this node's; if it starts again, it has "
             "nothing there.\n\n"
             "A host that runs on must not be fenced: its memory would be taken from under it, and "
             "it fails a second or two later.  So a host that was heard of within the last five "
             "seconds is refused, unless with --force.  For the node's own user and root only.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
