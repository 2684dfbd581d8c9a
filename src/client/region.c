/* SPDX-License-Identifier: Apache-2.0
 *
 * Regions.  The mapping is this process's own: it stays readable and writable whatever becomes of
 * the node.
 */
#include "client/region.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/size.h"
#include "client/client.h"
#include "sys/memory.h"

struct weft_region {
    struct weft *weft;
    const struct attachment *attachment;
    uint64_t id;
    void *memory;
    size_t bytes;
    bool writable;
};

void *wf_region_memory(const struct weft_region *region)
{
    return region->memory;
}

bool wf_region_writable(const struct weft_region *region)
{
    return region->writable;
}

/* Map the descriptor that came with the answer in w->answer. */
static enum weft_status region_map(struct weft *w, struct attachment *a, int fd,
                                   struct weft_region **out)
{
    const struct wf_region_answer *answer =
        (const struct wf_region_answer *)(const void *)w->answer;
    struct weft_region *region = wf_calloc(1, sizeof *region, "a region");
    if (!region)
        return WEFT_E_NO_MEMORY;
    region->weft = w;
    region->attachment = a;
    region->id = answer->region;
    region->writable = answer->writable != 0;
    region->bytes = wf_file_bytes(fd);
    enum weft_status status = answer->size == region->bytes && region->bytes > 0
                                  ? wf_map(fd, region->bytes, region->writable, &region->memory)
                                  : wf_fail(WEFT_E_PROTOCOL,
                                            "the node sent a region of another size than it says");
    if (status == WEFT_OK && region->bytes >= WF_HUGE_BYTES)
        wf_advise_huge(region->memory, region->bytes);
    if (status == WEFT_OK && region->writable && answer->latency == WEFT_LATENCY_LOW)
        status = wf_populate(region->memory, region->bytes);
    if (status != WEFT_OK) {
        wf_unmap(region->memory, region->bytes);
        free(region);
        return status;
    }
    *out = region;
    return WEFT_OK;
}

/* The node holds it no longer for us; the caller holds the lock. */
static void region_let_go(struct weft *w, struct attachment *a, uint64_t id)
{
    struct wf_region_release *request = (struct wf_region_release *)(void *)w->request;
    request->region = id;
    enum weft_status told = wf_client_exchange(w, a, WF_OP_REGION_RELEASE, sizeof *request,
                                               sizeof(struct wf_message), NULL, NULL);
    (void)told; /* a node that is gone has let go of it anyway */
}

/* The request is in w->request; the caller holds the lock. */
static enum weft_status region_ask(struct weft *w, struct attachment *a, enum wf_op op,
                                   size_t bytes, struct weft_region **out)
{
    int fds[WF_SOCKET_FDS_MAX];
    size_t fd_count = 0;
    enum weft_status status = wf_client_exchange(w, a, op, bytes, sizeof(struct wf_message), fds,
                                                 &fd_count);
    if (status == WEFT_FULL) /* no error, but a sentence came as with one */
        status = wf_fail(status, "%.*s", (int)(w->answer->bytes - sizeof *w->answer),
                         ((const struct wf_text_answer *)(const void *)w->answer)->text);
    if (status == WEFT_OK && w->answer->bytes < sizeof(struct wf_region_answer))
        status = wf_fail(WEFT_E_PROTOCOL, "the node's answer for a region has %u bytes",
                         w->answer->bytes);
    if (status != WEFT_OK) {
        wf_close_all(fds, fd_count);
        return status;
    }
    WF_CRASH("client.region.answered");
    uint64_t id = ((const struct wf_region_answer *)(const void *)w->answer)->region;
    if (fd_count == 1)
        status = region_map(w, a, fds[0], out);
    else
        status = wf_fail(WEFT_E_PROTOCOL, "the node sent %zu descriptors for a region", fd_count);
    wf_close_all(fds, fd_count);
    if (status != WEFT_OK)
        region_let_go(w, a, id);
    return status;
}

static enum weft_status name_check(const char *name)
{
    if (name && strlen(name) >= WF_NAME_BYTES)
        return wf_fail(WEFT_E_INVALID, "a region's name '%.32s…' has %zu bytes; give up to %d",
                       name, strlen(name), WF_NAME_BYTES - 1);
    return WEFT_OK;
}

enum weft_status weft_allocate(struct weft *w, const char *size, enum weft_latency latency,
                               enum weft_share share, const char *name,
                               struct weft_region **out_region, void **out_memory)
{
    uint64_t bytes = 0;
    enum weft_status status = wf_size_parse(size, &bytes);
    if (status == WEFT_OK)
        status = name_check(name);
    struct attachment *a = status == WEFT_OK ? wf_client_attach(w, &status) : NULL;
    if (!a)
        return status;
    struct weft_region *region = NULL;
    pthread_mutex_lock(&w->lock);
    struct wf_region_create *request = (struct wf_region_create *)(void *)w->request;
    memset(request, 0, sizeof *request);
    request->size = bytes;
    request->latency = (uint32_t)latency;
    request->share = (uint32_t)share;
    if (name)
        memcpy(request->name, name, strlen(name));
    status = region_ask(w, a, WF_OP_REGION_CREATE, sizeof *request, &region);
    pthread_mutex_unlock(&w->lock);
    if (status != WEFT_OK)
        return status;
    *out_region = region;
    *out_memory = region->memory;
    return WEFT_OK;
}

enum weft_status weft_region_open(struct weft *w, const char *name, struct weft_region **out_region,
                                  void **out_memory, int *out_writable)
{
    enum weft_status status = name && *name
                                  ? name_check(name)
                                  : wf_fail(WEFT_E_INVALID, "a region to open needs a name");
    struct attachment *a = status == WEFT_OK ? wf_client_attach(w, &status) : NULL;
    if (!a)
        return status;
    struct weft_region *region = NULL;
    pthread_mutex_lock(&w->lock);
    struct wf_region_open *request = (struct wf_region_open *)(void *)w->request;
    memset(request, 0, sizeof *request);
    memcpy(request->name, name, strlen(name));
    status = region_ask(w, a, WF_OP_REGION_OPEN, sizeof *request, &region);
    pthread_mutex_unlock(&w->lock);
    if (status != WEFT_OK)
        return status;
    *out_region = region;
    *out_memory = region->memory;
    if (out_writable)
        *out_writable = region->writable;
    return WEFT_OK;
}

size_t weft_region_bytes(const struct weft_region *region)
{
    return region->bytes;
}

void weft_release(struct weft_region *region)
{
    if (!region)
        return;
    struct weft *w = region->weft;
    if (!wf_client_forked(w)) {
        pthread_mutex_lock(&w->lock);
        struct attachment *a = atomic_load_explicit(&w->current, memory_order_relaxed);
        if (a == region->attachment)
            region_let_go(w, a, region->id);
        pthread_mutex_unlock(&w->lock);
    }
    wf_unmap(region->memory, region->bytes);
    free(region);
}
