/* SPDX-License-Identifier: Apache-2.0
 *
 * Say what keys stand for, so that the node can tell others of their blocks.
 */
#include <string.h>

#include "client/client.h"

/* As many of `left` as a message takes. */
static size_t fitting(const struct weft_description *what, size_t block_tokens, size_t left)
{
    size_t each = 32 + block_tokens * sizeof(uint32_t) + what->hash_bytes;
    size_t room = (WF_MESSAGE_MAX - sizeof(struct wf_describe)) / each;
    room = room < WEFT_BATCH_MAX ? room : WEFT_BATCH_MAX;
    return left < room ? left : room;
}

/* Blocks `from` to `from + count` of what the caller gave. */
static size_t write_request(struct wf_describe *request, const struct weft_description *what,
                            const struct weft_key *keys, size_t from, size_t count)
{
    const uint8_t *hashes = what->hashes,
                  *parent = from ? hashes + (from - 1) * what->hash_bytes : what->parent_hash;
    size_t tokens = request->block_tokens;
    uint8_t *at = request->body;
    request->count = (uint32_t)count;
    request->parent_bytes = parent ? request->hash_bytes : 0;
    if (parent)
        memcpy(request->parent, parent, what->hash_bytes);
    memcpy(at, keys + from, count * 32);
    at += count * 32;
    if (tokens)
        memcpy(at, what->tokens + from * tokens, count * tokens * sizeof(uint32_t));
    at += count * tokens * sizeof(uint32_t);
    memcpy(at, hashes + from * what->hash_bytes, count * what->hash_bytes);
    return (size_t)(at - (uint8_t *)request) + count * what->hash_bytes;
}

static enum weft_status check(const struct weft_description *what)
{
    if (!what || !what->hashes || !what->hash_bytes || what->hash_bytes > WEFT_ENGINE_HASH_MAX)
        return wf_fail(WEFT_E_INVALID,
                       "a description needs the engine's hashes, of 1 to %d bytes each",
                       WEFT_ENGINE_HASH_MAX);
    if (what->lora_name && strlen(what->lora_name) > WEFT_LORA_NAME_MAX)
        return wf_fail(WEFT_E_INVALID, "the adapter's name has %zu bytes; give %d at most",
                       strlen(what->lora_name), WEFT_LORA_NAME_MAX);
    return WEFT_OK;
}

enum weft_status weft_describe(struct weft_format *f, const struct weft_key *keys, size_t count,
                               const struct weft_description *what, size_t *out_taken)
{
    struct weft *w = f->weft;
    size_t taken = 0, tokens = what && what->tokens ? f->request.block_tokens : 0;
    enum weft_status status = check(what);
    if (status == WEFT_OK && count && !fitting(what, tokens, 1))
        status = wf_fail(WEFT_E_LIMIT,
                         "a block of %zu tokens is too long to be described with them; pass none",
                         tokens);
    for (size_t from = 0; status == WEFT_OK && from < count;) {
        struct attachment *a = wf_client_attach(w, &status);
        const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
        if (!binding)
            break;
        size_t some = fitting(what, tokens, count - from), took = 0;
        pthread_mutex_lock(&w->lock);
        struct wf_describe *request = (struct wf_describe *)(void *)w->request;
        memset(request, 0, sizeof *request);
        request->format = (uint32_t)binding->id;
        request->hash_bytes = (uint32_t)what->hash_bytes;
        request->block_tokens = (uint32_t)tokens;
        if (what->lora_name) {
            request->lora_bytes = (uint32_t)strlen(what->lora_name);
            memcpy(request->lora, what->lora_name, request->lora_bytes);
        }
        size_t bytes = write_request(request, what, keys, from, some);
        status = wf_client_exchange(w, a, WF_OP_DESCRIBE, bytes, sizeof(struct wf_count_answer),
                                    NULL, NULL);
        if (status >= 0)
            took = ((const struct wf_count_answer *)(const void *)w->answer)->count;
        pthread_mutex_unlock(&w->lock);
        taken += took <= some ? took : some;
        from += some;
        if (took < some) /* it tells nobody, or is full */
            break;
    }
    if (out_taken)
        *out_taken = taken;
    return status;
}
