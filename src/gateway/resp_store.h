/* SPDX-License-Identifier: Apache-2.0
 *
 * What one trust domain has in the gateway: a dictionary from (database, key) to a value, which is
 * small and lies here, or lies in blocks of the pool (resp_pool.h).
 *
 *     table[hash & mask] → entry → entry            chains; the table never grows, so that a scan's
 *                           │                       cursor is a place in it
 *     oldest ↔ … ↔ newest ──┘                       all entries, in the order in which they go
 *
 * Two caps: so many entries, and so many bytes of this process's memory for keys and small values.
 * Beyond either the oldest goes that was not read since it came, or was last passed over (second
 * chance).  What goes is gone, here and in the pool.
 *
 * Time is the caller's, in ms of Unix time.  An entry that has expired is there for nobody, and
 * removed when it is met, or by and by.
 *
 * Locks: `lock` guards all of it, and the pool's calls.  It is held across messages to the node.
 */
#ifndef WF_GATEWAY_RESP_STORE_H
#define WF_GATEWAY_RESP_STORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "gateway/resp_pool.h"

#define WF_RESP_DATABASES 16u
#define WF_RESP_KEY_MAX 32768u
#define WF_RESP_SMALL_MAX 4096u /* longer values lie in the pool */

struct wf_resp_entry {
    struct wf_resp_entry *chain;
    struct wf_resp_entry *older, *newer;
    uint64_t expires_ms;       /* 0: never */
    struct wf_resp_blob *blob; /* NULL: the value is small, and behind the key */
    uint32_t hash, key_bytes, value_bytes;
    uint8_t database;
    bool used; /* since it came, or was passed over */
    uint8_t bytes[];
};

struct wf_resp_key {
    const uint8_t *bytes;
    uint32_t length;
    uint8_t database;
};

struct wf_resp_counters {
    _Atomic uint64_t expired, evicted, lost; /* of its time; for room; its blocks were gone */
};

struct wf_resp_store {
    pthread_mutex_t lock;
    struct wf_resp_pool *pool;
    struct wf_resp_entry **table;
    uint64_t seed, mask, sweep;
    struct wf_resp_entry *oldest, *newest;
    uint64_t entries, entries_max, bytes, bytes_max;
    uint64_t in_database[WF_RESP_DATABASES], expiring[WF_RESP_DATABASES];
    uint64_t value_bytes; /* in the pool */
    struct wf_resp_counters *counters;
};

enum weft_status wf_resp_store_init(struct wf_resp_store *store, struct wf_resp_pool *pool,
                                    uint64_t entries_max, uint64_t bytes_max,
                                    struct wf_resp_counters *counters);
/* Lets entries go without a word to the pool, which is gone: nobody works on its blobs any more. */
void wf_resp_store_fini(struct wf_resp_store *store);

/* The caller holds the lock for all of these. */

/* NULL: not there. */
struct wf_resp_entry *wf_resp_find(struct wf_resp_store *store, const struct wf_resp_key *key,
                                   uint64_t now_ms);

/* Put a value in the place of what was there: `value` of `length`, or `blob`, which is the store's
 * from then on, also when there is no memory.  False: there is none, and nothing is there now. */
bool wf_resp_put(struct wf_resp_store *store, const struct wf_resp_key *key, const uint8_t *value,
                 uint32_t length, struct wf_resp_blob *blob, uint64_t expires_ms);

void wf_resp_remove(struct wf_resp_store *store, struct wf_resp_entry *entry);
void wf_resp_expire(struct wf_resp_store *store, struct wf_resp_entry *entry, uint64_t expires_ms);

static inline uint64_t wf_resp_length(const struct wf_resp_entry *entry)
{
    return entry->blob ? entry->blob->bytes : entry->value_bytes;
}

static inline const uint8_t *wf_resp_value(const struct wf_resp_entry *entry)
{
    return entry->bytes + entry->key_bytes;
}

/* Whether it is there for certain: one whose blocks are gone goes, too. */
bool wf_resp_there(struct wf_resp_store *store, struct wf_resp_entry *entry);

/* Everything of a database, or of all (-1). */
void wf_resp_flush(struct wf_resp_store *store, int database);

/* Tell `each` of the entries at `cursor` and the next, about `count` of them.  Returns the cursor
 * to go on with, 0 at the end. */
uint64_t wf_resp_scan(struct wf_resp_store *store, uint8_t database, uint64_t cursor,
                      uint32_t count, uint64_t now_ms,
                      void (*each)(void *context, const struct wf_resp_entry *entry),
                      void *context);

/* Remove what expired in the next `places` of the table. */
void wf_resp_sweep(struct wf_resp_store *store, uint64_t places, uint64_t now_ms);

#endif
