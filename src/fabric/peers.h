/* SPDX-License-Identifier: Apache-2.0
 *
 * What other nodes have, as a tier of this node that is read only (tier/tier.h).
 *
 * It is where two threads meet: the fabric's brings news and blocks, and the one that drives the
 * tier asks for them.  The tier knows no block by itself: who reads says its size and parts, which
 * came with the news of it, and where it is the fabric knows.
 */
#ifndef WF_FABRIC_PEERS_H
#define WF_FABRIC_PEERS_H

#include "fabric/fabric.h"

struct wf_peers;

/* `tags` of the domains, by number, are what its blocks are called by (wf_tier_block.format);
 * `accept` (enum weft_quality) is the worst that each takes, NULL: nothing but what is exact. */
enum weft_status wf_peers_create(const uint8_t (*tags)[32], const uint8_t *accept,
                                 uint32_t domain_count,
                                 uint32_t (*part_bytes)(uint64_t block_bytes),
                                 struct wf_peers **out);
/* When neither the tier nor the fabric uses it any more. */
void wf_peers_destroy(struct wf_peers *peers);

/* Blocks come from there from now on; NULL: from nowhere, and no new fetch goes to the fabric that
 * was there, whose end ends those that it has. */
void wf_peers_attach(struct wf_peers *peers, struct wf_fabric *fabric);

/* The fabric, which does not go until wf_peers_leave(); NULL: there is none. */
struct wf_fabric *wf_peers_enter(struct wf_peers *peers);
void wf_peers_leave(struct wf_peers *peers);
/* What a domain is called, and back: WF_FABRIC_DOMAINS_MAX when there is none such. */
void wf_peers_tag(const struct wf_peers *peers, uint32_t domain, uint8_t out[32]);
uint32_t wf_peers_domain(const struct wf_peers *peers, const uint8_t tag[32]);

/* wf_fabric_host.news, whose context is the struct wf_peers. */
bool wf_peers_news(void *peers, uint32_t from, const struct wf_fabric_event *block);

/* WEFT_E_LIMIT of a fetch, as the sentence of the tier that is called so. */
void wf_fetch_limit_say(const char *tier, const struct wf_fetch_limit *limit);

/* Of wf_tier_options `peers` alone is looked at, queue_depth, and `path` as its name in sentences.
 */
extern const struct wf_tier_ops wf_tier_peers;

#endif
