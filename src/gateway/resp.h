/* SPDX-License-Identifier: Apache-2.0
 *
 * The RESP gateway: what speaks to Redis, or LMCache's remote backends, speaks to the node.
 *
 * It lives in weftd and is a client of it all the same: over libweft, on threads of its own, so
 * that nothing of a stranger's bytes is ever looked at on the owner's thread, and what libweft does
 * for others (quotas, eviction, tiers, checksums) it does here.
 *
 *     client ── TCP ── lane (epoll) ── store (dictionary) ── pool (blocks) ── libweft ── owner
 *
 * It is a cache: what was SET may be gone at any time, and is when weftd starts again.  A GET is
 * answered with what the last SET of that key brought, whole, or with nil.
 */
#ifndef WF_GATEWAY_RESP_H
#define WF_GATEWAY_RESP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define WF_RESP_THREADS_MAX 32u

struct wf_resp_domain {
    const char *name, *token; /* "": no token, and no AUTH by it */
};

struct wf_resp_options {
    const char *address;  /* numeric */
    uint16_t port;        /* 0: any free one */
    const char *password; /* "": none is asked */
    const char *socket;   /* the node's own */
    const struct wf_resp_domain *domains;
    size_t domain_count;
    const char *domain; /* whose blocks a client has that named none */
    uint64_t pool_bytes;
    uint32_t threads, clients_max;
    uint64_t keys_max, small_bytes; /* of each domain's dictionary */
    uint32_t stall_ms; /* in the middle of a command, or not reading its answer; 0: for ever */
    uint32_t idle_ms;  /* between commands; 0: for ever */
    bool strict;       /* a SET that finds no room is an error, and not dropped */
};

struct wf_resp;

/* Listen; who connects is answered once the node's loop runs.  Everything is copied. */
enum weft_status wf_resp_start(const struct wf_resp_options *options, struct wf_resp **out);

/* The node is about to stop: nothing new is put, what is pending is committed, no room is kept. */
void wf_resp_drain(struct wf_resp *resp);

/* Ends its threads and connections.  NULL is allowed. */
void wf_resp_stop(struct wf_resp *resp);

uint16_t wf_resp_port(const struct wf_resp *resp);

struct wf_resp_figures {
    uint64_t clients, connections, refused, commands, gets, hits, sets, dropped, evicted, expired,
        lost, protocol_errors, auth_failures, stalled, bytes_in, bytes_out;
    uint64_t keys, memory_bytes, value_bytes;
};
void wf_resp_figures(struct wf_resp *resp, struct wf_resp_figures *out);

#endif
