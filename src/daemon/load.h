/* SPDX-License-Identifier: Apache-2.0
 *
 * Between those who ask for blocks below DRAM (load_asked.c) and the loads themselves (load.c).
 * Owner thread.
 */
#ifndef WF_DAEMON_LOAD_H
#define WF_DAEMON_LOAD_H

#include "daemon/below.h"

/* How a block is wanted. */
struct wf_wanted {
    enum wf_tier_class class;
    uint64_t deadline_us; /* of the first block's first range */
    uint32_t place, of;   /* among the blocks of one request */
    bool whole;
    const char *why; /* a literal, for the event */
    uint32_t reader; /* for whose request; WF_STORE_NODE: of one that is to come */
    uint16_t format; /* by which it was asked for, and 1; 0: by none */
};

/* One key of a request.  WEFT_OK, WEFT_PENDING, WEFT_MISS, or WEFT_FULL: wait for room. */
enum weft_status wf_load_one(struct wf_domain *domain, const uint8_t key[32],
                             const struct wf_wanted *wanted, uint32_t *out_slot);
/* After the last of a request: what was begun is read. */
void wf_loads_pump(struct wf_below *below);

#endif
