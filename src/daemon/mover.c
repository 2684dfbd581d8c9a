/* SPDX-License-Identifier: Apache-2.0
 *
 * The owner's side of a mover, and the queues between the two threads.
 */
#include "daemon/mover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/log.h"
#include "daemon/mover_inner.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"

#define BUFFER_MAX (1u << 30) /* no part is larger */
#define GRACE_MS 1000u        /* for a tier to close */
#define RETRY_MS 1000u

const char *wf_mover_state_name(enum wf_mover_state state)
{
    switch (state) {
    case WF_MOVER_OPENING: return "opening";
    case WF_MOVER_OK: return "ok";
    case WF_MOVER_STALLED: return "stalled";
    case WF_MOVER_FAILED: return "failed";
    }
    return "unknown";
}

static const char *kind_name(enum wf_mover_kind kind)
{
    switch (kind) {
    case WF_MOVE_READ: return "a read";
    case WF_MOVE_WRITE: return "a write";
    case WF_MOVE_FLUSH: return "a flush";
    case WF_MOVE_REMOVE: return "a removal";
    case WF_MOVE_VERIFY: return "a verification";
    case WF_MOVE_FENCE: return "a fence";
    }
    return "a job of no known kind";
}

/* --------------------------------------------------------------------------------------- lists */

void wf_mover_list_add(struct wf_mover_list *list, struct wf_mover_job *job)
{
    job->next = NULL;
    job->prev = list->last;
    *(list->last ? &list->last->next : &list->first) = job;
    list->last = job;
}

void wf_mover_list_remove(struct wf_mover_list *list, struct wf_mover_job *job)
{
    *(job->prev ? &job->prev->next : &list->first) = job->next;
    *(job->next ? &job->next->prev : &list->last) = job->prev;
    job->next = job->prev = NULL;
}

/* ----------------------------------------------------------------------------- create, destroy */

static void free_all(struct wf_mover *m)
{
    if (m->scheduler)
        wf_tier_scheduler_destroy(m->scheduler);
    for (uint32_t i = 0; i < WF_MOVER_NOTICES + WF_MOVER_BATCHES; i++)
        free(m->notices[i].blocks);
    if (m->event >= 0)
        close(m->event);
    if (m->inbox_event >= 0)
        close(m->inbox_event);
    pthread_cond_destroy(&m->ended);
    pthread_cond_destroy(&m->room);
    pthread_mutex_destroy(&m->lock);
    free(m->buckets);
    free(m->buffer);
    XXH3_freeState(m->sum);
    free(m->path);
    free(m->name);
    free(m);
}

static enum weft_status check_options(const struct wf_mover_options *o)
{
    if (o->timeout_ms < 1)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a timeout of 0 ms would call it stalled at once; give 1 or more",
                       o->name);
    if (o->verify_bytes > BUFFER_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: parts of %u bytes cannot be verified; %u at most",
                       o->name, o->verify_bytes, BUFFER_MAX);
    if (o->jobs_max < 1 || o->jobs_max > WF_TIER_JOBS_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: %u jobs at once are not within 1 to %u", o->name,
                       o->jobs_max, WF_TIER_JOBS_MAX);
    return WEFT_OK;
}

static int make_event(void)
{
    return WF_FAILS("eventfd") ? (errno = EMFILE, -1) : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static void make_locks(struct wf_mover *m)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->room, NULL);
    pthread_cond_init(&m->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static enum weft_status make_memory(struct wf_mover *m)
{
    uint32_t buckets = 64;
    while (buckets < m->options.jobs_max)
        buckets *= 2;
    m->buckets_mask = buckets - 1;
    m->buffer_bytes = m->options.verify_bytes ? m->options.verify_bytes : WF_MOVER_VERIFY_BYTES;
    m->buffer_bytes = (m->buffer_bytes + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    m->name = wf_strdup(m->options.name, "a tier's name");
    m->path = wf_strdup(m->options.tier.path ? m->options.tier.path : "", "a tier's path");
    m->buckets = wf_calloc(buckets, sizeof(struct wf_mover_job *), "a tier's jobs by key");
    if (!m->name || !m->path || !m->buckets)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_MOVER_BATCHES; i++) {
        struct wf_mover_notice *n = &m->notices[WF_MOVER_NOTICES + i];
        n->blocks = wf_calloc(WF_MOVER_BATCH, sizeof n->blocks[0], "blocks found in a tier");
        if (!n->blocks)
            return WEFT_E_NO_MEMORY;
    }
    m->sum = WF_FAILS("XXH3_createState") ? NULL : XXH3_createState();
    if (!m->sum)
        return wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory for a checksum", m->name);
    m->buffer = WF_FAILS("aligned_alloc") ? NULL : aligned_alloc(WF_TIER_ALIGN, m->buffer_bytes);
    if (!m->buffer)
        return wf_fail(WEFT_E_NO_MEMORY, "tier %s: no memory for %u bytes to verify blocks in",
                       m->name, m->buffer_bytes);
    m->options.name = m->name;
    m->options.tier.path = m->path;
    return WEFT_OK;
}

/* The scheduler drives the meter, which outlives each opening of the tier behind it. */
static enum weft_status make_scheduler(struct wf_mover *m)
{
    struct wf_tier_schedule schedule = {
        .ops = &wf_mover_metered,
        .tier = (struct wf_tier *)m,
        .queue_depth = m->options.tier.queue_depth,
        .background_depth = m->options.background_depth,
        .jobs_max = m->options.jobs_max,
    };
    memcpy(schedule.shares, m->options.shares, sizeof schedule.shares);
    enum weft_status status = wf_tier_check_options(&m->options.tier);
    return status == WEFT_OK ? wf_tier_scheduler_create(&schedule, &m->scheduler) : status;
}

static enum weft_status start_thread(struct wf_mover *m)
{
    m->event = make_event();
    m->inbox_event = m->event < 0 ? -1 : make_event();
    if (m->inbox_event < 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: eventfd: %s", m->name, strerror(errno));
    snprintf(m->stats.reason, sizeof m->stats.reason, "it is being opened, and its own index read");
    /* Signals are the owner thread's. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = WF_FAILS("pthread_create") ? EAGAIN
                                        : pthread_create(&m->thread, NULL, wf_mover_run, m);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: cannot start its thread: %s; raise the limit",
                       m->name, strerror(rc));
    return WEFT_OK;
}

enum weft_status wf_mover_create(const struct wf_mover_options *options, struct wf_mover **out)
{
    enum weft_status status = check_options(options);
    if (status != WEFT_OK)
        return status;
    struct wf_mover *m = wf_calloc(1, sizeof *m, "a tier's mover");
    if (!m)
        return WEFT_E_NO_MEMORY;
    m->options = *options;
    m->ops = options->ops;
    m->event = m->inbox_event = -1;
    if (m->options.retry_ms == 0)
        m->options.retry_ms = RETRY_MS;
    make_locks(m);
    status = make_memory(m);
    if (status == WEFT_OK)
        status = make_scheduler(m);
    if (status == WEFT_OK)
        status = start_thread(m);
    if (status != WEFT_OK) {
        free_all(m);
        return status;
    }
    *out = m;
    return WEFT_OK;
}

/* With the lock: the eventfd counts at most once for all that is in a list.  True: it is to be
 * written to when the lock has been let go of, for whom it wakes wants the lock first of all. */
static bool untold(bool *told)
{
    bool first = !*told;
    *told = true;
    return first;
}

static void tell_when(bool first, int event)
{
    if (first)
        (void)eventfd_write(event, 1); /* cannot overflow: it is read before it is written again */
}

/* Jobs of `done` alone: the notices lie in the mover, and nobody listens any more. */
static struct wf_mover_job *take_done_jobs(struct wf_mover *m)
{
    struct wf_mover_job *job = m->done.first, *next, *first = NULL, **end = &first;
    for (; job; job = next) {
        next = job->next;
        if (job->kind == 0)
            continue;
        *end = job;
        job->next = NULL;
        end = &job->next;
    }
    m->done = (struct wf_mover_list){0};
    return first;
}

bool wf_mover_destroy(struct wf_mover *m, uint32_t flush_ms)
{
    if (!m)
        return true;
    uint64_t until = wf_now_ns() +
                     ((uint64_t)flush_ms + m->options.timeout_ms + GRACE_MS) * 1000000u;
    struct timespec at = {.tv_sec = (time_t)(until / 1000000000u),
                          .tv_nsec = (long)(until % 1000000000u)};
    int rc = 0;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    m->flush_ms = flush_ms;
    tell_when(untold(&m->inbox_told), m->inbox_event);
    pthread_cond_broadcast(&m->room);
    while (!m->exited && rc == 0)
        rc = pthread_cond_timedwait(&m->ended, &m->lock, &at);
    bool ended = m->exited;
    struct wf_mover_job *job, *next;
    while ((job = m->inbox.first)) {
        wf_mover_list_remove(&m->inbox, job);
        job->job.request.status = WEFT_E_TIMEOUT;
        job->job.request.bytes = 0;
        wf_mover_list_add(&m->done, job);
    }
    job = take_done_jobs(m);
    pthread_t thread = m->thread;
    if (!ended)
        wf_error("mover",
                 "tier %s does not end: %u jobs are with it, and its thread is left behind",
                 m->name, m->unfinished);
    m->abandoned = !ended;
    pthread_mutex_unlock(&m->lock);
    if (ended) {
        pthread_join(thread, NULL);
        free_all(m);
    } else {
        pthread_detach(thread);
    }
    for (; job; job = next) {
        next = job->next;
        job->done(job);
    }
    return ended;
}

void wf_mover_exit(struct wf_mover *m)
{
    pthread_mutex_lock(&m->lock);
    m->exited = true;
    bool abandoned = m->abandoned;
    pthread_cond_signal(&m->ended);
    pthread_mutex_unlock(&m->lock);
    if (abandoned)
        free_all(m);
}

/* --------------------------------------------------------------------------- the owner's calls */

static enum weft_status check_job(struct wf_mover *m, struct wf_mover_job *job)
{
    struct wf_tier_request *request = &job->job.request;
    switch (job->kind) {
    case WF_MOVE_READ: request->op = WF_TIER_READ; break;
    case WF_MOVE_WRITE: request->op = WF_TIER_WRITE; break;
    case WF_MOVE_FLUSH:
    case WF_MOVE_REMOVE:
    case WF_MOVE_FENCE:
    case WF_MOVE_VERIFY: request->op = WF_TIER_FLUSH; break;
    default:
        return wf_fail(WEFT_E_INVALID, "tier %s: a job of kind %d is none that a mover knows",
                       m->name, (int)job->kind);
    }
    if ((unsigned)job->job.class >= WF_TIER_CLASSES)
        return wf_fail(WEFT_E_INVALID, "tier %s: class %d of a job is not within 0 to %d", m->name,
                       (int)job->job.class, WF_TIER_CLASSES - 1);
    return wf_tier_check_request(request, NULL);
}

/* With the lock.  True: as untold(), of m->event. */
static bool give_back(struct wf_mover *m, struct wf_mover_job *job, enum weft_status status)
{
    job->job.request.status = status;
    job->job.request.bytes = 0;
    job->done_ns = wf_now_ns();
    job->place = WF_PLACE_DONE;
    m->unfinished--;
    wf_mover_list_add(&m->done, job);
    return untold(&m->done_told);
}

enum weft_status wf_mover_submit(struct wf_mover *m, struct wf_mover_job *job)
{
    enum weft_status status = check_job(m, job);
    if (status != WEFT_OK)
        return status;
    if (m->jobs == m->options.jobs_max)
        return WEFT_PENDING;
    m->jobs++;
    job->submitted_ns = wf_now_ns();
    job->waits = 0;
    job->step = 0;
    job->step_next = job->bucket_next = job->asked_next = NULL;
    job->flight_next = job->flight_prev = NULL;
    job->asked = job->cancel_asked = job->cancelled = job->summed = job->alone = false;
    job->hurry_us = 0;
    bool ended = false, came = false;
    pthread_mutex_lock(&m->lock);
    m->unfinished++;
    if (m->stats.state == WF_MOVER_FAILED) {
        ended = give_back(m, job, WEFT_E_SYSTEM);
    } else {
        job->place = WF_PLACE_INBOX;
        wf_mover_list_add(&m->inbox, job);
        came = untold(&m->inbox_told);
    }
    pthread_mutex_unlock(&m->lock);
    tell_when(ended, m->event);
    tell_when(came, m->inbox_event);
    return WEFT_OK;
}

/* With the lock. */
static void ask(struct wf_mover *m, struct wf_mover_job *job)
{
    if (job->asked)
        return;
    job->asked = true;
    job->asked_next = m->asked;
    m->asked = job;
    tell_when(untold(&m->inbox_told), m->inbox_event);
}

void wf_mover_hurry(struct wf_mover *m, struct wf_mover_job *job, uint64_t deadline_us)
{
    pthread_mutex_lock(&m->lock);
    if (job->place == WF_PLACE_INBOX) {
        job->job.class = WF_TIER_WAITED;
        job->job.deadline_us = deadline_us;
    } else if (job->place == WF_PLACE_TAKEN) {
        job->hurry_us = deadline_us;
        ask(m, job);
    }
    pthread_mutex_unlock(&m->lock);
}

void wf_mover_cancel(struct wf_mover *m, struct wf_mover_job *job)
{
    pthread_mutex_lock(&m->lock);
    if (job->place == WF_PLACE_INBOX) {
        wf_mover_list_remove(&m->inbox, job);
        tell_when(give_back(m, job, WEFT_E_TIMEOUT), m->event);
    } else if (job->place == WF_PLACE_TAKEN && !job->cancel_asked) {
        job->cancel_asked = true;
        ask(m, job);
    }
    pthread_mutex_unlock(&m->lock);
}

int wf_mover_fd(const struct wf_mover *m)
{
    return m->event;
}

/* Sentences of the tier's own were logged on its thread; what the owner needs is what became of the
 * job. */
static void keep_sentence(struct wf_mover *m, const struct wf_mover_job *job, const char *reason)
{
    const struct wf_tier_request *request = &job->job.request;
    const uint8_t *key = request->block.key;
    const char *why = "see its log";
    if (request->status >= 0)
        return;
    if (request->status == WEFT_E_TIMEOUT)
        why = "it was cancelled, or nobody wanted it any more";
    else if (request->status == WEFT_E_CORRUPT)
        why = "the bytes are not what their checksum says";
    else if (reason[0])
        why = reason;
    wf_fail_keep("tier %s: %s of block %02x%02x%02x%02x… did not succeed (%s): %s", m->name,
                 kind_name(job->kind), key[0], key[1], key[2], key[3],
                 weft_status_name(request->status), why);
}

void wf_mover_reap(struct wf_mover *m)
{
    eventfd_t ignored;
    char reason[sizeof m->stats.reason];
    (void)eventfd_read(m->event, &ignored);
    pthread_mutex_lock(&m->lock);
    struct wf_mover_job *job = m->done.first, *next;
    m->done = (struct wf_mover_list){0};
    m->done_told = false;
    memcpy(reason, m->stats.reason, sizeof reason);
    pthread_mutex_unlock(&m->lock);
    for (; job; job = next) {
        next = job->next;
        if (job->kind != 0) {
            m->jobs--;
            keep_sentence(m, job, reason);
        }
        job->done(job);
    }
}

void wf_mover_stats(struct wf_mover *m, struct wf_mover_stats *out)
{
    pthread_mutex_lock(&m->lock);
    *out = m->stats;
    out->queued = m->unfinished > out->in_flight ? m->unfinished - out->in_flight : 0;
    pthread_mutex_unlock(&m->lock);
}

/* ------------------------------------------------------------------------- the thread's calls */

void wf_mover_publish(struct wf_mover *m)
{
    m->stats.in_flight = m->in_flight;
    m->stats.read_latency_us = m->read_latency_us;
    m->stats.read_mbps = m->reads.mbps;
    m->stats.write_mbps = m->writing.mbps;
    m->stats.verified_bytes = m->verified_bytes;
}

void wf_mover_tell(struct wf_mover *m, struct wf_mover_job *job, enum weft_status status,
                   uint64_t bytes)
{
    pthread_mutex_lock(&m->lock);
    struct wf_mover_job **at = &m->asked;
    if (job->asked) {
        while (*at != job)
            at = &(*at)->asked_next;
        *at = job->asked_next;
        job->asked = false;
    }
    bool first = give_back(m, job, status);
    job->job.request.bytes = status == WEFT_OK ? bytes : 0;
    wf_mover_publish(m);
    pthread_mutex_unlock(&m->lock);
    tell_when(first, m->event);
}

struct wf_mover_job *wf_mover_take(struct wf_mover *m)
{
    eventfd_t ignored;
    (void)eventfd_read(m->inbox_event, &ignored);
    pthread_mutex_lock(&m->lock);
    struct wf_mover_job *first = m->inbox.first;
    for (struct wf_mover_job *job = first; job; job = job->next)
        job->place = WF_PLACE_TAKEN;
    m->inbox = (struct wf_mover_list){0};
    m->inbox_told = false;
    pthread_mutex_unlock(&m->lock);
    return first;
}

struct wf_mover_job *wf_mover_take_asked(struct wf_mover *m, uint64_t *out_hurry_us)
{
    pthread_mutex_lock(&m->lock);
    struct wf_mover_job *job = m->asked;
    if (job) {
        m->asked = job->asked_next;
        job->asked = false;
        job->cancelled |= job->cancel_asked;
        *out_hurry_us = job->cancelled ? 0 : job->hurry_us;
    }
    pthread_mutex_unlock(&m->lock);
    return job;
}

bool wf_mover_stopping(struct wf_mover *m)
{
    pthread_mutex_lock(&m->lock);
    bool stopping = m->stopping;
    pthread_mutex_unlock(&m->lock);
    return stopping;
}

/* ------------------------------------------------------------------------------------- notices */

/* On the owner thread, in its turn among what is done. */
static void deliver(struct wf_mover_job *job)
{
    struct wf_mover_notice *n = (struct wf_mover_notice *)job; /* its first member */
    struct wf_mover *m = n->mover;
    const struct wf_mover_options *o = &m->options;
    if (n->what == WF_NOTICE_FOUND && o->found)
        o->found(o->context, n->blocks, n->count);
    else if (n->what == WF_NOTICE_GONE && o->gone)
        o->gone(o->context, n->blocks, n->count);
    else if (n->what == WF_NOTICE_OPENED && o->opened)
        o->opened(o->context, n->status, n->sentence);
    else if (n->what == WF_NOTICE_CHANGED && o->changed)
        o->changed(o->context, n->state, n->sentence);
    pthread_mutex_lock(&m->lock);
    n->busy = false;
    pthread_cond_signal(&m->room);
    pthread_mutex_unlock(&m->lock);
}

struct wf_mover_notice *wf_mover_notice(struct wf_mover *m, enum wf_mover_what what)
{
    bool found = what == WF_NOTICE_FOUND || what == WF_NOTICE_GONE;
    uint32_t first = found ? WF_MOVER_NOTICES : 0;
    uint32_t end = found ? WF_MOVER_NOTICES + WF_MOVER_BATCHES : WF_MOVER_NOTICES;
    struct wf_mover_notice *free_one = NULL;
    pthread_mutex_lock(&m->lock);
    while (!m->stopping && !free_one) {
        for (uint32_t i = first; i < end && !free_one; i++)
            free_one = m->notices[i].busy ? NULL : &m->notices[i];
        if (!free_one)
            pthread_cond_wait(&m->room, &m->lock);
    }
    if (free_one)
        free_one->busy = true;
    pthread_mutex_unlock(&m->lock);
    if (!free_one)
        return NULL;
    free_one->job.kind = 0;
    free_one->job.done = deliver;
    free_one->mover = m;
    free_one->what = what;
    free_one->count = 0;
    free_one->sentence[0] = '\0';
    return free_one;
}

void wf_mover_send(struct wf_mover *m, struct wf_mover_notice *notice)
{
    pthread_mutex_lock(&m->lock);
    wf_mover_list_add(&m->done, &notice->job);
    bool first = untold(&m->done_told);
    pthread_mutex_unlock(&m->lock);
    tell_when(first, m->event);
}

void wf_mover_state_set(struct wf_mover *m, enum wf_mover_state state, const char *sentence)
{
    struct wf_mover_job *job;
    pthread_mutex_lock(&m->lock);
    bool same = m->stats.state == state;
    m->stats.state = state;
    snprintf(m->stats.reason, sizeof m->stats.reason, "%s", sentence);
    while (state == WF_MOVER_FAILED && (job = m->inbox.first)) {
        wf_mover_list_remove(&m->inbox, job);
        tell_when(give_back(m, job, WEFT_E_SYSTEM), m->event);
    }
    pthread_mutex_unlock(&m->lock);
    struct wf_mover_notice *n = same ? NULL : wf_mover_notice(m, WF_NOTICE_CHANGED);
    if (!n)
        return;
    n->state = state;
    snprintf(n->sentence, sizeof n->sentence, "%s", sentence);
    wf_mover_send(m, n);
}
