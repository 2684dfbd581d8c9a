/* SPDX-License-Identifier: Apache-2.0
 *
 * The object store tier's inside, shared by its files:
 *
 *   s3.c          the interface: requests in, results out, reads
 *   s3_pack.c     writes: buffers that become packs, their upload, flush
 *   s3_open.c     claim of the prefix, index from the bucket, probes of one that failed
 *   s3_reclaim.c  dead packs deleted, mostly dead ones compacted, footers gathered
 *   s3_fetch.c    credentials from a container's or instance's service
 *   s3_http.c     requests, signed and tried again
 *
 * A block is in one pack.  A pack is a slot: at first with a buffer, which has all of it and is
 * what reads are served from; when its upload is answered the slot is `stored`, and the buffer is
 * free again.  A buffer whose upload fails keeps what it has and tries until it can, so nothing
 * that was found vanishes but by a crash; when all buffers wait so, writes wait, and fail once the
 * tier is marked as failed.
 *
 * Memory is bounded: WF_S3_BUFFERS buffers and one to compact with, each as large as what was
 * written into it and WF_S3_PACK_MAX at most.
 */
#ifndef WF_TIER_S3_STORE_H
#define WF_TIER_S3_STORE_H

#include "tier/index.h"
#include "tier/s3_format.h"
#include "tier/s3_http.h"
#include "tier/s3_xml.h"

#define WF_S3_BUFFERS 6u
#define WF_S3_PACK_BYTES (8u << 20)   /* a pack is closed when it has as much */
#define WF_S3_PACK_AGE_MS 2000u       /* or is as old */
#define WF_S3_SINGLE_MAX (16u << 20)  /* larger objects are uploaded in parts */
#define WF_S3_UPLOAD_BYTES (8u << 20) /* of one part; S3 wants 5 MiB at least */
#define WF_S3_UPLOAD_PARTS 24u        /* WF_S3_OBJECT_MAX in such parts */
#define WF_S3_FLYING 4u               /* parts of one object on their way at once */
#define WF_S3_PACKS_MAX (1u << 20)
#define WF_S3_ITEMS_MAX (1ull << 26)
#define WF_S3_OBJECT_MAX \
    (WF_S3_PACK_MAX + WF_S3_ENTRIES_MAX * sizeof(struct wf_s3_entry) + sizeof(struct wf_s3_footer))
#define WF_S3_INNER 34u /* calls beside those of requests: uploads, deletions, probes … */
#define WF_S3_INDEXES_MAX 4096u
#define WF_S3_GATHER 64u      /* packs without an index are gathered when there are so many */
#define WF_S3_GATHER_MORE 16u /* and small indexes into a large one */
#define WF_S3_RENEW_MS 15000u
#define WF_S3_CLAIM_SECONDS 60
#define WF_S3_OWNER_MAX 512u

static_assert((uint64_t)WF_S3_UPLOAD_PARTS * WF_S3_UPLOAD_BYTES >= WF_S3_OBJECT_MAX, "parts");
static_assert(WF_S3_INNER >= WF_S3_BUFFERS * WF_S3_FLYING + 10, "uploads never lack a call");

struct wf_s3_queue {
    struct wf_tier_request *first, **last;
};

void wf_s3_queue_init(struct wf_s3_queue *queue);
void wf_s3_queue_add(struct wf_s3_queue *queue, struct wf_tier_request *request);
struct wf_tier_request *wf_s3_queue_take(struct wf_s3_queue *queue);
bool wf_s3_queue_remove(struct wf_s3_queue *queue, struct wf_tier_request *request);

enum wf_s3_slot_state {
    WF_S3_SLOT_FREE,
    WF_S3_SLOT_BUFFERED,
    WF_S3_SLOT_STORED,
    WF_S3_SLOT_DRAINED, /* its blocks are elsewhere, which is not yet durable */
    WF_S3_SLOT_LEAVING, /* being deleted */
};

struct wf_s3_slot {
    uint64_t number, tag;
    uint64_t until; /* DRAINED: may go when packs up to this number are stored */
    uint32_t object_bytes;
    uint32_t live, dead; /* bytes of records */
    uint32_t count;      /* of live blocks */
    uint32_t unreaped;   /* writes into it that nobody has reaped */
    uint32_t next;       /* in the list of free, drained or leaving slots */
    uint16_t index;      /* which has its footer; 0: none */
    uint8_t state, buffer;
    bool loaded, large;
    bool doubted; /* it came wrong once, when it was to be compacted */
};

enum wf_s3_buffer_state {
    WF_S3_BUFFER_FREE,
    WF_S3_BUFFER_OPEN,
    WF_S3_BUFFER_SENDING,
    WF_S3_BUFFER_RESTING, /* until it is time to try again */
};

enum wf_s3_phase { WF_S3_WHOLE, WF_S3_BEGIN, WF_S3_PARTS, WF_S3_COMPLETE };

struct wf_s3_buffer {
    uint8_t *memory;             /* WF_S3_OBJECT_MAX of address space */
    struct wf_s3_entry *entries; /* WF_S3_ENTRIES_MAX of address space; bytes 0: removed */
    uint64_t used;               /* pack head and records */
    uint64_t object_bytes;       /* with the footer, once closed */
    uint64_t opened_ms, again_ms;
    uint32_t count, slot, fails, completes;
    uint8_t state, phase;
    uint32_t parts, parts_next, parts_done, flying;
    bool broken;
    char upload[WF_S3_UPLOAD_MAX];
    char etags[WF_S3_UPLOAD_PARTS][128];
    char body[WF_S3_UPLOAD_PARTS * 256 + 128];
    uint8_t answer[8192];
};

/* A read on its way. */
struct wf_s3_read {
    struct wf_s3_read *next;
    struct wf_tier_request *request;
    struct wf_s3_call *call;
    struct wf_tier_block block;
    uint64_t sequence, number;
    uint32_t slot;
    uint32_t first, end, part; /* parts asked for, and the one that is coming in */
    uint32_t head_filled, part_filled;
    uint8_t *at; /* where the next byte of payload goes */
    struct wf_s3_part head;
    bool wrong, cancelled;
};

enum wf_s3_index_state {
    WF_S3_INDEX_FREE,
    WF_S3_INDEX_WRITING,
    WF_S3_INDEX_STORED,
    WF_S3_INDEX_LEAVING
};

struct wf_s3_index_object {
    uint64_t number, tag;
    uint64_t bytes;
    uint32_t packs; /* slots that rely on it */
    uint8_t state;
    bool large;
};

struct loader; /* s3_open.c's own */

struct wf_s3 {
    char *path;
    struct wf_s3_http http;
    struct wf_tier_index index;
    struct wf_tier_stats stats;
    uint64_t capacity_bytes;
    uint32_t queue_depth;
    uint64_t next_number, sequence;
    uint64_t live_bytes, dead_bytes; /* of records, in all packs */
    struct wf_s3_slot *slots;
    uint32_t slots_used, slots_free;
    struct wf_s3_buffer *buffers; /* WF_S3_BUFFERS */
    uint32_t open;                /* the one that is written into; WF_TIER_NONE: none */
    struct wf_s3_read *reads, *reads_free;
    struct wf_s3_queue waiting, flushing, done;

    bool failed, lost; /* no bucket, or no right to it; the prefix is another's for good */
    char why[256];
    uint64_t probe_ms, probe_wait_ms;
    bool probing;

    char owner[WF_S3_OWNER_MAX], owner_read[WF_S3_OWNER_MAX];
    uint64_t owner_id, renew_ms;
    uint64_t held; /* the claim that the opener had before; 0: none */
    bool renewing, closing;
    struct loader *loader; /* while it is opened, since then, and how long that may take */
    uint64_t open_begun_ms;
    uint32_t open_seconds;

    struct {
        uint32_t drained, leaving;          /* lists of slots */
        uint32_t deletes;                   /* on their way */
        uint32_t uncovered, small;          /* stored slots without index; small indexes */
        struct wf_s3_index_object *indexes; /* [0] is none */
        uint32_t indexes_used;              /* beyond are none */
        uint32_t victim;                    /* slot that is being compacted; WF_TIER_NONE: none */
        uint64_t victim_number;
        bool victim_here; /* its bytes are in `memory` */
        uint8_t *memory;
        struct {
            uint8_t *data;
            uint64_t bytes;
            uint32_t *slots;
            uint64_t *numbers;
            uint32_t count, index;
        } gather;
        uint64_t rest_until_ms; /* something failed */
    } reclaim;

    struct {
        int step;
        bool remote, busy;
        uint64_t again_ms;
        char url[1024], base[512], role[256];
        char token[1100], authorization[1100];
        uint8_t answer[8192];
    } fetch;
};

static inline uint64_t wf_s3_slot_number(const struct wf_s3 *t, uint32_t slot)
{
    return t->slots[slot].number;
}

/* s3.c */
void wf_s3_finish(struct wf_s3 *t, struct wf_tier_request *request, enum weft_status status);
/* The block goes: its bytes are dead ones of its pack from now on. */
void wf_s3_forget(struct wf_s3 *t, uint32_t item);
/* The bucket, or our right to it, is gone: every request fails until a probe finds it again. */
void wf_s3_fail(struct wf_s3 *t, const char *why);
/* A call ended other than well; marks the tier when it tells that there is no store. */
void wf_s3_trouble(struct wf_s3 *t, const struct wf_s3_call *call, const char *what);
/* What a killed process leaves: nothing is sent or waited for any more.  For tests. */
void wf_s3_abandon(struct wf_tier *tier);

/* s3_pack.c */
uint32_t wf_s3_slot_take(struct wf_s3 *t);
void wf_s3_slot_give(struct wf_s3 *t, uint32_t slot);
/* WEFT_PENDING: no buffer is free.  Otherwise the request is finished. */
enum weft_status wf_s3_write(struct wf_s3 *t, struct wf_tier_request *request);
void wf_s3_write_reaped(struct wf_s3 *t, struct wf_tier_request *request);
/* A record that is moved, as it is; false: no buffer is free. */
bool wf_s3_append_record(struct wf_s3 *t, const struct wf_tier_block *block, const uint8_t *record,
                         uint32_t *out_slot, uint32_t *out_offset);
void wf_s3_close_pack(struct wf_s3 *t);
/* Are all packs up to `number` in the bucket? */
bool wf_s3_stored_until(const struct wf_s3 *t, uint64_t number);
void wf_s3_pack_step(struct wf_s3 *t, uint64_t now);
uint64_t wf_s3_pack_wake(const struct wf_s3 *t);

/* s3_open.c */
enum weft_status wf_s3_recover(struct wf_s3 *t);
void wf_s3_owner_step(struct wf_s3 *t, uint64_t now);
uint64_t wf_s3_owner_wake(const struct wf_s3 *t);
void wf_s3_owner_release(struct wf_s3 *t);

/* s3_reclaim.c */
void wf_s3_leave(struct wf_s3 *t, uint32_t slot); /* to be deleted */
void wf_s3_reclaim_step(struct wf_s3 *t, uint64_t now);
void wf_s3_index_leaves(struct wf_s3 *t, uint32_t slot); /* its index is one pack poorer */
void wf_s3_reclaim_fini(struct wf_s3 *t);

/* s3_fetch.c */
/* Local credentials, or a fetch begun.  WEFT_PENDING: it is under way. */
enum weft_status wf_s3_credentials_begin(struct wf_s3 *t);
void wf_s3_fetch_step(struct wf_s3 *t, uint64_t now);

/* Wait for all calls to end; for opening and closing alone.  False: not in time. */
bool wf_s3_settle(struct wf_s3 *t, uint32_t calls_left, uint64_t until_ms);

#endif
