/* SPDX-License-Identifier: Apache-2.0
 *
 * What a tier's budget of writes had left, kept in state_dir across starts: a node that is started
 * often would else begin with nothing each time, and hardly ever write.
 *
 * Main thread.
 */
#ifndef WF_DAEMON_BUDGET_H
#define WF_DAEMON_BUDGET_H

#include <stdbool.h>

struct wf_lower;

/* What the file says of a budget, which is never more than there is. */
struct wf_budget_kept {
    double bytes, at_s; /* then; what came in since is to be added */
    bool failed;        /* it cannot be written, and is not there */
};

/* The tier's budget is known: it goes on from what was kept, and with what came in since. */
void wf_budget_begin(struct wf_lower *lower);
/* So much was spent of it. */
void wf_budget_spent(struct wf_lower *lower, double bytes);
/* The node ends. */
void wf_budget_end(struct wf_lower *lower);

#endif
