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

static int unknown(struct cli *cli, const char *typed)
{
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
    if (!help && (!man || count < 3))
        return unknown(cli, word);
    const struct cli_command *command = command_find(arguments[2]);
    if (!command)
        return unknown(cli, arguments[2]);
    (man ? wf_cli_man_print : wf_cli_help_print)(command, stdout);
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
    cli.command = command_find(arguments[1]);
    int code;
    if (!cli.command) {
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
