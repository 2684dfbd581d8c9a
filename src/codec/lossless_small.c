/* SPDX-License-Identifier: Apache-2.0
 *
 * The three bytes that a small plane begins with, and its bases: lossless.h draws them.
 *
 * What is read is untrusted: wf_small_get() refuses what wf_small_put() does not write.
 */
#include <string.h>

#include "codec/lossless.h"

#define BASES 0x01u
#define THREE 0x02u
#define ODD 0x04u
#define ESCAPED 0x08u
#define WIDTH_SHIFT 5
#define SAME_SHIFT 4

void wf_small_put(const struct wf_small *small, uint8_t out[WF_SMALL_BYTES])
{
    out[0] = (uint8_t)(WF_LOSSLESS_SMALL | (small->width - 1) << WIDTH_SHIFT |
                       (small->bases_bits ? BASES : 0) | (small->bases_bits == 3 ? THREE : 0) |
                       (small->odd ? ODD : 0) | (small->escaped ? ESCAPED : 0));
    out[1] = (uint8_t)small->first;
    out[2] = (uint8_t)(small->below | small->same << SAME_SHIFT);
}

bool wf_small_get(const uint8_t in[WF_SMALL_BYTES], struct wf_small *out)
{
    *out = (struct wf_small){
        .width = 1 + (in[0] >> WIDTH_SHIFT & 3),
        .first = in[1],
        .below = in[2] & 15,
        .bases_bits = in[0] & THREE   ? 3
                      : in[0] & BASES ? 4
                                      : 0,
        .same = in[2] >> SAME_SHIFT,
        .odd = in[0] & ODD,
        .escaped = in[0] & ESCAPED,
    };
    return in[0] & WF_LOSSLESS_SMALL && !(in[0] & 0x10u) && !((in[0] & THREE) && !(in[0] & BASES));
}

void wf_small_bases_pack(uint32_t channels, uint8_t *bases)
{
    for (uint32_t c = 0; c < channels; c += 8) {
        uint32_t eight;
        memcpy(&eight, bases + c / 2, sizeof eight);
        eight = (eight & 0x07070707u) | (eight & 0x70707070u) >> 1;
        eight = (eight & 0x003f003fu) | (eight & 0x3f003f00u) >> 2;
        eight = (eight & 0x00000fffu) | (eight & 0x0fff0000u) >> 4;
        memcpy(bases + c / 8 * 3, &eight, 3);
    }
}

void wf_small_bases_unpack(uint32_t channels, uint32_t bits, const uint8_t *in, uint8_t *out)
{
    size_t bytes = wf_small_bases_bytes(channels, bits);
    for (uint32_t c = 0; c < channels; c += 8) {
        size_t at = c / 8 * bits, some = bytes - at < bits ? bytes - at : bits;
        uint32_t packed = 0;
        memcpy(&packed, in + at, some);
        uint64_t eight;
        if (bits == 3) {
            eight = (packed & 0xfffu) | (uint64_t)(packed & 0xfff000u) << 20;
            eight = (eight & 0x0000003f0000003fu) | (eight & 0x00000fc000000fc0u) << 10;
            eight = (eight & 0x0007000700070007u) | (eight & 0x0038003800380038u) << 5;
        } else {
            eight = (packed & 0xffffu) | (uint64_t)(packed & 0xffff0000u) << 16;
            eight = (eight & 0x000000ff000000ffu) | (eight & 0x0000ff000000ff00u) << 8;
            eight = (eight & 0x000f000f000f000fu) | (eight & 0x00f000f000f000f0u) << 4;
        }
        memcpy(out + c, &eight, sizeof eight);
    }
}
