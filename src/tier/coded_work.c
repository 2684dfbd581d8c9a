/* SPDX-License-Identifier: Apache-2.0
 *
 * Workers of a tier that codes, and the memory in which frames lie on their way.
 *
 * Memory is one range of addresses, whose pages are there once they were touched.  An op has one
 * piece of it at a time, or none; what is free lies between those that have some, which are linked
 * by address.  The first gap that is large enough is taken: there are few ops, and large pieces.
 * Writes may have three quarters of it, so that whoever waits for a read finds some.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/hooks.h"
#include "base/reserve.h"
#include "sys/memory.h"
#include "tier/coded_inner.h"

#define SCRATCH_BYTES ((uint64_t)WF_CODED_SCRATCH_BYTES_MAX + WF_CODED_PLANE_BYTES_MAX)

/* -------------------------------------------------------------------------------- memory */

uint64_t wf_coded_memory_for_writes(const struct wf_tier *t)
{
    return t->options.memory_bytes / 4 * 3;
}

bool wf_coded_memory_take(struct wf_tier *t, struct wf_coded_op *op, uint64_t bytes)
{
    bool write = op->outer->op == WF_TIER_WRITE;
    bytes = (bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    if (write && t->writes_bytes + bytes > wf_coded_memory_for_writes(t))
        return false;
    uint8_t *at = t->memory;
    struct wf_coded_op **link = &t->extents;
    for (; *link && (uint64_t)((*link)->memory - at) < bytes; link = &(*link)->after)
        at = (*link)->memory + (*link)->memory_bytes;
    if (!*link && (uint64_t)(t->memory + t->options.memory_bytes - at) < bytes)
        return false;
    op->memory = at;
    op->memory_bytes = bytes;
    op->after = *link;
    *link = op;
    t->writes_bytes += write ? bytes : 0;
    return true;
}

void wf_coded_memory_give(struct wf_tier *t, struct wf_coded_op *op)
{
    struct wf_coded_op **link = &t->extents;
    if (!op->memory)
        return;
    while (*link != op)
        link = &(*link)->after;
    *link = op->after;
    t->writes_bytes -= op->outer->op == WF_TIER_WRITE ? op->memory_bytes : 0;
    op->memory = NULL;
}

/* ------------------------------------------------------------------------------- workers */

static void run(struct wf_coded_worker *worker, struct wf_coded_op *op)
{
    if (op->outer->op == WF_TIER_WRITE)
        wf_coded_encode(worker->tier, op, worker->scratch);
    else
        wf_coded_decode(worker->tier, op, worker->scratch);
}

/* With the lock.  Whoever reads is waited for sooner than who writes. */
static struct wf_coded_op *next_work(struct wf_tier *t)
{
    struct wf_coded_op *op = wf_coded_take(&t->reads);
    if (!op)
        op = wf_coded_take(&t->writes);
    return op;
}

static void *work(void *context)
{
    struct wf_coded_worker *worker = context;
    struct wf_tier *t = worker->tier;
    pthread_setname_np(pthread_self(), "weft-codec");
    pthread_mutex_lock(&t->lock);
    while (!t->stopping) {
        struct wf_coded_op *op = next_work(t);
        if (!op) {
            pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        pthread_mutex_unlock(&t->lock);
        run(worker, op);
        pthread_mutex_lock(&t->lock);
        bool first = !t->worked.first;
        wf_tier_queue_add(&t->worked, &op->behind);
        if (first)
            (void)eventfd_write(t->done_event, 1);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

void wf_coded_work(struct wf_tier *t, struct wf_coded_op *op)
{
    op->step = WF_CODED_WORK;
    t->with_workers++;
    pthread_mutex_lock(&t->lock);
    wf_tier_queue_add(op->outer->op == WF_TIER_WRITE ? &t->writes : &t->reads, &op->behind);
    pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
    if (!t->threads)
        (void)eventfd_write(t->done_event, 1); /* a reap does it */
}

bool wf_coded_work_back(struct wf_tier *t, struct wf_coded_op *op)
{
    pthread_mutex_lock(&t->lock);
    bool back = wf_tier_queue_remove(&t->reads, &op->behind) ||
                wf_tier_queue_remove(&t->writes, &op->behind);
    pthread_mutex_unlock(&t->lock);
    t->with_workers -= back;
    t->told |= back && !t->threads; /* it was readable for this one */
    return back;
}

struct wf_tier_queue wf_coded_worked(struct wf_tier *t)
{
    eventfd_t ignored;
    struct wf_tier_queue worked = {0};
    if (!t->with_workers)
        return worked;
    pthread_mutex_lock(&t->lock);
    struct wf_coded_op *op;
    while (!t->threads && (op = next_work(t))) {
        run(&t->workers[0], op);
        wf_tier_queue_add(&t->worked, &op->behind);
    }
    worked = t->worked;
    t->worked = (struct wf_tier_queue){0};
    if (worked.first)
        (void)eventfd_read(t->done_event, &ignored);
    pthread_mutex_unlock(&t->lock);
    for (const struct wf_tier_request *at = worked.first; at; at = at->next)
        t->with_workers--;
    return worked;
}

static enum weft_status start(struct wf_tier *t)
{
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all); /* signals are the caller's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && t->threads < t->options.workers) {
        struct wf_coded_worker *worker = &t->workers[t->threads];
        rc = WF_FAILS("pthread_create") ? EAGAIN
                                        : pthread_create(&worker->thread, NULL, work, worker);
        t->threads += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: cannot start its %u codec threads: %s; ask for fewer", t->path,
                       t->options.workers, strerror(rc));
    return WEFT_OK;
}

enum weft_status wf_coded_work_open(struct wf_tier *t)
{
    uint32_t count = t->options.workers ? t->options.workers : 1;
    t->memory = wf_reserve(t->options.memory_bytes, "memory for frames", "give the tier less");
    t->workers = wf_calloc(count, sizeof *t->workers, "codec threads");
    if (!t->memory || !t->workers)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        t->workers[i].tier = t;
        t->workers[i].scratch = wf_reserve(SCRATCH_BYTES, "a codec's scratch", "ask for fewer");
        if (!t->workers[i].scratch)
            return WEFT_E_NO_MEMORY;
    }
    return start(t);
}

void wf_coded_work_stop(struct wf_tier *t)
{
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->threads; i++)
        pthread_join(t->workers[i].thread, NULL);
    t->threads = 0;
}

void wf_coded_work_free(struct wf_tier *t)
{
    uint32_t count = t->options.workers ? t->options.workers : 1;
    for (uint32_t i = 0; t->workers && i < count; i++)
        wf_unreserve(t->workers[i].scratch, SCRATCH_BYTES);
    free(t->workers);
    wf_unreserve(t->memory, t->options.memory_bytes);
}
