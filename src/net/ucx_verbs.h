/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether RDMA may be chosen over this UCX.
 *
 * UCX 1.13 ends the process when an endpoint over verbs is closed before it is wired up, which a
 * peer that dies at that moment has it do (seen with rdma_rxe).  So up to that release verbs are
 * for whom names them; they may have a release of UCX with a repair.
 */
#ifndef WF_NET_UCX_VERBS_H
#define WF_NET_UCX_VERBS_H

#include <stdbool.h>
#include <stddef.h>

struct wf_ucx_version {
    unsigned major, minor, release;
};

/* `cards`: this host has RDMA devices; `named`: UCX_TLS, or NULL.  False: it is not to be chosen
 * where UCX_TLS says nothing.  `out` is what there is to say to people, or "". */
bool wf_ucx_verbs_trusted(const struct wf_ucx_version *version, bool cards, const char *named,
                          char *out, size_t bytes);

#endif
