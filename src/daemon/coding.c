/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoded, or as it is: by what the operator says, and else by what is slower, link or codec.
 *
 * With `codec: auto`, blocks on flash and in object stores are encoded as long as this host's
 * codec threads, together, read and write no slower than the medium does: then they cost nothing
 * that anyone waits for, and save a part of the room, of the link and of the writes that flash
 * stands.  Memory (cxl, dram) is as fast as a codec, and what lies there is read by few cores that
 * have other work: there `auto` leaves blocks as they are, and who is short of such memory rather
 * than of time says `lossless`.  How fast the codec is here is measured once, in less than a
 * tenth of a second, when the node starts (daemon/rates.h).
 *
 * Of a domain whose quality is not `lossless`, `auto` stores with loss, on every kind of tier, by
 * the profile of the block's format: the operator asked for it, and has it slower for smaller.
 *
 * A block is of the format that it was put, or asked for, with.  Of one that came from below for
 * nobody that is not known, and it is taken to be laid out as that of the domain's formats whose
 * blocks are of that size: if it is not, a lossless codec loses some of its gain and nothing else,
 * and no other is used.
 *
 * What came back from below with loss goes down again by the same profile and setting, whatever
 * the tier has for what is exact, or not at all: only so it says what it is.  As a rule nothing is
 * written, since the copy that it came from is still there.
 */
#include "daemon/coding.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "codec/worth.h"
#include "daemon/below.h"
#include "daemon/fabric.h"
#include "daemon/profiles.h"
#include "daemon/rates.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"

#define FRAMES_BYTES (64u << 20) /* a tier has so much address space for them */
#define PART_BYTES (64u << 10)
#define FRAME_PLANE_BYTES 96u /* of a frame, a plane's entry and the states of its coder */
#define LOG_NS \
    UINT64_C(60000000000) /* between two lines of formats whose blocks are not stored so */

const struct wf_rates *wf_coding_rates(void)
{
    static struct wf_rates rates;
    const struct wf_codec *codec = wf_coding_codec(WEFT_LOSSLESS);
    if (rates.encode_mbps <= 0) {
        rates = wf_rates_measure(codec);
        wf_info("codec",
                "%s: a thread of this host encodes %.0f MB/s and decodes %.0f MB/s of KV that is "
                "made %.2f times smaller",
                codec->name, rates.encode_mbps, rates.decode_mbps, rates.ratio);
    }
    return &rates;
}

/* A medium that is not known is not slower than a codec would be. */
static bool not_slower(const struct wf_codec_speed *speed, double link_mbps, double ratio)
{
    return link_mbps <= 0 || wf_codec_gain(speed, link_mbps, ratio, INFINITY) >= 1;
}

static bool by_link(struct wf_lower *lower)
{
    struct wf_coding *coding = &lower->coding;
    const struct wf_rates *rates = wf_coding_rates();
    double threads = coding->options.workers;
    const struct wf_codec_speed decode = {.decode_mbps = rates->decode_mbps,
                                          .decode_threads = coding->options.workers};
    const struct wf_codec_speed encode = {.encode_mbps = rates->encode_mbps,
                                          .encode_threads = coding->options.workers};
    bool reads = not_slower(&decode, coding->link_read_mbps, rates->ratio);
    bool writes = not_slower(&encode, coding->link_write_mbps, rates->ratio);
    snprintf(coding->why, sizeof coding->why,
             "%s, at %.0f MB/s, is %s than %g codec threads, at %.0f MB/s",
             reads ? "writing there" : "reading there",
             reads ? coding->link_write_mbps : coding->link_read_mbps,
             reads && writes ? "no faster" : "faster", threads,
             threads * (reads ? rates->encode_mbps : rates->decode_mbps));
    return reads && writes;
}

static bool choose(struct wf_lower *lower)
{
    struct wf_coding *coding = &lower->coding;
    enum wf_tier_kind kind = lower->config->kind;
    snprintf(coding->why, sizeof coding->why, "the configuration says so");
    if (!coding->options.codec || lower->config->codec == WF_CODE_NONE)
        return false;
    if (lower->config->codec == WF_CODE_LOSSLESS)
        return true;
    if (kind == WF_KIND_NVME || kind == WF_KIND_S3)
        return by_link(lower);
    snprintf(coding->why, sizeof coding->why, "it is memory, which is as fast as a codec");
    return false;
}

const struct wf_tier_ops *wf_coding_begin(struct wf_lower *lower, const struct wf_tier_ops *behind)
{
    struct wf_coding *coding = &lower->coding;
    uint32_t workers = lower->below->node->config.workers;
    coding->options = (struct wf_coded_options){
        .ops = behind,
        .codec = wf_coding_codec(WEFT_LOSSLESS),
        .workers = workers < WF_CODED_WORKERS_MAX ? workers : WF_CODED_WORKERS_MAX,
        .memory_bytes = FRAMES_BYTES,
        .part_bytes = PART_BYTES,
        .profile = wf_profiles_by_id,
        .profiles = lower->below->node->profiles,
    };
    coding->on = choose(lower); /* for what is written before it was measured */
    return wf_tier_coded_over(behind);
}

void wf_coding_opened(struct wf_lower *lower)
{
    struct wf_coding *coding = &lower->coding;
    bool before = coding->on;
    if (lower->config->peers || lower->config->remote)
        return;
    coding->link_read_mbps = lower->stats.read_mbps;
    coding->link_write_mbps = lower->stats.write_mbps;
    coding->on = choose(lower);
    if (lower->others)
        return;
    wf_info("codec", "tier %s: blocks that are to be exact are written %s: %s", lower->config->name,
            coding->on ? "encoded" : "as they are", coding->why);
    if (coding->on == before)
        return;
    wf_telemetry_event(lower->below->node, NULL, "codec", "tier %s: blocks are written %s: %s",
                       lower->config->name, coding->on ? "encoded" : "as they are", coding->why);
}

/* ------------------------------------------------------------------------------------ a block */

const struct wf_profile *wf_coding_profile(struct wf_node *node, struct wf_format_entry *format)
{
    uint64_t generation = wf_profiles_generation(node->profiles);
    if (format->quality == WEFT_LOSSLESS)
        return NULL;
    if (format->profile_generation != generation) {
        format->profile = wf_profiles_for(node->profiles, format->request);
        format->profile_generation = generation;
    }
    return format->profile;
}

/* Who opens formats by the hundred has one line of the log a minute, and an event each. */
static bool may_log(struct wf_node *node)
{
    uint64_t now_ns = wf_now_ns();
    if (node->profile_logged_ns && now_ns - node->profile_logged_ns < LOG_NS)
        return false;
    node->profile_logged_ns = now_ns;
    return true;
}

/* Once for each format, when the first of its blocks is written without one. */
static void profile_miss(struct wf_node *node, struct wf_format_entry *format)
{
    char folder[WF_PATH_MAX + 16], why[256];
    if (format->profile_missed)
        return;
    format->profile_missed = true;
    wf_profiles_folder(node, folder, sizeof folder);
    bool can_be = wf_profiles_why(node->profiles, format->request, why, sizeof why);
    wf_telemetry_event(node, &node->domains[format->domain], "codec",
                       "no profile for %.48s: %s; stored losslessly", format->request->model, why);
    if (!may_log(node))
        return;
    /* Who made one for the model takes it to be used. */
    bool refused = can_be && wf_profiles_named(node->profiles, format->request->model);
    wf_log(refused ? WF_LOG_WARN : WF_LOG_INFO, "codec",
           "domain %s asks for %s, and in %s no profile fits this format of model %s: %s; its "
           "blocks are stored losslessly%s",
           node->domains[format->domain].config->name, weft_quality_name(format->quality),
           folder[0] ? folder : "no folder", format->request->model, why,
           can_be ? "; make one with weft codec calibrate --name" : "");
}

bool wf_coding_layout(const struct wf_format_open *f, uint64_t bytes, struct wf_layout *out)
{
    return f->block_bytes
               ? wf_layout_opaque(f->dtype, bytes, out)
               : wf_layout_of(f->dtype, f->layers, f->block_tokens, f->kv_heads, f->head_dim, out);
}

/* The domain's youngest format whose blocks are of that size, and whether it is the only one. */
static struct wf_format_entry *guess(const struct wf_domain *domain, uint64_t bytes, bool *out_only)
{
    struct wf_node *node = domain->node;
    struct wf_format_entry *found = NULL;
    *out_only = true;
    for (uint32_t i = node->format_count; i-- > 0;) {
        if (node->formats[i].domain != domain->id || node->formats[i].block_bytes != bytes ||
            wf_node_fabric_reads(&node->formats[i]))
            continue;
        *out_only = !found;
        found = found ? found : &node->formats[i];
    }
    return found;
}

const struct wf_codec *wf_coding_codec(enum weft_quality quality)
{
    return quality > WEFT_LOSSLESS ? &wf_codec_transform : &wf_codec_lossless;
}

/* The largest frame of KV that the profile is for: twice what it was in the calibration, after what
 * each plane takes anyhow, and the first tokens of a sequence, which are exact. */
static uint64_t frame_most(const struct wf_profile *profile, enum weft_quality quality,
                           const struct wf_coded_plan *plan)
{
    const struct wf_layout *layout = &plan->layout;
    double ratio = (double)profile->head.points[quality].ratio, bytes = (double)layout->bytes;
    uint64_t sinks = profile->head.sinks > plan->position ? profile->head.sinks - plan->position
                                                          : 0;
    double exact = sinks < layout->tokens ? (double)sinks / layout->tokens : 1;
    if (!(ratio > 1)) /* it does not say */
        return 0;
    return (uint64_t)(bytes * (2 / ratio + exact)) + layout->planes * FRAME_PLANE_BYTES + 1;
}

/* What was stored by a profile goes by that one again, be there a newer. */
static const struct wf_profile *profile_of(struct wf_node *node, struct wf_format_entry *format,
                                           const struct wf_coding_ask *ask)
{
    if (ask->quality == WEFT_LOSSLESS || !ask->profile)
        return wf_coding_profile(node, format);
    const struct wf_profile *profile = wf_profiles_by_id(node->profiles, ask->profile);
    return profile && wf_profiles_fit(profile, format->request) ? profile : NULL;
}

/* By the profile, if there is one and the quality was calibrated: a better one will do, too, but
 * for what was stored at that quality before.  This is the same again then, since it lies on the
 * profile's own steps; at any other it would lose twice. */
static bool with_loss(struct wf_node *node, struct wf_format_entry *format,
                      const struct wf_coding_ask *ask, struct wf_coded_plan *plan)
{
    const struct wf_profile *profile = profile_of(node, format, ask);
    if (!profile) {
        profile_miss(node, format);
        return false;
    }
    enum weft_quality quality = format->quality;
    while (quality > WEFT_LOSSLESS && !profile->head.points[quality].parameter)
        quality--;
    if (quality == WEFT_LOSSLESS || (ask->quality > WEFT_LOSSLESS && ask->quality != quality))
        return false;
    plan->codec = wf_coding_codec(quality);
    plan->parameter = profile->head.points[quality].parameter;
    plan->profile = profile;
    plan->position = (uint64_t)ask->depth * format->block_tokens;
    plan->quality = (uint8_t)quality;
    plan->lost = ask->quality > WEFT_LOSSLESS;
    plan->bytes_most = plan->lost ? 0 : frame_most(profile, quality, plan);
    return true;
}

bool wf_coding_lossy(const struct wf_lower *lower)
{
    const struct wf_node *node = lower->below->node;
    bool some = false;
    for (uint32_t i = 0; i < node->domain_count; i++)
        some = some || wf_domain_quality(node->domains[i].config) > WEFT_LOSSLESS;
    return some && lower->config->codec == WF_CODE_AUTO;
}

enum wf_coding_how wf_coding_plan(const struct wf_lower *lower, const struct wf_domain *domain,
                                  const struct wf_coding_ask *ask, struct wf_coded_plan *out)
{
    struct wf_node *node = domain->node;
    bool lossy = ask->quality > WEFT_LOSSLESS, sure = true;
    struct wf_format_entry *format = ask->format ? &node->formats[ask->format - 1]
                                                 : guess(domain, ask->bytes, &sure);
    *out = (struct wf_coded_plan){.quality = WEFT_LOSSLESS};
    if (lower->config->remote) /* blocks cross as they are, with how exact that is */
        return WF_CODING_AS_IT_IS;
    if (!format || !wf_coding_layout(format->request, ask->bytes, &out->layout))
        return lossy ? WF_CODING_NOT : WF_CODING_AS_IT_IS;
    bool may = lossy ? sure : ask->format && lower->config->codec == WF_CODE_AUTO;
    if (may && format->quality > WEFT_LOSSLESS && with_loss(node, format, ask, out))
        return WF_CODING_ENCODED;
    return lossy ? WF_CODING_NOT : lower->coding.on ? WF_CODING_ENCODED : WF_CODING_AS_IT_IS;
}

enum wf_coding_how wf_coding_plan_slot(const struct wf_lower *lower, const struct wf_domain *domain,
                                       uint32_t slot, struct wf_coded_plan *out)
{
    const struct wf_desc *desc = &domain->store.index.desc[slot];
    const struct wf_coding_ask ask = {
        .bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed),
        .depth = wf_store_depth(&domain->store, slot),
        .format = domain->format_of[slot],
        .quality = wf_store_quality(&domain->store, slot),
        .profile = domain->profile_of[slot],
    };
    return wf_coding_plan(lower, domain, &ask, out);
}

void wf_coding_declined(struct wf_domain *domain, uint32_t slot, const struct wf_coded_plan *plan)
{
    struct wf_node *node = domain->node;
    uint32_t number = domain->format_of[slot];
    struct wf_format_entry *format = number ? &node->formats[number - 1] : NULL;
    if (!format)
        return;
    format->declined++;
    if (format->declined_by == plan->profile)
        return;
    format->declined_by = plan->profile;
    const char *name = wf_profiles_name(node->profiles, plan->profile);
    bool small = plan->layout.bytes < WF_CODED_BYTES_LEAST;
    wf_telemetry_event(node, domain, "codec", "%s, for %.48s: a block is stored exactly: %s", name,
                       format->request->model,
                       small ? "it is too small to be encoded"
                             : "its frame would be twice as large as the profile says, or no "
                               "smaller than the block");
    if (may_log(node))
        wf_info("codec",
                "domain %s: a block of model %s that was to be stored as %s, by profile %s, is "
                "stored exactly: %s; weft ls formats counts them",
                domain->config->name, format->request->model,
                weft_quality_name((enum weft_quality)plan->quality), name,
                small ? "what has less than 8 KiB is not encoded"
                      : "its frame would be more than twice as large as in the calibration, or no "
                        "smaller than the block; is it that model's KV, and does each chain begin "
                        "at position 0?");
}
