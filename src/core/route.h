/* SPDX-License-Identifier: Apache-2.0
 *
 * Which engine a request should run on, and what of its KV is moved there: by the time to its first
 * token, as modelled for each.
 *
 *   ttft   = queue + done
 *   queue  = prefill that is before it, and the wait for a place in the batch
 *   done   = what is loaded and what is computed, overlapped by layers (core/placement.h has the
 *            formula); loading begins on arrival, so that the queue hides it
 *   loaded = blocks of the chain in the engine's own HBM (nothing), its node's DRAM, a tier below,
 *            or on one other node, over a link of measured latency and bandwidth and what is before
 *            it there; and as many of them as make it sooner done, the rest is computed
 *   score  = ttft + work_price · seconds of prefill
 *
 * The least score is chosen.  So the request goes to its KV (LOCAL) while the queue there is
 * shorter than a transfer is, the KV goes to the request (FETCH) when not, which makes a copy of
 * what is in demand where there is time for it, and where neither pays it is computed (RECOMPUTE).
 * work_price keeps busy clusters from recomputing what lies elsewhere: a second of prefill holds up
 * others, too.
 *
 * Load reports are old when they are read, and whoever sends all to the idlest of the last report
 * makes a herd (M. Mitzenmacher, "How useful is old information?", IEEE TPDS 2000).  So what this
 * router sends is work of that engine's at once, and is worked off as time goes by, until a report
 * that was made later says what is true; `routers` that do the same are taken to send as much each.
 * What is about as good as the best is chosen from by a seeded hash.
 *
 * Of what it sent it also remembers the keys, for a while: the blocks of a chain that is being
 * computed or fetched somewhere are there by the time that the next request's turn comes, and no
 * event said so yet.  Without that, what begins anew and is asked for often is computed everywhere.
 *
 * Where a chain was sent last it is at home, though it may be gone there: that node knows how often
 * it came and where others branched off, which is what eviction by value goes by, and going on
 * there makes no copies.  Elsewhere its prefill counts home_price times on top.  What is sent again
 * within WF_ROUTE_SHARED_S is no session, but shared, and at home nowhere.
 *
 * The terms are those of others: hit blocks and load in one cost (the KV router of Dynamo), precise
 * prefixes of each node and not guesses (llm-d, whose measurements also show what affinity alone
 * does to the tail), time to first token as the measure and transfers in it (Mooncake's conductor:
 * R. Qin et al., FAST 2025).
 *
 * Events and time in, answers out; nothing allocates after create, and an answer costs
 * O(candidates).  One thread, or the caller locks; wf_route_choose() changes nothing.
 */
#ifndef WF_CORE_ROUTE_H
#define WF_CORE_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/placement.h"
#include "core/places.h"

#define WF_ROUTE_SOURCES 8u /* nodes from which fetching is thought about, those that have most */
#define WF_ROUTE_SENT 32u   /* requests sent to one node that are remembered apart */
#define WF_ROUTE_MARKS 4u   /* last blocks of a chain by which it is known again */
#define WF_ROUTE_SHARED_S 2.0
#define WF_ROUTE_NONE UINT32_MAX

struct wf_route;

struct wf_route_options {
    uint32_t nodes_max; /* node numbers are below that; some 900 bytes each */
    uint64_t seed;
    double work_price;   /* seconds of others' that a second of prefill costs; below 0: 2 */
    double home_price;   /* seconds of waiting for a second of prefill of what is at home elsewhere;
                            below 0: 3 */
    uint32_t homes_max;  /* chains whose home is remembered; 0: 65536; 64 bytes each */
    double tie_part;     /* who is within that part of the best score is as good; below 0: 0.02 */
    double tokens_s;     /* prefill of a node that does not say its speed; 0: 10000 */
    uint32_t routers;    /* that send to these nodes, this one included; 0: 1 */
    uint32_t coming_max; /* blocks on their way that are remembered; 0: 16384; some 50 bytes each */
    double coming_s;     /* until who has a block has said so, from when it is there; below 0: 2 */
};

enum weft_status wf_route_create(const struct wf_route_options *options, struct wf_route **out);
/* NULL: nothing. */
void wf_route_destroy(struct wf_route *route);

/* ------------------------------------------------------------------------- what is known */

/* What a node said of its engine. */
struct wf_route_load {
    double queued_tokens;        /* prefill that waits, and what is left of what runs */
    double tokens_s;             /* prefill, measured at the beginning of prompts; 0: not known */
    uint32_t running, batch_max; /* decodes, and how many there may be; batch_max 0: no limit */
    double decode_s;             /* a request's decoding takes so long as a rule */
    bool closed;                 /* it takes nothing new */
};

/* As it was at taken_s, on the clock of all that is told here.  A report that is older than the one
 * before is passed over. */
void wf_route_report(struct wf_route *route, uint16_t node, const struct wf_route_load *load,
                     double taken_s);
/* A report that counts for one question alone: what was known before it goes to `out`, and is again
 * what is known after wf_route_unreport(), of several the last one first. */
struct wf_route_before {
    struct wf_route_load load;
    double taken_s, work_s, at_s;
    uint32_t fresh, sent;
};
void wf_route_suppose(struct wf_route *route, uint16_t node, const struct wf_route_load *load,
                      double taken_s, struct wf_route_before *out);
void wf_route_unreport(struct wf_route *route, uint16_t node, const struct wf_route_before *before);
/* The node is gone, or new: nothing is known of it. */
void wf_route_forget(struct wf_route *route, uint16_t node);

/* ------------------------------------------------------------------------- a question */

struct wf_route_request {
    uint64_t id; /* decides between equals */
    double tokens;
    double block_tokens, block_bytes;
    uint32_t layers;           /* by which loading and computing overlap; 1: not at all */
    struct wf_prefill prefill; /* of an engine whose speed is not known */
    double output_tokens;      /* expected; 0: not known */
};

/* A tier, or a link, as it is now. */
struct wf_route_way {
    double latency_s, bytes_s; /* bytes_s 0: there is no way */
    double queue_s;            /* until what begins now would begin */
};

/* A node that may serve it, or has some of it. */
struct wf_route_node {
    uint16_t node;
    bool serves;  /* else it only has memory */
    bool several; /* it stands for many, each of which has some: no fetch waits for another there.
                     Where most comes from one it may have that one's number instead. */
    /* How many blocks, from the first on, are nearest in HBM, in HBM or DRAM, anywhere on it.  Each
     * at least the one before. */
    uint32_t hbm_blocks, near_blocks, held_blocks;
    uint32_t home_blocks;     /* it was sent here last, up to that block */
    uint32_t coming_blocks;   /* and with those that are on their way: for itself as good as near */
    struct wf_route_way host; /* from DRAM into the engine's; bytes_s 0: it costs nothing */
    struct wf_route_way below; /* from its tier to its DRAM, for what is not near */
};

/* The way between two of the nodes, by their index; NULL: there is none between any. */
struct wf_route_links {
    struct wf_route_way (*way)(void *context, uint32_t from, uint32_t to);
    void *context;
};

/* near_, held_, coming_ and home_blocks of all nodes, from tables of what lies in DRAM, and
 * below (NULL: nothing does), and what this router sent.  Their nodes_max is at most the router's.
 */
void wf_route_look(struct wf_route *route, const struct wf_places *near,
                   const struct wf_places *below, const uint8_t (*keys)[32], uint32_t count,
                   struct wf_route_node *nodes, uint32_t node_count);
/* coming_blocks and home_blocks alone, of nodes whose held_blocks the caller has from elsewhere;
 * what must have come by now is forgotten first. */
void wf_route_coming(struct wf_route *route, const uint8_t (*keys)[32], uint32_t count,
                     struct wf_route_node *nodes, uint32_t node_count, double now_s);

/* ------------------------------------------------------------------------- an answer */

enum wf_route_action {
    WF_ROUTE_LOCAL = 0, /* from what the node has */
    WF_ROUTE_FETCH,     /* and from elsewhere */
    WF_ROUTE_RECOMPUTE, /* all is computed */
    WF_ROUTE_CLOSED,    /* it serves nothing */
};

/* Of one candidate. */
struct wf_route_term {
    enum wf_route_action action;
    uint32_t source;          /* FETCH: index of the node; else WF_ROUTE_NONE */
    uint32_t load_blocks;     /* from the first on, wherever they are */
    uint32_t fetch_blocks;    /* of these, from the source */
    double hit_tokens;        /* that are not computed */
    double queue_s, slot_s;   /* prefill before it; until there is a place in the batch */
    double latency_s, data_s; /* of what is loaded, from arrival */
    double fetch_s;           /* until what comes from the source is there */
    double prefill_s;         /* of the rest */
    double away_s;            /* in the score: for not being where it is at home */
    double done_s, ttft_s, score_s;
    uint8_t piece; /* which of its ways is slowest, and what waits for what */
};

struct wf_route_answer {
    uint32_t chosen; /* index; WF_ROUTE_NONE: nobody serves */
    struct wf_route_term term;
};

/* Terms of each into out_terms[count]. */
void wf_route_choose(const struct wf_route *route, const struct wf_route_request *request,
                     const struct wf_route_node *nodes, uint32_t count,
                     const struct wf_route_links *links, double now_s,
                     struct wf_route_term *out_terms, struct wf_route_answer *out);

/* The request goes there: its work is the node's from now on, and so are its blocks, a little
 * later (keys NULL: they are not, or nobody says which). */
void wf_route_sent(struct wf_route *route, const struct wf_route_node *nodes,
                   const struct wf_route_answer *answer, const uint8_t (*keys)[32], uint32_t count,
                   double now_s);

const char *wf_route_action_name(enum wf_route_action action);
/* One candidate's terms in a sentence without a full stop; as snprintf. */
int wf_route_say(const struct wf_route_term *term, const struct wf_route_request *request,
                 char *out, size_t size);

#endif
