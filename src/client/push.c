/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that go to another node while they are written.
 */
#include <string.h>

#include "client/client.h"

enum weft_status weft_push_begin(struct weft_format *f, const struct weft_slot *slots, size_t count,
                                 const char *node, struct weft_push *out)
{
    struct weft *w = f->weft;
    enum weft_status status = WEFT_OK;
    if (!node || !*node || strlen(node) >= WF_NAME_BYTES)
        return wf_fail(WEFT_E_INVALID,
                       "a node's name has 1 to %d characters; weft fabric lists them",
                       WF_NAME_BYTES - 1);
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    pthread_mutex_lock(&w->lock);
    struct wf_push_message *request = (struct wf_push_message *)(void *)w->request;
    memset(request, 0, sizeof *request);
    request->what = WF_PUSH_BEGIN;
    request->layers = f->request.layers;
    memcpy(request->name, node, strlen(node));
    for (size_t i = 0; i < count && request->count < WEFT_BATCH_MAX; i++)
        if (slots[i].status == WEFT_OK && slots[i].epoch == a->epoch)
            request->slots[request->count++] =
                (struct wf_push_slot){.slot = slots[i].slot, .generation = slots[i].generation};
    if (request->count == 0)
        status = WEFT_EXISTS;
    else
        status = wf_client_exchange(w, a, WF_OP_PUSH,
                                    sizeof *request + request->count * sizeof request->slots[0],
                                    sizeof(struct wf_count_answer), NULL, NULL);
    if (status == WEFT_OK)
        *out = (struct weft_push){
            .weft = w,
            .number = ((const struct wf_count_answer *)(const void *)w->answer)->count,
            .epoch = a->epoch,
            .layers = f->request.layers};
    pthread_mutex_unlock(&w->lock);
    return status;
}

enum weft_status weft_push_layers(struct weft_push *push, uint32_t layers)
{
    struct weft *w = push->weft;
    enum weft_status status = WEFT_OK;
    if (!w || layers == 0 || layers > push->layers)
        return wf_fail(WEFT_E_INVALID, "%u layers are written of %u", layers, w ? push->layers : 0);
    struct attachment *a = wf_client_attach(w, &status);
    if (!a)
        return status;
    if (a->epoch != push->epoch)
        return WEFT_MISS; /* the node was lost, and the push with it */
    pthread_mutex_lock(&w->lock);
    struct wf_push_message *request = (struct wf_push_message *)(void *)w->request;
    memset(request, 0, sizeof *request);
    request->what = WF_PUSH_WRITTEN;
    request->layers = layers;
    request->push = push->number;
    status = wf_client_exchange(w, a, WF_OP_PUSH, sizeof *request, sizeof(struct wf_count_answer),
                                NULL, NULL);
    pthread_mutex_unlock(&w->lock);
    return status;
}
