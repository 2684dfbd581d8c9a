/* SPDX-License-Identifier: Apache-2.0
 *
 * Reserve, commit, abort, by key.
 *
 * `weft_slot.place` is, for a block that EXISTS, the pin table's entry + 1 that the node placed for
 * us; for one to be written to a `writes: copied` domain, its offset + 1 in the staging segment;
 * else 0.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/sum.h"
#include "client/client.h"

/* ------------------------------------------------------------------------------------- staging */

/* First fit over a byte a granule: staging is small, and this is not the path that is meant to be
 * fast.  The caller holds the lock. */
static uint64_t staging_take(struct attachment *a, uint64_t bytes)
{
    uint64_t wanted = (bytes + WF_GRANULE - 1) / WF_GRANULE, all = a->staging_bytes / WF_GRANULE,
             run = 0;
    for (uint64_t i = 0; i < all; i++) {
        run = a->staged[i] ? 0 : run + 1;
        if (run == wanted) {
            memset(a->staged + i + 1 - wanted, 1, wanted);
            return (i + 1 - wanted) * WF_GRANULE + 1;
        }
    }
    return 0;
}

static void staging_give(struct attachment *a, uint64_t place, uint64_t bytes)
{
    if (place)
        memset(a->staged + (place - 1) / WF_GRANULE, 0, (bytes + WF_GRANULE - 1) / WF_GRANULE);
}

/* ------------------------------------------------------------------------------------- reserve */

static struct attachment *attachment_of(struct weft *w, uint64_t epoch)
{
    struct attachment *a = w->attachments;
    while (a && a->epoch != epoch)
        a = a->next;
    return a;
}

/* Tell the node that the reserved ones among `slots` will not be filled; those that were given back
 * already, or are of a node that is gone, it does not hear of.  The caller holds the lock. */
static void abort_locked(struct weft *w, struct attachment *a, const struct weft_slot *slots,
                         size_t count)
{
    struct wf_commit *request = (struct wf_commit *)(void *)w->request;
    memset(request, 0, sizeof *request);
    for (size_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK && slots[i].epoch == a->epoch)
            request->blocks[request->count++] =
                (struct wf_commit_block){.slot = slots[i].slot, .generation = slots[i].generation};
    if (request->count == 0)
        return;
    enum weft_status status = wf_client_exchange(w, a, WF_OP_ABORT,
                                                 sizeof *request +
                                                     request->count * sizeof request->blocks[0],
                                                 sizeof(struct wf_count_answer), NULL, NULL);
    (void)status; /* if the node did not hear it, it hears that we are gone */
}

/* One block of the node's answer, checked.  False: the node talks nonsense. */
static bool slot_take(struct attachment *a, const struct weft_format *f,
                      const struct wf_reserved *answer, struct weft_slot *out)
{
    *out = (struct weft_slot){.status = (enum weft_status)answer->status,
                              .slot = answer->slot,
                              .generation = answer->generation,
                              .epoch = a->epoch};
    if (answer->status == WEFT_EXISTS) {
        if (answer->entry != UINT32_MAX) {
            if (answer->entry >= a->pins.entries_max)
                return false;
            out->place = (uint64_t)answer->entry + 1;
        }
    } else if (answer->status == WEFT_OK) {
        if (f->block_bytes > a->pool_bytes || answer->offset > a->pool_bytes - f->block_bytes)
            return false;
        out->data = a->pool + answer->offset;
    }
    return true;
}

/* In a copied domain the client writes to its staging memory; blocks for which that has no room are
 * given back as FULL, and those chained behind them too. */
static void slots_stage(struct weft *w, struct attachment *a, const struct weft_format *f,
                        struct weft_slot *slots, size_t count)
{
    size_t i;
    bool full = false;
    for (i = 0; i < count && !full; i++) {
        if (slots[i].status != WEFT_OK)
            continue;
        slots[i].place = staging_take(a, f->block_bytes);
        slots[i].data = slots[i].place ? a->staging + slots[i].place - 1 : NULL;
        full = slots[i].place == 0;
    }
    if (!full)
        return;
    abort_locked(w, a, slots + i - 1, count - (i - 1));
    for (size_t rest = i - 1; rest < count; rest++) {
        if (slots[rest].status == WEFT_EXISTS && slots[rest].place)
            wf_pins_clear(&a->pins, (uint32_t)(slots[rest].place - 1));
        slots[rest] = (struct weft_slot){.status = WEFT_FULL};
    }
}

static uint64_t reserved_of(const struct weft_slot *slots, size_t count)
{
    uint64_t reserved = 0;
    for (size_t i = 0; i < count; i++)
        reserved += slots[i].status == WEFT_OK;
    return reserved;
}

static void request_fill(struct wf_reserve *request, const struct binding *binding,
                         const struct weft_key *parent, const struct weft_slot *parent_slot,
                         const struct weft_key *keys, size_t count, uint32_t flags)
{
    memset(request, 0, sizeof *request);
    request->format = (uint32_t)binding->id;
    request->count = (uint32_t)count;
    request->flags = flags;
    if (parent_slot && parent_slot->status == WEFT_OK) {
        request->parent_kind = WF_PARENT_SLOT;
        request->parent_slot = parent_slot->slot;
        request->parent_generation = parent_slot->generation;
    } else if (parent) {
        request->parent_kind = WF_PARENT_KEY;
        memcpy(request->parent, parent->bytes, sizeof request->parent);
    }
    memcpy(request->keys, keys->bytes, count * sizeof request->keys[0]);
}

enum weft_status wf_client_reserve(struct weft_format *f, const struct weft_key *parent,
                                   const struct weft_slot *parent_slot, const struct weft_key *keys,
                                   size_t count, uint32_t flags, struct weft_slot *slots)
{
    struct weft *w = f->weft;
    enum weft_status status;
    if (count == 0 || count > WEFT_BATCH_MAX)
        return wf_fail(WEFT_E_INVALID, "a reserve of %zu keys; give 1 to %d", count,
                       WEFT_BATCH_MAX);
    if (flags & ~(uint32_t)WF_RESERVE_FLAGS)
        return wf_fail(WEFT_E_INVALID,
                       "reserve flags 0x%x; those that there are (weft_reserve_flags) end at 0x%x",
                       flags, WF_RESERVE_FLAGS);
    struct attachment *a = wf_client_attach(w, &status);
    const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
    if (!binding)
        return status;
    if (parent_slot && parent_slot->status == WEFT_OK && parent_slot->epoch != a->epoch)
        return wf_fail(WEFT_E_NODE,
                       "the node was lost since the parent was reserved; start the chain again");
    pthread_mutex_lock(&w->lock);
    struct wf_reserve *request = (struct wf_reserve *)(void *)w->request;
    request_fill(request, binding, parent, parent_slot, keys, count, flags);
    const struct wf_reserve_answer *answer =
        (const struct wf_reserve_answer *)(const void *)w->answer;
    size_t answer_bytes = sizeof *answer + count * sizeof answer->blocks[0];
    status = wf_client_exchange(w, a, WF_OP_RESERVE,
                                sizeof *request + count * sizeof request->keys[0], answer_bytes,
                                NULL, NULL);
    bool sane = status == WEFT_OK && answer->count == count;
    for (size_t i = 0; sane && i < count; i++)
        sane = slot_take(a, f, &answer->blocks[i], &slots[i]);
    if (status == WEFT_OK && !sane)
        status = wf_fail(WEFT_E_PROTOCOL,
                         "the node's answer to a reserve points outside its segments");
    /* Counted before anything else is said to the node: an exchange that fails gives back what a
     * connection without reserved blocks has mapped. */
    uint64_t reserved = status == WEFT_OK ? reserved_of(slots, count) : 0;
    atomic_fetch_add_explicit(&a->busy, reserved, memory_order_seq_cst);
    if (status == WEFT_OK && a->copied) {
        slots_stage(w, a, f, slots, count);
        reserved -= reserved_of(slots, count); /* those that staging had no room for */
        atomic_fetch_sub_explicit(&a->busy, reserved, memory_order_seq_cst);
    }
    pthread_mutex_unlock(&w->lock);
    WF_CRASH("client.reserved");
    return status;
}

enum weft_status weft_reserve_keys(struct weft_format *f, const struct weft_key *parent,
                                   const struct weft_key *keys, size_t count, uint32_t flags,
                                   struct weft_slot *slots)
{
    return wf_client_reserve(f, parent, NULL, keys, count, flags, slots);
}

/* -------------------------------------------------------------------------------------- commit */

/* What a slot still holds goes back: the pin of an EXISTS, the staging room and the count of a
 * reserved one. The caller holds the lock. */
static void slot_release(struct weft *w, const struct weft_format *f, struct weft_slot *slot)
{
    struct attachment *a = attachment_of(w, slot->epoch);
    if (!a)
        return;
    if (slot->status == WEFT_EXISTS && slot->place)
        wf_pins_clear(&a->pins, (uint32_t)(slot->place - 1));
    if (slot->status == WEFT_OK) {
        if (a->copied)
            staging_give(a, slot->place, f->block_bytes);
        atomic_fetch_sub_explicit(&a->busy, 1, memory_order_seq_cst);
    }
    slot->place = 0;
    slot->epoch = 0;
    slot->data = NULL;
}

/* The reserved ones of `slots` as a request; returns how many. */
static uint32_t commit_fill(struct wf_commit *request, const struct attachment *a,
                            const struct weft_format *f, const struct weft_slot *slots,
                            size_t count)
{
    memset(request, 0, sizeof *request);
    for (size_t i = 0; i < count; i++) {
        const struct weft_slot *slot = &slots[i];
        if (slot->status != WEFT_OK || slot->epoch != a->epoch)
            continue;
        struct wf_commit_block *block = &request->blocks[request->count++];
        *block = (struct wf_commit_block){.slot = slot->slot, .generation = slot->generation};
        if (a->copied) {
            block->staging = slot->place - 1;
            block->checksum = wf_sum64(slot->data, f->block_bytes);
        }
    }
    return request->count;
}

/* Statuses of the answer, in the order in which commit_fill() took the slots. */
static void commit_take(struct weft *w, const struct weft_format *f, struct attachment *a,
                        struct weft_slot *slots, size_t count,
                        const struct wf_commit_answer *answer)
{
    uint32_t at = 0;
    uint64_t put = 0;
    for (size_t i = 0; i < count; i++) {
        bool asked = slots[i].status == WEFT_OK && slots[i].epoch == a->epoch;
        slot_release(w, f, &slots[i]);
        if (asked)
            slots[i].status = (enum weft_status)answer->status[at++];
        put += asked && slots[i].status == WEFT_OK;
    }
    atomic_fetch_add_explicit(&w->blocks_put, put, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->bytes_put, put * f->block_bytes, memory_order_relaxed);
}

static bool any_reserved(const struct weft_slot *slots, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK)
            return true;
    return false;
}

enum weft_status wf_client_commit(struct weft_format *f, struct weft_slot *slots, size_t count,
                                  const struct binding *session, const struct weft_key *tip)
{
    struct weft *w = f->weft;
    enum weft_status status = WEFT_OK;
    if (count > WEFT_BATCH_MAX)
        return wf_fail(WEFT_E_INVALID, "a commit of %zu blocks; give up to %d", count,
                       WEFT_BATCH_MAX);
    if (wf_client_forked(w))
        return wf_fail(WEFT_E_FORKED,
                       "this handle was made before fork(); the child calls weft_connect() itself");
    for (size_t i = 0; i < count; i++)
        if (slots[i].status == WEFT_OK && slots[i].epoch == 0)
            return wf_fail(WEFT_E_INVALID,
                           "slot %zu of %zu was not reserved, or was committed or "
                           "given back already; reserve first",
                           i, count);
    bool reserved = any_reserved(slots, count);
    pthread_mutex_lock(&w->lock);
    struct attachment *a = atomic_load_explicit(&w->current, memory_order_relaxed);
    bool same = true;
    for (size_t i = 0; i < count; i++)
        same &= slots[i].status != WEFT_OK || (a && slots[i].epoch == a->epoch);
    if (reserved && !same)
        status = wf_fail(WEFT_E_NODE,
                         "the node was lost since these blocks were reserved; they are not stored");
    /* A session that was registered over another connection has another number on this one. */
    if (session && session->attachment != a)
        session = NULL;
    if (status == WEFT_OK && a && (reserved || (session && tip))) {
        struct wf_commit *request = (struct wf_commit *)(void *)w->request;
        const struct wf_commit_answer *answer =
            (const struct wf_commit_answer *)(const void *)w->answer;
        uint32_t asked = commit_fill(request, a, f, slots, count);
        request->session = session ? session->id : 0;
        request->has_tip = tip != NULL;
        if (tip)
            memcpy(request->tip, tip->bytes, sizeof request->tip);
        WF_CRASH("client.commit.before_send");
        status = wf_client_exchange(w, a, WF_OP_COMMIT,
                                    sizeof *request + asked * sizeof request->blocks[0],
                                    sizeof *answer + asked * sizeof answer->status[0], NULL, NULL);
        WF_CRASH("client.commit.answered");
        if (status == WEFT_OK && answer->count == asked)
            commit_take(w, f, a, slots, count, answer);
        else if (status == WEFT_OK)
            status = wf_fail(WEFT_E_PROTOCOL, "the node answered for %u of %u blocks",
                             answer->count, asked);
    }
    for (size_t i = 0; i < count; i++)
        if (slots[i].epoch) {
            bool lost = slots[i].status == WEFT_OK;
            slot_release(w, f, &slots[i]);
            if (lost)
                slots[i].status = WEFT_MISS;
        }
    wf_client_drain_locked(w);
    pthread_mutex_unlock(&w->lock);
    return status;
}

enum weft_status weft_commit_slots(struct weft_format *f, struct weft_slot *slots, size_t count)
{
    return wf_client_commit(f, slots, count, NULL, NULL);
}

void weft_abort_slots(struct weft_format *f, struct weft_slot *slots, size_t count)
{
    struct weft *w = f->weft;
    if (wf_client_forked(w))
        return;
    pthread_mutex_lock(&w->lock);
    struct attachment *a = atomic_load_explicit(&w->current, memory_order_relaxed);
    for (size_t from = 0; from < count; from += WEFT_BATCH_MAX) {
        size_t n = count - from < WEFT_BATCH_MAX ? count - from : WEFT_BATCH_MAX;
        if (a)
            abort_locked(w, a, slots + from, n);
    }
    for (size_t i = 0; i < count; i++)
        if (slots[i].epoch) {
            bool reserved = slots[i].status == WEFT_OK;
            slot_release(w, f, &slots[i]);
            if (reserved)
                slots[i].status = WEFT_MISS;
        }
    wf_client_drain_locked(w);
    pthread_mutex_unlock(&w->lock);
}

enum weft_status wf_client_remove(struct weft_format *f, const struct weft_key *key, enum wf_op op,
                                  size_t *out_removed)
{
    struct weft *w = f->weft;
    enum weft_status status;
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_remove *request = (struct wf_remove *)(void *)w->request;
    memcpy(request->key, key->bytes, sizeof request->key);
    status = wf_client_exchange(w, a, op, sizeof *request, sizeof(struct wf_count_answer), NULL,
                                NULL);
    if (status == WEFT_OK)
        *out_removed = ((const struct wf_count_answer *)(const void *)w->answer)->count;
    pthread_mutex_unlock(&w->lock);
    return status;
}

enum weft_status weft_remove(struct weft_format *f, const struct weft_key *key, size_t *out_removed)
{
    return wf_client_remove(f, key, WF_OP_REMOVE, out_removed);
}

enum weft_status weft_remove_keys(struct weft_format *f, const struct weft_key *keys, size_t count,
                                  enum weft_status *out_statuses)
{
    struct weft *w = f->weft;
    enum weft_status status;
    size_t removed;
    if (count == 0 || count > WEFT_BATCH_MAX)
        return wf_fail(WEFT_E_INVALID, "a remove of %zu keys; give 1 to %d", count, WEFT_BATCH_MAX);
    if (count == 1) { /* which is waited for, a little */
        status = weft_remove(f, keys, &removed);
        bool said = status == WEFT_OK || status == WEFT_MISS || status == WEFT_E_BUSY;
        out_statuses[0] = said ? status : WEFT_MISS;
        return said ? WEFT_OK : status;
    }
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_remove *request = (struct wf_remove *)(void *)w->request;
    const struct wf_commit_answer *answer =
        (const struct wf_commit_answer *)(const void *)w->answer;
    memcpy(request->key, keys[0].bytes, sizeof request->key);
    memcpy(request->more, keys[1].bytes, (count - 1) * sizeof request->more[0]);
    status = wf_client_exchange(w, a, WF_OP_REMOVE,
                                sizeof *request + (count - 1) * sizeof request->more[0],
                                sizeof *answer + count * sizeof answer->status[0], NULL, NULL);
    if (status == WEFT_OK && answer->count != count)
        status = wf_fail(WEFT_E_PROTOCOL, "the node answered for %u of %zu blocks", answer->count,
                         count);
    for (size_t i = 0; status == WEFT_OK && i < count; i++)
        out_statuses[i] = (enum weft_status)answer->status[i];
    pthread_mutex_unlock(&w->lock);
    return status;
}
