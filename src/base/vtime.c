/* SPDX-License-Identifier: Apache-2.0
 *
 * A heap of four children a node, by time and then by the order of setting.  Times lie in the heap
 * itself, so that a sift reads one place and not an event at each step; each event knows its place.
 */
#include "base/vtime.h"

#include <assert.h>
#include <stdlib.h>

#include "base/reserve.h"

struct entry {
    uint64_t at_ns, order;
    struct wf_vtime_event *event;
};

struct wf_vtime {
    struct entry *heap; /* [1 … count] */
    uint64_t now_ns, orders, happened;
    uint32_t count;
    bool within;
};

#define HEAP_BYTES ((uint64_t)(WF_VTIME_EVENTS_MAX + 1) * sizeof(struct entry))

enum weft_status wf_vtime_create(struct wf_vtime **out)
{
    struct wf_vtime *time = calloc(1, sizeof *time);
    if (!time)
        return wf_fail(WEFT_E_NO_MEMORY, "out of memory for virtual time");
    time->heap = wf_reserve(HEAP_BYTES, "the events of virtual time",
                            "raise the limit of address space");
    if (!time->heap) {
        free(time);
        return WEFT_E_NO_MEMORY;
    }
    time->now_ns = 1000000000u;
    *out = time;
    return WEFT_OK;
}

void wf_vtime_destroy(struct wf_vtime *time)
{
    if (!time)
        return;
    wf_unreserve(time->heap, HEAP_BYTES);
    free(time);
}

uint64_t wf_vtime_now(void *time)
{
    return ((struct wf_vtime *)time)->now_ns;
}

static bool sooner(const struct entry *a, const struct entry *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

/* Children of place p are 4p - 2 … 4p + 1. */
static uint32_t parent_of(uint32_t place)
{
    return (place + 2) / 4;
}

static void put(struct wf_vtime *time, uint32_t place, struct entry entry)
{
    time->heap[place] = entry;
    entry.event->place = place;
}

static void up(struct wf_vtime *time, uint32_t place, struct entry entry)
{
    for (; place > 1; place = parent_of(place)) {
        const struct entry *parent = &time->heap[parent_of(place)];
        if (!sooner(&entry, parent))
            break;
        put(time, place, *parent);
    }
    put(time, place, entry);
}

static void down(struct wf_vtime *time, uint32_t place, struct entry entry)
{
    for (;;) {
        uint32_t first = 4 * place - 2, best = 0;
        for (uint32_t child = first; child < first + 4 && child <= time->count; child++)
            if (!best || sooner(&time->heap[child], &time->heap[best]))
                best = child;
        if (!best || !sooner(&time->heap[best], &entry))
            break;
        put(time, place, time->heap[best]);
        place = best;
    }
    put(time, place, entry);
}

static void settle(struct wf_vtime *time, uint32_t place, struct entry entry)
{
    if (place > 1 && sooner(&entry, &time->heap[parent_of(place)]))
        up(time, place, entry);
    else
        down(time, place, entry);
}

void wf_vtime_at(struct wf_vtime *time, struct wf_vtime_event *event, uint64_t at_ns)
{
    struct entry entry = {at_ns < time->now_ns ? time->now_ns : at_ns, time->orders++, event};
    if (event->place) {
        settle(time, event->place, entry);
        return;
    }
    assert(time->count < WF_VTIME_EVENTS_MAX && "more events than virtual time has room for");
    time->count++;
    up(time, time->count, entry);
}

void wf_vtime_clear(struct wf_vtime *time, struct wf_vtime_event *event)
{
    uint32_t place = event->place;
    if (!place)
        return;
    assert(place <= time->count && time->heap[place].event == event);
    event->place = 0;
    struct entry last = time->heap[time->count--];
    if (last.event != event)
        settle(time, place, last);
}

uint64_t wf_vtime_next(const struct wf_vtime *time)
{
    return time->count ? time->heap[1].at_ns : WF_VTIME_NEVER;
}

bool wf_vtime_step(struct wf_vtime *time, uint64_t until_ns)
{
    assert(!time->within && "an event may not wait for another");
    if (wf_vtime_next(time) > until_ns || !time->count) {
        if (until_ns != WF_VTIME_NEVER && until_ns > time->now_ns)
            time->now_ns = until_ns;
        return false;
    }
    struct wf_vtime_event *event = time->heap[1].event;
    time->now_ns = time->heap[1].at_ns;
    wf_vtime_clear(time, event);
    time->happened++;
    time->within = true;
    event->happens(event);
    time->within = false;
    return true;
}

uint64_t wf_vtime_count(const struct wf_vtime *time)
{
    return time->happened;
}
