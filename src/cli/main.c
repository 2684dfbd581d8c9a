/* SPDX-License-Identifier: Apache-2.0
 *
 * `weft`: one program, one table of commands.
 *
 * Two words are for packagers and tests only and are in no help: `weft --print-man COMMAND` and
 * `weft --print-completion` write what docs/man and packaging keep, so that neither can drift from
 * the tables.
 */
#include <locale.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/commands.h"

static const struct cli_command none = {.name = ""};

static const struct cli_command *command_find(const char *name)
{
    for (int i = 0; wf_cli_commands[i]; i++)
        if (strcmp(wf_cli_commands[i]->name, name) == 0)
            return wf_cli_commands[i];
    return NULL;
}

static const char *command_name_at(void *context, int index)
{
    (void)context;
    return wf_cli_commands[index] ? wf_cli_commands[index]->name : NULL;
}

/* Of the commands that have words, which has this one? */
static const char *command_of_word(const char *word)
{
    for (int i = 0; wf_cli_commands[i]; i++)
        for (const struct cli_word *w = wf_cli_commands[i]->words; w && w->name; w++)
            if (strcmp(w->name, word) == 0)
                return wf_cli_commands[i]->name;
    return NULL;
}

static int unknown(struct cli *cli, const char *typed)
{
    const char *of = command_of_word(typed);
    if (of)
        return wf_cli_fail(cli, CLI_USAGE, "there is no command '%s'; did you mean 'weft %s %s'?",
                           typed, of, typed);
    const char *nearest = wf_cli_nearest(typed, command_name_at, NULL);
    if (nearest)
        return wf_cli_fail(cli, CLI_USAGE, "there is no command '%s'; did you mean '%s'?", typed,
                           nearest);
    return wf_cli_fail(cli, CLI_USAGE, "there is no command '%s'; `weft` alone lists them", typed);
}

/* `weft help put` is `weft put --help`, and the words for packagers. */
static int other_word(struct cli *cli, int count, char **arguments)
{
    const char *word = arguments[1];
    if (strcmp(word, "--print-completion") == 0) {
        wf_cli_completion_print(stdout);
        return CLI_OK;
    }
    if (strcmp(word, "--version") == 0)
        return wf_cmd_version.run(cli);
    bool help = strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
    bool man = strcmp(word, "--print-man") == 0;
    if (help && count < 3) {
        wf_cli_map_print(stdout);
        return CLI_OK;
    }
    if (strncmp(word, "--", 2) == 0 && !help && !man)
        return wf_cli_fail(cli, CLI_USAGE,
                           "there is no option %s before a command; --json, --socket, --domain and "
                           "--token may stand there",
                           word);
    if (!help && (!man || count < 3))
        return unknown(cli, word);
    const struct cli_command *command = command_find(arguments[2]);
    if (!command)
        return unknown(cli, arguments[2]);
    (man ? wf_cli_man_print : wf_cli_help_print)(command, stdout);
    return CLI_OK;
}

/* `weft --json status` is `weft status --json`: move the command before the common options that
 * stand before it. */
static int words_first(struct cli *cli, int count, char **arguments)
{
    struct cli_option common[CLI_COMMON_COUNT + 1];
    struct cli scratch = {0};
    wf_cli_common_options(&scratch, common);
    int at = 1;
    while (at < count && strncmp(arguments[at], "--", 2) == 0) {
        const char *name = arguments[at] + 2;
        size_t length = strcspn(name, "=");
        const struct cli_option *option = common;
        while (option->name &&
               (strlen(option->name) != length || strncmp(option->name, name, length) != 0))
            option++;
        if (!option->name)
            break;
        if (strcmp(option->name, "json") == 0)
            cli->json = true;
        at += option->kind == CLI_FLAG || name[length] == '=' ? 1 : 2;
    }
    if (at == 1 || (at == 2 && count == 2 && strcmp(arguments[1], "--help") == 0))
        return CLI_OK;
    if (at >= count)
        return wf_cli_fail(cli, CLI_USAGE, "%s needs a command after it; `weft` alone lists them",
                           arguments[count - 1]);
    char *command = arguments[at];
    memmove(arguments + 2, arguments + 1, (size_t)(at - 1) * sizeof *arguments);
    arguments[1] = command;
    return CLI_OK;
}

int main(int count, char **arguments)
{
    setlocale(LC_CTYPE, "");
    /* A reader that goes away (`weft ls blocks | head`) ends a write with EPIPE, not the process.
     */
    signal(SIGPIPE, SIG_IGN);
    struct cli cli = {.command = &none};
    if (count < 2) {
        wf_cli_map_print(stdout);
        return CLI_OK;
    }
    int code = words_first(&cli, count, arguments);
    cli.command = command_find(arguments[1]);
    if (code != CLI_OK) {
        cli.command = &none;
    } else if (!cli.command) {
        cli.command = &none;
        code = other_word(&cli, count, arguments);
    } else {
        code = wf_cli_parse(&cli, count - 2, arguments + 2);
        if (code == CLI_OK && cli.help)
            wf_cli_help_print(cli.command, stdout);
        else if (code == CLI_OK)
            code = cli.command->run(&cli);
    }
    weft_close(cli.weft);
    if (fflush(stdout) != 0 && code == CLI_OK)
        code = CLI_SYSTEM;
    return code;
}
