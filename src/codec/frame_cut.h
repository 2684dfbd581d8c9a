/* SPDX-License-Identifier: Apache-2.0
 *
 * Cuts of frames: of a block that lies somewhere as a frame (frame.h), what another has to have to
 * decode a range of it.
 *
 *     | head | table | plane first | … | plane end - 1 |
 *
 * Head and table are the frame's, all of them; of the planes there are those in a row that have
 * some of the range.  A cut is shorter than its range, and is decoded where it is: it lies at the
 * end of the memory that the range is to have, and is decoded from the front,
 *
 *     |                 | lead | plane 2, encoded | plane 3 | plane 4 |     as it came
 *     | plane 2, its end  | plane 3, decoded    | plane 4, its front  |     as it is to be
 *
 * each plane moved out of the way first.  So of what is not decoded yet there is never more than of
 * what is to be written still; a frame of which that is not so has no cut for the range, and who is
 * sent one all the same refuses it.
 *
 * Any thread; nothing is kept.
 */
#ifndef WF_CODEC_FRAME_CUT_H
#define WF_CODEC_FRAME_CUT_H

#include "codec/frame.h"

struct wf_frame_cut {
    uint64_t from, to;   /* of the block */
    uint32_t first, end; /* planes */
    uint64_t lead;       /* bytes of head and table */
    uint64_t at;         /* where plane `first` begins in the frame */
    uint64_t bytes;      /* of the cut */
};

/* Of a frame whose table is there.  False: there is none that is shorter than the range, or none
 * that can be decoded in its place. */
bool wf_frame_cut_of(const struct wf_frame *frame, uint64_t from, uint64_t to,
                     struct wf_frame_cut *out);

/* `range` has the range's bytes, and the cut at its end.  `frame` is opened from a copy of the lead
 * that lies elsewhere; `aside` has room for two planes; `profile` as for wf_frame_decode().
 * WEFT_E_CORRUPT: what is at `range` is worth nothing. */
enum weft_status wf_frame_cut_decode(const struct wf_frame *frame, const struct wf_frame_cut *cut,
                                     const struct wf_profile *profile, uint8_t *range,
                                     uint8_t *aside, void *scratch);

#endif
