/* SPDX-License-Identifier: Apache-2.0
 *
 * libucp, loaded when a net wants it: no program that links with ours needs it to be installed.
 *
 * Its headers give the types, and nothing else is taken from them: every function is found by name.
 * It is loaded once a process and stays, because it has threads and hooks of its own that outlive
 * any use of it.  Any thread may ask for it.
 *
 * What the library would do to the process it is in and must not: the handlers of SIGSEGV, SIGBUS,
 * SIGILL and SIGFPE, which it replaces while it is loaded, are put back, and what it has to say
 * goes to our log and not to the standard output.
 */
#ifndef WF_NET_UCX_LIB_H
#define WF_NET_UCX_LIB_H

#include <ucp/api/ucp.h>

#include "base/status.h"

#define WF_UCX_FUNCTIONS(X)           \
    X(ucp_get_version)                \
    X(ucp_config_read)                \
    X(ucp_config_modify)              \
    X(ucp_config_release)             \
    X(ucp_init_version)               \
    X(ucp_cleanup)                    \
    X(ucp_worker_create)              \
    X(ucp_worker_destroy)             \
    X(ucp_worker_query)               \
    X(ucp_worker_release_address)     \
    X(ucp_worker_progress)            \
    X(ucp_worker_get_efd)             \
    X(ucp_worker_arm)                 \
    X(ucp_worker_set_am_recv_handler) \
    X(ucp_ep_create)                  \
    X(ucp_ep_close_nbx)               \
    X(ucp_ep_flush_nbx)               \
    X(ucp_am_send_nbx)                \
    X(ucp_am_recv_data_nbx)           \
    X(ucp_am_data_release)            \
    X(ucp_request_free)               \
    X(ucp_mem_map)                    \
    X(ucp_mem_unmap)                  \
    X(ucp_mem_query)

struct wf_ucx_lib {
/* It declares what it names. NOLINTNEXTLINE(bugprone-macro-parentheses) */
#define WF_UCX_POINTER(name) __typeof__(&(name)) name;
    WF_UCX_FUNCTIONS(WF_UCX_POINTER)
#undef WF_UCX_POINTER
    const char *(*ucs_status_string)(ucs_status_t status);
};

/* WEFT_E_SYSTEM: it is not there, or not whole. */
enum weft_status wf_ucx_lib_load(const struct wf_ucx_lib **out);

#endif
