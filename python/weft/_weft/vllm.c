/* SPDX-License-Identifier: Apache-2.0
 *
 * vLLM's block hashes; weft.vllm is what people call.
 */

#include "module.h"

/* (block, kind, text, path, offset, digest) of `item`, whose texts it keeps alive. */
static bool extra_of(PyObject *item, struct weft_vllm_extra *out)
{
    unsigned kind = 0;
    const char *text = NULL, *path = NULL;
    Py_ssize_t bytes = 0, path_bytes = 0;
    long long offset = 0;
    unsigned long block = 0;
    if (!PyArg_ParseTuple(item, "kIs#s#L", &block, &kind, &text, &bytes, &path, &path_bytes,
                          &offset))
        return false;
    if (block > UINT32_MAX) {
        wp_error(WEFT_E_INVALID, "an extra of block %lu; there are fewer", block);
        return false;
    }
    *out = (struct weft_vllm_extra){/* NOLINT: never NULL */
                                    .kind = (enum weft_vllm_extra_kind)kind,
                                    .block = (uint32_t)block,
                                    .text = text,
                                    .bytes = (size_t)bytes,
                                    .path = path,
                                    .path_bytes = (size_t)path_bytes,
                                    .offset = offset};
    return true;
}

static PyObject *hashes_of(const struct wp_tokens *tokens, uint32_t block_tokens,
                           const struct weft_key *parent, PyObject *from)
{
    Py_ssize_t count = PyList_Size(from);
    struct weft_key *hashes = NULL;
    enum weft_status status;
    if (count < 0)
        return NULL;
    struct weft_vllm_extra *extras = PyMem_Malloc(((size_t)count + 1) * sizeof *extras);
    PyObject *made = extras
                         ? wp_keys_make(tokens->count / (block_tokens ? block_tokens : 1), &hashes)
                         : PyErr_NoMemory();
    for (Py_ssize_t i = 0; made && i < count; i++)
        if (!extra_of(PyList_GetItem(from, i), &extras[i]))
            Py_CLEAR(made);
    if (made) {
        Py_BEGIN_ALLOW_THREADS
        status = weft_vllm_hashes(parent, tokens->tokens, tokens->count, block_tokens, extras,
                                  (size_t)count, hashes);
        Py_END_ALLOW_THREADS
        if (status != WEFT_OK) {
            Py_CLEAR(made);
            wp_raise(status);
        }
    }
    PyMem_Free(extras);
    return made;
}

PyObject *wp_vllm_hashes(PyObject *module, PyObject *args)
{
    PyObject *from, *before, *extras, *result = NULL;
    uint32_t block_tokens = 0;
    struct weft_key parent;
    struct wp_tokens tokens;
    bool has_parent;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO&OO", &from, wp_to_u32, &block_tokens, &before, &extras) ||
        !wp_key_take(before, &parent, &has_parent) || !wp_tokens_take(from, &tokens))
        return NULL;
    result = hashes_of(&tokens, block_tokens, has_parent ? &parent : NULL, extras);
    wp_tokens_drop(&tokens);
    return result;
}

PyObject *wp_vllm_root(PyObject *module, PyObject *from)
{
    const char *seed = NULL;
    struct weft_key root;
    (void)module;
    if (!wp_to_text_or_none(from, &seed))
        return NULL;
    weft_vllm_root(seed, &root);
    return PyBytes_FromStringAndSize((const char *)root.bytes, sizeof root);
}
