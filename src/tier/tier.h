/* SPDX-License-Identifier: Apache-2.0
 *
 * A place for blocks below the pool: the interface that every tier has behind it.
 *
 * A tier holds immutable blocks by key.  It is driven by requests that are submitted and reaped
 * later, in any order; nothing here waits but reap, and that only as long as it is told.  One
 * thread drives a tier; what threads or rings a backend has inside is its own affair.
 *
 * What a tier promises, and the conformance suite (test/conformance/tier.c) breaks on purpose:
 *
 *   - A read gives the bytes that were written under that key, or an error.  Every part of a block
 * has a checksum that is verified on each read before the request is WEFT_OK; what does not match
 * is WEFT_E_CORRUPT, the block is gone from then on, and it is counted.
 *   - A block is found when its write is reaped as WEFT_OK, and not before.
 *   - What was found before a flush was submitted, and not removed since, is found again after a
 * crash at any later instruction, once the flush is reaped as WEFT_OK.  What was not flushed is
 * found again whole, or not at all.
 *   - A tier whose stats say `forgets` is memory: it has nothing when it is opened anew, and
 * refuses a flush, so that nobody takes it for durable.
 *   - A full tier says WEFT_FULL, and keeps what it has.
 *   - A key is written once: a write of one that is there is WEFT_EXISTS and changes nothing.  Of
 * two writes of one key in flight at once, one at most is WEFT_OK.
 *   - A removed block is not found from then on, and reads of it under way give its bytes or
 * WEFT_MISS.  A removal is not durable: the block may be found again when the tier is opened anew.
 *   - A request that is wrongly put is refused by submit as WEFT_E_INVALID, with a sentence.  Every
 * other result may come from submit or from reap, but from one of them only.
 *   - A cancelled request is reaped exactly once like any other, as WEFT_E_TIMEOUT, or with its
 * result when it was too late to cancel.
 *
 * A block is divided into parts of `part_bytes` (the last may be shorter), each with a checksum of
 * its own, so that one layer can be read, verified and used while the next is under way.
 */
#ifndef WF_TIER_TIER_H
#define WF_TIER_TIER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_TIER_PARTS_MAX 1024
#define WF_TIER_ALIGN 4096u /* data of a request lies at a multiple of this */

/* What is known of a block besides its bytes; kept with it, and given back by each, and but for the
 * parent by find. */
struct wf_tier_block {
    uint8_t key[32];
    uint8_t parent[32]; /* zeros: first in its chain */
    uint8_t format[32]; /* digest of its layout */
    uint32_t depth;
    uint32_t part_bytes; /* 1 … 2^30; ≥ bytes / WF_TIER_PARTS_MAX */
    uint64_t bytes;      /* payload */
    /* Of a block that lies there encoded, whose payload is a frame (codec/frame.h): the payload
     * and the parts that it decodes to.  A tier keeps them, and makes nothing of them; the tier
     * that codes (coded.h) gives such a block out as what it decodes to.  0: as it is. */
    uint64_t plain_bytes; /* up to 2^32 - 1 */
    uint32_t plain_part_bytes;
    uint32_t plain_quality; /* enum weft_quality of what it decodes to, 2 to 255; 0: exactly what
                               was written.  A tier that codes gives it out with what it decodes
                               to */
    uint64_t stored_bytes;  /* given out by a tier that codes: what it takes there; else 0 */
};

enum wf_tier_op {
    WF_TIER_WRITE = 1,
    WF_TIER_READ = 2,
    WF_TIER_FLUSH = 3, /* what is found now is durable when this is reaped */
};

struct wf_coded_plan; /* coded.h */

struct wf_tier_request {
    /* The caller's, unchanged until the request is reaped: */
    enum wf_tier_op op;
    struct wf_tier_block block;      /* WRITE: all of it.  READ: the key */
    void *data;                      /* WRITE: `block.bytes` to write.  READ: room for the parts */
    uint32_t first_part, part_count; /* READ: which parts; part_count 0: all */
    const uint64_t *sums; /* WRITE: XXH3-64 of each part, where the caller has them; for submit
                             alone, which need not look.  NULL: it has not */
    /* WRITE, for a tier that codes (coded.h): how the payload is to be encoded; for submit alone.
     * NULL: not at all.  Its layout need not be right for a lossless codec, only likely. */
    const struct wf_coded_plan *plan;
    /* The payload as it lies there, encoded or not, so that it can go to another tier without being
     * decoded.  WRITE: a block of which plain_bytes is not 0; `plan` is not looked at.  READ:
     * `block.bytes` is the room at `data`, and parts are those of what lies there (a tier that
     * codes finds its stored_bytes); such a tier says in `block` what that is, from submit's
     * WEFT_OK on: bytes, part_bytes and plain_…, the rest is the caller's. */
    bool as_stored;
    /* READ, of a tier that codes: what lies there encoded may be given as a cut of its frame
     * (codec/frame_cut.h) for these parts, if it needs no profile, or one of `cut_profiles`, in
     * which there is the bit id % 64 of each.  So nothing is decoded. */
    bool as_cut;
    uint64_t cut_profiles;
    bool
        background; /* nobody waits for it: a tier that has a say in what goes first may use that */
    void *user;
    /* The tier's: */
    enum weft_status
        status;     /* when reaped: WEFT_OK, WEFT_MISS (READ), WEFT_FULL (WRITE), WEFT_E_… */
    uint64_t bytes; /* when reaped: payload bytes moved */
    /* When reaped, from a tier that codes: what lies there, as it is in fact, with WEFT_OK and also
     * with WEFT_EXISTS.  `lost` as plain_quality; READ: `profile` that it was made by.  0: none.
     * WRITE to what other nodes lend (fabric/remote.h): both of what is at `data`, as it was given,
     * and as it is there then. */
    uint32_t lost;
    uint64_t profile;
    uint64_t cut_bytes; /* likewise: the cut at `data`, shorter than the parts, `bytes`, that it is
                           for; 0: these */
    struct wf_tier_request *next;
    uint64_t private[4];
};

/* What a tier that codes did and has, of blocks that lie there encoded. */
struct wf_coded_sum {
    uint64_t blocks, plain_bytes, stored_bytes; /* there now, as far as each() or who wrote and
                                                   removed them has told */
    uint64_t encoded, encoded_bytes;            /* since it was opened: blocks, and their payload */
    uint64_t encoded_to_bytes;                  /* and their frames' */
    uint64_t decoded_bytes;                     /* payload */
    uint64_t tried_bytes;                       /* payload that a codec worked on to be written */
    uint64_t encode_ns, decode_ns;              /* of the workers, all together */
};

/* Of a tier that codes (coded.h).  Its `reads` and `writes` count payload, as everywhere; capacity,
 * what is used, and what the device wrote are the medium's. */
struct wf_coded_stats {
    struct wf_coded_sum all, quality[WEFT_ECONOMY + 1]; /* by enum weft_quality; [0] is not used */
    uint64_t as_is, as_is_bytes;                        /* written as they are */
};

struct wf_tier_stats {
    uint64_t capacity_bytes, used_bytes, blocks;
    uint64_t block_bytes_max; /* a larger one is refused; up to this it fits in any parts */
    uint64_t reads, read_bytes, writes, write_bytes;
    uint64_t device_write_bytes; /* with headers and what was moved: ÷ write_bytes is the
                                    amplification */
    uint64_t corrupt, errors, moved_bytes;
    uint32_t queue_depth, in_flight;
    bool failed;  /* the medium is gone: every request fails until it is opened again, or, for a
                     store that may come back, until it has */
    bool forgets; /* nothing outlives close */
    bool waits;   /* requests wait for a turn that comes, by a bound that somebody set: one that
                     takes long is no sign of a device that hangs */
    struct wf_coded_stats coded; /* zeros but for a tier that codes */
    char why[256];  /* it failed, in a sentence; "": there is none but that the medium is gone */
    uint64_t claim; /* for `held` of the next open, s3: by which it has its prefix, nvme: which
                       volume it is; 0: none */
};

/* The least capacity that the kinds of media can work with. */
#define WF_TIER_NVME_BYTES_LEAST ((1u << 20) + 4 * (64u << 10))
#define WF_TIER_CXL_BYTES_LEAST (16u << 20)

/* One of several hosts that share a medium. */
struct wf_tier_host {
    uint8_t host;
    bool here;          /* has started and has not said goodbye */
    bool fenced;        /* was declared dead since */
    uint64_t session;   /* how often it has started */
    uint64_t heartbeat; /* grows about once a second while it runs; look twice */
    uint64_t silent_ms; /* it has not grown for so long, for as long as somebody has looked */
    uint64_t extents;
};
#define WF_TIER_HOSTS_MAX 255u

struct wf_coded_options;
struct wf_peers;

struct wf_tier_options {
    const char *path;        /* file, directory, device or URL; what it means is the backend's */
    uint64_t capacity_bytes; /* 0: what the medium has */
    uint32_t queue_depth;    /* requests in flight, 1 … 1024 */
    uint64_t seed;           /* sim */
    /* Memory that request data will lie in, to be registered with the device; may be NULL. */
    void *buffers;
    size_t buffers_bytes;
    bool discard; /* nvme on a block device: tell it of what is not used any more */
    /* Several hosts on one device (cxl): which of them this is, 1 … 255. */
    bool shared;
    uint8_t host;
    bool dram_node; /* cxl: node:N may have processors, though its memory is plain DRAM then */
    /* s3; NULL: the usual environment variables and files */
    const char *endpoint;   /* "https://host:port"; without one: AWS */
    const char *region;     /* without one: us-east-1 */
    uint32_t stall_seconds; /* a request that moves no byte for so long is given up; 0: 10 */
    uint32_t open_seconds; /* opening is given up after so long, and a second more for each MiB that
                              it has read; 0: 600 */
    bool plain_http;       /* allow an endpoint without TLS on another host */
    uint64_t held; /* the claim that this node had last; 0: it was not open yet.  s3: who has the
                      prefix since is left alone, even if it is of this host.  nvme: no file is made
                      in place of one that is gone */
    const struct wf_coded_options *coded; /* of a tier that codes (coded.h); read by open alone */
    struct wf_peers *peers; /* of the tier of what other nodes have (fabric/peers.h) */
};

struct wf_tier;

struct wf_tier_ops {
    const char *name;

    /* Find what the medium has and take it up.  WEFT_E_INVALID names the option, WEFT_E_SYSTEM the
     * medium. */
    enum weft_status (*open)(const struct wf_tier_options *options, struct wf_tier **out);
    /* Requests still in flight are waited for and dropped.  What is not flushed may be lost. */
    void (*close)(struct wf_tier *tier);

    /* WEFT_OK: it will be reaped.  WEFT_PENDING: the queue is full, reap first.  Anything else:
     * refused, and it will not be reaped. */
    enum weft_status (*submit)(struct wf_tier *tier, struct wf_tier_request *request);
    /* Up to `max` finished requests.  Waits up to timeout_ms for the first (0: not at all). */
    uint32_t (*reap)(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                     uint32_t timeout_ms);
    void (*cancel)(struct wf_tier *tier, struct wf_tier_request *request);
    /* Readable when something can be reaped; -1: the backend has none, poll. */
    int (*event)(const struct wf_tier *tier);

    /* The parent it gives is zeros where the tier does not keep it at hand. */
    bool (*find)(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out);
    /* WEFT_MISS when it is not there.  Reads of it under way fail or finish. */
    enum weft_status (*remove)(struct wf_tier *tier, const uint8_t key[32]);
    /* Every block, parents before their children where both are there.  It may have to read, and
     * wait for that, when it is asked for a second time. */
    void (*each)(const struct wf_tier *tier,
                 void (*found)(void *context, const struct wf_tier_block *block), void *context);
    void (*stats)(const struct wf_tier *tier, struct wf_tier_stats *out);

    /* NULL, but for a medium that others write to: which blocks came and which went since the last
     * call, in any order; of one that went, the key alone.  Looks at a bounded part of the medium
     * and does not wait.  WEFT_PENDING: there is more to look at.  A block that was told and is
     * removed here stays where it is, and is told again. */
    enum weft_status (*news)(struct wf_tier *tier,
                             void (*told)(void *context, const struct wf_tier_block *block,
                                          bool there),
                             void *context);
    bool news_rings; /* event() is readable when there is news, too */
    /* NULL, but for what tells of a shared medium: its hosts, as they were when they were last
     * looked at; returns how many. */
    uint32_t (*hosts)(struct wf_tier *tier, struct wf_tier_host *out, uint32_t max);
    /* NULL, but for a shared medium: an operator's word that `host` is dead, so that what it had is
     * this host's; each() tells of it from then on.  Waits for up to timeout_ms. */
    enum weft_status (*fence)(struct wf_tier *tier, uint8_t host, uint32_t timeout_ms);
};

extern const struct wf_tier_ops
    wf_tier_sim; /* memory with a seed: late, torn, rotten, full, gone */
extern const struct wf_tier_ops wf_tier_dram; /* plain memory, lost at close */
extern const struct wf_tier_ops
    wf_tier_cxl; /* a DAX device or a NUMA node: memory that is copied to and from (cxl.h) */
extern const struct wf_tier_ops
    wf_tier_cxl_others; /* what other hosts have on a CXL device that they share: read only */
/* What their open would say of what lies at `path`, a file or block device, which is only read:
 * WEFT_E_INVALID with its sentence, or WEFT_OK, also where there is nothing to be read.  `capacity`
 * as in the options. */
enum weft_status wf_tier_nvme_check(const char *path, uint64_t capacity);
enum weft_status wf_tier_cxl_check(const char *path);
/* Has this process credentials for an object store?  WEFT_OK: in its environment or files, or a
 * container's endpoint is named.  Else a sentence: WEFT_MISS, only the metadata service of a
 * cloud's instance is left to ask; WEFT_E_INVALID, there is half of one, or nothing is left. */
enum weft_status wf_tier_s3_check(void);
extern const struct wf_tier_ops
    wf_tier_nvme; /* a file or block device, io_uring, O_DIRECT, log-structured */
extern const struct wf_tier_ops
    wf_tier_s3; /* "s3://bucket/prefix", libcurl, blocks packed into objects */

#endif
