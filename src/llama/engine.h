/* SPDX-License-Identifier: Apache-2.0
 *
 * The forward pass of a Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
 *
 * Whatever is computed for a token depends on the tokens up to it and on nothing else, to the last
 * bit: not on how a prompt is cut into batches, how many threads there are, or where the K and V
 * before it came from.
 */
#ifndef WF_LLAMA_ENGINE_H
#define WF_LLAMA_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "llama/kernel.h"
#include "llama/kv.h"
#include "llama/model.h"
#include "llama/team.h"

/* Tokens computed together: enough to use a weight many times, few enough to stay in the cache. */
#define WF_ENGINE_BATCH 32

struct wf_engine;

/* `threads` 0: as many as suit this machine.  NULL when memory or threads ran out.  The model must
 * outlive it. */
struct wf_engine *wf_engine_create(const struct wf_model *model, unsigned threads);
void wf_engine_destroy(struct wf_engine *engine);

/* For tests: smaller batches (1 … WF_ENGINE_BATCH), another vector width.  Neither may change a
 * bit.
 */
void wf_engine_tune(struct wf_engine *engine, uint32_t batch, const struct wf_kernel *kernel);

/* Who looks at a forward pass, and may change the KV that comes of it.  Each is called on the
 * caller's thread and may be NULL. */
struct wf_engine_watch {
    void *context; /* of all */

    /* K (rotated) and V of positions first … first + count - 1 of one layer, a row of kv_dim each,
     * as they were computed and before any token attends to them: may be changed. */
    void (*rows)(void *context, uint32_t layer, uint32_t first, uint32_t count, float *const *k,
                 float *const *v);
    /* The rotated queries of the same positions, [count][dim]. */
    void (*queries)(void *context, uint32_t layer, uint32_t first, uint32_t count,
                    const float *queries);
    /* Block number `block` is complete: no token of it is computed any more, and none after it has
     * been.  What is left in it is what later tokens attend to.  False ends the pass. */
    bool (*block)(void *context, struct wf_kv *kv, uint32_t block);
    /* After each batch: the logits after positions first … first + count - 1, [count][vocab]. */
    void (*logits)(void *context, uint32_t first, uint32_t count, const float *logits);
};

/* From now on (NULL: no more).  False: no memory for the logits of a batch. */
bool wf_engine_watch(struct wf_engine *engine, const struct wf_engine_watch *watch);

/* The threads that compute, for what is to be done between two passes.  Borrowed. */
struct wf_team *wf_engine_team(struct wf_engine *engine);

/* Compute positions first … end - 1 of `tokens`, leave their K and V where `kv` says, and the
 * logits after the last one in `logits` [vocab] (NULL: not wanted).  Earlier positions must have
 * been computed, by whomever; when some lie in `pins`, layer i is waited for just before it is used
 * (NULL: none to wait for). WEFT_OK, or why a pinned layer never came, or WEFT_E_INVALID when a
 * watch ended it: then nothing that was left in kv is worth anything. */
WEFT_CHECKED enum weft_status wf_engine_forward(struct wf_engine *engine, struct wf_kv *kv,
                                                const struct weft_pins *pins,
                                                const uint32_t *tokens, uint32_t first,
                                                uint32_t end, float *logits);

#endif
