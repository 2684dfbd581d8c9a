/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <microhttpd.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/log.h"
#include "daemon/config.h"
#include "daemon/metrics.h"
#include "sys/memory.h"

struct wf_http {
    struct MHD_Daemon *daemon;
    struct wf_http_handlers handlers;
    char token[WF_TOKEN_MAX + 1]; /* zeroes after its end, for a comparison of fixed length */
    uint16_t port;
    int epoll_fd;
    /* Of the last MHD_run(): pieces of bodies, after which more may be there without an event, and
     * questions that were answered. */
    uint32_t pieces, answered;
};

#define PIECES_A_RUN 32 /* of half of a connection's 16 KiB: 256 KiB */

#define JSON_TYPE "application/json"
#define BODY_TOO_LARGE 413

/* A request that was admitted, and what came of its body. */
struct request {
    size_t bytes, room;
    char *body; /* NULL: nothing */
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
                              const char *header, const char *header_value, char *text)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(strlen(text), text,
                                                                    MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return MHD_NO; /* closes this connection, which is all that is left to do without memory */
    }
    enum MHD_Result queued = MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (queued == MHD_YES)
        queued = MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (queued == MHD_YES && header)
        queued = MHD_add_response_header(response, header, header_value);
    if (queued == MHD_YES)
        queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

/* {"error": sentence} */
static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status,
                              const char *header, const char *header_value, const char *sentence)
{
    json_t *object = json_pack("{s:s}", "error", sentence);
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    return text ? answer(connection, status, JSON_TYPE, header, header_value, text) : MHD_NO;
}

static enum MHD_Result answer_made(struct MHD_Connection *connection, const char *type, char *text)
{
    if (!text)
        return refuse(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL,
                      "the node has no memory for this answer; try again later");
    return answer(connection, MHD_HTTP_OK, type, NULL, NULL, text);
}

/* --------------------------------------------------------------------------------- who may ask */

/* The time taken says nothing about how much of the token is right. */
static bool token_is_right(const struct wf_http *http, const char *header)
{
    static const char scheme[] = "Bearer ";
    char given[sizeof http->token] = {0};
    if (!header || strncasecmp(header, scheme, strlen(scheme)) != 0)
        return false;
    header += strlen(scheme);
    size_t length = strnlen(header, sizeof given);
    memcpy(given, header, length < sizeof given ? length : sizeof given);
    return CRYPTO_memcmp(given, http->token, sizeof given) == 0;
}

/* "localhost", "127.0.0.1:9464", "[::1]" and the like. */
static bool host_is_local(const char *host)
{
    char name[64];
    size_t length;
    if (!host)
        return true; /* HTTP/1.0: no browser sends that */
    if (host[0] == '[') {
        host++;
        length = strcspn(host, "]");
    } else {
        length = strcspn(host, ":");
    }
    if (length >= sizeof name)
        return false;
    memcpy(name, host, length);
    name[length] = '\0';
    return strcasecmp(name, "localhost") == 0 || wf_config_is_loopback(name);
}

/* -------------------------------------------------------------------------------- what it says */

static bool read_cursor(const char *text, uint64_t *out)
{
    char *end;
    if (!text) {
        *out = 0;
        return true;
    }
    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end)
        return false;
    *out = value;
    return true;
}

static enum MHD_Result health(const struct wf_http *http, struct MHD_Connection *connection)
{
    bool draining = http->handlers.draining(http->handlers.context);
    char *text = strdup(draining ? "draining\n" : "ok\n");
    return text ? answer(connection, draining ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK,
                         "text/plain", NULL, NULL, text)
                : MHD_NO;
}

static enum MHD_Result events(const struct wf_http *http, struct MHD_Connection *connection)
{
    uint64_t cursor;
    if (!read_cursor(MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "cursor"),
                     &cursor))
        return refuse(connection, MHD_HTTP_BAD_REQUEST, NULL, NULL,
                      "cursor is not a number; use 0, or `next` or `last` of an answer before");
    return answer_made(connection, JSON_TYPE,
                       http->handlers.events_json(http->handlers.context, cursor));
}

enum page { NO_PAGE, METRICS, HEALTH, STATUS, EVENTS, ROUTE };

static enum page page_of(const char *url)
{
    static const char *const urls[] = {[METRICS] = "/metrics",
                                       [HEALTH] = "/healthz",
                                       [STATUS] = "/v1/status",
                                       [EVENTS] = "/v1/events",
                                       [ROUTE] = "/v1/route"};
    for (size_t i = METRICS; i <= ROUTE; i++)
        if (strcmp(url, urls[i]) == 0)
            return (enum page)i;
    return NO_PAGE;
}

/* A body that may come. */
static enum MHD_Result admit_body(struct MHD_Connection *connection, const char *method,
                                  bool *out_refused)
{
    const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                                   MHD_HTTP_HEADER_CONTENT_TYPE);
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                                     MHD_HTTP_HEADER_CONTENT_LENGTH);
    if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, MHD_HTTP_HEADER_ALLOW, "POST",
                      "/v1/route takes a question as JSON; POST it");
    if (!type || strncasecmp(type, JSON_TYPE, strlen(JSON_TYPE)) != 0)
        return refuse(connection, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, NULL, NULL,
                      "/v1/route takes JSON; send it as `Content-Type: application/json`");
    /* Libmicrohttpd has checked that it is a number. */
    if (length && strtoull(length, NULL, 10) > WF_HTTP_BODY_MAX)
        return refuse(
            connection, BODY_TOO_LARGE, NULL, NULL,
            "the body is larger than 1 MiB; send keys instead of tokens, or fewer of them");
    *out_refused = false;
    return MHD_YES;
}

/* Who asks, for what, and how; MHD_YES when all is well and nothing was answered yet. */
static enum MHD_Result admit(const struct wf_http *http, struct MHD_Connection *connection,
                             const char *url, const char *method, bool *out_refused)
{
    const char *given = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                                    MHD_HTTP_HEADER_AUTHORIZATION);
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
                                                   MHD_HTTP_HEADER_HOST);
    *out_refused = true;
    if (http->token[0] && !token_is_right(http, given))
        return refuse(connection, MHD_HTTP_UNAUTHORIZED, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer",
                      "this node asks for http.token; send it as `Authorization: Bearer TOKEN`");
    if (!http->token[0] && !host_is_local(host))
        return refuse(
            connection, MHD_HTTP_FORBIDDEN, NULL, NULL,
            "this node answers to localhost and loopback addresses only; ask under one of these, "
            "or "
            "set http.token");
    if (page_of(url) == NO_PAGE)
        return refuse(connection, MHD_HTTP_NOT_FOUND, NULL, NULL,
                      "there is no such page; there are /metrics, /healthz, /v1/status, "
                      "/v1/events?cursor=N and, to POST to, /v1/route");
    if (page_of(url) == ROUTE)
        return admit_body(connection, method, out_refused);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, MHD_HTTP_HEADER_ALLOW, "GET, HEAD",
                      "this node is only read over HTTP; use GET");
    if (http->handlers.private_pages && !http->token[0] && page_of(url) != HEALTH)
        return refuse(
            connection, MHD_HTTP_FORBIDDEN, NULL, NULL,
            "this node has several domains, whose figures are not for every user of this host; set "
            "http.token and send it");
    *out_refused = false;
    return MHD_YES;
}

/* False: it is more than it may be, or than there is memory for. */
static bool body_add(struct request *request, const char *data, size_t bytes)
{
    if (bytes > WF_HTTP_BODY_MAX - request->bytes)
        return false;
    if (bytes > request->room - request->bytes) {
        size_t room = request->room ? 2 * request->room : 16384;
        while (room < request->bytes + bytes)
            room *= 2;
        char *body = realloc(request->body, room);
        if (!body)
            return false;
        request->body = body;
        request->room = room;
    }
    memcpy(request->body + request->bytes, data, bytes);
    request->bytes += bytes;
    return true;
}

static void completed(void *context, struct MHD_Connection *connection, void **request,
                      enum MHD_RequestTerminationCode code)
{
    (void)context, (void)connection, (void)code;
    struct request *of = *request;
    if (of)
        free(of->body);
    free(of);
    *request = NULL;
}

static enum MHD_Result route(struct wf_http *http, struct MHD_Connection *connection,
                             const struct request *request)
{
    unsigned status = MHD_HTTP_OK;
    http->answered++;
    char *text = http->handlers.route_json(http->handlers.context,
                                           request->body ? request->body : "", request->bytes,
                                           &status);
    return text ? answer(connection, status, JSON_TYPE, NULL, NULL, text)
                : answer_made(connection, JSON_TYPE, NULL);
}

/* libmicrohttpd calls once when the headers are there, for each piece of a body, and once when all
 * is there.  A refusal goes out at the first, which closes the connection and spares us the body;
 * an answer at the last, which keeps it. */
static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_bytes, void **request)
{
    struct wf_http *http = context;
    const struct wf_http_handlers *handlers = &http->handlers;
    (void)version;
    if (!*request) {
        bool refused;
        enum MHD_Result result = admit(http, connection, url, method, &refused);
        if (refused)
            return result;
        *request = wf_calloc(1, sizeof(struct request), "an HTTP request");
        return *request ? MHD_YES : MHD_NO;
    }
    if (*upload_bytes) { /* of a GET it is nobody of ours */
        if (page_of(url) != ROUTE || !body_add(*request, upload, *upload_bytes))
            return MHD_NO;
        *upload_bytes = 0;
        http->pieces++;
        return MHD_YES;
    }
    switch (page_of(url)) {
    case METRICS:
        return answer_made(connection, WF_METRICS_CONTENT_TYPE,
                           handlers->metrics_text(handlers->context));
    case STATUS:
        return answer_made(connection, JSON_TYPE, handlers->status_json(handlers->context));
    case HEALTH: return health(http, connection);
    case EVENTS: return events(http, connection);
    case ROUTE: return route(http, connection, *request);
    case NO_PAGE: break;
    }
    return MHD_NO;
}

/* ------------------------------------------------------------------------------ start and stop */

union socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static enum weft_status make_address(const char *address, uint16_t port, union socket_address *out)
{
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, address, &out->v4.sin_addr) == 1) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons(port);
        return WEFT_OK;
    }
    if (inet_pton(AF_INET6, address, &out->v6.sin6_addr) == 1) {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons(port);
        return WEFT_OK;
    }
    return wf_fail(WEFT_E_INVALID,
                   "http.listen: '%.64s' is not a numeric address; write it like 127.0.0.1",
                   address);
}

static enum weft_status listen_on(struct wf_http *http, const char *address, uint16_t port)
{
    union socket_address bound;
    enum weft_status status = make_address(address, port, &bound);
    if (status != WEFT_OK)
        return status;
    unsigned flags = MHD_USE_EPOLL | (bound.any.sa_family == AF_INET6 ? MHD_USE_IPv6 : 0);
    errno = 0;
    http->daemon = MHD_start_daemon(flags, port, NULL, NULL, handle, http, MHD_OPTION_SOCK_ADDR,
                                    &bound.any, MHD_OPTION_CONNECTION_LIMIT,
                                    (unsigned)WF_HTTP_CONNECTIONS_MAX,
                                    MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)WF_HTTP_IDLE_SECONDS,
                                    MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                    (size_t)WF_HTTP_HEADER_BYTES_MAX, MHD_OPTION_STRICT_FOR_CLIENT,
                                    1, MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
                                    MHD_OPTION_END);
    if (!http->daemon)
        return wf_fail(WEFT_E_SYSTEM,
                       "cannot listen on %s port %u: %s; set http.listen to a free port, or off",
                       address, port, errno ? strerror(errno) : "libmicrohttpd would not start");
    const union MHD_DaemonInfo *epoll = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    const union MHD_DaemonInfo *listener = MHD_get_daemon_info(http->daemon,
                                                               MHD_DAEMON_INFO_BIND_PORT);
    if (!epoll || epoll->epoll_fd < 0 || !listener || !listener->port) {
        MHD_stop_daemon(http->daemon);
        return wf_fail(WEFT_E_SYSTEM, "this libmicrohttpd has no epoll; set http.listen to off");
    }
    http->epoll_fd = epoll->epoll_fd;
    http->port = listener->port;
    return WEFT_OK;
}

enum weft_status wf_http_start(const char *address, uint16_t port, const char *token,
                               const struct wf_http_handlers *handlers, struct wf_http **out)
{
    size_t token_length = token ? strlen(token) : 0;
    if (token_length > WF_TOKEN_MAX)
        return wf_fail(WEFT_E_INVALID, "http.token is %zu bytes long; at most %d fit", token_length,
                       WF_TOKEN_MAX);
    if (!token_length && !wf_config_is_loopback(address))
        return wf_fail(
            WEFT_E_DENIED,
            "http.listen: '%.64s' can be reached from other hosts and asks for nothing; set "
            "http.token, or listen on 127.0.0.1",
            address);
    struct wf_http *http = wf_calloc(1, sizeof *http, "the HTTP listener");
    if (!http)
        return WEFT_E_NO_MEMORY;
    http->handlers = *handlers;
    if (token_length)
        memcpy(http->token, token, token_length);
    enum weft_status status = listen_on(http, address, port);
    if (status != WEFT_OK) {
        free(http);
        return status;
    }
    *out = http;
    return WEFT_OK;
}

void wf_http_stop(struct wf_http *http)
{
    if (!http)
        return;
    MHD_stop_daemon(http->daemon);
    OPENSSL_cleanse(http->token, sizeof http->token);
    free(http);
}

uint16_t wf_http_port(const struct wf_http *http)
{
    return http->port;
}

int wf_http_epoll_fd(const struct wf_http *http)
{
    return http->epoll_fd;
}

void wf_http_run(struct wf_http *http)
{
    uint32_t pieces = 0;
    do { /* each reads once from each connection */
        http->pieces = http->answered = 0;
        if (MHD_run(http->daemon) != MHD_YES)
            wf_warn("http", "libmicrohttpd could not do its work this time: %s", strerror(errno));
        pieces += http->pieces;
    } while (http->pieces && !http->answered && pieces < PIECES_A_RUN);
}

int wf_http_timeout_ms(const struct wf_http *http)
{
    MHD_UNSIGNED_LONG_LONG ms;
    if (http->pieces)
        return 0;
    if (MHD_get_timeout(http->daemon, &ms) != MHD_YES)
        return -1;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}
