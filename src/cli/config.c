/* SPDX-License-Identifier: Apache-2.0
 *
 * weft config: the daemon's configuration, told by the daemon itself.
 *
 * The code that reads it lives in weftd; a second reader here would one day answer otherwise.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/commands.h"

static const char *file;

static const struct cli_word words[] = {
    {"check", "would weftd start with it?  Says what is wrong and what is doubtful"},
    {"show", "every setting with its value and where it comes from"},
    {"help", "every setting with its default and what it does, as a file that can be edited"},
    {NULL},
};

static const struct cli_option options[] = {
    {"file", CLI_TEXT, "FILE", &file, "the file ($WEFT_CONFIG, else /etc/weft/weftd.yaml)"},
    {NULL},
};

static const char *const examples[] = {
    "before a restart",
    "weft config check weftd.yaml && systemctl restart weftd",
    "where does that pool size come from?",
    "weft config show | grep pool.size",
    NULL,
};

/* The settings of one object of weftd's answer, a line each. */
static void settings_print(const char *before, const json_t *settings)
{
    const char *key;
    json_t *setting;
    json_object_foreach ((json_t *)(uintptr_t)settings, key, setting) {
        char name[160];
        snprintf(name, sizeof name, "%s%s", before, key);
        char *value = json_dumps(json_object_get(setting, "value"), JSON_ENCODE_ANY);
        const char *origin = json_string_value(json_object_get(setting, "origin"));
        const char *instead = json_string_value(json_object_get(setting, "default"));
        printf("%-32s %-28s %s\n", name,
               instead ? instead
               : value ? value
                       : "",
               origin ? origin : "");
        free(value);
    }
}

static int show(struct cli *cli, char *text)
{
    json_error_t error;
    json_t *answer = json_loads(text, 0, &error);
    if (!json_is_object(answer)) {
        json_decref(answer);
        return wf_cli_fail(cli, CLI_SYSTEM, "weftd did not tell its configuration as JSON: %s",
                           error.text);
    }
    if (cli->json) {
        wf_cli_json_print(answer);
        return CLI_OK;
    }
    printf("# what weftd would start with now; what a running node has: weft status, weft ls "
           "domains\n");
    settings_print("", json_object_get(answer, "settings"));
    static const char *const lists[][2] = {{"domains", "domain"}, {"tiers", "tier"}};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        const char *name;
        json_t *entry;
        json_object_foreach (json_object_get(answer, lists[i][0]), name, entry) {
            char before[96];
            snprintf(before, sizeof before, "%s.%s.", lists[i][1], name);
            settings_print(before, entry);
        }
    }
    json_decref(answer);
    return CLI_OK;
}

static int run_and_show(struct cli *cli, const char *program, const char *const *arguments)
{
    char *text;
    int code = wf_cli_program_read(program, arguments, &text);
    if (text)
        code = show(cli, text) == CLI_OK ? code : CLI_SYSTEM;
    else if (code == 127)
        code = wf_cli_fail(cli, CLI_SYSTEM, "cannot run %s", program);
    else if (code != CLI_OK && cli->json)
        code = wf_cli_fail(cli, (enum cli_exit)code,
                           "weftd cannot read its configuration; what it says of it is on stderr");
    free(text);
    return code;
}

static int run(struct cli *cli)
{
    int which = wf_cli_choose(cli);
    if (which < 0)
        return CLI_USAGE;
    bool shows = strcmp(words[which].name, "show") == 0,
         helps = strcmp(words[which].name, "help") == 0;
    if (cli->word_count > 1 && (file || helps || cli->word_count > 2))
        return wf_cli_fail(cli, CLI_USAGE, "'%s' is one word too many",
                           cli->words[cli->word_count - 1]);
    if (cli->word_count > 1)
        file = cli->words[1];
    if (helps && cli->json)
        return wf_cli_fail(cli, CLI_USAGE,
                           "the help is a YAML file; `weft config show --json` has every setting "
                           "with its value");
    char program[PATH_MAX];
    if (!wf_cli_program_find("weftd", program, sizeof program))
        return wf_cli_fail(cli, CLI_SYSTEM,
                           "there is no weftd beside this program or in PATH, and it is weftd "
                           "that knows its configuration");
    const char *arguments[8] = {program};
    int count = 1;
    if (file) {
        arguments[count++] = "--config";
        arguments[count++] = file;
    }
    arguments[count++] = helps ? "--help-config" : "--check-config";
    if (cli->json || shows)
        arguments[count++] = "--json";
    fflush(NULL);
    if (shows || cli->json)
        return run_and_show(cli, program, arguments);
    execv(program, (char *const *)(uintptr_t)arguments);
    return wf_cli_fail(cli, CLI_SYSTEM, "cannot run %s: %s", program, strerror(errno));
}

const struct cli_command wf_cmd_config = {
    .name = "config",
    .summary = "check or show the daemon's configuration, or help with its settings",
    .synopsis = "check|show|help [FILE]",
    .about = "Runs weftd, found beside this program or in PATH, on its configuration: embedded "
             "defaults, then the file, then WEFT_ variables.  Nothing is started, and "
             "no running node is asked: what it was started with may be other (weft status, weft "
             "ls domains).  The exit code "
             "is weftd's: 0, or 2 when it would not start.  A tier that is not to be had at the "
             "moment keeps no node from starting; it is named, and would be failed.",
    .words = words,
    .options = options,
    .examples = examples,
    .run = run,
};
