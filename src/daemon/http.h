/* SPDX-License-Identifier: Apache-2.0
 *
 * The node's HTTP: GET (and HEAD) of /metrics, /healthz, /v1/status, /v1/events?cursor=N, and POST
 * of /v1/route.
 *
 * It has no thread: the owner's epoll loop watches wf_http_epoll_fd() and calls wf_http_run() when
 * that is readable, and when wf_http_timeout_ms() has passed.  Handlers therefore run on the owner
 * thread.
 *
 * Caps: 64 connections, 16 KiB of header and 1 MiB of body a request, 10 s without a byte.  Beyond
 * them a connection is refused or closed; the node goes on.
 *
 * Who may ask: with a token, whoever sends it as `Authorization: Bearer`.  Without one only this
 * host, and only under a name that means this host, because a web page could have its own name
 * resolve to 127.0.0.1 and read the answers in its visitor's browser (DNS rebinding).  A body must
 * say that it is JSON, which a page of another origin may not without asking first.
 */
#ifndef WF_DAEMON_HTTP_H
#define WF_DAEMON_HTTP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

#define WF_HTTP_CONNECTIONS_MAX 64
#define WF_HTTP_HEADER_BYTES_MAX (16 * 1024)
#define WF_HTTP_IDLE_SECONDS 10
#define WF_HTTP_BODY_MAX (1024u * 1024u)

/* Each text is malloc()ed for the answer, which frees it; NULL answers 500. */
struct wf_http_handlers {
    void *context;
    char *(*metrics_text)(void *context);
    char *(*status_json)(void *context);
    char *(*events_json)(void *context, uint64_t cursor);
    bool (*draining)(void *context);
    /* The answer to a body of POST /v1/route, and its status.  It checks who may ask about the
     * domain that the body names, whatever private_pages says. */
    char *(*route_json)(void *context, const char *body, size_t bytes, unsigned *out_status);
    /* What the pages say is not for every user of this host, as with several domains: without a
     * token only /healthz answers. */
    bool private_pages;
};

struct wf_http;

/* Listen on a numeric address; port 0 takes any free one.  `handlers` is copied.  WEFT_E_DENIED:
 * the address is not loopback and `token` is "" or NULL.  WEFT_E_SYSTEM: the port is taken, and the
 * like. */
enum weft_status wf_http_start(const char *address, uint16_t port, const char *token,
                               const struct wf_http_handlers *handlers, struct wf_http **out);

/* Close the listener and every connection.  NULL is allowed. */
void wf_http_stop(struct wf_http *http);

uint16_t wf_http_port(const struct wf_http *http);
int wf_http_epoll_fd(const struct wf_http *http);

/* Do what can be done without waiting: of bodies up to 32 pieces of 8 KiB, until the first question
 * is answered.  More may be left, for which no event comes: see wf_http_timeout_ms(). */
void wf_http_run(struct wf_http *http);

/* When wf_http_run() is due even if nothing becomes readable; -1: never. */
int wf_http_timeout_ms(const struct wf_http *http);

#endif
