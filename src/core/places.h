/* SPDX-License-Identifier: Apache-2.0
 *
 * Who holds what: a compact replica of which node has a copy of which block.
 *
 * It is a hint.  A copy takes one word: 46 bits of the key, the number of its node, and its class,
 * 0 to 3: how good the copy is, the less the better.  It may say yes for a key that nobody holds,
 * once in 2^41 questions or so, and what it says is as old as the events that fed it; the owner of
 * a block, who compares all 32 bytes, has the last word.  It never forgets a copy by itself: what
 * finds no room is refused and counted.
 *
 * Buckets are one cache line.  A word lies in one of two, and moves between them to make room
 * (cuckoo hashing with buckets: R. Pagh and F. Rodler, 2001; M. Dietzfelbinger and C. Weidling,
 * 2007; where the second is found from the word alone: B. Fan et al., "Cuckoo filter", CoNEXT
 * 2014).  So a table made for N copies takes 8.9 bytes for each and is 90 % full with them.
 *
 *     63                           18 17   16 15            0
 *    ┌───────────────────────────────┬───────┬───────────────┐
 *    │ fragment: 46 bits             │ class │ node + 1      │   0: nothing is here
 *    └───────────────────────────────┴───────┴───────────────┘
 *
 * Copies of one key share their two buckets, which would be full of a key that many nodes hold.  So
 * they go by pages of WF_PLACES_PAGE: the first page's fragment and buckets come from the key, each
 * further page's from those of the page before, and a page has a next one only when it is full.
 * Full pages are harder to place: where most copies are in such, one or two in a hundred find no
 * room from 86 % on.  That a page can be followed without the key is what lets a node's copies be
 * swept out.
 *
 * Functions that take a `const` table may run side by side; the others need it to themselves: the
 * caller locks.  Nothing allocates after create.
 */
#ifndef WF_CORE_PLACES_H
#define WF_CORE_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_PLACES_NODES_MAX 65535u               /* nodes are 0 … 65534 */
#define WF_PLACES_COPIES_MAX ((uint64_t)1 << 36) /* half a terabyte of table */
#define WF_PLACES_PAGE 4u                        /* copies of one key in one pair of buckets */
#define WF_PLACES_CLASS_MAX 3u                   /* the worst class: who asks for it takes any */
#define WF_PLACES_NODE_WORDS(nodes) (((nodes) + 63u) / 64u) /* of a bitmap of nodes */

struct wf_places;

struct wf_places_options {
    uint64_t copies_max; /* what it is made for; a few more may fit */
    uint32_t nodes_max;  /* numbers below that; 0: WF_PLACES_NODES_MAX.  4 bytes each */
    uint64_t seed;       /* so that nobody can aim keys at one bucket: anything secret */
};

struct wf_places_stats {
    uint64_t copies, copies_max;
    uint64_t bytes;   /* of the table */
    double load;      /* of its words */
    uint64_t refused; /* copies that found no room, ever */
    uint64_t leaving; /* copies of nodes that have left, not swept out yet */
    uint64_t moves;   /* words moved to make room, ever */
};

enum weft_status wf_places_create(const struct wf_places_options *options, struct wf_places **out);
/* NULL: nothing. */
void wf_places_destroy(struct wf_places *places);

/* What a table for so many copies takes, in bytes. */
uint64_t wf_places_bytes(uint64_t copies_max);

/* `node` has a copy, of class 0.  Of one that is known only the class changes.  False: there is no
 * room, or the node has left and is not swept out yet, or its number is not below nodes_max; it is
 * counted as refused. */
bool wf_places_add(struct wf_places *places, const uint8_t key[32], uint16_t node);
/* The same, of that class. */
bool wf_places_add_as(struct wf_places *places, const uint8_t key[32], uint16_t node,
                      unsigned class);
/* It has none any more.  False: none was known. */
bool wf_places_remove(struct wf_places *places, const uint8_t key[32], uint16_t node);

/* The node holds nothing any more: at once for all who ask, O(1).  Its words go with the sweep. */
void wf_places_leave(struct wf_places *places, uint16_t node);
/* Look at up to so many buckets for words of nodes that have left.  True: there are none (left),
 * and their numbers may be used again. */
bool wf_places_sweep(struct wf_places *places, uint64_t buckets_max);
/* Nobody holds anything.  Writes the whole table. */
void wf_places_clear(struct wf_places *places);

/* Who holds it in a class up to `worst`, in no order: up to `max` of them.  Returns how many were
 * written. */
uint32_t wf_places_holders(const struct wf_places *places, const uint8_t key[32], unsigned worst,
                           uint16_t *out, uint32_t max);
/* The best class in which anybody holds it, and in which that node does; more than
 * WF_PLACES_CLASS_MAX: in none. */
unsigned wf_places_best(const struct wf_places *places, const uint8_t key[32]);
unsigned wf_places_class(const struct wf_places *places, const uint8_t key[32], uint16_t node);
bool wf_places_holds(const struct wf_places *places, const uint8_t key[32], uint16_t node);
/* How many hold it, counted up to `enough`: with 2, whether one copy is the last. */
uint32_t wf_places_count(const struct wf_places *places, const uint8_t key[32], uint32_t enough);
/* How many copies a node has. */
uint64_t wf_places_of(const struct wf_places *places, uint16_t node);

/* For a chain of keys: how many of its first blocks each node holds in a class up to `worst`,
 * without a hole.
 *
 * `among` is a bitmap of the nodes that count (WF_PLACES_NODE_WORDS(nodes_max)); NULL: all.
 * out_blocks[nodes_max] is written for all nodes, 0 for those that do not count.  Returns the
 * longest.
 *
 * `stride` 1 looks at every key.  Greater: at every stride-th, and halves its way to where prefixes
 * end in between; 0: it halves the whole chain, so that a long one takes little longer than a short
 * one.  That is the same for nodes that hold no block without its parent, as Weft's do; what is
 * wrong about it is a miss at the owner. */
uint32_t wf_places_prefixes(const struct wf_places *places, const uint8_t (*keys)[32],
                            uint32_t count, uint32_t stride, unsigned worst, const uint64_t *among,
                            uint32_t *out_blocks);

void wf_places_stats(const struct wf_places *places, struct wf_places_stats *out);

/* Walks the whole table.  WEFT_E_CORRUPT with a sentence: it is not as it should be. */
enum weft_status wf_places_verify(const struct wf_places *places);

#endif
