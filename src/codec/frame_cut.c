/* SPDX-License-Identifier: Apache-2.0 */
#include "codec/frame_cut.h"

#include <string.h>

static uint64_t plane_bytes(const struct wf_frame *frame)
{
    struct wf_plane plane;
    wf_layout_plane(&frame->layout, 0, 0, NULL, &plane);
    return wf_plane_bytes(&plane);
}

static uint64_t encoded_bytes(const struct wf_frame *frame, uint32_t index)
{
    struct wf_frame_plane entry;
    memcpy(&entry, (const uint8_t *)frame->table + index * sizeof entry, sizeof entry);
    return entry.bytes;
}

/* Where a plane ends in the block. */
static uint64_t end_of(const struct wf_frame *frame, uint32_t index, uint64_t each)
{
    uint64_t end = (index + 1) * each;
    return end < frame->layout.bytes ? end : frame->layout.bytes;
}

bool wf_frame_cut_of(const struct wf_frame *frame, uint64_t from, uint64_t to,
                     struct wf_frame_cut *out)
{
    if (!frame->table || from >= to || to > frame->layout.bytes)
        return false;
    uint64_t each = plane_bytes(frame), planes = 0;
    struct wf_frame_cut cut = {.from = from,
                               .to = to,
                               .first = (uint32_t)(from / each),
                               .end = (uint32_t)((to - 1) / each + 1),
                               .lead = sizeof frame->head +
                                       frame->head.planes * sizeof(struct wf_frame_plane)};
    if (cut.end > frame->layout.planes)
        return false;
    cut.at = cut.lead;
    for (uint32_t i = 0; i < cut.first; i++)
        cut.at += encoded_bytes(frame, i);
    for (uint32_t i = cut.first; i < cut.end; i++) {
        uint64_t bytes = encoded_bytes(frame, i);
        if (bytes > each)
            return false;
        planes += bytes;
    }
    cut.bytes = cut.lead + planes;
    if (cut.bytes >= to - from)
        return false;
    for (uint32_t i = cut.first; i + 1 < cut.end; i++) {
        planes -= encoded_bytes(frame, i);
        if (planes > to - end_of(frame, i, each))
            return false;
    }
    *out = cut;
    return true;
}

enum weft_status wf_frame_cut_decode(const struct wf_frame *frame, const struct wf_frame_cut *cut,
                                     const struct wf_profile *profile, uint8_t *range,
                                     uint8_t *aside, void *scratch)
{
    uint64_t each = plane_bytes(frame), at = cut->at;
    const uint8_t *planes = range + (cut->to - cut->from - cut->bytes) + cut->lead;
    for (uint32_t i = cut->first; i < cut->end; i++) {
        uint64_t bytes = encoded_bytes(frame, i), begins = i * each, ends = end_of(frame, i, each);
        bool whole = begins >= cut->from && ends <= cut->to;
        /* Where the block would begin, of which only the range, or this plane, is there. */
        uintptr_t block = whole ? (uintptr_t)range - cut->from : (uintptr_t)aside + each - begins;
        memcpy(aside, planes, bytes);
        enum weft_status status = wf_frame_decode(frame, (const void *)((uintptr_t)aside - at), i,
                                                  i + 1, profile, (void *)block, scratch);
        if (status != WEFT_OK)
            return status;
        if (!whole) {
            uint64_t from = begins > cut->from ? begins : cut->from;
            uint64_t to = ends < cut->to ? ends : cut->to;
            memcpy(range + (from - cut->from), aside + each + (from - begins), to - from);
        }
        planes += bytes;
        at += bytes;
    }
    return WEFT_OK;
}
