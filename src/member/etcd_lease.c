/* SPDX-License-Identifier: Apache-2.0 */
#include "member/etcd_lease.h"

#include <stdio.h>
#include <string.h>

#include "sys/clock.h"

#define MARGIN_PARTS 20u /* of the length: for clocks of different speed and for who reads late */

struct wf_moment wf_moment_now(void)
{
    struct timespec boot;
    struct wf_moment now = {.ns = wf_now_ns()};
    clock_gettime(CLOCK_BOOTTIME, &boot);
    now.boot_ns = (uint64_t)boot.tv_sec * 1000000000u + (uint64_t)boot.tv_nsec;
    return now;
}

void wf_lease_count(struct wf_lease *lease, struct wf_moment asked, uint64_t length_ns)
{
    uint64_t counted = length_ns - length_ns / MARGIN_PARTS;
    lease->length_ns = length_ns;
    lease->until = (struct wf_moment){asked.ns + counted, asked.boot_ns + counted};
}

/* What is left of it, by the clock that says less. */
static uint64_t left_of(const struct wf_lease *lease, struct wf_moment now)
{
    uint64_t left = lease->until.ns > now.ns ? lease->until.ns - now.ns : 0;
    uint64_t boot = lease->until.boot_ns > now.boot_ns ? lease->until.boot_ns - now.boot_ns : 0;
    return left < boot ? left : boot;
}

bool wf_lease_good(const struct wf_lease *lease, struct wf_moment now)
{
    return lease->held && left_of(lease, now) > 0;
}

/* A renewal is asked for after a third, so half a length is left only when one has failed. */
static uint64_t doubtful_ns(const struct wf_lease *lease)
{
    return lease->length_ns / 2;
}

void wf_lease_standing(const struct wf_lease *lease, struct wf_moment now, struct wf_standing *out)
{
    uint64_t left = left_of(lease, now);
    memset(out, 0, sizeof *out);
    out->epoch = lease->epoch;
    out->until_ns = lease->until.ns;
    if (!lease->held)
        out->state = lease->otherwise;
    else if (left == 0)
        out->state = WF_STANDING_LOST;
    else if (left < doubtful_ns(lease))
        out->state = WF_STANDING_DOUBTFUL;
    else
        out->state = WF_STANDING_MEMBER;
    /* The host slept: the end is nearer than the clock of wf_now_ns() would have it. */
    if (lease->held && now.ns + left < lease->until.ns &&
        lease->until.ns - now.ns - left > lease->length_ns / MARGIN_PARTS)
        out->until_ns = now.ns + left;
    if (out->state == WF_STANDING_MEMBER)
        snprintf(out->why, sizeof out->why, "%s", lease->amiss);
    else if (lease->why[0])
        snprintf(out->why, sizeof out->why, "%s", lease->why);
    else if (out->state == WF_STANDING_LOST)
        snprintf(out->why, sizeof out->why, "the lease ended before it was renewed");
    else if (out->state == WF_STANDING_DOUBTFUL)
        snprintf(out->why, sizeof out->why, "half of the lease has gone by without a renewal");
    else
        snprintf(out->why, sizeof out->why, "etcd has not answered yet");
}

uint64_t wf_lease_edge(const struct wf_lease *lease, struct wf_moment now)
{
    uint64_t left = left_of(lease, now);
    if (!lease->held || left == 0)
        return UINT64_MAX;
    return now.ns + (left < doubtful_ns(lease) ? left : left - doubtful_ns(lease) + 1);
}
