/* SPDX-License-Identifier: Apache-2.0
 *
 * The tiers of a node: opened, ranked, failed.
 */
#include "daemon/below.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/size.h"
#include "daemon/archive.h"
#include "daemon/coding.h"
#include "daemon/fabric.h"
#include "daemon/profiles.h"
#include "daemon/telemetry.h"
#include "fabric/remote.h"
#include "sys/clock.h"
#include "sys/cxl.h"
#include "sys/memory.h"
#include "tier/cxl.h"

#define JOBS_MAX 2048u
#define PART_BYTES 65536u
#define PARTS_MAX 1024u /* WF_TIER_PARTS_MAX */
#define MEASURE_NS 1000000000u

uint32_t wf_below_part_bytes(uint64_t bytes)
{
    uint64_t least = (bytes + PARTS_MAX - 1) / PARTS_MAX;
    return (uint32_t)((least + PART_BYTES - 1) / PART_BYTES * PART_BYTES);
}

bool wf_lower_usable(const struct wf_lower *lower)
{
    /* Blocks that were found may be read while others are still being found. */
    return lower->opened &&
           (lower->stats.state == WF_MOVER_OK || lower->stats.state == WF_MOVER_OPENING);
}

uint32_t wf_below_find(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t entry = below ? wf_directory_find(below->directory, key) : WF_DIRECTORY_NONE;
    if (entry != WF_DIRECTORY_NONE)
        wf_directory_read(below->directory, entry, &block);
    return entry != WF_DIRECTORY_NONE && block.domain == domain->id ? entry : WF_DIRECTORY_NONE;
}

void wf_lower_lost(struct wf_lower *lower, const struct wf_domain *domain, const uint8_t key[32],
                   enum weft_status status)
{
    struct wf_below *below = lower->below;
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(below->directory, entry, &block);
    bool corrupt = status == WEFT_E_CORRUPT;
    /* What was damaged between two nodes is whole where it came from, for all that is known, and
     * that node would not tell of it again. */
    bool stays = corrupt && lower->config->peers;
    struct wf_block_move lost = {
        .what = corrupt ? "corrupt" : "missing",
        .reason = corrupt ? "corrupt" : "missing",
        .tier = lower->config->name,
        .bytes = block.bytes,
        .text = stays     ? "what came from another node is not what its checksum says"
                : corrupt ? "it is not what its checksum says; that copy was dropped"
                          : "the tier does not have it any more",
    };
    wf_telemetry_moved(domain, key, &lost);
    if (stays)
        return;
    lower->lost++;
    below->dropping = "parent";
    wf_archive_missed(below, domain, entry);
    wf_directory_lose(below->directory, entry, lower->number);
}

/* ------------------------------------------------------------------------ the directory's words */

static void shown(void *context, uint16_t domain, const uint8_t key[32], int tier,
                  enum weft_quality quality)
{
    struct wf_below *below = context;
    struct wf_index *index = &below->node->domains[domain].store.index;
    if (quality > WEFT_LOSSLESS)
        wf_index_lossy_set(index);
    if (tier < 0)
        wf_far_clear(&index->far, key);
    else if (!wf_far_set(&index->far, key, (unsigned)tier, quality))
        below->node->domains[domain].hidden++; /* found by a load, and not by a match */
}

static void moved(void *context, const struct wf_directory_moved *block)
{
    const struct wf_below *below = context;
    wf_node_fabric_moved(below->node, block);
}

/* Without memory for it, it stays in memory that is lent until that is full. */
static void note_far(struct wf_removed_far *far, const uint8_t key[32])
{
    if (far->count == far->room) {
        uint32_t room = far->room ? 2 * far->room : 64;
        void *more = wf_realloc(far->keys, room * sizeof *far->keys, "what is removed");
        if (!more)
            return;
        far->keys = more;
        far->room = room;
    }
    memcpy(far->keys[far->count++], key, 32);
}

/* What a failed tier takes along is still on the others, and is taken up again when it is back. */
static void dropped(void *context, const struct wf_directory_dropped *block)
{
    struct wf_below *below = context;
    struct wf_lower *lower = &below->tiers[block->tier];
    struct wf_domain *domain = &below->node->domains[block->domain];
    wf_load_forget(below, domain, block->key);
    /* Without its parent it cannot be found, but may be a part of an archive all the same. */
    bool stays = strcmp(below->dropping, "parent") == 0 && wf_archives_waiting(below) &&
                 wf_archive_tiers(below) >> lower->number & 1;
    if (below->losing || stays) {
        if ((below->losing && below->losing->others) || lower->others)
            return; /* other hosts tell again what they have */
        struct wf_tier_block aside = {.bytes = block->bytes,
                                      .depth = block->depth,
                                      .plain_quality = (uint32_t)block->quality};
        memcpy(aside.key, block->key, sizeof aside.key);
        if (block->parent)
            memcpy(aside.parent, block->parent, sizeof aside.parent);
        memcpy(aside.format, domain->tag, sizeof aside.format);
        wf_below_orphan_keep(lower, &aside);
        return;
    }
    bool peers = lower->config->peers, waits = peers && wf_others_keep(lower, block);
    bool only = block->tiers == 1u << block->tier;
    bool went = peers && only && !waits && below->node_went;
    struct wf_block_move move = {.what = went ? "missing" : "let_go",
                                 .reason = went ? "node" : below->dropping,
                                 .tier = lower->config->name,
                                 .bytes = block->bytes};
    wf_telemetry_moved(domain, block->key, &move);
    if (peers && below->removed_far)
        note_far(below->removed_far, block->key);
    if (!peers)
        wf_lower_remove(lower, block->key);
}

void wf_below_unread(struct wf_domain *domain, const uint8_t key[32])
{
    uint32_t entry = wf_below_find(domain, key);
    domain->unread = 1 + wf_profiles_generation(domain->node->profiles);
    if (entry != WF_DIRECTORY_NONE)
        wf_directory_unread(domain->node->below->directory, entry, true);
}

/* Of which load failed first is no matter: the rest of its chain is of no use without that block,
 * and was not asked for, perhaps. */
static bool may_be_unread(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_node *node = domain->node;
    uint32_t slot = wf_store_find(&domain->store, key);
    uint16_t format = slot != WF_SLOT_NONE ? domain->format_of[slot] : 0;
    return domain->unread == 1 + wf_profiles_generation(node->profiles) ||
           (format && !wf_coding_profile(node, &node->formats[format - 1]));
}

void wf_below_entered(struct wf_domain *domain, const uint8_t key[32], bool promoted)
{
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return;
    struct wf_node *node = domain->node;
    wf_directory_enter_dram(node->below->directory, entry, promoted);
    if (promoted) {
        wf_directory_unread(node->below->directory, entry, false);
        return;
    }
    if (may_be_unread(domain, key))
        wf_directory_unread(node->below->directory, entry, true);
    (void)wf_below_replace(domain, key);
}

void wf_below_gone(struct wf_domain *domain, const uint8_t key[32], const struct wf_gone *gone)
{
    struct wf_below *below = domain->node->below;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return;
    struct wf_directory_block block;
    wf_directory_read(below->directory, entry, &block);
    struct wf_reuse reuse;
    domain->left_dram += block.tiers && gone->reason != WF_EVICT_REMOVED;
    if (wf_below_reuse(domain, &gone->why, &block, &reuse))
        wf_directory_judge(below->directory, entry, (float)reuse.chance, (float)reuse.rate,
                           (float)reuse.weight);
    below->dropping = "parent";
    wf_directory_leave_dram(below->directory, entry);
}

uint8_t wf_below_peers(const struct wf_below *below)
{
    uint8_t peers = 0;
    for (uint32_t i = 0; i < below->count; i++)
        peers |= (uint8_t)((unsigned)below->tiers[i].config->peers << i);
    return peers;
}

const char *wf_below_where(const struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return NULL;
    wf_directory_read(below->directory, entry, &block);
    for (uint32_t i = 0; i < below->count; i++)
        if (block.tiers >> below->order[i] & 1)
            return below->tiers[below->order[i]].config->name;
    return NULL;
}

uint64_t wf_below_remove(struct wf_domain *domain, const uint8_t key[32])
{
    struct wf_below *below = domain->node->below;
    uint32_t entry = wf_below_find(domain, key);
    if (entry == WF_DIRECTORY_NONE)
        return 0;
    uint32_t before = wf_directory_entries(below->directory);
    below->dropping = "removed";
    wf_directory_remove(below->directory, entry);
    WF_CRASH("below.removed");
    return before - wf_directory_entries(below->directory);
}

/* What other hosts have is on the same device as our own, and as fast as that until it was
 * measured. */
static const struct wf_mover_stats *speed_of(const struct wf_lower *lower)
{
    bool measured = lower->stats.read_latency_us > 0 && lower->stats.read_mbps > 0;
    return lower->own && !measured ? &lower->own->stats : &lower->stats;
}

/* Tell clients how far each tier is. */
static void publish_speeds(struct wf_below *below)
{
    for (uint32_t d = 0; d < below->node->domain_count; d++) {
        struct wf_tier_speed *speeds = below->node->domains[d].store.index.speeds;
        for (uint32_t i = 0; i < below->count; i++) {
            const struct wf_lower *lower = &below->tiers[i];
            atomic_store_explicit(&speeds[i].kind, (uint32_t)lower->kind, memory_order_relaxed);
            const struct wf_mover_stats *stats = speed_of(lower);
            atomic_store_explicit(&speeds[i].latency_us, (uint32_t)stats->read_latency_us,
                                  memory_order_relaxed);
            atomic_store_explicit(&speeds[i].mbps, (uint32_t)stats->read_mbps,
                                  memory_order_relaxed);
        }
    }
}

/* ------------------------------------------------------------------------------------- measured */

/* What a megabyte from there takes; what was not measured yet comes after what was. */
static double cost_us(const struct wf_lower *lower)
{
    const struct wf_mover_stats *stats = speed_of(lower);
    if (stats->read_latency_us <= 0 && stats->read_mbps <= 0)
        return DBL_MAX;
    return stats->read_latency_us + (stats->read_mbps > 0 ? 1048576.0 / stats->read_mbps : 0);
}

/* Nearest first, by what was measured; the configured order until then, and between equals. */
static void rank(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++) {
        uint32_t at = i;
        while (at > 0 &&
               cost_us(&below->tiers[i]) < cost_us(&below->tiers[below->order[at - 1]]) * 0.8) {
            below->order[at] = below->order[at - 1];
            at--;
        }
        below->order[at] = i;
    }
}

static void opened(void *context, enum weft_status status, const char *sentence)
{
    struct wf_lower *lower = context;
    struct wf_directory_sum sum;
    wf_mover_stats(lower->mover, &lower->stats);
    wf_clients_unpark(lower->below->node);
    if (status != WEFT_OK) {
        wf_telemetry_event(lower->below->node, NULL, "tier_failed", "tier %s cannot be opened: %s",
                           lower->config->name, sentence);
        wf_archives_opened(lower->below);
        return;
    }
    lower->opened = lower->complete = lower->known = true;
    wf_lower_meter(lower, 0);
    wf_coding_opened(lower);
    wf_lower_measure(lower);
    wf_volume_opened(lower);
    rank(lower->below); /* before anyone chooses by it */
    publish_speeds(lower->below);
    lower->below->orphans_told = 0;
    wf_below_orphans_settle(lower->below);
    wf_archives_opened(lower->below);
    wf_directory_sum(lower->below->directory, lower->number, UINT16_MAX, &sum);
    char bytes[32];
    wf_size_format(sum.bytes, bytes, sizeof bytes);
    wf_info("tier", "%s: %llu blocks, %s found", lower->config->name,
            (unsigned long long)sum.blocks, bytes);
    wf_telemetry_event(lower->below->node, NULL, "tier_open",
                       "tier %s is open; %llu blocks, %s, were found there", lower->config->name,
                       (unsigned long long)sum.blocks, bytes);
    if (lower->foreign_bytes)
        wf_warn("tier",
                "%s: %s of blocks there belong to domains that this node does not have, by "
                "their secrets; they are left alone and take up room",
                lower->config->name, wf_size_format(lower->foreign_bytes, bytes, sizeof bytes));
    lower->below->measured_ns = 0;
}

/* The mover, which saw it first, has logged it. */
static void changed(void *context, enum wf_mover_state state, const char *sentence)
{
    struct wf_lower *lower = context;
    enum wf_mover_state before = lower->told;
    lower->told = state;
    wf_mover_stats(lower->mover, &lower->stats);
    if (before == WF_MOVER_OPENING && state == WF_MOVER_OK)
        return; /* opened() says that, */
    if (state == WF_MOVER_FAILED && !lower->opened)
        return; /* and this */
    wf_telemetry_event(lower->below->node, NULL, "tier_state", "tier %s is %s%s%s",
                       lower->config->name, wf_mover_state_name(state), sentence[0] ? ": " : "",
                       sentence);
    if (state == WF_MOVER_FAILED && lower->opened) {
        struct wf_directory_sum sum;
        wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
        wf_telemetry_event(lower->below->node, NULL, "tier_lost",
                           "%llu blocks on tier %s cannot be read until it works again",
                           (unsigned long long)sum.blocks, lower->config->name);
        lower->opened = lower->complete = false;
        lower->below->dropping = "parent";
        wf_archives_wait(lower->below);
        wf_lower_removals_forget(lower);
        wf_below_orphans_forget(lower);
        lower->below->losing = lower;
        wf_directory_lose_tier(lower->below->directory, lower->number);
        lower->below->losing = NULL;
        lower->foreign_bytes = lower->left_alone = 0; /* counted anew when it comes back */
        wf_archives_failed(lower);
        if (lower->others)
            wf_others_lost(lower);
    }
}

void wf_below_tick(struct wf_below *below)
{
    uint64_t now_ns = wf_now_ns();
    wf_directory_clock(below->directory, (uint32_t)(now_ns / 100000000));
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[i];
        wf_mover_stats(lower->mover, &lower->stats);
        if (lower->stats.state != WF_MOVER_OPENING)
            lower->opening_ns = 0;
        else if (!lower->opening_ns)
            lower->opening_ns = now_ns;
        wf_lower_measure(lower);
        wf_volume_tick(lower);
        (void)wf_lower_quiet(lower);
    }
    wf_demote_ahead(below);
    wf_loads_run(below);
    wf_others_tick(below);
    wf_archives_tick(below);
    uint64_t elapsed_ns = now_ns - below->measured_ns;
    if (elapsed_ns < MEASURE_NS)
        return;
    below->measured_ns = now_ns;
    rank(below);
    publish_speeds(below);
    for (uint32_t i = 0; i < below->count; i++)
        wf_lower_meter(&below->tiers[i], elapsed_ns);
    for (uint32_t i = 0; i < below->count; i++)
        wf_lower_scrub(&below->tiers[i], elapsed_ns < 2 * MEASURE_NS ? elapsed_ns : MEASURE_NS);
}

/* -------------------------------------------------------------------------------- begin and end */

static const struct wf_tier_ops *ops_of(const struct wf_tier_config *config)
{
    if (config->peers || config->remote)
        return config->peers ? &wf_tier_peers : &wf_tier_remote;
    if (config->others_of)
        return &wf_tier_cxl_others;
    switch (config->kind) {
    case WF_KIND_NVME: return &wf_tier_nvme;
    case WF_KIND_CXL: return &wf_tier_cxl;
    case WF_KIND_S3: return &wf_tier_s3;
    case WF_KIND_DRAM: return &wf_tier_dram;
    }
    return NULL;
}

/* `auto`: the first memory beyond DRAM that no tier before this one has. */
static enum weft_status path_resolve(struct wf_lower *lower)
{
    struct wf_cxl_device devices[WF_CXL_DEVICES_MAX];
    uint32_t count = 0;
    bool libraries;
    const struct wf_lower *own = lower->config->others_of
                                     ? &lower->below->tiers[lower->config->others_of - 1]
                                     : NULL;
    const char *path = own ? own->path : lower->config->path; /* memory need not have one */
    snprintf(lower->path, sizeof lower->path, "%s", path[0] ? path : lower->config->name);
    if (lower->config->kind != WF_KIND_CXL || strcmp(lower->path, "auto") != 0)
        return WEFT_OK;
    enum weft_status status = wf_cxl_find(&(struct wf_cxl_search){0}, devices, WF_CXL_DEVICES_MAX,
                                          &count, &libraries);
    if (status < 0 && status != WEFT_E_LIMIT)
        return status;
    for (uint32_t i = 0; i < count; i++) {
        bool taken = false;
        for (unsigned t = 0; t < lower->number; t++)
            taken |= strcmp(lower->below->tiers[t].path, devices[i].path) == 0;
        if (!taken) {
            snprintf(lower->path, sizeof lower->path, "%s", devices[i].path);
            wf_info("tier", "%s: found %s of %llu bytes", lower->config->name, lower->path,
                    (unsigned long long)devices[i].bytes);
            return WEFT_OK;
        }
    }
    return wf_fail(WEFT_E_NOT_FOUND,
                   "tier %s: path auto, but this host has no (other) DAX device and no NUMA node "
                   "without processors; name one, or drop the tier",
                   lower->config->name);
}

static enum weft_status lower_init(struct wf_below *below, unsigned number)
{
    struct wf_lower *lower = &below->tiers[number];
    const struct wf_tier_config *config = &below->node->config.tiers[number];
    /* To a client, memory that it does not map is as far as CXL's, whatever it is made of. */
    static const enum weft_tier kinds[WF_KINDS] = {WEFT_TIER_NVME, WEFT_TIER_CXL, WEFT_TIER_S3,
                                                   WEFT_TIER_CXL};
    lower->below = below;
    lower->config = config;
    lower->number = number;
    lower->kind = config->peers || config->remote ? WEFT_TIER_REMOTE : kinds[config->kind];
    lower->kind_name = ops_of(config)->name;
    enum weft_status status = path_resolve(lower);
    if (status != WEFT_OK)
        return status;
    lower->durable = config->kind != WF_KIND_DRAM &&
                     (config->kind != WF_KIND_CXL || wf_tier_cxl_persistent(lower->path));
    lower->emulated = config->kind == WF_KIND_CXL &&
                      wf_tier_cxl_medium(lower->path) == WF_CXL_MEDIUM_FILE;
    below->order[number] = number;
    lower->expansion = 1;
    status = wf_lower_removals_create(lower);
    if (status == WEFT_OK && (config->others_of || config->peers))
        status = wf_others_create(lower,
                                  config->peers ? NULL : &below->tiers[config->others_of - 1]);
    if (status != WEFT_OK)
        return status;
    const struct wf_domain *first = &below->node->domains[0];
    bool still = below->node->pages == WF_PAGES_HUGE; /* its pages never change hands */
    struct wf_mover_options options = {
        .name = config->name,
        /* Other nodes send blocks as they are. */
        .ops = config->peers || config->remote ? ops_of(config)
                                               : wf_coding_begin(lower, ops_of(config)),
        .tier = {.path = lower->path,
                 .capacity_bytes = config->size_bytes,
                 .queue_depth = config->queue_depth,
                 .buffers = still ? first->pool.memory : NULL,
                 .buffers_bytes = still ? first->pool.bytes : 0,
                 .endpoint = config->endpoint[0] ? config->endpoint : NULL,
                 .region = config->region[0] ? config->region : NULL,
                 .dram_node = config->dram_node,
                 .discard = config->discard,
                 .shared = config->shared,
                 .held = wf_volume_recall(lower),
                 .host = (uint8_t)config->host,
                 .coded = &lower->coding.options,
                 .peers = below->node->peers},
        .jobs_max = JOBS_MAX,
        .timeout_ms = config->timeout_ms,
        .background_depth = config->queue_depth > 1 ? config->queue_depth / 2 : 1,
        .shares = {[WF_TIER_WAITED] = 1,
                   [WF_TIER_PREFETCH] = 600,
                   [WF_TIER_DEMOTE] = 350,
                   [WF_TIER_SCRUB] = 50},
        .found = lower->others ? wf_others_found : wf_lower_found,
        .gone = lower->others    ? wf_others_gone
                : config->remote ? wf_lower_gone
                                 : NULL,
        .opened = opened,
        .changed = changed,
        .context = lower,
    };
    return wf_mover_create(&options, &lower->mover);
}

enum weft_status wf_below_create(struct wf_node *node, struct wf_below **out)
{
    if (node->config.lower_count == 0) {
        *out = NULL;
        return WEFT_OK;
    }
    struct wf_below *below = wf_calloc(1, sizeof *below, "the tiers");
    if (!below)
        return WEFT_E_NO_MEMORY;
    below->node = node;
    below->writing = "room";
    below->dropping = "parent";
    struct wf_directory_env env = {.context = below,
                                   .shown = shown,
                                   .dropped = dropped,
                                   .moved = moved};
    uint64_t seed = node->epoch;
    enum weft_status status = wf_directory_create(node->config.below_max, seed, &env,
                                                  &below->directory);
    for (uint32_t i = 0; status == WEFT_OK && i < node->domain_count; i++)
        wf_directory_demand(below->directory, (uint16_t)i,
                            wf_domain_quality(node->domains[i].config));
    if (status == WEFT_OK)
        status = wf_demotes_create(below);
    if (status == WEFT_OK)
        status = wf_loads_create(below);
    if (status == WEFT_OK)
        status = wf_archives_create(below);
    while (status == WEFT_OK && below->count < node->config.lower_count) {
        status = lower_init(below, below->count);
        below->count++;
    }
    if (status != WEFT_OK) {
        wf_below_destroy(below);
        return status;
    }
    publish_speeds(below);
    *out = below;
    return WEFT_OK;
}

bool wf_below_destroy(struct wf_below *below)
{
    bool ended = true;
    if (!below)
        return true;
    below->stopping = true;
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[i];
        if (lower->mover && !wf_mover_destroy(lower->mover, below->node->config.drain_ms)) {
            wf_error("tier", "%s did not come to an end; what it had not written is lost",
                     lower->config->name);
            ended = false;
        }
        lower->mover = NULL;
    }
    if (!ended)
        return false; /* what the movers still have lies in our tables */
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[i];
        wf_budget_end(lower);
        wf_lower_removals_destroy(lower);
        wf_others_destroy(lower);
    }
    wf_archives_destroy(below);
    wf_loads_destroy(below);
    wf_demotes_destroy(below);
    wf_directory_destroy(below->directory);
    free(below->orphans);
    free(below);
    return true;
}

int wf_below_fd(const struct wf_below *below, uint32_t tier)
{
    return wf_mover_fd(below->tiers[tier].mover);
}

void wf_below_run(struct wf_below *below, uint32_t tier)
{
    wf_mover_reap(below->tiers[tier].mover);
    if (below->tiers[tier].config->peers)
        wf_node_fabric_wanted(below->node); /* it had news */
}

bool wf_lower_opening(const struct wf_lower *lower)
{
    return !lower->complete && lower->stats.state == WF_MOVER_OPENING;
}

bool wf_below_opening(const struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++) {
        const struct wf_lower *lower = &below->tiers[i];
        uint64_t patience_ns = (uint64_t)lower->config->timeout_ms * 1000000u;
        if (lower->stats.state == WF_MOVER_OPENING &&
            (!lower->opening_ns || wf_now_ns() - lower->opening_ns < patience_ns))
            return true;
    }
    return false;
}

bool wf_below_busy(const struct wf_below *below)
{
    return wf_demotes_busy(below) > 0 || wf_loads_busy(below) > 0 || wf_below_opening(below);
}

bool wf_below_settled(struct wf_below *below)
{
    return wf_demote_sweep(below) && wf_demotes_busy(below) == 0 &&
           wf_archive_runs_busy(below->archives) == 0 &&
           wf_archive_leaves_busy(below->archives) == 0;
}
