/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/lent.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/reserve.h"
#include "base/size.h"
#include "base/table.h"
#include "shm/arena.h"
#include "sys/memory.h"

#define GRANULES_MAX (1u << 30)
#define BLOCK_LEAST (2 * WF_LENT_GRANULE) /* that is taken; entries are as many as such blocks */
#define LESS "lend less (fabric.lend)"
#define GIVES_MAX 4096u /* blocks that go for one */

enum state { FREE = 0, PLACING, HERE, LEAVING }; /* LEAVING: it goes when it is let go of */

struct entry {
    uint8_t key[32], parent[32];
    uint64_t bytes;
    uint32_t table_next;
    uint32_t newer, older; /* of its owner; free: newer is the next free one */
    uint32_t owner, part_bytes, depth;
    uint32_t slot; /* of the arena */
    uint32_t holds;
    uint8_t state, domain, quality, copies;
    bool aside;     /* PLACING: not in the table, where a less exact one is till it has come */
    uint16_t whose; /* it is here for that one */
    uint64_t used;  /* of `uses` */
    uint64_t profile;
};

static_assert(WF_LENT_OWNERS_MAX <= UINT16_MAX, "an owner's number is kept in 16 bits");

struct owner {
    uint64_t bytes, least, limit, blocks;
    uint32_t newest, oldest;
    bool here;
};

struct wf_lent {
    struct wf_lent_options options;
    uint8_t *memory;
    uint64_t granule;
    struct wf_slot *slots;
    uint32_t entries_max, entries_used, entry_free;
    struct entry *entries;
    struct wf_table table;
    struct wf_arena arena;
    bool arena_made, table_made;
    struct owner owners[WF_LENT_OWNERS_MAX];
    uint64_t cap;  /* of used_bytes */
    uint64_t soon; /* what it is to be when what is beyond has gone */
    bool shrinks;
    uint64_t least_here; /* of those that are */
    uint64_t uses;
    uint32_t owners_here, owners_used; /* used: numbers below it were ever seen */
    struct wf_lent_stats stats;
};

static uint32_t parts_of(uint64_t bytes, uint32_t part_bytes)
{
    return (uint32_t)((bytes + part_bytes - 1) / part_bytes);
}

/* The sums lie behind the payload, at a multiple of 8. */
static uint64_t sums_at(uint64_t bytes)
{
    return (bytes + 7) / 8 * 8;
}

static uint8_t *data_of(const struct wf_lent *l, const struct entry *e)
{
    return l->memory + (uint64_t)l->slots[e->slot].first * l->granule;
}

static uint64_t taken_by(const struct wf_lent *l, const struct entry *e)
{
    return (uint64_t)l->slots[e->slot].count * l->granule;
}

/* ------------------------------------------------------------------------------------- by use */

static void unlink_entry(struct wf_lent *l, struct entry *e)
{
    struct owner *o = &l->owners[e->owner];
    uint32_t *newer = e->newer == WF_LENT_NONE ? &o->newest : &l->entries[e->newer].older;
    uint32_t *older = e->older == WF_LENT_NONE ? &o->oldest : &l->entries[e->older].newer;
    *newer = e->older;
    *older = e->newer;
}

static void link_newest(struct wf_lent *l, struct entry *e)
{
    struct owner *o = &l->owners[e->owner];
    uint32_t number = (uint32_t)(e - l->entries);
    e->newer = WF_LENT_NONE;
    e->older = o->newest;
    if (o->newest != WF_LENT_NONE)
        l->entries[o->newest].newer = number;
    else
        o->oldest = number;
    o->newest = number;
}

/* -------------------------------------------------------------------------------------- its end */

static void entry_free(struct wf_lent *l, struct entry *e)
{
    struct owner *o = &l->owners[e->owner];
    uint64_t taken = taken_by(l, e);
    o->bytes -= taken;
    o->blocks--;
    l->stats.used_bytes -= taken;
    l->stats.blocks--;
    l->stats.many -= e->copies > 1;
    (void)wf_arena_free(&l->arena, e->slot);
    e->state = FREE;
    e->newer = l->entry_free;
    l->entry_free = (uint32_t)(e - l->entries);
}

/* Nobody finds it any more; its memory goes when it is not being sent. */
static void entry_leave(struct wf_lent *l, struct entry *e)
{
    unlink_entry(l, e);
    if (!e->aside)
        wf_table_remove(&l->table, (uint32_t)(e - l->entries));
    e->aside = false;
    if (e->holds > 0)
        e->state = LEAVING;
    else
        entry_free(l, e);
}

static void describe(const struct entry *e, struct wf_fabric_event *out)
{
    *out = (struct wf_fabric_event){.kind = WF_FABRIC_HERE,
                                    .quality = e->quality,
                                    .where = WF_FABRIC_IN_LENT,
                                    .domain = e->domain,
                                    .depth = e->depth,
                                    .bytes = e->bytes};
    memcpy(out->key, e->key, 32);
    memcpy(out->parent, e->parent, 32);
}

/* It goes, and that is told. */
static void let_leave(struct wf_lent *l, struct entry *e)
{
    struct wf_fabric_event event;
    describe(e, &event);
    event.kind = WF_FABRIC_GONE;
    entry_leave(l, e);
    l->options.gone(l->options.context, &event);
}

static void evict(struct wf_lent *l, struct entry *e)
{
    l->stats.evicted++;
    l->stats.evicted_bytes += taken_by(l, e);
    let_leave(l, e);
}

/* ---------------------------------------------------------------------------------- allotments */

static uint64_t cap_of(const struct wf_lent *l)
{
    return l->shrinks ? l->soon : l->cap;
}

static uint64_t due_of(const struct wf_lent *l, const struct owner *o)
{
    if (!o->here)
        return 0;
    uint64_t least = o->least, cap = cap_of(l), rest = cap - l->least_here;
    if (l->least_here > cap) {
        least = (uint64_t)((double)least / (double)l->least_here * (double)cap);
        rest = 0;
    }
    uint64_t due = least + rest / (l->owners_here ? l->owners_here : 1);
    return o->limit && o->limit < due ? o->limit : due;
}

/* What was used longest ago of it, and may go. */
static struct entry *oldest_of(struct wf_lent *l, struct owner *o)
{
    uint32_t at = o->oldest;
    while (at != WF_LENT_NONE && l->entries[at].state != HERE) /* NOLINT: never NULL */
        at = l->entries[at].newer;
    return at == WF_LENT_NONE ? NULL : &l->entries[at];
}

/* Whose block goes for one of `wanting`: who has most beyond its due; itself, if that is it. */
static struct entry *victim(struct wf_lent *l, uint32_t wanting)
{
    const struct owner *self = &l->owners[wanting];
    struct owner *most = NULL;
    uint64_t most_beyond = 0;
    for (uint32_t i = 0; i < l->owners_used; i++) {
        struct owner *o = &l->owners[i];
        uint64_t due = due_of(l, o);
        if (o->blocks == 0 || o->bytes <= due || o->bytes - due <= most_beyond || !oldest_of(l, o))
            continue;
        most = o;
        most_beyond = o->bytes - due;
    }
    uint64_t due = due_of(l, self);
    /* Nobody gives for who has its due already: that is told WEFT_FULL, and lets go itself. */
    if (!most || most == self || (self->bytes >= due && most->here))
        return NULL;
    return oldest_of(l, most);
}

void wf_lent_owner_here(struct wf_lent *l, uint32_t owner, bool here)
{
    struct owner *o = &l->owners[owner];
    if (o->here == here)
        return;
    l->owners_used = l->owners_used > owner ? l->owners_used : owner + 1;
    o->here = here;
    l->least_here = here ? l->least_here + o->least : l->least_here - o->least;
    l->owners_here = here ? l->owners_here + 1 : l->owners_here - 1;
}

void wf_lent_limit(struct wf_lent *l, uint32_t owner, uint64_t bytes)
{
    struct owner *o = &l->owners[owner];
    struct entry *e;
    o->limit = bytes;
    for (uint32_t i = 0; bytes && o->bytes > bytes && (e = oldest_of(l, o)) && i < GIVES_MAX; i++)
        evict(l, e);
}

void wf_lent_least(struct wf_lent *l, uint32_t owner, uint64_t bytes)
{
    struct owner *o = &l->owners[owner];
    if (o->here)
        l->least_here = l->least_here - o->least + bytes;
    o->least = bytes;
}

/* Of who has most, whoever it is. */
static struct entry *victim_of_host(struct wf_lent *l)
{
    struct owner *most = NULL;
    for (uint32_t i = 0; i < l->owners_used; i++)
        if ((!most || l->owners[i].bytes > most->bytes) && oldest_of(l, &l->owners[i]))
            most = &l->owners[i];
    return most ? oldest_of(l, most) : NULL;
}

static void punch(void *context, uint64_t first, uint64_t count)
{
    struct wf_lent *l = context;
    (void)madvise(l->memory + first * l->granule, count * l->granule, MADV_DONTNEED);
}

void wf_lent_resize(struct wf_lent *l, uint64_t bytes)
{
    struct entry *e;
    uint32_t first;
    uint64_t cap = bytes < l->options.bytes ? bytes : l->options.bytes;
    l->shrinks = false;
    if (cap > l->cap) { /* what was given back is taken again */
        uint32_t missing = (uint32_t)((cap - l->cap) / l->granule), got = 1;
        for (; missing && got; missing -= got)
            got = wf_arena_back(&l->arena, 1, missing, &first);
        l->cap = cap;
        return;
    }
    uint64_t less = (l->cap - cap) / l->granule;
    l->cap = cap;
    while (l->stats.used_bytes > cap && (e = victim_of_host(l)))
        evict(l, e);
    (void)wf_arena_trim(&l->arena, less, punch, l);
}

void wf_lent_shrink(struct wf_lent *l, uint64_t bytes)
{
    l->shrinks = bytes < l->cap;
    l->soon = bytes;
    if (!l->shrinks)
        wf_lent_resize(l, bytes);
}

bool wf_lent_shrinks(const struct wf_lent *l)
{
    return l->shrinks;
}

void wf_lent_owner(const struct wf_lent *l, uint32_t owner, struct wf_lent_owner *out)
{
    const struct owner *o = &l->owners[owner];
    *out = (struct wf_lent_owner){.bytes = o->bytes,
                                  .due_bytes = due_of(l, o),
                                  .least_bytes = o->least,
                                  .limit_bytes = o->limit,
                                  .blocks = o->blocks,
                                  .here = o->here};
}

/* -------------------------------------------------------------------------------------- blocks */

static struct entry *entry_take(struct wf_lent *l)
{
    uint32_t number = l->entry_free;
    if (number != WF_LENT_NONE)
        l->entry_free = l->entries[number].newer;
    else if (l->entries_used < l->entries_max)
        number = l->entries_used++;
    return number == WF_LENT_NONE ? NULL : &l->entries[number];
}

static uint32_t slot_take(struct wf_lent *l, uint32_t owner, uint64_t bytes)
{
    const struct owner *o = &l->owners[owner];
    uint32_t granules = (uint32_t)((bytes + l->granule - 1) / l->granule);
    if (o->limit && o->bytes + granules * l->granule > o->limit)
        return WF_SLOT_NONE;
    for (uint32_t i = 0; i < GIVES_MAX; i++) {
        bool room = l->stats.used_bytes + granules * l->granule <= cap_of(l);
        uint32_t slot = room ? wf_arena_alloc(&l->arena, granules) : WF_SLOT_NONE;
        struct entry *gives = slot == WF_SLOT_NONE ? victim(l, owner) : NULL;
        if (!gives)
            return slot;
        evict(l, gives);
    }
    return WF_SLOT_NONE;
}

enum weft_status wf_lent_begin(struct wf_lent *l, uint32_t owner,
                               const struct wf_fabric_event *block, uint64_t profile,
                               uint32_t part_bytes, uint32_t copies, uint32_t *out_entry,
                               void **out_data)
{
    uint32_t here = wf_table_find(&l->table, block->key);
    const struct entry *there = here == WF_TABLE_NONE ? NULL : &l->entries[here];
    if (there && there->domain != block->domain)
        return WEFT_FULL;
    if (there && there->state != HERE)
        return WEFT_E_BUSY;
    if (there && there->quality <= block->quality)
        return WEFT_EXISTS;
    uint32_t slot = slot_take(l, owner, wf_lent_takes(block->bytes, part_bytes));
    struct entry *e = slot == WF_SLOT_NONE ? NULL : entry_take(l);
    if (!e) {
        if (slot != WF_SLOT_NONE)
            (void)wf_arena_free(&l->arena, slot);
        l->stats.refused++;
        return WEFT_FULL;
    }
    *e = (struct entry){.bytes = block->bytes,
                        .owner = owner,
                        .part_bytes = part_bytes,
                        .depth = block->depth,
                        .slot = slot,
                        .state = PLACING,
                        .domain = block->domain,
                        .quality = block->quality,
                        .profile = profile,
                        .copies = (uint8_t)(copies < 255 ? copies : 255),
                        .whose = (uint16_t)owner,
                        .used = ++l->uses};
    e->aside = wf_table_find(&l->table, block->key) !=
               WF_TABLE_NONE; /* unless its room was taken */
    memcpy(e->key, block->key, 32);
    memcpy(e->parent, block->parent, 32);
    struct owner *o = &l->owners[owner];
    o->bytes += taken_by(l, e);
    o->blocks++;
    l->stats.used_bytes += taken_by(l, e);
    l->stats.blocks++;
    l->stats.many += e->copies > 1;
    link_newest(l, e);
    if (!e->aside)
        wf_table_insert(&l->table, (uint32_t)(e - l->entries));
    *out_entry = (uint32_t)(e - l->entries);
    *out_data = data_of(l, e);
    return WEFT_OK;
}

void wf_lent_for(struct wf_lent *l, uint32_t entry, uint32_t whose)
{
    l->entries[entry].whose = (uint16_t)whose;
}

/* Which of the two stays?  True: the one that has just come. */
static bool takes_place(struct wf_lent *l, struct entry *e)
{
    uint32_t here = wf_table_find(&l->table, e->key);
    struct entry *other = here == WF_TABLE_NONE ? NULL : &l->entries[here];
    if (other &&
        (other->state != HERE || other->domain != e->domain || other->quality <= e->quality))
        return false;
    if (other)
        let_leave(l, other);
    e->aside = false;
    wf_table_insert(&l->table, (uint32_t)(e - l->entries));
    return true;
}

enum weft_status wf_lent_end(struct wf_lent *l, uint32_t entry, const uint64_t *sums)
{
    struct entry *e = &l->entries[entry];
    assert(e->state == PLACING);
    if (!sums || (e->aside && !takes_place(l, e))) {
        entry_leave(l, e);
        return WEFT_EXISTS;
    }
    memcpy(data_of(l, e) + sums_at(e->bytes), sums, 8ull * parts_of(e->bytes, e->part_bytes));
    e->state = HERE;
    l->stats.puts++;
    return WEFT_OK;
}

uint32_t wf_lent_keep(struct wf_lent *l, uint32_t domain, const uint8_t key[32],
                      struct wf_lent_block *out)
{
    uint32_t number = wf_table_find(&l->table, key);
    struct entry *e = number == WF_TABLE_NONE ? NULL : &l->entries[number];
    if (!e || e->state != HERE || e->domain != domain)
        return WF_LENT_NONE;
    e->holds++;
    uint8_t *data = data_of(l, e);
    *out = (struct wf_lent_block){.data = data,
                                  .sums = (const uint64_t *)(void *)(data + sums_at(e->bytes)),
                                  .bytes = e->bytes,
                                  .profile = e->profile,
                                  .part_bytes = e->part_bytes,
                                  .domain = e->domain,
                                  .quality = e->quality};
    return number;
}

uint32_t wf_lent_hold(struct wf_lent *l, uint32_t domain, const uint8_t key[32],
                      struct wf_lent_block *out)
{
    uint32_t number = wf_lent_keep(l, domain, key, out);
    if (number == WF_LENT_NONE)
        return number;
    struct entry *e = &l->entries[number];
    e->used = ++l->uses;
    unlink_entry(l, e);
    link_newest(l, e);
    return number;
}

bool wf_lent_has(const struct wf_lent *l, uint32_t domain, const uint8_t key[32],
                 uint8_t *out_quality)
{
    uint32_t number = wf_table_find(&l->table, key);
    if (number != WF_TABLE_NONE && out_quality)
        *out_quality = l->entries[number].quality;
    return number != WF_TABLE_NONE && l->entries[number].state == HERE &&
           l->entries[number].domain == domain;
}

void wf_lent_let_go(struct wf_lent *l, uint32_t entry)
{
    struct entry *e = &l->entries[entry];
    assert(e->holds > 0);
    if (--e->holds == 0 && e->state == LEAVING)
        entry_free(l, e);
}

bool wf_lent_drop(struct wf_lent *l, uint32_t by, const uint8_t key[32])
{
    uint32_t number = wf_table_find(&l->table, key);
    const struct entry *e = number == WF_TABLE_NONE ? NULL : &l->entries[number];
    if (!e || e->whose != by || e->state != HERE)
        return false;
    let_leave(l, &l->entries[number]);
    return true;
}

bool wf_lent_forget(struct wf_lent *l, uint32_t domain, const uint8_t key[32])
{
    uint32_t number = wf_table_find(&l->table, key);
    if (number == WF_TABLE_NONE || l->entries[number].domain != domain ||
        l->entries[number].state != HERE)
        return false;
    let_leave(l, &l->entries[number]);
    return true;
}

void wf_lent_give(struct wf_lent *l, const uint8_t key[32])
{
    uint32_t number = wf_table_find(&l->table, key);
    if (number == WF_TABLE_NONE || l->entries[number].state != HERE)
        return;
    l->stats.given++;
    let_leave(l, &l->entries[number]);
}

bool wf_lent_all(const struct wf_lent *l, uint64_t *cursor, uint32_t looks,
                 void (*found)(void *to, const struct wf_lent_found *block), void *to)
{
    uint64_t end = *cursor + looks;
    end = end < l->entries_used ? end : l->entries_used;
    for (; *cursor < end; (*cursor)++) {
        const struct entry *e = &l->entries[*cursor];
        struct wf_lent_found block = {.owner = e->owner,
                                      .whose = e->whose,
                                      .part_bytes = e->part_bytes,
                                      .copies = e->copies,
                                      .used = e->used,
                                      .profile = e->profile};
        if (e->state != HERE)
            continue;
        describe(e, &block.block);
        found(to, &block);
    }
    return *cursor < l->entries_used;
}

bool wf_lent_each(const struct wf_lent *l, uint32_t domain, uint64_t *cursor, uint32_t looks,
                  void (*found)(void *to, const struct wf_fabric_event *block), void *to)
{
    uint64_t end = *cursor + looks;
    end = end < l->entries_used ? end : l->entries_used;
    for (; *cursor < end; (*cursor)++) {
        const struct entry *e = &l->entries[*cursor];
        struct wf_fabric_event event;
        if (e->state != HERE || e->domain != domain)
            continue;
        describe(e, &event);
        found(to, &event);
    }
    return *cursor < l->entries_used;
}

void wf_lent_stats(const struct wf_lent *l, struct wf_lent_stats *out)
{
    *out = l->stats;
    out->bytes = cap_of(l);
}

/* ------------------------------------------------------------------------------ create, destroy */

static enum weft_status memory_make(struct wf_lent *l)
{
    uint64_t bytes = l->options.bytes;
    char size[24];
    l->granule = WF_LENT_GRANULE;
    while (bytes / l->granule > GRANULES_MAX)
        l->granule *= 2;
    uint64_t entries = bytes / BLOCK_LEAST + 1024;
    l->entries_max = entries < (1u << 30) ? (uint32_t)entries : 1u << 30;
    l->entry_free = WF_LENT_NONE;
    l->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (l->memory == MAP_FAILED) {
        l->memory = NULL;
        return wf_fail(WEFT_E_NO_MEMORY, "fabric.lend: %s cannot be mapped: %s; lend less",
                       wf_size_format(bytes, size, sizeof size), strerror(errno));
    }
    wf_advise_huge(l->memory, bytes);
    l->slots = wf_reserve((uint64_t)l->entries_max * 2 * sizeof *l->slots, "memory that is lent",
                          LESS);
    l->entries = wf_reserve((uint64_t)l->entries_max * sizeof *l->entries, "memory that is lent",
                            LESS);
    return l->slots && l->entries ? WEFT_OK : WEFT_E_NO_MEMORY;
}

enum weft_status wf_lent_create(const struct wf_lent_options *options, struct wf_lent **out)
{
    struct wf_lent *l = wf_calloc(1, sizeof *l, "memory that is lent");
    if (!l)
        return WEFT_E_NO_MEMORY;
    l->options = *options;
    l->cap = options->bytes;
    for (uint32_t i = 0; i < WF_LENT_OWNERS_MAX; i++)
        l->owners[i].newest = l->owners[i].oldest = WF_LENT_NONE;
    enum weft_status status = memory_make(l);
    uint32_t first;
    uint32_t granules = (uint32_t)(options->bytes / (l->granule ? l->granule : 1));
    if (status == WEFT_OK)
        status = wf_arena_init(&l->arena, l->slots, 2 * l->entries_max, granules);
    l->arena_made = status == WEFT_OK;
    if (status == WEFT_OK)
        (void)wf_arena_back(&l->arena, granules, granules, &first);
    const struct wf_table_items items = {.first = l->entries,
                                         .max = l->entries_max,
                                         .bytes = sizeof *l->entries,
                                         .key_offset = offsetof(struct entry, key),
                                         .next_offset = offsetof(struct entry, table_next)};
    if (status == WEFT_OK)
        status = wf_table_init(&l->table, &items, options->seed);
    l->table_made = status == WEFT_OK;
    if (status != WEFT_OK) {
        wf_lent_destroy(l);
        return status;
    }
    *out = l;
    return WEFT_OK;
}

void wf_lent_destroy(struct wf_lent *l)
{
    if (!l)
        return;
    if (l->table_made)
        wf_table_fini(&l->table);
    if (l->arena_made)
        wf_arena_fini(&l->arena);
    if (l->memory)
        munmap(l->memory, l->options.bytes);
    wf_unreserve(l->slots, (uint64_t)l->entries_max * 2 * sizeof *l->slots);
    wf_unreserve(l->entries, (uint64_t)l->entries_max * sizeof *l->entries);
    free(l);
}

void wf_lent_verify(const struct wf_lent *l)
{
    uint64_t used = 0, blocks = 0, linked = 0, least = 0;
    for (uint32_t i = 0; i < l->entries_used; i++) {
        const struct entry *e = &l->entries[i];
        if (e->state == FREE)
            continue;
        used += taken_by(l, e);
        blocks++;
        linked += e->state != LEAVING;
        assert(e->state == LEAVING || e->aside || wf_table_find(&l->table, e->key) == i);
        assert(!e->aside || e->state == PLACING);
        assert(e->state != LEAVING || e->holds > 0);
    }
    for (uint32_t i = 0; i < WF_LENT_OWNERS_MAX; i++) {
        uint32_t before = WF_LENT_NONE;
        least += l->owners[i].here ? l->owners[i].least : 0;
        for (uint32_t at = l->owners[i].newest; at != WF_LENT_NONE; at = l->entries[at].older) {
            assert(l->entries[at].owner == i && l->entries[at].newer == before);
            before = at;
            linked--;
        }
        assert(l->owners[i].oldest == before);
    }
    assert(least == l->least_here);
    assert(linked == 0 && used == l->stats.used_bytes && blocks == l->stats.blocks);
}
