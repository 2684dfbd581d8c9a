/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/cache.h"

#include <string.h>

const struct wf_sim_cache_ops *const wf_sim_caches[] = {
    &wf_sim_lru,      &wf_sim_lru_leaf, &wf_sim_lfuda, &wf_sim_arc,  &wf_sim_s3fifo, &wf_sim_sieve,
    &wf_sim_wtinylfu, &wf_sim_gdsf,     &wf_sim_lhd,   &wf_sim_weft, &wf_sim_belady, NULL,
};

const struct wf_sim_cache_ops *wf_sim_cache_find(const char *name)
{
    for (size_t i = 0; wf_sim_caches[i]; i++)
        if (strcmp(wf_sim_caches[i]->name, name) == 0)
            return wf_sim_caches[i];
    return NULL;
}

uint32_t wf_sim_cache_serve(const struct wf_sim_cache_ops *ops, struct wf_sim_cache *cache,
                            const struct wf_sim_trace *trace, uint32_t request)
{
    const struct wf_sim_request *asked = &trace->requests[request];
    const uint32_t *blocks = trace->blocks + asked->first;
    uint32_t hits = 0;
    while (hits < asked->count && ops->holds(cache, blocks[hits]))
        hits++;
    if (ops->request)
        ops->request(cache, request, hits);
    else
        for (uint32_t i = asked->count; i-- > 0;)
            ops->touch(cache, blocks[i]);
    return hits;
}
