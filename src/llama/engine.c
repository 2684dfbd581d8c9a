/* SPDX-License-Identifier: Apache-2.0
 *
 * A batch of tokens goes through the layers together.  The matrices are split among threads by row,
 * attention by token; every part writes its own place.
 */
#include "llama/engine.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama/say.h"
#include "llama/team.h"

/* Below this many multiplications a second thread costs more than it gives. */
#define PART_MULTIPLIES 65536

struct wf_engine {
    const struct wf_model *model;
    const struct wf_kernel *kernel;
    struct wf_team *team;
    unsigned threads;
    uint32_t batch;
    const struct wf_engine_watch *watch; /* NULL: nobody looks */

    /* per token of a batch */
    float *x, *normed, *query, *mixed, *projected; /* [WF_ENGINE_BATCH][dim] */
    float *gate, *up;                              /* [WF_ENGINE_BATCH][hidden_dim] */
    float *scores;                                 /* [threads][heads / kv_heads][context] */
    float *logits; /* [WF_ENGINE_BATCH][vocab], once somebody wants them all; else NULL */
};

/* One matrix times a batch of vectors; out[t] says where the result for token t goes. */
struct multiply_job {
    const struct wf_kernel *kernel;
    float *const *out;
    const float *x;
    size_t count;
    struct wf_kernel_rows rows;
};

struct attention_job {
    struct wf_engine *engine;
    const struct wf_kv *kv;
    uint32_t layer, first;
};

static float *scratch(size_t count)
{
    return aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
}

struct wf_engine *wf_engine_create(const struct wf_model *model, unsigned threads)
{
    const struct wf_model_shape *s = &model->shape;
    struct wf_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return NULL;
    e->model = model;
    e->kernel = wf_kernel_widest();
    e->batch = WF_ENGINE_BATCH;
    e->threads = threads ? threads : wf_team_default_members();
    if (e->threads > WF_TEAM_MAX)
        e->threads = WF_TEAM_MAX;
    e->team = wf_team_create(e->threads);
    e->x = scratch((size_t)WF_ENGINE_BATCH * s->dim);
    e->normed = scratch((size_t)WF_ENGINE_BATCH * s->dim);
    e->query = scratch((size_t)WF_ENGINE_BATCH * s->dim);
    e->mixed = scratch((size_t)WF_ENGINE_BATCH * s->dim);
    e->projected = scratch((size_t)WF_ENGINE_BATCH * s->dim);
    e->gate = scratch((size_t)WF_ENGINE_BATCH * s->hidden_dim);
    e->up = scratch((size_t)WF_ENGINE_BATCH * s->hidden_dim);
    e->scores = scratch((size_t)e->threads * (s->heads / s->kv_heads) * s->context);
    if (e->team && e->x && e->normed && e->query && e->mixed && e->projected && e->gate && e->up &&
        e->scores)
        return e;
    wf_engine_destroy(e);
    return NULL;
}

void wf_engine_destroy(struct wf_engine *e)
{
    if (!e)
        return;
    wf_team_destroy(e->team);
    free(e->x);
    free(e->normed);
    free(e->query);
    free(e->mixed);
    free(e->projected);
    free(e->gate);
    free(e->up);
    free(e->scores);
    free(e->logits);
    free(e);
}

void wf_engine_tune(struct wf_engine *e, uint32_t batch, const struct wf_kernel *kernel)
{
    assert(batch >= 1 && batch <= WF_ENGINE_BATCH && kernel);
    e->batch = batch;
    e->kernel = kernel;
}

bool wf_engine_watch(struct wf_engine *e, const struct wf_engine_watch *watch)
{
    e->watch = NULL;
    if (watch && watch->logits && !e->logits)
        e->logits = scratch((size_t)WF_ENGINE_BATCH * e->model->shape.vocab);
    if (watch && watch->logits && !e->logits)
        return wf_say_failed("no memory for the logits of %d tokens", WF_ENGINE_BATCH);
    e->watch = watch;
    return true;
}

struct wf_team *wf_engine_team(struct wf_engine *e)
{
    return e->team;
}

static void multiply_part(void *context, unsigned member, size_t first, size_t end)
{
    const struct multiply_job *job = context;
    (void)member;
    job->kernel->multiply(job->out, job->x, job->rows.columns, job->count, &job->rows, first, end);
}

static void multiply(struct wf_engine *e, float *const *out, const float *x, size_t count,
                     const float *matrix, size_t rows, size_t columns)
{
    assert(columns > 0 && count > 0);
    struct multiply_job job = {e->kernel, out, x, count, {matrix, columns, columns}};
    size_t grain = PART_MULTIPLIES / (columns * count) + 1;
    wf_team_run(e->team, rows, grain, multiply_part, &job);
}

/* The result of token t goes to out + t × stride. */
static void multiply_to(struct wf_engine *e, float *out, size_t stride, const float *x,
                        size_t count, const float *matrix, size_t columns)
{
    float *where[WF_ENGINE_BATCH];
    for (size_t t = 0; t < count; t++)
        where[t] = out + t * stride;
    multiply(e, where, x, count, matrix, stride, columns);
}

/* One token's heads that share a KV head: scores over all positions, softmax, weighted sum of V. */
static void attend(struct wf_engine *e, const struct wf_kv *kv, uint32_t layer, uint32_t position,
                   uint32_t kv_head, const float *query, float *out, float *scores)
{
    const struct wf_model *m = e->model;
    uint32_t group = m->shape.heads / m->shape.kv_heads, seen = position + 1;
    size_t head_dim = m->head_dim, offset = kv_head * head_dim;
    float scale = 1.0f / sqrtf((float)head_dim);
    struct wf_kernel_rows rows = {.stride = m->kv_dim, .columns = head_dim};
    float *where[256];

    for (uint32_t start = 0; start < seen; start += kv->block_tokens) {
        uint32_t count = seen - start < kv->block_tokens ? seen - start : kv->block_tokens;
        rows.data = wf_kv_k(kv, layer, start) + offset;
        for (uint32_t h = 0; h < group; h++)
            where[h] = scores + (size_t)h * m->shape.context + start;
        e->kernel->multiply(where, query, head_dim, group, &rows, 0, count);
    }
    memset(out, 0, group * head_dim * sizeof(*out));
    for (uint32_t h = 0; h < group; h++)
        wf_kernel_softmax(scores + (size_t)h * m->shape.context, scale, seen);
    for (uint32_t start = 0; start < seen; start += kv->block_tokens) {
        uint32_t count = seen - start < kv->block_tokens ? seen - start : kv->block_tokens;
        rows.data = wf_kv_v(kv, layer, start) + offset;
        for (uint32_t h = 0; h < group; h++)
            e->kernel->weigh(out + h * head_dim, scores + (size_t)h * m->shape.context + start,
                             &rows, count);
    }
}

static void attention_part(void *context, unsigned member, size_t first, size_t end)
{
    const struct attention_job *job = context;
    struct wf_engine *e = job->engine;
    const struct wf_model_shape *s = &e->model->shape;
    size_t group = s->heads / s->kv_heads, group_dim = group * e->model->head_dim;
    float *scores = e->scores + member * group * s->context;
    for (size_t item = first; item < end; item++) {
        size_t t = item / s->kv_heads, kv_head = item % s->kv_heads;
        size_t at = t * s->dim + kv_head * group_dim;
        attend(e, job->kv, job->layer, job->first + (uint32_t)t, (uint32_t)kv_head, e->query + at,
               e->mixed + at, scores);
    }
}

/* K and V of the batch go straight to where the block lives: the pool, when a slot was reserved for
 * it. */
static void project(struct wf_engine *e, struct wf_kv *kv, uint32_t layer, uint32_t first,
                    uint32_t count)
{
    const struct wf_model *m = e->model;
    size_t dim = m->shape.dim, half = m->head_dim / 2;
    float *k[WF_ENGINE_BATCH], *v[WF_ENGINE_BATCH];
    for (uint32_t t = 0; t < count; t++) {
        enum wf_kv_home home = kv->home[(first + t) / kv->block_tokens];
        assert(home == WF_KV_RESERVED || home == WF_KV_PRIVATE);
        k[t] = wf_kv_k(kv, layer, first + t);
        v[t] = wf_kv_v(kv, layer, first + t);
    }
    multiply_to(e, e->query, dim, e->normed, count, m->wq + layer * dim * dim, dim);
    multiply(e, k, e->normed, count, m->wk + layer * dim * m->kv_dim, m->kv_dim, dim);
    multiply(e, v, e->normed, count, m->wv + layer * dim * m->kv_dim, m->kv_dim, dim);
    for (uint32_t t = 0; t < count; t++) {
        const float *cosine = m->cosine + (first + t) * half, *sine = m->sine + (first + t) * half;
        wf_kernel_rope(e->query + t * dim, m->shape.heads, m->head_dim, cosine, sine);
        wf_kernel_rope(k[t], m->shape.kv_heads, m->head_dim, cosine, sine);
    }
    if (e->watch && e->watch->rows)
        e->watch->rows(e->watch->context, layer, first, count, k, v);
    if (e->watch && e->watch->queries)
        e->watch->queries(e->watch->context, layer, first, count, e->query);
}

static void feed_forward(struct wf_engine *e, uint32_t layer, uint32_t count)
{
    const struct wf_model *m = e->model;
    size_t dim = m->shape.dim, hidden = m->shape.hidden_dim, matrix = layer * dim * hidden;
    multiply_to(e, e->gate, hidden, e->normed, count, m->w1 + matrix, dim);
    multiply_to(e, e->up, hidden, e->normed, count, m->w3 + matrix, dim);
    wf_kernel_swiglu(e->gate, e->up, count * hidden);
    multiply_to(e, e->projected, dim, e->gate, count, m->w2 + matrix, hidden);
    wf_kernel_add(e->x, e->projected, count * dim);
}

static void normalize(struct wf_engine *e, const float *gain, uint32_t count)
{
    size_t dim = e->model->shape.dim;
    for (uint32_t t = 0; t < count; t++)
        wf_kernel_rmsnorm(e->kernel, e->normed + t * dim, e->x + t * dim, gain, dim);
}

static enum weft_status forward_batch(struct wf_engine *e, struct wf_kv *kv,
                                      const struct weft_pins *pins, const uint32_t *tokens,
                                      uint32_t first, uint32_t count)
{
    const struct wf_model *m = e->model;
    size_t dim = m->shape.dim;
    for (uint32_t t = 0; t < count; t++)
        memcpy(e->x + t * dim, m->embedding + tokens[first + t] * dim, dim * sizeof(float));

    for (uint32_t layer = 0; layer < m->shape.layers; layer++) {
        normalize(e, m->attention_gain + layer * dim, count);
        project(e, kv, layer, first, count);
        if (pins) {
            enum weft_status status = weft_wait_layer(pins, layer);
            if (status != WEFT_OK)
                return status;
        }
        struct attention_job job = {e, kv, layer, first};
        size_t grain = PART_MULTIPLIES / (2 * e->model->head_dim * (size_t)(first + count)) + 1;
        wf_team_run(e->team, (size_t)count * m->shape.kv_heads, grain, attention_part, &job);
        multiply_to(e, e->projected, dim, e->mixed, count, m->wo + layer * dim * dim, dim);
        wf_kernel_add(e->x, e->projected, count * dim);

        normalize(e, m->ffn_gain + layer * dim, count);
        feed_forward(e, layer, count);
    }
    return WEFT_OK;
}

/* How many of the next tokens are computed together.  With a watch on blocks a batch ends where a
 * block does, so that no token of it attends to what the watch is yet to change. */
static uint32_t batch_of(const struct wf_engine *e, const struct wf_kv *kv, uint32_t start,
                         uint32_t end)
{
    uint32_t count = end - start < e->batch ? end - start : e->batch;
    uint32_t left = kv->block_tokens - start % kv->block_tokens;
    return e->watch && e->watch->block && count > left ? left : count;
}

/* Logits of the batch that is in e->x, and the block that it filled. */
static bool batch_watched(struct wf_engine *e, struct wf_kv *kv, uint32_t start, uint32_t count)
{
    const struct wf_engine_watch *watch = e->watch;
    const struct wf_model *m = e->model;
    if (watch->logits) {
        normalize(e, m->final_gain, count);
        multiply_to(e, e->logits, m->shape.vocab, e->normed, count, m->classifier, m->shape.dim);
        watch->logits(watch->context, start, count, e->logits);
    }
    uint32_t end = start + count;
    return !watch->block || end % kv->block_tokens != 0 ||
           watch->block(watch->context, kv, end / kv->block_tokens - 1);
}

enum weft_status wf_engine_forward(struct wf_engine *e, struct wf_kv *kv,
                                   const struct weft_pins *pins, const uint32_t *tokens,
                                   uint32_t first, uint32_t end, float *logits)
{
    const struct wf_model *m = e->model;
    assert(first < end && end <= m->shape.context);
    uint32_t count = 0;
    for (uint32_t start = first; start < end; start += count) {
        count = batch_of(e, kv, start, end);
        enum weft_status status = forward_batch(e, kv, pins, tokens, start, count);
        if (status != WEFT_OK)
            return status;
        if (e->watch && !batch_watched(e, kv, start, count))
            return WEFT_E_INVALID;
    }
    if (logits) {
        size_t dim = m->shape.dim;
        wf_kernel_rmsnorm(e->kernel, e->normed, e->x + (count - 1) * dim, m->final_gain, dim);
        multiply(e, &logits, e->normed, 1, m->classifier, m->shape.vocab, dim);
    }
    return WEFT_OK;
}
