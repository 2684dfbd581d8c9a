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
struct wf_format_entry;
struct wf_format_open;
struct wf_lower;
struct wf_node;
struct wf_rates;

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

/* May blocks be stored there with loss, by the quality of some domain? */
bool wf_coding_lossy(const struct wf_lower *lower);

/* A block that is to be written. */
struct wf_coding_ask {
    uint64_t bytes;
    uint32_t depth;
    uint16_t format;           /* its number, and 1; 0: it is not known */
    enum weft_quality quality; /* that it has already */
    uint64_t profile;          /* by which that came about; 0: none, or it is not known */
};
enum wf_coding_how {
    WF_CODING_AS_IT_IS = 0,
    WF_CODING_ENCODED,
    /* Not at all: it has lost something, which only a frame of its own format's profile can say. */
    WF_CODING_NOT,
};
/* How it is to lie there.  ENCODED: by *out, whose quality is what it has then; else it has what it
 * had. */
enum wf_coding_how wf_coding_plan(const struct wf_lower *lower, const struct wf_domain *domain,
                                  const struct wf_coding_ask *ask, struct wf_coded_plan *out);
/* The same of a block of DRAM. */
enum wf_coding_how wf_coding_plan_slot(const struct wf_lower *lower, const struct wf_domain *domain,
                                       uint32_t slot, struct wf_coded_plan *out);

/* A block of DRAM that was to be stored by that plan, with loss, was written, and is exact: its
 * frame was too large for KV that the profile is for, or it is none that can be encoded. */
void wf_coding_declined(struct wf_domain *domain, uint32_t slot, const struct wf_coded_plan *plan);

/* What a block that is encoded at a quality is encoded by. */
const struct wf_codec *wf_coding_codec(enum weft_quality quality);

/* How a block of that format lies in its bytes.  False: there is no such layout. */
bool wf_coding_layout(const struct wf_format_open *format, uint64_t bytes, struct wf_layout *out);

/* How fast the lossless codec is here: measured when it is first asked for, once a process. */
const struct wf_rates *wf_coding_rates(void);

/* By what blocks of a format are stored with loss; NULL: they are not. */
const struct wf_profile *wf_coding_profile(struct wf_node *node, struct wf_format_entry *format);

#endif
