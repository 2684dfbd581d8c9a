/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events, as the node has them: what the configuration asks for, and figures.
 */
#include <stddef.h>

#include "base/log.h"
#include "daemon/described.h"
#include "daemon/engines.h"
#include "daemon/gateway.h"
#include "daemon/metrics.h"
#include "daemon/telemetry.h"

#define AT(member) offsetof(struct wf_gateway_events, member)
static const struct {
    const char *name, *help;
    size_t at;
    bool counter;
} figures[] = {
    {"described", "Blocks that clients said what they stand for.", AT(described.blocks), false},
    {"described_bytes", "Memory that these take.", AT(described.bytes), false},
    {"held", "Of these, blocks without tokens, which are not told of.", AT(described.held), false},
    {"filled", "Blocks described without tokens that an engine told the tokens of.",
     AT(described.filled), true},
    {"subscriptions", "Topics of ours that somebody subscribed to.", AT(out.topics), false},
    {"queued", "Events that wait to be published.", AT(out.queued), false},
    {"kept", "Batches that can be asked for again.", AT(out.kept), false},
    {"stored", "Blocks told to have come to a place.", AT(out.stored), true},
    {"removed", "Blocks told to have gone from a place.", AT(out.removed), true},
    {"cleared", "Times that all was told to be gone, before it was told anew.", AT(out.cleared),
     true},
    {"batches", "Batches published.", AT(out.batches), true},
    {"out_bytes", "Their bytes.", AT(out.bytes), true},
    {"dropped", "Events that found the queue full: all is told anew then.", AT(out.dropped), true},
    {"replays", "Times that missed batches were asked for.", AT(out.replays), true},
    {"replayed", "Batches sent again.", AT(out.replayed), true},
    {"replay_errors", "Replay requests that were none.", AT(out.nonsense), true},
    {"refused", "Descriptions that found no room.", AT(described.refused), true},
};
#define FIGURES (sizeof figures / sizeof figures[0])

static uint64_t figure(const struct wf_gateway_events *of, size_t index)
{
    return *(const uint64_t *)(const void *)((const char *)of + figures[index].at);
}

static enum weft_status publish(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    const struct wf_kvevents_options options = {
        .address = config->events_address,
        .port = config->events_port,
        .replay_address = config->events_replay_address,
        .replay_port = config->events_replay_port,
        .topic = config->events_topic,
        .style = {.arrays = config->events_encoding == WF_EVENTS_ARRAY,
                  .numbers = config->events_hashes == WF_EVENTS_NUMBERS},
        .replay_batches = config->events_replay_batches,
        .replay_bytes = config->events_replay_bytes,
    };
    enum weft_status status = wf_kvevents_start(&options, &node->events);
    if (status != WEFT_OK)
        return status;
    wf_info("gateway", "KV events of domain '%s' on %s port %u", config->events_domain,
            config->events_address, wf_kvevents_port(node->events));
    wf_telemetry_event(node, NULL, "gateway", "KV events are published on %s port %u",
                       config->events_address, wf_kvevents_port(node->events));
    return WEFT_OK;
}

enum weft_status wf_gateway_events_start(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    if (!config->events_address[0] && !config->engine_count)
        return WEFT_OK;
    enum weft_status status = config->events_address[0] ? publish(node) : WEFT_OK;
    if (status == WEFT_OK)
        status = wf_described_create(node, wf_node_domain(node, config->events_domain),
                                     node->events, config->events_memory, &node->described);
    return status == WEFT_OK ? wf_engines_start(node) : status;
}

void wf_gateway_events_stop(struct wf_node *node)
{
    wf_engines_stop(node);
    wf_described_destroy(node->described);
    wf_kvevents_stop(node->events);
    node->described = NULL;
    node->events = NULL;
}

bool wf_gateway_events_figures(const struct wf_node *node, struct wf_gateway_events *out)
{
    if (!node->events)
        return false;
    wf_kvevents_figures(node->events, &out->out);
    wf_described_figures(node->described, &out->described);
    return true;
}

json_t *wf_gateway_events_json(const struct wf_node *node)
{
    struct wf_gateway_events now;
    if (!wf_gateway_events_figures(node, &now))
        return json_null();
    json_t *out = json_pack("{s:i, s:i}", "port", (int)wf_kvevents_port(node->events),
                            "replay_port", (int)wf_kvevents_replay_port(node->events));
    for (size_t i = 0; i < FIGURES; i++)
        json_object_set_new(out, figures[i].name, json_integer((json_int_t)figure(&now, i)));
    return out;
}

void wf_gateway_events_render(FILE *out, const struct wf_gateway_events *now)
{
    char name[64];
    for (size_t i = 0; i < FIGURES; i++) {
        snprintf(name, sizeof name, "weft_kv_events_%s%s", figures[i].name,
                 figures[i].counter ? "_total" : "");
        wf_metrics_head(out, name, figures[i].counter ? "counter" : "gauge", figures[i].help);
        fprintf(out, "%s %llu\n", name, (unsigned long long)figure(now, i));
    }
}
