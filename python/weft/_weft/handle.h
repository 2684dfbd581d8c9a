/* SPDX-License-Identifier: Apache-2.0
 *
 * What stands behind a Python object: something of libweft's that has to be given back, once, and
 * not while anybody is at it.
 *
 *     fabric ── format ── pins, slots
 *        │         └───── session ── slots (a fill)
 *        └───── region
 *
 * A handle keeps the object of its parent alive.  Closing it, by hand or by the garbage collector,
 * closes everything below it.  What is closed admits no new call and no new view; it is *finished*
 * (given back to libweft) when the last call under way has returned, the last view of its memory is
 * gone and everything below it is finished.  So no thread sees a handle go away under its hands,
 * and no memory that Python still sees is ever unmapped.
 *
 * The lock of all this is the GIL: every function here is called with it.  `finish` and `trim` run
 * without it, and once at a time.
 */
#ifndef WEFT_PYTHON_HANDLE_H
#define WEFT_PYTHON_HANDLE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct handle {
    PyObject *owner;       /* the object that this is inside of; borrowed */
    struct handle *parent; /* whose owner is held as long as this owner lives; NULL: none */
    struct handle *first;  /* of those below, the newest; those that are closed come last */
    struct handle *last;
    struct handle *next, *previous;
    const char *kind;                 /* "format" and the like, for sentences */
    void (*finish)(struct handle *h); /* give it back */
    /* It is closed, but cannot be finished yet: give back what no view is of.  NULL: nothing. */
    void (*trim)(struct handle *h);
    uint32_t calls; /* under way in any thread */
    uint32_t views; /* of its memory */
    bool open, closed, finished;
    bool untrimmed; /* a view went since the last trim */
};

/* `h` is ready for calls.  `owner` must have been zeroed when it was allocated. */
void wp_handle_open(struct handle *h, PyObject *owner, struct handle *parent, const char *kind,
                    void (*finish)(struct handle *h), void (*trim)(struct handle *h));

/* Begin a call; wp_handle_leave() ends it.  False, with an exception: it is closed. */
bool wp_handle_enter(struct handle *h);
void wp_handle_leave(struct handle *h);

/* No more calls; finishes now or when it may. */
void wp_handle_close(struct handle *h);
bool wp_handle_is_closed(const struct handle *h);

/* For tp_dealloc: close it, and let go of the parent. */
void wp_handle_fini(struct handle *h);

/* A view of its memory comes and goes. */
void wp_handle_view_opened(struct handle *h);
void wp_handle_view_gone(struct handle *h);

#endif
