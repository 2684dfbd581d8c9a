/* SPDX-License-Identifier: Apache-2.0
 *
 * A log-linear histogram of durations: every power of two is cut into 32 equal parts, so that any
 * value up to WF_HIST_VALUE_MAX is known to 1/64 (1.6 %) of itself, in memory that never grows.
 * After G. Tene's HdrHistogram.
 *
 *        value   0 … 63          64 … 127         128 … 255                       … 2^42 - 1
 *                ├─ exact ───┤   ├─ 32 parts ─┤   ├─ 32 parts ─┤       …
 *       bucket   0 … 63          64 … 95          96 … 127
 *
 * Any thread may record and any may read; counters are relaxed atomics, because nothing is
 * published through them.  A read beside writers is of no single instant, but each value in it was
 * recorded.
 */
#ifndef WF_BASE_HIST_H
#define WF_BASE_HIST_H

#include <stdatomic.h>
#include <stdint.h>

#define WF_HIST_PART_BITS 5
#define WF_HIST_VALUE_BITS 42 /* in ns: 73 minutes; what is longer counts as that */
#define WF_HIST_VALUE_MAX ((1ULL << WF_HIST_VALUE_BITS) - 1)
#define WF_HIST_BUCKETS ((WF_HIST_VALUE_BITS - WF_HIST_PART_BITS + 1) << WF_HIST_PART_BITS)

/* All zero is an empty one. */
struct wf_hist {
    _Atomic uint64_t buckets[WF_HIST_BUCKETS];
    _Atomic uint64_t sum; /* of the values as given, also those beyond WF_HIST_VALUE_MAX */
    _Atomic uint64_t max;
};

void wf_hist_record(struct wf_hist *hist, uint64_t value);

/* Add all that `from` holds, as a bench does with its threads' own histograms. */
void wf_hist_merge(struct wf_hist *into, const struct wf_hist *from);

uint64_t wf_hist_count(const struct wf_hist *hist);
uint64_t wf_hist_sum(const struct wf_hist *hist);
uint64_t wf_hist_max(const struct wf_hist *hist);

/* How many values were below 2^bits.  Exact, because buckets end at powers of two; bits ≤
 * WF_HIST_VALUE_BITS. */
uint64_t wf_hist_count_below(const struct wf_hist *hist, unsigned bits);

/* The value that a share of `q` (0 … 1) of all values does not exceed, to 1/64 of itself; 0 when
 * empty.  No more than the largest value recorded. */
uint64_t wf_hist_quantile(const struct wf_hist *hist, double q);

#endif
