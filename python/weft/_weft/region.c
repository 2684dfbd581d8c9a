/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Region: raw pooled memory.  A buffer of it is a View's, so that what was taken of it stays
 * mapped when the region is released.
 */
#include "module.h"

struct region {
    PyObject ob_base;
    struct handle handle;
    struct weft_region *region;
    void *memory;
    size_t bytes;
    bool writable;
    PyObject *name; /* str or None */
};

static PyTypeObject *region_type;

static struct region *region_of(PyObject *self)
{
    return (struct region *)self;
}

static void region_finish(struct handle *h)
{
    struct region *r = (struct region *)(void *)h->owner;
    weft_release(r->region);
    r->region = NULL;
}

/* Takes over `region`. */
static PyObject *make(struct fabric *fabric, struct weft_region *region, void *memory,
                      bool writable, const char *name)
{
    struct region *r = wp_new(region_type);
    if (r)
        r->name = name ? PyUnicode_FromString(name) : Py_NewRef(Py_None);
    if (!r || !r->name) {
        weft_release(region);
        Py_XDECREF((PyObject *)r);
        return NULL;
    }
    r->region = region;
    r->memory = memory;
    r->bytes = weft_region_bytes(region);
    r->writable = writable;
    wp_handle_open(&r->handle, (PyObject *)r, &fabric->handle, "region", region_finish, NULL);
    return (PyObject *)r;
}

static int choice(const char *given, const char *const *names, const char *what)
{
    for (int i = 0; i < 3; i++)
        if (strcmp(given, names[i]) == 0)
            return i;
    wp_error(WEFT_E_INVALID, "there is no %s '%.32s'; use %s, %s or %s", what, given, names[0],
             names[1], names[2]);
    return -1;
}

PyObject *wp_region_allocate(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "latency", "share", "name", NULL};
    static const char *const latencies[] = {"normal", "low", "high"};
    static const char *const shares[] = {"private", "read", "coherent"};
    PyObject *given;
    const char *latency = "normal", *share = "private", *name = NULL;
    struct weft_region *region = NULL;
    void *memory = NULL;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|ssO&:allocate", names, &given, &latency,
                                     &share, wp_to_text_or_none, &name))
        return NULL;
    int how = choice(latency, latencies, "latency");
    int whose = how >= 0 ? choice(share, shares, "share") : -1;
    PyObject *text = whose >= 0 ? PyObject_Str(given) : NULL;
    const char *size = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    if (!size) {
        Py_XDECREF(text);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = weft_allocate(fabric->weft, size, (enum weft_latency)how, (enum weft_share)whose, name,
                           &region, &memory);
    Py_END_ALLOW_THREADS
    Py_DECREF(text);
    return status == WEFT_OK ? make(fabric, region, memory, true, name) : wp_raise(status);
}

PyObject *wp_region_open(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    const char *name;
    struct weft_region *region = NULL;
    void *memory = NULL;
    int writable = 0;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:open", names, &name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_region_open(fabric->weft, name, &region, &memory, &writable);
    Py_END_ALLOW_THREADS
    return status == WEFT_OK ? make(fabric, region, memory, writable != 0, name) : wp_raise(status);
}

static PyObject *region_release(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&region_of(self)->handle);
    Py_RETURN_NONE;
}

bool wp_region_release(struct fabric *fabric, PyObject *region)
{
    if (!Py_IS_TYPE(region, region_type)) {
        PyErr_SetString(PyExc_TypeError, "release() takes a region");
        return false;
    }
    if (region_of(region)->handle.parent != &fabric->handle) {
        wp_error(WEFT_E_INVALID, "this region is another fabric's; release it there");
        return false;
    }
    wp_handle_close(&region_of(region)->handle);
    return true;
}

static void region_dealloc(PyObject *self)
{
    struct region *r = region_of(self);
    wp_handle_fini(&r->handle);
    Py_XDECREF(r->name);
    wp_free(self);
}

static int region_buffer(PyObject *self, Py_buffer *out, int flags)
{
    struct region *r = region_of(self);
    out->obj = NULL;
    if (!wp_handle_enter(&r->handle))
        return -1;
    PyObject *view = wp_view_make(&r->handle, r->memory, r->bytes, r->writable, NULL);
    wp_handle_leave(&r->handle);
    int failed = view ? PyObject_GetBuffer(view, out, flags) : -1;
    Py_XDECREF(view); /* out->obj has it */
    return failed;
}

static PyObject *region_view(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"offset", "bytes", "writable", NULL};
    struct region *r = region_of(self);
    uint64_t offset = 0, bytes = UINT64_MAX;
    int writable = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&p:view", names, wp_to_u64, &offset,
                                     wp_to_u64, &bytes, &writable))
        return NULL;
    if (bytes == UINT64_MAX && offset <= r->bytes)
        bytes = r->bytes - offset;
    if (offset > r->bytes || bytes > r->bytes - offset)
        return wp_error(WEFT_E_INVALID, "%llu bytes from %llu on, of a region that has %zu",
                        (unsigned long long)bytes, (unsigned long long)offset, r->bytes);
    if (!wp_handle_enter(&r->handle))
        return NULL;
    PyObject *view = wp_memoryview_make(&r->handle, (uint8_t *)r->memory + offset, (size_t)bytes,
                                        writable && r->writable, NULL);
    wp_handle_leave(&r->handle);
    return view;
}

static PyObject *get_size(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyLong_FromSize_t(region_of(self)->bytes);
}

static PyObject *get_writable(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyBool_FromLong(region_of(self)->writable);
}

static PyObject *get_name(PyObject *self, void *nothing)
{
    (void)nothing;
    return Py_NewRef(region_of(self)->name);
}

static PyObject *get_released(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyBool_FromLong(wp_handle_is_closed(&region_of(self)->handle));
}

static PyGetSetDef region_fields[] = {
    {"size", get_size, NULL, "In bytes.", NULL},
    {"name", get_name, NULL, "By which others open it; None: private.", NULL},
    {"writable", get_writable, NULL, "May this mapping be written?", NULL},
    {"released", get_released, NULL, "Was it released?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef region_methods[] = {
    {"view", WP_KEYWORDS(region_view), "A memoryview of a part of it."},
    {"release", region_release, METH_NOARGS, "Give it back; what still has a view of it keeps it."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", region_release, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot region_slots[] = {
    {Py_tp_doc, "Raw pooled memory; Fabric.allocate() and Fabric.open() make it."},
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_methods, region_methods},
    {Py_tp_getset, region_fields},
    {Py_bf_getbuffer, region_buffer},
    {0, NULL},
};

static PyType_Spec region_spec = {
    .name = "weft.Region",
    .basicsize = sizeof(struct region),
    .flags = WP_TYPE_FLAGS,
    .slots = region_slots,
};

int wp_region_init(PyObject *module)
{
    return wp_type_init(module, "Region", &region_spec, &region_type);
}
