/* SPDX-License-Identifier: Apache-2.0
 *
 * QUERY "tiers" and "below": what lies below the pool, and where.
 *
 * "tiers" is the pool and what lies below it, with what was measured there, nearest first; the pool
 * is always the first, because what is used is used there.  For the node's own user alone: the
 * figures are sums over all domains.
 *
 * "below" is a domain's own blocks on tiers.  "below tier=NAME" is those on one of them, and
 * "below key=DIGITS" those whose keys begin so.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/below.h"
#include "daemon/query.h"
#include "fabric/fabric.h"
#include "tier/cxl.h"

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
    bool budget; /* it has one of writes: tiers[].dwpd */
    double budget_bytes, budget_day_bytes;
    uint64_t capacity_bytes, used_bytes, blocks, reads, read_bytes, writes, write_bytes, errors,
        corrupt, queued, device_write_bytes, archived_bytes, left_alone, foreign_bytes,
        reserve_bytes;
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
        {"left_alone", number(row->left_alone)},
        {"foreign_bytes", number(row->foreign_bytes)},
        {"reserve_bytes", number(row->reserve_bytes)},
        {"write_budget_bytes",
         row->budget ? json_integer((json_int_t)row->budget_bytes) : json_null()},
        {"write_budget_day_bytes",
         row->budget ? json_integer((json_int_t)row->budget_day_bytes) : json_null()},
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

/* Of blocks that lie there encoded; rates are a thread's. */
static void coded_json(json_t *out, const struct wf_coded_sum *sum)
{
    const struct {
        const char *name;
        json_t *value;
    } members[] = {
        {"blocks", number(sum->blocks)},
        {"plain_bytes", number(sum->plain_bytes)},
        {"stored_bytes", number(sum->stored_bytes)},
        {"ratio",
         measured((double)sum->plain_bytes / (double)(sum->stored_bytes ? sum->stored_bytes : 1))},
        {"encode_mbps",
         measured(sum->encode_ns ? (double)sum->tried_bytes / (double)sum->encode_ns * 1e3 : 0)},
        {"decode_mbps",
         measured(sum->decode_ns ? (double)sum->decoded_bytes / (double)sum->decode_ns * 1e3 : 0)},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        json_object_set_new(out, members[i].name, members[i].value);
}

/* How blocks lie there: all of them, and those of each quality. */
static json_t *codec_json(const struct wf_lower *lower)
{
    const struct wf_coded_stats *coded = &lower->stats.tier.coded;
    const struct wf_coding *coding = &lower->coding;
    json_t *out = json_object(), *qualities = json_object();
    for (unsigned q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++) {
        const struct wf_passed *written = &lower->written[q], *read = &lower->read[q];
        enum weft_quality quality = (enum weft_quality)q;
        json_t *one = json_pack("{s:s, s:I, s:I, s:I, s:I}", "codec",
                                wf_coding_codec(quality)->name, "written",
                                (json_int_t)written->blocks, "written_bytes",
                                (json_int_t)written->bytes, "read", (json_int_t)read->blocks,
                                "read_bytes", (json_int_t)read->bytes);
        coded_json(one, &coded->quality[q]);
        json_object_set_new(qualities, weft_quality_name(quality), one);
    }
    json_object_set_new(out, "name", text(coding->on ? coding->options.codec->name : "none"));
    json_object_set_new(out, "why", text(coding->why));
    json_object_set_new(out, "lossy",
                        text(wf_coding_lossy(lower) ? wf_coding_codec(WEFT_ECONOMY)->name
                                                    : "none"));
    coded_json(out, &coded->all);
    json_object_set_new(out, "written_encoded", number(coded->all.encoded));
    json_object_set_new(out, "written_as_is", number(coded->as_is));
    json_object_set_new(out, "qualities", qualities);
    return out;
}

static json_t *lower_json(struct wf_lower *lower)
{
    const struct wf_mover_stats *stats = &lower->stats;
    const struct wf_tier_stats *tier = &stats->tier;
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    struct row row = {.name = lower->config->name,
                      .kind = lower->kind_name,
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
                      .archived_bytes = sum.archived_bytes,
                      .left_alone = lower->left_alone,
                      .foreign_bytes = lower->foreign_bytes,
                      .reserve_bytes = tier->capacity_bytes
                                           ? tier->capacity_bytes - wf_lower_most_bytes(lower)
                                           : 0};
    row.budget = wf_lower_budget(lower, &row.budget_bytes, &row.budget_day_bytes);
    json_t *out = row_json(&row);
    json_object_set_new(out, "codec", codec_json(lower));
    return out;
}

/* Of a tier that hosts share: which they are. */
static json_t *hosts_json(struct wf_lower *others)
{
    static struct wf_tier_host hosts[WF_TIER_HOSTS_MAX];
    uint32_t count = wf_mover_hosts(others->mover, hosts, WF_TIER_HOSTS_MAX);
    json_t *rows = json_array();
    for (uint32_t i = 0; i < count; i++) {
        const struct wf_tier_host *h = &hosts[i];
        bool self = h->host == others->own->config->host;
        json_array_append_new(rows, json_pack("{s:I, s:b, s:s, s:I, s:I, s:I, s:I}", "host",
                                              (json_int_t)h->host, "self", self, "state",
                                              h->fenced ? "fenced"
                                              : h->here ? "here"
                                                        : "left",
                                              "silent_ms", (json_int_t)h->silent_ms, "session",
                                              (json_int_t)h->session, "extents",
                                              (json_int_t)h->extents, "bytes",
                                              (json_int_t)(h->extents * WF_TIER_CXL_EXTENT_BYTES)));
    }
    return rows;
}

char *wf_query_tiers(struct wf_node *node)
{
    json_t *rows = json_array();
    json_array_append_new(rows, dram_json(node));
    for (uint32_t i = 0; node->below && i < node->below->count; i++) {
        struct wf_lower *lower = &node->below->tiers[node->below->order[i]];
        wf_mover_stats(lower->mover, &lower->stats);
        json_t *row = lower_json(lower);
        if (lower->own)
            json_object_set_new(row, "hosts", hosts_json(lower));
        json_array_append_new(rows, row);
    }
    json_t *out = json_pack("{s:o, s:i}", "tiers", rows, "next", 0);
    char *answer = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    return answer;
}

/* --------------------------------------------------------------------------------------- below */

#define LOOKS (1u << 16) /* entries that one request looks at */

struct filter {
    uint8_t tiers;
    char digits[65]; /* a key begins so */
};

static bool filter_word(const struct wf_below *below, char *word, struct filter *out)
{
    if (strncmp(word, "key=", 4) == 0) {
        const char *digits = word + 4;
        size_t length = strlen(digits);
        if (length == 0 || length > 64 || strspn(digits, "0123456789abcdef") != length)
            return false;
        memcpy(out->digits, digits, length + 1);
        return true;
    }
    if (strncmp(word, "tier=", 5) != 0)
        return false;
    out->tiers = 0;
    for (uint32_t i = 0; below && i < below->count; i++)
        if (strcmp(below->tiers[i].config->name, word + 5) == 0)
            out->tiers = (uint8_t)(1u << i);
    return out->tiers != 0;
}

static bool filter_read(const struct wf_below *below, const char *words, struct filter *out)
{
    char copy[128], *rest = NULL;
    *out = (struct filter){.tiers = UINT8_MAX};
    if (strlen(words) >= sizeof copy)
        return false;
    memcpy(copy, words, strlen(words) + 1);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        if (!filter_word(below, word, out))
            return false;
    return true;
}

static json_t *below_row(const struct wf_below *below, const struct wf_directory_block *block,
                         const char *key)
{
    json_t *tiers = json_array();
    enum weft_quality nearest_has = WEFT_LOSSLESS;
    for (uint32_t i = below->count; i-- > 0;)
        if (block->tiers >> below->order[i] & 1) {
            nearest_has = wf_directory_quality(block, below->order[i]);
            json_array_insert_new(tiers, 0, text(below->tiers[below->order[i]].config->name));
        }
    json_t *row = json_pack("{s:s, s:I, s:I, s:o, s:b, s:b, s:s}", "key", key, "bytes",
                            (json_int_t)block->bytes, "depth", (json_int_t)block->depth, "tiers",
                            tiers, "in_dram", block->in_dram, "archived", block->archives > 0,
                            "quality", weft_quality_name(nearest_has));
    if (block->tiers && !block->fit) {
        unsigned nearest = (unsigned)__builtin_ctz(block->tiers);
        enum weft_quality quality = wf_directory_quality(block, nearest);
        json_object_set_new(row, "too_lossy", text(weft_quality_name(quality)));
    }
    return row;
}

/* Which other nodes have it, in their pools, in what they lend or below, as far as is known. */
static json_t *nodes_json(const struct wf_node *node, const uint8_t key[32])
{
    char names[WF_FABRIC_HOLDERS_MAX][WF_MEMBER_NAME_MAX + 1];
    uint32_t count = wf_fabric_holders(node->fabric, key, names, WF_FABRIC_HOLDERS_MAX);
    json_t *out = json_array();
    for (uint32_t i = 0; i < count; i++)
        json_array_append_new(out, text(names[i]));
    return out;
}

/* Into the page, if it is asked for; false: the page is full. */
static bool below_take(const struct wf_domain *domain, uint32_t entry, const struct filter *filter,
                       json_t *rows, size_t *room)
{
    const struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    char key[65];
    wf_directory_read(below->directory, entry, &block);
    wf_query_hex(block.key, sizeof block.key, key);
    if (block.domain != domain->id || !(block.tiers & filter->tiers) ||
        strncmp(key, filter->digits, strlen(filter->digits)) != 0)
        return true;
    json_t *row = below_row(below, &block, key);
    if (domain->node->fabric && filter->digits[0])
        json_object_set_new(row, "nodes", nodes_json(domain->node, block.key));
    return wf_query_row(rows, room, row);
}

/* The entry of a whole key, as hex digits. */
static uint32_t below_find(const struct wf_below *below, const char *digits)
{
    uint8_t key[32];
    for (size_t i = 0; i < sizeof key; i++) {
        char byte[3] = {digits[2 * i], digits[2 * i + 1], 0};
        key[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return wf_directory_find(below->directory, key);
}

char *wf_query_below(const struct wf_domain *domain, const char *words, uint64_t cursor,
                     enum weft_status *out_status)
{
    const struct wf_below *below = domain->node->below;
    struct filter filter;
    uint32_t at = cursor < UINT32_MAX ? (uint32_t)cursor : 0, looks = LOOKS;
    if (!filter_read(below, words, &filter)) {
        /* Words that it knows, and a tier that it does not. */
        *out_status = strstr(words, "tier=") ? WEFT_E_NOT_FOUND : WEFT_E_INVALID;
        return NULL;
    }
    json_t *rows = json_array();
    size_t room = WF_PAGE_BYTES;
    bool whole = strlen(filter.digits) == 64;
    if (below && whole) {
        uint32_t entry = below_find(below, filter.digits);
        if (entry != WF_DIRECTORY_NONE)
            below_take(domain, entry, &filter, rows, &room);
        at = 0;
    }
    while (below && !whole && json_array_size(rows) < WF_PAGE_ROWS) {
        uint32_t from = at;
        uint32_t entry = wf_directory_scan(below->directory, filter.tiers, (uint16_t)domain->id,
                                           looks, &at);
        if (entry == WF_DIRECTORY_NONE)
            break;
        if (!below_take(domain, entry, &filter, rows, &room)) {
            at = from;
            break;
        }
        looks -= at - from; /* it looked at no more than it was allowed */
    }
    return wf_query_page("below", rows, below ? at : 0);
}
