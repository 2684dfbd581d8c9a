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
 *     cluster_watch.c   messages as they arrive: who may write, and how late news are
 *
 * What a history must never show: a byte that is not its block's, handed out or placed; memory that
 * is read or written after it was freed (payloads are poisoned and freed at the first moment at
 * which they may be, which the bytes and ASan tell); a fetch or a store that does not end; a write
 * taken from a node whose lease is over, or by one.  And when nothing goes wrong any more, all come
 * to know what there is, and nothing else, and of what is to be there more than once there are as
 * many copies again, where there is room: an archive is not lost with the next node that goes.
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
};

struct counts {
    uint64_t gets, fetches, hits, misses, corrupt, timeouts, cancels, computed, evicted;
    uint64_t lookups, lookup_misses; /* nodes that are there at the end */
    uint64_t stores, stored, drops, puts_taken, lives, polls;
    uint64_t moved;                /* to other lenders: drains, repairs, shares */
    uint64_t wrong, hangs, fenced; /* all 0, or it has failed */
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
/* Whether of each block that is lent there are as many copies as there are to be, where lenders
 * have room for them; *out_blocks: of which there is to be more than one.  False: `out` says which.
 */
bool all_are_copied(const struct cluster *c, uint64_t *out_blocks, char *out, size_t out_bytes);
uint64_t lookups_of(const struct node *node);
uint64_t lookup_misses_of(const struct node *node);
struct node *node_of_fabric(const void *fabric);
/* Blocks that it has handed to other lenders in this life of its. */
uint64_t moved_by(const struct node *node);

/* cluster.c */
void node_start(struct node *node);
/* `dark`: the host loses power.  `leaves`: it goes in good order. */
void node_stop(struct node *node, bool dark, bool leaves);
/* It has something to do. */
void node_wake(struct node *node);

#endif
