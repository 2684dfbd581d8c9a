/* SPDX-License-Identifier: Apache-2.0
 *
 * The volume of a CXL tier: its description, its extents, the space in them, and what an open
 * finds.
 *
 * All that is read is untrusted: a header is copied out before it is judged, and every number in it
 * is bounded before it is used.  An open reads the directories of extents that are ours, 8 bytes a
 * granule, and the headers of blocks, and no payload: payload was in memory before its word was.
 */
#include "tier/cxl_volume.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/log.h"
#include "sys/lines.h"
#include "sys/memory.h"

/* ---------------------------------------------------------------------------------------- words */

void wf_cxl_publish(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
    wf_lines_write_back(word, sizeof *word);
    wf_lines_fence();
}

uint64_t wf_cxl_look(const struct wf_cxl *t, const uint64_t *word)
{
    if (t->shared)
        wf_lines_invalidate(word, sizeof *word);
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static uint64_t extent_check(const struct wf_cxl *t, uint64_t extent, uint64_t word)
{
    uint64_t parts[2] = {extent, word >> 16};
    return XXH3_64bits_withSeed(parts, sizeof parts, t->volume) & 0xffff;
}

uint64_t wf_cxl_extent_word(const struct wf_cxl *t, uint64_t extent)
{
    uint64_t word = wf_cxl_look(t, &t->table[extent].word);
    return (word & 0xffff) == extent_check(t, extent, word) ? word : 0;
}

uint64_t wf_cxl_extent_word_make(const struct wf_cxl *t, uint64_t extent, uint64_t generation,
                                 uint8_t owner)
{
    uint64_t word = (generation & WF_CXL_GENERATION_MAX) << 24 | (uint64_t)owner << 16;
    return word | extent_check(t, extent, word);
}

uint64_t wf_cxl_commit_word(const struct wf_cxl_header *header)
{
    return header->sequence << 16 | (header->checksum & 0xffff);
}

void wf_cxl_changed(struct wf_cxl *t, uint64_t granule)
{
    if (!t->shared)
        return;
    struct wf_cxl_extent *extent = &t->table[granule / WF_CXL_EXTENT_GRANULES];
    wf_cxl_publish(&extent->changes, extent->changes + 1);
    struct wf_cxl_row *row = &t->rows[t->host];
    wf_cxl_publish(&row->published, row->published + 1);
}

/* -------------------------------------------------------------------------------------- headers */

static uint64_t fold_generation(uint64_t folded, uint64_t word)
{
    uint64_t parts[2] = {folded, wf_cxl_generation(word)};
    return XXH3_64bits(parts, sizeof parts);
}

static uint64_t header_checksum(const struct wf_cxl *t, const struct wf_cxl_header *header)
{
    size_t from = offsetof(struct wf_cxl_header, sequence);
    return XXH3_64bits_withSeed((const uint8_t *)header + from,
                                wf_cxl_header_bytes(header->parts) - from, t->volume);
}

void wf_cxl_header_seal(const struct wf_cxl *t, struct wf_cxl_header *header)
{
    uint64_t granules = wf_cxl_block_granules(header->parts, header->bytes);
    uint64_t last = (header->granule + granules - 1) / WF_CXL_EXTENT_GRANULES;
    header->magic = WF_CXL_HEADER_MAGIC;
    header->generations = 0;
    for (uint64_t e = header->granule / WF_CXL_EXTENT_GRANULES; e <= last; e++)
        header->generations = fold_generation(header->generations, t->words[e]);
    header->checksum = header_checksum(t, header);
}

/* Bounds before use: what the rest of the header may be believed to span. */
static bool header_fits(const struct wf_cxl *t, const struct wf_cxl_header *h, uint64_t granule)
{
    uint64_t left = wf_cxl_granules(t) - granule;
    if (h->magic != WF_CXL_HEADER_MAGIC || h->granule != granule || h->bytes == 0 ||
        h->bytes > left * WF_CXL_GRANULE || h->part_bytes == 0 ||
        h->part_bytes > WF_TIER_PART_BYTES_MAX || h->parts == 0 || h->parts > WF_TIER_PARTS_MAX)
        return false;
    struct wf_tier_block plain = {.plain_bytes = h->plain_bytes,
                                  .plain_part_bytes = h->plain_part_bytes,
                                  .plain_quality = h->plain_quality};
    return (h->bytes - 1) / h->part_bytes + 1 == h->parts && wf_tier_plain_right(&plain) &&
           wf_cxl_block_granules(h->parts, h->bytes) <= left;
}

bool wf_cxl_header_read(const struct wf_cxl *t, uint64_t granule, uint64_t word, uint8_t owner,
                        struct wf_cxl_header *copy)
{
    const uint8_t *at = wf_cxl_granule(t, granule);
    if (t->shared)
        wf_lines_invalidate(at, sizeof *copy);
    memcpy(copy, at, sizeof *copy);
    if (!header_fits(t, copy, granule))
        return false;
    if (t->shared)
        wf_lines_invalidate(at + sizeof *copy, 8ull * copy->parts);
    memcpy(copy->sums, at + sizeof *copy, 8ull * copy->parts);
    if (copy->checksum != header_checksum(t, copy) || wf_cxl_commit_word(copy) != word)
        return false;
    uint64_t granules = wf_cxl_block_granules(copy->parts, copy->bytes), folded = 0;
    uint64_t last = (granule + granules - 1) / WF_CXL_EXTENT_GRANULES;
    for (uint64_t e = granule / WF_CXL_EXTENT_GRANULES; e <= last; e++) {
        uint64_t extent = wf_cxl_extent_word(t, e);
        if (extent == 0 || wf_cxl_owner(extent) != owner)
            return false;
        folded = fold_generation(folded, extent);
    }
    return folded == copy->generations;
}

void wf_cxl_header_block(const struct wf_cxl_header *header, struct wf_tier_block *out)
{
    memcpy(out->key, header->key, sizeof out->key);
    memcpy(out->parent, header->parent, sizeof out->parent);
    memcpy(out->format, header->format, sizeof out->format);
    out->depth = header->depth;
    out->part_bytes = header->part_bytes;
    out->bytes = header->bytes;
    out->plain_bytes = header->plain_bytes;
    out->plain_part_bytes = header->plain_part_bytes;
    out->plain_quality = header->plain_quality;
    out->stored_bytes = 0;
}

/* ---------------------------------------------------------------------------------------- space */

static bool is_vacant(const struct wf_cxl *t, uint64_t granule)
{
    return t->vacant[granule / 64] >> granule % 64 & 1;
}

static void mark(struct wf_cxl *t, uint64_t first, uint64_t granules, bool vacant)
{
    for (uint64_t g = first; g < first + granules; g++) {
        uint64_t extent = g / WF_CXL_EXTENT_GRANULES;
        if (vacant) {
            t->vacant[g / 64] |= UINT64_C(1) << g % 64;
            t->empty += ++t->vacant_count[extent] == WF_CXL_EXTENT_GRANULES;
        } else {
            t->vacant[g / 64] &= ~(UINT64_C(1) << g % 64);
            t->empty -= t->vacant_count[extent]-- == WF_CXL_EXTENT_GRANULES;
        }
    }
}

struct run {
    uint64_t first, length;
};

/* Walk the vacant bits of one extent; true when the run has become long enough. */
static bool walk_extent(const struct wf_cxl *t, uint64_t extent, uint64_t wanted, struct run *run)
{
    uint64_t at = extent * WF_CXL_EXTENT_GRANULES, end = at + WF_CXL_EXTENT_GRANULES;
    while (at < end) {
        uint64_t bits = t->vacant[at / 64] >> at % 64;
        uint64_t left = 64 - at % 64;
        if (bits & 1) {
            uint64_t ones = ~bits ? (uint64_t)__builtin_ctzll(~bits) : 64;
            ones = ones < left ? ones : left;
            if (run->length == 0)
                run->first = at;
            run->length += ones;
            if (run->length >= wanted)
                return true;
            at += ones;
        } else {
            uint64_t zeros = bits ? (uint64_t)__builtin_ctzll(bits) : left;
            run->length = 0;
            at += zeros;
        }
    }
    return false;
}

static bool find_run(const struct wf_cxl *t, uint64_t wanted, uint64_t from, uint64_t end,
                     uint64_t *out_first)
{
    struct run run = {0};
    for (uint64_t e = from; e < end; e++) {
        if (t->vacant_count[e] == 0) {
            run.length = 0;
        } else if (walk_extent(t, e, wanted, &run)) {
            *out_first = run.first;
            return true;
        }
    }
    return false;
}

/* First where space last came back or was last found: blocks of one size fill each other's holes.
 */
bool wf_cxl_space_take(struct wf_cxl *t, uint64_t granules, uint64_t *out_first)
{
    uint64_t first;
    if (granules >= t->too_many)
        return false;
    if (!find_run(t, granules, t->hint, t->extents, &first) &&
        !find_run(t, granules, 0, t->extents, &first)) {
        t->too_many = granules;
        return false;
    }
    mark(t, first, granules, false);
    t->used_granules += granules;
    t->hint = first / WF_CXL_EXTENT_GRANULES;
    *out_first = first;
    return true;
}

void wf_cxl_space_give(struct wf_cxl *t, uint64_t first, uint64_t granules)
{
    mark(t, first, granules, true);
    t->used_granules -= granules;
    t->hint = first / WF_CXL_EXTENT_GRANULES;
    t->too_many = UINT64_MAX;
}

void wf_cxl_extent_take(struct wf_cxl *t, uint64_t extent, uint64_t word)
{
    t->words[extent] = word;
    t->owned++;
    t->empty++;
    t->vacant_count[extent] = WF_CXL_EXTENT_GRANULES;
    memset(&t->vacant[extent * WF_CXL_EXTENT_GRANULES / 64], 0xff, WF_CXL_EXTENT_GRANULES / 8);
    t->too_many = UINT64_MAX;
}

void wf_cxl_extent_drop(struct wf_cxl *t, uint64_t extent)
{
    t->words[extent] = 0;
    t->owned--;
    t->empty--;
    t->vacant_count[extent] = 0;
    memset(&t->vacant[extent * WF_CXL_EXTENT_GRANULES / 64], 0, WF_CXL_EXTENT_GRANULES / 8);
}

/* -------------------------------------------------------------------------------- what is there */

static uint64_t block_granules(const struct wf_tier_item *item)
{
    uint64_t parts = (item->bytes - 1) / item->part_bytes + 1;
    return wf_cxl_block_granules((uint32_t)parts, item->bytes);
}

struct word_change {
    struct wf_cxl *t;
    uint64_t granule;
};

/* The fence inside comes before anything that is written over the block. */
static void take_back(void *context)
{
    struct word_change *c = context;
    wf_cxl_publish(wf_cxl_word(c->t, c->granule), 0);
    wf_cxl_changed(c->t, c->granule);
}

void wf_cxl_forget(struct wf_cxl *t, uint32_t item)
{
    const struct wf_tier_item *i = &t->index.items[item];
    uint64_t first = (uint64_t)i->group * WF_CXL_EXTENT_GRANULES + i->offset;
    uint64_t granules = block_granules(i);
    struct word_change change = {t, first};
    wf_tier_index_remove(&t->index, item);
    /* Where the word cannot be taken back, its space must not be written over. */
    if (t->failed || wf_cxl_guarded(t, take_back, &change) != WF_FAULT_NONE)
        return;
    wf_cxl_space_give(t, first, granules);
    if (t->shared)
        wf_cxl_extents_release(t, first, granules);
}

static bool all_vacant(const struct wf_cxl *t, uint64_t first, uint64_t granules)
{
    for (uint64_t g = first; g < first + granules; g++)
        if (!is_vacant(t, g))
            return false;
    return true;
}

/* A block that is believed: of two with one key the later one stays, of two in one place the first
 * that was found. */
static bool take_up(struct wf_cxl *t, const struct wf_cxl_header *h)
{
    uint64_t granules = wf_cxl_block_granules(h->parts, h->bytes);
    if (!all_vacant(t, h->granule, granules))
        return false;
    uint32_t other = wf_tier_index_find(&t->index, h->key);
    if (other != WF_TIER_NONE) {
        const struct wf_tier_item *i = &t->index.items[other];
        if (i->sequence >= h->sequence)
            return false;
        uint64_t first = (uint64_t)i->group * WF_CXL_EXTENT_GRANULES + i->offset;
        uint64_t had = block_granules(i);
        wf_cxl_publish(wf_cxl_word(t, first), 0);
        wf_tier_index_remove(&t->index, other);
        wf_cxl_space_give(t, first, had);
        t->dropped++;
    }
    struct wf_tier_block block;
    wf_cxl_header_block(h, &block);
    if (wf_tier_index_insert(&t->index, &block, h->sequence,
                             (uint32_t)(h->granule / WF_CXL_EXTENT_GRANULES),
                             (uint32_t)(h->granule % WF_CXL_EXTENT_GRANULES)) == WF_TIER_NONE)
        return false;
    mark(t, h->granule, granules, false);
    t->used_granules += granules;
    return true;
}

void wf_cxl_extent_scan(struct wf_cxl *t, uint64_t extent)
{
    struct wf_cxl_directory *directory = &t->directories[extent];
    bool changed = false;
    if (t->shared)
        wf_lines_invalidate(directory, sizeof *directory);
    for (uint32_t i = 0; i < WF_CXL_EXTENT_GRANULES; i++) {
        uint64_t granule = extent * WF_CXL_EXTENT_GRANULES + i;
        uint64_t word = __atomic_load_n(&directory->words[i], __ATOMIC_ACQUIRE);
        if (word == 0)
            continue;
        struct wf_cxl_header *header = wf_cxl_header_copy(t);
        if (wf_cxl_header_read(t, granule, word, t->host, header) && take_up(t, header))
            continue;
        t->dropped++;
        changed = true;
        wf_cxl_publish(&directory->words[i], 0);
    }
    if (changed)
        wf_cxl_changed(t, extent * WF_CXL_EXTENT_GRANULES);
}

/* ------------------------------------------------------------------------------- open and close */

/* What a guarded open leaves behind. */
struct opening {
    struct wf_cxl *t;
    struct wf_cxl_super super;
    bool valid, zeros;
    uint64_t random;
};

static enum weft_status something_else(const char *path)
{
    return wf_fail(WEFT_E_INVALID,
                   "tier %s: holds something else, which is left as it is; name another (nothing "
                   "but a tier's own is overwritten: zero the first 8 KiB of what you are sure "
                   "that nobody needs)",
                   path);
}

static uint64_t super_checksum(const struct wf_cxl_super *super)
{
    size_t from = offsetof(struct wf_cxl_super, version);
    return XXH3_64bits_withSeed((const uint8_t *)super + from, sizeof *super - from,
                                WF_CXL_SUPER_MAGIC);
}

static bool super_right(const struct wf_cxl *t, const struct wf_cxl_super *s)
{
    return s->magic == WF_CXL_SUPER_MAGIC && s->checksum == super_checksum(s) &&
           s->version == WF_CXL_VERSION && s->shared <= 1 && s->extents >= WF_CXL_EXTENTS_LEAST &&
           s->extents <= WF_CXL_EXTENTS_MAX && s->data_at == wf_cxl_data_at(s->extents) &&
           s->data_at <= t->bytes && s->extents * WF_CXL_EXTENT <= t->bytes - s->data_at;
}

static void read_super(void *context)
{
    struct opening *o = context;
    wf_lines_invalidate(o->t->memory, 2 * WF_CXL_GRANULE);
    for (uint32_t copy = 0; copy < 2 && !o->valid; copy++) {
        memcpy(&o->super, o->t->memory + copy * WF_CXL_GRANULE, sizeof o->super);
        o->valid = super_right(o->t, &o->super);
    }
    o->zeros = true;
    for (uint32_t i = 0; i < 2 * WF_CXL_GRANULE && o->zeros; i++)
        o->zeros = o->t->memory[i] == 0;
}

enum weft_status wf_tier_cxl_check(const char *path)
{
    uint8_t pages[2 * WF_CXL_GRANULE];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t got = fd >= 0 ? pread(fd, pages, sizeof pages, 0) : -1;
    if (fd >= 0)
        close(fd);
    bool ours = false, zeros = true;
    for (uint32_t copy = 0; copy < 2 && got == sizeof pages; copy++) {
        struct wf_cxl_super super;
        memcpy(&super, pages + copy * WF_CXL_GRANULE, sizeof super);
        ours |= super.magic == WF_CXL_SUPER_MAGIC && super.checksum == super_checksum(&super);
    }
    for (ssize_t i = 0; i < got; i++)
        zeros &= pages[i] == 0;
    return ours || zeros ? WEFT_OK : something_else(path);
}

static void lay_out(struct wf_cxl *t, const struct wf_cxl_super *super)
{
    t->volume = super->volume;
    t->extents = super->extents;
    t->rows = (struct wf_cxl_row *)(void *)(t->memory + WF_CXL_ROWS_AT);
    t->table = (struct wf_cxl_extent *)(void *)(t->memory + WF_CXL_TABLE_AT);
    t->directories = (struct wf_cxl_directory *)(void *)(t->memory +
                                                         wf_cxl_directories_at(super->extents));
    t->data = t->memory + super->data_at;
}

static void stream_zeros(uint8_t *at, uint64_t bytes)
{
    static const uint8_t zeros[WF_CXL_GRANULE];
    for (uint64_t done = 0; done < bytes; done += sizeof zeros)
        wf_lines_stream(at + done, zeros, sizeof zeros);
}

/* Generations start at a random place, so that headers of an older volume are of another one even
 * where its number were the same. */
static void format(void *context)
{
    struct opening *o = context;
    struct wf_cxl *t = o->t;
    stream_zeros(t->memory + WF_CXL_ROWS_AT, WF_CXL_TABLE_AT - WF_CXL_ROWS_AT);
    stream_zeros((uint8_t *)t->directories, t->extents * WF_CXL_GRANULE);
    for (uint64_t e = 0; e < t->extents; e++) {
        struct wf_cxl_extent line = {
            .word = wf_cxl_extent_word_make(t, e, o->random & 0xffffffff, t->shared ? 0 : t->host)};
        wf_lines_stream(&t->table[e], &line, sizeof line);
    }
    wf_lines_fence();
    for (uint32_t copy = 2; copy-- > 0;) {
        wf_lines_stream(t->memory + copy * WF_CXL_GRANULE, &o->super, sizeof o->super);
        wf_lines_fence();
    }
}

static enum weft_status make_super(struct opening *o)
{
    struct wf_cxl *t = o->t;
    uint64_t extents = t->bytes / WF_CXL_EXTENT, random[2];
    if (extents > WF_CXL_EXTENTS_MAX)
        extents = WF_CXL_EXTENTS_MAX;
    while (extents && wf_cxl_data_at(extents) + extents * WF_CXL_EXTENT > t->bytes)
        extents--;
    if (extents < WF_CXL_EXTENTS_LEAST)
        return wf_fail(
            WEFT_E_INVALID,
            "tier %s: %llu bytes are too few; 16 MiB are the least, and 2 GiB a fair size", t->path,
            (unsigned long long)t->bytes);
    if (!o->zeros)
        return something_else(t->path);
    if (t->shared && t->host != 1)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: it is not formatted yet; host 1 does that, start it first",
                       t->path);
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    o->random = random[1];
    o->super = (struct wf_cxl_super){.magic = WF_CXL_SUPER_MAGIC,
                                     .version = WF_CXL_VERSION,
                                     .shared = t->shared,
                                     .volume = random[0],
                                     .extents = extents,
                                     .data_at = wf_cxl_data_at(extents)};
    o->super.checksum = super_checksum(&o->super);
    lay_out(t, &o->super);
    return WEFT_OK;
}

static enum weft_status make_tables(struct wf_cxl *t)
{
    uint64_t granules = wf_cxl_granules(t);
    t->vacant = wf_calloc(granules / 64, 8, "a tier's map of space");
    t->vacant_count = wf_calloc(t->extents, sizeof *t->vacant_count, "a tier's map of space");
    t->words = wf_calloc(t->extents, sizeof *t->words, "a tier's extents");
    if (!t->vacant || !t->vacant_count || !t->words)
        return WEFT_E_NO_MEMORY;
    /* The smallest block takes two granules. */
    return wf_tier_index_init(&t->index, granules / 2, (uint32_t)t->extents);
}

/* An extent whose word is damaged holds nothing that could be believed.  Unshared it is given a
 * generation that nobody has used; shared it may be another's, and is left alone. */
static void find_extents(void *context)
{
    struct opening *o = context;
    struct wf_cxl *t = o->t;
    if (t->shared)
        wf_lines_invalidate(t->table, t->extents * sizeof *t->table);
    for (uint64_t e = 0; e < t->extents; e++) {
        uint64_t word = wf_cxl_extent_word(t, e);
        if ((word == 0 || wf_cxl_owner(word) != t->host) && !t->shared) {
            word = wf_cxl_extent_word_make(t, e, o->random ^ e, t->host);
            wf_cxl_publish(&t->table[e].word, word);
            t->corrupt_at_open++;
        }
        if (word != 0 && wf_cxl_owner(word) == t->host)
            wf_cxl_extent_take(t, e, word);
        else if (word == 0 || wf_cxl_owner(word) != 0)
            t->foreign++;
    }
    for (uint64_t e = 0; e < t->extents; e++)
        if (t->words[e])
            wf_cxl_extent_scan(t, e);
}

static void join(void *context)
{
    struct opening *o = context;
    wf_cxl_join(o->t);
}

static enum weft_status gone(const struct wf_cxl *t)
{
    return wf_fail(WEFT_E_SYSTEM, "tier %s: a part of it cannot be read; look at the device",
                   t->path);
}

enum weft_status wf_cxl_volume_open(struct wf_cxl *t, const struct wf_tier_options *options)
{
    struct opening o = {.t = t};
    t->too_many = UINT64_MAX;
    if (t->bytes < WF_CXL_TABLE_AT)
        return wf_fail(WEFT_E_INVALID, "tier %s: %llu bytes are too few; 16 MiB are the least",
                       t->path, (unsigned long long)t->bytes);
    if (wf_cxl_guarded(t, read_super, &o) != WF_FAULT_NONE)
        return gone(t);
    bool made = !o.valid;
    enum weft_status status = WEFT_OK;
    if (made)
        status = make_super(&o);
    else
        lay_out(t, &o.super);
    if (status == WEFT_OK && o.super.shared != options->shared)
        status = wf_fail(WEFT_E_INVALID, "tier %s: it was formatted %s; set `shared` so", t->path,
                         o.super.shared ? "for several hosts" : "for one host alone");
    if (status == WEFT_OK && getrandom(&o.random, sizeof o.random, 0) != sizeof o.random)
        status = wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    if (status == WEFT_OK)
        status = make_tables(t);
    if (status == WEFT_OK && ((made && wf_cxl_guarded(t, format, &o) != WF_FAULT_NONE) ||
                              wf_cxl_guarded(t, join, &o) != WF_FAULT_NONE ||
                              wf_cxl_guarded(t, find_extents, &o) != WF_FAULT_NONE))
        status = gone(t);
    if (status == WEFT_OK)
        wf_info("tier",
                "%s (%s): %llu extents of 2 MiB, %llu ours, %u blocks, %llu torn ones dropped",
                t->path, wf_tier_cxl_medium_name(t->medium), (unsigned long long)t->extents,
                (unsigned long long)t->owned, t->index.table.count, (unsigned long long)t->dropped);
    return status;
}

enum weft_status wf_cxl_volume_watch(struct wf_cxl *t)
{
    struct opening o = {.t = t};
    if (wf_cxl_guarded(t, read_super, &o) != WF_FAULT_NONE)
        return gone(t);
    if (!o.valid || !o.super.shared)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: it is not formatted for several hosts yet; host 1 does that, "
                       "start it first",
                       t->path);
    lay_out(t, &o.super);
    return WEFT_OK;
}

bool wf_cxl_volume_same(const struct wf_cxl *t)
{
    const struct wf_cxl_super *super = (const struct wf_cxl_super *)(const void *)t->memory;
    return wf_cxl_look(t, &super->volume) == t->volume;
}

void wf_cxl_volume_close(struct wf_cxl *t)
{
    if (t->index.items)
        wf_tier_index_fini(&t->index);
    free(t->vacant);
    free(t->vacant_count);
    free(t->words);
}
