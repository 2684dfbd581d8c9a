/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of the fabric share.  All of it is the fabric's thread's, but for what `lock`
 * guards.
 *
 *     fabric.c   create, poll, the registry
 *     nets.c     the nets of all addresses that this node listens on
 *     links.c    a link to each node: who it is, what it proved, when it is made anew
 *     strangers.c  what a link may ask for before it has said who is there
 *     notes.c    messages without payload
 *     ways.c     over which of a node's addresses, by measurement
 *     stream.c   what is told, and what is heard
 *     fetch.c    blocks from others
 *     serve.c    blocks for others
 *     sends.c    who gets how much of a link
 *     put.c      blocks in others' memory, and theirs in what is lent here (lent.h)
 *     push.c     blocks that are being written, to one node; pushed.c: from others
 *     frames.c   blocks that cross encoded (coder.h, choice.h)
 *     moves.c    blocks that go to other lenders: drain, repair, shares
 *     parts.c    the directory in parts: who is told, and who is asked
 *     walks.c    … about a chain
 *     copies.c   … about how many copies there are
 *     orders.c   chains that are handed over; draining
 *     allot.c    who may have how much of what a node lends
 *     figures.c  for people
 *     route.c    where a request should run; it has nothing of the thread's
 */
#ifndef WF_FABRIC_INNER_H
#define WF_FABRIC_INNER_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hist.h"
#include "core/places.h"
#include "fabric/coder.h"
#include "fabric/fabric.h"
#include "fabric/lent.h"

#define WF_LOG_MAX 65536u    /* changes that are not told to everybody yet; a power of two */
#define WF_INBOX_MAX 65536u  /* from the owner to this thread; likewise */
#define WF_FETCHES_MAX 1024u /* asked for, all links together */
#define WF_SERVES_MAX 2048u
#define WF_PUTS_MAX 256u
#define WF_PLACINGS_MAX 1024u
#define WF_GOING_MAX 16384u
#define WF_LINK_EVENTS_MAX 4u /* messages of them on their way to one */
#define WF_LINKS_MAX (2 * WF_FABRIC_PEERS_MAX)
#define WF_NAMES 4096u /* a power of two */

/* A message without payload, in memory of its own until it is sent: of a pool of small ones, or of
 * one of large ones. */
#define WF_NOTE_SMALL 320u
#define WF_NOTE_LARGE \
    (sizeof(struct wf_fabric_events) + WF_FABRIC_EVENTS_MAX * sizeof(struct wf_fabric_event))
#define WF_NOTES_SMALL 16384u
#define WF_NOTES_LARGE 64u
static_assert(sizeof(struct wf_fabric_ident) <= WF_NOTE_SMALL,
              "who this is is said before anything large is");
struct wf_note {
    struct wf_net_message message; /* first */
    struct wf_note *next;
    struct wf_fabric *fabric;
    struct wf_link *link; /* which ends after it; NULL: a body has none */
    struct wf_note *body; /* what is said lies there, for more than one link; NULL: here */
    uint32_t refs;        /* of a body */
    bool large;
    _Alignas(8) uint8_t header[];
};

/* Memory that was never used is none: those that were go first. */
struct wf_note_pool {
    struct wf_note *free;
    uint8_t *memory;
    uint32_t used, max, out; /* ever used, all, and on their way now */
    size_t each;
};

/* ------------------------------------------------------------------- what leaves (sends.c) */

enum wf_send_class { WF_SEND_DEMAND = 0, WF_SEND_BACKGROUND, WF_SEND_CLASSES };

/* A message with a payload that takes its turn.  `done` is called once, as `sent` of a message is;
 * WEFT_E_BUSY: it waited until until_ns, which may be made 0 while it waits, and that is soon. */
struct wf_sending {
    struct wf_net_message message; /* first */
    void (*done)(struct wf_net_message *message, enum weft_status status);
    struct wf_sending *next;
    struct wf_link *link;
    uint64_t bytes, since_ns, until_ns;
    uint8_t domain, class;
    bool late; /* it waited in line */
};

struct wf_bucket {
    uint64_t bytes_s; /* 0: no bound */
    double tokens;
    uint64_t filled_ns;
};

struct wf_send_meter {
    uint64_t bytes, bytes_s; /* that were sent; of late */
    uint64_t waits, wait_us,
        late; /* messages that waited in line; for how long, together; given up */
    uint64_t before, since_ns;
};

struct wf_send_line {
    struct wf_sending *first, *last;
    double tag;
};

struct wf_sends {
    struct wf_send_line *lines[WF_SEND_CLASSES]; /* by this node's domains; behind the link */
    uint64_t some[WF_SEND_CLASSES];              /* lines that are not empty, a bit each */
    double virtual[WF_SEND_CLASSES], owed;
    uint32_t waiting, flying; /* flying: with the net */
    uint64_t waiting_bytes[WF_SEND_CLASSES], flying_bytes;
    bool pumping;
    struct wf_bucket bucket;
    struct wf_send_meter meter;
};

/* As it was said last, on any thread. */
struct wf_send_limits {
    bool changed;
    uint32_t share[WF_FABRIC_DOMAINS_MAX];
    uint64_t bytes_s[WF_FABRIC_DOMAINS_MAX];
    uint64_t link_bytes_s; /* of a link to who is not among: */
    struct wf_fabric_link_limit links[WF_FABRIC_LINKS_NAMED];
    uint32_t link_count;
};

/* A change of a setting that somebody asked for (allot.c).  Under the fabric's lock, but that one
 * which is NEW or SETTING changes on the fabric's thread alone. */
#define WF_CHANGES_MAX 64u
enum wf_change_kind { WF_CHANGE_ALLOT = 1, WF_CHANGE_LEND, WF_CHANGE_PUBLISH };
enum wf_change_state { WF_CHANGE_FREE = 0, WF_CHANGE_NEW, WF_CHANGE_SETTING, WF_CHANGE_DONE };
struct wf_change {
    enum wf_change_kind kind;
    enum wf_change_state state;
    char lender[WF_MEMBER_NAME_MAX + 1], node[WF_MEMBER_NAME_MAX + 1];
    uint64_t most, least;
    uint64_t since_ns, revision; /* revision: on which it was made last */
    uint32_t tries;
    enum weft_status status; /* DONE */
    char sentence[WF_ERROR_MAX];
    struct wf_fabric *fabric;
};

struct wf_send_domain {
    uint32_t share;
    uint64_t waiting_bytes[WF_SEND_CLASSES]; /* on all links together */
    struct wf_bucket bucket;
    struct wf_send_meter meter;
};

enum wf_link_state {
    WF_LINK_CONNECTING = 0,
    WF_LINK_UP,     /* IDENT was sent */
    WF_LINK_KNOWN,  /* IDENT was heard, and JOIN sent */
    WF_LINK_JOINED, /* JOIN was heard */
    WF_LINK_TRIED,  /* IDENT was heard, and it is on trial: nothing but that is said on it */
};

struct wf_peer_node;

struct wf_fabric_net {
    struct wf_fabric *fabric;
    const struct wf_net_ops *ops;
    struct wf_net *net;
};

/* One net link.  There may be two to a node for a moment, when both began one. */
struct wf_link {
    struct wf_fabric *fabric;
    const struct wf_net_ops *ops;
    struct wf_net_link *net;
    struct wf_peer_node *peer;    /* NULL: it has not said who it is, or is on trial */
    struct wf_link *next, **back; /* of all */
    enum wf_link_state state;
    bool ours;          /* this side began it */
    bool parts, retell; /* it is told of its shards alone; of which some are others now */
    bool closing;
    bool refused;    /* it was told that it is not wanted, and is to end it */
    bool alive;      /* JOINED: it has answered a PING */
    bool quiet;      /* that it is there is not said before that */
    bool trial;      /* ours: it is to be measured, and no more */
    uint32_t way;    /* ours: which of the peer's */
    uint32_t probes; /* TRIED, not ours: that were answered */
    uint64_t since_ns;
    char why[256]; /* closing: for what reason */
    char certified[WF_NET_NAME_MAX];
    char at[WF_NET_ADDRESS_MAX]; /* not ours: where it can be called, by what it says; "" */
    uint8_t nonce[32], their_nonce[32];
    struct wf_fabric_ident said;     /* KNOWN: of itself, which is believed once it is proved */
    uint64_t epoch;                  /* that it spoke under last */
    uint32_t large_notes;            /* on their way, with those that many are told */
    uint32_t notes[2];               /* of its own on their way: small ones, large ones */
    struct wf_peer_node *dialled_by; /* whose `dialled` it is; NULL: it was not begun here */
    bool missed;                     /* something was told that could not be believed then */
    /* Domains: the other side's number of ours, and the other way round. */
    uint8_t theirs_of[WF_FABRIC_DOMAINS_MAX], ours_of[WF_FABRIC_DOMAINS_MAX];
#define WF_DOMAIN_NONE UINT8_MAX
    uint32_t shared;
    uint64_t domains; /* of this node's, that both have: a bit each */
    /* What is told: */
    bool telling;   /* all that there is, from `walk` on */
    bool walk_lent; /* of what is lent, behind what the host has */
    uint32_t walk_domain;
    uint64_t walk;
    uint64_t told_to;                       /* of the log */
    uint64_t said_to;                       /* `to` of the EVENTS that were sent last, and */
    uint64_t heard;                         /* that came */
    bool reset, complete;                   /* to be said with the next; said by the other */
    bool asked_again;                       /* AGAIN was sent, and RESET has not come */
    bool behind, more;                      /* the host had no room for what was told; has it now */
    bool walked;                            /* it tells all: COMPLETE is to come */
    uint64_t more_ns;                       /* not asked to do so again before */
    uint32_t anew;                          /* how often all was told anew, unasked, */
    uint64_t anew_ns;                       /* since then */
    uint64_t ping_ns;                       /* when it was asked last */
    struct wf_link *ping_next, **ping_back; /* joined ones, who was asked longest ago first */
    uint64_t frames_memory;                 /* of frames that go out here, or are being made */
    uint32_t frameless;                     /* serves that wait for more of it */
    struct wf_sends sends;
    uint32_t serving, putting; /* serves that are for it; puts that have not been sent there */
};

/* Another node: as the registry has it, or as a link said. */
struct wf_peer_node {
    char name[WF_MEMBER_NAME_MAX + 1];
    /* Its addresses that are of nets that this node has, too; the one that its link has, or that
     * is tried next; that was chosen because it is the best; when they are measured next. */
    struct wf_fabric_way ways[WF_FABRIC_WAYS_MAX];
    uint32_t way_count, way;
    bool way_measured;
    uint64_t trial_ns;
    char locality[WF_LOCALITY_MAX + 1]; /* where it stands, as it said; "" */
    uint32_t distance;                  /* from this node */
    uint64_t epoch;                     /* as the registry has it, or as its link said */
    bool used, registered;              /* registered: the registry has it now */
    uint32_t name_next;                 /* of those whose names are one in `by_name` */
    uint64_t member;                    /* wf_shard_member() of its name */
    uint32_t number;                    /* its place in `peers` */
    /* Its number in the replica; another one each time that all it told is forgotten, so that
     * forgetting takes no time.  WF_PLACE_NONE: it told nothing yet. */
    uint32_t place;
    struct wf_link *link;        /* that is joined */
    struct wf_link *dialled;     /* that this side began to its address, whoever answered there */
    int32_t answered;            /* static: the number of the node that answered there; -1, */
    uint64_t answered_ns;        /* and when, if that was not proved; UINT64_MAX: it was */
    uint64_t again_ns, since_ns; /* when it is tried next; when it was registered */
    uint32_t failures;
    char why[256]; /* no link: what happened last */
    bool met;      /* there was a link, over one of these ways or by this name */
    bool fleeting; /* the last one that began here ended before anything was answered over it */
    uint64_t twin_epoch, twin_since_ns; /* of another node of its name, and since when it calls; */
    bool twin_said;                     /* 0: there is none.  That was told of */
    char was[WF_MEMBER_NAME_MAX + 1];   /* static: who proved itself there last; "": nobody */
    uint64_t rtt_us, lag_us;            /* fading means */
    uint64_t reads, read_bytes, read_misses, read_corrupt, serves, served_bytes, read_ns;
    uint32_t asked; /* gets under way */
    uint64_t asked_bytes;
    uint64_t busy_since_ns;
    struct wf_fabric_ping said; /* last */
    bool allotted;              /* what the setting says of it is said to `lent` */
    bool ordered;               /* and it says so anew: an operator did */
    bool draining;
    /* Encoded, or not: */
    uint32_t codecs;                        /* as its link said; 0: none */
    struct wf_codec_speed codec;            /* likewise */
    struct wf_line line;                    /* what comes from it */
    double arrives_mbps;                    /* what goes there, as it says */
    struct wf_choice choice_in, choice_out; /* gets from it, puts there */
    uint32_t asked_framed;                  /* gets under way, for frames */
    uint32_t putting;                       /* puts under way, */
    uint32_t put_frames;                    /* and frames of such */
    uint32_t works; /* that a coder has; its place is not another's until then */
    uint64_t served_frames, served_plain, served_encoded; /* of what was served encoded */
    bool serves_framed;                                   /* what it asked for last may go so */
};

#define WF_PLACE_NONE UINT32_MAX
#define WF_PLACES_USED (4 * WF_FABRIC_PEERS_MAX)

struct wf_logged {
    struct wf_fabric_event event;
    uint64_t at_ns;
};

struct wf_serve;
struct wf_parts;
struct wf_walks;
struct wf_copies;

/* The measuring of one node's ways, one after the other. */
struct wf_trial {
    struct wf_peer_node *peer; /* NULL: nobody's */
    struct wf_link *link;      /* NULL: it is gone */
    uint32_t way, pings, asked, got;
    uint64_t began_ns, asked_ns, first_ns, after_ns; /* after: when the next one may begin */
    struct wf_fabric_way found[WF_FABRIC_WAYS_MAX];
    uint32_t next;     /* peer to look at */
    uint32_t guests;   /* trials of others here */
    uint8_t *out, *in; /* WF_FABRIC_PROBE_BYTES each: what is sent, and where it goes */
    struct iovec piece;
};

struct wf_fabric {
    struct wf_fabric_net
        nets[WF_FABRIC_NETS_MAX]; /* the first is first: its context is the fabric */
    uint32_t net_count;
    struct wf_trial trial;
    struct wf_fabric_options options;
    char name[WF_MEMBER_NAME_MAX + 1], locality[WF_LOCALITY_MAX + 1];
    char addresses[WF_MEMBER_ADDRESSES_MAX];      /* where others call it, divided by spaces */
    double assumed_rate[WF_LOCALITY_UNKNOWN + 1]; /* bytes a second, by distance: links.c */
    struct wf_fabric_domain domains[WF_FABRIC_DOMAINS_MAX];
    uint32_t domain_count;
    const struct wf_member_ops *member_ops;
    struct wf_members *members;
    struct wf_standing standing;
    bool strict;                /* the registry says who is a member, and nobody else is */
    struct wf_peer_node *peers; /* [WF_FABRIC_PEERS_MAX] */
    uint32_t peer_count;        /* places ever used */
    uint32_t peer_low;          /* all before it are used */
    uint32_t *by_name; /* [WF_NAMES] by the hash of a name, the first of its peers: place + 1 */
    struct wf_link *links;
    uint32_t link_count;
    /* What is done for one link or node after the other is done when it is due, and not looked for
     * at each tick: there may be a thousand. */
    struct wf_link *ping_first, **ping_last;
    uint32_t joined_count; /* links in that list */
    uint64_t dial_ns;      /* some node may have to be called then, and none before */
    uint64_t rates_ns;     /* when what is assumed of links is worked out again */
    uint64_t lenders_ns;   /* when what others lend is added up again */
    bool some_missed;      /* some link's `missed` or `more` is set */
    bool places_short;     /* a node found no number in the replica, until some are swept */
    uint64_t young_ns;     /* when a link may have taken too long to be joined; 0: never */
    bool drain_said;       /* what all were told of `draining` */
    struct wf_note_pool small, large;
    _Alignas(8) uint8_t header[WF_NET_HEADER_MAX]; /* that is read, where the net had it askew */
    uint64_t tick_ns;
    int epoll, wake;
    struct wf_hist lag_us; /* of what was heard */

    /* Last copies that went: told to the host when nobody had them again for a moment. */
    struct wf_logged *going;
    uint64_t going_first, going_end;

    /* Told: a ring of what changed here; place of number n is n % WF_LOG_MAX. */
    struct wf_logged *log;
    uint64_t log_end; /* number of the next */
    bool all_told;    /* every link was told all, up to here: */
    uint64_t all_told_end;

    /* Asked of others: */
    struct wf_fabric_fetch *fetches[WF_FETCHES_MAX]; /* by the low half of their request */
    uint32_t generations[WF_FETCHES_MAX];
    uint32_t fetch_free[WF_FETCHES_MAX], fetch_free_count;
    _Atomic uint32_t patient;              /* of them, that wait as long as a bound takes */
    uint64_t (*sums)[WF_FABRIC_PARTS_MAX]; /* that came with DATA, a fetch that is placing */
    struct wf_fabric_fetch *waiting, **waiting_end; /* for one of these */
    struct wf_serve *serves, *serves_free;          /* free: those that were used before */
    uint32_t serves_used, serving;                  /* serving: those that are not free */
    struct wf_serve *reads, **reads_end; /* of what is below, which the host has no room for yet */
    uint32_t reading;                    /* and those that it has begun */
    uint64_t reads_ns;                   /* when they were looked at last */
    struct wf_puts *puts;
    struct wf_parts *parts;
    struct wf_walks *walks;
    struct wf_copies *copies;
    _Atomic bool in_parts;                       /* any thread reads it */
    struct wf_lent *lent;                        /* NULL: nothing is lent */
    struct wf_coder *coder;                      /* NULL: nothing is encoded */
    struct wf_unframing *unframings;             /* [WF_FETCHES_MAX], by place */
    struct wf_serve *frameless, **frameless_end; /* serves that wait for memory for their frame */
    struct wf_send_domain send_domains[WF_FABRIC_DOMAINS_MAX];
    uint32_t sends_waiting;     /* all links together */
    struct wf_link *sends_turn; /* where the next turn begins; NULL: at the first */
    bool sends_ended;
    uint64_t meters_ns; /* when what was sent was counted up last */
    struct wf_pushes *pushes;
    struct wf_receptions *receptions;
    struct wf_moves *moves;
    char *setting_text;  /* one that is read */
    void *allotments;    /* json_t, of this node; NULL: none */
    uint64_t publish_ns; /* when it is looked at again whether the setting has its word */
    bool publish_fails;  /* and that it cannot be said was told of */

    /* Under `lock`: */
    pthread_mutex_t lock;
    struct wf_send_limits limits;
    struct wf_change changes[WF_CHANGES_MAX];
    struct wf_places *places; /* who has what, in memory or below */
    struct wf_places *below;  /* of these copies the ones that are below alone; one that finds no
                                 room here counts as in memory: a wrong price and no more */
    uint32_t peer_of[WF_PLACES_USED]; /* number in the replica → place in `peers`, or */
#define WF_PLACE_FREE UINT32_MAX
#define WF_PLACE_LEAVING (UINT32_MAX - 1)
#define WF_PLACE_OWN (UINT32_MAX - 2)       /* memory that this node lends */
    uint32_t place_of[WF_FABRIC_PEERS_MAX]; /* the other way round; WF_PLACE_NONE */
    uint32_t place_next;
    struct wf_peer_node own; /* this node as a lender to itself: its place alone counts */
    bool own_untold;         /* the host could not hear of all that is lent, */
    bool own_over;           /* or some of it found no room in the replica; */
    uint32_t own_domain;     /* it is looked through again, */
    uint64_t own_cursor;     /* here, */
    uint64_t own_ns;         /* since then */
    bool places_leaving;     /* some are swept out */
    struct wf_logged *inbox; /* ring */
    uint64_t inbox_first, inbox_end;
    bool inbox_lost;
    struct wf_fabric_fetch *asked, **asked_end; /* fetches that this thread has not seen */
    bool cancels;                               /* some fetch was cancelled */
    bool own_more;                              /* of those that wait some read what is lent */
    struct wf_fabric_read *read, **read_end;    /* done by the host */
    bool room_again;
    uint64_t lenders_bytes, lenders_free_bytes;
    struct wf_order *orders, **orders_end; /* hand-overs */
    uint32_t order_count;
    _Atomic bool draining; /* any thread reads it */
    bool figures_wanted;
    _Atomic uint64_t show_changes; /* of what is shown, which people look for at once; any thread */
    uint64_t shown_changes;        /* of these, what is shown has; */
    uint64_t settle_late;          /* and of these were waited for in vain */
    _Atomic bool settling;         /* somebody waits; */
    pthread_cond_t shown_anew;     /* signalled when there are more */
    bool put_since; /* into the pool while it drains, since that was last looked at */
    struct wf_fabric_figures shown_figures;
    struct wf_fabric_peer *shown; /* [WF_FABRIC_PEERS_MAX] */
    uint32_t shown_count;
    uint64_t shown_serial;    /* how often that was made */
    struct wf_routes *routes; /* since somebody asked */

    struct wf_fabric_figures figures; /* the thread's own */
    uint64_t offers_lost_ns;          /* that an offer was lost is not told of again before */
    uint64_t twin_ns;                 /* two nodes of one name are not told of again before */
    uint64_t nonsense;                /* messages that a link ended for */
    uint64_t shown_ns, impatient_ns;
    _Atomic uint64_t forgotten, last_went; /* any thread reads them, */
    _Atomic uint64_t unheard; /* and how often it had no room to hear that something went */
    bool behind;              /* it had none, just now */
};

/* What a quality is in the replica, and in messages: 0 for what is exact.  Of messages it was
 * checked first (wf_quality_sane). */
static inline uint8_t wf_quality_class(uint32_t quality)
{
    return quality > WEFT_LOSSLESS ? (uint8_t)quality : 0;
}
static inline bool wf_quality_sane(uint32_t quality)
{
    return quality <= WEFT_ECONOMY;
}
static_assert(WEFT_ECONOMY <= WF_PLACES_CLASS_MAX, "a quality is a class");

static inline uint64_t wf_fabric_now(const struct wf_fabric *f)
{
    return f->options.now_ns(f->options.now_context);
}

/* nets.c */
enum weft_status wf_nets_open(struct wf_fabric *f, const struct wf_net_events *events);
void wf_nets_close(struct wf_fabric *f);
/* The net that reaches that address; NULL: none. */
struct wf_fabric_net *wf_nets_for(struct wf_fabric *f, const char *address);
/* Where it listens: addresses, divided by spaces. */
void wf_nets_address(const struct wf_fabric *f, char *out, size_t bytes);
enum weft_status wf_nets_poll(struct wf_fabric *f);
void wf_nets_stats(const struct wf_fabric *f, struct wf_net_stats *out);

/* ways.c */
void wf_ways_take(struct wf_fabric *f, struct wf_peer_node *peer, const char *addresses);
/* A link over the peer's way did not come up, or went down: it is another's turn.  True: at once.
 */
bool wf_ways_turn(struct wf_peer_node *peer, const struct wf_link *link);
void wf_ways_joined(struct wf_fabric *f, struct wf_peer_node *peer);
/* Where a link leads, for people: to the address at which the node can be called, if that is known,
 * whoever began the link. */
const char *wf_way_shown(const struct wf_fabric *f, const struct wf_peer_node *peer,
                         const struct wf_link *link);
/* For IDENT: at which port this node can be called as over that link, and what the other said. */
uint16_t wf_way_port(const struct wf_link *link);
void wf_way_said(struct wf_link *link, uint16_t port);
void wf_ways_tick(struct wf_fabric *f, uint64_t now_ns);
/* IDENT was heard on a link that is on trial. */
void wf_way_known(struct wf_link *link, const struct wf_fabric_ident *ident);
/* PROBE, PROBED.  False: nonsense. */
bool wf_way_probe(struct wf_link *link, const void *header, uint32_t bytes);
uint32_t wf_way_probed(struct wf_link *link, const void *header, uint32_t bytes,
                       uint64_t payload_bytes, struct iovec *out, void **token, bool *sane);
void wf_way_arrived(struct wf_link *link, enum weft_status status);
/* A link that was on trial is gone. */
void wf_way_down(struct wf_link *link, const char *sentence);
/* The peer goes: it is not to be measured any more. */
void wf_ways_forget(struct wf_fabric *f, struct wf_peer_node *peer);

/* links.c */
bool wf_link_up(void *net, struct wf_net_link *link, const void *hello, uint32_t bytes,
                const char *name);
void wf_link_down(void *net, struct wf_net_link *link, enum weft_status status,
                  const char *sentence);
void wf_peer_joined(void *fabric, const struct wf_member *member);
void wf_peer_left(void *fabric, const struct wf_member *member);
void wf_links_tick(struct wf_fabric *f, uint64_t now_ns);
/* For people: to the log, and to the host. */
void wf_fabric_say(struct wf_fabric *f, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* IDENT, JOIN.  False: it is nonsense. */
bool wf_link_ident(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_link_join(struct wf_link *link, const void *header, uint32_t bytes);
/* The other side has answered: the link is good for something. */
void wf_link_alive(struct wf_link *link);
/* Say who this is again: it has another epoch. */
void wf_links_say_again(struct wf_fabric *f);
/* The joined link over which blocks of that domain may be had from the node; NULL: none. */
struct wf_link *wf_peer_link(struct wf_fabric *f, uint32_t number, uint32_t domain);
/* By wf_shard_member(); NULL: there is none such. */
struct wf_peer_node *wf_peer_member(struct wf_fabric *f, uint64_t member);
/* NULL: there is none such. */
struct wf_peer_node *wf_peer_find(struct wf_fabric *f, const char *name);
/* Bytes a second that reads from it reach: as measured, or as assumed by its distance. */
bool wf_peer_measured(const struct wf_peer_node *peer);
double wf_peer_rate(const struct wf_fabric *f, const struct wf_peer_node *peer);
/* The numbers of those that are known to have a block in a class up to `worst`, in no order: up to
 * `max` of them.  Returns how many were written. */
uint32_t wf_peer_holders(struct wf_fabric *f, const uint8_t key[32], unsigned worst, uint16_t *out,
                         uint32_t max);
/* Is what it says to be believed? */
bool wf_peer_believed(const struct wf_fabric *f, const struct wf_peer_node *peer);
/* It may be nobody's any more. */
void wf_peer_settle(struct wf_fabric *f, struct wf_peer_node *peer);
/* Has the other side proved anything: that it is of this cluster, or that it has a domain of this
 * node's?  Of who has not, what it says of itself is no ground for anything. */
bool wf_link_proven(const struct wf_link *link);
/* End a link, with the reason. */
void wf_link_close(struct wf_link *link, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Begin a link over a way of the peer's; NULL: wf_last_error() says why not. */
struct wf_link *wf_link_begin(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t way,
                              bool trial);
/* Begin one that is to take the place of what there is, over the peer's way. */
void wf_peer_dial(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t now_ns);
/* What this node says of itself to that one, in a PING or a PONG. */
void wf_link_self(const struct wf_link *link, struct wf_fabric_ping *out);
/* It is used just now: what it says of itself should be no older than a second. */
void wf_link_used(struct wf_link *link, uint64_t now_ns);

/* names.c */
/* It cannot take the place of the link that there is to a node of its name, which is `what`. */
void wf_link_in_the_way(struct wf_link *link, const char *what);
/* REFUSED.  False: it is nonsense. */
bool wf_link_refused(struct wf_link *link, const void *header, uint32_t bytes);

/* strangers.c */
/* It is up: it is to be joined in time, and is one of not too many. */
void wf_link_begun(struct wf_link *link);
void wf_links_young(struct wf_fabric *f, uint64_t now_ns);
/* It proved nothing.  True: so did too many, and it ends. */
bool wf_link_one_too_many(struct wf_link *link);
/* All that the other side told is to be forgotten, and told anew, and this side has not asked for
 * that.  True: it was so too often, and it ends. */
bool wf_link_anew(struct wf_link *link);

/* notes.c */
/* Send a message without payload; false: not now (never for the few that a link begins with). */
bool wf_link_say(struct wf_link *link, const void *header, uint32_t bytes);
/* The same, with payload that lasts as long as the fabric. */
bool wf_link_say_with(struct wf_link *link, const void *header, uint32_t bytes,
                      const struct iovec *piece);
bool wf_link_can_say(const struct wf_link *link);
/* The same for many: made once, said to each, and let go.  NULL, false: not now. */
struct wf_note *wf_body_make(struct wf_fabric *f, const void *header, uint32_t bytes);
bool wf_link_say_body(struct wf_link *link, struct wf_note *body);
void wf_body_let_go(struct wf_note *body);

/* stream.c */
void wf_stream_begin(struct wf_link *link);
void wf_stream_run(struct wf_fabric *f);
/* EVENTS, AGAIN.  False: nonsense. */
bool wf_stream_heard(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_stream_again(struct wf_link *link, const void *header, uint32_t bytes);
/* What was told here and could not be taken is asked for again, if it can be now. */
void wf_stream_ask(struct wf_link *link, uint64_t now_ns);
/* The host has room for news again. */
void wf_stream_room(struct wf_fabric *f);
/* All that was told of this node is forgotten. */
void wf_stream_forget(struct wf_fabric *f, struct wf_peer_node *peer);
/* It has no copy of that block, as it said to who asked. */
void wf_stream_missed(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t domain,
                      const uint8_t key[32]);
/* What it has of that block is less exact than it was known to be, as it said to who asked. */
void wf_stream_worse(struct wf_fabric *f, struct wf_peer_node *peer, uint32_t domain,
                     const uint8_t key[32], uint8_t quality);
/* It keeps this block for this node, as it said otherwise than by its stream, which says nothing
 * new then; `tell`: to the host, which did not ask for that. */
void wf_stream_note(struct wf_fabric *f, struct wf_peer_node *peer,
                    const struct wf_fabric_event *event, bool tell);
/* Somebody else said that it has this block; false: there was no room for that. */
bool wf_stream_found(struct wf_fabric *f, struct wf_peer_node *peer,
                     const struct wf_fabric_event *event);
/* That was too long ago. */
void wf_stream_lapsed(struct wf_fabric *f, struct wf_peer_node *peer,
                      const struct wf_fabric_event *event);
/* Has anybody a copy of it that this node's domain takes? */
bool wf_stream_fits(struct wf_fabric *f, const struct wf_fabric_event *event);
/* It offers a block that it has. */
bool wf_stream_offered(struct wf_link *link, const struct wf_fabric_event *event);
/* A word of another node's about one block.  False: it is no such word. */
bool wf_stream_take(struct wf_link *link, const struct wf_fabric_event *event);
/* On the fabric's thread: tell this of what it lends. */
void wf_stream_log(struct wf_fabric *f, const struct wf_fabric_event *event);
/* A block of memory that this node lends came or went: its own clients find it there as on any
 * other node. */
void wf_stream_own(struct wf_fabric *f, const struct wf_fabric_event *event);
void wf_stream_own_begin(struct wf_fabric *f);
bool wf_stream_is_own(struct wf_fabric *f, const uint8_t key[32]);
/* Of the copies in the replica, those that are this node's own memory; the lock is held. */
uint64_t wf_stream_own_count(const struct wf_fabric *f);
/* Go on forgetting, where that takes time. */
void wf_stream_tick(struct wf_fabric *f);

/* fetch.c */
/* A fetch whose frame is being decoded. */
struct wf_unframing {
    struct wf_coder_job job; /* first */
    struct wf_fabric *fabric;
    struct wf_fabric_fetch *fetch;
};
void wf_fetches_run(struct wf_fabric *f, uint64_t now_ns);
/* What was asked of it is asked elsewhere. */
void wf_fetches_lost(struct wf_fabric *f, struct wf_peer_node *peer);
uint32_t wf_fetch_begun(struct wf_link *link, const void *header, uint32_t bytes,
                        uint64_t payload_bytes, struct iovec *out, void **token, bool *sane);
void wf_fetch_progress(void *fabric, struct wf_net_link *net, void *token, uint64_t bytes);
void wf_fetch_arrived(void *fabric, struct wf_net_link *net, void *token, enum weft_status status);
/* All of them end now. */
void wf_fetches_end(struct wf_fabric *f);

/* serve.c */
enum weft_status wf_serves_create(struct wf_fabric *f);
void wf_serves_destroy(struct wf_fabric *f);
bool wf_serve_get(struct wf_link *link, const void *header, uint32_t bytes);
/* Reads from below: those that are done are sent, others begun, and late ones answered. */
void wf_serves_run(struct wf_fabric *f, uint64_t now_ns);
/* Nobody hears what was to be sent there. */
void wf_serves_lost(struct wf_fabric *f, const struct wf_link *link);
/* What is read ends with the fabric: the host has it alone. */
void wf_serves_end(struct wf_fabric *f);

/* sends.c */
void wf_sends_create(struct wf_fabric *f);
/* Nothing is sent any more; what waits ends. */
void wf_sends_end(struct wf_fabric *f);
/* The link is joined; it is gone, and what waits for it ends. */
void wf_sends_begin(struct wf_link *link);
void wf_sends_lost(struct wf_link *link);
/* What waits there by a bound, as of now: until when, at the latest, what is sent then has had its
 * turn, if nobody says another bound. */
struct wf_send_due {
    enum wf_fabric_limited by; /* 0: by none; the rest is 0, too */
    uint64_t bytes_s, ns;
};
struct wf_send_due wf_link_due(struct wf_link *link, uint32_t domain, enum wf_send_class class);
/* Until when a message may wait for its turn there: as long as it would without bounds, or as long
 * as these make it, with room for who comes between, and WF_SEND_WAIT_NS at most. */
#define WF_SEND_WAIT_NS 60000000000u
uint64_t wf_send_until(const struct wf_send_due *due, uint64_t now_ns, uint64_t patience_ns);
static_assert(WF_SEND_WAIT_NS / 2 == WF_FETCH_LIMIT_S * 1000000000ull, "as it is said");
/* It would take longer than anybody waits. */
static inline bool wf_send_hopeless(const struct wf_send_due *due)
{
    return due->ns > WF_SEND_WAIT_NS / 2;
}
/* `done` follows, from here or later. */
void wf_link_send(struct wf_link *link, struct wf_sending *sending, uint32_t domain,
                  enum wf_send_class class, uint64_t until_ns);
void wf_sends_run(struct wf_fabric *f, uint64_t now_ns);
void wf_sends_tick(struct wf_fabric *f, uint64_t now_ns);

/* put.c */
enum weft_status wf_puts_create(struct wf_fabric *f);
/* All of them end now. */
void wf_puts_end(struct wf_fabric *f);
void wf_puts_run(struct wf_fabric *f, uint64_t now_ns);
void wf_puts_tick(struct wf_fabric *f, uint64_t now_ns);
void wf_puts_lost(struct wf_fabric *f, struct wf_peer_node *peer);
/* Who put what has come, and is not decoded yet, hears no answer. */
void wf_puts_cut(struct wf_fabric *f, const struct wf_link *link);
bool wf_put_placed(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_put_drop(struct wf_link *link, const void *header, uint32_t bytes);
uint32_t wf_put_begun(struct wf_link *link, const void *header, uint32_t bytes,
                      uint64_t payload_bytes, struct iovec *out, void **token, bool *sane);
/* One of this thread's own, all of it set. */
void wf_put_move(struct wf_fabric *f, struct wf_fabric_store *store);
/* Is there a lender that it has not tried, and may ask?  Whether that has room is not known. */
bool wf_put_could(struct wf_fabric *f, const struct wf_fabric_store *store);
/* Is that the token of a put that comes, and not of a fetch? */
bool wf_put_is(const struct wf_fabric *f, const void *token);
void wf_put_progress(void *token, uint64_t bytes);
void wf_put_arrived(struct wf_fabric *f, void *token, enum weft_status status);

/* push.c */
enum weft_status wf_pushes_create(struct wf_fabric *f);
/* All of them end now. */
void wf_pushes_end(struct wf_fabric *f);
void wf_pushes_run(struct wf_fabric *f, uint64_t now_ns);
void wf_pushes_lost(struct wf_link *link);
/* ROOM, PUSHED.  False: nonsense. */
bool wf_push_room(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_push_pushed(struct wf_link *link, const void *header, uint32_t bytes);

/* pushed.c */
enum weft_status wf_receptions_create(struct wf_fabric *f);
void wf_receptions_destroy(struct wf_fabric *f);
void wf_receptions_run(struct wf_fabric *f, uint64_t now_ns);
void wf_receptions_lost(struct wf_link *link);
/* PUSH, PUSH_END. */
bool wf_reception_push(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_reception_end(struct wf_link *link, const void *header, uint32_t bytes);
uint32_t wf_reception_begun(struct wf_link *link, const void *header, uint32_t bytes,
                            uint64_t payload_bytes, struct iovec *out, void **token, bool *sane);
/* Is that the token of a layer that comes? */
bool wf_reception_is(const struct wf_fabric *f, const void *token);
void wf_reception_progress(void *token, uint64_t bytes);
void wf_reception_arrived(struct wf_fabric *f, void *token, enum weft_status status);
/* frames.c */
enum weft_status wf_frames_create(struct wf_fabric *f);
void wf_frames_destroy(struct wf_fabric *f);
/* What this node says of itself; what another said. */
void wf_frames_say(const struct wf_fabric *f, struct wf_fabric_ident *ident);
void wf_frames_heard(struct wf_peer_node *peer, const struct wf_fabric_ident *ident);
/* Is what is asked of it now to come encoded?  Is what goes there to be? */
bool wf_frames_ask(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes);
bool wf_frames_put(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes);
/* The same of what is pushed, of which so many wait. */
bool wf_frames_push(struct wf_fabric *f, struct wf_peer_node *peer, uint64_t bytes,
                    uint32_t waiting);
/* May what lies on tiers there come as it lies? */
bool wf_frames_cuts(const struct wf_fabric *f, const struct wf_peer_node *peer, uint64_t bytes);
/* How these bytes of a block lie.  False: they cross as they are. */
bool wf_frames_layout(struct wf_fabric *f, uint32_t domain, uint64_t block_bytes, uint64_t from,
                      uint64_t bytes, struct wf_layout *out);
/* allot.c */
void wf_allots_run(struct wf_fabric *f, uint64_t now_ns);
void wf_allots_destroy(struct wf_fabric *f);
/* wf_member_events.setting */
void wf_allot_heard(void *fabric, const char *name, const char *value, uint64_t revision);
void wf_allot_peer(struct wf_fabric *f, struct wf_peer_node *peer);
/* What moves did not get rid of goes: the node lends so much (wf_lent_resize). */
void wf_allot_resize(struct wf_fabric *f, uint64_t bytes);

/* parts.c */
#define WF_FOUND_NS 5000000000u
enum weft_status wf_parts_create(struct wf_fabric *f);
enum weft_status wf_parts_begin(struct wf_fabric *f);
void wf_parts_destroy(struct wf_fabric *f);
/* Fetches that wait for an owner wait no longer. */
void wf_parts_end(struct wf_fabric *f);
void wf_parts_tick(struct wf_fabric *f, uint64_t now_ns);
/* The list of members has changed. */
void wf_parts_members(struct wf_fabric *f);
/* Does this node keep a part?  Is the other side to be told of that key? */
bool wf_parts_on(const struct wf_fabric *f);
/* How often the directory was cut anew, and whether it has been as it is for so long. */
uint64_t wf_parts_maps(const struct wf_fabric *f);
bool wf_parts_settled(const struct wf_fabric *f, uint64_t for_ns);
uint64_t wf_parts_self(const struct wf_fabric *f);
/* In which class this node has the block itself; beyond WF_PLACES_CLASS_MAX: it has not. */
unsigned wf_parts_has(struct wf_fabric *f, uint32_t domain, const uint8_t key[32], uint64_t bytes);
bool wf_parts_tells(const struct wf_link *link, const uint8_t key[32]);
/* The other side keeps a part, as it said first. */
void wf_parts_wanted(struct wf_link *link);
/* Nobody asks this one any more. */
void wf_parts_lost(struct wf_fabric *f, const struct wf_peer_node *peer);
/* True: an owner was asked, and the fetch goes to those that wait when that is over. */
bool wf_parts_look(struct wf_fabric *f, struct wf_fabric_fetch *fetch, uint64_t now_ns);
/* Owners of the key's shard, the first to ask first; whether this node is one. */
uint32_t wf_parts_owners(const struct wf_fabric *f, const uint8_t key[32], uint64_t *out);
bool wf_parts_owns(const struct wf_fabric *f, const uint8_t key[32]);
/* Nobody has it, as it seems, and is asked again in a moment; was that so just now?  That may be
 * asked on any thread, with the lock. */
void wf_parts_miss(struct wf_fabric *f, const uint8_t key[32]);
bool wf_parts_missed(const struct wf_fabric *f, const uint8_t key[32]);
/* The host asked for this, and somebody has it: it is told, and after a while that this is over. */
void wf_parts_host_tell(struct wf_fabric *f, uint32_t from, const struct wf_fabric_event *event);
/* It has just said itself that it has this block: that is believed until it says otherwise. */
void wf_parts_told(struct wf_fabric *f, const struct wf_peer_node *peer, const uint8_t key[32]);
/* It has this block, as was said otherwise than by its stream: believed for a while. */
void wf_parts_note(struct wf_fabric *f, struct wf_peer_node *peer,
                   const struct wf_fabric_event *event, bool tell);
void wf_parts_lapse(struct wf_fabric *f, uint64_t before_ns);
bool wf_want_heard(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_lookup_heard(struct wf_link *link, const void *header, uint32_t bytes);
/* Of its member number `member`; of its own blocks that of number WF_FABRIC_FOUND_MAX. */
uint8_t wf_found_quality(const struct wf_fabric_found *found, uint32_t member);
bool wf_found_heard(struct wf_link *link, const void *header, uint32_t bytes);

/* walks.c */
#define WF_FABRIC_WALKS 0x10000u /* requests' numbers from here on are walks' */
enum weft_status wf_walks_create(struct wf_fabric *f);
void wf_walks_destroy(struct wf_fabric *f);
/* Find out who has a chain; takes `memory`, which has the events, and frees it.  False: there is no
 * room, or all of the directory is here; then it does not. */
bool wf_walk_begin(struct wf_fabric *f, void *memory, const struct wf_fabric_event *events,
                   uint32_t count);
void wf_walk_found(struct wf_link *link, const struct wf_fabric_found *found);
void wf_walks_lost(struct wf_fabric *f, const struct wf_peer_node *peer);
void wf_walks_tick(struct wf_fabric *f, uint64_t now_ns);

/* copies.c */
/* Who else has a block, as owners of its shard say; known to whom a question was put. */
struct wf_copies_known {
    uint64_t at_ns;                               /* 0: nobody was asked */
    uint16_t holders[2 * WF_FABRIC_COPIED_NAMES]; /* places in `peers` */
    uint16_t count;
    bool sure; /* one of them has heard all of what all members have */
};
enum weft_status wf_copies_create(struct wf_fabric *f);
void wf_copies_destroy(struct wf_fabric *f);
/* How many more questions there is room for. */
uint32_t wf_copies_room(const struct wf_fabric *f);
/* Who else has this?  wf_moves_known() has the answer, later.  False: there is no room. */
bool wf_copies_ask(struct wf_fabric *f, const struct wf_fabric_event *block, uint32_t number);
/* Which of these has it in memory that it lends? */
bool wf_copies_ask_lent(struct wf_fabric *f, const struct wf_fabric_event *block, uint32_t number,
                        const uint16_t *lenders, uint32_t count);
void wf_copies_tick(struct wf_fabric *f, uint64_t now_ns);
/* Nobody asks this one any more. */
void wf_copies_lost(struct wf_fabric *f, const struct wf_peer_node *peer);
/* COPIES, COPIED.  False: nonsense. */
bool wf_copies_heard(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_copied_heard(struct wf_link *link, const void *header, uint32_t bytes);

/* moves.c */
/* An answer of copies.c. */
void wf_moves_known(struct wf_fabric *f, uint32_t number, const struct wf_copies_known *known);
enum weft_status wf_moves_create(struct wf_fabric *f);
/* When none is under way: after wf_puts_end(). */
void wf_moves_destroy(struct wf_fabric *f);
void wf_moves_run(struct wf_fabric *f, uint64_t now_ns);
void wf_moves_tick(struct wf_fabric *f, uint64_t now_ns);
/* Something has changed: look at the next tick. */
void wf_moves_soon(struct wf_fabric *f);
uint64_t wf_moves_left(const struct wf_fabric *f);
/* How full the memory is that it lends, as it said; 1: it lends none. */
double wf_moves_fill(const struct wf_peer_node *peer);

/* orders.c */
/* Any thread: is there a node of that name? */
bool wf_fabric_is_known(struct wf_fabric *f, const char *name);
void wf_orders_run(struct wf_fabric *f);
void wf_orders_end(struct wf_fabric *f);
bool wf_offer_heard(struct wf_link *link, const void *header, uint32_t bytes);
bool wf_forget_heard(struct wf_link *link, const void *header, uint32_t bytes);

/* figures.c */
/* `changes`: what f->show_changes was before all that was done in this poll; `settles`: somebody
 * waits for what is shown to have them. */
void wf_figures_tick(struct wf_fabric *f, uint64_t now_ns, uint64_t changes, bool settles);
void wf_figures_change(struct wf_fabric *f); /* any thread */

#endif
