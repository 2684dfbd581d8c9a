/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/hints.h"

#include <stdlib.h>

#include "base/random.h"
#include "sim/belady.h"

static bool worth_room(const struct wf_sim_request *request, const uint8_t *kept)
{
    uint32_t first = request->count > 1, count = 0;
    for (uint32_t i = first; i < request->count; i++)
        count += kept[request->first + i];
    return 2 * count > request->count - first;
}

double wf_sim_hints_mistaken(const struct wf_sim_hints *hints, double right, double wrong)
{
    return wrong > 0 ? right * hints->recall * (1 - hints->precision) / hints->precision / wrong
                     : 0;
}

uint8_t *wf_sim_hints_of(const struct wf_sim_trace *trace)
{
    uint8_t *out = calloc(trace->request_count, 1);
    for (uint32_t r = 0; out && r < trace->request_count; r++)
        out[r] = (uint8_t)trace->requests[r].hint;
    return out;
}

enum weft_status wf_sim_hints_make(const struct wf_sim_trace *trace, uint32_t capacity,
                                   const struct wf_sim_hints *hints, uint64_t seed, uint8_t **out,
                                   struct wf_sim_hints_made *made)
{
    uint8_t *kept = NULL, *said = calloc(trace->request_count, 1);
    enum weft_status status = wf_sim_belady_kept(trace, capacity, &kept);
    if (status == WEFT_OK && !said)
        status = wf_fail(WEFT_E_NO_MEMORY, "no memory for hints about %u requests",
                         trace->request_count);
    if (status != WEFT_OK) {
        free(kept);
        free(said);
        return status;
    }
    struct wf_sim_hints_made sum = {0};
    for (uint32_t r = 0; r < trace->request_count; r++) {
        said[r] = worth_room(&trace->requests[r], kept);
        sum.requests_true += said[r];
    }
    double right = (double)sum.requests_true;
    double mistaken = wf_sim_hints_mistaken(hints, right, trace->request_count - right);
    sum.precision_missed = mistaken > 1;
    for (uint32_t r = 0; r < trace->request_count; r++) {
        bool truth = said[r];
        bool wanted = wf_random_part(&seed) < (truth ? hints->recall : mistaken);
        said[r] = wanted ? TRACE_HINT_WANTED : TRACE_HINT_DONE;
        sum.wanted += wanted;
        sum.wanted_true += wanted && truth;
    }
    free(kept);
    *out = said;
    if (made)
        *made = sum;
    return WEFT_OK;
}
