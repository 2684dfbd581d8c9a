/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions: raw memory, each a memfd of its own, counted against its domain's quota and the node's
 * budget.
 *
 * Every holder is known by client, so that a region is gone when the last of them released it or
 * died.  What a holder may do is in the descriptor that it gets: one for reading only cannot be
 * mapped for writing.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/size.h"
#include "base/text.h"
#include "daemon/node.h"
#include "daemon/telemetry.h"

/* An id is a serial number above its place; limits.regions allows up to 2^20 places. */
#define PLACE_BITS 20
#define WAIT_NS 3000000000u

static struct wf_region_entry *region_by_name(struct wf_client *client, const char *name)
{
    struct wf_node *node = client->node;
    for (uint32_t i = 0; i < node->config.regions_max; i++)
        if (node->regions[i].id && node->regions[i].domain == client->domain->id &&
            strcmp(node->regions[i].name, name) == 0)
            return &node->regions[i];
    return NULL;
}

static void region_free(struct wf_node *node, struct wf_region_entry *region)
{
    struct wf_domain *domain = &node->domains[region->domain];
    close(region->fd);
    close(region->fd_readonly);
    free(region->holds);
    domain->store.other_bytes -= region->bytes;
    domain->regions--;
    node->region_bytes -= region->bytes;
    node->region_count--;
    wf_node_budget_give(node, region->bytes);
    *region = (struct wf_region_entry){.id = 0};
}

/* Eviction cannot make room for what is larger than all that regions leave of the pool, so nothing
 * is evicted for it. */
static bool can_fit(const struct wf_node *node, uint64_t bytes)
{
    return bytes <= node->pool_bytes && node->region_bytes <= node->pool_bytes - bytes;
}

/* Count the memory of a new region: quota first, then the node's budget. */
static enum weft_status region_charge(struct wf_domain *domain, uint64_t bytes)
{
    struct wf_store *store = &domain->store;
    char wants[16], quota[16];
    wf_size_format(bytes, wants, sizeof wants);
    wf_size_format(store->quota_bytes, quota, sizeof quota);
    if (store->other_bytes + bytes > store->quota_bytes)
        return wf_fail(WEFT_E_QUOTA,
                       "a region of %s does not fit the quota of domain '%s', %s; ask for less or "
                       "raise domains[].quota",
                       wants, domain->config->name, quota);
    if (!can_fit(domain->node, bytes)) {
        char pool[16], held[16];
        wf_size_format(domain->node->pool_bytes, pool, sizeof pool);
        wf_size_format(domain->node->region_bytes, held, sizeof held);
        return wf_fail(WEFT_FULL,
                       "a region of %s does not fit the pool of %s, of which regions hold %s; ask "
                       "for less, raise pool.size or lend memory",
                       wants, pool, held);
    }
    uint64_t used = store->used_bytes + store->other_bytes + bytes;
    if (used > store->quota_bytes)
        wf_store_make_free(store,
                           store->arena.backed.granules * WF_GRANULE + used - store->quota_bytes,
                           WF_EVICT_QUOTA);
    if (store->used_bytes + store->other_bytes + bytes > store->quota_bytes ||
        !wf_node_budget(domain->node, domain, bytes)) {
        char why[WF_SHARES_WHY_MAX];
        return wf_fail(WEFT_FULL,
                       "no room for a region of %s: %s; ask for less, raise pool.size or lend "
                       "memory",
                       wants, wf_shares_why(domain, bytes, why));
    }
    store->other_bytes += bytes;
    return WEFT_OK;
}

static enum weft_status region_make(struct wf_client *client,
                                    const struct wf_region_create *request,
                                    struct wf_region_entry **out)
{
    struct wf_node *node = client->node;
    struct wf_domain *domain = client->domain;
    uint32_t place = 0;
    while (place < node->config.regions_max && node->regions[place].id)
        place++;
    if (place == node->config.regions_max)
        return wf_fail(WEFT_E_LIMIT,
                       "%u regions exist, which is all that limits.regions allows; release some or "
                       "raise it",
                       node->region_count);
    uint64_t bytes = (request->size + WF_PAGE - 1) / WF_PAGE * WF_PAGE;
    enum weft_status status = region_charge(domain, bytes);
    if (status != WEFT_OK)
        return status;
    struct wf_region_entry region = {
        .domain = domain->id,
        .bytes = bytes,
        .latency = (enum weft_latency)request->latency,
        .share = (enum weft_share)request->share,
        .fd = -1,
        .fd_readonly = -1,
        .creator = client->id,
    };
    memcpy(region.name, request->name, sizeof region.name);
    region.holds = wf_calloc(node->config.clients_max, sizeof *region.holds, "a region's holders");
    status = region.holds ? wf_memfd_create("weft-region", bytes, WF_PAGES_NORMAL, &region.fd)
                          : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK)
        status = wf_memfd_reopen_readonly(region.fd, &region.fd_readonly);
    if (status != WEFT_OK) {
        if (region.fd >= 0)
            close(region.fd);
        free(region.holds);
        domain->store.other_bytes -= bytes;
        wf_node_budget_give(node, bytes);
        return status;
    }
    region.id = ++node->region_serial << PLACE_BITS | place;
    node->regions[place] = region;
    node->region_count++;
    node->region_bytes += bytes;
    domain->regions++;
    *out = &node->regions[place];
    return WEFT_OK;
}

static void region_answer(struct wf_client *client, const struct wf_message *to,
                          struct wf_region_entry *region, bool writable)
{
    region->holders++;
    region->holds[client->id - 1]++;
    struct wf_region_answer *answer = (struct wf_region_answer *)(void *)client->node->answer;
    answer->region = region->id;
    answer->size = region->bytes;
    answer->writable = writable;
    answer->latency = (uint32_t)region->latency;
    WF_CRASH("region.before_answer");
    wf_answer(client, to, WEFT_OK, sizeof *answer, writable ? &region->fd : &region->fd_readonly,
              1);
}

void wf_handle_region_create(struct wf_client *client, const struct wf_region_create *request)
{
    enum weft_status status = WEFT_OK;
    struct wf_region_entry *region = NULL;
    bool named = request->name[0] != 0;
    status = wf_text_check("a region's name", request->name, WF_NAME_BYTES - 1, false);
    if (status != WEFT_OK)
        ; /* said already */
    else if (request->share > WEFT_SHARE_COHERENT || request->latency > WEFT_LATENCY_HIGH)
        status = wf_fail(WEFT_E_INVALID, "region: share %u, latency %u: there are 0 to 2 of each",
                         request->share, request->latency);
    else if (request->size == 0 || request->size > client->node->config.pool_bytes_max)
        status = wf_fail(WEFT_E_INVALID,
                         "a region of %llu bytes; give 1 byte up to pool.size_max, %llu",
                         (unsigned long long)request->size,
                         (unsigned long long)client->node->config.pool_bytes_max);
    else if (!named && request->share != WEFT_SHARE_PRIVATE)
        status = wf_fail(WEFT_E_INVALID, "a shared region needs a name, by which others open it");
    else if (named && region_by_name(client, request->name))
        status = wf_fail(WEFT_E_BUSY, "a region named '%s' exists; open it, or choose another name",
                         request->name);
    if (status == WEFT_OK)
        status = region_make(client, request, &region);
    /* What is to make room for it may have to be written below first. */
    if (status == WEFT_FULL && can_fit(client->node, request->size) && wf_node_busy(client->node) &&
        wf_client_park(client, &request->message, WAIT_NS))
        return;
    if (status != WEFT_OK)
        wf_answer_failure(client, &request->message, status);
    else
        region_answer(client, &request->message, region, true);
}

void wf_handle_region_open(struct wf_client *client, const struct wf_region_open *request)
{
    const struct wf_message *to = &request->message;
    if (!memchr(request->name, 0, sizeof request->name)) {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_INVALID, "a region's name has up to %d bytes",
                                  WF_NAME_BYTES - 1));
        return;
    }
    struct wf_region_entry *region = request->name[0] ? region_by_name(client, request->name)
                                                      : NULL;
    if (!region)
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_NOT_FOUND,
                                  "there is no region '%s' in domain '%s'; `weft ls "
                                  "regions` lists them",
                                  request->name, client->domain->config->name));
    else if (region->share == WEFT_SHARE_PRIVATE && region->creator != client->id)
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_DENIED, "region '%s' is private to pid %u", request->name,
                                  client->node->clients[region->creator - 1].peer.pid));
    else
        region_answer(client, to, region,
                      region->share == WEFT_SHARE_COHERENT || region->creator == client->id);
}

static void unhold(struct wf_client *client, struct wf_region_entry *region, uint32_t times)
{
    region->holds[client->id - 1] -= times;
    region->holders -= times;
    if (region->holders == 0)
        region_free(client->node, region);
    else if (region->creator == client->id && region->holds[client->id - 1] == 0)
        region->creator = 0; /* its place may be someone else's soon, who is not the creator */
}

void wf_handle_region_release(struct wf_client *client, const struct wf_region_release *request)
{
    struct wf_node *node = client->node;
    uint32_t place = (uint32_t)(request->region & ((1u << PLACE_BITS) - 1));
    struct wf_region_entry *region = &node->regions[place % node->config.regions_max];
    if (request->region == 0 || place >= node->config.regions_max ||
        region->id != request->region || region->holds[client->id - 1] == 0) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_NOT_FOUND, "region %llu is not held by this client",
                                  (unsigned long long)request->region));
        return;
    }
    unhold(client, region, 1);
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)node->answer;
    answer->count = 1;
    wf_answer(client, &request->message, WEFT_OK, sizeof *answer, NULL, 0);
}

void wf_regions_drop(struct wf_client *client)
{
    struct wf_node *node = client->node;
    for (uint32_t i = 0; client->domain->regions && i < node->config.regions_max; i++)
        if (node->regions[i].id && node->regions[i].holds[client->id - 1])
            unhold(client, &node->regions[i], node->regions[i].holds[client->id - 1]);
}
