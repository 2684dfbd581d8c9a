/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages without payload, in memory of their own until they are sent: a bounded number of small
 * ones, and of large ones.  What many are told is made once, and counts who still has to send it.
 * The fabric's thread.
 */
#include <string.h>

#include "fabric/inner.h"

static void note_give(struct wf_note *note)
{
    struct wf_fabric *f = note->fabric;
    struct wf_note_pool *pool = note->large ? &f->large : &f->small;
    note->next = pool->free;
    pool->free = note;
}

void wf_body_let_go(struct wf_note *body)
{
    if (--body->refs == 0)
        note_give(body);
}

static void note_sent(struct wf_net_message *message, enum weft_status status)
{
    struct wf_note *note = (struct wf_note *)message;
    (void)status; /* what was not sent is lost with its link */
    if (note->large || note->body)
        note->link->large_notes--;
    if (note->body)
        wf_body_let_go(note->body);
    note->body = NULL;
    note_give(note);
}

/* NULL: all are on their way. */
static struct wf_note *note_take(struct wf_fabric *f, struct wf_note_pool *pool)
{
    struct wf_note *note = pool->free;
    if (note) {
        pool->free = note->next;
        return note;
    }
    if (pool->used == pool->max)
        return NULL;
    note = (void *)(pool->memory + pool->used++ * pool->each);
    note->fabric = f;
    note->large = pool == &f->large;
    return note;
}

static bool has_note(const struct wf_note_pool *pool)
{
    return pool->free || pool->used < pool->max;
}

bool wf_link_say(struct wf_link *link, const void *header, uint32_t bytes)
{
    return wf_link_say_with(link, header, bytes, NULL);
}

bool wf_link_say_with(struct wf_link *link, const void *header, uint32_t bytes,
                      const struct iovec *piece)
{
    struct wf_fabric *f = link->fabric;
    bool large = bytes > WF_NOTE_SMALL;
    struct wf_note *note = link->closing || bytes > WF_NOTE_LARGE
                               ? NULL
                               : note_take(f, large ? &f->large : &f->small);
    if (!note)
        return false;
    memcpy(note->header, header, bytes);
    note->link = link;
    note->message = (struct wf_net_message){.header = note->header,
                                            .header_bytes = bytes,
                                            .sent = note_sent,
                                            .pieces = piece,
                                            .piece_count = piece != NULL};
    link->large_notes += large;
    if (link->ops->send(link->net, &note->message) == WEFT_OK)
        return true;
    note_sent(&note->message, WEFT_E_NODE);
    return false;
}

bool wf_link_can_say(const struct wf_link *link)
{
    return !link->closing && has_note(&link->fabric->large) &&
           link->large_notes < WF_LINK_EVENTS_MAX;
}

struct wf_note *wf_body_make(struct wf_fabric *f, const void *header, uint32_t bytes)
{
    struct wf_note *body = note_take(f, bytes > WF_NOTE_SMALL ? &f->large : &f->small);
    if (!body)
        return NULL;
    body->refs = 1;
    body->message.header_bytes = bytes;
    memcpy(body->header, header, bytes);
    return body;
}

bool wf_link_say_body(struct wf_link *link, struct wf_note *body)
{
    struct wf_fabric *f = link->fabric;
    struct wf_note *note = link->closing || link->large_notes >= WF_LINK_EVENTS_MAX
                               ? NULL
                               : note_take(f, &f->small);
    if (!note)
        return false;
    note->link = link;
    note->body = body;
    body->refs++;
    link->large_notes++;
    note->message = (struct wf_net_message){.header = body->header,
                                            .header_bytes = body->message.header_bytes,
                                            .sent = note_sent};
    if (link->ops->send(link->net, &note->message) == WEFT_OK)
        return true;
    note_sent(&note->message, WEFT_E_NODE);
    return false;
}
