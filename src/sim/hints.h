/* SPDX-License-Identifier: Apache-2.0
 *
 * Hints made from the future, with noise by seed.
 *
 * The truth about a request: is what it leaves behind worth its room?  Yes when Belady's cache of
 * the same capacity keeps more than half of its blocks, beyond the first, which everybody shares,
 * from this request until each is wanted next.  A hint says "wanted" of the whole request or "done"
 * of the whole request: what is true is said to be wanted with the probability `recall`, what is
 * not with the one probability that makes a share of `precision` of all "wanted" true.
 */
#ifndef WF_SIM_HINTS_H
#define WF_SIM_HINTS_H

#include "sim/load.h"

struct wf_sim_hints {
    double precision, recall; /* above 0, up to 1 */
};

/* What came out of it. */
struct wf_sim_hints_made {
    uint64_t requests_true; /* of all */
    uint64_t wanted;        /* hints that say so */
    uint64_t wanted_true;   /* of them, those that are right */
    bool precision_missed;  /* so few are false that all of them were not enough */
};

/* How likely a hint about what is not true is to say "wanted", so that of all that are wanted the
 * share of `precision` is true, where so many are true and so many not; above 1: it cannot be. */
double wf_sim_hints_mistaken(const struct wf_sim_hints *hints, double right, double wrong);

/* Those that the trace's lines have, or NULL without memory; for free(). */
uint8_t *wf_sim_hints_of(const struct wf_sim_trace *trace);

/* For each request an enum trace_hint; for free(). */
enum weft_status wf_sim_hints_make(const struct wf_sim_trace *trace, uint32_t capacity,
                                   const struct wf_sim_hints *hints, uint64_t seed, uint8_t **out,
                                   struct wf_sim_hints_made *made);

#endif
