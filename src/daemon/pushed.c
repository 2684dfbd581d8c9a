/* SPDX-License-Identifier: Apache-2.0
 *
 * Room for blocks that other nodes push here, and what becomes of them.
 *
 * Each push has reservations of its own, which are the node's (WF_STORE_NODE): nobody finds them,
 * and they end when the push does, as blocks or as nothing.  All pushes together reserve no more
 * than fabric.push_max.  A block extends one that is here, one of the same push, or one of another
 * push that is on its way; if that other is not complete when this one is, this one waits for it.
 *
 * A block that another push brings is not here before that is over, and may never be: who finds
 * nothing wanted for that hears WEFT_E_BUSY, not WEFT_EXISTS, and hands over what it commits.
 */
#include <stdlib.h>
#include <string.h>

#include "daemon/below.h"
#include "daemon/described.h"
#include "daemon/fabric.h"
#include "daemon/push.h"
#include "daemon/telemetry.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define WAIT_NS 10000000000u /* for what a push extends, once its own end was said */

struct room {
    struct wf_push_event event;      /* first */
    struct wf_fabric_pushed *pushed; /* that the fabric waits for an answer to */
    struct wf_domain *domain;
    struct wf_reservations list;
    bool open;  /* it has reservations, and the memory of these may be written to */
    bool waits; /* its end was said, and it extends another one that is open */
    uint64_t bytes, since_ns;
    uint32_t count, slots[WF_FABRIC_PUSH_BLOCKS_MAX]; /* WF_SLOT_NONE: not wanted */
};

struct wf_pushed_rooms {
    struct room all[WF_FABRIC_PUSHES_MAX]; /* by wf_fabric_pushed.number */
    uint64_t bytes;                        /* that they have reserved */
};

enum weft_status wf_pushed_rooms_create(struct wf_pushed_rooms **out)
{
    *out = wf_calloc(1, sizeof **out, "blocks that others push");
    return *out ? WEFT_OK : WEFT_E_NO_MEMORY;
}

void wf_pushed_rooms_destroy(struct wf_pushed_rooms *rooms)
{
    free(rooms);
}

/* ---------------------------------------------------------------------------------------- room */

/* A slot that some push reserved for that key. */
static uint32_t slot_on_its_way(const struct wf_pushed_rooms *rooms, const struct wf_domain *domain,
                                const uint8_t key[32])
{
    uint8_t its[32];
    for (uint32_t p = 0; p < WF_FABRIC_PUSHES_MAX; p++) {
        const struct room *room = &rooms->all[p];
        if (!room->open || room->domain != domain)
            continue;
        for (uint32_t i = room->count; i-- > 0;) { /* the last is the likeliest */
            if (room->slots[i] == WF_SLOT_NONE)
                continue;
            wf_desc_key_read(&domain->store.index.desc[room->slots[i]], its);
            if (memcmp(its, key, 32) == 0)
                return room->slots[i];
        }
    }
    return WF_SLOT_NONE;
}

static bool parent_of(const struct wf_pushed_rooms *rooms, const struct room *room,
                      const struct wf_fabric_event *block, struct wf_parent *out)
{
    static const uint8_t none[32];
    *out = (struct wf_parent){.slot = WF_SLOT_NONE};
    if (memcmp(block->parent, none, 32) == 0)
        return block->depth == 0;
    out->slot = wf_store_find(&room->domain->store, block->parent);
    if (out->slot == WF_SLOT_NONE)
        out->slot = slot_on_its_way(rooms, room->domain, block->parent);
    if (out->slot == WF_SLOT_NONE)
        return false;
    out->depth = wf_store_depth(&room->domain->store, out->slot);
    return true;
}

/* Nothing is known here yet of what comes into this slot. */
static void slot_clear(struct wf_domain *domain, uint32_t slot)
{
    uint8_t others = (uint8_t) ~(1u << (slot % 8));
    domain->format_of[slot] = 0;
    domain->profile_of[slot] = 0;
    domain->used_again[slot / 8] &= others;
    domain->key_taken[slot / 8] &= others;
    domain->refused[slot / 8] &= others;
}

static void give_back(struct wf_pushed_rooms *rooms, struct room *room)
{
    /* Children before parents, so that no slot has to wait for another. */
    for (uint32_t i = room->count; i-- > 0;)
        if (room->slots[i] != WF_SLOT_NONE)
            wf_store_abort(&room->domain->store, &room->list, room->slots[i]);
    wf_store_bury(&room->domain->store);
    rooms->bytes -= room->bytes;
    room->open = false;
    room->bytes = 0;
    room->count = 0;
}

static enum weft_status reserve(struct wf_pushed_rooms *rooms, struct room *room)
{
    struct wf_fabric_pushed *pushed = room->pushed;
    struct wf_store *store = &room->domain->store;
    enum weft_status status = WEFT_OK;
    uint32_t wanted = 0;
    bool on_its_way = false;
    room->open = true;
    for (uint32_t i = 0; i < pushed->count && status != WEFT_FULL; i++) {
        const struct wf_fabric_event *block = &pushed->blocks[i];
        struct wf_parent parent;
        uint32_t slot = WF_SLOT_NONE;
        room->slots[i] = WF_SLOT_NONE;
        room->count = i + 1;
        if (slot_on_its_way(rooms, room->domain, block->key) != WF_SLOT_NONE) {
            on_its_way = true;
            continue;
        }
        if (!parent_of(rooms, room, block, &parent)) {
            status = WEFT_E_PARENT; /* neither is what extends it found a parent */
            continue;
        }
        enum weft_status one = wf_store_reserve(store, WF_STORE_NODE, &room->list, block->key,
                                                (uint32_t)block->bytes, &parent, WF_POLICY_ANY,
                                                &slot);
        if (one != WEFT_OK && one != WEFT_EXISTS)
            status = WEFT_FULL;
        if (one != WEFT_OK)
            continue;
        slot_clear(room->domain, slot);
        if (block->quality) { /* the fabric has seen that it is enough for the domain */
            wf_store_worsen(store, slot, (enum weft_quality)block->quality);
            room->domain->profile_of[slot] = pushed->profile;
        }
        room->slots[i] = slot;
        room->bytes += block->bytes;
        rooms->bytes += block->bytes;
        pushed->data[i] = (uint8_t *)room->domain->pool.memory +
                          atomic_load_explicit(&store->index.desc[slot].offset,
                                               memory_order_relaxed);
        wanted++;
    }
    if (wanted > 0)
        return WEFT_OK;
    room->open = false;
    return status != WEFT_OK ? status : on_its_way ? WEFT_E_BUSY : WEFT_EXISTS;
}

static void look_for_room(struct wf_node *node, struct wf_push_event *event)
{
    struct room *room = (struct room *)event;
    struct wf_fabric_pushed *pushed = room->pushed;
    struct wf_pushed_rooms *rooms = wf_pushed_rooms_of(node);
    uint64_t most = node->config.fabric_push_max ? node->config.fabric_push_max
                                                 : node->pool_bytes / 8;
    uint64_t bytes = pushed->count * pushed->bytes;
    room->domain = &node->domains[pushed->domain];
    room->list = (struct wf_reservations){.head = WF_SLOT_NONE};
    room->bytes = 0;
    room->count = 0;
    room->waits = false;
    if (node->draining || bytes > most || rooms->bytes > most - bytes || pushed->bytes > UINT32_MAX)
        pushed->status = WEFT_E_BUSY;
    else
        pushed->status = reserve(rooms, room);
    if (node->fabric)
        wf_fabric_pushed_answer(node->fabric, pushed);
}

/* ----------------------------------------------------------------------------------------- end */

/* Does a block of it that is to be kept extend one that another push still brings? */
static bool waits_for_another(const struct wf_pushed_rooms *rooms, const struct room *room)
{
    const struct wf_store *store = &room->domain->store;
    for (uint32_t i = 0; i < room->count; i++) {
        if (room->slots[i] == WF_SLOT_NONE || !wf_bit(room->pushed->keep, i))
            continue;
        uint32_t parent = atomic_load_explicit(&store->index.desc[room->slots[i]].parent,
                                               memory_order_relaxed);
        for (uint32_t p = 0; parent != WF_SLOT_NONE && p < WF_FABRIC_PUSHES_MAX; p++) {
            const struct room *other = &rooms->all[p];
            if (other == room || !other->open || other->domain != room->domain)
                continue;
            for (uint32_t k = 0; k < other->count; k++)
                if (other->slots[k] == parent)
                    return true;
        }
        return false; /* the first decides: the others extend it, or what is here */
    }
    return false;
}

static bool publish(struct room *room, uint32_t i)
{
    struct wf_domain *domain = room->domain;
    struct wf_store *store = &domain->store;
    uint32_t slot = room->slots[i];
    room->slots[i] = WF_SLOT_NONE;
    enum weft_status status = wf_store_commit(store, &room->list, &slot);
    if (status != WEFT_OK)
        return false; /* somebody was faster, or its parent is none */
    uint8_t key[32];
    wf_desc_key_read(&store->index.desc[slot], key);
    wf_below_entered(domain, key, false);
    wf_described_changed(domain, key);
    wf_node_fabric_here(domain, slot);
    return true;
}

static void conclude(struct wf_node *node, struct room *room)
{
    struct wf_fabric_pushed *pushed = room->pushed;
    struct wf_domain *domain = room->domain;
    for (uint32_t i = 0; i < room->count; i++)
        if (room->slots[i] != WF_SLOT_NONE && wf_bit(pushed->keep, i))
            pushed->published += publish(room, i);
    give_back(wf_pushed_rooms_of(node), room);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pushed->count; i++) {
        if (!wf_bit(pushed->committed, i))
            continue;
        kept++;
        pushed->missing += wf_store_find(&domain->store, pushed->blocks[i].key) == WF_SLOT_NONE;
    }
    pushed->existing = kept - pushed->missing - pushed->published;
    wf_telemetry_event(node, domain, "handed_over",
                       "%s pushed %u blocks while it wrote them: %u of them are here by that, %u "
                       "were here, %u it did not keep, %u are to be fetched",
                       pushed->from, pushed->count, pushed->published, pushed->existing,
                       pushed->count - kept, pushed->missing);
    wf_clients_unpark(node);
    if (node->fabric)
        wf_fabric_pushed_answer(node->fabric, pushed);
}

static void conclude_some(struct wf_node *node)
{
    struct wf_pushed_rooms *rooms = wf_pushed_rooms_of(node);
    uint64_t now_ns = wf_now_ns();
    for (bool some = true; some;) {
        some = false;
        for (uint32_t p = 0; p < WF_FABRIC_PUSHES_MAX; p++) {
            struct room *room = &rooms->all[p];
            if (!room->waits ||
                (now_ns - room->since_ns < WAIT_NS && waits_for_another(rooms, room)))
                continue;
            room->waits = false;
            conclude(node, room);
            some = true;
        }
    }
}

static void end(struct wf_node *node, struct wf_push_event *event)
{
    struct room *room = (struct room *)event;
    room->waits = true;
    room->since_ns = wf_now_ns();
    conclude_some(node);
}

void wf_pushed_rooms_tick(struct wf_node *node)
{
    conclude_some(node);
}

void wf_pushed_rooms_end(struct wf_node *node)
{
    struct wf_pushed_rooms *rooms = wf_pushed_rooms_of(node);
    for (uint32_t p = WF_FABRIC_PUSHES_MAX; p-- > 0;) {
        if (rooms->all[p].open)
            give_back(rooms, &rooms->all[p]);
        rooms->all[p].waits = false;
    }
}

/* -------------------------------------------------------------------- on the fabric's thread */

static void leave(struct wf_node *node, struct wf_fabric_pushed *pushed,
                  void (*run)(struct wf_node *node, struct wf_push_event *event))
{
    struct room *room = &wf_pushed_rooms_of(node)->all[pushed->number];
    room->pushed = pushed;
    room->event.run = run;
    wf_node_pushes_leave(node, &room->event);
}

void wf_node_push_room(struct wf_node *node, struct wf_fabric_pushed *pushed)
{
    leave(node, pushed, look_for_room);
}

void wf_node_push_end(struct wf_node *node, struct wf_fabric_pushed *pushed)
{
    leave(node, pushed, end);
}
