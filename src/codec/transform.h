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
 * Coefficients go token by token, group by group, in eights.  Where the profile expects most of an
 * eight to be zero, one symbol tells which of them is the first that is not (or none), so that what
 * is not there costs neither bits nor time.
 */
#ifndef WF_CODEC_TRANSFORM_H
#define WF_CODEC_TRANSFORM_H

#include "codec/codec.h"

/* The parameter at which steps are what the profile says; each more makes them 2^(1/16) wider. */
#define WF_TRANSFORM_UNIT 1024u
#define WF_TRANSFORM_PER_OCTAVE 16u
#define WF_TRANSFORM_PARAMETER_MAX 2047u

/* What the profile's steps are multiplied by at `parameter`. */
float wf_transform_factor(uint32_t parameter);

/* out[i] = start[i] + Σ weights[k] × matrix[rows[k]][i], k = 0 … count − 1 in this order; `dims`
 * floats a row. */
void wf_transform_combine(float *out, const float *start, const float *weights,
                          const uint16_t *rows, uint32_t count, const float *matrix, uint32_t dims);
/* For tests: the same with vectors of 4, 8 or 16 floats; false: not on this machine. */
bool wf_transform_combine_width(unsigned width, float *out, const float *start,
                                const float *weights, const uint16_t *rows, uint32_t count,
                                const float *matrix, uint32_t dims);

#endif
