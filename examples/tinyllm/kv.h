/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the K and V of each block of a sequence lie.
 *
 * Attention asks this table and reads what it finds, in place: a block pinned in Weft's pool, a
 * slot of the pool that we are filling, or memory of our own.  All three have the same layout, per
 * layer [block_tokens][kv_heads][head_dim] float32, so attention cannot tell them apart, and
 * neither can its results.
 */
#ifndef TINYLLM_KV_H
#define TINYLLM_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "model.h"
#include "weft/weft.h"

enum kv_home {
    KV_NOWHERE = 0,
    KV_PINNED,   /* somebody's committed block: read only, until its pins are released */
    KV_RESERVED, /* a slot we fill: until it is committed or aborted */
    KV_PRIVATE,
};

struct kv {
    uint32_t layers, kv_dim, block_tokens, blocks_max;
    float **k, **v;     /* [layers][blocks_max]: the block's first token */
    enum kv_home *home; /* [blocks_max] */
    float **own; /* [blocks_max]: private memory, kept for the next sequence; NULL: not yet */
};

bool kv_init(struct kv *kv, const struct model *model, uint32_t block_tokens);
void kv_fini(struct kv *kv);

/* Forget where everything is.  Private memory is kept for reuse. */
void kv_reset(struct kv *kv);

/* Blocks first … pins->blocks - 1 lie where `pins` holds them. */
void kv_use_pins(struct kv *kv, const struct weft_pins *pins, uint32_t first);

/* The blocks that `fill` reserved are written there. */
void kv_use_fill(struct kv *kv, const struct weft_fill *fill);

/* Blocks first … end - 1 that have no place yet get one in private memory; with `move`, all of them
 * do. */
bool kv_use_private(struct kv *kv, uint32_t first, uint32_t end, bool move);

/* Copy a block to `fill`'s slot number `slot`. */
void kv_copy_out(const struct kv *kv, uint32_t block, const struct weft_fill *fill, uint32_t slot);

static inline float *kv_k(const struct kv *kv, uint32_t layer, uint32_t position)
{
    return kv->k[layer * kv->blocks_max + position / kv->block_tokens] +
           position % kv->block_tokens * kv->kv_dim;
}

static inline float *kv_v(const struct kv *kv, uint32_t layer, uint32_t position)
{
    return kv->v[layer * kv->blocks_max + position / kv->block_tokens] +
           position % kv->block_tokens * kv->kv_dim;
}

#endif
