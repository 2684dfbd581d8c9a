/* SPDX-License-Identifier: Apache-2.0
 *
 * The tier that codes: a request's way through it.
 *
 *     write:  memory ─► worker: encode ─► behind ─► done
 *     read:   memory ─► behind ─► worker: decode ─► done, or once more for the next piece
 *
 * A result of the tier behind ends one request here at most, and is asked for only when it can be
 * handed out at once: so what it says is found is what was reaped here.
 *
 * What is removed while pieces of it are read is WEFT_MISS from the next piece on.  A lead that was
 * kept from another read may be of another time (another host, a copy that was lost and came
 * again): when it does not fit, the read begins anew without it, and only then is it corrupt.
 */
#include "tier/coded.h"

#include <assert.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/coded_inner.h"

#define BEHIND_MAX 64u /* reaped from behind at a time */
#define IN_VAIN_MAX 8u
#define TRY_ONE_OF 16u
#define LOOK_MS 20u /* the tier behind may have work of its own that only a reap moves on */

static void advance(struct wf_tier *t, struct wf_coded_op *op);

/* ------------------------------------------------------------------------- a request ends */

static void count(struct wf_tier *t, const struct wf_tier_request *r)
{
    if (r->status != WEFT_OK)
        return;
    t->stats.reads += r->op == WF_TIER_READ;
    t->stats.read_bytes += r->op == WF_TIER_READ ? r->bytes : 0;
    t->stats.writes += r->op == WF_TIER_WRITE;
    t->stats.write_bytes += r->op == WF_TIER_WRITE ? r->bytes : 0;
}

/* What was read. */
static void tell_made(struct wf_coded_op *op)
{
    struct wf_frame_head head;
    memcpy(&head, op->lead, sizeof head);
    op->outer->lost = op->there.plain_quality;
    op->outer->profile = head.profile;
    op->outer->cut_bytes = op->cut_bytes;
}

/* The same of what was read as it lies, from its front. */
static void tell_profile(struct wf_tier_request *r)
{
    struct wf_frame_head head;
    if (r->op != WF_TIER_READ || r->status != WEFT_OK || !r->as_stored || r->first_part != 0 ||
        !r->block.plain_bytes || r->bytes < sizeof head)
        return;
    memcpy(&head, r->data, sizeof head);
    if (head.magic == WF_FRAME_MAGIC)
        r->profile = head.profile;
}

/* What there is now that it was written, or was before. */
static void tell_lost(const struct wf_tier *t, struct wf_tier_request *r)
{
    struct wf_tier_block there;
    bool is = r->status == WEFT_OK || r->status == WEFT_EXISTS;
    if (r->op == WF_TIER_WRITE && is && t->ops->find(t->behind, r->block.key, &there))
        r->lost = there.plain_quality;
}

static void finish(struct wf_tier *t, struct wf_coded_op *op, enum weft_status status)
{
    struct wf_tier_request *r = op->outer;
    wf_coded_memory_give(t, op);
    r->status = status;
    r->bytes = 0;
    if (status == WEFT_OK)
        r->bytes = r->op == WF_TIER_WRITE ? r->block.bytes : op->to - op->from;
    if (r->op == WF_TIER_READ && status == WEFT_OK)
        tell_made(op);
    else
        tell_lost(t, r);
    op->step = WF_CODED_FREE;
    wf_tier_queue_add(&t->free_ops, &op->behind);
    count(t, r);
    wf_tier_queue_add(&t->done, r);
}

static enum weft_status given_up(const struct wf_tier *t)
{
    return wf_fail(WEFT_E_TIMEOUT, "a request to tier %s was cancelled", t->path);
}

/* ---------------------------------------------------------------------- to the one behind */

static void submit_behind(struct wf_tier *t, struct wf_coded_op *op)
{
    enum weft_status status = t->ops->submit(t->behind, &op->behind);
    if (status == WEFT_PENDING) {
        op->step = WF_CODED_BLOCKED;
        wf_tier_queue_add(&t->blocked, &op->behind);
    } else if (status == WEFT_OK) {
        op->step = WF_CODED_BEHIND;
        t->with_behind++;
    } else {
        finish(t, op, status);
    }
    op->behind.sums = NULL;
}

static void read_piece(struct wf_tier *t, struct wf_coded_op *op)
{
    uint64_t part = op->there.part_bytes;
    op->behind = (struct wf_tier_request){
        .op = WF_TIER_READ,
        .block = op->there,
        .data = op->memory,
        .first_part = (uint32_t)(op->piece / part),
        .part_count = (uint32_t)((op->piece_end - op->piece + part - 1) / part),
    };
    submit_behind(t, op);
}

static void write_frame(struct wf_tier *t, struct wf_coded_op *op)
{
    op->behind.op = WF_TIER_WRITE;
    op->behind.data = op->memory;
    op->behind.sums = op->sums;
    submit_behind(t, op);
}

static void write_as_is(struct wf_tier *t, struct wf_coded_op *op)
{
    wf_coded_memory_give(t, op);
    op->frame_bytes = 0;
    op->behind = (struct wf_tier_request){.op = WF_TIER_WRITE,
                                          .block = op->outer->block,
                                          .data = op->outer->data};
    submit_behind(t, op);
}

/* --------------------------------------------------------------------------------- memory */

/* What it needs for its next step. */
static uint64_t room_of(const struct wf_tier *t, const struct wf_coded_op *op)
{
    return op->outer->op == WF_TIER_WRITE ? wf_coded_write_memory(t, &op->plan.layout)
                                          : op->piece_end - op->piece;
}

static void want_room(struct wf_tier *t, struct wf_coded_op *op)
{
    op->step = WF_CODED_ROOM;
    wf_tier_queue_add(op->outer->op == WF_TIER_WRITE ? &t->room_writes : &t->room_reads,
                      &op->behind);
}

static void give_rooms(struct wf_tier *t, struct wf_tier_queue *queue)
{
    struct wf_coded_op *op;
    while ((op = (struct wf_coded_op *)queue->first) &&
           wf_coded_memory_take(t, op, room_of(t, op))) {
        wf_coded_take(queue);
        if (op->outer->op == WF_TIER_WRITE)
            wf_coded_work(t, op);
        else
            read_piece(t, op);
    }
}

static void begin_piece(struct wf_tier *t, struct wf_coded_op *op)
{
    wf_coded_memory_give(t, op);
    enum weft_status status = wf_coded_next_piece(t, op);
    if (status != WEFT_OK) {
        op->result = status;
        advance(t, op);
    } else if (room_of(t, op) > t->options.memory_bytes) {
        finish(
            t, op,
            wf_fail(WEFT_E_LIMIT,
                    "tier %s: %llu bytes of a block have to be read at once, and there is memory "
                    "for %llu; give its codec more",
                    t->path, (unsigned long long)room_of(t, op),
                    (unsigned long long)t->options.memory_bytes));
    } else {
        want_room(t, op);
    }
}

static void pump(struct wf_tier *t)
{
    struct wf_tier_queue blocked = t->blocked;
    struct wf_coded_op *op;
    t->blocked = (struct wf_tier_queue){0};
    while ((op = wf_coded_take(&blocked)))
        submit_behind(t, op);
    give_rooms(t, &t->room_reads);
    give_rooms(t, &t->room_writes);
}

/* ------------------------------------------------------------------- what a worker has done */

/* The medium kept what it was given, and that was not the block. */
static void corrupt(struct wf_tier *t, struct wf_coded_op *op)
{
    struct wf_tier_block now;
    wf_coded_lead_drop(t, op->there.key);
    if (op->stale || !t->ops->find(t->behind, op->there.key, &now) ||
        now.bytes != op->there.bytes || now.plain_bytes != op->there.plain_bytes) {
        finish(t, op, WEFT_MISS);
        return;
    }
    t->stats.corrupt++;
    wf_coded_forget(t, &op->there);
    (void)t->ops->remove(t->behind, op->there.key);
    finish(t, op,
           wf_fail(WEFT_E_CORRUPT,
                   "tier %s: a block does not decode to what was written; it was dropped",
                   t->path));
}

/* With the lead as it is now. */
static void begin_anew(struct wf_tier *t, struct wf_coded_op *op)
{
    wf_coded_lead_drop(t, op->there.key);
    op->from_cache = false;
    op->lead_bytes = 0;
    op->plane = op->plane_end = 0;
    op->piece = op->piece_end = 0;
    op->cut_bytes = 0;
    begin_piece(t, op);
}

/* Nothing is wrong with the block. */
static enum weft_status no_profile(const struct wf_tier *t, const struct wf_coded_op *op)
{
    struct wf_frame_head head;
    memcpy(&head, op->lead, sizeof head);
    return wf_fail(WEFT_E_NOT_FOUND,
                   "tier %s: a block was made with profile %016llx, which is not here; bring the "
                   "profile, the block stays where it is",
                   t->path, (unsigned long long)head.profile);
}

static enum weft_status no_frame(const struct wf_tier *t)
{
    return wf_fail(WEFT_E_INVALID,
                   "tier %s: a block that has lost something does not become smaller there, and "
                   "only a frame would say so; it is not written",
                   t->path);
}

/* A read whose piece was decoded, or that could not be. */
static void advance_read(struct wf_tier *t, struct wf_coded_op *op)
{
    if (op->cancelled) {
        finish(t, op, given_up(t));
    } else if ((op->result == WEFT_E_CORRUPT || op->result == WEFT_E_NOT_FOUND) && op->from_cache) {
        begin_anew(t, op);
    } else if (op->result == WEFT_E_CORRUPT) {
        corrupt(t, op);
    } else if (op->result == WEFT_E_NOT_FOUND) {
        finish(t, op, no_profile(t, op));
    } else if (op->result != WEFT_OK) {
        finish(t, op, op->result);
    } else {
        wf_coded_lead_keep(t, op);
        if (op->plane_end && op->plane == op->plane_end)
            finish(t, op, WEFT_OK);
        else if (op->stale)
            finish(t, op, WEFT_MISS);
        else
            begin_piece(t, op);
    }
}

static void advance(struct wf_tier *t, struct wf_coded_op *op)
{
    if (op->outer->op == WF_TIER_READ)
        advance_read(t, op);
    else if (op->cancelled)
        finish(t, op, given_up(t));
    else if (op->result == WEFT_OK)
        write_frame(t, op);
    else if (op->plan.lost)
        finish(t, op, no_frame(t));
    else
        write_as_is(t, op);
}

static void take_worked(struct wf_tier *t)
{
    struct wf_tier_queue worked = wf_coded_worked(t);
    struct wf_coded_op *op;
    while ((op = wf_coded_take(&worked))) {
        if (op->outer->op == WF_TIER_WRITE) {
            struct wf_coded_sum *sum =
                wf_coded_sum_of(t, wf_coded_lossy(&op->plan) ? op->plan.quality : 0);
            sum->encode_ns += op->ns;
            sum->tried_bytes += op->coded_bytes;
            if (!wf_coded_lossy(&op->plan))
                t->in_vain = op->result == WEFT_OK ? 0 : t->in_vain + 1;
        } else {
            struct wf_coded_sum *sum = wf_coded_sum_of(t, op->there.plain_quality);
            sum->decode_ns += op->ns;
            sum->decoded_bytes += op->coded_bytes;
        }
        advance(t, op);
    }
}

/* ------------------------------------------------------------ what the one behind has done */

static void written(struct wf_tier *t, struct wf_coded_op *op)
{
    enum weft_status status = op->behind.status;
    if (status == WEFT_OK && op->frame_bytes) {
        struct wf_coded_sum *sum = wf_coded_sum_of(t, op->behind.block.plain_quality);
        sum->encoded++;
        sum->encoded_bytes += op->plan.layout.bytes;
        sum->encoded_to_bytes += op->frame_bytes;
        wf_coded_lead_drop(t, op->behind.block.key);
        wf_coded_hold(t, &op->behind.block);
    } else if (status == WEFT_OK) {
        t->stats.coded.as_is++;
        t->stats.coded.as_is_bytes += op->outer->block.bytes;
    }
    finish(t, op, status);
}

static void behind_done(struct wf_tier *t, struct wf_coded_op *op)
{
    enum weft_status status = op->behind.status;
    t->with_behind--;
    if (op->outer->op == WF_TIER_WRITE) {
        written(t, op);
    } else if (status == WEFT_OK && !op->cancelled) {
        wf_coded_work(t, op);
    } else {
        if (status == WEFT_E_CORRUPT)
            wf_coded_forget(t, &op->there);
        finish(t, op, status == WEFT_OK ? given_up(t) : status);
    }
}

/* Is it an op's, whose first member it is then? */
static bool own(const struct wf_tier *t, const struct wf_tier_request *behind)
{
    uintptr_t at = (uintptr_t)behind, from = (uintptr_t)t->ops_all;
    return at >= from && at < from + t->depth * sizeof *t->ops_all;
}

static void passed(struct wf_tier *t, struct wf_tier_request *r)
{
    t->with_behind--;
    count(t, r);
    tell_lost(t, r);
    tell_profile(r);
    if (r->op == WF_TIER_WRITE && r->status == WEFT_OK && r->block.plain_bytes) {
        wf_coded_lead_drop(t, r->block.key);
        wf_coded_hold(t, &r->block);
    } else if (r->op == WF_TIER_WRITE && r->status == WEFT_OK) {
        t->stats.coded.as_is++;
        t->stats.coded.as_is_bytes += r->bytes;
    }
}

/* What is done here goes out. */
static uint32_t take_done(struct wf_tier *t, struct wf_tier_request **out, uint32_t max)
{
    uint32_t taken = 0;
    while (taken < max && (out[taken] = wf_tier_queue_take(&t->done)))
        taken++;
    return taken;
}

static uint32_t reap_behind(struct wf_tier *t, struct wf_tier_request **out, uint32_t max,
                            uint32_t timeout_ms)
{
    struct wf_tier_request *list[BEHIND_MAX];
    uint32_t taken = 0;
    uint32_t got = t->ops->reap(t->behind, list, max < BEHIND_MAX ? max : BEHIND_MAX, timeout_ms);
    for (uint32_t i = 0; i < got; i++) {
        if (own(t, list[i])) {
            behind_done(t, (struct wf_coded_op *)list[i]);
        } else {
            passed(t, list[i]);
            out[taken++] = list[i];
        }
    }
    return taken + take_done(t, out + taken, max - taken);
}

/* ----------------------------------------------------------------------------- the interface */

static void op_begin(struct wf_tier *t, struct wf_tier_request *r, struct wf_coded_op **out)
{
    struct wf_coded_op *op = wf_coded_take(&t->free_ops);
    uint8_t *lead = op->lead;
    assert(op->step == WF_CODED_FREE && !op->memory);
    memset(op, 0, sizeof *op);
    op->lead = lead;
    op->outer = r;
    t->in_flight++;
    *out = op;
}

static enum weft_status pass(struct wf_tier *t, struct wf_tier_request *r)
{
    enum weft_status status = t->ops->submit(t->behind, r);
    if (status == WEFT_OK) {
        t->in_flight++;
        t->with_behind++;
    }
    return status;
}

/* Who writes what does not become smaller does not pay for a codec each time: after a few such
 * blocks in a row only one of several is tried, until one does. */
static bool worth_trying(struct wf_tier *t)
{
    if (t->in_vain < IN_VAIN_MAX)
        return true;
    t->untried = (t->untried + 1) % TRY_ONE_OF;
    return t->untried == 0;
}

static enum weft_status submit_write(struct wf_tier *t, struct wf_tier_request *r)
{
    struct wf_coded_op *op;
    struct wf_tier_stats stats;
    struct wf_tier_block there;
    if (r->as_stored || !r->plan)
        return pass(t, r);
    enum weft_status status = wf_coded_check_plan(t, r->plan);
    if (status != WEFT_OK)
        return status;
    t->ops->stats(t->behind, &stats);
    bool wanted = wf_coded_wanted(t, r);
    if (!wanted && r->plan->lost)
        return no_frame(t);
    if (stats.failed || r->block.bytes > stats.block_bytes_max || !wanted ||
        (!wf_coded_lossy(r->plan) && !worth_trying(t)))
        return pass(t, r);
    if (t->ops->find(t->behind, r->block.key, &there)) {
        r->lost = there.plain_quality;
        return WEFT_EXISTS;
    }
    op_begin(t, r, &op);
    op->plan = *r->plan;
    want_room(t, op);
    return WEFT_OK;
}

/* What lies there, as it is, and what that is. */
static enum weft_status submit_stored(struct wf_tier *t, struct wf_tier_request *r,
                                      const struct wf_tier_block *there)
{
    struct wf_tier_block asked = r->block;
    enum weft_status status = wf_tier_check_request(r, there);
    if (status != WEFT_OK)
        return status;
    r->block.bytes = there->bytes;
    r->block.part_bytes = there->part_bytes;
    r->block.plain_bytes = there->plain_bytes;
    r->block.plain_part_bytes = there->plain_part_bytes;
    r->block.plain_quality = there->plain_quality;
    status = pass(t, r);
    if (status != WEFT_OK)
        r->block = asked;
    return status;
}

static enum weft_status submit_read(struct wf_tier *t, struct wf_tier_request *r)
{
    struct wf_tier_block there, plain;
    struct wf_coded_op *op;
    if (!t->ops->find(t->behind, r->block.key, &there))
        return pass(t, r);
    if (r->as_stored)
        return submit_stored(t, r, &there);
    if (!there.plain_bytes)
        return pass(t, r);
    plain = wf_coded_outside(&there);
    enum weft_status status = wf_tier_check_request(r, &plain);
    if (status != WEFT_OK)
        return status;
    op_begin(t, r, &op);
    op->there = there;
    op->from = (uint64_t)r->first_part * plain.part_bytes;
    op->to = r->part_count ? op->from + (uint64_t)r->part_count * plain.part_bytes : plain.bytes;
    if (op->to > plain.bytes)
        op->to = plain.bytes;
    wf_coded_lead_find(t, op);
    begin_piece(t, op);
    return WEFT_OK;
}

static enum weft_status coded_submit(struct wf_tier *t, struct wf_tier_request *r)
{
    enum weft_status status = wf_tier_check_request(r, NULL);
    if (status != WEFT_OK)
        return status;
    if (t->in_flight == t->depth)
        return WEFT_PENDING;
    r->lost = 0;
    r->profile = r->cut_bytes = 0;
    status = r->op == WF_TIER_WRITE  ? submit_write(t, r)
             : r->op == WF_TIER_READ ? submit_read(t, r)
                                     : pass(t, r);
    if (status == WEFT_OK)
        pump(t);
    return status;
}

static void wait_for(struct wf_tier *t, uint64_t left_ms)
{
    struct pollfd fd = {.fd = t->event >= 0 ? t->event : t->done_event, .events = POLLIN};
    (void)poll(&fd, 1, (int)(left_ms < LOOK_MS ? left_ms : LOOK_MS));
}

/* Readable for what is done and was not asked for. */
static void tell(struct wf_tier *t)
{
    if (t->done.first && !t->told) {
        t->told = true;
        (void)eventfd_write(t->done_event, 1);
    }
}

static uint32_t coded_reap(struct wf_tier *t, struct wf_tier_request **out, uint32_t max,
                           uint32_t timeout_ms)
{
    uint64_t until_ms = wf_now_ms() + timeout_ms, now_ms;
    uint32_t taken = 0;
    eventfd_t ignored;
    if (t->in_flight == 0 || max == 0)
        return t->ops->reap(t->behind, out, max, timeout_ms);
    if (t->told)
        (void)eventfd_read(t->done_event, &ignored);
    t->told = false;
    for (;;) {
        take_worked(t);
        taken = take_done(t, out, max);
        if (taken < max)
            taken += reap_behind(t, out + taken, max - taken, 0);
        pump(t);
        taken += take_done(t, out + taken, max - taken);
        now_ms = wf_now_ms();
        if (taken || now_ms >= until_ms)
            break;
        uint64_t left_ms = until_ms - now_ms;
        if (t->with_workers && !t->threads)
            continue;
        if (t->event >= 0 || !t->with_behind) {
            wait_for(t, left_ms);
            continue;
        }
        taken = reap_behind(t, out, max, t->with_workers ? 1 : (uint32_t)left_ms);
        if (taken || !t->with_workers) { /* its time may be another than ours */
            if (taken || t->with_behind)
                break;
        }
    }
    t->in_flight -= taken;
    tell(t);
    return taken;
}

static void cancel_op(struct wf_tier *t, struct wf_coded_op *op)
{
    switch (op->step) {
    case WF_CODED_ROOM:
        (void)(wf_tier_queue_remove(&t->room_reads, &op->behind) ||
               wf_tier_queue_remove(&t->room_writes, &op->behind));
        finish(t, op, given_up(t));
        break;
    case WF_CODED_BLOCKED:
        (void)wf_tier_queue_remove(&t->blocked, &op->behind);
        finish(t, op, given_up(t));
        break;
    case WF_CODED_BEHIND:
        op->cancelled = true;
        t->ops->cancel(t->behind, &op->behind);
        break;
    default:
        op->cancelled = true;
        if (wf_coded_work_back(t, op))
            finish(t, op, given_up(t));
    }
}

static void coded_cancel(struct wf_tier *t, struct wf_tier_request *r)
{
    for (uint32_t i = 0; i < t->depth; i++) {
        struct wf_coded_op *op = &t->ops_all[i];
        if (op->step != WF_CODED_FREE && op->outer == r) {
            cancel_op(t, op);
            tell(t);
            return;
        }
    }
    for (const struct wf_tier_request *done = t->done.first; done; done = done->next)
        if (done == r)
            return;
    t->ops->cancel(t->behind, r);
}

static int coded_event(const struct wf_tier *t)
{
    return t->event;
}

static uint32_t coded_hosts(struct wf_tier *t, struct wf_tier_host *out, uint32_t max)
{
    return t->ops->hosts(t->behind, out, max);
}

static enum weft_status coded_fence(struct wf_tier *t, uint8_t host, uint32_t timeout_ms)
{
    return t->ops->fence(t->behind, host, timeout_ms);
}

/* --------------------------------------------------------------------------- open and close */

static void coded_close(struct wf_tier *t)
{
    wf_coded_work_stop(t);
    t->ops->close(t->behind);
    wf_coded_dismantle(t);
}

static enum weft_status coded_open(const struct wf_tier_options *options, struct wf_tier **out)
{
    enum weft_status status = wf_coded_check(options);
    struct wf_tier_options behind = *options;
    if (status != WEFT_OK)
        return status;
    struct wf_tier *t = wf_calloc(1, sizeof *t, "a tier that codes");
    if (!t)
        return WEFT_E_NO_MEMORY;
    t->event = t->done_event = -1;
    t->options = *options->coded;
    t->ops = t->options.ops;
    t->depth = options->queue_depth;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    behind.coded = NULL;
    status = t->ops->open(&behind, &t->behind);
    if (status != WEFT_OK)
        goto free_all;
    t->path = strdup(options->path);
    status = t->path ? wf_coded_build(t) : wf_fail(WEFT_E_NO_MEMORY, "no memory for a path");
    if (status != WEFT_OK)
        goto close_behind;
    *out = t;
    return WEFT_OK;

close_behind:
    wf_coded_work_stop(t);
    t->ops->close(t->behind);
free_all:
    wf_coded_dismantle(t);
    return status;
}

#if WF_TEST_HOOKS
void wf_tier_coded_crash(struct wf_tier *t, void (*crash)(struct wf_tier *behind))
{
    wf_coded_work_stop(t);
    crash(t->behind);
    wf_coded_dismantle(t);
}

struct wf_tier *wf_tier_coded_behind(struct wf_tier *tier)
{
    return tier->behind;
}
#endif

/* NULL where the one behind has NULL. */
#define OPS(news_, hosts_, fence_)                                                               \
    {                                                                                            \
        .name = "coded", .open = coded_open, .close = coded_close, .submit = coded_submit,       \
        .reap = coded_reap, .cancel = coded_cancel, .event = coded_event, .find = wf_coded_find, \
        .remove = wf_coded_remove, .each = wf_coded_each, .stats = wf_coded_stats,               \
        .news = (news_), .hosts = (hosts_), .fence = (fence_)                                    \
    }

const struct wf_tier_ops *wf_tier_coded_over(const struct wf_tier_ops *behind)
{
    static const struct wf_tier_ops all[2][2][2] = {
        {{OPS(NULL, NULL, NULL), OPS(NULL, NULL, coded_fence)},
         {OPS(NULL, coded_hosts, NULL), OPS(NULL, coded_hosts, coded_fence)}},
        {{OPS(wf_coded_news, NULL, NULL), OPS(wf_coded_news, NULL, coded_fence)},
         {OPS(wf_coded_news, coded_hosts, NULL), OPS(wf_coded_news, coded_hosts, coded_fence)}},
    };
    return &all[!!behind->news][!!behind->hosts][!!behind->fence];
}
