/* SPDX-License-Identifier: Apache-2.0
 *
 * A registry that is simulated, in virtual time.
 *
 * A world has clusters, "sim:CLUSTER", with members under leases, and settings.  Nodes talk to it
 * with messages that take time, and are told of changes a while after they happened, each node for
 * itself.  It behaves as etcd does behind src/member/etcd.c: while it is away nobody is told
 * anything, requests are lost, or were carried out though nobody heard so; when it is back, leases
 * whose time is over have ended, or (by chance) begun anew, and who has missed too much is told of
 * what is different now.
 *
 * The thread that a backend has for its talk is played by events of virtual time, so a node's
 * lease is renewed though nobody polls it; unless it is paused, as a process is by SIGSTOP.
 *
 * The same seed and the same calls make the same history.  Who drives nodes in a simulation polls,
 * with no time to wait, those that wf_member_sim_next() names; a poll that may wait has time pass
 * itself until there is something to tell.
 *
 * One thread.  Memory comes as it is needed: this is for tests.
 */
#ifndef WF_MEMBER_SIM_H
#define WF_MEMBER_SIM_H

#include "base/vtime.h"
#include "member/member.h"

struct wf_member_sim_world;

struct wf_member_sim_options {
    struct wf_vtime *time; /* borrowed, until the world is destroyed */
    uint64_t seed;
    uint64_t latency_ns; /* one way; 0: 500 µs */
    uint64_t jitter_ns;  /* up to so much more; 0: as latency_ns */
    uint64_t watch_ns;   /* a change is told up to so much later than that; 0: 2 ms */
};

/* WEFT_E_NO_MEMORY. */
enum weft_status wf_member_sim_world_create(const struct wf_member_sim_options *options,
                                            struct wf_member_sim_world **out);
/* All nodes in it have been closed. */
void wf_member_sim_world_destroy(struct wf_member_sim_world *world);

/* The node that has waited longest for a poll, if any does, and the context of its events. */
struct wf_members *wf_member_sim_next(struct wf_member_sim_world *world, void **out_context);

/* Of all that the registry did, and that nodes were told. */
uint64_t wf_member_sim_digest(const struct wf_member_sim_world *world);

/* The epoch of the lease that `name` has at the registry; 0: none. */
uint64_t wf_member_sim_epoch(const struct wf_member_sim_world *world, const char *cluster,
                             const char *name);

/* Faults; they hold until changed. */

/* No registry answers. */
void wf_member_sim_away(struct wf_member_sim_world *world, bool away);
/* It dies and is there again with what it had: what was on its way is lost, and everybody has to
 * begin to watch anew. */
void wf_member_sim_restart(struct wf_member_sim_world *world);
/* It forgets all changes that are past: who has not been told has to compare. */
void wf_member_sim_forget(struct wf_member_sim_world *world);
/* This node and the registry do not hear each other. */
void wf_member_sim_cut(struct wf_member_sim_world *world, const char *name, bool cut);
/* This node's processes stand still. */
void wf_member_sim_pause(struct wf_member_sim_world *world, const char *name, bool paused);
/* This node dies: nothing more of it is done, and close(), which is next, says nothing. */
void wf_member_sim_kill(struct wf_member_sim_world *world, const char *name);
/* Changes are told so much later; 0: as the options have it. */
void wf_member_sim_delay(struct wf_member_sim_world *world, uint64_t watch_ns);

#endif
