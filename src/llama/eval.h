/* SPDX-License-Identifier: Apache-2.0
 *
 * What a change of its KV does to what a model says: perplexity, and KL to the exact model.
 *
 * A text becomes windows, each WF_TOKEN_BEGIN and the next tokens of the text, computed from
 * nothing.  The exact run keeps its KV as an engine of that number type does: each row rounded as
 * it is computed.  A variant's run is the same until a block of tokens is complete; then the
 * variant replaces the block's K and V, and all later tokens attend to those.  So a block behaves
 * as in a store: its own tokens saw it exact, what comes after sees what came back.
 *
 * Both runs go through a window side by side, a few tokens at a time, so that no more logits are
 * held than those of one batch.  What comes out depends on model, text and variant alone: not on
 * the number of threads, nor on the machine.
 */
#ifndef WF_LLAMA_EVAL_H
#define WF_LLAMA_EVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "llama/model.h"
#include "llama/tokenizer.h"

#define WF_EVAL_VARIANTS_MAX 64
#define WF_WINDOWS_TOKENS_MAX (1u << 24)
#define WF_WINDOWS_MIN 4 /* so that there is a first quarter */

/* ------------------------------------------------------------------------------------- windows */

struct wf_windows {
    uint32_t *tokens; /* of the text, without WF_TOKEN_BEGIN */
    uint32_t count;
    uint32_t length;      /* of a window, WF_TOKEN_BEGIN counted; the last one may be shorter */
    uint32_t windows;     /* WF_WINDOWS_MIN or more */
    uint32_t calibration; /* so many from the first on: a quarter of them */
    bool cut;             /* the text goes on */
};

/* Read a text, but no more than `tokens_max` tokens (1 … WF_WINDOWS_TOKENS_MAX) of it, in windows
 * of `length`; where these are fewer than WF_WINDOWS_MIN, in the longest that are as many, but no
 * shorter than `length_least`.  False, with a sentence: no text, or too short for that. */
bool wf_windows_read(const char *path, const struct wf_tokenizer *tokenizer, uint32_t length,
                     uint32_t length_least, uint32_t tokens_max, struct wf_windows *out);
/* Of tokens that are there; they belong to `out` then.  `name` is for the sentence. */
bool wf_windows_of(const char *name, uint32_t *tokens, uint32_t count, uint32_t length,
                   struct wf_windows *out);
void wf_windows_free(struct wf_windows *windows);

/* The tokens of one, in `out` [length]; how many. */
uint32_t wf_windows_get(const struct wf_windows *windows, uint32_t index, uint32_t *out);

/* ---------------------------------------------------------------------------------- evaluation */

/* One way to keep KV. */
struct wf_eval_variant {
    void *context;
    /* Replace a block: float [layers][K, V][block_tokens][kv_heads][head_dim], keys rotated
     * (WF_MODEL_ROPE_PAIRED), whose first token is at `position` of the window.  False, with a
     * sentence (wf_say_failed): the evaluation ends.  NULL: this is the exact run itself. */
    bool (*block)(void *context, float *block, uint32_t position);
};

struct wf_eval_plan {
    const struct wf_model *model;
    uint32_t block_tokens;
    unsigned threads; /* 0: as many as suit this machine */
    /* The exact run and the variants may be on different threads, each on one at a time: faster, if
     * what their callbacks write is their own.  False: every callback is on the caller's thread. */
    bool apart;

    /* Round K or V as the engine's number type has it.  NULL: they stay as they are computed. */
    void (*round)(void *context, float *values, size_t count);
    void *round_context;

    void *context; /* of the following, each of which may be NULL */
    /* Look at the exact run: its rotated queries [count][dim], and its blocks. */
    void (*queries)(void *context, uint32_t layer, uint32_t first, uint32_t count,
                    const float *queries);
    bool (*block)(void *context, const float *block, uint32_t position);
    /* `part` of 1 is done; false ends it.  On the caller's thread. */
    bool (*progress)(void *context, double part);
};

/* In nats a token, over all tokens that were predicted. */
struct wf_eval_result {
    uint64_t tokens;
    double nll_exact, nll; /* perplexity is exp() of these */
    double kl;             /* of the exact distribution to the variant's */
    /* Standard errors of nll - nll_exact and of kl, a window taken as one observation, and where
     * these are fewer than 6, 64 neighbouring tokens too: then the larger of both.  0 where there
     * is one observation. */
    double nll_error, kl_error;
};

/* Evaluate `count` variants (0 … WF_EVAL_VARIANTS_MAX) over windows first … end - 1; the exact run
 * is computed once for all of them.  False, with a sentence: no memory, or a callback ended it. */
bool wf_eval_run(const struct wf_eval_plan *plan, const struct wf_windows *windows, uint32_t first,
                 uint32_t end, const struct wf_eval_variant *variants, uint32_t count,
                 struct wf_eval_result *results);

/* --------------------------------------------------------------------------------- comparisons */

/* Logits [vocab], and e^(logit - highest) of each; both borrowed. */
struct wf_weighed {
    const float *logits, *weights;
    double sum; /* of the weights */
    float highest;
};

/* Fill `weights` [vocab]; the negative log-likelihood of `target`. */
double wf_likely_weigh(const float *logits, uint32_t vocab, uint32_t target, float *weights,
                       struct wf_weighed *out);

/* What other logits say of the token that came. */
struct wf_likely {
    double apart; /* their negative log-likelihood less that of the exact ones */
    double kl;    /* of the exact distribution to theirs */
};
struct wf_likely wf_likely(const struct wf_weighed *exact, const float *other, uint32_t vocab,
                           uint32_t target);

#endif
