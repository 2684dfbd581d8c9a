/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that this node lends to others: their blocks, which they put here and anyone may read.
 *
 * The memory is cut into ranges (shm/arena.h), one a block, with the sums of its parts behind the
 * payload, so that what is sent is what was put and the processor of a node that only has memory
 * has nothing to compute.
 *
 * Each node that puts has an *allotment*: what it is due when there is not enough for all, in equal
 * parts unless an operator said otherwise: what it is due at least is taken off first, and what it
 * may have at most bounds it.  Who needs room and has less than it is due gets it from who has most
 * beyond; what goes is what was used longest ago.  Blocks of a node that has gone stay readable,
 * and go before any other.  A block that is being sent stays until it has been.
 *
 * A block is an allotment's of who puts it, and nobody can fill another's.  Who moves what a third
 * node put elsewhere says whose it is, and that one may drop it, and nobody else.
 *
 * One thread.  Nothing here outlives the node.
 */
#ifndef WF_FABRIC_LENT_H
#define WF_FABRIC_LENT_H

#include "fabric/wire.h"

#define WF_LENT_OWNERS_MAX 4096u
#define WF_LENT_NONE UINT32_MAX

/* What a block takes there: its payload, the sums of its parts at a multiple of 8 behind it, and
 * what is left of the last granule.  Of more than 4 TiB that are lent granules are larger. */
#define WF_LENT_GRANULE 4096u
static inline uint64_t wf_lent_takes(uint64_t bytes, uint32_t part_bytes)
{
    uint64_t with = (bytes + 7) / 8 * 8 + (bytes + part_bytes - 1) / part_bytes * 8;
    return (with + WF_LENT_GRANULE - 1) / WF_LENT_GRANULE * WF_LENT_GRANULE;
}

struct wf_lent;

struct wf_lent_options {
    uint64_t bytes; /* of memory, in all */
    uint64_t seed;
    /* A block went, though nobody asked for that. */
    void (*gone)(void *context, const struct wf_fabric_event *block);
    void *context;
};

struct wf_lent_block {
    const uint8_t *data;
    const uint64_t *sums;
    uint64_t bytes, profile;
    uint32_t part_bytes, domain;
    uint8_t quality; /* 0: exact */
};

struct wf_lent_owner {
    uint64_t bytes, due_bytes, least_bytes, limit_bytes; /* limit: 0: none was set */
    uint64_t blocks;
    bool here;
};

/* Of a block, what whoever moves it wants to know. */
struct wf_lent_found {
    struct wf_fabric_event block;
    uint32_t owner, part_bytes, copies; /* copies: that there should be, in all lenders' memory */
    uint32_t whose;                     /* it is here for that one: mostly its owner */
    uint64_t used;                      /* the greater, the later */
    uint64_t profile;
};

struct wf_lent_stats {
    uint64_t bytes, used_bytes, blocks, puts, refused, evicted;
    uint64_t many;  /* blocks of which there should be more copies than one */
    uint64_t given; /* that went since another lender has them */
    uint64_t evicted_bytes;
};

enum weft_status wf_lent_create(const struct wf_lent_options *options, struct wf_lent **out);
void wf_lent_destroy(struct wf_lent *lent);

/* Owner `owner` (a number below WF_LENT_OWNERS_MAX) is here, or has gone. */
void wf_lent_owner_here(struct wf_lent *lent, uint32_t owner, bool here);
/* Lend so much from now on, up to options.bytes; what is beyond goes, what was used longest ago of
 * who has most, and its memory is the host's again. */
void wf_lent_resize(struct wf_lent *lent, uint64_t bytes);
/* The same, but what is beyond does not go yet: until wf_lent_resize() with the same. */
void wf_lent_shrink(struct wf_lent *lent, uint64_t bytes);
bool wf_lent_shrinks(const struct wf_lent *lent);
/* Never more than that for it; 0: whatever it is due. */
void wf_lent_limit(struct wf_lent *lent, uint32_t owner, uint64_t bytes);
/* It is due that much while it is here, whoever else is.  All of these together fit what is lent:
 * who says them sees to that, and while they do not, each is due its part of what there is. */
void wf_lent_least(struct wf_lent *lent, uint32_t owner, uint64_t bytes);
void wf_lent_owner(const struct wf_lent *lent, uint32_t owner, struct wf_lent_owner *out);

/* Room for a block.  WEFT_OK: its payload is to be written to *out_data, and wf_lent_end() follows.
 * WEFT_EXISTS; WEFT_E_BUSY: it is just being put here, by somebody, and may not come to be here;
 * WEFT_FULL, also where another domain has a block of that key: nothing is said of that. */
enum weft_status wf_lent_begin(struct wf_lent *lent, uint32_t owner,
                               const struct wf_fabric_event *block, uint64_t profile,
                               uint32_t part_bytes, uint32_t copies, uint32_t *out_entry,
                               void **out_data);
/* It is here for that one, who may drop it. */
void wf_lent_for(struct wf_lent *lent, uint32_t entry, uint32_t whose);
/* It is there, with the sums of its parts, and one that was here and is less exact goes for it; or
 * it is not to be (NULL).  WEFT_EXISTS: one that is as exact has come meanwhile, and stays. */
enum weft_status wf_lent_end(struct wf_lent *lent, uint32_t entry, const uint64_t *sums);

/* WF_LENT_NONE, or a block that stays until wf_lent_let_go(). */
uint32_t wf_lent_hold(struct wf_lent *lent, uint32_t domain, const uint8_t key[32],
                      struct wf_lent_block *out);
/* The same, and it is not used by that. */
uint32_t wf_lent_keep(struct wf_lent *lent, uint32_t domain, const uint8_t key[32],
                      struct wf_lent_block *out);
void wf_lent_let_go(struct wf_lent *lent, uint32_t entry);
/* Whether that would be one, and how exact (NULL: that does not matter). */
bool wf_lent_has(const struct wf_lent *lent, uint32_t domain, const uint8_t key[32],
                 uint8_t *out_quality);

/* Whom it is here for wants it no more.  False: nothing of that key is here for `by`, who may be a
 * lender that moved it for another and has no use of its own for it. */
bool wf_lent_drop(struct wf_lent *lent, uint32_t by, const uint8_t key[32]);

/* Nobody is to have it any more, whoever put it here.  False: it is not here. */
bool wf_lent_forget(struct wf_lent *lent, uint32_t domain, const uint8_t key[32]);

/* Another lender has it now: it goes. */
void wf_lent_give(struct wf_lent *lent, const uint8_t key[32]);

/* All blocks from *cursor on, as below. */
bool wf_lent_all(const struct wf_lent *lent, uint64_t *cursor, uint32_t looks,
                 void (*found)(void *to, const struct wf_lent_found *block), void *to);
/* All blocks of a domain from *cursor on, which is 0 at first; looks at `looks` entries at most.
 * False: that was the end. */
bool wf_lent_each(const struct wf_lent *lent, uint32_t domain, uint64_t *cursor, uint32_t looks,
                  void (*found)(void *to, const struct wf_fabric_event *block), void *to);

void wf_lent_stats(const struct wf_lent *lent, struct wf_lent_stats *out);
/* Asserts every invariant; for tests. */
void wf_lent_verify(const struct wf_lent *lent);

#endif
