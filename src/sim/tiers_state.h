/* SPDX-License-Identifier: Apache-2.0
 *
 * What tiers.c and ahead.c share, and nobody else looks into.
 */
#ifndef WF_SIM_TIERS_STATE_H
#define WF_SIM_TIERS_STATE_H

#include "core/ahead.h"
#include "sim/heap.h"
#include "sim/tiers.h"

#define TIER_USES_MAX 15

struct tier_block {
    struct wf_reuse reuse; /* when it left the pool last, */
    double left_s;         /* which was then */
    uint32_t last;         /* the request that wanted it last */
    uint32_t children;     /* that have a copy below */
    uint8_t tiers;         /* a bit each that has a copy */
    uint8_t leads;         /* where children have, or had since there were none */
    uint8_t uses;          /* so far, up to TIER_USES_MAX */
};

/* Of blocks that had so many uses: how many there were, and how many were wanted again. */
struct tier_uses {
    double seen, again, gap_s;
};

struct tier_state {
    const struct wf_sim_tier *spec;
    struct wf_sim_heap heap; /* what was wanted longest ago first */
    double read_until_s, write_until_s;
    double ahead_until_s;     /* of reads that nobody waits for */
    double reads, read_s;     /* how many so far, and how long they took */
    double busy_s, busy_at_s; /* seconds of reading, fading */
    struct wf_wear wear;
    struct wf_sim_tier_result result;
};

enum ahead_said { AHEAD_NOTHING = 0, AHEAD_SAID, AHEAD_FETCHED };

/* Fetches ahead, and what they brought. */
struct ahead {
    struct wf_sim_heap due; /* requests whose session is to come back, by when to look */
    double *due_s;          /* [requests] when they said */
    uint8_t *said_of;       /* [requests] enum ahead_said */
    double *ready_s;        /* [blocks] on the stage from then on; 0: not there */
    double *until_s;        /* [blocks] on the stage: who wants it is late after that */
    uint32_t *queue;        /* [stage] a ring, the oldest first; what was used stays in it */
    uint32_t first, count;
    double *said_s;        /* [requests] what they said: in so many seconds */
    struct wf_ahead known; /* of all so far; who said is who was fetched */
};

struct wf_sim_below {
    struct wf_sim_below_plan plan;
    struct wf_sim_log log;
    const struct wf_sim_cache *pool;
    bool (*in_pool)(const struct wf_sim_cache *cache, uint32_t block);
    double block_bytes, link_bytes_s;
    struct wf_prefill prefill;
    double now_s, counted_from_s;
    uint32_t request;
    uint64_t left;          /* blocks that left the pool */
    double offered, placed; /* of those, without a copy, and of these, that got one */
    bool counted;
    struct tier_state tiers[WF_SIM_TIERS_MAX];
    struct tier_block *blocks;
    struct tier_uses uses[TIER_USES_MAX + 1];
    struct wf_run *runs; /* [chain_max + 1] of the request that runs */
    uint32_t found;      /* its blocks that are there */
    struct ahead ahead;
    struct wf_sim_below_result result;
};

double wf_sim_below_recompute_s(const struct wf_sim_below *below, uint32_t block);
void wf_sim_below_place(const struct wf_sim_below *below, int number, struct wf_place *out);
int wf_sim_below_where(const struct wf_sim_below *below, uint32_t block); /* -1: nowhere */
/* A block is read when nobody waits: when it has come. */
double wf_sim_below_read_ahead(struct wf_sim_below *below, int number);

#endif
