/* SPDX-License-Identifier: Apache-2.0
 *
 * The etcd registry, inside: one node's connection and the thread that keeps it.
 *
 *     owner (whoever has opened it)            the thread
 *     open, poll, standing, list …             etcd_run.c: what is due, and what etcd is asked
 *        │                                     etcd_join.c: lease, join, renew, publish, leave
 *        │  told_*: what it has been told      etcd_watch.c: the stream of changes, settings
 *        └───────────────► under `lock` ◄──────────┘
 *                          lease, members, settings, sets, what is to be published
 *
 * The thread asks one thing at a time and the watch goes on beside it.  Whatever it learns it
 * writes under the lock and rings `event`; the owner compares that with what it has told, so that
 * nothing piles up between polls, and a member that went and came back in between has left.
 *
 * All goes to one endpoint.  When that fails to answer anything, renewals included, it is the next
 * one's turn, and the watch is begun anew there from the revision after the last that it told.  A
 * watch that is alive but silent is found out by asking now and then for the newest revision and
 * the number of keys: when they are not what the watch has told of, all is read again.
 *
 * Who dies half-way leaves a lease that ends by itself, with the node's key; the epoch's key stays.
 */
#ifndef WF_MEMBER_ETCD_INNER_H
#define WF_MEMBER_ETCD_INNER_H

#include <pthread.h>

#include "member/etcd_http.h"
#include "member/etcd_lease.h"
#include "member/etcd_target.h"
#include "member/etcd_text.h"
#include "member/roster.h"
#include "member/settings.h"

#define WF_ETCD_SETS_MAX 64u /* that wait, or whose outcome was not told yet */

/* A setting that is to be changed. */
struct wf_etcd_set {
    char name[WF_SETTING_NAME_MAX + 1];
    char *value; /* NULL: remove it */
    uint64_t revision;
    uint64_t until_ns; /* no answer by then is none */
    bool unsure;       /* it was asked once, and may have happened */
    enum weft_status status;
    char why[256]; /* that it was not, so far; "": nobody was asked */
    void (*done)(void *context, enum weft_status status);
    void *context;
    struct wf_etcd_set *next;
};

struct wf_etcd_sets {
    struct wf_etcd_set *first, **end;
};

/* What is known of the cluster. */
struct wf_etcd_view {
    struct wf_roster members;
    struct wf_settings settings;
    uint64_t version; /* grows when it changes */
};

struct wf_members {
    /* Constant once it is open. */
    struct wf_etcd_target target;
    struct wf_member_events events;
    uint32_t lease_s;
    char *user, *password, *ca, *certificate, *key;
    int event;
    pthread_t thread;

    /* Under the lock. */
    pthread_mutex_t lock;
    struct wf_member self; /* as it is to be known; its epoch is not kept here */
    uint64_t self_version;
    struct wf_lease lease;
    struct wf_etcd_view view;
    struct wf_etcd_sets asked, answered;
    uint32_t sets_count; /* of both */
    bool closing;
    uint64_t leave_until_ns;

    /* The owner's. */
    struct wf_etcd_view told;
    struct wf_standing told_standing;
    bool told_any;

    /* The thread's. */
    struct wf_etcd_http http;
    struct wf_etcd_answer answer; /* to what was asked last */
    char token[WF_ETCD_TOKEN_MAX + 1];
    bool open_to_all;  /* etcd says that it asks nobody who they are */
    bool leaving;      /* closing has been noticed, and does not interrupt any more */
    uint32_t failures; /* one after another */
    uint64_t again_ns; /* nothing is asked before */
    uint32_t login_failures;
    uint64_t quiet_ns; /* nothing but a renewal is asked before */
    struct wf_standing rung;

    uint64_t lease_id, old_lease_id;        /* held; to be given back before another is asked for */
    uint64_t join_ns, renew_ns, publish_ns; /* when that is due */
    uint64_t joined_revision, published_version;
    bool erased; /* our key is gone, or somebody else's */

    uint64_t cluster;       /* etcd's number of itself */
    uint64_t seen_revision; /* of the view; 0: all is to be read */
    uint64_t newest;        /* revision of a node or setting */
    bool watch_created;
    uint64_t watch_ns, watch_by_ns, check_ns; /* begin; be begun by; look whether it is right */
    uint64_t checked_revision; /* seen_revision when the last look found something amiss; 0: no */
    bool strangers;            /* there are keys that the view does not have */
    uint32_t warnings;
};

/* etcd_run.c: the thread. */
void *wf_etcd_run(void *members);
/* Ask and read; `body` is freed, NULL passes its sentence on.  WEFT_OK; WEFT_E_DENIED: not allowed;
 * WEFT_E_NOT_FOUND: there is no such lease; WEFT_E_LIMIT: that revision is compacted; WEFT_E_NODE:
 * no answer that makes sense, and the next endpoint's turn; WEFT_PENDING: it closes. */
enum weft_status wf_etcd_talk(struct wf_members *m, const char *path, char *body,
                              wf_etcd_take *take, void *context);
/* This endpoint does not do.  The sentence kept last says why. */
void wf_etcd_failed(struct wf_members *m);
/* How long one request may take. */
uint32_t wf_etcd_ask_ms(const struct wf_members *m);
void wf_etcd_ring(const struct wf_members *m);
/* What the registry said last, shown with a standing. */
void wf_etcd_why(struct wf_members *m, const char *why);
/* What it refuses this node, member or not; "": nothing any more. */
void wf_etcd_amiss(struct wf_members *m, const char *what);

/* etcd_join.c */
void wf_etcd_join(struct wf_members *m);
void wf_etcd_renew(struct wf_members *m);
void wf_etcd_publish(struct wf_members *m);
/* It is over, as far as this node is concerned: the lease is given back, and another asked for. */
void wf_etcd_lose(struct wf_members *m, const char *why);
void wf_etcd_leave(struct wf_members *m);

/* etcd_watch.c */
void wf_etcd_follow(struct wf_members *m); /* read all, or go on from where the watch ended */
void wf_etcd_check(struct wf_members *m);
bool wf_etcd_line(void *members, const char *line, size_t bytes);

/* etcd_sets.c */
void wf_etcd_set_all(struct wf_members *m);
void wf_etcd_sets_free(struct wf_etcd_sets *sets);

#endif
