/* SPDX-License-Identifier: Apache-2.0
 *
 * Which of many numbered things is due next.  A binary heap by time, and each thing's place in it:
 * O(log n) a change, O(1) to look.  No I/O, no clock of its own; one thread.
 */
#ifndef WF_CORE_TIMERS_H
#define WF_CORE_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_TIMERS_NONE UINT32_MAX

struct wf_timers {
    uint32_t max, count;
    uint64_t *due;   /* [max] by number */
    uint32_t *place; /* [max] by number: index in heap + 1; 0: not set */
    uint32_t *heap;  /* [max] numbers, soonest first */
};

/* For things with numbers below `max`. */
enum weft_status wf_timers_init(struct wf_timers *timers, uint32_t max);
void wf_timers_fini(struct wf_timers *timers);

/* `number` is due at that time, and at no other. */
void wf_timers_set(struct wf_timers *timers, uint32_t number, uint64_t due);
/* No-op when it is not set. */
void wf_timers_cancel(struct wf_timers *timers, uint32_t number);

/* When the soonest is due; UINT64_MAX: none is set. */
uint64_t wf_timers_next(const struct wf_timers *timers);
/* The soonest, if it is due; it is not set any more.  WF_TIMERS_NONE: none is due. */
uint32_t wf_timers_pop(struct wf_timers *timers, uint64_t now);

#endif
