/* SPDX-License-Identifier: Apache-2.0
 *
 * The tier that codes: what lies on the tier behind, told as the blocks that it decodes to, and
 * counted by quality.  Called by the thread that drives the tier.
 */
#include <string.h>

#include "tier/coded_inner.h"

struct wf_tier_block wf_coded_outside(const struct wf_tier_block *there)
{
    struct wf_tier_block block = *there;
    if (there->plain_bytes) {
        block.bytes = there->plain_bytes;
        block.part_bytes = there->plain_part_bytes;
        block.stored_bytes = there->bytes;
        block.plain_bytes = 0;
        block.plain_part_bytes = 0;
    }
    return block;
}

struct wf_coded_sum *wf_coded_sum_of(struct wf_tier *t, uint32_t quality)
{
    if (quality < WEFT_LOSSLESS)
        quality = WEFT_LOSSLESS;
    return &t->stats.coded.quality[quality < WEFT_ECONOMY ? quality : WEFT_ECONOMY];
}

void wf_coded_hold(struct wf_tier *t, const struct wf_tier_block *there)
{
    struct wf_coded_sum *sum = wf_coded_sum_of(t, there->plain_quality);
    if (!there->plain_bytes)
        return;
    sum->blocks++;
    sum->plain_bytes += there->plain_bytes;
    sum->stored_bytes += there->bytes;
}

void wf_coded_forget(struct wf_tier *t, const struct wf_tier_block *there)
{
    struct wf_coded_sum *sum = wf_coded_sum_of(t, there->plain_quality);
    if (!there->plain_bytes)
        return;
    wf_coded_lead_drop(t, there->key);
    for (uint32_t i = 0; i < t->depth; i++) {
        struct wf_coded_op *op = &t->ops_all[i];
        if (op->step != WF_CODED_FREE && op->outer->op == WF_TIER_READ &&
            !memcmp(op->there.key, there->key, 32))
            op->stale = true;
    }
    if (sum->blocks == 0 || sum->plain_bytes < there->plain_bytes ||
        sum->stored_bytes < there->bytes)
        return; /* it was never told */
    sum->blocks--;
    sum->plain_bytes -= there->plain_bytes;
    sum->stored_bytes -= there->bytes;
}

/* ----------------------------------------------------------------------------- the interface */

bool wf_coded_find(const struct wf_tier *t, const uint8_t key[32], struct wf_tier_block *out)
{
    struct wf_tier_block there;
    if (!t->ops->find(t->behind, key, &there))
        return false;
    if (out)
        *out = wf_coded_outside(&there);
    return true;
}

enum weft_status wf_coded_remove(struct wf_tier *t, const uint8_t key[32])
{
    struct wf_tier_block there = {.bytes = 0};
    (void)t->ops->find(t->behind, key, &there);
    enum weft_status status = t->ops->remove(t->behind, key);
    if (status == WEFT_OK)
        wf_coded_forget(t, &there);
    return status;
}

struct telling {
    struct wf_tier *tier;
    void (*found)(void *context, const struct wf_tier_block *block);
    void (*told)(void *context, const struct wf_tier_block *block, bool there);
    void *context;
};

static void tell_found(void *context, const struct wf_tier_block *there)
{
    const struct telling *telling = context;
    struct wf_tier_block block = wf_coded_outside(there);
    wf_coded_hold(telling->tier, there);
    telling->found(telling->context, &block);
}

void wf_coded_each(const struct wf_tier *tier,
                   void (*found)(void *context, const struct wf_tier_block *block), void *context)
{
    struct wf_tier *t = (struct wf_tier *)(uintptr_t)tier; /* what is held is counted anew */
    struct telling telling = {.tier = t, .found = found, .context = context};
    for (uint32_t q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++) {
        struct wf_coded_sum *sum = wf_coded_sum_of(t, q);
        sum->blocks = sum->plain_bytes = sum->stored_bytes = 0;
    }
    t->ops->each(t->behind, tell_found, &telling);
}

static void add(struct wf_coded_sum *to, const struct wf_coded_sum *part)
{
    to->blocks += part->blocks;
    to->plain_bytes += part->plain_bytes;
    to->stored_bytes += part->stored_bytes;
    to->encoded += part->encoded;
    to->encoded_bytes += part->encoded_bytes;
    to->encoded_to_bytes += part->encoded_to_bytes;
    to->decoded_bytes += part->decoded_bytes;
    to->tried_bytes += part->tried_bytes;
    to->encode_ns += part->encode_ns;
    to->decode_ns += part->decode_ns;
}

void wf_coded_stats(const struct wf_tier *t, struct wf_tier_stats *out)
{
    t->ops->stats(t->behind, out);
    out->reads = t->stats.reads;
    out->read_bytes = t->stats.read_bytes;
    out->writes = t->stats.writes;
    out->write_bytes = t->stats.write_bytes;
    out->corrupt += t->stats.corrupt;
    out->queue_depth = t->depth;
    out->in_flight = t->in_flight;
    out->coded = t->stats.coded;
    for (uint32_t q = WEFT_LOSSLESS; q <= WEFT_ECONOMY; q++)
        add(&out->coded.all, &out->coded.quality[q]);
}

static void tell_news(void *context, const struct wf_tier_block *there, bool is)
{
    const struct telling *telling = context;
    struct wf_tier_block block = wf_coded_outside(there);
    if (!is)
        wf_coded_lead_drop(telling->tier, there->key);
    telling->told(telling->context, &block, is);
}

enum weft_status wf_coded_news(struct wf_tier *t,
                               void (*told)(void *context, const struct wf_tier_block *block,
                                            bool there),
                               void *context)
{
    struct telling telling = {.tier = t, .told = told, .context = context};
    return t->ops->news(t->behind, tell_news, &telling);
}
