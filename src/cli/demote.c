/* SPDX-License-Identifier: Apache-2.0
 *
 * weft demote: a chain down from DRAM to a tier below.
 *
 * Only a session's chain is demoted, so one is opened for it, and ends with the command.
 */
#include <stdlib.h>

#include "cli/commands.h"

#define PATIENCE_S 5.0 /* a chain of any length goes on for as long as some of it goes */

static uint64_t blocks = 1;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {NULL},
};

static const char *const examples[] = {
    "a chain that nobody needs for a while",
    "weft demote --key prompt-4f2a --block-bytes 2MiB --blocks 40",
    NULL,
};

/* How many of the blocks that there are, are in DRAM. */
static int look(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                size_t count, size_t *out_present, size_t *out_up)
{
    uint8_t *tiers = wf_cli_alloc(count + 1);
    uint32_t load_us;
    enum weft_status status = weft_locate_keys(format, keys, count, tiers, out_present, &load_us);
    *out_up = 0;
    for (size_t i = 0; status >= 0 && i < *out_present; i++)
        *out_up += tiers[i] == WEFT_TIER_DRAM;
    free(tiers);
    return status < 0 ? wf_cli_fail_status(cli, status, "cannot see what is there") : CLI_OK;
}

/* Until all is down, or no more of it goes. */
static int push(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                size_t count, size_t present, size_t *up)
{
    struct weft_session *session = NULL;
    const struct weft_session_spec spec = {.name = "weft demote", .priority = 5};
    const struct weft_hint hint = {.tip = &keys[present - 1]};
    enum weft_status status = weft_session_open(format, &spec, &session);
    double moved_s = wf_cli_now_s();
    int code = CLI_OK;
    if (status == WEFT_OK)
        status = weft_session_hint(session, WEFT_IDLE, &hint);
    if (status == WEFT_OK)
        status = weft_demote(session);
    while (status == WEFT_PENDING && code == CLI_OK && wf_cli_now_s() - moved_s < PATIENCE_S) {
        size_t before = *up;
        code = look(cli, format, keys, count, &present, up);
        if (*up < before)
            moved_s = wf_cli_now_s();
        status = weft_demote(session);
    }
    if (code == CLI_OK && status != WEFT_OK && status != WEFT_PENDING)
        code = wf_cli_fail_status(cli, status, "cannot demote");
    weft_session_close(session);
    return code == CLI_OK ? look(cli, format, keys, count, &present, up) : code;
}

static int report(struct cli *cli, size_t count, size_t present, size_t before, size_t up)
{
    size_t gone = before > up ? before - up : 0;
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)present));
        wf_cli_json_set(answer, "demoted", json_integer((json_int_t)gone));
        wf_cli_json_set(answer, "in_dram", json_integer((json_int_t)up));
        wf_cli_json_print(answer);
    } else {
        printf("%zu block%s left DRAM; of %zu that are there, %zu %s in DRAM\n", gone,
               wf_cli_s(gone), present, up, up == 1 ? "is" : "are");
    }
    if (up)
        fprintf(stderr, "weft demote: what stays is held by a session that computes on it, pinned, "
                        "extended by other chains, or no tier takes it\n");
    if (present < count)
        wf_cli_failed_say(cli);
    return up || present < count ? CLI_MISS : CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many; name the chain with --key",
                           cli->words[0]);
    if (!blocks || blocks > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to 4294967295",
                           (unsigned long long)blocks);
    int code = wf_cli_connect(cli);
    struct weft_format *format = NULL;
    struct weft_key *keys = NULL;
    size_t count = 0, present = 0, before = 0, up = 0;
    if (code == CLI_OK)
        code = wf_cli_format_open(cli, 0, &format);
    if (code == CLI_OK)
        code = wf_cli_keys(cli, format, blocks, &keys, &count);
    if (code == CLI_OK)
        code = look(cli, format, keys, count, &present, &before);
    up = before;
    if (code == CLI_OK && present)
        code = push(cli, format, keys, count, present, &up);
    if (code == CLI_OK)
        code = report(cli, count, present, before, up);
    free(keys);
    weft_format_close(format);
    return code;
}

const struct cli_command wf_cmd_demote = {
    .name = "demote",
    .summary = "move a chain from DRAM to a tier below",
    .synopsis = "",
    .about =
        "What of the chain is on no tier yet is written to one, and then what nobody else holds or "
        "extends leaves DRAM, as weft_demote(3) does; a get, a prefetch or weft prefetch brings it "
        "up again.  A chain that a session computes on, and what is pinned, stays.\n\n"
        "Exits with 1 when some of it is still in DRAM, or not there at all.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
