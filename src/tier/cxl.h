/* SPDX-License-Identifier: Apache-2.0
 *
 * The CXL tier beyond tier.h: which medium it is on, and the hosts that share one.
 *
 * options.path is one of
 *   /dev/daxX.Y           a DAX character device; contents stay as long as the medium's do
 *   node:N                memory of NUMA node N; gone at restart, and a flush is refused.  One with
 *                         processors is plain DRAM, and refused unless options.dram_node
 *   file-emulation:PATH   a mapping of a regular file: an emulation, for tests.  Its blocks outlive
 *                         the process, and the machine only where a flush was reaped
 *
 * Unshared, a device belongs to one host at a time.  Shared (options.shared, options.host from 1 to
 * 255), extents are assigned to hosts one by one as they need them; tier.h's functions show a host
 * its own blocks, cxl_share.h those of all others.  Host 1 formats a new device.
 *
 * wf_tier_cxl_others is a tier of those, of the same path and host: reads copy from the other
 * host's extent to where they are asked to, news() tells what is published there, and nothing is
 * ever written, for its mapping does not allow it.  A removal only has the block told again.  It
 * can be opened when host 1 has formatted the device.
 *
 * What a load from a device that was unplugged does (SIGBUS) is caught: the tier is failed then,
 * and every request WEFT_E_SYSTEM.
 */
#ifndef WF_TIER_CXL_H
#define WF_TIER_CXL_H

#include "tier/tier.h"

#define WF_TIER_CXL_EXTENT_BYTES (2u << 20)

enum wf_cxl_medium {
    WF_CXL_MEDIUM_DAX = 1,
    WF_CXL_MEDIUM_NODE = 2,
    WF_CXL_MEDIUM_FILE = 3,
};

/* What `path` names; 0: nothing that this tier knows. */
enum wf_cxl_medium wf_tier_cxl_medium(const char *path);
/* "dax", "node", "file-emulation" */
const char *wf_tier_cxl_medium_name(enum wf_cxl_medium medium);
/* Whether blocks on it outlive the program: what may be archived there. */
bool wf_tier_cxl_persistent(const char *path);

/* Every host that has ever used a shared device; returns how many.  255 are the most.  Reads the
 * table of all extents. */
uint32_t wf_tier_cxl_hosts(struct wf_tier *tier, struct wf_tier_host *out, uint32_t max);

/* An operator's word that `host` is dead: its lock is void, its extents and the blocks in them are
 * ours from now on.  Whoever says so of a host that runs on takes its memory from under it; it
 * finds out within a second or two and fails.  Waits for the lock for up to timeout_ms; called
 * again, it goes on.  wf_tier_ops.fence. */
enum weft_status wf_tier_cxl_fence(struct wf_tier *tier, uint8_t host, uint32_t timeout_ms);

/* For tests: gone without a goodbye, as when the process dies. */
void wf_tier_cxl_crash(struct wf_tier *tier);

#endif
