/* SPDX-License-Identifier: Apache-2.0
 *
 * A network that is simulated: hosts, links and what goes wrong with them, in virtual time.
 *
 * A world has hosts, by name; a net that listens at "sim:NAME" is the one on host NAME, and a net
 * that listens nowhere has a host of its own.  A link is a stream between two hosts, as TCP is one:
 * what the network loses, doubles or brings in another order is seen above as delay, and as a link
 * that goes down when it lasts.  So that is what happens here, too.
 *
 *   - A message leaves in pieces through its host's card, which all links of the host share in
 * turn, takes the latency, and comes in through the other host's card.  What a link's reader has
 * not read is bounded (window_bytes), and the writer waits.
 *   - A payload is copied when it leaves, or is read where it lies while it is placed: by chance,
 * so that who touches it before `sent` is found out.
 *   - A host that is cut off says nothing: the other side of a link hears of it after dead_ms, and
 * each side for itself.  A process that ends says so, when its host can be heard.
 *
 * The same seed and the same calls make the same history; wf_net_sim_digest() tells two apart.
 * Nothing costs more with the number of hosts or links, but what is asked of all of them.
 *
 * Who drives nets in a simulation has events happen (base/vtime.h) and polls, with no time to wait,
 * those that wf_net_sim_next() names.  A poll that may wait has time pass itself until its net has
 * something to do, so that code which knows nothing of virtual time works, too.
 *
 * One thread; but wake() is everybody's.  Memory comes as it is needed: this is for tests.
 */
#ifndef WF_NET_SIM_H
#define WF_NET_SIM_H

#include "base/vtime.h"
#include "net/net.h"

#define WF_NET_SIM_HOSTS_MAX 65536u

struct wf_net_sim_world;

struct wf_net_sim_options {
    struct wf_vtime *time; /* borrowed, until the world is destroyed */
    uint64_t seed;
    uint64_t latency_ns;   /* one way; 0: 10 µs */
    uint64_t jitter_ns;    /* up to so much more; 0: a fifth of latency_ns */
    uint64_t bandwidth;    /* of a host's card, each way, bytes a second; 0: 12.5e9 */
    uint32_t piece_bytes;  /* what goes through the card at a time; 0: 256 KiB */
    uint32_t window_bytes; /* 0: 1 MiB */
    bool descriptors;      /* event() is one, readable when poll has something to do; else -1, for
                              who asks wf_net_sim_next() */
};

/* WEFT_E_NO_MEMORY. */
enum weft_status wf_net_sim_world_create(const struct wf_net_sim_options *options,
                                         struct wf_net_sim_world **out);
/* All nets in it have been destroyed. */
void wf_net_sim_world_destroy(struct wf_net_sim_world *world);

/* The net that has waited longest for a poll, if any does, and the context of its events.  It is
 * named again when it has something to do again. */
struct wf_net *wf_net_sim_next(struct wf_net_sim_world *world, void **out_context);

/* Of all that was sent, arrived, came up and went down, in its order and at its time. */
uint64_t wf_net_sim_digest(const struct wf_net_sim_world *world);

/* Be told of every message that is handed over, after who it is for was.  NULL: nobody. */
struct wf_net_sim_handed {
    const char *from, *to;
    uint64_t lane; /* a number of this link and direction, as there never is another */
    const void *header;
    uint32_t header_bytes;
    uint32_t pieces; /* that it wants the payload in; 0: it does not */
    uint64_t payload_bytes;
};
struct wf_net_sim_tap {
    void *context;
    void (*handed)(void *context, const struct wf_net_sim_handed *message);
};
void wf_net_sim_tap(struct wf_net_sim_world *world, const struct wf_net_sim_tap *tap);

/* ------------------------------------------------------------------------------------- faults
 *
 * Hosts are named without "sim:"; one that nobody has seen yet is made.  They hold until changed.
 */

/* Hosts hear each other when they are in the same group; all begin in group 0. */
void wf_net_sim_group(struct wf_net_sim_world *world, const char *host, uint32_t group);
/* Nothing that `from` says reaches `to`. */
void wf_net_sim_block(struct wf_net_sim_world *world, const char *from, const char *to, bool on);
/* Nothing that it says reaches anybody; nothing that anybody says reaches it. */
void wf_net_sim_mute(struct wf_net_sim_world *world, const char *host, bool out, bool in);
/* So much later, whatever comes from it and goes to it. */
void wf_net_sim_delay(struct wf_net_sim_world *world, const char *host, uint64_t ns);
/* Its card, bytes a second; 0: as the world's. */
void wf_net_sim_bandwidth(struct wf_net_sim_world *world, const char *host, uint64_t bandwidth);
/* Its net has something to do only so much after it would have. */
void wf_net_sim_slow(struct wf_net_sim_world *world, const char *host, uint64_t ns);
/* Of a million pieces that come to it or go from it, so many are lost once and sent again, */
void wf_net_sim_loss(struct wf_net_sim_world *world, const char *host, uint32_t ppm);
/* … and of those with payload that come to it, so many have a bit changed that nothing notices. */
void wf_net_sim_corrupt(struct wf_net_sim_world *world, const char *host, uint32_t ppm);
/* Its processes stand still (SIGSTOP): wf_net_sim_next() does not name its net, which says nothing
 * either, and is not to be polled.  One-sided access is not the processor's, and goes on. */
void wf_net_sim_pause(struct wf_net_sim_world *world, const char *host, bool on);
/* The process dies (SIGKILL), and its host's kernel tells the others; or the host does, `dark`,
 * and nobody is told.  Its net calls nothing any more but what destroy() does, which is next.  A
 * host is there again with its next net. */
void wf_net_sim_kill(struct wf_net_sim_world *world, const char *host, bool dark);
/* Every link between the two goes down: on one side now, on the other up to late_ns later.  Returns
 * how many there were. */
uint32_t wf_net_sim_break(struct wf_net_sim_world *world, const char *a, const char *b,
                          uint64_t late_ns);

struct wf_net_sim_stats {
    uint64_t pieces, bytes;   /* that left */
    uint64_t lost, corrupted; /* pieces */
    uint64_t torn;            /* one-sided writes of which a part was done when the link broke */
    uint64_t broken, silent;  /* links that were reset; that went down for silence */
    uint64_t held;            /* times that what was on its way had to wait for a fault to end */
    uint64_t hosts, wires;    /* there are now */
};
void wf_net_sim_world_stats(const struct wf_net_sim_world *world, struct wf_net_sim_stats *out);

/* ---------------------------------------------------------------------------- faults by a seed */

enum wf_net_sim_fault {
    WF_SIM_PARTITION = 0, /* some hosts are a group of their own */
    WF_SIM_ONE_WAY,       /* one host reaches another no more */
    WF_SIM_MUTE,          /* a host hears, and is not heard; or the other way round */
    WF_SIM_BREAK,         /* links of a host are reset, on one side sooner */
    WF_SIM_DELAY,         /* a host is far away */
    WF_SIM_THIN,          /* a host's card is a thousandth of what it was */
    WF_SIM_SLOW,          /* a host's process gets its turn late */
    WF_SIM_LOSS,
    WF_SIM_CORRUPT,
    WF_SIM_PAUSE, /* … and KILL, KILL_DARK are told to `acts` besides */
    WF_SIM_KILL,
    WF_SIM_KILL_DARK,
    WF_SIM_FAULTS
};

struct wf_net_sim_storm_options {
    uint64_t seed;
    uint64_t gap_ns;                 /* between faults, in the mean */
    uint64_t least_ns, most_ns;      /* how long one lasts */
    uint32_t weights[WF_SIM_FAULTS]; /* how often, against the others; 0: never */
    uint32_t at_once_max;            /* faults that hold at a time; 0: 8 */
    /* Hosts to choose from, by name; borrowed. */
    const char *const *hosts;
    uint32_t host_count;
    /* A fault begins and is over, `host` being where.  Called from an event: PAUSE is done already.
     * KILL is this one's to do, as is bringing it back when it is over.  NULL: nobody asks. */
    void (*acts)(void *context, enum wf_net_sim_fault fault, uint32_t host, bool begins);
    void *context;
};

struct wf_net_sim_storm;
/* From now on; WEFT_E_INVALID, WEFT_E_NO_MEMORY. */
enum weft_status wf_net_sim_storm_begin(struct wf_net_sim_world *world,
                                        const struct wf_net_sim_storm_options *options,
                                        struct wf_net_sim_storm **out);
/* No more faults; those that hold end now. */
void wf_net_sim_storm_end(struct wf_net_sim_storm *storm);
/* How many there were of each. */
void wf_net_sim_storm_counts(const struct wf_net_sim_storm *storm, uint64_t out[WF_SIM_FAULTS]);
const char *wf_net_sim_fault_name(enum wf_net_sim_fault fault);

#endif
