/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/hooks.h"
#include "sys/paths.h"

static enum weft_status address(const char *path, struct sockaddr_un *out)
{
    memset(out, 0, sizeof *out);
    out->sun_family = AF_UNIX;
    if (!*path)
        return wf_fail(WEFT_E_INVALID, "the socket's path is empty; name one, like "
                                       "/run/weft/weftd.sock");
    if (strlen(path) >= sizeof out->sun_path)
        return wf_fail(WEFT_E_INVALID,
                       "socket path '%s' is longer than %zu bytes; choose a shorter one", path,
                       sizeof out->sun_path - 1);
    memcpy(out->sun_path, path, strlen(path) + 1);
    return WEFT_OK;
}

enum weft_status wf_socket_listen(const char *path, uint32_t mode, int *out_fd, int *out_lock)
{
    struct sockaddr_un name;
    enum weft_status status = address(path, &name);
    if (status != WEFT_OK)
        return status;
    char lock_path[sizeof name.sun_path + 8];
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    status = wf_socket_directory(path);
    if (status != WEFT_OK)
        return status;
    int lock = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0)
        return wf_fail(WEFT_E_SYSTEM,
                       "%s: %s; choose another --socket or make its directory writable", lock_path,
                       strerror(errno));
    int fd = -1;
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        status = wf_fail(WEFT_E_BUSY,
                         "a weftd is already running on %s; stop it, or choose another --socket",
                         path);
        goto fail_lock;
    }
    fd = WF_FAILS("socket") ? (errno = EMFILE, -1)
                            : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        status = wf_fail(WEFT_E_SYSTEM, "cannot create a socket: %s", strerror(errno));
        goto fail_lock;
    }
    struct stat info;
    if (lstat(path, &info) == 0) {
        if (!S_ISSOCK(info.st_mode)) {
            status = wf_fail(WEFT_E_BUSY, "%s exists and is not a socket; choose another --socket",
                             path);
            goto fail_socket;
        }
        unlink(path); /* we hold the lock, so whoever made it is dead */
    }
    /* Nobody may connect between bind and chmod with wider rights than `mode` gives. */
    mode_t old = umask(0177);
    int rc = bind(fd, (struct sockaddr *)&name, sizeof name);
    umask(old);
    if (rc != 0 || chmod(path, (mode_t)mode) != 0 || listen(fd, 128) != 0) {
        status = wf_fail(WEFT_E_SYSTEM, "cannot listen on %s: %s; choose another --socket", path,
                         strerror(errno));
        goto fail_socket;
    }
    *out_fd = fd;
    *out_lock = lock;
    return WEFT_OK;

fail_socket:
    close(fd);
fail_lock:
    close(lock);
    return status;
}

void wf_socket_timeout(int fd, uint32_t timeout_ms)
{
    struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = (timeout_ms % 1000) * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

enum weft_status wf_socket_connect(const char *path, uint32_t timeout_ms, int *out_fd)
{
    struct sockaddr_un name;
    enum weft_status status = address(path, &name);
    if (status != WEFT_OK)
        return status;
    int fd = WF_FAILS("socket") ? (errno = EMFILE, -1)
                                : socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot create a socket: %s", strerror(errno));
    wf_socket_timeout(fd, timeout_ms);
    if (connect(fd, (struct sockaddr *)&name, sizeof name) != 0) {
        const char *mend = errno == EACCES ? "ask its owner for access"
                           : errno == ECONNREFUSED
                               ? "the socket is stale; start weftd again"
                               : "start weftd, or name its socket by --socket or WEFT_SOCKET";
        status = wf_fail(errno == EACCES ? WEFT_E_DENIED : WEFT_E_NODE, "no node at %s (%s): %s",
                         path, strerror(errno), mend);
        close(fd);
        return status;
    }
    *out_fd = fd;
    return WEFT_OK;
}

enum weft_status wf_socket_send(int fd, const void *message, size_t bytes, const int *fds,
                                size_t fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * WF_SOCKET_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = (void *)(uintptr_t)message, .iov_len = bytes};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        memset(&control, 0, sizeof control);
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
    }
    for (;;) {
        ssize_t sent = WF_FAILS("sendmsg") ? (errno = ECONNRESET, -1)
                                           : sendmsg(fd, &header, MSG_NOSIGNAL);
        if (sent == (ssize_t)bytes)
            return WEFT_OK;
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return WEFT_PENDING;
        return wf_fail(WEFT_E_NODE, "the other side of the socket is gone (%s)", strerror(errno));
    }
}

/* Descriptors can come with any message, also from a peer that means harm: all are taken and
 * counted. */
static size_t take_descriptors(struct msghdr *header, int *fds)
{
    size_t count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (count < WF_SOCKET_FDS_MAX)
                fds[count++] = fd;
            else
                close(fd);
        }
    }
    return count;
}

enum weft_status wf_socket_receive(int fd, void *message, size_t capacity, size_t *out_bytes,
                                   int *fds, size_t *out_fd_count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * WF_SOCKET_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = message, .iov_len = capacity};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof control.bytes};
    ssize_t got;
    /* A peer that closes with something of ours unread resets the connection.  That is reported
     * once, and before what it had sent: its last word is behind it. */
    int reset = 0;
    do
        got = WF_FAILS("recvmsg") ? (errno = ENOMEM, -1) : recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    while (got < 0 && (errno == EINTR || (errno == ECONNRESET && !reset++)));
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return WEFT_PENDING;
    if (got <= 0)
        return wf_fail(WEFT_E_NODE, "the other side of the socket is gone (%s)",
                       got < 0 ? strerror(errno) : "closed");
    int received[WF_SOCKET_FDS_MAX];
    size_t count = take_descriptors(&header, received);
    if (fds && (header.msg_flags & MSG_CTRUNC)) {
        wf_close_all(received, count);
        return wf_fail(WEFT_E_SYSTEM, "this process may open no more files, and what the node sent "
                                      "are files; raise its limit (ulimit -n)");
    }
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || (count && !fds)) {
        wf_close_all(received, count);
        return wf_fail(WEFT_E_PROTOCOL,
                       "a message was longer than %zu bytes or carried descriptors unasked",
                       capacity);
    }
    if (fds)
        memcpy(fds, received, count * sizeof *fds);
    if (out_fd_count)
        *out_fd_count = count;
    *out_bytes = (size_t)got;
    return WEFT_OK;
}

bool wf_socket_readable(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, 0) > 0;
}

enum weft_status wf_socket_peer(int fd, struct wf_peer *out)
{
    struct ucred who;
    socklen_t length = sizeof who;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &length) != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot tell who is connecting: %s", strerror(errno));
    *out = (struct wf_peer){.pid = (uint32_t)who.pid, .uid = who.uid, .gid = who.gid};
    return WEFT_OK;
}

void wf_close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}
