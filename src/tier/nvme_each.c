/* SPDX-License-Identifier: Apache-2.0
 *
 * All blocks of the NVMe tier told of, with their parents.
 *
 * Parents are 32 bytes a block that only this needs, so they are in memory no longer than from the
 * tier's opening until the first time, which is when whoever opened it learns what is there.
 * Afterwards they are read again: from the footers, and from a record's header where there is none.
 */
#include "tier/nvme_log.h"

#include <string.h>
#include <sys/mman.h>

struct gathering {
    struct wf_nvme *t;
    uint8_t (*parents)[32];
    uint8_t *known; /* of each item: its parent */
    uint8_t *footer;
};

static void take_entries(struct gathering *g, uint32_t segment, const uint8_t *memory,
                         uint64_t count)
{
    const struct wf_nvme_entry *entries = (const struct wf_nvme_entry *)(const void *)memory;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t item = wf_nvme_index_find_at(&g->t->index, entries[i].key, segment,
                                              entries[i].page);
        if (item == WF_NVME_NONE)
            continue;
        memcpy(g->parents[item], entries[i].parent, 32);
        g->known[item] = 1;
    }
}

static void take_footer(struct gathering *g, uint32_t segment)
{
    struct wf_nvme *t = g->t;
    uint32_t count = t->segment[segment].entries;
    uint64_t bytes = wf_nvme_footer_bytes(count);
    struct wf_nvme_footer footer;
    if (!count || !t->segment[segment].live_bytes ||
        wf_nvme_pread(t, g->footer, bytes,
                      wf_nvme_segment_at(t, segment) + t->segment_bytes - bytes) != WEFT_OK)
        return;
    memcpy(&footer, g->footer + bytes - WF_NVME_PAGE, sizeof footer);
    if (wf_nvme_footer_right(t, &footer, segment) && footer.count == count &&
        wf_nvme_entries_right(t, &footer, g->footer))
        take_entries(g, segment, g->footer, count);
}

/* A parent that cannot be read is told of as none: the block is a first one then, which loses its
 * place in a chain and gives nobody wrong bytes. */
static void take_record(struct gathering *g, uint32_t item)
{
    const struct wf_nvme *t = g->t;
    const struct wf_nvme_item *i = &t->index.items[item];
    struct wf_tier_block block;
    uint64_t at = (uint64_t)i->page * WF_NVME_PAGE;
    wf_nvme_index_block(&t->index, item, &block);
    uint64_t bytes = wf_nvme_header_bytes(wf_tier_parts(&block));
    memset(g->parents[item], 0, 32);
    if (wf_nvme_pread(g->t, g->footer, bytes, wf_nvme_segment_at(t, i->segment) + at) == WEFT_OK &&
        wf_nvme_record_at(t, i->segment, at, g->footer, bytes, &block) &&
        memcmp(block.key, i->key, 32) == 0)
        memcpy(g->parents[item], block.parent, 32);
}

static void gather(struct gathering *g)
{
    struct wf_nvme *t = g->t;
    for (uint32_t i = 0; i < WF_NVME_OPEN_MAX; i++)
        if (t->writer[i].segment != WF_NVME_NONE)
            take_entries(g, t->writer[i].segment, t->writer[i].footer, t->writer[i].count);
    for (uint32_t segment = 0; segment < t->segments; segment++)
        take_footer(g, segment);
    for (uint32_t item = 0; item < t->index.items_used; item++)
        if (t->index.items[item].bytes && !g->known[item])
            take_record(g, item);
}

void wf_nvme_each(struct wf_nvme *t,
                  void (*found)(void *context, const struct wf_tier_block *block), void *context)
{
    uint64_t items = t->index.items_used;
    uint64_t room = wf_nvme_footer_bytes(t->segment_bytes / WF_NVME_RECORD_MIN + 1);
    if (room < WF_NVME_HEADER_MAX)
        room = WF_NVME_HEADER_MAX;
    if (t->index.parents) {
        wf_nvme_index_each(&t->index, (const uint8_t(*)[32])t->index.parents, found, context);
        wf_nvme_index_drop_parents(&t->index);
        return;
    }
    if (!items)
        return;
    struct gathering g = {
        .t = t,
        .parents = wf_nvme_pages(items * 32, "the walk over a tier"),
        .known = wf_nvme_pages(items, "the walk over a tier"),
        .footer = wf_nvme_pages(room, "the walk over a tier"),
    };
    if (g.parents && g.known && g.footer) {
        gather(&g);
        wf_nvme_index_each(&t->index, (const uint8_t(*)[32])g.parents, found, context);
    }
    if (g.parents)
        munmap(g.parents, items * 32);
    if (g.known)
        munmap(g.known, items);
    if (g.footer)
        munmap(g.footer, room);
}
