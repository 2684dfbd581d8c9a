/* SPDX-License-Identifier: Apache-2.0
 *
 * The faults of the simulated tier, and time and fate at a test's command.
 *
 * Everything that happens follows from the seed and the calls.  Time is virtual: a reap that finds
 * nothing goes on to the next completion without sleeping, as far as its timeout allows.
 */
#ifndef WF_TIER_SIM_H
#define WF_TIER_SIM_H

#include "tier/tier.h"

/* Probabilities are 0 … 1; all zero is a medium that is quick and never fails. */
struct wf_tier_sim_faults {
    uint32_t latency_us_max; /* each request takes 0 … this, so that they end in any order */
    uint32_t bytes_per_us;   /* bandwidth, shared by all; 0: without limit */
    double slow;             /* a request takes slow_us more */
    uint64_t slow_us;
    double read_error, write_error, flush_error; /* WEFT_E_SYSTEM */
    double rot;                                  /* a bit of what is read has flipped for good */
    double full;                                 /* a write finds no room, though there is some */
    double lost;                                 /* at a crash: an unflushed change never arrived */
    double torn;                                 /* or it arrived in part */
    double gone;                                 /* the medium vanishes at this request */
};

/* What the medium is like from now on; a newly made one has {.latency_us_max = 50, .lost = 0.3,
 * .torn = 0.3}.  It keeps its faults when the tier is closed and opened. */
void wf_tier_sim_faults(struct wf_tier *tier, const struct wf_tier_sim_faults *faults);

/* Power fails: requests in flight are never reaped, what was not flushed is kept, torn or lost, and
 * `tier` is no more.  Opening the same path finds what survived. */
void wf_tier_sim_crash(struct wf_tier *tier);

/* The medium of that path vanishes, or is back with what it had.  false: there is none. */
bool wf_tier_sim_plug(const char *path, bool plugged);

/* Flip one bit of the stored byte `at` of a block.  false: no such byte. */
bool wf_tier_sim_flip(struct wf_tier *tier, const uint8_t key[32], uint64_t at);

uint64_t wf_tier_sim_now_us(const struct wf_tier *tier);
void wf_tier_sim_advance(struct wf_tier *tier, uint64_t us);

/* Destroy the medium of that path, unless it is open.  false: it is, or there is none. */
bool wf_tier_sim_forget(const char *path);

#endif
