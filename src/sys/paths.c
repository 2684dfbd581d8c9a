/* SPDX-License-Identifier: Apache-2.0 */
#include "sys/paths.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
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

void wf_host_state(char *out, size_t capacity)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (state && state[0] == '/')
        length = snprintf(out, capacity, "%s/weft", state);
    else if (geteuid() == 0)
        length = snprintf(out, capacity, "/var/lib/weft");
    else if (home && home[0] == '/')
        length = snprintf(out, capacity, "%s/.local/state/weft", home);
    if (length < 0 || (size_t)length >= capacity)
        snprintf(out, capacity, geteuid() == 0 ? "/var/lib/weft" : "/var/tmp/weft-%u",
                 (unsigned)geteuid());
}

/* Whether files of ours are safe in `directory`: nobody but us and root may put theirs in their
 * place.  `what` names it, `key` is the setting that puts it elsewhere. */
static enum weft_status directory_safe(const char *directory, const char *what, const char *key,
                                       bool sticky_will_do)
{
    struct stat found;
    if (stat(directory, &found) != 0)
        return wf_fail(WEFT_E_SYSTEM, "cannot look at %s '%s': %s; set `%s` elsewhere", what,
                       directory, strerror(errno), key);
    if (!S_ISDIR(found.st_mode))
        return wf_fail(WEFT_E_SYSTEM, "%s '%s' is not a directory; set `%s` elsewhere", what,
                       directory, key);
    if (found.st_uid != geteuid() && found.st_uid != 0)
        return wf_fail(WEFT_E_DENIED, "%s '%s' belongs to uid %u; remove it, or set `%s` elsewhere",
                       what, directory, (unsigned)found.st_uid, key);
    if ((found.st_mode & 0022) && !(sticky_will_do && (found.st_mode & S_ISVTX)))
        return wf_fail(WEFT_E_DENIED, "other users may write to %s '%s' (mode %04o); chmod go-w it",
                       what, directory, (unsigned)(found.st_mode & 07777));
    return WEFT_OK;
}

enum weft_status wf_state_directory(const char *path)
{
    char made[PATH_MAX];
    if (strlen(path) >= sizeof made)
        return wf_fail(WEFT_E_INVALID,
                       "the state directory '%.64s…' is longer than %zu bytes; use a shorter path",
                       path, sizeof made - 1);
    snprintf(made, sizeof made, "%s", path);
    for (char *p = made;; p++) {
        if (*p && (*p != '/' || p == made))
            continue;
        char there = *p;
        *p = '\0';
        struct stat found;
        if (stat(made, &found) != 0 && mkdir(made, 0700) != 0 && errno != EEXIST)
            return wf_fail(WEFT_E_SYSTEM,
                           "cannot make the state directory '%s': %s; create it, or set "
                           "`state_dir` elsewhere",
                           made, strerror(errno));
        *p = there;
        if (!there)
            break;
    }
    return directory_safe(path, "the state directory", "state_dir", false);
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
    return directory_safe(directory, "the socket's directory", "socket", true);
}
