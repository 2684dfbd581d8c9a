/* SPDX-License-Identifier: Apache-2.0
 *
 * Who asks for blocks that are below DRAM: clients, who wait for them or soon will, and hints of
 * sessions.  Owner thread.
 */
#include <string.h>

#include "base/hooks.h"
#include "daemon/ahead.h"
#include "daemon/fabric.h"
#include "daemon/load.h"
#include "sys/clock.h"

#define PARK_NS 3000000000u /* a client waits no longer than that for room to load into */

static void loaded_fill(struct wf_client *client, uint32_t slot, bool pin, struct wf_loaded *out)
{
    const struct wf_desc *desc = &client->domain->store.index.desc[slot];
    out->slot = slot;
    out->generation = wf_store_generation(&client->domain->store, slot);
    out->offset = atomic_load_explicit(&desc->offset, memory_order_relaxed);
    out->bytes = atomic_load_explicit(&desc->bytes, memory_order_relaxed);
    if (pin &&
        !wf_pins_place(&client->pins, &client->place_cursor, slot, out->generation, &out->entry))
        out->status = WEFT_MISS; /* its part of the pin table is full: a shorter hit */
}

static void asked_note(struct wf_ahead_asked *asked, uint32_t place, enum weft_status status)
{
    if (status != WEFT_PENDING && status != WEFT_FULL)
        return;
    asked->blocks++;
    asked->begun += status == WEFT_PENDING;
    asked->full |= status == WEFT_FULL;
    asked->last = place;
}

/* What nobody registered is no format's; nothing else is the matter with it. */
static uint16_t format_of(const struct wf_client *client, uint32_t format)
{
    const struct wf_node *node = client->node;
    bool known = format < node->format_count && node->formats[format].domain == client->domain->id;
    return known ? (uint16_t)(format + 1) : 0;
}

/* Whether others have it is asked, and nothing is loaded. */
static void find(struct wf_client *client, const struct wf_load *request,
                 struct wf_load_answer *answer)
{
    memset(answer->blocks, 0, request->count * sizeof answer->blocks[0]);
    wf_node_fabric_find(client, request, answer);
}

/* It comes back when something was written below; loads that were begun go on. */
static bool parked(struct wf_client *client, const struct wf_load *request,
                   const struct wf_load_answer *answer, uint32_t count)
{
    if (!wf_node_busy(client->node) || !wf_client_park(client, &request->message, PARK_NS))
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (answer->blocks[i].entry != UINT32_MAX)
            wf_pins_clear(&client->pins, answer->blocks[i].entry);
    return true;
}

/* Block after block, until one is not to be had: *out_first, and all after it are misses.  False:
 * the request waits for room. */
static bool load_each(struct wf_client *client, const struct wf_load *request,
                      struct wf_wanted *wanted, struct wf_load_answer *answer,
                      struct wf_ahead_asked *asked, uint32_t *out_first)
{
    bool prefetch = request->flags & WF_LOAD_PREFETCH, missed = !client->node->below;
    *out_first = request->count;
    for (uint32_t i = 0; i < request->count; i++) {
        struct wf_loaded *block = &answer->blocks[i];
        uint32_t slot = WF_SLOT_NONE;
        *block = (struct wf_loaded){.status = WEFT_MISS, .entry = UINT32_MAX};
        if (missed)
            continue;
        wanted->place = i;
        enum weft_status status = wf_load_one(client->domain, request->keys[i], wanted, &slot);
        if (status == WEFT_FULL && !prefetch && parked(client, request, answer, i))
            return false;
        asked_note(asked, i, status);
        if (status != WEFT_OK && status != WEFT_PENDING) {
            missed = true;
            *out_first = i;
            continue;
        }
        block->status = status;
        loaded_fill(client, slot, !prefetch, block);
        asked->bytes += status == WEFT_PENDING ? block->bytes : 0;
        missed = block->status == WEFT_MISS;
    }
    return true;
}

/* False: it waits for room, and is not to be answered yet. */
static bool load(struct wf_client *client, const struct wf_load *request,
                 struct wf_load_answer *answer)
{
    struct wf_node *node = client->node;
    struct wf_ahead_asked asked = {.blocks = 0};
    bool prefetch = request->flags & WF_LOAD_PREFETCH;
    struct wf_wanted wanted = {.class = prefetch ? WF_TIER_PREFETCH : WF_TIER_WAITED,
                               .deadline_us =
                                   prefetch ? wf_now_ns() / 1000 + request->within_ms * 1000ull
                                            : wf_session_due_us(client, request->session),
                               .of = request->count,
                               .whole = request->flags & WF_LOAD_BLOCKS,
                               .why = prefetch ? "prefetch" : "get",
                               .format = format_of(client, request->format),
                               .reader = prefetch ? WF_STORE_NODE : client->id};
    uint32_t first; /* of those that are not to be had */
    if (!prefetch)
        wf_session_back(client, request->session);
    wf_client_touches_drain(client); /* the beginning of its chain, which was in DRAM */
    bool done = load_each(client, request, &wanted, answer, &asked, &first);
    if (node->below)
        wf_loads_pump(node->below);
    if (!done || !prefetch)
        return done;
    if (node->below && first < request->count)
        wf_rest_keep(client->domain, request, first, answer, &asked);
    if (first < request->count)
        wf_node_fabric_look(client, request, first);
    wf_ahead_asked(client, request, &asked);
    return true;
}

void wf_handle_load(struct wf_client *client, const struct wf_load *request)
{
    struct wf_node *node = client->node;
    const struct wf_message *to = &request->message;
    uint32_t count = request->count;
    if (count == 0 || count > WEFT_BATCH_MAX ||
        to->bytes < sizeof *request + (uint64_t)count * sizeof request->keys[0]) {
        wf_answer_failure(client, to,
                          wf_fail(WEFT_E_INVALID,
                                  "a load of %u keys in %u bytes; give 1 to %u keys", count,
                                  to->bytes, WEFT_BATCH_MAX));
        return;
    }
    node->busy_ns = wf_now_ns();
    struct wf_load_answer *answer = (struct wf_load_answer *)(void *)node->answer;
    answer->count = count;
    answer->reserved = 0;
    if (request->flags & WF_LOAD_FIND) {
        find(client, request, answer);
    } else {
        if (!load(client, request, answer))
            return;
        WF_CRASH("load.before_answer");
    }
    wf_answer(client, to, WEFT_OK, sizeof *answer + count * sizeof answer->blocks[0], NULL, 0);
}

/* ------------------------------------------------------------------------------- asked by hints */

void wf_prefetch_chain(struct wf_domain *domain, const uint8_t tip[32], uint64_t deadline_us,
                       const char *why, struct wf_fetched *out)
{
    struct wf_below *below = domain->node->below;
    uint32_t entries[WF_LOADS_MAX], busy = wf_loads_busy(below);
    uint32_t count = wf_chain_absent(domain, tip, entries, WF_LOADS_MAX);
    struct wf_wanted wanted = {.class = WF_TIER_PREFETCH,
                               .deadline_us = deadline_us ? deadline_us : wf_now_ns() / 1000,
                               .of = count,
                               .whole = true,
                               .why = why,
                               .reader = WF_STORE_NODE};
    *out = (struct wf_fetched){.blocks = count};
    /* From the root: what is loaded without its parent could not be found. */
    for (uint32_t i = count; i-- > 0;) {
        struct wf_directory_block block;
        uint32_t slot;
        wf_directory_read(below->directory, entries[i], &block);
        wanted.place = count - 1 - i;
        out->status = wf_load_one(domain, block.key, &wanted, &slot);
        if (out->status != WEFT_OK && out->status != WEFT_PENDING)
            break;
        out->begun++;
        out->bytes += block.bytes;
    }
    out->fresh = wf_loads_busy(below) - busy;
    wf_loads_pump(below);
}
