/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory for all that may come, which costs only what has come.
 *
 * Addresses are set aside now; the kernel gives a zeroed page when one is first touched.  So a
 * table can be as large as its cap from the start, and nothing in it ever moves.
 */
#ifndef WF_BASE_RESERVE_H
#define WF_BASE_RESERVE_H

#include <stdint.h>

/* Zeroed.  NULL, with a sentence that names `what` and ends in `mend`, when there is no address
 * space. */
void *wf_reserve(uint64_t bytes, const char *what, const char *mend);

/* `memory` NULL: nothing. */
void wf_unreserve(void *memory, uint64_t bytes);

#endif
