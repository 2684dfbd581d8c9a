/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies below the simulated pool: tiers with capacity, latency, bandwidth and a budget of
 * writes, and the decisions of core/placement.h about them.
 *
 * As weftd does it: a block that leaves the pool is written below if it is admitted, and to the
 * tier where most is left of its gain; one that is below already goes without a write, for its copy
 * stays when it is read again; what a full tier lets go asks the tiers behind it.  A tier lets go
 * what was wanted longest ago, the deeper of one request first, so that it holds no child longer
 * than its parent.  Reads and writes are a queue each of each tier; a block that is on its way down
 * can be read all the while, since the pool keeps it until it has arrived.
 *
 * How likely a block is wanted again says the policy that let it go; where that says nothing, how
 * often blocks that had as many uses were wanted again so far.
 *
 * A part of the pool may be kept for what is fetched ahead: a session that is said to come back at
 * some time is brought up from below before it is due (`stage`).  Its blocks leave the stage when
 * they are wanted, or when
 * they are overdue and others need the room.  Nobody who waits for a read waits for such fetches.
 *
 * Deterministic; one thread.
 */
#ifndef WF_SIM_TIERS_H
#define WF_SIM_TIERS_H

#include "core/placement.h"
#include "sim/cache.h"
#include "sim/engine.h"

#define WF_SIM_TIERS_MAX 8

struct wf_sim_tier {
    char name[24];
    uint32_t capacity; /* blocks */
    double latency_s, read_bytes_s, write_bytes_s;
    double drive_writes; /* a day; 0: not counted */
};

/* Presets by the kind of a medium: "cxl", "nvme", "qlc", "s3"; NULL: there is none of that name.
 * The entry after the last has no name; its capacity is not set. */
extern const struct wf_sim_tier wf_sim_tier_kinds[];
const struct wf_sim_tier *wf_sim_tier_kind(const char *name);

/* What happened, and why. */
enum wf_sim_event_kind {
    WF_SIM_EVICTED = 0, /* it left the pool, by `why` */
    WF_SIM_CLEAN,       /* and there is a copy below already */
    WF_SIM_PLACED,      /* and goes to tier `place` */
    WF_SIM_REFUSED,     /* and is lost */
    WF_SIM_DROPPED,     /* tier `from` lets it go */
    WF_SIM_CUT,         /* a request finds blocks below */
    WF_SIM_FETCHED,     /* ahead, or not */
    WF_SIM_SHARED,      /* a domain gives to another, or of its own */
    WF_SIM_FULL,        /* the last `blocks` of a request found no room in the pool */
};
struct wf_sim_event {
    enum wf_sim_event_kind kind;
    uint64_t number;  /* of all that left the pool, from 1 */
    uint32_t request; /* in which it happened */
    uint32_t block;   /* WF_SIM_NONE: it is about the request */
    uint32_t blocks; /* of a cut, of a fetch: how many are there; of a refusal: how many it is of */
    float bar;       /* of that: only what is worth less would have gone; WF_POLICY_ANY: anything */
    double now_s;
    int from, place; /* tiers; -1: the pool, none */
    bool has_why;
    struct wf_policy_reason why;
    struct wf_reuse reuse;
    struct wf_admission admission;
    struct wf_cut cut;
    struct wf_prefetch prefetch;
    struct wf_share_verdict verdict;
};
struct wf_sim_log {
    void (*note)(void *context, const struct wf_sim_event *event); /* NULL: nobody listens */
    void *context;
};

struct wf_sim_tier_result {
    uint64_t blocks_hit; /* loaded for a request */
    uint64_t blocks_written, blocks_evicted;
    uint64_t bytes_read, bytes_written;
    double written_a_day, budget_a_day; /* bytes; budget 0: none */
};

struct wf_sim_below_result {
    struct wf_sim_tier_result tier[WF_SIM_TIERS_MAX];
    uint64_t pool_hit;                /* blocks loaded from the pool itself */
    uint64_t computed;                /* there, and computed all the same, for that was sooner */
    uint64_t clean;                   /* left the pool with a copy below */
    uint64_t decided[WF_ADMIT_RULES]; /* of those that left without one */
    uint64_t staged, staged_hit;      /* blocks fetched ahead, and those that were wanted in time */
    uint64_t fetches[4];              /* by enum wf_prefetch_rule */
};

struct wf_sim_below_plan {
    const struct wf_sim_tier *tiers; /* nearest first; borrowed, as all here */
    int count;
    uint32_t stage; /* blocks of the pool for what is fetched ahead */
    bool always; /* whatever leaves the pool is written to the nearest tier that may be written */
    const struct wf_sim_trace *trace;
    const struct wf_sim_model *model;
    const uint8_t *hints; /* as in the world; NULL: none */
    double speed;
};

struct wf_sim_below;
struct wf_sim_below *wf_sim_below_create(const struct wf_sim_below_plan *plan,
                                         const struct wf_sim_log *log); /* NULL: no memory */
void wf_sim_below_destroy(struct wf_sim_below *below);
/* The pool above, once it is there. */
void wf_sim_below_pool(struct wf_sim_below *below, const struct wf_sim_cache *pool,
                       bool (*holds)(const struct wf_sim_cache *cache, uint32_t block));

/* Before request `r` is served: `hits` of its blocks are in the pool, the engine is busy for
 * `queue_s`.  What of it is loaded, from wherever. */
void wf_sim_below_request(struct wf_sim_below *below, uint32_t r, uint32_t hits, double queue_s,
                          struct wf_cut *out);
/* While it is served: a block leaves the pool. */
void wf_sim_below_gone(struct wf_sim_below *below, uint32_t block,
                       const struct wf_policy_reason *why);
/* Seconds to have a block again that leaves the pool: computed, or read, if that is sooner, of
 * which its copy below is sure, or as likely as others'. */
double wf_sim_below_again_s(const struct wf_sim_below *below, uint32_t block);
/* Before that: a domain gives room. */
void wf_sim_below_gave(struct wf_sim_below *below, const struct wf_share_verdict *verdict);
/* The request's last `count` blocks found no room, as in the world's full(). */
void wf_sim_below_full(struct wf_sim_below *below, uint32_t count, float bar);
/* After it: fetches ahead are planned. */
void wf_sim_below_served(struct wf_sim_below *below, uint32_t r);

void wf_sim_below_count(struct wf_sim_below *below, bool counted); /* from now on; first: no */
void wf_sim_below_result(const struct wf_sim_below *below, struct wf_sim_below_result *out);

#endif
