/* SPDX-License-Identifier: Apache-2.0 */
#include "member/member.h"

#include <string.h>

/* A registry is known by how its words begin; what begins like none of these is a list of
 * addresses. */
static const struct form {
    const char *begins;
    const struct wf_member_ops *ops; /* NULL: not in this build */
} forms[] = {
    {"etcd://", &wf_member_etcd},
    {"etcds://", &wf_member_etcd},
    {"sim:", &wf_member_sim},
};

const struct wf_member_ops *wf_member_by_registry(const char *registry)
{
    if (!registry)
        return NULL;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (strncmp(registry, forms[i].begins, strlen(forms[i].begins)) == 0)
            return forms[i].ops;
    return strstr(registry, "://") ? NULL : &wf_member_static;
}
