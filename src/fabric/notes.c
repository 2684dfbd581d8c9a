/* SPDX-License-Identifier: Apache-2.0
 *
 * Messages without payload, in memory of their own until they are sent: a bounded number of small
 * ones, and of large ones.  What many are told is made once, and counts who still has to send it.
 *
 * No link has more of them on their way than are left for others besides a quarter: of the small
 * ones that is for links that have few, of the large ones for what many are told.  So whoever asks
 * without end, and takes none of the answers, gets no more of them after a while, and the others
 * do.
 * The fabric's thread.
 */
#include <string.h>

#include "fabric/inner.h"

#define FEW 4u

static void note_give(struct wf_note *note)
{
    struct wf_fabric *f = note->fabric;
    struct wf_note_pool *pool = note->large ? &f->large : &f->small;
    if (note->link)
        note->link->notes[note->large]--;
    note->next = pool->free;
    pool->free = note;
    pool->out--;
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

/* link NULL: it is no one's. */
static bool may_take(const struct wf_fabric *f, bool large, const struct wf_link *link)
{
    const struct wf_note_pool *pool = large ? &f->large : &f->small;
    uint32_t left = pool->max - pool->out;
    if (!link || (!large && link->notes[large] < FEW))
        return left > 0;
    return link->notes[large] + pool->max / 4 < left;
}

/* NULL: not now. */
static struct wf_note *note_take(struct wf_fabric *f, bool large, struct wf_link *link)
{
    struct wf_note_pool *pool = large ? &f->large : &f->small;
    struct wf_note *note = pool->free;
    if (!may_take(f, large, link))
        return NULL;
    if (note) {
        pool->free = note->next;
    } else {
        note = (void *)(pool->memory + pool->used++ * pool->each);
        note->fabric = f;
        note->large = large;
    }
    pool->out++;
    note->link = link;
    if (link)
        link->notes[large]++;
    return note;
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
    struct wf_note *note = link->closing || bytes > WF_NOTE_LARGE ? NULL
                                                                  : note_take(f, large, link);
    if (!note)
        return false;
    memcpy(note->header, header, bytes);
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
    const struct wf_note_pool *large = &link->fabric->large;
    return !link->closing && large->out < large->max && link->large_notes < WF_LINK_EVENTS_MAX;
}

struct wf_note *wf_body_make(struct wf_fabric *f, const void *header, uint32_t bytes)
{
    struct wf_note *body = note_take(f, bytes > WF_NOTE_SMALL, NULL);
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
                               : note_take(f, false, link);
    if (!note)
        return false;
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
