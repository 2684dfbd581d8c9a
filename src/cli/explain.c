/* SPDX-License-Identifier: Apache-2.0
 *
 * weft explain: why blocks are not there: which went, which found no room, and what would have kept
 * them; and the story of one block across DRAM and the tiers below.
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/explain.h"

#define REASONS_MAX 16

static bool as_key, as_session;

static const struct cli_option options[] = {
    {"key", CLI_FLAG, NULL, &as_key, "the word is the beginning of a key, and no session"},
    {"session", CLI_FLAG, NULL, &as_session, "the word is a session's number or name, and no key"},
    {NULL},
};

static const char *const examples[] = {
    "what is missing, why, and what would keep more",
    "weft explain",
    "is a block there, and if not, what became of it",
    "weft explain 3f0c92ab51d07e66",
    "a session: where its chain is, what became of it, and what happens next",
    "weft explain --session chat-17",
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
    {"lent", "its domain had borrowed more than it is due, and gave it back for another domain",
     "enlarge the pool, or raise the domain's share, floor or priority (weft ls domains)"},
    {"removed", "someone dropped it with weft rm or weft_remove()", ""},
    {"corrupt", "its bytes did not match its checksum",
     "look for failing memory: journalctl -k | grep -i -e mce -e edac"},
    {"session", "its session waits or was told to go down, and nothing below took it",
     "weft ls tiers: is one not well?"},
    {"below", "left DRAM for a tier below, where it was written before; a get brings it up", ""},
    {"cold", "the last tier that had it let it go: it was the least recently used there",
     "give that tier more room (its size; of remote: weft fabric lend), or a further one below it: "
     "weftd --tier"},
    {"parent", "what it extends went, so it could not be found any more", ""},
    {"corrupt below", "on a tier, it was not what its checksum says",
     "look after the device: weft ls tiers, smartctl -a"},
    {"missing", "the tier that had it does not have it any more", "weft ls tiers"},
    {"lender", "the node that lent the memory it was in went, or let it go for room of its own",
     "weft events --what fabric says which; fabric.copies of 2 keeps it twice"},
    {"node", "only a node that went had it",
     "weft events --what fabric says which; what is on its tiers is found again when it is back"},
};

/* Why it was not written below when it left DRAM. */
static const struct {
    const char *word, *meaning, *mend;
} refusals_meanings[] = {
    {"not used again", "the tier takes only what was used again (admit: reused)",
     "admit: auto or always for the tier, or a larger pool"},
    {"not admitted", "no tier takes what leaves DRAM (admit: never)",
     "admit: auto or always for a tier"},
    {"tier busy", "the tier was behind with writing, and it was never used again",
     "admit: always for the tier, which puts wait for then; or a larger pool.ahead"},
    {"once",
     "it was wanted once, is little likely to be wanted again, and writes or room are short",
     "more room for the tier (its size), or admit: always"},
    {"slower", "to compute it is sooner than to read it from there",
     "a faster tier; or is pool.prefill_tokens_per_second too high?"},
    {"write", "what writing it takes from reads is more than it is worth", "admit: always"},
    {"wear",
     "the device may be written no more for now (dwpd), not it and what leads to it, or others are "
     "worth more to it",
     "a higher dwpd for the tier, if its data sheet has one"},
    {"room below", "what would have to go for it there is worth more",
     "more room for the tier (its size), or a further one"},
    {"tiers full", "the tiers were full of what may not go",
     "more room for the tier (its size; of remote: weft fabric lend), or fewer archives: weft "
     "session rm"},
    {"too large", "it is larger than any tier takes",
     "a larger tier (its size): a log's segment is a sixty-fourth of it and must hold a block"},
    {"lossy before",
     "it was stored with loss before, and what says so is its profile, which is not here",
     "put the profile back (weftd.yaml, profiles)"},
    {"tiers unusable", "no tier was well", "weft ls tiers says what is wrong"},
};

struct tally {
    const char *reason;
    uint64_t count, bytes;
    double *ages_ms; /* of those whose age the event says */
    size_t age_count;
};

/* Did the block go from where it could be had?  Copies that were not the last are no loss. */
static bool is_loss(const json_t *event)
{
    const char *kind = word(event, "what"), *reason = word(event, "reason");
    if (strcmp(kind, "let_go") == 0)
        return strcmp(reason, "cold") == 0 || strcmp(reason, "parent") == 0;
    /* Without a block it is told in words: of what another node wanted removed. */
    if (strcmp(kind, "remove") == 0)
        return *word(event, "key") != '\0';
    return strcmp(kind, "evict") == 0 || strcmp(kind, "missing") == 0 || strstr(kind, "corrupt");
}

static const char *reason_of(const json_t *event)
{
    bool tier = json_object_get(event, "tier") != NULL;
    const char *kind = word(event, "what"), *reason = word(event, "reason");
    if (strcmp(kind, "evict") == 0 && tier)
        return "below";
    if (strstr(kind, "corrupt"))
        return tier ? "corrupt below" : "corrupt";
    if (*word(event, "not_below"))
        return word(event, "not_below");
    return *reason ? reason : "unknown";
}

static const char *meaning_of(const char *reason, const char **mend)
{
    *mend = "";
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].reason, reason) == 0) {
            *mend = meanings[i].mend;
            return meanings[i].meaning;
        }
    for (size_t i = 0; i < sizeof refusals_meanings / sizeof refusals_meanings[0]; i++)
        if (strcmp(refusals_meanings[i].word, reason) == 0) {
            *mend = refusals_meanings[i].mend;
            return refusals_meanings[i].meaning;
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
        if (json_object_get(event, "age_ms"))
            tallies[i].ages_ms[tallies[i].age_count++] = (double)number(event, "age_ms");
    }
    return count;
}

/* What found no room: the requests that the events tell of, the blocks that the counters do. */
static json_t *refusals(struct cli *cli, const json_t *answer)
{
    uint64_t requests = 0, blocks = 0, for_worth = 0;
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
    json_array_foreach (json_object_get(domains, "domains"), index, domain) {
        blocks += number(domain, "full");
        for_worth += number(domain, "full_for_worth");
    }
    json_decref(domains);
    json_t *out = json_object();
    wf_cli_json_set(out, "requests", json_integer((json_int_t)requests));
    wf_cli_json_set(out, "blocks", json_integer((json_int_t)blocks));
    wf_cli_json_set(out, "for_worth", json_integer((json_int_t)for_worth));
    wf_cli_json_set(out, "last", text ? json_string(text) : json_null());
    if (!cli->json && (requests || blocks)) {
        printf("%llu block%s found no room and %s not stored since the node began, and what was to "
               "follow them in their chains is not counted\n",
               (unsigned long long)blocks, wf_cli_s(blocks), blocks == 1 ? "was" : "were");
        if (requests)
            printf("    %llu request%s, the last: %s\n", (unsigned long long)requests,
                   wf_cli_s(requests), text ? text : "");
        if (for_worth)
            printf(
                "    %llu of them because what would have had to go was worth more: they came in "
                "long requests, which have room in a larger pool, or over a tier\n",
                (unsigned long long)for_worth);
        puts("    to store more: enlarge the pool, or the domain's quota, share or floor (weft ls "
             "domains shows them), or end sessions");
    }
    return out;
}

/* What the sums are of: all that happened, or what the ring of events still has. */
static void scope_print(struct cli *cli, const json_t *answer, int count)
{
    uint64_t kept = json_array_size(json_object_get(answer, "events"));
    uint64_t lost = number(answer, "lost");
    if (cli->json)
        return;
    if (lost)
        printf("%s the last %llu event%s; %llu before %s overwritten\n",
               count ? "that is of" : "no block went, of", (unsigned long long)kept, wf_cli_s(kept),
               (unsigned long long)lost, kept == 1 ? "it are" : "them are");
    else if (!count)
        puts("no block went since the node began");
}

/* One reason, and its ages done with.  A tier does not tell how long what it lets go of was not
 * used, so of such a reason no age is known. */
static json_t *tally_show(const struct cli *cli, struct tally *tally)
{
    char size[32];
    const char *mend, *meaning = meaning_of(tally->reason, &mend);
    double age_ms = wf_cli_percentile(tally->ages_ms, tally->age_count, 0.5);
    json_t *entry = json_object();
    wf_cli_json_set(entry, "reason", json_string(tally->reason));
    wf_cli_json_set(entry, "blocks", json_integer((json_int_t)tally->count));
    wf_cli_json_set(entry, "bytes", json_integer((json_int_t)tally->bytes));
    wf_cli_json_set(entry, "age_ms_p50",
                    tally->age_count ? wf_cli_json_real(age_ms, 0) : json_null());
    wf_cli_json_set(entry, "meaning", json_string(meaning));
    wf_cli_json_set(entry, "mend", json_string(mend));
    if (!cli->json) {
        printf("%llu block%s, %s: %s%s%s\n", (unsigned long long)tally->count,
               wf_cli_s(tally->count), wf_cli_size(tally->bytes, size, sizeof size), tally->reason,
               *meaning ? ", " : "", meaning);
        if (tally->age_count)
            printf("    unused for %.1f s before (median)\n", age_ms / 1e3);
        if (*mend)
            printf("    to keep more: %s\n", mend);
    }
    free(tally->ages_ms);
    return entry;
}

static int explain_all(struct cli *cli, const json_t *answer)
{
    struct tally tallies[REASONS_MAX];
    int count = tally_events(json_object_get(answer, "events"), tallies);
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, tally_show(cli, &tallies[i]));
    size_t failed = wf_cli_failed_say(cli);
    scope_print(cli, answer, count);
    json_t *refused = refusals(cli, answer);
    if (!refused || !cli->json) {
        json_decref(list);
        json_decref(refused);
        return refused ? failed ? CLI_MISS : CLI_OK : CLI_NODE;
    }
    json_t *out = json_object();
    wf_cli_json_set(out, "reasons", list);
    wf_cli_json_set(out, "not_stored", refused);
    wf_cli_json_set(out, "events_lost", json_integer((json_int_t)number(answer, "lost")));
    wf_cli_json_set(out, "failed_tiers", wf_cli_failed_list(cli));
    wf_cli_json_print(out);
    return failed ? CLI_MISS : CLI_OK;
}

/* Blocks of `list` whose keys begin so go to `out`. */
static void present_keep(const json_t *list, const char *key, json_t *out)
{
    size_t index;
    json_t *block;
    json_array_foreach ((json_t *)(uintptr_t)list, index, block)
        if (strncmp(word(block, "key"), key, strlen(key)) == 0)
            json_array_append(out, block);
}

/* The row of the same key; NULL when there is none. */
static json_t *row_of(const json_t *list, const char *key)
{
    size_t index;
    json_t *row;
    json_array_foreach ((json_t *)(uintptr_t)list, index, row)
        if (strcmp(word(row, "key"), key) == 0)
            return row;
    return NULL;
}

/* " and " and the like, and the next word of a list, as far as there is room. */
static void word_add(char *out, size_t capacity, const char *between, const json_t *next)
{
    size_t used = strlen(out);
    snprintf(out + used, capacity - used, "%s%s", between, json_string_value(next));
}

/* "nvme0 and s3", "nvme0 and peers (other nodes with it: m, b)" */
static const char *tiers_text(const json_t *row, char *out, size_t capacity)
{
    size_t index;
    json_t *tier, *node;
    out[0] = '\0';
    json_array_foreach (json_object_get(row, "tiers"), index, tier)
        word_add(out, capacity, index ? " and " : "", tier);
    json_array_foreach (json_object_get(row, "nodes"), index, node)
        word_add(out, capacity, index ? ", " : " (other nodes with it: ", node);
    if (index)
        snprintf(out + strlen(out), capacity - strlen(out), ")");
    return out;
}

static void present_print(const json_t *dram, const json_t *below)
{
    char size[32], tiers[1400]; /* of 16 nodes, with names of up to 63 bytes */
    size_t index;
    json_t *row;
    json_array_foreach ((json_t *)(uintptr_t)dram, index, row) {
        const json_t *copy = row_of(below, word(row, "key"));
        bool committed = strcmp(word(row, "state"), "committed") == 0;
        printf("%s is %s%s%s%s: %s, block %llu of its chain\n", word(row, "key"),
               committed ? "there, in DRAM"
               : copy    ? "there, on its way into DRAM"
                         : "being written",
               copy ? " and on " : "", copy ? tiers_text(copy, tiers, sizeof tiers) : "",
               copy && json_is_true(json_object_get(copy, "archived")) ? ", archived" : "",
               wf_cli_size(number(row, "bytes"), size, sizeof size),
               (unsigned long long)number(row, "depth"));
    }
    json_array_foreach ((json_t *)(uintptr_t)below, index, row)
        if (!row_of(dram, word(row, "key")))
            printf("%s is %s, below DRAM on %s%s%s%s: %s, block %llu of its chain\n",
                   word(row, "key"), *word(row, "too_lossy") ? "not found" : "there",
                   tiers_text(row, tiers, sizeof tiers),
                   *word(row, "too_lossy")
                       ? " with more loss than its domain allows now, at quality "
                       : "",
                   word(row, "too_lossy"),
                   json_is_true(json_object_get(row, "archived")) ? ", archived" : "",
                   wf_cli_size(number(row, "bytes"), size, sizeof size),
                   (unsigned long long)number(row, "depth"));
}

#define ENGINES_ASKED 8 /* keys */

/* Which engines have in HBM, or elsewhere, what begins so, as far as engines are heard. */
static json_t *engines_find(struct cli *cli, const char *key, const json_t *dram,
                            const json_t *below)
{
    json_t *found = json_array(), *keys = json_array(), *each, *row, *answer;
    size_t index, inside;
    char question[96];
    if (strlen(key) == 64)
        json_array_append_new(keys, json_string(key));
    json_array_foreach ((json_t *)(uintptr_t)dram, index, row)
        if (strlen(key) != 64)
            json_array_append(keys, json_object_get(row, "key"));
    json_array_foreach ((json_t *)(uintptr_t)below, index, row)
        if (strlen(key) != 64 && !row_of(dram, word(row, "key")))
            json_array_append(keys, json_object_get(row, "key"));
    json_array_foreach (keys, index, each) {
        snprintf(question, sizeof question, "engines key=%.64s", json_string_value(each));
        if (index == ENGINES_ASKED || wf_cli_query(cli, question, 0, 0, &answer) != CLI_OK)
            break;
        json_array_foreach (json_object_get(answer, "engines"), inside, row)
            json_array_append(found, row);
        json_decref(answer);
    }
    json_decref(keys);
    return found;
}

static void engines_print(const json_t *engines)
{
    size_t index, inside;
    json_t *row, *medium;
    json_array_foreach ((json_t *)(uintptr_t)engines, index, row) {
        printf("%s is in engine %s: ", word(row, "key"), word(row, "engine"));
        json_array_foreach (json_object_get(row, "media"), inside, medium) {
            const char *name = json_string_value(medium);
            printf("%s%s", inside ? ", " : "", strcmp(name, "GPU") == 0 ? "HBM" : name);
        }
        puts(", as it says");
    }
}

/* What is there now of keys that begin so, in DRAM and below. */
static int present_find(struct cli *cli, const char *key, json_t **out_dram, json_t **out_below)
{
    json_t *answer;
    char question[96];
    int code = wf_cli_query(cli, "blocks", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    *out_dram = json_array();
    *out_below = json_array();
    present_keep(json_object_get(answer, "blocks"), key, *out_dram);
    json_decref(answer);
    snprintf(question, sizeof question, "below key=%.64s", key);
    code = wf_cli_query(cli, question, 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    present_keep(json_object_get(answer, "below"), key, *out_below);
    json_decref(answer);
    if (!cli->json)
        present_print(*out_dram, *out_below);
    return CLI_OK;
}

/* What happened, to one block, in words. */
static void move_print(const json_t *event)
{
    static const struct {
        const char *what, *reason, *text;
    } stories[] = {
        {"demote", "room", "written to %s, because DRAM needed its room"},
        {"demote", "ahead", "written to %s ahead of need"},
        {"demote", "session", "written to %s, because its session waits or was told to go down"},
        {"demote", "stop", "written to %s, because the node stopped"},
        {"promote", "get", "read back from %s, because a get waited for it"},
        {"promote", "prefetch", "read back from %s, because a prefetch asked for it"},
        {"promote", "hint", "read back from %s, because its session comes back"},
        {"move", "cold", "moved to %s, because the tier above it needed its room"},
        {"let_go", "cold", "let go of by %s: it was the least recently used there"},
        {"let_go", "spare", "let go of by %s, where it was a spare copy"},
        {"let_go", "parent", "let go of by %s, because what it extends went"},
        {"let_go", "removed", "removed from %s with weft rm or weft_remove()"},
        {"let_go", "quality",
         "dropped from %s: it lay there with more loss than its domain allows"},
        {"let_go", "profile",
         "dropped from %s: it was put again, and what lay there needs a profile that is not here"},
        {"missing", "missing", "not on %s any more"},
        {"missing", "lender",
         "not on %s any more: the node that lent the memory went or let it go"},
        {"missing", "node", "not on %s any more: the node that had it went"},
        {"load_failed", "corrupt", "not read back: its copy on %s is corrupt"},
        {"load_failed", "missing", "not read back: %s does not have it any more"},
        {"load_failed", "timeout", "not read back: %s took too long"},
        {"load_failed", "node", "not read back: the node that had it, for %s, went meanwhile"},
        {"load_failed", "removed", "not read back from %s: it was removed meanwhile"},
        {"load_failed", "busy", "not read back: who has it on %s could not give it in time"},
        {"load_failed", "limit",
         "not read back: who has it on %s may send too little for anybody to wait for it"},
        {"load_failed", "device", "not read back: the device of %s failed"},
        {"load_failed", "profile",
         "not read back from %s: the profile that it was stored by is not here"},
        {"load_failed", "parent", "not read back from %s: what it extends could not be"},
        {"corrupt", "corrupt", "found corrupt on %s, and dropped there"},
    };
    const char *what = word(event, "what"), *reason = word(event, "reason");
    for (size_t i = 0; i < sizeof stories / sizeof stories[0]; i++) {
        if (strcmp(stories[i].what, what) != 0 || strcmp(stories[i].reason, reason) != 0)
            continue;
        const char *text = stories[i].text, *place = strstr(text, "%s");
        printf("%.*s%s%s", (int)(place - text), text, word(event, "tier"), place + 2);
        if (json_object_get(event, "took_us"))
            printf("; it took %.1f ms", (double)number(event, "took_us") / 1e3);
        const char *quality = word(event, "quality");
        if (*quality)
            printf("; with loss, at quality %s, by codec transform", quality);
        return;
    }
    printf("%s %s %s", what, reason, word(event, "tier"));
}

/* Why it and no other, as the policy said when it went. */
static void why_print(const json_t *why)
{
    const char *rule = word(why, "rule"), *hint = word(why, "hint");
    unsigned long long among = (unsigned long long)number(why, "candidates");
    if (strcmp(rule, "beside") == 0) {
        printf("; it lay beside what had come free, and one piece was needed");
        return;
    }
    printf("; %s%s of %llu end%s of chains",
           json_is_true(json_object_get(why, "elsewhere"))
               ? "another node has it, too, and of those that come before it nobody else has any; "
               : "",
           strcmp(rule, "lru_leaf") == 0 ? "the least recently used"
           : strcmp(rule, "lfuda") == 0  ? "the least frequently used"
                                         : "the least valuable",
           among, wf_cli_s(among));
    if (!json_object_get(why, "value"))
        return;
    double value = json_number_value(json_object_get(why, "value"));
    double chance = json_number_value(json_object_get(why, "chance"));
    if (strcmp(rule, "weft") != 0)
        printf(", for the guard has it go by %s now and not by what the model expects",
               strcmp(rule, "lru_leaf") == 0 ? "last use" : "count of uses");
    printf(": %.2g hits a block-second expected, %.0f %% chance of another use, %.0f s since its "
           "last (turn %llu), %s%s",
           value, 100 * chance, json_number_value(json_object_get(why, "age_s")),
           (unsigned long long)number(why, "turn"), *hint ? "said to be " : "no hint", hint);
}

/* What it was worth to the tier that came nearest to taking it. */
static void refusal_print(const json_t *refusal)
{
    static const struct {
        const char *key, *of;
    } costs[] = {{"write_s", "of writing"}, {"wear_s", "of wear"}, {"room_s", "of room"}};
    const json_t *hits = json_object_get(refusal, "hits");
    double saved_s = json_number_value(json_object_get(refusal, "saved_s"));
    printf(": %.0f %% chance of another use",
           100 * json_number_value(json_object_get(refusal, "chance")));
    if (hits)
        printf(", %.3g hits expected while it would stay", json_number_value(hits));
    printf(", each saves %.3g ms; it would cost", 1e3 * saved_s);
    for (size_t i = 0; i < sizeof costs / sizeof costs[0]; i++) {
        const json_t *cost = json_object_get(refusal, costs[i].key);
        if (!cost) /* one of several domains is not told */
            continue;
        if (json_is_number(cost))
            printf("%s %.3g ms %s", i ? "," : "", 1e3 * json_number_value(cost), costs[i].of);
        else
            printf("%s more writes than are left", i ? "," : "");
    }
}

/* Did it go by an order that knows nothing of worth? */
static bool by_other_order(const json_t *event)
{
    const char *rule = word(json_object_get(event, "why"), "rule");
    return strcmp(word(event, "reason"), "room") == 0 && *rule && strcmp(rule, "weft") != 0;
}

static void loss_print(const json_t *event)
{
    const char *mend, *tier = word(event, "tier"), *refused = word(event, "not_below");
    if (*tier)
        printf("left DRAM (%s) and stayed on %s, from where a get brings it up; unused for %.1f s",
               word(event, "reason"), tier, (double)number(event, "age_ms") / 1e3);
    else
        printf("left DRAM (%s): %s; unused for %.1f s", word(event, "reason"),
               by_other_order(event) ? "a new block needed its place"
                                     : meaning_of(word(event, "reason"), &mend),
               (double)number(event, "age_ms") / 1e3);
    if (json_object_get(event, "why"))
        why_print(json_object_get(event, "why"));
    if (*word(event, "for"))
        printf("; its place went to domain %s", word(event, "for"));
    for (size_t i = 0; i < sizeof refusals_meanings / sizeof refusals_meanings[0]; i++)
        if (strcmp(refusals_meanings[i].word, refused) == 0)
            printf("; not written below: %s", refusals_meanings[i].meaning);
    if (json_object_get(event, "refusal"))
        refusal_print(json_object_get(event, "refusal"));
}

/* Of the chain that ends with that key. */
static void prefetch_print(const json_t *event)
{
    uint64_t session = number(event, "session");
    double due_s = real(event, "due_in_ms") / 1e3;
    if (session)
        printf("for session %llu, ", (unsigned long long)session);
    if (json_is_number(json_object_get(event, "due_in_ms")))
        printf(due_s < 0 ? "which was due %.1f s before: " : "due in %.1f s: ", fabs(due_s));
    wf_explain_prefetch(event);
}

/* Of a request, by its first and its last block that were refused. */
static void full_print(const json_t *event)
{
    uint64_t blocks = number(event, "blocks");
    printf("not stored: %s", word(event, "text"));
    if (blocks > 1)
        printf("; nor were others of its request, %llu in all, up to %s",
               (unsigned long long)blocks, word(event, "last"));
}

void wf_explain_story(const json_t *event, size_t more, const json_t *last)
{
    char clock[40];
    const char *what = word(event, "what");
    wf_cli_clock((int64_t)number(event, "time_ms"), clock, sizeof clock);
    printf("%s  %s  ", clock, word(event, "key"));
    if (strcmp(what, "evict") == 0 || strcmp(what, "remove") == 0)
        loss_print(event);
    else if (strcmp(what, "prefetch") == 0)
        prefetch_print(event);
    else if (strcmp(what, "full") == 0)
        full_print(event);
    else
        move_print(event);
    if (more) {
        wf_cli_clock((int64_t)number(last, "time_ms"), clock, sizeof clock);
        printf("; and so %zu more, the last of them %s at %s", more, word(last, "key"), clock);
    }
    putchar('\n');
}

/* Does the node keep only a part of the directory of who has what? */
static bool in_parts(struct cli *cli)
{
    json_t *answer = wf_cli_ask(cli, "fabric");
    bool parts = number(json_object_get(answer, "self"), "directory_parts") > 0;
    json_decref(answer);
    return parts;
}

/* Is it there?  Then its events, by as many digits as both sides have. */
static int explain_key(struct cli *cli, const json_t *answer, const char *key)
{
    json_t *dram = NULL, *below = NULL, *event, *found = json_array();
    size_t digits = strlen(key) < KEY_DIGITS ? strlen(key) : KEY_DIGITS, index;
    char opening[CLI_OPENING_MAX];
    int code = present_find(cli, key, &dram, &below);
    if (code == CLI_OK && json_array_size(dram) + json_array_size(below) == 0 &&
        wf_cli_opening_wait(cli)) {
        json_decref(dram);
        json_decref(below);
        code = present_find(cli, key, &dram, &below);
    }
    if (code != CLI_OK)
        return code;
    json_t *engines = engines_find(cli, key, dram, below);
    if (!cli->json)
        engines_print(engines);
    json_array_foreach (json_object_get(answer, "events"), index, event) {
        const char *of = json_string_value(json_object_get(event, "key"));
        if ((!of || strncmp(of, key, digits) != 0) &&
            (!*word(event, "last") || strncmp(word(event, "last"), key, digits) != 0))
            continue;
        json_array_append(found, event);
    }
    size_t there = json_array_size(dram) + json_array_size(below);
    size_t count = json_array_size(found) + there + json_array_size(engines),
           failed = there ? 0 : wf_cli_failed_say(cli);
    if (cli->json) {
        json_t *out = json_object();
        wf_cli_json_set(out, "present", dram);
        wf_cli_json_set(out, "below", below);
        wf_cli_json_set(out, "engines", engines);
        wf_cli_json_set(out, "events", found);
        wf_cli_json_set(out, "failed_tiers", wf_cli_failed_list(cli));
        wf_cli_json_print(out);
    } else {
        if (json_array_size(found) && !there && !json_array_size(engines))
            printf("%s is not there%s\n", key,
                   failed ? ", unless on a tier that failed" : " any more");
        json_array_foreach (found, index, event)
            wf_explain_story(event, 0, event);
        json_decref(dram);
        json_decref(below);
        json_decref(engines);
        json_decref(found);
        if (!count && wf_cli_opening(cli, opening, sizeof opening))
            printf("%s is not known yet: %s still being opened, and what lies there is found "
                   "meanwhile; ask again later\n",
                   key, opening);
        else if (!count && failed)
            printf("%s is not known: it is not where this node can look, and may be on a tier that "
                   "failed\n",
                   key);
        else if (!count)
            printf("%s is not there, and no event tells of it: it was never stored in this domain, "
                   "or went before the oldest event that is kept%s\n",
                   key,
                   in_parts(cli) ? ", or is on a node that was not asked: weft match --within 1000 "
                                   "asks"
                                 : "");
    }
    return count ? CLI_OK : CLI_MISS;
}

/* As a key is written, when it may be one. */
static const char *lowered(const char *which)
{
    static char key[65];
    size_t length = strlen(which);
    if (length >= sizeof key || strspn(which, "0123456789abcdefABCDEF") != length)
        return which;
    for (size_t i = 0; i <= length; i++)
        key[i] = (char)tolower((unsigned char)which[i]);
    return key;
}

static bool is_key(const char *which)
{
    return strlen(which) >= 4 && strspn(which, "0123456789abcdef") == strlen(which);
}

/* A session, when there is one that is called so; else a key, when it may be one. */
static int explain_word(struct cli *cli, const json_t *answer, const char *which)
{
    bool known = false;
    const char *key = lowered(which);
    if (!as_key) {
        int code = wf_explain_session(cli, answer, which, &known);
        if (known)
            return code;
    }
    if (as_session || !is_key(key))
        return wf_cli_fail(
            cli, CLI_MISS,
            "there is no session '%s' in this domain%s; weft ls sessions lists those "
            "that there are",
            which,
            as_session ? "" : ", and it is no key either, for that is four or more hex digits");
    return explain_key(cli, answer, key);
}

static int run(struct cli *cli)
{
    const char *which = cli->word_count ? cli->words[0] : NULL;
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    if (as_key && as_session)
        return wf_cli_fail(cli, CLI_USAGE, "it is --key or --session, not both");
    if (!which && (as_key || as_session))
        return wf_cli_fail(cli, CLI_USAGE, "--%s of what?  Give it as the word behind",
                           as_key ? "key" : "session");
    if (as_key && !is_key(lowered(which)))
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is no key; give four or more of its hex digits",
                           which);
    int code = wf_cli_connect(cli);
    json_t *answer;
    if (code == CLI_OK)
        code = wf_cli_query(cli, "events", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    if (which)
        code = explain_word(cli, answer, which);
    else
        code = explain_all(cli, answer);
    json_decref(answer);
    return code;
}

const struct cli_command wf_cmd_explain = {
    .name = "explain",
    .summary = "why blocks are not there, and what would have kept them",
    .synopsis = "[KEY|SESSION]",
    .about =
        "Sums up the node's events: how many blocks went for which reason, how long they had "
        "not been used, and what to change so that more stay; and how many found no room.  "
        "With a KEY, or the first four or more hex digits of one, it says whether that block "
        "is there, in DRAM or on which tiers below, and in which engine's HBM, as far as weft ls "
        "engines hears of it, and what became of it: when it was "
        "written below and why, when it was read back and for whom, where it was let go; of the "
        "first and the last block of what found no room it says why they were not stored.\n\n"
        "With a SESSION, its number or its name as weft ls sessions shows them, it says what that "
        "session said last and when it is due back, where the blocks of its chain are, what the "
        "policy expects of them and how many others go before, whether and when they are brought "
        "up, and what became of those that it had: evicted, written below, refused there, fetched "
        "ahead or not, each with its reasons.  A word that may be both is taken as a session when "
        "there is one, which is said; --key and --session choose.\n\n"
        "Exits with 1 when nothing is known of the key or session, and without one when a tier "
        "failed, so that what it held is not known.",
    .options = options,
    .examples = examples,
    .run = run,
};
