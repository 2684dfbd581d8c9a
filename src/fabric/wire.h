/* SPDX-License-Identifier: Apache-2.0
 *
 * What nodes say to each other, in the headers of a net's messages (net/net.h).
 *
 * Every message begins with a head; all numbers are little-endian, and a message of another length
 * than its kind has is nonsense, which ends the link.
 *
 *     0      4      6      8
 *    +------+------+------+----------------------+
 *    | magic| kind | 0    | body of this kind …  |
 *    +------+------+------+----------------------+
 *
 * A link begins with IDENT from both sides, and then JOIN, by which each proves which domains it
 * has; nothing else is heard before.  From then on a side tells, in EVENTS, what blocks it has of
 * the domains that both have: all of them after one that says RESET, in any order and among what
 * changes meanwhile; a batch with COMPLETE says that all have been told.
 *
 *     A                                         B
 *     IDENT name, epoch, nonce  ───────────────►
 *                               ◄───────────────  IDENT
 *     JOIN  a proof a domain    ───────────────►
 *                               ◄───────────────  JOIN
 *     EVENTS reset, here …      ───────────────►
 *     EVENTS complete           ───────────────►
 *                               ◄───────────────  GET key, parts, forms
 *     DATA  sums │ payload      ───────────────►
 *
 * A domain is named by the number that its sender gave it in its own JOIN.  The proof of a domain
 * is HMAC-SHA-256(its secret, "weft fabric domain 1" ‖ nonce of who proves ‖ nonce of who is told):
 * it says nothing to who does not have the secret, and nothing on another link.
 *
 * An event says whether the block is in its node's memory or on one of its tiers alone; in either
 * case it may be asked for, and what a tier takes is in PONG.
 *
 * A payload has a form, which its message says:
 *
 *     PLAIN, TRIED   | part 0 | part 1 | part 2 |      as they are, as many bytes as are due
 *     FRAME          | head, table | planes     |      codec/frame.h: exact, and shorter than that
 *     CUT            | head, table | planes     |      codec/frame_cut.h: of the frame that the
 * block lies in on a tier of the sender's, as it lies there
 *
 * FRAME is sent to who takes it, by its GET or its IDENT; TRIED is as PLAIN, and says that a frame
 * would not have been shorter.  The sums are those of the parts, encoded or not.  A frame says all
 * that it takes to decode it, and nothing of it is believed: what it decodes to is as long as what
 * was asked for and matches the sums, or is wrong.
 *
 * CUT is sent to who takes it, by its GET, and has the profile if one is needed, as far as its GET
 * says that: a bit for each that it has, by its id modulo 64.  So it may be sent what it has no
 * profile for after all, and asks again for what is decoded.  The sender has decoded nothing, and
 * the sums are of the cut as it is sent, of `part_bytes` each but for the last; besides, each plane
 * of a frame has a checksum of its own.
 *
 * Every copy has a quality (enum weft_quality; 0 on the wire: bit for bit what was put), which an
 * event says, a GET bounds, and DATA, PUT and FOUND say.  Nothing worse than what a GET accepts is
 * sent: the owner looks at the copy that it has, and who asked does not take what is worse.  With
 * what lost something goes the profile that it was made by, so that whoever stores it again knows
 * which.  The sums are of the bytes that are sent, decoded but
 * for CUT.
 *
 * What is told is a hint.  Who gets a block compares what comes with the sums in DATA, and knows by
 * the whole key what it asked for; who has it no more says WEFT_MISS.
 */
#ifndef WF_FABRIC_WIRE_H
#define WF_FABRIC_WIRE_H

#include <assert.h>
#include <stdint.h>

#include "core/locality.h"
#include "net/net.h"

#define WF_FABRIC_MAGIC 0x31464657u /* "WFF1" */
#define WF_FABRIC_VERSION 8u
#define WF_FABRIC_DOMAINS_MAX 64u
#define WF_FABRIC_EVENTS_MAX 512u /* in one message */
#define WF_FABRIC_PARTS_MAX 1024u

enum wf_fabric_kind {
    WF_FABRIC_IDENT = 1,
    WF_FABRIC_JOIN = 2,
    WF_FABRIC_EVENTS = 3,
    WF_FABRIC_AGAIN = 4, /* tell all again: some of it was lost here */
    WF_FABRIC_GET = 5,
    WF_FABRIC_DATA = 6,
    WF_FABRIC_PING = 7,
    WF_FABRIC_PONG = 8,
    WF_FABRIC_PUT = 9, /* a block for the memory that the other side lends, as payload */
    WF_FABRIC_PLACED = 10,
    WF_FABRIC_DROP = 11,  /* of what was put there */
    WF_FABRIC_OFFER = 12, /* have this chain from me: the end of a hand-over */
    WF_FABRIC_PROBE = 20, /* on a link that is on trial: say PROBED, with so much payload */
    WF_FABRIC_PROBED = 21,
    WF_FABRIC_FORGET = 13, /* remove a block, and all that extends it, for whose domain it is */
    WF_FABRIC_PUSH = 14,   /* 14 to 18: a push, below */
    WF_FABRIC_ROOM = 15,
    WF_FABRIC_LAYER = 16,
    WF_FABRIC_PUSH_END = 17,
    WF_FABRIC_PUSHED = 18,
    WF_FABRIC_WANT = 22,   /* of the directory all is to be told, or a part; as in IDENT */
    WF_FABRIC_LOOKUP = 23, /* who holds this, asked of an owner of its shard; or how much of this
                              have you */
    WF_FABRIC_FOUND = 24,
    WF_FABRIC_COPIES = 25, /* who else has each of these, asked of an owner of their shards */
    WF_FABRIC_COPIED = 26,
    WF_FABRIC_REFUSED = 27, /* instead of all that would follow JOIN: the link is not wanted */
};

/* How the payload of DATA and PUT lies. */
enum wf_fabric_form {
    WF_FABRIC_PLAIN = 0,
    WF_FABRIC_TRIED = 1, /* it would not be smaller */
    WF_FABRIC_FRAME = 2,
    WF_FABRIC_CUT = 3, /* DATA alone */
};

enum wf_fabric_codecs {
    WF_FABRIC_FRAMES = 1, /* frames of lossless codecs, of this build's versions */
    WF_FABRIC_CUTS = 2,   /* GET alone: cuts of frames of any of its codecs */
};

struct wf_fabric_head {
    uint32_t magic;
    uint16_t kind, zero;
};
static_assert(sizeof(struct wf_fabric_head) == 8, "wire format");

/* Said once a link, and again when the epoch is another: all that was told under the older one is
 * forgotten then. */
struct wf_fabric_ident {
    struct wf_fabric_head head;
    uint32_t version;
    uint16_t flags; /* as below */
    uint16_t port;  /* where it can be called as over this link; 0: not known, or there is none */
    uint64_t epoch; /* of its lease */
    uint8_t nonce[32];
    char name[64]; /* zero-terminated, and zeros behind */
    /* Where it stands (core/locality.h), likewise; what is no path of that kind says nothing. */
    char locality[WF_LOCALITY_MAX + 1];
    /* What it encodes for others and takes from them (enum wf_fabric_codecs), how fast a thread of
     * it does that, in 10^6 bytes a second, and how many there are. */
    uint32_t codecs, encode_mbps, decode_mbps, threads;
};
static_assert(sizeof(struct wf_fabric_ident) == 264, "wire format");

/* Who began the link measures it: no JOIN follows, only PROBEs, and then its end. */
enum wf_fabric_ident_flags {
    WF_FABRIC_TRIAL = 1,
    /* This node keeps only the shards of the directory that it owns (core/shard.h), and is to be
     * told only of their keys. */
    WF_FABRIC_PARTS = 2,
    WF_FABRIC_COUNTS = 4, /* it answers COPIES */
};

/* Asked one at a time without payload, how long an answer takes; then with, WF_FABRIC_PROBE_BYTES
 * each, what the way carries.  WF_FABRIC_PROBES_MAX of them a link. */
#define WF_FABRIC_PROBE_BYTES 262144u
#define WF_FABRIC_PROBES_MAX 24u
struct wf_fabric_probe { /* and PROBED, which repeats it */
    struct wf_fabric_head head;
    uint32_t number, bytes; /* of payload with the answer: 0 or WF_FABRIC_PROBE_BYTES */
};
static_assert(sizeof(struct wf_fabric_probe) == 16, "wire format");

struct wf_fabric_join {
    struct wf_fabric_head head;
    uint32_t count, zero;
    uint8_t proof[][32]; /* by number */
};

/* Why a link is not wanted whose other side has proved something.  Who hears it ends the link, and
 * so does who does not know it. */
enum wf_fabric_refusal {
    WF_FABRIC_NAME_TAKEN = 1, /* its name is that of the node at `address` */
};
struct wf_fabric_refused {
    struct wf_fabric_head head;
    uint32_t reason, zero;
    char address[128]; /* printable, zero-terminated, and zeros behind */
};
static_assert(sizeof(struct wf_fabric_refused) == 144, "wire format");

enum wf_fabric_event_kind {
    WF_FABRIC_HERE = 1,
    WF_FABRIC_GONE = 2, /* of the rest only domain and key count */
};
/* The nearest place where its node has it, from now on: what was said of it before is over. */
enum wf_fabric_where {
    WF_FABRIC_IN_POOL = 0,
    WF_FABRIC_IN_LENT = 1, /* memory as well, that the node lends */
    WF_FABRIC_BELOW = 2,   /* on a tier of the node's own, and not in its memory */
};
struct wf_fabric_event {
    uint8_t kind, quality; /* enum weft_quality, 0: exact */
    uint8_t where;         /* enum wf_fabric_where; GONE: from there, BELOW as IN_POOL */
    uint8_t domain;
    uint32_t depth;
    uint64_t bytes;
    uint8_t key[32], parent[32];
};
static_assert(sizeof(struct wf_fabric_event) == 80, "wire format");

enum wf_fabric_events_flags {
    WF_FABRIC_RESET = 1,    /* what was told before is forgotten */
    WF_FABRIC_COMPLETE = 2, /* all that is there has been told since RESET */
};
struct wf_fabric_events {
    struct wf_fabric_head head;
    uint32_t count, flags;
    /* Of all that ever changed there, numbered: what this is about.  `from` is `to` of the one
     * before, but with RESET.  So those that have heard the same are told the same. */
    uint64_t from, to;
    uint64_t age_us; /* how long the oldest change in it has waited */
    struct wf_fabric_event events[];
};
static_assert(sizeof(struct wf_fabric_events) +
                      WF_FABRIC_EVENTS_MAX * sizeof(struct wf_fabric_event) <=
                  WF_NET_HEADER_MAX,
              "a batch fits a message");

/* What was told is kept: all that there is is told besides what changes, without RESET. */
#define WF_FABRIC_KEPT 1u
struct wf_fabric_again {
    struct wf_fabric_head head;
    uint32_t flags, zero;
};
static_assert(sizeof(struct wf_fabric_again) == 16, "wire format");

enum wf_fabric_get_flags {
    WF_FABRIC_BACKGROUND = 1, /* nobody waits for it */
    WF_FABRIC_PATIENT = 2,    /* nobody else has it, so it is waited for as long as a bound on what
                                 is sent takes */
};
/* The bound by which a turn comes too late. */
enum wf_fabric_limited {
    WF_FABRIC_LIMITED_LINK = 1,   /* of what goes to that node */
    WF_FABRIC_LIMITED_DOMAIN = 2, /* of what goes of that domain, to all */
};
struct wf_fabric_get {
    struct wf_fabric_head head;
    uint64_t request;       /* given back in DATA */
    uint16_t domain, flags; /* enum wf_fabric_get_flags */
    uint32_t first_part, part_count, part_bytes;
    uint64_t bytes; /* of the whole block; one of another size is a miss */
    uint8_t key[32];
    uint32_t codecs;   /* enum wf_fabric_codecs: it may come so */
    uint32_t quality;  /* enum weft_quality: nothing worse; 0: exact */
    uint64_t profiles; /* with CUTS: of those that are here the bits id % 64 */
};
static_assert(sizeof(struct wf_fabric_get) == 88, "wire format");

/* With the parts as payload, when status is WEFT_OK: a sum (XXH3-64) of each. */
struct wf_fabric_data {
    struct wf_fabric_head head;
    uint64_t request;
    int32_t status; /* WEFT_OK, WEFT_MISS, WEFT_E_BUSY, WEFT_E_LIMIT: its turn comes too late */
    uint32_t part_count; /* of what comes: as asked for; of a CUT's own bytes */
    uint32_t quality;    /* enum weft_quality of what comes; 0: exact.  With WEFT_MISS: of what is
                         there instead, worse than was asked for; 0: nothing is */
    uint32_t form;       /* enum wf_fabric_form; WEFT_E_LIMIT: enum wf_fabric_limited */
    uint64_t profile;    /* by which it was stored with loss; 0: that is not known, or it was not;
                            WEFT_E_LIMIT: the bound, in bytes a second */
    uint64_t sums[];
};
static_assert(sizeof(struct wf_fabric_data) == 40, "wire format");

/* A block that the other side is to keep, as payload, with the sum of each part; `block.domain` is
 * a number of the sender's. */
struct wf_fabric_put {
    struct wf_fabric_head head;
    uint64_t request; /* given back in PLACED */
    uint32_t part_bytes, part_count;
    uint32_t form;   /* enum wf_fabric_form */
    uint32_t copies; /* that there should be in the memory that nodes lend, at least 1 */
    struct wf_fabric_event block;
    /* Whom it is for, as in IDENT, where another lender has it moved: that one may DROP it, and
     * nobody else; zeros: the sender.  The room is the sender's. */
    char owner[64];
    uint64_t profile; /* as in DATA */
    uint64_t sums[];
};
static_assert(sizeof(struct wf_fabric_put) == 184, "wire format");

struct wf_fabric_placed {
    struct wf_fabric_head head;
    uint64_t request;
    int32_t
        status; /* WEFT_OK, WEFT_EXISTS, WEFT_FULL, WEFT_E_CORRUPT, WEFT_E_DENIED, WEFT_E_BUSY */
    uint32_t arrives_mbps; /* how fast payload came over this link, 10^6 bytes a second; 0: it is
                              not known */
};
static_assert(sizeof(struct wf_fabric_placed) == 24, "wire format");

struct wf_fabric_drop {
    struct wf_fabric_head head;
    uint8_t key[32];
};
static_assert(sizeof(struct wf_fabric_drop) == 40, "wire format");

struct wf_fabric_ping { /* and PONG, which repeats it and says of itself */
    struct wf_fabric_head head;
    uint64_t sent_ns; /* on the clock of who asked */
    uint64_t pool_bytes, free_bytes, lent_bytes, lent_free_bytes;
    uint32_t busy; /* gets that wait there */
    uint32_t flags;
    /* Of its tiers, as blocks lie there on average; 0: that is not known, or nothing is there. */
    uint32_t below_latency_us, below_mbps; /* 10^6 bytes a second */
    /* Of all that it lends, to whomever; and what is to go from there to others' memory. */
    uint64_t lends_bytes, lends_used_bytes, left_bytes;
};
static_assert(sizeof(struct wf_fabric_ping) == 88, "wire format");
/* A chain, or a part of it, that the other side should have soon: as many events, each HERE, whose
 * parents come first.  With LAST the last of them is its end. */
enum wf_fabric_offer_flags { WF_FABRIC_LAST = 1 };
struct wf_fabric_offer {
    struct wf_fabric_head head;
    uint32_t count, flags;
    struct wf_fabric_event events[];
};
static_assert(sizeof(struct wf_fabric_offer) == 16, "wire format");

/* Nothing is answered: what goes is told as ever.  With LENT it is that block alone, in memory that
 * is lent: it extends one that goes. */
#define WF_FABRIC_FORGET_LENT 1u
struct wf_fabric_forget {
    struct wf_fabric_head head;
    uint32_t domain, flags; /* a number of the sender's */
    uint8_t key[32];
};
static_assert(sizeof(struct wf_fabric_forget) == 48, "wire format");

struct wf_fabric_want {
    struct wf_fabric_head head;
    uint32_t parts, zero; /* 1, or 0: all */
};
static_assert(sizeof(struct wf_fabric_want) == 16, "wire format");

/* Keys of one chain, in its order; who owns the shard of the first knows who holds that one, and
 * who has it, how many of them it has from there on. */
#define WF_FABRIC_LOOKUP_MAX 512u
struct wf_fabric_lookup {
    struct wf_fabric_head head;
    uint64_t request; /* given back in FOUND */
    uint64_t bytes;   /* of each block; 0: who asks does not know */
    uint16_t domain, count;
    uint32_t quality;   /* as in GET */
    uint8_t keys[][32]; /* 1 to WF_FABRIC_LOOKUP_MAX */
};
static_assert(sizeof(struct wf_fabric_lookup) == 32, "wire format");
static_assert(sizeof(struct wf_fabric_lookup) + WF_FABRIC_LOOKUP_MAX * 32 <= WF_NET_HEADER_MAX,
              "a question fits a message");

#define WF_FABRIC_FOUND_MAX 8u
struct wf_fabric_found {
    struct wf_fabric_head head;
    uint64_t request;
    uint16_t count;
    uint16_t blocks;    /* of the keys, from the first on, that it has itself */
    uint32_t qualities; /* enum weft_quality, two bits each: of each member's copy, the first's
                           lowest, and at WF_FABRIC_FOUND_MAX the worst of `blocks` */
    uint64_t members[]; /* who holds the first, of those that the owner has a link to:
                           wf_shard_member() */
};
static_assert(sizeof(struct wf_fabric_found) == 24, "wire format");

/* Blocks that the asker has, whatever chains they are of.  Of each the owner names other nodes that
 * have it, no less exact, and stay, those first that lend memory; so whoever has to see to it that
 * there are enough copies knows how many there are, if no more than WF_FABRIC_COPIED_NAMES matter.
 * WHOLE: it has heard all of what all members have.
 *
 * LENT asks a lender about itself alone: it names itself where the block lies in memory that it
 * lends, and nobody where it does not. */
enum wf_fabric_copies_flags { WF_FABRIC_LENT = 1 };
#define WF_FABRIC_COPIES_MAX 128u
#define WF_FABRIC_COPIED_NAMES 7u
struct wf_fabric_copies_key {
    uint8_t key[32];
    uint64_t bytes;         /* of the block */
    uint32_t quality, zero; /* as in GET */
};
struct wf_fabric_copies {
    struct wf_fabric_head head;
    uint64_t request; /* given back in COPIED */
    uint16_t domain, count;
    uint32_t flags;
    struct wf_fabric_copies_key keys[]; /* 1 to WF_FABRIC_COPIES_MAX */
};
static_assert(sizeof(struct wf_fabric_copies) == 24, "wire format");
static_assert(sizeof(struct wf_fabric_copies_key) == 48, "wire format");

enum wf_fabric_copied_flags { WF_FABRIC_WHOLE = 1 };
struct wf_fabric_copied_key {
    uint64_t members[WF_FABRIC_COPIED_NAMES]; /* wf_shard_member(); 0: no further one */
};
struct wf_fabric_copied {
    struct wf_fabric_head head;
    uint64_t request;
    uint16_t count, flags; /* count: as many as were asked about */
    uint32_t zero;
    struct wf_fabric_copied_key keys[];
};
static_assert(sizeof(struct wf_fabric_copied) == 24, "wire format");
static_assert(sizeof(struct wf_fabric_copied_key) == 56, "wire format");

enum wf_fabric_ping_flags { WF_FABRIC_DRAINING = 1 };

/* A push: blocks that A still writes come to B layer by layer, so that with the last layer's end
 * little is left to send.  B keeps them in room of its own, where nobody sees them, and publishes
 * those that A committed and of which every layer came and matched its sum.
 *
 *     A                                         B
 *     PUSH  keys, sizes, layers ───────────────►
 *                               ◄───────────────  ROOM handle, which are wanted
 *     LAYER 0, sums │ payload   ───────────────►
 *     LAYER 1, sums │ payload   ───────────────►
 *     …
 *     PUSH_END  which to keep   ───────────────►
 *                               ◄───────────────  PUSHED  how many are there now
 *
 * A names a push by `request` and B by `handle`: a number with a generation that the other side
 * gives back and that is looked up, never an address.  A's PUSH_END may come before the last layer,
 * and keeps none then.  B ends a push by PUSHED at any time; what A still sends of it is dropped.
 * Blocks of one push are of one domain and one size, which the layers divide evenly, and layer n of
 * each is sent when layer n - 1 was.  Who asks for better than some block of it is has no room for
 * it (WEFT_E_DENIED).  Layers are sent encoded to who takes frames, where that is sooner. */
#define WF_FABRIC_PUSH_BLOCKS_MAX 512u
#define WF_FABRIC_PUSH_LAYERS_MAX 1024u
#define WF_FABRIC_PUSH_WORDS (WF_FABRIC_PUSH_BLOCKS_MAX / 64)

struct wf_fabric_push_said {
    struct wf_fabric_head head;
    uint64_t request;
    uint32_t count, layers;
    uint64_t profile; /* by which those of them were stored that lost something; 0: that is not
                         known, or there are none */
    struct wf_fabric_event blocks[]; /* each HERE, whose parents come first */
};
static_assert(sizeof(struct wf_fabric_push_said) == 32, "wire format");
static_assert(sizeof(struct wf_fabric_push_said) +
                      WF_FABRIC_PUSH_BLOCKS_MAX * sizeof(struct wf_fabric_event) <=
                  WF_NET_HEADER_MAX,
              "a push fits a message");

struct wf_fabric_room {
    struct wf_fabric_head head;
    uint64_t request, handle;
    int32_t status; /* WEFT_OK; WEFT_EXISTS, WEFT_FULL, WEFT_E_PARENT, WEFT_E_DENIED, WEFT_E_BUSY:
                       nothing is wanted, and there is no handle */
    uint32_t arrives_mbps;                 /* as in PLACED */
    uint64_t wanted[WF_FABRIC_PUSH_WORDS]; /* a bit a block */
};
static_assert(sizeof(struct wf_fabric_room) == 96, "wire format");

struct wf_fabric_layer_piece {
    uint32_t block; /* by its place in PUSH, ascending */
    uint32_t bytes; /* as it is sent: of its layer, or fewer, of a frame (FRAME) that it is */
    uint64_t sum;   /* XXH3-64 of its layer */
};
/* With that layer of `count` blocks as payload, one after the other. */
struct wf_fabric_layer {
    struct wf_fabric_head head;
    uint64_t handle;
    uint32_t layer, count;
    struct wf_fabric_layer_piece pieces[];
};
static_assert(sizeof(struct wf_fabric_layer) == 24, "wire format");

struct wf_fabric_push_end {
    struct wf_fabric_head head;
    uint64_t handle;
    uint64_t keep[WF_FABRIC_PUSH_WORDS];
};
static_assert(sizeof(struct wf_fabric_push_end) == 80, "wire format");

struct wf_fabric_pushed_said {
    struct wf_fabric_head head;
    uint64_t request;
    int32_t status; /* WEFT_OK: all that was to be kept is there; WEFT_MISS, WEFT_E_CORRUPT:
                       `missing` of it are not; WEFT_E_TIMEOUT */
    uint32_t published, existing, missing;
};
static_assert(sizeof(struct wf_fabric_pushed_said) == 32, "wire format");

#endif
