/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a request should run, for clients (op ROUTE) and over HTTP (POST /v1/route).
 *
 * fabric/route.h has the answer; here is what this node has of a chain, and questions from
 * strangers' bytes.  On the owner thread, which it costs microseconds, and over HTTP what reading
 * JSON and deriving keys takes besides: 0.3 ms for 7,000 tokens, and some 5 ms for as many tokens,
 * keys or candidates as one question may have (its processor time, p50; WF_ROUTE_TOKENS_MAX).
 */
#ifndef WF_DAEMON_ROUTE_H
#define WF_DAEMON_ROUTE_H

#include "daemon/node.h"
#include "fabric/route.h"

/* What of a chain is here: in DRAM, and on tiers below that are this node's own.  Reads tables of
 * shared memory and nothing else. */
void wf_node_own(struct wf_node *node, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                 struct wf_routes_own *out);

/* Room for one question and its answer; the owner's, and used anew by the next.  NULL: there is no
 * memory, with a sentence. */
struct wf_routes_answer *wf_node_route_answer(struct wf_node *node);
struct wf_routes_candidate *wf_node_route_candidates(struct wf_node *node);
uint8_t (*wf_node_route_keys(struct wf_node *node))[32];

/* How a request of that many tokens is modelled by a format; `entry` NULL: one of no bytes. */
void wf_node_route_request(const struct wf_format_entry *entry, double tokens, double output_tokens,
                           uint64_t id, struct wf_route_request *out);
/* Into wf_node_route_answer(). */
enum weft_status wf_node_route(struct wf_node *node, struct wf_routes_question *question);

void wf_handle_route(struct wf_client *client, const struct wf_routing *request);

/* POST /v1/route: the answer to a body, malloc()ed, and its status of HTTP; NULL: no memory.
 * `context` is the node. */
char *wf_route_http(void *context, const char *body, size_t bytes, unsigned *out_status);

void wf_node_routes_destroy(struct wf_node *node);

#endif
