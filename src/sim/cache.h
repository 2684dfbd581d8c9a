/* SPDX-License-Identifier: Apache-2.0
 *
 * A simulated cache of blocks: what every policy of `weft sim` looks like from outside.
 *
 * A request wants the blocks of one chain, from its beginning.  What counts as a hit is the same
 * for all: those blocks from the first on that are there before the request, up to the first that
 * is not; what lies behind a hole was kept in vain.  Then the cache takes the request in and lets
 * go of what it must, so that it never holds more than its capacity in blocks.
 *
 * Most policies of the literature know single objects: they give `touch`, and are shown the blocks
 * of a request from the last to the first, so that of two blocks of one request the deeper one is
 * the older.  That is the kindest order for them: it makes them give up chains from their ends.
 * Those that know requests give `request`.
 *
 * Not thread-safe; one cache, one run.
 */
#ifndef WF_SIM_CACHE_H
#define WF_SIM_CACHE_H

#include "core/policy.h"
#include "core/share.h"
#include "sim/load.h"

struct wf_sim_cache;

/* What a cache is made for.  Borrowed, and it stays as it is while the cache lives. */
struct wf_sim_world {
    const struct wf_sim_trace *trace;
    uint32_t capacity; /* blocks, at least 1 */
    uint64_t seed;
    const uint8_t *hints; /* [request_count] enum trace_hint; NULL: nobody says anything */
    double speed;         /* the clock that policies see runs so much faster than the trace's */
    double attention;     /* what a token's attention over one block costs, in parts of the rest */
    /* Told of each block that the cache lets go, or did not take in after it was there; `why`: NULL
     * where the policy says nothing.  NULL: nobody listens. */
    void (*gone)(void *context, uint32_t block, const struct wf_policy_reason *why);
    /* Before it: a domain gives, by the rule of core/share.h. */
    void (*gave)(void *context, uint32_t to, const struct wf_share_verdict *verdict);
    /* The last `count` blocks of the request that runs found no room, for the first of them would
     * have what is worth less than `bar` go (WF_POLICY_ANY: whatever may go, and nothing may).
     * NULL: nobody listens. */
    void (*full)(void *context, uint32_t count, float bar);
    /* Seconds to have a block again, for each GiB.  NULL: all are alike. */
    float (*cost_s_gib)(void *context, uint32_t block);
    void *context;
    bool below; /* what it lets go lies on a tier, as a rule */
    /* [domain_count] each domain's part of the cache; what is used is the cache's to count, who is
     * in a hurry the caller's.  NULL: all are one.  Only caches that have `held` go by it. */
    const struct wf_share *shares;
};

static inline void wf_sim_gone(const struct wf_sim_world *world, uint32_t block)
{
    if (world->gone)
        world->gone(world->context, block, NULL);
}

struct wf_sim_cache_ops {
    const char *name;
    const char *source;                                               /* the paper, in short */
    struct wf_sim_cache *(*create)(const struct wf_sim_world *world); /* NULL: no memory */
    void (*destroy)(struct wf_sim_cache *cache);
    bool (*holds)(const struct wf_sim_cache *cache, uint32_t block);
    uint32_t (*count)(const struct wf_sim_cache *cache); /* blocks held */
    uint32_t (*held)(const struct wf_sim_cache *cache,
                     uint32_t domain); /* NULL: it has no shares */
    /* One of these two. */
    void (*touch)(struct wf_sim_cache *cache, uint32_t block);
    void (*request)(struct wf_sim_cache *cache, uint32_t request, uint32_t hits);
};

extern const struct wf_sim_cache_ops wf_sim_lru, wf_sim_lfuda, wf_sim_arc, wf_sim_s3fifo,
    wf_sim_sieve, wf_sim_wtinylfu, wf_sim_gdsf, wf_sim_lhd, wf_sim_lru_leaf, wf_sim_weft,
    wf_sim_belady;

/* Of wf_sim_weft: this chain's blocks from `first` on were copied to another node, which goes on
 * with them: as far as no other chain has them, they go first.  Returns how many. */
uint32_t wf_sim_weft_moved(struct wf_sim_cache *cache, const uint32_t *blocks, uint32_t first,
                           uint32_t count);

/* All of them, in the order of tables and plots; NULL at the end. */
extern const struct wf_sim_cache_ops *const wf_sim_caches[];
const struct wf_sim_cache_ops *wf_sim_cache_find(const char *name);

/* Serve one request: how many of its blocks were hits. */
uint32_t wf_sim_cache_serve(const struct wf_sim_cache_ops *ops, struct wf_sim_cache *cache,
                            const struct wf_sim_trace *trace, uint32_t request);

#endif
