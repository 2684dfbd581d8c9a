/* SPDX-License-Identifier: Apache-2.0
 *
 * The command line: options by table, and the nearest word when one is not known.
 *
 * A command's options are its own, those of its groups, and the common ones.  `--name value` and
 * `--name=value` are the same; options and words mix in any order; after `--` all are words.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

#define TYPED_MAX 48 /* longer words are not compared for likeness */

void wf_cli_common_options(struct cli *cli, struct cli_option out[CLI_COMMON_COUNT + 1])
{
    const struct cli_option table[CLI_COMMON_COUNT + 1] = {
        {"json", CLI_FLAG, NULL, &cli->json, "answer as JSON, on one line"},
        {"socket", CLI_TEXT, "PATH", &cli->socket, "the node's socket ($WEFT_SOCKET)"},
        {"domain", CLI_TEXT, "NAME", &cli->domain, "trust domain ($WEFT_DOMAIN, default)"},
        {"token", CLI_TEXT, "TOKEN", &cli->token, "the domain's token ($WEFT_TOKEN)"},
        {"help", CLI_FLAG, NULL, &cli->help, "this text"},
        {NULL},
    };
    memcpy(out, table, sizeof table);
}

/* Edit distance where a swap of neighbours counts once. */
static int distance(const char *a, const char *b)
{
    int rows[3][TYPED_MAX + 1];
    int a_length = (int)strlen(a), b_length = (int)strlen(b);
    if (a_length > TYPED_MAX || b_length > TYPED_MAX)
        return TYPED_MAX;
    for (int j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (int i = 1; i <= a_length; i++) {
        int *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= b_length; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[a_length % 3][b_length];
}

const char *wf_cli_nearest(const char *typed, const char *(*next)(void *context, int index),
                           void *context)
{
    const char *nearest = NULL;
    int best = (int)strlen(typed) / 3 + 2; /* further away is a guess, not a help */
    const char *candidate;
    for (int i = 0; (candidate = next(context, i)); i++) {
        int away = distance(typed, candidate);
        if (strlen(typed) >= 2 && strncmp(candidate, typed, strlen(typed)) == 0)
            away = 0; /* the beginning of a word is as good as the word */
        if (away < best) {
            best = away;
            nearest = candidate;
        }
    }
    return nearest;
}

struct option_tables {
    const struct cli_option *tables[6];
    int count;
};

static struct option_tables tables_of(const struct cli_command *command,
                                      const struct cli_option *common)
{
    struct option_tables all = {.count = 0};
    if (command->options)
        all.tables[all.count++] = command->options;
    for (int i = 0; i < 3 && command->groups[i]; i++)
        all.tables[all.count++] = command->groups[i];
    all.tables[all.count++] = common;
    return all;
}

static const struct cli_option *option_at(const struct option_tables *all, int index)
{
    for (int i = 0; i < all->count; i++)
        for (const struct cli_option *option = all->tables[i]; option->name; option++)
            if (index-- == 0)
                return option;
    return NULL;
}

static const char *option_name_at(void *context, int index)
{
    const struct cli_option *option = option_at(context, index);
    return option ? option->name : NULL;
}

static const struct cli_option *option_find(const struct option_tables *all, const char *name,
                                            size_t length)
{
    const struct cli_option *option;
    for (int i = 0; (option = option_at(all, i)); i++)
        if (strlen(option->name) == length && memcmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

static bool is_choice(const struct cli_option *option, const char *value)
{
    if (!strchr(option->value, '|'))
        return true;
    size_t length = strlen(value);
    for (const char *p = option->value; p; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strncmp(p, value, length) == 0 && (p[length] == '|' || !p[length]))
            return true;
    return false;
}

static int choice_refuse(struct cli *cli, const struct cli_option *option, const char *value)
{
    char word[TYPED_MAX + 1], nearest[TYPED_MAX + 32] = "";
    int best = (int)strlen(value) / 3 + 2;
    for (const char *p = option->value; *p; p += strspn(p, "|")) {
        int length = (int)strcspn(p, "|");
        snprintf(word, sizeof word, "%.*s", length, p);
        p += length;
        int away = distance(value, word);
        if (away >= best)
            continue;
        best = away;
        snprintf(nearest, sizeof nearest, "; did you mean '%s'?", word);
    }
    return wf_cli_fail(cli, CLI_USAGE, "--%s is '%s'%s%s of %s", option->name, value, nearest,
                       *nearest ? "  It is one" : "; it is one", option->value);
}

static int value_set(struct cli *cli, const struct cli_option *option, const char *value)
{
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case CLI_FLAG: *(bool *)option->to = true; return CLI_OK;
    case CLI_TEXT:
        if (!is_choice(option, value))
            return choice_refuse(cli, option, value);
        *(const char **)option->to = value;
        return CLI_OK;
    case CLI_LIST: {
        struct cli_list *list = option->to;
        if (list->count == CLI_LIST_MAX)
            return wf_cli_fail(cli, CLI_USAGE, "--%s is given more than %d times", option->name,
                               CLI_LIST_MAX);
        list->items[list->count++] = value;
        return CLI_OK;
    }
    case CLI_NUMBER: {
        unsigned long long number = strtoull(value, &end, 10);
        if (errno || end == value || *end || *value == '-')
            return wf_cli_fail(cli, CLI_USAGE, "--%s is '%s'; write a whole number: --%s 10",
                               option->name, value, option->name);
        *(uint64_t *)option->to = number;
        return CLI_OK;
    }
    case CLI_SIZE:
        if (weft_size_parse(value, option->to) != WEFT_OK)
            return wf_cli_fail(cli, CLI_USAGE, "--%s: %s", option->name, weft_last_error());
        if (*(uint64_t *)option->to == 0)
            return wf_cli_fail(cli, CLI_USAGE, "--%s is 0; give a size, like 1MB, or leave it out",
                               option->name);
        return CLI_OK;
    case CLI_REAL: {
        double real = strtod(value, &end);
        if (errno || end == value || *end)
            return wf_cli_fail(cli, CLI_USAGE, "--%s is '%s'; write a number: --%s 0.5",
                               option->name, value, option->name);
        *(double *)option->to = real;
        return CLI_OK;
    }
    }
    return CLI_USAGE;
}

/* One option at arguments[*index]; moves *index past a value that stands apart. */
static int option_take(struct cli *cli, struct option_tables *all, int count, char **arguments,
                       int *index)
{
    const char *name = arguments[*index] + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct cli_option *option = option_find(all, name, length);
    if (!option) {
        char typed[TYPED_MAX + 1];
        snprintf(typed, sizeof typed, "%.*s", (int)length, name);
        const char *nearest = wf_cli_nearest(typed, option_name_at, all);
        return wf_cli_fail(cli, CLI_USAGE, "there is no option --%s%s%s%s weft %s --help", typed,
                           nearest ? "; did you mean --" : "", nearest ? nearest : "",
                           nearest ? "?  See" : "; see", cli->command->name);
    }
    if (option->kind == CLI_FLAG && equals)
        return wf_cli_fail(cli, CLI_USAGE, "--%s takes no value; leave out '%s'", option->name,
                           equals);
    const char *value = equals ? equals + 1 : NULL;
    if (option->kind != CLI_FLAG && !equals) {
        if (*index + 1 >= count)
            return wf_cli_fail(cli, CLI_USAGE, "--%s needs a value: --%s %s", option->name,
                               option->name, option->value);
        value = arguments[++*index];
    }
    return value_set(cli, option, value);
}

int wf_cli_parse(struct cli *cli, int count, char **arguments)
{
    struct cli_option common[CLI_COMMON_COUNT + 1];
    wf_cli_common_options(cli, common);
    struct option_tables all = tables_of(cli->command, common);
    bool only_words = false;
    /* So that a mistake before --json on the line is still told as JSON. */
    for (int i = 0; i < count && strcmp(arguments[i], "--") != 0; i++)
        cli->json = cli->json || strcmp(arguments[i], "--json") == 0;
    for (int i = 0; i < count; i++) {
        const char *argument = arguments[i];
        if (!only_words && strcmp(argument, "--") == 0) {
            only_words = true;
        } else if (!only_words && strcmp(argument, "-h") == 0) {
            cli->help = true;
        } else if (!only_words && strncmp(argument, "--", 2) == 0) {
            int code = option_take(cli, &all, count, arguments, &i);
            if (code != CLI_OK)
                return code;
        } else if (!only_words && argument[0] == '-' && argument[1]) {
            return wf_cli_fail(cli, CLI_USAGE, "there is no option %s; options are words: --%s",
                               argument, "help");
        } else if (cli->word_count == CLI_WORDS_MAX) {
            return wf_cli_fail(cli, CLI_USAGE, "more than %d words; '%s' is one too many",
                               CLI_WORDS_MAX, argument);
        } else {
            cli->words[cli->word_count++] = argument;
        }
    }
    return CLI_OK;
}

static const char *word_at(void *context, int index)
{
    return ((const struct cli_word *)context)[index].name;
}

int wf_cli_choose(struct cli *cli)
{
    const struct cli_word *words = cli->command->words;
    char list[256] = "";
    for (int i = 0; words[i].name; i++) {
        if (cli->word_count && strcmp(words[i].name, cli->words[0]) == 0)
            return i;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i].name);
    }
    if (!cli->word_count) {
        wf_cli_fail(cli, CLI_USAGE, "say what: %s", list);
        return -1;
    }
    const char *nearest = wf_cli_nearest(cli->words[0], word_at, (void *)(uintptr_t)words);
    if (nearest)
        wf_cli_fail(cli, CLI_USAGE, "there is no '%s'; did you mean '%s'?  There is: %s",
                    cli->words[0], nearest, list);
    else
        wf_cli_fail(cli, CLI_USAGE, "there is no '%s'; there is: %s", cli->words[0], list);
    return -1;
}

int wf_cli_run_word(struct cli *cli, int (*const runs[])(struct cli *))
{
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    if (cli->word_count > 1)
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many", cli->words[1]);
    return runs[which](cli);
}
