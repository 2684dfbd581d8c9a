/* SPDX-License-Identifier: Apache-2.0 */
#include "tier/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "tier/check.h"

struct wf_tier_scheduler {
    struct wf_tier_schedule schedule;
    struct wf_tier_job *queued, *flying, *done, **done_end;
    uint32_t jobs, in_flight, background;
    uint64_t served[WF_TIER_CLASSES]; /* bytes ÷ share, the start-time of fair queueing */
};

enum weft_status wf_tier_scheduler_create(const struct wf_tier_schedule *schedule,
                                          struct wf_tier_scheduler **out)
{
    const struct wf_tier_schedule *c = schedule;
    if (c->queue_depth < 1 || c->queue_depth > WF_TIER_QUEUE_MAX || c->background_depth < 1 ||
        c->background_depth > c->queue_depth || c->jobs_max < 1 || c->jobs_max > WF_TIER_JOBS_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "a queue of %u with %u behind and %u jobs cannot be scheduled; 1 to %u, 1 "
                       "to the queue, 1 to %u",
                       c->queue_depth, c->background_depth, c->jobs_max, WF_TIER_QUEUE_MAX,
                       WF_TIER_JOBS_MAX);
    for (int i = WF_TIER_PREFETCH; i < WF_TIER_CLASSES; i++) {
        if (c->shares[i] < 1 || c->shares[i] > 1000)
            return wf_fail(WEFT_E_INVALID, "the share %u of class %d is not within 1 to 1000",
                           c->shares[i], i);
    }
    struct wf_tier_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a tier's scheduler");
    s->schedule = *schedule;
    s->done_end = &s->done;
    *out = s;
    return WEFT_OK;
}

void wf_tier_scheduler_destroy(struct wf_tier_scheduler *scheduler)
{
    free(scheduler);
}

static void push(struct wf_tier_job **list, struct wf_tier_job *job)
{
    job->next = *list;
    *list = job;
}

/* `job` is in the list. */
static void unlink_job(struct wf_tier_job **list, const struct wf_tier_job *job)
{
    while (*list != job)
        list = &(*list)->next;
    *list = job->next;
}

static bool holds(const struct wf_tier_job *list, const struct wf_tier_job *job)
{
    while (list && list != job)
        list = list->next;
    return list;
}

static void tell(struct wf_tier_scheduler *s, struct wf_tier_job *job, enum weft_status status,
                 uint64_t bytes)
{
    job->request.status = status;
    job->request.bytes = status == WEFT_OK ? bytes : 0;
    job->next = NULL;
    *s->done_end = job;
    s->done_end = &job->next;
}

static uint64_t deadline_of(const struct wf_tier_job *job)
{
    return job->deadline_us ? job->deadline_us : UINT64_MAX;
}

/* `job` and all that wait for its bytes are done. */
static void complete(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    enum weft_status status = job->request.status;
    uint64_t bytes = job->request.bytes;
    struct wf_tier_job *follower = job->followers, *next;
    for (; follower; follower = next) {
        next = follower->next;
        if (status == WEFT_OK)
            memcpy(follower->request.data, job->request.data, bytes);
        tell(s, follower, status, bytes);
    }
    job->followers = NULL;
    tell(s, job, job->cancelled && status != WEFT_OK ? WEFT_E_TIMEOUT : status, bytes);
}

static void hurry(struct wf_tier_job *job, const struct wf_tier_job *follower)
{
    if (follower->urgent < job->urgent)
        job->urgent = follower->urgent;
    if (follower->urgent_us < job->urgent_us)
        job->urgent_us = follower->urgent_us;
}

static struct wf_tier_job *same_read(struct wf_tier_job *list, const struct wf_tier_job *job)
{
    const struct wf_tier_request *r = &job->request;
    for (; list; list = list->next) {
        const struct wf_tier_request *l = &list->request;
        if (l->op == WF_TIER_READ && !list->cancelled && l->first_part == r->first_part &&
            l->part_count == r->part_count && memcmp(l->block.key, r->block.key, 32) == 0)
            return list;
    }
    return NULL;
}

static uint64_t cost_of(const struct wf_tier_scheduler *s, const struct wf_tier_request *r)
{
    struct wf_tier_block block;
    if (r->op == WF_TIER_WRITE)
        return r->block.bytes;
    if (r->op != WF_TIER_READ || !s->schedule.ops->find(s->schedule.tier, r->block.key, &block))
        return 0;
    return r->part_count ? (uint64_t)r->part_count * block.part_bytes : block.bytes;
}

enum weft_status wf_tier_scheduler_submit(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    if ((unsigned)job->class >= WF_TIER_CLASSES)
        return wf_fail(WEFT_E_INVALID, "class %d of a tier's job is not within 0 to %d",
                       (int)job->class, WF_TIER_CLASSES - 1);
    enum weft_status status = wf_tier_check_request(&job->request, NULL);
    if (status != WEFT_OK)
        return status;
    if (s->jobs == s->schedule.jobs_max)
        return WEFT_PENDING;
    s->jobs++;
    job->followers = NULL;
    job->cancelled = job->charged = false;
    job->urgent = job->class;
    job->urgent_us = deadline_of(job);
    job->cost_bytes = cost_of(s, &job->request);
    struct wf_tier_job *leader = NULL;
    if (job->request.op == WF_TIER_READ) {
        leader = same_read(s->flying, job);
        if (!leader)
            leader = same_read(s->queued, job);
    }
    if (leader) {
        hurry(leader, job);
        push(&leader->followers, job);
    } else {
        push(&s->queued, job);
    }
    return WEFT_OK;
}

/* The first that waited for a queued job's bytes takes its place. */
static void hand_over(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    struct wf_tier_job *heir = job->followers;
    if (!heir)
        return;
    heir->followers = heir->next;
    for (struct wf_tier_job *f = heir->followers; f; f = f->next)
        hurry(heir, f);
    job->followers = NULL;
    push(&s->queued, heir);
}

static bool cancel_follower(struct wf_tier_scheduler *s, struct wf_tier_job *leaders,
                            struct wf_tier_job *job)
{
    for (; leaders; leaders = leaders->next) {
        if (holds(leaders->followers, job)) {
            unlink_job(&leaders->followers, job);
            tell(s, job, WEFT_E_TIMEOUT, 0);
            return true;
        }
    }
    return false;
}

void wf_tier_scheduler_cancel(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    if (holds(s->queued, job)) {
        unlink_job(&s->queued, job);
        hand_over(s, job);
        tell(s, job, WEFT_E_TIMEOUT, 0);
    } else if (holds(s->flying, job)) {
        /* With followers, its I/O goes on for them, and its memory with it. */
        job->cancelled = !job->followers;
        if (job->cancelled)
            s->schedule.ops->cancel(s->schedule.tier, &job->request);
    } else if (!cancel_follower(s, s->queued, job)) {
        cancel_follower(s, s->flying, job);
    }
}

static void expire(struct wf_tier_scheduler *s, uint64_t now_us)
{
    struct wf_tier_job *next;
    for (struct wf_tier_job *job = s->queued; job; job = next) {
        next = job->next;
        if (deadline_of(job) < now_us) {
            unlink_job(&s->queued, job);
            hand_over(s, job);
            tell(s, job, WEFT_E_TIMEOUT, 0);
        }
    }
}

/* Is `a` to go before `b`? */
static bool before(const struct wf_tier_scheduler *s, const struct wf_tier_job *a,
                   const struct wf_tier_job *b)
{
    if (a->urgent != b->urgent) {
        if (a->urgent == WF_TIER_WAITED || b->urgent == WF_TIER_WAITED)
            return a->urgent == WF_TIER_WAITED;
        if (s->served[a->urgent] != s->served[b->urgent])
            return s->served[a->urgent] < s->served[b->urgent];
        return a->urgent < b->urgent;
    }
    /* Equal ones stay in their order: the queue's head is the youngest. */
    return a->urgent_us <= b->urgent_us;
}

static struct wf_tier_job *choose(const struct wf_tier_scheduler *s)
{
    struct wf_tier_job *best = NULL;
    for (struct wf_tier_job *job = s->queued; job; job = job->next) {
        if (job->urgent != WF_TIER_WAITED && s->background >= s->schedule.background_depth)
            continue;
        if (!best || before(s, job, best))
            best = job;
    }
    return best;
}

/* A class that was idle starts where the busiest-behind one is, or it would be owed its past. */
static void charge(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    uint64_t least = UINT64_MAX;
    if (job->urgent == WF_TIER_WAITED)
        return;
    for (const struct wf_tier_job *j = s->queued; j; j = j->next) {
        if (j->urgent != WF_TIER_WAITED && s->served[j->urgent] < least)
            least = s->served[j->urgent];
    }
    for (int i = WF_TIER_PREFETCH; i < WF_TIER_CLASSES; i++) {
        if (least != UINT64_MAX && s->served[i] < least)
            s->served[i] = least;
    }
    s->served[job->urgent] += (job->cost_bytes + 1) * 1000 / s->schedule.shares[job->urgent];
    job->charged = true;
    s->background++;
}

static void feed(struct wf_tier_scheduler *s)
{
    while (s->in_flight < s->schedule.queue_depth) {
        struct wf_tier_job *job = choose(s);
        if (!job)
            return;
        enum weft_status status = s->schedule.ops->submit(s->schedule.tier, &job->request);
        if (status == WEFT_PENDING)
            return;
        if (status != WEFT_OK) {
            unlink_job(&s->queued, job);
            job->request.status = status;
            complete(s, job);
            continue;
        }
        charge(s, job);
        unlink_job(&s->queued, job);
        push(&s->flying, job);
        s->in_flight++;
    }
}

static void collect(struct wf_tier_scheduler *s, uint32_t timeout_ms)
{
    struct wf_tier_request *out[32];
    uint32_t count = s->schedule.ops->reap(s->schedule.tier, out, 32, timeout_ms);
    for (uint32_t i = 0; i < count; i++) {
        struct wf_tier_job *job = (struct wf_tier_job *)out[i]; /* its first member */
        unlink_job(&s->flying, job);
        s->in_flight--;
        s->background -= job->charged;
        complete(s, job);
    }
}

uint32_t wf_tier_scheduler_reap(struct wf_tier_scheduler *s, uint64_t now_us,
                                struct wf_tier_job **out, uint32_t max, uint32_t timeout_ms)
{
    uint32_t count = 0;
    expire(s, now_us);
    feed(s);
    if (s->in_flight) {
        collect(s, s->done ? 0 : timeout_ms);
        feed(s);
    }
    while (count < max && s->done) {
        out[count] = s->done;
        s->done = s->done->next;
        if (!s->done)
            s->done_end = &s->done;
        s->jobs--;
        count++;
    }
    return count;
}
