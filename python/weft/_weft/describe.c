/* SPDX-License-Identifier: Apache-2.0
 *
 * Format.describe(): what keys stand for, so that the node can tell of their blocks in KV events.
 */
#include "module.h"

/* One buffer of hashes end to end, of a buffer that is that or a sequence of equal ones. */
static PyObject *joined(PyObject *from, size_t keys)
{
    Py_ssize_t count, first = 0;
    if (PyObject_CheckBuffer(from)) {
        Py_INCREF(from);
        return from;
    }
    count = PySequence_Size(from);
    if (count < 0)
        return NULL;
    if ((size_t)count != keys)
        return wp_error(WEFT_E_INVALID, "%zu keys and %zd hashes; give one hash for each key", keys,
                        count);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(from, i);
        Py_ssize_t bytes = item ? PyObject_Length(item) : -1;
        Py_XDECREF(item);
        if (bytes < 0)
            return NULL;
        first = i ? first : bytes;
        if (bytes != first)
            return wp_error(WEFT_E_INVALID,
                            "hash %zd has %zd bytes and the first has %zd; all have as many", i,
                            bytes, first);
    }
    PyObject *nothing = PyBytes_FromStringAndSize(NULL, 0),
             *all = nothing ? PyObject_CallMethod(nothing, "join", "(O)", from) : NULL;
    Py_XDECREF(nothing);
    return all;
}

struct said {
    struct wp_keys keys;
    Py_buffer hashes, parent;
    struct wp_tokens tokens;
    bool has_parent, has_tokens;
    const char *lora;
};

static bool check(const struct format *f, const struct said *said, size_t *out_hash_bytes)
{
    size_t count = said->keys.count, bytes = (size_t)said->hashes.len,
           each = count ? bytes / count : 0, tokens = count * f->block_tokens;
    *out_hash_bytes = each;
    if (!count && !bytes)
        return true;
    if (!count || bytes % count || !each || each > WEFT_ENGINE_HASH_MAX)
        wp_error(WEFT_E_INVALID,
                 "%zu keys and %zu bytes of hashes; give one hash of 1 to %d bytes "
                 "for each key",
                 count, bytes, WEFT_ENGINE_HASH_MAX);
    else if (said->has_parent && (size_t)said->parent.len != each)
        wp_error(WEFT_E_INVALID,
                 "the parent's hash has %zd bytes and the others have %zu; give "
                 "one of the same kind",
                 said->parent.len, each);
    else if (said->has_tokens && said->tokens.count != tokens)
        wp_error(WEFT_E_INVALID,
                 "%zu tokens for %zu blocks of %u; give those of the blocks, all "
                 "of them, or none",
                 said->tokens.count, count, f->block_tokens);
    else
        return true;
    return false;
}

static PyObject *tell(struct format *f, const struct said *said)
{
    size_t taken = 0, hash_bytes;
    enum weft_status status = WEFT_OK;
    if (!check(f, said, &hash_bytes))
        return NULL;
    const struct weft_description what = {.hashes = said->hashes.buf,
                                          .hash_bytes = hash_bytes,
                                          .parent_hash = said->has_parent ? said->parent.buf : NULL,
                                          .tokens = said->has_tokens ? said->tokens.tokens : NULL,
                                          .lora_name = said->lora};
    if (said->keys.count) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_describe(f->format, said->keys.keys, said->keys.count, &what, &taken);
        Py_END_ALLOW_THREADS
    }
    return status == WEFT_OK ? PyLong_FromSize_t(taken) : wp_raise(status);
}

PyObject *wp_describe(struct format *f, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"keys", "hashes", "tokens", "parent", "lora", NULL};
    PyObject *keys, *from, *tokens = Py_None, *parent = Py_None, *result = NULL;
    struct said said = {.lora = NULL};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO&:describe", names, &keys, &from, &tokens,
                                     &parent, wp_to_text_or_none, &said.lora) ||
        !wp_keys_take(keys, &said.keys))
        return NULL;
    PyObject *hashes = joined(from, said.keys.count);
    if (hashes && wp_bytes_take(hashes, "hashes", &said.hashes)) {
        said.has_parent = parent != Py_None && wp_bytes_take(parent, "the parent", &said.parent);
        said.has_tokens = tokens != Py_None && !PyErr_Occurred() &&
                          wp_tokens_take(tokens, &said.tokens);
        if (!PyErr_Occurred())
            result = tell(f, &said);
        if (said.has_tokens)
            wp_tokens_drop(&said.tokens);
        if (said.has_parent)
            PyBuffer_Release(&said.parent);
        PyBuffer_Release(&said.hashes);
    }
    Py_XDECREF(hashes);
    wp_keys_drop(&said.keys);
    return result;
}
