/* SPDX-License-Identifier: Apache-2.0
 *
 * What a test can do to the DRAM tier.  Built without -Dtest_hooks=true there is nothing of it.
 */
#ifndef WF_TIER_DRAM_H
#define WF_TIER_DRAM_H

#include "tier/tier.h"

#if WF_TEST_HOOKS
/* Flip one bit of the stored byte `at` of a block.  false: no such byte. */
bool wf_tier_dram_flip(struct wf_tier *tier, const uint8_t key[32], uint64_t at);
#endif

#endif
