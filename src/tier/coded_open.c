/* SPDX-License-Identifier: Apache-2.0
 *
 * A tier that codes, put together and taken apart: all of it but the tier behind.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/reserve.h"
#include "sys/memory.h"
#include "tier/coded_inner.h"

#define MEMORY_BYTES_LEAST (1u << 20)

enum weft_status wf_coded_check(const struct wf_tier_options *options)
{
    enum weft_status status = wf_tier_check_options(options);
    const struct wf_coded_options *coded = options->coded;
    if (status != WEFT_OK)
        return status;
    if (!coded || !coded->ops)
        return wf_fail(WEFT_E_INVALID, "tier %s: nothing is behind it; name the ops that are",
                       options->path);
    if (coded->workers > WF_CODED_WORKERS_MAX)
        return wf_fail(WEFT_E_INVALID, "tier %s: %u codec threads; give %u at most", options->path,
                       coded->workers, WF_CODED_WORKERS_MAX);
    if (coded->memory_bytes < MEMORY_BYTES_LEAST || coded->memory_bytes % WF_TIER_ALIGN ||
        !coded->part_bytes || coded->part_bytes % WF_TIER_ALIGN)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: %llu bytes for frames in parts of %u; give %u or more, both "
                       "multiples of %u",
                       options->path, (unsigned long long)coded->memory_bytes, coded->part_bytes,
                       MEMORY_BYTES_LEAST, WF_TIER_ALIGN);
    return WEFT_OK;
}

static bool watch(const struct wf_tier *t, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(t->event, EPOLL_CTL_ADD, fd, &event) == 0;
}

static enum weft_status open_events(struct wf_tier *t)
{
    int behind = t->ops->event(t->behind);
    t->done_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->done_event >= 0 && behind < 0)
        return WEFT_OK; /* the one behind has none: it has to be polled, and so has this */
    t->event = t->done_event < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (t->event < 0 || !watch(t, behind) || !watch(t, t->done_event))
        return wf_fail(WEFT_E_SYSTEM, "tier %s: a descriptor to wait for: %s", t->path,
                       strerror(errno));
    return WEFT_OK;
}

static enum weft_status open_tables(struct wf_tier *t)
{
    t->ops_all = wf_calloc(t->depth, sizeof *t->ops_all, "requests of a tier that codes");
    t->leads_memory = wf_reserve(t->depth * WF_CODED_LEAD_MAX, "tables of frames",
                                 "make the queue shorter");
    t->leads = wf_reserve(WF_CODED_LEADS * sizeof *t->leads, "tables of frames",
                          "make the queue shorter");
    if (!t->ops_all || !t->leads_memory || !t->leads)
        return WEFT_E_NO_MEMORY;
    for (uint32_t i = 0; i < t->depth; i++) {
        t->ops_all[i].lead = t->leads_memory + i * WF_CODED_LEAD_MAX;
        wf_tier_queue_add(&t->free_ops, &t->ops_all[i].behind);
    }
    return WEFT_OK;
}

enum weft_status wf_coded_build(struct wf_tier *t)
{
    enum weft_status status = open_tables(t);
    if (status == WEFT_OK)
        status = open_events(t);
    return status == WEFT_OK ? wf_coded_work_open(t) : status;
}

void wf_coded_dismantle(struct wf_tier *t)
{
    wf_coded_work_free(t);
    if (t->event >= 0)
        close(t->event);
    if (t->done_event >= 0)
        close(t->done_event);
    wf_unreserve(t->leads, WF_CODED_LEADS * sizeof *t->leads);
    wf_unreserve(t->leads_memory, t->depth * WF_CODED_LEAD_MAX);
    free(t->ops_all);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    free(t->path);
    free(t);
}
