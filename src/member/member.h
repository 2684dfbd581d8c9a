/* SPDX-License-Identifier: Apache-2.0
 *
 * Who belongs to the cluster: the interface that every registry has behind it.
 *
 * A registry knows the members: nodes that hold a lease now, each with the epoch that it got when
 * it joined.  Epochs of a name only grow.  A node that loses its lease is no member any more,
 * whatever it believes itself, and comes back with a higher epoch: what it says under the older one
 * is believed by nobody (fencing).  So that it knows in time, a node's standing has an end on its
 * own clock, which is earlier than the registry's: it counts from before the renewal was asked for.
 *
 * The registry also keeps the cluster's settings: small JSON texts by name, changed by one
 * transaction each.
 *
 * Weft holds no consensus: what a registry promises is etcd's to keep.
 *
 * Calls and callbacks are of one thread, callbacks from poll() alone.  Nothing waits but poll();
 * who talks to the registry is a thread of the backend's own, where it has to.
 *
 * What a registry promises, and the conformance suite (test/conformance/member.c) breaks on
 * purpose:
 *
 *   - Two nodes of one name are never members at once: the second is refused, with a sentence,
 * until the first one's lease is over.
 *   - Of two times that a name joins, the later has the higher epoch.
 *   - Who is told as joined is told as left when its lease is over, or it left; changes of a member
 * come in their order.  After a while without the registry, what changed meanwhile is told.
 *   - `until_ns` of a standing is never later than the end of the lease.
 *   - A setting changes only for who knows its revision.
 */
#ifndef WF_MEMBER_MEMBER_H
#define WF_MEMBER_MEMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_MEMBER_NAME_MAX 63u
#define WF_MEMBER_ADDRESSES_MAX 512u
#define WF_MEMBER_DETAILS_MAX 4096u
#define WF_MEMBERS_MAX 4096u
#define WF_SETTING_NAME_MAX 63u
#define WF_SETTING_MAX 65536u
#define WF_SETTINGS_MAX 256u

struct wf_member {
    char name[WF_MEMBER_NAME_MAX + 1];       /* a-z, 0-9, dot and hyphen */
    uint64_t epoch;                          /* from 1; 0: a listed node, see static */
    char addresses[WF_MEMBER_ADDRESSES_MAX]; /* where its nets listen, divided by spaces */
    char details[WF_MEMBER_DETAILS_MAX];     /* JSON, of what it is and has; opaque here */
};

enum wf_standing_state {
    WF_STANDING_JOINING = 0, /* not a member yet */
    WF_STANDING_MEMBER = 1,
    WF_STANDING_DOUBTFUL =
        2,                /* the lease may be over before it can be renewed: no registry answers */
    WF_STANDING_LOST = 3, /* it is over; it joins again by itself, with another epoch */
    WF_STANDING_REFUSED = 4, /* the registry does not let it in (name taken, not authorised …);
                                tried again by itself */
};

struct wf_standing {
    enum wf_standing_state state;
    uint64_t epoch;    /* of the lease that it has, or had last; 0: none yet */
    uint64_t until_ns; /* on the clock of wf_now_ns(): nothing is to be done in this name after it
                          unless it was renewed; UINT64_MAX: it does not end by itself */
    char why[256];     /* in a sentence; MEMBER: what the registry refuses it nevertheless; "" */
};

struct wf_member_events {
    void *context;
    /* A member that is new, or has other addresses or details than before; this node is told of
     * itself too.  Left: all that is known of it is what it was.  One that is back with another
     * epoch is told as left first. */
    void (*joined)(void *context, const struct wf_member *member);
    void (*left)(void *context, const struct wf_member *member);
    /* It is another than before, or was renewed.  Told before all else that a poll has to tell;
     * that it was lost is told even when it is a member again by now. */
    void (*standing)(void *context, const struct wf_standing *standing);
    /* A setting is new or has changed; value NULL: it was removed.  NULL: nobody asks. */
    void (*setting)(void *context, const char *name, const char *value, uint64_t revision);
};

struct wf_member_sim_world; /* sim.h */

struct wf_member_options {
    /* etcd: "etcd://HOST:PORT[,HOST:PORT…]/CLUSTER", etcds:// with TLS.  static: the other nodes'
     * addresses, divided by commas.  sim: the cluster's name. */
    const char *registry;
    const char *name, *addresses, *details; /* this node's; copied */
    uint32_t lease_ms;                      /* 0: 5000; etcd has whole seconds, 2 at least */
    /* etcd */
    const char *user, *password;        /* NULL: none */
    const char *ca, *certificate, *key; /* PEM files, for etcds:// */
    const char *state_dir;              /* static: where the epoch is kept; NULL: by the clock */
    struct wf_member_events events;
    struct wf_member_sim_world *world; /* sim */
};

struct wf_members; /* a connection to the registry */

struct wf_member_ops {
    const char *name; /* "static", "etcd", "sim" */

    /* WEFT_OK though the registry does not answer: it is tried on. */
    enum weft_status (*open)(const struct wf_member_options *options, struct wf_members **out);
    /* Leaves, if it can be said within leave_ms; else its lease ends. */
    void (*close)(struct wf_members *members, uint32_t leave_ms);
    /* Say something else of this node from now on. */
    enum weft_status (*publish)(struct wf_members *members, const char *addresses,
                                const char *details);
    void (*standing)(const struct wf_members *members, struct wf_standing *out);
    /* Those that are members as far as is known now, by name; returns how many there are. */
    uint32_t (*list)(const struct wf_members *members, struct wf_member *out, uint32_t max);
    /* WEFT_MISS: there is none such.  As it is known here. */
    enum weft_status (*setting)(const struct wf_members *members, const char *name, char *out,
                                size_t out_bytes, uint64_t *out_revision);
    /* Change a setting that has that revision now (0: there is none such); value NULL: remove it.
     * `done` is called from poll: WEFT_OK; WEFT_E_BUSY: it has another; WEFT_E_NODE: no answer;
     * WEFT_E_DENIED: the registry refuses it.  Of the latter two wf_last_error() says why. */
    enum weft_status (*set)(struct wf_members *members, const char *name, const char *value,
                            uint64_t revision, void (*done)(void *context, enum weft_status status),
                            void *context);
    int (*event)(const struct wf_members *members);
    void (*poll)(struct wf_members *members, uint32_t timeout_ms);
};

/* Two hosts, or a few, that know each other.  A listed node is a member all the time, under a name
 * made of its address and with epoch 0: its own name and epoch are in what it says when a link to
 * it is up.  A list may name this node's own addresses. */
extern const struct wf_member_ops wf_member_static;
extern const struct wf_member_ops wf_member_etcd; /* etcd v3 through its JSON gateway */
extern const struct wf_member_ops wf_member_sim;  /* leases with a seed, in virtual time */

/* By the form of `registry`; NULL: it is of no form that is known. */
const struct wf_member_ops *wf_member_by_registry(const char *registry);

#endif
