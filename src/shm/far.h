/* SPDX-License-Identifier: Apache-2.0
 *
 * The far table of a domain: which keys lie below DRAM, and on which tier.
 *
 * Part of the index segment; the node writes, clients read it without a lock while they match.  It
 * is a hint: an entry has 56 bits of the key beside the 32 that chose its place, and the node
 * compares all 32 bytes before it loads anything.  So a false entry costs a miss, and a wrong byte
 * cannot come of it.
 *
 * Buckets are those of the index, one cache line of seven words and a count of those that had to
 * go further; a word is
 *
 *     63                                        8 7     6 5        0
 *    +-------------------------------------------+---------+----------+
 *    |   56 bits of the key                      | quality | tier + 1 |     0: empty
 *    +-------------------------------------------+---------+----------+
 *
 * and one atomic store writes it, so that a reader sees all of an entry or none.  Entries do not
 * move while they are there: a key that is there all the time is found every time.  Zeroed memory
 * is an empty table.
 */
#ifndef WF_SHM_FAR_H
#define WF_SHM_FAR_H

#include "base/status.h"
#include "shm/layout.h"

#define WF_FAR_TIER_MAX 62u

struct wf_far {
    struct wf_bucket *buckets;
    uint64_t bucket_count; /* 0: no tier is below, and nothing is ever found */
};

/* Buckets, and bytes, for so many blocks at a load of 4/5; 0 for none. */
uint64_t wf_far_bytes(uint32_t blocks_max, uint64_t *out_bucket_count);

/* Either side: the nearest tier that has the key, or -1.  A table that lies costs no more than a
 * false answer: what is read lies within bucket_count, and a search ends. */
int wf_far_find(const struct wf_far *far, const uint8_t key[32]);
/* The same, and the quality that it has there, which is never WEFT_QUALITY_DEFAULT. */
int wf_far_look(const struct wf_far *far, const uint8_t key[32], enum weft_quality *out);

/* Owner: the key is on `tier` (0 … WF_FAR_TIER_MAX) now, and on no other as far as the table knows.
 * False: no room near its place; a key that was there is there with its new tier and quality. */
bool wf_far_set(struct wf_far *far, const uint8_t key[32], unsigned tier,
                enum weft_quality quality);

/* Owner: the key is on none.  One that is not there is no mistake. */
void wf_far_clear(struct wf_far *far, const uint8_t key[32]);

#endif
