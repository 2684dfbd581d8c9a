/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client and its node say to each other over the Unix socket.
 *
 * SOCK_SEQPACKET: one message is one datagram of at most WF_MESSAGE_MAX bytes, so there are no half
 * messages. A client asks and waits for the answer; the answer repeats op and sequence.  Both ends
 * are on one host, hence native byte order.
 *
 *     0      4    6     8       12       16          24
 *    +------+----+-----+-------+--------+-----------+----------------------+
 *    | magic| op | ver | bytes | status | sequence  | body of this op …    |
 *    +------+----+-----+-------+--------+-----------+----------------------+
 *
 * `bytes` counts the whole message and must equal what arrived.  An answer with status < 0 carries
 * a sentence instead of its body.  Every field of a request is untrusted and checked before use.
 *
 * HELLO's answer carries descriptors: index, pool, pins and, for `writes: copied`, staging.
 */
#ifndef WF_SHM_CONTROL_H
#define WF_SHM_CONTROL_H

#include <assert.h>
#include <stdint.h>

#include "weft/weft.h"

#define WF_CONTROL_MAGIC 0x31434657u /* "WFC1" */
#define WF_CONTROL_VERSION 4u
#define WF_MESSAGE_MAX 65536u

enum wf_op {
    WF_OP_HELLO = 1,
    WF_OP_FORMAT_OPEN = 2,
    WF_OP_SESSION_OPEN = 3,
    WF_OP_SESSION_CLOSE = 4,
    WF_OP_SESSION_HINT = 5,
    WF_OP_RESERVE = 6,
    WF_OP_COMMIT = 7,
    WF_OP_ABORT = 8,
    WF_OP_REMOVE = 9,
    WF_OP_REGION_CREATE = 10,
    WF_OP_REGION_OPEN = 11,
    WF_OP_REGION_RELEASE = 12,
    WF_OP_LEND = 13,
    WF_OP_RECLAIM = 14,
    WF_OP_QUERY = 15,
    WF_OP_CORRUPT = 16,
    WF_OP_LOAD = 17,
    WF_OP_DEMOTE = 18,
    WF_OP_ARCHIVE = 19,
    WF_OP_FENCE = 20,
    WF_OP_DESCRIBE = 21,
    WF_OP_FABRIC = 22,
    WF_OP_ROUTE = 23,
    WF_OP_PUSH = 24,
    WF_OP_REMOVE_EVERYWHERE = 25,
    WF_OP_COUNT = 26,
};

struct wf_message {
    uint32_t magic;
    uint16_t op;
    uint16_t version;
    uint32_t bytes;
    int32_t status;
    uint64_t sequence;
};
static_assert(sizeof(struct wf_message) == 24, "wire format");

/* How many array elements a message can carry behind its fixed part. */
#define WF_MESSAGE_ROOM(fixed, element) ((WF_MESSAGE_MAX - sizeof(fixed)) / sizeof(element))

/* --------------------------------------------------------------------------------------- hello */

#define WF_NAME_BYTES 64
#define WF_TOKEN_BYTES 136

struct wf_hello {
    struct wf_message message;
    char domain[WF_NAME_BYTES]; /* zero-terminated */
    char token[WF_TOKEN_BYTES]; /* zero-terminated; "" for none */
};

enum wf_hello_flags { WF_HELLO_COPIED = 1, WF_HELLO_HUGE = 2, WF_HELLO_THP = 4 };

struct wf_hello_answer {
    struct wf_message message;
    uint64_t epoch;
    uint32_t client;
    uint32_t flags;
    uint64_t index_bytes, pool_bytes, pins_bytes, staging_bytes;
};

/* -------------------------------------------------------------------------------------- format */

struct wf_format_open {
    struct wf_message message;
    uint32_t layers, kv_heads, head_dim, dtype, block_tokens, tp_rank, tp_size;
    uint32_t model_bytes, scaling_bytes, adapter_bytes, salt_bytes;
    uint32_t quality; /* enum weft_quality */
    double rope_theta;
    uint64_t block_bytes;
    char model[520]; /* zero-terminated, like scaling */
    char scaling[4104];
    uint8_t adapter[256];
    uint8_t salt[256];
};

struct wf_format_answer {
    struct wf_message message;
    uint32_t format;
    uint32_t quality; /* that its blocks have at least; never WEFT_QUALITY_DEFAULT */
    uint64_t block_bytes, layer_bytes;
    uint8_t root[32];
};

/* ------------------------------------------------------------------------------------- session */

struct wf_session_open {
    struct wf_message message;
    uint32_t format;
    uint32_t priority;
    uint64_t fork_of; /* 0: none */
    uint32_t salt_bytes;
    uint32_t reserved;
    char name[72];
    uint8_t salt[256];
};

struct wf_session_answer {
    struct wf_message message;
    uint64_t session;
    uint8_t root[32];
};

struct wf_session_close {
    struct wf_message message;
    uint64_t session;
};

struct wf_session_hint {
    struct wf_message message;
    uint64_t session;
    uint32_t state, returns_in_ms, deadline_ms;
    uint32_t has_tip; /* the session's chain now ends at `tip` */
    uint8_t tip[32];
    uint32_t output_tokens; /* that its last request made; 0: not said */
    uint32_t reserved;
};

/* --------------------------------------------------------------------------------- put a block */

enum wf_parent_kind {
    WF_PARENT_NONE = 0, /* first in its chain */
    WF_PARENT_KEY = 1,  /* committed, by key */
    WF_PARENT_SLOT = 2, /* reserved by this client in an earlier request */
};

#define WF_RESERVE_FLAGS \
    ((unsigned)WEFT_CHAINED | WEFT_INSIST | WEFT_LOST_TRANSPARENT | WEFT_LOST_ECONOMY)

struct wf_reserve {
    struct wf_message message;
    uint32_t format, count, flags, parent_kind;
    uint32_t parent_slot, parent_generation;
    uint8_t parent[32];
    uint8_t keys[][32];
};

struct wf_reserved {
    int32_t status; /* WEFT_OK, WEFT_EXISTS, WEFT_FULL */
    uint32_t slot, generation;
    uint32_t entry;  /* WEFT_EXISTS: the pin that the node placed in the client's table */
    uint64_t offset; /* WEFT_OK: in the pool */
};

struct wf_reserve_answer {
    struct wf_message message;
    uint32_t count, reserved;
    struct wf_reserved blocks[];
};

struct wf_commit_block {
    uint32_t slot, generation;
    uint64_t staging;  /* copied writes: where the payload lies in the staging segment */
    uint64_t checksum; /* copied writes: XXH3-64 of the payload; 0 otherwise */
};

/* COMMIT and ABORT */
struct wf_commit {
    struct wf_message message;
    uint32_t count;
    uint32_t has_tip; /* `session`'s chain now ends at `tip`, if that is committed */
    uint64_t session; /* 0: no one's */
    uint8_t tip[32];
    struct wf_commit_block blocks[];
};

struct wf_commit_answer {
    struct wf_message message;
    uint32_t count, reserved;
    int32_t status[];
};

/* One key: what is in the way is waited for, and the answer is a wf_count_answer.  More behind it,
 * up to WEFT_BATCH_MAX in all: each by itself, nothing is waited for, and the answer is a
 * wf_commit_answer, whose status may be WEFT_OK, WEFT_MISS or WEFT_E_BUSY.  REMOVE_EVERYWHERE, of
 * one key: what of it and what extends it lies in memory that nodes lend goes as well;
 * WF_SAY_FORGET sees to what other nodes have themselves. */
struct wf_remove {
    struct wf_message message;
    uint8_t key[32];
    uint8_t more[][32];
};

struct wf_count_answer {
    struct wf_message message;
    uint64_t count;
};

/* --------------------------------------------------------------------------- what is below DRAM */

enum wf_load_flags {
    WF_LOAD_PREFETCH = 1, /* nobody waits for it yet: nothing is pinned */
    WF_LOAD_BLOCKS = 2,   /* whole blocks in their order, not the first layers of all first */
    WF_LOAD_ROOT = 4,     /* the first key begins its chain */
    WF_LOAD_FIND = 8,     /* nothing is loaded: who has them is asked, where that is not known here;
                             WEFT_OK: somewhere, WEFT_PENDING: that is being asked */
};

/* Bring blocks up: keys of one chain, each the parent of the next; the parent of the first is in
 * DRAM, or it is the first of its chain.  FIND: or the first is known. */
struct wf_load {
    struct wf_message message;
    uint32_t count, flags;
    uint32_t within_ms; /* PREFETCH: when they should be there; 0: as soon as may be */
    uint32_t format;
    uint64_t session; /* whose priority and deadline count; 0: no one's */
    uint8_t keys[][32];
};

struct wf_loaded {
    int32_t
        status; /* WEFT_OK: in DRAM.  WEFT_PENDING: on its way.  WEFT_MISS, and so are all behind */
    uint32_t slot, generation;
    uint32_t entry; /* the pin that the node placed in the client's table; none for PREFETCH */
    uint64_t offset, bytes; /* in the pool */
};

struct wf_load_answer {
    struct wf_message message;
    uint32_t count, reserved;
    struct wf_loaded blocks[];
};

/* Write the chain that ends with `tip` below, and let it leave DRAM when room is needed. */
struct wf_demote {
    struct wf_message message;
    uint8_t tip[32];
};

/* ------------------------------------------------------------------------------------ archives */

enum wf_archive_flags {
    WF_ARCHIVE_REMOVE = 1, /* the archive `name` is one no more; `format` and `tip` say nothing */
};

struct wf_archive {
    struct wf_message message;
    uint32_t format, flags;
    uint8_t tip[32];
    char name[72]; /* zero-terminated */
};

/* WEFT_OK: it is durable.  WEFT_PENDING: it goes on; ask again.  WEFT_FULL: `sentence` says why. */
struct wf_archive_answer {
    struct wf_message message;
    uint32_t blocks, written;
    uint64_t bytes;
    char name[72], tier[32], sentence[512]; /* zero-terminated */
};

/* Another host of a shared tier is dead: answered when what it had is this host's. */
enum wf_fence_flags { WF_FENCE_FORCE = 1 }; /* though it gave a sign of life just now */
struct wf_fence {
    struct wf_message message;
    char tier[32]; /* zero-terminated */
    uint32_t host, flags;
};

/* What keys stand for: body is count keys, count × block_tokens tokens (u32), count hashes of
 * hash_bytes each; keys of one chain.  Answered with how many, from the first, were taken. */
struct wf_describe {
    struct wf_message message;
    uint32_t format, count;
    uint32_t hash_bytes, parent_bytes; /* parent_bytes: hash_bytes, or 0 */
    uint32_t lora_bytes, block_tokens; /* block_tokens: the format's, or 0 */
    uint8_t parent[WEFT_ENGINE_HASH_MAX];
    char lora[WEFT_LORA_NAME_MAX + 1];
    uint8_t body[];
};
static_assert(sizeof(struct wf_describe) % 4 == 0, "tokens are read where they lie");

/* What is said of the fabric; answered with nothing. */
enum wf_fabric_say {
    WF_SAY_HAND_OVER = 1, /* the chain that ends in `tip` goes to node `name`: any client */
    WF_SAY_ALLOT = 2,     /* and these are for the node's own user; WEFT_PENDING: say it again */
    WF_SAY_LEND = 3,
    WF_SAY_DRAIN = 4,  /* bytes 0: not any more */
    WF_SAY_FORGET = 5, /* any client: `tip`, and what extends it, is to go from all other nodes;
                          WEFT_E_BUSY while one of them has it */
    WF_SAY_LIMIT = 6,  /* for the node's own user: `limit` of node or domain `name` is `bytes` */
};
struct wf_fabric_say_message {
    struct wf_message message;
    uint32_t what, limit; /* enum wf_fabric_say, enum weft_limit */
    uint64_t bytes;
    uint64_t least;                                  /* ALLOT */
    char name[WF_NAME_BYTES], lender[WF_NAME_BYTES]; /* zero-terminated; lender "": this node */
    uint8_t tip[32];
};

/* Blocks that this client has reserved go to node `name` while it writes them.  Answered with a
 * wf_count_answer: a number for the push, which WRITTEN says how far it is.  Its end is that of its
 * slots: COMMIT or ABORT. */
enum wf_push_what {
    WF_PUSH_BEGIN = 1,
    WF_PUSH_WRITTEN = 2, /* the first `layers` of all of them are; answered WEFT_OK, or WEFT_MISS:
                            it goes no further */
};
struct wf_push_slot {
    uint32_t slot, generation;
};
struct wf_push_message {
    struct wf_message message;
    uint32_t what, layers; /* BEGIN: how many there are, which divide a block evenly */
    uint64_t push;         /* WRITTEN */
    uint32_t count, reserved;
    char name[WF_NAME_BYTES];    /* BEGIN; zero-terminated */
    struct wf_push_slot slots[]; /* BEGIN; parents first */
};

/* ------------------------------------------------------------------------------------ routing
 *
 * Where a request should run: fabric/route.h has the model, weft.h the fields.
 *
 *     ROUTE    │ fixed part │ candidates × 112 │ keys × 32 │
 *     answer   │ fixed part │ terms × 176      │ sentences │
 */
#define WF_ROUTING_CANDIDATES_MAX 256u
#define WF_ROUTING_KEYS_MAX 1024u

enum wf_routing_flags {
    WF_ROUTING_ASK = 1, /* the request is not sent */
    WF_ROUTING_WHY = 2, /* a sentence for each, as many as find room */
};
enum wf_routing_candidate_flags { WF_ROUTING_LOADED = 1, WF_ROUTING_CLOSED = 2 };

struct wf_routing_candidate {
    char node[WF_NAME_BYTES]; /* zero-terminated */
    double queued_tokens, tokens_s, decode_s, age_s;
    uint32_t running, batch_max, flags, reserved;
};
static_assert(sizeof(struct wf_routing_candidate) == 112, "wire format");

/* keys[i] names block (i + 1) · stride - 1. */
struct wf_routing {
    struct wf_message message;
    uint32_t format, count, stride, candidates;
    uint32_t flags, reserved;
    uint64_t id;
    double tokens, output_tokens;
    uint8_t body[];
};
static_assert(sizeof(struct wf_routing) % 8 == 0, "candidates are read where they lie");
static_assert(sizeof(struct wf_routing) +
                      WF_ROUTING_CANDIDATES_MAX * sizeof(struct wf_routing_candidate) +
                      WF_ROUTING_KEYS_MAX * 32u <=
                  WF_MESSAGE_MAX,
              "all of it fits into one message");

struct wf_routing_term {
    char node[WF_NAME_BYTES];
    uint32_t action; /* enum weft_route_action */
    uint32_t source; /* FETCH: a term's number */
    uint32_t load_blocks, fetch_blocks, near_blocks, held_blocks;
    uint32_t text_at, text_bytes; /* its sentence, of the text */
    double hit_tokens, queue_s, slot_s, latency_s, data_s, fetch_s, prefill_s, done_s, ttft_s,
        score_s;
};
static_assert(sizeof(struct wf_routing_term) == 176, "wire format");

struct wf_routing_answer {
    struct wf_message message;
    uint32_t candidates, others; /* terms: others are sources alone */
    uint32_t chosen;             /* UINT32_MAX: nobody serves */
    uint32_t text_bytes;
    uint64_t took_ns;
    struct wf_routing_term terms[]; /* the text behind them */
};

/* A client found that a block's bytes do not match its checksum. */
struct wf_corrupt {
    struct wf_message message;
    uint32_t slot, generation;
};

/* ------------------------------------------------------------------------------------- regions */

struct wf_region_create {
    struct wf_message message;
    uint64_t size;
    uint32_t latency, share;
    char name[WF_NAME_BYTES]; /* zero-terminated; "" for a private one */
};

struct wf_region_open {
    struct wf_message message;
    char name[WF_NAME_BYTES];
};

/* With one descriptor. */
struct wf_region_answer {
    struct wf_message message;
    uint64_t region, size;
    uint32_t writable, latency;
};

struct wf_region_release {
    struct wf_message message;
    uint64_t region;
};

/* ----------------------------------------------------------------------------- lend, ask, tell */

struct wf_lend {
    struct wf_message message;
    uint64_t size;
    uint32_t within_ms, reserved;
};

struct wf_query {
    struct wf_message message;
    char what[104];
    uint64_t cursor;
};

/* Text follows: JSON for QUERY, a sentence after a status < 0.  Not zero-terminated. */
struct wf_text_answer {
    struct wf_message message;
    char text[];
};

#endif
