/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric/peers.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/check.h"
#include "tier/queue.h"

#define NEWS_MAX 65536u /* that the tier has not been asked for yet; a power of two */
#define NEWS_FEW 16u    /* of one node: these find room as long as there is any */
#define NEWS_STEP 4096u /* in one news() */

struct item {
    struct wf_fabric_fetch fetch; /* first */
    struct wf_tier_request *request;
    struct tier *tier;
    struct item *next;
};

struct told {
    struct wf_fabric_event event;
    uint32_t from;
};

struct wf_peers {
    uint8_t tags[WF_FABRIC_DOMAINS_MAX][32];
    uint8_t accept[WF_FABRIC_DOMAINS_MAX]; /* enum weft_quality */
    uint32_t domain_count;
    uint32_t (*part_bytes)(uint64_t block_bytes);
    pthread_mutex_t lock;
    struct wf_fabric *fabric;
    struct told *news;
    uint64_t news_first, news_end;
    uint32_t news_of[WF_FABRIC_NOBODY + 1]; /* of them, by who told it */
    bool refused;                           /* some news found no room */
    int ring;                               /* the tier's event; -1: it is not open */
};

struct tier {
    struct wf_peers *peers;
    char *name;
    uint32_t queue_depth;
    int event;
    struct item *items, *free; /* the driving thread's */
    struct wf_tier_stats stats;
    pthread_mutex_t lock;
    struct wf_tier_queue done; /* under lock */
    uint32_t out;              /* with the fabric; under lock */
};

static struct tier *of(const struct wf_tier *tier)
{
    return (struct tier *)(uintptr_t)tier;
}

/* --------------------------------------------------------------------------------- the crossing */

enum weft_status wf_peers_create(const uint8_t (*tags)[32], const uint8_t *accept,
                                 uint32_t domain_count,
                                 uint32_t (*part_bytes)(uint64_t block_bytes),
                                 struct wf_peers **out)
{
    struct wf_peers *p = wf_calloc(1, sizeof *p, "what other nodes have");
    if (!p)
        return WEFT_E_NO_MEMORY;
    p->news = wf_calloc(NEWS_MAX, sizeof *p->news, "what other nodes have");
    if (!p->news) {
        free(p);
        return WEFT_E_NO_MEMORY;
    }
    memcpy(p->tags, tags, domain_count * sizeof p->tags[0]);
    if (accept)
        memcpy(p->accept, accept, domain_count);
    p->domain_count = domain_count;
    p->part_bytes = part_bytes;
    p->ring = -1;
    pthread_mutex_init(&p->lock, NULL);
    *out = p;
    return WEFT_OK;
}

void wf_peers_destroy(struct wf_peers *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p->news);
    free(p);
}

void wf_peers_attach(struct wf_peers *p, struct wf_fabric *fabric)
{
    pthread_mutex_lock(&p->lock);
    p->fabric = fabric;
    pthread_mutex_unlock(&p->lock);
}

struct wf_fabric *wf_peers_enter(struct wf_peers *p)
{
    pthread_mutex_lock(&p->lock);
    return p->fabric;
}

void wf_peers_leave(struct wf_peers *p)
{
    pthread_mutex_unlock(&p->lock);
}

void wf_peers_tag(const struct wf_peers *p, uint32_t domain, uint8_t out[32])
{
    memcpy(out, p->tags[domain], 32);
}

uint32_t wf_peers_domain(const struct wf_peers *p, const uint8_t tag[32])
{
    for (uint32_t d = 0; d < p->domain_count; d++)
        if (memcmp(p->tags[d], tag, 32) == 0)
            return d;
    return WF_FABRIC_DOMAINS_MAX;
}

/* Nobody has more of them on their way than are left for others besides a quarter; and of what went
 * less has to be found out again than of what came. */
static bool has_room(const struct wf_peers *p, uint32_t from, const struct wf_fabric_event *block)
{
    uint64_t left = NEWS_MAX - (p->news_end - p->news_first);
    bool came = block->kind == WF_FABRIC_HERE && block->bytes > 0;
    if (from == WF_FABRIC_NOBODY && !came)
        return left > NEWS_MAX / 8;
    return left > 0 && (p->news_of[from] < NEWS_FEW || p->news_of[from] + NEWS_MAX / 4 < left);
}

bool wf_peers_news(void *peers, uint32_t from, const struct wf_fabric_event *block)
{
    struct wf_peers *p = peers;
    pthread_mutex_lock(&p->lock);
    bool room = has_room(p, from, block);
    if (p->news_first == p->news_end && p->ring >= 0)
        (void)eventfd_write(p->ring, 1);
    if (room) {
        p->news[p->news_end++ % NEWS_MAX] = (struct told){.event = *block, .from = from};
        p->news_of[from]++;
    } else {
        p->refused = true;
    }
    pthread_mutex_unlock(&p->lock);
    return room;
}

/* The oldest.  False: there is none.  Who tells without end keeps it from being empty, so there is
 * room again before that. */
static bool news_take(struct wf_peers *p, struct wf_fabric_event *out)
{
    pthread_mutex_lock(&p->lock);
    bool some = p->news_first < p->news_end;
    if (some) {
        const struct told *told = &p->news[p->news_first++ % NEWS_MAX];
        *out = told->event;
        p->news_of[told->from]--;
    }
    if (p->refused && p->fabric && p->news_end - p->news_first <= NEWS_MAX / 2) {
        p->refused = false;
        wf_fabric_room_again(p->fabric);
    }
    pthread_mutex_unlock(&p->lock);
    return some;
}

static enum weft_status
tier_news(struct wf_tier *tier,
          void (*told)(void *context, const struct wf_tier_block *block, bool there), void *context)
{
    struct wf_peers *p = of(tier)->peers;
    bool more = true;
    for (uint32_t i = 0; i < NEWS_STEP && more; i++) {
        struct wf_fabric_event event;
        more = news_take(p, &event);
        if (!more || event.domain >= p->domain_count)
            continue;
        struct wf_tier_block block = {.depth = event.depth,
                                      .bytes = event.bytes,
                                      .part_bytes = p->part_bytes(event.bytes),
                                      .plain_quality = event.quality};
        memcpy(block.key, event.key, 32);
        memcpy(block.parent, event.parent, 32);
        memcpy(block.format, p->tags[event.domain], 32);
        told(context, &block, event.kind == WF_FABRIC_HERE);
    }
    return more ? WEFT_PENDING : WEFT_OK;
}

/* --------------------------------------------------------------------------------------- reads */

static void finish(struct tier *t, struct wf_tier_request *request, enum weft_status status,
                   uint64_t bytes)
{
    request->status = status;
    request->bytes = bytes;
    pthread_mutex_lock(&t->lock);
    wf_tier_queue_add(&t->done, request);
    t->out--;
    (void)eventfd_write(t->event, 1);
    pthread_mutex_unlock(&t->lock);
}

/* On the fabric's thread. */
static void fetched(struct wf_fabric_fetch *fetch, enum weft_status status)
{
    struct item *item = (struct item *)fetch;
    struct tier *t = item->tier;
    item->request->lost = fetch->quality;
    item->request->profile = fetch->profile;
    finish(t, item->request, status, fetch->moved);
}

static enum weft_status check(const struct tier *t, const struct wf_tier_request *r)
{
    enum weft_status status = wf_tier_check_request(r, r->op == WF_TIER_READ ? &r->block : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_WRITE)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: it is what other nodes have, and cannot be written", t->name);
    if (r->op == WF_TIER_FLUSH)
        return wf_fail(WEFT_E_INVALID, "tier %s: it is memory, and nothing in it is durable",
                       t->name);
    return WEFT_OK;
}

static enum weft_status tier_submit(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    struct wf_peers *p = t->peers;
    struct item *item = t->free;
    if (!item)
        return WEFT_PENDING;
    if (r->op == WF_TIER_READ && (r->block.bytes == 0 || r->block.part_bytes == 0))
        return WEFT_MISS; /* of a size that nobody told of */
    enum weft_status status = check(t, r);
    uint32_t domain = wf_peers_domain(p, r->block.format);
    if (status != WEFT_OK || domain == WF_FABRIC_DOMAINS_MAX)
        return status != WEFT_OK ? status : WEFT_MISS;
    item->request = r;
    item->fetch = (struct wf_fabric_fetch){.domain = domain,
                                           .bytes = r->block.bytes,
                                           .part_bytes = r->block.part_bytes,
                                           .first_part = r->first_part,
                                           .part_count = r->part_count,
                                           .data = r->data,
                                           .background = r->background,
                                           .accept = p->accept[domain],
                                           .done = fetched};
    memcpy(item->fetch.key, r->block.key, 32);
    struct wf_fabric *fabric = wf_peers_enter(p);
    if (fabric) {
        pthread_mutex_lock(&t->lock);
        t->out++;
        pthread_mutex_unlock(&t->lock);
        wf_fabric_fetch(fabric, &item->fetch);
    }
    wf_peers_leave(p);
    if (!fabric)
        return WEFT_MISS;
    t->free = item->next;
    memcpy(r->private, &item, sizeof(struct item *));
    t->stats.in_flight++;
    return WEFT_OK;
}

static struct item *item_of(const struct wf_tier_request *r)
{
    struct item *item;
    memcpy(&item, r->private, sizeof(struct item *));
    return item;
}

static struct wf_tier_request *take_done(struct tier *t)
{
    pthread_mutex_lock(&t->lock);
    struct wf_tier_request *r = wf_tier_queue_take(&t->done);
    pthread_mutex_unlock(&t->lock);
    return r;
}

void wf_fetch_limit_say(const char *tier, const struct wf_fetch_limit *limit)
{
    bool link = limit->by == WF_FABRIC_LIMITED_LINK;
    (void)
        wf_fail(WEFT_E_LIMIT,
                "tier %s: node %s has the block, and may send only %llu bytes a second %s, so its "
                "turn would come in more than %u s; raise %s there, or weft fabric limit %s",
                tier, limit->name, (unsigned long long)limit->bytes_s,
                link ? "to this one" : "of that domain", WF_FETCH_LIMIT_S,
                link ? "fabric.link_max or fabric.links" : "the domain's fabric_max",
                link ? "link" : "domain");
}

static uint32_t tier_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                          uint32_t timeout_ms)
{
    struct tier *t = of(tier);
    struct wf_tier_request *r;
    eventfd_t ignored;
    uint32_t count = 0;
    if (timeout_ms && t->stats.in_flight)
        (void)poll(&(struct pollfd){.fd = t->event, .events = POLLIN}, 1, (int)timeout_ms);
    (void)eventfd_read(t->event, &ignored);
    while (count < max && (r = take_done(t))) {
        struct item *item = item_of(r);
        item->next = t->free;
        t->free = item;
        t->stats.in_flight--;
        t->stats.reads += r->status == WEFT_OK;
        t->stats.read_bytes += r->bytes;
        if (r->status == WEFT_E_CORRUPT) {
            t->stats.corrupt++;
            (void)wf_fail(WEFT_E_CORRUPT,
                          "tier %s: a block came from another node, or lay in memory that this one "
                          "lends, and was not what its checksum says",
                          t->name);
        } else if (r->status == WEFT_E_LIMIT) {
            wf_fetch_limit_say(t->name, &item->fetch.limit);
        } else if (r->status < 0 && r->status != WEFT_E_TIMEOUT) {
            (void)wf_fail(r->status,
                          r->status == WEFT_E_NODE
                              ? "tier %s: the node that had the block went while it came"
                              : "tier %s: the node that has the block cannot give it now",
                          t->name);
        }
        out[count++] = r;
    }
    if (count == max)
        (void)eventfd_write(t->event, 1);
    return count;
}

static void tier_cancel(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct tier *t = of(tier);
    struct wf_peers *p = t->peers;
    struct wf_fabric *fabric = wf_peers_enter(p);
    if (fabric)
        wf_fabric_cancel(fabric, &item_of(r)->fetch);
    wf_peers_leave(p);
}

static int tier_event(const struct wf_tier *tier)
{
    return of(tier)->event;
}

static bool tier_find(const struct wf_tier *tier, const uint8_t key[32], struct wf_tier_block *out)
{
    (void)tier, (void)key, (void)out;
    return false;
}

/* Only this node forgets it. */
static enum weft_status tier_remove(struct wf_tier *tier, const uint8_t key[32])
{
    (void)tier, (void)key;
    return WEFT_OK;
}

static void tier_each(const struct wf_tier *tier,
                      void (*found)(void *context, const struct wf_tier_block *block),
                      void *context)
{
    (void)tier, (void)found, (void)context; /* all of it is news */
}

static void tier_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    struct tier *t = of(tier);
    struct wf_fabric *fabric = wf_peers_enter(t->peers);
    *out = t->stats;
    out->waits = fabric && t->stats.in_flight && wf_fabric_patient(fabric);
    wf_peers_leave(t->peers);
}

/* ------------------------------------------------------------------------------- open and close */

static void ring_is(struct tier *t, int event)
{
    pthread_mutex_lock(&t->peers->lock);
    t->peers->ring = event;
    pthread_mutex_unlock(&t->peers->lock);
}

static void tier_close(struct wf_tier *tier)
{
    struct tier *t = of(tier);
    if (!t)
        return;
    for (;;) { /* what is with the fabric writes to somebody's memory */
        pthread_mutex_lock(&t->lock);
        bool out = t->out > 0;
        pthread_mutex_unlock(&t->lock);
        if (!out)
            break;
        wf_nap(1000000);
    }
    ring_is(t, -1);
    if (t->event >= 0)
        close(t->event);
    pthread_mutex_destroy(&t->lock);
    free(t->items);
    free(t->name);
    free(t);
}

static enum weft_status tier_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    struct tier *t = wf_calloc(1, sizeof *t, "what other nodes have");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&t->lock, NULL);
    t->peers = options->peers;
    t->queue_depth = options->queue_depth;
    t->name = wf_strdup(options->path, "a name");
    t->items = wf_calloc(options->queue_depth, sizeof *t->items, "reads of other nodes' blocks");
    enum weft_status status = t->name && t->items ? WEFT_OK : WEFT_E_NO_MEMORY;
    if (status == WEFT_OK && t->event < 0)
        status = wf_fail(WEFT_E_SYSTEM, "tier %s: no descriptor is left: %s", t->name,
                         strerror(errno));
    for (uint32_t i = 0; status == WEFT_OK && i < options->queue_depth; i++) {
        t->items[i].tier = t;
        t->items[i].next = t->free;
        t->free = &t->items[i];
    }
    t->stats.queue_depth = options->queue_depth;
    t->stats.block_bytes_max = UINT32_MAX;
    t->stats.forgets = true;
    if (status == WEFT_OK)
        ring_is(t, t->event);
    if (status == WEFT_OK)
        *out = (struct wf_tier *)t;
    else
        tier_close((struct wf_tier *)t);
    return status;
}

const struct wf_tier_ops wf_tier_peers = {
    .name = "peers",
    .open = tier_open,
    .close = tier_close,
    .submit = tier_submit,
    .reap = tier_reap,
    .cancel = tier_cancel,
    .event = tier_event,
    .find = tier_find,
    .remove = tier_remove,
    .each = tier_each,
    .stats = tier_stats,
    .news = tier_news,
    .news_rings = true,
};
