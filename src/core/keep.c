/* SPDX-License-Identifier: Apache-2.0 */
#include "core/keep.h"

#include <math.h>
#include <stdlib.h>

#include "base/hooks.h"

#define BURST_S 1.0

/* ---------------------------------------------------------------------- what a copy is worth */

double wf_keep_cost_s(const struct wf_keep_copy *copy)
{
    double none = pow(1 - fmin(1, fmax(0, copy->stays)), copy->others);
    double fetched_s = (1 - none) * copy->transfer_s + none * copy->recompute_s;
    return fmin(fetched_s, copy->recompute_s);
}

/* ---------------------------------------------------------------------- what is moved */

struct wf_keep {
    struct wf_keep_options options;
    struct wf_keep_job *jobs; /* [jobs_max] a heap, the most urgent first */
    uint32_t count;
    double tokens, at_s; /* below 0: they are owed */
    struct wf_keep_stats stats;
};

enum weft_status wf_keep_create(const struct wf_keep_options *options, double now_s,
                                struct wf_keep **out)
{
    if (!options->jobs_max || !(options->bytes_s > 0))
        return wf_fail(WEFT_E_INVALID, "a mover of %u jobs at %g bytes a second; give both",
                       options->jobs_max, options->bytes_s);
    struct wf_keep *keep = WF_FAILS("calloc") ? NULL : calloc(1, sizeof *keep);
    if (keep)
        keep->jobs = WF_FAILS("calloc") ? NULL : calloc(options->jobs_max, sizeof *keep->jobs);
    if (!keep || !keep->jobs) {
        wf_keep_destroy(keep);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for %u jobs of a mover; ask for fewer",
                       options->jobs_max);
    }
    keep->options = *options;
    if (!(options->burst_s > 0))
        keep->options.burst_s = BURST_S;
    keep->at_s = now_s;
    *out = keep;
    return WEFT_OK;
}

void wf_keep_destroy(struct wf_keep *keep)
{
    if (keep)
        free(keep->jobs);
    free(keep);
}

static double bucket(const struct wf_keep *keep)
{
    return keep->options.bytes_s * keep->options.burst_s;
}

static void fill(struct wf_keep *keep, double now_s)
{
    keep->tokens += fmax(0, now_s - keep->at_s) * keep->options.bytes_s;
    keep->tokens = fmin(keep->tokens, bucket(keep));
    keep->at_s = fmax(keep->at_s, now_s);
}

void wf_keep_rate_set(struct wf_keep *keep, double bytes_s, double now_s)
{
    fill(keep, now_s);
    if (bytes_s > 0)
        keep->options.bytes_s = bytes_s;
}

enum wf_keep_rule wf_keep_judge(const struct wf_keep_job *job)
{
    if (job->copies == 0 && job->wanted > 0)
        return WF_KEEP_LAST;
    if (job->copies < job->wanted)
        return WF_KEEP_FEW;
    return job->share ? WF_KEEP_SHARE : WF_KEEP_ENOUGH;
}

static bool more_urgent(const struct wf_keep_job *a, const struct wf_keep_job *b)
{
    enum wf_keep_rule of_a = wf_keep_judge(a), of_b = wf_keep_judge(b);
    if (of_a != of_b)
        return of_a < of_b;
    double worth_a = a->worth_s * b->bytes, worth_b = b->worth_s * a->bytes;
    if (worth_a > worth_b || worth_a < worth_b)
        return worth_a > worth_b;
    return a->depth != b->depth ? a->depth < b->depth : a->number < b->number;
}

static void swap(struct wf_keep *keep, uint32_t a, uint32_t b)
{
    struct wf_keep_job job = keep->jobs[a];
    keep->jobs[a] = keep->jobs[b];
    keep->jobs[b] = job;
}

static void sift_up(struct wf_keep *keep, uint32_t at)
{
    for (; at && more_urgent(&keep->jobs[at], &keep->jobs[(at - 1) / 2]); at = (at - 1) / 2)
        swap(keep, at, (at - 1) / 2);
}

static void sift_down(struct wf_keep *keep)
{
    for (uint32_t at = 0;;) {
        uint32_t next = 2 * at + 1;
        if (next >= keep->count)
            return;
        if (next + 1 < keep->count && more_urgent(&keep->jobs[next + 1], &keep->jobs[next]))
            next++;
        if (!more_urgent(&keep->jobs[next], &keep->jobs[at]))
            return;
        swap(keep, at, next);
        at = next;
    }
}

static void sum(struct wf_keep *keep, const struct wf_keep_job *job, double sign)
{
    keep->stats.bytes += sign * job->bytes;
    if (wf_keep_judge(job) == WF_KEEP_LAST)
        keep->stats.last_bytes += sign * job->bytes;
}

bool wf_keep_add(struct wf_keep *keep, const struct wf_keep_job *job)
{
    if (wf_keep_judge(job) == WF_KEEP_ENOUGH)
        return true;
    if (keep->count == keep->options.jobs_max)
        return false;
    keep->jobs[keep->count] = *job;
    sum(keep, job, 1);
    sift_up(keep, keep->count++);
    return true;
}

void wf_keep_clear(struct wf_keep *keep)
{
    keep->count = 0;
    keep->stats.bytes = keep->stats.last_bytes = 0;
}

void wf_keep_unspent(struct wf_keep *keep, const struct wf_keep_job *job)
{
    keep->tokens = fmin(keep->tokens + job->bytes, bucket(keep));
    keep->stats.moved--;
    keep->stats.moved_bytes -= job->bytes;
}

enum weft_status wf_keep_next(struct wf_keep *keep, double now_s, struct wf_keep_job *out,
                              double *out_at_s)
{
    fill(keep, now_s);
    if (!keep->count)
        return WEFT_MISS;
    double needs = fmin(keep->jobs[0].bytes, bucket(keep));
    if (keep->tokens < needs * (1 - 1e-9)) { /* what rounding leaves is none */
        *out_at_s = keep->at_s + (needs - keep->tokens) / keep->options.bytes_s;
        return WEFT_PENDING;
    }
    *out = keep->jobs[0];
    keep->tokens -= out->bytes;
    keep->stats.moved++;
    keep->stats.moved_bytes += out->bytes;
    sum(keep, out, -1);
    keep->jobs[0] = keep->jobs[--keep->count];
    sift_down(keep);
    return WEFT_OK;
}

double wf_keep_left_s(const struct wf_keep *keep, double now_s)
{
    double tokens = keep->tokens + fmax(0, now_s - keep->at_s) * keep->options.bytes_s;
    return fmax(0, keep->stats.bytes - fmin(tokens, bucket(keep))) / keep->options.bytes_s;
}

void wf_keep_stats(const struct wf_keep *keep, struct wf_keep_stats *out)
{
    *out = keep->stats;
    out->jobs = keep->count;
}
