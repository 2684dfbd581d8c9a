/* SPDX-License-Identifier: Apache-2.0
 *
 * A cluster of nodes in virtual time: fabrics as they are, on a simulated network and registry,
 * with simple stores in memory behind them.
 *
 *     cluster.c         runs it, compares what all know with what is, and says what was measured
 *     cluster_store.c   what a node has: blocks whose bytes are a function of their keys
 *     cluster_load.c    requests: chains that are wanted, fetched, computed, lent
 *     cluster_fault.c   what goes wrong, by a seed
 *     cluster_truth.c   what nodes know of each other, against what there is
 *     cluster_lent.c    what lenders keep: each byte of it, and that nothing goes unaccounted for
 *     cluster_proof.c   when nothing goes wrong any more: what is promised for then, tried out
 *     cluster_watch.c   messages as they arrive: who may write, and how late news are
 *
 * What a history must never show: a byte that is not its block's, handed out or placed; memory that
 * is read or written after it was freed (payloads are poisoned and freed at the first moment at
 * which they may be, which the bytes and ASan tell); a fetch or a store that does not end; a write
 * taken from a node whose lease is over, or by one.  And when nothing goes wrong any more, all come
 * to know what there is, and nothing else, and of what is to be there more than once there are as
 * many copies again, where there is room: an archive is not lost with the next node that goes.
 * That is tried: a lender goes.  So it is with what else is promised then: what somebody has can be
 * read, a node that is drained may leave and takes nothing along, and whatever was held or asked
 * for has been let go.
 *
 * What is wrong and covered up counts, too.  A sum that does not match has a bit for its reason
 * that the network changed, so there are never more of them than of these; and a block goes from a
 * lender's memory because its owner dropped it, or is counted by the lender that let it go.
 */
#ifndef TEST_SIM_CLUSTER_H
#define TEST_SIM_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hist.h"
#include "base/random.h"
#include "base/vtime.h"
#include "fabric/fabric.h"
#include "member/sim.h"
#include "net/sim.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define DEPTH 8u /* blocks of a chain */
#define PART 1024u
#define DOMAINS 2u
#define LEASE_MS 1500u
#define DEAD_MS 1000u
#define FETCH_MS 300u
#define NODE_NAME 16u

/* Up to eight holders, each for as long as it takes to lose patience or its link; and its turns. */
#define ENDS_NS (30 * SECOND)

struct config {
    uint64_t seed;
    uint32_t nodes, chains;
    uint32_t node_blocks; /* that a node has room for */
    uint64_t storm_ns;    /* faults for so long */
    uint64_t request_ns;  /* between requests of a node, in the mean */
    uint64_t turn_ns;     /* a node that has something to do does it so much later */
    uint64_t gap_ns;      /* between faults */
    bool quiet, corrupt;  /* say less; bits change on the way, too */
    bool parts;           /* each node keeps its part of the directory */
};

/* A block in a store, or in two hands that hold it. */
struct block {
    struct cluster *cluster;
    uint32_t index, holds;
    bool gone; /* from the store: it is free when nobody holds it */
    uint64_t bytes;
    uint8_t *data;
};

struct cluster;
struct get;

/* A fetch or a store on its way. */
struct errand {
    struct errand *next, **back; /* of the node's */
    struct node *node;
    struct get *get;     /* that it is part of */
    struct block *block; /* STORE: what is lent */
    uint32_t index;
    uint64_t began_ns;
    bool is_store;
    uint64_t losses;        /* STORE: of lenders, when it began */
    enum weft_status *came; /* a fetch that proves something: how it ends goes there */
    uint8_t *data;
    uint64_t data_bytes, from; /* of the block's bytes */
    struct wf_fabric_fetch fetch;
    struct wf_fabric_store store;
};

struct node {
    struct cluster *cluster;
    uint32_t number;
    char name[NODE_NAME], listen[NODE_NAME + 4];
    struct wf_fabric *fabric;   /* NULL: it is dead */
    struct wf_members *members; /* the fabric's */
    bool paused, has_both;      /* both domains */
    bool turning;
    uint32_t lives; /* how often it was started */
    uint64_t resumed_ns;
    struct wf_vtime_event turn, work;
    struct block **blocks; /* by index; NULL: not here */
    uint8_t *have;         /* by chain: so many of its first blocks */
    uint32_t count;
    struct errand *errands;
    uint64_t *changed_ns;  /* by index: when it was told last */
    uint64_t *told_epochs; /* by node: as the registry told this one; 0: no member */
    bool *told;            /* by index: the fabric said that somebody else has it, */
    uint64_t forgotten;    /* and how often it had forgotten all of some node, at the last look */
    bool *lent_out;        /* by index: it was, in some life */
    struct keeping {       /* what it lends, at the last look */
        bool *there;       /* by index; NULL: it lends nothing */
        uint32_t lives;
        uint64_t evicted, given;
    } keeping;
};

struct counts {
    uint64_t gets, fetches, hits, misses, corrupt, timeouts, cancels, computed, evicted;
    uint64_t lookups, lookup_misses; /* nodes that are there at the end */
    uint64_t stores, stored, drops, puts_taken, lives, polls;
    uint64_t moved;                /* to other lenders: drains, repairs, shares */
    uint64_t wrong, hangs, fenced; /* all 0, or it has failed */
    uint64_t corrupt_seen;         /* sums that did not match, by nodes that are gone */
    /* What was tried: */
    uint64_t stores_seen, looks, reads, drained, undrained, survived, pushed_out;
};

struct cluster {
    struct config config;
    struct wf_vtime *time;
    struct wf_net_sim_world *net;
    struct wf_member_sim_world *registry;
    struct wf_net_sim_storm *storm;
    struct wf_vtime_event registry_fault, watchdog;
    struct node *nodes;
    const char **names;
    uint8_t (*keys)[32]; /* by index */
    uint32_t indices;
    uint64_t random;
    bool registry_away, working, measuring;
    bool proving; /* who has a block gives it at once */
    bool peace;   /* the network changes no bits any more, and so many had been noticed by then: */
    uint64_t corrupt_before;
    uint64_t blocks; /* of stores, that are not freed */
    uint64_t deaths; /* of lenders; and, at the last look, */
    uint64_t deaths_seen, evicted_seen;
    uint64_t losses_of_dead; /* blocks that lenders let go of and gave before they died */
    uint64_t *dropped;       /* by index: when somebody who had lent it out wanted it no more */
    struct wf_hist lag_us;
    struct counts counts;
    uint64_t messages, event_bytes;
    /* While nothing goes wrong and all have requests: */
    uint64_t measured_from_ns, measured_ns, measured_messages, measured_bytes;
    uint64_t *said_epochs, lane_max; /* by lane of a link: as its sender's IDENT said */
};

static inline uint64_t chance(struct cluster *c, uint64_t below)
{
    return wf_random_below(&c->random, below);
}

static inline uint64_t now(const struct cluster *c)
{
    return wf_vtime_now(c->time);
}

/* Ends the program, with a sentence and the seed. */
void failed(const struct cluster *c, const char *format, ...)
    __attribute__((format(printf, 2, 3), noreturn));

/* cluster_store.c */
void keys_make(struct cluster *c);
/* WF_TABLE_NONE and the like: indices when it is no key of this cluster. */
uint32_t index_of(const struct cluster *c, const uint8_t key[32]);
uint64_t bytes_of(const struct cluster *c, uint32_t index);
uint32_t domain_of(const struct cluster *c, uint32_t index);
struct wf_fabric_event event_of(const struct cluster *c, uint32_t index,
                                enum wf_fabric_event_kind kind);
void content_fill(const struct cluster *c, uint32_t index, uint8_t *out);
/* So many bytes from `from` on are the block's. */
bool content_right(const struct cluster *c, uint32_t index, const uint8_t *data, uint64_t from,
                   uint64_t bytes);
/* By its domain. */
bool may_have(const struct node *node, uint32_t index);
void store_init(struct node *node);
/* The node dies: all that nobody holds is freed, and nobody holds anything. */
void store_clear(struct node *node);
/* The next block of its chain is here from now on, and that is told. */
void store_add(struct node *node, uint32_t index);
/* Some chain's last block goes; it may be lent first. */
void store_evict(struct node *node);
void block_let_go(struct block *block);
struct wf_fabric_host store_host(struct node *node);
void poison_and_free(uint8_t *data, uint64_t bytes);

/* cluster_load.c */
void work_begin(struct node *node);
void lend_out(struct node *node, struct block *block);
/* Fetch all of a block, for nobody's use; *came is WEFT_PENDING until that has ended. */
void fetch_proof(struct node *node, uint32_t index, enum weft_status *came);
/* Errands that should have ended long ago; counted as hangs. */
void errands_check(struct node *node);

/* cluster_fault.c */
void faults_begin(struct cluster *c);
void faults_end(struct cluster *c);

/* cluster_watch.c */
void watch_begin(struct cluster *c);
void watch_end(void);
const struct wf_member_ops *watched_member(void);

/* cluster_truth.c */
/* Whether nodes, each `step`-th of them, know what all others have, and nothing else.  False: `out`
 * says what is wrong. */
bool all_know_truth(const struct cluster *c, uint32_t step, char *out, size_t out_bytes);
/* How many copies there are to be of each block that is lent now, by index, or more, where more
 * were wanted already; `least` (NULL: never mind): as the lender has it that wants fewest. */
void wanted_add(const struct cluster *c, uint32_t *wanted, uint32_t *least);
/* Whether of each block there are as many copies as are wanted, where lenders have room for them;
 * *out_blocks: of which more than one is.  False: `out` says which. */
bool all_are_copied(const struct cluster *c, const uint32_t *wanted, uint64_t *out_blocks,
                    char *out, size_t out_bytes);
/* What of these blocks lenders have, each. */
/* Does a lender have it for that node, whatever that knows of it? */
bool is_lent_for(const struct node *node, uint32_t index);
uint32_t copies_lent(const struct cluster *c, uint32_t index);
/* Somebody but `node` who lends has room for a copy. */
bool have_room(const struct cluster *c, const struct node *node, uint32_t index);
/* In its store, or in what it lends. */
bool has_block(const struct node *node, uint32_t index);
/* Somebody from whom it may have it. */
bool others_have(const struct node *node, uint32_t index);
/* The same, or in memory that it lends itself: its clients read it. */
bool is_found(const struct node *node, uint32_t index);
/* By index: somebody knows who has it.  In parts an owner knows nothing of a domain that it has
 * not.
 */
void findable(const struct cluster *c, bool *out);
/* What it lends, by index. */
void lent_of(const struct node *node, bool *out);
bool is_drained(const struct node *node);
/* Sums that did not match there. */
uint64_t corrupt_at(const struct node *node);
/* Blocks that it sends just now. */
uint32_t serving_of(const struct node *node);
/* Blocks that it waits for an answer about. */
uint32_t fetching_of(const struct node *node);
/* After its turn: whoever it waits for an answer of, it has a link to. */
void waits_check(const struct node *node);
uint64_t lookups_of(const struct node *node);
uint64_t lookup_misses_of(const struct node *node);
struct node *node_of_fabric(const void *fabric);
/* Blocks that it has handed to other lenders in this life of its. */
uint64_t moved_by(const struct node *node);

/* cluster_lent.c */
void lent_init(struct node *node);
/* Every second: what has changed, and each byte. */
void lent_watch(struct cluster *c);
/* Somebody who had lent it out wanted it no more, and that word may be on its way. */
bool dropped_lately(const struct cluster *c, uint32_t index);
/* How often lenders that live have made room; how often some lender has let go of a block for that
 * or since another has it, or has died. */
uint64_t lent_evicted(const struct cluster *c);
uint64_t lent_losses(const struct cluster *c);
/* It is about to: what it counted is not lost. */
void lent_died(const struct node *node);

/* cluster_proof.c */
/* All that was asked for has ended, and nothing is held. */
void prove_quiet(struct cluster *c);
/* What somebody has is read, and what nobody has is not. */
void prove_reads(struct cluster *c);
/* Nodes are drained and leave. */
void prove_drains(struct cluster *c);
/* A lender dies; all are known to have settled before. */
void prove_archives(struct cluster *c);

/* cluster.c */
void run(struct cluster *c, uint64_t ns);
/* Until all know what there is; returns how long that took. */
uint64_t settle(struct cluster *c);
/* Until there are as many copies as are wanted, by index, of what there is at all; returns how long
 * that took.  `wanted` NULL: as lenders have it then. */
uint64_t archives_settle(struct cluster *c, const uint32_t *wanted, uint64_t *out_blocks);
void node_start(struct node *node);
/* `dark`: the host loses power.  `leaves`: it goes in good order. */
void node_stop(struct node *node, bool dark, bool leaves);
/* It has something to do. */
void node_wake(struct node *node);

#endif
