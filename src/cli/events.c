/* SPDX-License-Identifier: Apache-2.0
 *
 * weft events: what happened lately, as the node keeps it in its ring.
 */
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

#define FOLLOW_US 250000

/* All kinds that a node tells of; a test looks for others among its sources. */
#define KINDS                                                                                 \
    "evict|remove|full|corrupt|client_gone|lend|reclaim|demote|promote|move|let_go|missing|"  \
    "load_failed|late|prefetch|archive|archive_removed|archive_waits|archive_lost|tier_open|" \
    "tier_state|tier_failed|tier_lost|host_fenced|codec|gateway|fabric|handed_over"

static bool follow, all;
static uint64_t limit = 50;
static const char *what;

static const struct cli_option options[] = {
    {"follow", CLI_FLAG, NULL, &follow, "stay, and show what comes"},
    {"limit", CLI_NUMBER, "N", &limit, "only the newest so many of those that are kept (50)"},
    {"all", CLI_FLAG, NULL, &all, "all that are kept"},
    {"what", CLI_TEXT, KINDS, &what, "only of this kind"},
    {NULL},
};

static const char *const examples[] = {
    "what happened last",
    "weft events --limit 10",
    "every eviction as it happens, for a log",
    "weft events --follow --what evict --json",
    NULL,
};

/* Why it went and no other, or to no tier: the rule, then what was known, in its own names. */
static void why_print(const char *name, const json_t *why)
{
    const char *key, *rule = json_string_value(json_object_get(why, "rule"));
    json_t *value;
    printf("  %s %s", name, rule ? rule : "?");
    const char *between = " (";
    json_object_foreach ((json_t *)(uintptr_t)why, key, value) {
        if (strcmp(key, "rule") == 0 || json_is_null(value))
            continue;
        if (json_is_string(value))
            printf("%s%s %s", between, key, json_string_value(value));
        else
            printf("%s%s %.3g", between, key, json_number_value(value));
        between = ", ";
    }
    if (*between == ',')
        putchar(')');
}

static void event_print(const json_t *event)
{
    char clock[40], value_text[96];
    wf_cli_clock(json_integer_value(json_object_get(event, "time_ms")), clock, sizeof clock);
    const char *kind = json_string_value(json_object_get(event, "what"));
    printf("%s  %-13s", clock, kind ? kind : "?");
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)event, key, value) {
        if (strcmp(key, "time_ms") == 0 || strcmp(key, "what") == 0 ||
            strcmp(key, "sequence") == 0 || json_is_null(value))
            continue;
        if (json_is_object(value)) {
            why_print(key, value);
            continue;
        }
        const char *shown = json_is_string(value) ? json_string_value(value) : value_text;
        if (json_is_string(value))
            ;
        else if (json_is_integer(value) && strcmp(key, "bytes") == 0)
            wf_cli_size((uint64_t)json_integer_value(value), value_text, sizeof value_text);
        else if (json_is_integer(value))
            snprintf(value_text, sizeof value_text, "%lld", (long long)json_integer_value(value));
        else
            snprintf(value_text, sizeof value_text, "%.10g", json_number_value(value));
        /* What left DRAM is not gone when a tier has it. */
        bool stays = strcmp(key, "tier") == 0 && kind && strcmp(kind, "evict") == 0;
        printf("  %s %s", stays ? "stays_on" : key, shown);
    }
    putchar('\n');
}

/* Keep what is asked for; how many older ones were left out. */
static size_t events_filter(json_t *list, bool first)
{
    for (size_t i = json_array_size(list); i-- > 0;) {
        const char *kind = json_string_value(json_object_get(json_array_get(list, i), "what"));
        if (what && (!kind || strcmp(kind, what) != 0))
            json_array_remove(list, i);
    }
    size_t count = json_array_size(list), out = 0;
    if (first && !all && count > limit)
        out = count - limit;
    for (size_t i = 0; i < out; i++)
        json_array_remove(list, 0);
    return out;
}

static void page_print(struct cli *cli, json_t *answer, bool first)
{
    json_t *list = json_object_get(answer, "events");
    size_t older = events_filter(list, first), index;
    json_t *event;
    if (cli->json && !follow) {
        wf_cli_json_print(json_incref(answer));
        return;
    }
    json_array_foreach (list, index, event) {
        if (cli->json)
            wf_cli_json_print(json_incref(event));
        else
            event_print(event);
    }
    if (older && !cli->json)
        fprintf(stderr, "weft events: %zu older event%s not shown; --all shows %s\n", older,
                older == 1 ? " is" : "s are", older == 1 ? "it" : "them");
    uint64_t lost = (uint64_t)json_integer_value(json_object_get(answer, "lost"));
    if (lost)
        fprintf(stderr,
                "weft events: %llu older event%s overwritten; the node keeps as many as its "
                "`events` setting says\n",
                (unsigned long long)lost, lost == 1 ? " was" : "s were");
    fflush(stdout);
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    int code = wf_cli_connect(cli);
    uint64_t cursor = 0;
    bool first = true;
    while (code == CLI_OK) {
        json_t *answer;
        code = wf_cli_query(cli, "events", cursor, 0, &answer);
        if (code != CLI_OK)
            break;
        uint64_t last = (uint64_t)json_integer_value(json_object_get(answer, "last"));
        cursor = last ? last : cursor;
        page_print(cli, answer, first);
        first = false;
        json_decref(answer);
        if (!follow || ferror(stdout))
            break;
        usleep(FOLLOW_US);
    }
    return code;
}

const struct cli_command wf_cmd_events = {
    .name = "events",
    .summary = "what happened lately: evictions, archives, tiers, clients gone",
    .synopsis = "",
    .about =
        "Shows the newest of the node's ring of events, oldest first, each with its time, and its "
        "date when that is not today.  An eviction says which "
        "block went, for what reason, how long it had not been used and for whom it made room; "
        "with a tier, it left DRAM and stays there, from where a get brings it up.  "
        "With --follow and --json every event is a line of its own.\n\n"
        "In DRAM: evict, a block left it; remove, a client removed it; full, there was no room for "
        "a put; corrupt, bytes were not what their checksum says; client_gone, a process ended "
        "with reserved blocks; lend and reclaim, the host's memory.  An eviction's reason: room (a "
        "put or a read needed it), quota (its own domain had no more), session (a client demoted "
        "its chain), reclaim (the host wants memory back), lent (another domain took back what it "
        "had lent), removed, corrupt.\n\n"
        "To and from tiers: demote, a block was written below, for room, ahead (before its room "
        "is needed), session (a client demoted it, or its session waits) or stop (the node ends); "
        "promote, it was read into DRAM, for get, prefetch (a client asked for it) or hint (its "
        "session is due back); move, it went to the next tier, being cold; let_go, a tier dropped "
        "it: cold, spare (another has it), parent (what it extends is gone), quality (it lay there "
        "with more loss than its domain allows) or removed; missing "
        "and load_failed, a tier did not give it (missing, timeout, device, node: only a node that "
        "went had it, lender: or one that lent its memory, busy: another "
        "node could not give it in time, limit: or a bound on what it sends would make it later "
        "than anybody waits, profile: the one that it was stored by is not here); "
        "late, blocks did not "
        "come from a tier within its timeout.  What is of no domain, as what the fabric tells, is "
        "for the node's own user and root.\n\n"
        "prefetch is a decision on a chain, for a session that is due back or a client that asked: "
        "now (it is begun), asked (it is begun, by when was said), late (begun, and it will not be "
        "there in time), room (not all of it finds room), kept (all is in DRAM and is kept), "
        "later, not worth (what would go is worth more), nothing (there is nothing to save).\n\n"
        "Archives and tiers: archive, one was made; archive_removed, let go of; archive_waits, a "
        "tier with a part of it does not work; archive_lost, it is damaged; tier_open, tier_state, "
        "tier_failed (it cannot be opened), tier_lost (its blocks cannot be read); host_fenced, a "
        "host that shares a tier was declared dead.\n\n"
        "fabric: another node came or went, or this one's standing in the cluster is another; it "
        "drains, or is drained.  handed_over: a chain came from another node, or a push ended.  "
        "codec: blocks cross encoded from or to a node, or do no more.\n\n"
        "gateway: it began to listen, or refused clients, passwords or values since the last time.",
    .options = options,
    .examples = examples,
    .run = run,
};
