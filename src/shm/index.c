/* SPDX-License-Identifier: Apache-2.0 */
#include "shm/index.h"

#include <string.h>
#include <xxhash.h>

#include "sys/clock.h"

/* How far an entry may lie from its home bucket.  At a load of 4/5 with 7 entries a bucket, runs of
 * more than a few full buckets do not occur in practice; the cap bounds what a reader of a hostile
 * segment does. */
#define PROBE_MAX 64

/* A look at a slot in EVICTING is repeated this often before it counts as a miss. */
#define EVICTING_SPINS 400
#define EVICTING_NAPS 2000
#define EVICTING_NAP_NS 50000u

static uint64_t buckets_for(uint32_t slots_max)
{
    uint64_t buckets = ((uint64_t)slots_max * 5 / 4 + WF_BUCKET_ENTRIES - 1) / WF_BUCKET_ENTRIES;
    return buckets + PROBE_MAX; /* the last homes need room behind them: the probe never wraps */
}

uint64_t wf_index_bytes(uint32_t slots_max, uint32_t far_blocks_max)
{
    uint64_t bytes = WF_PAGE + (uint64_t)slots_max * sizeof(struct wf_desc) +
                     buckets_for(slots_max) * sizeof(struct wf_bucket) +
                     (far_blocks_max ? wf_far_bytes(far_blocks_max, NULL) : 0);
    return (bytes + WF_PAGE - 1) / WF_PAGE * WF_PAGE;
}

static uint64_t header_checksum(const struct wf_index_header *header)
{
    return XXH3_64bits(header, offsetof(struct wf_index_header, checksum));
}

/* `header` is what was checked: never read a second time from memory that someone may change. */
static void locate(struct wf_index *index, void *memory, const struct wf_index_header *header)
{
    index->header = memory;
    index->desc = (struct wf_desc *)(void *)((char *)memory + header->desc_offset);
    index->buckets = (struct wf_bucket *)(void *)((char *)memory + header->bucket_offset);
    index->slots_max = header->slots_max;
    index->bucket_count = header->bucket_count;
    index->pool_bytes = header->pool_bytes;
    index->far.buckets = (struct wf_bucket *)(void *)((char *)memory + header->far_offset);
    index->far.bucket_count = header->far_bucket_count;
    index->speeds = (struct wf_tier_speed *)(void *)((char *)memory + WF_SPEEDS_OFFSET);
    index->lossy = (_Atomic uint32_t *)(void *)((char *)memory + WF_LOSSY_OFFSET);
}

enum weft_status wf_index_format(void *memory, uint64_t bytes, const struct wf_index_shape *shape,
                                 struct wf_index *out)
{
    static_assert(sizeof(struct wf_index_header) <= WF_OWNER_OFFSET, "header below the mutex");
    static_assert(WF_OWNER_OFFSET + sizeof(pthread_mutex_t) <= WF_SPEEDS_OFFSET, "mutex below");
    uint64_t bucket_count = buckets_for(shape->slots_max), far_bucket_count = 0;
    if (bytes < wf_index_bytes(shape->slots_max, shape->far_blocks_max))
        return wf_fail(WEFT_E_INVALID, "an index of %u slots does not fit %llu bytes",
                       shape->slots_max, (unsigned long long)bytes);
    if (shape->far_blocks_max)
        (void)wf_far_bytes(shape->far_blocks_max, &far_bucket_count);
    struct wf_index_header *header = memory;
    *header = (struct wf_index_header){
        .magic = WF_INDEX_MAGIC,
        .version = WF_LAYOUT_VERSION,
        .slots_max = shape->slots_max,
        .epoch = shape->epoch,
        .bytes = bytes,
        .desc_offset = WF_PAGE,
        .bucket_offset = WF_PAGE + (uint64_t)shape->slots_max * sizeof(struct wf_desc),
        .bucket_count = bucket_count,
        .pool_bytes = shape->pool_bytes,
        .granule_bytes = WF_GRANULE,
        .domain = shape->domain,
        .far_bucket_count = far_bucket_count,
    };
    header->far_offset = header->bucket_offset + bucket_count * sizeof(struct wf_bucket);
    header->checksum = header_checksum(header);
    locate(out, memory, header);

    pthread_mutex_t *owner = (pthread_mutex_t *)(void *)((char *)memory + WF_OWNER_OFFSET);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    int rc = pthread_mutex_init(owner, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (rc != 0 || pthread_mutex_lock(owner) != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot make the index's owner mutex: %s", strerror(rc));
    return WEFT_OK;
}

void wf_index_retire(struct wf_index *index)
{
    pthread_mutex_unlock((pthread_mutex_t *)(void *)((char *)index->header + WF_OWNER_OFFSET));
}

enum weft_status wf_index_attach(void *memory, uint64_t bytes, struct wf_index *out)
{
    struct wf_index_header header;
    if (bytes < WF_PAGE)
        return wf_fail(WEFT_E_PROTOCOL, "the node's index segment has only %llu bytes",
                       (unsigned long long)bytes);
    memcpy(&header, memory, sizeof header);
    if (header.magic != WF_INDEX_MAGIC || header.version != WF_LAYOUT_VERSION ||
        header.checksum != header_checksum(&header))
        return wf_fail(
            WEFT_E_PROTOCOL,
            "the node's index segment is not of version %u; use the libweft that came with weftd",
            WF_LAYOUT_VERSION);
    uint64_t far_least, far_most = bytes / sizeof(struct wf_bucket);
    (void)wf_far_bytes(1, &far_least);
    if (header.bytes != bytes || header.slots_max == 0 || header.slots_max == WF_SLOT_NONE ||
        wf_index_bytes(header.slots_max, 0) > bytes ||
        buckets_for(header.slots_max) != header.bucket_count || header.desc_offset != WF_PAGE ||
        header.bucket_offset != WF_PAGE + (uint64_t)header.slots_max * sizeof(struct wf_desc) ||
        header.far_offset !=
            header.bucket_offset + header.bucket_count * sizeof(struct wf_bucket) ||
        (header.far_bucket_count && header.far_bucket_count < far_least) ||
        header.far_bucket_count > far_most ||
        header.far_offset + header.far_bucket_count * sizeof(struct wf_bucket) > bytes ||
        header.granule_bytes != WF_GRANULE)
        return wf_fail(WEFT_E_PROTOCOL, "the node's index segment contradicts its own size");
    locate(out, memory, &header);
    return WEFT_OK;
}

void wf_desc_key_write(struct wf_desc *desc, const uint8_t key[32])
{
    for (int i = 0; i < 4; i++) {
        uint64_t part;
        memcpy(&part, key + 8 * i, 8);
        atomic_store_explicit(&desc->key[i], part, memory_order_relaxed);
    }
}

void wf_desc_key_read(const struct wf_desc *desc, uint8_t key[32])
{
    for (int i = 0; i < 4; i++) {
        uint64_t part = atomic_load_explicit(&desc->key[i], memory_order_relaxed);
        memcpy(key + 8 * i, &part, 8);
    }
}

struct probe {
    uint64_t part[4];
    uint64_t home;
    uint32_t tag;
};

static struct probe probe_for(const struct wf_index *index, const uint8_t key[32])
{
    struct probe p;
    memcpy(p.part, key, 32);
    /* Multiply-shift maps 32 uniform bits onto any number of buckets; the tag uses others. */
    p.home = ((p.part[0] & 0xffffffffu) * (index->bucket_count - PROBE_MAX)) >> 32;
    p.tag = (uint32_t)(p.part[1] >> 32);
    return p;
}

static bool key_equals(const struct wf_desc *desc, const struct probe *p)
{
    uint64_t difference = 0;
    for (int i = 0; i < 4; i++)
        difference |= atomic_load_explicit(&desc->key[i], memory_order_relaxed) ^ p->part[i];
    return difference == 0;
}

/* Is this slot a committed block with the probed key?  WF_SLOT_EVICTING is an undecided answer. */
static enum wf_slot_state look(const struct wf_index *index, uint32_t slot, const struct probe *p,
                               uint64_t *out_word)
{
    const struct wf_desc *desc = &index->desc[slot];
    /* Acquire: pairs with the release of the word in wf_store's publish, so that key, offset and
     * the payload written before it are seen. */
    uint64_t word = atomic_load_explicit(&desc->word, memory_order_acquire);
    enum wf_slot_state state = wf_word_state(word);
    if ((state != WF_SLOT_COMMITTED && state != WF_SLOT_EVICTING) || !key_equals(desc, p))
        return WF_SLOT_FREE;
    *out_word = word;
    return state;
}

/* COMMITTED: it is there.  EVICTING: the owner is about to say whether it stays.  FREE: no. */
static enum wf_slot_state find(const struct wf_index *index, const struct probe *p,
                               struct wf_found *out)
{
    bool undecided = false;
    for (unsigned step = 0; step < PROBE_MAX; step++) {
        const struct wf_bucket *bucket = &index->buckets[p->home + step];
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++) {
            uint64_t entry = atomic_load_explicit(&bucket->entry[i], memory_order_acquire);
            uint32_t slot = (uint32_t)entry - 1;
            if ((uint32_t)(entry >> 32) != p->tag || (uint32_t)entry == 0 ||
                slot >= index->slots_max)
                continue;
            enum wf_slot_state state = look(index, slot, p, &out->word);
            out->slot = slot;
            if (state == WF_SLOT_COMMITTED)
                return state;
            undecided |= state == WF_SLOT_EVICTING;
        }
        if (atomic_load_explicit(&bucket->passed, memory_order_acquire) == 0)
            break;
    }
    return undecided ? WF_SLOT_EVICTING : WF_SLOT_FREE;
}

bool wf_index_find(const struct wf_index *index, const uint8_t key[32], struct wf_found *out)
{
    struct probe p = probe_for(index, key);
    for (int looks = 0;; looks++) {
        enum wf_slot_state state = find(index, &p, out);
        if (state != WF_SLOT_EVICTING || looks == EVICTING_SPINS + EVICTING_NAPS)
            return state == WF_SLOT_COMMITTED;
        if (looks < EVICTING_SPINS)
            wf_cpu_relax();
        else if (wf_index_alive(index))
            wf_nap(EVICTING_NAP_NS); /* its owner is not running just now */
        else
            return false;
    }
}

bool wf_index_find_own(const struct wf_index *index, const uint8_t key[32], struct wf_found *out)
{
    struct probe p = probe_for(index, key);
    return find(index, &p, out) == WF_SLOT_COMMITTED;
}

enum weft_status wf_index_arrived(const struct wf_index *index, uint32_t at, uint32_t generation,
                                  uint32_t granules, uint32_t *out_progress)
{
    struct wf_desc *desc = &index->desc[at];
    uint64_t word = atomic_load_explicit(&desc->word, memory_order_acquire), before;
    do {
        enum wf_slot_state state = wf_word_state(word);
        if (wf_word_generation(word) != generation)
            return WEFT_MISS;
        if (state == WF_SLOT_COMMITTED || state == WF_SLOT_EVICTING || state == WF_SLOT_DUPLICATE)
            return WEFT_OK;
        *out_progress = atomic_load_explicit(wf_progress_word(desc), memory_order_acquire);
        /* What was read is progress only if it is no checksum yet: if the word is as it was. */
        before = word;
        word = atomic_load_explicit(&desc->word, memory_order_acquire);
    } while (word != before);
    if (*out_progress & WF_PROGRESS_LOST)
        return WEFT_MISS;
    if (*out_progress >= granules)
        return WEFT_OK;
    return wf_word_state(word) == WF_SLOT_RESERVED ? WEFT_PENDING : WEFT_MISS;
}

size_t wf_index_match(const struct wf_index *index, const uint8_t *keys, size_t count)
{
    struct wf_found found;
    size_t present = 0,
           absent = count; /* keys[0, present) are there; keys[absent] is not, or is the end */
    /* The two ends first: a chain that is there in full, or not at all, is the usual case. */
    if (count == 0 || !wf_index_find(index, keys, &found))
        return 0;
    present = 1;
    if (count > 1 && wf_index_find(index, keys + 32 * (count - 1), &found))
        return count;
    absent = count - 1;
    while (count > 1 && present < absent) {
        size_t middle = present + (absent - present) / 2;
        if (wf_index_find(index, keys + 32 * middle, &found))
            present = middle + 1;
        else
            absent = middle;
    }
    return present;
}

static bool there(const struct wf_index *index, const uint8_t key[32])
{
    struct wf_found found;
    /* Below once more: it may have been written there, and gone from DRAM, between the two. */
    return wf_far_find(&index->far, key) >= 0 || wf_index_find(index, key, &found) ||
           wf_far_find(&index->far, key) >= 0;
}

size_t wf_index_match_far(const struct wf_index *index, const uint8_t *keys, size_t count,
                          size_t near)
{
    /* The two ends first, as above. */
    if (index->far.bucket_count == 0 || near == count || !there(index, keys + 32 * near))
        return near;
    if (there(index, keys + 32 * (count - 1)))
        return count;
    size_t present = near + 1, absent = count - 1;
    while (present < absent) {
        size_t middle = present + (absent - present) / 2;
        if (there(index, keys + 32 * middle))
            present = middle + 1;
        else
            absent = middle;
    }
    return present;
}

size_t wf_index_quality(const struct wf_index *index, const uint8_t *keys, size_t present,
                        enum weft_quality *out_worst)
{
    enum weft_quality worst = WEFT_LOSSLESS, quality;
    size_t i = 0;
    *out_worst = WEFT_LOSSLESS;
    /* Acquire: pairs with the release in wf_index_lossy_set(). */
    if (atomic_load_explicit(index->lossy, memory_order_acquire) == 0)
        return present;
    for (; i < present; i++) {
        struct wf_found found;
        if (wf_index_find(index, keys + 32 * i, &found))
            quality = wf_word_quality(found.word);
        else if (wf_far_look(&index->far, keys + 32 * i, &quality) < 0)
            break;
        worst = quality > worst ? quality : worst;
    }
    *out_worst = worst;
    return i;
}

bool wf_index_insert(struct wf_index *index, uint32_t slot)
{
    uint8_t key[32];
    wf_desc_key_read(&index->desc[slot], key);
    struct probe p = probe_for(index, key);
    uint64_t entry = (uint64_t)p.tag << 32 | (slot + 1);
    for (unsigned step = 0; step < PROBE_MAX; step++) {
        struct wf_bucket *bucket = &index->buckets[p.home + step];
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++) {
            if (atomic_load_explicit(&bucket->entry[i], memory_order_relaxed) != 0)
                continue;
            /* Readers must be told to look further before they could need to. */
            for (unsigned passed = 0; passed < step; passed++)
                atomic_fetch_add_explicit(&index->buckets[p.home + passed].passed, 1,
                                          memory_order_release);
            /* Release: whoever finds the entry finds the descriptor (acquire in wf_index_find). */
            atomic_store_explicit(&bucket->entry[i], entry, memory_order_release);
            return true;
        }
    }
    return false;
}

void wf_index_remove(struct wf_index *index, uint32_t slot)
{
    uint8_t key[32];
    wf_desc_key_read(&index->desc[slot], key);
    struct probe p = probe_for(index, key);
    uint64_t entry = (uint64_t)p.tag << 32 | (slot + 1);
    for (unsigned step = 0; step < PROBE_MAX; step++) {
        struct wf_bucket *bucket = &index->buckets[p.home + step];
        for (int i = 0; i < WF_BUCKET_ENTRIES; i++) {
            if (atomic_load_explicit(&bucket->entry[i], memory_order_relaxed) != entry)
                continue;
            atomic_store_explicit(&bucket->entry[i], 0, memory_order_release);
            for (unsigned passed = 0; passed < step; passed++)
                atomic_fetch_sub_explicit(&index->buckets[p.home + passed].passed, 1,
                                          memory_order_release);
            return;
        }
    }
    assert(!"a slot to be removed is in the index");
}
