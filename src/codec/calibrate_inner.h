/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two halves of calibration share: the sums (calibrate.c), and what is chosen by them
 * (calibrate_steps.c).
 */
#ifndef WF_CODEC_CALIBRATE_INNER_H
#define WF_CODEC_CALIBRATE_INNER_H

#include "codec/calibrate.h"

/* A group of heads of a plane. */
struct wf_calibration_group {
    uint32_t dims;
    double count, *sum, *squares; /* of vectors: Σ 1, Σ x, the lower half of Σ x xᵀ */
    double *metric;               /* Σ M, block by block of a head */
    double *variance;             /* [dims] of coefficients, as designed */
    float *forward, *inverse;     /* as in the profile */
    double observed, *magnitude;  /* Σ 1, Σ |coefficient| */
    double step, sensitivity;
};

struct wf_calibration {
    struct wf_calibration_shape shape;
    struct wf_profile profile; /* its head and rope */
    uint32_t groups;           /* of a plane */
    struct wf_calibration_group *group;
    float *mixing; /* [layers][query_heads][head_dim][head_dim] */
    bool *mixed;   /* [layers]: it was given */
    double *frequencies;
    uint32_t turn; /* which keys are looked at */
};

struct wf_calibration_group *wf_calibration_group_of(const struct wf_calibration *c, uint32_t layer,
                                                     bool value, uint32_t index);

#endif
