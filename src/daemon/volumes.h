/* SPDX-License-Identifier: Apache-2.0
 *
 * What the file of each NVMe tier was when the node had it last, kept in state_dir across starts:
 * a file that is not there any more, and had archives, is not made anew without a word, for it may
 * be below a mount that is missing.
 *
 * Main thread.
 */
#ifndef WF_DAEMON_VOLUMES_H
#define WF_DAEMON_VOLUMES_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/config.h"

struct wf_lower;

struct wf_volume {
    uint64_t claim; /* wf_tier_stats.claim; 0: nothing is known */
    bool archives;  /* it had some */
    uint64_t at_ns; /* when it was written down */
};

/* The file in state_dir that keeps something of a tier at its path; false: its name is too long. */
bool wf_volume_place(const struct wf_lower *lower, const char *suffix, char out[WF_PATH_MAX]);
/* What is remembered of the tier at this path, before it is opened; to be given as `held`, 0 where
 * a file may be made. */
uint64_t wf_volume_recall(struct wf_lower *lower);
/* The tier is open: says so if it is another than it was. */
void wf_volume_opened(struct wf_lower *lower);
/* Archives came to it, or left. */
void wf_volume_tick(struct wf_lower *lower);

#endif
