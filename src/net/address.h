/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of nets, as people write them: a scheme, a colon, and what the scheme wants.
 */
#ifndef WF_NET_ADDRESS_H
#define WF_NET_ADDRESS_H

#include <sys/socket.h>

#include "net/net.h"

enum wf_net_scheme {
    WF_NET_SCHEME_TCP,  /* "tcp:192.0.2.1:7000", "tcp:[2001:db8::1]:7000" */
    WF_NET_SCHEME_UNIX, /* "unix:/run/weft/net" */
    WF_NET_SCHEME_UCX,  /* "ucx:192.0.2.1:7000" */
    WF_NET_SCHEME_SIM,  /* "sim:NAME" */
    WF_NET_SCHEMES,
};

struct wf_net_address {
    enum wf_net_scheme scheme;
    socklen_t length;               /* of socket; 0 for sim */
    struct sockaddr_storage socket; /* tcp, ucx: AF_INET or AF_INET6; unix: AF_UNIX */
    char name[WF_NET_ADDRESS_MAX];  /* what follows the scheme */
};

/* WEFT_E_INVALID, with a sentence that names the text, for what is no address.  A port of 0 is one:
 * the system chooses. */
enum weft_status wf_net_address_parse(const char *text, struct wf_net_address *out);

/* The text of a socket's address under a scheme: WF_NET_ADDRESS_MAX bytes. */
void wf_net_address_format(enum wf_net_scheme scheme, const struct sockaddr_storage *socket,
                           socklen_t length, char *out);

#endif
