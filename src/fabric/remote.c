/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/remote.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/reserve.h"
#include "base/table.h"
#include "fabric/inner.h"
#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"
#include "tier/queue.h"

#define BLOCKS_MAX (1u << 28)
#define SWEEP_STEP 4096u
/* A lender says what it has left now and then (pings in links.c: every second, of very many nodes
 * every eighth), and one that is not believed for a moment says nothing. */
#define SAID_NS 8000000000u

/* A block of this node's in another's memory. */
struct item {
    uint8_t key[32];
    uint8_t parent[32];
    uint64_t bytes;
    uint32_t table_next, part_bytes, depth;
    uint16_t domain;
    uint8_t quality, there; /* there: the write was reaped */
};
static_assert(sizeof(struct item) == 88, "as the header says");

/* A request with the fabric. */
struct op {
    union {
        struct wf_fabric_fetch fetch;
        struct wf_fabric_store store;
    } u;
    struct wf_tier_request *request;
    struct tier *tier;
    struct op *next;
    uint32_t item; /* WRITE */
};

struct tier {
    struct wf_peers *peers;
    char *name;
    int event;
    struct op *ops, *free;
    struct item *items;
    uint32_t items_used, item_free;
    struct wf_table table;
    struct wf_tier_stats stats;
    uint64_t forgotten;               /* of the fabric, at the last look */
    uint64_t writing_bytes;           /* on their way there */
    uint64_t most_bytes[2], begun_ns; /* of the capacity, since then and in SAID_NS before */
    uint32_t swept;
    bool sweeping, table_made;
    pthread_mutex_t lock;
    struct wf_tier_queue done; /* under lock */
    uint32_t out;              /* with the fabric; under lock */
};

static struct tier *of(const struct wf_tier *tier)
{
    return (struct tier *)(uintptr_t)tier;
}

/* --------------------------------------------------------------------------------------- items */

static uint32_t item_take(struct tier *t)
{
    uint32_t number = t->item_free;
    if (number != WF_TABLE_NONE)
        t->item_free = t->items[number].table_next;
    else if (t->items_used < BLOCKS_MAX)
        number = t->items_used++;
    return number;
}

static void item_give(struct tier *t, uint32_t number)
{
    struct item *item = &t->items[number];
    wf_table_remove(&t->table, number);
    t->stats.used_bytes -= item->there ? wf_lent_takes(item->bytes, item->part_bytes) : 0;
    t->stats.blocks -= item->there;
    memset(item, 0, sizeof *item);
    item->table_next = t->item_free;
    t->item_free = number;
}

static void block_of(const struct tier *t, const struct item *item, struct wf_tier_block *out)
{
    *out = (struct wf_tier_block){.depth = item->depth,
                                  .part_bytes = item->part_bytes,
                                  .bytes = item->bytes,
                                  .plain_quality = item->quality};
    memcpy(out->key, item->key, 32);
    memcpy(out->parent, item->parent, 32);
    wf_peers_tag(t->peers, item->domain, out->format);
}

/* ------------------------------------------------------------------------------------- requests */

static void finish(struct op *op, enum weft_status status, uint64_t bytes)
{
    struct tier *t = op->tier;
    op->request->status = status;
    op->request->bytes = bytes;
    pthread_mutex_lock(&t->lock);
    wf_tier_queue_add(&t->done, op->request);
    t->out--;
    (void)eventfd_write(t->event, 1);
    pthread_mutex_unlock(&t->lock);
}

/* Both on the fabric's thread. */
static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct op *op = fetch->user;
    op->request->lost = fetch->quality;
    op->request->profile = fetch->profile;
    finish(op, status, fetch->moved);
}

static void stored(struct wf_fabric_store *store, enum weft_status status)
{
    finish(store->user, status == WEFT_EXISTS ? WEFT_OK : status,
           status == WEFT_OK || status == WEFT_EXISTS ? store->block.bytes : 0);
}

static enum weft_status check(const struct tier *t, const struct wf_tier_request *r)
{
    struct wf_tier_block there;
    uint32_t number = r->op == WF_TIER_READ ? wf_table_find(&t->table, r->block.key)
                                            : WF_TABLE_NONE;
    bool known = number != WF_TABLE_NONE && t->items[number].there;
    if (known)
        block_of(t, &t->items[number], &there);
    enum weft_status status = wf_tier_check_request(r, known ? &there : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_FLUSH)
        return wf_fail(WEFT_E_INVALID, "tier %s: it is memory, and nothing in it is durable",
                       t->name);
    if (r->op == WF_TIER_READ)
        return known ? WEFT_OK : WEFT_MISS;
    if (r->block.bytes > UINT32_MAX || r->as_stored)
        return wf_fail(WEFT_E_INVALID, "tier %s: it takes blocks of up to 4 GiB, as they are",
                       t->name);
    return wf_table_find(&t->table, r->block.key) == WF_TABLE_NONE ? WEFT_OK : WEFT_EXISTS;
}

static void fetch_begin(struct op *op, struct wf_fabric *fabric, uint32_t domain)
{
    const struct wf_tier_request *r = op->request;
    const struct item *item = &op->tier->items[wf_table_find(&op->tier->table, r->block.key)];
    op->u.fetch = (struct wf_fabric_fetch){.domain = domain,
                                           .bytes = item->bytes,
                                           .part_bytes = item->part_bytes,
                                           .first_part = r->first_part,
                                           .part_count = r->part_count,
                                           .data = r->data,
                                           .accept = item->quality,
                                           .done = fetched,
                                           .user = op};
    memcpy(op->u.fetch.key, r->block.key, 32);
    wf_fabric_fetch(fabric, &op->u.fetch);
}

static void store_begin(struct op *op, struct wf_fabric *fabric, uint32_t domain)
{
    struct tier *t = op->tier;
    const struct wf_tier_request *r = op->request;
    struct item *item = &t->items[op->item];
    *item = (struct item){.bytes = r->block.bytes,
                          .part_bytes = r->block.part_bytes,
                          .depth = r->block.depth,
                          .domain = (uint16_t)domain,
                          .quality = (uint8_t)r->lost};
    memcpy(item->key, r->block.key, 32);
    memcpy(item->parent, r->block.parent, 32);
    wf_table_insert(&t->table, op->item);
    op->u.store = (struct wf_fabric_store){.block = {.kind = WF_FABRIC_HERE,
                                                     .quality = item->quality,
                                                     .domain = (uint8_t)domain,
                                                     .depth = item->depth,
                                                     .bytes = item->bytes},
                                           .part_bytes = item->part_bytes,
                                           .profile = r->profile,
                                           .data = r->data,
                                           .done = stored,
                                           .user = op};
    memcpy(op->u.store.block.key, item->key, 32);
    memcpy(op->u.store.block.parent, item->parent, 32);
    wf_fabric_store(fabric, &op->u.store);
}

static uint32_t domain_of(const struct tier *t, const struct wf_tier_request *r)
{
    uint32_t number = wf_table_find(&t->table, r->block.key);
    return r->op == WF_TIER_READ ? t->items[number].domain
                                 : wf_peers_domain(t->peers, r->block.format);
}

static uint64_t write_takes(const struct wf_tier_request *r)
{
    return wf_lent_takes(r->block.bytes, r->block.part_bytes);
}

static enum weft_status remote_submit(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    struct op *op = t->free;
    if (!op)
        return WEFT_PENDING;
    enum weft_status status = check(t, r);
    if (status != WEFT_OK)
        return status;
    uint32_t domain = domain_of(t, r);
    if (domain == WF_FABRIC_DOMAINS_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: a block of no domain of this node", t->name);
    op->item = r->op == WF_TIER_WRITE ? item_take(t) : WF_TABLE_NONE;
    if (r->op == WF_TIER_WRITE && op->item == WF_TABLE_NONE)
        return WEFT_FULL;
    op->request = r;
    pthread_mutex_lock(&t->lock);
    t->out++;
    pthread_mutex_unlock(&t->lock);
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    if (fabric && r->op == WF_TIER_READ)
        fetch_begin(op, fabric, domain);
    else if (fabric)
        store_begin(op, fabric, domain);
    wf_peers_leave(t->peers);
    if (!fabric) {
        pthread_mutex_lock(&t->lock);
        t->out--;
        pthread_mutex_unlock(&t->lock);
        if (op->item != WF_TABLE_NONE) {
            t->items[op->item].table_next = t->item_free;
            t->item_free = op->item;
        }
        return r->op == WF_TIER_READ ? WEFT_MISS : WEFT_FULL;
    }
    t->free = op->next;
    memcpy(r->private, &op, sizeof(struct op *));
    t->stats.in_flight++;
    t->writing_bytes += r->op == WF_TIER_WRITE ? write_takes(r) : 0;
    return WEFT_OK;
}

static struct op *op_of(const struct wf_tier_request *r)
{
    struct op *op;
    memcpy(&op, r->private, sizeof(struct op *));
    return op;
}

static void reaped(struct tier *t, struct wf_tier_request *r)
{
    struct op *op = op_of(r);
    bool ok = r->status == WEFT_OK;
    if (r->op == WF_TIER_READ && r->status == WEFT_E_LIMIT)
        wf_fetch_limit_say(t->name, &op->u.fetch.limit);
    else if (r->status < 0)
        (void)wf_fail(r->status, "tier %s: the node that lends the memory cannot %s now", t->name,
                      r->op == WF_TIER_WRITE ? "take the block" : "give the block");
    t->writing_bytes -= r->op == WF_TIER_WRITE ? write_takes(r) : 0;
    if (r->op == WF_TIER_WRITE && ok) {
        t->items[op->item].there = true;
        t->stats.used_bytes += write_takes(r);
        t->stats.blocks++;
        t->stats.writes++;
        t->stats.write_bytes += r->bytes;
        t->stats.device_write_bytes += r->bytes;
    } else if (r->op == WF_TIER_WRITE) {
        item_give(t, op->item);
        if (r->status == WEFT_E_CORRUPT)
            (void)wf_fail(r->status, "tier %s: a block did not arrive as it was sent", t->name);
    } else {
        t->stats.reads += ok;
        t->stats.read_bytes += r->bytes;
        uint32_t number = ok ? WF_TABLE_NONE : wf_table_find(&t->table, r->block.key);
        if (r->status == WEFT_E_CORRUPT) {
            t->stats.corrupt++;
            (void)wf_fail(r->status, "tier %s: a block was not what its checksum says", t->name);
        }
        if ((r->status == WEFT_MISS || r->status == WEFT_E_CORRUPT) && number != WF_TABLE_NONE)
            item_give(t, number);
    }
    op->next = t->free;
    t->free = op;
    t->stats.in_flight--;
}

static uint32_t remote_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                            uint32_t timeout_ms)
{
    struct tier *t = of(tier);
    eventfd_t ignored;
    uint32_t count = 0;
    if (timeout_ms && t->stats.in_flight)
        (void)poll(&(struct pollfd){.fd = t->event, .events = POLLIN}, 1, (int)timeout_ms);
    (void)eventfd_read(t->event, &ignored);
    while (count < max) {
        pthread_mutex_lock(&t->lock);
        struct wf_tier_request *r = wf_tier_queue_take(&t->done);
        pthread_mutex_unlock(&t->lock);
        if (!r)
            return count;
        reaped(t, r);
        out[count++] = r;
    }
    (void)eventfd_write(t->event, 1);
    return count;
}

static void remote_cancel(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    if (fabric && r->op == WF_TIER_READ)
        wf_fabric_cancel(fabric, &op_of(r)->u.fetch);
    else if (fabric && r->op == WF_TIER_WRITE)
        wf_fabric_store_cancel(fabric, &op_of(r)->u.store);
    wf_peers_leave(t->peers);
}

static int remote_event(const struct wf_tier *tier)
{
    return of(tier)->event;
}

/* ------------------------------------------------------------------------------- what is there */

static bool remote_find(const struct wf_tier *tier, const uint8_t key[32],
                        struct wf_tier_block *out)
{
    const struct tier *t = of(tier);
    uint32_t number = wf_table_find(&t->table, key);
    if (number == WF_TABLE_NONE || !t->items[number].there)
        return false;
    if (out)
        block_of(t, &t->items[number], out);
    return true;
}

static enum weft_status remote_remove(struct wf_tier *tier, const uint8_t key[32])
{
    struct tier *t = of(tier);
    uint32_t number = wf_table_find(&t->table, key);
    if (number == WF_TABLE_NONE || !t->items[number].there)
        return WEFT_MISS;
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    if (fabric)
        wf_fabric_drop(fabric, key);
    wf_peers_leave(t->peers);
    item_give(t, number);
    return WEFT_OK;
}

static void remote_each(const struct wf_tier *tier,
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context)
{
    (void)tier, (void)found, (void)context; /* nothing outlives a node */
}

/* What lenders let go, or took with them.  Of a directory of which this node keeps a part it does
 * not hear that: a read finds it. */
static enum weft_status remote_news(struct wf_tier *tier,
                                    void (*told)(void *context, const struct wf_tier_block *block,
                                                 bool there),
                                    void *context)
{
    struct tier *t = of(tier);
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    bool hears = fabric && !wf_fabric_in_parts(fabric);
    uint64_t forgotten = hears ? wf_fabric_changed(fabric) : t->forgotten;
    t->sweeping &= hears || !fabric;
    if (forgotten != t->forgotten &&
        !t->sweeping) { /* what changes meanwhile is the next round's */
        t->forgotten = forgotten;
        t->sweeping = true;
        t->swept = 0;
    }
    uint32_t end = t->swept + SWEEP_STEP < t->items_used ? t->swept + SWEEP_STEP : t->items_used;
    for (; fabric && t->sweeping && t->swept < end; t->swept++) {
        struct item *item = &t->items[t->swept];
        struct wf_tier_block block;
        if (!item->there || wf_fabric_elsewhere(fabric, item->key))
            continue;
        block_of(t, item, &block);
        item_give(t, t->swept);
        told(context, &block, false);
    }
    wf_peers_leave(t->peers);
    t->sweeping &= t->swept < t->items_used;
    return t->sweeping ? WEFT_PENDING : WEFT_OK;
}

/* What others have put there is not this node's to fill, and what is left is as of the lenders'
 * last word, and not more than they lend it.  What was dropped since is in neither, so that to
 * believe that at once were to drop more, for room that there is, and more again: the most that it
 * came to lately is what there is.
 */
static uint64_t capacity_of(struct tier *t, uint64_t lent, uint64_t unused, uint64_t now_ns)
{
    uint64_t bytes = t->stats.used_bytes + t->writing_bytes;
    uint64_t left = lent > bytes ? lent - bytes : 0;
    bytes += unused < left ? unused : left; /* what was put since is in both */
    if (now_ns - t->begun_ns >= SAID_NS) {
        t->most_bytes[1] = now_ns - t->begun_ns < (uint64_t)2 * SAID_NS ? t->most_bytes[0] : 0;
        t->most_bytes[0] = 0;
        t->begun_ns = now_ns;
    }
    t->most_bytes[0] = bytes > t->most_bytes[0] ? bytes : t->most_bytes[0];
    return t->most_bytes[t->most_bytes[1] > t->most_bytes[0]];
}

static void remote_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    struct tier *t = of(tier);
    uint64_t bytes = 0, unused = 0;
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    if (fabric)
        wf_fabric_lent_here(fabric, &bytes, &unused);
    uint64_t now_ns = fabric ? wf_fabric_now(fabric) : wf_now_ns();
    wf_peers_leave(t->peers);
    *out = t->stats;
    out->capacity_bytes = capacity_of(t, bytes, unused, now_ns);
}

/* ------------------------------------------------------------------------------- open and close */

static void remote_close(struct wf_tier *tier)
{
    struct tier *t = of(tier);
    bool out = true;
    if (!t)
        return;
    while (out) { /* what is with the fabric reads and writes somebody's memory */
        pthread_mutex_lock(&t->lock);
        out = t->out > 0;
        pthread_mutex_unlock(&t->lock);
        if (out)
            wf_nap(1000000);
    }
    if (t->event >= 0)
        close(t->event);
    if (t->table_made)
        wf_table_fini(&t->table);
    wf_unreserve(t->items, (uint64_t)BLOCKS_MAX * sizeof *t->items);
    pthread_mutex_destroy(&t->lock);
    free(t->ops);
    free(t->name);
    free(t);
}

static enum weft_status remote_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    struct tier *t = wf_calloc(1, sizeof *t, "memory of other nodes");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&t->lock, NULL);
    t->peers = options->peers;
    t->item_free = WF_TABLE_NONE;
    t->name = wf_strdup(options->path, "a name");
    t->ops = wf_calloc(options->queue_depth, sizeof *t->ops, "requests to other nodes");
    t->items = wf_reserve((uint64_t)BLOCKS_MAX * sizeof *t->items, "blocks in other nodes' memory",
                          "raise the limit of address space (ulimit -v)");
    enum weft_status status = t->name && t->ops && t->items ? WEFT_OK : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK && t->event < 0)
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: no descriptor is left: %s", t->name,
                         strerror(errno));
    const struct wf_table_items items = {.first = t->items,
                                         .max = BLOCKS_MAX,
                                         .bytes = sizeof *t->items,
                                         .key_offset = offsetof(struct item, key),
                                         .next_offset = offsetof(struct item, table_next)};
    if (status == WEFT_OK)
        status = wf_table_init(&t->table, &items, options->seed);
    t->table_made = status == WEFT_OK;
    for (uint32_t i = 0; status == WEFT_OK && i < options->queue_depth; i++) {
        t->ops[i].tier = t;
        t->ops[i].next = t->free;
        t->free = &t->ops[i];
    }
    t->stats.queue_depth = options->queue_depth;
    t->stats.block_bytes_max = UINT32_MAX;
    t->stats.forgets = true;
    if (status == WEFT_OK)
        *out = (struct wf_tier *)t;
    else
        remote_close((struct wf_tier *)t);
    return status;
}

const struct wf_tier_ops wf_tier_remote = {
    .name = "remote",
    .open = remote_open,
    .close = remote_close,
    .submit = remote_submit,
    .reap = remote_reap,
    .cancel = remote_cancel,
    .event = remote_event,
    .find = remote_find,
    .remove = remote_remove,
    .each = remote_each,
    .stats = remote_stats,
    .news = remote_news,
};
