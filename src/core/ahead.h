/* SPDX-License-Identifier: Apache-2.0
 *
 * What fetching ahead goes by: how well sessions keep the times that they say, whether they come at
 * all, and what the room is worth that they would take.
 *
 * How far off a time was counts in parts of the time that was said: who says eight seconds and
 * comes after ten is as far off as who says a minute and comes after 75 seconds.  All of it fades,
 * so that what is learned is of lately.  A few numbers, whatever was seen; no I/O, no clock; each
 * struct one thread.
 */
#ifndef WF_CORE_AHEAD_H
#define WF_CORE_AHEAD_H

#include "core/placement.h"

struct wf_ahead {
    double off, offs;   /* the mean scale of times that were off, and of how many */
    double said, came;  /* who said when, and who of them came */
    double room, rooms; /* what went from DRAM last saved: seconds a byte and second */
};

/* Before anything is known: the scale, in parts of what is said. */
#define WF_AHEAD_SPREAD 0.25

/* A session said so; of those that said so, one came. */
void wf_ahead_said(struct wf_ahead *ahead);
void wf_ahead_came(struct wf_ahead *ahead);
/* It came so far off the time that it said, before or after. */
void wf_ahead_off(struct wf_ahead *ahead, double said_s, double off_s);
/* A block went for room; each hit of it would have saved that much. */
void wf_ahead_went(struct wf_ahead *ahead, double hits_s, double saved_s, double bytes);

/* Who said now, or a while ago, that it would be back in said_s, which is at due_s. */
struct wf_return wf_ahead_return(const struct wf_ahead *ahead, double due_s, double said_s);
/* Who is later than that has not kept its word: 95 of 100 are back by then. */
double wf_ahead_patience_s(const struct wf_ahead *ahead, double said_s);

#endif
