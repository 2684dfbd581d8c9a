/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Pins: blocks that are held, and read where they lie.
 *
 * Each block is let go of once the Pins were released and the last view of that block is gone, so
 * that a forgotten array holds one block and not a whole chain.
 */
#include <stdatomic.h>

#include "module.h"

struct pins {
    PyObject ob_base;
    struct handle handle;
    struct format *of; /* kept alive by the handle */
    struct weft_pins pins;
    struct weft_pin one; /* what pins.pins is of weft_pin() alone */
    const uint8_t *one_data;
    _Atomic uint32_t *views; /* [pins.blocks] */
    uint32_t blocks, tokens, loading;
    uint32_t layers_there; /* of every block, for certain */
};

static PyTypeObject *pins_type;

static struct pins *pins_of(PyObject *self)
{
    return (struct pins *)self;
}

static void pins_trim(struct handle *h)
{
    struct pins *p = (struct pins *)(void *)h->owner;
    for (uint32_t i = 0; i < p->blocks; i++)
        if (atomic_load_explicit(&p->views[i], memory_order_relaxed) == 0)
            weft_unpin(&p->pins.pins[i]);
}

static void pins_finish(struct handle *h)
{
    struct pins *p = (struct pins *)(void *)h->owner;
    if (p->pins.pins == &p->one)
        weft_unpin(&p->one);
    else
        weft_pins_release(&p->pins);
}

static struct pins *make(struct format *f, uint32_t blocks)
{
    struct pins *p = wp_new(pins_type);
    if (!p)
        return NULL;
    p->views = PyMem_Calloc((size_t)blocks + 1, sizeof *p->views);
    if (!p->views) {
        Py_DECREF((PyObject *)p);
        PyErr_NoMemory();
        return NULL;
    }
    p->of = f;
    p->blocks = blocks;
    return p;
}

static PyObject *opened(struct pins *p)
{
    p->tokens = p->pins.tokens;
    p->loading = p->pins.loading;
    wp_handle_open(&p->handle, (PyObject *)p, &p->of->handle, "hold (Pins)", pins_finish,
                   pins_trim);
    return (PyObject *)p;
}

PyObject *wp_pins_make(struct format *f, struct weft_pins *pins)
{
    struct pins *p = make(f, pins->blocks);
    if (!p) {
        weft_pins_release(pins);
        return NULL;
    }
    p->pins = *pins;
    return opened(p);
}

PyObject *wp_pins_make_of_one(struct format *f, struct weft_pin *pin)
{
    struct pins *p = make(f, 1);
    if (!p) {
        weft_unpin(pin);
        return NULL;
    }
    p->one = *pin;
    p->one_data = pin->data;
    p->pins = (struct weft_pins){.blocks = 1,
                                 .tokens = f->block_tokens,
                                 .loading = 1,
                                 .layer_bytes = f->layer_bytes,
                                 .data = &p->one_data,
                                 .format = f->format,
                                 .pins = &p->one};
    return opened(p);
}

static void pins_dealloc(PyObject *self)
{
    struct pins *p = pins_of(self);
    wp_handle_fini(&p->handle);
    PyMem_Free((void *)p->views);
    wp_free(self);
}

static PyObject *pins_release(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&pins_of(self)->handle);
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------------------------------- views */

static bool block_check(const struct pins *p, Py_ssize_t block)
{
    if (block >= 0 && block < (Py_ssize_t)p->blocks)
        return true;
    PyErr_Format(PyExc_IndexError, "block %zd of %u that are held", block, p->blocks);
    return false;
}

/* Wait for a layer of all blocks, or for all of one: `layer` NULL.  Within a call of the handle. */
static bool await_bytes(struct pins *p, uint32_t block, const uint32_t *layer)
{
    enum weft_status status;
    if (block < p->loading || (layer && *layer < p->layers_there))
        return true;
    Py_BEGIN_ALLOW_THREADS
    status = layer ? weft_wait_layer(&p->pins, *layer) : weft_wait_block(&p->pins, block);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        wp_raise(status);
    else if (layer && p->layers_there <= *layer)
        p->layers_there = *layer + 1;
    return status == WEFT_OK;
}

/* `bytes` of a block from `from` on, which the caller has checked.  Nobody gets to see bytes that
 * are still on their way from below: it waits for them. */
static PyObject *view_of(struct pins *p, uint32_t block, const uint32_t *layer, size_t from,
                         size_t bytes)
{
    if (!wp_handle_enter(&p->handle))
        return NULL;
    PyObject *view = NULL;
    if (await_bytes(p, block, layer))
        view = wp_memoryview_make(&p->handle, (void *)(uintptr_t)(p->pins.data[block] + from),
                                  bytes, false, &p->views[block]);
    wp_handle_leave(&p->handle);
    return view;
}

static Py_ssize_t pins_length(PyObject *self)
{
    return (Py_ssize_t)pins_of(self)->blocks;
}

static PyObject *pins_item(PyObject *self, Py_ssize_t block)
{
    struct pins *p = pins_of(self);
    return block_check(p, block) ? view_of(p, (uint32_t)block, NULL, 0, p->of->block_bytes) : NULL;
}

static PyObject *half_of_layer(PyObject *self, PyObject *args, PyObject *kwargs, size_t half)
{
    static char *names[] = {"block", "layer", NULL};
    struct pins *p = pins_of(self);
    Py_ssize_t block, layer;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nn", names, &block, &layer) ||
        !block_check(p, block))
        return NULL;
    size_t bytes = p->of->layer_bytes;
    if (bytes == 0)
        return wp_error(WEFT_E_INVALID, "this format's blocks are an engine's own payload, without "
                                        "layers; read pins[block]");
    if (layer < 0 || layer >= (Py_ssize_t)p->of->layers) {
        PyErr_Format(PyExc_IndexError, "layer %zd of a model with %u", layer, p->of->layers);
        return NULL;
    }
    uint32_t of = (uint32_t)layer;
    return view_of(p, (uint32_t)block, &of, (2 * (size_t)layer + half) * bytes, bytes);
}

static PyObject *pins_k(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return half_of_layer(self, args, kwargs, 0);
}

static PyObject *pins_v(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return half_of_layer(self, args, kwargs, 1);
}

/* ---------------------------------------------------------------------------------------- waits */

static PyObject *wait_for(PyObject *self, PyObject *number,
                          enum weft_status (*call)(const struct weft_pins *, uint32_t))
{
    struct pins *p = pins_of(self);
    uint32_t index;
    enum weft_status status;
    if (!wp_to_u32(number, &index) || !wp_handle_enter(&p->handle))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = call(&p->pins, index);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        wp_raise(status);
    wp_handle_leave(&p->handle);
    if (status != WEFT_OK)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pins_wait_layer(PyObject *self, PyObject *layer)
{
    return wait_for(self, layer, weft_wait_layer);
}

static PyObject *pins_wait_block(PyObject *self, PyObject *block)
{
    return wait_for(self, block, weft_wait_block);
}

/* A coroutine that waits in a thread; weft._waits has it. */
static PyObject *waiting(PyObject *self, PyObject *number, const char *name)
{
    PyObject *module = PyImport_ImportModule("weft._waits");
    PyObject *result = module ? PyObject_CallMethod(module, name, "OO", self, number) : NULL;
    Py_XDECREF(module);
    return result;
}

static PyObject *pins_layer(PyObject *self, PyObject *layer)
{
    return waiting(self, layer, "layer");
}

static PyObject *pins_block(PyObject *self, PyObject *block)
{
    return waiting(self, block, "block");
}

/* ---------------------------------------------------------------------------------------- reads */

static bool read_checked(struct pins *p, uint32_t block, const Py_buffer *to, size_t offset)
{
    size_t bytes = p->of->block_bytes;
    enum weft_status status;
    if ((size_t)to->len < bytes || offset > (size_t)to->len - bytes) {
        wp_error(WEFT_E_INVALID, "a buffer of %zd bytes from %zu on; a block has %zu", to->len,
                 offset, bytes);
        return false;
    }
    Py_BEGIN_ALLOW_THREADS
    status = weft_wait_block(&p->pins, block);
    if (status == WEFT_OK)
        status = weft_pin_read(&p->pins.pins[block], (uint8_t *)to->buf + offset, bytes);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        wp_raise(status);
    return status == WEFT_OK;
}

static PyObject *pins_read_into(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"block", "buffer", "offset", NULL};
    struct pins *p = pins_of(self);
    Py_ssize_t block;
    PyObject *into;
    Py_buffer to;
    uint64_t offset = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "nO|O&:read_into", names, &block, &into,
                                     wp_to_u64, &offset) ||
        !block_check(p, block) ||
        PyObject_GetBuffer(into, &to, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) < 0)
        return NULL;
    bool good = wp_handle_enter(&p->handle);
    if (good) {
        good = read_checked(p, (uint32_t)block, &to, (size_t)offset);
        wp_handle_leave(&p->handle);
    }
    PyBuffer_Release(&to);
    if (!good)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *pins_quality(PyObject *self, PyObject *number)
{
    struct pins *p = pins_of(self);
    Py_ssize_t block = PyNumber_AsSsize_t(number, PyExc_IndexError);
    if ((block == -1 && PyErr_Occurred()) || !block_check(p, block) || !wp_handle_enter(&p->handle))
        return NULL;
    PyObject *name = PyUnicode_FromString(
        weft_quality_name(weft_pin_quality(&p->pins.pins[block])));
    wp_handle_leave(&p->handle);
    return name;
}

/* ----------------------------------------------------------------------------------- the object */

static PyObject *get_number(PyObject *self, void *which)
{
    const struct pins *p = pins_of(self);
    const uint32_t numbers[] = {p->blocks, p->tokens, p->loading};
    return PyLong_FromUnsignedLong(numbers[(uintptr_t)which]);
}

static PyObject *get_released(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyBool_FromLong(wp_handle_is_closed(&pins_of(self)->handle));
}

static PyGetSetDef pins_fields[] = {
    {"blocks", get_number, NULL, "Blocks that are held, from the first.", (void *)0},
    {"tokens", get_number, NULL, "Tokens of these.", (void *)1},
    {"loading", get_number, NULL, "From this block on they may still be on their way.", (void *)2},
    {"released", get_released, NULL, "Were they released?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef pins_methods[] = {
    {"k", WP_KEYWORDS(pins_k), "K of a layer of a block, where it lies."},
    {"v", WP_KEYWORDS(pins_v), "V of a layer of a block, where it lies."},
    {"wait_layer", pins_wait_layer, METH_O, "Wait until a layer of every block is readable."},
    {"wait_block", pins_wait_block, METH_O, "Wait until all of one block is readable."},
    {"layer", pins_layer, METH_O, "await pins.layer(i): wait_layer(i) in a thread."},
    {"block", pins_block, METH_O, "await pins.block(i): wait_block(i) in a thread."},
    {"read_into", WP_KEYWORDS(pins_read_into), "Copy a block out and check its checksum."},
    {"quality", pins_quality, METH_O, "How exactly a block is what was put."},
    {"release", pins_release, METH_NOARGS, "Let go; what still has a view keeps its block."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", pins_release, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pins_slots[] = {
    {Py_tp_doc, "Blocks that are held; Format.get() and Session.get() make it."},
    {Py_tp_dealloc, pins_dealloc},
    {Py_tp_methods, pins_methods},
    {Py_tp_getset, pins_fields},
    {Py_sq_length, pins_length},
    {Py_sq_item, pins_item},
    {0, NULL},
};

static PyType_Spec pins_spec = {
    .name = "weft.Pins",
    .basicsize = sizeof(struct pins),
    .flags = WP_TYPE_FLAGS,
    .slots = pins_slots,
};

int wp_pins_init(PyObject *module)
{
    return wp_type_init(module, "Pins", &pins_spec, &pins_type);
}
