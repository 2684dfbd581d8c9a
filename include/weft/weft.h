/* SPDX-License-Identifier: Apache-2.0
 *
 * Weft: a memory fabric for LLM inference.  This header is the whole contract of libweft.
 *
 * What to know before anything else:
 *
 *   - A *block* is the KV cache of `block_tokens` tokens for all layers.  It has a 32-byte *key*
 *     that names its content and, through its parent, everything before it.  Once committed it
 *     never changes.
 *   - A *pin* is a hold on a block.  The memory behind a pin stays where it is, with the bytes that
 *     it had, until weft_unpin().  A pointer without a pin is worth nothing.  Pinning and unpinning
 *     make no system call and do not talk to the node.
 *   - A handle belongs to the process that made it: after fork(), the child calls weft_connect()
 *     itself.  Any thread may use a `struct weft`, `struct weft_format` or `struct weft_region`.  A
 *     `struct weft_session` and what came out of it (match, pins, fill) is for one thread at a
 *     time.
 *   - When the node goes away, calls answer WEFT_E_NODE.  Each call tries to reach it again, so the
 *     first one after it is back succeeds (but for 50 ms after one that waited timeout_ms in vain);
 *     handles stay good and are registered anew.  Pins taken before stay readable until they are
 *     given back; nothing from before is ever answered as a hit.
 *   - Pointers must not be NULL unless it says that they may.  What gives something back (close,
 *     release, unpin, abort) takes NULL, and what was given back already, as nothing to do.
 *   - WEFT_E_NODE also means that a node did not answer within timeout_ms: nothing is known of it
 *     then.  Its answer is not waited for any more, so what was reserved and not committed is lost.
 *   - libweft never prints, aborts or exits.  Every failure leaves one sentence in
 *     weft_last_error().
 *   - Sizes are bytes unless a name says otherwise; times are named with their unit; strings are
 *     UTF-8.
 *
 * This is the sequence for one request (examples/tinyllm is a whole engine built on it):
 *
 *     weft_connect → weft_format_open → weft_session_open
 *     weft_match → weft_get → weft_k, weft_v … → weft_unpin
 *     weft_reserve → weft_fill_k, weft_fill_v … → weft_commit
 *     weft_session_hint
 */
#ifndef WEFT_WEFT_H
#define WEFT_WEFT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WEFT_VERSION_MAJOR 0
#define WEFT_VERSION_MINOR 1
#define WEFT_VERSION_PATCH 0

#if defined(__GNUC__)
#define WEFT_API __attribute__((visibility("default")))
#define WEFT_CHECKED __attribute__((warn_unused_result))
#else
#define WEFT_API
#define WEFT_CHECKED
#endif

/* -------------------------------------------------------------------------------------- status */

/* 0 is success; > 0 is an answer, not an error; < 0 is an error, grouped by what is lost. */
enum weft_status {
    WEFT_OK = 0,
    WEFT_MISS = 1,    /* not there, or a doubt about it */
    WEFT_PENDING = 2, /* not there yet */
    WEFT_EXISTS = 3,  /* someone has committed it already */
    WEFT_FULL = 4,    /* no room now: what could go is in use, worth more, or due to others */

    /* this request is lost */
    WEFT_E_INVALID = -1,   /* an argument is wrong */
    WEFT_E_NOT_FOUND = -2, /* no such name */
    WEFT_E_QUOTA = -3,     /* the domain's quota does not allow it */
    WEFT_E_DENIED = -4,    /* the node does not allow it to this user or domain */
    WEFT_E_LIMIT = -5,     /* a stated cap is reached (pins, batch, sessions, name length …) */
    WEFT_E_TIMEOUT = -6,   /* it took longer than was allowed */
    WEFT_E_NO_MEMORY = -7, /* this process or host is out of memory */
    WEFT_E_BUSY = -8,      /* in use in a way that excludes this */

    /* this block is lost */
    WEFT_E_CORRUPT = -20, /* not what its checksum says: dropped, reported, never handed out */
    WEFT_E_PARENT = -21,  /* the block's parent is not committed, so the block cannot be */

    /* the peer is lost */
    WEFT_E_PROTOCOL = -40, /* the other side speaks another version, or nonsense */

    /* the node is lost */
    WEFT_E_NODE = -60,   /* no weftd answers */
    WEFT_E_SYSTEM = -61, /* the operating system refused something that we need */
    WEFT_E_FORKED = -62, /* the handle was made before fork() */
};

/* "WEFT_E_QUOTA" and the like; a static string, also for values that are none. */
WEFT_API const char *weft_status_name(enum weft_status status);

/* What went wrong last in this thread, in one sentence: the thing, the value, the mend.  Never
 * NULL; valid until this thread's next failing call.  Only meaningful after a call that returned
 * < 0 or WEFT_FULL. */
WEFT_API const char *weft_last_error(void);

/* "0.1.0", of the library that is running, which may be newer than the header. */
WEFT_API const char *weft_version(void);

/* ---------------------------------------------------------------------------------- connection */

struct weft;

struct weft_connect_options {
    const char *socket;  /* path; NULL: $WEFT_SOCKET, else this user's node, else the
                             host's (weftd(8)) */
    const char *domain;  /* NULL: $WEFT_DOMAIN, else "default" */
    const char *token;   /* the domain's token; NULL: $WEFT_TOKEN, else none */
    uint32_t timeout_ms; /* for one exchange with the node; 0: 5000 */
};

/* Attach to a node.  `options` may be NULL: this machine's node, its default domain.  On success
 * *out must be given to weft_close().  Errors: WEFT_E_NODE, WEFT_E_DENIED, WEFT_E_NOT_FOUND
 * (domain), WEFT_E_PROTOCOL, WEFT_E_SYSTEM. */
WEFT_CHECKED WEFT_API enum weft_status weft_connect(const struct weft_connect_options *options,
                                                    struct weft **out);

/* Detach: every pin, reservation, session and private region of this handle is given back.  All
 * other handles made from it must be closed before.  NULL is allowed. */
WEFT_API void weft_close(struct weft *w);

/* -------------------------------------------------------------------------------------- format */

enum weft_dtype {
    WEFT_F32 = 1,
    WEFT_F16 = 2,
    WEFT_BF16 = 3,
    WEFT_FP8_E4M3 = 4,
    WEFT_FP8_E5M2 = 5,
    WEFT_INT8 = 6,
};

/* Bytes of one element; 0 for a value that is no dtype. */
WEFT_API size_t weft_dtype_bytes(enum weft_dtype dtype);

/* How exactly KV comes back from below DRAM, where it may be compressed with loss.  A domain has a
 * quality (weftd.yaml(5)), and a format may ask for a better one; the node has the codec and its
 * setting from the profile of the format's model, and stores losslessly what it has none for.  What
 * never left DRAM is as it was put, whatever the quality. */
enum weft_quality {
    WEFT_QUALITY_DEFAULT = 0, /* as the domain has it */
    WEFT_LOSSLESS = 1,        /* bit for bit */
    WEFT_TRANSPARENT = 2,     /* the model's answers differ by no more than a bound on KL */
    WEFT_ECONOMY = 3,         /* perplexity may grow by a percentage */
};

/* "lossless", "transparent", "economy"; "default"; a static string, also for values that are none.
 */
WEFT_API const char *weft_quality_name(enum weft_quality quality);

#define WEFT_ROPE_THETA_NONE 0.0

/* A model's KV layout.  Every field but the last is part of every key: two engines share a block
 * only if all agree. */
struct weft_format_spec {
    const char *model; /* name and revision, "llama-3-8b@<digest of the weights>"; 1 to 512
                          bytes of UTF-8 without control characters */
    uint32_t layers;   /* 1 … 1024 */
    uint32_t kv_heads; /* per rank; 1 … 4096 */
    uint32_t head_dim; /* elements; 1 … 4096 */
    enum weft_dtype dtype;
    uint32_t block_tokens;     /* 1 … 65536 */
    uint32_t tp_rank, tp_size; /* 0, 0 means rank 0 of 1 */
    double rope_theta;         /* WEFT_ROPE_THETA_NONE: positions are not rotary */
    const char *rope_scaling;  /* the model's own description of it, up to 4096 bytes; NULL */
    const void *adapter;       /* LoRA or the like: a digest of its weights; NULL: none */
    size_t adapter_bytes;      /* 0 … 256 */
    const void *salt;          /* shared only with who gives the same; NULL: none */
    size_t salt_bytes;         /* 0 … 256 */
    uint64_t block_bytes; /* 0: 2 × layers × block_tokens × kv_heads × head_dim × dtype.  Otherwise
                             the size of an engine's own opaque payload: then weft_k and weft_v
                             answer NULL. */
    /* No part of a key, but for this: who asks for better than the domain has is not answered with
     * what others stored there, and has keys of its own.  Who asks for the same or worse has the
     * domain's. */
    enum weft_quality quality;
};

struct weft_format;

/* Register a layout with the node, which derives the root key from the domain's secret.  *out is
 * for weft_format_close(), after the sessions made from it.  Errors: WEFT_E_INVALID names the
 * field. */
WEFT_CHECKED WEFT_API enum weft_status
weft_format_open(struct weft *w, const struct weft_format_spec *spec, struct weft_format **out);
WEFT_API void weft_format_close(struct weft_format *f);

/* Payload bytes of one block, and of one layer's K (or V) inside it. */
WEFT_API size_t weft_format_block_bytes(const struct weft_format *f);
WEFT_API size_t weft_format_layer_bytes(const struct weft_format *f);

/* The quality at which its blocks are stored, and at least which they are answered: the domain's,
 * or a better one that was asked for.  Never WEFT_QUALITY_DEFAULT. */
WEFT_API enum weft_quality weft_format_quality(const struct weft_format *f);

/* ---------------------------------------------------------------------------------------- keys */

struct weft_key {
    uint8_t bytes[32];
};

/* The keys of the full blocks of `tokens`, after `parent` (NULL: the format's root).  `extra`, when
 * not NULL, holds one 32-byte digest a block for what is not tokens (images …); a digest of zeros
 * means none.  Writes token_count / block_tokens keys to `out`.  docs/IDENTITY.md has the
 * derivation and test vectors. */
WEFT_CHECKED WEFT_API enum weft_status
weft_keys_from_tokens(struct weft_format *f, const struct weft_key *parent, const uint32_t *tokens,
                      size_t token_count, const struct weft_key *extra, struct weft_key *out);

/* The key for an identity that an engine derived by itself: `bytes` must name the content in full.
 * 1 to 4096 bytes. */
WEFT_CHECKED WEFT_API enum weft_status weft_key_from_bytes(struct weft_format *f, const void *bytes,
                                                           size_t length, struct weft_key *out);

/* How many of a chain's keys, from the first, are present now, in DRAM or on a tier below; O(log
 * count) probes of shared memory, no system call.  A count, not a hold: weft_get_keys what you mean
 * to read. */
WEFT_CHECKED WEFT_API enum weft_status weft_match_keys(struct weft_format *f,
                                                       const struct weft_key *chain, size_t count,
                                                       size_t *out_present);

/* The same, and what of the chain this node does not know of is asked of others first, where nodes
 * keep a directory in parts (docs/CLUSTER.md): what somebody has counts as present then.  It takes
 * calls to the node, unlike weft_match_keys, and up to within_ms.  WEFT_OK: that is all that there
 * is.  WEFT_PENDING: it is still being asked about, and *out_present is what is known so far; so it
 * is, as a rule, with within_ms 0, which asks and does not wait. */
WEFT_CHECKED WEFT_API enum weft_status weft_find_keys(struct weft_format *f,
                                                      const struct weft_key *chain, size_t count,
                                                      uint32_t within_ms, size_t *out_present);

/* As weft_match_keys, and where each of them is: `out_tiers` of `count` gets an enum weft_tier for
 * every block that is present, and *out_load_us what it would take to have all of them in DRAM, as
 * modelled from what was measured (0: all are there).  O(present).  It is a look, and not
 * counted as a match in the node's hit rate. */
WEFT_CHECKED WEFT_API enum weft_status weft_locate_keys(struct weft_format *f,
                                                        const struct weft_key *chain, size_t count,
                                                        uint8_t *out_tiers, size_t *out_present,
                                                        uint32_t *out_load_us);

/* The worst quality among a chain's keys that are there, from the first, wherever they are:
 * WEFT_LOSSLESS when all of them, or none, are bit for bit what was put.  O(count), and one load
 * where nothing was ever stored with loss. */
WEFT_CHECKED WEFT_API enum weft_status weft_quality_keys(struct weft_format *f,
                                                         const struct weft_key *chain, size_t count,
                                                         enum weft_quality *out_worst);

/* ----------------------------------------------------------------------------- vLLM's own names */

/* What vLLM hashes into a block besides its tokens. */
enum weft_vllm_extra_kind {
    WEFT_VLLM_LORA = 1,   /* an adapter's name in `text`, its path in `path` */
    WEFT_VLLM_MM = 2,     /* an image's or the like identifier in `text`, and `offset` */
    WEFT_VLLM_SALT = 3,   /* a request's cache_salt in `text`; vLLM puts it into block 0 only */
    WEFT_VLLM_EMBEDS = 4, /* `text` is the SHA-256 of the block's prompt embeddings, 32 bytes */
};

struct weft_vllm_extra {
    enum weft_vllm_extra_kind kind;
    uint32_t block;   /* of these tokens, from 0 */
    const char *text; /* UTF-8 without an end, up to 1 MiB */
    size_t bytes;
    const char *path;
    size_t path_bytes;
    int64_t offset; /* of the image's first token from the block's first; negative: before it */
};

/* The hash before a first block's (vLLM's NONE_HASH).  `seed` is its PYTHONHASHSEED; NULL: that is
 * not set.  Needs no node. */
WEFT_API void weft_vllm_root(const char *seed, struct weft_key *out);

/* The hashes of the full blocks of `tokens` after `parent` (NULL: the root without a seed) that
 * vLLM makes with --prefix-caching-hash-algo sha256_cbor: token_count / block_tokens of them go to
 * `out`.  `extras` come in the order of their blocks, and within one in vLLM's: LoRA, images, salt,
 * embeddings; NULL with a count of 0: none.  What it answers is an engine's identity, of which
 * weft_key_from_bytes makes the key of a block.  Needs no node.  docs/vectors/vllm.json has test
 * vectors. */
WEFT_CHECKED WEFT_API enum weft_status weft_vllm_hashes(const struct weft_key *parent,
                                                        const uint32_t *tokens, size_t token_count,
                                                        uint32_t block_tokens,
                                                        const struct weft_vllm_extra *extras,
                                                        size_t extra_count, struct weft_key *out);

/* ------------------------------------------------------------------------------- pin one block */

/* One held block.  Fields are for reading. */
struct weft_pin {
    const void *data; /* block_bytes of payload, immutable, readable until weft_unpin */
    uint64_t bytes;
    uint64_t checksum; /* XXH3-64 of the payload when the node has taken it; 0: not yet */
    struct weft *weft; /* private */
    void *attachment;  /* private */
    uint32_t slot, entry, generation; /* private */
};

/* Hold the block named `key`, if it is in DRAM with this format's size.  WEFT_OK or WEFT_MISS, also
 * when it is on a tier below (weft_get_keys brings it up); WEFT_E_LIMIT when this process holds as
 * many pins as it may; WEFT_E_NODE. */
WEFT_CHECKED WEFT_API enum weft_status weft_pin(struct weft_format *f, const struct weft_key *key,
                                                struct weft_pin *out);

/* Give it back; *pin is cleared.  A cleared pin is allowed. */
WEFT_API void weft_unpin(struct weft_pin *pin);

/* How exactly a held block is what was put.  Of one that is on its way from below: once it is there
 * (weft_wait_block). */
WEFT_API enum weft_quality weft_pin_quality(const struct weft_pin *pin);

/* Copy a held block out and check the copy against the block's checksum, computing the checksum
 * from the pool when the node has not taken it yet.  WEFT_E_CORRUPT: `destination` is zeroed and
 * the node is told. */
WEFT_CHECKED WEFT_API enum weft_status weft_pin_read(const struct weft_pin *pin, void *destination,
                                                     size_t bytes);

/* --------------------------------------------------------------------------- put blocks by key */

/* One block that is being put. */
struct weft_slot {
    enum weft_status status; /* WEFT_OK: fill `data`.  WEFT_EXISTS: nothing to do.  WEFT_FULL */
    void *data;              /* block_bytes to write, until weft_commit_slots or weft_abort_slots */
    uint32_t slot, generation; /* private */
    uint64_t place, epoch;     /* private */
};

#define WEFT_BATCH_MAX 512

enum weft_reserve_flags {
    WEFT_CHAINED = 1, /* keys[i] is the parent of keys[i + 1]; without it all extend `parent` */
    WEFT_INSIST = 2,  /* somebody wants these for certain: also what is worth more goes for them */
    /* What is put lost something already, elsewhere: it is matched, and stored, as of that quality,
     * which must be no worse than the format's.  One of them, or none: it is exact. */
    WEFT_LOST_TRANSPARENT = 4,
    WEFT_LOST_ECONOMY = 8,
};

/* Ask room for up to WEFT_BATCH_MAX blocks.  `parent` NULL: the keys are first in their chain.
 * Answers per block in `slots`; WEFT_OK overall unless the request as a whole was refused.  A
 * parent that is neither present nor reserved by this call: WEFT_E_PARENT.  What is reserved and
 * present as EXISTS is held until commit or abort. */
WEFT_CHECKED WEFT_API enum weft_status weft_reserve_keys(struct weft_format *f,
                                                         const struct weft_key *parent,
                                                         const struct weft_key *keys, size_t count,
                                                         uint32_t flags, struct weft_slot *slots);

/* Publish those of `slots` that are WEFT_OK, in order; the others are let go.  Each slot's status
 * becomes WEFT_OK, WEFT_EXISTS (someone was faster: yours was discarded, theirs serves),
 * WEFT_E_PARENT or WEFT_E_CORRUPT. */
WEFT_CHECKED WEFT_API enum weft_status weft_commit_slots(struct weft_format *f,
                                                         struct weft_slot *slots, size_t count);

/* Give reservations back unpublished. */
WEFT_API void weft_abort_slots(struct weft_format *f, struct weft_slot *slots, size_t count);

/* Drop a block and everything that extends it.  WEFT_E_BUSY when one is pinned, in use or part of
 * an archive, or a tier has not forgotten yet what was dropped before: nothing is dropped. */
WEFT_CHECKED WEFT_API enum weft_status weft_remove(struct weft_format *f,
                                                   const struct weft_key *key, size_t *out_removed);

/* The same on all nodes of the cluster that are there, waiting up to timeout_ms (0: not at all)
 * until none of them has the block.  WEFT_OK: it was here, and is nowhere now; WEFT_MISS: it was
 * not here, and is nowhere now.  WEFT_E_BUSY: as above, and then nothing is dropped anywhere, or
 * another node has it still, where it is in use or archived: what extends it in memory that is lent
 * goes even so.  *out_removed counts blocks of this node.  A node that is away keeps what it has.
 */
WEFT_CHECKED WEFT_API enum weft_status weft_remove_everywhere(struct weft_format *f,
                                                              const struct weft_key *key,
                                                              int timeout_ms, size_t *out_removed);

/* As weft_remove(), for up to WEFT_BATCH_MAX keys in one message, each by itself: out_statuses[i]
 * becomes WEFT_OK, WEFT_MISS or WEFT_E_BUSY, as weft_remove() has it, but what is in the way of one
 * of several is not waited for. */
WEFT_CHECKED WEFT_API enum weft_status weft_remove_keys(struct weft_format *f,
                                                        const struct weft_key *keys, size_t count,
                                                        enum weft_status *out_statuses);

/* ------------------------------------------------------------------------------------- routing */

#define WEFT_NODE_NAME_MAX 63         /* bytes of a node's name */
#define WEFT_ROUTE_CANDIDATES_MAX 256 /* in one question */
#define WEFT_ROUTE_WHY_MAX 192

/* A node that a request may run on, and how its engine is. */
struct weft_candidate {
    const char *node;            /* its name, as `weft fabric` lists it */
    int loaded;                  /* the rest says how it is; 0: what was said of it last counts */
    double age_s;                /* so old is what it says; 0: now */
    double queued_tokens;        /* prefill that waits, and what is left of what runs */
    double tokens_s;             /* prefill; 0: not known */
    uint32_t running, batch_max; /* decodes, and how many there may be; batch_max 0: no limit */
    double decode_s;             /* a request's decoding takes so long as a rule */
    int closed;                  /* it takes nothing new */
};

enum weft_route_flags {
    WEFT_ROUTE_ASK = 1, /* only asked: the request is not sent there, and nothing is remembered */
    WEFT_ROUTE_WHY = 2, /* a sentence for every candidate that it finds room for, not for the
                           chosen one alone */
};

/* All is borrowed for the call. */
struct weft_route_question {
    const struct weft_key *keys; /* of the prompt's full blocks, a chain; NULL with count 0 */
    size_t count;
    double tokens;        /* of the prompt; 0: those of the full blocks */
    double output_tokens; /* expected; 0: not known */
    const struct weft_candidate *candidates;
    size_t candidate_count; /* 0: every node that is there */
    uint64_t id;            /* of the request: decides between equals */
    uint32_t flags;
};

enum weft_route_action {
    WEFT_ROUTE_LOCAL = 0,     /* it runs on what the node has */
    WEFT_ROUTE_FETCH = 1,     /* and on what that fetches from another */
    WEFT_ROUTE_RECOMPUTE = 2, /* all is computed */
    WEFT_ROUTE_CLOSED = 3,    /* the node serves nothing */
};

/* "local", "fetch", "recompute", "closed"; a static string, also for values that are none. */
WEFT_API const char *weft_route_action_name(enum weft_route_action action);

/* What is expected of one candidate.  Times are seconds, and INFINITY where it serves nothing. */
struct weft_route_term {
    char node[WEFT_NODE_NAME_MAX + 1];
    enum weft_route_action action;
    char source[WEFT_NODE_NAME_MAX + 1]; /* WEFT_ROUTE_FETCH: from there, or "several nodes", of
                                             which none has all; else "" */
    uint32_t held_blocks;                /* that it has itself, from the first on */
    uint32_t load_blocks;                /* that are not computed, from the first on; */
    uint32_t fetch_blocks;               /* of these, from the source */
    double hit_tokens;                   /* that are not computed */
    double queue_s;    /* behind others, for prefill and for a place in the batch */
    double transfer_s; /* of what is loaded, from arrival, if nothing else were done */
    double compute_s;  /* prefill of the rest */
    double ttft_s;     /* until the first token: the three, as far as they do not overlap */
    double score_s;    /* least is chosen: ttft_s, and what its compute takes from others */
    char why[WEFT_ROUTE_WHY_MAX]; /* a sentence without a full stop; "": see WEFT_ROUTE_WHY */
};

struct weft_routed {
    struct weft_route_term term; /* of the chosen one */
    size_t candidates;           /* that there are */
    size_t chosen;               /* which of them it is; SIZE_MAX: nobody serves */
    uint32_t stride;             /* every so many-th key was sent; 1: all of them */
    uint32_t took_us;            /* of the node */
};

/* Where a request should run: on the node with the least modelled time to its first token, of
 * queue, transfer and prefill, so that neither affinity makes a hot spot of one node nor balance
 * computes what lies elsewhere.  One exchange with this machine's node, which answers in
 * microseconds from what it knows of the others; no other is asked.
 *
 * The request is taken to go there, with WEFT_ROUTE_ASK it is not: until a later word of that
 * node's load its queue is that much longer for who asks next in this domain, and the chain's
 * blocks are expected there.
 *
 * out_terms (may be NULL) gets up to terms_max of the candidates, in the order in which they were
 * given; `out` all but those.  Of a chain of more than 1024 blocks every second, fourth, … key is
 * sent, and counts are in steps of that.  WEFT_MISS: no candidate serves.  WEFT_E_LIMIT: more than
 * WEFT_ROUTE_CANDIDATES_MAX.  WEFT_E_INVALID: a number that is none, or a name too long. */
WEFT_CHECKED WEFT_API enum weft_status
weft_route(struct weft_format *f, const struct weft_route_question *question,
           struct weft_routed *out, struct weft_route_term *out_terms, size_t terms_max);

/* ------------------------------------------------------------------------- what keys stand for */

#define WEFT_ENGINE_HASH_MAX 64
#define WEFT_LORA_NAME_MAX 255

/* Keys of one chain, as the engine calls them.  All is borrowed for the call. */
struct weft_description {
    const void *hashes; /* one a key, of hash_bytes each: 1 to WEFT_ENGINE_HASH_MAX */
    size_t hash_bytes;
    const void *parent_hash; /* of what the first extends; NULL: it begins a prompt */
    const uint32_t *tokens;  /* count × block_tokens; NULL: not known, and not told of */
    const char *lora_name;   /* the adapter; NULL: none */
};

/* Say what keys stand for, so that the node can tell of their blocks in KV events (`kv_events` in
 * its configuration) when they come, move between tiers and go.  At any time: before they are put,
 * after it, or for what others put.  *out_taken (may be NULL): how many of them, from the first,
 * the node took; 0 and WEFT_OK when it tells nobody, fewer than `count` when its table is full.  Of
 * KV that several ranks put, one should describe it. */
WEFT_CHECKED WEFT_API enum weft_status weft_describe(struct weft_format *f,
                                                     const struct weft_key *keys, size_t count,
                                                     const struct weft_description *what,
                                                     size_t *out_taken);

/* ------------------------------------------------------------------------------------ sessions */

enum weft_session_state {
    WEFT_PREFILL = 1,  /* computing a prompt: its chain is not evicted */
    WEFT_DECODING = 2, /* generating: its chain is not evicted */
    WEFT_IDLE = 3,     /* between turns */
    WEFT_WAITING = 4,  /* a tool runs; returns_in_ms says for how long: its chain is written below,
                          may leave DRAM, and is brought back before it is due */
    WEFT_DONE = 5,     /* will not come back */
};

struct weft_session_spec {
    const char *name; /* for people and logs, up to 64 bytes; NULL: none */
    /* 0 (background) … 9 (most urgent); 5 is usual.  Reads of a more urgent one go first,
     * and what its chain is worth when room is needed is weighed by it, twice as much a step. */
    uint32_t priority;
    const void *salt;  /* further restricts sharing, on top of the format's salt; NULL: none */
    size_t salt_bytes; /* 0 … 256 */
};

struct weft_hint {
    uint32_t returns_in_ms; /* WEFT_WAITING and WEFT_IDLE: when it is expected back; 0: unknown */
    uint32_t deadline_ms;   /* the next first token is due in; 0: none.  While that is near, its
                             * domain keeps longer what it has borrowed of others */
    uint32_t output_tokens; /* that the request made which just ended; 0: not said */
    /* The last block of its chain, for who makes keys itself; NULL: what it matched or committed
     * last.  Read during the call. */
    const struct weft_key *tip;
};

struct weft_session;

/* `spec` may be NULL: no name, priority 5.  A session starts in state WEFT_IDLE with an empty
 * chain. */
WEFT_CHECKED WEFT_API enum weft_status weft_session_open(struct weft_format *f,
                                                         const struct weft_session_spec *spec,
                                                         struct weft_session **out);
WEFT_API void weft_session_close(struct weft_session *s);

/* A second session with the same chain so far.  Costs one message; no block is copied. */
WEFT_CHECKED WEFT_API enum weft_status weft_session_fork(struct weft_session *s,
                                                         const struct weft_session_spec *spec,
                                                         struct weft_session **out);

/* Tell the node what the session does now.  `hint` may be NULL.  What goes next when room is needed
 * is judged by it, too: that a session waits or says when it will be back speaks for its chain,
 * WEFT_DONE against it, as far as such hints were right before. */
WEFT_CHECKED WEFT_API enum weft_status weft_session_hint(struct weft_session *s,
                                                         enum weft_session_state state,
                                                         const struct weft_hint *hint);

/* The node's number for it, as `weft ls sessions` shows. */
WEFT_API uint64_t weft_session_id(const struct weft_session *s);

/* ------------------------------------------------------------------------- match, get, reserve */

enum weft_tier {
    WEFT_TIER_DRAM = 0,
    WEFT_TIER_CXL = 1,    /* CXL memory, another far NUMA node, memory beyond the pool */
    WEFT_TIER_NVME = 2,   /* a file or block device */
    WEFT_TIER_S3 = 3,     /* an object store */
    WEFT_TIER_REMOTE = 4, /* another node's memory */
};

/* "dram", "cxl", "nvme", "s3", "remote"; a static string, also for values that are none. */
WEFT_API const char *weft_tier_name(enum weft_tier tier);

struct weft_match {
    uint32_t blocks;     /* present, from the first, in DRAM or below */
    uint32_t tokens;     /* blocks × block_tokens */
    uint32_t load_us;    /* modelled time until all are readable, from the measured latency and
                            bandwidth of the tiers they are on; 0: all are in DRAM */
    const uint8_t *tier; /* enum weft_tier a block; borrowed until the session's next weft_match */
    uint64_t epoch;      /* private */
    enum weft_quality quality; /* the worst of these blocks: WEFT_LOSSLESS when all are bit for bit
                                  what was put; never worse than weft_format_quality() */
};

/* The longest prefix of `tokens` that is there.  Never says more than (token_count - 1) /
 * block_tokens blocks: an engine needs the last token computed to have logits.  No system call in
 * the usual case. */
WEFT_CHECKED WEFT_API enum weft_status weft_match(struct weft_session *s, const uint32_t *tokens,
                                                  size_t token_count, struct weft_match *out);

enum weft_order {
    WEFT_LAYER_ORDER = 0, /* layer 0 of every block first */
    WEFT_BLOCK_ORDER = 1, /* whole blocks, first to last */
};

struct weft_pins {
    uint32_t blocks; /* held; ≤ match.blocks when some went in between */
    uint32_t tokens;
    uint32_t loading;     /* blocks from this one on may still be on their way from a tier below;
                             = blocks: all are readable now */
    size_t layer_bytes;   /* K (or V) of one layer in one block */
    const uint8_t **data; /* per block: payload; layer i's K at 2 i × layer_bytes, then its V */
    struct weft_format *format; /* private */
    struct weft_pin *pins;      /* per block, for weft_pin_read; weft_pins_release unpins them */
};

/* Hold what was matched.  Returns at once: blocks in DRAM are readable, those on tiers below have
 * begun to come up, in `order`; before reading a block with a number from pins.loading on, wait for
 * the layer (weft_wait_layer) or for the whole block (weft_wait_block).  A later weft_get on the
 * same session is independent.  *out is for weft_pins_release(). */
WEFT_CHECKED WEFT_API enum weft_status weft_get(struct weft_session *s, const struct weft_match *m,
                                                enum weft_order order, struct weft_pins *out);

/* The same for a chain of keys: holds the longest prefix that is there, which may be none. */
WEFT_CHECKED WEFT_API enum weft_status weft_get_keys(struct weft_format *f,
                                                     const struct weft_key *chain, size_t count,
                                                     enum weft_order order, struct weft_pins *out);

/* Wait until `layer` of every held block is readable; for an opaque payload, until every block is.
 * WEFT_MISS: one could not be brought up after all (its copy below was damaged, the device failed,
 * or it has lost more than this format allows, as keys of another format's may): none of its bytes
 * may be used; release the pins and compute from there, or match again.
 * WEFT_E_TIMEOUT: not within the connection's timeout_ms; it may be waited for again.
 * WEFT_E_NODE.  WEFT_E_INVALID: there is no such layer. */
WEFT_CHECKED WEFT_API enum weft_status weft_wait_layer(const struct weft_pins *pins,
                                                       uint32_t layer);

/* Wait until all of one held block is readable; otherwise as weft_wait_layer. */
WEFT_CHECKED WEFT_API enum weft_status weft_wait_block(const struct weft_pins *pins,
                                                       uint32_t block);

WEFT_API void weft_pins_release(struct weft_pins *pins);

/* [block_tokens][kv_heads][head_dim] of `dtype`, in the pool itself: no copy was made. */
static inline const void *weft_k(const struct weft_pins *pins, uint32_t block, uint32_t layer)
{
    return pins->layer_bytes ? pins->data[block] + 2 * (size_t)layer * pins->layer_bytes : NULL;
}

static inline const void *weft_v(const struct weft_pins *pins, uint32_t block, uint32_t layer)
{
    return pins->layer_bytes ? pins->data[block] + (2 * (size_t)layer + 1) * pins->layer_bytes
                             : NULL;
}

/* Bring a chain up before it is asked for: what of it is on a tier below is read into DRAM, to be
 * there in `within_ms` (0: as soon as nothing more urgent is to do).  Returns at once, also when
 * others are to be written below before there is room: the node goes on as they leave.
 * *out_blocks (may be NULL) is how many blocks are in DRAM, on their way, or have room made for
 * them; for what is behind there is none, since what could go is in use or no tier takes it. */
WEFT_CHECKED WEFT_API enum weft_status weft_prefetch(struct weft_session *s, const uint32_t *tokens,
                                                     size_t token_count, uint32_t within_ms,
                                                     uint32_t *out_blocks);
WEFT_CHECKED WEFT_API enum weft_status weft_prefetch_keys(struct weft_format *f,
                                                          const struct weft_key *chain,
                                                          size_t count, uint32_t within_ms,
                                                          uint32_t *out_blocks);

/* Move the session's chain below DRAM now: what is not on a tier yet is written there, and what
 * nobody else extends or holds leaves DRAM.  WEFT_PENDING, with a sentence: some of it could
 * not leave (a session that is decoding holds it, it is pinned, shared, or the tier is full).
 * WEFT_E_INVALID: the node has no tier. */
WEFT_CHECKED WEFT_API enum weft_status weft_demote(struct weft_session *s);

/* --------------------------------------------------------------------------------- archives */

struct weft_archived {
    uint32_t blocks;  /* in the chain */
    uint32_t written; /* of them now: the others were on the tier already */
    uint64_t bytes;   /* payload of the whole chain */
    char name[65];    /* of the archive */
    char tier[32];    /* where its manifest lies, and what was written now; "" before that is known;
                         the query "archive NAME" says which tiers hold the rest */
};

/* Make the session's chain durable: WEFT_OK says that every block of it, from the first to the
 * last that was matched or committed, is on a tier that outlives the machine's power and may hold
 * archives, was flushed there, and what was written was read back and compared.  It survives a
 * restart and is never evicted from there until weft_archive_remove().  Its name is the session's,
 * or "session-" and 16 digits of its last key.  An archive of that name is replaced, and is there
 * until the new one is durable.  What is archived already costs nothing.
 *
 * `out` may be NULL; it is set with every status that is not an error.  WEFT_PENDING: it takes
 * longer than timeout_ms and goes on without you; call again to hear how it ends.  WEFT_FULL: the
 * tier has no room for it, or the domain's part of it, by quotas, is taken.  WEFT_E_INVALID: the
 * node has no tier that may hold archives, or the session has no chain.  WEFT_E_NOT_FOUND: some of
 * the chain is not there any more.  WEFT_E_BUSY: one of that name, of another chain, is being made.
 * WEFT_E_LIMIT, WEFT_E_CORRUPT (the device does not give back what it was given), WEFT_E_SYSTEM,
 * WEFT_E_NODE. */
WEFT_CHECKED WEFT_API enum weft_status weft_archive(struct weft_session *s, uint32_t timeout_ms,
                                                    struct weft_archived *out);

/* The same for the chain that ends with `tip`, under a name of 1 to 64 bytes. */
WEFT_CHECKED WEFT_API enum weft_status weft_archive_keys(struct weft_format *f, const char *name,
                                                         const struct weft_key *tip,
                                                         uint32_t timeout_ms,
                                                         struct weft_archived *out);

/* Its blocks are ordinary ones again: they stay until something else needs the room.  WEFT_OK says
 * that the archive is gone for good: what named it was removed and its tier flushed (a tier of kind
 * s3 may still find it again when its node is killed, until it rewrites the object).  WEFT_PENDING:
 * that takes longer than the connection's timeout_ms and goes on; call again to hear how it ends.
 * WEFT_E_NOT_FOUND; WEFT_E_BUSY: it is being made; WEFT_E_SYSTEM: the tier does not work.  The
 * sentence says which: the archive stays, for the tier had failed before; or it is none any more,
 * and what names it is removed when the tier is back, but a node that starts anew before that has
 * it again. */
WEFT_CHECKED WEFT_API enum weft_status weft_archive_remove(struct weft *w, const char *name);

/* --------------------------------------------------------------------------------------- fill */

struct weft_fill {
    uint32_t blocks;      /* asked for */
    uint32_t reserved;    /* to be written */
    uint32_t existing;    /* there already: deduplicated */
    uint32_t full;        /* no room: not stored, and neither is what follows */
    uint32_t first_block; /* index in the chain of blocks[0] */
    size_t layer_bytes;
    struct weft_slot *slots;      /* per block; [blocks] */
    struct weft_session *session; /* private */
};

/* Room for the full blocks of tokens[from_token … token_count), where from_token is a multiple of
 * block_tokens (usually match.tokens) and `tokens` starts at the beginning of the chain.  WEFT_OK
 * even when some or all blocks exist or are full: look at the counts.  WEFT_E_PARENT: the block
 * before from_token is not there any more (it was evicted after the match; a pin on it keeps it):
 * match again.  On success *out must go to weft_commit or weft_abort. */
WEFT_CHECKED WEFT_API enum weft_status weft_reserve(struct weft_session *s, const uint32_t *tokens,
                                                    size_t from_token, size_t token_count,
                                                    struct weft_fill *out);

/* Where to write K and V of `layer` in fill block `block`; NULL when that block is not to be
 * written. */
static inline void *weft_fill_k(const struct weft_fill *fill, uint32_t block, uint32_t layer)
{
    const struct weft_slot *slot = &fill->slots[block];
    return slot->status == WEFT_OK && fill->layer_bytes
               ? (uint8_t *)slot->data + 2 * (size_t)layer * fill->layer_bytes
               : NULL;
}

static inline void *weft_fill_v(const struct weft_fill *fill, uint32_t block, uint32_t layer)
{
    const struct weft_slot *slot = &fill->slots[block];
    return slot->status == WEFT_OK && fill->layer_bytes
               ? (uint8_t *)slot->data + (2 * (size_t)layer + 1) * fill->layer_bytes
               : NULL;
}

/* Publish.  What is committed becomes the session's chain.  Blocks that could not be (WEFT_FULL,
 * WEFT_E_PARENT) are simply not stored.  The fill is released in every case. */
WEFT_CHECKED WEFT_API enum weft_status weft_commit(struct weft_fill *fill);
WEFT_API void weft_abort(struct weft_fill *fill);

/* ------------------------------------------------------------------------------------- regions */

enum weft_latency { WEFT_LATENCY_NORMAL = 0, WEFT_LATENCY_LOW = 1, WEFT_LATENCY_HIGH = 2 };
enum weft_share {
    WEFT_SHARE_PRIVATE = 0,  /* this handle's alone */
    WEFT_SHARE_READ = 1,     /* the creator writes, others map it read-only */
    WEFT_SHARE_COHERENT = 2, /* everyone reads and writes */
};

struct weft_region;

/* Raw memory: "10GB", "512 MiB", "4096".  LOW is populated before the call returns; HIGH may come
 * to lie in slower memory.  `name` lets others of the domain open it and may be NULL for
 * WEFT_SHARE_PRIVATE.  The memory is zero.  It lives until its last holder releases it or dies.
 * Errors: WEFT_E_INVALID (size), WEFT_E_QUOTA, WEFT_FULL, WEFT_E_BUSY (the name is taken). */
WEFT_CHECKED WEFT_API enum weft_status
weft_allocate(struct weft *w, const char *size, enum weft_latency latency, enum weft_share share,
              const char *name, struct weft_region **out_region, void **out_memory);

/* Map a named region.  *out_writable (may be NULL) says whether this mapping may be written. */
WEFT_CHECKED WEFT_API enum weft_status weft_region_open(struct weft *w, const char *name,
                                                        struct weft_region **out_region,
                                                        void **out_memory, int *out_writable);
WEFT_API size_t weft_region_bytes(const struct weft_region *region);
WEFT_API void weft_release(struct weft_region *region);

/* A watched region carries records: one writer publishes, any number of readers in other processes
 * see each record whole, or not at all.  A reader that is slow sees the newest, not every one. */
struct weft_watch;

/* Lay out `region` for records of up to `record_bytes`.  Writer side; the region must be writable
 * here. */
WEFT_CHECKED WEFT_API enum weft_status
weft_watch_create(struct weft_region *region, size_t record_bytes, struct weft_watch **out);
/* Reader side, on any mapping.  WEFT_PENDING: nobody has laid it out yet. */
WEFT_CHECKED WEFT_API enum weft_status weft_watch_open(struct weft_region *region,
                                                       struct weft_watch **out);
WEFT_API void weft_watch_close(struct weft_watch *watch);

/* Publish a record and wake sleeping readers. */
WEFT_CHECKED WEFT_API enum weft_status weft_watch_publish(struct weft_watch *watch,
                                                          const void *record, size_t bytes);

/* The newest record with a sequence number above *sequence (start with 0), copied whole to `record`
 * (capacity bytes).  Spins for spin_us, then sleeps until timeout_ms have passed; both may be 0.
 * WEFT_OK sets *sequence and *out_bytes; WEFT_PENDING when none came. */
WEFT_CHECKED WEFT_API enum weft_status weft_watch_next(struct weft_watch *watch, uint64_t *sequence,
                                                       void *record, size_t capacity,
                                                       size_t *out_bytes, uint32_t spin_us,
                                                       uint32_t timeout_ms);

/* ------------------------------------------------------------------- lend memory, ask the node */

/* Lend `size` of this host's idle memory to the node's DRAM pool ("4GB"); take it back with
 * weft_reclaim, which evicts what it must and answers within `within_ms` with what it got: WEFT_OK
 * (all) or WEFT_PENDING (the rest is pinned, in use, or a domain's floor).  For the node's own user
 * only. */
WEFT_CHECKED WEFT_API enum weft_status weft_lend(struct weft *w, const char *size,
                                                 uint64_t *out_pool_bytes);
WEFT_CHECKED WEFT_API enum weft_status weft_reclaim(struct weft *w, const char *size,
                                                    uint32_t within_ms, uint64_t *out_reclaimed);

/* An operator's word that host number `host` of the shared tier `tier` ("cxl0") is dead: what it
 * had there is this node's from now on, and when it starts again it has nothing there.  Who says so
 * of a host that runs on takes its memory from under it.  WEFT_E_BUSY: it gave a sign of life just
 * now
 * (`force` does it all the same), or a third host does not go on.  WEFT_E_NOT_FOUND: there is no
 * such tier, or that host was never there.  For the node's own user only. */
WEFT_CHECKED WEFT_API enum weft_status weft_fence(struct weft *w, const char *tier, uint32_t host,
                                                  int force);

/* Hand the chain that ends in `tip` over to another node of the cluster, by its name (weft fabric):
 * it fetches what it does not have, beginning at once, so that a decode there finds what a prefill
 * here has made.  May be called again for each block that is committed, and costs what is new.
 * Returns when this node has been told; weft_match() there says what has arrived.  All of the chain
 * must be in this node's DRAM or on its own tiers; what was read back with loss is taken by a node
 * whose domain takes that quality.  WEFT_E_NOT_FOUND: no such node, or no such block;
 * WEFT_E_BUSY: too many chains are on their way; WEFT_E_INVALID: this node is alone.  That the
 * other node is away, drains or does not have the domain is no failure: it is counted, and an
 * event. */
WEFT_CHECKED WEFT_API enum weft_status weft_hand_over(struct weft *w, const struct weft_key *tip,
                                                      const char *node);

/* The same for blocks that are still being written: each layer goes while the next is computed, so
 * that little is left to send when the last is done. */
struct weft_push {
    struct weft *weft; /* private, as are these: */
    uint64_t number, epoch;
    uint32_t layers;
};

/* Blocks among `slots` that are reserved (weft_reserve_keys, or those of a fill) go to `node` while
 * they are written; the others are passed over, and up to WEFT_BATCH_MAX are taken.  `slots` have
 * their parents first.  Layer n of a block is the n-th of format.layers equal parts of its payload.
 *
 * The other node keeps what comes where nobody sees it.  A block is published there when it was
 * committed here and every byte of it came and was right; weft_commit_slots(), weft_commit() or an
 * abort of all of the slots is the push's end, and nothing has to be given back.  What did not come
 * through, for whatever reason, that node is told of when it is committed, as by weft_hand_over().
 * Nothing of this delays a commit, or makes it fail.
 *
 * WEFT_EXISTS: no slot is to be written, so weft_hand_over() is enough.  WEFT_E_NOT_FOUND: no such
 * node.  WEFT_E_BUSY: too many pushes are on their way.  WEFT_E_INVALID: this node is alone, the
 * domain has `writes: copied`, or layers are not equal.  The blocks can be written and committed
 * all the same. */
WEFT_CHECKED WEFT_API enum weft_status weft_push_begin(struct weft_format *f,
                                                       const struct weft_slot *slots, size_t count,
                                                       const char *node, struct weft_push *out);

/* The first `layers` of all blocks of the push have been written, and do not change any more.  One
 * exchange with this machine's node; layers need not be told of one by one, and a commit says that
 * all are written.  WEFT_MISS: nothing more is sent by this push (the other node has all of it, or
 * no room, or went), so that what is committed is handed over; there is no use in calling again. */
WEFT_CHECKED WEFT_API enum weft_status weft_push_layers(struct weft_push *push, uint32_t layers);

/* Of the memory that node `lender` lends to others (fabric.lend; NULL: this one): at most `most`
 * for node `name` (0: as much as there is), which is due at least `least`; and lend so much from
 * now on. The cluster's registry keeps both, so that any node may say them and they outlive the
 * lender; where nodes have a list of each other instead, each keeps its own.  What lies beyond
 * goes, soon after WEFT_OK.  And: take nothing from others any more, neither blocks nor requests
 * (`on` 0: again).  For the node's own user only.  WEFT_E_INVALID: more would be due at least than
 * is lent; WEFT_E_NODE: the registry does not answer. */
WEFT_CHECKED WEFT_API enum weft_status weft_fabric_allot(struct weft *w, const char *lender,
                                                         const char *name, uint64_t most,
                                                         uint64_t least);
WEFT_CHECKED WEFT_API enum weft_status weft_fabric_lend(struct weft *w, const char *lender,
                                                        uint64_t bytes);
WEFT_CHECKED WEFT_API enum weft_status weft_fabric_drain(struct weft *w, int on);

/* What is sent to other nodes: no more than so many bytes a second to node `name` (NULL: to each
 * that has no bound of its own), or of domain `name` to all of them together; or domain `name`'s
 * share of a link that several want (1 to 1,000,000).  0: no bound; WEFT_LIMIT_AS_ALL, of a node:
 * the one of all from now on, and none of its own.  Until this node's next start, which takes
 * fabric.link_max, fabric.links and the domains' fabric_max and fabric_share.  For the node's own
 * user only.  WEFT_E_NOT_FOUND: no such domain; WEFT_E_INVALID: `name` is this node's or none that
 * a node can have, or the share is none; WEFT_E_LIMIT: 64 nodes have a bound of their own already.
 */
#define WEFT_LIMIT_AS_ALL UINT64_MAX
enum weft_limit {
    WEFT_LIMIT_LINK = 1,
    WEFT_LIMIT_DOMAIN = 2,
    WEFT_LIMIT_SHARE = 3,
};
WEFT_CHECKED WEFT_API enum weft_status weft_fabric_limit(struct weft *w, enum weft_limit what,
                                                         const char *name, uint64_t value);

/* Ask the node something and get a JSON text, to be freed with weft_text_free().  `what`: "status",
 * "blocks", "below" (what of the domain is on tiers below DRAM, of one with "below tier=NAME", of
 * keys that begin alike with "below key=DIGITS"), "sessions", "session WORD" (one, by number or
 * name: where its chain is, what is thought of it and would be done next; WEFT_E_NOT_FOUND),
 * "domains", "regions", "formats", "archives", "archive NAME" (one, with its format and keys;
 * WEFT_PENDING while the node, after its start, still reads which ones there are), "engines" (whose
 * KV events are heard; with "engines key=DIGITS", which of them have that block), "events" or, for
 * the node's own user, "tiers", "devices", "fabric" and "config".  `cursor` 0 starts; the answer's
 * "next" goes on (0: the end).  A domain sees its own things only. */
WEFT_CHECKED WEFT_API enum weft_status weft_query(struct weft *w, const char *what, uint64_t cursor,
                                                  char **out_json);
WEFT_API void weft_text_free(char *text);

/* What this handle's process did so far.  bytes_pinned may be a little short when threads pin in
 * the same instant; the others are exact. */
struct weft_counters {
    uint64_t pins, misses, unpins, matches, bytes_pinned, blocks_put, bytes_put, reconnects;
};
WEFT_API void weft_counters_read(struct weft *w, struct weft_counters *out);

/* "10GB" → 10 × 1024³.  K M G T (binary, with or without "B"/"iB", any case), fractions allowed. */
WEFT_CHECKED WEFT_API enum weft_status weft_size_parse(const char *text, uint64_t *out_bytes);

#ifdef __cplusplus
}
#endif
#endif
