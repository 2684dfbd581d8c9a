/* SPDX-License-Identifier: Apache-2.0
 *
 * The file or device below the NVMe tier, and I/O on it through io_uring.
 *
 * Writes go out as one vectored write of a header of ours and the caller's own memory.  Reads of
 * whole pages into registered memory use it as such; ranges that begin inside a page go through a
 * second, buffered descriptor, where the kernel does the copying that O_DIRECT forbids.
 */
#include "tier/nvme_log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hooks.h"
#include "base/log.h"
#include "sys/memory.h"

#define BUFFER_PIECE ((uint64_t)1 << 30) /* what one registered buffer may have, at most */
#define BUFFERS_MAX 1024u
#define LOCK_TRIES 100

void *wf_nvme_pages(uint64_t bytes, const char *what)
{
    void *memory = WF_FAILS("mmap") ? MAP_FAILED
                                    : mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        (void)wf_fail(WEFT_E_NO_MEMORY, "no memory of %llu bytes for %s; lower the queue depth",
                      (unsigned long long)bytes, what);
        return NULL;
    }
    return memory;
}

static enum weft_status system_failed(const char *what, const char *path)
{
    return wf_fail(WEFT_E_SYSTEM, "tier %s: %s: %s; check path, rights and space", path, what,
                   strerror(errno));
}

static enum weft_status path_of(struct wf_nvme *t, const char *path)
{
    struct stat there;
    char name[4096];
    bool directory = stat(path, &there) == 0 && S_ISDIR(there.st_mode);
    int length = snprintf(name, sizeof name, "%s%s", path, directory ? "/nvme.weft" : "");
    if (length < 0 || (size_t)length >= sizeof name)
        return wf_fail(WEFT_E_INVALID, "the path of a tier has more than %zu letters; shorten it",
                       sizeof name - 1);
    t->path = wf_strdup(name, "a tier's path");
    return t->path ? WEFT_OK : WEFT_E_NO_MEMORY;
}

/* Some file systems take the flag and refuse the I/O, so one page is read. */
static int open_direct(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
    if (fd < 0)
        return -1;
    void *page = wf_nvme_pages(WF_NVME_PAGE, "a page");
    bool works = page && pread(fd, page, WF_NVME_PAGE, 0) >= 0;
    if (page)
        munmap(page, WF_NVME_PAGE);
    if (works)
        return fd;
    close(fd);
    return -1;
}

enum weft_status wf_nvme_medium_open(struct wf_nvme *t, const struct wf_tier_options *options,
                                     uint64_t *out_bytes)
{
    enum weft_status status = path_of(t, options->path);
    if (status != WEFT_OK)
        return status;
    t->fd_buffered = open(t->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (t->fd_buffered < 0)
        return system_failed("cannot be opened", t->path);
    /* A process that was killed may hold it for the moment that its ring takes to end. */
    for (int tries = 0; flock(t->fd_buffered, LOCK_EX | LOCK_NB) != 0; tries++) {
        if (tries < LOCK_TRIES) {
            usleep(10000);
            continue;
        }
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: in use by another process; end that, or give "
                       "another path",
                       t->path);
    }
    (void)posix_fadvise(t->fd_buffered, 0, 0, POSIX_FADV_RANDOM);
    t->fd = open_direct(t->path);
    if (t->fd < 0) {
        wf_info("nvme", "%s: its file system refuses O_DIRECT; going through the page cache",
                t->path);
        t->fd = t->fd_buffered;
    }
    struct stat there;
    if (fstat(t->fd_buffered, &there) != 0)
        return system_failed("has no size", t->path);
    uint64_t bytes = (uint64_t)there.st_size;
    if (S_ISBLK(there.st_mode) && ioctl(t->fd_buffered, BLKGETSIZE64, &bytes) != 0)
        return system_failed("has no size", t->path);
    if (!S_ISBLK(there.st_mode) && !S_ISREG(there.st_mode))
        return wf_fail(WEFT_E_INVALID, "tier %s: is neither a file nor a block device; give one",
                       t->path);
    *out_bytes = bytes;
    return WEFT_OK;
}

/* Have room for `bytes` set aside, so that no write finds the file system full. */
enum weft_status wf_nvme_medium_extend(struct wf_nvme *t, uint64_t bytes)
{
    struct stat there;
    if (fstat(t->fd_buffered, &there) != 0)
        return system_failed("has no size", t->path);
    if (S_ISBLK(there.st_mode))
        return WEFT_OK;
    int error = posix_fallocate(t->fd_buffered, 0, (off_t)bytes);
    if (error) {
        errno = error;
        return system_failed("no room could be set aside", t->path);
    }
    return WEFT_OK;
}

/* Registered memory saves pinning its pages at every read.  It is counted against the process's
 * locked memory and may be refused; all works without. */
static void register_buffers(struct wf_nvme *t, const struct wf_tier_options *options)
{
    uint64_t pieces = (options->buffers_bytes + BUFFER_PIECE - 1) / BUFFER_PIECE;
    if (!options->buffers || pieces > BUFFERS_MAX)
        return;
    struct iovec *vector = wf_calloc(pieces, sizeof *vector, "registered buffers");
    if (!vector)
        return;
    for (uint64_t i = 0; i < pieces; i++) {
        uint64_t left = options->buffers_bytes - i * BUFFER_PIECE;
        vector[i].iov_base = (uint8_t *)options->buffers + i * BUFFER_PIECE;
        vector[i].iov_len = left < BUFFER_PIECE ? left : BUFFER_PIECE;
    }
    int error = io_uring_register_buffers(&t->ring, vector, (unsigned)pieces);
    free(vector);
    if (error) {
        wf_info("nvme",
                "%s: the pool could not be registered with the device: %s; raise the "
                "limit of locked memory to save some time a read",
                t->path, strerror(-error));
        return;
    }
    t->buffers = options->buffers;
    t->buffers_bytes = options->buffers_bytes;
    t->buffers_count = (uint32_t)pieces;
}

enum weft_status wf_nvme_ring_open(struct wf_nvme *t, const struct wf_tier_options *options)
{
    int error = io_uring_queue_init(2 * t->ios_count, &t->ring, 0);
    if (error)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: io_uring: %s; allow it (kernel.io_uring_disabled, "
                       "seccomp, locked memory)",
                       t->path, strerror(-error));
    t->ring_ready = true;
    t->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->event < 0)
        return system_failed("eventfd", t->path);
    error = io_uring_register_eventfd(&t->ring, t->event);
    if (error)
        return wf_fail(WEFT_E_SYSTEM, "tier %s: io_uring gives no events: %s; use a newer kernel",
                       t->path, strerror(-error));
    int files[2] = {t->fd, t->fd_buffered};
    t->registered = io_uring_register_files(&t->ring, files, 2) == 0;
    register_buffers(t, options);
    return WEFT_OK;
}

void wf_nvme_medium_close(struct wf_nvme *t)
{
    if (t->ring_ready)
        io_uring_queue_exit(&t->ring);
    if (t->event >= 0)
        close(t->event);
    if (t->fd >= 0 && t->fd != t->fd_buffered)
        close(t->fd);
    if (t->fd_buffered >= 0) {
        /* The ring lets go of its files later than this returns. */
        (void)flock(t->fd_buffered, LOCK_UN);
        close(t->fd_buffered);
    }
    free(t->path);
}

enum weft_status wf_nvme_pread(struct wf_nvme *t, void *into, uint64_t bytes, uint64_t offset)
{
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t n = pread(t->fd, (uint8_t *)into + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return system_failed("cannot be read", t->path);
        done += (uint64_t)n;
    }
    return WEFT_OK;
}

enum weft_status wf_nvme_pwrite(struct wf_nvme *t, const void *from, uint64_t bytes,
                                uint64_t offset)
{
    uint64_t done = 0;
    while (done < bytes) {
        ssize_t n = pwrite(t->fd, (const uint8_t *)from + done, bytes - done,
                           (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return system_failed("cannot be written", t->path);
        done += (uint64_t)n;
    }
    t->stats.device_write_bytes += bytes;
    return WEFT_OK;
}

struct wf_nvme_io *wf_nvme_io_get(struct wf_nvme *t, enum wf_nvme_io_kind kind)
{
    if (t->ios_free == WF_NVME_NONE)
        return NULL;
    struct wf_nvme_io *io = &t->ios[t->ios_free];
    t->ios_free = io->next;
    t->ios_busy++;
    io->kind = kind;
    io->request = NULL;
    io->tries = io->vectors = 0;
    io->buffer = -1;
    io->buffered = io->with_header = io->write = false;
    return io;
}

void wf_nvme_io_put(struct wf_nvme *t, struct wf_nvme_io *io)
{
    io->kind = WF_NVME_IO_NONE;
    io->next = t->ios_free;
    t->ios_free = (uint32_t)(io - t->ios);
    t->ios_busy--;
}

int wf_nvme_buffer_of(const struct wf_nvme *t, const void *data, uint64_t bytes)
{
    uint64_t at = (uint64_t)((uintptr_t)data - (uintptr_t)t->buffers);
    if (!t->buffers_count || (uintptr_t)data < (uintptr_t)t->buffers || at >= t->buffers_bytes ||
        bytes > t->buffers_bytes - at || at / BUFFER_PIECE != (at + bytes - 1) / BUFFER_PIECE)
        return -1;
    return (int)(at / BUFFER_PIECE);
}

/* The ring has two entries for each I/O that there can be, so there is always one. */
static struct io_uring_sqe *entry_of(struct wf_nvme *t)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&t->ring);
    while (!sqe) {
        io_uring_submit(&t->ring);
        sqe = io_uring_get_sqe(&t->ring);
    }
    return sqe;
}

void wf_nvme_io_start(struct wf_nvme *t, struct wf_nvme_io *io)
{
    struct io_uring_sqe *sqe = entry_of(t);
    int fd = io->buffered ? t->fd_buffered : t->fd;
    const struct iovec *v = io->vector;
    io->expected = 0;
    for (uint32_t i = 0; i < io->vectors; i++)
        io->expected += v[i].iov_len;
    if (io->buffer >= 0 && io->vectors == 1 && io->write)
        io_uring_prep_write_fixed(sqe, fd, v->iov_base, (unsigned)v->iov_len, io->offset,
                                  io->buffer);
    else if (io->buffer >= 0 && io->vectors == 1)
        io_uring_prep_read_fixed(sqe, fd, v->iov_base, (unsigned)v->iov_len, io->offset,
                                 io->buffer);
    else if (io->write)
        io_uring_prep_writev(sqe, fd, v, io->vectors, io->offset);
    else
        io_uring_prep_readv(sqe, fd, v, io->vectors, io->offset);
    if (t->registered) {
        sqe->fd = io->buffered ? 1 : 0;
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    io_uring_sqe_set_data(sqe, io);
    io_uring_submit(&t->ring);
}

void wf_nvme_io_sync(struct wf_nvme *t, struct wf_nvme_io *io)
{
    struct io_uring_sqe *sqe = entry_of(t);
    io_uring_prep_fsync(sqe, t->fd, IORING_FSYNC_DATASYNC);
    if (t->registered) {
        sqe->fd = 0;
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    io->expected = 0;
    io_uring_sqe_set_data(sqe, io);
    io_uring_submit(&t->ring);
}
