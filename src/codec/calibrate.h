/* SPDX-License-Identifier: Apache-2.0
 *
 * Calibration: from a model's KV and queries over a text, a profile for wf_codec_transform.
 *
 * What an error in K or V costs is taken from what it does to the attention's output, which is the
 * first place where it shows.  With p(s, t) the weight that query s gives token t, W the matrix
 * that takes a head's output to the residual stream, v(t) the value and o(s) the output:
 *
 *     an error e of v(t) moves the output of s by W p(s, t) e, so its square costs
 *         eᵀ [ Σ p² WᵀW ] e
 *     an error e of k(t), rotary positions off, moves the score by q(s)ᵀ R e / √d and the output by
 *     p(s, t) (v(t) − o(s)) times that, to first order:
 *         eᵀ [ Σ p² |W (v(t) − o(s))|² (Rᵀq)(Rᵀq)ᵀ / d ] e
 *
 * With M the matrix in brackets, averaged, and C the covariance of the vectors, the basis is that
 * of the eigenvectors of M½ C M½: errors of equal size in it cost equally, and its coefficients are
 * not correlated.  How much a layer's K or V counts against another's is measured: each alone is
 * coded with a step of its own and the model's answers are compared (sensitivity).  The cost of all
 * together is taken as the sum of  sensitivity × squared error, which holds while errors are small.
 *
 * One thread at a time.  It allocates: it is no part of the data path.
 */
#ifndef WF_CODEC_CALIBRATE_H
#define WF_CODEC_CALIBRATE_H

#include "codec/profile.h"

struct wf_calibration_shape {
    uint32_t layers, query_heads, heads, head_dim; /* heads: of K and V; divides query_heads */
    uint32_t dims_max; /* of a group; 0: 128.  Never fewer than one head's */
    uint32_t sinks;    /* tokens at the beginning of a sequence that are stored exactly */
    enum weft_dtype dtype;
    uint8_t rope_pairing; /* enum wf_rope_pairing or WF_PROFILE_NO_ROPE */
    uint32_t rope_dims;
    double rope_theta;
    const char *model;
};

struct wf_calibration;

enum weft_status wf_calibration_create(const struct wf_calibration_shape *shape,
                                       struct wf_calibration **out);
void wf_calibration_destroy(struct wf_calibration *calibration);

/* The matrix that takes the heads' outputs of a layer to the residual stream: [rows][query_heads ×
 * head_dim].  Without it all directions count alike. */
void wf_calibration_mixing(struct wf_calibration *c, uint32_t layer, const float *matrix,
                           uint32_t rows);

/* A sequence from its beginning: keys and values [tokens][heads][head_dim], keys turned; queries
 * [tokens][query_heads][head_dim], turned. */
enum weft_status wf_calibration_add(struct wf_calibration *c, uint32_t layer, uint32_t tokens,
                                    const float *keys, const float *values, const float *queries);

/* The bases of what was added.  Steps are 1 until wf_calibration_steps(). */
enum weft_status wf_calibration_design(struct wf_calibration *c);

/* After that: how large coefficients are, from blocks that may be others' than those that were
 * added.  `rows` [tokens][heads][head_dim] as in a plane at `position`. */
void wf_calibration_observe(struct wf_calibration *c, uint32_t layer, bool value, uint64_t position,
                            uint32_t tokens, const float *rows);

/* The mean squared error of a token's vector of a plane, in the units of M, at such a step; and the
 * step at which it is a given part of all that there is. */
double wf_calibration_error(const struct wf_calibration *c, uint32_t layer, bool value,
                            double step);
double wf_calibration_step_of(const struct wf_calibration *c, uint32_t layer, bool value,
                              double part);

/* What a plane's error costs: KL for each unit of wf_calibration_error(). */
void wf_calibration_sensitivity(struct wf_calibration *c, uint32_t layer, bool value, double kl);
void wf_calibration_step(struct wf_calibration *c, uint32_t layer, bool value, double step);
/* Steps of all planes such that another bit costs as much wherever it is saved, and the whole is
 * predicted to cost `kl` at WF_TRANSFORM_UNIT. */
void wf_calibration_steps(struct wf_calibration *c, double kl);
/* What that predicts for another parameter: KL, and bits an element by the entropy of a Laplace
 * distribution. */
void wf_calibration_predict(const struct wf_calibration *c, uint32_t parameter, double *out_kl,
                            double *out_bits);

/* Bits an element of a plane that a profile predicts in the same way. */
double wf_calibration_bits(const struct wf_profile *profile, uint32_t layer, bool value,
                           uint32_t parameter);

/* The profile's file as it is now, with `points`; for free(). */
enum weft_status wf_calibration_file(const struct wf_calibration *c,
                                     const struct wf_profile_point points[WF_PROFILE_POINTS],
                                     void **out, size_t *out_bytes);

#endif
