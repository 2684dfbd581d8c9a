/* SPDX-License-Identifier: Apache-2.0
 *
 * The inside of a directory, for directory.c and the check of its invariants.
 *
 * Entries are one array; all that links them is numbers.  Each entry is in
 *
 *   - the hash table, under its key;
 *   - the tree: its parent's list of children, and its own;
 *   - a *queue* of its domain and its nearest tier, when it may leave that tier now: `promoted` if
 *     it was and is in DRAM still, `main` otherwise.  Cold end first, by `used`.
 *
 * Which queue an entry is in follows from its fields alone (queue_of), and so do sums: whoever
 * changes a field that counts does it between before() and after().
 */
#ifndef WF_CORE_DIRECTORY_STATE_H
#define WF_CORE_DIRECTORY_STATE_H

#include <assert.h>

#include "base/table.h"
#include "core/directory.h"

struct entry {
    uint8_t key[32];
    uint32_t parent, child, elder, younger; /* child: the youngest */
    uint32_t hash_next;                     /* of an entry that is not in use: the next of these */
    uint32_t colder, warmer;                /* in its queue */
    uint32_t used;                          /* clock at last use */
    uint32_t bytes;
    uint16_t archives;
    uint16_t qualities; /* of each tier's copy two bits: enum weft_quality, 0: it is exact */
    uint32_t depth : 24;
    bool live : 1; /* false: not in use, or gone and held still */
    bool in_dram : 1;
    bool promoted : 1;
    bool unread : 1;     /* its lossy copies cannot be read now, as far as is known */
    uint32_t weight : 4; /* its power of two, and WEIGHT_USUAL (directory.c); 0: of 1 */
    uint8_t domain;
    uint8_t tiers;
    uint16_t holds;
    uint16_t chance; /* in parts of UINT16_MAX, */
    uint16_t rate;   /* the upper half of a float: of another use, since `when` */
    uint32_t when;   /* last used or judged; tenths of a second, may wrap */
};
static_assert(sizeof(struct entry) == 88, "metadata budget");

enum queue_kind { QUEUE_PROMOTED = 0, QUEUE_MAIN = 1, QUEUE_KINDS = 2 };

struct queue {
    uint32_t coldest, warmest;
};

struct tier_state {
    struct wf_directory_sum sum[WF_DIRECTORY_DOMAINS_MAX];
    struct queue queue[QUEUE_KINDS][WF_DIRECTORY_DOMAINS_MAX];
    uint32_t spare[WF_DIRECTORY_DOMAINS_MAX]; /* on a nearer tier too, and may go from here */
    uint32_t hand;                            /* where the search for those goes on */
};

struct wf_directory {
    struct wf_directory_env env;
    struct entry *entries;
    struct wf_table table;
    uint32_t entries_max;
    uint32_t entries_used; /* [0, entries_used) have been in use */
    uint32_t unused;       /* first of those in it that are not now */
    uint32_t taken;        /* live, or held */
    uint32_t clock;        /* of uses; may wrap */
    uint32_t now_ds;
    uint32_t domains;                         /* one more than the highest seen */
    uint8_t demand[WF_DIRECTORY_DOMAINS_MAX]; /* enum weft_quality; 0 is WEFT_LOSSLESS */
    struct tier_state tiers[WF_DIRECTORY_TIERS_MAX];
};

/* WF_DIRECTORY_TIERS_MAX: it is on none. */
static inline unsigned nearest_tier(const struct entry *e)
{
    return e->tiers ? (unsigned)__builtin_ctz(e->tiers) : WF_DIRECTORY_TIERS_MAX;
}

static inline unsigned quality_on(const struct entry *e, unsigned tier)
{
    return e->qualities >> (2 * tier) & 3u;
}

/* The tiers whose copies are as exact as the domain asks. */
static inline uint8_t fit_tiers(const struct wf_directory *d, const struct entry *e)
{
    uint8_t fit = e->tiers;
    for (unsigned left = e->qualities ? e->tiers : 0; left; left &= left - 1) {
        unsigned tier = (unsigned)__builtin_ctz(left), quality = quality_on(e, tier);
        if (quality > WEFT_LOSSLESS && quality > d->demand[e->domain])
            fit &= (uint8_t) ~(1u << tier);
    }
    return fit;
}

/* Of those, the ones that are not known to be of no use now. */
static inline uint8_t good_tiers(const struct wf_directory *d, const struct entry *e)
{
    uint8_t good = fit_tiers(d, e);
    for (unsigned left = e->unread ? good : 0; left; left &= left - 1) {
        unsigned tier = (unsigned)__builtin_ctz(left);
        if (quality_on(e, tier) > WEFT_LOSSLESS)
            good &= (uint8_t) ~(1u << tier);
    }
    return good;
}

/* Would it still be somewhere without its nearest tier, or would nobody miss it? */
static inline bool may_leave(const struct entry *e)
{
    return e->holds == 0 && e->archives == 0 &&
           (e->child == WF_DIRECTORY_NONE || e->in_dram || (e->tiers & (e->tiers - 1)) != 0);
}

/* NULL: none. */
static inline struct queue *queue_of(struct wf_directory *d, const struct entry *e)
{
    if (!e->tiers || !may_leave(e))
        return NULL;
    return &d->tiers[nearest_tier(e)]
                .queue[e->in_dram && e->promoted ? QUEUE_PROMOTED : QUEUE_MAIN][e->domain];
}

#endif
