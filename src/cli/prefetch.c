/* SPDX-License-Identifier: Apache-2.0
 *
 * weft prefetch: a chain up into DRAM before somebody asks for it.
 *
 * The node brings it up by itself once it is asked; waiting here is only looking how far it is.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

#define LOOK_US_LEAST 2000u /* between two looks; twice as long each time */
#define LOOK_US_MOST 20000u
#define BY_MS_MAX 3600000u

static uint64_t blocks = 1, by_ms;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"by", CLI_NUMBER, "MS", &by_ms,
     "to be there in so many milliseconds, which are waited for; 0: as soon as nothing more urgent "
     "is to do, without waiting (0)"},
    {NULL},
};

static const char *const examples[] = {
    "a conversation that somebody is about to go on with",
    "weft prefetch --key prompt-4f2a --block-bytes 2MiB --blocks 40 --by 500",
    "a prompt, whenever there is time",
    ("weft prefetch --model llama-3-8b@7f3c --layers 32 --kv-heads 8 --head-dim 128 --dtype bf16 "
     "--tokens @prompt.tokens"),
    NULL,
};

/* What is where: `up` in DRAM, `below` on a tier. */
struct there {
    uint8_t *tiers;
    size_t present, up;
};

static int look(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                size_t count, struct there *there)
{
    uint32_t load_us;
    enum weft_status status = weft_locate_keys(format, keys, count, there->tiers, &there->present,
                                               &load_us);
    if (status != WEFT_OK && status != WEFT_MISS)
        return wf_cli_fail_status(cli, status, "cannot see what is there");
    there->up = 0;
    for (size_t i = 0; i < there->present; i++)
        there->up += there->tiers[i] == WEFT_TIER_DRAM;
    return CLI_OK;
}

/* Ask for it, and look until it is up or `by_ms` are over. */
static int fetch(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                 size_t count, struct there *there, uint32_t *coming)
{
    double until_s = wf_cli_now_s() + (double)by_ms / 1e3;
    unsigned look_us = LOOK_US_LEAST;
    enum weft_status status = weft_prefetch_keys(format, keys, count, (uint32_t)by_ms, coming);
    if (status != WEFT_OK && status != WEFT_MISS)
        return wf_cli_fail_status(cli, status, "cannot prefetch");
    int code = look(cli, format, keys, count, there);
    while (code == CLI_OK && there->up < there->present && wf_cli_now_s() < until_s) {
        usleep(look_us);
        look_us = 2 * look_us < LOOK_US_MOST ? 2 * look_us : LOOK_US_MOST;
        code = look(cli, format, keys, count, there);
    }
    return code;
}

static int report(struct cli *cli, size_t count, const struct there *there, uint32_t coming)
{
    size_t late = by_ms ? there->present - there->up : 0;
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)there->present));
        wf_cli_json_set(answer, "coming", json_integer((json_int_t)coming));
        wf_cli_json_set(answer, "in_dram", json_integer((json_int_t)there->up));
        wf_cli_json_set(answer, "late", json_integer((json_int_t)late));
        wf_cli_json_print(answer);
    } else {
        printf("%zu of %zu block%s %s in DRAM", there->up, count, wf_cli_s(count),
               there->up == 1 ? "is" : "are");
        if (late)
            printf(", %zu %s late", late, late == 1 ? "is" : "are");
        else if (there->up < coming)
            printf(", %zu %s on the way", coming - there->up,
                   coming - there->up == 1 ? "is" : "are");
        if (there->present < count)
            printf(", %zu %s not there", count - there->present,
                   count - there->present == 1 ? "is" : "are");
        putchar('\n');
    }
    if (there->present < count)
        wf_cli_failed_say(cli);
    return late || there->present < count ? CLI_MISS : CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many; name the chain with --key",
                           cli->words[0]);
    if (!blocks || blocks > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to 4294967295",
                           (unsigned long long)blocks);
    if (by_ms > BY_MS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--by is %llu ms; give up to %u, which is an hour",
                           (unsigned long long)by_ms, BY_MS_MAX);
    int code = wf_cli_connect(cli);
    struct weft_format *format = NULL;
    struct weft_key *keys = NULL;
    struct there there = {.tiers = NULL};
    size_t count = 0;
    uint32_t coming = 0;
    if (code == CLI_OK)
        code = wf_cli_format_open(cli, 0, &format);
    if (code == CLI_OK)
        code = wf_cli_keys(cli, format, blocks, &keys, &count);
    if (code == CLI_OK) {
        there.tiers = wf_cli_alloc(count + 1);
        code = look(cli, format, keys, count, &there);
    }
    if (code == CLI_OK && there.present < count)
        wf_cli_opening_wait(cli);
    if (code == CLI_OK)
        code = fetch(cli, format, keys, count, &there, &coming);
    if (code == CLI_OK)
        code = report(cli, count, &there, coming);
    free(there.tiers);
    free(keys);
    weft_format_close(format);
    return code;
}

const struct cli_command wf_cmd_prefetch = {
    .name = "prefetch",
    .summary = "bring a chain up into DRAM before it is asked for",
    .synopsis = "",
    .about =
        "What of the chain lies on a tier below is read into DRAM, from its beginning, as "
        "weft_prefetch(3) does.  With --by it is to be there in so many milliseconds: the "
        "node reads it in time for that, and the command waits until all is up or the time is "
        "over, and says how many blocks are late.  Without, it returns at once, and the blocks "
        "come when nothing more urgent is to do.\n\n"
        "Exits with 1 when blocks are late or not there.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
