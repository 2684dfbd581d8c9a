/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a request should run: what is known of nodes, put to the model of core/route.h.
 *
 * Who has what comes from the replica for other nodes, and from the host for this one.  Who is
 * there, how far and how fast comes from the fabric's figures, which are as old as show_ms at most.
 * Load is what the asker says, and what it was sent since by these answers.  Domains share none of
 * it: what one says of load, or asks for, changes no other's answers.
 *
 * A node that is away, that no registry has, that drains, or that has not this domain, serves
 * nothing; the last can still be computed on, if somebody names it.  Nodes that nobody named but
 * that have most of the chain are sources to fetch from; where none of them has as much of it as
 * all have between them (lenders get blocks as they have room), so are "several nodes".
 *
 * Bounded: WF_ROUTES_CANDIDATES_MAX, WF_ROUTES_KEYS_MAX; for a longer chain the caller gives every
 * stride-th key.  Some 5 MB for each domain that asks, when it asks first; nothing after that.
 */
#ifndef WF_FABRIC_ROUTE_H
#define WF_FABRIC_ROUTE_H

#include "core/route.h"
#include "member/member.h"

#define WF_ROUTES_CANDIDATES_MAX 256u
#define WF_ROUTES_KEYS_MAX 1024u
/* Candidates, and what may be fetched from besides them. */
#define WF_ROUTES_NODES_MAX (WF_ROUTES_CANDIDATES_MAX + WF_ROUTE_SOURCES + 2)

struct wf_routes;

/* What a node has of a chain itself: blocks, or groups of them, from the first on. */
struct wf_routes_own {
    uint32_t near_blocks, held_blocks; /* in DRAM; there or below it: at least as many */
    struct wf_route_way below;         /* from where the others are to DRAM */
};

struct wf_routes_options {
    const char *name; /* of this node */
    uint64_t seed;
    void *context;
    void (*own)(void *context, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                struct wf_routes_own *out); /* NULL: nothing */
};

struct wf_routes_candidate {
    char name[WF_MEMBER_NAME_MAX + 1];
    bool loaded;               /* `load` says how it is; else what was said last counts */
    struct wf_route_load load; /* as it was */
    double age_s;              /* so long ago */
};

struct wf_routes_question {
    uint32_t domain;
    /* keys[i] names block (i + 1) · stride - 1 of the chain; stride 0: 1. */
    const uint8_t (*keys)[32];
    uint32_t count, stride;
    struct wf_route_request request; /* of one block */
    const struct wf_routes_candidate *candidates;
    uint32_t candidate_count; /* 0: every node that is there; of more than fit, those that have most
                                 of the chain, and others by the request's id */
    bool asks_only;           /* the request is not sent there: nothing is remembered of it */
    bool closed;              /* this node takes nothing new */
};

/* Why a node serves nothing. */
enum wf_routes_why {
    WF_ROUTES_SERVES = 0,
    WF_ROUTES_UNKNOWN, /* nobody is called that */
    WF_ROUTES_AWAY,
    WF_ROUTES_NO_MEMBER,
    WF_ROUTES_DRAINING,
    WF_ROUTES_CLOSED,    /* as it was said of its load */
    WF_ROUTES_NOT_ASKED, /* it is a source alone */
};

struct wf_routes_term {
    char name[WF_MEMBER_NAME_MAX + 1];
    enum wf_routes_why why;
    uint32_t near_blocks, held_blocks; /* that it has itself */
    struct wf_route_term term;         /* source: an index into the terms */
};

/* All counts are of blocks, whatever the stride. */
struct wf_routes_answer {
    uint32_t count;  /* of candidates, in the order in which they were named */
    uint32_t others; /* behind them: what may be fetched from */
    uint32_t chosen; /* WF_ROUTE_NONE: nobody serves */
    uint64_t took_ns;
    struct wf_route_request request;
    struct wf_routes_term terms[WF_ROUTES_NODES_MAX];
};

/* Of a node without a fabric, which is the only one that is there; one thread at a time. */
enum weft_status wf_routes_create(const struct wf_routes_options *options, struct wf_routes **out);
/* NULL: nothing. */
void wf_routes_destroy(struct wf_routes *routes);
enum weft_status wf_routes_ask(struct wf_routes *routes, uint64_t now_ns,
                               const struct wf_routes_question *question,
                               struct wf_routes_answer *out);

/* One term in a sentence without a full stop; as snprintf. */
int wf_routes_say(const struct wf_routes_answer *answer, uint32_t index, char *out, size_t size);

#endif
