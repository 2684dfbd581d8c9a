/* SPDX-License-Identifier: Apache-2.0
 *
 * weft session: sessions made durable, carried to other nodes, and let go.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/commands.h"
#include "cli/session.h"

#define STEP_MS 500 /* between two looks at how far an archive is */

#define SECONDS_MAX 86400.0

static const char *output, *as, *doing = "idle";
static uint64_t blocks = 1;
static double returns_s, keep_s;

static const struct cli_word words[] = {
    {"ls", "the archives of the domain"},
    {"archive", "NAME|ID: make an open session's chain durable; with --key, that chain as NAME"},
    {"export", "NAME: write an archive to --output"},
    {"import", "FILE: read one, and archive it here"},
    {"rm", "NAME: let an archive go; its blocks are ordinary ones again"},
    {"hint", "NAME: open a session of that name on the chain that --key begins, tell the node its "
             "--state, and keep it until interrupted"},
    {NULL},
};

static const struct cli_option options[] = {
    {"output", CLI_TEXT, "FILE", &output, "export: the file to write"},
    {"blocks", CLI_NUMBER, "N", &blocks,
     "archive, hint: length of the chain that --key begins (1)"},
    {"as", CLI_TEXT, "NAME", &as, "archive, import: the archive's name (the session's own)"},
    {"state", CLI_TEXT, "prefill|decoding|idle|waiting|done", &doing,
     "hint: what the session does (idle)"},
    {"returns-in", CLI_REAL, "S", &returns_s,
     "hint: seconds until it is back, when it waits or is idle (not known)"},
    {"for", CLI_REAL, "S", &keep_s, "hint: seconds to keep it (until interrupted)"},
    {NULL},
};

static const char *const examples[] = {
    "keep a conversation, whatever becomes of the node",
    "weft session archive chat-4711",
    "keep what was put by hand",
    "weft session archive prompt --key prompt-4f2a --block-bytes 2MiB --blocks 12",
    "a tool runs for a minute: the chain may go down, and is back when that is over",
    ("weft session hint chat-4711 --key prompt-4f2a --block-bytes 2MiB --blocks 12 --state waiting "
     "--returns-in 60"),
    "carry it to another host, whose domain has the same secret_file",
    "weft session export chat-4711 --output chat.weft",
    "and there",
    "weft session import chat.weft",
    NULL,
};

/* --------------------------------------------------------------------------------------- shared */

static bool text_take(const json_t *object, const char *name, char *out, size_t capacity)
{
    const char *text = json_string_value(json_object_get(object, name));
    if (!text || strlen(text) >= capacity)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool bytes_take(const json_t *value, uint8_t *out, size_t capacity, size_t *out_length)
{
    const char *text = json_string_value(value);
    size_t length = text ? strlen(text) : 1;
    if (length % 2 || length / 2 > capacity)
        return false;
    for (size_t i = 0; i < length / 2; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    *out_length = length / 2;
    return true;
}

bool wf_session_key_take(const json_t *value, struct weft_key *out)
{
    size_t length = 0;
    return bytes_take(value, out->bytes, sizeof out->bytes, &length) && length == sizeof out->bytes;
}

static uint32_t number_of(const json_t *object, const char *name)
{
    return (uint32_t)json_integer_value(json_object_get(object, name));
}

bool wf_session_format_take(const json_t *format, struct session_head *head)
{
    size_t adapter_bytes = 0, salt_bytes = 0;
    if (!text_take(format, "model", head->model, sizeof head->model) ||
        !text_take(format, "rope_scaling", head->scaling, sizeof head->scaling) ||
        !bytes_take(json_object_get(format, "adapter"), head->adapter, sizeof head->adapter,
                    &adapter_bytes) ||
        !bytes_take(json_object_get(format, "salt"), head->salt, sizeof head->salt, &salt_bytes))
        return false;
    head->spec = (struct weft_format_spec){
        .model = head->model,
        .layers = number_of(format, "layers"),
        .kv_heads = number_of(format, "kv_heads"),
        .head_dim = number_of(format, "head_dim"),
        .dtype = (enum weft_dtype)number_of(format, "dtype"),
        .block_tokens = number_of(format, "block_tokens"),
        .tp_rank = number_of(format, "tp_rank"),
        .tp_size = number_of(format, "tp_size"),
        .rope_theta = json_number_value(json_object_get(format, "rope_theta")),
        .rope_scaling = head->scaling[0] ? head->scaling : NULL,
        .adapter = adapter_bytes ? head->adapter : NULL,
        .adapter_bytes = adapter_bytes,
        .salt = salt_bytes ? head->salt : NULL,
        .salt_bytes = salt_bytes,
        .block_bytes = (uint64_t)json_integer_value(json_object_get(format, "block_bytes")),
        .quality = (enum weft_quality)number_of(format, "quality"),
    };
    return true;
}

int wf_session_root(struct cli *cli, struct weft_format *format, struct weft_key *out)
{
    static const char label[] = "weft session: the root of this format";
    enum weft_status status = weft_key_from_bytes(format, label, sizeof label - 1, out);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the node has no root");
}

int wf_session_archive(struct cli *cli, struct weft_format *format, const char *name,
                       const struct weft_key *tip, struct weft_archived *out)
{
    struct cli_progress progress;
    enum weft_status status = WEFT_PENDING;
    memset(out, 0, sizeof *out);
    wf_cli_progress_init(&progress, "archive");
    while (status == WEFT_PENDING) {
        status = weft_archive_keys(format, name, tip, STEP_MS, out);
        if (status == WEFT_PENDING && out->blocks)
            wf_cli_progress_step(&progress, (double)out->written / out->blocks, "");
    }
    wf_cli_progress_fini(&progress);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "it cannot be archived");
}

json_t *wf_session_tiers(struct cli *cli, const struct weft_archived *archived)
{
    char what[96], *text = NULL;
    snprintf(what, sizeof what, "archive %s", archived->name);
    if (weft_query(cli->weft, what, 0, &text) == WEFT_OK) {
        json_t *answer = json_loads(text, 0, NULL);
        json_t *tiers = json_incref(json_object_get(answer, "tiers"));
        weft_text_free(text);
        json_decref(answer);
        if (json_array_size(tiers))
            return tiers;
        json_decref(tiers);
    }
    return json_pack("[s]", archived->tier);
}

const char *wf_session_tiers_text(const json_t *tiers, char *out, size_t capacity)
{
    size_t index, used = 0;
    json_t *tier;
    out[0] = '\0';
    json_array_foreach ((json_t *)(uintptr_t)tiers, index, tier) {
        const char *name = json_string_value(tier);
        if (used < capacity)
            used += (size_t)snprintf(out + used, capacity - used, "%s%s", used ? ", " : "",
                                     name ? name : "?");
    }
    return out;
}

/* -------------------------------------------------------------------------------------- archive */

/* The one open session of that name or number; NULL after a sentence. */
static const json_t *session_find(struct cli *cli, const json_t *sessions, const char *word)
{
    const json_t *found = NULL, *row;
    size_t i;
    char number[32];
    json_array_foreach (sessions, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        snprintf(number, sizeof number, "%" JSON_INTEGER_FORMAT,
                 json_integer_value(json_object_get(row, "session")));
        if (strcmp(number, word) == 0)
            return row;
        if (!name || strcmp(name, word) != 0)
            continue;
        if (found) {
            wf_cli_fail(cli, CLI_USAGE,
                        "more than one session is called '%s'; give the number of one, as weft ls "
                        "sessions shows it",
                        word);
            return NULL;
        }
        found = row;
    }
    if (!found)
        wf_cli_fail(cli, CLI_MISS, "no open session is called '%s'; weft ls sessions lists them",
                    word);
    return found;
}

static int format_open(struct cli *cli, json_int_t number, struct weft_format **out)
{
    static struct session_head head;
    char what[64];
    json_t *answer = NULL;
    snprintf(what, sizeof what, "format %" JSON_INTEGER_FORMAT, number);
    int code = wf_cli_query(cli, what, 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    bool good = wf_session_format_take(json_object_get(answer, "format"), &head);
    enum weft_status status = good ? weft_format_open(cli->weft, &head.spec, out) : WEFT_OK;
    json_decref(answer);
    if (!good)
        return wf_cli_fail(cli, CLI_NODE, "the node's answer to '%s' is not one", what);
    return status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the format is refused");
}

static int archived_say(struct cli *cli, const struct weft_archived *archived)
{
    char size[32], names[SESSION_TIERS_TEXT];
    json_t *tiers = wf_session_tiers(cli, archived);
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "name", json_string(archived->name));
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)archived->blocks));
        wf_cli_json_set(answer, "written", json_integer((json_int_t)archived->written));
        wf_cli_json_set(answer, "bytes", json_integer((json_int_t)archived->bytes));
        wf_cli_json_set(answer, "tier", json_string(archived->tier));
        wf_cli_json_set(answer, "tiers", json_incref(tiers));
        wf_cli_json_print(answer);
    } else {
        printf("%s: %u block%s, %s, durable on %s; %u written now\n", archived->name,
               archived->blocks, wf_cli_s(archived->blocks),
               wf_cli_size(archived->bytes, size, sizeof size),
               wf_session_tiers_text(tiers, names, sizeof names), archived->written);
    }
    json_decref(tiers);
    return CLI_OK;
}

/* Are all of them there?  A tip that is not says nothing of how much of the chain is. */
static int chain_check(struct cli *cli, struct weft_format *format, const struct weft_key *keys,
                       size_t count)
{
    size_t there = 0;
    char part[64] = "";
    enum weft_status status = weft_match_keys(format, keys, count, &there);
    if (status >= 0 && there < count && wf_cli_opening_wait(cli))
        status = weft_match_keys(format, keys, count, &there);
    if (status < 0 || there == count)
        return CLI_OK; /* the node will say */
    wf_cli_failed_say(cli);
    if (there)
        snprintf(part, sizeof part, ", or say --blocks %zu", there);
    return wf_cli_fail(cli, CLI_MISS, "%zu of %zu blocks are there; put the others first%s", there,
                       count, part);
}

/* The chain that the options name, archived; or with the state that they say. */
static int chain_do(struct cli *cli, const char *name, bool hints)
{
    struct weft_format *format = NULL;
    struct weft_key *keys = NULL;
    struct weft_archived archived;
    size_t count = 0;
    if (!blocks || blocks > SESSION_BLOCKS_MAX)
        return wf_cli_fail(cli, CLI_USAGE, "--blocks is %llu; give 1 to %u",
                           (unsigned long long)blocks, SESSION_BLOCKS_MAX);
    int code = wf_cli_format_open(cli, 0, &format);
    if (code == CLI_OK)
        code = wf_cli_keys(cli, format, blocks, &keys, &count);
    if (code == CLI_OK)
        code = chain_check(cli, format, keys, count);
    if (code == CLI_OK && hints) {
        const struct session_said said = {name, doing, returns_s, keep_s, count};
        code = wf_session_hint(cli, format, &keys[count - 1], &said);
    } else if (code == CLI_OK) {
        code = wf_session_archive(cli, format, name, &keys[count - 1], &archived);
        if (code == CLI_OK)
            code = archived_say(cli, &archived);
    }
    free(keys);
    weft_format_close(format);
    return code;
}

static int archive(struct cli *cli, const char *word)
{
    json_t *answer = NULL;
    struct weft_format *format = NULL;
    struct weft_key tip;
    struct weft_archived archived;
    char name[80] = "";
    int code = wf_cli_query(cli, "sessions", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *row = session_find(cli, json_object_get(answer, "sessions"), word);
    const char *hex = json_string_value(json_object_get(row, "tip"));
    if (!row) {
        code = CLI_MISS;
    } else if (!wf_session_key_take(json_object_get(row, "tip"), &tip)) {
        code = wf_cli_fail(cli, CLI_MISS, "session %s has no chain yet; nothing was committed",
                           word);
    } else {
        text_take(row, "name", name, sizeof name);
        if (as)
            snprintf(name, sizeof name, "%s", as);
        else if (!name[0])
            snprintf(name, sizeof name, "session-%.16s", hex);
        code = format_open(cli, json_integer_value(json_object_get(row, "format")), &format);
    }
    json_decref(answer);
    if (code == CLI_OK)
        code = wf_session_archive(cli, format, name, &tip, &archived);
    if (code == CLI_OK)
        code = archived_say(cli, &archived);
    weft_format_close(format);
    return code;
}

/* --------------------------------------------------------------------------------------- ls, rm */

/* "2026-11-21 06:10:28, 5 min ago" */
static json_t *when(uint64_t created_ms)
{
    static const struct {
        const char *name;
        long long seconds;
    } units[] = {{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}};
    char text[64];
    time_t seconds = (time_t)(created_ms / 1000);
    long long age = (long long)time(NULL) - (long long)seconds;
    size_t unit = 0, used = 0;
    struct tm local;
    if (localtime_r(&seconds, &local))
        used = strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    while (unit < 3 && age < units[unit].seconds)
        unit++;
    if (age >= 0)
        snprintf(text + used, sizeof text - used, ", %lld %s ago", age / units[unit].seconds,
                 units[unit].name);
    return json_string(used ? text : "unknown");
}

/* The rows as people read them. */
static json_t *rows_shown(const json_t *archives)
{
    json_t *out = json_array(), *row, *value;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)archives, index, row) {
        char names[SESSION_TIERS_TEXT];
        const char *key;
        json_t *shown = json_object();
        json_object_foreach (row, key, value)
            if (strcmp(key, "tiers") == 0) /* the manifest's own, "tier", is among them */
                json_object_set_new(shown, key,
                                    json_string(wf_session_tiers_text(value, names, sizeof names)));
            else if (strcmp(key, "created_ms") == 0)
                json_object_set_new(shown, "created", when((uint64_t)json_integer_value(value)));
            else if (strcmp(key, "waits_for") != 0 && strcmp(key, "tier") != 0)
                json_object_set(shown, key, value);
        const char *state_is = json_string_value(json_object_get(row, "state"));
        if (state_is && strcmp(state_is, "unreadable") == 0)
            json_object_set_new(shown, "state", json_string("unreadable, its profile is not here"));
        const char *waits = json_string_value(json_array_get(json_object_get(row, "waits_for"), 0));
        if (waits) {
            char state[96];
            snprintf(state, sizeof state, "unavailable, waits for %.64s", waits);
            json_object_set_new(shown, "state", json_string(state));
        }
        json_array_append_new(out, shown);
    }
    return out;
}

static int list(struct cli *cli)
{
    json_t *answer = NULL;
    wf_cli_opening_wait(cli);
    int code = wf_cli_query(cli, "archives", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *archives = json_object_get(answer, "archives");
    size_t failed = wf_cli_failed_say(cli);
    if (cli->json) {
        json_t *opening_names = wf_cli_opening_list(cli);
        code = failed || json_array_size(opening_names) ? CLI_MISS : CLI_OK;
        wf_cli_json_set(answer, "opening", opening_names);
        wf_cli_json_set(answer, "failed_tiers", wf_cli_failed_list(cli));
        wf_cli_json_print(answer);
        return code;
    }
    json_t *rows = rows_shown(archives);
    if (json_array_size(rows))
        wf_cli_table_print(rows, stdout);
    else
        puts(failed ? "no archives on the tiers that work" : "no archives");
    char opening[CLI_OPENING_MAX];
    bool more = wf_cli_opening(cli, opening, sizeof opening) != NULL;
    if (more)
        printf("%s still being opened: there may be more archives in a moment\n", opening);
    json_decref(rows);
    json_decref(answer);
    return more || failed ? CLI_MISS : CLI_OK;
}

static int let_go(struct cli *cli, const char *name)
{
    enum weft_status status;
    do
        status = weft_archive_remove(cli->weft, name);
    while (status == WEFT_PENDING);
    if (status == WEFT_E_NOT_FOUND)
        wf_cli_failed_say(cli);
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status,
                                  status == WEFT_E_SYSTEM ? "it is not removed for good"
                                                          : "it cannot be removed");
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "removed", json_string(name));
        wf_cli_json_print(answer);
    } else {
        printf("%s is an archive no more; its blocks stay until their room is needed\n", name);
    }
    return CLI_OK;
}

static int hint(struct cli *cli, const char *name, bool chain)
{
    if (!chain)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say which chain: weft session hint NAME --key K --blocks N --state "
                           "waiting; a session that another program opened is its own");
    if (!(returns_s >= 0 && returns_s <= SECONDS_MAX) || !(keep_s >= 0 && keep_s <= SECONDS_MAX))
        return wf_cli_fail(cli, CLI_USAGE,
                           "--returns-in and --for are seconds, from 0 to %.0f, which is a day",
                           SECONDS_MAX);
    return chain_do(cli, name, true);
}

static int run(struct cli *cli)
{
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    const char *what = words[which].name;
    bool exports = strcmp(what, "export") == 0, lists = strcmp(what, "ls") == 0;
    if (cli->word_count != (lists ? 1 : 2) || (exports && !output))
        return wf_cli_fail(cli, CLI_USAGE, "it is: weft session %s%s%s", what,
                           lists                         ? ""
                           : strcmp(what, "import") == 0 ? " FILE"
                                                         : " NAME",
                           exports ? " --output FILE" : "");
    int code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    if (lists)
        return list(cli);
    const char *word = cli->words[1];
    const struct cli_format_options *given = &wf_cli_format_options;
    bool chain = given->key || given->raw_key || given->tokens;
    if (strcmp(what, "archive") == 0)
        return chain ? chain_do(cli, as ? as : word, false) : archive(cli, word);
    if (strcmp(what, "hint") == 0)
        return hint(cli, word, chain);
    if (exports)
        return wf_session_export(cli, word, output);
    if (strcmp(what, "import") == 0)
        return wf_session_import(cli, word, as);
    return let_go(cli, word);
}

const struct cli_command wf_cmd_session = {
    .name = "session",
    .summary = "archives: sessions made durable, exported and imported; hints",
    .synopsis = "ls|archive|export|import|rm|hint [NAME|ID|FILE]",
    .about =
        "An archive is a session's chain of blocks on a tier that outlives the machine's power and "
        "may hold archives: it survives a restart, and nothing evicts it from there until rm.  "
        "Archiving again under the same name writes what is new and replaces the archive.\n\n"
        "ls says of each archive whether it is whole (ok), whole but stored by a profile that is "
        "not here (unreadable until it is), waits for a tier that does not work or "
        "is still being opened (unavailable), or has lost blocks for good (damaged), and which "
        "tiers hold some of it: blocks that were durable before stay where they were, so losing "
        "any of these tiers may damage it.  In JSON, tiers are those, and tier is the one that has "
        "its manifest.  A tier that is being opened is waited for, for up to 5 s; when it "
        "takes longer, or a tier does not work, there may be more archives: ls says so and exits "
        "with 1.\n\n"
        "export writes an archive to one file, with its format, keys and checksums; it is replaced "
        "only when all is written.  import checks all of such a file before it puts anything, and "
        "archives what it put.  The nodes' domains must have the same secret_file, because keys "
        "come from it.  Whoever imports a file trusts who wrote it: the bytes under a key are what "
        "the file says.\n\n"
        "hint says what weft_session_hint(3) says.  A session ends with the connection that opened "
        "it, so the command opens one of its own and keeps it: in prefill or decoding its chain is "
        "not evicted; waiting, it is written below, may leave DRAM, and is brought back before "
        "--returns-in is over; done, it goes first.",
    .words = words,
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
