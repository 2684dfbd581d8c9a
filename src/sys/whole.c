/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/whole.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hooks.h"

#define TRIES_MAX 16 /* against others who begin, end or clear up at this instant */

static void close_quietly(int fd)
{
    int error = errno;
    if (fd >= 0)
        (void)close(fd);
    errno = error;
}

/* Locked, and still what NAME.new names?  A system without such locks counts as locked. */
static bool hold(const struct wf_whole *file, int fd)
{
    struct stat mine, named;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        errno = EBUSY;
        return false;
    }
    if (fstat(fd, &mine) == 0 &&
        fstatat(file->directory, file->beside, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        mine.st_dev == named.st_dev && mine.st_ino == named.st_ino)
        return true;
    errno = ENOENT; /* it took its place, or was cleared up */
    return false;
}

/* What lies there as NAME.new goes, unless somebody writes it. */
static bool leftover_remove(const struct wf_whole *file)
{
    int fd = openat(file->directory, file->beside,
                    O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    bool is_link = fd < 0 && errno == ELOOP; /* not of this house, so nobody writes it */
    bool removed = (is_link || (fd >= 0 && hold(file, fd))) &&
                   unlinkat(file->directory, file->beside, 0) == 0;
    close_quietly(fd);
    return removed || errno == ENOENT;
}

static int beside_open(const struct wf_whole *file, mode_t mode)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        int fd = WF_FAILS("open") ? (errno = EMFILE, -1)
                                  : openat(file->directory, file->beside,
                                           O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd >= 0 && hold(file, fd))
            return fd;
        if (fd >= 0)
            (void)close(fd); /* another takes it for a leftover: so it is one */
        else if (errno != EEXIST || !leftover_remove(file))
            return -1;
    }
    errno = EBUSY;
    return -1;
}

bool wf_whole_begin(struct wf_whole *out, int directory, const char *path, mode_t mode)
{
    char folder[PATH_MAX];
    struct wf_whole file = {.fd = -1, .directory = -1};
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t above = (size_t)(name - path), length = strlen(name);
    *out = file;
    if (!length || above >= sizeof folder || length + sizeof WF_WHOLE_SUFFIX > sizeof file.beside) {
        errno = length ? ENAMETOOLONG : EISDIR;
        return false;
    }
    memcpy(folder, path, above);
    folder[above] = '\0';
    snprintf(file.name, sizeof file.name, "%s", name);
    snprintf(file.beside, sizeof file.beside, "%s" WF_WHOLE_SUFFIX, name);
    file.directory = openat(directory, above ? folder : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (file.directory < 0)
        return false;
    file.fd = beside_open(&file, mode);
    if (file.fd < 0) {
        close_quietly(file.directory);
        return false;
    }
    *out = file;
    return true;
}

bool wf_whole_write(struct wf_whole *file, const void *bytes, size_t count)
{
    const char *at = bytes;
    while (count) {
        ssize_t put = WF_FAILS("write") ? (errno = ENOSPC, -1) : write(file->fd, at, count);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            errno = put ? errno : ENOSPC;
            return false;
        }
        at += put;
        count -= (size_t)put;
    }
    return true;
}

static bool synced(int fd)
{
    return WF_FAILS("fsync") ? (errno = EIO, false) : fsync(fd) == 0;
}

/* Some file systems say only when a file is closed that there was no room (NFS): one end of it is
 * closed, and the lock stays with the other. */
static bool flushed(int fd)
{
    int copy = dup(fd);
    return copy >= 0 && close(copy) == 0;
}

/* A folder that may not be read can be written to, and not synced. */
static bool folder_synced(int directory)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = fd >= 0 ? synced(fd) : errno == EACCES;
    close_quietly(fd);
    return good;
}

static bool place_take(const struct wf_whole *file, unsigned how)
{
    if (WF_FAILS("rename")) {
        errno = EIO;
        return false;
    }
    if (!(how & WF_WHOLE_FIRST))
        return renameat(file->directory, file->beside, file->directory, file->name) == 0;
    if (linkat(file->directory, file->beside, file->directory, file->name, 0) != 0)
        return false;
    (void)unlinkat(file->directory, file->beside, 0); /* else it is as if this had died here */
    return true;
}

/* Only now it is not locked any more. */
static void ended(struct wf_whole *file)
{
    close_quietly(file->fd);
    close_quietly(file->directory);
    file->fd = file->directory = -1;
}

bool wf_whole_end(struct wf_whole *file, unsigned how)
{
    bool good = how & WF_WHOLE_SYNC ? synced(file->fd) : flushed(file->fd);
    WF_CRASH("whole.written");
    if (!good || !place_take(file, how)) {
        wf_whole_drop(file);
        return false;
    }
    WF_CRASH("whole.renamed");
    good = !(how & WF_WHOLE_SYNC) || folder_synced(file->directory);
    ended(file);
    return good;
}

void wf_whole_drop(struct wf_whole *file)
{
    if (file->fd < 0)
        return;
    int error = errno;
    (void)unlinkat(file->directory, file->beside, 0); /* while it is locked: it is this one's */
    errno = error;
    ended(file);
}

bool wf_whole_put(int directory, const char *path, mode_t mode, const void *bytes, size_t count,
                  unsigned how)
{
    struct wf_whole file;
    if (!wf_whole_begin(&file, directory, path, mode))
        return false;
    if (wf_whole_write(&file, bytes, count))
        return wf_whole_end(&file, how);
    wf_whole_drop(&file);
    return false;
}
