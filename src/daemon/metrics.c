/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics.h"
#include "daemon/engines.h"
#include "daemon/fabric.h"
#include "daemon/gateway.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hist.h"
#include "sys/memory.h"

#define POOL_NAME_MAX 31
#define OUTCOMES 19

/* Every status that an operation may end in; what is none of them counts as the last. */
static const enum weft_status outcomes[OUTCOMES] = {
    WEFT_OK,         WEFT_MISS,        WEFT_PENDING,  WEFT_EXISTS,    WEFT_FULL,
    WEFT_E_INVALID,  WEFT_E_NOT_FOUND, WEFT_E_QUOTA,  WEFT_E_DENIED,  WEFT_E_LIMIT,
    WEFT_E_TIMEOUT,  WEFT_E_NO_MEMORY, WEFT_E_BUSY,   WEFT_E_CORRUPT, WEFT_E_PARENT,
    WEFT_E_PROTOCOL, WEFT_E_NODE,      WEFT_E_FORKED, WEFT_E_SYSTEM,
};

struct op_metrics {
    _Atomic uint64_t outcome[OUTCOMES];
    struct wf_hist ns;
};

struct domain_metrics {
    char name[WF_DOMAIN_NAME_MAX + 1];
    _Atomic uint64_t counters[WF_POOLS_MAX][WF_M_COUNT];
    struct op_metrics ops[WF_OP_COUNT];
};

struct wf_metrics {
    uint32_t domain_count, pool_count;
    char pools[WF_POOLS_MAX][POOL_NAME_MAX + 1];
    time_t start_time;
    struct domain_metrics domains[]; /* one more than there are: the last is of no domain */
};

static const char *const op_names[WF_OP_COUNT] = {
    [0] = "unknown",
    [WF_OP_HELLO] = "hello",
    [WF_OP_FORMAT_OPEN] = "format_open",
    [WF_OP_SESSION_OPEN] = "session_open",
    [WF_OP_SESSION_CLOSE] = "session_close",
    [WF_OP_SESSION_HINT] = "session_hint",
    [WF_OP_RESERVE] = "reserve",
    [WF_OP_COMMIT] = "commit",
    [WF_OP_ABORT] = "abort",
    [WF_OP_REMOVE] = "remove",
    [WF_OP_REGION_CREATE] = "region_create",
    [WF_OP_REGION_OPEN] = "region_open",
    [WF_OP_REGION_RELEASE] = "region_release",
    [WF_OP_LEND] = "lend",
    [WF_OP_RECLAIM] = "reclaim",
    [WF_OP_QUERY] = "query",
    [WF_OP_CORRUPT] = "corrupt",
    [WF_OP_LOAD] = "load",
    [WF_OP_DEMOTE] = "demote",
    [WF_OP_ARCHIVE] = "archive",
    [WF_OP_FENCE] = "fence",
    [WF_OP_DESCRIBE] = "describe",
    [WF_OP_FABRIC] = "fabric",
    [WF_OP_ROUTE] = "route",
    [WF_OP_PUSH] = "push",
    [WF_OP_REMOVE_EVERYWHERE] = "remove_everywhere",
};

/* `pooled`: it happens to blocks, so it happens in a pool. */
static const struct {
    const char *name, *help;
    bool pooled;
} counters[WF_M_COUNT] = {
    [WF_M_BLOCKS_PUT] = {"weft_blocks_put_total", "Blocks committed.", true},
    [WF_M_BYTES_PUT] = {"weft_put_bytes_total", "Payload bytes committed.", true},
    [WF_M_BLOCKS_DEDUPLICATED] = {"weft_blocks_deduplicated_total",
                                  "Blocks that a reserve found to exist already.", true},
    [WF_M_BYTES_DEDUPLICATED] = {"weft_deduplicated_bytes_total",
                                 "Payload bytes that were neither sent nor kept again.", true},
    [WF_M_BLOCKS_EVICTED] = {"weft_blocks_evicted_total", "Blocks evicted from DRAM to make room.",
                             true},
    [WF_M_BYTES_EVICTED] = {"weft_evicted_bytes_total", "Payload bytes evicted.", true},
    [WF_M_BLOCKS_REMOVED] = {"weft_blocks_removed_total", "Blocks removed by a client.", true},
    [WF_M_BYTES_REMOVED] = {"weft_removed_bytes_total", "Payload bytes removed by a client.", true},
    [WF_M_BLOCKS_FULL] = {"weft_blocks_full_total", "Blocks for which a reserve had no room.",
                          true},
    [WF_M_BLOCKS_FULL_FOR_WORTH] = {"weft_blocks_full_for_worth_total",
                                    "Of those: what would have had to go was worth more.", true},
    [WF_M_CHECKSUM_FAILURES] = {"weft_checksum_failures_total",
                                "Blocks whose bytes did not match their checksum.", true},
    [WF_M_BLOCKS_DROPPED] = {"weft_blocks_dropped_total",
                             "Blocks dropped because they, or what they extend, were corrupt.",
                             true},
    [WF_M_BYTES_DROPPED] = {"weft_dropped_bytes_total", "Payload bytes dropped as corrupt.", true},
    [WF_M_PINS] = {"weft_pins_total", "Pins taken, as clients report.", false},
    [WF_M_PIN_MISSES] = {"weft_pin_misses_total", "Pins that missed, as clients report.", false},
    [WF_M_BYTES_PINNED] = {"weft_pinned_bytes_total", "Payload bytes pinned, as clients report.",
                           false},
    [WF_M_MATCHES] = {"weft_matches_total", "Chains matched, as clients report.", false},
    [WF_M_BLOCKS_ASKED] = {"weft_blocks_asked_total", "Blocks that matches asked for.", false},
    [WF_M_BLOCKS_MATCHED] = {"weft_blocks_matched_total",
                             "Blocks that matches asked for and that were there.", false},
    [WF_M_BLOCKS_MATCHED_BELOW] = {"weft_blocks_matched_below_total",
                                   "Those of them that were on a tier below DRAM.", false},
    [WF_M_BLOCKS_LEFT_DRAM] = {"weft_blocks_left_dram_total",
                               "Blocks that left DRAM while a tier below it had them.", false},
    [WF_M_BLOCKS_PROMOTED] = {"weft_blocks_promoted_total",
                              "Blocks read from a tier below into DRAM.", false},
    [WF_M_BYTES_PROMOTED] = {"weft_promoted_bytes_total",
                             "Payload bytes read from a tier below into DRAM.", false},
    [WF_M_LOADS_LOST] = {"weft_loads_lost_total",
                         "Blocks whose reading from below was begun and came to nothing.", false},
    [WF_M_BLOCKS_HIDDEN] = {"weft_blocks_hidden_total",
                            "Blocks written below that matches do not see, for their place in the "
                            "far table was full.",
                            false},
    [WF_M_PROTOCOL_ERRORS] = {"weft_protocol_errors_total", "Messages that broke the protocol.",
                              false},
};

enum weft_status wf_metrics_create(const char *const *domains, uint32_t domain_count,
                                   const char *const *pools, uint32_t pool_count,
                                   struct wf_metrics **out)
{
    if (domain_count > WF_DOMAINS_MAX || pool_count == 0 || pool_count > WF_POOLS_MAX)
        return wf_fail(
            WEFT_E_LIMIT,
            "metrics for %u domains and %u pools; at most %d and %d, and one pool at least",
            domain_count, pool_count, WF_DOMAINS_MAX, WF_POOLS_MAX);
    struct wf_metrics *metrics =
        wf_calloc(1, sizeof *metrics + (domain_count + 1) * sizeof metrics->domains[0], "metrics");
    if (!metrics)
        return WEFT_E_NO_MEMORY;
    metrics->domain_count = domain_count;
    metrics->pool_count = pool_count;
    metrics->start_time = time(NULL);
    for (uint32_t i = 0; i < domain_count; i++)
        snprintf(metrics->domains[i].name, sizeof metrics->domains[i].name, "%s", domains[i]);
    for (uint32_t i = 0; i < pool_count; i++)
        snprintf(metrics->pools[i], sizeof metrics->pools[i], "%s", pools[i]);
    *out = metrics;
    return WEFT_OK;
}

void wf_metrics_destroy(struct wf_metrics *metrics)
{
    free(metrics);
}

static uint32_t slot_of(const struct wf_metrics *metrics, uint32_t domain)
{
    assert(domain == WF_NO_DOMAIN || domain < metrics->domain_count);
    return domain == WF_NO_DOMAIN ? metrics->domain_count : domain;
}

static unsigned outcome_of(enum weft_status status)
{
    unsigned i = 0;
    while (i + 1 < OUTCOMES && outcomes[i] != status)
        i++;
    return i;
}

void wf_metrics_op(struct wf_metrics *metrics, uint32_t domain, enum wf_op op,
                   enum weft_status status, uint64_t ns)
{
    assert(op < WF_OP_COUNT);
    struct op_metrics *counted = &metrics->domains[slot_of(metrics, domain)].ops[op];
    atomic_fetch_add_explicit(&counted->outcome[outcome_of(status)], 1, memory_order_relaxed);
    if (op) /* how long nonsense took says nothing */
        wf_hist_record(&counted->ns, ns);
}

void wf_metrics_add_in(struct wf_metrics *metrics, uint32_t domain, uint32_t pool,
                       enum wf_metric metric, uint64_t n)
{
    assert(metric < WF_M_COUNT && pool < metrics->pool_count);
    atomic_fetch_add_explicit(&metrics->domains[slot_of(metrics, domain)].counters[pool][metric], n,
                              memory_order_relaxed);
}

void wf_metrics_set(struct wf_metrics *metrics, uint32_t domain, enum wf_metric metric,
                    uint64_t total)
{
    _Atomic uint64_t *counter = &metrics->domains[slot_of(metrics, domain)].counters[0][metric];
    if (atomic_load_explicit(counter, memory_order_relaxed) < total)
        atomic_store_explicit(counter, total, memory_order_relaxed);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

uint64_t wf_metrics_total(const struct wf_metrics *metrics, uint32_t domain, enum wf_metric metric)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i <= metrics->domain_count; i++)
        for (uint32_t pool = 0; pool < metrics->pool_count; pool++)
            if (domain == WF_NO_DOMAIN || domain == i)
                total += load(&metrics->domains[i].counters[pool][metric]);
    return total;
}

uint64_t wf_metrics_op_total(const struct wf_metrics *metrics, uint32_t domain, enum wf_op op)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i <= metrics->domain_count; i++)
        if (domain == WF_NO_DOMAIN || domain == i)
            total += wf_hist_count(&metrics->domains[i].ops[op].ns);
    return total;
}

uint64_t wf_metrics_op_quantile_ns(const struct wf_metrics *metrics, uint32_t domain, enum wf_op op,
                                   double q)
{
    if (domain != WF_NO_DOMAIN)
        return wf_hist_quantile(&metrics->domains[slot_of(metrics, domain)].ops[op].ns, q);
    struct wf_hist all = {0};
    for (uint32_t i = 0; i <= metrics->domain_count; i++)
        wf_hist_merge(&all, &metrics->domains[i].ops[op].ns);
    return wf_hist_quantile(&all, q);
}

const char *wf_op_name(enum wf_op op)
{
    return op < WF_OP_COUNT ? op_names[op] : "unknown";
}

/* ---------------------------------------------------------------------------------- exposition */

void wf_metrics_head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The slot of no domain is rendered only where it counted something. */
static bool is_idle(const struct wf_metrics *metrics, uint32_t slot, uint64_t value)
{
    return slot == metrics->domain_count && value == 0;
}

static void render_counters(FILE *out, const struct wf_metrics *metrics)
{
    for (unsigned m = 0; m < WF_M_COUNT; m++) {
        wf_metrics_head(out, counters[m].name, "counter", counters[m].help);
        for (uint32_t slot = 0; slot <= metrics->domain_count; slot++) {
            const struct domain_metrics *domain = &metrics->domains[slot];
            for (uint32_t pool = 0; pool < (counters[m].pooled ? metrics->pool_count : 1); pool++) {
                uint64_t value = load(&domain->counters[pool][m]);
                if (is_idle(metrics, slot, value))
                    continue;
                fprintf(out, "%s{domain=\"%s\"", counters[m].name, domain->name);
                if (counters[m].pooled)
                    fprintf(out, ",pool=\"%s\"", metrics->pools[pool]);
                fprintf(out, "} %" PRIu64 "\n", value);
            }
        }
    }
}

/* WEFT_E_NOT_FOUND → "not_found" */
static const char *outcome_name(enum weft_status status, char *out, size_t capacity)
{
    const char *name = weft_status_name(status) + strlen("WEFT_");
    if (strncmp(name, "E_", 2) == 0)
        name += 2;
    size_t i = 0;
    for (; name[i] && i + 1 < capacity; i++)
        out[i] = (char)tolower((unsigned char)name[i]);
    out[i] = '\0';
    return out;
}

static void render_outcomes(FILE *out, const struct wf_metrics *metrics)
{
    char name[32];
    wf_metrics_head(out, "weft_operations_total", "counter",
                    "Operations asked of the node, by how they ended.");
    for (uint32_t slot = 0; slot <= metrics->domain_count; slot++)
        for (unsigned op = 0; op < WF_OP_COUNT; op++)
            for (unsigned i = 0; i < OUTCOMES; i++) {
                const struct domain_metrics *domain = &metrics->domains[slot];
                uint64_t value = load(&domain->ops[op].outcome[i]);
                /* "ok" is always there, so that a rate has a series to start from; the rest when it
                 * happens. */
                if (value || (outcomes[i] == WEFT_OK && op && slot < metrics->domain_count))
                    fprintf(out,
                            "weft_operations_total{domain=\"%s\",op=\"%s\",outcome=\"%s\"} %" PRIu64
                            "\n",
                            domain->name, op_names[op],
                            outcome_name(outcomes[i], name, sizeof name), value);
            }
}

/* Bounds of 2^10, 2^12 … 2^34 ns (1 µs to 17 s): powers of two, because there the counts are exact.
 */
#define BOUND_BITS_FIRST 10
#define BOUND_BITS_LAST 34
#define BOUND_BITS_STEP 2

void wf_metrics_duration(FILE *out, const char *name, const char *labels, const struct wf_hist *ns)
{
    uint64_t below = 0;
    for (unsigned bits = BOUND_BITS_FIRST; bits <= BOUND_BITS_LAST; bits += BOUND_BITS_STEP) {
        uint64_t count = wf_hist_count_below(ns, bits);
        below = count > below ? count
                              : below; /* workers may have recorded since the bound before */
        fprintf(out, "%s_bucket{%s,le=\"%.12g\"} %" PRIu64 "\n", name, labels,
                (double)(1ULL << bits) / 1e9, below);
    }
    uint64_t count = wf_hist_count(ns);
    count = count > below ? count : below;
    fprintf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels, count);
    fprintf(out, "%s_sum{%s} %.9f\n", name, labels, (double)wf_hist_sum(ns) / 1e9);
    fprintf(out, "%s_count{%s} %" PRIu64 "\n", name, labels, count);
}

static void render_durations(FILE *out, const struct wf_metrics *metrics)
{
    char labels[WF_DOMAIN_NAME_MAX + 64];
    wf_metrics_head(out, "weft_operation_duration_seconds", "histogram",
                    "Time from an operation's last byte in to its first byte out.");
    for (uint32_t slot = 0; slot <= metrics->domain_count; slot++)
        for (unsigned op = 0; op < WF_OP_COUNT; op++) {
            const struct wf_hist *ns = &metrics->domains[slot].ops[op].ns;
            if (!op || is_idle(metrics, slot, wf_hist_count(ns)))
                continue;
            snprintf(labels, sizeof labels, "domain=\"%s\",op=\"%s\"", metrics->domains[slot].name,
                     op_names[op]);
            wf_metrics_duration(out, "weft_operation_duration_seconds", labels, ns);
        }
}

#define DOMAIN_GAUGE(member) offsetof(struct wf_domain_gauges, member)
#define POOL_GAUGE(member) offsetof(struct wf_pool_gauges, member)

struct gauge {
    const char *name, *help;
    size_t offset;
};

static const struct gauge domain_gauges[] = {
    {"weft_clients", "Clients attached.", DOMAIN_GAUGE(clients)},
    {"weft_blocks", "Blocks held.", DOMAIN_GAUGE(blocks)},
    {"weft_block_bytes", "Payload bytes of the blocks held.", DOMAIN_GAUGE(block_bytes)},
    {"weft_blocks_reserved", "Blocks reserved and not yet committed.",
     DOMAIN_GAUGE(reserved_blocks)},
    {"weft_formats", "Formats open.", DOMAIN_GAUGE(formats)},
    {"weft_regions", "Regions allocated.", DOMAIN_GAUGE(regions)},
    {"weft_region_bytes", "Bytes of the regions allocated.", DOMAIN_GAUGE(region_bytes)},
    {"weft_quota_bytes", "Bytes that the domain may hold.", DOMAIN_GAUGE(quota_bytes)},
    {"weft_due_bytes", "Bytes of the pool that it is due when all domains want more.",
     DOMAIN_GAUGE(due_bytes)},
    {"weft_floor_bytes", "Bytes of the pool that no other domain takes from it.",
     DOMAIN_GAUGE(floor_bytes)},
    {"weft_lent_bytes", "Bytes that it holds beyond its due, until others want them.",
     DOMAIN_GAUGE(lent_bytes)},
    {"weft_archive_count", "Archives kept.", DOMAIN_GAUGE(archives)},
    {"weft_archive_bytes", "Payload bytes of the archives kept; what two share counts twice.",
     DOMAIN_GAUGE(archive_bytes)},
    {"weft_archive_not_whole",
     "Archives of which some is not there now: a tier is failed or still opening, or it is lost.",
     DOMAIN_GAUGE(archives_not_whole)},
};

static const struct gauge pool_gauges[] = {
    {"weft_pool_bytes", "Size of the pool.", POOL_GAUGE(total_bytes)},
    {"weft_pool_used_bytes", "Bytes in use, with what alignment costs.", POOL_GAUGE(used_bytes)},
    {"weft_pool_free_bytes", "Bytes free.", POOL_GAUGE(free_bytes)},
    {"weft_pool_largest_free_bytes", "Longest free range.", POOL_GAUGE(largest_free_bytes)},
    {"weft_pool_lent_bytes", "Bytes of the pool that were lent to it.", POOL_GAUGE(lent_bytes)},
};

static uint64_t gauge_value(const void *base, const struct gauge *gauge)
{
    return *(const uint64_t *)((const char *)base + gauge->offset);
}

/* Why blocks that left DRAM are on no tier. */
static void render_not_below(FILE *out, const struct wf_metrics *metrics,
                             const struct wf_gauges *gauges)
{
    wf_metrics_head(out, "weft_blocks_not_below_total", "counter",
                    "Blocks that left DRAM and that no tier took, by the rule.");
    for (uint32_t i = 0; i < metrics->domain_count; i++)
        for (unsigned k = 0; k < WF_REASONS_MAX && gauges->domains[i].not_below[k].name; k++)
            fprintf(out, "weft_blocks_not_below_total{domain=\"%s\",rule=\"%s\"} %" PRIu64 "\n",
                    metrics->domains[i].name, gauges->domains[i].not_below[k].name,
                    gauges->domains[i].not_below[k].count);
}

static void render_gauges(FILE *out, const struct wf_metrics *metrics,
                          const struct wf_gauges *gauges)
{
    static const char *const states[WF_SESSION_STATES] = {"prefill", "decoding", "idle", "waiting",
                                                          "done"};
    for (size_t g = 0; g < sizeof domain_gauges / sizeof domain_gauges[0]; g++) {
        wf_metrics_head(out, domain_gauges[g].name, "gauge", domain_gauges[g].help);
        for (uint32_t i = 0; i < metrics->domain_count; i++)
            fprintf(out, "%s{domain=\"%s\"} %" PRIu64 "\n", domain_gauges[g].name,
                    metrics->domains[i].name, gauge_value(&gauges->domains[i], &domain_gauges[g]));
    }
    wf_metrics_head(out, "weft_sessions", "gauge", "Sessions open, by state.");
    for (uint32_t i = 0; i < metrics->domain_count; i++)
        for (unsigned state = 0; state < WF_SESSION_STATES; state++)
            fprintf(out, "weft_sessions{domain=\"%s\",state=\"%s\"} %" PRIu64 "\n",
                    metrics->domains[i].name, states[state], gauges->domains[i].sessions[state]);
    for (size_t g = 0; g < sizeof pool_gauges / sizeof pool_gauges[0]; g++) {
        wf_metrics_head(out, pool_gauges[g].name, "gauge", pool_gauges[g].help);
        for (uint32_t i = 0; i < metrics->pool_count; i++)
            fprintf(out, "%s{pool=\"%s\"} %" PRIu64 "\n", pool_gauges[g].name, metrics->pools[i],
                    gauge_value(&gauges->pools[i], &pool_gauges[g]));
    }
    wf_metrics_head(out, "weft_clients_unknown", "gauge",
                    "Connections that have not attached to a domain yet.");
    fprintf(out, "weft_clients_unknown %" PRIu64 "\n", gauges->clients_unknown);
    wf_metrics_head(out, "weft_draining", "gauge",
                    "1 while the node lets its clients finish before it stops.");
    fprintf(out, "weft_draining %" PRIu64 "\n", gauges->draining);
    wf_metrics_head(out, "weft_archive_in_progress", "gauge", "Archives that are being made.");
    fprintf(out, "weft_archive_in_progress %" PRIu64 "\n", gauges->archives_made);
    wf_metrics_head(out, "weft_archive_lost_total", "counter",
                    "Times that an archive was found not to be whole, or its manifest not to be "
                    "readable.");
    fprintf(out, "weft_archive_lost_total %" PRIu64 "\n", gauges->archives_lost);
}

char *wf_metrics_render(const struct wf_metrics *metrics,
                        void (*fill)(void *context, struct wf_gauges *gauges), void *context)
{
    char *text = NULL;
    size_t length = 0;
    struct wf_gauges *gauges = wf_calloc(1, sizeof *gauges, "gauges");
    FILE *out = gauges ? open_memstream(&text, &length) : NULL;
    if (out) {
        if (fill)
            fill(context, gauges);
        wf_metrics_head(out, "weft_build_info", "gauge", "Always 1; the version is in the label.");
        fprintf(out, "weft_build_info{version=\"%s\"} 1\n", WF_VERSION);
        wf_metrics_head(out, "weft_start_time_seconds", "gauge",
                        "When this node started, in seconds since 1970.");
        fprintf(out, "weft_start_time_seconds %lld\n", (long long)metrics->start_time);
        render_gauges(out, metrics, gauges);
        wf_metrics_render_tiers(out, gauges);
        if (gauges->tier_count)
            render_not_below(out, metrics, gauges);
        if (gauges->has_fabric)
            wf_node_fabric_render(out, &gauges->fabric, gauges->fabric_peers,
                                  gauges->fabric_peer_count);
        if (gauges->has_resp)
            wf_gateway_render(out, &gauges->resp);
        if (gauges->has_events)
            wf_gateway_events_render(out, &gauges->events);
        wf_engines_render(out, &gauges->engines);
        render_counters(out, metrics);
        render_outcomes(out, metrics);
        render_durations(out, metrics);
        if (fclose(out) != 0) {
            free(text);
            text = NULL;
        }
    }
    free(gauges);
    return text;
}
