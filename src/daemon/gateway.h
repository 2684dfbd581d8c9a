/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's gateways: started beside its loop, told when it drains, ended after it.
 */
#ifndef WF_DAEMON_GATEWAY_H
#define WF_DAEMON_GATEWAY_H

#include <jansson.h>
#include <stdio.h>

#include "daemon/gateway_figures.h"
#include "daemon/node.h"
#include "gateway/resp.h"

/* What the configuration asks for.  Before wf_server_run(). */
enum weft_status wf_gateway_start(struct wf_node *node);
/* The node is to stop: what its gateways hold reserved is given back.  Returns at once. */
void wf_gateway_drain(struct wf_node *node);
/* After wf_server_stop(), which has hung up on them. */
void wf_gateway_stop(struct wf_node *node);

/* False: there is none. */
bool wf_gateway_figures(const struct wf_node *node, struct wf_resp_figures *out);
/* The same for the status (null), and as metrics. */
json_t *wf_gateway_json(const struct wf_node *node);
void wf_gateway_render(FILE *out, const struct wf_resp_figures *now);
/* Now and then: what was refused becomes an event. */
void wf_gateway_tick(struct wf_node *node);

/* gateway_events.c: the same for KV events. */
enum weft_status wf_gateway_events_start(struct wf_node *node);
void wf_gateway_events_stop(struct wf_node *node);
bool wf_gateway_events_figures(const struct wf_node *node, struct wf_gateway_events *out);
json_t *wf_gateway_events_json(const struct wf_node *node);
void wf_gateway_events_render(FILE *out, const struct wf_gateway_events *now);

#endif
