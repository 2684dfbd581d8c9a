/* SPDX-License-Identifier: Apache-2.0
 *
 * How an archive is made.
 *
 *     WRITE ───► FLUSH ───► VERIFY ───► MANIFEST ───► SETTLE ───► CHECK ───► kept
 *       ▲ blocks   tiers      read │      written      flushed     read back
 *       └──────────────────────────┘ what did not come back right is written once more
 *
 * A run begins anew when a tier lost one of its blocks after they were flushed.
 *
 * From its begin to its end a run holds the deepest block of the chain that is in DRAM, and with it
 * all before that, and the directory's entry of every block that is below: what it found or wrote
 * is no victim of anyone.  At its end all that is let go again; what stays is the archive, or
 * nothing.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hooks.h"
#include "base/log.h"
#include "base/size.h"
#include "daemon/archive_run.h"
#include "daemon/profiles.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define ROUNDS 3u
#define HURRY_NS 500000000u     /* nothing moved for so long: another tier may have room, */
#define STALLED_NS 10000000000u /* and for so long: all are full */
#define RESULT_NS 600000000000u /* a result that nobody took is forgotten */

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

bool wf_archive_active(const struct wf_archive_run *run)
{
    return run->phase != WF_ARCHIVE_UNUSED && run->phase != WF_ARCHIVE_ENDED;
}

uint32_t wf_archive_runs_busy(const struct wf_archives *archives)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++)
        busy += wf_archive_active(&archives->runs[i]);
    return busy;
}

/* -------------------------------------------------------------------------------------- its end */

/* It has failed; it ends when what is in flight has come back.  The first reason counts. */
void wf_archive_fail(struct wf_archive_run *run, enum weft_status status)
{
    if (run->status != WEFT_PENDING)
        return;
    run->status = status;
    memcpy(run->sentence, wf_last_error(), strnlen(wf_last_error(), WF_ERROR_MAX - 1) + 1);
    run->sentence[WF_ERROR_MAX - 1] = '\0';
}

/* Others leave so much of the room that comes free to this run, instead of what it had claimed.
 * Under load there would be none left whenever it looks. */
static void claim(struct wf_archive_run *run, uint64_t bytes)
{
    if (!run->to)
        return;
    run->to->claimed_bytes += bytes - run->claimed;
    run->claimed = bytes;
}

static void let_go(struct wf_archive_run *run)
{
    claim(run, 0);
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

/* Blocks that were durable before stay where they were, on whichever tier that is. */
static void done_say(const struct wf_archive_run *run, const struct wf_archive_kept *kept)
{
    const struct wf_below *below = run->archives->below;
    unsigned on = kept ? wf_archive_on(kept) : 1u << run->to->number;
    char names[WF_TIERS_MAX * (WF_TIER_NAME_MAX + 2) + 1] = "";
    char size[32];
    size_t used = 0;
    for (uint32_t i = 0; i < below->count && used < sizeof names; i++)
        if (on >> i & 1)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                                     below->tiers[i].config->name);
    wf_telemetry_event(below->node, run->domain, "archive",
                       "archive %.64s: %u blocks, %s, are durable on %.100s", run->name, run->count,
                       wf_size_format(run->bytes, size, sizeof size), names);
}

/* What came of it: the one of its name and its chain that has its manifest there. */
static struct wf_archive_kept *run_kept(const struct wf_archive_run *run)
{
    const struct wf_archives *archives = run->archives;
    uint8_t key[32];
    wf_manifest_key(run->domain->tag, run->name, run->tip, key);
    for (uint32_t i = 0; i < archives->count; i++)
        if (archives->kept[i]->lower == run->to && memcmp(archives->kept[i]->key, key, 32) == 0)
            return archives->kept[i];
    return NULL;
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
        wf_archive_undo(run->archives, run->to, key);
    }
    struct wf_archive_kept *kept = run->status == WEFT_OK ? run_kept(run) : NULL;
    if (kept) {
        kept->durable = kept->whole;
        wf_archive_alone(run->archives, kept);
        for (uint32_t i = 0; i < node->below->count; i++) /* before anybody hears of it */
            wf_volume_tick(&node->below->tiers[i]);
    }
    if (run->status == WEFT_OK)
        done_say(run, kept);
    else
        wf_warn("archive", "%s of domain %s: %s", run->name, run->domain->config->name,
                run->sentence);
    let_go(run);
    run->phase = WF_ARCHIVE_ENDED;
    run->moved_ns = wf_now_ns();
    wf_clients_unpark(node);
}

bool wf_archive_takes(const struct wf_domain *domain, const uint8_t key[32])
{
    const struct wf_below *below = domain->node->below;
    for (uint32_t i = 0; below && i < WF_ARCHIVE_RUNS_MAX; i++) {
        const struct wf_archive_run *run = &below->archives->runs[i];
        if (run->domain != domain || !wf_archive_active(run) || !run->steps)
            continue;
        for (uint32_t step = 0; step < run->count; step++)
            if (memcmp(run->steps[step].key, key, 32) == 0)
                return true;
    }
    return false;
}

/* ----------------------------------------------------------------------------------- the blocks */

static struct wf_archive_task *task_get(struct wf_archive_run *run, uint32_t step)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_JOBS_MAX; i++) {
        struct wf_archive_task *task = &run->tasks[i];
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

static void task_put(struct wf_archive_task *task)
{
    task->busy = false;
    task->run->in_flight--;
    task->run->moved_ns = wf_now_ns();
}

/* Hold the entry that a block has by now. */
void wf_archive_step_hold(struct wf_archive_run *run, struct wf_archive_step *step,
                          struct wf_directory_block *out)
{
    struct wf_directory *directory = run->archives->below->directory;
    *out = (struct wf_directory_block){.tiers = 0};
    if (step->entry != WF_DIRECTORY_NONE) {
        wf_directory_read(directory, step->entry, out);
        if (out->tiers || out->in_dram)
            return;
        wf_directory_unhold(directory, step->entry); /* it went all the same */
    }
    (void)wf_below_replace(run->domain, step->key); /* what is held is not replaced any more */
    step->entry = wf_below_find(run->domain, step->key);
    if (step->entry == WF_DIRECTORY_NONE)
        return;
    wf_directory_read(directory, step->entry, out);
    wf_directory_hold(directory, step->entry);
}

static void written(void *context, enum weft_status status)
{
    struct wf_archive_task *task = context;
    struct wf_archive_run *run = task->run;
    struct wf_archive_step *step = &run->steps[task->step];
    struct wf_directory_block block;
    if (status == WEFT_OK || status == WEFT_EXISTS) {
        step->verify = true;
        wf_archive_step_hold(run, step, &block);
        run->written += status == WEFT_OK;
    } else if (status == WEFT_FULL) {
        run->refused = true;
    } else if (status < 0 && status != WEFT_E_CORRUPT) {
        wf_archive_fail(run, status);
    }
    run->again = true; /* look at all of them once more */
    task_put(task);
    wf_archive_advance(run);
}

/* Where it is that an archive may count on.  Nowhere, if what is there cannot be read for want of
 * its profile and the block was put anew: that takes its place. */
uint8_t wf_archive_step_there(const struct wf_archive_run *run, const struct wf_archive_step *step,
                              const struct wf_directory_block *block)
{
    const struct wf_store *store = &run->domain->store;
    uint32_t slot = wf_store_find(store, step->key);
    bool anew = slot != WF_SLOT_NONE && wf_store_quality(store, slot) == WEFT_LOSSLESS;
    return anew && wf_below_makes_way(block)
               ? 0
               : block->tiers & wf_archive_tiers(run->archives->below);
}

/* It lies there with loss, and what DRAM has did not come from there: can it be read at all? */
static bool is_doubtful(const struct wf_archive_run *run, const struct wf_archive_step *step,
                        const struct wf_directory_block *block)
{
    uint32_t slot = wf_store_find(&run->domain->store, step->key);
    return slot != WF_SLOT_NONE && block->qualities && !run->domain->profile_of[slot];
}

/* True: this block is done with, or on its way. */
static bool write_step(struct wf_archive_run *run, uint32_t at)
{
    struct wf_below *below = run->archives->below;
    struct wf_archive_step *step = &run->steps[at];
    struct wf_directory_block block;
    wf_archive_step_hold(run, step, &block);
    if (block.tiers && !block.fit) {
        wf_archive_fail(run,
                        wf_fail(WEFT_E_BUSY,
                                "block %u of the chain lies below less exact than its domain asks "
                                "since, and an archive that was made before keeps it there; let "
                                "that go (weft session rm), or let the domain's `quality` allow it",
                                at));
        return true;
    }
    if (wf_archive_step_there(run, step, &block)) {
        step->verify |= block.archives == 0 || run->doubted || is_doubtful(run, step, &block);
        return true;
    }
    uint32_t slot = wf_store_find(&run->domain->store, step->key);
    if (slot == WF_SLOT_NONE && !block.tiers) {
        wf_archive_fail(run, wf_fail(WEFT_E_NOT_FOUND,
                                     "block %u of the chain went while it was archived", at));
        return true;
    }
    uint64_t bytes = slot != WF_SLOT_NONE
                         ? atomic_load_explicit(&run->domain->store.index.desc[slot].bytes,
                                                memory_order_relaxed)
                         : block.bytes;
    if (!wf_lower_room_claimed(run->to, run->domain, bytes)) {
        uint32_t left = run->count - at;
        claim(run, bytes * (left < WF_ARCHIVE_JOBS_MAX ? left : WF_ARCHIVE_JOBS_MAX));
        return false;
    }
    /* What came from below with loss lies there as what it is, as long as it is there. */
    unsigned from = block.fit ? block.fit : block.tiers;
    bool lossy = slot != WF_SLOT_NONE &&
                 wf_store_quality(&run->domain->store, slot) > WEFT_LOSSLESS;
    bool lower_has = slot == WF_SLOT_NONE || (lossy && from);
    struct wf_coded_plan plan;
    if (!lower_has && wf_coding_plan_slot(run->to, run->domain, slot, &plan) == WF_CODING_NOT) {
        wf_archive_fail(run,
                        wf_fail(WEFT_E_NOT_FOUND,
                                "block %u of the chain was stored with loss before, is on no "
                                "tier here, and no profile here fits it, by which it could be; "
                                "put the profile into the folder of profiles, or put the "
                                "chain anew",
                                at));
        return true;
    }
    struct wf_archive_task *task = task_get(run, at);
    struct wf_ended ended = {.call = written, .context = task};
    if (!task)
        return false;
    bool begun = !lower_has ? wf_demote_to(run->domain, slot, run->to, &ended)
                            : wf_copy_down(&below->tiers[__builtin_ctz(from)], run->to, step->entry,
                                           &ended);
    if (!begun)
        task_put(task);
    else
        run->again = true;
    return begun;
}

/* To another tier than the one that it was to be written to; what is there already counts.  False:
 * there is none that has the room. */
static bool go_elsewhere(struct wf_archive_run *run)
{
    struct wf_lower *full = run->to;
    uint64_t claimed = run->claimed;
    claim(run, 0);
    run->tried |= (uint8_t)(1u << full->number);
    if (wf_archive_tier_choose(run) != WEFT_OK) {
        run->to = full;
        run->tried &= (uint8_t) ~(1u << full->number);
        claim(run, claimed);
        return false;
    }
    free(run->manifest); /* which may know the one of that tier */
    run->manifest = NULL;
    run->next = 0;
    run->refused = false;
    run->moved_ns = wf_now_ns();
    return true;
}

/* The tier has no room after all, as what may go there does not: another may have. */
static bool try_another(struct wf_archive_run *run)
{
    uint64_t waited_ns = wf_now_ns() - run->moved_ns;
    return waited_ns <= HURRY_NS || go_elsewhere(run) || waited_ns <= STALLED_NS;
}

/* Round after round some of it was not written. */
static void not_taken(struct wf_archive_run *run)
{
    const char *name = run->to->config->name;
    if (run->refused && go_elsewhere(run)) {
        run->round = 0;
        return;
    }
    wf_archive_fail(run,
                    run->refused
                        ? wf_fail(WEFT_FULL,
                                  "tier %s is full, though by its size it has room: make room on "
                                  "its file system, enlarge it or remove archives",
                                  name)
                        : wf_fail(WEFT_FULL,
                                  "tier %s does not take all of the chain's blocks, or does not "
                                  "keep them; enlarge it or remove archives",
                                  name));
}

static void write_steps(struct wf_archive_run *run)
{
    uint64_t moved_ns = run->moved_ns;
    claim(run, 0);
    while (run->status == WEFT_PENDING && run->next < run->count && write_step(run, run->next))
        run->next++;
    if (run->status != WEFT_PENDING || run->in_flight)
        return;
    run->moved_ns = moved_ns; /* what was only tried moved nothing */
    if (run->next < run->count) {
        if (!try_another(run))
            wf_archive_fail(
                run, wf_fail(WEFT_FULL,
                             "tier %s has no room for the archive, and nothing there may go; "
                             "enlarge it or remove archives",
                             run->to->config->name));
        return;
    }
    run->next = 0;
    if (!run->again) {
        WF_CRASH("archive.written");
        run->phase = WF_ARCHIVE_FLUSH;
        return;
    }
    run->again = false;
    if (++run->round > ROUNDS)
        not_taken(run);
}

/* --------------------------------------------------------------------------- flushed, read back */

static void job_done(struct wf_mover_job *job)
{
    struct wf_archive_run *run = job->owner;
    enum weft_status status = job->job.request.status;
    run->in_flight--;
    run->moved_ns = wf_now_ns();
    if (run->phase == WF_ARCHIVE_MANIFEST && (status == WEFT_OK || status == WEFT_EXISTS)) {
        run->manifest_there |= status == WEFT_OK;
        run->unflushed = (uint8_t)(1u << run->to->number);
        run->phase = WF_ARCHIVE_SETTLE;
    } else if (run->phase == WF_ARCHIVE_CHECK &&
               (status == WEFT_OK || status == WEFT_MISS || status == WEFT_E_CORRUPT)) {
        if (status != WEFT_OK)
            wf_archive_fail(run,
                            wf_fail(WEFT_E_CORRUPT, "tier %s did not keep the archive's manifest",
                                    run->to->config->name));
        else
            WF_CRASH("archive.manifest");
        run->next = run->count;
    } else if (status == WEFT_OK) {
        run->unflushed &= (uint8_t) ~(1u << run->job_at->number);
    } else if (status == WEFT_FULL) {
        wf_archive_fail(run, wf_fail(status, "tier %s has no room for the archive's manifest",
                                     run->to->config->name));
    } else {
        if (status > 0)
            wf_fail_keep("tier %s could not be flushed", run->job_at->config->name);
        wf_archive_fail(run, status < 0 ? status : WEFT_E_SYSTEM);
    }
    wf_archive_advance(run);
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
        wf_archive_fail(run, status); /* PENDING: at the next tick */
}

/* Flush the next tier that has some of the chain. */
static void flush(struct wf_archive_run *run, enum wf_archive_phase then)
{
    if (!run->unflushed) {
        run->phase = then;
        run->next = 0;
        if (then == WF_ARCHIVE_VERIFY)
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
    run->missed = false;
    run->unflushed = 0;
    run->bytes = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        struct wf_directory_block block;
        wf_archive_step_hold(run, &run->steps[i], &block);
        if (!(block.tiers & tiers)) {
            run->phase = WF_ARCHIVE_WRITE;
            return;
        }
        run->unflushed |= block.tiers & tiers;
        run->bytes += block.bytes;
    }
}

/* It is whole, but stored by a profile that is not here.  True: it was put anew, which is to take
 * its place. */
static bool is_to_be_replaced(struct wf_archive_run *run, struct wf_archive_step *step, uint64_t id)
{
    struct wf_directory_block block;
    if (!id || wf_profiles_by_id(run->archives->below->node->profiles, id))
        return false;
    wf_below_unread(run->domain, step->key);
    wf_archive_step_hold(run, step, &block);
    return !wf_archive_step_there(run, step, &block);
}

static void verified(struct wf_mover_job *job)
{
    struct wf_archive_task *task = (struct wf_archive_task *)job;
    struct wf_archive_run *run = task->run;
    struct wf_archive_step *step = &run->steps[task->step];
    enum weft_status status = job->job.request.status;
    if (status == WEFT_OK) {
        step->verify = false;
        run->again |= is_to_be_replaced(run, step, job->job.request.profile);
    } else if (status == WEFT_E_CORRUPT || status == WEFT_MISS) {
        wf_telemetry_event(run->archives->below->node, run->domain, "corrupt",
                           "block %02x%02x%02x%02x… was written to tier %s and did not come back "
                           "right; that copy was dropped",
                           step->key[0], step->key[1], step->key[2], step->key[3],
                           task->at->config->name);
        wf_lower_lost(task->at, run->domain, step->key, status);
        run->again = true;
    } else {
        wf_archive_fail(run, status < 0 ? status
                                        : wf_fail(WEFT_E_SYSTEM, "tier %s could not be read",
                                                  task->at->config->name));
    }
    task_put(task);
    wf_archive_advance(run);
}

static void verify_steps(struct wf_archive_run *run)
{
    struct wf_below *below = run->archives->below;
    uint8_t tiers = wf_archive_tiers(below);
    for (; run->next < run->count && run->in_flight < WF_ARCHIVE_JOBS_MAX; run->next++) {
        struct wf_archive_step *step = &run->steps[run->next];
        struct wf_directory_block block;
        if (!step->verify)
            continue;
        wf_archive_step_hold(run, step, &block);
        if (!(block.tiers & tiers)) {
            run->again = true;
            continue;
        }
        struct wf_archive_task *task = task_get(run, run->next);
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
    run->phase = run->again ? WF_ARCHIVE_WRITE : WF_ARCHIVE_MANIFEST;
    if (run->again && ++run->round > ROUNDS)
        wf_archive_fail(run,
                        wf_fail(WEFT_E_CORRUPT, "tier %s does not give back what was written to it",
                                run->to->config->name));
    run->again = false;
}

/* --------------------------------------------------------------------------------- the manifest */

static bool manifest_make(struct wf_archive_run *run)
{
    struct wf_manifest manifest = {
        .created_ms = (uint64_t)wf_unix_ms(),
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
        wf_archive_fail(run, wf_fail(WEFT_E_NO_MEMORY, "out of memory for an archive's manifest"));
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
    if (!wf_lower_quiet(run->to) ||
        !wf_lower_room_claimed(run->to, run->domain, run->manifest_bytes)) {
        claim(run, run->manifest_bytes);
        if (!try_another(run))
            wf_archive_fail(run,
                            wf_fail(WEFT_FULL, "tier %s has no room for the archive's manifest",
                                    run->to->config->name));
        return;
    }
    claim(run, 0);
    wf_archive_redo(archives, run->to, key);
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

void wf_archive_missed(struct wf_below *below, const struct wf_domain *domain, uint32_t entry)
{
    struct wf_archives *archives = below->archives;
    wf_archive_spares_forget(archives);
    for (uint32_t i = 0; i < archives->count; i++) /* of which chain it was is not looked for */
        archives->kept[i]->durable &= archives->kept[i]->domain != domain;
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        for (uint32_t step = 0; wf_archive_active(run) && run->steps && step < run->count; step++)
            run->missed |= run->steps[step].entry == entry;
    }
}

/* What is there of the chain was not all flushed: once more from its begin. */
static void start_over(struct wf_archive_run *run)
{
    run->phase = WF_ARCHIVE_WRITE;
    run->next = 0;
    if (++run->round > ROUNDS)
        wf_archive_fail(run, wf_fail(WEFT_E_CORRUPT, "tier %s does not keep what was written to it",
                                     run->to->config->name));
}

/* Is all of it still where an archive may count on it? */
static bool run_whole(struct wf_archive_run *run)
{
    uint8_t tiers = wf_archive_tiers(run->archives->below);
    for (uint32_t i = 0; i < run->count; i++) {
        struct wf_directory_block block = {.tiers = 0};
        if (run->steps[i].entry != WF_DIRECTORY_NONE)
            wf_directory_read(run->archives->below->directory, run->steps[i].entry, &block);
        if (!(block.tiers & tiers))
            return false;
    }
    return true;
}

/* Do what can be done now.  Called whenever something ended, and at every tick. */
void wf_archive_advance(struct wf_archive_run *run)
{
    if (run->archives->below->stopping)
        wf_archive_fail(run, wf_fail(WEFT_E_NODE, "the node stops"));
    for (;;) {
        enum wf_archive_phase phase = run->phase;
        uint32_t round = run->round;
        bool done = phase == WF_ARCHIVE_CHECK && run->next == run->count;
        if (done && run->status == WEFT_PENDING && (run->missed || !run_whole(run))) {
            start_over(run);
            continue;
        }
        if (run->status != WEFT_PENDING || done) {
            if (run->in_flight == 0)
                end(run);
            return;
        }
        if (run->in_flight && phase != WF_ARCHIVE_WRITE && phase != WF_ARCHIVE_VERIFY)
            return;
        switch (phase) {
        case WF_ARCHIVE_WRITE:
            write_steps(run);
            if (run->phase == WF_ARCHIVE_FLUSH)
                flush_what(run);
            break;
        case WF_ARCHIVE_FLUSH: flush(run, WF_ARCHIVE_VERIFY); break;
        case WF_ARCHIVE_VERIFY: verify_steps(run); break;
        case WF_ARCHIVE_MANIFEST: manifest_write(run); break;
        case WF_ARCHIVE_SETTLE: flush(run, WF_ARCHIVE_CHECK); break;
        case WF_ARCHIVE_CHECK: manifest_check(run); break;
        case WF_ARCHIVE_UNUSED:
        case WF_ARCHIVE_ENDED: return;
        }
        if (run->status == WEFT_PENDING && run->phase == phase && run->round == round)
            return;
    }
}

void wf_archive_runs_tick(struct wf_archives *archives)
{
    for (uint32_t i = 0; i < WF_ARCHIVE_RUNS_MAX; i++) {
        struct wf_archive_run *run = &archives->runs[i];
        if (wf_archive_active(run))
            wf_archive_advance(run);
        else if (run->phase == WF_ARCHIVE_ENDED && wf_now_ns() - run->moved_ns > RESULT_NS)
            run->phase = WF_ARCHIVE_UNUSED;
    }
}
