/* SPDX-License-Identifier: Apache-2.0
 *
 * What everybody compresses with, beside the codecs: zstd and lz4 as their libraries have them, a
 * block at a time, with contexts that are kept.
 */
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "cli/codec_bench.h"

struct codec_yardstick {
    const char *name;
    int zstd_level; /* 0: lz4 */
};

static const struct codec_yardstick yardsticks[] = {{"zstd-1", 1}, {"zstd-3", 3}, {"lz4", 0}};

static ZSTD_CCtx *compressor;
static ZSTD_DCtx *decompressor;

const struct codec_yardstick *wf_cli_codec_yardstick(unsigned index)
{
    return index < sizeof yardsticks / sizeof yardsticks[0] ? &yardsticks[index] : NULL;
}

const char *wf_cli_codec_yardstick_name(const struct codec_yardstick *yardstick)
{
    return yardstick->name;
}

uint64_t wf_cli_codec_yardstick_bound(uint64_t bytes)
{
    uint64_t zstd = ZSTD_compressBound(bytes);
    uint64_t lz4 = bytes < LZ4_MAX_INPUT_SIZE ? (uint64_t)LZ4_compressBound((int)bytes) : 0;
    return zstd > lz4 ? zstd : lz4;
}

bool wf_cli_codec_yardstick_encode(const struct codec_yardstick *yardstick, struct codec_set *set,
                                   uint64_t block)
{
    uint64_t bytes = set->layout.bytes;
    const uint8_t *plain = set->plain + block * bytes;
    uint8_t *out = set->frames + block * set->stride;
    if (!compressor)
        compressor = ZSTD_createCCtx();
    set->sums[block] = wf_frame_checksum(plain, bytes);
    if (yardstick->zstd_level > 0) {
        size_t made = compressor ? ZSTD_compressCCtx(compressor, out, set->stride, plain, bytes,
                                                     yardstick->zstd_level)
                                 : 0;
        set->encoded[block] = made;
        return compressor && !ZSTD_isError(made);
    }
    if (bytes >= LZ4_MAX_INPUT_SIZE)
        return false;
    int made = LZ4_compress_default((const char *)plain, (char *)out, (int)bytes,
                                    LZ4_compressBound((int)bytes));
    set->encoded[block] = made > 0 ? (uint64_t)made : 0;
    return made > 0;
}

bool wf_cli_codec_yardstick_decode(const struct codec_yardstick *yardstick, struct codec_set *set,
                                   uint64_t block)
{
    uint64_t bytes = set->layout.bytes;
    const uint8_t *in = set->frames + block * set->stride;
    uint8_t *back = set->back + block * bytes;
    if (!decompressor)
        decompressor = ZSTD_createDCtx();
    if (yardstick->zstd_level > 0) {
        if (!decompressor ||
            ZSTD_decompressDCtx(decompressor, back, bytes, in, set->encoded[block]) != bytes)
            return false;
    } else if (LZ4_decompress_safe((const char *)in, (char *)back, (int)set->encoded[block],
                                   (int)bytes) != (int)bytes) {
        return false;
    }
    return wf_frame_checksum(back, bytes) == set->sums[block];
}
