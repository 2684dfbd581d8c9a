/* SPDX-License-Identifier: Apache-2.0
 *
 * How blocks lie on a tier: encoded, or as they are (tiers[].codec).
 *
 * A tier that codes (tier/coded.h) is in front of each; it decodes whatever lies encoded there, and
 * encodes what it is told the layout of.  To tell or not is the owner thread's, whose all of this
 * is.
 */
#ifndef WF_DAEMON_CODING_H
#define WF_DAEMON_CODING_H

#include "codec/frame.h"
#include "daemon/config.h"
#include "tier/coded.h"
#include "tier/tier.h"

struct wf_domain;
struct wf_lower;

/* Of a tier. */
struct wf_coding {
    struct wf_coded_options options; /* as the tier has them, for as long as its mover lives */
    /* Of the medium, by the block of random bytes that the mover moves when it is opened, which is
     * never encoded; 0: not known. */
    double link_read_mbps, link_write_mbps;
    bool on; /* blocks are encoded */
    char why[160];
};

/* Before its mover is made.  What to drive it by. */
const struct wf_tier_ops *wf_coding_begin(struct wf_lower *lower, const struct wf_tier_ops *behind);
/* It was opened and measured: choose, and say so when that is another choice than before. */
void wf_coding_opened(struct wf_lower *lower);
/* How a block of a domain is to be encoded there, in `room`; NULL: not at all. */
const struct wf_coded_plan *wf_coding_plan(const struct wf_lower *lower,
                                           const struct wf_domain *domain, uint64_t bytes,
                                           struct wf_coded_plan *room);

#endif
