/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events in the configuration: where they are told and heard.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/config_fields.h"

static const struct wf_config_list *const list = &wf_config_lists[WF_LIST_ENGINES];

/* What events say of prompts is for this host, unless somebody said otherwise. */
static enum weft_status finish_out(const struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX], named[WF_NAMED_MAX];
    const char *const fields[] = {"kv_events.listen", "kv_events.replay"},
                      *const at[] = {config->events_address, config->events_replay_address};
    for (int i = 0; i < 2; i++)
        if (at[i][0] && !wf_config_is_loopback(at[i]) && !config->events_public)
            return wf_fail(WEFT_E_INVALID,
                           "%s: '%s' can be reached from other hosts, which would read the "
                           "tokens of prompts; set kv_events.public to true, or use 127.0.0.1",
                           wf_value_named(wf_config_where(config, wf_config_field(fields[i]),
                                                          where),
                                          fields[i], named),
                           at[i]);
    if (at[1][0] && !at[0][0])
        return wf_fail(WEFT_E_INVALID,
                       "%s: kv_events.replay: without kv_events.listen there is nothing "
                       "to replay; set that as well",
                       wf_config_where(config, wf_config_field(fields[1]), where));
    bool used = at[0][0] || config->engine_count;
    if (used && !wf_list_find(&wf_config_lists[WF_LIST_DOMAINS], config, config->events_domain))
        return wf_fail(WEFT_E_INVALID,
                       "%s: kv_events.domain: there is no domain '%s'; name one of `domains`",
                       wf_config_where(config, wf_config_field("kv_events.domain"), where),
                       config->events_domain);
    return WEFT_OK;
}

/* The host of tcp://HOST:PORT, in brackets or not.  False: it is none. */
static bool tcp_host(const char *endpoint, char *out, size_t capacity)
{
    static const char scheme[] = "tcp://";
    if (strncmp(endpoint, scheme, strlen(scheme)) != 0)
        return false;
    const char *host = endpoint + strlen(scheme), *colon = strrchr(host, ':');
    size_t length = colon ? (size_t)(colon - host) : 0, digits = colon ? strlen(colon + 1) : 0;
    if (!length || !digits || digits > 5 || strspn(colon + 1, "0123456789") != digits ||
        strtoul(colon + 1, NULL, 10) == 0 || strtoul(colon + 1, NULL, 10) > UINT16_MAX)
        return false;
    bool brackets = host[0] == '[' && host[length - 1] == ']' && length > 2;
    snprintf(out, capacity, "%.*s", (int)(brackets ? length - 2 : length), host + brackets);
    return brackets || !strchr(out, ':');
}

/* Is that port of this host one that we are told to listen on? */
static bool is_own(const char *address, uint16_t port, const char *host, const char *endpoint)
{
    bool here = strcmp(host, "localhost") == 0 || wf_config_is_loopback(host) ||
                strcmp(host, address) == 0;
    return address[0] && here && strtoul(strrchr(endpoint, ':') + 1, NULL, 10) == port;
}

static enum weft_status finish_endpoint(const struct wf_config *config,
                                        const struct wf_engine_config *engine, const char *field,
                                        const char *endpoint)
{
    char where[WF_ORIGIN_TEXT_MAX], host[WF_PATH_MAX];
    wf_list_where(list, config, engine, wf_list_field(list, field), where);
    if (strncmp(endpoint, "ipc:///", strlen("ipc:///")) == 0)
        return WEFT_OK;
    if (!tcp_host(endpoint, host, sizeof host))
        return wf_fail(WEFT_E_INVALID,
                       "%s: engine '%s': %s: '%s' is no place of events; write tcp://HOST:PORT, "
                       "like tcp://127.0.0.1:5557, or ipc:///PATH",
                       where, engine->name, field, endpoint);
    if (!wf_config_is_loopback(host) && strcmp(host, "localhost") != 0 && !config->events_public)
        return wf_fail(WEFT_E_INVALID,
                       "%s: engine '%s': %s: '%s' is not on this host, nothing says who answers "
                       "there, and the tokens of prompts come in clear text; set kv_events.public "
                       "to true, or use 127.0.0.1",
                       where, engine->name, field, endpoint);
    bool own = is_own(config->events_address, config->events_port, host, endpoint) ||
               is_own(config->events_replay_address, config->events_replay_port, host, endpoint);
    if (own)
        return wf_fail(
            WEFT_E_INVALID,
            "%s: engine '%s': %s: '%s' is where this node itself tells of its blocks "
            "(kv_events.listen, kv_events.replay); name the engine's, or move this node's",
            where, engine->name, field, endpoint);
    return WEFT_OK;
}

enum weft_status wf_config_finish_events(const struct wf_config *config)
{
    char where[WF_ORIGIN_TEXT_MAX];
    enum weft_status status = finish_out(config);
    for (uint32_t i = 0; status == WEFT_OK && i < config->engine_count; i++) {
        const struct wf_engine_config *engine = &config->engines[i];
        status = finish_endpoint(config, engine, "endpoint", engine->endpoint);
        if (status == WEFT_OK && engine->replay[0])
            status = finish_endpoint(config, engine, "replay", engine->replay);
        for (uint32_t k = 0; status == WEFT_OK && k < i; k++)
            if (strcmp(config->engines[k].endpoint, engine->endpoint) == 0 &&
                strcmp(config->engines[k].topic, engine->topic) == 0)
                return wf_fail(WEFT_E_INVALID,
                               "%s: engine '%s': endpoint '%s' is that of engine '%s', too; keep "
                               "one, or give them topics",
                               wf_list_where(list, config, engine, wf_list_field(list, "endpoint"),
                                             where),
                               engine->name, engine->endpoint, config->engines[k].name);
    }
    return status;
}
