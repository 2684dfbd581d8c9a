/* SPDX-License-Identifier: Apache-2.0
 *
 * A plane as it is: what every codec falls back to.
 */
#include <string.h>

#include "base/status.h"
#include "codec/codec.h"

static bool takes(const struct wf_plane *plane)
{
    (void)plane;
    return true;
}

static size_t scratch(const struct wf_plane *plane)
{
    (void)plane;
    return 0;
}

static enum weft_status encode(const struct wf_plane *plane, uint32_t parameter, const void *plain,
                               void *out, size_t capacity, size_t *out_bytes, void *memory)
{
    (void)parameter, (void)capacity, (void)memory;
    memcpy(out, plain, wf_plane_bytes(plane));
    *out_bytes = wf_plane_bytes(plane);
    return WEFT_OK;
}

static enum weft_status decode(const struct wf_plane *plane, uint32_t parameter, const void *in,
                               size_t bytes, void *plain, void *memory)
{
    (void)parameter, (void)memory;
    if (bytes != wf_plane_bytes(plane))
        return wf_fail(WEFT_E_CORRUPT,
                       "a plane stored as it is has %zu bytes instead of %zu; it "
                       "is damaged",
                       bytes, wf_plane_bytes(plane));
    memcpy(plain, in, bytes);
    return WEFT_OK;
}

const struct wf_codec wf_codec_raw = {
    .name = "raw",
    .says = "as it is",
    .id = WF_CODEC_RAW,
    .lossless = true,
    .takes = takes,
    .bound = wf_plane_bytes,
    .scratch = scratch,
    .encode = encode,
    .decode = decode,
};
