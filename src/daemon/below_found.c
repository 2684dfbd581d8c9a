/* SPDX-License-Identifier: Apache-2.0
 *
 * What is found on a tier when it opens goes into the directory, each block behind its parent.
 *
 * A parent may be on a tier that opens later: until then the block waits aside, as an orphan does
 * whose parent is on no tier of this node.  Owner thread; a crash loses what is kept here, and the
 * tiers tell of it again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/archive.h"
#include "daemon/below.h"
#include "daemon/telemetry.h"
#include "sys/memory.h"

#define ORPHANS_MAX (1u << 20)

/* Does what was found contradict another domain's block, and not its own domain's? */
static bool of_others(const struct wf_directory *directory, const struct wf_directory_add *add)
{
    const uint8_t *const keys[2] = {add->key, add->parent};
    for (int i = 0; i < 2; i++) {
        struct wf_directory_block block;
        uint32_t entry = wf_directory_find(directory, keys[i]);
        if (entry == WF_DIRECTORY_NONE)
            continue;
        wf_directory_read(directory, entry, &block);
        if (block.domain != add->domain)
            return true;
    }
    return false;
}

enum weft_status wf_lower_enter(struct wf_lower *lower, const struct wf_tier_block *block)
{
    struct wf_below *below = lower->below;
    struct wf_node *node = below->node;
    static const uint8_t none[32];
    uint32_t d = 0, entry;
    while (d < node->domain_count && memcmp(node->domains[d].tag, block->format, 32) != 0)
        d++;
    if (d == node->domain_count)
        return WEFT_E_NOT_FOUND;
    /* What was written by other rules could not be read by ours. */
    if (block->part_bytes != wf_below_part_bytes(block->bytes) || block->bytes > UINT32_MAX)
        return WEFT_E_INVALID;
    struct wf_directory_add add = {
        .has_parent = memcmp(block->parent, none, 32) != 0,
        .domain = (uint16_t)d,
        .bytes = (uint32_t)block->bytes,
        .depth = block->depth,
        .tier = lower->number,
        .quality = wf_quality_told(block->plain_quality),
    };
    /* One that is not shown leaves a gap in its chain. */
    if (add.quality > WEFT_LOSSLESS)
        wf_index_lossy_set(&node->domains[d].store.index);
    memcpy(add.key, block->key, 32);
    memcpy(add.parent, block->parent, 32);
    const struct wf_store *store = &node->domains[d].store;
    if (store->blocks) {
        add.in_dram = wf_store_find(store, add.key) != WF_SLOT_NONE;
        uint32_t parent = add.has_parent ? wf_store_find(store, add.parent) : WF_SLOT_NONE;
        add.parent_in_dram = parent != WF_SLOT_NONE;
        if (add.parent_in_dram)
            add.parent_bytes = atomic_load_explicit(&store->index.desc[parent].bytes,
                                                    memory_order_relaxed);
    }
    enum weft_status status = wf_directory_add(below->directory, &add, &entry);
    return status == WEFT_E_INVALID && of_others(below->directory, &add) ? WEFT_EXISTS : status;
}

/* False: its parent is not known (yet). */
static bool take_up(struct wf_lower *lower, const struct wf_tier_block *block)
{
    enum weft_status status = wf_lower_enter(lower, block);
    if (status == WEFT_E_LIMIT) {
        lower->left_alone++;
        lower->below->limited = true;
    }
    /* Left alone: of a domain that this node does not have, or of one whose key another domain has.
     * That one was here first, and this one will be found when it is gone.  Also what was written
     * by other rules, when the tier has to forget too much already: it is found again next time. */
    bool goes = status == WEFT_E_INVALID && wf_lower_may_remove(lower);
    if (status == WEFT_E_NOT_FOUND || status == WEFT_EXISTS ||
        (status == WEFT_E_INVALID && !goes)) {
        lower->left_alone++;
        lower->foreign_bytes += block->bytes;
    }
    if (goes)
        wf_lower_remove(lower, block->key);
    return status != WEFT_E_PARENT;
}

void wf_lower_found(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    lower->opened = true;
    for (uint32_t i = 0; i < count; i++)
        if (!wf_archives_found(lower, &blocks[i]) && !take_up(lower, &blocks[i]))
            wf_below_orphan_keep(lower, &blocks[i]);
}

void wf_lower_gone(void *context, const struct wf_tier_block *blocks, uint32_t count)
{
    struct wf_lower *lower = context;
    struct wf_below *below = lower->below;
    below->dropping = "parent";
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = wf_directory_find(below->directory, blocks[i].key);
        if (entry == WF_DIRECTORY_NONE)
            continue;
        struct wf_directory_block block;
        wf_directory_read(below->directory, entry, &block);
        struct wf_block_move lost = {.what = "missing",
                                     .reason = "lender",
                                     .tier = lower->config->name,
                                     .bytes = block.bytes};
        wf_telemetry_moved(&below->node->domains[block.domain], block.key, &lost);
        wf_directory_lose(below->directory, entry, lower->number);
        lower->lost++;
    }
}

/* ------------------------------------------------------------------------------ without parents */

void wf_below_orphan_keep(struct wf_lower *lower, const struct wf_tier_block *block)
{
    struct wf_below *below = lower->below;
    if (below->orphan_count == below->orphan_capacity) {
        uint32_t capacity = below->orphan_capacity ? 2 * below->orphan_capacity : 1024;
        struct wf_tier_block *grown = capacity > ORPHANS_MAX
                                          ? NULL
                                          : wf_realloc(below->orphans, capacity * sizeof *grown,
                                                       "blocks without parents");
        if (!grown) {
            below->limited = true; /* left alone, for a start that can take it up */
            return;
        }
        below->orphans = grown;
        below->orphan_capacity = capacity;
    }
    below->orphans[below->orphan_count] = *block;
    /* The field carries the tier meanwhile. */
    below->orphans[below->orphan_count++].part_bytes = lower->number;
    lower->orphan_bytes += block->bytes;
    lower->orphans_end = below->orphan_count;
}

void wf_below_orphans_forget(struct wf_lower *lower)
{
    struct wf_below *below = lower->below;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < below->orphan_count; i++)
        if (below->orphans[i].part_bytes != lower->number)
            below->orphans[kept++] = below->orphans[i];
    below->orphan_count = kept;
    below->orphans_told = 0;
    lower->orphan_bytes = 0;
}

/* Take up those whose parents are known by now.  A chain lies there from its root on, as a tier
 * tells of it, or from its tip on, as the directory lets go of it; so they are looked at from one
 * end and from the other in turn.  False: there were none. */
static bool orphans_round(struct wf_below *below, bool backward)
{
    uint32_t count = below->orphan_count, kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct wf_tier_block *orphan = &below->orphans[backward ? count - 1 - i : i];
        struct wf_tier_block block = *orphan;
        struct wf_lower *lower = &below->tiers[block.part_bytes];
        block.part_bytes = wf_below_part_bytes(block.bytes);
        if (!take_up(lower, &block))
            continue;
        lower->orphan_bytes -= block.bytes;
        orphan->bytes = 0;
    }
    for (uint32_t i = 0; i < count; i++)
        if (below->orphans[i].bytes)
            below->orphans[kept++] = below->orphans[i];
    below->orphan_count = kept;
    return kept < count;
}

/* Every tier has told what it has, and these have no beginning.  They may be a part of an archive
 * whose other part is on a tier that this node was started without, so they stay on a tier of
 * archives until their room is needed (wf_below_orphan_go()); and so do those that are too many to
 * be forgotten at once. */
static void orphans_end(struct wf_below *below)
{
    uint64_t blocks[WF_TIERS_MAX] = {0};
    uint32_t count = below->orphan_count;
    below->orphan_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct wf_tier_block *orphan = &below->orphans[i];
        struct wf_lower *lower = &below->tiers[orphan->part_bytes];
        bool stays = !below->limited && !lower->others &&
                     ((lower->durable && lower->config->archive) || !wf_lower_may_remove(lower));
        if (stays) {
            blocks[lower->number]++;
            below->orphans[below->orphan_count++] = *orphan;
            continue;
        }
        lower->orphan_bytes -= orphan->bytes;
        /* The parent of one may be among those that limits.below left no entry for: both are left
         * alone then, for a start with a higher limit. */
        if (below->limited)
            lower->left_alone++;
        else
            wf_lower_remove(lower, orphan->key);
    }
    below->orphans_told = below->orphan_count;
    for (uint32_t i = 0; i < below->count; i++)
        if (blocks[i])
            wf_warn("tier",
                    "%s: %llu blocks of %llu bytes there begin on no tier of this node; they stay "
                    "until their room is needed, and are found when a tier that has the beginning "
                    "is there again",
                    below->tiers[i].config->name, (unsigned long long)blocks[i],
                    (unsigned long long)below->tiers[i].orphan_bytes);
    if (below->orphan_count)
        return;
    free(below->orphans);
    below->orphans = NULL;
    below->orphan_capacity = 0;
}

bool wf_below_orphan_go(struct wf_lower *lower)
{
    struct wf_below *below = lower->below;
    if (!lower->orphan_bytes || !below->orphans_told)
        return false;
    uint32_t at = lower->orphans_end;
    at = at < below->orphan_count ? at : below->orphan_count;
    while (at > 0 && below->orphans[at - 1].part_bytes != lower->number)
        at--;
    lower->orphans_end = at;
    while (at-- > 0) {
        struct wf_tier_block gone = below->orphans[at];
        /* One that is being written anew is none in a moment. */
        if (gone.part_bytes != lower->number || wf_demote_writes(lower, gone.key))
            continue;
        below->orphans[at] = below->orphans[--below->orphan_count];
        below->orphans_told = below->orphan_count;
        lower->orphan_bytes -= gone.bytes;
        struct wf_directory_block block = {.tiers = 0};
        uint32_t entry = wf_directory_find(below->directory, gone.key);
        if (entry != WF_DIRECTORY_NONE)
            wf_directory_read(below->directory, entry, &block);
        if (!(block.tiers >> lower->number & 1)) /* it was put again, and is an orphan no more */
            wf_lower_remove(lower, gone.key);
        return true;
    }
    return false;
}

/* Parents may be on a tier that came later.  When all have come, those that are left have none. */
void wf_below_orphans_settle(struct wf_below *below)
{
    bool all = true, some = true;
    if (below->orphan_count && below->orphan_count == below->orphans_told)
        return;                                 /* nothing came since */
    for (uint32_t i = 0; i < below->count; i++) /* another host may have it; or not be there */
        all &= below->tiers[i].complete ||
               (below->tiers[i].others && below->tiers[i].stats.state == WF_MOVER_FAILED);
    while (some && below->orphan_count) {
        some = orphans_round(below, false);
        some |= orphans_round(below, true);
    }
    if (all)
        orphans_end(below);
}
