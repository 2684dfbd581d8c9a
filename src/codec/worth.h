/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether it pays to encode what goes over a link: by how fast the link is, and how fast the codec.
 *
 * A block on its way is encoded, carried and decoded, each by somebody else, so that of many blocks
 * one is carried while the next is encoded: the slowest of the three sets the pace, and the first
 * block waits for all three.
 */
#ifndef WF_CODEC_WORTH_H
#define WF_CODEC_WORTH_H

#include <stdint.h>

/* Of one thread, in 10^6 bytes of payload a second, and how many threads do it.  A speed of 0: it
 * is not done on this way. */
struct wf_codec_speed {
    double encode_mbps, decode_mbps;
    uint32_t encode_threads, decode_threads;
};

/* How many times sooner `blocks` of them (1 or more; INFINITY: it goes on) are over such a link
 * when they are encoded, `ratio` times smaller, than as they are.  0: the link is not known. */
double wf_codec_gain(const struct wf_codec_speed *speed, double link_mbps, double ratio,
                     double blocks);

#endif
