/* SPDX-License-Identifier: Apache-2.0
 *
 * A job's way on the mover's thread: taken up, held while another goes first, given to the
 * scheduler, done.
 *
 * What a job waits for is found by key: the jobs whose keys hash alike are in one bucket, youngest
 * first, so that what is behind a job in its bucket came before it.  Whoever is done looks for
 * those that waited for it and makes them ready; ready ones are taken up by a loop, never by a
 * call within a call.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "daemon/mover_inner.h"
#include "sys/clock.h"
#include "tier/check.h"

#define REAP_MAX 64u
#define REAPS_MAX 16u /* before new jobs get a look in */
#define WARN_NS 1000000000u

static void line_add(struct wf_mover_line *line, struct wf_mover_job *job)
{
    job->step_next = NULL;
    *(line->last ? &line->last->step_next : &line->first) = job;
    line->last = job;
}

static struct wf_mover_job *line_take(struct wf_mover_line *line)
{
    struct wf_mover_job *job = line->first;
    if (job) {
        line->first = job->step_next;
        if (!line->first)
            line->last = NULL;
    }
    return job;
}

/* `job` is in the line. */
static void line_remove(struct wf_mover_line *line, const struct wf_mover_job *job)
{
    struct wf_mover_job *before = NULL, *at = line->first;
    for (; at != job; at = at->step_next)
        before = at;
    *(before ? &before->step_next : &line->first) = job->step_next;
    if (line->last == job)
        line->last = before;
}

static void make_ready(struct wf_mover *m, struct wf_mover_job *job)
{
    job->step = WF_STEP_READY;
    line_add(&m->ready, job);
}

/* ----------------------------------------------------------------------------- who goes first */

static struct wf_mover_job **bucket_of(struct wf_mover *m, const struct wf_mover_job *job)
{
    uint64_t hash;
    memcpy(&hash, job->job.request.block.key, sizeof hash);
    return &m->buckets[(hash ^ hash >> 32) & m->buckets_mask];
}

static bool same_key(const struct wf_mover_job *a, const struct wf_mover_job *b)
{
    return memcmp(a->job.request.block.key, b->job.request.block.key, 32) == 0;
}

static bool must_wait(const struct wf_mover_job *job)
{
    const struct wf_mover_job *older = job->bucket_next;
    for (; older; older = older->bucket_next) {
        if ((job->kind == WF_MOVE_REMOVE || older->kind == WF_MOVE_REMOVE) && same_key(job, older))
            return true;
    }
    return false;
}

/* `gone` is in no bucket any more; if one waited for it alone, that one is ready. */
static void release_key(struct wf_mover *m, const struct wf_mover_job *gone)
{
    for (struct wf_mover_job *job = *bucket_of(m, gone); job; job = job->bucket_next) {
        if (job->step == WF_STEP_HELD && same_key(job, gone) && !must_wait(job))
            make_ready(m, job);
    }
}

static void release_flushes(struct wf_mover *m, const struct wf_mover_job *written)
{
    struct wf_mover_job *next;
    for (struct wf_mover_job *flush = m->flushes.first; flush; flush = next) {
        next = flush->step_next;
        if (flush->number > written->number && --flush->waits == 0) {
            line_remove(&m->flushes, flush);
            make_ready(m, flush);
        }
    }
}

/* ----------------------------------------------------------------------------------- the end */

/* A read's bytes are right whatever became of the tier; what was to be kept may be lost. */
static enum weft_status status_when_failed(const struct wf_mover_job *job, enum weft_status status)
{
    bool read = job->kind == WF_MOVE_READ || job->kind == WF_MOVE_VERIFY;
    if ((status == WEFT_OK && read) || (status == WEFT_E_TIMEOUT && job->cancelled))
        return status;
    return WEFT_E_SYSTEM;
}

/* A tier's sentence begins with which one it is; a line that says so does not say it again. */
static const char *without_name(const struct wf_mover *m, const char *sentence)
{
    size_t length = strlen(m->name);
    bool named = strncmp(sentence, "tier ", 5) == 0 &&
                 strncmp(sentence + 5, m->name, length) == 0 &&
                 strncmp(sentence + 5 + length, ": ", 2) == 0;
    return named ? sentence + 5 + length + 2 : sentence;
}

/* The tier left its sentence in this thread; many fail at once, and one line a second is enough. */
static void note_error(struct wf_mover *m, const struct wf_mover_job *job, enum weft_status status)
{
    const uint8_t *key = job->job.request.block.key;
    /* Nothing is wrong with a block whose profile is not here: which one it is goes into the log.
     */
    bool profile = status == WEFT_E_NOT_FOUND;
    if (status >= 0 || status == WEFT_E_TIMEOUT || m->ending != WF_ENDING_NOT)
        return;
    uint64_t now_ns = wf_now_ns();
    if (!profile)
        snprintf(m->last_error, sizeof m->last_error, "%s", wf_last_error());
    if (m->warned_ns == 0 || now_ns - m->warned_ns >= WARN_NS) {
        m->warned_ns = now_ns;
        if (profile)
            wf_info("mover", "tier %s: block %02x%02x%02x%02x…: %s", m->name, key[0], key[1],
                    key[2], key[3], without_name(m, wf_last_error()));
        else if (job->kind == WF_MOVE_FLUSH)
            wf_warn("mover", "tier %s: %s", m->name, without_name(m, m->last_error));
        else
            wf_warn("mover", "tier %s: block %02x%02x%02x%02x…: %s", m->name, key[0], key[1],
                    key[2], key[3], without_name(m, m->last_error));
    }
}

static void finish(struct wf_mover *m, struct wf_mover_job *job, enum weft_status status,
                   uint64_t bytes)
{
    note_error(m, job, status);
    if (m->ending == WF_ENDING_FAILED)
        status = status_when_failed(job, status);
    wf_mover_list_remove(&m->taken, job);
    if (job->kind != WF_MOVE_FLUSH) {
        struct wf_mover_job **at = bucket_of(m, job);
        while (*at != job)
            at = &(*at)->bucket_next;
        *at = job->bucket_next;
        release_key(m, job);
    }
    if (job->kind == WF_MOVE_WRITE) {
        m->writes--;
        release_flushes(m, job);
    }
    wf_mover_tell(m, job, status, bytes);
}

/* ----------------------------------------------------------------------------------- verifying */

static void verify_done(struct wf_mover *m, enum weft_status status)
{
    struct wf_mover_job *job = line_take(&m->verify);
    uint64_t bytes = m->verified_here;
    assert(job); /* it stays in line while a part of it is read */
    m->verified_parts = 0;
    m->verified_here = 0;
    finish(m, job, status, bytes);
}

/* The next parts of the first in line, as many as the buffer takes.  What was stored with loss is
 * read as it lies: to see whether it is whole takes no profile.  How it is cut there the first of
 * its parts tells. */
static enum weft_status verify_part(struct wf_mover *m, const struct wf_mover_job *job)
{
    struct wf_tier_block there;
    if (!m->ops->find(m->tier, job->job.request.block.key, &there))
        return WEFT_MISS;
    bool lossy = there.plain_quality != 0;
    if (m->verified_parts == 0)
        m->verified = there;
    if (!lossy && (there.bytes != m->verified.bytes || there.part_bytes != m->verified.part_bytes))
        return WEFT_MISS;
    uint32_t count = 1, left = 1;
    if (!lossy || m->verified_parts > 0) {
        count = m->buffer_bytes / m->verified.part_bytes;
        left = wf_tier_parts(&m->verified) - m->verified_parts;
    }
    if (count == 0)
        return wf_fail(WEFT_E_LIMIT,
                       "tier %s: a part of %u bytes cannot be verified in %u; give the mover more",
                       m->name, m->verified.part_bytes, m->buffer_bytes);
    if (lossy)
        there.bytes = m->buffer_bytes; /* the room */
    m->part = (struct wf_mover_job){.kind = WF_MOVE_VERIFY};
    m->part.job.class = job->job.class;
    m->part.job.deadline_us = job->job.deadline_us;
    m->part.job.expires_us = job->job.expires_us;
    m->part.job.request = (struct wf_tier_request){
        .op = WF_TIER_READ,
        .block = there,
        .data = m->buffer,
        .first_part = m->verified_parts,
        .part_count = count < left ? count : left,
        .as_stored = lossy,
    };
    enum weft_status status = wf_tier_scheduler_submit(m->scheduler, &m->part.job);
    if (status == WEFT_OK) {
        m->scheduled++;
        m->part_flying = true;
    }
    return status;
}

static void verify_on(struct wf_mover *m)
{
    while (m->verify.first && !m->part_flying) {
        const struct wf_mover_job *job = m->verify.first;
        enum weft_status status = WEFT_E_TIMEOUT;
        if (m->ending == WF_ENDING_NOT && !job->cancelled)
            status = verify_part(m, job);
        if (status != WEFT_OK)
            verify_done(m, status);
    }
}

static void verify_ended(struct wf_mover *m)
{
    const struct wf_tier_request *request = &m->part.job.request;
    m->part_flying = false;
    if (request->status == WEFT_OK && request->as_stored && m->verified_parts == 0) {
        m->verified = request->block;
        m->verify.first->job.request.profile = request->profile;
    }
    if (request->status != WEFT_OK) {
        verify_done(m, request->status);
    } else if (request->as_stored && (request->block.bytes != m->verified.bytes ||
                                      request->block.part_bytes != m->verified.part_bytes)) {
        verify_done(m, WEFT_MISS); /* another one, meanwhile */
    } else {
        m->verified_parts += request->part_count;
        m->verified_here += request->bytes;
        m->verified_bytes += request->bytes;
        if (m->verified_parts == wf_tier_parts(&m->verified))
            verify_done(m, WEFT_OK);
    }
    verify_on(m);
}

/* ------------------------------------------------------------------------------------ the way */

static void take_up(struct wf_mover *m, struct wf_mover_job *job)
{
    wf_mover_list_add(&m->taken, job);
    job->number = m->next_number++;
    job->step = WF_STEP_HELD;
    if (job->kind == WF_MOVE_FLUSH) {
        job->waits = m->writes;
        if (job->waits)
            line_add(&m->flushes, job);
        else
            make_ready(m, job);
        return;
    }
    struct wf_mover_job **bucket = bucket_of(m, job);
    job->bucket_next = *bucket;
    *bucket = job;
    m->writes += job->kind == WF_MOVE_WRITE;
    if (!must_wait(job))
        make_ready(m, job);
}

static void schedule(struct wf_mover *m, struct wf_mover_job *job)
{
    job->step = WF_STEP_SCHEDULED;
    job->begun_ns = 0;
    m->scheduled++;
    enum weft_status status = wf_tier_scheduler_submit(m->scheduler, &job->job);
    if (status != WEFT_OK) {
        m->scheduled--;
        finish(m, job, status, 0);
    }
}

/* A range of parts is asked for by who knows the block's size and parts.  On a medium that has
 * others, it would be other bytes, and more of them than there is room for.  Of another format it
 * is somebody else's, and so is what is there already when such a block is written. */
static bool as_expected(const struct wf_mover *m, const struct wf_mover_job *job)
{
    const struct wf_tier_block *asked = &job->job.request.block;
    struct wf_tier_block there;
    bool looks = job->kind == WF_MOVE_READ || job->kind == WF_MOVE_WRITE;
    if (!looks || asked->bytes == 0 || !m->ops->find(m->tier, asked->key, &there))
        return true;
    bool frame = job->kind == WF_MOVE_WRITE && job->job.request.as_stored;
    return there.bytes == (frame ? asked->plain_bytes : asked->bytes) &&
           there.part_bytes == (frame ? asked->plain_part_bytes : asked->part_bytes) &&
           memcmp(there.format, asked->format, sizeof there.format) == 0;
}

static void go_on(struct wf_mover *m)
{
    struct wf_mover_job *job;
    while ((job = line_take(&m->ready))) {
        if (job->cancelled || m->ending != WF_ENDING_NOT) {
            finish(m, job, WEFT_E_TIMEOUT, 0);
        } else if (job->kind == WF_MOVE_REMOVE) {
            finish(m, job, m->ops->remove(m->tier, job->job.request.block.key), 0);
        } else if (job->kind == WF_MOVE_FENCE) {
            finish(m, job, wf_mover_fence(m, job), 0);
        } else if (job->kind == WF_MOVE_VERIFY) {
            job->step = WF_STEP_VERIFY;
            line_add(&m->verify, job);
            verify_on(m);
        } else if (!as_expected(m, job)) {
            finish(m, job, WEFT_MISS, 0);
        } else {
            schedule(m, job);
        }
    }
}

/* `begun`: even if it is with the tier. */
static void cancel(struct wf_mover *m, struct wf_mover_job *job, bool begun)
{
    switch (job->step) {
    case WF_STEP_HELD:
        if (job->kind == WF_MOVE_FLUSH)
            line_remove(&m->flushes, job);
        finish(m, job, WEFT_E_TIMEOUT, 0);
        break;
    case WF_STEP_VERIFY:
        if (job != m->verify.first) {
            line_remove(&m->verify, job);
            finish(m, job, WEFT_E_TIMEOUT, 0);
        } else if (begun || m->part.begun_ns == 0) {
            wf_tier_scheduler_cancel(m->scheduler, &m->part.job);
        }
        break;
    case WF_STEP_SCHEDULED:
        if (begun || job->begun_ns == 0)
            wf_tier_scheduler_cancel(m->scheduler, &job->job);
        break;
    default: break; /* ready: go_on() looks before it goes on */
    }
}

static void hurry(struct wf_mover *m, struct wf_mover_job *job, uint64_t deadline_us)
{
    if (job->step == WF_STEP_SCHEDULED) {
        wf_tier_scheduler_hurry(m->scheduler, &job->job, WF_TIER_WAITED, deadline_us);
        return;
    }
    job->job.class = WF_TIER_WAITED;
    job->job.deadline_us = deadline_us;
}

void wf_mover_cancel_all(struct wf_mover *m, bool begun)
{
    struct wf_mover_job *next;
    for (struct wf_mover_job *job = m->taken.first; job; job = next) {
        next = job->next;
        cancel(m, job, begun);
    }
}

static void reap(struct wf_mover *m, uint32_t wait_ms)
{
    struct wf_tier_job *out[REAP_MAX];
    uint32_t count = 1;
    for (uint32_t i = 0; i < REAPS_MAX && count && m->scheduled; i++) {
        count = wf_tier_scheduler_reap(m->scheduler, wf_now_ns() / 1000, out, REAP_MAX,
                                       i == 0 ? wait_ms : 0);
        m->scheduled -= count;
        for (uint32_t j = 0; j < count; j++) {
            struct wf_mover_job *job = (struct wf_mover_job *)out[j]; /* its first member */
            if (job == &m->part)
                verify_ended(m);
            else
                finish(m, job, job->job.request.status, job->job.request.bytes);
        }
        go_on(m);
    }
}

void wf_mover_round(struct wf_mover *m, uint32_t wait_ms)
{
    struct wf_mover_job *job = wf_mover_take(m), *next;
    m->summed_bytes = 0;
    for (; job; job = next) {
        next = job->next;
        take_up(m, job);
    }
    uint64_t hurry_us;
    while ((job = wf_mover_take_asked(m, &hurry_us))) {
        if (hurry_us)
            hurry(m, job, hurry_us);
        else
            cancel(m, job, true);
    }
    go_on(m);
    if (m->tier && m->in_flight == 0) {
        /* The tier may have work of its own that only a reap moves on. */
        struct wf_tier_request *stray;
        uint32_t strays = m->ops->reap(m->tier, &stray, 1, 0);
        assert(strays == 0);
        (void)strays;
    }
    reap(m, wait_ms);
}

bool wf_mover_idle(const struct wf_mover *m)
{
    return !m->taken.first && m->scheduled == 0;
}
