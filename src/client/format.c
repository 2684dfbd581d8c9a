/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "client/client.h"
#include "core/identity.h"
#include "sys/memory.h"

const struct binding *
wf_binding_get(struct weft *w, _Atomic(struct binding *) *list, struct attachment *a,
               enum weft_status (*ask)(void *context, struct attachment *a, struct binding *out),
               void *context, enum weft_status *status)
{
    *status = WEFT_OK;
    struct binding *newest = atomic_load_explicit(list, memory_order_acquire);
    if (newest && newest->attachment == a)
        return newest;
    pthread_mutex_lock(&w->lock);
    newest = atomic_load_explicit(list, memory_order_relaxed);
    if (!newest || newest->attachment != a) {
        struct binding *made = wf_calloc(1, sizeof *made, "a handle's registration");
        *status = made ? ask(context, a, made) : WEFT_E_NO_MEMORY;
        if (*status == WEFT_OK) {
            made->attachment = a;
            made->next = newest;
            /* Release: pairs with the acquire above. */
            atomic_store_explicit(list, made, memory_order_release);
            newest = made;
        } else {
            free(made);
        }
    }
    pthread_mutex_unlock(&w->lock);
    return *status == WEFT_OK ? newest : NULL;
}

void wf_bindings_free(struct binding *list)
{
    while (list) {
        struct binding *next = list->next;
        free(list);
        list = next;
    }
}

static enum weft_status format_ask(void *context, struct attachment *a, struct binding *out)
{
    struct weft_format *f = context;
    struct weft *w = f->weft;
    memcpy(w->request, &f->request, sizeof f->request);
    enum weft_status status = wf_client_exchange(w, a, WF_OP_FORMAT_OPEN, sizeof f->request,
                                                 sizeof(struct wf_format_answer), NULL, NULL);
    if (status != WEFT_OK)
        return status;
    const struct wf_format_answer *answer =
        (const struct wf_format_answer *)(const void *)w->answer;
    if (answer->block_bytes != f->block_bytes || answer->layer_bytes != f->layer_bytes)
        return wf_fail(WEFT_E_PROTOCOL,
                       "node and library disagree on a block's size: %llu and %llu bytes",
                       (unsigned long long)answer->block_bytes, (unsigned long long)f->block_bytes);
    if (answer->quality < WEFT_LOSSLESS || answer->quality > WEFT_ECONOMY)
        return wf_fail(WEFT_E_PROTOCOL, "the node says that a format has quality %u, which is none",
                       answer->quality);
    out->id = answer->format;
    out->quality = (enum weft_quality)answer->quality;
    memcpy(out->root, answer->root, sizeof out->root);
    return WEFT_OK;
}

const struct binding *wf_format_bind(struct weft_format *f, struct attachment *a,
                                     enum weft_status *status)
{
    return wf_binding_get(f->weft, &f->binding, a, format_ask, f, status);
}

static void request_fill(struct wf_format_open *request, const struct weft_format_spec *spec)
{
    memset(request, 0, sizeof *request);
    request->layers = spec->layers;
    request->kv_heads = spec->kv_heads;
    request->head_dim = spec->head_dim;
    request->dtype = (uint32_t)spec->dtype;
    request->block_tokens = spec->block_tokens;
    request->tp_rank = spec->tp_rank;
    request->tp_size = spec->tp_size;
    request->rope_theta = spec->rope_theta;
    request->block_bytes = spec->block_bytes;
    request->quality = (uint32_t)spec->quality;
    request->model_bytes = (uint32_t)strlen(spec->model);
    memcpy(request->model, spec->model, request->model_bytes);
    if (spec->rope_scaling) {
        request->scaling_bytes = (uint32_t)strlen(spec->rope_scaling);
        memcpy(request->scaling, spec->rope_scaling, request->scaling_bytes);
    }
    request->adapter_bytes = spec->adapter ? (uint32_t)spec->adapter_bytes : 0;
    if (request->adapter_bytes)
        memcpy(request->adapter, spec->adapter, request->adapter_bytes);
    request->salt_bytes = spec->salt ? (uint32_t)spec->salt_bytes : 0;
    if (request->salt_bytes)
        memcpy(request->salt, spec->salt, request->salt_bytes);
}

enum weft_status weft_format_open(struct weft *w, const struct weft_format_spec *spec,
                                  struct weft_format **out)
{
    enum weft_status status = wf_identity_spec_check(spec);
    if (status != WEFT_OK)
        return status;
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    struct weft_format *f = wf_calloc(1, sizeof *f, "a format");
    if (!f)
        return WEFT_E_NO_MEMORY;
    f->weft = w;
    f->block_bytes = wf_identity_block_bytes(spec);
    f->layer_bytes = wf_identity_layer_bytes(spec);
    request_fill(&f->request, spec);
    if (!wf_format_bind(f, a, &status)) {
        free(f);
        return status;
    }
    *out = f;
    return WEFT_OK;
}

void weft_format_close(struct weft_format *f)
{
    if (!f)
        return;
    wf_bindings_free(atomic_load_explicit(&f->binding, memory_order_relaxed));
    free(f);
}

size_t weft_format_block_bytes(const struct weft_format *f)
{
    return f->block_bytes;
}

size_t weft_format_layer_bytes(const struct weft_format *f)
{
    return f->layer_bytes;
}

enum weft_quality weft_format_quality(const struct weft_format *f)
{
    /* Acquire: pairs with the release in wf_binding_get().  One was made when it was opened. */
    return atomic_load_explicit(&f->binding, memory_order_acquire)->quality;
}

/* ---------------------------------------------------------------------------------------- keys */

enum weft_status weft_keys_from_tokens(struct weft_format *f, const struct weft_key *parent,
                                       const uint32_t *tokens, size_t token_count,
                                       const struct weft_key *extra, struct weft_key *out)
{
    const uint8_t *from = parent ? parent->bytes : NULL;
    if (!from) {
        enum weft_status status;
        struct attachment *a = wf_client_attach(f->weft, &status);
        const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
        if (!binding)
            return status;
        from = binding->root;
    }
    uint32_t block_tokens = f->request.block_tokens;
    wf_identity_chain(from, tokens, token_count / block_tokens, block_tokens,
                      extra ? extra->bytes : NULL, out->bytes);
    return WEFT_OK;
}

enum weft_status weft_key_from_bytes(struct weft_format *f, const void *bytes, size_t length,
                                     struct weft_key *out)
{
    enum weft_status status;
    if (!bytes || length == 0 || length > 4096)
        return wf_fail(WEFT_E_INVALID, "an identity of %zu bytes; give 1 to 4096", length);
    struct attachment *a = wf_client_attach(f->weft, &status);
    const struct binding *binding = a ? wf_format_bind(f, a, &status) : NULL;
    if (!binding)
        return status;
    wf_identity_bytes(binding->root, bytes, length, out->bytes);
    return WEFT_OK;
}
