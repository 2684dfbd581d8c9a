/* SPDX-License-Identifier: Apache-2.0
 *
 * What domains are due of the memory that they share, and whose block goes: core/share.h on what
 * the node holds.
 *
 * In DRAM all counts that a domain has of the budget: blocks, regions, staging segments.  What it
 * is due changes with the configuration and the pool's size alone and is kept; owner thread.  Below
 * DRAM floors do not count, and ceilings neither: there a domain is due its part by weight.
 */
#include <stdio.h>

#include "base/size.h"
#include "daemon/node.h"

#define NEAR 16 /* of its due, less than this part is left: that is what it ran into */

static double weight_of(const struct wf_domain *domain)
{
    return domain->config->share ? domain->config->share : (double)domain->store.quota_bytes;
}

uint64_t wf_shares_used(const struct wf_domain *domain)
{
    return domain->store.used_bytes + domain->store.other_bytes + domain->staging_bytes;
}

static uint64_t floors_of(const struct wf_node *node)
{
    uint64_t floors = 0; /* the configuration's check keeps their sum below pool.size */
    for (uint32_t i = 0; i < node->domain_count; i++)
        floors += node->domains[i].config->floor_bytes;
    return floors;
}

static void settle(struct wf_node *node, uint64_t total)
{
    struct wf_share shares[WF_DOMAINS_MAX];
    uint64_t due[WF_DOMAINS_MAX];
    double weights = 0;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_domain *domain = &node->domains[i];
        shares[i] = (struct wf_share){.floor = domain->config->floor_bytes,
                                      .ceiling = domain->store.quota_bytes,
                                      .weight = weight_of(domain)};
        weights += shares[i].weight;
    }
    wf_share_due(shares, node->domain_count, total, due);
    /* What no quota has room for is there all the same, for staging segments. */
    for (uint32_t i = 0; i < node->domain_count; i++) {
        shares[i].floor = due[i];
        shares[i].ceiling = UINT64_MAX;
    }
    wf_share_due(shares, node->domain_count, total, due);
    for (uint32_t i = 0; i < node->domain_count; i++) {
        node->domains[i].due_bytes = due[i];
        node->domains[i].part = weights > 0 ? shares[i].weight / weights : 1;
    }
}

void wf_shares_settle(struct wf_node *node)
{
    settle(node, node->pool_bytes);
}

void wf_shares_settle_less(struct wf_node *node, uint64_t bytes)
{
    uint64_t left = node->pool_bytes - bytes, floors = floors_of(node);
    settle(node, left > floors ? left : floors);
}

uint64_t wf_shares_floor(const struct wf_domain *domain)
{
    uint64_t floor = domain->config->floor_bytes;
    return floor < domain->due_bytes ? floor : domain->due_bytes;
}

uint64_t wf_shares_shown(const struct wf_domain *domain)
{
    uint64_t quota = wf_node_quota(domain);
    return domain->due_bytes < quota ? domain->due_bytes : quota;
}

uint64_t wf_shares_lent(const struct wf_domain *domain)
{
    uint64_t used = wf_shares_used(domain);
    return used > domain->due_bytes ? used - domain->due_bytes : 0;
}

const char *wf_shares_why(const struct wf_domain *domain, uint64_t bytes,
                          char out[WF_SHARES_WHY_MAX])
{
    uint64_t used = wf_shares_used(domain), due = wf_shares_shown(domain);
    char has[16], is_due[16];
    if (due == wf_node_quota(domain) || used + bytes + due / NEAR <= due)
        snprintf(out, WF_SHARES_WHY_MAX, "all that is left is pinned or in use");
    else
        snprintf(out, WF_SHARES_WHY_MAX,
                 "its domain has %s and is due %s; the rest others are due, or it is pinned or in "
                 "use",
                 wf_size_format(used, has, sizeof has), wf_size_format(due, is_due, sizeof is_due));
    return out;
}

void wf_shares_decide(const struct wf_node *node, const struct wf_domain *wanting, uint64_t bytes,
                      uint64_t but, struct wf_share_verdict *out)
{
    static_assert(WF_DOMAINS_MAX <= 64, "`but` has a bit a domain");
    struct wf_share shares[WF_DOMAINS_MAX];
    uint64_t due[WF_DOMAINS_MAX], used = 0;
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_domain *domain = &node->domains[i];
        const struct wf_store *store = &domain->store;
        due[i] = domain->due_bytes;
        /* No ceiling: quotas do not count staging, and who asked has looked at its own before. */
        shares[i] = (struct wf_share){
            .used = wf_shares_used(domain),
            .floor = domain->config->floor_bytes,
            .ceiling = UINT64_MAX,
            .class = domain->config->priority,
            .hurried = domain->hurried > 0,
            .gives = !(but >> i & 1) && store->policy_ops->candidates(store->policy) > 0,
        };
        used += shares[i].used;
    }
    /* Room that is there, but not where it is wanted or not in one piece, is none: the pool counts
     * as full. */
    wf_share_decide(shares, due, node->domain_count, used, wanting ? wanting->id : WF_SHARE_NONE,
                    bytes, out);
}
