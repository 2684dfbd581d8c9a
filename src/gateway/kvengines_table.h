/* SPDX-License-Identifier: Apache-2.0
 *
 * What one engine said that it holds: by the last 8 bytes of a block's hash, which every encoding
 * of events has, the places where it is, and what it stands for.
 *
 * A set, as routers keep it: said twice is there once, removed once is gone.  Bounded: what finds
 * no room is not taken, and counted, so that the table knows of less than there is and never of
 * more.
 *
 * One thread at a time.
 */
#ifndef WF_GATEWAY_KVENGINES_TABLE_H
#define WF_GATEWAY_KVENGINES_TABLE_H

#include "base/table.h"
#include "gateway/kvevents_codec.h"

#define WF_KV_GROUPS 8u /* of layers; further ones count as the last */

struct wf_kv_place {
    uint8_t key[32];        /* the number, and zeros */
    uint32_t next_in_table; /* the table's; of a free place: the next free one */
    uint32_t places;        /* a bit for each medium and group */
    bool plain;             /* the hashes up to its chain's first are of tokens and adapter alone */
    struct wf_kv_block *block;
};

struct wf_kv_table {
    struct wf_table table;
    struct wf_kv_place *items;
    uint32_t first_free, used; /* used: places that ever were since it was empty */
    uint64_t bytes, bytes_max;
    uint64_t on_gpu;                   /* blocks */
    uint64_t stored, removed, dropped; /* dropped: there was no room */
};

enum weft_status wf_kv_table_init(struct wf_kv_table *table, uint64_t bytes_max, uint64_t seed);
void wf_kv_table_fini(struct wf_kv_table *table);

/* CLEARED is the caller's: wf_kv_table_clear() until nothing is left. */
void wf_kv_table_hear(struct wf_kv_table *table, const struct wf_kv_heard *heard);
/* Forgets up to `most` blocks; true: there are more. */
bool wf_kv_table_clear(struct wf_kv_table *table, uint32_t most);
/* NULL: it is not there.  Good until the table changes. */
const struct wf_kv_place *wf_kv_table_find(const struct wf_kv_table *table, const uint8_t *hash,
                                           size_t hash_bytes);
bool wf_kv_place_on(const struct wf_kv_place *place, enum wf_kv_medium medium);

#endif
