/* SPDX-License-Identifier: Apache-2.0
 *
 * Each step computes the next few tokens of a window, never beyond the end of a block: first by the
 * exact run, whose logits are kept, then by each variant, whose logits are compared with them.
 */
#include "llama/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "llama/engine.h"
#include "llama/say.h"
#include "llama/team.h"

/* Sums over windows: of a quantity x of each token, n tokens a window. */
struct tally {
    double sum;                       /* Σ x */
    double window;                    /* of this window so far */
    double square, cross, lengths, n; /* Σ (Σ x)², Σ n Σ x, Σ n², Σ n; over windows */
    uint32_t windows;
};

struct score {
    struct tally apart, kl; /* nll - nll of the exact run; KL */
};

struct run {
    const struct wf_eval_plan *plan;
    const struct wf_eval_variant *variants;
    uint32_t variant_count;
    struct wf_engine *engine;
    struct wf_kv *kv;           /* [1 + variant_count], the exact run's first */
    uint32_t *tokens;           /* of this window */
    float *logits, *weights;    /* [WF_ENGINE_BATCH][vocab], of the exact run */
    struct wf_weighed *weighed; /* [WF_ENGINE_BATCH], the same */
    struct wf_likely *at;       /* [WF_ENGINE_BATCH], of the step's tokens */
    double nll_exact[WF_ENGINE_BATCH];
    double nll_exact_sum;
    struct score *scores; /* [variant_count] */

    uint32_t turn; /* whose run this is: 0 the exact one, v + 1 variant v */
    const float *compared;
    uint32_t first; /* of the step */
    struct wf_engine_watch exact_watch, watch;
};

/* --------------------------------------------------------------------------------------- sums */

static void tally_end(struct tally *t, uint32_t tokens)
{
    double n = (double)tokens;
    t->sum += t->window;
    t->square += t->window * t->window;
    t->cross += t->window * n;
    t->lengths += n * n;
    t->n += n;
    t->windows++;
    t->window = 0;
}

static double tally_mean(const struct tally *t)
{
    return t->n > 0 ? t->sum / t->n : 0;
}

/* Of the mean, tokens of one window not being independent (the usual ratio estimator). */
static double tally_error(const struct tally *t)
{
    double mean = tally_mean(t), w = (double)t->windows;
    if (t->windows < 2)
        return 0;
    double spread = t->square - 2 * mean * t->cross + mean * mean * t->lengths;
    return sqrt(fmax(spread, 0) * w / (w - 1)) / t->n;
}

/* --------------------------------------------------------------------------------------- hooks */

static void on_rows(void *context, uint32_t layer, uint32_t first, uint32_t count, float *const *k,
                    float *const *v)
{
    const struct run *run = context;
    const struct wf_eval_plan *plan = run->plan;
    (void)layer, (void)first;
    for (uint32_t t = 0; t < count; t++) {
        plan->round(plan->round_context, k[t], plan->model->kv_dim);
        plan->round(plan->round_context, v[t], plan->model->kv_dim);
    }
}

static void on_queries(void *context, uint32_t layer, uint32_t first, uint32_t count,
                       const float *queries)
{
    const struct wf_eval_plan *plan = ((const struct run *)context)->plan;
    plan->queries(plan->context, layer, first, count, queries);
}

static bool on_exact_block(void *context, struct wf_kv *kv, uint32_t block)
{
    const struct wf_eval_plan *plan = ((const struct run *)context)->plan;
    return plan->block(plan->context, kv->own[block], block * kv->block_tokens);
}

static bool on_block(void *context, struct wf_kv *kv, uint32_t block)
{
    const struct run *run = context;
    const struct wf_eval_variant *variant = &run->variants[run->turn - 1];
    return variant->block(variant->context, kv->own[block], block * kv->block_tokens);
}

static void compare_part(void *context, unsigned member, size_t first, size_t end)
{
    struct run *run = context;
    uint32_t vocab = run->plan->model->shape.vocab;
    (void)member;
    for (size_t t = first; t < end; t++) {
        uint32_t target = run->tokens[run->first + t + 1];
        if (run->turn)
            run->at[t] = wf_likely(&run->weighed[t], run->compared + t * vocab, vocab, target);
        else
            run->nll_exact[t] = wf_likely_weigh(run->logits + t * vocab, vocab, target,
                                                run->weights + t * vocab, &run->weighed[t]);
    }
}

static void on_logits(void *context, uint32_t first, uint32_t count, const float *logits)
{
    struct run *run = context;
    run->compared = logits;
    run->first = first;
    if (run->turn == 0)
        memcpy(run->logits, logits, (size_t)count * run->plan->model->shape.vocab * sizeof(float));
    wf_team_run(wf_engine_team(run->engine), count, 1, compare_part, run);
    if (run->turn == 0) {
        for (uint32_t t = 0; t < count; t++)
            run->nll_exact_sum += run->nll_exact[t];
        return;
    }
    struct score *score = &run->scores[run->turn - 1];
    for (uint32_t t = 0; t < count; t++) {
        score->apart.window += run->at[t].apart;
        score->kl.window += run->at[t].kl;
    }
}

/* ---------------------------------------------------------------------------------------- runs */

static bool run_init(const struct wf_eval_plan *plan, const struct wf_windows *windows,
                     const struct wf_eval_variant *variants, uint32_t count, struct run *out)
{
    const struct wf_model *model = plan->model;
    *out = (struct run){.plan = plan, .variants = variants, .variant_count = count};
    out->engine = wf_engine_create(model, plan->threads);
    out->kv = calloc(1 + count, sizeof(*out->kv));
    out->tokens = calloc(windows->length, sizeof(*out->tokens));
    out->logits = malloc((size_t)WF_ENGINE_BATCH * model->shape.vocab * sizeof(float));
    out->weights = malloc((size_t)WF_ENGINE_BATCH * model->shape.vocab * sizeof(float));
    out->weighed = calloc(WF_ENGINE_BATCH, sizeof(*out->weighed));
    out->at = calloc(WF_ENGINE_BATCH, sizeof(*out->at));
    out->scores = calloc(count ? count : 1, sizeof(*out->scores));
    if (!out->engine || !out->kv || !out->tokens || !out->logits || !out->weights ||
        !out->weighed || !out->at || !out->scores)
        return wf_say_failed("no memory to run a model with a vocabulary of %u",
                             model->shape.vocab);
    uint32_t blocks = (windows->length + plan->block_tokens - 1) / plan->block_tokens;
    for (uint32_t i = 0; i <= count; i++) {
        if (i > 0 && !variants[i - 1].block)
            continue;
        if (!wf_kv_init(&out->kv[i], model, plan->block_tokens) ||
            !wf_kv_use_private(&out->kv[i], 0, blocks, true))
            return false;
    }
    out->watch = (struct wf_engine_watch){
        .context = out,
        .rows = plan->round ? on_rows : NULL,
        .block = on_block,
        .logits = on_logits,
    };
    out->exact_watch = out->watch;
    out->exact_watch.queries = plan->queries ? on_queries : NULL;
    out->exact_watch.block = plan->block ? on_exact_block : NULL;
    return true;
}

static void run_fini(struct run *run)
{
    for (uint32_t i = 0; run->kv && i <= run->variant_count; i++)
        if (run->kv[i].own)
            wf_kv_fini(&run->kv[i]);
    wf_engine_destroy(run->engine);
    free(run->kv);
    free(run->tokens);
    free(run->logits);
    free(run->weights);
    free(run->weighed);
    free(run->at);
    free(run->scores);
}

/* The next `count` tokens, by one of the runs. */
static bool step(struct run *run, uint32_t turn, uint32_t first, uint32_t count)
{
    run->turn = turn;
    return wf_engine_watch(run->engine, turn ? &run->watch : &run->exact_watch) &&
           wf_engine_forward(run->engine, &run->kv[turn], NULL, run->tokens, first, first + count,
                             NULL) == WEFT_OK;
}

/* A window of `length` tokens.  The last of them is only predicted. */
static bool window_run(struct run *run, uint32_t length)
{
    uint32_t block_tokens = run->plan->block_tokens, count;
    for (uint32_t start = 0; start + 1 < length; start += count) {
        uint32_t block_left = block_tokens - start % block_tokens;
        count = length - 1 - start;
        count = count < WF_ENGINE_BATCH ? count : WF_ENGINE_BATCH;
        count = count < block_left ? count : block_left;
        if (!step(run, 0, start, count))
            return false;
        for (uint32_t v = 0; v < run->variant_count; v++)
            if (run->variants[v].block && !step(run, v + 1, start, count))
                return false;
    }
    for (uint32_t v = 0; v < run->variant_count; v++) {
        tally_end(&run->scores[v].apart, length - 1);
        tally_end(&run->scores[v].kl, length - 1);
    }
    return true;
}

static void results_set(const struct run *run, uint64_t tokens, struct wf_eval_result *results)
{
    double n = (double)tokens;
    for (uint32_t v = 0; v < run->variant_count; v++) {
        const struct score *score = &run->scores[v];
        results[v] = (struct wf_eval_result){
            .tokens = tokens,
            .nll_exact = run->nll_exact_sum / n,
            .nll = run->nll_exact_sum / n + tally_mean(&score->apart),
            .kl = tally_mean(&score->kl),
            .nll_error = tally_error(&score->apart),
            .kl_error = tally_error(&score->kl),
        };
    }
}

bool wf_eval_run(const struct wf_eval_plan *plan, const struct wf_windows *windows, uint32_t first,
                 uint32_t end, const struct wf_eval_variant *variants, uint32_t count,
                 struct wf_eval_result *results)
{
    const struct wf_model_shape *shape = &plan->model->shape;
    if (plan->block_tokens == 0 || plan->block_tokens > shape->context)
        return wf_say_failed("blocks of %u tokens are not between 1 and the model's context of %u",
                             plan->block_tokens, shape->context);
    if (windows->length > shape->context)
        return wf_say_failed("windows of %u tokens are longer than the model's context of %u",
                             windows->length, shape->context);
    if (first >= end || end > windows->windows || count > WF_EVAL_VARIANTS_MAX)
        return wf_say_failed("there are no windows %u to %u of %u, or too many variants (%u)",
                             first, end, windows->windows, count);
    struct run run;
    uint64_t tokens = 0;
    bool ok = run_init(plan, windows, variants, count, &run);
    for (uint32_t w = first; ok && w < end; w++) {
        uint32_t length = wf_windows_get(windows, w, run.tokens);
        ok = window_run(&run, length);
        tokens += length - 1;
        if (ok && plan->progress &&
            !plan->progress(plan->context, (double)(w + 1 - first) / (double)(end - first)))
            ok = wf_say_failed("it was ended after %u of %u windows", w + 1 - first, end - first);
    }
    if (ok)
        results_set(&run, tokens, results);
    run_fini(&run);
    return ok;
}
