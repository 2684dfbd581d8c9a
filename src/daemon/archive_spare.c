/* SPDX-License-Identifier: Apache-2.0
 *
 * A copy of an archive's block that its archives can do without, because another tier that may hold
 * archives has the block durably.
 *
 *     LOOK ──► keys that one other tier has, too ──► FLUSH of that tier ──► READY: one at a time
 *       ▲                                                                     │ none is left
 *       └─────────────────────────────────────────────────────────────────────┘
 *
 * What the other tier has may be younger than its last flush: when a tier fails, a block of it is
 * put again and written elsewhere, and then the tier is back with what was durable there.  So no
 * copy goes before the other tier was flushed after it was found there, and a crash at any moment
 * finds one of the two.  A tier that failed meanwhile, or lost a block, makes all that was found
 * void, as what is there then may have been written anew.
 *
 * Owner thread only; movers do the flush.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/archive.h"
#include "sys/memory.h"

#define STEPS 256u     /* entries that one search looks at */
#define SPARES_MAX 64u /* found at a time */

enum phase { LOOK, FLUSH, READY };

struct spares {
    struct wf_mover_job job; /* first member */
    enum phase phase;
    bool stale;         /* what was found does not count when the flush ends */
    unsigned other;     /* number of the tier that has them, too */
    uint32_t count, at; /* `at`: cursor in the directory */
    uint8_t keys[SPARES_MAX][32];
};

struct wf_archive_spares {
    struct spares of[WF_DIRECTORY_TIERS_MAX]; /* by tier */
};

enum weft_status wf_archive_spares_create(struct wf_archives *archives)
{
    archives->spares = wf_calloc(1, sizeof *archives->spares, "spare copies of archives");
    return archives->spares ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_archive_spares_destroy(struct wf_archives *archives)
{
    free(archives->spares);
    archives->spares = NULL;
}

void wf_archive_spares_forget(struct wf_archives *archives)
{
    for (uint32_t i = 0; i < WF_DIRECTORY_TIERS_MAX; i++) {
        struct spares *spares = &archives->spares->of[i];
        if (spares->phase == FLUSH)
            spares->stale = true;
        else
            spares->phase = LOOK;
        spares->count = 0;
    }
}

static void flushed(struct wf_mover_job *job)
{
    struct spares *spares = (struct spares *)job;
    bool good = job->job.request.status == WEFT_OK && !spares->stale;
    spares->phase = good ? READY : LOOK;
    if (!good)
        spares->count = 0;
}

/* Copies on `lower` whose blocks one of `others` has, too: the same one for all of them.  Returns
 * the last entry that was found. */
static uint32_t look(struct spares *spares, const struct wf_lower *lower, uint8_t others,
                     uint32_t most)
{
    const struct wf_directory *directory = lower->below->directory;
    struct wf_directory_sum sum;
    uint32_t entry, found = WF_DIRECTORY_NONE;
    spares->count = 0;
    wf_directory_sum(directory, lower->number, WF_DIRECTORY_DOMAINS_ALL, &sum);
    if (sum.archived_blocks == 0) /* all of the directory would be gone over for nothing */
        return found;
    for (uint32_t i = 0; others && i < STEPS && spares->count < most; i++) {
        struct wf_directory_block block;
        entry = wf_directory_next(directory, lower->number, &spares->at);
        if (entry == WF_DIRECTORY_NONE)
            break;
        wf_directory_read(directory, entry, &block);
        if (!block.archives || !(block.tiers & others))
            continue;
        if (spares->count == 0)
            spares->other = (unsigned)__builtin_ctz(block.tiers & others);
        others = (uint8_t)(1u << spares->other);
        memcpy(spares->keys[spares->count++], block.key, sizeof block.key);
        found = entry;
    }
    return found;
}

static void flush(struct spares *spares, const struct wf_lower *lower)
{
    memset(&spares->job, 0, sizeof spares->job);
    spares->job.kind = WF_MOVE_FLUSH;
    spares->job.done = flushed;
    spares->job.job.class = WF_TIER_DEMOTE;
    spares->stale = false;
    if (wf_mover_submit(lower->below->tiers[spares->other].mover, &spares->job) == WEFT_OK)
        spares->phase = FLUSH;
    else
        spares->count = 0;
}

/* One of those that were found before the flush, if it is still what it was. */
static uint32_t take(struct spares *spares, const struct wf_lower *lower)
{
    const struct wf_directory *directory = lower->below->directory;
    uint8_t both = (uint8_t)(1u << lower->number | 1u << spares->other);
    while (spares->count) {
        struct wf_directory_block block;
        uint32_t entry = wf_directory_find(directory, spares->keys[--spares->count]);
        if (entry == WF_DIRECTORY_NONE)
            continue;
        wf_directory_read(directory, entry, &block);
        if (block.archives && (block.tiers & both) == both)
            return entry;
    }
    spares->phase = LOOK;
    return WF_DIRECTORY_NONE;
}

uint32_t wf_archive_spare(const struct wf_lower *lower)
{
    struct spares *spares = &lower->below->archives->spares->of[lower->number];
    uint8_t tiers = wf_archive_tiers(lower->below), own = (uint8_t)(1u << lower->number);
    uint32_t entry = WF_DIRECTORY_NONE;
    if (!(tiers & own)) /* no archive counts on it */
        return look(spares, lower, tiers, 1);
    if (spares->phase == READY)
        entry = take(spares, lower);
    if (entry != WF_DIRECTORY_NONE || spares->phase != LOOK || lower->below->stopping)
        return entry;
    if (look(spares, lower, tiers & (uint8_t)~own, SPARES_MAX) != WF_DIRECTORY_NONE)
        flush(spares, lower);
    return WF_DIRECTORY_NONE;
}
