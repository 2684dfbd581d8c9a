/* SPDX-License-Identifier: Apache-2.0
 *
 * An archive is let go of: its manifest is removed from its tier, and the tiers flushed, before
 * whoever asked hears WEFT_OK.  All of them, for an archive of that name that this one replaced may
 * have lain on another, and is gone from there no sooner.
 *
 *     asked ──► forgotten here ──► REMOVE ──► FLUSH ──► answered
 *
 * From the first step on it is no archive of this node any more, and its blocks are ordinary ones.
 * One whose manifest lies on a tier that has failed stays, and who asks is told so.  Where the tier
 * fails after the first step, its manifest goes when the tier is back (wf_archive_undo()).
 * A crash before the flush has ended may leave the manifest, and then the next start finds the
 * archive again, as it was.  An object store keeps removals in memory until it rewrites a pack or
 * closes in order; there a flush does not make them durable (tier.h).
 *
 * Who asks waits by being parked (server.c) a moment at a time; a result that nobody took is there
 * for who asks again.  Owner thread only.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/size.h"
#include "daemon/archive.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define LEAVES_MAX 64u
#define RESULT_NS 600000000000u /* a result that nobody took is forgotten */

enum phase { UNUSED, REMOVE, FLUSH, ENDED };

struct leave {
    struct wf_mover_job job; /* first member */
    struct wf_archives *archives;
    enum phase phase;
    bool submitted;
    struct wf_domain *domain;
    struct wf_lower *lower, *at; /* at: what is being flushed */
    uint8_t unflushed;           /* tiers, a bit each */
    char name[WF_ARCHIVE_NAME_MAX + 1];
    uint8_t key[32];
    uint32_t blocks;
    uint64_t bytes, ended_ns;
    enum weft_status status;
};

struct wf_archive_leaves {
    struct leave all[LEAVES_MAX];
};

enum weft_status wf_archive_leaves_create(struct wf_archives *archives)
{
    archives->leaves = wf_calloc(1, sizeof *archives->leaves, "archives that are let go of");
    for (uint32_t i = 0; archives->leaves && i < LEAVES_MAX; i++)
        archives->leaves->all[i].archives = archives;
    return archives->leaves ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_archive_leaves_destroy(struct wf_archives *archives)
{
    free(archives->leaves);
    archives->leaves = NULL;
}

static void end(struct leave *leave, enum weft_status status)
{
    leave->phase = ENDED;
    leave->status = status;
    leave->ended_ns = wf_now_ns();
    wf_clients_unpark(leave->archives->below->node);
    if (status != WEFT_OK) {
        wf_archive_undo(leave->archives, leave->lower, leave->key);
        return;
    }
    char size[32];
    wf_telemetry_event(leave->archives->below->node, leave->domain, "archive_removed",
                       "archive %.64s is none any more: its %u blocks, %s, are ordinary ones, and "
                       "its manifest is gone from tier %s",
                       leave->name, leave->blocks, wf_size_format(leave->bytes, size, sizeof size),
                       leave->lower->config->name);
}

static void step(struct leave *leave);

/* Its own tier, and those that work of the others. */
static uint8_t tiers_of(const struct leave *leave)
{
    const struct wf_below *below = leave->archives->below;
    uint8_t tiers = 0;
    for (uint32_t i = 0; i < below->count; i++)
        if (&below->tiers[i] == leave->lower ||
            (wf_archive_tiers(below) >> i & 1 && wf_lower_usable(&below->tiers[i])))
            tiers |= (uint8_t)(1u << i);
    return tiers;
}

static void done(struct wf_mover_job *job)
{
    struct leave *leave = (struct leave *)job;
    enum weft_status status = job->job.request.status;
    leave->submitted = false;
    if (leave->phase == REMOVE && (status == WEFT_OK || status == WEFT_MISS)) {
        leave->phase = FLUSH;
        leave->unflushed = tiers_of(leave);
        WF_CRASH("archive.removed");
    } else if (leave->phase == FLUSH && (status == WEFT_OK || leave->at != leave->lower)) {
        leave->unflushed &= (uint8_t) ~(1u << leave->at->number);
    } else {
        end(leave, WEFT_E_SYSTEM);
    }
    if (leave->phase == FLUSH && leave->unflushed == 0)
        end(leave, WEFT_OK);
    else if (!leave->archives->below->stopping)
        step(leave);
}

/* Submit what comes next; when the mover has no room, the next tick does. */
static void step(struct leave *leave)
{
    if (leave->submitted || (leave->phase != REMOVE && leave->phase != FLUSH))
        return;
    leave->at = leave->phase == REMOVE
                    ? leave->lower
                    : &leave->archives->below->tiers[__builtin_ctz(leave->unflushed)];
    if (leave->phase == FLUSH && !wf_lower_quiet(leave->at))
        return; /* what is to be gone is not all with it */
    memset(&leave->job, 0, sizeof leave->job);
    leave->job.kind = leave->phase == REMOVE ? WF_MOVE_REMOVE : WF_MOVE_FLUSH;
    leave->job.done = done;
    leave->job.job.class = WF_TIER_WAITED;
    if (leave->phase == REMOVE)
        memcpy(leave->job.job.request.block.key, leave->key, 32);
    enum weft_status status = wf_mover_submit(leave->at->mover, &leave->job);
    leave->submitted = status == WEFT_OK;
    if (status >= 0)
        return;
    if (leave->phase == FLUSH && leave->at != leave->lower)
        leave->unflushed &= (uint8_t) ~(1u << leave->at->number); /* the next tick goes on */
    if (leave->at == leave->lower)
        end(leave, status);
    else if (leave->unflushed == 0)
        end(leave, WEFT_OK);
}

void wf_archive_leaves_tick(struct wf_archives *archives)
{
    for (uint32_t i = 0; i < LEAVES_MAX; i++) {
        struct leave *leave = &archives->leaves->all[i];
        step(leave);
        if (leave->phase == ENDED && wf_now_ns() - leave->ended_ns > RESULT_NS)
            leave->phase = UNUSED;
    }
}

uint32_t wf_archive_leaves_busy(const struct wf_archives *archives)
{
    uint32_t busy = 0;
    for (uint32_t i = 0; i < LEAVES_MAX; i++)
        busy += archives->leaves->all[i].phase == REMOVE || archives->leaves->all[i].phase == FLUSH;
    return busy;
}

static struct leave *find(struct wf_archives *archives, const struct wf_domain *domain,
                          const char *name)
{
    for (uint32_t i = 0; i < LEAVES_MAX; i++) {
        struct leave *leave = &archives->leaves->all[i];
        if (leave->phase != UNUSED && leave->domain == domain && strcmp(leave->name, name) == 0)
            return leave;
    }
    return NULL;
}

bool wf_archive_leaving(struct wf_archives *archives, const struct wf_domain *domain,
                        const char *name)
{
    const struct leave *leave = find(archives, domain, name);
    return leave && leave->phase != ENDED;
}

bool wf_archive_leaves(struct wf_archives *archives, const struct wf_domain *domain,
                       const char *name)
{
    return find(archives, domain, name) && !wf_archive_find(archives, domain, name);
}

/* A free place, or that of the oldest result that nobody took; NULL: all are under way. */
static struct leave *take(struct wf_archives *archives)
{
    struct leave *oldest = NULL;
    for (uint32_t i = 0; i < LEAVES_MAX; i++) {
        struct leave *leave = &archives->leaves->all[i];
        if (leave->phase == UNUSED)
            return leave;
        if (leave->phase == ENDED && (!oldest || leave->ended_ns < oldest->ended_ns))
            oldest = leave;
    }
    return oldest;
}

static struct leave *begin(struct wf_archives *archives, struct wf_archive_kept *kept)
{
    struct leave *leave = take(archives);
    if (!leave)
        return NULL;
    *leave = (struct leave){.archives = archives,
                            .phase = REMOVE,
                            .domain = kept->domain,
                            .lower = kept->lower,
                            .blocks = kept->blocks,
                            .bytes = kept->bytes};
    memcpy(leave->name, kept->name, sizeof leave->name);
    memcpy(leave->key, kept->key, sizeof leave->key);
    wf_archive_forget(archives, kept);
    step(leave);
    return leave;
}

enum weft_status wf_archive_leave(struct wf_archives *archives, const struct wf_domain *domain,
                                  const char *name, struct wf_archive_left *out)
{
    struct leave *leave = find(archives, domain, name);
    struct wf_archive_kept *kept = wf_archive_find(archives, domain, name);
    if (leave && leave->phase == ENDED && kept) { /* of another one, before this */
        leave->phase = UNUSED;
        leave = NULL;
    }
    if (!leave && kept && kept->lower->stats.state == WF_MOVER_FAILED)
        return wf_fail(
            WEFT_E_SYSTEM,
            "archive '%s' stays: tier %s, where its manifest lies, does not work; remove "
            "it when the tier is back, or take the tier out of `tiers`",
            name, kept->lower->config->name);
    if (!leave && kept) {
        leave = begin(archives, kept);
        if (!leave)
            return WEFT_PENDING;
    }
    if (!leave)
        return wf_archives_settled(archives->below)
                   ? wf_fail(WEFT_E_NOT_FOUND,
                             "there is no archive '%s' in this domain; `weft session ls` lists "
                             "those that there are",
                             name)
                   : WEFT_PENDING;
    *out = (struct wf_archive_left){.blocks = leave->blocks,
                                    .bytes = leave->bytes,
                                    .tier = leave->lower->config->name};
    if (leave->phase != ENDED)
        return WEFT_PENDING;
    leave->phase = UNUSED;
    if (leave->status != WEFT_OK)
        return wf_fail(WEFT_E_SYSTEM,
                       "archive '%s' is let go of, but tier %s failed before that was durable: "
                       "its manifest is removed when the tier is back; if the node starts anew "
                       "before, the archive may be there again, and is to be removed again",
                       name, leave->lower->config->name);
    return WEFT_OK;
}
