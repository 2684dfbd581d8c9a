/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/far.h"

#include <string.h>

/* How far from its home bucket an entry may lie, as in the index. */
#define PROBE_MAX 64

#define TIER_MASK 0xffull /* and quality */
#define TIER_BITS 6

uint64_t wf_far_bytes(uint32_t blocks_max, uint64_t *out_bucket_count)
{
    uint64_t buckets = 0;
    if (blocks_max > 0)
        buckets = ((uint64_t)blocks_max * 5 / 4 + WF_BUCKET_ENTRIES - 1) / WF_BUCKET_ENTRIES +
                  PROBE_MAX; /* the last homes need room behind them */
    if (out_bucket_count)
        *out_bucket_count = buckets;
    return buckets * sizeof(struct wf_bucket);
}

struct place {
    struct wf_bucket *home;
    uint64_t tag; /* the word without its tier */
};

/* False: the table is too small to have places. */
static bool place_of(const struct wf_far *far, const uint8_t key[32], struct place *out)
{
    uint64_t first, second;
    if (far->bucket_count <= PROBE_MAX)
        return false;
    memcpy(&first, key, 8);
    memcpy(&second, key + 8, 8);
    /* Multiply-shift maps 32 uniform bits onto any number of buckets; the tag uses others. */
    out->home = &far->buckets[((first & 0xffffffffu) * (far->bucket_count - PROBE_MAX)) >> 32];
    out->tag = second & ~TIER_MASK;
    return true;
}

/* Where the tag's word is, what it was, and in which bucket of the probe; NULL: nowhere.
 *
 * Relaxed loads and stores do, here and below: a word is all that is read of an entry.  One that
 * stays has been counted in `passed` since before it was there, by increments that no other entry's
 * coming and going takes back, so that whoever learned of it in a way that orders the two threads
 * finds it.  Whoever did not may miss what is being written. */
static _Atomic uint64_t *lookup(const struct place *place, unsigned *out_step, uint64_t *out_word)
{
    for (unsigned step = 0; step < PROBE_MAX; step++) {
        struct wf_bucket *bucket = &place->home[step];
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++) {
            uint64_t word = atomic_load_explicit(&bucket->entry[i], memory_order_relaxed);
            if ((word & ~TIER_MASK) != place->tag || (word & TIER_MASK) == 0)
                continue;
            *out_step = step;
            *out_word = word;
            return &bucket->entry[i];
        }
        if (atomic_load_explicit(&bucket->passed, memory_order_relaxed) == 0)
            break;
    }
    return NULL;
}

int wf_far_look(const struct wf_far *far, const uint8_t key[32], enum weft_quality *out)
{
    struct place place;
    unsigned step;
    uint64_t word;
    if (!place_of(far, key, &place) || !lookup(&place, &step, &word))
        return -1;
    unsigned quality = (unsigned)(word >> TIER_BITS) & 3u;
    *out = quality > WEFT_LOSSLESS ? (enum weft_quality)quality : WEFT_LOSSLESS;
    return (int)(word & ((1u << TIER_BITS) - 1)) - 1;
}

int wf_far_find(const struct wf_far *far, const uint8_t key[32])
{
    enum weft_quality ignored;
    return wf_far_look(far, key, &ignored);
}

bool wf_far_set(struct wf_far *far, const uint8_t key[32], unsigned tier, enum weft_quality quality)
{
    struct place place;
    unsigned step;
    uint64_t word;
    assert(tier <= WF_FAR_TIER_MAX);
    if (!place_of(far, key, &place))
        return false;
    _Atomic uint64_t *at = lookup(&place, &step, &word);
    word = place.tag | ((uint64_t)quality & 3u) << TIER_BITS | (tier + 1);
    for (step = 0; !at && step < PROBE_MAX; step++)
        for (int i = 0; i < WF_BUCKET_ENTRIES && !at; i++)
            if (atomic_load_explicit(&place.home[step].entry[i], memory_order_relaxed) == 0) {
                at = &place.home[step].entry[i];
                for (unsigned passed = 0; passed < step; passed++)
                    atomic_fetch_add_explicit(&place.home[passed].passed, 1, memory_order_relaxed);
            }
    if (at)
        atomic_store_explicit(at, word, memory_order_relaxed);
    return at != NULL;
}

void wf_far_clear(struct wf_far *far, const uint8_t key[32])
{
    struct place place;
    unsigned step;
    uint64_t word;
    _Atomic uint64_t *at = place_of(far, key, &place) ? lookup(&place, &step, &word) : NULL;
    if (!at)
        return;
    atomic_store_explicit(at, 0, memory_order_relaxed);
    for (unsigned passed = 0; passed < step; passed++)
        atomic_fetch_sub_explicit(&place.home[passed].passed, 1, memory_order_relaxed);
}
