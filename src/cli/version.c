/* SPDX-License-Identifier: Apache-2.0
 *
 * weft version: of this program, and of the library that it found.
 */
#include "cli/commands.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define HEADER_VERSION \
    TEXT(WEFT_VERSION_MAJOR) "." TEXT(WEFT_VERSION_MINOR) "." TEXT(WEFT_VERSION_PATCH)

#ifdef __clang__
#define COMPILER __VERSION__ /* which begins with its name */
#else
#define COMPILER "gcc " __VERSION__
#endif

static const char *const examples[] = {"for a bug report", "weft version --json", NULL};

static int run(struct cli *cli)
{
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "weft", json_string(HEADER_VERSION));
        wf_cli_json_set(answer, "libweft", json_string(weft_version()));
        wf_cli_json_set(answer, "compiler", json_string(COMPILER));
        wf_cli_json_print(answer);
        return CLI_OK;
    }
    printf("weft %s (libweft %s, built with %s)\n", HEADER_VERSION, weft_version(), COMPILER);
    return CLI_OK;
}

const struct cli_command wf_cmd_version = {
    .name = "version",
    .summary = "versions of this program and of libweft",
    .synopsis = "",
    .about = "Says which version this program was built for and which libweft it runs with.  The "
             "library may be newer.",
    .examples = examples,
    .run = run,
};
