/* SPDX-License-Identifier: Apache-2.0
 *
 * The background check of tiers: block after block is read by its mover and verified there, at a
 * bounded rate; one that is not what its checksum says, or not there, is lost on that tier.
 *
 * A rate that is configured holds.  Otherwise it goes by what the tier has: a pass over it takes an
 * hour at least, and one over a bucket, where each look is paid for, 30 days, within bounds a day.
 *
 * Owner thread only.  It looks at so many entries of the directory at a time, as one that has
 * millions of another tier's blocks would keep everyone waiting otherwise.
 */
#include "daemon/below.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/config_fields.h"
#include "sys/memory.h"

#define PASS_SECONDS 3600.0 /* over a tier, at least */
#define DAY_SECONDS 86400.0
#define BUCKET_DAYS 30.0 /* over a bucket */
#define BUCKET_DAY_LEAST ((double)(64u << 20))
#define BUCKET_DAY_MOST ((double)(1u << 30))
#define AHEAD_BYTES (16u << 20) /* beyond a second's, of what was not used */
#define LOOKS_MAX 32768u        /* entries of the directory in one step */

struct scrub {
    struct wf_mover_job job; /* first member */
    struct wf_lower *lower;
    struct wf_domain *domain;
};

static void scrub_done(struct wf_mover_job *job)
{
    struct scrub *scrub = (struct scrub *)job;
    struct wf_lower *lower = scrub->lower;
    enum weft_status status = job->job.request.status;
    const uint8_t *key = job->job.request.block.key;
    lower->scrubbing = false;
    if (status == WEFT_E_CORRUPT || status == WEFT_MISS)
        wf_lower_lost(lower, scrub->domain, key, status);
    free(scrub);
    /* The next one, while the second's bytes last.  A bucket is asked once a second: there, each
     * look is paid for. */
    if (lower->config->kind != WF_KIND_S3 && !lower->below->stopping)
        wf_lower_scrub(lower, 0);
}

static void next_domain(struct wf_lower *lower)
{
    uint32_t next = lower->scrub_domain + 1u;
    lower->scrub_domain = next < lower->below->node->domain_count ? (uint16_t)next : 0;
}

/* The next block of the tier, of one domain after the other; WF_DIRECTORY_NONE: none was found in
 * so many entries. */
static uint32_t next_of(struct wf_lower *lower)
{
    const struct wf_below *below = lower->below;
    struct wf_directory_sum sum = {.blocks = 0};
    for (uint32_t i = 0; i < below->node->domain_count && lower->scrub_at == 0; i++) {
        wf_directory_sum(below->directory, lower->number, lower->scrub_domain, &sum);
        if (sum.blocks)
            break;
        next_domain(lower);
    }
    if (lower->scrub_at == 0 && sum.blocks == 0)
        return WF_DIRECTORY_NONE;
    uint32_t entry = wf_directory_scan(below->directory, (uint8_t)(1u << lower->number),
                                       lower->scrub_domain, LOOKS_MAX, &lower->scrub_at);
    if (entry == WF_DIRECTORY_NONE && lower->scrub_at == 0)
        next_domain(lower);
    return entry;
}

static bool rate_is_said(const struct wf_tier_config *tier)
{
    int index = wf_list_field(&wf_config_lists[WF_LIST_TIERS], "scrub");
    return tier->origin[index].layer != WF_FROM_DEFAULT;
}

double wf_tier_scrub_rate(const struct wf_tier_config *tier, uint64_t held_bytes)
{
    double held = (double)held_bytes, rate = (double)tier->scrub_bytes_per_s;
    if (rate_is_said(tier) || tier->scrub_bytes_per_s == 0)
        return rate;
    if (rate > held / PASS_SECONDS)
        rate = held / PASS_SECONDS;
    if (tier->kind != WF_KIND_S3)
        return rate;
    double day = held / BUCKET_DAYS;
    if (day < BUCKET_DAY_LEAST)
        day = BUCKET_DAY_LEAST;
    if (day > BUCKET_DAY_MOST)
        day = BUCKET_DAY_MOST;
    return rate < day / DAY_SECONDS ? rate : day / DAY_SECONDS;
}

/* The bytes of `elapsed_ns`, and what was not used before, as far as it is kept: no more than all
 * that the tier has, which would be read twice in a row. */
static void credit(struct wf_lower *lower, uint64_t elapsed_ns)
{
    struct wf_directory_sum sum;
    wf_directory_sum(lower->below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    double rate = wf_tier_scrub_rate(lower->config, sum.bytes), most = rate + AHEAD_BYTES;
    if (!rate_is_said(lower->config) && most > (double)sum.bytes)
        most = (double)sum.bytes;
    if (most < (double)lower->scrub_wants) /* a block that is larger has its turn, too */
        most = (double)lower->scrub_wants;
    lower->scrub_credit += rate * (double)elapsed_ns / 1e9;
    if (lower->scrub_credit > most)
        lower->scrub_credit = most;
}

void wf_lower_scrub(struct wf_lower *lower, uint64_t elapsed_ns)
{
    struct wf_directory_block block;
    if (lower->config->scrub_bytes_per_s == 0)
        return;
    if (elapsed_ns)
        credit(lower, elapsed_ns);
    if (lower->scrubbing || !wf_lower_usable(lower) || lower->scrub_credit < 1)
        return;
    uint32_t entry = next_of(lower);
    lower->scrub_wants = 0;
    if (entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(lower->below->directory, entry, &block);
    if ((double)block.bytes > lower->scrub_credit) {
        lower->scrub_at = entry; /* the same one, when there is enough */
        lower->scrub_wants = block.bytes;
        return;
    }
    struct scrub *scrub = wf_calloc(1, sizeof *scrub, "a check");
    if (!scrub)
        return;
    scrub->lower = lower;
    scrub->domain = &lower->below->node->domains[block.domain];
    scrub->job.kind = WF_MOVE_VERIFY;
    scrub->job.done = scrub_done;
    scrub->job.job.class = WF_TIER_SCRUB;
    memcpy(scrub->job.job.request.block.key, block.key, 32);
    lower->scrubbing = wf_mover_submit(lower->mover, &scrub->job) == WEFT_OK;
    if (lower->scrubbing)
        lower->scrub_credit -= (double)block.bytes;
    else
        free(scrub);
}
