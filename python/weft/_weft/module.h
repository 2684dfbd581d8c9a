/* SPDX-License-Identifier: Apache-2.0
 *
 * Inside the extension `weft._weft`.
 *
 * It stands on weft.h alone and on Python's stable ABI (3.11), so that one build serves every later
 * Python.  One file a theme; each makes its types in its `wp_<theme>_init`.  What may wait or copy
 * much is called without the GIL; what is remembered in an object is changed with it (handle.h).
 *
 * Types are made once a process, so the module does not go into subinterpreters.
 */
#ifndef WEFT_PYTHON_MODULE_H
#define WEFT_PYTHON_MODULE_H

#include "handle.h"

#include "weft/weft.h"

/* A method whose C function takes keywords. */
#define WP_KEYWORDS(function) \
    ((PyCFunction)(void (*)(void))(function)), METH_VARARGS | METH_KEYWORDS

/* A zeroed object of `type`; wp_free() ends it. */
static inline void *wp_new(PyTypeObject *type)
{
    return PyType_GenericAlloc(type, 0);
}

static inline void wp_free(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

/* Make a type of `spec`, which nobody makes instances of but us, and name it in `module`. */
static inline int wp_type_init(PyObject *module, const char *name, PyType_Spec *spec,
                               PyTypeObject **out)
{
    *out = (PyTypeObject *)PyType_FromSpec(spec);
    return *out ? PyModule_AddObjectRef(module, name, (PyObject *)*out) : -1;
}

#define WP_TYPE_FLAGS \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE)

/* `with` closes: __enter__ answers the object itself. */
static inline PyObject *wp_itself(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    Py_INCREF(self);
    return self;
}

/* ------------------------------------------------------------------------------------- errors.c */

int wp_errors_init(PyObject *module);
/* Raise what the status of a call of libweft stands for, with its sentence.  Returns NULL.  To be
 * called in the thread that made the call, before another. */
PyObject *wp_raise(enum weft_status status);
/* The same with a sentence of ours. */
PyObject *wp_error(enum weft_status status, const char *sentence, ...)
    __attribute__((format(printf, 2, 3)));

/* --------------------------------------------------------------------------------------- args.c */

/* Converters for "O&".  Numbers are refused, not cut, when they do not fit. */
int wp_to_u32(PyObject *from, void *out_u32);
int wp_to_u64(PyObject *from, void *out_u64);
int wp_to_seconds_as_ms(PyObject *from, void *out_u32);  /* None: 0 */
int wp_to_text_or_none(PyObject *from, void *out_chars); /* const char *; borrowed from `from` */
int wp_to_dtype(PyObject *from, void *out_dtype);
int wp_to_quality(PyObject *from, void *out_quality);
int wp_to_order(PyObject *from, void *out_order);

struct wp_keys { /* borrowed bytes: a chain of keys */
    const struct weft_key *keys;
    size_t count;
    PyObject *held; /* NULL: none */
    Py_buffer buffer;
};

/* Keys, a buffer of whole keys, or a sequence of keys.  NULL stays { NULL, 0 }. */
bool wp_keys_take(PyObject *from, struct wp_keys *out);
void wp_keys_drop(struct wp_keys *keys);
/* One key; NULL and None are none. */
bool wp_key_take(PyObject *from, struct weft_key *out, bool *out_given);

struct wp_tokens {
    const uint32_t *tokens;
    size_t count;
    uint32_t *own; /* NULL: borrowed from the buffer */
    Py_buffer buffer;
};

/* A buffer of 32 or 64-bit integers, or a sequence of numbers. */
bool wp_tokens_take(PyObject *from, struct wp_tokens *out);
void wp_tokens_drop(struct wp_tokens *tokens);

/* A contiguous buffer to read from. */
bool wp_bytes_take(PyObject *from, const char *what, Py_buffer *out);

/* --------------------------------------------------------------------------------------- view.c */

int wp_view_init(PyObject *module);
/* An exporter of `bytes` at `memory`, which keeps `of` from being finished as long as it lives, and
 * counts itself in *count (NULL: nowhere). */
PyObject *wp_view_make(struct handle *of, void *memory, size_t bytes, bool writable,
                       _Atomic uint32_t *count);
/* A memoryview of one. */
PyObject *wp_memoryview_make(struct handle *of, void *memory, size_t bytes, bool writable,
                             _Atomic uint32_t *count);

/* ----------------------------------------------------------------------- the objects themselves */

int wp_keys_init(PyObject *module);
bool wp_keys_check(PyObject *object);
/* Room for `count` keys, to be written by who made it before anybody else sees it. */
PyObject *wp_keys_make(size_t count, struct weft_key **out_keys);
const struct weft_key *wp_keys_of(PyObject *keys, size_t *out_count);

int wp_fabric_init(PyObject *module);
PyObject *wp_connect(PyObject *module, PyObject *args, PyObject *kwargs);

struct fabric {
    PyObject ob_base;
    struct handle handle;
    struct weft *weft;
};

int wp_region_init(PyObject *module);
PyObject *wp_region_allocate(struct fabric *fabric, PyObject *args, PyObject *kwargs);
PyObject *wp_region_open(struct fabric *fabric, PyObject *args, PyObject *kwargs);
/* Release it, if it is a region of this fabric. */
bool wp_region_release(struct fabric *fabric, PyObject *region);

int wp_format_init(PyObject *module);
PyObject *wp_format_make(struct fabric *fabric, PyObject *args, PyObject *kwargs);

struct format {
    PyObject ob_base;
    struct handle handle;
    struct weft_format *format;
    struct weft *weft;
    uint32_t layers, block_tokens;
    size_t block_bytes, layer_bytes;
};

int wp_pins_init(PyObject *module);
/* Take over what was got; `pins` is released when that fails. */
PyObject *wp_pins_make(struct format *format, struct weft_pins *pins);
PyObject *wp_pins_make_of_one(struct format *format, struct weft_pin *pin);

int wp_slots_init(PyObject *module);
PyObject *wp_slots_reserve(struct format *format, PyObject *args, PyObject *kwargs);
PyObject *wp_slots_put(struct format *format, PyObject *args, PyObject *kwargs);

PyObject *wp_describe(struct format *format, PyObject *args, PyObject *kwargs);

int wp_connector_init(PyObject *module);
PyObject *wp_connector_make(struct fabric *fabric, PyObject *args, PyObject *kwargs);

int wp_session_init(PyObject *module);
PyObject *wp_session_make(struct format *format, PyObject *args, PyObject *kwargs);
PyObject *wp_archived_make(const struct weft_archived *archived, bool durable);
PyObject *wp_tiers_make(const uint8_t *tiers, size_t count);

struct session {
    PyObject ob_base;
    struct handle handle;
    struct format *of; /* kept alive by the handle */
    struct weft_session *session;
    void *lock;      /* PyThread_type_lock: libweft wants one thread at a time */
    uint64_t serial; /* of the last call that changed which chain it knows */
};

/* A call of a session, alone and without the GIL, between these two. */
#define WP_SESSION_BEGIN(s) \
    Py_BEGIN_ALLOW_THREADS  \
    PyThread_acquire_lock((s)->lock, WAIT_LOCK);
#define WP_SESSION_END(s)             \
    PyThread_release_lock((s)->lock); \
    Py_END_ALLOW_THREADS

/* A fill of `session`, which is taken over; aborted when that fails. */
PyObject *wp_slots_make_of_fill(struct session *session, struct weft_fill *fill);

PyObject *wp_vllm_hashes(PyObject *module, PyObject *args);
PyObject *wp_vllm_root(PyObject *module, PyObject *seed);

#endif
