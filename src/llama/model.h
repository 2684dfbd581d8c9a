/* SPDX-License-Identifier: Apache-2.0
 *
 * A Llama's weights: read from a llama2.c checkpoint, or made up from a seed.
 *
 * A checkpoint (legacy format, little-endian, no alignment beyond 4) is a header of seven int32
 *
 *   dim | hidden_dim | layers | heads | kv_heads | vocab (negative: own classifier) | context
 *
 * and then float32 matrices, row by row, all layers of one kind together:
 *
 *   embedding [vocab][dim]
 *   attention gain [layers][dim] | wq [layers][dim][dim] | wk, wv [layers][kv_dim][dim]
 *   wo [layers][dim][dim] | ffn gain [layers][dim] | w1 [layers][hidden][dim]
 *   w2 [layers][dim][hidden] | w3 [layers][hidden][dim] | final gain [dim]
 *   rope cosines and sines, [context][head_dim / 2] each: unused, we make our own
 *   classifier [vocab][dim], only when vocab was negative
 */
#ifndef WF_LLAMA_MODEL_H
#define WF_LLAMA_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How keys are kept: rotated, the pairs (2i, 2i + 1) of each head by position × theta^(-2i /
 * head_dim). */
#define WF_MODEL_ROPE_THETA 10000.0
#define WF_MODEL_ROPE_PAIRED true

struct wf_model_shape {
    uint32_t dim, hidden_dim, layers, heads, kv_heads, vocab, context;
};

struct wf_model {
    struct wf_model_shape shape;
    uint32_t head_dim; /* dim / heads */
    uint32_t kv_dim;   /* kv_heads × head_dim */
    char digest[33];   /* XXH3-128 of shape and weights, in hexadecimal: what makes KV ours */

    const float *embedding, *attention_gain, *wq, *wk, *wv, *wo;
    const float *ffn_gain, *w1, *w2, *w3, *final_gain, *classifier;
    float *cosine, *sine; /* [context][head_dim / 2] */

    void *memory; /* the mapped file or the made-up weights, `memory_bytes` long */
    size_t memory_bytes;
};

/* Map a checkpoint.  Every size is checked against the file before a weight is touched. */
bool wf_model_load(const char *path, struct wf_model *out);

/* Weights drawn from `seed`, scaled so that activations neither vanish nor explode. */
bool wf_model_random(const struct wf_model_shape *shape, uint64_t seed, struct wf_model *out);

void wf_model_free(struct wf_model *model);

#endif
