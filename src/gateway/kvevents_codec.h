/* SPDX-License-Identifier: Apache-2.0
 *
 * KV events as vLLM writes and reads them: a batch in MessagePack.
 *
 *     batch          [ts, [event …], data_parallel_rank]
 *     event, array   ["BlockStored", block_hashes, parent_block_hash, token_ids, block_size,
 *                     lora_id, medium, lora_name, …]
 *                    ["BlockRemoved", block_hashes, medium, …]   ["AllBlocksCleared"]
 *     event, map     {"type": "BlockStored", "block_hashes": …}  the same by name
 *
 * A hash is bytes, or the last eight of them as a number.  Arrays are what vLLM wrote before
 * mid-2026, maps what it writes since (vllm/distributed/kv_events.py); both are read.
 *
 * Written out by hand, as MessagePack needs so little: what a stranger sends is looked at where it
 * lies, allocates nothing whatever lengths it claims, and is believed as a whole or not at all.
 */
#ifndef WF_GATEWAY_KVEVENTS_CODEC_H
#define WF_GATEWAY_KVEVENTS_CODEC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_KV_HASH_MAX 64u
#define WF_KV_LORA_MAX 255u

/* What a block stands for.  Never changes; counted, and free when nobody has it any more. */
struct wf_kv_block {
    _Atomic uint32_t references;
    uint32_t token_count; /* 0: they are not known */
    uint8_t hash_bytes;   /* 1 to WF_KV_HASH_MAX */
    uint8_t parent_bytes; /* 0: it begins a prompt */
    uint8_t lora_bytes;   /* 0: none */
    uint8_t reserved;
    uint32_t tokens[]; /* then the hash, the parent's, and the adapter's name */
};

struct wf_kv_meaning {
    const void *hash, *parent, *lora; /* parent and lora: NULL with 0 bytes */
    size_t hash_bytes, parent_bytes, lora_bytes;
    const uint32_t *tokens; /* NULL with 0 of them */
    size_t token_count;
};

/* The caller has the one reference.  NULL: no memory. */
struct wf_kv_block *wf_kv_block_create(const struct wf_kv_meaning *meaning);
struct wf_kv_block *wf_kv_block_get(struct wf_kv_block *block);
void wf_kv_block_put(struct wf_kv_block *block); /* NULL is allowed */
size_t wf_kv_block_bytes(const struct wf_kv_block *block);
const uint8_t *wf_kv_block_hash(const struct wf_kv_block *block);
const uint8_t *wf_kv_block_parent(const struct wf_kv_block *block);
const char *wf_kv_block_lora(const struct wf_kv_block *block); /* not zero-terminated */
bool wf_kv_block_same(const struct wf_kv_block *a, const struct wf_kv_block *b);

/* The number that vLLM makes of a hash. */
uint64_t wf_kv_hash_number(const uint8_t *hash, size_t bytes);

enum wf_kv_kind { WF_KV_STORED = 1, WF_KV_REMOVED, WF_KV_CLEARED };
enum wf_kv_medium { WF_KV_NOWHERE = 0, WF_KV_GPU, WF_KV_CPU, WF_KV_STORAGE, WF_KV_ELSEWHERE };
const char *wf_kv_medium_name(enum wf_kv_medium medium); /* NULL for the first and the last */

struct wf_kv_said {
    enum wf_kv_kind kind;
    enum wf_kv_medium medium;
    struct wf_kv_block *block; /* NULL for CLEARED */
};

/* ------------------------------------------------------------------------------------- writing */

struct wf_kv_style {
    bool arrays;  /* else maps */
    bool numbers; /* hashes; else bytes */
    uint64_t rank;
};

struct wf_kv_bytes {
    uint8_t *data; /* grown by realloc(), the caller's to free() */
    size_t bytes, capacity;
    bool failed; /* there was no memory; nothing more is written */
};

/* One batch, appended.  What extends each other, and what went from one place, becomes one event.
 * WEFT_E_NO_MEMORY. */
enum weft_status wf_kv_encode(const struct wf_kv_style *style, double ts,
                              const struct wf_kv_said *said, size_t count, struct wf_kv_bytes *out);

/* ------------------------------------------------------------------------------------- reading */

struct wf_kv_heard {
    enum wf_kv_kind kind;
    enum wf_kv_medium medium; /* NOWHERE: it was not said; ELSEWHERE also: on another host */
    uint32_t group;           /* of layers, from 0; what was not said is 0 */
    bool plain; /* STORED: tokens and adapter are all that the hash is of, besides the parent's */
    struct wf_kv_meaning meaning; /* borrowed for the call; tokens only when they fit the blocks */
};

/* Calls `hear` for each block of each event, in order, after all of it was found to be in order.
 * Events of other kinds are left out.  WEFT_E_PROTOCOL: it is none, and nothing was heard. */
enum weft_status wf_kv_decode(const void *data, size_t bytes,
                              void (*hear)(void *context, const struct wf_kv_heard *heard),
                              void *context);

/* No more hashes in an event, nor tokens in a block, are believed. */
#define WF_KV_HASHES_MAX 65536u
#define WF_KV_TOKENS_MAX 16384u

#endif
