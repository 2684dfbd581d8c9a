/* SPDX-License-Identifier: Apache-2.0 */
#include "gateway/resp_maker.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "sys/memory.h"

enum job { NONE, ASKED, DONE };

struct wf_resp_maker {
    struct weft_format *const *formats;
    pthread_t thread;
    bool runs, stopping;
    pthread_mutex_t lock;
    pthread_cond_t some, done;
    enum job batch_jobs[WF_RESP_CLASSES], commit_job;
    struct wf_resp_batch batches[WF_RESP_CLASSES];
    struct wf_resp_blob *commit;
};

/* --------------------------------------------------------------------------------- the messages */

void wf_resp_batch_reserve(struct wf_resp_batch *batch)
{
    struct weft_key keys[WF_RESP_AHEAD_MAX];
    struct weft_slot slots[WF_RESP_AHEAD_MAX];
    uint32_t count = batch->count;
    uint8_t identity[24];
    memcpy(identity, batch->nonce, 16);
    batch->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t serial = batch->serial + i;
        memcpy(identity + 16, &serial, 8);
        if (weft_key_from_bytes(batch->format, identity, sizeof identity, &keys[i]) != WEFT_OK)
            return;
    }
    if (!count || weft_reserve_keys(batch->format, NULL, keys, count, 0, slots) != WEFT_OK)
        return;
    for (uint32_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK)
            batch->pieces[batch->count++] = (struct wf_resp_piece){.key = keys[i],
                                                                   .slot = slots[i]};
}

static uint8_t piece_class(const struct wf_resp_blob *blob, uint32_t index)
{
    return index + 1 == blob->count ? blob->tail : blob->chunk;
}

/* Commit up to WEFT_BATCH_MAX blocks of one size. */
static void commit_batch(struct weft_format *format, struct wf_resp_piece **pieces, uint32_t count)
{
    struct weft_slot slots[WEFT_BATCH_MAX];
    for (uint32_t i = 0; i < count; i++)
        slots[i] = pieces[i]->slot;
    /* Whatever the answer is, each slot says what became of it. */
    if (weft_commit_slots(format, slots, count) != WEFT_OK)
        for (uint32_t i = 0; i < count; i++)
            slots[i].status = WEFT_MISS;
    for (uint32_t i = 0; i < count; i++)
        pieces[i]->slot = (struct weft_slot){.status = slots[i].status};
}

static void commit_class(struct weft_format *format, struct wf_resp_blob *first, unsigned class)
{
    struct wf_resp_piece *pieces[WEFT_BATCH_MAX];
    uint32_t count = 0;
    for (struct wf_resp_blob *blob = first; blob; blob = blob->next)
        for (uint32_t i = 0; i < blob->count; i++) {
            if (piece_class(blob, i) != class)
                continue;
            pieces[count++] = &blob->pieces[i];
            if (count == WEFT_BATCH_MAX) {
                commit_batch(format, pieces, count);
                count = 0;
            }
        }
    if (count)
        commit_batch(format, pieces, count);
}

void wf_resp_blobs_commit(struct weft_format *const formats[], struct wf_resp_blob *first)
{
    uint64_t classes = 0;
    for (struct wf_resp_blob *blob = first; blob; blob = blob->next)
        classes |= (uint64_t)(blob->count > 1) << blob->chunk | (uint64_t)1 << blob->tail;
    for (unsigned class = 0; class < WF_RESP_CLASSES; class ++)
        if (classes >> class & 1)
            commit_class(formats[class], first, class);
}

/* ----------------------------------------------------------------------------------- the thread */

/* The first size for which blocks are asked; WF_RESP_CLASSES: none. */
static unsigned class_asked(const struct wf_resp_maker *maker)
{
    unsigned class = 0;
    while (class < WF_RESP_CLASSES && maker->batch_jobs[class] != ASKED)
        class ++;
    return class;
}

static void *maker_run(void *context)
{
    struct wf_resp_maker *maker = context;
    pthread_mutex_lock(&maker->lock);
    while (!maker->stopping) {
        unsigned class = class_asked(maker);
        bool commits = maker->commit_job == ASKED;
        if (class == WF_RESP_CLASSES && !commits) {
            pthread_cond_wait(&maker->some, &maker->lock);
            continue;
        }
        pthread_mutex_unlock(&maker->lock);
        /* Blocks first: somebody may be about to run out of them. */
        if (class < WF_RESP_CLASSES)
            wf_resp_batch_reserve(&maker->batches[class]);
        else
            wf_resp_blobs_commit(maker->formats, maker->commit);
        pthread_mutex_lock(&maker->lock);
        *(class < WF_RESP_CLASSES ? &maker->batch_jobs[class] : &maker->commit_job) = DONE;
        pthread_cond_broadcast(&maker->done);
    }
    pthread_mutex_unlock(&maker->lock);
    return NULL;
}

enum weft_status wf_resp_maker_create(struct weft_format *const formats[],
                                      struct wf_resp_maker **out)
{
    struct wf_resp_maker *maker = wf_calloc(1, sizeof *maker, "the RESP gateway's reserved blocks");
    if (!maker)
        return WEFT_E_NO_MEMORY;
    maker->formats = formats;
    pthread_mutex_init(&maker->lock, NULL);
    pthread_cond_init(&maker->some, NULL);
    pthread_cond_init(&maker->done, NULL);
    maker->runs = pthread_create(&maker->thread, NULL, maker_run, maker) == 0;
    if (!maker->runs) {
        wf_resp_maker_destroy(maker);
        return wf_fail(WEFT_E_SYSTEM, "no thread can be started for the RESP gateway");
    }
    *out = maker;
    return WEFT_OK;
}

void wf_resp_maker_destroy(struct wf_resp_maker *maker)
{
    if (!maker)
        return;
    if (maker->runs) {
        pthread_mutex_lock(&maker->lock);
        maker->stopping = true;
        pthread_cond_signal(&maker->some);
        pthread_mutex_unlock(&maker->lock);
        pthread_join(maker->thread, NULL);
    }
    pthread_cond_destroy(&maker->done);
    pthread_cond_destroy(&maker->some);
    pthread_mutex_destroy(&maker->lock);
    free(maker);
}

/* ------------------------------------------------------------------------------------- its jobs */

/* The lock is held.  Nothing more is done once it stops. */
static bool is_done(struct wf_resp_maker *maker, const enum job *job, bool wait)
{
    while (wait && *job == ASKED && !maker->stopping)
        pthread_cond_wait(&maker->done, &maker->lock);
    return *job != ASKED;
}

void wf_resp_maker_reserve(struct wf_resp_maker *maker, unsigned class,
                           const struct wf_resp_batch *batch)
{
    pthread_mutex_lock(&maker->lock);
    maker->batches[class] = *batch;
    maker->batch_jobs[class] = ASKED;
    pthread_cond_signal(&maker->some);
    pthread_mutex_unlock(&maker->lock);
}

bool wf_resp_maker_take(struct wf_resp_maker *maker, unsigned class, bool wait,
                        struct wf_resp_batch *out)
{
    pthread_mutex_lock(&maker->lock);
    bool is = maker->batch_jobs[class] != NONE && is_done(maker, &maker->batch_jobs[class], wait);
    if (is) {
        *out = maker->batches[class];
        maker->batch_jobs[class] = NONE;
    }
    pthread_mutex_unlock(&maker->lock);
    return is;
}

void wf_resp_maker_commit(struct wf_resp_maker *maker, struct wf_resp_blob *first)
{
    pthread_mutex_lock(&maker->lock);
    maker->commit = first;
    maker->commit_job = ASKED;
    pthread_cond_signal(&maker->some);
    pthread_mutex_unlock(&maker->lock);
}

bool wf_resp_maker_committed(struct wf_resp_maker *maker, bool wait)
{
    pthread_mutex_lock(&maker->lock);
    bool is = is_done(maker, &maker->commit_job, wait);
    if (is)
        maker->commit_job = NONE;
    pthread_mutex_unlock(&maker->lock);
    return is;
}
