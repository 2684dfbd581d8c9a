/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ahead.h"

#include <math.h>

#define REMEMBERED 1000.0 /* sessions: of more, the older ones count for less */
#define WENT 100.0        /* blocks */
#define FAR_OFF 4.0       /* times what was said: further off is as good as not kept */
#define LATE_SPREADS 3.0

void wf_ahead_said(struct wf_ahead *ahead)
{
    if (ahead->said >= REMEMBERED) {
        ahead->said *= 1 - 1 / REMEMBERED;
        ahead->came *= 1 - 1 / REMEMBERED;
    }
    ahead->said++;
}

void wf_ahead_came(struct wf_ahead *ahead)
{
    ahead->came = fmin(ahead->came + 1, ahead->said);
}

/* The mean of what it is off, of a logistic distribution, is 2 · ln 2 of its scale. */
void wf_ahead_off(struct wf_ahead *ahead, double said_s, double off_s)
{
    if (!(said_s > 0))
        return;
    double scale = fmin(fabs(off_s) / said_s, FAR_OFF) / (2 * M_LN2);
    ahead->offs = fmin(ahead->offs + 1, REMEMBERED);
    ahead->off += (scale - ahead->off) / ahead->offs;
}

void wf_ahead_went(struct wf_ahead *ahead, double hits_s, double saved_s, double bytes)
{
    if (!(bytes > 0) || !isfinite(hits_s) || !isfinite(saved_s))
        return;
    ahead->rooms = fmin(ahead->rooms + 1, WENT);
    ahead->room += (hits_s * saved_s / bytes - ahead->room) / ahead->rooms;
}

static double spread_of(const struct wf_ahead *ahead)
{
    return ahead->offs > 0 ? ahead->off : WF_AHEAD_SPREAD;
}

struct wf_return wf_ahead_return(const struct wf_ahead *ahead, double due_s, double said_s)
{
    return (struct wf_return){.known = true,
                              .due_s = due_s,
                              .spread_s = spread_of(ahead) * said_s,
                              .reuse = {.chance = (ahead->came + 1) / (ahead->said + 1)}};
}

double wf_ahead_patience_s(const struct wf_ahead *ahead, double said_s)
{
    return LATE_SPREADS * spread_of(ahead) * said_s;
}
