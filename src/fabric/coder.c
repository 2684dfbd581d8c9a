/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/coder.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/reserve.h"
#include "base/sum.h"
#include "sys/memory.h"
#include "tier/coded.h"

#define LEAD_MAX \
    (sizeof(struct wf_frame_head) + WF_CODED_PLANES_MAX * sizeof(struct wf_frame_plane))
/* For the codec; then two planes that are out of the way, and the lead of their frame. */
#define SCRATCH_BYTES \
    ((uint64_t)WF_CODED_SCRATCH_BYTES_MAX + 2 * (uint64_t)WF_CODED_PLANE_BYTES_MAX + LEAD_MAX)
#define ALIGN 4096u

struct worker {
    pthread_t thread;
    struct wf_coder *coder;
    uint8_t *scratch;
};

struct wf_coder {
    struct wf_coder_options options;
    struct worker *workers; /* [threads or 1] */
    uint32_t threads;       /* that run */
    uint8_t *memory;
    struct wf_coder_job *extents; /* that have some of it, by address */
    uint32_t busy;
    pthread_mutex_t lock;
    pthread_cond_t work;
    /* Under the lock: */
    struct wf_coder_job *decodes, **decodes_end, *encodes, **encodes_end, *done, **done_end;
    bool stopping;
};

/* ------------------------------------------------------------------------------------- layouts */

bool wf_coder_layout(const struct wf_layout *block, uint64_t from, uint64_t bytes,
                     struct wf_layout *out)
{
    struct wf_plane plane;
    if (bytes < WF_CODER_BYTES_LEAST || from > block->bytes || bytes > block->bytes - from)
        return false;
    wf_layout_plane(block, 0, 0, NULL, &plane);
    uint64_t pair = 2 * wf_plane_bytes(&plane); /* K and V of a layer */
    if (block->opaque || from % pair || bytes % pair) {
        /* Its planes are cut through: exponents are what they are there, too. */
        size_t element = weft_dtype_bytes(block->dtype);
        if (element == 0 || from % element || !wf_layout_opaque(block->dtype, bytes, out))
            return false;
    } else {
        *out = *block;
        out->planes = (uint32_t)(bytes / pair) * 2;
        out->bytes = bytes;
    }
    wf_layout_plane(out, 0, 0, NULL, &plane);
    return wf_coded_workable(out) && wf_codec_lossless.takes(&plane);
}

/* -------------------------------------------------------------------------------------- memory */

static uint64_t memory_for(const struct wf_layout *layout)
{
    return (wf_frame_bound(layout) + ALIGN - 1) / ALIGN * ALIGN;
}

uint64_t wf_coder_memory(const struct wf_coder *c)
{
    return c->options.memory_bytes;
}

bool wf_coder_memory_can(const struct wf_coder *c, const struct wf_layout *layout)
{
    return memory_for(layout) <= c->options.memory_bytes;
}

bool wf_coder_memory_take(struct wf_coder *c, struct wf_coder_job *job)
{
    uint64_t bytes = memory_for(&job->layout);
    uint8_t *at = c->memory;
    struct wf_coder_job **link = &c->extents;
    for (; *link && (uint64_t)((*link)->frame - at) < bytes; link = &(*link)->after)
        at = (*link)->frame + (*link)->frame_memory;
    if (!*link && (uint64_t)(c->memory + c->options.memory_bytes - at) < bytes)
        return false;
    job->frame = at;
    job->frame_memory = bytes;
    job->after = *link;
    *link = job;
    return true;
}

void wf_coder_memory_give(struct wf_coder *c, struct wf_coder_job *job)
{
    struct wf_coder_job **link = &c->extents;
    if (!job->frame)
        return;
    while (*link != job)
        link = &(*link)->after;
    *link = job->after;
    job->frame = NULL;
}

/* ---------------------------------------------------------------------------------------- work */

static uint64_t part_end(const struct wf_coder_job *job, uint64_t from)
{
    return from + job->part_bytes < job->plain_bytes ? from + job->part_bytes : job->plain_bytes;
}

static void encode(struct wf_coder_job *job, uint8_t *scratch)
{
    const struct wf_frame_plan plan = {.all.codec = &wf_codec_lossless};
    uint64_t bytes = 0, from = 0;
    for (uint32_t i = 0; job->sums && i < job->part_count; i++) {
        uint64_t end = part_end(job, from);
        job->sums[i] = wf_sum64(job->plain + from, end - from);
        from = end;
    }
    enum weft_status status = wf_frame_encode(&job->layout, &plan, 0, job->plain, job->frame,
                                              &bytes, scratch);
    job->frame_bytes = bytes;
    job->result = status == WEFT_OK && bytes < job->plain_bytes ? WEFT_OK : WEFT_MISS;
}

static enum weft_status wrong(const char *what)
{
    return wf_fail(WEFT_E_CORRUPT, "a block came encoded from another node, and %s", what);
}

/* Is it what was asked for: an exact frame of its own, or a cut of one that was made so? */
static bool is_expected(const struct wf_coder_job *job, const struct wf_frame *frame)
{
    const struct wf_frame_head *head = &frame->head;
    bool lossy = head->flags & WF_FRAME_LOSSY;
    return head->bytes == (job->block_bytes ? job->block_bytes : job->plain_bytes) &&
           head->quality == job->quality && lossy == (job->quality > 0) &&
           head->profile == job->profile;
}

/* Head and table, out of the way; and whether they are those of what was asked for, of which as
 * much is there as it takes to decode it in its place. */
static enum weft_status open_frame(const struct wf_coder_job *job, const uint8_t *bytes,
                                   uint8_t *lead, struct wf_frame *out,
                                   struct wf_frame_cut *out_cut)
{
    uint64_t lead_bytes = wf_frame_lead(bytes, job->frame_bytes);
    if (lead_bytes > LEAD_MAX || lead_bytes > job->frame_bytes)
        return wrong("its frame ends too soon");
    memcpy(lead, bytes, lead_bytes);
    enum weft_status status = wf_frame_open(lead, lead_bytes, out);
    if (status != WEFT_OK)
        return status == WEFT_PENDING ? wrong("its frame ends too soon") : status;
    if (!out->table || !wf_coded_workable(&out->layout) || !is_expected(job, out) ||
        !wf_frame_cut_of(out, job->from, job->from + job->plain_bytes, out_cut) ||
        out_cut->bytes != job->frame_bytes)
        return wrong("its frame is not that of what was asked for");
    return WEFT_OK;
}

static bool sums_right(const struct wf_coder_job *job, const uint8_t *bytes, uint64_t count)
{
    for (uint64_t i = 0, from = 0; from < count; i++, from += job->part_bytes) {
        uint64_t left = count - from;
        if (wf_sum64(bytes + from, left < job->part_bytes ? left : job->part_bytes) != job->sums[i])
            return false;
    }
    return true;
}

static void decode(struct wf_coder *c, struct wf_coder_job *job, uint8_t *scratch)
{
    uint8_t *aside = scratch + WF_CODED_SCRATCH_BYTES_MAX,
            *lead = aside + 2 * (uint64_t)WF_CODED_PLANE_BYTES_MAX;
    const uint8_t *bytes = job->plain + (job->plain_bytes - job->frame_bytes);
    const struct wf_profile *profile = NULL;
    struct wf_frame frame;
    struct wf_frame_cut cut;
    enum weft_status status = WEFT_OK;
    if (job->block_bytes && !sums_right(job, bytes, job->frame_bytes))
        status = wrong("it is not what was sent");
    if (status == WEFT_OK)
        status = open_frame(job, bytes, lead, &frame, &cut);
    if (status == WEFT_OK && job->profile && c->options.profile)
        profile = c->options.profile(c->options.profiles, job->profile);
    if (status == WEFT_OK && job->profile && !profile) {
        job->result = WEFT_E_NOT_FOUND;
        return;
    }
    if (status == WEFT_OK)
        status = wf_frame_cut_decode(&frame, &cut, profile, job->plain, aside, scratch);
    if (status == WEFT_OK && !job->block_bytes && !sums_right(job, job->plain, job->plain_bytes))
        status = wrong("it is not what was sent");
    job->result = status == WEFT_OK ? WEFT_OK : WEFT_E_CORRUPT;
}

static void run(struct wf_coder *c, struct wf_coder_job *job, uint8_t *scratch)
{
    if (job->encode)
        encode(job, scratch);
    else
        decode(c, job, scratch);
}

/* ------------------------------------------------------------------------------------- workers */

static void queue_add(struct wf_coder_job ***end, struct wf_coder_job *job)
{
    job->next = NULL;
    **end = job;
    *end = &job->next;
}

static struct wf_coder_job *queue_take(struct wf_coder_job **first, struct wf_coder_job ***end)
{
    struct wf_coder_job *job = *first;
    if (job && !(*first = job->next))
        *end = first;
    return job;
}

/* With the lock.  Whoever waits here is served sooner than who waits elsewhere. */
static struct wf_coder_job *next_job(struct wf_coder *c)
{
    struct wf_coder_job *job = queue_take(&c->decodes, &c->decodes_end);
    return job ? job : queue_take(&c->encodes, &c->encodes_end);
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct wf_coder *c = worker->coder;
    pthread_setname_np(pthread_self(), "weft-wire");
    pthread_mutex_lock(&c->lock);
    while (!c->stopping) {
        struct wf_coder_job *job = next_job(c);
        if (!job) {
            pthread_cond_wait(&c->work, &c->lock);
            continue;
        }
        pthread_mutex_unlock(&c->lock);
        run(c, job, worker->scratch);
        pthread_mutex_lock(&c->lock);
        bool first = !c->done;
        queue_add(&c->done_end, job);
        if (first)
            c->options.wake(c->options.context);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

void wf_coder_submit(struct wf_coder *c, struct wf_coder_job *job)
{
    c->busy++;
    pthread_mutex_lock(&c->lock);
    queue_add(job->encode ? &c->encodes_end : &c->decodes_end, job);
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
}

void wf_coder_reap(struct wf_coder *c)
{
    struct wf_coder_job *job, *done;
    if (!c->busy)
        return;
    pthread_mutex_lock(&c->lock);
    while (!c->options.threads && (job = next_job(c))) {
        run(c, job, c->workers[0].scratch);
        queue_add(&c->done_end, job);
    }
    done = c->done;
    c->done = NULL;
    c->done_end = &c->done;
    pthread_mutex_unlock(&c->lock);
    while ((job = done)) {
        done = job->next;
        c->busy--;
        job->done(job);
    }
}

uint32_t wf_coder_busy(const struct wf_coder *c)
{
    return c->busy;
}

/* ------------------------------------------------------------------------------- begin and end */

static enum weft_status start(struct wf_coder *c)
{
    sigset_t all, old;
    int rc = 0;
    sigfillset(&all); /* signals are the caller's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (rc == 0 && c->threads < c->options.threads) {
        struct worker *worker = &c->workers[c->threads];
        rc = WF_FAILS("pthread_create") ? EAGAIN
                                        : pthread_create(&worker->thread, NULL, work, worker);
        c->threads += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot start the fabric's %u codec threads: %s; ask for fewer workers",
                       c->options.threads, strerror(rc));
    return WEFT_OK;
}

enum weft_status wf_coder_create(const struct wf_coder_options *options, struct wf_coder **out)
{
    uint32_t count = options->threads ? options->threads : 1;
    struct wf_coder *c = wf_calloc(1, sizeof *c, "the fabric's codec");
    if (!c)
        return WEFT_E_NO_MEMORY;
    c->options = *options;
    c->decodes_end = &c->decodes;
    c->encodes_end = &c->encodes;
    c->done_end = &c->done;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->work, NULL);
    c->memory = wf_reserve(options->memory_bytes, "memory for frames", "set fabric.codec: none");
    c->workers = wf_calloc(count, sizeof *c->workers, "codec threads");
    bool have = c->memory && c->workers;
    for (uint32_t i = 0; have && i < count; i++) {
        c->workers[i].coder = c;
        c->workers[i].scratch = wf_reserve(SCRATCH_BYTES, "a codec's scratch",
                                           "set fabric.codec: none");
        have = c->workers[i].scratch != NULL;
    }
    enum weft_status status = have ? start(c) : WEFT_E_NO_MEMORY;
    if (status != WEFT_OK) {
        wf_coder_destroy(c);
        return status;
    }
    *out = c;
    return WEFT_OK;
}

void wf_coder_stop(struct wf_coder *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->threads; i++)
        pthread_join(c->workers[i].thread, NULL);
    c->threads = 0;
}

void wf_coder_destroy(struct wf_coder *c)
{
    if (!c)
        return;
    wf_coder_stop(c);
    uint32_t count = c->options.threads ? c->options.threads : 1;
    for (uint32_t i = 0; c->workers && i < count; i++)
        wf_unreserve(c->workers[i].scratch, SCRATCH_BYTES);
    free(c->workers);
    wf_unreserve(c->memory, c->options.memory_bytes);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->work);
    free(c);
}
