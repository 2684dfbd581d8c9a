/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ages.h"

void wf_ages_note(struct wf_ages *ages, uint64_t uses, uint64_t ns)
{
    if (ages->count) {
        const struct wf_ages_sample *last = &ages->samples[ages->count - 1];
        /* While nothing is used there is nothing to tell apart. */
        if (uses <= last->uses || ns - last->ns < ages->interval_ns)
            return;
    }
    if (ages->count == WF_AGES_SAMPLES) {
        /* The newest stays, so that the distances stay those of interval_ns. */
        for (uint32_t i = 0; i < WF_AGES_SAMPLES / 2; i++)
            ages->samples[i] = ages->samples[2 * i + 1];
        ages->count = WF_AGES_SAMPLES / 2;
        uint64_t span_ns = ns - ages->samples[0].ns;
        ages->interval_ns = span_ns / (WF_AGES_SAMPLES / 2);
    }
    ages->samples[ages->count++] = (struct wf_ages_sample){uses, ns};
}

uint64_t wf_ages_since(const struct wf_ages *ages, uint64_t use, uint64_t now_ns)
{
    uint32_t low = 0, high = ages->count; /* the first sample by which the use had been */
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ages->samples[middle].uses >= use)
            high = middle;
        else
            low = middle + 1;
    }
    if (low == ages->count || ages->samples[low].ns > now_ns)
        return 0; /* since the last sample: less than a tick ago */
    return now_ns - ages->samples[low].ns;
}
