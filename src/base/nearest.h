/* SPDX-License-Identifier: Apache-2.0
 *
 * The known word that a mistyped one is nearest to.
 */
#ifndef WF_BASE_NEAREST_H
#define WF_BASE_NEAREST_H

#include <stddef.h>

#define WF_NEAREST_WORD_MAX 63 /* longer words have no neighbours */

/* How many letters must be added, dropped, changed or swapped with their neighbour to make `b` of
 * `a` (optimal string alignment).  WF_NEAREST_WORD_MAX + 1 when either is longer than
 * WF_NEAREST_WORD_MAX. */
unsigned wf_nearest_distance(const char *a, const char *b);

/* A search that is fed candidates one by one, because they come from several tables. */
struct wf_nearest {
    const char *word;
    const char *best; /* borrowed from the candidate; NULL: none is near */
    unsigned distance;
};

void wf_nearest_init(struct wf_nearest *search, const char *word);
void wf_nearest_offer(struct wf_nearest *search, const char *candidate);

#endif
