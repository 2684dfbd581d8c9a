/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual time: a clock that stands still until the next event, and then is there.
 *
 * Simulated worlds (src/net/sim.h, src/member/sim.h) share one, so that what happens in all of them
 * happens in one order.  Events of one moment happen in the order in which they were set; nothing
 * else decides, so the same calls make the same history.  Code under test reads the time through a
 * function and a context, and in simulation those are wf_vtime_now() and the vtime.
 *
 * An event lies in whatever it happens to, and is in the heap or not: setting it again moves it,
 * so there is one timer a thing and no stale ones.  O(log n) a change.  One thread.
 */
#ifndef WF_BASE_VTIME_H
#define WF_BASE_VTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_VTIME_EVENTS_MAX (1u << 23) /* set at once */
#define WF_VTIME_NEVER UINT64_MAX

struct wf_vtime;

struct wf_vtime_event {
    /* Called once, at its time, when it is no longer set; may set and clear any. */
    void (*happens)(struct wf_vtime_event *event);
    uint32_t place; /* in the heap, from 1; 0: not set */
};

/* The clock begins at one second, so that 0 is never a moment that anything happened at. */
enum weft_status wf_vtime_create(struct wf_vtime **out);
/* Nothing in it happens any more. */
void wf_vtime_destroy(struct wf_vtime *time);

/* Nanoseconds; `time` is a struct wf_vtime. */
uint64_t wf_vtime_now(void *time);

/* It happens at that moment, or now if that is over, and at no other. */
void wf_vtime_at(struct wf_vtime *time, struct wf_vtime_event *event, uint64_t at_ns);
/* No-op when it is not set. */
void wf_vtime_clear(struct wf_vtime *time, struct wf_vtime_event *event);

/* When the next event is; WF_VTIME_NEVER: none is set. */
uint64_t wf_vtime_next(const struct wf_vtime *time);
/* Go to the next event that is not after `until_ns`, and have it happen; false: there is none, and
 * it is `until_ns` now (unless that is WF_VTIME_NEVER).  Not from within an event. */
bool wf_vtime_step(struct wf_vtime *time, uint64_t until_ns);

/* How many have happened. */
uint64_t wf_vtime_count(const struct wf_vtime *time);

#endif
