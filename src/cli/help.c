/* SPDX-License-Identifier: Apache-2.0
 *
 * Texts made from the tables: the map, --help, the manual pages (mdoc) and the bash completion.
 *
 * A command says what it does once, in its table; here it takes the shapes that a terminal, man(1)
 * and a shell want.
 */
#include <string.h>

#include "cli/cli.h"

#define TEXT_WIDTH 92

static const struct {
    int code;
    const char *text;
} exits[] = {
    {CLI_OK, "done"},
    {CLI_MISS, "not there, or only in part"},
    {CLI_USAGE, "the command line is wrong"},
    {CLI_NODE, "no node answers, or it went away"},
    {CLI_REFUSED, "the node refused: rights, quota, a limit, no room"},
    {CLI_WRONG, "wrong bytes were found"},
    {CLI_SYSTEM, "this machine refused: a file, memory, a process"},
};

void wf_cli_map_print(FILE *to)
{
    fprintf(to, "weft: one node's KV cache and pooled memory, from the command line\n\n");
    for (int i = 0; wf_cli_commands[i]; i++)
        fprintf(to, "  %-8s %s\n", wf_cli_commands[i]->name, wf_cli_commands[i]->summary);
    fprintf(to, "\n`weft COMMAND --help` has options and examples; every command knows --json.\n"
                "Start here: weft doctor, then weft status.\n");
}

/* `text` in lines of TEXT_WIDTH, each begun with `indent` blanks; "\n" in it is kept. */
static void wrap_print(const char *text, int indent, int column, FILE *to)
{
    int at = column;
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (at > indent && at + 1 + (int)length > TEXT_WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            fputc(' ', to);
            at++;
        } else if (at < indent) {
            fprintf(to, "%*s", indent - at, "");
            at = indent;
        }
        fprintf(to, "%.*s", (int)length, text);
        at += (int)length;
        text += length;
        if (*text == '\n') {
            fputc('\n', to);
            at = 0;
            text++;
            if (*text == '\n')
                fputc(*text++, to);
        }
        while (*text == ' ')
            text++;
    }
    fputc('\n', to);
}

static void options_print(const struct cli_option *options, FILE *to)
{
    for (; options->name; options++) {
        char left[512]; /* the longest has all kinds of events */
        snprintf(left, sizeof left, "--%s%s%s", options->name, options->value ? " " : "",
                 options->value ? options->value : "");
        int column = fprintf(to, "  %-24s", left);
        if (column >= 27) {
            fputc('\n', to);
            column = 0;
        }
        wrap_print(options->help, 27, column, to);
    }
}

void wf_cli_help_print(const struct cli_command *command, FILE *to)
{
    fprintf(to, "weft %s: %s\n\nusage: weft %s [options]%s%s\n\n", command->name, command->summary,
            command->name, *command->synopsis ? " " : "", command->synopsis);
    wrap_print(command->about, 0, 0, to);
    if (command->words) {
        fputc('\n', to);
        for (const struct cli_word *word = command->words; word->name; word++)
            wrap_print(word->help, 27, fprintf(to, "  %-24s", word->name), to);
    }
    fputs("\noptions:\n", to);
    if (command->options)
        options_print(command->options, to);
    for (int i = 0; i < 3 && command->groups[i]; i++)
        options_print(command->groups[i], to);
    struct cli scratch = {0};
    struct cli_option common[CLI_COMMON_COUNT + 1];
    wf_cli_common_options(&scratch, common);
    options_print(common, to);
    fputs("\nexamples:\n", to);
    for (const char *const *line = command->examples; line[0]; line += 2)
        fprintf(to, "  # %s\n  %s\n", line[0], line[1]);
    fputs("\nexit codes:\n", to);
    for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++)
        fprintf(to, "  %d  %s\n", exits[i].code, exits[i].text);
}

/* ----------------------------------------------------------------------------------------- man */

/* Text for mdoc: a new line after each sentence and before column 80, and no line that troff would
 * take for a request. */
static void mdoc_text(const char *text, FILE *to)
{
    int column = 0;
    while (*text) {
        if (text[0] == '\n' && text[1] == '\n') {
            fputs(column ? "\n.Pp\n" : ".Pp\n", to);
            column = 0;
            text += 2;
            continue;
        }
        size_t length = strcspn(text, " \n");
        if (column && column + 1 + (int)length > 78) {
            fputc('\n', to);
            column = 0;
        }
        if (column)
            column += fprintf(to, " ");
        else if (*text == '.' || *text == '\'')
            column += fprintf(to, "\\&");
        for (size_t i = 0; i < length; i++) {
            /* "…" is three bytes, and not in every device's font. */
            bool dots = i + 2 < length && memcmp(text + i, "…", 3) == 0;
            column += fprintf(to, dots ? "..." : text[i] == '\\' ? "\\e" : "%c", text[i]);
            i += dots ? 2 : 0;
        }
        bool ends = length > 1 && strchr(".?!", text[length - 1]) && text[length] == ' ';
        text += length;
        while (*text == ' ')
            text++;
        if (ends || (*text == '\n' && text[1] != '\n')) {
            fputc('\n', to);
            column = 0;
            text += *text == '\n';
        }
    }
    fputs(column ? "\n" : "", to);
}

static void mdoc_options(const struct cli_option *options, FILE *to)
{
    for (; options->name; options++) {
        fprintf(to, ".It Fl -%s", options->name);
        if (options->value)
            fprintf(to, " Ar %s", options->value);
        fputc('\n', to);
        mdoc_text(options->help, to);
    }
}

static void mdoc_tail(const struct cli_command *command, FILE *to)
{
    fputs(".Sh ENVIRONMENT\n.Bl -tag -width WEFT_DOMAIN\n"
          ".It Ev WEFT_SOCKET\nPath of the node's socket, unless\n.Fl -socket\nis given.\n"
          ".It Ev WEFT_DOMAIN\nThe trust domain, unless\n.Fl -domain\nis given.\n"
          ".It Ev WEFT_TOKEN\nThe domain's token, unless\n.Fl -token\nis given.\n.El\n"
          ".Sh EXIT STATUS\n.Bl -tag -width 1n -compact\n",
          to);
    for (size_t i = 0; i < sizeof exits / sizeof exits[0]; i++)
        fprintf(to, ".It %d\n%s\n", exits[i].code, exits[i].text);
    fputs(".El\n.Sh EXAMPLES\n", to);
    for (const char *const *line = command->examples; line[0]; line += 2) {
        mdoc_text(line[0], to);
        fputs(".Bd -literal -offset indent\n", to);
        for (const char *p = line[1]; *p; p++)
            fputs(*p == '\\' ? "\\e" : (char[]){*p, '\0'}, to);
        fputs("\n.Ed\n", to);
    }
    fputs(".Sh SEE ALSO\n.Xr weft 1 ,\n.Xr weft 3 ,\n.Xr weftd 8\n", to);
}

void wf_cli_man_print(const struct cli_command *command, FILE *to)
{
    fprintf(to, ".\\\" SPDX-License-Identifier: Apache-2.0\n.Dd November 20, 2026\n.Dt WEFT-");
    for (const char *p = command->name; *p; p++)
        fputc(*p - 'a' + 'A', to);
    fprintf(to,
            " 1\n.Os\n.Sh NAME\n.Nm weft-%s\n.Nd %s\n.Sh SYNOPSIS\n.Nm weft %s\n.Op Ar options\n",
            command->name, command->summary, command->name);
    if (*command->synopsis)
        fprintf(to, ".No %s\n", command->synopsis);
    fputs(".Sh DESCRIPTION\n", to);
    mdoc_text(command->about, to);
    if (command->words) {
        fputs(".Bl -tag -width Ds\n", to);
        for (const struct cli_word *word = command->words; word->name; word++) {
            fprintf(to, ".It Cm %s\n", word->name);
            mdoc_text(word->help, to);
        }
        fputs(".El\n", to);
    }
    fputs(".Pp\nThe options:\n.Bl -tag -width Ds\n", to);
    if (command->options)
        mdoc_options(command->options, to);
    for (int i = 0; i < 3 && command->groups[i]; i++)
        mdoc_options(command->groups[i], to);
    struct cli scratch = {0};
    struct cli_option common[CLI_COMMON_COUNT + 1];
    wf_cli_common_options(&scratch, common);
    mdoc_options(common, to);
    fputs(".El\n", to);
    mdoc_tail(command, to);
}

/* ---------------------------------------------------------------------------------- completion */

static void completion_options(const struct cli_option *options, FILE *to)
{
    for (; options->name; options++)
        fprintf(to, " --%s", options->name);
}

/* Options whose values are a list: `--speed) values="max realtime"`. */
static void completion_values(const struct cli_option *options, FILE *to)
{
    for (; options && options->name; options++) {
        if (!options->value || !strchr(options->value, '|'))
            continue;
        fprintf(to, "    --%s) values=\"", options->name);
        for (const char *p = options->value; *p; p++)
            fputc(*p == '|' ? ' ' : *p, to);
        fputs("\" ;;\n", to);
    }
}

void wf_cli_completion_print(FILE *to)
{
    fputs(
        "# SPDX-License-Identifier: Apache-2.0\n"
        "# Completion for weft(1).  Made by `weft --print-completion`; a test compares the two.\n"
        "# shellcheck shell=bash\n\n_weft() {\n  local word previous command options words values "
        "i\n"
        "  word=${COMP_WORDS[COMP_CWORD]}\n  previous=${COMP_WORDS[COMP_CWORD - 1]}\n"
        "  command='' values=''\n"
        "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "    case ${COMP_WORDS[i]} in\n    --socket | --domain | --token) ((i++)) ;;\n    -*) ;;\n"
        "    *) command=${COMP_WORDS[i]}; break ;;\n    esac\n  done\n"
        "  COMPREPLY=()\n  if [[ -z $command ]]; then\n    mapfile -t COMPREPLY < <(compgen -W \"",
        to);
    for (int i = 0; wf_cli_commands[i]; i++)
        fprintf(to, "%s ", wf_cli_commands[i]->name);
    fputs("help\" -- \"$word\")\n    return\n  fi\n  options='' words=''\n  case $command in\n",
          to);
    struct cli scratch = {0};
    struct cli_option common[CLI_COMMON_COUNT + 1];
    wf_cli_common_options(&scratch, common);
    for (int i = 0; wf_cli_commands[i]; i++) {
        const struct cli_command *command = wf_cli_commands[i];
        fprintf(to, "  %s)\n    options=\"", command->name);
        if (command->options)
            completion_options(command->options, to);
        for (int group = 0; group < 3 && command->groups[group]; group++)
            completion_options(command->groups[group], to);
        completion_options(common, to);
        fputs("\"\n    words=\"", to);
        for (const struct cli_word *word = command->words; word && word->name; word++)
            fprintf(to, " %s", word->name);
        fputs("\"\n    case $previous in\n", to);
        completion_values(command->options, to);
        for (int group = 0; group < 3 && command->groups[group]; group++)
            completion_values(command->groups[group], to);
        fputs("    esac ;;\n", to);
    }
    fputs("  help) words=\"", to);
    for (int i = 0; wf_cli_commands[i]; i++)
        fprintf(to, " %s", wf_cli_commands[i]->name);
    fputs("\" ;;\n  esac\n"
          "  if [[ -n $values ]]; then\n    mapfile -t COMPREPLY < <(compgen -W \"$values\" -- "
          "\"$word\")\n"
          "  elif [[ $word == -* ]]; then\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$word\")\n"
          "  else\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
          "    ((${#COMPREPLY[@]})) || mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n  fi\n}\n"
          "complete -F _weft weft\n",
          to);
}
