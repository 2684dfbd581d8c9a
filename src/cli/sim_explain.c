/* SPDX-License-Identifier: Apache-2.0
 *
 * weft sim --explain: why what was evicted, placed, refused, dropped, cut or fetched ahead in a
 * run.
 *
 * The run tells of everything as it happens; kept is what was asked for, up to a cap, and said
 * afterwards, with what the trace knows of the time after.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/sim.h"

#define WORDS_MAX 320

static bool number_read(const char **text, uint32_t *out)
{
    char *end;
    errno = 0;
    unsigned long long number = strtoull(*text, &end, 10);
    if (errno || end == *text || **text < '0' || **text > '9' || !number || number > UINT32_MAX)
        return false;
    *text = end;
    *out = (uint32_t)number;
    return true;
}

int wf_sim_explain_read(struct cli *cli, const char *text, struct sim_plan *plan)
{
    struct sim_question *ask = &plan->question;
    const char *at = text;
    bool request = strncmp(at, "request:", 8) == 0;
    at += request ? 8 : 0;
    bool good = number_read(&at, request ? &ask->request : &ask->eviction);
    if (good && request && *at == '/') {
        at++;
        good = number_read(&at, &ask->block);
    }
    if (!good || *at)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--explain is '%s'; give N (the Nth block that left the pool), "
                           "request:N, or request:N/M (the Mth block of that request)",
                           text);
    if (plan->policy_count != 1 || plan->capacity_count != 1)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--explain is about one run; give one --policy and one "
                           "--capacity-blocks");
    ask->asked = true;
    return CLI_OK;
}

int wf_sim_explain_begin(struct cli *cli, const struct wf_sim_trace *trace, struct sim_story *story)
{
    const struct sim_question *ask = &story->question;
    story->trace = trace;
    story->block = WF_SIM_NONE;
    if (!ask->request)
        return CLI_OK;
    if (ask->request > trace->request_count)
        return wf_cli_fail(cli, CLI_USAGE, "--explain: the trace has %u requests, and no %u",
                           trace->request_count, ask->request);
    const struct wf_sim_request *asked = &trace->requests[ask->request - 1];
    if (ask->block > asked->count)
        return wf_cli_fail(cli, CLI_USAGE, "--explain: request %u has %u blocks, and no %u",
                           ask->request, asked->count, ask->block);
    if (ask->block)
        story->block = trace->blocks[asked->first + ask->block - 1];
    return CLI_OK;
}

/* That block is one of those that the event is about? */
static bool is_refused(const struct sim_story *story, const struct wf_sim_event *event)
{
    const struct wf_sim_request *asked = &story->trace->requests[event->request];
    uint32_t depth = story->trace->depth[story->block];
    return event->kind == WF_SIM_FULL && depth < asked->count &&
           depth >= asked->count - event->blocks &&
           story->trace->blocks[asked->first + depth] == story->block;
}

void wf_sim_explain_note(void *context, const struct wf_sim_event *event)
{
    struct sim_story *story = context;
    const struct sim_question *ask = &story->question;
    bool of_it = ask->eviction ? event->number == ask->eviction &&
                                     (event->block != WF_SIM_NONE || event->kind == WF_SIM_SHARED)
                 : ask->block ? event->block == story->block || is_refused(story, event)
                              : event->request == ask->request - 1;
    if (!of_it)
        return;
    if (story->count < SIM_STORY_MAX)
        story->events[story->count++] = *event;
    else
        story->more++;
}

/* ---------------------------------------------------------------------------------------- words */

static const char *tier_name(const struct sim_plan *plan, int number)
{
    return number < 0 ? "the pool" : plan->tiers[number].name;
}

static void evicted_say(const struct wf_sim_event *event, const char *policy, char *out,
                        size_t size)
{
    const struct wf_policy_reason *why = &event->why;
    if (!event->has_why) {
        snprintf(out, size, "left the pool, as the next in the order of %s", policy);
        return;
    }
    int used = snprintf(out, size, "left the pool, by %s", why->rule);
    if (strcmp(why->rule, policy) != 0 && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used,
                         ", for the guard of %s has it go by %s now and not by what the model "
                         "expects",
                         policy, strcmp(why->rule, "lfuda") == 0 ? "count of uses" : "last use");
    if (why->knows && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used, ": last wanted %.3g s before, turn %u",
                         why->age_s, why->turn + 1);
    if (why->value > 0 && used > 0 && (size_t)used < size)
        used += snprintf(out + used, size - (size_t)used,
                         ", %.3g hits a block and second expected, chance %.1f %%", why->value,
                         100 * why->chance);
    if (why->hint >= 0 && used > 0 && (size_t)used < size)
        snprintf(out + used, size - (size_t)used, ", said to be %s",
                 why->hint == WF_POLICY_WANTED ? "wanted" : "done");
}

static void full_say(const struct wf_sim_event *event, char *out, size_t size)
{
    int used = snprintf(out, size, "its last %u block%s %s not stored: ", event->blocks,
                        wf_cli_s(event->blocks), event->blocks == 1 ? "was" : "were");
    if (event->bar < WF_POLICY_ANY)
        snprintf(out + used, size - (size_t)used,
                 "what would have had to go was wanted again before, or others begin with it, and "
                 "is worth more than %.3g hits a block and second",
                 (double)event->bar);
    else
        snprintf(out + used, size - (size_t)used, "there was nothing that could go for them");
}

static void event_say(const struct sim_plan *plan, const struct sim_story *story,
                      const struct wf_sim_event *event, char *out, size_t size)
{
    switch (event->kind) {
    case WF_SIM_EVICTED: evicted_say(event, plan->policies[0]->name, out, size); break;
    case WF_SIM_CLEAN: snprintf(out, size, "not written: a copy is below already"); break;
    case WF_SIM_PLACED:
        wf_admission_say(&event->admission, tier_name(plan, event->place), out, size);
        break;
    case WF_SIM_REFUSED: wf_admission_say(&event->admission, "", out, size); break;
    case WF_SIM_DROPPED:
        snprintf(out, size, "%s lets it go, for another: of all there it was wanted longest ago",
                 tier_name(plan, event->from));
        break;
    case WF_SIM_CUT: wf_cut_say(&event->cut, event->blocks, out, size); break;
    case WF_SIM_FETCHED: {
        int used = snprintf(out, size,
                            "%u blocks below for a session that is to come back: ", event->blocks);
        wf_prefetch_say(&event->prefetch, event->now_s, out + used, size - (size_t)used);
        break;
    }
    case WF_SIM_FULL: full_say(event, out, size); break;
    case WF_SIM_SHARED:
        snprintf(out, size, "domain %s gives room (%s): it has %llu blocks, and is due %llu",
                 story->trace->domains[event->verdict.who].name,
                 wf_share_rule_name(event->verdict.rule), (unsigned long long)event->verdict.used,
                 (unsigned long long)event->verdict.due);
        break;
    }
}

/* Who wants it next, as the trace knows; WF_SIM_NONE: nobody. */
static uint32_t wanted_next(const struct wf_sim_trace *trace, uint32_t block, uint32_t after)
{
    for (uint32_t r = after + 1; r < trace->request_count; r++) {
        const struct wf_sim_request *asked = &trace->requests[r];
        if (trace->depth[block] < asked->count &&
            trace->blocks[asked->first + trace->depth[block]] == block)
            return r;
    }
    return WF_SIM_NONE;
}

static json_t *event_json(const struct sim_plan *plan, const struct sim_story *story,
                          const struct wf_sim_event *event)
{
    static const char *const kinds[] = {"evicted", "clean",   "placed", "refused", "dropped",
                                        "cut",     "fetched", "shared", "full"};
    char words[WORDS_MAX];
    json_t *out = json_object();
    event_say(plan, story, event, words, sizeof words);
    wf_cli_json_set(out, "at_s", wf_cli_json_real(event->now_s, 3));
    wf_cli_json_set(out, "request", json_integer((json_int_t)event->request + 1));
    wf_cli_json_set(out, "event", json_string(kinds[event->kind]));
    if (event->block != WF_SIM_NONE) {
        uint32_t next = wanted_next(story->trace, event->block, event->request);
        wf_cli_json_set(out, "eviction", json_integer((json_int_t)event->number));
        wf_cli_json_set(out, "block", json_integer(event->block));
        wf_cli_json_set(out, "position", json_integer(story->trace->depth[event->block] + 1));
        wf_cli_json_set(out, "wanted_next",
                        next == WF_SIM_NONE ? json_null() : json_integer((json_int_t)next + 1));
    }
    if (event->kind == WF_SIM_FULL) {
        wf_cli_json_set(out, "blocks", json_integer(event->blocks));
        if (event->bar < WF_POLICY_ANY)
            wf_cli_json_set(out, "bar", wf_cli_json_real((double)event->bar, 9));
    }
    if (event->kind == WF_SIM_PLACED)
        wf_cli_json_set(out, "tier", json_string(tier_name(plan, event->place)));
    if (event->kind == WF_SIM_PLACED || event->kind == WF_SIM_REFUSED) {
        const struct wf_admission *said = &event->admission;
        wf_cli_json_set(out, "rule", json_string(wf_admit_rule_name(said->rule)));
        wf_cli_json_set(out, "hits", wf_cli_json_real(said->hits, 6));
        wf_cli_json_set(out, "saved_ms", wf_cli_json_real(1e3 * said->saved_s, 4));
        wf_cli_json_set(out, "write_ms", wf_cli_json_real(1e3 * said->write_s, 4));
        if (said->wear_s < 1e9)
            wf_cli_json_set(out, "wear_ms", wf_cli_json_real(1e3 * said->wear_s, 4));
        wf_cli_json_set(out, "room_ms", wf_cli_json_real(1e3 * said->room_s, 4));
    }
    if (event->has_why && event->why.knows) {
        wf_cli_json_set(out, "value", wf_cli_json_real(event->why.value, 9));
        wf_cli_json_set(out, "chance", wf_cli_json_real(event->why.chance, 6));
        wf_cli_json_set(out, "age_s", wf_cli_json_real(event->why.age_s, 3));
    }
    wf_cli_json_set(out, "why", json_string(words));
    return out;
}

static void event_print(const struct sim_plan *plan, const struct sim_story *story,
                        const struct wf_sim_event *event)
{
    char words[WORDS_MAX];
    event_say(plan, story, event, words, sizeof words);
    printf("%.3f s, request %u", event->now_s, event->request + 1);
    if (event->block == WF_SIM_NONE) {
        printf(": %s\n", words);
        return;
    }
    uint32_t next = wanted_next(story->trace, event->block, event->request);
    printf(", block %u (number %u of its chain): %s\n", event->block,
           story->trace->depth[event->block] + 1, words);
    if (event->kind != WF_SIM_EVICTED)
        return;
    if (next == WF_SIM_NONE)
        printf("    nobody wants it after that\n");
    else
        printf("    request %u wants it next, %.3g s later\n", next + 1,
               (double)story->trace->requests[next].at_us * 1e-6 - event->now_s);
}

int wf_sim_explain_print(struct cli *cli, const struct sim_plan *plan,
                         const struct sim_story *story)
{
    if (cli->json) {
        json_t *out = json_object(), *list = json_array();
        for (int i = 0; i < story->count; i++)
            json_array_append_new(list, event_json(plan, story, &story->events[i]));
        wf_cli_json_set(out, "policy", json_string(plan->policies[0]->name));
        wf_cli_json_set(out, "capacity_blocks", json_integer(plan->capacities[0]));
        wf_cli_json_set(out, "events", list);
        wf_cli_json_set(out, "left_out", json_integer((json_int_t)story->more));
        wf_cli_json_print(out);
        return story->count ? CLI_OK : CLI_MISS;
    }
    for (int i = 0; i < story->count; i++)
        event_print(plan, story, &story->events[i]);
    if (!story->count)
        puts("nothing happened: nothing left the pool then, nothing was below, and all of it was "
             "stored or there");
    if (story->more)
        printf("and %llu more\n", (unsigned long long)story->more);
    return story->count ? CLI_OK : CLI_MISS;
}
