/* SPDX-License-Identifier: Apache-2.0
 *
 * What every zero-copy memoryview has behind it: a range of memory and the handle that it belongs
 * to.  As long as a View lives the range stays as it is; memoryviews, slices of them, NumPy arrays
 * and torch tensors all keep the View alive, whichever way they took it (torch.frombuffer() keeps
 * the object and not the buffer).
 */
#include <stdatomic.h>

#include "module.h"

struct view {
    PyObject ob_base;
    struct handle *of;
    void *memory;
    size_t bytes;
    bool writable;
    _Atomic uint32_t *count;
};

static PyTypeObject *view_type;

PyObject *wp_view_make(struct handle *of, void *memory, size_t bytes, bool writable,
                       _Atomic uint32_t *count)
{
    struct view *view = wp_new(view_type);
    if (!view)
        return NULL;
    view->of = of;
    view->memory = memory;
    view->bytes = bytes;
    view->writable = writable;
    view->count = count;
    Py_INCREF(of->owner);
    wp_handle_view_opened(of);
    if (count)
        atomic_fetch_add_explicit(count, 1, memory_order_relaxed);
    return (PyObject *)view;
}

PyObject *wp_memoryview_make(struct handle *of, void *memory, size_t bytes, bool writable,
                             _Atomic uint32_t *count)
{
    PyObject *view = wp_view_make(of, memory, bytes, writable, count);
    PyObject *result = view ? PyMemoryView_FromObject(view) : NULL;
    Py_XDECREF(view);
    return result;
}

static void view_dealloc(PyObject *self)
{
    struct view *view = (struct view *)self;
    PyObject *owner = view->of->owner;
    if (view->count)
        atomic_fetch_sub_explicit(view->count, 1, memory_order_relaxed);
    wp_handle_view_gone(view->of);
    Py_DECREF(owner);
    wp_free(self);
}

static int view_buffer(PyObject *self, Py_buffer *out, int flags)
{
    struct view *view = (struct view *)self;
    return PyBuffer_FillInfo(out, self, view->memory, (Py_ssize_t)view->bytes, !view->writable,
                             flags);
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "Memory of a block or region; take a memoryview of it."},
    {Py_tp_dealloc, view_dealloc},
    {Py_bf_getbuffer, view_buffer},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "weft.View",
    .basicsize = sizeof(struct view),
    .flags = WP_TYPE_FLAGS,
    .slots = view_slots,
};

int wp_view_init(PyObject *module)
{
    return wp_type_init(module, "View", &view_spec, &view_type);
}
