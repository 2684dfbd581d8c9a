/* SPDX-License-Identifier: Apache-2.0
 *
 * weft.Session: one conversation, by tokens.
 *
 * libweft wants one thread at a time in a session, so each has a lock, which is taken without the
 * GIL.  It also remembers the keys of one chain at a time, and a get takes from these: so a match
 * is good for a get only until the session looks at tokens again, which `serial` watches.
 */

#include "module.h"

static PyTypeObject *session_type, *match_type, *archived_type;

static uint64_t serials; /* the last one given, of all sessions */

static struct session *session_of(PyObject *self)
{
    return (struct session *)self;
}

static void session_finish(struct handle *h)
{
    struct session *s = (struct session *)(void *)h->owner;
    weft_session_close(s->session);
    s->session = NULL;
}

/* Takes over `opened`. */
static PyObject *made(struct format *of, struct weft_session *opened)
{
    struct session *s = wp_new(session_type);
    if (s)
        s->lock = PyThread_allocate_lock();
    if (!s || !s->lock) {
        weft_session_close(opened);
        Py_XDECREF((PyObject *)s);
        return PyErr_NoMemory();
    }
    s->of = of;
    s->session = opened;
    s->serial = ++serials;
    wp_handle_open(&s->handle, (PyObject *)s, &of->handle, "session", session_finish, NULL);
    return (PyObject *)s;
}

PyObject *wp_session_make(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "priority", "salt", NULL};
    struct weft_session_spec spec = {.priority = 5};
    struct weft_session *opened = NULL;
    Py_buffer salt = {0};
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&s*:session", names, wp_to_text_or_none,
                                     &spec.name, wp_to_u32, &spec.priority, &salt))
        return NULL;
    spec.salt = salt.len ? salt.buf : NULL;
    spec.salt_bytes = (size_t)salt.len;
    Py_BEGIN_ALLOW_THREADS
    status = weft_session_open(f->format, &spec, &opened);
    Py_END_ALLOW_THREADS
    if (salt.obj)
        PyBuffer_Release(&salt);
    return status == WEFT_OK ? made(f, opened) : wp_raise(status);
}

static void session_dealloc(PyObject *self)
{
    struct session *s = session_of(self);
    wp_handle_fini(&s->handle);
    if (s->lock)
        PyThread_free_lock(s->lock);
    wp_free(self);
}

static PyObject *session_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&session_of(self)->handle);
    Py_RETURN_NONE;
}

/* -------------------------------------------------------------------------------------- answers */

static PyObject *number(unsigned long long value)
{
    return PyLong_FromUnsignedLongLong(value);
}

/* A structure of `count` fields, each a new reference; NULL when one of them is. */
static PyObject *structure(PyTypeObject *type, PyObject **fields, size_t count)
{
    bool whole = true;
    for (size_t i = 0; i < count; i++)
        whole &= fields[i] != NULL;
    PyObject *result = whole ? PyStructSequence_New(type) : NULL;
    for (size_t i = 0; i < count; i++)
        if (result)
            PyStructSequence_SetItem(result, (Py_ssize_t)i, fields[i]);
        else
            Py_XDECREF(fields[i]);
    return result;
}

PyObject *wp_archived_make(const struct weft_archived *archived, bool durable)
{
    PyObject *fields[] = {
        number(archived->blocks),
        number(archived->written),
        number(archived->bytes),
        PyUnicode_FromString(archived->name),
        PyUnicode_FromString(archived->tier),
        PyBool_FromLong(durable),
    };
    return structure(archived_type, fields, sizeof fields / sizeof fields[0]);
}

/* ----------------------------------------------------------------------------------- match, get */

static PyObject *match(struct session *s, PyObject *from, PyObject *nothing)
{
    struct wp_tokens tokens;
    struct weft_match m = {0};
    uint8_t *tiers = NULL;
    uint64_t serial = ++serials;
    enum weft_status status;
    (void)nothing;
    if (!wp_tokens_take(from, &tokens))
        return NULL;
    WP_SESSION_BEGIN(s)
    s->serial = serial;
    status = weft_match(s->session, tokens.tokens, tokens.count, &m);
    if (status == WEFT_OK) {
        tiers = malloc((size_t)m.blocks + 1);
        if (tiers && m.blocks)
            memcpy(tiers, m.tier, m.blocks);
    }
    WP_SESSION_END(s)
    wp_tokens_drop(&tokens);
    if (status != WEFT_OK)
        return wp_raise(status);
    if (!tiers)
        return PyErr_NoMemory();
    PyObject *fields[] = {
        number(m.blocks),
        number(m.tokens),
        number(m.load_us),
        wp_tiers_make(tiers, m.blocks),
        PyUnicode_FromString(weft_quality_name(m.quality)),
        number(serial),
        number(m.epoch),
    };
    free(tiers);
    return structure(match_type, fields, sizeof fields / sizeof fields[0]);
}

static bool match_read(PyObject *from, struct weft_match *m, uint64_t *serial)
{
    if (!Py_IS_TYPE(from, match_type)) {
        PyErr_SetString(PyExc_TypeError, "get() takes what match() answered");
        return false;
    }
    PyObject *blocks = PyStructSequence_GetItem(from, 0), *of = PyStructSequence_GetItem(from, 5),
             *epoch = PyStructSequence_GetItem(from, 6);
    return wp_to_u32(blocks, &m->blocks) && wp_to_u64(of, serial) && wp_to_u64(epoch, &m->epoch);
}

static PyObject *get(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"match", "order", NULL};
    PyObject *from;
    struct weft_match m = {0};
    struct weft_pins pins = {0};
    uint64_t serial = 0;
    bool latest;
    enum weft_order order = WEFT_LAYER_ORDER;
    enum weft_status status = WEFT_OK;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&:get", names, &from, wp_to_order, &order) ||
        !match_read(from, &m, &serial))
        return NULL;
    WP_SESSION_BEGIN(s)
    latest = s->serial == serial;
    if (latest)
        status = weft_get(s->session, &m, order, &pins);
    WP_SESSION_END(s)
    if (!latest)
        return wp_error(WEFT_E_INVALID,
                        "this match is not the session's latest look at tokens; match again");
    return status == WEFT_OK ? wp_pins_make(s->of, &pins) : wp_raise(status);
}

static PyObject *reserve(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tokens", "from_token", NULL};
    PyObject *from;
    uint64_t from_token = 0;
    struct wp_tokens tokens;
    struct weft_fill fill;
    uint64_t serial = ++serials;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&:reserve", names, &from, wp_to_u64,
                                     &from_token) ||
        !wp_tokens_take(from, &tokens))
        return NULL;
    WP_SESSION_BEGIN(s)
    s->serial = serial;
    status = weft_reserve(s->session, tokens.tokens, from_token, tokens.count, &fill);
    WP_SESSION_END(s)
    wp_tokens_drop(&tokens);
    return status == WEFT_OK ? wp_slots_make_of_fill(s, &fill) : wp_raise(status);
}

static PyObject *prefetch(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"tokens", "within_ms", NULL};
    PyObject *from;
    struct wp_tokens tokens;
    uint32_t within_ms = 0, blocks = 0;
    uint64_t serial = ++serials;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O&:prefetch", names, &from, wp_to_u32,
                                     &within_ms) ||
        !wp_tokens_take(from, &tokens))
        return NULL;
    WP_SESSION_BEGIN(s)
    s->serial = serial;
    status = weft_prefetch(s->session, tokens.tokens, tokens.count, within_ms, &blocks);
    WP_SESSION_END(s)
    wp_tokens_drop(&tokens);
    return status == WEFT_OK ? number(blocks) : wp_raise(status);
}

/* -------------------------------------------------------------------------- hint, fork, archive */

static bool state_of(const char *name, enum weft_session_state *out)
{
    static const char *const states[] = {"prefill", "decoding", "idle", "waiting", "done"};
    for (unsigned i = 0; i < sizeof states / sizeof states[0]; i++)
        if (strcmp(name, states[i]) == 0) {
            *out = (enum weft_session_state)(WEFT_PREFILL + i);
            return true;
        }
    wp_error(WEFT_E_INVALID,
             "there is no state '%.32s'; use prefill, decoding, idle, waiting or done", name);
    return false;
}

static PyObject *hint(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"state", "returns_in_ms", "deadline_ms", "output_tokens", "tip", NULL};
    const char *name;
    PyObject *end = NULL;
    struct weft_hint h = {0};
    struct weft_key tip;
    bool has_tip;
    enum weft_session_state state;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|O&O&O&O:hint", names, &name, wp_to_u32,
                                     &h.returns_in_ms, wp_to_u32, &h.deadline_ms, wp_to_u32,
                                     &h.output_tokens, &end) ||
        !state_of(name, &state) || !wp_key_take(end, &tip, &has_tip))
        return NULL;
    h.tip = has_tip ? &tip : NULL;
    WP_SESSION_BEGIN(s)
    status = weft_session_hint(s->session, state, &h);
    WP_SESSION_END(s)
    if (status != WEFT_OK)
        return wp_raise(status);
    Py_RETURN_NONE;
}

static PyObject *fork_session(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"name", "priority", NULL};
    struct weft_session_spec spec = {.priority = 5};
    struct weft_session *opened = NULL;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&O&:fork", names, wp_to_text_or_none,
                                     &spec.name, wp_to_u32, &spec.priority))
        return NULL;
    WP_SESSION_BEGIN(s)
    status = weft_session_fork(s->session, &spec, &opened);
    WP_SESSION_END(s)
    return status == WEFT_OK ? made(s->of, opened) : wp_raise(status);
}

static PyObject *demote(struct session *s, PyObject *nothing, PyObject *neither)
{
    enum weft_status status;
    (void)nothing, (void)neither;
    WP_SESSION_BEGIN(s)
    status = weft_demote(s->session);
    WP_SESSION_END(s)
    return status == WEFT_OK || status == WEFT_PENDING ? PyBool_FromLong(status == WEFT_OK)
                                                       : wp_raise(status);
}

static PyObject *archive(struct session *s, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout_ms", NULL};
    uint32_t timeout_ms = 5000;
    struct weft_archived archived;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O&:archive", names, wp_to_u32, &timeout_ms))
        return NULL;
    memset(&archived, 0, sizeof archived);
    WP_SESSION_BEGIN(s)
    status = weft_archive(s->session, timeout_ms, &archived);
    WP_SESSION_END(s)
    return status == WEFT_OK || status == WEFT_PENDING
               ? wp_archived_make(&archived, status == WEFT_OK)
               : wp_raise(status);
}

/* ----------------------------------------------------------------------------------- the object */

/* Do `call` within a call of the session. */
static PyObject *within(PyObject *self, PyObject *args, PyObject *kwargs,
                        PyObject *(*call)(struct session *, PyObject *, PyObject *))
{
    struct session *s = session_of(self);
    if (!wp_handle_enter(&s->handle))
        return NULL;
    PyObject *result = call(s, args, kwargs);
    wp_handle_leave(&s->handle);
    return result;
}

#define KEYWORDS(name, call)                                                \
    static PyObject *name(PyObject *self, PyObject *args, PyObject *kwargs) \
    {                                                                       \
        return within(self, args, kwargs, call);                            \
    }

KEYWORDS(session_get, get)
KEYWORDS(session_reserve, reserve)
KEYWORDS(session_prefetch, prefetch)
KEYWORDS(session_hint, hint)
KEYWORDS(session_fork, fork_session)
KEYWORDS(session_archive, archive)

static PyObject *session_match(PyObject *self, PyObject *tokens)
{
    return within(self, tokens, NULL, match);
}

static PyObject *session_demote(PyObject *self, PyObject *nothing)
{
    return within(self, nothing, NULL, demote);
}

static PyObject *get_id(PyObject *self, void *nothing)
{
    struct session *s = session_of(self);
    (void)nothing;
    if (!wp_handle_enter(&s->handle))
        return NULL;
    PyObject *id = number(weft_session_id(s->session));
    wp_handle_leave(&s->handle);
    return id;
}

static PyMethodDef session_methods[] = {
    {"match", session_match, METH_O, "The longest prefix of tokens that is there."},
    {"get", WP_KEYWORDS(session_get), "Hold what was matched."},
    {"reserve", WP_KEYWORDS(session_reserve), "Room for the full blocks from a token on."},
    {"prefetch", WP_KEYWORDS(session_prefetch), "Bring a chain up before it is asked for."},
    {"hint", WP_KEYWORDS(session_hint), "Tell the node what the session does now."},
    {"fork", WP_KEYWORDS(session_fork), "A second session with the same chain so far."},
    {"demote", session_demote, METH_NOARGS, "Move its chain below DRAM.  False: not all could go."},
    {"archive", WP_KEYWORDS(session_archive), "Make its chain durable."},
    {"close", session_close, METH_NOARGS, "Close it."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", session_close, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef session_fields[] = {
    {"id", get_id, NULL, "The node's number for it.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot session_slots[] = {
    {Py_tp_doc, "A conversation; Format.session() makes it."},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_methods, session_methods},
    {Py_tp_getset, session_fields},
    {0, NULL},
};

static PyType_Spec session_spec = {
    .name = "weft.Session",
    .basicsize = sizeof(struct session),
    .flags = WP_TYPE_FLAGS,
    .slots = session_slots,
};

static PyStructSequence_Field match_fields[] = {
    {"blocks", "present, from the first"},
    {"tokens", "in these"},
    {"load_us", "until all would be in DRAM, as modelled from what was measured"},
    {"tiers", "where each of them is: 'dram', 'cxl', 'nvme', 's3'"},
    {"quality", "the worst of these blocks"},
    {"_serial", "of the session's look at tokens"},
    {"_epoch", "private"},
    {NULL, NULL},
};

static PyStructSequence_Desc match_desc = {
    .name = "weft.Match",
    .doc = "The longest prefix that is there.",
    .fields = match_fields,
    .n_in_sequence = 5,
};

static PyStructSequence_Field archived_fields[] = {
    {"blocks", "in the chain"},
    {"written", "of them now"},
    {"bytes", "payload of the whole chain"},
    {"name", "of the archive"},
    {"tier", "where its manifest lies; '' before that is known"},
    {"durable", "False: it takes longer and goes on without you; call again"},
    {NULL, NULL},
};

static PyStructSequence_Desc archived_desc = {
    .name = "weft.Archived",
    .doc = "What became of an archive.",
    .fields = archived_fields,
    .n_in_sequence = 6,
};

int wp_session_init(PyObject *module)
{
    match_type = PyStructSequence_NewType(&match_desc);
    archived_type = PyStructSequence_NewType(&archived_desc);
    if (!match_type || PyModule_AddObjectRef(module, "Match", (PyObject *)match_type) < 0 ||
        !archived_type || PyModule_AddObjectRef(module, "Archived", (PyObject *)archived_type) < 0)
        return -1;
    return wp_type_init(module, "Session", &session_spec, &session_type);
}
