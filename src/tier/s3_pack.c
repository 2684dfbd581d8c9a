/* SPDX-License-Identifier: Apache-2.0
 *
 * Writes: a block is copied into the open buffer, which is closed when it is full, old or flushed,
 * and uploaded.  A crash before the upload's end leaves nothing of the pack, or a multipart upload
 * that the next open aborts; one after it leaves the pack with its footer, which is all that the
 * next open needs.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "sys/clock.h"
#include "tier/check.h"
#include "tier/s3_store.h"

#define COMPLETES 5u

/* ----------------------------------------------------------------------------- slots */

uint32_t wf_s3_slot_take(struct wf_s3 *t)
{
    uint32_t slot = t->slots_free;
    if (slot != WF_TIER_NONE)
        t->slots_free = t->slots[slot].next;
    else if (t->slots_used < WF_S3_PACKS_MAX)
        slot = t->slots_used++;
    else
        return WF_TIER_NONE;
    t->slots[slot] = (struct wf_s3_slot){.next = WF_TIER_NONE};
    return slot;
}

void wf_s3_slot_give(struct wf_s3 *t, uint32_t slot)
{
    struct wf_s3_slot *s = &t->slots[slot];
    t->dead_bytes -= s->dead;
    s->state = WF_S3_SLOT_FREE;
    s->number = 0;
    s->next = t->slots_free;
    t->slots_free = slot;
}

/* --------------------------------------------------------------------------- buffers */

static bool open_pack(struct wf_s3 *t)
{
    uint32_t at = 0;
    while (at < WF_S3_BUFFERS && t->buffers[at].state != WF_S3_BUFFER_FREE)
        at++;
    uint32_t slot = at < WF_S3_BUFFERS ? wf_s3_slot_take(t) : WF_TIER_NONE;
    if (slot == WF_TIER_NONE)
        return false;
    struct wf_s3_buffer *b = &t->buffers[at];
    struct wf_s3_slot *s = &t->slots[slot];
    struct wf_s3_pack head;
    s->number = t->next_number++;
    s->tag = wf_s3_random(&t->http);
    s->state = WF_S3_SLOT_BUFFERED;
    s->buffer = (uint8_t)at;
    wf_s3_pack_seal(&head, s->number, s->tag);
    memcpy(b->memory, &head, sizeof head);
    b->used = sizeof head;
    b->count = b->fails = b->completes = 0;
    b->slot = slot;
    b->opened_ms = wf_now_ms();
    b->state = WF_S3_BUFFER_OPEN;
    t->open = at;
    return true;
}

static void free_buffer(struct wf_s3_buffer *b)
{
    /* What a usual pack takes is kept, what a large block took is given back. */
    uint64_t kept = 2ull * WF_S3_PACK_BYTES;
    if (b->object_bytes > kept)
        (void)madvise(b->memory + kept, WF_S3_OBJECT_MAX - kept, MADV_DONTNEED);
    b->state = WF_S3_BUFFER_FREE;
}

static void send_pack(struct wf_s3 *t, struct wf_s3_buffer *b);

void wf_s3_close_pack(struct wf_s3 *t)
{
    if (t->open == WF_TIER_NONE)
        return;
    struct wf_s3_buffer *b = &t->buffers[t->open];
    struct wf_s3_slot *s = &t->slots[b->slot];
    if (s->count == 0 && s->unreaped == 0) {
        t->open = WF_TIER_NONE;
        b->object_bytes = b->used;
        free_buffer(b);
        wf_s3_slot_give(t, b->slot);
        return;
    }
    uint32_t count = 0;
    for (uint32_t i = 0; i < b->count; i++)
        if (b->entries[i].bytes)
            b->entries[count++] = b->entries[i];
    struct wf_s3_footer footer = {.count = count,
                                  .number = s->number,
                                  .tag = s->tag,
                                  .records_bytes = b->used,
                                  .object_bytes = b->used + count * sizeof b->entries[0] +
                                                  sizeof footer};
    wf_s3_footer_seal(&footer, b->entries);
    memcpy(b->memory + b->used, b->entries, count * sizeof b->entries[0]);
    memcpy(b->memory + footer.object_bytes - sizeof footer, &footer, sizeof footer);
    b->object_bytes = footer.object_bytes;
    s->object_bytes = (uint32_t)footer.object_bytes;
    t->open = WF_TIER_NONE;
    b->phase = b->object_bytes > WF_S3_SINGLE_MAX ? WF_S3_BEGIN : WF_S3_WHOLE;
    send_pack(t, b);
}

/* ---------------------------------------------------------------------------- upload */

static struct wf_s3_call *call_for(struct wf_s3 *t, struct wf_s3_buffer *b,
                                   enum wf_s3_method method,
                                   void (*done)(void *context, struct wf_s3_call *call))
{
    const struct wf_s3_slot *s = &t->slots[b->slot];
    struct wf_s3_call *call = wf_s3_http_take(&t->http);
    if (!call)
        return NULL; /* WF_S3_INNER leaves one; if not, the buffer rests and tries again */
    call->method = method;
    call->user = b;
    call->done = done;
    wf_s3_name_write(call->name, 'p', s->number, s->tag);
    call->room = b->answer;
    call->room_bytes = sizeof b->answer;
    return call;
}

static void stored(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    struct wf_s3_slot *s = &t->slots[b->slot];
    s->state = WF_S3_SLOT_STORED;
    t->stats.device_write_bytes += b->object_bytes;
    t->reclaim.uncovered++;
    free_buffer(b);
    if (s->count == 0 && s->unreaped == 0)
        wf_s3_leave(t, b->slot);
}

static void rest(struct wf_s3 *t, struct wf_s3_buffer *b, bool failed)
{
    uint32_t shift = b->fails < 6 ? b->fails : 6;
    uint64_t most = failed ? 1000ull << shift : (uint64_t)WF_S3_BACKOFF_MS << b->completes;
    b->fails += failed;
    b->state = WF_S3_BUFFER_RESTING;
    b->again_ms = wf_now_ms() + (failed ? most / 2 : 0) + wf_s3_random(&t->http) % (most / 2 + 1);
}

static void put_done(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_buffer *b = call->user;
    if (call->outcome == WF_S3_DONE) {
        stored(t, b);
        return;
    }
    wf_s3_trouble(t, call, "a pack could not be uploaded");
    rest(t, b, true);
}

static void aborted(void *context, struct wf_s3_call *call)
{
    (void)context, (void)call; /* what stays is aborted at the next open */
}

/* From the beginning, later. */
static void start_over(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    char id[3 * WF_S3_UPLOAD_MAX];
    struct wf_s3_call *call = b->upload[0] ? call_for(t, b, WF_S3_DELETE, aborted) : NULL;
    if (call && wf_s3_encode(b->upload, false, id, sizeof id)) {
        call->room = NULL;
        call->room_bytes = 0;
        snprintf(call->query, sizeof call->query, "uploadId=%s", id);
        wf_s3_http_start(&t->http, call);
    } else if (call) {
        wf_s3_http_give(&t->http, call);
    }
    b->upload[0] = '\0';
    b->phase = WF_S3_BEGIN;
    b->completes = 0;
    rest(t, b, true);
}

static void begin_done(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_buffer *b = call->user;
    struct wf_s3_answer answer;
    b->upload[0] = '\0';
    if (call->outcome == WF_S3_DONE && wf_s3_xml_read(b->answer, call->got, &answer, NULL, NULL) &&
        !strcmp(answer.root, "InitiateMultipartUploadResult") && answer.upload[0]) {
        snprintf(b->upload, sizeof b->upload, "%s", answer.upload);
        b->parts = (uint32_t)((b->object_bytes + WF_S3_UPLOAD_BYTES - 1) / WF_S3_UPLOAD_BYTES);
        b->parts_next = b->parts_done = b->flying = 0;
        b->broken = false;
        b->phase = WF_S3_PARTS;
        send_pack(t, b);
        return;
    }
    wf_s3_trouble(t, call, "an upload could not be begun");
    rest(t, b, true);
}

static void part_done(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_buffer *b = call->user;
    b->flying--;
    if (call->outcome == WF_S3_DONE && call->etag[0]) {
        snprintf(b->etags[call->step], sizeof b->etags[call->step], "%s", call->etag);
        b->parts_done++;
    } else if (!b->broken) {
        wf_s3_trouble(t, call, "a part of an upload was not taken");
        b->broken = true;
    }
    if (b->broken) {
        if (!b->flying)
            start_over(t, b);
        return;
    }
    if (b->parts_done == b->parts)
        b->phase = WF_S3_COMPLETE;
    send_pack(t, b);
}

/* 200 was sent before the store had finished; what it came to is in the body. */
static void complete_done(void *context, struct wf_s3_call *call)
{
    struct wf_s3 *t = context;
    struct wf_s3_buffer *b = call->user;
    struct wf_s3_answer answer = {.code = ""};
    if (call->outcome == WF_S3_DONE && wf_s3_xml_read(b->answer, call->got, &answer, NULL, NULL) &&
        !strcmp(answer.root, "CompleteMultipartUploadResult")) {
        stored(t, b);
        return;
    }
    if (call->outcome == WF_S3_DONE && b->completes++ < COMPLETES) {
        rest(t, b, false);
        return;
    }
    if (answer.code[0])
        snprintf(call->error, sizeof call->error, "%s", answer.code);
    wf_s3_trouble(t, call, "an upload could not be completed");
    start_over(t, b);
}

static bool send_part(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    char id[3 * WF_S3_UPLOAD_MAX];
    struct wf_s3_call *call = call_for(t, b, WF_S3_PUT, part_done);
    if (!call)
        return false;
    uint64_t from = (uint64_t)b->parts_next * WF_S3_UPLOAD_BYTES;
    (void)wf_s3_encode(b->upload, false, id, sizeof id); /* always fits: three for one */
    call->room = NULL;
    call->room_bytes = 0;
    call->step = b->parts_next++;
    call->body = b->memory + from;
    call->body_bytes = b->object_bytes - from < WF_S3_UPLOAD_BYTES ? b->object_bytes - from
                                                                   : WF_S3_UPLOAD_BYTES;
    snprintf(call->query, sizeof call->query, "partNumber=%u&uploadId=%s", call->step + 1, id);
    b->flying++;
    wf_s3_http_start(&t->http, call);
    return true;
}

static bool send_complete(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    char id[3 * WF_S3_UPLOAD_MAX];
    struct wf_s3_call *call = call_for(t, b, WF_S3_POST, complete_done);
    if (!call)
        return false;
    int at = snprintf(b->body, sizeof b->body, "<CompleteMultipartUpload>");
    for (uint32_t i = 0; i < b->parts; i++)
        at += snprintf(b->body + at, sizeof b->body - (size_t)at,
                       "<Part><PartNumber>%u</PartNumber><ETag>%s</ETag></Part>", i + 1,
                       b->etags[i]);
    at += snprintf(b->body + at, sizeof b->body - (size_t)at, "</CompleteMultipartUpload>");
    (void)wf_s3_encode(b->upload, false, id, sizeof id);
    call->body = b->body;
    call->body_bytes = (uint64_t)at;
    snprintf(call->query, sizeof call->query, "uploadId=%s", id);
    wf_s3_http_start(&t->http, call);
    return true;
}

static bool send_one(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    struct wf_s3_call *call;
    switch (b->phase) {
    case WF_S3_PARTS:
        while (b->parts_next < b->parts && b->flying < WF_S3_FLYING)
            if (!send_part(t, b))
                break;
        return b->flying > 0;
    case WF_S3_COMPLETE: return send_complete(t, b);
    case WF_S3_BEGIN:
        call = call_for(t, b, WF_S3_POST, begin_done);
        if (call)
            snprintf(call->query, sizeof call->query, "%s", "uploads=");
        break;
    default:
        call = call_for(t, b, WF_S3_PUT, put_done);
        if (call) {
            call->body = b->memory;
            call->body_bytes = b->object_bytes;
        }
        break;
    }
    if (call)
        wf_s3_http_start(&t->http, call);
    return call != NULL;
}

static void send_pack(struct wf_s3 *t, struct wf_s3_buffer *b)
{
    b->state = WF_S3_BUFFER_SENDING;
    if (!send_one(t, b))
        rest(t, b, true);
}

/* ---------------------------------------------------------------------------- writes */

/* A place for a record in the open pack, which is another one when it would not fit. */
static struct wf_s3_buffer *place(struct wf_s3 *t, const struct wf_tier_block *block)
{
    uint64_t bytes = wf_s3_record_bytes(block);
    if (t->open != WF_TIER_NONE) {
        const struct wf_s3_buffer *b = &t->buffers[t->open];
        if (b->count == WF_S3_ENTRIES_MAX ||
            (b->count && b->used + bytes > WF_S3_PACK_BYTES + WF_S3_PACK_BYTES / 4))
            wf_s3_close_pack(t);
    }
    if (t->open == WF_TIER_NONE && !open_pack(t))
        return NULL;
    return &t->buffers[t->open];
}

static uint64_t entered(struct wf_s3 *t, struct wf_s3_buffer *b, const struct wf_tier_block *block)
{
    uint64_t at = b->used;
    wf_s3_entry_of(&b->entries[b->count++], block, at);
    b->used += wf_s3_record_bytes(block);
    t->live_bytes += wf_s3_record_bytes(block);
    return at;
}

bool wf_s3_append_record(struct wf_s3 *t, const struct wf_tier_block *block, const uint8_t *record,
                         uint32_t *out_slot, uint32_t *out_offset)
{
    struct wf_s3_buffer *b = place(t, block);
    if (!b)
        return false;
    memcpy(b->memory + b->used, record, wf_s3_record_bytes(block));
    *out_slot = b->slot;
    *out_offset = (uint32_t)entered(t, b, block);
    return true;
}

static bool written_already(const struct wf_s3 *t, const uint8_t key[32])
{
    if (wf_tier_index_find(&t->index, key) != WF_TIER_NONE)
        return true;
    for (const struct wf_tier_request *r = t->done.first; r; r = r->next)
        if (r->op == WF_TIER_WRITE && r->status == WEFT_OK && !memcmp(r->block.key, key, 32))
            return true;
    return false;
}

enum weft_status wf_s3_write(struct wf_s3 *t, struct wf_tier_request *request)
{
    const struct wf_tier_block *block = &request->block;
    if (written_already(t, block->key)) {
        wf_s3_finish(t, request, WEFT_EXISTS);
        return WEFT_OK;
    }
    if (t->live_bytes + wf_s3_record_bytes(block) > t->capacity_bytes) {
        wf_s3_finish(t, request, WEFT_FULL);
        return WEFT_OK;
    }
    struct wf_s3_buffer *b = place(t, block);
    if (!b)
        return WEFT_PENDING;
    wf_s3_record_write(b->memory + b->used, block, request->data);
    request->private[1] = b->slot;
    request->private[2] = entered(t, b, block);
    request->bytes = block->bytes;
    t->slots[b->slot].unreaped++;
    wf_s3_finish(t, request, WEFT_OK);
    if (b->used >= WF_S3_PACK_BYTES)
        wf_s3_close_pack(t);
    return WEFT_OK;
}

/* From here on the block is found. */
void wf_s3_write_reaped(struct wf_s3 *t, struct wf_tier_request *request)
{
    if (request->op != WF_TIER_WRITE || request->status != WEFT_OK)
        return;
    uint32_t slot = (uint32_t)request->private[1];
    struct wf_s3_slot *s = &t->slots[slot];
    uint32_t bytes = (uint32_t)wf_s3_record_bytes(&request->block);
    s->unreaped--;
    uint32_t item = wf_tier_index_insert(&t->index, &request->block, ++t->sequence, slot,
                                         (uint32_t)request->private[2]);
    if (item == WF_TIER_NONE) {
        request->status = WEFT_FULL;
        request->bytes = 0;
        t->live_bytes -= bytes;
        t->dead_bytes += bytes;
        s->dead += bytes;
        return;
    }
    s->live += bytes;
    s->count++;
    t->stats.writes++;
    t->stats.write_bytes += request->bytes;
}

/* ----------------------------------------------------------------------- flush and time */

bool wf_s3_stored_until(const struct wf_s3 *t, uint64_t number)
{
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++)
        if (t->buffers[i].state != WF_S3_BUFFER_FREE &&
            wf_s3_slot_number(t, t->buffers[i].slot) <= number)
            return false;
    return true;
}

static const struct wf_s3_buffer *failing(const struct wf_s3 *t, uint64_t number)
{
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++)
        if (t->buffers[i].state == WF_S3_BUFFER_RESTING && t->buffers[i].fails &&
            wf_s3_slot_number(t, t->buffers[i].slot) <= number)
            return &t->buffers[i];
    return NULL;
}

static void flush_step(struct wf_s3 *t)
{
    struct wf_tier_request *next, *request = t->flushing.first;
    for (; request; request = next) {
        next = request->next;
        if (wf_s3_stored_until(t, request->private[1])) {
            (void)wf_s3_queue_remove(&t->flushing, request);
            wf_s3_finish(t, request, WEFT_OK);
        } else if (t->failed || failing(t, request->private[1])) {
            (void)wf_s3_queue_remove(&t->flushing, request);
            wf_s3_finish(t, request,
                         wf_fail(WEFT_E_SYSTEM, "tier %s: not flushed: %s; it is tried again",
                                 t->path, t->why));
        }
    }
}

void wf_s3_pack_step(struct wf_s3 *t, uint64_t now)
{
    if (t->open != WF_TIER_NONE && t->buffers[t->open].count &&
        now - t->buffers[t->open].opened_ms >= WF_S3_PACK_AGE_MS)
        wf_s3_close_pack(t);
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++) {
        struct wf_s3_buffer *b = &t->buffers[i];
        if (b->state == WF_S3_BUFFER_RESTING && b->again_ms <= now && !t->failed)
            send_pack(t, b);
    }
    while (t->waiting.first) {
        struct wf_tier_request *request = t->waiting.first;
        if (t->failed) {
            (void)wf_s3_queue_take(&t->waiting);
            wf_s3_finish(t, request,
                         wf_fail(WEFT_E_SYSTEM, "tier %s: not written: %s", t->path, t->why));
            continue;
        }
        (void)wf_s3_queue_take(&t->waiting);
        if (wf_s3_write(t, request) != WEFT_PENDING)
            continue;
        request->next = t->waiting.first; /* back to the front */
        t->waiting.first = request;
        if (!request->next)
            t->waiting.last = &request->next;
        break;
    }
    flush_step(t);
}

uint64_t wf_s3_pack_wake(const struct wf_s3 *t)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < WF_S3_BUFFERS; i++) {
        const struct wf_s3_buffer *b = &t->buffers[i];
        uint64_t due = b->state == WF_S3_BUFFER_RESTING && !t->failed ? b->again_ms
                       : b->state == WF_S3_BUFFER_OPEN && b->count
                           ? b->opened_ms + WF_S3_PACK_AGE_MS
                           : 0;
        if (due && (!at || due < at))
            at = due;
    }
    return at;
}
