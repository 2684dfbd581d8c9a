/* SPDX-License-Identifier: Apache-2.0
 *
 * Unix sockets with message boundaries (SOCK_SEQPACKET): a message arrives whole or not at all,
 * with the descriptors that were sent with it.
 */
#ifndef WF_SYS_SOCKET_H
#define WF_SYS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_SOCKET_FDS_MAX 4

/* Listen on `path`.  A lock file beside it ("<path>.lock") keeps a second node out; what a dead
 * node left behind is removed.  *out_lock stays open as long as the node lives. */
enum weft_status wf_socket_listen(const char *path, uint32_t mode, int *out_fd, int *out_lock);

enum weft_status wf_socket_connect(const char *path, uint32_t timeout_ms, int *out_fd);

/* How long sending and receiving may wait. */
void wf_socket_timeout(int fd, uint32_t timeout_ms);

/* One whole message with up to WF_SOCKET_FDS_MAX descriptors.  WEFT_PENDING: the peer's buffer is
 * full. WEFT_E_NODE: the peer is gone. */
enum weft_status wf_socket_send(int fd, const void *message, size_t bytes, const int *fds,
                                size_t fd_count);

/* One whole message into `message`; longer ones are WEFT_E_PROTOCOL.  Descriptors received go to
 * fds (WF_SOCKET_FDS_MAX), their number to *out_fd_count; the caller owns them.  WEFT_PENDING:
 * nothing there (non-blocking) ; WEFT_E_TIMEOUT: the socket's own timeout ran out; WEFT_E_NODE: the
 * peer is gone. */
enum weft_status wf_socket_receive(int fd, void *message, size_t capacity, size_t *out_bytes,
                                   int *fds, size_t *out_fd_count);

/* Is there something to receive now, be it the peer's end? */
bool wf_socket_readable(int fd);

/* Who is on the other side, as the kernel knows. */
struct wf_peer {
    uint32_t pid, uid, gid;
};
enum weft_status wf_socket_peer(int fd, struct wf_peer *out);

void wf_close_all(const int *fds, size_t count);

#endif
