/* SPDX-License-Identifier: Apache-2.0
 *
 * How fast a codec is on this host, measured when a node starts.
 */
#ifndef WF_DAEMON_RATES_H
#define WF_DAEMON_RATES_H

#include "codec/codec.h"

/* Of one thread, in 10^6 bytes of payload a second; all 0: there was no memory to measure in. */
struct wf_rates {
    double encode_mbps, decode_mbps;
    double ratio; /* how much smaller what it was measured on became */
};

/* A lossless codec, on made-up KV; takes a tenth of a second of the thread's time at most, where it
 * is not far too slow for KV. */
struct wf_rates wf_rates_measure(const struct wf_codec *codec);

#endif
