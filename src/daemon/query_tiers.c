/* SPDX-License-Identifier: Apache-2.0
 *
 * QUERY "tiers": the pool and what lies below it, with what was measured there, nearest first.
 *
 * The pool is always the first: what is used is used there.  For the node's own user alone, because
 * the figures are sums over all domains.
 */
#include <jansson.h>
#include <stdlib.h>

#include "daemon/below.h"
#include "daemon/node.h"

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* Not measured: 0. */
static json_t *measured(double value)
{
    return json_real(value > 0 ? value : 0);
}

/* Paths and the kernel's sentences may be no UTF-8. */
static json_t *text(const char *words)
{
    json_t *out = json_string(words);
    return out ? out : json_string("(not UTF-8)");
}

/* The schema of a row, whatever it is of. */
struct row {
    const char *name, *kind, *path, *state, *reason;
    bool emulated, durable;
    double read_latency_us, read_mbps, write_mbps;
    uint64_t capacity_bytes, used_bytes, blocks, reads, read_bytes, writes, write_bytes, errors,
        corrupt, queued, device_write_bytes, archived_bytes;
};

static json_t *row_json(const struct row *row)
{
    const struct {
        const char *name;
        json_t *value;
    } members[] = {
        {"name", text(row->name)},
        {"kind", text(row->kind)},
        {"path", row->path ? text(row->path) : json_null()},
        {"state", text(row->state)},
        {"emulated", json_boolean(row->emulated)},
        {"durable", json_boolean(row->durable)},
        {"capacity_bytes", number(row->capacity_bytes)},
        {"used_bytes", number(row->used_bytes)},
        {"blocks", number(row->blocks)},
        {"read_latency_us", measured(row->read_latency_us)},
        {"read_mbps", measured(row->read_mbps)},
        {"write_mbps", measured(row->write_mbps)},
        {"reads", number(row->reads)},
        {"read_bytes", number(row->read_bytes)},
        {"writes", number(row->writes)},
        {"write_bytes", number(row->write_bytes)},
        {"errors", number(row->errors)},
        {"corrupt", number(row->corrupt)},
        {"queued", number(row->queued)},
        {"device_write_bytes", number(row->device_write_bytes)},
        {"archived_bytes", number(row->archived_bytes)},
        {"reason", text(row->reason)},
    };
    json_t *out = json_object();
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        json_object_set_new(out, members[i].name, members[i].value);
    return out;
}

static json_t *dram_json(const struct wf_node *node)
{
    struct row row = {.name = "dram0",
                      .kind = "dram",
                      .state = "ok",
                      .reason = "",
                      .read_latency_us = node->dram.read_latency_us,
                      .read_mbps = node->dram.read_mbps,
                      .write_mbps = node->dram.write_mbps,
                      .capacity_bytes = node->pool_bytes,
                      .used_bytes = node->region_bytes};
    for (uint32_t i = 0; i < node->domain_count; i++) {
        const struct wf_domain *domain = &node->domains[i];
        struct wf_use use = wf_node_use(domain);
        row.used_bytes += domain->store.used_bytes;
        row.blocks += domain->store.blocks;
        row.reads += use.pins;
        row.read_bytes += use.bytes_pinned;
        row.writes += domain->puts + domain->promoted;
        row.write_bytes += domain->put_bytes + domain->promoted_bytes;
        row.corrupt += domain->corrupt;
    }
    row.device_write_bytes = row.write_bytes;
    return row_json(&row);
}

const char *wf_tier_kind_name(enum weft_tier kind)
{
    switch (kind) {
    case WEFT_TIER_DRAM: return "dram";
    case WEFT_TIER_CXL: return "cxl";
    case WEFT_TIER_NVME: return "nvme";
    case WEFT_TIER_S3: return "s3";
    }
    return "unknown";
}

static json_t *lower_json(const struct wf_lower *lower)
{
    const struct wf_mover_stats *stats = &lower->stats;
    const struct wf_tier_stats *tier = &stats->tier;
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    struct row row = {.name = lower->config->name,
                      .kind = wf_tier_kind_name(lower->kind),
                      .path = lower->path,
                      .state = wf_mover_state_name(stats->state),
                      .reason = stats->reason,
                      .emulated = lower->emulated,
                      .durable = lower->durable,
                      .read_latency_us = stats->read_latency_us,
                      .read_mbps = stats->read_mbps,
                      .write_mbps = stats->write_mbps,
                      .capacity_bytes = tier->capacity_bytes,
                      .used_bytes = tier->used_bytes,
                      .blocks = sum.blocks,
                      .reads = tier->reads,
                      .read_bytes = tier->read_bytes,
                      .writes = tier->writes,
                      .write_bytes = tier->write_bytes,
                      .errors = tier->errors,
                      .corrupt = tier->corrupt,
                      .queued = stats->queued,
                      .device_write_bytes = tier->device_write_bytes,
                      .archived_bytes = sum.archived_bytes};
    return row_json(&row);
}

char *wf_query_tiers(struct wf_node *node)
{
    json_t *rows = json_array();
    json_array_append_new(rows, dram_json(node));
    for (uint32_t i = 0; node->below && i < node->below->count; i++) {
        struct wf_lower *lower = &node->below->tiers[node->below->order[i]];
        wf_mover_stats(lower->mover, &lower->stats);
        json_array_append_new(rows, lower_json(lower));
    }
    json_t *out = json_pack("{s:o, s:i}", "tiers", rows, "next", 0);
    char *answer = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return answer;
}
