/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses are numeric: nothing is looked up, so nothing waits for a resolver.
 */
#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

static const char *const schemes[WF_NET_SCHEMES] = {
    [WF_NET_SCHEME_TCP] = "tcp",
    [WF_NET_SCHEME_UNIX] = "unix",
    [WF_NET_SCHEME_UCX] = "ucx",
    [WF_NET_SCHEME_SIM] = "sim",
};

static bool port_parse(const char *text, uint16_t *out)
{
    uint32_t port = 0;
    if (!*text || strlen(text) > 5)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        port = port * 10 + (uint32_t)(*text - '0');
    }
    if (port > UINT16_MAX)
        return false;
    *out = (uint16_t)port;
    return true;
}

static enum weft_status inet_parse(const char *text, struct wf_net_address *out)
{
    struct sockaddr_in *four = (struct sockaddr_in *)&out->socket;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&out->socket;
    char host[WF_NET_ADDRESS_MAX];
    const char *colon = strrchr(out->name, ':');
    uint16_t port;
    if (colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) &&
        !port_parse(colon + 1, &port))
        return wf_fail(WEFT_E_INVALID, "'%s' has a port beyond 65535, which is the last", text);
    if (!colon || !port_parse(colon + 1, &port))
        return wf_fail(WEFT_E_INVALID,
                       "'%s' has no port; write %s:ADDRESS:PORT, such as %s:192.0.2.1:7420", text,
                       schemes[out->scheme], schemes[out->scheme]);
    size_t length = (size_t)(colon - out->name);
    memcpy(host, out->name, length);
    host[length] = 0;
    if (inet_pton(AF_INET, host, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
        out->length = sizeof *four;
        return WEFT_OK;
    }
    if (length > 2 && host[0] == '[' && host[length - 1] == ']') {
        host[length - 1] = 0;
        if (inet_pton(AF_INET6, host + 1, &six->sin6_addr) == 1) {
            six->sin6_family = AF_INET6;
            six->sin6_port = htons(port);
            out->length = sizeof *six;
            return WEFT_OK;
        }
    }
    return wf_fail(WEFT_E_INVALID,
                   "'%s' names no numeric address; write it as 192.0.2.1 or [2001:db8::1]", text);
}

static enum weft_status unix_parse(const char *text, struct wf_net_address *out)
{
    struct sockaddr_un *path = (struct sockaddr_un *)&out->socket;
    size_t length = strlen(out->name);
    if (!length || length >= sizeof path->sun_path)
        return wf_fail(WEFT_E_INVALID,
                       "the path in '%s' has %zu bytes; a Unix socket's has 1 to %zu", text, length,
                       sizeof path->sun_path - 1);
    path->sun_family = AF_UNIX;
    memcpy(path->sun_path, out->name, length + 1);
    out->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return WEFT_OK;
}

enum weft_status wf_net_address_parse(const char *text, struct wf_net_address *out)
{
    struct wf_net_address address = {0};
    size_t scheme_bytes = strcspn(text, ":");
    if (strlen(text) >= WF_NET_ADDRESS_MAX)
        return wf_fail(WEFT_E_INVALID, "the address '%.32s…' has more than %u bytes", text,
                       WF_NET_ADDRESS_MAX - 1);
    while (address.scheme < WF_NET_SCHEMES &&
           (strlen(schemes[address.scheme]) != scheme_bytes ||
            strncmp(schemes[address.scheme], text, scheme_bytes) != 0))
        address.scheme++;
    if (address.scheme == WF_NET_SCHEMES || !text[scheme_bytes])
        return wf_fail(WEFT_E_INVALID,
                       "'%s' is no address of a net; write tcp:ADDRESS:PORT, unix:PATH or "
                       "ucx:ADDRESS:PORT",
                       text);
    snprintf(address.name, sizeof address.name, "%s", text + scheme_bytes + 1);
    enum weft_status status = WEFT_OK;
    if (address.scheme == WF_NET_SCHEME_UNIX)
        status = unix_parse(text, &address);
    else if (address.scheme != WF_NET_SCHEME_SIM)
        status = inet_parse(text, &address);
    else if (!address.name[0])
        status = wf_fail(WEFT_E_INVALID, "'%s' has no name; write sim:NAME", text);
    if (status == WEFT_OK)
        *out = address;
    return status;
}

void wf_net_address_format(enum wf_net_scheme scheme, const struct sockaddr_storage *socket,
                           socklen_t length, char *out)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)socket;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)socket;
    const struct sockaddr_un *path = (const struct sockaddr_un *)socket;
    char host[INET6_ADDRSTRLEN] = "?";
    if (socket->ss_family == AF_INET) {
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof host);
        snprintf(out, WF_NET_ADDRESS_MAX, "%s:%s:%u", schemes[scheme], host, ntohs(four->sin_port));
    } else if (socket->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof host);
        snprintf(out, WF_NET_ADDRESS_MAX, "%s:[%s]:%u", schemes[scheme], host,
                 ntohs(six->sin6_port));
    } else {
        bool named = length > offsetof(struct sockaddr_un, sun_path) && path->sun_path[0];
        snprintf(out, WF_NET_ADDRESS_MAX, "unix:%.*s", (int)sizeof path->sun_path,
                 named ? path->sun_path : "");
    }
}
