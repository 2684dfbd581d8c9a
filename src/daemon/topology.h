/* SPDX-License-Identifier: Apache-2.0
 *
 * How this node's host is built (sys/topology.h), and what of it the node uses.
 */
#ifndef WF_DAEMON_TOPOLOGY_H
#define WF_DAEMON_TOPOLOGY_H

#include "daemon/node.h"

/* {"place": TEXT, "nodes": […], "devices": […], "left_out": N}.  A device's `used_by` has names of
 * tiers, and "fabric" where its address is that of the fabric.  sysfs NULL: /sys.  On the owner's
 * thread; caller frees; NULL: no memory, with a sentence. */
char *wf_topology_json(const struct wf_node *node, const char *sysfs);

#endif
