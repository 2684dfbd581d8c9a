/* SPDX-License-Identifier: Apache-2.0
 *
 * A table of pointers, and the private memory behind some of them.
 */
#include "llama/kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "llama/say.h"

static size_t layer_floats(const struct wf_kv *kv)
{
    return (size_t)kv->block_tokens * kv->kv_dim;
}

bool wf_kv_init(struct wf_kv *kv, const struct wf_model *model, uint32_t block_tokens)
{
    *kv = (struct wf_kv){
        .layers = model->shape.layers,
        .kv_dim = model->kv_dim,
        .block_tokens = block_tokens,
        .blocks_max = (model->shape.context + block_tokens - 1) / block_tokens,
    };
    size_t count = (size_t)kv->layers * kv->blocks_max;
    kv->k = calloc(count, sizeof(*kv->k));
    kv->v = calloc(count, sizeof(*kv->v));
    kv->home = calloc(kv->blocks_max, sizeof(*kv->home));
    kv->own = calloc(kv->blocks_max, sizeof(*kv->own));
    if (kv->k && kv->v && kv->home && kv->own)
        return true;
    wf_kv_fini(kv);
    return wf_say_failed("no memory for a table of %zu KV blocks", count);
}

void wf_kv_fini(struct wf_kv *kv)
{
    for (uint32_t b = 0; kv->own && b < kv->blocks_max; b++)
        free(kv->own[b]);
    free(kv->own);
    free(kv->home);
    free(kv->k);
    free(kv->v);
    *kv = (struct wf_kv){0};
}

void wf_kv_reset(struct wf_kv *kv)
{
    memset(kv->home, 0, kv->blocks_max * sizeof(*kv->home));
}

void wf_kv_use_pins(struct wf_kv *kv, const struct weft_pins *pins, uint32_t first)
{
    for (uint32_t b = first; b < pins->blocks; b++) {
        for (uint32_t layer = 0; layer < kv->layers; layer++) {
            /* const is cast away for the table's sake; WF_KV_PINNED is what keeps writers off */
            kv->k[layer * kv->blocks_max + b] = (float *)weft_k(pins, b, layer);
            kv->v[layer * kv->blocks_max + b] = (float *)weft_v(pins, b, layer);
        }
        kv->home[b] = WF_KV_PINNED;
    }
}

void wf_kv_use_fill(struct wf_kv *kv, const struct weft_fill *fill)
{
    for (uint32_t i = 0; i < fill->blocks; i++) {
        if (!weft_fill_k(fill, i, 0))
            continue;
        uint32_t b = fill->first_block + i;
        for (uint32_t layer = 0; layer < kv->layers; layer++) {
            kv->k[layer * kv->blocks_max + b] = weft_fill_k(fill, i, layer);
            kv->v[layer * kv->blocks_max + b] = weft_fill_v(fill, i, layer);
        }
        kv->home[b] = WF_KV_RESERVED;
    }
}

bool wf_kv_use_private(struct wf_kv *kv, uint32_t first, uint32_t end, bool move)
{
    size_t bytes = 2 * kv->layers * layer_floats(kv) * sizeof(float);
    assert(bytes > 0);
    for (uint32_t b = first; b < end; b++) {
        if (kv->home[b] != WF_KV_NOWHERE && !move)
            continue;
        if (!kv->own[b])
            kv->own[b] = malloc(bytes);
        if (!kv->own[b])
            return wf_say_failed("no memory for a block of %zu bytes", bytes);
        for (uint32_t layer = 0; layer < kv->layers; layer++) {
            kv->k[layer * kv->blocks_max + b] = kv->own[b] + 2 * layer * layer_floats(kv);
            kv->v[layer * kv->blocks_max + b] = kv->own[b] + (2 * layer + 1) * layer_floats(kv);
        }
        kv->home[b] = WF_KV_PRIVATE;
    }
    return true;
}

void wf_kv_copy_out(const struct wf_kv *kv, uint32_t block, const struct weft_fill *fill,
                    uint32_t slot)
{
    for (uint32_t layer = 0; layer < kv->layers; layer++) {
        size_t at = layer * kv->blocks_max + block;
        memcpy(weft_fill_k(fill, slot, layer), kv->k[at], fill->layer_bytes);
        memcpy(weft_fill_v(fill, slot, layer), kv->v[at], fill->layer_bytes);
    }
}
