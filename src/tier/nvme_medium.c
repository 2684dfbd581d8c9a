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
#include <stdatomic.h>
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
#include "sys/clock.h"
#include "sys/memory.h"
#include "tier/nvme_hooks.h"
#include "tier/nvme_tests.h"

#define BUFFER_PIECE ((uint64_t)1 << 30) /* what one registered buffer may have, at most */
#define BUFFERS_MAX 1024u
#define LOOK_MS 1000
#define LOCK_TRIES 300 /* of 10 ms each: a killed process gives its memory back first */

/* A ring may get the address of one that another thread has ended.  The kernel puts the one after
 * the other; this says so to a sanitizer, which does not see liburing unmap. */
static _Atomic uint64_t rings_ended;

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

/* A file that is not there yet is made as large as was said, or not at all. */
static enum weft_status check_new(const struct wf_nvme *t, const struct wf_tier_options *options)
{
    struct stat there;
    if (stat(t->path, &there) == 0 && (!S_ISREG(there.st_mode) || there.st_size))
        return WEFT_OK;
    if (options->capacity_bytes == 0)
        return wf_fail(WEFT_E_INVALID, "tier %s: a new file needs a capacity; give one", t->path);
    if (options->capacity_bytes < WF_TIER_NVME_BYTES_LEAST)
        return wf_fail(WEFT_E_INVALID,
                       "tier %s: a capacity of %llu bytes is too small; give %u or more", t->path,
                       (unsigned long long)options->capacity_bytes, WF_TIER_NVME_BYTES_LEAST);
    return WEFT_OK;
}

/* The kernel refuses a block device that is mounted or a part of something (O_EXCL without O_CREAT,
 * open(2)).  A tier that was closed, or a process that was killed, may hold it for the moment that
 * its ring takes to end.  A file is made when it is not there; but not `again`, by a node that had
 * it: it may be below a mount that is gone, and what was archived in it put back yet. */
static int open_medium(struct wf_nvme *t, bool again)
{
    struct stat there;
    bool found = stat(t->path, &there) == 0, device = found && S_ISBLK(there.st_mode);
    int fd = -1;
    for (int tries = 0; tries < LOCK_TRIES; tries++) {
        fd = open(t->path, O_RDWR | O_CLOEXEC | (device ? O_EXCL : again ? 0 : O_CREAT), 0600);
        if (fd >= 0 || errno != EBUSY)
            break;
        usleep(10000);
    }
    t->made = fd >= 0 && !found;
    return fd;
}

/* What is in a tier is its user's alone: so is a file that is taken as new, whoever made it.  One
 * that has something in it is left as it is. */
static void keep_private(const struct wf_nvme *t, const struct stat *there)
{
    if (!S_ISREG(there->st_mode) || !(there->st_mode & (S_IRWXG | S_IRWXO)))
        return;
    if (there->st_size == 0 && there->st_uid == geteuid() && fchmod(t->fd_buffered, 0600) == 0)
        return;
    wf_warn("nvme",
            "%s: others than its owner may open it (mode %04o), and read what is in it; "
            "chmod 600 it unless that is meant",
            t->path, (unsigned)(there->st_mode & 07777));
}

enum weft_status wf_nvme_medium_open(struct wf_nvme *t, const struct wf_tier_options *options,
                                     uint64_t *out_bytes)
{
    enum weft_status status = path_of(t, options->path);
    if (status == WEFT_OK)
        status = check_new(t, options);
    if (status != WEFT_OK)
        return status;
    wf_nvme_tests_begin();
    t->fd_buffered = open_medium(t, options->held != 0);
    if (t->fd_buffered < 0 && errno == EBUSY)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: the device is mounted, or in use otherwise, and would be "
                       "overwritten; unmount it, or give another path",
                       t->path);
    if (t->fd_buffered < 0 && errno == ENOENT && options->held)
        return wf_fail(WEFT_E_SYSTEM,
                       "tier %s: its file is gone, and what was in it; put it back, or make an "
                       "empty one there to begin anew",
                       t->path);
    if (t->fd_buffered < 0)
        return system_failed("cannot be opened", t->path);
    /* So may a file's lock be held. */
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
    keep_private(t, &there);
    uint64_t bytes = (uint64_t)there.st_size;
    if (S_ISBLK(there.st_mode) && ioctl(t->fd_buffered, BLKGETSIZE64, &bytes) != 0)
        return system_failed("has no size", t->path);
    if (!S_ISBLK(there.st_mode) && !S_ISREG(there.st_mode))
        return wf_fail(WEFT_E_INVALID, "tier %s: is neither a file nor a block device; give one",
                       t->path);
    t->discard.on = options->discard && S_ISBLK(there.st_mode);
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
        /* What was set aside before the file system was full is given back, as far as we added it.
         */
        if (ftruncate(t->fd_buffered, there.st_size) != 0)
            error = errno;
        errno = error;
        return system_failed("no room could be set aside", t->path);
    }
    return WEFT_OK;
}

enum weft_status wf_nvme_medium_opened(struct wf_nvme *t)
{
    struct stat there;
    if (fstat(t->fd_buffered, &there) != 0)
        return system_failed("has no size", t->path);
    t->file = (struct wf_nvme_file){.known = S_ISREG(there.st_mode),
                                    .device = there.st_dev,
                                    .number = there.st_ino,
                                    .bytes = (uint64_t)there.st_size,
                                    .next_ms = wf_now_ms() + LOOK_MS};
    return WEFT_OK;
}

/* Writes to a file that was deleted, or is below another mount by now, end well, and so does their
 * sync.  A device tells by errors. */
void wf_nvme_medium_look(struct wf_nvme *t)
{
    const struct wf_nvme_file *file = &t->file;
    struct stat there;
    t->file.next_ms = wf_now_ms() + LOOK_MS;
    if (!file->known || t->failed)
        return;
    bool found = stat(t->path, &there) == 0;
    if (!found && errno != ENOENT && errno != ENOTDIR)
        return; /* it cannot be told */
    if (!found)
        wf_nvme_fail_why(t, "its file was deleted or moved while the node used it; put it back, or "
                            "make an empty one there to begin anew");
    else if (there.st_dev != file->device || there.st_ino != file->number)
        wf_nvme_fail_why(t, "another file lies at its path than the node opened; it is opened in "
                            "its place");
    else if ((uint64_t)there.st_size < file->bytes)
        wf_nvme_fail_why(t, "its file was made shorter while the node used it, and what lay "
                            "behind is gone; look at who did that");
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
    (void)atomic_load_explicit(&rings_ended, memory_order_acquire);
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
    if (t->ring_ready) {
        atomic_fetch_add_explicit(&rings_ended, 1, memory_order_release);
        io_uring_queue_exit(&t->ring);
    }
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

/* --------------------------------------------------------------------------- what tests may do */

#if WF_TEST_HOOKS
const struct wf_nvme_hooks *wf_nvme_hooks;

static int before(const struct wf_nvme_call *call)
{
    return wf_nvme_hooks ? wf_nvme_hooks->before(wf_nvme_hooks->context, call) : 0;
}

static int after(const struct wf_nvme_call *call, int result)
{
    return wf_nvme_hooks ? wf_nvme_hooks->after(wf_nvme_hooks->context, call, result) : result;
}
#else
static int before(const struct wf_nvme_call *call)
{
    (void)call;
    return 0;
}

static int after(const struct wf_nvme_call *call, int result)
{
    (void)call;
    return result;
}
#endif

static struct wf_nvme_call call_of(const struct wf_nvme *t, const struct wf_nvme_io *io)
{
    return (struct wf_nvme_call){
        .what = io->kind == WF_NVME_IO_SYNC ? WF_NVME_CALL_SYNC
                : io->write                 ? WF_NVME_CALL_WRITE
                                            : WF_NVME_CALL_READ,
        .kind = (int)io->kind,
        .fd = t->fd_buffered,
        .offset = io->offset,
        .bytes = io->expected,
        .vector = io->vector,
        .vectors = io->vectors,
    };
}

/* ---------------------------------------------------------------------- at once, while opening */

static ssize_t all_of(const struct wf_nvme *t, bool writing, uint8_t *memory, uint64_t bytes,
                      uint64_t offset)
{
    uint64_t done = 0;
    while (done < bytes) {
        off_t at = (off_t)(offset + done);
        ssize_t n = writing ? pwrite(t->fd, memory + done, bytes - done, at)
                            : pread(t->fd, memory + done, bytes - done, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (uint64_t)n;
    }
    return (ssize_t)done;
}

static enum weft_status at_once(struct wf_nvme *t, bool writing, uint8_t *memory, uint64_t bytes,
                                uint64_t offset)
{
    struct iovec vector = {memory, bytes};
    struct wf_nvme_call call = {.what = writing ? WF_NVME_CALL_WRITE : WF_NVME_CALL_READ,
                                .fd = t->fd_buffered,
                                .offset = offset,
                                .bytes = bytes,
                                .vector = &vector,
                                .vectors = 1};
    ssize_t result = before(&call);
    if (result >= 0)
        result = all_of(t, writing, memory, bytes, offset);
    result = after(&call, (int)result);
    if (result == (ssize_t)bytes)
        return WEFT_OK;
    errno = result < 0 ? (int)-result : ENODATA;
    return system_failed(writing ? "cannot be written" : "cannot be read", t->path);
}

enum weft_status wf_nvme_pread(struct wf_nvme *t, void *into, uint64_t bytes, uint64_t offset)
{
    return at_once(t, false, into, bytes, offset);
}

enum weft_status wf_nvme_pwrite(struct wf_nvme *t, void *from, uint64_t bytes, uint64_t offset)
{
    enum weft_status status = at_once(t, true, from, bytes, offset);
    if (status == WEFT_OK)
        t->stats.device_write_bytes += bytes;
    return status;
}

enum weft_status wf_nvme_sync(struct wf_nvme *t)
{
    struct wf_nvme_call call = {.what = WF_NVME_CALL_SYNC, .fd = t->fd_buffered};
    int result = before(&call);
    if (result >= 0)
        result = fdatasync(t->fd) == 0 ? 0 : -errno;
    result = after(&call, result);
    errno = -result;
    return result == 0 ? WEFT_OK : system_failed("fdatasync failed", t->path);
}

int wf_nvme_unused(struct wf_nvme *t, uint64_t offset, uint64_t bytes)
{
    struct wf_nvme_call call = {.what = WF_NVME_CALL_DISCARD,
                                .fd = t->fd_buffered,
                                .offset = offset,
                                .bytes = bytes};
    uint64_t range[2] = {offset, bytes};
    int result = before(&call);
    if (result >= 0)
        result = ioctl(t->fd_buffered, BLKDISCARD, range) == 0 ? 0 : -errno;
    return after(&call, result);
}

/* ----------------------------------------------------------------------------- through the ring */

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
    io->buffered = io->with_header = io->doubted = io->write = io->held = false;
    io->refused = 0;
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

static void prepare(const struct wf_nvme *t, struct wf_nvme_io *io, struct io_uring_sqe *sqe)
{
    int fd = io->buffered ? t->fd_buffered : t->fd;
    const struct iovec *v = io->vector;
    if (io->kind == WF_NVME_IO_SYNC)
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    else if (io->buffer >= 0 && io->vectors == 1 && io->write)
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
}

static void submit(struct wf_nvme *t, struct wf_nvme_io *io, int fate)
{
    struct io_uring_sqe *sqe = entry_of(t);
    io->refused = fate < 0 ? fate : 0;
    io->held = fate > 0;
    if (fate < 0) {
        io_uring_prep_nop(sqe);
    } else if (fate > 0) {
        io->hold = (struct __kernel_timespec){fate / 1000000, fate % 1000000 * 1000LL};
        io_uring_prep_timeout(sqe, &io->hold, 0, 0);
    } else {
        prepare(t, io, sqe);
    }
    io_uring_sqe_set_data(sqe, io);
    io_uring_submit(&t->ring);
}

void wf_nvme_io_start(struct wf_nvme *t, struct wf_nvme_io *io)
{
    io->expected = 0;
    for (uint32_t i = 0; i < io->vectors; i++)
        io->expected += io->vector[i].iov_len;
    struct wf_nvme_call call = call_of(t, io);
    submit(t, io, before(&call));
}

bool wf_nvme_io_ended(struct wf_nvme *t, struct wf_nvme_io *io, int *result)
{
    struct wf_nvme_call call = call_of(t, io);
    if (io->held && *result != -ECANCELED) {
        submit(t, io, 0);
        return false;
    }
    *result = after(&call, io->refused ? io->refused : *result);
    return true;
}
