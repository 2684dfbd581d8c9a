/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions that say when they come back are brought up before.
 */
#ifndef WF_SIM_AHEAD_H
#define WF_SIM_AHEAD_H

#include "sim/tiers.h"

bool wf_sim_ahead_init(struct wf_sim_below *below);
void wf_sim_ahead_fini(struct wf_sim_below *below);

/* A block left the pool: what DRAM's room is worth. */
void wf_sim_ahead_cheapest(struct wf_sim_below *below, uint32_t block);
/* Request `r` was served: if its session says when it comes back, look at it before. */
void wf_sim_ahead_plan(struct wf_sim_below *below, uint32_t r);
/* A request wants this block: is it one whose session was to come back?  Before it counts as used.
 */
void wf_sim_ahead_back(struct wf_sim_below *below, uint32_t block);
/* All that is to begin before `until_s`. */
void wf_sim_ahead_run(struct wf_sim_below *below, double until_s);

/* It is on the stage, whole. */
bool wf_sim_ahead_ready(const struct wf_sim_below *below, uint32_t block);
/* A request wants it, and takes it from the stage if it is there. */
void wf_sim_ahead_used(struct wf_sim_below *below, uint32_t block, bool loaded);

#endif
