/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Fabric: one connection with a node.
 */
#include "module.h"

static PyTypeObject *fabric_type;

static void fabric_finish(struct handle *h)
{
    struct fabric *fabric = (struct fabric *)(void *)h->owner;
    weft_close(fabric->weft);
    fabric->weft = NULL;
}

PyObject *wp_connect(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"socket", "domain", "token", "timeout", NULL};
    struct weft_connect_options options = {.timeout_ms = 5000};
    struct weft *weft = NULL;
    enum weft_status status;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&O&O&:connect", names, wp_to_text_or_none,
                                     &options.socket, wp_to_text_or_none, &options.domain,
                                     wp_to_text_or_none, &options.token, wp_to_seconds_as_ms,
                                     &options.timeout_ms))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_connect(&options, &weft);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        return wp_raise(status);
    struct fabric *fabric = wp_new(fabric_type);
    if (!fabric) {
        weft_close(weft);
        return NULL;
    }
    fabric->weft = weft;
    wp_handle_open(&fabric->handle, (PyObject *)fabric, NULL, "fabric", fabric_finish, NULL);
    return (PyObject *)fabric;
}

static void fabric_dealloc(PyObject *self)
{
    wp_handle_fini(&((struct fabric *)self)->handle);
    wp_free(self);
}

static PyObject *fabric_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&((struct fabric *)self)->handle);
    Py_RETURN_NONE;
}

/* Do `call` of another file within a call of the fabric. */
static PyObject *within(PyObject *self, PyObject *args, PyObject *kwargs,
                        PyObject *(*call)(struct fabric *, PyObject *, PyObject *))
{
    struct fabric *fabric = (struct fabric *)self;
    if (!wp_handle_enter(&fabric->handle))
        return NULL;
    PyObject *result = call(fabric, args, kwargs);
    wp_handle_leave(&fabric->handle);
    return result;
}

static PyObject *fabric_format(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, wp_format_make);
}

static PyObject *fabric_allocate(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, wp_region_allocate);
}

static PyObject *fabric_open(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, wp_region_open);
}

static PyObject *fabric_connector(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, wp_connector_make);
}

static PyObject *fabric_release(PyObject *self, PyObject *region)
{
    if (!wp_region_release((struct fabric *)self, region))
        return NULL;
    Py_RETURN_NONE;
}

/* json.loads(text) */
static PyObject *from_json(const char *text)
{
    PyObject *json = PyImport_ImportModule("json");
    PyObject *result = json ? PyObject_CallMethod(json, "loads", "s", text) : NULL;
    Py_XDECREF(json);
    return result;
}

static PyObject *query(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"what", "cursor", NULL};
    const char *what;
    uint64_t cursor = 0;
    char *text = NULL;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|O&:query", names, &what, wp_to_u64, &cursor))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_query(fabric->weft, what, cursor, &text);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK)
        return wp_raise(status);
    PyObject *result = from_json(text);
    weft_text_free(text);
    return result;
}

static PyObject *fabric_query(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, query);
}

static PyObject *counters(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    struct weft_counters c;
    (void)args, (void)kwargs;
    Py_BEGIN_ALLOW_THREADS
    weft_counters_read(fabric->weft, &c);
    Py_END_ALLOW_THREADS
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}", "pins", (unsigned long long)c.pins,
                         "misses", (unsigned long long)c.misses, "unpins",
                         (unsigned long long)c.unpins, "matches", (unsigned long long)c.matches,
                         "bytes_pinned", (unsigned long long)c.bytes_pinned, "blocks_put",
                         (unsigned long long)c.blocks_put, "bytes_put",
                         (unsigned long long)c.bytes_put, "reconnects",
                         (unsigned long long)c.reconnects);
}

static PyObject *fabric_counters(PyObject *self, PyObject *nothing)
{
    return within(self, nothing, NULL, counters);
}

static PyObject *archive_remove(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", NULL};
    const char *name;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s:archive_remove", names, &name))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    status = weft_archive_remove(fabric->weft, name);
    Py_END_ALLOW_THREADS
    return status < 0 ? wp_raise(status) : PyBool_FromLong(status == WEFT_OK);
}

static PyObject *fabric_archive_remove(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, archive_remove);
}

static PyObject *hand_over(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tip", "node", NULL};
    PyObject *from;
    const char *node;
    struct weft_key tip;
    bool given;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Os:hand_over", names, &from, &node) ||
        !wp_key_take(from, &tip, &given))
        return NULL;
    if (!given)
        return wp_error(WEFT_E_INVALID, "a chain ends in a key");
    Py_BEGIN_ALLOW_THREADS
    status = weft_hand_over(fabric->weft, &tip, node);
    Py_END_ALLOW_THREADS
    return status == WEFT_OK ? Py_NewRef(Py_None) : wp_raise(status);
}

static PyObject *fabric_hand_over(PyObject *self, PyObject *args, PyObject *kwargs)
{
    return within(self, args, kwargs, hand_over);
}

/* fabric.load(path, ...): weft._weights.load() does it. */
static PyObject *fabric_load(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyImport_ImportModule("weft._weights");
    PyObject *load = module ? PyObject_GetAttrString(module, "load") : NULL;
    Py_ssize_t given = PyTuple_Size(args);
    PyObject *all = load ? PyTuple_New(given + 1) : NULL;
    PyObject *result = NULL;
    if (all) {
        Py_INCREF(self);
        int failed = PyTuple_SetItem(all, 0, self);
        for (Py_ssize_t i = 0; !failed && i < given; i++) {
            PyObject *each = PyTuple_GetItem(args, i);
            Py_XINCREF(each);
            failed = PyTuple_SetItem(all, i + 1, each);
        }
        if (!failed)
            result = PyObject_Call(load, all, kwargs);
    }
    Py_XDECREF(all);
    Py_XDECREF(load);
    Py_XDECREF(module);
    return result;
}

static PyObject *fabric_closed(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyBool_FromLong(wp_handle_is_closed(&((struct fabric *)self)->handle));
}

static PyMethodDef fabric_methods[] = {
    {"format", WP_KEYWORDS(fabric_format),
     "Register a model's KV layout.  Every field but quality is part of every key."},
    {"allocate", WP_KEYWORDS(fabric_allocate),
     "Raw memory: fabric.allocate(size='10GB', latency='low').  It is zero."},
    {"open", WP_KEYWORDS(fabric_open), "Map a region that somebody allocated under this name."},
    {"connector", WP_KEYWORDS(fabric_connector),
     "Values of any length under an engine's names, many at once."},
    {"release", fabric_release, METH_O,
     "Give a region back; what still has a view of it keeps it."},
    {"load", WP_KEYWORDS(fabric_load),
     "Have a safetensors or GGUF file in memory once a host; see weft.load()."},
    {"query", WP_KEYWORDS(fabric_query),
     "Ask the node: 'status', 'regions', 'sessions' and others."},
    {"counters", fabric_counters, METH_NOARGS, "What this connection's process did so far."},
    {"archive_remove", WP_KEYWORDS(fabric_archive_remove),
     "Make an archive's blocks ordinary ones again.  False: it goes on without you."},
    {"hand_over", WP_KEYWORDS(fabric_hand_over),
     "Have another node of the cluster fetch the chain that ends in the key `tip`."},
    {"close", fabric_close, METH_NOARGS, "Close it, and all that was made from it."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", fabric_close, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef fabric_fields[] = {
    {"closed", fabric_closed, NULL, "Was it closed?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot fabric_slots[] = {
    {Py_tp_doc, "A connection with a node; weft.connect() makes it."},
    {Py_tp_dealloc, fabric_dealloc},
    {Py_tp_methods, fabric_methods},
    {Py_tp_getset, fabric_fields},
    {0, NULL},
};

static PyType_Spec fabric_spec = {
    .name = "weft.Fabric",
    .basicsize = sizeof(struct fabric),
    .flags = WP_TYPE_FLAGS,
    .slots = fabric_slots,
};

int wp_fabric_init(PyObject *module)
{
    return wp_type_init(module, "Fabric", &fabric_spec, &fabric_type);
}
