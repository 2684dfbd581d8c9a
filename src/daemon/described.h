/* SPDX-License-Identifier: Apache-2.0
 *
 * What blocks stand for outside: the engine's own hash and tokens of a key, as clients described
 * it, and whether those who subscribed to KV events were told that the block is here.
 *
 * A block's key says nothing to others, and the node knows keys alone.  What is described here is
 * told when it comes to DRAM or to a tier below, and when it goes from there; what nobody described
 * is not told.  The table is bounded: when it is full of blocks that are here, what is described
 * further is not taken.
 *
 * Owner thread.  A crash loses it; clients describe anew what they put or use.
 */
#ifndef WF_DAEMON_DESCRIBED_H
#define WF_DAEMON_DESCRIBED_H

#include "daemon/gateway_figures.h"
#include "daemon/node.h"
#include "gateway/kvevents.h"

struct wf_described;

/* `domain`: whose blocks are told of, and no other's.  `events`: NULL when nobody is told. */
enum weft_status wf_described_create(struct wf_node *node, struct wf_domain *domain,
                                     struct wf_kvevents *events, uint64_t bytes_max,
                                     struct wf_described **out);
void wf_described_destroy(struct wf_described *described);

/* Something may have changed about where the block of that key is. */
void wf_described_changed(struct wf_domain *domain, const uint8_t key[32]);
/* Now and then: what nobody said changed (below DRAM) is found, and what was not told yet is. */
void wf_described_tick(struct wf_described *described);

/* What the key stands for, and as a block of which format; NULL: nobody said.  Good until the next
 * call of this table. */
const struct wf_kv_block *wf_described_find(const struct wf_domain *domain, const uint8_t key[32],
                                            const struct wf_format_entry **out_format);

void wf_described_figures(const struct wf_described *described, struct wf_described_figures *out);

void wf_handle_describe(struct wf_client *client, const struct wf_describe *request);

#endif
