/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/worth.h"

#include <math.h>

/* Seconds a 10^6 bytes. */
static double takes(double mbps)
{
    return mbps > 0 ? 1 / mbps : 0;
}

double wf_codec_gain(const struct wf_codec_speed *speed, double link_mbps, double ratio,
                     double blocks)
{
    if (!(link_mbps > 0) || !(ratio > 0))
        return 0;
    double encode = takes(speed->encode_mbps), decode = takes(speed->decode_mbps);
    double plain = takes(link_mbps), link = plain / ratio;
    double slowest = fmax(link, fmax(encode / fmax(speed->encode_threads, 1),
                                     decode / fmax(speed->decode_threads, 1)));
    if (isinf(blocks))
        return plain / slowest;
    return blocks * plain / (encode + link + decode + (blocks - 1) * slowest);
}
