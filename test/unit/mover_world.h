/* SPDX-License-Identifier: Apache-2.0
 *
 * What a mover has around it, for tests: a tier with a gate, an owner who counts, and jobs.
 *
 * The gated tier is the simulated one behind a lock, so that a test can reach it while the mover's
 * thread drives it, and with a gate: while it is shut nothing is reaped, as with a device that
 * hangs; and each passage may take its time.  It keeps a journal of what was submitted and reaped.
 */
#ifndef TEST_MOVER_WORLD_H
#define TEST_MOVER_WORLD_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "../support/payload.h"
#include "../support/random.h"
#include "daemon/mover.h"
#include "sys/clock.h"
#include "tier/sim.h"

#define WORLD_PATH "moved"
#define WORLD_BYTES (64u << 10)
#define WORLD_JOBS 256u
#define JOURNAL_MAX 4096u
#define ENDED(status) (100 + (status))

/* ----------------------------------------------------------------------------- the gated tier */

static struct {
    pthread_mutex_t lock;
    struct wf_tier *sim; /* NULL: it is not open */
    bool open_shut;      /* open() hangs */
    struct {
        enum wf_tier_op op;
        bool reaped;
    } journal[JOURNAL_MAX];
    uint32_t journal_count;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_bool gate_shut;
static atomic_uint gate_delay_us; /* each request takes so long, one after the other */

static void gate_note(enum wf_tier_op op, bool reaped)
{
    if (gate.journal_count < JOURNAL_MAX) {
        gate.journal[gate.journal_count].op = op;
        gate.journal[gate.journal_count++].reaped = reaped;
    }
}

static enum weft_status gate_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    for (bool shut = true; shut;) {
        pthread_mutex_lock(&gate.lock);
        shut = gate.open_shut;
        pthread_mutex_unlock(&gate.lock);
        if (shut)
            usleep(1000);
    }
    enum weft_status status = wf_tier_sim.open(options, out);
    pthread_mutex_lock(&gate.lock);
    gate.sim = status == WEFT_OK ? *out : NULL;
    pthread_mutex_unlock(&gate.lock);
    return status;
}

static void gate_close(struct wf_tier *tier)
{
    while (atomic_load(&gate_shut))
        usleep(1000);
    pthread_mutex_lock(&gate.lock);
    gate.sim = NULL;
    wf_tier_sim.close(tier);
    pthread_mutex_unlock(&gate.lock);
}

static enum weft_status gate_submit(struct wf_tier *tier, struct wf_tier_request *request)
{
    pthread_mutex_lock(&gate.lock);
    enum weft_status status = wf_tier_sim.submit(tier, request);
    if (status == WEFT_OK)
        gate_note(request->op, false);
    pthread_mutex_unlock(&gate.lock);
    return status;
}

static uint32_t gate_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                          uint32_t timeout_ms)
{
    if (atomic_load(&gate_shut)) {
        usleep(timeout_ms * 1000);
        return 0;
    }
    uint32_t delay_us = atomic_load(&gate_delay_us);
    pthread_mutex_lock(&gate.lock);
    uint32_t count = wf_tier_sim.reap(tier, out, delay_us ? 1 : max, timeout_ms);
    for (uint32_t i = 0; i < count; i++)
        gate_note(out[i]->op, true);
    pthread_mutex_unlock(&gate.lock);
    if (count)
        usleep(delay_us);
    return count;
}

static void gate_cancel(struct wf_tier *tier, struct wf_tier_request *request)
{
    pthread_mutex_lock(&gate.lock);
    wf_tier_sim.cancel(tier, request);
    pthread_mutex_unlock(&gate.lock);
}

static int gate_event(const struct wf_tier *tier)
{
    return wf_tier_sim.event(tier);
}

static bool gate_find(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out)
{
    pthread_mutex_lock(&gate.lock);
    bool there = wf_tier_sim.find(tier, key, out);
    pthread_mutex_unlock(&gate.lock);
    return there;
}

static enum weft_status gate_remove(struct wf_tier *tier, const uint8_t key[32])
{
    pthread_mutex_lock(&gate.lock);
    enum weft_status status = wf_tier_sim.remove(tier, key);
    pthread_mutex_unlock(&gate.lock);
    return status;
}

/* Without the lock: it waits for the owner, who may want the lock. */
static void gate_each(const struct wf_tier *tier,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context)
{
    wf_tier_sim.each(tier, found, context);
}

static void gate_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    pthread_mutex_lock(&gate.lock);
    wf_tier_sim.stats(tier, out);
    pthread_mutex_unlock(&gate.lock);
}

static const struct wf_tier_ops gated_tier = {
    .name = "gated",
    .open = gate_open,
    .close = gate_close,
    .submit = gate_submit,
    .reap = gate_reap,
    .cancel = gate_cancel,
    .event = gate_event,
    .find = gate_find,
    .remove = gate_remove,
    .each = gate_each,
    .stats = gate_stats,
};

static inline void gate_faults(const struct wf_tier_sim_faults *faults)
{
    pthread_mutex_lock(&gate.lock);
    wf_tier_sim_faults(gate.sim, faults);
    pthread_mutex_unlock(&gate.lock);
}

/* ------------------------------------------------------------------------------------ the owner */

struct world_job {
    struct wf_mover_job move; /* first */
    struct world *world;
    uint64_t block;
    bool busy;
    bool raw; /* the test looks at its bytes itself */
};

struct world {
    struct wf_mover *mover;
    struct wf_mover_options options;
    char path[200]; /* of a file for a real tier, to be removed */
    struct random_source random;
    uint8_t *memory;
    struct world_job jobs[WORLD_JOBS];
    uint32_t busy;
    uint64_t done, ended[128]; /* by ENDED(status) */
    /* what was told */
    uint32_t found, batches, opened, changes;
    enum weft_status opened_status;
    enum wf_mover_state state;
    char sentence[256];
    void (*on_found)(struct world *w, const struct wf_tier_block *block);
};

static void world_found(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct world *w = context;
    w->batches++;
    w->found += count;
    for (uint32_t i = 0; i < count && w->on_found; i++)
        w->on_found(w, &blocks[i]);
}

static void world_opened(void *context, enum weft_status status, const char *sentence)
{
    struct world *w = context;
    w->opened++;
    w->opened_status = status;
    snprintf(w->sentence, sizeof w->sentence, "%s", sentence);
}

static void world_changed(void *context, enum wf_mover_state state, const char *sentence)
{
    struct world *w = context;
    w->changes++;
    w->state = state;
    snprintf(w->sentence, sizeof w->sentence, "%s", sentence);
}

static inline int world_setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    if (!w)
        return 1;
    w->memory = aligned_alloc(WF_TIER_ALIGN, (size_t)WORLD_JOBS * WORLD_BYTES);
    if (!w->memory) {
        free(w);
        return 1;
    }
    w->random = random_seeded("mover");
    w->options = (struct wf_mover_options){
        .name = "test0",
        .ops = &gated_tier,
        .tier = {.path = WORLD_PATH, .queue_depth = 16, .seed = random_next(&w->random)},
        .jobs_max = WORLD_JOBS,
        .timeout_ms = 10000,
        .background_depth = 8,
        .shares = {1, 30, 10, 5},
        .retry_ms = 20,
        .found = world_found,
        .opened = world_opened,
        .changed = world_changed,
        .context = w,
    };
    gate.journal_count = 0;
    *state = w;
    return 0;
}

static inline int world_teardown(void **state)
{
    struct world *w = *state;
    atomic_store(&gate_shut, false);
    atomic_store(&gate_delay_us, 0);
    bool ended = wf_mover_destroy(w->mover, 0);
    wf_tier_sim_forget(WORLD_PATH);
    if (w->path[0])
        unlink(w->path);
    free(w->memory);
    free(w);
    return !ended;
}

static inline uint8_t *memory_of(struct world *w, const struct world_job *job)
{
    return w->memory + (size_t)(job - w->jobs) * WORLD_BYTES;
}

/* Poll and reap until `*counter` is at least `wanted`; 20 s at most. */
static inline void world_until(struct world *w, const void *counter, size_t bytes, uint64_t wanted)
{
    uint64_t until = wf_now_ms() + 20000, value = 0;
    for (;;) {
        memcpy(&value, counter, bytes);
        if (value >= wanted)
            return;
        if (wf_now_ms() > until)
            fail_msg("waited in vain: %llu of %llu; state %s", (unsigned long long)value,
                     (unsigned long long)wanted, wf_mover_state_name(w->state));
        struct pollfd fd = {.fd = wf_mover_fd(w->mover), .events = POLLIN};
        poll(&fd, 1, 100);
        wf_mover_reap(w->mover);
    }
}
#define WAIT_FOR(w, field, wanted) world_until(w, &(w)->field, sizeof(w)->field, wanted)

static inline void world_state(struct world *w, enum wf_mover_state state)
{
    uint64_t until = wf_now_ms() + 20000;
    while (w->state != state || w->changes == 0) {
        if (wf_now_ms() > until)
            fail_msg("the state is %s, not %s", wf_mover_state_name(w->state),
                     wf_mover_state_name(state));
        WAIT_FOR(w, changes, w->changes + 1);
    }
}

static inline void world_open(struct world *w)
{
    if (wf_mover_create(&w->options, &w->mover) != WEFT_OK)
        fail_msg("%s", wf_last_error());
    world_state(w, WF_MOVER_OK);
}

/* Until that many are with the tier. */
static inline void world_in_flight(struct world *w, uint32_t wanted)
{
    struct wf_mover_stats stats;
    uint64_t until = wf_now_ms() + 20000;
    for (;;) {
        wf_mover_stats(w->mover, &stats);
        if (stats.in_flight == wanted)
            return;
        if (wf_now_ms() > until)
            fail_msg("%u are with the tier, not %u", stats.in_flight, wanted);
        usleep(1000);
    }
}

/* ---------------------------------------------------------------------------------------- jobs */

/* Block n: size, layout and bytes follow from n. */
static inline struct wf_tier_block world_block(uint64_t n)
{
    struct random_source r = {n * 77 + 5};
    struct wf_tier_block block = {.bytes = 8 * (1 + random_below(&r, WORLD_BYTES / 8))};
    block.part_bytes = (uint32_t)block.bytes / (1 + random_below(&r, 8)) + 1;
    random_key(n, block.key);
    random_key(7, block.format);
    return block;
}

static void world_done(struct wf_mover_job *move)
{
    struct world_job *job = (struct world_job *)move;
    struct world *w = job->world;
    const struct wf_tier_request *r = &move->job.request;
    assert_true(job->busy); /* exactly once */
    job->busy = false;
    w->busy--;
    w->done++;
    w->ended[ENDED(r->status)]++;
    assert_true(move->done_ns >= move->submitted_ns);
    if (r->status < 0)
        assert_non_null(strstr(wf_last_error(), "test0"));
    if (r->status != WEFT_OK || job->raw)
        return;
    if (move->kind == WF_MOVE_READ) {
        struct wf_tier_block block = world_block(job->block);
        assert_int_equal(r->bytes, block.bytes);
        assert_true(payload_right(r->data, block.bytes, block.key));
    }
    if (move->kind == WF_MOVE_VERIFY)
        assert_int_equal(r->bytes, world_block(job->block).bytes);
    if (move->kind == WF_MOVE_WRITE)
        assert_true(move->checksum != 0);
}

static inline struct world_job *world_job(struct world *w, enum wf_mover_kind kind, uint64_t block)
{
    struct world_job *job = w->jobs;
    while (job->busy)
        job++;
    memset(job, 0xee, sizeof *job); /* what the mover needs, it sets itself */
    job->move.job = (struct wf_tier_job){.class = random_below(&w->random, WF_TIER_CLASSES)};
    job->move.kind = kind;
    job->move.checksum = 0;
    job->move.done = world_done;
    job->world = w;
    job->block = block;
    job->busy = true;
    job->raw = false;
    job->move.job.request.block = world_block(block);
    job->move.job.request.data = memory_of(w, job);
    if (kind == WF_MOVE_WRITE)
        payload_fill(memory_of(w, job), job->move.job.request.block.bytes,
                     job->move.job.request.block.key);
    return job;
}

static inline struct world_job *world_submit(struct world *w, enum wf_mover_kind kind,
                                             uint64_t block)
{
    struct world_job *job = world_job(w, kind, block);
    if (wf_mover_submit(w->mover, &job->move) != WEFT_OK)
        fail_msg("submit: %s", wf_last_error());
    w->busy++;
    return job;
}

static inline enum weft_status world_run(struct world *w, enum wf_mover_kind kind, uint64_t block)
{
    struct world_job *job = world_submit(w, kind, block);
    WAIT_FOR(w, done, w->done + w->busy);
    return job->move.job.request.status;
}

#endif
