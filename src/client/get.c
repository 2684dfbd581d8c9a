/* SPDX-License-Identifier: Apache-2.0
 *
 * Get: hold a chain, have what lies below DRAM brought up, and wait for its layers.
 *
 * Blocks in DRAM are pinned without a message (pin.c).  For the rest the node is asked once (op
 * LOAD): it reserves slots, places pins on them in our table, and begins to read.  What has arrived
 * of a block is in its descriptor (shm/layout.h, WF_PROGRESS_ALL), where we wait for it:
 *
 *     node                                  here
 *     bytes                                 word = load(desc.word)        acquire
 *     progress = n           release        COMMITTED: all of it is there
 *     …                                     progress = load(desc)         acquire
 *     progress = ALL         release        lost, or enough: done
 *     word = COMMITTED       release        RESERVED: sleep on it, look again
 *     wake
 *
 * How exact a block is shows only when it comes: the node says it in the word before it says that
 * anything is there.  So each look that finds enough looks at the word after that, and what has
 * lost more than our format allows is a miss, whoever asked for it, and by whichever key.
 *
 * A commit reuses the field that holds the progress, so a sleeper may miss the wake-up that comes
 * with it; it never sleeps longer than NAP_NS.
 */
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "client/client.h"
#include "sys/clock.h"
#include "sys/futex.h"
#include "sys/memory.h"

#define NAP_NS 2000000u
#define FIND_NAP_NS 500000u /* between two looks: an answer of others takes a few of them */

const char *weft_tier_name(enum weft_tier tier)
{
    static const char *const names[] = {"dram", "cxl", "nvme", "s3", "remote"};
    return (unsigned)tier < sizeof names / sizeof names[0] ? names[tier] : "unknown";
}

/* ---------------------------------------------------------------------------------------- match */

size_t wf_client_tiers(const struct weft_format *f, const struct attachment *a,
                       const struct weft_key *keys, size_t present, uint8_t *tiers,
                       uint32_t *out_load_us)
{
    uint64_t blocks_on[WF_FAR_TIERS] = {0};
    size_t near = wf_index_match(&a->index, keys->bytes, present);
    struct wf_found found;
    memset(tiers, WEFT_TIER_DRAM, present);
    for (size_t i = near; i < present; i++) {
        int tier = wf_far_find(&a->index.far, keys[i].bytes);
        if (tier >= 0 && tier < (int)WF_FAR_TIERS) {
            blocks_on[tier]++;
            tiers[i] = (uint8_t)atomic_load_explicit(&a->index.speeds[tier].kind,
                                                     memory_order_relaxed);
        } else if (!wf_index_find(&a->index, keys[i].bytes, &found)) {
            present = i; /* it went since */
        }
    }
    double us = 0;
    for (unsigned t = 0; t < WF_FAR_TIERS; t++) {
        const struct wf_tier_speed *speed = &a->index.speeds[t];
        uint32_t mbps = atomic_load_explicit(&speed->mbps, memory_order_relaxed);
        uint32_t latency = atomic_load_explicit(&speed->latency_us, memory_order_relaxed);
        if (blocks_on[t])
            us += latency + (mbps ? (double)blocks_on[t] * (double)f->block_bytes / mbps : 0);
    }
    *out_load_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
    return present;
}

enum weft_status weft_locate_keys(struct weft_format *f, const struct weft_key *chain, size_t count,
                                  uint8_t *out_tiers, size_t *out_present, uint32_t *out_load_us)
{
    enum weft_status status;
    struct attachment *a = wf_client_attach(f->weft, &status);
    if (!a)
        return status;
    enum weft_quality worst;
    size_t near, present = wf_client_present(a, chain, count, &near, &worst);
    *out_present = wf_client_tiers(f, a, chain, present, out_tiers, out_load_us);
    return WEFT_OK;
}

enum weft_status weft_quality_keys(struct weft_format *f, const struct weft_key *chain,
                                   size_t count, enum weft_quality *out_worst)
{
    enum weft_status status;
    struct attachment *a = wf_client_attach(f->weft, &status);
    if (!a)
        return status;
    size_t near;
    (void)wf_client_present(a, chain, count, &near, out_worst);
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------------ get */

/* Take what the node answered for one key into a pin.  False: it is not to be had. */
static bool take(const struct weft_format *f, struct attachment *a, const struct wf_loaded *loaded,
                 struct weft_pin *out)
{
    if (loaded->status != WEFT_OK && loaded->status != WEFT_PENDING)
        return false;
    if (loaded->entry < a->pins.node_first || loaded->entry >= a->pins.entries_max)
        return false;
    if (loaded->bytes != f->block_bytes || loaded->slot >= a->index.slots_max ||
        loaded->bytes > a->pool_bytes || loaded->offset > a->pool_bytes - loaded->bytes ||
        wf_client_worse(f, atomic_load_explicit(&a->index.desc[loaded->slot].word,
                                                memory_order_acquire))) {
        wf_pins_clear(&a->pins, loaded->entry);
        return false;
    }
    *out = (struct weft_pin){.data = a->pool + loaded->offset,
                             .bytes = loaded->bytes,
                             .weft = f->weft,
                             .attachment = a,
                             .slot = loaded->slot,
                             .entry = loaded->entry,
                             .generation = loaded->generation};
    return true;
}

/* Ask the node for up to WEFT_BATCH_MAX keys; returns how many of them, from the first, are held.
 */
static enum weft_status load_batch(struct weft_format *f, const struct binding *session,
                                   const struct weft_key *keys, size_t count, uint32_t flags,
                                   uint32_t within_ms, struct weft_pin *pins, size_t *out_held)
{
    struct weft *w = f->weft;
    enum weft_status status;
    struct attachment *a = wf_client_attach(w, &status);
    size_t held = 0;
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_load *request = (struct wf_load *)(void *)w->request;
    const struct wf_load_answer *answer = (const struct wf_load_answer *)(const void *)w->answer;
    request->count = (uint32_t)count;
    request->flags = flags;
    request->within_ms = within_ms;
    const struct binding *of = atomic_load_explicit(&f->binding, memory_order_acquire);
    request->format = of->attachment == a ? (uint32_t)of->id : UINT32_MAX;
    /* A session that was registered over another connection has another number on this one. */
    request->session = session && session->attachment == a ? session->id : 0;
    memcpy(request->keys, keys, count * sizeof keys[0]);
    status = wf_client_exchange(w, a, WF_OP_LOAD, sizeof *request + count * sizeof keys[0],
                                sizeof *answer + count * sizeof answer->blocks[0], NULL, NULL);
    WF_CRASH("client.load.answered");
    bool whole = status == WEFT_OK && answer->count == count;
    for (size_t i = 0; whole && i < count; i++) {
        const struct wf_loaded *loaded = &answer->blocks[i];
        bool there = pins ? take(f, a, loaded, &pins[i])
                          : loaded->status == WEFT_OK || loaded->status == WEFT_PENDING;
        if (there && held == i)
            held++;
        else if (there && pins) /* behind a gap: of no use */
            wf_pins_clear(&a->pins, loaded->entry);
    }
    pthread_mutex_unlock(&w->lock);
    *out_held = held;
    return status;
}

/* Have the keys from pins->blocks on brought up. */
static void load(struct weft_format *f, const struct binding *session, const struct weft_key *chain,
                 size_t count, uint32_t flags, struct weft_pins *pins)
{
    while (pins->blocks < count) {
        size_t from = pins->blocks, held = 0;
        size_t n = count - from < WEFT_BATCH_MAX ? count - from : WEFT_BATCH_MAX;
        if (load_batch(f, session, chain + from, n, flags, 0, pins->pins + from, &held) != WEFT_OK)
            return; /* a shorter hit */
        for (size_t i = from; i < from + held; i++)
            pins->data[i] = pins->pins[i].data;
        pins->blocks += (uint32_t)held;
        WF_CRASH("client.load.held");
        if (held < n)
            return;
    }
}

enum weft_status weft_get_keys(struct weft_format *f, const struct weft_key *chain, size_t count,
                               enum weft_order order, struct weft_pins *out)
{
    return wf_client_get(f, NULL, chain, count, order, out);
}

enum weft_status wf_client_get(struct weft_format *f, const struct binding *session,
                               const struct weft_key *chain, size_t count, enum weft_order order,
                               struct weft_pins *out)
{
    if (order != WEFT_LAYER_ORDER && order != WEFT_BLOCK_ORDER)
        return wf_fail(WEFT_E_INVALID, "order %d is neither WEFT_LAYER_ORDER nor WEFT_BLOCK_ORDER",
                       (int)order);
    if (count > UINT32_MAX / 2)
        return wf_fail(WEFT_E_INVALID, "%zu keys; a get takes up to 2^31 - 1", count);
    struct weft_pins pins = {.layer_bytes = f->layer_bytes, .format = f};
    pins.data = wf_calloc(count + 1, sizeof *pins.data, "held blocks");
    pins.pins = wf_calloc(count + 1, sizeof *pins.pins, "held blocks");
    enum weft_status status = pins.data && pins.pins ? WEFT_OK : WEFT_E_NO_MEMORY;
    while (status == WEFT_OK && pins.blocks < count) {
        status = weft_pin(f, &chain[pins.blocks], &pins.pins[pins.blocks]);
        if (status != WEFT_OK)
            break;
        pins.data[pins.blocks] = pins.pins[pins.blocks].data;
        pins.blocks++;
    }
    pins.loading = pins.blocks;
    struct attachment *a = status == WEFT_MISS ? wf_client_attach(f->weft, &status) : NULL;
    if (a && wf_far_find(&a->index.far, chain[pins.blocks].bytes) >= 0)
        load(f, session, chain, count, order == WEFT_BLOCK_ORDER ? WF_LOAD_BLOCKS : 0, &pins);
    /* What went since the match, and what our pin table has no room for, is a shorter hit. */
    if (status == WEFT_MISS || (status < 0 && status != WEFT_E_NO_MEMORY && pins.blocks > 0))
        status = WEFT_OK;
    pins.tokens = pins.blocks * f->request.block_tokens;
    if (status != WEFT_OK) {
        weft_pins_release(&pins);
        return status;
    }
    *out = pins;
    return WEFT_OK;
}

void weft_pins_release(struct weft_pins *pins)
{
    if (!pins)
        return;
    for (uint32_t i = 0; pins->pins && i < pins->blocks; i++)
        weft_unpin(&pins->pins[i]);
    free(pins->data);
    free(pins->pins);
    memset(pins, 0, sizeof *pins);
}

/* ----------------------------------------------------------------------------------------- wait */

/* What arrived: is it what our format asks for?  Its word is read after its progress, or its state,
 * was acquired, and what it lost was said there before. */
static enum weft_status exact_enough(const struct weft_format *f, const struct attachment *a,
                                     const struct weft_pin *pin)
{
    uint64_t word = atomic_load_explicit(&a->index.desc[pin->slot].word, memory_order_acquire);
    if (wf_word_generation(word) == pin->generation && !wf_client_worse(f, word))
        return WEFT_OK;
    return wf_fail(WEFT_MISS,
                   "a block came from below with more loss than its format allows; it was put by "
                   "a format that allows more; release the pins, and compute it");
}

static enum weft_status wait_pin(const struct weft_format *f, const struct weft_pin *pin,
                                 uint64_t bytes, uint64_t deadline_ns)
{
    const struct attachment *a = pin->attachment;
    uint32_t granules = bytes < pin->bytes ? (uint32_t)((bytes + WF_GRANULE - 1) / WF_GRANULE)
                                           : WF_PROGRESS_ALL;
    for (;;) {
        uint32_t progress = 0;
        enum weft_status status = wf_index_arrived(&a->index, pin->slot, pin->generation, granules,
                                                   &progress);
        if (status == WEFT_OK)
            return exact_enough(f, a, pin);
        if (status == WEFT_MISS)
            return wf_fail(WEFT_MISS, "a block could not be brought up from below; release the "
                                      "pins, and match again or compute it");
        if (!wf_index_alive(&a->index) ||
            atomic_load_explicit(&a->pins.header->closed, memory_order_relaxed))
            return wf_fail(WEFT_E_NODE, "the node was lost while a block was on its way");
        if (wf_now_ns() >= deadline_ns)
            return wf_fail(WEFT_E_TIMEOUT, "a block was still on its way after %u ms",
                           pin->weft->timeout_ms);
        wf_futex_wait(wf_progress_word(&a->index.desc[pin->slot]), progress, NAP_NS);
    }
}

static uint64_t deadline_of(const struct weft_pins *pins)
{
    return wf_now_ns() + (uint64_t)pins->format->weft->timeout_ms * 1000000u;
}

enum weft_status weft_wait_layer(const struct weft_pins *pins, uint32_t layer)
{
    if (!pins || !pins->format)
        return wf_fail(WEFT_E_INVALID, "nothing is held here; weft_get first");
    uint32_t layers = pins->format->request.layers;
    if (layer >= layers)
        return wf_fail(WEFT_E_INVALID, "layer %u of a model with %u", layer, layers);
    uint64_t bytes = pins->layer_bytes ? 2 * ((uint64_t)layer + 1) * pins->layer_bytes : UINT64_MAX;
    uint64_t deadline_ns = pins->loading < pins->blocks ? deadline_of(pins) : 0;
    enum weft_status status = WEFT_OK;
    for (uint32_t i = pins->loading; status == WEFT_OK && i < pins->blocks; i++)
        status = wait_pin(pins->format, &pins->pins[i], bytes, deadline_ns);
    return status;
}

enum weft_status weft_wait_block(const struct weft_pins *pins, uint32_t block)
{
    if (!pins || !pins->format || block >= pins->blocks)
        return wf_fail(WEFT_E_INVALID, "block %u of %u that are held; weft_get first", block,
                       pins ? pins->blocks : 0);
    if (block < pins->loading)
        return WEFT_OK;
    return wait_pin(pins->format, &pins->pins[block], UINT64_MAX, deadline_of(pins));
}

/* ------------------------------------------------------------------------------------- prefetch */

enum weft_status weft_prefetch_keys(struct weft_format *f, const struct weft_key *chain,
                                    size_t count, uint32_t within_ms, uint32_t *out_blocks)
{
    uint32_t blocks = 0;
    enum weft_status status = WEFT_OK;
    while (status == WEFT_OK && blocks < count) {
        size_t held = 0, n = count - blocks < WEFT_BATCH_MAX ? count - blocks : WEFT_BATCH_MAX;
        uint32_t flags = WF_LOAD_PREFETCH | WF_LOAD_BLOCKS | (blocks == 0 ? WF_LOAD_ROOT : 0);
        status = load_batch(f, NULL, chain + blocks, n, flags, within_ms, NULL, &held);
        blocks += (uint32_t)held;
        if (held < n)
            break;
    }
    if (status == WEFT_OK && out_blocks)
        *out_blocks = blocks;
    return status;
}

/* ----------------------------------------------------------------------------------------- find */

enum weft_status weft_find_keys(struct weft_format *f, const struct weft_key *chain, size_t count,
                                uint32_t within_ms, size_t *out_present)
{
    uint64_t until_ns = wf_now_ns() + (uint64_t)within_ms * 1000000u;
    bool asked = true;
    enum weft_status status = WEFT_OK;
    while (asked && status == WEFT_OK) {
        size_t near, held = 0, present;
        enum weft_quality worst;
        const struct attachment *a = wf_client_attach(f->weft, &status);
        if (!a)
            return status;
        present = wf_client_present(a, chain, count, &near, &worst);
        if (present == count)
            break;
        size_t from = present ? present - 1 : 0; /* which the node knows: its depth is the rest's */
        size_t n = count - from < WEFT_BATCH_MAX ? count - from : WEFT_BATCH_MAX;
        status = load_batch(f, NULL, chain + from, n, WF_LOAD_FIND | (from ? 0 : WF_LOAD_ROOT), 0,
                            NULL, &held);
        asked = held == n;
        if (asked && status == WEFT_OK && wf_now_ns() >= until_ns)
            status = wf_fail(WEFT_PENDING,
                             "other nodes are being asked who has a chain, for more "
                             "than the %u ms that were given",
                             within_ms);
        else if (asked)
            wf_nap(FIND_NAP_NS);
    }
    enum weft_status matched = status < 0 ? status : weft_match_keys(f, chain, count, out_present);
    return matched == WEFT_OK ? status : matched;
}
