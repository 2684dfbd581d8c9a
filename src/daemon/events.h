/* SPDX-License-Identifier: Apache-2.0
 *
 * The last things that happened and why: who was evicted for whom, which client went away, what was
 * corrupt.
 *
 * Every domain has a ring of its own, and the node has one for what is no domain's.  So a busy
 * domain pushes nobody else's events out, and what a domain is shown (numbers, gaps, what was lost)
 * says nothing about another.  Each ring holds capacity / (domains + 1) events, at least one; the
 * oldest is overwritten.
 *
 * Owner thread only.
 */
#ifndef WF_DAEMON_EVENTS_H
#define WF_DAEMON_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "core/policy.h"
#include "weft/weft.h"

#define WF_EVENT_KEY_BYTES \
    8 /* of a key: enough to find it in `weft ls blocks`, not enough to ask for it */
#define WF_EVENT_TEXT_MAX 191
#define WF_EVENTS_NODE \
    UINT32_MAX /* no domain: what happened to the node; or all domains, for a reader */

/* The chain of a session that is due back: brought up, or not.  Times are from the event on. */
struct wf_event_prefetch {
    const char *rule; /* wf_prefetch_rule_name(), or what stood against it: a literal */
    uint64_t session;
    double due_s, begin_s, ready_s; /* due below 0: it is overdue; INFINITY: never */
    double load_s;                  /* what bringing it up takes, as measured */
    double quantile, chance;        /* of the return: core/placement.h */
    double spread_s;                /* the scale of how far such times were off */
    double saved_s, room_s;         /* what is won, and what its room costs others */
    uint64_t pushed_bytes;          /* of others', that have to go for it */
    uint32_t blocks, begun;         /* that lie below alone; that are on their way now */
};

/* What a block was worth to the tier that came nearest to taking it. */
struct wf_event_refusal {
    const char *rule;               /* wf_admit_rule_name(); NULL: nobody looked at worth */
    double chance, rate;            /* that it is wanted again, and hits a second, now */
    double hits, saved_s;           /* expected while it would stay, and what each saves */
    double write_s, wear_s, room_s; /* what it would cost; wear INFINITY: no writes are left */
};

struct wf_event {
    /* A literal; `weft events --what` (src/cli/events.c) has the list of all. */
    const char *what;
    uint32_t domain;     /* whose ring; WF_EVENTS_NODE */
    bool evicted;        /* the members from here to `not_below` say something */
    bool moved;          /* `key`, `bytes`, `reason` and from `tier` to `took_us` do */
    bool fetched;        /* `key` (of the chain's end), `bytes` and `prefetch` do */
    bool refused;        /* `key`, `last`, `blocks`, `bytes` (of one), `reason` and `text` do */
    uint32_t for_domain; /* who asked for the room; WF_EVENTS_NODE: the host */
    uint8_t key[WF_EVENT_KEY_BYTES];
    uint8_t parent[WF_EVENT_KEY_BYTES]; /* evicted: what it extended; zeros: nothing */
    uint8_t last[WF_EVENT_KEY_BYTES];   /* refused: the last that found no room; `key`: the first */
    uint32_t blocks;                    /* refused: so many */
    uint64_t bytes;
    uint64_t age_ms;    /* since its last use, as wf_ages_since() knows it */
    const char *reason; /* a literal */
    /* Names that live as long as the node, or literals; NULL: nothing to say. */
    const char *tier;          /* evicted: where it still is; moved: which tier it is about */
    const char *not_below;     /* evicted: why it was not written below */
    const char *from;          /* moved: from that tier to `tier` */
    uint64_t took_us;          /* moved: since it was asked for; 0: nothing to say */
    enum weft_quality quality; /* moved: with loss, at this; a default: without */
    union {
        char text[WF_EVENT_TEXT_MAX + 1]; /* a sentence for what is no other; "": none */
        struct { /* evicted: why it and no other; the rule is a literal, NULL: it was named */
            struct wf_policy_reason why;
            uint32_t candidates;             /* ends of chains that might have gone, it included */
            struct wf_event_refusal refusal; /* by the rule `not_below` */
        };
        struct wf_event_prefetch prefetch;
    };
};

/* Its members, into a JSON object.  False: no memory. */
bool wf_event_prefetch_put(json_t *object, const struct wf_event_prefetch *said, bool all);

struct wf_events;

/* Names are copied.  WEFT_E_NO_MEMORY, WEFT_E_LIMIT. */
enum weft_status wf_events_create(uint32_t capacity, const char *const *domains,
                                  uint32_t domain_count, struct wf_events **out);
void wf_events_destroy(struct wf_events *events);

/* Keep one.  Never fails and allocates nothing. */
void wf_events_add(struct wf_events *events, const struct wf_event *event);

/* The events after `cursor` (0: from the oldest kept), oldest first, as many as fit `bytes_max` of
 * JSON; caller frees.  `domain`: only its own, numbered by themselves, and others of whom they
 * speak unnamed; WF_EVENTS_NODE: all.
 *   {"events": [{"sequence": 7, "time_ms": …, "what": "evict", "domain": "a", "key": "00ff…",
 * "bytes": …, "age_ms": …, "reason": "room", "for": "b", "tier": "nvme0",
 * "not_below": "once", "refusal": {"rule": "once", "chance": 0.04, "rate": 0.0001, "hits": 0.03,
 * "saved_s": 0.01, "write_s": 0, "wear_s": null, "room_s": 0.002}, "why": {"rule": "weft", "value":
 * 0.02, "chance": 0.04, "age_s": 812, "turn": 3, "hint": null, "candidates": 5812}},
 *               {"sequence": 7, "time_ms": …, "what": "promote", "domain": "a", "key": "00ff…",
 * "bytes": …, "reason": "get", "tier": "nvme0", "took_us": 830, "quality": "economy"},
 *               {"sequence": 8, "time_ms": …, "what": "full", "domain": "a", "key": "00ff…",
 * "bytes": …, "last": "01fe…", "blocks": 32, "reason": "worth", "text": "no room for …"},
 *               {"sequence": 8, "time_ms": …, "what": "lend", "text": "the host lent …"}],
 *    "next": 0,      cursor for more, 0 when this is the end
 *    "last": 8,      cursor that a follower comes back with
 *    "lost": 0}      events after `cursor` that were overwritten before they were asked for
 * NULL: no memory. */
char *wf_events_json(const struct wf_events *events, uint32_t domain, uint64_t cursor,
                     size_t bytes_max);
#define WF_EVENTS_JSON_MIN 2048 /* the least bytes_max: room for one event of any length */

/* Events ever added to that ring, or to all. */
uint64_t wf_events_total(const struct wf_events *events, uint32_t domain);

#endif
