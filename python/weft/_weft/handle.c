/* SPDX-License-Identifier: Apache-2.0 */
#include "handle.h"

#include "module.h"

/* Closed ones stand last among their parent's, so that closing a parent finds the others first. */
static void append(struct handle *parent, struct handle *h)
{
    h->next = NULL;
    h->previous = parent->last;
    if (parent->last)
        parent->last->next = h;
    else
        parent->first = h;
    parent->last = h;
}

static void prepend(struct handle *parent, struct handle *h)
{
    h->previous = NULL;
    h->next = parent->first;
    if (parent->first)
        parent->first->previous = h;
    else
        parent->last = h;
    parent->first = h;
}

static void unlink_from(struct handle *parent, struct handle *h)
{
    if (h->previous)
        h->previous->next = h->next;
    else
        parent->first = h->next;
    if (h->next)
        h->next->previous = h->previous;
    else
        parent->last = h->previous;
}

void wp_handle_open(struct handle *h, PyObject *owner, struct handle *parent, const char *kind,
                    void (*finish)(struct handle *h), void (*trim)(struct handle *h))
{
    h->owner = owner;
    h->parent = parent;
    h->kind = kind;
    h->finish = finish;
    h->trim = trim;
    h->open = true;
    if (parent) {
        Py_INCREF(parent->owner);
        prepend(parent, h);
    }
}

/* Go on with what closing began, as far as it may. */
static void settle(struct handle *h)
{
    while (h->closed && !h->finished && h->calls == 0) {
        bool last = h->views == 0 && !h->first;
        void (*step)(struct handle * h) = last ? h->finish : h->trim;
        if (!last && !(step && h->untrimmed))
            return;
        h->untrimmed = false;
        h->finished = last;
        h->calls++;
        Py_BEGIN_ALLOW_THREADS
        step(h);
        Py_END_ALLOW_THREADS
        h->calls--;
        struct handle *parent = h->parent;
        if (last && parent) {
            unlink_from(parent, h);
            h = parent;
        }
    }
}

bool wp_handle_enter(struct handle *h)
{
    const struct handle *each = h;
    while (each->open && !each->closed && each->parent)
        each = each->parent;
    if (each->open && !each->closed) {
        h->calls++;
        return true;
    }
    wp_error(WEFT_E_INVALID, "this %s is closed%s%s", h->kind ? h->kind : "object",
             each != h ? ", since so is its " : "", each != h ? each->kind : "");
    return false;
}

void wp_handle_leave(struct handle *h)
{
    h->calls--;
    settle(h);
}

bool wp_handle_is_closed(const struct handle *h)
{
    while (h && h->open && !h->closed)
        h = h->parent;
    return h != NULL;
}

void wp_handle_close(struct handle *h)
{
    if (!h->open || h->closed)
        return;
    h->closed = h->untrimmed = true;
    if (h->parent) {
        unlink_from(h->parent, h);
        append(h->parent, h);
    }
    h->calls++;
    while (h->first && !h->first->closed) {
        PyObject *below = h->first->owner;
        Py_INCREF(below);
        wp_handle_close(h->first);
        Py_DECREF(below);
    }
    h->calls--;
    settle(h);
}

void wp_handle_fini(struct handle *h)
{
    if (!h->open)
        return;
    PyObject *parent = h->parent ? h->parent->owner : NULL;
    wp_handle_close(h);
    Py_XDECREF(parent);
}

void wp_handle_view_opened(struct handle *h)
{
    h->views++;
}

void wp_handle_view_gone(struct handle *h)
{
    h->views--;
    h->untrimmed = true;
    settle(h);
}
