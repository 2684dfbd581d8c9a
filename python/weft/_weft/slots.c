/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Slots: room for blocks, to be written in place and published; and put(), which does all of
 * that with a copy.
 *
 * What is committed never changes, so a commit refuses as long as somebody could still write: a
 * view that lives, or a write() under way in another thread.  An abort gives back at once what no
 * view is of, and the rest when its last view is gone.
 */
#include <stdatomic.h>

#include "module.h"

enum state { RESERVED, COMMITTING, COMMITTED };

struct slots {
    PyObject ob_base;
    struct handle handle;
    struct format *of;       /* kept alive by the handle */
    struct session *session; /* whose fill it is; NULL: of keys */
    struct weft_push push;   /* once push() was said */
    struct weft_fill fill;   /* fill.slots and fill.blocks are used for both */
    _Atomic uint32_t *views; /* [blocks] */
    enum weft_status *told;  /* [blocks]: as reserved, or as committed */
    uint32_t blocks, first_block;
    enum state state;
    bool trimmed;
};

static PyTypeObject *slots_type;

static struct slots *slots_of(PyObject *self)
{
    return (struct slots *)self;
}

static void abort_all(struct slots *s)
{
    /* A batch whose first was given back already would not be told to the node. */
    for (uint32_t i = 0; s->trimmed && i < s->blocks; i++)
        weft_abort_slots(s->of->format, &s->fill.slots[i], 1);
    if (s->session) {
        PyThread_acquire_lock(s->session->lock, WAIT_LOCK);
        weft_abort(&s->fill);
        PyThread_release_lock(s->session->lock);
    } else {
        weft_abort_slots(s->of->format, s->fill.slots, s->blocks);
        free(s->fill.slots);
    }
}

static void slots_trim(struct handle *h)
{
    struct slots *s = (struct slots *)(void *)h->owner;
    s->trimmed = true;
    for (uint32_t i = 0; s->fill.slots && i < s->blocks; i++)
        if (atomic_load_explicit(&s->views[i], memory_order_relaxed) == 0)
            weft_abort_slots(s->of->format, &s->fill.slots[i], 1);
}

static void slots_finish(struct handle *h)
{
    struct slots *s = (struct slots *)(void *)h->owner;
    if (s->fill.slots)
        abort_all(s);
    s->fill.slots = NULL;
}

/* Takes over fill->slots: of a session's, or from calloc. */
static PyObject *make(struct format *of, struct session *session, const struct weft_fill *fill)
{
    struct slots *s = wp_new(slots_type);
    size_t room = (size_t)fill->blocks + 1;
    if (s) {
        s->of = of;
        s->session = session;
        s->fill = *fill;
        s->blocks = fill->blocks;
        s->first_block = fill->first_block;
        s->views = PyMem_Calloc(room, sizeof *s->views);
        s->told = PyMem_Calloc(room, sizeof *s->told);
        wp_handle_open(&s->handle, (PyObject *)s, session ? &session->handle : &of->handle,
                       "reservation (Slots)", slots_finish, slots_trim);
    }
    if (!s || !s->views || !s->told) {
        if (!s) {
            struct slots none = {.of = of,
                                 .session = session,
                                 .fill = *fill,
                                 .blocks = fill->blocks};
            abort_all(&none);
        }
        Py_XDECREF((PyObject *)s);
        return PyErr_NoMemory();
    }
    for (uint32_t i = 0; i < s->blocks; i++)
        s->told[i] = fill->slots[i].status;
    return (PyObject *)s;
}

PyObject *wp_slots_make_of_fill(struct session *session, struct weft_fill *fill)
{
    return make(session->of, session, fill);
}

static void slots_dealloc(PyObject *self)
{
    struct slots *s = slots_of(self);
    wp_handle_fini(&s->handle);
    PyMem_Free((void *)s->views);
    PyMem_Free(s->told);
    wp_free(self);
}

/* -------------------------------------------------------------------------------------- reserve */

static int to_lost(PyObject *from, void *out_flags)
{
    enum weft_quality quality = WEFT_QUALITY_DEFAULT;
    if (from != Py_None && !wp_to_quality(from, &quality))
        return 0;
    *(uint32_t *)out_flags = quality == WEFT_TRANSPARENT ? WEFT_LOST_TRANSPARENT
                             : quality == WEFT_ECONOMY   ? WEFT_LOST_ECONOMY
                                                         : 0;
    return 1;
}

PyObject *wp_slots_reserve(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "parent", "chained", "insist", "lost", NULL};
    PyObject *from, *before = NULL;
    int chained = 1, insist = 0;
    uint32_t lost = 0;
    struct weft_key parent;
    bool has_parent;
    struct wp_keys keys;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OppO&:reserve", names, &from, &before,
                                     &chained, &insist, to_lost, &lost) ||
        !wp_key_take(before, &parent, &has_parent) || !wp_keys_take(from, &keys))
        return NULL;
    struct weft_fill fill = {.blocks = (uint32_t)keys.count, .layer_bytes = f->layer_bytes};
    size_t room = keys.count < WEFT_BATCH_MAX ? keys.count + 1 : WEFT_BATCH_MAX + 1;
    fill.slots = calloc(room, sizeof *fill.slots);
    if (!fill.slots) {
        wp_keys_drop(&keys);
        return PyErr_NoMemory();
    }
    uint32_t flags = (chained ? WEFT_CHAINED : 0u) | (insist ? WEFT_INSIST : 0u) | lost;
    Py_BEGIN_ALLOW_THREADS
    status = weft_reserve_keys(f->format, has_parent ? &parent : NULL, keys.keys, keys.count, flags,
                               fill.slots);
    Py_END_ALLOW_THREADS
    wp_keys_drop(&keys);
    if (status == WEFT_OK)
        return make(f, NULL, &fill);
    free(fill.slots);
    return wp_raise(status);
}

/* -------------------------------------------------------------------------------- views, writes */

static bool block_check(const struct slots *s, Py_ssize_t block)
{
    if (block >= 0 && block < (Py_ssize_t)s->blocks)
        return true;
    PyErr_Format(PyExc_IndexError, "slot %zd of %u that were asked for", block, s->blocks);
    return false;
}

/* Begin a call that writes. */
static bool enter_writing(struct slots *s)
{
    if (s->state != RESERVED) {
        wp_error(WEFT_E_INVALID, "these blocks are committed; a committed block never changes");
        return false;
    }
    return wp_handle_enter(&s->handle);
}

static PyObject *view_of(struct slots *s, uint32_t block, size_t from, size_t bytes)
{
    if (!enter_writing(s))
        return NULL;
    struct weft_slot *slot = &s->fill.slots[block];
    PyObject *view = NULL;
    if (slot->status == WEFT_OK)
        view = wp_memoryview_make(&s->handle, (uint8_t *)slot->data + from, bytes, true,
                                  &s->views[block]);
    else
        view = Py_NewRef(Py_None);
    wp_handle_leave(&s->handle);
    return view;
}

static Py_ssize_t slots_length(PyObject *self)
{
    return (Py_ssize_t)slots_of(self)->blocks;
}

static PyObject *slots_item(PyObject *self, Py_ssize_t block)
{
    struct slots *s = slots_of(self);
    return block_check(s, block) ? view_of(s, (uint32_t)block, 0, s->of->block_bytes) : NULL;
}

static PyObject *half_of_layer(PyObject *self, PyObject *args, PyObject *kwargs, size_t half)
{
    static char *names[] = {"block", "layer", NULL};
    struct slots *s = slots_of(self);
    Py_ssize_t block, layer;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn", names, &block, &layer) ||
        !block_check(s, block))
        return NULL;
    size_t bytes = s->of->layer_bytes;
    if (bytes == 0)
        return wp_error(WEFT_E_INVALID, "this format's blocks are an engine's own payload, without "
                                        "layers; write slots[block]");
    if (layer < 0 || layer >= (Py_ssize_t)s->of->layers) {
        PyErr_Format(PyExc_IndexError, "layer %zd of a model with %u", layer, s->of->layers);
        return NULL;
    }
    return view_of(s, (uint32_t)block, (2 * (size_t)layer + half) * bytes, bytes);
}

static PyObject *slots_k(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return half_of_layer(self, args, kwargs, 0);
}

static PyObject *slots_v(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return half_of_layer(self, args, kwargs, 1);
}

static PyObject *write_bytes(struct slots *s, uint32_t block, const Py_buffer *bytes, size_t offset)
{
    size_t room = s->of->block_bytes;
    struct weft_slot *slot = &s->fill.slots[block];
    if (slot->status != WEFT_OK)
        return wp_error(WEFT_E_INVALID, "slot %u is not to be written; see status(%u)", block,
                        block);
    if (offset > room || (size_t)bytes->len > room - offset)
        return wp_error(WEFT_E_INVALID, "%zd bytes at %zu of a block that has %zu", bytes->len,
                        offset, room);
    Py_BEGIN_ALLOW_THREADS
    memcpy((uint8_t *)slot->data + offset, bytes->buf, (size_t)bytes->len);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *slots_write(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"block", "buffer", "offset", NULL};
    struct slots *s = slots_of(self);
    Py_ssize_t block;
    PyObject *from, *result = NULL;
    uint64_t offset = 0;
    Py_buffer bytes;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO|O&:write", names, &block, &from, wp_to_u64,
                                     &offset) ||
        !block_check(s, block) || !wp_bytes_take(from, "what is written", &bytes))
        return NULL;
    if (enter_writing(s)) {
        result = write_bytes(s, (uint32_t)block, &bytes, (size_t)offset);
        wp_handle_leave(&s->handle);
    }
    PyBuffer_Release(&bytes);
    return result;
}

/* ----------------------------------------------------------------------------------------- push */

static PyObject *slots_push(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"node", NULL};
    struct slots *s = slots_of(self);
    const char *node;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:push", names, &node) || !enter_writing(s))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_push_begin(s->of->format, s->fill.slots, s->blocks, node, &s->push);
    Py_END_ALLOW_THREADS
    wp_handle_leave(&s->handle);
    return status < 0 ? wp_raise(status) : PyBool_FromLong(status == WEFT_OK);
}

static PyObject *slots_written(PyObject *self, PyObject *number)
{
    struct slots *s = slots_of(self);
    unsigned long layers = PyLong_AsUnsignedLong(number);
    enum weft_status status;
    if ((layers == (unsigned long)-1 && PyErr_Occurred()) || !enter_writing(s))
        return NULL;
    if (!s->push.weft) {
        wp_error(WEFT_E_INVALID, "these blocks go to no node yet; push(node) comes first");
        wp_handle_leave(&s->handle);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = weft_push_layers(&s->push, layers <= UINT32_MAX ? (uint32_t)layers : UINT32_MAX);
    Py_END_ALLOW_THREADS
    wp_handle_leave(&s->handle);
    return status < 0 ? wp_raise(status) : PyBool_FromLong(status == WEFT_OK);
}

/* --------------------------------------------------------------------------------------- commit */

static const char *status_text(const struct slots *s, uint32_t block)
{
    switch (s->told[block]) {
    case WEFT_OK: return s->state == COMMITTED ? "stored" : "reserved";
    case WEFT_EXISTS: return "exists";
    case WEFT_FULL: return "full";
    case WEFT_E_PARENT: return "parent";
    case WEFT_E_CORRUPT: return "corrupt";
    default: return "lost";
    }
}

/* A session's chain goes on to the last block that is there, and weft_commit() tells no statuses.
 * So the slots are committed first, and the fill with what became of them. */
static enum weft_status commit_fill(struct slots *s)
{
    struct weft_slot *slots = s->fill.slots;
    enum weft_status status = WEFT_OK;
    for (uint32_t from = 0; status == WEFT_OK && from < s->blocks; from += WEFT_BATCH_MAX) {
        uint32_t n = s->blocks - from < WEFT_BATCH_MAX ? s->blocks - from : WEFT_BATCH_MAX;
        status = weft_commit_slots(s->of->format, slots + from, n);
    }
    if (!s->session || status != WEFT_OK) {
        for (uint32_t i = 0; i < s->blocks; i++)
            s->told[i] = slots[i].status;
        return status;
    }
    for (uint32_t i = 0; i < s->blocks; i++) {
        s->told[i] = slots[i].status;
        slots[i].status = s->told[i] == WEFT_OK || s->told[i] == WEFT_EXISTS ? WEFT_EXISTS
                                                                             : WEFT_FULL;
    }
    PyThread_acquire_lock(s->session->lock, WAIT_LOCK);
    status = weft_commit(&s->fill);
    PyThread_release_lock(s->session->lock);
    return status;
}

/* Nobody can write any more: false, with an exception, if somebody still can. */
static bool writers_gone(const struct slots *s)
{
    for (uint32_t i = 0; i < s->blocks; i++)
        if (atomic_load_explicit(&s->views[i], memory_order_relaxed)) {
            PyErr_Format(PyExc_BufferError,
                         "slot %u still has a writable view, and a committed block never changes; "
                         "let the view go first (del it, or: with slots[%u] as view: ...)",
                         i, i);
            return false;
        }
    if (s->handle.calls > 1)
        wp_error(WEFT_E_BUSY, "another thread still writes to these slots; commit when it is done");
    return s->handle.calls <= 1;
}

static PyObject *statuses(const struct slots *s)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list && i < s->blocks; i++) {
        PyObject *text = PyUnicode_InternFromString(status_text(s, i));
        if (!text || PyList_Append(list, text) < 0)
            Py_CLEAR(list);
        Py_XDECREF(text);
    }
    return list;
}

static PyObject *slots_commit(PyObject *self, PyObject *nothing)
{
    struct slots *s = slots_of(self);
    enum weft_status status = WEFT_OK;
    (void)nothing;
    if (!enter_writing(s))
        return NULL;
    bool alone = writers_gone(s);
    if (alone) {
        s->state = COMMITTING;
        Py_BEGIN_ALLOW_THREADS
        status = commit_fill(s);
        Py_END_ALLOW_THREADS
        s->state = COMMITTED;
        if (status != WEFT_OK)
            wp_raise(status);
        wp_handle_close(&s->handle);
    }
    wp_handle_leave(&s->handle);
    return alone && status == WEFT_OK ? statuses(s) : NULL;
}

static PyObject *slots_abort(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&slots_of(self)->handle);
    Py_RETURN_NONE;
}

static PyObject *slots_exit(PyObject *self, PyObject *args)
{
    struct slots *s = slots_of(self);
    PyObject *error = NULL, *type, *trace;
    if (!PyArg_ParseTuple(args, "OOO", &type, &error, &trace))
        return NULL;
    if (type != Py_None)
        return slots_abort(self, NULL);
    if (s->state != RESERVED || s->handle.closed)
        Py_RETURN_NONE; /* committed or aborted inside */
    PyObject *list = slots_commit(self, NULL);
    if (!list)
        return NULL;
    Py_DECREF(list);
    Py_RETURN_NONE;
}

static PyObject *slots_status(PyObject *self, PyObject *number)
{
    struct slots *s = slots_of(self);
    Py_ssize_t block = PyNumber_AsSsize_t(number, PyExc_IndexError);
    if ((block == -1 && PyErr_Occurred()) || !block_check(s, block))
        return NULL;
    return PyUnicode_FromString(status_text(s, (uint32_t)block));
}

static PyObject *slots_statuses(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return statuses(slots_of(self));
}

/* ------------------------------------------------------------------------------------------ put */

struct put {
    struct format *format;
    uint32_t flags;
    struct weft_key parent;
    bool has_parent;
    struct wp_keys keys;
    const uint8_t **from; /* [keys.count] */
    size_t there;         /* stored or present, from the first */
};

/* Without the GIL.  Chained batches go on from the last key of the one before. */
static enum weft_status put_all(struct put *put, struct weft_slot *slots)
{
    size_t bytes = put->format->block_bytes;
    enum weft_status status = WEFT_OK;
    bool whole = true;
    for (size_t at = 0; status == WEFT_OK && whole && at < put->keys.count;) {
        size_t n = put->keys.count - at;
        if (n > WEFT_BATCH_MAX)
            n = WEFT_BATCH_MAX;
        bool goes_on = at > 0 && (put->flags & WEFT_CHAINED);
        const struct weft_key *parent = goes_on           ? &put->keys.keys[at - 1]
                                        : put->has_parent ? &put->parent
                                                          : NULL;
        status = weft_reserve_keys(put->format->format, parent, put->keys.keys + at, n, put->flags,
                                   slots);
        if (status != WEFT_OK)
            break;
        for (size_t i = 0; i < n; i++)
            if (slots[i].status == WEFT_OK)
                memcpy(slots[i].data, put->from[at + i], bytes);
        status = weft_commit_slots(put->format->format, slots, n);
        for (size_t i = 0; i < n && status == WEFT_OK; i++) {
            bool there = slots[i].status == WEFT_OK || slots[i].status == WEFT_EXISTS;
            put->there += there;
            whole &= there || !(put->flags & WEFT_CHAINED);
        }
        at += n;
    }
    return status;
}

/* put->from, of one buffer with all blocks or a sequence with a buffer each.  `held` has room for
 * as many as there are keys; *out_held of them are to be released. */
static bool sources_take(struct put *put, PyObject *from, Py_buffer *held, size_t *out_held)
{
    size_t bytes = put->format->block_bytes, count = put->keys.count;
    *out_held = 0;
    if (PyObject_CheckBuffer(from)) {
        if (!wp_bytes_take(from, "what is put", &held[0]))
            return false;
        *out_held = 1;
        if ((size_t)held[0].len / bytes != count || (size_t)held[0].len % bytes) {
            wp_error(WEFT_E_INVALID, "%zd bytes for %zu blocks of %zu", held[0].len, count, bytes);
            return false;
        }
        for (size_t i = 0; i < count; i++)
            put->from[i] = (const uint8_t *)held[0].buf + i * bytes;
        return true;
    }
    Py_ssize_t given = PySequence_Size(from);
    if (given >= 0 && (size_t)given != count)
        wp_error(WEFT_E_INVALID, "%zd buffers for %zu keys", given, count);
    if (given < 0 || (size_t)given != count)
        return false;
    for (size_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(from, (Py_ssize_t)i);
        bool good = item && wp_bytes_take(item, "a block", &held[i]);
        Py_XDECREF(item);
        if (!good)
            return false;
        (*out_held)++;
        if ((size_t)held[i].len != bytes) {
            wp_error(WEFT_E_INVALID, "block %zu has %zd bytes; this format's have %zu", i,
                     held[i].len, bytes);
            return false;
        }
        put->from[i] = held[i].buf;
    }
    return true;
}

static PyObject *put_from(struct put *put, PyObject *from)
{
    PyObject *result = NULL;
    size_t held_count = 0, count = put->keys.count,
           batch = count < WEFT_BATCH_MAX ? count : WEFT_BATCH_MAX;
    enum weft_status status;
    struct weft_slot *slots = calloc(batch + 1, sizeof *slots);
    Py_buffer *held = calloc(count + 1, sizeof *held);
    put->from = calloc(count + 1, sizeof *put->from);
    if (!slots || !held || !put->from) {
        PyErr_NoMemory();
    } else if (sources_take(put, from, held, &held_count)) {
        Py_BEGIN_ALLOW_THREADS
        status = put_all(put, slots);
        Py_END_ALLOW_THREADS
        result = status == WEFT_OK ? PyLong_FromSize_t(put->there) : wp_raise(status);
    }
    for (size_t i = 0; i < held_count; i++)
        PyBuffer_Release(&held[i]);
    free((void *)put->from);
    free(held);
    free(slots);
    return result;
}

PyObject *wp_slots_put(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "buffers", "parent", "chained", "insist", "lost", NULL};
    PyObject *keys, *from, *before = NULL;
    int chained = 1, insist = 0;
    uint32_t lost = 0;
    struct put put = {.format = f};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OppO&:put", names, &keys, &from, &before,
                                     &chained, &insist, to_lost, &lost) ||
        !wp_key_take(before, &put.parent, &put.has_parent) || !wp_keys_take(keys, &put.keys))
        return NULL;
    put.flags = (chained ? WEFT_CHAINED : 0u) | (insist ? WEFT_INSIST : 0u) | lost;
    PyObject *result = put_from(&put, from);
    wp_keys_drop(&put.keys);
    return result;
}

/* ----------------------------------------------------------------------------------- the object */

static PyMethodDef slots_methods[] = {
    {"k", WP_KEYWORDS(slots_k), "Where to write K of a layer of a block; None: not to be written."},
    {"v", WP_KEYWORDS(slots_v), "Where to write V of a layer of a block; None: not to be written."},
    {"write", WP_KEYWORDS(slots_write), "Copy bytes into a block."},
    {"status", slots_status, METH_O,
     "'reserved', 'exists' or 'full'; after commit() as that said."},
    {"statuses", slots_statuses, METH_NOARGS, "status() of each."},
    {"push", WP_KEYWORDS(slots_push),
     "Have them go to another node while they are written.  False: none is to be written."},
    {"written", slots_written, METH_O,
     "So many layers of all of them have been, and go now.  False: nothing more goes by this push; "
     "what is committed is handed over."},
    {"commit", slots_commit, METH_NOARGS,
     "Publish; a status each: 'stored', 'exists', 'full', 'parent', 'corrupt' or 'lost'."},
    {"abort", slots_abort, METH_NOARGS, "Give the room back unpublished."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", slots_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_first_block(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromUnsignedLong(slots_of(self)->first_block);
}

static PyGetSetDef slots_fields[] = {
    {"first_block", get_first_block, NULL, "Of a session's: number in the chain of slot 0.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots_slots[] = {
    {Py_tp_doc, "Room for blocks; Format.reserve() and Session.reserve() make it."},
    {Py_tp_dealloc, slots_dealloc},
    {Py_tp_methods, slots_methods},
    {Py_tp_getset, slots_fields},
    {Py_sq_length, slots_length},
    {Py_sq_item, slots_item},
    {0, NULL},
};

static PyType_Spec slots_spec = {
    .name = "weft.Slots",
    .basicsize = sizeof(struct slots),
    .flags = WP_TYPE_FLAGS,
    .slots = slots_slots,
};

int wp_slots_init(PyObject *module)
{
    return wp_type_init(module, "Slots", &slots_spec, &slots_type);
}
