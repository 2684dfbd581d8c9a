/* SPDX-License-Identifier: Apache-2.0
 *
 * Keys that a tier is still to be told to forget: they wait here in the order in which they came,
 * as its mover takes a bounded number of jobs.  The owner's thread alone is in here.  What is not
 * told before a crash, or before the tier fails, comes back when it is opened the next time, as
 * what it is: a block, or one without its parent.
 *
 * When WAITING_MOST keys wait, nobody begins to let go of more there (wf_lower_may_remove()): a
 * client hears that it may ask again, a block stays until its room is needed, and room that is
 * needed is made later.  What was begun before may take along all that extends it, and nothing is
 * written to a tier that has keys waiting; so these are never more than limits.below besides.
 */
#include "daemon/below.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "sys/memory.h"

#define REMOVALS_MAX 256u   /* under way at a time, a tier */
#define WAITING_MOST 65536u /* behind these; 2 MiB of keys */

struct wf_removals {
    struct wf_lower *lower;
    struct removal {
        struct wf_mover_job job; /* first member */
        struct wf_removals *all;
        struct removal *next;
    } * jobs, *free;
    uint8_t (*keys)[32];
    uint32_t head, count, capacity;
    bool left; /* one was, and it was said */
};

static void removals_run(struct wf_removals *removals);

static void removal_done(struct wf_mover_job *job)
{
    struct removal *removal = (struct removal *)job;
    removal->next = removal->all->free;
    removal->all->free = removal;
    removals_run(removal->all);
}

static void removals_run(struct wf_removals *removals)
{
    while (removals->count && removals->free && !removals->lower->below->stopping) {
        struct removal *removal = removals->free;
        removals->free = removal->next;
        memset(&removal->job, 0, sizeof removal->job);
        removal->job.kind = WF_MOVE_REMOVE;
        removal->job.done = removal_done;
        removal->job.job.class = WF_TIER_DEMOTE;
        memcpy(removal->job.job.request.block.key, removals->keys[removals->head], 32);
        if (wf_mover_submit(removals->lower->mover, &removal->job) != WEFT_OK) {
            removal->next = removals->free;
            removals->free = removal;
            return;
        }
        removals->head = (removals->head + 1) % removals->capacity;
        if (removals->count-- == WAITING_MOST)
            wf_clients_unpark(removals->lower->below->node);
    }
}

static bool removals_grow(struct wf_removals *removals)
{
    uint64_t most = (uint64_t)WAITING_MOST + removals->lower->below->node->config.below_max;
    uint64_t doubled = removals->capacity ? 2ull * removals->capacity : 1024;
    uint32_t capacity = (uint32_t)(doubled < most ? doubled : most);
    if (capacity == removals->capacity)
        return false;
    uint8_t(*keys)[32] = wf_calloc(capacity, 32, "keys that leave a tier");
    if (!keys)
        return false;
    for (uint32_t i = 0; i < removals->count; i++)
        memcpy(keys[i], removals->keys[(removals->head + i) % removals->capacity], 32);
    free(removals->keys);
    removals->keys = keys;
    removals->head = 0;
    removals->capacity = capacity;
    return true;
}

enum weft_status wf_lower_removals_create(struct wf_lower *lower)
{
    struct wf_removals *removals = wf_calloc(1, sizeof *removals, "a tier's removals");
    if (!removals)
        return WEFT_E_NO_MEMORY;
    lower->removals = removals;
    removals->lower = lower;
    removals->jobs = wf_calloc(REMOVALS_MAX, sizeof *removals->jobs, "a tier's removals");
    if (!removals->jobs)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < REMOVALS_MAX; i++) {
        removals->jobs[i].all = removals;
        removals->jobs[i].next = removals->free;
        removals->free = &removals->jobs[i];
    }
    return WEFT_OK;
}

void wf_lower_removals_destroy(struct wf_lower *lower)
{
    if (lower->removals) {
        free(lower->removals->keys);
        free(lower->removals->jobs);
    }
    free(lower->removals);
    lower->removals = NULL;
}

void wf_lower_remove(struct wf_lower *lower, const uint8_t key[32])
{
    struct wf_removals *removals = lower->removals;
    if (removals->count == removals->capacity && !removals_grow(removals)) {
        if (!removals->left)
            wf_warn("tier",
                    "%s: no memory for the keys of blocks that it is to forget; some stay there, "
                    "and are found again at the next start",
                    lower->config->name);
        removals->left = true;
        return;
    }
    memcpy(removals->keys[(removals->head + removals->count) % removals->capacity], key, 32);
    removals->count++;
    removals_run(removals);
}

bool wf_lower_may_remove(struct wf_lower *lower)
{
    removals_run(lower->removals);
    return lower->removals->count < WAITING_MOST;
}

void wf_lower_removals_forget(struct wf_lower *lower)
{
    lower->removals->count = 0;
}

bool wf_lower_quiet(struct wf_lower *lower)
{
    removals_run(lower->removals);
    return lower->removals->count == 0;
}
