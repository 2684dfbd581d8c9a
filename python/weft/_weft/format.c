/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Format: a model's KV layout, and what is asked by keys.
 */

#include "module.h"

static PyTypeObject *format_type, *location_type;

static struct format *format_of(PyObject *self)
{
    return (struct format *)self;
}

static void format_finish(struct handle *h)
{
    struct format *f = (struct format *)(void *)h->owner;
    weft_format_close(f->format);
    f->format = NULL;
}

static PyObject *format_open(struct fabric *fabric, const struct weft_format_spec *spec)
{
    struct weft_format *opened = NULL;
    enum weft_status status;
    Py_BEGIN_ALLOW_THREADS
    status = weft_format_open(fabric->weft, spec, &opened);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        return wp_raise(status);
    struct format *f = wp_new(format_type);
    if (!f) {
        weft_format_close(opened);
        return NULL;
    }
    f->format = opened;
    f->weft = fabric->weft;
    f->layers = spec->layers;
    f->block_tokens = spec->block_tokens;
    f->block_bytes = weft_format_block_bytes(opened);
    f->layer_bytes = weft_format_layer_bytes(opened);
    wp_handle_open(&f->handle, (PyObject *)f, &fabric->handle, "format", format_finish, NULL);
    return (PyObject *)f;
}

PyObject *wp_format_make(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"model",        "layers",  "kv_heads", "head_dim",    "dtype",
                            "block_tokens", "tp_rank", "tp_size",  "rope_theta",  "rope_scaling",
                            "adapter",      "salt",    "quality",  "block_bytes", NULL};
    struct weft_format_spec spec = {.dtype = WEFT_BF16, .block_tokens = 16, .tp_size = 1};
    Py_buffer adapter = {0}, salt = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|$O&O&O&O&O&O&O&dO&s*s*O&O&:format", names,
                                     wp_to_text_or_none, &spec.model, wp_to_u32, &spec.layers,
                                     wp_to_u32, &spec.kv_heads, wp_to_u32, &spec.head_dim,
                                     wp_to_dtype, &spec.dtype, wp_to_u32, &spec.block_tokens,
                                     wp_to_u32, &spec.tp_rank, wp_to_u32, &spec.tp_size,
                                     &spec.rope_theta, wp_to_text_or_none, &spec.rope_scaling,
                                     &adapter, &salt, wp_to_quality, &spec.quality, wp_to_u64,
                                     &spec.block_bytes))
        return NULL;
    spec.adapter = adapter.len ? adapter.buf : NULL;
    spec.adapter_bytes = (size_t)adapter.len;
    spec.salt = salt.len ? salt.buf : NULL;
    spec.salt_bytes = (size_t)salt.len;
    PyObject *result = spec.model ? format_open(fabric, &spec)
                                  : wp_error(WEFT_E_INVALID, "a format needs a model's name and "
                                                             "revision, not None");
    if (adapter.obj)
        PyBuffer_Release(&adapter);
    if (salt.obj)
        PyBuffer_Release(&salt);
    return result;
}

static void format_dealloc(PyObject *self)
{
    wp_handle_fini(&format_of(self)->handle);
    wp_free(self);
}

static PyObject *format_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&format_of(self)->handle);
    Py_RETURN_NONE;
}

/* Do `call` within a call of the format. */
static PyObject *within(PyObject *self, PyObject *args, PyObject *kwargs,
                        PyObject *(*call)(struct format *, PyObject *, PyObject *))
{
    struct format *f = format_of(self);
    if (!wp_handle_enter(&f->handle))
        return NULL;
    PyObject *result = call(f, args, kwargs);
    wp_handle_leave(&f->handle);
    return result;
}

/* ----------------------------------------------------------------------------------------- keys */

static PyObject *keys_make(struct format *f, const struct weft_key *parent,
                           const struct wp_tokens *tokens, const struct wp_keys *extra)
{
    size_t blocks = tokens->count / f->block_tokens;
    struct weft_key *keys = NULL;
    enum weft_status status;
    if (extra->keys && extra->count != blocks)
        return wp_error(WEFT_E_INVALID,
                        "%zu digests in `extra` for %zu full blocks; give one a block, of zeros "
                        "where there is none",
                        extra->count, blocks);
    PyObject *made = wp_keys_make(blocks, &keys);
    if (!made)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_keys_from_tokens(f->format, parent, tokens->tokens, tokens->count, extra->keys,
                                   keys);
    Py_END_ALLOW_THREADS
    if (status == WEFT_OK)
        return made;
    Py_DECREF(made);
    return wp_raise(status);
}

static PyObject *keys(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tokens", "parent", "extra", NULL};
    PyObject *from, *before = NULL, *more = NULL, *result = NULL;
    struct wp_tokens tokens;
    struct wp_keys extra;
    struct weft_key parent;
    bool has_parent;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:keys", names, &from, &before, &more) ||
        !wp_key_take(before, &parent, &has_parent) || !wp_tokens_take(from, &tokens))
        return NULL;
    if (wp_keys_take(more, &extra)) {
        result = keys_make(f, has_parent ? &parent : NULL, &tokens, &extra);
        wp_keys_drop(&extra);
    }
    wp_tokens_drop(&tokens);
    return result;
}

static bool key_of(struct format *f, PyObject *from, struct weft_key *out)
{
    Py_buffer bytes;
    if (!wp_bytes_take(from, "an identity", &bytes))
        return false;
    enum weft_status status = weft_key_from_bytes(f->format, bytes.buf, (size_t)bytes.len, out);
    PyBuffer_Release(&bytes);
    if (status != WEFT_OK)
        wp_raise(status);
    return status == WEFT_OK;
}

static PyObject *key(struct format *f, PyObject *from, PyObject *nothing)
{
    struct weft_key key;
    (void)nothing;
    return key_of(f, from, &key) ? PyBytes_FromStringAndSize((const char *)key.bytes, sizeof key)
                                 : NULL;
}

static PyObject *keys_from_bytes(struct format *f, PyObject *from, PyObject *nothing)
{
    struct weft_key *keys = NULL;
    (void)nothing;
    PyObject *list = PySequence_Fast(from, "keys_from_bytes() takes a sequence of identities");
    Py_ssize_t count = list ? PySequence_Size(list) : -1;
    PyObject *made = count >= 0 ? wp_keys_make((size_t)count, &keys) : NULL;
    for (Py_ssize_t i = 0; made && i < count; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        if (!item || !key_of(f, item, &keys[i]))
            Py_CLEAR(made);
        Py_XDECREF(item);
    }
    Py_XDECREF(list);
    return made;
}

/* -------------------------------------------------------------------------------- looks by keys */

static PyObject *match(struct format *f, PyObject *from, PyObject *nothing)
{
    struct wp_keys chain;
    size_t present = 0;
    enum weft_status status = WEFT_OK;
    (void)nothing;
    if (!wp_keys_take(from, &chain))
        return NULL;
    if (chain.count) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_match_keys(f->format, chain.keys, chain.count, &present);
        Py_END_ALLOW_THREADS
    }
    wp_keys_drop(&chain);
    return status == WEFT_OK ? PyLong_FromSize_t(present) : wp_raise(status);
}

PyObject *wp_tiers_make(const uint8_t *tiers, size_t count)
{
    PyObject *result = PyTuple_New((Py_ssize_t)count);
    for (size_t i = 0; result && i < count; i++) {
        PyObject *name = PyUnicode_InternFromString(weft_tier_name((enum weft_tier)tiers[i]));
        if (!name || PyTuple_SetItem(result, (Py_ssize_t)i, name) < 0)
            Py_CLEAR(result);
    }
    return result;
}

static PyObject *location_make(size_t present, const uint8_t *tiers, uint32_t load_us)
{
    PyObject *blocks = PyLong_FromSize_t(present), *where = wp_tiers_make(tiers, present),
             *us = PyLong_FromUnsignedLong(load_us);
    PyObject *result = blocks && where && us ? PyStructSequence_New(location_type) : NULL;
    if (!result) {
        Py_XDECREF(blocks);
        Py_XDECREF(where);
        Py_XDECREF(us);
        return NULL;
    }
    PyStructSequence_SetItem(result, 0, blocks);
    PyStructSequence_SetItem(result, 1, where);
    PyStructSequence_SetItem(result, 2, us);
    return result;
}

static PyObject *locate(struct format *f, PyObject *from, PyObject *nothing)
{
    struct wp_keys chain;
    size_t present = 0;
    uint32_t load_us = 0;
    enum weft_status status = WEFT_OK;
    (void)nothing;
    if (!wp_keys_take(from, &chain))
        return NULL;
    uint8_t *tiers = PyMem_Malloc(chain.count + 1);
    if (tiers && chain.count) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_locate_keys(f->format, chain.keys, chain.count, tiers, &present, &load_us);
        Py_END_ALLOW_THREADS
    }
    wp_keys_drop(&chain);
    PyObject *result = !tiers              ? PyErr_NoMemory()
                       : status == WEFT_OK ? location_make(present, tiers, load_us)
                                           : wp_raise(status);
    PyMem_Free(tiers);
    return result;
}

static PyObject *quality_of(struct format *f, PyObject *from, PyObject *nothing)
{
    struct wp_keys chain;
    enum weft_quality worst = WEFT_LOSSLESS;
    enum weft_status status = WEFT_OK;
    (void)nothing;
    if (!wp_keys_take(from, &chain))
        return NULL;
    if (chain.count) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_quality_keys(f->format, chain.keys, chain.count, &worst);
        Py_END_ALLOW_THREADS
    }
    wp_keys_drop(&chain);
    return status == WEFT_OK ? PyUnicode_FromString(weft_quality_name(worst)) : wp_raise(status);
}

static PyObject *prefetch(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "within_ms", NULL};
    PyObject *from;
    struct wp_keys chain;
    uint32_t within_ms = 0, blocks = 0;
    enum weft_status status = WEFT_OK;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&:prefetch", names, &from, wp_to_u32,
                                     &within_ms) ||
        !wp_keys_take(from, &chain))
        return NULL;
    if (chain.count) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_prefetch_keys(f->format, chain.keys, chain.count, within_ms, &blocks);
        Py_END_ALLOW_THREADS
    }
    wp_keys_drop(&chain);
    return status == WEFT_OK ? PyLong_FromUnsignedLong(blocks) : wp_raise(status);
}

static PyObject *remove_block(struct format *f, PyObject *from, PyObject *nothing)
{
    struct weft_key key;
    bool given;
    size_t removed = 0;
    enum weft_status status;
    (void)nothing;
    if (!wp_key_take(from, &key, &given))
        return NULL;
    if (!given)
        return wp_error(WEFT_E_INVALID, "remove() takes a key, not None");
    Py_BEGIN_ALLOW_THREADS
    status = weft_remove(f->format, &key, &removed);
    Py_END_ALLOW_THREADS
    return status < 0 ? wp_raise(status) : PyLong_FromSize_t(removed);
}

static PyObject *archive(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "tip", "timeout_ms", NULL};
    const char *name;
    PyObject *from;
    struct weft_key tip;
    bool given;
    uint32_t timeout_ms = 5000;
    struct weft_archived archived;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|O&:archive", names, &name, &from, wp_to_u32,
                                     &timeout_ms) ||
        !wp_key_take(from, &tip, &given))
        return NULL;
    if (!given)
        return wp_error(WEFT_E_INVALID,
                        "archive() takes the key of a chain's last block, not None");
    memset(&archived, 0, sizeof archived);
    Py_BEGIN_ALLOW_THREADS
    status = weft_archive_keys(f->format, name, &tip, timeout_ms, &archived);
    Py_END_ALLOW_THREADS
    return status == WEFT_OK || status == WEFT_PENDING
               ? wp_archived_make(&archived, status == WEFT_OK)
               : wp_raise(status);
}

/* ---------------------------------------------------------------------------------------- holds */

static PyObject *get(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "order", NULL};
    PyObject *from;
    struct wp_keys chain;
    struct weft_pins pins;
    enum weft_order order = WEFT_LAYER_ORDER;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&:get", names, &from, wp_to_order, &order) ||
        !wp_keys_take(from, &chain))
        return NULL;
    memset(&pins, 0, sizeof pins);
    Py_BEGIN_ALLOW_THREADS
    status = weft_get_keys(f->format, chain.keys, chain.count, order, &pins);
    Py_END_ALLOW_THREADS
    wp_keys_drop(&chain);
    return status == WEFT_OK ? wp_pins_make(f, &pins) : wp_raise(status);
}

static PyObject *pin(struct format *f, PyObject *from, PyObject *nothing)
{
    struct weft_key key;
    struct weft_pin pin;
    bool given;
    enum weft_status status;
    (void)nothing;
    if (!wp_key_take(from, &key, &given))
        return NULL;
    if (!given)
        return wp_error(WEFT_E_INVALID, "pin() takes a key, not None");
    Py_BEGIN_ALLOW_THREADS /* no system call, but for a node that is to be reached again */
    status = weft_pin(f->format, &key, &pin);
    Py_END_ALLOW_THREADS
    if (status == WEFT_MISS)
        Py_RETURN_NONE;
    return status == WEFT_OK ? wp_pins_make_of_one(f, &pin) : wp_raise(status);
}

/* ----------------------------------------------------------------------------------- the object */

#define KEYWORDS(name, call)                                                \
    static PyObject *name(PyObject *self, PyObject *args, PyObject *kwargs) \
    {                                                                       \
        return within(self, args, kwargs, call);                            \
    }
#define ONE(name, call)                                       \
    static PyObject *name(PyObject *self, PyObject *argument) \
    {                                                         \
        return within(self, argument, NULL, call);            \
    }

KEYWORDS(format_keys, keys)
ONE(format_key, key)
ONE(format_keys_from_bytes, keys_from_bytes)
ONE(format_match, match)
ONE(format_locate, locate)
ONE(format_quality_of, quality_of)
KEYWORDS(format_prefetch, prefetch)
ONE(format_remove, remove_block)
KEYWORDS(format_archive, archive)
KEYWORDS(format_get, get)
ONE(format_pin, pin)
KEYWORDS(format_reserve, wp_slots_reserve)
KEYWORDS(format_put, wp_slots_put)
KEYWORDS(format_describe, wp_describe)
KEYWORDS(format_session, wp_session_make)

static PyMethodDef format_methods[] = {
    {"keys", WP_KEYWORDS(format_keys), "The keys of the full blocks of tokens, after a parent."},
    {"key", format_key, METH_O, "The key for an identity that an engine derived by itself."},
    {"keys_from_bytes", format_keys_from_bytes, METH_O, "key() of each."},
    {"match", format_match, METH_O, "How many of a chain's keys, from the first, are present."},
    {"locate", format_locate, METH_O, "The same, where each is, and how long loading would take."},
    {"quality_of", format_quality_of, METH_O, "The worst quality among those that are there."},
    {"prefetch", WP_KEYWORDS(format_prefetch),
     "Bring a chain up into DRAM before it is asked for."},
    {"remove", format_remove, METH_O, "Drop a block and everything that extends it."},
    {"archive", WP_KEYWORDS(format_archive), "Make the chain that ends with `tip` durable."},
    {"get", WP_KEYWORDS(format_get), "Hold the longest prefix of a chain that is there."},
    {"pin", format_pin, METH_O, "Hold one block that is in DRAM; None on a miss."},
    {"reserve", WP_KEYWORDS(format_reserve), "Room for blocks, to be written and committed."},
    {"put", WP_KEYWORDS(format_put), "Copy blocks in and publish them."},
    {"describe", WP_KEYWORDS(format_describe), "Say what keys stand for, for KV events."},
    {"session", WP_KEYWORDS(format_session), "A conversation: match, get and reserve by tokens."},
    {"close", format_close, METH_NOARGS, "Close it, and all that was made from it."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", format_close, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyObject *get_block_bytes(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromSize_t(format_of(self)->block_bytes);
}

static PyObject *get_layer_bytes(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromSize_t(format_of(self)->layer_bytes);
}

static PyObject *get_block_tokens(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromUnsignedLong(format_of(self)->block_tokens);
}

static PyObject *get_layers(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromUnsignedLong(format_of(self)->layers);
}

static PyObject *get_quality(PyObject *self, void *nothing)
{
    struct format *f = format_of(self);
    (void)nothing;
    if (!wp_handle_enter(&f->handle))
        return NULL;
    PyObject *name = PyUnicode_FromString(weft_quality_name(weft_format_quality(f->format)));
    wp_handle_leave(&f->handle);
    return name;
}

static PyObject *get_fabric(PyObject *self, void *nothing)
{
    (void)nothing;
    return Py_NewRef(format_of(self)->handle.parent->owner);
}

static PyGetSetDef format_fields[] = {
    {"block_bytes", get_block_bytes, NULL, "Payload of one block.", NULL},
    {"layer_bytes", get_layer_bytes, NULL, "K, or V, of one layer in one block; 0: opaque.", NULL},
    {"block_tokens", get_block_tokens, NULL, "Tokens of one block.", NULL},
    {"layers", get_layers, NULL, "Of the model.", NULL},
    {"quality", get_quality, NULL, "At least which its blocks come back in.", NULL},
    {"fabric", get_fabric, NULL, "The connection that it was made from.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot format_slots[] = {
    {Py_tp_doc, "A model's KV layout; Fabric.format() makes it."},
    {Py_tp_dealloc, format_dealloc},
    {Py_tp_methods, format_methods},
    {Py_tp_getset, format_fields},
    {0, NULL},
};

static PyType_Spec format_spec = {
    .name = "weft.Format",
    .basicsize = sizeof(struct format),
    .flags = WP_TYPE_FLAGS,
    .slots = format_slots,
};

static PyStructSequence_Field location_fields[] = {
    {"blocks", "present, from the first"},
    {"tiers", "where each of them is: 'dram', 'cxl', 'nvme', 's3'"},
    {"load_us", "until all would be in DRAM, as modelled from what was measured"},
    {NULL, NULL},
};

static PyStructSequence_Desc location_desc = {
    .name = "weft.Location",
    .doc = "Where a chain's blocks are.",
    .fields = location_fields,
    .n_in_sequence = 3,
};

int wp_format_init(PyObject *module)
{
    location_type = PyStructSequence_NewType(&location_desc);
    if (!location_type || PyModule_AddObjectRef(module, "Location", (PyObject *)location_type) < 0)
        return -1;
    return wp_type_init(module, "Format", &format_spec, &format_type);
}
