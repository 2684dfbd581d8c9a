/* SPDX-License-Identifier: Apache-2.0
 *
 * The calibrated transform codec (wf_codec_transform), and what it has of its own.
 *
 * The vector of a token and a group of heads is taken into the profile's basis, each coefficient
 * is rounded to a multiple of the group's step, and the multiples are entropy-coded, each with the
 * distribution that the profile expects of it.  In that basis equal errors cost equally, so one
 * step for all coefficients is the best there is (reverse water-filling: T. Cover, J. Thomas,
 * Elements of Information Theory, 10.3.3), and what varies less than a step costs next to nothing.
 * Nothing is clipped: an outlier costs bits, not accuracy.  That caches compress well in such a
 * basis, before rotary positions, is KVTC's finding (arXiv 2511.01815); weighting by what errors
 * cost the model's answers is ours (calibrate.h).
 *
 * An encoded plane:
 *
 *     +----------+----------------------------------+---------------------------+
 *     | sinks u8 | the first `sinks` tokens, exact  | coder.h's stream          |
 *     +----------+----------------------------------+---------------------------+
 *
 * The tokens after the sinks go 16 at a time, a token a lane (transform_lanes.h); the last time may
 * have fewer.  Of 16 tokens each group of heads goes in turn, its coefficients in eights.  Where
 * the profile expects that an eight may well be zero for all 16, a bit in the front of the stream
 * says whether it is not; what is zero then costs neither bits nor time, in the basis or in the
 * coder.
 */
#ifndef WF_CODEC_TRANSFORM_H
#define WF_CODEC_TRANSFORM_H

#include "codec/codec.h"
#include "codec/transform_lanes.h"

/* The parameter at which steps are what the profile says; each more makes them 2^(1/16) wider. */
#define WF_TRANSFORM_UNIT 1024u
#define WF_TRANSFORM_PER_OCTAVE 16u
#define WF_TRANSFORM_PARAMETER_MAX 2047u

/* What the profile's steps are multiplied by at `parameter`. */
float wf_transform_factor(uint32_t parameter);

/* As the codec's encode() and decode(), by such kernels. */
enum weft_status wf_transform_encode_by(const struct wf_lanes_kernels *k,
                                        const struct wf_plane *plane, uint32_t parameter,
                                        const void *plain, void *out, size_t capacity,
                                        size_t *out_bytes, void *scratch);
enum weft_status wf_transform_decode_by(const struct wf_lanes_kernels *k,
                                        const struct wf_plane *plane, uint32_t parameter,
                                        const void *in, size_t bytes, void *plain, void *scratch);

#endif
