/* SPDX-License-Identifier: Apache-2.0
 *
 * weft fabric: the cluster as this node sees it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/fabric.h"

static bool off;
static uint64_t blocks = 1, least;
static const char *lender;

enum { SHOW, TOPOLOGY, LENT, HAND_OVER, ALLOT, LEND, LIMIT, DRAIN }; /* as in words[] */

static const struct cli_word words[] = {
    {"show", "who is there, how far, and what they have; also when no word is given"},
    {"topology", "how this host is built, and where the nodes stand"},
    {"lent", "what this node lends, and who has how much of it; what others lend to it"},
    {"hand-over", "have another node fetch a chain from this one: hand-over NODE --key NAME"},
    {"allot", "the most that a node may have of what one lends: allot NODE SIZE [--min SIZE]"},
    {"lend", "lend so much from now on, up to fabric.lend: lend SIZE"},
    {"limit", "what is sent: limit link NODE|all SIZE, limit domain NAME SIZE, limit share NAME N; "
              "without a word which bounds there are (max_bytes_s; none: -, 0 in JSON), whether a "
              "node has one of its own, and whether it is there"},
    {"drain", "take no blocks and no requests of others any more, and give them what is here"},
    {NULL},
};

static const struct cli_option options[] = {
    {"blocks", CLI_NUMBER, "N", &blocks, "hand-over: blocks of the chain, with --key (1)"},
    {"lender", CLI_TEXT, "NODE", &lender, "allot, lend: of what that node lends (this one)"},
    {"min", CLI_SIZE, "SIZE", &least, "allot: what it is due at least, whoever else wants some"},
    {"off", CLI_FLAG, NULL, &off, "drain: take them again"},
    {NULL},
};

static const char *const examples[] = {
    "who is there, and how far away",
    "weft fabric",
    "how long until others know what is here",
    "weft fabric --json | jq .self.lag_us_p99",
    "is the NIC on the GPU's side of the host, and which nodes are near",
    "weft fabric topology",
    "what a prefill made here is wanted on another node",
    "weft fabric hand-over decode-3 --key prompt-4f2a --block-bytes 2MiB --blocks 40",
    "who has how much of what this box lends",
    "weft fabric lent",
    "no more than 2 TB of what this box lends for host-7",
    "weft fabric allot host-7 2TB",
    "no more than 2 GB a second to host-9, which is behind a thin line",
    "weft fabric limit link host-9 2GB",
    "three parts of four for chat, when batch wants the links, too",
    "weft fabric limit share chat 3",
    "this host will be taken down",
    "weft fabric drain",
    NULL,
};

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static long long number_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

/* What is to go from this node to others' memory, and for how long that will be. */
static void moves_print(const json_t *self)
{
    static const struct {
        const char *key, *what;
    } parts[] = {{"move_last_bytes", "that nobody else has"},
                 {"move_few_bytes", "that have too few copies"},
                 {"move_share_bytes", "that are beyond its share"}};
    char text[32];
    bool any = false;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        long long bytes = number_of(self, parts[i].key);
        if (bytes <= 0)
            continue;
        printf("%s%s %s", any ? ", " : "gives others' memory ",
               wf_cli_size((uint64_t)bytes, text, sizeof text), parts[i].what);
        any = true;
    }
    long long full = any ? number_of(self, "move_full_bytes") : 0;
    const char *standing = text_of(self, "standing");
    if (any && strcmp(standing, "member") != 0 && strcmp(standing, "doubtful") != 0)
        printf("; it waits until this node is a member again\n");
    else if (any && full > 0) /* nobody knows how long */
        printf("\n");
    else if (any)
        printf(": %.1f s more\n", (double)number_of(self, "move_left_ms") / 1e3);
    if (full > 0)
        printf(
            "  no other node that lends has room for %s of it: lend more elsewhere (fabric.lend, "
            "weft fabric lend), or stop this node without that; what is in its pool it writes "
            "to its own tiers then, if it has some\n",
            wf_cli_size((uint64_t)full, text, sizeof text));
    if (any)
        return;
    if (json_is_true(json_object_get(self, "drained")))
        printf("is drained: others have all that is in its memory, and it may be stopped\n");
    else if (json_is_true(json_object_get(self, "draining")))
        printf("drains: what it has is being looked at\n");
}

static void self_print(const json_t *self)
{
    char replica[32];
    long long bytes = number_of(self, "replica_bytes");
    static const char *const standings[][2] = {{"joining", "joins"},
                                               {"member", "is a member of"},
                                               {"doubtful", "is a member, in doubt, of"},
                                               {"lost", "has no lease any more of"},
                                               {"refused", "is refused by"}};
    const char *standing = text_of(self, "standing");
    for (size_t i = 0; i < sizeof standings / sizeof standings[0]; i++)
        if (strcmp(standing, standings[i][0]) == 0)
            standing = standings[i][1];
    printf("%s at %s %s %s, epoch %lld\n", text_of(self, "name"), text_of(self, "address"),
           standing, text_of(self, "registry")[0] ? text_of(self, "registry") : "no registry",
           number_of(self, "epoch"));
    if (text_of(self, "why")[0])
        printf("  %s\n", text_of(self, "why"));
    printf("knows of %lld copies elsewhere, %lld of them on tiers alone, in %s; lag p50 %lld us, "
           "p99 %lld us\n",
           number_of(self, "replica_copies"), number_of(self, "replica_below"),
           wf_cli_size(bytes > 0 ? (uint64_t)bytes : 0, replica, sizeof replica),
           number_of(self, "lag_us_p50"), number_of(self, "lag_us_p99"));
    moves_print(self);
}

/* What crosses encoded between this node and that, and how many times smaller. */
static json_t *codec_of(const json_t *node)
{
    char text[64] = "";
    static const char *const ways[][3] = {{"in", "codec_in", "ratio_in"},
                                          {"out", "codec_out", "ratio_out"}};
    for (size_t i = 0; i < 2; i++) {
        size_t length = strlen(text);
        if (strcmp(text_of(node, ways[i][1]), "lossless") != 0)
            continue;
        double ratio = json_number_value(json_object_get(node, ways[i][2]));
        snprintf(text + length, sizeof text - length, "%s%s", length ? ", " : "", ways[i][0]);
        length = strlen(text);
        if (ratio > 0) /* else nothing has crossed yet */
            snprintf(text + length, sizeof text - length, " %.2f", ratio);
    }
    return json_string(text[0] ? text : "-");
}

static void nodes_print(const json_t *nodes)
{
    static const char *const shown[] = {"name",       "state",        "rtt_us",       "read_gbps",
                                        "blocks",     "below_blocks", "lag_us",       "reads",
                                        "read_bytes", "serves",       "served_bytes", "codec",
                                        "transport",  "address"};
    json_t *rows = json_array(), *from;
    size_t index;
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from) {
        json_t *row = json_object();
        for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
            wf_cli_json_set(row, shown[i],
                            strcmp(shown[i], "codec") == 0
                                ? codec_of(from)
                                : json_incref(json_object_get(from, shown[i])));
        if (!text_of(from, "transport")[0])
            wf_cli_json_set(row, "transport", json_null());
        json_array_append_new(rows, row);
    }
    wf_cli_table_print(rows, stdout);
    json_decref(rows);
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from)
        if (text_of(from, "why")[0])
            printf("%s: %s\n", text_of(from, "name"), text_of(from, "why"));
}

static bool is_up(const json_t *node)
{
    return strcmp(text_of(node, "state"), "away") != 0;
}

/* What this node lends, and who has how much of it; what others lend to this one. */
static void lent_print(const json_t *self, const json_t *nodes)
{
    static const char *const shown[] = {"held_bytes", "due_bytes", "least_bytes", "limit_bytes"};
    char lends[32], used[32], unused[32];
    long long bytes = number_of(self, "lent_bytes"), has = number_of(self, "lent_used_bytes");
    json_t *rows = json_array(), *from;
    size_t index;
    if (bytes > 0)
        printf("lends %s, of which %s are used by %lld block%s; %lld were put there, %lld refused, "
               "%lld went for others\n",
               wf_cli_size((uint64_t)bytes, lends, sizeof lends),
               wf_cli_size(has > 0 ? (uint64_t)has : 0, used, sizeof used),
               number_of(self, "lent_blocks"), number_of(self, "lent_blocks") == 1 ? "" : "s",
               number_of(self, "lent_puts"), number_of(self, "lent_refused"),
               number_of(self, "lent_evicted"));
    else
        printf("this node lends nothing (fabric.lend, or the last weft fabric lend)\n");
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from) {
        json_t *row = json_object();
        wf_cli_json_set(row, "to", json_incref(json_object_get(from, "name")));
        for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++)
            wf_cli_json_set(row, shown[i], json_incref(json_object_get(from, shown[i])));
        json_array_append_new(rows, row);
    }
    if (bytes > 0 && json_array_size(rows))
        wf_cli_table_print(rows, stdout);
    json_decref(rows);
    json_array_foreach ((json_t *)(uintptr_t)nodes, index, from) {
        long long most = number_of(from, "lent_bytes"), left = number_of(from, "lent_free_bytes");
        bool drains = strcmp(text_of(from, "state"), "draining") == 0;
        if (most > 0 && (drains || !is_up(from)))
            printf("%s lends this node %s at most; it %s\n", text_of(from, "name"),
                   wf_cli_size((uint64_t)most, lends, sizeof lends),
                   drains ? "drains, and takes nothing new" : "is away");
        else if (most > 0)
            printf("%s lends this node %s at most; %s of it can be had now\n",
                   text_of(from, "name"), wf_cli_size((uint64_t)most, lends, sizeof lends),
                   wf_cli_size(left > 0 ? (uint64_t)left : 0, unused, sizeof unused));
    }
}

static int answer_show(struct cli *cli, bool lent)
{
    json_t *answer;
    int code = wf_cli_query(cli, "fabric", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    const json_t *self = json_object_get(answer, "self"), *nodes = json_object_get(answer, "nodes");
    if (cli->json) {
        wf_cli_json_print(answer);
        return CLI_OK;
    }
    if (json_is_object(self) && lent) {
        lent_print(self, nodes);
    } else if (json_is_object(self)) {
        self_print(self);
        if (json_array_size(nodes))
            nodes_print(nodes);
        else
            printf("no other node is known\n");
    } else {
        printf("this node is alone; weftd --join says to which cluster it belongs\n");
    }
    json_decref(answer);
    return CLI_OK;
}

static int show(struct cli *cli)
{
    return answer_show(cli, false);
}

static int lent(struct cli *cli)
{
    int code = cli->word_count == 1
                   ? wf_cli_connect(cli)
                   : wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    return code == CLI_OK ? answer_show(cli, true) : code;
}

static int done(struct cli *cli, enum weft_status status, const char *what, const char *sentence)
{
    if (status != WEFT_OK)
        return wf_cli_fail_status(cli, status, what);
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "done", json_string(sentence));
        wf_cli_json_print(answer);
    } else {
        printf("%s\n", sentence);
    }
    return CLI_OK;
}

/* Why node `name` takes no chain now, as far as it is known to who asks; "": it may. */
static void takes_none(struct cli *cli, const char *name, char *out, size_t size)
{
    json_t *answer = NULL, *node;
    size_t index;
    *out = 0;
    (void)wf_cli_query(cli, "fabric", 0, 0, &answer);
    json_array_foreach (json_object_get(answer, "nodes"), index, node) {
        const char *state = text_of(node, "state"), *why = text_of(node, "why");
        if (strcmp(text_of(node, "name"), name) != 0)
            continue;
        if (strcmp(state, "away") == 0 || strcmp(state, "no member") == 0)
            snprintf(out, size, "%.63s is %s%s%s", name, state, *why ? ": " : "", why);
        else if (strcmp(state, "draining") == 0)
            snprintf(out, size, "%.63s drains, and takes nothing new", name);
        else if (json_integer_value(json_object_get(node, "domains")) == 0)
            snprintf(out, size, "%.63s has none of this node's domains", name);
    }
    json_decref(answer);
}

static int hand_over(struct cli *cli)
{
    struct cli_chain chain = {0};
    char sentence[256], why[256];
    if (cli->word_count != 2)
        return wf_cli_fail(cli, CLI_USAGE, "say to whom: weft fabric hand-over NODE --key NAME");
    int code = wf_cli_chain_open(cli, blocks, &chain);
    if (code == CLI_OK)
        code = wf_cli_chain_look(cli, &chain);
    if (code == CLI_OK && !chain.present)
        code = wf_cli_fail(cli, CLI_MISS, "no block of that chain is here");
    if (code == CLI_OK)
        takes_none(cli, cli->words[1], why, sizeof why);
    if (code == CLI_OK && *why)
        code = wf_cli_fail(cli, CLI_REFUSED, "the chain is not handed over: %s", why);
    if (code == CLI_OK) {
        enum weft_status status = weft_hand_over(cli->weft, &chain.keys[chain.present - 1],
                                                 cli->words[1]);
        int length = snprintf(sentence, sizeof sentence, "%.63s was told of %zu block%s",
                              cli->words[1], chain.present, wf_cli_s(chain.present));
        size_t others = chain.count - chain.present;
        if (others)
            snprintf(sentence + length, sizeof sentence - (size_t)length, "; %zu %s not there",
                     others, others == 1 ? "is" : "are");
        code = done(cli, status, "the chain is not handed over", sentence);
        code = code == CLI_OK && others ? CLI_MISS : code;
    }
    wf_cli_chain_close(&chain);
    return code;
}

static int size_read(struct cli *cli, const char *text, uint64_t *out)
{
    if (text && weft_size_parse(text, out) == WEFT_OK)
        return CLI_OK;
    return wf_cli_fail(cli, CLI_USAGE, "'%.40s' is no size; write it like 512MB or 2TB",
                       text ? text : "");
}

static int allot(struct cli *cli)
{
    uint64_t bytes = 0;
    char sentence[256], due[32], may[32], floor[64] = "";
    if (cli->word_count != 3)
        return wf_cli_fail(cli, CLI_USAGE, "say whom and how much: weft fabric allot NODE SIZE");
    int code = size_read(cli, cli->words[2], &bytes);
    if (code == CLI_OK)
        code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    if (least)
        snprintf(floor, sizeof floor, ", and is due %s at least",
                 wf_cli_size(least, due, sizeof due));
    snprintf(sentence, sizeof sentence, "%.63s may have %s of what %.63s lends%s", cli->words[1],
             bytes ? wf_cli_size(bytes, may, sizeof may) : "its part",
             lender ? lender : "this node", floor);
    return done(cli, weft_fabric_allot(cli->weft, lender, cli->words[1], bytes, least),
                "it is not allotted", sentence);
}

static int lend(struct cli *cli)
{
    uint64_t bytes = 0;
    char sentence[256], size[32];
    if (cli->word_count != 2)
        return wf_cli_fail(cli, CLI_USAGE, "say how much: weft fabric lend SIZE");
    int code = size_read(cli, cli->words[1], &bytes);
    if (code == CLI_OK)
        code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    snprintf(sentence, sizeof sentence, "%.63s lends %s from now on", lender ? lender : "this node",
             wf_cli_size(bytes, size, sizeof size));
    return done(cli, weft_fabric_lend(cli->weft, lender, bytes), "it is not lent", sentence);
}

static const json_t *row_of(const json_t *rows, const char *name)
{
    const json_t *row;
    size_t index;
    json_array_foreach (rows, index, row)
        if (strcmp(text_of(row, "name"), name) == 0)
            return row;
    return NULL;
}

static bool is_there(struct cli *cli, const char *name)
{
    json_t *answer;
    if (wf_cli_query(cli, "fabric", 0, 0, &answer) != CLI_OK)
        return true;
    bool there = row_of(json_object_get(answer, "nodes"), name) != NULL;
    json_decref(answer);
    return there;
}

/* For people: 0 B a second is what a bound is not. */
static void unbounded_mark(json_t *rows)
{
    json_t *row;
    size_t index;
    json_array_foreach (rows, index, row)
        if (number_of(row, "max_bytes_s") == 0)
            wf_cli_json_set(row, "max_bytes_s", json_null());
}

/* Its bound is in `from`; `own`, `there`: of a node alone, else null. */
static void bound_add(json_t *rows, const char *of, const char *name, const json_t *from,
                      json_t *own, json_t *there)
{
    json_t *share = json_object_get(from, "share");
    json_array_append_new(rows, json_pack("{ss, ss, sO, so, so, so}", "of", of, "name", name,
                                          "max_bytes_s", json_object_get(from, "max_bytes_s"),
                                          "share", share ? json_incref(share) : json_null(), "own",
                                          own, "there", there));
}

/* The bounds that there are: of each domain, of what goes to each node that is known, of such that
 * are not, and of all that have none of their own. */
static json_t *bounds_of(const json_t *answer)
{
    const json_t *self = json_object_get(answer, "self"), *nodes = json_object_get(answer, "nodes");
    const json_t *all = json_object_get(self, "link_limits"), *from;
    const json_t *named = json_object_get(all, "nodes");
    json_t *rows = json_array();
    size_t index;
    json_array_foreach (json_object_get(self, "domains"), index, from)
        bound_add(rows, "domain", text_of(from, "name"), from, json_null(), json_null());
    json_array_foreach (nodes, index, from) {
        const char *name = text_of(from, "name");
        const json_t *own = row_of(named, name);
        bound_add(rows, "link", name, own ? own : all, json_boolean(own),
                  json_boolean(is_up(from)));
    }
    json_array_foreach (named, index, from) {
        const char *name = text_of(from, "name");
        if (!row_of(nodes, name) && strcmp(name, text_of(self, "name")) != 0)
            bound_add(rows, "link", name, from, json_true(), json_false());
    }
    if (all)
        bound_add(rows, "link", "all", all, json_null(), json_null());
    return rows;
}

static int limits_show(struct cli *cli)
{
    json_t *answer, *rows;
    int code = wf_cli_connect(cli);
    if (code == CLI_OK)
        code = wf_cli_query(cli, "fabric", 0, 0, &answer);
    if (code != CLI_OK)
        return code;
    rows = bounds_of(answer);
    if (cli->json) {
        json_t *shown = json_object();
        wf_cli_json_set(shown, "limits", json_incref(rows));
        wf_cli_json_print(shown);
    } else if (json_array_size(rows)) {
        unbounded_mark(rows);
        wf_cli_table_print(rows, stdout);
    } else {
        printf("this node is alone, and sends nothing\n");
    }
    json_decref(rows);
    json_decref(answer);
    return CLI_OK;
}

static int share_read(struct cli *cli, const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    if (!errno && end != text && !*end && *text != '-')
        return CLI_OK;
    return wf_cli_fail(cli, CLI_USAGE,
                       "'%s' is no share; write a number from 1 to 1000000: weft fabric limit "
                       "share %s 3",
                       text, cli->words[2]);
}

static int bound_read(struct cli *cli, enum weft_limit what, bool all, uint64_t *out)
{
    const char *text = cli->words[3];
    if (what == WEFT_LIMIT_SHARE)
        return share_read(cli, text, out);
    *out = WEFT_LIMIT_AS_ALL;
    bool one = what == WEFT_LIMIT_LINK && !all;
    if (one && strcmp(text, "default") == 0)
        return CLI_OK;
    int code = size_read(cli, text, out);
    *out -= *out == WEFT_LIMIT_AS_ALL; /* that many bytes is no bound either */
    return code;
}

static int limit(struct cli *cli)
{
    static const char *const kinds[] = {"link", "domain", "share"};
    uint64_t value = 0;
    char sentence[256], size[32];
    enum weft_limit what = WEFT_LIMIT_LINK;
    if (cli->word_count == 1)
        return limits_show(cli);
    if (cli->word_count != 4)
        return wf_cli_fail(cli, CLI_USAGE,
                           "say of what, and how much: weft fabric limit link NODE|all SIZE, limit "
                           "domain NAME SIZE, or limit share NAME N");
    while (what <= WEFT_LIMIT_SHARE && strcmp(cli->words[1], kinds[what - 1]) != 0)
        what++;
    if (what > WEFT_LIMIT_SHARE)
        return wf_cli_fail(cli, CLI_USAGE, "'%.40s' is none of link, domain and share",
                           cli->words[1]);
    bool all = what == WEFT_LIMIT_LINK && strcmp(cli->words[2], "all") == 0;
    int code = bound_read(cli, what, all, &value);
    if (code == CLI_OK)
        code = wf_cli_connect(cli);
    if (code != CLI_OK)
        return code;
    const char *to = all                       ? "to each node without a bound of its own"
                     : what == WEFT_LIMIT_LINK ? "to it"
                                               : "of it";
    if (what == WEFT_LIMIT_SHARE)
        snprintf(sentence, sizeof sentence, "the share of %.63s is %.40s from now on",
                 cli->words[2], cli->words[3]);
    else if (value == WEFT_LIMIT_AS_ALL)
        snprintf(sentence, sizeof sentence,
                 "%.63s: what is sent to it has the bound of all from now on", cli->words[2]);
    else if (value)
        snprintf(sentence, sizeof sentence, "%.63s: %s a second at most is sent %s from now on",
                 cli->words[2], wf_cli_size(value, size, sizeof size), to);
    else
        snprintf(sentence, sizeof sentence, "%.63s: what is sent %s has no bound from now on",
                 cli->words[2], to);
    if (what == WEFT_LIMIT_LINK && !all && !is_there(cli, cli->words[2])) {
        size_t length = strlen(sentence);
        snprintf(sentence + length, sizeof sentence - length,
                 "; no node of that name is there now");
    }
    return done(cli, weft_fabric_limit(cli->weft, what, all ? NULL : cli->words[2], value),
                "it is not limited", sentence);
}

static int drain(struct cli *cli)
{
    int code = cli->word_count == 1
                   ? wf_cli_connect(cli)
                   : wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    if (code != CLI_OK)
        return code;
    return done(
        cli, weft_fabric_drain(cli->weft, !off), "it is not drained",
        off ? "this node takes blocks and requests of others again"
            : "this node takes no blocks and no requests of others any more, and gives them "
              "what nobody else has; weft fabric says when that is done");
}

/* An option that is another word's is refused: who says `drain --lender NODE` means that node, and
 * this one would be drained. */
static int options_check(struct cli *cli, int which)
{
    const struct {
        const char *option, *of, *mend;
        bool given, known;
    } all[] = {
        {"lender", "allot and lend", "; run weft on that node, or with its --socket",
         lender != NULL, which == ALLOT || which == LEND},
        {"min", "allot", "; leave it out", least > 0, which == ALLOT},
        {"off", "drain", "; leave it out", off, which == DRAIN},
        {"blocks", "hand-over", "; leave it out", blocks != 1, which == HAND_OVER},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        if (all[i].given && !all[i].known)
            return wf_cli_fail(cli, CLI_USAGE, "--%s is for %s, not for %s%s", all[i].option,
                               all[i].of, words[which].name, all[i].mend);
    return CLI_OK;
}

static int run(struct cli *cli)
{
    static int (*const runs[])(
        struct cli *) = {[SHOW] = show,   [TOPOLOGY] = wf_cli_fabric_topology,
                         [LENT] = lent,   [HAND_OVER] = hand_over,
                         [ALLOT] = allot, [LEND] = lend,
                         [LIMIT] = limit, [DRAIN] = drain};
    int which = cli->word_count ? wf_cli_choose(cli) : SHOW;
    if (which < 0 || options_check(cli, which) != CLI_OK)
        return CLI_USAGE;
    if (which != SHOW)
        return runs[which](cli);
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    int code = wf_cli_connect(cli);
    return code == CLI_OK ? show(cli) : code;
}

const struct cli_command wf_cmd_fabric = {
    .name = "fabric",
    .summary = "the other nodes: who is there, how far, and what they have",
    .synopsis = "show|topology|lent|hand-over NODE|allot NODE SIZE|lend SIZE|limit|drain",
    .about =
        "A node is ok when there is a link to it, it is a member of the cluster, and it has told "
        "all that it has; telling, before it has told all; no member, when its lease is over or "
        "it speaks under an older one, so that nothing it says is believed; away, when there is "
        "no link, and then the reason stands below the table.  All of this but hand-over is for "
        "the node's own user and root.\n\n"
        "blocks counts copies that it told of and that have not gone, of domains that both nodes "
        "have: those with the same name in one cluster, or with the same secret; below_blocks "
        "those of them that are on the node's tiers alone, and are read there for whoever asks.  "
        "lag_us is how long it took of late from a change there until it was known here, and "
        "read_gbps, in 10^9 bytes a second, what reads from it reached while there were some.\n\n"
        "codec says which way blocks cross encoded, without loss, and how many times smaller they "
        "are then: where the link is slow enough that they are there sooner so (fabric.codec).  "
        "With --json, link_mbps is how fast bytes come over the link, in 10^6 a second.\n\n"
        "topology shows NUMA nodes with what the firmware says of their distances, where "
        "network cards, drives, GPUs and memory beyond DRAM hang (a PCI address, and the "
        "bridges above it), what the link to each carries now and could carry, and which of "
        "them the fabric or a tier uses; then the nodes of the cluster by fabric.place, a "
        "level of switches a step.  distance is how many levels of both paths are not the "
        "same.\n\n"
        "What a node lends (fabric.lend) is due to the others in equal parts; one that has more "
        "gives it back when another wants its own.  lent shows who has how much (held_bytes), what "
        "it is due, at least (least_bytes, 0: its part) and at most (limit_bytes, 0: no bound), "
        "and what others lend to this node.  allot sets the most that one may have, and 0 "
        "lets it have its part again; --min is due to it whoever else wants some, and all of "
        "these together fit what is lent.  Where allot leaves a node less than it has, what it "
        "used longest ago goes at once, and where lend leaves less than is used, what no other "
        "lender takes: these may be the last copies.  The lender says how many blocks went, in "
        "its log and in weft events.  The registry keeps what allot and lend say, so that "
        "any node may say it for any lender (--lender) and it outlives both; where nodes have a "
        "list of each other, each lender keeps its own, in state_dir.\n\n"
        "A hand-over is a word, and no more: the other node fetches what it was told of in its own "
        "time, and from here when somebody there asks for it before.  Whether it lives to do so is "
        "not waited for.\n\n"
        "Blocks that leave this node take their turn.  Domains that want more of a link than "
        "there is have it by their shares (domains: fabric_share), what nobody waits for, as "
        "prefetches and blocks that go to memory of others, has a sixteenth of what somebody "
        "waits for, and limit sets bounds in bytes a second: of what goes to a node, or of a "
        "domain to all of them.  A node's own bound goes before that of all (0: it has none), "
        "until it is 'default'.  What limit says is forgotten when the node starts anew "
        "(fabric.link_max, fabric.links, fabric_max).  --json has in sent what went, in bytes_s "
        "how much in the last second, in waits and wait_us how many blocks waited in line and "
        "how long all of them together, and in late how many could not go in time.\n\n"
        "A node that drains serves what it has, and puts what nobody else has into memory that "
        "others lend: of what it lends itself what was used last first, then of its pool, "
        "beginnings first, at fabric.move_rate. When weft fabric says there that it is drained, it "
        "may be stopped; what is on its tiers stays there. For what no lender has room for it "
        "goes on trying, which weft fabric says, too. With --off it moves nothing any more.\n\n"
        "At the same rate, blocks of which there should be more copies (fabric.copies) are copied "
        "again when a node that had one is gone, by the one of the others whose name comes first; "
        "and who lends more than a twentieth of its memory beyond what all are full on average "
        "gives that to who has less, as it does with what does not fit when it lends less.",
    .words = words,
    .options = options,
    .groups = {wf_cli_key_group, wf_cli_format_group},
    .examples = examples,
    .run = run,
};
