/* SPDX-License-Identifier: Apache-2.0
 *
 * What every tier asks of its options, requests and blocks, said in the same words by all.
 */
#ifndef WF_TIER_CHECK_H
#define WF_TIER_CHECK_H

#include "tier/tier.h"

#define WF_TIER_QUEUE_MAX 1024u
#define WF_TIER_PART_BYTES_MAX (1u << 30)

/* WEFT_E_INVALID with a sentence, or WEFT_OK. */
enum weft_status wf_tier_check_options(const struct wf_tier_options *options);

/* `there`: the block that a READ asks for, when the tier has it; NULL otherwise, and then the range
 * of parts cannot be judged. */
enum weft_status wf_tier_check_request(const struct wf_tier_request *request,
                                       const struct wf_tier_block *there);

/* Is what it says of its plain payload possible?  For what comes from a medium. */
static inline bool wf_tier_plain_right(const struct wf_tier_block *block)
{
    uint64_t bytes = block->plain_bytes;
    uint32_t part = block->plain_part_bytes;
    if (!bytes)
        return !part && !block->plain_quality;
    return bytes <= UINT32_MAX && block->plain_quality <= UINT8_MAX && part &&
           part <= WF_TIER_PART_BYTES_MAX && (bytes - 1) / part < WF_TIER_PARTS_MAX;
}

/* How many parts a valid block has: 1 … WF_TIER_PARTS_MAX. */
static inline uint32_t wf_tier_parts(const struct wf_tier_block *block)
{
    return (uint32_t)((block->bytes + block->part_bytes - 1) / block->part_bytes);
}

/* Bytes of part `part` of a valid block: part_bytes, or less for the last. */
static inline uint32_t wf_tier_part_bytes(const struct wf_tier_block *block, uint32_t part)
{
    uint64_t left = block->bytes - (uint64_t)part * block->part_bytes;
    return left < block->part_bytes ? (uint32_t)left : block->part_bytes;
}

#endif
