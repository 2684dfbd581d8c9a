/* SPDX-License-Identifier: Apache-2.0
 *
 * The second half of a calibration: how large coefficients are, what errors cost, which steps
 * follow, and the file.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibrate_inner.h"
#include "codec/transform.h"

/* Of a coefficient's deviation, what its mean magnitude is taken to be before it was observed: a
 * Laplace distribution's. */
#define MAGNITUDE 0.70710678

static void coefficients_of(const struct wf_calibration_group *group, const float *x,
                            float *restrict out)
{
    memset(out, 0, group->dims * sizeof *out);
    for (uint32_t i = 0; i < group->dims; i++)
        for (uint32_t j = 0; j < group->dims; j++)
            out[j] += x[i] * group->forward[(size_t)i * group->dims + j];
}

void wf_calibration_observe(struct wf_calibration *c, uint32_t layer, bool value, uint64_t position,
                            uint32_t tokens, const float *rows)
{
    const struct wf_calibration_shape *s = &c->shape;
    size_t stride = (size_t)s->heads * s->head_dim;
    float x[WF_PROFILE_DIMS_MAX], y[WF_PROFILE_DIMS_MAX], row[WF_PROFILE_DIMS_MAX];
    for (uint32_t t = 0; t < tokens; t++) {
        size_t at = 0;
        if (position + t < s->sinks)
            continue;
        for (uint32_t g = 0; g < c->groups; g++) {
            struct wf_calibration_group *group = wf_calibration_group_of(c, layer, value, g);
            memcpy(row, rows + t * stride + at, group->dims * sizeof *row);
            if (!value)
                wf_rope_undo(&c->profile.rope, position + t, row, 1, group->dims / s->head_dim,
                             s->head_dim);
            for (uint32_t i = 0; i < group->dims; i++)
                x[i] = row[i] - (float)(group->sum[i] / group->count);
            coefficients_of(group, x, y);
            for (uint32_t i = 0; i < group->dims; i++)
                group->magnitude[i] += fabs((double)y[i]);
            group->observed += 1;
            at += group->dims;
        }
    }
}

double wf_calibration_error(const struct wf_calibration *c, uint32_t layer, bool value, double step)
{
    double error = 0;
    for (uint32_t g = 0; g < c->groups; g++) {
        const struct wf_calibration_group *group = wf_calibration_group_of(c, layer, value, g);
        for (uint32_t i = 0; i < group->dims; i++)
            error += fmin(step * step / 12, group->variance[i]);
    }
    return error;
}

double wf_calibration_step_of(const struct wf_calibration *c, uint32_t layer, bool value,
                              double part)
{
    double low = 1e-12, high = 1e12, target = part * wf_calibration_error(c, layer, value, high);
    for (int i = 0; i < 100; i++) {
        double middle = sqrt(low * high);
        *(wf_calibration_error(c, layer, value, middle) < target ? &low : &high) = middle;
    }
    return low;
}

void wf_calibration_sensitivity(struct wf_calibration *c, uint32_t layer, bool value, double kl)
{
    for (uint32_t g = 0; g < c->groups; g++)
        wf_calibration_group_of(c, layer, value, g)->sensitivity = kl;
}

void wf_calibration_step(struct wf_calibration *c, uint32_t layer, bool value, double step)
{
    for (uint32_t g = 0; g < c->groups; g++)
        wf_calibration_group_of(c, layer, value, g)->step = step;
}

/* All planes' cost when a unit of cost buys a squared step of `level`. */
static double cost_at(const struct wf_calibration *c, double level)
{
    double cost = 0;
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++) {
        double sensitivity = wf_calibration_group_of(c, p / 2, p % 2, 0)->sensitivity;
        cost += sensitivity * wf_calibration_error(c, p / 2, p % 2, sqrt(level / sensitivity));
    }
    return cost;
}

void wf_calibration_steps(struct wf_calibration *c, double kl)
{
    /* What was measured as nothing, by chance, counts as the least that was something. */
    double least = INFINITY, low = 1e-24, high = 1e12;
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++) {
        double s = wf_calibration_group_of(c, p / 2, p % 2, 0)->sensitivity;
        least = s > 0 && s < least ? s : least;
    }
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++) {
        double s = wf_calibration_group_of(c, p / 2, p % 2, 0)->sensitivity;
        if (!(s > 0))
            wf_calibration_sensitivity(c, p / 2, p % 2, isfinite(least) ? least : 1);
    }
    for (int i = 0; i < 120; i++) {
        double middle = sqrt(low * high);
        *(cost_at(c, middle) < kl ? &low : &high) = middle;
    }
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++)
        wf_calibration_step(c, p / 2, p % 2,
                            sqrt(low / wf_calibration_group_of(c, p / 2, p % 2, 0)->sensitivity));
}

static double magnitude_of(const struct wf_calibration_group *g, uint32_t i)
{
    return g->observed > 0 ? g->magnitude[i] / g->observed : MAGNITUDE * sqrt(g->variance[i]);
}

/* Of a rounded Laplace distribution of that mean magnitude, in steps, with its sign. */
static double entropy_bits(double magnitude)
{
    if (magnitude < 0.02)
        return 0;
    double decay = exp(-1 / magnitude), root = exp(-0.5 / magnitude), zero = 1 - root;
    double bits = -zero * log2(zero > 1e-12 ? zero : 1e-12);
    /* Of what is not zero: the sign, and a geometric distribution. */
    bits += root * (1 - log2(root)) + root * (-log2(1 - decay) - decay / (1 - decay) * log2(decay));
    return bits;
}

void wf_calibration_predict(const struct wf_calibration *c, uint32_t parameter, double *out_kl,
                            double *out_bits)
{
    double factor = wf_transform_factor(parameter), kl = 0, bits = 0, elements = 0;
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++) {
        const struct wf_calibration_group *one = wf_calibration_group_of(c, p / 2, p % 2, 0);
        kl += one->sensitivity * wf_calibration_error(c, p / 2, p % 2, one->step * factor);
        for (uint32_t g = 0; g < c->groups; g++) {
            const struct wf_calibration_group *group = wf_calibration_group_of(c, p / 2, p % 2, g);
            for (uint32_t i = 0; i < group->dims; i++)
                bits += entropy_bits(magnitude_of(group, i) / (group->step * factor));
            elements += group->dims;
        }
    }
    *out_kl = kl;
    *out_bits = bits / elements;
}

double wf_calibration_bits(const struct wf_profile *profile, uint32_t layer, bool value,
                           uint32_t parameter)
{
    double factor = (double)wf_transform_factor(parameter), bits = 0, elements = 0;
    for (uint32_t g = 0; g < profile->groups; g++) {
        const struct wf_profile_group *group = wf_profile_group_of(profile, layer, value, g);
        uint32_t dims = wf_profile_dims(profile, g);
        for (uint32_t i = 0; i < dims; i++)
            bits += entropy_bits((double)group->scale[i] / ((double)group->step * factor));
        elements += dims;
    }
    return bits / elements;
}

enum weft_status wf_calibration_file(const struct wf_calibration *c,
                                     const struct wf_profile_point points[WF_PROFILE_POINTS],
                                     void **out, size_t *out_bytes)
{
    uint64_t bytes = wf_profile_file_bytes(&c->profile.head);
    if (!bytes)
        return wf_fail(WEFT_E_LIMIT, "a profile of this model would be larger than %llu bytes",
                       (unsigned long long)WF_PROFILE_BYTES_MAX);
    uint8_t *file = calloc(1, bytes);
    if (!file)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a profile of %llu bytes",
                       (unsigned long long)bytes);
    struct wf_profile_head *head = (void *)file;
    *head = c->profile.head;
    memcpy(head->points, points, sizeof head->points);
    memcpy(file + sizeof *head, c->frequencies, head->rope_dims / 2 * sizeof(double));
    for (uint32_t p = 0; p < 2 * c->shape.layers; p++) {
        for (uint32_t i = 0; i < c->groups; i++) {
            const struct wf_calibration_group *g = wf_calibration_group_of(c, p / 2, p % 2, i);
            float *at = (void *)(file + wf_profile_group_offset(head, p / 2, p % 2, i));
            size_t square = (size_t)g->dims * g->dims;
            at[0] = (float)g->step;
            at[1] = (float)g->sensitivity;
            at += 4;
            for (uint32_t k = 0; k < g->dims; k++) {
                at[k] = (float)(g->sum[k] / g->count);
                at[g->dims + k] = (float)magnitude_of(g, k);
            }
            memcpy(at + 2 * g->dims, g->forward, square * sizeof(float));
            memcpy(at + 2 * g->dims + square, g->inverse, square * sizeof(float));
        }
    }
    wf_profile_seal(file, bytes);
    *out = file;
    *out_bytes = bytes;
    return WEFT_OK;
}
