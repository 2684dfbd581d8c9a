/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gateway.h"

#include <stddef.h>

#include "base/log.h"
#include "daemon/metrics.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define TELL_NS 10000000000u /* refusals are told together, no more often */

#define AT(member) offsetof(struct wf_resp_figures, member)
static const struct {
    const char *name, *help;
    size_t at;
    bool counter;
} figures[] = {
    {"clients", "RESP clients connected.", AT(clients), false},
    {"keys", "Keys in the dictionaries.", AT(keys), false},
    {"memory_bytes", "Memory beside the pool for keys and small values.", AT(memory_bytes), false},
    {"value_bytes", "Values in the pool and below.", AT(value_bytes), false},
    {"connections", "RESP clients that came.", AT(connections), true},
    {"refused", "RESP clients refused, since there were too many.", AT(refused), true},
    {"commands", "RESP commands.", AT(commands), true},
    {"gets", "Keys that GET, MGET and their like asked for.", AT(gets), true},
    {"hits", "Of them, those that were there.", AT(hits), true},
    {"sets", "Values that SET, MSET and their like brought.", AT(sets), true},
    {"dropped", "Of them, those that the pool had no room for.", AT(dropped), true},
    {"evicted", "Keys that went for room in the dictionary.", AT(evicted), true},
    {"expired", "Keys whose time was over.", AT(expired), true},
    {"lost", "Keys whose blocks the node had evicted.", AT(lost), true},
    {"protocol_errors", "RESP connections that ended in nonsense.", AT(protocol_errors), true},
    {"auth_failures", "Wrong passwords.", AT(auth_failures), true},
    {"stalled", "RESP clients closed in the middle of a command or an answer.", AT(stalled), true},
    {"in_bytes", "Bytes from RESP clients.", AT(bytes_in), true},
    {"out_bytes", "Bytes to RESP clients.", AT(bytes_out), true},
};
#define FIGURES (sizeof figures / sizeof figures[0])

static uint64_t figure(const struct wf_resp_figures *of, size_t index)
{
    return *(const uint64_t *)(const void *)((const char *)of + figures[index].at);
}

enum weft_status wf_gateway_start(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    struct wf_resp_domain domains[WF_DOMAINS_MAX];
    enum weft_status status = wf_gateway_events_start(node);
    if (status != WEFT_OK || !config->resp_address[0])
        return status;
    for (uint32_t i = 0; i < config->domain_count; i++)
        domains[i] = (struct wf_resp_domain){.name = config->domains[i].name,
                                             .token = config->domains[i].token};
    const struct wf_resp_options options = {
        .address = config->resp_address,
        .port = config->resp_port,
        .password = config->resp_password,
        .socket = config->socket,
        .domains = domains,
        .domain_count = config->domain_count,
        .domain = config->resp_domain,
        .pool_bytes = config->pool_bytes,
        .threads = config->resp_threads,
        .clients_max = config->resp_clients,
        .keys_max = config->resp_keys,
        .small_bytes = config->resp_small_bytes,
        .stall_ms = config->resp_stall_ms,
        .idle_ms = config->resp_idle_ms,
        .strict = config->resp_strict,
    };
    status = wf_resp_start(&options, &node->resp);
    if (status == WEFT_OK)
        wf_info("gateway", "resp on %s port %u, domain '%s'%s", config->resp_address,
                wf_resp_port(node->resp), config->resp_domain,
                config->resp_password[0] ? ", asks for a password" : "");
    if (status == WEFT_OK)
        wf_telemetry_event(node, NULL, "gateway", "resp listens on %s port %u",
                           config->resp_address, wf_resp_port(node->resp));
    return status;
}

void wf_gateway_drain(struct wf_node *node)
{
    if (node->resp)
        wf_resp_drain(node->resp);
}

void wf_gateway_stop(struct wf_node *node)
{
    wf_resp_stop(node->resp);
    node->resp = NULL;
    wf_gateway_events_stop(node);
}

bool wf_gateway_figures(const struct wf_node *node, struct wf_resp_figures *out)
{
    if (node->resp)
        wf_resp_figures(node->resp, out);
    return node->resp != NULL;
}

void wf_gateway_tick(struct wf_node *node)
{
    struct wf_resp_figures now;
    uint64_t now_ns = wf_now_ns();
    if (!wf_gateway_figures(node, &now) || now_ns - node->resp_told_ns < TELL_NS)
        return;
    const struct wf_resp_figures *told = &node->resp_told;
    uint64_t refused = now.refused - told->refused, dropped = now.dropped - told->dropped,
             wrong = now.auth_failures - told->auth_failures,
             broken = now.protocol_errors - told->protocol_errors;
    if (refused || dropped || wrong || broken)
        wf_telemetry_event(node, NULL, "gateway",
                           "resp refused %llu clients and %llu passwords, dropped %llu values "
                           "for want of room, and ended %llu connections for nonsense",
                           (unsigned long long)refused, (unsigned long long)wrong,
                           (unsigned long long)dropped, (unsigned long long)broken);
    node->resp_told = now;
    node->resp_told_ns = now_ns;
}

json_t *wf_gateway_json(const struct wf_node *node)
{
    struct wf_resp_figures now;
    if (!wf_gateway_figures(node, &now))
        return json_null();
    json_t *out = json_pack("{s:i}", "port", (int)wf_resp_port(node->resp));
    for (size_t i = 0; i < FIGURES; i++)
        json_object_set_new(out, figures[i].name, json_integer((json_int_t)figure(&now, i)));
    return out;
}

void wf_gateway_render(FILE *out, const struct wf_resp_figures *now)
{
    char name[64];
    for (size_t i = 0; i < FIGURES; i++) {
        snprintf(name, sizeof name, "weft_resp_%s%s", figures[i].name,
                 figures[i].counter ? "_total" : "");
        wf_metrics_head(out, name, figures[i].counter ? "counter" : "gauge", figures[i].help);
        fprintf(out, "%s %llu\n", name, (unsigned long long)figure(now, i));
    }
}
