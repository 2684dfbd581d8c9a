/* SPDX-License-Identifier: Apache-2.0
 *
 * One mutex guards both lists.  Jobs are hundreds of kilobytes each; the lock is not what costs.
 */
#include "daemon/workers.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hooks.h"
#include "sys/memory.h"

struct list {
    struct wf_job *first, **last;
};

struct wf_workers {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct list waiting, finished; /* under lock */
    uint32_t count, jobs_max;      /* under lock: jobs submitted and not reaped */
    bool stopping;                 /* under lock */
    int event;
    uint32_t thread_count;
    pthread_t threads[];
};

static void list_init(struct list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_push(struct list *list, struct wf_job *job)
{
    job->next = NULL;
    *list->last = job;
    list->last = &job->next;
}

static struct wf_job *list_pop(struct list *list)
{
    struct wf_job *job = list->first;
    if (job) {
        list->first = job->next;
        if (!list->first)
            list->last = &list->first;
    }
    return job;
}

static void *work(void *context)
{
    struct wf_workers *workers = context;
    pthread_mutex_lock(&workers->lock);
    while (!workers->stopping) {
        struct wf_job *job = list_pop(&workers->waiting);
        if (!job) {
            pthread_cond_wait(&workers->filled, &workers->lock);
            continue;
        }
        pthread_mutex_unlock(&workers->lock);
        job->run(job);
        pthread_mutex_lock(&workers->lock);
        list_push(&workers->finished, job);
        uint64_t one = 1;
        ssize_t rc = write(workers->event, &one, sizeof one);
        (void)rc; /* the counter cannot overflow: it counts at most jobs_max */
    }
    pthread_mutex_unlock(&workers->lock);
    return NULL;
}

enum weft_status wf_workers_create(uint32_t threads, uint32_t jobs_max, struct wf_workers **out)
{
    struct wf_workers *workers =
        wf_calloc(1, sizeof *workers + threads * sizeof workers->threads[0], "data threads");
    if (!workers)
        return WEFT_E_NO_MEMORY;
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->filled, NULL);
    list_init(&workers->waiting);
    list_init(&workers->finished);
    workers->jobs_max = jobs_max;
    workers->event = WF_FAILS("eventfd") ? (errno = EMFILE, -1)
                                         : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (workers->event < 0) {
        enum weft_status status = wf_fail(WEFT_E_SYSTEM, "eventfd: %s", strerror(errno));
        wf_workers_destroy(workers);
        return status;
    }
    /* Signals are the owner thread's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (; workers->thread_count < threads && rc == 0; workers->thread_count += rc == 0)
        rc = WF_FAILS("pthread_create")
                 ? EAGAIN
                 : pthread_create(&workers->threads[workers->thread_count], NULL, work, workers);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0) {
        wf_workers_destroy(workers);
        return wf_fail(WEFT_E_SYSTEM, "cannot start %u data threads: %s; lower `workers`", threads,
                       strerror(rc));
    }
    *out = workers;
    return WEFT_OK;
}

void wf_workers_destroy(struct wf_workers *workers)
{
    if (!workers)
        return;
    pthread_mutex_lock(&workers->lock);
    workers->stopping = true;
    pthread_cond_broadcast(&workers->filled);
    pthread_mutex_unlock(&workers->lock);
    for (uint32_t i = 0; i < workers->thread_count; i++)
        pthread_join(workers->threads[i], NULL);
    struct wf_job *job;
    while ((job = list_pop(&workers->finished)) || (job = list_pop(&workers->waiting)))
        job->done(job);
    if (workers->event >= 0)
        close(workers->event);
    pthread_cond_destroy(&workers->filled);
    pthread_mutex_destroy(&workers->lock);
    free(workers);
}

bool wf_workers_submit(struct wf_workers *workers, struct wf_job *job)
{
    pthread_mutex_lock(&workers->lock);
    bool room = workers->count < workers->jobs_max;
    if (room) {
        workers->count++;
        list_push(&workers->waiting, job);
        pthread_cond_signal(&workers->filled);
    }
    pthread_mutex_unlock(&workers->lock);
    return room;
}

int wf_workers_fd(const struct wf_workers *workers)
{
    return workers->event;
}

void wf_workers_reap(struct wf_workers *workers)
{
    uint64_t finished;
    ssize_t rc = read(workers->event, &finished, sizeof finished);
    (void)rc;
    for (;;) {
        pthread_mutex_lock(&workers->lock);
        struct wf_job *job = list_pop(&workers->finished);
        if (job)
            workers->count--;
        pthread_mutex_unlock(&workers->lock);
        if (!job)
            return;
        job->done(job);
    }
}
