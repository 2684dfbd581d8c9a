/* SPDX-License-Identifier: Apache-2.0
 *
 * weft explain SESSION: what it said, where its chain is, what happened to its blocks, what the
 * policy thinks of it, and what would be done next.
 *
 * Events name blocks, not sessions.  Those of a session are of blocks that are in its chain now,
 * and of those that were: an eviction names what its block extended, so a chain that went is
 * followed from its end.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/explain.h"

#define SHOWN 20u /* lines of its events, the newest; those in a row that are alike are one */

/* ----------------------------------------------------------------------------------- its events */

static bool among(const json_t *keys, const char *key)
{
    return *key && json_object_get(keys, key);
}

/* The keys of its chain as members of an object, and of what went from it: from the end of what is
 * known up, as long as evictions tell. */
static json_t *keys_of(const json_t *about, const json_t *events)
{
    json_t *keys = json_object(), *key, *event;
    size_t index;
    char tip[KEY_DIGITS + 1];
    json_array_foreach (json_object_get(about, "keys"), index, key)
        json_object_set_new(keys, json_string_value(key), json_true());
    snprintf(tip, sizeof tip, "%s", word(about, "tip"));
    if (*tip)
        json_object_set_new(keys, tip, json_true());
    /* A block goes after what extends it: its eviction is the later event. */
    json_array_foreach ((json_t *)(uintptr_t)events, index, event)
        if (among(keys, word(event, "key")) && *word(event, "parent"))
            json_object_set_new(keys, word(event, "parent"), json_true());
    return keys;
}

static json_t *events_of(const json_t *about, const json_t *events)
{
    const json_t *session = json_object_get(about, "session");
    json_t *keys = keys_of(about, events), *found = json_array(), *event;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)events, index, event) {
        const char *domain = word(event, "domain");
        bool its = number(event, "session") == number(session, "session");
        if (strcmp(domain, word(session, "domain")) != 0)
            continue;
        if (json_object_get(event, "session") && number(event, "session")
                ? its
                : among(keys, word(event, "key")))
            json_array_append(found, event);
    }
    json_decref(keys);
    return found;
}

/* ------------------------------------------------------------------------------------- in words */

static void state_print(const json_t *about, const json_t *session, bool digits)
{
    const char *name = word(session, "name");
    uint64_t alike = number(about, "of_that_name");
    printf("session %llu", (unsigned long long)number(session, "session"));
    if (*name)
        printf(" '%s'", name);
    printf(" of domain %s", word(session, "domain"));
    if (alike > 1)
        printf(", the last used of %llu of that name", (unsigned long long)alike);
    if (digits)
        printf(" (for a block whose key begins so: --key)");
    printf("\n  %s for %.1f s, priority %llu", word(session, "state"), real(session, "state_s"),
           (unsigned long long)number(session, "priority"));
    const json_t *due = json_object_get(session, "due_in_ms");
    double due_s = json_number_value(due) / 1e3;
    if (json_is_number(due) && due_s >= 0)
        printf("; said to be back in %.1f s, due in %.1f s",
               (double)number(session, "returns_in_ms") / 1e3, due_s);
    else if (json_is_number(due))
        printf("; it was due %.1f s ago%s", -due_s,
               strcmp(word(session, "return"), "late") == 0 ? ", and counts as not kept" : "");
    else
        printf("; it did not say when it will be back");
    if (number(session, "deadline_ms"))
        printf("; first token due %llu ms after its hint%s",
               (unsigned long long)number(session, "deadline_ms"),
               json_is_true(json_object_get(session, "hurried"))
                   ? ", which is near: its domain counts one class higher"
                   : "");
    putchar('\n');
}

static void chain_print(const json_t *about)
{
    const json_t *chain = json_object_get(about, "chain");
    uint64_t blocks = number(chain, "blocks"), found = number(chain, "found");
    const char *tier;
    json_t *count;
    char size[32];
    if (!*word(about, "tip")) {
        puts("  no chain yet");
        return;
    }
    printf("  its chain: %llu block%s, %s", (unsigned long long)blocks, wf_cli_s(blocks),
           wf_cli_size(number(chain, "bytes"), size, sizeof size));
    printf("; %llu in DRAM", (unsigned long long)number(chain, "dram"));
    json_object_foreach (json_object_get(chain, "tiers"), tier, count)
        printf(", %llu on %s", (unsigned long long)json_integer_value(count), tier);
    if (number(chain, "archived"))
        printf(", %llu archived", (unsigned long long)number(chain, "archived"));
    if (blocks > found)
        printf("; %llu gone from everywhere, or behind what is gone",
               (unsigned long long)(blocks - found));
    else if (!found)
        printf("; gone from everywhere");
    putchar('\n');
}

static void policy_print(const json_t *about)
{
    const json_t *policy = json_object_get(about, "policy");
    const char *hint = word(policy, "hint"), *stays = word(policy, "stays"),
               *aside = word(policy, "aside");
    if (!json_is_object(policy)) {
        puts("  what the policy thinks: nothing of it is in DRAM, so nothing is to be evicted");
        return;
    }
    printf("  what the policy thinks of the end of it that is in DRAM (%s): ",
           word(policy, "rule"));
    if (json_object_get(policy, "value"))
        printf("%.2g hits a block-second expected, %.0f %% chance of another use, %.0f s since its "
               "last (turn %llu), %s%s; ",
               real(policy, "value"), 100 * real(policy, "chance"), real(policy, "age_s"),
               (unsigned long long)number(policy, "turn"), *hint ? "said to be " : "no hint", hint);
    double weight = real(policy, "weight");
    if (weight > 0 && (weight < 0.9 || weight > 1.1))
        printf("by its priority it counts %.2g times; ", weight);
    if (strcmp(stays, "held") == 0)
        printf("it may not go, because it is in use");
    else if (strcmp(stays, "extended") == 0)
        printf("it may not go before what others have of it behind");
    else if (*stays)
        printf("it is being used");
    else
        printf("about %llu of %llu ends of chains go before it",
               (unsigned long long)number(policy, "before"),
               (unsigned long long)number(policy, "candidates"));
    if (strcmp(aside, "first") == 0)
        printf("; it was set aside to go first, because its session waits");
    else if (strcmp(aside, "last") == 0)
        printf("; it is kept for a while, because somebody is to come for it");
    putchar('\n');
}

static void next_print(const json_t *about)
{
    const json_t *session = json_object_get(about, "session"),
                 *next = json_object_get(about, "next_fetch");
    const char *back = word(session, "return");
    printf("  next: ");
    if (json_is_object(next)) {
        wf_explain_prefetch(next);
        printf("; it is looked at next in %.1f s", real(next, "looked_at_in_ms") / 1e3);
    } else if (strcmp(back, "up") == 0) {
        printf("what is up for it, or on its way, is kept until it should be here");
    } else if (strcmp(back, "decided") == 0) {
        printf("its chain is not brought up before it asks; its events say why");
    } else if (strcmp(back, "waited for") == 0) {
        printf("nothing is brought up: %s",
               *word(about, "tip") ? "there is no tier below DRAM" : "it has no chain");
    } else {
        printf("nothing is brought up before it asks, for it did not say when it comes");
    }
    putchar('\n');
}

/* Are they of one kind, for one reason? */
static bool alike(const json_t *a, const json_t *b)
{
    static const char *const of[] = {"what", "reason", "tier", "from", "not_below"};
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
        if (strcmp(word(a, of[i]), word(b, of[i])) != 0)
            return false;
    return true;
}

/* Where the run of events that ends before `end` begins. */
static size_t run_begin(const json_t *found, size_t end)
{
    size_t begin = end - 1;
    while (begin && alike(json_array_get(found, begin - 1), json_array_get(found, begin)))
        begin--;
    return begin;
}

static void events_print(const json_t *found, uint64_t lost)
{
    size_t count = json_array_size(found), index = count, lines = 0;
    for (; index && lines < SHOWN; lines++)
        index = run_begin(found, index);
    if (!count)
        printf("  no event tells of it%s\n", lost ? " any more: older ones were overwritten" : "");
    else if (index)
        printf("  what happened (the newest %zu of %zu; --json has all):\n", count - index, count);
    else
        puts("  what happened:");
    while (index < count) {
        size_t end = index + 1;
        while (end < count && alike(json_array_get(found, index), json_array_get(found, end)))
            end++;
        printf("    ");
        wf_explain_story(json_array_get(found, index), end - index - 1,
                         json_array_get(found, end - 1));
        index = end;
    }
}

/* Add up what the next answers say of the chain: one of a long chain comes in several.  False: the
 * session has ended meanwhile, or what came is no answer. */
static bool chain_rest(struct cli *cli, const char *question, json_t *about)
{
    static const char *const sums[] = {"found", "bytes", "dram", "archived"};
    json_t *chain = json_object_get(about, "chain"), *tiers = json_object_get(chain, "tiers");
    uint64_t next = number(about, "next");
    while (next) {
        const char *tier;
        char *text;
        json_t *count;
        if (weft_query(cli->weft, question, next, &text) != WEFT_OK)
            return false;
        json_t *more = json_loads(text, 0, NULL), *of = json_object_get(more, "chain");
        weft_text_free(text);
        if (number(more, "next") && number(more, "next") <= next)
            of = NULL; /* it would go on for ever */
        next = number(more, "next");
        for (size_t i = 0; of && i < sizeof sums / sizeof sums[0]; i++)
            wf_cli_json_set(chain, sums[i],
                            json_integer(
                                (json_int_t)(number(chain, sums[i]) + number(of, sums[i]))));
        json_object_foreach (json_object_get(of, "tiers"), tier, count)
            wf_cli_json_set(tiers, tier,
                            json_integer((json_int_t)number(tiers, tier) +
                                         json_integer_value(count)));
        json_array_extend(json_object_get(about, "keys"), json_object_get(more, "keys"));
        json_decref(more);
        if (!of)
            return false;
    }
    json_object_del(about, "next");
    return true;
}

int wf_explain_session(struct cli *cli, const json_t *events, const char *which, bool *out_known)
{
    char question[96], *text = NULL;
    json_error_t error;
    *out_known = false;
    if (strlen(which) > 64)
        return CLI_MISS;
    snprintf(question, sizeof question, "session %s", which);
    enum weft_status status = weft_query(cli->weft, question, 0, &text);
    if (status == WEFT_E_NOT_FOUND)
        return CLI_MISS;
    *out_known = true;
    if (status != WEFT_OK)
        return wf_cli_fail(cli, CLI_NODE, "%s", weft_last_error());
    json_t *about = json_loads(text, 0, &error);
    weft_text_free(text);
    if (!json_is_object(about)) {
        json_decref(about);
        return wf_cli_fail(cli, CLI_NODE,
                           "the node's answer is not a JSON object (%s); is it a weftd of version "
                           "%s?",
                           error.text, weft_version());
    }
    if (!chain_rest(cli, question, about)) {
        json_decref(about);
        *out_known = false; /* it is no session any more */
        return CLI_MISS;
    }
    json_t *found = events_of(about, json_object_get(events, "events"));
    if (cli->json) {
        wf_cli_json_set(about, "events", found);
        wf_cli_json_set(about, "events_lost", json_integer((json_int_t)number(events, "lost")));
        wf_cli_json_print(about);
        return CLI_OK;
    }
    bool digits = strlen(which) >= 4 && strspn(which, "0123456789abcdefABCDEF") == strlen(which);
    state_print(about, json_object_get(about, "session"), digits);
    chain_print(about);
    policy_print(about);
    next_print(about);
    events_print(found, number(events, "lost"));
    json_decref(found);
    json_decref(about);
    return CLI_OK;
}
