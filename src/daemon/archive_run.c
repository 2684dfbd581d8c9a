/* SPDX-License-Identifier: Apache-2.0
 *
 * How an archive is made.
 *
 *     WRITE ───► FLUSH ───► VERIFY ───► MANIFEST ───► SETTLE ───► CHECK ───► kept
 *       ▲ blocks   tiers      read │      written      flushed     read back
 *       └──────────────────────────┘ what did not come back right is written once more
 *
 * From its begin to its end a run holds the deepest block of the chain that is in DRAM, and with it
 * all before that, and the directory's entry of every block that is below: what it found or wrote
 * is no victim of anyone.  At its end all that is let go again; what stays is the archive, or
 * nothing.
 *
 * A client waits by being parked (server.c) a moment at a time; who asks again while a run is under
 * way, or has ended and nobody took its result, gets that one's.  So a call that gave up waiting,
 * or a client that died, costs nothing but the work.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/text.h"
#include "daemon/archive.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define PARK_NS 100000000u /* then the client is told how far it is */
#define ROUNDS 3u
#define STALLED_NS 10000000000u /* nothing moved for so long: the tier is full */
#define RESULT_NS 600000000000u /* a result that nobody took is forgotten */

enum phase { UNUSED, WRITE, FLUSH, VERIFY, MANIFEST, SETTLE, CHECK, ENDED };

struct step {
    uint8_t key[32];
    uint32_t entry; /* held; WF_DIRECTORY_NONE: not below yet */
    bool verify;    /* not known to be right where it is */
};

/* One block's write or check. */
struct task {
    struct wf_mover_job job; /* first member; of a check */
    struct wf_archive_run *run;
    uint32_t step;
    struct wf_lower *at;
    bool busy;
};

struct wf_archive_run {
    struct wf_archives *archives;
    enum phase phase;
    struct wf_domain *domain;
    char name[WF_ARCHIVE_NAME_MAX + 1];
    uint8_t tip[32];
    struct wf_format_open format;
    struct step *steps; /* from the chain's root to its tip */
    uint32_t count, next, in_flight, round;
    struct task tasks[WF_ARCHIVE_JOBS_MAX];
    struct wf_lower *to;
    uint32_t slot; /* held; WF_SLOT_NONE */
    uint8_t unflushed;
    bool again;              /* this round left something to do */
    struct wf_mover_job job; /* flushes and the manifest */
    struct wf_lower *job_at;
    void *manifest;
    size_t manifest_bytes;
    bool manifest_there;
    uint64_t moved_ns;
    /* What came of it: */
    enum weft_status status; /* WEFT_PENDING until it ends or fails */
    char sentence[WF_ERROR_MAX];
    uint32_t written;
    uint64_t bytes;
};

static void advance(struct wf_archive_run *run);

enum weft_status wf_archive_runs_create(struct wf_archives *archives)
{
    archives->runs = wf_calloc(WF_ARCHIVE_RUNS_MAX, sizeof *archives->runs, "archives being made");
    if (!archives->runs)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++)
        archives->runs[i].archives = archives;
    return WEFT_OK;
}

void wf_archive_runs_destroy(struct wf_archives *archives)
{
    for (uint32_t i = 0; archives->runs && i < WF_ARCHIVE_RUNS_MAX; i++) {
        free(archives->runs[i].steps);
        free(archives->runs[i].manifest);
    }
    free(archives->runs);
    archives->runs = NULL;
}

static bool active(const struct wf_archive_run *run)
{
    return run->phase != UNUSED && run->phase != ENDED;
}

uint32_t wf_archive_runs_busy(const struct wf_archives *archives)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++)
        busy += active(&archives->runs[i]);
    return busy;
}

/* -------------------------------------------------------------------------------------- its end */

/* It has failed; it ends when what is in flight has come back.  The first reason counts. */
static void fail(struct wf_archive_run *run, enum weft_status status)
{
    if (run->status != WEFT_PENDING)
        return;
    run->status = status;
    memcpy(run->sentence, wf_last_error(), strnlen(wf_last_error(), WF_ERROR_MAX - 1) + 1);
    run->sentence[WF_ERROR_MAX - 1] = '\0';
}

static void let_go(struct wf_archive_run *run)
{
    for (uint32_t i = 0; i < run->count; i++)
        if (run->steps[i].entry != WF_DIRECTORY_NONE)
            wf_directory_unhold(run->archives->below->directory, run->steps[i].entry);
    if (run->slot != WF_SLOT_NONE)
        wf_store_unhold(&run->domain->store, run->slot);
    free(run->steps);
    free(run->manifest);
    run->steps = NULL;
    run->manifest = NULL;
    run->slot = WF_SLOT_NONE;
}

static void end(struct wf_archive_run *run)
{
    struct wf_node *node = run->archives->below->node;
    if (run->status == WEFT_PENDING)
        run->status = wf_archive_keep(run->archives, run->to, run->manifest, run->manifest_bytes);
    if (run->status < 0 && !run->sentence[0])
        memcpy(run->sentence, wf_last_error(), strnlen(wf_last_error(), WF_ERROR_MAX - 1));
    if (run->status != WEFT_OK && run->manifest_there) {
        uint8_t key[32];
        wf_manifest_key(run->domain->tag, run->name, run->tip, key);
        wf_lower_remove(run->to, key);
    }
    if (run->status == WEFT_OK)
        wf_telemetry_event(node, run->domain, "archive",
                           "archive %.64s: %u blocks are durable on tier %s", run->name, run->count,
                           run->to->config->name);
    else
        wf_warn("archive", "%s of domain %s: %s", run->name, run->domain->config->name,
                run->sentence);
    let_go(run);
    run->phase = ENDED;
    run->moved_ns = wf_now_ns();
    wf_clients_unpark(node);
}

/* ----------------------------------------------------------------------------------- the blocks */

static struct task *task_get(struct wf_archive_run *run, uint32_t step)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_JOBS_MAX; i++) {
        struct task *task = &run->tasks[i];
        if (task->busy)
            continue;
        memset(task, 0, sizeof *task);
        task->run = run;
        task->step = step;
        task->busy = true;
        run->in_flight++;
        return task;
    }
    return NULL;
}

static void task_put(struct task *task)
{
    task->busy = false;
    task->run->in_flight--;
    task->run->moved_ns = wf_now_ns();
}

/* Hold the entry that a block has by now. */
static void step_hold(struct wf_archive_run *run, struct step *step, struct wf_directory_block *out)
{
    struct wf_directory *directory = run->archives->below->directory;
    *out = (struct wf_directory_block){.tiers = 0};
    if (step->entry != WF_DIRECTORY_NONE) {
        wf_directory_read(directory, step->entry, out);
        if (out->tiers || out->in_dram)
            return;
        wf_directory_unhold(directory, step->entry); /* it went all the same */
    }
    step->entry = wf_directory_find(directory, step->key);
    if (step->entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(directory, step->entry, out);
    wf_directory_hold(directory, step->entry);
}

static void written(void *context, enum weft_status status)
{
    struct task *task = context;
    struct wf_archive_run *run = task->run;
    struct step *step = &run->steps[task->step];
    struct wf_directory_block block;
    if (status == WEFT_OK || status == WEFT_EXISTS) {
        step->verify = true;
        step_hold(run, step, &block);
        run->written += status == WEFT_OK;
    } else if (status < 0 && status != WEFT_E_CORRUPT) {
        fail(run, status);
    }
    run->again = true; /* look at all of them once more */
    task_put(task);
    advance(run);
}

/* True: this block is done with, or on its way. */
static bool write_step(struct wf_archive_run *run, uint32_t at)
{
    struct wf_below *below = run->archives->below;
    struct step *step = &run->steps[at];
    struct wf_directory_block block;
    step_hold(run, step, &block);
    if (block.tiers & wf_archive_tiers(below)) {
        step->verify |= block.archives == 0;
        return true;
    }
    uint32_t slot = wf_store_find(&run->domain->store, step->key);
    if (slot == WF_SLOT_NONE && !block.tiers) {
        fail(run,
             wf_fail(WEFT_E_NOT_FOUND, "block %u of the chain went while it was archived", at));
        return true;
    }
    uint64_t bytes = slot != WF_SLOT_NONE
                         ? atomic_load_explicit(&run->domain->store.index.desc[slot].bytes,
                                                memory_order_relaxed)
                         : block.bytes;
    if (!wf_lower_room(run->to, bytes))
        return false;
    struct task *task = task_get(run, at);
    struct wf_ended ended = {.call = written, .context = task};
    if (!task)
        return false;
    bool begun = slot != WF_SLOT_NONE ? wf_demote_to(run->domain, slot, run->to, &ended)
                                      : wf_copy_down(&below->tiers[__builtin_ctz(block.tiers)],
                                                     run->to, step->entry, &ended);
    if (!begun)
        task_put(task);
    else
        run->again = true;
    return begun;
}

static void write_steps(struct wf_archive_run *run)
{
    uint64_t moved_ns = run->moved_ns;
    while (run->status == WEFT_PENDING && run->next < run->count && write_step(run, run->next))
        run->next++;
    if (run->status != WEFT_PENDING || run->in_flight)
        return;
    run->moved_ns = moved_ns; /* what was only tried moved nothing */
    if (run->next < run->count) {
        if (wf_now_ns() - run->moved_ns > STALLED_NS)
            fail(run, wf_fail(WEFT_FULL,
                              "tier %s has no room for the archive, and nothing there may go; "
                              "enlarge it or remove archives",
                              run->to->config->name));
        return;
    }
    run->next = 0;
    if (!run->again) {
        WF_CRASH("archive.written");
        run->phase = FLUSH;
        return;
    }
    run->again = false;
    if (++run->round > ROUNDS)
        fail(run, wf_fail(WEFT_FULL,
                          "tier %s does not take all of the chain's blocks, or does not keep them; "
                          "enlarge it or remove archives",
                          run->to->config->name));
}

/* --------------------------------------------------------------------------- flushed, read back */

static void job_done(struct wf_mover_job *job)
{
    struct wf_archive_run *run = job->owner;
    enum weft_status status = job->job.request.status;
    run->in_flight--;
    run->moved_ns = wf_now_ns();
    if (run->phase == MANIFEST && (status == WEFT_OK || status == WEFT_EXISTS)) {
        run->manifest_there = status == WEFT_OK;
        run->unflushed = (uint8_t)(1u << run->to->number);
        run->phase = SETTLE;
    } else if (run->phase == CHECK &&
               (status == WEFT_OK || status == WEFT_MISS || status == WEFT_E_CORRUPT)) {
        if (status != WEFT_OK)
            fail(run, wf_fail(WEFT_E_CORRUPT, "tier %s did not keep the archive's manifest",
                              run->to->config->name));
        else
            WF_CRASH("archive.manifest");
        run->next = run->count;
    } else if (status == WEFT_OK) {
        run->unflushed &= (uint8_t) ~(1u << run->job_at->number);
    } else if (status == WEFT_FULL) {
        fail(run, wf_fail(status, "tier %s has no room for the archive's manifest",
                          run->to->config->name));
    } else {
        if (status > 0)
            wf_fail_keep("tier %s could not be flushed", run->job_at->config->name);
        fail(run, status < 0 ? status : WEFT_E_SYSTEM);
    }
    advance(run);
}

static void job_submit(struct wf_archive_run *run, struct wf_lower *at, enum wf_mover_kind kind)
{
    run->job.kind = kind;
    run->job.done = job_done;
    run->job.owner = run;
    run->job.job.class = WF_TIER_DEMOTE;
    run->job_at = at;
    enum weft_status status = wf_mover_submit(at->mover, &run->job);
    if (status == WEFT_OK)
        run->in_flight++;
    else if (status < 0)
        fail(run, status); /* PENDING: at the next tick */
}

/* Flush the next tier that has some of the chain. */
static void flush(struct wf_archive_run *run, enum phase then)
{
    if (!run->unflushed) {
        run->phase = then;
        run->next = 0;
        if (then == VERIFY)
            WF_CRASH("archive.flushed");
        return;
    }
    memset(&run->job, 0, sizeof run->job);
    job_submit(run, &run->archives->below->tiers[__builtin_ctz(run->unflushed)], WF_MOVE_FLUSH);
}

/* What is to be flushed: every tier that an archive's block counts on. */
static void flush_what(struct wf_archive_run *run)
{
    uint8_t tiers = wf_archive_tiers(run->archives->below);
    run->unflushed = 0;
    run->bytes = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        struct wf_directory_block block;
        step_hold(run, &run->steps[i], &block);
        if (!(block.tiers & tiers)) {
            run->phase = WRITE;
            return;
        }
        run->unflushed |= block.tiers & tiers;
        run->bytes += block.bytes;
    }
}

static void verified(struct wf_mover_job *job)
{
    struct task *task = (struct task *)job;
    struct wf_archive_run *run = task->run;
    struct step *step = &run->steps[task->step];
    enum weft_status status = job->job.request.status;
    if (status == WEFT_OK) {
        step->verify = false;
    } else if (status == WEFT_E_CORRUPT || status == WEFT_MISS) {
        wf_telemetry_event(run->archives->below->node, run->domain, "corrupt",
                           "block %02x%02x%02x%02x… was written to tier %s and did not come back "
                           "right; that copy was dropped",
                           step->key[0], step->key[1], step->key[2], step->key[3],
                           task->at->config->name);
        wf_lower_lost(task->at, step->key);
        run->again = true;
    } else {
        fail(run, status < 0 ? status
                             : wf_fail(WEFT_E_SYSTEM, "tier %s could not be read",
                                       task->at->config->name));
    }
    task_put(task);
    advance(run);
}

static void verify_steps(struct wf_archive_run *run)
{
    struct wf_below *below = run->archives->below;
    uint8_t tiers = wf_archive_tiers(below);
    for (; run->next < run->count && run->in_flight < WF_ARCHIVE_JOBS_MAX; run->next++) {
        struct step *step = &run->steps[run->next];
        struct wf_directory_block block;
        if (!step->verify)
            continue;
        step_hold(run, step, &block);
        if (!(block.tiers & tiers)) {
            run->again = true;
            continue;
        }
        struct task *task = task_get(run, run->next);
        bool on_to = block.tiers >> run->to->number & 1;
        if (!task)
            return;
        task->at = on_to ? run->to : &below->tiers[__builtin_ctz(block.tiers & tiers)];
        task->job.kind = WF_MOVE_VERIFY;
        task->job.done = verified;
        task->job.job.class = WF_TIER_DEMOTE;
        memcpy(task->job.job.request.block.key, step->key, 32);
        if (wf_mover_submit(task->at->mover, &task->job) != WEFT_OK) {
            task_put(task);
            return;
        }
    }
    if (run->in_flight || run->next < run->count || run->status != WEFT_PENDING)
        return;
    run->next = 0;
    run->phase = run->again ? WRITE : MANIFEST;
    if (run->again && ++run->round > ROUNDS)
        fail(run, wf_fail(WEFT_E_CORRUPT, "tier %s does not give back what was written to it",
                          run->to->config->name));
    run->again = false;
}

/* --------------------------------------------------------------------------------- the manifest */

static uint64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static bool manifest_make(struct wf_archive_run *run)
{
    struct wf_manifest manifest = {
        .created_ms = unix_ms(),
        .payload_bytes = run->bytes,
        .blocks = run->count,
        .format = run->format,
    };
    const struct wf_archive_kept *old = wf_archive_find(run->archives, run->domain, run->name);
    if (old && old->created_ms >= manifest.created_ms) /* a clock that went back */
        manifest.created_ms = old->created_ms + 1;
    size_t room = (WF_ARCHIVE_BYTES_MAX + WF_TIER_ALIGN - 1) / WF_TIER_ALIGN * WF_TIER_ALIGN;
    run->manifest = aligned_alloc(WF_TIER_ALIGN, room);
    if (!run->manifest) {
        fail(run, wf_fail(WEFT_E_NO_MEMORY, "out of memory for an archive's manifest"));
        return false;
    }
    memset(run->manifest, 0, room);
    memcpy(manifest.name, run->name, sizeof manifest.name);
    memcpy(manifest.domain, run->domain->tag, sizeof manifest.domain);
    memcpy(manifest.tip, run->tip, sizeof manifest.tip);
    run->manifest_bytes = wf_manifest_write(&manifest, run->manifest);
    return true;
}

/* A manifest of the same name and chain that is there already and readable says the same: then the
 * tier's WEFT_EXISTS is as good, and that one is read back. */
static void manifest_write(struct wf_archive_run *run)
{
    struct wf_archives *archives = run->archives;
    struct wf_tier_block *block = &run->job.job.request.block;
    uint8_t key[32];
    wf_manifest_key(run->domain->tag, run->name, run->tip, key);
    const struct wf_archive_kept *old = wf_archive_find(archives, run->domain, run->name);
    bool known = old && old->lower == run->to && memcmp(old->key, key, 32) == 0;
    if (!run->manifest) {
        if (!manifest_make(run))
            return;
        if (known) { /* it stays as it is */
            memcpy(run->manifest, old->raw, old->raw_bytes);
            run->manifest_bytes = old->raw_bytes;
        } else { /* one that cannot be read makes room first */
            wf_lower_remove(run->to, key);
        }
    }
    if (!wf_lower_quiet(run->to) || !wf_lower_room(run->to, run->manifest_bytes)) {
        if (wf_now_ns() - run->moved_ns > STALLED_NS)
            fail(run, wf_fail(WEFT_FULL, "tier %s has no room for the archive's manifest",
                              run->to->config->name));
        return;
    }
    memset(&run->job, 0, sizeof run->job);
    memcpy(block->key, key, 32);
    memcpy(block->parent, run->domain->tag, 32);
    memcpy(block->format, archives->tag, 32);
    block->bytes = run->manifest_bytes;
    block->part_bytes = wf_below_part_bytes(block->bytes);
    run->job.job.request.data = run->manifest;
    job_submit(run, run->to, WF_MOVE_WRITE);
}

static void manifest_check(struct wf_archive_run *run)
{
    memset(&run->job, 0, sizeof run->job);
    wf_manifest_key(run->domain->tag, run->name, run->tip, run->job.job.request.block.key);
    job_submit(run, run->to, WF_MOVE_VERIFY);
}

/* Do what can be done now.  Called whenever something ended, and at every tick. */
static void advance(struct wf_archive_run *run)
{
    if (run->archives->below->stopping)
        fail(run, wf_fail(WEFT_E_NODE, "the node stops"));
    for (;;) {
        enum phase phase = run->phase;
        uint32_t round = run->round;
        bool done = phase == CHECK && run->next == run->count;
        if (run->status != WEFT_PENDING || done) {
            if (run->in_flight == 0)
                end(run);
            return;
        }
        if (run->in_flight && phase != WRITE && phase != VERIFY)
            return;
        switch (phase) {
        case WRITE:
            write_steps(run);
            if (run->phase == FLUSH)
                flush_what(run);
            break;
        case FLUSH: flush(run, VERIFY); break;
        case VERIFY: verify_steps(run); break;
        case MANIFEST: manifest_write(run); break;
        case SETTLE: flush(run, CHECK); break;
        case CHECK: manifest_check(run); break;
        case UNUSED:
        case ENDED: return;
        }
        if (run->status == WEFT_PENDING && run->phase == phase && run->round == round)
            return;
    }
}

void wf_archive_runs_tick(struct wf_archives *archives)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (active(run))
            advance(run);
        else if (run->phase == ENDED && wf_now_ns() - run->moved_ns > RESULT_NS)
            run->phase = UNUSED;
    }
}

/* ------------------------------------------------------------------------------------ its begin */

/* The chain's keys from its root to its tip, and its deepest block in DRAM. */
static enum weft_status chain_find(struct wf_archive_run *run)
{
    struct wf_directory *directory = run->archives->below->directory;
    struct wf_store *store = &run->domain->store;
    struct wf_directory_block block;
    uint32_t count = 0, entry = WF_DIRECTORY_NONE;
    uint32_t slot = wf_store_find(store, run->tip);
    if (slot == WF_SLOT_NONE)
        entry = wf_directory_find(directory, run->tip);
    if (entry != WF_DIRECTORY_NONE) {
        wf_directory_read(directory, entry, &block);
        count = block.domain == run->domain->id ? block.depth + 1 : 0;
    } else if (slot != WF_SLOT_NONE) {
        count = wf_word_depth(
                    atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed)) +
                1;
    }
    if (count == 0)
        return wf_fail(
            WEFT_E_NOT_FOUND,
            "the chain's last block is neither in DRAM nor on a tier; it was evicted, or "
            "never put here");
    if (count > WF_ARCHIVE_BLOCKS_MAX)
        return wf_fail(WEFT_E_LIMIT, "a chain of %u blocks; an archive may have %u", count,
                       WF_ARCHIVE_BLOCKS_MAX);
    run->steps = wf_calloc(count, sizeof *run->steps, "an archive's chain");
    if (!run->steps)
        return WEFT_E_NO_MEMORY;
    run->count = count;
    for (uint32_t i = 0; i < count; i++)
        run->steps[i].entry = WF_DIRECTORY_NONE;
    uint32_t at = count;
    for (; at && entry != WF_DIRECTORY_NONE; at--) {
        wf_directory_read(directory, entry, &block);
        slot = wf_store_find(store, block.key);
        if (slot != WF_SLOT_NONE)
            break;
        memcpy(run->steps[at - 1].key, block.key, 32);
        entry = block.parent;
    }
    if (slot != WF_SLOT_NONE) {
        wf_store_hold(store, slot);
        run->slot = slot;
    }
    for (; at && slot != WF_SLOT_NONE; at--) {
        wf_desc_key_read(&store->index.desc[slot], run->steps[at - 1].key);
        slot = atomic_load_explicit(&store->index.desc[slot].parent, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < count && !at; i++)
        step_hold(run, &run->steps[i], &block);
    return at ? wf_fail(WEFT_E_NOT_FOUND, "the chain's first %u blocks are not there", at)
              : WEFT_OK;
}

/* Where it goes: the nearest tier that may hold archives and has the room for what is not on one.
 */
static enum weft_status tier_choose(struct wf_archive_run *run)
{
    struct wf_below *below = run->archives->below;
    uint8_t tiers = wf_archive_tiers(below);
    uint64_t needed = WF_ARCHIVE_BYTES_MAX, most = 0;
    const char *name = "";
    if (!tiers)
        return wf_fail(WEFT_E_INVALID,
                       "the node has no tier that may hold archives; give it one that is durable "
                       "and has archive: true in `tiers`");
    for (uint32_t i = 0; i < run->count; i++) {
        struct wf_directory_block block;
        step_hold(run, &run->steps[i], &block);
        uint32_t slot = wf_store_find(&run->domain->store, run->steps[i].key);
        if (!(block.tiers & tiers))
            needed += slot == WF_SLOT_NONE
                          ? block.bytes
                          : atomic_load_explicit(&run->domain->store.index.desc[slot].bytes,
                                                 memory_order_relaxed);
    }
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[below->order[i]];
        struct wf_directory_sum sum;
        if (!(tiers >> lower->number & 1) || !wf_lower_usable(lower))
            continue;
        wf_directory_sum(below->directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
        uint64_t capacity = wf_lower_most_bytes(lower);
        uint64_t taken = sum.archived_bytes + lower->aside_bytes;
        uint64_t left = capacity > taken ? capacity - taken : 0;
        if (left >= needed) {
            run->to = lower;
            return WEFT_OK;
        }
        most = left > most ? left : most;
        name = lower->config->name;
    }
    if (!name[0])
        return wf_fail(WEFT_E_SYSTEM, "no tier that may hold archives works now; see `weft status` "
                                      "and the node's log");
    return wf_fail(WEFT_FULL,
                   "the archive needs %llu bytes, and beside other archives tier %s has room for "
                   "%llu; enlarge it or remove archives",
                   (unsigned long long)needed, name, (unsigned long long)most);
}

static struct wf_archive_run *run_take(struct wf_archives *archives)
{
    struct wf_archive_run *oldest = NULL;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (run->phase == UNUSED)
            return run;
        if (run->phase == ENDED && (!oldest || run->moved_ns < oldest->moved_ns))
            oldest = run;
    }
    return oldest;
}

static void begin(struct wf_archive_run *run, struct wf_client *client,
                  const struct wf_archive *request)
{
    struct wf_archives *archives = run->archives;
    *run = (struct wf_archive_run){
        .archives = archives,
        .domain = client->domain,
        .phase = WRITE,
        .slot = WF_SLOT_NONE,
        .moved_ns = wf_now_ns(),
        .format = *client->node->formats[request->format].request,
        .status = WEFT_PENDING,
    };
    memcpy(run->name, request->name, strlen(request->name) + 1);
    memcpy(run->tip, request->tip, sizeof run->tip);
    enum weft_status status = chain_find(run);
    if (status == WEFT_OK)
        status = tier_choose(run);
    if (status == WEFT_OK && archives->count == WF_ARCHIVES_MAX &&
        !wf_archive_find(archives, run->domain, run->name))
        status = wf_fail(WEFT_E_LIMIT,
                         "the node keeps %u archives, which is all that it may; remove some",
                         archives->count);
    if (status != WEFT_OK)
        fail(run, status);
    advance(run);
}

/* ---------------------------------------------------------------------------- asked by a client */

static enum weft_status request_check(const struct wf_client *client,
                                      const struct wf_archive *request)
{
    const struct wf_node *node = client->node;
    if (!memchr(request->name, 0, sizeof request->name))
        return wf_fail(WEFT_E_PROTOCOL, "ARCHIVE: a name without an end");
    if (!request->name[0])
        return wf_fail(WEFT_E_INVALID, "an archive needs a name");
    enum weft_status status = wf_text_check("an archive's name", request->name, WF_ARCHIVE_NAME_MAX,
                                            false);
    if (status != WEFT_OK)
        return status;
    if (!node->below)
        return wf_fail(WEFT_E_INVALID, "the node has no tier that may hold archives; name one in "
                                       "`tiers`, durable and with archive: true");
    if (!(request->flags & WF_ARCHIVE_REMOVE) &&
        (request->format >= node->format_count ||
         node->formats[request->format].domain != client->domain->id))
        return wf_fail(WEFT_E_INVALID, "format %u is not registered in this domain",
                       request->format);
    return WEFT_OK;
}

static void answer(struct wf_client *client, const struct wf_archive *request,
                   enum weft_status status, uint32_t blocks, uint32_t written_blocks,
                   uint64_t bytes, const char *tier, const char *sentence)
{
    struct wf_archive_answer *out = (struct wf_archive_answer *)(void *)client->node->answer;
    memset(out, 0, sizeof *out);
    out->blocks = blocks;
    out->written = written_blocks;
    out->bytes = bytes;
    memcpy(out->name, request->name, strlen(request->name));
    memcpy(out->tier, tier, strnlen(tier, sizeof out->tier - 1));
    memcpy(out->sentence, sentence, strnlen(sentence, sizeof out->sentence - 1));
    wf_answer(client, &request->message, status, sizeof *out, NULL, 0);
}

static void remove_one(struct wf_client *client, const struct wf_archive *request)
{
    struct wf_archives *archives = client->node->below->archives;
    struct wf_archive_kept *kept = wf_archive_find(archives, client->domain, request->name);
    if (!kept) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_NOT_FOUND, "there is no archive '%s'", request->name));
        return;
    }
    uint32_t blocks = kept->blocks;
    uint64_t bytes = kept->bytes;
    const char *tier = kept->lower->config->name;
    wf_archive_drop(archives, kept);
    answer(client, request, WEFT_OK, blocks, 0, bytes, tier, "");
}

/* The run of this archive: under way, or ended and its result not taken. */
static struct wf_archive_run *run_of(struct wf_archives *archives, const struct wf_domain *domain,
                                     const char *name)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (run->phase != UNUSED && run->domain == domain && strcmp(run->name, name) == 0)
            return run;
    }
    return NULL;
}

static void result_give(struct wf_client *client, const struct wf_archive *request,
                        struct wf_archive_run *run)
{
    if (run->status < 0) {
        wf_fail_keep("%s", run->sentence);
        wf_answer_failure(client, &request->message, run->status);
    } else {
        answer(client, request, run->status, run->count, run->written, run->bytes,
               run->to ? run->to->config->name : "", run->sentence);
    }
    run->phase = UNUSED;
}

void wf_handle_archive(struct wf_client *client, const struct wf_archive *request)
{
    enum weft_status status = request_check(client, request);
    if (status != WEFT_OK) {
        wf_answer_failure(client, &request->message, status);
        return;
    }
    if (request->flags & WF_ARCHIVE_REMOVE) {
        remove_one(client, request);
        return;
    }
    struct wf_archives *archives = client->node->below->archives;
    struct wf_archive_run *run = run_of(archives, client->domain, request->name);
    struct wf_archive_kept *kept = wf_archive_find(archives, client->domain, request->name);
    bool same = run && memcmp(run->tip, request->tip, sizeof run->tip) == 0;
    if (run && !same && active(run)) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_BUSY,
                                  "archive '%s' is being made of another chain; wait for that",
                                  request->name));
        return;
    }
    if (!run && kept && memcmp(kept->tip, request->tip, sizeof kept->tip) == 0) {
        wf_archive_check(archives, kept);
        if (kept->whole) { /* as it was asked for */
            answer(client, request, WEFT_OK, kept->blocks, 0, kept->bytes,
                   kept->lower->config->name, "");
            return;
        }
    }
    if (run && !same)
        run->phase = UNUSED; /* nobody will ask for that result */
    if (!same) {
        run = wf_archives_settled(archives->below) ? run_take(archives) : NULL;
        if (run)
            begin(run, client, request);
    }
    if (run && run->phase == ENDED)
        result_give(client, request, run);
    else if (!wf_client_park(client, &request->message, PARK_NS))
        answer(client, request, WEFT_PENDING, run ? run->count : 0, run ? run->written : 0,
               run ? run->bytes : 0, run && run->to ? run->to->config->name : "", "");
}
