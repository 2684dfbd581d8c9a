/* SPDX-License-Identifier: Apache-2.0
 *
 * weft session hint: a session that lives as long as the command, and says what it does.
 *
 * A session ends with the connection that opened it, so another program's cannot be spoken for;
 * this one has a name and a chain of its own.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/session.h"

#define STEP_US 50000

static const struct {
    const char *name;
    enum weft_session_state state;
} states[] = {{"prefill", WEFT_PREFILL},
              {"decoding", WEFT_DECODING},
              {"idle", WEFT_IDLE},
              {"waiting", WEFT_WAITING},
              {"done", WEFT_DONE}};

static void say(struct cli *cli, const struct session_said *said, uint64_t id)
{
    if (cli->json) {
        json_t *answer = json_object();
        wf_cli_json_set(answer, "session", json_integer((json_int_t)id));
        wf_cli_json_set(answer, "name", json_string(said->name));
        wf_cli_json_set(answer, "state", json_string(said->state));
        wf_cli_json_set(answer, "returns_in_ms", json_integer((json_int_t)(said->returns_s * 1e3)));
        wf_cli_json_set(answer, "blocks", json_integer((json_int_t)said->blocks));
        wf_cli_json_print(answer);
    } else {
        printf("session %llu, '%s', is %s on %llu block%s", (unsigned long long)id, said->name,
               said->state, (unsigned long long)said->blocks, wf_cli_s(said->blocks));
        if (said->returns_s > 0)
            printf(", back in %g s", said->returns_s);
        puts(said->keep_s > 0 ? "" : "; it ends with this command: Ctrl-C");
    }
    fflush(stdout);
}

int wf_session_hint(struct cli *cli, struct weft_format *format, const struct weft_key *tip,
                    const struct session_said *said)
{
    struct weft_session *session = NULL;
    const struct weft_session_spec spec = {.name = said->name, .priority = 5};
    const struct weft_hint hint = {.returns_in_ms = (uint32_t)(said->returns_s * 1e3), .tip = tip};
    enum weft_session_state state = WEFT_IDLE;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(states[i].name, said->state) == 0)
            state = states[i].state;
    enum weft_status status = weft_session_open(format, &spec, &session);
    if (status == WEFT_OK)
        status = weft_session_hint(session, state, &hint);
    int code = status == WEFT_OK ? CLI_OK : wf_cli_fail_status(cli, status, "the node is not told");
    if (code == CLI_OK)
        say(cli, said, weft_session_id(session));
    /* An interrupt ends the process, and that the connection, and that the session. */
    double until_s = wf_cli_now_s() + said->keep_s;
    while (code == CLI_OK && (said->keep_s <= 0 || wf_cli_now_s() < until_s))
        usleep(STEP_US);
    weft_session_close(session);
    return code;
}
