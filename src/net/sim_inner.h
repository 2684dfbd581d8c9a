/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the simulated network share.
 *
 *     sim.c         worlds, hosts, nets, poll
 *     sim_link.c    links come up, go down, fall silent; what arrives is handed over
 *     sim_wire.c    cards, and pieces on their way
 *     sim_access.c  one-sided access
 *     sim_fault.c   what goes wrong, by call
 *     sim_storm.c   … and by a seed
 *
 * A link is a wire with an end on each side, and two lanes, one each way.  What is sent is a
 * parcel: it waits in the end's queue for the host's card, which takes a piece of it at a time; the
 * pieces lie in the lane until they arrive, and then in the other end's inbox until its net is
 * polled.  One event a lane stands for the first of its pieces.
 *
 *     end ─► queue of parcels ─► card ─► lane: pieces ─► inbox ─► begun, progress, arrived
 *      ▲                                                  │
 *      └── finished: sent, done ◄─────────────────────────┘
 */
#ifndef WF_NET_SIM_INNER_H
#define WF_NET_SIM_INNER_H

#include <stdatomic.h>

#include "base/random.h"
#include "net/sim.h"
#include "sys/memory.h"

#define WF_SIM_FRAME_BYTES 64u      /* around a message, on the wire */
#define WF_SIM_AHEAD_NS 20000u      /* what a card takes before it has sent what it has */
#define WF_SIM_RESEND_NS 200000000u /* of what is lost, when nothing else told the sender */
#define WF_SIM_EXPOSED_MAX 65536u   /* of a net */
#define WF_SIM_GRANTS_MAX 1024u     /* of a link */

#define WF_SIM_OF(type, member, pointer) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

enum wf_sim_kind {
    WF_SIM_CALL = 1, /* the first word of a link, with the hello */
    WF_SIM_ANSWER,   /* and the other side's */
    WF_SIM_MESSAGE,
    WF_SIM_ACCESS,   /* a request of one-sided access; with the bytes, when it writes */
    WF_SIM_TAKEN,    /* a payload that was read where it lay has been */
    WF_SIM_RESPONSE, /* what came of it; with the bytes, when it reads */
    WF_SIM_BYE,      /* the end was closed */
    WF_SIM_RESET,    /* there is no such link any more, or never will be */
};

struct wf_sim_cursor {
    const struct iovec *pieces;
    uint32_t index;
    size_t offset;
};

struct wf_sim_parcel;

/* Part of a parcel, on its way. */
struct wf_sim_piece {
    struct wf_sim_piece *next;
    struct wf_sim_parcel *parcel;
    uint64_t at_ns;
    uint64_t bytes;   /* of the payload */
    uint32_t counted; /* in the window */
    bool first, last, corrupt;
};

struct wf_sim_parcel {
    uint32_t refs; /* of the end's list, and of each piece */
    uint8_t kind;
    bool copied;  /* the payload, when it leaves; else it is read where it lies */
    bool severed; /* the sender's memory is gone: what has not been read is not there */
    bool only_taken;
    enum weft_status status;                    /* of what ended; RESET, RESPONSE */
    struct wf_net_link *from;                   /* NULL: nobody is told any more */
    struct wf_sim_parcel *queue_next;           /* of those that wait for the card */
    struct wf_sim_parcel *own_next, **own_back; /* of those not finished, or of those
                                                   whose caller has to be told */
    struct wf_net_message *message;
    struct wf_net_access *access;
    struct wf_sim_parcel *request; /* RESPONSE, TAKEN: which */
    const char *why;               /* RESET; static */
    uint64_t payload_bytes, left_bytes;
    struct wf_sim_cursor cursor; /* in the message's pieces, when not copied */
    uint8_t *payload, *read;     /* when copied */
    struct wf_sim_piece only;    /* most have one piece */
    uint32_t header_bytes;
    uint8_t header[];
};

struct wf_sim_lane {
    struct wf_sim_piece *first, **last;
    struct wf_vtime_event arrives;
    uint64_t last_ns;    /* when what was sent last arrives */
    uint64_t blocked_ns; /* since when it is blocked */
    uint64_t unread;     /* bytes that left, and have not been read */
    uint8_t side;
    bool blocked, held, starved; /* held: something would have arrived; starved: wants the window */
};

enum wf_sim_state {
    WF_SIM_GONE = 0, /* there is no such end, (any more) */
    WF_SIM_CALLING,
    WF_SIM_CALLED, /* the call lies in its inbox */
    WF_SIM_UP,
    WF_SIM_ENDING, /* down is to be called */
};

struct wf_net_link {
    uint8_t side, state;
    bool called;        /* this side began it */
    bool told;          /* of it: connect() gave it out, or up() took it */
    bool queued, ready; /* in the card's, in the net's list */
    bool receiving, dropping;
    uint32_t waiting;   /* messages that are not sent, and accesses not done */
    struct wf_net *net; /* NULL when gone */
    void *user;
    struct wf_net_link *card_next, *ready_next;
    struct wf_net_link *host_next, **host_back;      /* of all ends that a host has, and had */
    struct wf_sim_parcel *queue_first, **queue_last; /* for the card */
    struct wf_sim_parcel *own;                       /* messages and accesses under way */
    struct wf_sim_parcel *over_first, **over_last;   /* to be told of */
    struct wf_sim_piece *inbox_first, **inbox_last;
    uint64_t heard_ns;
    /* The message that arrives: */
    struct iovec *into;
    uint32_t into_max;
    struct wf_sim_cursor place;
    uint64_t placed;
    void *token;
    /* Why it ends: */
    enum weft_status status;
    const char *why; /* static */
    struct wf_net_handle *grants;
    uint32_t grant_count;
};

struct wf_sim_host;

struct wf_sim_wire {
    struct wf_net_link end[2];
    struct wf_sim_lane lane[2]; /* from the end of that number */
    struct wf_sim_host *host[2];
    struct wf_vtime_event timer; /* to be up by then */
    uint64_t number;
};

struct wf_sim_exposed {
    uint8_t *base;
    size_t bytes;
    enum wf_net_rights rights;
    uint32_t generation;
    bool used;
};

struct wf_net {
    struct wf_sim_host *host;
    struct wf_net_sim_world *world;
    struct wf_net_events events;
    struct wf_net_security security;
    char address[WF_NET_ADDRESS_MAX], name[WF_NET_NAME_MAX];
    char *ca;
    bool listens, dead, polling, ready, tick_due;
    uint32_t links_max, queue_max, dead_ms, connect_ms, hello_bytes, link_count;
    uint64_t tick_ns, polled_ns;
    struct wf_net *ready_next, **ready_back;
    struct wf_net_link *ready_first, **ready_last;
    struct wf_vtime_event tick, late;
    struct wf_net_stats stats;
    struct wf_sim_exposed *exposed;
    uint32_t exposed_count;
    int event;
    atomic_bool woken;
    struct iovec out[WF_NET_PIECES_MAX];
    uint8_t hello[WF_NET_HELLO_MAX];
};

struct wf_sim_host {
    struct wf_net_sim_world *world;
    char name[WF_NET_ADDRESS_MAX];
    uint32_t number, group;
    struct wf_net *net;
    bool mute_out, mute_in, paused, dark;
    uint32_t loss_ppm, corrupt_ppm;
    uint64_t delay_ns, bandwidth, slow_ns;
    uint64_t out_free_ns, in_free_ns; /* when its card has sent and taken what it has */
    struct wf_net_link *card_first, **card_last;
    struct wf_vtime_event card;
    struct wf_net_link *ends;
};

struct wf_sim_pair {
    uint32_t from, to;
};

struct wf_net_sim_world {
    struct wf_net_sim_options options;
    struct wf_vtime *time;
    uint64_t random, digest, wires;
    struct wf_sim_host **hosts;
    uint32_t host_count, host_max;
    uint32_t *by_name, by_name_count; /* number + 1, by hash; a power of two */
    struct wf_sim_pair *blocked;
    uint32_t blocked_count, blocked_max;
    struct wf_net *ready_first, **ready_last;
    struct wf_net_sim_stats stats;
    struct wf_net_sim_tap tap;
};

static inline struct wf_sim_wire *wf_sim_wire_of(struct wf_net_link *end)
{
    return WF_SIM_OF(struct wf_sim_wire, end, end - end->side);
}

static inline struct wf_sim_host *wf_sim_host_of(struct wf_net_link *end)
{
    return wf_sim_wire_of(end)->host[end->side];
}

static inline uint64_t wf_sim_now(const struct wf_net_sim_world *world)
{
    return wf_vtime_now(world->time);
}

static inline bool wf_sim_chance(struct wf_net_sim_world *world, uint32_t ppm)
{
    return ppm && wf_random_below(&world->random, 1000000) < ppm;
}

/* Into the history. */
static inline void wf_sim_note(struct wf_net_sim_world *world, uint64_t what, uint64_t where,
                               uint64_t value)
{
    uint64_t x = world->digest ^ (wf_sim_now(world) + what * 0x9e3779b97f4a7c15u);
    x = (x ^ (x >> 29) ^ where) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 32) ^ value) * 0x94d049bb133111ebu;
    world->digest = x ^ (x >> 31);
}

/* sim.c */
enum weft_status wf_sim_host_get(struct wf_net_sim_world *world, const char *name,
                                 struct wf_sim_host **out);
/* The net wants to be polled. */
void wf_sim_wake(struct wf_net *net);
/* … for this end. */
void wf_sim_ready(struct wf_net_link *end);

void wf_sim_unlist_net(struct wf_net *net);
bool wf_sim_has_work(const struct wf_net *net);

/* sim_wire.c */
struct wf_sim_parcel *wf_sim_parcel_new(enum wf_sim_kind kind, struct wf_net_link *from,
                                        const void *header, uint32_t header_bytes);
void wf_sim_parcel_put(struct wf_sim_parcel *parcel);
void wf_sim_piece_free(struct wf_sim_piece *piece);
/* It waits for the card from now on; the reference goes with it into `own` of the end. */
void wf_sim_queue(struct wf_net_link *end, struct wf_sim_parcel *parcel);
/* All that waits is not to leave any more. */
void wf_sim_queue_drop(struct wf_net_link *end);
/* Say a word on a lane that needs no card: `late_ns` later than it would come. */
void wf_sim_say(struct wf_sim_wire *wire, uint32_t side, struct wf_sim_parcel *parcel,
                uint64_t late_ns);
void wf_sim_reset(struct wf_sim_wire *wire, uint32_t side, enum weft_status status, const char *why,
                  uint64_t late_ns);
/* So much of what this lane carried has been read. */
void wf_sim_was_read(struct wf_sim_wire *wire, uint32_t side, uint64_t bytes);
/* Whether what one says reaches the other now. */
void wf_sim_lane_look(struct wf_sim_wire *wire, uint32_t side);
void wf_sim_wire_init(struct wf_sim_wire *wire, struct wf_sim_host *from, struct wf_sim_host *to);
/* Free it, if nobody has an end of it. */
void wf_sim_wire_settle(struct wf_sim_wire *wire);
void wf_sim_card_happens(struct wf_vtime_event *event);
/* The caller of a message or an access is to be told. */
void wf_sim_over(struct wf_sim_parcel *parcel, enum weft_status status);
uint64_t wf_sim_move(struct wf_sim_cursor *to, struct wf_sim_cursor *from, uint64_t bytes);
uint64_t wf_sim_bytes_of(const struct iovec *pieces, uint32_t count);

/* sim_link.c */
enum weft_status wf_sim_connect(struct wf_net *net, const char *address, void *user,
                                struct wf_net_link **out);
void wf_sim_close(struct wf_net_link *end);
/* It goes down at the next poll.  `why` is static. */
void wf_sim_end(struct wf_net_link *end, enum weft_status status, const char *why);
/* It is gone: everything of it has ended, and it is free when the other one is gone, too. */
void wf_sim_gone(struct wf_net_link *end, bool tell_down);
void wf_sim_took(struct wf_sim_wire *wire, uint32_t side, struct wf_sim_piece *piece);
/* Do what there is to do for it. */
void wf_sim_work(struct wf_net_link *end);
void wf_sim_silence(struct wf_net_link *end);

/* sim_access.c */
enum weft_status wf_sim_expose(struct wf_net *net, void *base, size_t bytes,
                               enum wf_net_rights rights, struct wf_net_handle *out);
enum weft_status wf_sim_grant(struct wf_net_link *end, struct wf_net_handle handle);
void wf_sim_withdraw(struct wf_net *net, struct wf_net_handle handle);
enum weft_status wf_sim_access(struct wf_net_link *end, struct wf_net_access *access);
void wf_sim_requested(struct wf_net_link *at, struct wf_sim_parcel *request);
/* The link of a write under way breaks: a part of it may have been done. */
void wf_sim_tear(struct wf_sim_parcel *request);

#endif
