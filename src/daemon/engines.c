/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/engines.h"

#include <inttypes.h>
#include <jansson.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/described.h"
#include "daemon/metrics.h"
#include "daemon/query.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define AT(member) offsetof(struct wf_kvengine_figures, member)
static const struct {
    const char *name, *help;
    size_t at;
    bool counter;
} figures[] = {
    {"blocks", "Blocks that the engine said it has, anywhere.", AT(blocks), false},
    {"hbm_blocks", "Of these, blocks in its HBM.", AT(hbm_blocks), false},
    {"memory_bytes", "Memory that these take here.", AT(bytes), false},
    {"batches", "Batches of events heard.", AT(batches), true},
    {"in_bytes", "Their bytes.", AT(batch_bytes), true},
    {"stored", "Blocks said to have come to a place.", AT(stored), true},
    {"removed", "Blocks said to have gone from a place.", AT(removed), true},
    {"cleared", "Times that it said that all is gone.", AT(cleared), true},
    {"gaps", "Times that batches were missed.", AT(gaps), true},
    {"missed", "Batches missed, as their numbers say.", AT(missed), true},
    {"replays", "Times that the engine was asked for missed batches.", AT(replays), true},
    {"replayed", "Batches that came so.", AT(replayed), true},
    {"forgotten", "Times that all that was known was in doubt, and forgotten.", AT(forgotten),
     true},
    {"restarts", "Times that numbers began anew on one connection.", AT(restarts), true},
    {"connections", "Times that the engine was connected to.", AT(connections), true},
    {"dropped", "Blocks that found no room here.", AT(dropped), true},
    {"refused", "Messages that were no events.", AT(refused), true},
};
#define FIGURES (sizeof figures / sizeof figures[0])

static uint64_t figure(const struct wf_kvengine_figures *of, size_t index)
{
    return *(const uint64_t *)(const void *)((const char *)of + figures[index].at);
}

enum weft_status wf_engines_start(struct wf_node *node)
{
    const struct wf_config *config = &node->config;
    struct wf_kvengine_options options[WF_ENGINES_MAX];
    if (!config->engine_count)
        return WEFT_OK;
    node->engines_told = wf_calloc(config->engine_count, sizeof *node->engines_told, "engines");
    if (!node->engines_told)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < config->engine_count; i++)
        options[i] = (struct wf_kvengine_options){.name = config->engines[i].name,
                                                  .endpoint = config->engines[i].endpoint,
                                                  .replay = config->engines[i].replay,
                                                  .topic = config->engines[i].topic};
    return wf_kvengines_start(options, config->engine_count, config->events_engine_memory,
                              &node->engines);
}

void wf_engines_stop(struct wf_node *node)
{
    wf_kvengines_stop(node->engines);
    node->engines = NULL;
    free(node->engines_told);
    node->engines_told = NULL;
}

void wf_engines_tick(struct wf_node *node)
{
    for (uint32_t i = 0; node->engines && i < node->config.engine_count; i++) {
        const struct wf_engine_config *engine = &node->config.engines[i];
        struct wf_kvengine_figures now, *told = &node->engines_told[i];
        wf_kvengines_figures(node->engines, i, &now);
        if (now.state != told->state && now.state != WF_KVENGINE_ASKING &&
            now.connections != told->connections)
            wf_telemetry_event(node, NULL, "gateway", "engine '%s' is heard at %s", engine->name,
                               engine->endpoint);
        else if (now.state == WF_KVENGINE_AWAY && told->state != WF_KVENGINE_AWAY)
            wf_telemetry_event(node, NULL, "gateway",
                               "engine '%s' is away from %s, and what it held is forgotten",
                               engine->name, engine->endpoint);
        else if (now.forgotten != told->forgotten)
            wf_telemetry_event(node, NULL, "gateway",
                               "engine '%s': what it held was in doubt and is forgotten: %" PRIu64
                               " batches were missed, %" PRIu64 " could not be read, and it began "
                               "anew %" PRIu64 " times",
                               engine->name, now.missed - told->missed, now.refused - told->refused,
                               now.restarts - told->restarts);
        if (now.dropped != told->dropped && !told->dropped)
            wf_telemetry_event(node, NULL, "gateway",
                               "engine '%s' holds more than kv_events.engine_memory has room for; "
                               "of the rest nothing is known",
                               engine->name);
        if (now.state != WF_KVENGINE_ASKING) /* until that is over it is as it was */
            *told = now;
    }
}

/* ---------------------------------------------------------------------------- whose hashes */

bool wf_engines_model(const char *model, const char *of_format)
{
    size_t bytes = strlen(model);
    const char *at = strrchr(of_format, '@');
    if (!bytes)
        return false;
    if (strcmp(model, of_format) == 0)
        return true;
    size_t name = at ? (size_t)(at - of_format) : strlen(of_format);
    if (name < bytes || memcmp(of_format + name - bytes, model, bytes) != 0)
        return false;
    return name == bytes || of_format[name - bytes - 1] == ':';
}

static bool hashes_of(const struct wf_node *node, uint32_t engine,
                      const struct wf_format_entry *format)
{
    return wf_engines_model(node->config.engines[engine].model, format->request->model);
}

struct wf_kv_block *wf_engines_meaning(const struct wf_node *node,
                                       const struct wf_format_entry *format, const uint8_t *hash,
                                       size_t hash_bytes)
{
    struct wf_kv_block *block = NULL;
    for (uint32_t i = 0; node->engines && !block && i < node->config.engine_count; i++)
        if (hashes_of(node, i, format))
            block = wf_kvengines_meaning(node->engines, i, hash, hash_bytes);
    if (block && block->token_count != format->block_tokens) {
        wf_kv_block_put(block);
        block = NULL;
    }
    return block;
}

/* ------------------------------------------------------------------------------------- queries */

char *wf_engines_list(const struct wf_domain *domain, bool owner)
{
    const struct wf_node *node = domain->node;
    const struct wf_config *config = &node->config;
    bool may = owner || strcmp(domain->config->name, config->events_domain) == 0;
    json_t *rows = json_array();
    for (uint32_t i = 0; may && node->engines && i < config->engine_count; i++) {
        struct wf_kvengine_figures now;
        wf_kvengines_figures(node->engines, i, &now);
        json_t *row = json_pack("{s:s, s:s, s:s}", "name", config->engines[i].name, "endpoint",
                                config->engines[i].endpoint, "state",
                                wf_kvengine_state_name(now.state));
        for (size_t f = 0; f < FIGURES; f++)
            json_object_set_new(row, figures[f].name, json_integer((json_int_t)figure(&now, f)));
        double seen_s = (double)(wf_now_ns() - now.heard_ns) / 1e9;
        json_object_set_new(row, "seen_s", now.heard_ns ? json_real(seen_s) : json_null());
        json_array_append_new(rows, row);
    }
    return wf_query_page("engines", rows, 0);
}

static bool key_of(const char *digits, uint8_t key[32])
{
    static const char hex[] = "0123456789abcdef";
    if (strlen(digits) != 64 || strspn(digits, hex) != 64)
        return false;
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)((strchr(hex, digits[2 * i]) - hex) << 4 |
                           (strchr(hex, digits[2 * i + 1]) - hex));
    return true;
}

char *wf_engines_key(const struct wf_domain *domain, const char *digits,
                     enum weft_status *out_status)
{
    const struct wf_node *node = domain->node;
    uint8_t key[32];
    const struct wf_format_entry *format = NULL;
    if (!key_of(digits, key)) {
        *out_status = WEFT_E_INVALID;
        return NULL;
    }
    const struct wf_kv_block *block = wf_described_find(domain, key, &format);
    json_t *rows = json_array();
    for (uint32_t i = 0; block && node->engines && i < node->config.engine_count; i++) {
        uint32_t media = hashes_of(node, i, format)
                             ? wf_kvengines_where(node->engines, i, wf_kv_block_hash(block),
                                                  block->hash_bytes)
                             : 0;
        json_t *names = json_array();
        for (enum wf_kv_medium m = WF_KV_GPU; m <= WF_KV_ELSEWHERE; m++)
            if (media >> m & 1)
                json_array_append_new(names,
                                      json_string(m == WF_KV_ELSEWHERE ? "ELSEWHERE"
                                                                       : wf_kv_medium_name(m)));
        if (media)
            json_array_append_new(rows, json_pack("{s:s, s:s, s:O}", "key", digits, "engine",
                                                  node->config.engines[i].name, "media", names));
        json_decref(names);
    }
    return wf_query_page("engines", rows, 0);
}

/* ------------------------------------------------------------------------------------- metrics */

void wf_engines_figures(const struct wf_node *node, struct wf_engines_figures *out)
{
    out->count = node->engines ? node->config.engine_count : 0;
    for (uint32_t i = 0; i < out->count; i++) {
        out->names[i] = node->config.engines[i].name;
        wf_kvengines_figures(node->engines, i, &out->engines[i]);
    }
}

void wf_engines_render(FILE *out, const struct wf_engines_figures *now)
{
    char name[64];
    if (!now->count)
        return;
    wf_metrics_head(out, "weft_engine_state", "gauge", "1 for the state that the engine is in.");
    for (uint32_t i = 0; i < now->count; i++)
        for (int state = WF_KVENGINE_AWAY; state <= WF_KVENGINE_LIVE; state++)
            fprintf(out, "weft_engine_state{engine=\"%s\",state=\"%s\"} %d\n", now->names[i],
                    wf_kvengine_state_name((enum wf_kvengine_state)state),
                    (int)now->engines[i].state == state);
    for (size_t f = 0; f < FIGURES; f++) {
        snprintf(name, sizeof name, "weft_engine_%s%s", figures[f].name,
                 figures[f].counter ? "_total" : "");
        wf_metrics_head(out, name, figures[f].counter ? "counter" : "gauge", figures[f].help);
        for (uint32_t i = 0; i < now->count; i++)
            fprintf(out, "%s{engine=\"%s\"} %" PRIu64 "\n", name, now->names[i],
                    figure(&now->engines[i], f));
    }
}
