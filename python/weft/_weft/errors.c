/* SPDX-License-Identifier: Apache-2.0
 *
 * Exceptions: one a status, all of them weft.Error, with the sentence of the library as their text
 * and its number as `.status`.  Where Python has an exception of the same meaning, ours is one of
 * those too.
 */
#include <stdarg.h>
#include <stdio.h>

#include "module.h"

#define SENTENCE_MAX 1024

static PyObject *base_error;

static struct kind {
    enum weft_status status;
    const char *name, *doc;
    PyObject **also; /* a class of Python's */
    PyObject *type;
} kinds[] = {
    {WEFT_MISS, "weft.MissError",
     "A block that was held could not be brought up from below after all; none of its bytes may be "
     "used.",
     NULL, NULL},
    {WEFT_FULL, "weft.FullError", "No room now: what could go is in use, or worth more.", NULL,
     NULL},
    {WEFT_E_INVALID, "weft.InvalidError", "An argument is wrong.", &PyExc_ValueError, NULL},
    {WEFT_E_NOT_FOUND, "weft.NotFoundError", "No such name.", &PyExc_LookupError, NULL},
    {WEFT_E_QUOTA, "weft.QuotaError", "The domain's quota does not allow it.", NULL, NULL},
    {WEFT_E_DENIED, "weft.DeniedError", "The node does not allow it to this user or domain.",
     &PyExc_PermissionError, NULL},
    {WEFT_E_LIMIT, "weft.LimitError", "A stated cap is reached.", NULL, NULL},
    {WEFT_E_TIMEOUT, "weft.TimedOutError", "It took longer than was allowed.", &PyExc_TimeoutError,
     NULL},
    {WEFT_E_NO_MEMORY, "weft.NoMemoryError", "This process or host is out of memory.",
     &PyExc_MemoryError, NULL},
    {WEFT_E_BUSY, "weft.BusyError", "In use in a way that excludes this.", NULL, NULL},
    {WEFT_E_CORRUPT, "weft.CorruptError", "Not what its checksum says: never handed out.", NULL,
     NULL},
    {WEFT_E_PARENT, "weft.ParentError", "The block's parent is not there, so it cannot be either.",
     NULL, NULL},
    {WEFT_E_PROTOCOL, "weft.ProtocolError", "The other side speaks another version, or nonsense.",
     NULL, NULL},
    {WEFT_E_NODE, "weft.NodeError", "No node answers.", &PyExc_ConnectionError, NULL},
    {WEFT_E_SYSTEM, "weft.HostError", "The operating system refused something that is needed.",
     &PyExc_OSError, NULL},
    {WEFT_E_FORKED, "weft.ForkedError", "It was made before fork(); the child connects by itself.",
     NULL, NULL},
};

#define KINDS (sizeof kinds / sizeof kinds[0])

static PyObject *type_of(enum weft_status status)
{
    for (size_t i = 0; i < KINDS; i++)
        if (kinds[i].status == status)
            return kinds[i].type;
    return base_error;
}

static PyObject *raise(enum weft_status status, const char *sentence)
{
    PyObject *type = type_of(status);
    PyObject *text = PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace");
    PyObject *error = text ? PyObject_CallFunctionObjArgs(type, text, NULL) : NULL;
    PyObject *number = error ? PyLong_FromLong(status) : NULL;
    if (number && PyObject_SetAttrString(error, "status", number) == 0)
        PyErr_SetObject(type, error);
    Py_XDECREF(number);
    Py_XDECREF(error);
    Py_XDECREF(text);
    return NULL;
}

PyObject *wp_raise(enum weft_status status)
{
    if (status == WEFT_PENDING)
        return raise(WEFT_E_BUSY, "it is still under way; ask again");
    return raise(status, weft_last_error());
}

PyObject *wp_error(enum weft_status status, const char *sentence, ...)
{
    char text[SENTENCE_MAX];
    va_list arguments;
    va_start(arguments, sentence);
    vsnprintf(text, sizeof text, sentence, arguments);
    va_end(arguments);
    return raise(status, text);
}

int wp_errors_init(PyObject *module)
{
    PyObject *none = Py_BuildValue("{s:i}", "status", 0);
    base_error = none ? PyErr_NewExceptionWithDoc(
                            "weft.Error",
                            "Whatever Weft refuses.  Its text is one sentence: the thing, the "
                            "value, the mend; .status is the number of weft.h.",
                            NULL, none)
                      : NULL;
    Py_XDECREF(none);
    if (!base_error || PyModule_AddObjectRef(module, "Error", base_error) < 0)
        return -1;
    for (size_t i = 0; i < KINDS; i++) {
        struct kind *kind = &kinds[i];
        PyObject *bases = kind->also ? PyTuple_Pack(2, base_error, *kind->also)
                                     : PyTuple_Pack(1, base_error);
        PyObject *own = Py_BuildValue("{s:i}", "status", (int)kind->status);
        if (bases && own)
            kind->type = PyErr_NewExceptionWithDoc(kind->name, kind->doc, bases, own);
        Py_XDECREF(bases);
        Py_XDECREF(own);
        if (!kind->type ||
            PyModule_AddObjectRef(module, strchr(kind->name, '.') + 1, kind->type) < 0)
            return -1;
    }
    return 0;
}
