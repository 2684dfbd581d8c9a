/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that other nodes lend to this one, as a tier (tier/tier.h).
 *
 * A block that is written goes to a node that lends memory and has room (fabric.h), and is read
 * from there.  What this tier remembers is which blocks this node has put: 88 bytes each, in
 * memory. They may go without its doing: when their lender goes, or has less for this node than
 * before; that is told as news.
 */
#ifndef WF_FABRIC_REMOTE_H
#define WF_FABRIC_REMOTE_H

#include "fabric/peers.h"

/* Of wf_tier_options `peers` is looked at (for the fabric, and the domains), queue_depth, and
 * `path` as its name in sentences. */
extern const struct wf_tier_ops wf_tier_remote;

#endif
