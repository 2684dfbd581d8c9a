/* SPDX-License-Identifier: Apache-2.0
 *
 * Requests to an object store: libcurl's multi interface in an epoll instance of its own, signed by
 * libcurl's SigV4, tried again with exponential backoff and full jitter.
 *
 * A call is taken from a pool, filled in, started, and ends in its `done`, from wf_s3_http_run and
 * never from wf_s3_http_start; it goes back to the pool when `done` returns without having started
 * it anew.  What `done` learns is the outcome after all tries.  One thread; nothing waits but
 * wf_s3_http_run, as long as it is told.
 *
 * The body of every request is hashed (SHA-256) and the hash signed, so that a server refuses what
 * the way to it has changed.
 */
#ifndef WF_TIER_S3_HTTP_H
#define WF_TIER_S3_HTTP_H

#include <curl/curl.h>

#include "tier/s3_credentials.h"
#include "tier/s3_target.h"

#define WF_S3_TRIES 6u          /* of one call */
#define WF_S3_BACKOFF_MS 50u    /* before the second try, at most; doubles */
#define WF_S3_BACKOFF_MAX 5000u /* and stops there */
#define WF_S3_ERROR_MAX 4096u   /* of an error's body */

enum wf_s3_outcome {
    WF_S3_DONE = 0,
    WF_S3_MISSING, /* no such object (or upload) */
    WF_S3_THERE,   /* there already, where it had to be new */
    WF_S3_BROKEN,  /* tries used up, or an answer that makes no sense */
    WF_S3_GONE,    /* the bucket, or our right to use it */
    WF_S3_CANCELLED,
};

enum wf_s3_method { WF_S3_GET, WF_S3_PUT, WF_S3_POST, WF_S3_DELETE };

struct wf_s3_http;

struct wf_s3_call {
    /* The caller's, all zero when taken: */
    enum wf_s3_method method;
    const char *url;        /* NULL: `name` and `query` at the target, signed */
    const char *headers[2]; /* with a url of one's own */
    char name[64];          /* "": the bucket itself */
    char query[WF_S3_QUERY_MAX];
    const void *body; /* PUT, POST; borrowed until done */
    uint64_t body_bytes;
    uint64_t from, bytes; /* GET of a range; bytes 0: all */
    bool new;             /* PUT: only if there is none */
    bool impatient;       /* one try, short timeouts */
    uint8_t *room;        /* for the answer, unless there is a `take` */
    uint64_t room_bytes;
    /* The answer's bytes as they come; false ends the try.  `restart` is before each try. */
    bool (*take)(struct wf_s3_call *call, const uint8_t *data, size_t bytes);
    void (*restart)(struct wf_s3_call *call);
    void (*done)(void *context, struct wf_s3_call *call);
    void *user;
    uint64_t number, tag;
    uint32_t slot, step;

    /* The answer: */
    enum wf_s3_outcome outcome;
    long status;
    uint64_t got; /* bytes of it */
    char etag[128];
    char error[160]; /* a sentence's end: what was the matter */

    /* Inside: */
    struct wf_s3_http *http;
    CURL *easy;
    struct curl_slist *list;
    struct wf_s3_call *next;
    uint64_t sent, again_ms, retry_after_ms;
    uint32_t tries;
    uint8_t state;
    bool renewed;
    char hash[65];
    char said[WF_S3_ERROR_MAX];
    uint32_t said_bytes;
    time_t date, modified;
};

struct wf_s3_http {
    CURLM *multi;
    int epoll, timer;
    uint64_t curl_at, wake_at; /* ms; 0: never */
    struct wf_s3_call *calls, *free, *waiting;
    uint32_t calls_count, calls_used;
    struct wf_s3_target target;
    struct wf_s3_credentials credentials;
    char provider[128];
    uint32_t stall_seconds;
    uint64_t random;
    void *context;       /* of every `done` */
    uint64_t body_bytes; /* sent in whole requests that were answered well */
    uint64_t got_bytes;  /* of answers that were taken, also of those that came again */
    uint64_t retries;
    bool stale; /* the server says that our credentials have expired */
};

enum weft_status wf_s3_http_open(struct wf_s3_http *http, uint32_t calls, void *context);
void wf_s3_http_close(struct wf_s3_http *http);

/* NULL: all are in use. */
struct wf_s3_call *wf_s3_http_take(struct wf_s3_http *http);
void wf_s3_http_give(struct wf_s3_http *http, struct wf_s3_call *call);
void wf_s3_http_start(struct wf_s3_http *http, struct wf_s3_call *call);
/* Ends it now: `done` is called with WF_S3_CANCELLED before this returns. */
void wf_s3_http_cancel(struct wf_s3_http *http, struct wf_s3_call *call);
/* All that are under way, and why. */
void wf_s3_http_cancel_all(struct wf_s3_http *http, const char *why);

/* Let things go on; waits up to timeout_ms for something to do. */
void wf_s3_http_run(struct wf_s3_http *http, uint32_t timeout_ms);

/* Have the epoll descriptor readable at that time (ms of the monotonic clock; 0: not). */
void wf_s3_http_wake_at(struct wf_s3_http *http, uint64_t at_ms);

/* What an answer means, and whether another try may end better. */
enum wf_s3_outcome wf_s3_judge(long status, const char *code, bool *out_again);

uint64_t wf_s3_random(struct wf_s3_http *http);

#endif
