/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that cross encoded: how they lie, for the fabric's thread; and what it chose, and saw of
 * other nodes, for people.
 *
 * The owner thread notes the layout of each format that is opened, by the size of its blocks: as on
 * tiers (coding.c) a block is taken to be of the domain's youngest format of its size, since a
 * wrong layout costs a lossless codec some of its gain and nothing else.  Opaque blocks of a size
 * that KV has, too, do not take its place.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/coding.h"
#include "daemon/fabric.h"
#include "daemon/profiles.h"
#include "daemon/rates.h"
#include "daemon/telemetry.h"
#include "fabric/fabric.h"
#include "sys/memory.h"

#define LAYOUTS_MAX 16u   /* a domain; beyond, the one that was noted first goes */
#define SENTENCES_MAX 16u /* until the next tick; beyond, the log alone has them */

struct layouts {
    struct wf_layout at[LAYOUTS_MAX];
    uint32_t count, next;
};

struct wf_wire {
    struct wf_profiles *profiles; /* unchanged once the fabric is there */
    pthread_mutex_t lock;
    struct layouts domains[WF_DOMAINS_MAX];
    struct {
        const char *kind;
        char text[256];
    } sentences[SENTENCES_MAX];
    uint32_t sentence_count;
};

struct wf_wire *wf_wire_create(void)
{
    struct wf_wire *wire = wf_calloc(1, sizeof *wire, "how blocks cross to other nodes");
    if (wire)
        pthread_mutex_init(&wire->lock, NULL);
    return wire;
}

void wf_wire_destroy(struct wf_wire *wire)
{
    if (wire)
        pthread_mutex_destroy(&wire->lock);
    free(wire);
}

void wf_wire_options(const struct wf_node *node, struct wf_fabric_options *out)
{
    const struct wf_config *config = &node->config;
    wf_wire_of(node->cluster)->profiles = node->profiles;
    out->codec = config->fabric_codec == WF_CODE_NONE       ? WF_FABRIC_CODEC_NONE
                 : config->fabric_codec == WF_CODE_LOSSLESS ? WF_FABRIC_CODEC_LOSSLESS
                                                            : WF_FABRIC_CODEC_AUTO;
    if (out->codec == WF_FABRIC_CODEC_NONE)
        return;
    const struct wf_rates *rates = wf_coding_rates();
    out->codec_speed = (struct wf_codec_speed){.encode_mbps = rates->encode_mbps,
                                               .decode_mbps = rates->decode_mbps,
                                               .encode_threads = config->workers,
                                               .decode_threads = config->workers};
}

/* ------------------------------------------------------------------------------------ profiles */

uint64_t wf_wire_profiles(void *cluster)
{
    struct wf_profiles *profiles = wf_wire_of(cluster)->profiles;
    return profiles ? wf_profiles_bits(profiles) : 0;
}

const struct wf_profile *wf_wire_profile(void *cluster, uint64_t id)
{
    struct wf_profiles *profiles = wf_wire_of(cluster)->profiles;
    return profiles ? wf_profiles_by_id(profiles, id) : NULL;
}

/* ------------------------------------------------------------------------------------- layouts */

static struct wf_layout *find(struct layouts *of, uint64_t bytes)
{
    for (uint32_t i = 0; i < of->count; i++)
        if (of->at[i].bytes == bytes)
            return &of->at[i];
    return NULL;
}

void wf_wire_format(struct wf_node *node, const struct wf_format_entry *format)
{
    struct wf_wire *wire = node->cluster ? wf_wire_of(node->cluster) : NULL;
    struct wf_layout layout;
    if (!wire || wf_node_fabric_reads(format) ||
        !wf_coding_layout(format->request, format->block_bytes, &layout))
        return;
    struct layouts *of = &wire->domains[format->domain];
    pthread_mutex_lock(&wire->lock);
    struct wf_layout *at = find(of, layout.bytes);
    if (!at) {
        at = &of->at[of->next++ % LAYOUTS_MAX];
        of->count += of->count < LAYOUTS_MAX;
        *at = layout;
    } else if (!layout.opaque || at->opaque) {
        *at = layout;
    }
    pthread_mutex_unlock(&wire->lock);
}

bool wf_wire_layout(void *cluster, uint32_t domain, uint64_t bytes, struct wf_layout *out)
{
    struct wf_wire *wire = wf_wire_of(cluster);
    pthread_mutex_lock(&wire->lock);
    const struct wf_layout *at = find(&wire->domains[domain], bytes);
    if (at)
        *out = *at;
    pthread_mutex_unlock(&wire->lock);
    return at != NULL;
}

/* --------------------------------------------------------------- what it chose, and what it saw */

static void event(struct wf_wire *wire, const char *kind, const char *sentence)
{
    pthread_mutex_lock(&wire->lock);
    if (wire->sentence_count < SENTENCES_MAX) {
        uint32_t i = wire->sentence_count++;
        wire->sentences[i].kind = kind;
        snprintf(wire->sentences[i].text, sizeof wire->sentences[i].text, "%s", sentence);
    }
    pthread_mutex_unlock(&wire->lock);
}

void wf_wire_chose(void *cluster, const char *sentence)
{
    event(wf_wire_of(cluster), "codec", sentence);
}

void wf_wire_told(void *cluster, const char *sentence)
{
    event(wf_wire_of(cluster), "fabric", sentence);
}

void wf_wire_tick(struct wf_node *node)
{
    struct wf_wire *wire = wf_wire_of(node->cluster);
    pthread_mutex_lock(&wire->lock);
    for (uint32_t i = 0; i < wire->sentence_count; i++)
        wf_telemetry_event(node, NULL, wire->sentences[i].kind, "%s", wire->sentences[i].text);
    wire->sentence_count = 0;
    pthread_mutex_unlock(&wire->lock);
}
