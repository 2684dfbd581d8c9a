/* SPDX-License-Identifier: Apache-2.0 */
#include "core/places.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hooks.h"
#include "base/reserve.h"

#define SLOTS 8u       /* words of a bucket */
#define LOAD_MAX 0.9   /* of what it is made for; room is found well beyond it */
#define PATHS_MAX 384u /* buckets looked at to make room for one word */
#define AHEAD 16u      /* keys whose lines are asked for before they are needed */
#define PAGES_ASKED 8u /* of one key */
#define WALK_AHEAD 6u  /* pages of one key, likewise, when it has more than one */
#define NODE_MASK 0xffffu
#define CLASS_SHIFT 16
#define FRAGMENT_SHIFT 18
#define NO_CLASS (WF_PLACES_CLASS_MAX + 1)

static_assert(SLOTS * sizeof(uint64_t) == 64, "a bucket is a cache line");
static_assert((AHEAD & (AHEAD - 1)) == 0, "it is the size of a ring");

__extension__ typedef unsigned __int128 wide;

struct wf_places {
    uint64_t *words; /* [buckets * SLOTS] */
    uint64_t buckets, bytes, copies_max;
    uint64_t seed[2];
    uint64_t copies, refused, moves;
    uint64_t leaving; /* copies of nodes that have left */
    uint64_t at;      /* the sweep's next bucket */
    uint32_t nodes_max;
    uint32_t *of;   /* [nodes_max] copies */
    uint64_t *left; /* bitmap of nodes */
};

/* Where the words of a page are: in either bucket. */
struct page {
    uint64_t fragment;
    uint64_t bucket[2];
};

/* ------------------------------------------------------------------------ where a word may be */

/* Folded multiplication, the mixer of wyhash (Wang Yi). */
static uint64_t mix(uint64_t a, uint64_t b)
{
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t scale(uint64_t hash, uint64_t buckets)
{
    return (uint64_t)((wide)hash * buckets >> 64);
}

static uint64_t fragment_of(uint64_t hash)
{
    uint64_t fragment = hash >> FRAGMENT_SHIFT;
    return fragment ? fragment : 1;
}

/* The two buckets of a fragment add up to a number that depends on it alone, so that each is found
 * from the other. */
static uint64_t other_bucket(const struct wf_places *p, uint64_t fragment, uint64_t bucket)
{
    uint64_t sum = scale(mix(fragment ^ p->seed[0], p->seed[1]), p->buckets);
    return sum >= bucket ? sum - bucket : sum + p->buckets - bucket;
}

/* The first page of a key; its second bucket is worked out when it is needed. */
static struct page half_page(const struct wf_places *p, const uint8_t key[32])
{
    uint64_t part[2];
    memcpy(part, key, sizeof part);
    uint64_t hash = mix(part[1] ^ p->seed[1], part[0] ^ p->seed[0]);
    return (struct page){.fragment = fragment_of(part[0]), .bucket = {scale(hash, p->buckets)}};
}

static struct page page_of(const struct wf_places *p, const uint8_t key[32])
{
    struct page page = half_page(p, key);
    page.bucket[1] = other_bucket(p, page.fragment, page.bucket[0]);
    return page;
}

/* The page of a word that lies there, whichever of its buckets that is. */
static struct page page_at(const struct wf_places *p, uint64_t word, uint64_t bucket)
{
    uint64_t fragment = word >> FRAGMENT_SHIFT;
    return (struct page){fragment, {bucket, other_bucket(p, fragment, bucket)}};
}

/* From what both buckets agree on: the order in which they are given must not matter. */
static struct page next_page(const struct wf_places *p, const struct page *page)
{
    uint64_t low = page->bucket[0] < page->bucket[1] ? page->bucket[0] : page->bucket[1];
    uint64_t hash = mix(page->fragment ^ p->seed[1], low ^ p->seed[0] ^ 0x9e3779b97f4a7c15u);
    struct page next = {.fragment = fragment_of(hash)};
    next.bucket[0] = scale(mix(hash, p->seed[0] | 1), p->buckets);
    next.bucket[1] = other_bucket(p, next.fragment, next.bucket[0]);
    return next;
}

static uint64_t *bucket_words(const struct wf_places *p, uint64_t bucket)
{
    return p->words + bucket * SLOTS;
}

static uint64_t word_of(uint64_t fragment, uint16_t node, unsigned class)
{
    return fragment << FRAGMENT_SHIFT | (uint64_t) class << CLASS_SHIFT | (node + 1u);
}

static uint16_t node_of(uint64_t word)
{
    return (uint16_t)((word & NODE_MASK) - 1);
}

static unsigned class_of(uint64_t word)
{
    return (unsigned)(word >> CLASS_SHIFT) & WF_PLACES_CLASS_MAX;
}

static bool in_map(const uint64_t *map, uint16_t node)
{
    return map[node / 64] >> node % 64 & 1;
}

static bool has_left(const struct wf_places *p, uint16_t node)
{
    return p->leaving > 0 && in_map(p->left, node);
}

/* Which words of a bucket have the fragment. */
static unsigned matches(const uint64_t *words, uint64_t fragment)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        mask |= (unsigned)(words[i] >> FRAGMENT_SHIFT == fragment) << i;
    return mask;
}

static uint64_t *empty_slot(const struct wf_places *p, uint64_t bucket)
{
    uint64_t *words = bucket_words(p, bucket);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (words[i] == 0)
            return words + i;
    }
    return NULL;
}

/* The words of a page, up to WF_PLACES_PAGE.  Returns how many. */
static unsigned words_of(const struct wf_places *p, const struct page *page,
                         uint64_t *out[WF_PLACES_PAGE])
{
    unsigned count = 0;
    for (unsigned b = 0; b < 2 && (b == 0 || page->bucket[1] != page->bucket[0]); b++) {
        uint64_t *words = bucket_words(p, page->bucket[b]);
        for (unsigned mask = matches(words, page->fragment); mask; mask &= mask - 1) {
            if (count < WF_PLACES_PAGE)
                out[count++] = words + __builtin_ctz(mask);
        }
    }
    return count;
}

/* A key that many hold has as many pages, and where each is does not depend on what lies there:
 * from the second one on, lines are asked for before they are needed. */
struct walk {
    struct page page, ahead; /* ahead: the furthest that was asked for */
    unsigned between;
};

static void walk_on(const struct wf_places *p, struct walk *walk)
{
    if (!walk->between)
        walk->ahead = walk->page;
    for (; walk->between < WALK_AHEAD; walk->between++) {
        walk->ahead = next_page(p, &walk->ahead);
        __builtin_prefetch(bucket_words(p, walk->ahead.bucket[0]));
        __builtin_prefetch(bucket_words(p, walk->ahead.bucket[1]));
    }
    walk->page = next_page(p, &walk->page);
    walk->between--;
}

/* The node's word of a key; NULL: there is none.  *out_page is the page that it is on, or the last
 * one, which has room. */
static uint64_t *find(const struct wf_places *p, const uint8_t key[32], uint16_t node,
                      struct page *out_page)
{
    for (struct walk walk = {.page = page_of(p, key)};; walk_on(p, &walk)) {
        uint64_t *words[WF_PLACES_PAGE];
        unsigned count = words_of(p, &walk.page, words);
        *out_page = walk.page;
        for (unsigned i = 0; i < count; i++) {
            if (node_of(*words[i]) == node) /* its fragment is the page's */
                return words[i];
        }
        if (count < WF_PLACES_PAGE)
            return NULL;
    }
}

/* ----------------------------------------------------------------------------- making room */

/* A bucket from which room is looked for, and the word before it that would move here. */
struct step {
    uint64_t bucket;
    uint16_t from; /* step; itself: there is none before */
    uint8_t slot;  /* in the bucket of `from` */
};

/* Every word on the way moves on by one; the first bucket's slot becomes free. */
static uint64_t *move_along(struct wf_places *p, const struct step *steps, unsigned last,
                            unsigned slot, uint64_t *empty)
{
    for (;;) {
        uint64_t *word = bucket_words(p, steps[last].bucket) + slot;
        *empty = *word;
        empty = word;
        p->moves++;
        if (steps[last].from == last)
            break;
        slot = steps[last].slot;
        last = steps[last].from;
    }
    *empty = 0;
    return empty;
}

/* The shortest way to a free slot, breadth first; words of nodes that have left do not move, so
 * that the sweep misses none.  NULL: none within PATHS_MAX buckets, and nothing has moved. */
static uint64_t *make_room(struct wf_places *p, const struct page *page)
{
    struct step steps[PATHS_MAX] = {{page->bucket[0], 0, 0}, {page->bucket[1], 1, 0}};
    unsigned count = 2;
    for (unsigned at = 0; at < count; at++) {
        const uint64_t *words = bucket_words(p, steps[at].bucket);
        uint64_t others[SLOTS];
        for (unsigned i = 0; i < SLOTS; i++) {
            others[i] = other_bucket(p, words[i] >> FRAGMENT_SHIFT, steps[at].bucket);
            __builtin_prefetch(bucket_words(p, others[i]));
        }
        for (unsigned i = 0; i < SLOTS; i++) {
            bool again = others[i] == steps[at].bucket || others[i] == steps[steps[at].from].bucket;
            for (unsigned k = 0; k < i; k++)
                again |= others[k] == others[i];
            if (again || has_left(p, node_of(words[i])))
                continue;
            uint64_t *empty = empty_slot(p, others[i]);
            if (empty)
                return move_along(p, steps, at, i, empty);
            if (count < PATHS_MAX)
                steps[count++] = (struct step){others[i], (uint16_t)at, (uint8_t)i};
        }
    }
    return NULL;
}

static uint64_t *slot_for(struct wf_places *p, const struct page *page)
{
    uint64_t *slot = empty_slot(p, page->bucket[0]);
    if (!slot)
        slot = empty_slot(p, page->bucket[1]);
    return slot ? slot : make_room(p, page);
}

/* --------------------------------------------------------------------------- change */

static void forget(struct wf_places *p, uint16_t node)
{
    p->of[node]--;
    p->copies--;
    if (has_left(p, node) && --p->leaving == 0)
        memset(p->left, 0, WF_PLACES_NODE_WORDS(p->nodes_max) * sizeof *p->left);
}

/* The word goes.  If there are pages behind its own, one of the last page's takes its place, unless
 * that is of a node that has left, which goes too: what is swept is never filled with what is not.
 */
static void take_out(struct wf_places *p, const struct page *page, uint64_t *hole)
{
    forget(p, node_of(*hole));
    for (;;) {
        struct page last = *page;
        uint64_t *words[WF_PLACES_PAGE], *behind[WF_PLACES_PAGE];
        unsigned in_last = 0;
        for (unsigned count = words_of(p, page, words); count == WF_PLACES_PAGE;) {
            struct page next = next_page(p, &last);
            count = words_of(p, &next, words);
            if (!count)
                break;
            last = next;
            in_last = count;
            memcpy(behind, words, sizeof behind);
        }
        if (!in_last) {
            *hole = 0;
            return;
        }
        uint16_t node = node_of(*behind[in_last - 1]);
        unsigned class = class_of(*behind[in_last - 1]);
        *behind[in_last - 1] = 0;
        if (!has_left(p, node)) {
            *hole = word_of(page->fragment, node, class);
            return;
        }
        forget(p, node);
    }
}

/* Words of nodes that have left go from the buckets of a page. */
static void reclaim(struct wf_places *p, const struct page *page)
{
    for (unsigned b = 0; b < 2; b++) {
        uint64_t *words = bucket_words(p, page->bucket[b]);
        for (unsigned i = 0; i < SLOTS; i++) {
            if (!words[i] || !has_left(p, node_of(words[i])))
                continue;
            struct page its = page_at(p, words[i], page->bucket[b]);
            take_out(p, &its, words + i);
        }
    }
}

bool wf_places_add_as(struct wf_places *p, const uint8_t key[32], uint16_t node, unsigned class)
{
    struct page page;
    assert(class <= WF_PLACES_CLASS_MAX);
    if (node >= p->nodes_max || has_left(p, node) || p->of[node] == UINT32_MAX) {
        p->refused++;
        return false;
    }
    uint64_t *slot = find(p, key, node, &page);
    if (slot) {
        *slot = word_of(page.fragment, node, class);
        return true;
    }
    slot = slot_for(p, &page);
    /* First from where it would lie; then, as a last resort, from everywhere. */
    for (int all = 0; all < 2 && !slot && p->leaving; all++) {
        if (all)
            (void)wf_places_sweep(p, UINT64_MAX);
        else
            reclaim(p, &page);
        (void)find(p, key, node, &page); /* what went may have been of this key */
        slot = slot_for(p, &page);
    }
    if (!slot) {
        p->refused++;
        return false;
    }
    *slot = word_of(page.fragment, node, class);
    p->of[node]++;
    p->copies++;
    return true;
}

bool wf_places_add(struct wf_places *p, const uint8_t key[32], uint16_t node)
{
    return wf_places_add_as(p, key, node, 0);
}

bool wf_places_remove(struct wf_places *p, const uint8_t key[32], uint16_t node)
{
    struct page page;
    if (node >= p->nodes_max || has_left(p, node))
        return false;
    uint64_t *word = find(p, key, node, &page);
    if (word)
        take_out(p, &page, word);
    return word != NULL;
}

void wf_places_leave(struct wf_places *p, uint16_t node)
{
    if (node >= p->nodes_max || p->of[node] == 0 || has_left(p, node))
        return;
    p->left[node / 64] |= (uint64_t)1 << node % 64;
    p->leaving += p->of[node];
}

bool wf_places_sweep(struct wf_places *p, uint64_t buckets_max)
{
    for (; p->leaving > 0 && buckets_max > 0; buckets_max--) {
        uint64_t *words = bucket_words(p, p->at);
        for (unsigned i = 0; i < SLOTS && p->leaving > 0; i++) {
            if (words[i] && has_left(p, node_of(words[i]))) {
                struct page page = page_at(p, words[i], p->at);
                take_out(p, &page, words + i);
            }
        }
        p->at = p->at + 1 < p->buckets ? p->at + 1 : 0;
    }
    return p->leaving == 0;
}

void wf_places_clear(struct wf_places *p)
{
    memset(p->words, 0, p->bytes);
    memset(p->of, 0, p->nodes_max * sizeof *p->of);
    memset(p->left, 0, WF_PLACES_NODE_WORDS(p->nodes_max) * sizeof *p->left);
    p->copies = p->leaving = 0;
}

/* --------------------------------------------------------------------------- questions */

uint32_t wf_places_holders(const struct wf_places *p, const uint8_t key[32], unsigned worst,
                           uint16_t *out, uint32_t max)
{
    struct page page = page_of(p, key);
    for (uint32_t found = 0;;) {
        uint64_t *words[WF_PLACES_PAGE];
        unsigned count = words_of(p, &page, words);
        for (unsigned i = 0; i < count && found < max; i++) {
            if (class_of(*words[i]) <= worst && !has_left(p, node_of(*words[i])))
                out[found++] = node_of(*words[i]);
        }
        if (count < WF_PLACES_PAGE || found >= max)
            return found;
        page = next_page(p, &page);
    }
}

uint32_t wf_places_count(const struct wf_places *p, const uint8_t key[32], uint32_t enough)
{
    struct page page = page_of(p, key);
    for (uint32_t found = 0;;) {
        uint64_t *words[WF_PLACES_PAGE];
        unsigned count = words_of(p, &page, words);
        for (unsigned i = 0; i < count && found < enough; i++)
            found += !has_left(p, node_of(*words[i]));
        if (count < WF_PLACES_PAGE || found >= enough)
            return found;
        page = next_page(p, &page);
    }
}

unsigned wf_places_best(const struct wf_places *p, const uint8_t key[32])
{
    struct page page = page_of(p, key);
    for (unsigned best = NO_CLASS;;) {
        uint64_t *words[WF_PLACES_PAGE];
        unsigned count = words_of(p, &page, words);
        for (unsigned i = 0; i < count; i++) {
            if (class_of(*words[i]) < best && !has_left(p, node_of(*words[i])))
                best = class_of(*words[i]);
        }
        if (count < WF_PLACES_PAGE || best == 0)
            return best;
        page = next_page(p, &page);
    }
}

unsigned wf_places_class(const struct wf_places *p, const uint8_t key[32], uint16_t node)
{
    struct page page;
    const uint64_t *word = node < p->nodes_max && !has_left(p, node) ? find(p, key, node, &page)
                                                                     : NULL;
    return word ? class_of(*word) : NO_CLASS;
}

bool wf_places_holds(const struct wf_places *p, const uint8_t key[32], uint16_t node)
{
    return wf_places_class(p, key, node) <= WF_PLACES_CLASS_MAX;
}

uint64_t wf_places_of(const struct wf_places *p, uint16_t node)
{
    return node < p->nodes_max && !has_left(p, node) ? p->of[node] : 0;
}

/* Which nodes count, and in which class. */
struct counted {
    const uint64_t *among; /* NULL: all */
    unsigned worst;
};

/* Nodes whose prefix is `had` long and that hold this key get one of `has`.  Stops when `need` are
 * found; returns how many were. */
static uint32_t lengthen(const struct wf_places *p, struct page page, uint32_t had, uint32_t has,
                         uint32_t need, const struct counted *counted, uint32_t *blocks)
{
    for (uint32_t found = 0;;) {
        unsigned words = 0;
        for (unsigned b = 0; b < 2; b++) {
            if (b == 1)
                page.bucket[1] = other_bucket(p, page.fragment, page.bucket[0]);
            if (b == 1 && page.bucket[1] == page.bucket[0])
                break;
            const uint64_t *bucket = bucket_words(p, page.bucket[b]);
            for (unsigned mask = matches(bucket, page.fragment); mask; mask &= mask - 1) {
                uint64_t word = bucket[__builtin_ctz(mask)];
                uint16_t node = node_of(word);
                words++;
                if (blocks[node] != had || class_of(word) > counted->worst ||
                    (counted->among && !in_map(counted->among, node)) || has_left(p, node))
                    continue;
                blocks[node] = has;
                if (++found == need)
                    return found;
            }
        }
        if (words < WF_PLACES_PAGE)
            return found;
        page = next_page(p, &page);
    }
}

static void ask_for_half(const struct wf_places *p, const uint8_t (*keys)[32], uint32_t low,
                         uint32_t high)
{
    struct page page = page_of(p, keys[low + (high - low) / 2]);
    __builtin_prefetch(bucket_words(p, page.bucket[0]));
    __builtin_prefetch(bucket_words(p, page.bucket[1]));
}

/* So many nodes hold keys[low] and not keys[high]: where their prefixes end.  One look finds all
 * nodes' that end on the same side; as deep as the chain is halved. */
static void halve(const struct wf_places *p, const uint8_t (*keys)[32], uint32_t low, uint32_t high,
                  uint32_t alive, const struct counted *counted, uint32_t *blocks)
{
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        ask_for_half(p, keys, low, middle);
        ask_for_half(p, keys, middle, high);
        uint32_t found = lengthen(p, half_page(p, keys[middle]), low + 1, middle + 1, alive,
                                  counted, blocks);
        if (found == 0) {
            high = middle;
            continue;
        }
        if (found < alive)
            halve(p, keys, low, middle, alive - found, counted, blocks);
        alive = found;
        low = middle;
    }
}

static uint32_t step_on(uint32_t at, uint32_t stride, uint32_t count)
{
    return count - 1 - at > stride ? at + stride : count - 1;
}

/* Ask for the lines of a key that so many nodes may hold.  Its pages are where they are without a
 * look at memory. */
static void ask_for(const struct wf_places *p, struct page page, uint32_t holders)
{
    __builtin_prefetch(bucket_words(p, page.bucket[0]));
    for (uint32_t pages = 1; holders > WF_PLACES_PAGE && pages < PAGES_ASKED; pages++) {
        page.bucket[1] = other_bucket(p, page.fragment, page.bucket[0]);
        __builtin_prefetch(bucket_words(p, page.bucket[1]));
        page = next_page(p, &page);
        __builtin_prefetch(bucket_words(p, page.bucket[0]));
        holders -= WF_PLACES_PAGE;
    }
}

uint32_t wf_places_prefixes(const struct wf_places *p, const uint8_t (*keys)[32], uint32_t count,
                            uint32_t stride, unsigned worst, const uint64_t *among,
                            uint32_t *out_blocks)
{
    struct page ring[AHEAD];
    const struct counted counted = {among, worst};
    uint32_t alive = UINT32_MAX, longest = 0, last = 0, asked = 0, asked_at = 0;
    memset(out_blocks, 0, p->nodes_max * sizeof *out_blocks);
    if (!count || p->copies == 0)
        return 0;
    stride = stride ? stride : count;
    for (uint32_t at = 0, looked = 0;; at = step_on(at, stride, count), looked++) {
        /* asked: how many lines were asked for; asked_at: the key of the next one. */
        while (asked < looked + AHEAD && asked_at < count) {
            struct page *page = &ring[asked++ % AHEAD];
            *page = half_page(p, keys[asked_at]);
            ask_for(p, *page, alive <= p->nodes_max ? alive : 1);
            asked_at = asked_at < count - 1 ? step_on(asked_at, stride, count) : count;
        }
        uint32_t found = lengthen(p, ring[looked % AHEAD], longest, at + 1, alive, &counted,
                                  out_blocks);
        if (found < alive && at - last > 1)
            halve(p, keys, last, at, alive - found, &counted, out_blocks);
        if (found)
            longest = at + 1;
        if (!found || at == count - 1)
            break;
        alive = found;
        last = at;
    }
    if (stride > 1) {
        for (uint32_t node = 0; node < p->nodes_max; node++)
            longest = out_blocks[node] > longest ? out_blocks[node] : longest;
    }
    return longest;
}

/* --------------------------------------------------------------------------- the table */

static uint64_t buckets_for(uint64_t copies_max)
{
    uint64_t buckets = (uint64_t)((double)copies_max / (SLOTS * LOAD_MAX)) + 1;
    return buckets < 4 ? 4 : buckets;
}

uint64_t wf_places_bytes(uint64_t copies_max)
{
    return buckets_for(copies_max) * SLOTS * sizeof(uint64_t);
}

static void *get(size_t count, size_t bytes)
{
    return WF_FAILS("calloc") ? NULL : calloc(count, bytes);
}

enum weft_status wf_places_create(const struct wf_places_options *options, struct wf_places **out)
{
    uint32_t nodes_max = options->nodes_max ? options->nodes_max : WF_PLACES_NODES_MAX;
    if (nodes_max > WF_PLACES_NODES_MAX || !options->copies_max ||
        options->copies_max > WF_PLACES_COPIES_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "a table of %llu copies on %u nodes; it takes 1 to %llu on up to %u",
                       (unsigned long long)options->copies_max, nodes_max,
                       (unsigned long long)WF_PLACES_COPIES_MAX, WF_PLACES_NODES_MAX);
    struct wf_places *p = get(1, sizeof *p);
    if (!p)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a table of places");
    p->copies_max = options->copies_max;
    p->nodes_max = nodes_max;
    p->buckets = buckets_for(options->copies_max);
    p->bytes = wf_places_bytes(options->copies_max);
    p->seed[0] = mix(options->seed ^ 0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu);
    p->seed[1] = mix(options->seed ^ 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u);
    p->of = get(nodes_max, sizeof *p->of);
    p->left = get(WF_PLACES_NODE_WORDS(nodes_max), sizeof *p->left);
    p->words = wf_reserve(p->bytes, "the table of places", "make it smaller");
    if (!p->of || !p->left || !p->words) {
        wf_places_destroy(p);
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for %llu places of blocks; ask for fewer",
                       (unsigned long long)options->copies_max);
    }
    *out = p;
    return WEFT_OK;
}

void wf_places_destroy(struct wf_places *p)
{
    if (!p)
        return;
    wf_unreserve(p->words, p->bytes);
    free(p->of);
    free(p->left);
    free(p);
}

void wf_places_stats(const struct wf_places *p, struct wf_places_stats *out)
{
    *out = (struct wf_places_stats){
        .copies = p->copies,
        .copies_max = p->copies_max,
        .bytes = p->bytes,
        .load = (double)p->copies / (double)(p->buckets * SLOTS),
        .refused = p->refused,
        .leaving = p->leaving,
        .moves = p->moves,
    };
}

static enum weft_status broken(uint64_t bucket, const char *what)
{
    return wf_fail(WEFT_E_CORRUPT, "the table of places, bucket %llu: %s",
                   (unsigned long long)bucket, what);
}

enum weft_status wf_places_verify(const struct wf_places *p)
{
    uint64_t copies = 0, leaving = 0;
    enum weft_status status = WEFT_OK;
    uint32_t *of = get(p->nodes_max, sizeof *of);
    if (!of)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory to verify a table of places");
    for (uint64_t b = 0; status == WEFT_OK && b < p->buckets * SLOTS; b++) {
        uint64_t word = p->words[b];
        if (!word)
            continue;
        struct page page = page_at(p, word, b / SLOTS);
        unsigned words = 0, same = 0;
        for (unsigned k = 0; k < 2 && (k == 0 || page.bucket[1] != page.bucket[0]); k++) {
            for (unsigned i = 0; i < SLOTS; i++) {
                uint64_t other = bucket_words(p, page.bucket[k])[i];
                words += other >> FRAGMENT_SHIFT == page.fragment;
                same += other >> FRAGMENT_SHIFT == page.fragment && node_of(other) == node_of(word);
            }
        }
        if ((word & NODE_MASK) == 0 || node_of(word) >= p->nodes_max)
            status = broken(b / SLOTS, "a word of no node");
        else if (words > WF_PLACES_PAGE)
            status = broken(b / SLOTS, "a page of too many words");
        else if (same > 1)
            status = broken(b / SLOTS, "a copy twice");
        else
            of[node_of(word)]++;
        copies++;
        leaving += status == WEFT_OK && has_left(p, node_of(word));
    }
    if (status == WEFT_OK && (copies != p->copies || leaving != p->leaving))
        status = broken(p->buckets, "copies that were not counted");
    for (uint32_t node = 0; status == WEFT_OK && node < p->nodes_max; node++) {
        if (of[node] != p->of[node])
            status = broken(p->buckets, "copies of a node that were not counted");
    }
    free(of);
    return status;
}
