/* SPDX-License-Identifier: Apache-2.0
 *
 * "etcd://HOST:PORT[,HOST:PORT…]/CLUSTER", etcds:// with TLS.  No port: 2379.  A host is a name or
 * a numeric address, [::1] for IPv6.  Any thread.
 */
#ifndef WF_MEMBER_ETCD_TARGET_H
#define WF_MEMBER_ETCD_TARGET_H

#include "member/member.h"

#define WF_ETCD_ENDPOINTS_MAX 16u
#define WF_ETCD_ENDPOINT_MAX 255u

struct wf_etcd_target {
    bool tls;
    uint32_t count;
    char endpoints[WF_ETCD_ENDPOINTS_MAX][WF_ETCD_ENDPOINT_MAX + 1]; /* HOST:PORT */
    char cluster[WF_MEMBER_NAME_MAX + 1];
};

/* WEFT_E_INVALID. */
enum weft_status wf_etcd_target_read(const char *registry, struct wf_etcd_target *out);

#endif
