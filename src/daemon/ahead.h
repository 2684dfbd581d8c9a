/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains that are brought up before somebody comes for them: ahead.c.
 */
#ifndef WF_DAEMON_AHEAD_H
#define WF_DAEMON_AHEAD_H

#include "daemon/events.h"
#include "daemon/node.h"

/* The entries of a chain that are not in DRAM, the last first; of more than `max`, those nearest to
 * what is there.  A look at each of them all. */
uint32_t wf_chain_absent(struct wf_domain *domain, const uint8_t tip[32], uint32_t *out,
                         uint32_t max);
/* Where a chain is. */
struct wf_chain {
    uint32_t end;    /* the last block of it that is in DRAM; WF_SLOT_NONE: none is */
    uint32_t there;  /* blocks in DRAM, */
    uint32_t absent; /* and behind these below alone, no more than can be loaded at a time */
    uint64_t there_bytes, absent_bytes;
    double read_s; /* what reading the absent takes as measured; none is: all of it, if it left */
};
void wf_chain_look(struct wf_domain *domain, const uint8_t tip[32], struct wf_chain *out);
/* What it takes at the most to have all of it again: to read it, or to compute it if it is lost. */
double wf_chain_again_s(const struct wf_chain *chain);

/* What would be done now for a session that said when it comes back, and has a chain. */
struct wf_ahead_decision {
    struct wf_chain chain;
    struct wf_prefetch said; /* seconds from now */
    struct wf_event_prefetch told;
};
void wf_ahead_decide(struct wf_node *node, const struct wf_session_entry *session, uint64_t now_ns,
                     struct wf_ahead_decision *out);

/* It said what it does now; it goes on; it ends. */
void wf_session_says(struct wf_node *node, struct wf_session_entry *session);
void wf_session_returns(struct wf_node *node, struct wf_session_entry *session);
void wf_session_ends(struct wf_node *node, struct wf_session_entry *session);

/* A block left DRAM. */
void wf_ahead_gone(struct wf_domain *domain, const struct wf_gone *gone);

/* A client asked for a prefetch: of so many keys, those that were not in DRAM. */
struct wf_ahead_asked {
    uint32_t blocks, begun, last; /* last: the place of the last of them among the keys */
    uint64_t bytes;               /* of those begun */
    uint64_t rest_bytes;          /* of those that found no room */
    bool again;                   /* and are waited for since it was asked before */
    bool full;                    /* and there will be none */
};
void wf_ahead_asked(const struct wf_client *client, const struct wf_load *request,
                    const struct wf_ahead_asked *asked);

#endif
