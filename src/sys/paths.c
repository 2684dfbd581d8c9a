/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/paths.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void wf_host_socket(char *out)
{
    const size_t capacity = WF_SOCKET_PATH_MAX + 1;
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime && runtime[0] == '/') {
        int length = snprintf(out, capacity, "%s/weft/weftd.sock", runtime);
        if (length > 0 && (size_t)length < capacity)
            return;
    }
    if (geteuid() == 0)
        snprintf(out, capacity, WF_SOCKET_OF_HOST);
    else
        snprintf(out, capacity, "/tmp/weft-%u/weftd.sock", (unsigned)geteuid());
}

enum weft_status wf_default_socket(char *out, size_t capacity)
{
    char path[WF_SOCKET_PATH_MAX + 1];
    const char *given = getenv("WEFT_SOCKET");
    if (given && *given) {
        if (strlen(given) > WF_SOCKET_PATH_MAX)
            return wf_fail(
                WEFT_E_INVALID,
                "WEFT_SOCKET is %zu bytes long and a Unix socket's path holds %d; use a shorter "
                "path",
                strlen(given), WF_SOCKET_PATH_MAX);
        snprintf(path, sizeof path, "%s", given);
    } else {
        wf_host_socket(path);
    }
    if (strlen(path) >= capacity)
        return wf_fail(
            WEFT_E_INVALID,
            "the socket path '%s' does not fit into %zu bytes; set WEFT_SOCKET to a shorter one",
            path, capacity);
    memcpy(out, path, strlen(path) + 1);
    return WEFT_OK;
}

enum weft_status wf_socket_directory(const char *socket)
{
    char directory[WF_SOCKET_PATH_MAX + 1];
    if (strlen(socket) >= sizeof directory)
        return wf_fail(WEFT_E_INVALID,
                       "the socket path '%.64s…' is longer than %d bytes; use a shorter one",
                       socket, WF_SOCKET_PATH_MAX);
    snprintf(directory, sizeof directory, "%s", socket);
    char *slash = strrchr(directory, '/');
    if (!slash || slash == directory)
        return WEFT_OK; /* the working directory or the root: not ours to make */
    *slash = '\0';
    if (mkdir(directory, geteuid() == 0 ? 0755 : 0700) != 0 && errno != EEXIST)
        return wf_fail(
            WEFT_E_SYSTEM,
            "cannot make the socket's directory '%s': %s; create it, or set `socket` elsewhere",
            directory, strerror(errno));
    struct stat found;
    if (stat(directory, &found) != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot look at the socket's directory '%s': %s", directory,
                       strerror(errno));
    if (!S_ISDIR(found.st_mode))
        return wf_fail(
            WEFT_E_SYSTEM,
            "'%s' is not a directory, so no socket can lie in it; set `socket` elsewhere",
            directory);
    if (found.st_uid != geteuid() && found.st_uid != 0)
        return wf_fail(
            WEFT_E_DENIED,
            "the socket's directory '%s' belongs to uid %u; remove it, or set `socket` elsewhere",
            directory, (unsigned)found.st_uid);
    if ((found.st_mode & 0022) && !(found.st_mode & S_ISVTX))
        return wf_fail(
            WEFT_E_DENIED,
            "other users may write to the socket's directory '%s' (mode %04o); chmod go-w it",
            directory, (unsigned)(found.st_mode & 07777));
    return WEFT_OK;
}
