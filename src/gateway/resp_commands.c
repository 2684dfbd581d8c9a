/* SPDX-License-Identifier: Apache-2.0
 *
 * Which commands there are, and how one is run.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/resp_inner.h"

#define READS "readonly fast"
#define WRITES "write denyoom"
#define ADMIN "loading stale fast"

/* Those that are asked for most come first: it is searched from the front. */
const struct wf_resp_command wf_resp_commands[] = {
    {"get", wf_resp_get, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, READS},
    {"set", wf_resp_set, -3, WF_RESP_STORE, 2, 0, 1, 1, 1, WRITES},
    {"exists", wf_resp_exists, -2, WF_RESP_STORE, 0, 0, 1, -1, 1, READS},
    {"mget", wf_resp_mget, -2, WF_RESP_STORE, 0, 0, 1, -1, 1, READS},
    {"mset", wf_resp_mset, -3, WF_RESP_STORE, 2, 2, 1, -1, 2, WRITES},
    {"del", wf_resp_del, -2, WF_RESP_STORE, 0, 0, 1, -1, 1, "write"},
    {"unlink", wf_resp_del, -2, WF_RESP_STORE, 0, 0, 1, -1, 1, "write fast"},
    {"setex", wf_resp_setex, 4, WF_RESP_STORE, 3, 0, 1, 1, 1, WRITES},
    {"psetex", wf_resp_psetex, 4, WF_RESP_STORE, 3, 0, 1, 1, 1, WRITES},
    {"setnx", wf_resp_setnx, 3, WF_RESP_STORE, 2, 0, 1, 1, 1, WRITES},
    {"getset", wf_resp_getset, 3, WF_RESP_STORE, 2, 0, 1, 1, 1, WRITES},
    {"getdel", wf_resp_getdel, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"strlen", wf_resp_strlen, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, READS},
    {"ping", wf_resp_ping, -1, 0, 0, 0, 0, 0, 0, "fast"},
    {"ttl", wf_resp_ttl, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, READS},
    {"pttl", wf_resp_pttl, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, READS},
    {"expire", wf_resp_expire_in, -3, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"pexpire", wf_resp_pexpire_in, -3, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"expireat", wf_resp_expire_at, -3, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"pexpireat", wf_resp_pexpire_at, -3, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"persist", wf_resp_persist, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, "write fast"},
    {"touch", wf_resp_touch, -2, WF_RESP_STORE, 0, 0, 1, -1, 1, READS},
    {"type", wf_resp_type, 2, WF_RESP_STORE, 0, 0, 1, 1, 1, READS},
    {"object", wf_resp_object, -2, WF_RESP_STORE, 0, 0, 2, 2, 1, "readonly"},
    {"memory", wf_resp_memory, -2, WF_RESP_STORE, 0, 0, 2, 2, 1, "readonly"},
    {"scan", wf_resp_scan_run, -2, WF_RESP_STORE, 0, 0, 0, 0, 0, "readonly"},
    {"keys", wf_resp_keys, 2, WF_RESP_STORE, 0, 0, 0, 0, 0, "readonly"},
    {"dbsize", wf_resp_dbsize, 1, WF_RESP_STORE, 0, 0, 0, 0, 0, READS},
    {"flushdb", wf_resp_flushdb, -1, WF_RESP_STORE, 0, 0, 0, 0, 0, "write"},
    {"flushall", wf_resp_flushall, -1, WF_RESP_STORE, 0, 0, 0, 0, 0, "write"},
    {"select", wf_resp_select, 2, WF_RESP_STORE, 0, 0, 0, 0, 0, ADMIN},
    {"echo", wf_resp_echo, 2, 0, 0, 0, 0, 0, 0, "fast"},
    {"hello", wf_resp_hello, -1, WF_RESP_ANYBODY, 0, 0, 0, 0, 0, "noauth " ADMIN},
    {"auth", wf_resp_auth, -2, WF_RESP_ANYBODY, 0, 0, 0, 0, 0, "noauth " ADMIN},
    {"quit", wf_resp_quit, -1, WF_RESP_ANYBODY, 0, 0, 0, 0, 0, "noauth " ADMIN},
    {"reset", wf_resp_reset, 1, WF_RESP_ANYBODY, 0, 0, 0, 0, 0, "noauth " ADMIN},
    {"client", wf_resp_client, -2, 0, 0, 0, 0, 0, 0, "admin"},
    {"command", wf_resp_command_run, -1, 0, 0, 0, 0, 0, 0, "loading stale"},
    {"config", wf_resp_config, -2, 0, 0, 0, 0, 0, 0, "admin loading stale"},
    {"info", wf_resp_info, -1, 0, 0, 0, 0, 0, 0, "loading stale"},
    {"time", wf_resp_time, 1, 0, 0, 0, 0, 0, 0, ADMIN},
};
const size_t wf_resp_command_count = sizeof wf_resp_commands / sizeof wf_resp_commands[0];

const struct wf_resp_command *wf_resp_command_find(const uint8_t *name, size_t length)
{
    for (size_t i = 0; i < wf_resp_command_count; i++) {
        const char *known = wf_resp_commands[i].name;
        if ((known[0] | 0x20) == (name[0] | 0x20) && strlen(known) == length &&
            strncasecmp(known, (const char *)name, length) == 0)
            return &wf_resp_commands[i];
    }
    return NULL;
}

bool wf_resp_argument_is(const struct wf_resp_call *call, uint32_t index, const char *word)
{
    size_t length = strlen(word);
    return wf_resp_argument_bytes(call, index) == length &&
           strncasecmp((const char *)wf_resp_argument(call, index), word, length) == 0;
}

bool wf_resp_argument_number(const struct wf_resp_call *call, uint32_t index, int64_t *out)
{
    return !call->arguments[index].away &&
           wf_resp_number(wf_resp_argument(call, index), wf_resp_argument_bytes(call, index), out);
}

bool wf_resp_takes_long(const struct wf_resp_conn *conn, const uint8_t *bytes, uint32_t index)
{
    const struct wf_resp_argument *name = conn->parser.arguments;
    if (index == 0 || name->length == 0)
        return false;
    const struct wf_resp_command *command = wf_resp_command_find(bytes + name->at, name->length);
    if (!command || !command->long_first || (int32_t)index < command->long_first)
        return false;
    uint32_t beyond = index - (uint32_t)command->long_first;
    return command->long_step ? beyond % (uint32_t)command->long_step == 0 : beyond == 0;
}

/* Redis's words, which clients look for; of transactions, what to do instead. */
static void unknown(const struct wf_resp_call *call)
{
    static const char *const transactions[] = {"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"};
    for (size_t i = 0; i < sizeof transactions / sizeof transactions[0]; i++)
        if (wf_resp_argument_is(call, 0, transactions[i])) {
            wf_resp_error(call->conn,
                          "ERR unknown command '%s': there are no transactions here; send the "
                          "commands without it, as redis-py's pipeline(transaction=False) does",
                          transactions[i]);
            return;
        }
    char words[256] = "";
    size_t used = 0;
    for (uint32_t i = 1; i < call->count && used < 128; i++) {
        int more = call->arguments[i].away
                       ? 0
                       : snprintf(words + used, sizeof words - used, "'%.*s' ",
                                  (int)(call->arguments[i].length < 64 ? call->arguments[i].length
                                                                       : 64),
                                  (const char *)wf_resp_argument(call, i));
        used += more > 0 ? (size_t)more : 0;
    }
    wf_resp_error(call->conn, "ERR unknown command '%.*s', with args beginning with: %s",
                  (int)(call->arguments[0].length < 128 ? call->arguments[0].length : 128),
                  (const char *)wf_resp_argument(call, 0), words);
}

enum wf_resp_done wf_resp_execute(struct wf_resp_conn *conn, const uint8_t *bytes)
{
    struct wf_resp_call call = {.conn = conn,
                                .store = conn->store,
                                .bytes = bytes,
                                .count = conn->parser.count,
                                .arguments = conn->parser.arguments};
    uint32_t length = call.arguments[0].length;
    const struct wf_resp_command *command =
        length ? wf_resp_command_find(bytes + call.arguments[0].at, length) : NULL;
    if (!conn->progress)
        wf_resp_count(&conn->lane->resp->tally.commands, 1);
    if (!command) {
        unknown(&call);
        return WF_RESP_DONE;
    }
    if (command->arity >= 0 ? call.count != (uint32_t)command->arity
                            : call.count < (uint32_t)-command->arity) {
        wf_resp_error(conn, "ERR wrong number of arguments for '%s' command", command->name);
        return WF_RESP_DONE;
    }
    if (!(command->needs & WF_RESP_ANYBODY) && conn->parser.unauthenticated) {
        wf_resp_error(conn, "NOAUTH Authentication required.");
        return WF_RESP_DONE;
    }
    if ((command->needs & WF_RESP_STORE) && !call.store) {
        /* The node did not let us in when this connection came; it may do now. */
        struct wf_resp *resp = conn->lane->resp;
        call.store = conn->store = wf_resp_store_of(resp, resp->place_default);
        if (!call.store) {
            wf_resp_error(conn, "ERR the node does not answer its gateway; try again later");
            return WF_RESP_DONE;
        }
    }
    return command->run(&call);
}
