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

struct wf_fabric_gauges;

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

/* For QUERY "fabric"; caller frees. */
char *wf_query_fabric(struct wf_node *node, uint64_t cursor);

#endif
