/* SPDX-License-Identifier: Apache-2.0
 *
 * weft explain: why blocks are not there: which went, which found no room, and what would have kept
 * them.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"

#define REASONS_MAX 16
#define KEY_DIGITS 16 /* of a key, that an event says */

static const char *const examples[] = {
    "what is missing, why, and what would keep more",
    "weft explain",
    "is a block there, and if not, what became of it",
    "weft explain 3f0c92ab51d07e66",
    NULL,
};

/* What a reason means to who runs the node. */
static const struct {
    const char *reason, *meaning, *mend;
} meanings[] = {
    {"room", "it was least worth keeping when a new block needed its place",
     "enlarge the pool: pool.size in the configuration, or weft lend SIZE"},
    {"quota", "its domain had reached its quota", "raise the domain's quota in the configuration"},
    {"reclaim", "the host took memory back", "weft lend SIZE gives it to the pool again"},
    {"removed", "someone dropped it with weft rm or weft_remove()", ""},
    {"corrupt", "its bytes did not match its checksum",
     "look for failing memory: journalctl -k | grep -i -e mce -e edac"},
};

struct tally {
    const char *reason;
    uint64_t count, bytes;
    double *ages_ms;
    size_t age_count;
};

static uint64_t number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static bool is_loss(const json_t *event)
{
    const char *kind = json_string_value(json_object_get(event, "what"));
    return kind &&
           (strcmp(kind, "evict") == 0 || strcmp(kind, "remove") == 0 || strstr(kind, "corrupt"));
}

static const char *reason_of(const json_t *event)
{
    const char *reason = json_string_value(json_object_get(event, "reason"));
    const char *kind = json_string_value(json_object_get(event, "what"));
    return reason ? reason : kind && strstr(kind, "corrupt") ? "corrupt" : "unknown";
}

static const char *meaning_of(const char *reason, const char **mend)
{
    *mend = "";
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].reason, reason) == 0) {
            *mend = meanings[i].mend;
            return meanings[i].meaning;
        }
    return "";
}

static int tally_events(const json_t *events, struct tally *tallies)
{
    int count = 0;
    size_t index;
    json_t *event;
    json_array_foreach (events, index, event) {
        if (!is_loss(event))
            continue;
        const char *reason = reason_of(event);
        int i = 0;
        while (i < count && strcmp(tallies[i].reason, reason) != 0)
            i++;
        if (i == REASONS_MAX)
            continue;
        if (i == count) {
            tallies[count++] =
                (struct tally){.reason = reason,
                               .ages_ms = wf_cli_alloc(json_array_size(events) * sizeof(double))};
        }
        tallies[i].count++;
        tallies[i].bytes += number(event, "bytes");
        tallies[i].ages_ms[tallies[i].age_count++] = (double)number(event, "age_ms");
    }
    return count;
}

/* What found no room: the requests that the events tell of, the blocks that the counters do. */
static json_t *refusals(struct cli *cli, const json_t *answer)
{
    uint64_t requests = 0, blocks = 0;
    const char *text = NULL;
    size_t index;
    json_t *event, *domain, *domains = NULL;
    json_array_foreach (json_object_get(answer, "events"), index, event) {
        const char *kind = json_string_value(json_object_get(event, "what"));
        if (!kind || strcmp(kind, "full") != 0)
            continue;
        requests++;
        text = json_string_value(json_object_get(event, "text"));
    }
    if (wf_cli_query(cli, "domains", 0, 0, &domains) != CLI_OK)
        return NULL;
    json_array_foreach (json_object_get(domains, "domains"), index, domain)
        blocks += number(domain, "full");
    json_decref(domains);
    json_t *out = json_object();
    wf_cli_json_set(out, "requests", json_integer((json_int_t)requests));
    wf_cli_json_set(out, "blocks", json_integer((json_int_t)blocks));
    wf_cli_json_set(out, "last", text ? json_string(text) : json_null());
    if (!cli->json && (requests || blocks)) {
        printf("%llu block%s found no room and %s not stored since the node began\n",
               (unsigned long long)blocks, wf_cli_s(blocks), blocks == 1 ? "was" : "were");
        if (requests)
            printf("    %llu request%s, the last: %s\n", (unsigned long long)requests,
                   wf_cli_s(requests), text ? text : "");
        puts("    to store more: enlarge the pool or the quota (weft status shows both), or end "
             "sessions");
    }
    return out;
}

static int explain_all(struct cli *cli, const json_t *answer)
{
    struct tally tallies[REASONS_MAX];
    int count = tally_events(json_object_get(answer, "events"), tallies);
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        const char *mend, *meaning = meaning_of(tallies[i].reason, &mend);
        double age_ms = wf_cli_percentile(tallies[i].ages_ms, tallies[i].age_count, 0.5);
        char size[32];
        json_t *entry = json_object();
        wf_cli_json_set(entry, "reason", json_string(tallies[i].reason));
        wf_cli_json_set(entry, "blocks", json_integer((json_int_t)tallies[i].count));
        wf_cli_json_set(entry, "bytes", json_integer((json_int_t)tallies[i].bytes));
        wf_cli_json_set(entry, "age_ms_p50", wf_cli_json_real(age_ms, 0));
        wf_cli_json_set(entry, "meaning", json_string(meaning));
        wf_cli_json_set(entry, "mend", json_string(mend));
        json_array_append_new(list, entry);
        if (!cli->json)
            printf("%llu block%s, %s: %s%s%s\n    unused for %.1f s before (median)\n%s%s%s",
                   (unsigned long long)tallies[i].count, wf_cli_s(tallies[i].count),
                   wf_cli_size(tallies[i].bytes, size, sizeof size), tallies[i].reason,
                   *meaning ? ", " : "", meaning, age_ms / 1e3, *mend ? "    to keep more: " : "",
                   mend, *mend ? "\n" : "");
        free(tallies[i].ages_ms);
    }
    if (!cli->json && !count)
        puts("no block went, as far back as the node's events reach");
    json_t *refused = refusals(cli, answer);
    if (!refused || !cli->json) {
        json_decref(list);
        json_decref(refused);
        return refused ? CLI_OK : CLI_NODE;
    }
    json_t *out = json_object();
    wf_cli_json_set(out, "reasons", list);
    wf_cli_json_set(out, "not_stored", refused);
    wf_cli_json_set(out, "events_lost", json_integer((json_int_t)number(answer, "lost")));
    wf_cli_json_print(out);
    return CLI_OK;
}

/* The blocks that are there now and whose keys begin so. */
static int present_find(struct cli *cli, const char *key, json_t **out)
{
    json_t *answer, *block;
    int code = wf_cli_query(cli, "blocks", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    *out = json_array();
    size_t index;
    json_array_foreach (json_object_get(answer, "blocks"), index, block) {
        const char *of = json_string_value(json_object_get(block, "key"));
        if (!of || strncmp(of, key, strlen(key)) != 0)
            continue;
        json_array_append(*out, block);
        const char *state = json_string_value(json_object_get(block, "state"));
        bool committed = state && strcmp(state, "committed") == 0;
        char size[32];
        if (!cli->json)
            printf("%s is %s: %s, block %llu of its chain\n", of,
                   committed ? "there" : "being written",
                   wf_cli_size(number(block, "bytes"), size, sizeof size),
                   (unsigned long long)number(block, "depth"));
    }
    json_decref(answer);
    return CLI_OK;
}

/* Is it there?  Then its events, by as many digits as both sides have. */
static int explain_key(struct cli *cli, const json_t *answer, const char *key)
{
    json_t *present = NULL;
    int code = present_find(cli, key, &present);
    if (code != CLI_OK)
        return code;
    size_t digits = strlen(key) < KEY_DIGITS ? strlen(key) : KEY_DIGITS;
    json_t *found = json_array();
    size_t index;
    json_t *event;
    json_array_foreach (json_object_get(answer, "events"), index, event) {
        const char *of = json_string_value(json_object_get(event, "key"));
        if (!of || strncmp(of, key, digits) != 0)
            continue;
        json_array_append(found, event);
        const char *mend, *meaning = meaning_of(reason_of(event), &mend);
        const char *beneficiary = json_string_value(json_object_get(event, "for"));
        if (!cli->json && is_loss(event))
            printf("%s went (%s): %s; unused for %.1f s%s%s\n", of, reason_of(event), meaning,
                   (double)number(event, "age_ms") / 1e3, beneficiary ? "; for " : "",
                   beneficiary ? beneficiary : "");
    }
    size_t count = json_array_size(found) + json_array_size(present);
    if (cli->json) {
        json_t *out = json_object();
        wf_cli_json_set(out, "present", present);
        wf_cli_json_set(out, "events", found);
        wf_cli_json_print(out);
    } else {
        json_decref(present);
        json_decref(found);
        if (!count)
            printf("%s is not there, and no event tells of it: it was never stored in this domain, "
                   "or went before the oldest event that is kept\n",
                   key);
    }
    return count ? CLI_OK : CLI_MISS;
}

static int run(struct cli *cli)
{
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    const char *key = cli->word_count ? cli->words[0] : NULL;
    if (key && (strlen(key) < 4 || strspn(key, "0123456789abcdef") != strlen(key)))
        return wf_cli_fail(cli, CLI_USAGE,
                           "'%s' is no key; give four or more of its hex digits, in lower case",
                           key);
    int code = wf_cli_connect(cli);
    json_t *answer;
    if (code == CLI_OK)
        code = wf_cli_query(cli, "events", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    if (key)
        code = explain_key(cli, answer, key);
    else
        code = explain_all(cli, answer);
    json_decref(answer);
    return code;
}

const struct cli_command wf_cmd_explain = {
    .name = "explain",
    .summary = "why blocks are not there, and what would have kept them",
    .synopsis = "[KEY]",
    .about = "Sums up the node's events: how many blocks went for which reason, how long they had "
             "not been used, and what to change so that more stay; and how many found no room.  "
             "With a KEY, or the first four or more hex digits of one, it says whether that block "
             "is there, and what became of it if it went.\n\n"
             "Exits with 1 when nothing is known of the key.",
    .examples = examples,
    .run = run,
};
