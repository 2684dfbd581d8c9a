/* SPDX-License-Identifier: Apache-2.0
 *
 * The transports of this build, by the scheme of an address.
 */
#include "net/net.h"

#include <string.h>

/* meson.build says which there are: WF_NET_HAS_<NAME>. */
static const struct {
    const char *scheme;
    const struct wf_net_ops *ops;
} transports[] = {
#if WF_NET_HAS_TCP
    {"tcp", &wf_net_tcp}, {"unix", &wf_net_tcp},
#endif
#if WF_NET_HAS_UCX
    {"ucx", &wf_net_ucx},
#endif
#if WF_NET_HAS_SIM
    {"sim", &wf_net_sim},
#endif
    {NULL, NULL},
};

const struct wf_net_ops *wf_net_by_address(const char *address)
{
    for (size_t i = 0; transports[i].scheme; i++) {
        size_t length = strlen(transports[i].scheme);
        if (!strncmp(address, transports[i].scheme, length) && address[length] == ':')
            return transports[i].ops;
    }
    return NULL;
}
