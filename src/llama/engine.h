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

/* Compute positions first … end - 1 of `tokens`, leave their K and V where `kv` says, and the
 * logits after the last one in `logits` [vocab] (NULL: not wanted).  Earlier positions must have
 * been computed, by whomever; when some lie in `pins`, layer i is waited for just before it is used
 * (NULL: none to wait for). WEFT_OK, or why a pinned layer never came: then nothing that was left
 * in kv is worth anything. */
WEFT_CHECKED enum weft_status wf_engine_forward(struct wf_engine *engine, struct wf_kv *kv,
                                                const struct weft_pins *pins,
                                                const uint32_t *tokens, uint32_t first,
                                                uint32_t end, float *logits);

#endif
