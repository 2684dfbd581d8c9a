/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the node's state meets metrics, events and HTTP.  Figures that the node keeps anyway
 * (blocks, bytes, pins) are read when somebody asks; only what nobody else keeps is counted as it
 * happens.
 */
#include "daemon/telemetry.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/ages.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/engines.h"
#include "daemon/events.h"
#include "daemon/fabric.h"
#include "daemon/gateway.h"
#include "daemon/http.h"
#include "daemon/metrics.h"
#include "daemon/route.h"
#include "sys/clock.h"

#define HTTP_EVENTS_BYTES_MAX (256 * 1024)

static_assert(WF_NOT_BELOW_REASONS <= WF_REASONS_MAX, "each has a place among the gauges");

/* How long blocks of a tier took to be readable, in ns. */
struct load_times {
    struct wf_hist first_range, whole;
};

struct wf_telemetry {
    struct wf_metrics *metrics;
    struct wf_events *events;
    struct wf_http *http;           /* NULL: off */
    const struct wf_domain *served; /* for whom the node works at this moment; NULL: for itself */
    struct load_times (*loads)[WF_LOAD_WHYS]; /* [tiers] */
    struct wf_ages ages[];                    /* a domain each */
};

/* -------------------------------------------------------------------------------------- asking */

/* Counters that the node keeps: they become what it says now. */
static void refresh(struct wf_metrics *metrics, const struct wf_domain *domain)
{
    struct wf_use use = wf_node_use(domain);
    wf_metrics_set(metrics, domain->id, WF_M_PINS, use.pins);
    wf_metrics_set(metrics, domain->id, WF_M_PIN_MISSES, use.misses);
    wf_metrics_set(metrics, domain->id, WF_M_MATCHES, use.matches);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_ASKED, use.asked);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_MATCHED, use.matched);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_MATCHED_BELOW,
                   use.matched_far < use.matched ? use.matched_far : use.matched);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_LEFT_DRAM, domain->left_dram);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_PROMOTED, domain->promoted);
    wf_metrics_set(metrics, domain->id, WF_M_BYTES_PROMOTED, domain->promoted_bytes);
    wf_metrics_set(metrics, domain->id, WF_M_LOADS_LOST, domain->loads_lost);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_HIDDEN, domain->hidden);
    wf_metrics_set(metrics, domain->id, WF_M_BYTES_PINNED, use.bytes_pinned);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_PUT, domain->puts);
    wf_metrics_set(metrics, domain->id, WF_M_BYTES_PUT, domain->put_bytes);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_DEDUPLICATED, domain->deduplicated);
    wf_metrics_set(metrics, domain->id, WF_M_BYTES_DEDUPLICATED, domain->deduplicated_bytes);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_FULL, domain->fulls);
    wf_metrics_set(metrics, domain->id, WF_M_BLOCKS_FULL_FOR_WORTH, domain->fulls_for_worth);
    wf_metrics_set(metrics, domain->id, WF_M_CHECKSUM_FAILURES, domain->corrupt);
}

static void fill_domains(const struct wf_node *node, struct wf_domain_gauges *gauges)
{
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_domain *domain = &node->domains[i];
        gauges[i].clients = domain->clients;
        gauges[i].blocks = domain->store.blocks;
        gauges[i].block_bytes = domain->store.used_bytes;
        gauges[i].reserved_blocks = domain->store.reserved_blocks;
        gauges[i].quota_bytes = wf_node_quota(domain);
        gauges[i].due_bytes = wf_shares_shown(domain);
        gauges[i].floor_bytes = domain->config->floor_bytes;
        gauges[i].lent_bytes = wf_shares_lent(domain);
        for (unsigned why = 0; domain->node->below && why < WF_NOT_BELOW_REASONS; why++)
            gauges[i].not_below[why] =
                (struct wf_reason_gauge){wf_not_below_name((enum wf_not_below)why),
                                         domain->not_below[why]};
    }
    for (uint32_t i = 0; i < node->format_count; i++)
        gauges[node->formats[i].domain].formats++;
    for (uint32_t i = 0; i < node->session_used; i++) {
        const struct wf_session_entry *session = &node->sessions[i];
        if (session->id && session->state >= WEFT_PREFILL && session->state <= WEFT_DONE)
            gauges[session->domain].sessions[session->state - WEFT_PREFILL]++;
    }
    for (uint32_t i = 0; i < node->config.regions_max; i++) {
        const struct wf_region_entry *region = &node->regions[i];
        if (region->id) {
            gauges[region->domain].regions++;
            gauges[region->domain].region_bytes += region->bytes;
        }
    }
}

static void fill_tier(struct wf_telemetry *telemetry, struct wf_lower *lower,
                      struct wf_tier_gauges *out)
{
    struct wf_mover_stats stats;
    struct wf_directory_sum sum;
    wf_mover_stats(lower->mover, &stats);
    wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    const struct wf_tier_stats *tier = &stats.tier;
    *out = (struct wf_tier_gauges){
        .name = lower->config->name,
        .kind = lower->kind_name,
        .state = wf_mover_state_name(stats.state),
        .emulated = lower->emulated,
        .durable = lower->durable,
        .read_latency_us = stats.read_latency_us,
        .read_mbps = stats.read_mbps,
        .write_mbps = stats.write_mbps,
        .write_amplification = tier->write_bytes
                                   ? (double)tier->device_write_bytes / (double)tier->write_bytes
                                   : 0,
        .capacity_bytes = tier->capacity_bytes,
        .used_bytes = tier->used_bytes,
        .blocks = sum.blocks,
        .archived_bytes = sum.archived_bytes,
        .queued = stats.queued,
        .reads = tier->reads,
        .read_bytes = tier->read_bytes,
        .writes = tier->writes,
        .write_bytes = tier->write_bytes,
        .device_write_bytes = tier->device_write_bytes,
        .errors = tier->errors,
        .corrupt = tier->corrupt,
        .demoted = lower->demoted,
        .promoted = lower->promoted,
        .moved = lower->moved,
        .evicted = lower->evicted,
        .lost = lower->lost,
        .left_alone = lower->left_alone,
        .foreign_bytes = lower->foreign_bytes,
        .as_is_blocks = tier->coded.as_is,
    };
    for (unsigned q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++) {
        out->quality[q].written = lower->written[q].blocks;
        out->quality[q].written_bytes = lower->written[q].bytes;
        out->quality[q].read = lower->read[q].blocks;
        out->quality[q].read_bytes = lower->read[q].bytes;
        const struct wf_coded_sum *coded = &tier->coded.quality[q];
        out->quality[q].codec = wf_coding_codec((enum weft_quality)q)->name;
        out->quality[q].encoded = coded->blocks;
        out->quality[q].plain_bytes = coded->plain_bytes;
        out->quality[q].stored_bytes = coded->stored_bytes;
        out->quality[q].encode_bytes = coded->tried_bytes;
        out->quality[q].decode_bytes = coded->decoded_bytes;
        out->quality[q].encode_seconds = (double)coded->encode_ns * 1e-9;
        out->quality[q].decode_seconds = (double)coded->decode_ns * 1e-9;
    }
    (void)wf_lower_budget(lower, &out->budget_bytes, &out->budget_day_bytes);
    for (unsigned why = 0; why < WF_LOAD_WHYS; why++) {
        out->first_range[why] = &telemetry->loads[lower->number][why].first_range;
        out->whole[why] = &telemetry->loads[lower->number][why].whole;
    }
}

static void fill(void *context, struct wf_gauges *gauges)
{
    const struct wf_node *node = context;
    uint64_t idle = 0, largest = node->budget_free;
    uint32_t attached = 0;
    fill_domains(node, gauges->domains);
    for (uint32_t i = 0; node->below && i < node->domain_count; i++)
        wf_archives_gauge(&node->domains[i], &gauges->domains[i]);
    if (node->below) {
        gauges->archives_lost = node->below->archives->lost;
        gauges->archives_made = wf_archive_runs_busy(node->below->archives);
    }
    for (uint32_t i = 0; node->below && i < node->below->count; i++)
        fill_tier(node->telemetry, &node->below->tiers[i], &gauges->tiers[gauges->tier_count++]);
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_domain *domain = &node->domains[i];
        uint64_t range = wf_arena_largest(&domain->store.arena) * WF_GRANULE;
        idle += domain->store.backed_bytes - domain->store.used_bytes;
        largest = range > largest ? range : largest;
        attached += domain->clients;
    }
    struct wf_pool_gauges *pool = &gauges->pools[0];
    pool->total_bytes = node->pool_bytes;
    pool->free_bytes = node->budget_free + idle;
    pool->used_bytes = node->pool_bytes - pool->free_bytes;
    pool->largest_free_bytes = largest;
    if (node->pool_bytes > node->config.pool_bytes)
        pool->lent_bytes = node->pool_bytes - node->config.pool_bytes;
    gauges->clients_unknown = node->client_count - attached;
    gauges->draining = node->draining;
    gauges->has_events = wf_gateway_events_figures(node, &gauges->events);
    wf_engines_figures(node, &gauges->engines);
    gauges->has_fabric = wf_node_fabric_figures(node, &gauges->fabric, &gauges->fabric_peers,
                                                &gauges->fabric_peer_count);
    gauges->has_resp = wf_gateway_figures(node, &gauges->resp);
}

static char *metrics_text(void *context)
{
    struct wf_node *node = context;
    for (uint32_t i = 0; i < node->domain_count; i++)
        refresh(node->telemetry->metrics, &node->domains[i]);
    return wf_metrics_render(node->telemetry->metrics, fill, node);
}

static char *status_json(void *context)
{
    return wf_query_status(context, NULL);
}

static char *events_json(void *context, uint64_t cursor)
{
    const struct wf_node *node = context;
    return wf_events_json(node->telemetry->events, WF_EVENTS_NODE, cursor, HTTP_EVENTS_BYTES_MAX);
}

static bool draining(void *context)
{
    const struct wf_node *node = context;
    return node->draining;
}

char *wf_telemetry_events(struct wf_node *node, const struct wf_domain *only, uint64_t cursor)
{
    return wf_events_json(node->telemetry->events, only ? only->id : WF_EVENTS_NODE, cursor,
                          WF_MESSAGE_MAX - sizeof(struct wf_text_answer) - 1);
}

/* ----------------------------------------------------------------------------------- happening */

void wf_telemetry_serve(struct wf_node *node, const struct wf_domain *domain)
{
    node->telemetry->served = domain;
}

void wf_telemetry_op(struct wf_node *node, const struct wf_domain *domain, unsigned op,
                     enum weft_status status, uint64_t ns)
{
    struct wf_telemetry *telemetry = node->telemetry;
    uint32_t id = domain ? domain->id : WF_NO_DOMAIN;
    telemetry->served = NULL;
    if (status == WEFT_E_PROTOCOL)
        wf_metrics_add(telemetry->metrics, id, WF_M_PROTOCOL_ERRORS, 1);
    wf_metrics_op(telemetry->metrics, id, op < WF_OP_COUNT ? (enum wf_op)op : (enum wf_op)0, status,
                  ns);
}

/* It is on no tier: what was said when one was to take it. */
static void refusal_tell(struct wf_domain *domain, const struct wf_refusal *refusal,
                         struct wf_event *event)
{
    if (!refusal)
        return;
    const struct wf_admission *said = &refusal->said;
    domain->not_below[refusal->why]++;
    event->not_below = wf_not_below_name(refusal->why);
    if (refusal->by_worth)
        event->refusal = (struct wf_event_refusal){.rule = wf_admit_rule_name(said->rule),
                                                   .chance = refusal->reuse.chance,
                                                   .rate = refusal->reuse.rate,
                                                   .hits = said->hits,
                                                   .saved_s = said->saved_s,
                                                   .write_s = said->write_s,
                                                   .wear_s = said->wear_s,
                                                   .room_s = said->room_s};
}

void wf_telemetry_gone(struct wf_domain *domain, const uint8_t key[32], const struct wf_gone *gone)
{
    static const enum wf_metric counted[WF_EVICT_REASONS][2] = {
        [WF_EVICT_ROOM] = {WF_M_BLOCKS_EVICTED, WF_M_BYTES_EVICTED},
        [WF_EVICT_QUOTA] = {WF_M_BLOCKS_EVICTED, WF_M_BYTES_EVICTED},
        [WF_EVICT_RECLAIM] = {WF_M_BLOCKS_EVICTED, WF_M_BYTES_EVICTED},
        [WF_EVICT_REMOVED] = {WF_M_BLOCKS_REMOVED, WF_M_BYTES_REMOVED},
        [WF_EVICT_CORRUPT] = {WF_M_BLOCKS_DROPPED, WF_M_BYTES_DROPPED},
        [WF_EVICT_DEMOTED] = {WF_M_BLOCKS_EVICTED, WF_M_BYTES_EVICTED},
        [WF_EVICT_LENT] = {WF_M_BLOCKS_EVICTED, WF_M_BYTES_EVICTED},
    };
    struct wf_telemetry *telemetry = domain->node->telemetry;
    if (!telemetry)
        return; /* the node is being made or unmade */
    uint64_t uses = domain->store.policy_ops->uses(domain->store.policy);
    wf_metrics_add(telemetry->metrics, domain->id, counted[gone->reason][0], 1);
    wf_metrics_add(telemetry->metrics, domain->id, counted[gone->reason][1], gone->bytes);
    struct wf_event event = {
        .what = gone->reason == WF_EVICT_REMOVED ? "remove" : "evict",
        .domain = domain->id,
        .evicted = true,
        .for_domain = telemetry->served ? telemetry->served->id : WF_EVENTS_NODE,
        .bytes = gone->bytes,
        .age_ms = wf_ages_since(&telemetry->ages[domain->id], uses - gone->age, wf_now_ns()) /
                  1000000,
        .reason = wf_evict_reason_name(gone->reason),
        .candidates = gone->candidates,
        .why = gone->why,
    };
    memcpy(event.key, key, sizeof event.key);
    memcpy(event.parent, gone->parent, sizeof event.parent);
    if (domain->node->below && gone->reason != WF_EVICT_REMOVED) {
        event.tier = wf_below_where(domain, key);
        if (!event.tier)
            refusal_tell(domain, wf_below_refusal(domain, key), &event);
    }
    wf_events_add(telemetry->events, &event);
}

void wf_telemetry_moved(const struct wf_domain *domain, const uint8_t key[32],
                        const struct wf_block_move *move)
{
    struct wf_event event = {
        .what = move->what,
        .domain = domain->id,
        .moved = true,
        .bytes = move->bytes,
        .reason = move->reason,
        .tier = move->tier,
        .from = move->from,
        .took_us = move->took_us,
        .quality = move->quality > WEFT_LOSSLESS ? move->quality : WEFT_QUALITY_DEFAULT,
    };
    memcpy(event.key, key, sizeof event.key);
    if (move->text)
        snprintf(event.text, sizeof event.text, "%s", move->text);
    if (domain->node->telemetry)
        wf_events_add(domain->node->telemetry->events, &event);
}

void wf_telemetry_refused(const struct wf_domain *domain, const struct wf_block_refusal *refusal)
{
    struct wf_event event = {.what = "full",
                             .domain = domain->id,
                             .refused = true,
                             .blocks = refusal->blocks,
                             .bytes = refusal->bytes,
                             .reason = refusal->reason};
    memcpy(event.key, refusal->first, sizeof event.key);
    memcpy(event.last, refusal->last, sizeof event.last);
    snprintf(event.text, sizeof event.text, "%s", refusal->text);
    if (domain->node->telemetry)
        wf_events_add(domain->node->telemetry->events, &event);
}

void wf_telemetry_prefetch(const struct wf_domain *domain, const uint8_t tip[32], uint64_t bytes,
                           const struct wf_event_prefetch *said)
{
    struct wf_event event = {.what = "prefetch",
                             .domain = domain->id,
                             .fetched = true,
                             .bytes = bytes,
                             .prefetch = *said};
    memcpy(event.key, tip, sizeof event.key);
    if (domain->node->telemetry)
        wf_events_add(domain->node->telemetry->events, &event);
}

void wf_telemetry_load(const struct wf_lower *lower, enum wf_load_why why, uint64_t first_ns,
                       uint64_t whole_ns)
{
    struct wf_telemetry *telemetry = lower->below->node->telemetry;
    wf_hist_record(&telemetry->loads[lower->number][why].first_range, first_ns);
    wf_hist_record(&telemetry->loads[lower->number][why].whole, whole_ns);
}

void wf_telemetry_event(struct wf_node *node, const struct wf_domain *domain, const char *kind,
                        const char *format, ...)
{
    if (!node->telemetry)
        return;
    struct wf_event event = {.what = kind, .domain = domain ? domain->id : WF_EVENTS_NODE};
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(event.text, sizeof event.text, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof event.text) { /* cut behind a word, so that it is seen to be cut */
        static const char more[] = " …";
        event.text[sizeof event.text - sizeof more] = '\0';
        char *space = strrchr(event.text, ' ');
        memcpy(space ? space : event.text, more, sizeof more);
    }
    wf_events_add(node->telemetry->events, &event);
}

/* ------------------------------------------------------------------------------ start and stop */

static enum weft_status http_start(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    struct wf_http_handlers handlers = {
        .context = node,
        .metrics_text = metrics_text,
        .status_json = status_json,
        .events_json = events_json,
        .draining = draining,
        .route_json = wf_route_http,
        .private_pages = node->domain_count > 1,
    };
    if (!config->http_address[0])
        return WEFT_OK;
    enum weft_status status = wf_http_start(config->http_address, config->http_port,
                                            config->http_token, &handlers, &node->telemetry->http);
    if (status == WEFT_OK) {
        wf_info("telemetry", "http on %s port %u", config->http_address,
                wf_http_port(node->telemetry->http));
        return WEFT_OK;
    }
    /* A second node on one host meets the default port taken: nobody asked for that port, so it
     * does without. */
    if (status == WEFT_E_SYSTEM && wf_config_is_default(config, "http.listen")) {
        wf_warn("telemetry", "no HTTP: %s", wf_last_error());
        return WEFT_OK;
    }
    return status;
}

enum weft_status wf_telemetry_create(struct wf_node *node)
{
    static const char *const pools[] = {"dram0"};
    const char *domains[WF_DOMAINS_MAX];
    struct wf_telemetry *telemetry = calloc(1, sizeof *telemetry +
                                                   node->domain_count * sizeof telemetry->ages[0]);
    if (!telemetry)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for telemetry");
    for (uint32_t i = 0; i < node->domain_count; i++)
        domains[i] = node->domains[i].config->name;
    enum weft_status status = WEFT_OK;
    if (node->config.lower_count) {
        telemetry->loads = wf_calloc(node->config.lower_count, sizeof telemetry->loads[0],
                                     "histograms of loads");
        status = telemetry->loads ? WEFT_OK : WEFT_E_NO_MEMORY;
    }
    if (status == WEFT_OK)
        status = wf_metrics_create(domains, node->domain_count, pools, 1, &telemetry->metrics);
    if (status == WEFT_OK)
        status = wf_events_create(node->config.events_max, domains, node->domain_count,
                                  &telemetry->events);
    node->telemetry = telemetry;
    if (status == WEFT_OK)
        status = http_start(node);
    if (status != WEFT_OK)
        wf_telemetry_destroy(node);
    return status;
}

void wf_telemetry_destroy(struct wf_node *node)
{
    struct wf_telemetry *telemetry = node->telemetry;
    if (!telemetry)
        return;
    node->telemetry = NULL;
    wf_http_stop(telemetry->http);
    wf_events_destroy(telemetry->events);
    wf_metrics_destroy(telemetry->metrics);
    free(telemetry->loads);
    free(telemetry);
}

/* ------------------------------------------------------------------------------------ the loop */

int wf_telemetry_fd(const struct wf_node *node)
{
    return node->telemetry->http ? wf_http_epoll_fd(node->telemetry->http) : -1;
}

void wf_telemetry_run(struct wf_node *node)
{
    uint64_t now_ns = wf_now_ns();
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_store *store = &node->domains[i].store;
        wf_ages_note(&node->telemetry->ages[i], store->policy_ops->uses(store->policy), now_ns);
    }
    if (node->telemetry->http)
        wf_http_run(node->telemetry->http);
}

int wf_telemetry_wait_ms(const struct wf_node *node, int limit_ms)
{
    int due_ms = node->telemetry->http ? wf_http_timeout_ms(node->telemetry->http) : -1;
    return due_ms >= 0 && due_ms < limit_ms ? due_ms : limit_ms;
}
