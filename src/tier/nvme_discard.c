/* SPDX-License-Identifier: Apache-2.0
 *
 * Freed segments of the NVMe tier, told to the device as unused (BLKDISCARD), so that its own
 * reclaim need not carry along what nobody will read.
 *
 * Only a block device is told.  The blocks of a file are set aside on purpose, so that no write
 * finds its file system full.
 *
 * What a discard takes is gone at once, whatever the power does.  So a segment is marked only when
 * a sync has made it durable that its header says free, which comes after the sync of what moved
 * out of it; its header stays; and it is told while it is free, from the thread that would take it
 * into use.  A crash at any instruction then finds a segment that is free with or without its old
 * bytes.  A segment that is only taken for free, because its header is not whole, is not marked.
 *
 * The call waits for the device.  It is made when nothing is asked of the tier and nothing moves, a
 * piece at a time, and after each the tier is left alone for ten times as long as that took.  There
 * is no clock of its own: what is still marked when nothing happens any more stays so, which costs
 * the device some wear and nobody a byte; so it is when the tier is closed.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "sys/clock.h"

#define PIECE (16u << 20)
#define PACE_MS 20u
#define REST 10u /* times what the last one took */

void wf_nvme_discard_mark(struct wf_nvme *t, uint32_t segment)
{
    struct wf_nvme_seg *s = &t->segment[segment];
    t->discard.count += !s->freed;
    s->freed = true;
}

void wf_nvme_discard_unmark(struct wf_nvme *t, uint32_t segment)
{
    struct wf_nvme_seg *s = &t->segment[segment];
    t->discard.count -= s->freed;
    s->freed = false;
    if (t->discard.segment == segment)
        t->discard.done = 0;
}

void wf_nvme_discard_step(struct wf_nvme *t)
{
    struct wf_nvme_discard *d = &t->discard;
    if (!d->on || !d->count || t->stats.in_flight || t->waiting.first || t->leaving ||
        t->reclaim.step != WF_NVME_IDLE)
        return;
    uint64_t begun_ms = wf_now_ms();
    if (begun_ms < d->next_ms)
        return;
    while (!t->segment[d->segment].freed)
        d->segment = (d->segment + 1) % t->segments;
    uint64_t at = WF_NVME_RECORDS_AT + d->done, bytes = t->segment_bytes - at;
    if (bytes > PIECE)
        bytes = PIECE;
    int result = wf_nvme_unused(t, wf_nvme_segment_at(t, d->segment) + at, bytes);
    if (result < 0) {
        wf_info("nvme", "%s: the device is not told of what is unused: %s", t->path,
                strerror(-result));
        d->on = false;
        return;
    }
    d->done += bytes;
    if (at + bytes == t->segment_bytes)
        wf_nvme_discard_unmark(t, d->segment);
    uint64_t took_ms = wf_now_ms() - begun_ms;
    d->next_ms = begun_ms + took_ms + (took_ms * REST > PACE_MS ? took_ms * REST : PACE_MS);
}
