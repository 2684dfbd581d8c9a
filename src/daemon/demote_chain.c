/* SPDX-License-Identifier: Apache-2.0
 *
 * A whole chain goes down because someone asked, or because its session said that it waits: from
 * its end on, block by block, as demote.c has it of each.  Owner thread.
 */
#include "daemon/below.h"

#define CHAIN_NS 3000000000u /* a client waits no longer than that for its chain to go down */

/* The last block of a chain that is in DRAM: those behind it have left for below already. */
static uint32_t end_in_dram(struct wf_domain *domain, const uint8_t tip[32])
{
    struct wf_below *below = domain->node->below;
    struct wf_directory_block block;
    uint32_t slot = wf_store_find(&domain->store, tip);
    uint32_t entry = slot == WF_SLOT_NONE ? wf_below_find(domain, tip) : WF_DIRECTORY_NONE;
    for (; slot == WF_SLOT_NONE && entry != WF_DIRECTORY_NONE; entry = block.parent) {
        wf_directory_read(below->directory, entry, &block);
        if (block.in_dram)
            slot = wf_store_find(&domain->store, block.key);
    }
    return slot;
}

/* One step down a chain, from its end: what is clean leaves DRAM, what is not is written.  What
 * finds no room but that of the chain's own blocks stays, and so does what it extends.  Returns how
 * many are being written. */
static uint32_t step_down(struct wf_domain *domain, const uint8_t tip[32], uint64_t *left)
{
    struct wf_store *store = &domain->store;
    struct wf_below *below = domain->node->below;
    uint32_t slot = end_in_dram(domain, tip), writing = 0;
    bool leaf = true, full = false;
    while (slot != WF_SLOT_NONE) {
        uint32_t parent = atomic_load_explicit(&store->index.desc[slot].parent,
                                               memory_order_relaxed);
        bool stays = store->slots[slot].holds || full;
        below->asked_full = false;
        enum wf_leave leave = stays ? WF_LEAVE_NOT : wf_demote_asked(domain, slot);
        full |= leave == WF_LEAVE_NOT && below->asked_full;
        leaf = leaf && leave == WF_LEAVE_NOW && wf_store_evict(store, slot, WF_EVICT_DEMOTED);
        *left += !leaf;
        writing += leave == WF_LEAVE_LATER;
        slot = parent;
    }
    return writing;
}

void wf_chain_cool(struct wf_domain *domain, const uint8_t tip[32])
{
    struct wf_store *store = &domain->store;
    uint32_t slot = end_in_dram(domain, tip);
    bool on = false;
    /* From its end, as far as no other chain shares it. */
    while (slot != WF_SLOT_NONE && store->slots[slot].holds == 0) {
        uint32_t parent = atomic_load_explicit(&store->index.desc[slot].parent,
                                               memory_order_relaxed);
        uint32_t child = store->slots[slot].child;
        if (child != WF_SLOT_NONE && store->slots[child].next != WF_SLOT_NONE)
            return;
        wf_store_cool(store, slot);
        on |= wf_demote_hinted(domain, slot, on) == WF_LEAVE_LATER;
        slot = parent;
    }
}

void wf_handle_demote(struct wf_client *client, const struct wf_demote *request)
{
    struct wf_node *node = client->node;
    struct wf_count_answer *answer = (struct wf_count_answer *)(void *)node->answer;
    uint64_t left = 0;
    if (!node->below) {
        wf_answer_failure(client, &request->message,
                          wf_fail(WEFT_E_INVALID,
                                  "the node has no tier below DRAM; name one in `tiers`"));
        return;
    }
    step_down(client->domain, request->tip, &left);
    if (left && client->domain->store.leaving &&
        wf_client_park(client, &request->message, CHAIN_NS))
        return;
    answer->count = left;
    wf_answer(client, &request->message, left ? WEFT_PENDING : WEFT_OK, sizeof *answer, NULL, 0);
}
