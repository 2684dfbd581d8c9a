/* SPDX-License-Identifier: Apache-2.0
 *
 * The DRAM tier: blocks in plain memory beyond the pool, for who has much of it and clients that
 * need not map it, and to try the machinery below the pool without a device.
 *
 * Memory is cut into granules.  A block is a chain of them: first its header, with the checksum of
 * each part, then its payload.  So no room is lost to holes of the wrong size, and granules that
 * follow one another are copied in one piece, as they do in a tier that is filled for the first
 * time.
 *
 *     table ──► struct item: key, shape, first ──► granule 7 ──► granule 8 ──► granule 9 ──► …
 *                                                  struct header  payload      payload
 *
 * There is no device to do the work, so requests are copies by the thread that drives the tier: a
 * small one at submit when nothing is before it, the others in reap, a part at a time and not for
 * much longer than REAP_BYTES take.  A part is hashed where the caller has it, before it is copied
 * here and after it was copied back.
 *
 * Nothing outlives close, nor a crash.  A flush is refused.  An item has 64 bytes, a granule 4 for
 * its chain and the table 4 to 8 a block.
 */
#include "tier/dram.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/reserve.h"
#include "base/sum.h"
#include "base/table.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"
#include "tier/queue.h"

#define GRANULE 4096u
#define NONE UINT32_MAX
#define GRANULES_MAX (UINT32_MAX - 1u)
#define AT_ONCE_BYTES (256u << 10)
#define REAP_BYTES (1u << 20)

struct header {
    uint8_t parent[32];
    uint8_t format[32];
    uint64_t plain_bytes; /* of a payload that is a frame */
    uint32_t plain_part_bytes;
    uint32_t plain_quality;
    uint64_t sums[]; /* one a part; none lies across two granules */
};
static_assert(sizeof(struct header) == 80 && GRANULE % 8 == 0, "sums lie whole in their granule");

struct item {
    uint8_t key[32];
    uint64_t bytes; /* 0: a spare one */
    uint32_t part_bytes;
    uint32_t depth;
    uint32_t first; /* granule */
    uint32_t next;  /* the table's, or the next spare one */
    uint32_t id;    /* another for every block that the item has been */
    uint32_t reserved;
};
static_assert(sizeof(struct item) == 64, "metadata budget");

struct cursor {
    uint32_t granule, offset;
};

/* The request that is being copied. */
struct active {
    struct wf_tier_request *request; /* NULL: none */
    struct wf_tier_block shape;
    uint32_t first; /* the block's */
    uint32_t part, end;
    uint64_t done; /* payload bytes */
    struct cursor at;
};

struct wf_tier {
    char *path; /* of no meaning but to whoever reads a sentence */
    uint8_t *memory;
    uint32_t *chain;               /* the next granule of the same block, or of the spare ones */
    uint32_t granules, used;       /* in all; of blocks that are found */
    uint32_t fresh, spare, spares; /* never used from here on; used before: first, how many */
    struct item *items;
    uint32_t items_max, items_used, spare_item;
    uint32_t last_id;
    struct wf_table table;
    struct wf_tier_queue work, done;
    struct active active;
    struct wf_tier_stats stats;
    int event;
};

/* request->private: a READ's item and which block it was then; a WRITE's chain when it is done. */
enum { ITEM = 0, ID = 1, FIRST = 0 };

static void finish(struct wf_tier *t, struct wf_tier_request *r, enum weft_status status)
{
    r->status = status;
    if (status != WEFT_OK)
        r->bytes = 0;
    wf_tier_queue_add(&t->done, r);
}

/* ------------------------------------------------------------------------------------- granules */

static uint32_t header_granules(uint32_t parts)
{
    return (uint32_t)((sizeof(struct header) + parts * 8ull + GRANULE - 1) / GRANULE);
}

/* Of a block that check() let pass: it fits into all of the tier. */
static uint32_t granules_of(const struct wf_tier_block *block)
{
    return header_granules(wf_tier_parts(block)) +
           (uint32_t)((block->bytes + GRANULE - 1) / GRANULE);
}

static uint8_t *memory_at(const struct wf_tier *t, uint32_t granule)
{
    return t->memory + (uint64_t)granule * GRANULE;
}

/* A chain of `count`; NONE: there is no room. */
static uint32_t take(struct wf_tier *t, uint32_t count)
{
    uint32_t first = NONE, *link = &first;
    if (count > t->spares + (t->granules - t->fresh))
        return NONE;
    for (; count && t->spares; count--, t->spares--) {
        *link = t->spare;
        link = &t->chain[t->spare];
        t->spare = *link;
    }
    for (; count; count--) {
        *link = t->fresh;
        link = &t->chain[t->fresh++];
    }
    *link = NONE;
    return first;
}

static void give(struct wf_tier *t, uint32_t first, uint32_t count)
{
    uint32_t last = first;
    for (uint32_t i = 1; i < count; i++)
        last = t->chain[last];
    t->chain[last] = t->spare;
    t->spare = first;
    t->spares += count;
}

static struct header *header_of(const struct wf_tier *t, uint32_t first)
{
    return (struct header *)(void *)memory_at(t, first);
}

static uint64_t *sum_of(const struct wf_tier *t, uint32_t first, uint32_t part)
{
    uint64_t at = sizeof(struct header) + part * 8ull;
    for (; at >= GRANULE; at -= GRANULE)
        first = t->chain[first];
    return (uint64_t *)(void *)(memory_at(t, first) + at);
}

/* Where payload byte `at` of a block lies. */
static struct cursor cursor_to(const struct wf_tier *t, const struct wf_tier_block *shape,
                               uint32_t first, uint64_t at)
{
    uint64_t hops = header_granules(wf_tier_parts(shape)) + at / GRANULE;
    while (hops--)
        first = t->chain[first];
    return (struct cursor){.granule = first, .offset = (uint32_t)(at % GRANULE)};
}

/* Copy from the cursor on, or to there, and move it. */
static void copy(const struct wf_tier *t, struct cursor *c, uint8_t *memory, uint64_t bytes,
                 bool to_tier)
{
    while (bytes) {
        uint64_t run = GRANULE - c->offset;
        for (uint32_t g = c->granule; run < bytes && t->chain[g] == g + 1; g++)
            run += GRANULE;
        uint64_t now = run < bytes ? run : bytes, end = c->offset + now;
        uint8_t *here = memory_at(t, c->granule) + c->offset;
        if (to_tier)
            memcpy(here, memory, now);
        else
            memcpy(memory, here, now);
        if (end >= GRANULE)
            c->granule = t->chain[c->granule + (uint32_t)(end / GRANULE) - 1];
        c->offset = (uint32_t)(end % GRANULE);
        memory += now;
        bytes -= now;
    }
}

/* ---------------------------------------------------------------------------------------- items */

static void block_of(const struct wf_tier *t, const struct item *item, struct wf_tier_block *out)
{
    const struct header *header = header_of(t, item->first);
    assert(item->bytes && item->part_bytes); /* no spare one */
    out->depth = item->depth;
    out->part_bytes = item->part_bytes;
    out->bytes = item->bytes;
    memcpy(out->key, item->key, 32);
    memcpy(out->parent, header->parent, 32);
    memcpy(out->format, header->format, 32);
    out->plain_bytes = header->plain_bytes;
    out->plain_part_bytes = header->plain_part_bytes;
    out->plain_quality = header->plain_quality;
    out->stored_bytes = 0;
}

/* There is always one: every block takes two granules at least. */
static struct item *item_take(struct wf_tier *t)
{
    struct item *item = &t->items[t->spare_item];
    if (t->spare_item == NONE)
        item = &t->items[t->items_used++];
    else
        t->spare_item = item->next;
    assert(t->items_used <= t->items_max);
    return item;
}

static void forget(struct wf_tier *t, struct item *item)
{
    struct wf_tier_block block;
    block_of(t, item, &block);
    wf_table_remove(&t->table, (uint32_t)(item - t->items));
    give(t, item->first, granules_of(&block));
    t->used -= granules_of(&block);
    item->bytes = 0;
    item->id = ++t->last_id;
    item->next = t->spare_item;
    t->spare_item = (uint32_t)(item - t->items);
}

/* ------------------------------------------------------------------------------- read and write */

static void end_active(struct wf_tier *t, enum weft_status status)
{
    struct active *a = &t->active;
    struct wf_tier_request *r = a->request;
    if (r->op == WF_TIER_WRITE && status != WEFT_OK)
        give(t, a->first, granules_of(&a->shape));
    r->private[FIRST] = a->first;
    r->bytes = a->done;
    a->request = NULL;
    finish(t, r, status);
}

static void begin_write(struct wf_tier *t, struct wf_tier_request *r)
{
    struct active *a = &t->active;
    if (wf_table_find(&t->table, r->block.key) != WF_TABLE_NONE) {
        finish(t, r, WEFT_EXISTS);
        return;
    }
    uint32_t first = take(t, granules_of(&r->block));
    if (first == NONE) {
        finish(t, r,
               wf_fail(WEFT_FULL, "tier %s: no room for a block of %llu bytes; remove blocks",
                       t->path, (unsigned long long)r->block.bytes));
        return;
    }
    struct header *header = header_of(t, first);
    memcpy(header->parent, r->block.parent, 32);
    memcpy(header->format, r->block.format, 32);
    header->plain_bytes = r->block.plain_bytes;
    header->plain_part_bytes = r->block.plain_part_bytes;
    header->plain_quality = r->block.plain_quality;
    *a = (struct active){.request = r,
                         .shape = r->block,
                         .first = first,
                         .end = wf_tier_parts(&r->block),
                         .at = cursor_to(t, &r->block, first, 0)};
}

/* The block that was meant at submit, or NULL: it is gone, whatever has its key by now. */
static struct item *meant(const struct wf_tier *t, const struct wf_tier_request *r)
{
    struct item *item = &t->items[r->private[ITEM]];
    return item->id == r->private[ID] ? item : NULL;
}

static void begin_read(struct wf_tier *t, struct wf_tier_request *r)
{
    struct active *a = &t->active;
    const struct item *item = meant(t, r);
    if (!item) {
        finish(t, r, WEFT_MISS);
        return;
    }
    *a = (struct active){.request = r, .first = item->first, .part = r->first_part};
    block_of(t, item, &a->shape);
    a->end = r->part_count ? r->first_part + r->part_count : wf_tier_parts(&a->shape);
    a->at = cursor_to(t, &a->shape, item->first, (uint64_t)a->part * a->shape.part_bytes);
}

/* The next part; returns how many bytes that was. */
static uint64_t advance(struct wf_tier *t)
{
    struct active *a = &t->active;
    struct wf_tier_request *r = a->request;
    struct item *item = r->op == WF_TIER_READ ? meant(t, r) : NULL;
    if (r->op == WF_TIER_READ && !item) {
        end_active(t, WEFT_MISS);
        return 0;
    }
    uint8_t *here = (uint8_t *)r->data + a->done;
    uint32_t bytes = wf_tier_part_bytes(&a->shape, a->part);
    uint64_t *sum = sum_of(t, a->first, a->part);
    if (!item)
        *sum = wf_sum64(here, bytes);
    copy(t, &a->at, here, bytes, !item);
    a->part++;
    a->done += bytes;
    if (item && wf_sum64(here, bytes) != *sum) {
        t->stats.corrupt++;
        forget(t, item);
        end_active(t, wf_fail(WEFT_E_CORRUPT,
                              "tier %s: a block is not what its checksum says; it was dropped",
                              t->path));
    } else if (a->part == a->end) {
        end_active(t, WEFT_OK);
    }
    return bytes;
}

/* Work for `budget` bytes, and to the end of the part in which that ends. */
static void progress(struct wf_tier *t, uint64_t budget)
{
    uint64_t done = 0;
    while (done < budget && (t->active.request || t->work.first)) {
        if (t->active.request) {
            done += advance(t);
            continue;
        }
        struct wf_tier_request *r = wf_tier_queue_take(&t->work);
        if (r->op == WF_TIER_WRITE)
            begin_write(t, r);
        else
            begin_read(t, r);
    }
}

/* A written block is found from here on. */
static void commit(struct wf_tier *t, struct wf_tier_request *r)
{
    uint32_t first = (uint32_t)r->private[FIRST], granules = granules_of(&r->block);
    if (wf_table_find(&t->table, r->block.key) != WF_TABLE_NONE) {
        give(t, first, granules);
        r->status = WEFT_EXISTS;
        r->bytes = 0;
        return;
    }
    struct item *item = item_take(t);
    memcpy(item->key, r->block.key, 32);
    item->bytes = r->block.bytes;
    item->part_bytes = r->block.part_bytes;
    item->depth = r->block.depth;
    item->first = first;
    item->id = ++t->last_id;
    wf_table_insert(&t->table, (uint32_t)(item - t->items));
    t->used += granules;
    t->stats.writes++;
    t->stats.write_bytes += r->bytes;
    t->stats.device_write_bytes += r->bytes + sizeof(struct header) +
                                   wf_tier_parts(&r->block) * 8ull;
}

static void signal_work(const struct wf_tier *t)
{
    if (t->done.first || t->work.first || t->active.request)
        (void)eventfd_write(t->event, 1);
}

/* ------------------------------------------------------------------------------- open and close */

static void dram_close(struct wf_tier *t)
{
    if (!t)
        return;
    wf_table_fini(&t->table);
    wf_unreserve(t->items, (uint64_t)t->items_max * sizeof *t->items);
    wf_unreserve(t->chain, (uint64_t)t->granules * sizeof *t->chain);
    wf_unreserve(t->memory, (uint64_t)t->granules * GRANULE);
    if (t->event >= 0)
        close(t->event);
    free(t->path);
    free(t);
}

static enum weft_status check_capacity(const struct wf_tier_options *options)
{
    uint64_t bytes = options->capacity_bytes, host = wf_host_bytes();
    if (bytes == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: memory has no size of its own; give a capacity",
                       options->path);
    if (bytes < 4 * GRANULE || bytes / GRANULE > GRANULES_MAX || (host && bytes > host))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a capacity of %llu bytes is not within %u and this host's memory "
                       "of %llu; give less",
                       options->path, (unsigned long long)bytes, 4 * GRANULE,
                       (unsigned long long)host);
    return WEFT_OK;
}

static enum weft_status make_tables(struct wf_tier *t)
{
    uint64_t seed;
    t->memory = wf_reserve((uint64_t)t->granules * GRANULE, "a tier of memory", "lower its size");
    t->chain = wf_reserve((uint64_t)t->granules * sizeof *t->chain, "a tier of memory",
                          "lower its size");
    t->items = wf_reserve((uint64_t)t->items_max * sizeof *t->items, "a tier of memory",
                          "lower its size");
    if (!t->memory || !t->chain || !t->items)
        return WEFT_E_NO_MEMORY;
    wf_advise_huge(t->memory, (uint64_t)t->granules * GRANULE);
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        return wf_fail(WEFT_E_SYSTEM, "the system gave no random number; getrandom(2) must work");
    struct wf_table_items items = {.first = t->items,
                                   .max = t->items_max,
                                   .bytes = sizeof *t->items,
                                   .key_offset = offsetof(struct item, key),
                                   .next_offset = offsetof(struct item, next)};
    return wf_table_init(&t->table, &items, seed);
}

static enum weft_status dram_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_tier_check_options(options);
    if (status == WEFT_OK)
        status = check_capacity(options);
    if (status != WEFT_OK)
        return status;
    struct wf_tier *t = wf_calloc(1, sizeof *t, "a tier");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->granules = (uint32_t)(options->capacity_bytes / GRANULE);
    t->items_max = t->granules / 2;
    t->spare = t->spare_item = NONE;
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    t->path = wf_strdup(options->path, "a tier's name");
    if (t->event < 0)
        status = wf_fail(WEFT_E_SYSTEM, "eventfd: %s; raise the open-file limit", strerror(errno));
    else
        status = t->path ? make_tables(t) : WEFT_E_NO_MEMORY;
    t->stats = (struct wf_tier_stats){.capacity_bytes = (uint64_t)t->granules * GRANULE,
                                      .queue_depth = options->queue_depth,
                                      .forgets = true};
    if (status != WEFT_OK) {
        dram_close(t);
        return status;
    }
    *out = t;
    return WEFT_OK;
}

/* ------------------------------------------------------------------------------------- requests */

static enum weft_status check(const struct wf_tier *t, const struct wf_tier_request *r,
                              uint32_t item)
{
    struct wf_tier_block there;
    if (item != WF_TABLE_NONE)
        block_of(t, &t->items[item], &there);
    enum weft_status status = wf_tier_check_request(r, item != WF_TABLE_NONE ? &there : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_FLUSH)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: memory does not outlive this program; flush a tier on a device",
                       t->path);
    if (r->op == WF_TIER_WRITE &&
        (r->block.bytes > t->stats.capacity_bytes || granules_of(&r->block) > t->granules))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a block of %llu bytes is larger than all of it; give the tier a "
                       "larger size",
                       t->path, (unsigned long long)r->block.bytes);
    return WEFT_OK;
}

static enum weft_status dram_submit(struct wf_tier *t, struct wf_tier_request *r)
{
    if (t->stats.in_flight >= t->stats.queue_depth)
        return WEFT_PENDING;
    uint32_t item = r->op == WF_TIER_FLUSH ? WF_TABLE_NONE : wf_table_find(&t->table, r->block.key);
    enum weft_status status = check(t, r, item);
    if (status != WEFT_OK)
        return status;
    t->stats.in_flight++;
    memset(r->private, 0, sizeof r->private);
    r->bytes = 0;
    if (r->op == WF_TIER_READ && item == WF_TABLE_NONE) {
        finish(t, r, WEFT_MISS);
    } else {
        bool idle = !t->work.first && !t->active.request;
        uint64_t bytes = r->block.bytes;
        if (r->op == WF_TIER_READ) {
            r->private[ITEM] = item;
            r->private[ID] = t->items[item].id;
            bytes = r->part_count ? (uint64_t)r->part_count * t->items[item].part_bytes
                                  : t->items[item].bytes;
        }
        wf_tier_queue_add(&t->work, r);
        if (idle && bytes <= AT_ONCE_BYTES)
            progress(t, bytes);
    }
    signal_work(t);
    return WEFT_OK;
}

static uint32_t dram_reap(struct wf_tier *t, struct wf_tier_request **out, uint32_t max,
                          uint32_t timeout_ms)
{
    uint64_t until = wf_now_ms() + timeout_ms;
    eventfd_t ignored;
    (void)eventfd_read(t->event, &ignored);
    progress(t, REAP_BYTES);
    while (!t->done.first && t->stats.in_flight && wf_now_ms() < until)
        progress(t, REAP_BYTES);
    uint32_t count = 0;
    while (count < max && t->done.first) {
        struct wf_tier_request *r = wf_tier_queue_take(&t->done);
        out[count++] = r;
        t->stats.in_flight--;
        if (r->status == WEFT_OK && r->op == WF_TIER_WRITE)
            commit(t, r);
        if (r->status == WEFT_OK && r->op == WF_TIER_READ) {
            t->stats.reads++;
            t->stats.read_bytes += r->bytes;
        }
    }
    signal_work(t);
    return count;
}

static void dram_cancel(struct wf_tier *t, struct wf_tier_request *r)
{
    enum weft_status status = wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled",
                                      t->path);
    if (t->active.request == r)
        end_active(t, status);
    else if (wf_tier_queue_remove(&t->work, r))
        finish(t, r, status);
    signal_work(t);
}

static int dram_event(const struct wf_tier *t)
{
    return t->event;
}

/* --------------------------------------------------------------------------------------- blocks */

static bool dram_find(const struct wf_tier *t, const uint8_t key[32], struct wf_tier_block *out)
{
    uint32_t item = wf_table_find(&t->table, key);
    if (item != WF_TABLE_NONE && out)
        block_of(t, &t->items[item], out);
    return item != WF_TABLE_NONE;
}

static enum weft_status dram_remove(struct wf_tier *t, const uint8_t key[32])
{
    uint32_t item = wf_table_find(&t->table, key);
    if (item == WF_TABLE_NONE)
        return WEFT_MISS;
    forget(t, &t->items[item]);
    return WEFT_OK;
}

/* Ancestors that were not told of yet go onto a stack and come off it root first.  Each is marked
 * when it is stacked, so that parents that form a ring end the walk too. */
static void dram_each(const struct wf_tier *t,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context)
{
    if (!t->items_used)
        return;
    uint32_t *stack = wf_calloc(t->items_used, sizeof *stack, "the walk over a tier");
    uint8_t *told = wf_calloc(t->items_used, 1, "the walk over a tier");
    for (uint32_t i = 0; stack && told && i < t->items_used; i++) {
        struct wf_tier_block block;
        uint32_t depth = 0, at = t->items[i].bytes ? i : WF_TABLE_NONE;
        while (at != WF_TABLE_NONE && !told[at]) {
            told[at] = 1;
            stack[depth++] = at;
            at = wf_table_find(&t->table, header_of(t, t->items[at].first)->parent);
        }
        while (depth) {
            block_of(t, &t->items[stack[--depth]], &block);
            found(context, &block);
        }
    }
    free(told);
    free(stack);
}

static void dram_stats(const struct wf_tier *t, struct wf_tier_stats *out)
{
    *out = t->stats;
    out->block_bytes_max = (uint64_t)(t->granules - header_granules(WF_TIER_PARTS_MAX)) * GRANULE;
    out->used_bytes = (uint64_t)t->used * GRANULE;
    out->blocks = t->table.count;
}

#if WF_TEST_HOOKS
bool wf_tier_dram_flip(struct wf_tier *t, const uint8_t key[32], uint64_t at)
{
    uint32_t item = wf_table_find(&t->table, key);
    struct wf_tier_block block;
    if (item == WF_TABLE_NONE || at >= t->items[item].bytes)
        return false;
    block_of(t, &t->items[item], &block);
    struct cursor c = cursor_to(t, &block, t->items[item].first, at);
    memory_at(t, c.granule)[c.offset] ^= 1;
    return true;
}
#endif

const struct wf_tier_ops wf_tier_dram = {
    .name = "dram",
    .open = dram_open,
    .close = dram_close,
    .submit = dram_submit,
    .reap = dram_reap,
    .cancel = dram_cancel,
    .event = dram_event,
    .find = dram_find,
    .remove = dram_remove,
    .each = dram_each,
    .stats = dram_stats,
};
