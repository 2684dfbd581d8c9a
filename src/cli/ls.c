/* SPDX-License-Identifier: Apache-2.0
 *
 * weft ls: what the node holds.
 */
#include <string.h>

#include "cli/commands.h"

static uint64_t limit;
static bool below;
static const char *tier;

static const struct cli_word words[] = {
    {"blocks",
     "blocks with key, size, place in the chain, and age_uses: how often others were used "
     "since its last use"},
    {"sessions", "open sessions with state and chain: its blocks, below DRAM too, and how many of "
                 "them, from its beginning, are in DRAM"},
    {"domains",
     "domains with quality, quota, use, share (-: by the quotas), priority, what they are due, "
     "their floor, and what they have beyond their due (lent); others only for the node's own "
     "user"},
    {"regions", "named and private regions"},
    {"formats", "the domain's layouts that clients have registered, with the profile by which "
                "their blocks are stored with loss, where that is allowed"},
    {"profiles", "what was read from the node's folder of profiles; there: its file is still"},
    {"engines",
     "engines whose KV events are heard (kv_events.engines), with how many blocks they hold, in "
     "HBM and in all, and whether what is known of them is whole"},
    {"tiers", "the pool and what lies below it, nearest first as measured, with use and state"},
    {NULL},
};

static const struct cli_option options[] = {
    {"limit", CLI_NUMBER, "N", &limit, "at most so many (all)"},
    {"below", CLI_FLAG, NULL, &below, "blocks: those on tiers below DRAM"},
    {"tier", CLI_TEXT, "NAME", &tier, "blocks: those on this tier"},
    {NULL},
};

static const char *const examples[] = {
    "who is decoding",
    "weft ls sessions",
    "the largest blocks",
    "weft ls blocks --json | jq '.blocks | sort_by(-.bytes) | .[:10]'",
    "is what engines hold in HBM known here",
    "weft ls engines",
    "what is on a tier",
    "weft ls blocks --tier nvme0",
    NULL,
};

/* The question, and in *out_list the name of the list that answers it.  NULL: the options
 * contradict the word. */
static const char *question(struct cli *cli, const char *word, const char **out_list)
{
    static char text[128];
    *out_list = word;
    if (!below && !tier)
        return word;
    if (strcmp(word, "blocks") != 0) {
        wf_cli_fail(cli, CLI_USAGE, "%s is for blocks: weft ls blocks %s",
                    tier ? "--tier" : "--below", tier ? "--tier NAME" : "--below");
        return NULL;
    }
    if (tier && strcmp(tier, "dram0") == 0)
        return word;
    if (tier && strlen(tier) > 64) {
        wf_cli_fail(cli, CLI_USAGE, "--tier '%.32s…' is no tier's name; weft ls tiers shows them",
                    tier);
        return NULL;
    }
    *out_list = "below";
    snprintf(text, sizeof text, tier ? "below tier=%s" : "below%s", tier ? tier : "");
    return text;
}

/* Of rows what fits a line; --json has the rest. */
static void rows_print(const json_t *list, const char *const *shown, size_t count)
{
    json_t *rows = json_array(), *from;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)list, index, from) {
        json_t *row = json_object();
        for (size_t i = 0; i < count; i++)
            wf_cli_json_set(row, shown[i], json_incref(json_object_get(from, shown[i])));
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
}

static void domains_print(const json_t *list)
{
    static const char *const shown[] = {"name",       "quality",  "quota_bytes", "used_bytes",
                                        "share",      "priority", "due_bytes",   "floor_bytes",
                                        "lent_bytes", "blocks",   "sessions",    "clients",
                                        "hit_rate"};
    rows_print(list, shown, sizeof shown / sizeof shown[0]);
}

/* And why blocks are not stored as their domain allows. */
static void formats_print(const json_t *list)
{
    static const char *const shown[] = {"format",       "model",  "digest",  "block_bytes",
                                        "block_tokens", "layers", "quality", "profile"};
    size_t index;
    json_t *row;
    rows_print(list, shown, sizeof shown / sizeof shown[0]);
    json_array_foreach ((json_t *)(uintptr_t)list, index, row) {
        const char *why = json_string_value(json_object_get(row, "profile_why"));
        const char *model = json_string_value(json_object_get(row, "model"));
        json_int_t declined = json_integer_value(json_object_get(row, "declined"));
        if (why)
            printf("%s: no profile: %s; stored losslessly\n", model, why);
        if (declined > 0)
            printf("%s: %lld block%s stored exactly all the same: what the profile makes of them "
                   "is not small; is it that model's KV, in chains that begin at position 0?\n",
                   model, (long long)declined, declined == 1 ? " was" : "s were");
    }
}

static void profiles_print(const json_t *answer, const json_t *list)
{
    const char *folder = json_string_value(json_object_get(answer, "folder"));
    if (json_array_size(list))
        wf_cli_table_print(list, stdout);
    else
        printf("no profiles\n");
    if (folder)
        printf("read from %s; weft codec install puts one there\n", folder);
    else
        printf("the node has no folder of profiles: set profiles, or state_dir\n");
}

/* Of engines as well. */
static void engines_print(const json_t *list)
{
    static const char *const shown[] = {"name",    "endpoint", "state",     "hbm_blocks",
                                        "blocks",  "batches",  "gaps",      "replays",
                                        "dropped", "refused",  "forgotten", "seen_s"};
    rows_print(list, shown, sizeof shown / sizeof shown[0]);
}

/* Is a tier failed that may hold what is asked for? */
static bool part_is_unknown(struct cli *cli)
{
    json_t *failed = wf_cli_failed_list(cli), *row;
    bool unknown = false;
    size_t index;
    json_array_foreach (failed, index, row)
        unknown |= !tier || strcmp(tier, json_string_value(json_object_get(row, "tier"))) == 0;
    json_decref(failed);
    return unknown && wf_cli_failed_say(cli);
}

static int run(struct cli *cli)
{
    const char *asked, *name;
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    asked = question(cli, words[which].name, &name);
    if (!asked)
        return CLI_USAGE;
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    json_t *answer;
    code = wf_cli_query(cli, asked, 0, limit, &answer);
    if (code != CLI_OK)
        return code;
    json_t *list = json_object_get(answer, name);
    if (strcmp(name, "below") == 0 && part_is_unknown(cli))
        code = CLI_MISS;
    while (limit && json_array_size(list) > limit)
        json_array_remove(list, json_array_size(list) - 1);
    if (cli->json) {
        wf_cli_json_print(answer);
        return code;
    }
    if (strcmp(words[which].name, "tiers") == 0 && json_array_size(list))
        wf_cli_tiers_print(list, stdout);
    else if (strcmp(words[which].name, "domains") == 0 && json_array_size(list))
        domains_print(list);
    else if (strcmp(words[which].name, "formats") == 0 && json_array_size(list))
        formats_print(list);
    else if (strcmp(words[which].name, "profiles") == 0)
        profiles_print(answer, list);
    else if (strcmp(words[which].name, "engines") == 0 && json_array_size(list))
        engines_print(list);
    else if (json_array_size(list))
        wf_cli_table_print(list, stdout);
    else
        printf("no %s%s\n", words[which].name, below || tier ? " there" : "");
    json_decref(answer);
    return code;
}

const struct cli_command wf_cmd_ls = {
    .name = "ls",
    .summary = "list blocks, sessions, domains, regions, formats, profiles, engines or tiers",
    .synopsis = "blocks|sessions|domains|regions|formats|profiles|engines|tiers",
    .about =
        "Lists what the node holds.  A domain sees its own things only.  What lies on a tier "
        "that failed is not known: of blocks below, that is said, with exit status 1.\n\n"
        "quality, of a block, is how exact it is; of one below, its copy on the nearest of its "
        "tiers.\n\n"
        "Of tiers, ratio is how much smaller those blocks are that were encoded on their way "
        "there, heads and tables counted; blocks that are stored as they came are not part of "
        "it, so that a tier may hold less than its bytes times its ratio.  A tier where "
        "blocks lie with loss has a line that says how many, at which quality, and how fast a "
        "thread encodes and decodes them, in 10^6 plain bytes a second.  With "
        "--json, name and why of codec are of blocks that are to be exact, lossy is what "
        "others are stored by (none: there are none), and qualities has what lies there.\n\n"
        "Of formats whose domain allows a loss, profile is the file by which their blocks are "
        "stored, and profile_why says why there is none.  declined counts blocks that were to be "
        "stored by it and lie exact all the same: what it made of them was more than twice as "
        "large as in the calibration, or no smaller than the block.  profiles are for the node's "
        "own user.\n\n"
        "An engine is live when its events are heard; asking while what was missed is asked "
        "for; away when nobody is at its endpoint.  Whatever puts what is known of it in doubt "
        "(a gap that is not filled, a restart, a lost connection) has it forgotten.  dropped "
        "counts blocks that kv_events.engine_memory had no room for, refused what was no "
        "batch of events, and seen_s how long ago the last batch came.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
