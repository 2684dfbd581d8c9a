/* SPDX-License-Identifier: Apache-2.0
 *
 * When was the Nth use?  A policy counts uses and keeps no times, because a time a block would cost
 * 8 bytes each; a few hundred samples of (uses so far, time) turn its count back into a time.
 *
 * Samples are taken at the owner's tick.  When all places are taken every second sample goes, and
 * from then on they are taken half as often: the error is one tick at first, and never more than
 * 1/128 of the time that is covered.  Owner thread only.
 */
#ifndef WF_DAEMON_AGES_H
#define WF_DAEMON_AGES_H

#include <stdint.h>

#define WF_AGES_SAMPLES 256

struct wf_ages_sample {
    uint64_t uses, ns; /* at `ns`, and not a tick before, that many uses had been */
};

/* All zero is an empty one. */
struct wf_ages {
    struct wf_ages_sample samples[WF_AGES_SAMPLES];
    uint32_t count;
    uint64_t interval_ns; /* no two samples are nearer */
};

/* Now, at `ns`, there have been `uses`; neither ever goes back. */
void wf_ages_note(struct wf_ages *ages, uint64_t uses, uint64_t ns);

/* Nanoseconds from use number `use` to `now_ns`: at least that long ago, by what the samples know.
 */
uint64_t wf_ages_since(const struct wf_ages *ages, uint64_t use, uint64_t now_ns);

#endif
