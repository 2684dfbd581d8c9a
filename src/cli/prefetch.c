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
#define ASK_S 0.25   /* nothing more came for so long: is it still on its way? */
#define ASK_MS 1000u /* of others at most, where a directory is in parts */
#define ASKED_MAX 4  /* times, as more becomes known */
#define BY_MS_MAX 3600000u

static uint64_t blocks = 1, by_ms;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"by", CLI_NUMBER, "MS", &by_ms,
     "to be there in so many milliseconds, which are waited for; 0: as soon as nothing more urgent "
     "is to do, without waiting for it (0)"},
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

/* What is to come is asked for, of the blocks that are known then: `known`.  What becomes known
 * meanwhile, from another node or a tier that opens, is asked for as well. */
static int ask(struct cli *cli, struct cli_chain *chain, double until_s, size_t *known,
               uint32_t *coming)
{
    int code = wf_cli_chain_look(cli, chain);
    *known = 0;
    for (int i = 0; code == CLI_OK && i < ASKED_MAX && chain->present > *known; i++) {
        double due_ms = 1e3 * (until_s - wf_cli_now_s());
        *known = chain->present;
        enum weft_status status = weft_prefetch_keys(chain->format, chain->keys, *known,
                                                     by_ms ? due_ms > 1 ? (uint32_t)due_ms : 1 : 0,
                                                     coming);
        if (status != WEFT_OK && status != WEFT_MISS)
            return wf_cli_fail_status(cli, status, "cannot prefetch");
        code = wf_cli_chain_look(cli, chain);
    }
    return code;
}

/* Ask for it, and look until what is coming is up or `by_ms` are over. */
static int fetch(struct cli *cli, struct cli_chain *chain, size_t *known, uint32_t *coming)
{
    double asked_s = wf_cli_now_s(), until_s = asked_s + (double)by_ms / 1e3;
    size_t came = 0;
    unsigned look_us = LOOK_US_LEAST;
    if (chain->present < chain->count)
        (void)wf_cli_chain_ask(chain->format, chain->keys, chain->count, chain->present,
                               by_ms && by_ms < ASK_MS ? (uint32_t)by_ms : ASK_MS);
    int code = ask(cli, chain, until_s, known, coming);
    while (code == CLI_OK && chain->dram < chain->present && wf_cli_now_s() < until_s &&
           (chain->dram < *coming || chain->present > *known)) {
        bool more = chain->present > *known;
        double now_s = wf_cli_now_s(), left_ms = 1e3 * (until_s - now_s);
        if (chain->dram != came)
            asked_s = now_s;
        came = chain->dram;
        if ((more || now_s - asked_s >= ASK_S) && left_ms >= 1) {
            asked_s = now_s;
            *known = chain->present > *known ? chain->present : *known;
            enum weft_status status = weft_prefetch_keys(chain->format, chain->keys, *known,
                                                         (uint32_t)left_ms, coming);
            if (status != WEFT_OK && status != WEFT_MISS)
                return wf_cli_fail_status(cli, status, "cannot prefetch");
        }
        usleep(look_us);
        look_us = 2 * look_us < LOOK_US_MOST ? 2 * look_us : LOOK_US_MOST;
        code = wf_cli_chain_look(cli, chain);
    }
    return code;
}

static int report(struct cli *cli, const struct cli_chain *chain, size_t asked, uint32_t coming)
{
    size_t known = chain->present < asked ? chain->present : asked; /* some may have gone since */
    size_t said = coming > chain->dram ? coming : chain->dram;
    size_t no_room = known > said ? known - said : 0;
    size_t late = by_ms && chain->present > chain->dram + no_room
                      ? chain->present - chain->dram - no_room
                      : 0;
    size_t away = chain->count > chain->present ? chain->count - chain->present : 0;
    bool unasked = chain->present > asked && chain->dram < chain->present;
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)chain->count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)chain->present));
        wf_cli_json_set(answer, "coming", json_integer((json_int_t)coming));
        wf_cli_json_set(answer, "in_dram", json_integer((json_int_t)chain->dram));
        wf_cli_json_set(answer, "late", json_integer((json_int_t)late));
        wf_cli_json_set(answer, "no_room", json_integer((json_int_t)no_room));
        wf_cli_json_print(answer);
    } else {
        printf("%zu of %zu block%s %s in DRAM", chain->dram, chain->count, wf_cli_s(chain->count),
               chain->dram == 1 ? "is" : "are");
        if (late)
            printf(", %zu %s late", late, late == 1 ? "is" : "are");
        else if (chain->dram < coming)
            printf(", %zu %s on the way", coming - chain->dram,
                   coming - chain->dram == 1 ? "is" : "are");
        if (no_room)
            printf(", no room for %zu: what would have to go is in use or pinned, or no tier takes "
                   "it",
                   no_room);
        if (unasked && !late)
            printf(", %zu became known since; ask again", chain->present - asked);
        if (away)
            printf(", %zu %s not there", away, away == 1 ? "is" : "are");
        putchar('\n');
    }
    if (away)
        wf_cli_failed_say(cli);
    return late || no_room || away || unasked ? CLI_MISS : CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many; name the chain with --key",
                           cli->words[0]);
    if (by_ms > BY_MS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--by is %llu ms; give up to %u, which is an hour",
                           (unsigned long long)by_ms, BY_MS_MAX);
    struct cli_chain chain;
    uint32_t coming = 0;
    size_t known = 0;
    int code = wf_cli_chain_open(cli, blocks, &chain);
    if (code == CLI_OK)
        code = wf_cli_chain_look(cli, &chain);
    if (code == CLI_OK && chain.present < chain.count)
        wf_cli_opening_wait(cli);
    if (code == CLI_OK)
        code = fetch(cli, &chain, &known, &coming);
    if (code == CLI_OK)
        code = report(cli, &chain, known, coming);
    wf_cli_chain_close(&chain);
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
        "over, and says how many blocks are late.  Without, no block is waited for: they "
        "come when nothing more urgent is to do.\n\n"
        "Where nodes keep a directory in parts, what this one does not know of is asked of the "
        "others first, and that is waited for: up to a second, or the time that is given if that "
        "is less.\n\n"
        "Where DRAM is full, what goes first by the policy's order makes room; what of it is on no "
        "tier yet is written to one before.  What cannot have room is said at once, and not waited "
        "for.\n\n"
        "Exits with 1 when blocks are late, have no room or are not there.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
