/* SPDX-License-Identifier: Apache-2.0
 *
 * What the bound keeps: the truth that hints are made from.
 */
#ifndef WF_SIM_BELADY_H
#define WF_SIM_BELADY_H

#include "sim/load.h"

/* For each reference of the trace, 1 when Belady's cache of this capacity keeps the block from that
 * use until its next; for free().  WEFT_E_NO_MEMORY. */
enum weft_status wf_sim_belady_kept(const struct wf_sim_trace *trace, uint32_t capacity,
                                    uint8_t **out);

#endif
