/* SPDX-License-Identifier: Apache-2.0
 *
 * A client's pin table: what it holds, kept where the node can see it.
 *
 * The client takes and clears entries; the node reads them when it wants to evict, and forgets the
 * table when the client is gone.  So a pin costs no message, and a client that dies at any
 * instruction leaves none.
 */
#ifndef WF_SHM_PINS_H
#define WF_SHM_PINS_H

#include "base/status.h"
#include "shm/layout.h"

struct wf_pins {
    struct wf_pins_header *header;
    _Atomic uint64_t *entries;
    uint32_t entries_max;
    uint32_t node_first;
    uint32_t node_mark; /* node side: its part of the table up to here was used */
};

/* Node side: lay out a fresh mapping with room for `client` pins and for `node` pins placed by the
 * node. */
void wf_pins_format(void *memory, uint32_t client, uint32_t node, struct wf_pins *out);

/* Client side: check a mapping of `bytes`. */
enum weft_status wf_pins_attach(void *memory, uint64_t bytes, struct wf_pins *out);

/* Client: publish an intention to hold (slot, generation) in a free entry; false when none is free.
 * `cursor` is where this thread found its last one.  The caller then looks at the slot's word again
 * (seq_cst). */
bool wf_pins_take(struct wf_pins *pins, uint32_t *cursor, uint32_t slot, uint32_t generation,
                  uint32_t *out_entry);

/* Client: release.  Reads of the block before it cannot move behind it. */
static inline void wf_pins_clear(struct wf_pins *pins, uint32_t entry)
{
    atomic_store_explicit(&pins->entries[entry], 0, memory_order_release);
}

/* Client: count a pin, and tell the policy of it.  Lossy in the latter: what a ring of
 * WF_TOUCH_RING does not hold is forgotten. */
static inline void wf_pins_touch(struct wf_pins *pins, uint32_t slot)
{
    uint64_t at = atomic_fetch_add_explicit(&pins->header->pins, 1, memory_order_relaxed);
    atomic_store_explicit(&pins->header->touched[at % WF_TOUCH_RING], slot + 1,
                          memory_order_release);
}

/* Node: place a pin on the client's behalf; false when its part of the table is full. */
bool wf_pins_place(struct wf_pins *pins, uint32_t *cursor, uint32_t slot, uint32_t generation,
                   uint32_t *out_entry);

/* Node: call `seen` for every slot that the table names. */
void wf_pins_scan(const struct wf_pins *pins, void (*seen)(void *context, uint32_t slot),
                  void *context);

/* Node: call `touched` for what came into the ring since *tail. */
void wf_pins_drain(struct wf_pins *pins, uint64_t *tail,
                   void (*touched)(void *context, uint32_t slot), void *context);

#endif
