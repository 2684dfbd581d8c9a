/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier whose blocks lie encoded on the tier behind it.
 *
 * Whoever drives it sees the blocks as they are: their bytes, their parts, their rules (tier.h).
 * What is written is made a frame (codec/frame.h) first, by threads of its own; what is read is
 * decoded by them, planes as they are needed, straight into the caller's memory.  A block that
 * does not become smaller, or of which its writer does not say how it is
 * laid out, is written as it is,
 * without a copy; after several such in a row, only one of sixteen is tried.
 *
 *     the caller's memory ──► encode, a worker ──► the tier's own memory ──► the tier behind
 *     the caller's memory ◄── decode, a worker ◄── the tier's own memory ◄── the tier behind
 *
 * To read needs no knowledge of the layout: the frame says everything.  So blocks that were written
 * encoded are read when encoding has been turned off, too.
 *
 * A plan may name a lossy codec.  What that does not take (planes that a profile does not fit, an
 * engine's opaque payload) is encoded by the tier's own, and a block of which no plane is lossy is
 * exact.  A block that is not has its quality in `plain_quality`, on the medium and as it is given
 * out; the frame says the same, or it is corrupt.  To read it takes the profile that it names:
 * without it a read is WEFT_E_NOT_FOUND and the block stays.  Whether its bytes are whole can be
 * seen all the same: a read `as_stored` verifies them and decodes nothing.  Neither does a read
 * `as_cut`, which is for who decodes a range elsewhere.
 *
 * What room there is, and what a block takes of it, is the tier's behind.  A block lies there with
 * the frame as its payload, and `plain_bytes` and `plain_part_bytes` say what it decodes to.
 *
 * One thread drives it, as every tier.  A crash leaves what it leaves on the tier behind: this one
 * has no state that outlives it.
 */
#ifndef WF_TIER_CODED_H
#define WF_TIER_CODED_H

#include "codec/frame_cut.h"
#include "tier/tier.h"

#define WF_CODED_WORKERS_MAX 64u
#define WF_CODED_PLANES_MAX 1024u              /* what has more of them is written as it is, */
#define WF_CODED_PLANE_BYTES_MAX (8u << 20)    /* and what has larger ones, */
#define WF_CODED_SCRATCH_BYTES_MAX (64u << 20) /* or needs more to work in */
#define WF_CODED_BYTES_LEAST 8192u             /* no page is saved on less */

/* How a block is to be encoded: wf_tier_request.plan, which submit copies. */
struct wf_coded_plan {
    struct wf_layout layout;
    uint64_t position;            /* of its first token in its sequence */
    const struct wf_codec *codec; /* for each plane; NULL: the tier's own, which is lossless */
    uint32_t parameter;
    const struct wf_profile *profile; /* outlives the tier; NULL: none */
    uint8_t quality; /* enum weft_quality that it is made for; 0 or WEFT_LOSSLESS: exact, and then
                        so is `codec` */
    /* The payload has lost something before, which only a frame with loss can say: without one it
     * is not written (WEFT_E_INVALID). */
    bool lost;
    /* KV that the profile is not for (rotary positions of another kind, another type of numbers)
     * shows by its frame: one that is larger than this has no loss.  0: any may.  Not with
     * `lost`. */
    uint64_t bytes_most;
};

/* wf_tier_options.coded */
struct wf_coded_options {
    const struct wf_tier_ops *ops; /* the tier behind; its options are the same */
    const struct wf_codec *codec;  /* a lossless one; NULL: what is written is written as it is */
    uint32_t workers;              /* threads, up to WF_CODED_WORKERS_MAX; 0: the one that drives
                                      it, in reap */
    uint64_t memory_bytes;         /* for frames on their way; a block that needs more than three
                                      quarters of it is written as it is */
    uint32_t part_bytes;           /* of a frame: how much of it is read and verified at a time, at
                                      least; a multiple of WF_TIER_ALIGN */
    /* The profile with that id (profile.h), NULL: it is not here.  Workers ask, several at a time;
     * what they get outlives the tier.  NULL: no profile is known. */
    const struct wf_profile *(*profile)(void *profiles, uint64_t id);
    void *profiles;
};

/* For a tier behind: how to drive one that codes; what it has besides the rules that all keep
 * (news, hosts, fence) is forwarded.  Its options must have `coded`. */
const struct wf_tier_ops *wf_tier_coded_over(const struct wf_tier_ops *behind);

/* Can such blocks be encoded: has it not too many planes, or too large ones? */
bool wf_coded_workable(const struct wf_layout *layout);

#if WF_TEST_HOOKS
/* As if the process had died: `crash` does that to the tier behind. */
void wf_tier_coded_crash(struct wf_tier *tier, void (*crash)(struct wf_tier *behind));
/* The tier behind, for who breaks it. */
struct wf_tier *wf_tier_coded_behind(struct wf_tier *tier);
#endif

#endif
