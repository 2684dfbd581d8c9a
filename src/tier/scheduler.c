/* SPDX-License-Identifier: Apache-2.0
 *
 * A job is queued (in its class's heap), follows another that reads the same parts, flies (the tier
 * has its request) or is done.  Queued and flying reads are in a hash table by what they read.  A
 * job that can expire is in a heap for that until it begins: a follower begins with its leader.
 */
#include "tier/scheduler.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "sys/memory.h"
#include "tier/check.h"

enum state { STRANGER = 0, QUEUED, FOLLOWING, FLYING, DONE };
enum { BY_URGENCY, BY_EXPIRY };
#define NOWHERE UINT32_MAX

struct node {
    uint64_t due_us, order;
    struct wf_tier_job *job;
};

/* A binary heap whose jobs know their places (J. W. J. Williams, CACM 1964). */
struct heap {
    struct node *nodes;
    uint32_t count;
    uint32_t which; /* of a job's places */
};

struct wf_tier_scheduler {
    struct wf_tier_schedule schedule;
    struct heap queued[WF_TIER_CLASSES], expiring;
    struct wf_tier_job **reads; /* [reads_mask + 1] */
    uint64_t reads_seed;        /* so that nobody can aim keys at one bucket */
    uint32_t reads_mask;
    struct wf_tier_job *done, **done_end;
    uint64_t order;
    uint32_t jobs, in_flight, background;
    uint64_t served[WF_TIER_CLASSES]; /* bytes ÷ share, the start-time of fair queueing */
};

/* ---------------------------------------------------------------------------------------- heap */

static bool earlier(const struct node *a, const struct node *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->order < b->order;
}

static void settle(struct heap *heap, uint32_t at, struct node node)
{
    heap->nodes[at] = node;
    node.job->place[heap->which] = at;
}

static void sift(struct heap *heap, uint32_t at, struct node node)
{
    while (at > 0 && earlier(&node, &heap->nodes[(at - 1) / 2])) {
        settle(heap, at, heap->nodes[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (uint32_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && earlier(&heap->nodes[child + 1], &heap->nodes[child]))
            child++;
        if (!earlier(&heap->nodes[child], &node))
            break;
        settle(heap, at, heap->nodes[child]);
    }
    settle(heap, at, node);
}

static void heap_add(struct heap *heap, struct wf_tier_job *job, uint64_t due_us)
{
    struct node node = {due_us, job->order, job};
    sift(heap, heap->count++, node);
}

static void heap_remove(struct heap *heap, struct wf_tier_job *job)
{
    uint32_t at = job->place[heap->which];
    job->place[heap->which] = NOWHERE;
    if (at != --heap->count)
        sift(heap, at, heap->nodes[heap->count]);
}

static struct wf_tier_job *first_of(const struct heap *heap)
{
    return heap->count ? heap->nodes[0].job : NULL;
}

/* ----------------------------------------------------------------------------- create, destroy */

static enum weft_status make_tables(struct wf_tier_scheduler *s)
{
    uint32_t most = s->schedule.jobs_max, buckets = 1;
    while (buckets < most)
        buckets *= 2;
    s->reads_mask = buckets - 1;
    s->reads = wf_calloc(buckets, sizeof(struct wf_tier_job *), "a tier's scheduler");
    s->expiring.which = BY_EXPIRY;
    s->expiring.nodes = wf_calloc(most, sizeof(struct node), "a tier's scheduler");
    bool all = s->reads && s->expiring.nodes;
    for (int i = 0; all && i < WF_TIER_CLASSES; i++) {
        s->queued[i].which = BY_URGENCY;
        s->queued[i].nodes = wf_calloc(most, sizeof(struct node), "a tier's scheduler");
        all = s->queued[i].nodes;
    }
    if (!all)
        return WEFT_E_NO_MEMORY;
    if (getrandom(&s->reads_seed, sizeof s->reads_seed, 0) != sizeof s->reads_seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    return WEFT_OK;
}

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
    struct wf_tier_scheduler *s = wf_calloc(1, sizeof *s, "a tier's scheduler");
    if (!s)
        return WEFT_E_NO_MEMORY;
    s->schedule = *schedule;
    s->done_end = &s->done;
    enum weft_status status = make_tables(s);
    if (status != WEFT_OK) {
        wf_tier_scheduler_destroy(s);
        return status;
    }
    *out = s;
    return WEFT_OK;
}

void wf_tier_scheduler_destroy(struct wf_tier_scheduler *scheduler)
{
    if (!scheduler)
        return;
    for (int i = 0; i < WF_TIER_CLASSES; i++)
        free(scheduler->queued[i].nodes);
    free(scheduler->expiring.nodes);
    free(scheduler->reads);
    free(scheduler);
}

/* ------------------------------------------------------------------------ reads that are shared */

static struct wf_tier_job **bucket_of(const struct wf_tier_scheduler *s,
                                      const struct wf_tier_request *r)
{
    uint64_t seed = s->reads_seed ^ ((uint64_t)r->first_part << 32 | r->part_count);
    return &s->reads[XXH3_64bits_withSeed(r->block.key, 32, seed) & s->reads_mask];
}

/* What is read as it lies there is other bytes than the block, and who reads it is told what. */
static bool shares(const struct wf_tier_request *r)
{
    return r->op == WF_TIER_READ && !r->as_stored && !r->as_cut;
}

static struct wf_tier_job *same_read(const struct wf_tier_scheduler *s,
                                     const struct wf_tier_request *r)
{
    struct wf_tier_job *job = shares(r) ? *bucket_of(s, r) : NULL;
    while (job &&
           (job->request.first_part != r->first_part || job->request.part_count != r->part_count ||
            memcmp(job->request.block.key, r->block.key, 32) != 0))
        job = job->same_hash;
    return job;
}

static void share(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    struct wf_tier_job **bucket = bucket_of(s, &job->request);
    if (!shares(&job->request))
        return;
    job->same_hash = *bucket;
    *bucket = job;
}

/* Not there when nobody may join it, or it was cancelled at the tier. */
static void unshare(const struct wf_tier_scheduler *s, const struct wf_tier_job *job)
{
    struct wf_tier_job **at = bucket_of(s, &job->request);
    while (*at && *at != job)
        at = &(*at)->same_hash;
    if (*at)
        *at = job->same_hash;
}

static void follow(struct wf_tier_job *leader, struct wf_tier_job *job)
{
    job->leader = leader;
    job->previous = NULL;
    job->next = leader->followers;
    if (job->next)
        job->next->previous = job;
    leader->followers = job;
    job->state = FOLLOWING;
}

static void unfollow(struct wf_tier_job *job)
{
    if (job->previous)
        job->previous->next = job->next;
    else
        job->leader->followers = job->next;
    if (job->next)
        job->next->previous = job->previous;
    job->leader = NULL;
}

static uint64_t deadline_of(const struct wf_tier_job *job)
{
    return job->deadline_us ? job->deadline_us : UINT64_MAX;
}

static void hurry(struct wf_tier_job *job, const struct wf_tier_job *follower)
{
    if (follower->class < job->urgent)
        job->urgent = follower->class;
    if (deadline_of(follower) < job->urgent_us)
        job->urgent_us = deadline_of(follower);
}

static void urgency(struct wf_tier_job *job)
{
    job->urgent = job->class;
    job->urgent_us = deadline_of(job);
    for (const struct wf_tier_job *f = job->followers; f; f = f->next)
        hurry(job, f);
}

/* ------------------------------------------------------------------------- a job's way through */

static void tell(struct wf_tier_scheduler *s, struct wf_tier_job *job, enum weft_status status,
                 uint64_t bytes)
{
    job->request.status = status;
    job->request.bytes = status == WEFT_OK ? bytes : 0;
    job->state = DONE;
    job->next = NULL;
    *s->done_end = job;
    s->done_end = &job->next;
}

static void expires_no_more(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    if (job->place[BY_EXPIRY] != NOWHERE)
        heap_remove(&s->expiring, job);
}

static void enqueue(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    job->state = QUEUED;
    heap_add(&s->queued[job->urgent], job, job->urgent_us);
    share(s, job);
}

static void dequeue(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    heap_remove(&s->queued[job->urgent], job);
    unshare(s, job);
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
        follower->request.lost = job->request.lost;
        follower->request.profile = job->request.profile;
        expires_no_more(s, follower);
        tell(s, follower, status, bytes);
    }
    job->followers = NULL;
    tell(s, job, job->cancelled && status != WEFT_OK ? WEFT_E_TIMEOUT : status, bytes);
}

static uint64_t cost_of(const struct wf_tier_scheduler *s, const struct wf_tier_request *r)
{
    struct wf_tier_block block;
    if (r->op == WF_TIER_WRITE)
        return r->block.bytes;
    if (r->op != WF_TIER_READ)
        return 0;
    if (!s->schedule.ops->find(s->schedule.tier, r->block.key, &block))
        block = r->block; /* what the asker knows of it */
    return r->part_count ? (uint64_t)r->part_count * block.part_bytes : block.bytes;
}

/* The urgency of who reads: anew from its own and its followers', or with one that came. */
static void reconsider(struct wf_tier_scheduler *s, struct wf_tier_job *reader,
                       const struct wf_tier_job *came)
{
    if (reader->state == QUEUED)
        heap_remove(&s->queued[reader->urgent], reader);
    if (came)
        hurry(reader, came);
    else
        urgency(reader);
    if (reader->state == QUEUED) {
        heap_add(&s->queued[reader->urgent], reader, reader->urgent_us);
    } else if (reader->urgent == WF_TIER_WAITED && reader->background) {
        reader->background = false;
        s->background--;
    }
}

static void join(struct wf_tier_scheduler *s, struct wf_tier_job *leader, struct wf_tier_job *job)
{
    follow(leader, job);
    if (leader->state == FLYING)
        expires_no_more(s, job);
    reconsider(s, leader, job);
}

void wf_tier_scheduler_hurry(struct wf_tier_scheduler *s, struct wf_tier_job *job,
                             enum wf_tier_class class, uint64_t deadline_us)
{
    job->class = class;
    job->deadline_us = deadline_us;
    if (job->state == FOLLOWING)
        reconsider(s, job->leader, NULL);
    else if (job->state == QUEUED || job->state == FLYING)
        reconsider(s, job, NULL);
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
    job->followers = job->leader = NULL;
    job->given_up = job->cancelled = job->background = false;
    job->place[BY_URGENCY] = job->place[BY_EXPIRY] = NOWHERE;
    job->order = s->order++;
    job->cost_bytes = cost_of(s, &job->request);
    urgency(job);
    if (job->expires_us)
        heap_add(&s->expiring, job, job->expires_us);
    struct wf_tier_job *leader = same_read(s, &job->request);
    if (leader)
        join(s, leader, job);
    else
        enqueue(s, job);
    return WEFT_OK;
}

/* Out of the queue unread; the first of those that wait for its bytes reads in its stead, in the
 * place that it has itself. */
static void leave(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    struct wf_tier_job *heir = job->followers;
    expires_no_more(s, job);
    dequeue(s, job);
    if (heir) {
        unfollow(heir);
        heir->followers = job->followers;
        for (struct wf_tier_job *f = heir->followers; f; f = f->next)
            f->leader = heir;
        urgency(heir);
        enqueue(s, heir);
        job->followers = NULL;
    }
    tell(s, job, WEFT_E_TIMEOUT, 0);
}

static void stop(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    job->cancelled = true;
    unshare(s, job);
    s->schedule.ops->cancel(s->schedule.tier, &job->request);
}

/* A follower goes, and with it the hurry that was its own. */
static void part(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    struct wf_tier_job *leader = job->leader;
    expires_no_more(s, job);
    unfollow(job);
    if (leader->state == QUEUED)
        reconsider(s, leader, NULL);
    else if (leader->given_up && !leader->followers)
        stop(s, leader);
    tell(s, job, WEFT_E_TIMEOUT, 0);
}

void wf_tier_scheduler_cancel(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    if (job->state == QUEUED) {
        leave(s, job);
    } else if (job->state == FOLLOWING) {
        part(s, job);
    } else if (job->state == FLYING && !job->given_up) {
        /* With followers, its I/O goes on for them, and its memory with it. */
        job->given_up = true;
        if (!job->followers)
            stop(s, job);
    }
}

static void expire(struct wf_tier_scheduler *s, uint64_t now_us)
{
    struct wf_tier_job *job;
    while ((job = first_of(&s->expiring)) && job->expires_us < now_us) {
        if (job->state == FOLLOWING)
            part(s, job);
        else
            leave(s, job);
    }
}

/* ----------------------------------------------------------------------------- what goes next */

static struct wf_tier_job *choose(const struct wf_tier_scheduler *s)
{
    int best = WF_TIER_WAITED;
    if (s->queued[WF_TIER_WAITED].count || s->background >= s->schedule.background_depth)
        return first_of(&s->queued[WF_TIER_WAITED]);
    for (int i = WF_TIER_PREFETCH; i < WF_TIER_CLASSES; i++) {
        if (s->queued[i].count && (best == WF_TIER_WAITED || s->served[i] < s->served[best]))
            best = i;
    }
    return first_of(&s->queued[best]);
}

/* A class that was idle starts where the busiest-behind one is, or it would be owed its past. */
static void charge(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    uint64_t least = UINT64_MAX;
    if (job->urgent == WF_TIER_WAITED)
        return;
    for (int i = WF_TIER_PREFETCH; i < WF_TIER_CLASSES; i++) {
        if (s->queued[i].count && s->served[i] < least)
            least = s->served[i];
    }
    for (int i = WF_TIER_PREFETCH; i < WF_TIER_CLASSES; i++) {
        if (least != UINT64_MAX && s->served[i] < least)
            s->served[i] = least;
    }
    s->served[job->urgent] += (job->cost_bytes + 1) * 1000 / s->schedule.shares[job->urgent];
    job->background = true;
    s->background++;
}

static void begin(struct wf_tier_scheduler *s, struct wf_tier_job *job)
{
    charge(s, job);
    heap_remove(&s->queued[job->urgent], job);
    expires_no_more(s, job);
    for (struct wf_tier_job *f = job->followers; f; f = f->next)
        expires_no_more(s, f);
    job->state = FLYING;
    s->in_flight++;
}

static void feed(struct wf_tier_scheduler *s)
{
    while (s->in_flight < s->schedule.queue_depth) {
        struct wf_tier_job *job = choose(s);
        if (!job)
            return;
        job->request.background = job->urgent != WF_TIER_WAITED;
        enum weft_status status = s->schedule.ops->submit(s->schedule.tier, &job->request);
        if (status == WEFT_PENDING)
            return;
        if (status == WEFT_OK) {
            begin(s, job);
            continue;
        }
        expires_no_more(s, job);
        dequeue(s, job);
        job->request.status = status;
        complete(s, job);
    }
}

static void collect(struct wf_tier_scheduler *s, uint32_t timeout_ms)
{
    struct wf_tier_request *out[32];
    uint32_t count = s->schedule.ops->reap(s->schedule.tier, out, 32, timeout_ms);
    for (uint32_t i = 0; i < count; i++) {
        struct wf_tier_job *job = (struct wf_tier_job *)out[i]; /* its first member */
        unshare(s, job);
        s->in_flight--;
        s->background -= job->background;
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
        out[count++]->state = STRANGER;
        s->jobs--;
    }
    return count;
}
