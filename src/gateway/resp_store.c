/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resp_store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "sys/memory.h"

static uint64_t cost(const struct wf_resp_entry *entry)
{
    uint64_t pieces = entry->blob
                          ? sizeof *entry->blob + entry->blob->count * sizeof entry->blob->pieces[0]
                          : 0;
    return sizeof *entry + entry->key_bytes + entry->value_bytes + pieces + 16;
}

enum weft_status wf_resp_store_init(struct wf_resp_store *store, struct wf_resp_pool *pool,
                                    uint64_t entries_max, uint64_t bytes_max,
                                    struct wf_resp_counters *counters)
{
    uint64_t places = 1024;
    while (places < entries_max)
        places *= 2;
    *store = (struct wf_resp_store){.pool = pool,
                                    .mask = places - 1,
                                    .entries_max = entries_max,
                                    .bytes_max = bytes_max,
                                    .counters = counters};
    if (getrandom(&store->seed, sizeof store->seed, 0) != (ssize_t)sizeof store->seed)
        return wf_fail(WEFT_E_SYSTEM, "the kernel gives no random numbers for the RESP gateway");
    store->table = wf_calloc(places, sizeof *store->table, "the RESP gateway's dictionary");
    if (!store->table)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&store->lock, NULL);
    return WEFT_OK;
}

void wf_resp_store_fini(struct wf_resp_store *store)
{
    if (!store->table)
        return;
    while (store->oldest) {
        struct wf_resp_entry *entry = store->oldest;
        store->oldest = entry->newer;
        if (entry->blob)
            free(entry->blob);
        free(entry);
    }
    free(store->table);
    pthread_mutex_destroy(&store->lock);
    memset(store, 0, sizeof *store);
}

/* -------------------------------------------------------------------------------------- entries */

static uint32_t hash_of(const struct wf_resp_store *store, const struct wf_resp_key *key)
{
    return (uint32_t)XXH3_64bits_withSeed(key->bytes, key->length, store->seed + key->database);
}

static void list_remove(struct wf_resp_store *store, struct wf_resp_entry *entry)
{
    *(entry->older ? &entry->older->newer : &store->oldest) = entry->newer;
    *(entry->newer ? &entry->newer->older : &store->newest) = entry->older;
}

static void list_add(struct wf_resp_store *store, struct wf_resp_entry *entry)
{
    entry->older = store->newest;
    entry->newer = NULL;
    *(store->newest ? &store->newest->newer : &store->oldest) = entry;
    store->newest = entry;
}

void wf_resp_remove(struct wf_resp_store *store, struct wf_resp_entry *entry)
{
    struct wf_resp_entry **at = &store->table[entry->hash & store->mask];
    while (*at != entry)
        at = &(*at)->chain;
    *at = entry->chain;
    list_remove(store, entry);
    store->entries--;
    store->bytes -= cost(entry);
    store->in_database[entry->database]--;
    store->expiring[entry->database] -= entry->expires_ms != 0;
    if (entry->blob) {
        store->value_bytes -= entry->blob->bytes;
        wf_resp_blob_drop(store->pool, entry->blob);
    }
    free(entry);
}

static bool expired(struct wf_resp_store *store, struct wf_resp_entry *entry, uint64_t now_ms)
{
    if (!entry->expires_ms || entry->expires_ms > now_ms)
        return false;
    atomic_fetch_add_explicit(&store->counters->expired, 1, memory_order_relaxed);
    wf_resp_remove(store, entry);
    return true;
}

static struct wf_resp_entry *find_hashed(struct wf_resp_store *store, const struct wf_resp_key *key,
                                         uint32_t hash)
{
    struct wf_resp_entry *entry = store->table[hash & store->mask];
    while (entry && !(entry->hash == hash && entry->key_bytes == key->length &&
                      entry->database == key->database &&
                      memcmp(entry->bytes, key->bytes, key->length) == 0))
        entry = entry->chain;
    return entry;
}

struct wf_resp_entry *wf_resp_find(struct wf_resp_store *store, const struct wf_resp_key *key,
                                   uint64_t now_ms)
{
    struct wf_resp_entry *entry = find_hashed(store, key, hash_of(store, key));
    return entry && !expired(store, entry, now_ms) ? entry : NULL;
}

/* Who is read moves on to the end of the line when its turn to go comes, once. */
static void make_room(struct wf_resp_store *store)
{
    while (store->entries > store->entries_max || store->bytes > store->bytes_max) {
        struct wf_resp_entry *entry = store->oldest;
        if (entry->used && entry != store->newest) {
            entry->used = false;
            list_remove(store, entry);
            list_add(store, entry);
            continue;
        }
        atomic_fetch_add_explicit(&store->counters->evicted, 1, memory_order_relaxed);
        wf_resp_remove(store, entry);
    }
}

bool wf_resp_put(struct wf_resp_store *store, const struct wf_resp_key *key, const uint8_t *value,
                 uint32_t length, struct wf_resp_blob *blob, uint64_t expires_ms)
{
    uint32_t hash = hash_of(store, key);
    struct wf_resp_entry *entry = find_hashed(store, key, hash);
    /* The usual case of a cache that is written again: same key, same length, no allocation. */
    if (entry && !entry->blob && !blob && entry->value_bytes == length) {
        memcpy(entry->bytes + entry->key_bytes, value, length);
        wf_resp_expire(store, entry, expires_ms);
        return true;
    }
    if (entry)
        wf_resp_remove(store, entry);
    entry = wf_calloc(1, sizeof *entry + key->length + length, "an entry of the RESP gateway");
    if (!entry) {
        if (blob)
            wf_resp_blob_drop(store->pool, blob);
        return false;
    }
    *entry = (struct wf_resp_entry){.chain = store->table[hash & store->mask],
                                    .hash = hash,
                                    .key_bytes = key->length,
                                    .value_bytes = length,
                                    .database = key->database,
                                    .expires_ms = expires_ms,
                                    .blob = blob};
    memcpy(entry->bytes, key->bytes, key->length);
    if (length)
        memcpy(entry->bytes + key->length, value, length);
    store->table[hash & store->mask] = entry;
    list_add(store, entry);
    store->entries++;
    store->bytes += cost(entry);
    store->in_database[entry->database]++;
    store->expiring[entry->database] += expires_ms != 0;
    if (blob)
        store->value_bytes += blob->bytes;
    make_room(store);
    return true;
}

void wf_resp_expire(struct wf_resp_store *store, struct wf_resp_entry *entry, uint64_t expires_ms)
{
    store->expiring[entry->database] -= entry->expires_ms != 0;
    store->expiring[entry->database] += expires_ms != 0;
    entry->expires_ms = expires_ms;
}

bool wf_resp_there(struct wf_resp_store *store, struct wf_resp_entry *entry)
{
    if (!entry->blob || wf_resp_blob_there(store->pool, entry->blob))
        return true;
    atomic_fetch_add_explicit(&store->counters->lost, 1, memory_order_relaxed);
    wf_resp_remove(store, entry);
    return false;
}

void wf_resp_flush(struct wf_resp_store *store, int database)
{
    struct wf_resp_entry *next;
    for (struct wf_resp_entry *entry = store->oldest; entry; entry = next) {
        next = entry->newer;
        if (database < 0 || entry->database == database)
            wf_resp_remove(store, entry);
    }
}

/* --------------------------------------------------------------------------------------- a look */

uint64_t wf_resp_scan(struct wf_resp_store *store, uint8_t database, uint64_t cursor,
                      uint32_t count, uint64_t now_ms,
                      void (*each)(void *context, const struct wf_resp_entry *entry), void *context)
{
    /* In a table that is mostly empty, many places make a few entries. */
    uint64_t places = 65536 + 64 * (uint64_t)count;
    uint32_t told = 0;
    for (; cursor <= store->mask && places && told < count; cursor++, places--)
        for (struct wf_resp_entry *entry = store->table[cursor]; entry; entry = entry->chain)
            if (entry->database == database &&
                !(entry->expires_ms && entry->expires_ms <= now_ms)) {
                each(context, entry);
                told++;
            }
    return cursor <= store->mask ? cursor : 0;
}

void wf_resp_sweep(struct wf_resp_store *store, uint64_t places, uint64_t now_ms)
{
    uint64_t expiring = 0;
    for (unsigned i = 0; i < WF_RESP_DATABASES; i++)
        expiring += store->expiring[i];
    for (; expiring && places; places--) {
        struct wf_resp_entry *next;
        for (struct wf_resp_entry *entry = store->table[store->sweep]; entry; entry = next) {
            next = entry->chain;
            expired(store, entry, now_ms);
        }
        store->sweep = (store->sweep + 1) & store->mask;
    }
}
