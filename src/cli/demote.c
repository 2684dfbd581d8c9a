/* SPDX-License-Identifier: Apache-2.0
 *
 * weft demote: a chain down from DRAM to a tier below.
 *
 * Only a session's chain is demoted, so one is opened for it, and ends with the command.  The node
 * answers at once when nothing of the chain is being written; what another session holds is not
 * waited for, and between two looks at the rest the command sleeps.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

#define WAIT_S_MAX 3600.0
#define SLEEP_US_LEAST 5000u /* between two looks; twice as long each time that nothing went */
#define SLEEP_US_MOST 200000u
#define EVENT_DIGITS 16 /* of a key, that the node says of a chain's blocks */

static uint64_t blocks = 1;
static double wait_s = 5;

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "blocks of the chain, with --key (1)"},
    {"wait", CLI_REAL, "S", &wait_s,
     "seconds to go on after the last block that left, when some are pinned, shared or not yet "
     "taken by a tier (5)"},
    {NULL},
};

static const char *const examples[] = {
    "a chain that nobody needs for a while",
    "weft demote --key prompt-4f2a --block-bytes 2MiB --blocks 40",
    NULL,
};

/* What of the chain is there, and what keeps it in DRAM. */
struct chain {
    struct cli_chain is;
    size_t before;   /* of it in DRAM, */
    json_t *held_by; /* sessions that compute on it */
};

/* --------------------------------------------------------------------------------- who holds it */

/* How many blocks a session's chain has in common with this one, from the first, when it ends in
 * this one. */
static size_t ends_in(const struct chain *chain, const char *tip)
{
    char hex[65];
    for (size_t i = chain->is.present; i > 0; i--) {
        wf_cli_hex(chain->is.keys[i - 1].bytes, 32, hex);
        if (strcmp(hex, tip) == 0)
            return i;
    }
    return 0;
}

/* Does a session's chain go on behind the end of this one? */
static bool goes_on(struct cli *cli, const struct chain *chain, json_int_t session)
{
    char question[48], hex[65];
    uint64_t next = 0;
    bool found = false, more = true;
    snprintf(question, sizeof question, "session %lld", (long long)session);
    wf_cli_hex(chain->is.keys[chain->is.present - 1].bytes, 32, hex);
    hex[EVENT_DIGITS] = '\0';
    while (more && !found) {
        char *text;
        size_t index;
        json_t *key;
        if (weft_query(cli->weft, question, next, &text) != WEFT_OK)
            return false; /* it has ended meanwhile */
        json_t *about = json_loads(text, 0, NULL), *keys = json_object_get(about, "keys");
        weft_text_free(text);
        json_array_foreach (keys, index, key)
            found |= strcmp(json_string_value(key) ? json_string_value(key) : "", hex) == 0;
        next = (uint64_t)json_integer_value(json_object_get(about, "next"));
        more = next && json_array_size(keys); /* the node tells keys of its end alone */
        json_decref(about);
    }
    return found;
}

/* The sessions that compute on the chain; *out_blocks: how many blocks of it they keep. */
static int holders(struct cli *cli, struct chain *chain, size_t *out_blocks)
{
    json_t *answer, *row;
    size_t index;
    *out_blocks = 0;
    json_array_clear(chain->held_by);
    int code = wf_cli_query(cli, "sessions", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    json_array_foreach (json_object_get(answer, "sessions"), index, row) {
        const char *tip = json_string_value(json_object_get(row, "tip"));
        json_int_t id = json_integer_value(json_object_get(row, "session"));
        if (!tip || !json_is_true(json_object_get(row, "held")))
            continue;
        size_t held = ends_in(chain, tip);
        if (!held && goes_on(cli, chain, id))
            held = chain->is.present;
        if (!held)
            continue;
        json_t *holder = json_object();
        static const char *const members[] = {"session", "name", "state", "pid"};
        for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
            wf_cli_json_set(holder, members[i], json_incref(json_object_get(row, members[i])));
        wf_cli_json_set(holder, "blocks", json_integer((json_int_t)held));
        json_array_append_new(chain->held_by, holder);
        *out_blocks = held > *out_blocks ? held : *out_blocks;
    }
    json_decref(answer);
    return CLI_OK;
}

/* --------------------------------------------------------------------------------- pushed down */

/* Until all is down but what sessions hold, or no more of it goes. */
static int settle(struct cli *cli, struct chain *chain, struct weft_session *session)
{
    enum weft_status status = weft_demote(session);
    double moved_s = wf_cli_now_s();
    size_t held = 0;
    unsigned sleep_us = SLEEP_US_LEAST;
    int code = wf_cli_chain_look(cli, &chain->is);
    while (code == CLI_OK && status == WEFT_PENDING) {
        size_t before = chain->is.dram;
        code = holders(cli, chain, &held);
        if (code != CLI_OK || chain->is.dram <= held || wf_cli_now_s() - moved_s >= wait_s)
            break;
        usleep(sleep_us);
        status = weft_demote(session);
        code = wf_cli_chain_look(cli, &chain->is);
        bool moved = chain->is.dram < before;
        sleep_us = moved ? SLEEP_US_LEAST : sleep_us * 2;
        sleep_us = sleep_us < SLEEP_US_MOST ? sleep_us : SLEEP_US_MOST;
        moved_s = moved ? wf_cli_now_s() : moved_s;
    }
    if (code == CLI_OK && status != WEFT_OK && status != WEFT_PENDING)
        code = wf_cli_fail_status(cli, status, "cannot demote");
    if (status == WEFT_OK)
        json_array_clear(chain->held_by);
    return code;
}

static int push(struct cli *cli, struct chain *chain)
{
    struct weft_session *session = NULL;
    const struct weft_session_spec spec = {.name = "weft demote", .priority = 5};
    const struct weft_hint hint = {.tip = &chain->is.keys[chain->is.present - 1]};
    enum weft_status status = weft_session_open(chain->is.format, &spec, &session);
    if (status == WEFT_OK)
        status = weft_session_hint(session, WEFT_IDLE, &hint);
    int code = status == WEFT_OK ? settle(cli, chain, session)
                                 : wf_cli_fail_status(cli, status, "cannot demote");
    weft_session_close(session);
    return code;
}

static void stays_say(const struct chain *chain)
{
    const json_t *row;
    size_t index, count = json_array_size(chain->held_by);
    json_array_foreach (chain->held_by, index, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *state = json_string_value(json_object_get(row, "state"));
        json_int_t held = json_integer_value(json_object_get(row, "blocks"));
        fprintf(stderr,
                "weft demote: session %lld, '%s', of process %lld is %s and holds %lld block%s; "
                "hint another state, or end it\n",
                (long long)json_integer_value(json_object_get(row, "session")), name ? name : "",
                (long long)json_integer_value(json_object_get(row, "pid")), state ? state : "?",
                (long long)held, held == 1 ? "" : "s");
    }
    if (chain->is.dram && !count)
        fprintf(stderr, "weft demote: what stays is pinned, extended by other chains, or no tier "
                        "takes it or has room for more of it\n");
}

static int report(struct cli *cli, const struct chain *chain)
{
    size_t gone = chain->before > chain->is.dram ? chain->before - chain->is.dram : 0;
    size_t missing = chain->is.count - chain->is.present;
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)chain->is.count));
        wf_cli_json_set(answer, "present", json_integer((json_int_t)chain->is.present));
        wf_cli_json_set(answer, "demoted", json_integer((json_int_t)gone));
        wf_cli_json_set(answer, "in_dram", json_integer((json_int_t)chain->is.dram));
        wf_cli_json_set(answer, "held_by", json_incref(chain->held_by));
        wf_cli_json_print(answer);
    } else {
        printf("%zu block%s left DRAM; of %zu that are there, %zu %s in DRAM", gone, wf_cli_s(gone),
               chain->is.present, chain->is.dram, chain->is.dram == 1 ? "is" : "are");
        if (missing)
            printf(", %zu of %zu %s not there", missing, chain->is.count,
                   missing == 1 ? "is" : "are");
        putchar('\n');
    }
    fflush(stdout);
    stays_say(chain);
    if (missing)
        wf_cli_failed_say(cli);
    return chain->is.dram || missing ? CLI_MISS : CLI_OK;
}

static int run(struct cli *cli)
{
    if (cli->word_count)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many; name the chain with --key",
                           cli->words[0]);
    if (!(wait_s >= 0 && wait_s <= WAIT_S_MAX))
        return wf_cli_fail(cli, CLI_USAGE, "--wait is %g s; give 0 to %.0f, which is an hour",
                           wait_s, WAIT_S_MAX);
    struct chain chain = {.held_by = json_array()};
    int code = wf_cli_chain_open(cli, blocks, &chain.is);
    if (code == CLI_OK)
        code = wf_cli_chain_look(cli, &chain.is);
    chain.before = chain.is.dram;
    if (code == CLI_OK && chain.is.present)
        code = push(cli, &chain);
    if (code == CLI_OK)
        code = report(cli, &chain);
    json_decref(chain.held_by);
    wf_cli_chain_close(&chain.is);
    return code;
}

const struct cli_command wf_cmd_demote = {
    .name = "demote",
    .summary = "move a chain from DRAM to a tier below",
    .synopsis = "",
    .about =
        "What of the chain is on no tier yet is written to one, and then what nobody else holds or "
        "extends leaves DRAM, as weft_demote(3) does; a get, a prefetch or weft prefetch brings it "
        "up again.  A chain that a session computes on, and what is pinned, stays.\n\n"
        "What a session holds that is in prefill or decoding is not waited for: the command says "
        "which session it is.  For the rest it goes on until nothing more has left DRAM for --wait "
        "seconds.\n\n"
        "Exits with 1 when some of it is still in DRAM, or not there at all.",
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
