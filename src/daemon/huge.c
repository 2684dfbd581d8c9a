/* SPDX-License-Identifier: Apache-2.0
 *
 * One step at a time is with the workers, so that others' jobs come between.  A step takes its lock
 * for each page: whoever punches waits for one page at most.
 */
#include "daemon/huge.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "daemon/workers.h"
#include "sys/memory.h"

#define RANGES_MAX 256u
#define STEP_BYTES ((size_t)8 << 20)

struct range {
    char *at, *end; /* borders of huge pages */
};

struct wf_huge_pages {
    struct wf_job job; /* first: it is cast */
    struct wf_workers *workers;
    struct range ranges[RANGES_MAX]; /* the oldest is served first */
    uint32_t first, count;
    bool running, stopped;
    pthread_mutex_t lock;
    struct range step; /* under lock while `running`: what is still to be done of it */
    atomic_ullong made, refused;
};

static void step_run(struct wf_job *job)
{
    struct wf_huge_pages *huge = (struct wf_huge_pages *)job;
    for (bool more = true; more;) {
        pthread_mutex_lock(&huge->lock);
        more = huge->step.at < huge->step.end;
        if (more) {
            bool made = wf_huge_make(huge->step.at);
            atomic_fetch_add_explicit(made ? &huge->made : &huge->refused, WF_HUGE_BYTES,
                                      memory_order_relaxed);
            huge->step.at += WF_HUGE_BYTES;
        }
        pthread_mutex_unlock(&huge->lock);
    }
}

static void step_start(struct wf_huge_pages *huge)
{
    if (huge->running || huge->stopped || huge->count == 0)
        return;
    struct range *range = &huge->ranges[huge->first];
    size_t left = (size_t)(range->end - range->at), bytes = left < STEP_BYTES ? left : STEP_BYTES;
    pthread_mutex_lock(&huge->lock);
    huge->step = (struct range){range->at, range->at + bytes};
    pthread_mutex_unlock(&huge->lock);
    if (!wf_workers_submit(huge->workers, &huge->job))
        return; /* with the next range that is backed */
    huge->running = true;
    range->at += bytes;
    if (range->at == range->end) {
        huge->first = (huge->first + 1) % RANGES_MAX;
        huge->count--;
    }
}

static void step_done(struct wf_job *job)
{
    struct wf_huge_pages *huge = (struct wf_huge_pages *)job;
    huge->running = false;
    step_start(huge);
}

enum weft_status wf_huge_create(struct wf_workers *workers, struct wf_huge_pages **out)
{
    struct wf_huge_pages *huge = wf_calloc(1, sizeof *huge, "the list of huge pages to be made");
    if (!huge)
        return WEFT_E_NO_MEMORY;
    huge->job = (struct wf_job){.run = step_run, .done = step_done};
    huge->workers = workers;
    pthread_mutex_init(&huge->lock, NULL);
    *out = huge;
    return WEFT_OK;
}

void wf_huge_stop(struct wf_huge_pages *huge)
{
    if (huge)
        huge->stopped = true;
}

void wf_huge_destroy(struct wf_huge_pages *huge)
{
    if (!huge)
        return;
    pthread_mutex_destroy(&huge->lock);
    free(huge);
}

static void range_add(struct wf_huge_pages *huge, char *at, char *end)
{
    if (at < end && huge->count < RANGES_MAX)
        huge->ranges[(huge->first + huge->count++) % RANGES_MAX] = (struct range){at, end};
}

void wf_huge_backed(struct wf_huge_pages *huge, char *segment, uint64_t offset, uint64_t bytes)
{
    uint64_t end = (offset + bytes) / WF_HUGE_BYTES * WF_HUGE_BYTES;
    uint64_t at = (offset + WF_HUGE_BYTES - 1) / WF_HUGE_BYTES * WF_HUGE_BYTES;
    if (at < end)
        range_add(huge, segment + at, segment + end);
    step_start(huge);
}

void wf_huge_punching(struct wf_huge_pages *huge, char *segment, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset / WF_HUGE_BYTES * WF_HUGE_BYTES;
    uint64_t last = (offset + bytes + WF_HUGE_BYTES - 1) / WF_HUGE_BYTES * WF_HUGE_BYTES;
    char *at = segment + first, *end = segment + last;
    if (huge->running) {
        pthread_mutex_lock(&huge->lock);
        if (huge->step.at < end && at < huge->step.end)
            huge->step.at = huge->step.end; /* the rest of the step is given up */
        pthread_mutex_unlock(&huge->lock);
    }
    for (uint32_t looked = huge->count; looked; looked--) {
        struct range range = huge->ranges[huge->first];
        huge->first = (huge->first + 1) % RANGES_MAX;
        huge->count--;
        if (range.end <= at || end <= range.at) {
            range_add(huge, range.at, range.end);
        } else {
            range_add(huge, range.at, at);
            range_add(huge, end, range.end);
        }
    }
}

void wf_huge_counts(const struct wf_huge_pages *huge, uint64_t *made, uint64_t *refused)
{
    *made = atomic_load_explicit(&huge->made, memory_order_relaxed);
    *refused = atomic_load_explicit(&huge->refused, memory_order_relaxed);
}
