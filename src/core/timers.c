/* SPDX-License-Identifier: Apache-2.0 */
#include "core/timers.h"

#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"

static void put(struct wf_timers *timers, uint32_t at, uint32_t number)
{
    timers->heap[at] = number;
    timers->place[number] = at + 1;
}

static uint64_t due_at(const struct wf_timers *timers, uint32_t at)
{
    return timers->due[timers->heap[at]];
}

static void sift_up(struct wf_timers *timers, uint32_t at)
{
    uint32_t number = timers->heap[at];
    while (at > 0 && due_at(timers, (at - 1) / 2) > timers->due[number]) {
        put(timers, at, timers->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(timers, at, number);
}

static void sift_down(struct wf_timers *timers, uint32_t at)
{
    uint32_t number = timers->heap[at];
    for (uint32_t below = 2 * at + 1; below < timers->count; below = 2 * at + 1) {
        if (below + 1 < timers->count && due_at(timers, below + 1) < due_at(timers, below))
            below++;
        if (due_at(timers, below) >= timers->due[number])
            break;
        put(timers, at, timers->heap[below]);
        at = below;
    }
    put(timers, at, number);
}

static void *table(uint32_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

enum weft_status wf_timers_init(struct wf_timers *timers, uint32_t max)
{
    *timers = (struct wf_timers){.max = max};
    timers->due = table(max, sizeof *timers->due);
    timers->place = table(max, sizeof *timers->place);
    timers->heap = table(max, sizeof *timers->heap);
    if (timers->due && timers->place && timers->heap)
        return WEFT_OK;
    wf_timers_fini(timers);
    return wf_fail(WEFT_E_NO_MEMORY, "out of memory for %u timers", max);
}

void wf_timers_fini(struct wf_timers *timers)
{
    free(timers->due);
    free(timers->place);
    free(timers->heap);
    memset(timers, 0, sizeof *timers);
}

void wf_timers_cancel(struct wf_timers *timers, uint32_t number)
{
    if (!timers->place[number])
        return;
    uint32_t at = timers->place[number] - 1, moved = timers->heap[--timers->count];
    timers->place[number] = 0;
    if (at == timers->count)
        return;
    put(timers, at, moved);
    sift_down(timers, at);
    sift_up(timers, timers->place[moved] - 1);
}

void wf_timers_set(struct wf_timers *timers, uint32_t number, uint64_t due)
{
    wf_timers_cancel(timers, number);
    timers->due[number] = due;
    timers->heap[timers->count++] = number;
    sift_up(timers, timers->count - 1);
}

uint64_t wf_timers_next(const struct wf_timers *timers)
{
    return timers->count ? due_at(timers, 0) : UINT64_MAX;
}

uint32_t wf_timers_pop(struct wf_timers *timers, uint64_t now)
{
    if (timers->count == 0 || due_at(timers, 0) > now)
        return WF_TIMERS_NONE;
    uint32_t number = timers->heap[0];
    wf_timers_cancel(timers, number);
    return number;
}
