/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gateway.h"

#include "base/log.h"
#include "daemon/telemetry.h"

enum weft_status wf_gateway_start(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    struct wf_resp_domain domains[WF_DOMAINS_MAX];
    if (!config->resp_address[0])
        return WEFT_OK;
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
    enum weft_status status = wf_resp_start(&options, &node->resp);
    if (status == WEFT_OK)
        wf_info("gateway", "resp on %s port %u, domain '%s'%s", config->resp_address,
                wf_resp_port(node->resp), config->resp_domain,
                config->resp_password[0] ? ", asks for a password" : "");
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
}

bool wf_gateway_figures(const struct wf_node *node, struct wf_resp_figures *out)
{
    if (node->resp)
        wf_resp_figures(node->resp, out);
    return node->resp != NULL;
}
