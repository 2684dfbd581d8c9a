/* SPDX-License-Identifier: Apache-2.0
 *
 * The reader's side of a shared CXL device.
 *
 * A host's row counts its publications; where that count has moved, the lines of its extents tell
 * which directories have changed, and those are read again.  The counts are written after what they
 * count, so a change that is not seen yet is seen next time.  What is remembered is a hint: find()
 * believes nothing but what it reads anew, past this host's caches.
 *
 * A key may lie in two extents: two hosts have published it, or one host has taken it back and
 * published it anew, and of the two extents the one that has it now was read first.  The place that
 * was known first stays known, the other is remembered as covered by it; when the first goes, the
 * extent of the other is read again, so that no block is lost for having moved.
 *
 * Extents are looked at in a ring.  A publication has all of them looked at from where the ring is,
 * and not from the first: a host that publishes all the time would keep the last from ever being
 * looked at.
 */
#include "tier/cxl_share.h"

#include <stdlib.h>
#include <string.h>

#include "base/sum.h"
#include "sys/lines.h"
#include "sys/memory.h"
#include "tier/cxl_volume.h"

struct seen {
    uint64_t word, changes;
};

/* What one extent's reading came to, to be told when the medium is not touched any more. */
struct news {
    uint32_t gone_count, fresh_count;
    uint8_t gone[WF_CXL_EXTENT_GRANULES][32];
    uint32_t fresh[WF_CXL_EXTENT_GRANULES]; /* items */
};

struct wf_cxl_share {
    struct wf_cxl *volume;
    void (*told)(void *context, const struct wf_tier_block *block, bool there);
    void *context;
    struct news news;
    uint64_t bytes;               /* of blocks that are known */
    uint64_t owned[WF_CXL_HOSTS]; /* extents, by `extents` */
    struct wf_tier_index index;
    struct wf_tier_index
        covered; /* by blocks of the same keys in `index`; a key may be there twice */
    struct seen *extents;
    uint64_t published[WF_CXL_HOSTS];
    uint64_t cursor; /* the extent to be looked at next */
    uint64_t to_go;  /* extents to be looked at from there */
    struct wf_cxl_share_stats stats;
    uint64_t header[(WF_CXL_HEADER_MAX + 7) / 8];
};

static struct wf_cxl_header *header_of(struct wf_cxl_share *s)
{
    return (struct wf_cxl_header *)(void *)s->header;
}

enum weft_status wf_cxl_share_create(struct wf_tier *tier, struct wf_cxl_share **out)
{
    struct wf_cxl *volume = (struct wf_cxl *)(uintptr_t)tier;
    if (!volume->shared)
        return wf_fail(WEFT_E_INVALID, "tier %s: it is not shared; open it with a host number",
                       volume->path);
    struct wf_cxl_share *s = wf_calloc(1, sizeof *s, "a shared device");
    if (!s)
        return WEFT_E_NO_MEMORY;
    s->volume = volume;
    s->owned[0] = volume->extents;
    s->extents = wf_calloc(volume->extents, sizeof *s->extents, "extents of a shared device");
    s->to_go = volume->extents;
    uint64_t blocks = wf_cxl_granules(volume) / 2;
    uint32_t extents = (uint32_t)volume->extents;
    enum weft_status status = s->extents ? wf_tier_index_init(&s->index, blocks, extents)
                                         : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK)
        status = wf_tier_index_init(&s->covered, blocks, extents);
    if (status != WEFT_OK) {
        wf_cxl_share_destroy(s);
        return status;
    }
    *out = s;
    return WEFT_OK;
}

void wf_cxl_share_destroy(struct wf_cxl_share *s)
{
    if (!s)
        return;
    if (s->index.items)
        wf_tier_index_fini(&s->index);
    if (s->covered.items)
        wf_tier_index_fini(&s->covered);
    free(s->extents);
    free(s);
}

static enum weft_status out_of_use(const struct wf_cxl *t)
{
    return wf_fail(WEFT_E_SYSTEM, "tier %s: the medium is gone; open it again", t->path);
}

/* ---- what has changed */

/* Have an extent read again, whatever its counts say. */
static void look_again(struct wf_cxl_share *s, uint64_t extent)
{
    uint64_t ahead = (extent + s->volume->extents - s->cursor) % s->volume->extents;
    s->extents[extent].changes = ~s->extents[extent].changes;
    if (s->to_go <= ahead)
        s->to_go = ahead + 1;
}

/* A block is known no more: where its key lies besides is to be read again. */
static void uncover(struct wf_cxl_share *s, const uint8_t key[32])
{
    uint32_t item;
    while ((item = wf_tier_index_find(&s->covered, key)) != WF_TIER_NONE) {
        look_again(s, s->covered.items[item].group);
        wf_tier_index_remove(&s->covered, item);
    }
}

static void forget(struct wf_cxl_share *s, uint32_t item)
{
    uint8_t *key = s->news.gone[s->news.gone_count++];
    memcpy(key, s->index.items[item].key, 32);
    s->bytes -= s->index.items[item].bytes;
    wf_tier_index_remove(&s->index, item);
    uncover(s, key);
}

/* Blocks that are known of an extent and are not there any more; sets the bits of those that are.
 * Touches the medium. */
static void drop_old(struct wf_cxl_share *s, struct wf_tier_index *index, uint64_t extent,
                     bool foreign, uint64_t *known)
{
    const struct wf_cxl_directory *directory = &s->volume->directories[extent];
    for (uint32_t item = index->heads[extent], next; item != WF_TIER_NONE; item = next) {
        const struct wf_tier_item *i = &index->items[item];
        uint64_t word = __atomic_load_n(&directory->words[i->offset], __ATOMIC_ACQUIRE);
        next = i->list_next;
        if (foreign && word >> 16 == i->sequence)
            known[i->offset / 64] |= UINT64_C(1) << i->offset % 64;
        else if (index == &s->index)
            forget(s, item);
        else
            wf_tier_index_remove(index, item);
    }
}

/* One extent's directory, as it is now.  Touches the medium. */
static void read_extent(struct wf_cxl_share *s, uint64_t extent, uint8_t owner)
{
    struct wf_cxl *t = s->volume;
    const struct wf_cxl_directory *directory = &t->directories[extent];
    bool foreign = owner != 0 && owner != t->host;
    uint64_t known[WF_CXL_EXTENT_GRANULES / 64] = {0};
    s->news.gone_count = s->news.fresh_count = 0;
    wf_lines_invalidate(directory, sizeof *directory);
    drop_old(s, &s->index, extent, foreign, known);
    drop_old(s, &s->covered, extent, foreign, known); /* after what may have uncovered some */
    if (!foreign)
        return;
    s->stats.scanned++;
    for (uint32_t i = 0; i < WF_CXL_EXTENT_GRANULES; i++) {
        uint64_t word = __atomic_load_n(&directory->words[i], __ATOMIC_ACQUIRE);
        uint64_t granule = extent * WF_CXL_EXTENT_GRANULES + i;
        struct wf_tier_block block;
        if (word == 0 || known[i / 64] >> i % 64 & 1 ||
            !wf_cxl_header_read(t, granule, word, owner, header_of(s)))
            continue;
        wf_cxl_header_block(header_of(s), &block);
        bool second = wf_tier_index_find(&s->index, block.key) != WF_TIER_NONE;
        uint32_t item = wf_tier_index_insert(second ? &s->covered : &s->index, &block, word >> 16,
                                             (uint32_t)extent, i);
        if (second || item == WF_TIER_NONE)
            continue;
        s->bytes += block.bytes;
        s->news.fresh[s->news.fresh_count++] = item;
    }
}

static void tell(struct wf_cxl_share *s)
{
    struct wf_tier_block block = {.bytes = 0};
    for (uint32_t i = 0; s->told && i < s->news.gone_count; i++) {
        memcpy(block.key, s->news.gone[i], 32);
        s->told(s->context, &block, false);
    }
    for (uint32_t i = 0; s->told && i < s->news.fresh_count; i++) {
        wf_tier_index_block(&s->index, s->news.fresh[i], &block);
        s->told(s->context, &block, true);
    }
    s->news.gone_count = s->news.fresh_count = 0;
}

struct refresh {
    struct wf_cxl_share *s;
    uint64_t left; /* extents that may be looked at */
    struct seen now;
    bool begun;
    enum weft_status status; /* WEFT_EXISTS: an extent was read, and there is something to tell */
};

static bool anyone_published(struct wf_cxl_share *s)
{
    struct wf_cxl *t = s->volume;
    bool changed = false;
    for (uint32_t h = 1; h < WF_CXL_HOSTS; h++) {
        uint64_t published = h == t->host ? 0 : wf_cxl_look(t, &t->rows[h].published);
        changed = changed || published != s->published[h];
        s->published[h] = published;
    }
    return changed;
}

static void count_owner(struct wf_cxl_share *s, uint64_t extent, uint64_t word)
{
    uint64_t before = s->extents[extent].word;
    s->owned[before ? wf_cxl_owner(before) : 0]--;
    s->owned[word ? wf_cxl_owner(word) : 0]++;
}

static void go_on(struct wf_cxl_share *s)
{
    s->cursor = (s->cursor + 1) % s->volume->extents;
    s->to_go--;
}

/* Up to the end of one extent that is not as it was. */
static void refresh(void *context)
{
    struct refresh *r = context;
    struct wf_cxl_share *s = r->s;
    struct wf_cxl *t = s->volume;
    if (!r->begun && anyone_published(s))
        s->to_go = t->extents;
    r->begun = true;
    for (; s->to_go > 0; go_on(s)) {
        struct wf_cxl_extent *extent = &t->table[s->cursor];
        if (r->left == 0) {
            r->status = WEFT_PENDING;
            return;
        }
        r->left--;
        r->now = s->extents[s->cursor];
        r->now.word = wf_cxl_extent_word(t, s->cursor);
        r->now.changes = wf_cxl_look(t, &extent->changes);
        if (r->now.word == s->extents[s->cursor].word &&
            r->now.changes == s->extents[s->cursor].changes)
            continue;
        read_extent(s, s->cursor, r->now.word ? wf_cxl_owner(r->now.word) : 0);
        r->status = WEFT_EXISTS;
        return;
    }
    r->status = WEFT_OK;
}

enum weft_status wf_cxl_share_refresh(struct wf_cxl_share *s, uint64_t extents_max)
{
    struct refresh r = {.s = s, .left = extents_max ? extents_max : UINT64_MAX};
    do {
        enum wf_fault fault = s->volume->failed ? WF_FAULT_GONE
                                                : wf_cxl_guarded(s->volume, refresh, &r);
        if (fault == WF_FAULT_GONE)
            return out_of_use(s->volume);
        if (fault == WF_FAULT_POISON && !r.begun)
            return out_of_use(s->volume); /* not in an extent: in the rows of hosts */
        if (fault == WF_FAULT_NONE && r.status != WEFT_EXISTS)
            break;
        /* A line that is lost takes along what was not read of that extent, until it changes. */
        s->stats.corrupt += fault == WF_FAULT_POISON;
        tell(s);
        count_owner(s, s->cursor, r.now.word);
        s->extents[s->cursor] = r.now;
        go_on(s);
        r.status = WEFT_EXISTS;
    } while (r.status == WEFT_EXISTS);
    return r.status;
}

void wf_cxl_share_again(struct wf_cxl_share *s)
{
    if (s->to_go == 0)
        s->to_go = s->volume->extents;
}

void wf_cxl_share_listen(struct wf_cxl_share *s,
                         void (*told)(void *context, const struct wf_tier_block *block, bool there),
                         void *context)
{
    s->told = told;
    s->context = context;
}

/* ---- one block */

struct looking {
    struct wf_cxl_share *s;
    struct wf_cxl_header *header;
    bool payload; /* look at that, too */
    uint64_t granule, sequence;
    const uint8_t *key;
    struct wf_cxl_view view;
    enum weft_status status;
};

static bool payload_right(struct wf_cxl_share *s, const uint8_t *data,
                          const struct wf_tier_block *b)
{
    const struct wf_cxl_header *h = header_of(s);
    wf_lines_invalidate(data, b->bytes);
    for (uint32_t part = 0; part < h->parts; part++)
        if (wf_sum64(data + (uint64_t)part * b->part_bytes, wf_tier_part_bytes(b, part)) !=
            h->sums[part])
            return false;
    return true;
}

/* Is the block still the one whose word and generation were read? */
static bool is_there(const struct wf_cxl *t, uint64_t granule, uint64_t word, uint64_t generation)
{
    uint64_t extent = wf_cxl_extent_word(t, granule / WF_CXL_EXTENT_GRANULES);
    return wf_cxl_look(t, wf_cxl_word(t, granule)) == word && extent != 0 &&
           wf_cxl_generation(extent) == generation;
}

static void look_at(void *context)
{
    struct looking *l = context;
    struct wf_cxl *t = l->s->volume;
    struct wf_cxl_view *v = &l->view;
    uint64_t extent = wf_cxl_extent_word(t, l->granule / WF_CXL_EXTENT_GRANULES);
    v->word = wf_cxl_look(t, wf_cxl_word(t, l->granule));
    v->granule = l->granule;
    v->host = extent ? wf_cxl_owner(extent) : 0;
    v->generation = wf_cxl_generation(extent);
    l->status = WEFT_MISS;
    if (v->host == 0 || v->host == t->host || v->word >> 16 != l->sequence)
        return;
    const struct wf_cxl_header *h = l->header;
    bool right = wf_cxl_header_read(t, l->granule, v->word, v->host, l->header) &&
                 memcmp(h->key, l->key, 32) == 0;
    if (right) {
        wf_cxl_header_block(h, &v->block);
        v->data = wf_cxl_granule(t, l->granule + wf_cxl_header_granules(h->parts));
        right = !l->payload || payload_right(l->s, v->data, &v->block);
    }
    /* What is wrong and was written over meanwhile is nobody's fault. */
    if (is_there(t, l->granule, v->word, v->generation))
        l->status = right ? WEFT_OK : WEFT_E_CORRUPT;
}

static enum weft_status look_up(struct wf_cxl_share *s, struct looking *l)
{
    uint32_t item = wf_tier_index_find(&s->index, l->key);
    if (s->volume->failed)
        return out_of_use(s->volume);
    if (item == WF_TIER_NONE) {
        s->stats.missed++;
        return WEFT_MISS;
    }
    const struct wf_tier_item *i = &s->index.items[item];
    l->s = s;
    l->sequence = i->sequence;
    l->granule = (uint64_t)i->group * WF_CXL_EXTENT_GRANULES + i->offset;
    enum wf_fault fault = wf_cxl_guarded(s->volume, look_at, l);
    if (fault == WF_FAULT_GONE)
        return out_of_use(s->volume);
    if (fault == WF_FAULT_POISON)
        l->status = WEFT_E_CORRUPT;
    if (l->status == WEFT_OK) {
        s->stats.found++;
        return WEFT_OK;
    }
    s->bytes -= i->bytes;
    wf_tier_index_remove(&s->index, item);
    uncover(s, l->key);
    if (l->status == WEFT_MISS) {
        s->stats.missed++;
        return WEFT_MISS;
    }
    s->stats.corrupt++;
    return wf_fail(WEFT_E_CORRUPT, "tier %s: a block of host %u is not what its checksum says",
                   s->volume->path, l->view.host);
}

enum weft_status wf_cxl_share_find(struct wf_cxl_share *s, const uint8_t key[32],
                                   struct wf_cxl_view *out)
{
    struct looking l = {.key = key, .header = header_of(s), .payload = true};
    enum weft_status status = look_up(s, &l);
    if (status == WEFT_OK)
        *out = l.view;
    return status;
}

enum weft_status wf_cxl_share_locate(struct wf_cxl_share *s, const uint8_t key[32],
                                     struct wf_cxl_header *header, struct wf_cxl_view *out)
{
    struct looking l = {.key = key, .header = header};
    enum weft_status status = look_up(s, &l);
    if (status == WEFT_OK)
        *out = l.view;
    return status;
}

bool wf_cxl_share_known(const struct wf_cxl_share *s, const uint8_t key[32],
                        struct wf_tier_block *out)
{
    uint32_t item = wf_tier_index_find(&s->index, key);
    if (item != WF_TIER_NONE && out)
        wf_tier_index_block(&s->index, item, out);
    return item != WF_TIER_NONE;
}

struct checking {
    const struct wf_cxl *t;
    const struct wf_cxl_view *view;
    bool there;
};

static void check(void *context)
{
    struct checking *c = context;
    /* Loads of the data must be over before the word is read again; invalidating fences them. */
    c->there = is_there(c->t, c->view->granule, c->view->word, c->view->generation);
}

enum weft_status wf_cxl_share_check(struct wf_cxl_share *s, const struct wf_cxl_view *view)
{
    struct checking c = {.t = s->volume, .view = view};
    if (s->volume->failed || wf_cxl_guarded(s->volume, check, &c) != WF_FAULT_NONE)
        return out_of_use(s->volume);
    s->stats.stale += !c.there;
    return c.there ? WEFT_OK : WEFT_MISS;
}

void wf_cxl_share_stats(const struct wf_cxl_share *s, struct wf_cxl_share_stats *out)
{
    *out = s->stats;
    out->blocks = s->index.table.count;
    out->bytes = s->bytes;
}

void wf_cxl_share_extents(const struct wf_cxl_share *s, uint64_t out[256])
{
    memcpy(out, s->owned, sizeof s->owned);
}
