/* SPDX-License-Identifier: Apache-2.0
 *
 * What is done behind the requests' back: packs without a live block are deleted, the one with the
 * most dead bytes is compacted when too much is dead, footers are gathered into indexes.
 *
 * Crash reasoning: a pack is deleted only when each of its blocks is dead or in another pack that
 * is stored; an index is deleted only when no pack relies on it, or another that is stored has the
 * same footers.  In between there are two of one thing, never none.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"
#include "tier/s3_store.h"

#define DELETES_MAX 4u
#define REST_MS 5000u
#define DEAD_MIN (2ull * WF_S3_PACK_BYTES)
#define GATHER_PACKS_MAX 2048u

static void rest(struct wf_s3 *t, const struct wf_s3_call *call, const char *what)
{
    wf_s3_trouble(t, call, what);
    t->reclaim.rest_until_ms = wf_now_ms() + REST_MS;
}

/* -------------------------------------------------------------------------- deletion */

void wf_s3_leave(struct wf_s3 *t, uint32_t slot)
{
    struct wf_s3_slot *s = &t->slots[slot];
    if (t->reclaim.victim == slot)
        return; /* the compaction that is under way ends with the same */
    s->state = WF_S3_SLOT_LEAVING;
    s->next = t->reclaim.leaving;
    t->reclaim.leaving = slot;
}

static void index_deleted(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_index_object *index = &t->reclaim.indexes[call->slot];
    t->reclaim.deletes--;
    if (call->outcome == WF_S3_DONE || call->outcome == WF_S3_MISSING) {
        index->state = WF_S3_INDEX_FREE;
    } else {
        index->state = WF_S3_INDEX_STORED;
        rest(t, call, "an index could not be deleted");
    }
}

static void index_delete(struct wf_s3 *t, uint32_t at)
{
    struct wf_s3_index_object *index = &t->reclaim.indexes[at];
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return;
    index->state = WF_S3_INDEX_LEAVING;
    t->reclaim.deletes++;
    call->method = WF_S3_DELETE;
    call->slot = at;
    call->done = index_deleted;
    wf_s3_name_write(call->name, 'i', index->number, index->tag);
    wf_s3_http_start(&t->http, call);
}

void wf_s3_index_leaves(struct wf_s3 *t, uint32_t slot)
{
    struct wf_s3_slot *s = &t->slots[slot];
    struct wf_s3_index_object *index = &t->reclaim.indexes[s->index];
    if (s->index == 0) {
        t->reclaim.uncovered--;
    } else if (--index->packs == 0) {
        t->reclaim.small -= !index->large;
    }
    s->index = 0;
}

static void pack_deleted(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    t->reclaim.deletes--;
    if (call->outcome == WF_S3_DONE || call->outcome == WF_S3_MISSING) {
        wf_s3_index_leaves(t, call->slot);
        wf_s3_slot_give(t, call->slot);
        return;
    }
    wf_s3_leave(t, call->slot);
    rest(t, call, "a pack could not be deleted");
}

static void delete_some(struct wf_s3 *t)
{
    while (t->reclaim.leaving != WF_TIER_NONE && t->reclaim.deletes < DELETES_MAX) {
        struct wf_s3_call *call = wf_s3_http_take(&t->http);
        if (!call)
            return;
        struct wf_s3_slot *s = &t->slots[t->reclaim.leaving];
        call->method = WF_S3_DELETE;
        call->slot = t->reclaim.leaving;
        call->done = pack_deleted;
        wf_s3_name_write(call->name, 'p', s->number, s->tag);
        t->reclaim.leaving = s->next;
        t->reclaim.deletes++;
        wf_s3_http_start(&t->http, call);
    }
    for (uint32_t i = 1; i < t->reclaim.indexes_used && t->reclaim.deletes < DELETES_MAX; i++)
        if (t->reclaim.indexes[i].state == WF_S3_INDEX_STORED && !t->reclaim.indexes[i].packs)
            index_delete(t, i);
}

/* ------------------------------------------------------------------------ compaction */

static bool record_right(const struct wf_tier_block *block, const uint8_t *record)
{
    uint32_t parts = wf_tier_parts(block);
    for (uint32_t i = 0; i < parts; i++) {
        struct wf_s3_part head;
        memcpy(&head, record + wf_s3_part_at(block, i), sizeof head);
        if (!wf_s3_part_heads(&head, block, i) ||
            !wf_s3_part_right(&head, record + wf_s3_part_at(block, i) + sizeof head))
            return false;
    }
    return true;
}

static void victim_end(struct wf_s3 *t)
{
    uint32_t slot = t->reclaim.victim;
    struct wf_s3_slot *s = &t->slots[slot];
    if (s->object_bytes > 2 * WF_S3_PACK_BYTES)
        (void)madvise(t->reclaim.memory, WF_S3_OBJECT_MAX, MADV_DONTNEED);
    t->reclaim.victim = WF_TIER_NONE;
    t->reclaim.victim_here = false;
    if (s->count || s->unreaped)
        return; /* it was not to be had; it stays as it is */
    s->state = WF_S3_SLOT_DRAINED;
    s->until = t->next_number - 1;
    s->next = t->reclaim.drained;
    t->reclaim.drained = slot;
}

static void move_block(struct wf_s3 *t, uint32_t item, uint32_t slot, uint32_t offset,
                       uint64_t bytes)
{
    struct wf_s3_slot *from = &t->slots[t->index.items[item].group], *to = &t->slots[slot];
    from->live -= (uint32_t)bytes;
    from->dead += (uint32_t)bytes;
    from->count--;
    to->live += (uint32_t)bytes;
    to->count++;
    t->live_bytes -= bytes; /* the new place has counted it */
    t->dead_bytes += bytes;
    t->stats.moved_bytes += t->index.items[item].bytes;
    wf_tier_index_move(&t->index, item, slot, offset);
}

/* As far as there is room in buffers. */
static void move_some(struct wf_s3 *t)
{
    struct wf_s3_slot *s = &t->slots[t->reclaim.victim];
    uint32_t item, slot, offset;
    while ((item = t->index.heads[t->reclaim.victim]) != WF_TIER_NONE) {
        struct wf_tier_block block;
        wf_tier_index_block(&t->index, item, &block);
        uint64_t bytes = wf_s3_record_bytes(&block), at = t->index.items[item].offset;
        const uint8_t *record = t->reclaim.memory + at;
        if (at + bytes > s->object_bytes || !record_right(&block, record)) {
            t->stats.corrupt++;
            wf_s3_forget(t, item);
            continue;
        }
        if (!wf_s3_append_record(t, &block, record, &slot, &offset))
            return;
        move_block(t, item, slot, offset, bytes);
    }
    victim_end(t);
}

/* Is all that lives in the victim what its checksums say? */
static bool victim_right(const struct wf_s3 *t)
{
    uint32_t slot = t->reclaim.victim;
    for (uint32_t item = t->index.heads[slot]; item != WF_TIER_NONE;
         item = t->index.items[item].list_next) {
        struct wf_tier_block block;
        wf_tier_index_block(&t->index, item, &block);
        uint64_t at = t->index.items[item].offset;
        if (at + wf_s3_record_bytes(&block) > t->slots[slot].object_bytes ||
            !record_right(&block, t->reclaim.memory + at))
            return false;
    }
    return true;
}

/* What came wrong once may have been right in the bucket, and what is not moved is lost with the
 * pack: it is believed to be rotten when it comes so a second time. */
static void victim_came(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_slot *s = &t->slots[t->reclaim.victim];
    if (call->outcome == WF_S3_DONE && (s->doubted || victim_right(t))) {
        t->reclaim.victim_here = true;
        return;
    }
    if (call->outcome == WF_S3_DONE) {
        s->doubted = true;
        t->stats.corrupt++;
        t->reclaim.rest_until_ms = wf_now_ms() + REST_MS;
        victim_end(t);
        return;
    }
    rest(t, call, "a pack could not be read to be compacted");
    victim_end(t);
}

static bool too_much_is_dead(const struct wf_s3 *t)
{
    return t->dead_bytes > DEAD_MIN && t->dead_bytes > (t->live_bytes + t->dead_bytes) / 4;
}

static void compact(struct wf_s3 *t)
{
    uint32_t best = WF_TIER_NONE;
    for (uint32_t i = 0; i < t->slots_used; i++) {
        const struct wf_s3_slot *s = &t->slots[i];
        if (s->state == WF_S3_SLOT_STORED && s->dead > s->object_bytes / 4 && !s->unreaped &&
            (best == WF_TIER_NONE || s->dead > t->slots[best].dead))
            best = i;
    }
    struct wf_s3_call *call = best != WF_TIER_NONE ? wf_s3_http_take(&t->http) : NULL;
    if (!call) {
        t->reclaim.rest_until_ms = wf_now_ms() + 100;
        return;
    }
    const struct wf_s3_slot *s = &t->slots[best];
    t->reclaim.victim = best;
    call->bytes = s->object_bytes;
    call->room = t->reclaim.memory;
    call->room_bytes = WF_S3_OBJECT_MAX;
    call->done = victim_came;
    wf_s3_name_write(call->name, 'p', s->number, s->tag);
    wf_s3_http_start(&t->http, call);
}

static void let_drained_go(struct wf_s3 *t)
{
    uint32_t *link = &t->reclaim.drained;
    while (*link != WF_TIER_NONE) {
        uint32_t slot = *link;
        if (wf_s3_stored_until(t, t->slots[slot].until)) {
            *link = t->slots[slot].next;
            wf_s3_leave(t, slot);
        } else {
            link = &t->slots[slot].next;
        }
    }
}

/* ------------------------------------------------------------------------- gathering */

static void gather_end(struct wf_s3 *t)
{
    free(t->reclaim.gather.data);
    free(t->reclaim.gather.slots);
    free(t->reclaim.gather.numbers);
    memset(&t->reclaim.gather, 0, sizeof t->reclaim.gather);
}

static void gathered(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_index_object *index = &t->reclaim.indexes[t->reclaim.gather.index];
    if (call->outcome != WF_S3_DONE) {
        index->state = WF_S3_INDEX_FREE;
        rest(t, call, "an index could not be written");
        gather_end(t);
        return;
    }
    index->state = WF_S3_INDEX_STORED;
    t->stats.device_write_bytes += call->body_bytes;
    for (uint32_t i = 0; i < t->reclaim.gather.count; i++) {
        struct wf_s3_slot *s = &t->slots[t->reclaim.gather.slots[i]];
        if (s->number != t->reclaim.gather.numbers[i] || s->state == WF_S3_SLOT_FREE)
            continue;
        wf_s3_index_leaves(t, t->reclaim.gather.slots[i]);
        s->index = (uint16_t)t->reclaim.gather.index;
        index->packs++;
    }
    index->large = index->packs >= WF_S3_GATHER * WF_S3_GATHER_MORE / 2;
    t->reclaim.small += !index->large && index->packs;
    gather_end(t);
}

static uint64_t put_footer(const struct wf_s3 *t, uint32_t slot, uint8_t *out)
{
    const struct wf_s3_slot *s = &t->slots[slot];
    struct wf_s3_footer footer = {.number = s->number,
                                  .tag = s->tag,
                                  .object_bytes = s->object_bytes,
                                  .records_bytes = sizeof(struct wf_s3_pack) + s->live + s->dead};
    uint8_t *entries = out + sizeof footer;
    for (uint32_t item = t->index.heads[slot]; item != WF_TIER_NONE;
         item = t->index.items[item].list_next) {
        struct wf_tier_block block;
        struct wf_s3_entry entry;
        wf_tier_index_block(&t->index, item, &block);
        wf_s3_entry_of(&entry, &block, t->index.items[item].offset);
        memcpy(entries + footer.count++ * sizeof entry, &entry, sizeof entry);
    }
    wf_s3_footer_seal(&footer, entries);
    memcpy(out, &footer, sizeof footer);
    return sizeof footer + footer.count * sizeof(struct wf_s3_entry);
}

static bool is_gathered(const struct wf_s3 *t, const struct wf_s3_slot *s, bool more)
{
    if (s->state != WF_S3_SLOT_STORED || s->unreaped)
        return false;
    return s->index == 0 || (more && !t->reclaim.indexes[s->index].large);
}

static uint32_t free_index(const struct wf_s3 *t)
{
    for (uint32_t i = 1; i < WF_S3_INDEXES_MAX; i++)
        if (t->reclaim.indexes[i].state == WF_S3_INDEX_FREE)
            return i;
    return 0;
}

static bool gather_fill(struct wf_s3 *t, bool more)
{
    uint64_t bytes = sizeof(struct wf_s3_index);
    uint32_t count = 0;
    for (uint32_t i = 0; i < t->slots_used && count < GATHER_PACKS_MAX; i++) {
        if (!is_gathered(t, &t->slots[i], more))
            continue;
        bytes += sizeof(struct wf_s3_footer) + t->slots[i].count * sizeof(struct wf_s3_entry);
        count++;
    }
    t->reclaim.gather.data = wf_calloc(bytes, 1, "an index");
    t->reclaim.gather.slots = wf_calloc(count + 1, sizeof(uint32_t), "an index");
    t->reclaim.gather.numbers = wf_calloc(count + 1, sizeof(uint64_t), "an index");
    if (!count || !t->reclaim.gather.data || !t->reclaim.gather.slots || !t->reclaim.gather.numbers)
        return false;
    uint64_t at = sizeof(struct wf_s3_index);
    for (uint32_t i = 0, n = 0; n < count; i++) {
        if (!is_gathered(t, &t->slots[i], more))
            continue;
        at += put_footer(t, i, t->reclaim.gather.data + at);
        t->reclaim.gather.slots[n] = i;
        t->reclaim.gather.numbers[n++] = t->slots[i].number;
    }
    struct wf_s3_index head;
    wf_s3_index_seal(&head, count, at);
    memcpy(t->reclaim.gather.data, &head, sizeof head);
    t->reclaim.gather.count = count;
    t->reclaim.gather.bytes = at;
    return true;
}

static void gather(struct wf_s3 *t, bool more)
{
    uint32_t at = free_index(t);
    struct wf_s3_call *call = at ? wf_s3_http_take(&t->http) : NULL;
    if (!call)
        return;
    if (!gather_fill(t, more)) {
        wf_s3_http_give(&t->http, call);
        gather_end(t);
        t->reclaim.rest_until_ms = wf_now_ms() + REST_MS;
        return;
    }
    struct wf_s3_index_object *index = &t->reclaim.indexes[at];
    *index = (struct wf_s3_index_object){.number = t->next_number++,
                                         .tag = wf_s3_random(&t->http),
                                         .state = WF_S3_INDEX_WRITING};
    t->reclaim.gather.index = at;
    if (at >= t->reclaim.indexes_used)
        t->reclaim.indexes_used = at + 1;
    call->method = WF_S3_PUT;
    call->body = t->reclaim.gather.data;
    call->body_bytes = t->reclaim.gather.bytes;
    call->done = gathered;
    wf_s3_name_write(call->name, 'i', index->number, index->tag);
    wf_s3_http_start(&t->http, call);
}

void wf_s3_reclaim_step(struct wf_s3 *t, uint64_t now)
{
    if (t->reclaim.victim != WF_TIER_NONE && t->reclaim.victim_here)
        move_some(t);
    let_drained_go(t);
    if (t->failed || t->closing || now < t->reclaim.rest_until_ms)
        return;
    if (t->reclaim.deletes < DELETES_MAX)
        delete_some(t);
    if (t->reclaim.victim == WF_TIER_NONE && too_much_is_dead(t))
        compact(t);
    if (!t->reclaim.gather.data) {
        if (t->reclaim.small >= WF_S3_GATHER_MORE)
            gather(t, true);
        else if (t->reclaim.uncovered >= WF_S3_GATHER)
            gather(t, false);
    }
}

void wf_s3_reclaim_fini(struct wf_s3 *t)
{
    gather_end(t);
}
