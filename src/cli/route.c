/* SPDX-License-Identifier: Apache-2.0
 *
 * weft route: on which node a request should run.
 */
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"

static uint64_t blocks = 1, rounds;
static double output_tokens;
static bool sent;
static struct cli_list given;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"candidate", CLI_LIST, "NODE[=QUEUED[:RUNNING[:TOKENS_S]]]", &given,
     "a node that it may run on, and its load: tokens that wait, requests that run, prefill in "
     "tokens a second; may be repeated (every node that is there)"},
    {"output-tokens", CLI_REAL, "N", &output_tokens, "that it will generate, as expected"},
    {"sent", CLI_FLAG, NULL, &sent, "the request goes there: count it as that node's load"},
    {"rounds", CLI_NUMBER, "N", &rounds, "ask so often, and say how long that takes"},
    {NULL},
};

static const char *const examples[] = {
    "where a prompt should run, by what the nodes of the cluster hold",
    ("weft route --model llama-3-8b@7f3c --layers 32 --kv-heads 8 --head-dim 128 --dtype bf16 "
     "--tokens @prompt.tokens"),
    "the same when one of two engines is busy",
    ("weft route --key prompt-4f2a --block-bytes 2MiB --blocks 40 --candidate a=120000:60:9000 "
     "--candidate b"),
    NULL,
};

/* "NODE=QUEUED:RUNNING:TOKENS_S", with less of it from the end on. */
static int candidate_read(struct cli *cli, const char *text, char name[WEFT_NODE_NAME_MAX + 1],
                          struct weft_candidate *out)
{
    size_t length = strcspn(text, "=");
    double numbers[3] = {0};
    *out = (struct weft_candidate){.node = name, .loaded = text[length] == '='};
    const char *at = text + length + (text[length] == '=');
    bool good = length > 0 && length <= WEFT_NODE_NAME_MAX && (!out->loaded || *at);
    for (int i = 0; good && *at && i < 3; i++) {
        char *end;
        numbers[i] = strtod(at, &end);
        good = end != at && numbers[i] >= 0 && numbers[i] <= 1e12 &&
               (*end == ':' ? end[1] != '\0' && i < 2 : *end == '\0');
        at = *end == ':' ? end + 1 : end;
    }
    if (!good || numbers[1] > UINT32_MAX)
        return wf_cli_fail(cli, CLI_USAGE,
                           "--candidate %.80s: write a node's name, and after = the tokens that "
                           "wait, the requests that run and tokens a second: a=8000:12:9500",
                           text);
    memcpy(name, text, length);
    name[length] = '\0';
    out->queued_tokens = numbers[0];
    out->running = (uint32_t)numbers[1];
    out->tokens_s = numbers[2];
    return CLI_OK;
}

static json_t *milliseconds(double seconds)
{
    return wf_cli_json_real(seconds * 1e3, 3);
}

static json_t *term_json(const struct weft_route_term *t, bool chosen)
{
    json_t *row = json_object();
    wf_cli_json_set(row, "node", json_string(t->node));
    wf_cli_json_set(row, "chosen", json_boolean(chosen));
    wf_cli_json_set(row, "hit_tokens", json_integer((json_int_t)t->hit_tokens));
    wf_cli_json_set(row, "action", json_string(weft_route_action_name(t->action)));
    wf_cli_json_set(row, "source", t->source[0] ? json_string(t->source) : json_null());
    wf_cli_json_set(row, "held_blocks", json_integer((json_int_t)t->held_blocks));
    wf_cli_json_set(row, "load_blocks", json_integer((json_int_t)t->load_blocks));
    wf_cli_json_set(row, "fetch_blocks", json_integer((json_int_t)t->fetch_blocks));
    wf_cli_json_set(row, "queue_ms", milliseconds(t->queue_s));
    wf_cli_json_set(row, "transfer_ms", milliseconds(t->transfer_s));
    wf_cli_json_set(row, "compute_ms", milliseconds(t->compute_s));
    wf_cli_json_set(row, "ttft_ms", milliseconds(t->ttft_s));
    wf_cli_json_set(row, "why", json_string(t->why));
    return row;
}

/* The chosen one first. */
static json_t *terms_json(const struct weft_routed *routed, const struct weft_route_term *terms)
{
    json_t *rows = json_array();
    if (routed->chosen < routed->candidates)
        json_array_append_new(rows, term_json(&terms[routed->chosen], true));
    for (size_t i = 0; i < routed->candidates; i++)
        if (i != routed->chosen)
            json_array_append_new(rows, term_json(&terms[i], false));
    return rows;
}

static void answer_json(const struct weft_routed *routed, const struct weft_route_term *terms,
                        double p50_us, double p99_us)
{
    bool serves = routed->chosen < routed->candidates;
    json_t *answer = serves ? term_json(&terms[routed->chosen], true) : json_object();
    if (!serves)
        wf_cli_json_set(answer, "node", json_null());
    json_object_del(answer, "chosen");
    wf_cli_json_set(answer, "stride", json_integer((json_int_t)routed->stride));
    wf_cli_json_set(answer, "took_us", json_integer((json_int_t)routed->took_us));
    if (rounds) {
        wf_cli_json_set(answer, "route_us_p50", wf_cli_json_real(p50_us, 1));
        wf_cli_json_set(answer, "route_us_p99", wf_cli_json_real(p99_us, 1));
    }
    wf_cli_json_set(answer, "candidates", terms_json(routed, terms));
    wf_cli_json_print(answer);
}

static void answer_print(const struct weft_routed *routed, const struct weft_route_term *terms,
                         double p50_us, double p99_us)
{
    static const char *const shown[] = {"node",     "hit_tokens",  "action",     "source",
                                        "queue_ms", "transfer_ms", "compute_ms", "ttft_ms"};
    json_t *rows = terms_json(routed, terms), *table = json_array(), *from;
    size_t index;
    json_array_foreach (rows, index, from) {
        json_t *row = json_object();
        for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
            wf_cli_json_set(row, shown[i], json_incref(json_object_get(from, shown[i])));
        json_array_append_new(table, row);
    }
    wf_cli_table_print(table, stdout);
    if (routed->chosen < routed->candidates)
        printf("%s: %s\n", terms[routed->chosen].node, terms[routed->chosen].why);
    else
        puts("no candidate serves:");
    for (size_t i = 0; i < routed->candidates; i++)
        if (i != routed->chosen && terms[i].action == WEFT_ROUTE_CLOSED)
            printf("%s: %s\n", terms[i].node, terms[i].why);
    if (rounds)
        printf("asked %llu times: p50 %.1f us, p99 %.1f us\n", (unsigned long long)rounds, p50_us,
               p99_us);
    json_decref(rows);
    json_decref(table);
}

static enum weft_status measure(const struct cli_chain *chain, struct weft_route_question question,
                                double *out_p50_us, double *out_p99_us)
{
    double *us = wf_cli_alloc(rounds * sizeof *us);
    enum weft_status status = WEFT_OK;
    question.flags &= ~(uint32_t)WEFT_ROUTE_WHY;
    for (uint64_t i = 0; i < rounds && status >= 0; i++) {
        struct weft_routed routed;
        double began_s = wf_cli_now_s();
        question.id = i;
        status = weft_route(chain->format, &question, &routed, NULL, 0);
        us[i] = (wf_cli_now_s() - began_s) * 1e6;
    }
    *out_p50_us = wf_cli_percentile(us, rounds, .5);
    *out_p99_us = wf_cli_percentile(us, rounds, .99);
    free(us);
    return status;
}

static int run(struct cli *cli)
{
    static char names[CLI_LIST_MAX][WEFT_NODE_NAME_MAX + 1];
    static struct weft_candidate candidates[CLI_LIST_MAX];
    static struct weft_route_term terms[WEFT_ROUTE_CANDIDATES_MAX];
    struct weft_routed routed;
    struct cli_chain chain = {.count = 0};
    double p50_us = 0, p99_us = 0;
    int code = CLI_OK;
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[0]);
    if (rounds > 10000000)
        return wf_cli_fail(cli, CLI_USAGE, "--rounds is %llu; give 10000000 at most",
                           (unsigned long long)rounds);
    for (int i = 0; i < given.count && code == CLI_OK; i++)
        code = candidate_read(cli, given.items[i], names[i], &candidates[i]);
    if (code != CLI_OK)
        return code;
    code = wf_cli_chain_open(cli, blocks, &chain);
    if (code == CLI_OK) {
        const struct weft_route_question question = {
            .keys = chain.keys,
            .count = chain.count,
            .output_tokens = output_tokens,
            .candidates = candidates,
            .candidate_count = (size_t)given.count,
            .flags = WEFT_ROUTE_WHY | (sent ? 0u : (unsigned)WEFT_ROUTE_ASK),
        };
        enum weft_status status = weft_route(chain.format, &question, &routed, terms,
                                             WEFT_ROUTE_CANDIDATES_MAX);
        if (status >= 0 && rounds)
            status = measure(&chain, question, &p50_us, &p99_us);
        if (status < 0)
            code = wf_cli_fail_status(cli, status, "cannot say where it should run");
    }
    if (code == CLI_OK && cli->json)
        answer_json(&routed, terms, p50_us, p99_us);
    else if (code == CLI_OK)
        answer_print(&routed, terms, p50_us, p99_us);
    wf_cli_chain_close(&chain);
    return code == CLI_OK && routed.chosen >= routed.candidates ? CLI_MISS : code;
}

const struct cli_command wf_cmd_route = {
    .name = "route",
    .summary = "on which node a request should run, and what of its KV is moved there",
    .synopsis = "",
    .about =
        "Says which node will have the first token soonest, as modelled: the queue there, what is "
        "loaded of the chain, and prefill of the rest.  local: it runs on what the node has; "
        "fetch: and on blocks that it fetches from source (several nodes: none has as much of it "
        "as they have between them); recompute: all is computed; closed: the node serves "
        "nothing, and a line below the table says why.  ttft_ms is less than the "
        "three before it when they overlap, as loading does with the queue and with prefill.\n\n"
        "Without --candidate it is every node that is there and does not drain, and this one in "
        "any case, with the load that was said of it last.  This command only asks.  With --sent "
        "the request is taken to run there, as it is by weft_route(3) and POST /v1/route: its "
        "prefill is that node's load from then on, until a later word of that.\n\n"
        "Exits with 0 when some node serves, with 1 when none does.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
