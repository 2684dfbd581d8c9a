/* SPDX-License-Identifier: Apache-2.0
 *
 * Domains and the memory budget.
 */
#include "daemon/node.h"
#include "daemon/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/size.h"
#include "core/identity.h"
#include "daemon/ahead.h"
#include "daemon/below.h"
#include "daemon/described.h"
#include "daemon/fabric.h"
#include "daemon/huge.h"
#include "daemon/profiles.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define JOBS_MAX 1024
#define RECLAIM_STEP_BYTES ((uint64_t)64 << 20)

enum weft_status wf_segment_create(const char *name, uint64_t bytes, enum wf_pages pages,
                                   struct wf_segment *out)
{
    struct wf_segment segment = {.fd = -1, .bytes = bytes};
    enum weft_status status = wf_memfd_create(name, bytes, pages, &segment.fd);
    if (status == WEFT_OK)
        status = pages == WF_PAGES_HUGE ? wf_map_huge(segment.fd, bytes, &segment.memory)
                                        : wf_map(segment.fd, bytes, true, &segment.memory);
    if (status != WEFT_OK) {
        if (segment.fd >= 0)
            close(segment.fd);
        return status;
    }
    if (pages == WF_PAGES_THP)
        wf_advise_huge(segment.memory, bytes);
    *out = segment;
    return WEFT_OK;
}

void wf_segment_destroy(struct wf_segment *segment)
{
    wf_unmap(segment->memory, segment->bytes);
    if (segment->fd >= 0)
        close(segment->fd);
    *segment = (struct wf_segment){.fd = -1};
}

/* -------------------------------------------------------------------------------------- budget */

static void punch(void *context, uint64_t first, uint64_t count)
{
    struct wf_domain *domain = context;
    uint64_t offset = first * WF_GRANULE, bytes = count * WF_GRANULE;
    /* Reserved huge pages stay with the segment, zeroed: once given away they might not be there
     * again at the next touch, which would be SIGBUS. */
    bool punched = domain->node->pages != WF_PAGES_HUGE;
    if (domain->node->huge)
        wf_huge_punching(domain->node->huge, domain->pool.memory, offset, bytes);
    if (punched && wf_punch(domain->pool.fd, offset, bytes) != WEFT_OK) {
        wf_warn("node", "%s", wf_last_error());
        punched = false;
    }
    if (!punched)
        memset((char *)domain->pool.memory + offset, 0, bytes);
    WF_CRASH("node.punched");
}

/* Take free backed memory from a domain's arena back into the budget. */
static uint64_t trim(struct wf_domain *domain, uint64_t bytes)
{
    uint64_t granules = (bytes + WF_GRANULE - 1) / WF_GRANULE;
    uint64_t done = wf_arena_trim(&domain->store.arena, granules, punch, domain) * WF_GRANULE;
    domain->store.backed_bytes -= done;
    domain->node->budget_free += done;
    return done;
}

/* Let a domain's blocks go for another, but none of its floor.  False: the floor was in the way. */
static bool give(struct wf_domain *domain, uint64_t bytes, enum wf_evict_reason reason)
{
    uint64_t floor = wf_shares_floor(domain);
    uint64_t others = domain->store.other_bytes + domain->staging_bytes; /* NOLINT: never NULL */
    return wf_store_give(&domain->store, bytes, floor > others ? floor - others : 0, reason);
}

/* Free `bytes` for `wanting` (NULL: for the host): first what lies idle with any domain, then by
 * eviction from whom the rule names. */
static void collect(struct wf_node *node, const struct wf_domain *wanting, uint64_t bytes)
{
    uint64_t start = node->budget_free;
    for (uint32_t i = 0; i < node->domain_count && node->budget_free - start < bytes; i++)
        if (&node->domains[i] != wanting)
            trim(&node->domains[i], bytes - (node->budget_free - start));
    uint64_t in_vain = 0; /* a bit a domain */
    while (node->budget_free - start < bytes) {
        struct wf_share_verdict said;
        wf_shares_decide(node, wanting, bytes, in_vain, &said);
        if (said.who == WF_SHARE_NONE || (wanting && said.who == wanting->id))
            return;
        struct wf_domain *giver = &node->domains[said.who];
        uint64_t missing = bytes - (node->budget_free - start);
        bool floor = !give(giver, missing < said.most ? missing : said.most,
                           wanting ? WF_EVICT_LENT : WF_EVICT_RECLAIM);
        if (trim(giver, missing) > 0)
            continue;
        if (!floor) /* what it has is held, or goes when it has been written below */
            return;
        in_vain |= (uint64_t)1 << said.who;
    }
}

static uint64_t budget_take(void *context, uint64_t least, uint64_t wanted)
{
    struct wf_domain *domain = context;
    struct wf_node *node = domain->node;
    if (node->budget_free < least)
        collect(node, domain, least - node->budget_free);
    if (node->budget_free < least)
        return 0;
    uint64_t take = wanted < node->budget_free ? wanted : node->budget_free;
    take = take / WF_GRANULE * WF_GRANULE;
    node->budget_free -= take;
    return take;
}

static void budget_give(void *context, uint64_t bytes)
{
    struct wf_domain *domain = context;
    domain->node->budget_free += bytes;
}

static uint64_t now_us(void *context)
{
    (void)context;
    return wf_now_ns() / 1000;
}

static void backed(void *context, uint64_t first, uint64_t granules)
{
    struct wf_domain *domain = context;
    if (domain->node->huge)
        wf_huge_backed(domain->node->huge, domain->pool.memory, first * WF_GRANULE,
                       granules * WF_GRANULE);
}

bool wf_node_budget(struct wf_node *node, struct wf_domain *domain, uint64_t bytes)
{
    if (node->budget_free < bytes)
        collect(node, domain, bytes - node->budget_free);
    /* For its own needs a domain's own blocks go as well; and when they have gone it may be below
     * its share. */
    if (node->budget_free < bytes) {
        uint64_t missing = bytes - node->budget_free;
        wf_store_make_free(&domain->store, missing, WF_EVICT_ROOM);
        trim(domain, missing);
    }
    if (node->budget_free < bytes)
        collect(node, domain, bytes - node->budget_free);
    if (node->budget_free < bytes)
        return false;
    node->budget_free -= bytes;
    return true;
}

void wf_node_budget_give(struct wf_node *node, uint64_t bytes)
{
    node->budget_free += bytes;
}

void wf_node_reclaim_step(struct wf_node *node)
{
    struct wf_reclaim *reclaim = &node->reclaim;
    if (!reclaim->client)
        return;
    uint64_t missing = reclaim->wanted - reclaim->done;
    uint64_t step = missing < RECLAIM_STEP_BYTES ? missing : RECLAIM_STEP_BYTES;
    if (node->budget_free < step) {
        wf_shares_settle_less(node, step);
        collect(node, NULL, step - node->budget_free);
    }
    uint64_t got = node->budget_free < step ? node->budget_free : step;
    node->budget_free -= got;
    node->pool_bytes -= got;
    wf_shares_settle(node);
    reclaim->done += got;
    bool all = reclaim->done >= reclaim->wanted;
    reclaim->stalled = got == 0;
    if (!all && wf_now_ns() < reclaim->deadline_ns)
        return; /* more in the next round; what is pinned now may not be then */
    struct wf_client *client = &node->clients[reclaim->client - 1];
    struct wf_message to = {.op = WF_OP_RECLAIM, .sequence = reclaim->sequence};
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)node->answer;
    answer->count = reclaim->done;
    reclaim->client = 0;
    char done[32], wanted[32];
    wf_telemetry_event(node, NULL, "reclaim", "the host took back %s of %s",
                       wf_size_format(reclaim->done, done, sizeof done),
                       wf_size_format(reclaim->wanted, wanted, sizeof wanted));
    enum weft_status status = all ? WEFT_OK : WEFT_PENDING;
    wf_answer(client, &to, status, sizeof *answer, NULL, 0);
    wf_telemetry_op(node, client->domain, WF_OP_RECLAIM, status, wf_now_ns() - reclaim->started_ns);
}

/* -------------------------------------------------------------------------------- what is held */

static void scan_pins(void *context, void (*seen)(void *context, uint32_t slot), void *seen_context)
{
    struct wf_domain *domain = context;
    struct wf_node *node = domain->node;
    for (uint32_t i = 0; i < node->config.clients_max; i++)
        if (node->clients[i].domain == domain && node->clients[i].fd >= 0)
            wf_pins_scan(&node->clients[i].pins, seen, seen_context);
}

static void gone(void *context, const uint8_t key[32], const struct wf_gone *gone)
{
    struct wf_domain *domain = context;
    domain->evicted[gone->reason]++;
    wf_telemetry_gone(domain, key, gone);
    wf_ahead_gone(domain, gone);
    wf_below_gone(domain, key, gone);
    wf_described_changed(domain, key);
    wf_node_fabric_gone(domain, key);
}

bool wf_node_busy(const struct wf_node *node)
{
    return node->scrubs > 0 || (node->below && wf_below_busy(node->below));
}

uint64_t wf_node_quota(const struct wf_domain *domain)
{
    uint64_t quota = domain->store.quota_bytes, pool = domain->node->pool_bytes;
    return quota < pool ? quota : pool;
}

void wf_use_add(struct wf_use *use, const struct wf_client *client)
{
    const struct wf_pins_header *header = client->pins.header;
    use->pins += atomic_load_explicit(&header->pins, memory_order_relaxed);
    use->misses += atomic_load_explicit(&header->misses, memory_order_relaxed);
    use->matches += atomic_load_explicit(&header->matches, memory_order_relaxed);
    use->asked += atomic_load_explicit(&header->asked, memory_order_relaxed);
    use->matched += atomic_load_explicit(&header->matched, memory_order_relaxed);
    use->matched_far += atomic_load_explicit(&header->matched_far, memory_order_relaxed);
    use->bytes_pinned += atomic_load_explicit(&header->bytes_pinned, memory_order_relaxed);
}

struct wf_use wf_node_use(const struct wf_domain *domain)
{
    const struct wf_node *node = domain->node;
    struct wf_use use = domain->use;
    for (uint32_t i = 0; i < node->config.clients_max; i++)
        if (node->clients[i].domain == domain && node->clients[i].fd >= 0)
            wf_use_add(&use, &node->clients[i]);
    return use;
}

static void touched(void *context, uint32_t slot)
{
    const struct wf_client *client = context;
    struct wf_domain *domain = client->domain;
    if (slot < wf_arena_slots_used(&domain->store.arena)) {
        domain->used_again[slot / 8] |= (uint8_t)(1u << (slot % 8));
        domain->refused[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
    }
    wf_store_used(&domain->store, slot, client->id);
}

void wf_client_touches_drain(struct wf_client *client)
{
    wf_pins_drain(&client->pins, &client->touch_tail, touched, client);
}

void wf_node_touches_drain(struct wf_node *node, struct wf_domain *domain)
{
    for (uint32_t i = 0; i < node->config.clients_max; i++) {
        struct wf_client *client = &node->clients[i];
        if (client->domain == domain && client->fd >= 0)
            wf_client_touches_drain(client);
    }
}

/* ------------------------------------------------------------------------------------- domains */

static uint32_t slots_for(const struct wf_config *config, uint64_t pool_bytes)
{
    uint64_t slots = pool_bytes / config->block_bytes_min + 1024;
    return slots < ((uint64_t)1 << 31) ? (uint32_t)slots : 1u << 31;
}

static enum weft_status domain_init(struct wf_node *node, struct wf_domain *domain, uint32_t id)
{
    const struct wf_config *config = &node->config;
    domain->node = node;
    domain->id = id;
    domain->config = &config->domains[id];
    domain->index.fd = domain->pool.fd = domain->index_readonly = domain->pool_readonly = -1;
    uint64_t quota = domain->config->quota_bytes ? domain->config->quota_bytes
                                                 : config->pool_bytes_max;
    /* The segment is as large as the domain may ever become; only what is backed holds memory. */
    uint64_t bytes = quota < config->pool_bytes_max ? quota : config->pool_bytes_max;
    bytes = (bytes + WF_HUGE_BYTES - 1) / WF_HUGE_BYTES * WF_HUGE_BYTES;
    uint32_t slots = slots_for(config, bytes);
    uint32_t far = config->lower_count ? config->below_max : 0;
    domain->arriving.head = WF_SLOT_NONE;
    enum weft_status status = wf_secret_load(config, domain->config, domain->secret,
                                             &domain->secret_bytes);
    wf_domain_tag(domain->secret, domain->secret_bytes, domain->tag);
    domain->used_again = wf_calloc(slots / 8 + 1, 1, "the map of blocks that were read");
    domain->key_taken = wf_calloc(slots / 8 + 1, 1, "the map of blocks that stay in DRAM");
    domain->refused = wf_calloc(slots / 8 + 1, 1, "the map of blocks that no tier takes");
    domain->format_of = wf_calloc(slots, sizeof *domain->format_of, "the formats of blocks");
    domain->profile_of = wf_calloc(slots, sizeof *domain->profile_of, "the profiles of blocks");
    if (status == WEFT_OK && (!domain->used_again || !domain->key_taken || !domain->refused ||
                              !domain->format_of || !domain->profile_of))
        status = WEFT_E_NO_MEMORY;
    if (status == WEFT_OK)
        status = wf_segment_create("weft-index", wf_index_bytes(slots, far), WF_PAGES_NORMAL,
                                   &domain->index);
    if (status == WEFT_OK)
        status = wf_segment_create("weft-pool", bytes, node->pages, &domain->pool);
    if (status == WEFT_OK && config->pool_numa_node >= 0)
        status = wf_bind_node(domain->pool.memory, bytes, config->pool_numa_node);
    if (status == WEFT_OK)
        status = wf_memfd_reopen_readonly(domain->index.fd, &domain->index_readonly);
    if (status == WEFT_OK)
        status = wf_memfd_reopen_readonly(domain->pool.fd, &domain->pool_readonly);
    if (status != WEFT_OK)
        return status;
    struct wf_store_options options = {
        .index_memory = domain->index.memory,
        .index_bytes = domain->index.bytes,
        .slots_max = slots,
        .far_blocks_max = far,
        .pool_bytes = bytes,
        .quota_bytes = quota,
        .epoch = node->epoch,
        .domain = id,
        .policy = config->pool_policy == WF_POOL_POLICY_LRU ? &wf_policy_lru : &wf_policy_value,
        .env = {.context = domain,
                .budget_take = budget_take,
                .budget_give = budget_give,
                .backed = backed,
                .now_us = now_us,
                .scan_pins = scan_pins,
                .cost_s_gib = config->objective == WF_OBJECTIVE_TTFT ? wf_below_cost_s_gib : NULL,
                .lose_part = wf_config_has_fabric(config) ? wf_below_lose_part : NULL,
                .leave = config->lower_count ? wf_demote_leave : NULL,
                .gone = gone},
    };
    return wf_store_init(&domain->store, &options);
}

static void domain_fini(struct wf_domain *domain)
{
    if (domain->store.slots)
        wf_store_fini(&domain->store);
    if (domain->index_readonly >= 0)
        close(domain->index_readonly);
    if (domain->pool_readonly >= 0)
        close(domain->pool_readonly);
    wf_segment_destroy(&domain->index);
    wf_segment_destroy(&domain->pool);
    free(domain->used_again);
    free(domain->key_taken);
    free(domain->refused);
    free(domain->format_of);
    free(domain->profile_of);
    memset(domain->secret, 0, sizeof domain->secret);
}

struct wf_domain *wf_node_domain(struct wf_node *node, const char *name)
{
    for (uint32_t i = 0; i < node->domain_count; i++)
        if (strcmp(node->domains[i].config->name, name) == 0)
            return &node->domains[i];
    return NULL;
}

/* Domains with one secret would be one domain below DRAM. */
static enum weft_status secrets_differ(const struct wf_node *node)
{
    for (uint32_t i = 0; i < node->domain_count; i++)
        for (uint32_t j = 0; j < i; j++)
            if (memcmp(node->domains[i].tag, node->domains[j].tag, 32) == 0)
                return wf_fail(WEFT_E_INVALID,
                               "domains %s and %s have the same secret; give each a secret_file "
                               "of its own",
                               node->domains[j].config->name, node->domains[i].config->name);
    return WEFT_OK;
}

/* Populate what every domain is due now, so that no put meets a page fault. */
static enum weft_status prefault(struct wf_node *node)
{
    for (uint32_t i = 0; i < node->domain_count; i++) {
        struct wf_domain *domain = &node->domains[i];
        uint64_t share = domain->due_bytes / WF_HUGE_BYTES * WF_HUGE_BYTES;
        if (share > domain->pool.bytes)
            share = domain->pool.bytes;
        if (share == 0 || share > node->budget_free)
            continue;
        for (uint64_t at = 0; node->pages == WF_PAGES_THP && at < share; at += WF_HUGE_BYTES)
            if (!wf_huge_make((char *)domain->pool.memory + at))
                break; /* the host's memory is in pieces: the rest as it comes */
        enum weft_status status = wf_populate(domain->pool.memory, share);
        if (status != WEFT_OK)
            return status;
        uint32_t first, granules = (uint32_t)(share / WF_GRANULE);
        uint64_t taken = (uint64_t)wf_arena_back(&domain->store.arena, granules, granules, &first) *
                         WF_GRANULE;
        node->budget_free -= taken;
        domain->store.backed_bytes += taken;
    }
    return WEFT_OK;
}

static enum wf_pages pages_choose(const struct wf_config *config)
{
    if (config->pool_huge == WF_HUGE_OFF)
        return WF_PAGES_NORMAL;
    uint64_t segments = 0; /* each domain's is as large as it may become */
    for (uint32_t i = 0; i < config->domain_count; i++) {
        uint64_t quota = config->domains[i].quota_bytes;
        segments += quota && quota < config->pool_bytes ? quota : config->pool_bytes;
        segments += WF_HUGE_BYTES;
    }
    if (config->pool_huge == WF_HUGE_ON || wf_huge_free_bytes() >= segments)
        return WF_PAGES_HUGE;
    return wf_huge_shared_allowed() || wf_huge_make_works() ? WF_PAGES_THP : WF_PAGES_NORMAL;
}

static enum weft_status tables_create(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    node->clients = wf_calloc(config->clients_max, sizeof *node->clients, "the table of clients");
    node->formats = wf_calloc(config->formats_max, sizeof *node->formats, "the table of formats");
    node->sessions = wf_calloc(config->sessions_max, sizeof *node->sessions,
                               "the table of sessions");
    node->regions = wf_calloc(config->regions_max, sizeof *node->regions, "the table of regions");
    node->domains = wf_calloc(config->domain_count, sizeof *node->domains, "the table of domains");
    enum weft_status status = wf_timers_init(&node->wakes, config->sessions_max);
    if (status == WEFT_OK)
        status = wf_timers_init(&node->deadlines, config->sessions_max);
    if (status != WEFT_OK)
        return status;
    if (!node->clients || !node->formats || !node->sessions || !node->regions || !node->domains)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < config->clients_max; i++)
        node->clients[i].fd = -1;
    return WEFT_OK;
}

enum weft_status wf_node_create(const struct wf_config *config, struct wf_node **out)
{
    struct wf_node *node = wf_calloc(1, sizeof *node, "the node");
    if (!node)
        return WEFT_E_NO_MEMORY;
    node->config = *config;
    wf_config_add_others(&node->config);
    node->epoll = node->listener = node->lock = node->signals = node->timer = node->spare = -1;
    node->started_ns = wf_now_ns();
    node->owner_uid = geteuid();
    node->pool_bytes = node->budget_free = config->pool_bytes / WF_GRANULE * WF_GRANULE;
    node->pages = pages_choose(config);
    if (node->pages == WF_PAGES_HUGE) /* they are set aside whole, so the pool cannot grow */
        node->config.pool_bytes_max = node->pool_bytes;
    node->session_first_free = UINT32_MAX;
    enum weft_status status = WEFT_OK;
    if (getrandom(&node->epoch, sizeof node->epoch, 0) != (ssize_t)sizeof node->epoch)
        status = wf_fail(WEFT_E_SYSTEM, "getrandom: %s", strerror(errno));
    if (status == WEFT_OK)
        status = tables_create(node);
    for (; status == WEFT_OK && node->domain_count < config->domain_count; node->domain_count++)
        status = domain_init(node, &node->domains[node->domain_count], node->domain_count);
    if (status == WEFT_OK)
        wf_shares_settle(node);
    if (status == WEFT_OK && node->config.lower_count)
        status = secrets_differ(node);
    if (status == WEFT_OK && config->pool_prefault)
        status = prefault(node);
    if (status == WEFT_OK)
        wf_dram_measure(config->pool_numa_node, &node->dram);
    if (status == WEFT_OK)
        status = wf_workers_create(config->workers, JOBS_MAX, &node->workers);
    if (status == WEFT_OK && node->pages == WF_PAGES_THP)
        status = wf_huge_create(node->workers, &node->huge);
    if (status == WEFT_OK)
        status = wf_telemetry_create(node);
    if (status == WEFT_OK)
        status = wf_profiles_create(node, &node->profiles);
    if (status == WEFT_OK)
        status = wf_node_fabric_create(node);
    if (status == WEFT_OK)
        status = wf_below_create(node, &node->below);
    if (status != WEFT_OK) {
        wf_node_destroy(node);
        return status;
    }
    *out = node;
    return WEFT_OK;
}

void wf_node_destroy(struct wf_node *node)
{
    if (!node)
        return;
    wf_huge_stop(node->huge);
    wf_workers_destroy(node->workers); /* before the memory that jobs work on */
    wf_huge_destroy(node->huge);
    node->workers = NULL;
    node->huge = NULL;
    wf_node_fabric_stop(node);
    node->device_lives_on |= !wf_below_destroy(node->below);
    node->below = NULL;
    wf_node_fabric_destroy(node);
    wf_node_routes_destroy(node);
    wf_telemetry_destroy(node);
    if (node->device_lives_on)
        return;
    wf_profiles_destroy(node->profiles);
    for (uint32_t i = 0; i < node->domain_count; i++)
        domain_fini(&node->domains[i]);
    for (uint32_t i = 0; i < node->format_count; i++)
        free(node->formats[i].request);
    free(node->domains);
    free(node->clients);
    free(node->formats);
    free(node->sessions);
    wf_timers_fini(&node->wakes);
    wf_timers_fini(&node->deadlines);
    free(node->regions);
    free(node);
}
