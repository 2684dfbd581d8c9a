/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hist.h"

#include <assert.h>

#define PARTS (1u << WF_HIST_PART_BITS)

/* Values below 2 × PARTS are their own bucket; above, the PART_BITS after the leading one choose
 * the part. */
static unsigned bucket_of(uint64_t value)
{
    if (value > WF_HIST_VALUE_MAX)
        value = WF_HIST_VALUE_MAX;
    if (value < 2 * PARTS)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - WF_HIST_PART_BITS;
    return shift * PARTS + (unsigned)(value >> shift);
}

/* The middle of a bucket's values. */
static uint64_t value_of(unsigned bucket)
{
    if (bucket < 2 * PARTS)
        return bucket;
    unsigned shift = bucket / PARTS - 1;
    uint64_t low = (uint64_t)(bucket % PARTS + PARTS) << shift;
    return low + ((1ULL << shift) - 1) / 2;
}

static void raise(_Atomic uint64_t *max, uint64_t value)
{
    uint64_t seen = atomic_load_explicit(max, memory_order_relaxed);
    while (seen < value &&
           !atomic_compare_exchange_weak_explicit(max, &seen, value, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
}

void wf_hist_record(struct wf_hist *hist, uint64_t value)
{
    atomic_fetch_add_explicit(&hist->buckets[bucket_of(value)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&hist->sum, value, memory_order_relaxed);
    raise(&hist->max, value);
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void wf_hist_merge(struct wf_hist *into, const struct wf_hist *from)
{
    for (unsigned i = 0; i < WF_HIST_BUCKETS; i++) {
        uint64_t count = load(&from->buckets[i]);
        if (count)
            atomic_fetch_add_explicit(&into->buckets[i], count, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&into->sum, load(&from->sum), memory_order_relaxed);
    raise(&into->max, load(&from->max));
}

uint64_t wf_hist_count(const struct wf_hist *hist)
{
    return wf_hist_count_below(hist, WF_HIST_VALUE_BITS);
}

uint64_t wf_hist_sum(const struct wf_hist *hist)
{
    return load(&hist->sum);
}

uint64_t wf_hist_max(const struct wf_hist *hist)
{
    return load(&hist->max);
}

uint64_t wf_hist_count_below(const struct wf_hist *hist, unsigned bits)
{
    assert(bits <= WF_HIST_VALUE_BITS);
    unsigned end = bucket_of((1ULL << bits) - 1);
    uint64_t count = 0;
    for (unsigned i = 0; i <= end; i++)
        count += load(&hist->buckets[i]);
    return count;
}

uint64_t wf_hist_quantile(const struct wf_hist *hist, double q)
{
    uint64_t count = wf_hist_count(hist), max = wf_hist_max(hist), seen = 0;
    if (!count)
        return 0;
    double wanted = q * (double)count;
    uint64_t rank = wanted <= 1 ? 1 : wanted >= (double)count ? count : (uint64_t)wanted;
    if ((double)rank < wanted && rank < count)
        rank++; /* the share must be reached, not approached */
    for (unsigned i = 0; i < WF_HIST_BUCKETS; i++) {
        seen += load(&hist->buckets[i]);
        if (seen >= rank) {
            uint64_t value = value_of(i);
            return value < max ? value : max;
        }
    }
    return max;
}
