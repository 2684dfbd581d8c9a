/* SPDX-License-Identifier: Apache-2.0
 *
 * Encoded over a link, or as it is: one of these for each node and way.
 *
 * What is chosen by is measured on the way itself: how fast payload comes over the link, and how
 * much smaller blocks become.  How fast both sides' codecs are they have said.  Between one choice
 * and the other lies a margin, and of what goes one way some goes the other, so that a link that
 * was only seen through the codec is seen as it is, and blocks that did not become smaller once are
 * tried again.
 *
 * No I/O and no clock: whoever drives it says what was seen.
 */
#ifndef WF_FABRIC_CHOICE_H
#define WF_FABRIC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "codec/worth.h"

enum wf_fabric_codec {
    WF_FABRIC_CODEC_NONE = 0, /* nothing is encoded, here or for this node */
    WF_FABRIC_CODEC_AUTO,     /* what gains by it */
    WF_FABRIC_CODEC_LOSSLESS, /* all that becomes smaller */
};

/* What comes over a link, by when it came.  Of a message alone it is known from its first byte to
 * its last; of messages one behind the other, while others were waited for that are not encoded
 * first, from the end of the last. */
struct wf_line {
    double mbps; /* a fading mean, 10^6 bytes a second; 0: not known yet */
    uint64_t since_ns, last_ns, bytes, ns;
    uint32_t arriving;
    bool close; /* the next one counts from the end of the last */
};

void wf_line_begun(struct wf_line *line, uint64_t now_ns);
/* `close`: others are on their way, and nobody has to encode them first. */
void wf_line_arrived(struct wf_line *line, uint64_t now_ns, uint64_t bytes, bool close);
/* The link is gone, and what was arriving with it. */
void wf_line_cut(struct wf_line *line);

struct wf_choice {
    bool on;
    double ratio;   /* a fading mean of what was encoded; 0: nothing was yet */
    double waiting; /* … and of how many are on their way at a time */
    double gain;    /* by which it was chosen last */
    uint32_t asked; /* since the choice was made */
    uint64_t frames, plain_bytes, frame_bytes; /* that went encoded */
};

/* One was encoded, or would not have become smaller (both the same). */
void wf_choice_seen(struct wf_choice *choice, uint64_t plain_bytes, uint64_t frame_bytes);
/* Is this one to go encoded?  `waiting` are on their way, with it. */
bool wf_choice_next(struct wf_choice *choice, enum wf_fabric_codec codec,
                    const struct wf_codec_speed *speed, double link_mbps, uint32_t waiting);

#endif
