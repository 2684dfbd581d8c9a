/* SPDX-License-Identifier: Apache-2.0 */
#include "member/etcd_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "member/checks.h"

#define FORM "etcd://HOST:PORT[,HOST:PORT...]/CLUSTER"

static const char host_letters[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";

/* Where the host ends; NULL: it is none. */
static const char *host_end(const char *text)
{
    size_t bytes;
    if (*text != '[') {
        bytes = strspn(text, host_letters);
        return bytes ? text + bytes : NULL;
    }
    bytes = strspn(text + 1, "0123456789abcdefABCDEF:.");
    return bytes && text[bytes + 1] == ']' ? text + bytes + 2 : NULL;
}

static enum weft_status read_endpoint(const char *text, char out[WF_ETCD_ENDPOINT_MAX + 1])
{
    const char *end = host_end(text);
    size_t digits = end && *end == ':' ? strspn(end + 1, "0123456789") : 0;
    long port = digits && digits < 6 ? strtol(end + 1, NULL, 10) : 0;
    bool good = end && (*end == '\0' || (port > 0 && port < 65536 && end[digits + 1] == '\0'));
    if (!good)
        return wf_fail(WEFT_E_INVALID,
                       "'%.*s' is no address of an etcd; write the registry as " FORM,
                       (int)WF_ETCD_ENDPOINT_MAX, text);
    int length = snprintf(out, WF_ETCD_ENDPOINT_MAX + 1, "%s%s", text, *end ? "" : ":2379");
    if (length > (int)WF_ETCD_ENDPOINT_MAX)
        return wf_fail(WEFT_E_INVALID, "the address '%.40s...' of an etcd is longer than %u bytes",
                       text, WF_ETCD_ENDPOINT_MAX);
    return WEFT_OK;
}

static enum weft_status read_endpoints(const char *text, size_t bytes, struct wf_etcd_target *out)
{
    while (bytes) {
        char one[WF_ETCD_ENDPOINT_MAX + 1];
        const char *comma = memchr(text, ',', bytes);
        size_t length = comma ? (size_t)(comma - text) : bytes;
        size_t kept = length < WF_ETCD_ENDPOINT_MAX ? length : WF_ETCD_ENDPOINT_MAX;
        memcpy(one, text, kept);
        one[kept] = '\0';
        if (out->count == WF_ETCD_ENDPOINTS_MAX)
            return wf_fail(WEFT_E_LIMIT, "more than %u addresses of etcd are named; a few suffice",
                           WF_ETCD_ENDPOINTS_MAX);
        enum weft_status status = read_endpoint(one, out->endpoints[out->count]);
        if (status != WEFT_OK)
            return status;
        out->count++;
        length += comma != NULL;
        text += length;
        bytes -= length;
    }
    return out->count ? WEFT_OK
                      : wf_fail(WEFT_E_INVALID, "the registry names no etcd; write it as " FORM);
}

enum weft_status wf_etcd_target_read(const char *registry, struct wf_etcd_target *out)
{
    struct wf_etcd_target target = {.tls = registry && strncmp(registry, "etcds://", 8) == 0};
    enum weft_status status = wf_text_check("the registry", registry ? registry : "",
                                            WF_ETCD_ENDPOINTS_MAX * (WF_ETCD_ENDPOINT_MAX + 1),
                                            false);
    if (status != WEFT_OK)
        return status;
    if (!registry || (!target.tls && strncmp(registry, "etcd://", 7) != 0))
        return wf_fail(WEFT_E_INVALID, "'%.80s' is no registry of etcd's; write it as " FORM,
                       registry ? registry : "");
    const char *from = registry + (target.tls ? 8 : 7), *slash = strchr(from, '/');
    if (!slash)
        return wf_fail(WEFT_E_INVALID, "the registry '%.80s' names no cluster; write it as " FORM,
                       registry);
    status = read_endpoints(from, (size_t)(slash - from), &target);
    if (status == WEFT_OK)
        status = wf_member_name_check("the cluster's name", slash + 1);
    if (status != WEFT_OK)
        return status;
    memcpy(target.cluster, slash + 1, strlen(slash + 1));
    *out = target;
    return WEFT_OK;
}
