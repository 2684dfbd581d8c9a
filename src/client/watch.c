/* SPDX-License-Identifier: Apache-2.0
 *
 * weft_watch_*: watched records on a region that this process has mapped.  The records themselves,
 * their layout and their memory order are shm/watch.h's.
 *
 * No call here talks to the node, so records flow on while it is away.
 */
#include <stdlib.h>

#include "client/region.h"
#include "shm/watch.h"
#include "sys/memory.h"

struct weft_watch {
    struct wf_watch watch;
    bool writer;
};

static enum weft_status open_with(const struct weft_region *region, bool writer,
                                  size_t record_bytes, struct weft_watch **out)
{
    if (!region)
        return wf_fail(WEFT_E_INVALID, "the region to watch is NULL; open or allocate one first");
    if (writer && !wf_region_writable(region))
        return wf_fail(WEFT_E_DENIED, "the region is mapped read-only here; only its creator, or "
                                      "anyone with WEFT_SHARE_COHERENT, may publish");
    struct weft_watch *watch = wf_calloc(1, sizeof *watch, "a watch");
    if (!watch)
        return WEFT_E_NO_MEMORY;
    void *memory = wf_region_memory(region);
    size_t bytes = weft_region_bytes(region);
    watch->writer = writer;
    enum weft_status status = writer ? wf_watch_format(memory, bytes, record_bytes, &watch->watch)
                                     : wf_watch_attach(memory, bytes, &watch->watch);
    if (status != WEFT_OK) {
        free(watch);
        return status;
    }
    *out = watch;
    return WEFT_OK;
}

enum weft_status weft_watch_create(struct weft_region *region, size_t record_bytes,
                                   struct weft_watch **out)
{
    return open_with(region, true, record_bytes, out);
}

enum weft_status weft_watch_open(struct weft_region *region, struct weft_watch **out)
{
    return open_with(region, false, 0, out);
}

void weft_watch_close(struct weft_watch *watch)
{
    free(watch);
}

enum weft_status weft_watch_publish(struct weft_watch *watch, const void *record, size_t bytes)
{
    if (!watch || !watch->writer)
        return wf_fail(WEFT_E_INVALID, "this watch only reads; publish on one that "
                                       "weft_watch_create made");
    if (bytes && !record)
        return wf_fail(WEFT_E_INVALID, "the record is NULL but has %zu bytes; give both or neither",
                       bytes);
    return wf_watch_publish(&watch->watch, record, bytes);
}

enum weft_status weft_watch_next(struct weft_watch *watch, uint64_t *sequence, void *record,
                                 size_t capacity, size_t *out_bytes, uint32_t spin_us,
                                 uint32_t timeout_ms)
{
    if (!watch || !sequence || !out_bytes || (capacity && !record))
        return wf_fail(WEFT_E_INVALID, "weft_watch_next needs a watch, a sequence, a buffer and "
                                       "a place for the length; one of them is NULL");
    return wf_watch_next(&watch->watch, sequence, record, capacity, out_bytes, spin_us, timeout_ms);
}
