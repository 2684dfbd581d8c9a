/* SPDX-License-Identifier: Apache-2.0
 *
 * This node in a cluster: the fabric on a thread of its own, and what it sees of the node.
 *
 * The fabric's thread reads blocks as any client does: it is one, of libweft, so that what it sends
 * is pinned, and the owner thread has nothing to do for it.  What there is it reads in the index,
 * and what changes the owner tells.  Blocks of other nodes are the tier `peers` (fabric/peers.h).
 *
 * Only blocks that are as they were put are told of and sent.
 */
#ifndef WF_DAEMON_FABRIC_H
#define WF_DAEMON_FABRIC_H

#include <jansson.h>

#include "daemon/node.h"

struct wf_fabric_event;
struct wf_wanted_chains;
struct wf_wanted_chains *wf_wanted_create(void);
void wf_wanted_destroy(struct wf_wanted_chains *wanted);
/* Of a struct wf_node_fabric. */
struct wf_wanted_chains *wf_wanted_of(void *cluster);

/* Before the tiers are made: nothing, when the configuration names no cluster. */
enum weft_status wf_node_fabric_create(struct wf_node *node);
/* When the node listens on its socket. */
enum weft_status wf_node_fabric_start(struct wf_node *node);
/* Leaves the cluster; what is being read ends. */
void wf_node_fabric_stop(struct wf_node *node);
/* Behind the tiers. */
void wf_node_fabric_destroy(struct wf_node *node);

/* A block of this slot was committed; the block of this key left DRAM. */
void wf_node_fabric_here(struct wf_domain *domain, uint32_t slot);
void wf_node_fabric_gone(struct wf_domain *domain, const uint8_t key[32]);

/* What others are told of this node's memory. */
void wf_node_fabric_sum(struct wf_node *node);
/* Chains that were handed over to this node are fetched. */
void wf_node_fabric_tick(struct wf_node *node);
void wf_handle_fabric(struct wf_client *client, const struct wf_fabric_say_message *request);
/* fabric_say.c, on the fabric's thread: such a chain. */
void wf_node_fabric_offered(void *cluster, const char *from, uint32_t domain,
                            const uint8_t tip[32]);

/* The same: another node has it removed. */
void wf_node_fabric_forget(void *cluster, const char *from, uint32_t domain, const uint8_t key[32]);

/* A block of DRAM as others are told of it.  False: there is none, or not as it was put. */
bool wf_node_fabric_event(const struct wf_domain *domain, uint32_t slot,
                          struct wf_fabric_event *out);

/* False: there is no fabric.  *out_peers is good until the next call of this or of
 * wf_query_fabric(). */
struct wf_fabric_figures;
struct wf_fabric_peer;
bool wf_node_fabric_figures(const struct wf_node *node, struct wf_fabric_figures *out,
                            const struct wf_fabric_peer **out_peers, uint32_t *out_count);
/* fabric_metrics.c */
void wf_node_fabric_render(FILE *out, const struct wf_fabric_figures *now,
                           const struct wf_fabric_peer *peers, uint32_t count);

/* For QUERY "fabric"; caller frees. */
char *wf_query_fabric(struct wf_node *node, uint64_t cursor);

#endif
