/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/hints.h"

#include <stdlib.h>

#include "sim/belady.h"
#include "sim/random.h"

static bool worth_room(const struct wf_sim_request *request, const uint8_t *kept)
{
    uint32_t first = request->count > 1, count = 0;
    for (uint32_t i = first; i < request->count; i++)
        count += kept[request->first + i];
    return 2 * count > request->count - first;
}

enum weft_status wf_sim_hints_make(const struct wf_sim_trace *trace, uint32_t capacity,
                                   const struct wf_sim_hints *hints, uint64_t seed, uint8_t **out,
                                   struct wf_sim_hints_made *made)
{
    uint8_t *kept = NULL, *wanted = calloc(trace->request_count, 1);
    enum weft_status status = wf_sim_belady_kept(trace, capacity, &kept);
    if (status == WEFT_OK && !wanted)
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory for hints about %u requests",
                         trace->request_count);
    if (status != WEFT_OK) {
        free(kept);
        free(wanted);
        return status;
    }
    struct wf_sim_hints_made sum = {0};
    for (uint32_t r = 0; r < trace->request_count; r++) {
        wanted[r] = worth_room(&trace->requests[r], kept);
        sum.requests_true += wanted[r];
    }
    double right = (double)sum.requests_true, wrong = trace->request_count - right;
    double mistaken =
        wrong > 0 ? right * hints->recall * (1 - hints->precision) / hints->precision / wrong : 0;
    sum.precision_missed = mistaken > 1;
    for (uint32_t r = 0; r < trace->request_count; r++) {
        bool truth = wanted[r];
        wanted[r] = wf_sim_random_part(&seed) < (truth ? hints->recall : mistaken);
        sum.wanted += wanted[r];
        sum.wanted_true += wanted[r] && truth;
    }
    free(kept);
    *out = wanted;
    if (made)
        *made = sum;
    return WEFT_OK;
}
