/* SPDX-License-Identifier: Apache-2.0
 *
 * What callers give us: numbers, names, keys, tokens and bytes, each in the forms that people have
 * them in.  Whatever does not fit is refused with the value; nothing is cut or guessed.
 */

#include "module.h"

/* -------------------------------------------------------------------------------------- numbers */

static int to_number(PyObject *from, uint64_t most, uint64_t *out)
{
    PyObject *number = PyNumber_Index(from);
    if (!number)
        return 0;
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    bool fits = !(value == (unsigned long long)-1 && PyErr_Occurred()) && value <= most;
    if (!fits) {
        PyErr_Clear();
        PyObject *text = PyObject_Str(number);
        const char *digits = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
        if (digits) /* else no memory for them, which is told instead */
            wp_error(WEFT_E_INVALID, "the number %.40s; give one from 0 to %llu", digits,
                     (unsigned long long)most);
        Py_XDECREF(text);
    }
    Py_DECREF(number);
    *out = value;
    return fits;
}

int wp_to_u32(PyObject *from, void *out_u32)
{
    uint64_t value = 0;
    if (!to_number(from, UINT32_MAX, &value))
        return 0;
    *(uint32_t *)out_u32 = (uint32_t)value;
    return 1;
}

int wp_to_u64(PyObject *from, void *out_u64)
{
    return to_number(from, UINT64_MAX, out_u64);
}

int wp_to_seconds_as_ms(PyObject *from, void *out_u32)
{
    double seconds = from == Py_None ? 0 : PyFloat_AsDouble(from);
    if (seconds == -1 && PyErr_Occurred())
        return 0;
    if (from != Py_None && !(seconds > 0 && seconds <= UINT32_MAX / 1000)) {
        wp_error(WEFT_E_INVALID,
                 "a timeout of %g seconds; give more than 0 and up to %u, or None for the usual",
                 seconds, UINT32_MAX / 1000);
        return 0;
    }
    double ms = seconds * 1000;
    *(uint32_t *)out_u32 = ms > 0 && ms < 1 ? 1 : (uint32_t)ms;
    return 1;
}

/* ---------------------------------------------------------------------------------------- names */

int wp_to_text_or_none(PyObject *from, void *out_chars)
{
    const char *text = NULL;
    if (from != Py_None) {
        Py_ssize_t length = 0;
        text = PyUnicode_AsUTF8AndSize(from, &length);
        if (text && strlen(text) != (size_t)length) {
            wp_error(WEFT_E_INVALID, "the text '%.64s' has a NUL byte inside; take it out", text);
            return 0;
        }
        if (!text)
            return 0;
    }
    *(const char **)out_chars = text;
    return 1;
}

static const struct name {
    const char *name;
    int value;
} dtypes[] =
    {
        {"f32", WEFT_F32},
        {"f16", WEFT_F16},
        {"bf16", WEFT_BF16},
        {"fp8_e4m3", WEFT_FP8_E4M3},
        {"fp8_e5m2", WEFT_FP8_E5M2},
        {"int8", WEFT_INT8},
        {"float32", WEFT_F32},
        {"float16", WEFT_F16},
        {"bfloat16", WEFT_BF16},
        {"float8_e4m3fn", WEFT_FP8_E4M3},
        {"float8_e5m2", WEFT_FP8_E5M2},
        {NULL, 0},
},
  qualities[] =
      {
          {"default", WEFT_QUALITY_DEFAULT},
          {"lossless", WEFT_LOSSLESS},
          {"transparent", WEFT_TRANSPARENT},
          {"economy", WEFT_ECONOMY},
          {NULL, 0},
},
  orders[] = {
      {"layer", WEFT_LAYER_ORDER},
      {"block", WEFT_BLOCK_ORDER},
      {NULL, 0},
};

/* The value that a name stands for; the text of any object will do, so that torch.bfloat16 does. */
static int to_named(PyObject *from, const struct name *names, const char *what, const char *which,
                    int *out)
{
    PyObject *text = PyObject_Str(from);
    const char *word = text ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
    int found = 0;
    if (word && strncmp(word, "torch.", 6) == 0)
        word += 6;
    for (; word && names->name && !found; names++)
        if (strcmp(word, names->name) == 0) {
            *out = names->value;
            found = 1;
        }
    if (word && !found)
        wp_error(WEFT_E_INVALID, "there is no %s '%.64s'; use %s", what, word, which);
    Py_XDECREF(text);
    return found;
}

int wp_to_dtype(PyObject *from, void *out_dtype)
{
    int value = 0;
    if (!to_named(from, dtypes, "dtype", "f32, f16, bf16, fp8_e4m3, fp8_e5m2 or int8", &value))
        return 0;
    *(enum weft_dtype *)out_dtype = (enum weft_dtype)value;
    return 1;
}

int wp_to_quality(PyObject *from, void *out_quality)
{
    int value = 0;
    if (!to_named(from, qualities, "quality", "default, lossless, transparent or economy", &value))
        return 0;
    *(enum weft_quality *)out_quality = (enum weft_quality)value;
    return 1;
}

int wp_to_order(PyObject *from, void *out_order)
{
    int value = 0;
    if (!to_named(from, orders, "order", "layer or block", &value))
        return 0;
    *(enum weft_order *)out_order = (enum weft_order)value;
    return 1;
}

/* ---------------------------------------------------------------------------------- bytes, keys */

bool wp_bytes_take(PyObject *from, const char *what, Py_buffer *out)
{
    if (PyObject_GetBuffer(from, out, PyBUF_C_CONTIGUOUS) == 0)
        return true;
    if (PyErr_ExceptionMatches(PyExc_BufferError)) {
        PyErr_Clear();
        wp_error(WEFT_E_INVALID, "%s is not contiguous in memory; give a contiguous copy", what);
    } else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "%s has no buffer; give bytes, a memoryview, a NumPy array or the like", what);
    }
    return false;
}

/* A sequence of 32-byte keys, packed. */
static PyObject *packed(PyObject *sequence)
{
    Py_ssize_t count = PySequence_Size(sequence);
    struct weft_key *keys = NULL;
    PyObject *result = count >= 0 ? wp_keys_make((size_t)count, &keys) : NULL;
    for (Py_ssize_t i = 0; result && i < count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        Py_buffer bytes;
        bool good = item && wp_bytes_take(item, "a key", &bytes);
        Py_XDECREF(item); /* the buffer holds it */
        if (good && bytes.len != (Py_ssize_t)sizeof keys[i]) {
            wp_error(WEFT_E_INVALID,
                     "key %zd of %zd has %zd bytes; a key has 32 (format.key() makes one of an "
                     "identity of any length)",
                     i, count, bytes.len);
            PyBuffer_Release(&bytes);
            good = false;
        }
        if (!good) {
            Py_DECREF(result);
            return NULL;
        }
        memcpy(&keys[i], bytes.buf, sizeof keys[i]);
        PyBuffer_Release(&bytes);
    }
    return result;
}

bool wp_keys_take(PyObject *from, struct wp_keys *out)
{
    memset(out, 0, sizeof *out);
    if (!from || from == Py_None)
        return true;
    if (!wp_keys_check(from) && PyObject_CheckBuffer(from)) {
        if (!wp_bytes_take(from, "the keys", &out->buffer))
            return false;
        if (out->buffer.len % (Py_ssize_t)sizeof(struct weft_key) == 0) {
            out->keys = out->buffer.buf;
            out->count = (size_t)out->buffer.len / sizeof(struct weft_key);
            return true;
        }
        wp_error(WEFT_E_INVALID, "%zd bytes of keys; each has 32", out->buffer.len);
        PyBuffer_Release(&out->buffer);
        return false;
    }
    if (wp_keys_check(from)) {
        Py_INCREF(from);
        out->held = from;
    } else {
        out->held = packed(from);
    }
    if (out->held)
        out->keys = wp_keys_of(out->held, &out->count);
    return out->held != NULL;
}

void wp_keys_drop(struct wp_keys *keys)
{
    Py_XDECREF(keys->held);
    if (keys->buffer.obj)
        PyBuffer_Release(&keys->buffer);
    memset(keys, 0, sizeof *keys);
}

bool wp_key_take(PyObject *from, struct weft_key *out, bool *out_given)
{
    struct wp_keys keys;
    if (!wp_keys_take(from, &keys))
        return false;
    *out_given = keys.keys != NULL;
    bool one = !keys.keys || keys.count == 1;
    if (!one)
        wp_error(WEFT_E_INVALID, "%zu keys where one is asked for", keys.count);
    else if (keys.keys)
        *out = keys.keys[0];
    wp_keys_drop(&keys);
    return one;
}

/* --------------------------------------------------------------------------------------- tokens */

static bool token_refused(size_t at, long long value)
{
    wp_error(WEFT_E_INVALID, "token %zu is %lld; tokens are 0 to 4294967295", at, value);
    return false;
}

/* The buffer holds signed or unsigned integers of 4 or 8 bytes, and may begin anywhere: a part of a
 * message does. */
static bool from_buffer(struct wp_tokens *out, bool is_signed)
{
    const char *memory = out->buffer.buf;
    bool is_wide = out->buffer.itemsize == 8;
    size_t count = (size_t)(out->buffer.len / out->buffer.itemsize);
    if (is_wide || (uintptr_t)memory % sizeof(uint32_t)) {
        out->own = PyMem_Malloc((count + 1) * sizeof *out->own);
        if (!out->own) {
            PyErr_NoMemory();
            return false;
        }
    }
    for (size_t i = 0; i < count; i++) {
        int64_t wide;
        int32_t narrow;
        if (is_wide)
            memcpy(&wide, memory + i * sizeof wide, sizeof wide);
        else
            memcpy(&narrow, memory + i * sizeof narrow, sizeof narrow);
        if (!is_wide)
            wide = is_signed ? narrow : (int64_t)(uint32_t)narrow;
        /* As signed, what does not fit in 64 bits is below 0. */
        if (wide < 0 || wide > UINT32_MAX)
            return token_refused(i, wide);
        if (out->own)
            out->own[i] = (uint32_t)wide;
    }
    out->tokens = out->own ? out->own : out->buffer.buf;
    out->count = count;
    return true;
}

static bool from_sequence(PyObject *from, struct wp_tokens *out)
{
    PyObject *list = PySequence_Fast(from, "tokens are a sequence of numbers, or a buffer of them");
    Py_ssize_t count = list ? PySequence_Size(list) : -1;
    bool good = count >= 0;
    if (good) {
        out->own = PyMem_Malloc(((size_t)count + 1) * sizeof *out->own);
        if (!out->own) {
            PyErr_NoMemory();
            good = false;
        }
    }
    for (Py_ssize_t i = 0; good && i < count; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        good = item && wp_to_u32(item, &out->own[i]);
        Py_XDECREF(item);
    }
    Py_XDECREF(list);
    out->tokens = out->own;
    out->count = good ? (size_t)count : 0;
    return good;
}

bool wp_tokens_take(PyObject *from, struct wp_tokens *out)
{
    bool good = false;
    memset(out, 0, sizeof *out);
    if (!PyObject_CheckBuffer(from)) {
        good = from_sequence(from, out);
    } else if (PyObject_GetBuffer(from, &out->buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) == 0) {
        const char *format = out->buffer.format ? out->buffer.format : "B";
        Py_ssize_t wide = out->buffer.itemsize;
        format += *format == '@' || *format == '=' || *format == '<';
        if ((wide == 4 || wide == 8) && strchr("iIlLqQ", *format) && *format && !format[1])
            good = from_buffer(out, strchr("ilq", *format) != NULL);
        else
            wp_error(WEFT_E_INVALID,
                     "tokens in a buffer of format '%.8s'; give 32 or 64-bit integers", format);
    }
    if (!good)
        wp_tokens_drop(out);
    return good;
}

void wp_tokens_drop(struct wp_tokens *tokens)
{
    PyMem_Free(tokens->own);
    if (tokens->buffer.obj)
        PyBuffer_Release(&tokens->buffer);
    memset(tokens, 0, sizeof *tokens);
}
