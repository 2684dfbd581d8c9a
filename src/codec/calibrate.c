/* SPDX-License-Identifier: Apache-2.0
 *
 * See calibrate.h for the method; here are its sums, in double.
 */
#include "codec/calibrate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/calibrate_inner.h"
#include "codec/eigen.h"
#include "codec/transform.h"

#define DIMS 128u
#define SAMPLES 16u /* keys of a sequence and head whose queries are looked at */
/* Of M's mean eigenvalue: directions that hardly count still must come back roughly. */
#define REGULAR 1e-3

static bool sound(const struct wf_calibration_shape *s)
{
    return s->layers >= 1 && s->layers <= WF_PROFILE_LAYERS_MAX && s->heads >= 1 &&
           s->heads <= WF_PROFILE_HEADS_MAX && s->query_heads >= s->heads &&
           s->query_heads % s->heads == 0 && s->head_dim >= 1 &&
           s->head_dim <= WF_PROFILE_DIMS_MAX && s->dims_max <= WF_PROFILE_DIMS_MAX &&
           s->sinks <= WF_PROFILE_SINKS_MAX && weft_dtype_bytes(s->dtype) > 0 &&
           s->rope_dims <= s->head_dim && s->rope_dims % 2 == 0;
}

static bool make_groups(struct wf_calibration *c)
{
    for (uint32_t i = 0; i < 2 * c->shape.layers * c->groups; i++) {
        struct wf_calibration_group *g = &c->group[i];
        size_t dims = wf_profile_dims(&c->profile, i % c->groups);
        if (dims == 0)
            return false; /* there is no such group */
        g->dims = (uint32_t)dims;
        g->step = 1;
        g->sum = calloc(dims, sizeof(double));
        g->squares = calloc(dims * dims, sizeof(double));
        g->metric = calloc(dims * dims, sizeof(double));
        g->magnitude = calloc(dims, sizeof(double));
        g->variance = calloc(dims, sizeof(double));
        if (!g->sum || !g->squares || !g->metric || !g->magnitude || !g->variance)
            return false;
    }
    return true;
}

enum weft_status wf_calibration_create(const struct wf_calibration_shape *shape,
                                       struct wf_calibration **out)
{
    if (!sound(shape))
        return wf_fail(WEFT_E_INVALID,
                       "no profile can be made of %u layers of %u heads of %u elements",
                       shape->layers, shape->heads, shape->head_dim);
    struct wf_calibration *c = calloc(1, sizeof *c);
    if (!c)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a calibration");
    c->shape = *shape;
    c->shape.model = NULL;
    uint32_t most = shape->dims_max ? shape->dims_max : DIMS, heads = most / shape->head_dim;
    struct wf_profile_head *head = &c->profile.head;
    head->layers = shape->layers;
    head->heads = shape->heads;
    head->head_dim = shape->head_dim;
    head->group_heads = heads < 1 ? 1 : heads > shape->heads ? shape->heads : heads;
    bool turns = shape->rope_pairing != WF_PROFILE_NO_ROPE && shape->rope_dims > 0;
    head->rope_dims = turns ? shape->rope_dims : 0;
    head->rope_pairing = turns ? shape->rope_pairing : WF_PROFILE_NO_ROPE;
    head->dtype = (uint8_t)shape->dtype;
    head->sinks = (uint8_t)shape->sinks;
    if (shape->model)
        snprintf(head->model, sizeof head->model, "%s", shape->model);
    c->groups = c->profile.groups = (head->heads + head->group_heads - 1) / head->group_heads;
    c->group = calloc((size_t)2 * shape->layers * c->groups, sizeof *c->group);
    c->mixing = calloc((size_t)shape->layers * shape->query_heads * shape->head_dim *
                           shape->head_dim,
                       sizeof *c->mixing);
    c->mixed = calloc(shape->layers, sizeof *c->mixed);
    c->frequencies = calloc(shape->head_dim, sizeof *c->frequencies);
    if (!c->group || !c->mixing || !c->mixed || !c->frequencies || !make_groups(c)) {
        wf_calibration_destroy(c);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for the covariances of a calibration");
    }
    wf_rope_frequencies(shape->rope_theta, head->rope_dims, c->frequencies);
    c->profile.rope = (struct wf_rope){.pairing = turns ? (enum wf_rope_pairing)shape->rope_pairing
                                                        : WF_ROPE_INTERLEAVED,
                                       .dims = head->rope_dims,
                                       .frequencies = c->frequencies};
    *out = c;
    return WEFT_OK;
}

void wf_calibration_destroy(struct wf_calibration *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; c->group && i < 2 * c->shape.layers * c->groups; i++) {
        struct wf_calibration_group *g = &c->group[i];
        free(g->sum);
        free(g->squares);
        free(g->metric);
        free(g->magnitude);
        free(g->variance);
        free(g->forward);
        free(g->inverse);
    }
    free(c->group);
    free(c->mixing);
    free(c->mixed);
    free(c->frequencies);
    free(c);
}

struct wf_calibration_group *wf_calibration_group_of(const struct wf_calibration *c, uint32_t layer,
                                                     bool value, uint32_t index)
{
    return &c->group[((size_t)layer * 2 + value) * c->groups + index];
}

static float *mixing_of(const struct wf_calibration *c, uint32_t layer, uint32_t query_head)
{
    size_t square = (size_t)c->shape.head_dim * c->shape.head_dim;
    return c->mixing + ((size_t)layer * c->shape.query_heads + query_head) * square;
}

void wf_calibration_mixing(struct wf_calibration *c, uint32_t layer, const float *matrix,
                           uint32_t rows)
{
    uint32_t d = c->shape.head_dim;
    for (uint32_t h = 0; h < c->shape.query_heads; h++) {
        float *out = mixing_of(c, layer, h);
        for (uint32_t r = 0; r < rows; r++) {
            const float *row = matrix + ((size_t)r * c->shape.query_heads + h) * d;
            for (uint32_t i = 0; i < d; i++)
                for (uint32_t j = 0; j < d; j++)
                    out[i * d + j] += row[i] * row[j];
        }
    }
    c->mixed[layer] = true;
}

/* -------------------------------------------------------------------------------- what is added */

/* A head of a sequence. */
struct look {
    uint32_t tokens, d;
    const float *q, *k, *v; /* [tokens] rows, so many floats apart: */
    size_t q_stride, kv_stride;
    const float *mix;       /* [d][d] WᵀW */
    float *weight, *output; /* [tokens][tokens], [tokens][d] */
    float *mixed;           /* [tokens][d]: WᵀW v */
    float *own, *out_own;   /* [tokens]: vᵀWᵀWv, oᵀWᵀWo */
};

/* Sixteen running sums, so that a compiler makes vectors of it. */
static float dot(const float *a, const float *b, uint32_t n)
{
    float part[16] = {0}, sum = 0;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t k = 0; k < 16; k++)
            part[k] += a[i + k] * b[i + k];
    for (; i < n; i++)
        sum += a[i] * b[i];
    for (uint32_t k = 0; k < 16; k++)
        sum += part[k];
    return sum;
}

/* Attention as the model has it, and what comes of it. */
static void attend(const struct look *l)
{
    float scale = 1 / sqrtf((float)l->d);
    for (uint32_t s = 0; s < l->tokens; s++) {
        float *w = l->weight + (size_t)s * l->tokens, most = -INFINITY, sum = 0;
        for (uint32_t t = 0; t <= s; t++) {
            w[t] = scale * dot(l->q + s * l->q_stride, l->k + t * l->kv_stride, l->d);
            most = w[t] > most ? w[t] : most;
        }
        for (uint32_t t = 0; t <= s; t++) {
            w[t] = expf(w[t] - most);
            sum += w[t];
        }
        float *o = l->output + (size_t)s * l->d;
        memset(o, 0, l->d * sizeof *o);
        for (uint32_t t = 0; t <= s; t++) {
            const float *v = l->v + t * l->kv_stride;
            w[t] /= sum;
            for (uint32_t i = 0; i < l->d; i++)
                o[i] += w[t] * v[i];
        }
    }
}

static void mix(const struct look *l)
{
    for (uint32_t t = 0; t < l->tokens; t++) {
        const float *v = l->v + t * l->kv_stride, *o = l->output + (size_t)t * l->d;
        float *m = l->mixed + (size_t)t * l->d, own = 0;
        for (uint32_t i = 0; i < l->d; i++) {
            m[i] = dot(l->mix + (size_t)i * l->d, v, l->d);
            own += o[i] * dot(l->mix + (size_t)i * l->d, o, l->d);
        }
        l->own[t] = dot(m, v, l->d);
        l->out_own[t] = own;
    }
}

/* M of values: Σ p² WᵀW a query. */
static void weigh_values(const struct wf_calibration *c, const struct look *l, double *metric,
                         size_t stride)
{
    double sum = 0;
    for (uint32_t s = 0; s < l->tokens; s++)
        for (uint32_t t = c->shape.sinks; t <= s; t++)
            sum += (double)l->weight[(size_t)s * l->tokens + t] *
                   l->weight[(size_t)s * l->tokens + t];
    sum /= l->tokens;
    for (uint32_t i = 0; i < l->d; i++)
        for (uint32_t j = 0; j < l->d; j++)
            metric[i * stride + j] += sum * l->mix[i * l->d + j];
}

/* M of keys, of some of them, spread evenly: their queries' turned back by the keys' positions. */
static void weigh_keys(struct wf_calibration *c, const struct look *l, double *metric,
                       size_t stride, float *query)
{
    uint32_t from = c->shape.sinks, many = l->tokens - from;
    uint32_t count = many < SAMPLES ? many : SAMPLES;
    for (uint32_t n = 0; n < count; n++) {
        uint32_t t = from + (uint32_t)(((uint64_t)many * (2 * n + 1) + c->turn) / (2 * count));
        if (t >= l->tokens)
            t = l->tokens - 1;
        for (uint32_t s = t; s < l->tokens; s++) {
            double p = l->weight[(size_t)s * l->tokens + t];
            double apart = (double)l->own[t] + l->out_own[s] -
                           2 * (double)dot(l->output + (size_t)s * l->d,
                                           l->mixed + (size_t)t * l->d, l->d);
            double weight = p * p * apart / l->d * many / count / l->tokens;
            if (!(weight > 0))
                continue;
            memcpy(query, l->q + s * l->q_stride, l->d * sizeof *query);
            wf_rope_undo(&c->profile.rope, t, query, 1, 1, l->d);
            for (uint32_t i = 0; i < l->d; i++) {
                double part = weight * query[i];
                for (uint32_t j = 0; j < l->d; j++)
                    metric[i * stride + j] += part * query[j];
            }
        }
    }
    c->turn = (c->turn * 5 + 3) % 16; /* other ones the next time */
}

static void gather(struct wf_calibration *c, uint32_t layer, bool value, uint32_t tokens,
                   const float *rows)
{
    size_t stride = (size_t)c->shape.heads * c->shape.head_dim, at = 0;
    for (uint32_t i = 0; i < c->groups; i++) {
        struct wf_calibration_group *g = wf_calibration_group_of(c, layer, value, i);
        for (uint32_t t = c->shape.sinks; t < tokens; t++) {
            const float *x = rows + t * stride + at;
            for (uint32_t a = 0; a < g->dims; a++) {
                double xa = x[a];
                g->sum[a] += xa;
                for (uint32_t b = 0; b <= a; b++)
                    g->squares[(size_t)a * g->dims + b] += xa * x[b];
            }
            g->count += 1;
        }
        at += g->dims;
    }
}

enum weft_status wf_calibration_add(struct wf_calibration *c, uint32_t layer, uint32_t tokens,
                                    const float *keys, const float *values, const float *queries)
{
    const struct wf_calibration_shape *s = &c->shape;
    uint32_t d = s->head_dim, each = s->query_heads / s->heads,
             in_group = c->profile.head.group_heads;
    size_t row = (size_t)s->heads * d, square = (size_t)d * d;
    if (tokens <= s->sinks)
        return WEFT_OK;
    size_t floats = (size_t)tokens * (tokens + 2 * d + 2) + tokens * row + d + square;
    float *memory = malloc(floats * sizeof *memory);
    if (!memory)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for the attention of %u tokens", tokens);
    float *turned = memory + (size_t)tokens * (tokens + 2 * d + 2), *query = turned + tokens * row;
    float *plain = query + d;
    for (uint32_t i = 0; i < square; i++)
        plain[i] = i % (d + 1) == 0;

    struct look l = {.tokens = tokens,
                     .d = d,
                     .q_stride = (size_t)s->query_heads * d,
                     .kv_stride = row,
                     .weight = memory,
                     .output = memory + (size_t)tokens * tokens};
    l.mixed = l.output + (size_t)tokens * d;
    l.own = l.mixed + (size_t)tokens * d;
    l.out_own = l.own + tokens;
    for (uint32_t h = 0; h < s->query_heads; h++) {
        uint32_t kv = h / each;
        l.q = queries + (size_t)h * d;
        l.k = keys + (size_t)kv * d;
        l.v = values + (size_t)kv * d;
        l.mix = c->mixed[layer] ? mixing_of(c, layer, h) : plain;
        attend(&l);
        mix(&l);
        size_t offset = (size_t)(kv % in_group) * d;
        struct wf_calibration_group *g = wf_calibration_group_of(c, layer, true, kv / in_group);
        weigh_values(c, &l, g->metric + offset * (g->dims + 1), g->dims);
        g = wf_calibration_group_of(c, layer, false, kv / in_group);
        weigh_keys(c, &l, g->metric + offset * (g->dims + 1), g->dims, query);
    }
    memcpy(turned, keys, tokens * row * sizeof *turned);
    wf_rope_undo(&c->profile.rope, 0, turned, tokens, s->heads, d);
    gather(c, layer, false, tokens, turned);
    gather(c, layer, true, tokens, values);
    if (layer == 0)
        c->profile.head.tokens += tokens;
    free(memory);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------ the basis */

/* root = M½ and back = M−½, block by block of `d`; spare [d × d + 2 d]. */
static bool roots(const struct wf_calibration_group *g, uint32_t d, double *root, double *back,
                  double *spare)
{
    size_t n = g->dims;
    double *vectors = spare, *values = spare + (size_t)d * d, *more = values + d;
    double trace = 0;
    for (size_t i = 0; i < n; i++)
        trace += g->metric[i * n + i];
    double least = trace > 0 ? trace / (double)n * REGULAR : 1;
    memset(root, 0, n * n * sizeof *root);
    memset(back, 0, n * n * sizeof *back);
    for (size_t at = 0; at < n; at += d) {
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j < d; j++)
                vectors[i * d + j] =
                    (g->metric[(at + i) * n + at + j] + g->metric[(at + j) * n + at + i]) / 2 +
                    (i == j ? least : 0);
        if (!wf_eigen(vectors, d, values, more))
            return false;
        for (size_t k = 0; k < d; k++) {
            double up = sqrt(values[k] > least ? values[k] : least);
            for (size_t i = 0; i < d; i++)
                for (size_t j = 0; j < d; j++) {
                    double part = vectors[k * d + i] * vectors[k * d + j];
                    root[(at + i) * n + at + j] += up * part;
                    back[(at + i) * n + at + j] += part / up;
                }
        }
    }
    return true;
}

/* out = a b */
static void product(const double *a, const double *b, size_t n, double *out)
{
    memset(out, 0, n * n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++) {
            double part = a[i * n + k];
            for (size_t j = 0; j < n; j++)
                out[i * n + j] += part * b[k * n + j];
        }
}

static bool design_group(const struct wf_calibration *c, struct wf_calibration_group *g,
                         double *work)
{
    size_t n = g->dims, square = n * n;
    double *root = work, *back = root + square, *first = back + square, *basis = first + square;
    double *covariance = basis + square, *spare = covariance + square;
    g->forward = malloc(square * sizeof *g->forward);
    g->inverse = malloc(square * sizeof *g->inverse);
    if (!g->forward || !g->inverse || !(g->count > 0) ||
        !roots(g, c->shape.head_dim, root, back, spare))
        return false;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++)
            covariance[i * n + j] = covariance[j * n + i] =
                g->squares[i * n + j] / g->count - g->sum[i] / g->count * (g->sum[j] / g->count);
    product(root, covariance, n, first);
    product(first, root, n, basis);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            basis[i * n + j] = basis[j * n + i] = (basis[i * n + j] + basis[j * n + i]) / 2;
    if (!wf_eigen(basis, n, g->variance, spare))
        return false;
    /* Rows of `basis` are the eigenvectors u: forward is u M½, inverse u M−½. */
    product(basis, root, n, first);
    product(basis, back, n, covariance);
    for (size_t i = 0; i < n; i++) {
        g->variance[i] = g->variance[i] > 0 ? g->variance[i] : 0;
        for (size_t j = 0; j < n; j++) {
            g->forward[j * n + i] = (float)first[i * n + j];
            g->inverse[i * n + j] = (float)covariance[i * n + j];
        }
    }
    return true;
}

enum weft_status wf_calibration_design(struct wf_calibration *c)
{
    size_t most = wf_profile_dims(&c->profile, 0);
    double *work = malloc((6 * most * most + 4 * most) * sizeof *work);
    bool made = work != NULL;
    for (uint32_t i = 0; made && i < 2 * c->shape.layers * c->groups; i++)
        made = design_group(c, &c->group[i], work);
    free(work);
    return made ? WEFT_OK
                : wf_fail(WEFT_E_INVALID,
                          "no basis comes of this calibration: its KV or queries are "
                          "too few, or no numbers");
}
