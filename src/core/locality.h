/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a node stands, as an operator says: the switches above it from the top down, and itself, as
 * a path.
 *
 *     hall2/rack12/host7     hall2/rack12/host8     hall2/rack13/host1
 *              └── distance 1 ──┘          └── distance 2 ──┘
 *
 * The distance of two nodes is how many levels lie below the last that they have in common.  It is
 * an order and no measure: what was measured says more.
 */
#ifndef WF_CORE_LOCALITY_H
#define WF_CORE_LOCALITY_H

#include <stdint.h>

#include "base/status.h"

#define WF_LOCALITY_MAX 127u  /* bytes of a path */
#define WF_LOCALITY_LEVELS 8u /* in a path */
/* One of both has not said where it stands: as far as can be. */
#define WF_LOCALITY_UNKNOWN (WF_LOCALITY_LEVELS + 1)

/* Words of a-z, 0-9, dot, underscore and hyphen, up to WF_LOCALITY_LEVELS of them with '/' between.
 * "" is right, and says nothing.  WEFT_E_INVALID: what is wrong with it. */
enum weft_status wf_locality_check(const char *path);

/* 0: the same; WF_LOCALITY_UNKNOWN. */
uint32_t wf_locality_distance(const char *one, const char *other);

#endif
