/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resp_pool.h"
#include "base/hooks.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "gateway/resp_maker.h"
#include "sys/memory.h"

#define AHEAD_MAX WF_RESP_AHEAD_MAX
/* In one batch of one size; never more than a 128th of the pool.  Two are there at most: one that
 * is used, and one that is asked for. */
#define AHEAD_BYTES ((uint64_t)8 << 20)
#define STEADY 4u /* blocks in a batch from which on the next one is asked for at once */
#define CHUNK_MIN ((uint64_t)64 << 10)
#define COMMIT_AT 32u                     /* pending values */
#define COMMIT_LATE 128u                  /* … while others are being committed still */
#define COMMIT_BYTES ((uint64_t)64 << 20) /* in them */
#define REMOVALS_MAX 65536u
#define REMOVALS_BATCH 128u
#define REMOVAL_TRIES 250u /* while somebody reads it */
#define REMOVAL_NAP_MS 5

struct ahead {
    uint32_t count, batch; /* reserved now; how many the next message asks for */
    bool used;             /* since the last trim */
    struct wf_resp_piece pieces[AHEAD_MAX];
};

struct removal {
    struct weft_key key;
    uint8_t tries;
};

struct wf_resp_pool {
    struct weft *weft;
    struct weft_format *formats[WF_RESP_CLASSES];
    uint8_t nonce[16];
    uint64_t serial, chunk_bytes, ahead_bytes, value_bytes_max;
    uint8_t chunk; /* its class */
    bool closed;
    struct ahead ahead[WF_RESP_CLASSES];
    struct wf_resp_blob *first, *last; /* pending, oldest first */
    uint32_t pending;
    uint64_t pending_bytes;
    struct wf_resp_maker *maker;
    struct wf_resp_blob *committing; /* the maker's until it is done with them */
    /* The remover has a connection of its own, and the queue a lock of its own. */
    struct weft *remover_weft;
    struct weft_format *remover_format;
    pthread_t remover;
    bool remover_runs;
    pthread_mutex_t removals_lock;
    pthread_cond_t removals_some;
    struct removal removals[REMOVALS_MAX];
    uint32_t removals_first, removals_count;
    bool stopping;
};

/* -------------------------------------------------------------------------------------- classes */

/* 4, 5, 6, 7, 8, 10, 12, 14, 16 … KiB */
static uint64_t class_bytes(unsigned class)
{
    return (uint64_t)(4 + class % 4) << (class / 4 + 10);
}

static uint8_t class_of(uint64_t bytes)
{
    unsigned class = 0;
    while (class_bytes(class) < bytes)
        class ++;
    return (uint8_t) class;
}

uint64_t wf_resp_pool_chunk(const struct wf_resp_pool *pool)
{
    return pool->chunk_bytes;
}

static struct weft_format *format_of(struct wf_resp_pool *pool, unsigned class)
{
    if (pool->formats[class])
        return pool->formats[class];
    struct weft_format_spec spec = {
        .model = "resp",
        .layers = 1,
        .kv_heads = 1,
        .head_dim = 1,
        .dtype = WEFT_INT8,
        .block_tokens = 1,
        .block_bytes = class_bytes(class),
        .quality = WEFT_LOSSLESS,
    };
    if (weft_format_open(pool->weft, &spec, &pool->formats[class]) != WEFT_OK)
        return NULL;
    return pool->formats[class];
}

static uint8_t piece_class(const struct wf_resp_blob *blob, uint32_t index)
{
    return index + 1 == blob->count ? blob->tail : blob->chunk;
}

uint64_t wf_resp_piece_bytes(const struct wf_resp_pool *pool, const struct wf_resp_blob *blob,
                             uint32_t index)
{
    uint64_t before = index * pool->chunk_bytes;
    return blob->bytes - before < pool->chunk_bytes ? blob->bytes - before : pool->chunk_bytes;
}

/* ---------------------------------------------------------------------------------------- ahead */

/* What asks for `count` blocks; false: there is no asking for any. */
static bool batch_make(struct wf_resp_pool *pool, unsigned class, uint32_t count,
                       struct wf_resp_batch *out)
{
    out->format = pool->closed ? NULL : format_of(pool, class);
    out->count = count;
    out->serial = pool->serial;
    memcpy(out->nonce, pool->nonce, sizeof out->nonce);
    pool->serial += count;
    return out->format != NULL;
}

/* Blocks that are reserved and not wanted go back. */
static void ahead_abort(struct wf_resp_pool *pool, unsigned class, struct wf_resp_piece *pieces,
                        uint32_t count)
{
    struct weft_slot slots[AHEAD_MAX];
    for (uint32_t i = 0; i < count; i++)
        slots[i] = pieces[i].slot;
    if (count)
        weft_abort_slots(pool->formats[class], slots, count);
}

/* The next batch of a size that is empty: the one that was asked for, or else one that is asked for
 * now, of twice as many as the last. */
static void ahead_fill(struct wf_resp_pool *pool, unsigned class)
{
    struct ahead *ahead = &pool->ahead[class];
    struct wf_resp_batch batch;
    if (!wf_resp_maker_take(pool->maker, class, true, &batch) || !batch.count) {
        uint64_t most = pool->ahead_bytes / class_bytes(class);
        most = most < 1 ? 1 : most > AHEAD_MAX ? AHEAD_MAX : most;
        ahead->batch = ahead->batch * 2 < most ? ahead->batch * 2 : (uint32_t)most;
        if (!ahead->batch)
            ahead->batch = 1;
        if (!batch_make(pool, class, ahead->batch, &batch))
            return;
        wf_resp_batch_reserve(&batch);
    }
    ahead->count = batch.count;
    memcpy(ahead->pieces, batch.pieces, batch.count * sizeof batch.pieces[0]);
    if (ahead->count < ahead->batch)
        ahead->batch = 0; /* the pool is short: not ahead of need then */
    else if (ahead->batch >= STEADY && batch_make(pool, class, ahead->batch, &batch))
        wf_resp_maker_reserve(pool->maker, class, &batch);
}

/* One reserved block. */
static bool piece_take(struct wf_resp_pool *pool, unsigned class, struct wf_resp_piece *out)
{
    struct ahead *ahead = &pool->ahead[class];
    ahead->used = true;
    if (!ahead->count)
        ahead_fill(pool, class);
    if (!ahead->count)
        return false;
    *out = ahead->pieces[--ahead->count];
    return true;
}

static void piece_give(struct wf_resp_pool *pool, unsigned class, struct wf_resp_piece *piece)
{
    struct ahead *ahead = &pool->ahead[class];
    bool room = !pool->closed && ahead->count < AHEAD_MAX &&
                (ahead->count + 1) * class_bytes(class) <= pool->ahead_bytes;
    if (room)
        ahead->pieces[ahead->count++] = *piece;
    else
        ahead_abort(pool, class, piece, 1);
}

void wf_resp_pool_trim(struct wf_resp_pool *pool, bool all)
{
    for (unsigned class = 0; class < WF_RESP_CLASSES; class ++) {
        struct ahead *ahead = &pool->ahead[class];
        if (all || !ahead->used) {
            struct wf_resp_batch batch;
            ahead_abort(pool, class, ahead->pieces, ahead->count);
            ahead->count = ahead->batch = 0;
            if (wf_resp_maker_take(pool->maker, class, all, &batch))
                ahead_abort(pool, class, batch.pieces, batch.count);
        }
        ahead->used = false;
    }
}

void wf_resp_pool_close(struct wf_resp_pool *pool)
{
    wf_resp_pool_commit(pool);
    pool->closed = true;
    wf_resp_pool_trim(pool, true);
}

/* ----------------------------------------------------------------------------------- removals */

static void removal_add(struct wf_resp_pool *pool, const struct weft_key *key)
{
    pthread_mutex_lock(&pool->removals_lock);
    /* Without room it is left to the node, where nobody asks for it again. */
    if (pool->removals_count < REMOVALS_MAX) {
        uint32_t at = (pool->removals_first + pool->removals_count++) % REMOVALS_MAX;
        pool->removals[at] = (struct removal){.key = *key};
        if (pool->removals_count == 1)
            pthread_cond_signal(&pool->removals_some);
    }
    pthread_mutex_unlock(&pool->removals_lock);
}

/* The next ones, waiting for the first; 0: the pool stops. */
static uint32_t removals_take(struct wf_resp_pool *pool, struct removal *out)
{
    uint32_t count = 0;
    pthread_mutex_lock(&pool->removals_lock);
    while (!pool->stopping && !pool->removals_count)
        pthread_cond_wait(&pool->removals_some, &pool->removals_lock);
    for (; !pool->stopping && pool->removals_count && count < REMOVALS_BATCH; count++) {
        out[count] = pool->removals[pool->removals_first];
        pool->removals_first = (pool->removals_first + 1) % REMOVALS_MAX;
        pool->removals_count--;
    }
    pthread_mutex_unlock(&pool->removals_lock);
    return count;
}

/* Those that somebody still reads come again. */
static void removals_again(struct wf_resp_pool *pool, struct removal *removals,
                           const enum weft_status *statuses, uint32_t count)
{
    pthread_mutex_lock(&pool->removals_lock);
    for (uint32_t i = 0; i < count; i++)
        if (statuses[i] == WEFT_E_BUSY && ++removals[i].tries < REMOVAL_TRIES &&
            pool->removals_count < REMOVALS_MAX)
            pool->removals[(pool->removals_first + pool->removals_count++) % REMOVALS_MAX] =
                removals[i];
    pthread_mutex_unlock(&pool->removals_lock);
}

static void *removals_run(void *context)
{
    struct wf_resp_pool *pool = context;
    struct removal removals[REMOVALS_BATCH];
    struct weft_key keys[REMOVALS_BATCH];
    enum weft_status statuses[REMOVALS_BATCH];
    struct timespec nap = {.tv_nsec = REMOVAL_NAP_MS * 1000000};
    uint32_t count;
    while ((count = removals_take(pool, removals)) > 0) {
        for (uint32_t i = 0; i < count; i++)
            keys[i] = removals[i].key;
        if (weft_remove_keys(pool->remover_format, keys, count, statuses) == WEFT_OK)
            removals_again(pool, removals, statuses, count);
        if (count < REMOVALS_BATCH / 4)
            nanosleep(&nap, NULL); /* there is no hurry, and many at once cost little more */
    }
    return NULL;
}

/* ---------------------------------------------------------------------------------- start, stop */

static enum weft_status nonce_make(struct wf_resp_pool *pool)
{
    if (getrandom(pool->nonce, sizeof pool->nonce, 0) != (ssize_t)sizeof pool->nonce)
        return wf_fail(WEFT_E_SYSTEM, "the kernel gives no random numbers for the RESP gateway");
    return WEFT_OK;
}

enum weft_status wf_resp_pool_create(const struct wf_resp_pool_options *options,
                                     struct wf_resp_pool **out)
{
    struct wf_resp_pool *pool = wf_calloc(1, sizeof *pool, "the RESP gateway's blocks");
    if (!pool)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&pool->removals_lock, NULL);
    pthread_cond_init(&pool->removals_some, NULL);
    /* What does not fit would have everything else evicted before that was found out. */
    pool->value_bytes_max = options->pool_bytes / 2;
    pool->chunk_bytes = WF_RESP_CHUNK_MAX;
    while (pool->chunk_bytes > CHUNK_MIN && pool->chunk_bytes > options->pool_bytes / 32)
        pool->chunk_bytes /= 2;
    pool->chunk = class_of(pool->chunk_bytes);
    pool->ahead_bytes = options->pool_bytes / 128 < AHEAD_BYTES ? options->pool_bytes / 128
                                                                : AHEAD_BYTES;
    const struct weft_connect_options connect = {.socket = options->socket,
                                                 .domain = options->domain,
                                                 .token = options->token};
    enum weft_status status = nonce_make(pool);
    if (status == WEFT_OK)
        status = weft_connect(&connect, &pool->weft);
    if (status == WEFT_OK)
        status = weft_connect(&connect, &pool->remover_weft);
    if (status == WEFT_OK)
        status = wf_resp_maker_create(pool->formats, &pool->maker);
    if (status == WEFT_OK) {
        struct weft_format_spec spec = {.model = "resp",
                                        .layers = 1,
                                        .kv_heads = 1,
                                        .head_dim = 1,
                                        .dtype = WEFT_INT8,
                                        .block_tokens = 1,
                                        .block_bytes = WF_RESP_BLOCK_MIN,
                                        .quality = WEFT_LOSSLESS};
        status = weft_format_open(pool->remover_weft, &spec, &pool->remover_format);
    }
    if (status == WEFT_OK && pthread_create(&pool->remover, NULL, removals_run, pool) != 0)
        status = wf_fail(WEFT_E_SYSTEM, "no thread can be started for the RESP gateway");
    pool->remover_runs = status == WEFT_OK;
    if (status != WEFT_OK) {
        wf_resp_pool_destroy(pool);
        return status;
    }
    *out = pool;
    return WEFT_OK;
}

void wf_resp_pool_destroy(struct wf_resp_pool *pool)
{
    if (!pool)
        return;
    if (pool->remover_runs) {
        pthread_mutex_lock(&pool->removals_lock);
        pool->stopping = true;
        pthread_cond_signal(&pool->removals_some);
        pthread_mutex_unlock(&pool->removals_lock);
        pthread_join(pool->remover, NULL);
    }
    if (pool->maker)
        wf_resp_pool_trim(pool, true);
    wf_resp_maker_destroy(pool->maker);
    for (unsigned class = 0; class < WF_RESP_CLASSES; class ++)
        weft_format_close(pool->formats[class]);
    weft_format_close(pool->remover_format);
    weft_close(pool->remover_weft);
    weft_close(pool->weft);
    pthread_cond_destroy(&pool->removals_some);
    pthread_mutex_destroy(&pool->removals_lock);
    free(pool);
}

/* ----------------------------------------------------------------------------------- one value */

struct wf_resp_blob *wf_resp_blob_begin(struct wf_resp_pool *pool, uint64_t bytes)
{
    uint64_t count = bytes ? (bytes + pool->chunk_bytes - 1) / pool->chunk_bytes : 1;
    if (bytes > pool->value_bytes_max)
        return NULL;
    struct wf_resp_blob *blob = wf_calloc(1, sizeof *blob + count * sizeof blob->pieces[0],
                                          "a value's bookkeeping");
    if (!blob)
        return NULL;
    blob->bytes = bytes;
    blob->chunk = pool->chunk;
    blob->tail = class_of(bytes - (count - 1) * pool->chunk_bytes);
    uint32_t all = (uint32_t)count;
    for (blob->count = 0; blob->count < all; blob->count++) {
        uint8_t class = blob->count + 1 == all ? blob->tail : blob->chunk;
        if (piece_take(pool, class, &blob->pieces[blob->count]))
            continue;
        blob->tail = blob->chunk; /* those that it got are whole chunks */
        wf_resp_blob_drop(pool, blob);
        return NULL;
    }
    return blob;
}

uint8_t *wf_resp_blob_at(const struct wf_resp_pool *pool, const struct wf_resp_blob *blob,
                         uint64_t offset, uint64_t *out_room)
{
    uint32_t index = (uint32_t)(offset / pool->chunk_bytes);
    uint64_t inside = offset % pool->chunk_bytes;
    *out_room = wf_resp_piece_bytes(pool, blob, index) - inside;
    return (uint8_t *)blob->pieces[index].slot.data + inside;
}

static void pending_add(struct wf_resp_pool *pool, struct wf_resp_blob *blob)
{
    blob->previous = pool->last;
    blob->next = NULL;
    *(pool->last ? &pool->last->next : &pool->first) = blob;
    pool->last = blob;
    pool->pending++;
    pool->pending_bytes += blob->bytes;
}

static void pending_remove(struct wf_resp_pool *pool, struct wf_resp_blob *blob)
{
    *(blob->previous ? &blob->previous->next : &pool->first) = blob->next;
    *(blob->next ? &blob->next->previous : &pool->last) = blob->previous;
    blob->previous = blob->next = NULL;
    pool->pending--;
    pool->pending_bytes -= blob->bytes;
}

/* Values whose commit was answered are kept or lost from now on. */
static void blobs_settle(struct wf_resp_blob *first)
{
    for (struct wf_resp_blob *blob = first, *next; blob; blob = next) {
        next = blob->next;
        blob->previous = blob->next = NULL;
        blob->state = WF_RESP_KEPT;
        for (uint32_t i = 0; i < blob->count; i++)
            if (blob->pieces[i].slot.status != WEFT_OK &&
                blob->pieces[i].slot.status != WEFT_EXISTS)
                blob->state = WF_RESP_LOST;
    }
}

/* What the maker has committed; `wait`: all that it was given. */
static void commits_settle(struct wf_resp_pool *pool, bool wait)
{
    if (!pool->committing || !wf_resp_maker_committed(pool->maker, wait))
        return;
    blobs_settle(pool->committing);
    pool->committing = NULL;
}

/* All that is pending, out of the list. */
static struct wf_resp_blob *pending_take(struct wf_resp_pool *pool)
{
    struct wf_resp_blob *first = pool->first;
    pool->first = pool->last = NULL;
    pool->pending = 0;
    pool->pending_bytes = 0;
    return first;
}

void wf_resp_pool_commit(struct wf_resp_pool *pool)
{
    commits_settle(pool, true);
    struct wf_resp_blob *first = pending_take(pool);
    wf_resp_blobs_commit(pool->formats, first);
    blobs_settle(first);
}

void wf_resp_pool_flush(struct wf_resp_pool *pool)
{
    bool late = pool->pending >= COMMIT_LATE || pool->pending_bytes >= 2 * COMMIT_BYTES;
    commits_settle(pool, late);
    if (pool->committing || !pool->first)
        return;
    pool->committing = pending_take(pool);
    for (struct wf_resp_blob *blob = pool->committing; blob; blob = blob->next)
        blob->state = WF_RESP_COMMITTING;
    wf_resp_maker_commit(pool->maker, pool->committing);
}

void wf_resp_blob_end(struct wf_resp_pool *pool, struct wf_resp_blob *blob)
{
    blob->state = WF_RESP_PENDING;
    pending_add(pool, blob);
    if (pool->closed)
        wf_resp_pool_commit(pool);
    else if (pool->pending >= COMMIT_AT || pool->pending_bytes >= COMMIT_BYTES)
        wf_resp_pool_flush(pool);
}

void wf_resp_blob_drop(struct wf_resp_pool *pool, struct wf_resp_blob *blob)
{
    if (blob->state == WF_RESP_COMMITTING)
        commits_settle(pool, true);
    if (blob->state == WF_RESP_PENDING)
        pending_remove(pool, blob);
    for (uint32_t i = 0; i < blob->count; i++) {
        if (blob->state == WF_RESP_KEPT)
            removal_add(pool, &blob->pieces[i].key);
        else if (blob->state != WF_RESP_LOST)
            piece_give(pool, piece_class(blob, i), &blob->pieces[i]);
    }
    free(blob);
}

uint32_t wf_resp_pool_pending(const struct wf_resp_pool *pool)
{
    return pool->pending + (pool->committing != NULL);
}

bool wf_resp_blob_there(struct wf_resp_pool *pool, const struct wf_resp_blob *blob)
{
    if (blob->state != WF_RESP_KEPT)
        return blob->state != WF_RESP_LOST;
    for (uint32_t i = 0; i < blob->count; i++) {
        size_t present = 0;
        struct weft_format *format = format_of(pool, piece_class(blob, i));
        if (!format || weft_match_keys(format, &blob->pieces[i].key, 1, &present) != WEFT_OK ||
            !present)
            return false;
    }
    return true;
}

static void unpin(struct weft_pin *pins, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        weft_unpin(&pins[i]);
}

enum weft_status wf_resp_blob_pin(struct wf_resp_pool *pool, struct wf_resp_blob *blob,
                                  struct weft_pin *out_pins)
{
    if (blob->state == WF_RESP_PENDING)
        wf_resp_pool_commit(pool);
    else if (blob->state == WF_RESP_COMMITTING)
        commits_settle(pool, true);
    if (blob->state != WF_RESP_KEPT)
        return WEFT_MISS;
    for (uint32_t i = 0; i < blob->count; i++) {
        struct weft_format *format = format_of(pool, piece_class(blob, i));
        enum weft_status status = format ? weft_pin(format, &blob->pieces[i].key, &out_pins[i])
                                         : WEFT_MISS;
        if (status == WEFT_OK)
            continue;
        unpin(out_pins, i);
        return status != WEFT_MISS              ? status
               : wf_resp_blob_there(pool, blob) ? WEFT_PENDING
                                                : WEFT_MISS;
    }
    return WEFT_OK;
}

/* Hold `count` blocks of one size; moves the pins to `out_pins`. */
static enum weft_status load_class(struct weft_format *format, const struct weft_key *keys,
                                   uint32_t count, struct weft_pin *out_pins)
{
    struct weft_pins pins;
    enum weft_status status = weft_get_keys(format, keys, count, WEFT_BLOCK_ORDER, &pins);
    if (status != WEFT_OK)
        return status;
    if (pins.blocks < count)
        status = WEFT_MISS;
    for (uint32_t i = 0; status == WEFT_OK && i < count; i++)
        status = weft_wait_block(&pins, i);
    if (status == WEFT_OK) {
        memcpy(out_pins, pins.pins, count * sizeof *out_pins);
        pins.blocks = 0; /* they are held on */
    }
    weft_pins_release(&pins);
    return status;
}

enum weft_status wf_resp_pool_load(struct wf_resp_pool *pool, const struct weft_key *keys,
                                   uint32_t count, uint8_t chunk, uint8_t tail,
                                   struct weft_pin *out_pins)
{
    enum weft_status status = WF_FAILS("resp.load") ? WEFT_E_TIMEOUT : WEFT_OK;
    /* The formats are there: its blocks were put through them. */
    if (status == WEFT_OK && count > 1)
        status = load_class(pool->formats[chunk], keys, count - 1, out_pins);
    if (status != WEFT_OK)
        return status;
    status = load_class(pool->formats[tail], keys + count - 1, 1, out_pins + count - 1);
    if (status != WEFT_OK)
        unpin(out_pins, count - 1);
    return status;
}
