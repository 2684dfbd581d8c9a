/* SPDX-License-Identifier: Apache-2.0
 *
 * Pieces of a frame: what of it is read next, and what a worker makes of what was read.
 *
 * A read goes through a frame from plane to plane.  Where the planes lie its lead says, head and
 * table; who has no lead reads the front of the frame first, and with it, where the payload's front
 * is wanted, about as much as that will take.  A plane that is wanted in part is decoded aside, and
 * the part copied.
 *
 * What comes from behind was verified against the checksums there, and is not trusted for that: it
 * may be another block's, or of another time.
 */
#include <string.h>

#include "base/sum.h"
#include "codec/profile.h"
#include "sys/clock.h"
#include "tier/coded_inner.h"

#define LEAD_GUESS 4096u /* most leads are shorter */

static uint64_t padded(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

static uint64_t plane_bytes(const struct wf_layout *layout)
{
    struct wf_plane plane;
    wf_layout_plane(layout, 0, 0, NULL, &plane);
    return wf_plane_bytes(&plane);
}

bool wf_coded_workable(const struct wf_layout *layout)
{
    return layout->planes >= 1 && layout->planes <= WF_CODED_PLANES_MAX &&
           plane_bytes(layout) <= WF_CODED_PLANE_BYTES_MAX &&
           wf_frame_scratch(layout) <= WF_CODED_SCRATCH_BYTES_MAX;
}

/* -------------------------------------------------------------------------------- writes */

static uint32_t frame_part_bytes(const struct wf_tier *t, uint64_t frame)
{
    uint64_t least = padded((frame + WF_TIER_PARTS_MAX - 1) / WF_TIER_PARTS_MAX, WF_TIER_ALIGN);
    return least > t->options.part_bytes ? (uint32_t)least : t->options.part_bytes;
}

uint64_t wf_coded_write_memory(const struct wf_tier *t, const struct wf_layout *layout)
{
    (void)t;
    return padded(wf_frame_bound(layout), WF_TIER_ALIGN) +
           padded(WF_TIER_PARTS_MAX * sizeof(uint64_t), WF_TIER_ALIGN);
}

bool wf_coded_lossy(const struct wf_coded_plan *plan)
{
    return plan->codec && !plan->codec->lossless;
}

enum weft_status wf_coded_check_plan(const struct wf_tier *t, const struct wf_coded_plan *plan)
{
    const struct wf_codec *codec = plan->codec;
    if (!codec)
        return plan->lost ? wf_fail(WEFT_E_INVALID,
                                    "tier %s: a payload that lost something is to "
                                    "be encoded exactly; name a lossy codec",
                                    t->path)
                          : WEFT_OK;
    if (plan->parameter > UINT16_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: parameter %u of codec %s; give up to %u", t->path,
                       plan->parameter, codec->name, UINT16_MAX);
    if (!codec->lossless && (plan->quality <= WEFT_LOSSLESS || plan->quality > WEFT_ECONOMY))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: codec %s is lossy, and quality %u says nothing of it; say "
                       "transparent or economy",
                       t->path, codec->name, plan->quality);
    if (plan->lost && (codec->lossless || plan->bytes_most))
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a payload that lost something is to be encoded by codec %s, with "
                       "up to %llu bytes; give a lossy codec, and no limit",
                       t->path, codec->name, (unsigned long long)plan->bytes_most);
    if (codec->profiled && !plan->profile)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: codec %s works from a profile; name one or take another codec",
                       t->path, codec->name);
    return WEFT_OK;
}

static const struct wf_codec *codec_of(const struct wf_tier *t, const struct wf_coded_plan *plan)
{
    return plan->codec ? plan->codec : t->options.codec;
}

bool wf_coded_wanted(const struct wf_tier *t, const struct wf_tier_request *r)
{
    const struct wf_tier_block *block = &r->block;
    if (!codec_of(t, r->plan))
        return false;
    const struct wf_layout *layout = &r->plan->layout;
    return block->bytes >= WF_CODED_BYTES_LEAST && block->bytes <= UINT32_MAX &&
           layout->bytes == block->bytes && wf_coded_workable(layout) &&
           wf_coded_write_memory(t, layout) <= wf_coded_memory_for_writes(t);
}

/* As planned, or without loss where that does not suit the payload. */
static enum weft_status make_frame(const struct wf_tier *t, struct wf_coded_op *op, void *scratch,
                                   uint64_t *out_bytes)
{
    const struct wf_layout *layout = &op->plan.layout;
    const struct wf_frame_head *head = (const struct wf_frame_head *)(const void *)op->memory;
    struct wf_frame_plan plan = {
        .all.codec = codec_of(t, &op->plan),
        .all.parameter = op->plan.codec ? op->plan.parameter : 0,
        .otherwise = wf_coded_lossy(&op->plan) ? t->options.codec : NULL,
        .profile = op->plan.profile,
        .quality = op->plan.quality,
    };
    enum weft_status status = wf_frame_encode(layout, &plan, op->plan.position, op->outer->data,
                                              op->memory, out_bytes, scratch);
    if (status == WEFT_OK && head->flags & WF_FRAME_LOSSY && op->plan.bytes_most &&
        *out_bytes > op->plan.bytes_most) {
        if (!t->options.codec)
            return WEFT_MISS;
        plan = (struct wf_frame_plan){.all.codec = t->options.codec};
        status = wf_frame_encode(layout, &plan, op->plan.position, op->outer->data, op->memory,
                                 out_bytes, scratch);
    }
    return status;
}

void wf_coded_encode(const struct wf_tier *t, struct wf_coded_op *op, void *scratch)
{
    uint64_t begun_ns = wf_now_ns(), bytes = 0;
    const struct wf_frame_head *head = (const struct wf_frame_head *)(const void *)op->memory;
    op->result = make_frame(t, op, scratch, &bytes);
    op->coded_bytes = op->plan.layout.bytes;
    if (op->result == WEFT_OK &&
        (head->flags & WF_FRAME_STORED || (op->plan.lost && !(head->flags & WF_FRAME_LOSSY)) ||
         padded(bytes, WF_TIER_ALIGN) >= padded(op->plan.layout.bytes, WF_TIER_ALIGN)))
        op->result = WEFT_MISS; /* it would take as much room, or not say what it is */
    if (op->result == WEFT_OK) {
        struct wf_tier_block *block = &op->behind.block;
        op->frame_bytes = bytes;
        *block = op->outer->block;
        op->behind.as_stored = true;
        block->plain_bytes = block->bytes;
        block->plain_part_bytes = block->part_bytes;
        block->plain_quality = head->quality;
        block->bytes = bytes;
        block->part_bytes = frame_part_bytes(t, bytes);
        op->sums = (uint64_t *)(void *)(op->memory +
                                        padded(wf_frame_bound(&op->plan.layout), WF_TIER_ALIGN));
        for (uint32_t i = 0; i < wf_tier_parts(block); i++)
            op->sums[i] = wf_sum64(op->memory + (uint64_t)i * block->part_bytes,
                                   wf_tier_part_bytes(block, i));
    }
    op->ns = wf_now_ns() - begun_ns;
}

/* --------------------------------------------------------------------------------- reads */

static enum weft_status not_right(const struct wf_tier *t)
{
    return wf_fail(WEFT_E_CORRUPT,
                   "tier %s: a block's frame is not what its head or the tier says; it was dropped",
                   t->path);
}

/* Its lead is there: is the frame one that this block can have? */
static enum weft_status open_frame(const struct wf_tier *t, const struct wf_coded_op *op,
                                   struct wf_frame *out)
{
    enum weft_status status = wf_frame_open(op->lead, op->lead_bytes, out);
    if (status != WEFT_OK)
        return status == WEFT_PENDING ? not_right(t) : status;
    if (out->head.flags & WF_FRAME_STORED || !out->table || !wf_coded_workable(&out->layout) ||
        out->head.quality != op->there.plain_quality ||
        !(out->head.flags & WF_FRAME_LOSSY) != !out->head.quality ||
        out->head.bytes != op->there.plain_bytes || out->head.encoded != op->there.bytes)
        return not_right(t);
    return WEFT_OK;
}

static enum weft_status find_profile(const struct wf_tier *t, const struct wf_frame *frame,
                                     const struct wf_profile **out)
{
    uint64_t id = frame->head.profile;
    *out = id && t->options.profile ? t->options.profile(t->options.profiles, id) : NULL;
    return !id || (*out && (*out)->id == id) ? WEFT_OK : WEFT_E_NOT_FOUND;
}

static void choose_planes(struct wf_coded_op *op, uint64_t each)
{
    if (op->plane_end)
        return;
    op->plane = (uint32_t)(op->from / each);
    op->plane_end = (uint32_t)((op->to - 1) / each + 1);
}

/* Where plane `index` begins in the frame. */
static uint64_t plane_at(const struct wf_frame *frame, uint64_t lead_bytes, uint32_t index)
{
    uint64_t at = lead_bytes;
    for (uint32_t i = 0; i < index; i++)
        at += frame->table[i].bytes;
    return at;
}

static void whole_parts(struct wf_coded_op *op)
{
    uint64_t part = op->there.part_bytes;
    op->piece = op->piece / part * part;
    op->piece_end = padded(op->piece_end, part);
    if (op->piece_end > op->there.bytes)
        op->piece_end = op->there.bytes;
}

enum weft_status wf_coded_next_piece(const struct wf_tier *t, struct wf_coded_op *op)
{
    struct wf_frame frame;
    const struct wf_tier_block *there = &op->there;
    uint64_t most = WF_CODED_PIECE_BYTES < t->options.memory_bytes / 8
                        ? WF_CODED_PIECE_BYTES
                        : t->options.memory_bytes / 8;
    if (!op->lead_bytes) {
        uint64_t guess = LEAD_GUESS;
        if (op->from == 0)
            guess += there->bytes * op->to / there->plain_bytes * 9 / 8;
        if (op->piece_end && op->piece_end < WF_CODED_LEAD_MAX)
            guess = WF_CODED_LEAD_MAX; /* it was longer than most */
        op->piece = 0;
        op->piece_end = guess < most ? guess : most;
        whole_parts(op);
        return WEFT_OK;
    }
    enum weft_status status = open_frame(t, op, &frame);
    if (status != WEFT_OK)
        return status;
    choose_planes(op, plane_bytes(&frame.layout));
    if (op->plane_end > frame.layout.planes)
        return not_right(t);
    uint64_t at = plane_at(&frame, op->lead_bytes, op->plane);
    op->piece = at;
    op->piece_end = at + frame.table[op->plane].bytes;
    for (uint32_t i = op->plane + 1; i < op->plane_end; i++) {
        if (op->piece_end + frame.table[i].bytes - at > most)
            break;
        op->piece_end += frame.table[i].bytes;
    }
    if (op->piece_end > there->bytes)
        return not_right(t);
    whole_parts(op);
    return WEFT_OK;
}

/* Head and table out of what was read of the front.  WEFT_PENDING: it is longer than that. */
static enum weft_status take_lead(const struct wf_tier *t, struct wf_coded_op *op)
{
    uint64_t here = op->piece_end;
    if (here < sizeof(struct wf_frame_head))
        return not_right(t);
    uint64_t lead = wf_frame_lead(op->memory, here);
    if (lead > WF_CODED_LEAD_MAX || lead > op->there.bytes || lead < sizeof(struct wf_frame_head))
        return not_right(t);
    if (lead > here)
        return here >= WF_CODED_LEAD_MAX ? not_right(t) : WEFT_PENDING;
    memcpy(op->lead, op->memory, lead);
    op->lead_bytes = lead;
    return WEFT_OK;
}

/* A plane of which the caller wants a piece. */
static enum weft_status decode_aside(const struct wf_coded_op *op, const struct wf_frame *frame,
                                     const struct wf_profile *profile, const void *bytes,
                                     uint64_t each, uint8_t *scratch)
{
    uint8_t *aside = scratch + WF_CODED_SCRATCH_BYTES_MAX;
    uint64_t at = op->plane * each, end = at + each;
    enum weft_status status = wf_frame_decode(frame, bytes, op->plane, op->plane + 1, profile,
                                              (void *)((uintptr_t)aside - at), scratch);
    if (status != WEFT_OK)
        return status;
    uint64_t from = at > op->from ? at : op->from, to = end < op->to ? end : op->to;
    memcpy((uint8_t *)op->outer->data + (from - op->from), aside + (from - at), to - from);
    return WEFT_OK;
}

/* As far as they lie in the piece, the planes of the cut go to its place in the caller's memory. */
static enum weft_status copy_planes(struct wf_coded_op *op, const struct wf_frame *frame,
                                    const struct wf_frame_cut *cut, uint8_t *scratch)
{
    uint8_t *out = op->outer->data;
    uint32_t within = wf_frame_planes_within(frame, op->piece_end);
    uint32_t end = within < op->plane_end ? within : op->plane_end;
    while (op->plane < end && plane_at(frame, cut->lead, op->plane) >= op->piece) {
        uint64_t at = plane_at(frame, cut->lead, op->plane), bytes = frame->table[op->plane].bytes;
        uint8_t *aside = scratch + WF_CODED_SCRATCH_BYTES_MAX;
        /* A lead of another time is found out: what it says of the first plane is not so. */
        enum weft_status status = WEFT_OK;
        if (op->plane == cut->first && op->from_cache)
            status = wf_frame_decode(frame, (const void *)((uintptr_t)op->memory - op->piece),
                                     op->plane, op->plane + 1, NULL,
                                     (void *)((uintptr_t)aside -
                                              op->plane * plane_bytes(&frame->layout)),
                                     scratch);
        if (status != WEFT_OK)
            return status;
        if (op->plane == cut->first)
            memcpy(out, op->lead, cut->lead);
        memcpy(out + cut->lead + (at - cut->at), op->memory + (at - op->piece), bytes);
        op->plane++;
    }
    return WEFT_OK;
}

/* May it go as it lies?  A frame without loss is known by its planes, when its lead was kept. */
static bool is_for_cut(const struct wf_coded_op *op, const struct wf_frame *frame,
                       struct wf_frame_cut *out)
{
    const struct wf_tier_request *r = op->outer;
    uint64_t profile = frame->head.profile;
    return r->as_cut && (!profile || r->cut_profiles >> (profile % 64) & 1) &&
           wf_frame_cut_of(frame, op->from, op->to, out);
}

/* All planes that lie in the piece, as far as they are wanted. */
static enum weft_status decode_planes(struct wf_coded_op *op, const struct wf_frame *frame,
                                      const struct wf_profile *profile, uint8_t *scratch)
{
    uint64_t each = plane_bytes(&frame->layout), plain = frame->layout.bytes;
    uint32_t within = wf_frame_planes_within(frame, op->piece_end);
    uint32_t end = within < op->plane_end ? within : op->plane_end;
    /* Where frame and block would begin, of which only this piece is there. */
    const void *bytes = (const void *)((uintptr_t)op->memory - op->piece);
    void *block = (void *)((uintptr_t)op->outer->data - op->from);
    while (op->plane < end && plane_at(frame, op->lead_bytes, op->plane) >= op->piece) {
        uint64_t at = op->plane * each, last = at + each < plain ? at + each : plain;
        enum weft_status status;
        if (at >= op->from && last <= op->to) {
            status = wf_frame_decode(frame, bytes, op->plane, op->plane + 1, profile, block,
                                     scratch);
        } else {
            status = decode_aside(op, frame, profile, bytes, each, scratch);
        }
        if (status != WEFT_OK)
            return status;
        op->plane++;
        op->coded_bytes += last - at;
    }
    return WEFT_OK;
}

void wf_coded_decode(const struct wf_tier *t, struct wf_coded_op *op, uint8_t *scratch)
{
    uint64_t begun_ns = wf_now_ns();
    struct wf_frame frame;
    struct wf_frame_cut cut;
    const struct wf_profile *profile = NULL;
    op->coded_bytes = 0;
    op->result = op->lead_bytes ? WEFT_OK : take_lead(t, op);
    if (op->result == WEFT_OK)
        op->result = open_frame(t, op, &frame);
    bool cut_wanted = op->result == WEFT_OK && is_for_cut(op, &frame, &cut);
    op->cut_bytes = cut_wanted ? cut.bytes : 0;
    if (op->result == WEFT_OK && !cut_wanted)
        op->result = find_profile(t, &frame, &profile);
    if (op->result == WEFT_OK) {
        choose_planes(op, plane_bytes(&frame.layout));
        op->result = op->plane_end > frame.layout.planes ? not_right(t)
                     : cut_wanted                        ? copy_planes(op, &frame, &cut, scratch)
                                  : decode_planes(op, &frame, profile, scratch);
    }
    if (op->result == WEFT_PENDING)
        op->result = WEFT_OK; /* the next piece will do */
    op->ns = wf_now_ns() - begun_ns;
}

/* ---------------------------------------------------------------------------------------- leads */

static struct wf_coded_lead *lead_of(const struct wf_tier *t, const uint8_t key[32])
{
    uint64_t bits;
    memcpy(&bits, key + 16, sizeof bits);
    return &t->leads[bits % WF_CODED_LEADS];
}

void wf_coded_lead_drop(struct wf_tier *t, const uint8_t key[32])
{
    struct wf_coded_lead *lead = lead_of(t, key);
    if (lead->bytes && !memcmp(lead->key, key, 32))
        lead->bytes = 0;
}

void wf_coded_lead_keep(struct wf_tier *t, const struct wf_coded_op *op)
{
    struct wf_coded_lead *lead = lead_of(t, op->there.key);
    if (op->from_cache || !op->lead_bytes || op->stale)
        return;
    memcpy(lead->key, op->there.key, 32);
    lead->bytes = op->lead_bytes;
    lead->plain_bytes = op->there.plain_bytes;
    lead->stored_bytes = op->there.bytes;
    memcpy(lead->data, op->lead, op->lead_bytes);
}

void wf_coded_lead_find(struct wf_tier *t, struct wf_coded_op *op)
{
    const struct wf_coded_lead *lead = lead_of(t, op->there.key);
    /* A cut of what has lost something is not decoded here, by which that would be found out. */
    if ((op->outer->as_cut && op->there.plain_quality) || !lead->bytes ||
        memcmp(lead->key, op->there.key, 32) != 0 || lead->plain_bytes != op->there.plain_bytes ||
        lead->stored_bytes != op->there.bytes)
        return;
    memcpy(op->lead, lead->data, lead->bytes);
    op->lead_bytes = lead->bytes;
    op->from_cache = true;
}
