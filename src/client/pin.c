/* SPDX-License-Identifier: Apache-2.0
 *
 * Match, pin, unpin: the calls that talk to nobody.
 *
 * A pin is taken by store-then-load (shm/index.h).  Three things are loaded after the store, all
 * seq_cst: the slot's word (the owner may be evicting it), the table's `closed` (the node may have
 * cut us off and no longer look at our pins) and our own `poisoned` (another thread may be about to
 * unmap).  Whoever changes one of them looks at the pin table afterwards, so either it sees our
 * pin, or we see the change and give the pin up.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/sum.h"
#include "client/client.h"

#define TRIES 8u /* of a pin, when the block changes under it each time */

/* Where this thread found its last free entry.  Threads start a cache line apart. */
static _Thread_local uint32_t cursor;
static _Thread_local bool cursor_set;
static _Atomic uint32_t threads_seen;

static uint32_t *cursor_of_thread(void)
{
    if (!cursor_set) {
        cursor = 8 * atomic_fetch_add_explicit(&threads_seen, 1, memory_order_relaxed) % 64;
        cursor_set = true;
    }
    return &cursor;
}

static inline void count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The block was found, and `entry` taken for it.  Is it still what was found, and are we still
 * believed? */
static bool confirmed(const struct attachment *a, const struct wf_found *found)
{
    return atomic_load_explicit(&a->index.desc[found->slot].word, memory_order_seq_cst) ==
               found->word &&
           wf_attachment_good(a);
}

static enum weft_status pin_on(struct weft_format *f, struct attachment *a,
                               const struct weft_key *key, struct weft_pin *out)
{
    struct wf_found found;
    struct wf_pins *pins = &a->pins;
    uint32_t entry;
    for (uint32_t tries = 0;; tries++) {
        if (!wf_index_find(&a->index, key->bytes, &found))
            goto miss;
        if (!wf_pins_take(pins, cursor_of_thread(), found.slot, wf_word_generation(found.word),
                          &entry))
            return wf_fail(
                WEFT_E_LIMIT,
                "all %u pins of this process are taken; unpin some, or raise limits.pins",
                pins->node_first);
        WF_CRASH("client.pin.taken");
        if (confirmed(a, &found))
            break;
        /* The owner asks about it, and it may well stay; or it went and came again. */
        wf_pins_clear(pins, entry);
        if (tries == TRIES || !wf_attachment_good(a))
            goto miss;
    }
    const struct wf_desc *desc = &a->index.desc[found.slot];
    uint64_t offset = atomic_load_explicit(&desc->offset, memory_order_relaxed);
    uint64_t bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    if (wf_client_worse(f, found.word) || bytes != f->block_bytes || bytes > a->pool_bytes ||
        offset > a->pool_bytes - bytes) {
        wf_pins_clear(pins, entry);
        goto miss;
    }
    wf_pins_touch(pins, found.slot);
    /* Not a read-modify-write: this is the one counter that can be a little short, and a locked
     * instruction would be a fifth of what a pin costs. */
    _Atomic uint64_t *sum = &pins->header->bytes_pinned;
    atomic_store_explicit(sum, atomic_load_explicit(sum, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
    *out = (struct weft_pin){
        .data = a->pool + offset,
        .bytes = bytes,
        .checksum = atomic_load_explicit(&desc->checksum, memory_order_acquire),
        .weft = f->weft,
        .attachment = a,
        .slot = found.slot,
        .entry = entry,
        .generation = wf_word_generation(found.word),
    };
    WF_CRASH("client.pin.held");
    return WEFT_OK;
miss:
    count(&pins->header->misses, 1);
    return WEFT_MISS;
}

enum weft_status weft_pin(struct weft_format *f, const struct weft_key *key, struct weft_pin *out)
{
    enum weft_status status;
    struct attachment *a = wf_client_attach(f->weft, &status);
    return a ? pin_on(f, a, key, out) : status;
}

enum weft_quality weft_pin_quality(const struct weft_pin *pin)
{
    const struct attachment *a = pin->attachment;
    /* Held, so the word is this generation's, or the node is lost, and says nothing new. */
    return a ? wf_word_quality(
                   atomic_load_explicit(&a->index.desc[pin->slot].word, memory_order_acquire))
             : WEFT_LOSSLESS;
}

void weft_unpin(struct weft_pin *pin)
{
    struct attachment *a = pin ? pin->attachment : NULL;
    if (!a)
        return;
    struct weft *w = pin->weft;
    uint32_t entry = pin->entry;
    memset(pin, 0, sizeof *pin);
    if (wf_client_forked(w))
        return; /* it is the parent's */
    wf_pins_clear(&a->pins, entry);
    if (atomic_load_explicit(&a->poisoned, memory_order_relaxed))
        wf_client_drain(w);
}

enum weft_status weft_pin_read(const struct weft_pin *pin, void *destination, size_t bytes)
{
    struct attachment *a = pin->attachment;
    if (!a || bytes < pin->bytes)
        return wf_fail(WEFT_E_INVALID,
                       a ? "the destination has %zu bytes, the block %llu"
                         : "no block is held here",
                       bytes, (unsigned long long)pin->bytes);
    const struct wf_desc *desc = &a->index.desc[pin->slot];
    memcpy(destination, pin->data, pin->bytes);
    /* As long as a block comes up from below, its progress is where the checksum will be.  Acquire:
     * pairs with the release that publishes it, after the progress was cleared. */
    enum wf_slot_state state = wf_word_state(
        atomic_load_explicit(&desc->word, memory_order_acquire));
    bool summed = state == WF_SLOT_COMMITTED || state == WF_SLOT_EVICTING;
    uint64_t checksum = summed ? atomic_load_explicit(&desc->checksum, memory_order_acquire) : 0;
    if (checksum == 0)
        checksum = wf_sum64(pin->data, pin->bytes);
    if (wf_sum64(destination, pin->bytes) == checksum)
        return WEFT_OK;
    memset(destination, 0, pin->bytes);
    struct weft *w = pin->weft;
    pthread_mutex_lock(&w->lock);
    if (!wf_client_forked(w) && !atomic_load_explicit(&a->poisoned, memory_order_relaxed)) {
        struct wf_corrupt *report = (struct wf_corrupt *)(void *)w->request;
        report->slot = pin->slot;
        report->generation = wf_word_generation(
            atomic_load_explicit(&desc->word, memory_order_relaxed));
        enum weft_status told = wf_client_exchange(w, a, WF_OP_CORRUPT, sizeof *report,
                                                   sizeof(struct wf_message), NULL, NULL);
        (void)told; /* that the bytes are wrong is the answer, whatever the node makes of it */
    }
    pthread_mutex_unlock(&w->lock);
    return wf_fail(
        WEFT_E_CORRUPT,
        "a block's bytes do not match its checksum; the node was told, compute it again");
}

size_t wf_client_present(const struct attachment *a, const struct weft_key *chain, size_t count,
                         size_t *out_near, enum weft_quality *out_worst)
{
    size_t near = wf_index_match(&a->index, chain->bytes, count);
    size_t present = wf_index_match_far(&a->index, chain->bytes, count, near);
    present = wf_index_quality(&a->index, chain->bytes, present, out_worst);
    if (!wf_attachment_good(a))
        near = present = 0;
    *out_near = near < present ? near : present;
    return present;
}

enum weft_status weft_match_keys(struct weft_format *f, const struct weft_key *chain,
                                 size_t chain_count, size_t *out_present)
{
    enum weft_quality worst;
    return wf_client_match(f, chain, chain_count, out_present, &worst);
}

enum weft_status wf_client_match(struct weft_format *f, const struct weft_key *chain,
                                 size_t chain_count, size_t *out_present,
                                 enum weft_quality *out_worst)
{
    enum weft_status status;
    struct attachment *a = wf_client_attach(f->weft, &status);
    if (!a)
        return status;
    count(&a->pins.header->matches, 1);
    size_t near, present = wf_client_present(a, chain, chain_count, &near, out_worst);
    count(&a->pins.header->asked, chain_count);
    count(&a->pins.header->matched, present);
    if (present > near)
        count(&a->pins.header->matched_far, present - near);
    *out_present = present;
    return WEFT_OK;
}

static void count_held(void *context, uint32_t slot)
{
    (void)slot;
    ++*(uint64_t *)context;
}

void weft_counters_read(struct weft *w, struct weft_counters *out)
{
    uint64_t held = 0;
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&w->lock);
    for (struct attachment *a = w->attachments; a; a = a->next) {
        const struct wf_pins_header *header = a->pins.header;
        out->pins += atomic_load_explicit(&header->pins, memory_order_relaxed);
        out->misses += atomic_load_explicit(&header->misses, memory_order_relaxed);
        wf_pins_scan(&a->pins, count_held, &held);
        out->matches += atomic_load_explicit(&header->matches, memory_order_relaxed);
        out->bytes_pinned += atomic_load_explicit(&header->bytes_pinned, memory_order_relaxed);
    }
    pthread_mutex_unlock(&w->lock);
    out->unpins = out->pins > held ? out->pins - held : 0;
    out->blocks_put = atomic_load_explicit(&w->blocks_put, memory_order_relaxed);
    out->bytes_put = atomic_load_explicit(&w->bytes_put, memory_order_relaxed);
    out->reconnects = atomic_load_explicit(&w->reconnects, memory_order_relaxed);
}
