/* SPDX-License-Identifier: Apache-2.0
 *
 * Values in blocks of the pool.
 *
 * A block's payload is opaque to the node and has a size of its own: there is a format for each of
 * four sizes an octave, from 4 KiB to a chunk (4 MiB, less in a small pool), so that no more than a
 * fifth of a block is slack.  A longer value is several chunks and a tail.
 *
 *     value      1 MiB + 5       block 1.25 MiB
 *     value      10 MiB          4 MiB, 4 MiB, 2 MiB
 *
 * A block's key names nothing that a client said: it is derived from a number that is this
 * gateway's alone, drawn at its start, and a count.  So no value is ever taken for another one, an
 * older one under the same name least of all; and room can be reserved before anybody says for
 * what: a few blocks of each size that is in use are kept reserved ahead, in one message for many.
 *
 *     FILLING  →  PENDING  →  COMMITTING  →  KEPT | LOST
 *
 * What a client has sent whole is PENDING: it is in the pool and not committed yet.  Many are
 * committed with one message, when some have come together, when somebody reads one, or after a
 * moment.  A value that goes while it is pending gives its blocks to the next one; the blocks of
 * one that was kept are removed by a thread of their own, as that is a message each.
 *
 * What is asked of the node often is asked by another thread (resp_maker.h): the next blocks of a
 * size are reserved while the last ones are filled, and values are COMMITTING while others come.
 * Who wants to read or drop one of those waits until it is done.
 *
 * Locks: the caller holds the store's lock for every call but where it says otherwise.
 */
#ifndef WF_GATEWAY_RESP_POOL_H
#define WF_GATEWAY_RESP_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_RESP_BLOCK_MIN 4096u
#define WF_RESP_CHUNK_MAX ((uint64_t)4 << 20)
#define WF_RESP_CLASSES 41u /* 4 KiB to 4 MiB, four an octave */

enum wf_resp_state {
    WF_RESP_FILLING,
    WF_RESP_PENDING,
    WF_RESP_COMMITTING,
    WF_RESP_KEPT,
    WF_RESP_LOST
};

struct wf_resp_piece {
    struct weft_key key;
    struct weft_slot slot; /* until it is committed */
};

struct wf_resp_blob {
    uint64_t bytes;
    struct wf_resp_blob *previous, *next; /* PENDING and COMMITTING ones */
    enum wf_resp_state state;
    uint32_t count;
    uint8_t chunk, tail; /* classes of all pieces but the last, and of the last */
    struct wf_resp_piece pieces[];
};

struct wf_resp_pool;

struct wf_resp_pool_options {
    const char *socket, *domain, *token;
    uint64_t pool_bytes; /* of the node: chunks and what is kept ahead are small beside it */
};

enum weft_status wf_resp_pool_create(const struct wf_resp_pool_options *options,
                                     struct wf_resp_pool **out);
void wf_resp_pool_destroy(struct wf_resp_pool *pool);

/* Room for a value of `bytes`; NULL: there is none now. */
struct wf_resp_blob *wf_resp_blob_begin(struct wf_resp_pool *pool, uint64_t bytes);
/* Where its bytes from `offset` on go, and for how many there is room in one piece.  FILLING.  No
 * lock. */
uint8_t *wf_resp_blob_at(const struct wf_resp_pool *pool, const struct wf_resp_blob *blob,
                         uint64_t offset, uint64_t *out_room);
/* All of it was written. */
void wf_resp_blob_end(struct wf_resp_pool *pool, struct wf_resp_blob *blob);
/* It is not wanted any more, in whatever state. */
void wf_resp_blob_drop(struct wf_resp_pool *pool, struct wf_resp_blob *blob);

/* Is every piece of it there, in DRAM or below? */
bool wf_resp_blob_there(struct wf_resp_pool *pool, const struct wf_resp_blob *blob);
/* Hold all of it in DRAM: `out_pins` of `count`.  WEFT_MISS: it is gone, at least in part;
 * WEFT_PENDING: part of it is on a tier below (wf_resp_pool_load). */
enum weft_status wf_resp_blob_pin(struct wf_resp_pool *pool, struct wf_resp_blob *blob,
                                  struct weft_pin *out_pins);
/* The bytes that piece `index` has of the value. */
uint64_t wf_resp_piece_bytes(const struct wf_resp_pool *pool, const struct wf_resp_blob *blob,
                             uint32_t index);

/* Have a value brought up from below and hold all of it.  No lock; waits. `keys` are a copy of
 * blob->pieces[].key. */
enum weft_status wf_resp_pool_load(struct wf_resp_pool *pool, const struct weft_key *keys,
                                   uint32_t count, uint8_t chunk, uint8_t tail,
                                   struct weft_pin *out_pins);

/* Commit what is pending, and wait until it is. */
void wf_resp_pool_commit(struct wf_resp_pool *pool);
/* Have it committed, without waiting. */
void wf_resp_pool_flush(struct wf_resp_pool *pool);
/* How many values are not committed yet, as far as is known. */
uint32_t wf_resp_pool_pending(const struct wf_resp_pool *pool);

/* Give back what was reserved ahead: all of it, or of sizes that were not asked for since the last
 * call. */
void wf_resp_pool_trim(struct wf_resp_pool *pool, bool all);
/* From now on nothing new is reserved. */
void wf_resp_pool_close(struct wf_resp_pool *pool);

uint64_t wf_resp_pool_chunk(const struct wf_resp_pool *pool);

#endif
