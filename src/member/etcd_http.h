/* SPDX-License-Identifier: Apache-2.0
 *
 * HTTP as etcd's gateway wants it: one request at a time, which is waited for, and a stream beside
 * it that goes on all the while.  One thread, but for wf_etcd_http_wake().
 *
 * All goes to one endpoint until wf_etcd_http_next() says the next.  Nothing is followed, nothing
 * goes by a proxy, answers and lines have a cap.
 */
#ifndef WF_MEMBER_ETCD_HTTP_H
#define WF_MEMBER_ETCD_HTTP_H

#include <curl/curl.h>

#include "member/etcd_target.h"

#define WF_ETCD_ANSWER_MAX ((size_t)8 << 20) /* of an answer, and of a line of a stream */

struct wf_etcd_buffer {
    char *bytes;
    size_t used, room;
};

struct wf_etcd_http {
    const struct wf_etcd_target *target;
    const char *ca, *certificate, *key; /* borrowed */
    uint32_t endpoint;                  /* in use */
    CURLM *multi;
    CURL *ask, *stream;
    char ask_error[CURL_ERROR_SIZE], stream_error[CURL_ERROR_SIZE];
    struct curl_slist *stream_headers;
    struct wf_etcd_buffer answer, line;
    bool asking, streaming;
    CURLcode asked; /* how it went */
    bool hurry;     /* the time for an answer is that for its connection, too */
    /* The user's: */
    void *context;
    bool (*line_read)(void *context, const char *line, size_t bytes); /* false: end the stream */
    bool (*tick)(void *context);        /* before each wait; false: give up what is asked */
    uint64_t (*tick_at)(void *context); /* and at that time, ns of wf_now_ns() */
};

/* `http` is zero but for target, the files and the user's. */
enum weft_status wf_etcd_http_open(struct wf_etcd_http *http);
void wf_etcd_http_close(struct wf_etcd_http *http);

/* POST `body` to `path`, "/v3/…", and wait for so long; as long again for a connection, where there
 * is none yet.  token "": none.  WEFT_OK: *out_code is HTTP's, and the answer is
 * in http->answer until the next request.  WEFT_E_NODE: there is none, or it is too
 * long; WEFT_PENDING: tick gave up. */
enum weft_status wf_etcd_http_ask(struct wf_etcd_http *http, const char *path, const char *body,
                                  const char *token, uint32_t timeout_ms, long *out_code);

/* Begin a stream, in place of the one that there is.  http->streaming is false when it has ended.
 */
enum weft_status wf_etcd_http_stream(struct wf_etcd_http *http, const char *path, const char *body,
                                     const char *token, uint32_t connect_ms);
void wf_etcd_http_stream_end(struct wf_etcd_http *http);

/* Let the stream go on, for so long at most, until it has ended or somebody wakes us. */
void wf_etcd_http_wait(struct wf_etcd_http *http, uint64_t timeout_ns);

/* From any thread. */
void wf_etcd_http_wake(struct wf_etcd_http *http);

const char *wf_etcd_http_endpoint(const struct wf_etcd_http *http);
void wf_etcd_http_next(struct wf_etcd_http *http);

#endif
