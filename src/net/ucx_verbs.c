/* SPDX-License-Identifier: Apache-2.0 */
#include "net/ucx_verbs.h"

#include <stdio.h>
#include <string.h>

#define MINOR_FEARED 13u

/* Does the list name a transport over verbs, or all but some? */
static bool names_verbs(const char *list)
{
    static const char *const verbs[] = {"ib", "rc", "ud", "dc", "all"};
    if (list[0] == '^')
        return true;
    for (const char *at = list; *at; at += strspn(at, ",")) {
        for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
            if (strncmp(at, verbs[i], strlen(verbs[i])) == 0)
                return true;
        at += strcspn(at, ",");
    }
    return false;
}

bool wf_ucx_verbs_trusted(const struct wf_ucx_version *version, bool cards, const char *named,
                          char *out, size_t bytes)
{
    bool newer = version->major > 1 || (version->major == 1 && version->minor > MINOR_FEARED);
    out[0] = 0;
    if (newer || !cards)
        return true;
    if (!named)
        snprintf(out, bytes,
                 "UCX %u.%u.%u ends this process when a peer dies while an RDMA link to it is "
                 "made, so RDMA is not used; install a newer UCX, or name it all the same, as with "
                 "UCX_TLS=rc,ud,self",
                 version->major, version->minor, version->release);
    else if (names_verbs(named))
        snprintf(out, bytes,
                 "UCX %u.%u.%u ends this process when a peer dies while an RDMA link to it is "
                 "made; UCX_TLS=%s may choose RDMA all the same; a newer UCX, or tcp, is safer",
                 version->major, version->minor, version->release, named);
    return false;
}
