/* SPDX-License-Identifier: Apache-2.0
 *
 * The elements of KV, and how exactly it comes back: what the public header says of sizes and
 * names, for every layer above.  A file of its own, so that a program which has it from libweft.so
 * does not have it twice.
 */
#include "weft/weft.h"

size_t weft_dtype_bytes(enum weft_dtype dtype)
{
    switch (dtype) {
    case WEFT_F32: return 4;
    case WEFT_F16:
    case WEFT_BF16: return 2;
    case WEFT_FP8_E4M3:
    case WEFT_FP8_E5M2:
    case WEFT_INT8: return 1;
    }
    return 0;
}

const char *weft_quality_name(enum weft_quality quality)
{
    static const char *const names[] = {"default", "lossless", "transparent", "economy"};
    return (unsigned)quality < sizeof names / sizeof names[0] ? names[quality] : "unknown";
}
