/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/pins.h"

static uint64_t header_bytes(void)
{
    return (sizeof(struct wf_pins_header) + WF_PAGE - 1) / WF_PAGE * WF_PAGE;
}

void wf_pins_format(void *memory, uint32_t client, uint32_t node, struct wf_pins *out)
{
    struct wf_pins_header *header = memory;
    header->magic = WF_PINS_MAGIC;
    header->version = WF_LAYOUT_VERSION;
    header->entries_max = client + node;
    header->node_first = client;
    header->entries_offset = header_bytes();
    *out = (struct wf_pins){
        .header = header,
        .entries = (_Atomic uint64_t *)(void *)((char *)memory + header_bytes()),
        .entries_max = client + node,
        .node_first = client,
    };
}

enum weft_status wf_pins_attach(void *memory, uint64_t bytes, struct wf_pins *out)
{
    struct wf_pins_header *header = memory;
    bool long_enough = bytes >= sizeof *header;
    /* Read once: what is checked is what is kept. */
    uint32_t entries_max = long_enough ? header->entries_max : 0;
    uint32_t node_first = long_enough ? header->node_first : 0;
    if (!long_enough || header->magic != WF_PINS_MAGIC || header->version != WF_LAYOUT_VERSION ||
        header->entries_offset != header_bytes() || node_first > entries_max ||
        wf_pins_bytes(entries_max) > bytes)
        return wf_fail(WEFT_E_PROTOCOL, "the node's pin table is not of version %u, or too short",
                       WF_LAYOUT_VERSION);
    *out = (struct wf_pins){
        .header = header,
        .entries = (_Atomic uint64_t *)(void *)((char *)memory + header_bytes()),
        .entries_max = entries_max,
        .node_first = node_first,
    };
    return WEFT_OK;
}

/* The scan looks at entries below the high-water mark only, so the mark must be raised, in the same
 * total order, before an entry above it is taken. */
static void raise_high_water(struct wf_pins *pins, uint32_t needed)
{
    uint32_t mark = atomic_load_explicit(&pins->header->high_water, memory_order_relaxed);
    while (mark < needed &&
           !atomic_compare_exchange_weak_explicit(&pins->header->high_water, &mark, needed,
                                                  memory_order_seq_cst, memory_order_relaxed)) {}
}

/* An empty entry in [0, mark), searched once around from *cursor. */
static bool take_below(struct wf_pins *pins, uint32_t mark, uint32_t *cursor, uint64_t value,
                       uint32_t *out_entry)
{
    uint32_t at = *cursor;
    for (uint32_t tries = 0; tries < mark; tries++, at++) {
        if (at >= mark)
            at = 0;
        uint64_t expected = 0;
        /* seq_cst: the store half of the reader's store-then-load (index.h). */
        if (atomic_load_explicit(&pins->entries[at], memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(&pins->entries[at], &expected, value,
                                                    memory_order_seq_cst, memory_order_relaxed)) {
            *cursor = at;
            *out_entry = at;
            return true;
        }
    }
    return false;
}

bool wf_pins_take(struct wf_pins *pins, uint32_t *cursor, uint32_t slot, uint32_t generation,
                  uint32_t *out_entry)
{
    for (;;) {
        /* Acquire: pairs with raise_high_water in another thread of this client, so that its raise
         * comes before our entry in the total order, for the scan as for us. */
        uint32_t mark = atomic_load_explicit(&pins->header->high_water, memory_order_acquire);
        if (mark > pins->node_first)
            mark = pins->node_first;
        if (take_below(pins, mark, cursor, wf_pin_entry(slot, generation), out_entry))
            return true;
        if (mark >= pins->node_first)
            return false;
        *cursor = mark;
        raise_high_water(pins, pins->node_first - mark > 64 ? mark + 64 : pins->node_first);
    }
}

bool wf_pins_place(struct wf_pins *pins, uint32_t *cursor, uint32_t slot, uint32_t generation,
                   uint32_t *out_entry)
{
    uint32_t room = pins->entries_max - pins->node_first;
    for (uint32_t tries = 0; tries < room; tries++) {
        uint32_t at = pins->node_first + (*cursor + tries) % room;
        /* Acquire: pairs with the client's release of this entry. */
        if (atomic_load_explicit(&pins->entries[at], memory_order_acquire) != 0)
            continue;
        atomic_store_explicit(&pins->entries[at], wf_pin_entry(slot, generation),
                              memory_order_seq_cst);
        if (at - pins->node_first >= pins->node_mark)
            pins->node_mark = at - pins->node_first + 1;
        *cursor = (at - pins->node_first + 1) % room;
        *out_entry = at;
        return true;
    }
    return false;
}

static void scan_range(const struct wf_pins *pins, uint32_t from, uint32_t to,
                       void (*seen)(void *context, uint32_t slot), void *context)
{
    for (uint32_t i = from; i < to; i++) {
        /* seq_cst: the load half of the owner's store-then-load; it also is the acquire that pairs
         * with the client's release, so that a block is reused only after its last reader has read.
         */
        uint64_t entry = atomic_load_explicit(&pins->entries[i], memory_order_seq_cst);
        if ((uint32_t)entry != 0)
            seen(context, (uint32_t)entry - 1);
    }
}

void wf_pins_scan(const struct wf_pins *pins, void (*seen)(void *context, uint32_t slot),
                  void *context)
{
    uint32_t mark = atomic_load_explicit(&pins->header->high_water, memory_order_seq_cst);
    scan_range(pins, 0, mark < pins->node_first ? mark : pins->node_first, seen, context);
    scan_range(pins, pins->node_first, pins->node_first + pins->node_mark, seen, context);
}

void wf_pins_drain(struct wf_pins *pins, uint64_t *tail,
                   void (*touched)(void *context, uint32_t slot), void *context)
{
    uint64_t head = atomic_load_explicit(&pins->header->pins, memory_order_relaxed);
    if (head - *tail > WF_TOUCH_RING)
        *tail = head - WF_TOUCH_RING;
    for (; *tail != head; ++*tail) {
        uint32_t slot = atomic_load_explicit(&pins->header->touched[*tail % WF_TOUCH_RING],
                                             memory_order_acquire);
        if (slot != 0)
            touched(context, slot - 1);
    }
}
