/* SPDX-License-Identifier: Apache-2.0
 *
 * The tiers below DRAM as Prometheus text.  Nothing is counted here: movers, directory and loads
 * keep the figures.  Labels are names of tiers, of which there are WF_TIERS_MAX at most.
 */
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "daemon/metrics.h"

#define TIER(member) offsetof(struct wf_tier_gauges, member)

struct figure {
    const char *name, *help;
    size_t offset;
};

static const struct figure gauges_of_tiers[] = {
    {"weft_tier_capacity_bytes", "Size of the tier; 0: without end.", TIER(capacity_bytes)},
    {"weft_tier_used_bytes", "Bytes in use there, with what its format costs.", TIER(used_bytes)},
    {"weft_tier_blocks", "Blocks there.", TIER(blocks)},
    {"weft_tier_archived_bytes", "Payload bytes there that belong to archives.",
     TIER(archived_bytes)},
    {"weft_tier_left_alone_blocks",
     "Blocks there that were not taken up: of domains that this node does not have, or beyond "
     "limits.below.",
     TIER(left_alone)},
    {"weft_tier_foreign_bytes",
     "Payload bytes there of domains that this node does not have, by their secrets.",
     TIER(foreign_bytes)},
    {"weft_tier_queued", "Requests that wait for the tier.", TIER(queued)},
};

static const struct figure measures[] = {
    {"weft_tier_read_latency_us", "Latency of small reads, as measured; 0: not known.",
     TIER(read_latency_us)},
    {"weft_tier_read_mbps", "10^6 bytes a second read while busy, as measured; 0: not known.",
     TIER(read_mbps)},
    {"weft_tier_write_mbps", "10^6 bytes a second written while busy, as measured; 0: not known.",
     TIER(write_mbps)},
    {"weft_tier_write_amplification",
     "Bytes written to the device for each byte of payload; 0: none was written.",
     TIER(write_amplification)},
    {"weft_tier_write_budget_bytes",
     "Bytes that may be written there now, by tiers[].dwpd; below 0: owed.", TIER(budget_bytes)},
    {"weft_tier_write_budget_day_bytes",
     "Bytes of writes that come in a day, by tiers[].dwpd; 0: no limit.", TIER(budget_day_bytes)},
};

static const struct figure counters_of_tiers[] = {
    {"weft_tier_as_is_blocks_total", "Blocks that were written there as they are.",
     TIER(as_is_blocks)},
    {"weft_tier_reads_total", "Reads that the tier did.", TIER(reads)},
    {"weft_tier_read_bytes_total", "Payload bytes read there.", TIER(read_bytes)},
    {"weft_tier_writes_total", "Blocks written there.", TIER(writes)},
    {"weft_tier_write_bytes_total", "Payload bytes written there.", TIER(write_bytes)},
    {"weft_tier_device_write_bytes_total",
     "Bytes written to the device, with headers and what was moved.", TIER(device_write_bytes)},
    {"weft_tier_errors_total", "Requests that the medium failed.", TIER(errors)},
    {"weft_tier_corrupt_total", "Blocks there that were not what their checksums say.",
     TIER(corrupt)},
    {"weft_tier_demoted_total", "Blocks written there from DRAM.", TIER(demoted)},
    {"weft_tier_promoted_total", "Blocks read from there into DRAM: the tier's hits.",
     TIER(promoted)},
    {"weft_tier_moved_total", "Blocks that came there from a tier above.", TIER(moved)},
    {"weft_tier_evicted_total", "Blocks that it let go of to make room.", TIER(evicted)},
    {"weft_tier_lost_total", "Blocks that were not there any more, or not as they were.",
     TIER(lost)},
};

static const void *figure_of(const struct wf_tier_gauges *tier, const struct figure *figure)
{
    return (const char *)tier + figure->offset;
}

static void render_numbers(FILE *out, const struct wf_gauges *gauges, const struct figure *figures,
                           size_t count, const char *type)
{
    for (size_t f = 0; f < count; f++) {
        wf_metrics_head(out, figures[f].name, type, figures[f].help);
        for (uint32_t i = 0; i < gauges->tier_count; i++)
            fprintf(out, "%s{tier=\"%s\"} %" PRIu64 "\n", figures[f].name, gauges->tiers[i].name,
                    *(const uint64_t *)figure_of(&gauges->tiers[i], &figures[f]));
    }
}

static void render_measures(FILE *out, const struct wf_gauges *gauges, const struct figure *figures,
                            size_t count, const char *type)
{
    for (size_t f = 0; f < count; f++) {
        wf_metrics_head(out, figures[f].name, type, figures[f].help);
        for (uint32_t i = 0; i < gauges->tier_count; i++)
            fprintf(out, "%s{tier=\"%s\"} %.12g\n", figures[f].name, gauges->tiers[i].name,
                    *(const double *)figure_of(&gauges->tiers[i], &figures[f]));
    }
}

static void render_state(FILE *out, const struct wf_gauges *gauges)
{
    static const char *const states[] = {"opening", "ok", "stalled", "failed"};
    wf_metrics_head(out, "weft_tier_info", "gauge", "Always 1; what the tier is, in labels.");
    for (uint32_t i = 0; i < gauges->tier_count; i++)
        fprintf(out, "weft_tier_info{tier=\"%s\",kind=\"%s\",emulated=\"%s\",durable=\"%s\"} 1\n",
                gauges->tiers[i].name, gauges->tiers[i].kind,
                gauges->tiers[i].emulated ? "yes" : "no", gauges->tiers[i].durable ? "yes" : "no");
    wf_metrics_head(out, "weft_tier_state", "gauge", "1 for the state that the tier is in.");
    for (uint32_t i = 0; i < gauges->tier_count; i++)
        for (size_t s = 0; s < sizeof states / sizeof states[0]; s++)
            fprintf(out, "weft_tier_state{tier=\"%s\",state=\"%s\"} %d\n", gauges->tiers[i].name,
                    states[s], strcmp(gauges->tiers[i].state, states[s]) == 0);
}

static void render_loads(FILE *out, const struct wf_gauges *gauges, const char *name,
                         const char *help, size_t offset)
{
    static const char *const whys[WF_LOAD_WHYS] = {"waited", "prefetched"};
    char labels[WF_TIER_NAME_MAX + 48];
    wf_metrics_head(out, name, "histogram", help);
    for (uint32_t i = 0; i < gauges->tier_count; i++)
        for (unsigned why = 0; why < WF_LOAD_WHYS; why++) {
            const struct wf_hist *const *hists =
                (const struct wf_hist *const *)(const void *)((const char *)&gauges->tiers[i] +
                                                              offset);
            snprintf(labels, sizeof labels, "tier=\"%s\",why=\"%s\"", gauges->tiers[i].name,
                     whys[why]);
            if (hists[why])
                wf_metrics_duration(out, name, labels, hists[why]);
        }
}

/* What lies there, goes there and comes from there, by what it lost, and so by codec. */

#define OF(member) offsetof(struct wf_tier_gauges, quality[0].member)

static const struct figure coded_gauges[] = {
    {"weft_tier_encoded_blocks", "Blocks that lie there encoded.", OF(encoded)},
    {"weft_tier_encoded_plain_bytes", "Payload bytes of the blocks that lie there encoded.",
     OF(plain_bytes)},
    {"weft_tier_encoded_stored_bytes",
     "Bytes that the blocks which lie there encoded take, without headers.", OF(stored_bytes)},
};

static const struct figure coded_seconds[] = {
    {"weft_tier_encode_seconds_total",
     "Seconds that codec threads encoded what is written there, all together.", OF(encode_seconds)},
    {"weft_tier_decode_seconds_total",
     "Seconds that codec threads decoded what was read there, all together.", OF(decode_seconds)},
};

static const struct figure coded_counters[] = {
    {"weft_tier_encode_bytes_total",
     "Payload bytes that were encoded to be written there, with those that became no smaller.",
     OF(encode_bytes)},
    {"weft_tier_decode_bytes_total", "Payload bytes that were decoded from there.",
     OF(decode_bytes)},
    {"weft_tier_written_blocks_total", "Blocks written there, encoded or not.", OF(written)},
    {"weft_tier_written_payload_bytes_total", "Their payload, before it was encoded.",
     OF(written_bytes)},
    {"weft_tier_loaded_blocks_total", "Blocks read from there into DRAM.", OF(read)},
    {"weft_tier_loaded_payload_bytes_total", "Their payload, as it was decoded.", OF(read_bytes)},
};

static void render_qualities(FILE *out, const struct wf_gauges *gauges,
                             const struct figure *figures, size_t count, const char *type)
{
    size_t each = sizeof gauges->tiers[0].quality[0];
    for (size_t f = 0; f < count; f++) {
        wf_metrics_head(out, figures[f].name, type, figures[f].help);
        for (uint32_t i = 0; i < gauges->tier_count; i++)
            for (unsigned q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++) {
                const void *value = (const char *)figure_of(&gauges->tiers[i], &figures[f]) +
                                    q * each;
                fprintf(out, "%s{tier=\"%s\",codec=\"%s\",quality=\"%s\"} ", figures[f].name,
                        gauges->tiers[i].name, gauges->tiers[i].quality[q].codec,
                        weft_quality_name((enum weft_quality)q));
                if (figures == coded_seconds)
                    fprintf(out, "%.12g\n", *(const double *)value);
                else
                    fprintf(out, "%" PRIu64 "\n", *(const uint64_t *)value);
            }
    }
}

void wf_metrics_render_tiers(FILE *out, const struct wf_gauges *gauges)
{
    if (gauges->tier_count == 0)
        return;
    render_state(out, gauges);
    render_numbers(out, gauges, gauges_of_tiers, sizeof gauges_of_tiers / sizeof gauges_of_tiers[0],
                   "gauge");
    render_measures(out, gauges, measures, sizeof measures / sizeof measures[0], "gauge");
    render_numbers(out, gauges, counters_of_tiers,
                   sizeof counters_of_tiers / sizeof counters_of_tiers[0], "counter");
    render_qualities(out, gauges, coded_gauges, sizeof coded_gauges / sizeof coded_gauges[0],
                     "gauge");
    render_qualities(out, gauges, coded_seconds, sizeof coded_seconds / sizeof coded_seconds[0],
                     "counter");
    render_qualities(out, gauges, coded_counters, sizeof coded_counters / sizeof coded_counters[0],
                     "counter");
    render_loads(out, gauges, "weft_load_first_range_seconds",
                 "From a block's request to the first of it that is readable, by tier.",
                 TIER(first_range));
    render_loads(out, gauges, "weft_load_duration_seconds",
                 "From a block's request until all of it is readable, by tier.", TIER(whole));
}
