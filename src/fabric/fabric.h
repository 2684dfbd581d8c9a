/* SPDX-License-Identifier: Apache-2.0
 *
 * Many nodes, one memory: who the others are, what they have, and their blocks.
 *
 * A fabric is this node's part of a cluster.  It finds the other nodes (member/member.h), keeps a
 * link to each (net/net.h), proves which domains it has, tells what blocks there are of these and
 * hears what the others tell (wire.h), fetches blocks from them and gives them blocks.  It decides
 * nothing about this node's memory: that is the host's, which is asked through wf_fabric_host.
 *
 * What it promises:
 *
 *   - A fetched block is WEFT_OK only when every part of it matched the sum that its sender took,
 * and its sender was asked for the whole 32 bytes of its key, in a domain of which both have
 * proved the secret.  Everything else is a miss.
 *   - What others have is a hint.  It is forgotten when they say so, when their link is gone, when
 * their lease is, and when a fetch finds it stale.
 *   - A node that is no member, or speaks under an older epoch than the registry has, is believed
 * by nobody; and this node, once its own standing is over, takes nothing from others to keep.
 *
 * One thread drives it, as it drives its net and its registry; what others may call says so.  It
 * has no clock of its own and no thread, so that a simulation runs a thousand of them in one.
 */
#ifndef WF_FABRIC_FABRIC_H
#define WF_FABRIC_FABRIC_H

#include "codec/frame.h"
#include "fabric/choice.h"
#include "fabric/route.h"
#include "fabric/wire.h"
#include "member/member.h"
#include <stdatomic.h>

#include "tier/tier.h"

#define WF_FABRIC_PEERS_MAX 4096u
#define WF_FABRIC_SECRET_MAX 64u
#define WF_FABRIC_NETS_MAX 4u

struct wf_fabric;
struct wf_fabric_pushed;

/* A domain of this node; its number is its place. */
struct wf_fabric_domain {
    uint8_t secret[WF_FABRIC_SECRET_MAX];
    uint32_t secret_bytes;
    uint8_t quality;      /* enum weft_quality that it asks for; 0: exact.  Worse copies elsewhere
                             are none */
    uint32_t share;       /* of a link that several domains want; 0: 1 */
    uint64_t max_bytes_s; /* that leave this node, on all links together; 0: no bound */
};

/* How much may be sent to a node. */
#define WF_FABRIC_LINKS_NAMED 64u
struct wf_fabric_link_limit {
    char name[WF_MEMBER_NAME_MAX + 1];
    uint64_t bytes_s; /* 0: no bound */
};
#define WF_FABRIC_LIMIT_AS_ALL UINT64_MAX /* a node has none of its own any more */
enum wf_fabric_limit {
    WF_FABRIC_LIMIT_LINK = 1,   /* bytes a second to a node; "": to each that has none of its own */
    WF_FABRIC_LIMIT_DOMAIN = 2, /* bytes a second of a domain, on all links together */
    WF_FABRIC_LIMIT_SHARE = 3,  /* a domain's weight */
};

/* A block that the host holds for us. */
struct wf_fabric_held {
    const void *data;
    uint64_t bytes;
    uint8_t quality;  /* enum weft_quality; 0: exact */
    uint64_t profile; /* by which it was stored with loss; 0: by none that is known */
    void *user[8];    /* the host's */
};

/* Parts of a block that lies below, read for another node.  The fabric's from read() until its done
 * was called; from then on what is at `data` is the host's until read_free(). */
struct wf_fabric_read {
    uint32_t domain;
    uint8_t key[32];
    uint64_t bytes; /* of the block */
    uint32_t part_bytes, first_part, part_count;
    uint8_t accept; /* enum weft_quality: nothing worse; 0: exact */
    bool cut; /* what lies there encoded may be given as a cut of its frame (codec/frame_cut.h) */
    uint64_t profiles; /* … if it needs none, or one of these: as in struct wf_fabric_get */
    /* The host's, set before it is done: */
    const void *data;   /* the first of these parts, */
    uint64_t cut_bytes; /* or the cut that is for them, shorter than they are; 0: themselves */
    uint8_t quality;    /* as of wf_fabric_held; with WEFT_MISS: of what is there and worse than
                           `accept`, 0: nothing */
    uint64_t profile;
    void *user[2];
    /* The fabric's: */
    struct wf_fabric_read *next;
    enum weft_status status;
    void *serve;
};

/* What this node has, and what it makes of what others have.  On the fabric's thread. */
struct wf_fabric_host {
    void *context;
    /* Hold a block's payload, so that it stays where it is until let_go.  WEFT_OK, WEFT_MISS;
     * WEFT_E_BUSY: not now. */
    enum weft_status (*hold)(void *context, uint32_t domain, const uint8_t key[32], uint64_t bytes,
                             struct wf_fabric_held *out);
    void (*let_go)(void *context, struct wf_fabric_held *held);
    /* What hold() has not may be below: read it into memory of the host's own.  WEFT_PENDING:
     * wf_fabric_read_done() says how it ended, once, unless the fabric is destroyed before.
     * WEFT_E_BUSY: not now, and it is asked again in a moment; WEFT_MISS.  NULL: nothing is below.
     */
    enum weft_status (*read)(void *context, struct wf_fabric_read *read);
    void (*read_free)(void *context, struct wf_fabric_read *read);
    /* Is it below, as far as that is known without asking anybody, and in which quality (NULL: that
     * does not matter)?  NULL: nothing is. */
    bool (*below)(void *context, uint32_t domain, const uint8_t key[32], uint8_t *out_quality);
    /* All that is here of a domain, a bounded step at a time, what is in the pool before what is
     * below: calls `found` and moves *cursor, which is 0 at first; false: that was the end.  What
     * is below may have to be asked for first: then the cursor stays, nothing is found, and the
     * host wakes the fabric when it is there. */
    bool (*each)(void *context, uint32_t domain, uint64_t *cursor,
                 void (*found)(void *to, const struct wf_fabric_event *block), void *to);
    /* Some other node, number `from`, has this block, in a quality that its domain asks for, and
     * nobody had before, or only a worse one; or nobody has it any more.  HERE without bytes: what
     * is known of it is right, but its quality, which is worse now.  False: it cannot be taken now;
     * it is told again some time after room_again was called, or wf_fabric_forgotten() grows. */
#define WF_FABRIC_NOBODY WF_FABRIC_PEERS_MAX /* no other node's word: what is lent here counts */
    bool (*news)(void *context, uint32_t from, const struct wf_fabric_event *block);
    /* Another node hands over the chain that ends in this block: it is wanted here soon.  NULL:
     * nobody takes what is handed over. */
    void (*offered)(void *context, const char *from, uint32_t domain, const uint8_t tip[32]);
    /* A client of that domain at another node wants a block and all that extends it removed.  NULL:
     * only what is lent goes. */
    void (*forget)(void *context, const char *from, uint32_t domain, const uint8_t key[32]);
    /* Another node pushes blocks: room for them, and later what becomes of it.  Each is answered by
     * wf_fabric_pushed_answer(), at once or later on, on any thread.  NULL: nobody takes any. */
    void (*push_room)(void *context, struct wf_fabric_pushed *pushed);
    void (*push_end)(void *context, struct wf_fabric_pushed *pushed);
    /* Of how many bytes a block's parts are.  NULL: what the host has does not go to others when
     * this node drains. */
    uint32_t (*part_bytes)(uint64_t bytes);
    /* The profiles that are here, a bit each by id % 64; NULL: there are none.  And one of them, on
     * any thread, several at a time; what it gives outlives the fabric.  NULL: it is not here. */
    uint64_t (*profiles)(void *context);
    const struct wf_profile *(*profile)(void *context, uint64_t id);
    /* Fill in what this node says of itself: *_bytes, busy, flags.  NULL: nothing. */
    void (*say)(void *context, struct wf_fabric_ping *out);
    /* How a block of that size lies in its bytes, for who encodes it; a wrong answer costs some of
     * the gain.  False: that is not known, and such blocks cross as they are.  NULL: of none. */
    bool (*layout)(void *context, uint32_t domain, uint64_t bytes, struct wf_layout *out);
    /* Blocks go encoded to a node, or come so from it, or do no more: a sentence.  NULL: nobody
     * asks. */
    void (*chose)(void *context, const char *sentence);
    /* Another node came or went, this one's standing is another, or it is drained: a sentence.
     * NULL: nobody asks. */
    void (*told)(void *context, const char *sentence);
    /* What of a chain is here, without a hole, on any thread that asks where a request should run;
     * it must not call the fabric.  NULL: nothing is known to be here. */
    void (*own)(void *context, uint32_t domain, const uint8_t (*keys)[32], uint32_t count,
                struct wf_routes_own *out);
};

/* Whether this node knows where all blocks of all nodes are, or a part of that, and asks for the
 * rest (parts.c); auto: by what it costs, all as long as that is within replica_copies. */
enum wf_fabric_directory {
    WF_FABRIC_DIRECTORY_AUTO = 0,
    WF_FABRIC_DIRECTORY_FULL,
    WF_FABRIC_DIRECTORY_PARTS,
};

struct wf_fabric_options {
    const char *name;     /* of this node; WF_MEMBER_NAME_MAX */
    const char *locality; /* where it stands (core/locality.h); NULL: not said */
    const char
        *listen; /* addresses of net.h, divided by commas, WF_FABRIC_NETS_MAX; NULL: nowhere */
    const char *advertise; /* what others are told instead of where it listens; NULL: that */
    const char *registry, *user, *password, *ca, *certificate, *key; /* member.h */
    const char *state_dir;
    struct wf_net_security security;
    const struct wf_net_ops *net;       /* NULL: by the address */
    const struct wf_member_ops *member; /* NULL: by the registry */
    struct wf_net_sim_world *net_world;
    struct wf_member_sim_world *member_world;
    struct wf_fabric_host host;
    const struct wf_fabric_domain *domains;
    uint32_t domain_count;
    uint64_t link_bytes_s; /* the most to each node that is not among `links`; 0: no bound */
    const struct wf_fabric_link_limit *links;
    uint32_t link_count;
    uint64_t lend_bytes;     /* memory that others may put blocks into; 0: none */
    uint64_t replica_copies; /* how many copies elsewhere it can know of, and of half of them that
                                they are below; 0: 4 million */
    uint32_t copies;         /* that there are to be of what is put there; 0: 1 */
    uint64_t move_bytes_s;   /* at which blocks are moved to others' memory; 0: 125 million */
    enum wf_fabric_directory directory;
    uint64_t directory_bytes_s; /* auto: more than that of news is too much; 0: no limit */
    uint64_t seed;              /* of the replica's hash; anything that others do not know */
    uint32_t lease_ms;          /* 0: 5000 */
    uint32_t dead_ms;           /* of a link that is silent; 0: 5000 */
    uint32_t fetch_ms;          /* a holder that has not begun to answer by then: the next is asked;
                                   0: 1000.  Where the block is below, four times that; and who has
                                   it there says that it cannot be given after three times */
    enum wf_fabric_codec codec;
    struct wf_codec_speed codec_speed; /* of this node; decode_threads are all that it has */
    uint64_t codec_bytes;              /* for frames that go out; 0: 64 MiB */
    uint32_t show_ms; /* how often figures are made, asked for or not; 0: when asked for */
    uint64_t (*now_ns)(void *context); /* NULL: wf_now_ns() */
    void *now_context;
};

enum weft_status wf_fabric_create(const struct wf_fabric_options *options, struct wf_fabric **out);
/* Leaves the cluster, if that can be said within leave_ms.  Fetches end first. */
void wf_fabric_destroy(struct wf_fabric *fabric, uint32_t leave_ms);

/* Do what there is to do; wait up to timeout_ms for it. */
enum weft_status wf_fabric_poll(struct wf_fabric *fabric, uint32_t timeout_ms);
/* Readable when poll has something to do; poll wants to run every 100 ms besides. */
int wf_fabric_event(const struct wf_fabric *fabric);
/* Any thread: have a poll that waits return. */
void wf_fabric_wake(struct wf_fabric *fabric);

/* --------------------------------------------------------------------------------- any thread */

/* A block came to this node, or went.  Never waits; what does not fit is told anew later on. */
void wf_fabric_tell(struct wf_fabric *fabric, const struct wf_fabric_event *event);

/* Host: a read has ended.  WEFT_OK: its parts are at `data`.  WEFT_EXISTS: the block is in memory
 * by now, to be held.  Anything else is as of a block that is not there (WEFT_MISS,
 * WEFT_E_CORRUPT), or cannot be given now. */
void wf_fabric_read_done(struct wf_fabric *fabric, struct wf_fabric_read *read,
                         enum weft_status status);

/* A read of parts of a block that others have: the caller's, and unchanged, until `done`, which is
 * called exactly once, on the fabric's thread. */
struct wf_fabric_fetch {
    uint32_t domain;
    uint8_t key[32];
    uint64_t bytes;                  /* of the block */
    uint32_t part_bytes;             /* its parts, as in tier.h */
    uint32_t first_part, part_count; /* part_count 0: all */
    void *data;
    bool background; /* nobody waits for it: it goes behind what somebody waits for */
    uint8_t accept;  /* enum weft_quality: nothing worse; 0: exact */
    /* When it is WEFT_OK: what came, as of wf_fabric_held. */
    uint8_t quality;
    uint64_t profile;
    /* WEFT_OK; WEFT_MISS: nobody has it; WEFT_E_CORRUPT: what came was wrong, everywhere;
     * WEFT_E_BUSY: who has it cannot give it now, as a node that stops; WEFT_E_LIMIT: who has it
     * may send so little that its turn would come too late, `limit` says by which bound;
     * WEFT_E_TIMEOUT: nobody answered in time, or it was cancelled.  WEFT_E_NODE: who had it went
     * meanwhile. */
    void (*done)(struct wf_fabric_fetch *fetch, enum weft_status status);
    void *user;
    struct wf_fetch_limit {
        enum wf_fabric_limited by; /* 0: by none */
        uint64_t bytes_s;
        char name[WF_MEMBER_NAME_MAX + 1]; /* of the node that has it */
    } limit;
    /* The fabric's: */
    struct wf_fabric_fetch *next;
    uint64_t asked_ns, request;
    uint64_t moved; /* payload that `done` may count */
    uint32_t tried_count, from;
    uint16_t tried[8];
    uint8_t put_off; /* of those a bit each: a bound on what they send makes them late */
    bool patient;    /* it waits for that now, as nobody else has it */
    enum weft_status worst;
    _Atomic bool cancelled;       /* any thread */
    bool placing, framed, looked; /* looked: an owner of its shard was asked */
    bool slow;                    /* it is below where it was asked for */
    bool was_own;                 /* it was read from what this node lends */
    bool cuts, cut, decoded;      /* a cut may come; comes; is not to: its profile is not here */
    uint64_t frame_bytes;         /* that come; 0: it comes as it is */
};
void wf_fabric_fetch(struct wf_fabric *fabric, struct wf_fabric_fetch *fetch);

/* A block that some other node, one that lends memory, is to keep for this one, or options.copies
 * of them, as far as there are so many that have room: the caller's, and unchanged, until `done`,
 * which is called exactly once, on the fabric's thread. */
struct wf_fabric_store {
    struct wf_fabric_event block; /* domain: this node's number */
    uint32_t part_bytes;
    uint64_t profile; /* as of wf_fabric_held */
    const void *data;
    /* WEFT_OK: `to` has it now.  WEFT_EXISTS: another node put it there.  WEFT_FULL: nobody has
     * room.  WEFT_E_TIMEOUT, WEFT_E_CORRUPT. */
    void (*done)(struct wf_fabric_store *store, enum weft_status status);
    void *user;
    /* The fabric's: */
    _Atomic bool cancelled; /* any thread */
    struct wf_fabric_store *next;
    uint32_t tried_count, to;
    uint16_t tried[8];
    enum weft_status worst;
    uint32_t copies;       /* that there should be in lenders' memory, */
    uint32_t wanted, made; /* and how many of these this makes, and has made */
    const uint64_t *sums;  /* of its parts; NULL: they are taken when it is sent */
    double fill_max;       /* no lender that is fuller; 0: any */
    bool moves; /* the fabric does that by itself, and the host is told who has it then */
    char owner[WF_MEMBER_NAME_MAX + 1];
};
void wf_fabric_store(struct wf_fabric *fabric, struct wf_fabric_store *store);
/* Its `done` comes soon, with WEFT_E_TIMEOUT or its result; harmless after it. */
void wf_fabric_store_cancel(struct wf_fabric *fabric, struct wf_fabric_store *store);
/* Whoever keeps that block for this node need not any more; best effort. */
void wf_fabric_drop(struct wf_fabric *fabric, const uint8_t key[32]);
/* What other nodes lend to this one: what it is due of it all, and what of that it has not used. */
void wf_fabric_lent_here(struct wf_fabric *fabric, uint64_t *out_bytes, uint64_t *out_free_bytes);
#define WF_FETCH_LIMIT_S 30u /* no turn is waited for that comes later */
/* Does some fetch wait for as long as a bound on what another node sends takes? */
bool wf_fabric_patient(const struct wf_fabric *fabric);
/* Its `done` comes soon, with WEFT_E_TIMEOUT or its result. */
void wf_fabric_cancel(struct wf_fabric *fabric, struct wf_fabric_fetch *fetch);

/* Have the node `name` fetch a chain from this one: blocks of it with their parents first, up to
 * WF_FABRIC_OFFER_MAX.  WEFT_E_NOT_FOUND: there is no such node; WEFT_E_BUSY: too many chains are
 * on their way; WEFT_E_NO_MEMORY.  That it was told is all that is promised. */
#define WF_FABRIC_OFFER_MAX 16384u
enum weft_status wf_fabric_offer(struct wf_fabric *fabric, const char *name,
                                 const struct wf_fabric_event *blocks, uint32_t count);

/* Have all nodes that are there, and have that domain, remove a block and all that extends it.
 * WEFT_E_BUSY, WEFT_E_NO_MEMORY.  wf_fabric_elsewhere() tells when it is done. */
enum weft_status wf_fabric_forget(struct wf_fabric *fabric, uint32_t domain, const uint8_t key[32]);
/* Of these blocks, up to WF_FABRIC_OFFER_MAX, what lies in memory that this node lends goes, and,
 * if it is to go everywhere, what lies in that of others: who lends may have a block and none of
 * those between it and the chain's beginning.  WEFT_E_BUSY, WEFT_E_NO_MEMORY. */
enum weft_status wf_fabric_forget_lent(struct wf_fabric *fabric, uint32_t domain,
                                       const uint8_t (*keys)[32], uint32_t count, bool everywhere);

/* A bit a block, as pushes say which they mean. */
static inline bool wf_bit(const uint64_t *words, uint32_t bit)
{
    return words[bit / 64] >> (bit % 64) & 1;
}
static inline void wf_bit_set(uint64_t *words, uint32_t bit)
{
    words[bit / 64] |= 1ull << (bit % 64);
}

/* Blocks that are being written here and go to one other node meanwhile, layer by layer.  All is
 * the caller's, and the blocks' memory stays, until `done`, which is called exactly once, on the
 * fabric's thread. */
struct wf_fabric_push {
    char to[WF_MEMBER_NAME_MAX + 1];
    uint32_t count, layers;
    struct wf_fabric_event blocks[WF_FABRIC_PUSH_BLOCKS_MAX]; /* HERE, their parents first; of one
                                                                 domain and size */
    const uint8_t *data[WF_FABRIC_PUSH_BLOCKS_MAX];
    uint64_t profile; /* of those of them that lost something, as of wf_fabric_held */
    uint64_t keep[WF_FABRIC_PUSH_WORDS]; /* a bit a block; said before wf_fabric_push_end() */
    /* WEFT_OK: all that was kept is there now.  Anything else: not all of it, or not known. */
    void (*done)(struct wf_fabric_push *push, enum weft_status status);
    void *user;
    /* The fabric's: */
    struct wf_fabric_push *next;
    void *line, *line_last; /* messages that are encoded, and those behind them */
    struct wf_link *link;
    _Atomic uint32_t written, end;
    uint32_t state, number, layer, block, flight, agains;
    enum weft_status status;
    uint64_t handle, since_ns, lost_ns, next_ns, wanted[WF_FABRIC_PUSH_WORDS];
    uint64_t flight_bytes, sent_bytes, published; /* the last two `done` may look at */
};
#define WF_FABRIC_PUSHES_MAX 64u /* at a time, here and there */
/* WEFT_OK: `done` follows.  WEFT_E_NOT_FOUND: there is no such node.  WEFT_E_INVALID. */
enum weft_status wf_fabric_push(struct wf_fabric *fabric, struct wf_fabric_push *push);
/* The first `layers` of all its blocks have been written, and do not change any more. */
void wf_fabric_push_written(struct wf_fabric *fabric, struct wf_fabric_push *push, uint32_t layers);
/* All of them: those in `keep` were committed, and may be published there.  Or none is to be. */
void wf_fabric_push_end(struct wf_fabric *fabric, struct wf_fabric_push *push, bool committed);
/* Does node `name` have that block in memory, as far as is known here? */
bool wf_fabric_has(struct wf_fabric *fabric, const char *name, const uint8_t key[32]);

/* Blocks that another node pushes to this one.  The fabric's, but for what the host is asked for.
 */
struct wf_fabric_pushed {
    char from[WF_MEMBER_NAME_MAX + 1];
    uint32_t number; /* its place, below WF_FABRIC_PUSHES_MAX */
    uint32_t domain, count, layers;
    uint64_t bytes;   /* of each block */
    uint64_t profile; /* of those that lost something, as of wf_fabric_held */
    struct wf_fabric_event blocks[WF_FABRIC_PUSH_BLOCKS_MAX]; /* `domain` is this node's */
    /* push_room is answered with WEFT_OK, and where blocks go: memory that stays until push_end,
     * which follows then; NULL: this one is not wanted.  Or with another status of struct
     * wf_fabric_room, and the host holds nothing. */
    enum weft_status status;
    uint8_t *data[WF_FABRIC_PUSH_BLOCKS_MAX];
    /* push_end: those of `keep` have come whole and may be published, the others are given back;
     * `committed` are those that the other node has published itself.  Answered with how many of
     * these are published now, were there already, or are not there. */
    uint64_t keep[WF_FABRIC_PUSH_WORDS], committed[WF_FABRIC_PUSH_WORDS];
    uint32_t published, existing, missing;
    /* The fabric's: */
    struct wf_fabric_pushed *next;
    struct wf_link *link; /* NULL: it is gone */
    uint32_t state, generation, placing;
    uint64_t request, since_ns;
    bool wrong; /* some sum was */
    uint16_t begun[WF_FABRIC_PUSH_BLOCKS_MAX], arrived[WF_FABRIC_PUSH_BLOCKS_MAX]; /* layers */
    bool bad[WF_FABRIC_PUSH_BLOCKS_MAX];
};
void wf_fabric_pushed_answer(struct wf_fabric *fabric, struct wf_fabric_pushed *pushed);

/* Of the memory that `lender` lends (NULL: this node), at most so much for node `name` (0: as much
 * as there is) and at least so much; what all are due at least fits what is lent.  And: it lends so
 * much from now on, up to its fabric.lend; what lies beyond goes to other lenders as far as these
 * have room, and is lost where they have none.  The registry keeps it, or, where there is none,
 * this node for itself.
 *
 * WEFT_PENDING: it is being changed; say the same again in a moment, until it is something else.
 * WEFT_OK: it is kept, and the lender will hear of it.  WEFT_E_NOT_FOUND; WEFT_E_INVALID, with a
 * sentence; WEFT_E_NODE: the registry does not answer; WEFT_E_BUSY. */
enum weft_status wf_fabric_allot(struct wf_fabric *fabric, const char *lender, const char *name,
                                 uint64_t most, uint64_t least);
enum weft_status wf_fabric_lend(struct wf_fabric *fabric, const char *lender, uint64_t bytes);
/* From now on, until the next start; 0: no bound, or a share of 1.  WEFT_E_LIMIT: so many nodes
 * have one of their own already. */
enum weft_status wf_fabric_limit(struct wf_fabric *fabric, enum wf_fabric_limit what,
                                 const char *name, uint32_t domain, uint64_t value);
/* The bounds of links, of nodes that are there and of such that are not. */
struct wf_fabric_limits {
    uint64_t all_bytes_s; /* of each that is not among: */
    struct wf_fabric_link_limit links[WF_FABRIC_LINKS_NAMED];
    uint32_t count;
};
void wf_fabric_limits(struct wf_fabric *fabric, struct wf_fabric_limits *out);
/* Draining: nobody puts anything here any more, no request is routed here, and what nobody else has
 * is put into other lenders' memory, until figures.drained says that there is nothing such. */
void wf_fabric_drain(struct wf_fabric *fabric, bool on);

/* Does any other node have it, as far as is known here, or is it in memory that this one lends? */
bool wf_fabric_elsewhere(struct wf_fabric *fabric, const uint8_t key[32]);
/* The names of those, in no order: up to `max`, and up to WF_FABRIC_HOLDERS_MAX.  Returns how many
 * were written. */
#define WF_FABRIC_HOLDERS_MAX 16u
uint32_t wf_fabric_holders(struct wf_fabric *fabric, const uint8_t key[32],
                           char out[][WF_MEMBER_NAME_MAX + 1], uint32_t max);
/* In which quality, at best?  WEFT_QUALITY_DEFAULT: nobody has it. */
enum weft_quality wf_fabric_best(struct wf_fabric *fabric, const uint8_t key[32]);
/* A chain that this node wants to know of, or every n-th block of one, parents first: where it
 * keeps a part of the directory, and does not know who has them, owners of their shards are asked
 * and who they name (walks.c), and host.news tells of those that somebody has, as soon as that is
 * known; their `kind` 0: it is not told.  Up to WF_FABRIC_OFFER_MAX.  WEFT_E_BUSY: too many are on
 * their way; WEFT_E_NO_MEMORY. */
enum weft_status wf_fabric_look(struct wf_fabric *fabric, const struct wf_fabric_event *blocks,
                                uint32_t count);
/* The same, and how that stands.  WEFT_PENDING: they are being asked, or the host is being told.
 * WEFT_MISS: nobody has the first block, as of 100 ms ago at most, or this node knows of all there
 * is.  Asked for again and again until it is something else. */
enum weft_status wf_fabric_find(struct wf_fabric *fabric, const struct wf_fabric_event *blocks,
                                uint32_t count);
/* Whether it keeps a part: what it does not know may be elsewhere all the same. */
bool wf_fabric_in_parts(const struct wf_fabric *fabric);
/* How often all that some node had told was forgotten: who keeps what wf_fabric_host.news said has
 * to ask wf_fabric_best() about it when that grows. */
uint64_t wf_fabric_forgotten(const struct wf_fabric *fabric);
/* The same, and how often some block went that nobody else has. */
uint64_t wf_fabric_changed(const struct wf_fabric *fabric);
/* The host can take news again. */
void wf_fabric_room_again(struct wf_fabric *fabric);

/* --------------------------------------------------------------------------------- for people */

/* An address of a node that this one can use, and what it was measured to be; 0: it was not. */
#define WF_FABRIC_WAYS_MAX 4u
struct wf_fabric_way {
    char address[WF_NET_ADDRESS_MAX];
    uint64_t ping_us;
    double gbps;
    char why[128]; /* it could not be measured; "" */
};

/* Of what is sent by turns. */
struct wf_fabric_sent {
    uint64_t bytes, bytes_s;       /* in all; in the last second */
    uint64_t waits, wait_us, late; /* blocks that waited in line; how long, together; given up */
};

struct wf_fabric_peer {
    char name[WF_MEMBER_NAME_MAX + 1];
    char address[WF_NET_ADDRESS_MAX];
    char why[256];                      /* there is no link; "" */
    char locality[WF_LOCALITY_MAX + 1]; /* as it says; "" */
    uint32_t distance;                  /* of that and this node's; WF_LOCALITY_UNKNOWN */
    uint64_t epoch;
    bool up;       /* there is a link, and both have proved what they have to */
    bool believed; /* it is a member, with that epoch */
    bool complete; /* all that it has has been told */
    bool draining;
    /* Of what is lent here: its blocks, what it is due, and the most that it may have (0: not
     * said).
     */
    uint64_t held_bytes, due_bytes, least_bytes, limit_bytes;
    struct wf_fabric_way ways[WF_FABRIC_WAYS_MAX];
    uint32_t way_count, way; /* which of them the link has, if it was begun here */
    bool way_measured;       /* … because it was found to be the best */
    uint32_t domains;        /* that both have, */
    uint64_t domain_mask;    /* and which of this node's these are: a bit a domain */
    uint32_t number;         /* below WF_FABRIC_PEERS_MAX, its own as long as it is known of */
    uint64_t blocks;         /* told of, and not gone, */
    uint64_t below_blocks;   /* and of these on its tiers alone */
    uint64_t rtt_us, lag_us; /* fading means; lag: of what it tells */
    uint64_t read_bytes, reads, read_misses, read_corrupt;
    double read_gbps;    /* of reads from it, while they are under way; 10^9 bytes a second */
    double assumed_gbps; /* the same, by its distance, until there is that; 0: neither is known */
    uint64_t served_bytes, serves;
    /* Encoded, from it and to it: whether that is the choice now, and of what went so, how many
     * times smaller it was (0: nothing did) and how many there were.  link_mbps: how fast payload
     * comes from it, in 10^6 bytes a second as they cross; 0: that is not known yet. */
    bool codec_in, codec_out;
    double ratio_in, ratio_out, link_mbps;
    uint64_t frames_in, frames_out;
    uint64_t max_bytes_s; /* that this node sends there; 0: no bound */
    uint32_t waiting;     /* blocks that are to be sent there */
    struct wf_fabric_sent sent;
    uint64_t pool_bytes, free_bytes, lent_bytes, lent_free_bytes; /* as it said last; */
    uint32_t below_latency_us, below_mbps;                        /* of its tiers */
    uint64_t left_bytes; /* that are to go from there to others, as it said */
};

struct wf_fabric_sends {
    uint32_t share;
    uint64_t max_bytes_s;
    struct wf_fabric_sent sent;
};

struct wf_fabric_figures {
    struct wf_standing standing;
    char name[WF_MEMBER_NAME_MAX + 1], address[WF_NET_ADDRESS_MAX], registry[WF_NET_ADDRESS_MAX];
    char locality[WF_LOCALITY_MAX + 1];
    uint64_t nodes_up, nodes_lost; /* others that are there; links to one that ended */
    uint64_t replica_copies, replica_copies_max, replica_bytes;
    uint64_t replica_below; /* of these copies, on others' tiers alone */
    uint64_t told, heard, told_anew, refused_news;
    uint64_t lag_us_p50, lag_us_p99; /* from a change there until it is known here */
    uint64_t fetches, fetch_misses, fetch_corrupt, fetch_timeouts, fetched_bytes;
    uint64_t lent_reads, lent_read_bytes; /* of this node's clients, of what it lends itself */
    uint64_t fetches_lossy, serves_lossy; /* of blocks that are not exact */
    uint64_t serves, serve_misses, served_bytes;
    uint64_t serves_below, served_below_bytes;  /* of these, what was read from a tier for it */
    uint64_t serves_busy;                       /* asked for, and not to be given then; */
    uint64_t serves_limited;                    /* or not soon, by a bound on what is sent */
    uint64_t fetches_patient;                   /* that waited for as long as such a bound takes */
    uint64_t stores, stored_bytes, store_fulls; /* of this node's blocks, in others' memory */
    bool in_parts;                              /* of the directory it keeps a part */
    uint64_t lookups, lookup_misses, looked_up; /* asked, found nobody; asked by others */
    uint64_t lookups_full;                      /* chains not asked about: too many were */
    uint64_t shards_moved;                      /* to and from this node */
    bool draining;                              /* this node */
    uint64_t offers, offered;                   /* chains handed over to others, and by others; */
    uint64_t offers_lost;                       /* to others, of which they could not be told */
    uint64_t pushed, pushed_bytes, push_fails;  /* blocks that others have by a push, its payload,
                                                   and pushes that did not come through */
    uint64_t taken, taken_bytes, taken_lost;    /* the same, of what others pushed here */
    uint64_t lent_bytes, lent_used_bytes, lent_blocks, lent_puts, lent_refused, lent_evicted;
    enum wf_fabric_codec codec;
    uint64_t frames_out, frames_out_bytes, frames_out_plain; /* payload that went encoded, */
    uint64_t frames_in, frames_in_bytes, frames_in_plain;    /* and that came so */
    uint64_t frames_busy; /* that went as they are for want of memory */
    uint64_t cuts_out, cuts_out_bytes,
        cuts_out_plain;                             /* that went as they lie on a tier, encoded, */
    uint64_t cuts_in, cuts_in_bytes, cuts_in_plain; /* and that came so; */
    uint64_t cuts_unread; /* … and that could not be decoded for want of a profile */
    uint64_t lent_given;  /* blocks that went since another lender has them now */
    /* What is to go to other lenders, as of the last look: what nobody else has and this node is to
     * be without; what has too few copies; what is beyond this lender's share. */
    uint64_t move_last_bytes, move_few_bytes, move_share_bytes;
    uint64_t move_full_bytes; /* of them while it drains, what no lender had room for */
    uint64_t move_left_ms;    /* at options.move_bytes_s */
    uint64_t moved, moved_bytes, move_fails;
    bool drained; /* it drains, and others have all that is here */
    struct wf_net_stats net;
    struct wf_fabric_sends sends[WF_FABRIC_DOMAINS_MAX]; /* by domain */
};

/* Any thread: as of not long ago; who asks for the first time in a while gets what was known then,
 * and the next time what is known now.  Returns how many peers there are. */
uint32_t wf_fabric_peers(struct wf_fabric *fabric, struct wf_fabric_peer *out, uint32_t max);
void wf_fabric_figures(struct wf_fabric *fabric, struct wf_fabric_figures *out);
/* Any thread but the fabric's own, which is running: waits, so long at most, until what is shown
 * has the bounds, what is lent and the draining that were said before, and no link that was lost.
 */
void wf_fabric_settle(struct wf_fabric *fabric, uint32_t timeout_ms);

/* ------------------------------------------------------------------------------------ routing */

/* Any thread: where a request should run (route.h).  Waits for nobody but for others that ask. */
enum weft_status wf_fabric_route(struct wf_fabric *fabric,
                                 const struct wf_routes_question *question,
                                 struct wf_routes_answer *out);

#endif
