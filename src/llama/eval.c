/* SPDX-License-Identifier: Apache-2.0
 *
 * Each step computes the next few tokens of a window, never beyond the end of a block: first by the
 * exact run, whose logits are kept, then by each variant, whose logits are compared with them.  The
 * exact run is a step ahead of the variants; so all that a round has to do is independent, and may
 * be done at once.
 *
 * Order: what a round reads was written in rounds before it, or by the caller between them; the
 * team's barrier (team.c) is what makes it seen.
 */
#include "llama/eval.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
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
    /* The same of stretches (STRETCH), but for the tokens that see no block, which cost nothing. */
    struct tally apart_near, kl_near;
};

/* The next few tokens of a window. */
struct step {
    uint32_t window, length; /* tokens in it */
    uint32_t start, count;
};

/* What the exact run left of one step, for the variants to be compared with. */
struct exact {
    struct step step;
    float *logits, *weights;    /* [WF_ENGINE_BATCH][vocab] */
    struct wf_weighed *weighed; /* [WF_ENGINE_BATCH] */
    double nll[WF_ENGINE_BATCH];
};

/* One that computes, on one thread at a time. */
struct lane {
    struct run *run;
    struct wf_engine *engine;
    uint32_t turn;                        /* whose run this is: 0 the exact one, v + 1 variant v */
    struct exact *exact;                  /* of the step */
    const float *logits;                  /* of the step, of whose turn it is */
    struct wf_likely at[WF_ENGINE_BATCH]; /* of the step's tokens */
    struct wf_engine_watch watch, exact_watch;
    bool failed;
    char sentence[512]; /* since what was said is only known to the thread that said it */
};

struct run {
    const struct wf_eval_plan *plan;
    const struct wf_windows *windows;
    const struct wf_eval_variant *variants;
    uint32_t variant_count, end; /* the window after the last */
    uint64_t token_count;        /* to be predicted in all */

    struct wf_kv *kv;    /* [1 + variant_count], the exact run's first */
    float *head[2];      /* the exact run's first block, of even and of odd windows */
    uint32_t *tokens[2]; /* of even and of odd windows */
    struct exact exact[2];
    double nll_exact_sum;
    struct score *scores; /* [variant_count] */

    struct wf_team *team;
    struct lane *lanes; /* [lane_count] */
    unsigned lane_count;
    struct exact *ahead, *now; /* what this round computes for the exact run, and compares with */
    atomic_uint next;          /* turn that nobody has taken yet */
};

/* --------------------------------------------------------------------------------------- sums */

/* Fewer observations than this have no standard error; and the spread of fewer windows than that
 * is as uncertain as what it is to be the error of: then tokens that lie together count as
 * observations too. */
#define WINDOWS_MIN 1.5
#define WINDOWS_MANY 6
#define STRETCH 64u

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

static double tally_windows(const struct tally *t)
{
    return t->lengths > 0 ? t->n * t->n / t->lengths : 0;
}

/* Of the mean, tokens of one window not being independent (the usual ratio estimator).  Windows
 * count as many as they would be, were they equally long (Kish's effective sample size): a long one
 * and the text's short end are one observation, whose spread about its own mean says nothing. */
static double tally_error(const struct tally *t)
{
    double mean = tally_mean(t), w = tally_windows(t);
    if (w < WINDOWS_MIN)
        return 0;
    double spread = t->square - 2 * mean * t->cross + mean * mean * t->lengths;
    return sqrt(fmax(spread, 0) * w / (w - 1)) / t->n;
}

/* Of few windows: the larger of what these say and what their stretches do. */
static double error_of(const struct tally *windows, const struct tally *near)
{
    double error = tally_error(windows);
    if (tally_windows(windows) >= WINDOWS_MANY || !(windows->n > 0))
        return error;
    return fmax(error, tally_error(near) * near->n / windows->n);
}

/* --------------------------------------------------------------------------------------- hooks */

static size_t block_bytes(const struct wf_eval_plan *plan)
{
    return (size_t)2 * plan->model->shape.layers * plan->block_tokens * plan->model->kv_dim *
           sizeof(float);
}

static void on_rows(void *context, uint32_t layer, uint32_t first, uint32_t count, float *const *k,
                    float *const *v)
{
    const struct wf_eval_plan *plan = ((const struct lane *)context)->run->plan;
    (void)layer, (void)first;
    for (uint32_t t = 0; t < count; t++) {
        plan->round(plan->round_context, k[t], plan->model->kv_dim);
        plan->round(plan->round_context, v[t], plan->model->kv_dim);
    }
}

static void on_queries(void *context, uint32_t layer, uint32_t first, uint32_t count,
                       const float *queries)
{
    const struct wf_eval_plan *plan = ((const struct lane *)context)->run->plan;
    plan->queries(plan->context, layer, first, count, queries);
}

static bool on_exact_block(void *context, struct wf_kv *kv, uint32_t block)
{
    const struct lane *lane = context;
    const struct wf_eval_plan *plan = lane->run->plan;
    if (block == 0)
        memcpy(lane->run->head[lane->exact->step.window % 2], kv->own[0], block_bytes(plan));
    return !plan->block || plan->block(plan->context, kv->own[block], block * kv->block_tokens);
}

static bool on_block(void *context, struct wf_kv *kv, uint32_t block)
{
    const struct lane *lane = context;
    const struct wf_eval_variant *variant = &lane->run->variants[lane->turn - 1];
    return variant->block(variant->context, kv->own[block], block * kv->block_tokens);
}

static void compare_part(void *context, unsigned member, size_t first, size_t end)
{
    struct lane *lane = context;
    struct exact *exact = lane->exact;
    const uint32_t *tokens = lane->run->tokens[exact->step.window % 2] + exact->step.start;
    uint32_t vocab = lane->run->plan->model->shape.vocab;
    (void)member;
    for (size_t t = first; t < end; t++) {
        size_t at = t * vocab;
        if (lane->turn)
            lane->at[t] = wf_likely(&exact->weighed[t], lane->logits + at, vocab, tokens[t + 1]);
        else
            exact->nll[t] = wf_likely_weigh(exact->logits + at, vocab, tokens[t + 1],
                                            exact->weights + at, &exact->weighed[t]);
    }
}

/* Token t of the step was the last of its stretch, or of its window. */
static void near_end(const struct run *run, struct score *score, const struct step *step,
                     uint32_t t)
{
    uint32_t seen = step->start + t + 1 - run->plan->block_tokens, rest = seen % STRETCH;
    if (rest && step->start + t + 2 < step->length)
        return;
    tally_end(&score->apart_near, rest ? rest : STRETCH);
    tally_end(&score->kl_near, rest ? rest : STRETCH);
}

static void on_logits(void *context, uint32_t first, uint32_t count, const float *logits)
{
    struct lane *lane = context;
    struct run *run = lane->run;
    size_t bytes = (size_t)count * run->plan->model->shape.vocab * sizeof(float);
    (void)first;
    lane->logits = logits;
    if (lane->turn == 0)
        memcpy(lane->exact->logits, logits, bytes);
    wf_team_run(wf_engine_team(lane->engine), count, 1, compare_part, lane);
    for (uint32_t t = 0; t < count; t++) {
        if (lane->turn == 0) {
            run->nll_exact_sum += lane->exact->nll[t];
            continue;
        }
        struct score *score = &run->scores[lane->turn - 1];
        score->apart.window += lane->at[t].apart;
        score->kl.window += lane->at[t].kl;
        score->apart_near.window += lane->at[t].apart;
        score->kl_near.window += lane->at[t].kl;
        near_end(run, score, &lane->exact->step, t);
    }
}

/* --------------------------------------------------------------------------------------- memory */

static bool exact_init(uint32_t vocab, struct exact *out)
{
    out->logits = malloc((size_t)WF_ENGINE_BATCH * vocab * sizeof(float));
    out->weights = malloc((size_t)WF_ENGINE_BATCH * vocab * sizeof(float));
    out->weighed = calloc(WF_ENGINE_BATCH, sizeof(*out->weighed));
    return out->logits && out->weights && out->weighed;
}

static bool lanes_init(struct run *run, unsigned threads)
{
    const struct wf_eval_plan *plan = run->plan;
    unsigned busy = 1;
    threads = threads ? threads : wf_team_default_members();
    for (uint32_t v = 0; v < run->variant_count; v++)
        busy += run->variants[v].block != NULL;
    run->lane_count = plan->apart ? (busy < threads ? busy : threads) : 1;
    run->lanes = calloc(run->lane_count, sizeof(*run->lanes));
    run->team = wf_team_create(run->lane_count);
    if (!run->lanes || !run->team)
        return false;
    for (unsigned i = 0; i < run->lane_count; i++) {
        struct lane *lane = &run->lanes[i];
        lane->run = run;
        lane->engine = wf_engine_create(plan->model, threads / run->lane_count);
        if (!lane->engine)
            return false;
        lane->watch = (struct wf_engine_watch){
            .context = lane,
            .rows = plan->round ? on_rows : NULL,
            .block = on_block,
            .logits = on_logits,
        };
        lane->exact_watch = lane->watch;
        lane->exact_watch.queries = plan->queries ? on_queries : NULL;
        lane->exact_watch.block = on_exact_block;
    }
    return true;
}

static bool run_init(struct run *run)
{
    const struct wf_eval_plan *plan = run->plan;
    uint32_t count = run->variant_count, length = run->windows->length;
    uint32_t blocks = (length + plan->block_tokens - 1) / plan->block_tokens;
    bool ok = lanes_init(run, plan->threads);
    run->kv = calloc(1 + count, sizeof(*run->kv));
    run->scores = calloc(count ? count : 1, sizeof(*run->scores));
    for (int i = 0; i < 2; i++) {
        run->tokens[i] = calloc(length, sizeof(uint32_t));
        run->head[i] = malloc(block_bytes(plan));
        ok = run->head[i] && exact_init(plan->model->shape.vocab, &run->exact[i]) &&
             run->tokens[i] && ok;
    }
    if (!ok || !run->kv || !run->scores)
        return wf_say_failed("no memory to run a model with a vocabulary of %u",
                             plan->model->shape.vocab);
    for (uint32_t i = 0; i <= count; i++)
        if (i == 0 || run->variants[i - 1].block)
            if (!wf_kv_init(&run->kv[i], plan->model, plan->block_tokens) ||
                !wf_kv_use_private(&run->kv[i], 0, blocks, true))
                return false;
    return true;
}

static void run_fini(struct run *run)
{
    for (uint32_t i = 0; run->kv && i <= run->variant_count; i++)
        if (run->kv[i].own)
            wf_kv_fini(&run->kv[i]);
    for (unsigned i = 0; run->lanes && i < run->lane_count; i++)
        wf_engine_destroy(run->lanes[i].engine);
    for (int i = 0; i < 2; i++) {
        free(run->tokens[i]);
        free(run->head[i]);
        free(run->exact[i].logits);
        free(run->exact[i].weights);
        free(run->exact[i].weighed);
    }
    wf_team_destroy(run->team);
    free(run->lanes);
    free(run->kv);
    free(run->scores);
}

/* --------------------------------------------------------------------------------------- rounds */

/* The step after `step`; false: there is none. */
static bool step_next(struct run *run, struct step *step)
{
    uint32_t block_tokens = run->plan->block_tokens;
    step->start += step->count;
    if (step->start + 1 >= step->length) { /* the last token is only predicted */
        if (step->length > 0)
            step->window++;
        if (step->window >= run->end)
            return false;
        step->length = wf_windows_get(run->windows, step->window, run->tokens[step->window % 2]);
        step->start = 0;
    }
    uint32_t left = step->length - 1 - step->start;
    uint32_t block_left = block_tokens - step->start % block_tokens;
    step->count = left < WF_ENGINE_BATCH ? left : WF_ENGINE_BATCH;
    step->count = step->count < block_left ? step->count : block_left;
    return true;
}

/* Until a variant's first block is complete, its run is the exact one, and has been done. */
static bool head_done(struct lane *lane)
{
    const struct run *run = lane->run;
    const struct step *step = &lane->exact->step;
    struct wf_kv *kv = &run->kv[lane->turn];
    if (step->start + step->count < run->plan->block_tokens)
        return true;
    memcpy(kv->own[0], run->head[step->window % 2], block_bytes(run->plan));
    return on_block(lane, kv, 0);
}

static bool step_done(struct lane *lane, uint32_t turn, struct exact *exact)
{
    struct run *run = lane->run;
    const struct step *step = &exact->step;
    lane->turn = turn;
    lane->exact = exact;
    if (turn && step->start < run->plan->block_tokens)
        return head_done(lane);
    return wf_engine_watch(lane->engine, turn ? &lane->watch : &lane->exact_watch) &&
           wf_engine_forward(lane->engine, &run->kv[turn], NULL, run->tokens[step->window % 2],
                             step->start, step->start + step->count, NULL) == WEFT_OK;
}

/* A lane takes turns until there are no more. */
static void lane_part(void *context, unsigned member, size_t first, size_t end)
{
    struct run *run = context;
    struct lane *lane = &run->lanes[first];
    (void)member, (void)end;
    while (!lane->failed) {
        uint32_t turn = atomic_fetch_add_explicit(&run->next, 1, memory_order_relaxed);
        struct exact *exact = turn ? run->now : run->ahead;
        if (turn > run->variant_count)
            break;
        if (!exact || (turn && !run->variants[turn - 1].block))
            continue;
        lane->failed = !step_done(lane, turn, exact);
        if (lane->failed)
            snprintf(lane->sentence, sizeof(lane->sentence), "%s", wf_say_last());
    }
}

/* The variants have done `step`. */
static bool step_end(struct run *run, const struct step *step, uint32_t first)
{
    const struct wf_eval_plan *plan = run->plan;
    uint32_t computed = step->start + step->count, windows = step->window - first;
    uint64_t before = (uint64_t)windows * (run->windows->length - 1);
    if (computed + 1 == step->length) {
        for (uint32_t v = 0; v < run->variant_count; v++) {
            tally_end(&run->scores[v].apart, step->length - 1);
            tally_end(&run->scores[v].kl, step->length - 1);
        }
        windows++;
    }
    double part = (double)(before + computed) / (double)run->token_count;
    return !plan->progress || plan->progress(plan->context, part) ||
           wf_say_failed("it was ended after %u of %u windows", windows, run->end - first);
}

/* In each round the variants do a step, and the exact run already the next one. */
static bool rounds(struct run *run, uint32_t first)
{
    struct step step = {.window = first};
    run->now = NULL;
    for (unsigned parity = 0;; parity ^= 1) {
        run->ahead = step_next(run, &step) ? &run->exact[parity] : NULL;
        if (run->ahead)
            run->ahead->step = step;
        if (!run->ahead && !run->now)
            return true;
        atomic_store_explicit(&run->next, 0, memory_order_relaxed);
        wf_team_run(run->team, run->lane_count, 1, lane_part, run);
        for (unsigned i = 0; i < run->lane_count; i++)
            if (run->lanes[i].failed)
                return wf_say_failed("%s", run->lanes[i].sentence);
        if (run->now && !step_end(run, &run->now->step, first))
            return false;
        run->now = run->ahead;
    }
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
            .nll_error = error_of(&score->apart, &score->apart_near),
            .kl_error = error_of(&score->kl, &score->kl_near),
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
    uint64_t from = (uint64_t)first * (windows->length - 1);
    uint64_t to = (uint64_t)end * (windows->length - 1);
    struct run run = {
        .plan = plan,
        .windows = windows,
        .variants = variants,
        .variant_count = count,
        .end = end,
        .token_count = (to < windows->count ? to : windows->count) - from,
    };
    bool ok = run_init(&run) && rounds(&run, first);
    if (ok)
        results_set(&run, run.token_count, results);
    run_fini(&run);
    return ok;
}
