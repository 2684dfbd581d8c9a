/* SPDX-License-Identifier: Apache-2.0
 *
 * Which codecs there are.
 */
#include "codec/codec.h"

#include <string.h>

/* In the order in which people should see them. */
static const struct wf_codec *const codecs[] = {
    &wf_codec_lossless, &wf_codec_lossless_fixed, &wf_codec_lossless_entropy,
    &wf_codec_raw,      &wf_codec_int8,           &wf_codec_fp8,
    &wf_codec_int4,     &wf_codec_int2,           &wf_codec_transform,
};

#define CODECS (sizeof codecs / sizeof codecs[0])

const struct wf_codec *wf_codec_each(unsigned index)
{
    return index < CODECS ? codecs[index] : NULL;
}

const struct wf_codec *wf_codec_by_id(uint8_t id)
{
    for (size_t i = 0; i < CODECS; i++) {
        if (codecs[i]->id == id)
            return codecs[i];
    }
    return NULL;
}

const struct wf_codec *wf_codec_by_name(const char *name)
{
    for (size_t i = 0; i < CODECS; i++) {
        if (strcmp(codecs[i]->name, name) == 0)
            return codecs[i];
    }
    return NULL;
}
