/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Keys: keys of 32 bytes, packed one after the other, never changed.  A slice of them shares
 * the bytes of what it was cut from.
 */

#include "module.h"

struct keys {
    PyObject ob_base;
    PyObject *bytes; /* holds the memory */
    const struct weft_key *keys;
    size_t count;
};

static PyTypeObject *keys_type;

bool wp_keys_check(PyObject *object)
{
    return Py_IS_TYPE(object, keys_type);
}

const struct weft_key *wp_keys_of(PyObject *keys, size_t *out_count)
{
    const struct keys *k = (const struct keys *)keys;
    *out_count = k->count;
    return k->keys;
}

static PyObject *part_of(PyObject *bytes, const struct weft_key *keys, size_t count)
{
    struct keys *made = wp_new(keys_type);
    if (!made)
        return NULL;
    Py_INCREF(bytes);
    made->bytes = bytes;
    made->keys = keys;
    made->count = count;
    return (PyObject *)made;
}

PyObject *wp_keys_make(size_t count, struct weft_key **out_keys)
{
    PyObject *bytes = count <= PY_SSIZE_T_MAX / sizeof **out_keys
                          ? PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof **out_keys))
                          : PyErr_NoMemory();
    if (!bytes)
        return NULL;
    *out_keys = (struct weft_key *)(void *)PyBytes_AsString(bytes);
    PyObject *made = part_of(bytes, *out_keys, count);
    Py_DECREF(bytes);
    return made;
}

/* -------------------------------------------------------------------------------- as a sequence */

static Py_ssize_t keys_length(PyObject *self)
{
    return (Py_ssize_t)((struct keys *)self)->count;
}

static PyObject *keys_item(PyObject *self, Py_ssize_t at)
{
    const struct keys *k = (const struct keys *)self;
    if (at < 0 || (size_t)at >= k->count) {
        PyErr_Format(PyExc_IndexError, "key %zd of %zu", at, k->count);
        return NULL;
    }
    return PyBytes_FromStringAndSize((const char *)k->keys[at].bytes, sizeof k->keys[at]);
}

static PyObject *keys_slice(PyObject *self, PyObject *slice)
{
    const struct keys *k = (const struct keys *)self;
    Py_ssize_t from, to, step;
    if (PySlice_Unpack(slice, &from, &to, &step) < 0)
        return NULL;
    Py_ssize_t count = PySlice_AdjustIndices((Py_ssize_t)k->count, &from, &to, step);
    if (step == 1 || count == 0)
        return part_of(k->bytes, k->keys + (count ? from : 0), (size_t)count);
    struct weft_key *keys = NULL;
    PyObject *made = wp_keys_make((size_t)count, &keys);
    for (Py_ssize_t i = 0; made && i < count; i++)
        keys[i] = k->keys[from + i * step];
    return made;
}

static PyObject *keys_subscript(PyObject *self, PyObject *at)
{
    if (PySlice_Check(at))
        return keys_slice(self, at);
    Py_ssize_t index = PyNumber_AsSsize_t(at, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    return keys_item(self, index < 0 ? index + keys_length(self) : index);
}

static PyObject *keys_concat(PyObject *self, PyObject *other)
{
    struct wp_keys more;
    struct weft_key *keys = NULL;
    const struct keys *k = (const struct keys *)self;
    if (!wp_keys_take(other, &more))
        return NULL;
    PyObject *made = wp_keys_make(k->count + more.count, &keys);
    if (made && k->count)
        memcpy(keys, k->keys, k->count * sizeof *keys);
    if (made && more.count)
        memcpy(keys + k->count, more.keys, more.count * sizeof *keys);
    wp_keys_drop(&more);
    return made;
}

/* ----------------------------------------------------------------------------------- the object */

static PyObject *keys_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", NULL};
    PyObject *from = NULL;
    struct wp_keys given;
    struct weft_key *keys = NULL;
    (void)type;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Keys", names, &from) ||
        !wp_keys_take(from, &given))
        return NULL;
    PyObject *made = wp_keys_make(given.count, &keys);
    if (made && given.count)
        memcpy(keys, given.keys, given.count * sizeof *keys);
    wp_keys_drop(&given);
    return made;
}

static void keys_dealloc(PyObject *self)
{
    Py_XDECREF(((struct keys *)self)->bytes);
    wp_free(self);
}

static PyObject *keys_compare(PyObject *self, PyObject *other, int how)
{
    if ((how != Py_EQ && how != Py_NE) || !wp_keys_check(other))
        Py_RETURN_NOTIMPLEMENTED;
    const struct keys *a = (const struct keys *)self, *b = (const struct keys *)other;
    bool same = a->count == b->count &&
                (a->count == 0 || memcmp(a->keys, b->keys, a->count * sizeof *a->keys) == 0);
    return PyBool_FromLong(same == (how == Py_EQ));
}

static PyObject *as_bytes(const struct keys *k)
{
    return PyBytes_FromStringAndSize((const char *)k->keys,
                                     (Py_ssize_t)(k->count * sizeof *k->keys));
}

static Py_hash_t keys_hash(PyObject *self)
{
    PyObject *bytes = as_bytes((const struct keys *)self);
    Py_hash_t hash = bytes ? PyObject_Hash(bytes) : -1;
    Py_XDECREF(bytes);
    return hash;
}

static PyObject *keys_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<weft.Keys of %zu>", ((struct keys *)self)->count);
}

static PyObject *keys_reduce(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    PyObject *bytes = as_bytes((const struct keys *)self);
    return bytes ? Py_BuildValue("O(N)", keys_type, bytes) : NULL;
}

static int keys_buffer(PyObject *self, Py_buffer *out, int flags)
{
    const struct keys *k = (const struct keys *)self;
    return PyBuffer_FillInfo(out, self, (void *)(uintptr_t)k->keys,
                             (Py_ssize_t)(k->count * sizeof *k->keys), 1, flags);
}

static PyMethodDef keys_methods[] = {
    {"__reduce__", keys_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot keys_slots[] = {
    {Py_tp_doc, "Keys(keys=())\n--\n\nKeys of 32 bytes, packed in one buffer; slices share it."},
    {Py_tp_new, keys_new},
    {Py_tp_dealloc, keys_dealloc},
    {Py_tp_repr, keys_repr},
    {Py_tp_hash, keys_hash},
    {Py_tp_richcompare, keys_compare},
    {Py_tp_methods, keys_methods},
    {Py_sq_length, keys_length},
    {Py_sq_item, keys_item},
    {Py_sq_concat, keys_concat},
    {Py_mp_length, keys_length},
    {Py_mp_subscript, keys_subscript},
    {Py_bf_getbuffer, keys_buffer},
    {0, NULL},
};

static PyType_Spec keys_spec = {
    .name = "weft.Keys",
    .basicsize = sizeof(struct keys),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = keys_slots,
};

int wp_keys_init(PyObject *module)
{
    return wp_type_init(module, "Keys", &keys_spec, &keys_type);
}
