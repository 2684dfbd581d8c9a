/* SPDX-License-Identifier: Apache-2.0
 *
 * A domain's blocks: reserve, commit, find, evict.
 *
 * The store is the one writer of a domain's index, arena and chains.  It runs on the owner thread,
 * makes no system call but to wake who waits for a block to arrive, and blocks on nothing; what it
 * needs from outside (memory budget, who holds what, who wants to know) comes through wf_store_env,
 * so that tests run it on plain memory.
 *
 * A slot's life:
 *
 *     FREE ──reserve──► RESERVED ──commit──► COMMITTED ⇄ EVICTING ──► FREE (generation + 1)
 *                          │  └─commit, key is there already─► DUPLICATE ─► FREE when its reserved
 * children are gone └─abort, or the client died──────► DEAD ──────► FREE likewise COMMITTED
 * ──condemned (corrupt)──► DEAD ──► FREE when nobody holds it any more
 *
 * Invariants (wf_store_verify asserts them):
 *   - COMMITTED and EVICTING slots are exactly those in the index.
 *   - A committed block's parent is committed (invariant 2): eviction takes leaves only.
 *   - A slot is offered to the policy exactly when it is committed, without children and without
 * holds.
 */
#ifndef WF_DAEMON_STORE_H
#define WF_DAEMON_STORE_H

#include "core/policy.h"
#include "shm/arena.h"
#include "shm/index.h"

enum wf_evict_reason {
    WF_EVICT_ROOM = 0,    /* a reserve needed the room */
    WF_EVICT_QUOTA = 1,   /* the domain is at its quota */
    WF_EVICT_RECLAIM = 2, /* the host takes memory back */
    WF_EVICT_REMOVED = 3, /* someone asked to drop it */
    WF_EVICT_CORRUPT = 4, /* its bytes do not match its checksum */
    WF_EVICT_DEMOTED = 5, /* its session wants it below for now */
    WF_EVICT_LENT = 6,    /* its domain had more than its due, and it was for another */
    WF_EVICT_REASONS = 7,
};
const char *wf_evict_reason_name(enum wf_evict_reason reason);

enum wf_leave {
    WF_LEAVE_NOW = 0,   /* drop it */
    WF_LEAVE_LATER = 1, /* it is being written below: it was held, and may go when it is let go */
    WF_LEAVE_NOT = 2,   /* that, but nothing more can be begun now: it stays for the time being */
};

/* Of a block that has gone. */
struct wf_gone {
    uint64_t bytes, age; /* age: uses of others since its own last */
    uint8_t parent[8];   /* of the key of what it extended; zeros: it began its chain */
    enum wf_evict_reason reason;
    /* Why it and no other: what the policy says, or the rule alone: WF_GONE_BESIDE.  The rule is
     * NULL when it was named. */
    struct wf_policy_reason why;
    uint32_t candidates; /* among how many, it included */
};
#define WF_GONE_BESIDE "beside" /* it lay beside what came free, and one piece was needed */

struct wf_store_env {
    void *context;
    /* Memory from the node's budget: at least `least` bytes, or 0; at most `wanted`. */
    uint64_t (*budget_take)(void *context, uint64_t least, uint64_t wanted);
    void (*budget_give)(void *context, uint64_t bytes);
    /* This range of the pool is backed now: its first touches are near.  NULL: nobody asks. */
    void (*backed)(void *context, uint64_t first, uint64_t granules);
    /* Call `seen` for every slot that any client of this domain holds. */
    void (*scan_pins)(void *context, void (*seen)(void *context, uint32_t slot),
                      void *seen_context);
    uint64_t (*now_us)(void *context); /* the clock that the policy sees; NULL: it stands still */
    /* What it takes to have the block of this slot again, as struct wf_policy_use has it.  NULL: it
     * is not known of any. */
    float (*cost_s_gib)(void *context, uint32_t slot);
    /* What it takes to have it again, in parts of computing it: below 1 where another node has it.
     * NULL: it is 1 of all. */
    float (*lose_part)(void *context, uint32_t slot);
    /* A block that nobody holds is about to go, to make room.  NULL: any may. */
    enum wf_leave (*leave)(void *context, uint32_t slot);
    /* A block has gone from the index, children before their parents. */
    void (*gone)(void *context, const uint8_t key[32], const struct wf_gone *gone);
};

struct wf_store {
    struct wf_index index;
    struct wf_arena arena;
    struct wf_slot *slots;
    const struct wf_policy_ops *policy_ops;
    struct wf_policy *policy;
    struct wf_store_env env;
    uint64_t quota_bytes;
    uint64_t used_bytes;   /* reserved and committed ranges */
    uint64_t backed_bytes; /* taken from the node's budget */
    uint64_t other_bytes;  /* counted against the quota by others (regions) */
    uint64_t blocks, reserved_blocks;
    uint64_t worth_more; /* blocks that found no room for what would have had to go */
    uint32_t freed_last; /* the free range that the last release made or grew */
    uint64_t leaving;    /* blocks that are WF_LEAVE_LATER */
    uint64_t elsewhere;  /* blocks that went before others, since another node has them, too */
    uint32_t looks;      /* for one of these: so many are earned */
    struct {             /* what the last of them extended */
        uint32_t slot, generation;
        uint64_t age;
    } goes_on;
    uint32_t dead; /* head of the list of DEAD slots that wait for their holders */
};

struct wf_store_options {
    void *index_memory;
    uint64_t index_bytes;
    uint32_t slots_max, far_blocks_max;
    uint64_t pool_bytes;
    uint64_t quota_bytes;
    uint64_t epoch;
    uint32_t domain;
    const struct wf_policy_ops *policy;
    struct wf_store_env env;
};

enum weft_status wf_store_init(struct wf_store *store, const struct wf_store_options *options);
void wf_store_fini(struct wf_store *store);

/* A client's reserved slots, newest first. */
struct wf_reservations {
    uint32_t head;
    uint32_t count;
};

struct wf_parent {
    uint32_t slot; /* WF_SLOT_NONE: first in its chain */
    uint32_t depth;
};

/* The committed block `key`; WF_SLOT_NONE when there is none. */
uint32_t wf_store_find(const struct wf_store *store, const uint8_t key[32]);

/* Who is to be the parent: by key (committed), or a slot reserved by `client` before.
 * WEFT_E_PARENT. */
enum weft_status wf_store_parent_by_key(const struct wf_store *store, const uint8_t key[32],
                                        struct wf_parent *out);
enum weft_status wf_store_parent_by_slot(const struct wf_store *store, uint32_t client,
                                         uint32_t slot, uint32_t generation, struct wf_parent *out);

/* The owner of slots that the node fills itself, from a tier below. */
#define WF_STORE_NODE UINT32_MAX

/* What may go for the blocks of one request that are new, a part of a chain in its order. */
struct wf_store_ask {
    struct wf_policy_ask ask;
    uint64_t names[WEFT_BATCH_MAX];
    float bars[WEFT_BATCH_MAX]; /* of each, for wf_store_reserve() */
};
void wf_store_ask(struct wf_store *store, uint32_t client, const uint8_t (*keys)[32],
                  uint32_t count, uint32_t parent, struct wf_store_ask *out);
/* Of these there was no room for those from `first` on. */
void wf_store_refused(struct wf_store *store, const struct wf_store_ask *ask, uint32_t first);

/* WEFT_OK: *out_slot is reserved for `client` and in `list`.  WEFT_EXISTS: *out_slot is the
 * committed block. WEFT_FULL: no room, and nothing that may go, or nothing below the bar
 * (WF_POLICY_ANY: there is none).  WEFT_E_QUOTA: the block alone exceeds the quota. */
enum weft_status wf_store_reserve(struct wf_store *store, uint32_t client,
                                  struct wf_reservations *list, const uint8_t key[32],
                                  uint32_t bytes, const struct wf_parent *parent, float bar,
                                  uint32_t *out_slot);

/* Is this slot reserved by that client, in that generation? */
bool wf_store_is_reserved(const struct wf_store *store, uint32_t client, uint32_t slot,
                          uint32_t generation);

/* Publish a reserved slot.  WEFT_OK, or WEFT_EXISTS (*slot is changed to the one that serves), or
 * WEFT_E_PARENT (the reservation is dropped). */
enum weft_status wf_store_commit(struct wf_store *store, struct wf_reservations *list,
                                 uint32_t *slot);
void wf_store_abort(struct wf_store *store, struct wf_reservations *list, uint32_t slot);
void wf_store_abort_all(struct wf_store *store, struct wf_reservations *list);

/* A block that the node fills (WF_STORE_NODE) may be held in pin tables before it is complete, so
 * its end never frees its memory under a reader. progress: the first `granules` of it are there and
 * verified; readers are woken. arrived: it is complete, which was `reader`'s use of it
 * (WF_STORE_NODE: nobody's).  WEFT_OK: committed.  WEFT_EXISTS: someone else committed the key
 * meanwhile; those who hold this one go on reading it, nobody else finds it. WEFT_E_PARENT. lost:
 * it will not be complete, and whoever waits for it is told. */
void wf_store_progress(struct wf_store *store, uint32_t slot, uint32_t granules);
enum weft_status wf_store_arrived(struct wf_store *store, struct wf_reservations *list,
                                  uint32_t slot, uint32_t reader);
/* What arrives in it is no better than `quality`.  As long as it is reserved. */
void wf_store_worsen(struct wf_store *store, uint32_t slot, enum weft_quality quality);
/* Nobody is to wait for it any more; its memory is kept until wf_store_lost(). */
void wf_store_give_up(struct wf_store *store, uint32_t slot);
void wf_store_lost(struct wf_store *store, struct wf_reservations *list, uint32_t slot);

/* Ask env.leave about the coldest `bytes` of blocks, without evicting any; returns how many began
 * to be written below. */
uint32_t wf_store_look_ahead(struct wf_store *store, uint64_t bytes);

/* env.leave says WF_LEAVE_LATER: it holds the block from here, until the writing has ended, well or
 * not. */
void wf_store_leaving(struct wf_store *store, uint32_t slot);
void wf_store_left(struct wf_store *store, uint32_t slot);

/* While held, a block is not offered for eviction, and so none of its ancestors is. */
void wf_store_hold(struct wf_store *store, uint32_t slot);
void wf_store_unhold(struct wf_store *store, uint32_t slot);

/* A use that a client reported; any number is safe.  `reader` tells clients apart; WF_STORE_NODE:
 * no use, but somebody is to come for it. */
void wf_store_used(struct wf_store *store, uint32_t slot, uint32_t reader);

/* The last request of the chain that ends at the committed block `tip` made so many tokens. */
void wf_store_made(struct wf_store *store, uint32_t tip, uint32_t tokens);

/* What somebody says of that chain: it will be wanted again, or it will not. */
void wf_store_said(struct wf_store *store, uint32_t tip, bool wanted);

/* What waiting for that chain counts, 1 as a rule: of its last so many blocks, as far as no other
 * shares them. */
void wf_store_weigh(struct wf_store *store, uint32_t tip, uint32_t blocks, float weight);

/* It is to be there when somebody comes for the chain: what is there of it is not the next to go.
 */
void wf_store_keep(struct wf_store *store, uint32_t tip);

/* It is not wanted for a while: the next to go. */
void wf_store_cool(struct wf_store *store, uint32_t slot);

/* Drop `slot` and all that extends it.  WEFT_E_BUSY when any is held, and then nothing changes;
 * with `condemn` held ones, too, disappear from the index at once and their memory follows later.
 */
enum weft_status wf_store_remove(struct wf_store *store, uint32_t slot, bool condemn,
                                 uint64_t *out_removed);

/* Evict this block: false when something extends or holds it. */
bool wf_store_evict(struct wf_store *store, uint32_t slot, enum wf_evict_reason reason);

/* Evict until `bytes` of backed memory are free or nothing may go; returns how many are free. */
uint64_t wf_store_make_free(struct wf_store *store, uint64_t bytes, enum wf_evict_reason reason);
/* The same for somebody else (WF_EVICT_RECLAIM, WF_EVICT_LENT), and no more than leaves `keep` of
 * used_bytes.  False: that ended it. */
bool wf_store_give(struct wf_store *store, uint64_t bytes, uint64_t keep,
                   enum wf_evict_reason reason);

/* Free what DEAD slots still had when their holders are gone. */
void wf_store_bury(struct wf_store *store);

/* Every invariant; asserts.  For tests. */
void wf_store_verify(const struct wf_store *store);

/* How exact the block is; never WEFT_QUALITY_DEFAULT. */
static inline enum weft_quality wf_store_quality(const struct wf_store *store, uint32_t slot)
{
    return wf_word_quality(
        atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed));
}

/* Blocks before it in its chain. */
static inline uint32_t wf_store_depth(const struct wf_store *store, uint32_t slot)
{
    return wf_word_depth(atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed));
}

static inline uint32_t wf_store_generation(const struct wf_store *store, uint32_t slot)
{
    return wf_word_generation(
        atomic_load_explicit(&store->index.desc[slot].word, memory_order_relaxed));
}

#endif
