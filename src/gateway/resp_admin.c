/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands about the connection and the server: who is asking, in which protocol, how is it going.
 */
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gateway/resp_inner.h"

/* Clients ask which Redis this is, and do without what it had not; nothing newer is spoken here. */
#define REDIS_VERSION "7.0.0"
#define SECRET_MAX 128u

enum wf_resp_done wf_resp_ping(struct wf_resp_call *call)
{
    if (call->count > 2)
        wf_resp_error(call->conn, "ERR wrong number of arguments for 'ping' command");
    else if (call->count == 2)
        wf_resp_bulk(call->conn, wf_resp_argument(call, 1), wf_resp_argument_bytes(call, 1));
    else
        wf_resp_raw(call->conn, "+PONG\r\n", 7);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_echo(struct wf_resp_call *call)
{
    wf_resp_bulk(call->conn, wf_resp_argument(call, 1), wf_resp_argument_bytes(call, 1));
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_quit(struct wf_resp_call *call)
{
    wf_resp_ok(call->conn);
    return WF_RESP_CLOSE;
}

/* ----------------------------------------------------------------------------------- who asks */

/* The time taken says nothing about how much of it is right. */
static bool secret_is(const struct wf_resp_call *call, uint32_t index, const char *secret)
{
    uint8_t given[SECRET_MAX + 1] = {0}, right[SECRET_MAX + 1] = {0};
    size_t length = wf_resp_argument_bytes(call, index);
    memcpy(given, wf_resp_argument(call, index), length < sizeof given ? length : sizeof given);
    memcpy(right, secret, strnlen(secret, SECRET_MAX));
    bool same = CRYPTO_memcmp(given, right, sizeof given) == 0;
    return same && length == strnlen(secret, SECRET_MAX) && length > 0;
}

/* AUTH password, or AUTH user secret: `user` 0 for none. */
static bool auth(const struct wf_resp_call *call, uint32_t user, uint32_t secret)
{
    struct wf_resp_conn *conn = call->conn;
    struct wf_resp *resp = conn->lane->resp;
    bool is_default = !user || wf_resp_argument_is(call, user, "default");
    if (!user && !resp->password[0]) {
        wf_resp_error(conn, "ERR AUTH <password> called without any password configured for the "
                            "default user. Are you sure your configuration is correct?");
        return false;
    }
    uint32_t place = resp->place_count;
    if (is_default && (!resp->password[0] || secret_is(call, secret, resp->password)))
        place = resp->place_default;
    /* A domain with a token is one who knows it. */
    for (uint32_t i = 0; user && i < resp->place_count; i++)
        if (resp->places[i].token[0] && wf_resp_argument_is(call, user, resp->places[i].name) &&
            secret_is(call, secret, resp->places[i].token))
            place = i;
    struct wf_resp_store *store = place < resp->place_count ? wf_resp_store_of(resp, place) : NULL;
    if (!store) {
        wf_resp_count(&resp->tally.auth_failures, 1);
        wf_resp_error(conn, place < resp->place_count
                                ? "ERR the node does not let its gateway into that domain now"
                                : "WRONGPASS invalid username-password pair or user is disabled.");
        return false;
    }
    conn->store = store;
    conn->parser.unauthenticated = false;
    return true;
}

enum wf_resp_done wf_resp_auth(struct wf_resp_call *call)
{
    if (call->count > 3)
        wf_resp_error(call->conn, "ERR syntax error");
    else if (auth(call, call->count == 3 ? 1 : 0, call->count - 1))
        wf_resp_ok(call->conn);
    return WF_RESP_DONE;
}

/* A name has no spaces and nothing that does not print. */
static bool name_take(const struct wf_resp_call *call, uint32_t index, char *out, size_t room)
{
    const uint8_t *name = wf_resp_argument(call, index);
    uint32_t length = wf_resp_argument_bytes(call, index);
    for (uint32_t i = 0; i < length; i++)
        if (name[i] < '!' || name[i] > '~') {
            wf_resp_error(call->conn, "ERR Client names cannot contain spaces, newlines or special "
                                      "characters.");
            return false;
        }
    if (length >= room) {
        wf_resp_error(call->conn, "ERR a client's name has up to %zu bytes", room - 1);
        return false;
    }
    memcpy(out, name, length);
    out[length] = '\0';
    return true;
}

static void hello_tell(struct wf_resp_conn *conn)
{
    wf_resp_map(conn, 7);
    wf_resp_word(conn, "server");
    wf_resp_word(conn, "redis"); /* as what it speaks; `weft` says what it is */
    wf_resp_word(conn, "version");
    wf_resp_word(conn, REDIS_VERSION);
    wf_resp_word(conn, "proto");
    wf_resp_integer(conn, conn->protocol);
    wf_resp_word(conn, "id");
    wf_resp_integer(conn, (int64_t)conn->id);
    wf_resp_word(conn, "mode");
    wf_resp_word(conn, "standalone");
    wf_resp_word(conn, "role");
    wf_resp_word(conn, "master");
    wf_resp_word(conn, "modules");
    wf_resp_array(conn, 0);
}

enum wf_resp_done wf_resp_hello(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    int64_t protocol = conn->protocol;
    char name[WF_RESP_NAME_MAX + 1];
    memcpy(name, conn->name, sizeof name);
    if (call->count > 1 &&
        (!wf_resp_argument_number(call, 1, &protocol) || (protocol != 2 && protocol != 3))) {
        wf_resp_error(conn, "NOPROTO unsupported protocol version");
        return WF_RESP_DONE;
    }
    for (uint32_t i = 2; i < call->count; i++) {
        if (wf_resp_argument_is(call, i, "auth") && i + 2 < call->count) {
            if (!auth(call, i + 1, i + 2))
                return WF_RESP_DONE;
            i += 2;
        } else if (wf_resp_argument_is(call, i, "setname") && i + 1 < call->count) {
            if (!name_take(call, ++i, name, sizeof name))
                return WF_RESP_DONE;
        } else {
            wf_resp_error(conn, "ERR Syntax error in HELLO option '%.*s'",
                          (int)(wf_resp_argument_bytes(call, i) < 64
                                    ? wf_resp_argument_bytes(call, i)
                                    : 64),
                          (const char *)wf_resp_argument(call, i));
            return WF_RESP_DONE;
        }
    }
    if (conn->parser.unauthenticated) {
        wf_resp_error(conn, "NOAUTH HELLO must be called with the client already authenticated, "
                            "otherwise the HELLO <proto> AUTH <user> <pass> option can be used to "
                            "authenticate the client and select the RESP protocol version at the "
                            "same time");
        return WF_RESP_DONE;
    }
    memcpy(conn->name, name, sizeof name);
    conn->protocol = (uint8_t)protocol;
    hello_tell(conn);
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_reset(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    struct wf_resp *resp = conn->lane->resp;
    conn->protocol = 2;
    conn->database = 0;
    conn->name[0] = '\0';
    conn->parser.unauthenticated = resp->password[0] != '\0';
    conn->store = conn->parser.unauthenticated ? NULL : wf_resp_store_of(resp, resp->place_default);
    wf_resp_text(conn, "+RESET");
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_select(struct wf_resp_call *call)
{
    int64_t database;
    if (!wf_resp_argument_number(call, 1, &database)) {
        wf_resp_error(call->conn, "ERR value is not an integer or out of range");
    } else if (database < 0 || database >= (int64_t)WF_RESP_DATABASES) {
        wf_resp_error(call->conn, "ERR DB index is out of range");
    } else {
        call->conn->database = (uint8_t)database;
        wf_resp_ok(call->conn);
    }
    return WF_RESP_DONE;
}

/* -------------------------------------------------------------------------------------- CLIENT */

enum wf_resp_done wf_resp_client(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    char line[512];
    uint32_t words = call->count - 1;
    if (wf_resp_argument_is(call, 1, "setinfo") && words == 3) {
        char *to = wf_resp_argument_is(call, 2, "lib-name") ? conn->library : line;
        if (name_take(call, 3, to, WF_RESP_NAME_MAX))
            wf_resp_ok(conn);
    } else if (wf_resp_argument_is(call, 1, "setname") && words == 2) {
        if (name_take(call, 2, conn->name, sizeof conn->name))
            wf_resp_ok(conn);
    } else if (wf_resp_argument_is(call, 1, "getname") && words == 1) {
        if (conn->name[0])
            wf_resp_word(conn, conn->name);
        else
            wf_resp_nil(conn);
    } else if (wf_resp_argument_is(call, 1, "id") && words == 1) {
        wf_resp_integer(conn, (int64_t)conn->id);
    } else if (wf_resp_argument_is(call, 1, "info") && words == 1) {
        wf_resp_bulk(conn, line, (size_t)wf_resp_client_line(conn, line, sizeof line));
    } else if (wf_resp_argument_is(call, 1, "list")) {
        return wf_resp_client_list(conn);
    } else if ((wf_resp_argument_is(call, 1, "no-evict") ||
                wf_resp_argument_is(call, 1, "no-touch")) &&
               words == 2) {
        wf_resp_ok(conn);
    } else {
        wf_resp_error(conn,
                      "ERR unknown subcommand '%.*s'. There are SETINFO, SETNAME, GETNAME, "
                      "ID, INFO, LIST, NO-EVICT and NO-TOUCH.",
                      (int)(wf_resp_argument_bytes(call, 1) < 64 ? wf_resp_argument_bytes(call, 1)
                                                                 : 64),
                      (const char *)wf_resp_argument(call, 1));
    }
    return WF_RESP_DONE;
}

/* ---------------------------------------------------------------------------- COMMAND, CONFIG */

static void command_tell(struct wf_resp_conn *conn, const struct wf_resp_command *command)
{
    char flags[64];
    uint64_t count = 0;
    if (!command) {
        wf_resp_text(conn, conn->protocol == 3 ? "_" : "*-1");
        return;
    }
    snprintf(flags, sizeof flags, "%s", command->flags);
    for (char *at = flags; *at; at += strcspn(at, " ") + (at[strcspn(at, " ")] != '\0'))
        count++;
    wf_resp_array(conn, 10); /* as Redis 7: redis-py's parser for RESP3 fails on fewer than 7 */
    wf_resp_word(conn, command->name);
    wf_resp_integer(conn, command->arity);
    wf_resp_array(conn, count);
    char *rest = NULL;
    for (char *flag = strtok_r(flags, " ", &rest); flag; flag = strtok_r(NULL, " ", &rest))
        wf_resp_format(conn, "+%s\r\n", flag);
    wf_resp_integer(conn, command->key_first);
    wf_resp_integer(conn, command->key_last);
    wf_resp_integer(conn, command->key_step);
    for (int i = 0; i < 4; i++) /* categories of ACL, tips, places of keys, subcommands */
        wf_resp_array(conn, 0);
}

enum wf_resp_done wf_resp_command_run(struct wf_resp_call *call)
{
    struct wf_resp_conn *conn = call->conn;
    if (call->count == 1) {
        wf_resp_array(conn, wf_resp_command_count);
        for (size_t i = 0; i < wf_resp_command_count; i++)
            command_tell(conn, &wf_resp_commands[i]);
    } else if (wf_resp_argument_is(call, 1, "count") && call->count == 2) {
        wf_resp_integer(conn, (int64_t)wf_resp_command_count);
    } else if (wf_resp_argument_is(call, 1, "docs")) {
        wf_resp_map(conn, 0); /* a client then helps with names alone */
    } else if (wf_resp_argument_is(call, 1, "list") && call->count == 2) {
        wf_resp_array(conn, wf_resp_command_count);
        for (size_t i = 0; i < wf_resp_command_count; i++)
            wf_resp_word(conn, wf_resp_commands[i].name);
    } else if (wf_resp_argument_is(call, 1, "info")) {
        wf_resp_array(conn, call->count - 2);
        for (uint32_t i = 2; i < call->count; i++)
            command_tell(conn, wf_resp_argument_bytes(call, i)
                                   ? wf_resp_command_find(wf_resp_argument(call, i),
                                                          wf_resp_argument_bytes(call, i))
                                   : NULL);
    } else {
        wf_resp_error(conn, "ERR unknown subcommand. There are COUNT, DOCS, INFO and LIST.");
    }
    return WF_RESP_DONE;
}

/* What benchmarks and tools ask for; the rest is weftd's (`weft config`). */
enum wf_resp_done wf_resp_config(struct wf_resp_call *call)
{
    struct wf_resp *resp = call->conn->lane->resp;
    char memory[24], clients[24];
    snprintf(memory, sizeof memory, "%llu", (unsigned long long)resp->options.pool_bytes);
    snprintf(clients, sizeof clients, "%u", resp->options.clients_max);
    const char *const settings[][2] = {{"save", ""},
                                       {"appendonly", "no"},
                                       {"databases", "16"},
                                       {"maxmemory", memory},
                                       {"maxmemory-policy", "allkeys-lru"},
                                       {"maxclients", clients},
                                       {"proto-max-bulk-len", "536870912"}};
    size_t all = sizeof settings / sizeof settings[0], found = 0;
    if (wf_resp_argument_is(call, 1, "resetstat") && call->count == 2) {
        wf_resp_ok(call->conn);
        return WF_RESP_DONE;
    }
    if (!wf_resp_argument_is(call, 1, "get") || call->count < 3) {
        wf_resp_error(call->conn, "ERR settings are weftd's: its file, or weftd --set; there is "
                                  "CONFIG GET");
        return WF_RESP_DONE;
    }
    for (uint32_t i = 2; i < call->count; i++)
        for (size_t k = 0; k < all; k++)
            found += wf_resp_argument_is(call, i, settings[k][0]) ||
                     wf_resp_argument_is(call, i, "*");
    wf_resp_map(call->conn, found);
    for (uint32_t i = 2; i < call->count; i++)
        for (size_t k = 0; k < all; k++)
            if (wf_resp_argument_is(call, i, settings[k][0]) || wf_resp_argument_is(call, i, "*")) {
                wf_resp_word(call->conn, settings[k][0]);
                wf_resp_word(call->conn, settings[k][1]);
            }
    return WF_RESP_DONE;
}

enum wf_resp_done wf_resp_time(struct wf_resp_call *call)
{
    struct timespec now;
    char text[24];
    clock_gettime(CLOCK_REALTIME, &now);
    wf_resp_array(call->conn, 2);
    snprintf(text, sizeof text, "%lld", (long long)now.tv_sec);
    wf_resp_word(call->conn, text);
    snprintf(text, sizeof text, "%ld", now.tv_nsec / 1000);
    wf_resp_word(call->conn, text);
    return WF_RESP_DONE;
}

/* ---------------------------------------------------------------------------------------- INFO */

struct text {
    char bytes[8192];
    size_t used;
};

static void say(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text->bytes + text->used, sizeof text->bytes - text->used, format,
                           arguments);
    va_end(arguments);
    if (length > 0 && (size_t)length < sizeof text->bytes - text->used)
        text->used += (size_t)length;
}

static void info_server(const struct wf_resp_call *call, struct text *text)
{
    const struct wf_resp *resp = call->conn->lane->resp;
    say(text,
        "# Server\r\nredis_version:" REDIS_VERSION "\r\nredis_mode:standalone\r\n"
        "server_name:weft\r\nweft_version:" WF_VERSION "\r\nprocess_id:%d\r\ntcp_port:%u\r\n"
        "uptime_in_seconds:%llu\r\nio_threads_active:%u\r\n\r\n",
        (int)getpid(), resp->port,
        (unsigned long long)(call->conn->lane->now_ms - resp->started_ms) / 1000, resp->lane_count);
}

static void info_stats(const struct wf_resp_figures *figures, struct text *text)
{
    say(text,
        "# Stats\r\ntotal_connections_received:%llu\r\ntotal_commands_processed:%llu\r\n"
        "total_net_input_bytes:%llu\r\ntotal_net_output_bytes:%llu\r\n"
        "rejected_connections:%llu\r\nexpired_keys:%llu\r\nevicted_keys:%llu\r\n"
        "keyspace_hits:%llu\r\nkeyspace_misses:%llu\r\nacl_access_denied_auth:%llu\r\n"
        "weft_sets:%llu\r\nweft_sets_dropped:%llu\r\nweft_values_lost:%llu\r\n"
        "weft_protocol_errors:%llu\r\nweft_clients_stalled:%llu\r\n\r\n",
        (unsigned long long)figures->connections, (unsigned long long)figures->commands,
        (unsigned long long)figures->bytes_in, (unsigned long long)figures->bytes_out,
        (unsigned long long)figures->refused, (unsigned long long)figures->expired,
        (unsigned long long)(figures->evicted + figures->lost), (unsigned long long)figures->hits,
        (unsigned long long)(figures->gets > figures->hits ? figures->gets - figures->hits : 0),
        (unsigned long long)figures->auth_failures, (unsigned long long)figures->sets,
        (unsigned long long)figures->dropped, (unsigned long long)figures->lost,
        (unsigned long long)figures->protocol_errors, (unsigned long long)figures->stalled);
}

static void info_keys(const struct wf_resp_call *call, struct text *text)
{
    struct wf_resp_store *store = call->store ? call->store : call->conn->store;
    say(text, "# Keyspace\r\n");
    if (!store)
        return;
    pthread_mutex_lock(&store->lock);
    for (unsigned i = 0; i < WF_RESP_DATABASES; i++)
        if (store->in_database[i])
            say(text, "db%u:keys=%llu,expires=%llu,avg_ttl=0\r\n", i,
                (unsigned long long)store->in_database[i], (unsigned long long)store->expiring[i]);
    pthread_mutex_unlock(&store->lock);
}

static bool wanted(const struct wf_resp_call *call, const char *section)
{
    bool any = call->count == 1;
    for (uint32_t i = 1; i < call->count; i++)
        any |= wf_resp_argument_is(call, i, section) || wf_resp_argument_is(call, i, "all") ||
               wf_resp_argument_is(call, i, "default") ||
               wf_resp_argument_is(call, i, "everything");
    return any;
}

enum wf_resp_done wf_resp_info(struct wf_resp_call *call)
{
    struct wf_resp *resp = call->conn->lane->resp;
    struct wf_resp_figures figures;
    struct text text = {.used = 0};
    wf_resp_figures(resp, &figures);
    if (wanted(call, "server"))
        info_server(call, &text);
    if (wanted(call, "clients"))
        say(&text, "# Clients\r\nconnected_clients:%llu\r\nmaxclients:%u\r\n\r\n",
            (unsigned long long)figures.clients, resp->options.clients_max);
    if (wanted(call, "memory"))
        say(&text,
            "# Memory\r\nused_memory:%llu\r\nmaxmemory:%llu\r\nmaxmemory_policy:allkeys-lru\r\n"
            "weft_memory_small:%llu\r\nweft_memory_pool:%llu\r\n\r\n",
            (unsigned long long)(figures.memory_bytes + figures.value_bytes),
            (unsigned long long)resp->options.pool_bytes, (unsigned long long)figures.memory_bytes,
            (unsigned long long)figures.value_bytes);
    if (wanted(call, "persistence"))
        say(&text, "# Persistence\r\nloading:0\r\n\r\n");
    if (wanted(call, "stats"))
        info_stats(&figures, &text);
    if (wanted(call, "replication"))
        say(&text, "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n\r\n");
    if (wanted(call, "cluster"))
        say(&text, "# Cluster\r\ncluster_enabled:0\r\n\r\n");
    if (wanted(call, "keyspace"))
        info_keys(call, &text);
    if (call->conn->protocol == 3) {
        wf_resp_format(call->conn, "=%zu\r\ntxt:", text.used + 4);
        wf_resp_raw(call->conn, text.bytes, text.used);
        wf_resp_raw(call->conn, "\r\n", 2);
    } else {
        wf_resp_bulk(call->conn, text.bytes, text.used);
    }
    return WF_RESP_DONE;
}
