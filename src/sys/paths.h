/* SPDX-License-Identifier: Apache-2.0
 *
 * Where a node's socket and its state are when nobody said.  weftd and libweft both ask here, so
 * that they meet.
 */
#ifndef WF_SYS_PATHS_H
#define WF_SYS_PATHS_H

#include <stddef.h>

#include "base/status.h"

#define WF_SOCKET_PATH_MAX 107 /* what sun_path holds before its NUL */

/* Where the host's own node listens, which a service manager starts. */
#define WF_SOCKET_OF_HOST "/run/weft/weftd.sock"

/* The first of: $WEFT_SOCKET; $XDG_RUNTIME_DIR/weft/weftd.sock; /run/weft/weftd.sock for root;
 * /tmp/weft-<uid>/weftd.sock.  WEFT_E_INVALID when $WEFT_SOCKET does not fit a socket address or
 * `capacity`. */
enum weft_status wf_default_socket(char *out, size_t capacity);

/* The same without $WEFT_SOCKET, which never fails: an $XDG_RUNTIME_DIR that is not absolute or too
 * long for a socket address is passed over.  `out` holds WF_SOCKET_PATH_MAX + 1 bytes. */
void wf_host_socket(char *out);

/* Make the directory that `socket` lies in when only that last directory is missing (0700; 0755 for
 * root), and refuse one in which another user could put a socket of theirs in our place: owned by
 * someone who is neither us nor root, or writable by others and not sticky.  WEFT_E_SYSTEM,
 * WEFT_E_DENIED. */
enum weft_status wf_socket_directory(const char *socket);

/* Where the state is: $XDG_STATE_HOME/weft; /var/lib/weft for root; ~/.local/state/weft.  What is
 * not absolute or too long is passed over; a user without a home gets /var/tmp/weft-<uid>, which
 * wf_state_directory() refuses when somebody else made it. */
void wf_host_state(char *out, size_t capacity);

/* Make `path` and what is missing above it, for this user alone (0700), and refuse a directory that
 * belongs to another user than us or root, or that others may write to.  WEFT_E_SYSTEM,
 * WEFT_E_DENIED. */
enum weft_status wf_state_directory(const char *path);

#endif
