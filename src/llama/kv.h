/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the K and V of each block of a sequence lie.
 *
 * Attention asks this table and reads what it finds, in place: a block pinned in Weft's pool, a
 * slot of the pool that we are filling, or memory of our own.  All three have the same layout, per
 * layer [block_tokens][kv_heads][head_dim] float32, so attention cannot tell them apart, and
 * neither can its results.
 */
#ifndef WF_LLAMA_KV_H
#define WF_LLAMA_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "llama/model.h"
#include "weft/weft.h"

enum wf_kv_home {
    WF_KV_NOWHERE = 0,
    WF_KV_PINNED,   /* somebody's committed block: read only, until its pins are released */
    WF_KV_RESERVED, /* a slot we fill: until it is committed or aborted */
    WF_KV_PRIVATE,
};

struct wf_kv {
    uint32_t layers, kv_dim, block_tokens, blocks_max;
    float **k, **v;        /* [layers][blocks_max]: the block's first token */
    enum wf_kv_home *home; /* [blocks_max] */
    float **own; /* [blocks_max]: private memory, kept for the next sequence; NULL: not yet */
};

bool wf_kv_init(struct wf_kv *kv, const struct wf_model *model, uint32_t block_tokens);
void wf_kv_fini(struct wf_kv *kv);

/* Forget where everything is.  Private memory is kept for reuse. */
void wf_kv_reset(struct wf_kv *kv);

/* Blocks first … pins->blocks - 1 lie where `pins` holds them. */
void wf_kv_use_pins(struct wf_kv *kv, const struct weft_pins *pins, uint32_t first);

/* The blocks that `fill` reserved are written there. */
void wf_kv_use_fill(struct wf_kv *kv, const struct weft_fill *fill);

/* Blocks first … end - 1 that have no place yet get one in private memory; with `move`, all of them
 * do. */
bool wf_kv_use_private(struct wf_kv *kv, uint32_t first, uint32_t end, bool move);

/* Copy a block to `fill`'s slot number `slot`. */
void wf_kv_copy_out(const struct wf_kv *kv, uint32_t block, const struct weft_fill *fill,
                    uint32_t slot);

static inline float *wf_kv_k(const struct wf_kv *kv, uint32_t layer, uint32_t position)
{
    return kv->k[layer * kv->blocks_max + position / kv->block_tokens] +
           position % kv->block_tokens * kv->kv_dim;
}

static inline float *wf_kv_v(const struct wf_kv *kv, uint32_t layer, uint32_t position)
{
    return kv->v[layer * kv->blocks_max + position / kv->block_tokens] +
           position % kv->block_tokens * kv->kv_dim;
}

#endif
