/* SPDX-License-Identifier: Apache-2.0 */
#include "member/etcd_http.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "member/etcd_text.h"
#include "sys/clock.h"
#include "sys/memory.h"

#define STEP_NS_MAX 1000000000u /* of one wait, so that no clock can stop it for good */

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void curl_begin(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_ALL);
}

static bool append(struct wf_etcd_buffer *buffer, const char *data, size_t bytes)
{
    if (bytes > WF_ETCD_ANSWER_MAX - buffer->used)
        return false;
    if (buffer->used + bytes > buffer->room) {
        size_t room = buffer->room ? buffer->room : 4096;
        while (room < buffer->used + bytes)
            room *= 2;
        char *moved = wf_realloc(buffer->bytes, room, "etcd's answer");
        if (!moved)
            return false;
        buffer->bytes = moved;
        buffer->room = room;
    }
    memcpy(buffer->bytes + buffer->used, data, bytes);
    buffer->used += bytes;
    return true;
}

/* What one long answer took is not kept for the short ones that follow. */
static void clear(struct wf_etcd_buffer *buffer)
{
    buffer->used = 0;
    if (buffer->room <= (size_t)256 << 10)
        return;
    free(buffer->bytes);
    *buffer = (struct wf_etcd_buffer){0};
}

static size_t on_answer(char *data, size_t one, size_t bytes, void *user)
{
    struct wf_etcd_http *http = user;
    return append(&http->answer, data, bytes * one) ? bytes : 0;
}

static size_t on_stream(char *data, size_t one, size_t bytes, void *user)
{
    struct wf_etcd_http *http = user;
    size_t left = bytes * one;
    while (left) {
        const char *end = memchr(data, '\n', left);
        size_t length = end ? (size_t)(end - data) : left;
        if (!append(&http->line, data, length)) {
            snprintf(http->stream_error, sizeof http->stream_error,
                     "a line of the watch is longer than %zu bytes", WF_ETCD_ANSWER_MAX);
            return 0;
        }
        length += end != NULL;
        data += length;
        left -= length;
        if (!end)
            break;
        if (http->line.used && !http->line_read(http->context, http->line.bytes, http->line.used))
            return 0;
        clear(&http->line);
    }
    return bytes;
}

static CURL *make_easy(struct wf_etcd_http *http, char *error)
{
    CURL *e = curl_easy_init();
    if (!e)
        return NULL;
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L); /* no waiting for a resolver that hangs */
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(e, CURLOPT_POST, 1L);
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, http->target->tls ? "https" : "http");
    curl_easy_setopt(e, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 5L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 2L);
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (http->ca)
        curl_easy_setopt(e, CURLOPT_CAINFO, http->ca);
    if (http->certificate)
        curl_easy_setopt(e, CURLOPT_SSLCERT, http->certificate);
    if (http->key)
        curl_easy_setopt(e, CURLOPT_SSLKEY, http->key);
    return e;
}

enum weft_status wf_etcd_http_open(struct wf_etcd_http *http)
{
    pthread_once(&curl_once, curl_begin);
    if (curl_ready == CURLE_OK) {
        http->multi = curl_multi_init();
        http->ask = make_easy(http, http->ask_error);
        http->stream = make_easy(http, http->stream_error);
    }
    if (http->multi && http->ask && http->stream) {
        curl_easy_setopt(http->ask, CURLOPT_WRITEFUNCTION, on_answer);
        curl_easy_setopt(http->ask, CURLOPT_WRITEDATA, http);
        /* Or the next question would have to wait for a connection in the place of that one. */
        curl_easy_setopt(http->stream, CURLOPT_FRESH_CONNECT, 1L);
        curl_easy_setopt(http->stream, CURLOPT_WRITEFUNCTION, on_stream);
        curl_easy_setopt(http->stream, CURLOPT_WRITEDATA, http);
        return WEFT_OK;
    }
    wf_etcd_http_close(http);
    return wf_fail(WEFT_E_NO_MEMORY, "libcurl has no memory to begin with");
}

void wf_etcd_http_close(struct wf_etcd_http *http)
{
    if (http->stream)
        wf_etcd_http_stream_end(http);
    curl_easy_cleanup(http->stream);
    curl_easy_cleanup(http->ask);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    free(http->answer.bytes);
    free(http->line.bytes);
    http->stream = http->ask = NULL;
    http->multi = NULL;
    http->answer = http->line = (struct wf_etcd_buffer){0};
}

const char *wf_etcd_http_endpoint(const struct wf_etcd_http *http)
{
    return http->target->endpoints[http->endpoint];
}

void wf_etcd_http_next(struct wf_etcd_http *http)
{
    http->endpoint = (http->endpoint + 1) % http->target->count;
}

void wf_etcd_http_wake(struct wf_etcd_http *http)
{
    (void)curl_multi_wakeup(http->multi);
}

/* ------------------------------------------------------------------------- letting it go on */

static void reap(struct wf_etcd_http *http)
{
    int left;
    const CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        if (message->msg != CURLMSG_DONE)
            continue;
        if (message->easy_handle == http->ask) {
            http->asking = false;
            http->asked = message->data.result;
        } else if (http->streaming) {
            long code = 0;
            curl_easy_getinfo(http->stream, CURLINFO_RESPONSE_CODE, &code);
            if (!http->stream_error[0])
                snprintf(http->stream_error, sizeof http->stream_error,
                         "the watch has ended (HTTP %ld)", code);
            wf_etcd_http_stream_end(http);
        }
    }
}

/* Until `until_ns`, or something has ended, or somebody wakes us; at most one wait. */
static void go_on(struct wf_etcd_http *http, uint64_t until_ns)
{
    const bool asking = http->asking, streaming = http->streaming;
    int running;
    (void)curl_multi_perform(http->multi, &running);
    reap(http);
    uint64_t now = wf_now_ns(), at = http->tick_at(http->context);
    if (at > until_ns)
        at = until_ns;
    if (at <= now || asking != http->asking || streaming != http->streaming)
        return;
    uint64_t wait_ns = at - now < STEP_NS_MAX ? at - now : STEP_NS_MAX;
    (void)curl_multi_poll(http->multi, NULL, 0, (int)((wait_ns + 999999) / 1000000), NULL);
    (void)curl_multi_perform(http->multi, &running);
    reap(http);
}

void wf_etcd_http_wait(struct wf_etcd_http *http, uint64_t timeout_ns)
{
    uint64_t now = wf_now_ns();
    (void)http->tick(http->context);
    go_on(http, timeout_ns < UINT64_MAX - now ? now + timeout_ns : UINT64_MAX);
}

/* ------------------------------------------------------------------------------- requests */

static struct curl_slist *make_headers(const char *token)
{
    char line[WF_ETCD_TOKEN_MAX + 32];
    struct curl_slist *list = curl_slist_append(NULL, "Content-Type: application/json");
    if (!list || !token[0])
        return list;
    snprintf(line, sizeof line, "Authorization: %s", token);
    struct curl_slist *longer = curl_slist_append(list, line);
    if (!longer)
        curl_slist_free_all(list);
    return longer;
}

/* The body is copied; the list of headers is the caller's, until the request has ended. */
static enum weft_status start(struct wf_etcd_http *http, CURL *e, const char *path,
                              const char *body, struct curl_slist *headers, long connect_ms)
{
    char url[WF_ETCD_ENDPOINT_MAX + 80];
    snprintf(url, sizeof url, "%s://%s%s", http->target->tls ? "https" : "http",
             wf_etcd_http_endpoint(http), path);
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, connect_ms);
    curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
    if (!headers || curl_easy_setopt(e, CURLOPT_COPYPOSTFIELDS, body) != CURLE_OK ||
        curl_multi_add_handle(http->multi, e) != CURLM_OK)
        return wf_fail(WEFT_E_NO_MEMORY, "no memory for a request to etcd");
    return WEFT_OK;
}

/* What there is to do about it that there is no TLS; NULL: it is not that. */
static const char *tls_mend(const struct wf_etcd_http *http)
{
    switch (http->asked) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "see to fabric.registry_ca, and that the certificate there names this host";
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return "see to fabric.registry_ca, fabric.certificate and fabric.key";
    case CURLE_SSL_CONNECT_ERROR:
        return strstr(http->ask_error, "wrong version number")
                   ? "it speaks none there; write etcd:// in fabric.join"
                   : "if it speaks none, write etcd:// in fabric.join; else see to "
                     "fabric.registry_ca, fabric.certificate and fabric.key";
    default: break; /* who is refused in TLS 1.3 hears of it when it reads */
    }
    return http->target->tls && strstr(http->ask_error, "alert")
               ? "it does not accept this node's; see to fabric.certificate and fabric.key"
               : NULL;
}

static enum weft_status outcome(const struct wf_etcd_http *http, bool cancelled)
{
    const char *mend = tls_mend(http);
    const char *error = http->ask_error[0] ? http->ask_error : curl_easy_strerror(http->asked);
    if (cancelled)
        return WEFT_PENDING;
    if (http->asked == CURLE_OK)
        return WEFT_OK;
    if (http->asked == CURLE_WRITE_ERROR)
        return wf_fail(WEFT_E_NODE, "etcd at %s answers more than %zu bytes; is it something else?",
                       wf_etcd_http_endpoint(http), WF_ETCD_ANSWER_MAX);
    if (mend)
        return wf_fail(WEFT_E_NODE, "no TLS with etcd at %s: %.100s; %s",
                       wf_etcd_http_endpoint(http), error, mend);
    /* What an etcd that speaks TLS alone does to who does not. */
    bool hangs_up = http->asked == CURLE_GOT_NOTHING && !http->target->tls;
    return wf_fail(WEFT_E_NODE, "etcd at %s does not answer: %s%s", wf_etcd_http_endpoint(http),
                   error, hangs_up ? "; if it speaks TLS, write etcds:// in fabric.join" : "");
}

/* What the connection took, when there had to be one first: as much again as an answer may, at most
 * (CURLOPT_CONNECTTIMEOUT_MS).  Of a network where each round trip is slow, that is a round trip or
 * several, and who counted them with the answer would never have one. */
static uint64_t connected_ns(const struct wf_etcd_http *http)
{
    curl_off_t us = 0;
    if (http->hurry || curl_easy_getinfo(http->ask, CURLINFO_PRETRANSFER_TIME_T, &us) != CURLE_OK)
        return 0;
    return us > 0 ? (uint64_t)us * 1000u : 0;
}

enum weft_status wf_etcd_http_ask(struct wf_etcd_http *http, const char *path, const char *body,
                                  const char *token, uint32_t timeout_ms, long *out_code)
{
    struct curl_slist *headers = make_headers(token);
    const uint64_t least_ns = wf_now_ns() + (uint64_t)timeout_ms * 1000000u;
    uint64_t until_ns = least_ns;
    bool cancelled = false;
    clear(&http->answer);
    http->ask_error[0] = '\0';
    http->asked = CURLE_OPERATION_TIMEDOUT;
    enum weft_status status = start(http, http->ask, path, body, headers, (long)timeout_ms);
    if (status == WEFT_OK) {
        http->asking = true;
        while (http->asking && !cancelled && wf_now_ns() < until_ns) {
            cancelled = !http->tick(http->context);
            if (!cancelled)
                go_on(http, until_ns);
            until_ns = least_ns + connected_ns(http);
        }
        if (http->asking && !cancelled)
            snprintf(http->ask_error, sizeof http->ask_error, "not within %u ms", timeout_ms);
        http->asking = false;
        (void)curl_multi_remove_handle(http->multi, http->ask);
        status = outcome(http, cancelled);
        curl_easy_getinfo(http->ask, CURLINFO_RESPONSE_CODE, out_code);
    }
    curl_easy_setopt(http->ask, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    return status;
}

enum weft_status wf_etcd_http_stream(struct wf_etcd_http *http, const char *path, const char *body,
                                     const char *token, uint32_t connect_ms)
{
    wf_etcd_http_stream_end(http);
    http->stream_error[0] = '\0';
    http->stream_headers = make_headers(token);
    enum weft_status status = start(http, http->stream, path, body, http->stream_headers,
                                    (long)connect_ms);
    http->streaming = status == WEFT_OK;
    return status;
}

void wf_etcd_http_stream_end(struct wf_etcd_http *http)
{
    if (http->streaming)
        (void)curl_multi_remove_handle(http->multi, http->stream);
    curl_easy_setopt(http->stream, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(http->stream_headers);
    http->stream_headers = NULL;
    http->streaming = false;
    clear(&http->line);
}
