/* SPDX-License-Identifier: Apache-2.0
 *
 * What other hosts have on a tier that they share with this one: in the directory like blocks of
 * our own, so that clients match it and loads read it, and yet nobody's here to move or to drop.
 *
 * Another host writes a block below when it must, the end of a chain first; so a block may be there
 * long before its parent is, or while its parent is in that host's DRAM alone.  Such a block waits
 * here, and is tried again and again, until its parent is below or in this host's DRAM.  What is
 * remembered is a hint: a read finds out whether the block is there still.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/below.h"
#include "sys/memory.h"

#define WAITING_MAX 65536u
#define TRIES 1024u        /* a tick */
#define FORGET_LOOKS 4096u /* more than that are not searched for one that went */

struct wf_others {
    struct wf_tier_block *waiting; /* for their parents, or for room in the directory */
    uint32_t count, at, oldest;
};

enum weft_status wf_others_create(struct wf_lower *lower, struct wf_lower *own)
{
    struct wf_others *others = wf_calloc(1, sizeof *others, "what other hosts have");
    if (!others)
        return WEFT_E_NO_MEMORY;
    lower->others = others;
    lower->own = own;
    others->waiting = wf_calloc(WAITING_MAX, sizeof *others->waiting, "what other hosts have");
    return others->waiting ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_others_destroy(struct wf_lower *lower)
{
    if (lower->others)
        free(lower->others->waiting);
    free(lower->others);
    lower->others = NULL;
}

/* Blocks of our own are not to want for entries: an eighth is theirs alone. */
static bool has_room(const struct wf_below *below)
{
    uint32_t most = below->node->config.below_max;
    return wf_directory_entries(below->directory) < most - most / 8;
}

/* False: not now. */
static bool take_up(struct wf_lower *lower, const struct wf_tier_block *block)
{
    if (!has_room(lower->below))
        return false;
    enum weft_status status = wf_lower_enter(lower, block);
    return status != WEFT_E_PARENT && status != WEFT_E_LIMIT;
}

/* The oldest one gives way. */
static void wait(struct wf_others *others, const struct wf_tier_block *block)
{
    if (others->count < WAITING_MAX)
        others->waiting[others->count++] = *block;
    else
        others->waiting[others->oldest++ % WAITING_MAX] = *block;
}

void wf_others_found(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    lower->opened = true;
    for (uint32_t i = 0; i < count; i++)
        if (!take_up(lower, &blocks[i]))
            wait(lower->others, &blocks[i]);
}

static void wait_no_more(struct wf_others *others, const uint8_t key[32])
{
    for (uint32_t i = 0; others->count <= FORGET_LOOKS && i < others->count; i++)
        if (memcmp(others->waiting[i].key, key, 32) == 0) {
            others->waiting[i] = others->waiting[--others->count];
            return;
        }
}

void wf_others_gone(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    struct wf_below *below = lower->below;
    below->dropping = "parent";
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = wf_directory_find(below->directory, blocks[i].key);
        wait_no_more(lower->others, blocks[i].key);
        if (entry == WF_DIRECTORY_NONE)
            continue;
        wf_directory_lose(below->directory, entry, lower->number);
        lower->lost++;
    }
}

void wf_others_lost(struct wf_lower *lower)
{
    lower->others->count = lower->others->at = 0;
}

static void try_again(struct wf_lower *lower)
{
    struct wf_others *others = lower->others;
    for (uint32_t i = 0; i < TRIES && i < others->count; i++) {
        if (others->at >= others->count)
            others->at = 0;
        struct wf_tier_block block = others->waiting[others->at];
        if (take_up(lower, &block))
            others->waiting[others->at] = others->waiting[--others->count];
        else
            others->at++;
    }
}

void wf_others_tick(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++)
        if (below->tiers[i].own && wf_lower_usable(&below->tiers[i]))
            try_again(&below->tiers[i]);
}

/* It is told of again when its extent changes. */
bool wf_others_yield(struct wf_below *below)
{
    for (uint32_t i = 0; i < below->count; i++) {
        struct wf_lower *lower = &below->tiers[i];
        uint32_t entry = lower->own ? wf_directory_victim(below->directory, lower->number,
                                                          WF_DIRECTORY_DOMAINS_ALL)
                                    : WF_DIRECTORY_NONE;
        if (entry == WF_DIRECTORY_NONE)
            continue;
        below->dropping = "parent";
        wf_directory_lose(below->directory, entry, lower->number);
        lower->evicted++;
        return true;
    }
    return false;
}
