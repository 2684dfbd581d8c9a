/* SPDX-License-Identifier: Apache-2.0
 *
 * A medium that forgets at a crash what no sync made durable: of each write since, whole, in part
 * (512 bytes or 4 KiB at a time) or not at all, by seed.
 *
 * It stands between the NVMe tier and the kernel (tier/nvme_hooks.h) and keeps, of every write that
 * no sync covers, what was there before.  One tier at a time.
 */
#ifndef TEST_SUPPORT_TORN_H
#define TEST_SUPPORT_TORN_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "random.h"
#include "tier/nvme_hooks.h"

struct torn_write {
    uint64_t offset, bytes;
    uint8_t *old;
    bool ended, covered; /* by the sync under way */
};

struct torn {
    struct wf_nvme_hooks hooks;
    struct random_source random;
    char path[300];
    bool dead; /* nothing reaches it any more */
    struct torn_write *writes;
    uint32_t count, room;
    uint64_t restored; /* pieces that were lost, in all */
};

static inline int torn_before(void *context, const struct wf_nvme_call *call)
{
    struct torn *m = context;
    if (m->dead)
        return -ENODEV;
    /* Some take their time, so that they end in another order and whoever does not wait is seen. */
    int held = random_below(&m->random, call->what == WF_NVME_CALL_SYNC ? 2 : 16) == 0
                   ? 1 + (int)random_below(&m->random, 800)
                   : 0;
    if (call->what == WF_NVME_CALL_SYNC)
        for (uint32_t i = 0; i < m->count; i++)
            m->writes[i].covered = m->writes[i].ended;
    if (call->what != WF_NVME_CALL_WRITE)
        return held;
    if (m->count == m->room) {
        m->room = m->room ? 2 * m->room : 256;
        m->writes = realloc(m->writes, m->room * sizeof *m->writes);
    }
    struct torn_write *w = &m->writes[m->count++];
    *w = (struct torn_write){.offset = call->offset, .bytes = call->bytes};
    w->old = calloc(1, call->bytes);
    assert(w->old);
    ssize_t had = pread(call->fd, w->old, call->bytes, (off_t)call->offset);
    return had < 0 ? -errno : held;
}

static inline int torn_after(void *context, const struct wf_nvme_call *call, int result)
{
    struct torn *m = context;
    uint32_t kept = 0;
    if (call->what == WF_NVME_CALL_WRITE) {
        for (uint32_t i = 0; i < m->count; i++)
            if (!m->writes[i].ended && m->writes[i].offset == call->offset)
                m->writes[i].ended = true;
    } else if (call->what == WF_NVME_CALL_SYNC && result == 0 && !m->dead) {
        for (uint32_t i = 0; i < m->count; i++) {
            if (m->writes[i].covered)
                free(m->writes[i].old);
            else
                m->writes[kept++] = m->writes[i];
        }
        m->count = kept;
    }
    return result;
}

static inline void torn_begin(struct torn *m, const char *path, uint64_t seed)
{
    *m = (struct torn){.hooks = {m, torn_before, torn_after}, .random = {seed}};
    snprintf(m->path, sizeof m->path, "%s", path);
}

static inline void torn_forget(struct torn *m)
{
    while (m->count)
        free(m->writes[--m->count].old);
}

static inline void torn_end(struct torn *m)
{
    torn_forget(m);
    free(m->writes);
    m->writes = NULL;
    m->room = 0;
}

/* The tier is closed, its last I/O refused.  The youngest write is undone first. */
static inline void torn_lose(struct torn *m)
{
    int fd = open(m->path, O_RDWR | O_CLOEXEC);
    assert(fd >= 0);
    for (uint32_t i = m->count; i-- > 0;) {
        const struct torn_write *w = &m->writes[i];
        uint64_t piece = random_below(&m->random, 2) ? 512 : 4096;
        uint32_t fate = random_below(&m->random, 4); /* kept, lost, torn, torn */
        for (uint64_t at = 0; fate && at < w->bytes; at += piece) {
            uint64_t bytes = w->bytes - at < piece ? w->bytes - at : piece;
            if (fate > 1 && random_below(&m->random, 2))
                continue;
            m->restored++;
            if (pwrite(fd, w->old + at, bytes, (off_t)(w->offset + at)) != (ssize_t)bytes)
                abort();
        }
    }
    fsync(fd);
    close(fd);
    torn_forget(m);
    m->dead = false;
}

#endif
