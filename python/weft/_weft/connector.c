/* SPDX-License-Identifier: Apache-2.0
 *
 * weft._weft.Connector: values (values.h) for an engine that asks for many at once, and is told by
 * an eventfd when they are done.
 *
 *     submit_batch_*        queue                workers                  done
 *     ── a batch ──▶ [ batch, batch, … ] ─ up to VALUES_GROUP a step ─▶ [ batch, … ] ─▶ eventfd
 *                                                                           drain_completions
 *
 * The workers know nothing of Python: they copy between the caller's buffers and the pool and never
 * take the GIL.  The buffers stay held until the batch's completion is drained, or this object
 * goes.  Batches complete in any order.  At its end the workers finish the step that they are at;
 * what was not begun completes as failed.
 *
 * The same without a queue: put(), get() and the others work in the calling thread, without the
 * GIL.
 *
 * The child of a fork() has none of the workers, and perhaps a lock that one of them held: there
 * nothing can be asked for, and what is there goes with the process.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "module.h"
#include "values.h"

#define WORKERS_MAX 64u
#define BATCHES_MAX 65536u /* submitted and not drained */

enum op { PUT, GET, EXIST, REMOVE, LOOK };

struct batch {
    struct batch *link;
    uint64_t id;
    enum op op;
    uint32_t count, begun, left; /* begun, left: under the lock */
    struct value *values;        /* [count] */
    uint8_t *text;               /* names and metas, one after the other */
    uint8_t *records;            /* for LOOK; [count] */
    Py_buffer *buffers;          /* for PUT and GET; [held] */
    uint32_t held;
    struct values_error error; /* under the lock */
};

struct queue {
    struct batch *first, **end;
};

struct connector {
    PyObject ob_base;
    struct handle handle;
    struct values store;
    int event_fd;
    pthread_mutex_t lock; /* guards the rest, and what batches say that is under it */
    pthread_cond_t more;
    struct queue waiting, done;
    uint32_t batches;
    uint64_t next_id;
    bool stopping, opened;
    pid_t maker;
    uint32_t worker_count;
    pthread_t workers[WORKERS_MAX];
};

static PyTypeObject *connector_type;

static void queue_add(struct queue *queue, struct batch *batch)
{
    batch->link = NULL;
    *queue->end = batch;
    queue->end = &batch->link;
}

static struct batch *queue_take(struct queue *queue)
{
    struct batch *batch = queue->first;
    if (batch) {
        queue->first = batch->link;
        if (!queue->first)
            queue->end = &queue->first;
    }
    return batch;
}

/* -------------------------------------------------------------------------------------- batches */

static void do_step(struct values *store, enum op op, struct value *values, uint32_t count,
                    struct values_error *error)
{
    switch (op) {
    case PUT: values_put(store, values, count, error); break;
    case GET: values_get(store, values, count, error); break;
    case EXIST: values_exist(store, values, count, error); break;
    case REMOVE: values_remove(store, values, count, error); break;
    case LOOK: values_look(store, values, count, error); break;
    }
}

static void batch_free(struct batch *batch)
{
    for (uint32_t i = 0; i < batch->held; i++)
        PyBuffer_Release(&batch->buffers[i]);
    free(batch->buffers);
    free(batch->values);
    free(batch->records);
    free(batch->text);
    free(batch);
}

/* Bytes of a name (str or bytes) or a meta, borrowed from `item`. */
static bool text_of(PyObject *item, const char *what, const char **out, Py_ssize_t *out_bytes)
{
    if (PyUnicode_Check(item)) {
        *out = PyUnicode_AsUTF8AndSize(item, out_bytes);
        return *out != NULL;
    }
    char *bytes = NULL;
    if (!PyBytes_Check(item)) {
        PyErr_Format(PyExc_TypeError, "%s is neither str nor bytes", what);
        return false;
    }
    if (PyBytes_AsStringAndSize(item, &bytes, out_bytes) < 0)
        return false;
    *out = bytes;
    return true;
}

/* Append the text of each of `from`; *offsets gets count + 1 places. */
static bool take_texts(PyObject *from, const char *what, uint32_t count, uint8_t **text,
                       size_t *length, size_t *offsets)
{
    for (uint32_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(from, (Py_ssize_t)i);
        const char *bytes = NULL;
        Py_ssize_t bytes_count = 0;
        bool good = item && text_of(item, what, &bytes, &bytes_count);
        if (good && bytes_count > (Py_ssize_t)VALUES_TEXT_MAX) {
            wp_error(WEFT_E_INVALID, "%s has %zd bytes; it may have up to %u", what, bytes_count,
                     VALUES_TEXT_MAX);
            good = false;
        }
        uint8_t *more = good ? realloc(*text, *length + (size_t)bytes_count + 1) : NULL;
        if (more) {
            *text = more;
            offsets[i] = *length;
            memcpy(more + *length, bytes, (size_t)bytes_count);
            *length += (size_t)bytes_count;
        } else if (good) {
            PyErr_NoMemory();
        }
        Py_XDECREF(item);
        if (!more)
            return false;
    }
    offsets[count] = *length;
    return true;
}

static bool take_buffers(struct batch *batch, PyObject *from)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        PyObject *item = PySequence_GetItem(from, (Py_ssize_t)i);
        Py_buffer *buffer = &batch->buffers[i];
        bool good = false;
        if (item && batch->op == PUT)
            good = wp_bytes_take(item, "a value", buffer);
        else if (item)
            good = PyObject_GetBuffer(item, buffer, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) == 0;
        Py_XDECREF(item); /* the buffer holds it */
        if (!good)
            return false;
        batch->held++;
        batch->values[i].data = buffer->buf;
        batch->values[i].bytes = (uint64_t)buffer->len;
    }
    return true;
}

static bool sizes_agree(PyObject *list, const char *what, Py_ssize_t count)
{
    Py_ssize_t size = PySequence_Size(list);
    if (size < 0)
        return false;
    if (size != count)
        wp_error(WEFT_E_INVALID, "%zd names and %zd %s; give one for each", count, size, what);
    return size == count;
}

/* What `names` (a sequence), `buffers` (PUT, GET) and `metas` (NULL or None: all empty) ask for. */
static struct batch *batch_make(enum op op, PyObject *names, PyObject *buffers, PyObject *metas)
{
    Py_ssize_t size = PySequence_Size(names);
    bool copies = op == PUT || op == GET;
    if (metas == Py_None)
        metas = NULL;
    if (size < 0 || (copies && !sizes_agree(buffers, "buffers", size)) ||
        (metas && !sizes_agree(metas, "metas", size)))
        return NULL;
    if (size > UINT16_MAX) {
        wp_error(WEFT_E_LIMIT, "%zd values in a batch; it may have up to 65535", size);
        return NULL;
    }
    uint32_t count = (uint32_t)size;
    struct batch *batch = calloc(1, sizeof *batch);
    size_t *at = calloc(2 * ((size_t)count + 1), sizeof *at), length = 0;
    bool good = batch && at;
    if (good) {
        *batch = (struct batch){.op = op, .count = count, .left = count};
        batch->values = calloc((size_t)count + 1, sizeof *batch->values);
        batch->buffers = copies ? calloc((size_t)count + 1, sizeof *batch->buffers) : NULL;
        batch->records = op == LOOK ? malloc(((size_t)count + 1) * VALUES_RECORD_BYTES) : NULL;
        good = batch->values && (!copies || batch->buffers) && (op != LOOK || batch->records);
    }
    if (!good)
        PyErr_NoMemory();
    size_t *meta_at = at ? at + count + 1 : NULL;
    good = good && take_texts(names, "a name", count, &batch->text, &length, at) &&
           (!metas || take_texts(metas, "a meta", count, &batch->text, &length, meta_at)) &&
           (!copies || take_buffers(batch, buffers));
    for (uint32_t i = 0; good && i < count; i++) {
        struct value *v = &batch->values[i];
        v->name = batch->text + at[i];
        v->name_bytes = (uint32_t)(at[i + 1] - at[i]);
        v->meta = metas ? batch->text + meta_at[i] : NULL;
        v->meta_bytes = metas ? (uint32_t)(meta_at[i + 1] - meta_at[i]) : 0;
        v->record = batch->records ? batch->records + (size_t)i * VALUES_RECORD_BYTES : NULL;
        v->status = WEFT_E_NODE; /* until somebody has asked */
    }
    free(at);
    if (!good && batch)
        batch_free(batch);
    return good ? batch : NULL;
}

/* -------------------------------------------------------------------------------------- workers */

/* The caller has the lock. */
static void complete(struct connector *c, struct batch *batch)
{
    const uint64_t one = 1;
    queue_add(&c->done, batch);
    /* It only fails when the counter is full, and then it is readable already. */
    ssize_t written = write(c->event_fd, &one, sizeof one);
    (void)written;
}

static void *work(void *given)
{
    struct connector *c = given;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->stopping && !c->waiting.first)
            pthread_cond_wait(&c->more, &c->lock);
        if (c->stopping)
            break;
        struct batch *batch = c->waiting.first;
        struct values_error error = {.status = WEFT_OK};
        uint32_t from = batch->begun, step = batch->count - from;
        if (step > VALUES_GROUP)
            step = VALUES_GROUP;
        batch->begun += step;
        if (batch->begun == batch->count)
            queue_take(&c->waiting);
        pthread_mutex_unlock(&c->lock);
        do_step(&c->store, batch->op, batch->values + from, step, &error);
        pthread_mutex_lock(&c->lock);
        if (batch->error.status == WEFT_OK)
            batch->error = error;
        batch->left -= step;
        if (batch->left == 0)
            complete(c, batch);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static bool forked(const struct connector *c)
{
    return c->maker != getpid();
}

/* Nobody submits any more. */
static void connector_finish(struct handle *h)
{
    struct connector *c = (struct connector *)(void *)h->owner;
    struct batch *batch;
    if (forked(c))
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_broadcast(&c->more);
    pthread_mutex_unlock(&c->lock);
    for (uint32_t i = 0; i < c->worker_count; i++)
        pthread_join(c->workers[i], NULL);
    while ((batch = queue_take(&c->waiting))) {
        batch->error = (struct values_error){WEFT_E_NODE, "the connector was closed before this"};
        complete(c, batch);
    }
    values_fini(&c->store);
}

static struct connector *connector_of(PyObject *self)
{
    return (struct connector *)self;
}

PyObject *wp_connector_make(struct fabric *fabric, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"model", "workers", NULL};
    const char *model;
    unsigned int workers = 4;
    enum weft_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|O&:connector", names, &model, wp_to_u32,
                                     &workers))
        return NULL;
    if (workers < 1 || workers > WORKERS_MAX)
        return wp_error(WEFT_E_INVALID, "%u workers; a connector has 1 to %u", workers,
                        WORKERS_MAX);
    struct connector *c = wp_new(connector_type);
    if (!c)
        return NULL;
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->event_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(c);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = values_init(&c->store, fabric->weft, model);
    Py_END_ALLOW_THREADS
    if (status != WEFT_OK) {
        wp_raise(status);
        Py_DECREF(c);
        return NULL;
    }
    c->waiting.end = &c->waiting.first;
    c->done.end = &c->done.first;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->more, NULL);
    c->opened = true;
    c->maker = getpid();
    wp_handle_open(&c->handle, (PyObject *)c, &fabric->handle, "connector", connector_finish, NULL);
    while (c->worker_count < workers &&
           pthread_create(&c->workers[c->worker_count], NULL, work, c) == 0)
        c->worker_count++;
    if (c->worker_count == 0) {
        Py_DECREF(c);
        return wp_error(WEFT_E_SYSTEM, "this process may have no more threads");
    }
    return (PyObject *)c;
}

static void connector_dealloc(PyObject *self)
{
    struct connector *c = connector_of(self);
    struct batch *batch;
    wp_handle_fini(&c->handle);
    if (c->opened && !forked(c)) {
        while ((batch = queue_take(&c->done)))
            batch_free(batch);
        pthread_mutex_destroy(&c->lock);
        pthread_cond_destroy(&c->more);
    }
    if (c->event_fd >= 0)
        close(c->event_fd);
    wp_free(self);
}

/* --------------------------------------------------------------------------- submit and drain */

/* Begin a call; wp_handle_leave() ends it. */
static bool enter(struct connector *c)
{
    if (!forked(c))
        return wp_handle_enter(&c->handle);
    wp_error(WEFT_E_FORKED, "this connector was made before fork(), and its threads are not in the "
                            "child; connect there and make one of its own");
    return false;
}

static PyObject *submit(PyObject *self, PyObject *args, enum op op)
{
    struct connector *c = connector_of(self);
    PyObject *names, *buffers = NULL, *metas = NULL, *result = NULL;
    const char *form = op == PUT || op == GET ? "OO|O:submit_batch" : "O:submit_batch";
    if (!PyArg_ParseTuple(args, form, &names, &buffers, &metas) || !enter(c))
        return NULL;
    struct batch *batch = batch_make(op, names, buffers, metas);
    if (batch) {
        pthread_mutex_lock(&c->lock);
        bool taken = c->batches < BATCHES_MAX;
        uint64_t id = c->next_id;
        if (taken) {
            batch->id = id;
            c->next_id++;
            c->batches++;
            if (batch->count) {
                queue_add(&c->waiting, batch);
                /* one step wakes one worker */
                for (uint32_t i = 0; i < batch->count; i += VALUES_GROUP)
                    pthread_cond_signal(&c->more);
            } else {
                complete(c, batch);
            }
        }
        pthread_mutex_unlock(&c->lock);
        if (taken) {
            result = PyLong_FromUnsignedLongLong(id);
        } else {
            batch_free(batch);
            wp_error(WEFT_E_LIMIT, "%u batches are waiting to be drained; drain them first",
                     BATCHES_MAX);
        }
    }
    wp_handle_leave(&c->handle);
    return result;
}

static PyObject *submit_batch_get(PyObject *self, PyObject *args)
{
    return submit(self, args, GET);
}

static PyObject *submit_batch_set(PyObject *self, PyObject *args)
{
    return submit(self, args, PUT);
}

static PyObject *submit_batch_exists(PyObject *self, PyObject *args)
{
    return submit(self, args, EXIST);
}

static PyObject *submit_batch_delete(PyObject *self, PyObject *args)
{
    return submit(self, args, REMOVE);
}

static PyObject *statuses_of(const struct batch *batch)
{
    PyObject *list = PyList_New((Py_ssize_t)batch->count);
    for (uint32_t i = 0; list && i < batch->count; i++)
        PyList_SetItem(list, (Py_ssize_t)i, PyBool_FromLong(batch->values[i].status == WEFT_OK));
    return list;
}

/* (id, ok, error, [bool]) */
static PyObject *completion_of(const struct batch *batch)
{
    bool ok = batch->error.status == WEFT_OK;
    const char *sentence = ok ? "" : batch->error.sentence; /* may be cut within a character */
    PyObject *each = statuses_of(batch),
             *text = PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace");
    if (each && text)
        return Py_BuildValue("(KNNN)", (unsigned long long)batch->id, PyBool_FromLong(ok), text,
                             each);
    Py_XDECREF(each);
    Py_XDECREF(text);
    return NULL;
}

/* Also of a connector that is closed: what its end completed is to be had. */
static PyObject *drain_completions(PyObject *self, PyObject *nothing)
{
    struct connector *c = connector_of(self);
    PyObject *list = forked(c) ? NULL : PyList_New(0);
    struct queue done;
    uint64_t count;
    (void)nothing;
    if (!list)
        return forked(c) ? PyList_New(0) : NULL; /* its batches are the parent's to drain */
    pthread_mutex_lock(&c->lock);
    ssize_t bytes = read(c->event_fd, &count, sizeof count);
    (void)bytes; /* nothing there to read is no error */
    done = c->done;
    c->done = (struct queue){NULL, &c->done.first};
    pthread_mutex_unlock(&c->lock);
    uint32_t drained = 0;
    for (struct batch *batch = done.first, *next; batch; batch = next, drained++) {
        PyObject *item = list ? completion_of(batch) : NULL;
        next = batch->link;
        batch_free(batch);
        if (!item || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    pthread_mutex_lock(&c->lock);
    c->batches -= drained;
    pthread_mutex_unlock(&c->lock);
    return list;
}

/* ----------------------------------------------------------------------------------------- now */

/* [(bytes, meta) or None] */
static PyObject *looks_of(const struct batch *batch)
{
    PyObject *list = PyList_New((Py_ssize_t)batch->count);
    for (uint32_t i = 0; list && i < batch->count; i++) {
        const struct value *v = &batch->values[i];
        PyObject *item = v->status == WEFT_OK
                             ? Py_BuildValue("(Ky#)", (unsigned long long)v->bytes,
                                             (const char *)v->meta, (Py_ssize_t)v->meta_bytes)
                             : Py_NewRef(Py_None);
        if (!item || PyList_SetItem(list, (Py_ssize_t)i, item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* Do it here.  An error of the node or of this process raises; a miss and no room are answers. */
static PyObject *now(PyObject *self, PyObject *args, PyObject *kwargs, enum op op)
{
    static char *with[] = {"names", "buffers", "metas", NULL}, *without[] = {"names", NULL};
    struct connector *c = connector_of(self);
    PyObject *names, *buffers = NULL, *metas = NULL, *result = NULL;
    bool copies = op == PUT || op == GET;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, copies ? "OO|O" : "O", copies ? with : without,
                                     &names, &buffers, &metas) ||
        !enter(c))
        return NULL;
    struct batch *batch = batch_make(op, names, buffers, metas);
    if (batch) {
        Py_BEGIN_ALLOW_THREADS
        for (uint32_t i = 0; i < batch->count; i += VALUES_GROUP) {
            uint32_t left = batch->count - i;
            do_step(&c->store, op, batch->values + i, left < VALUES_GROUP ? left : VALUES_GROUP,
                    &batch->error);
        }
        Py_END_ALLOW_THREADS
        if (batch->error.status < 0)
            wp_error(batch->error.status, "%s", batch->error.sentence);
        else
            result = op == LOOK ? looks_of(batch) : statuses_of(batch);
        batch_free(batch);
    }
    wp_handle_leave(&c->handle);
    return result;
}

#define NOW(name, op)                                                       \
    static PyObject *name(PyObject *self, PyObject *args, PyObject *kwargs) \
    {                                                                       \
        return now(self, args, kwargs, op);                                 \
    }

NOW(connector_put, PUT)
NOW(connector_get, GET)
NOW(connector_exists, EXIST)
NOW(connector_remove, REMOVE)
NOW(connector_look, LOOK)

static PyObject *event_fd(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    return PyLong_FromLong(connector_of(self)->event_fd);
}

static PyObject *connector_close(PyObject *self, PyObject *nothing)
{
    (void)nothing;
    wp_handle_close(&connector_of(self)->handle);
    Py_RETURN_NONE;
}

static PyObject *is_closed(PyObject *self, void *nothing)
{
    (void)nothing;
    return PyBool_FromLong(wp_handle_is_closed(&connector_of(self)->handle));
}

static PyMethodDef connector_methods[] = {
    {"event_fd", event_fd, METH_NOARGS, "Readable when there is something to drain."},
    {"submit_batch_get", submit_batch_get, METH_VARARGS,
     "Copy values into buffers of exactly their length; answers the batch's number."},
    {"submit_batch_set", submit_batch_set, METH_VARARGS, "Copy buffers in and publish them."},
    {"submit_batch_exists", submit_batch_exists, METH_VARARGS, "Ask which names are there."},
    {"submit_batch_delete", submit_batch_delete, METH_VARARGS, "Drop names."},
    {"drain_completions", drain_completions, METH_NOARGS,
     "[(number, ok, error, [bool of each])] of what is done."},
    {"put", WP_KEYWORDS(connector_put), "Store now; a bool of each."},
    {"get", WP_KEYWORDS(connector_get), "Copy out now; a bool of each."},
    {"exists", WP_KEYWORDS(connector_exists), "Is it there?  A bool of each."},
    {"look", WP_KEYWORDS(connector_look), "(bytes, meta) of each, or None."},
    {"remove", WP_KEYWORDS(connector_remove), "Drop them; a bool of each: it was there."},
    {"close", connector_close, METH_NOARGS, "What was not begun completes as failed."},
    {"__enter__", wp_itself, METH_NOARGS, NULL},
    {"__exit__", connector_close, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef connector_fields[] = {
    {"closed", is_closed, NULL, "Was it closed?", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot connector_slots[] = {
    {Py_tp_doc, "Values of any length under an engine's names; Fabric.connector() makes it."},
    {Py_tp_dealloc, connector_dealloc},
    {Py_tp_methods, connector_methods},
    {Py_tp_getset, connector_fields},
    {0, NULL},
};

static PyType_Spec connector_spec = {
    .name = "weft.Connector",
    .basicsize = sizeof(struct connector),
    .flags = WP_TYPE_FLAGS,
    .slots = connector_slots,
};

int wp_connector_init(PyObject *module)
{
    return wp_type_init(module, "Connector", &connector_spec, &connector_type);
}
