/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that other hosts have published on a shared CXL device, read where they lie.
 *
 * Used beside a tier that is open with options.shared, by the thread that drives it.  Nothing is
 * copied and nothing is locked: a view is a pointer into the device, and stays right only as long
 * as its owner does not write over it, which wf_cxl_share_check() finds out afterwards.  So the
 * pattern is that of a sequence lock (cxl_format.h says why one word is enough):
 *
 *   wf_cxl_share_find(share, key, &view)       identity and all checksums are right
 *   … use view.data …                          do nothing yet that cannot be taken back
 *   wf_cxl_share_check(share, &view)           WEFT_OK: all that was used was the block
 *
 * A load from a device that was unplugged is SIGBUS: use the data inside of wf_guard_run(view.data,
 * view.block.bytes, …).
 */
#ifndef WF_TIER_CXL_SHARE_H
#define WF_TIER_CXL_SHARE_H

#include "tier/tier.h"

struct wf_cxl_share;
struct wf_cxl_header;

struct wf_cxl_view {
    const void *data; /* on the device, at a multiple of 4096; never written through */
    struct wf_tier_block block;
    uint8_t host; /* whose it is */
    uint64_t granule, word, generation;
};

struct wf_cxl_share_stats {
    uint64_t blocks, bytes; /* known of other hosts; payload */
    uint64_t found, missed, corrupt;
    uint64_t stale;   /* views that were overtaken */
    uint64_t scanned; /* extents read because they had changed */
};

/* `tier` must outlive it, and may be a wf_tier_cxl or a wf_tier_cxl_others.  WEFT_E_INVALID: it is
 * not a shared CXL tier. */
enum weft_status wf_cxl_share_create(struct wf_tier *tier, struct wf_cxl_share **out);
void wf_cxl_share_destroy(struct wf_cxl_share *share);

/* Who wants to hear, from refresh(), which blocks came and which went.  Of one extent, first what
 * went; of what went, the key alone is told. */
void wf_cxl_share_listen(struct wf_cxl_share *share,
                         void (*told)(void *context, const struct wf_tier_block *block, bool there),
                         void *context);

/* Look at what other hosts have changed since, at up to `extents_max` extents (0: all).
 * WEFT_PENDING: there are more to look at; WEFT_OK: all that was published before the call is known
 * now.  Of a key that two hosts published, the first one found is the one that is known, and the
 * other from the first refresh after that one went. */
enum weft_status wf_cxl_share_refresh(struct wf_cxl_share *share, uint64_t extents_max);

/* Have the next refresh() look at every extent: also at those that changed hands without anything
 * being published, as when a dead host is fenced. */
void wf_cxl_share_again(struct wf_cxl_share *share);

/* WEFT_OK, WEFT_MISS, or WEFT_E_CORRUPT: what lies there is not what its checksums say. */
enum weft_status wf_cxl_share_find(struct wf_cxl_share *share, const uint8_t key[32],
                                   struct wf_cxl_view *out);

/* What is known of a block; nothing is looked at.  False: nothing is. */
bool wf_cxl_share_known(const struct wf_cxl_share *share, const uint8_t key[32],
                        struct wf_tier_block *out);

/* Like find(), but the payload is not looked at: `header` has the checksums that the caller
 * compares what it reads with, before it calls check().  Room for WF_CXL_HEADER_MAX bytes. */
enum weft_status wf_cxl_share_locate(struct wf_cxl_share *share, const uint8_t key[32],
                                     struct wf_cxl_header *header, struct wf_cxl_view *out);

/* WEFT_OK, or WEFT_MISS: its owner has taken it back, and what was read may be anything. */
enum weft_status wf_cxl_share_check(struct wf_cxl_share *share, const struct wf_cxl_view *view);

/* Extents of each host as they were when they were last looked at; 0 is nobody. */
void wf_cxl_share_extents(const struct wf_cxl_share *share, uint64_t out[256]);

void wf_cxl_share_stats(const struct wf_cxl_share *share, struct wf_cxl_share_stats *out);

#endif
