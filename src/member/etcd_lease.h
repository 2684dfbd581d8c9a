/* SPDX-License-Identifier: Apache-2.0
 *
 * How long a node may believe itself: its lease, by two clocks of its own.
 *
 * A lease is counted from just before it was asked for, and a margin is taken off, so that its end
 * here is before its end at the registry.  Standing is computed from the clock whenever it is asked
 * for; nobody has to have run in between, so a process that was stopped finds itself LOST when it
 * goes on.  The clock that other threads compare with stands still while the host sleeps; the other
 * (CLOCK_BOOTTIME) does not, and whichever is further on counts.  The wall clock counts nowhere.
 * Pure: no lock and no I/O of its own.
 */
#ifndef WF_MEMBER_ETCD_LEASE_H
#define WF_MEMBER_ETCD_LEASE_H

#include "member/member.h"

struct wf_moment {
    uint64_t ns;      /* of wf_now_ns() */
    uint64_t boot_ns; /* CLOCK_BOOTTIME */
};

struct wf_lease {
    bool held;                        /* as far as anybody has noticed */
    enum wf_standing_state otherwise; /* when it is not: JOINING, LOST or REFUSED */
    uint64_t epoch;                   /* of this or the last */
    struct wf_moment until;           /* likewise */
    uint64_t length_ns;
    char why[256];   /* what the registry said, or did not, last */
    char amiss[256]; /* what it refuses while the lease goes on; "": nothing */
};

struct wf_moment wf_moment_now(void);

/* A lease of `length_ns` that was asked for then. */
void wf_lease_count(struct wf_lease *lease, struct wf_moment asked, uint64_t length_ns);

/* It is held, and not over. */
bool wf_lease_good(const struct wf_lease *lease, struct wf_moment now);

void wf_lease_standing(const struct wf_lease *lease, struct wf_moment now, struct wf_standing *out);

/* When the standing changes by itself next, on the clock of wf_now_ns(); UINT64_MAX: never. */
uint64_t wf_lease_edge(const struct wf_lease *lease, struct wf_moment now);

#endif
