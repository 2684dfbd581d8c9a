/* SPDX-License-Identifier: Apache-2.0
 *
 * What a store has around it, for tests: plain memory, a budget, pins that are counters, and an ear
 * for what goes.
 */
#ifndef TEST_STORE_WORLD_H
#define TEST_STORE_WORLD_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "../support/random.h"
#include "daemon/store.h"

#define WORLD_CLIENTS 8
#define WORLD_SLOTS 1024

struct world {
    struct wf_store store;
    void *memory;
    uint64_t budget;
    uint32_t pins[WORLD_SLOTS]; /* how often a slot is pinned */
    struct wf_reservations reservations[WORLD_CLIENTS];
    uint64_t gone_count;
    uint8_t gone_key[32];
    enum wf_evict_reason gone_reason;
    struct wf_gone gone; /* the last */
    void (*on_gone)(struct world *w, const uint8_t key[32], enum wf_evict_reason reason);
};

static inline uint64_t world_take(void *context, uint64_t least, uint64_t wanted)
{
    struct world *w = context;
    if (w->budget < least)
        return 0;
    uint64_t got = wanted < w->budget ? wanted : w->budget;
    w->budget -= got;
    return got;
}

static inline void world_give(void *context, uint64_t bytes)
{
    ((struct world *)context)->budget += bytes;
}

static inline void world_scan(void *context, void (*seen)(void *context, uint32_t slot),
                              void *seen_context)
{
    const struct world *w = context;
    for (uint32_t slot = 0; slot < WORLD_SLOTS; slot++)
        if (w->pins[slot])
            seen(seen_context, slot);
    seen(seen_context, UINT32_MAX - 7); /* a hostile table names anything */
}

static inline void world_gone(void *context, const uint8_t key[32], const struct wf_gone *gone)
{
    struct world *w = context;
    w->gone_count++;
    memcpy(w->gone_key, key, 32);
    w->gone_reason = gone->reason;
    w->gone = *gone;
    if (w->on_gone)
        w->on_gone(w, key, gone->reason);
}

static inline void world_open(struct world *w, uint64_t pool_granules, uint64_t quota_bytes,
                              uint64_t budget, uint32_t slots)
{
    uint64_t bytes = wf_index_bytes(slots, 0);
    assert(slots <= WORLD_SLOTS);
    memset(w, 0, sizeof *w);
    w->memory = aligned_alloc(WF_PAGE, bytes);
    assert(w->memory);
    memset(w->memory, 0, bytes);
    w->budget = budget;
    for (uint32_t i = 0; i < WORLD_CLIENTS; i++)
        w->reservations[i].head = WF_SLOT_NONE;
    struct wf_store_options options = {
        .index_memory = w->memory,
        .index_bytes = bytes,
        .slots_max = slots,
        .pool_bytes = pool_granules * WF_GRANULE,
        .quota_bytes = quota_bytes,
        .epoch = 1,
        .policy = &wf_policy_lru,
        .env = {.context = w,
                .budget_take = world_take,
                .budget_give = world_give,
                .scan_pins = world_scan,
                .gone = world_gone},
    };
    enum weft_status status = wf_store_init(&w->store, &options);
    assert(status == WEFT_OK);
}

static inline void world_close(struct world *w)
{
    wf_store_fini(&w->store);
    free(w->memory);
    w->memory = NULL;
}

#endif
