/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of other hosts on a shared CXL device, as a tier that is read only.
 *
 * It has a mapping of its own, without the right to write: whatever goes wrong here, nothing of
 * another host is written or freed.  A read goes from the other host's extent straight to where it
 * was asked to go, in slices like those of cxl.c: lines are dropped from this host's caches,
 * copied, and hashed on the side that this host owns.  When the last slice is there, the block's
 * word is looked at again (cxl_share.h): only then was all of it the block, and the read is
 * WEFT_OK.  Was it taken back meanwhile, the read is WEFT_MISS.
 *
 * Which blocks there are is found by looking, some extents at a time: news().  One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "sys/clock.h"
#include "sys/lines.h"
#include "sys/memory.h"
#include "tier/cxl_share.h"
#include "tier/cxl_volume.h"

#define SLICE_BYTES (256u << 10)
#define SLICES_A_REAP 4u
#define LOOK_EXTENTS 1024u   /* in one news() */
#define ALL_MS 5000u         /* every extent is looked at so often, whoever published */
#define AGAIN_MAX 65536u     /* blocks to be told again */
#define FORMAT_WAIT_MS 3000u /* an open waits so long for host 1 */

struct others {
    struct wf_cxl volume; /* first, so that a tier is one too */
    struct wf_cxl_share *share;
    struct wf_tier_stats stats;
    uint32_t queue_depth;
    int event;
    struct wf_tier_request *first, *last; /* to be read; the first may be under way */
    struct wf_tier_request *done, *done_last;
    bool active;
    struct wf_cxl_view view;    /* of the first */
    uint64_t at, copied, bytes; /* payload from `at`: so much of so much */
    uint32_t part;
    uint64_t part_done, slice;
    XXH3_state_t *hash;
    uint64_t looked_ms; /* when every extent was last asked for */
    struct {
        uint64_t heartbeat, since_ms;
    } heard[WF_CXL_HOSTS];
    uint8_t (*again)[32];
    uint32_t again_count;
    uint64_t header[(WF_CXL_HEADER_MAX + 7) / 8];
};

static struct others *of(const struct wf_tier *tier)
{
    return (struct others *)(uintptr_t)tier;
}

static struct wf_cxl_header *header_of(struct others *o)
{
    return (struct wf_cxl_header *)(void *)o->header;
}

/* --------------------------------------------------------------------------------------- queues */

static void add(struct wf_tier_request **first, struct wf_tier_request **last,
                struct wf_tier_request *r)
{
    r->next = NULL;
    if (*last)
        (*last)->next = r;
    else
        *first = r;
    *last = r;
}

static struct wf_tier_request *take(struct wf_tier_request **first, struct wf_tier_request **last)
{
    struct wf_tier_request *r = *first;
    if (r)
        *first = r->next;
    if (!*first)
        *last = NULL;
    return r;
}

static void finish_first(struct others *o, enum weft_status status)
{
    struct wf_tier_request *r = take(&o->first, &o->last);
    o->active = false;
    r->status = status;
    r->bytes = status == WEFT_OK ? o->bytes : 0;
    o->stats.errors += status == WEFT_E_SYSTEM;
    o->stats.corrupt += status == WEFT_E_CORRUPT;
    add(&o->done, &o->done_last, r);
}

static void signal_work(const struct others *o)
{
    if (o->done || o->first)
        (void)eventfd_write(o->event, 1);
}

/* ---------------------------------------------------------------------------------------- reads */

static void copy_slice(void *context)
{
    struct others *o = context;
    const uint8_t *there = (const uint8_t *)o->view.data + o->at + o->copied;
    wf_lines_invalidate(there, o->slice);
    memcpy((uint8_t *)o->first->data + o->copied, there, o->slice);
}

/* Each part that is complete is compared with its sum. */
static bool hash_slice(struct others *o)
{
    const uint8_t *memory = (const uint8_t *)o->first->data + o->copied;
    for (uint64_t left = o->slice; left > 0;) {
        uint64_t part_left = wf_tier_part_bytes(&o->view.block, o->part) - o->part_done;
        uint64_t now = left < part_left ? left : part_left;
        if (o->part_done == 0)
            XXH3_64bits_reset(o->hash);
        XXH3_64bits_update(o->hash, memory, now);
        o->part_done += now;
        memory += now;
        left -= now;
        if (now < part_left)
            continue;
        if (XXH3_64bits_digest(o->hash) != header_of(o)->sums[o->part])
            return false;
        o->part++;
        o->part_done = 0;
    }
    return true;
}

/* The block that is read is the one that was known at submit: its shape is what the caller's room
 * was made for. */
static enum weft_status begin(struct others *o)
{
    const struct wf_tier_request *r = o->first;
    enum weft_status status = wf_cxl_share_locate(o->share, r->block.key, header_of(o), &o->view);
    const struct wf_tier_block *b = &o->view.block;
    if (status != WEFT_OK)
        return status;
    if (b->bytes != r->private[0] || b->part_bytes != r->private[1])
        return WEFT_MISS;
    uint32_t parts = wf_tier_parts(b), end = r->part_count ? r->first_part + r->part_count : parts;
    o->part = r->first_part;
    o->part_done = o->copied = 0;
    o->at = (uint64_t)r->first_part * b->part_bytes;
    o->bytes = (end == parts ? b->bytes : (uint64_t)end * b->part_bytes) - o->at;
    o->active = true;
    return WEFT_OK;
}

/* Anything but the block's own bytes is nobody's fault when its owner has taken it back. */
static enum weft_status judge(struct others *o, bool right)
{
    enum weft_status status = wf_cxl_share_check(o->share, &o->view);
    if (status != WEFT_OK || right)
        return status;
    return wf_fail(WEFT_E_CORRUPT, "tier %s: a block of host %u is not what its checksum says",
                   o->volume.path, o->view.host);
}

static void advance(struct others *o)
{
    o->slice = o->bytes - o->copied < SLICE_BYTES ? o->bytes - o->copied : SLICE_BYTES;
    enum wf_fault fault = wf_cxl_guarded(&o->volume, copy_slice, o);
    if (fault == WF_FAULT_GONE) {
        finish_first(o, wf_fail(WEFT_E_SYSTEM, "tier %s: the medium is gone; open it again",
                                o->volume.path));
        return;
    }
    bool right = fault == WF_FAULT_NONE && hash_slice(o);
    o->copied += o->slice;
    if (!right || o->copied == o->bytes)
        finish_first(o, judge(o, right));
}

static void progress(struct others *o, uint64_t budget)
{
    while (budget > 0 && o->first) {
        enum weft_status status = o->volume.failed
                                      ? wf_fail(WEFT_E_SYSTEM,
                                                "tier %s: out of use since an error; open it again",
                                                o->volume.path)
                                      : WEFT_OK;
        if (status == WEFT_OK && o->first->op == WF_TIER_READ && !o->active)
            status = begin(o);
        if (status != WEFT_OK || o->first->op == WF_TIER_FLUSH) {
            o->bytes = 0;
            finish_first(o, status);
            continue;
        }
        advance(o);
        budget -= budget < o->slice ? budget : o->slice;
    }
}

static enum weft_status others_submit(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct others *o = of(tier);
    struct wf_tier_block there;
    if (o->stats.in_flight >= o->queue_depth)
        return WEFT_PENDING;
    bool known = r->op == WF_TIER_READ && wf_cxl_share_known(o->share, r->block.key, &there);
    enum weft_status status = wf_tier_check_request(r, known ? &there : NULL);
    if (status != WEFT_OK)
        return status;
    if (r->op == WF_TIER_WRITE)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: it is what other hosts have; write to this host's own part",
                       o->volume.path);
    if (r->op == WF_TIER_READ && !known)
        return WEFT_MISS;
    memset(r->private, 0, sizeof r->private);
    if (known) {
        r->private[0] = there.bytes;
        r->private[1] = there.part_bytes;
    }
    r->bytes = 0;
    o->stats.in_flight++;
    bool idle = !o->first;
    add(&o->first, &o->last, r);
    uint64_t bytes =
        known ? (r->part_count ? (uint64_t)r->part_count * there.part_bytes : there.bytes) : 0;
    if (idle && bytes <= SLICE_BYTES)
        progress(o, 1);
    signal_work(o);
    return WEFT_OK;
}

static uint32_t others_reap(struct wf_tier *tier, struct wf_tier_request **out, uint32_t max,
                            uint32_t timeout_ms)
{
    struct others *o = of(tier);
    eventfd_t ignored;
    uint32_t count = 0;
    (void)timeout_ms; /* what there is to do is done here: nothing is worth waiting for */
    (void)eventfd_read(o->event, &ignored);
    do
        progress(o, SLICES_A_REAP * SLICE_BYTES);
    while (timeout_ms && o->first && !o->done);
    while (count < max && o->done) {
        struct wf_tier_request *r = take(&o->done, &o->done_last);
        out[count++] = r;
        o->stats.in_flight--;
        o->stats.reads += r->status == WEFT_OK && r->op == WF_TIER_READ;
        o->stats.read_bytes += r->bytes;
    }
    signal_work(o);
    return count;
}

static void others_cancel(struct wf_tier *tier, struct wf_tier_request *r)
{
    struct others *o = of(tier);
    struct wf_tier_request *before = NULL, *at = o->first;
    while (at && at != r) {
        before = at;
        at = at->next;
    }
    if (!at)
        return;
    if (at == o->first)
        o->active = false;
    *(before ? &before->next : &o->first) = at->next;
    if (o->last == at)
        o->last = before;
    r->status = wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled", o->volume.path);
    r->bytes = 0;
    add(&o->done, &o->done_last, r);
    signal_work(o);
}

/* --------------------------------------------------------------------------- what is there */

struct looking {
    struct others *o;
    bool same;
};

static void look(void *context)
{
    struct looking *l = context;
    l->same = wf_cxl_volume_same(&l->o->volume);
}

static enum weft_status others_news(struct wf_tier *tier,
                                    void (*told)(void *context, const struct wf_tier_block *block,
                                                 bool there),
                                    void *context)
{
    struct others *o = of(tier);
    struct looking looking = {.o = o};
    struct wf_tier_block block;
    if (o->volume.failed || wf_cxl_guarded(&o->volume, look, &looking) != WF_FAULT_NONE ||
        !looking.same) {
        o->volume.failed = true; /* another volume was made there: to be opened anew */
        return wf_fail(WEFT_E_SYSTEM, "tier %s: the medium is gone, or was formatted anew",
                       o->volume.path);
    }
    while (o->again_count > 0)
        if (wf_cxl_share_known(o->share, o->again[--o->again_count], &block))
            told(context, &block, true);
    uint64_t now_ms = wf_now_ms();
    if (now_ms - o->looked_ms >= ALL_MS) {
        o->looked_ms = now_ms;
        wf_cxl_share_again(o->share);
    }
    wf_cxl_share_listen(o->share, told, context);
    enum weft_status status = wf_cxl_share_refresh(o->share, LOOK_EXTENTS);
    wf_cxl_share_listen(o->share, NULL, NULL);
    return status;
}

static bool others_find(const struct wf_tier *tier, const uint8_t key[32],
                        struct wf_tier_block *out)
{
    return wf_cxl_share_known(of(tier)->share, key, out);
}

/* Beyond AGAIN_MAX it is told when its extent changes. */
static enum weft_status others_remove(struct wf_tier *tier, const uint8_t key[32])
{
    struct others *o = of(tier);
    if (!wf_cxl_share_known(o->share, key, NULL))
        return WEFT_MISS;
    if (o->again_count < AGAIN_MAX)
        memcpy(o->again[o->again_count++], key, 32);
    return WEFT_OK;
}

/* All of it is news. */
static void others_each(const struct wf_tier *tier,
                        void (*found)(void *context, const struct wf_tier_block *block),
                        void *context)
{
    (void)tier, (void)found, (void)context;
}

struct counting {
    struct others *o;
    struct wf_tier_host *out;
    uint32_t max, count;
};

static void count_hosts(void *context)
{
    struct counting *c = context;
    uint64_t extents[WF_CXL_HOSTS];
    wf_cxl_share_extents(c->o->share, extents);
    c->count = wf_cxl_census(&c->o->volume, extents, c->out, c->max);
}

static uint32_t others_hosts(struct wf_tier *tier, struct wf_tier_host *out, uint32_t max)
{
    struct counting c = {.o = of(tier), .out = out, .max = max};
    if (c.o->volume.failed || wf_cxl_guarded(&c.o->volume, count_hosts, &c) != WF_FAULT_NONE)
        return 0;
    uint64_t now_ms = wf_now_ms();
    for (uint32_t i = 0; i < c.count; i++) {
        uint8_t h = out[i].host;
        if (c.o->heard[h].heartbeat != out[i].heartbeat || !c.o->heard[h].since_ms) {
            c.o->heard[h].heartbeat = out[i].heartbeat;
            c.o->heard[h].since_ms = now_ms;
        }
        out[i].silent_ms = now_ms - c.o->heard[h].since_ms;
    }
    return c.count;
}

/* ------------------------------------------------------------------------------- open and close */

static void others_close(struct wf_tier *tier)
{
    struct others *o = of(tier);
    if (!o)
        return;
    wf_cxl_share_destroy(o->share);
    wf_cxl_medium_close(&o->volume);
    if (o->hash)
        XXH3_freeState(o->hash);
    if (o->event >= 0)
        close(o->event);
    free(o->again);
    free(o);
}

/* This host's own part of the device is opened at the same time, and may be what formats it. */
static enum weft_status open_medium(struct others *o, const struct wf_tier_options *options)
{
    uint64_t until = wf_now_ms() + FORMAT_WAIT_MS;
    enum weft_status status;
    for (;;) {
        status = wf_cxl_medium_watch(&o->volume, options);
        if (status == WEFT_OK)
            status = wf_cxl_volume_watch(&o->volume);
        if (status != WEFT_E_SYSTEM || o->volume.failed || wf_now_ms() >= until)
            return status;
        wf_cxl_medium_close(&o->volume);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
}

static enum weft_status others_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_tier_check_options(options);
    if (status == WEFT_OK && (!options->shared || options->host == 0))
        status = wf_fail(WEFT_E_INVALID,
                         "tier %s: other hosts' blocks are on a shared device alone; give it "
                         "`shared` and this host's number",
                         options->path);
    if (status == WEFT_OK && strlen(options->path) >= WF_CXL_PATH_BYTES)
        status = wf_fail(WEFT_E_INVALID, "tier %.40s…: its path has %zu bytes; %u are the most",
                         options->path, strlen(options->path), WF_CXL_PATH_BYTES - 1);
    if (status == WEFT_OK)
        status = wf_guard_install();
    if (status != WEFT_OK)
        return status;
    struct others *o = wf_calloc(1, sizeof *o, "a tier of other hosts");
    if (!o)
        return WEFT_E_NO_MEMORY;
    o->volume.fd = -1;
    o->volume.shared = true;
    o->volume.host = options->host;
    o->queue_depth = options->queue_depth;
    o->hash = XXH3_createState();
    o->again = wf_calloc(AGAIN_MAX, 32, "blocks to be told again");
    o->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (o->event < 0)
        status = wf_fail(WEFT_E_SYSTEM, "eventfd: %s; raise the open-file limit", strerror(errno));
    else if (!o->hash || !o->again)
        status = WEFT_E_NO_MEMORY;
    else
        status = open_medium(o, options);
    if (status == WEFT_OK)
        status = wf_cxl_share_create((struct wf_tier *)o, &o->share);
    if (status != WEFT_OK) {
        others_close((struct wf_tier *)o);
        return status;
    }
    *out = (struct wf_tier *)o;
    return WEFT_OK;
}

static int others_event(const struct wf_tier *tier)
{
    return of(tier)->event;
}

/* Its capacity is that of others, and nobody's to fill. */
static void others_stats(const struct wf_tier *tier, struct wf_tier_stats *out)
{
    const struct others *o = of(tier);
    struct wf_cxl_share_stats known;
    wf_cxl_share_stats(o->share, &known);
    *out = o->stats;
    out->used_bytes = known.bytes;
    out->blocks = known.blocks;
    out->queue_depth = o->queue_depth;
    out->failed = o->volume.failed;
}

const struct wf_tier_ops wf_tier_cxl_others = {
    .name = "cxl",
    .open = others_open,
    .close = others_close,
    .submit = others_submit,
    .reap = others_reap,
    .cancel = others_cancel,
    .event = others_event,
    .find = others_find,
    .remove = others_remove,
    .each = others_each,
    .stats = others_stats,
    .news = others_news,
    .hosts = others_hosts,
};
