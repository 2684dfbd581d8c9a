/* SPDX-License-Identifier: Apache-2.0
 *
 * weft match: how much of a chain is there.  A count, not a hold.
 */
#include <stdlib.h>

#include "cli/commands.h"

#define TIERS (WEFT_TIER_REMOTE + 1) /* enum weft_tier */
#define BAR 40

#define WITHIN_MS_MAX 3600000u

static uint64_t blocks = 1, within_ms;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"within", CLI_NUMBER, "MS", &within_ms,
     "ask other nodes first for what this one does not know of, where they keep a directory in "
     "parts, and wait up to so many milliseconds for that (0: nobody is asked)"},
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

/* What is where, block by block. */
struct there {
    uint8_t *tier;
    size_t present, on[TIERS];
    uint32_t load_us;
    enum weft_quality quality;
};

static void locate(struct there *there)
{
    for (size_t i = 0; i < there->present; i++)
        if (there->tier[i] < TIERS)
            there->on[there->tier[i]]++;
}

/* A letter a block, or for so many blocks as a cell stands for: d for DRAM, c, n and s for what is
 * below, dots for what is not there. */
static void letters(const struct there *there, size_t count, char out[BAR + 1])
{
    size_t width = count < BAR ? count : BAR;
    for (size_t i = 0; i < width; i++) {
        size_t block = i * count / width;
        out[i] = '.';
        if (block < there->present)
            out[i] = weft_tier_name((enum weft_tier)there->tier[block])[0];
    }
    out[width] = '\0';
}

static void shown_print(const struct there *there, size_t count, uint64_t block_bytes)
{
    char bar[BAR + 1], size[32];
    letters(there, count, bar);
    printf("%s  %zu of %zu block%s %s there, %s\n", bar, there->present, count, wf_cli_s(count),
           count == 1 ? "is" : "are", wf_cli_size(there->present * block_bytes, size, sizeof size));
    if (there->quality > WEFT_LOSSLESS)
        printf("some of them were stored with loss: %s\n", weft_quality_name(there->quality));
    if (there->on[WEFT_TIER_DRAM] == there->present)
        return;
    for (unsigned t = 0; t < TIERS; t++)
        if (there->on[t])
            printf("%c  %zu %s%s%s\n", weft_tier_name((enum weft_tier)t)[0], there->on[t],
                   t == WEFT_TIER_REMOTE ? "on other nodes, or lent by this one" : "in ",
                   t == WEFT_TIER_REMOTE ? "" : weft_tier_name((enum weft_tier)t),
                   t == WEFT_TIER_CXL ? ", or memory beyond the pool" : "");
    if (there->load_us)
        printf("to have all in DRAM takes about %.1f ms\n", there->load_us / 1e3);
    else
        puts("what it takes to have all in DRAM is not measured yet");
}

static json_t *tiers_json(const struct there *there)
{
    json_t *tiers = json_object();
    for (unsigned t = 0; t < TIERS; t++)
        wf_cli_json_set(tiers, weft_tier_name((enum weft_tier)t),
                        json_integer((json_int_t)there->on[t]));
    return tiers;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    if (within_ms > WITHIN_MS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--within takes up to %u milliseconds", WITHIN_MS_MAX);
    struct cli_chain chain;
    struct there there = {.present = 0, .quality = WEFT_LOSSLESS};
    int code = wf_cli_chain_open(cli, blocks, &chain);
    size_t count = chain.count;
    if (code == CLI_OK) {
        there.tier = wf_cli_alloc(count + 1);
        enum weft_status status = WEFT_OK;
        if (within_ms)
            status = weft_find_keys(chain.format, chain.keys, count, (uint32_t)within_ms,
                                    &there.present);
        if (status >= 0)
            status = weft_locate_keys(chain.format, chain.keys, count, there.tier, &there.present,
                                      &there.load_us);
        if (status == WEFT_OK)
            status = weft_quality_keys(chain.format, chain.keys, there.present, &there.quality);
        locate(&there);
        if (status != WEFT_OK && status != WEFT_MISS)
            code = wf_cli_fail_status(cli, status, "cannot match");
    }
    size_t present = there.present;
    char opening[CLI_OPENING_MAX];
    if (code == CLI_OK && cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)present));
        wf_cli_json_set(answer, "present_bytes",
                        json_integer(
                            (json_int_t)(present * weft_format_block_bytes(chain.format))));
        wf_cli_json_set(answer, "tiers", tiers_json(&there));
        wf_cli_json_set(answer, "quality", json_string(weft_quality_name(there.quality)));
        wf_cli_json_set(answer, "load_us", json_integer((json_int_t)there.load_us));
        wf_cli_json_set(answer, "opening", wf_cli_opening_list(cli));
        wf_cli_json_set(answer, "failed_tiers", wf_cli_failed_list(cli));
        wf_cli_json_print(answer);
    } else if (code == CLI_OK) {
        shown_print(&there, count, weft_format_block_bytes(chain.format));
        if (present < count && wf_cli_opening(cli, opening, sizeof opening))
            printf("%s still being opened: there may be more in a moment\n", opening);
    }
    if (code == CLI_OK && present < count)
        wf_cli_failed_say(cli);
    free(there.tier);
    wf_cli_chain_close(&chain);
    return code == CLI_OK && present < count ? CLI_MISS : code;
}

const struct cli_command wf_cmd_match = {
    .name = "match",
    .summary = "how many blocks of a chain are there, and where",
    .synopsis = "",
    .about =
        "Counts the blocks of a chain that are present, from the first, and shows where they "
        "are, a letter a block, or of a chain of more than 40 blocks 40 letters, each of every "
        "so-many-th: d for DRAM, c for CXL memory, n for NVMe, s for an object "
        "store, r for other nodes, a dot for one that is not there; "
        "load_us is what it would take to have all "
        "in DRAM, as modelled from what was measured.  It says at which quality they were stored, "
        "the worst of them.  It holds nothing: a moment later there "
        "may be fewer.  While the node opens a tier, after its start, not all that lies there "
        "is found: `opening` names such tiers, and `failed_tiers` those that do not work and may "
        "hold more.\n\n"
        "Exits with 0 when all are there, with 1 when not.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
